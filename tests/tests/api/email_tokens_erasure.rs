//! What a removed email-verified token leaves is erased 7 days later: its usage and the source
//! addresses in its address's audit entries.

use std::time::Duration;

use futures::future::join;
use reqwest::Method;
use serde_json::{Value, json};
use shared::ApiError;
use shared::domain::Ecosystem;
use shared::ids::TokenId;
use shared::store::erasures::{DELAY, REMAINDER};
use tests::email::{Kind, new_token};
use tests::faults::{Call, Fault, at_each_call};
use tests::table::{TABLE, text};
use tests::{Service, operator};

const MILLISECOND: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

const ALICE: &str = "alice@example.com";

/// The ID of an active token.
async fn id_of(service: &Service, token: &str) -> TokenId {
    TokenId::parse(text(&service.status(token).await.json(), "id")).unwrap()
}

/// Counts a download of each ecosystem, today.
async fn download(service: &Service, token: &str) {
    let id = id_of(service, token).await;
    for ecosystem in [Ecosystem::Npm, Ecosystem::Pypi] {
        service.store.count_download(&id, ecosystem).await.unwrap();
    }
}

/// Registers an address, uses its token on two days, replaces it and uses that one. Returns it.
async fn used_token(service: &Service, address: &str) -> String {
    let first = service.person(address).obtain_token().await;
    download(service, &first).await;
    service.clock.advance(DAY);
    download(service, &first).await;
    let second = new_token(&service.regenerate(&first).await);
    download(service, &second).await;
    service.clock.advance(SECOND);
    second
}

async fn remove(service: &Service, token: &str) {
    let answer = service.revoke_email_token(token).await;
    assert_eq!((answer.status.as_u16(), answer.text.as_str()), (204, ""));
}

/// The items whose partition key begins like this.
async fn items_of(service: &Service, beginning: &str) -> Vec<Value> {
    let mut items = service.table.items().await;
    items.retain(|item| text(item, "pk").starts_with(beginning));
    items
}

/// Asserts that everything is erased of an address that has not registered again.
async fn assert_erased(service: &Service, address: &str, what: &str) {
    for beginning in ["ERASURES", "USAGE#"] {
        assert_eq!(items_of(service, beginning).await, Vec::<Value>::new(), "{what}");
    }
    let entries = service.person(address).audit_entries().await;
    assert!(!entries.is_empty(), "{what}");
    let end = service.clock.now().plus(REMAINDER).epoch_seconds();
    for entry in &entries {
        assert_eq!((&entry["source_ip"], entry["ttl"].as_i64()), (&Value::Null, Some(end)), "{what}: {entry}");
    }
    let everything = Value::from(service.table.items().await).to_string();
    assert!(!everything.contains(address) && !everything.contains("127.0.0.1"), "{what}: {everything}");
    assert_eq!(service.table.findings(), Vec::<String>::new(), "{what}");
}

#[tokio::test]
async fn removed_token_is_erased_after_seven_days_and_not_before() {
    let service = Service::start_with_manual_clock().await;
    let token = used_token(&service, ALICE).await;
    remove(&service, &token).await;
    let before = service.table.items().await;
    assert!(!Value::from(before.clone()).to_string().contains(ALICE), "the address is deleted at once");
    service.clock.advance(DELAY - SECOND);
    service.erase().await.unwrap();
    assert_eq!(service.table.items().await, before);
    assert_eq!(items_of(&service, "USAGE#").await.len(), 3 + 2);

    service.clock.advance(SECOND);
    service.erase().await.unwrap();
    assert_erased(&service, ALICE, "after 7 days").await;
    let after = service.table.items().await;
    let actions: Vec<Value> = service.person(ALICE).audit_entries().await.iter().map(|e| e["action"].clone()).collect();
    assert_eq!(actions, ["email_token.register", "email_token.regenerate", "email_token.revoke"]);
    // The entries do not live longer because of another run.
    service.clock.advance(DAY);
    service.erase().await.unwrap();
    assert_eq!(service.table.items().await, after);
}

