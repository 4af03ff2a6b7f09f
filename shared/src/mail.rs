//! Mails: what they say, and the only code that speaks SES.
//!
//! Each mail is one template per language in `shared/templates/<mail>/`, rendered as subject, plain text and HTML from
//! the same source. The templates are checked when they are compiled.

use std::fmt;
use std::time::Duration;

use askama::Template;
use aws_sdk_sesv2::Client;
use aws_sdk_sesv2::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_sesv2::types::{Body, Content, Destination, EmailContent, Message, MessageHeader};

use crate::app::App;
use crate::clock::Moment;
use crate::email::{EmailAddress, Language};
use crate::error::ApiError;
use crate::secret::{ResetCode, Token};
use crate::store::email_tokens::Replaced;

/// What stands in a command where the reader's own key belongs.
const UNKNOWN_KEY: &str = "tg_anon_xxxxxx";

/// Renders a template's three parts.
macro_rules! rendered {
    ($template:expr) => {{
        let template = $template;
        Ok(Rendered {
            subject: template.as_subject().render()?.trim().to_owned(),
            text: template.as_text().render()?,
            html: template.as_html().render()?,
        })
    }};
}

/// Where mails come from, and what their commands point to.
#[derive(Debug, Clone)]
pub struct MailConfig {
    /// The address that mails come from, with or without a name. SES must have verified it.
    pub from: String,
    /// The address that answers go to, if it is another.
    pub reply_to: Option<String>,
    /// The SES configuration set, which reports bounces and complaints.
    pub configuration_set: Option<String>,
    /// Where callers reach the service, such as `https://guard.example.com`, without a slash at its end.
    pub public_url: String,
}

/// What a mail tells its reader. `Debug` shows neither key nor code.
#[derive(Debug)]
pub enum Mail<'a> {
    /// The address has a key now: here it is.
    Welcome {
        /// The key.
        token: &'a Token,
    },
    /// The address had a key already: where to find it, and a code to get another.
    Recovery {
        /// The code.
        code: &'a ResetCode,
    },
    /// The address has another key now: what to do if it was not you.
    KeyChanged {
        /// When it was changed.
        at: Moment,
        /// Whether with a code from a mail; else with the key before.
        by_reset: bool,
    },
}

/// A mail that SES did not take, or of which nobody knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MailError {
    /// It cannot have been sent.
    #[error("the mail was not sent")]
    NotSent,
    /// It may have been sent: the answer was lost or late.
    #[error("the mail may have been sent")]
    Unknown,
}

impl From<MailError> for ApiError {
    fn from(_: MailError) -> Self {
        ApiError::Unavailable
    }
}

/// Sends mails through SES.
#[derive(Debug, Clone)]
pub struct Mailer {
    client: Client,
    config: MailConfig,
}

impl Mailer {
    /// A mailer that sends through this client.
    pub fn new(client: Client, config: MailConfig) -> Self {
        Self { client, config }
    }

    /// Sends a mail.
    pub async fn send(&self, to: &EmailAddress, language: Language, mail: &Mail<'_>) -> Result<(), MailError> {
        let rendered = self.render(to, language, mail).map_err(|_| {
            tracing::error!(mail = %Name(mail), "a mail could not be rendered");
            MailError::NotSent
        })?;
        let message = rendered.into_message().map_err(|_| MailError::NotSent)?;
        let request = self
            .client
            .send_email()
            .from_email_address(&self.config.from)
            .set_reply_to_addresses(self.config.reply_to.clone().map(|address| vec![address]))
            .set_configuration_set_name(self.config.configuration_set.clone())
            .destination(Destination::builder().to_addresses(to.expose()).build())
            .content(EmailContent::builder().simple(message).build());
        match request.send().await {
            Ok(_) => {
                tracing::info!(mail = %Name(mail), "a mail was sent");
                Ok(())
            }
            Err(error) => {
                // Never the error's text, which quotes addresses.
                let code = error.code().map(str::to_owned);
                let error = outcome(&error);
                tracing::error!(mail = %Name(mail), code, %error, "ses did not take a mail");
                Err(error)
            }
        }
    }

