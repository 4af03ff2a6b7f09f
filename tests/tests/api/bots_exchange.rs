//! `POST /bots/exchange`: who gets a bot token for an ID token, and what others are told.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use futures::future::join_all;
use reqwest::Method;
use serde_json::{Value, json};
use shared::app::Limits;
use shared::ids::BotId;
use shared::oidc::{Reason, Workloads};
use shared::permissions::Role;
use shared::store::rate_limits::FAILED_EXCHANGES_PER_MINUTE;
use tests::ci::{EXCHANGE, WORKLOAD};
use tests::issuer::{AUDIENCE, FakeIssuer, METADATA, OTHER_RSA, sign_with};
use tests::table::text;
use tests::upstream::{Registry, Reply};
use tests::{Answer, Bot, Org, Service, operator, unlimited};

use crate::oidc::hostile;

const MINUTE: Duration = Duration::from_secs(60);

/// A service with an owner bot that trusts the jobs of [`FakeIssuer::workload`].
async fn service() -> (Service, Org, Bot) {
    let service = Service::start_with_manual_clock().await;
    let (org, bot) = service.org_with_owner().await;
    service.trust(&bot, &[Role::Owner]).await;
    (service, org, bot)
}

/// Claims with one of them changed, or removed if the value is `null`.
fn with(mut claims: Value, name: &str, value: Value) -> Value {
    match value {
        Value::Null => drop(claims.as_object_mut().unwrap().remove(name)),
        value => claims[name] = value,
    }
    claims
}

/// Asserts this error, whose sentence is also where the vendor's action reads it.
#[track_caller]
fn assert_refused(answer: &Answer, status: u16, code: &str) {
    answer.assert_error(status, code);
    let body = answer.json();
    assert_eq!(body["message"], body["error"]["message"], "{body}");
    assert_eq!(body.as_object().unwrap().len(), 2, "{body}");
}

/// What a caller sees of an answer, except what is new in each.
fn bytes(answer: &Answer) -> (u16, String, Vec<(String, String)>) {
    let changes = ["date", "x-request-id", "x-test-cost"];
    let headers = answer.headers.iter().filter(|(name, _)| !changes.contains(&name.as_str()));
    let headers = headers.map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned())).collect();
    (answer.status.as_u16(), answer.text.replace(answer.header("x-request-id"), ""), headers)
}

/// The audit entries of refused exchanges.
async fn refusals(service: &Service, org: &Org) -> Vec<Value> {
    let mut entries = service.table.audit_entries(&org.id).await;
    entries.retain(|entry| entry["action"] == "bot.exchange" && entry["outcome"] == "refused");
    entries
}

#[tokio::test]
async fn id_token_is_exchanged_for_a_bot_token() {
    let (service, org, bot) = service().await;
    let answer = service.exchange_claims(&bot, &service.new_claims()).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    let body = answer.json();
    let token = text(&body, "access_token");
    assert!(token.starts_with("tg_bot_") && token.len() == 49, "{}", token.len());
    assert_eq!(body, json!({"access_token": token, "token_type": "Bearer", "expires_in": 1_800}));
    assert_eq!(answer.header("cache-control"), "no-store");

    let principal = service.whoami(token).await.json();
    let id = text(&principal, "id");
    let expected = json!({
        "kind": "bot_token",
        "id": id,
        "org_id": org.id.as_str(),
        "bot_id": bot.id.as_str(),
        "subject": WORKLOAD,
        "roles": ["organization/owner"],
        "expires_at": "2026-11-21T10:30:00Z",
    });
    assert_eq!(principal, expected);
    let introspected = service.introspect(&bot, &json!({"token": token})).await;
    for (name, value) in [
        ("active", json!(true)),
        ("token_type", json!("bot_token")),
        ("id", json!(id)),
        ("bot_id", json!(bot.id.as_str())),
        ("subject", json!(WORKLOAD)),
        ("sub", json!(format!("bot_token:{id}"))),
    ] {
        assert_eq!(introspected[name], value, "{name}: {introspected}");
    }

    let entry = service.entry_of(&org, &answer).await;
    assert_eq!((&entry["action"], &entry["outcome"]), (&json!("bot.exchange"), &json!("done")));
    assert_eq!(entry["actor"], json!({"kind": "bot", "id": bot.id.as_str()}));
    assert_eq!(entry["target"], json!({"kind": "bot_token", "id": id}));
    assert_eq!(entry["workload"], WORKLOAD);
}

