//! Revocation of the caller's own token.

use std::time::Duration;

use futures::future::join_all;
use reqwest::Method;
use serde_json::{Value, json};
use shared::permissions::Role;
use tests::ci::WORKLOAD;
use tests::coverage::Fixtures;
use tests::table::text;
use tests::{Answer, Service, operator};

const SELF: &str = "/v1/tokens/self";

async fn revoke(service: &Service, credential: &str) -> Answer {
    service.call(Method::DELETE, SELF, credential).await
}

/// A credential of every kind that belongs to the organization of the fixtures: the kind in its audit
/// entry, and the credential.
async fn credentials(service: &Service, fixtures: &Fixtures) -> Vec<(&'static str, String)> {
    let bot = service.bot(&fixtures.org, &[]).await;
    vec![
        ("org_user_token", fixtures.token.token.clone()),
        ("api_key", fixtures.api_key.key.clone()),
        ("org_access_token", fixtures.access_token.token.clone()),
        ("bot_token", fixtures.job.clone()),
        ("bot_api_key", bot.credential),
    ]
}

async fn entries(service: &Service, fixtures: &Fixtures, kind: &str) -> Vec<Value> {
    let mut entries = service.table.audit_entries(&fixtures.org.id).await;
    entries.retain(|entry| entry["action"] == format!("{kind}.revoke"));
    entries
}

#[tokio::test]
async fn token_of_every_kind_revokes_itself_and_nothing_else() {
    let service = Service::start_with_manual_clock().await;
    let (fixtures, others) = (Fixtures::create(&service).await, Fixtures::create(&service).await);
    let kept = credentials(&service, &others).await;
    for (kind, credential) in credentials(&service, &fixtures).await {
        let answer = revoke(&service, &credential).await;
        assert_eq!((answer.status.as_u16(), answer.text.as_str()), (204, ""), "{kind}");
        service.whoami(&credential).await.assert_error(401, "UNAUTHORIZED");
        revoke(&service, &credential).await.assert_error(401, "UNAUTHORIZED");
        let [entry] = &entries(&service, &fixtures, kind).await[..] else { panic!("not one entry of {kind}") };
        assert_eq!(entry["actor"], entry["target"], "{kind}");
        assert_eq!(text(entry, "source_ip"), "127.0.0.1", "{kind}");
        assert_eq!(entry["workload"].as_str(), (kind == "bot_token").then_some(WORKLOAD), "{kind}");
    }
    assert_eq!(revoke(&service, &fixtures.email_token).await.status, 204);
    assert!(!service.is_active(&fixtures.email_token).await);
    assert!(service.is_active(&others.email_token).await);
    for (kind, credential) in kept {
        assert_eq!(service.whoami(&credential).await.status, 200, "{kind}");
    }
    assert_eq!(service.whoami(&fixtures.owner.credential).await.status, 200);
}

#[tokio::test]
async fn revocation_needs_neither_guard_nor_an_organization_in_good_standing() {
    let service = Service::start_with_manual_clock().await;
    let fixtures = Fixtures::create(&service).await;
    let credentials = credentials(&service, &fixtures).await;
    service.set_guard(&fixtures.org.id, false).await;
    service.store.set_suspended(&fixtures.org.id, true, &operator()).await.unwrap().unwrap();
    for (kind, credential) in credentials {
        assert_eq!(revoke(&service, &credential).await.status, 204, "{kind}");
    }
}

#[tokio::test]
async fn of_two_revocations_at_once_one_is_204_and_the_other_401() {
    let service = Service::start_with_manual_clock().await;
    for _ in 0..3 {
        let fixtures = Fixtures::create(&service).await;
        let mut credentials = credentials(&service, &fixtures).await;
        credentials.push(("email_token", fixtures.email_token.clone()));
        for (kind, credential) in credentials {
            let answers = join_all((0..4).map(|_| revoke(&service, &credential))).await;
            let mut statuses: Vec<u16> = answers.iter().map(|answer| answer.status.as_u16()).collect();
            statuses.sort_unstable();
            assert_eq!(statuses, [204, 401, 401, 401], "{kind}");
            if kind != "email_token" {
                assert_eq!(entries(&service, &fixtures, kind).await.len(), 1, "{kind}");
            }
        }
    }
}

#[tokio::test]
async fn bots_other_api_key_survives() {
    let service = Service::start_with_manual_clock().await;
    let (org, _) = service.org_with_owner().await;
    let day = Some(Duration::from_secs(24 * 60 * 60));
    for revokes_newer in [true, false] {
        let bot = service.bot(&org, &[Role::Owner]).await;
        let newer = service.store.rotate_bot_key(&bot.id, day, &operator()).await.unwrap().unwrap();
        let newer = format!("{}:{}", newer.expose(), bot.id);
        let (ended, kept) = if revokes_newer { (&newer, &bot.credential) } else { (&bot.credential, &newer) };
        assert_eq!(revoke(&service, ended).await.status, 204);
        service.whoami(ended).await.assert_error(401, "UNAUTHORIZED");
        assert_eq!(service.whoami(kept).await.status, 200);
    }
}

#[tokio::test]
async fn removed_email_token_leaves_no_erasure_and_its_address_may_register_again() {
    let service = Service::start_with_manual_clock().await;
    let key = service.email_token("you@example.com").await;
    assert_eq!(revoke(&service, &key).await.status, 204);
    let items = service.table.items().await;
    assert!(!items.iter().any(|item| text(item, "pk") == "ERASURES"));
    assert!(service.is_active(&service.email_token("you@example.com").await).await);
}

#[tokio::test]
async fn sessions_and_unknown_tokens_are_401() {
    let service = Service::start_with_manual_clock().await;
    let (org, _) = service.org_with_owner().await;
    let visitor = service.member(&org, &[Role::Owner]).await;
    let cookie = visitor.cookie();
    let secret = cookie.split('=').nth(1).unwrap().trim_end_matches(';');
    revoke(&service, secret).await.assert_error(401, "UNAUTHORIZED");
    let with_cookie = service.request(Method::DELETE, SELF).header("cookie", &cookie);
    service.send(with_cookie).await.assert_error(401, "UNAUTHORIZED");
    assert_eq!(visitor.get("/console/account").await.status, 200);
}

#[tokio::test]
async fn body_and_query_are_refused_and_revoke_nothing() {
    let service = Service::start_with_manual_clock().await;
    let token = Fixtures::create(&service).await.token.token;
    let request = service.request(Method::DELETE, SELF).bearer_auth(&token).json(&json!({"token": "x"}));
    service.send(request).await.assert_invalid("token");
    service.call(Method::DELETE, &format!("{SELF}?token=x"), &token).await.assert_invalid("token");
    assert_eq!(service.whoami(&token).await.status, 200);
}
