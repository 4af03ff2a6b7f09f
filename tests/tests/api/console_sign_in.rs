//! Signing in: by a code that is mailed, with one answer for every address; sessions and their
//! cookies; and what all answers below `/console/` share.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use axum::body::{Body, to_bytes};
use axum::extract::Request;
use futures::future::{join_all, join3};
use reqwest::Method;
use serde_json::json;
use shared::app::Limits;
use shared::console::SignIn;
use shared::email::{EmailAddress, Language};
use shared::observe::Origin;
use shared::permissions::Role;
use shared::person::Person;
use shared::secret::{MailedCode, Token, TokenKind};
use shared::store::mail_limits::MailLimits;
use shared::store::members::Authority;
use tests::console::{Browser, hidden, person, unescaped};
use tests::coverage::{Fixtures, Guard, routed};
use tests::email::{Kind, code_in, kind_of};
use tests::faults::Fault;
use tests::mail_faults::MailFault;
use tests::{Answer, Org, Service, operator, unlimited};
use tower::ServiceExt;

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(60 * 60);

const ASK: &str = "/console/sign-in/code";
const CHECK: &str = "/console/sign-in/code/check";

const WRONG: &str = "The code is wrong, expired or used up. Request a new one.";

fn address(text: &str) -> EmailAddress {
    EmailAddress::try_from(text.to_owned()).unwrap()
}

async fn invite(service: &Service, org: &Org, email: &str) {
    let (email, by) = (address(email), operator());
    let invited = service.store.invite_member(&org.id, &email, &[Role::Member], Authority::Operator, &by);
    invited.await.unwrap().unwrap();
}

/// An organization that has invited `alice@example.com`.
async fn inviting(service: &Service) -> Org {
    let org = service.org().await;
    invite(service, &org, "alice@example.com").await;
    org
}

fn mailed_code(service: &Service, email: &str) -> String {
    code_in(&service.person(email).newest_mail())
}

#[track_caller]
fn assert_leads(answer: &Answer, path: &str) {
    assert_eq!((answer.status.as_u16(), answer.header("location")), (303, path), "{}", answer.text);
}

#[track_caller]
fn assert_page(answer: &Answer, status: u16, shown: &str) {
    assert_eq!(answer.status, status, "{}", answer.text);
    assert_eq!(answer.header("content-type"), "text/html; charset=utf-8");
    assert!(unescaped(&answer.text).contains(shown), "{shown}: {}", answer.text);
}

/// Whether a browser's session is active.
async fn is_signed_in(browser: &mut Browser<'_>) -> bool {
    browser.get("/console/account").await.status == 200
}

/// Everything of an answer that may not depend on the address.
fn redacted(answer: &Answer, email: &str) -> (u16, Vec<(String, String)>, String) {
    let varies = ["date", "x-request-id", "x-test-cost", "content-length"];
    let headers = answer.headers.iter().filter(|(name, _)| !varies.contains(&name.as_str())).map(|(name, value)| {
        let value = value.to_str().unwrap();
        let value = match value.split_once("=gs_") {
            Some((cookie, rest)) => format!("{cookie}={}", &rest[42..]),
            None => value.to_owned(),
        };
        (name.to_string(), value)
    });
    (answer.status.as_u16(), headers.collect(), answer.text.replace(email, "ADDRESS"))
}

#[tokio::test]
async fn invited_person_signs_in_by_mail_and_joins() {
    let service = Service::start_with_manual_clock().await;
    let org = inviting(&service).await;
    let invitation = format!("/console/account/invitations/{}", org.id);
    let mut browser = service.browser();
    let sign_in = browser.get(&invitation).await;
    assert_eq!(sign_in.status, 303);
    let page = browser.get(sign_in.header("location")).await;
    assert_page(&page, 200, ">Send code<");
    assert!(!page.text.contains("/console/sign-in/provider"), "{}", page.text);
    let return_to = hidden(&page.text, "return_to");
    assert_eq!(return_to, invitation);
    let asked = browser.submit(ASK, &[("email", "alice@example.com"), ("return_to", &return_to)]).await;
    assert_page(&asked, 200, "Check your mail");
    let mail = service.person("alice@example.com").newest_mail();
    assert_eq!(kind_of(&mail), (Kind::SignInCode, Language::En));
    let fields = ["email", "return_to"].map(|name| (name, hidden(&asked.text, name)));
    let code = code_in(&mail).to_lowercase().replace('-', "");
    let entered = browser.submit(CHECK, &[("email", &fields[0].1), ("return_to", &fields[1].1), ("code", &code)]).await;
    assert_leads(&entered, &invitation);
    // From the root, a person without membership is led to the invitation too.
    assert_leads(&browser.get("/console/").await, "/console/organizations");
    assert_page(&browser.get("/console/organizations").await, 200, &format!("href=\"{invitation}\""));
    let page = browser.get(&invitation).await;
    assert_page(&page, 200, "Join Example?");
    let fields = ["form_token", "invitation"].map(|name| (name, hidden(&page.text, name)));
    let accepted = browser.submit(&invitation, &fields.each_ref().map(|(name, value)| (*name, value.as_str()))).await;
    assert_leads(&accepted, &format!("/console/o/{}", org.id));
    let member = service.store.membership(person("alice@example.com").id, &org.id).await.unwrap().unwrap();
    assert!(member.roles.contains(Role::Member));
    assert_eq!(browser.get(accepted.header("location")).await.status, 200);
    // A member signs in without an invitation.
    let mut elsewhere = service.browser();
    assert_leads(&elsewhere.sign_in("alice@example.com").await, "/console/");
    assert!(is_signed_in(&mut elsewhere).await);
    service.assert_sound_without(&[&code, browser.cookie("session").unwrap()]).await;
}

