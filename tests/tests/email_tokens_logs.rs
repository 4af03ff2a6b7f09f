//! Logs of email-verified tokens. This test has its own program because the log is global to a
//! process.

use reqwest::Method;
use serde_json::json;
use shared::email::EmailAddress;
use tests::email::{full_life_cycle, new_token};
use tests::log::Log;
use tests::mail_faults::MailFault;
use tests::{Service, unlimited};
use tracing_subscriber::filter::LevelFilter;

#[tokio::test]
async fn logs_contain_no_token_code_hash_or_address() {
    let logs = Log::default();
    tracing::subscriber::set_global_default(logs.subscriber(LevelFilter::TRACE)).unwrap();
    let (service, ses) = Service::start_with_mail_faults(unlimited()).await;
    let address = "Alice.Secret+Name@example.com";
    let (keys, codes) = full_life_cycle(&service, address).await;
    for fault in [MailFault::Rejected, MailFault::LostAfter] {
        ses.fail(fault);
        service.person(address).try_register().await.assert_error(503, "SERVICE_UNAVAILABLE");
        let other = service.person("other.secret+name@example.com").try_register().await;
        other.assert_error(503, "SERVICE_UNAVAILABLE");
    }
    ses.recover();
    let last = new_token(&service.regenerate(&keys[2]).await);
    let body = json!({"email": address, "code": "wrong-secret", "secret+name": 1});
    service.reset(&body).await.assert_error(400, "BAD_REQUEST");
    service.status(&keys[0]).await.assert_error(401, "UNAUTHORIZED");
    let path = format!("/api/v1/tokens/status?{}={address}", keys[1]);
    service.call(Method::GET, &path, &last).await.assert_error(400, "BAD_REQUEST");
    assert_eq!(service.revoke_email_token(&last).await.status, 204);

    let logs = logs.text().to_lowercase();
    assert!(logs.lines().count() > 20 && logs.contains("/api/v1/tokens/regenerate"), "{logs}");
    for key in keys.iter().chain([&last]) {
        // Its prefix may be logged.
        assert!(!logs.contains(&key[12..].to_lowercase()), "{key} in {logs}");
    }
    for code in &codes {
        let code = code.to_lowercase();
        assert!(!logs.contains(&code) && !logs.contains(&code.replace('-', "")), "{code} in {logs}");
    }
    let hash = EmailAddress::try_from(address.to_owned()).unwrap().hash().to_hex();
    // The third one is in the error that SES returns.
    for secret in ["secret+name", "wrong-secret", "person@example.com", &hash] {
        assert!(!logs.contains(secret), "{secret} in {logs}");
    }
}
