//! `/console/o/{org_id}/access-tokens`: organization access tokens: list, create, change, disable,
//! delete.

use askama::Template;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use axum::routing::{get, post};
use serde::Deserialize;
use shared::console::expiry::{Expiry, Limit, Offered};
use shared::console::messages::Messages;
use shared::console::page::{Confirm, Fact};
use shared::console::{Console, Fields, Form, Frame, MemberWith, Nav, html, see_other};
use shared::domain::{AccessRole, Name, OrUnknown, ProjectId, TokenState};
use shared::org_access_token_request::{MAX_PROJECTS, Merge, MergeAccessConfig, checked, parse_id};
use shared::permissions::{
    Guarded, OrgAccessTokensCreate, OrgAccessTokensDelete, OrgAccessTokensList, OrgAccessTokensUpdate,
};
use shared::store::lifetimes::{Limited, TooLong};
use shared::store::org_access_tokens::{Changed, Created, Rejected, Settings};
use shared::store::tokens::{AccessConfig, OrgAccessToken};
use shared::{ApiError, App, ConsoleApp, Moment};
use utoipa_axum::router::OpenApiRouter;

/// The routes of this function.
pub fn routes() -> OpenApiRouter<ConsoleApp> {
    OpenApiRouter::new()
        .route("/console/o/{org_id}/access-tokens", get(list))
        .route("/console/o/{org_id}/access-tokens/create", get(form).post(create))
        .route("/console/o/{org_id}/access-tokens/{token_id}", get(look).post(change))
        .route("/console/o/{org_id}/access-tokens/{token_id}/disable", post(disable))
        .route("/console/o/{org_id}/access-tokens/{token_id}/enable", post(enable))
        .route("/console/o/{org_id}/access-tokens/{token_id}/delete", get(ask).post(delete))
}

#[derive(Template)]
#[template(path = "console/access_tokens.html")]
struct ListPage {
    page: Frame,
    base: String,
    tokens: Vec<TokenRow>,
    curl: String,
    message: &'static str,
}

struct TokenRow {
    id: u64,
    name: String,
    prefix: String,
    role: String,
    projects: String,
    is_active: bool,
    status: &'static str,
    status_label: &'static str,
    expires_at: String,
    last_used_at: String,
}

impl TokenRow {
    fn new(token: OrgAccessToken, now: Moment, m: &Messages) -> Self {
        let text = |at: Option<Moment>| at.map(|at| at.to_string()).unwrap_or_default();
        let (status, status_label) = match token.state(now) {
            // Access tokens are deleted; what is stored and not active was disabled.
            TokenState::Revoked => ("disabled", m.disabled),
            state => (state.into(), m.state(state)),
        };
        Self {
            id: token.id,
            role: role_label(&token.access_config.role, m),
            projects: projects_text(&token.access_config, m),
            name: token.name.as_str().to_owned(),
            prefix: token.token_prefix,
            is_active: token.is_active,
            status,
            status_label,
            expires_at: text(token.expires_at),
            last_used_at: text(token.last_used_at),
        }
    }
}

/// The name of a role. An unknown one is shown as it is stored.
fn role_label(role: &OrUnknown<AccessRole>, m: &Messages) -> String {
    match role.known() {
        Some(AccessRole::Readonly) => m.role_readonly,
        Some(AccessRole::Operator) => m.role_operator,
        Some(AccessRole::Manager) => m.role_manager,
        None => role.as_str(),
    }
    .to_owned()
}

fn projects_text(config: &AccessConfig, m: &Messages) -> String {
    match (config.all_projects, config.projects.as_slice()) {
        (true, _) => m.all_projects.to_owned(),
        (false, []) => m.no_project.to_owned(),
        (false, projects) => projects.iter().map(ProjectId::as_str).collect::<Vec<_>>().join(", "),
    }
}

#[derive(Deserialize)]
struct Shown {
    changed: Option<String>,
    deleted: Option<String>,
}

