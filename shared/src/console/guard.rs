//! The guards of pages: extractors that authenticate a session and check the member's roles.
//!
//! A handler with a [`MemberWith<Operation>`](MemberWith) argument runs only if the person who is
//! signed in is a member of the organization in the path and may perform the operation. The rules
//! are those of [`crate::permissions`], the same as for the API.

use std::marker::PhantomData;

use axum::extract::{FromRef, FromRequestParts};
use axum::response::Response;
use http::request::Parts;
use http::{HeaderMap, Method, StatusCode, header};

use super::Console;
use super::cookie::Cookie;
use super::messages::Messages;
use super::page::{AlreadyMade, Frame, Nav, html, nav, preferred};
use crate::app::App;
use crate::auth::{holds_role, org_refusal, record_refusal};
use crate::email::Language;
use crate::error::{ApiError, Unauthorized};
use crate::extract::PathParams;
use crate::ids::OrgId;
use crate::observe::{Origin, ReceivedAt, note_principal};
use crate::permissions::{Guarded, Operation};
use crate::secret::{FormToken, Token};
use crate::store::StoreError;
use crate::store::audit::Caller;
use crate::store::idempotency::{Once, Repeat};
use crate::store::members::{Authority, Member};
use crate::store::orgs::Org;
use crate::store::sessions::Session;

/// A person with an active session.
#[derive(Debug)]
pub struct SignedIn {
    /// The session.
    pub session: Session,
    /// The session's secret.
    pub secret: Token,
    /// The language of the pages.
    pub language: Language,
    /// Where the request came from.
    pub origin: Origin,
}

impl SignedIn {
    async fn read<S>(parts: &mut Parts, state: &S) -> Result<Self, ApiError>
    where
        S: Send + Sync,
        App: FromRef<S>,
        Console: FromRef<S>,
    {
        let (app, console) = (App::from_ref(state), Console::from_ref(state));
        let origin = Origin::from_request_parts(parts, state).await?;
        let secret = Cookie::Session.read(&console, &parts.headers);
        let secret = secret.ok_or(ApiError::Unauthorized(Unauthorized::Missing))?;
        let session = app.store().session(secret.hash()).await?;
        let session = session.ok_or(ApiError::Unauthorized(Unauthorized::Invalid))?;
        app.store().touch_session(secret.hash(), &session).await;
        let language = session.language.unwrap_or_else(|| preferred(&parts.headers));
        Ok(Self { session, secret, language, origin })
    }

    /// The person's memberships. Somebody who has neither a membership nor an invitation left is sent
    /// to sign-in.
    pub async fn memberships(&self, app: &App) -> Result<Vec<Member>, ApiError> {
        let memberships = app.store().memberships(self.session.person).await?;
        if memberships.is_empty() && app.store().invitations_of(&self.session.email).await?.is_empty() {
            return Err(ApiError::Unauthorized(Unauthorized::Invalid));
        }
        Ok(memberships)
    }

    /// The person as the actor of a change that concerns no organization.
    pub fn caller(&self) -> Caller {
        let Origin { request_id, source_ip } = self.origin.clone();
        let actor = crate::store::audit::Subject::new(Session::SUBJECT, &self.session.id);
        Caller { actor, source_ip, request_id, workload: None }
    }

    /// The frame of a page that belongs to no organization.
    pub fn frame(&self, title: &str) -> Result<Frame, ApiError> {
        let form_token = FormToken::generate(&self.secret)?;
        Ok(Frame::new(self.language, title).for_person(&self.session.email, &form_token))
    }
}

impl<S> FromRequestParts<S> for SignedIn
where
    S: Send + Sync,
    App: FromRef<S>,
    Console: FromRef<S>,
{
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let signed_in = Self::read(parts, state).await?;
        note_principal(signed_in.session.id.to_string());
        Ok(signed_in)
    }
}

/// A member who may perform this operation in the organization that the path names.
///
/// Checks in this order: the session is active (else the way to sign-in); the person is a member of
/// the organization (else 404, or the way to sign-in for somebody who is a member of none); the
/// member has a suitable role (else 403). Whether the organization has Guard is up to the page,
/// which says so in its form: see [`Self::refusal`].
#[derive(Debug)]
pub struct MemberWith<O> {
    /// The member.
    pub member: Member,
    /// The organization.
    pub org: Org,
    /// The person's session.
    pub signed_in: SignedIn,
    /// For the audit log.
    pub caller: Caller,
    /// When the request came in, in milliseconds since 1970.
    pub received_at: u64,
    operation: PhantomData<O>,
}

impl<S, O> FromRequestParts<S> for MemberWith<O>
where
    S: Send + Sync,
    O: Guarded,
    App: FromRef<S>,
    Console: FromRef<S>,
{
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let app = App::from_ref(state);
        let received_at = ReceivedAt::of(parts, app.clock());
        let signed_in = SignedIn::read(parts, state).await?;
        let org_id = OrgId::parse(PathParams::from_request_parts(parts, state).await?.get("org_id"));
        let Some(org_id) = org_id else { return Err(nowhere(&app, &signed_in).await) };
        let (member, org) =
            futures::try_join!(app.store().membership(signed_in.session.person, &org_id), app.store().org(&org_id))?;
        let (Some(member), Some(org)) = (member, org) else { return Err(nowhere(&app, &signed_in).await) };
        note_principal(member.id.to_string());
        let Origin { request_id, source_ip } = signed_in.origin.clone();
        let caller = Caller { actor: member.subject(), source_ip, request_id, workload: None };
        let member = Self { member, org, signed_in, caller, received_at, operation: PhantomData };
        if !member.may(O::OPERATION) {
            if parts.method == Method::POST {
                member.record_refusal(&app).await?;
            }
            return Err(ApiError::Forbidden);
        }
        Ok(member)
    }
}

