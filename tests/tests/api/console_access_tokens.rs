//! The page of organization access tokens, and its forms.

use std::collections::BTreeSet;

use futures::future::join_all;
use reqwest::Method;
use serde_json::json;
use shared::permissions::Role;
use shared::store::members::{Authority, MemberChange};
use shared::store::org_access_tokens::Changed;
use tests::console::{Submission, Visitor, unescaped};
use tests::management::AccessToken;
use tests::table::text;
use tests::{Answer, Bot, Org, Service, operator};

const NEVER: (&str, &str) = ("expiry", "never");
const READONLY: (&str, &str) = ("role", "readonly");
const SELECTED: (&str, &str) = ("all_projects", "false");

async fn page(service: &Service) -> (Org, Bot, Visitor<'_>) {
    let (org, bot) = service.org_with_owner().await;
    let visitor = service.member(&org, &[Role::Owner]).await;
    (org, bot, visitor)
}

/// The access tokens on a page.
fn tokens_on(answer: &Answer) -> BTreeSet<String> {
    let parts = answer.text.split("oat_").skip(1);
    parts.map(|rest| format!("oat_{}", &rest[..42])).collect()
}

async fn logged(service: &Service, org: &Org) -> Vec<String> {
    let entries = service.table.audit_entries(&org.id).await;
    let entries = entries.iter().filter(|item| text(item, "action").starts_with("org_access_token."));
    entries.map(|item| format!("{} {}", text(&item["actor"], "kind"), text(item, "action"))).collect()
}

/// The value of a field of the form on a page.
fn revision_on(answer: &Answer) -> String {
    let rest = answer.text.split("name=\"revision\" value=\"").nth(1).unwrap_or_else(|| panic!("{}", answer.text));
    rest.split('"').next().unwrap().to_owned()
}

#[track_caller]
fn assert_error_at(answer: &Answer, id: &str, message: &str) {
    let error = answer.text.split(&format!("id=\"{id}-error\"")).nth(1).unwrap_or_else(|| panic!("{}", answer.text));
    let error = error.split("</p>").next().unwrap();
    assert!(error.contains(message), "{error}");
}

#[tokio::test]
async fn token_is_created_shown_once_and_listed() {
    let service = Service::start_with_manual_clock().await;
    let (org, bot, owner) = page(&service).await;
    service.projects(&org, &["coldroom", "greenhouse"]).await;
    let empty = owner.get(&org.page("access-tokens")).await;
    for shown in ["No access tokens yet", ">Create Access Token<", "/api/v2/organization/tokens/", "Settings"] {
        assert!(empty.text.contains(shown), "{shown}: {}", empty.text);
    }
    let create = org.page("access-tokens/create");
    let form = owner.get(&create).await;
    for shown in ["value=\"coldroom\"", "value=\"greenhouse\"", "value=\"manager\"", "value=\"90\" checked"] {
        assert!(form.text.contains(shown), "{shown}: {}", form.text);
    }
    let fields =
        [("name", "backup <server>"), ("role", "operator"), SELECTED, ("project", "greenhouse"), ("expiry", "30")];
    let created = owner.submit(&create, &fields).await;
    assert_eq!((created.status.as_u16(), created.header("cache-control")), (200, "no-store"), "{}", created.text);
    let tokens = tokens_on(&created);
    assert_eq!(tokens.len(), 1, "{}", created.text);
    let state = service.introspect(&bot, &json!({"token": tokens.first().unwrap()})).await;
    assert_eq!(state["active"], true, "{state}");
    let listed = &service.access_tokens(&bot).await[0];
    assert_eq!(
        (&listed["name"], &listed["expires_at"], &listed["access_config"]),
        (
            &json!("backup <server>"),
            &json!("2026-12-21T10:00:00Z"),
            &json!({"role": "operator", "all_projects": false, "projects": ["greenhouse"]})
        )
    );
    let list = owner.get(&org.page("access-tokens")).await;
    for shown in ["backup &#60;server&#62;", "Operator", "greenhouse", "badge active", "2026-12-21T10:00:00Z"] {
        assert!(list.text.contains(shown), "{shown}: {}", list.text);
    }
    assert!(tokens_on(&list).is_empty(), "{}", list.text);
    assert_eq!(logged(&service, &org).await, ["member org_access_token.create"]);
}

