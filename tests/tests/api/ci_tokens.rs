//! Bot tokens in use: what a CI job may do as its bot, until when, and what it leaves in the logs.

use std::collections::BTreeSet;
use std::time::Duration;

use futures::future::join;
use reqwest::Method;
use serde_json::{Value, json};
use shared::permissions::Role;
use shared::secret::Token;
use shared::store::Store;
use shared::store::members::Authority;
use shared::trust::Trust;
use tests::ci::WORKLOAD;
use tests::faults::{Fault, Faults};
use tests::management::{ACCESS_TOKENS, API_KEYS};
use tests::table::text;
use tests::upstream::Registry;
use tests::{Answer, Bot, Org, Service, operator};

const TARBALL: &str = "/npm/widgets/-/widgets-1.0.0.tgz";
const WHEEL: &str = "/pypi/files/widgets/-/packages/widgets-1.0-py3-none-any.whl";

/// How a job's token ends.
#[derive(Debug, Clone, Copy)]
enum End {
    TrustRemoved,
    TokensEnded,
    BotDeleted,
    Revoked,
}

impl End {
    const ALL: [End; 4] = [End::TrustRemoved, End::TokensEnded, End::BotDeleted, End::Revoked];

    async fn make(self, store: &Store, bot: &Bot, trust: &Trust, token: &str) {
        let operator = operator();
        match self {
            End::TrustRemoved => {
                store.remove_trust(Authority::Operator, &bot.id, &trust.id, &operator).await.unwrap();
            }
            End::TokensEnded => {
                store.end_bot_tokens(Authority::Operator, &bot.id, &operator).await.unwrap();
            }
            End::BotDeleted => assert!(store.delete_bot(&bot.id, &operator).await.unwrap()),
            End::Revoked => {
                let token = Token::parse(token).unwrap();
                let stored = store.token(&token).await.unwrap().unwrap();
                assert!(store.revoke_own_token(&stored, token.hash(), &operator).await.unwrap());
            }
        }
    }
}

async fn status(service: &Service, path: &str, token: &str) -> u16 {
    service.call(Method::GET, path, token).await.status.as_u16()
}

#[tokio::test]
async fn token_dies_at_its_next_use_everywhere() {
    let registry = Registry::with_widgets().await;
    let service = Service::start_with_registries(registry.settings()).await;
    for end in End::ALL.map(Some).into_iter().chain([None]) {
        let (org, owner) = service.org_with_owner().await;
        let bot = service.bot(&org, &[Role::Owner]).await;
        let trust = service.trust(&bot, &[Role::Owner]).await;
        let token = service.exchanged(&bot).await;
        let paths = ["/v1/whoami", API_KEYS, "/npm/widgets", TARBALL, "/pypi/simple/widgets/", WHEEL];
        for path in paths {
            assert!(status(&service, path, &token).await < 400, "{path}");
        }
        assert_eq!(service.introspect(&owner, &json!({"token": token})).await["active"], true);
        match end {
            Some(end) => end.make(&service.store, &bot, &trust, &token).await,
            None => service.clock.advance(Duration::from_secs(1_800)),
        }
        for path in paths {
            assert_eq!(status(&service, path, &token).await, 401, "{end:?} {path}");
        }
        assert_eq!(service.introspect(&owner, &json!({"token": token})).await, json!({"active": false}));
    }
}

#[tokio::test]
async fn trust_that_is_added_again_revives_no_token() {
    let service = Service::start_with_manual_clock().await;
    let (_, bot) = service.org_with_owner().await;
    let trust = service.trust(&bot, &[Role::Owner]).await;
    let token = service.exchanged(&bot).await;
    service.remove_trust(&bot, &trust.id).await;
    let again = service.trust(&bot, &[Role::Owner]).await;
    assert_eq!((&trust.claims, &trust.issuer), (&again.claims, &again.issuer));
    assert_eq!(service.whoami(&token).await.status, 401);
    assert_eq!(service.whoami(&service.exchanged(&bot).await).await.status, 200);
}

