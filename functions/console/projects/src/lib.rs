//! `/console/o/{org_id}/projects`: projects of the organization: list, add, remove.

use askama::Template;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::get;
use serde::Deserialize;
use shared::console::page::{Confirm, Fact};
use shared::console::{Form, Frame, MemberWith, Nav, html, see_other};
use shared::domain::ProjectId;
use shared::permissions::ConsoleProjects;
use shared::store::tokens::OrgAccessToken;
use shared::{ApiError, App, ConsoleApp};
use utoipa_axum::router::OpenApiRouter;

/// The routes of this function.
pub fn routes() -> OpenApiRouter<ConsoleApp> {
    OpenApiRouter::new()
        .route("/console/o/{org_id}/projects", get(list).post(add))
        .route("/console/o/{org_id}/projects/{project_id}/remove", get(ask).post(remove))
}

/// Tokens that are shown beside a project. More are counted.
const MOST_SHOWN: usize = 10;

#[derive(Template)]
#[template(path = "console/projects.html")]
struct ListPage {
    page: Frame,
    base: String,
    projects: Vec<ProjectRow>,
    project: String,
    project_error: &'static str,
    error: &'static str,
    message: &'static str,
}

struct ProjectRow {
    id: String,
    tokens: Vec<TokenLink>,
    /// How many tokens name the project, if they are more than are shown.
    all: String,
}

struct TokenLink {
    href: String,
    name: String,
}

/// The tokens that name a project.
fn naming<'a>(tokens: &'a [OrgAccessToken], project: &'a str) -> impl Iterator<Item = &'a OrgAccessToken> {
    tokens.iter().filter(move |token| token.access_config.projects.iter().any(|named| named.as_str() == project))
}

impl ListPage {
    async fn read(app: &App, caller: &MemberWith<ConsoleProjects>) -> Result<Self, ApiError> {
        let org = &caller.org.id;
        let (projects, tokens) = futures::try_join!(app.store().projects(org), app.store().org_access_tokens(org))?;
        let page = caller.frame(caller.m().projects, Nav::Projects)?;
        let base = page.base();
        let link = |token: &OrgAccessToken| TokenLink {
            href: format!("{base}/access-tokens/{}", token.id),
            name: token.name.as_str().to_owned(),
        };
        let row = |id: String| {
            let count = naming(&tokens, &id).count();
            ProjectRow {
                tokens: naming(&tokens, &id).take(MOST_SHOWN).map(link).collect(),
                all: if count > MOST_SHOWN { page.m.tokens_naming(count) } else { String::new() },
                id,
            }
        };
        let projects = projects.into_iter().map(row).collect();
        Ok(Self { projects, base, page, project: String::new(), project_error: "", error: "", message: "" })
    }
}

#[derive(Deserialize)]
struct Shown {
    added: Option<String>,
    removed: Option<String>,
}

async fn list(
    State(app): State<App>,
    caller: MemberWith<ConsoleProjects>,
    Query(shown): Query<Shown>,
) -> Result<Response, ApiError> {
    let m = caller.m();
    let message = match (shown.added, shown.removed) {
        (Some(_), _) => m.project_added,
        (None, Some(_)) => m.project_removed,
        (None, None) => "",
    };
    html(StatusCode::OK, &ListPage { message, ..ListPage::read(&app, &caller).await? })
}

#[derive(Deserialize)]
struct NewProject {
    #[serde(default)]
    project: String,
}

async fn add(
    State(app): State<App>,
    caller: MemberWith<ConsoleProjects>,
    form: Form<NewProject>,
) -> Result<Response, ApiError> {
    let (m, typed) = (caller.m(), form.fields.project);
    let project_error = match ProjectId::try_from(typed.clone()) {
        Err(_) => m.project_id_rule,
        Ok(project) => {
            if app.store().add_project(&caller.org.id, project.as_str(), &caller.caller).await? {
                return Ok(see_other(&format!("/console/o/{}/projects?added", caller.org.id)));
            }
            m.project_exists
        }
    };
    let page = ListPage::read(&app, &caller).await?;
    let refused = ListPage { project: typed, project_error, error: m.nothing_was_saved, ..page };
    html(StatusCode::BAD_REQUEST, &refused)
}

async fn ask(
    State(app): State<App>,
    caller: MemberWith<ConsoleProjects>,
    Path((_, id)): Path<(String, String)>,
) -> Result<Response, ApiError> {
    let (store, org) = (app.store(), &caller.org.id);
    let (projects, tokens) = futures::try_join!(store.projects(org), store.org_access_tokens(org))?;
    if !projects.contains(&id) {
        return Err(ApiError::NotFound);
    }
    let page = caller.frame(caller.m().remove_project, Nav::Projects)?;
    let m = page.m;
    let names: Vec<&str> = naming(&tokens, &id).map(|token| token.name.as_str()).collect();
    let named_by = if names.is_empty() { m.no_project.to_owned() } else { names.join(", ") };
    let confirm = Confirm {
        text: m.remove_project_text.to_owned(),
        facts: vec![Fact::new(m.project_id, &id), Fact::new(m.named_by, named_by)],
        submit: m.remove.to_owned(),
        cancel: format!("{}/projects", page.base()),
        error: String::new(),
        typed: None,
        page,
    };
    html(StatusCode::OK, &confirm)
}

#[derive(Deserialize)]
struct Nothing {}

async fn remove(
    State(app): State<App>,
    caller: MemberWith<ConsoleProjects>,
    Path((_, id)): Path<(String, String)>,
    _: Form<Nothing>,
) -> Result<Response, ApiError> {
    if !app.store().remove_project(&caller.org.id, &id, &caller.caller).await? {
        return Err(ApiError::NotFound);
    }
    Ok(see_other(&format!("/console/o/{}/projects?removed", caller.org.id)))
}
