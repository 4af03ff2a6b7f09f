//! SCIM (RFC 7643 and 7644) as identity providers speak it: what they send, and what they get.
//!
//! Attributes that this service does not keep are ignored, since providers send all that they know.
//! Names of attributes and operations are compared without case, and booleans may be text: Okta and
//! Entra ID spell them differently. What ends somebody's membership is never refused for anything
//! beside it. [`crate::store::scim_users`] says what becomes of it.

use axum::extract::FromRequestParts;
use axum::response::{IntoResponse, Response};
use http::request::Parts;
use http::{HeaderValue, header};
use serde::Serialize;
use serde_json::{Map, Value};
use utoipa::{IntoParams, ToSchema};

use crate::app::App;
use crate::auth::BotWith;
use crate::clock::Moment;
use crate::email::EmailAddress;
use crate::error::{ApiError, SCIM_JSON};
use crate::extract::PathParams;
use crate::ids::MemberId;
use crate::permissions::Guarded;
use crate::store::scim_users::{NewScimUser, Provisioned, ScimChange, ScimUpdate};

/// Where the users are.
pub const USERS: &str = "/scim/v2/Users";

/// The schema of users, which may also stand before the name of an attribute.
const USER_SCHEMA: &str = "urn:ietf:params:scim:schemas:core:2.0:User";

/// The schema of lists.
const LIST_SCHEMA: &str = "urn:ietf:params:scim:api:messages:2.0:ListResponse";

/// Users per page, at most and if the call does not say.
const MAX_PAGE: usize = 100;

/// The maximum length of an `externalId`, in characters.
const LONGEST_EXTERNAL_ID: usize = 255;

/// Attempts of a change whose bot is changed meanwhile.
pub const MAX_ATTEMPTS: usize = 8;

/// The error if a change would leave the organization without an owner.
pub(crate) const LAST_OWNER: ApiError =
    ApiError::Conflict("This person is the last owner of the organization. Make somebody else an owner first.");

/// The error if SCIM is to bring back what it did not end.
const NOT_ENDED: ApiError = ApiError::Conflict(
    "This person was removed in the organization, or did not accept an invitation in time. An owner can invite the \
     person again.",
);

/// The error if a user is to be renamed.
const RENAMED: ApiError = ApiError::Immutable(
    "The `userName` of a user does not change. Delete the user, and create one with the new `userName`.",
);

/// A user.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = ScimUser)]
pub struct ScimUserView {
    /// What this is.
    #[schema(value_type = Vec<String>, example = json!(["urn:ietf:params:scim:schemas:core:2.0:User"]))]
    schemas: [&'static str; 1],
    /// The user's id, which never changes.
    id: MemberId,
    /// The identity provider's own id of the user, if it has sent one.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 255, example = "00u1a2b3c4d5e6f7g8h9")]
    external_id: Option<String>,
    /// The user's e-mail address.
    user_name: EmailAddress,
    /// Whether the person is a member of the organization, or invited to it.
    active: bool,
    /// The same address.
    emails: [ScimEmail; 1],
    /// About the user.
    meta: ScimMeta,
}

/// An address of a user.
#[derive(Debug, Serialize, ToSchema)]
pub struct ScimEmail {
    /// The address.
    value: EmailAddress,
    /// Always `work`.
    #[serde(rename = "type")]
    #[schema(example = "work")]
    kind: &'static str,
    /// Always true.
    primary: bool,
}

/// About a user.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ScimMeta {
    /// Always `User`.
    #[schema(example = "User")]
    resource_type: &'static str,
    /// When the user was created.
    created: Moment,
    /// When the identity provider changed the user last.
    last_modified: Moment,
    /// The path of the user.
    #[schema(example = "/scim/v2/Users/MB01KAJ8M4R2X7Z9V5T3Q1N6P8WC")]
    location: String,
}

impl ScimUserView {
    /// The path of the user.
    pub fn location(&self) -> &str {
        &self.meta.location
    }
}

impl From<Provisioned> for ScimUserView {
    fn from(Provisioned { user, active }: Provisioned) -> Self {
        Self {
            schemas: [USER_SCHEMA],
            external_id: user.external_id,
            active,
            emails: [ScimEmail { value: user.email.clone(), kind: "work", primary: true }],
            user_name: user.email,
            meta: ScimMeta {
                resource_type: "User",
                created: user.created_at,
                last_modified: user.modified_at,
                location: format!("{USERS}/{}", user.id),
            },
            id: user.id,
        }
    }
}