#[tokio::test]
async fn ended_tokens_are_replaced_by_new_ones() {
    let service = Service::start_with_manual_clock().await;
    let (_, bot) = service.org_with_owner().await;
    service.trust(&bot, &[]).await;
    let tokens = [service.exchanged(&bot).await, service.exchanged(&bot).await];
    service.store.end_bot_tokens(Authority::Operator, &bot.id, &operator()).await.unwrap();
    for token in &tokens {
        assert_eq!(service.whoami(token).await.status, 401);
    }
    assert_eq!(service.whoami(&service.exchanged(&bot).await).await.status, 200);
    // The bot's API key is not one of them.
    assert_eq!(service.whoami(&bot.credential).await.status, 200);
}

#[tokio::test]
async fn job_has_the_roles_that_both_bot_and_trust_have() {
    let service = Service::start_with_manual_clock().await;
    let (org, owner) = service.org_with_owner().await;
    let bot = service.bot(&org, &[Role::ApiKeyManager, Role::Manager]).await;
    service.trust(&bot, &[Role::ApiKeyManager]).await;
    let token = service.exchanged(&bot).await;
    let (keys, user_tokens) = (API_KEYS, org.org_user_tokens(""));
    assert_eq!((status(&service, keys, &token).await, status(&service, &user_tokens, &token).await), (200, 403));
    assert_eq!(service.whoami(&token).await.json()["roles"], json!(["organization/api_key_manager"]));

    let set_roles = async |roles: &[Role]| {
        service.store.set_bot_roles(&bot.id, roles, &operator()).await.unwrap().unwrap();
    };
    set_roles(&[Role::Manager]).await;
    assert_eq!((status(&service, keys, &token).await, status(&service, &user_tokens, &token).await), (403, 403));
    // A role that the bot gains is not the job's, and one that it gets back is.
    set_roles(&[Role::Owner, Role::ApiKeyManager]).await;
    assert_eq!((status(&service, keys, &token).await, status(&service, ACCESS_TOKENS, &token).await), (200, 403));
    assert_eq!(service.introspect(&owner, &json!({"token": token})).await["active"], true);
}

#[tokio::test]
async fn trust_without_roles_opens_the_registries_only() {
    let registry = Registry::with_widgets().await;
    let service = Service::start_with_registries(registry.settings()).await;
    let (org, bot) = service.org_with_owner().await;
    service.trust(&bot, &[]).await;
    let token = service.exchanged(&bot).await;
    for path in [API_KEYS, ACCESS_TOKENS, &org.org_user_tokens(""), &org.audit_log("")] {
        service.call(Method::GET, path, &token).await.assert_error(403, "FORBIDDEN");
    }
    for path in ["/npm/widgets", "/pypi/simple/widgets/", "/npm/-/whoami"] {
        assert_eq!(status(&service, path, &token).await, 200, "{path}");
    }
}

#[tokio::test]
async fn job_that_several_trusts_admit_gets_the_one_with_most_roles() {
    let service = Service::start_with_manual_clock().await;
    let (org, _) = service.org_with_owner().await;
    let bot = service.bot(&org, &[Role::ApiKeyManager, Role::Manager]).await;
    for roles in [&[][..], &[Role::ApiKeyManager, Role::Manager], &[Role::Manager]] {
        service.trust(&bot, roles).await;
    }
    let token = service.exchanged(&bot).await;
    assert_eq!(status(&service, API_KEYS, &token).await, 200);
}