#[tokio::test]
async fn token_is_changed_disabled_enabled_and_deleted() {
    let service = Service::start_with_manual_clock().await;
    let (org, bot, owner) = page(&service).await;
    service.projects(&org, &["coldroom", "greenhouse"]).await;
    let body =
        json!({"name": "relay", "expires_at": "2027-01-01T10:00:00Z", "access_config": {"projects": ["greenhouse"]}});
    let token = service.access_token(&bot, &body).await;
    let path = org.page(&format!("access-tokens/{}", token.id));
    let form = owner.get(&path).await;
    for shown in ["value=\"relay\"", "value=\"2027-01-01\"", "value=\"greenhouse\" checked", "value=\"coldroom\">"] {
        assert!(form.text.contains(shown), "{shown}: {}", form.text);
    }
    let fields = [
        ("name", "relay 2"),
        ("role", "manager"),
        ("all_projects", "true"),
        ("expiry", "date"),
        ("expiry_date", "2027-01-01"),
        ("is_active", "true"),
        ("revision", &revision_on(&form)),
    ];
    let changed = owner.submit(&path, &fields).await;
    let to_list = org.page("access-tokens?changed");
    assert_eq!((changed.status.as_u16(), changed.header("location")), (303, &*to_list), "{}", changed.text);
    assert!(owner.get(&to_list).await.text.contains("The access token was changed."));
    let state = async || {
        let token = service.access_tokens(&bot).await.remove(0);
        (token["name"].clone(), token["is_active"].clone(), token["expires_at"].clone(), token["access_config"].clone())
    };
    let config = json!({"role": "manager", "all_projects": true, "projects": []});
    // An expiry that was not touched keeps its time.
    let expected = |active| (json!("relay 2"), json!(active), json!("2027-01-01T10:00:00Z"), config.clone());
    assert_eq!(state().await, expected(true));
    for (action, active) in [("disable", false), ("enable", true)] {
        let answer = owner.submit(&format!("{path}/{action}"), &[]).await;
        assert_eq!((answer.status.as_u16(), answer.header("location")), (303, &*to_list), "{}", answer.text);
        assert_eq!(state().await, expected(active));
        let list = owner.get(&org.page("access-tokens")).await.text;
        assert_eq!(list.contains("badge disabled"), !active, "{list}");
        let introspected = service.introspect(&bot, &json!({"token": token.token})).await;
        assert_eq!(introspected["active"], active);
    }
    // Unchecked, it is disabled too.
    let revision = revision_on(&owner.get(&path).await);
    let unchecked: Vec<_> = fields.into_iter().filter(|(name, _)| !["is_active", "revision"].contains(name)).collect();
    let unchecked: Vec<_> = unchecked.into_iter().chain([("revision", revision.as_str())]).collect();
    assert_eq!(owner.submit(&path, &unchecked).await.status, 303);
    assert_eq!(state().await, expected(false));

    let delete = format!("{path}/delete");
    let asked = owner.get(&delete).await;
    assert!(
        asked.text.contains("relay 2") && asked.text.contains("The token is refused immediately"),
        "{}",
        asked.text
    );
    assert_eq!(service.access_tokens(&bot).await.len(), 1);
    let deleted = owner.submit(&delete, &[]).await;
    assert_eq!((deleted.status.as_u16(), deleted.header("location")), (303, &*org.page("access-tokens?deleted")));
    assert!(owner.get(deleted.header("location")).await.text.contains("The access token was deleted."));
    assert_eq!(service.access_tokens(&bot).await.len(), 0);
    for gone in [owner.get(&delete).await, owner.submit(&delete, &[]).await, owner.get(&path).await] {
        assert_eq!(gone.status, 404);
    }
    let mut actions = logged(&service, &org).await;
    actions.sort();
    let update = "member org_access_token.update";
    let delete = "member org_access_token.delete";
    assert_eq!(actions, ["bot org_access_token.create", delete, update, update, update, update]);
}

