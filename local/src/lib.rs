//! The whole service in one process, for development and tests.
//!
//! It serves the routes that the Lambda functions export, so it runs the same code as a deployment.
//! [`api`] serves them on one port, [`dynamodb`] embeds the database, [`origin`] keeps web pages away
//! from both, [`outbox`] receives mails, [`upstreams`] finds the upstream registries, [`sign_in`]
//! leads into the console, [`demo`] creates the first organization, [`schedule`] runs what EventBridge
//! would run, and `main.rs` is the command.

pub mod api;
pub mod demo;
pub mod dynamodb;
pub mod origin;
pub mod outbox;
pub mod schedule;
pub mod sign_in;
pub mod upstreams;
