//! Limits of the mails that registrations send: per source, mailbox, domain and deployment, and who
//! may register at all. Every answer is the same 202.

use std::time::{Duration, Instant};

use futures::future::{join, join_all};
use reqwest::Client;
use serde_json::{Value, json};
use shared::app::Limits;
use shared::store::mail_limits::MailLimits;
use shared::store::registration::RegistrationPolicy;
use tests::email::{Kind, assert_accepted, code_in, token_in};
use tests::faults::Fault;
use tests::log::Log;
use tests::mail_faults::MailFault;
use tests::table::text;
use tests::{Service, mails_per_hour, no_upstreams, operator, unlimited};
use tracing_subscriber::filter::LevelFilter;

const HOUR: Duration = Duration::from_secs(60 * 60);

/// A service with a manual clock and these limits of mails.
async fn service_with(mails: MailLimits) -> Service {
    let (service, _) = Service::start_with_mail_faults(Limits { mails, ..unlimited() }).await;
    service
}

/// Registers from another address of this machine. Only Linux accepts all of 127.0.0.0/8.
async fn register_from(service: &Service, source: u8, address: &str) {
    let client = Client::builder().local_address(std::net::IpAddr::from([127, 0, 0, source])).build().unwrap();
    let request = client.post(format!("{}/api/v1/tokens", service.base_url)).json(&json!({"email": address}));
    assert_accepted(&service.send(request).await);
}

/// Everything in the table but counters.
async fn records(service: &Service) -> Vec<Value> {
    let mut items = service.table.items().await;
    items.retain(|item| !text(item, "pk").starts_with("MAILS"));
    items
}

#[test]
fn default_limits_match_the_contract() {
    let MailLimits {
        per_hour,
        per_domain_per_hour,
        per_source_per_hour,
        per_source_per_day,
        recoveries_per_source_per_hour,
        sign_in_codes_per_source_per_hour,
    } = MailLimits::default();
    assert_eq!((per_hour, per_domain_per_hour), (Some(1_000), Some(300)));
    let per_source = (per_source_per_hour, per_source_per_day, recoveries_per_source_per_hour);
    assert_eq!((per_source, sign_in_codes_per_source_per_hour), ((Some(60), Some(200), Some(60)), Some(60)));
}

#[tokio::test]
async fn one_source_reaches_60_new_addresses_an_hour_and_200_a_day() {
    let service = service_with(MailLimits::default()).await;
    let alice = service.person("alice@example.com");
    alice.register().await;
    let mut expected = 1;
    for (hour, mails) in [60, 60, 60, 20, 0].into_iter().enumerate() {
        for place in usize::from(hour == 0)..70 {
            service.person(&format!("someone@d{hour}-{place}.example")).register().await;
        }
        expected += mails - usize::from(hour == 0);
        assert_eq!(service.outbox.mails().len(), expected, "hour {hour}");
        // Recovery goes on.
        alice.register().await;
        expected += 1;
        assert_eq!(alice.mail_kinds().last(), Some(&Kind::Recovery));
        service.clock.advance(HOUR);
    }
    // 15:00 so far; the day ends at midnight.
    service.clock.advance(HOUR * 8);
    service.person("someone@late.example").register().await;
    assert_eq!(service.outbox.mails().len(), expected);
    service.clock.advance(HOUR);
    service.person("someone@late.example").register().await;
    assert_eq!(service.outbox.mails().len(), expected + 1);
}

