//! Domain types. Each value is validated when it is parsed, and valid from then on.

use std::borrow::{Borrow, Cow};

use icu_normalizer::ComposingNormalizerBorrowed;
use icu_properties::CodePointSetData;
use icu_properties::props::{BidiControl, DefaultIgnorableCodePoint};
use serde::{Deserialize, Deserializer, Serialize};
use strum::{EnumString, IntoStaticStr, VariantArray};
use utoipa::ToSchema;

/// A value as stored: one that this version knows, or the text that another version wrote. An
/// unknown value grants nothing and is shown as it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum OrUnknown<T> {
    /// A value of this version.
    Known(T),
    /// The text of another version.
    Unknown(String),
}

impl<T: Copy> OrUnknown<T> {
    /// The value; `None` if this version does not know it.
    pub fn known(&self) -> Option<T> {
        match self {
            OrUnknown::Known(value) => Some(*value),
            OrUnknown::Unknown(_) => None,
        }
    }
}

impl<T: Copy + Into<&'static str>> OrUnknown<T> {
    /// The value as text.
    pub fn as_str(&self) -> &str {
        match self {
            OrUnknown::Known(value) => (*value).into(),
            OrUnknown::Unknown(text) => text,
        }
    }
}

impl<T> From<T> for OrUnknown<T> {
    fn from(value: T) -> Self {
        OrUnknown::Known(value)
    }
}

impl<T: Default> Default for OrUnknown<T> {
    fn default() -> Self {
        OrUnknown::Known(T::default())
    }
}

impl<T: PartialEq> PartialEq<T> for OrUnknown<T> {
    fn eq(&self, other: &T) -> bool {
        matches!(self, OrUnknown::Known(value) if value == other)
    }
}

/// The scopes or roles of a stored credential. It may hold unknown ones, which grant nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Held<T>(Vec<OrUnknown<T>>);

impl<T: PartialEq> Held<T> {
    /// Whether this one is held.
    pub fn contains(&self, value: impl Borrow<T>) -> bool {
        self.0.iter().any(|held| held == value.borrow())
    }

    /// All of them, in the order they were given.
    pub fn as_slice(&self) -> &[OrUnknown<T>] {
        &self.0
    }
}

impl Held<Scope> {
    /// Whether all of these scopes are held.
    pub fn cover(&self, scopes: &Scopes) -> bool {
        scopes.0.iter().all(|scope| self.contains(scope))
    }
}

impl From<Scopes> for Held<Scope> {
    fn from(scopes: Scopes) -> Self {
        scopes.0.into_iter().map(OrUnknown::Known).collect()
    }
}

impl<T> FromIterator<OrUnknown<T>> for Held<T> {
    fn from_iter<I: IntoIterator<Item = OrUnknown<T>>>(values: I) -> Self {
        Self(values.into_iter().collect())
    }
}

/// The user that an org user token is for: 4–255 ASCII letters, digits and `. _ @ + -`.
/// Case-sensitive.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(try_from = "String")]
#[schema(value_type = String, min_length = 4, max_length = 255, pattern = "^[A-Za-z0-9._@+-]+$", example = "alice-laptop")]
pub struct UserIdentifier(String);

impl UserIdentifier {
    /// The identifier as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether identifiers may contain this character.
    pub fn allows(character: char) -> bool {
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

/// A prefix of a [`UserIdentifier`], to filter by: 1–255 of the same characters.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(try_from = "String")]
#[schema(value_type = String, min_length = 1, max_length = 255, pattern = "^[A-Za-z0-9._@+-]+$", example = "alice")]
pub struct UserIdentifierPrefix(String);

impl UserIdentifierPrefix {
    /// The prefix as text.
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
        // An empty prefix would match everything, and usually comes from an unset variable.
        if !(1..=255).contains(&text.len()) {
            return Err("must have 1 to 255 characters; omit it to list everything");
        }
        Ok(Self(text))
    }
}

/// The state of a token. Revocation is permanent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema, IntoStaticStr)]
#[serde(rename_all = "lowercase")]
#[strum(serialize_all = "lowercase")]
pub enum TokenState {
    /// The token can be used.
    Active,
    /// The token is past its `expires_at`.
    Expired,
    /// The token was revoked.
    Revoked,
}

impl TokenState {
    /// Every state, in the order that a token passes through them. Reading the listings in this
    /// order misses no token that changes state meanwhile.
    pub const ALL: [TokenState; 3] = [TokenState::Active, TokenState::Expired, TokenState::Revoked];
}

/// A filter by state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum StateFilter {
    /// Active tokens.
    #[default]
    Active,
    /// Revoked tokens.
    Revoked,
    /// Expired tokens.
    Expired,
    /// Tokens in any state.
    All,
}