#[tokio::test]
async fn errors_of_the_form_are_beside_the_field_with_what_was_typed() {
    let service = Service::start_with_manual_clock().await;
    let (org, bot, owner) = page(&service).await;
    let names: Vec<String> = (0..51).map(|n| format!("project-{n:02}")).collect();
    service.projects(&org, &names.iter().map(String::as_str).collect::<Vec<_>>()).await;
    service.access_token(&bot, &json!({"name": "taken"})).await;
    let other = service.access_token(&bot, &json!({"name": "other"})).await;
    let before = service.table.items().await;
    let many: Vec<_> = names.iter().map(|name| ("project", name.as_str())).collect();
    let many: Vec<_> = [("name", "x"), READONLY, SELECTED, NEVER].into_iter().chain(many).collect();
    let change = org.page(&format!("access-tokens/{}", other.id));
    for path in [org.page("access-tokens/create"), change] {
        for (fields, id, message) in [
            (&[("name", " spaced"), READONLY, SELECTED, NEVER][..], "name", "Enter 1 to 100 visible characters"),
            (&[("name", "taken"), READONLY, SELECTED, NEVER], "name", "This name is already in use."),
            (&[("name", "x"), SELECTED, NEVER], "role", "Select a role."),
            (&[("name", "x"), ("role", "emperor"), SELECTED, NEVER], "role", "Select a role."),
            (&[("name", "x"), READONLY, SELECTED, ("expiry", "8")], "expiry", "Choose when it expires."),
            (
                &[("name", "x"), READONLY, SELECTED, ("expiry", "date"), ("expiry_date", "2026-11-20")],
                "expiry",
                "Enter a date that is not in the past.",
            ),
            (&[("name", "x"), READONLY, SELECTED, NEVER, ("project", "gone")], "project-access", "no longer exists"),
            (&[("name", "x"), READONLY, SELECTED, NEVER, ("project", "a b")], "project-access", "no longer exists"),
            (&many, "project-access", "Select at most 50 projects"),
        ] {
            let fields: Vec<_> = fields.iter().copied().chain([("revision", "0")]).collect();
            let answer = owner.submit(&path, &fields).await;
            assert_eq!(answer.status, 400, "{path} {fields:?}: {}", answer.text);
            assert_error_at(&answer, id, message);
            assert!(answer.text.contains("Nothing was saved."), "{}", answer.text);
            assert!(answer.text.contains(&format!("value=\"{}\"", fields[0].1)), "{}", answer.text);
        }
    }
    // The numbers that creates had taken before they were rejected stay unused.
    let without_number = |mut items: Vec<serde_json::Value>| {
        items.retain(|item| text(item, "sk") != "ACCESS_TOKEN_LAST_ID");
        items
    };
    assert_eq!(without_number(service.table.items().await), without_number(before));
}

