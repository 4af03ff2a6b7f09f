//! ID tokens of CI, against an issuer that signs anything and fails in every way. What both policies
//! share is tested here.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use futures::future::{Either, join_all};
use serde_json::{Value, json};
use shared::oidc::{Issuer, PlainHttp, Reason, Refusal, Workloads};
use tests::issuer::{EC, FakeIssuer, KEYS, METADATA, OTHER_EC, OTHER_RSA, P384, RSA, hs256, message, sign_with, token};
use tests::upstream::{Registry, Reply};

const AUDIENCE: &str = "guard.example.com";

fn workloads(issuer: &FakeIssuer) -> Workloads {
    Workloads::new([issuer.issuer()], vec![AUDIENCE.to_owned(), "npm.example.com".to_owned()], &issuer.clock).unwrap()
}

fn unavailable(seconds: u64) -> Option<Refusal> {
    Some(Refusal::Unavailable { retry_after: Duration::from_secs(seconds) })
}

/// Claims with one of them changed, or removed if the value is `null`.
fn with(claims: &Value, name: &str, value: Value) -> Value {
    let mut claims = claims.clone();
    if value.is_null() {
        claims.as_object_mut().unwrap().remove(name);
    } else {
        claims[name] = value;
    }
    claims
}

#[tokio::test]
async fn good_id_token_is_verified_with_its_claims() {
    let issuer = FakeIssuer::start().await;
    let workloads = workloads(&issuer);
    let claims = issuer.workload();
    let workload = workloads.verify(&issuer.sign(&claims)).await.unwrap();
    assert_eq!(workload.issuer, issuer.url());
    assert_eq!(workload.audiences, [AUDIENCE]);
    assert_eq!(Value::Object(workload.claims), claims);
    assert_eq!(workload.expires_at.epoch_seconds(), issuer.now() + 300);
    for (header, key) in [
        (json!({"alg": "ES256", "kid": "ec"}), &EC),
        // Without `kid`, one key of the issuer fits the algorithm.
        (json!({"alg": "ES256", "typ": "jwt"}), &EC),
        (json!({"alg": "RS256"}), &RSA),
    ] {
        assert!(workloads.verify(&sign_with(key, &header, &claims)).await.is_ok(), "{header}");
    }
    let several = with(&claims, "aud", json!(["other", "npm.example.com", AUDIENCE]));
    let workload = workloads.verify(&issuer.sign(&several)).await.unwrap();
    assert_eq!(workload.audiences, ["npm.example.com", AUDIENCE]);
    assert!(workloads.verify(&issuer.sign(&with(&claims, "nbf", Value::Null))).await.is_ok());
    let fraction = with(&claims, "exp", json!(issuer.now() as f64 + 30.5));
    assert_eq!(workloads.verify(&issuer.sign(&fraction)).await.unwrap().expires_at.epoch_seconds(), issuer.now() + 30);
    assert_eq!(issuer.take_fetches(), 1);
}

#[tokio::test]
async fn times_are_accepted_within_60_seconds_by_the_injected_clock() {
    let issuer = FakeIssuer::start().await;
    let workloads = workloads(&issuer);
    let now = issuer.now();
    for (name, value, expected) in [
        ("exp", now - 59, None),
        ("exp", now - 60, Some(Reason::Expired)),
        ("nbf", now + 60, None),
        ("nbf", now + 61, Some(Reason::NotYetValid)),
        ("iat", now + 60, None),
        ("iat", now + 61, Some(Reason::IssuedInTheFuture)),
        ("exp", now + 24 * 60 * 60, None),
        ("exp", now + 24 * 60 * 60 + 1, Some(Reason::Lifetime)),
    ] {
        let refusal = workloads.verify(&issuer.sign(&with(&issuer.workload(), name, json!(value)))).await.err();
        assert_eq!(refusal, expected.map(Refusal::Invalid), "{name} {}", value - now);
    }
}

