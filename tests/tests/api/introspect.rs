//! `POST /v1/tokens/introspect`

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use futures::StreamExt;
use futures::future::{join, join_all};
use futures::stream;
use reqwest::{Method, header};
use serde_json::{Value, json};
use shared::domain::Plan;
use shared::permissions::Role;
use shared::secret::TokenKind;
use tests::coverage::all_scopes;
use tests::management::{API_KEYS, INTROSPECT};
use tests::table::text;
use tests::{Answer, Bot, Org, Service};

const INACTIVE: &str = r#"{"active":false}"#;

/// A service, an organization with two projects, its owner bot, and a bot with only the
/// introspector role.
async fn set_up() -> (Service, Org, Bot, Bot) {
    let service = Service::start_with_manual_clock().await;
    let (org, owner) = service.org_on(Plan::Enterprise).await;
    service.projects(&org, &["greenhouse", "coldroom"]).await;
    let introspector = service.bot(&org, &[Role::TokenIntrospector]).await;
    (service, org, owner, introspector)
}

async fn ask(service: &Service, bot: &Bot, body: &Value) -> Answer {
    service.post(INTROSPECT, &bot.credential, body).await
}

async fn ask_by_form(service: &Service, bot: &Bot, form: &str) -> Answer {
    let request = service.request(Method::POST, INTROSPECT).bearer_auth(&bot.credential);
    let request = request.header(header::CONTENT_TYPE, "application/x-www-form-urlencoded");
    service.send(request.body(form.to_owned())).await
}

#[tokio::test]
async fn active_tokens_of_each_kind_are_described() {
    let (service, org, owner, introspector) = set_up().await;
    let key = json!({
        "name": "ci", "environment": "test", "scopes": ["shield:read", "org:write"], "expires_at": "2027-01-01T00:00:00Z",
    });
    let key = service.api_key_with(&owner.credential, &key).await;
    let user = service.issue(&org, &owner, "alice-laptop").await;
    let access = json!({"name": "relay", "access_config": {"role": "operator", "projects": ["greenhouse"]}});
    let access = service.access_token(&owner, &access).await;
    let everywhere =
        service.access_token(&owner, &json!({"name": "all", "access_config": {"all_projects": true}})).await;
    let iat = 1_795_255_200;
    for (token, expected) in [
        (
            &key.key,
            json!({
                "token_type": "api_key", "id": key.id, "sub": format!("api_key:{}", key.id),
                "environment": "test", "scope": "shield:read org:write", "exp": 1_798_761_600,
            }),
        ),
        (&user.token, json!({"token_type": "org_user_token", "id": user.id, "sub": "alice-laptop"})),
        (
            &access.token,
            json!({
                "token_type": "org_access_token", "id": 1, "sub": "org_access_token:1",
                "role": "operator", "projects": ["greenhouse"],
            }),
        ),
        (
            &everywhere.token,
            json!({
                "token_type": "org_access_token", "id": 2, "sub": "org_access_token:2",
                "role": "readonly", "projects": ["*"],
            }),
        ),
    ] {
        let mut expected = expected;
        let common = json!({"active": true, "org_id": org.id, "iat": iat});
        expected.as_object_mut().unwrap().extend(common.as_object().unwrap().clone());
        let by_json = ask(&service, &introspector, &json!({"token": token})).await;
        assert_eq!((by_json.status.as_u16(), by_json.json()), (200, expected.clone()));
        assert_eq!(by_json.header("cache-control"), "no-store");
        // RFC 7662 uses forms and allows a type hint; a wrong hint must not matter.
        for form in [
            format!("token={token}"),
            format!("token_type_hint=access_token&token={token}"),
            format!("token={token}&token_type_hint=refresh_token"),
        ] {
            assert_eq!(ask_by_form(&service, &introspector, &form).await.json(), expected, "{form}");
        }
        let hinted = json!({"token": token, "token_type_hint": "access_token"});
        assert_eq!(service.introspect(&owner, &hinted).await, expected);
    }
}

