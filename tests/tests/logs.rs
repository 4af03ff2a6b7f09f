//! What is logged at the noisiest level while everything is called, rightly and wrongly: one line a request, with ids
//! and figures, and nothing that was sent.
//!
//! One test, because there is one log in a process.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use reqwest::Method;
use serde_json::{Value, json};
use shared::domain::Ecosystem;
use shared::ids::TokenId;
use shared::principal::Operation;
use shared::registry::Settings;
use shared::secret::{Token, TokenKind};
use shared::store::installations::{Download, Recorded};
use tests::coverage::{Cast, Covered, Guard, Stage, made_up, mistyped, routed};
use tests::faults::{Fault, Faults};
use tests::log::Log;
use tests::table::text;
use tests::upstream::{Registry, Says};
use tests::{Answer, Service, no_upstreams};
use tracing_subscriber::filter::LevelFilter;

/// Something that must not be logged, in places where nobody would send it.
const SECRET: &str = "hunter2-Correct-Horse-9F3A";

/// The requests made, and what of them must not be logged.
#[derive(Default)]
struct Tour {
    /// Each with what its line must say: method, route, principal where known.
    made: Vec<(Answer, Method, Option<&'static str>, Option<String>)>,
    secrets: Vec<String>,
}

impl Tour {
    fn add(&mut self, covered: &Covered, principal: Option<&str>, answer: Answer) {
        if !answer.text.is_empty() && answer.status.is_success() {
            let body = answer.json();
            for field in ["token", "key"] {
                // The shortened token of a list may be shown, so it may be logged.
                if let Some(secret) = body[field].as_str().filter(|secret| Token::parse(secret).is_some()) {
                    self.secret(secret);
                }
            }
        }
        let route = (covered.success != 404).then_some(covered.path);
        self.made.push((answer, covered.method.clone(), route, principal.map(str::to_owned)));
    }

    /// A secret must not show, nor its hash, nor what is left of it where a beginning is shown.
    fn secret(&mut self, secret: &str) {
        self.secrets.push(secret.to_owned());
        for part in secret.split(':') {
            if let Some(token) = Token::parse(part) {
                self.secrets.push(token.hash().to_hex());
                self.secrets.push(part[token.shown_prefix().len()..].to_owned());
            }
        }
    }

