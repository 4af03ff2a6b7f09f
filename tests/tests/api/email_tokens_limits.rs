//! Limits of mails per address, mails per deployment, and calls per source address.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::future::join_all;
use reqwest::{Method, header};
use serde_json::{Value, json};
use shared::app::Limits;
use shared::{Clock, Moment};
use tests::email::{Kind, assert_accepted, code_in, new_token, token_in};
use tests::log::Log;
use tests::table::text;
use tests::{Answer, Service, mails_per_hour, unlimited};
use tracing_subscriber::filter::LevelFilter;

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(60 * 60);

/// A service with a manual clock at this time of day.
async fn service_at(time: &str, limits: Limits) -> Service {
    Service::start_with(Clock::manual(Moment::parse(&format!("2026-11-21T{time}Z")).unwrap()), limits).await
}

/// A response without what differs per request.
fn seen(answer: &Answer) -> (u16, BTreeMap<String, String>, String) {
    let ignored = ["x-request-id", "date", "x-test-cost"];
    let headers = answer.headers.iter().filter(|(name, _)| !ignored.contains(&name.as_str()));
    let headers = headers.map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned()));
    (answer.status.as_u16(), headers.collect(), answer.text.clone())
}

#[test]
fn default_limits_match_the_contract() {
    assert_eq!(Limits::default().calls_per_minute, Some(20));
}

// Mails per address

#[tokio::test]
async fn address_receives_at_most_five_mails_an_hour() {
    let service = Service::start_with_manual_clock().await;
    let alice = service.person("alice@example.com");
    for _ in 0..8 {
        alice.register().await;
    }
    let expected = [Kind::Welcome, Kind::Recovery, Kind::Recovery, Kind::Recovery, Kind::Recovery];
    assert_eq!(alice.mail_kinds(), expected);
    assert!(service.is_active(&token_in(&alice.mails()[0])).await);
    // Suppressed mails did not replace the mailed code.
    alice.reset_with(&code_in(&alice.newest_mail())).await;
}

#[tokio::test]
async fn registration_beyond_the_mail_limit_changes_nothing() {
    let service = Service::start_with_manual_clock().await;
    let alice = service.person("alice@example.com");
    for _ in 0..5 {
        alice.register().await;
    }
    let before = service.table.items().await;
    alice.register_in("ja").await;
    assert_eq!(service.table.items().await, before);
}

#[tokio::test]
async fn mail_limit_resets_an_hour_after_the_first_mail() {
    let service = Service::start_with_manual_clock().await;
    let alice = service.person("alice@example.com");
    alice.register().await;
    service.clock.advance(HOUR / 2);
    for _ in 0..4 {
        alice.register().await;
    }
    service.clock.advance(HOUR / 2 - SECOND);
    alice.register().await;
    assert_eq!(alice.mails().len(), 5);
    service.clock.advance(SECOND);
    for _ in 0..6 {
        alice.register().await;
    }
    assert_eq!(alice.mails().len(), 10);
    alice.reset_with(&code_in(&alice.newest_mail())).await;
}

#[tokio::test]
async fn revocation_does_not_reset_the_mail_limit() {
    let service = Service::start_with_manual_clock().await;
    let alice = service.person("alice@example.com");
    for _ in 0..5 {
        let key = alice.obtain_token().await;
        assert_eq!(service.revoke_email_token(&key).await.status, 204);
    }
    alice.register().await;
    assert_eq!(alice.mail_kinds(), [Kind::Welcome, Kind::KeyRemoved].repeat(5));
    assert!(alice.stored_tokens().await.is_empty(), "no token is created without a mail");
    service.clock.advance(HOUR);
    let key = alice.obtain_token().await;
    assert!(service.is_active(&key).await);
}