#[tokio::test]
async fn installation_names_the_job_and_no_user() {
    let registry = Registry::with_widgets().await;
    let service = Service::start_with_registries(registry.settings()).await;
    let (org, bot) = service.org_with_owner().await;
    service.trust(&bot, &[]).await;
    let token = service.exchanged(&bot).await;
    let id = text(&service.whoami(&token).await.json(), "id").to_owned();
    for path in [TARBALL, WHEEL] {
        assert_eq!(status(&service, path, &token).await, 302);
    }
    let installations = service.installations(&org, &bot.credential, "").await["installations"].clone();
    let entries = installations.as_array().unwrap();
    assert_eq!(entries.len(), 2);
    for entry in entries {
        assert_eq!((&entry["user_identifier"], &entry["subject"]), (&Value::Null, &json!(WORKLOAD)), "{entry}");
        assert_eq!(entry["token_id"], id.as_str());
    }
    let request = service.request(Method::GET, &org.installations("")).header("accept", "text/csv");
    let csv = service.send(request.bearer_auth(&bot.credential)).await.text;
    let mut lines = csv.lines();
    assert!(lines.next().unwrap().ends_with(",source_ip,subject"), "{csv}");
    assert!(lines.all(|line| line.ends_with(&format!(",{WORKLOAD}"))), "{csv}");
}

#[tokio::test]
async fn guard_that_is_off_closes_the_registries_to_jobs() {
    let registry = Registry::with_widgets().await;
    let service = Service::start_with_registries(registry.settings()).await;
    let (org, bot) = service.org_with_owner().await;
    service.trust(&bot, &[Role::Owner]).await;
    service.set_guard(&org.id, false).await;
    let token = service.exchanged(&bot).await;
    for path in ["/npm/widgets", TARBALL, "/pypi/simple/widgets/", WHEEL] {
        let answer = service.call(Method::GET, path, &token).await;
        assert_eq!((answer.status.as_u16(), answer.code().as_str()), (403, "SUBSCRIPTION_REQUIRED"), "{path}");
    }
    assert_eq!(status(&service, API_KEYS, &token).await, 200);
}

#[tokio::test]
async fn npm_logout_ends_the_token() {
    let registry = Registry::with_widgets().await;
    let service = Service::start_with_registries(registry.settings()).await;
    let (org, bot) = service.org_with_owner().await;
    service.trust(&bot, &[]).await;
    let token = service.exchanged(&bot).await;
    let answer = service.call(Method::DELETE, &format!("/npm/-/user/token/{token}"), &token).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    assert_eq!(service.whoami(&token).await.status, 401);
    let entry = service.entry_of(&org, &answer).await;
    assert_eq!((text(&entry, "action"), text(&entry, "outcome")), ("bot_token.revoke", "done"));
    assert_eq!(service.call(Method::DELETE, &format!("/npm/-/user/token/{token}"), &token).await.status, 401);
}

/// The calls that create or extend something, with this expiry.
fn mints(org: &Org, name: &str, expires_at: Option<&str>) -> [(Method, String, Value); 3] {
    let user_tokens = org.org_user_tokens("");
    let identifier = format!("{name}-laptop");
    let key = json!({"name": name, "environment": "live", "scopes": ["org:read"], "expires_at": expires_at});
    [
        (Method::POST, user_tokens, json!({"user_identifier": identifier, "expires_at": expires_at})),
        (Method::POST, API_KEYS.to_owned(), key),
        (Method::POST, ACCESS_TOKENS.to_owned(), json!({"name": name, "expires_at": expires_at})),
    ]
}

#[tokio::test]
async fn what_a_job_creates_is_audited_with_bot_and_job() {
    let service = Service::start_with_manual_clock().await;
    let (org, bot) = service.org_with_owner().await;
    service.trust(&bot, &[Role::Owner]).await;
    let token = service.exchanged(&bot).await;
    for (method, path, body) in mints(&org, "made", Some("2026-11-21T10:30:00Z")) {
        let answer = service.send_json(method, &path, &token, &body).await;
        assert_eq!(answer.status, 201, "{}", answer.text);
        let entry = service.entry_of(&org, &answer).await;
        assert_eq!(entry["actor"], json!({"kind": "bot", "id": bot.id.as_str()}));
        assert_eq!(entry["workload"], WORKLOAD);
    }
    let answer = service.audit_log(&org, &bot.credential, &format!("?actor={}", bot.id)).await;
    let workloads = answer["entries"].as_array().unwrap().iter().map(|entry| entry["workload"].clone());
    // With the exchange.
    assert_eq!(workloads.collect::<Vec<_>>(), [WORKLOAD; 4]);
}