async fn list(
    State(app): State<App>,
    State(console): State<Console>,
    caller: MemberWith<OrgAccessTokensList>,
    headers: HeaderMap,
    Query(shown): Query<Shown>,
) -> Result<Response, ApiError> {
    let tokens = app.store().org_access_tokens(&caller.org.id).await?;
    let page = caller.frame(caller.m().access_tokens, Nav::AccessTokens)?;
    let (m, now) = (page.m, app.clock().now());
    let message = match (shown.changed, shown.deleted) {
        (Some(_), _) => m.access_token_changed,
        (None, Some(_)) => m.access_token_deleted,
        (None, None) => "",
    };
    let list = ListPage {
        base: page.base(),
        tokens: tokens.into_iter().map(|token| TokenRow::new(token, now, m)).collect(),
        curl: curl(&console.public_url(&headers)),
        message,
        page,
    };
    html(StatusCode::OK, &list)
}

/// How a script creates a token.
fn curl(public_url: &str) -> String {
    format!(
        "curl -sS {public_url}/api/v2/organization/tokens/ \\\n  \
         -H \"Authorization: Bearer $BOT_API_KEY:$BOT_ID\" \\\n  \
         --json '{{\"name\": \"backup-server\", \"access_config\": {{\"role\": \"readonly\", \"all_projects\": true}}}}'"
    )
}

#[derive(Template)]
#[template(path = "console/access_token_form.html")]
struct FormPage {
    page: Frame,
    base: String,
    error: String,
    name: String,
    name_error: String,
    role: String,
    role_error: String,
    all_projects: bool,
    projects: Vec<ProjectRow>,
    projects_error: String,
    changing: bool,
    is_active: bool,
    revision: String,
    expiry: String,
    expiry_date: String,
    expiry_error: String,
    offered: Offered,
    submit: &'static str,
}

struct ProjectRow {
    id: String,
    checked: bool,
}

/// The form as it was sent.
#[derive(Debug, Default, Deserialize)]
struct TokenForm {
    #[serde(default)]
    name: String,
    #[serde(default)]
    role: String,
    #[serde(default)]
    all_projects: String,
    #[serde(default)]
    project: Vec<String>,
    #[serde(flatten)]
    expiry: Expiry,
    #[serde(default)]
    is_active: String,
    /// The revision of the token that was shown.
    #[serde(default)]
    revision: String,
}

/// What both forms ask for. `role` is `None` if none was selected.
struct Asked {
    name: Name,
    role: Option<AccessRole>,
    all_projects: bool,
    projects: Vec<ProjectId>,
    expires_at: Option<Moment>,
}

impl TokenForm {
    fn of(token: &OrgAccessToken) -> Self {
        let AccessConfig { role, all_projects, projects } = &token.access_config;
        let (expiry, expiry_date) = match token.expires_at {
            Some(at) => ("date", at.date()),
            None => ("never", String::new()),
        };
        Self {
            name: token.name.as_str().to_owned(),
            role: role.as_str().to_owned(),
            all_projects: all_projects.to_string(),
            project: projects.iter().map(|project| project.as_str().to_owned()).collect(),
            expiry: Expiry { expiry: expiry.to_owned(), expiry_date },
            is_active: if token.is_active { "true".to_owned() } else { String::new() },
            revision: token.revision.to_string(),
        }
    }

    /// Whether the expiry is the one that the form was filled with.
    fn keeps_expiry_of(&self, token: &OrgAccessToken) -> bool {
        let Expiry { expiry, expiry_date } = Self::of(token).expiry;
        self.expiry.expiry == expiry && (expiry == "never" || self.expiry.expiry_date == expiry_date)
    }

    /// What is asked for; of this token, if one is changed.
    fn parse(
        &self,
        changed: Option<&OrgAccessToken>,
        limit: &Limit,
        m: &Messages,
        errors: &mut Fields,
    ) -> Option<Asked> {
        let name = errors.parse("name", Name::try_from(self.name.clone()).map_err(|_| m.name_rule));
        let role = match self.role.as_str() {
            "readonly" => Some(AccessRole::Readonly),
            "operator" => Some(AccessRole::Operator),
            "manager" => Some(AccessRole::Manager),
            _ => None,
        };
        let stays_unknown = changed.is_some_and(|token| token.access_config.role.known().is_none());
        if role.is_none() && !stays_unknown {
            errors.add("role", m.role_missing);
        }
        let mut chosen = self.project.clone();
        chosen.sort();
        chosen.dedup();
        let projects: Result<Vec<ProjectId>, _> = chosen.into_iter().map(ProjectId::try_from).collect();
        let projects = errors.parse("projects", projects.map_err(|_| m.unknown_project)).unwrap_or_default();
        if projects.len() > MAX_PROJECTS {
            errors.add("projects", m.too_many_projects);
        }
        let expires_at = match changed.filter(|token| self.keeps_expiry_of(token)) {
            Some(token) => token.expires_at,
            None => self.expiry.parse(limit, m, errors),
        };
        let name = name.filter(|_| errors.is_empty())?;
        Some(Asked { name, role, all_projects: self.all_projects == "true", projects, expires_at })
    }