#[tokio::test]
async fn inactive_and_foreign_tokens_get_identical_responses() {
    let (service, org, owner, introspector) = set_up().await;
    let (foreign_org, stranger) = service.org_with_owner().await;
    let until = "2026-11-21T10:00:01Z";
    let revoked_key = service.api_key(&owner.credential, &["shield:read"]).await;
    service.revoke_api_key(&owner.credential, &revoked_key.id).await;
    let expired_key = json!({"name": "x", "environment": "live", "scopes": ["shield:read"], "expires_at": until});
    let expired_key = service.api_key_with(&owner.credential, &expired_key).await;
    let revoked_user = service.issue(&org, &owner, "alice").await;
    service.revoke(&org, &owner, &revoked_user).await;
    let expired_user = service.issue_until(&org, &owner, "alice", until).await;
    let off = service.access_token(&owner, &json!({"name": "off", "is_active": false})).await;
    let expired_access = service.access_token(&owner, &json!({"name": "expired", "expires_at": until})).await;
    let deleted = service.access_token(&owner, &json!({"name": "deleted"})).await;
    assert_eq!(service.call(Method::DELETE, &deleted.path(), &owner.credential).await.status, 204);
    let good = service.api_key(&owner.credential, &["shield:read"]).await;
    let (bot_key, bot_id) = owner.credential.split_once(':').unwrap();
    service.clock.advance(Duration::from_secs(1));
    let mut tokens: Vec<(&str, String)> = vec![
        ("revoked API key", revoked_key.key),
        ("expired API key", expired_key.key),
        ("revoked user token", revoked_user.token),
        ("expired user token", expired_user.token),
        ("disabled access token", off.token),
        ("expired access token", expired_access.token),
        ("deleted access token", deleted.token),
        ("foreign API key", service.api_key(&stranger.credential, &["shield:read"]).await.key),
        ("foreign user token", service.issue(&foreign_org, &stranger, "alice").await.token),
        ("foreign access token", service.access_token(&stranger, &json!({"name": "a"})).await.token),
        ("a person's token", service.email_token("alice@example.com").await),
        ("a bot's key", bot_key.to_owned()),
        ("a bot's credential", owner.credential.clone()),
        ("a bot ID", bot_id.to_owned()),
        ("a mistyped token", tests::coverage::mistyped(&good.key)),
        ("nothing", String::new()),
        ("a leading space", format!(" {}", good.key)),
        ("a trailing line break", format!("{}\n", good.key)),
        ("upper case", good.key.to_uppercase()),
        ("half", good.key[..40].to_owned()),
        ("twice", good.key.repeat(2)),
        ("another script", "ключ🔑".to_owned()),
        ("zero bytes", "\0\0".to_owned()),
        ("long", "x".repeat(10_000)),
    ];
    for kind in [TokenKind::OrgUser, TokenKind::ApiKeyLive, TokenKind::ApiKeyTest, TokenKind::OrgAccess] {
        tokens.push(("unknown", tests::coverage::unknown_token(kind)));
    }
    for (what, token) in tokens {
        for body in [
            json!({"token": token}),
            json!({"token": token, "scope": "shield:read", "project": "greenhouse", "role": "readonly"}),
        ] {
            let answer = ask(&service, &introspector, &body).await;
            assert_eq!((answer.status.as_u16(), answer.text.as_str()), (200, INACTIVE), "{what}");
        }
    }
    assert_eq!(service.introspect(&introspector, &json!({"token": good.key})).await["active"], true);
}

#[tokio::test]
async fn invalid_parameters_are_named() {
    let (service, _, owner, introspector) = set_up().await;
    let token = service.api_key(&owner.credential, &["shield:read"]).await.key;
    for (fields, field) in [
        (json!({"token": null}), "token"),
        (json!({"token": 7}), "token"),
        (json!({"token": [token]}), "token"),
        (json!({"scope": ""}), "scope"),
        (json!({"scope": "shield"}), "scope"),
        (json!({"scope": "shield:read,org:read"}), "scope"),
        (json!({"scope": "shield:read  org:read"}), "scope"),
        (json!({"scope": " shield:read"}), "scope"),
        (json!({"scope": ["shield:read"]}), "scope"),
        (json!({"project": ""}), "project"),
        (json!({"project": "*"}), "project"),
        (json!({"project": "a b"}), "project"),
        (json!({"role": "admin"}), "role"),
        (json!({"role": "Manager"}), "role"),
        (json!({"environment": "staging"}), "environment"),
        (json!({"environment": "Live"}), "environment"),
        (json!({"environment": ""}), "environment"),
        (json!({"scopes": "shield:read"}), "scopes"),
        (json!({"projects": "greenhouse"}), "projects"),
        (json!({"org_id": "x"}), "org_id"),
    ] {
        let mut body = json!({"token": token});
        body.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        ask(&service, &introspector, &body).await.assert_invalid(field);
        let is_text = fields.as_object().unwrap().values().all(Value::is_string);
        if is_text {
            let (name, value) = fields.as_object().unwrap().iter().next().unwrap();
            let value = text(&json!({"value": value}), "value").replace(' ', "+");
            ask_by_form(&service, &introspector, &format!("token={token}&{name}={value}")).await.assert_invalid(field);
        }
    }
    ask(&service, &introspector, &json!({})).await.assert_invalid("token");
    ask_by_form(&service, &introspector, "").await.assert_invalid("token");
    ask_by_form(&service, &introspector, &format!("token={token}&token={token}")).await.assert_invalid("token");
    let request = service.request(Method::POST, INTROSPECT).bearer_auth(&introspector.credential);
    let answer = service.send(request.header(header::CONTENT_TYPE, "text/plain").body(token.clone())).await;
    answer.assert_error(415, "UNSUPPORTED_MEDIA_TYPE");
    // A token in the query would end up in access logs.
    let in_query = service.post(&format!("{INTROSPECT}?token={token}"), &introspector.credential, &json!({})).await;
    in_query.assert_invalid("token");
}