#[tokio::test]
async fn token_lives_as_long_as_asked_for_within_its_bounds() {
    let (service, _, bot) = service().await;
    let exchange = async |expires_in: Value| {
        let id_token = service.issuer.sign(&service.new_claims());
        service.exchange(&json!({"bot_id": bot.id.as_str(), "id_token": id_token, "expires_in": expires_in})).await
    };
    for (expires_in, lives) in [(json!(60), 60), (json!(86_400), 86_400), (Value::Null, 1_800)] {
        let answer = exchange(expires_in).await.json();
        assert_eq!(answer["expires_in"], lives);
        let ends = service.clock.now().plus(Duration::from_secs(lives)).to_string();
        assert_eq!(service.whoami(text(&answer, "access_token")).await.json()["expires_at"], ends);
    }
    for expires_in in [json!(59), json!(86_401), json!(0), json!(-60), json!("1800"), json!(1_800.5), json!(u64::MAX)] {
        let answer = exchange(expires_in.clone()).await;
        assert_refused(&answer, 400, "BAD_REQUEST");
        answer.assert_invalid("expires_in");
    }
}

#[tokio::test]
async fn malformed_requests_name_the_field_and_not_its_value() {
    let (service, _, bot) = service().await;
    let id_token = service.issuer.sign(&service.new_claims());
    let (id, good) = (bot.id.as_str(), id_token.as_str());
    for (body, field) in [
        (json!({"id_token": good}), "bot_id"),
        (json!({"bot_id": id.to_lowercase(), "id_token": good}), "bot_id"),
        (json!({"bot_id": "ci", "id_token": good}), "bot_id"),
        (json!({"bot_id": 7, "id_token": good}), "bot_id"),
        (json!({"bot_id": id}), "id_token"),
        (json!({"bot_id": id, "id_token": null}), "id_token"),
        (json!({"bot_id": id, "id_token": [good]}), "id_token"),
        (json!({"bot_id": id, "id_token": good, "audience": "a"}), "audience"),
    ] {
        let answer = service.exchange(&body).await;
        assert_refused(&answer, 400, "BAD_REQUEST");
        answer.assert_invalid(field);
        assert!(!answer.text.contains(good), "{}", answer.text);
    }
    let answer = service.send(service.request(Method::POST, &format!("{EXCHANGE}?audience=a")).json(&json!({}))).await;
    assert_refused(&answer, 400, "BAD_REQUEST");
    // None of them has used up the ID token.
    assert_eq!(service.exchange(&json!({"bot_id": id, "id_token": good})).await.status, 200);
}

#[tokio::test]
async fn every_error_of_the_path_has_its_sentence_where_ci_reads_it() {
    let (service, ..) = service().await;
    let request = |method: Method, path: &str| service.request(method, path);
    let json_body =
        |body: String| request(Method::POST, EXCHANGE).header("content-type", "application/json").body(body);
    for (request, status, code) in [
        (request(Method::GET, EXCHANGE), 405, "METHOD_NOT_ALLOWED"),
        (request(Method::DELETE, EXCHANGE), 405, "METHOD_NOT_ALLOWED"),
        (request(Method::POST, "/bots/exchange/"), 404, "NOT_FOUND"),
        (request(Method::POST, EXCHANGE).body("bot_id=x"), 415, "UNSUPPORTED_MEDIA_TYPE"),
        (json_body("{".to_owned()), 400, "BAD_REQUEST"),
        (json_body("[]".to_owned()), 400, "BAD_REQUEST"),
        (json_body(json!({"id_token": "a".repeat(16_384)}).to_string()), 413, "PAYLOAD_TOO_LARGE"),
    ] {
        assert_refused(&service.send(request).await, status, code);
    }
    let (faulty, faults) = Service::start_with_faults().await;
    let (_, bot) = faulty.org_with_owner().await;
    faulty.trust(&bot, &[]).await;
    faults.arm(0, &[], Some(tests::faults::Fault::LostBefore));
    let answer = faulty.exchange_claims(&bot, &faulty.new_claims()).await;
    faults.disarm();
    assert_refused(&answer, 503, "SERVICE_UNAVAILABLE");
}

