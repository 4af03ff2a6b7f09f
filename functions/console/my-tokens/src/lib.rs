//! `/console/o/{org_id}/my-tokens`: a member's own org user tokens: list, issue, rotate, revoke.
//!
//! A token that is issued here is bound to the membership and ends with it.

use askama::Template;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use axum::routing::get;
use serde::Deserialize;
use shared::console::expiry::{Expiry, Limit, Offered};
use shared::console::messages::Messages;
use shared::console::rotation::{self, Outcome};
use shared::console::{Console, Fields, Form, Frame, MemberWith, Nav, Nothing, html, see_other, token};
use shared::cursor::{self, Pages};
use shared::domain::{StateFilter, UserIdentifier};
use shared::ids::TokenId;
use shared::permissions::ConsoleMyTokens;
use shared::store::lifetimes::Limited;
use shared::store::org_user_tokens::{Issued, Listing, Page};
use shared::store::tokens::OrgUserToken;
use shared::{ApiError, App, ConsoleApp, Moment, Query};
use utoipa_axum::router::OpenApiRouter;

/// The routes of this function.
pub fn routes() -> OpenApiRouter<ConsoleApp> {
    OpenApiRouter::new()
        .route("/console/o/{org_id}/my-tokens", get(list))
        .route("/console/o/{org_id}/my-tokens/issue", get(form).post(issue))
        .route("/console/o/{org_id}/my-tokens/{token_id}/rotate", get(ask_to_rotate).post(rotate))
        .route("/console/o/{org_id}/my-tokens/{token_id}/revoke", get(ask).post(revoke))
}

/// Tokens per page.
const PAGE: usize = 50;

/// The user identifier of what the member issues: the verified address. `None` if it has a character
/// that identifiers may not have.
fn own_identifier(caller: &MemberWith<ConsoleMyTokens>) -> Option<UserIdentifier> {
    UserIdentifier::try_from(address(caller)).ok()
}

fn address(caller: &MemberWith<ConsoleMyTokens>) -> String {
    caller.member.email.expose().to_ascii_lowercase()
}

#[derive(Template)]
#[template(path = "console/my_tokens.html")]
struct ListPage {
    page: Frame,
    base: String,
    tokens: Vec<TokenRow>,
    unusable: bool,
    refusal: &'static str,
    message: &'static str,
    first: String,
    next: String,
}

struct TokenRow {
    id: String,
    prefix: String,
    lineage: String,
    status: &'static str,
    status_label: &'static str,
    created_at: String,
    expires_at: String,
    last_used_at: String,
}

impl TokenRow {
    fn new(token: OrgUserToken, now: Moment, m: &Messages) -> Self {
        let state = token.state(now);
        Self {
            id: token.id.to_string(),
            lineage: rotation::lineage(token.rotated.as_ref(), token.replaces.as_ref(), m),
            prefix: token.token_prefix,
            status: state.into(),
            status_label: m.state(state),
            created_at: token.created_at.to_string(),
            expires_at: text(token.expires_at),
            last_used_at: text(token.last_used_at),
        }
    }
}

fn text(at: Option<Moment>) -> String {
    at.map(|at| at.to_string()).unwrap_or_default()
}

#[derive(Deserialize)]
struct Shown {
    cursor: Option<String>,
    revoked: Option<String>,
}

