//! Who is told about leaked tokens, when, and what the mails say and do not say.

use std::time::Duration;

use futures::future::join_all;
use local::outbox::Mail;
use reqwest::Method;
use serde_json::{Value, json};
use shared::app::Limits;
use shared::domain::LeakPolicy;
use shared::email::Language;
use shared::permissions::Role;
use shared::secret::Token;
use shared::store::leak_reports::Reported;
use shared::store::leaks::Place;
use shared::store::mail_limits::MailLimits;
use tests::console::person;
use tests::email::{Kind, is_token, kind_of};
use tests::faults::{Fault, Faults, at_each_call};
use tests::mail_faults::{MailFault, Ses};
use tests::table::{TABLE, text};
use tests::{Answer, Bot, Issued, Org, Service, no_upstreams, operator, unlimited};

const HOUR: Duration = Duration::from_secs(60 * 60);
const SECURITY: &str = "security@example.com";
const BOSS: &str = "boss@example.org";
/// Where tokens are found.
const PLACE: &str = "https://github.com/acme/widgets/blob/main/.npmrc?raw=true#L1";
/// The same in mails.
const SHOWN: &str = "github[.]com/acme/widgets/blob/main/[.]npmrc";

/// Reports tokens through the service.
async fn report(service: &Service, tokens: &[&str]) -> Answer {
    let tokens: Vec<Value> = tokens.iter().map(|token| json!({"token": token, "url": PLACE})).collect();
    service.send(service.request(Method::POST, "/v1/tokens/leaked").json(&json!({"tokens": tokens}))).await
}

#[track_caller]
fn assert_reported(answer: &Answer) {
    assert_eq!(answer.status, 202, "{}", answer.text);
}

/// Ends a token as a report does, without telling anybody yet.
async fn leak(service: &Service, token: &str) {
    let place = Some(Place::try_from(PLACE.to_owned()).unwrap());
    let reported = Reported { token: Token::parse(token).unwrap(), place };
    let report = service.store.report_leaks(&[reported], &operator()).await;
    assert_eq!((report.known, report.result, report.recipients.len()), (vec![true], Ok(()), 1));
}

/// An organization with this policy whose security contact is [`SECURITY`].
async fn org(service: &Service, policy: LeakPolicy) -> (Org, Bot) {
    let (org, owner) = service.org_with_owner().await;
    service.set_leaks(&org.id, &[SECURITY], policy).await;
    (org, owner)
}

/// The mails to an address, all of which are about leaked tokens.
#[track_caller]
fn mails_to(service: &Service, address: &str) -> Vec<Mail> {
    let mails = service.person(address).mails();
    assert!(mails.iter().all(|mail| kind_of(mail).0 == Kind::TokensLeaked), "{mails:?}");
    mails
}

/// In which of these mails, by their number, a token is listed.
fn listing(mails: &[Mail], token: &Issued) -> Vec<usize> {
    mails.iter().enumerate().filter(|(_, mail)| mail.text.contains(&token.id)).map(|(place, _)| place).collect()
}

/// The notices that are not told yet.
async fn notices(service: &Service) -> usize {
    let items = service.table.items().await;
    items.iter().filter(|item| text(item, "pk") == "LEAK_NOTICES").count()
}

/// Asserts that a mail names neither a token nor a link, but for our own address and commands.
#[track_caller]
fn assert_harmless(mail: &Mail) {
    let source = mail.source.to_string();
    let words = source.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    assert_eq!(words.filter(|word| is_token(word) || Token::parse(word).is_some()).count(), 0, "{source}");
    let links = source.match_indices("https://").map(|(place, _)| &source[place..]);
    for link in links {
        assert!(link.starts_with("https://guard.example.com/"), "{link}");
    }
    for hidden in ["github.com", "raw=true", "#L1", ".npmrc"] {
        assert!(!source.contains(hidden), "{hidden}: {source}");
    }
}

