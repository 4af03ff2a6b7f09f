//! A suspended organization gets no new tokens and no packages; what it has can be listed, checked
//! and revoked.

use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use tests::coverage::Fixtures;
use tests::management::ACCESS_TOKENS;
use tests::table::text;
use tests::upstream::Registry;
use tests::{Service, operator};

#[tokio::test]
async fn suspended_organization_gets_no_new_tokens_until_resumed() {
    let service = Service::start_with_manual_clock().await;
    let fixtures = Fixtures::create(&service).await;
    let (org, owner) = (&fixtures.org, &fixtures.owner);
    let writer = service.api_key(&owner.credential, &["org:write"]).await;
    let api_key = json!({"name": "ci", "environment": "test", "scopes": ["org:write"]});
    let mints = [
        (org.org_user_tokens(""), &owner.credential, json!({"user_identifier": "alice"})),
        ("/v1/api-keys".to_owned(), &owner.credential, api_key.clone()),
        ("/v1/api-keys".to_owned(), &writer.key, api_key),
        (ACCESS_TOKENS.to_owned(), &owner.credential, json!({"name": "gateway"})),
    ];
    let suspend = async |on| service.store.set_suspended(&org.id, on, &operator()).await.unwrap().unwrap();
    let counted = async || service.table.items_without_audit().await.len();

    suspend(true).await;
    let before = counted().await;
    for (path, credential, body) in &mints {
        service.post(path, credential, body).await.assert_error(403, "SUBSCRIPTION_REQUIRED");
    }
    assert_eq!(counted().await, before);
    let entries = service.table.audit_entries(&org.id).await;
    assert_eq!(entries.iter().filter(|entry| text(entry, "outcome") == "refused").count(), mints.len());

    // What it has goes on.
    assert_eq!(service.probe(org, owner, &fixtures.token.token).await["active"], true);
    assert!(service.listed_ids(org, owner, "").await.contains(&fixtures.token.id));
    assert_eq!(service.introspect(owner, &json!({"token": fixtures.token.token})).await["active"], true);
    assert!(!service.access_tokens(owner).await.is_empty());
    service.revoke(org, owner, &fixtures.token).await;
    service.revoke_api_key(&owner.credential, &writer.id).await;

    suspend(false).await;
    for (path, credential, body) in &mints {
        let status = if *credential == &writer.key { 401 } else { 201 };
        assert_eq!(service.post(path, credential, body).await.status, status, "{path}");
    }
}

#[tokio::test]
async fn suspension_closes_the_registries_within_a_minute() {
    let registry = Registry::with_widgets().await;
    let service = Service::start_with_registries(registry.settings()).await;
    let fixtures = Fixtures::create(&service).await;
    let get = async |token: &str| service.call(Method::GET, "/npm/widgets", token).await;
    let suspend = async |on| service.store.set_suspended(&fixtures.org.id, on, &operator()).await.unwrap();
    assert_eq!(get(&fixtures.token.token).await.status, 200);
    suspend(true).await;
    service.clock.advance(Duration::from_secs(60));
    let refused = get(&fixtures.token.token).await;
    assert_eq!((refused.status.as_u16(), refused.code().as_str()), (403, "SUBSCRIPTION_REQUIRED"));
    // Email-verified tokens belong to no organization.
    assert_eq!(get(&fixtures.email_token).await.status, 200);
    suspend(false).await;
    service.clock.advance(Duration::from_secs(60));
    assert_eq!(get(&fixtures.token.token).await.status, 200);
}

#[tokio::test]
async fn organization_stored_before_suspension_existed_is_not_suspended() {
    let service = Service::start_with_manual_clock().await;
    let (org, owner) = service.org_with_owner().await;
    let items = service.table.items().await;
    let stored: &Value = items.iter().find(|item| item["sk"] == "ORG").unwrap();
    assert!(stored.get("suspended").is_none(), "{stored}");
    service.issue(&org, &owner, "alice").await;
}
