//! `POST /bots/exchange`: exchanges the ID token of a CI job for a bot token.

use std::time::Duration;

use axum::extract::State;
use axum::http::HeaderMap;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use shared::auth::{Credential, authenticate};
use shared::error::Unauthorized;
use shared::ids::BotId;
use shared::observe::Origin;
use shared::oidc::{LEEWAY, Refusal, Workload};
use shared::openapi::{ExchangeErrors, tag};
use shared::secret::{ShownOnce, TokenKind};
use shared::store::audit::{Caller, Subject};
use shared::store::bot_tokens::{Exchanged, IdToken};
use shared::store::bots::StoredBot;
use shared::trust::{Evidence, SUBJECT, admitting, in_logs};
use shared::{ApiError, App, CiApp, Json, NoQuery};
use tokio::time::Instant;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// How long a token lives, in seconds: at least, at most, and unless the job says otherwise.
const SHORTEST: u64 = 60;
const LONGEST: u64 = 86_400;
const DEFAULT: u64 = 1_800;

/// The same for every ID token that is not accepted, and for one that was exchanged before.
const BAD_ID_TOKEN: ApiError = ApiError::Unauthorized(Unauthorized::IdToken);

/// The routes of this function.
pub fn routes() -> OpenApiRouter<CiApp> {
    OpenApiRouter::new().routes(routes!(exchange))
}

/// The ID token of a CI job, and the bot to act as.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = ExchangeIdToken)]
struct Request {
    /// The bot to act as.
    #[schema(value_type = String, example = "BT01KAJ8M4R2X7Z9V5T3Q1N6P8WC", pattern = "^BT[0-7][0-9A-HJKMNP-TV-Z]{25}$")]
    bot_id: BotId,
    /// The ID token that the CI platform made for the job. It can be exchanged once.
    #[schema(value_type = String, example = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJyZXBvOmFjbWUvd2lkZ2V0cyJ9.c2ln")]
    id_token: SecretString,
    /// How long the bot token lives, in seconds.
    #[schema(minimum = 60, maximum = 86400, default = 1800)]
    expires_in: Option<u64>,
}

/// The bot token, as OAuth 2.0 answers it.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = BotToken)]
struct Answer {
    /// The token. Returned only once.
    #[schema(value_type = String, example = "tg_bot_a1B2c3D4e5F6g7H8i9J0k1L2m3N4o5P6q7R8s9T0u1", pattern = "^tg_bot_[0-9A-Za-z]{42}$")]
    access_token: ShownOnce,
    #[schema(example = "Bearer")]
    token_type: &'static str,
    /// How long the token lives, in seconds.
    #[schema(example = 1800)]
    expires_in: u64,
}

/// Exchange an ID token of CI for a bot token
///
/// A CI job that a trust of the bot admits acts as the bot while the token lives, and may use the
/// registries. A secret is stored nowhere. Errors have their sentence also in `message`.
#[utoipa::path(
    post,
    path = "/bots/exchange",
    operation_id = "bots-exchange",
    tag = tag::CI,
    request_body = Request,
    responses((status = 200, description = "The ID token was exchanged.", body = Answer), ExchangeErrors),
)]
async fn exchange(
    State(CiApp { app, workloads }): State<CiApp>,
    origin: Origin,
    headers: HeaderMap,
    _: NoQuery,
    Json(request): Json<Request>,
) -> Result<Json<Answer>, ApiError> {
    let expires_in = request.expires_in.unwrap_or(DEFAULT);
    if !(SHORTEST..=LONGEST).contains(&expires_in) {
        return Err(ApiError::invalid("expires_in", "must be 60 to 86,400 seconds"));
    }
    refuse_job(&app, &headers).await?;
    let workload = match workloads.verify(request.id_token.expose_secret()).await {
        Ok(workload) => workload,
        Err(Refusal::Invalid(reason)) => {
            log_refusal(&origin, None, &reason.to_string());
            return failed(&app, &origin, BAD_ID_TOKEN).await;
        }
        Err(Refusal::Unavailable { retry_after }) => return Err(ApiError::IssuerUnavailable(retry_after)),
    };
    // Its own time is the caller's: only what depends on the bot is hidden.
    let started = Instant::now();
    let exchanged = exchange_for(&app, &origin, &request.bot_id, &workload, Duration::from_secs(expires_in)).await;
    if exchanged.is_err() {
        tokio::time::sleep_until(started + app.limits().exchange_refusal_end(started.elapsed())).await;
    }
    let access_token = exchanged?;
    Ok(Json(Answer { access_token, token_type: "Bearer", expires_in }))
}

