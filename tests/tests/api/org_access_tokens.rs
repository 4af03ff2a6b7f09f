//! `/api/v2/organization/tokens/`

use std::time::Duration;

use aws_sdk_dynamodb::types::AttributeValue;
use futures::future::{join, join_all};
use reqwest::Method;
use serde_json::{Value, json};
use shared::permissions::Role;
use shared::secret::{Token, TokenKind};
use tests::management::{ACCESS_TOKENS, AccessToken};
use tests::table::{TABLE, text};
use tests::{Answer, Bot, Org, Service, operator};

/// Project names of the documented examples.
const PROJECTS: [&str; 2] = ["prd-greenhouse", "prd-coldroom"];

/// A service, an organization with the example projects, and its owner bot.
async fn set_up() -> (Service, Org, Bot) {
    let service = Service::start_with_manual_clock().await;
    let (org, owner) = service.org_with_owner().await;
    service.projects(&org, &PROJECTS).await;
    (service, org, owner)
}

async fn create(service: &Service, owner: &Bot, body: Value) -> Answer {
    service.post(ACCESS_TOKENS, &owner.credential, &body).await
}

async fn patch(service: &Service, owner: &Bot, token: &AccessToken, body: Value) -> Answer {
    service.send_json(Method::PATCH, &token.path(), &owner.credential, &body).await
}

async fn put(service: &Service, owner: &Bot, token: &AccessToken, body: Value) -> Answer {
    service.send_json(Method::PUT, &token.path(), &owner.credential, &body).await
}

async fn delete(service: &Service, owner: &Bot, token: &AccessToken) -> Answer {
    service.call(Method::DELETE, &token.path(), &owner.credential).await
}

/// A token's list entry.
async fn listed(service: &Service, owner: &Bot, token: &AccessToken) -> Value {
    service.access_tokens(owner).await.into_iter().find(|entry| entry["id"] == token.id).unwrap()
}

/// Number of access token updates in the audit log.
async fn changes(service: &Service, org: &Org) -> usize {
    let entries = service.table.audit_entries(&org.id).await;
    entries.iter().filter(|entry| text(entry, "action") == "org_access_token.update").count()
}

/// Asserts that an object has exactly the documented fields with the documented types.
#[track_caller]
fn assert_documented_fields(entry: &Value) {
    let of_type = |value: &Value| match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_u64() => "integer",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "list",
        Value::Object(_) => "object",
    };
    let types = |object: &Value| -> Vec<(String, &'static str)> {
        object.as_object().unwrap().iter().map(|(name, value)| (name.clone(), of_type(value))).collect()
    };
    let found = types(entry);
    let expected = [
        ("access_config", "object"),
        ("created_at", "string"),
        ("expires_at", "string"),
        ("id", "integer"),
        ("is_active", "boolean"),
        ("last_used_at", "string"),
        ("name", "string"),
        ("token", "string"),
    ];
    assert_eq!(found.len(), expected.len(), "{entry}");
    for ((name, kind), (expected, expected_kind)) in found.iter().zip(expected) {
        let may_be_null = matches!(expected, "expires_at" | "last_used_at") && *kind == "null";
        assert!(name == expected && (*kind == expected_kind || may_be_null), "{name}: {kind}, in {entry}");
    }
    let access = types(&entry["access_config"]);
    let access: Vec<(&str, &str)> = access.iter().map(|(name, kind)| (name.as_str(), *kind)).collect();
    assert_eq!(access, [("all_projects", "boolean"), ("projects", "list"), ("role", "string")]);
}

