//! `POST /v1/tokens/leaked`: ends tokens that somebody has found where they should not be.

use std::collections::BTreeSet;

use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use shared::auth::Found;
use shared::extract::{JsonReport, Object};
use shared::leaks::report;
use shared::openapi::{LeakReportErrors, tag};
use shared::store::leak_reports::{MAX_REPORTED, Reported};
use shared::store::leaks::Place;
use shared::{ApiError, Json, LeakReporter, MailApp, NoQuery};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// The routes of this function.
pub fn routes() -> OpenApiRouter<MailApp> {
    OpenApiRouter::new().routes(routes!(leaked))
}

/// The tokens that were found.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = ReportLeakedTokens)]
struct Request {
    /// 1 to 1,000 tokens.
    #[schema(value_type = Vec<Entry>, min_items = 1, max_items = 1_000)]
    tokens: Vec<Object<Entry>>,
}

/// A token that was found.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = LeakedToken)]
struct Entry {
    /// The token, or the whole credential of a bot.
    #[schema(value_type = String)]
    token: Found,
    /// Where it was found: an `https` URL. Tokens in it are blanked. Mails show its host and path.
    #[schema(value_type = String, format = "uri", max_length = 2_048, example = "https://github.com/octocat/hello/blob/main/.npmrc#L1")]
    url: Place,
}

/// The same response for every report.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ReportedLeakedTokens)]
struct Accepted {
    /// A message for people.
    #[schema(
        example = "Thank you. Whatever is a token of this service no longer works, or its organization was told."
    )]
    message: &'static str,
}

/// Report leaked tokens
///
/// For whoever finds tokens of this service where they should not be. Each one stops working, of
/// whatever kind it is, and the people that it belongs to are told where it was found. An organization
/// may decide to be told only. The response is the same for every report, so it does not reveal which
/// tokens are active. After a 503 repeat the report: what was done is done.
#[utoipa::path(
    post,
    path = "/v1/tokens/leaked",
    operation_id = "tokens-leaked",
    tag = tag::LEAKS,
    request_body = Request,
    responses((status = 202, description = "Accepted.", body = Accepted), LeakReportErrors),
)]
async fn leaked(
    State(app): State<MailApp>,
    LeakReporter { caller }: LeakReporter,
    _: NoQuery,
    JsonReport(Request { tokens }): JsonReport<Request>,
) -> Result<(StatusCode, Json<Accepted>), ApiError> {
    if !(1..=MAX_REPORTED).contains(&tokens.len()) {
        return Err(ApiError::invalid("tokens", "must have 1 to 1,000 entries"));
    }
    let reported = |Object(Entry { token, url })| Some(Reported { token: token.0?, place: Some(url) });
    let reported: Vec<Reported> = tokens.into_iter().filter_map(reported).collect();
    let distinct: BTreeSet<String> = reported.iter().map(|reported| reported.token.hash().to_hex()).collect();
    app.app.store().count_leaked_tokens(caller.source_ip, distinct.len()).await?.map_err(ApiError::RateLimited)?;
    report(&app, &reported, &caller).await?;
    let message = "Thank you. Whatever is a token of this service no longer works, or its organization was told.";
    Ok((StatusCode::ACCEPTED, Json(Accepted { message })))
}
