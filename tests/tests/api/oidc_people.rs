//! People's sign-in at an OpenID provider: the link, the callback, the code, the ID token.

use std::collections::BTreeMap;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use reqwest::{Method, Url};
use secrecy::SecretString;
use serde_json::{Value, json};
use shared::oidc::{Attempt, Callback, Client, Issuer, Person, PlainHttp, Provider, Reason, Refusal};
use tests::issuer::{FakeIssuer, TOKEN};
use tests::upstream::Reply;

const REDIRECT_URI: &str = "https://guard.example.com/console/sign-in/callback";

/// A client whose ID and secret need encoding.
const CLIENT: &str = "guard:1";
const SECRET: &str = "s%cret/+ü";

struct SignIn {
    issuer: FakeIssuer,
    client: Client,
    attempt: Attempt,
}

impl SignIn {
    async fn start() -> Self {
        Self::of(FakeIssuer::start().await, false)
    }

    fn of(issuer: FakeIssuer, trusted_emails: bool) -> Self {
        let provider = Provider::new(issuer.issuer(), issuer.clock.clone()).unwrap();
        let client = Client::new(provider, CLIENT.to_owned(), REDIRECT_URI.parse().unwrap(), trusted_emails).unwrap();
        Self { issuer, client, attempt: Attempt::generate().unwrap() }
    }

    /// The parameters that the browser is sent to the provider with.
    async fn parameters(&self) -> BTreeMap<String, String> {
        let url = self.client.authorization_url(&self.attempt).await.unwrap();
        url.query_pairs().into_owned().collect()
    }

    /// A callback for this attempt.
    async fn callback(&self) -> Callback {
        let state = self.parameters().await.remove("state");
        Callback { state, code: Some("c0de".to_owned()), ..Callback::default() }
    }

    /// The claims of an ID token for this attempt.
    async fn claims(&self) -> Value {
        json!({
            "iss": self.issuer.url(),
            "aud": CLIENT,
            "sub": "248289761001",
            "nonce": self.parameters().await["nonce"],
            "iat": self.issuer.now(),
            "exp": self.issuer.now() + 600,
            "email": "Alice@Example.com",
            "email_verified": true,
        })
    }

    /// Completes the sign-in with this ID token as the answer to the code.
    async fn complete(&self, claims: &Value) -> Result<Person, Refusal> {
        self.complete_with(&self.issuer.sign(claims)).await
    }

    async fn complete_with(&self, id_token: &str) -> Result<Person, Refusal> {
        let body = json!({"access_token": "a", "token_type": "Bearer", "id_token": id_token});
        self.issuer.server.stub(TOKEN, Reply::ok("application/json", body.to_string()));
        self.finish(&self.callback().await).await
    }

    async fn finish(&self, callback: &Callback) -> Result<Person, Refusal> {
        self.client.sign_in(callback, &self.attempt, &SecretString::from(SECRET)).await
    }

    /// How often a code was redeemed since the last call.
    fn take_redemptions(&self) -> usize {
        self.issuer.server.take_requests().iter().filter(|request| request.path == TOKEN).count()
    }
}

#[tokio::test]
async fn link_to_the_provider_has_state_nonce_and_pkce() {
    let sign_in = SignIn::start().await;
    let metadata = sign_in.issuer.metadata();
    let with_query = format!("{}?tenant=a", metadata["authorization_endpoint"].as_str().unwrap());
    let mut metadata = metadata;
    metadata["authorization_endpoint"] = json!(with_query);
    sign_in.issuer.set_metadata(metadata);
    let parameters = sign_in.parameters().await;
    for (name, value) in [
        ("tenant", "a"),
        ("response_type", "code"),
        ("client_id", CLIENT),
        ("redirect_uri", REDIRECT_URI),
        ("scope", "openid email"),
        ("code_challenge_method", "S256"),
    ] {
        assert_eq!(parameters[name], value, "{name}");
    }
    let secrets = ["state", "nonce", "code_challenge"].map(|name| parameters[name].clone());
    assert!(secrets.iter().all(|secret| secret.len() == 43), "{secrets:?}");
    assert!(!parameters.values().any(|value| value.contains(sign_in.attempt.expose())));
    let other = SignIn { attempt: Attempt::generate().unwrap(), ..sign_in };
    let parameters = other.parameters().await;
    assert!(["state", "nonce", "code_challenge"].iter().zip(&secrets).all(|(name, old)| parameters[*name] != *old));
}

