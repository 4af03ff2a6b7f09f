//! `/npm/`: a read-only npm registry in front of an upstream registry.

mod notice;
pub mod packument;
pub mod path;

use std::error::Error;

use axum::Json as AnswerJson;
use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::Method;
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use http_body_util::LengthLimitError;
use serde::Serialize;
use shared::domain::Ecosystem;
use shared::error::NOT_IN_REGISTRY;
use shared::openapi::{RegistryErrors, tag};
use shared::permissions;
use shared::registry::download::PackageFile;
use shared::registry::metadata::{self, Variant};
use shared::registry::splice::{Edit, Spliced};
use shared::registry::upstream::{Document, Upstream};
use shared::registry::{Call, TOKEN_IN_PATH, has_token, holder_name};
use shared::{ApiError, RegistryApp, RegistryUser, accept};
use utoipa::{OpenApi, ToSchema};
use utoipa_axum::router::OpenApiRouter;

use crate::packument::{Places, tarball_of};
use crate::path::{Package, Resource, Tarball};

/// The body size limit of an audit request, in bytes as sent.
const LARGEST_AUDIT: usize = 4 * 1024 * 1024;

/// Abbreviated metadata, which suffices to install.
const ABBREVIATED: &str = "application/vnd.npm.install-v1+json";

/// The `Accept` header for abbreviated metadata, as npm sends it: falls back to full metadata.
const ABBREVIATED_OR_FULL: &str = "application/vnd.npm.install-v1+json; q=1.0, application/json; q=0.8, */*";

/// Full metadata.
const FULL: &str = "application/json";

const NOT_OFFERED: ApiError = ApiError::NotOffered(
    "This registry does not offer this function of npm, such as search, teams or a list of tokens. It serves packages.",
);

const NO_LOGIN: ApiError = ApiError::Refused(
    "This registry has no accounts to log in to. Get a token from your organization, or by mail from /api/v1/tokens, \
     and set it as _authToken of this registry in .npmrc.",
);

const UNREADABLE: ApiError = ApiError::BadGateway("The upstream registry returned invalid npm metadata.");

type User = RegistryUser<permissions::RegistryNpm>;

/// The OpenAPI description of this function.
#[derive(OpenApi)]
#[openapi(paths(package, tarball))]
struct Description;

/// The routes of this function: every path below the registry root. [`Resource`] parses them,
/// because package names contain slashes, encoded or not, which the router cannot handle.
pub fn routes() -> OpenApiRouter<RegistryApp> {
    OpenApiRouter::with_openapi(Description::openapi()).route("/npm/{*path}", any(serve))
}

async fn serve(State(app): State<RegistryApp>, request: Request) -> Result<Response, ApiError> {
    let (mut parts, body) = request.into_parts();
    let path = parts.uri.path().strip_prefix("/npm/").unwrap_or_default().to_owned();
    let resource = Resource::parse(&path);
    match resource {
        // Whoever logs in has no token yet.
        Some(Resource::Login) => return Err(NO_LOGIN),
        Some(Resource::Logout) if parts.method != Method::DELETE => {
            return Err(ApiError::MethodNotAllowed("DELETE".to_owned()));
        }
        _ => {}
    }
    // Authenticate first; reveal nothing to others.
    let file = match &resource {
        Some(Resource::Tarball(file) | Resource::TarballByMetadata(file)) => Some(logged(file)),
        _ => None,
    };
    let user = User::let_in(&mut parts, &app, file.as_ref()).await?;
    let npm = Npm(Call { app: &app, user: &user, parts: &parts });
    // What is refused from here on is a use of the token too.
    let answer = async {
        let resource = match resource {
            Some(Resource::NotOffered) => return Err(NOT_OFFERED),
            // A path that is not exactly the one of `npm logout`, which is another function's.
            Some(Resource::Logout) => return Err(if has_token(&path) { TOKEN_IN_PATH } else { NOT_IN_REGISTRY }),
            None if has_token(&path) => return Err(TOKEN_IN_PATH),
            resource => resource,
        };
        let allowed = if resource.as_ref().is_some_and(Resource::is_posted) { "POST" } else { "GET, HEAD" };
        if !allowed.split(", ").any(|method| method == parts.method.as_str()) {
            return Err(ApiError::MethodNotAllowed(allowed.to_owned()));
        }
        npm.answer(resource.ok_or(NOT_IN_REGISTRY)?, body).await
    };
    let answer = user.with_use_recorded(&app.app, answer).await?;
    Ok(notice::add(answer, &parts.headers, user.holder.as_ref(), app.app.clock().now()))
}