#[tokio::test]
async fn documented_calls_get_the_documented_responses() {
    let (service, _, owner) = set_up().await;
    // Listed below.
    let first = json!({
        "name": "Factor export pipeline",
        "expires_at": "2026-12-31T23:59:59Z",
        "access_config": {"role": "manager", "all_projects": false, "projects": PROJECTS},
    });
    let first = service.access_token(&owner, &first).await;
    service.clock.advance(Duration::from_secs(3_600));
    assert_eq!(service.whoami(&first.token).await.status, 200);

    // "Create Token"
    let body = json!({
        "name": "Webhook relay",
        "expires_at": "2026-12-31T23:59:59Z",
        "access_config": {"role": "operator", "projects": ["prd-greenhouse"]},
    });
    let created = create(&service, &owner, body).await;
    assert_eq!((created.status.as_u16(), created.header("cache-control")), (201, "no-store"));
    let created = created.json();
    assert_documented_fields(&created);
    let plain = text(&created, "token").to_owned();
    assert_eq!(Token::parse(&plain).unwrap().kind(), TokenKind::OrgAccess);
    insta::assert_json_snapshot!("created", created, {".token" => "[token]"});

    // "List Tokens": a bare array.
    let list = service.call(Method::GET, ACCESS_TOKENS, &owner.credential).await;
    assert_eq!((list.status.as_u16(), list.header("content-type")), (200, "application/json"));
    let entries = list.json();
    for (entry, plain) in entries.as_array().unwrap().iter().zip([&plain, &first.token]) {
        assert_documented_fields(entry);
        let masked = plain.strip_prefix("oat_").unwrap();
        assert_eq!(entry["token"], format!("{}...", &masked[..8]));
    }
    assert!(!list.text.contains(&plain[12..]) && !list.text.contains(&first.token[12..]));
    insta::assert_json_snapshot!("listed", entries, {"[].token" => "[token]"});

    // "Update Token"
    let token = AccessToken { id: created["id"].as_u64().unwrap(), token: plain };
    let body = json!({
        "name": "Webhook relay (deprecated)",
        "is_active": false,
        "access_config": {"role": "readonly", "projects": []},
    });
    let updated = patch(&service, &owner, &token, body).await;
    assert_eq!(updated.status, 200, "{}", updated.text);
    assert_documented_fields(&updated.json());
    insta::assert_json_snapshot!("updated", updated.json(), {".token" => "[token]"});
    assert_eq!(updated.json(), listed(&service, &owner, &token).await);

    // "Delete Token"
    let deleted = delete(&service, &owner, &token).await;
    assert_eq!((deleted.status.as_u16(), deleted.text.as_str()), (204, ""));
    service.whoami(&token.token).await.assert_error(401, "UNAUTHORIZED");
    for gone in [
        delete(&service, &owner, &token).await,
        patch(&service, &owner, &token, json!({"is_active": true})).await,
        put(&service, &owner, &token, json!({"name": "back"})).await,
    ] {
        gone.assert_error(404, "TOKEN_NOT_FOUND");
    }
    assert_eq!(service.access_tokens(&owner).await.len(), 1);
}

#[tokio::test]
async fn trailing_slash_is_optional() {
    let (service, _, owner) = set_up().await;
    let list = ACCESS_TOKENS.trim_end_matches('/');
    let created = service.post(list, &owner.credential, &json!({"name": "a"})).await;
    assert_eq!(created.status, 201);
    let one = format!("{list}/1");
    let answer = service.send_json(Method::PATCH, &one, &owner.credential, &json!({"name": "b"})).await;
    assert_eq!((answer.status.as_u16(), text(&answer.json(), "name")), (200, "b"));
    let answer = service.send_json(Method::PUT, &one, &owner.credential, &json!({"name": "c"})).await;
    assert_eq!((answer.status.as_u16(), text(&answer.json(), "name")), (200, "c"));
    let (with, without) = (
        service.call(Method::GET, ACCESS_TOKENS, &owner.credential).await,
        service.call(Method::GET, list, &owner.credential).await,
    );
    assert_eq!((with.status, &with.text), (without.status, &without.text));
    assert_eq!(service.call(Method::DELETE, &one, &owner.credential).await.status, 204);
    for path in [format!("{one}//"), format!("{list}//"), format!("{one}/x")] {
        assert_eq!(service.call(Method::DELETE, &path, &owner.credential).await.status, 404, "{path}");
    }
}

#[tokio::test]
async fn ids_count_up_from_1_per_organization() {
    let (service, _, owner) = set_up().await;
    let (_, other) = service.org_with_owner().await;
    for n in 1..=3 {
        let token = service.access_token(&owner, &json!({"name": format!("token {n}")})).await;
        assert_eq!(token.id, n);
    }
    assert_eq!(service.access_token(&other, &json!({"name": "token 1"})).await.id, 1);
    // IDs are never reused.
    let third = AccessToken { id: 3, token: String::new() };
    assert_eq!(delete(&service, &owner, &third).await.status, 204);
    let next = service.access_token(&owner, &json!({"name": "token 3"})).await;
    assert_eq!(next.id, 4);
    let order: Vec<u64> =
        service.access_tokens(&owner).await.iter().map(|entry| entry["id"].as_u64().unwrap()).collect();
    assert_eq!(order, [4, 2, 1]);
}

#[tokio::test]
async fn invalid_ids_are_404() {
    let (service, _, owner) = set_up().await;
    let token = service.access_token(&owner, &json!({"name": "a"})).await;
    let before = service.table.items().await;
    for id in [
        "0",
        "01",
        "-1",
        "+1",
        "1.0",
        "1e0",
        "0x1",
        "x",
        "2",
        "99999999999999999999",
        "18446744073709551615",
        "18446744073709551616",
        "%20",
        "1%20",
        "%31%20",
        "%D9%A1",
        "%00",
        "%ff",
        "01KAJ8M4R2X7Z9V5T3Q1N6P8WC",
        "null",
        "*",
    ] {
        for slash in ["/", ""] {
            let path = format!("{ACCESS_TOKENS}{id}{slash}");
            let delete = service.call(Method::DELETE, &path, &owner.credential).await;
            delete.assert_error(404, "TOKEN_NOT_FOUND");
            for (method, body) in [(Method::PATCH, json!({})), (Method::PUT, json!({"name": "b"}))] {
                let answer = service.send_json(method, &path, &owner.credential, &body).await;
                answer.assert_error(404, "TOKEN_NOT_FOUND");
            }
        }
    }
    assert_eq!(service.table.items().await, before);
    assert_eq!(service.whoami(&token.token).await.status, 200);
}

