//! Logs at the most verbose level during valid and invalid calls to everything: one line per
//! request with IDs and figures, and no secrets.
//!
//! A single test, because the log is global to a process.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use reqwest::Method;
use serde_json::{Value, json};
use shared::domain::Ecosystem;
use shared::ids::TokenId;
use shared::permissions::Operation;
use shared::registry::Settings;
use shared::secret::{Token, TokenKind};
use shared::store::installations::{Download, Recorded};
use tests::coverage::{Covered, Fixtures, Guard, InvalidCredentials, mistyped, routed, unknown_token};
use tests::faults::{Fault, Faults};
use tests::log::Log;
use tests::table::text;
use tests::upstream::{Registry, Reply};
use tests::{Answer, Service, hash_for, no_upstreams};
use tracing_subscriber::filter::LevelFilter;

/// A secret that must not be logged, sent in unusual places.
const SECRET: &str = "hunter2-Correct-Horse-9F3A";

/// The requests made, and the secrets they contained.
#[derive(Default)]
struct Recorder {
    /// Each response with the expected method, route and, if known, principal of its log line.
    requests: Vec<(Answer, Method, Option<&'static str>, Option<String>)>,
    secrets: Vec<String>,
}

impl Recorder {
    fn add(&mut self, covered: &Covered, principal: Option<&str>, answer: Answer) {
        if !answer.text.is_empty() && answer.status.is_success() {
            let body = answer.json();
            for field in ["token", "key", "access_token"] {
                // The masked token of a list is not a secret.
                if let Some(secret) = body[field].as_str().filter(|secret| Token::parse(secret).is_some()) {
                    self.secret(secret);
                }
            }
        }
        let route = (covered.success != 404).then_some(covered.path);
        self.requests.push((answer, covered.method.clone(), route, principal.map(str::to_owned)));
    }

    /// Records a secret with its hash and the part after its shown prefix.
    fn secret(&mut self, secret: &str) {
        self.secrets.push(secret.to_owned());
        for part in secret.split(':') {
            if let Some(token) = Token::parse(part) {
                self.secrets.push(token.hash().to_hex());
                self.secrets.push(part[token.shown_prefix().len()..].to_owned());
            }
        }
    }

