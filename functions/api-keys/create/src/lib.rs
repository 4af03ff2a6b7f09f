//! `POST /v1/api-keys`: creates an API key.

use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use shared::domain::{Environment, Name, Scopes};
use shared::error::Unauthorized;
use shared::extract::in_the_future;
use shared::openapi::{BodyErrors, HolderErrors, PlanErrors, tag};
use shared::principal::ApiKeysCreate;
use shared::secret::ShownOnce;
use shared::store::api_keys::{ApiKey, Created, NewApiKey};
use shared::views::ApiKeyView;
use shared::{ApiError, App, Json, ManagerWith, Moment, NoQuery};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// The routes of this function.
pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(create))
}

/// What the key is to be.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = CreateApiKey)]
struct Request {
    /// Where the key is used, for people; many keys may share a name.
    name: Name,
    #[schema(inline)]
    environment: Environment,
    /// What the key may do; at least one, none twice.
    scopes: Scopes,
    /// When the key is to end by itself, which must lie in the future; null or left out, it does not.
    #[schema(example = "2099-12-31T23:59:59Z")]
    expires_at: Option<Moment>,
}

/// The new key.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = CreatedApiKey)]
struct Answer {
    /// The key itself. It is in this answer and never again.
    #[schema(value_type = String, pattern = "^tk_(live|test)_[0-9a-f]{64}$")]
    key: ShownOnce,
    #[serde(flatten)]
    about: ApiKeyView,
}

/// Create an API key
///
/// The key is shown in this answer and never again. A caller that is an API key itself makes none that may do more: no
/// scope that it does not hold, no live key from a test key, no longer life than its own. The plan bounds how many keys
/// may be active at once.
#[utoipa::path(
    post,
    path = "/v1/api-keys",
    operation_id = "api-keys-create",
    tag = tag::API_KEYS,
    request_body = Request,
    responses((status = 201, description = "The key was created.", body = Answer), HolderErrors, BodyErrors, PlanErrors),
)]
async fn create(
    State(app): State<App>,
    manager: ManagerWith<ApiKeysCreate>,
    _: NoQuery,
    Json(request): Json<Request>,
) -> Result<(StatusCode, Json<Answer>), ApiError> {
    let Request { name, environment, scopes, expires_at } = request;
    let expires_at = in_the_future(expires_at, app.clock().now())?;
    let new = NewApiKey { name, environment, scopes, expires_at };
    if let Some(more) = manager.api_key.as_ref().and_then(|(own, _)| exceeds(&new, own)) {
        manager.record_refusal(&app).await?;
        return Err(ApiError::Exceeds(more));
    }
    let by = manager.api_key.as_ref().map(|(_, hash)| *hash);
    match app.store().create_api_key(&manager.org_id, new, by, &manager.caller).await? {
        Created::Done(key, plain) => {
            let about = ApiKeyView::new(*key, app.clock().now());
            Ok((StatusCode::CREATED, Json(Answer { key: ShownOnce(plain), about })))
        }
        Created::CallerRevoked => Err(ApiError::Unauthorized(Unauthorized::Invalid)),
        Created::PlanLimitReached => {
            manager.record_refusal(&app).await?;
            Err(ApiError::PlanLimitReached)
        }
    }
}

/// What of a new key goes beyond the key that asks for it.
fn exceeds(new: &NewApiKey, own: &ApiKey) -> Option<&'static str> {
    if !own.scopes.cover(&new.scopes) {
        return Some("An API key may not create a key with `scopes` that it does not hold itself.");
    }
    if own.environment == Environment::Test && new.environment == Environment::Live {
        return Some("An API key of the `environment` test may not create a key of the environment live.");
    }
    let outlives = own.expires_at.is_some_and(|end| new.expires_at.is_none_or(|expires_at| expires_at > end));
    outlives.then_some("An API key may not create a key whose `expires_at` lies after its own.")
}
