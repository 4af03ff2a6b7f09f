//! `/console/o/{org_id}/bots`: bots of the organization: list, add, change roles, rotate the key,
//! trust CI jobs, end their tokens, delete.

mod trusts;

use askama::Template;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use axum::routing::{get, post};
use serde::Deserialize;
use shared::console::expiry::{Expiry, Limit, Offered};
use shared::console::messages::Messages;
use shared::console::page::{Confirm, Fact};
use shared::console::roles::{self, OfferedRole};
use shared::console::rotation::{self, CALLER_CHANGED, Outcome};
use shared::console::{Console, Fields, Form, Frame, MemberWith, Nav, Nothing, html, see_other};
use shared::domain::Name;
use shared::ids::BotId;
use shared::permissions::{ConsoleBots, Role};
use shared::secret::Token;
use shared::store::bots::{BotChange, BotKey, KeyToRotate, Keyed, StoredBot};
use shared::store::rotation::By;
use shared::{ApiError, App, ConsoleApp, Moment};
use utoipa_axum::router::OpenApiRouter;

use crate::trusts::TrustRow;

/// The routes of this function.
pub fn routes() -> OpenApiRouter<ConsoleApp> {
    OpenApiRouter::new()
        .route("/console/o/{org_id}/bots", get(list))
        .route("/console/o/{org_id}/bots/add", get(add_form).post(add))
        .route("/console/o/{org_id}/bots/{bot_id}", get(look))
        .route("/console/o/{org_id}/bots/{bot_id}/roles", post(set_roles))
        .route("/console/o/{org_id}/bots/{bot_id}/rotate", post(rotate))
        .route("/console/o/{org_id}/bots/{bot_id}/delete", get(ask).post(delete))
        .merge(trusts::routes())
}

#[derive(Template)]
#[template(path = "console/bots.html")]
struct ListPage {
    page: Frame,
    base: String,
    bots: Vec<BotRow>,
    message: &'static str,
}

struct BotRow {
    id: String,
    name: String,
    roles: Vec<String>,
    created_at: String,
}

#[derive(Deserialize)]
struct ListShown {
    deleted: Option<String>,
}

async fn list(
    State(app): State<App>,
    caller: MemberWith<ConsoleBots>,
    Query(shown): Query<ListShown>,
) -> Result<Response, ApiError> {
    let m = caller.m();
    let bots = app.store().bots(&caller.org.id).await?;
    let row = |bot: StoredBot| BotRow {
        roles: bot.roles().as_slice().iter().map(|role| m.role_label(role)).collect(),
        id: bot.id.to_string(),
        name: bot.name,
        created_at: bot.created_at.to_string(),
    };
    let page = caller.frame(m.bots, Nav::Bots)?;
    let message = if shown.deleted.is_some() { m.bot_deleted } else { "" };
    html(StatusCode::OK, &ListPage { base: page.base(), page, bots: bots.into_iter().map(row).collect(), message })
}

#[derive(Template)]
#[template(path = "console/bot_add.html")]
struct AddPage {
    page: Frame,
    base: String,
    error: &'static str,
    name: String,
    name_error: String,
    roles: Vec<OfferedRole>,
    roles_error: String,
}

/// The form as it was sent.
#[derive(Debug, Default, Deserialize)]
struct NewBot {
    #[serde(default)]
    name: String,
    #[serde(default)]
    role: Vec<String>,
}

impl NewBot {
    /// The form with what was typed, and what is wrong with it.
    fn page(self, caller: &MemberWith<ConsoleBots>, errors: &Fields) -> Result<AddPage, ApiError> {
        let page = caller.frame(caller.m().add_bot, Nav::Bots)?;
        Ok(AddPage {
            base: page.base(),
            error: if errors.is_empty() { "" } else { page.m.nothing_was_saved },
            name: self.name,
            name_error: errors.of("name").to_owned(),
            roles: roles::offered(page.m, roles::for_bots(), |role| self.role.iter().any(|name| name == role.as_str())),
            roles_error: errors.of(roles::FIELD).to_owned(),
            page,
        })
    }
}