#[tokio::test]
async fn hostile_id_tokens_are_refused_with_the_same_bytes_whether_the_bot_exists_or_not() {
    let (service, org, bot) = service().await;
    let unknown = BotId::new(&service.clock).unwrap();
    let before = service.table.items_without_audit().await.len();
    let mut rows = hostile(&service.issuer);
    assert!(rows.len() >= 60, "{}", rows.len());
    let mut seen = BTreeSet::new();
    for index in 0..rows.len() {
        for id in [&bot.id, &unknown] {
            // An unknown key is looked up once a minute, and a minute takes 300 failures.
            if rows[index].2 == Reason::UnknownKey || index % 100 == 0 {
                service.clock.advance(MINUTE);
                rows = hostile(&service.issuer);
            }
            let (what, id_token, _) = &rows[index];
            if id_token.len() > 16_000 {
                continue; // Larger than any body.
            }
            let answer = service.exchange(&json!({"bot_id": id.as_str(), "id_token": id_token})).await;
            assert_refused(&answer, 401, "UNAUTHORIZED");
            assert!(answer.header("www-authenticate").contains("invalid_token"), "{what}");
            seen.insert(bytes(&answer));
        }
    }
    assert_eq!(seen.len(), 1, "{seen:#?}");
    // Nothing is left but the counters of failures, and nobody is audited.
    let mut items = service.table.items_without_audit().await;
    items.retain(|item| !text(item, "pk").starts_with("EXCHANGES_FAILED#"));
    assert_eq!(items.len(), before);
    assert!(refusals(&service, &org).await.is_empty());
}

#[tokio::test]
async fn issuer_that_is_not_allowed_is_refused_like_a_bad_token() {
    let (service, _, bot) = service().await;
    let other = FakeIssuer::start_with(service.clock.clone()).await;
    let bad = service.exchange(&json!({"bot_id": bot.id.as_str(), "id_token": "a.b.c"})).await;
    let foreign =
        service.exchange(&json!({"bot_id": bot.id.as_str(), "id_token": other.sign(&other.workload())})).await;
    assert_eq!(bytes(&foreign), bytes(&bad));
    assert_eq!(other.take_fetches(), 0);
    // A deployment without issuers accepts none.
    let closed = Service::start_with_workloads(
        Workloads::new([], vec![AUDIENCE.to_owned()], &service.clock).unwrap(),
        service.clock.clone(),
    );
    let closed = closed.await;
    let (_, bot) = closed.org_with_owner().await;
    closed.trust(&bot, &[]).await;
    assert_eq!(bytes(&closed.exchange_claims(&bot, &closed.new_claims()).await), bytes(&bad));
}

#[tokio::test]
async fn bots_that_do_not_trust_a_job_are_told_from_no_other() {
    let (service, org, _) = service().await;
    let bot = async || service.bot(&org, &[Role::Owner]).await;
    let (untrusting, other, deleted, suspended) =
        (bot().await, bot().await, bot().await, service.org_with_owner().await);
    service
        .trust_with(&other, |wanted| wanted.claims = vec![("repository_owner_id".to_owned(), "124".to_owned())])
        .await;
    service.trust(&deleted, &[]).await;
    assert!(service.store.delete_bot(&deleted.id, &operator()).await.unwrap());
    service.store.set_suspended(&suspended.0.id, true, &operator()).await.unwrap().unwrap();
    let unknown = BotId::new(&service.clock).unwrap();
    let mut seen = BTreeSet::new();
    for id in [&untrusting.id, &other.id, &deleted.id, &suspended.1.id, &unknown] {
        let id_token = service.issuer.sign(&service.new_claims());
        let answer = service.exchange(&json!({"bot_id": id.as_str(), "id_token": id_token})).await;
        assert_refused(&answer, 403, "FORBIDDEN");
        seen.insert(bytes(&answer));
    }
    assert_eq!(seen.len(), 1, "{seen:#?}");
}

