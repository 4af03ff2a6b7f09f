//! The life of an address, arrow by arrow: `shared::store::email_tokens` has the diagram.

#![allow(clippy::unwrap_used)] // An arrow that leads nowhere has failed.

use std::time::Duration;

use reqwest::Method;
use serde_json::json;
use shared::email::Language::{En, Ja};
use tests::email::{Kind, assert_accepted, code_in, is_code, is_key, key_in, kind_of, new_key};
use tests::{Answer, Service};

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(60 * 60);

async fn service() -> Service {
    Service::start_with_manual_clock().await
}

#[track_caller]
fn assert_no_code(answer: &Answer) {
    answer.assert_error(400, "INVALID_RESET_CODE");
    assert!(answer.json()["error"].get("details").is_none(), "{}", answer.text);
}

fn without_request_id(answer: &Answer) -> String {
    answer.text.replace(answer.header("x-request-id"), "(id)")
}

/// A code that was never sent.
const MADE_UP: &str = "0123-4567-89AB-CDEF";

// No living key → living key, no code.

#[tokio::test]
async fn a_new_address_is_mailed_a_key_that_works_at_once() {
    let service = service().await;
    let alice = service.person("alice@example.com");
    assert_accepted(&alice.tries_to_register().await);
    assert_eq!(alice.kinds(), [Kind::Welcome]);
    let key = key_in(&alice.newest_mail());
    assert!(service.counts(&key).await);
    service.assert_addresses_sound(&[&key]).await;
}

#[tokio::test]
async fn status_says_what_is_known_of_the_key() {
    let service = service().await;
    let key = service.person("alice@example.com").gets_a_key().await;
    let answer = service.status(&key).await;
    let id = answer.json()["id"].as_str().unwrap().to_owned();
    assert_eq!((id.len(), answer.header("cache-control")), (26, "no-store"));
    let expected = json!({
        "id": id,
        "status": "pending",
        "email": "a***@example.com",
        "language": "en",
        "created_at": "2026-11-21T10:00:00Z",
        "last_used_at": null,
        "usage": {"total": 0, "last_30_days": []},
    });
    assert_eq!(answer.json(), expected);
}

#[tokio::test]
async fn reading_the_status_is_no_use_of_the_key() {
    let service = service().await;
    let key = service.person("alice@example.com").gets_a_key().await;
    let before = service.table.items().await;
    for _ in 0..3 {
        service.clock.advance(HOUR);
        let status = service.status(&key).await.json();
        assert_eq!((&status["status"], &status["last_used_at"]), (&json!("pending"), &json!(null)));
    }
    assert_eq!(service.table.items().await, before);
}

#[tokio::test]
async fn a_key_is_pending_until_it_is_first_used() {
    let service = service().await;
    let key = service.person("alice@example.com").gets_a_key().await;
    service.clock.advance(HOUR);
    assert_eq!(service.call(Method::GET, "/v1/whoami", &key).await.status, 200);
    let status = service.status(&key).await.json();
    assert_eq!((&status["status"], &status["last_used_at"]), (&json!("active"), &json!("2026-11-21T11:00:00Z")));
}

#[tokio::test]
async fn two_addresses_have_two_keys() {
    let service = service().await;
    let (alice, bob) = (service.person("alice@example.com"), service.person("bob@example.com"));
    let (alices, bobs) = (alice.gets_a_key().await, bob.gets_a_key().await);
    assert_ne!(alices, bobs);
    assert_eq!(service.revoke_key(&alices).await.status, 204);
    assert!(service.counts(&bobs).await);
    assert_eq!((alice.mails().len(), bob.mails().len()), (1, 1));
}

// Living key → living key: regenerate.

#[tokio::test]
async fn regenerating_answers_a_new_key_and_kills_the_old_one_at_once() {
    let service = service().await;
    let alice = service.person("alice@example.com");
    let old = alice.gets_a_key().await;
    let old_id = service.status(&old).await.json()["id"].clone();
    service.clock.advance(SECOND);
    let answer = service.regenerate(&old).await;
    let new = new_key(&answer);
    let body = answer.json();
    assert_eq!(answer.header("cache-control"), "no-store");
    let expected = json!({
        "token": new,
        "id": body["id"],
        "token_prefix": new[..12],
        "status": "active",
        "created_at": "2026-11-21T10:00:01Z",
    });
    assert_eq!(body, expected);
    assert_ne!(body["id"], old_id);
    for answer in [service.status(&old).await, service.regenerate(&old).await, service.revoke_key(&old).await] {
        answer.assert_error(401, "UNAUTHORIZED");
    }
    assert_eq!(service.status(&new).await.json()["status"], "active", "the old key was used to make it");
    service.assert_addresses_sound(&[&old, &new]).await;
}

