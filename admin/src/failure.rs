//! What goes wrong, in one sentence each: what it is, and what to check.

use std::io;

use shared::ids::{BotId, OrgId};
use shared::store::StoreError;

/// Why a command was not done.
#[derive(Debug)]
pub enum Failure {
    /// No organization has this id.
    NoSuchOrg(OrgId),
    /// No bot has this id.
    NoSuchBot(BotId),
    /// The organization has a project of this name already.
    ProjectExists(OrgId, String),
    /// The organization has no project of this name.
    NoSuchProject(OrgId, String),
    /// The organization has no token of this kind and id.
    NoSuchToken(OrgId, String),
    /// The table could not answer.
    Store(StoreError),
    /// The table could not answer to a change that must not be repeated unseen; with where to look.
    Change(StoreError, &'static str),
    /// It is done, but the answer could not be written.
    Output(io::Error),
}

impl Failure {
    /// For `map_err`: a change that must not be repeated before somebody has looked whether it has happened.
    pub fn of_change(where_to_look: &'static str) -> impl FnOnce(StoreError) -> Self {
        move |error| Failure::Change(error, where_to_look)
    }

    /// What the operator is told.
    pub fn sentence(&self, table: &str) -> String {
        match self {
            Failure::NoSuchOrg(org) => format!("there is no organization {org} in the table {table}"),
            Failure::NoSuchBot(bot) => format!("there is no bot {bot} in the table {table}"),
            Failure::ProjectExists(org, name) => format!("the organization {org} already has a project {name}"),
            Failure::NoSuchProject(org, name) => format!("the organization {org} has no project {name}"),
            Failure::NoSuchToken(org, token) => format!("the organization {org} has no {token}"),
            Failure::Store(error) => store(*error, table),
            // Where DynamoDB refused, nothing has happened.
            Failure::Change(StoreError::Unavailable, where_to_look) => {
                format!("{}; {where_to_look}", store(StoreError::Unavailable, table))
            }
            Failure::Change(error, _) => store(*error, table),
            Failure::Output(error) => format!(
                "it is done, but the answer could not be written ({error}); an API key in it is lost, \
                 `guardctl bot rotate-key` makes another"
            ),
        }
    }
}

fn store(error: StoreError, table: &str) -> String {
    match error {
        StoreError::Unavailable => format!(
            "DynamoDB did not answer for the table {table}: check your AWS credentials, AWS_REGION and the network, or \
             locally that the service runs where AWS_ENDPOINT_URL_DYNAMODB says"
        ),
        StoreError::Defect => format!(
            "DynamoDB refused what was asked of the table {table}: check that it exists in this account and region, \
             that your AWS credentials may use it, and that this guardctl is as new as the service"
        ),
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Failure::Store(error)
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Failure::Output(error)
    }
}
