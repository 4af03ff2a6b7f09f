//! The mails, and the only code that uses SES.
//!
//! Each mail is one template per language in `shared/templates/<mail>/`, which renders subject,
//! plain text and HTML. The compiler checks the templates.

use std::fmt;
use std::time::Duration;

use askama::Template;
use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_sdk_sesv2::Client;
use aws_sdk_sesv2::config::{BehaviorVersion, Credentials, Region};
use aws_sdk_sesv2::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_sesv2::types::{Body, Content, Destination, EmailContent, Message, MessageHeader};
use axum::extract::FromRef;

use crate::app::{App, Limits};
use crate::aws::{self, Connections, LOCAL_CREDENTIAL, LOCAL_REGION};
use crate::clock::Moment;
use crate::config::{self, MissingSetting};
use crate::domain::on_one_line;
use crate::email::{EmailAddress, Language};
use crate::error::ApiError;
use crate::hosts::RegistryHosts;
use crate::permissions::Role;
use crate::secret::{MailedCode, Token};
use crate::setup::Setup;
use crate::store::email_tokens::{Removed, Replaced};
use crate::store::notices::Happened;
use crate::store::sessions::Session;
use crate::store::tokens::EmailToken;

/// The placeholder for the reader's key in commands.
const KEY_PLACEHOLDER: &str = "tg_anon_xxxxxx";

/// Renders subject, text and HTML of a template.
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

/// Settings for mails.
#[derive(Debug, Clone)]
pub struct MailConfig {
    /// The sender, an address with or without a name. It must be verified in SES.
    pub from: String,
    /// The address for replies, if it differs from the sender.
    pub reply_to: Option<String>,
    /// The SES configuration set that reports bounces and complaints.
    pub configuration_set: Option<String>,
    /// The public URL of the service without a trailing slash, such as `https://guard.example.com`.
    pub public_url: String,
    /// The registries' own hosts.
    pub registry_hosts: RegistryHosts,
}

impl MailConfig {
    /// Reads `MAIL_FROM`, `MAIL_REPLY_TO`, `MAIL_CONFIGURATION_SET` and `PUBLIC_URL`, and the registries'
    /// hosts.
    fn from_env() -> Result<Self, MissingSetting> {
        Ok(Self {
            from: config::required("MAIL_FROM")?,
            reply_to: config::optional("MAIL_REPLY_TO"),
            configuration_set: config::optional("MAIL_CONFIGURATION_SET"),
            public_url: config::required("PUBLIC_URL")?.trim_end_matches('/').to_owned(),
            registry_hosts: RegistryHosts::from_env(),
        })
    }
}

/// The state of functions that send mail.
#[derive(Debug, Clone, FromRef)]
pub struct MailApp {
    /// The state that every function needs.
    pub app: App,
    /// The mailer.
    pub mailer: Mailer,
}

impl MailApp {
    /// Configures the state from the environment. `MAILS_PER_HOUR`, `MAILS_PER_DOMAIN_PER_HOUR`,
    /// `MAILS_PER_SOURCE_PER_HOUR`, `MAILS_PER_SOURCE_PER_DAY` and `REGISTRATION` have defaults.
    ///
    /// # Errors
    ///
    /// If a setting is missing or malformed.
    pub async fn from_env() -> Result<Self, MissingSetting> {
        let config = MailConfig::from_env()?;
        let mut limits = Limits::default();
        for (limit, name) in [
            (&mut limits.mails.per_hour, "MAILS_PER_HOUR"),
            (&mut limits.mails.per_domain_per_hour, "MAILS_PER_DOMAIN_PER_HOUR"),
            (&mut limits.mails.per_source_per_hour, "MAILS_PER_SOURCE_PER_HOUR"),
            (&mut limits.mails.per_source_per_day, "MAILS_PER_SOURCE_PER_DAY"),
        ] {
            *limit = config::parsed(name)?.or(*limit);
        }
        limits.registration = config::parsed("REGISTRATION")?.unwrap_or(limits.registration);
        let app = App::from_env().await?.with_limits(limits);
        Ok(Self { app, mailer: Mailer::new(ses_from_env().await, config) })
    }
}

