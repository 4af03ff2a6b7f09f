//! What both registries hold to: who may install, what they answer when they cannot, what they log.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use reqwest::Method;
use serde_json::{Value, json};
use shared::registry::{PublicUrl, Settings};
use tests::coverage::{COVERED, Cast, Guard, Refusal, Stage, Wrong};
use tests::faults::Fault;
use tests::upstream::{Registry, Says};
use tests::{Answer, Service, no_upstreams, operator};

const NPM: &str = "/npm/widgets";
const TARBALL: &str = "/npm/widgets/-/widgets-1.0.0.tgz";
const PAGE: &str = "/pypi/simple/widgets/";
const WHEEL: &str = "/pypi/files/widgets/-/packages/widgets-1.0-py3-none-any.whl";

/// A service before an npm registry and a simple index with one package each.
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

/// Checks that this is an error in the form that package managers show.
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
        Refusal::NoneSent | Refusal::NotGood => (401, "UNAUTHORIZED"),
        Refusal::Forbidden => (403, "FORBIDDEN"),
        Refusal::NoSubscription => (403, "SUBSCRIPTION_REQUIRED"),
    }
}

#[tokio::test]
async fn a_wrong_credential_opens_no_registry_in_either_form() {
    let (service, registry) = service().await;
    let stage = Stage::set(&service).await;
    let cast = Cast::gather(&service, &stage).await;
    let covered = COVERED.iter().find(|covered| covered.guard == Guard::Registry).unwrap();
    for Wrong { what, headers, refusal, .. } in cast.against(covered) {
        for path in [NPM, TARBALL, PAGE, WHEEL, "/npm/-/whoami", "/npm/no-such", "/pypi/no-such"] {
            let mut forms = vec![(headers.clone(), refusal)];
            if let Some(credential) = headers.first().and_then(|value| value.strip_prefix("Bearer ")) {
                // What is no credential because a scheme alone was sent, is none as a password either.
                let refusal = if refusal == Refusal::NoneSent { Refusal::NotGood } else { refusal };
                forms
                    .extend(["token", "__token__"].map(|user| (vec![basic(user, credential); headers.len()], refusal)));
            }
            for (headers, refusal) in forms {
                // Basic is a scheme here.
                let sent_basic = headers.iter().any(|value| value.starts_with("Basic "));
                let (status, code) =
                    problem_of(if sent_basic && refusal == Refusal::NoneSent { Refusal::NotGood } else { refusal });
                let request = service.request(Method::GET, path);
                let request = headers.iter().fold(request, |request, value| request.header("authorization", value));
                let answer = service.send(request).await;
                assert_eq!(answer.status, status, "{path} with {what} as {headers:?}: {}", answer.text);
                assert_problem(&answer, status, code);
                let challenge = match (path.starts_with("/npm"), status, refusal) {
                    (_, 403, _) => "",
                    (false, ..) => r#"Basic realm="guard-tokens", charset="UTF-8""#,
                    (true, _, Refusal::NoneSent) if !sent_basic => r#"Bearer realm="guard-tokens""#,
                    (true, ..) => r#"Bearer realm="guard-tokens", error="invalid_token""#,
                };
                assert_eq!(answer.header("www-authenticate"), challenge, "{path} with {what}");
                // npm hides the body of a 401 behind advice of its own; this it shows.
                let notice = if path.starts_with("/npm") { answer.json()["error"].clone() } else { json!("") };
                assert_eq!(json!(answer.header("npm-notice")), notice);
            }
        }
    }
    assert!(registry.asked().is_empty(), "the upstream was asked for somebody without a token");
    assert_eq!(service.installations(&stage.org, &stage.owner.credential, "").await["installations"], json!([]));
}

