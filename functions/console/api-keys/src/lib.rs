//! `/console/o/{org_id}/api-keys`: API keys of the organization: list, create, look at, rotate, revoke.

use askama::Template;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::get;
use serde::Deserialize;
use shared::console::expiry::{Expiry, Limit, Offered};
use shared::console::messages::Messages;
use shared::console::page::{Confirm, Fact, Tab, state_of, tabs};
use shared::console::rotation::{self, Outcome};
use shared::console::{Fields, Form, Frame, MemberWith, Nav, Nothing, html, see_other};
use shared::cursor::Pages;
use shared::domain::{Environment, Name, Scope, Scopes};
use shared::ids::TokenId;
use shared::permissions::{ApiKeysCreate, ApiKeysList, ApiKeysRevoke, ApiKeysRotate, Guarded, Operation};
use shared::secret::Token;
use shared::store::api_keys::{Created, Listing, NewApiKey};
use shared::store::lifetimes::{Limited, TooLong};
use shared::store::tokens::ApiKey;
use shared::{ApiError, App, ConsoleApp, Moment};
use utoipa_axum::router::OpenApiRouter;

/// The routes of this function.
pub fn routes() -> OpenApiRouter<ConsoleApp> {
    OpenApiRouter::new()
        .route("/console/o/{org_id}/api-keys", get(list))
        .route("/console/o/{org_id}/api-keys/create", get(form).post(create))
        .route("/console/o/{org_id}/api-keys/{id}", get(look))
        .route("/console/o/{org_id}/api-keys/{id}/rotate", get(ask_to_rotate).post(rotate))
        .route("/console/o/{org_id}/api-keys/{id}/revoke", get(ask).post(revoke))
}

/// Keys per page.
const PAGE: usize = 50;

#[derive(Template)]
#[template(path = "console/api_keys.html")]
struct ListPage {
    page: Frame,
    base: String,
    keys: Vec<KeyRow>,
    states: Vec<Tab>,
    state: &'static str,
    usage: String,
    plan: String,
    full: bool,
    may_create: bool,
    curl: String,
    message: &'static str,
    first: String,
    next: String,
}

struct KeyRow {
    id: String,
    name: String,
    prefix: String,
    lineage: String,
    environment: &'static str,
    scopes: Vec<ScopeRow>,
    status: &'static str,
    status_label: &'static str,
    created_at: String,
    created_by: String,
    expires_at: String,
    last_used_at: String,
    revoked_at: String,
    revoked_by: String,
}

struct ScopeRow {
    name: String,
    sentence: &'static str,
    checked: bool,
}

impl std::fmt::Display for ScopeRow {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.name)
    }
}

impl KeyRow {
    fn new(key: ApiKey, now: Moment, m: &Messages) -> Self {
        let state = key.state(now);
        let text = |at: Option<Moment>| at.map(|at| at.to_string()).unwrap_or_default();
        let scopes = key.scopes.as_slice().iter().map(|scope| ScopeRow {
            name: scope.as_str().to_owned(),
            sentence: scope.known().map_or("", |scope| m.scope_sentence(scope)),
            checked: true,
        });
        Self {
            id: key.id.to_string(),
            name: key.name.as_str().to_owned(),
            lineage: rotation::lineage(key.rotated.as_ref(), key.replaces.as_ref(), m),
            prefix: key.prefix,
            environment: environment_label(key.environment.known(), m),
            scopes: scopes.collect(),
            status: state.into(),
            status_label: m.state(state),
            created_at: key.created_at.to_string(),
            created_by: key.created_by.id,
            expires_at: text(key.expires_at),
            last_used_at: text(key.last_used_at),
            revoked_at: text(key.revoked_at),
            revoked_by: key.revoked_by.map(|by| by.id).unwrap_or_default(),
        }
    }
}

fn environment_label(environment: Option<Environment>, m: &Messages) -> &'static str {
    match environment {
        Some(Environment::Live) => m.live,
        Some(Environment::Test) => m.test,
        None => "",
    }
}

#[derive(Deserialize)]
struct Shown {
    state: Option<String>,
    cursor: Option<String>,
    revoked: Option<String>,
}