#[tokio::test]
async fn refusals_for_trust_take_a_multiple_of_their_time() {
    let step = Duration::from_millis(400);
    let limits = Limits { exchange_refusal_time: step, ..unlimited() };
    let service = Service::start_with(tests::manual_clock(), limits).await;
    let (_, bot) = service.org_with_owner().await;
    let unknown = BotId::new(&service.clock).unwrap();
    for id in [&bot.id, &unknown] {
        let body = json!({"bot_id": id.as_str(), "id_token": service.issuer.sign(&service.new_claims())});
        let started = Instant::now();
        assert_refused(&service.exchange(&body).await, 403, "FORBIDDEN");
        assert!(started.elapsed() >= step, "{:?}", started.elapsed());
    }
}

#[tokio::test]
async fn job_must_match_a_trust_in_everything() {
    let service = Service::start_with_manual_clock().await;
    let (org, bot) = service.org_with_owner().await;
    let github = [("repository_owner_id", "123"), ("repository", "acme/widgets"), ("ref", "refs/heads/release/*")];
    service
        .trust_with(&bot, |wanted| {
            wanted.claims = github.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
            wanted.subject_claim = Some("job".to_owned());
        })
        .await;
    let good = || {
        let claims = service.new_claims();
        let claims = with(claims, "repository", json!("acme/widgets"));
        let claims = with(claims, "ref", json!("refs/heads/release/1.0"));
        with(claims, "job", json!("build"))
    };
    let answer = service.exchange_claims(&bot, &good()).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    let token = answer.json()["access_token"].as_str().unwrap().to_owned();
    assert_eq!(service.whoami(&token).await.json()["subject"], "build");

    for (row, (name, value)) in [
        ("repository_owner_id", json!("124")),
        ("repository_owner_id", json!(123)),
        ("repository_owner_id", json!(["123"])),
        ("repository_owner_id", Value::Null),
        ("repository_owner_id", json!("123 ")),
        ("repository", json!("acme/widgets2")),
        ("repository", json!("Acme/widgets")),
        ("repository", json!("evil/widgets")),
        ("ref", json!("refs/heads/release")),
        ("ref", json!("refs/heads/release/")),
        ("ref", json!("refs/heads/releases/1.0")),
        ("ref", json!("refs/heads/main")),
        ("ref", json!({"refs": "heads/release/1.0"})),
        ("job", Value::Null),
        ("job", json!("")),
        ("job", json!("\u{7}")),
        ("job", json!(7)),
        ("event_name", json!("pull_request_target")),
    ]
    .into_iter()
    .enumerate()
    {
        // A workload of its own, so that each is audited.
        let workload = format!("job {row}");
        let claims = with(with(good(), "sub", json!(workload)), name, value.clone());
        let answer = service.exchange_claims(&bot, &claims).await;
        assert_refused(&answer, 403, "FORBIDDEN");
        let entry = service.entry_of(&org, &answer).await;
        assert_eq!(entry["outcome"], "refused");
        assert_eq!((text(&entry, "detail"), text(&entry, "workload")), (name, workload.as_str()), "{value}");
        assert_eq!(entry["actor"], json!({"kind": "bot", "id": bot.id.as_str()}));
    }
    for event in [json!("push"), json!("pull_request"), json!(["pull_request_target"])] {
        let claims = with(good(), "event_name", event);
        assert_eq!(service.exchange_claims(&bot, &claims).await.status, 200);
    }
}

#[tokio::test]
async fn pull_request_target_is_refused_unless_the_trust_names_it() {
    let (service, org, bot) = service().await;
    let claims = with(service.new_claims(), "event_name", json!("pull_request_target"));
    assert_refused(&service.exchange_claims(&bot, &claims).await, 403, "FORBIDDEN");
    assert_eq!(refusals(&service, &org).await[0]["detail"], "event_name");
    service
        .trust_with(&bot, |wanted| {
            wanted.claims.push(("event_name".to_owned(), "pull_request_target".to_owned()));
        })
        .await;
    // The refusal has not used it up.
    assert_eq!(service.exchange_claims(&bot, &claims).await.status, 200);
    assert_eq!(service.exchange_claims(&bot, &service.new_claims()).await.status, 200);
}

