//! Trusts: which CI jobs may act as a bot.
//!
//! A trust names an issuer, an audience and the claims that a job's ID token must have. At least one
//! of them identifies the job's owner and never changes: a name alone can be given up and taken by
//! somebody else.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use url::Url;

use crate::clock::Moment;
use crate::domain::{Held, OrUnknown};
use crate::ids::TrustId;
use crate::permissions::Role;
use crate::store::audit::Subject;

/// The most trusts of a bot.
pub const MAX_TRUSTS: u64 = 20;

/// The most claims of a trust.
const MAX_CLAIMS: usize = 10;

/// The longest claim name, value, issuer and audience, in bytes.
const MAX_TEXT: usize = 255;

/// Claims that identify the owner of a job and never change.
const IDENTITY_CLAIMS: [&str; 6] =
    ["repository_owner_id", "repository_id", "enterprise_id", "project_id", "namespace_id", SUBJECT];

/// The claim of every ID token that names its subject.
pub const SUBJECT: &str = "sub";

/// GitHub's claim for what started a job, and the value of jobs that run with a foreign pull request.
const EVENT_NAME: &str = "event_name";
const PULL_REQUEST_TARGET: &str = "pull_request_target";

/// A trust to add to a bot, valid from its construction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewTrust {
    issuer: String,
    audience: String,
    claims: BTreeMap<String, String>,
    subject_claim: String,
    roles: Vec<Role>,
    may_mint_longer: bool,
}

/// What a trust is made of, as it was given.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    /// The issuer: `iss`, to the last character.
    pub issuer: String,
    /// The audience, one of those that the deployment accepts.
    pub audience: String,
    /// Names and values of the claims that must match.
    pub claims: Vec<(String, String)>,
    /// The claim that names the workload in logs. `None` means [`SUBJECT`].
    pub subject_claim: Option<String>,
    /// Roles that the bot has. None opens the registries only.
    pub roles: Vec<Role>,
    /// Whether what a job creates may outlive the job's token.
    pub may_mint_longer: bool,
}

/// Why a trust cannot be made: the field, and the rule that it breaks.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{field}` {rule}")]
pub struct InvalidTrust {
    /// The field, such as `claims.repository`.
    pub field: String,
    /// What is expected.
    pub rule: TrustRule,
}

/// A rule of the parts of a trust. As text, it follows the name of the part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TrustRule {
    /// The issuer is a URL.
    #[error("must be a URL, such as https://token.actions.githubusercontent.com")]
    Url,
    /// Texts are short and printable.
    #[error("must have 1 to 255 characters, none of them a control character")]
    Text,
    /// Names of claims are short and visible.
    #[error("must have 1 to 255 visible ASCII characters")]
    Name,
    /// Values end in a wildcard of whole segments, if in one at all.
    #[error("may contain `*` only at the end, after `/` or `:`")]
    Wildcard,
    /// IDs have no wildcard.
    #[error("must be an exact value")]
    Exact,
    /// Each claim is given once.
    #[error("must be given once")]
    Once,
    /// There are few claims.
    #[error("must be at most 10")]
    Few,
    /// One claim identifies the job's owner.
    #[error(
        "must contain the exact value of `repository_owner_id`, `repository_id`, `enterprise_id`, `project_id`, \
         `namespace_id` or `sub`: names can be taken by somebody else"
    )]
    Identity,
    /// A repository is not named without an ID.
    #[error("needs `repository_owner_id` or `repository_id` beside it: a name can be taken by somebody else")]
    IdBeside,
    /// Some roles are for people only.
    #[error("must be roles of bots")]
    Roles,
}

fn invalid(field: impl Into<String>, rule: TrustRule) -> InvalidTrust {
    InvalidTrust { field: field.into(), rule }
}

impl TryFrom<Wanted> for NewTrust {
    type Error = InvalidTrust;

