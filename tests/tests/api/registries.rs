//! Rules that apply to both registries: who may install, their errors, and what they log.

use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use futures::future::join_all;
use reqwest::Method;
use serde_json::{Value, json};
use shared::registry::{PublicUrl, Settings};
use tests::coverage::{COVERED, Fixtures, Guard, InvalidCredential, InvalidCredentials, Refusal};
use tests::faults::{Call, Fault, Faults, in_sequence};
use tests::log::Log;
use tests::table::INSTALLATIONS;
use tests::upstream::{Registry, Reply};
use tests::{Answer, Service, no_upstreams};
use tracing_subscriber::filter::LevelFilter;

const NPM: &str = "/npm/widgets";
const TARBALL: &str = "/npm/widgets/-/widgets-1.0.0.tgz";
const PAGE: &str = "/pypi/simple/widgets/";
const WHEEL: &str = "/pypi/files/widgets/-/packages/widgets-1.0-py3-none-any.whl";

/// A service in front of an npm registry and a simple index with one package each.
async fn service() -> (Service, Registry) {
    let registry = Registry::with_widgets().await;
    (Service::start_with_registries(registry.settings()).await, registry)
}

fn basic(user: &str, password: &str) -> String {
    format!("Basic {}", BASE64.encode(format!("{user}:{password}")))
}

async fn get(service: &Service, path: &str, authorization: &str) -> Answer {
    service.send(service.request(Method::GET, path).header("authorization", authorization)).await
}

/// Asserts an error in the format that package managers display.
#[track_caller]
fn assert_problem(answer: &Answer, status: u16, code: &str) {
    assert_eq!((answer.status.as_u16(), answer.header("content-type")), (status, "application/problem+json"));
    let problem = answer.json();
    let fields: Vec<&str> = problem.as_object().unwrap().keys().map(String::as_str).collect();
    let mut expected = ["error", "type", "title", "detail", "status", "code"];
    expected.sort_unstable();
    assert_eq!(fields, expected);
    assert_eq!((&problem["status"], &problem["code"]), (&json!(status), &json!(code)), "{problem}");
    assert_eq!((&problem["type"], &problem["error"]), (&json!("about:blank"), &problem["detail"]));
    assert!(problem["error"].as_str().unwrap().ends_with('.') && !answer.header("x-request-id").is_empty());
    assert_eq!(answer.header("cache-control"), "no-store");
    assert_eq!(answer.header("www-authenticate").is_empty(), status != 401);
}

fn problem_of(refusal: Refusal) -> (u16, &'static str) {
    match refusal {
        Refusal::MissingToken | Refusal::InvalidToken => (401, "UNAUTHORIZED"),
        Refusal::Forbidden => (403, "FORBIDDEN"),
        Refusal::NoSubscription => (403, "SUBSCRIPTION_REQUIRED"),
    }
}

#[tokio::test]
async fn registries_refuse_invalid_bearer_and_basic_credentials() {
    let (service, registry) = service().await;
    let fixtures = Fixtures::create(&service).await;
    let invalid_credentials = InvalidCredentials::create(&service, &fixtures).await;
    let covered = COVERED.iter().find(|covered| covered.guard == Guard::Registry).unwrap();
    for InvalidCredential { what, headers, refusal, .. } in invalid_credentials.for_operation(covered) {
        for path in [NPM, TARBALL, PAGE, WHEEL, "/npm/-/whoami", "/npm/no-such", "/pypi/no-such"] {
            let mut forms = vec![(headers.clone(), refusal)];
            if let Some(credential) = headers.first().and_then(|value| value.strip_prefix("Bearer ")) {
                // A missing credential becomes an invalid one when sent as a password.
                let refusal = if refusal == Refusal::MissingToken { Refusal::InvalidToken } else { refusal };
                forms.extend(
                    ["token", "__token__", "alice"].map(|user| (vec![basic(user, credential); headers.len()], refusal)),
                );
                // A bot's credential contains a colon, which ends a user name.
                if !credential.contains(':') {
                    forms.push((vec![basic(credential, ""); headers.len()], refusal));
                }
            }
            for (headers, refusal) in forms {
                // Registries accept `Basic`.
                let sent_basic = headers.iter().any(|value| value.starts_with("Basic "));
                let (status, code) = problem_of(if sent_basic && refusal == Refusal::MissingToken {
                    Refusal::InvalidToken
                } else {
                    refusal
                });
                let request = service.request(Method::GET, path);
                let request = headers.iter().fold(request, |request, value| request.header("authorization", value));
                let answer = service.send(request).await;
                assert_eq!(answer.status, status, "{path} with {what} as {headers:?}: {}", answer.text);
                assert_problem(&answer, status, code);
                let challenge = match (path.starts_with("/npm"), status, refusal) {
                    (_, 403, _) => "",
                    (false, ..) => r#"Basic realm="guard-tokens", charset="UTF-8""#,
                    (true, _, Refusal::MissingToken) if !sent_basic => r#"Bearer realm="guard-tokens""#,
                    (true, ..) => r#"Bearer realm="guard-tokens", error="invalid_token""#,
                };
                assert_eq!(answer.header("www-authenticate"), challenge, "{path} with {what}");
                // npm does not show the body of a 401, but it shows this header.
                let notice = if path.starts_with("/npm") { answer.json()["error"].clone() } else { json!("") };
                assert_eq!(json!(answer.header("npm-notice")), notice);
            }
        }
    }
    assert!(registry.take_requests().is_empty(), "the upstream was called without a valid token");
    assert_eq!(service.installations(&fixtures.org, &fixtures.owner.credential, "").await["installations"], json!([]));
}

