//! The page of projects, and its forms.

use reqwest::Method;
use serde_json::json;
use shared::permissions::Role;
use tests::console::{Submission, Visitor};
use tests::table::text;
use tests::{Answer, Org, Service};

async fn projects(service: &Service, org: &Org) -> Vec<String> {
    service.store.projects(&org.id).await.unwrap()
}

async fn page(service: &Service) -> (Org, Visitor<'_>) {
    let org = service.org().await;
    let owner = service.member(&org, &[Role::Owner]).await;
    (org, owner)
}

#[tokio::test]
async fn project_is_added_listed_and_removed() {
    let service = Service::start_with_manual_clock().await;
    let (org, owner) = page(&service).await;
    let path = org.page("projects");
    let empty = owner.get(&path).await;
    assert!(empty.text.contains("No projects yet") && empty.text.contains(">Add Project<"), "{}", empty.text);
    let added = owner.submit(&path, &[("project", "prd-greenhouse")]).await;
    assert_eq!((added.status.as_u16(), added.header("location")), (303, &*org.page("projects?added")));
    let listed = owner.get(added.header("location")).await;
    assert!(
        listed.text.contains("The project was added.") && listed.text.contains("prd-greenhouse"),
        "{}",
        listed.text
    );
    let remove = org.page("projects/prd-greenhouse/remove");
    assert!(listed.text.contains(&remove), "{}", listed.text);
    assert_eq!(owner.get(&remove).await.status, 200);
    assert_eq!(projects(&service, &org).await, ["prd-greenhouse"]);
    let removed = owner.submit(&remove, &[]).await;
    assert_eq!((removed.status.as_u16(), removed.header("location")), (303, &*org.page("projects?removed")));
    assert!(owner.get(removed.header("location")).await.text.contains("The project was removed."));
    for gone in [owner.get(&remove).await, owner.submit(&remove, &[]).await] {
        assert_eq!(gone.status, 404, "{}", gone.text);
    }
    let mut entries = service.table.items().await;
    entries.retain(|item| item["target"]["id"] == "prd-greenhouse");
    let mut logged: Vec<_> = entries.iter().map(|item| (text(&item["actor"], "kind"), text(item, "action"))).collect();
    logged.sort();
    assert_eq!(logged, [("member", "project.add"), ("member", "project.remove")]);
}

#[tokio::test]
async fn tokens_that_name_a_project_are_shown_and_named_before_removal() {
    let service = Service::start_with_manual_clock().await;
    let (org, visitor) = page(&service).await;
    let owner = service.bot(&org, &[Role::Owner]).await;
    service.projects(&org, &["coldroom", "greenhouse"]).await;
    let config = json!({"projects": ["greenhouse"]});
    let relay = json!({"name": "Webhook <b>relay</b>", "access_config": config});
    let relay = service.access_token(&owner, &relay).await;
    service.access_token(&owner, &json!({"name": "everywhere", "access_config": {"all_projects": true}})).await;
    let listed = visitor.get(&org.page("projects")).await;
    let link = format!(
        "<a href=\"{}\">Webhook &#60;b&#62;relay&#60;/b&#62;</a>",
        org.page(&format!("access-tokens/{}", relay.id))
    );
    assert_eq!(listed.text.matches(&link).count(), 1, "{}", listed.text);
    assert!(!listed.text.contains("everywhere"), "{}", listed.text);
    let asked = visitor.get(&org.page("projects/greenhouse/remove")).await;
    assert!(asked.text.contains("Webhook &#60;b&#62;relay&#60;/b&#62;"), "{}", asked.text);
    assert!(!visitor.get(&org.page("projects/coldroom/remove")).await.text.contains("Webhook"));

    for number in 0..10 {
        service.access_token(&owner, &json!({"name": format!("relay {number}"), "access_config": config})).await;
    }
    let listed = visitor.get(&org.page("projects")).await;
    assert!(listed.text.contains("… (11 tokens)") && !listed.text.contains(&link), "{}", listed.text);
    let asked = visitor.get(&org.page("projects/greenhouse/remove")).await;
    assert!(asked.text.contains("relay 9, ") && asked.text.contains("Webhook"), "{}", asked.text);
}

