//! GitHub's secret scanning: publishes keys, and signs reports of leaked tokens with them.

use std::sync::{Arc, LazyLock};

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};

use crate::upstream::{Registry, Reply};
use crate::{Answer, Service};

/// The path of the function that takes reports.
pub const SCANNED: &str = "/v1/integrations/github/secret-scanning";

/// The path of the keys at the scanner's server.
pub const SCANNER_KEYS: &str = "/meta/public_keys/secret_scanning";

/// What the DER of every public key on P-256 begins with, before the point.
const P256_INFO: &str = "3059301306072a8648ce3d020106082a8648ce3d030107034200";

/// A key that signs reports.
#[derive(Debug, Clone)]
pub struct ScannerKey {
    /// Its identifier.
    pub id: &'static str,
    pair: Arc<EcdsaKeyPair>,
}

/// The key of every scanner.
pub static CURRENT: LazyLock<ScannerKey> = LazyLock::new(|| ScannerKey::generate("current"));

impl ScannerKey {
    /// A new key with this identifier.
    pub fn generate(id: &'static str) -> Self {
        Self { id, pair: Arc::new(EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).unwrap()) }
    }

    /// The key as it is published.
    fn published(&self) -> Value {
        let info = (0..P256_INFO.len()).step_by(2).map(|at| u8::from_str_radix(&P256_INFO[at..at + 2], 16).unwrap());
        let der: Vec<u8> = info.chain(self.pair.public_key().as_ref().iter().copied()).collect();
        let pem = format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", BASE64.encode(der));
        json!({"key_identifier": self.id, "key": pem, "is_current": true})
    }

    /// The signature of a body.
    pub fn sign(&self, body: &[u8]) -> String {
        BASE64.encode(self.pair.sign(&SystemRandom::new(), body).unwrap())
    }
}

/// The scanner.
#[derive(Debug, Clone)]
pub struct Scanner {
    /// Its server.
    pub server: Registry,
}

impl Scanner {
    /// A scanner that publishes [`CURRENT`] at this server.
    pub fn at(server: Registry) -> Self {
        let scanner = Self { server };
        scanner.publish(&[&CURRENT]);
        scanner
    }

    /// The URL of its keys.
    pub fn url(&self) -> String {
        format!("{}{SCANNER_KEYS}", self.server.url)
    }

    /// Publishes these keys from now on.
    pub fn publish(&self, keys: &[&ScannerKey]) {
        let keys: Vec<Value> = keys.iter().map(|key| key.published()).collect();
        self.answer(Reply::ok("application/json", json!({"public_keys": keys}).to_string()));
    }

    /// Answers requests for keys with this reply from now on.
    pub fn answer(&self, reply: Reply) {
        self.server.stub(SCANNER_KEYS, reply);
    }

    /// How often the keys were asked for since the last call.
    pub fn requests(&self) -> usize {
        self.server.take_requests().iter().filter(|request| request.path == SCANNER_KEYS).count()
    }
}

/// A report of these tokens.
pub fn scanned(tokens: &[&str]) -> Value {
    let entry = |token: &&str| {
        let url = "https://github.com/octocat/hello/blob/main/.npmrc";
        json!({"token": token, "type": "guard_tokens", "url": url, "source": "content"})
    };
    tokens.iter().map(entry).collect()
}

impl Service {
    /// Builds a signed report.
    pub fn signed(&self, key: &ScannerKey, body: &str) -> RequestBuilder {
        let request = self.request(Method::POST, SCANNED).header("content-type", "application/json");
        let request = request.header("github-public-key-identifier", key.id);
        request.header("github-public-key-signature", key.sign(body.as_bytes())).body(body.to_owned())
    }

    /// Reports these tokens as GitHub does.
    pub async fn scan(&self, tokens: &[&str]) -> Answer {
        self.send(self.signed(&CURRENT, &scanned(tokens).to_string())).await
    }
}
