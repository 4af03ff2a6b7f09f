//! What organizations have asked to be told: new tokens, and keys of bots that were rotated.

use std::time::Duration;

use futures::future::join_all;
use local::outbox::Mail;
use serde_json::json;
use shared::app::Limits;
use shared::domain::{LeakPolicy, Notify};
use shared::permissions::Role;
use shared::secret::Token;
use shared::store::mail_limits::MailLimits;
use tests::email::{Kind, is_token, kind_of};
use tests::faults::{Fault, Faults, at_each_call};
use tests::mail_faults::{MailFault, Ses};
use tests::table::text;
use tests::{Bot, Org, Service, no_upstreams, operator, unlimited};

const HOUR: Duration = Duration::from_secs(60 * 60);
const SECURITY: &str = "security@example.com";
const BOSS: &str = "boss@example.org";

/// An organization whose contacts have asked for this.
async fn org_that_asks(service: &Service, contacts: &[&str], notify: &[Notify]) -> (Org, Bot) {
    let (org, owner) = service.org_with_owner().await;
    service.set_leaks(&org.id, contacts, LeakPolicy::Revoke).await;
    service.set_notify(&org.id, notify).await;
    (org, owner)
}

/// The mails to an address, all of which are notices without a token.
#[track_caller]
fn notices_to(service: &Service, address: &str) -> Vec<Mail> {
    let mails = service.person(address).mails();
    for mail in &mails {
        assert_eq!(kind_of(mail).0, Kind::Happened, "{mail:?}");
        let source = mail.source.to_string();
        let words = source.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
        assert_eq!(words.filter(|word| is_token(word) || Token::parse(word).is_some()).count(), 0, "{source}");
    }
    mails
}

/// In how many of an address's notices a line with this action and ID is.
#[track_caller]
fn told(service: &Service, address: &str, action: &str, id: &str) -> usize {
    let line = format!("{action} {id}\n");
    notices_to(service, address).iter().filter(|mail| mail.text.contains(&line)).count()
}

/// Runs in the next hour.
async fn next_hour(service: &Service) {
    service.clock.advance(HOUR);
    service.remind().await.unwrap();
}

#[tokio::test]
async fn contacts_are_told_once_an_hour_of_what_they_have_asked_for_and_of_nothing_else() {
    let service = Service::start_with_manual_clock().await;
    let (both, owner) = org_that_asks(&service, &[SECURITY, BOSS], Notify::ALL).await;
    let (tokens, tokens_owner) = org_that_asks(&service, &["tokens@example.com"], &[Notify::NewToken]).await;
    let (keys, keys_owner) = org_that_asks(&service, &["keys@example.com"], &[Notify::BotKeyRotated]).await;
    let (nothing, nothings_owner) = org_that_asks(&service, &["nothing@example.com"], &[]).await;
    let user = service.issue(&both, &owner, "alice").await;
    let key = service.api_key(&owner.credential, &["org:read"]).await;
    let access = service.access_token(&owner, &json!({"name": "server"})).await;
    let path = both.org_user_tokens(&format!("/by-id/{}/rotate", user.id));
    let successor = service.post(&path, &owner.credential, &json!({"overlap": "1h"})).await.json();
    let refused = service.bot(&both, &[Role::ApiKeyManager]).await;
    let body = json!({"user_identifier": "mallory"});
    assert_eq!(service.post(&both.org_user_tokens(""), &refused.credential, &body).await.status, 403);
    let mut issued = Vec::new();
    for (org, owner) in [(&tokens, &tokens_owner), (&keys, &keys_owner), (&nothing, &nothings_owner)] {
        issued.push(service.issue(org, owner, "bobby").await.id);
    }
    for owner in [&owner, &tokens_owner, &keys_owner, &nothings_owner] {
        service.store.rotate_bot_key(&owner.id, None, &operator()).await.unwrap().unwrap();
    }
    // What has just happened is told by the next hour's run.
    service.remind().await.unwrap();
    assert_eq!(service.outbox.mails().len(), 0);
    for _ in 0..3 {
        next_hour(&service).await;
        service.remind().await.unwrap();
    }
    for contact in [SECURITY, BOSS] {
        let [mail] = &notices_to(&service, contact)[..] else { panic!("not one mail to {contact}") };
        assert!(mail.text.contains("Organization: Example"), "{}", mail.text);
        for (action, id) in [
            ("org_user_token.issue", user.id.clone()),
            ("org_user_token.issue", text(&successor, "id").to_owned()),
            ("api_key.create", key.id.clone()),
            ("org_access_token.create", access.id.to_string()),
            ("bot.rotate_key", owner.id.to_string()),
        ] {
            assert_eq!(told(&service, contact, action, &id), 1, "{action}: {}", mail.text);
        }
        assert!(mail.text.contains(&format!("  bot {}", owner.id)), "{}", mail.text);
        // Neither what was refused, nor revocations and bots.
        assert_eq!(mail.text.matches("2026-11-21T").count(), 5, "{}", mail.text);
    }
    assert_eq!(told(&service, "tokens@example.com", "org_user_token.issue", &issued[0]), 1);
    assert_eq!(told(&service, "keys@example.com", "bot.rotate_key", keys_owner.id.as_str()), 1);
    for address in ["tokens@example.com", "keys@example.com"] {
        let [mail] = &notices_to(&service, address)[..] else { panic!("not one mail to {address}") };
        assert_eq!(mail.text.matches("2026-11-21T").count(), 1, "{}", mail.text);
    }
    assert_eq!(notices_to(&service, "nothing@example.com").len(), 0);
}

