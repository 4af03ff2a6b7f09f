//! `POST /v1/api-keys`: creates an API key.

use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use shared::domain::{Environment, Name, Scopes};
use shared::error::Unauthorized;
use shared::extract::in_the_future;
use shared::openapi::{BodyErrors, HolderErrors, IdempotencyKeyHeader, PlanErrors, RefusalErrors, RepeatErrors, tag};
use shared::permissions::ApiKeysCreate;
use shared::secret::ShownOnce;
use shared::store::api_keys::{Created, NewApiKey};
use shared::store::tokens::ApiKey;
use shared::views::ApiKeyView;
use shared::{ApiError, App, Json, JsonOnce, ManagerWith, Moment, NoQuery};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// The routes of this function.
pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(create))
}

/// The settings of the new key.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = CreateApiKey)]
struct Request {
    /// What the key is for, as shown in lists. Keys may share a name.
    name: Name,
    #[schema(inline)]
    environment: Environment,
    /// The key's scopes: at least one, no duplicates.
    scopes: Scopes,
    /// When the key expires. Must be in the future. If null or omitted, the key does not expire,
    /// unless the organization's policy requires an expiry.
    #[schema(example = "2099-12-31T23:59:59Z")]
    expires_at: Option<Moment>,
}

/// The new key.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = CreatedApiKey)]
struct Answer {
    /// The secret key. Returned only once.
    #[schema(value_type = String, pattern = "^tk_(live|test)_[0-9a-f]{64}$")]
    key: ShownOnce,
    #[serde(flatten)]
    about: ApiKeyView,
}

/// Create an API key
///
/// Returns the secret key only once. An API key cannot create a key with scopes it does not hold, a
/// live key if it is a test key, or a key that outlives it. The organization's plan limits the
/// number of active keys.
#[utoipa::path(
    post,
    path = "/v1/api-keys",
    operation_id = "api-keys-create",
    tag = tag::API_KEYS,
    params(IdempotencyKeyHeader),
    request_body = Request,
    responses(
        (status = 201, description = "The key was created.", body = Answer),
        HolderErrors,
        BodyErrors,
        PlanErrors,
        RefusalErrors,
        RepeatErrors,
    ),
)]
async fn create(
    State(app): State<App>,
    manager: ManagerWith<ApiKeysCreate>,
    _: NoQuery,
    request: JsonOnce<ApiKeysCreate, Request>,
) -> Result<(StatusCode, Json<Answer>), ApiError> {
    let (request, once) = request.unless_repeated(&app, &manager.org_id, &manager.caller).await?;
    let Request { name, environment, scopes, expires_at } = request;
    let expires_at = in_the_future(expires_at, app.clock().now())?;
    let new = NewApiKey { name, environment, scopes, expires_at };
    let exceeds = |own: &ApiKey| own.exceeded_by(&new.scopes.clone().into(), &new.environment.into(), new.expires_at);
    if let Some(more) = manager.api_key.as_ref().and_then(|(own, _)| exceeds(own)) {
        manager.record_refusal(&app).await?;
        return Err(ApiError::Exceeds(more));
    }
    manager.check_lifetime(&app, expires_at).await?;
    let by = manager.api_key.as_ref();
    let once = once.as_ref();
    match app.store().create_api_key(&manager.org_id, new, by, &manager.caller, once).await? {
        Created::Done(key, plain) => {
            let take_back = app.store().revoke_api_key(&manager.org_id, &key.id, &manager.caller);
            manager.confirm(&app, once, take_back).await?;
            let about = ApiKeyView::new(*key, app.clock().now());
            Ok((StatusCode::CREATED, Json(Answer { key: ShownOnce(plain), about })))
        }
        Created::CallerRevoked => Err(ApiError::Unauthorized(Unauthorized::Invalid)),
        Created::Repeated(repeat) => Err(repeat.into()),
        Created::TooLong(too_long) => Err(too_long.into()),
        Created::Suspended => {
            manager.record_refusal(&app).await?;
            Err(ApiError::Suspended)
        }
        Created::PlanLimitReached => {
            manager.record_refusal(&app).await?;
            Err(ApiError::PlanLimitReached)
        }
    }
}