#[tokio::test]
async fn person_is_signed_in_with_a_verified_address() {
    let sign_in = SignIn::start().await;
    let person = sign_in.complete(&sign_in.claims().await).await.unwrap();
    assert_eq!(person.issuer, sign_in.issuer.url());
    assert_eq!(person.subject, "248289761001");
    assert_eq!(person.verified_email.unwrap().expose(), "Alice@example.com");
}

#[tokio::test]
async fn code_is_redeemed_with_verifier_and_basic_credential() {
    let sign_in = SignIn::start().await;
    let challenge = sign_in.parameters().await["code_challenge"].clone();
    sign_in.complete(&sign_in.claims().await).await.unwrap();
    let requests = sign_in.issuer.server.take_requests();
    let request = requests.iter().find(|request| request.path == TOKEN).unwrap();
    assert_eq!(request.method, Method::POST);
    assert_eq!(request.headers["content-type"], "application/x-www-form-urlencoded");
    let credential = STANDARD.encode("guard%3A1:s%25cret%2F%2B%C3%BC");
    assert_eq!(request.headers["authorization"], format!("Basic {credential}"));
    let form = form(&request.body);
    assert_eq!(form["grant_type"], "authorization_code");
    assert_eq!(form["code"], "c0de");
    assert_eq!(form["redirect_uri"], REDIRECT_URI);
    let verifier = sha256(&form["code_verifier"]);
    assert_eq!(URL_SAFE_NO_PAD.encode(verifier), challenge);
    assert!(!form.contains_key("client_secret"));
}

fn form(body: &[u8]) -> BTreeMap<String, String> {
    let url = Url::parse(&format!("http://localhost/?{}", std::str::from_utf8(body).unwrap())).unwrap();
    url.query_pairs().into_owned().collect()
}

fn sha256(text: &str) -> Vec<u8> {
    aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, text.as_bytes()).as_ref().to_vec()
}

#[tokio::test]
async fn secret_is_posted_only_where_basic_is_not_offered() {
    for (methods, expected) in [
        (json!(["client_secret_basic", "client_secret_post"]), Some("basic")),
        (json!(["client_secret_post", "private_key_jwt"]), Some("post")),
        (json!(["private_key_jwt", "none"]), None),
    ] {
        let sign_in = SignIn::start().await;
        let mut metadata = sign_in.issuer.metadata();
        metadata["token_endpoint_auth_methods_supported"] = methods;
        sign_in.issuer.set_metadata(metadata);
        let outcome = sign_in.complete(&sign_in.claims().await).await;
        assert_eq!(outcome.is_ok(), expected.is_some(), "{outcome:?}");
        let requests = sign_in.issuer.server.take_requests();
        let request = requests.iter().find(|request| request.path == TOKEN);
        let sent = request.map(|request| {
            let form = form(&request.body);
            match (request.headers.get("authorization"), form.get("client_id"), form.get("client_secret")) {
                (Some(_), None, None) => "basic",
                (None, Some(id), Some(secret)) if id == CLIENT && secret == SECRET => "post",
                _ => "neither",
            }
        });
        assert_eq!(sent, expected);
    }
}

#[tokio::test]
async fn callback_of_another_browser_or_issuer_redeems_no_code() {
    let sign_in = SignIn::start().await;
    let good = sign_in.callback().await;
    let other = SignIn { attempt: Attempt::generate().unwrap(), ..SignIn::of(sign_in.issuer.clone(), false) };
    let url = sign_in.issuer.url().to_owned();
    let some = |text: &str| Some(text.to_owned());
    for (what, callback, expected) in [
        ("no state", Callback { state: None, ..good.clone() }, Reason::State),
        ("an empty state", Callback { state: some(""), ..good.clone() }, Reason::State),
        ("another's state", other.callback().await, Reason::State),
        (
            "another issuer",
            Callback { iss: some("https://issuer.example.com"), ..good.clone() },
            Reason::CallbackIssuer,
        ),
        ("an empty issuer", Callback { iss: some(""), ..good.clone() }, Reason::CallbackIssuer),
        ("nearly the issuer", Callback { iss: Some(format!("{url}/")), ..good.clone() }, Reason::CallbackIssuer),
        ("an error", Callback { error: some("access_denied"), ..good.clone() }, Reason::Declined),
        ("no code", Callback { code: None, ..good.clone() }, Reason::MissingCode),
        ("an empty code", Callback { code: some(""), ..good.clone() }, Reason::MissingCode),
    ] {
        assert_eq!(sign_in.finish(&callback).await, Err(Refusal::Invalid(expected)), "{what}");
    }
    assert_eq!(sign_in.take_redemptions(), 0);
}

