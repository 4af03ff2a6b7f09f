//! `/npm/`: an npm registry for installing, in front of another one.

pub mod packument;
pub mod path;

use std::error::Error;

use axum::Json as AnswerJson;
use axum::body::{Body, to_bytes};
use axum::extract::{FromRequestParts, Request, State};
use axum::http::HeaderMap;
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use http_body_util::LengthLimitError;
use serde::Serialize;
use shared::domain::Ecosystem;
use shared::openapi::{RegistryErrors, tag};
use shared::principal;
use shared::registry::download::{PackageFile, send_on};
use shared::registry::metadata::{self, Form};
use shared::registry::upstream::{Document, Fetched, Upstream};
use shared::registry::{Registries, holder_name};
use shared::{ApiError, App, RegistryUser, accept};
use utoipa::{OpenApi, ToSchema};
use utoipa_axum::router::OpenApiRouter;

use crate::packument::{Places, tarball_of};
use crate::path::{Package, Resource, Tarball};

/// The largest list of versions that is handed on to be audited, in bytes as it is sent.
const LARGEST_AUDIT: usize = 4 * 1024 * 1024;

/// Abbreviated metadata: what an installation needs.
const ABBREVIATED: &str = "application/vnd.npm.install-v1+json";

/// What an upstream is asked for, for a caller that takes abbreviated metadata: whoever has none answers all, as npm asks.
const ABBREVIATED_OR_FULL: &str = "application/vnd.npm.install-v1+json; q=1.0, application/json; q=0.8, */*";

/// All metadata.
const FULL: &str = "application/json";

const UNREADABLE: ApiError = ApiError::BadGateway("The registry behind this one answered what is no npm metadata.");

type User = RegistryUser<principal::RegistryNpm>;

/// What the OpenAPI document says of it.
#[derive(OpenApi)]
#[openapi(paths(package, tarball))]
struct Description;

/// The routes of this function: everything below the registry's root. What lies where, [`Resource`] says: names of
/// packages have slashes, encoded or not, which a router cannot tell apart.
pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::with_openapi(Description::openapi()).route("/npm/{*path}", any(serve))
}

async fn serve(State(app): State<App>, request: Request) -> Result<Response, ApiError> {
    let (mut parts, body) = request.into_parts();
    // Whoever may not call, is told nothing else.
    let user = User::from_request_parts(&mut parts, &app).await?;
    let resource = Resource::parse(parts.uri.path().strip_prefix("/npm/").unwrap_or_default());
    let allowed = if resource.as_ref().is_some_and(Resource::is_posted) { "POST" } else { "GET, HEAD" };
    if !allowed.split(", ").any(|method| method == parts.method.as_str()) {
        return Err(ApiError::MethodNotAllowed(allowed.to_owned()));
    }
    let call = Call { app: &app, registries: app.registries()?, user: &user, parts: &parts };
    user.answered(&app, call.answer(resource.ok_or(ApiError::NotFound)?, body)).await
}

/// A request whose token is good.
struct Call<'a> {
    app: &'a App,
    registries: &'a Registries,
    user: &'a User,
    parts: &'a Parts,
}

/// `npm ping` wants an object.
#[derive(Serialize)]
struct Pong {}

/// Who calls.
#[derive(Serialize)]
struct Whoami {
    username: String,
}

/// Metadata of a package, as npm registries write it. Only the places of files are ours; hashes, signatures and all else
/// are the upstream's.
#[derive(ToSchema)]
#[schema(as = NpmPackage)]
#[expect(dead_code, reason = "only its description is used: metadata passes through")]
struct PackageMetadata {
    /// The package.
    #[schema(example = "@example/widgets")]
    name: String,
    /// Its versions, each with `dist.tarball` at this registry.
    versions: std::collections::HashMap<String, serde_json::Value>,
}

/// Metadata of an npm package
///
/// Abbreviated for `Accept: application/vnd.npm.install-v1+json`, else whole. Set the registry up in a package manager;
/// see the README for the lines. `HEAD` is answered too.
#[utoipa::path(
    get,
    path = "/npm/{package}",
    operation_id = "registry-npm",
    tag = tag::REGISTRIES,
    params(("package" = String, Path, description = "The package: `name`, or `@scope%2fname`", example = "@example%2fwidgets")),
    responses(
        (status = 200, description = "The metadata, with its `ETag`.", content(
            (PackageMetadata = "application/json"),
            (PackageMetadata = "application/vnd.npm.install-v1+json"),
        )),
        (status = 304, description = "It is as the caller has it, by `If-None-Match`."),
        RegistryErrors,
    ),
)]
async fn package(call: &Call<'_>, package: &Package) -> Result<Response, ApiError> {
    let is_abbreviated = accept::wanted(&call.parts.headers, &[ABBREVIATED]) > 0;
    let accept = if is_abbreviated { ABBREVIATED_OR_FULL } else { FULL };
    call.metadata(&package.path(), accept, |places, body| places.in_packument(package, body)).await
}

/// A file of an npm package
///
/// The answer says where the upstream keeps it; the download is logged with who and what.
#[utoipa::path(
    get,
    path = "/npm/{package}/-/{file}",
    operation_id = "registry-npm-file",
    tag = tag::REGISTRIES,
    params(
        ("package" = String, Path, description = "The package: `name`, or `@scope%2fname`", example = "@example%2fwidgets"),
        ("file" = String, Path, description = "The file, as `dist.tarball` ends", example = "widgets-1.0.0.tgz"),
    ),
    responses(
        (status = 302, description = "Where the file lies.", headers(("Location" = String, description = "At the upstream."))),
        RegistryErrors,
    ),
)]
async fn tarball(call: &Call<'_>, file: &Tarball) -> Result<Response, ApiError> {
    let place = call.upstream()?.join(&file.path());
    send_on(call.app, call.user, call.parts, logged(file), &place).await
}