impl StateFilter {
    /// The matching states, in the order of [`TokenState::ALL`].
    pub fn states(self) -> &'static [TokenState] {
        match self {
            StateFilter::Active => &[TokenState::Active],
            StateFilter::Revoked => &[TokenState::Revoked],
            StateFilter::Expired => &[TokenState::Expired],
            StateFilter::All => &TokenState::ALL,
        }
    }
}

/// The organization's plan. It limits the number of active API keys.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema, EnumString, IntoStaticStr, VariantArray,
)]
#[serde(rename_all = "lowercase")]
#[strum(serialize_all = "lowercase")]
pub enum Plan {
    /// 3 active API keys.
    Free,
    /// 10 active API keys.
    Developer,
    /// 20 active API keys.
    Pro,
    /// No limit.
    Enterprise,
}

impl Plan {
    /// Every plan.
    pub const ALL: &[Plan] = Plan::VARIANTS;

    /// The plan as text.
    pub fn as_str(self) -> &'static str {
        self.into()
    }

    /// The maximum number of active API keys; `None` means unlimited.
    pub fn max_api_keys(self) -> Option<u64> {
        match self {
            Plan::Free => Some(3),
            Plan::Developer => Some(10),
            Plan::Pro => Some(20),
            Plan::Enterprise => None,
        }
    }
}

impl OrUnknown<Plan> {
    /// The maximum number of active API keys; `None` means unlimited. An unknown plan allows none.
    pub fn max_api_keys(&self) -> Option<u64> {
        match self {
            OrUnknown::Known(plan) => plan.max_api_keys(),
            OrUnknown::Unknown(_) => Some(0),
        }
    }
}

/// What happens to an organization's token that somebody reports as leaked.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    Default,
    Serialize,
    Deserialize,
    ToSchema,
    EnumString,
    IntoStaticStr,
    VariantArray,
)]
#[serde(rename_all = "kebab-case")]
#[strum(serialize_all = "kebab-case")]
pub enum LeakPolicy {
    /// It is revoked, and the security contacts are told.
    #[default]
    Revoke,
    /// The security contacts are told. It stays active.
    TellOnly,
}

impl LeakPolicy {
    /// Every policy.
    pub const ALL: &[LeakPolicy] = LeakPolicy::VARIANTS;

    /// The policy as text.
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

/// What an organization's security contacts may ask to be told, besides leaks and what expires.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, EnumString, IntoStaticStr, VariantArray,
)]
#[serde(rename_all = "kebab-case")]
#[strum(serialize_all = "kebab-case")]
pub enum Notify {
    /// A token of the organization was made.
    NewToken,
    /// The API key of a bot was replaced.
    BotKeyRotated,
}

impl Notify {
    /// Everything that may be asked for.
    pub const ALL: &[Notify] = Notify::VARIANTS;

    /// As text.
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

/// A permission of an API key.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Serialize,
    Deserialize,
    ToSchema,
    EnumString,
    IntoStaticStr,
    VariantArray,
)]
pub enum Scope {
    /// Read scan results and detection history.
    #[serde(rename = "shield:read")]
    #[strum(serialize = "shield:read")]
    ShieldRead,
    /// Run scans, tokenize, and rehydrate.
    #[serde(rename = "shield:write")]
    #[strum(serialize = "shield:write")]
    ShieldWrite,
    /// Read audit log entries.
    #[serde(rename = "audit:read")]
    #[strum(serialize = "audit:read")]
    AuditRead,
    /// View gateway fleet status.
    #[serde(rename = "fleet:read")]
    #[strum(serialize = "fleet:read")]
    FleetRead,
    /// Register and manage gateways.
    #[serde(rename = "fleet:write")]
    #[strum(serialize = "fleet:write")]
    FleetWrite,
    /// Read policy configurations.
    #[serde(rename = "policy:read")]
    #[strum(serialize = "policy:read")]
    PolicyRead,
    /// Create and update policies.
    #[serde(rename = "policy:write")]
    #[strum(serialize = "policy:write")]
    PolicyWrite,
    /// Read organization settings, such as the list of API keys.
    #[serde(rename = "org:read")]
    #[strum(serialize = "org:read")]
    OrgRead,
    /// Update organization settings and manage members; create and revoke API keys.
    #[serde(rename = "org:write")]
    #[strum(serialize = "org:write")]
    OrgWrite,
}