#[tokio::test]
async fn replay_id_is_the_jti_or_the_signed_part_of_the_token() {
    let issuer = FakeIssuer::start().await;
    let workloads = workloads(&issuer);
    let replay_id = async |claims: &Value, header: &Value| {
        let token = sign_with(&EC, header, claims);
        workloads.verify(&token).await.unwrap().replay_id
    };
    let (plain, typed) = (json!({"alg": "ES256", "kid": "ec"}), json!({"alg": "ES256", "kid": "ec", "typ": "JWT"}));
    let claims = issuer.workload();
    let first = replay_id(&claims, &plain).await;
    assert!(first.len() == 64 && first.bytes().all(|c| c.is_ascii_hexdigit()), "{first}");
    assert_eq!(replay_id(&with(&claims, "sub", json!("other")), &typed).await, first);
    assert_ne!(replay_id(&with(&claims, "jti", json!("1f2f")), &plain).await, first);
    // An ECDSA signature is new each time: it must not make the token another one.
    let unnamed = with(&claims, "jti", Value::Null);
    let hashed = replay_id(&unnamed, &plain).await;
    assert_eq!(replay_id(&unnamed, &plain).await, hashed);
    assert_ne!(replay_id(&unnamed, &typed).await, hashed);
    assert_ne!(hashed, first);
}

