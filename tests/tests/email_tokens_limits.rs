//! How much is let through: mails to an address, mails of the deployment, calls from a network.

#![allow(clippy::unwrap_used)] // A limit that cannot be read has failed.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::future::join_all;
use reqwest::{Method, header};
use serde_json::{Value, json};
use shared::app::Limits;
use shared::{Clock, Moment};
use tests::email::{Kind, assert_accepted, code_in, key_in, new_key};
use tests::log::Log;
use tests::table::text;
use tests::{Answer, Service, unlimited};
use tracing_subscriber::filter::LevelFilter;

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(60 * 60);

/// A service whose clock stands at this time of the day.
async fn service_at(time: &str, limits: Limits) -> Service {
    Service::start_with(Clock::manual(Moment::parse(&format!("2026-11-21T{time}Z")).unwrap()), limits).await
}

/// What a caller sees of an answer but for what differs with every request.
fn seen(answer: &Answer) -> (u16, BTreeMap<String, String>, String) {
    let ignored = ["x-request-id", "date", "x-test-cost"];
    let headers = answer.headers.iter().filter(|(name, _)| !ignored.contains(&name.as_str()));
    let headers = headers.map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned()));
    (answer.status.as_u16(), headers.collect(), answer.text.clone())
}

#[test]
fn a_deployment_lets_through_what_the_contract_says() {
    let limits = Limits::default();
    assert_eq!((limits.calls_per_minute, limits.mails_per_hour), (Some(20), Some(1_000)));
}

// Mails to an address.

#[tokio::test]
async fn an_address_gets_five_mails_an_hour_and_then_silence() {
    let service = Service::start_with_manual_clock().await;
    let alice = service.person("alice@example.com");
    for _ in 0..8 {
        alice.registers().await;
    }
    let expected = [Kind::Welcome, Kind::Recovery, Kind::Recovery, Kind::Recovery, Kind::Recovery];
    assert_eq!(alice.kinds(), expected);
    assert!(service.counts(&key_in(&alice.mails()[0])).await);
    // What was asked for in vain did not take the place of the code that was mailed.
    alice.resets(&code_in(&alice.newest_mail())).await;
}

#[tokio::test]
async fn a_registration_that_is_met_with_silence_changes_nothing() {
    let service = Service::start_with_manual_clock().await;
    let alice = service.person("alice@example.com");
    for _ in 0..5 {
        alice.registers().await;
    }
    let before = service.table.items().await;
    alice.registers_in("ja").await;
    assert_eq!(service.table.items().await, before);
}

#[tokio::test]
async fn once_the_hour_of_the_first_mail_is_over_there_are_five_again() {
    let service = Service::start_with_manual_clock().await;
    let alice = service.person("alice@example.com");
    alice.registers().await;
    service.clock.advance(HOUR / 2);
    for _ in 0..4 {
        alice.registers().await;
    }
    service.clock.advance(HOUR / 2 - SECOND);
    alice.registers().await;
    assert_eq!(alice.mails().len(), 5);
    service.clock.advance(SECOND);
    for _ in 0..6 {
        alice.registers().await;
    }
    assert_eq!(alice.mails().len(), 10);
    alice.resets(&code_in(&alice.newest_mail())).await;
}

#[tokio::test]
async fn revoking_gives_no_further_mails() {
    let service = Service::start_with_manual_clock().await;
    let alice = service.person("alice@example.com");
    for _ in 0..5 {
        let key = alice.gets_a_key().await;
        assert_eq!(service.revoke_key(&key).await.status, 204);
    }
    alice.registers().await;
    assert_eq!(alice.kinds(), [Kind::Welcome; 5]);
    assert!(alice.stored_keys().await.is_empty(), "a key that nobody was mailed would be lost");
    service.clock.advance(HOUR);
    let key = alice.gets_a_key().await;
    assert!(service.counts(&key).await);
}