#[tokio::test]
async fn erasure_leaves_other_addresses_alone() {
    let service = Service::start_with_manual_clock().await;
    let (alices, bobs) = (used_token(&service, ALICE).await, used_token(&service, "bob@example.com").await);
    service.whoami(&bobs).await;
    let (org, owner) = service.org_with_owner().await;
    service.issue(&org, &owner, "alice").await;
    remove(&service, &alices).await;
    let entries = service.person(ALICE).audit_entries().await;
    let mut alices: Vec<String> = vec!["ERASURES".to_owned(), text(&entries[0], "pk").to_owned()];
    alices.extend(entries.iter().map(|entry| format!("USAGE#{}", text(&entry["target"], "id"))));
    let others = async || {
        let mut items = service.table.items().await;
        items.retain(|item| !alices.contains(&text(item, "pk").to_owned()));
        items
    };
    let before = others().await;
    service.clock.advance(DELAY);
    service.erase().await.unwrap();
    assert_eq!(items_of(&service, "ERASURES").await, Vec::<Value>::new());
    assert_eq!(others().await, before);
    assert_eq!(service.status(&bobs).await.json()["usage"]["total"], 2);
}

#[tokio::test]
async fn new_token_of_a_removed_address_keeps_what_belongs_to_it() {
    let service = Service::start_with_manual_clock().await;
    let removed = used_token(&service, ALICE).await;
    remove(&service, &removed).await;
    let old = service.person(ALICE).audit_entries().await.len();
    service.clock.advance(SECOND);
    let new = used_token(&service, ALICE).await;
    service.clock.advance(DELAY);
    service.erase().await.unwrap();
    let entries = service.person(ALICE).audit_entries().await;
    assert!(entries[..old].iter().all(|entry| entry["source_ip"].is_null()));
    assert_eq!(entries[old..].iter().map(|entry| &entry["source_ip"]).collect::<Vec<_>>(), ["127.0.0.1"; 2]);
    assert_eq!(service.status(&new).await.json()["usage"]["total"], 2);
    // Of both tokens that the address has had since.
    assert_eq!(items_of(&service, "USAGE#").await.len(), 3 + 2);
    assert_eq!(items_of(&service, "ERASURES").await, Vec::<Value>::new());
}

#[tokio::test]
async fn new_token_is_kept_though_its_entry_may_sort_before_the_removal() {
    // The clock stands still, as if clocks differed: half of the new entries sort before the removal,
    // half of the old ones after it.
    let service = Service::start_with_manual_clock().await;
    let addresses: Vec<String> = (0..16).map(|number| format!("alice-{number}@example.com")).collect();
    for address in &addresses {
        let token = service.person(address).obtain_token().await;
        remove(&service, &token).await;
        let new = service.person(address).obtain_token().await;
        download(&service, &new).await;
    }
    service.clock.advance(DELAY);
    service.erase().await.unwrap();
    for address in &addresses {
        let entries = service.person(address).audit_entries().await;
        assert_eq!(entries.iter().filter(|entry| entry["source_ip"] == "127.0.0.1").count(), 1, "{entries:?}");
    }
    assert_eq!(items_of(&service, "USAGE#").await.len(), 16 * 2);
}

#[tokio::test]
async fn second_removal_erases_what_came_after_the_first() {
    let service = Service::start_with_manual_clock().await;
    let first = used_token(&service, ALICE).await;
    remove(&service, &first).await;
    service.clock.advance(DAY);
    let second = used_token(&service, ALICE).await;
    remove(&service, &second).await;
    service.clock.advance(DELAY - DAY * 2);
    service.erase().await.unwrap();
    let ends = async || {
        let entries = service.person(ALICE).audit_entries().await;
        entries.iter().filter(|e| e["source_ip"].is_null()).map(|e| e["ttl"].as_i64().unwrap()).collect::<Vec<_>>()
    };
    let end = service.clock.now().plus(REMAINDER).epoch_seconds();
    assert_eq!(ends().await, [end; 3]);
    service.clock.advance(DAY * 2);
    service.erase().await.unwrap();
    let later = service.clock.now().plus(REMAINDER).epoch_seconds();
    assert_eq!(ends().await, [end, end, end, later, later, later]);
    assert_eq!(items_of(&service, "USAGE#").await, Vec::<Value>::new());
}