#[tokio::test]
async fn a_mail_tells_of_a_changed_key_without_showing_it() {
    let service = service().await;
    let alice = service.person("alice@example.com");
    let first = alice.gets_a_key().await;
    let second = new_key(&service.regenerate(&first).await);
    let code = alice.gets_a_code().await;
    let third = alice.resets(&code).await;
    assert_eq!(alice.kinds(), [Kind::Welcome, Kind::KeyChanged, Kind::Recovery, Kind::KeyChanged]);
    for mail in alice.mails().iter().filter(|mail| kind_of(mail).0 == Kind::KeyChanged) {
        let source = mail.source.to_string();
        for secret in [&first, &second, &third, &code] {
            assert!(!source.contains(secret.as_str()), "{source}");
        }
    }
}

#[tokio::test]
async fn a_code_outlives_the_key_that_it_was_asked_for() {
    let service = service().await;
    let alice = service.person("alice@example.com");
    let first = alice.gets_a_key().await;
    let code = alice.gets_a_code().await;
    let second = new_key(&service.regenerate(&first).await);
    let third = alice.resets(&code).await;
    assert_eq!(service.counting([&first, &second, &third]).await, [&third]);
}

// Living key → living key, code: register.

#[tokio::test]
async fn registering_again_mails_a_code_and_leaves_the_key_as_it_is() {
    let service = service().await;
    let alice = service.person("alice@example.com");
    let key = alice.gets_a_key().await;
    let before = service.status(&key).await.text;
    let code = alice.gets_a_code().await;
    assert!(is_code(&code), "{code}");
    assert_eq!(alice.kinds(), [Kind::Welcome, Kind::Recovery]);
    let recovery = alice.newest_mail();
    assert!(!recovery.source.to_string().contains(&key));
    assert_eq!(service.status(&key).await.text, before);
    service.assert_addresses_sound(&[&key, &code]).await;
}

#[tokio::test]
async fn a_newer_code_takes_the_place_of_an_older_one() {
    let service = service().await;
    let alice = service.person("alice@example.com");
    alice.registers().await;
    let codes = [alice.gets_a_code().await, alice.gets_a_code().await, alice.gets_a_code().await];
    for old in &codes[..2] {
        assert_no_code(&alice.sends_code(old).await);
    }
    alice.resets(&codes[2]).await;
}

// Living key, code → living key: reset.

#[tokio::test]
async fn a_code_is_swapped_for_a_new_key_and_the_old_one_dies_at_once() {
    let service = service().await;
    let alice = service.person("alice@example.com");
    let old = alice.gets_a_key().await;
    let code = alice.gets_a_code().await;
    let answer = alice.sends_code(&code).await;
    let new = new_key(&answer);
    assert_eq!((&answer.json()["status"], answer.header("cache-control")), (&json!("active"), "no-store"));
    assert_eq!(service.counting([&old, &new]).await, [&new]);
    assert_eq!(service.status(&new).await.json()["status"], "active", "who sent the code has the key");
    service.assert_addresses_sound(&[&old, &new, &code]).await;
}

#[tokio::test]
async fn a_code_works_once() {
    let service = service().await;
    let alice = service.person("alice@example.com");
    alice.registers().await;
    let code = alice.gets_a_code().await;
    let key = alice.resets(&code).await;
    for _ in 0..2 {
        assert_no_code(&alice.sends_code(&code).await);
    }
    assert!(service.counts(&key).await);
}

#[tokio::test]
async fn a_code_lives_for_exactly_one_hour() {
    let service = service().await;
    let (alice, bob) = (service.person("alice@example.com"), service.person("bob@example.com"));
    alice.registers().await;
    let bobs = bob.gets_a_key().await;
    let (alices_code, bobs_code) = (alice.gets_a_code().await, bob.gets_a_code().await);
    service.clock.advance(HOUR - SECOND);
    alice.resets(&alices_code).await;
    service.clock.advance(SECOND);
    assert_no_code(&bob.sends_code(&bobs_code).await);
    assert!(service.counts(&bobs).await, "the key outlives the code");
    bob.recovers().await;
}

#[tokio::test]
async fn a_code_may_be_typed_in_any_case_without_dashes_and_with_look_alikes() {
    let service = service().await;
    let typings: [fn(&str) -> String; 6] = [
        str::to_lowercase,
        |code| code.replace('-', ""),
        |code| format!("  {code}\n"),
        |code| code.replace('1', "I").replace('0', "O"),
        |code| code.replace('1', "l").replace('0', "o").replace('-', "").to_lowercase(),
        |code| format!("-{}-", code.replace('1', "L").replace('-', "--")),
    ];
    for (place, typing) in typings.iter().enumerate() {
        let address = format!("person{place}@example.com");
        let person = service.person(&address);
        person.registers().await;
        // A code that has both digits that others look like, so that the typing makes a difference.
        let code = loop {
            let code = person.gets_a_code().await;
            if code.contains('0') && code.contains('1') {
                break code;
            }
            service.clock.advance(HOUR / 4);
        };
        person.resets(&typing(&code)).await;
    }
}