/// Hostile tokens, each with the reason for which it is refused.
pub(crate) fn hostile(issuer: &FakeIssuer) -> Vec<(String, String, Reason)> {
    let claims = issuer.workload();
    let now = issuer.now();
    let rs256 = json!({"alg": "RS256", "typ": "JWT", "kid": "rsa"});
    let good = issuer.sign(&claims);
    let (signed, signature) = good.rsplit_once('.').unwrap();
    let (header, payload) = signed.split_once('.').unwrap();
    let mut rows: Vec<(String, String, Reason)> = Vec::new();

    // Form.
    let encode = |text: &str| URL_SAFE_NO_PAD.encode(text);
    let resigned = |header: &str, payload: &str| {
        let message = message(header, payload);
        token(&message, &RSA.sign(&message))
    };
    let rs256_text = rs256.to_string();
    let nested = format!("{}{}", "[".repeat(200), "]".repeat(200));
    for (what, text) in [
        ("empty", String::new()),
        ("one part", "a".to_owned()),
        ("two parts", signed.to_owned()),
        ("four parts", format!("{good}.{signature}")),
        ("five parts, as if encrypted", format!("{header}.{payload}.a.b.c")),
        ("only dots", "..".to_owned()),
        ("a header that is no base64", format!("!!.{payload}.{signature}")),
        ("a header with padding", format!("{}==.{payload}.{signature}", encode("{\"alg\":\"RS256\"}"))),
        ("a payload that is no base64", format!("{header}.%.{signature}")),
        ("a payload with a line break", format!("{header}.{payload}\n.{signature}")),
        ("a header that is no JSON", resigned("RS256", &claims.to_string())),
        ("a header that is a list", resigned("[]", &claims.to_string())),
        ("a payload that is a list", resigned(&rs256_text, "[]")),
        ("a payload that is a string", resigned(&rs256_text, "\"iss\"")),
        ("a payload that is null", resigned(&rs256_text, "null")),
        ("a payload with more after it", resigned(&rs256_text, &format!("{claims}{{}}"))),
        ("a payload with two audiences by name", {
            let twice = claims.to_string().replacen('{', "{\"aud\":\"other\",", 1);
            resigned(&rs256_text, &twice)
        }),
        ("a header with two algorithms", {
            resigned("{\"alg\":\"RS256\",\"kid\":\"rsa\",\"alg\":\"none\"}", &claims.to_string())
        }),
        ("a payload with a number beyond all numbers", {
            resigned(&rs256_text, &claims.to_string().replacen('{', "{\"a\":1e999,", 1))
        }),
        ("a payload nested too deeply", resigned(&rs256_text, &format!("{{\"a\":{nested}}}"))),
        ("a payload that is not UTF-8", {
            let message = format!("{header}.{}", URL_SAFE_NO_PAD.encode(b"{\"iss\":\"\xff\"}"));
            token(&message, &RSA.sign(&message))
        }),
        ("16 KB", issuer.sign(&with(&claims, "padding", json!("a".repeat(16 * 1024))))),
        ("a key ID that is a number", sign_with(&RSA, &with(&rs256, "kid", json!(7)), &claims)),
        ("a key ID that is a list", sign_with(&RSA, &with(&rs256, "kid", json!(["rsa"])), &claims)),
    ] {
        rows.push((what.to_owned(), text, Reason::Malformed));
    }

    // Header.
    let header_with = |name: &str, value: Value| sign_with(&RSA, &with(&rs256, name, value), &claims);
    for alg in ["none", "None", "", "rs256", "RS384", "RS512", "PS256", "ES384", "ES256K", "EdDSA", "HS256", "RSA1_5"] {
        rows.push((format!("alg {alg:?}"), header_with("alg", json!(alg)), Reason::Algorithm));
    }
    for alg in [Value::Null, json!(256), json!(["RS256"])] {
        rows.push((format!("alg {alg}"), header_with("alg", alg), Reason::Algorithm));
    }
    let unsigned = message(&json!({"alg": "none"}).to_string(), &claims.to_string());
    rows.push(("alg none without signature".to_owned(), format!("{unsigned}."), Reason::Algorithm));
    let hmac = message(&with(&rs256, "alg", json!("HS256")).to_string(), &claims.to_string());
    for (what, secret) in [
        ("the public key", RSA.public_bytes()),
        ("the published modulus", RSA.jwk("rsa")["n"].as_str().unwrap().as_bytes().to_vec()),
        ("an empty secret", Vec::new()),
    ] {
        rows.push((format!("HS256 with {what}"), token(&hmac, &hs256(&secret, &hmac)), Reason::Algorithm));
    }
    let rs384 = message(&with(&rs256, "alg", json!("RS384")).to_string(), &claims.to_string());
    rows.push(("RS384, well signed".to_owned(), token(&rs384, &RSA.sign_rs384(&rs384)), Reason::Algorithm));
    let ps256 = message(&with(&rs256, "alg", json!("PS256")).to_string(), &claims.to_string());
    rows.push(("PS256, well signed".to_owned(), token(&ps256, &RSA.sign_ps256(&ps256)), Reason::Algorithm));
    for crit in [json!(["exp"]), json!([]), json!(["b64"]), json!("exp"), json!(false)] {
        rows.push((format!("crit {crit}"), header_with("crit", crit), Reason::CriticalHeader));
    }
    for typ in ["at+jwt", "logout+jwt", "application/jwt", ""] {
        rows.push((format!("typ {typ:?}"), header_with("typ", json!(typ)), Reason::Type));
    }
    rows.push(("typ 7".to_owned(), header_with("typ", json!(7)), Reason::Type));

    // Keys.
    let foreign = |name: &str, value: Value| sign_with(&OTHER_RSA, &with(&rs256, name, value), &claims);
    let unknown_with = |name: &str, value: Value| {
        sign_with(&OTHER_RSA, &with(&with(&rs256, "kid", json!("mine")), name, value), &claims)
    };
    let elsewhere = json!("http://localhost:1/keys");
    for (what, text, reason) in [
        ("another's key under the issuer's ID", foreign("kid", json!("rsa")), Reason::Signature),
        ("another's key without ID", foreign("kid", Value::Null), Reason::Signature),
        ("the token's own `jwk`", foreign("jwk", OTHER_RSA.jwk("rsa")), Reason::Signature),
        ("the token's own `jku`", foreign("jku", elsewhere.clone()), Reason::Signature),
        ("the token's own `x5u`", foreign("x5u", elsewhere.clone()), Reason::Signature),
        ("the token's own `x5c`", foreign("x5c", json!(["MIIB"])), Reason::Signature),
        ("an unknown key with its own `jwk`", unknown_with("jwk", OTHER_RSA.jwk("mine")), Reason::UnknownKey),
        ("an unknown key with its own `jku`", unknown_with("jku", elsewhere), Reason::UnknownKey),
        ("an empty key ID", foreign("kid", json!("")), Reason::UnknownKey),
        ("a path as key ID", foreign("kid", json!("../../dev/null")), Reason::UnknownKey),
        ("a key ID in other case", sign_with(&RSA, &with(&rs256, "kid", json!("RSA")), &claims), Reason::UnknownKey),
        (
            "the RSA key's ID with ES256",
            { sign_with(&EC, &json!({"alg": "ES256", "kid": "rsa"}), &claims) },
            Reason::UnknownKey,
        ),
        (
            "the elliptic key's ID with RS256",
            { sign_with(&RSA, &json!({"alg": "RS256", "kid": "ec"}), &claims) },
            Reason::UnknownKey,
        ),
        (
            "another's elliptic key",
            { sign_with(&OTHER_EC, &json!({"alg": "ES256", "kid": "ec"}), &claims) },
            Reason::Signature,
        ),
        ("a P-384 signature", sign_with(&P384, &json!({"alg": "ES256", "kid": "ec"}), &claims), Reason::Signature),
    ] {
        rows.push((what.to_owned(), text, reason));
    }

    // Signature.
    let changed = encode(&with(&claims, "sub", json!("repo:evil/widgets")).to_string());
    let es256 = message(&json!({"alg": "ES256", "kid": "ec"}).to_string(), &claims.to_string());
    let bytes = URL_SAFE_NO_PAD.decode(signature).unwrap();
    let mut flipped = bytes.clone();
    flipped[17] ^= 1;
    for (what, text) in [
        ("no signature", format!("{signed}.")),
        ("a signature that is no base64", format!("{signed}.!!")),
        ("a signature with padding", format!("{good}==")),
        ("a changed payload", format!("{header}.{changed}.{signature}")),
        ("a changed bit", token(signed, &flipped)),
        ("a shortened signature", token(signed, &bytes[1..])),
        ("a signature with a byte more", token(signed, &[&bytes[..], &[0]].concat())),
        ("PSS as RS256", token(signed, &RSA.sign_ps256(signed))),
        ("SHA-384 as RS256", token(signed, &RSA.sign_rs384(signed))),
        ("an elliptic signature of zeros", token(&es256, &[0; 64])),
        ("an empty elliptic signature", format!("{es256}.")),
        ("an HMAC as RS256", token(signed, &hs256(&RSA.public_bytes(), signed))),
    ] {
        rows.push((what.to_owned(), text, Reason::Signature));
    }

    // Claims.
    let other_issuers = [
        json!("https://issuer.example.com"),
        json!(format!("{}/", issuer.url())),
        json!(issuer.url().to_uppercase()),
        json!(issuer.url().trim_start_matches("http://")),
        json!([issuer.url()]),
        json!(""),
        Value::Null,
    ];
    for iss in other_issuers {
        rows.push((format!("iss {iss}"), issuer.sign(&with(&claims, "iss", iss)), Reason::Issuer));
    }
    for aud in [json!("other"), json!(format!("{AUDIENCE}/")), json!("GUARD.example.com"), json!([]), json!(["other"])]
    {
        rows.push((format!("aud {aud}"), issuer.sign(&with(&claims, "aud", aud)), Reason::Audience));
    }
    for (name, value) in [
        ("aud", Value::Null),
        ("aud", json!(7)),
        ("aud", json!([AUDIENCE, 7])),
        ("aud", json!({ "a": AUDIENCE })),
        ("exp", Value::Null),
        ("exp", json!((now + 300).to_string())),
        ("exp", json!([now + 300])),
        ("exp", json!(true)),
        ("iat", Value::Null),
        ("iat", json!("now")),
        ("nbf", json!("now")),
        ("nbf", json!({})),
        ("sub", Value::Null),
        ("sub", json!("")),
        ("sub", json!(7)),
        ("jti", json!(7)),
        ("jti", json!("")),
    ] {
        rows.push((format!("{name} {value}"), issuer.sign(&with(&claims, name, value)), Reason::Claim(name)));
    }
    for (name, value, reason) in [
        ("exp", json!(now - 60), Reason::Expired),
        ("exp", json!(0), Reason::Expired),
        ("exp", json!(-1), Reason::Expired),
        ("exp", json!(i64::MIN), Reason::Expired),
        ("exp", json!(i64::MAX), Reason::Lifetime),
        ("exp", json!(u64::MAX), Reason::Lifetime),
        ("exp", json!(1e300), Reason::Lifetime),
        ("iat", json!(i64::MIN), Reason::Lifetime),
        ("iat", json!(now - 24 * 60 * 60), Reason::Lifetime),
        ("iat", json!(now + 3_600), Reason::IssuedInTheFuture),
        ("iat", json!(u64::MAX), Reason::IssuedInTheFuture),
        ("nbf", json!(now + 3_600), Reason::NotYetValid),
    ] {
        rows.push((format!("{name} {value}"), issuer.sign(&with(&claims, name, value)), reason));
    }
    rows
}

