//! Signing in to the console with an identity provider, over real HTTP: a browser, the service, and
//! a provider whose token endpoint takes a code once, with the right secret, URI and verifier.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use aws_lc_rs::digest;
use axum::extract::{Form, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use reqwest::{Method, Url};
use serde_json::{Value, json};
use shared::oidc::{ClientSecret, Registration, secrets_manager_at};
use shared::permissions::Role;
use shared::person::Person;
use shared::secret::{FormToken, Token};
use shared::store::members::Authority;
use tests::console::{person, unescaped};
use tests::faults::Faults;
use tests::issuer::{self, EC, FakeIssuer, KEYS, METADATA, OTHER_RSA, RSA, sign_with};
use tests::log::Log;
use tests::table::text;
use tests::upstream::{Registry, Reply};
use tests::{Answer, Org, Service, operator};
use tokio::net::TcpListener;
use tracing_subscriber::filter::LevelFilter;

const CLIENT: &str = "guard";
const SECRET: &str = "the-clients-secret";
const LEAVE: &str = "/console/sign-in/provider";
const CALLBACK: &str = "/console/sign-in/callback";
const ALICE: &str = "alice@example.com";
const ALICE_SUBJECT: &str = "subject-of-alice";

/// What a code stands for.
#[derive(Debug, Clone)]
struct Grant {
    redirect_uri: String,
    challenge: String,
    id_token: String,
}

/// The provider: a [`FakeIssuer`] with a token endpoint of its own.
#[derive(Debug, Clone)]
struct Provider {
    issuer: FakeIssuer,
    tokens: Arc<Mutex<Tokens>>,
}

#[derive(Debug)]
struct Tokens {
    secret: String,
    checks_verifier: bool,
    is_down: bool,
    grants: BTreeMap<String, Grant>,
    /// The codes that were sent, with any outcome.
    asked: Vec<String>,
}

impl Provider {
    async fn start() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let endpoint = format!("http://localhost:{}/token", listener.local_addr().unwrap().port());
        let tokens = Tokens {
            secret: SECRET.to_owned(),
            checks_verifier: true,
            is_down: false,
            grants: BTreeMap::new(),
            asked: Vec::new(),
        };
        let provider = Self { issuer: FakeIssuer::start().await, tokens: Arc::new(Mutex::new(tokens)) };
        provider.publish(|metadata| metadata["token_endpoint"] = json!(endpoint));
        let router = Router::new().route("/token", post(redeem)).with_state(provider.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        provider
    }

    /// How a service is registered here.
    fn registration(&self, secret: ClientSecret, trusted_emails: bool) -> Registration {
        Registration { issuer: self.issuer.issuer(), client_id: CLIENT.to_owned(), secret, trusted_emails }
    }

    /// Changes the metadata.
    fn publish(&self, change: impl FnOnce(&mut Value)) {
        let mut metadata = self.issuer.metadata();
        change(&mut metadata);
        self.issuer.set_metadata(metadata);
    }

    fn tokens(&self) -> std::sync::MutexGuard<'_, Tokens> {
        self.tokens.lock().unwrap()
    }

    /// The claims with which Alice is signed in by this link to the provider.
    fn claims(&self, link: &Url) -> Value {
        json!({
            "iss": self.issuer.url(),
            "aud": parameter(link, "client_id"),
            "sub": ALICE_SUBJECT,
            "nonce": parameter(link, "nonce"),
            "iat": self.issuer.now(),
            "exp": self.issuer.now() + 600,
            "email": ALICE,
            "email_verified": true,
        })
    }

    /// Signs Alice in: the callback to which the browser is sent.
    fn approve(&self, link: &Url) -> String {
        self.approve_as(link, &self.claims(link))
    }

    fn approve_as(&self, link: &Url, claims: &Value) -> String {
        self.approve_with(link, self.issuer.sign(claims))
    }

    fn approve_with(&self, link: &Url, id_token: String) -> String {
        let code = self.code(link, id_token);
        format!("{CALLBACK}?code={code}&state={}", parameter(link, "state"))
    }

    /// A code for this ID token.
    fn code(&self, link: &Url, id_token: String) -> String {
        let mut tokens = self.tokens();
        let code = format!("secret-code-{}", tokens.grants.len() + tokens.asked.len());
        let (redirect_uri, challenge) = (parameter(link, "redirect_uri"), parameter(link, "code_challenge"));
        tokens.grants.insert(code.clone(), Grant { redirect_uri, challenge, id_token });
        code
    }

    /// The codes that were sent since the last call.
    fn take_asked(&self) -> Vec<String> {
        std::mem::take(&mut self.tokens().asked)
    }
}

fn parameter(url: &Url, name: &str) -> String {
    url.query_pairs().find(|(key, _)| key == name).unwrap().1.into_owned()
}

