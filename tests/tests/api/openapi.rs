//! Responses match `openapi.json`: every response of calls to all operations must match its
//! documented schema.

use std::collections::BTreeSet;
use std::io::Read;

use jsonschema::Validator;
use reqwest::{Method, header};
use serde_json::{Value, json};
use shared::permissions::Operation;
use tests::coverage::{Covered, Fixtures, Guard, Refusal, answered, documented, routed};
use tests::faults::Fault;
use tests::table::text;
use tests::{Answer, Service};

/// The document as served.
struct Document(Value);

impl Document {
    async fn fetch(service: &Service) -> Self {
        let answer = service.send(service.request(Method::GET, "/v1/docs/openapi.json")).await;
        assert_eq!((answer.status.as_u16(), answer.header("content-type")), (200, "application/json"));
        Self(answer.json())
    }

    fn operation(&self, covered: &Covered) -> &Value {
        &self.0["paths"][covered.path][covered.method.as_str().to_lowercase()]
    }

    /// Builds a validator for a schema of the document that also refuses undocumented keys.
    fn validator(&self, schema: &Value) -> Validator {
        let mut schema = schema.clone();
        if self.is_object(&schema) {
            schema["unevaluatedProperties"] = json!(false);
        }
        schema["components"] = self.0["components"].clone();
        schema["$schema"] = json!("https://json-schema.org/draft/2020-12/schema");
        jsonschema::options().should_validate_formats(true).build(&schema).unwrap()
    }

    fn is_object(&self, schema: &Value) -> bool {
        let schema = match schema["$ref"].as_str() {
            Some(reference) => self.0.pointer(reference.trim_start_matches('#')).unwrap(),
            None => schema,
        };
        schema["type"] == "object" || schema.get("allOf").is_some()
    }

    #[track_caller]
    fn assert_fits(&self, covered: &Covered, answer: &Answer) {
        let (name, status) = (covered.operation.name(), answer.status.as_u16());
        let documented = &self.operation(covered)["responses"][status.to_string()];
        assert!(documented.is_object(), "{name}: {status} is not documented: {}", answer.text);
        // Only an issuer that cannot be asked says when it may be asked again; the table does not.
        let is_table = status == 503 && covered.operation == Operation::BotsExchange;
        let headers = documented["headers"].as_object().into_iter().flatten().filter(|_| !is_table);
        for documented in headers.map(|(name, _)| name) {
            assert!(!answer.header(documented).is_empty(), "{name}: {status} has no {documented}");
        }
        let Some(content) = documented.get("content") else {
            return assert_eq!(answer.text, "", "{name}: {status} has an undocumented body");
        };
        let schema = &content[answer.header(header::CONTENT_TYPE.as_str())]["schema"];
        assert!(schema.is_object(), "{name}: {status} has content type {}", answer.header("content-type"));
        self.assert_valid(schema, &answer.json(), &format!("{name}: {status}"));
        // Validates list entries separately, since refusing undocumented keys applies to one level
        // only.
        for (field, entries) in answer.json().as_object().into_iter().flatten() {
            let schema = match schema["$ref"].as_str() {
                Some(reference) => self.0.pointer(reference.trim_start_matches('#')).unwrap(),
                None => schema,
            };
            let items = &schema["properties"][field]["items"];
            for entry in entries.as_array().into_iter().flatten().filter(|_| items.is_object()) {
                self.assert_valid(items, entry, &format!("{name}: {status}: {field}"));
            }
        }
    }

    #[track_caller]
    fn assert_valid(&self, schema: &Value, value: &Value, what: &str) {
        let problems: Vec<String> = self.validator(schema).iter_errors(value).map(|error| error.to_string()).collect();
        assert_eq!(problems, Vec::<String>::new(), "{what}: {value}");
    }
}

