//! Calls every operation with every credential that it must refuse and every role that it must
//! accept.

use reqwest::Method;
use shared::domain::Scope;
use shared::permissions::Operation;
use tests::coverage::{
    COVERED, Covered, Fixtures, Guard, InvalidCredentials, OTHER_ORG, OTHER_ORG_WITHOUT_GUARD, Refusal, UNKNOWN_ORG,
    all_scopes, routed,
};
use tests::{Service, operator};

#[test]
fn coverage_table_lists_every_operation_in_order() {
    let mut covered: Vec<&str> = COVERED.iter().map(|covered| covered.operation.name()).collect();
    covered.dedup();
    let all: Vec<&str> = Operation::ALL.iter().map(|operation| operation.name()).collect();
    assert_eq!(covered, all, "tests/src/coverage.rs must have an entry for each operation, in the same order");
}

#[test]
fn coverage_table_matches_the_permission_table() {
    for Covered { operation, guard, .. } in COVERED {
        let rule = operation.rule();
        assert_eq!(*guard == Guard::Console, rule.console, "{}", operation.name());
        let for_bots = !rule.roles.is_empty() && !rule.console;
        assert_eq!(matches!(guard, Guard::Bot | Guard::Manager), for_bots, "{}", operation.name());
        assert_eq!(*guard == Guard::Manager, rule.scope.is_some(), "{}", operation.name());
        assert_eq!(*guard == Guard::EmailHolder, rule.email_tokens, "{}", operation.name());
        assert_eq!(*guard == Guard::Registry, rule.registry_tokens, "{}", operation.name());
        assert_eq!(*guard == Guard::Authorizer, rule.authorizer, "{}", operation.name());
        assert_eq!(*guard == Guard::Holder, rule.own_token, "{}", operation.name());
    }
}

#[tokio::test]
async fn invalid_credentials_are_refused_without_side_effects() {
    let service = Service::start_with_manual_clock().await;
    let fixtures = Fixtures::create(&service).await;
    let invalid_credentials = InvalidCredentials::create(&service, &fixtures).await;
    for covered in routed() {
        let invalid = invalid_credentials.for_operation(covered);
        for invalid in invalid.iter().filter(|invalid| invalid.refusal == Refusal::Forbidden) {
            // Updates `last_used_at` first, at most once a minute, so that the calls below do not.
            service.whoami(invalid.headers[0].trim_start_matches("Bearer ")).await;
        }
        let before = service.table.items_without_audit().await;
        for invalid in &invalid {
            let answer = invalid.call(covered, &service, &fixtures).await;
            invalid.refusal.assert(&answer, &format!("{} with {}", covered.operation.name(), invalid.what));
        }
        let after = service.table.items_without_audit().await;
        assert!(before == after, "{} had an effect with a refused credential", covered.operation.name());
    }
}

#[tokio::test]
async fn refusals_do_not_reveal_other_organizations() {
    let service = Service::start().await;
    let fixtures = Fixtures::create(&service).await;
    let invalid_credentials = InvalidCredentials::create(&service, &fixtures).await;
    for covered in routed().filter(|covered| covered.path.contains("{org_id}")) {
        let invalid = invalid_credentials.for_operation(covered);
        let mut bodies = Vec::new();
        for what in [OTHER_ORG, UNKNOWN_ORG, OTHER_ORG_WITHOUT_GUARD] {
            let invalid = invalid.iter().find(|invalid| invalid.what == what).unwrap();
            let answer = invalid.call(covered, &service, &fixtures).await;
            bodies.push(answer.text.replace(answer.header("x-request-id"), ""));
        }
        // A malformed organization ID is treated like another organization's.
        for path_org in ["OG", "og01kaj8m4r2x7z9v5t3q1n6p8wc", "..%2f..", "%ff", "OG01KAJ8M4R2X7Z9V5T3Q1N6P8WC%00"] {
            let request = covered.request_in(&service, &fixtures, path_org).bearer_auth(&fixtures.owner.credential);
            let answer = service.send(request).await;
            bodies.push(answer.text.replace(answer.header("x-request-id"), ""));
        }
        bodies.dedup();
        assert_eq!(bodies.len(), 1, "{}: {bodies:?}", covered.operation.name());
    }
}

#[tokio::test]
async fn every_permitted_role_and_scope_succeeds() {
    let service = Service::start().await;
    let mut fixtures = Fixtures::create(&service).await;
    for covered in routed() {
        let mut credentials = permitted(&service, &fixtures, covered).await;
        for call in 0..credentials.len() {
            let (what, credential) = &credentials[call];
            let answer = service.send(covered.request(&service, &fixtures).bearer_auth(credential)).await;
            assert_eq!(answer.status, covered.success, "{} as {what}: {}", covered.operation.name(), answer.text);
            // A call that consumes its fixtures gets new ones for each credential.
            if covered.consumes_fixtures() {
                fixtures = Fixtures::create(&service).await;
                credentials = permitted(&service, &fixtures, covered).await;
            }
        }
    }
}

