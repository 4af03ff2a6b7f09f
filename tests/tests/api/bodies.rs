//! Request bodies: size limit, content types, and errors that name the field without echoing
//! values.

use std::io::{Read, Write};
use std::sync::Arc;

use reqwest::{Method, header};
use serde_json::{Map, Value, json};
use shared::permissions::Operation;
use shared::secret::TokenKind;
use tests::coverage::{Covered, Fixtures, Guard, answered, routed, unknown_token};
use tests::{Answer, Service};

/// A secret that responses must not echo.
const SECRET: &str = "hunter2-Correct-Horse-9F3A";

#[derive(Clone)]
struct Call<'a> {
    covered: &'a Covered,
    service: &'a Service,
    fixtures: Arc<Fixtures>,
}

impl Call<'_> {
    /// A valid body.
    fn good(&self) -> Value {
        self.covered.body.unwrap()(&self.fixtures)
    }

    async fn send_as(&self, content_type: Option<&str>, body: impl Into<reqwest::Body>) -> Answer {
        let request = self.service.request(self.covered.method.clone(), &self.covered.path_with(&self.fixtures));
        let request = self.covered.authorized(request, &self.fixtures);
        let request =
            content_type.into_iter().fold(request, |request, value| request.header(header::CONTENT_TYPE, value));
        self.service.send(request.body(body)).await
    }

    async fn send(&self, body: impl Into<reqwest::Body>) -> Answer {
        self.send_as(Some("application/json"), body).await
    }

    /// The same call, with new fixtures if a success consumes them.
    async fn with_fresh_fixtures(&self) -> Self {
        if !self.covered.consumes_fixtures() {
            return self.clone();
        }
        Self { fixtures: Arc::new(Fixtures::create(self.service).await), ..self.clone() }
    }

    /// Sends a chunked body over a raw connection and returns the raw response, since the HTTP
    /// client cannot do this.
    async fn send_chunked(&self, body: &str) -> String {
        let credential = self.covered.credential(&self.fixtures);
        let mut request = format!(
            "{} {} HTTP/1.1\r\nhost: test\r\nconnection: close\r\nauthorization: Bearer {credential}\r\n\
             content-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n",
            self.covered.method,
            self.covered.path_with(&self.fixtures),
        );
        for piece in body.as_bytes().chunks(1_000) {
            request.push_str(&format!("{:x}\r\n{}\r\n", piece.len(), std::str::from_utf8(piece).unwrap()));
        }
        request.push_str("0\r\n\r\n");
        let address = self.service.base_url.trim_start_matches("http://").to_owned();
        let exchange = move || {
            let mut connection = std::net::TcpStream::connect(address).unwrap();
            // The service may stop reading early.
            let _ = connection.write_all(request.as_bytes());
            let mut answer = Vec::new();
            let _ = connection.read_to_end(&mut answer);
            String::from_utf8(answer).unwrap()
        };
        tokio::task::spawn_blocking(exchange).await.unwrap()
    }

    #[track_caller]
    fn assert_success(&self, answer: &Answer) {
        assert_eq!(answer.status, self.covered.success, "{}: {}", self.covered.operation.name(), answer.text);
    }

    /// The fields of a valid body.
    fn fields(&self) -> Map<String, Value> {
        self.good().as_object().unwrap().clone()
    }
}

