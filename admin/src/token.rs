//! The `token` commands, for tokens of organizations.

use std::fmt;

use clap::ValueEnum;
use serde::Serialize;
use shared::ids::{OrgId, TokenId};

use crate::cli::{OrgTokenKind, TokenCommand};
use crate::failure::Failure;
use crate::operator::Operator;

/// Runs a `token` command.
pub async fn run(TokenCommand::Revoke { kind, id, org }: TokenCommand, operator: &Operator) -> Result<(), Failure> {
    let (store, caller) = (operator.store(), &operator.caller);
    operator.require_org(&org).await?;
    let found = match (kind, TokenId::parse(&id), id.parse()) {
        (OrgTokenKind::OrgUserToken, Some(id), _) => store.revoke_org_user_token(&org, &id, caller).await?,
        (OrgTokenKind::ApiKey, Some(id), _) => store.revoke_api_key(&org, &id, caller).await?,
        (OrgTokenKind::OrgAccessToken, _, Ok(number)) => store.delete_org_access_token(&org, number, caller).await?,
        // A malformed ID matches no token.
        _ => false,
    };
    let kind = kind.to_possible_value().map_or_else(String::new, |kind| kind.get_name().to_owned());
    if !found {
        return Err(Failure::NoSuchToken(org, format!("{kind} {id}")));
    }
    operator.answer(&RevokedView { org_id: org, kind, id })
}

#[derive(Serialize)]
struct RevokedView {
    org_id: OrgId,
    kind: String,
    id: String,
}

impl fmt::Display for RevokedView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "Revoked {} {} in organization {}", self.kind, self.id, self.org_id)
    }
}