#[tokio::test]
async fn malformed_basic_credentials_are_refused() {
    let (service, _) = service().await;
    let fixtures = Fixtures::create(&service).await;
    let token = &fixtures.token.token;
    for authorization in [
        basic("token", ""),
        basic("", ""),
        basic("token", &format!("{token} ")),
        basic(&format!("{token} "), ""),
        // The password counts.
        basic(token, "x"),
        format!("Basic {token}"),
        "Basic".to_owned(),
        "Basic !".to_owned(),
        format!("Basic {}", BASE64.encode(b"token:\xff")),
        format!("Basic {}", BASE64.encode(token)),
    ] {
        let answer = get(&service, PAGE, &authorization).await;
        assert_problem(&answer, 401, "UNAUTHORIZED");
    }
}

#[tokio::test]
async fn password_counts_if_user_and_password_are_two_tokens() {
    let (service, _) = service().await;
    let fixtures = Fixtures::create(&service).await;
    let (dead, good) = (&fixtures.token.token, &fixtures.email_token);
    service.revoke(&fixtures.org, &fixtures.owner, &fixtures.token).await;
    assert_eq!(get(&service, NPM, &basic(dead, good)).await.status, 200);
    assert_problem(&get(&service, NPM, &basic(good, dead)).await, 401, "UNAUTHORIZED");
}

#[tokio::test]
async fn org_user_and_email_tokens_work_at_both_registries() {
    let (service, registry) = service().await;
    let fixtures = Fixtures::create(&service).await;
    for token in [&fixtures.token.token, &fixtures.email_token] {
        let forms = [
            format!("Bearer {token}"),
            format!("bearer  {token}"),
            basic("token", token),
            basic("__token__", token),
            basic("alice@example.com", token),
            basic("", token),
            basic(token, ""),
            basic(token, token),
        ];
        for form in forms {
            for (path, status) in [(NPM, 200), (TARBALL, 302), (PAGE, 200), (WHEEL, 302)] {
                // Registries ignore unknown query parameters.
                let answer = get(&service, &format!("{path}?write=true&token={token}"), &form).await;
                assert_eq!(answer.status, status, "{path}: {}", answer.text);
                let place = answer.header("location");
                assert!(!place.contains(token.as_str()) && !answer.text.contains(token.as_str()), "{place}");
                assert_eq!(
                    service.send(service.request(Method::HEAD, path).header("authorization", &form)).await.status,
                    status
                );
            }
        }
    }
    // Nothing from the caller's request reached the upstream.
    for request in registry.take_requests() {
        let names: Vec<&str> = request.headers.keys().map(|name| name.as_str()).collect();
        assert!(
            names.iter().all(|name| ["accept", "accept-encoding", "host", "user-agent"].contains(name)),
            "{names:?}"
        );
        assert!(!request.path.contains('?') && request.method == Method::GET, "{request:?}");
        assert!(request.headers["user-agent"].to_str().unwrap().starts_with("guard-tokens/"));
    }
}

#[tokio::test]
async fn revoked_token_is_refused_at_next_use() {
    let (service, _) = service().await;
    let fixtures = Fixtures::create(&service).await;
    let password = basic("token", &fixtures.token.token);
    for path in [NPM, TARBALL, PAGE, WHEEL] {
        assert!(get(&service, path, &password).await.status.as_u16() < 400);
    }
    service.revoke(&fixtures.org, &fixtures.owner, &fixtures.token).await;
    for path in [NPM, TARBALL, PAGE, WHEEL] {
        assert_problem(&get(&service, path, &password).await, 401, "UNAUTHORIZED");
    }
    let bearer = format!("Bearer {}", fixtures.email_token);
    assert_eq!(get(&service, NPM, &bearer).await.status, 200);
    let new = service.regenerate(&fixtures.email_token).await.json()["token"].as_str().unwrap().to_owned();
    assert_problem(&get(&service, NPM, &bearer).await, 401, "UNAUTHORIZED");
    assert_eq!(get(&service, NPM, &format!("Bearer {new}")).await.status, 200);
}

#[tokio::test]
async fn guard_switch_takes_effect_within_a_minute() {
    let (service, _) = service().await;
    let fixtures = Fixtures::create(&service).await;
    let bearer = format!("Bearer {}", fixtures.token.token);
    let switch = async |on| service.set_guard(&fixtures.org.id, on).await;
    assert_eq!(get(&service, NPM, &bearer).await.status, 200);
    switch(false).await;
    service.clock.advance(Duration::from_secs(60));
    assert_problem(&get(&service, TARBALL, &bearer).await, 403, "SUBSCRIPTION_REQUIRED");
    // Email-verified tokens do not depend on an organization.
    assert_eq!(get(&service, NPM, &format!("Bearer {}", fixtures.email_token)).await.status, 200);
    switch(true).await;
    service.clock.advance(Duration::from_secs(60));
    assert_eq!(get(&service, TARBALL, &bearer).await.status, 302);
}

