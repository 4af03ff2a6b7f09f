//! `/console/o/{org_id}/tokens`: org user tokens of the organization: list, issue, rotate, revoke one or all
//! of a user identifier.

use askama::Template;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use axum::routing::get;
use serde::Deserialize;
use shared::console::expiry::{Expiry, Limit, Offered};
use shared::console::messages::Messages;
use shared::console::page::{Tab, state_of, tabs};
use shared::console::rotation::{self, Outcome};
use shared::console::{Console, Fields, Form, Frame, MemberWith, Nav, Nothing, html, see_other, token};
use shared::cursor::{self, Pages};
use shared::domain::{UserIdentifier, UserIdentifierPrefix};
use shared::ids::{OrgId, TokenId};
use shared::permissions::{
    Guarded, Operation, OrgUserTokensIssue, OrgUserTokensRevoke, OrgUserTokensRevokeByUser, OrgUserTokensRotate,
};
use shared::store::lifetimes::Limited;
use shared::store::org_user_tokens::{Issued, Listing, Page, RevokeByUser};
use shared::store::tokens::OrgUserToken;
use shared::{ApiError, App, ConsoleApp, Moment, Query};
use utoipa_axum::router::OpenApiRouter;

/// The routes of this function.
pub fn routes() -> OpenApiRouter<ConsoleApp> {
    OpenApiRouter::new()
        .route("/console/o/{org_id}/tokens", get(list))
        .route("/console/o/{org_id}/tokens/issue", get(form).post(issue))
        .route("/console/o/{org_id}/tokens/revoke-by-user", get(preview).post(revoke_by_user))
        .route("/console/o/{org_id}/tokens/{token_id}/rotate", get(ask_to_rotate).post(rotate))
        .route("/console/o/{org_id}/tokens/{token_id}/revoke", get(ask).post(revoke))
}

/// Tokens per page.
const PAGE: usize = 50;

#[derive(Template)]
#[template(path = "console/tokens.html")]
struct ListPage {
    page: Frame,
    base: String,
    tokens: Vec<TokenRow>,
    states: Vec<Tab>,
    state: &'static str,
    prefix: String,
    may_list: bool,
    may_issue: bool,
    may_rotate: bool,
    may_revoke: bool,
    may_see_installations: bool,
    refusal: &'static str,
    curl: String,
    message: String,
    first: String,
    next: String,
}

struct TokenRow {
    id: String,
    identifier: String,
    prefix: String,
    lineage: String,
    status: &'static str,
    status_label: &'static str,
    created_at: String,
    created_by: String,
    expires_at: String,
    last_used_at: String,
}

