//! All keys of the tokens table. No other module builds keys.
//!
//! # Access patterns
//!
//! | question | request | cost |
//! |---|---|---|
//! | is this token active? | `GetItem` [`token`], strongly consistent | 1 unit |
//! | is there a connection to DynamoDB? (in init) | `GetItem` [`nothing`], which does not exist | half a unit |
//! | is this bot credential valid? | `GetItem` [`bot`], strongly consistent | 1 unit |
//! | until its successor is used, is this bot credential valid? | also `GetItem` [`token`] of the newer API key | 2 units |
//! | when was this bot's API key used? | `UpdateItem` [`token`], every 5 minutes and process | 1 unit |
//! | may this job still act as its bot? | `GetItem` [`bot`] and [`trust`], in parallel | 2 units |
//! | which trusts does this bot have? | `Query` [`trusts`] | the list, at most 20 |
//! | was this ID token exchanged before? | a condition on [`exchanged_id_token`] | part of the write |
//! | how many exchanges failed from this network this minute? | `UpdateItem` [`failed_exchanges_from`] | 1 unit |
//! | how many exchanges were refused for this bot this hour? | `UpdateItem` [`refused_exchanges`], [`all_refused_exchanges`] | 1 unit each |
//! | does this organization have Guard? | `GetItem` [`org`], in parallel with the one above | 1 unit |
//! | which token has this ID? | `GetItem` [`org_user_token_by_id`] | 1 unit |
//! | org user tokens by state, identifier and age | `Query` [`org_user_tokens_in`], then `BatchGetItem` [`token`] | the page |
//! | which active tokens have expired? | `Query` [`org_user_token_expiries`] up to now | the expired tokens |
//! | API keys by state, environment and age | `Query` [`api_keys_in`], then `BatchGetItem` [`token`] | the page |
//! | how many API keys are active? | `GetItem` [`api_key_count`] | 1 unit |
//! | an organization's access tokens | `Query` [`org_access_tokens`], then `BatchGetItem` [`token`] | the list |
//! | how many access tokens are there? | a condition on [`org_access_token_count`] | part of the write |
//! | is this name taken? | a condition on [`org_access_token_name`] | part of the write |
//! | an organization's bots and projects | `Query` [`org_bots`], [`org_projects`] | the page |
//! | is this session active? | `GetItem` [`session`], strongly consistent | 1 unit |
//! | is this person a member, and with which roles? | `GetItem` [`membership`], strongly consistent | 1 unit |
//! | a person's memberships, sessions | `Query` [`memberships`], [`sessions_of`] | the page |
//! | an organization's members | `Query` [`org_members`], then `BatchGetItem` [`membership`], [`invitation`] | the page |
//! | which organizations invite this address? | `Query` [`invitations`] | the page |
//! | who joined this organization with this address? | `Query` [`members_at`], then `BatchGetItem` [`membership`] | usually one |
//! | which SCIM user has this ID, this name? | `GetItem` [`scim_user`], [`scim_user_name`] | 1 unit each |
//! | what did SCIM end at this address? | `GetItem` [`scim_ended`] | 1 unit |
//! | has this person joined again since SCIM ended the membership? | `BatchGetItem` [`ended_membership`] | 1 unit each |
//! | an organization's SCIM users, and how many there are | `Query` [`scim_users`], `GetItem` [`scim_user_count`] | all up to the end of the page |
//! | is this the last owner? | a condition on [`owner_count`] | part of the write |
//! | all organizations (`guardctl`, and the run that ends unused tokens) | `Query` [`ORGS`] | the page |
//! | the audit log, newest first | `Query` [`audit_log`] | the page |
//! | does this address have a token, and how many mails did it get? | two `GetItem` [`address`], [`address_mails`] | 2 units |
//! | may this mail be sent? | `UpdateItem` per limit, [`mails`], and `GetItem` [`registration`] | 1 unit each |
//! | how many calls from this network this minute? | `UpdateItem` [`calls_from`] | 1 unit |
//! | which code was mailed for this browser and address? | `GetItem` [`sign_in_code`] | 1 unit |
//! | has this browser signed in with this address before? | `GetItem` [`signed_in_device`] | 1 unit |
//! | how many wrong sign-in codes from this network this minute? | `UpdateItem` [`wrong_codes_from`] | 1 unit |
//! | how many refusals of this principal this minute? | `UpdateItem` [`refusals_of`] | 1 unit |
//! | what was this idempotency key used for? | `GetItem` [`idempotency_key`], if one was sent | 1 unit |
//! | which email-verified token has this ID (`guardctl` only)? | `GetItem` [`email_token_by_id`], then [`address`] | 2 units |
//! | how often was a token used? | `Query` [`usage`] | 31 small items |
//! | count a download | two `UpdateItem` [`usage_on`], the day and [`USAGE_TOTAL`] | 2 units |
//! | was this token reported as leaked before? | `BatchGetItem` [`leak_mark`], or a condition on it | 1 unit |
//! | how many reports, and tokens in them, from this network this minute? | `UpdateItem` [`leak_reports_from`], [`leaked_tokens_from`] | 1 unit each |
//! | who is to be told about leaked tokens, and what? | `Query` [`LEAK_NOTICES`] | one per recipient, then the page |
//! | may this recipient be mailed about leaks in this hour? | a condition on [`leak_mail`] | part of the write |
//! | which tokens expire on this day? | `Query` [`expiries_on`] for each shard, then `BatchGetItem` [`token`] | one per shard, then what expires |
//! | was this day's work on reminders done? | `GetItem` [`reminders`] | 1 unit |
//! | was this address reminded today? | `GetItem` and `UpdateItem` [`reminded`] | 1 unit, and 2 for a mail |
//! | which organizations are to be told what happened? | `Query` [`SUBSCRIPTIONS`], then [`audit_log`] of each | one query, then what happened |
//! | how far is the run that ends unused tokens? | `GetItem` [`unused_run`] | 1 unit |
//! | which organizations end unused tokens, and which of theirs were not used? | `Query` [`ORGS`], then `BatchGetItem` [`org`]; of those that do [`org_user_tokens_in`], [`api_keys_in`] and [`org_access_tokens`], then `BatchGetItem` [`token`] | a read per organization, then the active tokens |
//! | which removed tokens are to be erased? | `Query` [`ERASURES`] up to now, then [`audit_log`] of the address | what is due |
//!
//! # Items of a token
//!
//! The item at [`token`] is the source of truth and the only item read when a token is used. All
//! other items are pointers to it, written in the same transaction:
//!
//! - one by ID, for management;
//! - one in the listing of its [`TokenState`]. An identifier cannot contain `#`, so `alice#…` never
//!   matches `alice2#…`, and `alice` sorts before `alice2`;
//! - one in the expiry order, while the token is active and has an expiry. A listing first moves
//!   expired tokens from *active* to *expired*, once per token, so a listing never pages over
//!   tokens in another state.
//!
//! # Tenancy
//!
//! Lookups by name or ID use partitions prefixed with the organization of the caller's credential,
//! never with one from the request. An item found by token hash names its organization, which is
//! then compared. IDs, hashes and identifiers cannot contain the separator `#`.