/// A mail and its content. `Debug` redacts keys and codes.
#[derive(Debug)]
pub enum Mail<'a> {
    /// Delivers the first key of an address.
    Welcome {
        /// The key.
        token: &'a Token,
    },
    /// Answers a registration of an address that has a key: how to find it, and a reset code.
    Recovery {
        /// The reset code.
        code: &'a MailedCode,
    },
    /// Reports that the key was replaced, and what to do if this was not the reader.
    KeyChanged {
        /// When the key was replaced.
        at: Moment,
        /// Whether a reset code was used; otherwise the previous key was.
        by_reset: bool,
    },
    /// Reports that the key was removed, and what to do if this was not the reader.
    KeyRemoved {
        /// When the key was removed.
        at: Moment,
        /// When what it has left is erased.
        erased_at: Moment,
    },
    /// Delivers a code to sign in to the console.
    SignInCode {
        /// The code.
        code: &'a MailedCode,
    },
    /// Invites an address to become a member of an organization.
    Invitation {
        /// The organization's display name.
        organization: &'a str,
        /// Who invites. `None` is the operator.
        inviter: Option<&'a EmailAddress>,
        /// The member's roles.
        roles: &'a [Role],
    },
    /// Tells a security contact of an organization about leaked tokens.
    TokensLeaked {
        /// The organization's display name.
        organization: &'a str,
        /// The tokens.
        leaks: &'a [Leak],
    },
    /// Tells a person about a leaked email-verified token or session, which has ended.
    OwnTokensLeaked {
        /// The tokens and sessions.
        leaks: &'a [Leak],
    },
    /// Tells a security contact of an organization what it has asked for.
    Happened {
        /// The organization's display name.
        organization: &'a str,
        /// What happened.
        happened: &'a [Happened],
        /// How much more there is.
        more: usize,
    },
    /// Reminds of tokens that are about to expire.
    TokensExpire {
        /// The tokens, by organization.
        of: &'a [ExpiringOf],
        /// How many more there are.
        more: usize,
    },
}