    fn add_fixtures(&mut self, fixtures: &Fixtures) {
        let credentials =
            [&fixtures.owner.credential, &fixtures.token.token, &fixtures.api_key.key, &fixtures.access_token.token];
        credentials.into_iter().for_each(|secret| self.secret(secret));
        [&fixtures.job, &fixtures.email_token, &fixtures.reset_code, &fixtures.email, &fixtures.token.user_identifier]
            .into_iter()
            .for_each(|secret| self.secret(secret));
        self.secret(&fixtures.reset_code.replace('-', ""));
    }
}

#[tokio::test]
async fn each_request_logs_one_line_without_secrets() {
    let log = Log::default();
    tracing::subscriber::set_global_default(log.subscriber(LevelFilter::TRACE)).unwrap();

    let (service, faults) = Service::start_with_faults().await;
    let mut recorder = Recorder::default();
    recorder.secret(SECRET);
    for covered in routed() {
        good_and_bad(&service, &mut recorder, covered).await;
    }
    wrong_credentials(&service, &mut recorder).await;
    failing_table(&service, &faults, &mut recorder).await;
    installation_log(&service, &mut recorder).await;
    registries(&mut recorder).await;
    exchanges(&service, &mut recorder).await;
    recorder.secrets.extend(["bobby-laptop", "carol-laptop", "Authorization", "Bearer "].map(str::to_owned));
    recorder.secrets.extend(service.outbox.mails().into_iter().map(|mail| mail.to));

    let log = log.text();
    check_lines(&recorder, &log);
    for why in ["repository_owner_id", "the signature is wrong"] {
        assert!(log.contains(why), "the log does not say why an exchange was refused: {why}");
    }
    for secret in &recorder.secrets {
        if let Some(line) = log.lines().find(|line| line.contains(secret.as_str())) {
            panic!("{secret} is in the log: {line}");
        }
    }
}

/// An installation with the secret in every field, and searches for it.
async fn installation_log(service: &Service, recorder: &mut Recorder) {
    let fixtures = Fixtures::create(service).await;
    recorder.add_fixtures(&fixtures);
    let said = || Some(SECRET.to_owned());
    let download = Download {
        ecosystem: Ecosystem::Npm,
        package: SECRET.to_owned(),
        version: SECRET.to_owned(),
        file: SECRET.to_owned(),
        user_identifier: said(),
        subject: None,
        token_id: TokenId::parse(&fixtures.token.id).unwrap(),
        client: said(),
        client_version: said(),
        command: said(),
        session: said(),
        source_ip: None,
    };
    for recorded in [Recorded::New, Recorded::Repeated] {
        assert_eq!(
            service.installation_log.record(Some(&fixtures.org.id), hash_for(&download.token_id), &download).await,
            Ok(recorded)
        );
    }
    let job = Download { user_identifier: None, subject: said(), file: "by a job".to_owned(), ..download.clone() };
    let by_job = service.installation_log.record(Some(&fixtures.org.id), hash_for(&job.token_id), &job);
    assert_eq!(by_job.await, Ok(Recorded::New));
    let covered = routed().find(|covered| covered.operation == Operation::InstallationsList).unwrap();
    for query in [format!("?package={SECRET}"), format!("?user_identifier={SECRET}")] {
        let path = fixtures.org.installations(&query);
        let answer = service.call(Method::GET, &path, &fixtures.owner.credential).await;
        assert!(answer.text.contains(SECRET), "{}", answer.text);
        recorder.add(covered, Some(fixtures.owner.id.as_str()), answer);
    }
}

/// Exchanges that are refused, with the secret in every claim.
async fn exchanges(service: &Service, recorder: &mut Recorder) {
    let fixtures = Fixtures::create(service).await;
    recorder.add_fixtures(&fixtures);
    let covered = routed().find(|covered| covered.operation == Operation::BotsExchange).unwrap();
    let mut claims = service.new_claims();
    for name in ["sub", "jti", "repository_owner_id", "ref"] {
        claims[name] = SECRET.into();
    }
    let id_token = service.issuer.sign(&claims);
    let (message, signature) = id_token.rsplit_once('.').unwrap();
    for part in [message, signature] {
        recorder.secret(part);
    }
    for id_token in [&id_token, &format!("{message}.AAAA")] {
        let body = json!({"bot_id": fixtures.owner.id.as_str(), "id_token": id_token});
        let answer = service.exchange(&body).await;
        assert!(!answer.text.contains(SECRET) && !answer.status.is_success(), "{}", answer.text);
        recorder.add(covered, None, answer);
    }
    // What every job of the fixtures claims.
    recorder.secret("acme/widgets");
}

/// Downloads and failures at the registries, with secrets in everything that a package manager
/// sends and the upstream returns.
async fn registries(recorder: &mut Recorder) {
    let registry = Registry::start().await;
    let page = format!("<a href=\"https://{SECRET}.example/{SECRET}-1.0.zip?{SECRET}\">{SECRET}</a>{{");
    registry.stub("/simple/widgets/", Reply::ok("text/html", page.clone()));
    registry.stub("/npm/widgets", Reply::ok("application/json", page));
    registry.stub("/npm/broken", Reply::status(302).with_header("location", &format!("http://localhost:1/{SECRET}")));
    let settings = Settings { npm: registry.upstream("/npm/"), pypi: registry.upstream("/simple/"), ..no_upstreams() };
    let service = Service::start_with_registries(settings).await;
    let fixtures = Fixtures::create(&service).await;
    recorder.add_fixtures(&fixtures);
    let token = &fixtures.token.token;
    let password = BASE64.encode(format!("token:{token}"));
    recorder.secret(&password);
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
            (format!("Bearer {token}"), Some(fixtures.token.id.clone())),
            (format!("Basic {password}"), Some(fixtures.token.id.clone())),
            (format!("Basic {password}x"), None),
        ] {
            let request = service.request(Method::GET, &format!("{path}?{SECRET}={token}"));
            let request =
                request.header("authorization", authorization).header("user-agent", format!("{SECRET}/1 {token}"));
            let request = request.header("npm-session", SECRET).header("npm-command", SECRET).header("referer", SECRET);
            let answer = service.send(request.header("if-none-match", format!("\"{SECRET}\""))).await;
            let route = match path {
                path if path.starts_with("/npm/-/user/token/") => "/npm/-/user/token/{token}",
                path if path.starts_with("/npm") => "/npm/{*path}",
                _ => "/pypi/{*path}",
            };
            // `npm logout` is DELETE: any other method is refused before anybody is authenticated.
            let principal = principal.filter(|_| path != logout);
            recorder.requests.push((answer, Method::GET, Some(route), principal));
        }
    }
}

/// Calls while DynamoDB fails: errors must not log the request to DynamoDB.
async fn failing_table(service: &Service, faults: &Faults, recorder: &mut Recorder) {
    let fixtures = Fixtures::create(service).await;
    recorder.add_fixtures(&fixtures);
    for covered in routed().filter(|covered| !covered.consumes_fixtures()) {
        for (passing, then) in [(0, Fault::ServerError), (1, Fault::NoCapacity)] {
            faults.arm(passing, &[Fault::LostBefore], Some(then));
            recorder.add(covered, None, covered.call(service, &fixtures).await);
        }
        faults.arm(2, &[Fault::Conflict, Fault::LostAfter], None);
        recorder.add(covered, None, covered.call(service, &fixtures).await);
        faults.disarm();
    }
}

