//! The whole tour of references 001 and 003, with a real shell and a real curl.

#![allow(clippy::unwrap_used)] // A tour that stumbles has failed.

use std::sync::Arc;

use local::outbox::Mail;
use serde_json::{Value, json};
use tests::Service;
use tests::email::{Kind, code_in, is_key, key_in};
use tests::shell::Shell;

// The commands of the references as they are printed there; their host is `HOST`, their key `tg_anon_xxxxxx`.
const REGISTER: &str = r#"curl -X POST HOST/api/v1/tokens \
  -H "Content-Type: application/json" \
  -d '{"email": "you@example.com", "language": "en"}'"#;
const STATUS: &str = r#"curl -H "Authorization: Bearer tg_anon_xxxxxx" \
  HOST/api/v1/tokens/status"#;
const REGENERATE: &str = r#"curl -X POST \
  -H "Authorization: Bearer tg_anon_xxxxxx" \
  HOST/api/v1/tokens/regenerate"#;
const RESET: &str = r#"curl --json '{"email": "you@example.com", "code": "XXXX"}' \
  HOST/api/v1/tokens/reset"#;
const REVOKE: &str = r#"curl -X DELETE \
  -H "Authorization: Bearer tg_anon_xxxxxx" \
  HOST/api/v1/tokens"#;

/// A person with a shell, who reads nothing but what is printed there and the plain text of the mails.
struct Tour {
    shell: Arc<Shell>,
    service: Service,
}

impl Tour {
    async fn begin() -> Self {
        Self { shell: Arc::default(), service: Service::start_with_mails_that_lead_home().await }
    }

    /// Pastes a command of the references, with the host changed and the key filled in.
    async fn paste_with(&self, command: &str, key: &str) -> (u16, Value) {
        self.paste(command.replace("HOST", &self.service.base_url).replace("tg_anon_xxxxxx", key)).await
    }

    /// Pastes a command.
    async fn paste(&self, command: String) -> (u16, Value) {
        let shell = self.shell.clone();
        let (status, body) = tokio::task::spawn_blocking(move || shell.curl(&command)).await.unwrap();
        (status, serde_json::from_str(&body).unwrap_or(Value::Null))
    }

    /// Registers, and waits for the mail.
    async fn register(&self) -> Mail {
        let (status, body) = self.paste_with(REGISTER, "").await;
        assert_eq!(status, 202, "{body}");
        self.service.person("you@example.com").newest_mail()
    }

    async fn assert_status(&self, key: &str, status: &str) {
        let (code, body) = self.paste_with(STATUS, key).await;
        assert_eq!((code, &body["status"]), (200, &json!(status)), "{body}");
    }

    async fn assert_dead(&self, key: &str) {
        let (code, body) = self.paste_with(STATUS, key).await;
        assert_eq!((code, &body["error"]["code"]), (401, &json!("UNAUTHORIZED")), "{body}");
    }
}

#[track_caller]
fn new_key((status, body): (u16, Value)) -> String {
    let key = body["token"].as_str().unwrap_or_default().to_owned();
    assert!(status == 200 && is_key(&key), "{status} {body}");
    key
}

/// What stands in a mail's text from the line that begins so until the next empty line.
fn command_in(mail: &Mail, beginning: &str) -> String {
    let start = mail.text.find(&format!("\n{beginning}")).unwrap() + 1;
    mail.text[start..].split("\n\n").next().unwrap().to_owned()
}

#[tokio::test]
async fn the_tour_of_the_references_goes_from_one_key_to_the_next() {
    let tour = Tour::begin().await;

    let first = key_in(&tour.register().await);
    tour.assert_status(&first, "pending").await;

    let second = new_key(tour.paste_with(REGENERATE, &first).await);
    tour.assert_dead(&first).await;

    let recovery = tour.register().await;
    tour.assert_status(&second, "active").await;
    let third = new_key(tour.paste(command_in(&recovery, "curl --json")).await);
    tour.assert_dead(&second).await;
    tour.assert_status(&third, "active").await;

    let (status, body) = tour.paste(command_in(&recovery, "curl --json")).await;
    assert_eq!((status, &body["error"]["code"]), (400, &json!("INVALID_RESET_CODE")), "{body}");

    assert_eq!(tour.paste_with(REVOKE, &third).await, (204, Value::Null));
    tour.assert_dead(&third).await;

    let fourth = key_in(&tour.register().await);
    tour.assert_status(&fourth, "pending").await;
    for key in [&first, &second, &third] {
        tour.assert_dead(key).await;
    }
    let mails = [Kind::Welcome, Kind::KeyChanged, Kind::Recovery, Kind::KeyChanged, Kind::Welcome];
    assert_eq!(tour.service.person("you@example.com").kinds(), mails);
}

#[tokio::test]
async fn the_reset_command_of_the_references_takes_the_code_of_the_mail() {
    let tour = Tour::begin().await;
    let first = key_in(&tour.register().await);
    let code = code_in(&tour.register().await);
    let second = new_key(tour.paste_with(&RESET.replace("XXXX", &code), "").await);
    tour.assert_dead(&first).await;
    tour.assert_status(&second, "active").await;
}

#[tokio::test]
async fn the_commands_of_the_welcome_mail_regenerate_and_revoke_its_key() {
    let tour = Tour::begin().await;
    let welcome = tour.register().await;
    let first = key_in(&welcome);
    let second = new_key(tour.paste(command_in(&welcome, "curl -X POST")).await);
    tour.assert_dead(&first).await;
    let revoke = command_in(&welcome, "curl -X DELETE");
    assert_eq!(tour.paste(revoke.clone()).await.0, 401, "the key of the mail counts no more");
    assert_eq!(tour.paste(revoke.replace(&first, &second)).await, (204, Value::Null));
    tour.assert_dead(&second).await;
}

#[tokio::test]
async fn whose_key_was_changed_by_somebody_else_takes_it_back_with_the_commands_of_the_mails() {
    let tour = Tour::begin().await;
    let first = key_in(&tour.register().await);
    let intruders = new_key(tour.paste_with(REGENERATE, &first).await);
    let you = tour.service.person("you@example.com");
    assert_eq!(tour.paste(command_in(&you.newest_mail(), "curl -X POST")).await.0, 202);
    let yours = new_key(tour.paste(command_in(&you.newest_mail(), "curl --json")).await);
    tour.assert_dead(&intruders).await;
    tour.assert_status(&yours, "active").await;
}

#[tokio::test]
async fn the_commands_of_the_mails_work_as_they_are_for_whatever_address() {
    let tour = Tour::begin().await;
    let addresses = [
        "o'brien+npm@example.com",
        "''''@example.com",
        "you@例え.テスト",
        "`id`$HOME@example.com",
        "!#$%&*+-/=?^_{|}~@example.com",
        "--help@example.com",
        "UPPER.lower@EXAMPLE.com",
    ];
    for address in addresses {
        let person = tour.service.person(address);
        let first = person.gets_a_key().await;
        person.registers().await;
        let second = new_key(tour.paste(command_in(&person.newest_mail(), "curl --json")).await);
        tour.assert_dead(&first).await;
        tour.assert_status(&second, "active").await;
        let (status, body) = tour.paste(command_in(&person.newest_mail(), "curl -X POST")).await;
        assert_eq!(status, 202, "{address}: {body}");
        assert_eq!(person.kinds().last(), Some(&Kind::Recovery), "{address}");
    }
}
