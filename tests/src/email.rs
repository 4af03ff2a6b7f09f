//! The holder of an email-verified token: calls to the service, and the mails that arrive.

use local::outbox::Mail;
use reqwest::Method;
use serde_json::{Value, json};
use shared::email::{EmailAddress, Language};
use shared::{ApiError, MailApp};

use crate::table::text;
use crate::{Answer, Service};

/// The kinds of mails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Contains the token.
    Welcome,
    /// Contains a reset code.
    Recovery,
    /// Contains no secret.
    KeyChanged,
    /// Contains no secret.
    KeyRemoved,
    /// Contains a sign-in code.
    SignInCode,
    /// Contains no secret.
    Invitation,
    /// Contains no secret.
    TokensLeaked,
    /// Contains no secret.
    OwnTokensLeaked,
    /// Contains no secret.
    TokensExpire,
    /// Contains no secret.
    Happened,
}

/// The subjects, which identify kind and language.
const SUBJECTS: [(&str, Kind, Language); 22] = [
    ("Your guard-tokens API key", Kind::Welcome, Language::En),
    ("guard-tokensのAPIキーのお知らせ", Kind::Welcome, Language::Ja),
    ("Recover your guard-tokens API key", Kind::Recovery, Language::En),
    ("guard-tokensのAPIキーの確認とリセット", Kind::Recovery, Language::Ja),
    ("Your guard-tokens API key was changed", Kind::KeyChanged, Language::En),
    ("guard-tokensのAPIキーが変更されました", Kind::KeyChanged, Language::Ja),
    ("Your guard-tokens API key was removed", Kind::KeyRemoved, Language::En),
    ("guard-tokensのAPIキーが削除されました", Kind::KeyRemoved, Language::Ja),
    ("Your guard-tokens sign-in code", Kind::SignInCode, Language::En),
    ("guard-tokensのサインインコード", Kind::SignInCode, Language::Ja),
    ("Invitation to an organization in guard-tokens", Kind::Invitation, Language::En),
    ("guard-tokensの組織への招待", Kind::Invitation, Language::Ja),
    ("Leaked tokens of your organization in guard-tokens", Kind::TokensLeaked, Language::En),
    ("guard-tokensの組織のトークンが漏れています", Kind::TokensLeaked, Language::Ja),
    ("Your guard-tokens API key was leaked", Kind::OwnTokensLeaked, Language::En),
    ("guard-tokensのAPIキーが漏れました", Kind::OwnTokensLeaked, Language::Ja),
    ("Your guard-tokens session was leaked", Kind::OwnTokensLeaked, Language::En),
    ("guard-tokensのセッションが漏れました", Kind::OwnTokensLeaked, Language::Ja),
    ("Tokens in guard-tokens are about to expire", Kind::TokensExpire, Language::En),
    ("guard-tokensのトークンの有効期限が近づいています", Kind::TokensExpire, Language::Ja),
    ("New tokens or keys of your organization in guard-tokens", Kind::Happened, Language::En),
    ("guard-tokensの組織のトークンまたはキーが新しくなりました", Kind::Happened, Language::Ja),
];

/// The kind and language of a mail.
#[track_caller]
pub fn kind_of(mail: &Mail) -> (Kind, Language) {
    let found = SUBJECTS.iter().find(|(subject, ..)| *subject == mail.subject);
    let (_, kind, language) = found.unwrap_or_else(|| panic!("unknown subject: {}", mail.subject));
    (*kind, *language)
}

/// The token in a welcome mail; panics unless there is exactly one.
#[track_caller]
pub fn token_in(mail: &Mail) -> String {
    assert_eq!(kind_of(mail).0, Kind::Welcome, "{}", mail.text);
    let words = mail.text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    let mut keys: Vec<&str> = words.filter(|word| is_token(word)).collect();
    keys.dedup();
    let [key] = keys[..] else { panic!("expected one token, found {}: {}", keys.len(), mail.text) };
    key.to_owned()
}

/// Whether a text has the format of an email-verified token.
pub fn is_token(text: &str) -> bool {
    let body = text.strip_prefix("tg_anon_").unwrap_or_default();
    body.len() == 42 && body.bytes().all(|c| c.is_ascii_alphanumeric())
}

