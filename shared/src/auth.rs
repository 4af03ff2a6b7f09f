//! Guards: a handler that takes a [`BotWith<Operation>`](BotWith) runs only for a caller that may do the operation.

use std::marker::PhantomData;

use axum::extract::FromRequestParts;
#[cfg(feature = "registry")]
use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use http::request::Parts;
use http::{HeaderMap, header};

use crate::app::App;
use crate::error::{ApiError, Unauthorized};
use crate::extract::PathParams;
use crate::http::{Origin, note_principal};
use crate::ids::{BotId, OrgId};
use crate::principal::{Bot, Guarded, Holder, Operation, Principal};
use crate::secret::{Token, TokenHash, TokenKind};
use crate::store::StoreError;
use crate::store::api_keys::{self, ApiKey};
use crate::store::audit::{Caller, Entry, Subject};
use crate::store::email_tokens::{self, EmailToken};
use crate::store::orgs::Org;
use crate::store::tokens::StoredToken;

/// A credential whose form is right. Whether it counts, the table says.
#[derive(Debug)]
pub enum Credential {
    /// An API key and a bot's id, joined by the last colon.
    Bot(BotId, Token),
    /// A token of one of the other kinds.
    Token(Token),
}

impl Credential {
    /// Reads the `Authorization` header.
    ///
    /// # Errors
    ///
    /// [`Unauthorized::Missing`] where there is no bearer token, [`Unauthorized::Invalid`] where there is what cannot be one.
    pub fn from_headers(headers: &HeaderMap) -> Result<Self, Unauthorized> {
        let mut values = headers.get_all(header::AUTHORIZATION).iter();
        let (value, another) = (values.next().ok_or(Unauthorized::Missing)?, values.next());
        let value = value.to_str().map_err(|_| Unauthorized::Invalid)?;
        let (scheme, credential) = value.split_once(' ').unwrap_or((value, ""));
        if !scheme.eq_ignore_ascii_case("bearer") {
            // Another scheme is no bearer token: RFC 6750 answers it like a request without any.
            return Err(Unauthorized::Missing);
        }
        // Two credentials: whichever we took, somebody else may have meant the other.
        if another.is_some() {
            return Err(Unauthorized::Invalid);
        }
        Self::parse(credential.trim_matches(' ')).ok_or(Unauthorized::Invalid)
    }

    /// Reads the `Authorization` header as package managers write it: `Bearer`, or `Basic` with `token` or `__token__` as
    /// user and the token as password (RFC 7617).
    ///
    /// # Errors
    ///
    /// As [`Self::from_headers`].
    #[cfg(feature = "registry")]
    pub fn from_registry_headers(headers: &HeaderMap) -> Result<Self, Unauthorized> {
        let value = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let (scheme, encoded) = value.split_once(' ').unwrap_or_default();
        if !scheme.eq_ignore_ascii_case("basic") {
            return Self::from_headers(headers);
        }
        if headers.get_all(header::AUTHORIZATION).iter().count() > 1 {
            return Err(Unauthorized::Invalid);
        }
        let decoded = BASE64.decode(encoded.trim_matches(' ')).ok();
        let pair = decoded.as_ref().and_then(|decoded| str::from_utf8(decoded).ok());
        let (user, password) = pair.and_then(|pair| pair.split_once(':')).ok_or(Unauthorized::Invalid)?;
        if !matches!(user, "token" | "__token__") {
            return Err(Unauthorized::Invalid);
        }
        Self::parse(password).ok_or(Unauthorized::Invalid)
    }

    fn parse(text: &str) -> Option<Self> {
        match text.rsplit_once(':') {
            Some((key, bot)) => {
                let key = Token::parse(key).filter(|key| key.kind() == TokenKind::BotApiKey)?;
                Some(Credential::Bot(BotId::parse(bot)?, key))
            }
            // A bot's API key alone is half a credential.
            None => Token::parse(text).filter(|token| token.kind() != TokenKind::BotApiKey).map(Credential::Token),
        }
    }