async fn redeem(
    State(provider): State<Provider>,
    headers: HeaderMap,
    Form(form): Form<BTreeMap<String, String>>,
) -> Response {
    let mut tokens = provider.tokens();
    tokens.asked.push(form["code"].clone());
    if tokens.is_down {
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    }
    let credential = format!("Basic {}", STANDARD.encode(format!("{CLIENT}:{}", tokens.secret)));
    if headers["authorization"] != credential.as_str() {
        return (StatusCode::UNAUTHORIZED, Json(json!({"error": "invalid_client"}))).into_response();
    }
    let verifier = digest::digest(&digest::SHA256, form["code_verifier"].as_bytes());
    let challenge = URL_SAFE_NO_PAD.encode(verifier);
    let fits = |grant: &Grant| {
        (grant.challenge == challenge || !tokens.checks_verifier) && grant.redirect_uri == form["redirect_uri"]
    };
    if !tokens.grants.get(&form["code"]).is_some_and(fits) {
        return (StatusCode::BAD_REQUEST, Json(json!({"error": "invalid_grant"}))).into_response();
    }
    let grant = tokens.grants.remove(&form["code"]).unwrap();
    Json(json!({"access_token": "secret-access-token", "token_type": "Bearer", "id_token": grant.id_token}))
        .into_response()
}

/// The service, its provider, and an organization.
pub(crate) struct World {
    service: Service,
    provider: Provider,
    org: Org,
}

impl World {
    async fn start() -> Self {
        Self::start_with(ClientSecret::given(SECRET.into()), false).await
    }

    async fn start_with(secret: ClientSecret, trusted_emails: bool) -> Self {
        Self::of(Provider::start().await, secret, trusted_emails).await
    }

    async fn of(provider: Provider, secret: ClientSecret, trusted_emails: bool) -> Self {
        let registration = provider.registration(secret, trusted_emails);
        let service = Service::start_with_provider(registration, provider.issuer.clock.clone()).await;
        let org = service.org().await;
        Self { service, provider, org }
    }

    /// Its DynamoDB injects faults, and Alice is a member.
    pub(crate) async fn with_faults() -> (Self, Faults) {
        let provider = Provider::start().await;
        let registration = provider.registration(ClientSecret::given(SECRET.into()), false);
        let clock = provider.issuer.clock.clone();
        let (service, faults) = Service::start_with_provider_and_faults(registration, clock).await;
        let org = service.org().await;
        let world = Self { service, provider, org };
        world.join_alice().await;
        (world, faults)
    }

    /// Invites this address.
    async fn invite(&self, email: &str) {
        let (email, roles, by) = (person(email).email, [Role::Owner], operator());
        let invited = self.service.store.invite_member(&self.org.id, &email, &roles, Authority::Operator, &by);
        invited.await.unwrap().unwrap();
    }

    /// Alice, as the provider knows her.
    fn alice(&self) -> Person {
        Person::of_provider(self.provider.issuer.url(), ALICE_SUBJECT, person(ALICE).email)
    }

    /// Makes Alice a member.
    async fn join_alice(&self) {
        self.service.join(&self.org.id, &self.alice(), &[Role::Owner]).await;
    }

    pub(crate) fn browser(&self) -> Browser<'_> {
        Browser { service: &self.service, cookies: BTreeMap::new() }
    }

    /// Whether nobody has a session.
    async fn nobody_is_signed_in(&self) -> bool {
        !self.service.table.items().await.iter().any(|item| text(item, "pk").starts_with("SESSION#"))
    }
}

/// A browser: it keeps cookies.
#[derive(Clone)]
pub(crate) struct Browser<'a> {
    service: &'a Service,
    cookies: BTreeMap<String, String>,
}

impl Browser<'_> {
    async fn get(&mut self, path: &str) -> Answer {
        self.send(Method::GET, path, &[]).await
    }

    async fn send(&mut self, method: Method, path: &str, form: &[(&str, &str)]) -> Answer {
        let cookies: Vec<_> = self.cookies.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let mut request = self.service.request(method.clone(), path).header("sec-fetch-site", "same-origin");
        if !cookies.is_empty() {
            request = request.header("cookie", cookies.join("; "));
        }
        if method == Method::POST {
            request = request.form(form);
        }
        let answer = self.service.send(request).await;
        for set in answer.headers.get_all("set-cookie") {
            let set = set.to_str().unwrap();
            let (name, value) = set.split(';').next().unwrap().split_once('=').unwrap();
            assert!(set.contains("; Path=/; ") && set.contains("; HttpOnly; SameSite=Lax"), "{set}");
            match set.contains("; Max-Age=0;") {
                true => self.cookies.remove(name),
                false => self.cookies.insert(name.to_owned(), value.to_owned()),
            };
        }
        answer
    }

    /// Leaves for the provider: the link to it.
    async fn leave(&mut self, query: &str) -> Url {
        let answer = self.get(&format!("{LEAVE}{query}")).await;
        assert_eq!(answer.status, 303, "{}", answer.text);
        answer.header("location").parse().unwrap()
    }

    fn cookie(&self, name: &str) -> Option<&str> {
        let port = self.service.base_url.rsplit_once(':').unwrap().1;
        self.cookies.get(&format!("guard_{name}_{port}")).map(String::as_str)
    }

    fn session(&self) -> Option<Token> {
        self.cookie("session").map(|secret| Token::parse(secret).unwrap())
    }

    /// Signs Alice in.
    pub(crate) async fn sign_in(&mut self, world: &World, query: &str) -> Answer {
        let link = self.leave(query).await;
        self.get(&world.provider.approve(&link)).await
    }
}