impl Call<'_> {
    async fn answer(&self, resource: Resource, body: Body) -> Result<Response, ApiError> {
        match resource {
            Resource::Package(name) => package(self, &name).await,
            Resource::Version(package, version) => self.version(&package, &version).await,
            Resource::Tarball(file) => tarball(self, &file).await,
            Resource::TarballByMetadata(file) => self.tarball_by_metadata(&file).await,
            Resource::Whoami => self.whoami().await,
            Resource::Ping => Ok(AnswerJson(Pong {}).into_response()),
            Resource::Keys => self.passed_on("-/npm/v1/keys").await,
            Resource::Tags(package) => self.passed_on(&format!("-/package/{}/dist-tags", package.path())).await,
            Resource::Attestations(package, version) => {
                self.passed_on(&format!("-/npm/v1/attestations/{}", package.attestations_path(&version))).await
            }
            Resource::Advisories => self.audit("-/npm/v1/security/advisories/bulk", body).await,
            Resource::Audit => self.audit("-/npm/v1/security/audits", body).await,
            Resource::QuickAudit => self.audit("-/npm/v1/security/audits/quick", body).await,
        }
    }

    fn upstream(&self) -> Result<&Upstream, ApiError> {
        let upstream = self.registries.settings.npm.as_ref();
        upstream.ok_or(ApiError::BadGateway("No npm registry is configured behind this one."))
    }

    async fn version(&self, package: &Package, version: &str) -> Result<Response, ApiError> {
        let path = package.version_path(version);
        self.metadata(&path, FULL, |places, body| places.in_manifest(package, body)).await
    }

    /// Metadata from this path of the upstream, rewritten.
    async fn metadata(
        &self,
        path: &str,
        accept: &'static str,
        rewrite: impl FnOnce(&Places<'_>, &str) -> serde_json::Result<Vec<u8>>,
    ) -> Result<Response, ApiError> {
        let (upstream, headers) = (self.upstream()?, &self.parts.headers);
        let root = format!("{}/npm/", self.registries.base_url(headers)?);
        let form = Form::of(&[&root, upstream.as_str()]);
        match self.registries.fetch(upstream.join(path), accept, form.known(headers)).await? {
            Fetched::NotModified(etag) => Ok(metadata::not_modified(form, etag.as_ref())),
            Fetched::Document(Document { content_type, etag, body, .. }) => {
                let content_type = if content_type == ABBREVIATED { ABBREVIATED } else { FULL };
                let places = Places { upstream, root: &root };
                let rewritten = rewrite(&places, readable(&body)?).map_err(unreadable)?;
                // Two of these are enough for the memory of a function.
                drop(body);
                metadata::answer(headers, form, etag, content_type, rewritten)
            }
        }
    }

    /// A file that lies where only the upstream's metadata says: the same that made us write this path.
    async fn tarball_by_metadata(&self, file: &Tarball) -> Result<Response, ApiError> {
        let packument = self.upstream()?.join(&file.package.path());
        let document = self.registries.fetch_whole(packument, ABBREVIATED_OR_FULL).await?;
        let place = tarball_of(&file.version, readable(&document.body)?).map_err(unreadable)?;
        send_on(self.app, self.user, self.parts, logged(file), &place.ok_or(ApiError::PackageNotFound)?).await
    }

    /// What an upstream says of itself, as it says it.
    async fn passed_on(&self, path: &str) -> Result<Response, ApiError> {
        let document = self.registries.fetch_whole(self.upstream()?.join(path), FULL).await?;
        unchanged(&self.parts.headers, document)
    }

    /// What is wrong with some versions, by the upstream.
    async fn audit(&self, path: &str, body: Body) -> Result<Response, ApiError> {
        let body = to_bytes(body, LARGEST_AUDIT).await.map_err(|error| match error.source() {
            Some(source) if source.is::<LengthLimitError>() => ApiError::PayloadTooLarge("4 MiB"),
            _ => ApiError::Malformed("The body could not be read."),
        })?;
        let headers = &self.parts.headers;
        let document = self.registries.post(self.upstream()?.join(path), headers, body).await?;
        unchanged(headers, document)
    }

    async fn whoami(&self) -> Result<Response, ApiError> {
        let username = match &self.user.holder {
            Some(holder) => holder_name(self.app, &holder.token).await?,
            None => "anonymous".to_owned(),
        };
        Ok(AnswerJson(Whoami { username }).into_response())
    }
}

/// What is no metadata of a package, as the upstream answered it.
fn unchanged(headers: &HeaderMap, document: Document) -> Result<Response, ApiError> {
    let Document { content_type, etag, body, .. } = document;
    if content_type != FULL {
        tracing::warn!("the upstream answered what is no JSON");
        return Err(UNREADABLE);
    }
    readable(&body)?;
    metadata::answer(headers, Form::of(&[]), etag, FULL, body)
}

fn readable(body: &[u8]) -> Result<&str, ApiError> {
    str::from_utf8(body).map_err(|_| UNREADABLE)
}

fn unreadable(error: serde_json::Error) -> ApiError {
    tracing::warn!(line = error.line(), column = error.column(), "the upstream's metadata is unreadable");
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
