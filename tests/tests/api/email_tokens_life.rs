//! The life cycle of an email-verified token, transition by transition, as in the diagram of
//! `shared::store::email_tokens`.

use std::time::Duration;

use reqwest::Method;
use serde_json::json;
use shared::email::Language::{En, Ja};
use shared::ids::TokenId;
use tests::email::{Kind, assert_accepted, code_in, is_code, is_token, kind_of, new_token, token_in};
use tests::{Answer, Service, operator};

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

/// A well-formed code that was never sent.
const UNKNOWN_CODE: &str = "0123-4567-89AB-CDEF";

// No active token → active token without code: register

#[tokio::test]
async fn new_address_receives_a_working_token_by_mail() {
    let service = service().await;
    let alice = service.person("alice@example.com");
    assert_accepted(&alice.try_register().await);
    assert_eq!(alice.mail_kinds(), [Kind::Welcome]);
    let key = token_in(&alice.newest_mail());
    assert!(service.is_active(&key).await);
    service.assert_sound_without(&[&key]).await;
}

#[tokio::test]
async fn status_returns_the_documented_fields() {
    let service = service().await;
    let key = service.person("alice@example.com").obtain_token().await;
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
async fn reading_status_does_not_update_last_used_at() {
    let service = service().await;
    let key = service.person("alice@example.com").obtain_token().await;
    let before = service.table.items().await;
    for _ in 0..3 {
        service.clock.advance(HOUR);
        let status = service.status(&key).await.json();
        assert_eq!((&status["status"], &status["last_used_at"]), (&json!("pending"), &json!(null)));
    }
    assert_eq!(service.table.items().await, before);
}

#[tokio::test]
async fn token_is_pending_until_first_use() {
    let service = service().await;
    let key = service.person("alice@example.com").obtain_token().await;
    service.clock.advance(HOUR);
    assert_eq!(service.call(Method::GET, "/v1/whoami", &key).await.status, 200);
    let status = service.status(&key).await.json();
    assert_eq!((&status["status"], &status["last_used_at"]), (&json!("active"), &json!("2026-11-21T11:00:00Z")));
}

#[tokio::test]
async fn tokens_of_different_addresses_are_independent() {
    let service = service().await;
    let (alice, bob) = (service.person("alice@example.com"), service.person("bob@example.com"));
    let (alices, bobs) = (alice.obtain_token().await, bob.obtain_token().await);
    assert_ne!(alices, bobs);
    assert_eq!(service.revoke_email_token(&alices).await.status, 204);
    assert!(service.is_active(&bobs).await);
    assert_eq!(alice.mail_kinds(), [Kind::Welcome, Kind::KeyRemoved]);
    assert_eq!(bob.mail_kinds(), [Kind::Welcome]);
}

// Active token → active token: regenerate

#[tokio::test]
async fn regeneration_returns_a_new_token_and_revokes_the_old_one_immediately() {
    let service = service().await;
    let alice = service.person("alice@example.com");
    let old = alice.obtain_token().await;
    let old_id = service.status(&old).await.json()["id"].clone();
    service.clock.advance(SECOND);
    let answer = service.regenerate(&old).await;
    let new = new_token(&answer);
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
    for answer in [service.status(&old).await, service.regenerate(&old).await, service.revoke_email_token(&old).await] {
        answer.assert_error(401, "UNAUTHORIZED");
    }
    assert_eq!(service.status(&new).await.json()["status"], "active", "the old token was used");
    service.assert_sound_without(&[&old, &new]).await;
}

#[tokio::test]
async fn key_changed_mail_contains_no_secret() {
    let service = service().await;
    let alice = service.person("alice@example.com");
    let first = alice.obtain_token().await;
    let second = new_token(&service.regenerate(&first).await);
    let code = alice.request_code().await;
    let third = alice.reset_with(&code).await;
    assert_eq!(alice.mail_kinds(), [Kind::Welcome, Kind::KeyChanged, Kind::Recovery, Kind::KeyChanged]);
    for mail in alice.mails().iter().filter(|mail| kind_of(mail).0 == Kind::KeyChanged) {
        let source = mail.source.to_string();
        for secret in [&first, &second, &third, &code] {
            assert!(!source.contains(secret.as_str()), "{source}");
        }
    }
}

#[tokio::test]
async fn reset_code_survives_regeneration() {
    let service = service().await;
    let alice = service.person("alice@example.com");
    let first = alice.obtain_token().await;
    let code = alice.request_code().await;
    let second = new_token(&service.regenerate(&first).await);
    let third = alice.reset_with(&code).await;
    assert_eq!(service.active_tokens([&first, &second, &third]).await, [&third]);
}

// Active token → active token with code: register

#[tokio::test]
async fn registering_again_mails_a_code_and_keeps_the_token() {
    let service = service().await;
    let alice = service.person("alice@example.com");
    let key = alice.obtain_token().await;
    let before = service.status(&key).await.text;
    let code = alice.request_code().await;
    assert!(is_code(&code), "{code}");
    assert_eq!(alice.mail_kinds(), [Kind::Welcome, Kind::Recovery]);
    let recovery = alice.newest_mail();
    assert!(!recovery.source.to_string().contains(&key));
    assert_eq!(service.status(&key).await.text, before);
    service.assert_sound_without(&[&key, &code]).await;
}

#[tokio::test]
async fn new_code_invalidates_earlier_codes() {
    let service = service().await;
    let alice = service.person("alice@example.com");
    alice.register().await;
    let codes = [alice.request_code().await, alice.request_code().await, alice.request_code().await];
    for old in &codes[..2] {
        assert_no_code(&alice.submit_code(old).await);
    }
    alice.reset_with(&codes[2]).await;
}

// Active token with code → active token: reset

#[tokio::test]
async fn reset_returns_a_new_token_and_revokes_the_old_one_immediately() {
    let service = service().await;
    let alice = service.person("alice@example.com");
    let old = alice.obtain_token().await;
    let code = alice.request_code().await;
    let answer = alice.submit_code(&code).await;
    let new = new_token(&answer);
    assert_eq!((&answer.json()["status"], answer.header("cache-control")), (&json!("active"), "no-store"));
    assert_eq!(service.active_tokens([&old, &new]).await, [&new]);
    assert_eq!(service.status(&new).await.json()["status"], "active", "submitting the code proves access");
    service.assert_sound_without(&[&old, &new, &code]).await;
}

#[tokio::test]
async fn used_code_is_refused() {
    let service = service().await;
    let alice = service.person("alice@example.com");
    alice.register().await;
    let code = alice.request_code().await;
    let key = alice.reset_with(&code).await;
    for _ in 0..2 {
        assert_no_code(&alice.submit_code(&code).await);
    }
    assert!(service.is_active(&key).await);
}

#[tokio::test]
async fn code_expires_after_exactly_one_hour() {
    let service = service().await;
    let (alice, bob) = (service.person("alice@example.com"), service.person("bob@example.com"));
    alice.register().await;
    let bobs = bob.obtain_token().await;
    let (alices_code, bobs_code) = (alice.request_code().await, bob.request_code().await);
    service.clock.advance(HOUR - SECOND);
    alice.reset_with(&alices_code).await;
    service.clock.advance(SECOND);
    assert_no_code(&bob.submit_code(&bobs_code).await);
    assert!(service.is_active(&bobs).await, "an expired code does not affect the token");
    bob.recover().await;
}

#[tokio::test]
async fn code_ignores_case_dashes_and_lookalike_letters() {
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
        person.register().await;
        // Needs a code with both digits that have look-alikes.
        let code = loop {
            let code = person.request_code().await;
            if code.contains('0') && code.contains('1') {
                break code;
            }
            service.clock.advance(HOUR / 4);
        };
        person.reset_with(&typing(&code)).await;
    }
}

