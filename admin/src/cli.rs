//! Defines the command line and validates every argument. The doc comments are the help texts.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use clap::builder::{NonEmptyStringValueParser, PossibleValue, PossibleValuesParser, TypedValueParser};
use clap::error::ErrorKind;
use clap::{ArgAction, Args, CommandFactory, Parser, Subcommand, ValueEnum};
use jiff::{Span, SpanRelativeTo};
use shared::domain::{LeakPolicy, Name, Notify, Plan};
use shared::email::EmailAddress;
use shared::ids::{BotId, MemberId, OrgId, TrustId};
use shared::permissions::Role;
use shared::store::lifetimes::{Days, Limited};
use shared::store::orgs::Org;
use shared::store::registration::RegistrationPolicy;
use shared::store::rotation::MAX_OVERLAP;
use shared::trust::{InvalidTrust, NewTrust, Wanted};
use shared::{Clock, Moment};

/// Maximum overlap of two API keys. A longer one would defeat the purpose of the rotation.
const LONGEST_OVERLAP: Duration = Duration::from_secs(90 * 24 * 60 * 60);

/// The help heading of the flags that all commands accept.
const GLOBAL: &str = "Global options";

const ENVIRONMENT: &str = "\
AWS credentials and region are read from the environment or a profile, as in other AWS tools.
For an IAM Identity Center profile, run: eval \"$(aws configure export-credentials --format env)\"
For the local service, run: source .local/demo.env

Exit codes: 0 success, 1 failure (see stderr), 2 invalid command line.";

/// Manage organizations, members, bots, projects, tokens and tables of guard-tokens.
#[derive(Debug, Parser)]
#[command(name = "guardctl", version, after_help = ENVIRONMENT, propagate_version = true)]
pub struct Cli {
    /// Name of the tokens table (the stack output TokensTableName)
    // Not read in shared's config.rs, so that flag, variable and help text stay together.
    #[arg(
        long,
        env = "TOKENS_TABLE",
        hide_env_values = true,
        global = true,
        help_heading = GLOBAL,
        value_parser = NonEmptyStringValueParser::new()
    )]
    table: Option<String>,
    /// Print JSON instead of text
    #[arg(long, global = true, help_heading = GLOBAL)]
    pub json: bool,
    /// The command to run.
    #[command(subcommand)]
    pub command: Command,
}

impl Cli {
    /// The table name. clap cannot require a global flag, so this checks it after parsing.
    pub fn required_table(&self) -> Result<String, clap::Error> {
        self.table.clone().ok_or_else(|| {
            let message = "no table given: pass --table <TABLE> or set TOKENS_TABLE";
            Cli::command().error(ErrorKind::MissingRequiredArgument, message)
        })
    }

    /// Checks what clap cannot: whether a token of this kind has an organization, the number of
    /// security contacts, what a trust consists of, and how long an overlap is that a first use ends.
    pub fn check(&self) -> Result<(), clap::Error> {
        match &self.command {
            Command::Token(TokenCommand::Revoke { kind, org, .. }) => {
                match (*kind == RevokedKind::EmailToken, org.is_some()) {
                    (true, true) => {
                        let message = "an email_token belongs to no organization: leave out --org";
                        Err(Cli::command().error(ErrorKind::ArgumentConflict, message))
                    }
                    (false, false) => {
                        let message = "tokens of this kind belong to an organization: pass --org <ORG>";
                        Err(Cli::command().error(ErrorKind::MissingRequiredArgument, message))
                    }
                    _ => Ok(()),
                }
            }
            Command::Org(OrgCommand::Set { change, .. }) => {
                let contacts = change.security_contacts().unwrap_or_default();
                if !contacts.is_empty() && change.security_contacts.contains(&SecurityContact::None) {
                    let message = "--security-contact none empties the list: give no address beside it";
                    return Err(Cli::command().error(ErrorKind::ArgumentConflict, message));
                }
                if change.notify().is_some_and(|asked| !asked.is_empty()) && change.notify.contains(&Asked::None) {
                    let message = "--notify none empties the list: ask for nothing beside it";
                    return Err(Cli::command().error(ErrorKind::ArgumentConflict, message));
                }
                if contacts.len() > Org::MAX_SECURITY_CONTACTS {
                    let message = format!("at most {} security contacts are allowed", Org::MAX_SECURITY_CONTACTS);
                    return Err(Cli::command().error(ErrorKind::TooManyValues, message));
                }
                Ok(())
            }
            Command::Bot(BotCommand::RotateKey { overlap: Some(overlap), until_first_use: true, .. })
                if *overlap > MAX_OVERLAP =>
            {
                let message = "with --until-first-use an overlap must be at most 7 days";
                Err(Cli::command().error(ErrorKind::ValueValidation, message))
            }
            Command::Bot(BotCommand::Trust(TrustCommand::Add { trust, .. })) => {
                let checked = trust.checked().map(|_| ());
                checked.map_err(|message| Cli::command().error(ErrorKind::ValueValidation, message))
            }
            _ => Ok(()),
        }
    }
}