use crate::clock::Moment;
use crate::domain::{Environment, Name, OrUnknown, TokenState, UserIdentifier};
use crate::email::AddressHash;
use crate::ids::{AuditId, BotId, MemberId, OrgId, SessionId, TokenId, TrustId};
use crate::person::PersonId;
use crate::secret::TokenHash;

/// The name of the partition key.
pub const PK: &str = "pk";
/// The name of the sort key.
pub const SK: &str = "sk";
/// The name of the TTL attribute, in seconds since the Unix epoch.
pub const TTL: &str = "ttl";
/// The index of audit entries by actor, and its partition key. Its sort key is [`SK`].
pub const AUDIT_BY_ACTOR: (&str, &str) = ("audit_by_actor", "actor_pk");
/// The index of audit entries by action, and its partition key. Its sort key is [`SK`].
pub const AUDIT_BY_ACTION: (&str, &str) = ("audit_by_action", "action_pk");
/// The index of audit entries by target, and its partition key. Its sort key is [`SK`].
pub const AUDIT_BY_TARGET: (&str, &str) = ("audit_by_target", "target_pk");
/// The index of audit entries by actor and action, and its partition key. Its sort key is [`SK`].
pub const AUDIT_BY_ACTOR_AND_ACTION: (&str, &str) = ("audit_by_actor_and_action", "actor_action_pk");