#[tokio::test]
async fn only_introspector_and_owner_bots_introspect() {
    let (service, org, owner, _) = set_up().await;
    let all_scopes = all_scopes();
    let key = service.api_key(&owner.credential, &all_scopes).await.key;
    let body = json!({"token": key});
    for &role in Role::ALL {
        let bot = service.bot(&org, &[role]).await;
        let answer = ask(&service, &bot, &body).await;
        match role {
            Role::Owner | Role::TokenIntrospector => assert_eq!(answer.json()["active"], true, "{role:?}"),
            _ => answer.assert_error(403, "FORBIDDEN"),
        }
    }
    let access = json!({"name": "a", "access_config": {"role": "manager", "all_projects": true}});
    for credential in [
        key.clone(),
        service.issue(&org, &owner, "alice").await.token,
        service.access_token(&owner, &access).await.token,
        service.email_token("alice@example.com").await,
    ] {
        service.post(INTROSPECT, &credential, &body).await.assert_error(403, "FORBIDDEN");
    }
}

/// The `permitted` of each query; `None` if the token is inactive.
async fn permitted(service: &Service, bot: &Bot, token: &str, questions: &[Value]) -> Vec<Option<Value>> {
    let answers = join_all(questions.iter().map(|question| async move {
        let mut body = question.clone();
        body["token"] = json!(token);
        let answer = ask(service, bot, &body).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
        if answer.text == INACTIVE {
            return None;
        }
        Some(answer.json().get("permitted").cloned().unwrap_or(Value::Null))
    }));
    answers.await
}

/// All combinations of these parameters.
fn questions(scopes: &[Option<&str>], projects: &[Option<&str>], roles: &[Option<&str>]) -> Vec<Value> {
    let mut questions = Vec::new();
    for scope in scopes {
        for project in projects {
            for role in roles {
                let mut question = json!({});
                for (name, value) in [("scope", scope), ("project", project), ("role", role)] {
                    if let Some(value) = value {
                        question[name] = json!(value);
                    }
                }
                questions.push(question);
            }
        }
    }
    questions
}

