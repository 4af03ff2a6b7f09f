//! Who is reminded of tokens that expire, when, and of nothing else.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures::future::join_all;
use local::outbox::Mail;
use reqwest::Method;
use serde_json::{Value, json};
use shared::app::Limits;
use shared::cost::{Cost, metered};
use shared::domain::LeakPolicy;
use shared::email::Language;
use shared::permissions::Role;
use shared::secret::Token;
use shared::store::mail_limits::MailLimits;
use shared::store::members::{Authority, MemberChange};
use shared::store::org_user_tokens::Issued as Own;
use tests::console::person;
use tests::email::{Kind, is_token, kind_of};
use tests::faults::{Call, Fault, Faults, at_each_call};
use tests::mail_faults::{MailFault, Ses};
use tests::management::{ACCESS_TOKENS, API_KEYS};
use tests::table::text;
use tests::{Bot, Org, Service, no_upstreams, operator, unlimited};

const HOUR: Duration = Duration::from_secs(60 * 60);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);
const SECURITY: &str = "security@example.com";
const BOSS: &str = "boss@example.org";

/// The time so many days from now.
fn in_days(service: &Service, days: u32) -> String {
    service.clock.now().plus(DAY * days).to_string()
}

/// An organization with these security contacts.
async fn org_of(service: &Service, contacts: &[&str]) -> (Org, Bot) {
    let (org, owner) = service.org_with_owner().await;
    service.set_leaks(&org.id, contacts, LeakPolicy::Revoke).await;
    (org, owner)
}

/// The mails to an address, all of which are reminders without a token.
#[track_caller]
fn reminders_to(service: &Service, address: &str) -> Vec<Mail> {
    let mails = service.person(address).mails();
    for mail in &mails {
        assert_eq!(kind_of(mail).0, Kind::TokensExpire, "{mail:?}");
        let source = mail.source.to_string();
        let words = source.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
        assert_eq!(words.filter(|word| is_token(word) || Token::parse(word).is_some()).count(), 0, "{source}");
    }
    mails
}

/// How many reminders an address has got, each of which names this ID.
#[track_caller]
fn heard(service: &Service, address: &str, id: &str) -> usize {
    let mails = reminders_to(service, address);
    assert!(mails.iter().all(|mail| mail.text.contains(id)), "{id}: {mails:?}");
    mails.len()
}

/// The expiries that are stored, as day, organization, kind and ID.
async fn expiries(service: &Service) -> BTreeSet<[String; 4]> {
    let items = service.table.items().await;
    let expiries = items.iter().filter(|item| text(item, "pk").starts_with("EXPIRES#"));
    let parts = |item: &Value| {
        let day = text(item, "pk").split('#').nth(1).unwrap().to_owned();
        let parts: Vec<String> = text(item, "sk").split('#').map(str::to_owned).collect();
        let [org, kind, id]: [String; 3] = parts.try_into().unwrap();
        [day, org, kind, id]
    };
    expiries.map(parts).collect()
}

/// An own token of a new member, and its ID.
async fn own_token(service: &Service, org: &Org, address: &str, days: u32) -> String {
    let member = person(address);
    service.join(&org.id, &member, &[Role::Member]).await;
    let member = service.store.membership(member.id, &org.id).await.unwrap().unwrap();
    let end = service.clock.now().plus(DAY * days);
    let identifier = address.to_owned().try_into().unwrap();
    let own = service.store.issue_own_org_user_token(&member, identifier, Some(end), &operator(), None).await.unwrap();
    let Own::Done(token, _) = own else { panic!("{own:?}") };
    token.id.to_string()
}