/// A valid call, and calls with secrets wherever someone might put them by mistake.
async fn good_and_bad(service: &Service, recorder: &mut Recorder, covered: &Covered) {
    let fixtures = Fixtures::create(service).await;
    recorder.add_fixtures(&fixtures);
    let token = unknown_token(TokenKind::OrgUser);
    recorder.secret(&token);
    let path = covered.path_with(&fixtures);
    let send = async |request| service.send(covered.authorized(request, &fixtures)).await;
    let method = || covered.method.clone();

    for query in [format!("?{SECRET}={token}"), format!("?limit={SECRET}"), format!("?cursor={token}")] {
        recorder.add(covered, None, send(service.request(method(), &format!("{path}{query}"))).await);
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
        recorder.add(covered, None, send(request.body(body)).await);
    }
    if let Some(body) = covered.body {
        for (field, _) in body(&fixtures).as_object().unwrap() {
            for value in [json!(SECRET), json!({SECRET: token})] {
                let mut body = body(&fixtures);
                body[field] = value;
                recorder.add(covered, None, send(service.request(method(), &path).json(&body)).await);
            }
        }
    }
    // Replaces fixtures that were consumed above.
    let fixtures = if covered.consumes_fixtures() { Fixtures::create(service).await } else { fixtures };
    recorder.add_fixtures(&fixtures);
    let principal = match covered.guard {
        Guard::None | Guard::Gateway | Guard::Schedule | Guard::Registry | Guard::Console | Guard::Signed => None,
        // The ID of an email-verified token is not known here.
        Guard::EmailHolder => None,
        Guard::Bot | Guard::Manager | Guard::Authorizer => Some(fixtures.owner.id.as_str()),
        Guard::Holder => Some(fixtures.token.id.as_str()),
    };
    let answer = covered.call(service, &fixtures).await;
    assert_eq!(answer.status, covered.success, "{}: {}", covered.operation.name(), answer.text);
    recorder.add(covered, principal, answer);
}

/// Every invalid credential, and secrets in paths and meaningless headers.
async fn wrong_credentials(service: &Service, recorder: &mut Recorder) {
    let fixtures = Fixtures::create(service).await;
    recorder.add_fixtures(&fixtures);
    let invalid_credentials = InvalidCredentials::create(service, &fixtures).await;
    let covered = routed().find(|covered| covered.operation == Operation::OrgUserTokensRevoke).unwrap();
    for invalid in invalid_credentials.for_operation(covered) {
        for header in &invalid.headers {
            // `Bearer` alone is not a secret.
            if let Some((_, credential)) = header.split_once(' ') {
                recorder.secret(credential);
            }
        }
        recorder.add(covered, None, invalid.call(covered, service, &fixtures).await);
    }
    let secret = mistyped(&fixtures.token.token);
    recorder.secret(&secret);
    let path = covered.path_with(&fixtures).replace(&fixtures.token.id, &secret);
    recorder.add(covered, None, service.call(Method::DELETE, &path, &fixtures.owner.credential).await);
    let unknown_route = routed().find(|covered| covered.success == 404).unwrap();
    recorder.add(unknown_route, None, service.call(Method::GET, &format!("/{secret}?{secret}"), &secret).await);
    let request = service.request(Method::GET, unknown_route.path).header("x-api-key", &secret);
    let request = request.header("cookie", format!("session={secret}")).header("x-request-id", &secret);
    recorder.add(unknown_route, None, service.send(request.header("user-agent", &secret)).await);
}

/// Asserts that each request has exactly one complete log line.
fn check_lines(recorder: &Recorder, log: &str) {
    let mut lines: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for line in log.lines() {
        let line: Value = serde_json::from_str(line).unwrap_or_else(|_| panic!("not JSON: {line}"));
        if line["message"] == "request" {
            lines.entry(text(&line, "request_id").to_owned()).or_default().push(line);
        }
    }
    assert!(recorder.requests.len() > 300);
    for (answer, method, route, principal) in &recorder.requests {
        let found = lines.get(answer.header("x-request-id")).map_or(&[][..], Vec::as_slice);
        let [line] = found else { panic!("{} lines for {method} {route:?}", found.len()) };
        assert_eq!(line["method"], method.as_str(), "{line}");
        assert_eq!(line["route"].as_str(), *route, "{line}");
        assert_eq!(line["status"], answer.status.as_u16(), "{line}");
        assert!(line["latency_ms"].is_u64() && line["timestamp"].is_string(), "{line}");
        assert!(line["read_units"].is_f64() && line["write_units"].is_f64(), "{line}");
        let level = if answer.status.is_server_error() { "ERROR" } else { "INFO" };
        assert_eq!(line["level"], level, "{line}");
        // The answer to a `HEAD` has no body that could be compared.
        let is_error = answer.status.is_client_error() || answer.status.is_server_error();
        if is_error && *method != Method::HEAD {
            assert_eq!(line["code"], answer.code(), "{line}");
        }
        match principal {
            Some(principal) => assert_eq!(line["principal"], principal.as_str(), "{line}"),
            None if answer.status == 401 => assert_eq!(line.get("principal"), None, "{line}"),
            None => {}
        }
    }
}