#[tokio::test]
async fn all_spellings_of_an_address_share_its_mails() {
    let service = Service::start_with_manual_clock().await;
    for spelling in
        ["a@bücher.example", "A@bücher.example", "a@BÜCHER.example", "a@xn--bcher-kva.example", " a@bücher.example"]
    {
        service.person(spelling).registers().await;
        service.person("someone@else.example").registers().await;
    }
    assert_eq!(service.outbox.mails().len(), 10);
    service.person("A@XN--BCHER-KVA.EXAMPLE").registers().await;
    assert_eq!(service.outbox.mails().len(), 10);
    service.person("b@bücher.example").registers().await;
    assert_eq!(service.outbox.mails().len(), 11);
}

#[tokio::test]
async fn mails_about_changed_keys_do_not_count() {
    let service = Service::start_with_manual_clock().await;
    let alice = service.person("alice@example.com");
    let mut key = alice.gets_a_key().await;
    for _ in 0..6 {
        key = new_key(&service.regenerate(&key).await);
    }
    for _ in 0..3 {
        alice.recovers().await;
    }
    let code = alice.gets_a_code().await;
    alice.registers().await;
    let kinds = alice.kinds();
    let count = |kind| kinds.iter().filter(|sent| **sent == kind).count();
    assert_eq!((count(Kind::Welcome), count(Kind::Recovery), count(Kind::KeyChanged)), (1, 4, 9));
    // Nor does the silence hold them back.
    alice.resets(&code).await;
    assert_eq!(alice.kinds().last(), Some(&Kind::KeyChanged));
}

#[tokio::test]
async fn ten_changes_of_a_key_are_told_in_an_hour_and_more_are_made() {
    let service = service_at("10:20:00", unlimited()).await;
    let alice = service.person("alice@example.com");
    let mut key = alice.gets_a_key().await;
    let code = alice.gets_a_code().await;
    for _ in 0..12 {
        key = new_key(&service.regenerate(&key).await);
    }
    alice.resets(&code).await;
    let told = || alice.kinds().iter().filter(|kind| **kind == Kind::KeyChanged).count();
    assert_eq!(told(), 10);
    // The address's other mails come all the same.
    service.clock.advance(HOUR * 2 / 3 - SECOND);
    let key = alice.recovers().await;
    assert_eq!(told(), 10);
    service.clock.advance(SECOND);
    new_key(&service.regenerate(&key).await);
    assert_eq!(told(), 11);
}

#[tokio::test]
async fn the_answer_says_nothing_about_whose_address_it_is() {
    let service = Service::start_with_manual_clock().await;
    let revoked = service.person("revoked@example.com").gets_a_key().await;
    assert_eq!(service.revoke_key(&revoked).await.status, 204);
    service.person("pending@example.com").registers().await;
    let active = service.person("active@example.com").gets_a_key().await;
    new_key(&service.regenerate(&active).await);
    service.person("with-code@example.com").registers().await;
    service.person("with-code@example.com").registers().await;
    for address in ["limited@example.com", "limited-without-key@example.com"] {
        for _ in 0..5 {
            service.person(address).registers().await;
        }
    }
    let limited = service.person("limited-without-key@example.com");
    assert_eq!(service.revoke_key(&key_in(&limited.mails()[0])).await.status, 204);
    let mut answers = Vec::new();
    for address in ["new", "pending", "active", "with-code", "revoked", "limited", "limited-without-key"] {
        for language in [None, Some("en"), Some("ja")] {
            let body = json!({"email": format!("{address}@example.com"), "language": language.unwrap_or("en")});
            answers.push((address, seen(&service.register(&body).await)));
        }
    }
    let (_, expected) = &answers[0];
    assert_eq!(expected.0, 202);
    for (address, answer) in &answers {
        assert_eq!(answer, expected, "{address}");
    }
}

// Mails of the deployment.

