//! `GET /v1/o/{org_id}/audit-log`, and the entries that each operation adds.

use std::collections::BTreeSet;
use std::time::Duration;

use futures::{StreamExt, stream};
use reqwest::Method;
use serde_json::{Value, json};
use shared::Moment;
use shared::domain::{Plan, Scope};
use shared::email::EmailAddress;
use shared::ids::AuditId;
use shared::permissions::Role;
use shared::secret::Token;
use shared::store::audit::{Caller, Entry, Subject};
use shared::store::email_tokens::Registration;
use tests::management::{ACCESS_TOKENS, API_KEYS, INTROSPECT};
use tests::paging::List;
use tests::table::text;
use tests::{Answer, Bot, Org, Service, ids, operator};

/// Reads all pages of a log; `query` follows `?limit=…`.
async fn read(service: &Service, org: &Org, credential: &str, limit: usize, query: &str) -> Vec<Value> {
    List::new(service, org.audit_log(""), credential, "entries").all(limit, query).await
}

/// Asserts that the newest entry describes this call, without other fields.
#[track_caller]
fn assert_newest(entries: &[Value], actor: (&str, &str), action: &str, target: (&str, &str), answer: &Answer) {
    let outcome = if answer.status == 403 { "refused" } else { "done" };
    let entry = entries.first().unwrap();
    let id = text(entry, "id");
    assert!(AuditId::parse(id).is_some());
    let expected = json!({
        "id": id,
        "at": entry["at"],
        "actor": {"kind": actor.0, "id": actor.1},
        "action": action,
        "target": {"kind": target.0, "id": target.1},
        "outcome": outcome,
        "source_ip": "127.0.0.1",
        "request_id": answer.header("x-request-id"),
    });
    assert_eq!(*entry, expected);
}