/// Runs a test for each operation that takes a body.
async fn for_each_operation_with_body(test: impl AsyncFn(Call<'_>)) {
    for_each(|covered| covered.body.is_some(), test).await;
}

/// Runs a test for each operation that takes a body and refuses unknown fields.
async fn for_each_strict_operation(test: impl AsyncFn(Call<'_>)) {
    // SCIM ignores attributes that it does not know; `scim_users.rs` tests its bodies.
    for_each(|covered| covered.body.is_some() && !covered.is_scim(), test).await;
}

async fn for_each(is_meant: impl Fn(&Covered) -> bool, test: impl AsyncFn(Call<'_>)) {
    let service = Service::start().await;
    let fixtures = Arc::new(Fixtures::create(&service).await);
    for covered in routed().filter(|covered| is_meant(covered)) {
        test(Call { covered, service: &service, fixtures: fixtures.clone() }).await;
    }
}

/// Asserts a 400 that does not echo the secret.
#[track_caller]
fn assert_400_without_secret(answer: &Answer) {
    answer.assert_error(400, "BAD_REQUEST");
    assert!(!answer.text.contains(SECRET), "{}", answer.text);
}

#[tokio::test]
async fn bodies_over_their_limit_are_413() {
    for_each_operation_with_body(async |call| {
        let good = call.good().to_string();
        // Reports of leaked tokens are longer, and profiles that identity providers send.
        let limit = match call.covered.operation {
            Operation::TokensLeaked => 1_048_576,
            _ if call.covered.is_scim() => 262_144,
            _ => 16_384,
        };
        for size in [limit, limit + 1, limit + 100_000] {
            let padded = format!("{good}{}", " ".repeat(size - good.len()));
            let answer = call.send(padded.clone()).await;
            if size == limit {
                call.assert_success(&answer);
                let call = call.with_fresh_fixtures().await;
                let good = call.good().to_string();
                let answer = call.send_chunked(&format!("{good}{}", " ".repeat(size - good.len()))).await;
                assert!(answer.starts_with(&format!("HTTP/1.1 {} ", call.covered.success)), "{answer}");
            } else {
                answer.assert_error(413, "PAYLOAD_TOO_LARGE");
                // Also for chunked bodies without a `Content-Length`.
                let answer = call.send_chunked(&padded).await;
                assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
                let said = match call.covered.is_scim() {
                    true => r#""status":"413","#,
                    false => r#""error":{"code":"PAYLOAD_TOO_LARGE","#,
                };
                assert!(answer.contains(said), "{answer}");
                // Regardless of the content.
                call.send("x".repeat(size)).await.assert_error(413, "PAYLOAD_TOO_LARGE");
            }
        }
    })
    .await;
}

#[tokio::test]
async fn other_content_types_are_415() {
    for_each_operation_with_body(async |call| {
        let good = call.good().to_string();
        for wrong in [
            None,
            Some(""),
            Some("text/plain"),
            Some("application/x-www-form-urlencoded"),
            Some("application/jsonp"),
            Some("application/problem+json"),
            Some("json"),
            Some("text/json"),
        ] {
            // RFC 7662 requires forms.
            let takes_forms = call.covered.operation == Operation::TokensIntrospect;
            if takes_forms && wrong == Some("application/x-www-form-urlencoded") {
                continue;
            }
            call.send_as(wrong, good.clone()).await.assert_error(415, "UNSUPPORTED_MEDIA_TYPE");
        }
        call.assert_success(&call.send_as(Some("application/json; charset=utf-8"), good).await);
        let call = call.with_fresh_fixtures().await;
        let good = call.good().to_string();
        call.assert_success(&call.send_as(Some("Application/JSON ;charset=UTF-8"), good).await);
    })
    .await;
}

#[tokio::test]
async fn bodies_other_than_json_objects_are_400() {
    for_each_operation_with_body(async |call| {
        let good = call.good().to_string();
        let field = call.fields().keys().next().unwrap().clone();
        let mut bodies: Vec<Vec<u8>> = [
            "",
            " ",
            "null",
            "true",
            "1",
            "[]",
            "{",
            "{}}",
            "{\"",
            "{'a': 1}",
            "{,}",
            &format!("\"{SECRET}\""),
            &format!("[\"{SECRET}\"]"),
            &format!("[{good}]"),
            &format!("{good}{good}"),
            &format!("{good},"),
            &format!("{good}\u{0}"),
            &format!("\u{feff}{good}"),
            &format!("// {SECRET}\n{good}"),
            &format!("{{\"{field}\": \"{SECRET}"),
            &format!("{{\"{field}\": {SECRET}}}"),
            &format!("{{\"{field}\": \"{SECRET}\u{0}\"}}"),
            &format!("{{\"{field}\": \"{SECRET}\n\"}}"),
            &format!("{{\"{field}\": \"\\ud800\"}}"),
            &format!("{{\"{field}\": NaN}}"),
            &"[".repeat(16_000),
            &"{\"a\":".repeat(3_000),
        ]
        .map(|body| body.as_bytes().to_vec())
        .to_vec();
        bodies.push(format!("{{\"{field}\": \"").bytes().chain([0xff, 0xfe]).chain(*b"\"}").collect());
        bodies.push(good.encode_utf16().flat_map(u16::to_le_bytes).collect());
        for body in bodies {
            let answer = call.send(body.clone()).await;
            assert_eq!(answer.status, 400, "{:?}: {}", String::from_utf8_lossy(&body), answer.text);
            assert_400_without_secret(&answer);
        }
    })
    .await;
}

#[tokio::test]
async fn mistyped_field_is_named_and_its_value_not_echoed() {
    for_each_strict_operation(async |call| {
        for (field, value) in call.fields() {
            let deep = format!("{}{}", "[".repeat(100), "]".repeat(100));
            let too_deep = format!("{}{}", "[".repeat(5_000), "]".repeat(5_000));
            let number = "1".repeat(5_000);
            for other in [
                "null",
                "true",
                "-0.0",
                "1e400",
                "[]",
                "{}",
                &format!("[\"{SECRET}\"]"),
                &format!("{{\"{SECRET}\": \"{SECRET}\"}}"),
                &format!("{{\"a\": {{\"b\": \"{SECRET}\"}}}}"),
                &deep,
                &too_deep,
                &number,
            ] {
                // For optional fields null means absent, and every field of an object is optional.
                if other == "null" && matches!(field.as_str(), "expires_at" | "language" | "overlap")
                    || other == "{}" && value.is_object()
                    || other == "true" && value.is_boolean()
                {
                    continue;
                }
                let rest: Vec<String> = call
                    .fields()
                    .iter()
                    .filter(|(name, _)| **name != field)
                    .map(|(n, v)| format!(",\"{n}\":{v}"))
                    .collect();
                let body = format!("{{\"{field}\": {other}{}}}", rest.join(""));
                let answer = call.send(body).await;
                assert_400_without_secret(&answer);
                // Input beyond the nesting limit or the number range is invalid JSON, so no field
                // is named.
                if let Some(named) = answer.json()["error"]["details"][0]["field"].as_str() {
                    // The name may include the position in a list or object.
                    let inside = named.strip_prefix(field.as_str());
                    assert!(
                        inside.is_some_and(|inside| inside.is_empty() || inside.starts_with(['[', '.'])),
                        "{named}"
                    );
                } else {
                    assert!(other.len() > 1_000 || other == "1e400", "{field}: {other}: {}", answer.text);
                }
            }
            let mut missing = call.fields();
            missing.remove(&field);
            let answer = call.send(Value::from(missing).to_string()).await;
            if answer.status.as_u16() != call.covered.success {
                answer.assert_invalid(&field);
                assert_eq!(answer.json()["error"]["details"][0]["message"], "is required");
            }
            let twice = format!("{{\"{field}\": {value}, {}", &call.good().to_string()[1..]);
            let answer = call.send(twice).await;
            answer.assert_invalid(&field);
            assert_eq!(answer.json()["error"]["details"][0]["message"], "must be given only once");
        }
    })
    .await;
}

#[tokio::test]
async fn unknown_field_is_named_unless_it_may_be_a_secret() {
    for_each_strict_operation(async |call| {
        let with = |name: &str| {
            let mut fields = call.fields();
            fields.insert(name.to_owned(), json!(SECRET));
            Value::from(fields).to_string()
        };
        for name in ["role", "is_admin", "createdBy"] {
            let answer = call.send(with(name)).await;
            assert_400_without_secret(&answer);
            answer.assert_invalid(name);
        }
        let mut secrets: Vec<String> = TokenKind::ALL.into_iter().map(unknown_token).collect();
        secrets.push(SECRET.to_owned());
        secrets.push(call.fixtures.owner.credential.clone());
        secrets.extend(["", " ", "a.b", "a`b", "`", "a\nb", "a\u{0}b", "é", "constructor-1"].map(str::to_owned));
        for name in secrets {
            let answer = call.send(with(&name)).await;
            assert_400_without_secret(&answer);
            answer.assert_invalid("(unknown)");
            assert!(name.len() < 4 || !answer.text.contains(&name), "{}", answer.text);
        }
    })
    .await;
}

#[tokio::test]
async fn secrets_in_field_values_are_not_echoed() {
    for_each_strict_operation(async |call| {
        for (field, _) in call.fields() {
            for secret in [unknown_token(TokenKind::OrgUser), unknown_token(TokenKind::BotApiKey), format!("{SECRET} ")]
            {
                let mut fields = call.fields();
                fields.insert(field.clone(), json!(secret));
                let answer = call.send(Value::from(fields).to_string()).await;
                // A token is a valid probe input and even a valid identifier, which the response
                // repeats.
                if answer.status.is_client_error() {
                    assert!(!answer.text.contains(&secret), "{}", answer.text);
                }
            }
        }
    })
    .await;
}

#[tokio::test]
async fn unknown_query_parameters_are_refused_and_not_echoed() {
    let service = Service::start().await;
    let fixtures = Fixtures::create(&service).await;
    let token = unknown_token(TokenKind::OrgUser);
    // GitHub may add some, and SCIM ignores them.
    for covered in answered().filter(|covered| covered.guard != Guard::Signed && !covered.is_scim()) {
        for (query, field) in [
            ("debug=1".to_owned(), "debug"),
            ("token=".to_owned(), "token"),
            (format!("access_token={token}"), "access_token"),
            (format!("{token}=1"), "(unknown)"),
            (token.clone(), "(unknown)"),
            (format!("{SECRET}={SECRET}"), "(unknown)"),
            ("%FF=1".to_owned(), "(unknown)"),
        ] {
            let request = covered.request(&service, &fixtures);
            let (client, request) = request.build_split();
            let mut request = request.unwrap();
            request.url_mut().set_query(Some(&query));
            let request = reqwest::RequestBuilder::from_parts(client, request);
            let answer = service.send(covered.authorized(request, &fixtures)).await;
            assert_400_without_secret(&answer);
            answer.assert_invalid(field);
            assert!(!answer.text.contains(&token), "{}", answer.text);
        }
    }
}

#[tokio::test]
async fn call_that_takes_no_field_accepts_an_empty_body_alone() {
    let service = Service::start().await;
    for (method, path, success) in
        [(Method::POST, "/api/v1/tokens/regenerate", 200), (Method::DELETE, "/api/v1/tokens", 204)]
    {
        let mut token = Fixtures::create(&service).await.email_token;
        let json = "application/json";
        let call = |token: &str, content_type: &str, body: String| {
            let request = service.request(method.clone(), path).bearer_auth(token);
            service.send(request.header(header::CONTENT_TYPE, content_type).body(body))
        };
        call(&token, json, json!({"confirm": true}).to_string()).await.assert_invalid("confirm");
        for body in ["[]", "{", "null", "x"] {
            call(&token, json, body.to_owned()).await.assert_error(400, "BAD_REQUEST");
        }
        call(&token, "text/plain", "{}".to_owned()).await.assert_error(415, "UNSUPPORTED_MEDIA_TYPE");
        call(&token, json, " ".repeat(16_385)).await.assert_error(413, "PAYLOAD_TOO_LARGE");
        assert!(service.is_active(&token).await, "{path}");
        // Whatever the type, nothing is nothing.
        for (content_type, body) in [(json, "{}"), (json, ""), ("text/plain", "")] {
            let answer = call(&token, content_type, body.to_owned()).await;
            assert_eq!(answer.status, success, "{path}: {}", answer.text);
            token = Fixtures::create(&service).await.email_token;
        }
        call("tg_anon_x", json, json!({"confirm": true}).to_string()).await.assert_error(401, "UNAUTHORIZED");
    }
}