#[tokio::test]
async fn beyond_the_mails_of_the_deployment_registering_is_unavailable_and_leaves_nothing_behind() {
    let limits = Limits { mails_per_hour: Some(2), ..unlimited() };
    let service = service_at("10:59:58", limits).await;
    let (alice, bob) = (service.person("alice@example.com"), service.person("bob@example.com"));
    let key = alice.gets_a_key().await;
    alice.registers().await;
    let code = code_in(&alice.newest_mail());
    let addresses = |items: Vec<Value>| {
        let mut items = items;
        items.retain(|item| text(item, "pk") != "MAILS");
        items
    };
    let before = addresses(service.table.items().await);
    for person in [bob, alice] {
        let answer = person.tries_to_register().await;
        answer.assert_error(503, "SERVICE_UNAVAILABLE");
    }
    assert_eq!(addresses(service.table.items().await), before);
    assert_eq!(service.outbox.mails().len(), 2);
    assert!(service.counts(&key).await);
    service.clock.advance(SECOND);
    bob.tries_to_register().await.assert_error(503, "SERVICE_UNAVAILABLE");
    service.clock.advance(SECOND);
    bob.gets_a_key().await;
    alice.resets(&code).await;
}

#[tokio::test]
async fn the_log_says_once_that_the_mails_of_the_deployment_are_running_out_and_then_that_they_have() {
    let log = Log::default();
    let _here = tracing::subscriber::set_default(log.subscriber(LevelFilter::ERROR));
    let said = |text: &str| log.text().lines().filter(|line| line.contains(text)).count();
    let service = service_at("10:00:00", Limits { mails_per_hour: Some(10), ..unlimited() }).await;
    for number in 1..=12 {
        let address = format!("person-{number}@example.com");
        let answer = service.person(&address).tries_to_register().await;
        assert_eq!(answer.status, if number <= 10 { 202 } else { 503 }, "{}", answer.text);
        assert_eq!(said("four fifths of the deployment's mails of this hour are used"), usize::from(number >= 8));
        assert_eq!(said("the deployment's mails of this hour are used up"), usize::saturating_sub(number, 10));
    }
}

#[tokio::test]
async fn what_sends_no_mail_does_not_use_up_those_of_the_deployment() {
    let limits = Limits { mails_per_hour: Some(7), ..unlimited() };
    let service = service_at("10:00:00", limits).await;
    let alice = service.person("alice@example.com");
    for _ in 0..30 {
        alice.registers().await;
    }
    service.register(&json!({"email": "nobody"})).await.assert_invalid("email");
    service.register(&json!({"email": "a@example.com", "language": "fr"})).await.assert_invalid("language");
    alice.sends_code("x").await.assert_error(400, "INVALID_RESET_CODE");
    service.person("bob@example.com").registers().await;
    service.person("carol@example.com").registers().await;
    let answer = service.person("dave@example.com").tries_to_register().await;
    answer.assert_error(503, "SERVICE_UNAVAILABLE");
}

#[tokio::test]
async fn a_changed_key_is_told_even_when_the_mails_of_the_deployment_are_used_up() {
    let limits = Limits { mails_per_hour: Some(3), ..unlimited() };
    let service = service_at("10:00:00", limits).await;
    let (alice, bob) = (service.person("alice@example.com"), service.person("bob@example.com"));
    let first = alice.gets_a_key().await;
    bob.registers().await;
    let code = bob.gets_a_code().await;
    new_key(&service.regenerate(&first).await);
    bob.resets(&code).await;
    assert_eq!(alice.kinds(), [Kind::Welcome, Kind::KeyChanged]);
    assert_eq!(bob.kinds(), [Kind::Welcome, Kind::Recovery, Kind::KeyChanged]);
}

#[tokio::test]
async fn mails_about_changed_keys_do_not_use_up_those_of_the_deployment() {
    let limits = Limits { mails_per_hour: Some(2), ..unlimited() };
    let service = service_at("10:00:00", limits).await;
    let mut key = service.person("alice@example.com").gets_a_key().await;
    for _ in 0..3 {
        key = new_key(&service.regenerate(&key).await);
    }
    service.person("bob@example.com").gets_a_key().await;
}

// Calls from a network.

fn twenty_a_minute() -> Limits {
    Limits { calls_per_minute: Some(20), ..unlimited() }
}

#[track_caller]
fn assert_limited(answer: &Answer, seconds: u64) {
    answer.assert_error(429, "RATE_LIMITED");
    assert_eq!(answer.header("retry-after"), seconds.to_string());
}