/// A call to the npm registry.
struct Npm<'a>(Call<'a, permissions::RegistryNpm>);

/// `npm ping` expects an object.
#[derive(Serialize)]
struct Pong {}

/// The caller's name.
#[derive(Serialize)]
struct Whoami {
    username: String,
}

/// The metadata of a package, in npm's format. Only the file URLs are rewritten; everything else,
/// including hashes and signatures, is unchanged.
#[derive(ToSchema)]
#[schema(as = NpmPackage)]
#[expect(dead_code, reason = "only its description is used: metadata passes through")]
struct PackageMetadata {
    /// The package name.
    #[schema(example = "@example/widgets")]
    name: String,
    /// The versions, each with `dist.tarball` at this registry.
    versions: std::collections::HashMap<String, serde_json::Value>,
}

/// Get the metadata of an npm package
///
/// Meant for package managers; docs/TOUR.md has the settings for each. Returns abbreviated metadata
/// for `Accept: application/vnd.npm.install-v1+json`, unless `application/json` has a higher weight,
/// else full metadata. Also supports `HEAD`.
#[utoipa::path(
    get,
    path = "/npm/{package}",
    operation_id = "registry-npm",
    tag = tag::REGISTRIES,
    params(("package" = String, Path, description = "The package: `name` or `@scope%2fname`", example = "@example%2fwidgets")),
    responses(
        (status = 200, description = "The metadata, with an `ETag`.", content(
            (PackageMetadata = "application/json"),
            (PackageMetadata = "application/vnd.npm.install-v1+json"),
        ), headers(
            ("npm-notice" = String, description = "In the last week of an org user token: how many days are left. npm prints it.")
        )),
        (status = 304, description = "Not modified: the `ETag` matches `If-None-Match`."),
        RegistryErrors,
    ),
)]
async fn package(npm: &Npm<'_>, package: &Package) -> Result<Response, ApiError> {
    let [abbreviated, full] = [ABBREVIATED, FULL].map(|kind| accept::media_weight(&npm.0.parts.headers, &[kind]));
    let accept = if abbreviated > 0 && abbreviated >= full { ABBREVIATED_OR_FULL } else { FULL };
    npm.metadata(&package.path(), accept, |places, body| places.in_packument(package, body)).await
}

/// Download a file of an npm package
///
/// Redirects to the file at the upstream registry. Downloads with an org user token are recorded in
/// the installation log.
#[utoipa::path(
    get,
    path = "/npm/{package}/-/{file}",
    operation_id = "registry-npm-file",
    tag = tag::REGISTRIES,
    params(
        ("package" = String, Path, description = "The package: `name` or `@scope%2fname`", example = "@example%2fwidgets"),
        ("file" = String, Path, description = "The file name, as in `dist.tarball`", example = "widgets-1.0.0.tgz"),
    ),
    responses(
        (status = 302, description = "A redirect to the file.", headers(("Location" = String, description = "The URL of the file at the upstream registry."))),
        RegistryErrors,
    ),
)]
async fn tarball(npm: &Npm<'_>, file: &Tarball) -> Result<Response, ApiError> {
    let place = npm.upstream()?.join(&file.path());
    npm.0.redirect_to_file(logged(file), &place).await
}

