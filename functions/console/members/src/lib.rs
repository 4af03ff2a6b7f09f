//! `/console/o/{org_id}/members`: members of the organization and invitations: list, invite, change
//! roles, sign out, remove.

use askama::Template;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::{get, post};
use serde::Deserialize;
use shared::console::page::{Confirm, Fact};
use shared::console::roles::{self, OfferedRole};
use shared::console::{Fields, Form, Frame, MemberWith, Nav, html, see_other};
use shared::cursor::Pages;
use shared::email::EmailAddress;
use shared::ids::MemberId;
use shared::mail::{Mail, MailError, Mailer};
use shared::permissions::{ConsoleMembers, Role};
use shared::store::members::{Listed, MemberChange};
use shared::{ApiError, App, ConsoleMailApp};
use utoipa_axum::router::OpenApiRouter;

/// The routes of this function.
pub fn routes() -> OpenApiRouter<ConsoleMailApp> {
    OpenApiRouter::new()
        .route("/console/o/{org_id}/members", get(list))
        .route("/console/o/{org_id}/members/invite", get(invite_form).post(invite))
        .route("/console/o/{org_id}/members/{member_id}", get(look))
        .route("/console/o/{org_id}/members/{member_id}/roles", post(set_roles))
        .route("/console/o/{org_id}/members/{member_id}/sign-out", post(sign_out))
        .route("/console/o/{org_id}/members/{member_id}/remove", get(ask).post(remove))
}

/// What somebody is told whose own roles changed while the form was under way.
const CALLER_CHANGED: ApiError = ApiError::Conflict("Your roles have changed.");

/// Members per page.
const PAGE: usize = 50;

#[derive(Template)]
#[template(path = "console/members.html")]
struct ListPage {
    page: Frame,
    base: String,
    members: Vec<MemberRow>,
    message: &'static str,
    first: String,
    next: String,
}

struct MemberRow {
    id: String,
    email: String,
    roles: Vec<String>,
    status: &'static str,
    status_label: &'static str,
    /// When the person joined; empty for an invitation.
    joined_at: String,
    /// When the invitation ends; empty for a member.
    ends: String,
    you: bool,
}

impl MemberRow {
    fn new(listed: &Listed, caller: &MemberWith<ConsoleMembers>) -> Self {
        let m = caller.m();
        let (status, status_label, joined_at, ends) = match listed {
            Listed::Active(member) => ("active", m.active, member.joined_at.to_string(), String::new()),
            Listed::Invited(invitation) => {
                let ends = invitation.expires_at.map(|ends| m.invitation_ends(ends));
                ("pending", m.invited, String::new(), ends.unwrap_or_default())
            }
        };
        Self {
            id: listed.id().to_string(),
            email: listed.email().expose().to_owned(),
            roles: listed.roles().iter().map(|role| m.role_label(role)).collect(),
            status,
            status_label,
            joined_at,
            ends,
            you: *listed.id() == caller.member.id,
        }
    }
}

#[derive(Deserialize)]
struct ListShown {
    cursor: Option<String>,
    invited: Option<String>,
    removed: Option<String>,
    withdrawn: Option<String>,
}

async fn list(
    State(app): State<App>,
    caller: MemberWith<ConsoleMembers>,
    Query(shown): Query<ListShown>,
) -> Result<Response, ApiError> {
    let (m, org) = (caller.m(), &caller.org.id);
    let pages = Pages(&["console-members", org.as_str()]);
    let after = pages.after(shown.cursor.as_deref(), MemberId::parse)?;
    let found = app.store().members(org, after.as_ref(), PAGE).await?;
    let page = caller.frame(m.members, Nav::Members)?;
    let base = page.base();
    let next = pages.next(found.next.as_ref().map(MemberId::as_str));
    let messages = [
        (shown.invited, m.member_invited),
        (shown.removed, m.member_removed),
        (shown.withdrawn, m.invitation_withdrawn),
    ];
    html(
        StatusCode::OK,
        &ListPage {
            members: found.members.iter().map(|listed| MemberRow::new(listed, &caller)).collect(),
            message: messages.into_iter().find(|(flag, _)| flag.is_some()).map_or("", |(_, message)| message),
            first: if after.is_some() { format!("{base}/members") } else { String::new() },
            next: next.map(|cursor| format!("{base}/members?cursor={cursor}")).unwrap_or_default(),
            page,
            base,
        },
    )
}

#[derive(Template)]
#[template(path = "console/member_invite.html")]
struct InvitePage {
    page: Frame,
    base: String,
    error: &'static str,
    email: String,
    email_error: String,
    roles: Vec<OfferedRole>,
    roles_error: String,
}

/// The form as it was sent.
#[derive(Debug, Default, Deserialize)]
struct NewMember {
    #[serde(default)]
    email: String,
    #[serde(default)]
    role: Vec<String>,
}

