//! Attacks and races on an address. Whatever happens, its owner can recover it.

use std::time::Duration;

use futures::future::{join, join_all};
use reqwest::{Method, StatusCode};
use serde_json::json;
use tests::email::{Kind, Person, assert_accepted, code_in, kind_of, new_token, token_in};
use tests::{Answer, Service};

const HOUR: Duration = Duration::from_secs(60 * 60);

const CROCKFORD: &str = "0123456789ABCDEFGHJKMNPQRSTVWXYZ";

/// Repetitions of each race, since its outcome varies.
const ROUNDS: usize = 4;

/// Returns the successful responses; all others must be the given error.
#[track_caller]
fn winners<'a>(answers: &'a [Answer], won: u16, lost: (u16, &str)) -> Vec<&'a Answer> {
    let (winners, losers): (Vec<&'a Answer>, Vec<&'a Answer>) = answers.iter().partition(|answer| answer.status == won);
    losers.iter().for_each(|answer| answer.assert_error(lost.0, lost.1));
    winners
}

/// Asserts that this is the only active token of the address, and that its owner can still recover.
async fn assert_only(service: &Service, person: Person<'_>, key: &str) {
    assert!(service.is_active(key).await);
    assert_eq!(person.stored_tokens().await.len(), 1);
    service.assert_sound_without(&[key]).await;
    service.clock.advance(HOUR);
    let new = person.recover().await;
    assert!(service.is_active(&new).await && !service.is_active(key).await);
}

// Guessing and flooding

#[tokio::test]
async fn near_miss_reset_codes_are_refused() {
    let service = Service::start_with_manual_clock().await;
    let alice = service.person("alice@example.com");
    let key = alice.obtain_token().await;
    let code = alice.request_code().await;
    let places = (0..code.len()).filter(|place| &code[*place..=*place] != "-");
    // For each position, the alphabet's previous and next character.
    let near = |place: usize| {
        let right = CROCKFORD.find(&code[place..=place]).unwrap();
        [31, 1].map(|step| (place, &CROCKFORD[(right + step) % 32..=(right + step) % 32]))
    };
    let guesses: Vec<String> = places
        .flat_map(near)
        .map(|(place, guess)| format!("{}{guess}{}", &code[..place], &code[place + 1..]))
        .collect();
    let answers = join_all(guesses.iter().map(|guess| alice.submit_code(guess))).await;
    assert_eq!(answers.len(), 32);
    assert!(winners(&answers, 200, (400, "INVALID_RESET_CODE")).is_empty());
    assert!(service.is_active(&key).await);
    alice.reset_with(&code).await;
}

#[tokio::test]
async fn registering_a_known_address_keeps_its_token() {
    let service = Service::start_with_manual_clock().await;
    let victim = service.person("victim@example.com");
    let key = victim.obtain_token().await;
    let before = service.status(&key).await.text;
    for hour in 0..3 {
        let spellings = ["victim@example.com", "VICTIM@EXAMPLE.COM", " victim@example.com"];
        for (spelling, language) in spellings.into_iter().flat_map(|s| ["en", "ja"].map(|language| (s, language))) {
            assert_accepted(&service.register(&json!({"email": spelling, "language": language})).await);
        }
        assert_eq!(service.status(&key).await.text, before, "hour {hour}");
        service.clock.advance(HOUR);
    }
    assert!(victim.mails().iter().all(|mail| mail.to == "victim@example.com"));
    assert_eq!(victim.mail_kinds().iter().filter(|kind| **kind == Kind::Welcome).count(), 1);
    new_token(&service.regenerate(&key).await);
}

#[tokio::test]
async fn flooding_an_address_does_not_block_recovery() {
    let service = Service::start_with_manual_clock().await;
    let victim = service.person("victim@example.com");
    let lost = victim.obtain_token().await;
    for _ in 0..20 {
        victim.register().await;
        victim.submit_code("0000-0000-0000-0000").await.assert_error(400, "INVALID_RESET_CODE");
    }
    let found = victim.reset_with(&code_in(&victim.newest_mail())).await;
    assert_eq!(service.active_tokens([&lost, &found]).await, [&found]);
}

#[tokio::test]
async fn registering_a_foreign_address_first_gives_no_access() {
    let service = Service::start_with_manual_clock().await;
    let owner = service.person("owner@example.com");
    let answer = owner.try_register().await;
    assert_accepted(&answer);
    let squatters = token_in(&owner.newest_mail());
    assert!(!answer.text.contains(&squatters) && !format!("{:?}", answer.headers).contains(&squatters));
    let owners = owner.recover().await;
    assert_eq!(service.active_tokens([&squatters, &owners]).await, [&owners]);
}

#[tokio::test]
async fn token_and_code_do_not_work_for_another_address() {
    let service = Service::start_with_manual_clock().await;
    let (victim, mallory) = (service.person("victim@example.com"), service.person("mallory@example.com"));
    let key = victim.obtain_token().await;
    let victims_code = victim.request_code().await;
    let mallorys = mallory.obtain_token().await;
    let mallorys_code = mallory.request_code().await;
    victim.submit_code(&mallorys_code).await.assert_error(400, "INVALID_RESET_CODE");
    let mallorys = new_token(&service.regenerate(&mallorys).await);
    assert_eq!(service.revoke_email_token(&mallorys).await.status, 204);
    victim.submit_code(&mallorys_code).await.assert_error(400, "INVALID_RESET_CODE");
    assert!(service.is_active(&key).await);
    victim.reset_with(&victims_code).await;
}

