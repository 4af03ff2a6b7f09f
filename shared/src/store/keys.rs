//! Every key of the tokens table. No other module spells one.
//!
//! # Access patterns
//!
//! | what is asked | how | cost |
//! |---|---|---|
//! | does this token count? | `GetItem` [`token`], strongly consistent | 1 unit |
//! | does this bot credential count? | `GetItem` [`bot`], strongly consistent | 1 unit |
//! | has this organization Guard? | `GetItem` [`org`], beside the one above | 1 unit |
//! | which token has this id? | `GetItem` [`org_user_token_by_id`] | 1 unit |
//! | org user tokens by state, identifier and age | `Query` [`org_user_tokens_in`], then `BatchGetItem` [`token`] | the page |
//! | which active tokens have expired since? | `Query` [`org_user_token_expiries`] up to now | what is due |
//! | API keys by state, environment and age | `Query` [`api_keys_in`], then `BatchGetItem` [`token`] | the page |
//! | how many API keys are active? | `GetItem` [`api_key_count`] | 1 unit |
//! | an organization's access tokens | `Query` [`org_access_tokens`], then `BatchGetItem` [`token`] | the list |
//! | is this name taken? | a condition on [`org_access_token_name`] | part of the write |
//! | an organization's bots and projects | `Query` [`org_bots`], [`org_projects`] | the page |
//! | all organizations (`guardctl` alone) | `Query` [`ORGS`] | the page |
//! | the audit log, newest first | `Query` [`audit_log`] | the page |
//! | has this address a key, which mails did it get? | two `GetItem` [`address`], [`address_mails`] | 2 units |
//! | how often did this network call this minute? | `UpdateItem` [`calls_from`] | 1 unit |
//! | what was a token used for? | `Query` [`usage`] | 31 small items |
//! | a download is counted | two `UpdateItem` [`usage_on`], the day and [`USAGE_TOTAL`] | 2 units |
//!
//! # Where a token stands
//!
//! The item at [`token`] is the truth about a token, and the only thing a use of it reads. Everything else is a
//! pointer to it, written in the same transaction:
//!
//! - one under its id, for management;
//! - one in the listing of its [`TokenState`]. An identifier cannot contain `#`, so `alice#…` is found without
//!   `alice2#…`, and `alice` sorts before `alice2`;
//! - while it is active and has an expiry, one in the order of expiries. A listing first moves what is due from
//!   *active* to *expired*, each token once in its life: so neither listing ever pages over the other's tokens.
//!
//! # Tenancy
//!
//! What a caller searches by name or id lies in partitions that begin with the organization of the caller's credential,
//! never with one that the request names; what is found by a token's hash says whose it is, and is compared. A `#` cannot be smuggled in: ids, hashes and identifiers have none.

use crate::clock::Moment;
use crate::domain::{Environment, Name, TokenState, UserIdentifier};
use crate::email::AddressHash;
use crate::ids::{AuditId, BotId, OrgId, TokenId};
use crate::secret::TokenHash;
use crate::store::audit::Log;

/// The name of the partition key.
pub const PK: &str = "pk";
/// The name of the sort key.
pub const SK: &str = "sk";
/// The name of the attribute that DynamoDB's time to live looks at, in seconds since 1970.
pub const TTL: &str = "ttl";
/// The index of audit entries by actor, and its partition key. Its sort key is [`SK`].
pub const AUDIT_BY_ACTOR: (&str, &str) = ("audit_by_actor", "actor_pk");
/// The index of audit entries by action, and its partition key. Its sort key is [`SK`].
pub const AUDIT_BY_ACTION: (&str, &str) = ("audit_by_action", "action_pk");
/// The index of audit entries by target, and its partition key. Its sort key is [`SK`].
pub const AUDIT_BY_TARGET: (&str, &str) = ("audit_by_target", "target_pk");
/// The index of audit entries by actor and action, and its partition key. Its sort key is [`SK`].
pub const AUDIT_BY_ACTOR_AND_ACTION: (&str, &str) = ("audit_by_actor_and_action", "actor_action_pk");