#[tokio::test]
async fn errors_of_the_form_are_beside_the_field_with_what_was_typed() {
    let service = Service::start_with_manual_clock().await;
    let (org, owner) = page(&service).await;
    service.projects(&org, &["greenhouse"]).await;
    let long = "a".repeat(65);
    for (typed, shown, message) in [
        ("", "", "Enter 1 to 64 characters"),
        ("a b", "a b", "Enter 1 to 64 characters"),
        ("..", "..", "Enter 1 to 64 characters"),
        ("-a", "-a", "Enter 1 to 64 characters"),
        ("a/b", "a/b", "Enter 1 to 64 characters"),
        (&long, &long, "Enter 1 to 64 characters"),
        ("\"><script>", "&#34;&#62;&#60;script&#62;", "Enter 1 to 64 characters"),
        ("greenhouse", "greenhouse", "This project already exists."),
    ] {
        let answer = owner.submit(&org.page("projects"), &[("project", typed)]).await;
        assert_eq!(answer.status, 400, "{}", answer.text);
        let error = answer.text.split("id=\"project-error\"").nth(1).unwrap().split("</p>").next().unwrap();
        assert!(error.contains(message), "{typed}: {error}");
        assert!(answer.text.contains(&format!("value=\"{shown}\"")), "{typed}: {}", answer.text);
    }
    assert_eq!(projects(&service, &org).await, ["greenhouse"]);
}

fn requests(org: &Org) -> [Submission; 4] {
    [
        (Method::GET, org.page("projects"), vec![]),
        (Method::POST, org.page("projects"), vec![("project", "coldroom")]),
        (Method::GET, org.page("projects/greenhouse/remove"), vec![]),
        (Method::POST, org.page("projects/greenhouse/remove"), vec![]),
    ]
}

async fn send(visitor: &Visitor<'_>, method: &Method, path: &str, fields: &[(&str, &str)]) -> Answer {
    if *method == Method::GET { visitor.get(path).await } else { visitor.submit(path, fields).await }
}

#[tokio::test]
async fn only_owners_see_and_use_the_page() {
    let service = Service::start_with_manual_clock().await;
    let (org, _) = page(&service).await;
    service.projects(&org, &["greenhouse"]).await;
    for &role in Role::ALL.iter().filter(|role| **role != Role::Owner) {
        let visitor = service.member(&org, &[role]).await;
        for (method, path, fields) in requests(&org) {
            let answer = send(&visitor, &method, &path, &fields).await;
            assert_eq!(answer.status, 403, "{role:?} {method} {path}: {}", answer.text);
        }
        assert!(!visitor.get(&org.page("")).await.text.contains(&org.page("projects")), "{role:?}");
    }
    assert_eq!(projects(&service, &org).await, ["greenhouse"]);
}

#[tokio::test]
async fn project_of_another_organization_is_not_found() {
    let service = Service::start_with_manual_clock().await;
    let (org, owner) = page(&service).await;
    let (other, _) = page(&service).await;
    service.projects(&other, &["greenhouse"]).await;
    for remove in [org.page("projects/greenhouse/remove"), other.page("projects/greenhouse/remove")] {
        assert_eq!(owner.get(&remove).await.status, 404);
        assert_eq!(owner.submit(&remove, &[]).await.status, 404);
    }
    assert_eq!(owner.submit(&other.page("projects"), &[("project", "mine")]).await.status, 404);
    assert_eq!(projects(&service, &other).await, ["greenhouse"]);
}

#[tokio::test]
async fn forms_without_the_sessions_own_token_are_refused() {
    let service = Service::start_with_manual_clock().await;
    let (org, owner) = page(&service).await;
    service.projects(&org, &["greenhouse"]).await;
    let other = service.member(&org, &[Role::Owner]).await;
    for (method, path, fields) in requests(&org) {
        if method == Method::POST {
            assert_eq!(owner.submit_with(&other.form_token(), &path, &fields).await.status, 403, "{path}");
        }
    }
    assert_eq!(projects(&service, &org).await, ["greenhouse"]);
}