#[tokio::test]
async fn omitted_fields_get_the_documented_defaults() {
    let (service, _, owner) = set_up().await;
    let token = service.access_token(&owner, &json!({"name": "plain"})).await;
    let expected = json!({
        "id": 1, "name": "plain", "token": format!("{}...", &token.token[4..12]), "is_active": true,
        "expires_at": null, "created_at": "2026-11-21T10:00:00Z", "last_used_at": null,
        "access_config": {"role": "readonly", "all_projects": false, "projects": []},
    });
    assert_eq!(listed(&service, &owner, &token).await, expected);
    for (n, access) in [json!({}), json!({"role": "readonly"}), json!({"all_projects": false}), json!({"projects": []})]
        .into_iter()
        .enumerate()
    {
        let token = service.access_token(&owner, &json!({"name": format!("{n}"), "access_config": access})).await;
        assert_eq!(listed(&service, &owner, &token).await["access_config"], expected["access_config"], "{access}");
    }
    let off = service.access_token(&owner, &json!({"name": "off", "is_active": false, "expires_at": null})).await;
    service.whoami(&off.token).await.assert_error(401, "UNAUTHORIZED");
}

fn full() -> Value {
    json!({
        "name": "full",
        "is_active": true,
        "expires_at": "2026-12-31T23:59:59Z",
        "access_config": {"role": "manager", "all_projects": true, "projects": PROJECTS},
    })
}

#[tokio::test]
async fn put_resets_omitted_fields_to_defaults() {
    let (service, _, owner) = set_up().await;
    let token = service.access_token(&owner, &full()).await;
    assert_eq!(service.whoami(&token.token).await.status, 200);
    let before = listed(&service, &owner, &token).await;
    let answer = put(&service, &owner, &token, json!({"name": "bare"})).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    let mut expected = before.clone();
    expected["name"] = json!("bare");
    expected["expires_at"] = json!(null);
    expected["access_config"] = json!({"role": "readonly", "all_projects": false, "projects": []});
    assert_eq!(answer.json(), expected);
    // A partial `access_config` is not merged with the stored one.
    put(&service, &owner, &token, full()).await;
    let body = json!({"name": "full", "access_config": {"projects": ["prd-coldroom"]}});
    let answer = put(&service, &owner, &token, body).await.json();
    let access = json!({"role": "readonly", "all_projects": false, "projects": ["prd-coldroom"]});
    assert_eq!((&answer["access_config"], &answer["expires_at"]), (&access, &json!(null)));
    // An omitted `is_active` resets to true.
    patch(&service, &owner, &token, json!({"is_active": false})).await;
    assert_eq!(put(&service, &owner, &token, json!({"name": "on"})).await.json()["is_active"], true);
    assert_eq!(service.whoami(&token.token).await.status, 200);
    put(&service, &owner, &token, json!({})).await.assert_invalid("name");
}

#[tokio::test]
async fn patch_changes_only_the_given_fields() {
    let (service, org, owner) = set_up().await;
    let token = service.access_token(&owner, &full()).await;
    let mut expected = listed(&service, &owner, &token).await;
    for (n, (body, pointer)) in [
        (json!({"name": "renamed"}), "/name"),
        (json!({"is_active": false}), "/is_active"),
        (json!({"is_active": true}), "/is_active"),
        (json!({"expires_at": "2027-01-01T09:00:00+09:00"}), "/expires_at"),
        (json!({"expires_at": null}), "/expires_at"),
        (json!({"access_config": {"role": "operator"}}), "/access_config/role"),
        (json!({"access_config": {"all_projects": false}}), "/access_config/all_projects"),
        (json!({"access_config": {"projects": ["prd-coldroom"]}}), "/access_config/projects"),
        (json!({"access_config": {"projects": []}}), "/access_config/projects"),
    ]
    .into_iter()
    .enumerate()
    {
        let answer = patch(&service, &owner, &token, body.clone()).await;
        assert_eq!(answer.status, 200, "{body}: {}", answer.text);
        let asked = body.pointer(pointer).unwrap().clone();
        let is_time = asked == "2027-01-01T09:00:00+09:00";
        *expected.pointer_mut(pointer).unwrap() = if is_time { json!("2027-01-01T00:00:00Z") } else { asked };
        assert_eq!(answer.json(), expected, "{body}");
        assert_eq!(listed(&service, &owner, &token).await, expected, "{body}");
        assert_eq!(changes(&service, &org).await, n + 1);
    }
}

