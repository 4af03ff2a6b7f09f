//! The parts of the OpenAPI document that all endpoints share: security schemes, errors and
//! examples.

use std::collections::BTreeMap;
use std::time::Duration;

use http::StatusCode;
use utoipa::openapi::header::HeaderBuilder;
use utoipa::openapi::schema::{AnyOf, AnyOfBuilder, ArrayItems, Object, SchemaType, Type};
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityRequirement, SecurityScheme};
use utoipa::openapi::{Content, Info, License, OpenApi, Ref, RefOr, Response, ResponseBuilder, Schema};
use utoipa::{IntoParams, IntoResponses, PartialSchema, ToSchema};

use crate::domain::IdempotencyKey;
use crate::error::{
    ApiError, ErrorEnvelope, ExchangeError, NOT_IN_REGISTRY, Problem, SCIM_JSON, ScimError, Unauthorized,
};
use crate::extract::{BODY_TOO_LARGE, REPORT_TOO_LARGE, SCIM_TOO_LARGE};
use crate::permissions::{Operation, Rule};
use crate::scim::LAST_OWNER;

/// The tags that group the endpoints.
pub mod tag {
    /// Org user tokens.
    pub const ORG_USER_TOKENS: &str = "Org user tokens";
    /// Email-verified tokens.
    pub const EMAIL_TOKENS: &str = "Email-verified tokens";
    /// API keys.
    pub const API_KEYS: &str = "API keys";
    /// Organization access tokens.
    pub const ORG_ACCESS_TOKENS: &str = "Organization access tokens";
    /// Bots.
    pub const BOTS: &str = "Bots";
    /// CI without stored secrets.
    pub const CI: &str = "CI";
    /// Leaked tokens, and the revocation of the caller's own.
    pub const LEAKS: &str = "Leaked tokens";
    /// Provisioning of people.
    pub const SCIM: &str = "SCIM";
    /// Introspection and whoami.
    pub const TOKENS: &str = "Token introspection";
    /// The package registries.
    pub const REGISTRIES: &str = "Registries";
    /// The audit log.
    pub const AUDIT_LOG: &str = "Audit log";
    /// The installation log.
    pub const INSTALLATIONS: &str = "Installation log";
    /// The OpenAPI document.
    pub const DOCS: &str = "Documentation";
}

/// The name of the security scheme of bots.
const BOT: &str = "bot";

/// The name of the security scheme of API keys.
const API_KEY: &str = "api_key";

/// The name of the security scheme of email-verified tokens.
const EMAIL_TOKEN: &str = "email_token";

/// The name of the security scheme of org user tokens and organization access tokens.
const ORG_TOKEN: &str = "org_token";

/// The name of the security scheme of tokens that package managers send as a Basic password.
const REGISTRY_PASSWORD: &str = "registry_password";

/// The second `operationId` of functions that have two. The first is the function's name.
pub const SECOND_OPERATIONS: [(&str, Operation); 5] = [
    ("docs-openapi-head", Operation::DocsOpenapi),
    ("org-access-tokens-replace", Operation::OrgAccessTokensUpdate),
    ("registry-npm-file", Operation::RegistryNpm),
    ("registry-pypi-file", Operation::RegistryPypi),
    ("scim-users-replace", Operation::ScimUsersUpdate),
];

/// The security schemes: name, format of the bearer token, description.
const SCHEMES: [(&str, &str, &str); 4] = [
    (
        BOT,
        "shisho_apikey_<43>:BT<ULID>",
        "A bot's API key and its id, joined by a colon. The bot needs one of the roles listed with the operation.",
    ),
    (API_KEY, "tk_live_<64> or tk_test_<64>", "An API key with the scope listed with the operation."),
    (EMAIL_TOKEN, "tg_anon_<42>", "An email-verified token."),
    (ORG_TOKEN, "tg_org_<42> or oat_<42>", "An org user token or an organization access token."),
];

/// The organization in the path.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Path)]
#[expect(dead_code, reason = "only its description is used: `BotWith` reads the path")]
pub struct OrgInPath {
    /// The caller's organization. Any other is refused with 403.
    #[param(example = "OG01KAJ8M4R2X7Z9V5T3Q1N6P8WC")]
    org_id: String,
}

