//! Rotation of bots' API keys, and what their use leaves: when they were last used, and the end of
//! what they replace.

use std::time::Duration;

use futures::future::join_all;
use reqwest::Method;
use serde_json::{Value, json};
use shared::permissions::Role;
use shared::store::bots::StoredBot;
use tests::faults::Fault;
use tests::table::text;
use tests::{Answer, Bot, Org, Service, operator};

const HOUR: Duration = Duration::from_secs(60 * 60);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

struct Setup<'a> {
    service: &'a Service,
    org: Org,
    owner: Bot,
    bot: Bot,
}

impl<'a> Setup<'a> {
    async fn new(service: &'a Service) -> Self {
        let (org, owner) = service.org_with_owner().await;
        let bot = service.bot(&org, &[Role::Owner]).await;
        Self { service, org, owner, bot }
    }

    fn path(&self) -> String {
        format!("/v1/o/{}/bots/{}/rotate-key", self.org.id, self.bot.id)
    }

    async fn try_rotate(&self, by: &str, body: Value) -> Answer {
        self.service.post(&self.path(), by, &body).await
    }

    /// Rotates the bot's key as another bot.
    async fn rotate(&self, body: Value) -> String {
        let answer = self.try_rotate(&self.owner.credential, body).await;
        assert_eq!(answer.status, 201, "{}", answer.text);
        self.credential(&answer)
    }

    fn credential(&self, answer: &Answer) -> String {
        assert_eq!(text(&answer.json(), "bot_id"), self.bot.id.as_str());
        format!("{}:{}", text(&answer.json(), "api_key"), self.bot.id)
    }

    async fn works(&self, credential: &str) -> bool {
        let answer = self.service.whoami(credential).await;
        assert!([200, 401].contains(&answer.status.as_u16()), "{}", answer.text);
        answer.status == 200
    }

    async fn stored(&self) -> StoredBot {
        self.service.store.bot(&self.bot.id).await.unwrap().unwrap()
    }

    /// When the newest key was last used, and the one before it.
    async fn last_used(&self) -> Vec<Option<String>> {
        let bot = self.stored().await;
        let uses = self.service.store.bot_key_uses(std::slice::from_ref(&bot)).await.unwrap();
        bot.keys.iter().map(|key| uses.of(key).map(|at| at.to_string())).collect()
    }
}

#[tokio::test]
async fn rotation_without_overlap_ends_the_old_key_at_once() {
    let service = Service::start_with_manual_clock().await;
    let setup = Setup::new(&service).await;
    let answer = setup.try_rotate(&setup.owner.credential, json!({})).await;
    assert_eq!(answer.status, 201, "{}", answer.text);
    let body = answer.json();
    assert_eq!((&body["expires_at"], &body["previous_key_expires_at"]), (&Value::Null, &Value::Null));
    assert!(!setup.works(&setup.bot.credential).await && setup.works(&setup.credential(&answer)).await);
    let entries = service.table.audit_entries(&setup.org.id).await;
    let [entry] = &entries.iter().filter(|entry| entry["action"] == "bot.rotate_key").collect::<Vec<_>>()[..] else {
        panic!("not one entry")
    };
    assert_eq!(
        (text(&entry["target"], "id"), text(&entry["actor"], "id")),
        (setup.bot.id.as_str(), setup.owner.id.as_str())
    );
    assert!(text(entry, "detail").contains(text(&body, "key_id")));
}

#[tokio::test]
async fn both_keys_work_until_the_overlap_ends() {
    let service = Service::start_with_manual_clock().await;
    let setup = Setup::new(&service).await;
    let new = setup.rotate(json!({"overlap": "24h"})).await;
    assert!(setup.works(&new).await && setup.works(&setup.bot.credential).await);
    service.clock.advance(DAY - Duration::from_secs(1));
    assert!(setup.works(&new).await && setup.works(&setup.bot.credential).await);
    service.clock.advance(Duration::from_secs(1));
    assert!(setup.works(&new).await && !setup.works(&setup.bot.credential).await);
}

