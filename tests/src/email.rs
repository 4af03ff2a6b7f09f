//! What people do with e-mail-verified tokens, and what they find in their mail.

use local::outbox::Mail;
use reqwest::Method;
use serde_json::{Value, json};
use shared::email::{EmailAddress, Language};

use crate::table::text;
use crate::{Answer, Service};

/// The three mails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// With a key.
    Welcome,
    /// With a code.
    Recovery,
    /// With neither.
    KeyChanged,
}

/// The subjects, by which a reader tells the mails apart.
const SUBJECTS: [(&str, Kind, Language); 6] = [
    ("Your guard-tokens API key", Kind::Welcome, Language::En),
    ("guard-tokensのAPIキーのお知らせ", Kind::Welcome, Language::Ja),
    ("Recover your guard-tokens API key", Kind::Recovery, Language::En),
    ("guard-tokensのAPIキーの確認とリセット", Kind::Recovery, Language::Ja),
    ("Your guard-tokens API key was changed", Kind::KeyChanged, Language::En),
    ("guard-tokensのAPIキーが変更されました", Kind::KeyChanged, Language::Ja),
];

/// Which mail this is, and what it is written in.
#[track_caller]
pub fn kind_of(mail: &Mail) -> (Kind, Language) {
    let found = SUBJECTS.iter().find(|(subject, ..)| *subject == mail.subject);
    let (_, kind, language) = found.unwrap_or_else(|| panic!("an unknown subject: {}", mail.subject));
    (*kind, *language)
}

/// The key in a mail: whatever in its text has the shape of one, and is the same everywhere.
#[track_caller]
pub fn key_in(mail: &Mail) -> String {
    assert_eq!(kind_of(mail).0, Kind::Welcome, "{}", mail.text);
    let words = mail.text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    let mut keys: Vec<&str> = words.filter(|word| is_key(word)).collect();
    keys.dedup();
    let [key] = keys[..] else { panic!("not one key but {}: {}", keys.len(), mail.text) };
    key.to_owned()
}

/// Whether a text has the shape of a key.
pub fn is_key(text: &str) -> bool {
    let body = text.strip_prefix("tg_anon_").unwrap_or_default();
    body.len() == 42 && body.bytes().all(|c| c.is_ascii_alphanumeric())
}

/// The code in a mail: the line that is nothing else.
#[track_caller]
pub fn code_in(mail: &Mail) -> String {
    assert_eq!(kind_of(mail).0, Kind::Recovery, "{}", mail.text);
    let codes: Vec<&str> = mail.text.lines().filter(|line| is_code(line)).collect();
    let [code] = codes[..] else { panic!("not one code but {}: {}", codes.len(), mail.text) };
    code.to_owned()
}

/// Whether a text has the shape of a code as mails show it.
pub fn is_code(text: &str) -> bool {
    let groups: Vec<&str> = text.split('-').collect();
    let is_group = |group: &&str| group.len() == 4 && group.bytes().all(|c| CROCKFORD.contains(&c));
    groups.len() == 4 && groups.iter().all(is_group)
}

const CROCKFORD: &[u8] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";

/// A person, known by an address.
#[derive(Debug, Clone, Copy)]
pub struct Person<'a> {
    service: &'a Service,
    /// The address, as the person spells it.
    pub address: &'a str,
}

