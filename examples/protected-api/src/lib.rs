//! An example API behind the guard-tokens authorizer, with one handler. See
//! `docs/PROTECT_YOUR_API.md`.

use lambda_http::request::RequestContext;
use lambda_http::{Body, Error, Request, RequestExt, Response};
use serde_json::{Value, json};

/// Handles `GET /projects/{project}/reports`: returns the reports of a project of the caller's
/// organization. Requires a live API key with the scope `shield:read`, or an organization access
/// token for this project with the role `operator` or `manager`; else 403.
pub async fn handle(request: Request) -> Result<Response<Body>, Error> {
    let caller = caller(&request);
    let parameters = request.path_parameters();
    let project = parameters.first("project").unwrap_or_default();
    let holds = |list: &str, wanted: &str| caller[list].as_array().is_some_and(|held| held.contains(&json!(wanted)));
    let may = match caller["kind"].as_str() {
        // A test key must not read production data.
        Some("api_key") => caller["environment"] == "live" && holds("scopes", "shield:read"),
        Some("org_access_token") => {
            matches!(caller["role"].as_str(), Some("operator" | "manager"))
                && (holds("projects", "*") || holds("projects", project))
        }
        _ => false,
    };
    let (status, body) = match may {
        true => (200, json!({ "org_id": caller["org_id"], "project": project, "reports": [] })),
        false => (
            403,
            json!({ "error": "The credential lacks permission to read these reports. Use a live API key with the scope shield:read, or an access token for this project with the role operator or manager." }),
        ),
    };
    Ok(Response::builder().status(status).header("content-type", "application/json").body(body.to_string().into())?)
}

/// The principal from the authorizer's context. Null if the request bypassed the authorizer, which
/// grants nothing.
fn caller(request: &Request) -> Value {
    match request.request_context_ref() {
        Some(RequestContext::ApiGatewayV2(context)) => {
            context.authorizer.as_ref().map(|authorizer| authorizer.fields.clone().into_iter().collect())
        }
        _ => None,
    }
    .unwrap_or_default()
}
