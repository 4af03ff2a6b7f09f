//! `POST /v1/o/{org_id}/guard/org-user-tokens/probe`: says whether a token is active and the organization's own.

use axum::extract::State;
use serde::{Deserialize, Serialize};
use shared::domain::{TokenState, UserIdentifier};
use shared::ids::TokenId;
use shared::openapi::{BodyErrors, GuardErrors, OrgInPath, tag};
use shared::principal::OrgUserTokensProbe;
use shared::secret::Received;
use shared::store::org_user_tokens::OrgUserToken;
use shared::store::tokens::StoredToken;
use shared::{ApiError, App, BotWith, Json, Moment, NoQuery};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// The routes of this function.
pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(probe))
}

/// The token in question.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = ProbeOrgUserToken)]
struct Request {
    /// The token in plain text. Anything that is no active token of the organization is answered alike.
    #[schema(value_type = String, example = "tg_org_a1B2c3D4e5F6g7H8i9J0k1L2m3N4o5P6q7R8s9T0u1")]
    token: Received,
}

/// Whether a token is active.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ProbedOrgUserToken)]
struct Probed {
    /// Whether it counts, and is the organization's own.
    active: bool,
    /// What is known of it, if it is active.
    #[serde(flatten)]
    about: Option<About>,
}

/// What is known of an active token.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ActiveOrgUserToken)]
struct About {
    /// Its management id.
    id: TokenId,
    /// Who it is for.
    user_identifier: UserIdentifier,
    /// When it was issued.
    created_at: Moment,
    /// When it ends by itself; null if it does not.
    expires_at: Option<Moment>,
    /// When it was last used; null if it never was.
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
/// Says whether a token is active and owned by the organization. An empty, malformed, unknown, revoked, expired or
/// foreign token is answered with the same bytes: `{"active":false}`. Probing is no use of the token.
#[utoipa::path(
    post,
    path = "/v1/o/{org_id}/guard/org-user-tokens/probe",
    operation_id = "org-user-tokens-probe",
    tag = tag::ORG_USER_TOKENS,
    params(OrgInPath),
    request_body = Request,
    responses((status = 200, description = "Whether the token is active.", body = Probed), GuardErrors, BodyErrors),
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
