//! `/pypi/`: a simple index of Python packages for installing, in front of another one.

pub mod page;
pub mod path;

use axum::extract::{FromRequestParts, Request, State};
use axum::http::header::LOCATION;
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use shared::domain::Ecosystem;
use shared::openapi::{RegistryErrors, tag};
use shared::principal;
use shared::registry::Registries;
use shared::registry::download::{PackageFile, send_on, to_place};
use shared::registry::metadata::{self, Form};
use shared::registry::upstream::{Document, Fetched, Upstream};
use shared::{ApiError, App, RegistryUser, accept};
use url::Url;
use utoipa::{OpenApi, ToSchema};
use utoipa_axum::router::OpenApiRouter;

use crate::page::Format;
use crate::path::{File, FilePath, Place, Places, Project, Resource};

const JSON: &str = "application/vnd.pypi.simple.v1+json";
const HTML: &str = "application/vnd.pypi.simple.v1+html";

/// What an upstream is asked for, for a caller that reads JSON: an older one has HTML alone.
const JSON_OR_HTML: &str =
    "application/vnd.pypi.simple.v1+json, application/vnd.pypi.simple.v1+html;q=0.2, text/html;q=0.1";

/// What an upstream is asked for, for a caller that reads HTML.
const HTML_ALONE: &str = "application/vnd.pypi.simple.v1+html;q=0.2, text/html;q=0.1";

const UNREADABLE: ApiError = ApiError::BadGateway("The index behind this one answered what is no simple index.");

type User = RegistryUser<principal::RegistryPypi>;

/// What the OpenAPI document says of it.
#[derive(OpenApi)]
#[openapi(paths(project, file))]
struct Description;

/// The routes of this function: everything below the index's root. What lies where, [`Resource`] says: where files lie,
/// has any number of folders.
pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::with_openapi(Description::openapi()).route("/pypi/{*path}", any(serve))
}

async fn serve(State(app): State<App>, request: Request) -> Result<Response, ApiError> {
    let (mut parts, _) = request.into_parts();
    // Whoever may not call, is told nothing else.
    let user = User::from_request_parts(&mut parts, &app).await?;
    let resource = Resource::parse(parts.uri.path().strip_prefix("/pypi/").unwrap_or_default());
    if parts.method != Method::GET && parts.method != Method::HEAD {
        return Err(ApiError::MethodNotAllowed("GET, HEAD".to_owned()));
    }
    let call = Call { app: &app, registries: app.registries()?, user: &user, parts: &parts };
    user.answered(&app, call.answer(resource.ok_or(ApiError::NotFound)?)).await
}

/// A request whose token is good.
struct Call<'a> {
    app: &'a App,
    registries: &'a Registries,
    user: &'a User,
    parts: &'a Parts,
}

/// A project's files, as PEP 691 writes them. Only the places of files are ours; hashes, attestations and all else are the
/// upstream's.
#[derive(ToSchema)]
#[schema(as = PypiProject)]
#[expect(dead_code, reason = "only its description is used: metadata passes through")]
struct ProjectPage {
    /// The project, normalised.
    #[schema(example = "widgets")]
    name: String,
    /// Its files, each with a `url` at this index.
    files: Vec<serde_json::Value>,
}

/// The files of a Python project
///
/// In JSON (PEP 691) or HTML (PEP 503), by `Accept`. Another spelling of the name is answered 301 with the normalised one.
/// `HEAD` is answered too.
#[utoipa::path(
    get,
    path = "/pypi/simple/{project}/",
    operation_id = "registry-pypi",
    tag = tag::REGISTRIES,
    params(("project" = String, Path, description = "The project, normalised as PEP 503 says", example = "widgets")),
    responses(
        (status = 200, description = "The files, with the upstream's `ETag` in ours.", content(
            (ProjectPage = "application/vnd.pypi.simple.v1+json"),
            (String = "text/html"),
        )),
        (status = 301, description = "The project has another name, or the path ends in a slash.", headers(
            ("Location" = String, description = "Where it is, relative to the request.")
        )),
        (status = 304, description = "They are as the caller has them, by `If-None-Match`."),
        RegistryErrors,
    ),
)]
async fn project(call: &Call<'_>, project: &Project) -> Result<Response, ApiError> {
    let (settings, headers) = (&call.registries.settings, &call.parts.headers);
    let root = format!("{}/pypi/files/", call.registries.base_url(headers)?);
    let upstream = call.upstream()?;
    let form = Form::of(&[&root, &settings.pypi_file_hosts.join(","), upstream.as_str()]);
    let places = Places { upstream, hosts: &settings.pypi_file_hosts, root: &root };
    call.page(&project.path(), form, |name, url| places.for_callers(project, name, url)).await
}