impl Scope {
    /// Every scope.
    pub const ALL: &[Scope] = Scope::VARIANTS;

    /// The scope as text.
    pub fn as_str(self) -> &'static str {
        self.into()
    }

    /// Parses a scope.
    pub fn parse(text: &str) -> Option<Self> {
        text.parse().ok()
    }
}

/// The scopes of a new API key: at least one, no duplicates. An empty list never means all.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(try_from = "Vec<Scope>")]
#[schema(value_type = HashSet<Scope>, min_items = 1, max_items = 9)]
pub struct Scopes(Vec<Scope>);

impl Scopes {
    /// The scopes, in the order they were given.
    pub fn as_slice(&self) -> &[Scope] {
        &self.0
    }
}

impl TryFrom<Vec<Scope>> for Scopes {
    type Error = &'static str;

    fn try_from(scopes: Vec<Scope>) -> Result<Self, Self::Error> {
        if scopes.is_empty() {
            return Err("must contain at least one scope");
        }
        if scopes.iter().enumerate().any(|(place, scope)| scopes[..place].contains(scope)) {
            return Err("must not contain a scope twice");
        }
        Ok(Self(scopes))
    }
}

/// The environment of an API key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema, IntoStaticStr)]
#[serde(rename_all = "lowercase")]
#[strum(serialize_all = "lowercase")]
pub enum Environment {
    /// Production.
    Live,
    /// Test and development.
    Test,
}

/// A package ecosystem.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    ToSchema,
    EnumString,
    IntoStaticStr,
    VariantArray,
)]
#[serde(rename_all = "lowercase")]
#[strum(serialize_all = "lowercase")]
pub enum Ecosystem {
    /// npm: JavaScript.
    Npm,
    /// PyPI: Python.
    Pypi,
}

impl Ecosystem {
    /// Every ecosystem.
    pub const ALL: &[Ecosystem] = Ecosystem::VARIANTS;

    /// The ecosystem as text.
    pub fn as_str(self) -> &'static str {
        self.into()
    }

    /// The normalized name of a package: for PyPI lower-case, with one `-` for any run of `-`, `_`
    /// and `.` (PEP 503); npm names stay unchanged.
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

/// The role of an organization access token. Each role includes the ones before it.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize, ToSchema, IntoStaticStr,
)]
#[serde(rename_all = "lowercase")]
#[strum(serialize_all = "lowercase")]
pub enum AccessRole {
    /// Read.
    #[default]
    Readonly,
    /// Read and operate.
    Operator,
    /// Read, operate and manage.
    Manager,
}

/// A display name: 1–100 characters, without control or invisible characters, and without
/// whitespace at either end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(try_from = "String")]
#[schema(value_type = String, min_length = 1, max_length = 100, pattern = r"^[^\x00-\x1f\x7f-\x9f]+$", example = "ci-pipeline")]
pub struct Name(String);

impl Name {
    /// The name as text, as it was given.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The text by which names are compared: equal for all ways to encode the same characters
    /// (Unicode normalization form C).
    pub fn normalized(&self) -> Cow<'_, str> {
        NFC.normalize(&self.0)
    }

    /// Reads a stored name. An earlier version may have accepted what this one refuses.
    pub fn stored<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Self)
    }
}

