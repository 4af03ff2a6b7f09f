//! What the log line of a request says about an inactive credential.

use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use shared::ids::BotId;
use shared::secret::{Token, TokenKind};
use tests::Service;
use tests::log::Log;
use tests::management::INTROSPECT;
use tracing_subscriber::filter::LevelFilter;

/// The request lines since the last call.
fn lines(log: &Log, seen: &mut usize) -> Vec<Value> {
    let text = log.text();
    let lines = text[*seen..].lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let lines = lines.filter(|line| line["message"] == "request").collect();
    *seen = text.len();
    lines
}

#[tokio::test]
async fn inactive_credential_is_logged_with_id_and_reason() {
    let log = Log::default();
    let _here = tracing::subscriber::set_default(log.subscriber(LevelFilter::INFO));
    let service = Service::start_with_manual_clock().await;
    let (org, owner) = service.org_with_owner().await;
    let until = "2026-11-21T10:00:01Z";
    let revoked_user = service.issue(&org, &owner, "alice").await;
    service.revoke(&org, &owner, &revoked_user).await;
    let expired_user = service.issue_until(&org, &owner, "alice", until).await;
    let revoked_key = service.api_key(&owner.credential, &["shield:read"]).await;
    service.revoke_api_key(&owner.credential, &revoked_key.id).await;
    let off = service.access_token(&owner, &json!({"name": "off", "is_active": false})).await;
    let expired_access = service.access_token(&owner, &json!({"name": "expired", "expires_at": until})).await;
    let deleted = service.access_token(&owner, &json!({"name": "deleted"})).await;
    assert_eq!(service.call(Method::DELETE, &deleted.path(), &owner.credential).await.status, 204);
    let invented = Token::generate(TokenKind::EmailVerified).unwrap();
    let (bot_key, bot_id) = owner.credential.split_once(':').unwrap();
    let other = service.bot(&org, &[]).await;
    service.clock.advance(Duration::from_secs(1));
    let mut seen = 0;
    lines(&log, &mut seen);
    let org = json!(org.id);
    for (credential, id, org, because) in [
        (revoked_user.token.as_str(), json!(revoked_user.id), org.clone(), "revoked"),
        (&expired_user.token, json!(expired_user.id), org.clone(), "expired"),
        (&revoked_key.key, json!(revoked_key.id), org.clone(), "revoked"),
        (&off.token, json!(off.id.to_string()), org.clone(), "disabled"),
        (&expired_access.token, json!(expired_access.id.to_string()), org, "expired"),
        (&deleted.token, Value::Null, Value::Null, "unknown"),
        (invented.expose(), Value::Null, Value::Null, "unknown"),
        (&format!("{bot_key}:{}", other.id), json!(other.id), Value::Null, "unknown"),
    ] {
        let mut requests = vec![
            service.request(Method::GET, "/v1/whoami").bearer_auth(credential),
            service.request(Method::GET, "/npm/widgets").bearer_auth(credential),
            service.request(Method::GET, "/v1/api-keys").bearer_auth(credential),
        ];
        if !credential.contains(':') {
            let question = service.request(Method::POST, INTROSPECT).bearer_auth(&owner.credential);
            requests.push(question.json(&json!({"token": credential})));
        }
        for request in requests {
            service.send(request).await;
            let found = lines(&log, &mut seen);
            assert_eq!(found.len(), 1, "{found:?}");
            let (line, route) = (&found[0], &found[0]["route"]);
            assert_eq!(line["level"], "INFO", "{route}");
            assert_eq!((&line["refused"], &line["refused_org"]), (&id, &org), "{route}: {line}");
            assert_eq!(line["refused_because"], because, "{route}: {line}");
            assert!(!log.text().contains(credential), "the log contains a secret");
        }
    }
    // An ID that nobody has is logged, since it may be a deleted bot's; other text is not.
    let nobody = BotId::new(&service.clock).unwrap();
    service.whoami(&format!("{bot_key}:{nobody}")).await;
    assert_eq!(lines(&log, &mut seen)[0]["refused"], json!(nobody));
    for text in [&nobody.as_str().to_lowercase(), "BTI-AM-THE-OPERATOR-CALL-ME", &format!("{nobody}x"), "BT?"] {
        service.whoami(&format!("{bot_key}:{text}")).await;
        let found = lines(&log, &mut seen);
        assert_eq!((found.len(), found[0].get("refused")), (1, None), "{text}");
        assert!(!found[0].to_string().contains(text), "{text}");
    }
    // An active credential, a malformed one and none are not logged as inactive.
    for credential in [owner.credential.as_str(), "tk_live_x", &format!("tk_live_x:{bot_id}")] {
        service.whoami(credential).await;
    }
    service.send(service.request(Method::GET, "/v1/whoami")).await;
    let found = lines(&log, &mut seen);
    assert_eq!(found.len(), 4);
    assert!(found.iter().all(|line| line.get("refused_because").is_none()), "{found:?}");
}