#[tokio::test]
async fn first_use_of_the_new_key_ends_the_old_one() {
    let service = Service::start_with_manual_clock().await;
    for by_whoami in [true, false] {
        let setup = Setup::new(&service).await;
        let new = setup.rotate(json!({"until_first_use": true})).await;
        service.clock.advance(7 * DAY - HOUR);
        assert!(setup.works(&setup.bot.credential).await);
        let list = async |credential: &str| {
            service.call(Method::GET, &setup.org.org_user_tokens(""), credential).await.status.as_u16()
        };
        assert_eq!(list(&setup.bot.credential).await, 200);
        match by_whoami {
            true => assert!(setup.works(&new).await),
            false => assert_eq!(list(&new).await, 200),
        }
        assert_eq!(list(&setup.bot.credential).await, 401);
        assert!(!setup.works(&setup.bot.credential).await && setup.works(&new).await);
        // The one that ended is not rotated again: the new one is.
        let next = setup.rotate(json!({"until_first_use": true})).await;
        assert!(setup.works(&new).await && !setup.works(&setup.bot.credential).await);
        assert!(setup.works(&next).await && !setup.works(&new).await);
    }
}

#[tokio::test]
async fn first_use_that_cannot_be_written_is_503() {
    let (service, faults) = Service::start_with_faults().await;
    let setup = Setup::new(&service).await;
    let new = setup.rotate(json!({"until_first_use": true})).await;
    // The bot was read.
    faults.arm(1, &[], Some(Fault::NoCapacity));
    let answer = service.whoami(&new).await;
    faults.disarm();
    answer.assert_error(503, "SERVICE_UNAVAILABLE");
    assert!(setup.works(&setup.bot.credential).await);
    assert!(setup.works(&new).await && !setup.works(&setup.bot.credential).await);
}

#[tokio::test]
async fn bot_that_loses_the_answer_rotates_its_own_key_again() {
    let service = Service::start_with_manual_clock().await;
    let setup = Setup::new(&service).await;
    let own = &setup.bot.credential;
    let body = || json!({"until_first_use": true});
    let lost = setup.try_rotate(own, body()).await;
    assert_eq!(lost.status, 201, "{}", lost.text);
    service.clock.advance(HOUR);
    let kept = setup.try_rotate(own, body()).await;
    assert_eq!(kept.status, 201, "{}", kept.text);
    let (lost, kept) = (setup.credential(&lost), setup.credential(&kept));
    assert!(!setup.works(&lost).await && setup.works(own).await);
    assert!(setup.works(&kept).await && !setup.works(own).await && !setup.works(&lost).await);
    assert_eq!(setup.stored().await.keys.len(), 2);
}

#[tokio::test]
async fn key_that_revokes_itself_was_used() {
    let service = Service::start_with_manual_clock().await;
    let setup = Setup::new(&service).await;
    let new = setup.rotate(json!({"until_first_use": true})).await;
    assert_eq!(service.call(Method::DELETE, "/v1/tokens/self", &new).await.status, 204);
    assert!(!setup.works(&new).await && !setup.works(&setup.bot.credential).await);
    assert!(setup.stored().await.keys.is_empty());
    let next = setup.rotate(json!({})).await;
    assert!(setup.works(&next).await);
}