impl TryFrom<String> for Name {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        if text.chars().any(char::is_control) {
            return Err("must not contain control characters");
        }
        // They make different names look the same.
        if text.chars().any(is_invisible) {
            return Err("must not contain invisible characters");
        }
        if text.trim() != text {
            return Err("must not begin or end with whitespace");
        }
        // Normalized, some characters become three, and a key has a maximum size.
        let lengths = [text.chars().count(), NFC.normalize(&text).chars().count()];
        if lengths.iter().any(|length| !(1..=100).contains(length)) {
            return Err("must have 1 to 100 characters");
        }
        Ok(Self(text))
    }
}

static NFC: ComposingNormalizerBorrowed<'static> = ComposingNormalizerBorrowed::new_nfc();

/// Characters that are not displayed, or change the direction of the text around them.
fn is_invisible(character: char) -> bool {
    CodePointSetData::new::<DefaultIgnorableCodePoint>().contains(character)
        || CodePointSetData::new::<BidiControl>().contains(character)
        // Separators of lines and paragraphs, and interlinear annotations.
        || matches!(character, '\u{2028}' | '\u{2029}' | '\u{fff9}'..='\u{fffb}')
}

/// The value of an `Idempotency-Key` header: 1–255 printable ASCII characters.
#[derive(Debug, Clone, ToSchema)]
#[schema(value_type = String, min_length = 1, max_length = 255, pattern = "^[!-~]([ -~]*[!-~])?$", example = "8e03978e-40d5-43dd-bc93-6894a57f9324")]
pub struct IdempotencyKey(String);

impl IdempotencyKey {
    /// The name of the header.
    pub const HEADER: &str = "Idempotency-Key";

    /// The key as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for IdempotencyKey {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let is_printable = text.chars().all(|c| c.is_ascii_graphic() || c == ' ');
        if !is_printable || !(1..=255).contains(&text.len()) {
            return Err("must have 1 to 255 printable ASCII characters");
        }
        Ok(Self(text))
    }
}

/// A stored text as one line without control and invisible characters, for mails: it may be older
/// than the rules of [`Name`].
#[cfg(feature = "mail")]
pub(crate) fn on_one_line(text: &str) -> String {
    text.replace(|character: char| character.is_control() || is_invisible(character), " ").trim().to_owned()
}

/// The id of a project: 1–64 ASCII letters, digits and `. _ -`, beginning with a letter or digit.
/// Case-sensitive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(try_from = "String")]
#[schema(value_type = String, min_length = 1, max_length = 64, pattern = "^[A-Za-z0-9][A-Za-z0-9._-]*$", example = "prd-greenhouse")]
pub struct ProjectId(String);

