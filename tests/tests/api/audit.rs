//! Audit entries of org user tokens, and what the table must never store.

use reqwest::Method;
use serde_json::{Value, json};
use shared::permissions::Role;
use shared::secret::Token;
use shared::store::audit::{Entry, Subject};
use tests::table::text;
use tests::{Answer, Service, operator};

/// Asserts that an entry describes this call.
#[track_caller]
fn assert_entry(entry: &Value, actor: &str, action: &str, target: (&str, &str), outcome: &str, answer: &Answer) {
    assert_eq!(entry["actor"], json!({"kind": "bot", "id": actor}));
    assert_eq!(entry["action"], action);
    assert_eq!(entry["target"], json!({"kind": target.0, "id": target.1}));
    assert_eq!(entry["outcome"], outcome);
    assert_eq!(entry["source_ip"], "127.0.0.1");
    assert_eq!(entry["request_id"], answer.header("x-request-id"));
    assert!(shared::ids::AuditId::parse(text(entry, "id")).is_some());
}

#[tokio::test]
async fn each_issue_and_revocation_adds_one_entry() {
    let service = Service::start_with_manual_clock().await;
    let (org, owner) = service.org_with_owner().await;
    let issuer = service.bot(&org, &[Role::TokenIssuer]).await;
    let manager = service.bot(&org, &[Role::Manager]).await;
    let tick = || service.clock.advance(std::time::Duration::from_secs(1));
    let post = async |bot: &tests::Bot, rest: &str, body: Value| {
        tick();
        service.post(&org.org_user_tokens(rest), &bot.credential, &body).await
    };
    let issued = post(&issuer, "", json!({"user_identifier": "alice"})).await;
    let issued_too = post(&owner, "", json!({"user_identifier": "alice", "expires_at": "2027-01-01T00:00:00Z"})).await;
    let ids = [issued.json()["id"].as_str().unwrap().to_owned(), issued_too.json()["id"].as_str().unwrap().to_owned()];
    tick();
    let path = org.org_user_tokens(&format!("/by-id/{}", ids[0]));
    let revoked = service.call(Method::DELETE, &path, &manager.credential).await;
    let by_user = post(&owner, "/revoke-by-user", json!({"user_identifier": "alice"})).await;
    assert_eq!(by_user.json()["revoked"], json!([ids[1]]));

    let entries = service.table.audited_tokens(&org.id).await;
    assert_eq!(entries.len(), 4);
    fn token(id: &str) -> (&str, &str) {
        ("org_user_token", id)
    }
    assert_entry(&entries[0], issuer.id.as_str(), "org_user_token.issue", token(&ids[0]), "done", &issued);
    assert_entry(&entries[1], owner.id.as_str(), "org_user_token.issue", token(&ids[1]), "done", &issued_too);
    assert_entry(&entries[2], manager.id.as_str(), "org_user_token.revoke", token(&ids[0]), "done", &revoked);
    assert_entry(&entries[3], owner.id.as_str(), "org_user_token.revoke_by_user", token(&ids[1]), "done", &by_user);
    let at: Vec<&str> = entries.iter().map(|entry| text(entry, "at")).collect();
    let expected = [1, 2, 3, 4].map(|second| format!("2026-11-21T10:00:0{second}Z"));
    assert_eq!(at, expected);
}

#[tokio::test]
async fn audit_entry_is_never_replaced() {
    let service = Service::start().await;
    let org = service.org().await;
    let target = Subject::new("organization", &org.id);
    let entry = Entry::done(&service.clock, &operator(), "org_user_token.issue", target).unwrap().refused();
    service.store.record_refusal(&org.id, &entry).await.unwrap();
    let forged = Entry { actor: Subject::new("bot", "another"), ..entry };
    service.store.record_refusal(&org.id, &forged).await.unwrap();
    let stored = service.table.audited_tokens(&org.id).await;
    assert_eq!((stored.len(), &stored[0]["actor"]["id"]), (1, &json!("test")));
}

#[tokio::test]
async fn audit_entries_of_tokens_expire_after_400_days() {
    let service = Service::start_with_manual_clock().await;
    let (org, owner) = service.org_with_owner().await;
    service.issue(&org, &owner, "alice").await;
    let entries = service.table.audited_tokens(&org.id).await;
    let end = shared::Moment::parse("2027-12-26T10:00:00Z").unwrap();
    assert_eq!(entries[0]["ttl"], end.epoch_seconds());
}

#[tokio::test]
async fn issue_refused_for_role_or_subscription_adds_an_entry() {
    let service = Service::start().await;
    let (org, owner) = service.org_with_owner().await;
    let powerless = service.bot(&org, &[Role::ApiKeyManager, Role::TokenIntrospector]).await;
    let body = json!({"user_identifier": "alice"});
    let path = org.org_user_tokens("");
    let for_role = service.post(&path, &powerless.credential, &body).await;
    for_role.assert_error(403, "FORBIDDEN");
    // Refused before the body is read, so the same for any body.
    let for_role_too = service.post(&path, &powerless.credential, &json!([])).await;
    for_role_too.assert_error(403, "FORBIDDEN");
    service.set_guard(&org.id, false).await;
    let for_subscription = service.post(&path, &owner.credential, &body).await;
    for_subscription.assert_error(403, "SUBSCRIPTION_REQUIRED");

    let mut entries = service.table.audited_tokens(&org.id).await;
    assert_eq!(entries.len(), 3);
    let mut assert_logged = |bot: &tests::Bot, answer: &Answer| {
        let request_id = answer.header("x-request-id");
        let at = entries.iter().position(|entry| entry["request_id"] == request_id).unwrap();
        let target = ("organization", org.id.as_str());
        assert_entry(&entries.remove(at), bot.id.as_str(), "org_user_token.issue", target, "refused", answer);
    };
    assert_logged(&powerless, &for_role);
    assert_logged(&powerless, &for_role_too);
    assert_logged(&owner, &for_subscription);
}

