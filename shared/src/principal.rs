//! Who calls, and what each may do: one table, [`Operation::rule`], read by the guards of [`crate::auth`].

use serde::{Deserialize, Serialize};

use crate::domain::Scope;
use crate::ids::{BotId, OrgId};
use crate::secret::TokenHash;
use crate::store::tokens::StoredToken;

/// What a bot was made to do. An unknown role in the table grants nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Role {
    /// Everything in its organization.
    #[serde(rename = "organization/owner")]
    Owner,
    /// Issue and probe org user tokens.
    #[serde(rename = "organization/takumi_guard_token_issuer")]
    TokenIssuer,
    /// Also list and revoke them, and read the installation and audit logs.
    #[serde(rename = "organization/takumi_manager")]
    Manager,
    /// Create, list and revoke API keys.
    #[serde(rename = "organization/api_key_manager")]
    ApiKeyManager,
    /// Introspect any token of its organization.
    #[serde(rename = "organization/token_introspector")]
    TokenIntrospector,
}

impl Role {
    /// Every role there is.
    pub const ALL: [Role; 5] =
        [Role::Owner, Role::TokenIssuer, Role::Manager, Role::ApiKeyManager, Role::TokenIntrospector];

    /// The role as it is written.
    pub const fn as_str(self) -> &'static str {
        match self {
            Role::Owner => "organization/owner",
            Role::TokenIssuer => "organization/takumi_guard_token_issuer",
            Role::Manager => "organization/takumi_manager",
            Role::ApiKeyManager => "organization/api_key_manager",
            Role::TokenIntrospector => "organization/token_introspector",
        }
    }

    /// Reads a role as it is written.
    pub fn parse(text: &str) -> Option<Self> {
        Role::ALL.into_iter().find(|role| role.as_str() == text)
    }
}

/// A caller whose credential is good.
#[derive(Debug, Clone)]
pub enum Principal {
    /// A bot of an organization.
    Bot(Bot),
    /// The holder of a token.
    Holder(Box<Holder>),
}

impl Principal {
    /// For the request log: an id that is no secret.
    pub fn log_id(&self) -> String {
        match self {
            Principal::Bot(bot) => bot.id.to_string(),
            Principal::Holder(holder) => holder.token.id(),
        }
    }
}

/// The holder of a token that counts.
#[derive(Debug, Clone)]
pub struct Holder {
    /// The token, as it is stored.
    pub token: StoredToken,
    /// Its hash.
    pub hash: TokenHash,
}

/// A bot whose API key was right.
#[derive(Debug, Clone)]
pub struct Bot {
    /// Its id.
    pub id: BotId,
    /// The one organization it belongs to.
    pub org_id: OrgId,
    /// What it may do.
    pub roles: Vec<Role>,
}

/// What an operation asks of its caller.
#[derive(Debug, Clone, Copy)]
pub struct Rule {
    /// The roles of which a bot needs one; empty where no bot may call.
    pub roles: &'static [Role],
    /// The scope with which an API key may, if any may.
    pub scope: Option<Scope>,
    /// Holders of e-mail-verified tokens may, for their own.
    pub email_tokens: bool,
    /// Holders of e-mail-verified and of org user tokens may: the registries.
    pub registry_tokens: bool,
    /// The authorizer stands before it, and lets in the holder of any credential that counts.
    pub authorizer: bool,
    /// The organization needs an active subscription with Guard enabled.
    pub needs_guard: bool,
    /// The audit log's name for it, where a refusal for role or plan is to be kept: operations that mint.
    pub audited_refusal: Option<&'static str>,
}

/// The rule of operations that need no credential.
const PUBLIC: Rule = Rule {
    roles: &[],
    scope: None,
    email_tokens: false,
    registry_tokens: false,
    authorizer: false,
    needs_guard: false,
    audited_refusal: None,
};

/// The rule of operations that are the owner's.
const OWNER: Rule = Rule { roles: &[Role::Owner], ..PUBLIC };

/// The rule of the registries.
const REGISTRY: Rule = Rule { registry_tokens: true, ..PUBLIC };

/// The rule of operations of the holders of e-mail-verified tokens.
const EMAIL_TOKENS: Rule = Rule { email_tokens: true, ..PUBLIC };