/// Calls that are counted, none of which sends a mail.
async fn use_up(service: &Service, calls: usize) {
    for _ in 0..calls {
        let answer = service.person("nobody@example.com").sends_code("x").await;
        answer.assert_error(400, "INVALID_RESET_CODE");
    }
}

#[tokio::test]
async fn twenty_calls_a_minute_pass_and_the_rest_are_told_when_to_come_back() {
    let service = service_at("10:00:00", twenty_a_minute()).await;
    for place in 0..20 {
        service.person(&format!("person{place}@example.com")).registers().await;
    }
    let late = service.person("late@example.com");
    assert_limited(&late.tries_to_register().await, 60);
    service.clock.advance(SECOND * 31);
    assert_limited(&late.tries_to_register().await, 29);
    service.clock.advance(SECOND * 28);
    assert_limited(&late.tries_to_register().await, 1);
    service.clock.advance(Duration::from_millis(999));
    assert_limited(&late.tries_to_register().await, 1);
    assert!(late.mails().is_empty());
    service.clock.advance(Duration::from_millis(1));
    late.gets_a_key().await;
    use_up(&service, 19).await;
    assert_limited(&late.tries_to_register().await, 60);
}

#[tokio::test]
async fn the_minute_is_the_clocks() {
    let service = service_at("10:00:45", twenty_a_minute()).await;
    use_up(&service, 20).await;
    let alice = service.person("alice@example.com");
    assert_limited(&alice.tries_to_register().await, 15);
    service.clock.advance(SECOND * 15);
    use_up(&service, 20).await;
    assert_limited(&alice.tries_to_register().await, 60);
}

#[tokio::test]
async fn register_and_reset_are_counted_together() {
    let service = service_at("10:00:00", twenty_a_minute()).await;
    let alice = service.person("alice@example.com");
    alice.registers().await;
    let code = alice.gets_a_code().await;
    use_up(&service, 18).await;
    assert_limited(&alice.tries_to_register().await, 60);
    assert_limited(&alice.sends_code(&code).await, 60);
    service.clock.advance(MINUTE);
    alice.resets(&code).await;
}