/// What happened as two lines of a mail each. All of it is IDs and names of our own.
fn happened_lines(happened: &[Happened]) -> String {
    let line = |Happened { at, actor, action, target, .. }: &Happened| {
        format!("{action} {}\n  {at}  {} {}", target.id, actor.kind, actor.id)
    };
    happened.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// A token that is about to expire, in a mail.
#[derive(Debug, Clone)]
pub struct Expiring {
    /// The kind of the token, as in the audit log.
    pub kind: &'static str,
    /// Its ID.
    pub id: String,
    /// Its first characters, which may be shown.
    pub prefix: String,
    /// Its name, or the user it was issued for.
    pub name: String,
    /// When it expires.
    pub expires_at: Moment,
    /// The days until then.
    pub days_left: i64,
}

impl Expiring {
    /// The token as three lines of a mail.
    fn lines(&self, language: Language) -> String {
        let Self { kind, id, prefix, name, expires_at, days_left } = self;
        let end = match (language, days_left) {
            (Language::En, ..=0) => format!("expires today, {expires_at}"),
            (Language::En, 1) => format!("expires in 1 day, {expires_at}"),
            (Language::En, days) => format!("expires in {days} days, {expires_at}"),
            (Language::Ja, ..=0) => format!("期限は本日：{expires_at}"),
            (Language::Ja, days) => format!("期限まであと{days}日：{expires_at}"),
        };
        format!("{kind} {id}\n  {}  {prefix}...\n  {end}", as_plain_text(name))
    }
}

/// Tokens of one organization that are about to expire.
#[derive(Debug, Clone)]
pub struct ExpiringOf {
    /// The organization's display name.
    pub organization: String,
    /// The tokens.
    pub tokens: Vec<Expiring>,
}

/// The most tokens that a reminder lists.
pub const LISTED_TOKENS: usize = 20;

/// Tokens of one organization as a mail lists them.
struct ExpiryList {
    title: String,
    tokens: String,
}

impl ExpiryList {
    fn new(ExpiringOf { organization, tokens }: &ExpiringOf, language: Language) -> Self {
        let organization = on_one_line(organization);
        let title = match language {
            Language::En => format!("Organization: {organization}"),
            Language::Ja => format!("組織：{organization}"),
        };
        let tokens = tokens.iter().map(|token| token.lines(language)).collect::<Vec<_>>().join("\n");
        Self { title, tokens }
    }
}

/// A leaked token in a mail.
#[derive(Debug, Clone)]
pub struct Leak {
    /// The kind of the token, as in the audit log.
    pub kind: String,
    /// Its ID.
    pub id: String,
    /// Where it was found, as reported: host and path.
    pub place: Option<String>,
    /// When it was reported.
    pub at: Moment,
    /// Whether it was ended; otherwise it still works.
    pub ended: bool,
}

impl Leak {
    /// The token as two lines of a mail.
    fn lines(&self) -> String {
        let place = self.place.as_deref().map(as_plain_text).unwrap_or_default();
        format!("{} {}\n  {}  {place}", self.kind, self.id, self.at).trim_end().to_owned()
    }
}

/// The most leaked tokens that a mail lists.
pub const LISTED_LEAKS: usize = 20;

/// The longest place in a mail, in characters: a line of a mail has at most 998 bytes.
const LONGEST_PLACE: usize = 200;

/// A place that somebody has reported, as text that no mail program makes a link of: every dot and
/// at sign is in brackets.
fn as_plain_text(place: &str) -> String {
    let mut place = on_one_line(place);
    if let Some((end, _)) = place.char_indices().nth(LONGEST_PLACE) {
        place.truncate(end);
        place.push('…');
    }
    place.replace("://", " ").replace('.', "[.]").replace('@', "[@]")
}

/// Leaked tokens as a mail lists them: first those that still work.
struct LeakList {
    active: String,
    ended: String,
    /// How many more there are.
    more: usize,
}

impl LeakList {
    fn new(leaks: &[Leak]) -> Self {
        let [active, ended] = [false, true].map(|ended| leaks.iter().filter(move |leak| leak.ended == ended));
        let lines = |leaks: &mut dyn Iterator<Item = &Leak>| leaks.map(Leak::lines).collect::<Vec<_>>().join("\n");
        let left = LISTED_LEAKS.saturating_sub(active.clone().count());
        Self {
            active: lines(&mut active.take(LISTED_LEAKS)),
            ended: lines(&mut ended.take(left)),
            more: leaks.len().saturating_sub(LISTED_LEAKS),
        }
    }
}

/// A mail that was not sent, or may not have been.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MailError {
    /// SES did not accept the mail.
    #[error("the mail was not sent")]
    NotSent,
    /// SES may have accepted the mail: its response was lost or late.
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
    /// A mailer that uses this client.
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
                // The error's text quotes addresses and must not be logged.
                let code = error.code().map(str::to_owned);
                let error = outcome(&error);
                tracing::error!(mail = %Name(mail), code, %error, "SES did not accept a mail");
                Err(error)
            }
        }
    }

    /// Sends a mail about a change that its reader may not have made. One that may be lost is sent
    /// again: twice is better than never.
    pub(crate) async fn warn(&self, to: &EmailAddress, language: Language, mail: &Mail<'_>) -> Result<(), MailError> {
        match tokio::time::timeout(WARNING_TIMEOUT / 2, self.send(to, language, mail)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(MailError::NotSent)) => Err(MailError::NotSent),
            Ok(Err(MailError::Unknown)) | Err(_) => self.send(to, language, mail).await,
        }
    }

    fn render(&self, to: &EmailAddress, language: Language, mail: &Mail<'_>) -> Result<Rendered, askama::Error> {
        let key = match mail {
            Mail::Welcome { token } => token.expose(),
            _ => KEY_PLACEHOLDER,
        };
        let setup = Setup::new(&self.config.public_url, &self.config.registry_hosts, key);
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
            (Mail::KeyRemoved { at, erased_at }, language) => {
                let (at, erased_at, command) = (at.to_string(), erased_at.to_string(), register());
                let (setup, at, erased_at) = (&setup, at.as_str(), erased_at.as_str());
                match language {
                    Language::En => {
                        rendered!(KeyRemovedEn { setup, at, erased_at, register_json_shell_quoted: &command })
                    }
                    Language::Ja => {
                        rendered!(KeyRemovedJa { setup, at, erased_at, register_json_shell_quoted: &command })
                    }
                }
            }
            (Mail::SignInCode { code }, Language::En) => rendered!(SignInCodeEn { code: &code.expose() }),
            (Mail::SignInCode { code }, Language::Ja) => rendered!(SignInCodeJa { code: &code.expose() }),
            (Mail::Invitation { organization, inviter, roles }, language) => {
                let (organization, inviter) = (&*on_one_line(organization), inviter.map(EmailAddress::expose));
                let roles = roles.iter().map(|role| role.as_str()).collect::<Vec<_>>().join(", ");
                let (roles, console) = (&*roles, &*format!("{}/console/", self.config.public_url));
                match language {
                    Language::En => rendered!(InvitationEn { organization, inviter, roles, console }),
                    Language::Ja => rendered!(InvitationJa { organization, inviter, roles, console }),
                }
            }
            (Mail::TokensLeaked { organization, leaks }, language) => {
                let (organization, leaks) = (&*on_one_line(organization), &LeakList::new(leaks));
                let console = &*format!("{}/console/", self.config.public_url);
                match language {
                    Language::En => rendered!(TokensLeakedEn { organization, leaks, console }),
                    Language::Ja => rendered!(TokensLeakedJa { organization, leaks, console }),
                }
            }
            (Mail::Happened { organization, happened, more }, language) => {
                let (organization, happened) = (&*on_one_line(organization), &*happened_lines(happened));
                let (more, console) = (*more, &*format!("{}/console/", self.config.public_url));
                match language {
                    Language::En => rendered!(HappenedEn { organization, happened, more, console }),
                    Language::Ja => rendered!(HappenedJa { organization, happened, more, console }),
                }
            }
            (Mail::TokensExpire { of, more }, language) => {
                let of: Vec<ExpiryList> = of.iter().map(|of| ExpiryList::new(of, language)).collect();
                let (of, more) = (of.as_slice(), *more);
                let console = &*format!("{}/console/", self.config.public_url);
                match language {
                    Language::En => rendered!(TokensExpireEn { of, more, console }),
                    Language::Ja => rendered!(TokensExpireJa { of, more, console }),
                }
            }
            (Mail::OwnTokensLeaked { leaks }, language) => {
                let [key, session] =
                    [EmailToken::SUBJECT, Session::SUBJECT].map(|kind| leaks.iter().any(|leak| leak.kind == kind));
                let (setup, leaks, command) = (&setup, &LeakList::new(leaks), &*register());
                let console = &*format!("{}/console/", self.config.public_url);
                match language {
                    Language::En => rendered!(OwnTokensLeakedEn {
                        setup,
                        leaks,
                        key,
                        session,
                        console,
                        register_json_shell_quoted: command
                    }),
                    Language::Ja => rendered!(OwnTokensLeakedJa {
                        setup,
                        leaks,
                        key,
                        session,
                        console,
                        register_json_shell_quoted: command
                    }),
                }
            }
        }
    }
}