impl Npm<'_> {
    async fn answer(&self, resource: Resource, body: Body) -> Result<Response, ApiError> {
        match resource {
            Resource::Package(name) => package(self, &name).await,
            Resource::Version(package, version) => self.version(&package, &version).await,
            Resource::Tarball(file) => tarball(self, &file).await,
            Resource::TarballByMetadata(file) => self.tarball_by_metadata(&file).await,
            Resource::Whoami => self.whoami().await,
            Resource::Ping => Ok(AnswerJson(Pong {}).into_response()),
            Resource::Keys => self.pass_through("-/npm/v1/keys").await,
            Resource::Tags(package) => self.pass_through(&format!("-/package/{}/dist-tags", package.path())).await,
            Resource::Attestations(package, version) => {
                self.pass_through(&format!("-/npm/v1/attestations/{}", package.attestations_path(&version))).await
            }
            Resource::Advisories => self.audit("-/npm/v1/security/advisories/bulk", body).await,
            Resource::Audit => self.audit("-/npm/v1/security/audits", body).await,
            Resource::QuickAudit => self.audit("-/npm/v1/security/audits/quick", body).await,
            // Answered before authentication, or without an upstream.
            Resource::Login | Resource::Logout | Resource::NotOffered => Err(NOT_OFFERED),
        }
    }

    fn upstream(&self) -> Result<&Upstream, ApiError> {
        let upstream = self.0.app.registries.settings.npm.as_ref();
        upstream
            .ok_or(ApiError::BadGateway("No upstream npm registry is configured. Ask the operator of this service."))
    }

    async fn version(&self, package: &Package, version: &str) -> Result<Response, ApiError> {
        let path = package.version_path(version);
        self.metadata(&path, FULL, |places, body| places.in_manifest(package, body)).await
    }

    /// Fetches metadata from this path of the upstream registry and rewrites its file URLs.
    async fn metadata(
        &self,
        path: &str,
        accept: &'static str,
        rewrite: impl FnOnce(&Places<'_>, &str) -> serde_json::Result<Vec<Edit>>,
    ) -> Result<Response, ApiError> {
        let upstream = self.upstream()?;
        let root = self.0.app.registries.root_url(Ecosystem::Npm, self.0.parts)?;
        // The upstream may send one tag for abbreviated and full metadata.
        let variant = Variant::of(&[&root, upstream.as_str(), accept]);
        let rewrite = |Document { content_type, body, .. }: Document| {
            let content_type = if content_type == ABBREVIATED { ABBREVIATED } else { FULL };
            let places = Places { upstream, root: &root };
            let edits = rewrite(&places, readable(&body)?).map_err(unreadable)?;
            Ok((content_type, Spliced::new(body, edits)))
        };
        self.0.metadata(upstream.join(path), accept, variant, rewrite).await
    }

    /// A file at a URL that only the upstream's metadata tells.
    async fn tarball_by_metadata(&self, file: &Tarball) -> Result<Response, ApiError> {
        let packument = self.upstream()?.join(&file.package.path());
        let document = self.0.app.registries.fetch_document(packument, ABBREVIATED_OR_FULL).await?;
        let place = tarball_of(&file.version, readable(&document.body)?).map_err(unreadable)?;
        self.0.redirect_to_file(logged(file), &place.ok_or(ApiError::PackageNotFound)?).await
    }

    /// Passes on a JSON document of the upstream registry, unchanged.
    async fn pass_through(&self, path: &str) -> Result<Response, ApiError> {
        let document = self.0.app.registries.fetch_document(self.upstream()?.join(path), FULL).await?;
        unchanged(self.0.parts, document)
    }

    /// Passes on an audit request to the upstream registry.
    async fn audit(&self, path: &str, body: Body) -> Result<Response, ApiError> {
        let body = to_bytes(body, LARGEST_AUDIT).await.map_err(|error| match error.source() {
            Some(source) if source.is::<LengthLimitError>() => ApiError::PayloadTooLarge("4 MiB"),
            _ => ApiError::Malformed("The request body could not be read."),
        })?;
        let url = self.upstream()?.join(path);
        let document = self.0.app.registries.post(url, &self.0.parts.headers, body).await?;
        unchanged(self.0.parts, document)
    }

    async fn whoami(&self) -> Result<Response, ApiError> {
        let username = match &self.0.user.holder {
            Some(holder) => holder_name(&self.0.app.app, &holder.token).await?,
            None => "anonymous".to_owned(),
        };
        Ok(AnswerJson(Whoami { username }).into_response())
    }
}

/// A JSON document of the upstream registry, unchanged.
fn unchanged(parts: &Parts, document: Document) -> Result<Response, ApiError> {
    let Document { content_type, etag, body, .. } = document;
    if content_type != FULL {
        tracing::warn!("the upstream response is not JSON");
        return Err(UNREADABLE);
    }
    readable(&body)?;
    metadata::answer(parts, &Variant::of(&[]), etag, FULL, body.into())
}

fn readable(body: &[u8]) -> Result<&str, ApiError> {
    str::from_utf8(body).map_err(|_| UNREADABLE)
}

fn unreadable(error: serde_json::Error) -> ApiError {
    tracing::warn!(line = error.line(), column = error.column(), "the upstream metadata could not be parsed");
    UNREADABLE
}

fn logged(file: &Tarball) -> PackageFile {
    PackageFile {
        ecosystem: Ecosystem::Npm,
        package: file.package.to_string(),
        version: file.version.clone(),
        name: file.file.clone(),
    }
}
