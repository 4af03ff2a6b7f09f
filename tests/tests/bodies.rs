//! What every operation with a body does with bodies that are not as they must be.

use std::io::{Read, Write};
use std::sync::Arc;

use reqwest::header;
use serde_json::{Map, Value, json};
use shared::principal::Operation;
use shared::secret::TokenKind;
use tests::coverage::{Covered, Stage, made_up, routed};
use tests::{Answer, Service};

/// Something that must not come back.
const SECRET: &str = "hunter2-Correct-Horse-9F3A";

#[derive(Clone)]
struct Call<'a> {
    covered: &'a Covered,
    service: &'a Service,
    stage: Arc<Stage>,
}

impl Call<'_> {
    /// A good body.
    fn good(&self) -> Value {
        self.covered.body.unwrap()(&self.stage)
    }

    async fn send_as(&self, content_type: Option<&str>, body: impl Into<reqwest::Body>) -> Answer {
        let request = self.service.request(self.covered.method.clone(), &self.covered.path_on(&self.stage));
        let request = self.covered.authorized(request, &self.stage);
        let request =
            content_type.into_iter().fold(request, |request, value| request.header(header::CONTENT_TYPE, value));
        self.service.send(request.body(body)).await
    }

    async fn send(&self, body: impl Into<reqwest::Body>) -> Answer {
        self.send_as(Some("application/json"), body).await
    }

    /// The same call, good once more where a success uses something up.
    async fn once_more(&self) -> Self {
        if !self.covered.uses_up_its_stage() {
            return self.clone();
        }
        Self { stage: Arc::new(Stage::set(self.service).await), ..self.clone() }
    }

    /// Sends a body as HTTP's chunks. The answer is what came over the wire: no HTTP client here can do this.
    async fn send_in_pieces(&self, body: &str) -> String {
        let credential = self.covered.credential(&self.stage);
        let mut request = format!(
            "{} {} HTTP/1.1\r\nhost: test\r\nconnection: close\r\nauthorization: Bearer {credential}\r\n\
             content-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n",
            self.covered.method,
            self.covered.path_on(&self.stage),
        );
        for piece in body.as_bytes().chunks(1_000) {
            request.push_str(&format!("{:x}\r\n{}\r\n", piece.len(), std::str::from_utf8(piece).unwrap()));
        }
        request.push_str("0\r\n\r\n");
        let address = self.service.base_url.trim_start_matches("http://").to_owned();
        let exchange = move || {
            let mut connection = std::net::TcpStream::connect(address).unwrap();
            // The service may stop reading before all is sent.
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

    /// The good body's fields, each with its value.
    fn fields(&self) -> Map<String, Value> {
        self.good().as_object().unwrap().clone()
    }
}

/// Does something with a call of each operation that takes a body.
async fn each(test: impl AsyncFn(Call<'_>)) {
    let service = Service::start().await;
    let stage = Arc::new(Stage::set(&service).await);
    for covered in routed().filter(|covered| covered.body.is_some()) {
        test(Call { covered, service: &service, stage: stage.clone() }).await;
    }
}

/// Checks that this is a 400 that does not say what was sent.
#[track_caller]
fn assert_silent_400(answer: &Answer) {
    answer.assert_error(400, "BAD_REQUEST");
    assert!(!answer.text.contains(SECRET), "{}", answer.text);
}

#[tokio::test]
async fn a_body_may_have_16_384_bytes_and_no_more() {
    each(async |call| {
        let good = call.good().to_string();
        for size in [16_384, 16_385, 100_000] {
            let padded = format!("{good}{}", " ".repeat(size - good.len()));
            let answer = call.send(padded.clone()).await;
            if size == 16_384 {
                call.assert_success(&answer);
                let call = call.once_more().await;
                let good = call.good().to_string();
                let answer = call.send_in_pieces(&format!("{good}{}", " ".repeat(size - good.len()))).await;
                assert!(answer.starts_with(&format!("HTTP/1.1 {} ", call.covered.success)), "{answer}");
            } else {
                answer.assert_error(413, "PAYLOAD_TOO_LARGE");
                // However it is sent: in pieces, without saying how much there is to come.
                let answer = call.send_in_pieces(&padded).await;
                assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
                assert!(answer.contains(r#"{"error":{"code":"PAYLOAD_TOO_LARGE","#), "{answer}");
                // And whatever is in it.
                call.send("x".repeat(size)).await.assert_error(413, "PAYLOAD_TOO_LARGE");
            }
        }
    })
    .await;
}

#[tokio::test]
async fn a_body_is_json_and_says_so() {
    each(async |call| {
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
            // RFC 7662 asks for forms.
            let takes_forms = call.covered.operation == Operation::TokensIntrospect;
            if takes_forms && wrong == Some("application/x-www-form-urlencoded") {
                continue;
            }
            call.send_as(wrong, good.clone()).await.assert_error(415, "UNSUPPORTED_MEDIA_TYPE");
        }
        call.assert_success(&call.send_as(Some("application/json; charset=utf-8"), good).await);
        let call = call.once_more().await;
        let good = call.good().to_string();
        call.assert_success(&call.send_as(Some("Application/JSON ;charset=UTF-8"), good).await);
    })
    .await;
}

#[tokio::test]
async fn what_is_no_json_object_is_refused() {
    each(async |call| {
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
            assert_silent_400(&answer);
        }
    })
    .await;
}

#[tokio::test]
async fn a_field_of_the_wrong_type_is_named_and_not_repeated() {
    each(async |call| {
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
                // Null is the same as left out for what may be left out; so is every field of an object.
                if other == "null" && (field == "expires_at" || field == "language")
                    || other == "{}" && value.is_object()
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
                assert_silent_400(&answer);
                // What nests deeper than is read, or is no number that can be, is no JSON at all.
                if let Some(named) = answer.json()["error"]["details"][0]["field"].as_str() {
                    // Down to the place in a list or in an object.
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
            assert_eq!(answer.json()["error"]["details"][0]["message"], "is given more than once");
        }
    })
    .await;
}

#[tokio::test]
async fn an_unknown_field_is_named_unless_its_name_may_be_a_secret() {
    each(async |call| {
        let with = |name: &str| {
            let mut fields = call.fields();
            fields.insert(name.to_owned(), json!(SECRET));
            Value::from(fields).to_string()
        };
        for name in ["role", "is_admin", "createdBy"] {
            let answer = call.send(with(name)).await;
            assert_silent_400(&answer);
            answer.assert_invalid(name);
        }
        let mut secrets: Vec<String> = TokenKind::ALL.into_iter().map(made_up).collect();
        secrets.push(SECRET.to_owned());
        secrets.push(call.stage.owner.credential.clone());
        secrets.extend(["", " ", "a.b", "a`b", "`", "a\nb", "a\u{0}b", "é", "constructor-1"].map(str::to_owned));
        for name in secrets {
            let answer = call.send(with(&name)).await;
            assert_silent_400(&answer);
            answer.assert_invalid("(unknown)");
            assert!(name.len() < 4 || !answer.text.contains(&name), "{}", answer.text);
        }
    })
    .await;
}

#[tokio::test]
async fn a_secret_in_the_place_of_a_value_is_not_repeated() {
    each(async |call| {
        for (field, _) in call.fields() {
            for secret in [made_up(TokenKind::OrgUser), made_up(TokenKind::BotApiKey), format!("{SECRET} ")] {
                let mut fields = call.fields();
                fields.insert(field.clone(), json!(secret));
                let answer = call.send(Value::from(fields).to_string()).await;
                // A token may be probed, and may even be an identifier, which is answered.
                if answer.status.is_client_error() {
                    assert!(!answer.text.contains(&secret), "{}", answer.text);
                }
            }
        }
    })
    .await;
}

#[tokio::test]
async fn an_unknown_query_parameter_is_refused_everywhere_and_not_repeated() {
    let service = Service::start().await;
    let stage = Stage::set(&service).await;
    let token = made_up(TokenKind::OrgUser);
    for covered in routed().filter(|covered| covered.success != 404) {
        for (query, field) in [
            ("debug=1".to_owned(), "debug"),
            ("token=".to_owned(), "token"),
            (format!("access_token={token}"), "access_token"),
            (format!("{token}=1"), "(unknown)"),
            (token.clone(), "(unknown)"),
            (format!("{SECRET}={SECRET}"), "(unknown)"),
            ("%FF=1".to_owned(), "(unknown)"),
        ] {
            let request = covered.request(&service, &stage);
            let (client, request) = request.build_split();
            let mut request = request.unwrap();
            request.url_mut().set_query(Some(&query));
            let request = reqwest::RequestBuilder::from_parts(client, request);
            let answer = service.send(covered.authorized(request, &stage)).await;
            assert_silent_400(&answer);
            answer.assert_invalid(field);
            assert!(!answer.text.contains(&token), "{}", answer.text);
        }
    }
}
