//! `Idempotency-Key`: a call that creates a token is carried out once per key, organization and
//! caller; its repeat names what it created.

use std::collections::BTreeSet;
use std::time::Duration;

use futures::future::{join, join_all};
use reqwest::Method;
use reqwest::header::HeaderValue;
use serde_json::{Value, json};
use shared::domain::Plan;
use shared::ids::TokenId;
use shared::permissions::Role;
use tests::faults::Fault;
use tests::management::{ACCESS_TOKENS, API_KEYS};
use tests::table::text;
use tests::{Answer, Bot, Org, Service, operator};

const HEADER: &str = "Idempotency-Key";
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// A call that creates a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Call {
    Issue,
    CreateApiKey,
    CreateAccessToken,
}

impl Call {
    const ALL: [Call; 3] = [Call::Issue, Call::CreateApiKey, Call::CreateAccessToken];

    fn path(self, org: &Org) -> String {
        match self {
            Call::Issue => org.org_user_tokens(""),
            Call::CreateApiKey => API_KEYS.to_owned(),
            Call::CreateAccessToken => ACCESS_TOKENS.to_owned(),
        }
    }

    /// A body that contains this name.
    fn body(self, name: &str) -> Value {
        match self {
            Call::Issue => json!({"user_identifier": name}),
            Call::CreateApiKey => json!({"name": name, "environment": "live", "scopes": ["org:read"]}),
            Call::CreateAccessToken => json!({"name": name}),
        }
    }

    async fn with_body(self, service: &Service, org: &Org, credential: &str, key: &str, body: &Value) -> Answer {
        let request = service.request(Method::POST, &self.path(org)).bearer_auth(credential);
        service.send(request.header(HEADER, key).json(body)).await
    }

    async fn send(self, service: &Service, org: &Org, credential: &str, key: &str) -> Answer {
        self.with_body(service, org, credential, key, &self.body("alice")).await
    }
}

/// The ID of what a call created.
#[track_caller]
fn created(answer: &Answer) -> String {
    assert_eq!(answer.status, 201, "{}", answer.text);
    answer.json()["id"].to_string().replace('"', "")
}

/// Asserts that this is the answer to the repeat of a call that created the token with this ID.
#[track_caller]
fn assert_repeat(answer: &Answer, id: &str) {
    answer.assert_error(409, "CONFLICT");
    let message = answer.json()["error"]["message"].as_str().unwrap().to_owned();
    assert!(message.contains(&format!(" {id}. ")) && message.contains("cannot be shown again"), "{message}");
}

/// The IDs of all active tokens of an organization.
async fn active(service: &Service, org: &Org, owner: &Bot) -> BTreeSet<String> {
    let user_tokens = service.listed_ids(org, owner, "?limit=100").await;
    let keys = service.all_api_keys(&owner.credential, 100, "").await;
    let access_tokens = service.access_tokens(owner).await;
    let access_tokens = access_tokens.iter().map(|token| token["id"].to_string());
    user_tokens.into_iter().chain(keys).chain(access_tokens).collect()
}

/// The stored keys.
async fn stored(service: &Service) -> Vec<Value> {
    let mut items = service.table.items().await;
    items.retain(|item| text(item, "pk").ends_with("#IDEMPOTENCY"));
    items
}

#[tokio::test]
async fn repeat_is_409_and_names_what_was_created() {
    let service = Service::start_with_manual_clock().await;
    for call in Call::ALL {
        let (org, owner) = service.org_with_owner().await;
        let id = created(&call.send(&service, &org, &owner.credential, "key-1").await);
        for _ in 0..3 {
            assert_repeat(&call.send(&service, &org, &owner.credential, "key-1").await, &id);
        }
        assert_eq!(active(&service, &org, &owner).await, [id.clone()].into(), "{call:?}");
        // One entry says that it was created; a repeat is no refusal.
        let entries = service.table.audit_entries(&org.id).await;
        let of_it = entries.iter().filter(|entry| entry["target"]["id"] == id.as_str());
        assert_eq!(of_it.count(), 1, "{call:?}");
        assert!(entries.iter().all(|entry| entry["outcome"] == "done"));
        // Another key is another token. Without a key, nothing is remembered.
        let another = call.with_body(&service, &org, &owner.credential, "key-2", &call.body("bobby")).await;
        assert_ne!(created(&another), id);
        assert_eq!(service.post(&call.path(&org), &owner.credential, &call.body("carol")).await.status, 201);
        assert_eq!(active(&service, &org, &owner).await.len(), 3);
    }
    assert_eq!(stored(&service).await.len(), 6);
}