    fn try_from(wanted: Wanted) -> Result<Self, InvalidTrust> {
        let Wanted { issuer, audience, claims: given, subject_claim, mut roles, may_mint_longer } = wanted;
        let is_url = Url::parse(&issuer).is_ok_and(|url| matches!(url.scheme(), "https" | "http") && url.has_host());
        if !is_url || !is_text(&issuer) {
            return Err(invalid("issuer", TrustRule::Url));
        }
        if !is_text(&audience) {
            return Err(invalid("audience", TrustRule::Text));
        }
        let mut claims = BTreeMap::new();
        for (name, value) in given {
            let field = format!("claims.{name}");
            if !is_claim_name(&name) {
                return Err(invalid("claims", TrustRule::Name));
            }
            check_value(&name, &value).map_err(|rule| invalid(&field, rule))?;
            if claims.insert(name, value).is_some() {
                return Err(invalid(field, TrustRule::Once));
            }
        }
        if claims.len() > MAX_CLAIMS {
            return Err(invalid("claims", TrustRule::Few));
        }
        let is_exact = |name: &str| claims.get(name).is_some_and(|value| !is_prefix(value));
        if !IDENTITY_CLAIMS.into_iter().any(is_exact) {
            return Err(invalid("claims", TrustRule::Identity));
        }
        let has_id = ["repository_owner_id", "repository_id"].iter().any(|name| claims.contains_key(*name));
        if claims.contains_key("repository") && !has_id {
            return Err(invalid("claims.repository", TrustRule::IdBeside));
        }
        let subject_claim = subject_claim.unwrap_or_else(|| SUBJECT.to_owned());
        if !is_claim_name(&subject_claim) {
            return Err(invalid("subject_claim", TrustRule::Name));
        }
        if roles.iter().any(|role| !role.is_for_bots()) {
            return Err(invalid("roles", TrustRule::Roles));
        }
        roles.sort_unstable();
        roles.dedup();
        Ok(Self { issuer, audience, claims, subject_claim, roles, may_mint_longer })
    }
}

impl NewTrust {
    /// The roles.
    pub fn roles(&self) -> &[Role] {
        &self.roles
    }

    /// The trust as it is stored.
    pub(crate) fn stored(self, id: TrustId, created_at: Moment, created_by: Subject) -> Trust {
        let Self { issuer, audience, claims, subject_claim, roles, may_mint_longer } = self;
        let roles = roles.into_iter().map(OrUnknown::Known).collect();
        Trust { id, issuer, audience, claims, subject_claim, roles, may_mint_longer, created_at, created_by }
    }
}

/// Whether a text has 1 to 255 bytes and no control characters.
fn is_text(text: &str) -> bool {
    (1..=MAX_TEXT).contains(&text.len()) && !text.chars().any(char::is_control)
}

fn is_claim_name(name: &str) -> bool {
    is_text(name) && name.bytes().all(|c| c.is_ascii_graphic())
}

fn check_value(name: &str, value: &str) -> Result<(), TrustRule> {
    if !is_text(value) {
        return Err(TrustRule::Text);
    }
    let exact = value.strip_suffix('*').filter(|prefix| prefix.ends_with(['/', ':']));
    if exact.unwrap_or(value).contains('*') {
        return Err(TrustRule::Wildcard);
    }
    let is_id = IDENTITY_CLAIMS.contains(&name) && name != SUBJECT;
    if exact.is_some() && is_id {
        return Err(TrustRule::Exact);
    }
    Ok(())
}

fn is_prefix(value: &str) -> bool {
    value.ends_with('*')
}

/// A trust of a bot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trust {
    /// Its ID. The same trust added again has another one.
    pub id: TrustId,
    /// The issuer of the ID tokens.
    pub issuer: String,
    /// Their audience.
    pub audience: String,
    /// Their claims. A value ending in `/*` or `:*` is a prefix.
    pub claims: BTreeMap<String, String>,
    /// The claim that names the workload in logs.
    pub subject_claim: String,
    /// The roles that a job gets, as far as the bot has them.
    pub roles: Held<Role>,
    /// Whether what a job creates may outlive the job's token.
    pub may_mint_longer: bool,
    /// When it was added.
    pub created_at: Moment,
    /// Who added it.
    pub created_by: Subject,
}