#[tokio::test]
async fn entries_that_would_end_sooner_are_not_kept_longer() {
    let service = Service::start_with_manual_clock().await;
    let token = service.person(ALICE).obtain_token().await;
    service.whoami(&token).await;
    service.clock.advance(DAY * 380);
    remove(&service, &token).await;
    service.clock.advance(DELAY);
    service.erase().await.unwrap();
    let entries = service.person(ALICE).audit_entries().await;
    let left: Vec<i64> =
        entries.iter().map(|entry| entry["ttl"].as_i64().unwrap() - service.clock.now().epoch_seconds()).collect();
    assert_eq!(left, [DAY * 13, DAY * 30].map(|left| left.as_secs() as i64));
    assert!(entries.iter().all(|entry| entry["source_ip"].is_null()));
}

#[tokio::test]
async fn only_the_holders_own_removal_is_announced_and_erased() {
    let service = Service::start_with_manual_clock().await;
    let logged_out = used_token(&service, ALICE).await;
    let answer = service.call(Method::DELETE, &format!("/npm/-/user/token/{logged_out}"), &logged_out).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    let by_operator = used_token(&service, "bob@example.com").await;
    let id = id_of(&service, &by_operator).await;
    assert!(service.store.revoke_email_token_by_id(&id, &operator()).await.unwrap());
    let before = service.table.items().await;
    service.clock.advance(DELAY * 2);
    service.erase().await.unwrap();
    assert_eq!(service.table.items().await, before);
    for address in [ALICE, "bob@example.com"] {
        assert!(!service.person(address).mail_kinds().contains(&Kind::KeyRemoved));
    }
}

/// A service with an erasure that is due, and a proxy in front of its DynamoDB.
async fn with_due_erasure() -> (Service, tests::faults::Faults) {
    let (service, faults) = Service::start_with_faults().await;
    let token = used_token(&service, ALICE).await;
    remove(&service, &token).await;
    service.clock.advance(DELAY);
    (service, faults)
}

#[tokio::test]
async fn run_that_fails_at_any_call_is_continued_by_the_next() {
    let failed = at_each_call(|place| async move {
        let (service, faults) = Service::start_with_faults().await;
        for fault in [Fault::LostBefore, Fault::LostAfter, Fault::Throttled] {
            let (what, address) = (format!("{place} {fault:?}"), format!("{fault:?}@example.com"));
            let token = used_token(&service, &address).await;
            remove(&service, &token).await;
            service.clock.advance(DELAY);
            faults.arm(place, &[], Some(fault));
            let failed = service.erase().await;
            if faults.disarm().len() <= place {
                return None;
            }
            assert!(matches!(failed, Err(ApiError::Unavailable)), "{what}: {failed:?}");
            assert_eq!(service.table.findings(), Vec::<String>::new(), "{what}");
            service.erase().await.unwrap();
            assert_erased(&service, &address, &what).await;
        }
        Some(())
    })
    .await
    .len();
    assert!(failed > 10, "{failed}");
}

#[tokio::test]
async fn run_that_is_killed_at_any_call_is_continued_by_the_next() {
    let killed = at_each_call(|place| async move {
        let (service, faults) = with_due_erasure().await;
        faults.kill_at(place, email_tokens_erase::erase(service.app.clone())).await?;
        assert_eq!(service.table.findings(), Vec::<String>::new(), "{place}");
        service.erase().await.unwrap();
        assert_erased(&service, ALICE, &place.to_string()).await;
        Some(())
    })
    .await
    .len();
    assert!(killed > 10, "{killed}");
}

#[tokio::test]
async fn two_runs_at_once_do_no_harm() {
    let (service, faults) = with_due_erasure().await;
    faults.arm(0, &[Fault::WaitForAnother; 2], None);
    let (one, other) = join(service.erase(), service.erase()).await;
    faults.disarm();
    assert!(one.is_ok() && other.is_ok(), "{one:?} {other:?}");
    assert_erased(&service, ALICE, "two runs").await;
}

/// The partition that a call queries, if it is a query.
fn queried(call: &Call) -> &str {
    text(&call.request["ExpressionAttributeValues"][":pk"], "S")
}