#[tokio::test]
async fn trust_names_its_issuer_and_its_audience() {
    let clock = tests::manual_clock();
    let (one, two) = (FakeIssuer::start_with(clock.clone()).await, FakeIssuer::start_with(clock.clone()).await);
    let audiences = vec![AUDIENCE.to_owned(), "npm.example.com".to_owned()];
    let workloads = Workloads::new([one.issuer(), two.issuer()], audiences, &clock).unwrap();
    let service = Service::start_with_workloads(workloads, clock).await;
    let (org, bot) = service.org_with_owner().await;
    service.trust_with(&bot, |wanted| wanted.issuer = one.url().to_owned()).await;
    let exchange = async |issuer: &FakeIssuer, claims: &Value| {
        service.exchange(&json!({"bot_id": bot.id.as_str(), "id_token": issuer.sign(claims)})).await
    };
    assert_refused(&exchange(&two, &two.workload()).await, 403, "FORBIDDEN");
    let elsewhere = with(one.workload(), "aud", json!("npm.example.com"));
    let elsewhere = with(elsewhere, "sub", json!("elsewhere"));
    assert_refused(&exchange(&one, &elsewhere).await, 403, "FORBIDDEN");
    let why: BTreeSet<String> =
        refusals(&service, &org).await.iter().map(|entry| text(entry, "detail").to_owned()).collect();
    assert_eq!(why, ["aud", "iss"].map(str::to_owned).into());
    assert_eq!(exchange(&one, &with(elsewhere, "aud", json!(["x", AUDIENCE, "npm.example.com"]))).await.status, 200);

    // IDs of tokens are each issuer's own.
    service.trust_with(&bot, |wanted| wanted.issuer = two.url().to_owned()).await;
    for issuer in [&one, &two] {
        let claims = with(issuer.workload(), "jti", json!("shared"));
        assert_eq!(exchange(issuer, &claims).await.status, 200);
        assert_refused(&exchange(issuer, &claims).await, 401, "UNAUTHORIZED");
    }
}