#[tokio::test]
async fn leaked_new_key_leaves_the_old_one_unless_it_was_used() {
    let service = Service::start_with_manual_clock().await;
    for was_used in [false, true] {
        let setup = Setup::new(&service).await;
        let new = setup.rotate(json!({"until_first_use": true, "overlap": "24h"})).await;
        if was_used {
            assert!(setup.works(&new).await);
        }
        let report = json!({"tokens": [{"token": new, "url": "https://example.com/a"}]});
        let answer = service.send(service.request(Method::POST, "/v1/tokens/leaked").json(&report)).await;
        assert_eq!(answer.status, 202, "{}", answer.text);
        assert_eq!(setup.works(&setup.bot.credential).await, !was_used);
        // No rotation prolongs what is left.
        let next = setup.rotate(json!({"overlap": "7d"})).await;
        assert_eq!(setup.works(&setup.bot.credential).await, !was_used);
        service.clock.advance(DAY);
        assert!(!setup.works(&setup.bot.credential).await && setup.works(&next).await);
        service.clock.advance(60 * Duration::from_secs(1));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_twenty_rotations_at_once_one_wins() {
    let service = Service::start().await;
    for body in [json!({}), json!({"until_first_use": true})] {
        let setup = Setup::new(&service).await;
        // With open connections, so that all come in before the first is carried out.
        join_all((0..20).map(|_| setup.works(&setup.owner.credential))).await;
        let answers = join_all((0..20).map(|_| setup.try_rotate(&setup.owner.credential, body.clone()))).await;
        let (won, lost): (Vec<_>, Vec<_>) = answers.iter().partition(|answer| answer.status == 201);
        assert_eq!(won.len(), 1);
        for answer in lost {
            answer.assert_error(409, "CONFLICT");
        }
        assert!(setup.works(&setup.credential(won[0])).await && !setup.works(&setup.bot.credential).await);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn first_use_and_repeated_rotation_at_once_leave_one_key() {
    let service = Service::start().await;
    for _ in 0..5 {
        let setup = Setup::new(&service).await;
        let new = setup.rotate(json!({"until_first_use": true})).await;
        let (again, _) = futures::join!(
            setup.try_rotate(&setup.owner.credential, json!({"until_first_use": true})),
            service.whoami(&new)
        );
        assert_eq!(again.status, 201, "{}", again.text);
        assert!(setup.works(&setup.credential(&again)).await);
        assert!(!setup.works(&new).await && !setup.works(&setup.bot.credential).await);
    }
}

#[tokio::test]
async fn only_owners_rotate_and_no_ci_job_does() {
    let service = Service::start_with_manual_clock().await;
    let setup = Setup::new(&service).await;
    let job = service.job(&setup.owner, &[Role::Owner]).await;
    let manager = service.bot(&setup.org, &[Role::Manager]).await;
    let api_key = service.api_key(&setup.owner.credential, &["org:write"]).await.key;
    for credential in [&job, &manager.credential, &api_key] {
        setup.try_rotate(credential, json!({})).await.assert_error(403, "FORBIDDEN");
    }
    let other = Setup::new(&service).await;
    setup.try_rotate(&other.owner.credential, json!({})).await.assert_error(403, "FORBIDDEN");
    for id in [other.bot.id.as_str(), "BT01KAJ8M4R2X7Z9V5T3Q1N6P8WC", "nonsense"] {
        let path = format!("/v1/o/{}/bots/{id}/rotate-key", setup.org.id);
        service.post(&path, &setup.owner.credential, &json!({})).await.assert_error(404, "NOT_FOUND");
    }
    assert!(setup.works(&setup.bot.credential).await && other.works(&other.bot.credential).await);
    service.store.set_suspended(&setup.org.id, true, &operator()).await.unwrap().unwrap();
    setup.try_rotate(&setup.owner.credential, json!({})).await.assert_error(403, "SUBSCRIPTION_REQUIRED");
}

#[tokio::test]
async fn bad_input_names_its_field() {
    let service = Service::start_with_manual_clock().await;
    let setup = Setup::new(&service).await;
    for (body, field) in [
        (json!({"overlap": "8d"}), "overlap"),
        (json!({"overlap": 3600}), "overlap"),
        (json!({"until_first_use": "yes"}), "until_first_use"),
        (json!({"expires_at": "2026-11-21T10:00:00Z"}), "expires_at"),
        (json!({"key": "x"}), "key"),
    ] {
        setup.try_rotate(&setup.owner.credential, body).await.assert_invalid(field);
    }
    assert!(setup.works(&setup.bot.credential).await);
}

#[tokio::test]
async fn idempotency_key_makes_one_key() {
    let service = Service::start_with_manual_clock().await;
    let setup = Setup::new(&service).await;
    let rotate = async || {
        let request = service.request(Method::POST, &setup.path()).bearer_auth(&setup.owner.credential);
        service.send(request.header("idempotency-key", "one").json(&json!({"until_first_use": true}))).await
    };
    let first = rotate().await;
    assert_eq!(first.status, 201, "{}", first.text);
    let repeat = rotate().await;
    repeat.assert_error(409, "CONFLICT");
    assert!(repeat.text.contains(first.json()["key_id"].as_str().unwrap()), "{}", repeat.text);
    assert!(setup.works(&setup.credential(&first)).await);
}

#[tokio::test]
async fn expired_key_is_401_and_successors_inherit_its_end() {
    let service = Service::start_with_manual_clock().await;
    let setup = Setup::new(&service).await;
    let first = setup.rotate(json!({"expires_at": "2026-11-21T12:00:00Z"})).await;
    let second = setup.rotate(json!({"overlap": "7d"})).await;
    // The overlap never extends the old key's life.
    service.clock.advance(2 * HOUR - Duration::from_secs(1));
    assert!(setup.works(&first).await && setup.works(&second).await);
    service.clock.advance(Duration::from_secs(1));
    assert!(!setup.works(&first).await && !setup.works(&second).await);
}

#[tokio::test]
async fn rotation_of_an_expired_key_must_say_when_the_new_one_expires() {
    let service = Service::start_with_manual_clock().await;
    for (given, said) in [(Value::Null, Value::Null), (json!("2026-12-01T00:00:00Z"), json!("2026-12-01T00:00:00Z"))] {
        let setup = Setup::new(&service).await;
        let soon = service.clock.now().plus(HOUR).to_string();
        let expired = setup.rotate(json!({"expires_at": soon})).await;
        service.clock.advance(HOUR);
        let before = setup.stored().await;
        for body in [json!({}), json!({"overlap": "24h"}), json!({"until_first_use": true})] {
            let refused = setup.try_rotate(&setup.owner.credential, body).await;
            refused.assert_invalid("expires_at");
            assert!(refused.text.contains("must be set: the key that is replaced has expired"), "{}", refused.text);
        }
        assert_eq!(setup.stored().await, before);
        let answer = setup.try_rotate(&setup.owner.credential, json!({"expires_at": given})).await;
        assert_eq!((answer.status.as_u16(), &answer.json()["expires_at"]), (201, &said), "{}", answer.text);
        assert!(setup.works(&setup.credential(&answer)).await && !setup.works(&expired).await);
    }
}

#[tokio::test]
async fn successor_that_expired_unused_stands_in_nobodys_way() {
    let service = Service::start_with_manual_clock().await;
    for by_itself in [true, false] {
        let setup = Setup::new(&service).await;
        let old = setup.bot.credential.clone();
        let by = if by_itself { &old } else { &setup.owner.credential };
        let soon = service.clock.now().plus(HOUR).to_string();
        // The answer is lost.
        let lost = setup.try_rotate(by, json!({"until_first_use": true, "expires_at": soon})).await;
        assert_eq!(lost.status, 201, "{}", lost.text);
        service.clock.advance(DAY);
        let answer = setup.try_rotate(by, json!({"until_first_use": true})).await;
        assert_eq!((answer.status.as_u16(), &answer.json()["expires_at"]), (201, &Value::Null), "{}", answer.text);
        assert!(setup.works(&old).await, "{by_itself}");
        assert!(setup.works(&setup.credential(&answer)).await && !setup.works(&old).await, "{by_itself}");
    }
}

#[tokio::test]
async fn last_use_is_written_to_the_keys_item_at_most_every_five_minutes() {
    let service = Service::start_with_manual_clock().await;
    let (org, _) = service.org_with_owner().await;
    let bot = service.unused_bot(&org, &[Role::Owner]).await;
    let setup = Setup { service: &service, org, owner: bot.clone(), bot };
    assert_eq!(setup.last_used().await, [None]);
    let mut writes = Vec::new();
    for (step, noted) in [(5, "10:00:05"), (60, "10:00:05"), (239, "10:00:05"), (1, "10:05:05"), (299, "10:05:05")] {
        service.clock.advance(Duration::from_secs(step));
        let answer = service.call(Method::GET, "/v1/api-keys", &setup.bot.credential).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
        writes.push(answer.cost().write);
        assert_eq!(setup.last_used().await, [Some(format!("2026-11-21T{noted}Z"))]);
    }
    assert_eq!(writes, [1.0, 0.0, 0.0, 1.0, 0.0]);
    // The bot's item did not change.
    assert_eq!(setup.stored().await.revision, 0);
}

#[tokio::test]
async fn use_that_cannot_be_recorded_and_key_without_an_item_are_answered() {
    let (service, faults) = Service::start_with_faults().await;
    let org = service.org().await;
    let bot = service.unused_bot(&org, &[Role::Owner]).await;
    faults.arm(1, &[], Some(Fault::NoCapacity));
    let answer = service.whoami(&bot.credential).await;
    faults.disarm();
    assert_eq!(answer.status, 200, "{}", answer.text);
    // As version 0.1 has left it, before `guardctl migrate`.
    let old = service.unused_bot(&org, &[Role::Owner]).await;
    for item in service.table.items().await {
        if item["kind"] == "bot_api_key" && text(&item, "bot_id") == old.id.as_str() {
            service.table.delete(text(&item, "pk"), text(&item, "sk")).await;
        }
    }
    assert_eq!(service.whoami(&old.credential).await.status, 200);
    let is_of_it = |item: &Value| text(item, "kind") == "bot_api_key" && text(item, "bot_id") == old.id.as_str();
    assert!(!service.table.items().await.iter().any(is_of_it));
}