/// What somebody is answered who is no member of the organization asked for.
async fn nowhere(app: &App, signed_in: &SignedIn) -> ApiError {
    match signed_in.memberships(app).await {
        Ok(_) => ApiError::NotFound,
        Err(error) => error,
    }
}

impl<O: Guarded> MemberWith<O> {
    /// Whether the member's roles allow this operation. A page offers only what they allow.
    pub fn may(&self, operation: Operation) -> bool {
        may(&self.member, operation)
    }

    /// Why the organization may not perform the operation now; `None` if it may. To be shown in the
    /// form, and checked again when it is sent.
    pub fn refusal(&self) -> Option<ApiError> {
        org_refusal(O::OPERATION, Some(&self.org))
    }

    /// The texts in the member's language.
    pub fn m(&self) -> &'static Messages {
        Messages::of(self.signed_in.language)
    }

    /// Answers a form that was sent before: nothing is made again, and the page says what was. `list`
    /// is the page that lists it, such as `api-keys`.
    pub fn made(&self, repeat: &Repeat, here: Nav, list: &str) -> Result<Response, ApiError> {
        self.sent_before(self.m().already_sent_text, repeat, here, list)
    }

    /// As [`Self::made`], with a text of its own: not everything that is made has a secret.
    pub fn sent_before(&self, text: &str, repeat: &Repeat, here: Nav, list: &str) -> Result<Response, ApiError> {
        let m = self.m();
        let page = self.frame(m.already_sent, here)?;
        let detail = match repeat {
            Repeat::Made(made) => m.already_made(&made.id),
            Repeat::OtherRequest => String::new(),
        };
        let href = format!("{}/{list}", page.base());
        let link = m.see_what_was_made;
        let (status, request_id) = (StatusCode::CONFLICT, self.caller.request_id.as_str());
        html(status, &AlreadyMade { page, status: status.as_u16(), text, detail, request_id, href, link })
    }

    /// The right of the member, for changes that give rights to somebody.
    pub fn authority(&self) -> Authority<'_> {
        Authority::Member(&self.member)
    }

    /// Records in the audit log that this operation was refused, if its rule says so.
    ///
    /// # Errors
    ///
    /// 429 if this member was refused too often this minute: then nothing is recorded.
    pub async fn record_refusal(&self, app: &App) -> Result<(), ApiError> {
        record_refusal(app, O::OPERATION, &self.org.id, &self.caller).await
    }

    /// Confirms, after something was created, that the member may still create it and that the
    /// session is still active. Otherwise takes it back: nobody holds it yet. The error is what a
    /// request that comes now is answered.
    pub async fn confirm(
        &self,
        app: &App,
        once: Option<&Once>,
        take_back: impl Future<Output = Result<bool, StoreError>>,
    ) -> Result<(), ApiError> {
        let Err(refusal) = self.again(app).await else { return Ok(()) };
        if let Err(error) = take_back.await {
            tracing::error!(%error, member = %self.member.id, "what a member created after removal could not be revoked");
            return Err(error.into());
        }
        app.store().free_idempotency_key(&self.org.id, once, &self.caller).await?;
        if matches!(refusal, ApiError::Forbidden) {
            self.record_refusal(app).await?;
        }
        Err(refusal)
    }

    async fn again(&self, app: &App) -> Result<(), ApiError> {
        let (session, member) = futures::try_join!(
            app.store().session(self.signed_in.secret.hash()),
            app.store().membership(self.member.person, &self.org.id)
        )?;
        if session.is_none() {
            return Err(ApiError::Unauthorized(Unauthorized::Invalid));
        }
        // Somebody who was removed and joined again is another member.
        match member.filter(|member| member.id == self.member.id) {
            Some(member) if may(&member, O::OPERATION) => Ok(()),
            Some(_) => Err(ApiError::Forbidden),
            None => Err(nowhere(app, &self.signed_in).await),
        }
    }

    /// The frame of a page. `here` is its link.
    pub fn frame(&self, title: &str, here: Nav) -> Result<Frame, ApiError> {
        let groups = nav(self.signed_in.language, &self.org.id, here, |operation| self.may(operation));
        Ok(self.signed_in.frame(title)?.in_org(&self.org, groups))
    }
}

fn may(member: &Member, operation: Operation) -> bool {
    // The pages that every member may see have no roles.
    let rule = operation.rule();
    rule.console && rule.roles.is_empty() || holds_role(operation, &member.roles)
}

/// The browser that sends a request, as it names itself.
pub fn user_agent(headers: &HeaderMap) -> Option<&str> {
    headers.get(header::USER_AGENT)?.to_str().ok()
}
