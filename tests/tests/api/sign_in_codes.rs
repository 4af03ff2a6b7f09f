//! Sign-in codes by mail in the store: bound to browser and address, used once, limited; and the
//! limit of invitations.

use std::net::IpAddr;
use std::time::Duration;

use futures::future::{join, join_all};
use shared::email::{AddressHash, EmailAddress};
use shared::ids::OrgId;
use shared::secret::{MailedCode, Token, TokenHash, TokenKind};
use shared::store::Store;
use shared::store::mail_limits::{CountedMail, MailLimits, Reached, Recipient};
use tests::Service;
use tests::faults::Fault;
use tests::table::{TABLE, text};

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(60 * 60);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

fn address(text: &str) -> AddressHash {
    EmailAddress::try_from(text.to_owned()).unwrap().hash()
}

fn alice() -> AddressHash {
    address("alice@example.com")
}

/// The hash of a new cookie.
fn cookie() -> TokenHash {
    Token::generate(TokenKind::OrgUser).unwrap().hash()
}

fn source(last: u8) -> Option<IpAddr> {
    Some(IpAddr::from([203, 0, 113, last]))
}

async fn issue(service: &Service, address: AddressHash, browser: TokenHash) -> MailedCode {
    service.store.issue_sign_in_code(address, browser).await.unwrap().code
}

async fn redeem(service: &Service, address: AddressHash, browser: TokenHash, code: &MailedCode) -> bool {
    service.store.redeem_sign_in_code(address, browser, code).await.unwrap()
}

#[tokio::test]
async fn code_works_once_for_its_address_in_its_browser() {
    let service = Service::start_with_manual_clock().await;
    let (browser, other) = (cookie(), cookie());
    let code = issue(&service, alice(), browser).await;
    assert!(!redeem(&service, alice(), other, &code).await, "another browser");
    assert!(!redeem(&service, address("bob@example.com"), browser, &code).await, "another address");
    assert!(!redeem(&service, alice(), browser, &MailedCode::generate().unwrap()).await, "another code");
    let typed = MailedCode::parse(&code.expose().to_lowercase().replace('-', "")).unwrap();
    assert!(redeem(&service, address("ALICE@example.com"), browser, &typed).await, "wrong tries do not end it");
    assert!(!redeem(&service, alice(), browser, &code).await, "used");
}

#[tokio::test]
async fn code_expires_after_ten_minutes() {
    let service = Service::start_with_manual_clock().await;
    let (one, other) = (cookie(), cookie());
    let codes = [issue(&service, alice(), one).await, issue(&service, alice(), other).await];
    service.clock.advance(10 * MINUTE - Duration::from_secs(1));
    assert!(redeem(&service, alice(), one, &codes[0]).await);
    service.clock.advance(Duration::from_secs(1));
    assert!(!redeem(&service, alice(), other, &codes[1]).await);
    // The expired item, which TTL deletes late, is in nobody's way.
    let code = issue(&service, alice(), other).await;
    assert!(redeem(&service, alice(), other, &code).await);
}

#[tokio::test]
async fn newer_code_replaces_only_that_of_its_browser_and_address() {
    let service = Service::start_with_manual_clock().await;
    let (browser, other, bob) = (cookie(), cookie(), address("bob@example.com"));
    let old = issue(&service, alice(), browser).await;
    let elsewhere = issue(&service, alice(), other).await;
    let bobs = issue(&service, bob, browser).await;
    let new = issue(&service, alice(), browser).await;
    assert!(!redeem(&service, alice(), browser, &old).await);
    assert!(redeem(&service, alice(), browser, &new).await);
    assert!(redeem(&service, alice(), other, &elsewhere).await, "asked for in another browser");
    assert!(redeem(&service, bob, browser, &bobs).await, "asked for another address");
}

