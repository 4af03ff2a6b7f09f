//! Who calls, and what each may do: one table, [`Operation::rule`], read by the guards of [`crate::auth`].

use serde::{Deserialize, Serialize};

use crate::ids::{BotId, OrgId, TokenId};
use crate::secret::TokenHash;
use crate::store::email_tokens::EmailToken;

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
    /// A person, with an e-mail-verified token.
    Email {
        /// The token, as it is stored.
        token: EmailToken,
        /// Its hash.
        hash: TokenHash,
    },
    /// A member of an organization, with an org user token.
    OrgUser {
        /// The token.
        id: TokenId,
        /// The organization it belongs to.
        org_id: OrgId,
    },
}

impl Principal {
    /// For the request log: an id that is no secret.
    pub fn log_id(&self) -> String {
        match self {
            Principal::Bot(bot) => bot.id.to_string(),
            Principal::Email { token, .. } => token.id.to_string(),
            Principal::OrgUser { id, .. } => id.to_string(),
        }
    }
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
    /// Holders of e-mail-verified tokens may, for their own.
    pub email_tokens: bool,
    /// The organization needs an active subscription with Guard enabled.
    pub needs_guard: bool,
    /// The audit log's name for it, where a refusal for role or plan is to be kept: operations that mint.
    pub audited_refusal: Option<&'static str>,
}

/// The rule of operations that need no credential.
const PUBLIC: Rule = Rule { roles: &[], email_tokens: false, needs_guard: false, audited_refusal: None };

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
