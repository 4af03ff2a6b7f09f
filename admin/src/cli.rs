//! The commands as they are typed. What gets past here is valid; the doc comments are the help texts.

use std::time::Duration;

use clap::builder::{NonEmptyStringValueParser, PossibleValue, PossibleValuesParser, TypedValueParser};
use clap::error::ErrorKind;
use clap::{ArgAction, Args, CommandFactory, Parser, Subcommand, ValueEnum};
use shared::Moment;
use shared::domain::Plan;
use shared::ids::{BotId, OrgId};
use shared::principal::Role;

/// Every plan there is.
const PLANS: [Plan; 4] = [Plan::Free, Plan::Developer, Plan::Pro, Plan::Enterprise];

/// The longest overlap of two API keys. Rotating a key that then lives on for years would be no rotation.
const LONGEST_OVERLAP: Duration = Duration::from_secs(90 * 24 * 60 * 60);

/// What the help puts above the flags that all commands take.
const GLOBAL: &str = "Global options";

const ENVIRONMENT: &str = "\
AWS credentials and region are taken as by any tool of AWS: from the environment or a profile, for one of
IAM Identity Center with: eval \"$(aws configure export-credentials --format env)\"
For the service on this machine: source .local/demo.env

Exit codes: 0 it is done, 1 it is not and stderr says why, 2 the command line is wrong.";

/// The operator's command of guard-tokens: organizations, their plans, bots and projects.
#[derive(Debug, Parser)]
#[command(name = "guardctl", version, after_help = ENVIRONMENT, propagate_version = true)]
pub struct Cli {
    /// The tokens table; the stack's output TokensTableName names it.
    // Read here and not in shared's config.rs, so that the flag, the variable and the help text are one.
    #[arg(
        long,
        env = "TOKENS_TABLE",
        hide_env_values = true,
        global = true,
        help_heading = GLOBAL,
        value_parser = NonEmptyStringValueParser::new()
    )]
    table: Option<String>,
    /// Answer in JSON, for scripts.
    #[arg(long, global = true, help_heading = GLOBAL)]
    pub json: bool,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

impl Cli {
    /// The table. A global flag cannot be required, so this is asked afterwards.
    pub fn required_table(&self) -> Result<String, clap::Error> {
        self.table.clone().ok_or_else(|| {
            let message = "no table is named: give --table <TABLE> or set TOKENS_TABLE";
            Cli::command().error(ErrorKind::MissingRequiredArgument, message)
        })
    }
}

/// The nouns.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Organizations, with their plan and Guard.
    #[command(subcommand)]
    Org(OrgCommand),
    /// Bots: the credentials that manage an organization's tokens.
    #[command(subcommand)]
    Bot(BotCommand),
    /// Projects, which an organization's access tokens may be bound to.
    #[command(subcommand)]
    Project(ProjectCommand),
    /// Tokens, wherever no bot is left to revoke them.
    #[command(subcommand)]
    Token(TokenCommand),
    /// Show what was done in all organizations since a moment, oldest first.
    Audit {
        /// The moment, as 2026-11-21T10:00:00Z.
        #[arg(long, value_parser = moment)]
        since: Moment,
    },
    /// The tables themselves.
    #[command(subcommand)]
    Table(TableCommand),
}

/// What can be done with organizations.
#[derive(Debug, Subcommand)]
pub enum OrgCommand {
    /// Make an organization.
    Create {
        /// Its name, for people: 1 to 100 characters.
        #[arg(long, value_parser = name)]
        name: String,
        /// What it pays for: bounds its active API keys to 3, 10, 20, or not at all.
        #[arg(long, value_parser = plan())]
        plan: Plan,
        /// Whether its subscription has Guard enabled.
        // Without the action clap would make a flag of it, as of every bool.
        #[arg(long, action = ArgAction::Set, value_parser = on_or_off())]
        guard: bool,
    },
    /// Change an organization's plan, or whether it has Guard, or both.
    Set {
        /// The organization's id, OG….
        #[arg(value_parser = org_id)]
        org: OrgId,
        #[command(flatten)]
        change: OrgChange,
    },
    /// Show an organization.
    Show {
        /// The organization's id, OG….
        #[arg(value_parser = org_id)]
        org: OrgId,
    },
    /// List all organizations, oldest first.
    List,
}

