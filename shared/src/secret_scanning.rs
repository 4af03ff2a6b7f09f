//! The signatures of GitHub's reports of leaked tokens.
//!
//! GitHub scans what is published there for the tokens of services that take part in its partner
//! programme. It signs each report with ECDSA on P-256 and SHA-256, and publishes the keys at a URL,
//! which the operator configures. Keys are fetched when a process needs one that it does not know, at
//! most once a minute, and again after an hour, so that a key that was withdrawn stops working. While
//! that fails, the last good ones are kept.
//!
//! | what is known | a report |
//! |---|---|
//! | the key | is decided by its signature |
//! | not the key, and the keys have just been fetched | is refused |
//! | not the key, and the keys cannot be fetched | is unavailable: GitHub sends it again |

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1, UnparsedPublicKey};
use axum::extract::{FromRef, FromRequest, FromRequestParts, Request};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use http::HeaderMap;
use serde::Deserialize;
use serde_json::Value;

use crate::app::App;
use crate::clock::{Clock, Moment};
use crate::config::{self, MissingSetting};
use crate::error::{ApiError, Unauthorized};
use crate::extract::Report;
use crate::mail::MailApp;
use crate::observe::Origin;
use crate::oidc::{Issuer, MAX_AGE, MIN_INTERVAL, PlainHttp, client, json, within_timeout};
use crate::store::audit::{Caller, Subject};

/// The header with the identifier of the key.
pub const KEY_IDENTIFIER: &str = "github-public-key-identifier";

/// The header with the signature of the body.
pub const SIGNATURE: &str = "github-public-key-signature";

/// What a `SubjectPublicKeyInfo` of P-256 begins with (RFC 5480). The uncompressed point follows.
const P256_INFO: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce,
    0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];

/// The state of the function that takes GitHub's reports.
#[derive(Debug, Clone)]
pub struct ScanningApp {
    /// What it needs to tell people.
    pub mail: MailApp,
    /// GitHub's keys; `None` if reports are not accepted.
    pub keys: Option<ScannerKeys>,
}

impl FromRef<ScanningApp> for MailApp {
    fn from_ref(state: &ScanningApp) -> Self {
        state.mail.clone()
    }
}

impl FromRef<ScanningApp> for App {
    fn from_ref(state: &ScanningApp) -> Self {
        state.mail.app.clone()
    }
}

impl ScanningApp {
    /// Configures the state from the environment. `GITHUB_SECRET_SCANNING_KEYS` is the `https` URL of
    /// the keys; empty or missing if reports are not accepted.
    ///
    /// # Errors
    ///
    /// If a setting is missing or malformed.
    pub async fn from_env() -> Result<Self, MissingSetting> {
        let name = "GITHUB_SECRET_SCANNING_KEYS";
        let mail = MailApp::from_env().await?;
        let keys = match config::optional(name) {
            None => None,
            Some(url) => {
                let keys = ScannerKeys::new(&url, PlainHttp::Refused, mail.app.clock().clone());
                Some(keys.map_err(|_| MissingSetting(name))?)
            }
        };
        Ok(Self { mail, keys })
    }
}

/// A report that GitHub has signed. Nothing of it is parsed yet.
#[derive(Debug)]
pub struct SignedReport {
    /// The body.
    pub body: Vec<u8>,
    /// For the audit log.
    pub caller: Caller,
}

impl FromRequest<ScanningApp> for SignedReport {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &ScanningApp) -> Result<Self, ApiError> {
        let keys = state.keys.as_ref().ok_or(ApiError::NotFound)?;
        let (mut parts, body) = request.into_parts();
        let Origin { request_id, source_ip } = Origin::from_request_parts(&mut parts, state).await?;
        let headers = parts.headers.clone();
        let Report(body) = Report::from_request(Request::from_parts(parts, body), state).await?;
        keys.verify(&headers, &body).await?;
        let actor = Subject::new("integration", "github-secret-scanning");
        Ok(Self { body, caller: Caller { actor, source_ip, request_id, workload: None } })
    }
}

