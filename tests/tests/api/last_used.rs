//! `last_used_at`: updated at most once a minute, never moved back, and never a reason to fail a
//! call.

use std::time::Duration;

use futures::future::join_all;
use reqwest::Method;
use serde_json::{Value, json};
use shared::secret::Token;
use shared::store::Store;
use shared::{Clock, Moment};
use tests::faults::Fault;
use tests::management::API_KEYS;
use tests::table::TABLE;
use tests::{Bot, Org, Service};

/// One token of each kind.
struct Tokens {
    org: Org,
    owner: Bot,
    user: String,
    key: String,
    access: String,
    person: String,
}

impl Tokens {
    async fn of(service: &Service) -> Self {
        let (org, owner) = service.org_with_owner().await;
        Self {
            user: service.issue(&org, &owner, "alice").await.token,
            key: service.api_key(&owner.credential, &["org:read"]).await.key,
            access: service.access_token(&owner, &json!({"name": "relay"})).await.token,
            person: service.email_token("alice@example.com").await,
            org,
            owner,
        }
    }

    fn all(&self) -> [&str; 4] {
        [&self.user, &self.key, &self.access, &self.person]
    }

    /// The `last_used_at` of each token, from lists, probe and status. Reading does not update it.
    async fn last_used(&self, service: &Service) -> [Value; 4] {
        let user = service.list(&self.org, &self.owner, "").await["tokens"][0]["last_used_at"].clone();
        let probed = service.probe(&self.org, &self.owner, &self.user).await;
        assert_eq!(probed["last_used_at"], user, "probe and list disagree");
        let key = service.api_keys(&self.owner.credential, "").await["api_keys"][0]["last_used_at"].clone();
        let access = service.access_tokens(&self.owner).await[0]["last_used_at"].clone();
        let status = service.call(Method::GET, "/api/v1/tokens/status", &self.person).await.json();
        [user, key, access, status["last_used_at"].clone()]
    }
}

/// This many seconds after the manual clock's start.
fn at(seconds: u64) -> Value {
    json!(Moment::parse("2026-11-21T10:00:00Z").unwrap().plus(Duration::from_secs(seconds)).to_string())
}

#[tokio::test]
async fn last_used_at_is_updated_at_most_once_a_minute() {
    let service = Service::start_with_manual_clock().await;
    let tokens = Tokens::of(&service).await;
    assert_eq!(tokens.last_used(&service).await, [Value::Null, Value::Null, Value::Null, Value::Null]);
    // Seconds since the previous step, and the expected `last_used_at`.
    let (mut now, mut writes) = (0, Vec::new());
    for (step, noted) in [(5, 5), (0, 5), (30, 5), (29, 5), (1, 65), (59, 65), (1, 125), (100_000, 100_125)] {
        now += step;
        service.clock.advance(Duration::from_secs(step));
        for token in tokens.all() {
            let answer = service.whoami(token).await;
            assert_eq!(answer.status, 200, "{}", answer.text);
            writes.push(answer.cost().write);
        }
        assert_eq!(tokens.last_used(&service).await, [(); 4].map(|()| at(noted)), "after {now} seconds");
    }
    assert_eq!(writes.iter().sum::<f64>(), 4.0 * 4.0, "{writes:?}");
}

#[tokio::test]
async fn introspection_updates_last_used_at_and_reading_does_not() {
    let service = Service::start_with_manual_clock().await;
    let tokens = Tokens::of(&service).await;
    let looks = async || {
        for token in tokens.all() {
            service.probe(&tokens.org, &tokens.owner, token).await;
        }
        assert_eq!(service.call(Method::GET, "/api/v1/tokens/status", &tokens.person).await.status, 200);
        tokens.last_used(&service).await
    };
    assert_eq!(looks().await, [Value::Null, Value::Null, Value::Null, Value::Null]);
    for token in tokens.all() {
        service.introspect(&tokens.owner, &json!({"token": token})).await;
    }
    // An email-verified token belongs to no organization, so introspection does not update it.
    assert_eq!(looks().await, [at(0), at(0), at(0), Value::Null]);
    let (_, stranger) = service.org_with_owner().await;
    service.clock.advance(Duration::from_secs(600));
    for token in tokens.all() {
        assert_eq!(service.introspect(&stranger, &json!({"token": token})).await, json!({"active": false}));
    }
    assert_eq!(looks().await, [at(0), at(0), at(0), Value::Null]);
}

#[tokio::test]
async fn api_key_calls_update_last_used_at() {
    let service = Service::start_with_manual_clock().await;
    let (org, owner) = service.org_with_owner().await;
    for (scope, method, path) in [
        ("org:read", Method::GET, API_KEYS.to_owned()),
        ("audit:read", Method::GET, org.audit_log("")),
        ("org:write", Method::DELETE, format!("{API_KEYS}/01KAJ8M4R2X7Z9V5T3Q1N6P8WC")),
    ] {
        service.clock.advance(Duration::from_secs(1));
        let key = service.api_key(&owner.credential, &[scope]).await;
        service.call(method, &path, &key.key).await;
        let listed = &service.api_keys(&owner.credential, "?limit=1").await["api_keys"][0];
        assert_eq!((&listed["id"], &listed["last_used_at"]), (&json!(key.id), &json!(service.clock.now())), "{scope}");
    }
}