#[tokio::test]
async fn every_change_adds_exactly_one_entry() {
    let service = Service::start_with_manual_clock().await;
    let (org, owner) = service.org_with_owner().await;
    let reader = service.bot(&org, &[Role::Manager]).await;
    let bot = ("bot", owner.id.as_str());
    let assert_logged =
        async |before: usize, actor: (&str, &str), action: &str, target: (&str, &str), answer: &Answer| {
            let entries = read(&service, &org, &reader.credential, 100, "").await;
            assert_newest(&entries, actor, action, target, answer);
            assert_eq!(entries[0]["at"], json!(service.clock.now()));
            assert_eq!(entries.len(), before + 1, "{action} adds one entry");
        };
    let now = async || {
        service.clock.advance(Duration::from_secs(1));
        read(&service, &org, &reader.credential, 100, "").await.len()
    };
    let id = |answer: &Answer| match &answer.json()["id"] {
        Value::Number(number) => number.to_string(),
        id => id.as_str().unwrap().to_owned(),
    };

    // Org user tokens.
    let before = now().await;
    let body = json!({"user_identifier": "alice"});
    let answer = service.post(&org.org_user_tokens(""), &owner.credential, &body).await;
    let first = id(&answer);
    assert_logged(before, bot, "org_user_token.issue", ("org_user_token", &first), &answer).await;
    let second = service.issue(&org, &owner, "alice").await.id;
    let before = now().await;
    let path = org.org_user_tokens(&format!("/by-id/{first}"));
    let answer = service.call(Method::DELETE, &path, &owner.credential).await;
    assert_logged(before, bot, "org_user_token.revoke", ("org_user_token", &first), &answer).await;
    let before = now().await;
    let answer = service.post(&org.org_user_tokens("/revoke-by-user"), &owner.credential, &body).await;
    assert_logged(before, bot, "org_user_token.revoke_by_user", ("org_user_token", &second), &answer).await;

    // API keys, by a bot and by a key.
    let before = now().await;
    let body = json!({"name": "ci", "environment": "live", "scopes": ["org:write"]});
    let answer = service.post(API_KEYS, &owner.credential, &body).await;
    let (key, plain) = (id(&answer), text(&answer.json(), "key").to_owned());
    assert_logged(before, bot, "api_key.create", ("api_key", &key), &answer).await;
    let before = now().await;
    let answer = service.post(API_KEYS, &plain, &body).await;
    let created = id(&answer);
    assert_logged(before, ("api_key", &key), "api_key.create", ("api_key", &created), &answer).await;
    let before = now().await;
    let answer = service.call(Method::DELETE, &format!("{API_KEYS}/{created}"), &plain).await;
    assert_logged(before, ("api_key", &key), "api_key.revoke", ("api_key", &created), &answer).await;

    // Organization access tokens.
    let before = now().await;
    let answer = service.post(ACCESS_TOKENS, &owner.credential, &json!({"name": "relay"})).await;
    let path = format!("{ACCESS_TOKENS}{}/", id(&answer));
    assert_logged(before, bot, "org_access_token.create", ("org_access_token", "1"), &answer).await;
    for (method, body) in [(Method::PATCH, json!({"is_active": false})), (Method::PUT, json!({"name": "relay"}))] {
        let before = now().await;
        let answer = service.send_json(method, &path, &owner.credential, &body).await;
        assert_logged(before, bot, "org_access_token.update", ("org_access_token", "1"), &answer).await;
    }
    let before = now().await;
    let answer = service.call(Method::DELETE, &path, &owner.credential).await;
    assert_logged(before, bot, "org_access_token.delete", ("org_access_token", "1"), &answer).await;

    // The operator's actions have no source IP.
    service.set_plan(&org, Plan::Free).await;
    service.projects(&org, &["greenhouse"]).await;
    let entries = read(&service, &org, &reader.credential, 100, "").await;
    let by_operator: Vec<&Value> = entries.iter().filter(|entry| entry["actor"]["kind"] == "operator").collect();
    assert!(by_operator.iter().all(|entry| entry["source_ip"] == Value::Null));
    let actions: BTreeSet<&str> = by_operator.iter().map(|entry| text(entry, "action")).collect();
    assert_eq!(actions, BTreeSet::from(["bot.create", "org.create", "org.set", "project.add"]));
}

#[tokio::test]
async fn email_token_events_are_stored_outside_organization_logs() {
    let service = Service::start_with_manual_clock().await;
    let (org, owner) = service.org_with_owner().await;
    let before = read(&service, &org, &owner.credential, 100, "").await;
    let entries = async || {
        let items = service.table.items().await;
        let is_its = |item: &&Value| text(item, "pk").starts_with("EMAIL#") && text(item, "pk").ends_with("#AUDIT");
        items.iter().filter(is_its).cloned().collect::<Vec<Value>>()
    };
    let assert_logged = async |actor: &str, action: &str, answer: &Answer| {
        let entries = entries().await;
        let entry = entries.last().unwrap();
        assert_eq!((text(entry, "action"), &entry["actor"]["kind"]), (action, &json!(actor)));
        assert_eq!(entry["target"]["kind"], "email_token");
        assert_eq!((entry["outcome"].clone(), entry["source_ip"].clone()), (json!("done"), json!("127.0.0.1")));
        assert_eq!(entry["request_id"], answer.header("x-request-id"));
        service.clock.advance(Duration::from_secs(1));
        entries.len()
    };
    let register = json!({"email": "alice@example.com", "language": "en"});
    let answer = service.post("/api/v1/tokens", "", &register).await;
    assert_eq!(answer.status, 202, "{}", answer.text);
    assert_eq!(assert_logged("anonymous", "email_token.register", &answer).await, 1);
    let address = EmailAddress::try_from("alice@example.com".to_owned()).unwrap();
    let recovery = service.store.register(&address, None, &operator()).await.unwrap();
    let Registration::Recovery { code, .. } = recovery else { panic!("the address has a token") };
    service.clock.advance(Duration::from_secs(1));
    let reset = json!({"email": "alice@example.com", "code": code.expose()});
    let answer = service.post("/api/v1/tokens/reset", "", &reset).await;
    assert_eq!(assert_logged("email_address", "email_token.reset", &answer).await, 3);
    let token = text(&answer.json(), "token").to_owned();
    let answer = service.send_json(Method::POST, "/api/v1/tokens/regenerate", &token, &json!({})).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    assert_eq!(assert_logged("email_token", "email_token.regenerate", &answer).await, 4);
    let token = text(&answer.json(), "token").to_owned();
    let answer = service.call(Method::DELETE, "/api/v1/tokens", &token).await;
    assert_eq!(assert_logged("email_token", "email_token.revoke", &answer).await, 5);
    assert_eq!(read(&service, &org, &owner.credential, 100, "").await, before);
    let log: String = entries().await.iter().map(Value::to_string).collect();
    assert!(!log.contains("alice") && !log.contains(&token[8..]) && !log.contains(&code.expose()));
}

