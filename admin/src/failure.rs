//! Why a command failed. Each failure is one sentence: what went wrong and what to check.

use std::io;

use shared::ids::{BotId, MemberId, OrgId, TrustId};
use shared::permissions::Role;
use shared::store::StoreError;
use shared::trust::MAX_TRUSTS;

/// Why a command failed.
#[derive(Debug)]
pub enum Failure {
    /// No organization has this ID.
    NoSuchOrg(OrgId),
    /// No bot has this ID.
    NoSuchBot(BotId),
    /// The bot has no trust with this ID.
    NoSuchTrust(BotId, TrustId),
    /// A trust cannot give a role that the bot does not have.
    RoleNotHeld(BotId, Role),
    /// The API key of the bot has expired, and nothing says when the new one does.
    ExpiryMissing(BotId),
    /// The bot has as many trusts as it may have.
    TooManyTrusts(BotId),
    /// The organization has no member or invitation with this ID.
    NoSuchMember(OrgId, MemberId),
    /// This is an invitation, which has no sessions, and whose roles come with the invitation.
    OnlyInvited(OrgId, MemberId),
    /// The change would leave the organization without an owner.
    LastOwner(OrgId, MemberId),
    /// The organization already has a project with this name.
    ProjectExists(OrgId, String),
    /// The organization has no project with this name.
    NoSuchProject(OrgId, String),
    /// The organization, or nobody, has a token of this kind and ID.
    NoSuchToken(Option<OrgId>, String),
    /// The table could not be read or written.
    Store(StoreError),
    /// A change may or may not have happened. The text says where to check before repeating it.
    Change(StoreError, &'static str),
    /// The command succeeded, but its output could not be written.
    Output(io::Error),
}

impl Failure {
    /// For `map_err` after a change that must not be repeated blindly.
    pub fn of_change(where_to_look: &'static str) -> impl FnOnce(StoreError) -> Self {
        move |error| Failure::Change(error, where_to_look)
    }

    /// The message for the operator.
    pub fn sentence(&self, table: &str) -> String {
        match self {
            Failure::NoSuchOrg(org) => format!("organization {org} not found in table {table}"),
            Failure::NoSuchBot(bot) => format!("bot {bot} not found in table {table}"),
            Failure::NoSuchTrust(bot, trust) => format!("bot {bot} has no trust {trust}"),
            Failure::RoleNotHeld(bot, role) => format!(
                "bot {bot} does not have the role {}: a trust can only give roles that the bot has",
                role.as_str()
            ),
            Failure::ExpiryMissing(bot) => {
                format!("the API key of bot {bot} has expired: say with --expires-at when the new one expires")
            }
            Failure::TooManyTrusts(bot) => {
                format!("bot {bot} has {MAX_TRUSTS} trusts, which is the limit: remove one that is not needed")
            }
            Failure::NoSuchMember(org, member) => format!("organization {org} has no member {member}"),
            Failure::OnlyInvited(org, member) => format!(
                "{member} is an invitation to organization {org} that nobody has accepted yet: to change it, invite the \
                 address again"
            ),
            Failure::LastOwner(org, member) => format!(
                "{member} is the last owner of organization {org}: give somebody else the role organization/owner first"
            ),
            Failure::ProjectExists(org, name) => format!("organization {org} already has a project named {name}"),
            Failure::NoSuchProject(org, name) => format!("organization {org} has no project named {name}"),
            Failure::NoSuchToken(Some(org), token) => format!("{token} not found in organization {org}"),
            Failure::NoSuchToken(None, token) => format!("{token} not found in table {table}"),
            Failure::Store(error) => store(*error, table),
            // If DynamoDB refused the request, nothing has changed.
            Failure::Change(StoreError::Unavailable, where_to_look) => {
                format!("{}; {where_to_look}", store(StoreError::Unavailable, table))
            }
            Failure::Change(error, _) => store(*error, table),
            Failure::Output(error) => format!(
                "the command succeeded, but its output could not be written ({error}); if it contained an API key, \
                 run `guardctl bot rotate-key` to create a new one"
            ),
        }
    }
}

fn store(error: StoreError, table: &str) -> String {
    match error {
        StoreError::Unavailable => format!(
            "DynamoDB did not respond for table {table}: check your AWS credentials, AWS_REGION and network connection; \
             for the local service, check that it is running at AWS_ENDPOINT_URL_DYNAMODB"
        ),
        StoreError::Defect | StoreError::Ended | StoreError::ExpiryMissing => format!(
            "DynamoDB rejected the request for table {table}: check that the table exists in this account and region, \
             that your AWS credentials have access to it, and that guardctl is at least as new as the service"
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
