//! The keys of an issuer, and which one signed a token.

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents, UnparsedPublicKey,
};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use serde_json::Value;

use super::Reason;

/// The sizes of RSA keys, in bits.
const RSA_BITS: std::ops::RangeInclusive<usize> = 2_048..=8_192;

/// The algorithms of signatures that are accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Algorithm {
    /// RSA with PKCS #1 v1.5 and SHA-256.
    Rs256,
    /// ECDSA on P-256 with SHA-256.
    Es256,
}

impl Algorithm {
    /// The algorithm with this name. RFC 7518, section 3.1.
    pub fn named(name: &str) -> Option<Self> {
        match name {
            "RS256" => Some(Self::Rs256),
            "ES256" => Some(Self::Es256),
            _ => None,
        }
    }
}

/// A key that verifies signatures of one algorithm.
#[derive(Debug, Clone)]
pub(super) struct Key {
    id: Option<String>,
    public: Public,
}

#[derive(Debug, Clone)]
enum Public {
    Rsa {
        n: Vec<u8>,
        e: Vec<u8>,
    },
    /// A point on P-256, uncompressed.
    P256(Vec<u8>),
}

/// A document of keys, RFC 7517.
#[derive(Deserialize)]
pub(super) struct KeySet {
    /// Not parsed yet: a key that we do not understand must not hide the others.
    keys: Vec<Value>,
}

/// What we read of a key.
#[derive(Deserialize)]
struct Jwk {
    kty: String,
    kid: Option<String>,
    r#use: Option<String>,
    key_ops: Option<Vec<String>>,
    alg: Option<String>,
    crv: Option<String>,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
    y: Option<String>,
}

impl KeySet {
    /// The keys that may verify a signature. The others are dropped.
    pub fn usable(self) -> Vec<Key> {
        let parsed = self.keys.into_iter().filter_map(|key| serde_json::from_value(key).ok());
        parsed.filter_map(Key::from_jwk).collect()
    }
}

impl Key {
    /// `None` unless it is an RSA key of an accepted size or a P-256 key, for signatures.
    fn from_jwk(jwk: Jwk) -> Option<Self> {
        let bytes = |text: &Option<String>| URL_SAFE_NO_PAD.decode(text.as_ref()?).ok();
        let public = match jwk.kty.as_str() {
            "RSA" => {
                let (n, e) = (without_leading_zeros(bytes(&jwk.n)?), without_leading_zeros(bytes(&jwk.e)?));
                // An exponent of 1 would make every text its own signature.
                let is_sound = RSA_BITS.contains(&bits(&n)) && (2..=33).contains(&bits(&e)) && e.last()? % 2 == 1;
                is_sound.then_some(Public::Rsa { n, e })?
            }
            "EC" if jwk.crv.as_deref() == Some("P-256") => {
                let (x, y) = (bytes(&jwk.x)?, bytes(&jwk.y)?);
                let is_point = x.len() == 32 && y.len() == 32;
                is_point.then(|| Public::P256([&[4][..], &x, &y].concat()))?
            }
            _ => return None,
        };
        let is_for_signatures = jwk.r#use.is_none_or(|r#use| r#use == "sig")
            && jwk.key_ops.is_none_or(|operations| operations.iter().any(|operation| operation == "verify"))
            && jwk.alg.is_none_or(|alg| Algorithm::named(&alg) == Some(public.algorithm()));
        is_for_signatures.then_some(Self { id: jwk.kid, public })
    }

    /// Whether this key made the signature.
    pub fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        let outcome = match &self.public {
            Public::Rsa { n, e } => {
                RsaPublicKeyComponents { n, e }.verify(&RSA_PKCS1_2048_8192_SHA256, message, signature)
            }
            Public::P256(point) => UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point).verify(message, signature),
        };
        outcome.is_ok()
    }
}

impl Public {
    fn algorithm(&self) -> Algorithm {
        match self {
            Self::Rsa { .. } => Algorithm::Rs256,
            Self::P256(_) => Algorithm::Es256,
        }
    }
}

/// The key that a token's header names. A header without `kid` is fine if one key fits.
pub(super) fn key<'a>(keys: &'a [Key], algorithm: Algorithm, id: Option<&str>) -> Result<&'a Key, Reason> {
    let mut fitting =
        keys.iter().filter(|key| key.public.algorithm() == algorithm && (id.is_none() || key.id.as_deref() == id));
    let key = fitting.next().ok_or(Reason::UnknownKey)?;
    if fitting.next().is_some() { Err(Reason::AmbiguousKey) } else { Ok(key) }
}

fn without_leading_zeros(mut number: Vec<u8>) -> Vec<u8> {
    let zeros = number.iter().take_while(|byte| **byte == 0).count();
    number.drain(..zeros);
    number
}

/// The length in bits of a number without leading zeros.
fn bits(number: &[u8]) -> usize {
    number.first().map_or(0, |first| number.len() * 8 - first.leading_zeros() as usize)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// An odd number of this many bits.
    fn number(bits: usize) -> String {
        let mut bytes = vec![0xff; bits.div_ceil(8)];
        bytes[0] = 0xff >> (bytes.len() * 8 - bits);
        URL_SAFE_NO_PAD.encode(bytes)
    }

    fn is_usable(key: Value) -> bool {
        !KeySet { keys: vec![key] }.usable().is_empty()
    }

    #[test]
    fn rsa_keys_have_2048_to_8192_bits_and_a_sound_exponent() {
        let rsa = |n: &str, e: &str| is_usable(json!({"kty": "RSA", "n": n, "e": e}));
        for (bits, expected) in [(1_024, false), (2_047, false), (2_048, true), (8_192, true), (8_193, false)] {
            assert_eq!(rsa(&number(bits), "AQAB"), expected, "{bits}");
        }
        let padded = URL_SAFE_NO_PAD.encode([&[0; 128][..], &[0xff; 128]].concat());
        assert!(!rsa(&padded, "AQAB"));
        for (e, expected) in [("AQAB", true), ("Aw", true), ("AQ", false), ("", false), ("AA", false), ("BA", false)] {
            assert_eq!(rsa(&number(2_048), e), expected, "{e}");
        }
        assert!(!rsa(&number(2_048), &number(40)));
    }

    #[test]
    fn elliptic_keys_are_on_p_256_with_full_coordinates() {
        let ec = |crv: &str, length: usize| {
            let part = URL_SAFE_NO_PAD.encode(vec![1; length]);
            is_usable(json!({"kty": "EC", "crv": crv, "x": part, "y": part}))
        };
        assert!(ec("P-256", 32));
        assert!(!ec("P-256", 31) && !ec("P-256", 33) && !ec("P-384", 48) && !ec("secp256k1", 32));
    }

    #[test]
    fn keys_for_other_purposes_are_dropped() {
        let with = |name: &str, value: Value| {
            let mut key = json!({"kty": "RSA", "n": number(2_048), "e": "AQAB"});
            key[name] = value;
            is_usable(key)
        };
        assert!(with("use", json!("sig")) && with("alg", json!("RS256")) && with("key_ops", json!(["verify"])));
        assert!(!with("use", json!("enc")) && !with("alg", json!("PS256")) && !with("key_ops", json!(["encrypt"])));
        assert!(!with("kty", json!("oct")) && !with("kty", json!("OKP")) && !with("n", json!(7)));
    }
}
