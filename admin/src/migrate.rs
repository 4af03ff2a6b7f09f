//! The `migrate` command: writes what this version needs of items that an earlier version stored.
//!
//! Each migration is idempotent, and safe while both versions run. One that was interrupted is
//! repeated from the start; what is done already costs only its reads.

use std::fmt;

use serde::Serialize;

use crate::failure::Failure;
use crate::operator::Operator;
use crate::output;

/// Runs all migrations.
pub async fn run(operator: &Operator) -> Result<(), Failure> {
    let migrations = vec![bot_api_keys(operator).await?, expiries(operator).await?];
    operator.answer(&MigrationsView { migrations })
}

/// Since 0.2: the API keys of bots are found by their hash, so that leaked ones can be revoked.
async fn bot_api_keys(operator: &Operator) -> Result<MigrationView, Failure> {
    let store = operator.store();
    let mut migration = MigrationView { name: "bot-api-keys", looked_at: 0, written: 0 };
    for org in store.orgs().await? {
        for bot in store.bots(&org.id).await? {
            migration.looked_at += 1;
            migration.written += store.write_api_key_items(&bot.id).await?;
        }
    }
    Ok(migration)
}

/// Since 0.2: tokens that expire are found by the day of their end, so that people are reminded.
async fn expiries(operator: &Operator) -> Result<MigrationView, Failure> {
    let store = operator.store();
    let mut migration = MigrationView { name: "expiries", looked_at: 0, written: 0 };
    for org in store.orgs().await? {
        let of_org = store.backfill_expiries(&org.id).await?;
        migration.looked_at += of_org.looked_at;
        migration.written += of_org.written;
    }
    Ok(migration)
}

#[derive(Serialize)]
struct MigrationsView {
    migrations: Vec<MigrationView>,
}

#[derive(Serialize)]
struct MigrationView {
    name: &'static str,
    /// Items that may need it.
    looked_at: usize,
    /// Items that were written.
    written: usize,
}

impl fmt::Display for MigrationsView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let row = |migration: &MigrationView| {
            [migration.name.to_owned(), migration.looked_at.to_string(), migration.written.to_string()]
        };
        let rows: Vec<_> = self.migrations.iter().map(row).collect();
        output::table(f, "migrations", ["MIGRATION", "LOOKED AT", "WRITTEN"], &rows)
    }
}
