//! The example with a real service behind the authorizer; only API Gateway's part is played here.

#![allow(clippy::unwrap_used)] // An example that cannot be run has failed.

use lambda_http::Body;
use serde_json::{Value, json};
use shared::App;
use tests::{Bot, Service};

/// Creates a credential through the service.
async fn create(service: &Service, path: &str, owner: &Bot, body: &Value) -> Value {
    let answer = service.post(path, &owner.credential, body).await;
    assert_eq!(answer.status, 201, "{}", answer.text);
    answer.json()
}

/// An API key with one scope.
async fn api_key(service: &Service, owner: &Bot, scope: &str) -> Value {
    let body = json!({"name": "reporter", "environment": "live", "scopes": [scope]});
    create(service, "/v1/api-keys", owner, &body).await
}

/// Calls `GET /reports` as API Gateway does: asks the authorizer first, and hands on what that says. The answer is the
/// status, and the body where the handler was reached.
async fn get_reports(service: &Service, credential: &str) -> (u16, Value) {
    let mut event = json!({
        "version": "2.0",
        "routeKey": "GET /reports",
        "rawPath": "/reports",
        "rawQueryString": "",
        "headers": {"authorization": format!("Bearer {credential}")},
        "requestContext": {
            "http": {"method": "GET", "path": "/reports", "protocol": "HTTP/1.1", "sourceIp": "203.0.113.7"},
        },
        "isBase64Encoded": false,
    });
    let app = App::new(service.store.clone(), service.clock.clone());
    let decision = tokens_authorize::handle(app, serde_json::from_value(event.clone()).unwrap()).await.unwrap();
    let decision = serde_json::to_value(decision).unwrap();
    if decision["isAuthorized"] != true {
        return (403, Value::Null);
    }
    event["requestContext"]["authorizer"] = json!({"lambda": decision["context"]});
    call_handler(&event).await
}

async fn call_handler(event: &Value) -> (u16, Value) {
    let request = lambda_http::request::from_str(&event.to_string()).unwrap();
    let response = protected_api::handle(request).await.unwrap();
    let status = response.status().as_u16();
    let Body::Text(text) = response.into_body() else { return (status, Value::Null) };
    (status, serde_json::from_str(&text).unwrap())
}

#[tokio::test]
async fn a_key_with_the_scope_reads_until_it_is_revoked_and_not_once_more() {
    let service = Service::start().await;
    let (org, owner) = service.org_with_owner().await;
    let key = api_key(&service, &owner, "shield:read").await;
    let credential = key["key"].as_str().unwrap();
    let expected = json!({"org_id": org.id.as_str(), "reports": []});
    assert_eq!(get_reports(&service, credential).await, (200, expected));

    let path = format!("/v1/api-keys/{}", key["id"].as_str().unwrap());
    let request = service.request("DELETE".parse().unwrap(), &path).bearer_auth(&owner.credential);
    assert_eq!(service.send(request).await.status, 204);
    assert_eq!(get_reports(&service, credential).await, (403, Value::Null));
}

#[tokio::test]
async fn a_key_without_the_scope_is_let_in_and_refused() {
    let service = Service::start().await;
    let (_, owner) = service.org_with_owner().await;
    let key = api_key(&service, &owner, "shield:write").await;
    let (status, body) = get_reports(&service, key["key"].as_str().unwrap()).await;
    assert_eq!((status, &body["error"]), (403, &json!("The credential may not read reports.")));
}

#[tokio::test]
async fn an_access_token_needs_the_role() {
    let service = Service::start().await;
    let (_, owner) = service.org_with_owner().await;
    for (role, expected) in [("readonly", 403), ("operator", 200), ("manager", 200)] {
        let body = json!({"name": role, "access_config": {"role": role}});
        let token = create(&service, "/api/v2/organization/tokens/", &owner, &body).await;
        assert_eq!(get_reports(&service, token["token"].as_str().unwrap()).await.0, expected, "{role}");
    }
}

#[tokio::test]
async fn whom_the_handler_does_not_know_it_refuses() {
    let service = Service::start().await;
    let (org, owner) = service.org_with_owner().await;
    let user = service.issue(&org, &owner, "alice").await;
    for credential in [owner.credential.as_str(), user.token.as_str()] {
        let (status, body) = get_reports(&service, credential).await;
        assert_eq!((status, &body["error"]), (403, &json!("The credential may not read reports.")));
    }
    // Past the authorizer, with what it would have said in a header: the caller's to write, so not looked at.
    let event = json!({
        "version": "2.0",
        "rawPath": "/reports",
        "headers": {"x-authorizer": "{\"kind\":\"api_key\",\"scopes\":[\"shield:read\"]}"},
        "requestContext": {"http": {"method": "GET", "path": "/reports"}},
        "isBase64Encoded": false,
    });
    assert_eq!(call_handler(&event).await.0, 403);
}