#[tokio::test]
async fn reset_accepts_any_spelling_of_the_address() {
    let service = service().await;
    let person = service.person("You@bücher.example");
    person.register().await;
    for spelling in
        ["you@BÜCHER.example", "YOU@xn--bcher-kva.example", "  you@bücher.example\n", "you@bu\u{308}cher.example"]
    {
        let code = person.request_code().await;
        service.person(spelling).reset_with(&code).await;
    }
}

#[tokio::test]
async fn every_invalid_code_gets_the_same_response() {
    let service = service().await;
    let (alice, bob) = (service.person("alice@example.com"), service.person("bob@example.com"));
    let key = alice.obtain_token().await;
    bob.register().await;
    let bobs = bob.request_code().await;
    let old = alice.request_code().await;
    let live = alice.request_code().await;
    let wrong_last = format!("{}{}", &live[..18], if live.ends_with('0') { '1' } else { '0' });
    let long = "0".repeat(10_000);
    let others = [
        UNKNOWN_CODE,
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
    let expected = without_request_id(&service.person("nobody@example.com").submit_code(&live).await);
    for other in others {
        let answer = alice.submit_code(other).await;
        assert_no_code(&answer);
        assert_eq!(without_request_id(&answer), expected, "{other}");
    }
    alice.reset_with(&live).await;
    bob.reset_with(&bobs).await;
}

#[tokio::test]
async fn wrong_attempts_do_not_invalidate_a_code() {
    let service = service().await;
    let alice = service.person("alice@example.com");
    alice.register().await;
    let code = alice.request_code().await;
    for _ in 0..50 {
        assert_no_code(&alice.submit_code(UNKNOWN_CODE).await);
    }
    alice.reset_with(&code).await;
}

#[tokio::test]
async fn code_of_another_address_is_refused_and_stays_valid() {
    let service = service().await;
    let (alice, mallory) = (service.person("alice@example.com"), service.person("mallory@example.com"));
    let alices = alice.obtain_token().await;
    mallory.register().await;
    let mallorys_code = mallory.request_code().await;
    assert_no_code(&alice.submit_code(&mallorys_code).await);
    assert!(service.is_active(&alices).await);
    let alices_code = alice.request_code().await;
    assert_no_code(&alice.submit_code(&mallorys_code).await);
    assert_no_code(&mallory.submit_code(&alices_code).await);
    mallory.reset_with(&mallorys_code).await;
    alice.reset_with(&alices_code).await;
}

// Active token → no active token: revoke

#[tokio::test]
async fn revoked_token_is_refused_at_next_use() {
    let service = service().await;
    let alice = service.person("alice@example.com");
    let key = alice.obtain_token().await;
    let answer = service.revoke_email_token(&key).await;
    assert_eq!((answer.status.as_u16(), answer.text.as_str()), (204, ""));
    for answer in [service.status(&key).await, service.regenerate(&key).await, service.revoke_email_token(&key).await] {
        answer.assert_error(401, "UNAUTHORIZED");
    }
    assert_eq!(alice.mail_kinds(), [Kind::Welcome, Kind::KeyRemoved]);
    assert!(alice.stored_tokens().await.is_empty());
}

#[tokio::test]
async fn revocation_invalidates_the_outstanding_code() {
    let service = service().await;
    let alice = service.person("alice@example.com");
    let first = alice.obtain_token().await;
    let code = alice.request_code().await;
    assert_eq!(service.revoke_email_token(&first).await.status, 204);
    assert_no_code(&alice.submit_code(&code).await);
    let second = alice.obtain_token().await;
    assert_no_code(&alice.submit_code(&code).await);
    assert!(service.is_active(&second).await);
}

#[tokio::test]
async fn revoked_address_can_register_again() {
    let service = service().await;
    let alice = service.person("Alice@example.com");
    alice.register_in("ja").await;
    let first = token_in(&alice.newest_mail());
    let before = service.status(&first).await.json();
    assert_eq!(service.revoke_email_token(&first).await.status, 204);
    service.clock.advance(SECOND);
    service.person("ALICE@example.com").register().await;
    let mail = alice.newest_mail();
    assert_eq!((kind_of(&mail), mail.to.as_str()), ((Kind::Welcome, En), "ALICE@example.com"));
    let second = token_in(&mail);
    let after = service.status(&second).await.json();
    assert_ne!(first, second);
    assert_ne!(before["id"], after["id"]);
    assert_eq!((&after["status"], &after["language"]), (&json!("pending"), &json!("en")));
    assert_eq!(service.active_tokens([&first, &second]).await, [&second]);
    service.assert_sound_without(&[&first, &second]).await;
}

// Languages and spellings

#[tokio::test]
async fn first_mail_defaults_to_english() {
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
        assert_eq!(service.status(&token_in(&mail)).await.json()["language"], stored, "{body}");
    }
}

