//! `/v1/api-keys`

use std::time::Duration;

use futures::future::{join, join_all};
use reqwest::Method;
use serde_json::{Value, json};
use shared::domain::Plan;
use shared::permissions::Role;
use shared::secret::{Token, TokenKind};
use tests::faults::Fault;
use tests::management::API_KEYS;
use tests::paging::List;
use tests::table::text;
use tests::{Answer, Service, ids, operator};

const SCOPES: [&str; 9] = [
    "shield:read",
    "shield:write",
    "audit:read",
    "fleet:read",
    "fleet:write",
    "policy:read",
    "policy:write",
    "org:read",
    "org:write",
];

fn body() -> Value {
    json!({"name": "ci-pipeline", "environment": "live", "scopes": ["shield:write"]})
}

/// A valid body with some fields replaced.
fn body_with(fields: Value) -> Value {
    let mut body = body();
    body.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    body
}

async fn create(service: &Service, credential: &str, fields: Value) -> Answer {
    service.post(API_KEYS, credential, &body_with(fields)).await
}

fn statuses(answers: &[Answer]) -> Vec<u16> {
    let mut statuses: Vec<u16> = answers.iter().map(|answer| answer.status.as_u16()).collect();
    statuses.sort_unstable();
    statuses
}

#[tokio::test]
async fn plaintext_key_is_returned_only_on_creation() {
    let service = Service::start_with_manual_clock().await;
    let (_, owner) = service.org_with_owner().await;
    let fields = json!({"scopes": ["shield:write", "org:read"], "expires_at": "2026-12-21T10:00:00+09:00"});
    let answer = create(&service, &owner.credential, fields).await;
    assert_eq!((answer.status.as_u16(), answer.header("cache-control")), (201, "no-store"));
    let created = answer.json();
    let key = text(&created, "key");
    assert_eq!(Token::parse(key).unwrap().kind(), TokenKind::ApiKeyLive);
    assert!(key.strip_prefix("tk_live_").unwrap().bytes().all(|c| matches!(c, b'0'..=b'9' | b'a'..=b'f')));
    assert_eq!(key.len(), "tk_live_".len() + 64);
    assert!(key.starts_with(text(&created, "prefix")) && text(&created, "prefix").len() < 24);
    assert!(shared::ids::TokenId::parse(text(&created, "id")).is_some());
    assert_eq!(created["created_by"], owner.id.as_str());
    insta::assert_json_snapshot!(created, {
        ".id" => "[id]", ".key" => "[key]", ".prefix" => "[prefix]", ".created_by" => "[bot]",
    }, @r#"
    {
      "created_at": "2026-11-21T10:00:00Z",
      "created_by": "[bot]",
      "environment": "live",
      "expires_at": "2026-12-21T01:00:00Z",
      "id": "[id]",
      "key": "[key]",
      "last_used_at": null,
      "name": "ci-pipeline",
      "prefix": "[prefix]",
      "scopes": [
        "shield:write",
        "org:read"
      ],
      "status": "active"
    }
    "#);
    let listed = service.api_keys(&owner.credential, "").await;
    assert!(!listed.to_string().contains(&key[text(&created, "prefix").len()..]), "the key is returned again");
    let test = create(&service, &owner.credential, json!({"environment": "test"})).await.json();
    assert_eq!(Token::parse(text(&test, "key")).unwrap().kind(), TokenKind::ApiKeyTest);
}

#[tokio::test]
async fn list_shows_status_of_each_key_and_plan_usage() {
    let service = Service::start_with_manual_clock().await;
    let (_, owner) = service.org_with_owner().await;
    let create = async |fields: Value| service.api_key_with(&owner.credential, &body_with(fields)).await;
    create(json!({"name": "expired", "expires_at": "2026-11-21T10:00:05Z"})).await;
    service.clock.advance(Duration::from_millis(1));
    let revoked = create(json!({"name": "revoked", "environment": "test"})).await;
    service.clock.advance(Duration::from_secs(5));
    create(json!({"name": "active"})).await;
    service.revoke_api_key(&owner.credential, &revoked.id).await;
    let listed = service.api_keys(&owner.credential, "?status=all").await;
    insta::assert_json_snapshot!(listed, {
        ".api_keys[].id" => "[id]", ".api_keys[].prefix" => "[prefix]",
        ".api_keys[].created_by" => "[bot]", ".api_keys[].revoked_by" => "[bot]",
    }, @r#"
    {
      "api_keys": [
        {
          "created_at": "2026-11-21T10:00:05Z",
          "created_by": "[bot]",
          "environment": "live",
          "expires_at": null,
          "id": "[id]",
          "last_used_at": null,
          "name": "active",
          "prefix": "[prefix]",
          "scopes": [
            "shield:write"
          ],
          "status": "active"
        },
        {
          "created_at": "2026-11-21T10:00:00Z",
          "created_by": "[bot]",
          "environment": "test",
          "expires_at": null,
          "id": "[id]",
          "last_used_at": null,
          "name": "revoked",
          "prefix": "[prefix]",
          "revoked_at": "2026-11-21T10:00:05Z",
          "revoked_by": "[bot]",
          "scopes": [
            "shield:write"
          ],
          "status": "revoked"
        },
        {
          "created_at": "2026-11-21T10:00:00Z",
          "created_by": "[bot]",
          "environment": "live",
          "expires_at": "2026-11-21T10:00:05Z",
          "id": "[id]",
          "last_used_at": null,
          "name": "expired",
          "prefix": "[prefix]",
          "scopes": [
            "shield:write"
          ],
          "status": "expired"
        }
      ],
      "next_cursor": null,
      "plan": {
        "active_api_keys": 1,
        "max_api_keys": 20,
        "name": "pro"
      }
    }
    "#);
    assert_eq!(listed["api_keys"][1]["revoked_by"], owner.id.as_str());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_plan_allows_exactly_its_maximum_of_active_keys() {
    let service = Service::start_with_manual_clock().await;
    for (plan, name, max) in [
        (Plan::Free, "free", Some(3)),
        (Plan::Developer, "developer", Some(10)),
        (Plan::Pro, "pro", Some(20)),
        (Plan::Enterprise, "enterprise", None),
    ] {
        let (org, owner) = service.org_on(plan).await;
        for _ in 0..max.unwrap_or(25) {
            service.api_key(&owner.credential, &["shield:read"]).await;
        }
        let one_more = create(&service, &owner.credential, json!({})).await;
        match max {
            Some(_) => one_more.assert_error(403, "PLAN_LIMIT_REACHED"),
            None => assert_eq!(one_more.status, 201, "{}", one_more.text),
        }
        let active = service.active_api_keys(&org, &owner.credential).await;
        assert_eq!(active, max.unwrap_or(26));
        let plan = &service.api_keys(&owner.credential, "?status=revoked").await["plan"];
        assert_eq!(*plan, json!({"name": name, "max_api_keys": max, "active_api_keys": active}));
    }
}

/// Beyond 10 refusals a minute, 429 takes the place of 403.
#[track_caller]
fn assert_refused(answer: &Answer) {
    if answer.status == 429 {
        return answer.assert_error(429, "RATE_LIMITED");
    }
    answer.assert_error(403, "PLAN_LIMIT_REACHED");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_creations_never_exceed_the_plan_limit() {
    let service = Service::start().await;
    let (org, owner) = service.org_on(Plan::Pro).await;
    for _ in 0..19 {
        service.api_key(&owner.credential, &["shield:read"]).await;
    }
    let answers = join_all((0..100).map(|_| create(&service, &owner.credential, json!({})))).await;
    let (won, lost): (Vec<&Answer>, Vec<&Answer>) = answers.iter().partition(|answer| answer.status == 201);
    assert_eq!((won.len(), lost.len()), (1, 99), "{:?}", statuses(&answers));
    for answer in lost {
        assert_refused(answer);
    }
    assert_eq!(service.active_api_keys(&org, &owner.credential).await, 20);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_creations_and_revocations_keep_the_count_exact() {
    let service = Service::start().await;
    let (org, owner) = service.org_on(Plan::Developer).await;
    let keys = join_all((0..10).map(|_| async { service.api_key(&owner.credential, &["shield:read"]).await.id })).await;
    let creators = join_all((0..40).map(|_| create(&service, &owner.credential, json!({}))));
    // Revokes each key twice.
    let revokers = join_all(keys.iter().chain(&keys).map(|id| service.revoke_api_key(&owner.credential, id)));
    let (created, _) = join(creators, revokers).await;
    let won = created.iter().filter(|answer| answer.status == 201).count() as u64;
    created.iter().filter(|answer| answer.status != 201).for_each(assert_refused);
    assert!(won <= 10);
    assert_eq!(service.active_api_keys(&org, &owner.credential).await, won);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn expired_key_frees_its_slot_immediately() {
    let service = Service::start_with_manual_clock().await;
    let (org, owner) = service.org_on(Plan::Free).await;
    let expiring = json!({"expires_at": "2026-11-21T10:01:00Z"});
    for _ in 0..3 {
        service.api_key_with(&owner.credential, &body_with(expiring.clone())).await;
    }
    service.clock.advance(Duration::from_millis(59_999));
    create(&service, &owner.credential, json!({})).await.assert_error(403, "PLAN_LIMIT_REACHED");
    assert_eq!(service.active_api_keys(&org, &owner.credential).await, 3);
    service.clock.advance(Duration::from_millis(1));
    // Three slots are free, so exactly three of the concurrent calls succeed.
    let answers = join_all((0..12).map(|_| create(&service, &owner.credential, json!({})))).await;
    assert_eq!(statuses(&answers), [[201; 3].as_slice(), &[403; 9]].concat());
    assert_eq!(service.active_api_keys(&org, &owner.credential).await, 3);
    assert_eq!(service.all_api_keys(&owner.credential, 7, "&status=expired").await.len(), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn repeated_revocations_decrement_the_count_once() {
    let service = Service::start_with_manual_clock().await;
    let (org, owner) = service.org_with_owner().await;
    let until = json!({"expires_at": "2026-11-21T10:00:05Z"});
    let expired = service.api_key_with(&owner.credential, &body_with(until.clone())).await;
    let expired_unseen = service.api_key_with(&owner.credential, &body_with(until)).await;
    let active = service.api_key(&owner.credential, &["shield:read"]).await;
    service.api_key(&owner.credential, &["shield:read"]).await;
    let revoke = async |id: &str| service.revoke_api_key(&owner.credential, id).await;
    // Revokes one expired key that is still listed as active, and one that a list has already
    // moved.
    service.clock.advance(Duration::from_secs(5));
    revoke(&expired_unseen.id).await;
    assert_eq!(service.active_api_keys(&org, &owner.credential).await, 2);
    revoke(&expired.id).await;
    assert_eq!(service.active_api_keys(&org, &owner.credential).await, 2);
    revoke(&active.id).await;
    assert_eq!(service.active_api_keys(&org, &owner.credential).await, 1);
    let before = service.api_keys(&owner.credential, "?status=revoked").await;
    service.clock.advance(Duration::from_secs(60));
    for key in [&expired, &expired_unseen, &active] {
        revoke(&key.id).await;
    }
    assert_eq!(service.api_keys(&owner.credential, "?status=revoked").await, before);
    assert_eq!(service.active_api_keys(&org, &owner.credential).await, 1);
    let audited = service.audit_log(&org, &owner.credential, "?action=api_key.revoke").await;
    assert_eq!(audited["entries"].as_array().unwrap().len(), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_revocations_decrement_the_count_once() {
    let service = Service::start().await;
    let (org, owner) = service.org_with_owner().await;
    let key = service.api_key(&owner.credential, &["shield:read"]).await;
    service.api_key(&owner.credential, &["shield:read"]).await;
    join_all((0..100).map(|_| service.revoke_api_key(&owner.credential, &key.id))).await;
    assert_eq!(service.active_api_keys(&org, &owner.credential).await, 1);
    let audited = service.audit_log(&org, &owner.credential, "?action=api_key.revoke").await;
    assert_eq!(audited["entries"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn plan_change_applies_to_the_next_call_and_downgrade_keeps_existing_keys() {
    let service = Service::start_with_manual_clock().await;
    let (org, owner) = service.org_on(Plan::Free).await;
    let mut keys = Vec::new();
    for _ in 0..3 {
        keys.push(service.api_key(&owner.credential, &["shield:read"]).await);
    }
    create(&service, &owner.credential, json!({})).await.assert_error(403, "PLAN_LIMIT_REACHED");
    service.set_plan(&org, Plan::Developer).await;
    for _ in 0..2 {
        keys.push(service.api_key(&owner.credential, &["shield:read"]).await);
    }
    service.set_plan(&org, Plan::Free).await;
    create(&service, &owner.credential, json!({})).await.assert_error(403, "PLAN_LIMIT_REACHED");
    let plan = &service.api_keys(&owner.credential, "").await["plan"];
    assert_eq!(*plan, json!({"name": "free", "max_api_keys": 3, "active_api_keys": 5}));
    for key in &keys {
        assert_eq!(service.whoami(&key.key).await.status, 200);
    }
    // Keys can be created again only below the new limit.
    for (revoked, status) in [(0, 403), (1, 403), (2, 201), (3, 201)] {
        service.revoke_api_key(&owner.credential, &keys[revoked].id).await;
        assert_eq!(create(&service, &owner.credential, json!({})).await.status, status, "{revoked}");
    }
    assert_eq!(service.active_api_keys(&org, &owner.credential).await, 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn downgrade_during_creations_never_exceeds_the_old_plan() {
    let service = Service::start().await;
    let (org, owner) = service.org_on(Plan::Developer).await;
    let downgrade = service.set_plan(&org, Plan::Free);
    let creators = join_all((0..30).map(|_| create(&service, &owner.credential, json!({}))));
    let (answers, ()) = join(creators, downgrade).await;
    let created = answers.iter().filter(|answer| answer.status == 201).count() as u64;
    answers.iter().filter(|answer| answer.status != 201).for_each(assert_refused);
    assert!((3..=10).contains(&created));
    assert_eq!(service.active_api_keys(&org, &owner.credential).await, created);
    assert_refused(&create(&service, &owner.credential, json!({})).await);
}

#[tokio::test]
async fn given_scopes_are_kept_and_invalid_scopes_are_refused() {
    let service = Service::start().await;
    let (_, owner) = service.org_with_owner().await;
    for scopes in SCOPES.iter().map(std::slice::from_ref).chain([&SCOPES[..]]) {
        let created = create(&service, &owner.credential, json!({"scopes": scopes})).await;
        assert_eq!((created.status.as_u16(), &created.json()["scopes"]), (201, &json!(scopes)));
    }
    for (scopes, field) in [
        (json!([]), "scopes"),
        (json!(["shield:read", "shield:read"]), "scopes"),
        (json!(["*"]), "scopes[0]"),
        (json!(["shield:read", "org:*"]), "scopes[1]"),
        (json!(["shield:Read"]), "scopes[0]"),
        (json!([" shield:read"]), "scopes[0]"),
        (json!([""]), "scopes[0]"),
        (json!([null]), "scopes[0]"),
        (json!([["shield:read"]]), "scopes[0]"),
        (json!("shield:read"), "scopes"),
        (json!({"shield:read": true}), "scopes"),
        (json!(null), "scopes"),
    ] {
        let answer = create(&service, &owner.credential, json!({"scopes": scopes})).await;
        answer.assert_error(400, "BAD_REQUEST");
        let details = &answer.json()["error"]["details"];
        assert_eq!(details[0]["field"], field, "{scopes}: {details}");
    }
}

#[tokio::test]
async fn names_are_single_line_and_need_not_be_unique() {
    let service = Service::start().await;
    let (_, owner) = service.org_on(Plan::Enterprise).await;
    for name in ["x", "x", "Träger 🚚 — Nr. 7", "a  b", "<script>", "null", &"ü".repeat(100)] {
        let created = create(&service, &owner.credential, json!({"name": name})).await;
        assert_eq!((created.status.as_u16(), &created.json()["name"]), (201, &json!(name)));
    }
    for name in [json!(""), json!(" x"), json!("x\u{a0}"), json!("a\nb"), json!("\0"), json!("x".repeat(101)), json!(7)]
    {
        create(&service, &owner.credential, json!({"name": name})).await.assert_invalid("name");
    }
    create(&service, &owner.credential, json!({"name": null})).await.assert_invalid("name");
}

#[tokio::test]
async fn invalid_creation_fields_are_named() {
    let service = Service::start_with_manual_clock().await;
    let (org, owner) = service.org_with_owner().await;
    for environment in [json!("prod"), json!("Live"), json!(""), json!(null), json!(1), json!(["live"])] {
        let answer = create(&service, &owner.credential, json!({"environment": environment})).await;
        answer.assert_invalid("environment");
    }
    for expires_at in
        ["2026-11-21T10:00:00Z", "2026-11-21T09:59:59Z", "1999-01-01T00:00:00Z", "2026-11-22", "tomorrow", ""]
    {
        create(&service, &owner.credential, json!({"expires_at": expires_at})).await.assert_invalid("expires_at");
    }
    create(&service, &owner.credential, json!({"expires_at": 1_900_000_000})).await.assert_invalid("expires_at");
    for (field, value) in [("scope", json!("org:write")), ("org_id", json!(org.id)), ("key", json!("tk_live_"))] {
        create(&service, &owner.credential, json!({field: value})).await.assert_invalid(field);
    }
    for field in ["name", "environment", "scopes"] {
        let mut body = body();
        body.as_object_mut().unwrap().remove(field);
        service.post(API_KEYS, &owner.credential, &body).await.assert_invalid(field);
    }
    assert_eq!(service.active_api_keys(&org, &owner.credential).await, 0);
    // The next second is in the future, and null means no expiry.
    for expires_at in [json!("2026-11-21T10:00:01Z"), json!(null)] {
        assert_eq!(create(&service, &owner.credential, json!({"expires_at": expires_at})).await.status, 201);
    }
}

#[tokio::test]
async fn key_cannot_create_a_key_with_more_privileges() {
    let service = Service::start_with_manual_clock().await;
    let (org, owner) = service.org_on(Plan::Enterprise).await;
    let key = async |environment: &str, expires_at: Value| {
        let fields =
            json!({"environment": environment, "scopes": ["org:write", "shield:read"], "expires_at": expires_at});
        service.api_key_with(&owner.credential, &body_with(fields)).await.key
    };
    let live = key("live", json!(null)).await;
    let test = key("test", json!(null)).await;
    let mortal = key("live", json!("2026-12-01T00:00:00Z")).await;
    for (creator, environment, scopes, expires_at, status) in [
        (&live, "live", json!(["shield:read"]), json!(null), 201),
        (&live, "test", json!(["org:write", "shield:read"]), json!("2030-01-01T00:00:00Z"), 201),
        (&live, "live", json!(["org:read"]), json!(null), 403),
        (&live, "live", json!(["shield:read", "shield:write"]), json!(null), 403),
        (&live, "live", json!(SCOPES), json!(null), 403),
        (&test, "test", json!(["shield:read"]), json!(null), 201),
        (&test, "live", json!(["shield:read"]), json!(null), 403),
        (&mortal, "live", json!(["shield:read"]), json!("2026-12-01T00:00:00Z"), 201),
        (&mortal, "live", json!(["shield:read"]), json!("2026-11-30T00:00:00Z"), 201),
        (&mortal, "live", json!(["shield:read"]), json!("2026-12-01T00:00:01Z"), 403),
        (&mortal, "live", json!(["shield:read"]), json!(null), 403),
    ] {
        let fields = json!({"environment": environment, "scopes": scopes, "expires_at": expires_at});
        let answer = create(&service, creator, fields.clone()).await;
        assert_eq!(answer.status, status, "{fields}: {}", answer.text);
        if status == 403 {
            answer.assert_error(403, "FORBIDDEN");
        }
    }
    // 3 created by the owner bot, 5 by keys.
    assert_eq!(service.active_api_keys(&org, &owner.credential).await, 8);
}

#[tokio::test]
async fn each_scope_grants_only_its_own_operations() {
    let service = Service::start().await;
    let (_, owner) = service.org_on(Plan::Enterprise).await;
    let victim = service.api_key(&owner.credential, &["shield:read"]).await;
    for scope in SCOPES {
        let key = service.api_key(&owner.credential, &[scope]).await;
        let list = service.call(Method::GET, API_KEYS, &key.key).await;
        assert_eq!(list.status == 200, scope == "org:read", "{scope} lists: {}", list.text);
        let created = create(&service, &key.key, json!({"scopes": [scope]})).await;
        assert_eq!(created.status == 201, scope == "org:write", "{scope} creates: {}", created.text);
        let revoked = service.call(Method::DELETE, &format!("{API_KEYS}/{}", victim.id), &key.key).await;
        assert_eq!(revoked.status == 204, scope == "org:write", "{scope} revokes: {}", revoked.text);
        for answer in [list, created, revoked].iter().filter(|answer| !answer.status.is_success()) {
            answer.assert_error(403, "FORBIDDEN");
        }
    }
    // `created_by` and `revoked_by` name the acting key.
    let key = service.api_key(&owner.credential, &["org:write"]).await;
    let created = create(&service, &key.key, json!({"scopes": ["org:write"]})).await.json();
    assert_eq!(created["created_by"], key.id.as_str());
    service.revoke_api_key(&key.key, text(&created, "id")).await;
    let revoked = &service.api_keys(&owner.credential, "?status=revoked&limit=1").await["api_keys"][0];
    assert_eq!((&revoked["id"], &revoked["revoked_by"]), (&created["id"], &json!(key.id)));
}

#[tokio::test]
async fn only_owner_and_key_manager_bots_manage_keys() {
    let service = Service::start().await;
    let (org, _) = service.org_on(Plan::Enterprise).await;
    for &role in Role::ALL {
        let bot = service.bot(&org, &[role]).await;
        let created = create(&service, &bot.credential, json!({})).await;
        let listed = service.call(Method::GET, API_KEYS, &bot.credential).await;
        let id = match created.status.as_u16() {
            201 => text(&created.json(), "id").to_owned(),
            _ => "01KAJ8M4R2X7Z9V5T3Q1N6P8WC".to_owned(),
        };
        let revoked = service.call(Method::DELETE, &format!("{API_KEYS}/{id}"), &bot.credential).await;
        let may = matches!(role, Role::Owner | Role::ApiKeyManager);
        let expected = if may { [201, 200, 204] } else { [403; 3] };
        assert_eq!([created.status, listed.status, revoked.status].map(|status| status.as_u16()), expected, "{role:?}");
    }
    let powerless = service.bot(&org, &[]).await;
    create(&service, &powerless.credential, json!({})).await.assert_error(403, "FORBIDDEN");
}

#[tokio::test]
async fn keys_of_other_organizations_return_404() {
    let service = Service::start().await;
    let (org, owner) = service.org_with_owner().await;
    let (_, stranger) = service.org_with_owner().await;
    let key = service.api_key(&owner.credential, &["shield:read"]).await;
    let foreign_key = service.api_key(&stranger.credential, &["org:read", "org:write"]).await;
    for credential in [&stranger.credential, &foreign_key.key] {
        let answer = service.call(Method::DELETE, &format!("{API_KEYS}/{}", key.id), credential).await;
        answer.assert_error(404, "TOKEN_NOT_FOUND");
        assert_eq!(service.all_api_keys(credential, 100, "&status=all").await, std::slice::from_ref(&foreign_key.id));
    }
    for id in ["01KAJ8M4R2X7Z9V5T3Q1N6P8WC", "x", "1", "%2e%2fx", "%00", "%ff", &key.id.to_lowercase(), &key.key] {
        let answer = service.call(Method::DELETE, &format!("{API_KEYS}/{id}"), &owner.credential).await;
        answer.assert_error(404, "TOKEN_NOT_FOUND");
    }
    assert_eq!(service.whoami(&key.key).await.status, 200);
    assert_eq!(service.active_api_keys(&org, &owner.credential).await, 1);
}

#[tokio::test]
async fn key_can_revoke_itself() {
    let service = Service::start().await;
    let (org, owner) = service.org_with_owner().await;
    let key = service.api_key(&owner.credential, &["org:write"]).await;
    service.revoke_api_key(&key.key, &key.id).await;
    let again = service.call(Method::DELETE, &format!("{API_KEYS}/{}", key.id), &key.key).await;
    again.assert_error(401, "UNAUTHORIZED");
    assert_eq!(service.active_api_keys(&org, &owner.credential).await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn revoked_key_cannot_create_keys_after_its_revocation() {
    let service = Service::start().await;
    let (org, owner) = service.org_on(Plan::Enterprise).await;
    let key = service.api_key(&owner.credential, &["org:write"]).await;
    let creators =
        join_all((0..40).map(|_| async { create(&service, &key.key, json!({"scopes": ["org:write"]})).await }));
    let revocation = async {
        service.revoke_api_key(&owner.credential, &key.id).await;
        service.all_api_keys(&owner.credential, 100, "").await
    };
    let (answers, mut at_revocation) = join(creators, revocation).await;
    for answer in answers.iter().filter(|answer| answer.status != 201) {
        answer.assert_error(401, "UNAUTHORIZED");
    }
    // The list taken right after the revocation holds everything the key ever created.
    let mut created: Vec<String> =
        answers.iter().filter(|a| a.status == 201).map(|a| text(&a.json(), "id").to_owned()).collect();
    created.sort_unstable();
    at_revocation.sort_unstable();
    assert_eq!(created, at_revocation);
    assert_eq!(service.active_api_keys(&org, &owner.credential).await, created.len() as u64);
}

/// Why a key may not be created, besides the revocation of the key that asks for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Obstacle {
    PlanFull,
    Suspended,
}

#[tokio::test]
async fn revoked_key_is_told_nothing_about_plan_and_organization() {
    // The calls of DynamoDB that pass before the key is revoked: its authentication, or all reads.
    for (obstacle, passing) in [(Obstacle::PlanFull, 1), (Obstacle::PlanFull, 4), (Obstacle::Suspended, 1)] {
        let (service, faults) = Service::start_with_faults().await;
        let (org, owner) = service.org_on(Plan::Free).await;
        let key = service.api_key(&owner.credential, &["org:write", "org:read"]).await;
        // Records its use of this minute, which would be a call of its own.
        service.api_keys(&key.key, "").await;
        faults.arm(passing, &[Fault::Held], None);
        let creation = create(&service, &key.key, json!({"scopes": ["org:read"]}));
        let revocation = async {
            faults.reached(passing + 1).await;
            service.revoke_api_key(&owner.credential, &key.id).await;
            match obstacle {
                Obstacle::PlanFull => {
                    for _ in 0..3 {
                        service.api_key(&owner.credential, &["org:read"]).await;
                    }
                }
                Obstacle::Suspended => {
                    service.store.set_suspended(&org.id, true, &operator()).await.unwrap();
                }
            }
            faults.release();
        };
        let (answer, ()) = join(creation, revocation).await;
        faults.disarm();
        answer.assert_error(401, "UNAUTHORIZED");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_expiring_together_are_each_uncounted_once() {
    let service = Service::start_with_manual_clock().await;
    let (org, owner) = service.org_on(Plan::Enterprise).await;
    let mut expiring = Vec::new();
    for _ in 0..35 {
        let fields = json!({"expires_at": "2026-11-21T10:00:05Z"});
        expiring.push(service.api_key_with(&owner.credential, &body_with(fields)).await.id);
    }
    service.api_key(&owner.credential, &["shield:read"]).await;
    service.clock.advance(Duration::from_secs(5));
    // Lists and revocations compete to move the expired keys.
    let lists = join_all((0..6).map(|_| service.api_keys(&owner.credential, "")));
    let revocations = join_all(expiring.iter().step_by(7).map(|id| service.revoke_api_key(&owner.credential, id)));
    let (lists, _) = join(lists, revocations).await;
    for list in lists {
        assert_eq!((ids(&list["api_keys"]).len(), &list["plan"]["active_api_keys"]), (1, &json!(1)));
    }
    assert_eq!(service.active_api_keys(&org, &owner.credential).await, 1);
    assert_eq!(service.all_api_keys(&owner.credential, 100, "&status=revoked").await.len(), 5);
    assert_eq!(service.all_api_keys(&owner.credential, 100, "&status=expired").await.len(), 30);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_are_newest_first_and_complete() {
    let service = Service::start_with_manual_clock().await;
    let (_, owner) = service.org_on(Plan::Enterprise).await;
    // Keys of every state and environment, interleaved: every third expires, every fifth is
    // revoked.
    let mut keys = Vec::new();
    for n in 0..30 {
        service.clock.advance(Duration::from_millis(10));
        let environment = if n % 2 == 0 { "live" } else { "test" };
        let expires_at = if n % 3 == 0 { json!("2026-11-21T10:01:00Z") } else { json!(null) };
        let fields = json!({"name": format!("key {n}"), "environment": environment, "expires_at": expires_at});
        let id = service.api_key_with(&owner.credential, &body_with(fields)).await.id;
        if n % 5 == 0 {
            service.revoke_api_key(&owner.credential, &id).await;
        }
        keys.push((n, id));
    }
    service.clock.advance(Duration::from_secs(60));
    keys.reverse();
    let state = |n: i32| match (n % 5, n % 3) {
        (0, _) => "revoked",
        (_, 0) => "expired",
        _ => "active",
    };
    for status in ["active", "expired", "revoked", "all"] {
        for (environment, parity) in [("", None), ("&environment=live", Some(0)), ("&environment=test", Some(1))] {
            let expected: Vec<&String> = keys
                .iter()
                .filter(|(n, _)| (status == "all" || state(*n) == status) && parity.is_none_or(|p| n % 2 == p))
                .map(|(_, id)| id)
                .collect();
            for limit in [1, 7, 100].into_iter().filter(|limit| *limit > 1 || parity.is_none()) {
                let query = format!("&status={status}{environment}");
                let found = service.all_api_keys(&owner.credential, limit, &query).await;
                assert_eq!(found.iter().collect::<Vec<_>>(), expected, "limit {limit}, {query}");
            }
        }
    }
    // `limit` is optional, and a full last page has no cursor.
    for query in ["?status=all", "?status=all&limit=30"] {
        let page = service.api_keys(&owner.credential, query).await;
        assert_eq!((ids(&page["api_keys"]).len(), page["next_cursor"].is_null()), (30, true), "{query}");
    }
}

#[tokio::test]
async fn cursor_is_rejected_for_any_other_query() {
    let service = Service::start().await;
    let (_, owner) = service.org_with_owner().await;
    let (_, stranger) = service.org_with_owner().await;
    for credential in [&owner.credential, &stranger.credential] {
        for _ in 0..3 {
            service.api_key(credential, &["shield:read"]).await;
        }
    }
    let list = List::new(&service, API_KEYS, &owner.credential, "api_keys");
    let foreign = List::new(&service, API_KEYS, &stranger.credential, "api_keys");
    let others = ["&status=all", "&status=revoked", "&environment=live", "&environment=test"];
    list.assert_cursor_is_bound(&foreign, "", &["", "&limit=2", "&status=active"], &others).await;
}

#[tokio::test]
async fn invalid_query_parameters_are_named() {
    let service = Service::start().await;
    let (_, owner) = service.org_with_owner().await;
    for (query, field) in [
        ("?state=all", "state"),
        ("?status=", "status"),
        ("?status=Active", "status"),
        ("?status=active&status=all", "status"),
        ("?environment=prod", "environment"),
        ("?environment=", "environment"),
        ("?limit=0", "limit"),
        ("?limit=101", "limit"),
        ("?limit=-1", "limit"),
        ("?limit=ten", "limit"),
    ] {
        service.call(Method::GET, &format!("{API_KEYS}{query}"), &owner.credential).await.assert_invalid(field);
    }
    let path = format!("{API_KEYS}?dry_run=true");
    service.post(&path, &owner.credential, &body()).await.assert_invalid("dry_run");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn key_rotation_by_a_client_causes_no_failures() {
    let service = Service::start().await;
    let (_, owner) = service.org_with_owner().await;
    // The documented rotation: create a key with the same scopes, deploy and verify it, then revoke
    // the old one.
    let old = service.api_key(&owner.credential, &["shield:write"]).await;
    let deployed = tokio::sync::RwLock::new(old.key.clone());
    let is_over = std::sync::atomic::AtomicBool::new(false);
    let tool = async || {
        let mut calls = 0;
        while calls < 20 || !is_over.load(std::sync::atomic::Ordering::SeqCst) {
            // Holds the lock during the call, so that its key is not revoked meanwhile.
            let key = deployed.read().await;
            let answer = service.whoami(&key).await;
            assert_eq!(answer.status, 200, "{}", answer.text);
            calls += 1;
        }
        calls
    };
    let rotation = async {
        let new = service.api_key(&owner.credential, &["shield:write"]).await;
        let verified = service.whoami(&new.key).await;
        assert_eq!(verified.json()["id"], new.id.as_str());
        *deployed.write().await = new.key.clone();
        service.revoke_api_key(&owner.credential, &old.id).await;
        service.whoami(&old.key).await.assert_error(401, "UNAUTHORIZED");
        assert_eq!(service.whoami(&new.key).await.status, 200);
        is_over.store(true, std::sync::atomic::Ordering::SeqCst);
    };
    let (calls, ()) = futures::future::join(join_all((0..8).map(|_| tool())), rotation).await;
    assert!(calls.iter().all(|calls| *calls >= 20));
}
