//! `POST /v1/o/{org_id}/guard/org-user-tokens/probe`

use serde_json::json;
use shared::secret::TokenKind;
use tests::coverage::{mistyped, unknown_token};
use tests::{Answer, Bot, Org, Service};

async fn probe(service: &Service, org: &Org, bot: &Bot, token: &str) -> Answer {
    service.post(&org.org_user_tokens("/probe"), &bot.credential, &json!({"token": token})).await
}

#[tokio::test]
async fn active_token_is_described() {
    let service = Service::start_with_manual_clock().await;
    let (org, owner) = service.org_with_owner().await;
    let token = service.issue_until(&org, &owner, "alice-laptop", "2026-12-21T10:00:00Z").await;
    let answer = probe(&service, &org, &owner, &token.token).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.json()["id"], token.id);
    insta::assert_json_snapshot!(answer.json(), {".id" => "[id]"}, @r#"
    {
      "active": true,
      "created_at": "2026-11-21T10:00:00Z",
      "expires_at": "2026-12-21T10:00:00Z",
      "id": "[id]",
      "last_used_at": null,
      "user_identifier": "alice-laptop"
    }
    "#);
}

#[tokio::test]
async fn inactive_unknown_and_foreign_tokens_get_identical_responses() {
    let service = Service::start_with_manual_clock().await;
    let (org, owner) = service.org_with_owner().await;
    let (foreign_org, foreigner) = service.org_with_owner().await;
    let good = service.issue(&org, &owner, "alice").await;
    let foreign = service.issue(&foreign_org, &foreigner, "alice").await;
    let revoked = service.issue(&org, &owner, "alice").await;
    service.revoke(&org, &owner, &revoked).await;
    let expired = service.issue_until(&org, &owner, "alice", "2026-11-21T10:00:01Z").await;
    service.clock.advance(std::time::Duration::from_secs(1));
    let both = service.issue_until(&org, &owner, "alice", "2026-11-21T10:00:02Z").await;
    service.revoke(&org, &owner, &both).await;
    service.clock.advance(std::time::Duration::from_secs(1));

    let (key, bot) = owner.credential.split_once(':').unwrap();
    let huge = "x".repeat(10_000);
    let mut tokens = vec![
        ("empty", String::new()),
        ("malformed", "hunter2".to_owned()),
        ("a prefix alone", "tg_org_".to_owned()),
        ("mistyped", mistyped(&good.token)),
        ("in capitals", good.token.to_uppercase()),
        ("with a space", format!("{} ", good.token)),
        ("with a line break", format!("{}\n", good.token)),
        ("with a bearer scheme", format!("Bearer {}", good.token)),
        ("cut short", good.token[..good.token.len() - 1].to_owned()),
        ("not ASCII", "tg_org_ä😀".to_owned()),
        ("with a zero byte", "tg_org_\u{0}".to_owned()),
        ("huge", huge),
        ("revoked", revoked.token),
        ("expired", expired.token),
        ("expired and revoked", both.token),
        ("foreign", foreign.token),
        ("an id", good.id.clone()),
        ("the caller's own key", key.to_owned()),
        ("the caller's own credential", format!("{key}:{bot}")),
    ];
    tokens.extend(TokenKind::ALL.map(|kind| ("unknown", unknown_token(kind))));
    for (what, token) in &tokens {
        let answer = probe(&service, &org, &owner, token).await;
        assert_eq!((answer.status.as_u16(), answer.text.as_str()), (200, r#"{"active":false}"#), "{what}");
        assert_eq!(answer.header("content-length"), r#"{"active":false}"#.len().to_string());
    }
    assert_eq!(probe(&service, &org, &owner, &good.token).await.json()["active"], true);
}

#[tokio::test]
async fn probing_does_not_update_last_used_at() {
    let service = Service::start_with_manual_clock().await;
    let (org, owner) = service.org_with_owner().await;
    let token = service.issue(&org, &owner, "alice").await;
    let before = service.table.items().await;
    // Less than five minutes, after which the use of the bot's key is recorded again.
    for _ in 0..2 {
        service.clock.advance(std::time::Duration::from_secs(120));
        assert_eq!(service.probe(&org, &owner, &token.token).await["last_used_at"], json!(null));
    }
    assert_eq!(service.list(&org, &owner, "").await["tokens"][0]["last_used_at"], json!(null));
    assert!(before == service.table.items().await, "a probe changed the table");
}

#[tokio::test]
async fn token_must_be_a_string() {
    let service = Service::start().await;
    let (org, owner) = service.org_with_owner().await;
    for body in [json!({}), json!({"token": null}), json!({"token": 1}), json!({"token": ["tg_org_x"]})] {
        service.post(&org.org_user_tokens("/probe"), &owner.credential, &body).await.assert_invalid("token");
    }
}
