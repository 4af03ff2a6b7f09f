//! Reports of leaked tokens: what ends, what the audit log says, and what reports do not reveal. The
//! mails are in [`crate::leak_mails`].

use std::collections::BTreeSet;
use std::time::Duration;

use futures::future::join_all;
use reqwest::Method;
use serde_json::{Value, json};
use shared::domain::LeakPolicy;
use shared::permissions::Role;
use shared::secret::TokenKind;
use tests::console::person;
use tests::coverage::{mistyped, unknown_token};
use tests::faults::Fault;
use tests::table::{TABLE, text};
use tests::{Answer, Bot, Org, Service, operator};

const LEAKED: &str = "/v1/tokens/leaked";
const PLACE: &str = "https://github.com/octocat/hello/blob/main/.npmrc#L1";
const DAY: Duration = Duration::from_secs(24 * 60 * 60);
const MINUTE: Duration = Duration::from_secs(60);

async fn send(service: &Service, body: &Value) -> Answer {
    service.send(service.request(Method::POST, LEAKED).json(body)).await
}

fn body(tokens: &[&str]) -> Value {
    let entries: Vec<Value> = tokens.iter().map(|token| json!({"token": token, "url": PLACE})).collect();
    json!({ "tokens": entries })
}

/// Reports these tokens and expects 202.
async fn report(service: &Service, tokens: &[&str]) -> Answer {
    let answer = send(service, &body(tokens)).await;
    assert_eq!(answer.status, 202, "{}", answer.text);
    answer
}

/// The entries of an organization's log with this action.
async fn entries(service: &Service, org: &Org, action: &str) -> Vec<Value> {
    let mut entries = service.table.audit_entries(&org.id).await;
    entries.retain(|entry| entry["action"] == action);
    entries
}

/// Whether this credential is accepted anywhere.
async fn is_active(service: &Service, credential: &str) -> bool {
    match service.whoami(credential).await.status.as_u16() {
        200 => true,
        401 => false,
        status => panic!("{status}"),
    }
}

/// One credential of every kind that belongs to an organization: action of its leak, and credential.
async fn credentials(service: &Service, org: &Org, owner: &Bot) -> Vec<(&'static str, String)> {
    let access = service.access_token(owner, &json!({"name": unknown_token(TokenKind::OrgAccess)})).await;
    let bot = service.bot(org, &[Role::Owner]).await;
    vec![
        ("org_user_token.leaked", service.issue(org, owner, "alice-laptop").await.token),
        ("api_key.leaked", service.api_key(&owner.credential, &["org:read"]).await.key),
        ("org_access_token.leaked", access.token),
        ("bot_api_key.leaked", bot.credential.clone()),
        ("bot_token.leaked", service.job(owner, &[Role::Owner]).await),
    ]
}

#[tokio::test]
async fn reported_token_of_every_kind_is_dead_at_its_next_use() {
    let service = Service::start_with_manual_clock().await;
    let (org, owner) = service.org_with_owner().await;
    for (action, credential) in credentials(&service, &org, &owner).await {
        assert!(is_active(&service, &credential).await, "{action}");
        // A scanner may find the API key of a bot without the bot's ID.
        let found = credential.split(':').next().unwrap();
        report(&service, &[found]).await;
        assert!(!is_active(&service, &credential).await, "{action}");
        let [entry] = &entries(&service, &org, action).await[..] else { panic!("not one {action}") };
        assert_eq!((text(entry, "outcome"), text(entry, "detail")), ("done", &*format!("found at {PLACE}")));
        assert_eq!(entry["actor"], json!({"kind": "anonymous", "id": "anonymous"}));
        assert_eq!(entry["source_ip"], "127.0.0.1");
        // Reported again, it is what it was: the log says so once.
        report(&service, &[&credential, found]).await;
        assert_eq!(entries(&service, &org, action).await.len(), 1, "{action}");
    }
    let email = service.email_token("you@example.com").await;
    report(&service, &[&email]).await;
    assert!(!service.is_active(&email).await);
    // The address may register afresh.
    let again = service.email_token("you@example.com").await;
    assert!(service.is_active(&again).await);
}

