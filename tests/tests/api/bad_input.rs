//! Fuzz-like input for every operation: junk in paths, queries, headers and bodies. Every refusal
//! must be documented in the OpenAPI document, echo nothing and change nothing. `bodies.rs` tests
//! the responses to bodies in detail.

use std::io::{Read, Write};

use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderName, HeaderValue};
use reqwest::{Method, RequestBuilder, Url};
use tests::coverage::{Covered, Fixtures, Guard, answered};
use tests::{Answer, Service};

/// A secret that responses must not echo.
const SECRET: &str = "hunter2-Correct-Horse-9F3A";

/// A service and fixtures for its calls.
struct Setup {
    service: Service,
    fixtures: Fixtures,
}

impl Setup {
    async fn start() -> Self {
        let service = Service::start().await;
        let fixtures = Fixtures::create(&service).await;
        Self { service, fixtures }
    }

    /// The operations in the OpenAPI document.
    fn operations() -> impl Iterator<Item = &'static Covered> {
        // A signed report is refused for its signature before anything in it is read.
        answered().filter(|covered| covered.guard != Guard::Signed)
    }

    /// The operations that refuse what they do not know. SCIM ignores it; `scim_users.rs` tests that.
    fn strict_operations() -> impl Iterator<Item = &'static Covered> {
        Self::operations().filter(|covered| !covered.is_scim())
    }

    /// A valid request with another path and query.
    fn at(&self, covered: &Covered, path_and_query: &str) -> RequestBuilder {
        let request = self.service.request(covered.method.clone(), path_and_query);
        let request = covered.body.into_iter().fold(request, |request, body| request.json(&body(&self.fixtures)));
        covered.authorized(request, &self.fixtures)
    }

    /// Sends a request and asserts a documented refusal that echoes nothing.
    async fn assert_refused(&self, covered: &Covered, request: RequestBuilder, what: &str) -> Answer {
        let answer = self.service.send(request).await;
        let (name, status) = (covered.operation.name(), answer.status);
        assert!(status.is_client_error(), "{name}, {what}: {status} {}", answer.text);
        assert!(covered.is_documented(status.as_u16()), "{name}, {what}: {status} is not documented");
        answer.assert_error(status.as_u16(), &answer.code());
        assert!(!answer.text.contains(SECRET), "{name}, {what}: {}", answer.text);
        answer
    }

    /// Asserts that the calls change nothing in the table.
    async fn assert_unchanged(&self, calls: impl AsyncFnOnce()) {
        let items = async || {
            let mut items = self.service.table.items_without_audit().await;
            // Reports of leaks are counted even if they are refused.
            items.retain(|item| !item["pk"].as_str().unwrap().starts_with("LEAK"));
            items
        };
        let before = items().await;
        calls().await;
        assert_eq!(items().await, before);
    }
}

#[tokio::test]
async fn junk_path_parameters_are_refused() {
    let setup = Setup::start().await;
    let long = "a".repeat(8_000);
    setup
        .assert_unchanged(async || {
            for covered in Setup::operations().filter(|covered| covered.path.contains('{')) {
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
                        let good = covered.path_with(&setup.fixtures);
                        let path: Vec<&str> =
                            good.split('/').enumerate().map(|(n, p)| if n == at { junk } else { p }).collect();
                        let request = setup.at(covered, &path.join("/"));
                        let answer = setup.assert_refused(covered, request, &format!("{part} is {junk:.40}")).await;
                        assert_eq!(answer.status, if part == "{org_id}" { 403 } else { 404 }, "{part} is {junk:.40}");
                    }
                }
            }
        })
        .await;
}

#[tokio::test]
async fn junk_query_strings_are_refused() {
    let setup = Setup::start().await;
    let long = format!("cursor={}", "A".repeat(8_000));
    let many = vec!["limit=1"; 1_000].join("&");
    setup
        .assert_unchanged(async || {
            for covered in Setup::strict_operations() {
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
                    let path = format!("{}?{junk}", covered.path_with(&setup.fixtures));
                    let answer = setup.assert_refused(covered, setup.at(covered, &path), &format!("?{junk:.40}")).await;
                    assert_eq!(answer.status, 400, "{}: ?{junk:.40}", covered.operation.name());
                }
            }
        })
        .await;
}