#[tokio::test]
async fn the_address_of_a_code_may_be_spelled_in_any_way() {
    let service = service().await;
    let person = service.person("You@bücher.example");
    person.registers().await;
    for spelling in
        ["you@BÜCHER.example", "YOU@xn--bcher-kva.example", "  you@bücher.example\n", "you@bu\u{308}cher.example"]
    {
        let code = person.gets_a_code().await;
        service.person(spelling).resets(&code).await;
    }
}

#[tokio::test]
async fn whatever_is_no_live_code_is_answered_alike() {
    let service = service().await;
    let (alice, bob) = (service.person("alice@example.com"), service.person("bob@example.com"));
    let key = alice.gets_a_key().await;
    bob.registers().await;
    let bobs = bob.gets_a_code().await;
    let old = alice.gets_a_code().await;
    let live = alice.gets_a_code().await;
    let wrong_last = format!("{}{}", &live[..18], if live.ends_with('0') { '1' } else { '0' });
    let long = "0".repeat(10_000);
    let others = [
        MADE_UP,
        &old,
        &bobs,
        &wrong_last,
        &live[..18],
        &live.replace('-', " "),
        &format!("{live}0"),
        &format!("{live}\0"),
        &live.replacen(&live[..1], "U", 1),
        &live.replacen(&live[..1], "\u{ff10}", 1),
        &key,
        "",
        "-",
        "' OR 1=1 --",
        "\u{1f511}",
        &long,
    ];
    let expected = without_request_id(&service.person("nobody@example.com").sends_code(&live).await);
    for other in others {
        let answer = alice.sends_code(other).await;
        assert_no_code(&answer);
        assert_eq!(without_request_id(&answer), expected, "{other}");
    }
    alice.resets(&live).await;
    bob.resets(&bobs).await;
}

#[tokio::test]
async fn wrong_tries_do_not_kill_a_code() {
    let service = service().await;
    let alice = service.person("alice@example.com");
    alice.registers().await;
    let code = alice.gets_a_code().await;
    for _ in 0..50 {
        assert_no_code(&alice.sends_code(MADE_UP).await);
    }
    alice.resets(&code).await;
}

#[tokio::test]
async fn a_code_for_another_address_is_none_and_stays_good_for_its_own() {
    let service = service().await;
    let (alice, mallory) = (service.person("alice@example.com"), service.person("mallory@example.com"));
    let alices = alice.gets_a_key().await;
    mallory.registers().await;
    let mallorys_code = mallory.gets_a_code().await;
    assert_no_code(&alice.sends_code(&mallorys_code).await);
    assert!(service.counts(&alices).await);
    let alices_code = alice.gets_a_code().await;
    assert_no_code(&alice.sends_code(&mallorys_code).await);
    assert_no_code(&mallory.sends_code(&alices_code).await);
    mallory.resets(&mallorys_code).await;
    alice.resets(&alices_code).await;
}

// Living key, with or without code → no living key: revoke.

#[tokio::test]
async fn revoking_answers_nothing_and_kills_the_key_at_once() {
    let service = service().await;
    let alice = service.person("alice@example.com");
    let key = alice.gets_a_key().await;
    let answer = service.revoke_key(&key).await;
    assert_eq!((answer.status.as_u16(), answer.text.as_str()), (204, ""));
    for answer in [service.status(&key).await, service.regenerate(&key).await, service.revoke_key(&key).await] {
        answer.assert_error(401, "UNAUTHORIZED");
    }
    assert_eq!(alice.kinds(), [Kind::Welcome]);
    assert!(alice.stored_keys().await.is_empty());
}

#[tokio::test]
async fn revoking_kills_a_code_too_for_good() {
    let service = service().await;
    let alice = service.person("alice@example.com");
    let first = alice.gets_a_key().await;
    let code = alice.gets_a_code().await;
    assert_eq!(service.revoke_key(&first).await.status, 204);
    assert_no_code(&alice.sends_code(&code).await);
    let second = alice.gets_a_key().await;
    assert_no_code(&alice.sends_code(&code).await);
    assert!(service.counts(&second).await);
}