#[tokio::test]
async fn bad_requests_count() {
    let service = service_at("10:00:00", twenty_a_minute()).await;
    let raw = |path: &str, content_type: &str, body: String| {
        service.send(service.request(Method::POST, path).header(header::CONTENT_TYPE, content_type).body(body))
    };
    for path in ["/api/v1/tokens", "/api/v1/tokens/reset"] {
        let bad = [
            (path, "application/json", "{}".to_owned(), 400),
            (path, "application/json", "{".to_owned(), 400),
            (path, "application/json", r#"{"email":1}"#.to_owned(), 400),
            (path, "application/json", r#"{"email":"x@example.com","x":1}"#.to_owned(), 400),
            (path, "application/json", "x".repeat(20_000), 413),
            (path, "text/plain", "{}".to_owned(), 415),
        ];
        for (path, content_type, body, status) in bad {
            assert_eq!(raw(path, content_type, body).await.status, status);
        }
        for query in ["?x=1", "?email=alice@example.com", "?code=x", "?language=en"] {
            assert_eq!(raw(&format!("{path}{query}"), "application/json", "{}".to_owned()).await.status, 400);
        }
    }
    assert_limited(&service.person("alice@example.com").tries_to_register().await, 60);
}

#[tokio::test]
async fn calls_that_need_a_key_are_neither_counted_nor_limited() {
    let service = service_at("10:00:00", twenty_a_minute()).await;
    let mut key = service.person("alice@example.com").gets_a_key().await;
    for _ in 0..15 {
        assert!(service.counts(&key).await);
        service.status("tg_anon_x").await.assert_error(401, "UNAUTHORIZED");
        service.call(Method::PUT, "/api/v1/tokens", &key).await.assert_error(405, "METHOD_NOT_ALLOWED");
        service.call(Method::POST, "/api/v1/tokens/nothing", &key).await.assert_error(404, "NOT_FOUND");
        key = new_key(&service.regenerate(&key).await);
    }
    use_up(&service, 19).await;
    assert_limited(&service.person("bob@example.com").tries_to_register().await, 60);
    key = new_key(&service.regenerate(&key).await);
    assert_eq!(service.revoke_key(&key).await.status, 204);
}

#[tokio::test]
async fn a_call_that_is_limited_changes_nothing_but_its_own_count() {
    let service = service_at("10:00:00", twenty_a_minute()).await;
    let alice = service.person("alice@example.com");
    let key = alice.gets_a_key().await;
    use_up(&service, 19).await;
    let without_counter = |mut items: Vec<Value>| {
        items.retain(|item| !text(item, "pk").starts_with("CALLS#"));
        items
    };
    let before = without_counter(service.table.items().await);
    for _ in 0..5 {
        assert_limited(&alice.tries_to_register().await, 60);
        assert_limited(&alice.sends_code("x").await, 60);
    }
    assert_eq!(without_counter(service.table.items().await), before);
    assert_eq!((service.outbox.mails().len(), service.counts(&key).await), (1, true));
}

#[tokio::test]
async fn whom_a_call_is_counted_for_is_for_no_header_to_say() {
    let service = service_at("10:00:00", twenty_a_minute()).await;
    for place in 0..21 {
        let address = format!("203.0.113.{place}");
        let mut request = service.request(Method::POST, "/api/v1/tokens/reset");
        for name in ["x-forwarded-for", "x-real-ip", "cf-connecting-ip", "true-client-ip", "x-client-ip"] {
            request = request.header(name, &address);
        }
        let request = request.header("forwarded", format!("for={address}"));
        let answer = service.send(request.json(&json!({"email": "a@example.com", "code": "x"}))).await;
        match place {
            20 => assert_limited(&answer, 60),
            _ => answer.assert_error(400, "INVALID_RESET_CODE"),
        }
    }
}

/// Only Linux answers on the whole of 127.0.0.0/8 without being told to.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn each_source_address_has_its_own_twenty() {
    let service = service_at("10:00:00", twenty_a_minute()).await;
    use_up(&service, 20).await;
    let alice = service.person("alice@example.com");
    assert_limited(&alice.tries_to_register().await, 60);
    let neighbour = reqwest::Client::builder().local_address(std::net::IpAddr::from([127, 0, 0, 2])).build().unwrap();
    let register = neighbour.post(format!("{}/api/v1/tokens", service.base_url));
    assert_accepted(&service.send(register.json(&json!({"email": "bob@example.com"}))).await);
    assert_limited(&alice.tries_to_register().await, 60);
}

#[tokio::test]
async fn of_fifty_calls_at_once_twenty_pass() {
    let service = service_at("10:00:00", twenty_a_minute()).await;
    let nobody = service.person("nobody@example.com");
    let answers = join_all((0..50).map(|_| nobody.sends_code("x"))).await;
    let (passed, limited): (Vec<&Answer>, Vec<&Answer>) = answers.iter().partition(|answer| answer.status == 400);
    limited.iter().for_each(|answer| assert_limited(answer, 60));
    assert_eq!((passed.len(), limited.len()), (20, 30));
}

#[tokio::test]
async fn every_counter_says_when_it_is_of_no_use_any_more() {
    let limits = Limits { calls_per_minute: Some(20), mails_per_hour: Some(100), ..unlimited() };
    let service = service_at("10:20:30", limits).await;
    service.person("alice@example.com").registers().await;
    let end = |time: &str| Moment::parse(&format!("2026-11-21T{time}Z")).unwrap().epoch_seconds();
    let items = service.table.items().await;
    let counters = items.iter().filter(|item| item.get("count").is_some());
    let mut found: Vec<(String, Value)> =
        counters.map(|item| (text(item, "pk").split('#').next().unwrap().to_owned(), item["ttl"].clone())).collect();
    found.sort_by(|a, b| a.0.cmp(&b.0));
    let expected = [("CALLS", end("10:21:00")), ("EMAIL", end("11:20:30")), ("MAILS", end("11:00:00"))];
    assert_eq!(found, expected.map(|(kind, end)| (kind.to_owned(), json!(end))));
}