/// A page of users.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = ScimUserList)]
pub struct ScimListView {
    /// What this is.
    #[schema(value_type = Vec<String>, example = json!(["urn:ietf:params:scim:api:messages:2.0:ListResponse"]))]
    schemas: [&'static str; 1],
    /// How many users there are on all pages.
    total_results: usize,
    /// The position of the first user of the page. The first of all is 1.
    start_index: usize,
    /// How many users the page has.
    items_per_page: usize,
    /// The users, oldest first.
    #[serde(rename = "Resources")]
    resources: Vec<ScimUserView>,
}

impl ScimListView {
    /// The view of these users, which begin after this many others.
    pub fn new(users: Vec<Provisioned>, skipped: usize, total: usize) -> Self {
        Self {
            schemas: [LIST_SCHEMA],
            total_results: total,
            start_index: skipped + 1,
            items_per_page: users.len(),
            resources: users.into_iter().map(ScimUserView::from).collect(),
        }
    }
}

/// A response body of SCIM.
#[derive(Debug)]
pub struct ScimAnswer<T>(pub T);

impl<T: Serialize> IntoResponse for ScimAnswer<T> {
    fn into_response(self) -> Response {
        let mut response = axum::Json(self.0).into_response();
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(SCIM_JSON));
        response
    }
}

/// The body of a call that creates a user, or replaces one.
#[derive(Debug, ToSchema)]
#[schema(rename_all = "camelCase")]
#[expect(dead_code, reason = "only its description is used: `new_user` and `replacement` read the body")]
pub struct ScimUserRequest {
    /// The person's e-mail address, with which the person signs in to the console. It never changes.
    user_name: EmailAddress,
    /// Whether the person is to be a member, in any spelling. If missing, true for a new user, and
    /// unchanged for another one.
    active: Option<bool>,
    /// The identity provider's own id of the user.
    #[schema(max_length = 255, example = "00u1a2b3c4d5e6f7g8h9")]
    external_id: Option<String>,
}

/// The body of a call that changes a user.
#[derive(Debug, ToSchema)]
#[expect(dead_code, reason = "only its description is used: `patch` reads the body")]
pub struct ScimPatchRequest {
    /// The changes, in their order. Invalid ones are ignored if another one sets `active` to false.
    #[schema(rename = "Operations", min_items = 1)]
    operations: Vec<ScimOperation>,
}

/// A change of a user.
#[derive(Debug, ToSchema)]
#[expect(dead_code, reason = "only its description is used: `patch` reads the body")]
pub struct ScimOperation {
    /// `add`, `replace` or `remove`, in any case.
    #[schema(example = "replace")]
    op: String,
    /// The attribute: `active`, `externalId` or `userName`. Others are ignored.
    #[schema(example = "active")]
    path: Option<String>,
    /// The attribute's value; without `path`, an object with attributes.
    value: Option<Value>,
}

/// The query of a list of users.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query, rename_all = "camelCase")]
#[expect(dead_code, reason = "only its description is used: `ScimQuery` reads the query")]
pub struct ScimListParameters {
    /// `userName eq "alice@example.com"`, in any case. There is no other filter.
    #[param(example = "userName eq \"alice@example.com\"")]
    filter: Option<String>,
    /// The position of the first user to return. The first of all is 1, as is any less.
    #[param(default = 1)]
    start_index: Option<i64>,
    /// Users per page, at most 100. Less than 0 is 0.
    #[param(default = 100)]
    count: Option<i64>,
}

/// What a list of users is asked for. Other parameters are ignored.
#[derive(Debug)]
pub struct ScimQuery {
    /// The name to look up. `Some(None)` if it is no e-mail address, which nobody has as a name.
    pub name: Option<Option<EmailAddress>>,
    /// Users before the page.
    pub skipped: usize,
    /// Users per page.
    pub limit: usize,
}

impl<S: Send + Sync> FromRequestParts<S> for ScimQuery {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        Self::parse(parts.uri.query().unwrap_or_default())
    }
}

