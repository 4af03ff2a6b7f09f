//! Unknown paths, other methods, and headers that every response has.

use std::collections::BTreeSet;

use axum::Router;
use axum::body::Body;
use axum::http::Request;
use local::api::{self, deployed};
use reqwest::Method;
use shared::App;
use shared::console::Console;
use shared::hosts::RegistryHosts;
use shared::mail::{MailConfig, Mailer, ses_at};
use shared::registry::Registries;
use tests::coverage::{COVERED, Fixtures, routed};
use tests::{Service, no_upstreams};
use tower::ServiceExt;

use crate::structure;

#[tokio::test]
async fn unknown_paths_are_404() {
    let service = Service::start().await;
    let fixtures = Fixtures::create(&service).await;
    let tokens = fixtures.org.org_user_tokens("");
    for path in [
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
                let expected = if covered.is_scim() { "application/scim+json" } else { "application/json" };
                assert_eq!(answer.header("content-type"), expected, "{name}");
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

/// A route of the template and the function behind it.
struct Route {
    function: String,
    method: String,
    path: String,
}

impl Route {
    fn all() -> Vec<Self> {
        let functions = structure::functions();
        let name = |function: &serde_json::Value| {
            function["Metadata"]["BuildProperties"]["Binary"].as_str().unwrap().to_owned()
        };
        let routes = functions.values().flat_map(|function| {
            structure::routes(function).into_iter().map(|(method, path)| Self {
                function: name(function),
                method,
                path,
            })
        });
        routes.collect()
    }

    /// How well the route fits a request, as API Gateway compares routes: less is better. `None` if
    /// it does not. Whether a greedy parameter may be empty is not documented.
    fn fit(&self, method: &str, path: &str, is_greedy_empty: bool) -> Option<(u8, Vec<u8>)> {
        if self.method == "$default" {
            return Some((2, Vec::new()));
        }
        if self.method != method && self.method != "ANY" {
            return None;
        }
        let (wanted, parts): (Vec<&str>, Vec<&str>) = (self.path.split('/').collect(), path.split('/').collect());
        if let Some((greedy, before)) = wanted.split_last()
            && greedy.ends_with("+}")
        {
            let rest = parts.get(before.len()..).filter(|rest| !rest.is_empty())?.join("/");
            let fits: Option<Vec<u8>> = before.iter().zip(&parts).map(fit).collect();
            // Of two greedy routes the one with the longer and more literal beginning fits better.
            return fits.filter(|_| is_greedy_empty || !rest.is_empty()).map(|fits| (1, [fits, vec![2]].concat()));
        }
        let fits: Option<Vec<u8>> = wanted.iter().zip(&parts).map(fit).collect();
        fits.filter(|_| wanted.len() == parts.len()).map(|fits| (0, fits))
    }
}

/// How well a part of a route's path fits one of a request.
fn fit((wanted, part): (&&str, &&str)) -> Option<u8> {
    match wanted.starts_with('{') {
        true => (!part.is_empty()).then_some(1),
        false => (wanted == part).then_some(0),
    }
}

/// What a request without a credential comes to: 404 or 405 with the allowed methods, else `None`.
async fn refusal(router: &Router, method: &str, path: &str) -> Option<(u16, BTreeSet<String>)> {
    let request = Request::builder().method(method).uri(path).body(Body::empty()).unwrap();
    let response = router.clone().oneshot(request).await.unwrap();
    let allow = response.headers().get("allow").map(|allow| allow.to_str().unwrap().to_owned());
    let allow = allow.unwrap_or_default().split(", ").map(str::to_owned).collect();
    matches!(response.status().as_u16(), 404 | 405).then_some((response.status().as_u16(), allow))
}

#[tokio::test]
async fn every_function_refuses_paths_and_methods_as_the_whole_service_does() {
    let service = Service::start().await;
    let fixtures = Fixtures::create(&service).await;
    let mail = MailConfig {
        from: "no-reply@guard.example.com".to_owned(),
        reply_to: None,
        configuration_set: None,
        public_url: "https://guard.example.com".to_owned(),
        registry_hosts: RegistryHosts::default(),
    };
    let parts = api::Service {
        app: App::new(service.store.clone(), service.clock.clone()),
        log: service.installation_log.clone(),
        mailer: Mailer::new(ses_at(&service.base_url), mail),
        registries: Registries::new(no_upstreams()).unwrap(),
        workloads: service.issuer.workloads(),
        console: Console::at(&service.base_url),
        provider: None,
        scanner_keys: None,
    };
    let (functions, whole, routes) = (deployed(parts.clone()), api::router(parts), Route::all());
    let mut paths = BTreeSet::new();
    for covered in COVERED.iter().filter(|covered| !covered.path.is_empty()) {
        let path = covered.path_with(&fixtures);
        let path = path.trim_end_matches('/');
        let (above, _) = path.rsplit_once('/').unwrap();
        for path in [path, above] {
            paths.extend(["", "/", "/x", "/x/", "/12/x"].map(|end| format!("{path}{end}")));
        }
    }
    let mut greedily = 0;
    for path in paths.iter().filter(|path| !path.is_empty()) {
        for method in ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PURGE"] {
            let expected = refusal(&whole, method, path).await;
            for is_greedy_empty in [true, false] {
                let fits = routes.iter().filter_map(|route| Some((route.fit(method, path, is_greedy_empty)?, route)));
                let (fit, route) = fits.min_by_key(|(fit, _)| fit.clone()).unwrap();
                greedily += usize::from(fit.0 == 1);
                let found = refusal(&functions[&route.function], method, path).await;
                assert_eq!(found, expected, "{method} {path} at {}", route.function);
            }
        }
    }
    assert!(greedily > 50, "{greedily}");
}
