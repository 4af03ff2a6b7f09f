//! Creates a demo organization and bot in an empty store, and the env file that gives a shell their
//! credentials.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use anyhow::{Context, Result};
use shared::domain::Plan;
use shared::email::EmailAddress;
use shared::lambda::new_request_id;
use shared::permissions::Role;
use shared::person::Person;
use shared::store::Store;
use shared::store::audit::{Caller, Subject};
use shared::store::members::Authority;

use crate::dynamodb::create_private_folder;

/// The contents of the env file: environment variables and their values.
pub type Environment = BTreeMap<String, String>;

/// The variable that holds the bot's API key.
pub const BOT_API_KEY: &str = "BOT_API_KEY";

/// Creates an organization and an owner bot. `None` if the store already has an organization.
pub async fn create_if_empty(store: &Store) -> Result<Option<Environment>> {
    if !store.orgs().await?.is_empty() {
        return Ok(None);
    }
    let caller = operator();
    let org = store.create_org("Demo", Plan::Pro, true, &caller).await?;
    let (bot, key) = store.create_bot(&org.id, "demo", &[Role::Owner], &caller).await?;
    Ok(Some(Environment::from([
        ("ORG".to_owned(), org.id.to_string()),
        ("BOT_ID".to_owned(), bot.id.to_string()),
        (BOT_API_KEY.to_owned(), key.expose().to_owned()),
    ])))
}

/// The owner of the first organization, whom the printed link signs in as. Added if there is none.
pub async fn owner(store: &Store) -> Result<Option<Person>> {
    let Some(org) = store.orgs().await?.into_iter().next() else { return Ok(None) };
    let email = EmailAddress::try_from(OWNER.to_owned()).map_err(anyhow::Error::msg)?;
    let owner = Person::by_mail(email);
    if store.membership(owner.id, &org.id).await?.is_none() {
        let caller = operator();
        let invited = store.invite_member(&org.id, &owner.email, &[Role::Owner], Authority::Operator, &caller);
        if let Some(invitation) = invited.await? {
            store.accept_invitation(&org.id, &invitation.id, &owner, &caller).await?;
        }
    }
    Ok(Some(owner))
}

/// The address of the demo owner.
const OWNER: &str = "owner@guard-tokens.example";

fn operator() -> Caller {
    Caller { actor: Subject::new("operator", "local"), source_ip: None, request_id: new_request_id(), workload: None }
}

/// Reads a file written by [`write()`]. Empty if there is none.
pub fn read(path: &Path) -> Environment {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let pairs = text.lines().filter_map(|line| line.strip_prefix("export ")?.split_once('='));
    pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

/// Writes the file, readable only by its owner because it contains a credential. The replacement is
/// atomic: the existing file may hold the only copy of the bot's API key.
pub fn write(path: &Path, environment: &Environment) -> Result<()> {
    let draft = path.with_added_extension("new");
    let write = || -> std::io::Result<()> {
        if let Some(folder) = path.parent() {
            create_private_folder(folder)?;
        }
        // A draft left behind by a crash may be readable by others.
        let _ = std::fs::remove_file(&draft);
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft)?;
        writeln!(file, "# Written by guard-tokens at startup. Contains the credential of the demo bot.")?;
        for (name, value) in environment {
            writeln!(file, "export {name}={value}")?;
        }
        file.sync_all()?;
        std::fs::rename(&draft, path)
    };
    write().with_context(|| format!("cannot write {}", path.display()))
}

/// Quotes a path as one shell word.
fn quoted(path: &str) -> String {
    let is_plain = path.bytes().all(|c| c.is_ascii_alphanumeric() || b"/._-".contains(&c));
    if is_plain { path.to_owned() } else { format!("'{}'", path.replace('\'', r"'\''")) }
}

/// The curl examples, ready to paste.
pub fn tour(env_file: &Path) -> String {
    include_str!("tour.txt").replace("{env_file}", &quoted(&env_file.display().to_string()))
}