/// The partition that names all organizations, by id.
pub const ORGS: &str = "ORGS";

/// Where an item lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    /// The partition.
    pub pk: String,
    /// The place in the partition.
    pub sk: String,
}

fn key(pk: impl Into<String>, sk: impl Into<String>) -> Key {
    Key { pk: pk.into(), sk: sk.into() }
}

/// A token of any kind: the truth about it.
pub fn token(hash: TokenHash) -> Key {
    key(format!("TOKEN#{}", hash.to_hex()), "TOKEN")
}

/// A bot, with the hashes of its API keys.
pub fn bot(bot: &BotId) -> Key {
    key(format!("BOT#{bot}"), "BOT")
}

/// An organization.
pub fn org(org: &OrgId) -> Key {
    key(format!("ORG#{org}"), "ORG")
}

/// An organization's name in the directory of all.
pub fn org_in_directory(org: &OrgId) -> Key {
    key(ORGS, org.as_str())
}

/// One of an organization's bots.
pub fn org_bot(org: &OrgId, bot: &BotId) -> Key {
    let (pk, prefix) = org_bots(org);
    key(pk, format!("{prefix}{bot}"))
}

/// An organization's bots: the partition, and what their sort keys begin with.
pub fn org_bots(org: &OrgId) -> (String, &'static str) {
    (format!("ORG#{org}"), "BOT#")
}

/// One of an organization's projects.
pub fn org_project(org: &OrgId, project: &str) -> Key {
    let (pk, prefix) = org_projects(org);
    key(pk, format!("{prefix}{project}"))
}

/// An organization's projects: the partition, and what their sort keys begin with.
pub fn org_projects(org: &OrgId) -> (String, &'static str) {
    (format!("ORG#{org}"), "PROJECT#")
}

/// An org user token under its id.
pub fn org_user_token_by_id(org: &OrgId, id: &TokenId) -> Key {
    key(format!("ORG#{org}#USER_TOKEN"), id.as_str())
}

/// The partition that lists an organization's user tokens in one state.
pub fn org_user_tokens_in(org: &OrgId, state: TokenState) -> String {
    format!("ORG#{org}#USER_TOKENS#{}", state_name(state))
}

fn state_name(state: TokenState) -> &'static str {
    match state {
        TokenState::Active => "ACTIVE",
        TokenState::Expired => "EXPIRED",
        TokenState::Revoked => "REVOKED",
    }
}

/// An org user token's place in a listing, in any state.
pub fn org_user_token_place(identifier: &UserIdentifier, id: &TokenId) -> String {
    format!("{}{id}", org_user_token_places_of(identifier))
}

/// What the places of one identifier's tokens begin with.
pub fn org_user_token_places_of(identifier: &UserIdentifier) -> String {
    format!("{}#", identifier.as_str())
}

/// An org user token in the listing of a state.
pub fn org_user_token_in(org: &OrgId, state: TokenState, identifier: &UserIdentifier, id: &TokenId) -> Key {
    key(org_user_tokens_in(org, state), org_user_token_place(identifier, id))
}

/// The partition that orders an organization's active user tokens by expiry.
pub fn org_user_token_expiries(org: &OrgId) -> String {
    format!("ORG#{org}#USER_TOKENS#EXPIRY")
}

/// An active org user token in the order of expiries.
pub fn org_user_token_expiry(org: &OrgId, expires_at: Moment, id: &TokenId) -> Key {
    key(org_user_token_expiries(org), format!("{}{id}", expiry_place(expires_at)))
}

/// What the places of tokens that expire at one moment begin with: 12 digits, good for 30,000 years, and `#`.
pub fn expiry_place(expires_at: Moment) -> String {
    format!("{:012}#", expires_at.epoch_seconds())
}

/// An API key under its id.
pub fn api_key_by_id(org: &OrgId, id: &TokenId) -> Key {
    key(format!("ORG#{org}#API_KEY"), id.as_str())
}

