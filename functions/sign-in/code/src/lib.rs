//! `/console/sign-in/code`: signing in with a code that is mailed.
//!
//! Every address is answered the same, and after about the same time: whether it is known, that is
//! whether it was invited or is a member's, is told only in the mailbox.

use std::time::Duration;

use askama::Template;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde::Deserialize;
use shared::console::cookie::Cookie;
use shared::console::form::OpenForm;
use shared::console::messages::Messages;
use shared::console::page::preferred;
use shared::console::respond::{return_path, returning};
use shared::console::sign_in::{SignInPage, enter};
use shared::console::{Frame, SIGN_IN, html, see_other};
use shared::email::{EmailAddress, Language};
use shared::mail::{Mail, MailError};
use shared::observe::Origin;
use shared::person::Person;
use shared::secret::{MailedCode, Token, TokenKind};
use shared::store::{Store, StoreError};
use shared::{ApiError, ConsoleMailApp};
use tokio::time::{Instant, sleep_until, timeout};
use utoipa_axum::router::OpenApiRouter;

/// The routes of this function.
pub fn routes() -> OpenApiRouter<ConsoleMailApp> {
    OpenApiRouter::new()
        .route("/console/sign-in/code", get(begin_again).post(send))
        .route(CHECK, get(begin_again).post(check))
}

const CHECK: &str = "/console/sign-in/code/check";

/// How long mailing a code may take: less than every request for one takes.
const MAILING_TIMEOUT: Duration = Duration::from_millis(1_500);

/// These pages answer forms: there is nothing to open.
async fn begin_again() -> Response {
    see_other(SIGN_IN)
}

#[derive(Deserialize)]
struct Asked {
    #[serde(default)]
    email: String,
    #[serde(default)]
    return_to: String,
}

async fn send(
    State(state): State<ConsoleMailApp>,
    origin: Origin,
    headers: HeaderMap,
    OpenForm(asked): OpenForm<Asked>,
) -> Result<Response, ApiError> {
    let started = Instant::now();
    let ConsoleMailApp { app, console, .. } = &state;
    if !console.sign_in().by_mail() {
        return Err(ApiError::NotFound);
    }
    let (language, return_to) = (preferred(&headers), return_path(Some(&asked.return_to)));
    let Ok(email) = EmailAddress::try_from(asked.email.clone()) else {
        let email_error = Messages::of(language).email_invalid;
        let page = SignInPage::new(console, language, return_to);
        return html(StatusCode::BAD_REQUEST, &SignInPage { email: asked.email, email_error, ..page });
    };
    // The same one again, so that the newer code replaces the older one.
    let browser = match Cookie::SigningIn.read(console, &headers) {
        Some(browser) => browser,
        None => Token::generate(TokenKind::Session)?,
    };
    let asking =
        Asking { state: &state, browser: &browser, device: Cookie::Device.read(console, &headers), origin, language };
    let mailed = asking.mail_to(&email).await;
    sleep_until(started + app.limits().sign_in_end(started.elapsed())).await;
    mailed?;
    let page = CodePage::new(language, asked.email, return_to);
    Ok((Cookie::SigningIn.set(console, &browser), html(StatusCode::OK, &page)?).into_response())
}

/// A browser that asks for a code.
struct Asking<'a> {
    state: &'a ConsoleMailApp,
    browser: &'a Token,
    device: Option<Token>,
    origin: Origin,
    language: Language,
}

