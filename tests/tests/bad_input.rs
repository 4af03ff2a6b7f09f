//! What every operation does with requests that nobody sends by mistake: junk in paths, queries and headers, bodies that
//! want to break what reads them. `bodies.rs` has what is answered to bodies in detail; here, that each refusal is one that
//! the OpenAPI document names, says nothing of what was sent, and leaves no trace in the table.

use std::io::{Read, Write};

use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderName, HeaderValue};
use reqwest::{Method, RequestBuilder, Url};
use tests::coverage::{Covered, Guard, Stage, routed};
use tests::{Answer, Service};

/// Something that must not come back.
const SECRET: &str = "hunter2-Correct-Horse-9F3A";

/// A service, and what calls are made on.
struct Scene {
    service: Service,
    stage: Stage,
}

impl Scene {
    async fn set() -> Self {
        let service = Service::start().await;
        let stage = Stage::set(&service).await;
        Self { service, stage }
    }

    /// The operations of the document.
    fn operations() -> impl Iterator<Item = &'static Covered> {
        routed().filter(|covered| covered.success != 404)
    }

    /// A good call with another path and query.
    fn at(&self, covered: &Covered, path_and_query: &str) -> RequestBuilder {
        let request = self.service.request(covered.method.clone(), path_and_query);
        let request = covered.body.into_iter().fold(request, |request, body| request.json(&body(&self.stage)));
        covered.authorized(request, &self.stage)
    }

    /// Sends what must be refused, and checks how it is.
    async fn refuse(&self, covered: &Covered, request: RequestBuilder, what: &str) -> Answer {
        let answer = self.service.send(request).await;
        let (name, status) = (covered.operation.name(), answer.status);
        assert!(status.is_client_error(), "{name}, {what}: {status} {}", answer.text);
        assert!(covered.is_documented(status.as_u16()), "{name}, {what}: the document has no {status}");
        answer.assert_error(status.as_u16(), &answer.code());
        assert!(!answer.text.contains(SECRET), "{name}, {what}: {}", answer.text);
        answer
    }

    /// Runs calls that must leave everything as it is.
    async fn without_a_trace(&self, calls: impl AsyncFnOnce()) {
        let before = self.service.table.items_without_audit().await;
        calls().await;
        assert_eq!(self.service.table.items_without_audit().await, before);
    }
}

#[tokio::test]
async fn a_path_that_names_nothing_is_refused() {
    let scene = Scene::set().await;
    let long = "a".repeat(8_000);
    scene
        .without_a_trace(async || {
            for covered in Scene::operations().filter(|covered| covered.path.contains('{')) {
                for junk in [
                    "%00",
                    "%ff%fe",
                    "%ED%A0%80",
                    "%2e%2e%2f",
                    "..%2f..%2fv1%2fwhoami",
                    "%5c..%5c",
                    "%0d%0aset-cookie:%20a=b",
                    "%25",
                    "%",
                    "%zz",
                    "%F0%9F%98%80",
                    "-1",
                    "0",
                    "01",
                    "18446744073709551616",
                    "*",
                    "'%20or%20'1'='1",
                    "%23",
                    "%3f",
                    "a;b=c",
                    &format!("{SECRET}%22%3Cscript%3E"),
                    &long,
                ] {
                    let parts = covered.path.split('/').enumerate().filter(|(_, part)| part.starts_with('{'));
                    for (at, part) in parts {
                        let good = covered.path_on(&scene.stage);
                        let path: Vec<&str> =
                            good.split('/').enumerate().map(|(n, p)| if n == at { junk } else { p }).collect();
                        let request = scene.at(covered, &path.join("/"));
                        let answer = scene.refuse(covered, request, &format!("{part} is {junk:.40}")).await;
                        assert_eq!(answer.status, if part == "{org_id}" { 403 } else { 404 }, "{part} is {junk:.40}");
                    }
                }
            }
        })
        .await;
}

#[tokio::test]
async fn a_query_that_means_nothing_is_refused() {
    let scene = Scene::set().await;
    let long = format!("cursor={}", "A".repeat(8_000));
    let many = vec!["limit=1"; 1_000].join("&");
    scene
        .without_a_trace(async || {
            for covered in Scene::operations() {
                for junk in [
                    "%00=1",
                    "limit=%00",
                    "limit=%ff",
                    "limit=0",
                    "limit=+1",
                    "limit=%D9%A1",
                    "limit=1&limit=1",
                    "limit",
                    "cursor=%00",
                    "cursor=%2e%2e%2f",
                    "status=ALL",
                    "__proto__[x]=1",
                    "=1",
                    "%",
                    &format!("cursor={SECRET}"),
                    &format!("{SECRET}={SECRET}"),
                    &long,
                    &many,
                ] {
                    let path = format!("{}?{junk}", covered.path_on(&scene.stage));
                    let answer = scene.refuse(covered, scene.at(covered, &path), &format!("?{junk:.40}")).await;
                    assert_eq!(answer.status, 400, "{}: ?{junk:.40}", covered.operation.name());
                }
            }
        })
        .await;
}

