//! The page of the installation log, and its CSV.

use std::net::IpAddr;
use std::time::Duration;

use reqwest::Method;
use shared::domain::Ecosystem;
use shared::ids::TokenId;
use shared::permissions::Role;
use shared::store::installations::{Download, Recorded};
use tests::console::{Visitor, unescaped};
use tests::{Bot, Org, Service, hash_for};

const ALICE: &str = "01KAJ8M4R2X7Z9V5T3Q1N6P8WC";
const HER_OTHER: &str = "01KAJ8M4R2X7Z9V5T3Q1N6P8WD";

async fn log(service: &Service, org: &Org, ecosystem: Ecosystem, package: &str, identifier: &str, token: &str) {
    let download = Download {
        ecosystem,
        package: package.to_owned(),
        version: "1.3.0".to_owned(),
        file: format!("{}-1.3.0.tgz", package.rsplit('/').next().unwrap()),
        user_identifier: Some(identifier.to_owned()),
        subject: None,
        token_id: TokenId::parse(token).unwrap(),
        client: Some("npm".to_owned()),
        client_version: Some("11.6.2".to_owned()),
        command: Some("ci".to_owned()),
        session: Some(format!("{package}-{identifier}-{token}")),
        source_ip: Some(IpAddr::from([203, 0, 113, 7])),
    };
    assert_eq!(
        service.installation_log.record(Some(&org.id), hash_for(&download.token_id), &download).await.unwrap(),
        Recorded::New
    );
    service.clock.advance(Duration::from_secs(1));
}

/// A log of four entries: the third and fourth on the next day.
async fn filled(service: &Service) -> (Org, Bot, Visitor<'_>) {
    let (org, bot) = service.org_with_owner().await;
    log(service, &org, Ecosystem::Npm, "left-pad", "alice+laptop", ALICE).await;
    log(service, &org, Ecosystem::Npm, "@example/a", "alice+laptop", HER_OTHER).await;
    service.clock.advance(Duration::from_secs(24 * 60 * 60));
    log(service, &org, Ecosystem::Pypi, "flask", "alice+laptop", ALICE).await;
    log(service, &org, Ecosystem::Npm, "left-pad", "bobby-ci", ALICE).await;
    let visitor = service.member(&org, &[Role::Manager]).await;
    (org, bot, visitor)
}