#[tokio::test]
async fn id_token_is_exchanged_once_over_all_bots() {
    let (service, org, bot) = service().await;
    let other = service.bot(&org, &[Role::Owner]).await;
    let claims = service.new_claims();
    // A refused exchange does not use it up.
    assert_refused(&service.exchange_claims(&other, &claims).await, 403, "FORBIDDEN");
    service.trust(&other, &[]).await;
    assert_eq!(service.exchange_claims(&bot, &claims).await.status, 200);
    let bad = service.exchange(&json!({"bot_id": bot.id.as_str(), "id_token": "a.b.c"})).await;
    for bot in [&bot, &other] {
        let answer = service.exchange_claims(bot, &claims).await;
        assert_eq!(bytes(&answer), bytes(&bad));
    }
    // Without an ID, header and payload identify it: another signature does not make it another one.
    let unnamed = with(service.new_claims(), "jti", Value::Null);
    let header = json!({"alg": "ES256", "kid": "ec"});
    let sign = || sign_with(&tests::issuer::EC, &header, &unnamed);
    let (first, second) = (sign(), sign());
    assert_ne!(first, second);
    for (id_token, status) in [(first, 200), (second, 401)] {
        assert_eq!(service.exchange(&json!({"bot_id": bot.id.as_str(), "id_token": id_token})).await.status, status);
    }
    // It is remembered for as long as it is accepted.
    let ends = service.clock.now().plus(Duration::from_secs(300 + 60)).epoch_seconds();
    let items = service.table.items().await;
    let used: Vec<&Value> = items.iter().filter(|item| text(item, "pk").starts_with("ID_TOKEN#")).collect();
    assert_eq!(used.len(), 2);
    assert!(used.iter().all(|item| item["ttl"] == ends), "{used:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_concurrent_exchanges_of_one_id_token_one_wins() {
    let (service, org, bot) = service().await;
    let claims = service.new_claims();
    let answers = join_all((0..20).map(|_| service.exchange_claims(&bot, &claims))).await;
    let (won, lost): (Vec<&Answer>, Vec<&Answer>) = answers.iter().partition(|answer| answer.status == 200);
    assert_eq!((won.len(), lost.len()), (1, 19));
    lost.into_iter().for_each(|answer| assert_refused(answer, 401, "UNAUTHORIZED"));
    let entries = service.table.audit_entries(&org.id).await;
    assert_eq!(entries.iter().filter(|entry| entry["action"] == "bot.exchange").count(), 1);
}

#[tokio::test]
async fn issuer_that_is_down_is_503_unless_its_keys_are_known() {
    let (service, _, bot) = service().await;
    service.issuer.server.stub(METADATA, Reply::status(503));
    let claims = service.new_claims();
    let answer = service.exchange_claims(&bot, &claims).await;
    assert_refused(&answer, 503, "SERVICE_UNAVAILABLE");
    assert_eq!(answer.header("retry-after"), "60");
    service.issuer.set_metadata(service.issuer.metadata());
    let answer = service.exchange_claims(&bot, &claims).await;
    assert_refused(&answer, 503, "SERVICE_UNAVAILABLE");
    service.clock.advance(MINUTE);
    assert_eq!(service.exchange_claims(&bot, &claims).await.status, 200);

    service.issuer.server.stub(METADATA, Reply::status(503));
    service.clock.advance(60 * MINUTE);
    assert_eq!(service.exchange_claims(&bot, &service.new_claims()).await.status, 200);
    // A key that it may have changed to since.
    let header = json!({"alg": "RS256", "kid": "new"});
    let id_token = sign_with(&OTHER_RSA, &header, &service.new_claims());
    let answer = service.exchange(&json!({"bot_id": bot.id.as_str(), "id_token": id_token})).await;
    assert_refused(&answer, 503, "SERVICE_UNAVAILABLE");
    assert!(!answer.header("retry-after").is_empty());
}

#[tokio::test]
async fn refusals_are_audited_once_per_workload_then_counted() {
    let (service, org, bot) = service().await;
    let refuse = async |workload: &str| {
        let claims = with(service.new_claims(), "repository_owner_id", json!("uninvited"));
        let answer = service.exchange_claims(&bot, &with(claims, "sub", json!(workload))).await;
        assert_refused(&answer, 403, "FORBIDDEN");
    };
    for _ in 0..3 {
        refuse("repo:evil/one").await;
    }
    let entries = refusals(&service, &org).await;
    assert_eq!(entries.len(), 1);
    assert_eq!((text(&entries[0], "workload"), text(&entries[0], "detail")), ("repo:evil/one", "repository_owner_id"));
    assert_eq!(entries[0]["target"], json!({"kind": "bot", "id": bot.id.as_str()}));
    assert!(entries[0].get("count").is_none());
    for workload in 1..70 {
        refuse(&format!("repo:evil/{workload}")).await;
    }
    let entries = refusals(&service, &org).await;
    let (counted, named): (Vec<&Value>, Vec<&Value>) = entries.iter().partition(|entry| entry.get("count").is_some());
    assert_eq!((counted.len(), named.len()), (1, 60));
    assert_eq!(counted[0]["count"], 10);
    assert!(counted[0].get("workload").is_none() && counted[0]["source_ip"].is_null(), "{:?}", counted[0]);
    // Never a value of a claim besides the workload.
    assert!(entries.iter().all(|entry| !entry.to_string().contains("uninvited")), "{entries:?}");
    let answer = service.audit_log(&org, &bot.credential, "?action=bot.exchange&limit=100").await;
    assert!(answer["entries"].as_array().unwrap().iter().any(|entry| entry["count"] == 10), "{answer}");

    // The next hour names them again.
    service.clock.advance(60 * MINUTE);
    refuse("repo:evil/one").await;
    assert_eq!(refusals(&service, &org).await.len(), 62);
}

#[tokio::test]
async fn failed_exchanges_are_limited_and_good_ones_never() {
    let (service, org, bot) = service().await;
    let bad = json!({"bot_id": bot.id.as_str(), "id_token": "a.b.c"});
    let untrusted = async |n: u64| {
        let claims = with(service.new_claims(), "repository_owner_id", json!("124"));
        service.exchange_claims(&bot, &with(claims, "sub", json!(n.to_string()))).await
    };
    // They do not count.
    for _ in 0..5 {
        service.exchanged(&bot).await;
    }
    assert_refused(&untrusted(0).await, 403, "FORBIDDEN");
    let replayed = service.new_claims();
    assert_eq!(service.exchange_claims(&bot, &replayed).await.status, 200);
    assert_refused(&service.exchange_claims(&bot, &replayed).await, 401, "UNAUTHORIZED");
    for n in 2..FAILED_EXCHANGES_PER_MINUTE {
        assert_eq!(service.exchange(&bad).await.status, 401, "{n}");
    }
    let audited = refusals(&service, &org).await.len();
    for answer in [service.exchange(&bad).await, untrusted(1).await, service.exchange_claims(&bot, &replayed).await] {
        assert_refused(&answer, 429, "RATE_LIMITED");
        assert!((1..=60).contains(&answer.header("retry-after").parse::<u64>().unwrap()));
    }
    assert_eq!(refusals(&service, &org).await.len(), audited);
    service.exchanged(&bot).await;
    // What names no ID token is no failed exchange.
    assert_refused(&service.exchange(&json!({})).await, 400, "BAD_REQUEST");
    service.clock.advance(MINUTE);
    assert_refused(&service.exchange(&bad).await, 401, "UNAUTHORIZED");
}

#[tokio::test]
async fn suspended_organization_gets_no_token() {
    let (service, org, bot) = service().await;
    let token = service.exchanged(&bot).await;
    let suspend = async |on| service.store.set_suspended(&org.id, on, &operator()).await.unwrap().unwrap();
    suspend(true).await;
    let claims = service.new_claims();
    assert_refused(&service.exchange_claims(&bot, &claims).await, 403, "SUBSCRIPTION_REQUIRED");
    assert_eq!(refusals(&service, &org).await[0]["workload"], WORKLOAD);
    // What it has goes on.
    assert_eq!(service.whoami(&token).await.status, 200);
    suspend(false).await;
    assert_eq!(service.exchange_claims(&bot, &claims).await.status, 200);
}

#[tokio::test]
async fn exchange_needs_no_guard() {
    let registry = Registry::with_widgets().await;
    let service = Service::start_with_registries(registry.settings()).await;
    let (org, bot) = service.org_with_owner().await;
    service.trust(&bot, &[Role::Owner]).await;
    service.set_guard(&org.id, false).await;
    let token = service.exchanged(&bot).await;
    assert_eq!(service.call(Method::GET, "/v1/api-keys", &token).await.status, 200);
    let answer = service.call(Method::GET, "/npm/widgets", &token).await;
    assert_eq!((answer.status.as_u16(), answer.code().as_str()), (403, "SUBSCRIPTION_REQUIRED"));
}

#[tokio::test]
async fn bot_token_makes_no_other_one() {
    let (service, _, bot) = service().await;
    let token = service.exchanged(&bot).await;
    let body = |id_token: &str| json!({"bot_id": bot.id.as_str(), "id_token": id_token});
    let claims = service.new_claims();
    let good = service.issuer.sign(&claims);
    assert_refused(&service.post(EXCHANGE, &token, &body(&good)).await, 403, "FORBIDDEN");
    assert_refused(&service.exchange(&body(&token)).await, 401, "UNAUTHORIZED");
    service.clock.advance(30 * MINUTE);
    assert_refused(&service.post(EXCHANGE, &token, &body(&good)).await, 401, "UNAUTHORIZED");
    // Other credentials are not read.
    let answer = service.post(EXCHANGE, &bot.credential, &body(&service.issuer.sign(&service.new_claims()))).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
}
