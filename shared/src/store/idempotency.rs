//! Idempotency keys: a request that is sent twice with one key makes one thing.
//!
//! The item of a key is written in the transaction that makes something, on the condition that the
//! key is unused, so a refused call does not use it up. Keys belong to an organization and a
//! caller. Only hashes of key and request are stored; the secret that was made is not, so a repeat
//! can only name it.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::audit::{Caller, Subject};
use super::keys::{self, Key};
use super::{Store, StoreError, Transaction};
use crate::domain::IdempotencyKey;
use crate::error::ApiError;
use crate::ids::OrgId;
use crate::permissions::Operation;

/// How long a key is kept after its use.
pub const RETENTION: Duration = Duration::from_secs(24 * 60 * 60);

/// A request that is to be carried out once: the hashes of its key and of all that it asks for.
#[derive(Debug, Clone)]
pub struct Once {
    key: String,
    request: String,
}

impl Once {
    /// A request of this operation with this key and raw body, on what the path names beside the
    /// organization, which keys belong to anyway.
    pub fn new<'a>(
        key: &IdempotencyKey,
        operation: Operation,
        named: impl IntoIterator<Item = &'a str>,
        body: &[u8],
    ) -> Self {
        // The name of an operation contains no NUL.
        let mut request = Sha256::new().chain_update(operation.name()).chain_update([0]);
        for id in named {
            request.update(Sha256::digest(id));
        }
        request.update(body);
        Self { key: hex::encode(Sha256::digest(key.as_str())), request: hex::encode(request.finalize()) }
    }

    fn item(&self, org: &OrgId, caller: &Caller) -> Key {
        keys::idempotency_key(org, &caller.actor.id, &self.key)
    }
}

/// What a key was used for before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Repeat {
    /// The same request, which made this.
    Made(Subject),
    /// Another request.
    OtherRequest,
}

impl From<Repeat> for ApiError {
    fn from(repeat: Repeat) -> Self {
        match repeat {
            Repeat::Made(made) => ApiError::AlreadyMade(made.id),
            Repeat::OtherRequest => {
                ApiError::invalid(IdempotencyKey::HEADER, "was used for another request; send a new key")
            }
        }
    }
}

/// A used key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Used {
    /// What was made.
    made: Subject,
    /// The hash of operation, path parameters and body.
    request: String,
    /// When the key may be used again, in seconds since the Unix epoch. DynamoDB deletes the item
    /// some time later.
    ttl: i64,
}

impl Store {
    /// What the key of this request was used for in the last 24 hours. Without a key, reads nothing.
    pub async fn repeated(
        &self,
        org: &OrgId,
        once: Option<&Once>,
        caller: &Caller,
    ) -> Result<Option<Repeat>, StoreError> {
        let Some(once) = once else { return Ok(None) };
        let used: Option<Used> = self.get(once.item(org, caller)).await?;
        let now = self.clock.now().epoch_seconds();
        Ok(used
            .filter(|used| now < used.ttl)
            .map(|used| if used.request == once.request { Repeat::Made(used.made) } else { Repeat::OtherRequest }))
    }

    /// Frees the key of a request whose result was taken back.
    pub async fn free_idempotency_key(
        &self,
        org: &OrgId,
        once: Option<&Once>,
        caller: &Caller,
    ) -> Result<(), StoreError> {
        let Some(once) = once else { return Ok(()) };
        self.transaction().delete(once.item(org, caller)).commit().await.map(|_| ())
    }
}

impl Transaction<'_> {
    /// Uses up the key of this request, if it has one, for what the transaction makes. Returns the
    /// index of the write, which fails if the key was used before.
    pub(super) fn once(&mut self, org: &OrgId, once: Option<&Once>, caller: &Caller, made: Subject) -> Option<usize> {
        let once = once?;
        let index = self.writes.len();
        let now = self.store.clock.now();
        let used = Used { made, request: once.request.clone(), ttl: now.plus(RETENTION).epoch_seconds() };
        self.put_where(
            once.item(org, caller),
            &used,
            "attribute_not_exists(pk) OR #ttl <= :now",
            &[(":now", now.epoch_seconds())],
        );
        Some(index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stored_item_matches_its_snapshot() {
        insta::assert_json_snapshot!(Used {
            made: Subject::new("api_key", "01KAJ8M4R2X7Z9V5T3Q1N6P8WC"),
            request: "ab".repeat(32),
            ttl: 1_795_305_600,
        });
    }

    fn hash(operation: Operation, named: &[&str], body: &str) -> String {
        let key = IdempotencyKey::try_from("a key".to_owned()).unwrap();
        Once::new(&key, operation, named.iter().copied(), body.as_bytes()).request
    }

    #[test]
    fn request_is_hashed_with_its_operation_and_what_the_path_names() {
        let first = hash(Operation::ApiKeysCreate, &[], "{}");
        assert_eq!(first, hash(Operation::ApiKeysCreate, &[], "{}"));
        assert_ne!(first, hash(Operation::ApiKeysCreate, &[], "{ }"));
        assert_ne!(first, hash(Operation::OrgAccessTokensCreate, &[], "{}"));
        let rotate = |id| hash(Operation::ApiKeysRotate, &[id], "{}");
        assert_eq!(rotate("01A"), rotate("01A"));
        assert_ne!(rotate("01A"), rotate("01B"));
        assert_ne!(rotate("01A"), hash(Operation::ApiKeysRotate, &[], "01A{}"));
    }

    #[test]
    fn hash_of_a_call_that_names_nothing_is_that_of_earlier_versions() {
        let before = hex::encode(Sha256::digest("org-user-tokens-issue\0{}"));
        assert_eq!(hash(Operation::OrgUserTokensIssue, &[], "{}"), before);
    }
}