#[tokio::test]
async fn mail_language_is_the_requested_else_the_stored_one() {
    let service = service().await;
    let alice = service.person("alice@example.com");
    alice.register_in("ja").await;
    let key = token_in(&alice.newest_mail());
    alice.register().await;
    assert_eq!(kind_of(&alice.newest_mail()), (Kind::Recovery, Ja));
    alice.register_in("en").await;
    assert_eq!(kind_of(&alice.newest_mail()), (Kind::Recovery, En));
    alice.register().await;
    assert_eq!(kind_of(&alice.newest_mail()), (Kind::Recovery, Ja), "the English request was never confirmed");
    assert_eq!(service.status(&key).await.json()["language"], "ja");
    let key = new_token(&service.regenerate(&key).await);
    assert_eq!(kind_of(&alice.newest_mail()), (Kind::KeyChanged, Ja));
    assert_eq!(service.revoke_email_token(&key).await.status, 204);
    assert_eq!(kind_of(&alice.newest_mail()), (Kind::KeyRemoved, Ja));
}

#[tokio::test]
async fn new_language_is_stored_after_reset() {
    let service = service().await;
    let alice = service.person("alice@example.com");
    alice.register_in("ja").await;
    alice.register_in("en").await;
    let key = alice.reset_with(&code_in(&alice.newest_mail())).await;
    assert_eq!(kind_of(&alice.newest_mail()), (Kind::KeyChanged, En));
    assert_eq!(service.status(&key).await.json()["language"], "en");
    alice.register().await;
    assert_eq!(kind_of(&alice.newest_mail()), (Kind::Recovery, En));
}

