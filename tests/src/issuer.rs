//! A fake issuer of ID tokens, which signs whatever a test wants.

use std::sync::{Arc, LazyLock};

use aws_lc_rs::hmac;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, EcdsaSigningAlgorithm, KeyPair,
    RSA_PKCS1_SHA256, RSA_PKCS1_SHA384, RSA_PSS_SHA256, RsaEncoding, RsaKeyPair,
};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use shared::oidc::{Issuer, PlainHttp, Workloads};
use shared::{Clock, Moment};

use crate::upstream::{Registry, Reply};

/// The audience of ID tokens.
pub const AUDIENCE: &str = "guard.example.com";

/// The path of the metadata.
pub const METADATA: &str = "/.well-known/openid-configuration";

/// The path of the keys.
pub const KEYS: &str = "/keys";

/// The path of the token endpoint.
pub const TOKEN: &str = "/token";

/// A key that signs. Generated once per test program, since RSA keys take a while.
#[derive(Debug, Clone)]
pub enum Key {
    /// An RSA key.
    Rsa(Arc<RsaKeyPair>),
    /// A key on P-256 or P-384.
    Ec(Arc<EcdsaKeyPair>),
}

/// The RSA key of every issuer.
pub static RSA: LazyLock<Key> = LazyLock::new(rsa_key);
/// An RSA key that an issuer changes to, or that is somebody else's.
pub static OTHER_RSA: LazyLock<Key> = LazyLock::new(rsa_key);
/// The P-256 key of every issuer.
pub static EC: LazyLock<Key> = LazyLock::new(|| ec_key(&ECDSA_P256_SHA256_FIXED_SIGNING));
/// Somebody else's P-256 key.
pub static OTHER_EC: LazyLock<Key> = LazyLock::new(|| ec_key(&ECDSA_P256_SHA256_FIXED_SIGNING));
/// A key on P-384, which is not accepted.
pub static P384: LazyLock<Key> = LazyLock::new(|| ec_key(&ECDSA_P384_SHA384_FIXED_SIGNING));

fn rsa_key() -> Key {
    Key::Rsa(Arc::new(RsaKeyPair::generate(KeySize::Rsa2048).unwrap()))
}

fn ec_key(algorithm: &'static EcdsaSigningAlgorithm) -> Key {
    Key::Ec(Arc::new(EcdsaKeyPair::generate(algorithm).unwrap()))
}

impl Key {
    /// The public key as the issuer publishes it.
    pub fn jwk(&self, kid: &str) -> Value {
        let encode = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        match self {
            Key::Rsa(key) => {
                // DER: a sequence of the modulus, 256 bytes from the tenth on, and the exponent.
                let n = encode(&key.public_key().as_ref()[9..265]);
                json!({"kty": "RSA", "kid": kid, "use": "sig", "alg": "RS256", "n": n, "e": "AQAB"})
            }
            Key::Ec(key) => {
                let point = &key.public_key().as_ref()[1..];
                let (x, y) = point.split_at(point.len() / 2);
                let crv = if x.len() == 32 { "P-256" } else { "P-384" };
                json!({"kty": "EC", "kid": kid, "use": "sig", "crv": crv, "x": encode(x), "y": encode(y)})
            }
        }
    }

    /// The public key in bytes, which an attacker may use as the secret of an HMAC.
    pub fn public_bytes(&self) -> Vec<u8> {
        match self {
            Key::Rsa(key) => key.public_key().as_ref().to_vec(),
            Key::Ec(key) => key.public_key().as_ref().to_vec(),
        }
    }

    /// Signs as the key's own algorithm does: `RS256`, `ES256` or `ES384`.
    pub fn sign(&self, message: &str) -> Vec<u8> {
        match self {
            Key::Rsa(_) => self.sign_rsa(message, &RSA_PKCS1_SHA256),
            Key::Ec(key) => key.sign(&SystemRandom::new(), message.as_bytes()).unwrap().as_ref().to_vec(),
        }
    }

    /// Signs with RSA and SHA-384, `RS384`.
    pub fn sign_rs384(&self, message: &str) -> Vec<u8> {
        self.sign_rsa(message, &RSA_PKCS1_SHA384)
    }