async fn add_form(caller: MemberWith<ConsoleBots>) -> Result<Response, ApiError> {
    html(StatusCode::OK, &NewBot::default().page(&caller, &Fields::default())?)
}

async fn add(
    State(app): State<App>,
    State(console): State<Console>,
    caller: MemberWith<ConsoleBots>,
    headers: HeaderMap,
    form: Form<NewBot>,
) -> Result<Response, ApiError> {
    let (org, m, once) = (&caller.org.id, caller.m(), form.once::<ConsoleBots>()?);
    let mut errors = Fields::default();
    let name = errors.parse("name", Name::try_from(form.fields.name.clone()).map_err(|_| m.name_rule));
    let roles = roles::parse(&form.fields.role, roles::for_bots(), m, &mut errors);
    let (Some(name), Some(roles)) = (name, roles) else {
        return html(StatusCode::BAD_REQUEST, &form.fields.page(&caller, &errors)?);
    };
    let by = By { api_key: None, authority: caller.authority(), caller: &caller.caller, once: Some(&once) };
    match app.store().create_bot_by(by, org, name.as_str(), &roles, None).await? {
        Keyed::Done(bot, key) => {
            caller.confirm(&app, Some(&once), app.store().delete_bot(&bot.id, by.caller)).await?;
            key_page(&caller, m.bot_added, &bot, &key, String::new(), &console.public_url(&headers))
        }
        Keyed::Repeated(repeat) => caller.made(&repeat, Nav::Bots, "bots"),
        Keyed::CallerChanged => Err(CALLER_CHANGED),
    }
}

#[derive(Template)]
#[template(path = "console/bot_key.html")]
struct KeyPage<'a> {
    page: Frame,
    base: String,
    api_key: &'a str,
    bot_id: &'a str,
    credential: String,
    curl: String,
    note: String,
}

/// The page that shows a new API key, once.
fn key_page(
    caller: &MemberWith<ConsoleBots>,
    title: &str,
    bot: &StoredBot,
    key: &Token,
    note: String,
    url: &str,
) -> Result<Response, ApiError> {
    let page = caller.frame(title, Nav::Bots)?;
    let (api_key, bot_id, org) = (key.expose(), bot.id.as_str(), &caller.org.id);
    let curl = format!(
        "export ORG={org}\nexport BOT_API_KEY={api_key}\nexport BOT_ID={bot_id}\n\
         curl -sS {url}/v1/o/$ORG/guard/org-user-tokens \\\n  \
         -H \"Authorization: Bearer $BOT_API_KEY:$BOT_ID\" \\\n  \
         --json '{{\"user_identifier\": \"alice-laptop\"}}'"
    );
    let (base, credential) = (page.base(), format!("{api_key}:{bot_id}"));
    html(StatusCode::OK, &KeyPage { page, base, api_key, bot_id, credential, curl, note })
}

#[derive(Template)]
#[template(path = "console/bot.html")]
struct BotPage {
    page: Frame,
    base: String,
    bot: BotFacts,
    roles: Vec<OfferedRole>,
    roles_error: String,
    rotate_error: &'static str,
    expiry: Option<AskedExpiry>,
    error: &'static str,
    message: &'static str,
    trusts: Vec<TrustRow>,
}

/// When the new API key expires, which the form asks for if the one that it replaces has expired.
struct AskedExpiry {
    chosen: String,
    date: String,
    error: String,
    offered: Offered,
}

impl AskedExpiry {
    fn new(chosen: Expiry, limit: &Limit, error: &str, m: &Messages) -> Self {
        let Expiry { expiry: chosen, expiry_date: date } = chosen;
        Self { chosen, date, error: error.to_owned(), offered: limit.offered(m) }
    }
}

struct BotFacts {
    id: String,
    name: String,
    created_at: String,
    /// When the API key was last used.
    last_used_at: String,
    /// When the API key expires.
    expires_at: String,
    /// When the previous API key ends, while it is valid.
    old_key: String,
    old_key_last_used_at: String,
}

/// When an API key ends that was replaced.
fn old_key(key: &BotKey, m: &Messages) -> String {
    let until_first_use = key.rotated.as_ref().is_some_and(|rotated| rotated.until_first_use);
    match key.expires_at {
        Some(ends) if until_first_use => m.old_key_ends_at_first_use(ends),
        Some(ends) => m.old_key_ends(ends),
        None => String::new(),
    }
}