/// The partition that lists all organizations by ID.
pub const ORGS: &str = "ORGS";

/// The primary key of an item.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    /// The partition.
    pub pk: String,
    /// The sort key.
    pub sk: String,
}

fn key(pk: impl Into<String>, sk: impl Into<String>) -> Key {
    Key { pk: pk.into(), sk: sk.into() }
}

/// An item that never exists.
pub fn nothing() -> Key {
    key("NOTHING", "NOTHING")
}

/// A token of any kind: its source of truth.
pub fn token(hash: TokenHash) -> Key {
    key(format!("TOKEN#{}", hash.to_hex()), "TOKEN")
}

/// A bot, with the hashes of its API keys.
pub fn bot(bot: &BotId) -> Key {
    key(format!("BOT#{bot}"), "BOT")
}

/// A trust of a bot, in the bot's partition.
pub fn trust(bot: &BotId, id: &TrustId) -> Key {
    let (pk, prefix) = trusts(bot);
    key(pk, format!("{prefix}{id}"))
}

/// The partition and sort key prefix of a bot's trusts, by age.
pub fn trusts(bot: &BotId) -> (String, &'static str) {
    (format!("BOT#{bot}"), "TRUST#")
}

/// An ID token that was exchanged. `identity` is a hash of its issuer and what identifies it there.
pub fn exchanged_id_token(identity: &str) -> Key {
    key(format!("ID_TOKEN#{identity}"), "ID_TOKEN")
}

/// The counter of failed exchanges from a network in one minute since the Unix epoch.
pub fn failed_exchanges_from(network: &str, minute: i64) -> Key {
    key(format!("EXCHANGES_FAILED#{network}"), minute.to_string())
}

/// The counter of a workload's refused exchanges for a bot in one hour since the Unix epoch.
/// `workload` is a hash.
pub fn refused_exchanges(bot: &BotId, workload: &str, hour: i64) -> Key {
    key(format!("EXCHANGES_REFUSED#{bot}"), format!("{hour}#{workload}"))
}

/// The counter of all workloads whose exchanges for a bot were refused in one hour since the Unix
/// epoch.
pub fn all_refused_exchanges(bot: &BotId, hour: i64) -> Key {
    key(format!("EXCHANGES_REFUSED#{bot}"), hour.to_string())
}

/// An organization.
pub fn org(org: &OrgId) -> Key {
    key(format!("ORG#{org}"), "ORG")
}

/// An organization in the list of all organizations.
pub fn org_in_directory(org: &OrgId) -> Key {
    key(ORGS, org.as_str())
}

/// One of an organization's bots.
pub fn org_bot(org: &OrgId, bot: &BotId) -> Key {
    let (pk, prefix) = org_bots(org);
    key(pk, format!("{prefix}{bot}"))
}

/// The partition and sort key prefix of an organization's bots.
pub fn org_bots(org: &OrgId) -> (String, &'static str) {
    (format!("ORG#{org}"), "BOT#")
}

/// One of an organization's projects.
pub fn org_project(org: &OrgId, project: &str) -> Key {
    let (pk, prefix) = org_projects(org);
    key(pk, format!("{prefix}{project}"))
}

/// The partition and sort key prefix of an organization's projects.
pub fn org_projects(org: &OrgId) -> (String, &'static str) {
    (format!("ORG#{org}"), "PROJECT#")
}

/// A session: its source of truth.
pub fn session(secret: TokenHash) -> Key {
    key(format!("SESSION#{}", secret.to_hex()), "SESSION")
}

/// What is kept about a person, whatever the session.
pub fn person(person: PersonId) -> Key {
    key(format!("PERSON#{}", person.to_hex()), "PERSON")
}

/// The pointer from a person to a session.
pub fn session_of(person: PersonId, id: &SessionId) -> Key {
    let (pk, prefix) = sessions_of(person);
    key(pk, format!("{prefix}{id}"))
}

/// The partition and sort key prefix of a person's sessions, by age.
pub fn sessions_of(person: PersonId) -> (String, &'static str) {
    (format!("PERSON#{}", person.to_hex()), "SESSION#")
}

