//! Every operation with every credential that it must refuse, and with every role that it must accept.

use shared::domain::Scope;
use shared::principal::Operation;
use tests::coverage::{ANOTHER, ANOTHER_WITHOUT_GUARD, COVERED, Cast, Covered, Guard, NOWHERE, Refusal, Stage, routed};
use tests::{Service, operator};

#[test]
fn every_operation_has_an_entry() {
    let mut covered: Vec<&str> = COVERED.iter().map(|covered| covered.operation.name()).collect();
    covered.dedup();
    let all: Vec<&str> = Operation::ALL.iter().map(|operation| operation.name()).collect();
    assert_eq!(covered, all, "tests/src/coverage.rs must have an entry for each operation, in the same order");
}

#[test]
fn an_entry_says_the_same_as_the_permission_table() {
    for Covered { operation, guard, .. } in COVERED {
        let rule = operation.rule();
        assert_eq!(matches!(guard, Guard::Bot | Guard::Manager), !rule.roles.is_empty(), "{}", operation.name());
        assert_eq!(*guard == Guard::Manager, rule.scope.is_some(), "{}", operation.name());
        assert_eq!(*guard == Guard::EmailHolder, rule.email_tokens, "{}", operation.name());
        assert_eq!(*guard == Guard::Registry, rule.registry_tokens, "{}", operation.name());
        assert_eq!(*guard == Guard::Authorizer, rule.authorizer, "{}", operation.name());
    }
}

#[tokio::test]
async fn a_wrong_credential_is_refused_and_changes_nothing() {
    let service = Service::start_with_manual_clock().await;
    let stage = Stage::set(&service).await;
    let cast = Cast::gather(&service, &stage).await;
    for covered in routed() {
        let wrong = cast.against(covered);
        for wrong in wrong.iter().filter(|wrong| wrong.refusal == Refusal::Forbidden) {
            // A good token of the wrong kind is noted as used, once a minute: this is the once.
            service.whoami(wrong.headers[0].trim_start_matches("Bearer ")).await;
        }
        let before = service.table.items_without_audit().await;
        for wrong in &wrong {
            let answer = wrong.call(covered, &service, &stage).await;
            wrong.refusal.assert(&answer, &format!("{} with {}", covered.operation.name(), wrong.what));
        }
        let after = service.table.items_without_audit().await;
        assert!(before == after, "{} did something for a credential it refused", covered.operation.name());
    }
}

#[tokio::test]
async fn who_a_refused_caller_asked_about_does_not_show() {
    let service = Service::start().await;
    let stage = Stage::set(&service).await;
    let cast = Cast::gather(&service, &stage).await;
    for covered in routed().filter(|covered| covered.path.contains("{org_id}")) {
        let wrong = cast.against(covered);
        let mut bodies = Vec::new();
        for what in [ANOTHER, NOWHERE, ANOTHER_WITHOUT_GUARD] {
            let wrong = wrong.iter().find(|wrong| wrong.what == what).unwrap();
            let answer = wrong.call(covered, &service, &stage).await;
            bodies.push(answer.text.replace(answer.header("x-request-id"), ""));
        }
        // What cannot be an organization's id is another organization's too.
        for path_org in ["OG", "og01kaj8m4r2x7z9v5t3q1n6p8wc", "..%2f..", "%ff", "OG01KAJ8M4R2X7Z9V5T3Q1N6P8WC%00"] {
            let request = covered.request_in(&service, &stage, path_org).bearer_auth(&stage.owner.credential);
            let answer = service.send(request).await;
            bodies.push(answer.text.replace(answer.header("x-request-id"), ""));
        }
        bodies.dedup();
        assert_eq!(bodies.len(), 1, "{}: {bodies:?}", covered.operation.name());
    }
}

