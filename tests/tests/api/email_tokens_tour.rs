//! The documented commands for email-verified tokens, run with a real shell and a real curl.

use std::sync::Arc;

use local::outbox::Mail;
use serde_json::{Value, json};
use tests::Service;
use tests::email::{Kind, code_in, is_token, token_in};
use tests::shell::Shell;

// The commands as documented; `HOST` stands for the service, `tg_anon_xxxxxx` for the token.
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

/// A user with a shell, who only reads its output and the plain text of the mails.
struct Session {
    shell: Arc<Shell>,
    service: Service,
}

impl Session {
    async fn begin() -> Self {
        Self { shell: Arc::default(), service: Service::start_with_mail_links_to_itself().await }
    }

    /// Pastes a documented command with host and token filled in.
    async fn paste_with(&self, command: &str, key: &str) -> (u16, Value) {
        self.paste(command.replace("HOST", &self.service.base_url).replace("tg_anon_xxxxxx", key)).await
    }

    /// Pastes a command.
    async fn paste(&self, command: String) -> (u16, Value) {
        let shell = self.shell.clone();
        let (status, body) = tokio::task::spawn_blocking(move || shell.curl(&command)).await.unwrap();
        (status, serde_json::from_str(&body).unwrap_or(Value::Null))
    }

    /// Registers and returns the mail.
    async fn register(&self) -> Mail {
        let (status, body) = self.paste_with(REGISTER, "").await;
        assert_eq!(status, 202, "{body}");
        self.service.person("you@example.com").newest_mail()
    }

    async fn assert_status(&self, key: &str, status: &str) {
        let (code, body) = self.paste_with(STATUS, key).await;
        assert_eq!((code, &body["status"]), (200, &json!(status)), "{body}");
    }

    async fn assert_revoked(&self, key: &str) {
        let (code, body) = self.paste_with(STATUS, key).await;
        assert_eq!((code, &body["error"]["code"]), (401, &json!("UNAUTHORIZED")), "{body}");
    }
}

#[track_caller]
fn new_token((status, body): (u16, Value)) -> String {
    let key = body["token"].as_str().unwrap_or_default().to_owned();
    assert!(status == 200 && is_token(&key), "{status} {body}");
    key
}

/// The block of a mail's text that starts with this line and ends before the next empty line.
fn command_in(mail: &Mail, beginning: &str) -> String {
    let start = mail.text.find(&format!("\n{beginning}")).unwrap() + 1;
    mail.text[start..].split("\n\n").next().unwrap().to_owned()
}

#[tokio::test]
async fn documented_commands_cover_the_whole_token_life_cycle() {
    let session = Session::begin().await;

    let first = token_in(&session.register().await);
    session.assert_status(&first, "pending").await;

    let second = new_token(session.paste_with(REGENERATE, &first).await);
    session.assert_revoked(&first).await;

    let recovery = session.register().await;
    session.assert_status(&second, "active").await;
    let third = new_token(session.paste(command_in(&recovery, "curl --json")).await);
    session.assert_revoked(&second).await;
    session.assert_status(&third, "active").await;

    let (status, body) = session.paste(command_in(&recovery, "curl --json")).await;
    assert_eq!((status, &body["error"]["code"]), (400, &json!("INVALID_RESET_CODE")), "{body}");

    assert_eq!(session.paste_with(REVOKE, &third).await, (204, Value::Null));
    session.assert_revoked(&third).await;

    let fourth = token_in(&session.register().await);
    session.assert_status(&fourth, "pending").await;
    for key in [&first, &second, &third] {
        session.assert_revoked(key).await;
    }
    let (changed, removed) = (Kind::KeyChanged, Kind::KeyRemoved);
    let mails = [Kind::Welcome, changed, Kind::Recovery, changed, removed, Kind::Welcome];
    assert_eq!(session.service.person("you@example.com").mail_kinds(), mails);
}

#[tokio::test]
async fn documented_reset_command_accepts_the_mailed_code() {
    let session = Session::begin().await;
    let first = token_in(&session.register().await);
    let code = code_in(&session.register().await);
    let second = new_token(session.paste_with(&RESET.replace("XXXX", &code), "").await);
    session.assert_revoked(&first).await;
    session.assert_status(&second, "active").await;
}

#[tokio::test]
async fn welcome_mail_commands_regenerate_and_revoke_the_token() {
    let session = Session::begin().await;
    let welcome = session.register().await;
    let first = token_in(&welcome);
    let second = new_token(session.paste(command_in(&welcome, "curl -X POST")).await);
    session.assert_revoked(&first).await;
    let revoke = command_in(&welcome, "curl -X DELETE");
    assert_eq!(session.paste(revoke.clone()).await.0, 401, "the mailed token is revoked");
    assert_eq!(session.paste(revoke.replace(&first, &second)).await, (204, Value::Null));
    session.assert_revoked(&second).await;
}

#[tokio::test]
async fn mail_commands_recover_a_token_changed_by_an_intruder() {
    let session = Session::begin().await;
    let first = token_in(&session.register().await);
    let intruders = new_token(session.paste_with(REGENERATE, &first).await);
    let you = session.service.person("you@example.com");
    assert_eq!(session.paste(command_in(&you.newest_mail(), "curl -X POST")).await.0, 202);
    let yours = new_token(session.paste(command_in(&you.newest_mail(), "curl --json")).await);
    session.assert_revoked(&intruders).await;
    session.assert_status(&yours, "active").await;
}

#[tokio::test]
async fn mail_commands_work_for_unusual_addresses() {
    let session = Session::begin().await;
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
        let person = session.service.person(address);
        let first = person.obtain_token().await;
        person.register().await;
        let second = new_token(session.paste(command_in(&person.newest_mail(), "curl --json")).await);
        session.assert_revoked(&first).await;
        session.assert_status(&second, "active").await;
        let (status, body) = session.paste(command_in(&person.newest_mail(), "curl -X POST")).await;
        assert_eq!(status, 202, "{address}: {body}");
        assert_eq!(person.mail_kinds().last(), Some(&Kind::Recovery), "{address}");
    }
}