/// The header of a call that creates a token.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Header)]
#[expect(dead_code, reason = "only its description is used: `JsonOnce` reads the header")]
pub struct IdempotencyKeyHeader {
    /// A value of your choice, new for each token, such as a UUID. If a response is lost, repeat the
    /// call with the same key: at most one token is created. The key is kept for 24 hours after the
    /// token was created. Until then a repeat is 409 and names the token's id. Another call with the
    /// key is 400, and so is the rotation of another token.
    #[param(rename = "Idempotency-Key", inline)]
    idempotency_key: Option<IdempotencyKey>,
}

/// Completes the document: adds the parts that all endpoints share.
pub fn document(endpoints: OpenApi) -> OpenApi {
    let mut document = endpoints;
    let mut info = Info::new("guard-tokens", env!("CARGO_PKG_VERSION"));
    info.description = Some(include_str!("openapi.md").trim().to_owned());
    info.license = Some(License::builder().name("Apache-2.0").identifier(Some("Apache-2.0")).build());
    document.info = info;
    document.servers = None;
    let components = document.components.get_or_insert_default();
    let mut error = vec![
        (ErrorEnvelope::name().into_owned(), ErrorEnvelope::schema()),
        (ExchangeError::name().into_owned(), ExchangeError::schema()),
        (Problem::name().into_owned(), Problem::schema()),
        (ScimError::name().into_owned(), ScimError::schema()),
    ];
    ErrorEnvelope::schemas(&mut error);
    components.schemas.extend(error);
    for (name, format, description) in SCHEMES {
        let scheme = Http::builder().scheme(HttpAuthScheme::Bearer).bearer_format(format);
        components.add_security_scheme(name, SecurityScheme::Http(scheme.description(Some(description)).build()));
    }
    let password = "The user name is `token` or `__token__`; the password is a `tg_anon_` or `tg_org_` token.";
    let password = Http::builder().scheme(HttpAuthScheme::Basic).description(Some(password));
    components.add_security_scheme(REGISTRY_PASSWORD, SecurityScheme::Http(password.build()));
    for item in document.paths.paths.values_mut() {
        let operations =
            [&mut item.get, &mut item.head, &mut item.put, &mut item.post, &mut item.delete, &mut item.patch];
        for operation in operations.into_iter().filter_map(Option::as_mut) {
            complete(operation);
        }
    }
    schemas(&mut document).for_each(repair);
    document
}

/// Every top-level schema of the document.
fn schemas(document: &mut OpenApi) -> impl Iterator<Item = &mut RefOr<Schema>> {
    let operations = document.paths.paths.values_mut().flat_map(|item| {
        [&mut item.get, &mut item.put, &mut item.post, &mut item.delete, &mut item.patch].into_iter().flatten()
    });
    let of_operations = operations.flat_map(|operation| {
        let parameters = operation.parameters.iter_mut().flatten().filter_map(in_place);
        let parameters = parameters.filter_map(|parameter| parameter.schema.as_mut());
        let requests =
            operation.request_body.iter_mut().filter_map(in_place).flat_map(|body| body.content.values_mut());
        let responses = operation.responses.responses.values_mut().filter_map(in_place);
        let contents = requests.chain(responses.flat_map(|response| response.content.values_mut()));
        parameters.chain(contents.filter_map(in_place).filter_map(|content| content.schema.as_mut()))
    });
    document.components.iter_mut().flat_map(|components| components.schemas.values_mut()).chain(of_operations)
}

fn in_place<T>(part: &mut RefOr<T>) -> Option<&mut T> {
    match part {
        RefOr::T(part) => Some(part),
        RefOr::Ref(_) => None,
    }
}