/// What to change of an organization: at least one of them.
#[derive(Debug, Args)]
#[group(required = true, multiple = true)]
pub struct OrgChange {
    /// What it pays for. A lower plan refuses new API keys and touches none that there are.
    #[arg(long, value_parser = plan())]
    pub plan: Option<Plan>,
    /// Whether its subscription has Guard enabled.
    #[arg(long, value_parser = on_or_off())]
    pub guard: Option<bool>,
}

/// What can be done with bots.
#[derive(Debug, Subcommand)]
pub enum BotCommand {
    /// Make a bot and its API key, which is shown this once.
    Create {
        /// The organization it is for, OG….
        #[arg(long, value_parser = org_id)]
        org: OrgId,
        /// Its name, for people: 1 to 100 characters.
        #[arg(long, value_parser = name)]
        name: String,
        /// What it may do; may be given several times, and without `organization/`.
        #[arg(long = "role", value_name = "ROLE", required = true, value_parser = role())]
        roles: Vec<Role>,
    },
    /// List an organization's bots, oldest first.
    List {
        /// The organization, OG….
        #[arg(long, value_parser = org_id)]
        org: OrgId,
    },
    /// Replace a bot's roles; holds for its very next call.
    SetRoles {
        /// The bot's id, BT….
        #[arg(value_parser = bot_id)]
        bot: BotId,
        /// What it may do; may be given several times, and without `organization/`.
        #[arg(long = "role", value_name = "ROLE", required = true, value_parser = role())]
        roles: Vec<Role>,
    },
    /// Give a bot a new API key, which is shown this once.
    RotateKey {
        /// The bot's id, BT….
        #[arg(value_parser = bot_id)]
        bot: BotId,
        /// How long the key before it still counts, such as 24h or 7days, 90 days at most; not at all unless said. A
        /// key that an earlier rotation had kept is dead at once.
        #[arg(long, value_name = "DURATION", value_parser = overlap)]
        overlap: Option<Duration>,
    },
    /// Delete a bot without asking; its API key is dead for its very next call. The tokens it has made stay.
    Delete {
        /// The bot's id, BT….
        #[arg(value_parser = bot_id)]
        bot: BotId,
    },
}

/// What can be done with projects.
#[derive(Debug, Subcommand)]
pub enum ProjectCommand {
    /// Add a project to an organization.
    Add {
        #[command(flatten)]
        project: Project,
    },
    /// Remove a project from an organization, without asking.
    Remove {
        #[command(flatten)]
        project: Project,
    },
    /// List an organization's projects, by name.
    List {
        /// The organization, OG….
        #[arg(long, value_parser = org_id)]
        org: OrgId,
    },
}

/// A project of an organization.
#[derive(Debug, Args)]
pub struct Project {
    /// Its name, by which tokens refer to it: 1 to 64 letters, digits and . _ -, the first a letter or digit;
    /// case-sensitive.
    #[arg(value_parser = project_name)]
    pub name: String,
    /// Its organization, OG….
    #[arg(long, value_parser = org_id)]
    pub org: OrgId,
}

/// What can be done with tokens.
#[derive(Debug, Subcommand)]
pub enum TokenCommand {
    /// Revoke an organization's token for good, without asking; it is dead for its very next use. A second time changes
    /// nothing.
    Revoke {
        /// Its kind, as the audit log spells it. An access token is deleted.
        kind: OrgTokenKind,
        /// Its id, for an access token its number.
        id: String,
        /// Its organization, OG….
        #[arg(long, value_parser = org_id)]
        org: OrgId,
    },
}

/// The kinds of token that belong to an organization.
#[derive(Debug, Clone, Copy, ValueEnum)]
#[value(rename_all = "snake_case")]
pub enum OrgTokenKind {
    /// An org user token.
    OrgUserToken,
    /// An API key.
    ApiKey,
    /// An organization access token.
    OrgAccessToken,
}

/// What can be done with the table.
#[derive(Debug, Subcommand)]
pub enum TableCommand {
    /// Create the tables unless they are there. For emulators: in AWS the stack makes them, with backups, encryption and
    /// protection against deletion, which these would not have.
    Create {
        /// The table of the installation log; not made where it is not named.
        #[arg(
            long,
            env = "INSTALLATIONS_TABLE",
            hide_env_values = true,
            value_parser = NonEmptyStringValueParser::new()
        )]
        installations_table: Option<String>,
    },
}