#[tokio::test]
async fn job_creates_nothing_that_outlives_its_token() {
    let service = Service::start_with_manual_clock().await;
    let (org, owner) = service.org_with_owner().await;
    let bot = service.bot(&org, &[Role::Owner]).await;
    service.trust(&bot, &[Role::Owner]).await;
    let token = service.exchanged(&bot).await;
    for expires_at in [None, Some("2026-11-21T10:30:01Z"), Some("9999-12-31T23:59:59Z")] {
        for (method, path, body) in mints(&org, "late", expires_at) {
            let answer = service.send_json(method, &path, &token, &body).await;
            answer.assert_error(403, "FORBIDDEN");
            assert!(answer.text.contains("outlive"), "{}", answer.text);
            let entry = service.entry_of(&org, &answer).await;
            assert_eq!((text(&entry, "outcome"), text(&entry, "workload")), ("refused", WORKLOAD));
        }
        service.clock.advance(Duration::from_secs(60));
    }
    assert!(service.access_tokens(&owner).await.is_empty());
    let in_time = json!({"name": "in time", "expires_at": "2026-11-21T10:30:00Z"});
    let made = service.send_json(Method::POST, ACCESS_TOKENS, &token, &in_time).await.json();
    let path = format!("{ACCESS_TOKENS}{}/", made["id"]);
    // Nor does it extend one, or give one more rights.
    let device = service.access_token(&owner, &json!({"name": "device", "is_active": false})).await;
    for (method, path, body, status) in [
        (Method::PATCH, &path, json!({"expires_at": null}), 403),
        (Method::PATCH, &path, json!({"expires_at": "2026-11-21T10:30:01Z"}), 403),
        (Method::PUT, &path, json!({"name": "in time"}), 403),
        (Method::PATCH, &path, json!({"name": "renamed", "expires_at": "2026-11-21T10:29:00Z"}), 200),
        (Method::PATCH, &device.path(), json!({"is_active": true}), 403),
        (Method::PATCH, &device.path(), json!({"access_config": {"role": "manager"}}), 403),
        (Method::PATCH, &device.path(), json!({"name": "renamed device"}), 200),
        (Method::PATCH, &device.path(), json!({"expires_at": "2026-11-22T10:00:00Z"}), 200),
    ] {
        let answer = service.send_json(method, path, &token, &body).await;
        assert_eq!(answer.status, status, "{body}: {}", answer.text);
    }
}

#[tokio::test]
async fn trust_may_allow_to_create_what_outlives_the_token() {
    let service = Service::start_with_manual_clock().await;
    let (org, bot) = service.org_with_owner().await;
    service
        .trust_with(&bot, |wanted| {
            wanted.roles = vec![Role::Owner];
            wanted.may_mint_longer = true;
        })
        .await;
    let token = service.exchanged(&bot).await;
    for (method, path, body) in mints(&org, "long", None) {
        assert_eq!(service.send_json(method, &path, &token, &body).await.status, 201, "{path}");
    }
    // The trust of the token decides, not another one of the bot.
    let plain = service.bot(&org, &[Role::Owner]).await;
    service.trust(&plain, &[Role::Owner]).await;
    let token = service.exchanged(&plain).await;
    let other = service.trust_with(&plain, |wanted| wanted.may_mint_longer = true).await;
    assert!(other.may_mint_longer);
    for (method, path, body) in mints(&org, "longer", None) {
        service.send_json(method, &path, &token, &body).await.assert_error(403, "FORBIDDEN");
    }
}

