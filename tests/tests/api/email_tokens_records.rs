//! What email-verified tokens leave in the table: audit entries, secrets (none) and usage counts.

use std::time::Duration;

use aws_sdk_dynamodb::types::AttributeValue;
use reqwest::Method;
use serde_json::{Value, json};
use shared::email::EmailAddress;
use shared::{Clock, Moment};
use tests::email::{code_in, full_life_cycle, new_token, token_in};
use tests::table::{TABLE, text};
use tests::{Service, unlimited};

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(60 * 60);

fn hash_of(address: &str) -> String {
    EmailAddress::try_from(address.to_owned()).unwrap().hash().to_hex()
}

// Audit entries

#[tokio::test]
async fn every_change_adds_one_audit_entry_without_the_address() {
    let service = Service::start_with_manual_clock().await;
    let alice = service.person("alice@example.com");
    let mut expected = Vec::new();
    let mut expect = |action: &str, actor: (&str, &str), target: &str, request_id: &str| {
        expected.push(json!({
            "at": service.clock.now(),
            "actor": {"kind": actor.0, "id": actor.1},
            "action": format!("email_token.{action}"),
            "target": {"kind": "email_token", "id": target},
            "outcome": "done",
            "source_ip": "127.0.0.1",
            "request_id": request_id,
            "ttl": service.clock.now().plus(HOUR * 24 * 400).epoch_seconds(),
        }));
        service.clock.advance(SECOND);
    };
    let anybody = ("anonymous", "anonymous");
    let id_of = async |key: &str| service.status(key).await.json()["id"].as_str().unwrap().to_owned();

    let answer = alice.try_register().await;
    let first = token_in(&alice.newest_mail());
    let first_id = id_of(&first).await;
    expect("register", anybody, &first_id, answer.header("x-request-id"));

    let answer = service.regenerate(&first).await;
    let second_id = id_of(&new_token(&answer)).await;
    expect("regenerate", ("email_token", &first_id), &second_id, answer.header("x-request-id"));

    let answer = alice.try_register().await;
    expect("register", anybody, &second_id, answer.header("x-request-id"));

    let answer = alice.submit_code(&code_in(&alice.newest_mail())).await;
    let third = new_token(&answer);
    let third_id = id_of(&third).await;
    let address = hash_of("alice@example.com");
    expect("reset", ("email_address", &address), &third_id, answer.header("x-request-id"));

    let answer = service.revoke_email_token(&third).await;
    expect("revoke", ("email_token", &third_id), &third_id, answer.header("x-request-id"));

    let names: Vec<String> = expected[0].as_object().unwrap().keys().cloned().collect();
    let entries = alice.audit_entries().await;
    let found = entries.iter().map(|entry| names.iter().map(|name| (name.clone(), entry[name].clone())).collect());
    assert_eq!(found.collect::<Vec<Value>>(), expected);
}

#[tokio::test]
async fn calls_without_effect_add_no_audit_entry() {
    let service = Service::start_with_manual_clock().await;
    let alice = service.person("alice@example.com");
    let key = alice.obtain_token().await;
    for _ in 0..4 {
        alice.register().await;
    }
    let before = alice.audit_entries().await.len();
    alice.register().await;
    alice.submit_code("0000-0000-0000-0000").await.assert_error(400, "INVALID_RESET_CODE");
    service.status(&key).await;
    service.regenerate("tg_anon_x").await.assert_error(401, "UNAUTHORIZED");
    service.revoke_email_token("tg_anon_x").await.assert_error(401, "UNAUTHORIZED");
    service.call(Method::DELETE, "/api/v1/tokens?x=1", &key).await.assert_invalid("x");
    assert_eq!((before, alice.audit_entries().await.len()), (5, 5));
    let items = service.table.items().await;
    assert_eq!(items.iter().filter(|item| text(item, "pk").ends_with("#AUDIT")).count(), 5);
}

// Secrets

#[tokio::test]
async fn table_stores_no_token_or_code_and_the_address_once() {
    let service = Service::start_with_manual_clock().await;
    let (keys, codes) = full_life_cycle(&service, "Alice.Secret+Name@example.com").await;
    let secrets: Vec<&str> = keys.iter().chain(&codes).map(String::as_str).collect();
    service.assert_sound_without(&secrets).await;
    let holders = async || {
        let items = service.table.items().await;
        let holds = |item: &&Value| item.to_string().to_lowercase().contains("secret+name");
        items.iter().filter(holds).map(|item| text(item, "sk").to_owned()).collect::<Vec<String>>()
    };
    assert_eq!(holders().await, ["ADDRESS"]);
    assert_eq!(service.revoke_email_token(&keys[2]).await.status, 204);
    assert!(holders().await.is_empty(), "a revoked address is deleted");
}

// Usage

