//! One run of a command: its table, its audit identity and its output format.

use std::fmt::Display;

use serde::Serialize;
use shared::ids::{BotId, OrgId};
use shared::lambda::new_request_id;
use shared::store::Store;
use shared::store::audit::{Caller, Subject};
use shared::store::bots::StoredBot;
use shared::{App, Moment};

use crate::failure::Failure;
use crate::output;

/// One run of a command.
pub struct Operator {
    app: App,
    json: bool,
    /// The caller in the audit log. CloudTrail identifies the person better than a shell user name.
    pub caller: Caller,
}

impl Operator {
    /// Connects to this table with the AWS settings of the environment.
    pub async fn new(table: &str, json: bool) -> Self {
        let app = App::on_table(table).await;
        let actor = Subject::new("operator", "guardctl");
        Self { app, json, caller: Caller { actor, source_ip: None, request_id: new_request_id(), workload: None } }
    }

    /// The table.
    pub fn store(&self) -> &Store {
        self.app.store()
    }

    /// The current time.
    pub fn now(&self) -> Moment {
        self.app.clock().now()
    }

    /// Fails unless the organization exists. Organizations are never deleted, so one check is
    /// enough.
    pub async fn require_org(&self, id: &OrgId) -> Result<(), Failure> {
        self.store().org(id).await?.map(|_| ()).ok_or_else(|| Failure::NoSuchOrg(id.clone()))
    }

    /// Reads a bot, or fails if it does not exist.
    pub async fn bot(&self, id: &BotId) -> Result<StoredBot, Failure> {
        self.store().bot(id).await?.ok_or_else(|| Failure::NoSuchBot(id.clone()))
    }

    /// Prints the result: as text through `Display`, or as JSON with `--json`.
    pub fn answer(&self, answer: &(impl Display + Serialize)) -> Result<(), Failure> {
        Ok(output::answer(answer, self.json)?)
    }
}
