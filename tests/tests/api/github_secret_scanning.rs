//! GitHub's reports of leaked tokens: signatures, keys, and the answer.

use std::time::Duration;

use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};
use shared::domain::LeakPolicy;
use shared::oidc::PlainHttp;
use shared::permissions::Role;
use shared::secret::TokenKind;
use shared::secret_scanning::ScannerKeys;
use tests::coverage::{mistyped, unknown_token};
use tests::faults::Fault;
use tests::scanner::{CURRENT, SCANNED, ScannerKey, scanned};
use tests::table::text;
use tests::upstream::Reply;
use tests::{Service, manual_clock};

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(60 * 60);

/// The label of each token in the answer.
async fn labels(service: &Service, tokens: &[&str]) -> Vec<String> {
    let answer = service.scan(tokens).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    let entries = answer.json();
    let entries = entries.as_array().unwrap();
    for (entry, token) in entries.iter().zip(tokens) {
        assert_eq!((text(entry, "token_raw"), text(entry, "token_type")), (*token, "guard_tokens"));
        assert_eq!(entry.as_object().unwrap().len(), 3);
    }
    entries.iter().map(|entry| text(entry, "label").to_owned()).collect()
}

async fn is_active(service: &Service, token: &str) -> bool {
    service.whoami(token).await.status == 200
}

#[tokio::test]
async fn reported_tokens_end_and_the_answer_says_which_are_ours() {
    let service = Service::start_with_manual_clock().await;
    let (org, owner) = service.org_with_owner().await;
    let user = service.issue(&org, &owner, "alice-laptop").await.token;
    let revoked = service.issue(&org, &owner, "alice-laptop").await;
    service.revoke(&org, &owner, &revoked).await;
    let access = service.access_token(&owner, &json!({"name": "server"})).await.token;
    let bot = service.bot(&org, &[Role::Owner]).await.credential;
    let (unknown, wrong) = (unknown_token(TokenKind::OrgUser), mistyped(&user));
    let all = [&*user, &unknown, &revoked.token, &wrong, &access, "hunter2", &bot, &user];
    let expected = ["true", "false", "true", "false", "true", "false", "true", "true"];
    let expected = expected.map(|label| format!("{label}_positive"));
    assert_eq!(labels(&service, &all).await, expected);
    for token in [&user, &access, &bot] {
        assert!(!is_active(&service, token).await);
    }
    // GitHub sends a report again if it has missed the answer.
    assert_eq!(labels(&service, &all).await, expected);
    let entries = service.table.audit_entries(&org.id).await;
    let leaks: Vec<&Value> = entries.iter().filter(|entry| text(entry, "action").ends_with(".leaked")).collect();
    assert_eq!(leaks.len(), 3);
    for entry in leaks {
        assert_eq!(entry["actor"], json!({"kind": "integration", "id": "github-secret-scanning"}));
        assert_eq!(text(entry, "detail"), "found at https://github.com/octocat/hello/blob/main/.npmrc");
    }
}

#[tokio::test]
async fn organization_that_is_told_only_keeps_its_tokens() {
    let service = Service::start_with_manual_clock().await;
    let (org, owner) = service.org_with_owner().await;
    service.set_leaks(&org.id, &[], LeakPolicy::TellOnly).await;
    let token = service.issue(&org, &owner, "alice-laptop").await.token;
    assert_eq!(labels(&service, &[&token]).await, ["true_positive"]);
    assert!(is_active(&service, &token).await);
}

#[tokio::test]
async fn report_without_a_good_signature_is_401_and_has_no_effect() {
    let service = Service::start_with_manual_clock().await;
    let (org, owner) = service.org_with_owner().await;
    let token = service.issue(&org, &owner, "alice-laptop").await.token;
    let body = scanned(&[&token]).to_string();
    let stranger = ScannerKey::generate("current");
    let unknown = ScannerKey::generate("unknown");
    let with = |headers: &[(&str, &str)], body: &str| {
        let request = service.request(Method::POST, SCANNED).header("content-type", "application/json");
        headers.iter().fold(request, |request, (name, value)| request.header(*name, *value)).body(body.to_owned())
    };
    let (id, signature) = ("github-public-key-identifier", "github-public-key-signature");
    let good = CURRENT.sign(body.as_bytes());
    let attempts: Vec<(&str, RequestBuilder)> = vec![
        ("nothing", with(&[], &body)),
        ("no signature", with(&[(id, "current")], &body)),
        ("no identifier", with(&[(signature, &good)], &body)),
        ("two signatures", with(&[(id, "current"), (signature, &good), (signature, &good)], &body)),
        ("two identifiers", with(&[(id, "current"), (id, "current"), (signature, &good)], &body)),
        ("an empty signature", with(&[(id, "current"), (signature, "")], &body)),
        ("no Base64", with(&[(id, "current"), (signature, "???")], &body)),
        ("half a signature", with(&[(id, "current"), (signature, &good[..40])], &body)),
        ("another body", with(&[(id, "current"), (signature, &good)], &body.replace("content", "commit"))),
        ("another body by a space", with(&[(id, "current"), (signature, &good)], &format!("{body} "))),
        ("no body", with(&[(id, "current"), (signature, &good)], "")),
        ("a body that is no JSON", with(&[(id, "current"), (signature, &good)], "{")),
        ("another key's signature", service.signed(&stranger, &body)),
        ("an unknown key", service.signed(&unknown, &body)),
        ("a bot", with(&[], &body).bearer_auth(&owner.credential)),
    ];
    for (what, request) in attempts {
        let answer = service.send(request).await;
        assert_eq!(answer.status, 401, "{what}: {}", answer.text);
        answer.assert_error(401, "UNAUTHORIZED");
        assert!(!answer.text.contains(&token), "{what}");
    }
    assert!(is_active(&service, &token).await);
    assert_eq!(service.table.audited_tokens(&org.id).await.len(), 1);
}

