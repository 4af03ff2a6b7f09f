//! `POST /v1/integrations/github/secret-scanning`: takes the reports of GitHub's secret scanning.
//!
//! The format is that of GitHub's partner programme. Nothing is parsed before the signature is
//! verified. Unknown fields and query parameters are ignored: GitHub may add some.

use axum::extract::State;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize, Serializer};
use shared::auth::token_in;
use shared::leaks::report;
use shared::openapi::{SignedReportErrors, tag};
use shared::secret::Token;
use shared::secret_scanning::{ScanningApp, SignedReport};
use shared::store::leak_reports::{MAX_REPORTED, Reported};
use shared::store::leaks::Place;
use shared::{ApiError, Json, MailApp};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

const MALFORMED: ApiError =
    ApiError::Malformed("The request body is not a JSON list of 1 to 1,000 objects with a `token` each.");

/// The routes of this function.
pub fn routes() -> OpenApiRouter<ScanningApp> {
    OpenApiRouter::new().routes(routes!(scanned))
}

/// A token that GitHub has found.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = ScannedToken)]
struct Entry {
    /// The token, or the whole credential of a bot.
    #[schema(value_type = String)]
    token: SecretString,
    /// The name of its pattern at GitHub.
    #[serde(default)]
    #[schema(required = false, example = "guard_tokens_org_user_token")]
    r#type: String,
    /// Where it was found. May be empty.
    #[serde(default)]
    url: Option<String>,
}

/// What became of a token.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ScannedTokenFeedback)]
struct Feedback {
    /// The token as it was sent.
    #[serde(serialize_with = "exposed")]
    #[schema(value_type = String)]
    token_raw: SecretString,
    /// The name of its pattern, as it was sent.
    token_type: String,
    /// Whether it is a token of this service.
    #[schema(inline)]
    label: Label,
}

/// Whether something is a token of this service.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum Label {
    TruePositive,
    FalsePositive,
}

/// GitHub has sent the token and expects it back.
fn exposed<S: Serializer>(token: &SecretString, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(token.expose_secret())
}

/// Report tokens found by GitHub
///
/// For GitHub's secret scanning alone: the body is signed with one of the keys that GitHub publishes.
/// Each token stops working as with `POST /v1/tokens/leaked`. 404 unless the deployment is configured
/// for it. Signed reports are not limited in number.
#[utoipa::path(
    post,
    path = "/v1/integrations/github/secret-scanning",
    operation_id = "integrations-github-secret-scanning",
    tag = tag::LEAKS,
    params(
        ("Github-Public-Key-Identifier" = String, Header, description = "The identifier of the key"),
        ("Github-Public-Key-Signature" = String, Header, description = "The signature of the body: ECDSA on P-256 with SHA-256, in DER and Base64"),
    ),
    request_body = Vec<Entry>,
    responses((status = 200, description = "What became of each token, in the order of the report.", body = Vec<Feedback>), SignedReportErrors),
)]
async fn scanned(
    State(app): State<MailApp>,
    SignedReport { body, caller }: SignedReport,
) -> Result<Json<Vec<Feedback>>, ApiError> {
    let entries: Vec<Entry> = serde_json::from_slice(&body).map_err(|_| MALFORMED)?;
    if !(1..=MAX_REPORTED).contains(&entries.len()) {
        return Err(MALFORMED);
    }
    let tokens: Vec<Option<Token>> = entries.iter().map(|entry| token_in(entry.token.expose_secret())).collect();
    let mut reported = Vec::with_capacity(tokens.len());
    for (entry, token) in entries.iter().zip(&tokens) {
        // A place that cannot be shown does not keep a token from being ended.
        let place = entry.url.clone().and_then(|url| Place::try_from(url).ok());
        reported.extend(token.clone().map(|token| Reported { token, place }));
    }
    let mut known = report(&app, &reported, &caller).await?;
    // An earlier attempt to send this report may have deleted some.
    let missing: Vec<usize> = (0..known.len()).filter(|index| !known[*index]).collect();
    let gone: Vec<&Token> = missing.iter().map(|index| &reported[*index].token).collect();
    for (index, before) in missing.into_iter().zip(app.app.store().reported_before(&gone).await?) {
        known[index] = before;
    }
    let mut known = known.into_iter();
    let feedback = entries.into_iter().zip(tokens).map(|(Entry { token, r#type, .. }, parsed)| {
        let is_known = parsed.is_some() && known.next().unwrap_or_default();
        let label = if is_known { Label::TruePositive } else { Label::FalsePositive };
        Feedback { token_raw: token, token_type: r#type, label }
    });
    Ok(Json(feedback.collect()))
}