#[tokio::test]
async fn document_is_sent_compressed_and_only_if_it_changed() {
    let service = Service::start().await;
    let get = async |headers: &[(&str, &str)]| {
        let request = service.request(Method::GET, "/v1/docs/openapi.json");
        headers.iter().fold(request, |request, (name, value)| request.header(*name, *value)).send().await.unwrap()
    };
    let plain = get(&[]).await;
    let header = |response: &reqwest::Response, name: &str| response.headers()[name].to_str().unwrap().to_owned();
    let tag = header(&plain, "etag");
    assert!(!plain.headers().contains_key("content-encoding") && header(&plain, "vary") == "Accept-Encoding");
    let plain = plain.text().await.unwrap();
    let head = service.request(Method::HEAD, "/v1/docs/openapi.json").send().await.unwrap();
    assert_eq!((head.status().as_u16(), header(&head, "etag")), (200, tag.clone()));
    assert_eq!(header(&head, "content-length"), plain.len().to_string());
    assert!(head.bytes().await.unwrap().is_empty());
    for accepted in ["gzip", "br, gzip;q=0.5", "*"] {
        let compressed = get(&[("accept-encoding", accepted)]).await;
        assert_eq!(
            (header(&compressed, "content-encoding").as_str(), header(&compressed, "etag")),
            ("gzip", tag.clone())
        );
        assert_eq!(header(&compressed, "content-type"), "application/json");
        let bytes = compressed.bytes().await.unwrap();
        assert!(bytes.len() < plain.len() / 5, "{} of {} bytes", bytes.len(), plain.len());
        let mut text = String::new();
        flate2::read::GzDecoder::new(&bytes[..]).read_to_string(&mut text).unwrap();
        assert!(text == plain);
    }
    for refused in ["gzip;q=0", "identity", "br"] {
        assert!(!get(&[("accept-encoding", refused)]).await.headers().contains_key("content-encoding"), "{refused}");
    }
    let strong = tag.strip_prefix("W/").unwrap();
    for known in [&tag, strong, "*", &format!("\"a\", {tag}"), &format!("{strong},W/\"b\"")] {
        let known = get(&[("if-none-match", known), ("accept-encoding", "gzip")]).await;
        assert_eq!((known.status().as_u16(), header(&known, "etag")), (304, tag.clone()));
        assert_eq!(header(&known, "cache-control"), "public, max-age=300");
        assert!(known.bytes().await.unwrap().is_empty());
    }
    for other in ["\"a\"", "", "W/", &strong[1..strong.len() - 1]] {
        assert_eq!(get(&[("if-none-match", other)]).await.status(), 200, "{other}");
    }
}

#[tokio::test]
async fn every_response_matches_its_schema() {
    let (service, faults) = Service::start_with_faults().await;
    let document = Document::fetch(&service).await;
    let mut fixtures = Fixtures::create(&service).await;
    for covered in answered().filter(|covered| covered.guard != Guard::Signed) {
        let name = covered.operation.name();
        let expect = |answer: Answer, status: u16| {
            assert_eq!(answer.status, status, "{name}: {}", answer.text);
            document.assert_fits(covered, &answer);
        };
        let request = || covered.request(&service, &fixtures);
        let path = covered.path_with(&fixtures);
        if covered.guard != Guard::None {
            expect(service.send(request()).await, 401);
            expect(service.send(request().bearer_auth("x")).await, 401);
        }
        if !matches!(covered.guard, Guard::None | Guard::Authorizer | Guard::Holder) {
            expect(service.send(request().bearer_auth(&fixtures.access_token.token)).await, 403);
        }
        let send = async |request| service.send(covered.authorized(request, &fixtures)).await;
        let mistyped = service.request(covered.method.clone(), &format!("{path}?no_such_parameter=1"));
        if !covered.is_scim() {
            expect(send(mistyped.header("content-type", "application/json")).await, 400);
        }
        if covered.body.is_some() {
            let request = |kind: &str, body: String| {
                let request = service.request(covered.method.clone(), &path);
                send(request.header("content-type", kind).body(body))
            };
            expect(request("application/json", "{".to_owned()).await, 400);
            let wrong = if covered.is_scim() { "{\"active\": 1, \"Operations\": 1}" } else { "{\"no_such_field\": 1}" };
            expect(request("application/json", wrong.to_owned()).await, 400);
            expect(request("application/json", " ".repeat(covered.max_body() + 1)).await, 413);
            expect(request("text/plain", "{}".to_owned()).await, 415);
        }
        if let Some(beginning) = covered.path.split_once("_id}").or(covered.path.split_once("{id}")).map(|_| &path)
            && ["token_id}", "{id}", "{user_id}"].iter().any(|name| covered.path.contains(name))
        {
            let unknown = beginning.replace(&fixtures.token.id, "x").replace(&fixtures.api_key.id, "x");
            let unknown = unknown.replace(&fixtures.employee.id, "x");
            let unknown = unknown.replace(&format!("tokens/{}/", fixtures.access_token.id), "tokens/999/");
            let request = service.request(covered.method.clone(), &unknown);
            expect(
                send(match covered.body {
                    Some(body) => request.json(&body(&fixtures)),
                    None => request,
                })
                .await,
                404,
            );
        }
        if covered.operation.name() != "docs-openapi" {
            faults.arm(0, &[], Some(Fault::ServerError));
            expect(covered.call(&service, &fixtures).await, 503);
            faults.disarm();
        }
        expect(covered.call(&service, &fixtures).await, covered.success);
        if covered.consumes_fixtures() {
            fixtures = Fixtures::create(&service).await;
        }
    }
}