#[tokio::test]
async fn route_is_404_where_no_keys_are_configured() {
    let service = Service::start_without_scanner().await;
    for tokens in [&["x"][..], &[]] {
        service.scan(tokens).await.assert_error(404, "NOT_FOUND");
    }
    service.send(service.request(Method::POST, SCANNED)).await.assert_error(404, "NOT_FOUND");
}

#[tokio::test]
async fn keys_are_fetched_once_and_anew_for_an_unknown_one_at_most_once_a_minute() {
    let service = Service::start_with_manual_clock().await;
    let next = ScannerKey::generate("next");
    let body = scanned(&["x"]).to_string();
    let status = async |key: &ScannerKey| service.send(service.signed(key, &body)).await.status.as_u16();
    for _ in 0..3 {
        assert_eq!(status(&CURRENT).await, 200);
    }
    assert_eq!(service.scanner.requests(), 1);
    // The keys have just been fetched.
    service.scanner.publish(&[&CURRENT, &next]);
    assert_eq!(status(&next).await, 401);
    assert_eq!(service.scanner.requests(), 0);
    service.clock.advance(MINUTE);
    assert_eq!((status(&next).await, status(&CURRENT).await), (200, 200));
    assert_eq!(service.scanner.requests(), 1);
    // Made-up identifiers cost one request a minute.
    let unknown = ScannerKey::generate("unknown");
    for _ in 0..3 {
        service.clock.advance(MINUTE);
        for _ in 0..3 {
            assert_eq!(status(&unknown).await, 401);
        }
        assert_eq!(service.scanner.requests(), 1);
    }
}

#[tokio::test]
async fn withdrawn_key_stops_working_after_an_hour() {
    let service = Service::start_with_manual_clock().await;
    let next = ScannerKey::generate("next");
    assert_eq!(service.scan(&["x"]).await.status, 200);
    service.scanner.publish(&[&next]);
    service.clock.advance(HOUR - MINUTE);
    assert_eq!(service.scan(&["x"]).await.status, 200);
    service.clock.advance(MINUTE);
    service.scan(&["x"]).await.assert_error(401, "UNAUTHORIZED");
}

#[tokio::test]
async fn last_good_keys_are_kept_while_their_server_is_down() {
    let service = Service::start_with_manual_clock().await;
    let next = ScannerKey::generate("next");
    let body = scanned(&["x"]).to_string();
    assert_eq!(service.scan(&["x"]).await.status, 200);
    for reply in [Reply::status(503), Reply::ok("application/json", "{"), Reply::ok("application/json", "[]")] {
        service.scanner.answer(reply);
        service.clock.advance(2 * HOUR);
        assert_eq!(service.scan(&["x"]).await.status, 200);
        // Whether it is known cannot be found out, now and in the same minute.
        for _ in 0..2 {
            service.send(service.signed(&next, &body)).await.assert_error(503, "SERVICE_UNAVAILABLE");
        }
    }
    service.clock.advance(MINUTE);
    service.scanner.publish(&[&next]);
    assert_eq!(service.send(service.signed(&next, &body)).await.status, 200);
}