#[tokio::test]
async fn anonymous_access_needs_permission_and_is_not_logged() {
    let registry = Registry::with_widgets().await;
    let open = Settings { anonymous_access: true, ..registry.settings() };
    let service = Service::start_with_registries(open).await;
    let fixtures = Fixtures::create(&service).await;
    for (path, status) in [(NPM, 200), (TARBALL, 302), (PAGE, 200), (WHEEL, 302)] {
        assert_eq!(service.send(service.request(Method::GET, path)).await.status, status);
        // An inactive token is refused even where anonymous access is allowed.
        assert_problem(&get(&service, path, "Bearer tg_org_x").await, 401, "UNAUTHORIZED");
        assert_problem(&get(&service, path, &basic("token", "")).await, 401, "UNAUTHORIZED");
    }
    assert_eq!(service.installations(&fixtures.org, &fixtures.owner.credential, "").await["installations"], json!([]));
}

#[tokio::test]
async fn download_is_logged_once_with_user_and_file() {
    let (service, _) = service().await;
    let fixtures = Fixtures::create(&service).await;
    let take = async |path: &str, token: &str, agent: &str| {
        let request = service.request(Method::GET, path).header("authorization", basic("token", token));
        let answer = service.send(request.header("user-agent", agent).header("npm-command", "ci")).await;
        assert_eq!(answer.status, 302);
    };
    take(TARBALL, &fixtures.token.token, "npm/11.5.2 node/v20.20.2 linux x64 workspaces/false").await;
    service.clock.advance(Duration::from_secs(1));
    take(WHEEL, &fixtures.token.token, "Mozilla").await;
    // Retries and requests that download no file are not logged.
    take(WHEEL, &fixtures.token.token, "Mozilla").await;
    let request = service.request(Method::GET, WHEEL).header("authorization", basic("token", &fixtures.token.token));
    assert_eq!(service.send(request.header("range", "bytes=-1024")).await.status, 302);
    assert_eq!(get(&service, &format!("{WHEEL}.metadata"), &basic("token", &fixtures.token.token)).await.status, 302);
    // A download with another token.
    take(TARBALL, &fixtures.email_token, "npm/11.5.2").await;
    let log = service.installations(&fixtures.org, &fixtures.owner.credential, "").await;
    let entry = |time: &str, ecosystem: &str, version: &str, file: &str, client: Value, client_version: Value| {
        json!({
            "time": time, "ecosystem": ecosystem, "package": "widgets", "version": version, "file": file,
            "user_identifier": "alice-laptop", "token_id": fixtures.token.id, "client": client,
            "client_version": client_version, "command": "ci", "session": null, "source_ip": "127.0.0.1", "subject": null,
        })
    };
    let expected = json!([
        entry("2026-11-21T10:00:01Z", "pypi", "1.0", "widgets-1.0-py3-none-any.whl", json!("mozilla"), Value::Null),
        entry("2026-11-21T10:00:00Z", "npm", "1.0.0", "widgets-1.0.0.tgz", json!("npm"), json!("11.5.2")),
    ]);
    assert_eq!(log["installations"], expected);
    let status = service.status(&fixtures.email_token).await.json();
    assert_eq!(status["usage"], json!({"total": 1, "last_30_days": [{"date": "2026-11-21", "npm": 1, "pypi": 0}]}));
    assert_eq!((&status["status"], &status["last_used_at"]), (&json!("active"), &json!("2026-11-21T10:00:01Z")));
}

#[tokio::test]
async fn download_with_an_email_token_is_logged_without_its_address() {
    let (service, _) = service().await;
    let fixtures = Fixtures::create(&service).await;
    assert_eq!(get(&service, WHEEL, &format!("Bearer {}", fixtures.email_token)).await.status, 302);
    let entries = service.table.installations().await;
    let id = service.status(&fixtures.email_token).await.json()["id"].clone();
    assert_eq!((entries.len(), &entries[0]["token_id"], entries[0].get("user_identifier")), (1, &id, None));
    assert!(!json!(entries).to_string().contains('@'), "{entries:?}");
}

/// A call that hangs is tried four times, in 4.8 seconds.
const NOT_WAITED_FOR: Duration = Duration::from_secs(4);

#[tokio::test]
async fn log_failure_neither_fails_nor_delays_a_download() {
    let registry = Registry::with_widgets().await;
    let (service, faults) = Service::start_with_registries_and_faults(registry.settings()).await;
    let fixtures = Fixtures::create(&service).await;
    let bearer = format!("Bearer {}", fixtures.token.token);
    // Token and organization are read first; later calls may fail.
    assert_eq!(get(&service, NPM, &bearer).await.status, 200);
    let log: fn(&Call) -> bool = |call| call.is_of(INSTALLATIONS);
    let all_but_reads_of_tokens: fn(&Call) -> bool = |call| call.is_of(INSTALLATIONS) || call.operation != "GetItem";
    for only in [log, all_but_reads_of_tokens] {
        for fault in [Fault::ServerError, Fault::LostAfter, Fault::Hang] {
            service.clock.advance(Duration::from_secs(120));
            faults.arm_where(only, &[], Some(fault));
            let started = Instant::now();
            assert_eq!(get(&service, TARBALL, &bearer).await.status, 302, "{fault:?}");
            assert!(started.elapsed() < NOT_WAITED_FOR, "{fault:?}: {:?}", started.elapsed());
            let mut calls = faults.disarm();
            if fault == Fault::Hang {
                // A hanging update of `last_used_at` or the log is abandoned before the SDK retries it.
                calls.sort();
                assert_eq!(calls, ["GetItem", "GetItem", "GetItem", "GetItem", "UpdateItem"]);
            }
        }
    }
    // Authentication is never skipped.
    faults.arm(0, &[], Some(Fault::ServerError));
    assert_problem(&get(&service, TARBALL, &bearer).await, 503, "SERVICE_UNAVAILABLE");
}