#[tokio::test]
async fn address_variants_share_one_mail_limit() {
    let service = Service::start_with_manual_clock().await;
    for spelling in
        ["a@bücher.example", "A@bücher.example", "a@BÜCHER.example", "a@xn--bcher-kva.example", " a@bücher.example"]
    {
        service.person(spelling).register().await;
        service.person("someone@else.example").register().await;
    }
    assert_eq!(service.outbox.mails().len(), 10);
    service.person("A@XN--BCHER-KVA.EXAMPLE").register().await;
    assert_eq!(service.outbox.mails().len(), 10);
    service.person("b@bücher.example").register().await;
    assert_eq!(service.outbox.mails().len(), 11);
}

#[tokio::test]
async fn key_changed_mails_do_not_count_against_the_address_limit() {
    let service = Service::start_with_manual_clock().await;
    let alice = service.person("alice@example.com");
    let mut key = alice.obtain_token().await;
    for _ in 0..6 {
        key = new_token(&service.regenerate(&key).await);
    }
    for _ in 0..3 {
        alice.recover().await;
    }
    let code = alice.request_code().await;
    alice.register().await;
    let kinds = alice.mail_kinds();
    let count = |kind| kinds.iter().filter(|sent| **sent == kind).count();
    assert_eq!((count(Kind::Welcome), count(Kind::Recovery), count(Kind::KeyChanged)), (1, 4, 9));
    // The mail limit does not suppress them either.
    alice.reset_with(&code).await;
    assert_eq!(alice.mail_kinds().last(), Some(&Kind::KeyChanged));
}

#[tokio::test]
async fn key_changed_mails_are_capped_at_ten_an_hour() {
    let service = service_at("10:20:00", unlimited()).await;
    let alice = service.person("alice@example.com");
    let mut key = alice.obtain_token().await;
    let code = alice.request_code().await;
    for _ in 0..12 {
        key = new_token(&service.regenerate(&key).await);
    }
    alice.reset_with(&code).await;
    let notified = || alice.mail_kinds().iter().filter(|kind| **kind == Kind::KeyChanged).count();
    assert_eq!(notified(), 10);
    // Other mails to the address are still sent.
    service.clock.advance(HOUR * 2 / 3 - SECOND);
    let key = alice.recover().await;
    assert_eq!(notified(), 10);
    service.clock.advance(SECOND);
    new_token(&service.regenerate(&key).await);
    assert_eq!(notified(), 11);
}

