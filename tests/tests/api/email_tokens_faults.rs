//! Faults of SES and DynamoDB at every point of an email token's life: the response, and that a
//! retry yields a token.

use std::time::Duration;

use futures::future::{join, join_all};
use futures::{StreamExt, stream};
use serde_json::Value;
use shared::app::Limits;
use shared::store::mail_limits::MailLimits;
use tests::email::{Kind, Person, code_in, kind_of, new_token, token_in};
use tests::faults::{Fault, Faults};
use tests::mail_faults::{MailFault, Ses};
use tests::{Answer, Service, no_upstreams, unlimited};

const HOUR: Duration = Duration::from_secs(60 * 60);

const ADDRESS: &str = "alice@example.com";

/// Faults with which SES explicitly refuses the mail.
const REFUSALS: [MailFault; 3] = [MailFault::Rejected, MailFault::LimitExceeded, MailFault::Throttled];

/// Sets all limits of mails, so that their counters can fail too.
fn limits() -> Limits {
    Limits { mails: MailLimits::default(), ..unlimited() }
}

#[track_caller]
fn assert_unavailable(answer: &Answer) {
    answer.assert_error(503, "SERVICE_UNAVAILABLE");
}

/// Registers again, follows the mail, and asserts that this yields the only active token.
async fn retry_until_token(service: &Service, person: Person<'_>) -> String {
    person.register().await;
    let mail = person.newest_mail();
    let key = match kind_of(&mail).0 {
        Kind::Welcome => token_in(&mail),
        Kind::Recovery => person.reset_with(&code_in(&mail)).await,
        other => panic!("the newest mail is {other:?}, neither welcome nor recovery"),
    };
    assert!(service.is_active(&key).await);
    assert_eq!(person.stored_tokens().await.len(), 1);
    service.assert_sound_without(&[&key]).await;
    key
}

/// Runs a test for each mail fault concurrently, each with its own service.
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

// SES

#[tokio::test]
async fn failed_welcome_mail_is_503_and_retry_yields_a_token() {
    with_each_mail_fault(|service, ses, fault| async move {
        let alice = service.person(ADDRESS);
        ses.fail(fault);
        assert_unavailable(&alice.try_register().await);
        // A single attempt: after a lost response, the refusal of a second attempt would prove
        // nothing.
        assert_eq!(ses.recover(), 1, "{fault:?}");
        let mailed: Vec<String> = alice.mails().iter().map(token_in).collect();
        assert_eq!(mailed.is_empty(), !fault.delivers(), "{fault:?}");
        for key in &mailed {
            assert!(service.is_active(key).await, "{fault:?}: a mailed token is active");
        }
        retry_until_token(&service, alice).await;
    })
    .await;
}

#[tokio::test]
async fn refused_welcome_mail_leaves_no_token() {
    for fault in REFUSALS {
        let (service, ses) = Service::start_with_mail_faults(limits()).await;
        let alice = service.person(ADDRESS);
        ses.fail(fault);
        for _ in 0..2 {
            assert_unavailable(&alice.try_register().await);
            let items = service.table.items_without_audit().await;
            let left = items.iter().filter(|item| item["count"] != 0);
            assert_eq!(left.collect::<Vec<_>>(), Vec::<&Value>::new(), "{fault:?}");
        }
        ses.recover();
        alice.register().await;
        assert_eq!(alice.mail_kinds(), [Kind::Welcome], "{fault:?}");
    }
}

#[tokio::test]
async fn failed_recovery_mail_keeps_the_token_and_retry_recovers() {
    with_each_mail_fault(|service, ses, fault| async move {
        let alice = service.person(ADDRESS);
        let key = alice.obtain_token().await;
        ses.fail(fault);
        assert_unavailable(&alice.try_register().await);
        ses.recover();
        assert!(service.is_active(&key).await, "{fault:?}");
        let mut key = key;
        if fault.delivers() {
            key = alice.reset_with(&code_in(&alice.newest_mail())).await;
        }
        let new = retry_until_token(&service, alice).await;
        assert!(!service.is_active(&key).await && new != key, "{fault:?}");
    })
    .await;
}