#[tokio::test]
async fn token_of_each_kind_is_reminded_of_30_7_and_1_days_before_its_end_in_one_mail_a_day() {
    let service = Service::start_with_manual_clock().await;
    let (org, owner) = org_of(&service, &[SECURITY, BOSS]).await;
    let end = in_days(&service, 35);
    let user = service.issue_until(&org, &owner, "alice-laptop", &end).await;
    let body = json!({"name": "pipeline", "environment": "live", "scopes": ["org:read"], "expires_at": end});
    let key = service.api_key_with(&owner.credential, &body).await;
    let access = service.access_token(&owner, &json!({"name": "server", "expires_at": end})).await;
    service.issue(&org, &owner, "bobby-without-an-end").await;
    let mut told = BTreeMap::new();
    for _ in 0..40 * 3 {
        let before = service.outbox.mails().len();
        service.remind().await.unwrap();
        let sent = service.outbox.mails().len() - before;
        if sent > 0 {
            told.insert(service.clock.now().date(), sent);
        }
        service.clock.advance(HOUR * 8);
    }
    let days = ["2026-11-26", "2026-12-19", "2026-12-25"];
    assert_eq!(told, days.map(|day| (day.to_owned(), 2)).into());
    for contact in [SECURITY, BOSS] {
        for (mail, left) in reminders_to(&service, contact).iter().zip(["in 30 days", "in 7 days", "in 1 day"]) {
            for line in [
                format!("org_user_token {}\n  alice-laptop  tg_org_", user.id),
                format!("api_key {}\n  pipeline  tk_live_", key.id),
                format!("org_access_token {}\n  server  ", access.id),
            ] {
                assert!(mail.text.contains(&line), "{line}: {}", mail.text);
            }
            assert_eq!(mail.text.matches(&format!("expires {left}, {end}")).count(), 3, "{}", mail.text);
            assert!(mail.text.contains("Organization: Example") && !mail.text.contains("bobby"), "{}", mail.text);
        }
    }
}

#[tokio::test]
async fn member_is_reminded_of_own_tokens_in_the_chosen_language_and_the_contacts_are_not() {
    let service = Service::start_with_manual_clock().await;
    let (org, owner) = org_of(&service, &[SECURITY]).await;
    let own = own_token(&service, &org, BOSS, 8).await;
    let visitor = service.sign_in(&person(BOSS)).await;
    service.store.set_language(visitor.secret.hash(), visitor.person.id, Language::Ja).await.unwrap();
    service.issue_until(&org, &owner, "victim@example.net", &in_days(&service, 8)).await;
    service.clock.advance(DAY);
    service.remind().await.unwrap();
    assert_eq!(heard(&service, BOSS, &own), 1);
    let mail = service.person(BOSS).newest_mail();
    assert_eq!(kind_of(&mail), (Kind::TokensExpire, Language::Ja));
    assert!(mail.text.contains("期限まであと7日"), "{}", mail.text);
    // An issuer names whom a token is for: that is no reason to mail them.
    assert_eq!(service.person("victim@example.net").mails().len(), 0);
    let [mail] = &reminders_to(&service, SECURITY)[..] else { panic!("not one mail") };
    assert!(!mail.text.contains(&own) && mail.text.contains("victim[@]example[.]net"), "{}", mail.text);
}

#[tokio::test]
async fn contact_of_two_organizations_gets_one_mail_and_others_see_their_own_tokens_alone() {
    let service = Service::start_with_manual_clock().await;
    let (mine, my_owner) = org_of(&service, &[SECURITY]).await;
    let (other, others_owner) = org_of(&service, &["Security@Example.com", BOSS]).await;
    let (nobodys, nobodys_owner) = service.org_with_owner().await;
    let end = in_days(&service, 8);
    let my_token = service.issue_until(&mine, &my_owner, "alice", &end).await.id;
    let others_token = service.issue_until(&other, &others_owner, "bobby", &end).await.id;
    let nobodys_token = service.issue_until(&nobodys, &nobodys_owner, "carol", &end).await.id;
    service.clock.advance(DAY);
    service.remind().await.unwrap();
    assert_eq!((heard(&service, SECURITY, &my_token), heard(&service, SECURITY, &others_token)), (1, 1));
    assert_eq!(heard(&service, BOSS, &others_token), 1);
    assert!(!service.person(BOSS).newest_mail().text.contains(&my_token));
    let everything = format!("{:?}", service.outbox.mails());
    assert!(!everything.contains(&nobodys_token) && service.outbox.mails().len() == 2, "{everything}");
}

