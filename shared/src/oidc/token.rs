//! ID tokens: form, header, signature, and the claims that every policy checks.

use std::fmt;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use serde::de::{Error, MapAccess, Visitor};
use serde_json::{Map, Value};

use super::keys::{Algorithm, Key};
use super::{LEEWAY, Reason};
use crate::clock::Moment;

/// The maximum length of an ID token in bytes.
const LONGEST: usize = 16 * 1024;

/// A JSON object. A name that occurs twice is an error: others may have checked the other one.
struct Object(Map<String, Value>);

impl<'de> Deserialize<'de> for Object {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members;

        impl<'de> Visitor<'de> for Members {
            type Value = Object;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Object, A::Error> {
                let mut object = Map::new();
                while let Some((name, value)) = members.next_entry()? {
                    if object.insert(name, value).is_some() {
                        return Err(A::Error::custom("a name occurs twice"));
                    }
                }
                Ok(Object(object))
            }
        }

        deserializer.deserialize_map(Members)
    }
}

/// The object in a part of a token.
fn object(part: &str) -> Option<Map<String, Value>> {
    let json = URL_SAFE_NO_PAD.decode(part).ok()?;
    serde_json::from_slice::<Object>(&json).ok().map(|object| object.0)
}

/// An ID token whose signature has not been verified.
pub(super) struct Unverified<'a> {
    /// Header and payload as sent.
    message: &'a str,
    signature: &'a str,
    /// The algorithm that the header names, one of those that are accepted.
    pub algorithm: Algorithm,
    /// The key that the header names.
    pub key_id: Option<String>,
    claims: Map<String, Value>,
}

impl<'a> Unverified<'a> {
    /// Parses a token. `jku`, `x5u`, `jwk` and `x5c` in its header are ignored.
    pub fn parse(text: &'a str) -> Result<Self, Reason> {
        if text.len() > LONGEST {
            return Err(Reason::Malformed);
        }
        let (message, signature) = text.rsplit_once('.').ok_or(Reason::Malformed)?;
        // More than three parts fail here too: base64url has no dot.
        let (header, payload) = message.split_once('.').ok_or(Reason::Malformed)?;
        let header = object(header).ok_or(Reason::Malformed)?;
        if header.contains_key("crit") {
            return Err(Reason::CriticalHeader);
        }
        match header.get("typ") {
            None => {}
            Some(Value::String(kind)) if kind.eq_ignore_ascii_case("JWT") => {}
            Some(_) => return Err(Reason::Type),
        }
        let algorithm = header.get("alg").and_then(Value::as_str).and_then(Algorithm::named);
        let algorithm = algorithm.ok_or(Reason::Algorithm)?;
        let key_id = match header.get("kid") {
            None => None,
            Some(Value::String(id)) => Some(id.clone()),
            Some(_) => return Err(Reason::Malformed),
        };
        let claims = object(payload).ok_or(Reason::Malformed)?;
        Ok(Self { message, signature, algorithm, key_id, claims })
    }

    /// The issuer that the token names, which decides whose key to verify it with.
    pub fn issuer(&self) -> Option<&str> {
        self.claims.get("iss").and_then(Value::as_str)
    }

    /// Header and payload as sent.
    pub fn message(&self) -> &'a str {
        self.message
    }

    /// The claims, if this key signed them.
    pub fn verified(self, key: &Key) -> Result<Claims, Reason> {
        let signature = URL_SAFE_NO_PAD.decode(self.signature).map_err(|_| Reason::Signature)?;
        let is_good = key.verifies(self.message.as_bytes(), &signature);
        is_good.then_some(Claims(self.claims)).ok_or(Reason::Signature)
    }
}

/// The claims of a token whose signature is good.
pub(super) struct Claims(Map<String, Value>);

impl Claims {
    /// All of them.
    pub fn into_map(self) -> Map<String, Value> {
        self.0
    }

    /// A claim.
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.0.get(name)
    }

    /// A claim that must be a string and not empty.
    pub fn text(&self, name: &'static str) -> Result<&str, Reason> {
        let text = self.get(name).and_then(Value::as_str).filter(|text| !text.is_empty());
        text.ok_or(Reason::Claim(name))
    }

    /// A claim that, if it is there, must be a time: in seconds since 1970, perhaps with a fraction.
    fn time(&self, name: &'static str) -> Result<Option<i64>, Reason> {
        let Some(value) = self.get(name) else { return Ok(None) };
        let whole = value.as_i64().or_else(|| value.as_f64().map(|seconds| seconds.floor() as i64));
        whole.map(Some).ok_or(Reason::Claim(name))
    }

    /// Checks the issuer and the times.
    pub fn check(&self, issuer: &str, now: Moment) -> Result<Validity, Reason> {
        if self.text("iss")? != issuer {
            return Err(Reason::Issuer);
        }
        let expires_at = self.time("exp")?.ok_or(Reason::Claim("exp"))?;
        let issued_at = self.time("iat")?.ok_or(Reason::Claim("iat"))?;
        let not_before = self.time("nbf")?;
        let (now, leeway) = (now.epoch_seconds(), LEEWAY.as_secs().cast_signed());
        if now >= expires_at.saturating_add(leeway) {
            return Err(Reason::Expired);
        }
        if issued_at > now + leeway {
            return Err(Reason::IssuedInTheFuture);
        }
        if not_before.is_some_and(|not_before| not_before > now + leeway) {
            return Err(Reason::NotYetValid);
        }
        Ok(Validity { issued_at, expires_at })
    }

    /// The audiences: a string, or a list of strings.
    pub fn audiences(&self) -> Result<Vec<&str>, Reason> {
        let audiences = match self.get("aud") {
            Some(Value::String(audience)) => Some(vec![audience.as_str()]),
            Some(Value::Array(audiences)) => audiences.iter().map(Value::as_str).collect(),
            _ => None,
        };
        audiences.ok_or(Reason::Claim("aud"))
    }
}

/// When a token is valid.
pub(super) struct Validity {
    issued_at: i64,
    expires_at: i64,
}

impl Validity {
    /// Whether the token is valid for at most this long.
    pub fn is_at_most(&self, longest: Duration) -> bool {
        self.expires_at.saturating_sub(self.issued_at) <= longest.as_secs().cast_signed()
    }

    /// When the token expires, without leeway.
    pub fn expires_at(&self) -> Moment {
        Moment::EPOCH.plus(Duration::from_secs(u64::try_from(self.expires_at).unwrap_or(0)))
    }
}