#[tokio::test]
async fn a_password_that_is_not_written_as_one_is_refused() {
    let (service, _) = service().await;
    let stage = Stage::set(&service).await;
    let token = &stage.token.token;
    for authorization in [
        basic("alice", token),
        basic("", token),
        basic(token, ""),
        basic("token", ""),
        basic("token", &format!("{token} ")),
        basic("TOKEN", token),
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
async fn both_kinds_of_tokens_open_both_registries_in_each_form() {
    let (service, registry) = service().await;
    let stage = Stage::set(&service).await;
    for token in [&stage.token.token, &stage.email_token] {
        let forms =
            [format!("Bearer {token}"), format!("bearer  {token}"), basic("token", token), basic("__token__", token)];
        for form in forms {
            for (path, status) in [(NPM, 200), (TARBALL, 302), (PAGE, 200), (WHEEL, 302)] {
                // What else is in the query is nobody's business.
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
    // Whatever was sent, the upstream has seen none of it.
    for asked in registry.asked() {
        let names: Vec<&str> = asked.headers.keys().map(|name| name.as_str()).collect();
        assert!(
            names.iter().all(|name| ["accept", "accept-encoding", "host", "user-agent"].contains(name)),
            "{names:?}"
        );
        assert!(!asked.path.contains('?') && asked.method == Method::GET, "{asked:?}");
        assert!(asked.headers["user-agent"].to_str().unwrap().starts_with("guard-tokens/"));
    }
}

#[tokio::test]
async fn a_revoked_token_is_dead_at_the_very_next_request() {
    let (service, _) = service().await;
    let stage = Stage::set(&service).await;
    let password = basic("token", &stage.token.token);
    for path in [NPM, TARBALL, PAGE, WHEEL] {
        assert!(get(&service, path, &password).await.status.as_u16() < 400);
    }
    service.revoke(&stage.org, &stage.owner, &stage.token).await;
    for path in [NPM, TARBALL, PAGE, WHEEL] {
        assert_problem(&get(&service, path, &password).await, 401, "UNAUTHORIZED");
    }
    let bearer = format!("Bearer {}", stage.email_token);
    assert_eq!(get(&service, NPM, &bearer).await.status, 200);
    let new = service.regenerate(&stage.email_token).await.json()["token"].as_str().unwrap().to_owned();
    assert_problem(&get(&service, NPM, &bearer).await, 401, "UNAUTHORIZED");
    assert_eq!(get(&service, NPM, &format!("Bearer {new}")).await.status, 200);
}

#[tokio::test]
async fn guard_switched_off_bites_within_a_minute_and_on_again_too() {
    let (service, _) = service().await;
    let stage = Stage::set(&service).await;
    let bearer = format!("Bearer {}", stage.token.token);
    let switch = async |on| service.store.set_org(&stage.org.id, None, Some(on), &operator()).await.unwrap().unwrap();
    assert_eq!(get(&service, NPM, &bearer).await.status, 200);
    switch(false).await;
    service.clock.advance(Duration::from_secs(60));
    assert_problem(&get(&service, TARBALL, &bearer).await, 403, "SUBSCRIPTION_REQUIRED");
    // A person's token is no organization's matter.
    assert_eq!(get(&service, NPM, &format!("Bearer {}", stage.email_token)).await.status, 200);
    switch(true).await;
    service.clock.advance(Duration::from_secs(60));
    assert_eq!(get(&service, TARBALL, &bearer).await.status, 302);
}

#[tokio::test]
async fn without_a_token_one_gets_in_only_where_that_is_allowed_and_is_not_logged() {
    let registry = Registry::with_widgets().await;
    let open = Settings { anonymous_access: true, ..registry.settings() };
    let service = Service::start_with_registries(open).await;
    let stage = Stage::set(&service).await;
    for (path, status) in [(NPM, 200), (TARBALL, 302), (PAGE, 200), (WHEEL, 302)] {
        assert_eq!(service.send(service.request(Method::GET, path)).await.status, status);
        // A token that does not count is not as good as none.
        assert_problem(&get(&service, path, "Bearer tg_org_x").await, 401, "UNAUTHORIZED");
        assert_problem(&get(&service, path, &basic("token", "")).await, 401, "UNAUTHORIZED");
    }
    assert_eq!(service.installations(&stage.org, &stage.owner.credential, "").await["installations"], json!([]));
}

#[tokio::test]
async fn a_download_is_logged_once_with_who_and_what() {
    let (service, _) = service().await;
    let stage = Stage::set(&service).await;
    let take = async |path: &str, token: &str, agent: &str| {
        let request = service.request(Method::GET, path).header("authorization", basic("token", token));
        let answer = service.send(request.header("user-agent", agent).header("npm-command", "ci")).await;
        assert_eq!(answer.status, 302);
    };
    take(TARBALL, &stage.token.token, "npm/11.5.2 node/v20.20.2 linux x64 workspaces/false").await;
    service.clock.advance(Duration::from_secs(1));
    take(WHEEL, &stage.token.token, "Mozilla").await;
    // Retries, and what takes no file.
    take(WHEEL, &stage.token.token, "Mozilla").await;
    let request = service.request(Method::GET, WHEEL).header("authorization", basic("token", &stage.token.token));
    assert_eq!(service.send(request.header("range", "bytes=-1024")).await.status, 302);
    assert_eq!(get(&service, &format!("{WHEEL}.metadata"), &basic("token", &stage.token.token)).await.status, 302);
    // Somebody else's.
    take(TARBALL, &stage.email_token, "npm/11.5.2").await;
    let log = service.installations(&stage.org, &stage.owner.credential, "").await;
    let entry = |time: &str, ecosystem: &str, version: &str, file: &str, client: Value, client_version: Value| {
        json!({
            "time": time, "ecosystem": ecosystem, "package": "widgets", "version": version, "file": file,
            "user_identifier": "alice-laptop", "token_id": stage.token.id, "client": client,
            "client_version": client_version, "command": "ci", "session": null, "source_ip": "127.0.0.1",
        })
    };
    let expected = json!([
        entry("2026-11-21T10:00:01Z", "pypi", "1.0", "widgets-1.0-py3-none-any.whl", json!("mozilla"), Value::Null),
        entry("2026-11-21T10:00:00Z", "npm", "1.0.0", "widgets-1.0.0.tgz", json!("npm"), json!("11.5.2")),
    ]);
    assert_eq!(log["installations"], expected);
    let status = service.status(&stage.email_token).await.json();
    assert_eq!(status["usage"], json!({"total": 1, "last_30_days": [{"date": "2026-11-21", "npm": 1, "pypi": 0}]}));
    assert_eq!((&status["status"], &status["last_used_at"]), (&json!("active"), &json!("2026-11-21T10:00:01Z")));
}

#[tokio::test]
async fn a_log_that_fails_neither_fails_nor_holds_up_a_download() {
    let registry = Registry::with_widgets().await;
    let (service, faults) = Service::start_with_registries_and_faults(registry.settings()).await;
    let stage = Stage::set(&service).await;
    let bearer = format!("Bearer {}", stage.token.token);
    // The token is read, then the organization; then comes what may fail.
    assert_eq!(get(&service, NPM, &bearer).await.status, 200);
    for fault in [Fault::ServerError, Fault::LostAfter, Fault::Hang] {
        service.clock.advance(Duration::from_secs(120));
        faults.arm(2, &[], Some(fault));
        assert_eq!(get(&service, TARBALL, &bearer).await.status, 302, "{fault:?}");
        let mut calls = faults.disarm();
        if fault == Fault::Hang {
            // What hangs is given up before the SDK would try it again: the use of the token, and the log.
            calls.sort();
            assert_eq!(calls, ["GetItem", "GetItem", "GetItem", "UpdateItem"]);
        }
    }
    // Who may install, nobody guesses.
    faults.arm(0, &[], Some(Fault::ServerError));
    assert_problem(&get(&service, TARBALL, &bearer).await, 503, "SERVICE_UNAVAILABLE");
}

#[tokio::test]
async fn an_upstream_that_fails_is_told_from_a_package_that_is_not() {
    let (service, registry) = service().await;
    let stage = Stage::set(&service).await;
    let bearer = format!("Bearer {}", stage.token.token);
    for (ours, theirs) in
        [(NPM, "/npm/widgets"), (PAGE, "/simple/widgets/"), ("/pypi/files/widgets/widgets-1.0.zip", "/simple/widgets/")]
    {
        for (says, status, code) in [
            (Says::status(404), 404, "NOT_FOUND"),
            (Says::status(410), 404, "NOT_FOUND"),
            (Says::status(401), 502, "BAD_GATEWAY"),
            (Says::status(403), 502, "BAD_GATEWAY"),
            (Says::status(429), 502, "BAD_GATEWAY"),
            (Says::status(500), 502, "BAD_GATEWAY"),
            (Says::status(503), 502, "BAD_GATEWAY"),
            (Says::status(204), 502, "BAD_GATEWAY"),
            // Not modified since nobody said when.
            (Says::status(304), 502, "BAD_GATEWAY"),
            (Says::status(504), 504, "GATEWAY_TIMEOUT"),
            (Says::status(302).with("location", theirs), 502, "BAD_GATEWAY"),
            (Says::found("application/json", "<html>login</html>"), 502, "BAD_GATEWAY"),
            (Says::found("application/vnd.pypi.simple.v1+json", "{"), 502, "BAD_GATEWAY"),
            (Says::found("application/json", b"\xff".as_slice()), 502, "BAD_GATEWAY"),
            (Says::found("text/html", "x").with("content-encoding", "gzip"), 502, "BAD_GATEWAY"),
        ] {
            registry.says(theirs, says.clone());
            let answer = get(&service, ours, &bearer).await;
            assert_eq!(answer.status, status, "{ours}: {says:?}: {}", answer.text);
            assert_problem(&answer, status, code);
        }
        registry.says(theirs, Says::status(200).after(Duration::from_secs(5)));
        assert_problem(&get(&service, ours, &bearer).await, 504, "GATEWAY_TIMEOUT");
    }
    let dead = Settings { npm: shared::registry::upstream::Upstream::parse("http://127.0.0.1:1/"), ..no_upstreams() };
    let service = Service::start_with_registries(dead).await;
    let stage = Stage::set(&service).await;
    let bearer = format!("Bearer {}", stage.token.token);
    assert_problem(&get(&service, NPM, &bearer).await, 502, "BAD_GATEWAY");
    // None is configured at all.
    assert_problem(&get(&service, PAGE, &bearer).await, 502, "BAD_GATEWAY");
}

#[tokio::test]
async fn nothing_is_written_to_a_registry() {
    let (service, registry) = service().await;
    let stage = Stage::set(&service).await;
    // `npm logout` has the token in the path.
    let logout = format!("/npm/-/user/token/{}", stage.token.token);
    for path in
        [NPM, TARBALL, PAGE, WHEEL, &logout, "/npm/-/v1/login", "/npm/-/user/org.couchdb.user:x", "/pypi/legacy/"]
    {
        for method in [Method::PUT, Method::POST, Method::DELETE, Method::PATCH, Method::OPTIONS] {
            let request = service.request(method.clone(), path).bearer_auth(&stage.token.token);
            let answer = service.send(request.body("{}")).await;
            assert_problem(&answer, 405, "METHOD_NOT_ALLOWED");
            assert_eq!(answer.header("allow"), "GET, HEAD", "{method} {path}");
        }
    }
    assert!(registry.asked().is_empty());
}

#[tokio::test]
async fn no_path_sends_anybody_anywhere_else() {
    let (service, registry) = service().await;
    let stage = Stage::set(&service).await;
    let bearer = format!("Bearer {}", stage.token.token);
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
        "/pypi/files/a/evil.example/a-1.0.zip",
        "/pypi/files/a/127.0.0.1/a-1.0.zip",
        "/pypi/files/a/-/%2f%2fevil.example/a-1.0.zip",
        "/pypi/files/a/-/..%2f..%2fa-1.0.zip",
        "/pypi/files/a/-/x%0d%0ax/a-1.0.zip",
        "/pypi/simple/%2f%2fevil.example/",
        "/pypi/simple/..%2f..%2fetc/",
        "/pypi/simple/evil.example%2f/",
    ] {
        let answer = get(&service, path, &bearer).await;
        assert_problem(&answer, 404, "NOT_FOUND");
        assert_eq!(answer.header("location"), "", "{path}");
    }
    // Of a host that is not known, whether the index names it.
    assert!(registry.asked().iter().all(|asked| asked.path == "/simple/a/"));
}

#[tokio::test]
async fn nobody_is_sent_on_within_a_host_since_npm_would_take_the_token_along() {
    let (service, registry) = service().await;
    let stage = Stage::set(&service).await;
    for path in [TARBALL, WHEEL, &format!("{WHEEL}.metadata")] {
        let request =
            |host: &str| service.request(Method::GET, path).bearer_auth(&stage.token.token).header("host", host);
        let answer = service.send(request("localhost:3000")).await;
        assert_problem(&answer, 502, "BAD_GATEWAY");
        assert!(answer.text.contains("same host name") && answer.header("location").is_empty(), "{}", answer.text);
        assert_eq!(service.send(request("guard.example.com")).await.status, 302);
    }
    assert!(registry.url.starts_with("http://localhost:"));
    // By its public name too, whatever a proxy calls us.
    let public_url = PublicUrl::Fixed("https://localhost/registries".to_owned());
    let service = Service::start_with_registries(Settings { public_url, ..registry.settings() }).await;
    let stage = Stage::set(&service).await;
    for host in ["localhost", "guard.example.com"] {
        let request = service.request(Method::GET, TARBALL).bearer_auth(&stage.token.token).header("host", host);
        assert_problem(&service.send(request).await, 502, "BAD_GATEWAY");
    }
}

#[tokio::test]
async fn an_upstream_leads_us_on_over_the_web_alone() {
    let (service, registry) = service().await;
    let stage = Stage::set(&service).await;
    let bearer = format!("Bearer {}", stage.token.token);
    registry.says("/npm/renamed", Says::status(301).with("location", "/npm/widgets"));
    assert_eq!(get(&service, "/npm/renamed", &bearer).await.status, 200);
    registry.says("/npm/renamed", Says::status(301).with("location", "file:///etc/passwd"));
    assert_problem(&get(&service, "/npm/renamed", &bearer).await, 502, "BAD_GATEWAY");
}

#[tokio::test]
async fn a_token_that_somebody_put_into_the_path_reaches_no_upstream() {
    let (service, registry) = service().await;
    let stage = Stage::set(&service).await;
    let token = &stage.token.token;
    for path in [
        format!("/npm/{token}"),
        format!("/npm/@{token}/x"),
        format!("/npm/@scope%2f{token}"),
        format!("/npm/widgets/{token}"),
        format!("/npm/-/package/{token}/dist-tags"),
        format!("/pypi/simple/{token}/"),
    ] {
        assert_problem(&get(&service, &path, &format!("Bearer {token}")).await, 404, "NOT_FOUND");
    }
    assert!(registry.asked().is_empty());
}

#[tokio::test]
async fn a_host_that_is_none_gets_no_answer_with_it() {
    let (service, _) = service().await;
    let stage = Stage::set(&service).await;
    for (host, status) in [("guard.example.com", 200), ("guard.example.com:8443", 200), ("user@guard.example.com", 400)]
    {
        let request = service.request(Method::GET, NPM).bearer_auth(&stage.token.token).header("host", host);
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
async fn a_use_costs_one_read_and_a_download_an_entry_more() {
    let (service, _) = service().await;
    let stage = Stage::set(&service).await;
    let bearer = format!("Bearer {}", stage.token.token);
    let cost = async |path: &str| {
        let cost = get(&service, path, &bearer).await.cost();
        (cost.read, cost.write)
    };
    // The first use is noted, and the organization looked up.
    assert_eq!(cost(NPM).await, (2.0, 1.0));
    assert_eq!(cost(NPM).await, (1.0, 0.0));
    // Whether it is a retry, and the entry in its table and three indexes.
    assert_eq!(cost(TARBALL).await, (2.0, 4.0));
    // A retry is found, and that is all.
    assert_eq!(cost(TARBALL).await, (2.0, 0.0));
    let session = service.request(Method::GET, WHEEL).header("authorization", &bearer).header("npm-session", "a1");
    let cost = service.send(session).await.cost();
    assert_eq!((cost.read, cost.write), (1.0, 4.0));
}