#[tokio::test]
async fn report_tells_every_security_contact_once_what_was_revoked_and_where_it_was() {
    let service = Service::start_with_manual_clock().await;
    let (org, owner) = org(&service, LeakPolicy::Revoke).await;
    service.set_leaks(&org.id, &[SECURITY, BOSS], LeakPolicy::Revoke).await;
    let bot = service.bot(&org, &[Role::Manager]).await;
    let user = service.issue(&org, &owner, "alice").await;
    let key = service.api_key(&owner.credential, &["org:read"]).await;
    let access = service.access_token(&owner, &json!({"name": "server"})).await;
    assert_reported(&report(&service, &[&user.token, &key.key, &access.token, &bot.credential]).await);
    for contact in [SECURITY, BOSS] {
        let [mail] = &mails_to(&service, contact)[..] else { panic!("not one mail to {contact}") };
        for line in [
            format!("org_user_token {}\n", user.id),
            format!("api_key {}\n", key.id),
            format!("org_access_token {}\n", access.id),
            format!("bot_api_key {}\n", bot.id),
        ] {
            assert!(mail.text.contains(&line), "{line}: {}", mail.text);
        }
        assert_eq!(mail.text.matches(SHOWN).count(), 4, "{}", mail.text);
        assert!(mail.text.contains("We have revoked these tokens") && !mail.text.contains("STILL WORK"));
        assert!(mail.html.contains(SHOWN) && mail.html.contains(&user.id));
        assert_harmless(mail);
    }
    assert_eq!(notices(&service).await, 0);
    // Reported again, they are unknown or revoked.
    assert_reported(&report(&service, &[&user.token, &key.key, &access.token, &bot.credential]).await);
    service.clock.advance(HOUR);
    service.tell_leaks().await.unwrap();
    assert_eq!(mails_to(&service, SECURITY).len(), 1);
}

#[tokio::test]
async fn second_report_within_the_hour_is_told_by_the_next_run_after_it() {
    let service = Service::start_with_manual_clock().await;
    let (org, owner) = org(&service, LeakPolicy::Revoke).await;
    let [first, second, third] = ["alice", "bobby", "carol"].map(|name| service.issue(&org, &owner, name));
    let (first, second, third) = (first.await, second.await, third.await);
    assert_reported(&report(&service, &[&first.token]).await);
    service.clock.advance(HOUR / 4);
    assert_reported(&report(&service, &[&second.token]).await);
    assert_reported(&report(&service, &[&third.token]).await);
    service.tell_leaks().await.unwrap();
    assert_eq!(mails_to(&service, SECURITY).len(), 1);
    assert_eq!(notices(&service).await, 2);
    service.clock.advance(HOUR / 4 * 3 - Duration::from_secs(1));
    service.tell_leaks().await.unwrap();
    assert_eq!(mails_to(&service, SECURITY).len(), 1);
    service.clock.advance(Duration::from_secs(1));
    service.tell_leaks().await.unwrap();
    let mails = mails_to(&service, SECURITY);
    assert_eq!(mails.len(), 2);
    for (token, place) in [(first, 0), (second, 1), (third, 1)] {
        assert_eq!(listing(&mails, &token), [place]);
    }
    assert_eq!(notices(&service).await, 0);
}

#[tokio::test]
async fn organization_that_is_told_only_reads_that_its_token_still_works() {
    let service = Service::start_with_manual_clock().await;
    let (org, owner) = org(&service, LeakPolicy::TellOnly).await;
    let token = service.issue(&org, &owner, "alice").await;
    assert_reported(&report(&service, &[&token.token]).await);
    assert_eq!(service.probe(&org, &owner, &token.token).await["active"], true);
    let [mail] = &mails_to(&service, SECURITY)[..] else { panic!("not one mail") };
    assert!(mail.text.contains("STILL WORK") && mail.text.contains(&token.id), "{}", mail.text);
    assert!(!mail.text.contains("We have revoked"), "{}", mail.text);
    assert_harmless(mail);
}

#[tokio::test]
async fn organizations_are_told_of_their_own_tokens_alone() {
    let service = Service::start_with_manual_clock().await;
    let (mine, owner) = org(&service, LeakPolicy::Revoke).await;
    let (other, others) = service.org_with_owner().await;
    service.set_leaks(&other.id, &[BOSS], LeakPolicy::Revoke).await;
    let (alices, bobs) = (service.issue(&mine, &owner, "alice").await, service.issue(&other, &others, "bobby").await);
    assert_reported(&report(&service, &[&alices.token, &bobs.token]).await);
    for (contact, own, foreign) in [(SECURITY, &alices, &bobs), (BOSS, &bobs, &alices)] {
        let mails = mails_to(&service, contact);
        assert_eq!((listing(&mails, own), listing(&mails, foreign)), (vec![0], vec![]));
    }
}