#[tokio::test]
async fn every_role_and_scope_that_may_does() {
    let service = Service::start().await;
    let mut stage = Stage::set(&service).await;
    for covered in routed() {
        let rule = covered.operation.rule();
        let mut credentials = Vec::new();
        for role in rule.roles {
            credentials.push((role.as_str(), service.bot(&stage.org, &[*role]).await.credential));
        }
        if let Some(scope) = rule.scope {
            // Of what it creates it must hold the scopes itself.
            let scopes = [scope.as_str(), Scope::FleetRead.as_str()];
            credentials.push((scope.as_str(), service.api_key(&stage.owner.credential, &scopes).await.key));
        }
        for (what, credential) in credentials {
            let answer = service.send(covered.request(&service, &stage).bearer_auth(&credential)).await;
            assert_eq!(answer.status, covered.success, "{} as {what}: {}", covered.operation.name(), answer.text);
        }
        if covered.uses_up_its_stage() {
            stage = Stage::set(&service).await;
        }
    }
}

#[tokio::test]
async fn whoever_is_good_for_anything_passes_the_authorizer() {
    let service = Service::start().await;
    let stage = Stage::set(&service).await;
    for covered in routed().filter(|covered| covered.guard == Guard::Authorizer) {
        for credential in [
            &stage.owner.credential,
            &stage.api_key.key,
            &stage.access_token.token,
            &stage.token.token,
            &stage.email_token,
            &service.bot(&stage.org, &[]).await.credential,
        ] {
            let answer = service.send(covered.request(&service, &stage).bearer_auth(credential)).await;
            assert_eq!(answer.status, covered.success, "{}: {}", covered.operation.name(), answer.text);
        }
    }
}

#[tokio::test]
async fn a_good_call_succeeds_however_the_scheme_is_written() {
    let service = Service::start().await;
    for scheme in ["bearer", "BEARER", "Bearer  "] {
        let stage = Stage::set(&service).await;
        // Those that use something up come last.
        let (last, first): (Vec<&Covered>, Vec<&Covered>) =
            routed().filter(|covered| covered.guard != Guard::None).partition(|covered| covered.success == 204);
        let mut email_token = stage.email_token.clone();
        for covered in first.into_iter().chain(last) {
            let credential = match covered.guard {
                Guard::EmailHolder => &email_token,
                _ => &stage.owner.credential,
            };
            let request = covered.request(&service, &stage).header("authorization", format!("{scheme} {credential}"));
            let answer = service.send(request).await;
            assert_eq!(answer.status, covered.success, "{}: {}", covered.operation.name(), answer.text);
            if covered.operation == Operation::EmailTokensRegenerate {
                email_token = answer.json()["token"].as_str().unwrap().to_owned();
            }
        }
    }
}

#[tokio::test]
async fn a_credential_is_looked_at_before_anything_else() {
    let service = Service::start().await;
    let stage = Stage::set(&service).await;
    for covered in routed().filter(|covered| covered.guard != Guard::None) {
        let url = format!("{}?no_such_parameter=1", covered.path_on(&stage));
        let request =
            service.request(covered.method.clone(), &url).body("not JSON").header("content-type", "text/plain");
        let answer = service.send(request).await;
        answer.assert_error(401, "UNAUTHORIZED");
    }
}

#[tokio::test]
async fn an_overlap_keeps_the_old_key_until_its_moment() {
    let service = Service::start_with_manual_clock().await;
    let (org, owner) = service.org_with_owner().await;
    let overlap = std::time::Duration::from_secs(24 * 60 * 60);
    let new = service.store.rotate_bot_key(&owner.id, Some(overlap), &operator()).await.unwrap().unwrap();
    let new = format!("{}:{}", new.expose(), owner.id);
    let status =
        async |credential: &str| service.call(reqwest::Method::GET, &org.org_user_tokens(""), credential).await.status;
    service.clock.advance(overlap - std::time::Duration::from_secs(1));
    assert_eq!((status(&owner.credential).await.as_u16(), status(&new).await.as_u16()), (200, 200));
    service.clock.advance(std::time::Duration::from_secs(1));
    assert_eq!((status(&owner.credential).await.as_u16(), status(&new).await.as_u16()), (401, 200));
}