#[tokio::test]
async fn every_address_is_answered_alike() {
    let service = Service::start_with_manual_clock().await;
    let org = inviting(&service).await;
    service.join(&org.id, &person("member@example.com"), &[Role::Owner]).await;
    let of_provider = Person::of_provider("https://issuer.example.com", "1", address("provider@example.com"));
    service.join(&org.id, &of_provider, &[Role::Owner]).await;
    invite(&service, &org, "limited@example.com").await;
    for _ in 0..20 {
        let source = Some("203.0.113.7".parse().unwrap());
        let address = address("limited@example.com").hash();
        let _ = service.store.count_sign_in_mail(address, source, None, &MailLimits::default()).await.unwrap();
    }
    for source in 8..12 {
        let source = Some(format!("203.0.113.{source}").parse().unwrap());
        for _ in 0..5 {
            let address = address("limited@example.com").hash();
            let _ = service.store.count_sign_in_mail(address, source, None, &unlimited().mails).await.unwrap();
        }
    }
    let mut seen = Vec::new();
    for (email, is_mailed) in [
        ("alice@example.com", true),
        ("member@example.com", true),
        ("limited@example.com", false),
        ("provider@example.com", false),
        ("unknown@example.com", false),
    ] {
        let mut browser = service.browser();
        let asked = redacted(&browser.ask_for_code(email).await, email);
        let wrong = redacted(&browser.send_code(email, "0000-0000-0000-0000").await, email);
        assert_eq!(service.person(email).mails().len(), usize::from(is_mailed), "{email}");
        seen.push((asked, wrong));
    }
    assert_eq!((seen[0].0.0, seen[0].1.0), (200, 400));
    for other in &seen[1..] {
        assert_eq!(*other, seen[0]);
    }
}

#[tokio::test]
async fn asking_takes_as_long_for_every_address_whatever_the_mail_does() {
    // Longer than a mail hangs.
    let step = Duration::from_secs(8);
    let (service, ses) = Service::start_with_mail_faults(Limits { sign_in_time: step, ..unlimited() }).await;
    inviting(&service).await;
    invite(&service, &service.org().await, "bobby@example.com").await;
    let ask = async |email: &str| {
        let started = Instant::now();
        let answer = service.browser().ask_for_code(email).await;
        assert_eq!(answer.status, 200);
        started.elapsed().as_millis() / step.as_millis()
    };
    ses.arm(&[Some(MailFault::HangBefore)], Some(MailFault::HangBefore));
    let times = join3(ask("alice@example.com"), ask("bobby@example.com"), ask("unknown@example.com")).await;
    assert_eq!(times, (1, 1, 1));
    assert_eq!(ses.recover(), 2);
}

#[tokio::test]
async fn failing_mail_is_not_told_and_costs_no_code() {
    let (service, ses) = Service::start_with_mail_faults(unlimited()).await;
    let org = inviting(&service).await;
    let mut fine = service.browser();
    let expected = redacted(&fine.ask_for_code("unknown@example.com").await, "unknown@example.com");
    let mut browser = service.browser();
    browser.ask_for_code("alice@example.com").await;
    let before = mailed_code(&service, "alice@example.com");
    for fault in MailFault::ALL {
        let email = format!("{fault:?}@example.com").to_lowercase();
        invite(&service, &org, &email).await;
        ses.fail(fault);
        let mut browser = service.browser();
        let answer = redacted(&browser.ask_for_code(&email).await, &email);
        assert_eq!(answer, expected, "{fault:?}");
        ses.recover();
        if fault.delivers() {
            let code = mailed_code(&service, &email);
            assert_leads(&browser.send_code(&email, &code).await, "/console/");
        }
    }
    // Mails that were refused count for nothing, and the code before them stays valid.
    ses.fail(MailFault::Rejected);
    for _ in 0..30 {
        browser.ask_for_code("alice@example.com").await;
    }
    assert_eq!(ses.recover(), 30);
    assert_leads(&browser.send_code("alice@example.com", &before).await, "/console/");
}

