//! The common crate of guard-tokens: everything that several functions share.
//!
//! # Layout
//!
//! | module | holds |
//! |---|---|
//! | [`secret`] | tokens: generate, parse, checksum, hash, mask |
//! | [`ids`], [`domain`], [`email`], [`clock`] | the domain types, validated on construction |
//! | [`permissions`] | which roles, scopes and kinds of token may perform which operation |
//! | [`person`] | people who sign in to the console |
//! | [`principal`] | the authenticated caller |
//! | [`auth`] | the guards: extractors that authenticate the caller and check permissions |
//! | [`store`] | the tables: keys, items, state transitions; the only code that uses DynamoDB |
//! | [`error`] | all errors, and the only code that renders them |
//! | [`extract`], [`accept`], [`cursor`] | request bodies, queries, content negotiation, cursors |
//! | [`hosts`] | the registries' own hosts |
//! | [`observe`], [`lambda`] | request IDs, log lines and common headers; the Lambda runtime |
//! | `registry` (feature) | shared parts of the registries: guard, upstreams, metadata, downloads |
//! | `console` (feature) | the console's guard, forms, layout and texts |
//! | `oidc` (feature) | OpenID Connect: issuers, their keys, ID tokens of people and of CI |
//! | `resolver` (features) | name resolution for both; internal addresses are dropped |
//! | `mail` (feature) | the mails, and the only code that uses SES |
//! | `leaks` (feature `mail`) | tells people about their leaked tokens |
//! | `notices` (feature `mail`) | tells organizations what they have asked for |
//! | `reminders` (feature `mail`) | tells people that tokens are about to expire |
//! | `secret_scanning` (feature `scanning`) | the signatures of GitHub's reports of leaked tokens |
//! | [`setup`] | the set-up of package managers |
//! | [`cost`] | DynamoDB capacity units, counted per request |
//! | [`openapi`], [`views`], [`org_access_token_request`] | the API description and shared types |
//! | [`scim`] | what identity providers send and get |
//! | [`installation_search`], [`audit_search`], [`export`] | the logs in requests and answers, CSV |
//! | [`app`], [`aws`], [`config`] | created once per process: state, clients, settings |

pub mod accept;
pub mod app;
pub mod audit_search;
pub mod auth;
pub mod aws;
pub mod clock;
pub mod config;
#[cfg(feature = "console")]
pub mod console;
#[cfg(feature = "mail")]
mod contacts;
pub mod cost;
pub mod cursor;
pub mod domain;
pub mod email;
pub mod error;
pub mod export;
pub mod extract;
pub mod hosts;
pub mod ids;
pub mod installation_search;
pub mod lambda;
#[cfg(feature = "mail")]
pub mod leaks;
#[cfg(feature = "mail")]
pub mod mail;
#[cfg(feature = "mail")]
pub mod notices;
pub mod observe;
#[cfg(feature = "oidc")]
pub mod oidc;
pub mod openapi;
pub mod org_access_token_request;
pub mod permissions;
pub mod person;
pub mod principal;
#[cfg(feature = "registry")]
pub mod registry;
#[cfg(feature = "mail")]
pub mod reminders;
#[cfg(any(feature = "oidc", feature = "registry"))]
mod resolver;
pub mod rotate_request;
pub mod scim;
pub mod secret;
#[cfg(feature = "scanning")]
pub mod secret_scanning;
pub mod setup;
pub mod store;
#[cfg(any(feature = "oidc", feature = "registry"))]
pub mod tls;
pub mod trust;
pub mod views;

pub use app::{App, InstallationsApp};
pub use auth::{BotWith, EmailHolder, LeakReporter, ManagerWith, OwnToken, RateLimitedCaller};
pub use clock::{Clock, Moment};
#[cfg(all(feature = "console", feature = "mail"))]
pub use console::ConsoleMailApp;
#[cfg(feature = "provider")]
pub use console::ConsoleProviderApp;
#[cfg(feature = "console")]
pub use console::{ConsoleApp, ConsoleInstallationsApp};
pub use error::ApiError;
pub use extract::{FormOrJson, Json, JsonOnce, Limit, NoContent, NoFields, NoQuery, PathParams, Query, ScimJson};
#[cfg(all(feature = "console", feature = "mail"))]
pub use lambda::serve_console_with_mail;
#[cfg(feature = "provider")]
pub use lambda::serve_console_with_provider;
#[cfg(feature = "registry")]
pub use lambda::serve_registry;
#[cfg(feature = "oidc")]
pub use lambda::serve_with_ci;
#[cfg(feature = "scanning")]
pub use lambda::serve_with_secret_scanning;
pub use lambda::{
    RuntimeResult, serve, serve_authorizer, serve_schedule, serve_stateless, serve_with_installation_log,
};
#[cfg(feature = "console")]
pub use lambda::{serve_console, serve_console_stateless, serve_console_with_installation_log};
#[cfg(feature = "mail")]
pub use lambda::{serve_schedule_with_mail, serve_with_mail};
#[cfg(feature = "mail")]
pub use mail::MailApp;
#[cfg(feature = "oidc")]
pub use oidc::CiApp;
#[cfg(feature = "registry")]
pub use registry::{RegistryApp, RegistryHolder, RegistryUser};
