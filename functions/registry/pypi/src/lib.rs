//! `/pypi/`: a read-only simple index of Python packages in front of an upstream index.

pub mod link;
pub mod page;
pub mod path;

use axum::extract::{Request, State};
use axum::http::header::LOCATION;
use axum::http::{HeaderMap, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use shared::domain::Ecosystem;
use shared::error::NOT_IN_REGISTRY;
use shared::openapi::{RegistryErrors, tag};
use shared::permissions;
use shared::registry::download::PackageFile;
use shared::registry::metadata::Variant;
use shared::registry::upstream::{Document, Upstream};
use shared::registry::{Call, TOKEN_IN_PATH, has_token};
use shared::{ApiError, RegistryApp, RegistryUser, accept};
use url::Url;
use utoipa::{OpenApi, ToSchema};
use utoipa_axum::router::OpenApiRouter;

use crate::link::Link;
use crate::page::Format;
use crate::path::{File, FilePath, Place, Places, Project, Resource};

const JSON: &str = "application/vnd.pypi.simple.v1+json";
const HTML: &str = "application/vnd.pypi.simple.v1+html";

/// The `Accept` header for callers that prefer JSON. Falls back to HTML, since older indexes have
/// no JSON.
const JSON_OR_HTML: &str =
    "application/vnd.pypi.simple.v1+json, application/vnd.pypi.simple.v1+html;q=0.2, text/html;q=0.1";

/// The `Accept` header for callers that prefer HTML.
const HTML_ALONE: &str = "application/vnd.pypi.simple.v1+html;q=0.2, text/html;q=0.1";

const NO_INDEX: ApiError = ApiError::NotOffered(
    "This index does not list all projects, only the files of one: /pypi/simple/<project>/. \
     For a devpi mirror, set mirror_no_project_list.",
);

const UNREADABLE: ApiError = ApiError::BadGateway("The upstream index returned an invalid simple index page.");

type User = RegistryUser<permissions::RegistryPypi>;

/// The OpenAPI description of this function.
#[derive(OpenApi)]
#[openapi(paths(project, file))]
struct Description;

/// The routes of this function: every path below the index root. [`Resource`] parses them, because
/// file paths have any number of segments.
pub fn routes() -> OpenApiRouter<RegistryApp> {
    OpenApiRouter::with_openapi(Description::openapi()).route("/pypi/{*path}", any(serve))
}

async fn serve(State(app): State<RegistryApp>, request: Request) -> Result<Response, ApiError> {
    let (mut parts, _) = request.into_parts();
    let path = parts.uri.path().strip_prefix("/pypi/").unwrap_or_default().to_owned();
    let resource = Resource::parse(&path);
    // Authenticate first; reveal nothing to others.
    let file = match &resource {
        Some(Resource::File(FilePath { file, .. })) if file.companion.is_none() => Some(logged(file)),
        _ => None,
    };
    let user = User::let_in(&mut parts, &app, file.as_ref()).await?;
    let pypi = Pypi(Call { app: &app, user: &user, parts: &parts });
    // What is refused from here on is a use of the token too.
    let answer = async {
        if resource.is_none() && has_token(&path) {
            return Err(TOKEN_IN_PATH);
        }
        if parts.method != Method::GET && parts.method != Method::HEAD {
            return Err(ApiError::MethodNotAllowed("GET, HEAD".to_owned()));
        }
        pypi.answer(resource.ok_or(NOT_IN_REGISTRY)?).await
    };
    user.with_use_recorded(&app.app, answer).await
}

/// A call to the Python package index.
struct Pypi<'a>(Call<'a, permissions::RegistryPypi>);

/// The files of a project, in the format of PEP 691. Only the file URLs are rewritten; everything
/// else, including hashes and attestations, is unchanged.
#[derive(ToSchema)]
#[schema(as = PypiProject)]
#[expect(dead_code, reason = "only its description is used: metadata passes through")]
struct ProjectPage {
    /// The normalized project name.
    #[schema(example = "widgets")]
    name: String,
    /// The files, each with a `url` at this index.
    files: Vec<serde_json::Value>,
}

/// List the files of a Python project
///
/// Meant for package managers; docs/TOUR.md has the settings for each. Returns JSON (PEP 691) or
/// HTML (PEP 503), by `Accept`. Other spellings of the name redirect to the normalized name. Also
/// supports `HEAD`.
#[utoipa::path(
    get,
    path = "/pypi/simple/{project}/",
    operation_id = "registry-pypi",
    tag = tag::REGISTRIES,
    params(("project" = String, Path, description = "The project name, normalized (PEP 503)", example = "widgets")),
    responses(
        (status = 200, description = "The files, with an `ETag`.", content(
            (ProjectPage = "application/vnd.pypi.simple.v1+json"),
            (String = "text/html"),
        )),
        (status = 301, description = "A redirect to the normalized name with a trailing slash.", headers(
            ("Location" = String, description = "The path of the project, relative to the request URL.")
        )),
        (status = 304, description = "Not modified: the `ETag` matches `If-None-Match`."),
        RegistryErrors,
    ),
)]
async fn project(pypi: &Pypi<'_>, project: &Project) -> Result<Response, ApiError> {
    let (settings, headers) = (&pypi.0.app.registries.settings, &pypi.0.parts.headers);
    let root = format!("{}files/", pypi.0.app.registries.root_url(Ecosystem::Pypi, pypi.0.parts)?);
    let upstream = pypi.upstream()?;
    // The upstream may send one tag for HTML and JSON.
    let variant = Variant::of(&[&root, &settings.pypi_file_hosts.join(","), upstream.as_str(), wanted(headers)]);
    let places = Places::new(project, upstream, &settings.pypi_file_hosts, &root);
    pypi.page(&project.path(), variant, |name, link| places.for_callers(name, link)).await
}