    /// Whom it is good for now, in one strongly consistent read.
    async fn authenticate(&self, app: &App) -> Result<Option<Principal>, StoreError> {
        match self {
            Credential::Bot(id, key) => Ok(app.store().authenticate_bot(id, key).await?.map(Principal::Bot)),
            Credential::Token(plain) => {
                let stored = app.store().token(plain).await?;
                let stored = stored.filter(|token| token.counts(app.clock().now()));
                Ok(stored.map(|token| Principal::Holder(Box::new(Holder { token, hash: plain.hash() }))))
            }
        }
    }
}

/// Authenticates the credential in these headers, of whichever kind.
///
/// # Errors
///
/// 401 where there is none or it does not count, 503 where nobody knows.
pub async fn authenticate(app: &App, headers: &HeaderMap) -> Result<Principal, ApiError> {
    principal_of(app, Credential::from_headers(headers)).await
}

async fn principal_of(app: &App, credential: Result<Credential, Unauthorized>) -> Result<Principal, ApiError> {
    let credential = credential.map_err(ApiError::Unauthorized)?;
    let principal = credential.authenticate(app).await?.ok_or(ApiError::Unauthorized(Unauthorized::Invalid))?;
    note_principal(principal.log_id());
    Ok(principal)
}

/// A bot that may do this operation, in the organization that the path names if it names one.
///
/// Refuses, in this order: a credential that is not good (401); another organization's path, whether that exists or
/// not (403); a kind or role that may not (403); an organization without Guard where it is needed (403).
#[derive(Debug)]
pub struct BotWith<O> {
    /// The bot.
    pub bot: Bot,
    /// For the audit log.
    pub caller: Caller,
    operation: PhantomData<O>,
}

impl<O: Guarded> FromRequestParts<App> for BotWith<O> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, ApiError> {
        let origin = Origin::from_request_parts(parts, app).await?;
        let path = PathParams::from_request_parts(parts, app).await?;
        let rule = O::OPERATION.rule();
        let org_in_path = OrgId::parse(path.get("org_id"));
        // Side by side: who calls, and what the organization has. That the two belong together is checked below,
        // before anything of the organization is looked at.
        let (principal, org) = futures::try_join!(authenticate(app, &parts.headers), async {
            match &org_in_path {
                Some(org) if rule.needs_guard => Ok(app.store().org(org).await?),
                _ => Ok(None),
            }
        })?;
        let Principal::Bot(bot) = principal else { return Err(ApiError::Forbidden) };
        if path.has("org_id") && org_in_path.as_ref() != Some(&bot.org_id) {
            return Err(ApiError::Forbidden);
        }
        let actor = Subject::new("bot", &bot.id);
        let caller = Caller { actor, source_ip: origin.source_ip, request_id: origin.request_id };
        match refusal(O::OPERATION, &bot, org.as_ref()) {
            None => Ok(Self { bot, caller, operation: PhantomData }),
            Some(refusal) => {
                record_refusal(app, O::OPERATION, &bot.org_id, &caller).await?;
                Err(refusal)
            }
        }
    }
}

/// A bot of an organization, or an API key of it, that may do this operation.
///
/// Refuses, in this order: a credential that is not good (401); another organization's path, whether that exists or
/// not (403); a kind, role or scope that may not (403). An API key's call is a use of it.
#[derive(Debug)]
pub struct ManagerWith<O> {
    /// The organization it belongs to.
    pub org_id: OrgId,
    /// The key and its hash, where it is one: nothing may be made that it could not do itself, nor once it is revoked.
    pub api_key: Option<(ApiKey, TokenHash)>,
    /// For the audit log.
    pub caller: Caller,
    operation: PhantomData<O>,
}

