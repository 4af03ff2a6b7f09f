//! `/npm/`, in front of a stubbed upstream.

use std::io::Read;

use flate2::read::GzDecoder;
use reqwest::Method;
use serde_json::{Value, json};
use shared::registry::{PublicUrl, Settings, UPSTREAM_TIMEOUT};
use tests::coverage::Fixtures;
use tests::upstream::{Registry, Reply};
use tests::{Answer, Service, no_upstreams};

const ABBREVIATED: &str = "application/vnd.npm.install-v1+json; q=1.0, application/json; q=0.8, */*";

/// A service in front of a registry, and fixtures with a token.
struct Setup {
    service: Service,
    registry: Registry,
    fixtures: Fixtures,
}

impl Setup {
    async fn start() -> Self {
        Self::start_with(|settings| settings).await
    }

    async fn start_with(change: impl FnOnce(Settings) -> Settings) -> Self {
        let registry = Registry::start().await;
        let settings = change(Settings { npm: registry.upstream("/npm/"), ..no_upstreams() });
        let service = Service::start_with_registries(settings).await;
        let fixtures = Fixtures::create(&service).await;
        Self { service, registry, fixtures }
    }

    /// Stubs the metadata of a package; relative tarball locations are below the upstream's base
    /// URL.
    fn has(&self, name: &str, versions: &[(&str, &str)]) -> Value {
        let versions: serde_json::Map<String, Value> = versions
            .iter()
            .map(|(version, place)| {
                let place = if place.contains("://") {
                    (*place).to_owned()
                } else {
                    format!("{}/npm/{place}", self.registry.url)
                };
                let signatures = json!([{"keyid": "SHA256:jl3", "sig": "MEUCIQ=="}]);
                let dist =
                    json!({"tarball": place, "integrity": "sha512-AA==", "shasum": "00", "signatures": signatures});
                ((*version).to_owned(), json!({"name": name, "version": version, "dist": dist}))
            })
            .collect();
        let packument = json!({"name": name, "dist-tags": {"latest": "1.0.0"}, "versions": versions, "time": {}});
        let path = format!("/npm/{}", name.replace('/', "%2f"));
        self.registry.stub(&path, Reply::ok("application/json", packument.to_string()).with_header("etag", "\"7\""));
        packument
    }

    async fn get(&self, path: &str) -> Answer {
        self.get_with(path, &[]).await
    }

    async fn get_with(&self, path: &str, headers: &[(&str, &str)]) -> Answer {
        let request = self.service.request(Method::GET, path).bearer_auth(&self.fixtures.token.token);
        self.service.send(headers.iter().fold(request, |request, (name, value)| request.header(*name, *value))).await
    }
}

#[tokio::test]
async fn metadata_passes_through_with_rewritten_tarball_urls() {
    let setup = Setup::start().await;
    let mut expected = setup.has(
        "@scope/widgets",
        &[
            ("1.0.0", "@scope/widgets/-/widgets-1.0.0.tgz"),
            ("1.1.0", "@scope%2fwidgets/-/widgets-1.1.0.tgz"),
            ("2.0.0", "download/@scope/widgets/2.0.0/c0ffee"),
            ("3.0.0", "https://files.example.com/widgets-3.0.0.tgz"),
        ],
    );
    for (version, path) in [
        ("1.0.0", "@scope/widgets/-/widgets-1.0.0.tgz"),
        ("1.1.0", "@scope/widgets/-/widgets-1.1.0.tgz"),
        ("2.0.0", "@scope/widgets/-/by-metadata/widgets-2.0.0.tgz"),
        ("3.0.0", "@scope/widgets/-/by-metadata/widgets-3.0.0.tgz"),
    ] {
        let base = &setup.service.base_url;
        expected["versions"][version]["dist"]["tarball"] = json!(format!("{base}/npm/{path}"));
    }
    // The upstream request always encodes the name as npm does.
    for name in ["@scope%2fwidgets", "@scope%2Fwidgets", "@scope/widgets", "%40scope%2fwidgets"] {
        let answer = setup.get(&format!("/npm/{name}")).await;
        assert_eq!((answer.status.as_u16(), answer.json()), (200, expected.clone()), "{name}");
        assert_eq!(answer.header("content-type"), "application/json");
        assert_eq!(answer.header("cache-control"), "private, no-cache");
        assert_eq!(setup.registry.take_one_request().path, "/npm/@scope%2fwidgets");
    }
}

