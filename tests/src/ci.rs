//! Helpers for CI: trusts of bots, and the tokens that jobs get for their ID tokens.

use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use shared::ids::TrustId;
use shared::permissions::Role;
use shared::secret::Token;
use shared::store::audit::Caller;
use shared::store::bot_tokens::{Exchanged, IdToken};
use shared::store::members::Authority;
use shared::store::trusts::{BotTokensEnded, TrustAdded};
use shared::trust::{Trust, Wanted};

use crate::coverage::unknown_token;
use crate::issuer::AUDIENCE;
use crate::{Answer, Bot, Org, Service, operator};

/// The path of the exchange.
pub const EXCHANGE: &str = "/bots/exchange";

/// The job that [`crate::issuer::FakeIssuer::workload`] describes, as logs name it.
pub const WORKLOAD: &str = "repo:acme/widgets:ref:refs/heads/main";

impl Service {
    /// Adds a trust to a bot: in the jobs of [`crate::issuer::FakeIssuer::workload`], with these roles.
    pub async fn trust(&self, bot: &Bot, roles: &[Role]) -> Trust {
        self.trust_with(bot, |wanted| wanted.roles = roles.to_vec()).await
    }

    /// Like [`Self::trust`], without roles and with changes.
    pub async fn trust_with(&self, bot: &Bot, change: impl FnOnce(&mut Wanted)) -> Trust {
        let mut wanted = Wanted {
            issuer: self.issuer.url().to_owned(),
            audience: AUDIENCE.to_owned(),
            claims: vec![("repository_owner_id".to_owned(), "123".to_owned())],
            ..Wanted::default()
        };
        change(&mut wanted);
        let (trust, operator) = (wanted.try_into().unwrap(), operator());
        match self.store.add_trust(Authority::Operator, &bot.id, trust, &operator, None).await.unwrap() {
            TrustAdded::Done(trust) => *trust,
            refused => panic!("{refused:?}"),
        }
    }

    /// Removes a trust of a bot.
    pub async fn remove_trust(&self, bot: &Bot, id: &TrustId) {
        let removed = self.store.remove_trust(Authority::Operator, &bot.id, id, &operator()).await.unwrap();
        assert_eq!(removed, BotTokensEnded::Done);
    }

    /// The token of a CI job that acts as this bot for a day, with these roles, by a trust of its own.
    /// What it creates may outlive it.
    pub async fn job(&self, bot: &Bot, roles: &[Role]) -> String {
        let trust = self.trust_with(bot, |wanted| {
            wanted.roles = roles.to_vec();
            wanted.may_mint_longer = true;
        });
        let day = Duration::from_secs(24 * 60 * 60);
        self.job_by(bot, &trust.await, day).await.expose().to_owned()
    }

    /// The token of a CI job that this trust has admitted, which lives this long.
    pub async fn job_by(&self, bot: &Bot, trust: &Trust, lifetime: Duration) -> Token {
        let stored = self.store.bot(&bot.id).await.unwrap().unwrap();
        let replay_id = unknown_token(shared::secret::TokenKind::Bot);
        let end = self.clock.now().plus(lifetime);
        let id_token = IdToken { issuer: self.issuer.url(), replay_id: &replay_id, accepted_until: end };
        let caller = Caller { workload: Some(WORKLOAD.to_owned()), ..operator() };
        match self.store.exchange(&stored, trust, id_token, end, &caller).await.unwrap() {
            Exchanged::Done(_, token) => token,
            Exchanged::Replayed => panic!("a random ID token was exchanged before"),
        }
    }

    /// Sends an exchange.
    pub async fn exchange(&self, body: &Value) -> Answer {
        self.send(self.request(Method::POST, EXCHANGE).json(body)).await
    }

    /// Exchanges an ID token with these claims for a token of this bot.
    pub async fn exchange_claims(&self, bot: &Bot, claims: &Value) -> Answer {
        self.exchange(&json!({"bot_id": bot.id.as_str(), "id_token": self.issuer.sign(claims)})).await
    }

    /// The audit entry of the request with this answer.
    pub async fn entry_of(&self, org: &Org, answer: &Answer) -> Value {
        let mut entries = self.table.audit_entries(&org.id).await;
        entries.retain(|entry| entry["request_id"] == answer.header("x-request-id"));
        assert_eq!(entries.len(), 1, "{entries:?}");
        entries.remove(0)
    }

    /// The claims of a job, with an ID of their own.
    pub fn new_claims(&self) -> Value {
        let mut claims = self.issuer.workload();
        claims["jti"] = unknown_token(shared::secret::TokenKind::Bot).into();
        claims
    }

    /// The bot token that a new job gets.
    pub async fn exchanged(&self, bot: &Bot) -> String {
        let answer = self.exchange_claims(bot, &self.new_claims()).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
        answer.json()["access_token"].as_str().unwrap().to_owned()
    }
}