/// The top-level commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Manage organizations
    #[command(subcommand)]
    Org(OrgCommand),
    /// Manage members, the people who use an organization's console
    #[command(subcommand)]
    Member(MemberCommand),
    /// Manage bots, the credentials that manage an organization's tokens
    #[command(subcommand)]
    Bot(BotCommand),
    /// Manage projects, which organization access tokens can be restricted to
    #[command(subcommand)]
    Project(ProjectCommand),
    /// Revoke tokens without a bot
    #[command(subcommand)]
    Token(TokenCommand),
    /// Show or change who registers by mail, effective immediately. Addresses that have a token keep
    /// it and can recover it
    Registration {
        /// `open`, `closed`, domains separated by commas (without the domains below them), or
        /// `parameter` to follow the deployment's parameter again. Without it, shows the setting
        #[arg(value_parser = registration_setting)]
        setting: Option<RegistrationSetting>,
    },
    /// Show the audit log of the deployment and all organizations, oldest first
    Audit {
        /// Show entries from this time on (RFC 3339, such as 2026-11-21T10:00:00Z)
        #[arg(long, value_parser = moment)]
        since: Moment,
    },
    /// Write what this version needs of items that an earlier version stored. Run it once every
    /// function has this version. Idempotent: if it fails, run it again
    Migrate,
    /// Create tables in a DynamoDB emulator
    #[command(subcommand)]
    Table(TableCommand),
}

/// Who registers by mail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RegistrationSetting {
    /// This policy, whatever the deployment's parameter says.
    Set(RegistrationPolicy),
    /// What the deployment's parameter says.
    Parameter,
}

/// Subcommands of `org`.
#[derive(Debug, Subcommand)]
pub enum OrgCommand {
    /// Create an organization
    Create {
        /// Display name (1 to 100 characters)
        #[arg(long, value_parser = name)]
        name: String,
        /// Plan, which limits the number of active API keys to 3, 10, 20 or unlimited
        #[arg(long, value_parser = plan())]
        plan: Plan,
        /// Whether the subscription has Guard enabled
        // Without this action, clap treats a bool as a flag without a value.
        #[arg(long, action = ArgAction::Set, value_parser = on_or_off())]
        guard: bool,
    },
    /// Change settings of an organization
    Set {
        /// Organization ID (OG…)
        #[arg(value_parser = org_id)]
        org: OrgId,
        #[command(flatten)]
        change: OrgChange,
    },
    /// Suspend an organization: from its next request on it gets no new tokens, and within a minute
    /// its tokens do not open the registries. Listing, probing and revoking go on
    Suspend {
        /// Organization ID (OG…)
        #[arg(value_parser = org_id)]
        org: OrgId,
    },
    /// Resume a suspended organization
    Resume {
        /// Organization ID (OG…)
        #[arg(value_parser = org_id)]
        org: OrgId,
    },
    /// Show an organization
    Show {
        /// Organization ID (OG…)
        #[arg(value_parser = org_id)]
        org: OrgId,
    },
    /// List all organizations, oldest first
    List,
}