#[tokio::test]
async fn failing_database_is_not_told_once_the_address_is_known() {
    let (service, faults) = Service::start_with_faults().await;
    inviting(&service).await;
    let expected = redacted(&service.browser().ask_for_code("unknown@example.com").await, "unknown@example.com");
    // The first two calls look the address up, the others are made for known ones only.
    for (passing, status) in [(0, 503), (1, 503), (2, 200), (3, 200), (4, 200), (5, 200)] {
        faults.arm(passing, &[], Some(Fault::ServerError));
        let answer = service.browser().ask_for_code("alice@example.com").await;
        faults.disarm();
        assert_eq!(answer.status, status, "{passing}: {}", answer.text);
        if status == 200 {
            assert_eq!(redacted(&answer, "alice@example.com"), expected);
        }
    }
    assert!(service.person("alice@example.com").mails().is_empty());
}

#[tokio::test]
async fn mail_goes_to_the_address_as_it_was_invited_never_as_typed() {
    let service = Service::start_with_manual_clock().await;
    let org = service.org().await;
    invite(&service, &org, "Dave@Example.com").await;
    let mut browser = service.browser();
    assert_leads(&browser.sign_in("dAVE@EXAMPLE.com").await, "/console/");
    assert_eq!(service.person("dave@example.com").newest_mail().to, "Dave@example.com");
    assert!(browser.get("/console/account").await.text.contains("Dave@example.com"));
}

#[tokio::test]
async fn code_works_once_in_its_browser_for_its_address_for_ten_minutes() {
    let service = Service::start_with_manual_clock().await;
    let org = inviting(&service).await;
    invite(&service, &org, "bobby@example.com").await;
    let (mut browser, mut other) = (service.browser(), service.browser());
    browser.ask_for_code("alice@example.com").await;
    let first = mailed_code(&service, "alice@example.com");
    other.ask_for_code("alice@example.com").await;
    let others = mailed_code(&service, "alice@example.com");
    let mut none = service.browser();
    for (wrong, email, code) in [
        (&mut other, "alice@example.com", first.as_str()),
        (&mut none, "alice@example.com", &first),
        (&mut browser.clone(), "alice@example.com", &others),
        (&mut browser.clone(), "bobby@example.com", &first),
    ] {
        assert_page(&wrong.send_code(email, code).await, 400, WRONG);
        assert_eq!(wrong.cookie("session"), None);
    }
    // The newer one replaces it, in this browser alone.
    browser.ask_for_code("alice@example.com").await;
    let second = mailed_code(&service, "alice@example.com");
    assert_page(&browser.send_code("alice@example.com", &first).await, 400, WRONG);
    let mut thief = browser.clone();
    assert_leads(&browser.send_code("alice@example.com", &second).await, "/console/");
    assert_eq!(browser.cookie("signing_in"), None);
    assert_page(&thief.send_code("alice@example.com", &second).await, 400, WRONG);
    service.clock.advance(10 * MINUTE);
    assert_page(&other.send_code("alice@example.com", &others).await, 400, WRONG);
}

#[tokio::test]
async fn code_signs_in_once_however_often_it_is_sent_at_once() {
    let service = Service::start_with_manual_clock().await;
    inviting(&service).await;
    let mut browser = service.browser();
    browser.ask_for_code("alice@example.com").await;
    let code = mailed_code(&service, "alice@example.com");
    let sent = join_all((0..10).map(|_| async { browser.clone().send_code("alice@example.com", &code).await })).await;
    assert_eq!(sent.iter().filter(|answer| answer.status == 303).count(), 1);
    assert_eq!(service.store.sessions_of(person("alice@example.com").id).await.unwrap().len(), 1);
}

#[tokio::test]
async fn wrong_code_is_told_at_the_field_in_one_sentence() {
    let service = Service::start_with_manual_clock().await;
    inviting(&service).await;
    let mut browser = service.browser();
    browser.ask_for_code("alice@example.com").await;
    let expired = mailed_code(&service, "alice@example.com");
    service.clock.advance(10 * MINUTE);
    let mut used = service.browser();
    used.ask_for_code("alice@example.com").await;
    let code = mailed_code(&service, "alice@example.com");
    let signing_in = used.clone();
    used.send_code("alice@example.com", &code).await;
    let mut used = signing_in;
    let mut pages =
        vec![browser.send_code("alice@example.com", &expired).await, used.send_code("alice@example.com", &code).await];
    for code in ["0123-4567-89AB-CDEF", "", "<script>", "tg_org_secret", &"9".repeat(5_000)] {
        pages.push(browser.send_code("alice@example.com", code).await);
        assert!(code.is_empty() || !pages.last().unwrap().text.contains(code), "a code is shown again");
    }
    pages.push(service.browser().send_code("unknown@example.com", "0123-4567-89AB-CDEF").await);
    for page in &pages {
        assert_page(page, 400, WRONG);
        assert!(page.text.contains("aria-describedby=\"code-hint code-error\""), "{}", page.text);
        assert!(!page.text.contains(&code) && !page.text.contains(&expired));
    }
    let text = |page: &Answer| page.text.replace("unknown@", "alice@");
    assert!(pages.iter().all(|page| text(page) == pages[0].text));
    assert_eq!(hidden(&pages[0].text, "email"), "alice@example.com");
}