impl TokenRow {
    fn new(token: OrgUserToken, now: Moment, m: &Messages) -> Self {
        let state = token.state(now);
        Self {
            id: token.id.to_string(),
            identifier: token.user_identifier.as_str().to_owned(),
            lineage: rotation::lineage(token.rotated.as_ref(), token.replaces.as_ref(), m),
            prefix: token.token_prefix,
            status: state.into(),
            status_label: m.state(state),
            created_at: token.created_at.to_string(),
            created_by: token.created_by.id,
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
    state: Option<String>,
    prefix: Option<String>,
    cursor: Option<String>,
    /// How many tokens were just revoked: of the prefix, if there is one.
    revoked: Option<String>,
}

async fn list(
    State(app): State<App>,
    State(console): State<Console>,
    caller: MemberWith<OrgUserTokensIssue>,
    headers: HeaderMap,
    Query(shown): Query<Shown>,
) -> Result<Response, ApiError> {
    let page = caller.frame(caller.m().tokens, Nav::Tokens)?;
    let (m, base, org) = (page.m, page.base(), &caller.org.id);
    let (state, states) = state_of(shown.state.as_deref());
    let prefix = shown.prefix.unwrap_or_default().trim().to_owned();
    let typed = Some(prefix.clone()).filter(|prefix| !prefix.is_empty());
    let may_list = caller.may(Operation::OrgUserTokensList);

    let pages = Pages(&["console-org-user-tokens", org.as_str(), state, &prefix]);
    let after = pages.after(shown.cursor.as_deref(), |place| Some(place.to_owned()))?;
    let filter = typed.map(UserIdentifierPrefix::try_from).transpose();
    let found = match &filter {
        Ok(filter) if may_list => {
            let listing = Listing {
                states,
                user_identifier: None,
                user_identifier_prefix: filter.as_ref(),
                bound_to: None,
                after: after.as_deref(),
                limit: PAGE,
                request_id: &caller.caller.request_id,
            };
            if !listing.has_valid_start() {
                return Err(cursor::foreign());
            }
            app.store().list_org_user_tokens(org, &listing).await?
        }
        // No identifier begins with what is typed.
        _ => Page::default(),
    };

    let (now, link) = (app.clock().now(), format!("{base}/tokens"));
    // Characters of identifiers that mean something else in a URL.
    let query = format!("{link}?state={state}&prefix={}", prefix.replace('+', "%2B"));
    let next = pages.next(found.next.as_deref());
    let message = match (shown.revoked.as_deref().map(str::parse::<usize>), prefix.as_str()) {
        (None, _) => String::new(),
        (Some(Ok(count)), identifier) if !identifier.is_empty() => m.revoked_tokens(count, identifier),
        (Some(_), _) => m.token_revoked.to_owned(),
    };
    html(
        StatusCode::OK,
        &ListPage {
            tokens: found.tokens.into_iter().map(|token| TokenRow::new(token, now, m)).collect(),
            states: tabs(m, &link, state),
            state,
            may_list,
            may_issue: caller.may(Operation::OrgUserTokensIssue),
            may_rotate: caller.may(Operation::OrgUserTokensRotate),
            may_revoke: caller.may(Operation::OrgUserTokensRevoke),
            may_see_installations: caller.may(Operation::InstallationsList),
            refusal: caller.refusal().map_or("", |refusal| m.refusal(&refusal)),
            curl: curl(&console.public_url(&headers), org),
            message,
            first: if after.is_some() { query.clone() } else { String::new() },
            next: next.map(|cursor| format!("{query}&cursor={cursor}")).unwrap_or_default(),
            prefix,
            page,
            base,
        },
    )
}

/// How a script issues a token.
fn curl(public_url: &str, org: &OrgId) -> String {
    format!(
        "curl -sS {public_url}/v1/o/{org}/guard/org-user-tokens \\\n  \
         -H \"Authorization: Bearer $BOT_API_KEY:$BOT_ID\" \\\n  \
         --json '{{\"user_identifier\": \"alice@example.com\"}}'"
    )
}

#[derive(Template)]
#[template(path = "console/token_issue.html")]
struct FormPage {
    page: Frame,
    base: String,
    error: &'static str,
    identifier: String,
    identifier_error: String,
    expiry: String,
    expiry_date: String,
    expiry_error: String,
    offered: Offered,
}

/// The form as it was sent.
#[derive(Debug, Default, Deserialize)]
struct NewToken {
    #[serde(default)]
    user_identifier: String,
    #[serde(flatten)]
    expiry: Expiry,
}

impl NewToken {
    fn parse(&self, limit: &Limit, m: &Messages, errors: &mut Fields) -> Option<(UserIdentifier, Option<Moment>)> {
        let identifier = errors.parse("user_identifier", parse_identifier(&self.user_identifier, m));
        let expires_at = self.expiry.parse(limit, m, errors);
        identifier.filter(|_| errors.is_empty()).map(|identifier| (identifier, expires_at))
    }

    /// The form with what was typed, and what is wrong with it.
    fn page(
        self,
        caller: &MemberWith<OrgUserTokensIssue>,
        limit: &Limit,
        errors: &Fields,
        refusal: Option<&ApiError>,
    ) -> Result<FormPage, ApiError> {
        let page = caller.frame(caller.m().issue_token, Nav::Tokens)?;
        let m = page.m;
        let error = if errors.is_empty() { "" } else { m.nothing_was_saved };
        Ok(FormPage {
            base: page.base(),
            error: refusal.map_or(error, |refusal| m.refusal(refusal)),
            identifier: self.user_identifier,
            identifier_error: errors.of("user_identifier").to_owned(),
            expiry: self.expiry.expiry,
            expiry_date: self.expiry.expiry_date,
            expiry_error: errors.of(Expiry::FIELD).to_owned(),
            offered: limit.offered(m),
            page,
        })
    }
}

fn parse_identifier(text: &str, m: &Messages) -> Result<UserIdentifier, &'static str> {
    UserIdentifier::try_from(text.to_owned()).map_err(|_| m.user_identifier_rule(text))
}

async fn form(State(app): State<App>, caller: MemberWith<OrgUserTokensIssue>) -> Result<Response, ApiError> {
    let limit = Limit::of(&caller.org, Limited::OrgUserToken, app.clock().now());
    let new = NewToken { expiry: Expiry::proposed(&limit), ..NewToken::default() };
    html(StatusCode::OK, &new.page(&caller, &limit, &Fields::default(), caller.refusal().as_ref())?)
}

async fn issue(
    State(app): State<App>,
    State(console): State<Console>,
    caller: MemberWith<OrgUserTokensIssue>,
    headers: HeaderMap,
    form: Form<NewToken>,
) -> Result<Response, ApiError> {
    let (store, org, by, m) = (app.store(), &caller.org.id, &caller.caller, caller.m());
    let once = form.once::<OrgUserTokensIssue>()?;
    if let Some(repeat) = store.repeated(org, Some(&once), by).await? {
        return caller.made(&repeat, Nav::Tokens, "tokens?state=all");
    }
    let limit = Limit::of(&caller.org, Limited::OrgUserToken, app.clock().now());
    if let Some(refusal) = caller.refusal() {
        caller.record_refusal(&app).await?;
        return html(StatusCode::FORBIDDEN, &form.fields.page(&caller, &limit, &Fields::default(), Some(&refusal))?);
    }
    let mut errors = Fields::default();
    let Some((identifier, expires_at)) = form.fields.parse(&limit, m, &mut errors) else {
        return html(StatusCode::BAD_REQUEST, &form.fields.page(&caller, &limit, &errors, None)?);
    };
    let issued = store.issue_org_user_token(org, identifier, expires_at, by, Some(&once));
    let (token, plain) = match issued.await? {
        Issued::Done(token, plain) => (token, plain),
        Issued::Repeated(repeat) => return caller.made(&repeat, Nav::Tokens, "tokens?state=all"),
    };
    caller.confirm(&app, Some(&once), store.revoke_org_user_token(org, &token.id, by)).await?;
    let page = caller.frame(m.token_issued, Nav::Tokens)?;
    token::issued(page, (&token, &plain), (String::new(), "tokens"), &console, &headers)
}

/// The organization's token with this ID.
async fn stored<O: Guarded>(app: &App, caller: &MemberWith<O>, id: &str) -> Result<OrgUserToken, ApiError> {
    let id = TokenId::parse(id).ok_or(ApiError::TokenNotFound)?;
    app.store().org_user_token(&caller.org.id, &id).await?.ok_or(ApiError::TokenNotFound)
}

/// The form of a rotation, and why it was refused.
fn rotate_page(
    caller: &MemberWith<OrgUserTokensRotate>,
    token: &OrgUserToken,
    refusal: Option<&ApiError>,
) -> Result<rotation::Ask, ApiError> {
    let page = caller.frame(caller.m().rotate_token, Nav::Tokens)?;
    let (m, cancel) = (page.m, format!("{}/tokens", page.base()));
    let error = refusal.map_or("", |refusal| m.refusal(refusal));
    Ok(rotation::Ask { facts: token::facts(token, m), cancel, error, page })
}

async fn ask_to_rotate(
    State(app): State<App>,
    caller: MemberWith<OrgUserTokensRotate>,
    Path((_, id)): Path<(String, String)>,
) -> Result<Response, ApiError> {
    let token = stored(&app, &caller, &id).await?;
    html(StatusCode::OK, &rotate_page(&caller, &token, caller.refusal().as_ref())?)
}

async fn rotate(
    State(app): State<App>,
    State(console): State<Console>,
    caller: MemberWith<OrgUserTokensRotate>,
    Path((_, id)): Path<(String, String)>,
    headers: HeaderMap,
    form: Form<rotation::Chosen>,
) -> Result<Response, ApiError> {
    let old = stored(&app, &caller, &id).await?;
    match caller.rotate::<OrgUserToken>(&app, &old.id, &form, (Nav::Tokens, "tokens?state=all")).await? {
        Outcome::Done(token, plain, ends) => {
            let page = caller.frame(caller.m().token_rotated, Nav::Tokens)?;
            let note = rotation::note(&form, ends, page.m);
            token::issued(page, (&token, &plain), (note, "tokens"), &console, &headers)
        }
        Outcome::Answered(page) => Ok(page),
        Outcome::Refused(refusal) => html(StatusCode::FORBIDDEN, &rotate_page(&caller, &old, Some(&refusal))?),
    }
}

async fn ask(
    State(app): State<App>,
    caller: MemberWith<OrgUserTokensRevoke>,
    Path((_, id)): Path<(String, String)>,
) -> Result<Response, ApiError> {
    let token = stored(&app, &caller, &id).await?;
    let page = caller.frame(caller.m().revoke_token, Nav::Tokens)?;
    html(StatusCode::OK, &token::ask_to_revoke(page, &token, "tokens"))
}

async fn revoke(
    State(app): State<App>,
    caller: MemberWith<OrgUserTokensRevoke>,
    Path((_, id)): Path<(String, String)>,
    _: Form<Nothing>,
) -> Result<Response, ApiError> {
    let id = TokenId::parse(&id).ok_or(ApiError::TokenNotFound)?;
    if !app.store().revoke_org_user_token(&caller.org.id, &id, &caller.caller).await? {
        return Err(ApiError::TokenNotFound);
    }
    Ok(see_other(&format!("/console/o/{}/tokens?revoked=1", caller.org.id)))
}

#[derive(Template)]
#[template(path = "console/tokens_revoke_by_user.html")]
struct RevokeByUserPage {
    page: Frame,
    base: String,
    message: String,
    error: &'static str,
    identifier: String,
    identifier_error: String,
    matched: Option<usize>,
    confirm_error: &'static str,
}

impl RevokeByUserPage {
    fn new(caller: &MemberWith<OrgUserTokensRevokeByUser>, identifier: &str) -> Result<Self, ApiError> {
        let page = caller.frame(caller.m().revoke_all_of_a_person, Nav::Tokens)?;
        Ok(Self {
            base: page.base(),
            page,
            message: String::new(),
            error: "",
            identifier: identifier.to_owned(),
            identifier_error: String::new(),
            matched: None,
            confirm_error: "",
        })
    }