/// Changes to an organization. At least one is required.
#[derive(Debug, Args)]
#[group(required = true, multiple = true)]
pub struct OrgChange {
    /// New plan. After a downgrade, existing API keys stay active and new ones are refused
    #[arg(long, value_parser = plan())]
    pub plan: Option<Plan>,
    /// Whether the subscription has Guard enabled
    #[arg(long, value_parser = on_or_off())]
    pub guard: Option<bool>,
    /// E-mail address that is told about leaked tokens. Repeatable, at most 10; replaces the list.
    /// `none` empties it
    #[arg(long = "security-contact", value_name = "MAIL", value_parser = security_contact)]
    security_contacts: Vec<SecurityContact>,
    /// Whether a leaked token is revoked, or its security contacts are only told
    #[arg(long, value_parser = leak_policy())]
    pub leaked: Option<LeakPolicy>,
    /// Longest lifetime of a kind of token, counted from its creation: `org_user_token`, `api_key` or
    /// `org_access_token` with a number of days, or `none`. Repeatable. Existing tokens stay as they are
    #[arg(long = "max-lifetime-days", value_name = "KIND=DAYS", value_parser = max_lifetime)]
    max_lifetimes: Vec<(Limited, Limit)>,
    /// After how many days without a use tokens end, existing ones too; `none` for never
    #[arg(long, value_name = "DAYS", value_parser = limit)]
    end_after_unused_days: Option<Limit>,
    /// What else the security contacts are told, once an hour: `new-token`, `bot-key-rotated`.
    /// Repeatable; replaces the list. `none` empties it
    #[arg(long = "notify", value_name = "WHAT", value_parser = notify)]
    notify: Vec<Asked>,
}

/// A value of `--notify`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asked {
    /// Nothing.
    None,
    /// This.
    For(Notify),
}

/// A number of days, or no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Limit(Option<Days>);

/// A value of `--security-contact`.
#[derive(Debug, Clone, PartialEq, Eq)]
enum SecurityContact {
    /// Nobody.
    None,
    /// This address.
    Address(EmailAddress),
}

impl OrgChange {
    /// The new longest lifetimes.
    pub fn max_lifetime_days(&self) -> BTreeMap<Limited, Option<Days>> {
        self.max_lifetimes.iter().map(|(kind, Limit(days))| (*kind, *days)).collect()
    }

    /// After how long without a use tokens end from now on.
    pub fn end_after_unused_days(&self) -> Option<Option<Days>> {
        self.end_after_unused_days.map(|Limit(days)| days)
    }

    /// The new security contacts, each once. `None` if they do not change.
    pub fn security_contacts(&self) -> Option<Vec<EmailAddress>> {
        let mut seen = BTreeSet::new();
        let addresses = self.security_contacts.iter().filter_map(|contact| match contact {
            SecurityContact::None => None,
            SecurityContact::Address(address) => seen.insert(address.hash().to_hex()).then(|| address.clone()),
        });
        let addresses = addresses.collect();
        (!self.security_contacts.is_empty()).then_some(addresses)
    }

    /// What else the security contacts are told from now on, each once. `None` if it does not change.
    pub fn notify(&self) -> Option<Vec<Notify>> {
        let asked = self.notify.iter().filter_map(|asked| match asked {
            Asked::None => None,
            Asked::For(notify) => Some(*notify),
        });
        let asked: BTreeSet<Notify> = asked.collect();
        (!self.notify.is_empty()).then(|| asked.into_iter().collect())
    }
}