#[tokio::test]
async fn registration_response_does_not_reveal_known_addresses() {
    let service = Service::start_with_manual_clock().await;
    let revoked = service.person("revoked@example.com").obtain_token().await;
    assert_eq!(service.revoke_email_token(&revoked).await.status, 204);
    service.person("pending@example.com").register().await;
    let active = service.person("active@example.com").obtain_token().await;
    new_token(&service.regenerate(&active).await);
    service.person("with-code@example.com").register().await;
    service.person("with-code@example.com").register().await;
    for address in ["limited@example.com", "limited-without-key@example.com"] {
        for _ in 0..5 {
            service.person(address).register().await;
        }
    }
    let limited = service.person("limited-without-key@example.com");
    assert_eq!(service.revoke_email_token(&token_in(&limited.mails()[0])).await.status, 204);
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

// Mails per deployment

#[tokio::test]
async fn registration_beyond_the_deployment_mail_limit_has_no_side_effects() {
    let limits = mails_per_hour(2);
    let service = service_at("10:59:58", limits).await;
    let (alice, bob) = (service.person("alice@example.com"), service.person("bob@example.com"));
    let key = alice.obtain_token().await;
    alice.register().await;
    let code = code_in(&alice.newest_mail());
    let addresses = |items: Vec<Value>| {
        let mut items = items;
        items.retain(|item| !text(item, "pk").starts_with("MAILS"));
        items
    };
    let before = addresses(service.table.items().await);
    for person in [bob, alice] {
        person.register().await;
    }
    assert_eq!(addresses(service.table.items().await), before);
    assert_eq!(service.outbox.mails().len(), 2);
    assert!(service.is_active(&key).await);
    service.clock.advance(SECOND);
    bob.register().await;
    assert!(bob.mails().is_empty());
    service.clock.advance(SECOND);
    bob.obtain_token().await;
    alice.reset_with(&code).await;
}

#[tokio::test]
async fn deployment_mail_limit_is_logged_at_80_percent_and_when_exhausted() {
    let log = Log::default();
    let _here = tracing::subscriber::set_default(log.subscriber(LevelFilter::ERROR));
    let said = |text: &str| log.text().lines().filter(|line| line.contains(text)).count();
    let service = service_at("10:00:00", mails_per_hour(10)).await;
    for number in 1..=12 {
        // The last fifth is kept for addresses with a token.
        let address = format!("person-{}@example.com", if number > 8 { number - 8 } else { number });
        service.person(&address).register().await;
        assert_eq!(said("80 percent of the hourly mail limit of the deployment is used"), usize::from(number >= 8));
        assert_eq!(said("the hourly mail limit of the deployment is reached"), usize::saturating_sub(number, 10));
    }
}

#[tokio::test]
async fn calls_without_mail_do_not_consume_the_deployment_limit() {
    let limits = mails_per_hour(7);
    let service = service_at("10:00:00", limits).await;
    let alice = service.person("alice@example.com");
    for _ in 0..30 {
        alice.register().await;
    }
    service.register(&json!({"email": "nobody"})).await.assert_invalid("email");
    service.register(&json!({"email": "a@example.com", "language": "fr"})).await.assert_invalid("language");
    alice.submit_code("x").await.assert_error(400, "INVALID_RESET_CODE");
    service.person("bob@example.com").register().await;
    service.person("carol@example.com").register().await;
    service.person("dave@example.com").register().await;
    assert_eq!(service.outbox.mails().len(), 7);
}

#[tokio::test]
async fn key_changed_mail_is_sent_despite_exhausted_deployment_limit() {
    let limits = mails_per_hour(3);
    let service = service_at("10:00:00", limits).await;
    let (alice, bob) = (service.person("alice@example.com"), service.person("bob@example.com"));
    let first = alice.obtain_token().await;
    bob.register().await;
    let code = bob.request_code().await;
    new_token(&service.regenerate(&first).await);
    bob.reset_with(&code).await;
    assert_eq!(alice.mail_kinds(), [Kind::Welcome, Kind::KeyChanged]);
    assert_eq!(bob.mail_kinds(), [Kind::Welcome, Kind::Recovery, Kind::KeyChanged]);
}

#[tokio::test]
async fn removal_is_announced_beyond_every_mail_limit() {
    let service = service_at("10:00:00", mails_per_hour(5)).await;
    let alice = service.person("alice@example.com");
    let mut key = alice.obtain_token().await;
    for _ in 0..4 {
        alice.register().await;
    }
    for _ in 0..12 {
        key = new_token(&service.regenerate(&key).await);
    }
    service.person("bob@example.com").register().await;
    assert!(service.person("bob@example.com").mails().is_empty(), "the limit is reached");
    assert_eq!(service.revoke_email_token(&key).await.status, 204);
    assert_eq!(alice.mail_kinds().last(), Some(&Kind::KeyRemoved));
}

#[tokio::test]
async fn key_removed_mails_do_not_consume_the_deployment_limit() {
    let service = service_at("10:00:00", mails_per_hour(5)).await;
    for name in ["alice", "bob", "carol", "dave"] {
        let key = service.person(&format!("{name}@example.com")).obtain_token().await;
        assert_eq!(service.revoke_email_token(&key).await.status, 204);
    }
}

#[tokio::test]
async fn key_changed_mails_do_not_consume_the_deployment_limit() {
    let limits = mails_per_hour(3);
    let service = service_at("10:00:00", limits).await;
    let mut key = service.person("alice@example.com").obtain_token().await;
    for _ in 0..3 {
        key = new_token(&service.regenerate(&key).await);
    }
    service.person("bob@example.com").obtain_token().await;
}

// Calls per source address

fn twenty_a_minute() -> Limits {
    Limits { calls_per_minute: Some(20), ..unlimited() }
}

#[track_caller]
fn assert_limited(answer: &Answer, seconds: u64) {
    answer.assert_error(429, "RATE_LIMITED");
    assert_eq!(answer.header("retry-after"), seconds.to_string());
}

/// Makes counted calls that send no mail.
async fn use_up(service: &Service, calls: usize) {
    for _ in 0..calls {
        let answer = service.person("nobody@example.com").submit_code("x").await;
        answer.assert_error(400, "INVALID_RESET_CODE");
    }
}

#[tokio::test]
async fn calls_beyond_twenty_a_minute_are_429_with_retry_after() {
    let service = service_at("10:00:00", twenty_a_minute()).await;
    for place in 0..20 {
        service.person(&format!("person{place}@example.com")).register().await;
    }
    let late = service.person("late@example.com");
    assert_limited(&late.try_register().await, 60);
    service.clock.advance(SECOND * 31);
    assert_limited(&late.try_register().await, 29);
    service.clock.advance(SECOND * 28);
    assert_limited(&late.try_register().await, 1);
    service.clock.advance(Duration::from_millis(999));
    assert_limited(&late.try_register().await, 1);
    assert!(late.mails().is_empty());
    service.clock.advance(Duration::from_millis(1));
    late.obtain_token().await;
    use_up(&service, 19).await;
    assert_limited(&late.try_register().await, 60);
}

#[tokio::test]
async fn rate_limit_window_is_the_clock_minute() {
    let service = service_at("10:00:45", twenty_a_minute()).await;
    use_up(&service, 20).await;
    let alice = service.person("alice@example.com");
    assert_limited(&alice.try_register().await, 15);
    service.clock.advance(SECOND * 15);
    use_up(&service, 20).await;
    assert_limited(&alice.try_register().await, 60);
}

#[tokio::test]
async fn register_and_reset_share_one_rate_limit() {
    let service = service_at("10:00:00", twenty_a_minute()).await;
    let alice = service.person("alice@example.com");
    alice.register().await;
    let code = alice.request_code().await;
    use_up(&service, 18).await;
    assert_limited(&alice.try_register().await, 60);
    assert_limited(&alice.submit_code(&code).await, 60);
    service.clock.advance(MINUTE);
    alice.reset_with(&code).await;
}

#[tokio::test]
async fn invalid_requests_count_against_the_rate_limit() {
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
            (path, "application/json", "[]".to_owned(), 400),
        ];
        for (path, content_type, body, status) in bad {
            assert_eq!(raw(path, content_type, body).await.status, status);
        }
        for query in ["?x=1", "?email=alice@example.com", "?code=x", "?language=en"] {
            assert_eq!(raw(&format!("{path}{query}"), "application/json", "{}".to_owned()).await.status, 400);
        }
    }
    assert_limited(&service.person("alice@example.com").try_register().await, 60);
}

