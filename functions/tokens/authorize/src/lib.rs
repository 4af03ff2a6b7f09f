//! A Lambda authorizer for HTTP APIs (payload 2.0, simple response). It allows any active
//! credential and passes the principal on to the API.
//!
//! API Gateway must not cache its decisions (`AuthorizerResultTtlInSeconds: 0`): a cached decision
//! would let a revoked token in until the cache entry expires.

use std::collections::HashMap;

use axum::http::header::AUTHORIZATION;
use axum::http::{HeaderMap, HeaderValue};
use serde::Deserialize;
use shared::lambda::Decision;
use shared::views::PrincipalView;
use shared::{ApiError, App, auth};

/// The part of API Gateway's event that decides. Header names arrive in lower case, repeated values
/// joined by commas; `sam local` sends the name as `Authorization`.
#[derive(Deserialize)]
pub struct Event {
    #[serde(default)]
    headers: HashMap<String, String>,
}

/// Decides on a request.
///
/// # Errors
///
/// If the credential cannot be checked. API Gateway then denies the request with 500.
pub async fn handle(app: App, event: Event) -> Result<Decision, ApiError> {
    let mut headers = HeaderMap::new();
    for (name, value) in &event.headers {
        if let (true, Ok(value)) = (name.eq_ignore_ascii_case(AUTHORIZATION.as_str()), HeaderValue::from_str(value)) {
            headers.append(AUTHORIZATION, value);
        }
    }
    match authorize(&app, &headers).await {
        Ok(principal) => Ok(Decision::allow(principal)),
        Err(ApiError::Unauthorized(_)) => Ok(Decision::deny()),
        Err(error) => Err(error),
    }
}

/// Authenticates a request, and updates the `last_used_at` of its token or API key.
///
/// # Errors
///
/// 401 if the credential is not active, 503 if it cannot be checked.
pub async fn authorize(app: &App, headers: &HeaderMap) -> Result<PrincipalView, ApiError> {
    let principal = auth::authenticate(app, headers).await?;
    auth::record_use(app, &principal).await?;
    Ok(PrincipalView::from(&principal))
}