/// Subcommands of `bot`.
#[derive(Debug, Subcommand)]
pub enum BotCommand {
    /// Create a bot with an API key, which is shown only once
    Create {
        /// Organization ID (OG…)
        #[arg(long, value_parser = org_id)]
        org: OrgId,
        /// Display name (1 to 100 characters)
        #[arg(long, value_parser = name)]
        name: String,
        /// Role of the bot. Repeatable; the prefix `organization/` is optional
        #[arg(long = "role", value_name = "ROLE", required = true, value_parser = role_of_bot())]
        roles: Vec<Role>,
        /// When its API key expires (RFC 3339, such as 2099-12-31T23:59:59Z). Never by default
        #[arg(long, value_name = "TIME", value_parser = future_moment)]
        expires_at: Option<Moment>,
    },
    /// List an organization's bots, oldest first, with the last use of their API keys
    List {
        /// Organization ID (OG…)
        #[arg(long, value_parser = org_id)]
        org: OrgId,
    },
    /// Replace a bot's roles, effective immediately
    SetRoles {
        /// Bot ID (BT…)
        #[arg(value_parser = bot_id)]
        bot: BotId,
        /// Role of the bot. Repeatable; the prefix `organization/` is optional
        #[arg(long = "role", value_name = "ROLE", required = true, value_parser = role_of_bot())]
        roles: Vec<Role>,
    },
    /// Create a new API key for a bot, which is shown only once
    RotateKey {
        /// Bot ID (BT…)
        #[arg(value_parser = bot_id)]
        bot: BotId,
        /// How long the previous key stays valid, such as 24h or 7days (at most 90 days). Without
        /// this option it stops working immediately. A key kept by an earlier rotation always does,
        /// unless the key that replaced it was never used: then that one ends instead
        #[arg(long, value_name = "DURATION", value_parser = overlap)]
        overlap: Option<Duration>,
        /// End the previous key also at the first use of the new one. Without --overlap after 7 days,
        /// which is the longest overlap then
        #[arg(long)]
        until_first_use: bool,
        /// When the new key expires (RFC 3339). By default when the previous one does; required if
        /// that has expired
        #[arg(long, value_name = "TIME", value_parser = future_moment)]
        expires_at: Option<Moment>,
    },
    /// Delete a bot without confirmation. Its API key stops working immediately; tokens it issued
    /// stay active
    Delete {
        /// Bot ID (BT…)
        #[arg(value_parser = bot_id)]
        bot: BotId,
    },
    /// Manage which CI jobs act as a bot
    #[command(subcommand)]
    Trust(TrustCommand),
    /// End the tokens of all CI jobs that act as a bot, effective immediately. Jobs that a trust
    /// admits can get new ones at once
    EndTokens {
        /// Bot ID (BT…)
        #[arg(value_parser = bot_id)]
        bot: BotId,
    },
}

/// Subcommands of `bot trust`.
#[derive(Debug, Subcommand)]
pub enum TrustCommand {
    /// Let CI jobs act as a bot, if their ID tokens match everything given here
    #[command(after_help = TRUST_EXAMPLES)]
    Add {
        /// Bot ID (BT…)
        #[arg(value_parser = bot_id)]
        bot: BotId,
        #[command(flatten)]
        trust: TrustArguments,
    },
    /// List a bot's trusts, oldest first
    List {
        /// Bot ID (BT…)
        #[arg(value_parser = bot_id)]
        bot: BotId,
    },
    /// Remove a trust without confirmation. The tokens that it admitted stop working immediately
    Remove {
        /// Bot ID (BT…)
        #[arg(value_parser = bot_id)]
        bot: BotId,
        /// Trust ID, as `bot trust list` prints it
        #[arg(value_parser = trust_id)]
        trust: TrustId,
    },
}

const TRUST_EXAMPLES: &str = "\
GitHub Actions, one branch of one repository, for packages only:
  guardctl bot trust add BT… --issuer https://token.actions.githubusercontent.com \\
    --audience guard.example.com --claim repository_owner_id=1342004 \\
    --claim repository_id=1296269 --claim ref=refs/heads/main --registries-only

GitLab CI/CD, every project of one group, to issue tokens too:
  guardctl bot trust add BT… --issuer https://gitlab.com --audience guard.example.com \\
    --claim namespace_id=9970 --claim 'ref_path=refs/heads/*' --role takumi_guard_token_issuer

One claim must identify the owner exactly: repository_owner_id, repository_id, enterprise_id,
project_id, namespace_id or sub. Names can be given up and taken by somebody else.";