// Races

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_resets_with_one_code_succeed_once() {
    let service = Service::start_with_manual_clock().await;
    let alice = service.person("alice@example.com");
    let old = alice.obtain_token().await;
    let code = alice.request_code().await;
    let answers = join_all((0..100).map(|_| alice.submit_code(&code))).await;
    let [winner] = winners(&answers, 200, (400, "INVALID_RESET_CODE"))[..] else { panic!("expected one winner") };
    assert_eq!(alice.mail_kinds(), [Kind::Welcome, Kind::Recovery, Kind::KeyChanged]);
    assert!(!service.is_active(&old).await);
    assert_only(&service, alice, &new_token(winner)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_regenerations_succeed_once() {
    let service = Service::start_with_manual_clock().await;
    let alice = service.person("alice@example.com");
    let old = alice.obtain_token().await;
    let answers = join_all((0..100).map(|_| service.regenerate(&old))).await;
    let [winner] = winners(&answers, 200, (401, "UNAUTHORIZED"))[..] else { panic!("expected one winner") };
    for answer in answers.iter().filter(|answer| answer.status == 401) {
        assert_eq!(answer.header("www-authenticate"), r#"Bearer realm="guard-tokens", error="invalid_token""#);
    }
    assert_eq!(alice.mail_kinds(), [Kind::Welcome, Kind::KeyChanged]);
    assert!(!service.is_active(&old).await);
    assert_only(&service, alice, &new_token(winner)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn reset_wins_over_a_concurrent_regeneration() {
    let service = Service::start_with_manual_clock().await;
    let alice = service.person("alice@example.com");
    let mut key = alice.obtain_token().await;
    for round in 0..ROUNDS {
        let code = alice.request_code().await;
        let (regenerations, reset) =
            join(join_all((0..3).map(|_| service.regenerate(&key))), alice.submit_code(&code)).await;
        let regenerated = winners(&regenerations, 200, (401, "UNAUTHORIZED"));
        assert!(regenerated.len() < 2, "round {round}");
        key = new_token(&reset);
        for lost in regenerated {
            assert!(!service.is_active(&new_token(lost)).await, "round {round}");
        }
        assert!(service.is_active(&key).await, "round {round}");
        assert_eq!(alice.stored_tokens().await.len(), 1, "round {round}");
        service.clock.advance(HOUR);
    }
    assert_only(&service, alice, &key).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn either_revocation_or_concurrent_regeneration_wins() {
    let service = Service::start_with_manual_clock().await;
    for round in 0..ROUNDS {
        let address = format!("person{round}@example.com");
        let person = service.person(&address);
        let key = person.obtain_token().await;
        let (revocations, regenerations) = join(
            join_all((0..3).map(|_| service.revoke_email_token(&key))),
            join_all((0..3).map(|_| service.regenerate(&key))),
        )
        .await;
        let revoked = winners(&revocations, 204, (401, "UNAUTHORIZED"));
        let regenerated = winners(&regenerations, 200, (401, "UNAUTHORIZED"));
        assert_eq!(revoked.len() + regenerated.len(), 1, "round {round}");
        assert!(!service.is_active(&key).await);
        match regenerated.first() {
            Some(winner) => assert!(service.is_active(&new_token(winner)).await),
            None => assert!(service.is_active(&person.obtain_token().await).await),
        }
    }
    service.assert_sound_without(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn either_revocation_or_concurrent_reset_wins() {
    let service = Service::start_with_manual_clock().await;
    for round in 0..ROUNDS {
        let address = format!("person{round}@example.com");
        let person = service.person(&address);
        let key = person.obtain_token().await;
        let code = person.request_code().await;
        let (revocation, reset) = join(service.revoke_email_token(&key), person.submit_code(&code)).await;
        match (revocation.status, reset.status) {
            (StatusCode::NO_CONTENT, _) => {
                reset.assert_error(400, "INVALID_RESET_CODE");
                assert!(person.stored_tokens().await.is_empty());
                person.obtain_token().await;
            }
            (_, StatusCode::OK) => {
                revocation.assert_error(401, "UNAUTHORIZED");
                assert!(service.is_active(&new_token(&reset)).await);
            }
            _ => panic!("round {round}: neither call won: {} {}", revocation.text, reset.text),
        }
        assert!(!service.is_active(&key).await);
    }
    service.assert_sound_without(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_registrations_create_one_token() {
    let service = Service::start_with_manual_clock().await;
    let alice = service.person("alice@example.com");
    join_all((0..50).map(|_| alice.register())).await;
    let mails = alice.mails();
    let (welcomes, recoveries): (Vec<_>, Vec<_>) = mails.iter().partition(|mail| kind_of(mail).0 == Kind::Welcome);
    assert_eq!((welcomes.len(), recoveries.len()), (1, 4));
    // The mailed token is active, and the table has no other.
    let key = token_in(welcomes[0]);
    assert!(service.is_active(&key).await);
    assert_eq!(alice.stored_tokens().await.len(), 1);
    // Exactly one code is valid: the newest. Mails may overtake each other, so only the table knows
    // which.
    let answers = join_all(recoveries.iter().map(|mail| async { alice.submit_code(&code_in(mail)).await })).await;
    let [winner] = winners(&answers, 200, (400, "INVALID_RESET_CODE"))[..] else { panic!("expected one winner") };
    assert!(!service.is_active(&key).await);
    assert_only(&service, alice, &new_token(winner)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_registrations_of_address_variants_create_one_token() {
    let service = Service::start_with_manual_clock().await;
    let spellings = ["you@bücher.example", "YOU@bücher.example", "you@xn--bcher-kva.example", " You@BÜCHER.example "];
    join_all(spellings.iter().map(|spelling| async { service.person(spelling).register().await })).await;
    let you = service.person("you@bücher.example");
    let welcomes = you.mails().into_iter().filter(|mail| kind_of(mail).0 == Kind::Welcome);
    let welcomes: Vec<_> = welcomes.collect();
    let [welcome] = &welcomes[..] else { panic!("{} welcome mails", welcomes.len()) };
    assert!(you.mails().iter().all(|mail| mail.to == welcome.to), "mails use the registered spelling");
    assert_only(&service, you, &token_in(welcome)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn registration_during_revocation_leaves_at_most_one_token() {
    let service = Service::start_with_manual_clock().await;
    for round in 0..ROUNDS {
        let address = format!("person{round}@example.com");
        let person = service.person(&address);
        let old = person.obtain_token().await;
        let (_, revocation) =
            join(join_all((0..3).map(|_| person.register())), async { service.revoke_email_token(&old).await }).await;
        assert_eq!(revocation.status, 204, "round {round}: no other call changed the token");
        let mails = person.mails();
        let welcomes = mails[1..].iter().filter(|mail| kind_of(mail).0 == Kind::Welcome);
        let keys: Vec<String> = welcomes.map(token_in).collect();
        assert!(keys.len() < 2, "round {round}");
        assert_eq!(person.stored_tokens().await.len(), keys.len(), "round {round}");
        for key in keys {
            assert!(service.is_active(&key).await, "round {round}: a mailed token is active");
        }
    }
    service.assert_sound_without(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn registrations_during_regenerations_leave_one_token() {
    let service = Service::start_with_manual_clock().await;
    let alice = service.person("alice@example.com");
    let mut key = alice.obtain_token().await;
    for _ in 0..ROUNDS {
        service.clock.advance(HOUR);
        let (_, regenerations) =
            join(join_all((0..5).map(|_| alice.register())), join_all((0..2).map(|_| service.regenerate(&key)))).await;
        let [winner] = winners(&regenerations, 200, (401, "UNAUTHORIZED"))[..] else { panic!("expected one winner") };
        key = new_token(winner);
        assert!(service.is_active(&key).await);
    }
    assert_only(&service, alice, &key).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn use_during_revocation_does_not_restore_a_token() {
    let service = Service::start_with_manual_clock().await;
    for round in 0..ROUNDS {
        let address = format!("person{round}@example.com");
        let person = service.person(&address);
        let key = person.obtain_token().await;
        let uses = join_all((0..5).map(|_| service.call(Method::GET, "/v1/whoami", &key)));
        let (uses, death) = match round % 2 {
            0 => join(uses, service.regenerate(&key)).await,
            _ => join(uses, service.revoke_email_token(&key)).await,
        };
        winners(&uses, 200, (401, "UNAUTHORIZED"));
        assert!(death.status.is_success() && !service.is_active(&key).await);
        assert_eq!(person.stored_tokens().await.len(), 1 - round % 2);
    }
    service.assert_sound_without(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn owner_recovers_the_address_after_any_race() {
    let service = Service::start_with_manual_clock().await;
    for round in 0..ROUNDS {
        let address = format!("person{round}@example.com");
        let person = service.person(&address);
        let key = person.obtain_token().await;
        let code = person.request_code().await;
        let calls = (0..16).map(|call| {
            let (service, key, code) = (&service, &key, &code);
            async move {
                match (call + round) % 4 {
                    0 => person.try_register().await,
                    1 => person.submit_code(code).await,
                    2 => service.regenerate(key).await,
                    _ => service.revoke_email_token(key).await,
                }
            }
        });
        for answer in join_all(calls).await {
            assert!([200, 202, 204, 400, 401].contains(&answer.status.as_u16()), "{} {}", answer.status, answer.text);
        }
        assert!(person.stored_tokens().await.len() < 2);
        service.assert_sound_without(&[&key, &code]).await;
        service.clock.advance(HOUR);
        person.register().await;
        let mail = person.newest_mail();
        let owners = match kind_of(&mail).0 {
            Kind::Welcome => token_in(&mail),
            _ => person.reset_with(&code_in(&mail)).await,
        };
        assert!(service.is_active(&owners).await);
    }
}