/// The URL of the keys cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the URL of the keys must be an https URL without credentials, query and fragment")]
pub struct UnusableUrl;

/// The keys that reports are signed with. Clones share the cache.
#[derive(Clone)]
pub struct ScannerKeys(Arc<Inner>);

struct Inner {
    url: Issuer,
    http: reqwest::Client,
    clock: Clock,
    known: Mutex<Option<Arc<Known>>>,
    /// When the keys were asked for last, and whether that succeeded. Locked while they are fetched.
    asked: tokio::sync::Mutex<Option<(Moment, bool)>>,
}

/// The keys that were fetched last.
struct Known {
    keys: Vec<Key>,
    since: Moment,
}

/// A key: a point on P-256, uncompressed.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Key {
    id: String,
    point: Vec<u8>,
}

/// The document at the URL.
#[derive(Deserialize)]
struct Document {
    /// Not parsed yet: a key that we do not understand must not hide the others.
    public_keys: Vec<Value>,
}

/// A key in the document.
#[derive(Deserialize)]
struct RawKey {
    key_identifier: String,
    /// PEM of a `SubjectPublicKeyInfo`.
    key: String,
}

impl Document {
    /// The keys on P-256. The others are dropped.
    fn usable(self) -> Vec<Key> {
        let parsed = self.public_keys.into_iter().filter_map(|key| serde_json::from_value::<RawKey>(key).ok());
        parsed.filter_map(|raw| Some(Key { point: point_in(&raw.key)?, id: raw.key_identifier })).collect()
    }
}

/// The point in a PEM of a P-256 key. `None` for anything else.
fn point_in(pem: &str) -> Option<Vec<u8>> {
    let body = pem.trim().strip_prefix("-----BEGIN PUBLIC KEY-----")?.strip_suffix("-----END PUBLIC KEY-----")?;
    let body: String = body.split_ascii_whitespace().collect();
    let der = BASE64.decode(body).ok()?;
    let point = der.strip_prefix(&P256_INFO)?;
    (point.len() == 65 && point[0] == 4).then(|| point.to_vec())
}

impl Key {
    /// Whether this key made the signature, which is in DER.
    fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, &self.point).verify(message, signature).is_ok()
    }
}

impl fmt::Debug for ScannerKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ScannerKeys").field(&self.0.url.as_str()).finish()
    }
}

impl ScannerKeys {
    /// The keys at this URL, of which nothing is known yet.
    ///
    /// # Errors
    ///
    /// If the URL is not acceptable, or a certificate that the environment names is malformed.
    pub fn new(url: &str, plain_http: PlainHttp, clock: Clock) -> Result<Self, UnusableUrl> {
        let url = Issuer::parse(url, plain_http).ok_or(UnusableUrl)?;
        let http = client(&url).map_err(|_| UnusableUrl)?;
        Ok(Self(Arc::new(Inner { url, http, clock, known: Mutex::default(), asked: Default::default() })))
    }

    /// Verifies that a report with these headers was signed by one of the keys.
    ///
    /// # Errors
    ///
    /// 401 if it was not, 503 if that cannot be found out now.
    pub async fn verify(&self, headers: &HeaderMap, body: &[u8]) -> Result<(), ApiError> {
        const REFUSED: ApiError = ApiError::Unauthorized(Unauthorized::Signature);
        let only = |name: &str| {
            let mut values = headers.get_all(name).iter();
            let value = values.next()?.to_str().ok()?;
            values.next().is_none().then_some(value)
        };
        let (Some(id), Some(signature)) = (only(KEY_IDENTIFIER), only(SIGNATURE)) else { return Err(REFUSED) };
        let signature = BASE64.decode(signature).map_err(|_| REFUSED)?;
        let key = self.key(id).await?.ok_or(REFUSED)?;
        if key.verifies(body, &signature) { Ok(()) } else { Err(REFUSED) }
    }