#[tokio::test]
async fn callback_must_name_its_issuer_where_the_provider_announces_it() {
    let sign_in = SignIn::start().await;
    let mut metadata = sign_in.issuer.metadata();
    metadata["authorization_response_iss_parameter_supported"] = json!(true);
    sign_in.issuer.set_metadata(metadata);
    let claims = sign_in.claims().await;
    assert_eq!(sign_in.complete(&claims).await, Err(Refusal::Invalid(Reason::CallbackIssuer)));
    assert_eq!(sign_in.take_redemptions(), 0);
    let callback = Callback { iss: Some(sign_in.issuer.url().to_owned()), ..sign_in.callback().await };
    assert!(sign_in.finish(&callback).await.is_ok());
}

#[tokio::test]
async fn code_that_the_provider_refuses_signs_nobody_in() {
    let sign_in = SignIn::start().await;
    let callback = sign_in.callback().await;
    let unavailable = Refusal::Unavailable { retry_after: Duration::from_secs(10) };
    let big = format!("{{\"id_token\":\"{}\"}}", "a".repeat(256 * 1024));
    for (what, reply, expected) in [
        ("a replayed code", Reply::status(400).with_body("{\"error\":\"invalid_grant\"}"), Reason::Code.into()),
        ("a wrong secret", Reply::status(401).with_body("{\"error\":\"invalid_client\"}"), Reason::Code.into()),
        ("a redirect", Reply::status(307).with_header("location", "/elsewhere"), unavailable),
        ("too many requests", Reply::status(429), unavailable),
        ("a failure", Reply::status(503), unavailable),
        ("no ID token", Reply::ok("application/json", "{\"access_token\":\"a\"}"), unavailable),
        ("an ID token that is an object", Reply::ok("application/json", "{\"id_token\":{}}"), unavailable),
        ("no JSON", Reply::ok("text/html", "<html>"), unavailable),
        ("too much", Reply::ok("application/json", big), unavailable),
        ("no JWT", Reply::ok("application/json", "{\"id_token\":\"a\"}"), Reason::Malformed.into()),
    ] {
        sign_in.issuer.server.stub(TOKEN, reply);
        assert_eq!(sign_in.finish(&callback).await, Err(expected), "{what}");
    }
    let requests = sign_in.issuer.server.take_requests();
    assert!(!requests.iter().any(|request| request.path == "/elsewhere"));
}

#[tokio::test]
async fn slow_token_endpoint_is_given_3_seconds() {
    let sign_in = SignIn::start().await;
    let callback = sign_in.callback().await;
    sign_in.issuer.server.stub(TOKEN, Reply::status(200).delayed(Duration::from_secs(60)));
    let started = std::time::Instant::now();
    assert!(matches!(sign_in.finish(&callback).await, Err(Refusal::Unavailable { .. })));
    assert!((3..30).contains(&started.elapsed().as_secs()), "{:?}", started.elapsed());
}

#[tokio::test]
async fn id_token_for_another_client_sign_in_or_time_signs_nobody_in() {
    let sign_in = SignIn::start().await;
    let good = sign_in.claims().await;
    let now = sign_in.issuer.now();
    for (name, value, expected) in [
        ("nonce", Value::Null, Reason::Claim("nonce")),
        ("nonce", json!(""), Reason::Claim("nonce")),
        ("nonce", json!(7), Reason::Claim("nonce")),
        ("nonce", json!("another"), Reason::Nonce),
        ("aud", json!("another"), Reason::Audience),
        ("aud", json!(["another"]), Reason::Audience),
        ("aud", json!([]), Reason::Audience),
        ("aud", Value::Null, Reason::Claim("aud")),
        ("aud", json!([CLIENT, "another"]), Reason::AuthorizedParty),
        ("azp", json!("another"), Reason::AuthorizedParty),
        ("azp", json!(7), Reason::AuthorizedParty),
        ("iss", json!("https://issuer.example.com"), Reason::Issuer),
        ("sub", Value::Null, Reason::Claim("sub")),
        ("sub", json!("a".repeat(256)), Reason::Claim("sub")),
        ("sub", json!("a\nb"), Reason::Claim("sub")),
        ("exp", Value::Null, Reason::Claim("exp")),
        ("exp", json!(now - 60), Reason::Expired),
        ("iat", Value::Null, Reason::Claim("iat")),
        ("iat", json!(now + 61), Reason::IssuedInTheFuture),
        ("nbf", json!(now + 61), Reason::NotYetValid),
    ] {
        let mut claims = good.clone();
        claims[name] = value.clone();
        if value.is_null() {
            claims.as_object_mut().unwrap().remove(name);
        }
        assert_eq!(sign_in.complete(&claims).await, Err(Refusal::Invalid(expected)), "{name} {value}");
    }
    let mut claims = good;
    claims["aud"] = json!([CLIENT, "another"]);
    claims["azp"] = json!(CLIENT);
    assert!(sign_in.complete(&claims).await.is_ok());
}

