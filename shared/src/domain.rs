//! The words the service speaks: each value is checked where it enters, and valid from then on.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Who an org user token is for: 4–255 characters of ASCII letters, digits and `. _ @ + -`, case-sensitive.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(try_from = "String")]
#[schema(value_type = String, min_length = 4, max_length = 255, pattern = "^[A-Za-z0-9._@+-]+$", example = "alice-laptop")]
pub struct UserIdentifier(String);

impl UserIdentifier {
    /// The identifier as it is written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn allows(character: char) -> bool {
        character.is_ascii_alphanumeric() || matches!(character, '.' | '_' | '@' | '+' | '-')
    }
}

impl TryFrom<String> for UserIdentifier {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        if !text.chars().all(Self::allows) {
            return Err("may contain only ASCII letters, digits and . _ @ + -");
        }
        if !(4..=255).contains(&text.len()) {
            return Err("must have 4 to 255 characters");
        }
        Ok(Self(text))
    }
}

/// The beginning of a [`UserIdentifier`], to search by: 1–255 of the same characters.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(try_from = "String")]
#[schema(value_type = String, min_length = 1, max_length = 255, pattern = "^[A-Za-z0-9._@+-]+$", example = "alice")]
pub struct UserIdentifierPrefix(String);

impl UserIdentifierPrefix {
    /// The prefix as it is written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for UserIdentifierPrefix {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        if !text.chars().all(UserIdentifier::allows) {
            return Err("may contain only ASCII letters, digits and . _ @ + -");
        }
        // An empty prefix would list everything, and is most often a variable that was not set.
        if !(1..=255).contains(&text.len()) {
            return Err("must have 1 to 255 characters; leave it out to list all");
        }
        Ok(Self(text))
    }
}

/// Whether a token counts. Revoked is for good; expiry is a matter of the clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum TokenState {
    /// It counts.
    Active,
    /// Its time is over.
    Expired,
    /// It was revoked.
    Revoked,
}

impl TokenState {
    /// Every state, in the order in which a token passes through them. A reader who looks into the listings in this
    /// order misses no token that moves meanwhile.
    pub const ALL: [TokenState; 3] = [TokenState::Active, TokenState::Expired, TokenState::Revoked];
}

/// Which tokens to list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum StateFilter {
    /// Those that count.
    #[default]
    Active,
    /// Those that were revoked.
    Revoked,
    /// Those whose time is over.
    Expired,
    /// All of them.
    All,
}

impl StateFilter {
    /// The states that pass, in the order of [`TokenState::ALL`].
    pub fn states(self) -> &'static [TokenState] {
        match self {
            StateFilter::Active => &[TokenState::Active],
            StateFilter::Revoked => &[TokenState::Revoked],
            StateFilter::Expired => &[TokenState::Expired],
            StateFilter::All => &TokenState::ALL,
        }
    }
}

/// What an organization pays for. It bounds the API keys that may be active at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Plan {
    /// 3 API keys.
    Free,
    /// 10 API keys.
    Developer,
    /// 20 API keys.
    Pro,
    /// No limit.
    Enterprise,
}

impl Plan {
    /// How many API keys may be active at once; `None` where there is no limit.
    pub fn max_api_keys(self) -> Option<u64> {
        match self {
            Plan::Free => Some(3),
            Plan::Developer => Some(10),
            Plan::Pro => Some(20),
            Plan::Enterprise => None,
        }
    }
}

/// What an API key may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
pub enum Scope {
    /// Read scan results and detection history.
    #[serde(rename = "shield:read")]
    ShieldRead,
    /// Run scans, tokenize, and rehydrate.
    #[serde(rename = "shield:write")]
    ShieldWrite,
    /// Read audit log entries.
    #[serde(rename = "audit:read")]
    AuditRead,
    /// View gateway fleet status.
    #[serde(rename = "fleet:read")]
    FleetRead,
    /// Register and manage gateways.
    #[serde(rename = "fleet:write")]
    FleetWrite,
    /// Read policy configurations.
    #[serde(rename = "policy:read")]
    PolicyRead,
    /// Create and update policies.
    #[serde(rename = "policy:write")]
    PolicyWrite,
    /// Read organization settings: here, list API keys.
    #[serde(rename = "org:read")]
    OrgRead,
    /// Update organization settings, manage members: here, create and revoke API keys.
    #[serde(rename = "org:write")]
    OrgWrite,
}