/// A page that anybody in an office opens can send these from the office's address.
#[tokio::test]
async fn bodies_that_any_web_page_can_send_do_not_count_against_the_rate_limit() {
    let service = service_at("10:00:00", twenty_a_minute()).await;
    let send = async |path: &str, content_type: Option<&str>| {
        let request = service.request(Method::POST, path).body(r#"{"email":"x@example.com","code":"x"}"#);
        let request = content_type.iter().fold(request, |request, kind| request.header(header::CONTENT_TYPE, *kind));
        service.send(request).await.assert_error(415, "UNSUPPORTED_MEDIA_TYPE");
    };
    let kinds = [None, Some("text/plain"), Some("application/x-www-form-urlencoded"), Some("multipart/form-data")];
    for _ in 0..10 {
        for kind in kinds {
            send("/api/v1/tokens", kind).await;
            send("/api/v1/tokens/reset", kind).await;
        }
    }
    use_up(&service, 20).await;
    assert_limited(&service.person("alice@example.com").try_register().await, 60);
    assert!(service.outbox.mails().is_empty());
}

#[tokio::test]
async fn authenticated_calls_are_not_rate_limited() {
    let service = service_at("10:00:00", twenty_a_minute()).await;
    let mut key = service.person("alice@example.com").obtain_token().await;
    for _ in 0..15 {
        assert!(service.is_active(&key).await);
        service.status("tg_anon_x").await.assert_error(401, "UNAUTHORIZED");
        service.call(Method::PUT, "/api/v1/tokens", &key).await.assert_error(405, "METHOD_NOT_ALLOWED");
        service.call(Method::POST, "/api/v1/tokens/nothing", &key).await.assert_error(404, "NOT_FOUND");
        key = new_token(&service.regenerate(&key).await);
    }
    use_up(&service, 19).await;
    assert_limited(&service.person("bob@example.com").try_register().await, 60);
    key = new_token(&service.regenerate(&key).await);
    assert_eq!(service.revoke_email_token(&key).await.status, 204);
}

#[tokio::test]
async fn rate_limited_call_changes_only_its_counter() {
    let service = service_at("10:00:00", twenty_a_minute()).await;
    let alice = service.person("alice@example.com");
    let key = alice.obtain_token().await;
    use_up(&service, 19).await;
    let without_counter = |mut items: Vec<Value>| {
        items.retain(|item| !text(item, "pk").starts_with("CALLS#"));
        items
    };
    let before = without_counter(service.table.items().await);
    for _ in 0..5 {
        assert_limited(&alice.try_register().await, 60);
        assert_limited(&alice.submit_code("x").await, 60);
    }
    assert_eq!(without_counter(service.table.items().await), before);
    assert_eq!((service.outbox.mails().len(), service.is_active(&key).await), (1, true));
}

#[tokio::test]
async fn rate_limit_ignores_forwarded_headers() {
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

/// Only Linux accepts all of 127.0.0.0/8 by default.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn rate_limit_is_per_source_address() {
    let service = service_at("10:00:00", twenty_a_minute()).await;
    use_up(&service, 20).await;
    let alice = service.person("alice@example.com");
    assert_limited(&alice.try_register().await, 60);
    let neighbour = reqwest::Client::builder().local_address(std::net::IpAddr::from([127, 0, 0, 2])).build().unwrap();
    let register = neighbour.post(format!("{}/api/v1/tokens", service.base_url));
    assert_accepted(&service.send(register.json(&json!({"email": "bob@example.com"}))).await);
    assert_limited(&alice.try_register().await, 60);
}

#[tokio::test]
async fn concurrent_calls_cannot_exceed_the_rate_limit() {
    let service = service_at("10:00:00", twenty_a_minute()).await;
    let nobody = service.person("nobody@example.com");
    let answers = join_all((0..50).map(|_| nobody.submit_code("x"))).await;
    let (passed, limited): (Vec<&Answer>, Vec<&Answer>) = answers.iter().partition(|answer| answer.status == 400);
    limited.iter().for_each(|answer| assert_limited(answer, 60));
    assert_eq!((passed.len(), limited.len()), (20, 30));
}

#[tokio::test]
async fn every_counter_has_a_ttl() {
    let limits = Limits { calls_per_minute: Some(20), ..mails_per_hour(100) };
    let service = service_at("10:20:30", limits).await;
    service.person("alice@example.com").register().await;
    let end = |time: &str| Moment::parse(&format!("2026-11-21T{time}Z")).unwrap().epoch_seconds();
    let items = service.table.items().await;
    let counters = items.iter().filter(|item| item.get("count").is_some());
    let mut found: Vec<(String, Value)> =
        counters.map(|item| (text(item, "pk").split('#').next().unwrap().to_owned(), item["ttl"].clone())).collect();
    found.sort_by(|a, b| a.0.cmp(&b.0));
    let mails = ("MAILS", end("11:00:00"));
    // Mails of the deployment, to new addresses, to the mailbox, to the domain and from the source.
    let expected = [("CALLS", end("10:21:00")), ("EMAIL", end("11:20:30")), mails, mails, mails];
    assert_eq!(found, expected.map(|(kind, end)| (kind.to_owned(), json!(end))));
}