#[tokio::test]
async fn language_of_a_replaced_code_is_discarded() {
    let service = service().await;
    let alice = service.person("alice@example.com");
    alice.register().await;
    alice.register_in("ja").await;
    alice.register().await;
    let key = alice.reset_with(&code_in(&alice.newest_mail())).await;
    assert_eq!(service.status(&key).await.json()["language"], "en");
}

#[tokio::test]
async fn mails_use_the_registered_spelling_of_the_address() {
    let service = service().await;
    let alice = service.person("O'Alice@bücher.example");
    let key = alice.obtain_token().await;
    service.person("o'alice@BÜCHER.EXAMPLE").register().await;
    service.person("O'ALICE@xn--bcher-kva.example").register().await;
    let key = new_token(&service.regenerate(&key).await);
    assert_eq!(service.revoke_email_token(&key).await.status, 204);
    let recipients: Vec<String> = alice.mails().into_iter().map(|mail| mail.to).collect();
    assert_eq!(recipients, ["O'Alice@xn--bcher-kva.example"; 5]);
    let kinds = [Kind::Welcome, Kind::Recovery, Kind::Recovery, Kind::KeyChanged, Kind::KeyRemoved];
    assert_eq!(alice.mail_kinds(), kinds);
}

#[tokio::test]
async fn one_letter_local_part_is_fully_masked() {
    let service = service().await;
    let key = service.person("x@example.com").obtain_token().await;
    assert_eq!(service.status(&key).await.json()["email"], "***@example.com");
}