#[tokio::test]
async fn long_log_is_erased_in_pages_and_holds_up_no_other() {
    let (service, faults) = Service::start_with_faults().await;
    let mut token = service.person("mallory@example.com").obtain_token().await;
    for _ in 0..199 {
        service.clock.advance(MILLISECOND);
        token = new_token(&service.regenerate(&token).await);
    }
    service.clock.advance(MILLISECOND);
    remove(&service, &token).await;
    service.clock.advance(SECOND);
    let alices = used_token(&service, ALICE).await;
    remove(&service, &alices).await;
    service.clock.advance(DELAY);

    faults.arm(0, &[], None);
    service.erase().await.unwrap();
    let calls = faults.take_calls();
    assert_erased(&service, ALICE, "both").await;
    let logs: Vec<&Call> = calls.iter().filter(|call| queried(call).ends_with("#AUDIT")).collect();
    // A page of the long log, then the short one, then the rest, each page once.
    let long = queried(logs[0]);
    assert_eq!(logs.iter().map(|call| queried(call) == long).collect::<Vec<_>>(), [true, false, true, true]);
    let begun = logs.iter().map(|call| call.request["ExclusiveStartKey"].is_object()).collect::<Vec<_>>();
    assert_eq!(begun, [false, false, true, true]);
}

#[tokio::test]
async fn killed_run_over_a_long_log_does_not_begin_again() {
    let (service, faults) = Service::start_with_faults().await;
    let mut token = service.person(ALICE).obtain_token().await;
    for _ in 0..110 {
        service.clock.advance(MILLISECOND);
        token = new_token(&service.regenerate(&token).await);
    }
    service.clock.advance(MILLISECOND);
    remove(&service, &token).await;
    service.clock.advance(DELAY);
    faults.arm(0, &[], None);
    service.store.erase(&service.store.due_erasures(None).await.unwrap()[0]).await.unwrap();
    service.erase().await.unwrap();
    let calls = faults.take_calls();
    let logs: Vec<&Call> = calls.iter().filter(|call| queried(call).ends_with("#AUDIT")).collect();
    assert!(logs.len() == 1 && logs[0].request["ExclusiveStartKey"].is_object());
    assert_erased(&service, ALICE, "two runs").await;
}

#[tokio::test]
async fn token_that_cannot_be_erased_fails_the_run_after_all_others_are_erased() {
    let service = Service::start_with_manual_clock().await;
    let broken = service.person("broken@example.com").obtain_token().await;
    remove(&service, &broken).await;
    service.clock.advance(SECOND);
    let alices = used_token(&service, ALICE).await;
    remove(&service, &alices).await;
    for mut item in service.table.raw_items(TABLE) {
        let log = text(&service.person("broken@example.com").audit_entries().await[0], "pk").to_owned();
        if text(&item["pk"], "S") == log {
            item["ttl"] = json!({"S": "never"});
            service.table.put(TABLE, &item).await;
        }
    }
    service.clock.advance(DELAY);
    assert!(matches!(service.erase().await, Err(ApiError::Internal)));
    let entries = service.person(ALICE).audit_entries().await;
    assert!(entries.iter().all(|entry| entry["source_ip"].is_null()), "{entries:?}");
    assert_eq!(items_of(&service, "ERASURES").await.len(), 1);
    service.table.skip_final_check();
}

#[tokio::test]
async fn erasing_costs_in_proportion_to_what_is_due() {
    let (service, faults) = Service::start_with_faults().await;
    for number in 0..20 {
        service.person(&format!("person-{number}@example.com")).obtain_token().await;
    }
    let calls = async || {
        faults.arm(0, &[], None);
        service.erase().await.unwrap();
        faults.disarm()
    };
    assert_eq!(calls().await, ["Query"], "nothing is due");
    for address in ["alice@example.com", "bob@example.com"] {
        let token = service.person(address).obtain_token().await;
        remove(&service, &token).await;
    }
    assert_eq!(calls().await, ["Query"], "nothing is due yet");
    service.clock.advance(DELAY);
    // Due; per token: its address, its log, its usage, two entries, itself; due after it.
    let each = ["GetItem", "Query", "Query", "UpdateItem", "UpdateItem", "TransactWriteItems"];
    assert_eq!(calls().await, [&["Query"][..], &each, &each, &["Query"]].concat());
    assert_eq!(calls().await, ["Query"]);
}
