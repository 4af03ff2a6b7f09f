//! `DELETE /v1/o/{org_id}/guard/org-user-tokens/by-id/{token_id}`

use std::time::Duration;

use futures::future::join_all;
use reqwest::Method;
use serde_json::json;
use shared::ids::TokenId;
use tests::table::text;
use tests::{Answer, Bot, Org, Service};

async fn revoke(service: &Service, org: &Org, bot: &Bot, id: &str) -> Answer {
    service.call(Method::DELETE, &org.org_user_tokens(&format!("/by-id/{id}")), &bot.credential).await
}

#[tokio::test]
async fn revoked_token_is_inactive_and_unlisted() {
    let service = Service::start_with_manual_clock().await;
    let (org, owner) = service.org_with_owner().await;
    let (token, other) = (service.issue(&org, &owner, "alice").await, service.issue(&org, &owner, "alice").await);
    let answer = revoke(&service, &org, &owner, &token.id).await;
    assert_eq!((answer.status.as_u16(), answer.text.as_str()), (204, ""));
    assert!(!answer.header("x-request-id").is_empty());
    assert_eq!(answer.header("cache-control"), "no-store");
    assert_eq!(service.probe(&org, &owner, &token.token).await, json!({"active": false}));
    assert_eq!(service.listed_ids(&org, &owner, "").await, [other.id]);
    service.table.assert_sound();
}

#[tokio::test]
async fn tokens_are_found_and_revoked_without_guard() {
    let service = Service::start_with_manual_clock().await;
    let (org, owner) = service.org_with_owner().await;
    let (token, other) = (service.issue(&org, &owner, "alice").await, service.issue(&org, &owner, "alice").await);
    service.set_guard(&org.id, false).await;
    assert_eq!(service.listed_ids(&org, &owner, "").await.len(), 2);
    assert_eq!(service.probe(&org, &owner, &token.token).await["active"], true);
    service.revoke(&org, &owner, &token).await;
    let by_user = json!({"user_identifier": "alice"});
    let answer = service.post(&org.org_user_tokens("/revoke-by-user"), &owner.credential, &by_user).await;
    assert_eq!(answer.json(), json!({"matched": 1, "revoked": [other.id], "remaining": 0}));
    assert_eq!(service.listed_ids(&org, &owner, "?status=revoked").await.len(), 2);
    // What Guard is paid for.
    let issue = service.post(&org.org_user_tokens(""), &owner.credential, &by_user).await;
    issue.assert_error(403, "SUBSCRIPTION_REQUIRED");
    let log = service.call(Method::GET, &org.installations(""), &owner.credential).await;
    log.assert_error(403, "SUBSCRIPTION_REQUIRED");
}

#[tokio::test]
async fn repeated_revocation_changes_nothing() {
    let service = Service::start_with_manual_clock().await;
    let (org, owner) = service.org_with_owner().await;
    let another = service.bot(&org, &[shared::permissions::Role::Manager]).await;
    let token = service.issue(&org, &owner, "alice").await;
    service.revoke(&org, &owner, &token).await;
    let first = service.list(&org, &owner, "?status=revoked").await;
    assert_eq!(first["tokens"][0]["revoked_at"], "2026-11-21T10:00:00Z");
    service.clock.advance(Duration::from_secs(3_600));
    assert_eq!(revoke(&service, &org, &another, &token.id).await.status, 204);
    assert_eq!(service.list(&org, &owner, "?status=revoked").await, first);
    assert_eq!(service.table.audited_tokens(&org.id).await.len(), 2, "one issue, one revocation");
}

#[tokio::test]
async fn expired_token_can_be_revoked() {
    let service = Service::start_with_manual_clock().await;
    let (org, owner) = service.org_with_owner().await;
    let unlisted = service.issue_until(&org, &owner, "alice", "2026-11-21T10:00:01Z").await;
    let listed = service.issue_until(&org, &owner, "bobby", "2026-11-21T10:00:01Z").await;
    service.clock.advance(Duration::from_secs(1));
    // One before a list has moved it to the expired ones, one after.
    service.revoke(&org, &owner, &unlisted).await;
    assert_eq!(service.listed_ids(&org, &owner, "?status=expired").await, std::slice::from_ref(&listed.id));
    service.revoke(&org, &owner, &listed).await;
    assert_eq!(service.listed_ids(&org, &owner, "?status=expired").await, [""; 0]);
    assert_eq!(service.listed_ids(&org, &owner, "?status=revoked").await, [unlisted.id, listed.id]);
    service.table.assert_sound();
}

#[tokio::test]
async fn unknown_and_foreign_ids_get_identical_404s() {
    let service = Service::start().await;
    let (org, owner) = service.org_with_owner().await;
    let (foreign_org, foreigner) = service.org_with_owner().await;
    let foreign = service.issue(&foreign_org, &foreigner, "alice").await;
    let own = service.issue(&org, &owner, "alice").await;
    let unknown = TokenId::new(&service.clock).unwrap().to_string();
    for id in [
        foreign.id.as_str(),
        unknown.as_str(),
        &own.id.to_lowercase(),
        &own.id[1..],
        &format!("{}0", own.id),
        &format!("{}%20", own.id),
        &format!("{}%00", own.id),
        &format!("{}%0a", own.id),
        &format!("alice%23{}", own.id),
        &own.token,
        org.id.as_str(),
        "x",
        "%ff",
        "..%2f..",
        "%23",
        &"x".repeat(2_000),
    ] {
        let answer = revoke(&service, &org, &owner, id).await;
        answer.assert_error(404, "TOKEN_NOT_FOUND");
        let body = answer.text.replace(answer.header("x-request-id"), "");
        assert_eq!(
            body,
            r#"{"error":{"code":"TOKEN_NOT_FOUND","message":"This organization has no token with this id. Check the id.","request_id":""}}"#,
            "{id}"
        );
    }
    assert_eq!(service.probe(&foreign_org, &foreigner, &foreign.token).await["active"], true);
    assert_eq!(service.probe(&org, &owner, &own.token).await["active"], true);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_revocations_are_audited_once() {
    let service = Service::start().await;
    let (org, owner) = service.org_with_owner().await;
    let token = service.issue(&org, &owner, "alice").await;
    let answers = join_all((0..100).map(|_| revoke(&service, &org, &owner, &token.id))).await;
    assert!(answers.iter().all(|answer| answer.status == 204 && answer.text.is_empty()));
    let entries = service.table.audited_tokens(&org.id).await;
    let actions: Vec<&str> = entries.iter().map(|entry| text(entry, "action")).collect();
    assert_eq!(actions, ["org_user_token.issue", "org_user_token.revoke"]);
    service.table.assert_sound();
}