/// What a trust consists of.
#[derive(Debug, Args)]
pub struct TrustArguments {
    /// URL of the issuer: `iss` of the ID tokens, to the last character
    #[arg(long, value_name = "URL")]
    issuer: String,
    /// Audience of the ID tokens, one of those that the service accepts
    #[arg(long)]
    audience: String,
    /// Claim that must match. Repeatable, at most 10. A value that ends in /* or :* is a prefix
    #[arg(long = "claim", value_name = "NAME=VALUE", required = true, value_parser = claim)]
    claims: Vec<(String, String)>,
    /// Claim that names the workload in logs [default: sub]
    #[arg(long, value_name = "CLAIM")]
    subject_claim: Option<String>,
    #[command(flatten)]
    rights: TrustedRights,
    /// Let jobs create tokens and keys that outlive the job's own token
    #[arg(long)]
    may_mint_longer: bool,
}

/// What jobs may do. One of the two is required, so that neither is a surprise.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct TrustedRights {
    /// Role of the bot that jobs have on the API. Repeatable; the prefix `organization/` is optional
    #[arg(long = "role", value_name = "ROLE", value_parser = role_of_bot())]
    roles: Vec<Role>,
    /// Let jobs install packages and nothing else
    #[arg(long)]
    registries_only: bool,
}

impl TrustArguments {
    /// The trust. On error, a sentence that names the option.
    pub fn checked(&self) -> Result<NewTrust, String> {
        let wanted = Wanted {
            issuer: self.issuer.clone(),
            audience: self.audience.clone(),
            claims: self.claims.clone(),
            subject_claim: self.subject_claim.clone(),
            roles: self.rights.roles.clone(),
            may_mint_longer: self.may_mint_longer,
        };
        NewTrust::try_from(wanted).map_err(|InvalidTrust { field, rule }| match field.strip_prefix("claims.") {
            Some(claim) => format!("--claim {claim} {rule}"),
            None if field == "claims" => format!("--claim {rule}"),
            None => format!("--{} {rule}", field.replace('_', "-")),
        })
    }
}

/// Subcommands of `member`.
#[derive(Debug, Subcommand)]
pub enum MemberCommand {
    /// Invite an address for 7 days, without sending mail. Who signs in to the console with this
    /// address can accept. An earlier invitation of the address to the organization ends
    Invite {
        /// Organization ID (OG…)
        #[arg(long, value_parser = org_id)]
        org: OrgId,
        /// E-mail address
        #[arg(long, value_parser = email)]
        email: EmailAddress,
        /// Role of the member. Repeatable; the prefix `organization/` is optional
        #[arg(long = "role", value_name = "ROLE", required = true, value_parser = role())]
        roles: Vec<Role>,
    },
    /// List an organization's members and invitations, oldest first
    List {
        /// Organization ID (OG…)
        #[arg(long, value_parser = org_id)]
        org: OrgId,
    },
    /// Replace a member's roles, effective immediately. The last owner stays one
    SetRoles {
        #[command(flatten)]
        member: OneMember,
        /// Role of the member. Repeatable; the prefix `organization/` is optional
        #[arg(long = "role", value_name = "ROLE", required = true, value_parser = role())]
        roles: Vec<Role>,
    },
    /// Remove a member, or withdraw an invitation, without confirmation. The membership and the
    /// tokens that the person issued under My tokens end immediately; tokens that others issued for
    /// the person stay active. The last owner cannot be removed
    Remove {
        #[command(flatten)]
        member: OneMember,
    },
    /// End all sessions of a member, who can sign in again
    SignOut {
        #[command(flatten)]
        member: OneMember,
    },
}

/// A member of an organization.
#[derive(Debug, Args)]
pub struct OneMember {
    /// Organization ID (OG…)
    #[arg(long, value_parser = org_id)]
    pub org: OrgId,
    /// Member ID (MB…)
    #[arg(long = "member", value_name = "MEMBER", value_parser = member_id)]
    pub id: MemberId,
}

/// Subcommands of `project`.
#[derive(Debug, Subcommand)]
pub enum ProjectCommand {
    /// Add a project to an organization
    Add {
        #[command(flatten)]
        project: Project,
    },
    /// Remove a project from an organization without confirmation
    Remove {
        #[command(flatten)]
        project: Project,
    },
    /// List an organization's projects by name
    List {
        /// Organization ID (OG…)
        #[arg(long, value_parser = org_id)]
        org: OrgId,
    },
}