#[tokio::test]
async fn whole_credential_of_a_bot_is_recognized() {
    let service = Service::start_with_manual_clock().await;
    let (org, owner) = service.org_with_owner().await;
    let bot = service.bot(&org, &[Role::Owner]).await;
    report(&service, &[&bot.credential]).await;
    assert!(!is_active(&service, &bot.credential).await && is_active(&service, &owner.credential).await);
}

#[tokio::test]
async fn leaked_session_ends_and_its_persons_organizations_say_so() {
    let service = Service::start_with_manual_clock().await;
    let (org, _) = service.org_with_owner().await;
    let visitor = service.member(&org, &[Role::Owner]).await;
    let other = service.member(&org, &[Role::Owner]).await;
    let cookie = visitor.cookie();
    let secret = cookie.split('=').nth(1).unwrap().trim_end_matches(';');
    assert_eq!(visitor.get("/console/account").await.status, 200);
    report(&service, &[secret]).await;
    assert_eq!(visitor.get("/console/account").await.status, 303);
    assert_eq!(other.get("/console/account").await.status, 200);
    let [entry] = &entries(&service, &org, "session.leaked").await[..] else { panic!("not one entry") };
    assert_eq!(text(entry, "detail"), format!("found at {PLACE}"));
    report(&service, &[secret]).await;
    assert_eq!(entries(&service, &org, "session.leaked").await.len(), 1);
}

#[tokio::test]
async fn leaked_session_of_somebody_without_organization_ends() {
    let service = Service::start_with_manual_clock().await;
    let (session, secret) = service.store.start_session(&person("you@example.com"), None, &operator()).await.unwrap();
    report(&service, &[secret.expose()]).await;
    assert_eq!(service.store.session(secret.hash()).await.unwrap(), None);
    let items = service.table.items().await;
    let logged = items.iter().filter(|item| item["action"] == "session.leaked");
    assert_eq!(logged.map(|entry| entry["target"]["id"].clone()).collect::<Vec<_>>(), [session.id.as_str()]);
}

#[tokio::test]
async fn expired_and_disabled_tokens_are_revoked_too() {
    let service = Service::start_with_manual_clock().await;
    let (org, owner) = service.org_with_owner().await;
    let end = "2026-11-21T10:30:00Z";
    let user = service.issue_until(&org, &owner, "alice-laptop", end).await;
    let key = json!({"name": "ci", "environment": "live", "scopes": ["org:read"], "expires_at": end});
    let key = service.api_key_with(&owner.credential, &key).await;
    let expired = service.access_token(&owner, &json!({"name": "a", "expires_at": end})).await;
    let disabled = service.access_token(&owner, &json!({"name": "b", "is_active": false})).await;
    let unused = service.email_token("you@example.com").await;
    service.clock.advance(31 * DAY);
    report(&service, &[&user.token, &key.key, &expired.token, &disabled.token, &unused]).await;
    assert_eq!(service.listed_ids(&org, &owner, "?status=revoked").await, [user.id]);
    assert_eq!(service.api_keys(&owner.credential, "?status=revoked").await["api_keys"][0]["id"], key.id);
    assert_eq!(service.access_tokens(&owner).await.len(), 0);
    assert_eq!(service.active_api_keys(&org, &owner.credential).await, 0);
    let items = service.table.items().await;
    assert!(!items.iter().any(|item| text(item, "kind") == "email_verified"));
}

#[tokio::test]
async fn every_report_is_answered_with_the_same_bytes() {
    let service = Service::start_with_manual_clock().await;
    let (org, owner) = service.org_with_owner().await;
    let token = service.issue(&org, &owner, "alice-laptop").await.token;
    let unknown = unknown_token(TokenKind::OrgUser);
    let first = report(&service, &[&token]).await;
    let headers = |answer: &Answer| {
        let mut headers = answer.headers.clone();
        for name in ["x-request-id", "date", "x-test-cost"] {
            headers.remove(name);
        }
        headers
    };
    for tokens in
        [&[&*token][..], &[&unknown], &[&mistyped(&token)], &["", "hunter2"], &[&unknown, &token, &owner.credential]]
    {
        let answer = report(&service, tokens).await;
        assert_eq!(answer.text, first.text);
        assert_eq!(headers(&answer), headers(&first));
    }
}

