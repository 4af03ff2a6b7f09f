//! The page of policies, and what it changes in the forms.

use std::time::Duration;

use reqwest::Method;
use shared::permissions::Role;
use shared::store::lifetimes::{Days, Lifetimes, Limited};
use tests::console::{Visitor, hidden};
use tests::table::text;
use tests::{Org, Service};

const FIELDS: [&str; 4] = ["org_user_token", "api_key", "org_access_token", "unused"];

async fn page(service: &Service) -> (Org, Visitor<'_>) {
    let org = service.org().await;
    let owner = service.member(&org, &[Role::Owner]).await;
    (org, owner)
}

async fn policy(service: &Service, org: &Org) -> Lifetimes {
    service.store.org(&org.id).await.unwrap().unwrap().lifetimes
}

/// The message beside a field.
fn error_of<'a>(page: &'a str, field: &str) -> &'a str {
    page.split(&format!("id=\"{field}-error\"")).nth(1).unwrap_or_default().split("</p>").next().unwrap()
}

#[tokio::test]
async fn owner_sees_sets_and_takes_away_limits() {
    let service = Service::start_with_manual_clock().await;
    let (org, owner) = page(&service).await;
    let path = org.page("policies");
    let empty = owner.get(&path).await;
    assert!(empty.text.contains("<h1>Policies</h1>"), "{}", empty.text);
    let fields = [("org_user_token", "90"), ("api_key", " 365 "), ("org_access_token", ""), ("unused", "30")];
    let saved = owner.submit(&path, &fields).await;
    assert_eq!((saved.status.as_u16(), saved.header("location")), (303, &*org.page("policies?saved")));
    let expected = Lifetimes {
        org_user_token: Days::new(90),
        api_key: Days::new(365),
        org_access_token: None,
        end_after_unused_days: Days::new(30),
    };
    assert_eq!(policy(&service, &org).await, expected);
    let shown = owner.get(saved.header("location")).await;
    assert!(shown.text.contains("The policies were saved."), "{}", shown.text);
    for (field, value) in FIELDS.into_iter().zip(["90", "365", "", "30"]) {
        assert!(shown.text.contains(&format!("name=\"{field}\" value=\"{value}\"")), "{field}: {}", shown.text);
        assert_eq!(hidden(&shown.text, &format!("shown_{field}")), value);
    }
    let fields = [("org_user_token", ""), ("shown_org_user_token", "90"), ("unused", "30"), ("shown_unused", "30")];
    // Entries of the same millisecond have no order.
    service.clock.advance(Duration::from_secs(1));
    assert_eq!(owner.submit(&path, &fields).await.status, 303);
    assert_eq!(policy(&service, &org).await, Lifetimes { org_user_token: None, ..expected });
    let mut entries = service.table.audit_entries(&org.id).await;
    entries.retain(|entry| entry["action"] == "org.set");
    let details: Vec<_> = entries.iter().map(|entry| (text(&entry["actor"], "kind"), text(entry, "detail"))).collect();
    let first = "max_lifetime_days org_user_token 90, max_lifetime_days api_key 365, end_after_unused_days 30";
    assert_eq!(details, [("member", first), ("member", "max_lifetime_days org_user_token none")]);
}

#[tokio::test]
async fn field_that_was_left_does_not_undo_what_another_owner_has_set() {
    let service = Service::start_with_manual_clock().await;
    let (org, owner) = page(&service).await;
    let path = org.page("policies");
    service.set_lifetimes(&org.id, &[(Limited::OrgUserToken, 7)]).await;
    // What both saw before.
    assert_eq!(owner.submit(&path, &[("api_key", "30"), ("org_user_token", "")]).await.status, 303);
    let stored = policy(&service, &org).await;
    assert_eq!((stored.org_user_token, stored.api_key), (Days::new(7), Days::new(30)));
    // The same form again changes nothing.
    let before = service.table.audit_entries(&org.id).await.len();
    assert_eq!(owner.submit(&path, &[("api_key", "30"), ("shown_api_key", "30")]).await.status, 303);
    assert_eq!(service.table.audit_entries(&org.id).await.len(), before);
}

#[tokio::test]
async fn errors_of_the_form_are_beside_the_field_with_what_was_typed() {
    let service = Service::start_with_manual_clock().await;
    let (org, owner) = page(&service).await;
    for field in FIELDS {
        for (typed, shown) in [
            ("0", "0"),
            ("-1", "-1"),
            ("1.5", "1.5"),
            ("99999999999", "99999999999"),
            ("\"><script>", "&#34;&#62;&#60;script&#62;"),
        ] {
            let answer = owner.submit(&org.page("policies"), &[(field, typed)]).await;
            assert_eq!(answer.status, 400, "{}", answer.text);
            assert!(error_of(&answer.text, field).contains("at least 1"), "{field} {typed}: {}", answer.text);
            assert!(answer.text.contains(&format!("name=\"{field}\" value=\"{shown}\"")), "{}", answer.text);
        }
    }
    assert_eq!(policy(&service, &org).await, Lifetimes::default());
}

