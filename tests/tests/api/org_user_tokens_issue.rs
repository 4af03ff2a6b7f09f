//! `POST /v1/o/{org_id}/guard/org-user-tokens`

use serde_json::{Value, json};
use shared::secret::{Token, TokenKind};
use tests::{Answer, Bot, Org, Service};

async fn issue(service: &Service, org: &Org, bot: &Bot, body: &Value) -> Answer {
    service.post(&org.org_user_tokens(""), &bot.credential, body).await
}

#[tokio::test]
async fn plaintext_token_is_returned_only_on_issue() {
    let service = Service::start_with_manual_clock().await;
    let (org, owner) = service.org_with_owner().await;
    let answer = issue(&service, &org, &owner, &json!({"user_identifier": "alice-laptop"})).await;
    assert_eq!(answer.status, 201);
    assert_eq!(answer.header("content-type"), "application/json");
    assert_eq!(answer.header("cache-control"), "no-store");
    assert!(!answer.header("x-request-id").is_empty());

    let body = answer.json();
    let token = body["token"].as_str().unwrap();
    assert_eq!(Token::parse(token).unwrap().kind(), TokenKind::OrgUser);
    assert_eq!(token.len(), "tg_org_".len() + 42);
    assert_eq!(body["token_prefix"], token[.."tg_org_".len() + 4]);
    assert!(shared::ids::TokenId::parse(body["id"].as_str().unwrap()).is_some());
    assert_eq!(body["created_by"], owner.id.as_str());
    insta::assert_json_snapshot!(body, {
        ".id" => "[id]", ".token" => "[token]", ".token_prefix" => "[token_prefix]", ".created_by" => "[bot]",
    }, @r#"
    {
      "created_at": "2026-11-21T10:00:00Z",
      "created_by": "[bot]",
      "expires_at": null,
      "id": "[id]",
      "last_used_at": null,
      "status": "active",
      "token": "[token]",
      "token_prefix": "[token_prefix]",
      "user_identifier": "alice-laptop"
    }
    "#);

    let listed = service.list(&org, &owner, "").await;
    assert_eq!(tests::ids(&listed["tokens"]), [body["id"].as_str().unwrap()]);
    assert!(!listed.to_string().contains(token), "the token is returned again");
}

#[tokio::test]
async fn tokens_may_share_an_identifier() {
    let service = Service::start().await;
    let (org, owner) = service.org_with_owner().await;
    let first = service.issue(&org, &owner, "alice").await;
    let second = service.issue(&org, &owner, "alice").await;
    assert_ne!(first.token, second.token);
    assert_ne!(first.id, second.id);
}

#[tokio::test]
async fn valid_identifiers_are_accepted() {
    let service = Service::start().await;
    let (org, owner) = service.org_with_owner().await;
    let every = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._@+-";
    let longest = "x".repeat(255);
    for good in [every, "ABCD", "....", "----", "a@b.c", "0000", "null", "true", "__proto__", &longest] {
        let answer = issue(&service, &org, &owner, &json!({"user_identifier": good})).await;
        assert_eq!((answer.status.as_u16(), &answer.json()["user_identifier"]), (201, &json!(good)));
    }
}

#[tokio::test]
async fn invalid_identifiers_are_refused_and_not_echoed() {
    let service = Service::start().await;
    let (org, owner) = service.org_with_owner().await;
    let too_long = "x".repeat(256);
    // 255 characters but more than 255 bytes.
    let too_long_in_bytes = "é".repeat(255);
    for (bad, why) in [
        ("", "must have 4 to 255 characters"),
        ("abc", "must have 4 to 255 characters"),
        (too_long.as_str(), "must have 4 to 255 characters"),
        (too_long_in_bytes.as_str(), "may contain only ASCII letters, digits and . _ @ + -"),
        ("ali ce", "may contain only ASCII letters, digits and . _ @ + -"),
        (" alice", "may contain only ASCII letters, digits and . _ @ + -"),
        ("alice\n", "may contain only ASCII letters, digits and . _ @ + -"),
        ("alice#1", "may contain only ASCII letters, digits and . _ @ + -"),
        ("alice/laptop", "may contain only ASCII letters, digits and . _ @ + -"),
        ("alice\\laptop", "may contain only ASCII letters, digits and . _ @ + -"),
        ("alice:laptop", "may contain only ASCII letters, digits and . _ @ + -"),
        ("alice,bob", "may contain only ASCII letters, digits and . _ @ + -"),
        ("alice=bob", "may contain only ASCII letters, digits and . _ @ + -"),
        ("alice*", "may contain only ASCII letters, digits and . _ @ + -"),
        ("<alice>", "may contain only ASCII letters, digits and . _ @ + -"),
        ("\"alice\"", "may contain only ASCII letters, digits and . _ @ + -"),
        ("alice\u{0}", "may contain only ASCII letters, digits and . _ @ + -"),
        ("älice", "may contain only ASCII letters, digits and . _ @ + -"),
        ("アリス・山田", "may contain only ASCII letters, digits and . _ @ + -"),
        ("alice😀", "may contain only ASCII letters, digits and . _ @ + -"),
        // A Cyrillic look-alike of `a`, and full-width letters that Unicode folding maps to ASCII.
        ("\u{430}lice", "may contain only ASCII letters, digits and . _ @ + -"),
        ("ａｌｉｃｅ", "may contain only ASCII letters, digits and . _ @ + -"),
        ("alice\u{202e}", "may contain only ASCII letters, digits and . _ @ + -"),
    ] {
        let answer = issue(&service, &org, &owner, &json!({"user_identifier": bad})).await;
        answer.assert_invalid("user_identifier");
        assert_eq!(answer.json()["error"]["details"][0]["message"], why, "{bad:?}");
        let body = answer.text.replace(why, "");
        assert!(bad.len() < 4 || !body.contains(bad), "{body}");
    }
    assert!(service.listed_ids(&org, &owner, "?status=all").await.is_empty());
}

#[tokio::test]
async fn expiry_accepts_any_offset_and_is_returned_in_utc() {
    let service = Service::start_with_manual_clock().await;
    let (org, owner) = service.org_with_owner().await;
    for (sent, answered) in [
        (json!("2026-11-21T10:00:01Z"), json!("2026-11-21T10:00:01Z")),
        (json!("2026-11-22T00:00:00+09:00"), json!("2026-11-21T15:00:00Z")),
        (json!("2026-11-21T05:30:00-05:00"), json!("2026-11-21T10:30:00Z")),
        (json!("2026-11-21t11:00:00z"), json!("2026-11-21T11:00:00Z")),
        (json!("2028-02-29T00:00:00Z"), json!("2028-02-29T00:00:00Z")),
        // Fractions are truncated, so that no token outlives its stated expiry.
        (json!("2026-11-21T10:00:01.999999999Z"), json!("2026-11-21T10:00:01Z")),
        (json!("9999-12-31T23:59:59Z"), json!("9999-12-31T23:59:59Z")),
        (Value::Null, Value::Null),
    ] {
        let body = json!({"user_identifier": "alice", "expires_at": sent});
        let answer = issue(&service, &org, &owner, &body).await;
        assert_eq!((answer.status.as_u16(), &answer.json()["expires_at"]), (201, &answered), "{sent}");
        assert_eq!(answer.json()["status"], "active");
    }
}

#[tokio::test]
async fn past_and_malformed_expiries_are_refused() {
    let service = Service::start_with_manual_clock().await;
    let (org, owner) = service.org_with_owner().await;
    for (sent, why) in [
        (json!("2026-11-21T10:00:00Z"), "must be in the future"),
        (json!("2026-11-21T10:00:00.999Z"), "must be in the future"),
        (json!("2026-11-21T09:59:59Z"), "must be in the future"),
        (json!("2026-11-21T18:59:59+09:00"), "must be in the future"),
        (json!("1970-01-01T00:00:00Z"), "must be in the future"),
        (json!("0001-01-01T00:00:00Z"), "must be in the future"),
        (json!(""), "RFC 3339"),
        (json!("tomorrow"), "RFC 3339"),
        (json!("2027-01-01"), "RFC 3339"),
        (json!("2027-01-01T00:00:00"), "RFC 3339"),
        (json!("2027-02-29T00:00:00Z"), "RFC 3339"),
        (json!("2027-01-01T24:00:00Z"), "RFC 3339"),
        (json!("P1D"), "RFC 3339"),
        (json!("+012027-01-01T00:00:00Z"), "RFC 3339"),
        (json!(1_893_456_000), "must be a string"),
        (json!({"seconds": 1}), "must be a string"),
        (json!(false), "must be a string"),
    ] {
        let answer = issue(&service, &org, &owner, &json!({"user_identifier": "alice", "expires_at": sent})).await;
        answer.assert_invalid("expires_at");
        let message = answer.json()["error"]["details"][0]["message"].as_str().unwrap().to_owned();
        assert!(message.contains(why), "{sent}: {message}");
    }
    assert!(service.listed_ids(&org, &owner, "?status=all").await.is_empty());
}

#[tokio::test]
async fn token_is_active_until_its_expiry() {
    let service = Service::start_with_manual_clock().await;
    let (org, owner) = service.org_with_owner().await;
    let token = service.issue_until(&org, &owner, "alice", "2026-11-21T10:00:02Z").await;
    service.clock.advance(std::time::Duration::from_millis(1_999));
    assert_eq!(service.probe(&org, &owner, &token.token).await["active"], true);
    service.clock.advance(std::time::Duration::from_millis(1));
    assert_eq!(service.probe(&org, &owner, &token.token).await, json!({"active": false}));
}

#[tokio::test]
async fn missing_and_unknown_fields_are_named() {
    let service = Service::start().await;
    let (org, owner) = service.org_with_owner().await;
    let answer = issue(&service, &org, &owner, &json!({})).await;
    answer.assert_invalid("user_identifier");
    insta::assert_json_snapshot!(answer.json(), {".error.request_id" => "[request_id]"}, @r#"
    {
      "error": {
        "code": "BAD_REQUEST",
        "details": [
          {
            "field": "user_identifier",
            "message": "is required"
          }
        ],
        "message": "`user_identifier` is required.",
        "request_id": "[request_id]"
      }
    }
    "#);
    issue(&service, &org, &owner, &json!({"user_identifier": null})).await.assert_invalid("user_identifier");
    // A request cannot set response-only fields.
    for field in ["id", "token", "status", "created_by", "expires", "userIdentifier"] {
        let body = json!({"user_identifier": "alice", field: "active"});
        issue(&service, &org, &owner, &body).await.assert_invalid(field);
    }
}