/// Repairs schemas that utoipa generates too strictly for any value to match.
fn repair(schema: &mut RefOr<Schema>) {
    let Some(schema) = in_place(schema) else { return };
    match schema {
        Schema::Object(object) => object.properties.values_mut().for_each(repair),
        Schema::Array(array) => {
            if let ArrayItems::RefOrSchema(items) = &mut array.items {
                repair(items);
            }
        }
        Schema::OneOf(one) => one.items.iter_mut().for_each(repair),
        Schema::AnyOf(any) => any.items.iter_mut().for_each(repair),
        Schema::AllOf(all) => {
            all.items.iter_mut().for_each(repair);
            match &mut all.items[..] {
                // An inline field with its own description: utoipa wrongly adds that it must be an
                // object.
                [RefOr::T(Schema::Object(field)), RefOr::T(Schema::Object(said))] if said.properties.is_empty() => {
                    field.description = said.description.take().or_else(|| field.description.take());
                    field.default = said.default.take();
                    *schema = Schema::Object(field.clone());
                }
                // A flattened `Option`: its fields are all present or all absent, never null.
                [optional @ RefOr::T(Schema::OneOf(_)), ..] => {
                    let RefOr::T(Schema::OneOf(one)) = optional else { return };
                    let is_null = |item: &RefOr<Schema>| match item {
                        RefOr::T(Schema::Object(object)) => object.schema_type == SchemaType::new(Type::Null),
                        _ => false,
                    };
                    let some = one.items.drain(..).filter(|item| !is_null(item));
                    let any = some.fold(AnyOf::builder(), AnyOfBuilder::item).item(Object::new());
                    *optional = Schema::AnyOf(any.build()).into();
                }
                _ => {}
            }
        }
        _ => {}
    }
}

/// Adds what every operation has: its security, from the permission table, and the request id
/// header.
fn complete(operation: &mut utoipa::openapi::path::Operation) {
    let name = operation.operation_id.as_deref().unwrap_or_default();
    let second = SECOND_OPERATIONS.iter().find(|(id, _)| *id == name).map(|(_, function)| function);
    let function = second.or_else(|| Operation::ALL.iter().find(|known| known.name() == name));
    let rule = function.map(|function| function.rule());
    operation.security = rule.map(|rule| security(&rule));
    if !rule.is_some_and(|rule| rule.registry_tokens) && operation.tags.iter().flatten().all(|tag| tag != tag::SCIM) {
        // Every operation rejects unknown query parameters, except for the registries and SCIM, which
        // ignore them.
        let unknown = || {
            response(&[&ApiError::invalid("verbose", "is not a known field or parameter; check its spelling")]).into()
        };
        operation.responses.responses.entry("400".to_owned()).or_insert_with(unknown);
    }
    for response in operation.responses.responses.values_mut() {
        if let RefOr::T(response) = response {
            let id =
                HeaderBuilder::new().description(Some("The request id. Include it when you ask for help.")).build();
            response.headers.insert("x-request-id".to_owned(), id.into());
        }
    }
}

/// The credentials that an operation accepts, each with the roles or the scope it needs.
fn security(rule: &Rule) -> Vec<SecurityRequirement> {
    let mut security = Vec::new();
    if !rule.roles.is_empty() {
        security.push(SecurityRequirement::new(BOT, rule.roles.iter().map(|role| role.as_str())));
    }
    if let Some(scope) = rule.scope {
        security.push(SecurityRequirement::new(API_KEY, [scope.as_str()]));
    }
    if rule.email_tokens {
        security.push(SecurityRequirement::new(EMAIL_TOKEN, [""; 0]));
    }
    if rule.registry_tokens {
        let schemes = [REGISTRY_PASSWORD, EMAIL_TOKEN, ORG_TOKEN];
        security.extend(schemes.map(|name| SecurityRequirement::new(name, [""; 0])));
    }
    if rule.authorizer || rule.own_token {
        security.extend(SCHEMES.map(|(name, ..)| SecurityRequirement::new(name, [""; 0])));
    }
    security
}

fn responses(errors: &[ApiError]) -> BTreeMap<String, RefOr<Response>> {
    by_status(errors).map(|(status, errors)| (status, response(&errors).into())).collect()
}

fn by_status(errors: &[ApiError]) -> impl Iterator<Item = (String, Vec<&ApiError>)> {
    let mut by_status: BTreeMap<StatusCode, Vec<&ApiError>> = BTreeMap::new();
    for error in errors {
        by_status.entry(error.status_and_code().0).or_default().push(error);
    }
    by_status.into_iter().map(|(status, errors)| (status.as_str().to_owned(), errors))
}