    /// The form with what was typed, and what is wrong with it.
    async fn page<O: Guarded>(
        self,
        app: &App,
        caller: &MemberWith<O>,
        limit: &Limit,
        errors: &Fields,
        error: &str,
    ) -> Result<FormPage, ApiError> {
        let changing = !self.revision.is_empty();
        let mut projects = app.store().projects(&caller.org.id).await?;
        // What was selected stays selected, even if the project was removed since.
        let gone = self.project.iter().filter(|project| !projects.contains(project)).cloned();
        projects.extend(gone.collect::<Vec<_>>());
        let m = caller.m();
        let title = if changing { m.change_access_token } else { m.create_access_token };
        let page = caller.frame(title, Nav::AccessTokens)?;
        let error = if error.is_empty() && !errors.is_empty() { m.nothing_was_saved } else { error };
        Ok(FormPage {
            base: page.base(),
            page,
            error: error.to_owned(),
            name: self.name,
            name_error: errors.of("name").to_owned(),
            role: self.role,
            role_error: errors.of("role").to_owned(),
            all_projects: self.all_projects == "true",
            projects: projects.into_iter().map(|id| ProjectRow { checked: self.project.contains(&id), id }).collect(),
            projects_error: errors.of("projects").to_owned(),
            changing,
            is_active: self.is_active == "true",
            revision: self.revision,
            expiry: self.expiry.expiry,
            expiry_date: self.expiry.expiry_date,
            expiry_error: errors.of(Expiry::FIELD).to_owned(),
            offered: limit.offered(m),
            submit: if changing { m.save } else { m.create },
        })
    }
}

/// What the organization's policy allows: for a new token, or for one that is changed.
fn limit<O: Guarded>(app: &App, caller: &MemberWith<O>, changed: Option<&OrgAccessToken>) -> Limit {
    let limit = Limit::of(&caller.org, Limited::OrgAccessToken, app.clock().now());
    changed.map_or(limit, |token| limit.created_at(token.created_at))
}

async fn form(State(app): State<App>, caller: MemberWith<OrgAccessTokensCreate>) -> Result<Response, ApiError> {
    let limit = limit(&app, &caller, None);
    let role = "readonly".to_owned();
    let new = TokenForm { role, expiry: Expiry::proposed(&limit), ..TokenForm::default() };
    html(StatusCode::OK, &new.page(&app, &caller, &limit, &Fields::default(), "").await?)
}

#[derive(Template)]
#[template(path = "console/access_token_created.html")]
struct CreatedPage<'a> {
    page: Frame,
    base: String,
    name: String,
    token: &'a str,
}

async fn create(
    State(app): State<App>,
    caller: MemberWith<OrgAccessTokensCreate>,
    form: Form<TokenForm>,
) -> Result<Response, ApiError> {
    let (org, m, once) = (&caller.org.id, caller.m(), form.once::<OrgAccessTokensCreate>()?);
    if let Some(repeat) = app.store().repeated(org, Some(&once), &caller.caller).await? {
        return caller.made(&repeat, Nav::AccessTokens, "access-tokens");
    }
    let fields = TokenForm { revision: String::new(), ..form.fields };
    let (mut errors, now, limit) = (Fields::default(), app.clock().now(), limit(&app, &caller, None));
    let Some(asked) = fields.parse(None, &limit, m, &mut errors) else {
        return html(StatusCode::BAD_REQUEST, &fields.page(&app, &caller, &limit, &errors, "").await?);
    };
    let Asked { name, role, all_projects, projects, expires_at } = asked;
    let access_config = AccessConfig { role: role.unwrap_or_default().into(), all_projects, projects };
    let settings = checked(Settings { name, is_active: true, expires_at, access_config }, now)?;
    match app.store().create_org_access_token(org, settings, &caller.caller, Some(&once)).await? {
        Created::Done(token, plain) => {
            let take_back = app.store().delete_org_access_token(org, token.id, &caller.caller);
            caller.confirm(&app, Some(&once), take_back).await?;
            let page = caller.frame(m.access_token_created, Nav::AccessTokens)?;
            let (base, name) = (page.base(), token.name.as_str().to_owned());
            html(StatusCode::OK, &CreatedPage { page, base, name, token: plain.expose() })
        }
        Created::Repeated(repeat) => caller.made(&repeat, Nav::AccessTokens, "access-tokens"),
        Created::Rejected(reason) => {
            if matches!(reason, Rejected::TooMany | Rejected::Suspended) {
                caller.record_refusal(&app).await?;
            }
            refused(fields, &app, &caller, &limit, reason).await
        }
    }
}