/// A plan as it is written.
pub fn plan_name(plan: Plan) -> &'static str {
    match plan {
        Plan::Free => "free",
        Plan::Developer => "developer",
        Plan::Pro => "pro",
        Plan::Enterprise => "enterprise",
    }
}

fn plan() -> impl TypedValueParser<Value = Plan> {
    PossibleValuesParser::new(PLANS.map(plan_name))
        .try_map(|text| PLANS.into_iter().find(|plan| plan_name(*plan) == text).ok_or("is not a plan"))
}

/// A role in full or without the `organization/` that all of them begin with.
fn role() -> impl TypedValueParser<Value = Role> {
    let values = Role::ALL.map(|role| PossibleValue::new(role.as_str()).alias(short(role)));
    PossibleValuesParser::new(values).try_map(|text| {
        Role::ALL.into_iter().find(|role| role.as_str() == text || short(*role) == text).ok_or("is not a role")
    })
}

fn short(role: Role) -> &'static str {
    role.as_str().trim_start_matches("organization/")
}

fn on_or_off() -> impl TypedValueParser<Value = bool> {
    PossibleValuesParser::new(["on", "off"]).map(|text| text == "on")
}

fn org_id(text: &str) -> Result<OrgId, &'static str> {
    OrgId::parse(text).ok_or("an organization's id is OG and 26 characters")
}

fn bot_id(text: &str) -> Result<BotId, &'static str> {
    BotId::parse(text).ok_or("a bot's id is BT and 26 characters")
}

/// A name for people, which no listing can be disturbed by.
fn name(text: &str) -> Result<String, &'static str> {
    if !(1..=100).contains(&text.chars().count()) {
        return Err("a name has 1 to 100 characters");
    }
    if text.chars().any(char::is_control) {
        return Err("a name has no control characters");
    }
    if text.trim() != text {
        return Err("a name neither begins nor ends with a space");
    }
    Ok(text.to_owned())
}

/// A name that tokens refer to: it must survive paths, shells and lists unquoted, and not be taken for a flag.
fn project_name(text: &str) -> Result<String, &'static str> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if !(1..=64).contains(&text.len()) || !text.chars().all(allowed) {
        return Err("a project's name has 1 to 64 letters, digits and . _ -");
    }
    if !text.starts_with(|first: char| first.is_ascii_alphanumeric()) {
        return Err("a project's name begins with a letter or digit");
    }
    Ok(text.to_owned())
}

fn moment(text: &str) -> Result<Moment, &'static str> {
    Moment::parse(text).ok_or("a moment is written as 2026-11-21T10:00:00Z")
}

fn overlap(text: &str) -> Result<Duration, String> {
    let duration = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    if duration > LONGEST_OVERLAP {
        return Err("an overlap is 90 days at most".to_owned());
    }
    Ok(duration)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn plans_are_written_as_they_are_stored() {
        for plan in PLANS {
            assert_eq!(serde_json::to_value(plan).unwrap(), plan_name(plan));
        }
    }

    #[test]
    fn short_roles_are_unambiguous() {
        let shorts: std::collections::BTreeSet<_> = Role::ALL.map(short).into();
        assert_eq!(shorts.len(), Role::ALL.len());
        assert!(shorts.iter().all(|short| !short.contains('/')));
    }

    #[test]
    fn names_are_for_people() {
        for good in ["a", "Example, Inc.", "日本語の名前", "é", &"ä".repeat(100)] {
            assert!(name(good).is_ok(), "{good}");
        }
        for bad in ["", " ", " a", "a ", "a\nb", "a\tb", "a\u{1b}[31m", "a\0", "a\u{85}b", &"a".repeat(101)] {
            assert!(name(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn project_names_are_identifiers() {
        for good in ["a", "prd-greenhouse", "A_1.b", "0", &"a".repeat(64)] {
            assert!(project_name(good).is_ok(), "{good}");
        }
        for bad in ["", "-a", ".a", "..", "_a", "a b", "a/b", "a#b", "a:b", "é", "a\n", &"a".repeat(65)] {
            assert!(project_name(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn an_overlap_is_bounded() {
        assert_eq!(overlap("24h"), Ok(Duration::from_secs(86_400)));
        assert_eq!(overlap("90days"), Ok(LONGEST_OVERLAP));
        for bad in ["", "24", "-1h", "91d", "1000years", "soon", "999999999999999999999y"] {
            assert!(overlap(bad).is_err(), "{bad}");
        }
    }
}