async fn list(
    State(app): State<App>,
    caller: MemberWith<ConsoleMyTokens>,
    Query(shown): Query<Shown>,
) -> Result<Response, ApiError> {
    let page = caller.frame(caller.m().my_tokens, Nav::MyTokens)?;
    let (m, base, org) = (page.m, page.base(), &caller.org.id);
    let (identifier, own) = (own_identifier(&caller), caller.member.binding());
    let pages = Pages(&["console-my-tokens", org.as_str(), own.member.as_str()]);
    let after = pages.after(shown.cursor.as_deref(), |place| Some(place.to_owned()))?;
    let found = match &identifier {
        Some(identifier) => {
            let listing = Listing {
                states: StateFilter::All,
                user_identifier: Some(identifier),
                user_identifier_prefix: None,
                bound_to: Some(&own),
                after: after.as_deref(),
                limit: PAGE,
                request_id: &caller.caller.request_id,
            };
            if !listing.has_valid_start() {
                return Err(cursor::foreign());
            }
            app.store().list_org_user_tokens(org, &listing).await?
        }
        None => Page::default(),
    };
    let (now, link) = (app.clock().now(), format!("{base}/my-tokens"));
    let next = pages.next(found.next.as_deref());
    html(
        StatusCode::OK,
        &ListPage {
            tokens: found.tokens.into_iter().map(|token| TokenRow::new(token, now, m)).collect(),
            unusable: identifier.is_none(),
            refusal: caller.refusal().map_or("", |refusal| m.refusal(&refusal)),
            message: if shown.revoked.is_some() { m.token_revoked } else { "" },
            first: if after.is_some() { link.clone() } else { String::new() },
            next: next.map(|cursor| format!("{link}?cursor={cursor}")).unwrap_or_default(),
            page,
            base,
        },
    )
}

#[derive(Template)]
#[template(path = "console/my_token_issue.html")]
struct FormPage {
    page: Frame,
    base: String,
    error: &'static str,
    identifier: String,
    expiry: String,
    expiry_date: String,
    expiry_error: String,
    offered: Offered,
}

/// The form with what was chosen, and what is wrong with it.
fn form_page(
    caller: &MemberWith<ConsoleMyTokens>,
    chosen: Expiry,
    limit: &Limit,
    errors: &Fields,
    refusal: &'static str,
) -> Result<FormPage, ApiError> {
    let page = caller.frame(caller.m().issue_token, Nav::MyTokens)?;
    let error = if errors.is_empty() { refusal } else { page.m.nothing_was_saved };
    Ok(FormPage {
        base: page.base(),
        error,
        identifier: address(caller),
        expiry: chosen.expiry,
        expiry_date: chosen.expiry_date,
        expiry_error: errors.of(Expiry::FIELD).to_owned(),
        offered: limit.offered(page.m),
        page,
    })
}

/// Why the member gets no token; an empty text if the member does.
fn refusal(caller: &MemberWith<ConsoleMyTokens>) -> &'static str {
    match (caller.refusal(), own_identifier(caller)) {
        (Some(refusal), _) => caller.m().refusal(&refusal),
        (None, None) => caller.m().address_is_no_identifier,
        (None, Some(_)) => "",
    }
}

async fn form(State(app): State<App>, caller: MemberWith<ConsoleMyTokens>) -> Result<Response, ApiError> {
    let limit = Limit::of(&caller.org, Limited::OrgUserToken, app.clock().now());
    let proposed = Expiry::proposed(&limit);
    html(StatusCode::OK, &form_page(&caller, proposed, &limit, &Fields::default(), refusal(&caller))?)
}

async fn issue(
    State(app): State<App>,
    State(console): State<Console>,
    caller: MemberWith<ConsoleMyTokens>,
    headers: HeaderMap,
    form: Form<Expiry>,
) -> Result<Response, ApiError> {
    let (store, org, by, m) = (app.store(), &caller.org.id, &caller.caller, caller.m());
    let once = form.once::<ConsoleMyTokens>()?;
    if let Some(repeat) = store.repeated(org, Some(&once), by).await? {
        return caller.made(&repeat, Nav::MyTokens, "my-tokens");
    }
    let limit = Limit::of(&caller.org, Limited::OrgUserToken, app.clock().now());
    let Some(identifier) = own_identifier(&caller).filter(|_| caller.refusal().is_none()) else {
        caller.record_refusal(&app).await?;
        let page = form_page(&caller, form.fields, &limit, &Fields::default(), refusal(&caller))?;
        return html(StatusCode::FORBIDDEN, &page);
    };
    let mut errors = Fields::default();
    let expires_at = form.fields.parse(&limit, m, &mut errors);
    if !errors.is_empty() {
        return html(StatusCode::BAD_REQUEST, &form_page(&caller, form.fields, &limit, &errors, "")?);
    }
    let issued = store.issue_own_org_user_token(&caller.member, identifier, expires_at, by, Some(&once));
    let (token, plain) = match issued.await? {
        Issued::Done(token, plain) => (token, plain),
        Issued::Repeated(repeat) => return caller.made(&repeat, Nav::MyTokens, "my-tokens"),
    };
    caller.confirm(&app, Some(&once), store.revoke_org_user_token(org, &token.id, by)).await?;
    let page = caller.frame(m.token_issued, Nav::MyTokens)?;
    token::issued(page, (&token, &plain), (String::new(), "my-tokens"), &console, &headers)
}

