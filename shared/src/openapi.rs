//! What the descriptions of all endpoints share: the errors, each with an example.

use std::collections::BTreeMap;
use std::time::Duration;

use http::StatusCode;
use utoipa::openapi::header::HeaderBuilder;
use utoipa::openapi::schema::{AnyOf, AnyOfBuilder, ArrayItems, Object, SchemaType, Type};
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityRequirement, SecurityScheme};
use utoipa::openapi::{Content, Info, License, OpenApi, Ref, RefOr, Response, ResponseBuilder, Schema};
use utoipa::{IntoParams, IntoResponses, PartialSchema, ToSchema};

use crate::error::{ApiError, ErrorEnvelope, Problem, Unauthorized};
use crate::extract::BODY_TOO_LARGE;
use crate::principal::{Operation, Rule};

/// The tag of a group of endpoints.
pub mod tag {
    /// Org user tokens.
    pub const ORG_USER_TOKENS: &str = "Org user tokens";
    /// E-mail-verified tokens.
    pub const EMAIL_TOKENS: &str = "E-mail-verified tokens";
    /// API keys.
    pub const API_KEYS: &str = "API keys";
    /// Organization access tokens.
    pub const ORG_ACCESS_TOKENS: &str = "Organization access tokens";
    /// Where tokens are used.
    pub const TOKENS: &str = "Where tokens are used";
    /// Where packages are installed from.
    pub const REGISTRIES: &str = "Registries";
    /// The audit log.
    pub const AUDIT_LOG: &str = "Audit log";
    /// The installation log.
    pub const INSTALLATIONS: &str = "Installation log";
    /// The document itself.
    pub const DOCS: &str = "Documentation";
}

/// The name of the security scheme of bots.
const BOT: &str = "bot";

/// The name of the security scheme of API keys.
const API_KEY: &str = "api_key";

/// The name of the security scheme of e-mail-verified tokens.
const EMAIL_TOKEN: &str = "email_token";

/// The name of the security scheme of org user tokens and organization access tokens.
const ORG_TOKEN: &str = "org_token";

/// The name of the security scheme of tokens that package managers send as a password.
const REGISTRY_PASSWORD: &str = "registry_password";

/// Functions with two operations have two ids in the document: these are those that are not a function's name.
pub const SECOND: [(&str, Operation); 3] = [
    ("org-access-tokens-replace", Operation::OrgAccessTokensUpdate),
    ("registry-npm-file", Operation::RegistryNpm),
    ("registry-pypi-file", Operation::RegistryPypi),
];

/// The security schemes: name, format of the bearer token, description.
const SCHEMES: [(&str, &str, &str); 4] = [
    (
        BOT,
        "shisho_apikey_<43>:BT<ULID>",
        "A bot's API key and its id, joined by a colon. One of the roles is needed that are named with an operation.",
    ),
    (API_KEY, "tk_live_<64> or tk_test_<64>", "An API key. The scope is needed that is named with an operation."),
    (EMAIL_TOKEN, "tg_anon_<42>", "An e-mail-verified token."),
    (ORG_TOKEN, "tg_org_<42> or oat_<42>", "An org user token or an organization access token."),
];

/// The organization that a path names.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Path)]
#[expect(dead_code, reason = "only its description is used: `BotWith` reads the path")]
pub struct OrgInPath {
    /// The organization of the caller; any other is 403.
    #[param(example = "OG01KAJ8M4R2X7Z9V5T3Q1N6P8WC")]
    org_id: String,
}

/// The document of the service: what the endpoints say of themselves, with what holds for all of them.
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
        (Problem::name().into_owned(), Problem::schema()),
    ];
    ErrorEnvelope::schemas(&mut error);
    components.schemas.extend(error);
    for (name, format, description) in SCHEMES {
        let scheme = Http::builder().scheme(HttpAuthScheme::Bearer).bearer_format(format);
        components.add_security_scheme(name, SecurityScheme::Http(scheme.description(Some(description)).build()));
    }
    let password = "The user is `token` or `__token__`, the password a `tg_anon_` or `tg_org_` token.";
    let password = Http::builder().scheme(HttpAuthScheme::Basic).description(Some(password));
    components.add_security_scheme(REGISTRY_PASSWORD, SecurityScheme::Http(password.build()));
    for item in document.paths.paths.values_mut() {
        let operations = [&mut item.get, &mut item.put, &mut item.post, &mut item.delete, &mut item.patch];
        for operation in operations.into_iter().filter_map(Option::as_mut) {
            complete(operation);
        }
    }
    schemas(&mut document).for_each(mend);
    document
}

/// Every schema that nothing but the document itself contains.
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

