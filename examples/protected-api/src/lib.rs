//! An API of another team: one handler, behind the authorizer of guard-tokens. `docs/PROTECT_YOUR_API.md` tells the rest.

use lambda_http::request::RequestContext;
use lambda_http::{Body, Error, Request, RequestExt, Response};
use serde_json::{Value, json};

/// Answers `GET /reports` with the reports of the caller's organization: to API keys with the scope `shield:read`, and to
/// organization access tokens that are operators at least. Whoever else the authorizer let in is answered 403.
pub async fn handle(request: Request) -> Result<Response<Body>, Error> {
    let caller = caller(&request);
    let may = match caller["kind"].as_str() {
        Some("api_key") => caller["scopes"].as_array().is_some_and(|held| held.contains(&json!("shield:read"))),
        Some("org_access_token") => matches!(caller["role"].as_str(), Some("operator" | "manager")),
        _ => false,
    };
    let (status, body) = match may {
        true => (200, json!({ "org_id": caller["org_id"], "reports": [] })),
        false => (403, json!({ "error": "The credential may not read reports." })),
    };
    Ok(Response::builder().status(status).header("content-type", "application/json").body(body.to_string().into())?)
}

/// Who calls, as the authorizer found out. Null for a request that came another way: it may do nothing.
fn caller(request: &Request) -> Value {
    match request.request_context_ref() {
        Some(RequestContext::ApiGatewayV2(context)) => {
            context.authorizer.as_ref().map(|authorizer| authorizer.fields.clone().into_iter().collect())
        }
        _ => None,
    }
    .unwrap_or_default()
}