#[tokio::test]
async fn report_ends_nothing_else() {
    let service = Service::start_with_manual_clock().await;
    let (org, owner) = service.org_with_owner().await;
    let (other, others_owner) = service.org_with_owner().await;
    let leaked = credentials(&service, &org, &owner).await;
    let mut kept = credentials(&service, &org, &owner).await;
    kept.extend(credentials(&service, &other, &others_owner).await);
    let log = service.table.audit_entries(&other.id).await;
    let leaked: Vec<&str> = leaked.iter().map(|(_, credential)| &**credential).collect();
    report(&service, &leaked).await;
    for credential in &leaked {
        assert!(!is_active(&service, credential).await, "{credential}");
    }
    for (action, credential) in &kept {
        assert!(is_active(&service, credential).await, "{action}");
    }
    assert_eq!(service.table.audit_entries(&other.id).await, log);
}

#[tokio::test]
async fn organization_that_is_told_only_keeps_its_tokens() {
    let service = Service::start_with_manual_clock().await;
    let (org, owner) = service.org_with_owner().await;
    service.set_leaks(&org.id, &[], LeakPolicy::TellOnly).await;
    let all = credentials(&service, &org, &owner).await;
    let tokens: Vec<&str> = all.iter().map(|(_, credential)| &**credential).collect();
    for time in 1..=2 {
        for _ in 0..2 {
            report(&service, &tokens).await;
        }
        for (action, credential) in &all {
            assert!(*action == "bot_token.leaked" || is_active(&service, credential).await, "{action}");
            let logged = entries(&service, &org, action).await;
            assert_eq!(logged.len(), time, "{action}");
            assert_eq!(text(&logged[0], "detail"), format!("not revoked, told only: found at {PLACE}"));
        }
        // Once in 24 hours.
        service.clock.advance(DAY);
    }
    // Those without an organization end all the same.
    let email = service.email_token("you@example.com").await;
    report(&service, &[&email]).await;
    assert!(!service.is_active(&email).await);
    // The organization may change its mind.
    service.set_leaks(&org.id, &[], LeakPolicy::Revoke).await;
    report(&service, &tokens).await;
    for (action, credential) in &all {
        assert!(!is_active(&service, credential).await, "{action}");
        assert_eq!(entries(&service, &org, action).await.len(), 3, "{action}");
    }
}

#[tokio::test]
async fn token_is_audited_once_however_many_report_it_at_once() {
    let service = Service::start_with_manual_clock().await;
    let (org, owner) = service.org_with_owner().await;
    for policy in [LeakPolicy::TellOnly, LeakPolicy::Revoke] {
        service.set_leaks(&org.id, &[], policy).await;
        let all = credentials(&service, &org, &owner).await;
        let before = service.table.audit_entries(&org.id).await.len();
        let tokens: Vec<&str> = all.iter().map(|(_, credential)| &**credential).collect();
        join_all((0..20).map(|_| report(&service, &tokens))).await;
        let after = service.table.audit_entries(&org.id).await;
        assert_eq!(after.len() - before, tokens.len(), "{policy:?}");
        service.clock.advance(MINUTE);
    }
}

#[tokio::test]
async fn other_api_key_of_a_bot_survives() {
    let service = Service::start_with_manual_clock().await;
    let (org, owner) = service.org_with_owner().await;
    for leaks_newer in [true, false] {
        let bot = service.bot(&org, &[Role::Owner]).await;
        let newer = service.store.rotate_bot_key(&bot.id, Some(DAY), &operator()).await.unwrap().unwrap();
        let newer = format!("{}:{}", newer.expose(), bot.id);
        let (leaked, kept) = if leaks_newer { (&newer, &bot.credential) } else { (&bot.credential, &newer) };
        report(&service, &[leaked]).await;
        assert!(!is_active(&service, leaked).await && is_active(&service, kept).await, "{leaks_newer}");
        if leaks_newer {
            // A rotation does not prolong what is left.
            service.store.rotate_bot_key(&bot.id, Some(7 * DAY), &operator()).await.unwrap().unwrap();
            assert!(is_active(&service, kept).await);
            service.clock.advance(DAY);
            assert!(!is_active(&service, kept).await);
        }
        let another = service.store.rotate_bot_key(&bot.id, None, &operator()).await.unwrap().unwrap();
        assert!(is_active(&service, &format!("{}:{}", another.expose(), bot.id)).await);
    }
    assert!(is_active(&service, &owner.credential).await);
}