fn response(errors: &[&ApiError]) -> Response {
    response_as(errors, "application/json", "Error", example)
}

/// A response with these errors, as envelope or as problem details.
fn response_as(
    errors: &[&ApiError],
    content_type: &str,
    schema: &str,
    example: impl Fn(&ApiError) -> serde_json::Value,
) -> Response {
    let mut described: Vec<String> = Vec::new();
    let mut content = Content::builder().schema(Some(Ref::from_schema_name(schema)));
    for error in errors {
        let (_, code) = error.status_and_code();
        let sentence = match error {
            ApiError::Invalid(_) => {
                "A field or query parameter is missing, unknown or invalid; `details` names it.".to_owned()
            }
            error => error.to_string(),
        };
        described.push(format!("`{code}`: {sentence}"));
        let example = utoipa::openapi::example::ExampleBuilder::new().value(Some(example(error))).build();
        content = content.examples_from_iter([(code.to_lowercase(), example)]);
    }
    let response = ResponseBuilder::new().description(described.join(" "));
    let response = response.content(content_type, content.build());
    match errors.first() {
        Some(ApiError::RateLimited(_) | ApiError::UpstreamRateLimited(_)) => {
            let description = "The number of seconds to wait before the next call.";
            response.header("Retry-After", HeaderBuilder::new().description(Some(description)).build())
        }
        Some(ApiError::IssuerUnavailable(_)) => {
            let description = "The number of seconds to wait, if the issuer of the ID token cannot be asked.";
            response.header("Retry-After", HeaderBuilder::new().description(Some(description)).build())
        }
        Some(ApiError::Unauthorized(_)) => response.header(
            "WWW-Authenticate",
            HeaderBuilder::new().description(Some("The authentication challenge.")).build(),
        ),
        _ => response,
    }
    .build()
}

/// The error envelope with this error.
fn example(error: &ApiError) -> serde_json::Value {
    let (_, code) = error.status_and_code();
    let mut body = serde_json::json!({
        "error": {"code": code, "message": error.to_string(), "request_id": "01KAJ8M4R2X7Z9V5T3Q1N6P8WC"}
    });
    if let ApiError::Invalid(field) = error {
        body["error"]["details"] = serde_json::json!([field]);
    }
    body
}

/// The errors of the exchange, with the sentence also in `message`.
#[derive(Debug)]
pub struct ExchangeErrors;

impl IntoResponses for ExchangeErrors {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        let example = |error: &ApiError| {
            let body = error.exchange_error(error.status_and_code().1, "01KAJ8M4R2X7Z9V5T3Q1N6P8WC");
            serde_json::to_value(body).unwrap_or_default()
        };
        let described = |errors: &[&ApiError]| response_as(errors, "application/json", "ExchangeError", example);
        let errors = [
            ApiError::invalid("expires_in", "must be 60 to 86,400 seconds"),
            ApiError::Unauthorized(Unauthorized::IdToken),
            ApiError::NotTrusted,
            ApiError::Suspended,
            BODY_TOO_LARGE,
            ApiError::UnsupportedMediaType,
            ApiError::RateLimited(Duration::from_secs(30)),
            ApiError::IssuerUnavailable(Duration::from_secs(60)),
            ApiError::Internal,
        ];
        by_status(&errors).map(|(status, errors)| (status, described(&errors).into())).collect()
    }
}

/// The errors of every call of SCIM.
#[derive(Debug)]
pub struct ScimErrors;

impl IntoResponses for ScimErrors {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        scim_errors(&[
            ApiError::Unauthorized(Unauthorized::Invalid),
            ApiError::Forbidden,
            ApiError::Unavailable,
            ApiError::Internal,
        ])
    }
}

/// The errors of a call of SCIM with a body.
#[derive(Debug)]
pub struct ScimBodyErrors;

impl IntoResponses for ScimBodyErrors {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        scim_errors(&[
            ApiError::invalid("active", "must be true or false"),
            SCIM_TOO_LARGE,
            ApiError::UnsupportedMediaType,
        ])
    }
}

/// The errors of a call of SCIM that lists users.
#[derive(Debug)]
pub struct ScimQueryErrors;

