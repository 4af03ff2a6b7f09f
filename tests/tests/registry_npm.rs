//! `/npm/`, before an upstream that the tests say the words of.

use std::io::Read;

use flate2::read::GzDecoder;
use reqwest::Method;
use serde_json::{Value, json};
use shared::registry::{PATIENCE, PublicUrl, Settings};
use tests::coverage::Stage;
use tests::upstream::{Registry, Says};
use tests::{Answer, Service, no_upstreams};

const ABBREVIATED: &str = "application/vnd.npm.install-v1+json; q=1.0, application/json; q=0.8, */*";

/// A service before a registry, and the token to install with.
struct Stand {
    service: Service,
    registry: Registry,
    stage: Stage,
}

impl Stand {
    async fn start() -> Self {
        Self::start_with(|settings| settings).await
    }

    async fn start_with(change: impl FnOnce(Settings) -> Settings) -> Self {
        let registry = Registry::start().await;
        let settings = change(Settings { npm: registry.upstream("/npm/"), ..no_upstreams() });
        let service = Service::start_with_registries(settings).await;
        let stage = Stage::set(&service).await;
        Self { service, registry, stage }
    }

    /// The metadata of a package with a version at each of these places, below the upstream's root unless elsewhere.
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
        self.registry.says(&path, Says::found("application/json", packument.to_string()).with("etag", "\"7\""));
        packument
    }

    async fn get(&self, path: &str) -> Answer {
        self.get_with(path, &[]).await
    }

    async fn get_with(&self, path: &str, headers: &[(&str, &str)]) -> Answer {
        let request = self.service.request(Method::GET, path).bearer_auth(&self.stage.token.token);
        self.service.send(headers.iter().fold(request, |request, (name, value)| request.header(*name, *value))).await
    }
}

#[tokio::test]
async fn metadata_is_the_upstreams_but_for_the_places_of_files() {
    let stand = Stand::start().await;
    let mut expected = stand.has(
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
        let base = &stand.service.base_url;
        expected["versions"][version]["dist"]["tarball"] = json!(format!("{base}/npm/{path}"));
    }
    // However the name arrives, the upstream is asked in npm's way.
    for name in ["@scope%2fwidgets", "@scope%2Fwidgets", "@scope/widgets", "%40scope%2fwidgets"] {
        let answer = stand.get(&format!("/npm/{name}")).await;
        assert_eq!((answer.status.as_u16(), answer.json()), (200, expected.clone()), "{name}");
        assert_eq!(answer.header("content-type"), "application/json");
        assert_eq!(answer.header("cache-control"), "private, no-cache");
        assert_eq!(stand.registry.asked_once().path, "/npm/@scope%2fwidgets");
    }
}

#[tokio::test]
async fn files_begin_with_the_public_url_where_one_is_set() {
    let stand = Stand::start_with(|settings| Settings {
        public_url: PublicUrl::Fixed("https://guard.example.com/registry".to_owned()),
        ..settings
    })
    .await;
    stand.has("widgets", &[("1.0.0", "widgets/-/widgets-1.0.0.tgz")]);
    let place = stand.get("/npm/widgets").await.json()["versions"]["1.0.0"]["dist"]["tarball"].clone();
    assert_eq!(place, json!("https://guard.example.com/registry/npm/widgets/-/widgets-1.0.0.tgz"));
}

