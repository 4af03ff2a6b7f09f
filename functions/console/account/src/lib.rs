//! `/console/account`: the person's language, organizations, sessions, and invitations.

use askama::Template;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::{get, post};
use serde::Deserialize;
use shared::console::messages::Messages;
use shared::console::{Form, Frame, SignedIn, html, see_other};
use shared::email::Language;
use shared::ids::{MemberId, OrgId};
use shared::store::bots::StoredBot;
use shared::store::members::{Accepted, Member};
use shared::store::sessions::Session;
use shared::{ApiError, App, ConsoleApp};
use utoipa_axum::router::OpenApiRouter;

/// The routes of this function.
pub fn routes() -> OpenApiRouter<ConsoleApp> {
    OpenApiRouter::new()
        .route("/console/account", get(account))
        .route("/console/account/language", post(set_language))
        .route("/console/account/sign-out-everywhere", post(sign_out_everywhere))
        .route("/console/account/invitations/{org_id}", get(invitation).post(accept))
}

#[derive(Template)]
#[template(path = "console/account.html")]
struct AccountPage {
    page: Frame,
    organizations: Vec<Organization>,
    sessions: Vec<SessionRow>,
    message: &'static str,
}

struct Organization {
    href: String,
    name: String,
    roles: Vec<String>,
}

struct SessionRow {
    browser: String,
    source_ip: String,
    created_at: String,
    last_used_at: String,
    current: bool,
}

#[derive(Deserialize)]
struct Shown {
    saved: Option<String>,
}

async fn account(State(app): State<App>, me: SignedIn, Query(shown): Query<Shown>) -> Result<Response, ApiError> {
    let store = app.store();
    let (memberships, sessions) =
        futures::try_join!(me.memberships(&app), async { Ok(store.sessions_of(me.session.person).await?) })?;
    let m = Messages::of(me.language);
    let mut organizations = Vec::with_capacity(memberships.len());
    for member in &memberships {
        let Some(org) = store.org(&member.org_id).await? else { continue };
        organizations.push(Organization {
            href: format!("/console/o/{}", org.id),
            name: org.name,
            roles: role_labels(m, member),
        });
    }
    let sessions = sessions.into_iter().map(|session| SessionRow::new(session, &me.session)).collect();
    let message = if shown.saved.is_some() { m.language_saved } else { "" };
    let page = AccountPage { page: me.frame(m.my_account)?, organizations, sessions, message };
    html(StatusCode::OK, &page)
}

impl SessionRow {
    fn new(session: Session, own: &Session) -> Self {
        Self {
            current: session.id == own.id,
            browser: session.user_agent.unwrap_or_default(),
            source_ip: session.source_ip.map(|ip| ip.to_string()).unwrap_or_default(),
            created_at: session.created_at.to_string(),
            last_used_at: session.last_used_at.to_string(),
        }
    }
}

fn role_labels(m: &Messages, member: &Member) -> Vec<String> {
    member.roles.as_slice().iter().map(|role| m.role_label(role)).collect()
}

#[derive(Deserialize)]
struct Chosen {
    language: Language,
}

async fn set_language(State(app): State<App>, me: SignedIn, form: Form<Chosen>) -> Result<Response, ApiError> {
    app.store().set_language(me.secret.hash(), me.session.person, form.fields.language).await?;
    Ok(see_other("/console/account?saved"))
}

#[derive(Deserialize)]
struct Nothing {}

async fn sign_out_everywhere(State(app): State<App>, me: SignedIn, _: Form<Nothing>) -> Result<Response, ApiError> {
    app.store().end_own_sessions(me.session.person, &me.caller()).await?;
    Ok(see_other("/console/sign-in?signed_out"))
}

#[derive(Template)]
#[template(path = "console/invitation.html")]
struct InvitationPage {
    page: Frame,
    organization: String,
    inviter: String,
    roles: Vec<RoleRow>,
    expires_at: String,
    invitation: String,
    action: String,
    later: &'static str,
}

struct RoleRow {
    label: String,
    hint: &'static str,
}

async fn invitation(State(app): State<App>, me: SignedIn, Path(org_id): Path<String>) -> Result<Response, ApiError> {
    let org_id = OrgId::parse(&org_id).ok_or(ApiError::NotFound)?;
    let invitation = app.store().invitation(&me.session.email, &org_id).await?.ok_or(ApiError::NotFound)?;
    let org = app.store().org(&org_id).await?.ok_or(ApiError::NotFound)?;
    let m = Messages::of(me.language);
    let is_by_provider = invitation.invited_by.kind == StoredBot::SUBJECT;
    let nobody = if is_by_provider { m.the_identity_provider } else { m.the_operator };
    let inviter = invitation.inviter.as_ref().map_or(nobody, |inviter| inviter.expose());
    let roles = invitation.roles.as_slice().iter();
    let page = InvitationPage {
        page: me.frame(m.invitation)?,
        inviter: inviter.to_owned(),
        organization: org.name,
        roles: roles.map(|role| RoleRow { label: m.role_label(role), hint: m.role_hint(role) }).collect(),
        expires_at: invitation.expires_at.map(|ends| ends.to_string()).unwrap_or_default(),
        invitation: invitation.id.to_string(),
        action: format!("/console/account/invitations/{org_id}"),
        later: "/console/",
    };
    html(StatusCode::OK, &page)
}

#[derive(Deserialize)]
struct Acceptance {
    /// The invitation that was shown.
    #[serde(default)]
    invitation: String,
}

async fn accept(
    State(app): State<App>,
    me: SignedIn,
    Path(org_id): Path<String>,
    form: Form<Acceptance>,
) -> Result<Response, ApiError> {
    let org_id = OrgId::parse(&org_id).ok_or(ApiError::NotFound)?;
    let invitation = MemberId::parse(&form.fields.invitation).ok_or(ApiError::NotFound)?;
    match app.store().accept_invitation(&org_id, &invitation, &me.session.person(), &me.caller()).await? {
        Accepted::Joined(_) | Accepted::AlreadyMember => Ok(see_other(&format!("/console/o/{org_id}"))),
        Accepted::Gone => Err(ApiError::NotFound),
    }
}