#[tokio::test]
async fn item_of_a_bots_api_key_authenticates_nothing() {
    let service = Service::start_with_manual_clock().await;
    let (org, owner) = service.org_with_owner().await;
    let bot = service.bot(&org, &[Role::Owner]).await;
    let key = bot.credential.split(':').next().unwrap();
    assert_eq!(service.introspect(&owner, &json!({"token": key})).await, json!({"active": false}));
    assert_eq!(service.introspect(&owner, &json!({"token": bot.credential})).await, json!({"active": false}));
    assert_eq!(service.probe(&org, &owner, key).await, json!({"active": false}));
    service.whoami(key).await.assert_error(401, "UNAUTHORIZED");
    let other = service.bot(&org, &[Role::Owner]).await;
    service.whoami(&format!("{key}:{}", other.id)).await.assert_error(401, "UNAUTHORIZED");
    let npm = service.send(service.request(Method::GET, "/npm/widgets").bearer_auth(key)).await;
    assert_eq!(npm.status, 401, "{}", npm.text);
}

#[tokio::test]
async fn items_of_api_keys_come_and_go_with_their_keys() {
    let service = Service::start_with_manual_clock().await;
    let (org, _) = service.org_with_owner().await;
    let items = async |bot: &Bot| {
        let items = service.table.items().await;
        items.iter().filter(|item| text(item, "bot_id") == bot.id.as_str() && item["kind"] == "bot_api_key").count()
    };
    let bot = service.bot(&org, &[Role::Owner]).await;
    assert_eq!(items(&bot).await, 1);
    for (overlap, expected) in [(Some(DAY), 2), (Some(DAY), 2), (None, 1)] {
        service.store.rotate_bot_key(&bot.id, overlap, &operator()).await.unwrap().unwrap();
        assert_eq!(items(&bot).await, expected);
    }
    assert!(service.store.delete_bot(&bot.id, &operator()).await.unwrap());
    assert_eq!(items(&bot).await, 0);
}

#[tokio::test]
async fn api_keys_of_bots_of_0_1_are_found_once_they_are_migrated() {
    let service = Service::start_with_manual_clock().await;
    let (org, _) = service.org_with_owner().await;
    let bot = service.bot(&org, &[Role::Owner]).await;
    service.store.rotate_bot_key(&bot.id, Some(DAY), &operator()).await.unwrap().unwrap();
    for item in service.table.items().await {
        if text(&item, "bot_id") == bot.id.as_str() {
            service.table.delete(text(&item, "pk"), text(&item, "sk")).await;
        }
    }
    report(&service, &[&bot.credential]).await;
    assert!(is_active(&service, &bot.credential).await);
    let migrations = join_all((0..4).map(|_| service.store.write_api_key_items(&bot.id))).await;
    assert!(migrations.iter().all(|written| matches!(written, Ok(0 | 2))), "{migrations:?}");
    assert_eq!(service.store.write_api_key_items(&bot.id).await, Ok(0));
    report(&service, &[&bot.credential]).await;
    assert!(!is_active(&service, &bot.credential).await);
    // The key that was ended does not come back.
    assert_eq!(service.store.write_api_key_items(&bot.id).await, Ok(0));
    report(&service, &[&bot.credential]).await;
    assert_eq!(entries(&service, &org, "bot_api_key.leaked").await.len(), 1);
}

#[tokio::test]
async fn migration_while_a_key_is_rotated_leaves_the_items_of_its_keys() {
    let service = Service::start().await;
    let (org, _) = service.org_with_owner().await;
    for overlap in [None, Some(DAY)] {
        let bot = service.bot(&org, &[Role::Owner]).await;
        for item in service.table.items().await {
            if text(&item, "bot_id") == bot.id.as_str() {
                service.table.delete(text(&item, "pk"), text(&item, "sk")).await;
            }
        }
        let store = &service.store;
        let operator = operator();
        futures::future::join(
            join_all((0..4).map(|_| store.write_api_key_items(&bot.id))),
            join_all((0..4).map(|_| store.rotate_bot_key(&bot.id, overlap, &operator))),
        )
        .await;
        // The rest is up to the invariants at the end.
        store.write_api_key_items(&bot.id).await.unwrap();
    }
}