/// How many DynamoDB calls of a download of this file come one after the other.
async fn round_trips(service: &Service, faults: &Faults, path: &str, token: &str, session: Option<&str>) -> usize {
    let request = service.request(Method::GET, path).header("authorization", basic("token", token));
    let request = session.iter().fold(request, |request, session| request.header("npm-session", *session));
    faults.slow_down(Duration::from_millis(400));
    assert_eq!(service.send(request).await.status, 302);
    in_sequence(&faults.take_calls())
}

#[tokio::test]
async fn download_takes_one_round_of_reads_and_one_of_writes() {
    let registry = Registry::with_widgets().await;
    let (service, faults) = Service::start_patiently_with_registries_and_faults(registry.settings()).await;
    let fixtures = Fixtures::create(&service).await;
    let (user, person) = (&fixtures.token.token, &fixtures.email_token);
    // In the first minute also the organization's subscription, which only the token names.
    assert_eq!(round_trips(&service, &faults, TARBALL, user, None).await, 3);
    assert_eq!(round_trips(&service, &faults, WHEEL, user, None).await, 2);
    assert_eq!(round_trips(&service, &faults, TARBALL, user, Some("a1")).await, 2);
    // A retry writes nothing.
    assert_eq!(round_trips(&service, &faults, TARBALL, user, Some("a1")).await, 1);
    assert_eq!(round_trips(&service, &faults, TARBALL, person, None).await, 2);
    assert_eq!(round_trips(&service, &faults, TARBALL, person, None).await, 1);
    assert_eq!(service.table.installations().await.len(), 4);
}

#[tokio::test]
async fn download_is_answered_after_its_entry_is_written_and_written_after_its_token_is_read() {
    let registry = Registry::with_widgets().await;
    let (service, faults) = Service::start_patiently_with_registries_and_faults(registry.settings()).await;
    let fixtures = Fixtures::create(&service).await;
    let bearer = format!("Bearer {}", fixtures.token.token);
    assert_eq!(get(&service, NPM, &bearer).await.status, 200);
    let waits = Duration::from_millis(200);
    // Neither is answered before what it waits for.
    for (only, written) in [
        ((|call| call.operation == "PutItem") as fn(&Call) -> bool, true),
        (|call| call.operation == "GetItem" && !call.is_of(INSTALLATIONS), false),
    ] {
        let wheel = WHEEL.replace("1.0", if written { "1.1" } else { "1.2" });
        faults.arm_where(only, &[Fault::Held], None);
        let mut download = std::pin::pin!(get(&service, &wheel, &bearer));
        let counters = || faults.calls().iter().filter(|call| call.operation == "UpdateItem").count();
        let held = async {
            faults.reached_where(1).await;
            // The counter is written beside the entry.
            while counters() < usize::from(written) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            tokio::time::sleep(waits).await;
        };
        tokio::select! {
            answer = &mut download => panic!("answered too early: {}", answer.status),
            () = held => {}
        }
        let calls = faults.calls();
        assert_eq!(calls.iter().any(|call| call.operation == "PutItem"), written, "{calls:?}");
        assert_eq!(counters(), usize::from(written), "{calls:?}");
        faults.release();
        assert_eq!(download.await.status, 302);
    }
    assert_eq!(service.table.installations().await.len(), 2);
}

#[tokio::test]
async fn download_is_logged_if_reading_its_token_takes_as_long_as_its_look_up() {
    let registry = Registry::with_widgets().await;
    let (service, faults) = Service::start_with_registries_and_faults(registry.settings()).await;
    let fixtures = Fixtures::create(&service).await;
    let bearer = format!("Bearer {}", fixtures.token.token);
    assert_eq!(get(&service, NPM, &bearer).await.status, 200);
    // Both meet dead connections, and their retries answer after the look-up's half second.
    let reads: fn(&Call) -> bool = |call| call.operation == "GetItem";
    faults.arm_where(reads, &[Fault::Held; 3], None);
    let mut download = std::pin::pin!(get(&service, TARBALL, &bearer));
    assert!(tokio::time::timeout(Duration::from_millis(700), &mut download).await.is_err(), "answered too early");
    (0..3).for_each(|_| faults.release());
    assert_eq!(download.await.status, 302);
    assert_eq!(service.table.installations().await.len(), 1);
}