#[tokio::test]
async fn hostile_id_tokens_are_refused_for_the_right_reason() {
    let issuer = FakeIssuer::start().await;
    let workloads = workloads(&issuer);
    let rows = hostile(&issuer);
    assert!(rows.len() >= 100, "{}", rows.len());
    for (what, id_token, expected) in rows {
        let refusal = if expected == Reason::UnknownKey {
            // Of its own, since an issuer is asked once a minute.
            self::workloads(&issuer).verify(&id_token).await.unwrap_err()
        } else {
            workloads.verify(&id_token).await.unwrap_err()
        };
        assert_eq!(refusal, Refusal::Invalid(expected), "{what}");
    }
    assert!(workloads.verify(&issuer.sign(&issuer.workload())).await.is_ok());
    // Nothing but metadata and keys was ever asked for.
    let requests = issuer.server.take_requests();
    assert!(requests.iter().all(|request| [METADATA, KEYS].contains(&request.path.as_str())), "{requests:?}");
}

#[tokio::test]
async fn token_of_an_issuer_that_is_not_allowed_reaches_nobody() {
    let (allowed, other) = (FakeIssuer::start().await, FakeIssuer::start().await);
    let refusal = workloads(&allowed).verify(&other.sign(&other.workload())).await.unwrap_err();
    assert_eq!(refusal, Refusal::Invalid(Reason::Issuer));
    assert_eq!((allowed.take_fetches(), other.take_fetches()), (0, 0));
}