async fn service_at(moment: &str) -> Service {
    Service::start_with(Clock::manual(Moment::parse(moment).unwrap()), unlimited()).await
}

/// Stores download counts of a token in the format of `shared::store::usage`.
async fn count(service: &Service, key: &str, place: &str, counts: &[(&str, u64)]) {
    let id = service.status(key).await.json()["id"].as_str().unwrap().to_owned();
    let put = service.dynamodb().put_item().table_name(TABLE);
    let put = put.item("pk", AttributeValue::S(format!("USAGE#{id}"))).item("sk", AttributeValue::S(place.to_owned()));
    let put = counts.iter().fold(put, |put, (name, count)| put.item(*name, AttributeValue::N(count.to_string())));
    put.send().await.unwrap();
}

async fn usage(service: &Service, key: &str) -> Value {
    service.status(key).await.json()["usage"].take()
}

#[tokio::test]
async fn usage_covers_the_last_30_days_newest_first() {
    let service = service_at("2026-11-21T23:59:59Z").await;
    let key = service.person("alice@example.com").obtain_token().await;
    // A token that is never used would end after 30 days.
    assert_eq!(service.whoami(&key).await.status, 200);
    let days = [
        "2026-11-21",
        "2026-11-20",
        "2026-11-01",
        "2026-10-31",
        "2026-10-23",
        "2026-10-22",
        "2026-10-21",
        "2025-11-21",
    ];
    for (place, day) in (1..).zip(days) {
        count(&service, &key, day, &[("npm", place), ("pypi", place * 10)]).await;
    }
    count(&service, &key, "TOTAL", &[("npm", 36), ("pypi", 360)]).await;
    let day = |place: usize| json!({"date": days[place - 1], "npm": place, "pypi": place * 10});
    let expected = json!({"total": 396, "last_30_days": [day(1), day(2), day(3), day(4), day(5)]});
    assert_eq!(usage(&service, &key).await, expected);
    service.clock.advance(SECOND);
    let expected = json!({"total": 396, "last_30_days": [day(1), day(2), day(3), day(4)]});
    assert_eq!(usage(&service, &key).await, expected);
    service.clock.advance(HOUR * 24 * 29 - SECOND);
    assert_eq!(usage(&service, &key).await, json!({"total": 396, "last_30_days": [day(1)]}));
    service.clock.advance(HOUR * 24);
    assert_eq!(usage(&service, &key).await, json!({"total": 396, "last_30_days": []}));
}

#[tokio::test]
async fn daily_use_yields_exactly_thirty_days_of_usage() {
    let service = service_at("2028-03-01T00:00:00Z").await;
    let key = service.person("alice@example.com").obtain_token().await;
    let mut days = Vec::new();
    for back in 0..40 {
        let day = service.clock.now().minus(HOUR * 24 * back).date();
        count(&service, &key, &day, &[("npm", 1)]).await;
        days.push(json!({"date": day, "npm": 1, "pypi": 0}));
    }
    count(&service, &key, "TOTAL", &[("npm", 40)]).await;
    days.truncate(30);
    assert_eq!((&days[1]["date"], &days[29]["date"]), (&json!("2028-02-29"), &json!("2028-02-01")));
    assert_eq!(usage(&service, &key).await, json!({"total": 40, "last_30_days": days}));
}

#[tokio::test]
async fn unused_ecosystem_is_reported_as_zero() {
    let service = service_at("2026-11-21T10:00:00Z").await;
    let key = service.person("alice@example.com").obtain_token().await;
    count(&service, &key, "2026-11-20", &[("pypi", 2)]).await;
    count(&service, &key, "2026-11-21", &[("npm", 9_007_199_254_740_991)]).await;
    count(&service, &key, "TOTAL", &[("npm", 9_007_199_254_740_991), ("pypi", 2)]).await;
    let days = json!([
        {"date": "2026-11-21", "npm": 9_007_199_254_740_991_u64, "pypi": 0},
        {"date": "2026-11-20", "npm": 0, "pypi": 2},
    ]);
    assert_eq!(usage(&service, &key).await, json!({"total": 9_007_199_254_740_993_u64, "last_30_days": days}));
}

#[tokio::test]
async fn usage_is_counted_per_token() {
    let service = service_at("2026-11-21T10:00:00Z").await;
    let alices = service.person("alice@example.com").obtain_token().await;
    let bobs = service.person("bob@example.com").obtain_token().await;
    count(&service, &alices, "2026-11-21", &[("npm", 3)]).await;
    count(&service, &alices, "TOTAL", &[("npm", 3)]).await;
    let none = json!({"total": 0, "last_30_days": []});
    assert_eq!(usage(&service, &bobs).await, none);
    assert_eq!(usage(&service, &alices).await["total"], 3);
    let alices = new_token(&service.regenerate(&alices).await);
    assert_eq!(usage(&service, &alices).await, none, "a new token without usage");
}