#[tokio::test]
async fn creation_refused_for_role_scope_plan_or_subscription_adds_an_entry() {
    let service = Service::start_with_manual_clock().await;
    let (org, owner) = service.org_on(Plan::Free).await;
    let powerless = service.bot(&org, &[Role::TokenIntrospector]).await;
    let reader = service.api_key(&owner.credential, &["org:read"]).await;
    let writer = service.api_key(&owner.credential, &["org:write"]).await;
    service.api_key(&owner.credential, &["audit:read"]).await;
    let key = json!({"name": "ci", "environment": "live", "scopes": ["org:write"]});
    let more = json!({"name": "ci", "environment": "live", "scopes": ["org:write", "org:read"]});
    let (user, access) = (json!({"user_identifier": "alice"}), json!({"name": "relay"}));
    let user_tokens = org.org_user_tokens("");
    let bot = |bot: &Bot| ("bot".to_owned(), bot.id.to_string());
    let by_key = |key: &tests::management::ApiKey| ("api_key".to_owned(), key.id.clone());
    let before = read(&service, &org, &owner.credential, 100, "").await.len();
    for (n, (credential, actor, path, body, action, code)) in [
        (&powerless.credential, bot(&powerless), user_tokens.as_str(), &user, "org_user_token.issue", "FORBIDDEN"),
        (&powerless.credential, bot(&powerless), API_KEYS, &key, "api_key.create", "FORBIDDEN"),
        (&powerless.credential, bot(&powerless), ACCESS_TOKENS, &access, "org_access_token.create", "FORBIDDEN"),
        (&reader.key, by_key(&reader), API_KEYS, &key, "api_key.create", "FORBIDDEN"),
        (&writer.key, by_key(&writer), API_KEYS, &more, "api_key.create", "FORBIDDEN"),
        (&writer.key, by_key(&writer), API_KEYS, &key, "api_key.create", "PLAN_LIMIT_REACHED"),
        (&owner.credential, bot(&owner), API_KEYS, &key, "api_key.create", "PLAN_LIMIT_REACHED"),
    ]
    .into_iter()
    .enumerate()
    {
        service.clock.advance(Duration::from_secs(1));
        let answer = service.post(path, credential, body).await;
        answer.assert_error(403, code);
        let entries = read(&service, &org, &owner.credential, 100, "").await;
        assert_newest(&entries, (&actor.0, &actor.1), action, ("organization", org.id.as_str()), &answer);
        assert_eq!(entries.len(), before + n + 1);
    }
    service.set_guard(&org.id, false).await;
    service.clock.advance(Duration::from_secs(1));
    let answer = service.post(&user_tokens, &owner.credential, &user).await;
    answer.assert_error(403, "SUBSCRIPTION_REQUIRED");
    // Reading the log needs no subscription.
    let entries = read(&service, &org, &owner.credential, 100, "").await;
    let target = ("organization", org.id.as_str());
    assert_newest(&entries, ("bot", owner.id.as_str()), "org_user_token.issue", target, &answer);
}