/// A project of an organization.
#[derive(Debug, Args)]
pub struct Project {
    /// Project name: 1 to 64 letters, digits, '.', '_' and '-', starting with a letter or digit.
    /// Case-sensitive
    #[arg(value_parser = project_name)]
    pub name: String,
    /// Organization ID (OG…)
    #[arg(long, value_parser = org_id)]
    pub org: OrgId,
}

/// Subcommands of `token`.
#[derive(Debug, Subcommand)]
pub enum TokenCommand {
    /// Permanently revoke a token without confirmation, effective immediately. Idempotent
    Revoke {
        /// Kind of token, as in the audit log. Organization access tokens and email-verified tokens
        /// are deleted
        kind: RevokedKind,
        /// Token ID. For an organization access token, its number
        id: String,
        /// Organization ID (OG…), except for an email-verified token
        #[arg(long, value_parser = org_id)]
        org: Option<OrgId>,
    },
}

/// Kinds of tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
pub enum RevokedKind {
    /// Email-verified token (tg_anon_…)
    EmailToken,
    /// Org user token (tg_org_…)
    OrgUserToken,
    /// API key (tk_live_…, tk_test_…)
    ApiKey,
    /// Organization access token (oat_…)
    OrgAccessToken,
}

/// Subcommands of `table`.
#[derive(Debug, Subcommand)]
pub enum TableCommand {
    /// Create the tables if they do not exist. For emulators only: in AWS, the stack creates them
    /// with backups, encryption and deletion protection
    Create {
        /// Name of the installation log table. Created only if given
        #[arg(
            long,
            env = "INSTALLATIONS_TABLE",
            hide_env_values = true,
            value_parser = NonEmptyStringValueParser::new()
        )]
        installations_table: Option<String>,
    },
}

fn registration_setting(text: &str) -> Result<RegistrationSetting, &'static str> {
    match text {
        "parameter" => Ok(RegistrationSetting::Parameter),
        text => text.parse().map(RegistrationSetting::Set),
    }
}

fn plan() -> impl TypedValueParser<Value = Plan> {
    PossibleValuesParser::new(Plan::ALL.iter().copied().map(Plan::as_str)).try_map(|text| text.parse::<Plan>())
}

fn leak_policy() -> impl TypedValueParser<Value = LeakPolicy> {
    PossibleValuesParser::new(LeakPolicy::ALL.iter().copied().map(LeakPolicy::as_str))
        .try_map(|text| text.parse::<LeakPolicy>())
}

fn notify(text: &str) -> Result<Asked, String> {
    match text {
        "none" => Ok(Asked::None),
        text => text.parse().map(Asked::For).map_err(|_| {
            let known: Vec<&str> = Notify::ALL.iter().map(|notify| notify.as_str()).collect();
            format!("must be {}, or none", known.join(", "))
        }),
    }
}

fn security_contact(text: &str) -> Result<SecurityContact, String> {
    match text {
        "none" => Ok(SecurityContact::None),
        text => email(text).map(SecurityContact::Address),
    }
}

/// A number of days, or `none`.
fn limit(text: &str) -> Result<Limit, &'static str> {
    match text {
        "none" => Ok(Limit(None)),
        days => days.parse().map(|days| Limit(Some(days))).map_err(|_| "must be a number of days, at least 1, or none"),
    }
}

/// A kind of token and its limit.
fn max_lifetime(text: &str) -> Result<(Limited, Limit), String> {
    let (kind, days) = text.split_once('=').ok_or("must be a kind of token, =, and days or none")?;
    let kinds: Vec<&str> = Limited::ALL.iter().map(|kind| kind.as_str()).collect();
    let kind = kind.parse().map_err(|_| format!("the kind of token must be {}", kinds.join(", ")))?;
    Ok((kind, limit(days)?))
}

/// Accepts a role of people with or without its `organization/` prefix.
fn role() -> impl TypedValueParser<Value = Role> {
    role_for(Role::is_for_people, "this role is for bots: a person cannot have it")
}

/// As [`role`], for bots.
fn role_of_bot() -> impl TypedValueParser<Value = Role> {
    role_for(Role::is_for_bots, "this role is for people: a bot cannot have it")
}

