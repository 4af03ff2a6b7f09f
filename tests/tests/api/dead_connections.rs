//! Connections to an upstream registry that died between two requests, as when Lambda freezes a
//! function. The other functions' connections are tested in `tests/rie/`.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use futures::future::join_all;
use reqwest::Method;
use serde_json::json;
use shared::ApiError;
use shared::registry::{Registries, Settings, UPSTREAM_TIMEOUT, upstream::Upstream};
use tests::upstream::{Death, Registry, Reply, Revival, mortal};
use tests::{Service, no_upstreams};

/// A service whose upstream's connections die after one response, and a token.
async fn service(death: Death) -> (Service, String, std::sync::Arc<std::sync::atomic::AtomicUsize>) {
    let packument = json!({"name": "widgets", "versions": {}});
    let (url, requests) = mortal(death, packument.to_string()).await;
    let settings = Settings { npm: Upstream::parse(&url), timeout: UPSTREAM_TIMEOUT, ..no_upstreams() };
    let service = Service::start_with_registries(settings).await;
    let token = service.email_token("alice@example.com").await;
    (service, token, requests)
}

#[tokio::test]
async fn metadata_and_audits_survive_a_connection_that_died() {
    for (death, slowest) in [(Death::Reset, 10), (Death::Silent, 20)] {
        let (service, token, requests) = service(death).await;
        let get = || service.request(Method::GET, "/npm/widgets").bearer_auth(&token);
        let audit = || {
            let path = "/npm/-/npm/v1/security/advisories/bulk";
            service.request(Method::POST, path).bearer_auth(&token).json(&json!({"widgets": ["1.0.0"]}))
        };
        assert_eq!(service.send(get()).await.status, 200, "{death:?}");
        assert_eq!(requests.load(Ordering::SeqCst), 1, "{death:?}");
        for (request, expected) in [(get(), 3), (audit(), 5)] {
            let started = Instant::now();
            let answer = service.send(request).await;
            assert_eq!(answer.status, 200, "{death:?}: {}", answer.text);
            assert_eq!(requests.load(Ordering::SeqCst), expected, "{death:?}");
            assert!(started.elapsed() < Duration::from_secs(slowest), "{death:?}: {:?}", started.elapsed());
        }
    }
}

#[tokio::test]
async fn slow_upstream_is_asked_once() {
    let registry = Registry::with_widgets().await;
    let packument = json!({"name": "slow", "versions": {}}).to_string();
    registry.stub("/npm/slow", Reply::ok("application/json", packument).delayed(Duration::from_secs(4)));
    let settings = Settings { timeout: UPSTREAM_TIMEOUT, ..registry.settings() };
    let service = Service::start_with_registries(settings).await;
    let token = service.email_token("alice@example.com").await;
    let started = Instant::now();
    let answer = service.send(service.request(Method::GET, "/npm/slow").bearer_auth(&token)).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    assert!(started.elapsed() < Duration::from_secs(7), "the first request goes on: {:?}", started.elapsed());
    assert_eq!(registry.take_requests().len(), 1);
}

#[tokio::test]
async fn slow_response_on_a_kept_connection_is_asked_for_twice_at_most_and_served() {
    let registry = Registry::with_widgets().await;
    let packument = json!({"name": "slow", "versions": {}}).to_string();
    registry.stub("/npm/slow", Reply::ok("application/json", packument).delayed(Duration::from_secs(4)));
    let settings = Settings { timeout: UPSTREAM_TIMEOUT, ..registry.settings() };
    let service = Service::start_with_registries(settings).await;
    let token = service.email_token("alice@example.com").await;
    let get = |path: &str| service.send(service.request(Method::GET, path).bearer_auth(&token));
    // Its connection is kept, and nobody can tell whether it still lives.
    assert_eq!(get("/npm/widgets").await.status, 200);
    registry.take_requests();
    let started = Instant::now();
    let answer = get("/npm/slow").await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    assert!(started.elapsed() < Duration::from_secs(7), "the first request goes on: {:?}", started.elapsed());
    assert_eq!(registry.take_requests().len(), 2);
}

#[tokio::test]
async fn requests_that_meet_dead_connections_together_share_their_new_ones() {
    let (url, revival) = Revival::start(json!({"name": "widgets", "versions": {}}).to_string()).await;
    let settings = Settings { npm: Upstream::parse(&url), timeout: UPSTREAM_TIMEOUT, ..no_upstreams() };
    let service = Service::start_with_registries(settings).await;
    let token = service.email_token("alice@example.com").await;
    let five = async || {
        let get = |_| service.send(service.request(Method::GET, "/npm/widgets").bearer_auth(&token));
        for answer in join_all((0..5).map(get)).await {
            assert_eq!(answer.status, 200, "{}", answer.text);
        }
    };
    five().await;
    let before = revival.connections();
    revival.silence_connections();
    five().await;
    let after = revival.connections();
    assert!(after > before);
    // All are in the pool of one client, so that the next requests need no more.
    five().await;
    assert!(revival.connections() <= after + 1, "{before}, {after}, {}", revival.connections());
}

/// The registries in front of this upstream, as a function starts them.
fn registries(url: &str) -> Registries {
    Registries::new(Settings { npm: Upstream::parse(url), timeout: UPSTREAM_TIMEOUT, ..no_upstreams() }).unwrap()
}

async fn widgets(registries: &Registries) -> Result<(), ApiError> {
    let url = registries.settings.npm.as_ref().unwrap().join("widgets");
    registries.fetch_document(url, "application/json").await.map(|_| ())
}

#[tokio::test]
async fn connection_to_the_upstream_opened_in_init_serves_the_first_request() {
    let (url, revival) = Revival::start(json!({}).to_string()).await;
    let registries = registries(&url);
    registries.connect().await;
    assert_eq!(revival.connections(), 1);
    widgets(&registries).await.unwrap();
    assert_eq!(revival.connections(), 1);
    revival.silence_connections();
    widgets(&registries).await.unwrap();
    assert_eq!(revival.connections(), 2);
}

#[tokio::test]
async fn init_ends_without_an_upstream_and_the_first_request_reports_it() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let silent = registries(&format!("http://{}", listener.local_addr().unwrap()));
    let started = Instant::now();
    silent.connect().await;
    assert!(started.elapsed() < Duration::from_secs(3), "init took {:?}", started.elapsed());
    drop(listener);
    silent.connect().await;
    assert!(matches!(widgets(&silent).await, Err(ApiError::BadGateway(_))));
}
