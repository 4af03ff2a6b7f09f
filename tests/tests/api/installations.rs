//! `GET /v1/o/{org_id}/guard/installations`, and the installation log behind it.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use futures::{StreamExt, stream};
use reqwest::Method;
use serde_json::{Value, json};
use shared::Moment;
use shared::cost::{Cost, metered};
use shared::domain::Ecosystem;
use shared::ids::{OrgId, TokenId};
use shared::permissions::Role;
use shared::store::installations::{Download, Recorded};
use tests::coverage::all_scopes;
use tests::faults::Fault;
use tests::paging::List;
use tests::table::text;
use tests::{Bot, Org, Service, hash_for};

const SECOND: Duration = Duration::from_secs(1);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// The columns of the log.
const COLUMNS: [&str; 13] = [
    "time",
    "ecosystem",
    "package",
    "version",
    "file",
    "user_identifier",
    "token_id",
    "client",
    "client_version",
    "command",
    "session",
    "source_ip",
    "subject",
];

/// A download by npm in the given session.
fn download(package: &str, user_identifier: &str, session: &str) -> Download {
    Download {
        ecosystem: Ecosystem::Npm,
        package: package.to_owned(),
        version: "1.3.0".to_owned(),
        file: format!("{}-1.3.0.tgz", package.rsplit('/').next().unwrap()),
        user_identifier: Some(user_identifier.to_owned()),
        subject: None,
        token_id: TokenId::parse("01KAJ8M4R2X7Z9V5T3Q1N6P8WC").unwrap(),
        client: Some("npm".to_owned()),
        client_version: Some("11.6.2".to_owned()),
        command: Some("ci".to_owned()),
        session: Some(session.to_owned()),
        source_ip: Some(IpAddr::from([203, 0, 113, 7])),
    }
}

/// A download by pip, which sends no session.
fn without_session(package: &str) -> Download {
    let file = format!("{package}-2.0-py3-none-any.whl");
    let pip = download(package, "alice-laptop", "");
    Download { ecosystem: Ecosystem::Pypi, file, client: Some("pip".to_owned()), command: None, session: None, ..pip }
}

async fn record(service: &Service, org: &Org, download: &Download) -> Recorded {
    service.installation_log.record(Some(&org.id), hash_for(&download.token_id), download).await.unwrap()
}

/// Logs a download and asserts that it is new.
async fn log(service: &Service, org: &Org, download: &Download) {
    assert_eq!(record(service, org, download).await, Recorded::New, "{download:?}");
}

/// Logs downloads concurrently.
async fn log_all(service: &Service, org: &Org, downloads: impl IntoIterator<Item = Download>) {
    let logged = stream::iter(downloads).map(|download| async move { log(service, org, &download).await });
    logged.buffer_unordered(16).collect::<()>().await;
}

/// Reads all pages of a log; `query` follows `?limit=…`.
async fn read(service: &Service, org: &Org, owner: &Bot, limit: usize, query: &str) -> Vec<Value> {
    List::new(service, org.installations(""), &owner.credential, "installations").all(limit, query).await
}

/// Fills a log, one entry per second, with combinations of user, package and ecosystem.
async fn long_log(service: &Service, org: &Org, entries: usize) {
    let (packages, users) = (["left-pad", "@example/a", "Foo.Bar"], ["alice", "bobby", "carol", "@dave"]);
    for n in 0..entries {
        let ecosystem = Ecosystem::ALL[n / 2 % 2];
        let of = download(packages[n % packages.len()], users[n / 5 % users.len()], &format!("run-{n}"));
        log(service, org, &Download { ecosystem, ..of }).await;
        service.clock.advance(SECOND);
    }
}

/// The sessions, which identify the entries of [`long_log`].
fn sessions(entries: &[Value]) -> Vec<&str> {
    entries.iter().map(|entry| text(entry, "session")).collect()
}