#[tokio::test]
async fn patch_without_changes_writes_nothing() {
    let (service, _, owner) = set_up().await;
    let token = service.access_token(&owner, &full()).await;
    let entry = listed(&service, &owner, &token).await;
    let before = service.table.items().await;
    for body in [
        json!({}),
        json!({"access_config": {}}),
        json!({"name": "full"}),
        json!({"is_active": true}),
        json!({"expires_at": "2027-01-01T08:59:59+09:00"}),
        full(),
    ] {
        let answer = patch(&service, &owner, &token, body.clone()).await;
        assert_eq!((answer.status.as_u16(), answer.json()), (200, entry.clone()), "{body}");
    }
    assert_eq!(put(&service, &owner, &token, full()).await.json(), entry);
    assert_eq!(service.table.items().await, before);
}

#[tokio::test]
async fn invalid_fields_are_named() {
    let (service, _, owner) = set_up().await;
    let token = service.access_token(&owner, &full()).await;
    let (_, stranger) = service.org_with_owner().await;
    let before = service.table.items().await;
    let long = "x".repeat(101);
    let many: Vec<String> = (0..51).map(|n| format!("project-{n}")).collect();
    for (fields, field) in [
        (json!({"name": null}), "name"),
        (json!({"name": ""}), "name"),
        (json!({"name": " x"}), "name"),
        (json!({"name": "a\tb"}), "name"),
        (json!({"name": long}), "name"),
        (json!({"name": 1}), "name"),
        (json!({"is_active": null}), "is_active"),
        (json!({"is_active": "false"}), "is_active"),
        (json!({"is_active": 0}), "is_active"),
        (json!({"expires_at": "2026-11-21T10:00:00Z"}), "expires_at"),
        (json!({"expires_at": "2024-12-31T23:59:59Z"}), "expires_at"),
        (json!({"expires_at": "2026-12-31"}), "expires_at"),
        (json!({"expires_at": "2026-12-31T23:59:59"}), "expires_at"),
        (json!({"expires_at": ""}), "expires_at"),
        (json!({"expires_at": 1_900_000_000}), "expires_at"),
        (json!({"access_config": null}), "access_config"),
        (json!({"access_config": "manager"}), "access_config"),
        (json!({"access_config": []}), "access_config"),
        (json!({"access_config": ["manager", true, []]}), "access_config"),
        (json!({"access_config": {"role": null}}), "access_config.role"),
        (json!({"access_config": {"role": "admin"}}), "access_config.role"),
        (json!({"access_config": {"role": "Manager"}}), "access_config.role"),
        (json!({"access_config": {"role": ""}}), "access_config.role"),
        (json!({"access_config": {"all_projects": null}}), "access_config.all_projects"),
        (json!({"access_config": {"all_projects": 1}}), "access_config.all_projects"),
        (json!({"access_config": {"projects": null}}), "access_config.projects"),
        (json!({"access_config": {"projects": "prd-greenhouse"}}), "access_config.projects"),
        (json!({"access_config": {"projects": ["prd-greenhouse", "prd-greenhouse"]}}), "access_config.projects"),
        (json!({"access_config": {"projects": ["prd-desert"]}}), "access_config.projects"),
        (json!({"access_config": {"projects": ["prd-greenhouse", "PRD-GREENHOUSE"]}}), "access_config.projects"),
        (json!({"access_config": {"projects": many}}), "access_config.projects"),
        (json!({"access_config": {"projects": [""]}}), "access_config.projects[0]"),
        (json!({"access_config": {"projects": ["prd-greenhouse", "*"]}}), "access_config.projects[1]"),
        (json!({"access_config": {"projects": [7]}}), "access_config.projects[0]"),
        (json!({"access_config": {"scopes": []}}), "access_config.scopes"),
        (json!({"token": "oat_x"}), "token"),
        (json!({"id": 7}), "id"),
        (json!({"isActive": false}), "isActive"),
    ] {
        patch(&service, &owner, &token, fields.clone()).await.assert_invalid(field);
        let mut body = json!({"name": "new"});
        body.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        put(&service, &owner, &token, body.clone()).await.assert_invalid(field);
        create(&service, &owner, body).await.assert_invalid(field);
    }
    // Projects must exist in the caller's own organization.
    create(&service, &stranger, json!({"name": "a", "access_config": {"projects": ["prd-greenhouse"]}}))
        .await
        .assert_invalid("access_config.projects");
    for body in [json!([]), json!("x"), json!(null), json!(7)] {
        patch(&service, &owner, &token, body.clone()).await.assert_error(400, "BAD_REQUEST");
        put(&service, &owner, &token, body.clone()).await.assert_error(400, "BAD_REQUEST");
        create(&service, &owner, body).await.assert_error(400, "BAD_REQUEST");
    }
    // Nothing changed except the ID counter.
    let mut after = service.table.items().await;
    let mut before = before;
    for items in [&mut before, &mut after] {
        items.retain(|item| text(item, "sk") != "ACCESS_TOKEN_LAST_ID");
    }
    assert_eq!(before, after);
    assert_eq!(service.access_tokens(&owner).await.len(), 1);
}