/// Sends a *key changed* mail. The limit of [`KEY_CHANGED_MAILS_PER_HOUR`] keeps the holder of a
/// key from flooding a mailbox and harming the deployment's reputation with SES.
///
/// The key is replaced by now and the response holds its only copy, so this neither fails the
/// request nor delays it beyond a short timeout.
pub async fn send_key_changed(app: &App, mailer: &Mailer, replaced: &Replaced, by_reset: bool) {
    let sending = async {
        if app.store().count_change(replaced.stored.address).await.is_ok_and(|count| count > KEY_CHANGED_MAILS_PER_HOUR)
        {
            return Ok(());
        }
        let mail = Mail::KeyChanged { at: replaced.stored.created_at, by_reset };
        mailer.warn(&replaced.to, replaced.language, &mail).await
    };
    if !matches!(tokio::time::timeout(WARNING_TIMEOUT, sending).await, Ok(Ok(()))) {
        tracing::error!(token = %replaced.stored.id, "a key changed mail was not sent");
    }
}

/// Sends a *key removed* mail. It needs no limit: each removal needs a registration before, whose
/// mails are limited.
///
/// The key is removed by now, so this neither fails the request nor delays it beyond a short
/// timeout.
pub async fn send_key_removed(mailer: &Mailer, removed: &Removed) {
    let mail = Mail::KeyRemoved { at: removed.at, erased_at: removed.erased_at };
    let sending = mailer.warn(&removed.to, removed.language, &mail);
    if !matches!(tokio::time::timeout(WARNING_TIMEOUT, sending).await, Ok(Ok(()))) {
        tracing::error!(token = %removed.id, "a key removed mail was not sent");
    }
}

/// The maximum number of *key changed* mails per address and hour. Other mails have their own
/// limit.
pub const KEY_CHANGED_MAILS_PER_HOUR: u64 = 10;