impl BotPage {
    async fn new(
        app: &App,
        caller: &MemberWith<ConsoleBots>,
        bot: StoredBot,
        roles: Vec<OfferedRole>,
    ) -> Result<Self, ApiError> {
        let now = app.clock().now();
        let uses = app.store().bot_key_uses(std::slice::from_ref(&bot)).await?;
        let text = |at: Option<Moment>| at.map(|at| at.to_string()).unwrap_or_default();
        let (newest, previous) = (bot.keys.first(), bot.previous_key(&uses, now));
        let trusts = app.store().trusts(&bot.id).await?;
        let trusts = trusts.into_iter().map(|trust| TrustRow::new(trust, caller.m())).collect();
        let page = caller.frame(&bot.name, Nav::Bots)?;
        let limit = Limit::none(now);
        let asked = || AskedExpiry::new(Expiry::proposed(&limit), &limit, "", page.m);
        let expiry = app.store().needs_key_expiry(&bot).await?.then(asked);
        let bot = BotFacts {
            last_used_at: text(newest.and_then(|key| uses.of(key))),
            expires_at: text(newest.and_then(|key| key.expires_at)),
            old_key: previous.map(|key| old_key(key, page.m)).unwrap_or_default(),
            old_key_last_used_at: text(previous.and_then(|key| uses.of(key))),
            id: bot.id.to_string(),
            created_at: bot.created_at.to_string(),
            name: bot.name,
        };
        let (base, roles_error) = (page.base(), String::new());
        Ok(Self { base, page, bot, roles, roles_error, rotate_error: "", expiry, error: "", message: "", trusts })
    }
}

/// The bot in the path, if it belongs to the member's organization.
async fn stored(app: &App, caller: &MemberWith<ConsoleBots>, id: &str) -> Result<StoredBot, ApiError> {
    let id = BotId::parse(id).ok_or(ApiError::NotFound)?;
    app.store().bot(&id).await?.filter(|bot| bot.org_id == caller.org.id).ok_or(ApiError::NotFound)
}

/// What was done last, by the name of a parameter.
#[derive(Deserialize)]
struct BotShown {
    changed: Option<String>,
    trust_added: Option<String>,
    trust_removed: Option<String>,
    tokens_ended: Option<String>,
}

impl BotShown {
    fn message(&self, m: &Messages) -> &'static str {
        let done = [
            (&self.changed, m.roles_changed),
            (&self.trust_added, m.trust_added),
            (&self.trust_removed, m.trust_removed),
            (&self.tokens_ended, m.tokens_ended),
        ];
        done.into_iter().find_map(|(done, message)| done.as_ref().map(|_| message)).unwrap_or_default()
    }
}

async fn look(
    State(app): State<App>,
    caller: MemberWith<ConsoleBots>,
    Path((_, id)): Path<(String, String)>,
    Query(shown): Query<BotShown>,
) -> Result<Response, ApiError> {
    let bot = stored(&app, &caller, &id).await?;
    let (m, held) = (caller.m(), bot.roles());
    let offered = roles::offered(m, roles::for_bots(), |role| held.contains(role));
    let page = BotPage::new(&app, &caller, bot, offered).await?;
    html(StatusCode::OK, &BotPage { message: shown.message(m), ..page })
}

#[derive(Deserialize)]
struct Chosen {
    #[serde(default)]
    role: Vec<String>,
}