impl ProjectId {
    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for ProjectId {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        if !(1..=64).contains(&text.len()) || !text.chars().all(allowed) {
            return Err("must have 1 to 64 characters, only ASCII letters, digits and . _ -");
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
    fn scope_round_trips_through_text_and_json() {
        for &scope in Scope::ALL {
            assert_eq!(Scope::parse(scope.as_str()), Some(scope));
            assert_eq!(serde_json::to_value(scope).unwrap(), scope.as_str());
        }
        assert_eq!(Scope::parse("org:*"), None);
    }

    #[test]
    fn ecosystem_serializes_as_its_text() {
        for &plan in Plan::ALL {
            assert_eq!(serde_json::to_value(plan).unwrap(), plan.as_str());
        }
        for &ecosystem in Ecosystem::ALL {
            assert_eq!(serde_json::to_value(ecosystem).unwrap(), ecosystem.as_str());
        }
    }

    #[test]
    fn every_spelling_of_a_python_package_has_one_normalized_name() {
        // The examples of PEP 503.
        for spelling in ["friendly-bard", "Friendly-Bard", "FRIENDLY-BARD", "friendly.bard", "FrIeNdLy-._.-bArD"] {
            assert_eq!(Ecosystem::Pypi.normalized(spelling), "friendly-bard", "{spelling}");
        }
        assert_eq!(Ecosystem::Npm.normalized("@Scope/a_b"), "@Scope/a_b");
    }

    #[test]
    fn empty_and_duplicate_scopes_are_refused() {
        assert!(Scopes::try_from(vec![]).is_err());
        assert!(Scopes::try_from(vec![Scope::OrgRead, Scope::OrgRead]).is_err());
        let [one, two] =
            [vec![Scope::OrgRead], vec![Scope::OrgRead, Scope::OrgWrite]].map(|s| Scopes::try_from(s).unwrap());
        let [held_one, held_two] = [&one, &two].map(|scopes| Held::from(scopes.clone()));
        assert!(held_two.cover(&one) && !held_one.cover(&two));
    }

    #[test]
    fn unknown_values_grant_nothing_and_are_kept() {
        let stored = r#"["org:read","org:everything","org:read"]"#;
        let held: Held<Scope> = serde_json::from_str(stored).unwrap();
        assert!(held.contains(Scope::OrgRead) && !held.contains(Scope::OrgWrite));
        assert_eq!(serde_json::to_string(&held).unwrap(), stored);
        let none: Held<Scope> = serde_json::from_str("[]").unwrap();
        assert!(!none.contains(Scope::OrgRead));
        let plan: OrUnknown<Plan> = serde_json::from_str(r#""galactic""#).unwrap();
        assert_eq!((plan.known(), plan.as_str(), plan.max_api_keys()), (None, "galactic", Some(0)));
        let plan: OrUnknown<Plan> = serde_json::from_str(r#""enterprise""#).unwrap();
        assert_eq!((plan.as_str(), plan.max_api_keys()), ("enterprise", None));
        assert!(plan == Plan::Enterprise && plan != Plan::Pro);
    }

    #[test]
    fn name_must_be_visible_trimmed_and_at_most_100_characters() {
        let long = "é".repeat(100);
        let decomposed = "e\u{301}".repeat(50);
        for good in ["a", "Example, Inc.", "日本語の名前", "É", "ابن", "👩", long.as_str(), decomposed.as_str()]
        {
            assert!(Name::try_from(good.to_owned()).is_ok(), "{good}");
        }
        let (too_long, grows) = ("a".repeat(101), "\u{1d160}".repeat(100));
        for bad in ["", " ", " a", "a ", "a\u{a0}", "a\nb", "a\0", "a\u{85}b", too_long.as_str(), grows.as_str()] {
            assert!(Name::try_from(bad.to_owned()).is_err(), "{bad:?}");
        }
        for invisible in [
            // Soft hyphen, combining grapheme joiner, Hangul fillers, variation selectors.
            '\u{ad}',
            '\u{34f}',
            '\u{115f}',
            '\u{1160}',
            '\u{3164}',
            '\u{ffa0}',
            '\u{fe00}',
            '\u{fe0f}',
            '\u{e0100}',
            // Zero width, Khmer inherent vowels, Mongolian separators, shorthand and musical controls, tags.
            '\u{200b}',
            '\u{200d}',
            '\u{2060}',
            '\u{feff}',
            '\u{17b4}',
            '\u{180b}',
            '\u{180f}',
            '\u{1bca0}',
            '\u{1d173}',
            '\u{e0020}',
            '\u{e0fff}',
            // Direction, separators, annotations.
            '\u{61c}',
            '\u{200e}',
            '\u{202a}',
            '\u{202e}',
            '\u{2066}',
            '\u{2069}',
            '\u{2028}',
            '\u{2029}',
            '\u{fff9}',
        ] {
            let error = Name::try_from(format!("a{invisible}b")).unwrap_err();
            assert_eq!(error, "must not contain invisible characters", "{invisible:?}");
        }
    }

    #[test]
    fn stored_name_of_an_earlier_version_is_readable() {
        let text = "a\u{fe0f}b";
        let name = Name::stored(serde_json::json!(text)).unwrap();
        assert_eq!((name.as_str(), serde_json::to_value(&name).unwrap()), (text, serde_json::json!(text)));
        assert!(serde_json::from_value::<Name>(serde_json::json!(text)).is_err());
    }

    #[test]
    fn project_id_is_limited_to_64_identifier_characters() {
        for good in ["a", "prd-greenhouse", "A_1.b", "0", &"a".repeat(64)] {
            assert!(ProjectId::try_from(good.to_owned()).is_ok(), "{good}");
        }
        for bad in ["", "-a", ".a", "..", "_a", "a b", "a/b", "a#b", "*", "é", "a\n", &"a".repeat(65)] {
            assert!(ProjectId::try_from(bad.to_owned()).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn user_identifier_has_4_to_255_of_the_allowed_characters() {
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
