//! The permission table: [`Operation::rule`] says who may perform which operation. The guards in
//! [`crate::auth`] enforce it.
//!
//! An operation without a rule does not compile; a rule without a role, scope or kind of token
//! admits no credential. `tests/src/coverage.rs` tries every credential on every operation.

use serde::{Deserialize, Serialize};
use strum::{EnumString, IntoStaticStr, VariantArray};

use crate::domain::Scope;

/// A role of a bot or member. Unknown roles in the table grant nothing.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, EnumString, IntoStaticStr, VariantArray,
)]
pub enum Role {
    /// Everything in its organization.
    #[serde(rename = "organization/owner")]
    #[strum(serialize = "organization/owner")]
    Owner,
    /// Issue and probe org user tokens.
    #[serde(rename = "organization/takumi_guard_token_issuer")]
    #[strum(serialize = "organization/takumi_guard_token_issuer")]
    TokenIssuer,
    /// Issue, probe, list and revoke org user tokens; read the installation log and the audit log.
    #[serde(rename = "organization/takumi_manager")]
    #[strum(serialize = "organization/takumi_manager")]
    Manager,
    /// Create, list and revoke API keys.
    #[serde(rename = "organization/api_key_manager")]
    #[strum(serialize = "organization/api_key_manager")]
    ApiKeyManager,
    /// Introspect any token of its organization.
    #[serde(rename = "organization/token_introspector")]
    #[strum(serialize = "organization/token_introspector")]
    TokenIntrospector,
    /// People only: issue, see and revoke one's own org user tokens. Every member may, so that this
    /// role is for those who have no other.
    #[serde(rename = "organization/member")]
    #[strum(serialize = "organization/member")]
    Member,
    /// Bots only: provision people from an identity provider, with SCIM.
    #[serde(rename = "organization/scim")]
    #[strum(serialize = "organization/scim")]
    Scim,
}

impl Role {
    /// Every role.
    pub const ALL: &[Role] = Role::VARIANTS;

    /// Whether bots may have this role.
    pub fn is_for_bots(self) -> bool {
        self != Role::Member
    }

    /// Whether people may have this role.
    pub fn is_for_people(self) -> bool {
        self != Role::Scim
    }

    /// The role as text.
    pub fn as_str(self) -> &'static str {
        self.into()
    }

    /// Parses a role's name.
    pub fn parse(text: &str) -> Option<Self> {
        text.parse().ok()
    }
}

/// What an operation requires of its caller.
#[derive(Debug, Clone, Copy)]
pub struct Rule {
    /// A bot needs one of these roles. Empty means that no bot may call.
    pub roles: &'static [Role],
    /// An API key needs this scope. `None` means that no API key may call.
    pub scope: Option<Scope>,
    /// Accepts email-verified tokens, each for itself.
    pub email_tokens: bool,
    /// Accepts email-verified tokens and org user tokens: the registries.
    pub registry_tokens: bool,
    /// Accepts every kind of token, and bots' API keys, each for itself.
    pub own_token: bool,
    /// Runs behind the authorizer, which accepts any active credential.
    pub authorizer: bool,
    /// A page of the console, or a step of signing in: its credential is a session. The forms of a
    /// page are guarded by the operations that they perform.
    pub console: bool,
    /// The organization needs an active subscription with Guard enabled. Never for what finds,
    /// checks or revokes tokens: whoever stops paying can still end what was issued.
    pub needs_subscription: bool,
    /// The action under which the audit log records refusals. Set for operations that create
    /// tokens.
    pub audited_refusal: Option<&'static str>,
    /// Makes a credential of a bot, which would outlive the token of a CI job: no job may call.
    pub makes_bot_keys: bool,
}

/// The rule of operations that need no credential.
const PUBLIC: Rule = Rule {
    roles: &[],
    scope: None,
    email_tokens: false,
    registry_tokens: false,
    own_token: false,
    authorizer: false,
    console: false,
    needs_subscription: false,
    audited_refusal: None,
    makes_bot_keys: false,
};