#[tokio::test]
async fn download_whose_counters_hang_is_logged_and_not_reported_as_unlogged() {
    let log = Log::default();
    let _here = tracing::subscriber::set_default(log.subscriber(LevelFilter::INFO));
    let registry = Registry::with_widgets().await;
    let (service, faults) = Service::start_with_registries_and_faults(registry.settings()).await;
    let fixtures = Fixtures::create(&service).await;
    let counters: fn(&Call) -> bool = |call| call.operation == "UpdateItem";
    for token in [&fixtures.token.token, &fixtures.email_token] {
        assert_eq!(get(&service, NPM, &format!("Bearer {token}")).await.status, 200);
        faults.arm_where(counters, &[], Some(Fault::Hang));
        let started = Instant::now();
        assert_eq!(get(&service, TARBALL, &format!("Bearer {token}")).await.status, 302);
        assert!(started.elapsed() < NOT_WAITED_FOR, "{:?}", started.elapsed());
        faults.disarm();
    }
    assert_eq!(service.table.installations().await.len(), 2);
    assert!(log.text().contains("not counted in time"), "{}", log.text());
    assert!(!log.text().contains("a download was not logged"), "{}", log.text());
    // A hanging write of the entry is reported.
    faults.arm_where(|call| call.operation == "PutItem", &[], Some(Fault::Hang));
    assert_eq!(get(&service, WHEEL, &format!("Bearer {}", fixtures.token.token)).await.status, 302);
    assert!(log.text().contains("a download was not logged"), "{}", log.text());
}

#[tokio::test]
async fn refused_download_writes_nothing_but_the_use_of_an_active_token() {
    let registry = Registry::with_widgets().await;
    let (service, faults) = Service::start_with_registries_and_faults(registry.settings()).await;
    let fixtures = Fixtures::create(&service).await;
    let revoked = fixtures.token.token.clone();
    service.revoke(&fixtures.org, &fixtures.owner, &fixtures.token).await;
    for (token, status, uses) in [(&revoked, 401, 0), (&fixtures.access_token.token, 403, 1)] {
        faults.arm(0, &[], None);
        let answer = get(&service, TARBALL, &basic("token", token)).await;
        assert_eq!(answer.status, status, "{}", answer.text);
        let written: Vec<Call> = faults.take_calls().into_iter().filter(|call| call.operation != "GetItem").collect();
        assert_eq!(written.len(), uses, "{written:?}");
        assert!(written.iter().all(|call| call.request["UpdateExpression"] == "SET #last_used_at = :now"));
    }
    // It is refused at once, even while the log hangs.
    faults.arm_where(|call| call.is_of(INSTALLATIONS), &[], Some(Fault::Hang));
    let started = Instant::now();
    assert_problem(&get(&service, TARBALL, &basic("token", &revoked)).await, 401, "UNAUTHORIZED");
    assert!(started.elapsed() < NOT_WAITED_FOR, "{:?}", started.elapsed());
    faults.disarm();
    assert!(service.table.installations().await.is_empty());
}

#[tokio::test]
async fn retries_at_once_are_logged_and_counted_once() {
    let registry = Registry::with_widgets().await;
    let (service, faults) = Service::start_patiently_with_registries_and_faults(registry.settings()).await;
    let fixtures = Fixtures::create(&service).await;
    // All look the entry up before one writes it.
    faults.slow_down(Duration::from_millis(250));
    for token in [&fixtures.token.token, &fixtures.email_token] {
        let authorization = basic("token", token);
        let answers = join_all((0..4).map(|_| get(&service, TARBALL, &authorization))).await;
        assert!(answers.iter().all(|answer| answer.status == 302));
    }
    let calls = faults.take_calls();
    let written = |call: &&Call| call.operation == "PutItem";
    assert!(calls.iter().filter(written).count() > 2, "no two calls were at the same place");
    assert_eq!(service.table.installations().await.len(), 2);
    let days = service.installation_log.by_day(&fixtures.org.id).await.unwrap();
    assert_eq!(days.iter().map(|day| day.npm).sum::<u64>(), 1);
    assert_eq!(service.status(&fixtures.email_token).await.json()["usage"]["total"], 1);
}

#[tokio::test]
async fn upstream_failure_is_distinct_from_missing_package() {
    let (service, registry) = service().await;
    let fixtures = Fixtures::create(&service).await;
    let bearer = format!("Bearer {}", fixtures.token.token);
    let impatient = Settings { timeout: Duration::from_secs(1), ..registry.settings() };
    let impatient = Service::start_with_registries(impatient).await;
    let its_bearer = format!("Bearer {}", Fixtures::create(&impatient).await.token.token);
    for (ours, theirs) in
        [(NPM, "/npm/widgets"), (PAGE, "/simple/widgets/"), ("/pypi/files/widgets/widgets-1.0.zip", "/simple/widgets/")]
    {
        for (reply, status, code) in [
            (Reply::status(404), 404, "NOT_FOUND"),
            (Reply::status(410), 410, "GONE"),
            (Reply::status(400), 502, "BAD_GATEWAY"),
            (Reply::status(401), 502, "BAD_GATEWAY"),
            (Reply::status(403), 403, "FORBIDDEN"),
            (Reply::status(451), 403, "FORBIDDEN"),
            (Reply::status(429), 429, "RATE_LIMITED"),
            (Reply::status(500), 502, "BAD_GATEWAY"),
            (Reply::status(503), 502, "BAD_GATEWAY"),
            (Reply::status(204), 502, "BAD_GATEWAY"),
            // A 304 that was not asked for.
            (Reply::status(304), 502, "BAD_GATEWAY"),
            (Reply::status(504), 504, "GATEWAY_TIMEOUT"),
            (Reply::status(302).with_header("location", theirs), 502, "BAD_GATEWAY"),
            (Reply::ok("application/json", "<html>login</html>"), 502, "BAD_GATEWAY"),
            (Reply::ok("application/vnd.pypi.simple.v1+json", "{"), 502, "BAD_GATEWAY"),
            (Reply::ok("application/json", b"\xff".as_slice()), 502, "BAD_GATEWAY"),
            (Reply::ok("text/html", "x").with_header("content-encoding", "gzip"), 502, "BAD_GATEWAY"),
        ] {
            registry.stub(theirs, reply.clone());
            let answer = get(&service, ours, &bearer).await;
            assert_eq!(answer.status, status, "{ours}: {reply:?}: {}", answer.text);
            assert_problem(&answer, status, code);
        }
        registry.stub(theirs, Reply::status(200).delayed(Duration::from_secs(15)));
        assert_problem(&get(&impatient, ours, &its_bearer).await, 504, "GATEWAY_TIMEOUT");
    }
    let unreachable =
        Settings { npm: shared::registry::upstream::Upstream::parse("http://127.0.0.1:1/"), ..no_upstreams() };
    let service = Service::start_with_registries(unreachable).await;
    let fixtures = Fixtures::create(&service).await;
    let bearer = format!("Bearer {}", fixtures.token.token);
    assert_problem(&get(&service, NPM, &bearer).await, 502, "BAD_GATEWAY");
    // No PyPI upstream is configured.
    assert_problem(&get(&service, PAGE, &bearer).await, 502, "BAD_GATEWAY");
}