fn role_for(is_allowed: fn(Role) -> bool, otherwise: &'static str) -> impl TypedValueParser<Value = Role> {
    let values =
        Role::ALL.iter().map(|role| PossibleValue::new(role.as_str()).alias(short(*role)).hide(!is_allowed(*role)));
    PossibleValuesParser::new(values).try_map(move |text| {
        let role = Role::ALL.iter().copied().find(|role| role.as_str() == text || short(*role) == text);
        match role.ok_or("unknown role")? {
            role if is_allowed(role) => Ok(role),
            _ => Err(otherwise),
        }
    })
}

fn short(role: Role) -> &'static str {
    role.as_str().trim_start_matches("organization/")
}

fn on_or_off() -> impl TypedValueParser<Value = bool> {
    PossibleValuesParser::new(["on", "off"]).map(|text| text == "on")
}

fn org_id(text: &str) -> Result<OrgId, &'static str> {
    OrgId::parse(text).ok_or("an organization ID is OG followed by 26 characters")
}

fn trust_id(text: &str) -> Result<TrustId, &'static str> {
    TrustId::parse(text).ok_or("a trust ID has 26 characters")
}

/// A name and a value, which may contain `=` too.
fn claim(text: &str) -> Result<(String, String), &'static str> {
    let (name, value) = text.split_once('=').ok_or("a claim is its name, =, and its value")?;
    Ok((name.to_owned(), value.to_owned()))
}

fn member_id(text: &str) -> Result<MemberId, &'static str> {
    MemberId::parse(text).ok_or("a member ID is MB followed by 26 characters")
}

fn email(text: &str) -> Result<EmailAddress, String> {
    EmailAddress::try_from(text.to_owned()).map_err(|error| format!("an e-mail address {error}"))
}

fn bot_id(text: &str) -> Result<BotId, &'static str> {
    BotId::parse(text).ok_or("a bot ID is BT followed by 26 characters")
}

/// A display name, by the same rules as the API's.
fn name(text: &str) -> Result<String, String> {
    Name::try_from(text.to_owned()).map(|name| name.as_str().to_owned()).map_err(|error| format!("a name {error}"))
}

/// A project name. It needs no quoting in paths, shells and lists, and cannot look like a flag.
fn project_name(text: &str) -> Result<String, &'static str> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if !(1..=64).contains(&text.len()) || !text.chars().all(allowed) {
        return Err("a project name must have 1 to 64 letters, digits, '.', '_' or '-'");
    }
    if !text.starts_with(|first: char| first.is_ascii_alphanumeric()) {
        return Err("a project name must start with a letter or digit");
    }
    Ok(text.to_owned())
}

fn moment(text: &str) -> Result<Moment, &'static str> {
    Moment::parse(text).ok_or("expected an RFC 3339 timestamp, such as 2026-11-21T10:00:00Z")
}

fn future_moment(text: &str) -> Result<Moment, &'static str> {
    let moment = moment(text)?;
    if moment <= Clock::System.now() { Err("expected a time in the future") } else { Ok(moment) }
}

