//! SES and DynamoDB failing, slow or throttled at every point: what is answered then, and that repeating leads to a key.

#![allow(clippy::unwrap_used, clippy::panic)] // A failure that cannot be made to happen has failed.

use std::time::Duration;

use futures::future::{join, join_all};
use futures::{StreamExt, stream};
use serde_json::Value;
use shared::app::Limits;
use tests::email::{Kind, Person, code_in, key_in, kind_of, new_key};
use tests::faults::{Fault, Faults};
use tests::mail_faults::{MailFault, Ses};
use tests::table::text;
use tests::{Answer, Service, no_upstreams, unlimited};

const HOUR: Duration = Duration::from_secs(60 * 60);

const ADDRESS: &str = "alice@example.com";

/// The faults after which SES has said that it does not have the mail.
const REFUSALS: [MailFault; 3] = [MailFault::Rejected, MailFault::LimitExceeded, MailFault::Throttled];

/// With the deployment's limit of mails, so that its counter is one more call that can fail.
fn limits() -> Limits {
    Limits { mails_per_hour: Some(1_000), ..unlimited() }
}

#[track_caller]
fn assert_unavailable(answer: &Answer) {
    answer.assert_error(503, "SERVICE_UNAVAILABLE");
}

/// Registers until there is a key, as the mails say, and checks that it counts.
async fn repeats_until_there_is_a_key(service: &Service, person: Person<'_>) -> String {
    person.registers().await;
    let mail = person.newest_mail();
    let key = match kind_of(&mail).0 {
        Kind::Welcome => key_in(&mail),
        Kind::Recovery => person.resets(&code_in(&mail)).await,
        Kind::KeyChanged => panic!("the newest mail is about something else"),
    };
    assert!(service.counts(&key).await);
    assert_eq!(person.stored_keys().await.len(), 1);
    service.assert_addresses_sound(&[&key]).await;
    key
}

/// Runs this with each fault, on a service each, all at once.
async fn with_each_mail_fault<F: Future<Output = ()>>(test: impl Fn(Service, Ses, MailFault) -> F) {
    let runs = MailFault::ALL.map(|fault| {
        let test = &test;
        async move {
            let (service, ses) = Service::start_with_mail_faults(limits()).await;
            test(service, ses, fault).await;
        }
    });
    join_all(runs).await;
}

// SES.

#[tokio::test]
async fn when_the_welcome_mail_fails_repeating_leads_to_a_key() {
    with_each_mail_fault(|service, ses, fault| async move {
        let alice = service.person(ADDRESS);
        ses.fail(fault);
        assert_unavailable(&alice.tries_to_register().await);
        // Once: after an answer that was lost, the refusal of a second try would say nothing about the first.
        assert_eq!(ses.recover(), 1, "{fault:?}");
        let mailed: Vec<String> = alice.mails().iter().map(key_in).collect();
        assert_eq!(mailed.is_empty(), !fault.takes_the_mail(), "{fault:?}");
        for key in &mailed {
            assert!(service.counts(key).await, "{fault:?}: a key that was mailed counts");
        }
        repeats_until_there_is_a_key(&service, alice).await;
    })
    .await;
}

#[tokio::test]
async fn when_ses_refuses_the_welcome_mail_nothing_is_left_of_it() {
    for fault in REFUSALS {
        let (service, ses) = Service::start_with_mail_faults(limits()).await;
        let alice = service.person(ADDRESS);
        ses.fail(fault);
        for _ in 0..2 {
            assert_unavailable(&alice.tries_to_register().await);
            let items = service.table.items_without_audit().await;
            let left = items.iter().filter(|item| text(item, "pk") != "MAILS" && item["count"] != 0);
            assert_eq!(left.collect::<Vec<_>>(), Vec::<&Value>::new(), "{fault:?}");
        }
        ses.recover();
        alice.registers().await;
        assert_eq!(alice.kinds(), [Kind::Welcome], "{fault:?}");
    }
}

#[tokio::test]
async fn when_the_recovery_mail_fails_the_key_stays_and_repeating_leads_to_another() {
    with_each_mail_fault(|service, ses, fault| async move {
        let alice = service.person(ADDRESS);
        let key = alice.gets_a_key().await;
        ses.fail(fault);
        assert_unavailable(&alice.tries_to_register().await);
        ses.recover();
        assert!(service.counts(&key).await, "{fault:?}");
        let mut key = key;
        if fault.takes_the_mail() {
            key = alice.resets(&code_in(&alice.newest_mail())).await;
        }
        let new = repeats_until_there_is_a_key(&service, alice).await;
        assert!(!service.counts(&key).await && new != key, "{fault:?}");
    })
    .await;
}