#[tokio::test]
async fn a_header_that_is_no_credential_is_refused_whatever_it_is() {
    let scene = Scene::set().await;
    scene
        .without_a_trace(async || {
            for covered in Scene::operations().filter(|covered| covered.guard != Guard::None) {
                let good = format!("Bearer {}", covered.credential(&scene.stage));
                let with = |values: &[&[u8]]| {
                    let request = covered.request(&scene.service, &scene.stage);
                    let values = values.iter().map(|value| HeaderValue::from_bytes(value).unwrap());
                    values.fold(request, |request, value| request.header(AUTHORIZATION, value))
                };
                let long = format!("Bearer {}", "a".repeat(64 * 1_024));
                let longer = format!("{good}{}", "0".repeat(8 * 1_024));
                for values in [
                    &[&b""[..]][..],
                    &[b"Bearer"],
                    &[b"Bearer \xff\xfe"],
                    &[b"Bearer \xe3\x81\x82"],
                    &[b"\xff"],
                    &[b"Bearer null"],
                    &[b"Bearer \t"],
                    &[b"Bearer '; --"],
                    &[long.as_bytes()],
                    &[longer.as_bytes()],
                    &[good.as_bytes(), good.as_bytes()],
                    &[good.as_bytes(), b"Bearer x"],
                    &[b"Bearer x", good.as_bytes()],
                    &[b"Basic x", good.as_bytes()],
                    &[b"", good.as_bytes()],
                    &[format!("{good},{good}").as_bytes()],
                    &[format!("{good}, Bearer x").as_bytes()],
                    &[SECRET.as_bytes()],
                    &[format!("Bearer {SECRET}").as_bytes()],
                ] {
                    let what = format!("{:.60}", String::from_utf8_lossy(&values.join(&b" and "[..])));
                    let answer = scene.refuse(covered, with(values), &what).await;
                    assert_eq!(answer.status, 401, "{}: {what}", covered.operation.name());
                }
                // What is no credential does not become one by what else there is.
                let crowd = (0..90).fold(with(&[]), |request, number| {
                    let name = HeaderName::from_bytes(format!("x-authorization-{number}").as_bytes()).unwrap();
                    request.header(name, &good)
                });
                assert_eq!(scene.refuse(covered, crowd, "a crowd of headers").await.status, 401);
            }
        })
        .await;
}

#[tokio::test]
async fn a_body_that_is_refused_leaves_no_trace() {
    let scene = Scene::set().await;
    scene
        .without_a_trace(async || {
            for covered in Scene::operations() {
                let Some(body) = covered.body else { continue };
                let good = body(&scene.stage).to_string();
                let field = body(&scene.stage).as_object().unwrap().keys().next().unwrap().clone();
                let with = |value: &str| format!("{{\"{field}\": {value}, {}", &good[1..]);
                let mut bodies: Vec<(Vec<u8>, u16)> = [
                    (format!("{good}{}", " ".repeat(16_385 - good.len())), 413),
                    ("[".repeat(16_000), 400),
                    (with(&format!("{}{}", "[".repeat(8_000), "]".repeat(8_000))), 400),
                    (with("1e999"), 400),
                    (with("-1e-999"), 400),
                    (with("\"\\ud800\""), 400),
                    (with("\"\\u0000\""), 400),
                    (with("\"a\""), 400),
                    (format!("{good}{good}"), 400),
                    (format!("\u{feff}{good}"), 400),
                    (format!("{good}\u{0}"), 400),
                    (good.replace(':', "="), 400),
                    (String::new(), 400),
                ]
                .map(|(body, status)| (body.into_bytes(), status))
                .to_vec();
                bodies.push((format!("{{\"{field}\": \"").bytes().chain([0xff, 0xfe]).chain(*b"\"}").collect(), 400));
                for (body, status) in bodies {
                    let request = scene.service.request(covered.method.clone(), &covered.path_on(&scene.stage));
                    let request = request.header(CONTENT_TYPE, "application/json").body(body.clone());
                    let what = format!("{:.60}", String::from_utf8_lossy(&body));
                    let answer = scene.refuse(covered, covered.authorized(request, &scene.stage), &what).await;
                    assert_eq!(answer.status, status, "{}: {what}", covered.operation.name());
                }
                for content_type in
                    ["application/xml", "multipart/form-data; boundary=x", "application/json/x", ";", "\u{7f}"]
                {
                    let Ok(content_type) = HeaderValue::from_bytes(content_type.as_bytes()) else { continue };
                    let request = scene.service.request(covered.method.clone(), &covered.path_on(&scene.stage));
                    let request = request.header(CONTENT_TYPE, content_type).body(good.clone());
                    let answer = scene.refuse(covered, covered.authorized(request, &scene.stage), "its type").await;
                    assert_eq!(answer.status, 415, "{}", covered.operation.name());
                }
            }
        })
        .await;
}