#[tokio::test]
async fn junk_authorization_headers_are_refused() {
    let setup = Setup::start().await;
    setup
        .assert_unchanged(async || {
            for covered in Setup::operations().filter(|covered| covered.guard != Guard::None) {
                let good = format!("Bearer {}", covered.credential(&setup.fixtures));
                let with = |values: &[&[u8]]| {
                    let request = covered.request(&setup.service, &setup.fixtures);
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
                    let answer = setup.assert_refused(covered, with(values), &what).await;
                    assert_eq!(answer.status, 401, "{}: {what}", covered.operation.name());
                }
                // Other headers never act as credentials.
                let crowd = (0..90).fold(with(&[]), |request, number| {
                    let name = HeaderName::from_bytes(format!("x-authorization-{number}").as_bytes()).unwrap();
                    request.header(name, &good)
                });
                assert_eq!(setup.assert_refused(covered, crowd, "many other headers").await.status, 401);
            }
        })
        .await;
}

#[tokio::test]
async fn refused_bodies_change_nothing() {
    let setup = Setup::start().await;
    setup
        .assert_unchanged(async || {
            for covered in Setup::strict_operations() {
                let Some(body) = covered.body else { continue };
                let good = body(&setup.fixtures).to_string();
                let field = body(&setup.fixtures).as_object().unwrap().keys().next().unwrap().clone();
                let with = |value: &str| format!("{{\"{field}\": {value}, {}", &good[1..]);
                let mut bodies: Vec<(Vec<u8>, u16)> = [
                    (format!("{good}{}", " ".repeat(covered.max_body() + 1 - good.len())), 413),
                    ("[".repeat(16_000), 400),
                    (with(&format!("{}{}", "[".repeat(7_000), "]".repeat(7_000))), 400),
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
                    let request = setup.service.request(covered.method.clone(), &covered.path_with(&setup.fixtures));
                    let request = request.header(CONTENT_TYPE, "application/json").body(body.clone());
                    let what = format!("{:.60}", String::from_utf8_lossy(&body));
                    let answer =
                        setup.assert_refused(covered, covered.authorized(request, &setup.fixtures), &what).await;
                    assert_eq!(answer.status, status, "{}: {what}", covered.operation.name());
                }
                for content_type in
                    ["application/xml", "multipart/form-data; boundary=x", "application/json/x", ";", "\u{7f}"]
                {
                    let Ok(content_type) = HeaderValue::from_bytes(content_type.as_bytes()) else { continue };
                    let request = setup.service.request(covered.method.clone(), &covered.path_with(&setup.fixtures));
                    let request = request.header(CONTENT_TYPE, content_type).body(good.clone());
                    let answer =
                        setup.assert_refused(covered, covered.authorized(request, &setup.fixtures), "its type").await;
                    assert_eq!(answer.status, 415, "{}", covered.operation.name());
                }
            }
        })
        .await;
}

/// A body is not read where none is expected, so it cannot change the result.
#[tokio::test]
async fn unexpected_bodies_are_ignored() {
    let setup = Setup::start().await;
    let reads = Setup::operations().filter(|covered| covered.method == Method::GET);
    for covered in reads {
        for body in [&b"{\"limit\": 1"[..], b"\xff\xfe\0", &[b'x'; 100_000]] {
            let request =
                setup.at(covered, &covered.path_with(&setup.fixtures)).header(CONTENT_TYPE, "application/json");
            let answer = setup.service.send(request.body(body.to_vec())).await;
            assert_eq!(answer.status, covered.success, "{}: {}", covered.operation.name(), answer.text);
        }
    }
}

#[tokio::test]
async fn registries_refuse_path_traversal() {
    let setup = Setup::start().await;
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
            &setup.fixtures.token.token,
        ] {
            let request = setup.service.request(Method::GET, &format!("{root}{junk}"));
            let answer = setup.service.send(request.bearer_auth(&setup.fixtures.token.token)).await;
            assert_eq!(
                (answer.status.as_u16(), answer.code().as_str()),
                (400, "BAD_REQUEST"),
                "{root}{junk}: {}",
                answer.text
            );
            assert_eq!(answer.header("content-type"), "application/problem+json");
            assert!(
                !answer.text.contains(SECRET) && !answer.text.contains(&setup.fixtures.token.token),
                "{}",
                answer.text
            );
        }
    }
    assert!(setup.service.table.installations().await.is_empty());
}

/// Malformed HTTP never reaches a handler and closes only its own connection.
#[tokio::test]
async fn malformed_http_closes_only_its_own_connection() {
    let setup = Setup::start().await;
    let address = Url::parse(&setup.service.base_url).unwrap().authority().to_owned();
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
    let whoami = setup.service.call(Method::GET, "/v1/whoami", &setup.fixtures.owner.credential).await;
    assert_eq!(whoami.status, 200);
}