async fn list(
    State(app): State<App>,
    caller: MemberWith<ApiKeysList>,
    Query(shown): Query<Shown>,
) -> Result<Response, ApiError> {
    let page = caller.frame(caller.m().api_keys, Nav::ApiKeys)?;
    let (m, base, org) = (page.m, page.base(), &caller.org.id);
    let (state, states) = state_of(shown.state.as_deref());
    let pages = Pages(&["console-api-keys", org.as_str(), state]);
    let after = pages.after(shown.cursor.as_deref(), TokenId::parse)?;
    let request_id = &caller.caller.request_id;
    let listing = Listing { states, environment: None, after: after.as_ref(), limit: PAGE, request_id };
    // Counting first: it moves expired keys, so that the list and the count agree.
    let (plan, active) = app.store().api_key_plan(org).await?;
    let found = app.store().list_api_keys(org, &listing).await?;
    let (now, link) = (app.clock().now(), format!("{base}/api-keys"));
    let next = pages.next(found.next.as_ref().map(TokenId::as_str));
    let limit = plan.max_api_keys();
    html(
        StatusCode::OK,
        &ListPage {
            keys: found.keys.into_iter().map(|key| KeyRow::new(key, now, m)).collect(),
            states: tabs(m, &link, state),
            state,
            usage: limit.map_or_else(|| m.plan_usage_unlimited(active), |limit| m.plan_usage(active, limit)),
            plan: m.plan(plan.as_str()),
            full: limit.is_some_and(|limit| active >= limit),
            may_create: caller.may(Operation::ApiKeysCreate),
            curl: CURL.to_owned(),
            message: if shown.revoked.is_some() { m.key_revoked } else { "" },
            first: if after.is_some() { format!("{link}?state={state}") } else { String::new() },
            next: next.map(|cursor| format!("{link}?state={state}&cursor={cursor}")).unwrap_or_default(),
            page,
            base,
        },
    )
}

/// How a script creates a key.
const CURL: &str = r#"curl -sS "$BASE_URL/v1/api-keys" \
  -H "Authorization: Bearer $BOT_API_KEY:$BOT_ID" \
  --json '{"name": "ci-pipeline", "environment": "live", "scopes": ["shield:write"]}'"#;

#[derive(Template)]
#[template(path = "console/api_key_create.html")]
struct FormPage {
    page: Frame,
    base: String,
    error: String,
    name: String,
    name_error: String,
    environment: String,
    environment_error: String,
    scopes: Vec<ScopeRow>,
    scopes_error: String,
    expiry: String,
    expiry_date: String,
    expiry_error: String,
    offered: Offered,
}

/// The form as it was sent.
#[derive(Debug, Default, Deserialize)]
struct NewKey {
    #[serde(default)]
    name: String,
    #[serde(default)]
    environment: String,
    #[serde(default)]
    scope: Vec<String>,
    #[serde(flatten)]
    expiry: Expiry,
}

impl NewKey {
    fn parse(&self, limit: &Limit, m: &Messages, errors: &mut Fields) -> Option<NewApiKey> {
        let name = errors.parse("name", Name::try_from(self.name.clone()).map_err(|_| m.name_rule));
        let environment = match self.environment.as_str() {
            "live" => Ok(Environment::Live),
            "test" => Ok(Environment::Test),
            _ => Err(m.environment_missing),
        };
        let environment = errors.parse("environment", environment);
        let scopes: Option<Vec<Scope>> = self.scope.iter().map(|scope| Scope::parse(scope)).collect();
        let scopes =
            scopes.ok_or(m.scopes_missing).and_then(|scopes| Scopes::try_from(scopes).map_err(|_| m.scopes_missing));
        let scopes = errors.parse("scopes", scopes);
        let expires_at = self.expiry.parse(limit, m, errors);
        errors.is_empty().then_some(())?;
        Some(NewApiKey { name: name?, environment: environment?, scopes: scopes?, expires_at })
    }