impl Asking<'_> {
    /// Mails a code to the address if it is known. What fails from then on fails in silence: an
    /// unknown address cannot fail like that.
    async fn mail_to(&self, email: &EmailAddress) -> Result<(), ApiError> {
        let Some(person) = known(self.state.app.store(), email).await? else { return Ok(()) };
        let error = match timeout(MAILING_TIMEOUT, self.mail_code(&person.email)).await {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(error)) => error.to_string(),
            Err(late) => late.to_string(),
        };
        tracing::error!(error, "a sign-in code was not mailed");
        Ok(())
    }

    async fn mail_code(&self, email: &EmailAddress) -> Result<(), StoreError> {
        let ConsoleMailApp { app, mailer, .. } = self.state;
        let (store, limits, address) = (app.store(), &app.limits().mails, email.hash());
        let device = self.device.as_ref().map(Token::hash);
        let counted = match store.count_sign_in_mail(address, self.origin.source_ip, device, limits).await? {
            Ok(counted) => counted,
            Err(reached) => {
                reached.log(email);
                return Ok(());
            }
        };
        if counted.reaches_80_percent(limits) {
            tracing::error!("80 percent of the hourly mail limit of the deployment is used");
        }
        let issued = store.issue_sign_in_code(address, self.browser.hash()).await?;
        // The mailer logs what goes wrong. A mail that may have been sent leaves its code valid.
        if mailer.send(email, self.language, &Mail::SignInCode { code: &issued.code }).await == Err(MailError::NotSent)
        {
            store.sign_in_mail_failed(address, self.browser.hash(), &issued).await?;
            store.uncount_mail(counted).await?;
        }
        Ok(())
    }
}

/// The person whom this address signs in, with the address as it was invited or has joined, never as
/// it is typed; `None` if it is unknown. A membership of somebody who signs in with an identity
/// provider does not make an address known.
async fn known(store: &Store, email: &EmailAddress) -> Result<Option<Person>, StoreError> {
    let person = Person::by_mail(email.clone());
    let (memberships, invitations) = tokio::try_join!(store.memberships(person.id), store.invitations_of(email))?;
    let joined = memberships.into_iter().map(|member| member.email);
    let invited = invitations.into_iter().map(|invitation| invitation.email);
    Ok(joined.chain(invited).next().map(Person::by_mail))
}

#[derive(Template)]
#[template(path = "console/code.html")]
struct CodePage {
    page: Frame,
    email: String,
    code_error: &'static str,
    return_to: String,
    action: &'static str,
    again: String,
}

impl CodePage {
    fn new(language: Language, email: String, return_to: &str) -> Self {
        Self {
            page: Frame::new(language, Messages::of(language).check_your_mail),
            email,
            code_error: "",
            return_to: return_to.to_owned(),
            action: CHECK,
            again: returning(SIGN_IN, return_to),
        }
    }
}

#[derive(Deserialize)]
struct Typed {
    #[serde(default)]
    email: String,
    #[serde(default)]
    code: String,
    #[serde(default)]
    return_to: String,
}

async fn check(
    State(ConsoleMailApp { app, console, .. }): State<ConsoleMailApp>,
    origin: Origin,
    headers: HeaderMap,
    OpenForm(typed): OpenForm<Typed>,
) -> Result<Response, ApiError> {
    if !console.sign_in().by_mail() {
        return Err(ApiError::NotFound);
    }
    let store = app.store();
    let email = EmailAddress::try_from(typed.email.clone()).ok();
    let person = match (email, Cookie::SigningIn.read(&console, &headers), MailedCode::parse(&typed.code)) {
        (Some(email), Some(browser), Some(code)) => redeemed(store, &email, &browser, &code).await?,
        _ => None,
    };
    let Some(person) = person else {
        // Counted after the check: nobody in the same network can keep a right code from working.
        if let Err(left) = store.count_wrong_code(origin.source_ip).await? {
            return Err(ApiError::RateLimited(left));
        }
        let language = preferred(&headers);
        let page = CodePage::new(language, typed.email, return_path(Some(&typed.return_to)));
        let code_error = page.page.m.code_invalid;
        return html(StatusCode::BAD_REQUEST, &CodePage { code_error, ..page });
    };
    let device = match Cookie::Device.read(&console, &headers) {
        Some(device) => device,
        None => Token::generate(TokenKind::Session)?,
    };
    store.remember_device(device.hash(), person.email.hash()).await?;
    let entered = enter(&app, &console, &headers, origin, &person, Some(&typed.return_to)).await?;
    Ok((Cookie::Device.set(&console, &device), entered).into_response())
}

/// The person to whom this code was mailed, if it is valid. It is used up.
async fn redeemed(
    store: &Store,
    email: &EmailAddress,
    browser: &Token,
    code: &MailedCode,
) -> Result<Option<Person>, StoreError> {
    if !store.redeem_sign_in_code(email.hash(), browser.hash(), code).await? {
        return Ok(None);
    }
    // The invitation may have ended since.
    known(store, email).await
}