/// The member's own token with this ID.
async fn own_token(app: &App, caller: &MemberWith<ConsoleMyTokens>, id: &str) -> Result<OrgUserToken, ApiError> {
    let id = TokenId::parse(id).ok_or(ApiError::TokenNotFound)?;
    let token = app.store().org_user_token(&caller.org.id, &id).await?;
    token.filter(|token| token.bound_to == Some(caller.member.binding())).ok_or(ApiError::TokenNotFound)
}

/// The form of a rotation, and why it was refused.
fn rotate_page(
    caller: &MemberWith<ConsoleMyTokens>,
    token: &OrgUserToken,
    refusal: Option<&ApiError>,
) -> Result<rotation::Ask, ApiError> {
    let page = caller.frame(caller.m().rotate_token, Nav::MyTokens)?;
    let (m, cancel) = (page.m, format!("{}/my-tokens", page.base()));
    let error = refusal.map_or("", |refusal| m.refusal(refusal));
    Ok(rotation::Ask { facts: token::facts(token, m), cancel, error, page })
}

async fn ask_to_rotate(
    State(app): State<App>,
    caller: MemberWith<ConsoleMyTokens>,
    Path((_, id)): Path<(String, String)>,
) -> Result<Response, ApiError> {
    let token = own_token(&app, &caller, &id).await?;
    html(StatusCode::OK, &rotate_page(&caller, &token, caller.refusal().as_ref())?)
}

async fn rotate(
    State(app): State<App>,
    State(console): State<Console>,
    caller: MemberWith<ConsoleMyTokens>,
    Path((_, id)): Path<(String, String)>,
    headers: HeaderMap,
    form: Form<rotation::Chosen>,
) -> Result<Response, ApiError> {
    let old = own_token(&app, &caller, &id).await?;
    match caller.rotate::<OrgUserToken>(&app, &old.id, &form, (Nav::MyTokens, "my-tokens")).await? {
        Outcome::Done(token, plain, ends) => {
            let page = caller.frame(caller.m().token_rotated, Nav::MyTokens)?;
            let note = rotation::note(&form, ends, page.m);
            token::issued(page, (&token, &plain), (note, "my-tokens"), &console, &headers)
        }
        Outcome::Answered(page) => Ok(page),
        Outcome::Refused(refusal) => html(StatusCode::FORBIDDEN, &rotate_page(&caller, &old, Some(&refusal))?),
    }
}

async fn ask(
    State(app): State<App>,
    caller: MemberWith<ConsoleMyTokens>,
    Path((_, id)): Path<(String, String)>,
) -> Result<Response, ApiError> {
    let token = own_token(&app, &caller, &id).await?;
    let page = caller.frame(caller.m().revoke_token, Nav::MyTokens)?;
    html(StatusCode::OK, &token::ask_to_revoke(page, &token, "my-tokens"))
}

async fn revoke(
    State(app): State<App>,
    caller: MemberWith<ConsoleMyTokens>,
    Path((_, id)): Path<(String, String)>,
    _: Form<Nothing>,
) -> Result<Response, ApiError> {
    let (org, token) = (&caller.org.id, own_token(&app, &caller, &id).await?);
    if !app.store().revoke_org_user_token(org, &token.id, &caller.caller).await? {
        return Err(ApiError::TokenNotFound);
    }
    Ok(see_other(&format!("/console/o/{org}/my-tokens?revoked")))
}