/// The code in a recovery or sign-in mail: the line that consists of it.
#[track_caller]
pub fn code_in(mail: &Mail) -> String {
    assert!(matches!(kind_of(mail).0, Kind::Recovery | Kind::SignInCode), "{}", mail.text);
    let codes: Vec<&str> = mail.text.lines().filter(|line| is_code(line)).collect();
    let [code] = codes[..] else { panic!("expected one code, found {}: {}", codes.len(), mail.text) };
    code.to_owned()
}

/// Whether a text has the format of a code as shown in mails.
pub fn is_code(text: &str) -> bool {
    let groups: Vec<&str> = text.split('-').collect();
    let is_group = |group: &&str| group.len() == 4 && group.bytes().all(|c| CROCKFORD.contains(&c));
    groups.len() == 4 && groups.iter().all(is_group)
}

const CROCKFORD: &[u8] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";

/// An email user, identified by an address.
#[derive(Debug, Clone, Copy)]
pub struct Person<'a> {
    service: &'a Service,
    /// The address, in the spelling this user sends.
    pub address: &'a str,
}

impl Person<'_> {
    /// Registers and returns the response.
    pub async fn try_register(&self) -> Answer {
        self.service.register(&json!({"email": self.address})).await
    }

    /// Registers and expects 202.
    pub async fn register(&self) {
        assert_accepted(&self.try_register().await);
    }

    /// Registers with a language and expects 202.
    pub async fn register_in(&self, language: &str) {
        assert_accepted(&self.service.register(&json!({"email": self.address, "language": language})).await);
    }

    /// Registers and returns the token from the welcome mail.
    pub async fn obtain_token(&self) -> String {
        self.register().await;
        token_in(&self.newest_mail())
    }

    /// Registers again and returns the code from the recovery mail.
    pub async fn request_code(&self) -> String {
        self.register().await;
        code_in(&self.newest_mail())
    }

    /// Submits a reset code and returns the response.
    pub async fn submit_code(&self, code: &str) -> Answer {
        self.service.reset(&json!({"email": self.address, "code": code})).await
    }

    /// Exchanges a reset code for a new token.
    pub async fn reset_with(&self, code: &str) -> String {
        new_token(&self.submit_code(code).await)
    }

    /// Recovers through a mailed code and returns the new token.
    pub async fn recover(&self) -> String {
        let code = self.request_code().await;
        self.reset_with(&code).await
    }

    /// Mails to this address, oldest first.
    pub fn mails(&self) -> Vec<Mail> {
        let is_mine = |mail: &Mail| hash_of(&mail.to) == hash_of(self.address);
        let mut mails = self.service.outbox.mails();
        mails.retain(is_mine);
        mails.reverse();
        mails
    }

    /// The kinds of the mails to this address, oldest first.
    pub fn mail_kinds(&self) -> Vec<Kind> {
        self.mails().iter().map(|mail| kind_of(mail).0).collect()
    }

    /// The newest mail to this address.
    #[track_caller]
    pub fn newest_mail(&self) -> Mail {
        self.mails().pop().unwrap_or_else(|| panic!("no mail to {}", self.address))
    }

    /// The hashes of the tokens stored for this address.
    pub async fn stored_tokens(&self) -> Vec<String> {
        let items = self.service.table.items().await;
        let is_mine =
            |item: &&Value| text(item, "kind") == "email_verified" && text(item, "address") == hash_of(self.address);
        items.iter().filter(is_mine).map(|item| text(item, "pk").trim_start_matches("TOKEN#").to_owned()).collect()
    }

    /// The address's audit entries, oldest first.
    pub async fn audit_entries(&self) -> Vec<Value> {
        let mut items = self.service.table.items().await;
        items.retain(|item| text(item, "pk") == format!("EMAIL#{}#AUDIT", hash_of(self.address)));
        items
    }
}

impl Service {
    /// An email user with this address.
    pub fn person<'a>(&'a self, address: &'a str) -> Person<'a> {
        Person { service: self, address }
    }

