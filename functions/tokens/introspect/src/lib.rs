//! `POST /v1/tokens/introspect`: token introspection (RFC 7662) for tokens of the organization.

use axum::extract::State;
use serde::{Deserialize, Serialize};
use shared::domain::{AccessRole, Environment, OrUnknown, ProjectId, Scope};
use shared::ids::{BotId, OrgId};
use shared::openapi::{BodyErrors, HolderErrors, tag};
use shared::permissions::TokensIntrospect;
use shared::secret::Received;
use shared::store::StoreError;
use shared::store::tokens::StoredToken;
use shared::views::{Id, PrincipalView};
use shared::{ApiError, App, BotWith, FormOrJson, Json, NoQuery, auth};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// The routes of this function.
pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(introspect))
}

/// The token to introspect, and optionally the permissions to check.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = IntrospectToken)]
struct Request {
    /// The token in plain text.
    #[schema(value_type = String)]
    token: Received,
    /// The hint of RFC 7662. Ignored: the token's prefix tells its type.
    #[serde(rename = "token_type_hint")]
    _token_type_hint: Option<String>,
    /// The environment that an API key must be for.
    #[schema(inline)]
    environment: Option<Environment>,
    /// The required scopes of an API key, separated by spaces.
    #[schema(value_type = Option<String>, example = "shield:read")]
    scope: Option<Needed>,
    /// The project that an organization access token must be able to access.
    project: Option<ProjectId>,
    /// The minimum role of an organization access token.
    #[schema(inline)]
    role: Option<AccessRole>,
}

/// Scopes in the syntax of RFC 6749.
#[derive(Debug, Deserialize)]
#[serde(try_from = "String")]
struct Needed(Vec<Scope>);

impl TryFrom<String> for Needed {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let scopes: Option<Vec<Scope>> = text.split(' ').map(Scope::parse).collect();
        scopes.map(Self).ok_or("must be known scopes separated by single spaces, such as shield:read audit:read")
    }
}

/// The result of an introspection. Inactive or foreign tokens return only `{"active":false}`.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = IntrospectedToken)]
struct Introspected {
    /// Whether the token is active and belongs to the organization.
    active: bool,
    #[serde(flatten)]
    about: Option<About>,
}

/// An active token. Fields that do not apply to its kind are omitted.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ActiveToken)]
struct About {
    /// The kind of token: `org_user_token`, `api_key`, `org_access_token` or `bot_token`.
    #[schema(example = "api_key")]
    token_type: String,
    /// The token's management id; a number for an organization access token.
    id: Id,
    /// The organization that the token belongs to.
    org_id: OrgId,
    /// Subject: the `user_identifier` of an org user token, else `<token_type>:<id>`.
    sub: String,
    /// The bot that a bot token acts as.
    #[serde(skip_serializing_if = "Option::is_none")]
    bot_id: Option<BotId>,
    /// The CI job that holds a bot token, as its ID token names it.
    #[serde(skip_serializing_if = "Option::is_none")]
    subject: Option<String>,
    /// The environment of an API key.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(inline, value_type = Option<Environment>)]
    environment: Option<OrUnknown<Environment>>,
    /// The scopes of an API key, separated by spaces.
    #[serde(skip_serializing_if = "Option::is_none")]
    scope: Option<String>,
    /// The role of an organization access token.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(inline, value_type = Option<AccessRole>)]
    role: Option<OrUnknown<AccessRole>>,
    /// The projects that an organization access token may access; `["*"]` means every project.
    #[serde(skip_serializing_if = "Option::is_none")]
    projects: Option<Vec<String>>,
    /// When the token expires, in seconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    exp: Option<i64>,
    /// When the token was created, in seconds since 1970.
    iat: i64,
    /// Whether the token has every requested `environment`, `scope`, `project` and `role`. Present
    /// only if the request names any.
    #[serde(skip_serializing_if = "Option::is_none")]
    permitted: Option<bool>,
}

/// Introspect a token
///
/// Describes a token of the caller's organization. For an unknown, malformed, revoked, expired,
/// disabled or foreign token the response is always `{"active":false}`. Introspection updates the
/// token's `last_used_at`.
#[utoipa::path(
    post,
    path = "/v1/tokens/introspect",
    operation_id = "tokens-introspect",
    tag = tag::TOKENS,
    request_body(content((Request = "application/x-www-form-urlencoded"), (Request = "application/json"))),
    responses((status = 200, description = "The token, or `{\"active\":false}`.", body = Introspected), HolderErrors, BodyErrors),
)]
async fn introspect(
    State(app): State<App>,
    caller: BotWith<TokensIntrospect>,
    _: NoQuery,
    FormOrJson(request): FormOrJson<Request>,
) -> Result<Json<Introspected>, ApiError> {
    let Received::Token(plain) = &request.token else { return Ok(Json(inactive())) };
    let stored = auth::active(app.store().token(plain).await?, app.clock().now());
    let own = stored.filter(|token| token.org_id() == Some(&caller.bot.org_id));
    let Some(token) = own else { return Ok(Json(inactive())) };
    match app.store().record_use(plain.hash(), &token).await {
        Err(StoreError::Ended) => return Ok(Json(inactive())),
        recorded => recorded?,
    }
    let about = about(&token, &caller.bot.org_id, permitted(&request, &token));
    Ok(Json(Introspected { active: true, about: Some(about) }))
}

fn inactive() -> Introspected {
    Introspected { active: false, about: None }
}

/// Whether the token has all requested permissions; `None` if none are requested. A permission that
/// does not apply to its kind is not granted.
fn permitted(request: &Request, token: &StoredToken) -> Option<bool> {
    let environment = request.environment.map(|asked| match token {
        StoredToken::ApiKey(key) => key.environment == asked,
        _ => false,
    });
    let scope = request.scope.as_ref().map(|needed| match token {
        StoredToken::ApiKey(key) => needed.0.iter().all(|scope| key.scopes.contains(*scope)),
        _ => false,
    });
    let project = request.project.as_ref().map(|project| match token {
        StoredToken::OrgAccess(token) => token.access_config.reaches(project.as_str()),
        _ => false,
    });
    let role = request.role.map(|least| match token {
        StoredToken::OrgAccess(token) => token.access_config.includes(least),
        _ => false,
    });
    [environment, scope, project, role].into_iter().flatten().reduce(|all, one| all && one)
}

fn about(token: &StoredToken, org: &OrgId, permitted: Option<bool>) -> About {
    let view = PrincipalView::from(token);
    let created_at = token.created_at();
    About {
        sub: view
            .user_identifier
            .map_or_else(|| format!("{}:{}", view.kind, token.id()), |identifier| identifier.as_str().to_owned()),
        token_type: view.kind,
        bot_id: view.bot_id,
        subject: view.subject,
        id: view.id,
        org_id: org.clone(),
        environment: view.environment,
        scope: view.scopes.map(|scopes| scopes.iter().map(|scope| scope.as_str()).collect::<Vec<_>>().join(" ")),
        role: view.role,
        projects: view.projects,
        exp: view.expires_at.map(|expires_at| expires_at.epoch_seconds()),
        iat: created_at.epoch_seconds(),
        permitted,
    }
}