#[tokio::test]
async fn after_revoking_an_address_registers_afresh() {
    let service = service().await;
    let alice = service.person("Alice@example.com");
    alice.registers_in("ja").await;
    let first = key_in(&alice.newest_mail());
    let before = service.status(&first).await.json();
    assert_eq!(service.revoke_key(&first).await.status, 204);
    service.clock.advance(SECOND);
    service.person("ALICE@example.com").registers().await;
    let mail = alice.newest_mail();
    assert_eq!((kind_of(&mail), mail.to.as_str()), ((Kind::Welcome, En), "ALICE@example.com"));
    let second = key_in(&mail);
    let after = service.status(&second).await.json();
    assert_ne!(first, second);
    assert_ne!(before["id"], after["id"]);
    assert_eq!((&after["status"], &after["language"]), (&json!("pending"), &json!("en")));
    assert_eq!(service.counting([&first, &second]).await, [&second]);
    service.assert_addresses_sound(&[&first, &second]).await;
}

// Languages and spellings.

#[tokio::test]
async fn the_first_mail_is_english_unless_the_request_says_otherwise() {
    let service = service().await;
    for (body, language, stored) in [
        (json!({"email": "a@example.com"}), En, "en"),
        (json!({"email": "b@example.com", "language": "en"}), En, "en"),
        (json!({"email": "c@example.com", "language": "ja"}), Ja, "ja"),
        (json!({"email": "d@example.com", "language": null}), En, "en"),
    ] {
        assert_accepted(&service.register(&body).await);
        let mail = service.person(body["email"].as_str().unwrap()).newest_mail();
        assert_eq!(kind_of(&mail).1, language, "{body}");
        assert_eq!(service.status(&key_in(&mail)).await.json()["language"], stored, "{body}");
    }
}

#[tokio::test]
async fn a_mail_speaks_the_language_of_the_request_else_the_stored_one() {
    let service = service().await;
    let alice = service.person("alice@example.com");
    alice.registers_in("ja").await;
    let key = key_in(&alice.newest_mail());
    alice.registers().await;
    assert_eq!(kind_of(&alice.newest_mail()), (Kind::Recovery, Ja));
    alice.registers_in("en").await;
    assert_eq!(kind_of(&alice.newest_mail()), (Kind::Recovery, En));
    alice.registers().await;
    assert_eq!(kind_of(&alice.newest_mail()), (Kind::Recovery, Ja), "nobody has proved to read the English one");
    assert_eq!(service.status(&key).await.json()["language"], "ja");
    new_key(&service.regenerate(&key).await);
    assert_eq!(kind_of(&alice.newest_mail()), (Kind::KeyChanged, Ja));
}

#[tokio::test]
async fn a_new_language_is_stored_when_the_code_comes_back() {
    let service = service().await;
    let alice = service.person("alice@example.com");
    alice.registers_in("ja").await;
    alice.registers_in("en").await;
    let key = alice.resets(&code_in(&alice.newest_mail())).await;
    assert_eq!(kind_of(&alice.newest_mail()), (Kind::KeyChanged, En));
    assert_eq!(service.status(&key).await.json()["language"], "en");
    alice.registers().await;
    assert_eq!(kind_of(&alice.newest_mail()), (Kind::Recovery, En));
}

#[tokio::test]
async fn the_language_of_a_code_that_was_replaced_is_forgotten() {
    let service = service().await;
    let alice = service.person("alice@example.com");
    alice.registers().await;
    alice.registers_in("ja").await;
    alice.registers().await;
    let key = alice.resets(&code_in(&alice.newest_mail())).await;
    assert_eq!(service.status(&key).await.json()["language"], "en");
}

#[tokio::test]
async fn mails_go_to_the_spelling_that_the_key_was_sent_to() {
    let service = service().await;
    let alice = service.person("O'Alice@bücher.example");
    let key = alice.gets_a_key().await;
    service.person("o'alice@BÜCHER.EXAMPLE").registers().await;
    service.person("O'ALICE@xn--bcher-kva.example").registers().await;
    new_key(&service.regenerate(&key).await);
    let recipients: Vec<String> = alice.mails().into_iter().map(|mail| mail.to).collect();
    assert_eq!(recipients, ["O'Alice@xn--bcher-kva.example"; 4]);
    assert_eq!(alice.kinds(), [Kind::Welcome, Kind::Recovery, Kind::Recovery, Kind::KeyChanged]);
}

#[tokio::test]
async fn an_address_of_one_letter_shows_none_of_it() {
    let service = service().await;
    let key = service.person("x@example.com").gets_a_key().await;
    assert_eq!(service.status(&key).await.json()["email"], "***@example.com");
}

#[tokio::test]
async fn every_key_has_the_form_of_the_contract() {
    let service = service().await;
    let alice = service.person("alice@example.com");
    let first = alice.gets_a_key().await;
    let second = new_key(&service.regenerate(&first).await);
    let third = alice.recovers().await;
    for key in [&first, &second, &third] {
        assert!(is_key(key) && key.len() == 50, "{key}");
    }
}