#[tokio::test]
async fn tokens_in_places_are_blanked_before_they_are_stored() {
    let service = Service::start_with_manual_clock().await;
    let (org, owner) = service.org_with_owner().await;
    let (token, other) = (service.issue(&org, &owner, "alice-laptop").await.token, unknown_token(TokenKind::OrgAccess));
    let url = format!("https://{other}:{token}@example.com/{other}?q={token}&r={}#{token}", token.replace('_', "%5f"));
    let answer = send(&service, &json!({"tokens": [{"token": token, "url": url}]})).await;
    assert_eq!(answer.status, 202, "{}", answer.text);
    let stored = json!([service.table.items().await]).to_string();
    for secret in [&token, &other] {
        assert!(!stored.contains(&secret[8..]), "{stored}");
    }
    let [entry] = &entries(&service, &org, "org_user_token.leaked").await[..] else { panic!("not one entry") };
    assert_eq!(text(entry, "detail"), "found at https://example.com/[token]");
}

#[tokio::test]
async fn places_must_be_https_urls() {
    let service = Service::start_with_manual_clock().await;
    let (org, owner) = service.org_with_owner().await;
    let token = service.issue(&org, &owner, "alice-laptop").await.token;
    for url in
        ["", "http://example.com/", "example.com", "javascript:alert(1)", &format!("https://a/{}", "a".repeat(2_048))]
    {
        let good = json!({"token": "x", "url": PLACE});
        let answer = send(&service, &json!({"tokens": [good, good, good, {"token": token, "url": url}]})).await;
        answer.assert_invalid("tokens[3].url");
        assert!(url.is_empty() || !answer.text.contains(url), "{}", answer.text);
    }
    for (entry, field) in [
        (json!({"token": token}), "tokens[0].url"),
        (json!({"url": PLACE}), "tokens[0].token"),
        (json!({"token": token, "url": PLACE, "type": "x"}), "tokens[0].type"),
        (json!({"token": 1, "url": PLACE}), "tokens[0].token"),
        (json!([token, PLACE]), "tokens[0]"),
        (json!(token), "tokens[0]"),
    ] {
        let answer = send(&service, &json!({"tokens": [entry]})).await;
        answer.assert_invalid(field);
        assert!(!answer.text.contains(&token), "{}", answer.text);
    }
    assert!(is_active(&service, &token).await);
}

#[tokio::test]
async fn report_has_1_to_1000_tokens() {
    let service = Service::start_with_manual_clock().await;
    let (org, owner) = service.org_with_owner().await;
    let original = service.issue(&org, &owner, "alice-laptop").await;
    let identifiers = (0..999).map(|number| format!("user-{number}")).collect();
    let copies = service.table.copies(&original, identifiers).await;
    let mut tokens: Vec<&str> = copies.iter().map(|copy| &*copy.token).collect();
    tokens.push(&original.token);
    assert_eq!(tokens.len(), 1_000);
    let mut too_many = tokens.clone();
    too_many.push("x");
    send(&service, &body(&too_many)).await.assert_invalid("tokens");
    send(&service, &body(&[])).await.assert_invalid("tokens");
    assert!(is_active(&service, &original.token).await);
    report(&service, &tokens).await;
    assert_eq!(service.list(&org, &owner, "").await["tokens"], json!([]));
    let items = service.table.items().await;
    let logged = items.iter().filter(|item| item["action"] == "org_user_token.leaked");
    let logged: BTreeSet<String> = logged.map(|entry| entry["target"]["id"].to_string()).collect();
    assert_eq!(logged.len(), 1_000);
    service.table.skip_final_check();
}