#[tokio::test]
async fn keys_of_one_issuer_do_not_sign_for_another() {
    let (one, two) = (FakeIssuer::start().await, FakeIssuer::start().await);
    two.set_keys(&[OTHER_RSA.jwk("rsa")]);
    let workloads = Workloads::new([one.issuer(), two.issuer()], vec![AUDIENCE.to_owned()], &one.clock).unwrap();
    let header = json!({"alg": "RS256", "kid": "rsa"});
    assert!(workloads.verify(&sign_with(&OTHER_RSA, &header, &two.workload())).await.is_ok());
    let refusal = workloads.verify(&sign_with(&OTHER_RSA, &header, &one.workload())).await.unwrap_err();
    assert_eq!(refusal, Refusal::Invalid(Reason::Signature));
}

#[tokio::test]
async fn ambiguous_and_unusable_keys_are_refused() {
    let issuer = FakeIssuer::start().await;
    let claims = issuer.workload();
    let small = json!({"kty": "RSA", "kid": "rsa", "n": URL_SAFE_NO_PAD.encode([0xff; 128]), "e": "AQAB"});
    let named = json!({"alg": "RS256", "kid": "rsa"});
    let unnamed = json!({"alg": "RS256"});
    for (keys, header, expected) in [
        // Two keys, and nothing that tells which.
        (vec![RSA.jwk("rsa"), OTHER_RSA.jwk("other")], &unnamed, Some(Reason::AmbiguousKey)),
        (vec![RSA.jwk("rsa"), OTHER_RSA.jwk("rsa")], &named, Some(Reason::AmbiguousKey)),
        (vec![RSA.jwk("rsa"), OTHER_RSA.jwk("other")], &named, None),
        // What cannot be used does not count, and does not hide the rest.
        (vec![json!(7), json!({"kty": "AKP"}), EC.jwk("rsa"), small.clone(), RSA.jwk("rsa")], &named, None),
        (vec![with(&RSA.jwk("rsa"), "use", json!("enc"))], &named, Some(Reason::UnknownKey)),
        (vec![with(&RSA.jwk("rsa"), "alg", json!("RS512"))], &named, Some(Reason::UnknownKey)),
        (vec![with(&RSA.jwk("rsa"), "kid", Value::Null)], &named, Some(Reason::UnknownKey)),
        (vec![with(&RSA.jwk("rsa"), "kid", Value::Null)], &unnamed, None),
        (vec![P384.jwk("rsa")], &named, Some(Reason::UnknownKey)),
        (vec![small], &named, Some(Reason::UnknownKey)),
        (vec![], &unnamed, Some(Reason::UnknownKey)),
    ] {
        issuer.set_keys(&keys);
        let refusal = workloads(&issuer).verify(&sign_with(&RSA, header, &claims)).await.err();
        assert_eq!(refusal, expected.map(Refusal::Invalid), "{keys:?}");
    }
}