impl ScimQuery {
    fn parse(query: &str) -> Result<Self, ApiError> {
        let parameter = |name: &'static str| {
            let mut values =
                url::form_urlencoded::parse(query.as_bytes()).filter(|(key, _)| key.eq_ignore_ascii_case(name));
            let first = values.next().map(|(_, value)| value.into_owned());
            if values.next().is_some() {
                return Err(ApiError::invalid(name, "must be given only once"));
            }
            Ok(first)
        };
        let number = |name: &'static str| {
            let number =
                |text: String| text.trim().parse::<i64>().map_err(|_| ApiError::invalid(name, "must be an integer"));
            parameter(name)?.map(number).transpose()
        };
        // Smaller numbers are read as the smallest that makes sense (RFC 7644, section 3.4.2.4).
        let start = number("startIndex")?.unwrap_or(1).max(1);
        let count = number("count")?.map_or(MAX_PAGE, |count| usize::try_from(count.max(0)).unwrap_or(MAX_PAGE));
        Ok(Self {
            name: parameter("filter")?.map(|filter| name_in(&filter)).transpose()?,
            skipped: usize::try_from(start - 1).unwrap_or(usize::MAX - 1),
            limit: count.min(MAX_PAGE),
        })
    }
}

/// The address in a filter for a name. `None` if it is no address.
fn name_in(filter: &str) -> Result<Option<EmailAddress>, ApiError> {
    let (attribute, rest) = filter.trim().split_once(char::is_whitespace).ok_or(ApiError::InvalidFilter)?;
    let (operator, value) = rest.trim_start().split_once(char::is_whitespace).ok_or(ApiError::InvalidFilter)?;
    if !is_attribute(attribute, "userName") || !operator.eq_ignore_ascii_case("eq") {
        return Err(ApiError::InvalidFilter);
    }
    let value: String = serde_json::from_str(value.trim()).map_err(|_| ApiError::InvalidFilter)?;
    // No address has a space: it was a `+` that was not encoded.
    Ok(EmailAddress::try_from(value.trim().replace(' ', "+")).ok())
}

/// Whether this names an attribute, with or without the schema of users before it.
fn is_attribute(text: &str, name: &str) -> bool {
    let short = match text.get(..USER_SCHEMA.len()) {
        Some(schema) if schema.eq_ignore_ascii_case(USER_SCHEMA) => {
            text[USER_SCHEMA.len()..].strip_prefix(':').unwrap_or_default()
        }
        _ => text,
    };
    short.eq_ignore_ascii_case(name)
}

/// The member of an object with this name, in any case. A null is none.
fn attribute<'a>(object: &'a Map<String, Value>, name: &str) -> Option<&'a Value> {
    let found = object.iter().find(|(key, _)| is_attribute(key, name));
    found.map(|(_, value)| value).filter(|value| !value.is_null())
}

/// A boolean: `true`, `"True"`, or in a list, as Entra ID sends it.
fn boolean(value: &Value) -> Option<bool> {
    match value {
        Value::Bool(value) => Some(*value),
        Value::String(text) if text.trim().eq_ignore_ascii_case("true") => Some(true),
        Value::String(text) if text.trim().eq_ignore_ascii_case("false") => Some(false),
        Value::Array(values) => match values.as_slice() {
            [Value::Object(value)] => attribute(value, "value").filter(|value| !value.is_array()).and_then(boolean),
            _ => None,
        },
        _ => None,
    }
}

/// Attributes as they were sent, and not checked yet.
#[derive(Default)]
struct Sent<'a> {
    active: Option<&'a Value>,
    name: Option<&'a Value>,
    external_id: Option<&'a Value>,
}

impl<'a> Sent<'a> {
    fn of(object: &'a Map<String, Value>) -> Self {
        let mut sent = Self::default();
        object.iter().for_each(|(name, value)| sent.set(name, value));
        sent
    }

    /// Sets an attribute. Unknown ones are ignored. After `active` false, only `active` true counts.
    fn set(&mut self, name: &str, value: &'a Value) {
        if is_attribute(name, "active") && self.leaves() && boolean(value).is_none() {
            return;
        }
        for (known, place) in
            [("active", &mut self.active), ("userName", &mut self.name), ("externalId", &mut self.external_id)]
        {
            if is_attribute(name, known) {
                *place = Some(value);
            }
        }
    }