#[tokio::test]
async fn without_keys_reports_are_503_until_the_keys_can_be_had() {
    let service = Service::start_with_manual_clock().await;
    let large = format!("{{\"public_keys\": [], \"x\": \"{}\"}}", "x".repeat(300_000));
    let elsewhere = Reply::status(302).with_header("location", &format!("{}/elsewhere", service.scanner.server.url));
    service.scanner.server.stub("/elsewhere", Reply::ok("application/json", r#"{"public_keys": []}"#));
    for reply in [Reply::status(404), elsewhere, Reply::ok("application/json", large)] {
        service.scanner.answer(reply);
        service.clock.advance(MINUTE);
        service.scan(&["x"]).await.assert_error(503, "SERVICE_UNAVAILABLE");
        let requests = service.scanner.server.take_requests();
        assert!(requests.iter().all(|request| request.path != "/elsewhere"), "{requests:?}");
    }
    service.scanner.publish(&[&CURRENT]);
    service.scan(&["x"]).await.assert_error(503, "SERVICE_UNAVAILABLE");
    service.clock.advance(MINUTE);
    assert_eq!(service.scan(&["x"]).await.status, 200);
}

#[tokio::test]
async fn url_of_the_keys_is_https_and_plain_http_only_on_this_machine_in_local_mode() {
    for (url, deployed, local) in [
        ("https://api.github.com/meta/public_keys/secret_scanning", true, true),
        ("http://api.github.com/meta/public_keys/secret_scanning", false, false),
        ("http://127.0.0.1:9/keys", false, true),
        ("http://10.0.0.1/keys", false, false),
        ("https://user:password@example.com/keys", false, false),
        ("file:///etc/passwd", false, false),
        ("", false, false),
    ] {
        let is_usable = |plain_http| ScannerKeys::new(url, plain_http, manual_clock()).is_ok();
        assert_eq!(is_usable(PlainHttp::Refused), deployed, "{url}");
        assert_eq!(is_usable(PlainHttp::OnLoopback), local, "{url}");
    }
}

#[tokio::test]
async fn signed_body_must_be_a_list_of_1_to_1000_tokens() {
    let service = Service::start_with_manual_clock().await;
    let long: Vec<&str> = vec!["x"; 1_001];
    for body in [
        "[]".to_owned(),
        "{}".to_owned(),
        String::new(),
        r#"[{"type": "x"}]"#.to_owned(),
        r#"[{"token": 7}]"#.to_owned(),
        scanned(&long).to_string(),
    ] {
        service.send(service.signed(&CURRENT, &body)).await.assert_error(400, "BAD_REQUEST");
    }
    assert_eq!(labels(&service, &long[1..]).await.len(), 1_000);
    let large = format!("{}{}", scanned(&["x"]), " ".repeat(1_048_577));
    let answer = service.send(service.signed(&CURRENT, &large[..1_048_576])).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    let answer = service.send(service.signed(&CURRENT, &large[..1_048_577])).await;
    answer.assert_error(413, "PAYLOAD_TOO_LARGE");
}

#[tokio::test]
async fn unknown_fields_query_and_places_do_not_keep_a_token_from_being_ended() {
    let service = Service::start_with_manual_clock().await;
    let (org, owner) = service.org_with_owner().await;
    for entry in [
        json!({"url": "", "type": "a", "new_field": 1}),
        json!({"url": null}),
        json!({"type": "a", "url": "not a URL", "source": "npm"}),
        json!({"url": "http://example.com/"}),
        json!({}),
    ] {
        let token = service.issue(&org, &owner, "alice-laptop").await.token;
        let mut entry = entry;
        entry["token"] = token.as_str().into();
        let body = json!([entry]).to_string();
        let (client, request) = service.signed(&CURRENT, &body).build_split();
        let mut request = request.unwrap();
        request.url_mut().set_query(Some("delivery=1"));
        let answer = service.send(RequestBuilder::from_parts(client, request)).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
        assert!(!is_active(&service, &token).await, "{body}");
    }
    let entries = service.table.audited_tokens(&org.id).await;
    let details = entries.iter().filter(|entry| text(entry, "action").ends_with("leaked"));
    assert!(details.map(|entry| text(entry, "detail")).all(|detail| detail == "found"));
}

#[tokio::test]
async fn signed_reports_are_not_limited() {
    let service = Service::start_with_manual_clock().await;
    for _ in 0..70 {
        assert_eq!(service.scan(&["x"]).await.status, 200);
    }
    let unknown: Vec<String> = (0..1_000).map(|_| unknown_token(TokenKind::OrgUser)).collect();
    let unknown: Vec<&str> = unknown.iter().map(String::as_str).collect();
    for _ in 0..3 {
        assert_eq!(labels(&service, &unknown).await, vec!["false_positive"; 1_000]);
    }
}

#[tokio::test]
async fn report_that_fails_is_503_and_its_repeat_labels_what_the_first_one_ended() {
    let (service, faults) = Service::start_with_faults().await;
    let (_, owner) = service.org_with_owner().await;
    let first = service.access_token(&owner, &json!({"name": "a"})).await.token;
    for place in 0..3 {
        faults.arm(place, &[], Some(Fault::LostBefore));
        let answer = service.scan(&[&first]).await;
        faults.disarm();
        answer.assert_error(503, "SERVICE_UNAVAILABLE");
    }
    // The answer to the transaction is lost: the token is gone.
    faults.arm(4, &[], Some(Fault::LostAfter));
    service.scan(&[&first]).await.assert_error(503, "SERVICE_UNAVAILABLE");
    faults.disarm();
    assert_eq!(labels(&service, &[&first]).await, ["true_positive"]);
    assert!(!is_active(&service, &first).await);
}