#[tokio::test]
async fn suspended_organization_gets_no_token_and_the_form_says_why() {
    let service = Service::start_with_manual_clock().await;
    let (org, bot, owner) = page(&service).await;
    service.store.set_suspended(&org.id, true, &operator()).await.unwrap().unwrap();
    let fields = [("name", "backup"), READONLY, SELECTED, NEVER];
    let answer = owner.submit(&org.page("access-tokens/create"), &fields).await;
    assert_eq!(answer.status, 403, "{}", answer.text);
    assert!(answer.text.contains("has suspended this organization") && answer.text.contains("value=\"backup\""));
    assert_eq!(service.access_tokens(&bot).await.len(), 0);
    let entries = service.table.audit_entries(&org.id).await;
    let refused = entries.iter().filter(|entry| entry["outcome"] == "refused");
    assert_eq!(refused.map(|entry| text(entry, "action")).collect::<Vec<_>>(), ["org_access_token.create"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn form_that_is_sent_again_creates_one_token_and_shows_no_other_secret() {
    let service = Service::start_with_manual_clock().await;
    let (org, bot, owner) = page(&service).await;
    let (token, create) = (owner.form_token(), org.page("access-tokens/create"));
    let fields = [("name", "backup"), READONLY, SELECTED, NEVER];
    let answers = join_all((0..10).map(|_| owner.submit_with(&token, &create, &fields))).await;
    let shown: Vec<_> = answers.iter().filter(|answer| answer.status == 200).collect();
    assert_eq!(shown.len(), 1);
    assert_eq!(tokens_on(shown[0]).len(), 1);
    let listed = service.access_tokens(&bot).await;
    assert_eq!(listed.len(), 1);
    for again in answers.iter().filter(|answer| answer.status != 200) {
        assert_eq!(again.status, 409, "{}", again.text);
        assert!(
            tokens_on(again).is_empty() && again.text.contains(&format!("ID {}", listed[0]["id"])),
            "{}",
            again.text
        );
        assert!(again.text.contains(&format!("href=\"{}\"", org.page("access-tokens"))), "{}", again.text);
    }
    assert_eq!(logged(&service, &org).await, ["member org_access_token.create"]);
}

/// Somebody else saved first: what they saved is not lost.
#[tokio::test]
async fn change_of_a_token_that_has_changed_since_is_a_conflict() {
    let service = Service::start_with_manual_clock().await;
    let (org, bot, owner) = page(&service).await;
    let token = service.access_token(&bot, &json!({"name": "relay"})).await;
    let path = org.page(&format!("access-tokens/{}", token.id));
    let revision = revision_on(&owner.get(&path).await);
    let fields = [("name", "mine"), READONLY, SELECTED, NEVER, ("is_active", "true"), ("revision", &revision)];
    let theirs = json!({"is_active": false});
    assert_eq!(service.send_json(Method::PATCH, &token.path(), &bot.credential, &theirs).await.status, 200);
    let answer = owner.submit(&path, &fields).await;
    assert_eq!(answer.status, 409, "{}", answer.text);
    assert!(answer.text.contains("Somebody else changed this"), "{}", answer.text);
    let listed = &service.access_tokens(&bot).await[0];
    assert_eq!((&listed["name"], &listed["is_active"]), (&json!("relay"), &json!(false)));
    // The same form twice is none.
    let revision = revision_on(&owner.get(&path).await);
    let fields = [("name", "mine"), READONLY, SELECTED, NEVER, ("is_active", "true"), ("revision", &revision)];
    for _ in 0..2 {
        assert_eq!(owner.submit(&path, &fields).await.status, 303);
    }
    assert_eq!(logged(&service, &org).await.len(), 3);
}

/// A token that has expired, or whose project was removed, can still be renamed.
#[tokio::test]
async fn what_is_not_changed_is_not_checked_again() {
    let service = Service::start_with_manual_clock().await;
    let (org, bot, _) = page(&service).await;
    service.projects(&org, &["greenhouse"]).await;
    let body =
        json!({"name": "relay", "expires_at": "2026-11-21T11:00:00Z", "access_config": {"projects": ["greenhouse"]}});
    let token = service.access_token(&bot, &body).await;
    service.store.remove_project(&org.id, "greenhouse", &operator()).await.unwrap();
    service.clock.advance(std::time::Duration::from_secs(48 * 60 * 60));
    let owner = service.member(&org, &[Role::Owner]).await;
    let path = org.page(&format!("access-tokens/{}", token.id));
    let form = owner.get(&path).await;
    assert!(form.text.contains("value=\"greenhouse\" checked"), "{}", form.text);
    let fields = [
        ("name", "renamed"),
        READONLY,
        SELECTED,
        ("project", "greenhouse"),
        ("expiry", "date"),
        ("expiry_date", "2026-11-21"),
        ("is_active", "true"),
        ("revision", &revision_on(&form)),
    ];
    let changed = owner.submit(&path, &fields).await;
    assert_eq!(changed.status, 303, "{}", changed.text);
    let listed = &service.access_tokens(&bot).await[0];
    assert_eq!((&listed["name"], &listed["expires_at"]), (&json!("renamed"), &json!("2026-11-21T11:00:00Z")));
}

#[tokio::test]
async fn stored_text_is_escaped() {
    let service = Service::start_with_manual_clock().await;
    let (org, bot, owner) = page(&service).await;
    let name = "<script>alert(1)</script>\"'";
    let token = service.access_token(&bot, &json!({"name": name})).await;
    let path = format!("access-tokens/{}", token.id);
    let mut answers =
        vec![owner.submit(&org.page("access-tokens/create"), &[("name", name), READONLY, SELECTED, NEVER]).await];
    for page in ["access-tokens".to_owned(), path.clone(), format!("{path}/delete")] {
        answers.push(owner.get(&org.page(&page)).await);
    }
    for answer in answers {
        assert!(!answer.text.contains("<script>alert"), "{}", answer.text);
        assert!(unescaped(&answer.text).contains(name), "{}", answer.text);
    }
}

fn requests(org: &Org, token: &AccessToken) -> Vec<Submission> {
    let path = |rest: &str| org.page(&format!("access-tokens/{}{rest}", token.id));
    let fields = vec![("name", "mine"), READONLY, SELECTED, NEVER, ("revision", "0")];
    vec![
        (Method::GET, path(""), vec![]),
        (Method::GET, path("/delete"), vec![]),
        (Method::POST, path(""), fields),
        (Method::POST, path("/disable"), vec![]),
        (Method::POST, path("/enable"), vec![]),
        (Method::POST, path("/delete"), vec![]),
    ]
}

async fn send(visitor: &Visitor<'_>, method: &Method, path: &str, fields: &[(&str, &str)]) -> Answer {
    if *method == Method::GET { visitor.get(path).await } else { visitor.submit(path, fields).await }
}

#[tokio::test]
async fn only_owners_see_and_use_the_page() {
    let service = Service::start_with_manual_clock().await;
    let (org, bot, _) = page(&service).await;
    let token = service.access_token(&bot, &json!({"name": "relay"})).await;
    let fields = vec![("name", "mine"), READONLY, SELECTED, NEVER];
    let of_list = [
        (Method::GET, org.page("access-tokens"), vec![]),
        (Method::GET, org.page("access-tokens/create"), vec![]),
        (Method::POST, org.page("access-tokens/create"), fields),
    ];
    for &role in Role::ALL.iter().filter(|role| **role != Role::Owner) {
        let visitor = service.member(&org, &[role]).await;
        for (method, path, fields) in requests(&org, &token).into_iter().chain(of_list.clone()) {
            let answer = send(&visitor, &method, &path, &fields).await;
            assert_eq!(answer.status, 403, "{role:?} {method} {path}: {}", answer.text);
        }
        assert!(!visitor.get(&org.page("")).await.text.contains(&org.page("access-tokens")), "{role:?}");
    }
    let listed = service.access_tokens(&bot).await;
    assert_eq!((listed.len(), &listed[0]["name"], &listed[0]["is_active"]), (1, &json!("relay"), &json!(true)));
}

#[tokio::test]
async fn tokens_of_another_organization_are_not_found() {
    let service = Service::start_with_manual_clock().await;
    let (org, _, owner) = page(&service).await;
    let (other, bot, _) = page(&service).await;
    service.projects(&other, &["greenhouse"]).await;
    let token = service.access_token(&bot, &json!({"name": "relay"})).await;
    for (method, path, fields) in requests(&org, &token).into_iter().chain(requests(&other, &token)) {
        assert_eq!(send(&owner, &method, &path, &fields).await.status, 404, "{method} {path}");
    }
    for id in ["0", "01", "x", "99999999999999999999999"] {
        assert_eq!(owner.get(&org.page(&format!("access-tokens/{id}"))).await.status, 404, "{id}");
    }
    // Nor is a project.
    let fields = [("name", "mine"), READONLY, SELECTED, NEVER, ("project", "greenhouse")];
    let answer = owner.submit(&org.page("access-tokens/create"), &fields).await;
    assert_eq!(answer.status, 400);
    assert_error_at(&answer, "project-access", "no longer exists");
    assert_eq!(service.access_tokens(&bot).await[0]["name"], "relay");
}

#[tokio::test]
async fn forms_without_the_sessions_own_token_are_refused() {
    let service = Service::start_with_manual_clock().await;
    let (org, bot, owner) = page(&service).await;
    let other = service.member(&org, &[Role::Owner]).await;
    let token = service.access_token(&bot, &json!({"name": "relay"})).await;
    let before = service.table.items().await;
    let create = (Method::POST, org.page("access-tokens/create"), vec![("name", "x"), READONLY, SELECTED, NEVER]);
    for (method, path, fields) in requests(&org, &token).into_iter().chain([create]) {
        if method == Method::POST {
            let answer = owner.submit_with(&other.form_token(), &path, &fields).await;
            assert_eq!(answer.status, 403, "{path}: {}", answer.text);
        }
    }
    assert_eq!(service.table.items().await, before);
}

/// An owner who is demoted or removed while a request is on its way changes nothing.
#[tokio::test]
async fn owner_who_was_cut_off_meanwhile_changes_nothing() {
    let service = Service::start_with_manual_clock().await;
    let (org, bot, owner) = page(&service).await;
    service.member(&org, &[Role::Owner]).await;
    let token = service.access_token(&bot, &json!({"name": "relay"})).await;
    let (store, operator) = (&service.store, &operator());
    let member = store.membership(owner.person.id, &org.id).await.unwrap().unwrap();
    let demoted = store.set_member_roles(&org.id, &member.id, &[Role::Member], Authority::Operator, operator).await;
    assert_eq!(demoted.unwrap(), MemberChange::Done);
    let authority = Authority::Member(&member);
    let widen = |token: &shared::store::tokens::OrgAccessToken| {
        let mut access_config = token.access_config.clone();
        access_config.all_projects = true;
        Ok::<_, ()>(shared::store::org_access_tokens::Settings {
            name: token.name.clone(),
            is_active: true,
            expires_at: None,
            access_config,
        })
    };
    let changed = store.change_org_access_token(&org.id, authority, token.id, operator, widen).await;
    assert!(matches!(changed, Ok(Ok(Changed::CallerChanged))), "{changed:?}");
    // The page that was filled in before.
    for (method, path, fields) in requests(&org, &token) {
        assert_eq!(send(&owner, &method, &path, &fields).await.status, 403, "{path}");
    }
    store.remove_member(&org.id, &member.id, Authority::Operator, operator).await.unwrap();
    for (method, path, fields) in requests(&org, &token) {
        let answer = send(&owner, &method, &path, &fields).await;
        assert!(answer.status == 303 && answer.header("location").starts_with("/console/sign-in"), "{path}");
    }
    assert_eq!(service.access_tokens(&bot).await[0]["access_config"]["all_projects"], false);
}