/// Writes down what is meant where utoipa writes down what nothing fits.
fn mend(schema: &mut RefOr<Schema>) {
    let Some(schema) = in_place(schema) else { return };
    match schema {
        Schema::Object(object) => object.properties.values_mut().for_each(mend),
        Schema::Array(array) => {
            if let ArrayItems::RefOrSchema(items) = &mut array.items {
                mend(items);
            }
        }
        Schema::OneOf(one) => one.items.iter_mut().for_each(mend),
        Schema::AnyOf(any) => any.items.iter_mut().for_each(mend),
        Schema::AllOf(all) => {
            all.items.iter_mut().for_each(mend);
            match &mut all.items[..] {
                // A field that is described in place, and what the field says of itself: that it is an object, it says
                // by mistake.
                [RefOr::T(Schema::Object(field)), RefOr::T(Schema::Object(said))] if said.properties.is_empty() => {
                    field.description = said.description.take().or_else(|| field.description.take());
                    field.default = said.default.take();
                    *schema = Schema::Object(field.clone());
                }
                // Fields of which all or none are there: that none are is not null.
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

/// Adds what every operation has: its security, from the table that the guards read, and the request's id.
fn complete(operation: &mut utoipa::openapi::path::Operation) {
    let name = operation.operation_id.as_deref().unwrap_or_default();
    let second = SECOND.iter().find(|(id, _)| *id == name).map(|(_, function)| function);
    let function = second.or_else(|| Operation::ALL.iter().find(|known| known.name() == name));
    let rule = function.map(|function| function.rule());
    operation.security = rule.map(|rule| security(&rule));
    if !rule.is_some_and(|rule| rule.registry_tokens) {
        // Whatever an operation takes, it takes no unknown query parameter; the registries ignore them.
        let unknown = || response(&[&ApiError::invalid("verbose", "is not a field of this request")]).into();
        operation.responses.responses.entry("400".to_owned()).or_insert_with(unknown);
    }
    for response in operation.responses.responses.values_mut() {
        if let RefOr::T(response) = response {
            let id = HeaderBuilder::new().description(Some("The id of the request.")).build();
            response.headers.insert("x-request-id".to_owned(), id.into());
        }
    }
}

/// The credentials of which an operation needs one. What is named with a scheme, a role or a scope, is needed as well.
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
    if rule.authorizer {
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

/// A response with these errors, in one of the two forms that they have.
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
        described.push(format!("`{code}`: {error}"));
        let example = utoipa::openapi::example::ExampleBuilder::new().value(Some(example(error))).build();
        content = content.examples_from_iter([(code.to_lowercase(), example)]);
    }
    let response = ResponseBuilder::new().description(described.join(" "));
    let response = response.content(content_type, content.build());
    match errors.first() {
        Some(ApiError::RateLimited(_)) => {
            let description = "In how many seconds to call again.";
            response.header("Retry-After", HeaderBuilder::new().description(Some(description)).build())
        }
        Some(ApiError::Unauthorized(_)) => {
            response.header("WWW-Authenticate", HeaderBuilder::new().description(Some("As RFC 6750 says.")).build())
        }
        _ => response,
    }
    .build()
}

/// The envelope with this error in it.
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

/// The errors of the registries, in the form that package managers show.
#[derive(Debug)]
pub struct RegistryErrors;

impl IntoResponses for RegistryErrors {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        let errors = [
            ApiError::Unauthorized(Unauthorized::Invalid),
            ApiError::Forbidden,
            ApiError::SubscriptionRequired,
            ApiError::PackageNotFound,
            ApiError::BadGateway("The registry behind this one failed; try again."),
            ApiError::GatewayTimeout,
            ApiError::Unavailable,
            ApiError::Internal,
        ];
        let example = |error: &ApiError| serde_json::to_value(error.problem()).unwrap_or_default();
        let described = |errors: &[&ApiError]| response_as(errors, "application/problem+json", "Problem", example);
        by_status(&errors).map(|(status, errors)| (status, described(&errors).into())).collect()
    }
}

/// The errors of every call that needs a bot of an organization with Guard.
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

/// The errors of a call that may ask for more than there is or than the caller holds.
#[derive(Debug)]
pub struct PlanErrors;

impl IntoResponses for PlanErrors {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        responses(&[ApiError::Forbidden, ApiError::PlanLimitReached])
    }
}

/// The errors of a call that any credential is good for.
#[derive(Debug)]
pub struct UnauthorizedErrors;

impl IntoResponses for UnauthorizedErrors {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        responses(&[ApiError::Unauthorized(Unauthorized::Invalid), ApiError::Unavailable, ApiError::Internal])
    }
}

/// The errors of every call that needs an e-mail-verified token.
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

/// The errors of every call that anybody may make, with a JSON body that names an address.
#[derive(Debug)]
pub struct AnybodyErrors;

impl IntoResponses for AnybodyErrors {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        responses(&[
            ApiError::invalid("email", "must be an e-mail address"),
            BODY_TOO_LARGE,
            ApiError::UnsupportedMediaType,
            ApiError::RateLimited(Duration::from_secs(30)),
            ApiError::Unavailable,
            ApiError::Internal,
        ])
    }
}

/// The errors of a call with an address and a code.
#[derive(Debug)]
pub struct ResetErrors;

impl IntoResponses for ResetErrors {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        let mut all = AnybodyErrors::responses();
        let bad = [ApiError::invalid("email", "must be an e-mail address"), ApiError::InvalidResetCode];
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

/// The errors of every call with query parameters.
#[derive(Debug)]
pub struct QueryErrors;

impl IntoResponses for QueryErrors {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        responses(&[ApiError::invalid("limit", "must be a number from 1 to 100")])
    }
}

/// The error of a call that names a token.
#[derive(Debug)]
pub struct TokenErrors;

impl IntoResponses for TokenErrors {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        responses(&[ApiError::TokenNotFound])
    }
}

/// The error of a call that can lose a race.
#[derive(Debug)]
pub struct ConflictErrors;

impl IntoResponses for ConflictErrors {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        responses(&[ApiError::Conflict(
            "Another number of tokens is active than `expected_count` says; none was revoked.",
        )])
    }
}