#[tokio::test]
async fn upstream_refusal_is_passed_on_with_its_reason() {
    let (service, registry) = service().await;
    let fixtures = Fixtures::create(&service).await;
    let bearer = format!("Bearer {}", fixtures.token.token);
    for (ours, theirs) in [(NPM, "/npm/widgets"), (PAGE, "/simple/widgets/")] {
        for (status, body, sentence) in [
            (
                403,
                r#"{"error":"Requested item is quarantined"}"#,
                "The upstream registry refused this request: Requested item is quarantined.",
            ),
            (
                451,
                "<html><body>Blocked:\n <b>malware</b>\u{202e}</body></html>",
                "The upstream registry refused this request: Blocked: malware.",
            ),
            (403, "", "The upstream registry refused this request: it gave no reason."),
        ] {
            registry.stub(theirs, Reply::status(status).with_body(body));
            let answer = get(&service, ours, &bearer).await;
            assert_problem(&answer, 403, "FORBIDDEN");
            assert_eq!(answer.json()["error"], sentence);
            assert_eq!(answer.header("npm-notice"), if ours == NPM { sentence } else { "" });
        }
        registry.stub(theirs, Reply::status(403).with_body("x".repeat(100_000)));
        assert!(get(&service, ours, &bearer).await.json()["error"].as_str().unwrap().len() < 400);
        for (sent, after) in [(Some("17"), "17"), (Some("soon"), "60"), (None, "60")] {
            let reply = Reply::status(429);
            registry.stub(theirs, sent.map_or(reply.clone(), |sent| reply.with_header("retry-after", sent)));
            let answer = get(&service, ours, &bearer).await;
            assert_problem(&answer, 429, "RATE_LIMITED");
            assert_eq!(answer.header("retry-after"), after);
        }
        // The operator's setting, which no caller can mend.
        registry.stub(theirs, Reply::status(401));
        let answer = get(&service, ours, &bearer).await;
        assert!(answer.status == 502 && answer.text.contains("Ask the operator"), "{}", answer.text);
    }
}

#[tokio::test]
async fn registries_refuse_writes() {
    let (service, registry) = service().await;
    let fixtures = Fixtures::create(&service).await;
    for path in [NPM, TARBALL, PAGE, WHEEL, "/npm/-/whoami", "/pypi/legacy/"] {
        for method in [Method::PUT, Method::POST, Method::DELETE, Method::PATCH, Method::OPTIONS] {
            let request = service.request(method.clone(), path).bearer_auth(&fixtures.token.token);
            let answer = service.send(request.body("{}")).await;
            assert_problem(&answer, 405, "METHOD_NOT_ALLOWED");
            assert_eq!(answer.header("allow"), "GET, HEAD", "{method} {path}");
        }
    }
    assert!(registry.take_requests().is_empty());
}