/// A body where none is expected is not read, so it cannot change what is done.
#[tokio::test]
async fn a_body_that_nobody_asked_for_is_not_looked_at() {
    let scene = Scene::set().await;
    let reads = Scene::operations().filter(|covered| covered.method == Method::GET);
    for covered in reads {
        for body in [&b"{\"limit\": 1"[..], b"\xff\xfe\0", &[b'x'; 100_000]] {
            let request = scene.at(covered, &covered.path_on(&scene.stage)).header(CONTENT_TYPE, "application/json");
            let answer = scene.service.send(request.body(body.to_vec())).await;
            assert_eq!(answer.status, covered.success, "{}: {}", covered.operation.name(), answer.text);
        }
    }
}

#[tokio::test]
async fn the_registries_know_nothing_at_paths_that_lead_elsewhere() {
    let scene = Scene::set().await;
    for root in ["/npm/", "/npm/@scope/", "/npm/a/-/", "/pypi/", "/pypi/simple/", "/pypi/files/a/", "/pypi/files/a/-/"]
    {
        for junk in [
            "%00",
            "%ff",
            "..%2f..%2fx",
            "%2e%2e%2f",
            "a%2f..%2fb",
            "%5c..%5c",
            "%0d%0ax:y",
            "%252e%252e%252f",
            "%40evil.example%2f",
            "http:%2f%2fevil.example%2fa-1.0.tar.gz",
            "a%3fb",
            "a%23b",
            "a%20b",
            "%F0%9F%98%80",
            &"a".repeat(3_000),
            SECRET.repeat(20).as_str(),
            &scene.stage.token.token,
        ] {
            let request = scene.service.request(Method::GET, &format!("{root}{junk}"));
            let answer = scene.service.send(request.bearer_auth(&scene.stage.token.token)).await;
            assert_eq!(
                (answer.status.as_u16(), answer.code().as_str()),
                (404, "NOT_FOUND"),
                "{root}{junk}: {}",
                answer.text
            );
            assert_eq!(answer.header("content-type"), "application/problem+json");
            assert!(
                !answer.text.contains(SECRET) && !answer.text.contains(&scene.stage.token.token),
                "{}",
                answer.text
            );
        }
    }
    assert!(scene.service.table.installations().await.is_empty());
}

/// What is no HTTP never reaches us, and ends its own connection alone.
#[tokio::test]
async fn what_is_no_request_ends_its_connection_and_nothing_else() {
    let scene = Scene::set().await;
    let address = Url::parse(&scene.service.base_url).unwrap().authority().to_owned();
    for request in [
        &b"\0\0\0\0\r\n\r\n"[..],
        b"GET\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET /v1/\0 HTTP/1.1\r\nhost: x\r\n\r\n",
        b"GET /v1/whoami HTTP/1.1\r\nhost: x\r\nauthorization: Bearer \0\r\n\r\n",
        b"GET /v1/whoami HTTP/1.1\r\nhost: x\r\nauthorization : Bearer x\r\n\r\n",
        b"POST /api/v1/tokens HTTP/1.1\r\nhost: x\r\ncontent-length: -1\r\n\r\n",
        b"POST /api/v1/tokens HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n{}",
        b"POST /api/v1/tokens HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
        b"GET /v1/whoami HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n",
    ] {
        let (address, request) = (address.clone(), request.to_vec());
        let exchange = move || {
            let mut connection = std::net::TcpStream::connect(address).unwrap();
            connection.set_read_timeout(Some(std::time::Duration::from_secs(10))).unwrap();
            connection.write_all(&request).unwrap();
            let mut answer = Vec::new();
            connection.read_to_end(&mut answer).unwrap();
            String::from_utf8(answer).unwrap()
        };
        let answer = tokio::task::spawn_blocking(exchange).await.unwrap();
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{answer}");
    }
    let whoami = scene.service.call(Method::GET, "/v1/whoami", &scene.stage.owner.credential).await;
    assert_eq!(whoami.status, 200);
}