#[tokio::test]
async fn tokens_that_no_longer_end_that_day_are_passed_over() {
    let service = Service::start_with_manual_clock().await;
    let (org, owner) = org_of(&service, &[SECURITY]).await;
    let end = in_days(&service, 8);
    let issue = async |name: &str| service.issue_until(&org, &owner, name, &end).await;
    let (kept, revoked, rotated) = (issue("kept").await, issue("revoked").await, issue("rotated").await);
    let access = async |name: &str| service.access_token(&owner, &json!({"name": name, "expires_at": end})).await;
    let (moved, cleared, disabled, deleted) =
        (access("moved").await, access("cleared").await, access("disabled").await, access("deleted").await);
    let left = own_token(&service, &org, BOSS, 8).await;
    let suspended = org_of(&service, &["suspended@example.com"]).await;
    service.issue_until(&suspended.0, &suspended.1, "alice", &end).await;
    service.clock.advance(DAY);

    service.revoke(&org, &owner, &revoked).await;
    let path = org.org_user_tokens(&format!("/by-id/{}/rotate", rotated.id));
    assert_eq!(service.post(&path, &owner.credential, &json!({"overlap": "7d"})).await.status, 201);
    for (token, change) in [
        (&moved, json!({"expires_at": in_days(&service, 8)})),
        (&cleared, json!({"expires_at": null})),
        (&disabled, json!({"is_active": false})),
    ] {
        let answer = service.send_json(Method::PATCH, &token.path(), &owner.credential, &change).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
    }
    assert_eq!(service.call(Method::DELETE, &deleted.path(), &owner.credential).await.status, 204);
    let member = service.store.membership(person(BOSS).id, &org.id).await.unwrap().unwrap();
    let removed = service.store.remove_member(&org.id, &member.id, Authority::Operator, &operator()).await.unwrap();
    assert_eq!(removed, MemberChange::Done);
    service.store.set_suspended(&suspended.0.id, true, &operator()).await.unwrap().unwrap();

    service.remind().await.unwrap();
    assert_eq!(heard(&service, SECURITY, &kept.id), 1);
    let [mail] = &service.outbox.mails()[..] else { panic!("not one mail: {:?}", service.outbox.mails()) };
    assert_eq!(mail.text.matches("expires in 7 days").count(), 1, "{}", mail.text);
    // The successor of the rotated one ends that day too, but was made today.
    for other in [&revoked.id, &rotated.id, &left, "org_access_token"] {
        assert!(!mail.text.contains(other), "{other}: {}", mail.text);
    }
    // What was moved is reminded of on its own day.
    service.clock.advance(DAY);
    service.remind().await.unwrap();
    let [_, mail] = &reminders_to(&service, SECURITY)[..] else { panic!("not two mails") };
    assert!(mail.text.contains(&format!("org_access_token {}\n  moved", moved.id)), "{}", mail.text);
    assert_eq!(mail.text.matches("expires in").count(), 1, "{}", mail.text);
}