#[tokio::test]
async fn unknown_key_is_looked_up_at_most_once_a_minute() {
    let issuer = FakeIssuer::start().await;
    let workloads = workloads(&issuer);
    let rotated = |kid: &str| sign_with(&OTHER_RSA, &json!({"alg": "RS256", "kid": kid}), &issuer.workload());
    assert!(workloads.verify(&issuer.sign(&issuer.workload())).await.is_ok());

    // The keys are not a minute old: whether this one is new cannot be known.
    issuer.clock.advance(Duration::from_secs(20));
    assert_eq!(workloads.verify(&rotated("new")).await.err(), unavailable(40));
    assert_eq!(issuer.take_fetches(), 1);

    issuer.clock.advance(Duration::from_secs(40));
    assert_eq!(workloads.verify(&rotated("new")).await.err(), Some(Refusal::Invalid(Reason::UnknownKey)));
    assert_eq!(workloads.verify(&rotated("new")).await.err(), unavailable(60));
    assert_eq!(issuer.take_fetches(), 1);

    issuer.set_keys(&[RSA.jwk("rsa"), OTHER_RSA.jwk("new")]);
    issuer.clock.advance(Duration::from_secs(60));
    assert!(workloads.verify(&rotated("new")).await.is_ok());
    assert!(workloads.verify(&issuer.sign(&issuer.workload())).await.is_ok());
    assert_eq!(issuer.take_fetches(), 1);
}

#[tokio::test]
async fn concurrent_callers_share_one_fetch() {
    let issuer = FakeIssuer::start().await;
    let keys = json!({ "keys": [RSA.jwk("rsa")] }).to_string();
    issuer.server.stub(KEYS, Reply::ok("application/json", keys).delayed(Duration::from_millis(200)));
    let workloads = workloads(&issuer);
    let (good, unknown) = (
        issuer.sign(&issuer.workload()),
        sign_with(&OTHER_RSA, &json!({"alg": "RS256", "kid": "new"}), &issuer.workload()),
    );
    let outcomes = join_all((0..20).map(|_| workloads.verify(&good))).await;
    assert!(outcomes.iter().all(Result::is_ok));
    assert_eq!(issuer.take_fetches(), 1);

    // The answer that one caller waits for is the answer for all who wait.
    issuer.clock.advance(Duration::from_secs(60));
    let outcomes = join_all((0..20).map(|_| workloads.verify(&unknown))).await;
    let invalid = outcomes.into_iter().filter_map(Result::err);
    assert!(invalid.eq(std::iter::repeat_n(Refusal::Invalid(Reason::UnknownKey), 20)));
    assert_eq!(issuer.take_fetches(), 1);
}