#[tokio::test]
async fn next_mail_has_what_came_since_the_last_one() {
    let service = Service::start_with_manual_clock().await;
    let (org, owner) = org_that_asks(&service, &[SECURITY], Notify::ALL).await;
    let mut ids = Vec::new();
    for minute in 0..60 * 5 {
        // Every 20 minutes, also just before and just after a run.
        if minute % 20 == 19 {
            ids.push(service.issue(&org, &owner, "alice").await.id);
        }
        if minute % 15 == 0 {
            service.remind().await.unwrap();
        }
        service.clock.advance(Duration::from_secs(60));
    }
    next_hour(&service).await;
    for id in &ids {
        assert_eq!(told(&service, SECURITY, "org_user_token.issue", id), 1);
    }
    let hours: Vec<String> =
        notices_to(&service, SECURITY).iter().map(|mail| mail.at.to_string()[..13].to_owned()).collect();
    let mut once = hours.clone();
    once.dedup();
    assert!(hours.len() >= 4 && once == hours, "{hours:?}");
}

#[tokio::test]
async fn asking_starts_now_keeps_the_place_and_ends_at_once() {
    let service = Service::start_with_manual_clock().await;
    let (org, owner) = org_that_asks(&service, &[SECURITY], &[]).await;
    let before = service.issue(&org, &owner, "alice").await;
    service.clock.advance(HOUR);
    service.set_notify(&org.id, &[Notify::NewToken]).await;
    service.clock.advance(Duration::from_secs(1));
    let asked = service.issue(&org, &owner, "bobby").await;
    // Asking again changes what is told and not from when.
    service.clock.advance(Duration::from_secs(1));
    service.set_notify(&org.id, Notify::ALL).await;
    next_hour(&service).await;
    let told_of = |id: &str| told(&service, SECURITY, "org_user_token.issue", id);
    assert_eq!((told_of(&before.id), told_of(&asked.id)), (0, 1));
    let ended = service.issue(&org, &owner, "carol").await;
    service.set_notify(&org.id, &[]).await;
    next_hour(&service).await;
    assert_eq!(told_of(&ended.id), 0);
    let items = service.table.items().await;
    assert!(items.iter().all(|item| text(item, "pk") != "SUBSCRIPTIONS"));
}

#[tokio::test]
async fn mail_lists_twenty_and_counts_the_others_also_of_a_long_log() {
    let service = Service::start_with_manual_clock().await;
    let (org, owner) = org_that_asks(&service, &[SECURITY], Notify::ALL).await;
    for number in 0..130 {
        service.issue(&org, &owner, &format!("user-{number}")).await;
    }
    next_hour(&service).await;
    let [mail] = &notices_to(&service, SECURITY)[..] else { panic!("not one mail") };
    assert_eq!(mail.text.matches("org_user_token.issue ").count(), 20, "{}", mail.text);
    assert!(mail.text.contains("And 110 more: see the audit log."), "{}", mail.text);
    next_hour(&service).await;
    assert_eq!(notices_to(&service, SECURITY).len(), 1);
}