#[tokio::test]
async fn entry_records_user_package_and_client() {
    let service = Service::start_with_manual_clock().await;
    let (org, owner) = service.org_with_owner().await;
    assert_eq!(
        service.installations(&org, &owner.credential, "").await,
        json!({"installations": [], "next_cursor": null})
    );
    log(&service, &org, &download("@example/left-pad", "alice-laptop", "8c1f3e0d52a9b764")).await;
    service.clock.advance(SECOND);
    let bare = Download { client: None, client_version: None, source_ip: None, ..without_session("Flask_SQLAlchemy") };
    log(&service, &org, &bare).await;
    service.clock.advance(SECOND);
    let job = "repo:acme/widgets:ref:refs/heads/main".to_owned();
    let in_ci = Download { user_identifier: None, subject: Some(job), ..download("@example/right-pad", "", "ci") };
    log(&service, &org, &in_ci).await;
    let expected = json!({
        "installations": [
            {
                "time": "2026-11-21T10:00:02Z", "ecosystem": "npm", "package": "@example/right-pad", "version": "1.3.0",
                "file": "right-pad-1.3.0.tgz", "user_identifier": null,
                "token_id": "01KAJ8M4R2X7Z9V5T3Q1N6P8WC", "client": "npm", "client_version": "11.6.2", "command": "ci",
                "session": "ci", "source_ip": "203.0.113.7", "subject": "repo:acme/widgets:ref:refs/heads/main",
            },
            {
                "time": "2026-11-21T10:00:01Z", "ecosystem": "pypi", "package": "flask-sqlalchemy", "version": "1.3.0",
                "file": "Flask_SQLAlchemy-2.0-py3-none-any.whl", "user_identifier": "alice-laptop",
                "token_id": "01KAJ8M4R2X7Z9V5T3Q1N6P8WC", "client": null, "client_version": null, "command": null,
                "session": null, "source_ip": null, "subject": null,
            },
            {
                "time": "2026-11-21T10:00:00Z", "ecosystem": "npm", "package": "@example/left-pad", "version": "1.3.0",
                "file": "left-pad-1.3.0.tgz", "user_identifier": "alice-laptop",
                "token_id": "01KAJ8M4R2X7Z9V5T3Q1N6P8WC", "client": "npm", "client_version": "11.6.2", "command": "ci",
                "session": "8c1f3e0d52a9b764", "source_ip": "203.0.113.7", "subject": null,
            },
        ],
        "next_cursor": null,
    });
    assert_eq!(service.installations(&org, &owner.credential, "").await, expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn filters_combine_at_any_page_size() {
    let service = Service::start_with_manual_clock().await;
    let (org, owner) = service.org_with_owner().await;
    let (other, _) = service.org_with_owner().await;
    long_log(&service, &org, 45).await;
    log(&service, &other, &download("left-pad", "alice", "elsewhere")).await;
    let all = read(&service, &org, &owner, 100, "").await;
    assert_eq!(sessions(&all), (0..45).rev().map(|n| format!("run-{n}")).collect::<Vec<_>>());
    let (from, to) = ("2026-11-21T10:00:10Z", "2026-11-21T10:00:40Z");
    for package in [None, Some("@example/a"), Some("Foo.Bar"), Some("FOO__bar"), Some("left")] {
        for ecosystem in [None, Some("npm"), Some("pypi")] {
            for user in [None, Some("@dave"), Some("alice2")] {
                for times in [(None, None), (Some(from), Some(to))] {
                    let parts = [
                        ("package", package),
                        ("ecosystem", ecosystem),
                        ("user_identifier", user),
                        ("from", times.0),
                        ("to", times.1),
                    ];
                    let query: String = parts
                        .iter()
                        .filter_map(|(name, value)| value.map(|value| format!("&{name}={value}")))
                        .collect();
                    let finds = |entry: &&Value| {
                        let of_python = entry["ecosystem"] == "pypi";
                        let is_named = |package: &str| match package {
                            "Foo.Bar" | "FOO__bar" if of_python => entry["package"] == "foo-bar",
                            // npm names are compared exactly. PyPI names are normalized, except
                            // that `@` is kept.
                            other => entry["package"] == other,
                        };
                        package.is_none_or(is_named)
                            && ecosystem.is_none_or(|ecosystem| entry["ecosystem"] == ecosystem)
                            && user.is_none_or(|user| entry["user_identifier"] == user)
                            && times.0.is_none_or(|from| text(entry, "time") >= from)
                            && times.1.is_none_or(|to| text(entry, "time") < to)
                    };
                    let expected: Vec<&Value> = all.iter().filter(finds).collect();
                    for limit in [7, 100] {
                        let found = read(&service, &org, &owner, limit, &query).await;
                        assert_eq!(found.iter().collect::<Vec<_>>(), expected, "limit {limit}, {query}");
                    }
                }
            }
        }
    }
    for limit in [3, 44, 45, 46] {
        assert_eq!(read(&service, &org, &owner, limit, "").await, all);
    }
}

#[tokio::test]
async fn from_is_inclusive_and_to_is_exclusive() {
    let service = Service::start_with_manual_clock().await;
    let (org, owner) = service.org_with_owner().await;
    // Three entries: at 10:00:00, 10:00:01 and 10:00:02.
    long_log(&service, &org, 3).await;
    for (query, expected) in [
        ("?from=2026-11-21T10:00:00Z&to=2026-11-21T10:00:03Z", 3),
        ("?from=2026-11-21T10:00:01Z&to=2026-11-21T10:00:02Z", 1),
        ("?from=2026-11-21T10:00:02Z&to=2026-11-21T10:00:02Z", 0),
        ("?from=2026-11-21T10:00:02Z&to=2026-11-21T10:00:00Z", 0),
        ("?from=2026-11-21T10:00:03Z&to=2099-01-01T00:00:00Z", 0),
        ("?from=2026-11-21T11:00:02%2B01:00&to=2026-11-21T05:00:03-05:00", 1),
        ("?from=0001-01-01T00:00:00Z&to=9999-12-31T23:59:59Z", 3),
        ("?from=0001-01-01T00:00:00Z&to=1970-01-01T00:00:00Z", 0),
        ("?to=1969-01-01T00:00:00Z", 0),
        ("?from=2026-11-21T10:00:01Z", 2),
        ("?to=2026-11-21T10:00:01Z", 1),
    ] {
        let page = service.installations(&org, &owner.credential, query).await;
        assert_eq!(page["installations"].as_array().unwrap().len(), expected, "{query}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn paging_during_writes_returns_each_entry_once() {
    let service = Service::start().await;
    let (org, owner) = service.org_with_owner().await;
    let burst = |name: &str| -> Vec<Download> {
        (0..300).map(|n| download(&format!("{name}-{n}"), "ci-runner", name)).collect()
    };
    // Many within the same millisecond.
    log_all(&service, &org, burst("before")).await;
    let before: BTreeSet<String> = burst("before").into_iter().map(|download| download.package).collect();
    let reading = async {
        for limit in [7, 40, 100] {
            let found = read(&service, &org, &owner, limit, "&user_identifier=ci-runner").await;
            let names: BTreeSet<String> = found.iter().map(|entry| text(entry, "package").to_owned()).collect();
            assert_eq!(names.len(), found.len(), "an entry was returned twice");
            assert!(before.is_subset(&names), "an entry was skipped");
            assert!(found.is_sorted_by(|newer, older| text(newer, "time") >= text(older, "time")));
        }
    };
    tokio::join!(log_all(&service, &org, burst("meanwhile")), reading);
    assert_eq!(read(&service, &org, &owner, 100, "").await.len(), 600);
}

// CSV

/// Reads a page as CSV: header, records, and the path of the next page.
async fn read_csv(service: &Service, path: &str, credential: &str) -> (Vec<String>, Vec<Vec<String>>, Option<String>) {
    let request = service.request(Method::GET, path).bearer_auth(credential).header("accept", "text/csv");
    let answer = service.send(request).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    assert_eq!(answer.header("content-type"), "text/csv; charset=utf-8; header=present");
    assert_eq!((answer.header("vary"), answer.header("cache-control")), ("accept", "no-store"));
    assert!(answer.text.ends_with("\r\n"));
    let mut reader = csv::Reader::from_reader(answer.text.as_bytes());
    let header = reader.headers().unwrap().iter().map(str::to_owned).collect();
    let lines = reader.records().map(|line| line.unwrap().iter().map(str::to_owned).collect()).collect();
    let next = answer.header("link").strip_prefix("<").map(|link| link.strip_suffix(">; rel=\"next\"").unwrap());
    (header, lines, next.map(|query| format!("{}{query}", path.split('?').next().unwrap())))
}

#[tokio::test]
async fn csv_has_the_same_columns_and_pages_as_json() {
    let service = Service::start_with_manual_clock().await;
    let (org, owner) = service.org_with_owner().await;
    let empty = read_csv(&service, &org.installations(""), &owner.credential).await;
    assert_eq!(empty, (COLUMNS.map(str::to_owned).to_vec(), vec![], None));
    long_log(&service, &org, 23).await;
    for query in ["", "&package=@example/a&from=2026-11-21T10:00:00Z", "&user_identifier=%40dave&ecosystem=npm"] {
        let mut found = Vec::new();
        let mut path = Some(org.installations(&format!("?limit=5{query}")));
        while let Some(page) = path {
            let (header, lines, next) = read_csv(&service, &page, &owner.credential).await;
            assert_eq!(header, COLUMNS);
            found.extend(lines);
            path = next;
        }
        let entries = read(&service, &org, &owner, 100, query).await;
        let expected: Vec<Vec<&str>> =
            entries.iter().map(|entry| COLUMNS.map(|column| text(entry, column)).to_vec()).collect();
        assert!(!expected.is_empty());
        assert_eq!(found, expected, "{query}");
    }
}

#[tokio::test]
async fn csv_quotes_values_and_neutralizes_formulas() {
    let service = Service::start_with_manual_clock().await;
    let (org, owner) = service.org_with_owner().await;
    let values = [
        ("plain, with comma", "plain, with comma"),
        ("\"quoted\"", "\"quoted\""),
        ("日本語 é", "日本語 é"),
        ("=HYPERLINK(\"https://example.com\")", "'=HYPERLINK(\"https://example.com\")"),
        ("+cmd|' /C calc'!A0", "'+cmd|' /C calc'!A0"),
        ("-1+SUM(A1)", "'-1+SUM(A1)"),
        ("@SUM(1,1)", "'@SUM(1,1)"),
        // Control characters are removed when logging.
        ("two\r\nlines\t", "twolines"),
    ];
    for (n, (sent, _)) in values.iter().enumerate() {
        let nasty = Download { command: Some((*sent).to_owned()), ..download("@example/a", "-dash", &format!("{n}")) };
        log(&service, &org, &nasty).await;
        service.clock.advance(SECOND);
    }
    let (_, mut lines, _) = read_csv(&service, &org.installations(""), &owner.credential).await;
    lines.reverse();
    for (line, (sent, expected)) in lines.iter().zip(values) {
        assert_eq!(line[9], expected, "{sent:?}");
        // Validated names are never formulas, whatever they start with.
        assert_eq!((line[2].as_str(), line[5].as_str()), ("@example/a", "-dash"));
    }
    assert_eq!(lines.len(), values.len());
}

#[tokio::test]
async fn json_is_the_default_unless_csv_is_preferred() {
    let service = Service::start().await;
    let (org, owner) = service.org_with_owner().await;
    for (accept, is_csv) in [
        (&[][..], false),
        (&["*/*"], false),
        (&["application/json"], false),
        (&["image/png"], false),
        (&["text/csv"], true),
        (&["TEXT/CSV; q=0.5"], true),
        (&["text/csv, */*;q=0.1"], true),
        (&["text/csv;q=0.9, application/json"], false),
        (&["application/json;q=0.2, text/csv;q=0.3"], true),
        (&["application/json;q=0.2", "text/csv;q=0.3"], true),
        (&["text/csv;q=0"], false),
    ] {
        let request = service.request(Method::GET, &org.installations("")).bearer_auth(&owner.credential);
        let answer = service.send(accept.iter().fold(request, |request, value| request.header("accept", *value))).await;
        assert_eq!((answer.status.as_u16(), answer.header("vary")), (200, "accept"), "{accept:?}");
        assert_eq!(answer.header("content-type").starts_with("text/csv"), is_csv, "{accept:?}");
    }
    // Errors are JSON regardless of `Accept`.
    let request = service.request(Method::GET, &org.installations("?limit=0")).bearer_auth(&owner.credential);
    service.send(request.header("accept", "text/csv")).await.assert_invalid("limit");
}

// Refusals

#[tokio::test]
async fn cursor_is_rejected_for_any_other_query() {
    let service = Service::start_with_manual_clock().await;
    let (org, owner) = service.org_with_owner().await;
    let (other_org, stranger) = service.org_with_owner().await;
    long_log(&service, &org, 30).await;
    let list = List::new(&service, org.installations(""), &owner.credential, "installations");
    let foreign = List::new(&service, other_org.installations(""), &stranger.credential, "installations");
    let filter = "&package=left-pad&from=2026-11-21T10:00:00Z";
    // Another limit, or the same time in another offset, is the same query.
    let same = [filter, "&package=left-pad&from=2026-11-21T11:00:00%2B01:00&limit=5"];
    let others = [
        "",
        "&package=left-pad",
        "&package=@example/a&from=2026-11-21T10:00:00Z",
        "&package=left-pad&from=2026-11-21T10:00:01Z",
        "&package=left-pad&from=2026-11-21T10:00:00Z&to=2027-01-01T00:00:00Z",
        "&package=left-pad&from=2026-11-21T10:00:00Z&ecosystem=npm",
        "&package=left-pad&from=2026-11-21T10:00:00Z&user_identifier=alice",
        "&user_identifier=left-pad&from=2026-11-21T10:00:00Z",
    ];
    list.assert_cursor_is_bound(&foreign, filter, &same, &others).await;
    // The cursor of another list of the same organization.
    let log = service.audit_log(&org, &owner.credential, "?limit=1").await;
    list.get(&format!("?cursor={}", text(&log, "next_cursor"))).await.assert_invalid("cursor");
}

#[tokio::test]
async fn invalid_query_parameters_are_named() {
    let service = Service::start().await;
    let (org, owner) = service.org_with_owner().await;
    let long = format!("?package={}", "x".repeat(256));
    for (query, field) in [
        ("?packages=left-pad", "packages"),
        ("?package=", "package"),
        ("?package=a&package=b", "package"),
        ("?package=a%20b", "package"),
        ("?package=%00", "package"),
        (long.as_str(), "package"),
        ("?ecosystem=", "ecosystem"),
        ("?ecosystem=cargo", "ecosystem"),
        ("?ecosystem=NPM", "ecosystem"),
        ("?user_identifier=", "user_identifier"),
        ("?user_identifier=bob", "user_identifier"),
        ("?user_identifier=alice%23x", "user_identifier"),
        ("?user=alice", "user"),
        ("?from=yesterday", "from"),
        ("?from=2026-11-21", "from"),
        ("?to=", "to"),
        ("?to=2026-11-21T10:00:00", "to"),
        ("?limit=0", "limit"),
        ("?limit=101", "limit"),
    ] {
        service.call(Method::GET, &org.installations(query), &owner.credential).await.assert_invalid(field);
    }
    // An unencoded `+` arrives as a space.
    for (query, field) in [
        ("?from=2026-11-21T10:00:00+09:00", "from"),
        ("?to=2026-11-21T10:00:00Z&from=2026-11-21T10:00:00+09:00", "from"),
        ("?user_identifier=alice+laptop", "user_identifier"),
    ] {
        let answer = service.call(Method::GET, &org.installations(query), &owner.credential).await;
        answer.assert_invalid(field);
        assert!(answer.text.contains("%2B"), "{}", answer.text);
    }
    let answer = service.call(Method::GET, &org.installations("?limit=0&package=a%2Bb"), &owner.credential).await;
    assert!(!answer.text.contains("%2B"), "{}", answer.text);
}

#[tokio::test]
async fn only_permitted_callers_read_the_log() {
    let service = Service::start().await;
    let (org, owner) = service.org_with_owner().await;
    let (other_org, stranger) = service.org_with_owner().await;
    let get = async |path: &str, credential: &str| service.call(Method::GET, path, credential).await;
    let path = org.installations("");
    for &role in Role::ALL {
        let bot = service.bot(&org, &[role]).await;
        let answer = get(&path, &bot.credential).await;
        match role {
            Role::Owner | Role::Manager => assert_eq!(answer.status, 200, "{role:?}"),
            _ => answer.assert_error(403, "FORBIDDEN"),
        }
    }
    let access = json!({"name": "a", "access_config": {"role": "manager", "all_projects": true}});
    for credential in [
        stranger.credential.clone(),
        service.api_key(&owner.credential, &all_scopes()).await.key,
        service.issue(&org, &owner, "alice").await.token,
        service.access_token(&owner, &access).await.token,
        service.email_token("alice@example.com").await,
    ] {
        get(&path, &credential).await.assert_error(403, "FORBIDDEN");
    }
    // Does not reveal whether the organization exists.
    for id in [other_org.id.as_str(), "OG01KAJ8M4R2X7Z9V5T3Q1N6P8WC", "x", "%00"] {
        let path = format!("/v1/o/{id}/guard/installations");
        get(&path, &owner.credential).await.assert_error(403, "FORBIDDEN");
    }
    get(&path, "nonsense").await.assert_error(401, "UNAUTHORIZED");
    service.set_guard(&org.id, false).await;
    get(&path, &owner.credential).await.assert_error(403, "SUBSCRIPTION_REQUIRED");
}

#[tokio::test]
async fn email_token_downloads_are_in_no_organization_log() {
    let service = Service::start_with_manual_clock().await;
    let (org, owner) = service.org_with_owner().await;
    let of_a_person = Download { user_identifier: None, ..download("left-pad", "", "run-1") };
    let recorded = service.installation_log.record(None, hash_for(&of_a_person.token_id), &of_a_person).await.unwrap();
    assert_eq!(recorded, Recorded::New);
    for query in ["", "?package=left-pad", "?ecosystem=npm"] {
        let page = service.installations(&org, &owner.credential, query).await;
        assert_eq!(page["installations"], json!([]), "{query}");
    }
    let stored = service.table.installations().await;
    assert_eq!((stored.len(), text(&stored[0], "package")), (1, "left-pad"));
    for index in ["org_pk", "user_pk", "package_pk"] {
        assert_eq!(stored[0].get(index), None, "{index}");
    }
}

// Retention and deduplication

#[tokio::test]
async fn entries_are_listed_for_exactly_14_days() {
    let service = Service::start_with_manual_clock().await;
    let (org, owner) = service.org_with_owner().await;
    log(&service, &org, &download("left-pad", "alice", "run-1")).await;
    let stored = service.table.installations().await;
    let at = Moment::parse(text(&stored[0], "time")).unwrap();
    assert_eq!(stored[0]["ttl"], at.epoch_seconds() + 14 * 24 * 60 * 60);
    let count = async || {
        let mut counts = BTreeSet::new();
        for query in ["", "&package=left-pad", "&user_identifier=alice", "&from=2026-11-01T00:00:00Z"] {
            counts.insert(read(&service, &org, &owner, 10, query).await.len());
        }
        counts.into_iter().collect::<Vec<_>>()
    };
    service.clock.advance(DAY * 14);
    assert_eq!(count().await, [1]);
    service.clock.advance(SECOND);
    assert_eq!(count().await, [0]);
    assert_eq!(service.table.installations().await.len(), 1, "the item is still stored");
    // An expired item does not block a new entry.
    log(&service, &org, &download("left-pad", "alice", "run-1")).await;
    assert_eq!(count().await, [1]);
}

#[tokio::test]
async fn repeated_downloads_in_one_session_are_logged_once() {
    let service = Service::start_with_manual_clock().await;
    let (org, owner) = service.org_with_owner().await;
    let first = download("left-pad", "alice", "run-1");
    log(&service, &org, &first).await;
    // However late the retry, and whatever its other headers.
    for _ in 0..3 {
        let again = Download { source_ip: None, client_version: Some("12.0.0".to_owned()), ..first.clone() };
        assert_eq!(record(&service, &org, &again).await, Recorded::Repeated);
        service.clock.advance(DAY * 4);
    }
    for other in [
        download("left-pad", "alice", "run-2"),
        download("right-pad", "alice", "run-1"),
        Download { file: "left-pad-1.3.1.tgz".to_owned(), ..first.clone() },
        Download { ecosystem: Ecosystem::Pypi, ..first.clone() },
        Download { token_id: TokenId::new(&service.clock).unwrap(), ..first.clone() },
    ] {
        log(&service, &org, &other).await;
    }
    assert_eq!(read(&service, &org, &owner, 100, "").await.len(), 6);
}

#[tokio::test]
async fn downloads_without_session_are_deduplicated_within_a_minute() {
    let second = |n: u64| SECOND * u32::try_from(n).unwrap();
    // The position of the first download within the clock's minute must not matter.
    for start in [0, 1, 30, 59] {
        let service = Service::start_with_manual_clock().await;
        let (org, owner) = service.org_with_owner().await;
        let entries = async || read(&service, &org, &owner, 100, "").await.len();
        service.clock.advance(second(start));
        log(&service, &org, &without_session("flask")).await;
        for _ in 0..59 {
            service.clock.advance(SECOND);
            assert_eq!(record(&service, &org, &without_session("flask")).await, Recorded::Repeated, "from {start}");
        }
        service.clock.advance(Duration::from_millis(999));
        assert_eq!(record(&service, &org, &without_session("flask")).await, Recorded::Repeated, "from {start}");
        assert_eq!(entries().await, 1);
        // Another spelling is the same package; another package is not.
        let same = Download { package: "Flask".to_owned(), ..without_session("flask") };
        assert_eq!(record(&service, &org, &same).await, Recorded::Repeated);
        log(&service, &org, &without_session("jinja2")).await;
        service.clock.advance(second(61) - Duration::from_millis(59_999));
        log(&service, &org, &without_session("flask")).await;
        assert_eq!(entries().await, 3);
    }
}

#[tokio::test]
async fn two_clients_or_commands_within_a_minute_are_two_entries() {
    let service = Service::start_with_manual_clock().await;
    let (org, owner) = service.org_with_owner().await;
    let by = |client: &str, command: Option<&str>| Download {
        client: Some(client.to_owned()),
        command: command.map(str::to_owned),
        ..without_session("flask")
    };
    // `uv pip compile`, then `pip install`.
    for download in [by("uv", Some("pip compile")), by("pip", None), by("uv", Some("pip install"))] {
        log(&service, &org, &download).await;
        assert_eq!(record(&service, &org, &download).await, Recorded::Repeated);
        service.clock.advance(SECOND);
    }
    // One client in two versions is one entry.
    let newer = Download { client_version: Some("99.0".to_owned()), ..by("pip", None) };
    assert_eq!(record(&service, &org, &newer).await, Recorded::Repeated);
    assert_eq!(read(&service, &org, &owner, 100, "").await.len(), 3);
}

#[tokio::test]
async fn empty_session_is_treated_as_missing() {
    let service = Service::start_with_manual_clock().await;
    let (org, _) = service.org_with_owner().await;
    let empty = Download { session: Some("\u{7}".to_owned()), ..without_session("flask") };
    log(&service, &org, &empty).await;
    assert_eq!(record(&service, &org, &without_session("flask")).await, Recorded::Repeated);
    service.clock.advance(SECOND * 61);
    log(&service, &org, &empty).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_retries_are_logged_once() {
    let service = Service::start().await;
    let (org, owner) = service.org_with_owner().await;
    for one in [download("left-pad", "alice", "run-1"), without_session("flask")] {
        let recorded = stream::iter(0..50).map(|_| record(&service, &org, &one)).buffer_unordered(50);
        let new = recorded.filter(|recorded| std::future::ready(*recorded == Recorded::New));
        assert_eq!(new.count().await, 1);
    }
    assert_eq!(read(&service, &org, &owner, 100, "").await.len(), 2);
}

#[tokio::test]
async fn lost_answer_on_write_is_not_reported_as_repeated() {
    let (service, faults) = Service::start_with_faults().await;
    let (org, owner) = service.org_with_owner().await;
    let log = shared::store::Store::new(faults.client(), tests::table::TABLE, service.clock.clone())
        .installation_log(tests::table::INSTALLATIONS);
    let record = async |download: Download| log.record(Some(&org.id), hash_for(&download.token_id), &download).await;
    let writes = |call: &tests::faults::Call| call.operation == "PutItem";
    faults.arm_where(writes, &[Fault::LostAfter], None);
    assert_eq!(record(download("left-pad", "alice", "run-1")).await, Ok(Recorded::New));
    faults.arm_where(writes, &[Fault::LostAfter], None);
    assert_eq!(record(without_session("flask")).await, Ok(Recorded::New));
    // Throttled temporarily, then permanently.
    faults.arm_where(writes, &[Fault::NoCapacity, Fault::ServerError], None);
    assert_eq!(record(download("left-pad", "alice", "run-2")).await, Ok(Recorded::New));
    faults.arm(0, &[], Some(Fault::NoCapacity));
    assert!(record(download("left-pad", "alice", "run-3")).await.is_err());
    let answer = service.call(Method::GET, &org.installations(""), &owner.credential).await;
    answer.assert_error(503, "SERVICE_UNAVAILABLE");
    faults.disarm();
    assert_eq!(read(&service, &org, &owner, 100, "").await.len(), 3);
}

// Cost

/// Fills a log with many downloads of one package, nearly all by one user, bypassing the handler.
async fn large_log(service: &Service, org: &Org, entries: usize) {
    let of = |n: usize| {
        let user = if n.is_multiple_of(500) { "alice" } else { "ci-runner" };
        // A token belongs to one organization, so sessions must differ.
        download("left-pad", user, &format!("{}-{n}", org.id))
    };
    log_all(service, org, (0..entries).map(of)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn page_cost_is_independent_of_log_size() {
    let service = Service::start_with_manual_clock().await;
    let (short, short_owner) = service.org_with_owner().await;
    let (long, long_owner) = service.org_with_owner().await;
    large_log(&service, &short, 250).await;
    large_log(&service, &long, 3_000).await;
    // With both ecosystems half of the partitions are empty; an empty one costs half a unit.
    for (filter, partitions) in [
        ("", 16),
        ("&ecosystem=npm", 8),
        ("&package=left-pad", 16),
        ("&package=left-pad&ecosystem=npm", 8),
        ("&user_identifier=ci-runner", 16),
        ("&user_identifier=ci-runner&ecosystem=npm&from=2026-11-21T00:00:00Z&to=2026-11-22T00:00:00Z", 8),
    ] {
        for (limit, most) in [(1, 0.0), (10, 0.0), (50, 6.0), (100, 12.0)] {
            for (org, owner) in [(&short, &short_owner), (&long, &long_owner)] {
                let mut cursor = String::new();
                for _ in 0..2 {
                    let query = org.installations(&format!("?limit={limit}{filter}{cursor}"));
                    let answer = service.call(Method::GET, &query, &owner.credential).await;
                    let (page, cost) = (answer.json(), answer.cost());
                    assert_eq!(page["installations"].as_array().unwrap().len(), limit, "{query}");
                    cursor = format!("&cursor={}", text(&page, "next_cursor"));
                    // Bot and organization, plus half a unit per partition.
                    let least = 2.0 + f64::from(partitions) * 0.5;
                    assert!((least..=least + most + 2.0).contains(&cost.read), "{query}: {cost:?}");
                    assert_eq!(cost.write, 0.0);
                    assert!(cost.calls <= 2 + 2 * partitions, "{query}: {cost:?}");
                }
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sparse_searches_page_at_bounded_cost() {
    let service = Service::start_with_manual_clock().await;
    let (org, owner) = service.org_with_owner().await;
    large_log(&service, &org, 3_000).await;
    let (mut found, mut cursor, mut calls) = (0, String::new(), 0);
    loop {
        let query = org.installations(&format!("?package=left-pad&user_identifier=alice&limit=5{cursor}"));
        let answer = service.call(Method::GET, &query, &owner.credential).await;
        let page = answer.json();
        assert!(answer.cost().read < 200.0 && answer.cost().calls <= 2 + 10 * 16, "{:?}", answer.cost());
        calls += 1;
        for entry in page["installations"].as_array().unwrap() {
            assert_eq!(entry["user_identifier"], "alice");
            found += 1;
        }
        match page["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    assert_eq!(found, 6);
    assert!((2..=20).contains(&calls), "{calls} calls");
}

#[tokio::test]
async fn entry_costs_one_write_plus_one_per_index_and_one_of_its_counter() {
    let service = Service::start_with_manual_clock().await;
    let (org, _) = service.org_with_owner().await;
    let cost = async |org: Option<&OrgId>, download: Download| {
        let token = hash_for(&download.token_id);
        let (recorded, cost) = metered(service.installation_log.record(org, token, &download)).await;
        (recorded.unwrap(), cost)
    };
    let of = |calls, read, write| Cost { read, write, calls };
    let own = download("left-pad", "alice", "run-1");
    assert_eq!(cost(Some(&org.id), own.clone()).await, (Recorded::New, of(3, 1.0, 5.0)));
    assert_eq!(cost(Some(&org.id), own).await, (Recorded::Repeated, of(1, 1.0, 0.0)));
    let of_a_person = Download { user_identifier: None, ..download("left-pad", "", "2") };
    assert_eq!(cost(None, of_a_person).await, (Recorded::New, of(2, 1.0, 1.0)));
    let (recorded, new) = cost(Some(&org.id), without_session("flask")).await;
    assert_eq!((recorded, new.calls, new.write), (Recorded::New, 4, 5.0));
    service.clock.advance(SECOND * 59);
    let (recorded, repeated) = cost(Some(&org.id), without_session("flask")).await;
    assert_eq!((recorded, repeated.write), (Recorded::Repeated, 0.0));
}

// Download counts

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_downloads_are_counted_exactly() {
    let service = Service::start_with_manual_clock().await;
    let key = service.email_token("alice@example.com").await;
    let status = async || service.call(Method::GET, "/api/v1/tokens/status", &key).await.json();
    let id = TokenId::parse(text(&status().await, "id")).unwrap();
    let count = async |npm: usize, pypi: usize| {
        let all = std::iter::repeat_n(Ecosystem::Npm, npm).chain(std::iter::repeat_n(Ecosystem::Pypi, pypi));
        let counted = stream::iter(all).map(|ecosystem| service.store.count_download(&id, ecosystem));
        counted.buffer_unordered(32).for_each(|counted| async move { counted.unwrap() }).await;
    };
    count(120, 80).await;
    service.clock.advance(DAY);
    count(0, 1).await;
    let days = json!([{"date": "2026-11-22", "npm": 0, "pypi": 1}, {"date": "2026-11-21", "npm": 120, "pypi": 80}]);
    assert_eq!(status().await["usage"], json!({"total": 201, "last_30_days": days}));
    // A day expires once no status includes it; the total stays.
    let items = service.table.items().await;
    let usage: Vec<&Value> = items.iter().filter(|item| text(item, "pk") == format!("USAGE#{id}")).collect();
    let day_31 = Moment::parse("2026-12-22T10:00:00Z").unwrap().epoch_seconds();
    assert_eq!(usage[0]["ttl"], day_31);
    assert_eq!((text(usage[2], "sk"), usage[2].get("ttl")), ("TOTAL", None));
    let (counted, cost) = metered(service.store.count_download(&id, Ecosystem::Npm)).await;
    counted.unwrap();
    assert_eq!(cost, Cost { read: 0.0, write: 2.0, calls: 2 });
}