#[tokio::test]
async fn known_key_does_not_wait_for_an_unknown_one() {
    let issuer = FakeIssuer::start().await;
    let workloads = workloads(&issuer);
    let good = issuer.sign(&issuer.workload());
    assert!(workloads.verify(&good).await.is_ok());
    issuer.clock.advance(Duration::from_secs(60));
    let slow = Reply::ok("application/json", issuer.metadata().to_string()).delayed(Duration::from_secs(1));
    issuer.server.stub(METADATA, slow);
    let unknown = sign_with(&OTHER_RSA, &json!({"alg": "RS256", "kid": "new"}), &issuer.workload());
    let (waiting, known) = (workloads.verify(&unknown), workloads.verify(&good));
    match futures::future::select(Box::pin(waiting), Box::pin(known)).await {
        Either::Right((outcome, _)) => assert!(outcome.is_ok()),
        Either::Left(_) => panic!("the unknown key was answered first"),
    }
}

#[tokio::test]
async fn caller_that_goes_away_does_not_make_the_next_one_ask() {
    let issuer = FakeIssuer::start().await;
    let workloads = workloads(&issuer);
    let good = issuer.sign(&issuer.workload());
    let slow = Reply::ok("application/json", issuer.metadata().to_string()).delayed(Duration::from_secs(2));
    issuer.server.stub(METADATA, slow);
    assert!(tokio::time::timeout(Duration::from_millis(500), workloads.verify(&good)).await.is_err());
    assert_eq!(workloads.verify(&good).await.err(), unavailable(60));
    assert_eq!(issuer.take_fetches(), 1);
}

#[tokio::test]
async fn last_good_keys_are_kept_while_the_issuer_is_down() {
    let issuer = FakeIssuer::start().await;
    let workloads = workloads(&issuer);
    let good = || issuer.sign(&issuer.workload());
    assert!(workloads.verify(&good()).await.is_ok());
    issuer.take_fetches();

    // After an hour the keys are fetched anew, at most once a minute.
    issuer.server.stub(METADATA, Reply::status(503));
    issuer.clock.advance(Duration::from_secs(60 * 60));
    for _ in 0..3 {
        assert!(workloads.verify(&good()).await.is_ok());
    }
    assert_eq!(issuer.take_fetches(), 1);
    let unknown = sign_with(&OTHER_RSA, &json!({"alg": "RS256", "kid": "new"}), &issuer.workload());
    assert_eq!(workloads.verify(&unknown).await.err(), unavailable(60));
    issuer.clock.advance(Duration::from_secs(60));
    assert_eq!(workloads.verify(&unknown).await.err(), unavailable(60));

    // A key that the issuer withdrew stops working.
    issuer.set_metadata(issuer.metadata());
    issuer.set_keys(&[EC.jwk("ec")]);
    issuer.clock.advance(Duration::from_secs(60));
    assert_eq!(workloads.verify(&good()).await.err(), Some(Refusal::Invalid(Reason::UnknownKey)));
}