#[tokio::test]
async fn no_path_redirects_outside_the_upstream() {
    let (service, registry) = service().await;
    let fixtures = Fixtures::create(&service).await;
    let bearer = format!("Bearer {}", fixtures.token.token);
    for path in [
        "/npm/https://evil.example/-/x-1.tgz",
        "/npm//evil.example/-/x-1.tgz",
        "/npm/%2f%2fevil.example/-/x-1.tgz",
        "/npm/..%2f..%2fevil/-/evil-1.tgz",
        "/npm/x/-/x-1.tgz%2f..%2f..%2fy",
        "/npm/x/-/x-1%0d%0aset-cookie:a=b.tgz",
        "/npm/@evil.example/-/x-1.tgz/../..",
        "/npm/x/-/x-@evil.example.tgz",
        "/npm/x/-/x-1.tgz%3f.tgz",
        "/npm/x/-/x-1.tgz%23.tgz",
        "/pypi/files/a//evil.example/a-1.0.zip",
        "/pypi/files/a/-/%2f%2fevil.example/a-1.0.zip",
        "/pypi/files/a/-/..%2f..%2fa-1.0.zip",
        "/pypi/files/a/-/x%0d%0ax/a-1.0.zip",
        "/pypi/simple/..%2f..%2fetc/",
        "/pypi/simple/evil.example%2fx/",
    ] {
        let answer = get(&service, path, &bearer).await;
        // Not 404, which is only ever the upstream's.
        assert_problem(&answer, 400, "BAD_REQUEST");
        assert_eq!(answer.header("location"), "", "{path}");
    }
    assert!(registry.take_requests().is_empty());
    for path in ["/pypi/files/a/evil.example/a-1.0.zip", "/pypi/files/a/127.0.0.1/a-1.0.zip"] {
        let answer = get(&service, path, &bearer).await;
        assert_problem(&answer, 404, "NOT_FOUND");
        assert_eq!(answer.header("location"), "", "{path}");
    }
    // For an unknown host, the index was asked whether it lists the file.
    assert!(registry.take_requests().iter().all(|request| request.path == "/simple/a/"));
}

#[tokio::test]
async fn redirect_to_the_own_host_is_refused() {
    let (service, registry) = service().await;
    let fixtures = Fixtures::create(&service).await;
    for path in [TARBALL, WHEEL, &format!("{WHEEL}.metadata")] {
        let request =
            |host: &str| service.request(Method::GET, path).bearer_auth(&fixtures.token.token).header("host", host);
        let answer = service.send(request("localhost:3000")).await;
        assert_problem(&answer, 502, "BAD_GATEWAY");
        assert!(answer.text.contains("own host name") && answer.header("location").is_empty(), "{}", answer.text);
        assert_eq!(service.send(request("guard.example.com")).await.status, 302);
    }
    assert!(registry.url.starts_with("http://localhost:"));
    // Also for the configured public name, whatever `Host` a proxy sends.
    let public_url = PublicUrl::Fixed("https://localhost/registries".to_owned());
    let service = Service::start_with_registries(Settings { public_url, ..registry.settings() }).await;
    let fixtures = Fixtures::create(&service).await;
    for host in ["localhost", "guard.example.com"] {
        let request = service.request(Method::GET, TARBALL).bearer_auth(&fixtures.token.token).header("host", host);
        assert_problem(&service.send(request).await, 502, "BAD_GATEWAY");
    }
}

#[tokio::test]
async fn upstream_redirects_must_be_http_or_https() {
    let (service, registry) = service().await;
    let fixtures = Fixtures::create(&service).await;
    let bearer = format!("Bearer {}", fixtures.token.token);
    registry.stub("/npm/renamed", Reply::status(301).with_header("location", "/npm/widgets"));
    assert_eq!(get(&service, "/npm/renamed", &bearer).await.status, 200);
    registry.stub("/npm/renamed", Reply::status(301).with_header("location", "file:///etc/passwd"));
    assert_problem(&get(&service, "/npm/renamed", &bearer).await, 502, "BAD_GATEWAY");
}

#[tokio::test]
async fn root_of_a_registry_is_400_with_its_own_sentence() {
    let (service, registry) = service().await;
    for path in ["/npm", "/npm/", "/pypi", "/pypi/", "//npm/widgets"] {
        for method in [Method::GET, Method::PUT] {
            let answer = service.send(service.request(method, path)).await;
            assert_problem(&answer, 400, "BAD_REQUEST");
            assert!(answer.text.contains("This path is not a package"), "{path}: {}", answer.text);
        }
    }
    assert!(registry.take_requests().is_empty());
}

#[tokio::test]
async fn internal_upstream_redirects_to_no_other_internal_place() {
    let (service, registry) = service().await;
    let fixtures = Fixtures::create(&service).await;
    let bearer = format!("Bearer {}", fixtures.token.token);
    let other = Registry::with_widgets().await;
    let other_ip = other.url.replace("localhost", "127.0.0.1");
    for place in [&other.url, &other_ip, &registry.url.replace("localhost", "127.0.0.1"), "http://169.254.169.254"] {
        for (ours, theirs) in [(NPM, "/npm/widgets"), (PAGE, "/simple/widgets/")] {
            registry.stub(theirs, Reply::status(302).with_header("location", &format!("{place}{theirs}")));
            registry.take_requests();
            assert_problem(&get(&service, ours, &bearer).await, 502, "BAD_GATEWAY");
            assert_eq!(registry.take_requests().len(), 1, "{place}");
        }
    }
    assert!(other.take_requests().is_empty());
}