    /// `POST /api/v1/tokens`.
    pub async fn register(&self, body: &Value) -> Answer {
        self.send(self.request(Method::POST, "/api/v1/tokens").json(body)).await
    }

    /// `POST /api/v1/tokens/reset`.
    pub async fn reset(&self, body: &Value) -> Answer {
        self.send(self.request(Method::POST, "/api/v1/tokens/reset").json(body)).await
    }

    /// `GET /api/v1/tokens/status`.
    pub async fn status(&self, key: &str) -> Answer {
        self.call(Method::GET, "/api/v1/tokens/status", key).await
    }

    /// `POST /api/v1/tokens/regenerate`.
    pub async fn regenerate(&self, key: &str) -> Answer {
        self.call(Method::POST, "/api/v1/tokens/regenerate", key).await
    }

    /// `DELETE /api/v1/tokens`.
    pub async fn revoke_email_token(&self, key: &str) -> Answer {
        self.call(Method::DELETE, "/api/v1/tokens", key).await
    }

    /// Runs the function that erases what is due.
    pub async fn erase(&self) -> Result<(), ApiError> {
        email_tokens_erase::erase(self.app.clone()).await
    }

    /// The state of functions that send mail, for those without a route.
    pub fn mail_app(&self) -> MailApp {
        MailApp { app: self.app.clone(), mailer: self.mailer.clone() }
    }

    /// Runs the function that tells people about leaked tokens.
    pub async fn tell_leaks(&self) -> Result<(), ApiError> {
        leaks_send::send(self.mail_app()).await
    }

    /// Runs the function that reminds people of tokens that are about to expire.
    pub async fn remind(&self) -> Result<(), ApiError> {
        reminders_send::send(self.mail_app()).await
    }

    /// Whether a token is active.
    pub async fn is_active(&self, key: &str) -> bool {
        let answer = self.status(key).await;
        if answer.status != 200 {
            answer.assert_error(401, "UNAUTHORIZED");
        }
        answer.status == 200
    }

    /// Returns the active ones of these tokens.
    pub async fn active_tokens<'a>(&self, keys: impl IntoIterator<Item = &'a String>) -> Vec<&'a String> {
        let mut active = Vec::new();
        for key in keys {
            if self.is_active(key).await {
                active.push(key);
            }
        }
        active
    }

    /// Asserts that the tables are consistent and contain none of these secrets.
    pub async fn assert_sound_without(&self, secrets: &[&str]) {
        self.table.assert_sound();
        let items = self.table.items().await;
        let everything = Value::from(items).to_string();
        for secret in secrets {
            assert!(!everything.contains(*secret), "the table contains {secret}");
            assert!(!everything.contains(&secret.replace('-', "")), "the table contains {secret} without dashes");
        }
    }
}

/// Runs through the whole life cycle of an address. Returns the tokens and the codes that were
/// issued; the last of each is still active.
pub async fn full_life_cycle(service: &Service, address: &str) -> ([String; 3], [String; 3]) {
    let person = service.person(address);
    let first = person.obtain_token().await;
    service.call(Method::GET, "/v1/whoami", &first).await;
    let second = new_token(&service.regenerate(&first).await);
    let unused = person.request_code().await;
    let code = person.request_code().await;
    person.submit_code(&unused).await;
    let third = person.reset_with(&code).await;
    let outstanding = person.request_code().await;
    ([first, second, third], [unused, code, outstanding])
}

/// Asserts the response that every registration gets.
#[track_caller]
pub fn assert_accepted(answer: &Answer) {
    assert_eq!(answer.status, 202, "{}", answer.text);
    assert_eq!(answer.json(), json!({"message": "If this address can receive mail, a message is on its way."}));
}

/// The token in a response to regenerate or reset.
#[track_caller]
pub fn new_token(answer: &Answer) -> String {
    assert_eq!(answer.status, 200, "{}", answer.text);
    let key = answer.json()["token"].as_str().unwrap().to_owned();
    assert!(is_token(&key), "{key}");
    key
}

/// The hash that identifies an address in the table.
fn hash_of(address: &str) -> String {
    EmailAddress::try_from(address.to_owned()).map(|address| address.hash().to_hex()).unwrap_or_default()
}