#[tokio::test]
async fn issuer_whose_keys_were_never_had_is_unavailable() {
    let big = format!("{{\"padding\":\"{}\"}}", "a".repeat(256 * 1024));
    let other = Registry::start().await;
    other.stub(METADATA, Reply::ok("application/json", "{}"));
    for (what, path, reply) in [
        ("metadata: 404", METADATA, Reply::status(404)),
        ("metadata: 500", METADATA, Reply::status(500)),
        (
            "metadata: redirect",
            METADATA,
            Reply::status(302).with_header("location", &format!("{}{METADATA}", other.url)),
        ),
        ("metadata: too big", METADATA, Reply::ok("application/json", big.clone())),
        ("metadata: too big, compressed", METADATA, Reply::ok("application/json", big.clone()).compressed()),
        ("metadata: no JSON", METADATA, Reply::ok("text/html", "<html>")),
        ("metadata: no keys", METADATA, Reply::ok("application/json", "{}")),
        ("keys: 404", KEYS, Reply::status(404)),
        ("keys: redirect", KEYS, Reply::status(307).with_header("location", &format!("{}{METADATA}", other.url))),
        ("keys: too big", KEYS, Reply::ok("application/json", big)),
        ("keys: no JSON", KEYS, Reply::ok("application/json", "keys")),
        ("keys: another form", KEYS, Reply::ok("application/json", "[]")),
    ] {
        let issuer = FakeIssuer::start().await;
        let workloads = workloads(&issuer);
        let good = issuer.sign(&issuer.workload());
        issuer.server.stub(path, reply);
        assert_eq!(workloads.verify(&good).await.err(), unavailable(60), "{what}");
        issuer.clock.advance(Duration::from_secs(45));
        assert_eq!(workloads.verify(&good).await.err(), unavailable(15), "{what}");
        assert_eq!(issuer.take_fetches(), 1, "{what}");
        // Back again.
        issuer.set_metadata(issuer.metadata());
        issuer.set_keys(&[RSA.jwk("rsa")]);
        issuer.clock.advance(Duration::from_secs(15));
        assert!(workloads.verify(&good).await.is_ok(), "{what}");
    }
    assert_eq!(other.take_requests().len(), 0);
}

#[tokio::test]
async fn metadata_of_another_issuer_or_with_a_foreign_url_is_refused() {
    let issuer = FakeIssuer::start().await;
    let good = issuer.sign(&issuer.workload());
    for (name, value) in [
        ("issuer", json!("https://issuer.example.com")),
        ("issuer", json!(format!("{}/", issuer.url()))),
        ("issuer", Value::Null),
        ("jwks_uri", Value::Null),
        ("jwks_uri", json!("http://issuer.example.com/keys")),
        ("jwks_uri", json!("http://169.254.169.254/keys")),
        ("jwks_uri", json!("https://10.0.0.1/keys")),
        ("jwks_uri", json!("file:///keys")),
        ("token_endpoint", json!("http://issuer.example.com/token")),
    ] {
        issuer.set_metadata(with(&issuer.metadata(), name, value.clone()));
        assert_eq!(workloads(&issuer).verify(&good).await.err(), unavailable(60), "{name} {value}");
    }
    let requests = issuer.server.take_requests();
    assert!(requests.iter().all(|request| request.path == METADATA), "{requests:?}");
}

#[tokio::test]
async fn metadata_and_keys_together_take_3_seconds_at_most() {
    let issuer = FakeIssuer::start().await;
    let keys = json!({ "keys": [RSA.jwk("rsa")] }).to_string();
    let metadata = Reply::ok("application/json", issuer.metadata().to_string());
    issuer.server.stub(METADATA, metadata.delayed(Duration::from_secs(2)));
    issuer.server.stub(KEYS, Reply::ok("application/json", keys).delayed(Duration::from_secs(2)));
    // Each is in time, but not both.
    let refusal = workloads(&issuer).verify(&issuer.sign(&issuer.workload())).await.err();
    assert_eq!(refusal, unavailable(60));
}

#[tokio::test]
async fn issuer_that_nothing_listens_for_is_unavailable() {
    let issuer = FakeIssuer::start().await;
    // A port that was free a moment ago.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let closed = Issuer::parse(&url, PlainHttp::OnLoopback).unwrap();
    let workloads = Workloads::new([closed], vec![AUDIENCE.to_owned()], &issuer.clock).unwrap();
    let claims = with(&issuer.workload(), "iss", json!(url));
    assert_eq!(workloads.verify(&issuer.sign(&claims)).await.err(), unavailable(60));
}

#[tokio::test]
async fn empty_set_of_keys_is_an_answer() {
    let issuer = FakeIssuer::start().await;
    issuer.set_keys(&[]);
    let refusal = workloads(&issuer).verify(&issuer.sign(&issuer.workload())).await.unwrap_err();
    assert_eq!(refusal, Refusal::Invalid(Reason::UnknownKey));
}
