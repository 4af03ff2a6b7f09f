//! `/npm/`, in front of a stubbed upstream.

use std::io::{Read, Write};
use std::time::Duration;

use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use futures::future::join_all;
use reqwest::{Method, header};
use serde_json::{Value, json};
use shared::registry::{PublicUrl, Settings, UPSTREAM_TIMEOUT};
use tests::coverage::Fixtures;
use tests::faults::Fault;
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
    for accept in [
        "application/json",
        "*/*",
        "application/vnd.npm.install-v1+json;q=0",
        "application/vnd.npm.install-v1+json;q=0.5, application/json",
    ] {
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
async fn head_of_metadata_is_not_compressed_and_tells_what_get_would_but_its_length() {
    let setup = Setup::start().await;
    stub(&setup, "old", &[("etag", "\"1\"")]);
    let call = async |method: Method, tag: &str| {
        let request = setup.service.request(method, "/npm/widgets").bearer_auth(&setup.fixtures.token.token);
        setup.service.send(request.header("accept-encoding", "gzip").header("if-none-match", tag)).await
    };
    for after_get in [false, true] {
        let head = call(Method::HEAD, "").await;
        let [length, coding] = ["content-length", "content-encoding"].map(|name| head.header(name).to_owned());
        assert_eq!((head.status.as_u16(), head.text.as_str()), (200, ""));
        // What is kept is compressed already.
        assert_eq!(!length.is_empty(), after_get, "{length}");
        assert_eq!(coding, if after_get { "gzip" } else { "" });
        let get = call(Method::GET, "").await;
        for name in ["etag", "content-type", "cache-control", "vary"] {
            assert_eq!(head.header(name), get.header(name), "{name}");
        }
        assert_eq!(call(Method::HEAD, head.header("etag")).await.status, 304);
    }
}

/// Stubs metadata of this text, with these headers.
fn stub(setup: &Setup, text: &str, headers: &[(&str, &str)]) {
    let body = json!({"name": "widgets", "said": text.repeat(500), "versions": {}}).to_string();
    let reply =
        headers.iter().fold(Reply::ok("application/json", body), |reply, (name, value)| reply.with_header(name, value));
    setup.registry.stub("/npm/widgets", reply);
}

/// The text of metadata that [`stub`] has set.
fn said(answer: &Answer) -> String {
    assert_eq!((answer.status.as_u16(), answer.header("cache-control")), (200, "private, no-cache"), "{}", answer.text);
    answer.json()["said"].as_str().unwrap()[..3].to_owned()
}

/// The condition of the one request that the upstream has received.
fn condition(setup: &Setup) -> Option<String> {
    let headers = setup.registry.take_one_request().headers;
    let value = |name| headers.get(name).map(|value: &header::HeaderValue| value.to_str().unwrap().to_owned());
    value("if-none-match").or(value("if-modified-since"))
}

#[tokio::test]
async fn metadata_is_kept_for_as_long_as_the_upstream_says_that_it_is_current() {
    let headers = [("etag", "\"1\"")];
    let asked = Some("\"1\"");
    let setup = Setup::start().await;
    stub(&setup, "old", &headers);
    let first = setup.get("/npm/widgets").await;
    assert_eq!((said(&first), condition(&setup)), ("old".to_owned(), None));
    // That it is ours which goes out shows an upstream that forgets to tell of a change.
    stub(&setup, "new", &headers);
    for _ in 0..2 {
        let again = setup.get("/npm/widgets").await;
        assert_eq!((said(&again), again.header("etag")), ("old".to_owned(), first.header("etag")));
        assert_eq!(condition(&setup).as_deref(), asked, "the upstream is asked each time");
    }
    // The caller's own copy.
    let unchanged = setup.get_with("/npm/widgets", &[("if-none-match", first.header("etag"))]).await;
    assert_eq!((unchanged.status.as_u16(), unchanged.header("etag")), (304, first.header("etag")));
    assert_eq!(condition(&setup).as_deref(), asked);
    // A copy of another version, beside ours.
    let tag = first.header("etag").replace("W/\"", "W/\"x");
    assert_eq!(said(&setup.get_with("/npm/widgets", &[("if-none-match", &tag)]).await), "old");
    setup.registry.take_requests();
    // Whoever wants no copy gets none.
    assert_eq!(said(&setup.get_with("/npm/widgets", &[("cache-control", "max-age=0, no-cache")]).await), "new");
    assert_eq!(condition(&setup), None);
    assert_eq!(said(&setup.get("/npm/widgets").await), "new");
    setup.registry.take_requests();
    // A change is in the very next answer.
    stub(&setup, "now", &[("etag", "\"2\"")]);
    assert_eq!(said(&setup.get("/npm/widgets").await), "now");
    assert_eq!(condition(&setup).as_deref(), asked);
    assert_eq!(said(&setup.get("/npm/widgets").await), "now");
    assert_eq!(condition(&setup).as_deref(), Some("\"2\""));
}

#[tokio::test]
async fn current_copy_is_304_however_strong_the_upstreams_tag_has_become() {
    let setup = Setup::start().await;
    let get = async |tag: &str| setup.get_with("/npm/widgets", &[("if-none-match", tag)]).await;
    stub(&setup, "old", &[("etag", "\"2\"")]);
    let strong = setup.get("/npm/widgets").await.header("etag").to_owned();
    // As after a proxy that compresses. It compares tags as text, and so sends the document.
    stub(&setup, "old", &[("etag", "W/\"2\"")]);
    let answer = get(&strong).await;
    assert_eq!((answer.status.as_u16(), answer.header("etag")), (304, strong.as_str()));
    // What is kept is another version than the caller's, which the upstream says is current.
    stub(&setup, "new", &[("etag", "\"1\"")]);
    assert_eq!(said(&setup.get("/npm/widgets").await), "new");
    setup.registry.stub("/npm/widgets", Reply::status(304).with_header("etag", "W/\"2\""));
    setup.registry.take_requests();
    let answer = get(&strong).await;
    assert_eq!((answer.status.as_u16(), answer.header("etag")), (304, strong.as_str()));
    assert_eq!(condition(&setup).as_deref(), Some("\"2\", \"1\""));
}

#[tokio::test]
async fn upstream_that_compares_tags_as_one_text_sends_a_current_copy_once() {
    let setup = Setup::start().await;
    stub(&setup, "new", &[("etag", "\"2\"")]);
    let current = setup.get("/npm/widgets").await.header("etag").to_owned();
    stub(&setup, "old", &[("etag", "\"1\"")]);
    assert_eq!(said(&setup.get("/npm/widgets").await), "old");
    setup.registry.take_requests();
    // It sends the document though the list has its tag.
    stub(&setup, "new", &[("etag", "\"2\"")]);
    setup.registry.compares_tags_as_text();
    for asked in ["\"2\", \"1\"", "\"2\"", "\"2\""] {
        let answer = setup.get_with("/npm/widgets", &[("if-none-match", &current)]).await;
        assert_eq!((answer.status.as_u16(), answer.header("etag")), (304, current.as_str()));
        assert_eq!(condition(&setup).as_deref(), Some(asked));
    }
}

#[tokio::test]
async fn metadata_of_an_upstream_that_goes_back_to_an_older_version_is_that_version() {
    let setup = Setup::start().await;
    let dated = |modified| [("last-modified", modified), ("date", "Sat, 21 Nov 2026 12:00:00 GMT")];
    for (text, modified) in [("new", "Sat, 21 Nov 2026 11:00:00 GMT"), ("old", "Sat, 21 Nov 2026 10:00:00 GMT")] {
        stub(&setup, text, &dated(modified));
        assert_eq!(said(&setup.get("/npm/widgets").await), text);
    }
}

#[tokio::test]
async fn metadata_that_nothing_tells_from_its_next_version_is_not_kept() {
    let setup = Setup::start().await;
    let (at_ten, at_noon) = ("Sat, 21 Nov 2026 10:00:00 GMT", "Sat, 21 Nov 2026 12:00:00 GMT");
    for headers in [
        vec![],
        vec![("etag", "1")],
        vec![("etag", "\"1\""), ("cache-control", "no-store")],
        vec![("last-modified", at_ten), ("date", at_noon)],
    ] {
        for text in ["one", "two", "six"] {
            stub(&setup, text, &headers);
            assert_eq!(said(&setup.get("/npm/widgets").await), text, "{headers:?}");
            assert_eq!(condition(&setup), None, "{headers:?}");
        }
    }
}

#[tokio::test]
async fn kept_metadata_is_one_base_urls_and_one_encodings() {
    let setup = Setup::start().await;
    setup.has("widgets", &[("1.0.0", "widgets/-/widgets-1.0.0.tgz")]);
    let hosts = ["a.example.com", "b.example.com", "a.example.com:8443"];
    for round in 0..3 {
        for host in hosts {
            for accept in ["application/json", ABBREVIATED] {
                for coding in ["gzip", "identity"] {
                    let headers = [("host", host), ("accept", accept), ("accept-encoding", coding)];
                    let answer = setup.get_with("/npm/widgets", &headers).await;
                    let place = format!("http://{host}/npm/widgets/-/widgets-1.0.0.tgz");
                    assert_eq!(answer.json()["versions"]["1.0.0"]["dist"]["tarball"], place);
                    assert_eq!(condition(&setup).is_some(), round > 0, "{headers:?}");
                }
            }
        }
    }
}

#[tokio::test]
async fn wrong_304_about_kept_metadata_is_asked_again_and_never_an_empty_answer() {
    let setup = Setup::start().await;
    stub(&setup, "old", &[("etag", "\"1\"")]);
    assert_eq!(said(&setup.get("/npm/widgets").await), "old");
    setup.registry.take_requests();
    // Of a version that nobody has.
    setup.registry.stub("/npm/widgets", Reply::status(304).with_header("etag", "\"2\""));
    let answer = setup.get("/npm/widgets").await;
    assert_eq!((answer.status.as_u16(), &answer.json()["code"]), (502, &json!("BAD_GATEWAY")), "{}", answer.text);
    let conditions: Vec<bool> = setup.registry.take_requests().iter().map(is_conditional).collect();
    assert_eq!(conditions, [true, false]);
    // The same name at another place, where relative URLs lead elsewhere.
    stub(&setup, "new", &[("etag", "\"1\"")]);
    setup.registry.stub("/npm/moved", Reply::status(302).with_header("location", "/npm/widgets"));
    assert_eq!(said(&setup.get("/npm/moved").await), "new");
    let body = json!({"name": "widgets", "said": "else".repeat(500), "versions": {}}).to_string();
    setup.registry.stub("/npm/other", Reply::ok("application/json", body).with_header("etag", "\"1\""));
    setup.registry.stub("/npm/moved", Reply::status(302).with_header("location", "/npm/other"));
    assert_eq!(said(&setup.get("/npm/moved").await), "els");
}

fn is_conditional(request: &tests::upstream::ReceivedRequest) -> bool {
    request.headers.contains_key("if-none-match") || request.headers.contains_key("if-modified-since")
}

#[tokio::test]
async fn kept_metadata_is_nobodys_whose_token_is_refused() {
    let setup = Setup::start().await;
    stub(&setup, "old", &[("etag", "\"1\"")]);
    assert_eq!(said(&setup.get("/npm/widgets").await), "old");
    let Setup { service, fixtures, registry } = &setup;
    service.revoke(&fixtures.org, &fixtures.owner, &fixtures.token).await;
    registry.take_requests();
    for headers in [vec![], vec![("if-none-match", "*")]] {
        let answer = setup.get_with("/npm/widgets", &headers).await;
        assert_eq!((answer.status.as_u16(), &answer.json()["code"]), (401, &json!("UNAUTHORIZED")), "{}", answer.text);
        assert!(!answer.text.contains("old"));
    }
    let anonymous = service.send(service.request(Method::GET, "/npm/widgets")).await;
    assert_eq!(
        (anonymous.status.as_u16(), &anonymous.json()["code"]),
        (401, &json!("UNAUTHORIZED")),
        "{}",
        anonymous.text
    );
    assert!(registry.take_requests().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_at_once_see_the_old_or_the_new_version_and_then_the_new_one() {
    let setup = Setup::start().await;
    for round in 0..5 {
        let [before, after] = [format!("{:03}", round), format!("{:03}", round + 1)];
        stub(&setup, &before, &[("etag", &format!("\"{before}\""))]);
        assert_eq!(said(&setup.get("/npm/widgets").await), before);
        let change = async { stub(&setup, &after, &[("etag", &format!("\"{after}\""))]) };
        let requests = join_all((0..12).map(|_| setup.get("/npm/widgets")));
        let (answers, ()) = futures::join!(requests, change);
        for answer in answers {
            let (text, etag) = (said(&answer), answer.header("etag"));
            assert!(text == before || text == after);
            assert!(etag.starts_with(&format!("W/\"{text}~")), "{text} with {etag}");
        }
        assert_eq!(said(&setup.get("/npm/widgets").await), after);
    }
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
    assert_eq!((answer.status.as_u16(), answer.json()["code"].clone()), (422, json!("METADATA_TOO_LARGE")));
}

#[tokio::test]
async fn metadata_of_120_megabytes_is_served_and_more_than_128_mebibytes_is_422() {
    let setup = Setup::start_with(|settings| Settings { timeout: UPSTREAM_TIMEOUT, ..settings }).await;
    let packument = |size: usize| {
        let tarball = format!("{}/npm/widgets/-/widgets-1.0.0.tgz", setup.registry.url);
        let mut text = format!(r#"{{"versions":{{"1.0.0":{{"dist":{{"tarball":"{tarball}"}}}}}},"readme":""#);
        text.push_str(&"widget ".repeat((size - text.len()) / 7));
        text.push_str("\"}");
        setup.registry.stub("/npm/widgets", Reply::ok("application/json", text).compressed());
    };
    packument(126_000_000);
    let request = setup.service.request(Method::GET, "/npm/widgets").bearer_auth(&setup.fixtures.token.token);
    let response = request.header("accept-encoding", "gzip").send().await.unwrap();
    assert_eq!(response.status(), 200);
    let mut text = Vec::new();
    GzDecoder::new(&response.bytes().await.unwrap()[..]).read_to_end(&mut text).unwrap();
    let start = String::from_utf8_lossy(&text[..200]).into_owned();
    assert!(
        text.len() > 120_000_000 && start.contains(&format!("{}/npm/widgets/-/", setup.service.base_url)),
        "{start}"
    );
    packument(128 * 1024 * 1024 + 100);
    // Not a 5xx, which clients retry for more than a minute.
    let answer = setup.get_with("/npm/widgets", &[("accept-encoding", "gzip")]).await;
    assert_eq!((answer.status.as_u16(), answer.json()["code"].clone()), (422, json!("METADATA_TOO_LARGE")));
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
        let compressed = gzip(br#"{"widgets":["1.0.0"]}"#);
        let post = || setup.service.request(Method::POST, &path).bearer_auth(&setup.fixtures.token.token);
        let request = post().header("content-type", "text/secret").header("content-encoding", "gzip");
        let answer = setup.service.send(request.body(compressed.clone())).await;
        assert_eq!((answer.status.as_u16(), answer.json()), (200, json!({"widgets": []})));
        let received = setup.registry.take_one_request();
        assert_eq!((received.method, received.body.as_ref()), (Method::POST, compressed.as_slice()));
        assert_eq!(
            (&received.headers["content-encoding"], &received.headers["content-type"]),
            (&"gzip".parse().unwrap(), &"application/json".parse().unwrap())
        );
        assert!(!received.headers.contains_key("authorization"));
        // A token reaches the upstream in no part of a body.
        let secret = format!(r#"{{"x-{}":["1.0.0"]}}"#, setup.fixtures.token.token);
        let escaped = secret.replace("tg_", r"\u0074g\u005F");
        for (encoding, body) in [
            ("identity", escaped.clone().into_bytes()),
            ("gzip", gzip(escaped.as_bytes())),
            ("gzip", gzip(secret.as_bytes())),
            ("gzip", [gzip(b"{"), gzip(secret.as_bytes())].concat()),
            ("identity", secret.clone().into_bytes()),
            // Nor does what cannot be looked at.
            ("gzip", b"\x1f\x8b".to_vec()),
            ("br", b"x".to_vec()),
        ] {
            let answer = setup.service.send(post().header("content-encoding", encoding).body(body)).await;
            assert_eq!(
                (answer.status.as_u16(), answer.json()["code"].clone()),
                (400, json!("BAD_REQUEST")),
                "{encoding}"
            );
        }
        let bomb = gzip(&vec![b' '; 33 * 1024 * 1024]);
        assert_eq!(setup.service.send(post().header("content-encoding", "gzip").body(bomb)).await.status, 413);
        assert!(setup.registry.take_requests().is_empty());
        // Only POST with a limited body is forwarded.
        let answer = setup.get(&path).await;
        assert_eq!((answer.status.as_u16(), answer.header("allow")), (405, "POST"));
        let request = setup.service.request(Method::POST, &path).bearer_auth(&setup.fixtures.token.token);
        let answer = setup.service.send(request.body(vec![b' '; 4 * 1024 * 1024 + 1])).await;
        assert_eq!((answer.status.as_u16(), answer.text.contains("4 MiB")), (413, true), "{}", answer.text);
        assert!(setup.registry.take_requests().is_empty());
    }
    // A missing upstream endpoint is a 404, which npm understands; 400 and 410 are the upstream's too.
    let missing = "The upstream registry does not offer this kind of audit.";
    let path = "/npm/-/npm/v1/security/advisories/bulk";
    for (theirs, ours, text) in [
        (Reply::status(404), 404, missing),
        (Reply::status(405), 404, missing),
        (Reply::status(410), 410, "no longer"),
        (Reply::status(400).with_body(r#"{"error":"Invalid package tree"}"#), 400, "invalid: Invalid package tree."),
        (Reply::status(403).with_body(r#"{"error":"Not licensed"}"#), 403, "Not licensed."),
        (Reply::status(429).with_header("retry-after", "5"), 429, ""),
        (Reply::status(500), 502, ""),
    ] {
        setup.registry.stub(path, theirs);
        let request = setup.service.request(Method::POST, path).bearer_auth(&setup.fixtures.token.token);
        let answer = setup.service.send(request.body("{}")).await;
        assert_eq!(answer.status, ours, "{}", answer.text);
        assert!(answer.text.contains(text), "{}", answer.text);
    }
}

fn gzip(body: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(body).unwrap();
    encoder.finish().unwrap()
}

#[tokio::test]
async fn etag_tells_abbreviated_from_full_metadata() {
    let setup = Setup::start().await;
    // One tag for both.
    setup.has("widgets", &[("1.0.0", "widgets/-/widgets-1.0.0.tgz")]);
    let abbreviated = setup.get_with("/npm/widgets", &[("accept", ABBREVIATED)]).await.header("etag").to_owned();
    let full = setup.get("/npm/widgets").await.header("etag").to_owned();
    assert_ne!(abbreviated, full);
    let list = format!("\"other\", {abbreviated}, {full}");
    for (accept, tag, status) in [
        (ABBREVIATED, abbreviated.as_str(), 304),
        ("application/json", full.as_str(), 304),
        ("application/json", abbreviated.as_str(), 200),
        (ABBREVIATED, full.as_str(), 200),
        (ABBREVIATED, list.as_str(), 304),
        ("application/json", list.as_str(), 304),
        ("application/json", "*", 304),
    ] {
        let answer = setup.get_with("/npm/widgets", &[("accept", accept), ("if-none-match", tag)]).await;
        assert_eq!(answer.status, status, "{accept} {tag}");
        assert!(!answer.header("etag").is_empty());
    }
}

#[tokio::test]
async fn names_that_begin_with_a_hyphen_are_asked_for() {
    let setup = Setup::start().await;
    for name in ["@ember-data/-build-infra", "@-xun/fs", "--hepl"] {
        setup.has(name, &[]);
        assert_eq!(setup.get(&format!("/npm/{}", name.replace('/', "%2f"))).await.status, 200, "{name}");
    }
}

#[tokio::test]
async fn logout_revokes_the_token_that_is_sent() {
    let setup = Setup::start().await;
    let Fixtures { token, email_token, org, owner, .. } = &setup.fixtures;
    let logout = async |of: &str, with: &str| {
        let request = setup.service.request(Method::DELETE, &format!("/npm/-/user/token/{of}"));
        setup.service.send(if with.is_empty() { request } else { request.bearer_auth(with) }).await
    };
    // Path and credential must be the same active token.
    for (of, with, status) in [
        (email_token.as_str(), token.token.as_str(), 403),
        ("x", token.token.as_str(), 403),
        (token.token.as_str(), "", 401),
        (token.token.as_str(), "tg_org_x", 401),
        (token.token.as_str(), owner.credential.as_str(), 403),
    ] {
        assert_eq!(logout(of, with).await.status, status);
    }
    let path = format!("/npm/-/user/token/{}", token.token);
    let answer = setup.service.call(Method::GET, &path, &token.token).await;
    assert_eq!((answer.status.as_u16(), answer.header("allow")), (405, "DELETE"));
    assert_eq!(setup.get("/npm/-/whoami").await.status, 200, "the token was revoked");
    // Revocation needs no Guard.
    setup.service.set_guard(&org.id, false).await;
    for token in [&token.token, email_token] {
        let answer = logout(token, token).await;
        assert_eq!((answer.status.as_u16(), answer.json()), (200, json!({})));
        assert_eq!(answer.header("npm-notice"), "The token is revoked and no longer works anywhere.");
        assert_eq!(logout(token, token).await.status, 401);
        assert_eq!(setup.service.call(Method::GET, "/npm/-/whoami", token).await.status, 401);
    }
    let log = setup.service.audit_log(org, &owner.credential, "?action=org_user_token.revoke").await;
    let entry = &log["entries"][0];
    assert_eq!(entry["actor"], json!({"kind": "org_user_token", "id": token.id}));
    assert_eq!(entry["target"], entry["actor"]);
    assert!(setup.registry.take_requests().is_empty());
}

#[tokio::test]
async fn logout_that_fails_revokes_nothing_and_can_be_repeated() {
    let registry = Registry::start().await;
    let (service, faults) = Service::start_with_registries_and_faults(registry.settings()).await;
    let token = Fixtures::create(&service).await.token.token;
    let logout = async || service.call(Method::DELETE, &format!("/npm/-/user/token/{token}"), &token).await.status;
    let works = async || service.call(Method::GET, "/npm/-/whoami", &token).await.status == 200;
    // After the token is read.
    faults.arm(1, &[], Some(Fault::ServerError));
    assert_eq!(logout().await, 503);
    faults.disarm();
    assert!(works().await);
    faults.arm(1, &[Fault::LostAfter], None);
    assert_eq!(logout().await, 200);
    faults.disarm();
    assert!(!works().await);
}

#[tokio::test]
async fn last_week_of_an_org_user_token_is_told_and_no_other_tokens() {
    const DAY: Duration = Duration::from_secs(24 * 60 * 60);
    let setup = Setup::start().await;
    setup.has("widgets", &[("1.0.0", "widgets/-/widgets-1.0.0.tgz")]);
    let (service, Fixtures { org, owner, email_token, job, token: lasting, .. }) = (&setup.service, &setup.fixtures);
    let end = service.clock.now().plus(DAY * 7 + Duration::from_secs(1));
    let ending = service.issue_until(org, owner, "alice", &end.to_string()).await;
    let get = async |path: &str, token: &str| service.call(Method::GET, path, token).await;
    let notice = async |path: &str, token: &str| get(path, token).await.header("npm-notice").to_owned();
    let told = |left: &str| {
        format!("This token expires {left} (2026-11-28). Rotate it, or get a new one, and set that in its place.")
    };
    assert_eq!(notice("/npm/widgets", &ending.token).await, "");
    for (advance, left) in [(1, "in 7 days"), (DAY.as_secs() * 4, "in 3 days"), (DAY.as_secs() * 2, "in 1 day")] {
        service.clock.advance(Duration::from_secs(advance));
        // What is kept of the upstream is shared, the notice is not.
        for path in ["/npm/widgets", "/npm/widgets/-/widgets-1.0.0.tgz", "/npm/-/whoami", "/npm/-/ping"] {
            assert_eq!(notice(path, &ending.token).await, told(left), "{path}");
            for token in [&lasting.token, email_token] {
                assert_eq!(notice(path, token).await, "", "{path}");
            }
        }
    }
    let job = if get("/npm/-/whoami", job).await.status == 200 { job.clone() } else { service.exchanged(owner).await };
    assert_eq!(
        (get("/npm/-/whoami", &job).await.status.as_u16(), notice("/npm/widgets", &job).await),
        (200, String::new())
    );
    let answer = get("/npm/widgets", &ending.token).await;
    let request = service.request(Method::GET, "/npm/widgets").bearer_auth(&ending.token);
    let unchanged = service.send(request.header("if-none-match", answer.header("etag"))).await;
    assert_eq!((unchanged.status.as_u16(), unchanged.header("npm-notice")), (304, told("in 1 day").as_str()));
    service.clock.advance(DAY - Duration::from_secs(60 * 60 * 10));
    assert_eq!(notice("/npm/widgets", &ending.token).await, told("today"));
    // A rotated one is in its overlap.
    let path = org.org_user_tokens(&format!("/by-id/{}/rotate", lasting.id));
    assert_eq!(service.post(&path, &owner.credential, &json!({"overlap": "7d"})).await.status, 201);
    let rotated = "This token expires in 7 days (2026-12-05). It was rotated: set its successor in its place.";
    assert_eq!(notice("/npm/widgets", &lasting.token).await, rotated);
    service.clock.advance(DAY);
    assert_eq!(get("/npm/widgets", &ending.token).await.status, 401);
}

#[tokio::test]
async fn npm_is_sent_the_notice_once_a_command_that_it_prints_it_for() {
    let setup = Setup::start().await;
    setup.has("widgets", &[("1.0.0", "widgets/-/widgets-1.0.0.tgz")]);
    let (service, Fixtures { org, owner, .. }) = (&setup.service, &setup.fixtures);
    let end = service.clock.now().plus(Duration::from_secs(24 * 60 * 60)).to_string();
    let [alices, bobs] = ["alice", "bobby"].map(|name| service.issue_until(org, owner, name, &end));
    let (alices, bobs) = (alices.await.token, bobs.await.token);
    let is_told = async |path: &str, token: &str, session: &str| {
        let request = service.request(Method::GET, path).bearer_auth(token).header("npm-session", session);
        service.send(request).await.header("npm-notice").starts_with("This token expires in 1 day")
    };
    let (metadata, file) = ("/npm/widgets", "/npm/widgets/-/widgets-1.0.0.tgz");
    // npm follows a redirect and does not print its headers.
    assert!(is_told(file, &alices, "1a2b").await && is_told(file, &alices, "1a2b").await);
    assert!(is_told(metadata, &alices, "1a2b").await);
    for path in [metadata, file, "/npm/-/whoami"] {
        assert!(!is_told(path, &alices, "1a2b").await, "{path}");
    }
    assert!(is_told(metadata, &alices, "3c4d").await && is_told(metadata, &bobs, "1a2b").await);
}

#[tokio::test]
async fn login_is_answered_with_where_tokens_come_from() {
    let setup = Setup::start().await;
    for (method, path) in
        [(Method::POST, "/npm/-/v1/login"), (Method::PUT, "/npm/-/user/org.couchdb.user:alice%40example.com")]
    {
        for token in [None, Some(&setup.fixtures.token.token)] {
            let request = setup.service.request(method.clone(), path).body(r#"{"name":"alice","password":"x"}"#);
            let request = token.into_iter().fold(request, |request, token| request.bearer_auth(token));
            let answer = setup.service.send(request).await;
            assert_eq!((answer.status.as_u16(), answer.json()["code"].clone()), (403, json!("FORBIDDEN")));
            assert!(answer.header("npm-notice").contains("Get a token from your organization"), "{}", answer.text);
        }
    }
    assert!(setup.registry.take_requests().is_empty());
}

#[tokio::test]
async fn functions_that_are_not_offered_say_so() {
    let setup = Setup::start().await;
    for (method, path) in [
        (Method::GET, "/npm/-/v1/search?text=x"),
        (Method::GET, "/npm/-/npm/v1/tokens"),
        (Method::POST, "/npm/-/npm/v1/tokens"),
        (Method::GET, "/npm/-/team/acme/devs/user"),
        (Method::GET, "/npm/-/all"),
    ] {
        let answer = setup.service.call(method, path, &setup.fixtures.token.token).await;
        assert_eq!((answer.status.as_u16(), answer.json()["code"].clone()), (404, json!("NOT_FOUND")), "{path}");
        assert!(answer.text.contains("does not offer this function"), "{}", answer.text);
    }
    assert!(setup.registry.take_requests().is_empty());
}
