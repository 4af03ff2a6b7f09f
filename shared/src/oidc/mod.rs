//! OpenID Connect: who people are at the console, and what a CI job is.
//!
//! Both send an ID token, signed by an issuer that the deployment allows. One module verifies it,
//! with two policies:
//!
//! | policy | claims besides `iss`, `aud`, `exp`, `iat`, `nbf` | entry |
//! |---|---|---|
//! | people | `nonce`; `azp` where the token has several audiences | [`Client::sign_in`] |
//! | CI | `exp` at most 24 hours after `iat`; the replay ID | [`Workloads::verify`] |
//!
//! | module | holds |
//! |---|---|
//! | `issuer` | issuers, and which URLs their metadata may name |
//! | `provider` | metadata and keys of an issuer, over HTTP, cached in the process |
//! | `keys` | keys, and which one signed a token |
//! | `token` | ID tokens: form, header, signature, claims |
//! | `people`, `workloads` | the two policies |
//! | `sign_in`, `client_secret` (feature `provider`) | the provider of the console, its settings and our secret |
//!
//! Rules: `RS256` and `ES256` only; keys come from the issuer's metadata and never from a token; no
//! redirects; time comes from the [`Clock`](crate::Clock). A refusal's reason is for the log: it
//! names a claim, never its value.

#[cfg(feature = "provider")]
mod client_secret;
mod issuer;
mod keys;
mod people;
mod provider;
#[cfg(feature = "provider")]
mod sign_in;
mod token;
mod workloads;

use std::time::Duration;

#[cfg(feature = "provider")]
pub use self::client_secret::{ClientSecret, secrets_manager_at};
pub use self::issuer::{Issuer, PlainHttp};
pub use self::people::{Attempt, Callback, Client, MultiTenant, Person};
pub use self::provider::Provider;
#[cfg(feature = "scanning")]
pub(crate) use self::provider::{MAX_AGE, MIN_INTERVAL, client, json, within_timeout};
#[cfg(feature = "provider")]
pub use self::sign_in::{CALLBACK, IdentityProvider, Registration, Unusable};
pub use self::workloads::{CiApp, Unconfigured, Workload, Workloads};

/// How far clocks may differ: added to `exp`, subtracted from `nbf` and `iat`.
pub const LEEWAY: Duration = Duration::from_secs(60);

/// Why nobody is signed in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The ID token, or the callback that should lead to one, is invalid.
    #[error(transparent)]
    Invalid(#[from] Reason),
    /// The issuer cannot be asked now, so nothing is known about the ID token.
    #[error("the issuer cannot be asked; try again in {} s", retry_after.as_secs())]
    Unavailable {
        /// When to try again.
        retry_after: Duration,
    },
}

/// Why an ID token or a callback is invalid. For the log: callers are not told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Reason {
    /// Not three parts of base64url, no JSON object in them, a name that occurs twice, or too long.
    #[error("the ID token is malformed")]
    Malformed,
    /// Another kind of JWT, such as an access token.
    #[error("the header's `typ` is not `JWT`")]
    Type,
    /// `none`, HMAC, and all else but `RS256` and `ES256`.
    #[error("the header's `alg` is not RS256 or ES256")]
    Algorithm,
    /// An extension that must be understood. None is.
    #[error("the header has `crit`")]
    CriticalHeader,
    /// Another issuer than the configured one, or none of them.
    #[error("the issuer is not allowed")]
    Issuer,
    /// The issuer has no key with this `kid` for this `alg`.
    #[error("the issuer has no such key")]
    UnknownKey,
    /// Several keys could have signed it.
    #[error("more than one key of the issuer fits")]
    AmbiguousKey,
    /// The signature does not match the key.
    #[error("the signature is wrong")]
    Signature,
    /// A required claim is missing, or a claim has the wrong type.
    #[error("the claim `{0}` is missing or malformed")]
    Claim(&'static str),
    /// None of the accepted audiences.
    #[error("the audience is not accepted")]
    Audience,
    /// It was issued for another client.
    #[error("the authorized party is another client")]
    AuthorizedParty,
    /// `exp` has passed.
    #[error("the ID token has expired")]
    Expired,
    /// `nbf` has not been reached.
    #[error("the ID token is not valid yet")]
    NotYetValid,
    /// `iat` lies in the future.
    #[error("the ID token was issued in the future")]
    IssuedInTheFuture,
    /// `exp` is too long after `iat`.
    #[error("the ID token is valid for too long")]
    Lifetime,
    /// It answers another sign-in.
    #[error("the nonce is another sign-in's")]
    Nonce,
    /// The callback belongs to another sign-in.
    #[error("the state is another sign-in's")]
    State,
    /// The callback's `iss` is missing where it was announced, or is another issuer.
    #[error("the callback comes from another issuer")]
    CallbackIssuer,
    /// The person or the provider declined.
    #[error("the provider did not sign the person in")]
    Declined,
    /// The callback has no code.
    #[error("the callback has no code")]
    MissingCode,
    /// The token endpoint refused the code or the client.
    #[error("the provider refused the code or the client")]
    Code,
}