    /// Applies an operation of a PATCH.
    fn apply(&mut self, operation: &'a Value) -> Result<(), ApiError> {
        let operation = operation.as_object().ok_or(ApiError::Malformed("Each operation must be an object."))?;
        let op = attribute(operation, "op").and_then(Value::as_str).unwrap_or_default();
        let path = match attribute(operation, "path") {
            None => None,
            Some(path) => Some(path.as_str().ok_or(ApiError::Malformed("`path` must be a text."))?),
        };
        let value = operation.iter().find(|(name, _)| name.eq_ignore_ascii_case("value")).map(|(_, value)| value);
        let is_removal = op.eq_ignore_ascii_case("remove");
        if !is_removal && !["add", "replace"].iter().any(|known| op.eq_ignore_ascii_case(known)) {
            return Err(ApiError::Malformed("`op` must be `add`, `replace` or `remove`."));
        }
        match (path, value) {
            (Some(path), _) if is_removal && is_attribute(path, "active") => {
                return Err(ApiError::Immutable("`active` cannot be removed. Replace it with `false`."));
            }
            (Some(path), _) if is_removal => self.set(path, &Value::Null),
            (Some(path), Some(value)) => self.set(path, value),
            (None, Some(Value::Object(attributes))) if !is_removal => {
                attributes.iter().for_each(|(name, value)| self.set(name, value));
            }
            _ => return Err(ApiError::Malformed("An operation must have a `path`, or an object as its `value`.")),
        }
        Ok(())
    }

    /// Whether it ends the membership. Nobody stays because of anything else that was sent.
    fn leaves(&self) -> bool {
        self.active.and_then(boolean) == Some(false)
    }

    fn active(&self) -> Result<Option<bool>, ApiError> {
        let value = self.active.filter(|value| !value.is_null());
        let invalid = || ApiError::invalid("active", "must be true or false");
        value.map(|value| boolean(value).ok_or_else(invalid)).transpose()
    }

    /// The `externalId`; `None` if it was not sent.
    fn external_id(&self) -> Result<Option<Option<String>>, ApiError> {
        let invalid = || ApiError::invalid("externalId", "must be a text of 1 to 255 characters");
        match self.external_id {
            None => Ok(None),
            Some(Value::Null) => Ok(Some(None)),
            Some(Value::String(text)) if (1..=LONGEST_EXTERNAL_ID).contains(&text.chars().count()) => {
                Ok(Some(Some(text.clone())))
            }
            Some(_) => Err(invalid()),
        }
    }

    fn update(&self) -> Result<ScimUpdate, ApiError> {
        let name = self.name.map(|name| Some(address(name)?.hash()));
        let external_id = match self.external_id() {
            Err(_) if self.leaves() => None,
            external_id => external_id?,
        };
        Ok(ScimUpdate { active: self.active()?, name, external_id })
    }
}

fn address(value: &Value) -> Option<EmailAddress> {
    EmailAddress::try_from(value.as_str()?.to_owned()).ok()
}

/// The user that this body asks to create.
///
/// # Errors
///
/// 400 if an attribute is missing or invalid.
pub fn new_user(body: &Map<String, Value>) -> Result<NewScimUser, ApiError> {
    let sent = Sent::of(body);
    let name = sent.name.filter(|name| !name.is_null()).ok_or_else(|| ApiError::invalid("userName", "is required"))?;
    let email = address(name).ok_or_else(|| ApiError::invalid("userName", "must be an e-mail address"))?;
    let external_id = sent.external_id()?.flatten();
    Ok(NewScimUser { email, external_id, active: sent.active()?.unwrap_or(true) })
}

/// The change of a user that this body, a whole user, asks for.
///
/// # Errors
///
/// 400 if an attribute is invalid.
pub fn replacement(body: &Map<String, Value>) -> Result<ScimUpdate, ApiError> {
    Sent::of(body).update()
}

/// The change of a user that this body, a list of operations, asks for.
///
/// # Errors
///
/// 400 if an operation or an attribute is invalid, unless the change ends the membership.
pub fn patch(body: &Map<String, Value>) -> Result<ScimUpdate, ApiError> {
    let operations = attribute(body, "Operations").and_then(Value::as_array);
    let operations = operations.filter(|operations| !operations.is_empty());
    let operations = operations.ok_or(ApiError::Malformed("`Operations` must be a list of at least one operation."))?;
    let mut sent = Sent::default();
    let mut wrong = None;
    for operation in operations {
        if let Err(error) = sent.apply(operation) {
            wrong.get_or_insert(error);
        }
    }
    match wrong {
        // What is wrong beside it keeps nobody who leaves.
        Some(error) if !sent.leaves() => Err(error),
        _ => sent.update(),
    }
}

