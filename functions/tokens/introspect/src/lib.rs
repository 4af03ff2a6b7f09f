//! `POST /v1/tokens/introspect`: says what a token of the organization is good for, as RFC 7662 describes.

use axum::extract::State;
use serde::{Deserialize, Serialize};
use shared::domain::{AccessRole, ProjectId, Scope};
use shared::ids::OrgId;
use shared::openapi::{BodyErrors, HolderErrors, tag};
use shared::principal::TokensIntrospect;
use shared::secret::Received;
use shared::store::tokens::StoredToken;
use shared::views::{Id, PrincipalView};
use shared::{ApiError, App, BotWith, FormOrJson, Json, NoQuery};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// The routes of this function.
pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(introspect))
}

/// The token in question, and what it is to be used for.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = IntrospectToken)]
struct Request {
    /// The token in plain text.
    #[schema(value_type = String)]
    token: Received,
    /// RFC 7662's hint. A token says itself what it is, so it is not looked at.
    #[serde(rename = "token_type_hint")]
    _token_type_hint: Option<String>,
    /// Scopes that are needed, with spaces between them: for API keys.
    #[schema(value_type = Option<String>, example = "shield:read")]
    scope: Option<Needed>,
    /// A project that is to be reached: for organization access tokens.
    project: Option<ProjectId>,
    /// The least role that is needed: for organization access tokens.
    #[schema(inline)]
    role: Option<AccessRole>,
}

/// Scopes in RFC 6749's form.
#[derive(Debug, Deserialize)]
#[serde(try_from = "String")]
struct Needed(Vec<Scope>);

impl TryFrom<String> for Needed {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let scopes: Option<Vec<Scope>> = text.split(' ').map(Scope::parse).collect();
        scopes.map(Self).ok_or("must name scopes, with one space between two")
    }
}

/// What a token is good for. For one that counts not, or is another organization's, `{"active":false}` and no more.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = IntrospectedToken)]
struct Introspected {
    /// Whether it counts, and is the organization's own.
    active: bool,
    #[serde(flatten)]
    about: Option<About>,
}

/// What is known of a token that counts. What does not apply to its kind is left out.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ActiveToken)]
struct About {
    /// Its kind: `org_user_token`, `api_key` or `org_access_token`.
    #[schema(example = "api_key")]
    token_type: String,
    /// Its management id; a number for an organization access token.
    id: Id,
    /// The organization.
    org_id: OrgId,
    /// Whom it stands for: an org user token's `user_identifier`, else the kind and the id.
    sub: String,
    /// An API key's scopes, with spaces between them.
    #[serde(skip_serializing_if = "Option::is_none")]
    scope: Option<String>,
    /// An organization access token's role.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(inline)]
    role: Option<AccessRole>,
    /// The projects that an organization access token reaches; `*` alone stands for every one.
    #[serde(skip_serializing_if = "Option::is_none")]
    projects: Option<Vec<String>>,
    /// When it ends by itself, in seconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    exp: Option<i64>,
    /// When it was made, in seconds since 1970.
    iat: i64,
    /// Whether it may do all that was asked; only there if something was.
    #[serde(skip_serializing_if = "Option::is_none")]
    permitted: Option<bool>,
}

/// Introspect a token
///
/// For tokens of the caller's organization. An unknown, malformed, revoked, expired, switched-off or foreign token is
/// answered with the same bytes: `{"active":false}`. Asking counts as a use of the token.
#[utoipa::path(
    post,
    path = "/v1/tokens/introspect",
    operation_id = "tokens-introspect",
    tag = tag::TOKENS,
    request_body(content((Request = "application/x-www-form-urlencoded"), (Request = "application/json"))),
    responses((status = 200, description = "What the token is good for.", body = Introspected), HolderErrors, BodyErrors),
)]
async fn introspect(
    State(app): State<App>,
    caller: BotWith<TokensIntrospect>,
    _: NoQuery,
    FormOrJson(request): FormOrJson<Request>,
) -> Result<Json<Introspected>, ApiError> {
    let Received::Token(plain) = &request.token else { return Ok(Json(inactive())) };
    let stored = app.store().token(plain).await?;
    let own = stored.filter(|token| token.org_id() == Some(&caller.bot.org_id) && token.counts(app.clock().now()));
    let Some(token) = own else { return Ok(Json(inactive())) };
    app.store().record_use(plain.hash(), &token).await;
    let about = about(&token, &caller.bot.org_id, permitted(&request, &token));
    Ok(Json(Introspected { active: true, about: Some(about) }))
}

fn inactive() -> Introspected {
    Introspected { active: false, about: None }
}

/// Whether a token may do all that was asked; nothing where nothing was. What does not apply to its kind, it may not.
fn permitted(request: &Request, token: &StoredToken) -> Option<bool> {
    let scope = request.scope.as_ref().map(|needed| match token {
        StoredToken::ApiKey(key) => needed.0.iter().all(|scope| key.scopes.contains(*scope)),
        _ => false,
    });
    let project = request.project.as_ref().map(|project| match token {
        StoredToken::OrgAccess(token) => token.access_config.reaches(project.as_str()),
        _ => false,
    });
    let role = request.role.map(|least| match token {
        StoredToken::OrgAccess(token) => token.access_config.role >= least,
        _ => false,
    });
    [scope, project, role].into_iter().flatten().reduce(|all, one| all && one)
}

fn about(token: &StoredToken, org: &OrgId, permitted: Option<bool>) -> About {
    let view = PrincipalView::from(token);
    let created_at = token.created_at();
    About {
        sub: view
            .user_identifier
            .map_or_else(|| format!("{}:{}", view.kind, token.id()), |identifier| identifier.as_str().to_owned()),
        token_type: view.kind,
        id: view.id,
        org_id: org.clone(),
        scope: view.scopes.map(|scopes| scopes.iter().map(|scope| scope.as_str()).collect::<Vec<_>>().join(" ")),
        role: view.role,
        projects: view.projects,
        exp: view.expires_at.map(|expires_at| expires_at.epoch_seconds()),
        iat: created_at.epoch_seconds(),
        permitted,
    }
}