#[tokio::test]
async fn only_owners_of_the_organization_see_and_use_the_page() {
    let service = Service::start_with_manual_clock().await;
    let (org, owner) = page(&service).await;
    let path = org.page("policies");
    for &role in Role::ALL.iter().filter(|role| **role != Role::Owner) {
        let visitor = service.member(&org, &[role]).await;
        assert_eq!(visitor.get(&path).await.status, 403, "{role:?}");
        assert_eq!(visitor.submit(&path, &[("api_key", "1")]).await.status, 403, "{role:?}");
        assert!(!visitor.get(&org.page("")).await.text.contains(&path), "{role:?}");
    }
    let (_, stranger) = page(&service).await;
    assert_eq!(stranger.get(&path).await.status, 404);
    assert_eq!(stranger.submit(&path, &[("api_key", "1")]).await.status, 404);
    let other = service.member(&org, &[Role::Owner]).await;
    assert_eq!(owner.submit_with(&other.form_token(), &path, &[("api_key", "1")]).await.status, 403);
    assert_eq!(policy(&service, &org).await, Lifetimes::default());
}

#[tokio::test]
async fn forms_propose_90_days_and_offer_what_the_policy_allows() {
    let service = Service::start_with_manual_clock().await;
    let (org, owner) = page(&service).await;
    let forms = [
        ("tokens/issue", Limited::OrgUserToken),
        ("my-tokens/issue", Limited::OrgUserToken),
        ("api-keys/create", Limited::ApiKey),
        ("access-tokens/create", Limited::OrgAccessToken),
    ];
    let checked = |page: &str| {
        let page = page.split("checked").next().unwrap().rsplit("name=\"expiry\" value=\"").next().unwrap().to_owned();
        page.split('"').next().unwrap().to_owned()
    };
    let expiries = |page: &str| page.split("id=\"expiry\"").nth(1).unwrap().to_owned();
    for (path, kind) in forms {
        let shown = expiries(&owner.get(&org.page(path)).await.text);
        assert_eq!(checked(&shown), "90", "{path}");
        assert!(shown.contains("value=\"never\"") && shown.contains("value=\"365\""), "{path}");
        service.set_lifetimes(&org.id, &[(kind, 30)]).await;
        let shown = expiries(&owner.get(&org.page(path)).await.text);
        assert_eq!(checked(&shown), "30", "{path}");
        assert!(!shown.contains("value=\"never\"") && !shown.contains("value=\"90\""), "{path}");
        assert!(shown.contains("at most 30 days"), "{path}: {shown}");
        service.set_lifetimes(&org.id, &[(kind, 0)]).await;
    }
}

#[tokio::test]
async fn expiry_beyond_the_policy_is_an_error_at_its_field() {
    let service = Service::start_with_manual_clock().await;
    let (org, owner) = page(&service).await;
    let all: Vec<_> = Limited::ALL.iter().map(|kind| (*kind, 30)).collect();
    service.set_lifetimes(&org.id, &all).await;
    let forms: [(&str, &[(&str, &str)]); 4] = [
        ("tokens/issue", &[("user_identifier", "alice")]),
        ("my-tokens/issue", &[]),
        ("api-keys/create", &[("name", "ci"), ("environment", "live"), ("scope", "shield:write")]),
        ("access-tokens/create", &[("name", "device"), ("role", "readonly"), ("all_projects", "true")]),
    ];
    for (path, fields) in forms {
        for chosen in
            [&[("expiry", "never")][..], &[("expiry", "90")], &[("expiry", "date"), ("expiry_date", "2026-12-21")]]
        {
            let answer = owner.submit(&org.page(path), &[fields, chosen].concat()).await;
            assert_eq!(answer.status, 400, "{path} {chosen:?}: {}", answer.text);
            assert!(error_of(&answer.text, "expiry").contains("30 days"), "{path} {chosen:?}: {}", answer.text);
        }
        let longest = owner.submit(&org.page(path), &[fields, &[("expiry", "30")]].concat()).await;
        assert_eq!(longest.status, 200, "{path}: {}", longest.text);
    }
}

#[tokio::test]
async fn form_of_an_access_token_keeps_its_expiry_and_bounds_a_new_one() {
    let service = Service::start_with_manual_clock().await;
    let (org, owner) = page(&service).await;
    let bot = service.bot(&org, &[Role::Owner]).await;
    let token = service.access_token(&bot, &serde_json::json!({"name": "relay"})).await;
    service.set_lifetimes(&org.id, &[(Limited::OrgAccessToken, 30)]).await;
    let path = org.page(&format!("access-tokens/{}", token.id));
    let shown = owner.get(&path).await;
    assert!(shown.text.contains("value=\"never\" checked"), "{}", shown.text);
    let fields = [("name", "renamed"), ("role", "readonly"), ("is_active", "true"), ("revision", "0")];
    let kept = owner.submit(&path, &[&fields[..], &[("expiry", "never")]].concat()).await;
    assert_eq!(kept.status, 303, "{}", kept.text);
    let fields = [("name", "renamed"), ("role", "readonly"), ("is_active", "true"), ("revision", "1")];
    let refused = owner.submit(&path, &[&fields[..], &[("expiry", "90")]].concat()).await;
    assert_eq!(refused.status, 400, "{}", refused.text);
    assert!(error_of(&refused.text, "expiry").contains("30 days"), "{}", refused.text);
    let disable = owner.submit(&org.page(&format!("access-tokens/{}/disable", token.id)), &[]).await;
    assert_eq!(disable.status, 303, "{}", disable.text);
    assert_eq!(service.call(Method::GET, "/v1/whoami", &token.token).await.status, 401);
}
