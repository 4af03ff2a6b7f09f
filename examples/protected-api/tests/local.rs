//! Runs the example with a real service behind the authorizer. Only API Gateway is simulated.

#![allow(clippy::unwrap_used)] // A test may panic.

use lambda_http::Body;
use serde_json::{Value, json};
use shared::App;
use tests::{Bot, Service};

const REFUSED: &str = "The credential lacks permission to read these reports. Use a live API key with the scope shield:read, or an access token for this project with the role operator or manager.";

/// Creates a credential through the service.
async fn create(service: &Service, path: &str, owner: &Bot, body: &Value) -> Value {
    let answer = service.post(path, &owner.credential, body).await;
    assert_eq!(answer.status, 201, "{}", answer.text);
    answer.json()
}

/// An API key with one scope.
async fn api_key(service: &Service, owner: &Bot, environment: &str, scope: &str) -> Value {
    let body = json!({"name": "reporter", "environment": environment, "scopes": [scope]});
    create(service, "/v1/api-keys", owner, &body).await
}

/// Calls `GET /projects/greenhouse/reports` as API Gateway does: invokes the authorizer, then the handler with its
/// context. Returns the status, and the body if the handler was reached.
async fn get_reports(service: &Service, credential: &str) -> (u16, Value) {
    let mut event = json!({
        "version": "2.0",
        "routeKey": "GET /projects/{project}/reports",
        "rawPath": "/projects/greenhouse/reports",
        "rawQueryString": "",
        "pathParameters": {"project": "greenhouse"},
        "headers": {"authorization": format!("Bearer {credential}")},
        "requestContext": {
            "http": {"method": "GET", "path": "/projects/greenhouse/reports", "protocol": "HTTP/1.1", "sourceIp": "203.0.113.7"},
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
async fn api_key_with_the_scope_reads_reports_until_it_is_revoked() {
    let service = Service::start().await;
    let (org, owner) = service.org_with_owner().await;
    let key = api_key(&service, &owner, "live", "shield:read").await;
    let credential = key["key"].as_str().unwrap();
    let expected = json!({"org_id": org.id.as_str(), "project": "greenhouse", "reports": []});
    assert_eq!(get_reports(&service, credential).await, (200, expected));

    let path = format!("/v1/api-keys/{}", key["id"].as_str().unwrap());
    let request = service.request("DELETE".parse().unwrap(), &path).bearer_auth(&owner.credential);
    assert_eq!(service.send(request).await.status, 204);
    assert_eq!(get_reports(&service, credential).await, (403, Value::Null));
}

#[tokio::test]
async fn api_key_without_the_scope_gets_403_from_the_handler() {
    let service = Service::start().await;
    let (_, owner) = service.org_with_owner().await;
    let key = api_key(&service, &owner, "live", "shield:write").await;
    let (status, body) = get_reports(&service, key["key"].as_str().unwrap()).await;
    assert_eq!((status, &body["error"]), (403, &json!(REFUSED)));
}

#[tokio::test]
async fn test_key_gets_403() {
    let service = Service::start().await;
    let (_, owner) = service.org_with_owner().await;
    let key = api_key(&service, &owner, "test", "shield:read").await;
    let (status, body) = get_reports(&service, key["key"].as_str().unwrap()).await;
    assert_eq!((status, &body["error"]), (403, &json!(REFUSED)));
}

#[tokio::test]
async fn access_token_below_operator_or_for_other_projects_gets_403() {
    let service = Service::start().await;
    let (org, owner) = service.org_with_owner().await;
    service.projects(&org, &["greenhouse", "coldroom"]).await;
    let mut number = 0;
    for (role, may) in [("readonly", false), ("operator", true), ("manager", true)] {
        for (projects, all_projects, reaches) in [
            (vec!["greenhouse"], false, true),
            (vec!["coldroom", "greenhouse"], false, true),
            (vec![], true, true),
            (vec!["coldroom"], false, false),
            (vec![], false, false),
        ] {
            number += 1;
            let access = json!({"role": role, "all_projects": all_projects, "projects": projects});
            let body = json!({"name": format!("token {number}"), "access_config": access});
            let token = create(&service, "/api/v2/organization/tokens/", &owner, &body).await;
            let expected = if may && reaches { 200 } else { 403 };
            let status = get_reports(&service, token["token"].as_str().unwrap()).await.0;
            assert_eq!(status, expected, "{role} {all_projects} {projects:?}");
        }
    }
}

#[tokio::test]
async fn other_principals_and_forged_headers_get_403() {
    let service = Service::start().await;
    let (org, owner) = service.org_with_owner().await;
    let user = service.issue(&org, &owner, "alice").await;
    for credential in [owner.credential.as_str(), user.token.as_str()] {
        let (status, body) = get_reports(&service, credential).await;
        assert_eq!((status, &body["error"]), (403, &json!(REFUSED)));
    }
    // Without the authorizer's context, a header with the same content grants nothing.
    let event = json!({
        "version": "2.0",
        "rawPath": "/projects/greenhouse/reports",
        "headers": {"x-authorizer": "{\"kind\":\"api_key\",\"scopes\":[\"shield:read\"]}"},
        "requestContext": {"http": {"method": "GET", "path": "/projects/greenhouse/reports"}},
        "isBase64Encoded": false,
    });
    assert_eq!(call_handler(&event).await.0, 403);
}