#[tokio::test]
async fn alternative_responses_match_their_schemas() {
    let service = Service::start_with_manual_clock().await;
    let document = Document::fetch(&service).await;
    let fixtures = Fixtures::create(&service).await;
    let of = |operation: Operation| routed().find(|covered| covered.operation == operation).unwrap();
    let post = async |operation: Operation, body: Value, status: u16| {
        let covered = of(operation);
        let answer = service.post(&covered.path_with(&fixtures), &fixtures.owner.credential, &body).await;
        assert_eq!(answer.status, status, "{}", answer.text);
        document.assert_fits(covered, &answer);
    };
    // Operations with two response forms.
    post(Operation::OrgUserTokensProbe, json!({"token": "x"}), 200).await;
    post(Operation::TokensIntrospect, json!({"token": "x"}), 200).await;
    post(Operation::TokensIntrospect, json!({"token": fixtures.api_key.key, "scope": "org:read"}), 200).await;
    let access_token = json!({"token": fixtures.access_token.token, "role": "manager", "project": "x"});
    post(Operation::TokensIntrospect, access_token, 200).await;
    let identifier = &fixtures.token.user_identifier;
    post(Operation::OrgUserTokensRevokeByUser, json!({"user_identifier": identifier, "dry_run": true}), 200).await;
    post(Operation::OrgUserTokensRevokeByUser, json!({"user_identifier": identifier, "expected_count": 7}), 409).await;

    // Entries in each state.
    service.issue_until(&fixtures.org, &fixtures.owner, "alice", "2026-11-21T10:00:01Z").await;
    service.clock.advance(std::time::Duration::from_secs(1));
    service.revoke(&fixtures.org, &fixtures.owner, &fixtures.token).await;
    service.issue(&fixtures.org, &fixtures.owner, "alice").await;
    for query in ["?status=all", "?status=all&limit=1"] {
        let answer = service.call(Method::GET, &fixtures.org.org_user_tokens(query), &fixtures.owner.credential).await;
        document.assert_fits(of(Operation::OrgUserTokensList), &answer);
        assert!(answer.text.contains("next_cursor"));
    }

    // Whoami for other kinds of credentials.
    for credential in [&fixtures.api_key.key, &fixtures.access_token.token, &fixtures.email_token] {
        let answer = service.whoami(credential).await;
        assert_eq!(answer.status, 200);
        document.assert_fits(of(Operation::TokensWhoami), &answer);
    }

    service.set_guard(&fixtures.org.id, false).await;
    for covered in routed().filter(|covered| covered.operation.rule().needs_subscription) {
        let answer = covered.call(&service, &fixtures).await;
        Refusal::NoSubscription.assert(&answer, covered.operation.name());
        document.assert_fits(covered, &answer);
    }
}