/// A person's membership of an organization: its source of truth.
pub fn membership(person: PersonId, org: &OrgId) -> Key {
    let (pk, prefix) = memberships(person);
    key(pk, format!("{prefix}{org}"))
}

/// The partition and sort key prefix of a person's memberships.
pub fn memberships(person: PersonId) -> (String, &'static str) {
    (format!("PERSON#{}", person.to_hex()), "ORG#")
}

/// The membership of a person that SCIM ended, until the person is a member again.
pub fn ended_membership(person: PersonId, org: &OrgId) -> Key {
    key(format!("PERSON#{}", person.to_hex()), format!("SCIM_ENDED#{org}"))
}

/// The partition that lists an organization's members and invitations by ID, so by age.
pub fn org_members(org: &OrgId) -> String {
    format!("ORG#{org}#MEMBERS")
}

/// The pointer from an ID to a membership or an invitation.
pub fn org_member(org: &OrgId, id: &MemberId) -> Key {
    key(org_members(org), id.as_str())
}

/// The partition of the members of an organization who joined with this address, by any way of
/// signing in.
pub fn members_at(org: &OrgId, address: AddressHash) -> String {
    format!("ORG#{org}#MEMBERS_AT#{}", address.to_hex())
}

/// The pointer from an address to a membership.
pub fn member_at(org: &OrgId, address: AddressHash, id: &MemberId) -> Key {
    key(members_at(org, address), id.as_str())
}

/// The partition that lists an organization's SCIM users by ID, so by age.
pub fn scim_users(org: &OrgId) -> String {
    format!("ORG#{org}#SCIM_USERS")
}

/// A SCIM user.
pub fn scim_user(org: &OrgId, id: &MemberId) -> Key {
    key(scim_users(org), id.as_str())
}

/// The pointer from an address, which is a SCIM user's name, to the user.
pub fn scim_user_name(org: &OrgId, address: AddressHash) -> Key {
    key(format!("ORG#{org}#SCIM_USER_NAMES"), address.to_hex())
}

/// What SCIM ended at an address, to be brought back.
pub fn scim_ended(org: &OrgId, address: AddressHash) -> Key {
    key(format!("ORG#{org}#SCIM_ENDED"), address.to_hex())
}

/// The number of an organization's SCIM users.
pub fn scim_user_count(org: &OrgId) -> Key {
    key(format!("ORG#{org}"), "SCIM_USER_COUNT")
}

/// The counter of an organization's owners among its members.
pub fn owner_count(org: &OrgId) -> Key {
    key(format!("ORG#{org}"), "OWNER_COUNT")
}

/// The partition of an address's invitations.
pub fn invitations(address: AddressHash) -> String {
    format!("INVITED#{}", address.to_hex())
}

/// The invitation of an address to an organization.
pub fn invitation(address: AddressHash, org: &OrgId) -> Key {
    key(invitations(address), org.as_str())
}

/// The pointer from an ID to an org user token.
pub fn org_user_token_by_id(org: &OrgId, id: &TokenId) -> Key {
    key(format!("ORG#{org}#USER_TOKEN"), id.as_str())
}

/// The partition that lists an organization's user tokens in this state.
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

/// The sort key of an org user token in the listings of all states.
pub fn org_user_token_sort_key(identifier: &UserIdentifier, id: &TokenId) -> String {
    format!("{}{id}", org_user_token_sort_key_prefix(identifier))
}

/// The sort key prefix of one identifier's tokens.
pub fn org_user_token_sort_key_prefix(identifier: &UserIdentifier) -> String {
    format!("{}#", identifier.as_str())
}

/// An org user token in the listing of this state.
pub fn org_user_token_in(org: &OrgId, state: TokenState, identifier: &UserIdentifier, id: &TokenId) -> Key {
    key(org_user_tokens_in(org, state), org_user_token_sort_key(identifier, id))
}

/// The partition of an organization's active user tokens in expiry order.
pub fn org_user_token_expiries(org: &OrgId) -> String {
    format!("ORG#{org}#USER_TOKENS#EXPIRY")
}

/// An active org user token in expiry order.
pub fn org_user_token_expiry(org: &OrgId, expires_at: Moment, id: &TokenId) -> Key {
    key(org_user_token_expiries(org), format!("{}{id}", expiry_sort_key_prefix(expires_at)))
}