impl NewMember {
    /// The form with what was typed, and what is wrong with it.
    fn page(
        self,
        caller: &MemberWith<ConsoleMembers>,
        errors: &Fields,
        error: &'static str,
    ) -> Result<InvitePage, ApiError> {
        let page = caller.frame(caller.m().invite_member, Nav::Members)?;
        Ok(InvitePage {
            base: page.base(),
            error: if errors.is_empty() { error } else { page.m.nothing_was_saved },
            email: self.email,
            email_error: errors.of("email").to_owned(),
            roles: chosen_roles(caller, &self.role),
            roles_error: errors.of(roles::FIELD).to_owned(),
            page,
        })
    }
}

/// The roles that a form offers, with those that were chosen.
fn chosen_roles(caller: &MemberWith<ConsoleMembers>, chosen: &[String]) -> Vec<OfferedRole> {
    let is_chosen = |role: Role| chosen.iter().any(|name| name == role.as_str());
    roles::offered(caller.m(), roles::for_people(), is_chosen)
}

async fn invite_form(caller: MemberWith<ConsoleMembers>) -> Result<Response, ApiError> {
    html(StatusCode::OK, &NewMember::default().page(&caller, &Fields::default(), "")?)
}

async fn invite(
    State(ConsoleMailApp { app, mailer, .. }): State<ConsoleMailApp>,
    caller: MemberWith<ConsoleMembers>,
    form: Form<NewMember>,
) -> Result<Response, ApiError> {
    let (m, mut errors) = (caller.m(), Fields::default());
    let email = errors.parse("email", EmailAddress::try_from(form.fields.email.clone()).map_err(|_| m.email_invalid));
    let roles = roles::parse(&form.fields.role, roles::for_people(), m, &mut errors);
    let (Some(email), Some(roles)) = (email, roles) else {
        return html(StatusCode::BAD_REQUEST, &form.fields.page(&caller, &errors, "")?);
    };
    match invite_by_mail(&app, &mailer, &caller, &email, &roles).await? {
        Invited::Done => Ok(see_other(&format!("/console/o/{}/members?invited", caller.org.id))),
        Invited::CallerChanged => Err(CALLER_CHANGED),
        Invited::TooMany => {
            let page = form.fields.page(&caller, &Fields::default(), m.too_many_invitations)?;
            html(StatusCode::TOO_MANY_REQUESTS, &page)
        }
    }
}

enum Invited {
    Done,
    /// The member's own rights changed in the meantime.
    CallerChanged,
    /// The organization, or the deployment, has mailed as much as it may.
    TooMany,
}

/// Invites an address and mails the invitation. Whatever else is known about the address, the same
/// happens.
async fn invite_by_mail(
    app: &App,
    mailer: &Mailer,
    caller: &MemberWith<ConsoleMembers>,
    email: &EmailAddress,
    roles: &[Role],
) -> Result<Invited, ApiError> {
    let (store, org) = (app.store(), &caller.org.id);
    let counted = match store.count_invitation_mail(org, &app.limits().mails).await? {
        Ok(counted) => counted,
        Err(reached) => {
            reached.log(email);
            return Ok(Invited::TooMany);
        }
    };
    let invited = store.invite_in_place(org, email, roles, caller.authority(), &caller.caller).await?;
    let Some((invitation, replaced)) = invited else {
        store.uncount_mail(counted).await?;
        return Ok(Invited::CallerChanged);
    };
    let (organization, inviter) = (caller.org.name.as_str(), Some(&caller.member.email));
    let mail = Mail::Invitation { organization, inviter, roles };
    if let Err(error) = mailer.send(email, caller.signed_in.language, &mail).await {
        // An invitation that nobody may have been told about is not left behind.
        let taken_back = store.take_back_invitation(&invitation, &replaced, caller.authority(), &caller.caller);
        let _: MemberChange = taken_back.await?;
        if error == MailError::NotSent {
            store.uncount_mail(counted).await?;
        }
        return Err(error.into());
    }
    Ok(Invited::Done)
}

#[derive(Template)]
#[template(path = "console/member.html")]
struct MemberPage {
    page: Frame,
    base: String,
    member: MemberRow,
    invited: bool,
    roles: Vec<OfferedRole>,
    roles_error: String,
    error: &'static str,
    message: &'static str,
}

impl MemberPage {
    fn new(caller: &MemberWith<ConsoleMembers>, listed: &Listed, roles: Vec<OfferedRole>) -> Result<Self, ApiError> {
        let page = caller.frame(listed.email().expose(), Nav::Members)?;
        Ok(Self {
            base: page.base(),
            page,
            member: MemberRow::new(listed, caller),
            invited: matches!(listed, Listed::Invited(_)),
            roles,
            roles_error: String::new(),
            error: "",
            message: "",
        })
    }
}

/// The member or invitation in the path.
async fn stored(app: &App, caller: &MemberWith<ConsoleMembers>, id: &str) -> Result<Listed, ApiError> {
    let id = MemberId::parse(id).ok_or(ApiError::NotFound)?;
    app.store().member(&caller.org.id, &id).await?.ok_or(ApiError::NotFound)
}

#[derive(Deserialize)]
struct MemberShown {
    changed: Option<String>,
    signed_out: Option<String>,
}