/// The ID of a user in the path. An ID that cannot be one is like an unknown one.
///
/// # Errors
///
/// 404.
pub fn user_id(path: &PathParams) -> Result<MemberId, ApiError> {
    MemberId::parse(path.get("user_id")).ok_or(ApiError::UserNotFound)
}

/// What a change has come to. `None` if the bot was changed meanwhile and still may: try again.
///
/// # Errors
///
/// Why it was not done.
pub async fn settled<O: Guarded>(
    app: &App,
    caller: &mut BotWith<O>,
    change: ScimChange,
) -> Result<Option<Provisioned>, ApiError> {
    match change {
        ScimChange::Done(user) => Ok(Some(*user)),
        ScimChange::CallerChanged => caller.check_again(app).await.map(|()| None),
        ScimChange::NotFound => Err(ApiError::UserNotFound),
        ScimChange::Taken => Err(ApiError::UserExists),
        ScimChange::Renamed => Err(RENAMED),
        ScimChange::NotEnded => Err(NOT_ENDED),
        ScimChange::LastOwner => Err(LAST_OWNER),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn map(value: Value) -> Map<String, Value> {
        value.as_object().unwrap().clone()
    }

    fn active(operation: Value) -> Option<bool> {
        patch(&map(json!({"Operations": [operation]}))).unwrap().active
    }

    #[test]
    fn active_is_read_in_every_spelling_of_okta_and_entra() {
        for operation in [
            json!({"op": "replace", "value": {"active": false}}),
            json!({"op": "Replace", "path": "active", "value": "False"}),
            json!({"op": "Add", "path": "active", "value": "false"}),
            json!({"op": "replace", "path": "Active", "value": false}),
            json!({"op": "replace", "path": null, "value": {"ACTIVE": "FALSE", "displayName": "x"}}),
            json!({"op": "Replace", "path": "active", "value": [{"$ref": null, "value": "False"}]}),
            json!({"op": "replace", "path": "urn:ietf:params:scim:schemas:core:2.0:User:active", "value": false}),
        ] {
            assert_eq!(active(operation.clone()), Some(false), "{operation}");
        }
        assert_eq!(active(json!({"op": "replace", "value": {"active": "True"}})), Some(true));
        for ignored in [
            json!({"op": "replace", "path": "emails[type eq \"work\"].value", "value": "x@example.com"}),
            json!({"op": "add", "path": "urn:ietf:params:scim:schemas:extension:enterprise:2.0:User:active", "value": false}),
            json!({"op": "remove", "path": "displayName"}),
            json!({"op": "add", "value": {"inactive": true}}),
        ] {
            assert_eq!(active(ignored.clone()), None, "{ignored}");
        }
    }

    #[test]
    fn last_of_several_operations_counts() {
        let body = json!({"operations": [
            {"op": "replace", "path": "active", "value": true},
            {"op": "replace", "path": "externalId", "value": "7"},
            {"op": "replace", "value": {"active": "false"}},
        ]});
        let update = patch(&map(body)).unwrap();
        assert_eq!((update.active, update.external_id), (Some(false), Some(Some("7".to_owned()))));
    }

    #[test]
    fn invalid_operations_are_refused_except_to_somebody_who_leaves() {
        let ends = json!({"op": "replace", "value": {"active": "False"}});
        for operation in [
            json!({"op": "move", "path": "active", "value": false}),
            json!({"path": "active", "value": false}),
            json!({"op": "replace", "path": "active", "value": "no"}),
            json!({"op": "replace", "path": "active", "value": 0}),
            json!({"op": "replace", "path": "active", "value": [{"value": [{"value": "False"}]}]}),
            json!({"op": "replace", "path": 1, "value": false}),
            json!({"op": "replace", "value": false}),
            json!({"op": "remove"}),
            json!({"op": "remove", "path": "active"}),
            json!({"op": "replace", "path": "displayName"}),
            json!({"op": "add", "path": "unknown"}),
            json!("replace"),
        ] {
            let with = |others: &[&Value]| {
                let operations: Vec<&Value> = others.iter().copied().chain([&operation]).collect();
                patch(&map(json!({"Operations": operations})))
            };
            assert!(with(&[]).is_err(), "{operation}");
            assert_eq!(with(&[&ends]).unwrap().active, Some(false), "{operation}");
            let body = map(json!({"Operations": [operation, ends]}));
            assert_eq!(patch(&body).unwrap().active, Some(false), "{operation}");
            // Who is to stay after all does not leave.
            let stays = json!({"op": "replace", "path": "active", "value": true});
            assert!(with(&[&ends, &stays]).is_err(), "{operation}");
        }
        for body in [json!({}), json!({"Operations": []}), json!({"Operations": {}}), json!({"active": false})] {
            assert!(patch(&map(body.clone())).is_err(), "{body}");
        }
    }

    #[test]
    fn leaver_is_not_refused_for_other_attributes() {
        let body = |active: bool| map(json!({"active": active, "externalId": "x".repeat(256), "userName": 7}));
        let update = replacement(&body(false)).unwrap();
        assert_eq!((update.active, update.external_id), (Some(false), None));
        assert!(replacement(&body(true)).is_err());
        // Who is created stays or not: there is nobody yet.
        for external_id in [json!(7), json!("x".repeat(256))] {
            let user = json!({"userName": "a@example.com", "active": false, "externalId": external_id});
            assert!(new_user(&map(user.clone())).is_err(), "{user}");
        }
    }

    #[test]
    fn new_user_has_an_address_and_is_active_unless_it_says_otherwise() {
        let user = new_user(&map(json!({"USERNAME": "Alice@Example.com", "active": null}))).unwrap();
        assert_eq!((user.email.expose(), user.active, user.external_id), ("Alice@example.com", true, None));
        let user = new_user(&map(json!({"userName": "a@example.com", "active": "False", "externalId": "7"}))).unwrap();
        assert_eq!((user.active, user.external_id.as_deref()), (false, Some("7")));
        for body in [
            json!({}),
            json!({"userName": null}),
            json!({"userName": "alice"}),
            json!({"userName": 7}),
            json!({"userName": "a@example.com", "active": "yes"}),
            json!({"userName": "a@example.com", "externalId": ""}),
            json!({"userName": "a@example.com", "externalId": "é".repeat(256)}),
        ] {
            assert!(new_user(&map(body.clone())).is_err(), "{body}");
        }
        assert!(new_user(&map(json!({"userName": "a@example.com", "externalId": "é".repeat(255)}))).is_ok());
    }

    #[test]
    fn filter_for_a_name_is_read_as_providers_write_it() {
        let named = |query: &str| ScimQuery::parse(query).unwrap().name.unwrap().map(|name| name.expose().to_owned());
        for query in [
            "filter=userName%20eq%20%22alice%2Bnpm%40example.com%22&startIndex=1&count=100",
            "filter=userName+eq+%22alice%2Bnpm%40example.com%22",
            "filter=username+EQ+%22alice+npm@example.com%22&attributes=id",
            "Filter=urn:ietf:params:scim:schemas:core:2.0:User:userName%20eq%20%22alice%2bnpm@example.com%22",
        ] {
            assert_eq!(named(query).as_deref(), Some("alice+npm@example.com"), "{query}");
        }
        assert_eq!(named("filter=userName%20eq%20%22nobody%22"), None);
        for query in [
            "filter=",
            "filter=userName",
            "filter=userName%20eq",
            "filter=userName%20eq%20alice",
            "filter=userName%20co%20%22a%22",
            "filter=emails%20eq%20%22a@example.com%22",
            "filter=userName%20eq%20%22a@example.com%22%20or%20active%20eq%20true",
            "filter=userName%20eq%20%22a%22&filter=userName%20eq%20%22b%22",
        ] {
            assert!(ScimQuery::parse(query).is_err(), "{query}");
        }
    }

    #[test]
    fn numbers_of_a_page_are_read_leniently() {
        let page = |query: &str| ScimQuery::parse(query).map(|query| (query.skipped, query.limit)).ok();
        for (query, expected) in [
            ("", (0, 100)),
            ("startIndex=1&count=2", (0, 2)),
            ("startIndex=11&count=1000", (10, 100)),
            ("startIndex=0&count=-1", (0, 0)),
            ("startindex=-5&Count=0&x=y", (0, 0)),
        ] {
            assert_eq!(page(query), Some(expected), "{query}");
        }
        for query in ["startIndex=x", "count=", "count=1.5", "count=1&count=2", "startIndex=99999999999999999999"] {
            assert_eq!(page(query), None, "{query}");
        }
    }
}
