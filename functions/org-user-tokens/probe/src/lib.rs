//! `POST /v1/o/{org_id}/guard/org-user-tokens/probe`: tells whether a token is active in the
//! organization.

use axum::extract::State;
use serde::{Deserialize, Serialize};
use shared::domain::{TokenState, UserIdentifier};
use shared::ids::TokenId;
use shared::openapi::{BodyErrors, HolderErrors, OrgInPath, tag};
use shared::permissions::OrgUserTokensProbe;
use shared::secret::Received;
use shared::store::tokens::OrgUserToken;
use shared::store::tokens::StoredToken;
use shared::{ApiError, App, BotWith, Json, Moment, NoQuery};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// The routes of this function.
pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(probe))
}

/// The token to probe.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = ProbeOrgUserToken)]
struct Request {
    /// The token in plain text.
    #[schema(value_type = String, example = "tg_org_a1B2c3D4e5F6g7H8i9J0k1L2m3N4o5P6q7R8s9T0u1")]
    token: Received,
}

/// Whether a token is active.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ProbedOrgUserToken)]
struct Probed {
    /// Whether the token is active and belongs to the organization.
    active: bool,
    /// The token, if it is active.
    #[serde(flatten)]
    about: Option<About>,
}

/// An active org user token.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ActiveOrgUserToken)]
struct About {
    /// The token's management id.
    id: TokenId,
    /// The user that the token is for.
    user_identifier: UserIdentifier,
    /// When the token was issued.
    created_at: Moment,
    /// When the token expires; null if it does not.
    expires_at: Option<Moment>,
    /// When the token was last used, accurate to a minute; null if never.
    last_used_at: Option<Moment>,
}

impl From<OrgUserToken> for About {
    fn from(token: OrgUserToken) -> Self {
        Self {
            id: token.id,
            user_identifier: token.user_identifier,
            created_at: token.created_at,
            expires_at: token.expires_at,
            last_used_at: token.last_used_at,
        }
    }
}

/// Probe an org user token
///
/// Tells whether a token is active and belongs to the organization. For an empty, malformed,
/// unknown, revoked, expired or foreign token the response is always `{"active":false}`. Probing
/// does not update `last_used_at`.
#[utoipa::path(
    post,
    path = "/v1/o/{org_id}/guard/org-user-tokens/probe",
    operation_id = "org-user-tokens-probe",
    tag = tag::ORG_USER_TOKENS,
    params(OrgInPath),
    request_body = Request,
    responses((status = 200, description = "Whether the token is active.", body = Probed), HolderErrors, BodyErrors),
)]
async fn probe(
    State(app): State<App>,
    caller: BotWith<OrgUserTokensProbe>,
    _: NoQuery,
    Json(request): Json<Request>,
) -> Result<Json<Probed>, ApiError> {
    let stored = match request.token {
        Received::Token(token) => app.store().token(&token).await?,
        Received::Malformed => None,
    };
    let now = app.clock().now();
    let about = match stored {
        Some(StoredToken::OrgUser(token))
            if token.org_id == caller.bot.org_id && token.state(now) == TokenState::Active =>
        {
            Some(About::from(token))
        }
        _ => None,
    };
    Ok(Json(Probed { active: about.is_some(), about }))
}
