//! The whole of guard-tokens in one process.
//!
//! The routes are those that the functions export: what runs here is what is deployed. [`api`] puts them on one port,
//! [`dynamodb`] is the table, [`outbox`] takes the mails, [`upstreams`] is where packages
//! come from, [`demo`] is the first organization, and `main.rs` the command.

pub mod api;
pub mod demo;
pub mod dynamodb;
pub mod outbox;
pub mod upstreams;
