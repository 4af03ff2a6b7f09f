//! Forms. A form is taken only with the token that a page of the same session gave it.
//!
//! The fields of a form are strings: a page parses them into domain types, and shows what was typed
//! again, with a message beside each field that is not valid.

use axum::extract::{FromRef, FromRequest, Request};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::Console;
use super::cookie::Cookie;
use crate::domain::IdempotencyKey;
use crate::error::{ApiError, Unauthorized};
use crate::extract::{PathParams, from_form, is_form, read_body, with_path};
use crate::permissions::Guarded;
use crate::secret::FormToken;
use crate::store::idempotency::Once;

/// A form that was sent.
#[derive(Debug)]
pub struct Form<T> {
    /// Its token, which is also its idempotency key.
    pub token: FormToken,
    /// Its fields.
    pub fields: T,
    path: PathParams,
    body: Vec<u8>,
}

impl<T> Form<T> {
    /// The form with a part of its fields. It stays the same request.
    pub fn map<U>(self, part: impl FnOnce(T) -> U) -> Form<U> {
        let Self { token, fields, path, body } = self;
        Form { token, fields: part(fields), path, body }
    }

    /// The form as a request of this operation, on what the path names, that is carried out once,
    /// however often it is sent.
    pub fn once<O: Guarded>(&self) -> Result<Once, ApiError> {
        let key = IdempotencyKey::try_from(self.token.as_str().to_owned()).map_err(|_| ApiError::Internal)?;
        Ok(Once::new(&key, O::OPERATION, self.path.beside_org(), &self.body))
    }
}

/// The fields of a form that is only a button.
#[derive(Debug, Deserialize)]
pub struct Nothing {}

#[derive(Deserialize)]
struct Proof {
    #[serde(default)]
    form_token: String,
}

impl<S, T> FromRequest<S> for Form<T>
where
    S: Send + Sync,
    T: DeserializeOwned,
    Console: FromRef<S>,
{
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        let secret = Cookie::Session.read(&Console::from_ref(state), request.headers());
        let secret = secret.ok_or(ApiError::Unauthorized(Unauthorized::Missing))?;
        if !is_form(request.headers()) {
            return Err(ApiError::UnsupportedMediaType);
        }
        let (path, request) = with_path(request, state).await?;
        let body = read_body(request).await?;
        let Proof { form_token } = from_form(&body, "The form is not valid.")?;
        let token = FormToken::verify(&secret, &form_token).ok_or(ApiError::ForeignForm)?;
        Ok(Self { token, fields: from_form(&body, "The form is not valid.")?, path, body })
    }
}

/// A form without a session, on the way to one. Other sites are kept out by the origin of the
/// request alone.
#[derive(Debug)]
pub struct OpenForm<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for OpenForm<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, _: &S) -> Result<Self, ApiError> {
        if !is_form(request.headers()) {
            return Err(ApiError::UnsupportedMediaType);
        }
        from_form(&read_body(request).await?, "The form is not valid.").map(Self)
    }
}

/// The errors of a form, by field.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Fields(Vec<(&'static str, String)>);

impl Fields {
    /// Parses a field. On error, remembers the message and returns `None`.
    pub fn parse<T, E: std::fmt::Display>(&mut self, field: &'static str, parsed: Result<T, E>) -> Option<T> {
        parsed.map_err(|error| self.add(field, error)).ok()
    }

    /// Adds an error.
    pub fn add(&mut self, field: &'static str, message: impl std::fmt::Display) {
        self.0.push((field, message.to_string()));
    }

    /// The first error of this field, for the template; an empty text if there is none.
    pub fn of(&self, field: &str) -> &str {
        self.0.iter().find(|(name, _)| *name == field).map_or("", |(_, message)| message)
    }

    /// Whether all fields are valid.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