/// A file of a Python project
///
/// The answer says where the upstream keeps it; the download is logged with who and what. The list of a project's files
/// has the paths, which may have more parts than this; `.metadata` behind one is the file's metadata (PEP 658).
#[utoipa::path(
    get,
    path = "/pypi/files/{project}/{file}",
    operation_id = "registry-pypi-file",
    tag = tag::REGISTRIES,
    params(
        ("project" = String, Path, description = "The project, normalised as PEP 503 says", example = "widgets"),
        ("file" = String, Path, description = "The file", example = "widgets-1.0-py3-none-any.whl"),
    ),
    responses(
        (status = 302, description = "Where the file lies.", headers(
            ("Location" = String, description = "Where the upstream keeps it.")
        )),
        RegistryErrors,
    ),
)]
async fn file(call: &Call<'_>, path: &FilePath) -> Result<Response, ApiError> {
    let FilePath { file, place } = path;
    let place = match place {
        Place::Upstream(path) => call.upstream()?.on_host(path),
        Place::Host(host, path) => {
            let is_known = call.registries.settings.pypi_file_hosts.contains(host);
            match is_known.then(|| Url::parse(&format!("https://{host}{path}"))) {
                Some(Ok(place)) => place,
                // Lock files may name a host that files lay on once; whether they still do, the metadata says.
                _ => call.place_of(file).await?,
            }
        }
        Place::ByMetadata => call.place_of(file).await?,
    };
    if file.companion.is_some() {
        return to_place(call.app, call.parts, &place);
    }
    let logged = PackageFile {
        ecosystem: Ecosystem::Pypi,
        package: file.project.as_str().to_owned(),
        version: file.version.clone(),
        name: file.name.clone(),
    };
    send_on(call.app, call.user, call.parts, logged, &place).await
}

impl Call<'_> {
    fn upstream(&self) -> Result<&Upstream, ApiError> {
        let upstream = self.registries.settings.pypi.as_ref();
        upstream.ok_or(ApiError::BadGateway("No Python index is configured behind this one."))
    }

    async fn answer(&self, resource: Resource) -> Result<Response, ApiError> {
        match resource {
            Resource::Index => self.index().await,
            Resource::Project(name) => project(self, &name).await,
            Resource::Misspelled(place) => Ok((StatusCode::MOVED_PERMANENTLY, [(LOCATION, place)]).into_response()),
            Resource::File(path) => file(self, &path).await,
        }
    }

    /// The list of all projects. It names no files; in HTML its links lead to the projects' pages, which are ours.
    async fn index(&self) -> Result<Response, ApiError> {
        self.page("", Form::of(&[]), |_, url| last_folder(url)).await
    }

    /// A page of the upstream, with places as `place` says.
    async fn page(&self, path: &str, form: Form, place: impl Fn(&str, &Url) -> String) -> Result<Response, ApiError> {
        let (url, headers) = (self.upstream()?.join(path), &self.parts.headers);
        match self.registries.fetch(url, wanted(headers), form.known(headers)).await? {
            Fetched::NotModified(etag) => Ok(metadata::not_modified(form, etag.as_ref())),
            Fetched::Document(Document { url, content_type, etag, body }) => {
                let format = Format::of(&content_type).ok_or(UNREADABLE)?;
                let page = format.rewritten(&body, &url, place).map_err(unreadable)?;
                // Two of these are enough for the memory of a function.
                drop(body);
                metadata::answer(headers, form, etag, format.content_type(), page)
            }
        }
    }

    /// Where a file lies, by the upstream's metadata.
    async fn place_of(&self, file: &File) -> Result<Url, ApiError> {
        let page = self.registries.fetch_whole(self.upstream()?.join(&file.project.path()), JSON_OR_HTML).await?;
        let format = Format::of(&page.content_type).ok_or(UNREADABLE)?;
        let place = format.place_of(&file.name, &page.body, &page.url).map_err(unreadable)?;
        Ok(file.beside(&place.ok_or(ApiError::PackageNotFound)?))
    }
}

/// What an upstream is asked for, for this caller.
fn wanted(headers: &HeaderMap) -> &'static str {
    let json = accept::wanted(headers, &[JSON, "application/vnd.pypi.simple.latest+json"]);
    let html = accept::wanted(headers, &[HTML, "application/vnd.pypi.simple.latest+html", "text/html"]);
    // HTML is what there was before there was a choice.
    if json > 0 && json >= html { JSON_OR_HTML } else { HTML_ALONE }
}

/// The last folder of a URL, relative to the folder above it.
fn last_folder(url: &Url) -> String {
    let name = url.path().trim_end_matches('/').rsplit('/').next().unwrap_or_default();
    format!("{name}/")
}

fn unreadable(error: page::Unreadable) -> ApiError {
    tracing::warn!(%error, "the upstream's page is unreadable");
    UNREADABLE
}