/// What a verified ID token says about its job.
#[derive(Debug, Clone, Copy)]
pub struct Evidence<'a> {
    /// The issuer.
    pub issuer: &'a str,
    /// The accepted audiences.
    pub audiences: &'a [String],
    /// All claims.
    pub claims: &'a Map<String, Value>,
}

/// The claim by which an ID token does not match a trust. Never its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mismatch {
    claim: String,
    /// How many conditions hold, to find the trust that comes closest.
    matched: usize,
}

impl Mismatch {
    /// The name of the claim.
    pub fn claim(&self) -> &str {
        &self.claim
    }
}

impl Trust {
    /// The name of this kind in audit entries.
    pub const SUBJECT: &str = "trust";

    /// The workload of a job that this trust admits, as logs show it.
    ///
    /// # Errors
    ///
    /// The first claim that does not match.
    pub fn admits(&self, evidence: &Evidence<'_>) -> Result<String, Mismatch> {
        let mut matched = 0;
        let mut require = |holds: bool, claim: &str| {
            if holds {
                matched += 1;
                return Ok(());
            }
            Err(Mismatch { claim: claim.to_owned(), matched })
        };
        require(self.issuer == evidence.issuer, "iss")?;
        require(evidence.audiences.contains(&self.audience), "aud")?;
        let text = |name: &str| evidence.claims.get(name).and_then(Value::as_str);
        for (name, wanted) in &self.claims {
            require(text(name).is_some_and(|value| matches(wanted, value)), name)?;
        }
        // Such jobs run with the rights of the repository and the code of anybody.
        let is_foreign = text(EVENT_NAME) == Some(PULL_REQUEST_TARGET) && !self.claims.contains_key(EVENT_NAME);
        require(!is_foreign, EVENT_NAME)?;
        let subject = text(&self.subject_claim).map(in_logs).filter(|subject| !subject.is_empty());
        require(subject.is_some(), &self.subject_claim)?;
        Ok(subject.unwrap_or_default())
    }

    /// The roles that a job gets of those that the bot has now.
    pub fn roles_of(&self, bot: &Held<Role>) -> Held<Role> {
        let known = bot.as_slice().iter().filter(|role| role.known().is_some_and(|role| self.roles.contains(role)));
        known.cloned().collect()
    }
}

/// The trust that admits a job, and the job's workload. Where several do, the one with the most
/// roles, then the oldest.
///
/// # Errors
///
/// The claim by which the closest one does not match; `None` if there are no trusts.
pub fn admitting<'a>(
    trusts: &'a [Trust],
    bot: &Held<Role>,
    evidence: &Evidence<'_>,
) -> Result<(&'a Trust, String), Option<Mismatch>> {
    let (mut best, mut closest) = (None::<(usize, &Trust, String)>, None::<Mismatch>);
    for trust in trusts {
        match trust.admits(evidence) {
            Ok(subject) => {
                let roles = trust.roles_of(bot).as_slice().len();
                if best.as_ref().is_none_or(|(most, ..)| roles > *most) {
                    best = Some((roles, trust, subject));
                }
            }
            Err(mismatch) => {
                if closest.as_ref().is_none_or(|closest| mismatch.matched > closest.matched) {
                    closest = Some(mismatch);
                }
            }
        }
    }
    best.map(|(_, trust, subject)| (trust, subject)).ok_or(closest)
}

fn matches(wanted: &str, value: &str) -> bool {
    match wanted.strip_suffix('*') {
        Some(prefix) => value.strip_prefix(prefix).is_some_and(|rest| !rest.is_empty()),
        None => wanted == value,
    }
}