    /// The form with what was typed, and what is wrong with it.
    fn page<O: Guarded>(
        self,
        caller: &MemberWith<O>,
        limit: &Limit,
        errors: &Fields,
        error: &str,
    ) -> Result<FormPage, ApiError> {
        let page = caller.frame(caller.m().create_key, Nav::ApiKeys)?;
        let m = page.m;
        let scopes = Scope::ALL.iter().map(|scope| ScopeRow {
            name: scope.as_str().to_owned(),
            sentence: m.scope_sentence(*scope),
            checked: self.scope.iter().any(|chosen| chosen == scope.as_str()),
        });
        let error = if error.is_empty() && !errors.is_empty() { m.nothing_was_saved } else { error };
        Ok(FormPage {
            base: page.base(),
            error: error.to_owned(),
            name: self.name,
            name_error: errors.of("name").to_owned(),
            environment: self.environment,
            environment_error: errors.of("environment").to_owned(),
            scopes: scopes.collect(),
            scopes_error: errors.of("scopes").to_owned(),
            expiry: self.expiry.expiry,
            expiry_date: self.expiry.expiry_date,
            expiry_error: errors.of(Expiry::FIELD).to_owned(),
            offered: limit.offered(m),
            page,
        })
    }
}

async fn form(State(app): State<App>, caller: MemberWith<ApiKeysCreate>) -> Result<Response, ApiError> {
    let limit = Limit::of(&caller.org, Limited::ApiKey, app.clock().now());
    let scope = vec![Scope::ShieldWrite.as_str().to_owned()];
    let new = NewKey { scope, expiry: Expiry::proposed(&limit), ..NewKey::default() };
    html(StatusCode::OK, &new.page(&caller, &limit, &Fields::default(), "")?)
}

#[derive(Template)]
#[template(path = "console/api_key_created.html")]
struct CreatedPage<'a> {
    page: Frame,
    base: String,
    name: String,
    key: &'a str,
    environment_line: String,
    note: String,
}

/// The page that shows a new key, once. `note` says when the key that it replaces ends.
fn created_page<O: Guarded>(
    caller: &MemberWith<O>,
    title: &str,
    (key, plain): (&ApiKey, &Token),
    note: String,
) -> Result<Response, ApiError> {
    let page = caller.frame(title, Nav::ApiKeys)?;
    let environment_line = format!("export TAKUMO_API_KEY=\"{}\"", plain.expose());
    let (base, name) = (page.base(), key.name.as_str().to_owned());
    html(StatusCode::OK, &CreatedPage { page, base, name, key: plain.expose(), environment_line, note })
}

async fn create(
    State(app): State<App>,
    caller: MemberWith<ApiKeysCreate>,
    form: Form<NewKey>,
) -> Result<Response, ApiError> {
    let (org, m, once) = (&caller.org.id, caller.m(), form.once::<ApiKeysCreate>()?);
    if let Some(repeat) = app.store().repeated(org, Some(&once), &caller.caller).await? {
        return caller.made(&repeat, Nav::ApiKeys, "api-keys");
    }
    let (mut errors, limit) = (Fields::default(), Limit::of(&caller.org, Limited::ApiKey, app.clock().now()));
    let Some(new) = form.fields.parse(&limit, m, &mut errors) else {
        return html(StatusCode::BAD_REQUEST, &form.fields.page(&caller, &limit, &errors, "")?);
    };
    let (status, refusal) = match app.store().create_api_key(org, new, None, &caller.caller, Some(&once)).await? {
        Created::Done(key, plain) => {
            let take_back = app.store().revoke_api_key(org, &key.id, &caller.caller);
            caller.confirm(&app, Some(&once), take_back).await?;
            return created_page(&caller, m.key_created, (&key, &plain), String::new());
        }
        Created::Repeated(repeat) => return caller.made(&repeat, Nav::ApiKeys, "api-keys"),
        // The policy was changed in between.
        Created::TooLong(TooLong { days, .. }) => {
            errors.add(Expiry::FIELD, m.expiry_too_late(days));
            return html(StatusCode::BAD_REQUEST, &form.fields.page(&caller, &limit, &errors, "")?);
        }
        Created::PlanLimitReached => (StatusCode::FORBIDDEN, m.plan_limit_reached),
        Created::Suspended => (StatusCode::FORBIDDEN, m.suspended),
        Created::CallerRevoked => return Err(ApiError::Forbidden),
    };
    caller.record_refusal(&app).await?;
    html(status, &form.fields.page(&caller, &limit, &Fields::default(), refusal)?)
}

#[derive(Template)]
#[template(path = "console/api_key.html")]
struct KeyPage {
    page: Frame,
    base: String,
    key: KeyRow,
    may_rotate: bool,
    may_revoke: bool,
}