impl Scope {
    /// Every scope there is.
    pub const ALL: [Scope; 9] = [
        Scope::ShieldRead,
        Scope::ShieldWrite,
        Scope::AuditRead,
        Scope::FleetRead,
        Scope::FleetWrite,
        Scope::PolicyRead,
        Scope::PolicyWrite,
        Scope::OrgRead,
        Scope::OrgWrite,
    ];

    /// The scope as it is written.
    pub const fn as_str(self) -> &'static str {
        match self {
            Scope::ShieldRead => "shield:read",
            Scope::ShieldWrite => "shield:write",
            Scope::AuditRead => "audit:read",
            Scope::FleetRead => "fleet:read",
            Scope::FleetWrite => "fleet:write",
            Scope::PolicyRead => "policy:read",
            Scope::PolicyWrite => "policy:write",
            Scope::OrgRead => "org:read",
            Scope::OrgWrite => "org:write",
        }
    }

    /// Reads a scope as it is written.
    pub fn parse(text: &str) -> Option<Self> {
        Scope::ALL.into_iter().find(|scope| scope.as_str() == text)
    }
}

/// The scopes of an API key: at least one, none twice. An empty list never means all.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(try_from = "Vec<Scope>")]
#[schema(value_type = HashSet<Scope>, min_items = 1, max_items = 9)]
pub struct Scopes(Vec<Scope>);

impl Scopes {
    /// Whether this scope is among them.
    pub fn contains(&self, scope: Scope) -> bool {
        self.0.contains(&scope)
    }

    /// Whether all of those are among these.
    pub fn cover(&self, others: &Scopes) -> bool {
        others.0.iter().all(|scope| self.contains(*scope))
    }

    /// The scopes, in the order they were given.
    pub fn as_slice(&self) -> &[Scope] {
        &self.0
    }
}

impl TryFrom<Vec<Scope>> for Scopes {
    type Error = &'static str;

    fn try_from(scopes: Vec<Scope>) -> Result<Self, Self::Error> {
        if scopes.is_empty() {
            return Err("must name at least one scope");
        }
        if scopes.iter().enumerate().any(|(place, scope)| scopes[..place].contains(scope)) {
            return Err("must not name a scope twice");
        }
        Ok(Self(scopes))
    }
}

/// Where an API key is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Environment {
    /// Production.
    Live,
    /// Test and development.
    Test,
}

/// Whose packages a registry holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Ecosystem {
    /// npm's: JavaScript.
    Npm,
    /// PyPI's: Python.
    Pypi,
}

impl Ecosystem {
    /// Every ecosystem there is.
    pub const ALL: [Ecosystem; 2] = [Ecosystem::Npm, Ecosystem::Pypi];

    /// The ecosystem as it is written.
    pub const fn as_str(self) -> &'static str {
        match self {
            Ecosystem::Npm => "npm",
            Ecosystem::Pypi => "pypi",
        }
    }

    /// A package's one name, of all that it may be called by. PyPI's are lower-case, with one `-` for any run of `-`, `_`
    /// and `.` (PEP 503); npm's names are what they are.
    pub fn normalized(self, package: &str) -> String {
        if self == Ecosystem::Npm {
            return package.to_owned();
        }
        let mut name = String::with_capacity(package.len());
        for character in package.chars() {
            match character {
                '-' | '_' | '.' if name.ends_with('-') => {}
                '-' | '_' | '.' => name.push('-'),
                other => name.push(other.to_ascii_lowercase()),
            }
        }
        name
    }
}

/// The role of an organization access token. Each may what those before it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum AccessRole {
    /// Look.
    #[default]
    Readonly,
    /// Look and operate.
    Operator,
    /// Look, operate and manage.
    Manager,
}

/// A name for people: 1–100 characters, none of them a control character, no space at either end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(try_from = "String")]
#[schema(value_type = String, min_length = 1, max_length = 100, pattern = r"^[^\x00-\x1f\x7f-\x9f]+$", example = "ci-pipeline")]
pub struct Name(String);

