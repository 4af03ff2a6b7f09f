//! The principal: who calls, as authenticated by an active credential. [`crate::auth`] makes it.

use crate::secret::TokenHash;
use crate::store::audit::Subject;
use crate::store::bots::{Bot, StoredBot};
use crate::store::tokens::StoredToken;

/// An authenticated caller.
#[derive(Debug, Clone)]
pub enum Principal {
    /// A bot of an organization.
    Bot(Bot),
    /// The holder of a token.
    Holder(Box<Holder>),
}

impl Principal {
    /// The bot that calls, or that a CI job acts as. `None` for every other kind.
    pub fn into_bot(self) -> Option<Bot> {
        match self {
            Principal::Bot(bot) => Some(bot),
            Principal::Holder(holder) => match *holder {
                Holder { token: StoredToken::Bot(token), hash } => Bot::of_job(token, hash),
                _ => None,
            },
        }
    }

    /// The principal in the audit log.
    pub fn subject(&self) -> Subject {
        match self {
            Principal::Bot(bot) => Subject::new(StoredBot::SUBJECT, &bot.id),
            Principal::Holder(holder) => Subject::new(holder.token.kind_name(), holder.token.id()),
        }
    }

    /// The ID for the request log. It is not a secret.
    pub fn log_id(&self) -> String {
        match self {
            Principal::Bot(bot) => bot.id.to_string(),
            Principal::Holder(holder) => holder.token.id(),
        }
    }
}

/// The holder of an active token.
#[derive(Debug, Clone)]
pub struct Holder {
    /// The stored token.
    pub token: StoredToken,
    /// The token's hash.
    pub hash: TokenHash,
}