#[tokio::test]
async fn holder_of_an_email_verified_token_is_told_in_the_stored_language() {
    for (language, expected, sentence) in
        [("en", Language::En, "it no longer works"), ("ja", Language::Ja, "もう使えません")]
    {
        let service = Service::start_with_manual_clock().await;
        let holder = service.person("Alice@example.com");
        holder.register_in(language).await;
        let token = tests::email::token_in(&holder.newest_mail());
        let id = service.status(&token).await.json()["id"].as_str().unwrap().to_owned();
        assert_reported(&report(&service, &[&token]).await);
        let mail = holder.newest_mail();
        assert_eq!(kind_of(&mail), (Kind::OwnTokensLeaked, expected));
        assert_eq!(mail.to, "Alice@example.com");
        assert!(mail.text.contains(&format!("email_token {id}\n")) && mail.text.contains(SHOWN), "{}", mail.text);
        assert!(mail.text.contains(sentence) && mail.text.contains("curl -X POST"), "{}", mail.text);
        assert_harmless(&mail);
        assert_eq!(service.status(&token).await.status, 401);
    }
}

#[tokio::test]
async fn person_of_a_session_is_told() {
    let service = Service::start_with_manual_clock().await;
    let (org, _) = service.org_with_owner().await;
    let alice = person("alice@example.com");
    service.join(&org.id, &alice, &[Role::Owner]).await;
    let visitor = service.sign_in(&alice).await;
    assert_reported(&report(&service, &[visitor.secret.expose()]).await);
    let mail = service.person("alice@example.com").newest_mail();
    assert_eq!(kind_of(&mail), (Kind::OwnTokensLeaked, Language::En));
    assert!(mail.text.contains(&format!("session {}\n", visitor.session.id)), "{}", mail.text);
    assert!(mail.text.contains("Sign in again") && !mail.text.contains("curl"), "{}", mail.text);
    assert_harmless(&mail);
}

#[tokio::test]
async fn contact_who_has_chosen_a_language_in_the_console_reads_that_one() {
    let service = Service::start_with_manual_clock().await;
    let (org, owner) = org(&service, LeakPolicy::Revoke).await;
    let boss = person(BOSS);
    service.join(&org.id, &boss, &[Role::Owner]).await;
    let visitor = service.sign_in(&boss).await;
    service.store.set_language(visitor.secret.hash(), boss.id, Language::Ja).await.unwrap();
    service.set_leaks(&org.id, &[SECURITY, BOSS], LeakPolicy::Revoke).await;
    assert_reported(&report(&service, &[&service.issue(&org, &owner, "alice").await.token]).await);
    let language = |contact: &str| kind_of(&service.person(contact).newest_mail());
    assert_eq!(language(SECURITY), (Kind::TokensLeaked, Language::En));
    assert_eq!(language(BOSS), (Kind::TokensLeaked, Language::Ja));
}

#[tokio::test]
async fn organization_without_security_contacts_is_not_told_later_either() {
    let service = Service::start_with_manual_clock().await;
    let (org, owner) = service.org_with_owner().await;
    let token = service.issue(&org, &owner, "alice").await;
    assert_reported(&report(&service, &[&token.token]).await);
    assert_eq!((service.outbox.mails().len(), notices(&service).await), (0, 0));
    // The hour is not used up by it.
    service.set_leaks(&org.id, &[SECURITY], LeakPolicy::Revoke).await;
    let next = service.issue(&org, &owner, "bobby").await;
    assert_reported(&report(&service, &[&next.token]).await);
    let mails = mails_to(&service, SECURITY);
    assert_eq!((listing(&mails, &token), listing(&mails, &next)), (vec![], vec![0]));
}

#[tokio::test]
async fn mail_lists_twenty_tokens_and_counts_the_others() {
    let service = Service::start_with_manual_clock().await;
    let (org, owner) = org(&service, LeakPolicy::Revoke).await;
    let mut tokens = Vec::new();
    for number in 0..23 {
        tokens.push(service.issue(&org, &owner, &format!("user-{number}")).await.token);
    }
    assert_reported(&report(&service, &tokens.iter().map(String::as_str).collect::<Vec<_>>()).await);
    let [mail] = &mails_to(&service, SECURITY)[..] else { panic!("not one mail") };
    assert_eq!(mail.text.matches("org_user_token ").count(), 20, "{}", mail.text);
    assert!(mail.text.contains("And 3 more: see the audit log."), "{}", mail.text);
    assert_eq!(notices(&service).await, 0);
}