fn overlap(text: &str) -> Result<Duration, String> {
    let span: Span = text.parse().map_err(|error: jiff::Error| error.to_string())?;
    let duration = span.to_duration(SpanRelativeTo::days_are_24_hours()).map_err(|error| error.to_string())?;
    let duration = Duration::try_from(duration).map_err(|_| "an overlap must not be negative".to_owned())?;
    if duration > LONGEST_OVERLAP {
        return Err("an overlap must be at most 90 days".to_owned());
    }
    Ok(duration)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn command_line_definition_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn short_role_names_are_unique() {
        let shorts: std::collections::BTreeSet<_> = Role::ALL.iter().copied().map(short).collect();
        assert_eq!(shorts.len(), Role::ALL.len());
        assert!(shorts.iter().all(|short| !short.contains('/')));
    }

    #[test]
    fn display_name_must_be_trimmed_printable_and_at_most_100_characters() {
        for good in ["a", "Example, Inc.", "日本語の名前", "é", &"ä".repeat(100)] {
            assert!(name(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            " ",
            " a",
            "a ",
            "a\nb",
            "a\tb",
            "a\u{1b}[31m",
            "a\0",
            "a\u{85}b",
            "a\u{202e}b",
            "a\u{3164}",
            &"a".repeat(101),
        ] {
            assert!(name(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn lifetimes_are_given_by_kind_and_none_takes_them_away() {
        let parse = |arguments: &[&str]| {
            Cli::try_parse_from([&["guardctl", "org", "set", "OG01KAJ8M4R2X7Z9V5T3Q1N6P8WC"], arguments].concat())
        };
        let flag = "--max-lifetime-days";
        let given = [flag, "api_key=90", flag, "org_access_token=none", "--end-after-unused-days", "14"];
        let Command::Org(OrgCommand::Set { change, .. }) = parse(&given).unwrap().command else { panic!() };
        let limits = [(Limited::ApiKey, Days::new(90)), (Limited::OrgAccessToken, None)];
        assert_eq!(change.max_lifetime_days(), limits.into());
        assert_eq!(change.end_after_unused_days(), Some(Days::new(14)));
        for wrong in ["api_key", "api_key=0", "api_key=-1", "api_key=x", "bot=9", "=9", "api_key="] {
            assert!(parse(&[flag, wrong]).is_err(), "{wrong}");
        }
        for wrong in ["0", "1.5", "", "never"] {
            assert!(parse(&["--end-after-unused-days", wrong]).is_err(), "{wrong}");
        }
    }

    #[test]
    fn security_contacts_replace_the_list_and_none_empties_it() {
        let parsed = |arguments: &[&str]| {
            let cli =
                Cli::try_parse_from([&["guardctl", "org", "set", "OG01KAJ8M4R2X7Z9V5T3Q1N6P8WC"], arguments].concat());
            let Command::Org(OrgCommand::Set { change, .. }) = cli.unwrap().command else { panic!() };
            change
                .security_contacts()
                .map(|contacts| contacts.iter().map(|a| a.expose().to_owned()).collect::<Vec<_>>())
        };
        let contact = "--security-contact";
        assert_eq!(parsed(&["--guard", "on"]), None);
        assert_eq!(parsed(&[contact, "none"]), Some(Vec::new()));
        let both = ["a@example.com", "b@example.com"];
        assert_eq!(parsed(&[contact, both[0], contact, both[1], contact, "A@example.com"]).unwrap(), both);
    }

    #[test]
    fn what_is_asked_for_replaces_the_list_and_none_empties_it() {
        let parsed = |arguments: &[&str]| {
            let start = ["guardctl", "org", "set", "OG01KAJ8M4R2X7Z9V5T3Q1N6P8WC", "--guard", "on"];
            let cli = Cli::try_parse_from([&start, arguments].concat());
            let Command::Org(OrgCommand::Set { change, .. }) = cli.unwrap().command else { panic!() };
            change.notify()
        };
        assert_eq!(parsed(&[]), None);
        assert_eq!(parsed(&["--notify", "none"]), Some(Vec::new()));
        let both = ["--notify", "bot-key-rotated", "--notify", "new-token", "--notify", "new-token"];
        assert_eq!(parsed(&both), Some(vec![Notify::NewToken, Notify::BotKeyRotated]));
        assert_eq!(notify("everything"), Err("must be new-token, bot-key-rotated, or none".to_owned()));
    }

    #[test]
    fn project_name_must_be_a_safe_identifier() {
        for good in ["a", "prd-greenhouse", "A_1.b", "0", &"a".repeat(64)] {
            assert!(project_name(good).is_ok(), "{good}");
        }
        for bad in ["", "-a", ".a", "..", "_a", "a b", "a/b", "a#b", "a:b", "é", "a\n", &"a".repeat(65)] {
            assert!(project_name(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn overlap_is_at_most_90_days() {
        assert_eq!(overlap("24h"), Ok(Duration::from_secs(86_400)));
        assert_eq!(overlap("90days"), Ok(LONGEST_OVERLAP));
        for bad in ["", "24", "-1h", "91d", "1000years", "soon", "999999999999999999999y"] {
            assert!(overlap(bad).is_err(), "{bad}");
        }
    }
}