    /// The second step, or the first again if there is nothing to revoke.
    fn matching(self, matched: usize) -> Self {
        if matched > 0 {
            return Self { matched: Some(matched), ..self };
        }
        let identifier_error = self.page.m.no_tokens_of(&self.identifier);
        Self { identifier_error, ..self }
    }
}

#[derive(Deserialize)]
struct Previewed {
    user_identifier: Option<String>,
    /// How many of them a call has just revoked, which left some.
    revoked: Option<usize>,
}

async fn preview(
    State(app): State<App>,
    caller: MemberWith<OrgUserTokensRevokeByUser>,
    Query(asked): Query<Previewed>,
) -> Result<Response, ApiError> {
    let Some(typed) = asked.user_identifier else {
        return html(StatusCode::OK, &RevokeByUserPage::new(&caller, "")?);
    };
    let page = RevokeByUserPage::new(&caller, &typed)?;
    let m = page.page.m;
    let identifier = match parse_identifier(&typed, m) {
        Ok(identifier) => identifier,
        Err(error) => {
            let page = RevokeByUserPage { identifier_error: error.to_owned(), ..page };
            return html(StatusCode::BAD_REQUEST, &page);
        }
    };
    let matched = matched(&app, &caller, &identifier).await?;
    let message =
        asked.revoked.map(|count| format!("{} {}", m.revoked_tokens(count, &typed), m.remaining_tokens(matched)));
    html(StatusCode::OK, &RevokeByUserPage { message: message.unwrap_or_default(), ..page.matching(matched) })
}

/// The number of active tokens with this identifier.
async fn matched(
    app: &App,
    caller: &MemberWith<OrgUserTokensRevokeByUser>,
    identifier: &UserIdentifier,
) -> Result<usize, ApiError> {
    let dry_run = app.store().revoke_org_user_tokens_of(&caller.org.id, identifier, None, true, &caller.caller);
    match dry_run.await? {
        RevokeByUser::Done(done) => Ok(done.matched),
        RevokeByUser::CountDiffers => Err(ApiError::Internal),
    }
}

/// The second step as it was sent.
#[derive(Deserialize)]
struct Confirmed {
    #[serde(default)]
    user_identifier: String,
    #[serde(default)]
    expected_count: String,
    #[serde(default)]
    confirm: String,
}

async fn revoke_by_user(
    State(app): State<App>,
    caller: MemberWith<OrgUserTokensRevokeByUser>,
    form: Form<Confirmed>,
) -> Result<Response, ApiError> {
    let Confirmed { user_identifier, expected_count, confirm } = form.fields;
    let page = RevokeByUserPage::new(&caller, &user_identifier)?;
    let m = page.page.m;
    let identifier = match parse_identifier(&user_identifier, m) {
        Ok(identifier) => identifier,
        Err(error) => {
            let page = RevokeByUserPage { identifier_error: error.to_owned(), ..page };
            return html(StatusCode::BAD_REQUEST, &page);
        }
    };
    // Without a count, nothing was previewed.
    let expected = expected_count.parse::<usize>().ok().filter(|count| *count > 0);
    if let Some(expected) = expected
        && confirm != user_identifier
    {
        let page = RevokeByUserPage { confirm_error: m.identifier_differs, ..page.matching(expected) };
        return html(StatusCode::BAD_REQUEST, &page);
    }
    let org = &caller.org.id;
    let expected = expected.map_or(u64::MAX, |count| count as u64);
    let revoking = app.store().revoke_org_user_tokens_of(org, &identifier, Some(expected), false, &caller.caller);
    let RevokeByUser::Done(done) = revoking.await? else {
        let matched = matched(&app, &caller, &identifier).await?;
        return html(StatusCode::CONFLICT, &RevokeByUserPage { error: m.count_changed, ..page.matching(matched) });
    };
    // An identifier is safe in a URL, but for a plus sign.
    let (named, count) = (user_identifier.replace('+', "%2B"), done.ids.len());
    Ok(see_other(&if done.remaining == 0 {
        format!("/console/o/{org}/tokens?state=revoked&prefix={named}&revoked={count}")
    } else {
        format!("/console/o/{org}/tokens/revoke-by-user?user_identifier={named}&revoked={count}")
    }))
}