#[tokio::test]
async fn invalid_address_is_told_at_the_field_with_what_was_typed() {
    let service = Service::start_with_manual_clock().await;
    for typed in
        ["", "alice", "alice@example", "a@b@c", "\"><script>alert(1)</script>@example.com", "a\r\nBcc: b@example.com"]
    {
        let mut browser = service.browser();
        let answer = browser.submit(ASK, &[("email", typed), ("return_to", "/console/account")]).await;
        assert_page(&answer, 400, "Enter an email address, such as alice@example.com.");
        assert!(!answer.text.contains("<script>alert"), "{}", answer.text);
        assert!(unescaped(&answer.text).contains(&format!("value=\"{typed}\"")), "{typed}: {}", answer.text);
        assert_eq!(hidden(&answer.text, "return_to"), "/console/account");
        assert_eq!(answer.header("set-cookie"), "");
    }
    assert!(service.outbox.mails().is_empty());
}

#[tokio::test]
async fn of_200_guesses_in_a_minute_20_are_answered_and_the_right_code_still_works() {
    let service = Service::start_with_manual_clock().await;
    inviting(&service).await;
    let mut browser = service.browser();
    browser.ask_for_code("alice@example.com").await;
    let mut attacker = browser.clone();
    let mut statuses = BTreeMap::<u16, usize>::new();
    for _ in 0..200 {
        let guess = MailedCode::generate().unwrap().expose();
        let answer = attacker.send_code("alice@example.com", &guess).await;
        *statuses.entry(answer.status.as_u16()).or_default() += 1;
        if answer.status == 429 {
            assert_page(&answer, 429, "Too many requests");
            assert_eq!(answer.header("retry-after"), "60");
        }
    }
    assert_eq!(statuses, BTreeMap::from([(400, 20), (429, 180)]));
    let code = mailed_code(&service, "alice@example.com");
    assert_leads(&browser.send_code("alice@example.com", &code).await, "/console/");
    service.clock.advance(MINUTE);
    assert_eq!(attacker.send_code("alice@example.com", "0").await.status, 400);
}

#[tokio::test]
async fn nobody_can_silence_a_browser_that_has_signed_in_before() {
    let service = Service::start_with_manual_clock().await;
    inviting(&service).await;
    let mut known = service.browser();
    known.sign_in("alice@example.com").await;
    for source in 0..20 {
        let source = Some(format!("203.0.113.{source}").parse().unwrap());
        for _ in 0..5 {
            let address = address("alice@example.com").hash();
            let _ = service.store.count_sign_in_mail(address, source, None, &unlimited().mails).await.unwrap();
        }
    }
    let mails = || service.person("alice@example.com").mails().len();
    assert_eq!(mails(), 1);
    service.browser().ask_for_code("alice@example.com").await;
    assert_eq!(mails(), 1, "the address has got as many as it may");
    for _ in 0..6 {
        known.ask_for_code("alice@example.com").await;
    }
    assert_eq!(mails(), 1 + 5, "the browser has a limit of its own");
    let code = mailed_code(&service, "alice@example.com");
    assert_leads(&known.send_code("alice@example.com", &code).await, "/console/");
}

#[tokio::test]
async fn sign_in_makes_a_new_session_and_ends_the_one_before() {
    let service = Service::start_with_manual_clock().await;
    let org = inviting(&service).await;
    let mallory = person("mallory@example.com");
    service.join(&org.id, &mallory, &[Role::Member]).await;
    // A session that somebody has put into the browser, and a made-up one.
    let planted = service.sign_in(&mallory).await;
    let made_up = Token::generate(TokenKind::Session).unwrap();
    for secret in [planted.secret.expose(), made_up.expose()] {
        let mut browser = service.browser();
        browser.cookies.insert(service.cookie_name("session"), secret.to_owned());
        assert_leads(&browser.sign_in("alice@example.com").await, "/console/");
        let session = browser.cookie("session").unwrap();
        assert_ne!(session, secret);
        assert_page(&browser.get("/console/account").await, 200, "alice@example.com");
        assert_eq!(service.store.session(Token::parse(secret).unwrap().hash()).await.unwrap(), None);
    }
    // A cookie for the code that somebody has planted opens nothing afterwards.
    let mut browser = service.browser();
    browser.cookies.insert(service.cookie_name("signing_in"), made_up.expose().to_owned());
    browser.sign_in("alice@example.com").await;
    let first = browser.cookie("session").unwrap().to_owned();
    assert_ne!(first, made_up.expose());
    assert_eq!(service.store.session(made_up.hash()).await.unwrap(), None);
    // Again in the same browser: the session before ends.
    browser.sign_in("alice@example.com").await;
    assert_ne!(browser.cookie("session").unwrap(), first);
    browser.cookies.insert(service.cookie_name("session"), first);
    assert!(!is_signed_in(&mut browser).await);
}

