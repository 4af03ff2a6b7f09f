//! What somebody with bad intentions, or just bad timing, can do to an address: nothing that its owner cannot undo.

#![allow(clippy::panic, clippy::unwrap_used)] // A race without its one winner has failed.

use std::time::Duration;

use futures::future::{join, join_all};
use reqwest::{Method, StatusCode};
use serde_json::json;
use tests::email::{Kind, Person, assert_accepted, code_in, key_in, kind_of, new_key};
use tests::{Answer, Service};

const HOUR: Duration = Duration::from_secs(60 * 60);

const CROCKFORD: &str = "0123456789ABCDEFGHJKMNPQRSTVWXYZ";

/// How often a race is run: each time it may end otherwise.
const ROUNDS: usize = 4;

/// Those of these answers that have this status; each other one must be this error.
#[track_caller]
fn winners<'a>(answers: &'a [Answer], won: u16, lost: (u16, &str)) -> Vec<&'a Answer> {
    let (winners, losers): (Vec<&'a Answer>, Vec<&'a Answer>) = answers.iter().partition(|answer| answer.status == won);
    losers.iter().for_each(|answer| answer.assert_error(lost.0, lost.1));
    winners
}

/// Checks that this key and no other lives at the address, and that its owner can still get another.
async fn assert_only(service: &Service, person: Person<'_>, key: &str) {
    assert!(service.counts(key).await);
    assert_eq!(person.stored_keys().await.len(), 1);
    service.assert_addresses_sound(&[key]).await;
    service.clock.advance(HOUR);
    let new = person.recovers().await;
    assert!(service.counts(&new).await && !service.counts(key).await);
}

// Guessing and flooding.

#[tokio::test]
async fn a_guess_one_character_away_from_the_code_is_as_wrong_as_any() {
    let service = Service::start_with_manual_clock().await;
    let alice = service.person("alice@example.com");
    let key = alice.gets_a_key().await;
    let code = alice.gets_a_code().await;
    let places = (0..code.len()).filter(|place| &code[*place..=*place] != "-");
    // At each place the character before the right one and the one behind it.
    let near = |place: usize| {
        let right = CROCKFORD.find(&code[place..=place]).unwrap();
        [31, 1].map(|step| (place, &CROCKFORD[(right + step) % 32..=(right + step) % 32]))
    };
    let guesses: Vec<String> = places
        .flat_map(near)
        .map(|(place, guess)| format!("{}{guess}{}", &code[..place], &code[place + 1..]))
        .collect();
    let answers = join_all(guesses.iter().map(|guess| alice.sends_code(guess))).await;
    assert_eq!(answers.len(), 32);
    assert!(winners(&answers, 200, (400, "INVALID_RESET_CODE")).is_empty());
    assert!(service.counts(&key).await);
    alice.resets(&code).await;
}

#[tokio::test]
async fn nobody_kills_another_persons_key_by_registering_their_address() {
    let service = Service::start_with_manual_clock().await;
    let victim = service.person("victim@example.com");
    let key = victim.gets_a_key().await;
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
    assert_eq!(victim.kinds().iter().filter(|kind| **kind == Kind::Welcome).count(), 1);
    new_key(&service.regenerate(&key).await);
}

#[tokio::test]
async fn nobody_blocks_another_persons_recovery_by_using_up_their_mails_or_tries() {
    let service = Service::start_with_manual_clock().await;
    let victim = service.person("victim@example.com");
    let lost = victim.gets_a_key().await;
    for _ in 0..20 {
        victim.registers().await;
        victim.sends_code("0000-0000-0000-0000").await.assert_error(400, "INVALID_RESET_CODE");
    }
    let found = victim.resets(&code_in(&victim.newest_mail())).await;
    assert_eq!(service.counting([&lost, &found]).await, [&found]);
}

#[tokio::test]
async fn who_registers_an_address_first_gets_nothing_its_owner_does_not_get() {
    let service = Service::start_with_manual_clock().await;
    let owner = service.person("owner@example.com");
    let answer = owner.tries_to_register().await;
    assert_accepted(&answer);
    let squatters = key_in(&owner.newest_mail());
    assert!(!answer.text.contains(&squatters) && !format!("{:?}", answer.headers).contains(&squatters));
    let owners = owner.recovers().await;
    assert_eq!(service.counting([&squatters, &owners]).await, [&owners]);
}

#[tokio::test]
async fn one_persons_key_and_code_do_nothing_at_another_persons_address() {
    let service = Service::start_with_manual_clock().await;
    let (victim, mallory) = (service.person("victim@example.com"), service.person("mallory@example.com"));
    let key = victim.gets_a_key().await;
    let victims_code = victim.gets_a_code().await;
    let mallorys = mallory.gets_a_key().await;
    let mallorys_code = mallory.gets_a_code().await;
    victim.sends_code(&mallorys_code).await.assert_error(400, "INVALID_RESET_CODE");
    let mallorys = new_key(&service.regenerate(&mallorys).await);
    assert_eq!(service.revoke_key(&mallorys).await.status, 204);
    victim.sends_code(&mallorys_code).await.assert_error(400, "INVALID_RESET_CODE");
    assert!(service.counts(&key).await);
    victim.resets(&victims_code).await;
}