impl<O: Guarded> FromRequestParts<App> for ManagerWith<O> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, ApiError> {
        let origin = Origin::from_request_parts(parts, app).await?;
        let path = PathParams::from_request_parts(parts, app).await?;
        let rule = O::OPERATION.rule();
        let (org_id, api_key, actor, may) = match authenticate(app, &parts.headers).await? {
            Principal::Bot(bot) => {
                let may = rule.roles.iter().any(|role| bot.roles.contains(role));
                (bot.org_id, None, Subject::new("bot", &bot.id), may)
            }
            Principal::Holder(holder) => {
                let Holder { token: StoredToken::ApiKey(key), hash } = *holder else {
                    return Err(ApiError::Forbidden);
                };
                let token = StoredToken::ApiKey(key.clone());
                app.store().record_use(hash, &token).await;
                let may = rule.scope.is_some_and(|scope| key.scopes.contains(scope));
                (key.org_id.clone(), Some((key.clone(), hash)), Subject::new(api_keys::SUBJECT, &key.id), may)
            }
        };
        if path.has("org_id") && path.get("org_id") != org_id.as_str() {
            return Err(ApiError::Forbidden);
        }
        let caller = Caller { actor, source_ip: origin.source_ip, request_id: origin.request_id };
        let manager = Self { org_id, api_key, caller, operation: PhantomData };
        if !may {
            manager.record_refusal(app).await?;
            return Err(ApiError::Forbidden);
        }
        Ok(manager)
    }
}

impl<O: Guarded> ManagerWith<O> {
    /// Leaves an entry in the audit log that this operation was refused, where such refusals are kept.
    pub async fn record_refusal(&self, app: &App) -> Result<(), ApiError> {
        record_refusal(app, O::OPERATION, &self.org_id, &self.caller).await
    }
}

async fn record_refusal(app: &App, operation: Operation, org: &OrgId, caller: &Caller) -> Result<(), ApiError> {
    if let Some(action) = operation.rule().audited_refusal {
        let entry = Entry::done(app.clock(), caller, action, Subject::new("organization", org))?.refused();
        app.store().record_refusal(org, &entry).await?;
    }
    Ok(())
}

/// A holder of an e-mail-verified token, who may do this operation with it.
///
/// Refuses a credential that is not good (401) and one of another kind (403).
#[derive(Debug)]
pub struct EmailHolder<O> {
    /// The token, as it is stored.
    pub token: EmailToken,
    /// Its hash.
    pub hash: TokenHash,
    /// For the audit log.
    pub caller: Caller,
    operation: PhantomData<O>,
}

impl<O: Guarded> FromRequestParts<App> for EmailHolder<O> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, ApiError> {
        let origin = Origin::from_request_parts(parts, app).await?;
        let Principal::Holder(holder) = authenticate(app, &parts.headers).await? else {
            return Err(ApiError::Forbidden);
        };
        let Holder { token: StoredToken::EmailVerified(token), hash } = *holder else {
            return Err(ApiError::Forbidden);
        };
        if !O::OPERATION.rule().email_tokens {
            return Err(ApiError::Forbidden);
        }
        let actor = Subject::new(email_tokens::SUBJECT, &token.id);
        let caller = Caller { actor, source_ip: origin.source_ip, request_id: origin.request_id };
        Ok(Self { token, hash, caller, operation: PhantomData })
    }
}

/// Who may take packages from a registry: the holder of an e-mail-verified token, or of an org user token of an
/// organization with Guard. Where the deployment allows it, also somebody without any token.
///
/// Refuses, in this order: a credential that is not good (401), one of another kind (403), one of an organization without
/// Guard (403). Each call is a use of the token, see [`Self::answered`].
#[cfg(feature = "registry")]
#[derive(Debug)]
pub struct RegistryUser<O> {
    /// The token, if there is one.
    pub holder: Option<Holder>,
    /// Where the request comes from.
    pub origin: Origin,
    operation: PhantomData<O>,
}

#[cfg(feature = "registry")]
impl<O: Guarded> FromRequestParts<App> for RegistryUser<O> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, ApiError> {
        let origin = Origin::from_request_parts(parts, app).await?;
        let registries = app.registries()?;
        let credential = Credential::from_registry_headers(&parts.headers);
        if matches!(credential, Err(Unauthorized::Missing)) && registries.settings.anonymous_access {
            return Ok(Self { holder: None, origin, operation: PhantomData });
        }
        let Principal::Holder(holder) = principal_of(app, credential).await? else { return Err(ApiError::Forbidden) };
        match &holder.token {
            StoredToken::EmailVerified(_) => {}
            StoredToken::OrgUser(token) => {
                if !registries.has_guard(app, &token.org_id).await? {
                    return Err(ApiError::SubscriptionRequired);
                }
            }
            StoredToken::ApiKey(_) | StoredToken::OrgAccess(_) => return Err(ApiError::Forbidden),
        }
        if !O::OPERATION.rule().registry_tokens {
            return Err(ApiError::Forbidden);
        }
        Ok(Self { holder: Some(*holder), origin, operation: PhantomData })
    }
}