/// Download a file of a Python project
///
/// Redirects to the file at the upstream index. Downloads with an org user token are recorded in
/// the installation log. The list of files has the paths, which may have more segments than this
/// one. Append `.metadata` for the file's metadata (PEP 658).
#[utoipa::path(
    get,
    path = "/pypi/files/{project}/{file}",
    operation_id = "registry-pypi-file",
    tag = tag::REGISTRIES,
    params(
        ("project" = String, Path, description = "The project name, normalized (PEP 503)", example = "widgets"),
        ("file" = String, Path, description = "The file name", example = "widgets-1.0-py3-none-any.whl"),
    ),
    responses(
        (status = 302, description = "A redirect to the file.", headers(
            ("Location" = String, description = "The URL of the file at the upstream index.")
        )),
        RegistryErrors,
    ),
)]
async fn file(pypi: &Pypi<'_>, path: &FilePath) -> Result<Response, ApiError> {
    let FilePath { file, place } = path;
    let place = match place {
        Place::Upstream(path) => pypi.upstream()?.on_host(path),
        Place::Host(host, path) => {
            let is_known = pypi.0.app.registries.settings.pypi_file_hosts.contains(host);
            match is_known.then(|| Url::parse(&format!("https://{host}{path}"))) {
                Some(Ok(place)) => place,
                // A lock file may name a former file host; the metadata tells where the file is
                // now.
                _ => pypi.place_of(file).await?,
            }
        }
        Place::ByMetadata => pypi.place_of(file).await?,
    };
    if file.companion.is_some() {
        return pypi.0.redirect(&place);
    }
    pypi.0.redirect_to_file(logged(file), &place).await
}

fn logged(file: &File) -> PackageFile {
    PackageFile {
        ecosystem: Ecosystem::Pypi,
        package: file.project.as_str().to_owned(),
        version: file.version.clone(),
        name: file.name.clone(),
    }
}

impl Pypi<'_> {
    fn upstream(&self) -> Result<&Upstream, ApiError> {
        let upstream = self.0.app.registries.settings.pypi.as_ref();
        upstream
            .ok_or(ApiError::BadGateway("No upstream Python index is configured. Ask the operator of this service."))
    }

    async fn answer(&self, resource: Resource) -> Result<Response, ApiError> {
        match resource {
            Resource::Index => Err(NO_INDEX),
            Resource::Project(name) => project(self, &name).await,
            Resource::Misspelled(place) => Ok((StatusCode::MOVED_PERMANENTLY, [(LOCATION, place)]).into_response()),
            Resource::File(path) => file(self, &path).await,
        }
    }

    /// Fetches a page of the upstream index and replaces its URLs by those that `place` returns.
    async fn page(
        &self,
        path: &str,
        variant: Variant,
        place: impl Fn(&str, &Link<'_>) -> String,
    ) -> Result<Response, ApiError> {
        let (url, accept) = (self.upstream()?.join(path), wanted(&self.0.parts.headers));
        let rewrite = |Document { url, content_type, body, .. }: Document| {
            let format = Format::of(&content_type).ok_or(UNREADABLE)?;
            Ok((format.content_type(), format.rewritten(body, url, place).map_err(unreadable)?))
        };
        self.0.metadata(url, accept, variant, rewrite).await
    }

    /// The URL of a file, from the upstream's metadata.
    async fn place_of(&self, file: &File) -> Result<Url, ApiError> {
        let page =
            self.0.app.registries.fetch_document(self.upstream()?.join(&file.project.path()), JSON_OR_HTML).await?;
        let format = Format::of(&page.content_type).ok_or(UNREADABLE)?;
        let place = format.place_of(&file.name, &page.body, page.url).map_err(unreadable)?;
        Ok(file.beside(&place.ok_or(ApiError::PackageNotFound)?))
    }
}

/// The `Accept` header for the upstream, by the caller's preference.
fn wanted(headers: &HeaderMap) -> &'static str {
    let json = accept::media_weight(headers, &[JSON, "application/vnd.pypi.simple.latest+json"]);
    let html = accept::media_weight(headers, &[HTML, "application/vnd.pypi.simple.latest+html", "text/html"]);
    // HTML is the default: it came before JSON.
    if json > 0 && json >= html { JSON_OR_HTML } else { HTML_ALONE }
}

fn unreadable(error: page::Unreadable) -> ApiError {
    tracing::warn!(%error, "the upstream page could not be parsed");
    UNREADABLE
}