#[tokio::test]
async fn calls_without_effect_add_no_entry() {
    let service = Service::start().await;
    let (org, owner) = service.org_with_owner().await;
    let (foreign_org, foreigner) = service.org_with_owner().await;
    let powerless = service.bot(&org, &[Role::TokenIssuer]).await;
    let token = service.issue(&org, &owner, "alice").await;
    let before = (service.table.audit_entries(&org.id).await, service.table.audit_entries(&foreign_org.id).await);

    let by_id = org.org_user_tokens(&format!("/by-id/{}", token.id));
    let foreign_id = foreign_org.org_user_tokens(&format!("/by-id/{}", token.id));
    let post = async |rest: &str, bot: &tests::Bot, body: Value, status: u16| {
        let answer = service.post(&org.org_user_tokens(rest), &bot.credential, &body).await;
        assert_eq!(answer.status, status, "{rest} {body}: {}", answer.text);
    };
    // Failed validation, reads and dry runs.
    post("", &owner, json!({"user_identifier": "x"}), 400).await;
    post("", &owner, json!({"user_identifier": "alice", "expires_at": "2001-01-01T00:00:00Z"}), 400).await;
    post("/probe", &owner, json!({"token": token.token}), 200).await;
    post("/revoke-by-user", &owner, json!({"user_identifier": "alice", "dry_run": true}), 200).await;
    post("/revoke-by-user", &owner, json!({"user_identifier": "alice", "expected_count": 7}), 409).await;
    post("/revoke-by-user", &owner, json!({"user_identifier": "nobody"}), 200).await;
    service.list(&org, &owner, "?status=all").await;
    // Refused, but not an issue, or not by a bot of this organization.
    post("/revoke-by-user", &powerless, json!({"user_identifier": "alice"}), 403).await;
    post("", &foreigner, json!({"user_identifier": "alice"}), 403).await;
    for (path, credential, status) in [
        (&by_id, powerless.credential.as_str(), 403),
        (&by_id, &foreigner.credential, 403),
        (&by_id, "nonsense", 401),
        (&foreign_id, &foreigner.credential, 404),
    ] {
        assert_eq!(service.call(Method::DELETE, path, credential).await.status, status);
    }
    let after = (service.table.audit_entries(&org.id).await, service.table.audit_entries(&foreign_org.id).await);
    assert_eq!(before, after);
}

#[tokio::test]
async fn table_never_stores_plaintext_secrets() {
    let service = Service::start_with_manual_clock().await;
    let (org, owner) = service.org_with_owner().await;
    let mut secrets = vec![owner.credential.split_once(':').unwrap().0.to_owned()];
    let new_key = service.store.rotate_bot_key(&owner.id, Some(std::time::Duration::from_secs(60)), &operator()).await;
    secrets.push(new_key.unwrap().unwrap().expose().to_owned());
    for (n, expiry) in [None, Some("2026-11-21T10:00:01Z"), Some("2027-01-01T00:00:00Z")].into_iter().enumerate() {
        let identifier = format!("person-{n}");
        for _ in 0..2 {
            let token = match expiry {
                None => service.issue(&org, &owner, &identifier).await,
                Some(expiry) => service.issue_until(&org, &owner, &identifier, expiry).await,
            };
            secrets.push(token.token);
        }
    }
    service.clock.advance(std::time::Duration::from_secs(2));
    service.list(&org, &owner, "?status=all").await;
    let revoke = json!({"user_identifier": "person-0"});
    service.post(&org.org_user_tokens("/revoke-by-user"), &owner.credential, &revoke).await;
    // Tokens sent to the wrong endpoints.
    for token in secrets.clone() {
        service.probe(&org, &owner, &token).await;
        service.call(Method::GET, &org.org_user_tokens(""), &token).await;
        service.call(Method::DELETE, &org.org_user_tokens(&format!("/by-id/{token}")), &owner.credential).await;
    }

    let table: String = service.table.items().await.iter().map(Value::to_string).collect();
    for secret in &secrets {
        let token = Token::parse(secret).unwrap();
        let body = &secret[token.shown_prefix().len()..];
        assert!(!table.contains(body), "the table contains {secret}");
        // Proves that the search works: the hash is what is stored instead.
        assert!(table.contains(&token.hash().to_hex()));
    }
    let audit: String = service.table.audit_entries(&org.id).await.iter().map(Value::to_string).collect();
    for secret in &secrets {
        let hash = Token::parse(secret).unwrap().hash().to_hex();
        assert!(!audit.contains(&hash), "the audit log contains a hash");
    }
    assert!(!audit.contains("person-"), "the audit log contains an identifier");
}