/// The sort key prefix of what expires or is due at this time: 12 digits, enough for 30,000 years, and
/// `#`.
pub fn expiry_sort_key_prefix(expires_at: Moment) -> String {
    format!("{:012}#", expires_at.epoch_seconds())
}

/// The pointer from an ID to an API key.
pub fn api_key_by_id(org: &OrgId, id: &TokenId) -> Key {
    key(format!("ORG#{org}#API_KEY"), id.as_str())
}

/// The partition that lists an organization's API keys in this state and environment by ID, so by
/// age.
pub fn api_keys_in(org: &OrgId, state: TokenState, environment: &OrUnknown<Environment>) -> String {
    format!("ORG#{org}#API_KEYS#{}#{}", state_name(state), environment.as_str().to_ascii_uppercase())
}

/// An API key in the listing of this state.
pub fn api_key_in(org: &OrgId, state: TokenState, environment: &OrUnknown<Environment>, id: &TokenId) -> Key {
    key(api_keys_in(org, state, environment), id.as_str())
}

/// The partition of an organization's active API keys in expiry order.
pub fn api_key_expiries(org: &OrgId) -> String {
    format!("ORG#{org}#API_KEYS#EXPIRY")
}

/// An active API key in expiry order.
pub fn api_key_expiry(org: &OrgId, expires_at: Moment, id: &TokenId) -> Key {
    key(api_key_expiries(org), format!("{}{id}", expiry_sort_key_prefix(expires_at)))
}

/// The counter of an organization's active API keys.
pub fn api_key_count(org: &OrgId) -> Key {
    key(format!("ORG#{org}"), "API_KEY_COUNT")
}

/// The partition that lists an organization's access tokens by number, so by age.
pub fn org_access_tokens(org: &OrgId) -> String {
    format!("ORG#{org}#ACCESS_TOKENS")
}

/// The pointer from a number to an organization access token. 20 digits keep the numeric order.
pub fn org_access_token(org: &OrgId, id: u64) -> Key {
    key(org_access_tokens(org), format!("{id:020}"))
}

/// The name of an organization access token, which is unique in its organization after
/// normalization.
pub fn org_access_token_name(org: &OrgId, name: &Name) -> Key {
    key(format!("ORG#{org}#ACCESS_TOKEN_NAMES"), name.normalized())
}

/// The highest number given to an organization's access tokens.
pub fn org_access_token_last_id(org: &OrgId) -> Key {
    key(format!("ORG#{org}"), "ACCESS_TOKEN_LAST_ID")
}

/// The number of an organization's access tokens.
pub fn org_access_token_count(org: &OrgId) -> Key {
    key(format!("ORG#{org}"), "ACCESS_TOKEN_COUNT")
}

/// An idempotency key that a caller has used. `hash` is the hash of the key.
pub fn idempotency_key(org: &OrgId, caller: &str, hash: &str) -> Key {
    key(format!("ORG#{org}#IDEMPOTENCY"), format!("{caller}#{hash}"))
}

/// The owner of an audit log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Log {
    /// An organization, whose auditors read the log.
    Org(OrgId),
    /// An email address, because email-verified tokens belong to no organization. Only the operator
    /// reads the log.
    Address(AddressHash),
    /// The deployment, whose settings only the operator changes and reads.
    Deployment,
}

impl From<&OrgId> for Log {
    fn from(org: &OrgId) -> Self {
        Log::Org(org.clone())
    }
}

/// The partition of an audit log.
pub fn audit_log(log: &Log) -> String {
    match log {
        Log::Org(org) => format!("ORG#{org}#AUDIT"),
        Log::Address(address) => format!("EMAIL#{}#AUDIT", address.to_hex()),
        Log::Deployment => "DEPLOYMENT#AUDIT".to_owned(),
    }
}

/// An audit log entry. IDs sort by time.
pub fn audit_entry(log: &Log, id: &AuditId) -> Key {
    key(audit_log(log), id.as_str())
}

/// The partition of an audit index. It starts with the owner of the log, so other logs are out of
/// reach.
pub fn audit_index(log: &Log, values: &[&str]) -> String {
    format!("{}#{}", audit_log(log), values.join("#"))
}

