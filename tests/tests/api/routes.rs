//! Unknown paths, other methods, and headers that every response has.

use std::collections::BTreeSet;

use reqwest::Method;
use tests::Service;
use tests::coverage::{Fixtures, routed};

#[tokio::test]
async fn unknown_paths_are_404() {
    let service = Service::start().await;
    let fixtures = Fixtures::create(&service).await;
    let tokens = fixtures.org.org_user_tokens("");
    for path in [
        "/",
        "/v1",
        "/v1/",
        "/v2/docs/openapi.json",
        "/v1/docs/openapi.json/",
        "/favicon.ico",
        &format!("{tokens}/"),
        &format!("/{tokens}"),
        &format!("{tokens}/by-id"),
        &format!("{tokens}/by-id/"),
        &format!("{tokens}/by-id/{}/x", fixtures.token.id),
        &format!("{tokens}/Probe"),
        &tokens.to_uppercase(),
        &format!("{tokens}%2fprobe"),
    ] {
        for method in [Method::GET, Method::POST, Method::DELETE] {
            let answer = service.call(method.clone(), path, &fixtures.owner.credential).await;
            assert_eq!(answer.status, 404, "{method} {path}: {}", answer.text);
            answer.assert_error(404, "NOT_FOUND");
        }
    }
}

#[tokio::test]
async fn other_methods_are_405_with_allow() {
    let service = Service::start().await;
    let fixtures = Fixtures::create(&service).await;
    for covered in routed().filter(|covered| covered.success != 404) {
        let same_path = routed().filter(|other| other.path == covered.path);
        let taken: BTreeSet<&str> = same_path.map(|other| other.method.as_str()).collect();
        for method in ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PURGE"] {
            if taken.contains(method) {
                continue;
            }
            // A 405 needs no credential.
            let method = Method::from_bytes(method.as_bytes()).unwrap();
            let answer = service.send(service.request(method.clone(), &covered.path_with(&fixtures))).await;
            assert_eq!(answer.status, 405, "{method} {}", covered.path);
            let allow: BTreeSet<&str> = answer.header("allow").split(", ").collect();
            assert_eq!(allow, taken, "{method} {}", covered.path);
            if method != Method::HEAD {
                answer.assert_error(405, "METHOD_NOT_ALLOWED");
            }
        }
    }
}

#[tokio::test]
async fn responses_have_unique_ids_and_are_not_cached() {
    let service = Service::start().await;
    let mut ids = BTreeSet::new();
    for covered in routed() {
        let fixtures = Fixtures::create(&service).await;
        // A successful response and a refusal.
        let refused = service.send(covered.request(&service, &fixtures).header("authorization", "Bearer x")).await;
        for answer in [covered.call(&service, &fixtures).await, refused] {
            let name = covered.operation.name();
            assert!(ids.insert(answer.header("x-request-id").to_owned()), "{name}: repeated request ID");
            assert_eq!(answer.header("x-content-type-options"), "nosniff", "{name}");
            assert_eq!(answer.header("content-security-policy"), "sandbox; default-src 'none'", "{name}");
            match name {
                "docs-openapi" => assert_eq!(answer.header("cache-control"), "public, max-age=300"),
                _ => assert_eq!(answer.header("cache-control"), "no-store", "{name}"),
            }
            if !answer.text.is_empty() {
                assert_eq!(answer.header("content-type"), "application/json", "{name}");
                answer.json();
            }
        }
    }
    assert!(!ids.contains(""));
}

#[tokio::test]
async fn caller_supplied_request_ids_are_ignored() {
    let service = Service::start().await;
    let (org, owner) = service.org_with_owner().await;
    let request = service.request(Method::POST, &org.org_user_tokens("")).bearer_auth(&owner.credential);
    let request = request.header("x-request-id", "mine").header("x-amzn-requestid", "mine");
    let request = request.header("x-forwarded-for", "203.0.113.7").header("forwarded", "for=203.0.113.7");
    let answer = service.send(request.json(&serde_json::json!({"user_identifier": "alice"}))).await;
    assert_eq!(answer.status, 201);
    assert_ne!(answer.header("x-request-id"), "mine");
    let entries = service.table.audited_tokens(&org.id).await;
    assert_eq!(entries[0]["request_id"], answer.header("x-request-id"));
    assert_eq!(entries[0]["source_ip"], "127.0.0.1");
}