#[tokio::test]
async fn fifty_projects_are_allowed() {
    let (service, org, owner) = set_up().await;
    let names: Vec<String> = (0..50).map(|n| format!("project-{n}")).collect();
    service.projects(&org, &names.iter().map(String::as_str).collect::<Vec<_>>()).await;
    let token = service.access_token(&owner, &json!({"name": "wide", "access_config": {"projects": names}})).await;
    assert_eq!(service.whoami(&token.token).await.json()["projects"], json!(names));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_creations_with_one_name_succeed_once() {
    let (service, _, owner) = set_up().await;
    let answers = join_all((0..20).map(|_| create(&service, &owner, json!({"name": "the one"})))).await;
    let (won, lost): (Vec<&Answer>, Vec<&Answer>) = answers.iter().partition(|answer| answer.status == 201);
    assert_eq!(won.len(), 1);
    for answer in lost {
        answer.assert_invalid("name");
    }
    assert_eq!(service.access_tokens(&owner).await.len(), 1);
    // Names are compared exactly.
    for name in ["The one", "the  one", "the one."] {
        assert_eq!(create(&service, &owner, json!({"name": name})).await.status, 201);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_renames_to_one_name_succeed_once() {
    let (service, _, owner) = set_up().await;
    let mut tokens = Vec::new();
    for n in 0..10 {
        tokens.push(service.access_token(&owner, &json!({"name": format!("token {n}")})).await);
    }
    let renames = tokens.iter().map(|token| patch(&service, &owner, token, json!({"name": "the one"})));
    let creation = create(&service, &owner, json!({"name": "the one"}));
    let (mut answers, created) = join(join_all(renames), creation).await;
    answers.push(created);
    let won = answers.iter().filter(|answer| answer.status.is_success()).count();
    assert_eq!(won, 1);
    for answer in answers.iter().filter(|answer| !answer.status.is_success()) {
        answer.assert_invalid("name");
    }
    let names: Vec<Value> = service.access_tokens(&owner).await.iter().map(|entry| entry["name"].clone()).collect();
    assert_eq!(names.iter().filter(|name| **name == "the one").count(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_name_swaps_are_refused() {
    let (service, _, owner) = set_up().await;
    let token = async |name: &str| service.access_token(&owner, &json!({"name": name})).await;
    let (a, b) = (token("a").await, token("b").await);
    let (first, second) =
        join(patch(&service, &owner, &a, json!({"name": "b"})), patch(&service, &owner, &b, json!({"name": "a"})))
            .await;
    // Each requested name is still held by the other token.
    first.assert_invalid("name");
    second.assert_invalid("name");
    assert_eq!(listed(&service, &owner, &a).await["name"], "a");
    assert_eq!(listed(&service, &owner, &b).await["name"], "b");
}

#[tokio::test]
async fn name_is_reserved_until_renamed_or_deleted() {
    let (service, _, owner) = set_up().await;
    let token = async |name: &str| service.access_token(&owner, &json!({"name": name})).await;
    let (a, b) = (token("a").await, token("b").await);
    create(&service, &owner, json!({"name": "a"})).await.assert_invalid("name");
    patch(&service, &owner, &b, json!({"name": "a"})).await.assert_invalid("name");
    put(&service, &owner, &b, json!({"name": "a"})).await.assert_invalid("name");
    // A disabled or expired token keeps its name.
    patch(&service, &owner, &a, json!({"is_active": false, "expires_at": "2026-11-21T10:00:01Z"})).await;
    service.clock.advance(Duration::from_secs(1));
    create(&service, &owner, json!({"name": "a"})).await.assert_invalid("name");
    // Renamed.
    assert_eq!(patch(&service, &owner, &a, json!({"name": "c"})).await.status, 200);
    let new_a = token("a").await;
    create(&service, &owner, json!({"name": "c"})).await.assert_invalid("name");
    // Deleted.
    assert_eq!(delete(&service, &owner, &new_a).await.status, 204);
    assert_eq!(patch(&service, &owner, &b, json!({"name": "a"})).await.status, 200);
    token("b").await;
    // Names are unique per organization.
    let (_, stranger) = service.org_with_owner().await;
    assert_eq!(create(&service, &stranger, json!({"name": "a"})).await.status, 201);
}

#[tokio::test]
async fn names_that_look_the_same_are_one_name_and_are_kept_as_given() {
    let (service, _, owner) = set_up().await;
    let (composed, decomposed) = ("Caf\u{e9}", "Cafe\u{301}");
    let token = service.access_token(&owner, &json!({"name": decomposed})).await;
    assert_eq!(listed(&service, &owner, &token).await["name"], decomposed);
    create(&service, &owner, json!({"name": composed})).await.assert_invalid("name");
    // The same token may change how its name is spelled.
    for name in [composed, decomposed, composed] {
        let answer = patch(&service, &owner, &token, json!({"name": name})).await;
        assert_eq!((answer.status.as_u16(), text(&answer.json(), "name")), (200, name));
        create(&service, &owner, json!({"name": decomposed})).await.assert_invalid("name");
    }
    let other = service.access_token(&owner, &json!({"name": "other"})).await;
    patch(&service, &owner, &other, json!({"name": decomposed})).await.assert_invalid("name");
    // Renaming and deleting free both spellings.
    assert_eq!(patch(&service, &owner, &token, json!({"name": "tea"})).await.status, 200);
    assert_eq!(patch(&service, &owner, &other, json!({"name": decomposed})).await.status, 200);
    for invisible in ["a\u{3164}b", "a\u{202e}b", "a\u{fe0f}"] {
        create(&service, &owner, json!({"name": invisible})).await.assert_invalid("name");
        patch(&service, &owner, &token, json!({"name": invisible})).await.assert_invalid("name");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_patches_of_different_fields_all_apply() {
    let (service, org, owner) = set_up().await;
    let token = service.access_token(&owner, &json!({"name": "plain"})).await;
    let changes_at_once = [
        json!({"name": "renamed"}),
        json!({"is_active": false}),
        json!({"expires_at": "2027-01-01T00:00:00Z"}),
        json!({"access_config": {"role": "operator"}}),
        json!({"access_config": {"all_projects": true}}),
        json!({"access_config": {"projects": PROJECTS}}),
    ];
    let answers = join_all(changes_at_once.iter().map(|body| patch(&service, &owner, &token, body.clone()))).await;
    for (answer, body) in answers.iter().zip(&changes_at_once) {
        assert_eq!(answer.status, 200, "{body}: {}", answer.text);
    }
    let entry = listed(&service, &owner, &token).await;
    assert_eq!((&entry["name"], &entry["is_active"]), (&json!("renamed"), &json!(false)));
    assert_eq!(entry["expires_at"], "2027-01-01T00:00:00Z");
    assert_eq!(entry["access_config"], json!({"role": "operator", "all_projects": true, "projects": PROJECTS}));
    assert_eq!(changes(&service, &org).await, changes_at_once.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deletion_wins_over_concurrent_patches() {
    let (service, _, owner) = set_up().await;
    for n in 0..8 {
        let token = service.access_token(&owner, &json!({"name": "mine"})).await;
        let name = format!("renamed {n}");
        let renamed = join(
            patch(&service, &owner, &token, json!({"name": name})),
            patch(&service, &owner, &token, json!({"is_active": false})),
        );
        let deleted = join(delete(&service, &owner, &token), delete(&service, &owner, &token));
        let ((first, second), (one, other)) = join(renamed, deleted).await;
        for answer in [first, second] {
            assert!(matches!(answer.status.as_u16(), 200 | 404), "{}", answer.text);
        }
        let mut deletions = [one.status.as_u16(), other.status.as_u16()];
        deletions.sort_unstable();
        assert_eq!(deletions, [204, 404]);
        service.whoami(&token.token).await.assert_error(401, "UNAUTHORIZED");
        assert!(service.access_tokens(&owner).await.is_empty());
        // Both names are free again; the next round reuses the first.
        let again = service.access_token(&owner, &json!({"name": name})).await;
        assert_eq!(delete(&service, &owner, &again).await.status, 204);
    }
    let items = service.table.items().await;
    assert!(!items.iter().any(|item| text(item, "pk").contains("#ACCESS_TOKEN") || text(item, "kind") == "org_access"));
}

#[tokio::test]
async fn disabled_token_is_refused_until_enabled() {
    let (service, _, owner) = set_up().await;
    let token = service.access_token(&owner, &json!({"name": "a"})).await;
    for _ in 0..3 {
        assert_eq!(service.whoami(&token.token).await.status, 200);
        assert_eq!(patch(&service, &owner, &token, json!({"is_active": false})).await.status, 200);
        service.whoami(&token.token).await.assert_error(401, "UNAUTHORIZED");
        assert_eq!(patch(&service, &owner, &token, json!({"is_active": true})).await.status, 200);
    }
    assert_eq!(put(&service, &owner, &token, json!({"name": "a", "is_active": false})).await.status, 200);
    service.whoami(&token.token).await.assert_error(401, "UNAUTHORIZED");
}

#[tokio::test]
async fn expired_token_works_again_after_its_expiry_is_moved() {
    let (service, _, owner) = set_up().await;
    let body = json!({"name": "a", "expires_at": "2026-11-21T10:01:00Z"});
    let token = service.access_token(&owner, &body).await;
    service.clock.advance(Duration::from_millis(59_999));
    assert_eq!(service.whoami(&token.token).await.status, 200);
    service.clock.advance(Duration::from_millis(1));
    service.whoami(&token.token).await.assert_error(401, "UNAUTHORIZED");
    // An expired token can be updated, but not with an expiry in the past.
    assert_eq!(patch(&service, &owner, &token, json!({"name": "b", "is_active": false})).await.status, 200);
    put(&service, &owner, &token, body).await.assert_invalid("expires_at");
    let answer = patch(&service, &owner, &token, json!({"is_active": true, "expires_at": null})).await;
    assert_eq!((answer.status.as_u16(), &answer.json()["expires_at"]), (200, &json!(null)));
    assert_eq!(service.whoami(&token.token).await.status, 200);
}

#[tokio::test]
async fn token_of_a_removed_project_can_be_disabled() {
    let (service, org, owner) = set_up().await;
    let token = service.access_token(&owner, &json!({"name": "a", "access_config": {"projects": PROJECTS}})).await;
    assert!(service.store.remove_project(&org.id, PROJECTS[0], &operator()).await.unwrap());
    assert_eq!(patch(&service, &owner, &token, json!({"is_active": false})).await.status, 200);
    let access = json!({"access_config": {"role": "operator", "projects": PROJECTS}});
    assert_eq!(patch(&service, &owner, &token, access.clone()).await.status, 200);
    // Once dropped, a removed project cannot be added again.
    let one = json!({"access_config": {"projects": [PROJECTS[1]]}});
    assert_eq!(patch(&service, &owner, &token, one).await.status, 200);
    patch(&service, &owner, &token, access).await.assert_invalid("access_config.projects");
    assert_eq!(delete(&service, &owner, &token).await.status, 204);
}

#[tokio::test]
async fn only_owner_bots_manage_access_tokens() {
    let (service, org, owner) = set_up().await;
    let token = service.access_token(&owner, &full()).await;
    let all_scopes = tests::coverage::all_scopes();
    let mut others = vec![
        ("API key", service.api_key(&owner.credential, &all_scopes).await.key),
        ("org user token", service.issue(&org, &owner, "alice").await.token),
        ("email-verified token", service.email_token("alice@example.com").await),
        ("the access token itself", token.token.clone()),
    ];
    let roles: Vec<Role> = Role::ALL.iter().copied().filter(|role| *role != Role::Owner).collect();
    others.push(("bot of every other role", service.bot(&org, &roles).await.credential));
    let calls = |path: &str| {
        [
            (Method::GET, ACCESS_TOKENS.to_owned(), None),
            (Method::POST, ACCESS_TOKENS.to_owned(), Some(json!({"name": "b"}))),
            (Method::PATCH, path.to_owned(), Some(json!({"is_active": false}))),
            (Method::PUT, path.to_owned(), Some(json!({"name": "b"}))),
            (Method::DELETE, path.to_owned(), None),
        ]
    };
    let send = async |credential: &str, method: Method, path: &str, body: Option<Value>| match body {
        Some(body) => service.send_json(method, path, credential, &body).await,
        None => service.call(method, path, credential).await,
    };
    for (_, credential) in &others {
        // Updates `last_used_at`, at most once a minute, so that the calls below do not.
        assert_eq!(service.whoami(credential).await.status, 200);
    }
    let before = service.table.items_without_audit().await;
    for (what, credential) in &others {
        for (method, path, body) in calls(&token.path()) {
            let answer = send(credential, method.clone(), &path, body).await;
            assert_eq!((what, answer.status.as_u16(), answer.code()), (what, 403, "FORBIDDEN".to_owned()), "{method}");
            answer.assert_error(403, "FORBIDDEN");
        }
    }
    assert_eq!(service.table.items_without_audit().await, before);
    let deleted = service.access_token(&owner, &json!({"name": "deleted"})).await;
    assert_eq!(delete(&service, &owner, &deleted).await.status, 204);
    let switched_off = service.access_token(&owner, &json!({"name": "off", "is_active": false})).await;
    let mistyped = tests::coverage::mistyped(&token.token);
    for credential in ["nonsense", &deleted.token, &switched_off.token, &mistyped] {
        for (method, path, body) in calls(&token.path()) {
            send(credential, method, &path, body).await.assert_error(401, "UNAUTHORIZED");
        }
    }
}

#[tokio::test]
async fn tokens_of_other_organizations_return_404() {
    let (service, _, owner) = set_up().await;
    let (_, stranger) = service.org_with_owner().await;
    let token = service.access_token(&owner, &full()).await;
    let before = service.table.items().await;
    patch(&service, &stranger, &token, json!({"is_active": false})).await.assert_error(404, "TOKEN_NOT_FOUND");
    put(&service, &stranger, &token, json!({"name": "mine"})).await.assert_error(404, "TOKEN_NOT_FOUND");
    delete(&service, &stranger, &token).await.assert_error(404, "TOKEN_NOT_FOUND");
    assert!(service.access_tokens(&stranger).await.is_empty());
    assert_eq!(service.table.items().await, before);
}

#[tokio::test]
async fn list_returns_all_tokens_unpaged() {
    let (service, _, owner) = set_up().await;
    for n in 0..130 {
        service.access_token(&owner, &json!({"name": format!("token {n}")})).await;
    }
    let names: Vec<String> =
        service.access_tokens(&owner).await.iter().map(|entry| text(entry, "name").to_owned()).collect();
    assert_eq!(names, (0..130).rev().map(|n| format!("token {n}")).collect::<Vec<_>>());
    service.call(Method::GET, &format!("{ACCESS_TOKENS}?limit=1"), &owner.credential).await.assert_invalid("limit");
}

// At most 1,000

/// Sets the counter of an organization's access tokens, or removes it.
async fn set_count(service: &Service, org: &Org, count: Option<usize>) {
    let key = [("pk", format!("ORG#{}", org.id)), ("sk", "ACCESS_TOKEN_COUNT".to_owned())];
    let key = key.map(|(name, value)| (name.to_owned(), AttributeValue::S(value)));
    let client = service.dynamodb();
    match count {
        Some(count) => {
            let item = key.into_iter().chain([("count".to_owned(), AttributeValue::N(count.to_string()))]).collect();
            client.put_item().table_name(TABLE).set_item(Some(item)).send().await.map(|_| ()).unwrap();
        }
        None => client.delete_item().table_name(TABLE).set_key(Some(key.into())).send().await.map(|_| ()).unwrap(),
    }
}

#[tokio::test]
async fn organization_has_at_most_1000_tokens_under_concurrency() {
    let (service, org, owner) = set_up().await;
    service.access_token(&owner, &json!({"name": "first"})).await;
    set_count(&service, &org, Some(995)).await;
    let names: Vec<String> = (0..12).map(|place| format!("gateway-{place}")).collect();
    let answers = join_all(names.iter().map(|name| create(&service, &owner, json!({"name": name})))).await;
    let (created, refused): (Vec<_>, Vec<_>) = answers.iter().partition(|answer| answer.status == 201);
    for answer in &refused {
        // Losing too many races is the one other outcome.
        if answer.status != 503 {
            answer.assert_error(403, "PLAN_LIMIT_REACHED");
            assert!(answer.json()["error"]["message"].as_str().unwrap().contains("1,000"), "{}", answer.text);
        }
    }
    assert!(created.len() <= 5 && service.access_tokens(&owner).await.len() == created.len() + 1);
    // One at a time, the rest of the thousand is there, and not one more.
    for place in created.len()..5 {
        assert_eq!(create(&service, &owner, json!({"name": format!("late-{place}")})).await.status, 201);
    }
    create(&service, &owner, json!({"name": "more"})).await.assert_error(403, "PLAN_LIMIT_REACHED");
    let entries = service.table.audit_entries(&org.id).await;
    let refused = entries.iter().filter(|entry| text(entry, "outcome") == "refused").count();
    assert!(refused >= 1);
    // A name that is taken is reported as such.
    create(&service, &owner, json!({"name": "first"})).await.assert_invalid("name");
    // Deleting one makes room for one.
    let tokens = service.access_tokens(&owner).await;
    let path = format!("{ACCESS_TOKENS}{}/", tokens[0]["id"]);
    assert_eq!(service.call(Method::DELETE, &path, &owner.credential).await.status, 204);
    assert_eq!(create(&service, &owner, json!({"name": "room"})).await.status, 201);
    create(&service, &owner, json!({"name": "more"})).await.assert_error(403, "PLAN_LIMIT_REACHED");
    set_count(&service, &org, Some(tokens.len())).await;
}

#[tokio::test]
async fn counter_starts_with_the_tokens_that_exist() {
    let (service, org, owner) = set_up().await;
    let first = service.access_token(&owner, &json!({"name": "first"})).await;
    let second = service.access_token(&owner, &json!({"name": "second"})).await;
    // Tokens of a version that did not count.
    set_count(&service, &org, None).await;
    assert_eq!(delete(&service, &owner, &first).await.status, 204);
    set_count(&service, &org, None).await;
    service.access_token(&owner, &json!({"name": "third"})).await;
    assert_eq!(delete(&service, &owner, &second).await.status, 204);
    let items = service.table.items().await;
    let count = items.iter().find(|item| item["sk"] == "ACCESS_TOKEN_COUNT").unwrap();
    assert_eq!(count["count"], 1);
}

#[tokio::test]
async fn wrong_count_never_keeps_a_token_from_being_deleted() {
    let (service, org, owner) = set_up().await;
    let tokens = [json!({"name": "first"}), json!({"name": "second"})];
    let tokens = join_all(tokens.iter().map(|body| service.access_token(&owner, body))).await;
    set_count(&service, &org, Some(0)).await;
    for token in &tokens {
        assert_eq!(service.call(Method::DELETE, &token.path(), &owner.credential).await.status, 204);
    }
    assert_eq!(create(&service, &owner, json!({"name": "third"})).await.status, 201);
    set_count(&service, &org, Some(1)).await;
}