#[tokio::test]
async fn report_of_more_than_1_mib_is_413() {
    let service = Service::start_with_manual_clock().await;
    let good = body(&["x"]).to_string();
    let post = async |size: usize| {
        let padded = format!("{good}{}", " ".repeat(size - good.len()));
        let request = service.request(Method::POST, LEAKED).header("content-type", "application/json");
        service.send(request.body(padded)).await
    };
    assert_eq!(post(1_048_576).await.status, 202);
    let answer = post(1_048_577).await;
    answer.assert_error(413, "PAYLOAD_TOO_LARGE");
    assert!(answer.text.contains("1,048,576 bytes"), "{}", answer.text);
}

#[tokio::test]
async fn reports_of_one_source_are_limited_to_60_a_minute() {
    let service = Service::start_with_manual_clock().await;
    for _ in 0..60 {
        report(&service, &["x"]).await;
    }
    // Also one that would be refused for its body.
    for body in [body(&["x"]), json!({})] {
        let answer = send(&service, &body).await;
        answer.assert_error(429, "RATE_LIMITED");
        assert_eq!(answer.header("retry-after"), "60");
    }
    service.clock.advance(MINUTE);
    report(&service, &["x"]).await;
}

#[tokio::test]
async fn well_formed_tokens_of_one_source_are_limited_to_2000_a_minute() {
    let service = Service::start_with_manual_clock().await;
    let (org, owner) = service.org_with_owner().await;
    let token = service.issue(&org, &owner, "alice-laptop").await.token;
    let unknown = |count: usize| (0..count).map(|_| unknown_token(TokenKind::OrgUser)).collect::<Vec<_>>();
    let send_all = async |tokens: &[String]| {
        let tokens: Vec<&str> = tokens.iter().map(String::as_str).collect();
        send(&service, &body(&tokens)).await
    };
    // What is malformed or a duplicate does not count.
    assert_eq!(send_all(&vec![unknown(1).remove(0); 1_000]).await.status, 202);
    assert_eq!(send_all(&vec!["x".to_owned(); 1_000]).await.status, 202);
    assert_eq!(send_all(&unknown(1_000)).await.status, 202);
    assert_eq!(send_all(&unknown(998)).await.status, 202);
    let mut two = unknown(1);
    two.push(token.clone());
    let answer = send_all(&two).await;
    answer.assert_error(429, "RATE_LIMITED");
    assert_eq!(answer.header("retry-after"), "60");
    // Refused as a whole, and not counted.
    assert!(is_active(&service, &token).await);
    assert_eq!(send_all(&two[1..]).await.status, 202);
    assert!(!is_active(&service, &token).await);
    service.clock.advance(MINUTE);
    assert_eq!(send_all(&unknown(1_000)).await.status, 202);
}

#[tokio::test]
async fn report_that_fails_is_503_and_its_repeat_does_the_rest() {
    let (service, faults) = Service::start_with_faults().await;
    let (org, owner) = service.org_with_owner().await;
    let all = credentials(&service, &org, &owner).await;
    let tokens: Vec<&str> = all.iter().map(|(_, credential)| &**credential).collect();
    // Both counters, the tokens, the policy, and some of the transactions.
    for place in [0, 1, 2, 3, 8] {
        faults.arm(place, &[], Some(Fault::LostBefore));
        let answer = send(&service, &body(&tokens)).await;
        faults.disarm();
        answer.assert_error(503, "SERVICE_UNAVAILABLE");
    }
    report(&service, &tokens).await;
    for (action, credential) in &all {
        assert!(!is_active(&service, credential).await, "{action}");
        assert_eq!(entries(&service, &org, action).await.len(), 1, "{action}");
    }
}

#[tokio::test]
async fn token_of_a_later_version_is_left_alone() {
    let service = Service::start_with_manual_clock().await;
    let (org, owner) = service.org_with_owner().await;
    let token = service.issue(&org, &owner, "alice-laptop").await;
    let is_its = |item: &&Value| item["kind"] == json!({"S": "org_user"}) && item["id"] == json!({"S": token.id});
    let original = service.table.raw_items(TABLE).iter().find(is_its).unwrap().clone();
    let mut later = original.clone();
    later["kind"] = json!({"S": "of_a_later_version"});
    service.table.put(TABLE, &later).await;
    report(&service, &[&token.token]).await;
    service.table.put(TABLE, &original).await;
    assert!(is_active(&service, &token.token).await);
}