/// How long sending a warning, both attempts together, may delay the response.
const WARNING_TIMEOUT: Duration = Duration::from_secs(4);

/// The kind of a mail, for the log.
struct Name<'a>(&'a Mail<'a>);

impl fmt::Display for Name<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            Mail::Welcome { .. } => "welcome",
            Mail::Recovery { .. } => "recovery",
            Mail::KeyChanged { .. } => "key changed",
            Mail::KeyRemoved { .. } => "key removed",
            Mail::SignInCode { .. } => "sign-in code",
            Mail::Invitation { .. } => "invitation",
            Mail::TokensLeaked { .. } => "tokens leaked",
            Mail::OwnTokensLeaked { .. } => "own tokens leaked",
            Mail::Happened { .. } => "happened",
            Mail::TokensExpire { .. } => "tokens expire",
        })
    }
}

/// Whether a failed call may nevertheless have sent the mail.
fn outcome<E: ProvideErrorMetadata>(error: &SdkError<E>) -> MailError {
    match error {
        // SES refused the mail.
        SdkError::ServiceError(context) if context.raw().status().is_client_error() => MailError::NotSent,
        SdkError::ConstructionFailure(_) => MailError::NotSent,
        // The request could not be built. Any other dispatch failure may mean a lost response.
        SdkError::DispatchFailure(failure) if failure.is_user() => MailError::NotSent,
        _ => MailError::Unknown,
    }
}

/// An SES client, configured by the environment. It never retries: the first attempt may have sent
/// the mail although its response was lost, and the error of a second attempt would hide that. For
/// the same reason it never uses a connection that may have died.
async fn ses_from_env() -> Client {
    let timeouts = TimeoutConfig::builder()
        .connect_timeout(Duration::from_secs(1))
        .operation_timeout(Duration::from_secs(4))
        .build();
    let config = aws::from_env(Connections::New).timeout_config(timeouts).retry_config(RetryConfig::disabled());
    Client::new(&config.load().await)
}

/// An SES client for a local outbox at this URL.
pub fn ses_at(endpoint: &str) -> Client {
    let config = aws_sdk_sesv2::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .endpoint_url(endpoint)
        .region(Region::new(LOCAL_REGION))
        .credentials_provider(Credentials::new(LOCAL_CREDENTIAL, LOCAL_CREDENTIAL, None, None, "emulator"))
        .retry_config(RetryConfig::disabled())
        .timeout_config(TimeoutConfig::builder().operation_timeout(Duration::from_secs(5)).build());
    Client::from_conf(config.build())
}

/// A rendered mail.
struct Rendered {
    subject: String,
    text: String,
    html: String,
}

impl Rendered {
    fn into_message(self) -> Result<Message, aws_sdk_sesv2::error::BuildError> {
        let content = |data: String| Content::builder().data(data).charset("UTF-8").build();
        let body = Body::builder().text(content(self.text)?).html(content(self.html)?).build();
        // RFC 3834: keeps vacation responders from replying.
        let automatic = MessageHeader::builder().name("Auto-Submitted").value("auto-generated").build()?;
        Ok(Message::builder().subject(content(self.subject)?).body(body).headers(automatic).build())
    }
}

macro_rules! templates {
    ($($name:ident = $path:literal { $($field:ident: $type:ty),* })+) => {
        $(
            #[derive(Template)]
            #[template(path = $path, blocks = ["subject", "text", "html"])]
            struct $name<'a> {
                $($field: $type,)*
            }
        )+
    };
}