#[tokio::test]
async fn notices_use_half_of_the_deployments_mails_for_all_contacts_or_none() {
    let limits = Limits { mails: MailLimits { per_hour: Some(2), ..unlimited().mails }, ..unlimited() };
    let (service, _) = Service::start_with_mail_faults(limits).await;
    let (org, owner) = org_that_asks(&service, &[SECURITY, BOSS], Notify::ALL).await;
    let token = service.issue(&org, &owner, "alice").await;
    next_hour(&service).await;
    assert_eq!(service.outbox.mails().len(), 0);
    service.set_leaks(&org.id, &[BOSS], LeakPolicy::Revoke).await;
    next_hour(&service).await;
    assert_eq!(told(&service, BOSS, "org_user_token.issue", &token.id), 1);
}

#[tokio::test]
async fn failing_mails_lose_nothing_and_one_reached_contact_suffices() {
    for (fault, first) in [(MailFault::Rejected, true), (MailFault::Rejected, false), (MailFault::Down, false)] {
        let (service, ses) = Service::start_with_mail_faults(unlimited()).await;
        let (org, owner) = org_that_asks(&service, &[SECURITY, BOSS], Notify::ALL).await;
        let token = service.issue(&org, &owner, "alice").await;
        if first {
            ses.arm(&[Some(fault)], None);
        } else {
            ses.fail(fault);
        }
        next_hour(&service).await;
        ses.recover();
        assert_eq!(service.outbox.mails().len(), usize::from(first), "{fault:?}");
        next_hour(&service).await;
        next_hour(&service).await;
        let heard = [SECURITY, BOSS].map(|contact| told(&service, contact, "org_user_token.issue", &token.id));
        assert_eq!(heard.iter().sum::<usize>(), if first { 1 } else { 2 }, "{fault:?}: {heard:?}");
    }
}

/// A service with two organizations to be told, whose DynamoDB and SES inject faults.
async fn with_news() -> (Service, Faults, Ses, [String; 2]) {
    let limits = Limits { mails: MailLimits { per_hour: Some(1_000), ..unlimited().mails }, ..unlimited() };
    let (service, faults, ses) = Service::start_with_all_faults(limits, no_upstreams()).await;
    let mut ids = Vec::new();
    for contact in [SECURITY, BOSS] {
        let (org, owner) = org_that_asks(&service, &[contact], Notify::ALL).await;
        ids.push(service.issue(&org, &owner, "alice").await.id);
    }
    // The day's work on reminders is done.
    service.remind().await.unwrap();
    service.clock.advance(HOUR);
    (service, faults, ses, ids.try_into().unwrap())
}

#[track_caller]
fn both_heard(service: &Service, ids: &[String; 2]) -> [usize; 2] {
    [0, 1].map(|index| told(service, [SECURITY, BOSS][index], "org_user_token.issue", &ids[index]))
}

#[tokio::test]
async fn run_that_is_killed_at_any_call_loses_nothing_and_repeats_one_mail_at_most() {
    let killed = at_each_call(|place| async move {
        let (service, faults, _, ids) = with_news().await;
        faults.kill_at(place, reminders_send::send(service.mail_app())).await?;
        next_hour(&service).await;
        next_hour(&service).await;
        let heard = both_heard(&service, &ids);
        assert!(heard.iter().all(|heard| *heard > 0) && heard.iter().sum::<usize>() <= 3, "{place}: {heard:?}");
        Some(())
    })
    .await
    .len();
    assert!(killed > 10, "{killed}");
}

#[tokio::test]
async fn run_that_fails_at_any_call_is_continued_by_the_next() {
    let failed = at_each_call(|place| async move {
        for fault in [Fault::LostBefore, Fault::LostAfter] {
            let (service, faults, _, ids) = with_news().await;
            faults.arm(place, &[], Some(fault));
            let _ = service.remind().await;
            if faults.disarm().len() <= place {
                return None;
            }
            next_hour(&service).await;
            next_hour(&service).await;
            let heard = both_heard(&service, &ids);
            // One organization's failure does not keep the other from being told.
            assert!(heard.iter().all(|heard| (1..=2).contains(heard)), "{place} {fault:?}: {heard:?}");
        }
        Some(())
    })
    .await
    .len();
    assert!(failed > 10, "{failed}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn runs_at_once_send_one_mail() {
    let (service, _, ses, ids) = with_news().await;
    let runs = join_all((0..8).map(|_| service.remind())).await;
    assert!(runs.iter().all(Result::is_ok), "{runs:?}");
    assert_eq!((ses.recover(), both_heard(&service, &ids)), (2, [1, 1]));
}