#[tokio::test]
async fn documented_security_matches_the_permission_table() {
    let document = Document::fetch(&Service::start().await).await;
    let schemes = document.0["components"]["securitySchemes"].as_object().unwrap();
    for covered in documented().filter(|covered| covered.success != 404) {
        let (rule, name) = (covered.operation.rule(), covered.operation.name());
        let mut expected: BTreeSet<(String, Vec<&str>)> = BTreeSet::new();
        if !rule.roles.is_empty() {
            expected.insert(("bot".to_owned(), rule.roles.iter().map(|role| role.as_str()).collect()));
        }
        if let Some(scope) = rule.scope {
            expected.insert(("api_key".to_owned(), vec![scope.as_str()]));
        }
        if rule.email_tokens {
            expected.insert(("email_token".to_owned(), Vec::new()));
        }
        if rule.authorizer || rule.own_token {
            // All bearer schemes; only the registries take a token as password.
            let bearers = schemes.keys().filter(|scheme| *scheme != "registry_password");
            expected.extend(bearers.map(|scheme| (scheme.clone(), Vec::new())));
        }
        if rule.registry_tokens {
            let schemes = ["registry_password", "email_token", "org_token"];
            expected.extend(schemes.map(|scheme| (scheme.to_owned(), Vec::new())));
        }
        let operation = document.operation(covered);
        let mut found = BTreeSet::new();
        for requirement in operation["security"].as_array().unwrap() {
            for (scheme, roles) in requirement.as_object().unwrap() {
                assert!(schemes.contains_key(scheme), "{name}: {scheme}");
                found.insert((scheme.clone(), roles.as_array().unwrap().iter().map(|r| r.as_str().unwrap()).collect()));
            }
        }
        assert_eq!(found, expected, "{name}");
        assert!(!text(operation, "summary").is_empty() && !text(operation, "description").is_empty(), "{name}");
    }
}

#[tokio::test]
async fn every_example_matches_its_schema() {
    let document = Document::fetch(&Service::start().await).await;
    let mut count = 0;
    for (path, operations) in document.0["paths"].as_object().unwrap() {
        for operation in operations.as_object().unwrap().values() {
            for (status, response) in operation["responses"].as_object().unwrap() {
                for content in response["content"].as_object().into_iter().flatten().map(|(_, content)| content) {
                    for (name, example) in content["examples"].as_object().into_iter().flatten() {
                        document.assert_valid(
                            &content["schema"],
                            &example["value"],
                            &format!("{path} {status} {name}"),
                        );
                        count += 1;
                    }
                }
            }
        }
    }
    for (name, schema) in document.0["components"]["schemas"].as_object().unwrap() {
        for (field, property) in schema["properties"].as_object().into_iter().flatten() {
            if let Some(example) = property.get("example").or(property.get("examples").and_then(|list| list.get(0))) {
                document.assert_valid(property, example, &format!("{name}.{field}"));
                count += 1;
            }
        }
    }
    assert!(count > 50, "{count} examples");
}

#[tokio::test]
async fn invalid_bodies_do_not_match_the_request_schema() {
    let service = Service::start().await;
    let document = Document::fetch(&service).await;
    let fixtures = Fixtures::create(&service).await;
    for covered in routed() {
        let Some(body) = covered.body else { continue };
        let schema = &document.operation(covered)["requestBody"]["content"]["application/json"]["schema"];
        let validator = document.validator(schema);
        let (good, name) = (body(&fixtures), covered.operation.name());
        assert!(validator.is_valid(&good), "{name}: {good}");
        if covered.is_scim() {
            continue;
        }
        let mut unknown = good.clone();
        unknown["no_such_field"] = json!(1);
        assert!(!validator.is_valid(&unknown), "{name}: the schema allows unknown fields");
        let is_optional = covered.method == Method::PATCH || covered.operation.name().contains("-rotate");
        assert!(!validator.is_valid(&json!({})) || is_optional, "{name}: the schema requires nothing");
        for field in good.as_object().unwrap().keys() {
            let mut wrong = good.clone();
            wrong[field] = json!(1);
            assert!(!validator.is_valid(&wrong), "{name}: the schema allows a number for {field}");
        }
    }
}