#[tokio::test]
async fn calls_without_effect_add_no_entry() {
    let service = Service::start_with_manual_clock().await;
    let (org, owner) = service.org_with_owner().await;
    let (_, stranger) = service.org_with_owner().await;
    let powerless = service.bot(&org, &[Role::TokenIntrospector]).await;
    let key = service.api_key(&owner.credential, &["shield:read"]).await;
    let revoked = service.api_key(&owner.credential, &["shield:read"]).await;
    service.revoke_api_key(&owner.credential, &revoked.id).await;
    let access = service.access_token(&owner, &json!({"name": "relay"})).await;
    let before = service.table.audit_entries(&org.id).await;
    let path = access.path();
    let (one, gone) = (format!("{API_KEYS}/{}", key.id), format!("{API_KEYS}/{}", revoked.id));
    let good_key = json!({"name": "ci", "environment": "live", "scopes": ["org:read"]});
    let send = async |method: Method, path: &str, credential: &str, body: Value, status: u16| {
        let answer = service.send_json(method, path, credential, &body).await;
        assert_eq!(answer.status, status, "{path}: {}", answer.text);
    };
    send(Method::POST, API_KEYS, &owner.credential, json!({}), 400).await;
    send(Method::POST, ACCESS_TOKENS, &owner.credential, json!({"name": "relay"}), 400).await;
    send(Method::PATCH, &path, &owner.credential, json!({}), 200).await;
    send(Method::PATCH, &path, &owner.credential, json!({"name": ""}), 400).await;
    send(Method::DELETE, &format!("{ACCESS_TOKENS}99/"), &owner.credential, json!({}), 404).await;
    send(Method::DELETE, &gone, &owner.credential, json!({}), 204).await;
    // Refused, but not a creation, or not by a caller of this organization.
    send(Method::DELETE, &one, &powerless.credential, json!({}), 403).await;
    send(Method::DELETE, &path, &powerless.credential, json!({}), 403).await;
    send(Method::PATCH, &path, &powerless.credential, json!({"is_active": false}), 403).await;
    send(Method::DELETE, &one, &stranger.credential, json!({}), 404).await;
    send(Method::POST, API_KEYS, "nonsense", good_key, 401).await;
    send(Method::POST, INTROSPECT, &owner.credential, json!({"token": key.key}), 200).await;
    assert_eq!(service.whoami(&key.key).await.status, 200);
    assert_eq!(service.table.audit_entries(&org.id).await, before);
}