async fn look(
    State(app): State<App>,
    caller: MemberWith<ApiKeysList>,
    Path((_, id)): Path<(String, String)>,
) -> Result<Response, ApiError> {
    let key = stored(&app, &caller, &id).await?;
    let page = caller.frame(key.name.as_str(), Nav::ApiKeys)?;
    let [may_rotate, may_revoke] = [Operation::ApiKeysRotate, Operation::ApiKeysRevoke].map(|other| caller.may(other));
    let key = KeyRow::new(key, app.clock().now(), page.m);
    html(StatusCode::OK, &KeyPage { base: page.base(), page, key, may_rotate, may_revoke })
}

async fn stored<O: Guarded>(app: &App, caller: &MemberWith<O>, id: &str) -> Result<ApiKey, ApiError> {
    let id = TokenId::parse(id).ok_or(ApiError::TokenNotFound)?;
    app.store().api_key(&caller.org.id, &id).await?.ok_or(ApiError::TokenNotFound)
}

async fn ask(
    State(app): State<App>,
    caller: MemberWith<ApiKeysRevoke>,
    Path((_, id)): Path<(String, String)>,
) -> Result<Response, ApiError> {
    let key = stored(&app, &caller, &id).await?;
    let page = caller.frame(caller.m().revoke_key, Nav::ApiKeys)?;
    let m = page.m;
    let cancel = format!("{}/api-keys/{}", page.base(), key.id);
    html(StatusCode::OK, &Confirm::new(page, m.revoke_key_text, facts(&key, m), m.revoke, cancel))
}

/// What a page says of a key before it ends or is rotated.
fn facts(key: &ApiKey, m: &Messages) -> Vec<Fact> {
    vec![
        Fact::new(m.name, key.name.as_str()),
        Fact::new(m.prefix, &key.prefix),
        Fact::new(m.environment, environment_label(key.environment.known(), m)),
    ]
}

/// The form of a rotation, and why it was refused.
fn rotate_page(
    caller: &MemberWith<ApiKeysRotate>,
    key: &ApiKey,
    refusal: Option<&ApiError>,
) -> Result<rotation::Ask, ApiError> {
    let page = caller.frame(caller.m().rotate_key, Nav::ApiKeys)?;
    let (m, cancel) = (page.m, format!("{}/api-keys/{}", page.base(), key.id));
    let error = refusal.map_or("", |refusal| m.refusal(refusal));
    Ok(rotation::Ask { facts: facts(key, m), cancel, error, page })
}

async fn ask_to_rotate(
    State(app): State<App>,
    caller: MemberWith<ApiKeysRotate>,
    Path((_, id)): Path<(String, String)>,
) -> Result<Response, ApiError> {
    let key = stored(&app, &caller, &id).await?;
    html(StatusCode::OK, &rotate_page(&caller, &key, None)?)
}

async fn rotate(
    State(app): State<App>,
    caller: MemberWith<ApiKeysRotate>,
    Path((_, id)): Path<(String, String)>,
    form: Form<rotation::Chosen>,
) -> Result<Response, ApiError> {
    let old = stored(&app, &caller, &id).await?;
    match caller.rotate::<ApiKey>(&app, &old.id, &form, (Nav::ApiKeys, "api-keys")).await? {
        Outcome::Done(key, plain, ends) => {
            let m = caller.m();
            created_page(&caller, m.key_created, (&key, &plain), rotation::note(&form, ends, m))
        }
        Outcome::Answered(page) => Ok(page),
        Outcome::Refused(refusal) => html(StatusCode::FORBIDDEN, &rotate_page(&caller, &old, Some(&refusal))?),
    }
}

async fn revoke(
    State(app): State<App>,
    caller: MemberWith<ApiKeysRevoke>,
    Path((_, id)): Path<(String, String)>,
    _: Form<Nothing>,
) -> Result<Response, ApiError> {
    let id = TokenId::parse(&id).ok_or(ApiError::TokenNotFound)?;
    if !app.store().revoke_api_key(&caller.org.id, &id, &caller.caller).await? {
        return Err(ApiError::TokenNotFound);
    }
    Ok(see_other(&format!("/console/o/{}/api-keys?revoked", caller.org.id)))
}