async fn set_roles(
    State(app): State<App>,
    caller: MemberWith<ConsoleBots>,
    Path((_, id)): Path<(String, String)>,
    form: Form<Chosen>,
) -> Result<Response, ApiError> {
    let bot = stored(&app, &caller, &id).await?;
    let (m, mut errors) = (caller.m(), Fields::default());
    let Some(roles) = roles::parse(&form.fields.role, roles::for_bots(), m, &mut errors) else {
        let chosen = |role: Role| form.fields.role.iter().any(|name| name == role.as_str());
        let offered = roles::offered(m, roles::for_bots(), chosen);
        let page = BotPage::new(&app, &caller, bot, offered).await?;
        let roles_error = errors.of(roles::FIELD).to_owned();
        return html(StatusCode::BAD_REQUEST, &BotPage { roles_error, error: m.nothing_was_saved, ..page });
    };
    match app.store().set_bot_roles_by(caller.authority(), &bot.id, &roles, &caller.caller).await? {
        BotChange::Done(bot) => Ok(see_other(&format!("/console/o/{}/bots/{}?changed", caller.org.id, bot.id))),
        BotChange::NotFound => Err(ApiError::NotFound),
        BotChange::CallerChanged => Err(CALLER_CHANGED),
    }
}

/// The form as it was sent.
#[derive(Debug, Deserialize)]
struct RotateForm {
    #[serde(flatten)]
    how: rotation::Chosen,
    #[serde(flatten)]
    expiry: Expiry,
}

async fn rotate(
    State(app): State<App>,
    State(console): State<Console>,
    caller: MemberWith<ConsoleBots>,
    Path((_, id)): Path<(String, String)>,
    headers: HeaderMap,
    form: Form<RotateForm>,
) -> Result<Response, ApiError> {
    let bot = stored(&app, &caller, &id).await?;
    let held = bot.roles();
    let offered = roles::offered(caller.m(), roles::for_bots(), |role| held.contains(role));
    let (m, limit, mut errors) = (caller.m(), Limit::none(app.clock().now()), Fields::default());
    let chosen = form.fields.expiry.clone();
    let needs_expiry = app.store().needs_key_expiry(&bot).await?;
    let renewed_until = needs_expiry.then(|| chosen.parse(&limit, m, &mut errors));
    if !errors.is_empty() {
        let expiry = Some(AskedExpiry::new(chosen, &limit, errors.of(Expiry::FIELD), m));
        let page = BotPage::new(&app, &caller, bot, offered).await?;
        return html(StatusCode::BAD_REQUEST, &BotPage { rotate_error: m.nothing_was_saved, expiry, ..page });
    }
    let (key, form) = (KeyToRotate { bot: bot.id.clone(), renewed_until }, form.map(|fields| fields.how));
    match caller.rotate::<StoredBot>(&app, &key, &form, (Nav::Bots, "bots")).await? {
        Outcome::Done(bot, key, _) => {
            let note = bot.keys.get(1).map(|old| old_key(old, m)).unwrap_or_default();
            key_page(&caller, m.key_rotated, &bot, &key, note, &console.public_url(&headers))
        }
        Outcome::Answered(page) => Ok(page),
        Outcome::Refused(refusal) => {
            let page = BotPage::new(&app, &caller, bot, offered).await?;
            html(StatusCode::FORBIDDEN, &BotPage { rotate_error: m.refusal(&refusal), ..page })
        }
    }
}

async fn ask(
    State(app): State<App>,
    caller: MemberWith<ConsoleBots>,
    Path((_, id)): Path<(String, String)>,
) -> Result<Response, ApiError> {
    let bot = stored(&app, &caller, &id).await?;
    let page = caller.frame(caller.m().delete_bot, Nav::Bots)?;
    let m = page.m;
    let roles: Vec<String> = bot.roles().as_slice().iter().map(|role| m.role_label(role)).collect();
    let facts = vec![Fact::new(m.name, &bot.name), Fact::new(m.bot_id, &bot.id), Fact::new(m.roles, roles.join(", "))];
    let cancel = format!("{}/bots/{}", page.base(), bot.id);
    html(StatusCode::OK, &Confirm::new(page, m.delete_bot_text, facts, m.delete, cancel))
}

async fn delete(
    State(app): State<App>,
    caller: MemberWith<ConsoleBots>,
    Path((_, id)): Path<(String, String)>,
    _: Form<Nothing>,
) -> Result<Response, ApiError> {
    let bot = stored(&app, &caller, &id).await?;
    if !app.store().delete_bot(&bot.id, &caller.caller).await? {
        return Err(ApiError::NotFound);
    }
    Ok(see_other(&format!("/console/o/{}/bots?deleted", caller.org.id)))
}
