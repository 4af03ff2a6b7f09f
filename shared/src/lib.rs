//! The common crate of guard-tokens: everything that several functions share.
//!
//! # Layout
//!
//! | module | holds |
//! |---|---|
//! | [`secret`] | tokens: generate, parse, checksum, hash, mask |
//! | [`ids`], [`domain`], [`email`], [`clock`] | the domain types, validated on construction |
//! | [`permissions`] | which roles, scopes and kinds of token may perform which operation |
//! | [`principal`] | the authenticated caller |
//! | [`auth`] | the guards: extractors that authenticate the caller and check permissions |
//! | [`store`] | the tables: keys, items, state transitions; the only code that uses DynamoDB |
//! | [`error`] | all errors, and the only code that renders them |
//! | [`extract`], [`accept`], [`cursor`] | request bodies, queries, content negotiation, cursors |
//! | [`observe`], [`lambda`] | request IDs, log lines and common headers; the Lambda runtime |
//! | `registry` (feature) | shared parts of the registries: guard, upstreams, metadata, downloads |
//! | `mail` (feature) | the mails, and the only code that uses SES |
//! | [`cost`] | DynamoDB capacity units, counted per request |
//! | [`openapi`], [`views`], [`org_access_token_request`] | the API description and shared types |
//! | [`app`], [`aws`], [`config`] | created once per process: state, clients, settings |

pub mod accept;
pub mod app;
pub mod auth;
pub mod aws;
pub mod clock;
pub mod config;
pub mod cost;
pub mod cursor;
pub mod domain;
pub mod email;
pub mod error;
pub mod extract;
pub mod ids;
pub mod lambda;
#[cfg(feature = "mail")]
pub mod mail;
pub mod observe;
pub mod openapi;
pub mod org_access_token_request;
pub mod permissions;
pub mod principal;
#[cfg(feature = "registry")]
pub mod registry;
pub mod secret;
pub mod store;
pub mod views;

pub use app::{App, InstallationsApp};
pub use auth::{BotWith, EmailHolder, ManagerWith, RateLimitedCaller};
pub use clock::{Clock, Moment};
pub use error::ApiError;
pub use extract::{FormOrJson, Json, Limit, NoContent, NoQuery, PathParams, Query};
#[cfg(feature = "registry")]
pub use lambda::serve_registry;
#[cfg(feature = "mail")]
pub use lambda::serve_with_mail;
pub use lambda::{
    RuntimeResult, serve, serve_authorizer, serve_schedule, serve_stateless, serve_with_installation_log,
};
#[cfg(feature = "mail")]
pub use mail::MailApp;
#[cfg(feature = "registry")]
pub use registry::{RegistryApp, RegistryUser};