    fn render(&self, to: &EmailAddress, language: Language, mail: &Mail<'_>) -> Result<Rendered, askama::Error> {
        let key = match mail {
            Mail::Welcome { token } => token.expose(),
            _ => UNKNOWN_KEY,
        };
        let urls = Urls::new(&self.config.public_url, key);
        let setup = urls.setup(key);
        let address = to.expose();
        let register = || {
            let language = if language == Language::Ja { "ja" } else { "en" };
            shell_quoted(&format!(r#"{{"email": {}, "language": "{language}"}}"#, json_string(address)))
        };
        let recover = |code: &str| shell_quoted(&format!(r#"{{"email": {}, "code": "{code}"}}"#, json_string(address)));
        match (mail, language) {
            (Mail::Welcome { .. }, Language::En) => rendered!(WelcomeEn { setup: &setup }),
            (Mail::Welcome { .. }, Language::Ja) => rendered!(WelcomeJa { setup: &setup }),
            (Mail::Recovery { code }, language) => {
                let code = code.expose();
                let (code, command) = (code.as_str(), recover(&code));
                match language {
                    Language::En => {
                        rendered!(RecoveryEn { setup: &setup, code, recovery_json_shell_quoted: &command })
                    }
                    Language::Ja => {
                        rendered!(RecoveryJa { setup: &setup, code, recovery_json_shell_quoted: &command })
                    }
                }
            }
            (Mail::KeyChanged { at, by_reset }, language) => {
                let (at, by_reset, command) = (at.to_string(), *by_reset, register());
                let (setup, at) = (&setup, at.as_str());
                match language {
                    Language::En => {
                        rendered!(KeyChangedEn { setup, at, by_reset, register_json_shell_quoted: &command })
                    }
                    Language::Ja => {
                        rendered!(KeyChangedJa { setup, at, by_reset, register_json_shell_quoted: &command })
                    }
                }
            }
        }
    }
}

/// Tells a person that their key was changed, [`CHANGES_TOLD_PER_HOUR`] times at the most: whoever holds a key can change
/// it as often as they like, and must not flood a mailbox with it or wear out the deployment's name with SES.
///
/// The change is done and its answer holds the only copy of the new key, so nothing here fails it or holds it up for long.
pub async fn tell_of_change(app: &App, mailer: &Mailer, replaced: &Replaced, by_reset: bool) {
    let telling = async {
        if app.store().count_change(replaced.stored.address).await.is_ok_and(|count| count > CHANGES_TOLD_PER_HOUR) {
            return Ok(());
        }
        let mail = Mail::KeyChanged { at: replaced.stored.created_at, by_reset };
        mailer.send(&replaced.to, replaced.language, &mail).await
    };
    if !matches!(tokio::time::timeout(TELLING, telling).await, Ok(Ok(()))) {
        tracing::error!(token = %replaced.stored.id, "a person was not told that their key was changed");
    }
}

/// How many *key changed* mails an address is sent in an hour. They are counted apart from all others.
pub const CHANGES_TOLD_PER_HOUR: u64 = 10;

/// How long telling a person may hold up the answer with their new key.
const TELLING: Duration = Duration::from_secs(4);

/// The kind of a mail, for the log.
struct Name<'a>(&'a Mail<'a>);

impl fmt::Display for Name<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            Mail::Welcome { .. } => "welcome",
            Mail::Recovery { .. } => "recovery",
            Mail::KeyChanged { .. } => "key changed",
        })
    }
}

/// Whether a failed call may have sent the mail all the same.
fn outcome<E: ProvideErrorMetadata>(error: &SdkError<E>) -> MailError {
    match error {
        // SES said no.
        SdkError::ServiceError(context) if context.raw().status().is_client_error() => MailError::NotSent,
        SdkError::ConstructionFailure(_) => MailError::NotSent,
        // The request could not be written down. Whether nobody listens at SES's address or only the answer was lost
        // cannot be told apart.
        SdkError::DispatchFailure(failure) if failure.is_user() => MailError::NotSent,
        _ => MailError::Unknown,
    }
}