#[tokio::test]
async fn a_code_lives_on_when_ses_refuses_the_mail_with_a_newer_one() {
    for fault in REFUSALS {
        let (service, ses) = Service::start_with_mail_faults(limits()).await;
        let alice = service.person(ADDRESS);
        alice.registers().await;
        let code = alice.gets_a_code().await;
        ses.fail(fault);
        assert_unavailable(&alice.tries_to_register().await);
        ses.recover();
        let key = alice.resets(&code).await;
        assert!(service.counts(&key).await, "{fault:?}");
    }
}

#[tokio::test]
async fn when_the_mail_about_a_changed_key_fails_the_new_key_is_answered_all_the_same() {
    with_each_mail_fault(|service, ses, fault| async move {
        let alice = service.person(ADDRESS);
        let first = alice.gets_a_key().await;
        let code = alice.gets_a_code().await;
        ses.fail(fault);
        let second = new_key(&service.regenerate(&first).await);
        let third = alice.resets(&code).await;
        assert_eq!(ses.recover(), 2, "{fault:?}");
        assert_eq!(service.counting([&first, &second, &third]).await, [&third], "{fault:?}");
        repeats_until_there_is_a_key(&service, alice).await;
    })
    .await;
}

#[tokio::test]
async fn a_mail_that_failed_does_not_count_for_the_address() {
    let faults = [MailFault::Rejected, MailFault::Throttled, MailFault::LostBefore];
    let runs = faults.map(|fault| async move {
        let (service, ses) = Service::start_with_mail_faults(limits()).await;
        let (alice, bob) = (service.person(ADDRESS), service.person("bob@example.com"));
        bob.registers().await;
        ses.fail(fault);
        for _ in 0..6 {
            let answers = join(alice.tries_to_register(), bob.tries_to_register()).await;
            assert_unavailable(&answers.0);
            assert_unavailable(&answers.1);
        }
        ses.recover();
        for _ in 0..6 {
            alice.registers().await;
            bob.registers().await;
        }
        assert_eq!((alice.mails().len(), bob.mails().len()), (5, 5), "{fault:?}");
    });
    join_all(runs).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn registrations_at_once_of_which_some_mails_fail_leave_no_key_that_nobody_can_get() {
    for fault in [MailFault::Rejected, MailFault::LostAfter] {
        let (service, ses) = Service::start_with_mail_faults(limits()).await;
        let alice = service.person(ADDRESS);
        let every_other: Vec<Option<MailFault>> = (0..10).map(|call| (call % 2 == 0).then_some(fault)).collect();
        ses.arm(&every_other, None);
        for answer in join_all((0..10).map(|_| alice.tries_to_register())).await {
            assert!([202, 503].contains(&answer.status.as_u16()), "{fault:?} {}", answer.text);
        }
        ses.recover();
        service.assert_addresses_sound(&[]).await;
        assert!(alice.stored_keys().await.len() < 2, "{fault:?}");
        service.clock.advance(HOUR);
        repeats_until_there_is_a_key(&service, alice).await;
    }
}

#[tokio::test]
async fn a_code_that_was_mailed_is_good_even_if_an_earlier_mail_is_refused_after_it() {
    for is_known in [false, true] {
        let (service, ses) = Service::start_with_mail_faults(limits()).await;
        let alice = service.person(ADDRESS);
        if is_known {
            alice.registers().await;
            alice.registers().await;
        }
        ses.arm(&[Some(MailFault::RejectedLate)], None);
        let (refused, ()) = join(alice.tries_to_register(), async {
            ses.holds_a_mail().await;
            alice.registers().await;
        })
        .await;
        assert_unavailable(&refused);
        alice.resets(&code_in(&alice.newest_mail())).await;
        service.assert_addresses_sound(&[]).await;
    }
}

// DynamoDB.

/// How long a table is out of order.
#[derive(Debug, Clone, Copy)]
enum Outage {
    /// One call fails.
    Moment(Fault),
    /// All further calls fail.
    Long(Fault),
}

/// What can happen to a call of this operation, one fault of each kind: the table was in somebody's way, it did not hear,
/// it did what was asked and was not heard, it does not answer. To a read the third is the same as the second.
fn outages(operation: &str) -> Vec<Outage> {
    let (deaf, mute, hanging) =
        (Outage::Long(Fault::LostBefore), Outage::Long(Fault::LostAfter), Outage::Long(Fault::Hang));
    let (muted, hindered) = (Outage::Moment(Fault::LostAfter), Outage::Moment(Fault::Conflict));
    match operation {
        "TransactWriteItems" => vec![deaf, mute, hanging, Outage::Long(Fault::Conflict), muted, hindered],
        "UpdateItem" => vec![deaf, mute, hanging, muted],
        _ => vec![deaf, hanging],
    }
}

/// Runs this with each fault at each of the calls that a request makes, on a service each; `request` is made once
/// before, to learn how many those are.
async fn with_each_outage<R, F>(
    prepare: impl AsyncFn(&Service) -> Vec<String>,
    request: impl AsyncFn(&Service, &[String]) -> Answer,
    check: R,
) where
    R: Fn(Service, Vec<String>, Answer, Outage) -> F,
    F: Future<Output = ()>,
{
    let (service, faults) = start().await;
    let secrets = prepare(&service).await;
    faults.arm(0, &[], None);
    request(&service, &secrets).await;
    let calls = faults.disarm();
    assert!(!calls.is_empty());
    let calls = calls.iter().enumerate();
    let outages = calls.flat_map(|(place, call)| outages(call).into_iter().map(move |outage| (place, outage)));
    let (prepare, request, check) = (&prepare, &request, &check);
    let runs = outages.map(|(place, outage)| async move {
        let (service, faults) = start().await;
        let secrets = prepare(&service).await;
        match outage {
            Outage::Moment(fault) => faults.arm(place, &[fault], None),
            Outage::Long(fault) => faults.arm(place, &[], Some(fault)),
        }
        let answer = request(&service, &secrets).await;
        faults.disarm();
        check(service, secrets, answer, outage).await;
    });
    stream::iter(runs).buffer_unordered(8).collect::<Vec<()>>().await;
}

async fn start() -> (Service, Faults) {
    let (service, faults, _) = Service::start_with_all_faults(limits(), no_upstreams()).await;
    (service, faults)
}

/// Checks the answer to a request during an outage: a moment is not noticed, and a long one is 503.
#[track_caller]
fn assert_served(answer: &Answer, done: u16, outage: Outage) {
    if answer.status != done {
        assert!(matches!(outage, Outage::Long(_)), "{outage:?} {}", answer.text);
        assert_unavailable(answer);
    }
}

#[tokio::test]
async fn when_the_table_fails_a_new_address_gets_its_key_by_repeating() {
    with_each_outage(
        async |_| Vec::new(),
        async |service, _| service.person(ADDRESS).tries_to_register().await,
        |service, _, answer, outage| async move {
            assert_served(&answer, 202, outage);
            let alice = service.person(ADDRESS);
            for mail in alice.mails() {
                assert!(service.counts(&key_in(&mail)).await, "{outage:?}: a key that was mailed counts");
            }
            assert_eq!(alice.mails().len(), usize::from(answer.status == 202), "{outage:?}");
            repeats_until_there_is_a_key(&service, alice).await;
        },
    )
    .await;
}

#[tokio::test]
async fn when_the_table_fails_a_known_address_keeps_its_key_and_recovers_by_repeating() {
    with_each_outage(
        async |service| vec![service.person(ADDRESS).gets_a_key().await],
        async |service, _| service.person(ADDRESS).tries_to_register().await,
        |service, secrets, answer, outage| async move {
            assert_served(&answer, 202, outage);
            let alice = service.person(ADDRESS);
            assert!(service.counts(&secrets[0]).await, "{outage:?}");
            assert_eq!(alice.mails().len(), 1 + usize::from(answer.status == 202), "{outage:?}");
            repeats_until_there_is_a_key(&service, alice).await;
        },
    )
    .await;
}

/// Checks what regenerate or reset left behind: the new key if it was answered. Else the old one counts, or nobody knows
/// whether the change was made: then its answer was lost on the way from the table.
async fn check_change(service: Service, old: &str, answer: Answer, outage: Outage) {
    assert_served(&answer, 200, outage);
    let alice = service.person(ADDRESS);
    let old_counts = service.counts(old).await;
    if answer.status == 200 {
        assert!(!old_counts && service.counts(&new_key(&answer)).await, "{outage:?}");
    } else {
        assert!(old_counts || matches!(outage, Outage::Long(Fault::LostAfter)), "{outage:?}");
    }
    assert_eq!(alice.stored_keys().await.len(), 1, "{outage:?}");
    repeats_until_there_is_a_key(&service, alice).await;
}

#[tokio::test]
async fn when_the_table_fails_regenerating_answers_the_new_key_or_leaves_the_old_one() {
    with_each_outage(
        async |service| vec![service.person(ADDRESS).gets_a_key().await],
        async |service, secrets| service.regenerate(&secrets[0]).await,
        |service, secrets, answer, outage| async move { check_change(service, &secrets[0], answer, outage).await },
    )
    .await;
}

#[tokio::test]
async fn when_the_table_fails_a_reset_answers_the_new_key_or_leaves_the_old_one() {
    with_each_outage(
        async |service| {
            let alice = service.person(ADDRESS);
            vec![alice.gets_a_key().await, alice.gets_a_code().await]
        },
        async |service, secrets| service.person(ADDRESS).sends_code(&secrets[1]).await,
        |service, secrets, answer, outage| async move {
            if answer.status == 503 && service.counts(&secrets[0]).await {
                // Repeating the same call is safe.
                service.person(ADDRESS).resets(&secrets[1]).await;
                return;
            }
            check_change(service, &secrets[0], answer, outage).await;
        },
    )
    .await;
}

#[tokio::test]
async fn when_the_table_fails_revoking_is_done_or_can_be_repeated() {
    with_each_outage(
        async |service| vec![service.person(ADDRESS).gets_a_key().await],
        async |service, secrets| service.revoke_key(&secrets[0]).await,
        |service, secrets, answer, outage| async move {
            assert_served(&answer, 204, outage);
            let is_dead = !service.counts(&secrets[0]).await;
            match answer.status.as_u16() {
                204 => assert!(is_dead, "{outage:?}"),
                _ if is_dead => assert!(matches!(outage, Outage::Long(Fault::LostAfter)), "{outage:?}"),
                _ => assert_eq!(service.revoke_key(&secrets[0]).await.status, 204, "{outage:?}"),
            }
            repeats_until_there_is_a_key(&service, service.person(ADDRESS)).await;
        },
    )
    .await;
}

#[tokio::test]
async fn when_the_table_fails_status_is_unavailable() {
    with_each_outage(
        async |service| vec![service.person(ADDRESS).gets_a_key().await],
        async |service, secrets| service.status(&secrets[0]).await,
        |service, secrets, answer, outage| async move {
            assert_served(&answer, 200, outage);
            assert!(service.counts(&secrets[0]).await, "{outage:?}");
        },
    )
    .await;
}

// Both.

#[tokio::test]
async fn when_the_table_fails_after_ses_did_repeating_leads_to_a_key() {
    let mail_faults = [MailFault::Rejected, MailFault::LostAfter];
    let table_faults = [Fault::Conflict, Fault::LostBefore, Fault::LostAfter];
    let runs =
        mail_faults.into_iter().flat_map(|mail| table_faults.map(|table| (mail, table))).map(|fault| async move {
            let (service, faults, ses) = Service::start_with_all_faults(limits(), no_upstreams()).await;
            let alice = service.person(ADDRESS);
            // A registration whose mail went out makes so many calls; further ones take back what it did.
            faults.arm(0, &[], None);
            service.person("bob@example.com").registers().await;
            let calls = faults.disarm().len();
            for known in [false, true] {
                ses.fail(fault.0);
                faults.arm(calls, &[], Some(fault.1));
                assert_unavailable(&alice.tries_to_register().await);
                assert!(faults.disarm().len() > calls, "{fault:?} {known}");
                ses.recover();
                service.assert_addresses_sound(&[]).await;
                for mail in alice.mails().iter().filter(|mail| kind_of(mail).0 == Kind::Welcome && !known) {
                    assert!(service.counts(&key_in(mail)).await, "{fault:?}");
                }
                repeats_until_there_is_a_key(&service, alice).await;
            }
        });
    stream::iter(runs).buffer_unordered(8).collect::<Vec<()>>().await;
}