#[tokio::test]
async fn person_who_is_signed_in_is_led_on() {
    let service = Service::start_with_manual_clock().await;
    inviting(&service).await;
    let mut browser = service.browser();
    browser.sign_in("alice@example.com").await;
    assert_leads(&browser.get("/console/sign-in").await, "/console/");
    assert_leads(&browser.get("/console/sign-in?return_to=/console/account").await, "/console/account");
    assert_leads(
        &browser.get("/console/sign-in?signed_out&x=y&return_to=%2Fconsole%2Faccount").await,
        "/console/account",
    );
}

#[tokio::test]
async fn sign_in_leads_nowhere_but_to_pages_of_the_console() {
    let service = Service::start_with_manual_clock().await;
    inviting(&service).await;
    let mut browser = service.browser();
    for evil in [
        "https://evil.example/",
        "//evil.example/console/",
        "/\\evil.example",
        "/console//evil.example",
        "/console/../../evil",
        "/console/%2e%2e/npm/evil",
        "/console/\r\nSet-Cookie: a=b",
        "/v1/whoami",
        "javascript:alert(1)",
        "/console/sign-in",
        "/consolex",
        "console/",
        "\"><script>alert(1)</script>",
    ] {
        let encoded: String =
            reqwest::Url::parse_with_params("http://a/", [("return_to", evil)]).unwrap().query().unwrap().to_owned();
        let page = service.browser().get(&format!("/console/sign-in?{encoded}")).await;
        assert_eq!(hidden(&page.text, "return_to"), "/console/", "{evil}");
        let mut asking = service.browser();
        let asked = asking.submit(ASK, &[("email", "unknown@example.com"), ("return_to", evil)]).await;
        assert_eq!(hidden(&asked.text, "return_to"), "/console/", "{evil}");
        let wrong = asking.submit(CHECK, &[("email", "unknown@example.com"), ("return_to", evil), ("code", "0")]).await;
        assert!(wrong.status == 429 || hidden(&wrong.text, "return_to") == "/console/", "{evil}");
        browser.ask_for_code("alice@example.com").await;
        let code = mailed_code(&service, "alice@example.com");
        let fields = [("email", "alice@example.com"), ("code", code.as_str()), ("return_to", evil)];
        assert_leads(&browser.submit(CHECK, &fields).await, "/console/");
        assert_leads(&browser.get(&format!("/console/sign-in?{encoded}")).await, "/console/");
        service.clock.advance(HOUR);
    }
    // Given twice, it is ignored.
    let twice = "/console/sign-in?return_to=/console/account&return_to=//evil.example";
    assert_eq!(hidden(&service.browser().get(twice).await.text, "return_to"), "/console/");
}

#[tokio::test]
async fn forms_of_other_sites_are_refused() {
    let service = Service::start_with_manual_clock().await;
    let org = inviting(&service).await;
    let member = service.member(&org, &[Role::Owner]).await;
    let mut browser = service.browser();
    browser.ask_for_code("alice@example.com").await;
    let code = mailed_code(&service, "alice@example.com");
    let own = service.base_url.clone();
    let evil = "https://evil.example".to_owned();
    let headers: [&[(&str, &str)]; 7] = [
        &[],
        &[("sec-fetch-site", "cross-site")],
        &[("sec-fetch-site", "same-site")],
        &[("sec-fetch-site", "none")],
        &[("origin", &evil)],
        &[("origin", "null")],
        &[("sec-fetch-site", "same-origin"), ("origin", &evil)],
    ];
    for headers in headers {
        let send = async |request: reqwest::RequestBuilder| {
            let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
            service.send(request).await
        };
        let asked = [("email", "alice@example.com")];
        let typed = [("email", "alice@example.com"), ("code", code.as_str())];
        let token = member.form_token();
        let signed_out = [("form_token", token.as_str())];
        for answer in [
            send(browser.request(Method::POST, ASK).form(&asked)).await,
            send(browser.request(Method::POST, CHECK).form(&typed)).await,
            send(
                service.request(Method::POST, "/console/sign-out").header("cookie", member.cookie()).form(&signed_out),
            )
            .await,
        ] {
            assert_page(&answer, 403, "The form could not be accepted");
            assert_eq!(answer.header("set-cookie"), "", "{headers:?}");
        }
    }
    assert_eq!(service.person("alice@example.com").mails().len(), 1);
    assert_eq!(member.get("/console/account").await.status, 200);
    // A browser without fetch metadata sends the origin.
    let typed = [("email", "alice@example.com"), ("code", code.as_str())];
    let request = browser.request(Method::POST, CHECK).header("origin", own).form(&typed);
    assert_leads(&service.send(request).await, "/console/");
}

