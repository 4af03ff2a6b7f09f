//! A Lambda authorizer for HTTP APIs (payload 2.0, simple response): lets in the holder of any credential that counts,
//! and hands on who it is.
//!
//! It answers for one request at a time. API Gateway must not keep its answers (`AuthorizerResultTtlInSeconds: 0`): with
//! a cache a revoked token would go on counting for as long as an answer is kept.

use std::collections::HashMap;

use axum::http::header::AUTHORIZATION;
use axum::http::{HeaderMap, HeaderValue};
use serde::Deserialize;
use shared::lambda::Decision;
use shared::principal::Principal;
use shared::views::PrincipalView;
use shared::{ApiError, App, auth};

/// What of API Gateway's event decides. Names of headers arrive in lower case, values of repeated ones joined by commas;
/// from `sam local` the names come as `Authorization`.
#[derive(Deserialize)]
pub struct Event {
    #[serde(default)]
    headers: HashMap<String, String>,
}

/// Decides on a request.
///
/// # Errors
///
/// Where nobody knows whether the credential counts: API Gateway answers 500, and lets nobody in.
pub async fn handle(app: App, event: Event) -> Result<Decision, ApiError> {
    let mut headers = HeaderMap::new();
    for (name, value) in &event.headers {
        if let (true, Ok(value)) = (name.eq_ignore_ascii_case(AUTHORIZATION.as_str()), HeaderValue::from_str(value)) {
            headers.append(AUTHORIZATION, value);
        }
    }
    match authorize(&app, &headers).await {
        Ok(principal) => Ok(Decision::let_in(principal)),
        Err(ApiError::Unauthorized(_)) => Ok(Decision::refuse()),
        Err(error) => Err(error),
    }
}

/// Who a request comes from. The use of a token is noted.
///
/// # Errors
///
/// 401 where its credential does not count, 503 where nobody knows.
pub async fn authorize(app: &App, headers: &HeaderMap) -> Result<PrincipalView, ApiError> {
    let principal = auth::authenticate(app, headers).await?;
    if let Principal::Holder(holder) = &principal {
        app.store().record_use(holder.hash, &holder.token).await;
    }
    Ok(PrincipalView::from(&principal))
}