#[tokio::test]
async fn refused_mints_of_jobs_count_as_their_bots() {
    let service = Service::start_with_manual_clock().await;
    let (org, _) = service.org_with_owner().await;
    let bot = service.bot(&org, &[Role::Manager]).await;
    service.trust(&bot, &[Role::Manager]).await;
    let tokens = [service.exchanged(&bot).await, service.exchanged(&bot).await];
    let (_, path, body) = &mints(&org, "refused", None)[2];
    for n in 0..10 {
        service.post(path, &tokens[n % 2], body).await.assert_error(403, "FORBIDDEN");
    }
    for credential in [&tokens[0], &tokens[1], &bot.credential] {
        service.post(path, credential, body).await.assert_error(429, "RATE_LIMITED");
    }
}

#[tokio::test]
async fn idempotency_keys_are_the_bots_whichever_of_its_jobs_sends_them() {
    let service = Service::start_with_manual_clock().await;
    let (org, bot) = service.org_with_owner().await;
    service.trust(&bot, &[Role::Owner]).await;
    let body = json!({"user_identifier": "alice", "expires_at": "2026-11-21T10:30:00Z"});
    let mint = async |credential: &str| {
        let request = service.request(Method::POST, &org.org_user_tokens("")).bearer_auth(credential).json(&body);
        service.send(request.header("Idempotency-Key", "build-1")).await.status.as_u16()
    };
    let (first, second) = (service.exchanged(&bot).await, service.exchanged(&bot).await);
    assert_eq!((mint(&first).await, mint(&second).await, mint(&bot.credential).await), (201, 409, 409));
}

/// Makes a call, and a change at the moment when it has read everything and is about to commit.
/// `reads` are its calls of DynamoDB before its transaction.
async fn during(
    faults: &Faults,
    reads: usize,
    call: impl Future<Output = Answer>,
    change: impl Future<Output = ()>,
) -> Answer {
    faults.arm(reads, &[Fault::Held], None);
    let changing = async {
        faults.reached(reads + 1).await;
        change.await;
        faults.release();
    };
    let (answer, ()) = join(call, changing).await;
    faults.disarm();
    answer
}