/// The partition that lists an organization's API keys of one state and environment, by id: so by age.
pub fn api_keys_in(org: &OrgId, state: TokenState, environment: Environment) -> String {
    let environment = match environment {
        Environment::Live => "LIVE",
        Environment::Test => "TEST",
    };
    format!("ORG#{org}#API_KEYS#{}#{environment}", state_name(state))
}

/// An API key in the listing of a state.
pub fn api_key_in(org: &OrgId, state: TokenState, environment: Environment, id: &TokenId) -> Key {
    key(api_keys_in(org, state, environment), id.as_str())
}

/// The partition that orders an organization's active API keys by expiry.
pub fn api_key_expiries(org: &OrgId) -> String {
    format!("ORG#{org}#API_KEYS#EXPIRY")
}

/// An active API key in the order of expiries.
pub fn api_key_expiry(org: &OrgId, expires_at: Moment, id: &TokenId) -> Key {
    key(api_key_expiries(org), format!("{}{id}", expiry_place(expires_at)))
}

/// How many API keys of an organization are active.
pub fn api_key_count(org: &OrgId) -> Key {
    key(format!("ORG#{org}"), "API_KEY_COUNT")
}

/// The partition that lists an organization's access tokens, by number: so by age.
pub fn org_access_tokens(org: &OrgId) -> String {
    format!("ORG#{org}#ACCESS_TOKENS")
}

/// An organization access token under its number: 20 digits, so that the order of places is that of numbers.
pub fn org_access_token(org: &OrgId, id: u64) -> Key {
    key(org_access_tokens(org), format!("{id:020}"))
}

/// An organization access token's name, which no other may have.
pub fn org_access_token_name(org: &OrgId, name: &Name) -> Key {
    key(format!("ORG#{org}#ACCESS_TOKEN_NAMES"), name.as_str())
}

/// The number of an organization's newest access token.
pub fn org_access_token_last_id(org: &OrgId) -> Key {
    key(format!("ORG#{org}"), "ACCESS_TOKEN_LAST_ID")
}

/// The partition of an audit log.
pub fn audit_log(log: &Log) -> String {
    match log {
        Log::Org(org) => format!("ORG#{org}#AUDIT"),
        Log::Address(address) => format!("EMAIL#{}#AUDIT", address.to_hex()),
    }
}

/// An entry of an audit log: ids sort by time.
pub fn audit_entry(log: &Log, id: &AuditId) -> Key {
    key(audit_log(log), id.as_str())
}

/// The partition of an audit index: whose log first, so that a value of another's cannot be reached.
pub fn audit_index(log: &Log, values: &[&str]) -> String {
    format!("{}#{}", audit_log(log), values.join("#"))
}

/// An e-mail address that has a living key.
pub fn address(address: AddressHash) -> Key {
    key(format!("EMAIL#{}", address.to_hex()), "ADDRESS")
}

/// How many mails an address was sent lately. It outlives the address's key.
pub fn address_mails(address: AddressHash) -> Key {
    key(format!("EMAIL#{}", address.to_hex()), "MAILS")
}

/// How often an address's key was changed in one hour, counted from 1970.
pub fn address_changes(address: AddressHash, hour: i64) -> Key {
    key(format!("EMAIL#{}", address.to_hex()), format!("CHANGES#{hour}"))
}

/// How many calls came from a network in one minute, counted from 1970.
pub fn calls_from(network: &str, minute: i64) -> Key {
    key(format!("CALLS#{network}"), minute.to_string())
}

/// How many mails the deployment sent in one hour, counted from 1970.
pub fn all_mails(hour: i64) -> Key {
    key("MAILS", hour.to_string())
}

/// The partition of a token's usage: one item a day, and [`USAGE_TOTAL`].
pub fn usage(token: &TokenId) -> String {
    format!("USAGE#{token}")
}

/// The place of what a token was used for on one day, as `2026-11-21`.
pub fn usage_on(token: &TokenId, day: &str) -> Key {
    key(usage(token), day)
}

/// The place of a token's total: behind all days.
pub const USAGE_TOTAL: &str = "TOTAL";