#[tokio::test]
async fn sub_addresses_and_dots_share_the_five_mails_of_their_mailbox() {
    let service = service_with(MailLimits::default()).await;
    for address in [
        "victim+1@example.com",
        "victim+2@example.com",
        "v.ictim@example.com",
        "VICTIM+3+4@example.com",
        "victim@example.com",
    ] {
        let person = service.person(address);
        person.register().await;
        assert_eq!(person.mail_kinds(), [Kind::Welcome], "{address}");
    }
    let before = records(&service).await;
    for address in ["victim+5@example.com", "vic.tim@example.com", "victim+@example.com"] {
        service.person(address).register().await;
    }
    assert_eq!(service.outbox.mails().len(), 5);
    assert_eq!(records(&service).await, before, "no token is created without a mail");
    // These are other mailboxes.
    for address in ["victim2+1@example.com", "victim@example.org", "+victim@example.com", "+v@example.com"] {
        let person = service.person(address);
        person.register().await;
        assert_eq!(person.mail_kinds(), [Kind::Welcome], "{address}");
    }
    // The owner still recovers what the mailbox has.
    service.person("victim@example.com").recover().await;
    service.clock.advance(HOUR);
    service.person("victim+6@example.com").obtain_token().await;
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn one_source_gets_a_tenth_of_a_domains_mails() {
    let log = Log::default();
    let _here = tracing::subscriber::set_default(log.subscriber(LevelFilter::ERROR));
    let service = service_with(MailLimits { per_domain_per_hour: Some(30), ..MailLimits::default() }).await;
    let sent = || service.outbox.mails().len();
    for source in 1..=10 {
        for place in 0..4 {
            register_from(&service, source, &format!("p{source}-{place}@example.com")).await;
        }
        assert_eq!(sent(), 3 * usize::from(source));
    }
    let said = |log: &Log| log.text().matches("the hourly mail limit of a domain is reached").count();
    assert_eq!(said(&log), 0);
    register_from(&service, 11, "p11@example.com").await;
    assert_eq!((sent(), said(&log)), (30, 1));
    assert!(log.text().contains("example.com") && !log.text().contains("p11"), "{}", log.text());
    // Known addresses of the domain, and other domains, are not affected.
    register_from(&service, 11, "p1-0@example.com").await;
    register_from(&service, 11, "p11@mail.example.com").await;
    assert_eq!(sent(), 32);
    service.clock.advance(HOUR);
    register_from(&service, 11, "p11@example.com").await;
    assert_eq!(sent(), 33);
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn one_source_asks_for_60_recoveries_an_hour() {
    let service = service_with(MailLimits { per_domain_per_hour: None, ..MailLimits::default() }).await;
    let people: Vec<String> = (0..16).map(|place| format!("person-{place}@example.com")).collect();
    for person in &people {
        service.person(person).register().await;
    }
    for _ in 0..4 {
        for person in &people {
            service.person(person).register().await;
        }
    }
    assert_eq!(service.outbox.mails().len(), 16 + 60);
    // The last four had one recovery less, from this source.
    register_from(&service, 2, &people[15]).await;
    assert_eq!(service.outbox.mails().len(), 16 + 61);
    service.clock.advance(HOUR);
    service.person(&people[15]).recover().await;
}

#[tokio::test]
async fn a_fifth_of_the_deployments_mails_is_kept_for_known_addresses() {
    let log = Log::default();
    let _here = tracing::subscriber::set_default(log.subscriber(LevelFilter::ERROR));
    let (service, _) = Service::start_with_mail_faults(mails_per_hour(10)).await;
    let known = service.person("person-0@example.com");
    for place in 0..12 {
        service.person(&format!("person-{place}@example.com")).register().await;
    }
    assert_eq!(service.outbox.mails().len(), 8);
    let said = log.text().matches("the hourly mail limit of addresses without a token is reached").count();
    assert_eq!(said, 4);
    known.recover().await;
    known.register().await;
    assert_eq!(known.mail_kinds(), [Kind::Welcome, Kind::Recovery, Kind::KeyChanged, Kind::Recovery]);
    let before = records(&service).await;
    known.register().await;
    assert_eq!(records(&service).await, before);
    assert_eq!(log.text().matches("the hourly mail limit of the deployment is reached").count(), 1);
}

#[tokio::test]
async fn one_mail_is_kept_for_known_addresses_where_a_fifth_is_less() {
    let (service, _) = Service::start_with_mail_faults(mails_per_hour(3)).await;
    let known = service.person("person-0@example.com");
    for place in 0..4 {
        service.person(&format!("person-{place}@example.com")).register().await;
    }
    assert_eq!(service.outbox.mails().len(), 2);
    known.recover().await;
}

#[tokio::test]
async fn a_mail_that_ses_refused_counts_against_no_limit() {
    let one = MailLimits {
        per_hour: Some(2),
        per_domain_per_hour: Some(1),
        per_source_per_hour: Some(1),
        per_source_per_day: Some(1),
        recoveries_per_source_per_hour: Some(1),
        sign_in_codes_per_source_per_hour: Some(1),
    };
    for fault in [MailFault::Rejected, MailFault::Throttled] {
        let (service, ses) = Service::start_with_mail_faults(Limits { mails: one.clone(), ..unlimited() }).await;
        let alice = service.person("alice@example.com");
        for kind in [Kind::Welcome, Kind::Recovery] {
            ses.fail(fault);
            for _ in 0..3 {
                let answer = alice.try_register().await;
                match kind {
                    Kind::Welcome => answer.assert_error(503, "SERVICE_UNAVAILABLE"),
                    // An address without a token would be beyond its limit, and is answered 202.
                    _ => assert_accepted(&answer),
                }
            }
            ses.recover();
            alice.register().await;
            assert_eq!(alice.mail_kinds().last(), Some(&kind), "{fault:?}");
        }
        alice.register().await;
        service.person("bob@else.example").register().await;
        assert_eq!(service.outbox.mails().len(), 2, "{fault:?}");
    }
    // Whoever does not know whether the mail was sent assumes that it was.
    let (service, ses) = Service::start_with_mail_faults(Limits { mails: one, ..unlimited() }).await;
    ses.fail(MailFault::LostBefore);
    service.person("alice@example.com").try_register().await.assert_error(503, "SERVICE_UNAVAILABLE");
    ses.recover();
    service.person("bob@else.example").register().await;
    assert!(service.outbox.mails().is_empty());
}

#[tokio::test]
async fn failing_ses_does_not_tell_known_from_new_addresses() {
    let closed = Limits { registration: RegistrationPolicy::Closed, ..unlimited() };
    let elsewhere = Limits { registration: "example.org".parse().unwrap(), ..unlimited() };
    let of_source = |limits: MailLimits| Limits { mails: limits, ..unlimited() };
    let none = unlimited().mails;
    // Each is used up before SES fails.
    let new_full = of_source(MailLimits { per_source_per_hour: Some(1), ..none.clone() });
    let recoveries_full = of_source(MailLimits { recoveries_per_source_per_hour: Some(1), ..none });
    for (limits, status) in [
        (unlimited(), 503),
        (Limits { registration: "example.com".parse().unwrap(), ..unlimited() }, 503),
        (closed, 202),
        (elsewhere, 202),
        (new_full, 202),
        (recoveries_full, 202),
    ] {
        for fault in [MailFault::Rejected, MailFault::Down] {
            let (service, ses) = Service::start_with_mail_faults(limits.clone()).await;
            let token = service.email_token("known@example.com").await;
            for address in ["known@example.com", "first@else.example"] {
                service.person(address).register().await;
            }
            let tokens = async || {
                let mut items = records(&service).await;
                items.retain(|item| !text(item, "pk").ends_with("#AUDIT") && text(item, "sk") != "MAILS");
                items
            };
            let (before, mails) = (tokens().await, service.outbox.mails().len());
            ses.fail(fault);
            for address in ["known@example.com", "new@example.com"] {
                let answer = service.person(address).try_register().await;
                assert_eq!(answer.status, status, "{address} {fault:?} {limits:?}: {}", answer.text);
            }
            ses.recover();
            assert_eq!(service.outbox.mails().len(), mails);
            // Nothing is lost: what SES certainly refused leaves nothing, and can be asked for again.
            assert!(service.is_active(&token).await);
            if fault == MailFault::Rejected {
                assert_eq!(tokens().await, before, "{limits:?}");
            }
        }
    }
}

#[tokio::test]
async fn slow_registration_takes_a_multiple_of_its_time() {
    let step = Duration::from_millis(700);
    let limits = Limits { registration_time: step, ..unlimited() };
    let (service, faults, _ses) = Service::start_with_all_faults(limits, no_upstreams()).await;
    let alice = service.person("alice@example.com");
    let started = Instant::now();
    alice.register().await;
    assert!(started.elapsed() >= step);
    faults.arm(0, &[Fault::Held], None);
    let started = Instant::now();
    let release = async {
        tokio::time::sleep(step + Duration::from_millis(50)).await;
        faults.release();
    };
    let ((), ()) = join(alice.register(), release).await;
    faults.disarm();
    assert!(started.elapsed() >= 2 * step, "{:?}", started.elapsed());
}

#[tokio::test]
async fn registration_is_open_closed_or_for_domains() {
    let limits = Limits { registration: "example.com,example.org".parse().unwrap(), ..unlimited() };
    let (service, _) = Service::start_with_mail_faults(limits).await;
    let mails = async |address: &str| {
        let person = service.person(address);
        person.register().await;
        person.mails().len()
    };
    assert_eq!(mails("alice@example.com").await, 1);
    for other in ["alice@example.net", "alice@mail.example.com", "alice@notexample.com"] {
        assert_eq!(mails(other).await, 0, "{other}");
    }
    // The operator's word goes before the parameter, from the next call on.
    let set = async |policy: Option<&str>| {
        let policy = policy.map(|text| text.parse::<RegistrationPolicy>().unwrap());
        service.store.set_registration(policy.as_ref(), &operator()).await.unwrap();
    };
    set(Some("closed")).await;
    let before = records(&service).await;
    assert_eq!(mails("bob@example.com").await, 0);
    assert_eq!(records(&service).await, before);
    let alice = service.person("alice@example.com");
    let first = token_in(&alice.newest_mail());
    let second = alice.recover().await;
    assert_eq!(service.active_tokens([&first, &second]).await, [&second]);
    set(Some("example.net")).await;
    assert_eq!((mails("bob@example.com").await, mails("bob@example.net").await), (0, 1));
    set(Some("open")).await;
    assert_eq!(mails("carol@example.edu").await, 1);
    set(None).await;
    assert_eq!((mails("dave@example.edu").await, mails("dave@example.org").await), (0, 1));
    // Its key ended: the address is new again.
    set(Some("closed")).await;
    assert_eq!(service.revoke_email_token(&second).await.status, 204);
    let count = alice.mails().len();
    assert_eq!(mails("alice@example.com").await, count);
}

#[tokio::test]
async fn every_limit_has_the_same_answer_and_creates_nothing() {
    let log = Log::default();
    let _here = tracing::subscriber::set_default(log.subscriber(LevelFilter::INFO));
    let one = MailLimits { per_source_per_hour: Some(1), ..MailLimits::default() };
    let cases: [(&str, MailLimits); 4] = [
        ("source", one.clone()),
        ("domain", MailLimits { per_domain_per_hour: Some(1), ..MailLimits::default() }),
        ("day", MailLimits { per_source_per_hour: None, per_source_per_day: Some(1), ..one }),
        ("deployment", MailLimits { per_hour: Some(1), ..MailLimits::default() }),
    ];
    for (name, mails) in cases {
        let service = service_with(mails).await;
        let alice = service.person("alice@example.com");
        let sent = alice.try_register().await;
        let before = records(&service).await;
        let withheld = service.person("bob@example.com").try_register().await;
        assert_eq!((sent.status, &sent.text), (withheld.status, &withheld.text), "{name}");
        let names = |answer: &tests::Answer| answer.headers.keys().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(names(&sent), names(&withheld), "{name}");
        assert_eq!((service.outbox.mails().len(), records(&service).await), (1, before), "{name}");
    }
    for address in ["alice@", "bob@"] {
        assert!(!log.text().contains(address), "{}", log.text());
    }
}

#[tokio::test]
async fn code_mailed_before_a_limit_was_reached_still_works() {
    let (service, _) = Service::start_with_mail_faults(mails_per_hour(2)).await;
    let alice = service.person("alice@example.com");
    alice.register().await;
    alice.register().await;
    let code = code_in(&alice.newest_mail());
    alice.register().await;
    alice.reset_with(&code).await;
}

#[tokio::test]
async fn concurrent_registrations_cannot_exceed_a_limit() {
    let service = service_with(MailLimits { per_source_per_hour: Some(5), ..MailLimits::default() }).await;
    let calls = (0..20).map(|place| {
        let service = &service;
        async move { service.person(&format!("person@d{place}.example")).register().await }
    });
    join_all(calls).await;
    assert_eq!(service.outbox.mails().len(), 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn closed_registration_holds_while_a_token_is_revoked() {
    let (service, _) = Service::start_with_mail_faults(unlimited()).await;
    let alice = service.person("alice@example.com");
    let set = async |policy: RegistrationPolicy| {
        service.store.set_registration(Some(&policy), &operator()).await.unwrap();
    };
    for round in 1..=20 {
        set(RegistrationPolicy::Open).await;
        let key = alice.obtain_token().await;
        set(RegistrationPolicy::Closed).await;
        let ((), revoked) = join(alice.register(), service.revoke_email_token(&key)).await;
        assert_eq!(revoked.status, 204);
        assert!(alice.stored_tokens().await.is_empty());
        let welcomes = alice.mail_kinds().iter().filter(|kind| **kind == Kind::Welcome).count();
        assert_eq!(welcomes, round);
        service.clock.advance(HOUR);
    }
}