/// A claim's value as logs show it: at most 255 bytes, without control characters.
pub fn in_logs(value: &str) -> String {
    let mut shown = String::new();
    for character in value.chars().filter(|character| !character.is_control()) {
        if shown.len() + character.len_utf8() > MAX_TEXT {
            break;
        }
        shown.push(character);
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::audit::Subject;

    const ISSUER: &str = "https://token.actions.githubusercontent.com";

    fn wanted(claims: &[(&str, &str)]) -> Wanted {
        Wanted {
            issuer: ISSUER.to_owned(),
            audience: "guard.example.com".to_owned(),
            claims: claims.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
            ..Wanted::default()
        }
    }

    fn trust(n: u8, claims: &[(&str, &str)], roles: &[Role]) -> Trust {
        let id = TrustId::parse(&format!("01KAJ8M4R2X7Z9V5T3Q1N6P8W{n}")).unwrap();
        let wanted = Wanted { roles: roles.to_vec(), ..wanted(claims) };
        let created_at = Moment::parse("2026-11-21T10:00:00Z").unwrap();
        NewTrust::try_from(wanted).unwrap().stored(id, created_at, Subject::new("operator", "test"))
    }

    fn claims(json: Value) -> Map<String, Value> {
        json.as_object().unwrap().clone()
    }

    fn admitted(trust: &Trust, json: Value) -> Result<String, String> {
        let claims = claims(json);
        let audiences = ["guard.example.com".to_owned()];
        let evidence = Evidence { issuer: ISSUER, audiences: &audiences, claims: &claims };
        trust.admits(&evidence).map_err(|mismatch| mismatch.claim)
    }

    #[test]
    fn trusts_need_an_exact_claim_of_identity() {
        for good in [
            &[("repository_owner_id", "123")][..],
            &[("repository_id", "1"), ("repository", "acme/widgets"), ("ref", "refs/heads/*")],
            &[("sub", "repo:acme/widgets:ref:refs/heads/main")],
            &[("project_id", "7"), ("sub", "project_path:acme/*")],
            &[("namespace_id", "7")],
            &[("enterprise_id", "7")],
        ] {
            assert!(NewTrust::try_from(wanted(good)).is_ok(), "{good:?}");
        }
        for (bad, field) in [
            (&[][..], "claims"),
            (&[("ref", "refs/heads/main")][..], "claims"),
            (&[("repository", "acme/widgets")], "claims"),
            (&[("repository", "acme/widgets"), ("sub", "repo:acme/widgets:ref:x")], "claims.repository"),
            (&[("sub", "repo:acme/*")], "claims"),
            (&[("repository_owner_id", "123*")], "claims.repository_owner_id"),
            (&[("repository_owner_id", "1/*")], "claims.repository_owner_id"),
            (&[("repository_owner_id", "*")], "claims.repository_owner_id"),
            (&[("repository_owner_id", "")], "claims.repository_owner_id"),
            (&[("repository_owner_id", "123"), ("ref", "refs/*/main")], "claims.ref"),
            (&[("repository_owner_id", "123"), ("ref", "refs/heads/ma*")], "claims.ref"),
            (&[("repository_owner_id", "123"), ("ref", "refs/**")], "claims.ref"),
            (&[("repository_owner_id", "123"), ("repository_owner_id", "124")], "claims.repository_owner_id"),
            (&[("repository_owner_id", "123"), ("a b", "1")], "claims"),
        ] {
            assert_eq!(NewTrust::try_from(wanted(bad)).unwrap_err().field, field, "{bad:?}");
        }
        let with = |change: fn(&mut Wanted)| {
            let mut wanted = wanted(&[("repository_owner_id", "123")]);
            change(&mut wanted);
            NewTrust::try_from(wanted).unwrap_err().field
        };
        assert_eq!(with(|wanted| wanted.issuer = "token.actions".to_owned()), "issuer");
        assert_eq!(with(|wanted| wanted.audience = String::new()), "audience");
        assert_eq!(with(|wanted| wanted.subject_claim = Some("a\n".to_owned())), "subject_claim");
        assert_eq!(with(|wanted| wanted.roles = vec![Role::Member]), "roles");
    }

    #[test]
    fn claims_match_exactly_or_as_a_prefix_of_whole_segments() {
        let trust = trust(1, &[("repository_owner_id", "123"), ("ref", "refs/heads/*")], &[]);
        let job = |owner: Value, reference: &str| serde_json::json!({"sub": "repo:acme/widgets:ref:x", "repository_owner_id": owner, "ref": reference});
        assert_eq!(admitted(&trust, job("123".into(), "refs/heads/main")).unwrap(), "repo:acme/widgets:ref:x");
        for (owner, reference, claim) in [
            ("1234".into(), "refs/heads/main", "repository_owner_id"),
            (Value::from(123), "refs/heads/main", "repository_owner_id"),
            (serde_json::json!(["123"]), "refs/heads/main", "repository_owner_id"),
            (Value::Null, "refs/heads/main", "repository_owner_id"),
            ("123".into(), "refs/headsmain", "ref"),
            ("123".into(), "refs/heads/", "ref"),
            ("123".into(), "REFS/HEADS/main", "ref"),
        ] {
            assert_eq!(admitted(&trust, job(owner, reference)).unwrap_err(), claim, "{reference}");
        }
    }

    #[test]
    fn job_of_a_foreign_pull_request_is_refused_unless_the_trust_names_the_event() {
        let job = serde_json::json!({"sub": "a", "repository_owner_id": "123", "event_name": "pull_request_target"});
        let silent = trust(1, &[("repository_owner_id", "123")], &[]);
        assert_eq!(admitted(&silent, job.clone()).unwrap_err(), "event_name");
        let names = trust(1, &[("repository_owner_id", "123"), ("event_name", "pull_request_target")], &[]);
        assert!(admitted(&names, job).is_ok());
    }

    #[test]
    fn workload_must_be_named_by_a_text() {
        let trust = trust(1, &[("repository_owner_id", "123")], &[]);
        for sub in [Value::Null, 7.into(), "".into(), "\u{7}".into()] {
            assert_eq!(
                admitted(&trust, serde_json::json!({"sub": sub, "repository_owner_id": "123"})).unwrap_err(),
                "sub"
            );
        }
        let long = serde_json::json!({"sub": format!("a\n{}", "b".repeat(300)), "repository_owner_id": "123"});
        assert_eq!(admitted(&trust, long).unwrap(), format!("a{}", "b".repeat(254)));
    }

    #[test]
    fn trust_with_the_most_roles_admits_and_the_closest_mismatch_is_named() {
        let bot: Held<Role> =
            [OrUnknown::Known(Role::Manager), OrUnknown::Known(Role::ApiKeyManager)].into_iter().collect();
        let owner = ("repository_owner_id", "123");
        let trusts = [
            trust(1, &[owner], &[]),
            trust(2, &[owner, ("ref", "refs/heads/main")], &[Role::Manager, Role::Owner]),
            trust(3, &[owner, ("ref", "refs/heads/main")], &[Role::ApiKeyManager]),
        ];
        let audiences = ["guard.example.com".to_owned()];
        let job = |owner: &str, reference: &str| {
            claims(serde_json::json!({"sub": "a", "repository_owner_id": owner, "ref": reference}))
        };
        let admit = |claims: &Map<String, Value>| {
            let evidence = Evidence { issuer: ISSUER, audiences: &audiences, claims };
            admitting(&trusts, &bot, &evidence).map(|(trust, _)| trust.id.clone())
        };
        assert_eq!(admit(&job("123", "refs/heads/main")).unwrap(), trusts[1].id);
        assert_eq!(admit(&job("123", "refs/heads/x")).unwrap(), trusts[0].id);
        // Both conditions of the first one come before the owner; of the others, the ref does.
        assert_eq!(admit(&job("1", "refs/heads/main")).unwrap_err().unwrap().claim(), "repository_owner_id");
        let claims = job("123", "refs/heads/x");
        let evidence = Evidence { issuer: ISSUER, audiences: &audiences, claims: &claims };
        assert_eq!(admitting(&trusts[1..], &bot, &evidence).unwrap_err().unwrap().claim(), "ref");
        assert_eq!(trusts[1].roles_of(&bot).as_slice(), [OrUnknown::Known(Role::Manager)]);
    }
}