/// The form with the reason why it was rejected.
async fn refused<O: Guarded>(
    fields: TokenForm,
    app: &App,
    caller: &MemberWith<O>,
    limit: &Limit,
    reason: Rejected,
) -> Result<Response, ApiError> {
    let (m, mut errors) = (caller.m(), Fields::default());
    let (status, error) = match reason {
        Rejected::NameTaken => {
            errors.add("name", m.name_taken);
            (StatusCode::BAD_REQUEST, "")
        }
        Rejected::UnknownProject => {
            errors.add("projects", m.unknown_project);
            (StatusCode::BAD_REQUEST, "")
        }
        Rejected::TooLong(TooLong { days, .. }) => {
            errors.add(Expiry::FIELD, m.expiry_too_late(days));
            (StatusCode::BAD_REQUEST, "")
        }
        Rejected::TooMany => (StatusCode::FORBIDDEN, m.too_many_access_tokens),
        Rejected::Suspended => (StatusCode::FORBIDDEN, m.suspended),
    };
    html(status, &fields.page(app, caller, limit, &errors, error).await?)
}

async fn stored<O: Guarded>(app: &App, caller: &MemberWith<O>, id: &str) -> Result<OrgAccessToken, ApiError> {
    let id = parse_id(id).ok_or(ApiError::TokenNotFound)?;
    app.store().org_access_token_with(&caller.org.id, id).await?.ok_or(ApiError::TokenNotFound)
}

async fn look(
    State(app): State<App>,
    caller: MemberWith<OrgAccessTokensUpdate>,
    Path((_, id)): Path<(String, String)>,
) -> Result<Response, ApiError> {
    let token = stored(&app, &caller, &id).await?;
    let limit = limit(&app, &caller, Some(&token));
    html(StatusCode::OK, &TokenForm::of(&token).page(&app, &caller, &limit, &Fields::default(), "").await?)
}

const CHANGED: ApiError = ApiError::Conflict("The token has changed since it was shown.");

const CALLER_CHANGED: ApiError = ApiError::Conflict("Your roles have changed.");

async fn change(
    State(app): State<App>,
    caller: MemberWith<OrgAccessTokensUpdate>,
    Path((_, id)): Path<(String, String)>,
    Form { fields, .. }: Form<TokenForm>,
) -> Result<Response, ApiError> {
    let token = stored(&app, &caller, &id).await?;
    let (mut errors, now, limit) = (Fields::default(), app.clock().now(), limit(&app, &caller, Some(&token)));
    let Some(asked) = fields.parse(Some(&token), &limit, caller.m(), &mut errors) else {
        return html(StatusCode::BAD_REQUEST, &fields.page(&app, &caller, &limit, &errors, "").await?);
    };
    let merge = Merge {
        name: Some(asked.name),
        is_active: Some(fields.is_active == "true"),
        expires_at: (asked.expires_at != token.expires_at).then_some(asked.expires_at),
        access_config: Some(MergeAccessConfig {
            role: asked.role,
            all_projects: Some(asked.all_projects),
            projects: Some(in_order(asked.projects, &token.access_config.projects)),
        }),
    };
    let merge_unchanged = |token: &OrgAccessToken| {
        let merged = merge.onto(token, now)?;
        // The same form again changes nothing and is no conflict.
        if token.revision.to_string() == fields.revision || merged == settings_of(token) {
            Ok(merged)
        } else {
            Err(CHANGED)
        }
    };
    match save(&app, &caller, token.id, merge_unchanged).await? {
        Some(reason) => refused(fields, &app, &caller, &limit, reason).await,
        None => Ok(to_list(&caller, "changed")),
    }
}