#[tokio::test]
async fn abbreviated_metadata_is_asked_for_as_npm_asks() {
    let stand = Stand::start().await;
    stand.has("widgets", &[]);
    let kind = "application/vnd.npm.install-v1+json";
    stand.registry.says("/npm/widgets", Says::found(kind, r#"{"name":"widgets","versions":{}}"#));
    let answer = stand.get_with("/npm/widgets", &[("accept", ABBREVIATED)]).await;
    assert_eq!((answer.header("content-type"), answer.header("vary")), (kind, "Accept, Accept-Encoding"));
    assert_eq!(stand.registry.asked_once().headers["accept"], ABBREVIATED);
    // Who wants all of it, or says nothing, gets all of it: the times of versions are there alone.
    for accept in ["application/json", "*/*", "application/vnd.npm.install-v1+json;q=0"] {
        stand.get_with("/npm/widgets", &[("accept", accept)]).await;
        assert_eq!(stand.registry.asked_once().headers["accept"], "application/json");
    }
}

#[tokio::test]
async fn who_has_it_already_is_told_so() {
    let stand = Stand::start().await;
    stand.has("widgets", &[("1.0.0", "widgets/-/widgets-1.0.0.tgz")]);
    let tag = stand.get("/npm/widgets").await.header("etag").to_owned();
    assert!(tag.starts_with("W/\""), "{tag}");
    stand.registry.asked();
    let answer = stand.get_with("/npm/widgets", &[("if-none-match", &tag)]).await;
    assert_eq!((answer.status.as_u16(), answer.text.as_str(), answer.header("etag")), (304, "", tag.as_str()));
    assert_eq!(answer.header("cache-control"), "private, no-cache");
    assert_eq!(stand.registry.asked_once().headers["if-none-match"], "\"7\"");
    // By another name, the files lie elsewhere: what was kept is not right there.
    let elsewhere = [("if-none-match", tag.as_str()), ("host", "guard.example.com")];
    let answer = stand.get_with("/npm/widgets", &elsewhere).await;
    assert!(answer.status == 200 && answer.text.contains("http://guard.example.com/npm/widgets/-/"));
    assert!(!stand.registry.asked_once().headers.contains_key("if-none-match"));
    // An upstream without tags, or with what is none, is no reason to send all of it again.
    let plain = Says::found("application/json", r#"{"name":"plain"}"#);
    stand.registry.says("/npm/odd", plain.clone().with("etag", "7"));
    let tag = stand.get("/npm/odd").await.header("etag").to_owned();
    assert_eq!(stand.get_with("/npm/odd", &[("if-none-match", &tag)]).await.status, 304);
    stand.registry.says("/npm/plain", plain);
    let tag = stand.get("/npm/plain").await.header("etag").to_owned();
    assert_eq!(stand.get_with("/npm/plain", &[("if-none-match", &tag)]).await.status, 304);
    stand.registry.says("/npm/plain", Says::found("application/json", r#"{"name":"plain","v":2}"#));
    assert_eq!(stand.get_with("/npm/plain", &[("if-none-match", &tag)]).await.status, 200);
    // When it was modified says nothing of where files lie, so nobody is told or asked.
    let dated = Says::found("application/json", "{}").with("last-modified", "Sat, 21 Nov 2026 10:00:00 GMT");
    stand.registry.says("/npm/plain", dated);
    stand.registry.asked();
    let answer = stand.get_with("/npm/plain", &[("if-modified-since", "Sat, 21 Nov 2026 10:00:00 GMT")]).await;
    assert_eq!((answer.status.as_u16(), answer.header("last-modified")), (200, ""));
    assert!(!stand.registry.asked_once().headers.contains_key("if-modified-since"));
}

#[tokio::test]
async fn a_file_is_where_the_upstream_keeps_it() {
    let stand = Stand::start().await;
    let base = format!("{}/npm", stand.registry.url);
    for (path, place) in [
        ("widgets/-/widgets-1.0.0.tgz", format!("{base}/widgets/-/widgets-1.0.0.tgz")),
        ("@scope%2fwidgets/-/widgets-1.0.0-rc.1.tgz", format!("{base}/@scope/widgets/-/widgets-1.0.0-rc.1.tgz")),
        ("@scope/widgets/-/widgets-1.0.0+b.tgz", format!("{base}/@scope/widgets/-/widgets-1.0.0+b.tgz")),
    ] {
        let answer = stand.get(&format!("/npm/{path}")).await;
        assert_eq!((answer.status.as_u16(), answer.header("location")), (302, place.as_str()));
    }
    // The usual place needs no looking up.
    assert!(stand.registry.asked().is_empty());
    let path = "/npm/@scope/widgets/-/by-metadata/widgets-2.0.0.tgz";
    // Where only the metadata says it, the same metadata is asked that led here: not all registries know single versions.
    stand.has("@scope/widgets", &[("2.0.0", "https://files.example.com/c0ffee?signature=x")]);
    let answer = stand.get(path).await;
    let place = "https://files.example.com/c0ffee?signature=x";
    assert_eq!((answer.status.as_u16(), answer.header("location")), (302, place));
    assert_eq!(stand.registry.asked_once().path, "/npm/@scope%2fwidgets");
    // A tag is no version: it would be logged as one.
    for version in ["1.0.0", "latest"] {
        let answer = stand.get(&format!("/npm/@scope/widgets/-/by-metadata/widgets-{version}.tgz")).await;
        assert_eq!((answer.status.as_u16(), answer.header("location")), (404, ""), "{version}");
    }
    for evil in
        ["javascript://x", "file://x/etc/passwd", "https://user:pw@files.example.com/x", "http://127.0.0.1:1/x.tgz"]
    {
        stand.has("@scope/widgets", &[("2.0.0", evil)]);
        let answer = stand.get(path).await;
        assert_eq!((answer.status.as_u16(), answer.header("location")), (502, ""), "{evil}");
    }
    let log =
        stand.service.installations(&stand.stage.org, &stand.stage.owner.credential, "?package=@scope/widgets").await;
    let versions: Vec<&str> =
        log["installations"].as_array().unwrap().iter().map(|e| e["version"].as_str().unwrap()).collect();
    assert_eq!(versions.len(), 3);
    assert!(["2.0.0", "1.0.0+b", "1.0.0-rc.1"].iter().all(|version| versions.contains(version)), "{versions:?}");
}

#[tokio::test]
async fn metadata_is_json_whatever_the_upstream_calls_it() {
    let stand = Stand::start().await;
    for kind in ["text/html", "application/octet-stream", "application/json; charset=utf-8"] {
        stand.registry.says("/npm/widgets", Says::found(kind, r#"{"versions":null}"#));
        let answer = stand.get("/npm/widgets").await;
        assert_eq!((answer.status.as_u16(), answer.header("content-type")), (200, "application/json"), "{kind}");
    }
    stand.registry.says("/npm/widgets", Says::found("application/vnd.npm.install-v1+json; charset=utf-8", "{}"));
    assert_eq!(stand.get("/npm/widgets").await.header("content-type"), "application/vnd.npm.install-v1+json");
}

#[tokio::test]
async fn one_version_is_answered_too() {
    let stand = Stand::start().await;
    let tarball = format!("{}/npm/widgets/-/widgets-1.0.0.tgz", stand.registry.url);
    let manifest = json!({"name": "widgets", "version": "1.0.0", "dist": {"tarball": tarball}}).to_string();
    for version in ["1.0.0", "latest"] {
        stand.registry.says(&format!("/npm/widgets/{version}"), Says::found("application/json", manifest.clone()));
        let place = stand.get(&format!("/npm/widgets/{version}")).await.json()["dist"]["tarball"].clone();
        assert_eq!(place, json!(format!("{}/npm/widgets/-/widgets-1.0.0.tgz", stand.service.base_url)));
    }
}

#[tokio::test]
async fn the_largest_packages_pass_compressed_and_are_a_clear_error_otherwise() {
    let stand = Stand::start_with(|settings| Settings { patience: PATIENCE, ..settings }).await;
    let versions: serde_json::Map<String, Value> = (0..40_000)
        .map(|n| {
            let version = format!("1.{n}.0");
            let tarball = format!("{}/npm/widgets/-/widgets-{version}.tgz", stand.registry.url);
            let dist = json!({"tarball": tarball, "integrity": format!("sha512-{n:088}")});
            (
                version.clone(),
                json!({"name": "widgets", "version": version, "readme": "widget ".repeat(100), "dist": dist}),
            )
        })
        .collect();
    let packument = json!({"name": "widgets", "versions": versions}).to_string();
    assert!(packument.len() > 30_000_000);
    stand.registry.says("/npm/widgets", Says::found("application/json", packument).compressed());
    let request = stand.service.request(Method::GET, "/npm/widgets").bearer_auth(&stand.stage.token.token);
    let response = request.header("accept-encoding", "gzip").send().await.unwrap();
    let status = response.status();
    if status != 200 {
        panic!("{}", response.text().await.unwrap());
    }
    assert_eq!(response.headers()["content-encoding"], "gzip");
    let body = response.bytes().await.unwrap();
    assert!(body.len() < 6_291_456 * 3 / 4, "{} bytes are more than Lambda carries", body.len());
    let mut text = String::new();
    GzDecoder::new(&body[..]).read_to_string(&mut text).unwrap();
    let packument: Value = serde_json::from_str(&text).unwrap();
    let place = packument["versions"]["1.39999.0"]["dist"]["tarball"].clone();
    assert_eq!(place, json!(format!("{}/npm/widgets/-/widgets-1.39999.0.tgz", stand.service.base_url)));
    let answer = stand.get_with("/npm/widgets", &[("accept-encoding", "identity")]).await;
    assert_eq!((answer.status.as_u16(), answer.json()["code"].clone()), (502, json!("BAD_GATEWAY")));
}

#[tokio::test]
async fn clients_are_told_who_they_are_and_that_the_registry_is_there() {
    let stand = Stand::start().await;
    assert_eq!(stand.get("/npm/-/whoami").await.json(), json!({"username": "alice-laptop"}));
    let person = stand.service.call(Method::GET, "/npm/-/whoami", &stand.stage.email_token).await.json();
    assert_eq!(person, json!({"username": format!("o***@{}", "example.com")}));
    assert_eq!(stand.get("/npm/-/ping").await.json(), json!({}));
    assert!(stand.registry.asked().is_empty());
}

#[tokio::test]
async fn audits_keys_and_attestations_are_the_upstreams() {
    let stand = Stand::start().await;
    let json = |body: Value| Says::found("application/json", body.to_string());
    stand.registry.says("/npm/-/npm/v1/keys", json(json!({"keys": []})));
    assert_eq!(stand.get("/npm/-/npm/v1/keys").await.json(), json!({"keys": []}));
    stand.registry.says("/npm/-/package/@scope%2fwidgets/dist-tags", json(json!({"latest": "1.0.0"})));
    assert_eq!(stand.get("/npm/-/package/@scope/widgets/dist-tags").await.json(), json!({"latest": "1.0.0"}));
    stand.registry.says("/npm/-/npm/v1/attestations/@scope%2fwidgets@1.0.0", json(json!({"attestations": []})));
    let answer = stand.get("/npm/-/npm/v1/attestations/@scope%2fwidgets@1.0.0").await;
    assert_eq!(answer.json(), json!({"attestations": []}));
    stand.registry.asked();

    for path in ["advisories/bulk", "audits", "audits/quick"] {
        let path = format!("/npm/-/npm/v1/security/{path}");
        stand.registry.says(&path, json(json!({"widgets": []})));
        let compressed = b"\x1f\x8b not looked at";
        let request = stand.service.request(Method::POST, &path).bearer_auth(&stand.stage.token.token);
        let request = request.header("content-type", "application/json").header("content-encoding", "gzip");
        let answer = stand.service.send(request.body(compressed.to_vec())).await;
        assert_eq!((answer.status.as_u16(), answer.json()), (200, json!({"widgets": []})));
        let asked = stand.registry.asked_once();
        assert_eq!((asked.method, asked.body.as_ref()), (Method::POST, compressed.as_slice()));
        assert_eq!(
            (&asked.headers["content-encoding"], &asked.headers["content-type"]),
            (&"gzip".parse().unwrap(), &"application/json".parse().unwrap())
        );
        assert!(!asked.headers.contains_key("authorization"));
        // It is asked with POST alone, and with no more than fits.
        let answer = stand.get(&path).await;
        assert_eq!((answer.status.as_u16(), answer.header("allow")), (405, "POST"));
        let request = stand.service.request(Method::POST, &path).bearer_auth(&stand.stage.token.token);
        let answer = stand.service.send(request.body(vec![b' '; 4 * 1024 * 1024 + 1])).await;
        assert_eq!((answer.status.as_u16(), answer.text.contains("4 MiB")), (413, true), "{}", answer.text);
        assert!(stand.registry.asked().is_empty());
    }
    // An upstream that has none is a 404, which npm takes for just that.
    let request = stand.service.request(Method::POST, "/npm/-/npm/v1/security/advisories/bulk");
    stand.registry.says("/npm/-/npm/v1/security/advisories/bulk", Says::status(404));
    assert_eq!(stand.service.send(request.bearer_auth(&stand.stage.token.token).body("{}")).await.status, 404);
}