/// A mail as it goes out.
struct Rendered {
    subject: String,
    text: String,
    html: String,
}

impl Rendered {
    fn into_message(self) -> Result<Message, aws_sdk_sesv2::error::BuildError> {
        let content = |data: String| Content::builder().data(data).charset("UTF-8").build();
        let body = Body::builder().text(content(self.text)?).html(content(self.html)?).build();
        // RFC 3834: no vacation responder answers this.
        let automatic = MessageHeader::builder().name("Auto-Submitted").value("auto-generated").build()?;
        Ok(Message::builder().subject(content(self.subject)?).body(body).headers(automatic).build())
    }
}

/// What the commands of all mails are made from.
struct Setup<'a> {
    key: &'a str,
    api: &'a str,
    authority: &'a str,
    npm_registry: &'a str,
    npm_registry_host_path: &'a str,
    pypi_index: &'a str,
    pypi_index_with_key: &'a str,
}

/// The addresses of the service's parts.
struct Urls {
    api: String,
    authority: String,
    npm_registry: String,
    npm_registry_host_path: String,
    pypi_index: String,
    pypi_index_with_key: String,
}

impl Urls {
    fn new(public_url: &str, key: &str) -> Self {
        let (scheme, authority) = public_url.split_once("://").unwrap_or(("https", public_url));
        Self {
            api: public_url.to_owned(),
            authority: authority.to_owned(),
            npm_registry: format!("{public_url}/npm/"),
            npm_registry_host_path: format!("//{authority}/npm/"),
            pypi_index: format!("{public_url}/pypi/simple/"),
            pypi_index_with_key: format!("{scheme}://token:{key}@{authority}/pypi/simple/"),
        }
    }

    fn setup<'a>(&'a self, key: &'a str) -> Setup<'a> {
        Setup {
            key,
            api: &self.api,
            authority: &self.authority,
            npm_registry: &self.npm_registry,
            npm_registry_host_path: &self.npm_registry_host_path,
            pypi_index: &self.pypi_index,
            pypi_index_with_key: &self.pypi_index_with_key,
        }
    }
}

macro_rules! templates {
    ($($name:ident = $path:literal { $($field:ident: $type:ty),* })+) => {
        $(
            #[derive(Template)]
            #[template(path = $path, blocks = ["subject", "text", "html"])]
            struct $name<'a> {
                setup: &'a Setup<'a>,
                $($field: $type,)*
            }
        )+
    };
}

templates! {
    WelcomeEn = "welcome/en.html" {}
    WelcomeJa = "welcome/ja.html" {}
    RecoveryEn = "recovery/en.html" { code: &'a str, recovery_json_shell_quoted: &'a str }
    RecoveryJa = "recovery/ja.html" { code: &'a str, recovery_json_shell_quoted: &'a str }
    KeyChangedEn = "key_changed/en.html" { at: &'a str, by_reset: bool, register_json_shell_quoted: &'a str }
    KeyChangedJa = "key_changed/ja.html" { at: &'a str, by_reset: bool, register_json_shell_quoted: &'a str }
}

fn json_string(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// A text as one word of a POSIX shell. Apostrophes are legal in addresses.
fn shell_quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_apostrophe_in_an_address_stays_inside_its_word() {
        assert_eq!(shell_quoted("o'brien"), r"'o'\''brien'");
    }

    #[test]
    fn neither_key_nor_code_shows_in_debug() {
        let token = Token::generate(crate::secret::TokenKind::EmailVerified).unwrap();
        let code = ResetCode::generate().unwrap();
        let shown = format!("{:?} {:?}", Mail::Welcome { token: &token }, Mail::Recovery { code: &code });
        assert!(!shown.contains(&token.expose()[8..]) && !shown.contains(&code.expose()), "{shown}");
    }
}