impl IntoResponses for ScimQueryErrors {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        scim_errors(&[ApiError::InvalidFilter])
    }
}

/// The error of a call of SCIM with the ID of a user in its path.
#[derive(Debug)]
pub struct ScimUserErrors;

impl IntoResponses for ScimUserErrors {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        scim_errors(&[ApiError::UserNotFound])
    }
}

/// The errors of a call of SCIM that changes who is a member.
#[derive(Debug)]
pub struct ScimConflictErrors;

impl IntoResponses for ScimConflictErrors {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        scim_errors(&[LAST_OWNER])
    }
}

/// The errors of the call of SCIM that creates users.
#[derive(Debug)]
pub struct ScimCreateErrors;

impl IntoResponses for ScimCreateErrors {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        scim_errors(&[ApiError::UserExists, LAST_OWNER])
    }
}

/// Responses with errors of SCIM.
fn scim_errors(errors: &[ApiError]) -> BTreeMap<String, RefOr<Response>> {
    let example = |error: &ApiError| serde_json::to_value(error.scim_error()).unwrap_or_default();
    by_status(errors)
        .map(|(status, errors)| {
            // SCIM has no codes but `scimType`, so the sentences say it.
            let mut response = response_as(&errors, SCIM_JSON, "ScimError", example);
            response.description = errors.iter().map(|error| error.to_string()).collect::<Vec<_>>().join(" ");
            (status, response.into())
        })
        .collect()
}

/// The errors of the registries, as problem details.
#[derive(Debug)]
pub struct RegistryErrors;

impl IntoResponses for RegistryErrors {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        problems(&[
            NOT_IN_REGISTRY,
            ApiError::Unauthorized(Unauthorized::Invalid),
            ApiError::Forbidden,
            ApiError::SubscriptionRequired,
            ApiError::PackageNotFound,
            ApiError::UpstreamGone("The upstream registry has removed this package or file. Use another one."),
            ApiError::TooLarge("The upstream registry's metadata of this package is too large to serve."),
            ApiError::UpstreamRateLimited(Duration::from_secs(60)),
            ApiError::BadGateway("The upstream registry failed. Try again."),
            ApiError::GatewayTimeout,
            ApiError::Unavailable,
            ApiError::Internal,
        ])
    }
}

/// The errors of `npm logout`, as problem details.
#[derive(Debug)]
pub struct LogoutErrors;

impl IntoResponses for LogoutErrors {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        problems(&[
            ApiError::Unauthorized(Unauthorized::Invalid),
            ApiError::Forbidden,
            ApiError::Unavailable,
            ApiError::Internal,
        ])
    }
}

/// Responses with problem details.
fn problems(errors: &[ApiError]) -> BTreeMap<String, RefOr<Response>> {
    let example = |error: &ApiError| serde_json::to_value(error.problem()).unwrap_or_default();
    let described = |errors: &[&ApiError]| response_as(errors, "application/problem+json", "Problem", example);
    by_status(errors).map(|(status, errors)| (status, described(&errors).into())).collect()
}

/// The errors of calls that require Guard to be enabled for the bot's organization.
#[derive(Debug)]
pub struct GuardErrors;

impl IntoResponses for GuardErrors {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        responses(&[
            ApiError::Unauthorized(Unauthorized::Invalid),
            ApiError::Forbidden,
            ApiError::SubscriptionRequired,
            ApiError::Unavailable,
            ApiError::Internal,
        ])
    }
}

/// The errors of a call that may exceed the plan or the caller's own permissions.
#[derive(Debug)]
pub struct PlanErrors;

impl IntoResponses for PlanErrors {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        responses(&[ApiError::Forbidden, ApiError::PlanLimitReached])
    }
}

/// The error of a call that creates tokens and was refused too often.
#[derive(Debug)]
pub struct RefusalErrors;

impl IntoResponses for RefusalErrors {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        responses(&[ApiError::RateLimited(Duration::from_secs(30))])
    }
}

/// The error of a call that was made before with the same idempotency key.
#[derive(Debug)]
pub struct RepeatErrors;

impl IntoResponses for RepeatErrors {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        responses(&[ApiError::AlreadyMade("01KAJ8M4R2X7Z9V5T3Q1N6P8WC".to_owned())])
    }
}