#[tokio::test]
async fn tarball_urls_use_the_configured_public_url() {
    let setup = Setup::start_with(|settings| Settings {
        public_url: PublicUrl::Fixed("https://guard.example.com/registry".to_owned()),
        ..settings
    })
    .await;
    setup.has("widgets", &[("1.0.0", "widgets/-/widgets-1.0.0.tgz")]);
    let place = setup.get("/npm/widgets").await.json()["versions"]["1.0.0"]["dist"]["tarball"].clone();
    assert_eq!(place, json!("https://guard.example.com/registry/npm/widgets/-/widgets-1.0.0.tgz"));
}

#[tokio::test]
async fn abbreviated_metadata_is_negotiated() {
    let setup = Setup::start().await;
    setup.has("widgets", &[]);
    let kind = "application/vnd.npm.install-v1+json";
    setup.registry.stub("/npm/widgets", Reply::ok(kind, r#"{"name":"widgets","versions":{}}"#));
    let answer = setup.get_with("/npm/widgets", &[("accept", ABBREVIATED)]).await;
    assert_eq!((answer.header("content-type"), answer.header("vary")), (kind, "Accept, Accept-Encoding"));
    assert_eq!(setup.registry.take_one_request().headers["accept"], ABBREVIATED);
    // Other clients get full metadata, since only that has the versions' times.
    for accept in ["application/json", "*/*", "application/vnd.npm.install-v1+json;q=0"] {
        setup.get_with("/npm/widgets", &[("accept", accept)]).await;
        assert_eq!(setup.registry.take_one_request().headers["accept"], "application/json");
    }
}

#[tokio::test]
async fn unchanged_metadata_is_304() {
    let setup = Setup::start().await;
    setup.has("widgets", &[("1.0.0", "widgets/-/widgets-1.0.0.tgz")]);
    let tag = setup.get("/npm/widgets").await.header("etag").to_owned();
    assert!(tag.starts_with("W/\""), "{tag}");
    setup.registry.take_requests();
    let answer = setup.get_with("/npm/widgets", &[("if-none-match", &tag)]).await;
    assert_eq!((answer.status.as_u16(), answer.text.as_str(), answer.header("etag")), (304, "", tag.as_str()));
    assert_eq!(answer.header("cache-control"), "private, no-cache");
    assert_eq!(setup.registry.take_one_request().headers["if-none-match"], "\"7\"");
    // For another host the file URLs differ, so the cached response does not match.
    let elsewhere = [("if-none-match", tag.as_str()), ("host", "guard.example.com")];
    let answer = setup.get_with("/npm/widgets", &elsewhere).await;
    assert!(answer.status == 200 && answer.text.contains("http://guard.example.com/npm/widgets/-/"));
    assert!(!setup.registry.take_one_request().headers.contains_key("if-none-match"));
    // A missing or malformed upstream ETag must not prevent a 304.
    let plain = Reply::ok("application/json", r#"{"name":"plain"}"#);
    setup.registry.stub("/npm/odd", plain.clone().with_header("etag", "7"));
    let tag = setup.get("/npm/odd").await.header("etag").to_owned();
    assert_eq!(setup.get_with("/npm/odd", &[("if-none-match", &tag)]).await.status, 304);
    setup.registry.stub("/npm/plain", plain);
    let tag = setup.get("/npm/plain").await.header("etag").to_owned();
    assert_eq!(setup.get_with("/npm/plain", &[("if-none-match", &tag)]).await.status, 304);
    setup.registry.stub("/npm/plain", Reply::ok("application/json", r#"{"name":"plain","v":2}"#));
    assert_eq!(setup.get_with("/npm/plain", &[("if-none-match", &tag)]).await.status, 200);
    // `Last-Modified` ignores the host of file URLs, so it is neither returned nor forwarded.
    let dated = Reply::ok("application/json", "{}").with_header("last-modified", "Sat, 21 Nov 2026 10:00:00 GMT");
    setup.registry.stub("/npm/plain", dated);
    setup.registry.take_requests();
    let answer = setup.get_with("/npm/plain", &[("if-modified-since", "Sat, 21 Nov 2026 10:00:00 GMT")]).await;
    assert_eq!((answer.status.as_u16(), answer.header("last-modified")), (200, ""));
    assert!(!setup.registry.take_one_request().headers.contains_key("if-modified-since"));
}

#[tokio::test]
async fn tarballs_redirect_to_the_upstream_location() {
    let setup = Setup::start().await;
    let base = format!("{}/npm", setup.registry.url);
    for (path, place) in [
        ("widgets/-/widgets-1.0.0.tgz", format!("{base}/widgets/-/widgets-1.0.0.tgz")),
        ("@scope%2fwidgets/-/widgets-1.0.0-rc.1.tgz", format!("{base}/@scope/widgets/-/widgets-1.0.0-rc.1.tgz")),
        ("@scope/widgets/-/widgets-1.0.0+b.tgz", format!("{base}/@scope/widgets/-/widgets-1.0.0+b.tgz")),
    ] {
        let answer = setup.get(&format!("/npm/{path}")).await;
        assert_eq!((answer.status.as_u16(), answer.header("location")), (302, place.as_str()));
    }
    // The standard location needs no lookup.
    assert!(setup.registry.take_requests().is_empty());
    let path = "/npm/@scope/widgets/-/by-metadata/widgets-2.0.0.tgz";
    // Otherwise the location comes from the full packument, since not all registries serve single
    // versions.
    setup.has("@scope/widgets", &[("2.0.0", "https://files.example.com/c0ffee?signature=x")]);
    let answer = setup.get(path).await;
    let place = "https://files.example.com/c0ffee?signature=x";
    assert_eq!((answer.status.as_u16(), answer.header("location")), (302, place));
    assert_eq!(setup.registry.take_one_request().path, "/npm/@scope%2fwidgets");
    // A dist-tag is not a version, and would be logged as one.
    for version in ["1.0.0", "latest"] {
        let answer = setup.get(&format!("/npm/@scope/widgets/-/by-metadata/widgets-{version}.tgz")).await;
        assert_eq!((answer.status.as_u16(), answer.header("location")), (404, ""), "{version}");
    }
    for evil in
        ["javascript://x", "file://x/etc/passwd", "https://user:pw@files.example.com/x", "http://127.0.0.1:1/x.tgz"]
    {
        setup.has("@scope/widgets", &[("2.0.0", evil)]);
        let answer = setup.get(path).await;
        assert_eq!((answer.status.as_u16(), answer.header("location")), (502, ""), "{evil}");
    }
    let log = setup
        .service
        .installations(&setup.fixtures.org, &setup.fixtures.owner.credential, "?package=@scope/widgets")
        .await;
    let versions: Vec<&str> =
        log["installations"].as_array().unwrap().iter().map(|e| e["version"].as_str().unwrap()).collect();
    assert_eq!(versions.len(), 3);
    assert!(["2.0.0", "1.0.0+b", "1.0.0-rc.1"].iter().all(|version| versions.contains(version)), "{versions:?}");
}

#[tokio::test]
async fn metadata_content_type_is_always_json() {
    let setup = Setup::start().await;
    for kind in ["text/html", "application/octet-stream", "application/json; charset=utf-8"] {
        setup.registry.stub("/npm/widgets", Reply::ok(kind, r#"{"versions":null}"#));
        let answer = setup.get("/npm/widgets").await;
        assert_eq!((answer.status.as_u16(), answer.header("content-type")), (200, "application/json"), "{kind}");
    }
    setup.registry.stub("/npm/widgets", Reply::ok("application/vnd.npm.install-v1+json; charset=utf-8", "{}"));
    assert_eq!(setup.get("/npm/widgets").await.header("content-type"), "application/vnd.npm.install-v1+json");
}

#[tokio::test]
async fn single_version_metadata_is_rewritten() {
    let setup = Setup::start().await;
    let tarball = format!("{}/npm/widgets/-/widgets-1.0.0.tgz", setup.registry.url);
    let manifest = json!({"name": "widgets", "version": "1.0.0", "dist": {"tarball": tarball}}).to_string();
    for version in ["1.0.0", "latest"] {
        setup.registry.stub(&format!("/npm/widgets/{version}"), Reply::ok("application/json", manifest.clone()));
        let place = setup.get(&format!("/npm/widgets/{version}")).await.json()["dist"]["tarball"].clone();
        assert_eq!(place, json!(format!("{}/npm/widgets/-/widgets-1.0.0.tgz", setup.service.base_url)));
    }
}

#[tokio::test]
async fn oversized_packuments_pass_only_when_compressed() {
    let setup = Setup::start_with(|settings| Settings { timeout: UPSTREAM_TIMEOUT, ..settings }).await;
    let versions: serde_json::Map<String, Value> = (0..40_000)
        .map(|n| {
            let version = format!("1.{n}.0");
            let tarball = format!("{}/npm/widgets/-/widgets-{version}.tgz", setup.registry.url);
            let dist = json!({"tarball": tarball, "integrity": format!("sha512-{n:088}")});
            (
                version.clone(),
                json!({"name": "widgets", "version": version, "readme": "widget ".repeat(100), "dist": dist}),
            )
        })
        .collect();
    let packument = json!({"name": "widgets", "versions": versions}).to_string();
    assert!(packument.len() > 30_000_000);
    setup.registry.stub("/npm/widgets", Reply::ok("application/json", packument).compressed());
    let request = setup.service.request(Method::GET, "/npm/widgets").bearer_auth(&setup.fixtures.token.token);
    let response = request.header("accept-encoding", "gzip").send().await.unwrap();
    let status = response.status();
    if status != 200 {
        panic!("{}", response.text().await.unwrap());
    }
    assert_eq!(response.headers()["content-encoding"], "gzip");
    let body = response.bytes().await.unwrap();
    assert!(body.len() < 6_291_456 * 3 / 4, "{} bytes exceed Lambda's response limit", body.len());
    let mut text = String::new();
    GzDecoder::new(&body[..]).read_to_string(&mut text).unwrap();
    let packument: Value = serde_json::from_str(&text).unwrap();
    let place = packument["versions"]["1.39999.0"]["dist"]["tarball"].clone();
    assert_eq!(place, json!(format!("{}/npm/widgets/-/widgets-1.39999.0.tgz", setup.service.base_url)));
    let answer = setup.get_with("/npm/widgets", &[("accept-encoding", "identity")]).await;
    assert_eq!((answer.status.as_u16(), answer.json()["code"].clone()), (502, json!("BAD_GATEWAY")));
}

#[tokio::test]
async fn whoami_and_ping_are_answered_locally() {
    let setup = Setup::start().await;
    assert_eq!(setup.get("/npm/-/whoami").await.json(), json!({"username": "alice-laptop"}));
    let person = setup.service.call(Method::GET, "/npm/-/whoami", &setup.fixtures.email_token).await.json();
    assert_eq!(person, json!({"username": format!("o***@{}", "example.com")}));
    assert_eq!(setup.get("/npm/-/ping").await.json(), json!({}));
    assert!(setup.registry.take_requests().is_empty());
}

#[tokio::test]
async fn audits_keys_and_attestations_are_proxied() {
    let setup = Setup::start().await;
    let json = |body: Value| Reply::ok("application/json", body.to_string());
    setup.registry.stub("/npm/-/npm/v1/keys", json(json!({"keys": []})));
    assert_eq!(setup.get("/npm/-/npm/v1/keys").await.json(), json!({"keys": []}));
    setup.registry.stub("/npm/-/package/@scope%2fwidgets/dist-tags", json(json!({"latest": "1.0.0"})));
    assert_eq!(setup.get("/npm/-/package/@scope/widgets/dist-tags").await.json(), json!({"latest": "1.0.0"}));
    setup.registry.stub("/npm/-/npm/v1/attestations/@scope%2fwidgets@1.0.0", json(json!({"attestations": []})));
    let answer = setup.get("/npm/-/npm/v1/attestations/@scope%2fwidgets@1.0.0").await;
    assert_eq!(answer.json(), json!({"attestations": []}));
    setup.registry.take_requests();

    for path in ["advisories/bulk", "audits", "audits/quick"] {
        let path = format!("/npm/-/npm/v1/security/{path}");
        setup.registry.stub(&path, json(json!({"widgets": []})));
        let compressed = b"\x1f\x8b not looked at";
        let request = setup.service.request(Method::POST, &path).bearer_auth(&setup.fixtures.token.token);
        let request = request.header("content-type", "application/json").header("content-encoding", "gzip");
        let answer = setup.service.send(request.body(compressed.to_vec())).await;
        assert_eq!((answer.status.as_u16(), answer.json()), (200, json!({"widgets": []})));
        let received = setup.registry.take_one_request();
        assert_eq!((received.method, received.body.as_ref()), (Method::POST, compressed.as_slice()));
        assert_eq!(
            (&received.headers["content-encoding"], &received.headers["content-type"]),
            (&"gzip".parse().unwrap(), &"application/json".parse().unwrap())
        );
        assert!(!received.headers.contains_key("authorization"));
        // Only POST with a limited body is forwarded.
        let answer = setup.get(&path).await;
        assert_eq!((answer.status.as_u16(), answer.header("allow")), (405, "POST"));
        let request = setup.service.request(Method::POST, &path).bearer_auth(&setup.fixtures.token.token);
        let answer = setup.service.send(request.body(vec![b' '; 4 * 1024 * 1024 + 1])).await;
        assert_eq!((answer.status.as_u16(), answer.text.contains("4 MiB")), (413, true), "{}", answer.text);
        assert!(setup.registry.take_requests().is_empty());
    }
    // A missing upstream endpoint is a 404, which npm understands.
    let request = setup.service.request(Method::POST, "/npm/-/npm/v1/security/advisories/bulk");
    setup.registry.stub("/npm/-/npm/v1/security/advisories/bulk", Reply::status(404));
    assert_eq!(setup.service.send(request.bearer_auth(&setup.fixtures.token.token).body("{}")).await.status, 404);
}