impl Name {
    /// The name as it is written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Name {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        if text.chars().any(char::is_control) {
            return Err("must not contain control characters");
        }
        // They make two names look like one, or a name like another.
        if text.chars().any(is_invisible) {
            return Err("must not contain invisible characters");
        }
        if text.trim() != text {
            return Err("must not begin or end with a space");
        }
        if !(1..=100).contains(&text.chars().count()) {
            return Err("must have 1 to 100 characters");
        }
        Ok(Self(text))
    }
}

/// Characters that show nothing, or turn the direction of what is around them.
fn is_invisible(character: char) -> bool {
    matches!(character,
        '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}'
        | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

/// The id of a project: 1–64 of ASCII letters, digits and `. _ -`, beginning with a letter or digit; case-sensitive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(try_from = "String")]
#[schema(value_type = String, min_length = 1, max_length = 64, pattern = "^[A-Za-z0-9][A-Za-z0-9._-]*$", example = "prd-greenhouse")]
pub struct ProjectId(String);

impl ProjectId {
    /// The id as it is written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for ProjectId {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        if !(1..=64).contains(&text.len()) || !text.chars().all(allowed) {
            return Err("must have 1 to 64 of ASCII letters, digits and . _ -");
        }
        if !text.starts_with(|first: char| first.is_ascii_alphanumeric()) {
            return Err("must begin with a letter or digit");
        }
        Ok(Self(text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scope_reads_back_as_it_is_written_and_stored() {
        for scope in Scope::ALL {
            assert_eq!(Scope::parse(scope.as_str()), Some(scope));
            assert_eq!(serde_json::to_value(scope).unwrap(), scope.as_str());
        }
        assert_eq!(Scope::parse("org:*"), None);
    }

    #[test]
    fn an_ecosystem_is_stored_as_it_is_written() {
        for ecosystem in Ecosystem::ALL {
            assert_eq!(serde_json::to_value(ecosystem).unwrap(), ecosystem.as_str());
        }
    }

    #[test]
    fn python_packages_have_one_name() {
        // The examples of PEP 503.
        for spelling in ["friendly-bard", "Friendly-Bard", "FRIENDLY-BARD", "friendly.bard", "FrIeNdLy-._.-bArD"] {
            assert_eq!(Ecosystem::Pypi.normalized(spelling), "friendly-bard", "{spelling}");
        }
        assert_eq!(Ecosystem::Npm.normalized("@Scope/a_b"), "@Scope/a_b");
    }

    #[test]
    fn no_scopes_are_not_all_scopes() {
        assert!(Scopes::try_from(vec![]).is_err());
        assert!(Scopes::try_from(vec![Scope::OrgRead, Scope::OrgRead]).is_err());
        let [one, two] =
            [vec![Scope::OrgRead], vec![Scope::OrgRead, Scope::OrgWrite]].map(|s| Scopes::try_from(s).unwrap());
        assert!(two.cover(&one) && !one.cover(&two));
    }

    #[test]
    fn project_ids_are_identifiers() {
        for good in ["a", "prd-greenhouse", "A_1.b", "0", &"a".repeat(64)] {
            assert!(ProjectId::try_from(good.to_owned()).is_ok(), "{good}");
        }
        for bad in ["", "-a", ".a", "..", "_a", "a b", "a/b", "a#b", "*", "é", "a\n", &"a".repeat(65)] {
            assert!(ProjectId::try_from(bad.to_owned()).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn identifiers_have_4_to_255_of_the_allowed_characters() {
        let long = "a".repeat(255);
        for good in ["alice@example.com", "C02X1234_jdoe", "ASSET0042_EMP12345", "a.b+c-d", "0000", long.as_str()] {
            assert!(UserIdentifier::try_from(good.to_owned()).is_ok(), "{good}");
        }
        let too_long = "a".repeat(256);
        for bad in
            ["", "abc", too_long.as_str(), "ali ce", "alice#", "alice/x", "älice", "alice\n", "al\0ce", "alice😀"]
        {
            assert!(UserIdentifier::try_from(bad.to_owned()).is_err(), "{bad:?}");
        }
    }
}