    fn stage(&mut self, stage: &Stage) {
        let credentials = [&stage.owner.credential, &stage.token.token, &stage.api_key.key, &stage.access_token.token];
        credentials.into_iter().for_each(|secret| self.secret(secret));
        [&stage.email_token, &stage.reset_code, &stage.email, &stage.token.user_identifier]
            .into_iter()
            .for_each(|secret| self.secret(secret));
        self.secret(&stage.reset_code.replace('-', ""));
    }
}

#[tokio::test]
async fn a_log_says_what_happened_and_nothing_that_was_sent() {
    let log = Log::default();
    tracing::subscriber::set_global_default(log.subscriber(LevelFilter::TRACE)).unwrap();

    let (service, faults) = Service::start_with_faults().await;
    let mut tour = Tour::default();
    tour.secret(SECRET);
    for covered in routed() {
        good_and_bad(&service, &mut tour, covered).await;
    }
    wrong_credentials(&service, &mut tour).await;
    failing_table(&service, &faults, &mut tour).await;
    installation_log(&service, &mut tour).await;
    registries(&mut tour).await;
    tour.secrets.extend(["bobby-laptop", "carol-laptop", "Authorization", "Bearer "].map(str::to_owned));
    tour.secrets.extend(service.outbox.mails().into_iter().map(|mail| mail.to));

    let log = log.text();
    check_lines(&tour, &log);
    for secret in &tour.secrets {
        if let Some(line) = log.lines().find(|line| line.contains(secret.as_str())) {
            panic!("{secret} is in the log: {line}");
        }
    }
}

/// An installation in whose every word is something that must not be logged, and a search for it.
async fn installation_log(service: &Service, tour: &mut Tour) {
    let stage = Stage::set(service).await;
    tour.stage(&stage);
    let said = || Some(SECRET.to_owned());
    let download = Download {
        ecosystem: Ecosystem::Npm,
        package: SECRET.to_owned(),
        version: SECRET.to_owned(),
        file: SECRET.to_owned(),
        user_identifier: SECRET.to_owned(),
        token_id: TokenId::parse(&stage.token.id).unwrap(),
        client: said(),
        client_version: said(),
        command: said(),
        session: said(),
        source_ip: None,
    };
    for recorded in [Recorded::New, Recorded::Repeated] {
        assert_eq!(service.installation_log.record(Some(&stage.org.id), &download).await, Ok(recorded));
    }
    let covered = routed().find(|covered| covered.operation == Operation::InstallationsList).unwrap();
    for query in [format!("?package={SECRET}"), format!("?user_identifier={SECRET}")] {
        let path = stage.org.installations(&query);
        let answer = service.call(Method::GET, &path, &stage.owner.credential).await;
        assert!(answer.text.contains(SECRET), "{}", answer.text);
        tour.add(covered, Some(stage.owner.id.as_str()), answer);
    }
}

/// Downloads and failures at the registries, with a secret in whatever a package manager sends, and in what the upstream
/// answers.
async fn registries(tour: &mut Tour) {
    let registry = Registry::start().await;
    let page = format!("<a href=\"https://{SECRET}.example/{SECRET}-1.0.zip?{SECRET}\">{SECRET}</a>{{");
    registry.says("/simple/widgets/", Says::found("text/html", page.clone()));
    registry.says("/npm/widgets", Says::found("application/json", page));
    registry.says("/npm/broken", Says::status(302).with("location", &format!("http://localhost:1/{SECRET}")));
    let settings = Settings { npm: registry.upstream("/npm/"), pypi: registry.upstream("/simple/"), ..no_upstreams() };
    let service = Service::start_with_registries(settings).await;
    let stage = Stage::set(&service).await;
    tour.stage(&stage);
    let token = &stage.token.token;
    let password = BASE64.encode(format!("token:{token}"));
    tour.secret(&password);
    let logout = format!("/npm/-/user/token/{token}");
    for path in [
        "/npm/widgets",
        "/npm/broken",
        "/npm/widgets/-/widgets-1.0.0.tgz",
        "/pypi/simple/widgets/",
        "/pypi/files/widgets/-/widgets-1.0.zip",
        &format!("/npm/{SECRET}"),
        &logout,
    ] {
        for (authorization, principal) in [
            (format!("Bearer {token}"), Some(stage.token.id.clone())),
            (format!("Basic {password}"), Some(stage.token.id.clone())),
            (format!("Basic {password}x"), None),
        ] {
            let request = service.request(Method::GET, &format!("{path}?{SECRET}={token}"));
            let request =
                request.header("authorization", authorization).header("user-agent", format!("{SECRET}/1 {token}"));
            let request = request.header("npm-session", SECRET).header("npm-command", SECRET).header("referer", SECRET);
            let answer = service.send(request.header("if-none-match", format!("\"{SECRET}\""))).await;
            let route = if path.starts_with("/npm") { "/npm/{*path}" } else { "/pypi/{*path}" };
            tour.made.push((answer, Method::GET, Some(route), principal));
        }
    }
}

/// Calls during which DynamoDB fails: what it was asked must not be in what is logged about it.
async fn failing_table(service: &Service, faults: &Faults, tour: &mut Tour) {
    let stage = Stage::set(service).await;
    tour.stage(&stage);
    for covered in routed().filter(|covered| !covered.uses_up_its_stage()) {
        for (passing, then) in [(0, Fault::ServerError), (1, Fault::NoCapacity)] {
            faults.arm(passing, &[Fault::LostBefore], Some(then));
            tour.add(covered, None, covered.call(service, &stage).await);
        }
        faults.arm(2, &[Fault::Conflict, Fault::LostAfter], None);
        tour.add(covered, None, covered.call(service, &stage).await);
        faults.disarm();
    }
}

/// A good call, and calls with secrets wherever somebody might put them by mistake.
async fn good_and_bad(service: &Service, tour: &mut Tour, covered: &Covered) {
    let stage = Stage::set(service).await;
    tour.stage(&stage);
    let token = made_up(TokenKind::OrgUser);
    tour.secret(&token);
    let path = covered.path_on(&stage);
    let send = async |request| service.send(covered.authorized(request, &stage)).await;
    let method = || covered.method.clone();

    for query in [format!("?{SECRET}={token}"), format!("?limit={SECRET}"), format!("?cursor={token}")] {
        tour.add(covered, None, send(service.request(method(), &format!("{path}{query}"))).await);
    }
    for body in [
        SECRET.to_owned(),
        json!(token).to_string(),
        json!({SECRET: token}).to_string(),
        format!(
            "{{\"token\": \"{token}\", \"user_identifier\": \"{SECRET} \", \"email\": \"{SECRET}\", \"name\": {SECRET}"
        ),
    ] {
        let request = service.request(method(), &path).header("content-type", "application/json");
        tour.add(covered, None, send(request.body(body)).await);
    }
    if let Some(body) = covered.body {
        for (field, _) in body(&stage).as_object().unwrap() {
            for value in [json!(SECRET), json!({SECRET: token})] {
                let mut body = body(&stage);
                body[field] = value;
                tour.add(covered, None, send(service.request(method(), &path).json(&body)).await);
            }
        }
    }
    // What used something up above must be good once more.
    let stage = if covered.uses_up_its_stage() { Stage::set(service).await } else { stage };
    tour.stage(&stage);
    let principal = match covered.guard {
        Guard::None | Guard::Gateway | Guard::Registry => None,
        // Of the holder of an e-mail-verified token the management id is known to nobody here.
        Guard::EmailHolder => None,
        Guard::Bot | Guard::Manager | Guard::Authorizer => Some(stage.owner.id.as_str()),
    };
    let answer = covered.call(service, &stage).await;
    assert_eq!(answer.status, covered.success, "{}: {}", covered.operation.name(), answer.text);
    tour.add(covered, principal, answer);
}

/// Every credential that is refused, and secrets in paths and in headers of no meaning.
async fn wrong_credentials(service: &Service, tour: &mut Tour) {
    let stage = Stage::set(service).await;
    tour.stage(&stage);
    let cast = Cast::gather(service, &stage).await;
    let covered = routed().find(|covered| covered.path.contains("by-id")).unwrap();
    for wrong in cast.against(covered) {
        for header in &wrong.headers {
            // `Bearer` alone is no secret.
            if let Some((_, credential)) = header.split_once(' ') {
                tour.secret(credential);
            }
        }
        tour.add(covered, None, wrong.call(covered, service, &stage).await);
    }
    let secret = mistyped(&stage.token.token);
    tour.secret(&secret);
    let path = covered.path_on(&stage).replace(&stage.token.id, &secret);
    tour.add(covered, None, service.call(Method::DELETE, &path, &stage.owner.credential).await);
    let nowhere = routed().find(|covered| covered.success == 404).unwrap();
    tour.add(nowhere, None, service.call(Method::GET, &format!("/{secret}?{secret}"), &secret).await);
    let request = service.request(Method::GET, nowhere.path).header("x-api-key", &secret);
    let request = request.header("cookie", format!("session={secret}")).header("x-request-id", &secret);
    tour.add(nowhere, None, service.send(request.header("user-agent", &secret)).await);
}

/// Checks that each request has exactly one line, which says what it must.
fn check_lines(tour: &Tour, log: &str) {
    let mut lines: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for line in log.lines() {
        let line: Value = serde_json::from_str(line).unwrap_or_else(|_| panic!("not JSON: {line}"));
        if line["message"] == "request" {
            lines.entry(text(&line, "request_id").to_owned()).or_default().push(line);
        }
    }
    assert!(tour.made.len() > 300);
    for (answer, method, route, principal) in &tour.made {
        let found = lines.get(answer.header("x-request-id")).map_or(&[][..], Vec::as_slice);
        let [line] = found else { panic!("{} lines for {method} {route:?}", found.len()) };
        assert_eq!(line["method"], method.as_str(), "{line}");
        assert_eq!(line["route"].as_str(), *route, "{line}");
        assert_eq!(line["status"], answer.status.as_u16(), "{line}");
        assert!(line["latency_ms"].is_u64() && line["timestamp"].is_string(), "{line}");
        assert!(line["read_units"].is_f64() && line["write_units"].is_f64(), "{line}");
        let level = if answer.status.is_server_error() { "ERROR" } else { "INFO" };
        assert_eq!(line["level"], level, "{line}");
        if answer.status.is_client_error() || answer.status.is_server_error() {
            assert_eq!(line["code"], answer.code(), "{line}");
        }
        match principal {
            Some(principal) => assert_eq!(line["principal"], principal.as_str(), "{line}"),
            None if answer.status == 401 => assert_eq!(line.get("principal"), None, "{line}"),
            None => {}
        }
    }
}