#[tokio::test]
async fn refused_tokens_do_not_update_last_used_at() {
    let service = Service::start_with_manual_clock().await;
    let (_, owner) = service.org_with_owner().await;
    let off = service.access_token(&owner, &json!({"name": "off", "is_active": false})).await;
    let key = service.api_key(&owner.credential, &["org:read"]).await;
    service.revoke_api_key(&owner.credential, &key.id).await;
    for token in [&off.token, &key.key] {
        assert_eq!(service.whoami(token).await.status, 401);
        assert_eq!(service.introspect(&owner, &json!({"token": token})).await, json!({"active": false}));
    }
    assert_eq!(service.access_tokens(&owner).await[0]["last_used_at"], Value::Null);
    assert_eq!(service.api_keys(&owner.credential, "?status=all").await["api_keys"][0]["last_used_at"], Value::Null);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_first_uses_are_written_once() {
    let service = Service::start_with_manual_clock().await;
    let tokens = Tokens::of(&service).await;
    for token in tokens.all() {
        let answers = join_all((0..20).map(|_| service.whoami(token))).await;
        assert!(answers.iter().all(|answer| answer.status == 200));
        // Zero if the machine is so slow that no caller waits for the write.
        assert!(answers.iter().map(|answer| answer.cost().write).sum::<f64>() <= 1.0);
    }
    assert_eq!(tokens.last_used(&service).await, [(); 4].map(|()| at(0)));
}

#[tokio::test]
async fn slow_clocks_never_move_last_used_at_back() {
    let (service, faults) = Service::start_with_faults().await;
    let tokens = Tokens::of(&service).await;
    service.clock.advance(Duration::from_secs(600));
    for token in tokens.all() {
        assert_eq!(service.whoami(token).await.status, 200);
    }
    // Clocks of other functions, ten minutes, one minute and one second behind. The last one has
    // stale data.
    for behind in [600, 60, 1, 0] {
        let clock = Clock::manual(service.clock.now().minus(Duration::from_secs(behind)));
        let store = Store::new(faults.client(), TABLE, clock);
        for token in tokens.all().map(|token| Token::parse(token).unwrap()) {
            let stored = store.token(&token).await.unwrap().unwrap();
            store.record_use(token.hash(), &stored).await.unwrap();
            let mut unused = serde_json::to_value(&stored).unwrap();
            unused.as_object_mut().unwrap().remove("last_used_at");
            store.record_use(token.hash(), &serde_json::from_value(unused).unwrap()).await.unwrap();
        }
    }
    assert_eq!(tokens.last_used(&service).await, [(); 4].map(|()| at(600)));
}

#[tokio::test]
async fn late_use_does_not_restore_a_deleted_token() {
    let service = Service::start_with_manual_clock().await;
    let (_, owner) = service.org_with_owner().await;
    let access = service.access_token(&owner, &json!({"name": "relay"})).await;
    let person = service.email_token("alice@example.com").await;
    let [access_token, person_token] = [&access.token, &person].map(|token| Token::parse(token).unwrap());
    let mut uses = Vec::new();
    for token in [access_token, person_token] {
        let stored = service.store.token(&token).await.unwrap().unwrap();
        uses.push((token, stored));
    }
    // The token is read before the deletion and its use recorded after.
    assert_eq!(service.call(Method::DELETE, &access.path(), &owner.credential).await.status, 204);
    assert_eq!(service.call(Method::DELETE, "/api/v1/tokens", &person).await.status, 204);
    let before = service.table.items().await;
    for (token, stored) in uses {
        service.store.record_use(token.hash(), &stored).await.unwrap();
        assert!(service.store.token(&token).await.unwrap().is_none());
    }
    assert_eq!(service.table.items().await, before);
}

#[tokio::test]
async fn failure_to_record_use_does_not_fail_the_call() {
    let (service, faults) = Service::start_with_faults().await;
    let tokens = Tokens::of(&service).await;
    for fault in [Fault::ServerError, Fault::NoCapacity, Fault::Throttled, Fault::LostBefore, Fault::Hang] {
        // Timeouts are slow, so this fault is tested with one token.
        let tried = if fault == Fault::Hang { 1 } else { 4 };
        for token in &tokens.all()[..tried] {
            faults.arm(1, &[], Some(fault));
            let answer = service.whoami(token).await;
            let calls = faults.disarm();
            assert_eq!(answer.status, 200, "{fault:?}: {}", answer.text);
            assert_eq!(calls[..2], ["GetItem", "UpdateItem"], "{fault:?}");
        }
        faults.arm(2, &[], Some(fault));
        let answer = service.introspect(&tokens.owner, &json!({"token": tokens.key})).await;
        assert_eq!(faults.disarm()[..3], ["GetItem", "GetItem", "UpdateItem"], "{fault:?}");
        assert_eq!(answer["active"], true);
        faults.arm(1, &[Fault::ServerError], None);
        let listed = service.api_keys(&tokens.key, "").await;
        faults.disarm();
        assert_eq!(listed["api_keys"].as_array().unwrap().len(), 1);
        service.clock.advance(Duration::from_secs(60));
    }
    // The next use is recorded normally.
    for token in tokens.all() {
        assert_eq!(service.whoami(token).await.cost().write, 1.0);
    }
}