async fn look(
    State(app): State<App>,
    caller: MemberWith<ConsoleMembers>,
    Path((_, id)): Path<(String, String)>,
    Query(shown): Query<MemberShown>,
) -> Result<Response, ApiError> {
    let (m, listed) = (caller.m(), stored(&app, &caller, &id).await?);
    let held: Vec<String> = listed.roles().iter().map(|role| role.as_str().to_owned()).collect();
    let page = MemberPage::new(&caller, &listed, chosen_roles(&caller, &held))?;
    let message = match (shown.changed, shown.signed_out) {
        (Some(_), _) => m.roles_changed,
        (None, Some(_)) => m.member_signed_out,
        (None, None) => "",
    };
    html(StatusCode::OK, &MemberPage { message, ..page })
}

#[derive(Deserialize)]
struct Chosen {
    #[serde(default)]
    role: Vec<String>,
}

async fn set_roles(
    State(app): State<App>,
    caller: MemberWith<ConsoleMembers>,
    Path((_, id)): Path<(String, String)>,
    form: Form<Chosen>,
) -> Result<Response, ApiError> {
    let (m, listed, mut errors) = (caller.m(), stored(&app, &caller, &id).await?, Fields::default());
    let (roles_error, error) = match roles::parse(&form.fields.role, roles::for_people(), m, &mut errors) {
        None => (errors.of(roles::FIELD), m.nothing_was_saved),
        Some(roles) => {
            let (org, id) = (&caller.org.id, listed.id());
            match app.store().set_member_roles(org, id, &roles, caller.authority(), &caller.caller).await? {
                // Owners who demoted themselves no longer see this page.
                MemberChange::Done if *id == caller.member.id && !roles.contains(&Role::Owner) => {
                    return Ok(see_other(&format!("/console/o/{org}")));
                }
                MemberChange::Done => return Ok(see_other(&format!("/console/o/{org}/members/{id}?changed"))),
                MemberChange::NotFound => return Err(ApiError::NotFound),
                MemberChange::CallerChanged => return Err(CALLER_CHANGED),
                MemberChange::LastOwner => (m.last_owner, m.nothing_was_saved),
            }
        }
    };
    let page = MemberPage::new(&caller, &listed, chosen_roles(&caller, &form.fields.role))?;
    html(StatusCode::BAD_REQUEST, &MemberPage { roles_error: roles_error.to_owned(), error, ..page })
}

#[derive(Deserialize)]
struct Nothing {}

async fn sign_out(
    State(app): State<App>,
    caller: MemberWith<ConsoleMembers>,
    Path((_, id)): Path<(String, String)>,
    _: Form<Nothing>,
) -> Result<Response, ApiError> {
    let Listed::Active(member) = stored(&app, &caller, &id).await? else { return Err(ApiError::NotFound) };
    app.store().sign_out_member(&member, &caller.caller).await?;
    Ok(see_other(&format!("/console/o/{}/members/{}?signed_out", caller.org.id, member.id)))
}

async fn ask(
    State(app): State<App>,
    caller: MemberWith<ConsoleMembers>,
    Path((_, id)): Path<(String, String)>,
) -> Result<Response, ApiError> {
    let listed = stored(&app, &caller, &id).await?;
    html(StatusCode::OK, &confirm_removal(&caller, &listed, "")?)
}

fn confirm_removal(caller: &MemberWith<ConsoleMembers>, listed: &Listed, error: &str) -> Result<Confirm, ApiError> {
    let m = caller.m();
    let (title, text) = match listed {
        Listed::Active(_) => (m.remove_member, m.remove_member_text),
        Listed::Invited(_) => (m.withdraw_invitation, m.withdraw_invitation_text),
    };
    let page = caller.frame(title, Nav::Members)?;
    let roles: Vec<String> = listed.roles().iter().map(|role| m.role_label(role)).collect();
    Ok(Confirm {
        text: text.to_owned(),
        facts: vec![Fact::new(m.email, listed.email().expose()), Fact::new(m.roles, roles.join(", "))],
        submit: title.to_owned(),
        cancel: format!("{}/members/{}", page.base(), listed.id()),
        error: error.to_owned(),
        typed: None,
        page,
    })
}

async fn remove(
    State(app): State<App>,
    caller: MemberWith<ConsoleMembers>,
    Path((_, id)): Path<(String, String)>,
    _: Form<Nothing>,
) -> Result<Response, ApiError> {
    let (org, listed) = (&caller.org.id, stored(&app, &caller, &id).await?);
    match app.store().remove_member(org, listed.id(), caller.authority(), &caller.caller).await? {
        // People who removed themselves may be members elsewhere.
        MemberChange::Done if *listed.id() == caller.member.id => Ok(see_other("/console/")),
        MemberChange::Done => {
            let flag = if matches!(listed, Listed::Active(_)) { "removed" } else { "withdrawn" };
            Ok(see_other(&format!("/console/o/{org}/members?{flag}")))
        }
        MemberChange::NotFound => Err(ApiError::NotFound),
        MemberChange::CallerChanged => Err(CALLER_CHANGED),
        MemberChange::LastOwner => {
            html(StatusCode::BAD_REQUEST, &confirm_removal(&caller, &listed, caller.m().last_owner)?)
        }
    }
}