#[tokio::test]
async fn every_way_to_set_an_end_of_a_week_or_more_leaves_one_expiry() {
    let service = Service::start_with_manual_clock().await;
    let (org, owner) = service.org_with_owner().await;
    let credential = &owner.credential;
    let (short, week, later) = (in_days(&service, 6), in_days(&service, 7), "2027-03-01T00:00:00Z");
    let key = |end: &Value| json!({"name": "k", "environment": "test", "scopes": ["org:read"], "expires_at": end});
    let mut expected = BTreeSet::new();
    let mut expect = |day: &str, kind: &str, id: &Value| {
        let id = id.as_str().map_or_else(|| id.to_string(), str::to_owned);
        expected.insert([day.to_owned(), org.id.to_string(), kind.to_owned(), id]);
    };
    for (end, day) in [(json!(null), None), (json!(short), None), (json!(week), Some("2026-11-28"))] {
        let issued = service
            .post(&org.org_user_tokens(""), credential, &json!({"user_identifier": "alice", "expires_at": end}))
            .await;
        let created = service.post(API_KEYS, credential, &key(&end)).await;
        let name = format!("server {end}");
        let access = service.post(ACCESS_TOKENS, credential, &json!({"name": name, "expires_at": end})).await;
        let rotate = json!({"expires_at": later, "overlap": "1d"});
        for (answer, kind) in [(&issued, "org_user_token"), (&created, "api_key"), (&access, "org_access_token")] {
            assert_eq!(answer.status, 201, "{}", answer.text);
            if let Some(day) = day {
                expect(day, kind, &answer.json()["id"]);
            }
        }
        for (answer, kind, path) in
            [(issued, "org_user_token", org.org_user_tokens("/by-id")), (created, "api_key", API_KEYS.to_owned())]
        {
            let path = format!("{path}/{}/rotate", text(&answer.json(), "id"));
            let rotated = service.post(&path, credential, &rotate).await;
            assert_eq!(rotated.status, 201, "{}", rotated.text);
            expect("2027-03-01", kind, &rotated.json()["id"]);
        }
        let id = &access.json()["id"];
        for (change, day) in [
            (json!({"is_active": false}), None),
            (json!({"expires_at": later}), Some("2027-03-01")),
            (json!({"expires_at": short}), None),
        ] {
            let path = format!("{ACCESS_TOKENS}{id}/");
            assert_eq!(service.send_json(Method::PATCH, &path, credential, &change).await.status, 200);
            if let Some(day) = day {
                expect(day, "org_access_token", id);
            }
        }
        let put = json!({"name": name, "expires_at": "2027-04-01T00:00:00Z"});
        let path = format!("{ACCESS_TOKENS}{id}/");
        assert_eq!(service.send_json(Method::PUT, &path, credential, &put).await.status, 200);
        expect("2027-04-01", "org_access_token", id);
    }
    assert_eq!(expiries(&service).await, expected);
}

#[tokio::test]
async fn stages_that_are_over_when_the_end_is_set_are_skipped() {
    let service = Service::start_with_manual_clock().await;
    let (org, owner) = org_of(&service, &[SECURITY]).await;
    service.remind().await.unwrap();
    // Whoever makes a token knows when it ends, also where that day's work is not done yet.
    let exact = service.issue_until(&org, &owner, "exact", &in_days(&service, 30)).await;
    service.issue_until(&org, &owner, "short", &in_days(&service, 6)).await;
    let mut days = Vec::new();
    for day in 0..32 {
        service.remind().await.unwrap();
        if service.person(SECURITY).mails().len() > days.len() {
            days.push(day);
        }
        service.clock.advance(DAY);
    }
    assert_eq!((days, heard(&service, SECURITY, &exact.id)), (vec![23, 29], 2));
}

#[tokio::test]
async fn token_that_is_made_before_the_days_first_run_is_not_reminded_of_that_day() {
    let service = Service::start_with_manual_clock().await;
    let (org, owner) = org_of(&service, &[SECURITY]).await;
    service.issue_until(&org, &owner, "alice", &in_days(&service, 30)).await;
    service.remind().await.unwrap();
    assert_eq!(service.outbox.mails().len(), 0);
}

#[tokio::test]
async fn missed_days_are_made_up_for_with_one_mail() {
    // Missed, and how many reminders are sent until the end, of which the first says so many days.
    for (missed, mails, left) in [(1, 3, "in 29 days"), (10, 3, "in 20 days"), (25, 2, "in 5 days"), (30, 1, "today")] {
        let service = Service::start_with_manual_clock().await;
        let (org, owner) = org_of(&service, &[SECURITY]).await;
        // Midnight; the token ends at noon.
        service.clock.advance(HOUR * 14);
        let end = service.clock.now().plus(DAY * 31 + HOUR * 12).to_string();
        let token = service.issue_until(&org, &owner, "alice", &end).await;
        service.remind().await.unwrap();
        service.clock.advance(DAY * (missed + 1));
        for _ in 0..32 {
            service.remind().await.unwrap();
            service.remind().await.unwrap();
            service.clock.advance(DAY);
        }
        assert_eq!(heard(&service, SECURITY, &token.id), mails, "{missed}");
        let first = &reminders_to(&service, SECURITY)[0];
        assert!(first.text.contains(&format!("expires {left}, ")), "{missed}: {}", first.text);
    }
}