templates! {
    WelcomeEn = "welcome/en.html" { setup: &'a Setup }
    WelcomeJa = "welcome/ja.html" { setup: &'a Setup }
    RecoveryEn = "recovery/en.html" { setup: &'a Setup, code: &'a str, recovery_json_shell_quoted: &'a str }
    RecoveryJa = "recovery/ja.html" { setup: &'a Setup, code: &'a str, recovery_json_shell_quoted: &'a str }
    KeyChangedEn = "key_changed/en.html" { setup: &'a Setup, at: &'a str, by_reset: bool, register_json_shell_quoted: &'a str }
    KeyChangedJa = "key_changed/ja.html" { setup: &'a Setup, at: &'a str, by_reset: bool, register_json_shell_quoted: &'a str }
    KeyRemovedEn = "key_removed/en.html" { setup: &'a Setup, at: &'a str, erased_at: &'a str, register_json_shell_quoted: &'a str }
    KeyRemovedJa = "key_removed/ja.html" { setup: &'a Setup, at: &'a str, erased_at: &'a str, register_json_shell_quoted: &'a str }
    SignInCodeEn = "sign_in_code/en.html" { code: &'a str }
    SignInCodeJa = "sign_in_code/ja.html" { code: &'a str }
    InvitationEn = "invitation/en.html" { organization: &'a str, inviter: Option<&'a str>, roles: &'a str, console: &'a str }
    InvitationJa = "invitation/ja.html" { organization: &'a str, inviter: Option<&'a str>, roles: &'a str, console: &'a str }
    TokensLeakedEn = "tokens_leaked/en.html" { organization: &'a str, leaks: &'a LeakList, console: &'a str }
    TokensLeakedJa = "tokens_leaked/ja.html" { organization: &'a str, leaks: &'a LeakList, console: &'a str }
    HappenedEn = "happened/en.html" { organization: &'a str, happened: &'a str, more: usize, console: &'a str }
    HappenedJa = "happened/ja.html" { organization: &'a str, happened: &'a str, more: usize, console: &'a str }
    TokensExpireEn = "tokens_expire/en.html" { of: &'a [ExpiryList], more: usize, console: &'a str }
    TokensExpireJa = "tokens_expire/ja.html" { of: &'a [ExpiryList], more: usize, console: &'a str }
    OwnTokensLeakedEn = "own_tokens_leaked/en.html" { setup: &'a Setup, leaks: &'a LeakList, key: bool, session: bool, console: &'a str, register_json_shell_quoted: &'a str }
    OwnTokensLeakedJa = "own_tokens_leaked/ja.html" { setup: &'a Setup, leaks: &'a LeakList, key: bool, session: bool, console: &'a str, register_json_shell_quoted: &'a str }
}

fn json_string(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// Quotes a text as one word for a POSIX shell. Apostrophes are legal in addresses.
fn shell_quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn apostrophes_in_addresses_are_shell_quoted() {
        assert_eq!(shell_quoted("o'brien"), r"'o'\''brien'");
    }

    #[test]
    fn place_is_shown_as_text_on_one_short_line() {
        for (place, shown) in [
            ("github.com/acme/widgets/.npmrc", "github[.]com/acme/widgets/[.]npmrc"),
            ("https://user@evil.example/", "https user[@]evil[.]example/"),
            ("a.example/\r\nBcc: b\u{202e}@c.example", "a[.]example/  Bcc: b [@]c[.]example"),
        ] {
            assert_eq!(as_plain_text(place), shown);
        }
        let long = as_plain_text(&"é".repeat(5_000));
        assert_eq!((long.chars().count(), long.ends_with('…')), (LONGEST_PLACE + 1, true));
    }

    #[test]
    fn twenty_leaks_are_listed_and_those_that_still_work_come_first() {
        let leak = |number: usize, ended| Leak {
            kind: "api_key".to_owned(),
            id: format!("{number:03}"),
            place: None,
            at: Moment::EPOCH,
            ended,
        };
        let count = |active: usize, ended: usize| {
            let leaks: Vec<Leak> =
                (0..ended).map(|n| leak(n, true)).chain((0..active).map(|n| leak(n, false))).collect();
            let list = LeakList::new(&leaks);
            let listed = |text: &str| text.matches("api_key").count();
            (listed(&list.active), listed(&list.ended), list.more)
        };
        assert_eq!(count(0, 1), (0, 1, 0));
        assert_eq!(count(0, 20), (0, 20, 0));
        assert_eq!(count(1, 20), (1, 19, 1));
        assert_eq!(count(25, 3), (20, 0, 8));
    }

    #[test]
    fn debug_output_redacts_keys_and_codes() {
        let token = Token::generate(crate::secret::TokenKind::EmailVerified).unwrap();
        let code = MailedCode::generate().unwrap();
        let mails = [Mail::Welcome { token: &token }, Mail::Recovery { code: &code }, Mail::SignInCode { code: &code }];
        let shown = format!("{mails:?}");
        assert!(!shown.contains(&token.expose()[8..]) && !shown.contains(&code.expose()), "{shown}");
    }
}