#[cfg(feature = "registry")]
impl<O> RegistryUser<O> {
    /// Answers the request, and beside it notes that the token was used.
    pub async fn answered<T>(&self, app: &App, answer: impl Future<Output = T>) -> T {
        let noted = async {
            if let Some(holder) = &self.holder {
                app.store().record_use(holder.hash, &holder.token).await;
            }
        };
        futures::join!(answer, noted).0
    }
}

/// Anybody at all, so counted: a source address may call so often in a minute.
#[derive(Debug)]
pub struct Anybody {
    /// For the audit log.
    pub caller: Caller,
}

impl FromRequestParts<App> for Anybody {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, ApiError> {
        let Origin { request_id, source_ip } = Origin::from_request_parts(parts, app).await?;
        if let Some(limit) = app.limits().calls_per_minute {
            app.store().count_call(source_ip, limit).await?.map_err(ApiError::RateLimited)?;
        }
        Ok(Self { caller: Caller { actor: Subject::new("anonymous", "anonymous"), source_ip, request_id } })
    }
}

/// Why a bot may not do this operation in its own organization.
fn refusal(operation: Operation, bot: &Bot, org: Option<&Org>) -> Option<ApiError> {
    let rule = operation.rule();
    if !rule.roles.iter().any(|role| bot.roles.contains(role)) {
        return Some(ApiError::Forbidden);
    }
    let has_guard = org.is_some_and(|org| org.guard);
    (rule.needs_guard && !has_guard).then_some(ApiError::SubscriptionRequired)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    const BOT: &str = "BT01KAJ8M4R2X7Z9V5T3Q1N6P8WC";

    fn read(values: &[&str]) -> Result<Credential, Unauthorized> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(header::AUTHORIZATION, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        Credential::from_headers(&headers)
    }

    fn plain(kind: TokenKind) -> String {
        Token::generate(kind).unwrap().expose().to_owned()
    }

    #[test]
    fn the_scheme_is_read_in_any_case() {
        let key = plain(TokenKind::BotApiKey);
        for scheme in ["Bearer", "bearer", "BEARER"] {
            assert!(matches!(read(&[&format!("{scheme} {key}:{BOT}")]), Ok(Credential::Bot(..))));
        }
    }

    #[test]
    fn without_a_bearer_credential_none_was_sent() {
        for values in [&[][..], &["Basic dG9rZW46eA=="], &["Digest x"]] {
            assert_eq!(read(values).unwrap_err(), Unauthorized::Missing, "{values:?}");
        }
    }

    #[test]
    fn half_a_credential_or_two_of_them_are_refused() {
        let (key, token) = (plain(TokenKind::BotApiKey), plain(TokenKind::OrgUser));
        let good = format!("Bearer {key}:{BOT}");
        for values in [
            &["Bearer"][..],
            &["Bearer "],
            &[&format!("Bearer {key}")],
            &[&format!("Bearer {key}:")],
            &[&format!("Bearer :{BOT}")],
            &[&format!("Bearer {BOT}:{key}")],
            &[&format!("Bearer {token}:{BOT}")],
            &[&format!("Bearer {key}:{}", BOT.to_lowercase())],
            &[&format!("Bearer {key}:{BOT}:{BOT}")],
            &["Bearer \u{e9}"],
            &[&good, &good],
        ] {
            assert_eq!(read(values).unwrap_err(), Unauthorized::Invalid, "{values:?}");
        }
    }

    #[test]
    fn a_credential_does_not_show_in_debug() {
        let key = plain(TokenKind::BotApiKey);
        let shown = format!("{:?}", read(&[&format!("Bearer {key}:{BOT}")]).unwrap());
        assert!(!shown.contains(&key[14..]), "{shown}");
    }
}