#[tokio::test]
async fn expiries_of_a_day_are_in_several_partitions_and_a_mail_lists_the_first_twenty() {
    let service = Service::start_with_manual_clock().await;
    let (org, owner) = org_of(&service, &[SECURITY]).await;
    let mut ids = Vec::new();
    for number in 0..45 {
        let end = service.clock.now().plus(DAY * 8).plus(Duration::from_secs(number)).to_string();
        ids.push(service.issue_until(&org, &owner, &format!("user-{number}"), &end).await.id);
    }
    let items = service.table.items().await;
    let partitions: BTreeSet<&str> =
        items.iter().map(|item| text(item, "pk")).filter(|pk| pk.starts_with("EXPIRES#2026-11-29#")).collect();
    assert!(partitions.len() > 5, "{partitions:?}");
    service.clock.advance(DAY);
    service.remind().await.unwrap();
    let [mail] = &reminders_to(&service, SECURITY)[..] else { panic!("not one mail") };
    let listed: Vec<bool> = ids.iter().map(|id| mail.text.contains(id)).collect();
    assert_eq!(listed, (0..45).map(|number| number < 20).collect::<Vec<_>>(), "{}", mail.text);
    assert!(mail.text.contains("And 25 more"), "{}", mail.text);
}

#[tokio::test]
async fn names_in_a_mail_are_text_on_one_line() {
    let service = Service::start_with_manual_clock().await;
    let org = service.store.create_org("Acme\r\nBcc: <b>x</b>", shared::domain::Plan::Pro, true, &operator()).await;
    let org = Org { id: org.unwrap().id };
    let owner = service.bot(&org, &[Role::Owner]).await;
    service.set_leaks(&org.id, &[SECURITY], LeakPolicy::Revoke).await;
    let end = in_days(&service, 8);
    let name = "https://evil.example/<b>pay</b>";
    service.access_token(&owner, &json!({"name": name, "expires_at": end})).await;
    service.clock.advance(DAY);
    service.remind().await.unwrap();
    let [mail] = &reminders_to(&service, SECURITY)[..] else { panic!("not one mail") };
    assert!(mail.text.contains("https evil[.]example/<b>pay</b>"), "{}", mail.text);
    assert!(mail.text.contains("Acme  Bcc: <b>x</b>"), "{}", mail.text);
    assert!(!mail.html.contains("<b>") && !mail.source.to_string().contains("evil.example"), "{}", mail.html);
}

#[tokio::test]
async fn run_costs_one_read_once_the_day_is_done_and_before_that_what_is_due() {
    let service = Service::start_with_manual_clock().await;
    let (org, owner) = org_of(&service, &[SECURITY]).await;
    // Many that are not due.
    for number in 0..30 {
        service.issue_until(&org, &owner, &format!("user-{number}"), "2027-06-01T00:00:00Z").await;
    }
    let run = async || {
        let (result, cost) = metered(service.remind()).await;
        result.unwrap();
        cost
    };
    // Progress and who has asked for notices, and ten partitions for each stage. The first run starts.
    assert_eq!(run().await, Cost { calls: 34, read: 32.0, write: 2.0 });
    assert_eq!(run().await, Cost { calls: 2, read: 2.0, write: 0.0 });
    service.issue_until(&org, &owner, "alice", &in_days(&service, 8)).await;
    service.clock.advance(DAY);
    // Also the token, its organization twice (the policy for unused tokens), the address and its
    // language; a claim and the day of the address. The deployment's mails are not limited here.
    assert_eq!(run().await, Cost { calls: 40, read: 37.0, write: 3.0 });
    assert_eq!(run().await, Cost { calls: 2, read: 2.0, write: 0.0 });
}

#[tokio::test]
async fn reminders_use_half_of_the_deployments_mails_and_the_next_hours_go_on() {
    let limits = Limits { mails: MailLimits { per_hour: Some(4), ..unlimited().mails }, ..unlimited() };
    let (service, _) = Service::start_with_mail_faults(limits).await;
    let contacts: Vec<String> = (0..5).map(|number| format!("contact-{number}@example.com")).collect();
    let contacts: Vec<&str> = contacts.iter().map(String::as_str).collect();
    let (org, owner) = org_of(&service, &contacts).await;
    let token = service.issue_until(&org, &owner, "alice", &in_days(&service, 8)).await;
    service.clock.advance(DAY);
    let mut sent = Vec::new();
    for _ in 0..5 {
        service.remind().await.unwrap();
        service.remind().await.unwrap();
        sent.push(service.outbox.mails().len());
        service.clock.advance(HOUR);
    }
    assert_eq!(sent, [2, 4, 5, 5, 5]);
    assert!(contacts.iter().all(|contact| heard(&service, contact, &token.id) == 1));
}

