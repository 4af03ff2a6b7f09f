//! The common crate of guard-tokens: everything that two functions share.
//!
//! # Layout
//!
//! | module | holds |
//! |---|---|
//! | [`secret`] | tokens: generate, parse, checksum, hash, mask |
//! | [`ids`], [`domain`], [`email`], [`clock`] | the words the service speaks, each checked where it enters |
//! | [`principal`] | who calls, and the one table that says what each may do |
//! | [`auth`] | the guards: extractors that name an operation |
//! | [`store`] | the table: keys, items, transitions; the only code that speaks DynamoDB |
//! | [`error`] | every error, and the only place that renders one |
//! | [`extract`], [`accept`], [`cursor`] | bodies, queries, wishes and cursors in, JSON out |
//! | [`http`], [`lambda`] | what all requests share; the runtime of every function |
//! | `registry` (feature) | what the two registries share: upstreams, metadata, the log of downloads |
//! | `mail` (feature) | the mails, and the only code that speaks SES |
//! | [`cost`] | DynamoDB's units, counted per request |
//! | [`openapi`], [`views`], [`org_access_tokens`] | what the descriptions and answers of several endpoints share |
//! | [`app`], [`config`] | what is made once per process |

pub mod accept;
pub mod app;
pub mod auth;
mod aws;
pub mod clock;
pub mod config;
pub mod cost;
pub mod cursor;
pub mod domain;
pub mod email;
pub mod error;
pub mod extract;
pub mod http;
pub mod ids;
pub mod lambda;
#[cfg(feature = "mail")]
pub mod mail;
pub mod openapi;
pub mod org_access_tokens;
pub mod principal;
#[cfg(feature = "registry")]
pub mod registry;
pub mod secret;
pub mod store;
pub mod views;

pub use app::App;
#[cfg(feature = "registry")]
pub use auth::RegistryUser;
pub use auth::{Anybody, BotWith, EmailHolder, ManagerWith};
pub use clock::{Clock, Moment};
pub use error::ApiError;
pub use extract::{FormOrJson, Json, Limit, NoContent, NoQuery, PathParams, Query};
#[cfg(feature = "registry")]
pub use lambda::serve_registry;
#[cfg(feature = "mail")]
pub use lambda::serve_with_mail;
pub use lambda::{RuntimeResult, serve, serve_authorizer, serve_stateless, serve_with_installation_log};