#[tokio::test]
async fn key_is_stored_as_hash_and_expires_after_24_hours() {
    let service = Service::start_with_manual_clock().await;
    let (org, owner) = service.org_with_owner().await;
    let id = created(&Call::Issue.send(&service, &org, &owner.credential, "order of alice@example.com").await);
    let ttl = service.clock.now().plus(DAY).epoch_seconds();
    let [item] = &stored(&service).await[..] else { panic!("expected one key") };
    assert_eq!(item["made"], json!({"kind": "org_user_token", "id": id}));
    assert_eq!(item["ttl"], ttl);
    assert!(text(item, "sk").starts_with(&format!("{}#", owner.id)));
    assert!(!item.to_string().contains("alice"), "{item}");

    // Whether or not DynamoDB has deleted the item.
    service.clock.advance(DAY - Duration::from_secs(1));
    assert_repeat(&Call::Issue.send(&service, &org, &owner.credential, "order of alice@example.com").await, &id);
    service.clock.advance(Duration::from_secs(1));
    let next = created(&Call::Issue.send(&service, &org, &owner.credential, "order of alice@example.com").await);
    assert_ne!(next, id);
    assert_repeat(&Call::Issue.send(&service, &org, &owner.credential, "order of alice@example.com").await, &next);
    // Another request may use an expired key too.
    service.clock.advance(DAY);
    created(&Call::CreateApiKey.send(&service, &org, &owner.credential, "order of alice@example.com").await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twenty_concurrent_calls_with_one_key_create_one_token() {
    let (service, contention) = Service::start_with_contention(Duration::from_millis(12)).await;
    for call in Call::ALL {
        for plan in [Plan::Enterprise, Plan::Free] {
            let (org, owner) = service.org_on(plan).await;
            if plan == Plan::Free {
                // Room for one more.
                for _ in 0..2 {
                    service.api_key(&owner.credential, &["org:read"]).await;
                }
            }
            let before = active(&service, &org, &owner).await.len();
            let send = async |_| call.send(&service, &org, &owner.credential, "key-1").await;
            let answers = join_all((0..20).map(send)).await;
            let (done, repeats): (Vec<&Answer>, Vec<&Answer>) = answers.iter().partition(|answer| answer.status == 201);
            assert_eq!(done.len(), 1, "{call:?}");
            let id = created(done[0]);
            repeats.into_iter().for_each(|repeat| assert_repeat(repeat, &id));
            assert_eq!(active(&service, &org, &owner).await.len(), before + 1, "{call:?}");
        }
    }
    assert!(contention.conflicts() > 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_concurrent_requests_with_one_key_the_other_is_400() {
    let (service, _contention) = Service::start_with_contention(Duration::from_millis(12)).await;
    for call in Call::ALL {
        let (org, owner) = service.org_with_owner().await;
        let send = async |n: usize| {
            call.with_body(&service, &org, &owner.credential, "key-1", &call.body(&format!("user-{n}"))).await
        };
        let answers = join_all((0..10).map(send)).await;
        let (done, others): (Vec<&Answer>, Vec<&Answer>) = answers.iter().partition(|answer| answer.status == 201);
        assert_eq!(done.len(), 1, "{call:?}");
        others.into_iter().for_each(|other| other.assert_invalid(HEADER));
    }
}

#[tokio::test]
async fn key_of_another_body_or_route_is_400() {
    let service = Service::start_with_manual_clock().await;
    let (org, owner) = service.org_with_owner().await;
    let id = created(&Call::Issue.send(&service, &org, &owner.credential, "key-1").await);
    // The raw body counts, not its meaning.
    let spaced = json!({"user_identifier": "alice"}).to_string().replace(':', ": ");
    let request = service.request(Method::POST, &Call::Issue.path(&org)).bearer_auth(&owner.credential);
    let request = request.header(HEADER, "key-1").header("content-type", "application/json").body(spaced);
    service.send(request).await.assert_invalid(HEADER);
    let other = Call::Issue.with_body(&service, &org, &owner.credential, "key-1", &Call::Issue.body("bobby")).await;
    other.assert_invalid(HEADER);
    for call in [Call::CreateApiKey, Call::CreateAccessToken] {
        let answer = call.send(&service, &org, &owner.credential, "key-1").await;
        answer.assert_invalid(HEADER);
        assert!(!answer.text.contains("key-1") && !answer.text.contains(&id), "{}", answer.text);
    }
    // Also where only the route differs.
    let same = json!({"name": "ci", "environment": "live", "scopes": ["org:read"]});
    created(&Call::CreateApiKey.with_body(&service, &org, &owner.credential, "key-2", &same).await);
    let named = json!({"name": "device"});
    created(&Call::CreateAccessToken.with_body(&service, &org, &owner.credential, "key-3", &named).await);
    assert_eq!(active(&service, &org, &owner).await.len(), 3);
    // With and without the trailing slash is one route.
    let path = ACCESS_TOKENS.trim_end_matches('/');
    let request = service.request(Method::POST, path).bearer_auth(&owner.credential).header(HEADER, "key-3");
    service.send(request.json(&named)).await.assert_error(409, "CONFLICT");
}

#[tokio::test]
async fn key_of_a_rotation_is_400_for_another_token() {
    let service = Service::start_with_manual_clock().await;
    let (org, owner) = service.org_on(Plan::Enterprise).await;
    let mut paths = Vec::new();
    for _ in 0..2 {
        let user = service.issue(&org, &owner, "alice").await.id;
        let key = service.api_key(&owner.credential, &["org:read"]).await.id;
        let bot = service.bot(&org, &[Role::Owner]).await.id;
        paths.push([
            org.org_user_tokens(&format!("/by-id/{user}/rotate")),
            format!("{API_KEYS}/{key}/rotate"),
            format!("/v1/o/{}/bots/{bot}/rotate-key", org.id),
        ]);
    }
    let rotate = async |path: &str, key: &str| {
        let request = service.request(Method::POST, path).bearer_auth(&owner.credential).header(HEADER, key);
        service.send(request.json(&json!({"overlap": "24h"}))).await
    };
    for (first, second) in paths[0].iter().zip(&paths[1]) {
        let nightly = format!("nightly{first}");
        let made = rotate(first, &nightly).await;
        assert_eq!(made.status, 201, "{first}: {}", made.text);
        let body = made.json();
        let id = body["id"].as_str().or(body["key_id"].as_str()).unwrap();
        let refused = rotate(second, &nightly).await;
        refused.assert_invalid(HEADER);
        assert!(!refused.text.contains(id), "{}", refused.text);
        assert_repeat(&rotate(first, &nightly).await, id);
        // It was not rotated.
        let made = rotate(second, &format!("nightly{second}")).await;
        assert_eq!(made.status, 201, "{second}: {}", made.text);
    }
}

#[tokio::test]
async fn keys_of_other_callers_and_organizations_are_independent() {
    let service = Service::start_with_manual_clock().await;
    let (org, owner) = service.org_on(Plan::Enterprise).await;
    let (other_org, other_owner) = service.org_on(Plan::Enterprise).await;
    let second_owner = service.bot(&org, &[Role::Owner]).await;
    let writer = service.api_key(&owner.credential, &["org:write", "org:read"]).await;
    let create = async |org: &Org, credential: &str| Call::CreateApiKey.send(&service, org, credential, "key-1").await;
    let mut made = BTreeSet::new();
    for (org, credential) in [
        (&org, &owner.credential),
        (&org, &second_owner.credential),
        (&org, &writer.key),
        (&other_org, &other_owner.credential),
    ] {
        let id = created(&create(org, credential).await);
        assert_repeat(&create(org, credential).await, &id);
        assert!(made.insert(id));
    }
    // The keys belong to the bot, whatever API key it calls with.
    let overlap = Some(Duration::from_secs(60));
    let key = service.store.rotate_bot_key(&owner.id, overlap, &operator()).await.unwrap().unwrap();
    create(&org, &format!("{}:{}", key.expose(), owner.id)).await.assert_error(409, "CONFLICT");
}

#[tokio::test]
async fn refused_call_does_not_use_up_its_key() {
    let service = Service::start_with_manual_clock().await;
    // Role.
    for call in Call::ALL {
        let org = service.org().await;
        let bot = service.bot(&org, &[]).await;
        call.send(&service, &org, &bot.credential, "key-1").await.assert_error(403, "FORBIDDEN");
        service.store.set_bot_roles(&bot.id, &[Role::Owner], &operator()).await.unwrap().unwrap();
        // Suspension.
        service.store.set_suspended(&org.id, true, &operator()).await.unwrap().unwrap();
        call.send(&service, &org, &bot.credential, "key-1").await.assert_error(403, "SUBSCRIPTION_REQUIRED");
        service.store.set_suspended(&org.id, false, &operator()).await.unwrap().unwrap();
        // The body.
        let body = json!({"no_such_field": 1});
        call.with_body(&service, &org, &bot.credential, "key-1", &body).await.assert_error(400, "BAD_REQUEST");
        assert!(stored(&service).await.iter().all(|item| !text(item, "pk").contains(org.id.as_str())));
        created(&call.send(&service, &org, &bot.credential, "key-1").await);
    }
    // Guard.
    let (org, owner) = service.org_on(Plan::Free).await;
    service.set_guard(&org.id, false).await;
    let issue = async || Call::Issue.send(&service, &org, &owner.credential, "key-1").await;
    issue().await.assert_error(403, "SUBSCRIPTION_REQUIRED");
    service.set_guard(&org.id, true).await;
    created(&issue().await);
    // The plan.
    let mut keys = Vec::new();
    for _ in 0..3 {
        keys.push(service.api_key(&owner.credential, &["org:read"]).await);
    }
    let create = async || Call::CreateApiKey.send(&service, &org, &owner.credential, "key-2").await;
    create().await.assert_error(403, "PLAN_LIMIT_REACHED");
    service.revoke_api_key(&owner.credential, &keys[0].id).await;
    created(&create().await);
    // The name.
    let device = service.access_token(&owner, &json!({"name": "alice"})).await;
    let create = async || Call::CreateAccessToken.send(&service, &org, &owner.credential, "key-3").await;
    create().await.assert_invalid("name");
    assert_eq!(service.call(Method::DELETE, &device.path(), &owner.credential).await.status, 204);
    created(&create().await);
}

#[tokio::test]
async fn repeat_is_409_whatever_has_changed_since() {
    let service = Service::start_with_manual_clock().await;
    let (org, owner) = service.org_on(Plan::Free).await;
    let soon = service.clock.now().plus(Duration::from_secs(60)).to_string();
    let mut sent = Vec::new();
    for call in Call::ALL {
        let mut body = call.body("alice");
        body["expires_at"] = json!(soon);
        let id = created(&call.with_body(&service, &org, &owner.credential, &format!("{call:?}"), &body).await);
        sent.push((call, body, id));
    }
    for _ in 0..2 {
        service.api_key(&owner.credential, &["org:read"]).await;
    }
    let repeat_all = async || {
        for (call, body, id) in &sent {
            assert_repeat(&call.with_body(&service, &org, &owner.credential, &format!("{call:?}"), body).await, id);
        }
    };
    // The plan is full, and the name is taken.
    repeat_all().await;
    // Their own `expires_at` has passed.
    service.clock.advance(Duration::from_secs(120));
    repeat_all().await;
    // They were revoked.
    let (issued, access) = (&sent[0].2, &sent[2].2);
    let path = org.org_user_tokens(&format!("/by-id/{issued}"));
    assert_eq!(service.call(Method::DELETE, &path, &owner.credential).await.status, 204);
    let path = format!("{ACCESS_TOKENS}{access}/");
    assert_eq!(service.call(Method::DELETE, &path, &owner.credential).await.status, 204);
    repeat_all().await;
    // Whoever may no longer call is told that first.
    service.store.set_bot_roles(&owner.id, &[], &operator()).await.unwrap().unwrap();
    for (call, body, _) in &sent {
        let answer = call.with_body(&service, &org, &owner.credential, &format!("{call:?}"), body).await;
        answer.assert_error(403, "FORBIDDEN");
    }
    service.store.delete_bot(&owner.id, &operator()).await.unwrap();
    for (call, body, _) in &sent {
        let answer = call.with_body(&service, &org, &owner.credential, &format!("{call:?}"), body).await;
        answer.assert_error(401, "UNAUTHORIZED");
    }
}

#[tokio::test]
async fn invalid_key_is_400_and_creates_nothing() {
    let service = Service::start_with_manual_clock().await;
    let (org, owner) = service.org_with_owner().await;
    let before = service.table.items_without_audit().await;
    let long = "k".repeat(256);
    for call in Call::ALL {
        let request = || {
            let request = service.request(Method::POST, &call.path(&org)).bearer_auth(&owner.credential);
            request.json(&call.body("alice"))
        };
        for key in ["", " ", &long, "schl\u{fc}ssel", "tab\there"] {
            let key = HeaderValue::from_bytes(key.as_bytes()).unwrap();
            service.send(request().header(HEADER, key)).await.assert_invalid(HEADER);
        }
        service.send(request().header(HEADER, "a").header(HEADER, "a")).await.assert_invalid(HEADER);
        service.send(request().header(HEADER, "a").header(HEADER, "b")).await.assert_invalid(HEADER);
    }
    assert_eq!(service.table.items_without_audit().await, before);
    // Whoever may not call is told that first.
    let powerless = service.bot(&org, &[]).await;
    Call::Issue.send(&service, &org, &powerless.credential, "").await.assert_error(403, "FORBIDDEN");
    // The longest one, and one of unusual characters.
    for (n, key) in [&long[..255], "\"8e03978e\", !~"].into_iter().enumerate() {
        let body = Call::Issue.body(&format!("user-{n}"));
        let id = created(&Call::Issue.with_body(&service, &org, &owner.credential, key, &body).await);
        assert_repeat(&Call::Issue.with_body(&service, &org, &owner.credential, key, &body).await, &id);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn key_of_a_token_that_was_taken_back_is_free() {
    let (service, faults) = Service::start_with_faults().await;
    for call in Call::ALL {
        let (org, owner) = service.org_on(Plan::Enterprise).await;
        // Starts the counter of access tokens, which is more calls.
        service.access_token(&owner, &json!({"name": "first"})).await;
        // The calls of DynamoDB before the last look at the bot.
        faults.arm(0, &[], None);
        created(&call.send(&service, &org, &owner.credential, "key-0").await);
        let calls = faults.disarm();
        let commit = calls.iter().position(|call| call == "TransactWriteItems").unwrap();
        assert_eq!(calls[commit + 1..], ["GetItem"], "{call:?}");

        // The bot cannot be read: nobody knows whether it may still have the token.
        let body = call.body("bobby");
        let send = async |bot: &Bot| call.with_body(&service, &org, &bot.credential, "key-1", &body).await;
        let before = active(&service, &org, &owner).await;
        faults.arm(commit + 1, &[Fault::ServerError; 4], None);
        let answer = send(&owner).await;
        faults.disarm();
        answer.assert_error(503, "SERVICE_UNAVAILABLE");
        assert_eq!(active(&service, &org, &owner).await, before, "{call:?}");
        let id = created(&send(&owner).await);
        assert_repeat(&send(&owner).await, &id);

        // It was cut off, and may call again later.
        let bot = service.bot(&org, &[Role::Owner]).await;
        let body = call.body("carol");
        let send = async || call.with_body(&service, &org, &bot.credential, "key-1", &body).await;
        faults.arm(commit, &[Fault::Held], None);
        let cut = async {
            faults.reached(commit + 1).await;
            service.store.set_bot_roles(&bot.id, &[], &operator()).await.unwrap().unwrap();
            faults.release();
        };
        let (answer, ()) = join(send(), cut).await;
        faults.disarm();
        answer.assert_error(403, "FORBIDDEN");
        send().await.assert_error(403, "FORBIDDEN");
        service.store.set_bot_roles(&bot.id, &[Role::Owner], &operator()).await.unwrap().unwrap();
        created(&send().await);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn api_key_revoked_during_its_call_is_401_and_its_key_is_free() {
    let (service, faults) = Service::start_with_faults().await;
    let (org, owner) = service.org_on(Plan::Enterprise).await;
    let writer = service.api_key(&owner.credential, &["org:write", "org:read"]).await;
    let send = async || Call::CreateApiKey.send(&service, &org, &writer.key, "key-1").await;
    // Its first use is recorded, which is one more call.
    created(&Call::CreateApiKey.send(&service, &org, &writer.key, "key-2").await);
    faults.arm(0, &[], None);
    created(&Call::CreateApiKey.send(&service, &org, &writer.key, "key-0").await);
    let calls = faults.disarm();
    let commit = calls.iter().position(|call| call == "TransactWriteItems").unwrap();
    faults.arm(commit, &[Fault::Held], None);
    let cut = async {
        faults.reached(commit + 1).await;
        let id = TokenId::parse(&writer.id).unwrap();
        assert!(service.store.revoke_api_key(&org.id, &id, &operator()).await.unwrap());
        faults.release();
    };
    let (answer, ()) = join(send(), cut).await;
    faults.disarm();
    answer.assert_error(401, "UNAUTHORIZED");
    assert_eq!(stored(&service).await.len(), 2);
}