// Racing.

#[tokio::test(flavor = "multi_thread")]
async fn of_a_hundred_resets_with_one_code_one_wins() {
    let service = Service::start_with_manual_clock().await;
    let alice = service.person("alice@example.com");
    let old = alice.gets_a_key().await;
    let code = alice.gets_a_code().await;
    let answers = join_all((0..100).map(|_| alice.sends_code(&code))).await;
    let [winner] = winners(&answers, 200, (400, "INVALID_RESET_CODE"))[..] else { panic!("not one winner") };
    assert_eq!(alice.kinds(), [Kind::Welcome, Kind::Recovery, Kind::KeyChanged]);
    assert!(!service.counts(&old).await);
    assert_only(&service, alice, &new_key(winner)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_hundred_regenerations_of_one_key_one_wins() {
    let service = Service::start_with_manual_clock().await;
    let alice = service.person("alice@example.com");
    let old = alice.gets_a_key().await;
    let answers = join_all((0..100).map(|_| service.regenerate(&old))).await;
    let [winner] = winners(&answers, 200, (401, "UNAUTHORIZED"))[..] else { panic!("not one winner") };
    for answer in answers.iter().filter(|answer| answer.status == 401) {
        assert_eq!(answer.header("www-authenticate"), r#"Bearer realm="guard-tokens", error="invalid_token""#);
    }
    assert_eq!(alice.kinds(), [Kind::Welcome, Kind::KeyChanged]);
    assert!(!service.counts(&old).await);
    assert_only(&service, alice, &new_key(winner)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn when_regenerating_races_against_a_reset_the_code_has_the_last_word() {
    let service = Service::start_with_manual_clock().await;
    let alice = service.person("alice@example.com");
    let mut key = alice.gets_a_key().await;
    for round in 0..ROUNDS {
        let code = alice.gets_a_code().await;
        let (regenerations, reset) =
            join(join_all((0..3).map(|_| service.regenerate(&key))), alice.sends_code(&code)).await;
        let regenerated = winners(&regenerations, 200, (401, "UNAUTHORIZED"));
        assert!(regenerated.len() < 2, "round {round}");
        key = new_key(&reset);
        for lost in regenerated {
            assert!(!service.counts(&new_key(lost)).await, "round {round}");
        }
        assert!(service.counts(&key).await, "round {round}");
        assert_eq!(alice.stored_keys().await.len(), 1, "round {round}");
        service.clock.advance(HOUR);
    }
    assert_only(&service, alice, &key).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn when_revoking_races_against_regenerating_one_of_them_wins() {
    let service = Service::start_with_manual_clock().await;
    for round in 0..ROUNDS {
        let address = format!("person{round}@example.com");
        let person = service.person(&address);
        let key = person.gets_a_key().await;
        let (revocations, regenerations) = join(
            join_all((0..3).map(|_| service.revoke_key(&key))),
            join_all((0..3).map(|_| service.regenerate(&key))),
        )
        .await;
        let revoked = winners(&revocations, 204, (401, "UNAUTHORIZED"));
        let regenerated = winners(&regenerations, 200, (401, "UNAUTHORIZED"));
        assert_eq!(revoked.len() + regenerated.len(), 1, "round {round}");
        assert!(!service.counts(&key).await);
        match regenerated.first() {
            Some(winner) => assert!(service.counts(&new_key(winner)).await),
            None => assert!(service.counts(&person.gets_a_key().await).await),
        }
    }
    service.assert_addresses_sound(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn when_revoking_races_against_a_reset_one_of_them_wins() {
    let service = Service::start_with_manual_clock().await;
    for round in 0..ROUNDS {
        let address = format!("person{round}@example.com");
        let person = service.person(&address);
        let key = person.gets_a_key().await;
        let code = person.gets_a_code().await;
        let (revocation, reset) = join(service.revoke_key(&key), person.sends_code(&code)).await;
        match (revocation.status, reset.status) {
            (StatusCode::NO_CONTENT, _) => {
                reset.assert_error(400, "INVALID_RESET_CODE");
                assert!(person.stored_keys().await.is_empty());
                person.gets_a_key().await;
            }
            (_, StatusCode::OK) => {
                revocation.assert_error(401, "UNAUTHORIZED");
                assert!(service.counts(&new_key(&reset)).await);
            }
            _ => panic!("round {round}: nobody won: {} {}", revocation.text, reset.text),
        }
        assert!(!service.counts(&key).await);
    }
    service.assert_addresses_sound(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_registrations_of_a_new_address_at_once_make_one_key() {
    let service = Service::start_with_manual_clock().await;
    let alice = service.person("alice@example.com");
    join_all((0..50).map(|_| alice.registers())).await;
    let mails = alice.mails();
    let (welcomes, recoveries): (Vec<_>, Vec<_>) = mails.iter().partition(|mail| kind_of(mail).0 == Kind::Welcome);
    assert_eq!((welcomes.len(), recoveries.len()), (1, 4));
    // The one key that was mailed counts, and no other lies in the table.
    let key = key_in(welcomes[0]);
    assert!(service.counts(&key).await);
    assert_eq!(alice.stored_keys().await.len(), 1);
    // Of the codes one is the newest. Mails overtake each other, so which one only the table knows.
    let answers = join_all(recoveries.iter().map(|mail| async { alice.sends_code(&code_in(mail)).await })).await;
    let [winner] = winners(&answers, 200, (400, "INVALID_RESET_CODE"))[..] else { panic!("not one winner") };
    assert!(!service.counts(&key).await);
    assert_only(&service, alice, &new_key(winner)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn registrations_at_once_under_many_spellings_make_one_key() {
    let service = Service::start_with_manual_clock().await;
    let spellings = ["you@bücher.example", "YOU@bücher.example", "you@xn--bcher-kva.example", " You@BÜCHER.example "];
    join_all(spellings.iter().map(|spelling| async { service.person(spelling).registers().await })).await;
    let you = service.person("you@bücher.example");
    let welcomes = you.mails().into_iter().filter(|mail| kind_of(mail).0 == Kind::Welcome);
    let welcomes: Vec<_> = welcomes.collect();
    let [welcome] = &welcomes[..] else { panic!("{} welcome mails", welcomes.len()) };
    assert!(you.mails().iter().all(|mail| mail.to == welcome.to), "mails go to the spelling of the key");
    assert_only(&service, you, &key_in(welcome)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registration_that_races_against_a_revocation_ends_with_a_key_or_without() {
    let service = Service::start_with_manual_clock().await;
    for round in 0..ROUNDS {
        let address = format!("person{round}@example.com");
        let person = service.person(&address);
        let old = person.gets_a_key().await;
        let (_, revocation) =
            join(join_all((0..3).map(|_| person.registers())), async { service.revoke_key(&old).await }).await;
        assert_eq!(revocation.status, 204, "round {round}: nothing but this call touched the key");
        let mails = person.mails();
        let welcomes = mails[1..].iter().filter(|mail| kind_of(mail).0 == Kind::Welcome);
        let keys: Vec<String> = welcomes.map(key_in).collect();
        assert!(keys.len() < 2, "round {round}");
        assert_eq!(person.stored_keys().await.len(), keys.len(), "round {round}");
        for key in keys {
            assert!(service.counts(&key).await, "round {round}: a key that was mailed counts");
        }
    }
    service.assert_addresses_sound(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn registrations_that_race_against_regenerations_leave_one_key() {
    let service = Service::start_with_manual_clock().await;
    let alice = service.person("alice@example.com");
    let mut key = alice.gets_a_key().await;
    for _ in 0..ROUNDS {
        service.clock.advance(HOUR);
        let (_, regenerations) =
            join(join_all((0..5).map(|_| alice.registers())), join_all((0..2).map(|_| service.regenerate(&key)))).await;
        let [winner] = winners(&regenerations, 200, (401, "UNAUTHORIZED"))[..] else { panic!("not one winner") };
        key = new_key(winner);
        assert!(service.counts(&key).await);
    }
    assert_only(&service, alice, &key).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_is_used_while_it_dies_stays_dead() {
    let service = Service::start_with_manual_clock().await;
    for round in 0..ROUNDS {
        let address = format!("person{round}@example.com");
        let person = service.person(&address);
        let key = person.gets_a_key().await;
        let uses = join_all((0..5).map(|_| service.call(Method::GET, "/v1/whoami", &key)));
        let (uses, death) = match round % 2 {
            0 => join(uses, service.regenerate(&key)).await,
            _ => join(uses, service.revoke_key(&key)).await,
        };
        winners(&uses, 200, (401, "UNAUTHORIZED"));
        assert!(death.status.is_success() && !service.counts(&key).await);
        assert_eq!(person.stored_keys().await.len(), 1 - round % 2);
    }
    service.assert_addresses_sound(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_happens_at_once_its_owner_gets_the_address_back() {
    let service = Service::start_with_manual_clock().await;
    for round in 0..ROUNDS {
        let address = format!("person{round}@example.com");
        let person = service.person(&address);
        let key = person.gets_a_key().await;
        let code = person.gets_a_code().await;
        let calls = (0..16).map(|call| {
            let (service, key, code) = (&service, &key, &code);
            async move {
                match (call + round) % 4 {
                    0 => person.tries_to_register().await,
                    1 => person.sends_code(code).await,
                    2 => service.regenerate(key).await,
                    _ => service.revoke_key(key).await,
                }
            }
        });
        for answer in join_all(calls).await {
            assert!([200, 202, 204, 400, 401].contains(&answer.status.as_u16()), "{} {}", answer.status, answer.text);
        }
        assert!(person.stored_keys().await.len() < 2);
        service.assert_addresses_sound(&[&key, &code]).await;
        service.clock.advance(HOUR);
        person.registers().await;
        let mail = person.newest_mail();
        let owners = match kind_of(&mail).0 {
            Kind::Welcome => key_in(&mail),
            _ => person.resets(&code_in(&mail)).await,
        };
        assert!(service.counts(&owners).await);
    }
}