#[tokio::test]
async fn code_and_address_are_stored_as_hashes() {
    let service = Service::start_with_manual_clock().await;
    let code = issue(&service, alice(), cookie()).await.expose();
    service.assert_sound_without(&[&code, "alice@"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_20_concurrent_redeemers_one_wins() {
    let service = Service::start_with_manual_clock().await;
    for _ in 0..5 {
        let browser = cookie();
        let code = issue(&service, alice(), browser).await;
        let won = join_all((0..20).map(|_| redeem(&service, alice(), browser, &code))).await;
        assert_eq!(won.iter().filter(|won| **won).count(), 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_concurrently_issued_codes_one_works() {
    let service = Service::start_with_manual_clock().await;
    let browser = cookie();
    let codes = join_all((0..6).map(|_| issue(&service, alice(), browser))).await;
    let mut won = 0;
    for code in &codes {
        won += usize::from(redeem(&service, alice(), browser, code).await);
    }
    assert_eq!(won, 1);
}

#[tokio::test]
async fn code_whose_mail_was_refused_gives_way_to_the_one_before() {
    let service = Service::start_with_manual_clock().await;
    let (store, browser) = (&service.store, cookie());
    let alone = store.issue_sign_in_code(alice(), browser).await.unwrap();
    store.sign_in_mail_failed(alice(), browser, &alone).await.unwrap();
    assert!(!redeem(&service, alice(), browser, &alone.code).await);

    let first = issue(&service, alice(), browser).await;
    service.clock.advance(5 * MINUTE);
    let refused = store.issue_sign_in_code(alice(), browser).await.unwrap();
    store.sign_in_mail_failed(alice(), browser, &refused).await.unwrap();
    assert!(!redeem(&service, alice(), browser, &refused.code).await);
    service.clock.advance(5 * MINUTE - Duration::from_secs(1));
    assert!(redeem(&service, alice(), browser, &first).await, "it kept its own time");

    // A newer code stays.
    issue(&service, alice(), browser).await;
    let refused = store.issue_sign_in_code(alice(), browser).await.unwrap();
    let newest = issue(&service, alice(), browser).await;
    store.sign_in_mail_failed(alice(), browser, &refused).await.unwrap();
    assert!(redeem(&service, alice(), browser, &newest).await);
    // One that was used meanwhile does not come back.
    let used = issue(&service, alice(), browser).await;
    assert!(redeem(&service, alice(), browser, &used).await);
    let refused = store.issue_sign_in_code(alice(), browser).await.unwrap();
    store.sign_in_mail_failed(alice(), browser, &refused).await.unwrap();
    assert!(!redeem(&service, alice(), browser, &used).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn code_used_while_another_one_is_refused_stays_used() {
    let service = Service::start_with_manual_clock().await;
    let store = &service.store;
    let mut used_at_once = 0;
    for _ in 0..50 {
        let browser = cookie();
        let code = issue(&service, alice(), browser).await;
        let refuse = async {
            let refused = store.issue_sign_in_code(alice(), browser).await.unwrap();
            store.sign_in_mail_failed(alice(), browser, &refused).await.unwrap();
        };
        let (used, ()) = join(redeem(&service, alice(), browser, &code), refuse).await;
        used_at_once += usize::from(used);
        assert_eq!(redeem(&service, alice(), browser, &code).await, !used, "once, whenever it was");
    }
    assert!(used_at_once > 0, "the race was never run");
}

#[tokio::test]
async fn lost_or_conflicting_answer_does_not_lose_the_code() {
    let (service, faults) = Service::start_with_faults().await;
    let store = Store::new(faults.client(), TABLE, service.clock.clone());
    for fault in [Fault::LostAfter, Fault::Conflict, Fault::InProgress, Fault::LostBefore] {
        let browser = cookie();
        // The first call reads.
        faults.arm(1, &[fault], None);
        let code = store.issue_sign_in_code(alice(), browser).await.unwrap().code;
        faults.arm(1, &[fault], None);
        assert!(store.redeem_sign_in_code(alice(), browser, &code).await.unwrap(), "{fault:?}");
        faults.arm(0, &[], None);
        assert!(!store.redeem_sign_in_code(alice(), browser, &code).await.unwrap(), "{fault:?}");
    }
}

/// Counts a sign-in mail.
async fn mail(
    service: &Service,
    address: AddressHash,
    source: Option<IpAddr>,
    device: Option<TokenHash>,
    limits: &MailLimits,
) -> Result<CountedMail, Reached> {
    service.store.count_sign_in_mail(address, source, device, limits).await.unwrap()
}

/// Counts mails to Alice until a limit is reached: their number, and the limit.
async fn mails_until_limit(service: &Service, source: Option<IpAddr>, device: Option<TokenHash>) -> (usize, Reached) {
    let mut count = 0;
    loop {
        match mail(service, alice(), source, device, &MailLimits::default()).await {
            Ok(_) => count += 1,
            Err(reached) => return (count, reached),
        }
    }
}

#[tokio::test]
async fn address_gets_5_codes_an_hour_per_source_and_20_in_all() {
    let service = Service::start_with_manual_clock().await;
    for last in 1..=4 {
        assert_eq!(mails_until_limit(&service, source(last), None).await, (5, Reached::AddressFromSource));
    }
    assert_eq!(mails_until_limit(&service, source(5), None).await, (0, Reached::Address));
    // Another address is not affected, nor is its share of this source.
    let other = address("bob@example.com");
    for _ in 0..5 {
        assert!(mail(&service, other, source(5), None, &MailLimits::default()).await.is_ok());
    }
    service.clock.advance(HOUR - Duration::from_secs(1));
    assert_eq!(mails_until_limit(&service, source(5), None).await, (0, Reached::Address));
    service.clock.advance(Duration::from_secs(1));
    assert_eq!(mails_until_limit(&service, source(5), None).await, (5, Reached::AddressFromSource));
}

#[tokio::test]
async fn browser_that_has_signed_in_before_has_5_codes_of_its_own() {
    let service = Service::start_with_manual_clock().await;
    let (device, stolen) = (cookie(), cookie());
    service.store.remember_device(device, alice()).await.unwrap();
    service.store.remember_device(stolen, address("mallory@example.com")).await.unwrap();
    for last in 1..=4 {
        mails_until_limit(&service, source(last), None).await;
    }
    for unknown in [stolen, cookie()] {
        assert_eq!(mails_until_limit(&service, source(5), Some(unknown)).await, (0, Reached::Address));
    }
    // From the very source that filled its share.
    assert_eq!(mails_until_limit(&service, source(1), Some(device)).await, (5, Reached::Device));
    service.clock.advance(HOUR);
    assert_eq!(mails_until_limit(&service, source(1), Some(device)).await, (5, Reached::Device));
    // They count against no other browser.
    assert_eq!(mails_until_limit(&service, source(1), None).await, (5, Reached::AddressFromSource));
}

#[tokio::test]
async fn browser_is_remembered_for_180_days_from_its_last_sign_in() {
    let service = Service::start_with_manual_clock().await;
    let device = cookie();
    service.store.remember_device(device, alice()).await.unwrap();
    service.clock.advance(180 * DAY - Duration::from_secs(1));
    assert_eq!(mails_until_limit(&service, source(1), Some(device)).await, (5, Reached::Device));
    service.store.remember_device(device, alice()).await.unwrap();
    service.clock.advance(180 * DAY - Duration::from_secs(1));
    assert_eq!(mails_until_limit(&service, source(1), Some(device)).await, (5, Reached::Device));
    service.clock.advance(Duration::from_secs(1));
    assert_eq!(mails_until_limit(&service, source(1), Some(device)).await, (5, Reached::AddressFromSource));
}

#[tokio::test]
async fn one_source_gets_60_codes_an_hour_but_known_browsers_go_on() {
    let service = Service::start_with_manual_clock().await;
    let limits = MailLimits::default();
    for place in 0..60 {
        let to = address(&format!("person-{place}@example.com"));
        assert!(mail(&service, to, source(1), None, &limits).await.is_ok(), "{place}");
    }
    assert_eq!(mail(&service, alice(), source(1), None, &limits).await.unwrap_err(), Reached::SourceHour);
    let device = cookie();
    service.store.remember_device(device, alice()).await.unwrap();
    assert!(mail(&service, alice(), source(1), Some(device), &limits).await.is_ok());
    assert!(mail(&service, alice(), source(2), None, &limits).await.is_ok());
    service.clock.advance(HOUR);
    assert!(mail(&service, alice(), source(1), None, &limits).await.is_ok());
}

#[tokio::test]
async fn codes_use_the_share_kept_for_known_addresses() {
    let service = Service::start_with_manual_clock().await;
    let limits = MailLimits { per_hour: Some(10), ..MailLimits::default() };
    let stranger = |place: u8| EmailAddress::try_from(format!("stranger@d{place}.example")).unwrap();
    let register = async |place: u8| {
        service.store.count_mail(Recipient::New, &stranger(place), source(place), &limits).await.unwrap()
    };
    for place in 0..8 {
        assert!(register(place).await.is_ok());
    }
    assert_eq!(register(8).await.unwrap_err(), Reached::NewAddresses);
    let device = cookie();
    service.store.remember_device(device, alice()).await.unwrap();
    assert!(mail(&service, alice(), source(1), None, &limits).await.is_ok());
    assert!(mail(&service, alice(), source(1), Some(device), &limits).await.is_ok());
    for device in [None, Some(device)] {
        assert_eq!(mail(&service, alice(), source(1), device, &limits).await.unwrap_err(), Reached::Deployment);
    }
}

#[tokio::test]
async fn refused_and_unsent_codes_use_up_no_limit() {
    let service = Service::start_with_manual_clock().await;
    let limits = MailLimits { sign_in_codes_per_source_per_hour: Some(6), ..MailLimits::default() };
    for last in 1..=4 {
        mails_until_limit(&service, source(last), None).await;
    }
    // 20 mails so far. A source that is refused keeps all of its own.
    for _ in 0..10 {
        assert_eq!(mail(&service, alice(), source(5), None, &limits).await.unwrap_err(), Reached::Address);
    }
    for place in 0..6 {
        let to = address(&format!("person-{place}@example.com"));
        assert!(mail(&service, to, source(5), None, &limits).await.is_ok());
    }
    service.clock.advance(HOUR);
    for _ in 0..30 {
        let counted = mail(&service, alice(), source(1), None, &limits).await.unwrap();
        service.store.uncount_mail(counted).await.unwrap();
    }
    assert_eq!(mails_until_limit(&service, source(1), None).await, (5, Reached::AddressFromSource));
    let counts = service.table.items().await.into_iter().filter(|item| text(item, "pk").starts_with("MAILS"));
    assert!(counts.into_iter().all(|item| item["count"].as_u64().is_some_and(|count| count <= 26)));
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_requests_cannot_exceed_a_limit() {
    let service = Service::start_with_manual_clock().await;
    let limits = MailLimits::default();
    let counted = join_all((0..20).map(|_| mail(&service, alice(), source(1), None, &limits))).await;
    assert_eq!(counted.iter().filter(|counted| counted.is_ok()).count(), 5);
}

#[tokio::test]
async fn wrong_codes_are_answered_20_times_a_minute_and_source() {
    let service = Service::start_with_manual_clock().await;
    let count = async |source| service.store.count_wrong_code(source).await.unwrap();
    service.clock.advance(Duration::from_secs(12));
    for _ in 0..20 {
        assert_eq!(count(source(1)).await, Ok(()));
    }
    for _ in 0..180 {
        assert_eq!(count(source(1)).await, Err(Duration::from_secs(48)));
    }
    assert_eq!(count(source(2)).await, Ok(()));
    // Its own counter: calls are not affected.
    assert_eq!(service.store.count_call(source(1), 1).await.unwrap(), Ok(()));
    service.clock.advance(Duration::from_secs(48));
    assert_eq!(count(source(1)).await, Ok(()));
}

#[tokio::test]
async fn organization_mails_50_invitations_a_day() {
    let service = Service::start_with_manual_clock().await;
    let (org, other) = (service.org().await.id, service.org().await.id);
    let limits = MailLimits::default();
    let invite = async |org: &OrgId| service.store.count_invitation_mail(org, &limits).await.unwrap();
    for _ in 0..50 {
        assert!(invite(&org).await.is_ok());
    }
    assert_eq!(invite(&org).await.unwrap_err(), Reached::Organization);
    service.store.uncount_mail(invite(&other).await.unwrap()).await.unwrap();
    for _ in 0..50 {
        assert!(invite(&other).await.is_ok(), "a mail that was not sent is taken off");
    }
    // 10:00; the day ends at midnight.
    service.clock.advance(14 * HOUR - Duration::from_secs(1));
    assert_eq!(invite(&org).await.unwrap_err(), Reached::Organization);
    service.clock.advance(Duration::from_secs(1));
    assert!(invite(&org).await.is_ok());
    let few = MailLimits { per_hour: Some(1), ..limits.clone() };
    let reached = service.store.count_invitation_mail(&org, &few).await.unwrap().unwrap_err();
    assert_eq!(reached, Reached::Deployment);
}