/// An email address that has a token.
pub fn address(address: AddressHash) -> Key {
    key(format!("EMAIL#{}", address.to_hex()), "ADDRESS")
}

/// The pointer from an ID to the address of an email-verified token, for the operator.
pub fn email_token_by_id(id: &TokenId) -> Key {
    key(format!("EMAIL_TOKEN#{id}"), "EMAIL_TOKEN")
}

/// The counter of mails sent to an address. It outlives the address's token.
pub fn address_mails(address: AddressHash) -> Key {
    key(format!("EMAIL#{}", address.to_hex()), "MAILS")
}

/// The counter of token changes of an address in one hour since the Unix epoch.
pub fn address_changes(address: AddressHash, hour: i64) -> Key {
    key(format!("EMAIL#{}", address.to_hex()), format!("CHANGES#{hour}"))
}

/// The counter of calls from a network in one minute since the Unix epoch.
pub fn calls_from(network: &str, minute: i64) -> Key {
    key(format!("CALLS#{network}"), minute.to_string())
}

/// The counter of a principal's refused calls in one minute since the Unix epoch.
pub fn refusals_of(principal: &str, minute: i64) -> Key {
    key(format!("REFUSED#{principal}"), minute.to_string())
}

/// The code that was mailed to an address for a sign-in from this browser.
pub fn sign_in_code(browser: TokenHash, address: AddressHash) -> Key {
    key(format!("SIGN_IN_CODE#{}", browser.to_hex()), address.to_hex())
}

/// A browser that has signed in with this address.
pub fn signed_in_device(device: TokenHash, address: AddressHash) -> Key {
    key(format!("SIGNED_IN_DEVICE#{}", device.to_hex()), address.to_hex())
}

/// The counter of reports of leaked tokens from a network in one minute since the Unix epoch.
pub fn leak_reports_from(network: &str, minute: i64) -> Key {
    key(format!("LEAK_REPORTS#{network}"), minute.to_string())
}

/// The counter of well-formed tokens in reports from a network in one minute since the Unix epoch.
pub fn leaked_tokens_from(network: &str, minute: i64) -> Key {
    key(format!("LEAKED_TOKENS#{network}"), minute.to_string())
}

/// The counter of wrong sign-in codes from a network in one minute since the Unix epoch.
pub fn wrong_codes_from(network: &str, minute: i64) -> Key {
    key(format!("WRONG_CODES#{network}"), minute.to_string())
}

/// Who registers by mail, if the operator has decided it.
pub fn registration() -> Key {
    key("DEPLOYMENT", "REGISTRATION")
}