#[tokio::test]
async fn refused_recovery_mail_keeps_the_previous_code_valid() {
    for fault in REFUSALS {
        let (service, ses) = Service::start_with_mail_faults(limits()).await;
        let alice = service.person(ADDRESS);
        alice.register().await;
        let code = alice.request_code().await;
        ses.fail(fault);
        assert_unavailable(&alice.try_register().await);
        ses.recover();
        let key = alice.reset_with(&code).await;
        assert!(service.is_active(&key).await, "{fault:?}");
    }
}

#[tokio::test]
async fn failed_key_changed_mail_does_not_fail_the_change() {
    with_each_mail_fault(|service, ses, fault| async move {
        let alice = service.person(ADDRESS);
        let first = alice.obtain_token().await;
        let code = alice.request_code().await;
        ses.fail(fault);
        let second = new_token(&service.regenerate(&first).await);
        let third = alice.reset_with(&code).await;
        // A mail that may be lost is sent again, a refused one is not.
        let attempts = if fault.is_refusal() { 2 } else { 4 };
        assert_eq!(ses.recover(), attempts, "{fault:?}");
        assert_eq!(service.active_tokens([&first, &second, &third]).await, [&third], "{fault:?}");
        retry_until_token(&service, alice).await;
    })
    .await;
}

#[tokio::test]
async fn lost_key_changed_mail_is_sent_again() {
    with_each_mail_fault(|service, ses, fault| async move {
        let alice = service.person(ADDRESS);
        let first = alice.obtain_token().await;
        ses.arm(&[Some(fault)], None);
        new_token(&service.regenerate(&first).await);
        let attempts = ses.recover();
        let warnings = alice.mail_kinds().iter().filter(|kind| **kind == Kind::KeyChanged).count();
        if fault.is_refusal() {
            assert_eq!((attempts, warnings), (1, 0), "{fault:?}");
        } else {
            assert_eq!((attempts, warnings), (2, 1 + usize::from(fault.delivers())), "{fault:?}");
        }
    })
    .await;
}

#[tokio::test]
async fn failed_key_removed_mail_does_not_fail_the_removal() {
    with_each_mail_fault(|service, ses, fault| async move {
        let alice = service.person(ADDRESS);
        let key = alice.obtain_token().await;
        ses.fail(fault);
        let answer = service.revoke_email_token(&key).await;
        assert_eq!((answer.status.as_u16(), answer.text.as_str()), (204, ""), "{fault:?}");
        assert_eq!(ses.recover(), if fault.is_refusal() { 1 } else { 2 }, "{fault:?}");
        assert!(!service.is_active(&key).await, "{fault:?}");
        retry_until_token(&service, alice).await;
    })
    .await;
}

#[tokio::test]
async fn lost_key_removed_mail_is_sent_again() {
    with_each_mail_fault(|service, ses, fault| async move {
        let alice = service.person(ADDRESS);
        let key = alice.obtain_token().await;
        ses.arm(&[Some(fault)], None);
        assert_eq!(service.revoke_email_token(&key).await.status, 204, "{fault:?}");
        let warnings = alice.mail_kinds().iter().filter(|kind| **kind == Kind::KeyRemoved).count();
        let expected = if fault.is_refusal() { 0 } else { 1 + usize::from(fault.delivers()) };
        assert_eq!(warnings, expected, "{fault:?}");
    })
    .await;
}

