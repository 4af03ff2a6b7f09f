//! The `bot trust` commands: which CI jobs act as a bot.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;
use shared::Moment;
use shared::ids::{BotId, TrustId};
use shared::store::StoreError;
use shared::store::audit::Subject;
use shared::store::members::Authority;
use shared::store::trusts::{BotTokensEnded, TrustAdded};
use shared::trust::Trust;

use crate::cli::TrustCommand;
use crate::failure::Failure;
use crate::operator::Operator;
use crate::output;

/// Runs a `bot trust` command.
pub async fn run(command: TrustCommand, operator: &Operator) -> Result<(), Failure> {
    let (store, caller) = (operator.store(), &operator.caller);
    match command {
        TrustCommand::Add { bot, trust } => {
            // Checked with the command line.
            let trust = trust.checked().map_err(|_| Failure::Store(StoreError::Defect))?;
            let added = store.add_trust(Authority::Operator, &bot, trust, caller, None).await;
            let look = "the trust may have been added anyway: check with `guardctl bot trust list`";
            match added.map_err(Failure::of_change(look))? {
                TrustAdded::Done(trust) => operator.answer(&TrustView::new(*trust)),
                TrustAdded::RoleNotHeld(role) => Err(Failure::RoleNotHeld(bot, role)),
                TrustAdded::LimitReached => Err(Failure::TooManyTrusts(bot)),
                // The operator's own rights never change in the meantime, and there is no key.
                TrustAdded::NotFound | TrustAdded::CallerChanged | TrustAdded::Repeated(_) => {
                    Err(Failure::NoSuchBot(bot))
                }
            }
        }
        TrustCommand::List { bot } => {
            operator.bot(&bot).await?;
            let trusts = store.trusts(&bot).await?.into_iter().map(TrustView::new).collect();
            operator.answer(&TrustsView { trusts })
        }
        TrustCommand::Remove { bot, trust } => {
            let found = found(operator, &bot, &trust).await?;
            match store.remove_trust(Authority::Operator, &bot, &trust, caller).await? {
                BotTokensEnded::Done => operator.answer(&Removed { removed: TrustView::new(found) }),
                BotTokensEnded::NotFound | BotTokensEnded::CallerChanged => Err(Failure::NoSuchTrust(bot, trust)),
            }
        }
    }
}

/// Reads a trust of a bot, or fails if there is none.
async fn found(operator: &Operator, bot: &BotId, trust: &TrustId) -> Result<Trust, Failure> {
    operator.bot(bot).await?;
    let found = operator.store().trust(bot, trust).await?;
    found.ok_or_else(|| Failure::NoSuchTrust(bot.clone(), trust.clone()))
}

#[derive(Serialize)]
struct TrustView {
    id: TrustId,
    issuer: String,
    audience: String,
    claims: BTreeMap<String, String>,
    subject_claim: String,
    roles: Vec<String>,
    may_mint_longer: bool,
    created_at: Moment,
    created_by: Subject,
}

impl TrustView {
    fn new(trust: Trust) -> Self {
        let Trust { id, issuer, audience, claims, subject_claim, roles, may_mint_longer, created_at, created_by } =
            trust;
        let roles = roles.as_slice().iter().map(|role| role.as_str().to_owned()).collect();
        Self { id, issuer, audience, claims, subject_claim, roles, may_mint_longer, created_at, created_by }
    }

    fn claims(&self) -> String {
        let claims = self.claims.iter().map(|(name, value)| format!("{name}={value}"));
        claims.collect::<Vec<_>>().join(", ")
    }

    fn roles(&self) -> String {
        if self.roles.is_empty() { "registries only".to_owned() } else { self.roles.join(", ") }
    }

    fn write(&self, f: &mut fmt::Formatter<'_>, title: &str) -> fmt::Result {
        let mut lines = vec![
            ("issuer", self.issuer.clone()),
            ("audience", self.audience.clone()),
            ("claims", self.claims()),
            ("workload", self.subject_claim.clone()),
            ("roles", self.roles()),
            ("created", format!("{} by {} {}", self.created_at, self.created_by.kind, self.created_by.id)),
        ];
        if self.may_mint_longer {
            lines.push(("jobs create", "also what outlives their token".to_owned()));
        }
        output::card(f, &format!("{title} {}", self.id), &lines)
    }
}

impl fmt::Display for TrustView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write(f, "Trust")
    }
}

#[derive(Serialize)]
struct TrustsView {
    trusts: Vec<TrustView>,
}

impl fmt::Display for TrustsView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let row = |trust: &TrustView| {
            let (id, created) = (trust.id.to_string(), trust.created_at.to_string());
            [id, created, trust.issuer.clone(), trust.audience.clone(), trust.claims(), trust.roles()]
        };
        let rows: Vec<_> = self.trusts.iter().map(row).collect();
        output::table(f, "trusts", ["ID", "CREATED", "ISSUER", "AUDIENCE", "CLAIMS", "ROLES"], &rows)
    }
}

/// A trust that was just removed.
#[derive(Serialize)]
struct Removed {
    removed: TrustView,
}

impl fmt::Display for Removed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.removed.write(f, "Removed trust")
    }
}