    /// The key with this identifier, which is looked up at the URL if it is not known. `None` if there
    /// is no such key.
    async fn key(&self, id: &str) -> Result<Option<Key>, ApiError> {
        let key_in = |known: &Known| known.keys.iter().find(|key| key.id == id).cloned();
        if let Some(known) = self.known() {
            let is_fresh = known.since.plus(MAX_AGE) > self.0.clock.now();
            if let Some(key) = key_in(&known).filter(|_| is_fresh) {
                return Ok(Some(key));
            }
        }
        let mut asked = self.0.asked.lock().await;
        let now = self.0.clock.now();
        let succeeded = match *asked {
            Some((at, succeeded)) if now < at.plus(MIN_INTERVAL) => succeeded,
            _ => {
                // Before the request: a caller that goes away must not make the next one ask at once.
                *asked = Some((now, false));
                let succeeded = self.fetch(now).await;
                *asked = Some((now, succeeded));
                succeeded
            }
        };
        match self.known().as_deref().and_then(key_in) {
            Some(key) => Ok(Some(key)),
            None if succeeded => Ok(None),
            None => Err(ApiError::Unavailable),
        }
    }

    fn known(&self) -> Option<Arc<Known>> {
        self.0.known.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Fetches the keys. False if that fails: then those that are known stay.
    async fn fetch(&self, now: Moment) -> bool {
        let Inner { url, http, known, .. } = &*self.0;
        match within_timeout(json::<Document>(http.get(url.url().clone()))).await {
            Ok(document) => {
                let keys = document.usable();
                *known.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(Known { keys, since: now }));
                true
            }
            Err(failure) => {
                tracing::error!(%failure, "the keys of secret scanning cannot be fetched");
                false
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// The example in GitHub's documentation of the partner programme.
    const PEM: &str = "-----BEGIN PUBLIC KEY-----\n\
        MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE9MJJHnMfn2+H4xL4YaPDA4RpJqUq\n\
        kCmRCBnYERxZanmcpzQSXs1X/AljlKkbJ8qpVIW4clayyef9gWhFbNHWAA==\n\
        -----END PUBLIC KEY-----\n";
    const BODY: &[u8] = br#"[{"token":"some_token","type":"some_type","url":"some_url"}]"#;
    const SIGNED: &str =
        "MEUCIQDKZokqnCjrRtw0tni+2Ltvl/uiMJ1EGumEsp1BsNr32AIgQY1YXD2nlj+XNfGK4rBfkMJ1JDOQcYXxa2sY8FNkrKc=";

    fn keys(document: Value) -> Vec<Key> {
        serde_json::from_value::<Document>(document).unwrap().usable()
    }

    #[test]
    fn signature_in_githubs_documentation_is_accepted() {
        let keys = keys(json!({"public_keys": [{"key_identifier": "90a4", "key": PEM, "is_current": true}]}));
        let signature = BASE64.decode(SIGNED).unwrap();
        assert!(keys[0].verifies(BODY, &signature));
        assert!(!keys[0].verifies(&BODY[1..], &signature));
        assert!(!keys[0].verifies(BODY, &signature[1..]));
    }

    #[test]
    fn keys_that_are_not_on_p_256_are_dropped() {
        let with = |key: &str| keys(json!({"public_keys": [{"key_identifier": "a", "key": key}, {"x": 1}, 7]})).len();
        assert_eq!(with(PEM), 1);
        assert_eq!(with(&PEM.replace("MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQc", "MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQd")), 0);
        for other in ["", "-----BEGIN PUBLIC KEY-----", "MFkw", "-----BEGIN PUBLIC KEY-----\n-----END PUBLIC KEY-----"]
        {
            assert_eq!(with(other), 0, "{other}");
        }
        // A compressed point, and one byte too many.
        let der = [&P256_INFO[..], &[2; 65]].concat();
        let pem = |der: &[u8]| format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----", BASE64.encode(der));
        assert_eq!(with(&pem(&der)), 0);
        assert_eq!(with(&pem(&[&P256_INFO[..], &[4; 66]].concat())), 0);
    }
}