#[tokio::test]
async fn report_is_accepted_while_ses_is_down_and_told_by_a_later_run() {
    for (fault, waits) in [(MailFault::Rejected, false), (MailFault::Down, true), (MailFault::LostBefore, true)] {
        let (service, ses) = Service::start_with_mail_faults(unlimited()).await;
        let (org, owner) = org(&service, LeakPolicy::Revoke).await;
        let token = service.issue(&org, &owner, "alice").await;
        ses.fail(fault);
        assert_reported(&report(&service, &[&token.token]).await);
        service.tell_leaks().await.unwrap();
        ses.recover();
        assert_eq!((mails_to(&service, SECURITY).len(), notices(&service).await), (0, 1), "{fault:?}");
        // A mail that SES may have accepted is not sent again within the hour.
        service.tell_leaks().await.unwrap();
        assert_eq!(mails_to(&service, SECURITY).len(), usize::from(!waits), "{fault:?}");
        service.clock.advance(HOUR);
        service.tell_leaks().await.unwrap();
        assert_eq!(listing(&mails_to(&service, SECURITY), &token), [0], "{fault:?}");
        assert_eq!(notices(&service).await, 0, "{fault:?}");
    }
}

#[tokio::test]
async fn one_lost_answer_of_ses_loses_no_notice_and_repeats_at_most_once() {
    for fault in MailFault::ALL {
        let (service, ses) = Service::start_with_mail_faults(unlimited()).await;
        let (org, owner) = org(&service, LeakPolicy::Revoke).await;
        let token = service.issue(&org, &owner, "alice").await;
        leak(&service, &token.token).await;
        ses.arm(&[Some(fault)], None);
        service.tell_leaks().await.unwrap();
        ses.recover();
        service.clock.advance(HOUR);
        service.tell_leaks().await.unwrap();
        let mails = listing(&mails_to(&service, SECURITY), &token).len();
        assert!((1..=2).contains(&mails), "{fault:?}: {mails}");
        assert_eq!(notices(&service).await, 0, "{fault:?}");
    }
}

#[tokio::test]
async fn contact_whose_address_fails_keeps_nobody_from_being_told_and_nobody_hears_twice() {
    let (service, ses) = Service::start_with_mail_faults(unlimited()).await;
    let (org, owner) = org(&service, LeakPolicy::Revoke).await;
    let contacts = [SECURITY, BOSS, "third@example.net"];
    service.set_leaks(&org.id, &contacts, LeakPolicy::Revoke).await;
    let token = service.issue(&org, &owner, "alice").await;
    ses.arm(&[Some(MailFault::Rejected)], None);
    assert_reported(&report(&service, &[&token.token]).await);
    for _ in 0..3 {
        service.tell_leaks().await.unwrap();
        service.clock.advance(HOUR);
    }
    let told: Vec<usize> = contacts.iter().map(|contact| mails_to(&service, contact).len()).collect();
    assert_eq!((told.iter().sum::<usize>(), told.iter().max()), (2, Some(&1)), "{told:?}");
    assert_eq!(notices(&service).await, 0);
}