    /// Signs with RSA-PSS, `PS256`.
    pub fn sign_ps256(&self, message: &str) -> Vec<u8> {
        self.sign_rsa(message, &RSA_PSS_SHA256)
    }

    fn sign_rsa(&self, message: &str, padding: &'static dyn RsaEncoding) -> Vec<u8> {
        let Key::Rsa(key) = self else { panic!("not an RSA key") };
        let mut signature = vec![0; key.public_modulus_len()];
        key.sign(padding, &SystemRandom::new(), message.as_bytes(), &mut signature).unwrap();
        signature
    }
}

/// HMAC with SHA-256, `HS256`.
pub fn hs256(secret: &[u8], message: &str) -> Vec<u8> {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), message.as_bytes()).as_ref().to_vec()
}

/// Header and payload of a token, encoded.
pub fn message(header: &str, payload: &str) -> String {
    format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(payload))
}

/// A token of these parts.
pub fn token(message: &str, signature: &[u8]) -> String {
    format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature))
}

/// The fake issuer. Its keys are [`RSA`] as `rsa` and [`EC`] as `ec`.
#[derive(Debug, Clone)]
pub struct FakeIssuer {
    /// Its server.
    pub server: Registry,
    /// The clock by which it dates tokens.
    pub clock: Clock,
}

impl FakeIssuer {
    /// Starts an issuer with a clock of its own.
    pub async fn start() -> Self {
        Self::start_with(Clock::manual(Moment::parse("2026-11-21T10:00:00Z").unwrap())).await
    }

    /// Starts an issuer with this clock.
    pub async fn start_with(clock: Clock) -> Self {
        let issuer = Self { server: Registry::start().await, clock };
        issuer.set_metadata(issuer.metadata());
        issuer.set_keys(&[RSA.jwk("rsa"), EC.jwk("ec")]);
        issuer
    }

    /// The issuer as `iss` names it.
    pub fn url(&self) -> &str {
        &self.server.url
    }

    /// The issuer as a deployment configures it.
    pub fn issuer(&self) -> Issuer {
        Issuer::parse(self.url(), PlainHttp::OnLoopback).unwrap()
    }

    /// A deployment that allows this issuer alone, for the audience `guard.example.com`.
    pub fn workloads(&self) -> Workloads {
        Workloads::new([self.issuer()], vec![AUDIENCE.to_owned()], &self.clock).unwrap()
    }

    /// Valid metadata.
    pub fn metadata(&self) -> Value {
        let url = |path: &str| format!("{}{path}", self.url());
        json!({
            "issuer": self.url(),
            "jwks_uri": url(KEYS),
            "authorization_endpoint": url("/authorize"),
            "token_endpoint": url(TOKEN),
        })
    }

    /// Publishes this metadata.
    pub fn set_metadata(&self, metadata: Value) {
        self.server.stub(METADATA, Reply::ok("application/json", metadata.to_string()));
    }

    /// Publishes these keys.
    pub fn set_keys(&self, keys: &[Value]) {
        self.server.stub(KEYS, Reply::ok("application/json", json!({ "keys": keys }).to_string()));
    }

    /// Now, in seconds since 1970.
    pub fn now(&self) -> i64 {
        self.clock.now().epoch_seconds()
    }

    /// Valid claims of a CI job, for the audience `guard.example.com`.
    pub fn workload(&self) -> Value {
        json!({
            "iss": self.url(),
            "aud": AUDIENCE,
            "sub": "repo:acme/widgets:ref:refs/heads/main",
            "jti": "1f2e",
            "iat": self.now(),
            "nbf": self.now(),
            "exp": self.now() + 300,
            "repository_owner_id": "123",
        })
    }

    /// An ID token with these claims, signed with [`RSA`].
    pub fn sign(&self, claims: &Value) -> String {
        sign_with(&RSA, &json!({"alg": "RS256", "typ": "JWT", "kid": "rsa"}), claims)
    }

    /// How often the metadata were fetched since the last call.
    pub fn take_fetches(&self) -> usize {
        self.server.take_requests().iter().filter(|request| request.path == METADATA).count()
    }
}

/// A token with this header and these claims, signed with this key.
pub fn sign_with(key: &Key, header: &Value, claims: &Value) -> String {
    let message = message(&header.to_string(), &claims.to_string());
    token(&message, &key.sign(&message))
}
