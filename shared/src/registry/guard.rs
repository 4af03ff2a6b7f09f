//! The guard of the registries.

use std::marker::PhantomData;

use axum::extract::{FromRef, FromRequestParts};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use http::request::Parts;
use http::{HeaderMap, header};

use super::RegistryApp;
use super::download::{Begun, Logging, PackageFile};
use crate::app::App;
use crate::auth::{Credential, principal_of, record_use, revoke_own};
use crate::error::{ApiError, Unauthorized};
use crate::observe::Origin;
use crate::permissions::Guarded;
use crate::principal::{Holder, Principal};
use crate::store::tokens::StoredToken;

/// A caller who may use the registries: the holder of an email-verified token, or of an org user or
/// bot token if the organization has Guard. If the deployment allows it, also a caller without a token.
///
/// Checks in this order: the credential is active (else 401), is of one of these kinds (403), and
/// the organization has Guard (403). Those that are 403 update their `last_used_at`; for the others
/// [`Self::with_use_recorded`] does, around everything that answers them.
#[derive(Debug)]
pub struct RegistryUser<O> {
    /// The token and its hash. `None` for anonymous callers.
    pub holder: Option<Holder>,
    /// The origin of the request.
    pub origin: Origin,
    /// The download to be logged, if it is one.
    pub(super) logging: Option<Logging>,
    operation: PhantomData<O>,
}

impl<O: Guarded> FromRequestParts<RegistryApp> for RegistryUser<O> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &RegistryApp) -> Result<Self, ApiError> {
        let RegistryApp { app, registries, .. } = state;
        if registries.settings.anonymous_access && credential_in(&parts.headers).is_err_and(counts_as_none) {
            let origin = Origin::from_request_parts(parts, state).await?;
            return Ok(Self { holder: None, origin, logging: None, operation: PhantomData });
        }
        let RegistryHolder { holder, origin, operation } = RegistryHolder::from_request_parts(parts, state).await?;
        if let Some(org) = holder.token.org_id()
            && !registries.is_subscribed(app, org).await?
        {
            app.store().record_use(holder.hash, &holder.token).await?;
            return Err(ApiError::SubscriptionRequired);
        }
        Ok(Self { holder: Some(holder), origin, logging: None, operation })
    }
}

/// Whether no credential was sent, or by a scheme that is not supported.
fn counts_as_none(error: Unauthorized) -> bool {
    matches!(error, Unauthorized::Missing | Unauthorized::Scheme)
}

/// The holder of a token that the registries accept, whether the organization has Guard or not: for
/// revocation, which never depends on it.
///
/// Checks in this order: the credential is active (else 401), and is of one of these kinds (403, which
/// updates its `last_used_at`).
#[derive(Debug)]
pub struct RegistryHolder<O> {
    /// The token and its hash.
    pub holder: Holder,
    /// The origin of the request.
    pub origin: Origin,
    operation: PhantomData<O>,
}

impl<S, O> FromRequestParts<S> for RegistryHolder<O>
where
    S: Send + Sync,
    App: FromRef<S>,
    O: Guarded,
{
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let app = &App::from_ref(state);
        let origin = Origin::from_request_parts(parts, app).await?;
        let principal = principal_of(app, credential_in(&parts.headers)).await?;
        match principal {
            Principal::Holder(holder) if opens_registries(&holder.token) && O::OPERATION.rule().registry_tokens => {
                Ok(Self { holder: *holder, origin, operation: PhantomData })
            }
            other => {
                record_use(app, &other).await?;
                Err(ApiError::Forbidden)
            }
        }
    }
}

/// Whether tokens of this kind open the registries.
fn opens_registries(token: &StoredToken) -> bool {
    match token {
        StoredToken::Bot(_) | StoredToken::EmailVerified(_) | StoredToken::OrgUser(_) => true,
        StoredToken::ApiKey(_) | StoredToken::OrgAccess(_) => false,
    }
}

impl<O> RegistryHolder<O> {
    /// Updates the token's `last_used_at`, for a request that does not revoke it.
    ///
    /// # Errors
    ///
    /// As [`RegistryUser::with_use_recorded`].
    pub async fn record_use(&self, app: &App) -> Result<(), ApiError> {
        Ok(app.store().record_use(self.holder.hash, &self.holder.token).await?)
    }

    /// Revokes the caller's token.
    ///
    /// # Errors
    ///
    /// 401 if the token was revoked or replaced in the meantime.
    pub async fn revoke_token(self, app: &App) -> Result<(), ApiError> {
        revoke_own(app, &Principal::Holder(Box::new(self.holder)), self.origin).await
    }
}

impl<O: Guarded> RegistryUser<O> {
    /// The caller of a request, which may be for this file. The file's entry in the installation log
    /// is looked up meanwhile; nothing is written before the caller is let in.
    ///
    /// # Errors
    ///
    /// Those of the guard.
    pub async fn let_in(parts: &mut Parts, state: &RegistryApp, file: Option<&PackageFile>) -> Result<Self, ApiError> {
        let Some(begun) = file.and_then(|file| Begun::of(parts, file)) else {
            return Self::from_request_parts(parts, state).await;
        };
        let (user, logging) = begun.beside(&state.log, Self::from_request_parts(parts, state)).await?;
        Ok(Self { logging, ..user })
    }
}

impl<O> RegistryUser<O> {
    /// Runs a future and updates the token's `last_used_at` concurrently.
    ///
    /// # Errors
    ///
    /// That of the future, or 503 if this first use of a token should end the one it replaces and
    /// could not.
    pub async fn with_use_recorded<T>(
        &self,
        app: &App,
        answer: impl Future<Output = Result<T, ApiError>>,
    ) -> Result<T, ApiError> {
        let recording = async {
            match &self.holder {
                Some(holder) => app.store().record_use(holder.hash, &holder.token).await,
                None => Ok(()),
            }
        };
        let (answer, recorded) = futures::join!(answer, recording);
        recorded?;
        answer
    }
}

/// Parses the `Authorization` header of package managers: `Bearer`, or `Basic` (RFC 7617) with any
/// user name and the token as password, or with the token as user name and an empty password.
///
/// # Errors
///
/// As [`Credential::from_headers`].
pub fn credential_in(headers: &HeaderMap) -> Result<Credential, Unauthorized> {
    let value = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let (scheme, encoded) = value.split_once(' ').unwrap_or_default();
    if !scheme.eq_ignore_ascii_case("basic") {
        return Credential::from_headers(headers);
    }
    if headers.get_all(header::AUTHORIZATION).iter().count() > 1 {
        return Err(Unauthorized::Invalid);
    }
    let decoded = BASE64.decode(encoded.trim_matches(' ')).ok();
    let pair = decoded.as_ref().and_then(|decoded| str::from_utf8(decoded).ok());
    let (user, password) = pair.and_then(|pair| pair.split_once(':')).ok_or(Unauthorized::Invalid)?;
    let credential = if password.is_empty() { user } else { password };
    Credential::parse(credential).ok_or(Unauthorized::Invalid)
}