#[tokio::test]
async fn at_the_deployments_limit_of_mails_notices_wait_until_all_contacts_can_be_told() {
    let limits = Limits { mails: MailLimits { per_hour: Some(1), ..unlimited().mails }, ..unlimited() };
    let (service, _) = Service::start_with_mail_faults(limits).await;
    let (org, owner) = org(&service, LeakPolicy::Revoke).await;
    service.set_leaks(&org.id, &[SECURITY, BOSS], LeakPolicy::Revoke).await;
    let token = service.issue(&org, &owner, "alice").await;
    assert_reported(&report(&service, &[&token.token]).await);
    service.tell_leaks().await.unwrap();
    assert_eq!((service.outbox.mails().len(), notices(&service).await), (0, 1));
    // The mail that could be counted was taken off again.
    service.set_leaks(&org.id, &[BOSS], LeakPolicy::Revoke).await;
    service.tell_leaks().await.unwrap();
    assert_eq!(listing(&mails_to(&service, BOSS), &token), [0]);
    assert_eq!((service.outbox.mails().len(), notices(&service).await), (1, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn runs_at_once_send_one_mail() {
    let (service, ses) = Service::start_with_mail_faults(unlimited()).await;
    let (org, owner) = org(&service, LeakPolicy::Revoke).await;
    let token = service.issue(&org, &owner, "alice").await;
    leak(&service, &token.token).await;
    let runs = join_all((0..8).map(|_| service.tell_leaks())).await;
    assert!(runs.iter().all(Result::is_ok), "{runs:?}");
    assert_eq!(ses.recover(), 1);
    assert_eq!(listing(&mails_to(&service, SECURITY), &token), [0]);
    assert_eq!(notices(&service).await, 0);
}

/// A service with two recipients to be told, whose DynamoDB and SES inject faults.
async fn with_pending() -> (Service, Faults, Ses, [Issued; 2]) {
    let limits = Limits { mails: MailLimits { per_hour: Some(1_000), ..unlimited().mails }, ..unlimited() };
    let (service, faults, ses) = Service::start_with_all_faults(limits, no_upstreams()).await;
    let mut tokens = Vec::new();
    for contact in [SECURITY, BOSS] {
        let (org, owner) = service.org_with_owner().await;
        service.set_leaks(&org.id, &[contact], LeakPolicy::Revoke).await;
        let token = service.issue(&org, &owner, "alice").await;
        leak(&service, &token.token).await;
        tokens.push(token);
    }
    (service, faults, ses, tokens.try_into().unwrap())
}

/// Asserts that everything is told by now. Returns how often both recipients heard.
#[track_caller]
fn heard(service: &Service, tokens: &[Issued; 2], what: &str) -> [usize; 2] {
    let heard = [0, 1].map(|index| listing(&mails_to(service, [SECURITY, BOSS][index]), &tokens[index]).len());
    assert!(heard.iter().all(|heard| *heard > 0), "{what}: {heard:?}");
    heard
}

#[tokio::test]
async fn run_that_is_killed_at_any_call_loses_nothing_and_repeats_at_most_one_mail() {
    let heard: Vec<[usize; 2]> = at_each_call(|place| async move {
        let (service, faults, _, tokens) = with_pending().await;
        faults.kill_at(place, leaks_send::send(service.mail_app())).await?;
        assert_eq!(service.table.findings(), Vec::<String>::new(), "{place}");
        service.clock.advance(HOUR);
        service.tell_leaks().await.unwrap();
        assert_eq!(notices(&service).await, 0, "{place}");
        Some(heard(&service, &tokens, &place.to_string()))
    })
    .await;
    assert!(heard.len() > 10, "{}", heard.len());
    // Both are told at the same time: a killed run may repeat what it had begun to send.
    assert!(heard.iter().flatten().all(|heard| *heard <= 2), "{heard:?}");
    assert!(heard.contains(&[1, 1]), "{heard:?}");
}

#[tokio::test]
async fn run_that_fails_at_any_call_is_continued_by_the_next() {
    let failed = at_each_call(|place| async move {
        for fault in [Fault::LostBefore, Fault::Throttled] {
            let what = format!("{place} {fault:?}");
            let (service, faults, _, tokens) = with_pending().await;
            faults.arm(place, &[], Some(fault));
            let failed = service.tell_leaks().await;
            if faults.disarm().len() <= place {
                return None;
            }
            assert!(failed.is_err(), "{what}");
            service.clock.advance(HOUR);
            service.tell_leaks().await.unwrap();
            assert_eq!(notices(&service).await, 0, "{what}");
            assert!(heard(&service, &tokens, &what).iter().all(|heard| *heard <= 2), "{what}");
        }
        Some(())
    })
    .await
    .len();
    assert!(failed > 10, "{failed}");
}

#[tokio::test]
async fn recipient_who_cannot_be_told_does_not_keep_the_others_waiting() {
    let service = Service::start_with_manual_clock().await;
    let (org, owner) = org(&service, LeakPolicy::Revoke).await;
    let token = service.issue(&org, &owner, "alice").await;
    leak(&service, &token.token).await;
    // Sorts before the other one, and cannot be read.
    let first = "ORG#OG00000000000000000000000000";
    let sort_key = format!("{first}#01KAJ8M4R2X7Z9V5T3Q1N6P8WC");
    let broken = json!({"pk": {"S": "LEAK_NOTICES"}, "sk": {"S": sort_key}, "kind": {"N": "1"}});
    service.table.put(TABLE, &broken).await;
    assert!(service.tell_leaks().await.is_err());
    assert_eq!(listing(&mails_to(&service, SECURITY), &token), [0]);
    assert_eq!(notices(&service).await, 1);
    service.table.skip_final_check();
}