const ROLES: [&str; 3] = ["readonly", "operator", "manager"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn role_and_project_checks_hold_in_every_state() {
    let (service, _, owner, introspector) = set_up().await;
    let roles: Vec<Option<&str>> = [None].into_iter().chain(ROLES.map(Some)).collect();
    let projects = [None, Some("greenhouse"), Some("coldroom")];
    let questions = questions(&[None, Some("shield:read")], &projects, &roles);
    let rank = |role: &str| ROLES.iter().position(|known| *known == role).unwrap();
    let mut tokens = Vec::new();
    for role in ROLES {
        for (all_projects, projects) in [(false, &[][..]), (false, &["greenhouse"]), (true, &[])] {
            let body = json!({
                "name": format!("{role} {all_projects} {projects:?}"), "expires_at": "2026-11-21T11:00:00Z",
                "access_config": {"role": role, "all_projects": all_projects, "projects": projects},
            });
            tokens.push((role, all_projects, projects, service.access_token(&owner, &body).await));
        }
    }
    for state in ["off", "active", "expired"] {
        for (role, all_projects, projects, token) in &tokens {
            let is_active = match state {
                "off" => Some(false),
                "active" => Some(true),
                _ => None,
            };
            if let Some(is_active) = is_active {
                let body = json!({"is_active": is_active});
                let answer = service.send_json(Method::PATCH, &token.path(), &owner.credential, &body).await;
                assert_eq!(answer.status, 200, "{}", answer.text);
            }
            let answers = permitted(&service, &introspector, &token.token, &questions).await;
            for (question, answer) in questions.iter().zip(answers) {
                let asked = |name: &str| question.get(name).map(|value| value.as_str().unwrap());
                let expected = if question == &json!({}) {
                    Value::Null
                } else {
                    let of_scope = asked("scope").is_none();
                    let of_project = asked("project").is_none_or(|p| *all_projects || projects.contains(&p));
                    let of_role = asked("role").is_none_or(|least| rank(role) >= rank(least));
                    json!(of_scope && of_project && of_role)
                };
                let expected = (state == "active").then_some(expected);
                assert_eq!(answer, expected, "{state} {role} {all_projects} {projects:?}: {question}");
            }
        }
        if state == "active" {
            service.clock.advance(Duration::from_secs(3_600));
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn scope_checks_hold_in_every_state() {
    let (service, org, owner, introspector) = set_up().await;
    let all = all_scopes();
    let (pair, everything) = (format!("{} {}", all[0], all[1]), all.join(" "));
    let mut scopes: Vec<Option<&str>> = [None].into_iter().chain(all.iter().copied().map(Some)).collect();
    scopes.extend([Some(pair.as_str()), Some(&everything)]);
    let mut questions = questions(&scopes, &[None], &[None]);
    // Projects and roles do not apply to API keys, so they are never permitted.
    for mut not_for_keys in [json!({"project": "greenhouse"}), json!({"role": "readonly"})] {
        questions.push(not_for_keys.clone());
        not_for_keys["scope"] = json!(all[0]);
        questions.push(not_for_keys);
    }
    let mut held: Vec<Vec<&str>> = all.iter().map(|scope| vec![*scope]).collect();
    held.extend([vec![all[1], all[0]], all.to_vec()]);
    for state in ["active", "revoked", "expired"] {
        let mut keys = Vec::new();
        for held in &held {
            let expires_at = service.clock.now().plus(Duration::from_secs(60)).to_string();
            let body = json!({"name": state, "environment": "live", "scopes": held, "expires_at": expires_at});
            let key = service.api_key_with(&owner.credential, &body).await;
            if state == "revoked" {
                service.revoke_api_key(&owner.credential, &key.id).await;
            }
            keys.push(key);
        }
        if state == "expired" {
            service.clock.advance(Duration::from_secs(60));
        }
        for (held, key) in held.iter().zip(&keys) {
            let answers = permitted(&service, &introspector, &key.key, &questions).await;
            for (question, answer) in questions.iter().zip(answers) {
                let expected = match (question.get("scope"), question.as_object().unwrap().len()) {
                    (None, 0) => Value::Null,
                    (Some(scope), 1) => {
                        json!(scope.as_str().unwrap().split(' ').all(|scope| held.contains(&scope)))
                    }
                    _ => json!(false),
                };
                assert_eq!(answer, (state == "active").then_some(expected), "{state} {held:?}: {question}");
            }
        }
    }
    // None of the parameters applies to an org user token.
    let user = service.issue(&org, &owner, "alice").await;
    for (question, answer) in questions.iter().zip(permitted(&service, &introspector, &user.token, &questions).await) {
        let expected = if question == &json!({}) { Value::Null } else { json!(false) };
        assert_eq!(answer, Some(expected), "{question}");
    }
}

#[tokio::test]
async fn environment_check_holds_for_keys_of_that_environment_alone() {
    let (service, org, owner, introspector) = set_up().await;
    let questions: Vec<Value> = ["live", "test"].map(|environment| json!({"environment": environment})).into();
    for (environment, expected) in [("live", [true, false]), ("test", [false, true])] {
        let body = json!({"name": "a", "environment": environment, "scopes": ["shield:read"]});
        let key = service.api_key_with(&owner.credential, &body).await.key;
        let expected = expected.map(|permitted| Some(json!(permitted)));
        assert_eq!(permitted(&service, &introspector, &key, &questions).await, expected, "{environment}");
        // All questions must hold.
        for (scope, holds) in [("shield:read", true), ("shield:write", false)] {
            let question = json!({"environment": environment, "scope": scope});
            assert_eq!(permitted(&service, &introspector, &key, &[question]).await, [Some(json!(holds))]);
        }
        let by_form = format!("token={key}&environment={environment}");
        assert_eq!(ask_by_form(&service, &introspector, &by_form).await.json()["permitted"], true);
    }
    // Other kinds have no environment.
    let user = service.issue(&org, &owner, "alice").await.token;
    let access = service.access_token(&owner, &json!({"name": "a"})).await.token;
    for token in [user, access] {
        let answers = permitted(&service, &introspector, &token, &questions).await;
        assert_eq!(answers, [Some(json!(false)), Some(json!(false))]);
    }
}

/// Introspects a token concurrently while it is being deactivated. No introspection that starts
/// after the response to the deactivation may return active.
async fn race(service: &Service, introspector: &Bot, token: &str, times: usize, action: impl Future<Output = Answer>) {
    const CONCURRENCY: usize = 100;
    let (body, is_over) = (json!({"token": token}), AtomicBool::new(false));
    let (active, begun_after) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let (seen_active, mut was_seen_active) = tokio::sync::watch::channel(false);
    let introspection = async || {
        let began_after = is_over.load(Ordering::SeqCst);
        let answer = ask(service, introspector, &body).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
        if began_after {
            assert_eq!(answer.text, INACTIVE, "active after revocation");
            begun_after.fetch_add(1, Ordering::SeqCst);
        } else if answer.json()["active"] == true {
            active.fetch_add(1, Ordering::SeqCst);
            seen_active.send_replace(true);
        }
    };
    let introspections = stream::iter(0..times).for_each_concurrent(CONCURRENCY, |_| introspection());
    let action = async {
        was_seen_active.wait_for(|seen| *seen).await.unwrap();
        let answer = action.await;
        assert!(answer.status.is_success(), "{}", answer.text);
        is_over.store(true, Ordering::SeqCst);
        // Ensures that some introspections start after the deactivation.
        join_all((0..10).map(|_| introspection())).await;
    };
    join(introspections, action).await;
    assert!(active.load(Ordering::SeqCst) > 0 && begun_after.load(Ordering::SeqCst) >= 10);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_introspection_is_active_after_revocation() {
    let (service, _, owner, introspector) = set_up().await;
    let key = service.api_key(&owner.credential, &["shield:read"]).await;
    let path = format!("{API_KEYS}/{}", key.id);
    let revocation = service.call(Method::DELETE, &path, &owner.credential);
    race(&service, &introspector, &key.key, 1_000, revocation).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_way_to_deactivate_a_token_is_immediate() {
    let (service, org, owner, introspector) = set_up().await;
    let user = service.issue(&org, &owner, "alice").await;
    let path = org.org_user_tokens(&format!("/by-id/{}", user.id));
    let revocation = service.call(Method::DELETE, &path, &owner.credential);
    race(&service, &introspector, &user.token, 60, revocation).await;

    let user = service.issue(&org, &owner, "alice").await;
    let (path, body) = (org.org_user_tokens("/revoke-by-user"), json!({"user_identifier": "alice"}));
    let revocation = service.post(&path, &owner.credential, &body);
    race(&service, &introspector, &user.token, 60, revocation).await;

    let token = service.access_token(&owner, &json!({"name": "a"})).await;
    let (path, body) = (token.path(), json!({"is_active": false}));
    let switch = service.send_json(Method::PATCH, &path, &owner.credential, &body);
    race(&service, &introspector, &token.token, 60, switch).await;
    let on = service.send_json(Method::PATCH, &path, &owner.credential, &json!({"is_active": true})).await;
    assert_eq!(on.status, 200);
    let deletion = service.call(Method::DELETE, &path, &owner.credential);
    race(&service, &introspector, &token.token, 60, deletion).await;
}

#[tokio::test]
async fn repeated_use_within_a_minute_costs_one_read_and_no_write() {
    let (service, org, owner, introspector) = set_up().await;
    let user = service.issue(&org, &owner, "alice").await.token;
    let key = service.api_key(&owner.credential, &["shield:read"]).await.key;
    let access = service.access_token(&owner, &json!({"name": "a"})).await.token;
    let person = service.email_token("alice@example.com").await;
    for token in [&user, &key, &access] {
        let body = json!({"token": token, "scope": "shield:read", "project": "greenhouse"});
        let first = ask(&service, &introspector, &body).await.cost();
        let second = ask(&service, &introspector, &body).await.cost();
        // One read each for the calling bot and the introspected token.
        assert_eq!((first.calls, first.read, first.write), (3, 2.0, 1.0), "{token}");
        assert_eq!((second.calls, second.read, second.write), (2, 2.0, 0.0), "{token}");
        service.clock.advance(Duration::from_secs(59));
        assert_eq!(ask(&service, &introspector, &body).await.cost(), second);
        service.clock.advance(Duration::from_secs(1));
        assert_eq!(ask(&service, &introspector, &body).await.cost(), first);
    }
    // The holder authenticates with the token itself, so there is no second read.
    service.clock.advance(Duration::from_secs(60));
    for token in [&user, &key, &access, &person] {
        let (first, second) = (service.whoami(token).await.cost(), service.whoami(token).await.cost());
        assert_eq!((first.calls, first.read, first.write), (2, 1.0, 1.0));
        assert_eq!((second.calls, second.read, second.write), (1, 1.0, 0.0));
    }
}
