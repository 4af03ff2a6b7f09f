//! Who runs a command, on which table, and how it is answered.

use std::fmt::Display;

use serde::Serialize;
use shared::config::Config;
use shared::ids::{BotId, OrgId};
use shared::lambda::new_request_id;
use shared::store::Store;
use shared::store::audit::{Caller, Subject};
use shared::store::bots::StoredBot;
use shared::{App, Moment};

use crate::failure::Failure;
use crate::output;

/// One run of the command.
pub struct Operator {
    app: App,
    json: bool,
    /// For the audit log. Who ran the command, AWS knows better (CloudTrail) than the name of a shell's user would say.
    pub caller: Caller,
}

impl Operator {
    /// A run on this table, with AWS as the environment describes it.
    pub async fn new(table: &str, json: bool) -> Self {
        let app = App::from_config(Config { tokens_table: table.to_owned() }).await;
        let actor = Subject::new("operator", "guardctl");
        Self { app, json, caller: Caller { actor, source_ip: None, request_id: new_request_id() } }
    }

    /// The table.
    pub fn store(&self) -> &Store {
        self.app.store()
    }

    /// Now.
    pub fn now(&self) -> Moment {
        self.app.clock().now()
    }

    /// Refuses an organization that does not exist. One that does never ceases to: what follows may rely on it.
    pub async fn require_org(&self, id: &OrgId) -> Result<(), Failure> {
        self.store().org(id).await?.map(|_| ()).ok_or_else(|| Failure::NoSuchOrg(id.clone()))
    }

    /// Reads a bot that must exist.
    pub async fn bot(&self, id: &BotId) -> Result<StoredBot, Failure> {
        self.store().bot(id).await?.ok_or_else(|| Failure::NoSuchBot(id.clone()))
    }

    /// Answers: people by the `Display` of it, scripts by its JSON.
    pub fn answer(&self, answer: &(impl Display + Serialize)) -> Result<(), Failure> {
        Ok(output::answer(answer, self.json)?)
    }
}