/// The files on a page.
fn files(page: &str) -> Vec<String> {
    let cells = page.split("<span class=\"sub\">").skip(1).filter_map(|cell| cell.split(" · ").nth(1));
    cells.map(|cell| cell.split('<').next().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn entries_are_searched_by_package_ecosystem_identifier_token_and_day() {
    let service = Service::start_with_manual_clock().await;
    let (org, _, visitor) = filled(&service).await;
    let of_token = format!("?user_identifier=alice%2Blaptop&token_id={ALICE}");
    let only_token = format!("?token_id={HER_OTHER}");
    for (query, expected) in [
        ("", &["left-pad", "flask", "a", "left-pad"][..]),
        ("?package=&ecosystem=&user_identifier=&from=&to=", &["left-pad", "flask", "a", "left-pad"]),
        ("?package=+left-pad+", &["left-pad", "left-pad"]),
        ("?package=@example/a", &["a"]),
        ("?ecosystem=pypi", &["flask"]),
        ("?user_identifier=bobby-ci", &["left-pad"]),
        ("?user_identifier=alice%2Blaptop", &["flask", "a", "left-pad"]),
        (&of_token, &["flask", "left-pad"]),
        // Without an identifier there is no index that finds it.
        (&only_token, &["left-pad", "flask", "a", "left-pad"]),
        ("?from=2026-11-21&to=2026-11-21", &["a", "left-pad"]),
        ("?from=2026-11-22", &["left-pad", "flask"]),
        ("?to=2026-11-20", &[]),
        ("?package=left+pad", &[]),
        ("?user_identifier=a%23b", &[]),
        ("?ecosystem=maven", &[]),
        ("?unknown=1", &["left-pad", "flask", "a", "left-pad"]),
    ] {
        let page = visitor.get(&org.page(&format!("installations{query}"))).await;
        assert_eq!(page.status, 200, "{query}: {}", page.text);
        let expected: Vec<String> = expected.iter().map(|name| format!("{name}-1.3.0.tgz")).collect();
        assert_eq!(files(&page.text), expected, "{query}");
        assert_eq!(page.text.contains("Nothing in the last 14 days matches"), expected.is_empty(), "{query}");
    }
    let page = visitor.get(&org.page("installations")).await;
    for shown in ["alice+laptop", "npm 11.6.2", "<code>ci</code>", "203.0.113.7", "2026-11-22T10:00:03Z", "PyPI"] {
        assert!(unescaped(&page.text).contains(shown), "{shown}: {}", page.text);
    }
}

/// From a token to its installations and back.
#[tokio::test]
async fn tokens_and_their_installations_lead_to_each_other() {
    let service = Service::start_with_manual_clock().await;
    let (org, bot) = service.org_with_owner().await;
    let token = service.issue(&org, &bot, "alice+laptop").await;
    log(&service, &org, Ecosystem::Npm, "left-pad", "alice+laptop", &token.id).await;
    log(&service, &org, Ecosystem::Npm, "other", "alice+laptop", ALICE).await;
    let visitor = service.member(&org, &[Role::Manager]).await;
    let link = |page: &str, path: &str| {
        let page = unescaped(page);
        let at = page.find(&format!("href=\"{path}?")).unwrap_or_else(|| panic!("{path}: {page}"));
        page[at + 6..].split('"').next().unwrap().to_owned()
    };
    let tokens = visitor.get(&org.page("tokens")).await;
    let installations = visitor.get(&link(&tokens.text, &org.page("installations"))).await;
    assert_eq!(files(&installations.text), ["left-pad-1.3.0.tgz"]);
    assert!(installations.text.contains(&format!("Only with the token {}", token.id)), "{}", installations.text);
    let back = visitor.get(&link(&installations.text, &org.page("tokens"))).await;
    assert!(back.text.contains(&token.id) && back.text.contains("alice+laptop"), "{}", back.text);
}

/// A CI job has no user identifier.
#[tokio::test]
async fn job_is_shown_in_place_of_a_person_and_leads_to_the_bots() {
    let service = Service::start_with_manual_clock().await;
    let org = service.org().await;
    let job = "repo:acme/<b>widgets</b>:ref:refs/heads/main";
    log(&service, &org, Ecosystem::Npm, "left-pad", "alice+laptop", ALICE).await;
    let download = Download {
        ecosystem: Ecosystem::Npm,
        package: "other".to_owned(),
        version: "1.0.0".to_owned(),
        file: "other-1.0.0.tgz".to_owned(),
        user_identifier: None,
        subject: Some(job.to_owned()),
        token_id: TokenId::parse(HER_OTHER).unwrap(),
        client: None,
        client_version: None,
        command: None,
        session: None,
        source_ip: None,
    };
    assert_eq!(
        service.installation_log.record(Some(&org.id), hash_for(&download.token_id), &download).await.unwrap(),
        Recorded::New
    );
    let owner = service.member(&org, &[Role::Owner]).await;
    let page = owner.get(&org.page("installations")).await;
    assert!(!page.text.contains("<b>"), "{}", page.text);
    let link = format!("<a href=\"{}\">{job}</a>", org.page("bots"));
    assert!(unescaped(&page.text).contains(&link), "{link}: {}", page.text);
    assert_eq!(page.text.matches(&format!("href=\"{}?", org.page("tokens"))).count(), 1, "{}", page.text);
    assert_eq!(owner.get(&org.page("bots")).await.status, 200);
    // Others may not open that page.
    let manager = service.member(&org, &[Role::Manager]).await;
    let page = manager.get(&org.page("installations")).await;
    assert!(unescaped(&page.text).contains(job) && !page.text.contains(&org.page("bots")), "{}", page.text);
}

#[tokio::test]
async fn pages_follow_each_other_with_the_same_filters() {
    let service = Service::start_with_manual_clock().await;
    let org = service.org().await;
    for n in 0..55 {
        log(&service, &org, Ecosystem::Npm, &format!("package-{n}"), "alice+laptop", ALICE).await;
    }
    let visitor = service.member(&org, &[Role::Owner]).await;
    let first = visitor.get(&org.page("installations?user_identifier=alice%2Blaptop")).await;
    assert_eq!(files(&first.text).len(), 50);
    let next = |page: &str| {
        let link = unescaped(page).split("\" rel=\"next\"").next().unwrap().to_owned();
        link.rsplit("href=\"").next().unwrap().to_owned()
    };
    let second = visitor.get(&next(&first.text)).await;
    assert_eq!(files(&second.text), ["4", "3", "2", "1", "0"].map(|n| format!("package-{n}-1.3.0.tgz")));
    assert!(!second.text.contains("rel=\"next\"") && second.text.contains("First page"), "{}", second.text);
    let other = next(&first.text).replace("alice", "bobby");
    assert_eq!(visitor.get(&other).await.status, 400);
}

#[tokio::test]
async fn csv_is_that_of_the_api_byte_for_byte() {
    let service = Service::start_with_manual_clock().await;
    let (org, bot, visitor) = filled(&service).await;
    let api = async |query: &str| {
        let request = service.request(Method::GET, &org.installations(query)).bearer_auth(&bot.credential);
        service.send(request.header("accept", "text/csv")).await
    };
    for (query, of_api) in [
        ("", ""),
        ("?package=left-pad", "?package=left-pad"),
        ("?user_identifier=alice%2Blaptop&ecosystem=npm", "?user_identifier=alice%2Blaptop&ecosystem=npm"),
        ("?from=2026-11-21&to=2026-11-21", "?from=2026-11-21T00:00:00Z&to=2026-11-22T00:00:00Z"),
        ("?package=nothing", "?package=nothing"),
        ("?package=no+name", "?package=nothing"),
    ] {
        let page = visitor.get(&org.page(&format!("installations{query}"))).await;
        let link = unescaped(&page.text);
        let link = link.split("href=\"").find(|rest| rest.contains("installations.csv")).unwrap();
        let csv = visitor.get(link.split('"').next().unwrap()).await;
        let expected = api(of_api).await;
        assert_eq!((csv.status, &csv.text), (expected.status, &expected.text), "{query}");
        for header in ["content-type", "link"] {
            assert_eq!(csv.header(header), expected.header(header), "{query}");
        }
    }
    let limited = visitor.get(&org.page("installations.csv?limit=3")).await;
    let expected = api("?limit=3").await;
    assert_eq!((&limited.text, limited.header("link")), (&expected.text, expected.header("link")));
    let rest = limited.header("link").strip_prefix('<').unwrap().split('>').next().unwrap().to_owned();
    let rest = visitor.get(&org.page(&format!("installations.csv{rest}"))).await;
    assert_eq!(rest.text.lines().count(), 2, "{}", rest.text);
    let of_token = format!("installations.csv?user_identifier=alice%2Blaptop&token_id={HER_OTHER}");
    assert_eq!(visitor.get(&org.page(&of_token)).await.text.lines().count(), 2);
    assert_eq!(visitor.get(&org.page("installations.csv?from=yesterday")).await.status, 400);
}

#[tokio::test]
async fn day_that_is_none_is_an_error_beside_its_field() {
    let service = Service::start_with_manual_clock().await;
    let (org, _, visitor) = filled(&service).await;
    for field in ["from", "to"] {
        let typed = "\"><script>";
        let path = org.page(&format!("installations?{field}=%22%3E%3Cscript%3E&package=left-pad"));
        let page = visitor.get(&path).await;
        assert_eq!(page.status, 400, "{}", page.text);
        let error = page.text.split(&format!("id=\"{field}-error\"")).nth(1).unwrap().split("</p>").next().unwrap();
        assert!(error.contains("Enter a day, such as 2026-11-21."), "{error}");
        assert!(!page.text.contains(typed) && page.text.contains("value=\"left-pad\""), "{}", page.text);
    }
}

#[tokio::test]
async fn stored_text_is_escaped() {
    let service = Service::start_with_manual_clock().await;
    let org = service.org().await;
    log(&service, &org, Ecosystem::Npm, "<script>alert(1)</script>", "alice+laptop", ALICE).await;
    let page = service.member(&org, &[Role::Owner]).await.get(&org.page("installations")).await;
    assert!(!page.text.contains("<script>alert") && page.text.contains("&#60;script&#62;alert"), "{}", page.text);
}

#[tokio::test]
async fn empty_log_says_what_to_do() {
    let service = Service::start_with_manual_clock().await;
    let org = service.org().await;
    let page = service.member(&org, &[Role::Owner]).await.get(&org.page("installations")).await;
    let curl = format!("{}/v1/o/{}/guard/installations", service.base_url, org.id);
    for shown in ["No installations", "Set up a package manager with a token", &curl] {
        assert!(page.text.contains(shown), "{shown}: {}", page.text);
    }
}

#[tokio::test]
async fn without_guard_the_page_says_why_nothing_is_shown() {
    let service = Service::start_with_manual_clock().await;
    let (org, _, visitor) = filled(&service).await;
    service.set_guard(&org.id, false).await;
    let page = visitor.get(&org.page("installations")).await;
    assert_eq!(page.status, 403, "{}", page.text);
    assert!(page.text.contains("Guard is not active") && files(&page.text).is_empty(), "{}", page.text);
    let csv = visitor.get(&org.page("installations.csv")).await;
    assert!(csv.status == 403 && !csv.text.contains("left-pad"), "{}", csv.text);
}

#[tokio::test]
async fn only_those_who_may_read_the_log_see_it() {
    let service = Service::start_with_manual_clock().await;
    let (org, ..) = filled(&service).await;
    let other = service.org().await;
    for &role in Role::ALL {
        let visitor = service.member(&org, &[role]).await;
        let reads = matches!(role, Role::Owner | Role::Manager);
        for page in ["installations", "installations.csv"] {
            let answer = visitor.get(&org.page(page)).await;
            assert_eq!(answer.status, if reads { 200 } else { 403 }, "{role:?} {page}");
            assert_eq!(answer.text.contains("left-pad"), reads, "{role:?} {page}");
            assert_eq!(visitor.get(&other.page(page)).await.status, 404, "{role:?} {page}");
        }
        let link = format!("href=\"{}\"", org.page("installations"));
        assert_eq!(visitor.get(&org.page("")).await.text.contains(&link), reads, "{role:?}");
    }
}