/// A credential with each role and scope that permits an operation in the fixtures' organization.
async fn permitted(service: &Service, fixtures: &Fixtures, covered: &Covered) -> Vec<(&'static str, String)> {
    let rule = covered.operation.rule();
    let mut credentials = Vec::new();
    for role in rule.roles {
        credentials.push((role.as_str(), service.bot(&fixtures.org, &[*role]).await.credential));
    }
    if !rule.roles.is_empty() && !rule.makes_bot_keys {
        // They act as a bot with several roles.
        let bot = service.bot(&fixtures.org, rule.roles).await;
        for role in rule.roles {
            credentials.push((role.as_str(), service.job(&bot, &[*role]).await));
        }
    }
    if let Some(scope) = rule.scope {
        // A key can only grant scopes that it has itself.
        let scopes = match covered.operation {
            Operation::ApiKeysRotate => all_scopes(),
            _ => vec![scope.as_str(), Scope::FleetRead.as_str()],
        };
        credentials.push((scope.as_str(), service.api_key(&fixtures.owner.credential, &scopes).await.key));
    }
    credentials
}

#[tokio::test]
async fn authorizer_accepts_every_active_credential() {
    let service = Service::start().await;
    let fixtures = Fixtures::create(&service).await;
    for covered in routed().filter(|covered| covered.guard == Guard::Authorizer) {
        for credential in [
            &fixtures.owner.credential,
            &fixtures.api_key.key,
            &fixtures.access_token.token,
            &fixtures.token.token,
            &fixtures.email_token,
            &fixtures.job,
            &service.bot(&fixtures.org, &[]).await.credential,
        ] {
            let answer = service.send(covered.request(&service, &fixtures).bearer_auth(credential)).await;
            assert_eq!(answer.status, covered.success, "{}: {}", covered.operation.name(), answer.text);
        }
    }
}

#[tokio::test]
async fn authorization_scheme_is_case_insensitive_on_every_operation() {
    let service = Service::start().await;
    for scheme in ["bearer", "BEARER", "Bearer  "] {
        let fixtures = Fixtures::create(&service).await;
        // Deletions come last.
        let (last, first): (Vec<&Covered>, Vec<&Covered>) = routed()
            .filter(|covered| !matches!(covered.guard, Guard::None | Guard::Signed))
            .partition(|covered| covered.success == 204);
        let mut email_token = fixtures.email_token.clone();
        for covered in first.into_iter().chain(last) {
            let credential = match covered.guard {
                Guard::EmailHolder => &email_token,
                Guard::Holder => &fixtures.job,
                _ => &fixtures.owner.credential,
            };
            let request =
                covered.request(&service, &fixtures).header("authorization", format!("{scheme} {credential}"));
            let answer = service.send(request).await;
            assert_eq!(answer.status, covered.success, "{}: {}", covered.operation.name(), answer.text);
            if covered.operation == Operation::EmailTokensRegenerate {
                email_token = answer.json()["token"].as_str().unwrap().to_owned();
            }
        }
    }
}

#[tokio::test]
async fn authentication_precedes_request_validation() {
    let service = Service::start().await;
    let fixtures = Fixtures::create(&service).await;
    for covered in routed().filter(|covered| !matches!(covered.guard, Guard::None | Guard::Signed)) {
        let url = format!("{}?no_such_parameter=1", covered.path_with(&fixtures));
        let request =
            service.request(covered.method.clone(), &url).body("not JSON").header("content-type", "text/plain");
        let answer = service.send(request).await;
        answer.assert_error(401, "UNAUTHORIZED");
    }
}

#[tokio::test]
async fn rotated_key_works_until_its_overlap_ends() {
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

#[tokio::test]
async fn unsupported_scheme_is_told_from_no_credential() {
    let service = Service::start().await;
    for path in ["/v1/api-keys", "/v1/whoami", "/npm/widgets", "/pypi/simple/widgets/"] {
        let is_registry = !path.starts_with("/v1");
        let get = async |authorization: Option<&str>| {
            let request = service.request(Method::GET, path);
            let request =
                authorization.into_iter().fold(request, |request, value| request.header("authorization", value));
            let answer = service.send(request).await;
            assert_eq!((answer.status.as_u16(), answer.code()), (401, "UNAUTHORIZED".to_owned()), "{path}");
            assert!(!answer.header("www-authenticate").contains("invalid_token"), "{path}");
            answer.text
        };
        for sent in ["token tg_anon_x", "Digest x", "tg_anon_x"] {
            let text = get(Some(sent)).await;
            assert!(text.contains("scheme") && text.contains("not supported"), "{path} {sent}: {text}");
            assert!(!text.contains("tg_anon_x"), "{path}: {text}");
        }
        for sent in [None, Some("")] {
            let text = get(sent).await;
            assert!(
                text.contains(if is_registry { "no guard-tokens token" } else { "No credential" }),
                "{path}: {text}"
            );
        }
    }
}