/// What a counter of mails counts.
#[derive(Debug, Clone, Copy)]
pub enum Mails<'a> {
    /// All mails of the deployment.
    All,
    /// Mails to addresses without a token.
    New,
    /// Those that one network asked for.
    NewFrom(&'a str),
    /// Those to one mailbox.
    NewToMailbox(AddressHash),
    /// Those to one domain.
    NewToDomain(&'a str),
    /// Those to one domain that one network asked for.
    NewToDomainFrom(&'a str, &'a str),
    /// Mails to addresses with a token that one network asked for.
    RecoveryFrom(&'a str),
    /// Sign-in codes that one network asked for.
    SignInFrom(&'a str),
    /// Those to one address.
    SignInTo(AddressHash),
    /// Those to one address that one network asked for.
    SignInToFrom(AddressHash, &'a str),
    /// Those to one address that a browser asked for which has signed in with it before.
    SignInToDevice(AddressHash, TokenHash),
    /// Invitations of one organization.
    Invitations(&'a OrgId),
}

/// The counter of mails in one hour or day since the Unix epoch, such as `HOUR#490000`.
pub fn mails(of: Mails<'_>, window: &str) -> Key {
    let pk = match of {
        Mails::All => "MAILS".to_owned(),
        Mails::New => "MAILS#NEW".to_owned(),
        Mails::NewFrom(network) => format!("MAILS#NEW#FROM#{network}"),
        Mails::NewToMailbox(mailbox) => format!("MAILS#NEW#MAILBOX#{}", mailbox.to_hex()),
        Mails::NewToDomain(domain) => format!("MAILS#NEW#DOMAIN#{domain}"),
        Mails::NewToDomainFrom(domain, network) => format!("MAILS#NEW#DOMAIN#{domain}#FROM#{network}"),
        Mails::RecoveryFrom(network) => format!("MAILS#RECOVERY#FROM#{network}"),
        Mails::SignInFrom(network) => format!("MAILS#SIGN_IN#FROM#{network}"),
        Mails::SignInTo(address) => format!("MAILS#SIGN_IN#TO#{}", address.to_hex()),
        Mails::SignInToFrom(address, network) => format!("MAILS#SIGN_IN#TO#{}#FROM#{network}", address.to_hex()),
        Mails::SignInToDevice(address, device) => {
            format!("MAILS#SIGN_IN#TO#{}#DEVICE#{}", address.to_hex(), device.to_hex())
        }
        Mails::Invitations(org) => format!("MAILS#INVITATION#{org}"),
    };
    key(pk, window)
}

/// The partition of the erasures that removed email-verified tokens have left to do, in the order in
/// which they are due. One partition suffices: each token has cost a mail before.
pub const ERASURES: &str = "ERASURES";

/// The erasure of what a removed email-verified token has left, due at this time.
pub fn erasure(due_at: Moment, token: &TokenId) -> Key {
    key(ERASURES, format!("{}{token}", expiry_sort_key_prefix(due_at)))
}

/// The partition of the notices about leaked tokens that are not told yet, by recipient. One partition
/// suffices: reports are limited.
pub const LEAK_NOTICES: &str = "LEAK_NOTICES";

/// The mark of a leaked token, under its hash.
pub fn leak_mark(hash: TokenHash) -> Key {
    key(format!("LEAKED#{}", hash.to_hex()), "LEAKED")
}

/// A notice about a leaked token. `id` sorts by time.
pub fn leak_notice(recipient: &str, id: &AuditId) -> Key {
    key(LEAK_NOTICES, format!("{recipient}#{id}"))
}

/// The claim to the mail about leaked tokens that a recipient gets in an hour.
pub fn leak_mail(recipient: &str) -> Key {
    key(format!("LEAK_MAIL#{recipient}"), "LEAK_MAIL")
}

/// The number of partitions of the tokens that expire on one day: many may be made for the same end.
pub const EXPIRY_SHARDS: u8 = 10;

/// A partition of the tokens of all organizations that expire on a day, such as `2026-12-21`.
pub fn expiries_on(day: &str, shard: u8) -> String {
    format!("EXPIRES#{day}#{shard}")
}

/// A token that expires on this day. Its hash decides about the shard.
pub fn expiry_on(day: &str, org: &OrgId, kind: &str, id: &str, hash: TokenHash) -> Key {
    let shard = u8::from_str_radix(&hash.to_hex()[..2], 16).unwrap_or_default() % EXPIRY_SHARDS;
    key(expiries_on(day, shard), format!("{org}#{kind}#{id}"))
}

/// How far the work on reminders is.
pub fn reminders() -> Key {
    key("REMINDERS", "REMINDERS")
}

/// How far the run that ends unused tokens is.
pub fn unused_run() -> Key {
    key("UNUSED_RUN", "UNUSED_RUN")
}

/// When an address was reminded of tokens that expire.
pub fn reminded(address: AddressHash) -> Key {
    key(format!("REMINDED#{}", address.to_hex()), "REMINDED")
}

/// The partition of the organizations that have asked to be told what happens, by ID.
pub const SUBSCRIPTIONS: &str = "SUBSCRIPTIONS";

/// What an organization has asked to be told, and how far it was told.
pub fn subscription(org: &OrgId) -> Key {
    key(SUBSCRIPTIONS, org.as_str())
}

/// The partition of a token's usage: one item a day, and [`USAGE_TOTAL`].
pub fn usage(token: &TokenId) -> String {
    format!("USAGE#{token}")
}

/// A token's usage on one day, such as `2026-11-21`.
pub fn usage_on(token: &TokenId, day: &str) -> Key {
    key(usage(token), day)
}

/// The sort key of a token's total. It sorts after all days.
pub const USAGE_TOTAL: &str = "TOTAL";