macro_rules! operations {
    ($($(#[$doc:meta])* $name:ident = $text:literal => $rule:expr;)+) => {
        /// Everything that can be asked of the service, by the name of its function.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Operation {
            $($(#[$doc])* $name,)+
        }

        impl Operation {
            /// Every operation there is.
            pub const ALL: &[Operation] = &[$(Operation::$name),+];

            /// The name of the function: folder, crate, binary, event and `operationId`.
            pub const fn name(self) -> &'static str {
                match self { $(Operation::$name => $text,)+ }
            }

            /// Who may do it.
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

/// An [`Operation`] as a type, so that a handler's signature names its guard: `BotWith<OrgUserTokensIssue>`.
pub trait Guarded: Send + Sync + 'static {
    /// The operation.
    const OPERATION: Operation;
}

operations! {
    /// The OpenAPI document.
    DocsOpenapi = "docs-openapi" => PUBLIC;
    /// What is at no path.
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
    /// Read the installation log.
    InstallationsList = "installations-list" => Rule {
        roles: &[Role::Owner, Role::Manager],
        needs_guard: true,
        ..PUBLIC
    };
    /// Install npm packages.
    RegistryNpm = "registry-npm" => REGISTRY;
    /// Install Python packages.
    RegistryPypi = "registry-pypi" => REGISTRY;
    /// List organization access tokens.
    OrgAccessTokensList = "org-access-tokens-list" => OWNER;
    /// Create an organization access token.
    OrgAccessTokensCreate = "org-access-tokens-create" => Rule {
        audited_refusal: Some("org_access_token.create"),
        ..OWNER
    };
    /// Change an organization access token.
    OrgAccessTokensUpdate = "org-access-tokens-update" => OWNER;
    /// Delete an organization access token.
    OrgAccessTokensDelete = "org-access-tokens-delete" => OWNER;
    /// Ask what a token of the organization is good for.
    TokensIntrospect = "tokens-introspect" => Rule {
        roles: &[Role::Owner, Role::TokenIntrospector],
        ..PUBLIC
    };
    /// Decide on behalf of API Gateway whether a request comes in.
    TokensAuthorize = "tokens-authorize" => PUBLIC;
    /// Read who one is. The authorizer stands before it.
    TokensWhoami = "tokens-whoami" => Rule { authorizer: true, ..PUBLIC };
    /// Register an address for an e-mail-verified token.
    EmailTokensRegister = "email-tokens-register" => PUBLIC;
    /// Read a token's own status.
    EmailTokensStatus = "email-tokens-status" => EMAIL_TOKENS;
    /// Put a new token in the place of one's own.
    EmailTokensRegenerate = "email-tokens-regenerate" => EMAIL_TOKENS;
    /// Put a new token in the place of a lost one, with a code from a mail.
    EmailTokensReset = "email-tokens-reset" => PUBLIC;
    /// Revoke one's own token.
    EmailTokensRevoke = "email-tokens-revoke" => EMAIL_TOKENS;
    /// Mint an org user token.
    OrgUserTokensIssue = "org-user-tokens-issue" => Rule {
        roles: &[Role::Owner, Role::Manager, Role::TokenIssuer],
        needs_guard: true,
        audited_refusal: Some("org_user_token.issue"),
        ..PUBLIC
    };
    /// List org user tokens.
    OrgUserTokensList = "org-user-tokens-list" => Rule {
        roles: &[Role::Owner, Role::Manager],
        needs_guard: true,
        ..PUBLIC
    };
    /// Revoke one org user token.
    OrgUserTokensRevoke = "org-user-tokens-revoke" => Rule {
        roles: &[Role::Owner, Role::Manager],
        needs_guard: true,
        ..PUBLIC
    };
    /// Ask whether an org user token is active.
    OrgUserTokensProbe = "org-user-tokens-probe" => Rule {
        roles: &[Role::Owner, Role::Manager, Role::TokenIssuer],
        needs_guard: true,
        ..PUBLIC
    };
    /// Revoke all org user tokens of one user identifier.
    OrgUserTokensRevokeByUser = "org-user-tokens-revoke-by-user" => Rule {
        roles: &[Role::Owner, Role::Manager],
        needs_guard: true,
        ..PUBLIC
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_role_reads_back_as_it_is_written_and_stored() {
        for role in Role::ALL {
            assert_eq!(Role::parse(role.as_str()), Some(role));
            assert_eq!(serde_json::to_value(role).unwrap(), role.as_str());
        }
        assert_eq!(Role::parse("organization/admin"), None);
    }

    #[test]
    fn the_owner_may_do_everything_that_needs_a_role() {
        for operation in Operation::ALL {
            let roles = operation.rule().roles;
            assert!(roles.is_empty() || roles.contains(&Role::Owner), "{}", operation.name());
        }
    }
}