/// The rule of operations without a route, which only a schedule invokes.
const SCHEDULED: Rule = PUBLIC;

/// The rule of operations that only owners may perform.
const OWNER: Rule = Rule { roles: &[Role::Owner], ..PUBLIC };

/// The rule of operations on SCIM users.
const SCIM: Rule = Rule { roles: &[Role::Owner, Role::Scim], ..PUBLIC };

/// The rule of pages that every member may see, and of the steps of signing in.
const CONSOLE: Rule = Rule { console: true, ..PUBLIC };

/// The rule of the registries.
const REGISTRY: Rule = Rule { registry_tokens: true, ..PUBLIC };

/// The rule of operations on the caller's own email-verified token.
const EMAIL_TOKENS: Rule = Rule { email_tokens: true, ..PUBLIC };

macro_rules! operations {
    ($($(#[$doc:meta])* $name:ident = $text:literal => $rule:expr;)+) => {
        /// The operations of the service, one per function.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Operation {
            $($(#[$doc])* $name,)+
        }

        impl Operation {
            /// All operations.
            pub const ALL: &[Operation] = &[$(Operation::$name),+];

            /// The name of its function: crate, binary, event and `operationId`.
            pub const fn name(self) -> &'static str {
                match self { $(Operation::$name => $text,)+ }
            }

            /// Who may perform it.
            pub const fn rule(self) -> Rule {
                match self { $(Operation::$name => $rule,)+ }
            }
        }

        $($(#[$doc])* #[derive(Debug)] pub struct $name;

        impl Guarded for $name {
            const OPERATION: Operation = Operation::$name;
        })+
    };
}

/// An [`Operation`] as a type, for use in a handler's signature: `BotWith<OrgUserTokensIssue>`.
pub trait Guarded: Send + Sync + 'static {
    /// The operation.
    const OPERATION: Operation;
}

operations! {
    /// Get the OpenAPI document.
    DocsOpenapi = "docs-openapi" => PUBLIC;
    /// Answer requests that match no route.
    DocsNotFound = "docs-not-found" => PUBLIC;
    /// Create an API key.
    ApiKeysCreate = "api-keys-create" => Rule {
        roles: &[Role::Owner, Role::ApiKeyManager],
        scope: Some(Scope::OrgWrite),
        audited_refusal: Some("api_key.create"),
        ..PUBLIC
    };
    /// List API keys.
    ApiKeysList = "api-keys-list" => Rule {
        roles: &[Role::Owner, Role::ApiKeyManager],
        scope: Some(Scope::OrgRead),
        ..PUBLIC
    };
    /// Replace an API key with a successor.
    ApiKeysRotate = "api-keys-rotate" => Rule {
        roles: &[Role::Owner, Role::ApiKeyManager],
        scope: Some(Scope::OrgWrite),
        audited_refusal: Some("api_key.rotate"),
        ..PUBLIC
    };
    /// Revoke an API key.
    ApiKeysRevoke = "api-keys-revoke" => Rule {
        roles: &[Role::Owner, Role::ApiKeyManager],
        scope: Some(Scope::OrgWrite),
        ..PUBLIC
    };
    /// Read the audit log.
    AuditLogList = "audit-log-list" => Rule {
        roles: &[Role::Owner, Role::Manager],
        scope: Some(Scope::AuditRead),
        ..PUBLIC
    };
    /// Exchange an ID token of CI for a bot token.
    BotsExchange = "bots-exchange" => PUBLIC;
    /// Replace the API key of a bot.
    BotsRotateKey = "bots-rotate-key" => Rule {
        audited_refusal: Some("bot.rotate_key"),
        makes_bot_keys: true,
        ..OWNER
    };
    /// Read the installation log.
    InstallationsList = "installations-list" => Rule {
        roles: &[Role::Owner, Role::Manager],
        needs_subscription: true,
        ..PUBLIC
    };
    /// Get npm packages.
    RegistryNpm = "registry-npm" => REGISTRY;
    /// Revoke the caller's token: `npm logout`.
    RegistryNpmLogout = "registry-npm-logout" => REGISTRY;
    /// Get Python packages.
    RegistryPypi = "registry-pypi" => REGISTRY;
    /// List organization access tokens.
    OrgAccessTokensList = "org-access-tokens-list" => OWNER;
    /// Create an organization access token.
    OrgAccessTokensCreate = "org-access-tokens-create" => Rule {
        audited_refusal: Some("org_access_token.create"),
        ..OWNER
    };
    /// Update an organization access token.
    OrgAccessTokensUpdate = "org-access-tokens-update" => OWNER;
    /// Delete an organization access token.
    OrgAccessTokensDelete = "org-access-tokens-delete" => OWNER;
    /// Introspect a token of the organization.
    TokensIntrospect = "tokens-introspect" => Rule {
        roles: &[Role::Owner, Role::TokenIntrospector],
        ..PUBLIC
    };
    /// Authorize a request for API Gateway.
    TokensAuthorize = "tokens-authorize" => PUBLIC;
    /// Revoke the tokens that somebody has found.
    TokensLeaked = "tokens-leaked" => PUBLIC;
    /// Revoke the caller's own token, of any kind.
    TokensRevokeSelf = "tokens-revoke-self" => Rule { own_token: true, ..PUBLIC };
    /// Write the ends of tokens that were not used.
    TokensEndUnused = "tokens-end-unused" => SCHEDULED;
    /// Revoke the tokens that GitHub's secret scanning has found.
    IntegrationsGithubSecretScanning = "integrations-github-secret-scanning" => PUBLIC;
    /// Get the caller's principal.
    TokensWhoami = "tokens-whoami" => Rule { authorizer: true, ..PUBLIC };
    /// Register an address for an email-verified token.
    EmailTokensRegister = "email-tokens-register" => PUBLIC;
    /// Get the status of the caller's token.
    EmailTokensStatus = "email-tokens-status" => EMAIL_TOKENS;
    /// Replace the caller's token.
    EmailTokensRegenerate = "email-tokens-regenerate" => EMAIL_TOKENS;
    /// Replace a lost token, with a reset code.
    EmailTokensReset = "email-tokens-reset" => PUBLIC;
    /// Revoke the caller's token.
    EmailTokensRevoke = "email-tokens-revoke" => EMAIL_TOKENS;
    /// Erase what removed tokens have left.
    EmailTokensErase = "email-tokens-erase" => SCHEDULED;
    /// Tell people about leaked tokens.
    LeaksSend = "leaks-send" => SCHEDULED;
    /// Remind people of tokens that are about to expire, and tell what organizations have asked for.
    RemindersSend = "reminders-send" => SCHEDULED;
    /// Issue an org user token.
    OrgUserTokensIssue = "org-user-tokens-issue" => Rule {
        roles: &[Role::Owner, Role::Manager, Role::TokenIssuer],
        needs_subscription: true,
        audited_refusal: Some("org_user_token.issue"),
        ..PUBLIC
    };
    /// List org user tokens.
    OrgUserTokensList = "org-user-tokens-list" => Rule {
        roles: &[Role::Owner, Role::Manager],
        ..PUBLIC
    };
    /// Replace an org user token with a successor.
    OrgUserTokensRotate = "org-user-tokens-rotate" => Rule {
        roles: &[Role::Owner, Role::Manager],
        needs_subscription: true,
        audited_refusal: Some("org_user_token.rotate"),
        ..PUBLIC
    };
    /// Revoke one org user token.
    OrgUserTokensRevoke = "org-user-tokens-revoke" => Rule {
        roles: &[Role::Owner, Role::Manager],
        ..PUBLIC
    };
    /// Probe whether an org user token is active.
    OrgUserTokensProbe = "org-user-tokens-probe" => Rule {
        roles: &[Role::Owner, Role::Manager, Role::TokenIssuer],
        ..PUBLIC
    };
    /// Revoke all org user tokens of one user identifier.
    OrgUserTokensRevokeByUser = "org-user-tokens-revoke-by-user" => Rule {
        roles: &[Role::Owner, Role::Manager],
        ..PUBLIC
    };
    /// Provision a person.
    ScimUsersCreate = "scim-users-create" => SCIM;
    /// Get a provisioned person.
    ScimUsersGet = "scim-users-get" => SCIM;
    /// List provisioned people.
    ScimUsersList = "scim-users-list" => SCIM;
    /// End or restore the membership of a provisioned person.
    ScimUsersUpdate = "scim-users-update" => SCIM;
    /// End the membership of a provisioned person for good.
    ScimUsersDelete = "scim-users-delete" => SCIM;
    /// The page of organization access tokens.
    ConsoleAccessTokens = "console-access-tokens" => CONSOLE;
    /// The page of the own account: language, sessions, invitations.
    ConsoleAccount = "console-account" => CONSOLE;
    /// The page of API keys.
    ConsoleApiKeys = "console-api-keys" => CONSOLE;
    /// The stylesheet and the script of the console.
    ConsoleAssets = "console-assets" => CONSOLE;
    /// The page of the audit log.
    ConsoleAuditLog = "console-audit-log" => CONSOLE;
    /// The page of bots.
    ConsoleBots = "console-bots" => Rule { roles: &[Role::Owner], ..CONSOLE };
    /// The page of the installation log.
    ConsoleInstallations = "console-installations" => CONSOLE;
    /// The page of members and invitations.
    ConsoleMembers = "console-members" => Rule { roles: &[Role::Owner], ..CONSOLE };
    /// The page of the own org user tokens, which every member may issue.
    ConsoleMyTokens = "console-my-tokens" => Rule {
        needs_subscription: true,
        audited_refusal: Some("org_user_token.issue"),
        ..CONSOLE
    };
    /// The page of org user tokens.
    ConsoleOrgUserTokens = "console-org-user-tokens" => CONSOLE;
    /// The first page: organizations, and what happened in one.
    ConsoleOverview = "console-overview" => CONSOLE;
    /// The page of policies: how long tokens live.
    ConsolePolicies = "console-policies" => Rule { roles: &[Role::Owner], ..CONSOLE };
    /// The page of projects.
    ConsoleProjects = "console-projects" => Rule { roles: &[Role::Owner], ..CONSOLE };
    /// Come back from the identity provider.
    SignInCallback = "sign-in-callback" => CONSOLE;
    /// Sign in with a code that is sent by mail.
    SignInCode = "sign-in-code" => CONSOLE;
    /// End the own session.
    SignInSignOut = "sign-in-sign-out" => CONSOLE;
    /// Choose how to sign in, and go to the identity provider.
    SignInStart = "sign-in-start" => CONSOLE;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_common_rule_admits_its_callers_and_nobody_else() {
        let admitted = |operation: Operation| {
            let rule = operation.rule();
            (rule.roles, rule.scope, rule.email_tokens, rule.registry_tokens, rule.authorizer)
        };
        assert_eq!(admitted(Operation::DocsOpenapi), (&[][..], None, false, false, false));
        assert_eq!(admitted(Operation::OrgAccessTokensList), (&[Role::Owner][..], None, false, false, false));
        assert_eq!(admitted(Operation::EmailTokensStatus), (&[][..], None, true, false, false));
        assert_eq!(admitted(Operation::RegistryNpm), (&[][..], None, false, true, false));
        assert_eq!(admitted(Operation::TokensWhoami), (&[][..], None, false, false, true));
    }

    #[test]
    fn role_names_parse_and_serialize_unchanged() {
        for &role in Role::ALL {
            assert_eq!(Role::parse(role.as_str()), Some(role));
            assert_eq!(serde_json::to_value(role).unwrap(), role.as_str());
        }
        assert_eq!(Role::parse("organization/admin"), None);
    }

    #[test]
    fn owners_may_perform_every_operation_that_needs_a_role() {
        for operation in Operation::ALL {
            let roles = operation.rule().roles;
            assert!(roles.is_empty() || roles.contains(&Role::Owner), "{}", operation.name());
        }
    }
}