#[tokio::test]
async fn cookies_are_for_this_host_and_out_of_reach_of_scripts() {
    let service = Service::start_with_manual_clock().await;
    inviting(&service).await;
    let port = service.base_url.rsplit_once(':').unwrap().1;
    let mut browser = service.browser();
    let asked = browser.ask_for_code("alice@example.com").await;
    let cookie = |name: &str| browser.cookie(name).unwrap().to_owned();
    let signing_in = cookie("signing_in");
    assert_eq!(
        asked.header("set-cookie"),
        format!("guard_signing_in_{port}={signing_in}; Path=/; Max-Age=900; HttpOnly; SameSite=Lax")
    );
    let code = mailed_code(&service, "alice@example.com");
    let entered = browser.send_code("alice@example.com", &code).await;
    let cookie = |name: &str| browser.cookie(name).unwrap().to_owned();
    let mut set: Vec<_> = entered.headers.get_all("set-cookie").iter().map(|value| value.to_str().unwrap()).collect();
    set.sort_unstable();
    let attributes = "HttpOnly; SameSite=Lax";
    assert_eq!(
        set,
        [
            format!("guard_device_{port}={}; Path=/; Max-Age=15552000; {attributes}", cookie("device")),
            format!("guard_session_{port}={}; Path=/; Max-Age=86400; {attributes}", cookie("session")),
            format!("guard_signing_in_{port}=; Path=/; Max-Age=0; {attributes}"),
        ]
    );
    assert!(Token::parse(&cookie("session")).is_some_and(|token| token.kind() == TokenKind::Session));
    // The other cookies open nothing.
    for other in [signing_in, cookie("device")] {
        let mut browser = service.browser();
        browser.cookies.insert(service.cookie_name("session"), other);
        assert!(!is_signed_in(&mut browser).await);
    }
    // Asking again keeps the browser's secrets.
    let (device, mut again) = (cookie("device"), browser.clone());
    again.sign_in("alice@example.com").await;
    assert_eq!(again.cookie("device"), Some(device.as_str()));
    // Signing out removes the session's.
    let page = again.get("/console/account").await;
    let signed_out = again.submit("/console/sign-out", &[("form_token", &hidden(&page.text, "form_token"))]).await;
    assert_leads(&signed_out, "/console/sign-in?signed_out");
    assert_eq!(signed_out.header("set-cookie"), format!("guard_session_{port}=; Path=/; Max-Age=0; {attributes}"));
    assert_page(&again.get("/console/sign-in?signed_out").await, 200, "You are signed out.");
}

#[tokio::test]
async fn session_ends_after_8_idle_hours_and_24_hours_after_sign_in() {
    let service = Service::start_with_manual_clock().await;
    inviting(&service).await;
    let mut browser = service.browser();
    browser.sign_in("alice@example.com").await;
    service.clock.advance(8 * HOUR - Duration::from_secs(1));
    assert!(is_signed_in(&mut browser).await);
    for _ in 0..2 {
        service.clock.advance(7 * HOUR);
        assert!(is_signed_in(&mut browser).await);
    }
    service.clock.advance(2 * HOUR);
    assert!(is_signed_in(&mut browser).await);
    service.clock.advance(Duration::from_secs(1));
    let ended = browser.get("/console/account").await;
    assert_leads(&ended, "/console/sign-in?return_to=/console/account");
    browser.sign_in("alice@example.com").await;
    service.clock.advance(8 * HOUR);
    assert!(!is_signed_in(&mut browser).await);
}

#[tokio::test]
async fn person_without_membership_and_invitation_is_sent_to_sign_in() {
    let service = Service::start_with_manual_clock().await;
    let org = service.org().await;
    let member = service.member(&org, &[Role::Member]).await;
    let id = service.store.membership(member.person.id, &org.id).await.unwrap().unwrap().id;
    service.store.remove_member(&org.id, &id, Authority::Operator, &operator()).await.unwrap();
    for path in ["/console/organizations", "/console/account", &org.page("")] {
        let answer = member.get(path).await;
        assert_leads(&answer, &format!("/console/sign-in?return_to={path}"));
        // Which does not lead back.
        let page = member.get(answer.header("location")).await;
        assert_page(&page, 200, "Nobody has invited this address yet");
        assert!(page.text.contains(">Send code<"));
    }
    let email = member.person.email.expose();
    let mut browser = service.browser();
    assert_eq!(browser.ask_for_code(email).await.status, 200);
    assert!(service.person(email).mails().is_empty());
    // An invitation is enough; a code for one that was withdrawn meanwhile is not.
    invite(&service, &org, email).await;
    assert_leads(&member.get("/console/sign-in").await, "/console/");
    browser.ask_for_code(email).await;
    let invitation = service.store.invitation(&member.person.email, &org.id).await.unwrap().unwrap();
    service.store.remove_member(&org.id, &invitation.id, Authority::Operator, &operator()).await.unwrap();
    let code = mailed_code(&service, email);
    assert_page(&browser.send_code(email, &code).await, 400, WRONG);
    assert_eq!(browser.cookie("session"), None);
    invite(&service, &org, email).await;
    service.clock.advance(7 * 24 * HOUR);
    let mails = service.person(email).mails().len();
    browser.ask_for_code(email).await;
    assert_eq!(service.person(email).mails().len(), mails, "the invitation has lapsed");
}

