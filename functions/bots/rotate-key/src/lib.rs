//! `POST /v1/o/{org_id}/bots/{bot_id}/rotate-key`: replaces the API key of a bot.

use axum::extract::State;
use axum::http::StatusCode;
use serde::Serialize;
use shared::ids::{BotId, TokenId};
use shared::openapi::{
    BodyErrors, BotErrors, GuardErrors, IdempotencyKeyHeader, OrgInPath, RefusalErrors, RepeatErrors, tag,
};
use shared::permissions::BotsRotateKey;
use shared::rotate_request::RotateRequest;
use shared::secret::ShownOnce;
use shared::store::bots::{KeyToRotate, StoredBot};
use shared::{ApiError, App, BotWith, Json, JsonOnce, Moment, NoQuery, PathParams};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// The routes of this function.
pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(rotate))
}

/// The new API key.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = RotatedBotKey)]
struct Answer {
    /// The bot.
    bot_id: BotId,
    /// The id of the API key.
    key_id: Option<TokenId>,
    /// The API key. Returned only once. A credential is the API key and `bot_id`, joined by a colon.
    #[schema(value_type = String, example = "shisho_apikey_a1B2c3D4e5F6g7H8i9J0k1L2m3N4o5P6q7R8s9T0u1V", pattern = "^shisho_apikey_[0-9A-Za-z]{43}$")]
    api_key: ShownOnce,
    /// When the API key expires; null if it does not.
    expires_at: Option<Moment>,
    /// The id of the API key that still works for a while; null if there is none, or it was created
    /// before version 0.2.
    replaces: Option<TokenId>,
    /// When that one ends, unless the first use of the new one ends it; null if it ended at once.
    previous_key_expires_at: Option<Moment>,
}

impl Answer {
    fn new(bot: StoredBot, api_key: ShownOnce) -> Self {
        let mut keys = bot.keys.into_iter();
        let (newest, previous) = (keys.next(), keys.next());
        Self {
            bot_id: bot.id,
            api_key,
            expires_at: newest.as_ref().and_then(|key| key.expires_at),
            key_id: newest.and_then(|key| key.id),
            previous_key_expires_at: previous.as_ref().and_then(|key| key.expires_at),
            replaces: previous.and_then(|key| key.id),
        }
    }
}

/// Rotate the API key of a bot
///
/// Creates a new API key, and ends the one before it: at once, after `overlap`, or at the first use of
/// the new one. As long as the new one is unused, the key before it may be rotated again: then the
/// unused one ends. A bot may rotate its own key: with `until_first_use` a lost response strands
/// nobody. CI jobs may not. If the key that is replaced has expired, `expires_at` is required.
#[utoipa::path(
    post,
    path = "/v1/o/{org_id}/bots/{bot_id}/rotate-key",
    operation_id = "bots-rotate-key",
    tag = tag::BOTS,
    params(
        OrgInPath,
        ("bot_id" = String, Path, description = "The bot's ID", example = "BT01KAJ8M4R2X7Z9V5T3Q1N6P8WC"),
        IdempotencyKeyHeader,
    ),
    request_body = RotateRequest,
    responses(
        (status = 201, description = "The API key was created.", body = Answer),
        GuardErrors,
        BodyErrors,
        BotErrors,
        RefusalErrors,
        RepeatErrors,
    ),
)]
async fn rotate(
    State(app): State<App>,
    caller: BotWith<BotsRotateKey>,
    _: NoQuery,
    path: PathParams,
    request: JsonOnce<BotsRotateKey, RotateRequest>,
) -> Result<(StatusCode, Json<Answer>), ApiError> {
    let (request, once) = request.unless_repeated(&app, &caller.bot.org_id, &caller.caller).await?;
    let id = BotId::parse(path.get("bot_id")).ok_or(ApiError::BotNotFound)?;
    let key = KeyToRotate { bot: id, renewed_until: None };
    let (bot, key) = caller.minter().rotate::<StoredBot>(&app, &key, &request, once.as_ref()).await?;
    Ok((StatusCode::CREATED, Json(Answer::new(*bot, ShownOnce(key)))))
}