#[tokio::test]
async fn address_counts_only_if_the_issuer_verified_it_or_is_trusted() {
    let issuer = FakeIssuer::start().await;
    for (verified, by_default, if_trusted) in [
        (json!(true), true, true),
        (json!("true"), true, true),
        (json!(false), false, false),
        (json!("false"), false, false),
        (json!("TRUE"), false, false),
        (json!(1), false, false),
        (json!([true]), false, false),
        (json!(null), false, false),
        (json!("absent"), false, true),
    ] {
        for (trusted, expected) in [(false, by_default), (true, if_trusted)] {
            let sign_in = SignIn::of(issuer.clone(), trusted);
            let mut claims = sign_in.claims().await;
            claims["email_verified"] = verified.clone();
            if verified == "absent" {
                claims.as_object_mut().unwrap().remove("email_verified");
            }
            let person = sign_in.complete(&claims).await.unwrap();
            assert_eq!(person.verified_email.is_some(), expected, "{verified}, trusted: {trusted}");
        }
    }
    for email in [json!("alice"), json!(["alice@example.com"]), json!("a@example.com\nb@example.com"), json!("")] {
        let sign_in = SignIn::of(issuer.clone(), true);
        let mut claims = sign_in.claims().await;
        claims["email"] = email.clone();
        assert_eq!(sign_in.complete(&claims).await.unwrap().verified_email, None, "{email}");
    }
}

#[tokio::test]
async fn addresses_of_an_issuer_of_many_tenants_cannot_be_trusted() {
    let clock = FakeIssuer::start().await.clock;
    for (path, expected) in [("common/v2.0", false), ("organizations", false), ("consumers/", false), ("acme", true)] {
        let issuer = Issuer::parse(&format!("https://login.example.com/{path}"), PlainHttp::Refused).unwrap();
        let provider = Provider::new(issuer, clock.clone()).unwrap();
        let client = |trusted| Client::new(provider.clone(), CLIENT.to_owned(), REDIRECT_URI.parse().unwrap(), trusted);
        assert_eq!(client(true).is_ok(), expected, "{path}");
        assert!(client(false).is_ok(), "{path}");
    }
}

#[tokio::test]
async fn provider_that_is_down_or_cannot_sign_people_in_is_unavailable() {
    let sign_in = SignIn::start().await;
    let mut metadata = sign_in.issuer.metadata();
    metadata.as_object_mut().unwrap().remove("authorization_endpoint");
    sign_in.issuer.set_metadata(metadata);
    let refusal = sign_in.client.authorization_url(&sign_in.attempt).await.unwrap_err();
    assert!(matches!(refusal, Refusal::Unavailable { .. }), "{refusal}");

    let sign_in = SignIn::start().await;
    sign_in.issuer.server.stub(tests::issuer::METADATA, Reply::status(500));
    let refusal = sign_in.client.authorization_url(&sign_in.attempt).await.unwrap_err();
    assert_eq!(refusal, Refusal::Unavailable { retry_after: Duration::from_secs(60) });
}

#[tokio::test]
async fn nothing_secret_is_in_debug_output() {
    let sign_in = SignIn::start().await;
    let callback = sign_in.callback().await;
    let shown = format!("{:?} {callback:?} {:?}", sign_in.client, sign_in.attempt);
    let state = callback.state.unwrap();
    assert!(!shown.contains(sign_in.attempt.expose()) && !shown.contains(&state) && !shown.contains("c0de"), "{shown}");
}