/// Fills a log directly, one entry per second, with all combinations of actor, action and target.
async fn long_log(service: &Service, org: &Org, entries: usize) {
    let (actors, actions, targets) = (["A1", "A2", "A3"], ["thing.make", "thing.end"], ["T1", "T2", "T3", "T4", "T5"]);
    let mut log = Vec::new();
    for n in 0..entries {
        let caller = Caller { actor: Subject::new("bot", actors[n % actors.len()]), ..operator() };
        let target = Subject::new("thing", targets[n / 7 % targets.len()]);
        let action = actions[n / 3 % actions.len()];
        log.push(Entry::done(&service.clock, &caller, action, target).unwrap());
        service.clock.advance(Duration::from_secs(1));
    }
    let written = stream::iter(&log).map(|entry| service.store.record_refusal(&org.id, entry)).buffer_unordered(16);
    written.for_each(|written| async move { written.unwrap() }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn filters_combine_at_any_page_size() {
    let service = Service::start_with_manual_clock().await;
    let (org, owner) = service.org_with_owner().await;
    service.clock.advance(Duration::from_secs(100));
    long_log(&service, &org, 60).await;
    let all = read(&service, &org, &owner.credential, 100, "").await;
    assert!(all.len() > 60 && all.is_sorted_by(|newer, older| text(newer, "id") > text(older, "id")));
    let (from, to) = ("2026-11-21T10:01:50Z", "2026-11-21T10:02:20Z");
    for actor in [None, Some("A1"), Some("A9")] {
        for action in [None, Some("thing.end")] {
            for target in [None, Some("T2")] {
                for times in [(None, None), (Some(from), None), (None, Some(to)), (Some(from), Some(to))] {
                    let parts =
                        [("actor", actor), ("action", action), ("target", target), ("from", times.0), ("to", times.1)];
                    let query: String = parts
                        .iter()
                        .filter_map(|(name, value)| value.map(|value| format!("&{name}={value}")))
                        .collect();
                    let finds = |entry: &&Value| {
                        actor.is_none_or(|actor| entry["actor"]["id"] == actor)
                            && action.is_none_or(|action| entry["action"] == action)
                            && target.is_none_or(|target| entry["target"]["id"] == target)
                            && times.0.is_none_or(|from| text(entry, "at") >= from)
                            && times.1.is_none_or(|to| text(entry, "at") < to)
                    };
                    let expected: Vec<&Value> = all.iter().filter(finds).collect();
                    for limit in [4, 100] {
                        let found = read(&service, &org, &owner.credential, limit, &query).await;
                        assert_eq!(found.iter().collect::<Vec<_>>(), expected, "limit {limit}, {query}");
                    }
                }
            }
        }
    }
    assert_eq!(read(&service, &org, &owner.credential, 1, "").await, all);
}

#[tokio::test]
async fn from_is_inclusive_and_to_is_exclusive() {
    let service = Service::start_with_manual_clock().await;
    let (org, owner) = service.org_with_owner().await;
    service.clock.advance(Duration::from_secs(60));
    long_log(&service, &org, 3).await;
    let count = async |query: &str| {
        service.audit_log(&org, &owner.credential, query).await["entries"].as_array().unwrap().len()
    };
    for (from, to, expected) in [
        ("2026-11-21T10:01:00Z", "2026-11-21T10:01:03Z", 3),
        ("2026-11-21T10:01:01Z", "2026-11-21T10:01:02Z", 1),
        ("2026-11-21T10:01:02Z", "2026-11-21T10:01:02Z", 0),
        ("2026-11-21T10:01:02Z", "2026-11-21T10:01:00Z", 0),
        ("2026-11-21T10:01:03Z", "2099-01-01T00:00:00Z", 0),
        ("2026-11-21T11:01:02%2B01:00", "2026-11-21T05:01:03-05:00", 1),
        ("0001-01-01T00:00:00Z", "9999-12-31T23:59:59Z", 5),
        ("0001-01-01T00:00:00Z", "1970-01-01T00:00:00Z", 0),
    ] {
        assert_eq!(count(&format!("?from={from}&to={to}")).await, expected, "from {from} to {to}");
    }
    assert_eq!(count("?from=2026-11-21T10:01:02Z").await, 1);
    assert_eq!(count("?to=2026-11-21T10:01:00Z").await, 2);
}

#[tokio::test]
async fn cursor_is_rejected_for_any_other_query() {
    let service = Service::start_with_manual_clock().await;
    let (org, owner) = service.org_with_owner().await;
    let (other_org, stranger) = service.org_with_owner().await;
    long_log(&service, &org, 20).await;
    let list = List::new(&service, org.audit_log(""), &owner.credential, "entries");
    let foreign = List::new(&service, other_org.audit_log(""), &stranger.credential, "entries");
    let filter = "&actor=A1&from=2026-11-21T10:00:00Z";
    // Another limit, or the same time in another offset, is the same query.
    let same = [filter, "&actor=A1&from=2026-11-21T11:00:00%2B01:00&limit=5"];
    let others = [
        "",
        "&actor=A1",
        "&actor=A2&from=2026-11-21T10:00:00Z",
        "&actor=A1&from=2026-11-21T10:00:01Z",
        "&actor=A1&from=2026-11-21T10:00:00Z&to=2027-01-01T00:00:00Z",
        "&actor=A1&from=2026-11-21T10:00:00Z&action=thing.make",
        "&target=A1&from=2026-11-21T10:00:00Z",
    ];
    list.assert_cursor_is_bound(&foreign, filter, &same, &others).await;
    // The cursor of another list of the same organization.
    for n in 0..3 {
        service.issue(&org, &owner, &format!("user-{n}")).await;
    }
    let tokens = service.list(&org, &owner, "?limit=1").await;
    list.get(&format!("?cursor={}", text(&tokens, "next_cursor"))).await.assert_invalid("cursor");
}

#[tokio::test]
async fn invalid_query_parameters_are_named() {
    let service = Service::start().await;
    let (org, owner) = service.org_with_owner().await;
    let long = format!("?actor={}", "x".repeat(101));
    for (query, field) in [
        ("?actors=A1", "actors"),
        ("?actor=", "actor"),
        ("?actor=a&actor=b", "actor"),
        ("?actor=A%23x", "actor"),
        ("?actor=a%20b", "actor"),
        (long.as_str(), "actor"),
        ("?action=", "action"),
        ("?target=%00", "target"),
        ("?from=yesterday", "from"),
        ("?from=2026-11-21", "from"),
        ("?to=", "to"),
        ("?to=2026-11-21T10:00:00", "to"),
        ("?limit=0", "limit"),
        ("?limit=101", "limit"),
    ] {
        service.call(Method::GET, &org.audit_log(query), &owner.credential).await.assert_invalid(field);
    }
}

/// A page of the log as CSV: columns, lines, and the query of the next page.
async fn read_csv(service: &Service, path: &str, credential: &str) -> (Vec<String>, Vec<Vec<String>>, Option<String>) {
    let request = service.request(Method::GET, path).bearer_auth(credential).header("accept", "text/csv");
    let answer = service.send(request).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    assert_eq!(answer.header("content-type"), "text/csv; charset=utf-8; header=present");
    assert_eq!(answer.header("vary"), "accept");
    let mut reader = csv::Reader::from_reader(answer.text.as_bytes());
    let columns = reader.headers().unwrap().iter().map(str::to_owned).collect();
    let lines = reader.records().map(|line| line.unwrap().iter().map(str::to_owned).collect()).collect();
    let next = answer.header("link").strip_prefix('<').and_then(|link| link.strip_suffix(">; rel=\"next\""));
    (columns, lines, next.map(str::to_owned))
}

#[tokio::test]
async fn csv_has_the_columns_and_pages_of_the_json() {
    let service = Service::start_with_manual_clock().await;
    let (org, owner) = service.org_with_owner().await;
    for name in ["=HYPERLINK(\"https://example.com\")", "-1+SUM(A1)", "two,\"words\""] {
        service.store.add_project(&org.id, name, &operator()).await.unwrap();
        service.clock.advance(Duration::from_millis(1));
    }
    service.issue(&org, &owner, "alice-laptop").await;
    let entries = read(&service, &org, &owner.credential, 2, "").await;
    let (mut all, mut query) = (Vec::new(), "?limit=2".to_owned());
    loop {
        let (columns, lines, next) = read_csv(&service, &org.audit_log(&query), &owner.credential).await;
        let expected =
            "id,at,actor_kind,actor_id,action,target_kind,target_id,outcome,source_ip,request_id,workload,detail,count";
        assert_eq!(columns.join(","), expected);
        all.extend(lines);
        let Some(next) = next else { break };
        query = next;
    }
    assert_eq!(all.len(), entries.len());
    for (line, entry) in all.iter().zip(&entries) {
        let part = |part: &str, name: &str| text(&entry[part], name).to_owned();
        let mut target = part("target", "id");
        if target.starts_with(['=', '-']) {
            target.insert(0, '\'');
        }
        let expected = [
            text(entry, "id").to_owned(),
            text(entry, "at").to_owned(),
            part("actor", "kind"),
            part("actor", "id"),
            text(entry, "action").to_owned(),
            part("target", "kind"),
            target,
            text(entry, "outcome").to_owned(),
            text(entry, "source_ip").to_owned(),
            text(entry, "request_id").to_owned(),
            text(entry, "workload").to_owned(),
            text(entry, "detail").to_owned(),
            String::new(),
        ];
        assert_eq!(*line, expected);
    }
    let targets: Vec<&str> = all.iter().map(|line| line[6].as_str()).collect();
    for target in ["'=HYPERLINK(\"https://example.com\")", "'-1+SUM(A1)", "two,\"words\""] {
        assert!(targets.contains(&target), "{targets:?}");
    }
    let request = service.request(Method::GET, &org.audit_log("?limit=0")).bearer_auth(&owner.credential);
    service.send(request.header("accept", "text/csv")).await.assert_invalid("limit");
    let json = service.call(Method::GET, &org.audit_log(""), &owner.credential).await;
    assert_eq!((json.header("vary"), json.header("content-type")), ("accept", "application/json"));
}

#[tokio::test]
async fn only_permitted_callers_read_the_log() {
    let service = Service::start().await;
    let (org, owner) = service.org_on(Plan::Enterprise).await;
    let (other_org, stranger) = service.org_with_owner().await;
    let get = async |path: &str, credential: &str| service.call(Method::GET, path, credential).await;
    let path = org.audit_log("");
    for &role in Role::ALL {
        let bot = service.bot(&org, &[role]).await;
        let answer = get(&path, &bot.credential).await;
        match role {
            Role::Owner | Role::Manager => assert_eq!(answer.status, 200, "{role:?}"),
            _ => answer.assert_error(403, "FORBIDDEN"),
        }
    }
    for &scope in Scope::ALL {
        let key = service.api_key(&owner.credential, &[scope.as_str()]).await.key;
        let answer = get(&path, &key).await;
        match scope {
            Scope::AuditRead => assert_eq!(answer.status, 200),
            _ => answer.assert_error(403, "FORBIDDEN"),
        }
        get(&other_org.audit_log(""), &key).await.assert_error(403, "FORBIDDEN");
    }
    let access = json!({"name": "a", "access_config": {"role": "manager", "all_projects": true}});
    for credential in [
        stranger.credential,
        service.issue(&org, &owner, "alice").await.token,
        service.access_token(&owner, &access).await.token,
        service.email_token("alice@example.com").await,
    ] {
        get(&path, &credential).await.assert_error(403, "FORBIDDEN");
    }
    // Does not reveal whether the organization exists.
    for id in ["OG01KAJ8M4R2X7Z9V5T3Q1N6P8WC", "x", "%00"] {
        get(&format!("/v1/o/{id}/audit-log"), &owner.credential).await.assert_error(403, "FORBIDDEN");
    }
    get(&path, "nonsense").await.assert_error(401, "UNAUTHORIZED");
    let log = service.audit_log(&org, &owner.credential, "?limit=100").await.to_string();
    assert!(!log.contains(other_org.id.as_str()));
}

#[tokio::test]
async fn entries_expire_after_400_days() {
    let service = Service::start_with_manual_clock().await;
    let (org, owner) = service.org_on(Plan::Free).await;
    let key = service.api_key(&owner.credential, &["shield:read"]).await;
    service.revoke_api_key(&owner.credential, &key.id).await;
    let access = service.access_token(&owner, &json!({"name": "relay"})).await;
    service.clock.advance(Duration::from_secs(86_400));
    assert_eq!(service.call(Method::DELETE, &access.path(), &owner.credential).await.status, 204);
    let powerless = service.bot(&org, &[]).await;
    service.post(API_KEYS, &powerless.credential, &json!({})).await.assert_error(403, "FORBIDDEN");
    let entries = service.table.audit_entries(&org.id).await;
    assert_eq!(entries.len(), 8);
    for entry in entries {
        let at = Moment::parse(text(&entry, "at")).unwrap();
        assert_eq!(entry["ttl"], at.epoch_seconds() + 400 * 86_400, "{entry}");
    }
}

#[tokio::test]
async fn entries_contain_no_secrets() {
    let service = Service::start_with_manual_clock().await;
    let (org, owner) = service.org_with_owner().await;
    let key = json!({"name": "purple key", "environment": "live", "scopes": ["org:write", "audit:read"]});
    let key = service.api_key_with(&owner.credential, &key).await;
    let access = service.access_token(&owner, &json!({"name": "purple relay"})).await;
    let user = service.issue(&org, &owner, "purple-laptop").await;
    for (method, path, body) in [
        (Method::PATCH, access.path(), json!({"name": "purple relay 2"})),
        (Method::DELETE, access.path(), json!({})),
        (Method::POST, org.org_user_tokens("/revoke-by-user"), json!({"user_identifier": "purple-laptop"})),
    ] {
        let answer = service.send_json(method, &path, &owner.credential, &body).await;
        assert!(answer.status.is_success(), "{}", answer.text);
    }
    service.revoke_api_key(&key.key, &key.id).await;
    let shown = service.audit_log(&org, &owner.credential, "?limit=100").await;
    assert_eq!(ids(&shown["entries"]).len(), 9);
    let stored: String = service.table.audit_entries(&org.id).await.iter().map(Value::to_string).collect();
    let log = format!("{shown}{stored}");
    let bot_key = owner.credential.split_once(':').unwrap().0;
    for secret in [&key.key, &access.token, &user.token, bot_key] {
        let token = Token::parse(secret).unwrap();
        let prefix = token.shown_prefix();
        assert!(!log.contains(&prefix) && !log.contains(&secret[prefix.len()..]));
        assert!(!log.contains(&token.hash().to_hex()));
    }
    assert!(!log.contains("purple"), "the log contains caller input");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn page_cost_is_independent_of_log_size() {
    let service = Service::start_with_manual_clock().await;
    let (short, short_owner) = service.org_with_owner().await;
    let (long, long_owner) = service.org_with_owner().await;
    service.clock.advance(Duration::from_secs(100));
    long_log(&service, &short, 60).await;
    service.clock.advance(Duration::from_secs(1));
    long_log(&service, &long, 400).await;
    for (org, owner) in [(&short, &short_owner), (&long, &long_owner)] {
        // The first use of a bot's key is recorded.
        service.call(Method::GET, &org.audit_log(""), &owner.credential).await;
    }
    for filter in ["", "&actor=A1", "&action=thing.end", "&target=T2", "&actor=A1&action=thing.end"] {
        for limit in [1, 5] {
            let cost = async |org: &Org, owner: &Bot| {
                let query = org.audit_log(&format!("?limit={limit}{filter}"));
                let first = service.call(Method::GET, &query, &owner.credential).await;
                assert_eq!(ids(&first.json()["entries"]).len(), limit);
                let query = format!("{query}&cursor={}", text(&first.json(), "next_cursor"));
                let second = service.call(Method::GET, &query, &owner.credential).await;
                assert_eq!(ids(&second.json()["entries"]).len(), limit);
                [first.cost(), second.cost()]
            };
            let (short, long) = (cost(&short, &short_owner).await, cost(&long, &long_owner).await);
            assert_eq!(short, long, "limit {limit}{filter}");
            assert!(long.iter().all(|cost| cost.calls == 2 && cost.read <= 2.0 && cost.write == 0.0), "{long:?}");
        }
    }
}