#[tokio::test]
async fn token_in_the_path_never_reaches_the_upstream() {
    let (service, registry) = service().await;
    let fixtures = Fixtures::create(&service).await;
    let token = &fixtures.token.token;
    let bearer = format!("Bearer {token}");
    for path in [
        format!("/npm/{token}"),
        format!("/npm/x-{token}"),
        format!("/npm/@{token}/x"),
        format!("/npm/@scope%2f{token}"),
        format!("/npm/widgets/{token}"),
        format!("/npm/foo/-/foo-1.0.0-{token}.tgz"),
        format!("/npm/foo/-/foo-1.0.0-%74{}.tgz", &token[1..]),
        format!("/npm/-/package/{token}/dist-tags"),
        format!("/npm/-/npm/v1/tokens/token/{token}"),
        format!("/pypi/simple/{token}/"),
        format!("/pypi/simple/x-{token}"),
        format!("/pypi/files/a/-/token:{token}@host/a-1.0.zip"),
        format!("/pypi/files/a/-/x/a-1.0+{token}.zip"),
    ] {
        let answer = get(&service, &path, &bearer).await;
        assert_problem(&answer, 400, "BAD_REQUEST");
        assert!(answer.text.contains("contains a token") && !answer.text.contains(token.as_str()), "{}", answer.text);
    }
    assert!(registry.take_requests().is_empty());
    // Nor by the headers of which a part is forwarded.
    registry.stub("/npm/widgets", Reply::ok("application/json", "{}").with_header("etag", "\"7\""));
    let tag = get(&service, NPM, &bearer).await.header("etag").replace("\"7", &format!("\"7-{token}"));
    let request = service.request(Method::GET, NPM).header("authorization", &bearer).header("if-none-match", tag);
    assert_eq!(service.send(request).await.status, 200);
    let requests = registry.take_requests();
    let tags: Vec<_> = requests.iter().filter_map(|request| request.headers.get("if-none-match")).collect();
    assert_eq!(tags, ["\"7\""], "only what is kept is asked about");
}

#[tokio::test]
async fn token_in_a_client_header_is_not_logged() {
    let (service, _) = service().await;
    let fixtures = Fixtures::create(&service).await;
    let token = &fixtures.token.token;
    let request = service.request(Method::GET, TARBALL).bearer_auth(token);
    let request = request.header("user-agent", format!("npm-{token}/x{token} {{}}"));
    let request = request.header("npm-session", format!("s-{token}")).header("npm-command", format!("{token}.x"));
    assert_eq!(service.send(request).await.status, 302);
    let entries = service.table.installations().await;
    assert!(entries.len() == 1 && !serde_json::to_string(&entries).unwrap().contains(token.as_str()), "{entries:?}");
}

#[tokio::test]
async fn careless_slashes_are_ignored() {
    let (service, registry) = service().await;
    let fixtures = Fixtures::create(&service).await;
    let bearer = format!("Bearer {}", fixtures.token.token);
    for (path, status, asked) in [
        ("/npm//widgets", 200, Some("/npm/widgets")),
        ("/npm/widgets/", 200, Some("/npm/widgets")),
        ("/npm//widgets//-//widgets-1.0.0.tgz", 302, None),
        ("/npm//-/whoami", 200, None),
        ("/pypi/simple//widgets/", 200, Some("/simple/widgets/")),
        ("/pypi//simple/widgets//", 200, Some("/simple/widgets/")),
        ("/pypi/simple//Widgets", 200, Some("/simple/widgets/")),
    ] {
        let answer = get(&service, path, &bearer).await;
        assert_eq!(answer.status, status, "{path}: {}", answer.text);
        let received: Vec<String> = registry.take_requests().into_iter().map(|request| request.path).collect();
        assert_eq!(received, asked.into_iter().map(str::to_owned).collect::<Vec<_>>(), "{path}");
    }
}
#[tokio::test]
async fn invalid_host_header_is_never_echoed() {
    let (service, _) = service().await;
    let fixtures = Fixtures::create(&service).await;
    for (host, status) in [("guard.example.com", 200), ("guard.example.com:8443", 200), ("user@guard.example.com", 400)]
    {
        let request = service.request(Method::GET, NPM).bearer_auth(&fixtures.token.token).header("host", host);
        let answer = service.send(request).await;
        assert_eq!(answer.status, status, "{host}: {}", answer.text);
        if status == 200 {
            let place = answer.json()["versions"]["1.0.0"]["dist"]["tarball"].clone();
            assert_eq!(place, json!(format!("http://{host}{TARBALL}")));
        } else {
            assert_problem(&answer, 400, "BAD_REQUEST");
        }
    }
}

#[tokio::test]
async fn metadata_costs_one_read_and_download_one_log_entry() {
    let (service, _) = service().await;
    let fixtures = Fixtures::create(&service).await;
    let bearer = format!("Bearer {}", fixtures.token.token);
    let cost = async |path: &str| {
        let cost = get(&service, path, &bearer).await.cost();
        (cost.read, cost.write)
    };
    // The first use updates `last_used_at` and reads the organization.
    assert_eq!(cost(NPM).await, (2.0, 1.0));
    assert_eq!(cost(NPM).await, (1.0, 0.0));
    // Two reads to detect retries, the entry in the table and three indexes, and the count of the day.
    assert_eq!(cost(TARBALL).await, (3.0, 5.0));
    // A retry writes nothing.
    assert_eq!(cost(TARBALL).await, (3.0, 0.0));
    let session = service.request(Method::GET, WHEEL).header("authorization", &bearer).header("npm-session", "a1");
    let cost = service.send(session).await.cost();
    assert_eq!((cost.read, cost.write), (2.0, 5.0));
    for (token, units) in [(&fixtures.token.token, (1.0, 14.0)), (&fixtures.email_token, (1.0, 12.0))] {
        let cost = service.call(Method::DELETE, &format!("/npm/-/user/token/{token}"), token).await.cost();
        assert_eq!((cost.read, cost.write), units);
    }
}