/// The projects in the order in which the token names them, so that no change is seen where is none.
fn in_order(projects: Vec<ProjectId>, named: &[ProjectId]) -> Vec<ProjectId> {
    let kept = named.iter().filter(|project| projects.contains(project)).cloned();
    let added = projects.iter().filter(|project| !named.contains(project)).cloned();
    kept.chain(added).collect()
}

fn settings_of(token: &OrgAccessToken) -> Settings {
    Settings {
        name: token.name.clone(),
        is_active: token.is_active,
        expires_at: token.expires_at,
        access_config: token.access_config.clone(),
    }
}

/// Changes a token. Why it was rejected, if it was.
async fn save(
    app: &App,
    caller: &MemberWith<OrgAccessTokensUpdate>,
    id: u64,
    change: impl Fn(&OrgAccessToken) -> Result<Settings, ApiError>,
) -> Result<Option<Rejected>, ApiError> {
    let (org, by) = (&caller.org.id, caller.authority());
    match app.store().change_org_access_token(org, by, id, &caller.caller, change).await?? {
        Changed::Done(_) => Ok(None),
        Changed::Rejected(reason) => Ok(Some(reason)),
        Changed::NotFound => Err(ApiError::TokenNotFound),
        Changed::CallerChanged => Err(CALLER_CHANGED),
    }
}

fn to_list<O: Guarded>(caller: &MemberWith<O>, message: &str) -> Response {
    see_other(&format!("/console/o/{}/access-tokens?{message}", caller.org.id))
}

#[derive(Deserialize)]
struct Nothing {}

async fn disable(
    State(app): State<App>,
    caller: MemberWith<OrgAccessTokensUpdate>,
    Path((_, id)): Path<(String, String)>,
    _: Form<Nothing>,
) -> Result<Response, ApiError> {
    set_active(&app, &caller, &id, false).await
}

async fn enable(
    State(app): State<App>,
    caller: MemberWith<OrgAccessTokensUpdate>,
    Path((_, id)): Path<(String, String)>,
    _: Form<Nothing>,
) -> Result<Response, ApiError> {
    set_active(&app, &caller, &id, true).await
}

async fn set_active(
    app: &App,
    caller: &MemberWith<OrgAccessTokensUpdate>,
    id: &str,
    is_active: bool,
) -> Result<Response, ApiError> {
    let id = parse_id(id).ok_or(ApiError::TokenNotFound)?;
    let (merge, now) = (Merge { is_active: Some(is_active), ..Merge::default() }, app.clock().now());
    match save(app, caller, id, |token| merge.onto(token, now)).await? {
        // Neither the name nor a project changes.
        Some(_) => Err(CHANGED),
        None => Ok(to_list(caller, "changed")),
    }
}

async fn ask(
    State(app): State<App>,
    caller: MemberWith<OrgAccessTokensDelete>,
    Path((_, id)): Path<(String, String)>,
) -> Result<Response, ApiError> {
    let token = stored(&app, &caller, &id).await?;
    let page = caller.frame(caller.m().delete_access_token, Nav::AccessTokens)?;
    let m = page.m;
    let facts = vec![
        Fact::new(m.name, token.name.as_str()),
        Fact::new(m.prefix, &token.token_prefix),
        Fact::new(m.role, role_label(&token.access_config.role, m)),
        Fact::new(m.projects, projects_text(&token.access_config, m)),
    ];
    let confirm = Confirm {
        text: m.delete_access_token_text.to_owned(),
        facts,
        submit: m.delete.to_owned(),
        cancel: format!("{}/access-tokens", page.base()),
        error: String::new(),
        typed: None,
        page,
    };
    html(StatusCode::OK, &confirm)
}

async fn delete(
    State(app): State<App>,
    caller: MemberWith<OrgAccessTokensDelete>,
    Path((_, id)): Path<(String, String)>,
    _: Form<Nothing>,
) -> Result<Response, ApiError> {
    let id = parse_id(&id).ok_or(ApiError::TokenNotFound)?;
    if !app.store().delete_org_access_token(&caller.org.id, id, &caller.caller).await? {
        return Err(ApiError::TokenNotFound);
    }
    Ok(to_list(&caller, "deleted"))
}