#[tokio::test]
async fn address_that_ses_refuses_holds_up_nobody_and_is_given_up_for_the_day() {
    let (service, ses) = Service::start_with_mail_faults(unlimited()).await;
    let (org, owner) = org_of(&service, &[SECURITY, BOSS, "third@example.net"]).await;
    let token = service.issue_until(&org, &owner, "alice", &in_days(&service, 8)).await;
    service.clock.advance(DAY);
    // The first one is refused, and refused again after the others.
    ses.arm(&[Some(MailFault::Rejected), None, None, Some(MailFault::Rejected)], None);
    for _ in 0..3 {
        service.remind().await.unwrap();
        service.clock.advance(HOUR);
    }
    assert_eq!(ses.recover(), 4);
    let told = [SECURITY, BOSS, "third@example.net"].map(|contact| reminders_to(&service, contact).len());
    assert_eq!((told.iter().sum::<usize>(), told.iter().max()), (2, Some(&1)), "{told:?}");
    // The next stage reaches everybody.
    service.clock.advance(DAY * 6);
    service.remind().await.unwrap();
    let told = [SECURITY, BOSS, "third@example.net"].map(|contact| heard(&service, contact, &token.id));
    assert_eq!(told.iter().sum::<usize>(), 5, "{told:?}");
}

#[tokio::test]
async fn while_ses_is_down_reminders_wait_also_until_the_next_day() {
    for fault in [MailFault::Rejected, MailFault::LimitExceeded, MailFault::Down, MailFault::LostBefore] {
        let (service, ses) = Service::start_with_mail_faults(unlimited()).await;
        let (org, owner) = org_of(&service, &[SECURITY, BOSS]).await;
        let token = service.issue_until(&org, &owner, "alice", &in_days(&service, 8)).await;
        service.clock.advance(DAY);
        ses.fail(fault);
        assert_eq!(service.remind().await.is_err(), fault.is_refusal(), "{fault:?}");
        ses.recover();
        assert_eq!(service.outbox.mails().len(), 0, "{fault:?}");
        service.clock.advance(DAY);
        service.remind().await.unwrap();
        service.remind().await.unwrap();
        for contact in [SECURITY, BOSS] {
            assert_eq!(heard(&service, contact, &token.id), 1, "{fault:?}");
            assert!(service.person(contact).newest_mail().text.contains("in 6 days"), "{fault:?}");
        }
    }
}

#[tokio::test]
async fn lost_answer_of_ses_repeats_that_mail_alone() {
    for fault in [MailFault::LostAfter, MailFault::ServerError, MailFault::LostBefore] {
        let (service, ses) = Service::start_with_mail_faults(unlimited()).await;
        let (org, owner) = org_of(&service, &[SECURITY, BOSS]).await;
        let token = service.issue_until(&org, &owner, "alice", &in_days(&service, 8)).await;
        service.clock.advance(DAY);
        ses.arm(&[Some(fault)], None);
        service.remind().await.unwrap();
        for _ in 0..3 {
            service.clock.advance(HOUR);
            service.remind().await.unwrap();
        }
        ses.recover();
        let told = [SECURITY, BOSS].map(|contact| heard(&service, contact, &token.id));
        let repeated = usize::from(fault.delivers());
        assert_eq!((told.iter().sum::<usize>(), told.iter().min()), (2 + repeated, Some(&1)), "{fault:?}: {told:?}");
    }
}

/// The recipients in the tests of runs that fail.
const READERS: [&str; 3] = [SECURITY, BOSS, "third@example.net"];