/// The number of DynamoDB calls before the transaction of a call that succeeds.
async fn reads_of(faults: &Faults, call: impl Future<Output = Answer>) -> usize {
    faults.arm(0, &[], None);
    let answer = call.await;
    let calls = faults.disarm();
    assert!(answer.status.is_success(), "{}", answer.text);
    calls.iter().position(|call| call == "TransactWriteItems").unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_job_creates_while_its_token_ends_is_taken_back() {
    let (service, faults) = Service::start_with_faults().await;
    let (org, owner) = service.org_with_owner().await;
    let expires_at = Some("2026-11-21T10:30:00Z");
    let active = async || {
        let mut ids = service.listed_ids(&org, &owner, "?limit=100").await;
        ids.extend(service.all_api_keys(&owner.credential, 100, "").await);
        ids.extend(service.access_tokens(&owner).await.iter().map(|token| token["id"].to_string()));
        ids
    };
    for end in End::ALL {
        for index in 0..3 {
            let bot = service.bot(&org, &[Role::Owner]).await;
            let trust = service.trust(&bot, &[Role::Owner]).await;
            let token = service.exchanged(&bot).await;
            let call = async |name: &str| {
                let (method, path, body) = mints(&org, name, expires_at)[index].clone();
                service.send_json(method, &path, &token, &body).await
            };
            let reads = reads_of(&faults, call(&format!("before-{end:?}-{index}"))).await;
            let before = active().await;
            let ending = end.make(&service.store, &bot, &trust, &token);
            let answer = during(&faults, reads, call(&format!("during-{end:?}-{index}")), ending).await;
            answer.assert_error(401, "UNAUTHORIZED");
            assert_eq!(active().await, before, "{end:?} {index}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn change_that_a_job_asks_for_while_its_token_ends_does_not_happen() {
    let (service, faults) = Service::start_with_faults().await;
    let (org, owner) = service.org_with_owner().await;
    let device = service.access_token(&owner, &json!({"name": "device"})).await;
    for end in End::ALL {
        let bot = service.bot(&org, &[Role::Owner]).await;
        let trust = service.trust(&bot, &[Role::Owner]).await;
        let token = service.exchanged(&bot).await;
        let call = async |body: Value| service.send_json(Method::PATCH, &device.path(), &token, &body).await;
        let before = format!("before {end:?}");
        let reads = reads_of(&faults, call(json!({"name": before}))).await;
        let ending = end.make(&service.store, &bot, &trust, &token);
        let answer = during(&faults, reads, call(json!({"name": "during"})), ending).await;
        answer.assert_error(401, "UNAUTHORIZED");
        assert_eq!(service.access_tokens(&owner).await[0]["name"], before, "{end:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn token_that_is_exchanged_while_its_trust_goes_is_never_active() {
    let (service, faults) = Service::start_with_faults().await;
    for end in [End::TrustRemoved, End::TokensEnded, End::BotDeleted] {
        let (_, bot) = service.org_with_owner().await;
        let trust = service.trust(&bot, &[Role::Owner]).await;
        let exchange = async || service.exchange_claims(&bot, &service.new_claims()).await;
        let reads = reads_of(&faults, exchange()).await;
        let answer = during(&faults, reads, exchange(), end.make(&service.store, &bot, &trust, "")).await;
        // The answer crosses the change: the token that it holds is not active.
        assert_eq!(answer.status, 200, "{end:?}: {}", answer.text);
        let answer = answer.json();
        let token = text(&answer, "access_token");
        assert_eq!(service.whoami(token).await.status, 401, "{end:?}");
        if !matches!(end, End::BotDeleted) {
            service.trust(&bot, &[Role::Owner]).await;
            assert_eq!(service.whoami(token).await.status, 401, "{end:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bots_are_deleted_with_the_trusts_that_are_added_meanwhile() {
    let service = Service::start_with_manual_clock().await;
    let (org, _) = service.org_with_owner().await;
    for _ in 0..5 {
        let bot = service.bot(&org, &[Role::Owner]).await;
        service.trust(&bot, &[]).await;
        let operator = operator();
        let adding = async {
            for n in 0..5 {
                let wanted = shared::trust::Wanted {
                    issuer: service.issuer.url().to_owned(),
                    audience: "guard.example.com".to_owned(),
                    claims: vec![("project_id".to_owned(), n.to_string())],
                    ..Default::default()
                };
                let trust = wanted.try_into().unwrap();
                service.store.add_trust(Authority::Operator, &bot.id, trust, &operator, None).await.unwrap();
            }
        };
        let deleting = async { assert!(service.store.delete_bot(&bot.id, &operator).await.unwrap()) };
        join(adding, deleting).await;
        let items = service.table.items().await;
        let left = items.iter().filter(|item| text(item, "pk") == format!("BOT#{}", bot.id)).count();
        assert_eq!(left, 0);
    }
}

#[tokio::test]
async fn ends_of_tokens_are_audited() {
    let service = Service::start_with_manual_clock().await;
    let (org, bot) = service.org_with_owner().await;
    let trust = service.trust(&bot, &[]).await;
    service.store.end_bot_tokens(Authority::Operator, &bot.id, &operator()).await.unwrap();
    service.remove_trust(&bot, &trust.id).await;
    let entries = service.table.audit_entries(&org.id).await;
    let of_bot = entries.iter().filter(|entry| entry["target"]["id"] == bot.id.as_str());
    let done: BTreeSet<(&str, &str)> = of_bot.map(|entry| (text(entry, "action"), text(entry, "detail"))).collect();
    let id = trust.id.as_str();
    let expected = [("bot.create", ""), ("bot.add_trust", id), ("bot.end_tokens", ""), ("bot.remove_trust", id)];
    assert_eq!(done, expected.into());
}