/// Refuses a job that would make a token with its token: it would outlive every one of them.
async fn refuse_job(app: &App, headers: &HeaderMap) -> Result<(), ApiError> {
    match Credential::from_headers(headers) {
        Ok(Credential::Token(token)) if token.kind() == TokenKind::Bot => {
            authenticate(app, headers).await?;
            Err(ApiError::Forbidden)
        }
        // Any other credential neither helps nor harms.
        _ => Ok(()),
    }
}

/// Exchanges a good ID token for a token of this bot.
async fn exchange_for(
    app: &App,
    origin: &Origin,
    id: &BotId,
    workload: &Workload,
    lifetime: Duration,
) -> Result<ShownOnce, ApiError> {
    let store = app.store();
    // Both also for a bot that does not exist.
    let (bot, trusts) = tokio::try_join!(store.bot(id), store.trusts(id))?;
    let Some(bot) = bot else {
        log_refusal(origin, None, "there is no such bot");
        return failed(app, origin, ApiError::NotTrusted).await;
    };
    let caller = |workload| Caller {
        actor: Subject::new(StoredBot::SUBJECT, &bot.id),
        source_ip: origin.source_ip,
        request_id: origin.request_id.clone(),
        workload: Some(workload),
    };
    let Workload { issuer, audiences, claims, .. } = workload;
    let admitted = match admitting(&trusts, &bot.roles(), &Evidence { issuer, audiences, claims }) {
        Ok(admitted) if store.org(&bot.org_id).await?.is_some_and(|org| !org.suspended) => Ok(admitted),
        Ok(_) => Err(("the organization is suspended".to_owned(), ApiError::Suspended)),
        Err(Some(mismatch)) => Err((mismatch.claim().to_owned(), ApiError::NotTrusted)),
        Err(None) => Err(("the bot has no trusts".to_owned(), ApiError::NotTrusted)),
    };
    let (trust, subject) = match admitted {
        Ok(admitted) => admitted,
        Err((why, error)) => {
            log_refusal(origin, Some(&bot.id), &why);
            let refused: Result<ShownOnce, ApiError> = failed(app, origin, error.clone()).await;
            // Beyond the limit nothing is recorded, as for every refusal.
            if !matches!(refused, Err(ApiError::RateLimited(_))) {
                let job = claims.get(SUBJECT).and_then(|subject| subject.as_str()).map(in_logs).unwrap_or_default();
                store.record_refused_exchange(&bot.org_id, &bot.id, why, &caller(job)).await?;
            }
            return refused;
        }
    };
    let accepted_until = workload.expires_at.plus(LEEWAY);
    let id_token = IdToken { issuer, replay_id: &workload.replay_id, accepted_until };
    let expires_at = app.clock().now().plus(lifetime);
    match store.exchange(&bot, trust, id_token, expires_at, &caller(subject)).await? {
        Exchanged::Done(_, token) => Ok(ShownOnce(token)),
        Exchanged::Replayed => {
            log_refusal(origin, Some(&bot.id), "the ID token was exchanged before");
            failed(app, origin, BAD_ID_TOKEN).await
        }
    }
}

/// Logs why an exchange is refused, which the caller is not told: a sentence, or the name of the claim
/// that does not match. Never what the caller sent.
fn log_refusal(origin: &Origin, bot: Option<&BotId>, why: &str) {
    // The crates of functions have no log of their own.
    tracing::info!(
        target: "shared::exchange",
        request_id = origin.request_id,
        bot = bot.map(BotId::as_str),
        why,
        "an exchange was refused"
    );
}

/// Counts a failed exchange.
async fn failed<T>(app: &App, origin: &Origin, error: ApiError) -> Result<T, ApiError> {
    app.store().count_failed_exchange(origin.source_ip).await?.map_err(ApiError::RateLimited)?;
    Err(error)
}