#[tokio::test]
async fn failed_mails_do_not_consume_the_address_limit() {
    let faults = [MailFault::Rejected, MailFault::Throttled, MailFault::LostBefore];
    let runs = faults.map(|fault| async move {
        let (service, ses) = Service::start_with_mail_faults(limits()).await;
        let (alice, bob) = (service.person(ADDRESS), service.person("bob@example.com"));
        bob.register().await;
        ses.fail(fault);
        for _ in 0..6 {
            let answers = join(alice.try_register(), bob.try_register()).await;
            assert_unavailable(&answers.0);
            assert_unavailable(&answers.1);
        }
        ses.recover();
        for _ in 0..6 {
            alice.register().await;
            bob.register().await;
        }
        assert_eq!((alice.mails().len(), bob.mails().len()), (5, 5), "{fault:?}");
    });
    join_all(runs).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn mail_failures_in_concurrent_registrations_leave_the_address_recoverable() {
    for fault in [MailFault::Rejected, MailFault::LostAfter] {
        let (service, ses) = Service::start_with_mail_faults(limits()).await;
        let alice = service.person(ADDRESS);
        let every_other: Vec<Option<MailFault>> = (0..10).map(|call| (call % 2 == 0).then_some(fault)).collect();
        ses.arm(&every_other, None);
        for answer in join_all((0..10).map(|_| alice.try_register())).await {
            assert!([202, 503].contains(&answer.status.as_u16()), "{fault:?} {}", answer.text);
        }
        ses.recover();
        service.assert_sound_without(&[]).await;
        assert!(alice.stored_tokens().await.len() < 2, "{fault:?}");
        service.clock.advance(HOUR);
        retry_until_token(&service, alice).await;
    }
}

#[tokio::test]
async fn mailed_code_survives_the_late_refusal_of_an_earlier_mail() {
    for is_known in [false, true] {
        let (service, ses) = Service::start_with_mail_faults(limits()).await;
        let alice = service.person(ADDRESS);
        if is_known {
            alice.register().await;
            alice.register().await;
        }
        ses.arm(&[Some(MailFault::RejectedLate)], None);
        let (refused, ()) = join(alice.try_register(), async {
            ses.wait_for_held_mail().await;
            alice.register().await;
        })
        .await;
        assert_unavailable(&refused);
        alice.reset_with(&code_in(&alice.newest_mail())).await;
        service.assert_sound_without(&[]).await;
    }
}

// DynamoDB

/// How long the table fails.
#[derive(Debug, Clone, Copy)]
enum Outage {
    /// For one call.
    Moment(Fault),
    /// For all further calls.
    Long(Fault),
}

/// The faults to inject into this operation: no effect, effect with lost response, timeout and
/// conflict. For reads a lost response equals no effect.
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

/// Runs a test for each fault at each call of a request, each with its own service. A first run
/// counts the calls.
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

/// Asserts the response during an outage: one failed call is retried unnoticed; a long outage may
/// be 503.
#[track_caller]
fn assert_served(answer: &Answer, done: u16, outage: Outage) {
    if answer.status != done {
        assert!(matches!(outage, Outage::Long(_)), "{outage:?} {}", answer.text);
        assert_unavailable(answer);
    }
}

#[tokio::test]
async fn new_address_gets_a_token_on_retry_after_table_failures() {
    with_each_outage(
        async |_| Vec::new(),
        async |service, _| service.person(ADDRESS).try_register().await,
        |service, _, answer, outage| async move {
            assert_served(&answer, 202, outage);
            let alice = service.person(ADDRESS);
            for mail in alice.mails() {
                assert!(service.is_active(&token_in(&mail)).await, "{outage:?}: a mailed token is active");
            }
            assert_eq!(alice.mails().len(), usize::from(answer.status == 202), "{outage:?}");
            retry_until_token(&service, alice).await;
        },
    )
    .await;
}

#[tokio::test]
async fn known_address_keeps_its_token_during_table_failures() {
    with_each_outage(
        async |service| vec![service.person(ADDRESS).obtain_token().await],
        async |service, _| service.person(ADDRESS).try_register().await,
        |service, secrets, answer, outage| async move {
            assert_served(&answer, 202, outage);
            let alice = service.person(ADDRESS);
            assert!(service.is_active(&secrets[0]).await, "{outage:?}");
            assert_eq!(alice.mails().len(), 1 + usize::from(answer.status == 202), "{outage:?}");
            retry_until_token(&service, alice).await;
        },
    )
    .await;
}

/// Asserts the result of regenerate or reset. On success only the new token is active. On failure
/// the old one is, unless the response from the table was lost.
async fn check_change(service: Service, old: &str, answer: Answer, outage: Outage) {
    assert_served(&answer, 200, outage);
    let alice = service.person(ADDRESS);
    let old_is_active = service.is_active(old).await;
    if answer.status == 200 {
        assert!(!old_is_active && service.is_active(&new_token(&answer)).await, "{outage:?}");
    } else {
        assert!(old_is_active || matches!(outage, Outage::Long(Fault::LostAfter)), "{outage:?}");
    }
    assert_eq!(alice.stored_tokens().await.len(), 1, "{outage:?}");
    retry_until_token(&service, alice).await;
}

#[tokio::test]
async fn regeneration_is_atomic_under_table_failures() {
    with_each_outage(
        async |service| vec![service.person(ADDRESS).obtain_token().await],
        async |service, secrets| service.regenerate(&secrets[0]).await,
        |service, secrets, answer, outage| async move { check_change(service, &secrets[0], answer, outage).await },
    )
    .await;
}

#[tokio::test]
async fn reset_is_atomic_under_table_failures() {
    with_each_outage(
        async |service| {
            let alice = service.person(ADDRESS);
            vec![alice.obtain_token().await, alice.request_code().await]
        },
        async |service, secrets| service.person(ADDRESS).submit_code(&secrets[1]).await,
        |service, secrets, answer, outage| async move {
            if answer.status == 503 && service.is_active(&secrets[0]).await {
                // Retrying the same call is safe.
                service.person(ADDRESS).reset_with(&secrets[1]).await;
                return;
            }
            check_change(service, &secrets[0], answer, outage).await;
        },
    )
    .await;
}

#[tokio::test]
async fn revocation_completes_or_can_be_retried_under_table_failures() {
    with_each_outage(
        async |service| vec![service.person(ADDRESS).obtain_token().await],
        async |service, secrets| service.revoke_email_token(&secrets[0]).await,
        |service, secrets, answer, outage| async move {
            assert_served(&answer, 204, outage);
            let is_revoked = !service.is_active(&secrets[0]).await;
            match answer.status.as_u16() {
                204 => assert!(is_revoked, "{outage:?}"),
                _ if is_revoked => assert!(matches!(outage, Outage::Long(Fault::LostAfter)), "{outage:?}"),
                _ => assert_eq!(service.revoke_email_token(&secrets[0]).await.status, 204, "{outage:?}"),
            }
            retry_until_token(&service, service.person(ADDRESS)).await;
        },
    )
    .await;
}

#[tokio::test]
async fn status_is_503_while_the_table_fails() {
    with_each_outage(
        async |service| vec![service.person(ADDRESS).obtain_token().await],
        async |service, secrets| service.status(&secrets[0]).await,
        |service, secrets, answer, outage| async move {
            assert_served(&answer, 200, outage);
            assert!(service.is_active(&secrets[0]).await, "{outage:?}");
        },
    )
    .await;
}

// SES and DynamoDB

#[tokio::test]
async fn retry_yields_a_token_after_mail_and_table_failures() {
    let mail_faults = [MailFault::Rejected, MailFault::LostAfter];
    let table_faults = [Fault::Conflict, Fault::LostBefore, Fault::LostAfter];
    let runs =
        mail_faults.into_iter().flat_map(|mail| table_faults.map(|table| (mail, table))).map(|fault| async move {
            let (service, faults, ses) = Service::start_with_all_faults(limits(), no_upstreams()).await;
            let alice = service.person(ADDRESS);
            // The calls of successful registrations of a new and a known address; any further calls
            // undo them.
            let mut registrations = Vec::new();
            for _ in 0..2 {
                faults.arm(0, &[], None);
                service.person("bob@example.com").register().await;
                registrations.push(faults.disarm().len());
            }
            for (known, calls) in [false, true].into_iter().zip(registrations) {
                ses.fail(fault.0);
                faults.arm(calls, &[], Some(fault.1));
                assert_unavailable(&alice.try_register().await);
                assert!(faults.disarm().len() > calls, "{fault:?} {known}");
                ses.recover();
                service.assert_sound_without(&[]).await;
                for mail in alice.mails().iter().filter(|mail| kind_of(mail).0 == Kind::Welcome && !known) {
                    assert!(service.is_active(&token_in(mail)).await, "{fault:?}");
                }
                retry_until_token(&service, alice).await;
            }
        });
    stream::iter(runs).buffer_unordered(8).collect::<Vec<()>>().await;
}