#[tokio::test]
async fn pages_and_mail_are_in_the_language_of_the_browser() {
    let service = Service::start_with_manual_clock().await;
    inviting(&service).await;
    let mut browser = service.browser();
    for (languages, lang, language) in [
        ("ja,en;q=0.5", "ja", Language::Ja),
        ("en-US,en;q=0.9,ja;q=0.8", "en", Language::En),
        ("fr", "en", Language::En),
        ("ja-JP", "ja", Language::Ja),
    ] {
        browser.languages = languages;
        let tag = format!("<html lang=\"{lang}\">");
        assert_page(&browser.get("/console/sign-in?failed").await, 200, &tag);
        assert_page(&browser.ask_for_code("alice@example.com").await, 200, &tag);
        assert_eq!(kind_of(&service.person("alice@example.com").newest_mail()), (Kind::SignInCode, language));
        assert_page(&browser.send_code("alice@example.com", "0").await, 400, &tag);
        assert_page(&browser.submit(ASK, &[("email", "x")]).await, 400, &tag);
        assert_page(&browser.get("/console/nowhere").await, 404, &tag);
    }
}

#[tokio::test]
async fn failure_is_told_when_the_provider_leads_back() {
    let service = Service::start_with_manual_clock().await;
    for (query, shown) in [
        ("?failed", "Signing in failed. Try again."),
        ("?unverified", "Your identity provider has not verified your email address."),
        ("?signed_out&unknown=1", "You are signed out."),
    ] {
        assert_page(&service.browser().get(&format!("/console/sign-in{query}")).await, 200, shown);
    }
}

#[tokio::test]
async fn only_the_ways_that_are_on_are_offered() {
    let service = Service::start_with_manual_clock().await;
    let link = "href=\"/console/sign-in/provider?return_to=/console/account\"";
    for (sign_in, by_mail, by_provider) in
        [(SignIn::Mail, true, false), (SignIn::Provider, false, true), (SignIn::Both, true, true)]
    {
        let functions = service.deployed(sign_in);
        let call = async |function: &str, method: &str, path: &str, body: &str| {
            let request = Request::builder().method(method).uri(path).header("sec-fetch-site", "same-origin");
            let request = request.header("content-type", "application/x-www-form-urlencoded");
            let mut request = request.body(Body::from(body.to_owned())).unwrap();
            request.extensions_mut().insert(Origin { request_id: "1".to_owned(), source_ip: None });
            let response = functions[function].clone().oneshot(request).await.unwrap();
            let status = response.status().as_u16();
            let cookie = response.headers().get("set-cookie").map(|cookie| cookie.to_str().unwrap().to_owned());
            let text = String::from_utf8(to_bytes(response.into_body(), 100_000).await.unwrap().into()).unwrap();
            (status, cookie.unwrap_or_default(), text)
        };
        let path = "/console/sign-in?return_to=/console/account";
        let (status, _, page) = call("sign-in-start", "GET", path, "").await;
        assert_eq!((status, page.contains(">Send code<"), page.contains(link)), (200, by_mail, by_provider), "{page}");
        let (status, cookie, _) = call("sign-in-code", "POST", ASK, "email=alice@example.com").await;
        assert_eq!(status, if by_mail { 200 } else { 404 });
        // Over HTTPS, cookies are bound to it and to the host.
        assert_eq!(cookie.starts_with("__Host-guard_signing_in=gs_"), by_mail, "{cookie}");
        assert_eq!(cookie.ends_with("; HttpOnly; SameSite=Lax; Secure"), by_mail, "{cookie}");
        let (status, ..) = call("sign-in-code", "POST", CHECK, "email=alice@example.com&code=0").await;
        assert_eq!(status, if by_mail { 400 } else { 404 });
    }
}

#[tokio::test]
async fn every_answer_below_the_console_has_the_headers_of_pages() {
    let service = Service::start_with_manual_clock().await;
    let org = inviting(&service).await;
    let mut browser = service.browser();
    let mut answers = vec![
        browser.get("/console/sign-in").await,
        browser.ask_for_code("alice@example.com").await,
        browser.send_code("alice@example.com", "0").await,
        browser.submit(ASK, &[("email", "x")]).await,
        browser.get("/console/account").await,
        browser.get("/console/nowhere").await,
        browser.get(ASK).await,
        service.send(service.request(Method::POST, ASK)).await,
        service.send(service.request(Method::DELETE, "/console/sign-in")).await,
    ];
    answers.push(browser.sign_in("alice@example.com").await);
    answers.push(browser.get("/console/account").await);
    answers.push(browser.get(&format!("/console/account/invitations/{}", org.id)).await);
    for answer in &answers {
        let policy = answer.header("content-security-policy");
        assert!(policy.starts_with("default-src 'none'; ") && !policy.contains("unsafe"), "{policy}");
        for directive in ["frame-ancestors 'none'", "form-action 'self'", "base-uri 'none'"] {
            assert!(policy.contains(directive), "{policy}");
        }
        for (name, value) in [
            ("cache-control", "no-store"),
            ("x-content-type-options", "nosniff"),
            ("referrer-policy", "same-origin"),
            ("x-frame-options", "DENY"),
            ("cross-origin-opener-policy", "same-origin"),
        ] {
            assert_eq!(answer.header(name), value, "{name}: {} {}", answer.status, answer.text);
        }
        assert!(!answer.header("x-request-id").is_empty());
        assert!(!answer.text.contains("<script>") && !answer.text.contains("style=\""), "{}", answer.text);
    }
}