#[track_caller]
fn assert_leads_to(answer: &Answer, location: &str) {
    assert_eq!((answer.status.as_u16(), answer.header("location")), (303, location), "{}", answer.text);
}

#[tokio::test]
async fn invited_person_signs_in_accepts_and_is_a_member() {
    let world = World::start().await;
    world.invite(ALICE).await;
    let mut browser = world.browser();
    let page = browser.get("/console/sign-in").await;
    assert!(page.text.contains(&format!(r#"href="{LEAVE}?return_to="#)), "{}", page.text);
    let link = browser.leave("").await;
    assert!(link.as_str().starts_with(&format!("{}/authorize?", world.provider.issuer.url())), "{link}");
    assert_eq!(parameter(&link, "scope"), "openid email");
    assert_eq!(parameter(&link, "redirect_uri"), format!("{}{CALLBACK}", world.service.base_url));
    let answer = browser.get(&world.provider.approve(&link)).await;
    assert_leads_to(&answer, "/console/");
    assert_eq!(answer.header("cache-control"), "no-store");
    assert!(browser.cookie("away").is_none() && browser.session().is_some());
    // Nobody is joined to an organization unasked.
    let alice = world.alice();
    assert_eq!(world.service.store.membership(alice.id, &world.org.id).await.unwrap(), None);
    let invitation = format!("/console/account/invitations/{}", world.org.id);
    let page = browser.get(&invitation).await;
    assert_eq!(page.status, 200, "{}", page.text);
    let found = world.service.store.invitation(&alice.email, &world.org.id).await.unwrap().unwrap();
    let form_token = FormToken::generate(&browser.session().unwrap()).unwrap();
    let fields = [("form_token", form_token.as_str()), ("invitation", found.id.as_str())];
    let accepted = browser.send(Method::POST, &invitation, &fields).await;
    assert_leads_to(&accepted, &world.org.page(""));
    let member = world.service.store.membership(alice.id, &world.org.id).await.unwrap().unwrap();
    assert_eq!(member.email.expose(), ALICE);
    let sessions = world.service.store.sessions_of(alice.id).await.unwrap();
    assert_eq!(sessions[0].issuer, world.provider.issuer.url());
}

#[tokio::test]
async fn member_returns_to_the_page_asked_for() {
    let world = World::start().await;
    world.join_alice().await;
    let page = world.org.page("tokens?state=revoked");
    let mut browser = world.browser();
    let encoded: String = url_encoded(&page);
    let answer = browser.sign_in(&world, &format!("?return_to={encoded}")).await;
    assert_leads_to(&answer, &page);
    assert_eq!(browser.get("/console/account").await.status, 200);
}

fn url_encoded(text: &str) -> String {
    let mut url = Url::parse("http://localhost/").unwrap();
    url.query_pairs_mut().append_pair("a", text);
    url.query().unwrap()[2..].to_owned()
}

#[tokio::test]
async fn return_to_leads_out_of_the_console_on_no_way() {
    let world = World::start().await;
    world.join_alice().await;
    for outside in [
        "https://evil.example/",
        "//evil.example/console/",
        "/console//evil.example",
        "/console/../v1/whoami",
        "/console/\\evil.example",
        "/v1/whoami",
        "/console/\r\nset-cookie: a=b",
        "/console/sign-in/provider",
        "javascript:alert(1)",
    ] {
        let answer = world.browser().sign_in(&world, &format!("?return_to={}", url_encoded(outside))).await;
        assert_leads_to(&answer, "/console/");
        // Nor by a cookie that was altered.
        let mut browser = world.browser();
        let link = browser.leave("").await;
        let name = browser.cookies.keys().next().unwrap().clone();
        let attempt = browser.cookie("away").unwrap().split('.').next().unwrap().to_owned();
        browser.cookies.insert(name, format!("{attempt}.{}", URL_SAFE_NO_PAD.encode(outside)));
        assert_leads_to(&browser.get(&world.provider.approve(&link)).await, "/console/");
    }
    // A repeated parameter counts as none.
    let answer = world.browser().sign_in(&world, "?return_to=/console/account&return_to=https://evil.example").await;
    assert_leads_to(&answer, "/console/");
}

#[tokio::test]
async fn hostile_callbacks_and_id_tokens_sign_nobody_in() {
    let world = World::start().await;
    world.join_alice().await;
    let (provider, log) = (&world.provider, Log::default());
    let _here = tracing::subscriber::set_default(log.subscriber(LevelFilter::INFO));
    type Hostile = fn(&Provider, &Url) -> String;
    let hostile: [(&str, &str, Hostile); 20] = [
        ("another state", "the state is another sign-in's", |provider, link| {
            provider.approve(link).replace(&parameter(link, "state"), &"a".repeat(43))
        }),
        ("no state", "the state is another sign-in's", |provider, link| {
            provider.approve(link).split_once("&state=").unwrap().0.to_owned()
        }),
        ("two states", "the state is another sign-in's", |provider, link| {
            format!("{}&state={}", provider.approve(link), parameter(link, "state"))
        }),
        ("another issuer", "the callback comes from another issuer", |provider, link| {
            format!("{}&iss=https%3A%2F%2Fissuer.example", provider.approve(link))
        }),
        ("a refusal", "the provider did not sign the person in", |_, link| {
            format!("{CALLBACK}?error=access_denied&state={}", parameter(link, "state"))
        }),
        ("no code", "the callback has no code", |_, link| format!("{CALLBACK}?state={}", parameter(link, "state"))),
        ("a made-up code", "the provider refused the code or the client", |_, link| {
            format!("{CALLBACK}?code=made-up&state={}", parameter(link, "state"))
        }),
        ("another nonce", "the nonce is another sign-in's", |provider, link| {
            altered(provider, link, "nonce", json!("a"))
        }),
        ("no nonce", "the claim `nonce` is missing or malformed", |provider, link| {
            altered(provider, link, "nonce", Value::Null)
        }),
        ("another iss", "the issuer is not allowed", |provider, link| {
            altered(provider, link, "iss", json!("https://issuer.example"))
        }),
        ("another aud", "the audience is not accepted", |provider, link| {
            altered(provider, link, "aud", json!("another"))
        }),
        ("several aud", "the authorized party is another client", |provider, link| {
            altered(provider, link, "aud", json!([CLIENT, "another"]))
        }),
        ("expired", "the ID token has expired", |provider, link| {
            altered(provider, link, "exp", json!(provider.issuer.now() - 60))
        }),
        ("from the future", "the ID token was issued in the future", |provider, link| {
            altered(provider, link, "iat", json!(provider.issuer.now() + 61))
        }),
        ("not yet valid", "the ID token is not valid yet", |provider, link| {
            altered(provider, link, "nbf", json!(provider.issuer.now() + 61))
        }),
        ("no sub", "the claim `sub` is missing or malformed", |provider, link| {
            altered(provider, link, "sub", Value::Null)
        }),
        ("alg none", "the header's `alg` is not RS256 or ES256", |provider, link| {
            let message = issuer::message(r#"{"alg":"none"}"#, &provider.claims(link).to_string());
            provider.approve_with(link, issuer::token(&message, b""))
        }),
        ("HS256 with the public key", "the header's `alg` is not RS256 or ES256", |provider, link| {
            let message = issuer::message(r#"{"alg":"HS256","kid":"rsa"}"#, &provider.claims(link).to_string());
            let signature = issuer::hs256(&RSA.public_bytes(), &message);
            provider.approve_with(link, issuer::token(&message, &signature))
        }),
        ("another's key", "the signature is wrong", |provider, link| {
            let header = json!({"alg": "RS256", "kid": "rsa"});
            provider.approve_with(link, sign_with(&OTHER_RSA, &header, &provider.claims(link)))
        }),
        ("a key of its own", "the signature is wrong", |provider, link| {
            let header = json!({"alg": "RS256", "kid": "rsa", "jwk": OTHER_RSA.jwk("rsa")});
            provider.approve_with(link, sign_with(&OTHER_RSA, &header, &provider.claims(link)))
        }),
    ];
    let mut seen = 0;
    for (what, reason, callback) in hostile {
        let mut browser = world.browser();
        let link = browser.leave("").await;
        let answer = browser.get(&callback(provider, &link)).await;
        assert_leads_to(&answer, "/console/sign-in?failed");
        assert!(browser.session().is_none(), "{what}");
        // A callback of another attempt does not end this one.
        assert_eq!(browser.cookie("away").is_some(), reason.contains("state"), "{what}");
        let text = log.text();
        assert!(text[seen..].contains(reason), "{what}: {}", &text[seen..]);
        seen = text.len();
        let page = browser.get("/console/sign-in?failed").await;
        assert!(page.text.contains("Signing in failed. Try again.") && !page.text.contains(reason), "{what}");
    }
    assert!(world.nobody_is_signed_in().await);
    let header = json!({"alg": "ES256", "kid": "ec"});
    let mut browser = world.browser();
    let link = browser.leave("").await;
    let good = provider.approve_with(&link, sign_with(&EC, &header, &provider.claims(&link)));
    assert_leads_to(&browser.get(&good).await, "/console/");
}

fn altered(provider: &Provider, link: &Url, claim: &str, value: Value) -> String {
    let mut claims = provider.claims(link);
    match value {
        Value::Null => claims.as_object_mut().unwrap().remove(claim),
        value => claims.as_object_mut().unwrap().insert(claim.to_owned(), value),
    };
    provider.approve_as(link, &claims)
}

#[tokio::test]
async fn callback_must_name_its_issuer_where_discovery_announces_it() {
    let provider = Provider::start().await;
    let endpoint = metadata_of(&provider).await;
    provider.publish(|metadata| {
        metadata["token_endpoint"] = endpoint;
        metadata["authorization_response_iss_parameter_supported"] = json!(true);
    });
    let world = World::of(provider, ClientSecret::given(SECRET.into()), false).await;
    world.join_alice().await;
    let mut browser = world.browser();
    let answer = browser.sign_in(&world, "").await;
    assert_leads_to(&answer, "/console/sign-in?failed");
    assert_eq!(world.provider.take_asked(), Vec::<String>::new());
    let link = browser.leave("").await;
    let named = format!("{}&iss={}", world.provider.approve(&link), url_encoded(world.provider.issuer.url()));
    assert_leads_to(&browser.get(&named).await, "/console/");
}

/// The token endpoint that the provider has published.
async fn metadata_of(provider: &Provider) -> Value {
    let published = reqwest::get(format!("{}{METADATA}", provider.issuer.url())).await.unwrap();
    published.json::<Value>().await.unwrap()["token_endpoint"].clone()
}

#[tokio::test]
async fn attempt_works_once() {
    let world = World::start().await;
    world.join_alice().await;
    let mut browser = world.browser();
    let link = browser.leave("").await;
    let copy = browser.clone();
    let callback = world.provider.approve(&link);
    assert_leads_to(&browser.get(&callback).await, "/console/");
    assert_eq!(world.provider.take_asked().len(), 1);
    // The same callback in this browser, which keeps its session.
    let session = browser.session().unwrap();
    assert_leads_to(&browser.get(&callback).await, "/console/sign-in?failed");
    assert_eq!(browser.session().unwrap().hash(), session.hash());
    assert_eq!(world.provider.take_asked().len(), 0);
    // With a copy of the cookie, the code is used up.
    let mut copy = copy;
    assert_leads_to(&copy.get(&callback).await, "/console/sign-in?failed");
    assert!(copy.session().is_none());
    assert_eq!(world.provider.take_asked().len(), 1);
    assert_eq!(world.service.store.sessions_of(world.alice().id).await.unwrap().len(), 1);
}

#[tokio::test]
async fn callback_works_only_in_the_browser_that_left() {
    let world = World::start().await;
    world.join_alice().await;
    let mut attacker = world.browser();
    let link = attacker.leave("").await;
    let callback = world.provider.approve(&link);
    // A victim is led to the attacker's callback: without an attempt, and with one.
    let mut victim = world.browser();
    assert_leads_to(&victim.get(&callback).await, "/console/sign-in?failed");
    let own = victim.leave("").await;
    assert_leads_to(&victim.get(&callback).await, "/console/sign-in?failed");
    assert_eq!(world.provider.take_asked(), Vec::<String>::new());
    assert!(victim.session().is_none());
    // Neither ends the victim's own attempt.
    assert_leads_to(&victim.get(&world.provider.approve(&own)).await, "/console/");
    // A malformed cookie, and two of them, count as none.
    for cookie in
        ["a", "a.b", &format!("{}.", "a".repeat(42)), &format!("{0}.; {1}={0}.", "a".repeat(43), "guard_away")]
    {
        let mut browser = world.browser();
        browser.leave("").await;
        let name = browser.cookies.keys().next().unwrap().clone();
        let cookie = cookie.replace("guard_away", &name);
        browser.cookies.insert(name, cookie);
        assert_leads_to(&browser.get(&callback).await, "/console/sign-in?failed");
    }
}

/// The code of another sign-in in one's own callback.
#[tokio::test]
async fn code_of_another_sign_in_or_client_signs_nobody_in() {
    let world = World::start().await;
    world.join_alice().await;
    let (mut alice, mut attacker) = (world.browser(), world.browser());
    let (of_alice, own) = (alice.leave("").await, attacker.leave("").await);
    let injected = |provider: &Provider| {
        let code = provider.code(&of_alice, provider.issuer.sign(&provider.claims(&of_alice)));
        format!("{CALLBACK}?code={code}&state={}", parameter(&own, "state"))
    };
    assert_leads_to(&attacker.get(&injected(&world.provider)).await, "/console/sign-in?failed");
    // A provider that ignores the verifier: the nonce is another one's.
    world.provider.tokens().checks_verifier = false;
    let own = attacker.leave("").await;
    let code = world.provider.code(&of_alice, world.provider.issuer.sign(&world.provider.claims(&of_alice)));
    let callback = format!("{CALLBACK}?code={code}&state={}", parameter(&own, "state"));
    assert_leads_to(&attacker.get(&callback).await, "/console/sign-in?failed");
    // An ID token that the provider issued to another client, in answer to this sign-in.
    let own = attacker.leave("").await;
    let mut claims = world.provider.claims(&own);
    claims["aud"] = json!("another-client");
    claims["azp"] = json!("another-client");
    assert_leads_to(&attacker.get(&world.provider.approve_as(&own, &claims)).await, "/console/sign-in?failed");
    assert!(world.nobody_is_signed_in().await);
}

#[tokio::test]
async fn unverified_address_signs_nobody_in_and_the_page_says_so() {
    for trusted in [false, true] {
        let world = World::start_with(ClientSecret::given(SECRET.into()), trusted).await;
        world.join_alice().await;
        world.invite(ALICE).await;
        for (verified, expected) in
            [(json!(false), false), (json!("false"), false), (json!(null), false), (json!("absent"), trusted)]
        {
            let mut browser = world.browser();
            let link = browser.leave("").await;
            let callback = match verified == "absent" {
                true => altered(&world.provider, &link, "email_verified", Value::Null),
                false => {
                    let mut claims = world.provider.claims(&link);
                    claims["email_verified"] = verified.clone();
                    world.provider.approve_as(&link, &claims)
                }
            };
            let answer = browser.get(&callback).await;
            let location = if expected { "/console/" } else { "/console/sign-in?unverified" };
            assert_leads_to(&answer, location);
            assert_eq!(browser.session().is_some(), expected, "{verified}, trusted: {trusted}");
            assert!(browser.cookie("away").is_none());
            if !expected {
                let page = browser.get(location).await;
                assert!(page.text.contains("has not verified your email address"), "{}", page.text);
            }
        }
        for email in
            [json!(""), json!("alice"), json!(["alice@example.com"]), json!("alice@example.com\nbob@example.com")]
        {
            let mut browser = world.browser();
            let link = browser.leave("").await;
            let answer = browser.get(&altered(&world.provider, &link, "email", email)).await;
            assert_leads_to(&answer, "/console/sign-in?unverified");
        }
    }
}

#[tokio::test]
async fn person_without_membership_and_invitation_gets_no_session() {
    let world = World::start().await;
    world.invite("bob@example.com").await;
    let mut browser = world.browser();
    let answer = browser.sign_in(&world, "").await;
    assert_leads_to(&answer, "/console/sign-in?uninvited");
    assert!(browser.session().is_none() && browser.cookie("away").is_none());
    assert!(world.nobody_is_signed_in().await);
    let page = unescaped(&browser.get("/console/sign-in?uninvited").await.text);
    assert!(page.contains("Nobody has invited this address yet, or the invitation has expired."), "{page}");
    assert!(!page.contains("Example") && !page.contains("bob"), "{page}");
    // An invitation that has expired is none.
    world.invite(ALICE).await;
    world.service.clock.advance(Duration::from_secs(7 * 24 * 60 * 60));
    assert_leads_to(&world.browser().sign_in(&world, "").await, "/console/sign-in?uninvited");
    assert!(world.nobody_is_signed_in().await);
}

#[tokio::test]
async fn membership_belongs_to_the_way_by_which_it_was_accepted() {
    let world = World::start().await;
    let by_mail = person(ALICE);
    let member = world.service.join(&world.org.id, &by_mail, &[Role::Owner]).await;
    assert_ne!(by_mail.id, world.alice().id);
    // The same address at the provider is another person.
    assert_leads_to(&world.browser().sign_in(&world, "").await, "/console/sign-in?uninvited");
    // An owner may invite it again for the other way.
    world.join_alice().await;
    assert_leads_to(&world.browser().sign_in(&world, "").await, "/console/");
    let store = &world.service.store;
    let second = store.membership(world.alice().id, &world.org.id).await.unwrap().unwrap();
    assert_ne!(second.id, member.id);
    assert_eq!(store.membership(by_mail.id, &world.org.id).await.unwrap().unwrap().id, member.id);
    // Somebody else at the provider who now has the address is neither.
    let mut browser = world.browser();
    let link = browser.leave("").await;
    let answer = browser.get(&altered(&world.provider, &link, "sub", json!("subject-of-mallory"))).await;
    assert_leads_to(&answer, "/console/sign-in?uninvited");
}

#[tokio::test]
async fn person_is_recognised_by_the_subject_whatever_the_address() {
    let world = World::start().await;
    world.join_alice().await;
    let mut browser = world.browser();
    let link = browser.leave("").await;
    let answer = browser.get(&altered(&world.provider, &link, "email", json!("alice.new@example.com"))).await;
    assert_leads_to(&answer, "/console/");
    let sessions = world.service.store.sessions_of(world.alice().id).await.unwrap();
    assert_eq!(sessions[0].email.expose(), "alice.new@example.com");
}

#[tokio::test]
async fn sign_in_makes_a_new_session_and_ends_the_one_before() {
    let world = World::start().await;
    world.join_alice().await;
    let store = &world.service.store;
    // An attacker plants a session of their own.
    let mallory = person("mallory@example.com");
    world.service.join(&world.org.id, &mallory, &[Role::Member]).await;
    let planted = world.service.sign_in(&mallory).await.secret;
    let mut browser = world.browser();
    browser.leave("").await;
    let name = browser.cookies.keys().next().unwrap().replace("away", "session");
    browser.cookies.insert(name, planted.expose().to_owned());
    assert_leads_to(&browser.sign_in(&world, "").await, "/console/");
    let first = browser.session().unwrap();
    assert_ne!(first.hash(), planted.hash());
    assert_eq!(store.session(planted.hash()).await.unwrap(), None);
    assert_eq!(store.session(first.hash()).await.unwrap().unwrap().person, world.alice().id);
    // And again.
    assert_leads_to(&browser.sign_in(&world, "").await, "/console/");
    assert_ne!(browser.session().unwrap().hash(), first.hash());
    assert_eq!(store.session(first.hash()).await.unwrap(), None);
    assert_eq!(store.sessions_of(world.alice().id).await.unwrap().len(), 1);
    // One that fails leaves it as it is.
    let last = browser.session().unwrap();
    let link = browser.leave("").await;
    let answer = browser.get(&altered(&world.provider, &link, "nonce", json!("a"))).await;
    assert_leads_to(&answer, "/console/sign-in?failed");
    assert!(store.session(last.hash()).await.unwrap().is_some());
}

#[tokio::test]
async fn keys_that_the_provider_has_changed_are_looked_up_once_a_minute() {
    let world = World::start().await;
    world.join_alice().await;
    assert_leads_to(&world.browser().sign_in(&world, "").await, "/console/");
    world.provider.issuer.set_keys(&[OTHER_RSA.jwk("new")]);
    let with_new_key = |link: &Url| {
        let header = json!({"alg": "RS256", "kid": "new"});
        world.provider.approve_with(link, sign_with(&OTHER_RSA, &header, &world.provider.claims(link)))
    };
    let mut browser = world.browser();
    let link = browser.leave("").await;
    let answer = browser.get(&with_new_key(&link)).await;
    assert_eq!((answer.status.as_u16(), answer.header("retry-after")), (503, "60"), "{}", answer.text);
    world.service.clock.advance(Duration::from_secs(61));
    let link = browser.leave("").await;
    assert_leads_to(&browser.get(&with_new_key(&link)).await, "/console/");
    // The old key has stopped working.
    assert_eq!(world.browser().sign_in(&world, "").await.status, 503);
    world.service.clock.advance(Duration::from_secs(61));
    assert_leads_to(&world.browser().sign_in(&world, "").await, "/console/sign-in?failed");
}

#[tokio::test]
async fn provider_that_is_slow_or_down_is_a_503_page() {
    let world = World::start().await;
    world.join_alice().await;
    let server = &world.provider.issuer.server;
    for reply in
        [Reply::status(500), Reply::ok("text/html", "<html>"), Reply::status(200).delayed(Duration::from_secs(60))]
    {
        server.stub(METADATA, reply);
        let started = Instant::now();
        let answer = world.browser().get(LEAVE).await;
        assert!(started.elapsed() < Duration::from_secs(20), "{:?}", started.elapsed());
        assert_eq!((answer.status.as_u16(), answer.header("retry-after")), (503, "60"), "{}", answer.text);
        assert!(answer.header("content-type").starts_with("text/html"), "{:?}", answer.headers);
        assert!(
            answer.header("set-cookie").is_empty() && answer.text.contains("href=\"/console/\""),
            "{}",
            answer.text
        );
        world.service.clock.advance(Duration::from_secs(61));
    }
    let world = World::start().await;
    world.join_alice().await;
    let mut browser = world.browser();
    let link = browser.leave("").await;
    let callback = world.provider.approve(&link);
    // It is known already, so that a sign-in needs the token endpoint alone.
    world.provider.issuer.server.stub(METADATA, Reply::status(500));
    world.provider.issuer.server.stub(KEYS, Reply::status(500));
    assert_leads_to(&browser.get(&callback).await, "/console/");
}

#[tokio::test]
async fn callback_may_be_repeated_after_a_503() {
    let world = World::start().await;
    world.join_alice().await;
    let mut browser = world.browser();
    let link = browser.leave("").await;
    let callback = world.provider.approve(&link);
    world.provider.tokens().is_down = true;
    let answer = browser.get(&callback).await;
    assert_eq!((answer.status.as_u16(), answer.header("retry-after")), (503, "10"), "{}", answer.text);
    assert!(browser.session().is_none());
    world.provider.tokens().is_down = false;
    assert_leads_to(&browser.get(&callback).await, "/console/");
    assert!(browser.session().is_some());
}

#[tokio::test]
async fn nothing_secret_or_personal_is_logged_or_put_into_our_urls() {
    let world = World::start().await;
    world.join_alice().await;
    let log = Log::default();
    let _here = tracing::subscriber::set_default(log.subscriber(LevelFilter::TRACE));
    let mut browser = world.browser();
    let (mut secrets, mut locations) = (vec![SECRET.to_owned(), ALICE.to_owned(), ALICE_SUBJECT.to_owned()], vec![]);
    for hostile in [false, true] {
        let link = browser.leave("?return_to=/console/account").await;
        secrets.extend(["state", "nonce", "code_challenge"].map(|name| parameter(&link, name)));
        secrets.push(browser.cookie("away").unwrap().split('.').next().unwrap().to_owned());
        let mut claims = world.provider.claims(&link);
        if hostile {
            claims["aud"] = json!("secret-audience");
        }
        let answer = browser.get(&world.provider.approve_as(&link, &claims)).await;
        assert_eq!(answer.status, 303, "{}", answer.text);
        locations.push(answer.header("location").to_owned());
        secrets.push(browser.session().unwrap().expose().to_owned());
    }
    assert_eq!(locations, ["/console/account", "/console/sign-in?failed"]);
    secrets.extend(["secret-code", "secret-access-token", "secret-audience", "eyJ"].map(str::to_owned));
    let text = log.text();
    assert!(text.contains("the audience is not accepted"), "{text}");
    for secret in secrets {
        assert!(!text.contains(&secret), "the log contains {secret}");
    }
}

#[tokio::test]
async fn secret_is_read_when_needed_and_again_when_it_was_changed() {
    let provider = Provider::start().await;
    let secrets = Registry::start().await;
    let store = |secret: &str| {
        let body = json!({"ARN": "arn:aws:secretsmanager:x", "Name": "guard", "SecretString": secret}).to_string();
        secrets.stub("/", Reply::ok("application/x-amz-json-1.1", body));
    };
    store(&format!("{SECRET}\n"));
    let arn = "arn:aws:secretsmanager:us-east-1:123456789012:secret:guard-a1b2c3";
    let clock = provider.issuer.clock.clone();
    let secret = ClientSecret::stored(secrets_manager_at(&secrets.url), arn.to_owned(), clock.clone());
    let world = World::of(provider, secret, false).await;
    world.join_alice().await;
    let mut browser = world.browser();
    let link = browser.leave("").await;
    assert!(secrets.take_requests().is_empty());
    assert_leads_to(&browser.get(&world.provider.approve(&link)).await, "/console/");
    assert_leads_to(&browser.sign_in(&world, "").await, "/console/");
    let request = secrets.take_one_request();
    assert_eq!(request.headers["x-amz-target"], "secretsmanager.GetSecretValue");
    assert_eq!(serde_json::from_slice::<Value>(&request.body).unwrap(), json!({"SecretId": arn}));
    // The operator changes it at the provider, and then here.
    world.provider.tokens().secret = "the-new-secret".to_owned();
    assert_leads_to(&browser.sign_in(&world, "").await, "/console/sign-in?failed");
    assert!(secrets.take_requests().is_empty(), "it was read less than a minute ago");
    clock.advance(Duration::from_secs(61));
    store("the-new-secret");
    world.provider.take_asked();
    assert_leads_to(&browser.sign_in(&world, "").await, "/console/");
    assert_eq!((secrets.take_requests().len(), world.provider.take_asked().len()), (1, 2));
    // Codes that anybody makes up cost one read a minute.
    for _ in 0..3 {
        let link = browser.leave("").await;
        let callback = format!("{CALLBACK}?code=made-up&state={}", parameter(&link, "state"));
        assert_leads_to(&browser.get(&callback).await, "/console/sign-in?failed");
    }
    assert!(secrets.take_requests().is_empty());
}

#[tokio::test]
async fn secret_that_cannot_be_read_is_a_503_page() {
    let secrets = Registry::start().await;
    let client = secrets_manager_at(&secrets.url);
    for reply in [
        Reply::status(400).with_body(r#"{"__type":"ResourceNotFoundException","Message":"secret-message"}"#),
        Reply::ok("application/x-amz-json-1.1", r#"{"SecretString":" \n"}"#),
        Reply::ok("application/x-amz-json-1.1", r#"{"SecretBinary":"YQ=="}"#),
    ] {
        let provider = Provider::start().await;
        let secret = ClientSecret::stored(client.clone(), "arn".to_owned(), provider.issuer.clock.clone());
        let world = World::of(provider, secret, false).await;
        world.join_alice().await;
        secrets.stub("/", reply);
        let log = Log::default();
        let _here = tracing::subscriber::set_default(log.subscriber(LevelFilter::INFO));
        let answer = world.browser().sign_in(&world, "").await;
        assert_eq!((answer.status.as_u16(), answer.header("retry-after")), (503, "10"), "{}", answer.text);
        assert!(log.text().contains("client secret") && !log.text().contains("secret-message"), "{}", log.text());
        assert!(world.nobody_is_signed_in().await);
    }
}

#[tokio::test]
async fn without_a_provider_there_is_no_way_to_one() {
    let service = Service::start().await;
    for path in [LEAVE, CALLBACK, "/console/sign-in/callback?code=a&state=b"] {
        let answer = service.send(service.request(Method::GET, path)).await;
        assert_eq!(answer.status, 404, "{path}");
        assert!(answer.header("content-type").starts_with("text/html"), "{path}");
    }
    let page = service.send(service.request(Method::GET, "/console/sign-in")).await;
    assert!(page.status == 200 && !page.text.contains(LEAVE), "{}", page.text);
}