/// A service with three recipients to be reminded, whose DynamoDB and SES inject faults.
async fn with_due() -> (Service, Faults, Ses, [String; 3]) {
    let limits = Limits { mails: MailLimits { per_hour: Some(1_000), ..unlimited().mails }, ..unlimited() };
    let (service, faults, ses) = Service::start_with_all_faults(limits, no_upstreams()).await;
    let mut tokens = Vec::new();
    for reader in READERS {
        let (org, owner) = org_of(&service, &[reader]).await;
        tokens.push(service.issue_until(&org, &owner, "alice", &in_days(&service, 8)).await.id);
    }
    service.clock.advance(DAY);
    (service, faults, ses, tokens.try_into().unwrap())
}

/// How often each of the recipients heard.
#[track_caller]
fn all_heard(service: &Service, tokens: &[String; 3]) -> [usize; 3] {
    [0, 1, 2].map(|index| heard(service, READERS[index], &tokens[index]))
}

/// Runs every hour of the day.
async fn rest_of_the_day(service: &Service) {
    for _ in 0..3 {
        service.clock.advance(HOUR);
        service.remind().await.unwrap();
    }
}

#[tokio::test]
async fn run_that_is_killed_at_any_call_loses_nobody_and_one_at_most_hears_twice() {
    let heard: Vec<(usize, Call, [usize; 3])> = at_each_call(|place| async move {
        let (service, faults, _, tokens) = with_due().await;
        let killed = faults.kill_at(place, reminders_send::send(service.mail_app())).await?;
        assert_eq!(service.table.findings(), Vec::<String>::new(), "{place}");
        // Lambda repeats it soon.
        service.clock.advance(Duration::from_secs(60));
        service.remind().await.unwrap();
        rest_of_the_day(&service).await;
        Some((place, killed, all_heard(&service, &tokens)))
    })
    .await;
    assert!(heard.len() > 40, "{}", heard.len());
    let mut twice = 0;
    for (place, killed, heard) in &heard {
        assert!(heard.iter().all(|heard| *heard > 0) && heard.iter().sum::<usize>() <= 4, "{place}: {heard:?}");
        if heard.contains(&2) {
            twice += 1;
            assert_eq!(killed.request["UpdateExpression"], "SET #told = :today", "{place}: {heard:?}");
        }
    }
    assert!(twice > 0, "a mail was sent, and that was not noted");
}

#[tokio::test]
async fn run_that_fails_at_any_call_is_continued_by_the_next() {
    let failed = at_each_call(|place| async move {
        for fault in [Fault::LostBefore, Fault::LostAfter] {
            let what = format!("{place} {fault:?}");
            let (service, faults, _, tokens) = with_due().await;
            faults.arm(place, &[], Some(fault));
            // A claim whose answer was lost looks like somebody else's.
            let _ = service.remind().await;
            if faults.disarm().len() <= place {
                return None;
            }
            rest_of_the_day(&service).await;
            let heard = all_heard(&service, &tokens);
            assert!(heard.iter().all(|heard| *heard > 0) && heard.iter().sum::<usize>() <= 4, "{what}: {heard:?}");
        }
        Some(())
    })
    .await
    .len();
    assert!(failed > 40, "{failed}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn runs_at_once_send_each_mail_once() {
    let (service, _, ses, tokens) = with_due().await;
    let runs = join_all((0..8).map(|_| service.remind())).await;
    assert!(runs.iter().all(Result::is_ok), "{runs:?}");
    assert_eq!((ses.recover(), all_heard(&service, &tokens)), (3, [1; 3]));
    rest_of_the_day(&service).await;
    assert_eq!(all_heard(&service, &tokens), [1; 3]);
}

#[tokio::test]
async fn run_beside_a_killed_one_leaves_its_recipient_to_the_next_hour() {
    let (service, _, _, tokens) = with_due().await;
    let address = shared::email::EmailAddress::try_from(BOSS.to_owned()).unwrap();
    // As if a run had been killed before its mail.
    let today = service.clock.now().date();
    let _claim = service.store.claim_reminder(address.hash(), &today).await.unwrap().unwrap();
    service.remind().await.unwrap();
    assert_eq!(all_heard(&service, &tokens), [1, 0, 1]);
    rest_of_the_day(&service).await;
    assert_eq!(all_heard(&service, &tokens), [1; 3]);
}