impl Person<'_> {
    /// Registers, and answers what the service said.
    pub async fn tries_to_register(&self) -> Answer {
        self.service.register(&json!({"email": self.address})).await
    }

    /// Registers.
    pub async fn registers(&self) {
        assert_accepted(&self.tries_to_register().await);
    }

    /// Registers in a language.
    pub async fn registers_in(&self, language: &str) {
        assert_accepted(&self.service.register(&json!({"email": self.address, "language": language})).await);
    }

    /// Registers, and finds a key in the mail.
    pub async fn gets_a_key(&self) -> String {
        self.registers().await;
        key_in(&self.newest_mail())
    }

    /// Registers, and finds a code in the mail.
    pub async fn gets_a_code(&self) -> String {
        self.registers().await;
        code_in(&self.newest_mail())
    }

    /// Sends a code, and answers what the service said.
    pub async fn sends_code(&self, code: &str) -> Answer {
        self.service.reset(&json!({"email": self.address, "code": code})).await
    }

    /// Swaps a code for a key.
    pub async fn resets(&self, code: &str) -> String {
        new_key(&self.sends_code(code).await)
    }

    /// Loses the key, and gets another by mail.
    pub async fn recovers(&self) -> String {
        let code = self.gets_a_code().await;
        self.resets(&code).await
    }

    /// The person's mails, oldest first.
    pub fn mails(&self) -> Vec<Mail> {
        let is_mine = |mail: &Mail| hash_of(&mail.to) == hash_of(self.address);
        let mut mails = self.service.outbox.mails();
        mails.retain(is_mine);
        mails.reverse();
        mails
    }

    /// Which mails the person was sent, oldest first.
    pub fn kinds(&self) -> Vec<Kind> {
        self.mails().iter().map(|mail| kind_of(mail).0).collect()
    }

    /// The person's newest mail.
    #[track_caller]
    pub fn newest_mail(&self) -> Mail {
        self.mails().pop().unwrap_or_else(|| panic!("there is no mail to {}", self.address))
    }

    /// The keys that lie in the table for this person, as hashes.
    pub async fn stored_keys(&self) -> Vec<String> {
        let items = self.service.table.items().await;
        let is_mine =
            |item: &&Value| text(item, "kind") == "email_verified" && text(item, "address") == hash_of(self.address);
        items.iter().filter(is_mine).map(|item| text(item, "pk").trim_start_matches("TOKEN#").to_owned()).collect()
    }

    /// The entries of the person's audit log, oldest first.
    pub async fn audit_entries(&self) -> Vec<Value> {
        let mut items = self.service.table.items().await;
        items.retain(|item| text(item, "pk") == format!("EMAIL#{}#AUDIT", hash_of(self.address)));
        items
    }
}

impl Service {
    /// A person with this address.
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
    pub async fn revoke_key(&self, key: &str) -> Answer {
        self.call(Method::DELETE, "/api/v1/tokens", key).await
    }

    /// Whether a key counts.
    pub async fn counts(&self, key: &str) -> bool {
        let answer = self.status(key).await;
        if answer.status != 200 {
            answer.assert_error(401, "UNAUTHORIZED");
        }
        answer.status == 200
    }

    /// Those of these keys that count.
    pub async fn counting<'a>(&self, keys: impl IntoIterator<Item = &'a String>) -> Vec<&'a String> {
        let mut counting = Vec::new();
        for key in keys {
            if self.counts(key).await {
                counting.push(key);
            }
        }
        counting
    }

    /// Checks that the tables are sound, and hold none of these secrets.
    pub async fn assert_addresses_sound(&self, secrets: &[&str]) {
        self.table.assert_sound();
        let items = self.table.items().await;
        let everything = Value::from(items).to_string();
        for secret in secrets {
            assert!(!everything.contains(*secret), "{secret} lies in the table");
            assert!(!everything.contains(&secret.replace('-', "")), "{secret} lies in the table without its dashes");
        }
    }
}

/// Lives the life of an address with everything in it. The answer is the keys that came up, then the codes; the last of
/// each is alive.
pub async fn live(service: &Service, address: &str) -> ([String; 3], [String; 3]) {
    let person = service.person(address);
    let first = person.gets_a_key().await;
    service.call(Method::GET, "/v1/whoami", &first).await;
    let second = new_key(&service.regenerate(&first).await);
    let unused = person.gets_a_code().await;
    let code = person.gets_a_code().await;
    person.sends_code(&unused).await;
    let third = person.resets(&code).await;
    let outstanding = person.gets_a_code().await;
    ([first, second, third], [unused, code, outstanding])
}

/// Checks the answer that every registration gets.
#[track_caller]
pub fn assert_accepted(answer: &Answer) {
    assert_eq!(answer.status, 202, "{}", answer.text);
    assert_eq!(answer.json(), json!({"message": "If this address can receive mail, a message is on its way."}));
}

/// The key of an answer to regenerate or reset.
#[track_caller]
pub fn new_key(answer: &Answer) -> String {
    assert_eq!(answer.status, 200, "{}", answer.text);
    let key = answer.json()["token"].as_str().unwrap().to_owned();
    assert!(is_key(&key), "{key}");
    key
}

/// What an address is stored under.
fn hash_of(address: &str) -> String {
    EmailAddress::try_from(address.to_owned()).map(|address| address.hash().to_hex()).unwrap_or_default()
}