/// The errors of a public report of leaked tokens.
#[derive(Debug)]
pub struct LeakReportErrors;

impl IntoResponses for LeakReportErrors {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        responses(&[
            ApiError::invalid("tokens[3].url", "must be an https URL"),
            REPORT_TOO_LARGE,
            ApiError::UnsupportedMediaType,
            ApiError::RateLimited(Duration::from_secs(30)),
            ApiError::Unavailable,
            ApiError::Internal,
        ])
    }
}

/// The errors of a signed report of leaked tokens.
#[derive(Debug)]
pub struct SignedReportErrors;

impl IntoResponses for SignedReportErrors {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        responses(&[
            ApiError::Malformed("The request body is not a JSON list of 1 to 1,000 objects with a `token` each."),
            ApiError::Unauthorized(Unauthorized::Signature),
            ApiError::NotFound,
            REPORT_TOO_LARGE,
            ApiError::Unavailable,
            ApiError::Internal,
        ])
    }
}

/// The errors of a call that accepts any credential.
#[derive(Debug)]
pub struct UnauthorizedErrors;

impl IntoResponses for UnauthorizedErrors {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        responses(&[ApiError::Unauthorized(Unauthorized::Invalid), ApiError::Unavailable, ApiError::Internal])
    }
}

/// The errors of calls that need a credential but not Guard.
#[derive(Debug)]
pub struct HolderErrors;

impl IntoResponses for HolderErrors {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        responses(&[
            ApiError::Unauthorized(Unauthorized::Invalid),
            ApiError::Forbidden,
            ApiError::Unavailable,
            ApiError::Internal,
        ])
    }
}

/// The errors of public calls with an e-mail address in the JSON body.
#[derive(Debug)]
pub struct RateLimitedErrors;

impl IntoResponses for RateLimitedErrors {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        responses(&[
            ApiError::invalid("email", "must be an e-mail address with a user and a domain"),
            BODY_TOO_LARGE,
            ApiError::UnsupportedMediaType,
            ApiError::RateLimited(Duration::from_secs(30)),
            ApiError::Unavailable,
            ApiError::Internal,
        ])
    }
}

/// The errors of the call with an e-mail address and a reset code.
#[derive(Debug)]
pub struct ResetErrors;

impl IntoResponses for ResetErrors {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        let mut all = RateLimitedErrors::responses();
        let bad = [
            ApiError::invalid("email", "must be an e-mail address with a user and a domain"),
            ApiError::InvalidResetCode,
        ];
        all.extend(responses(&bad));
        all
    }
}

/// The errors of every call with a JSON body.
#[derive(Debug)]
pub struct BodyErrors;

impl IntoResponses for BodyErrors {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        responses(&[
            ApiError::invalid("user_identifier", "must have 4 to 255 characters"),
            BODY_TOO_LARGE,
            ApiError::UnsupportedMediaType,
        ])
    }
}

/// The errors of a call that takes no body.
#[derive(Debug)]
pub struct NoFieldsErrors;

impl IntoResponses for NoFieldsErrors {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        responses(&[BODY_TOO_LARGE, ApiError::UnsupportedMediaType])
    }
}

/// The errors of every call with query parameters.
#[derive(Debug)]
pub struct QueryErrors;

impl IntoResponses for QueryErrors {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        responses(&[ApiError::invalid("limit", "must be an integer from 1 to 100")])
    }
}

/// The error of a call with a token id in its path.
#[derive(Debug)]
pub struct TokenErrors;

impl IntoResponses for TokenErrors {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        responses(&[ApiError::TokenNotFound])
    }
}

/// The error of a call with a bot's id in its path.
#[derive(Debug)]
pub struct BotErrors;

impl IntoResponses for BotErrors {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        responses(&[ApiError::BotNotFound])
    }
}

/// The error of a call that can lose a race.
#[derive(Debug)]
pub struct ConflictErrors;

impl IntoResponses for ConflictErrors {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        responses(&[ApiError::Conflict(
            "The number of active tokens differs from `expected_count`; nothing was revoked. Check with `dry_run`.",
        )])
    }
}