#[tokio::test]
async fn unknown_paths_methods_and_bodies_are_answered_with_pages() {
    let service = Service::start_with_manual_clock().await;
    let org = inviting(&service).await;
    let send = async |method: &str, path: &str| {
        let request = service.request(method.parse().unwrap(), path).header("sec-fetch-site", "same-origin");
        service.send(request).await
    };
    for path in
        ["/console/nowhere", "/console/sign-in/", "/console/sign-in/nowhere", "/console/o", "/console/assets/x.css"]
    {
        assert_page(&send("GET", path).await, 404, "Page not found");
    }
    for (method, path) in [
        ("POST", "/console/sign-in"),
        ("DELETE", "/console/sign-in"),
        ("PUT", ASK),
        ("PATCH", CHECK),
        ("GET", "/console/sign-out"),
        ("POST", "/console/account"),
    ] {
        let answer = send(method, path).await;
        assert_page(&answer, 405, "This page takes no such request");
        assert!(!answer.header("allow").is_empty());
    }
    for path in [ASK, CHECK] {
        assert_leads(&send("GET", path).await, "/console/sign-in");
        for body in [json!({"email": "alice@example.com"}).to_string(), String::new()] {
            let request = service.request(Method::POST, path).header("sec-fetch-site", "same-origin");
            let answer = service.send(request.header("content-type", "application/json").body(body)).await;
            assert_page(&answer, 415, "This page takes no such request");
        }
    }
    let member = service.member(&org, &[Role::Owner]).await;
    for path in ["/console/account/invitations/%ff", "/console/account?saved=1&saved=2", "/console/o/%ff/tokens"] {
        assert_page(&member.get(path).await, 404, "Page not found");
    }
    let request = member.request(Method::POST, "/console/sign-out").json(&json!({}));
    assert_page(&service.send(request).await, 415, "This page takes no such request");
    let request = service.request(Method::POST, ASK).header("sec-fetch-site", "same-origin");
    let answer = service.send(request.form(&[("email", "a".repeat(200_000))])).await;
    assert!(answer.status.is_client_error(), "{}", answer.status);
    assert_eq!(answer.header("content-type"), "text/html; charset=utf-8");
}

#[tokio::test]
async fn routes_of_the_api_never_read_the_cookie() {
    let service = Service::start_with_manual_clock().await;
    let fixtures = Fixtures::create(&service).await;
    let owner = service.member(&fixtures.org, &[Role::Owner]).await;
    let secret = owner.secret.expose();
    let mut checked = 0;
    for covered in routed().filter(|covered| !matches!(covered.guard, Guard::None | Guard::Signed)) {
        let request = || covered.request(&service, &fixtures);
        let alone = service.send(request()).await;
        assert_eq!(alone.status, 401, "{}", covered.operation.name());
        let with_cookie = request().header("cookie", owner.cookie()).header("sec-fetch-site", "same-origin");
        let basic = request().basic_auth("x", Some(secret));
        for request in [with_cookie, request().bearer_auth(secret), basic, request().header("x-api-key", secret)] {
            let answer = service.send(request).await;
            assert_eq!(answer.status, 401, "{}: {}", covered.operation.name(), answer.text);
            assert_eq!(answer.header("set-cookie"), "");
        }
        checked += 1;
    }
    assert!(checked > 15, "{checked}");
    for path in ["/npm/widgets", "/pypi/simple/widgets/"] {
        let with_cookie = service.request(Method::GET, path).header("cookie", owner.cookie());
        for request in [with_cookie, service.request(Method::GET, path).bearer_auth(secret)] {
            let answer = service.send(request).await;
            assert!([401, 404].contains(&answer.status.as_u16()), "{path}: {}", answer.status);
        }
    }
    let whoami = service.request(Method::GET, "/v1/whoami").header("cookie", owner.cookie());
    service.send(whoami).await.assert_error(401, "UNAUTHORIZED");
    assert_eq!(service.whoami(secret).await.status, 401);
}

#[tokio::test]
async fn credentials_of_the_api_open_no_page() {
    let service = Service::start_with_manual_clock().await;
    let fixtures = Fixtures::create(&service).await;
    for credential in [&fixtures.owner.credential, &fixtures.token.token, &fixtures.api_key.key] {
        let answer = service.call(Method::GET, "/console/account", credential).await;
        assert_leads(&answer, "/console/sign-in?return_to=/console/account");
        let mut browser = service.browser();
        browser.cookies.insert(service.cookie_name("session"), credential.clone());
        assert!(!is_signed_in(&mut browser).await);
    }
}