#[tokio::test]
async fn every_token_has_the_documented_format() {
    let service = service().await;
    let alice = service.person("alice@example.com");
    let first = alice.obtain_token().await;
    let second = new_token(&service.regenerate(&first).await);
    let third = alice.recover().await;
    for key in [&first, &second, &third] {
        assert!(is_token(key) && key.len() == 50, "{key}");
    }
}

// Never used

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

#[tokio::test]
async fn token_that_was_never_used_ends_after_30_days() {
    let service = service().await;
    let alice = service.person("alice@example.com");
    let unused = alice.obtain_token().await;
    let used = service.person("bob@example.com").obtain_token().await;
    assert!(service.is_active(&used).await);
    assert_eq!(service.whoami(&used).await.status, 200);
    service.clock.advance(DAY * 30 - SECOND);
    // Reading the status is no use.
    assert_eq!(service.status(&unused).await.status, 200);
    service.clock.advance(SECOND);
    service.status(&unused).await.assert_error(401, "UNAUTHORIZED");
    service.regenerate(&unused).await.assert_error(401, "UNAUTHORIZED");
    service.revoke_email_token(&unused).await.assert_error(401, "UNAUTHORIZED");
    assert_eq!(service.status(&used).await.status, 200);

    // The address is new again.
    let first = alice.obtain_token().await;
    assert_eq!(alice.mail_kinds(), [Kind::Welcome, Kind::Welcome]);
    assert_eq!(service.active_tokens([&unused, &first]).await, [&first]);
    assert_eq!(alice.stored_tokens().await.len(), 1);
    service.assert_sound_without(&[&unused, &first, &used]).await;
    // Now it is known: the mail is a recovery.
    alice.register().await;
    assert_eq!(alice.mail_kinds().last(), Some(&Kind::Recovery));
}

#[tokio::test]
async fn concurrent_registrations_replace_an_ended_token_once() {
    let service = service().await;
    let alice = service.person("alice@example.com");
    let unused = alice.obtain_token().await;
    service.clock.advance(DAY * 30);
    futures::future::join_all((0..4).map(|_| alice.register())).await;
    let welcomes = alice.mail_kinds().iter().filter(|kind| **kind == Kind::Welcome).count();
    assert_eq!((welcomes, alice.stored_tokens().await.len()), (2, 1));
    assert!(!service.is_active(&unused).await);
}

#[tokio::test]
async fn code_from_before_the_end_still_makes_a_token() {
    let service = service().await;
    let alice = service.person("alice@example.com");
    let unused = alice.obtain_token().await;
    service.clock.advance(DAY * 30 - SECOND);
    let code = alice.request_code().await;
    service.clock.advance(SECOND);
    let new = alice.reset_with(&code).await;
    assert_eq!(service.active_tokens([&unused, &new]).await, [&new]);
}

#[tokio::test]
async fn operator_revokes_a_token_by_id() {
    let service = service().await;
    let alice = service.person("alice@example.com");
    let first = alice.obtain_token().await;
    let id = async |key: &str| TokenId::parse(service.status(key).await.json()["id"].as_str().unwrap()).unwrap();
    let replaced = id(&first).await;
    let second = new_token(&service.regenerate(&first).await);
    let current = id(&second).await;
    let revoke = async |id: &TokenId| service.store.revoke_email_token_by_id(id, &operator()).await.unwrap();
    assert!(!revoke(&replaced).await);
    assert!(service.is_active(&second).await);
    assert!(revoke(&current).await && !revoke(&current).await);
    assert!(!service.is_active(&second).await);
    assert!(alice.stored_tokens().await.is_empty());
    let entries: Vec<_> = service.table.items().await.into_iter().filter(|item| item["action"].is_string()).collect();
    let last = entries.iter().find(|entry| entry["action"] == "email_token.revoke").unwrap();
    assert_eq!(last["actor"]["kind"], "operator");
    alice.obtain_token().await;
}
