//! The page of API keys, and its forms.

use futures::future::join_all;
use reqwest::Method;
use shared::domain::{Plan, Scope};
use shared::permissions::Role;
use shared::secret::Token;
use tests::console::Visitor;
use tests::table::text;
use tests::{Answer, Org, Service, operator};

const FORM: [(&str, &str); 4] =
    [("name", "ci-pipeline"), ("environment", "live"), ("scope", "shield:write"), ("expiry", "90")];

async fn page(service: &Service) -> (Org, Visitor<'_>) {
    let org = service.org().await;
    let manager = service.member(&org, &[Role::ApiKeyManager]).await;
    (org, manager)
}

/// The key on the page that shows it.
fn shown_key(answer: &Answer) -> String {
    Token::found_in(&answer.text).unwrap_or_else(|| panic!("{}", answer.text)).expose().to_owned()
}

async fn create(visitor: &Visitor<'_>, org: &Org) -> (String, String) {
    let created = visitor.submit(&org.page("api-keys/create"), &FORM).await;
    assert_eq!(created.status, 200, "{}", created.text);
    let listed = visitor.get(&org.page("api-keys")).await;
    let path = format!("{}/", org.page("api-keys"));
    let mut ids = listed.text.split(&path).skip(1).map(|rest| rest[..26].to_owned());
    let newest = ids.find(|id| id.starts_with("01")).unwrap();
    (newest, shown_key(&created))
}

fn error_of(answer: &Answer, field: &str) -> String {
    let rest = answer.text.split(&format!("id=\"{field}-error\"")).nth(1);
    rest.unwrap_or_else(|| panic!("no error at {field}: {}", answer.text)).split("</p>").next().unwrap().to_owned()
}

/// Reference 002: "Navigate to Settings > API Keys in the sidebar. Click Create Key. Give it a name…
/// Choose what the key can do… Copy the key immediately. It's shown once."
#[tokio::test]
async fn key_is_created_with_a_name_and_scopes_and_shown_once() {
    let service = Service::start().await;
    let (org, manager) = page(&service).await;
    let empty = manager.get(&org.page("api-keys")).await;
    assert!(empty.text.contains(">Create Key<") && empty.text.contains("curl -sS"), "{}", empty.text);
    let form = manager.get(&org.page("api-keys/create")).await;
    for scope in Scope::ALL {
        assert!(form.text.contains(scope.as_str()), "{}", scope.as_str());
    }
    assert!(form.text.contains("Run scans, tokenize, and rehydrate"), "{}", form.text);
    assert!(form.text.contains("id=\"expiry-90\" name=\"expiry\" value=\"90\" checked"), "{}", form.text);
    let created = manager.submit(&org.page("api-keys/create"), &FORM).await;
    assert_eq!((created.status.as_u16(), created.header("cache-control")), (200, "no-store"));
    let key = shown_key(&created);
    assert!(created.text.contains(&format!("TAKUMO_API_KEY=&#34;{key}&#34;")), "{}", created.text);
    assert_eq!(service.whoami(&key).await.json()["scopes"], serde_json::json!(["shield:write"]));
    let listed = manager.get(&org.page("api-keys")).await;
    assert!(listed.text.contains("ci-pipeline") && !listed.text.contains(&key), "{}", listed.text);
    assert!(listed.text.contains("1 of 20 keys in use") && listed.text.contains(&key[..16]), "{}", listed.text);
    let mut entries = service.table.items().await;
    entries.retain(|item| item["action"] == "api_key.create");
    assert_eq!(entries.len(), 1);
    assert_eq!(text(&entries[0]["actor"], "kind"), "member");
}

/// Reference 002: "Settings > API Keys > click the key > Revoke", "A revoked key returns 401
/// Unauthorized immediately. There is no undo."
#[tokio::test]
async fn key_is_revoked_at_once_after_a_confirmation() {
    let service = Service::start().await;
    let (org, manager) = page(&service).await;
    let (id, key) = create(&manager, &org).await;
    let looked = manager.get(&org.page(&format!("api-keys/{id}"))).await;
    let revoke = org.page(&format!("api-keys/{id}/revoke"));
    assert!(looked.text.contains(&revoke) && looked.text.contains(">Revoke<"), "{}", looked.text);
    let asked = manager.get(&revoke).await;
    assert!(asked.text.contains("There is no undo") && asked.text.contains("ci-pipeline"), "{}", asked.text);
    assert_eq!(service.whoami(&key).await.status, 200);
    let revoked = manager.submit(&revoke, &[]).await;
    assert_eq!((revoked.status.as_u16(), revoked.header("location")), (303, &*org.page("api-keys?revoked")));
    assert_eq!(service.whoami(&key).await.status, 401);
    assert!(manager.get(revoked.header("location")).await.text.contains("The API key was revoked."));
    assert_eq!(manager.submit(&revoke, &[]).await.status, 303, "revoking is idempotent");
    let listed = manager.get(&org.page("api-keys?state=revoked")).await;
    assert!(listed.text.contains(&id), "{}", listed.text);
}

#[tokio::test]
async fn errors_are_beside_their_fields_with_what_was_typed() {
    let service = Service::start().await;
    let (org, manager) = page(&service).await;
    let path = org.page("api-keys/create");
    let bad = manager.submit(&path, &[("name", " <b>"), ("expiry", "date"), ("expiry_date", "2020-01-01")]).await;
    assert_eq!(bad.status, 400, "{}", bad.text);
    assert!(error_of(&bad, "name").contains("1 to 100"), "{}", bad.text);
    assert!(error_of(&bad, "environment").contains("Select an environment."), "{}", bad.text);
    assert!(error_of(&bad, "scopes").contains("at least one scope"), "{}", bad.text);
    assert!(error_of(&bad, "expiry").contains("not in the past"), "{}", bad.text);
    assert!(bad.text.contains("value=\" &#60;b&#62;\"") && bad.text.contains("value=\"2020-01-01\""), "{}", bad.text);
    let unknown = [("name", "a"), ("environment", "live"), ("scope", "org:everything"), ("expiry", "never")];
    assert!(!error_of(&manager.submit(&path, &unknown).await, "scopes").is_empty());
    assert!(manager.get(&org.page("api-keys")).await.text.contains("0 of 20 keys in use"));
}

#[tokio::test]
async fn same_form_sent_again_makes_nothing_and_names_what_was_made() {
    let service = Service::start().await;
    let (org, manager) = page(&service).await;
    let (path, token) = (org.page("api-keys/create"), manager.form_token());
    let answers = join_all((0..10).map(|_| manager.submit_with(&token, &path, &FORM))).await;
    let (made, repeated): (Vec<_>, Vec<_>) = answers.iter().partition(|answer| answer.status == 200);
    assert_eq!(made.len(), 1);
    let key = shown_key(made[0]);
    let id = service.whoami(&key).await.json()["id"].as_str().unwrap().to_owned();
    for answer in repeated {
        assert_eq!(answer.status, 409, "{}", answer.text);
        assert!(answer.text.contains(&id) && !answer.text.contains(&key), "{}", answer.text);
    }
    assert!(manager.get(&org.page("api-keys")).await.text.contains("1 of 20 keys in use"));
}

#[tokio::test]
async fn full_plan_is_said_in_the_form() {
    let service = Service::start().await;
    let (org, manager) = page(&service).await;
    service.set_plan(&org, Plan::Free).await;
    for _ in 0..3 {
        create(&manager, &org).await;
    }
    let listed = manager.get(&org.page("api-keys")).await;
    assert!(listed.text.contains("3 of 3 keys in use") && !listed.text.contains(">Create Key<"), "{}", listed.text);
    let refused = manager.submit(&org.page("api-keys/create"), &FORM).await;
    assert_eq!(refused.status, 403, "{}", refused.text);
    assert!(refused.text.contains("All API keys of the plan are in use"), "{}", refused.text);
    assert!(refused.text.contains("value=\"ci-pipeline\""), "{}", refused.text);
}

fn requests(org: &Org, id: &str) -> [(Method, String); 6] {
    let page = |end: &str| org.page(&format!("api-keys{end}"));
    [
        (Method::GET, page("")),
        (Method::GET, page("/create")),
        (Method::POST, page("/create")),
        (Method::GET, page(&format!("/{id}"))),
        (Method::GET, page(&format!("/{id}/revoke"))),
        (Method::POST, page(&format!("/{id}/revoke"))),
    ]
}

async fn send(visitor: &Visitor<'_>, method: &Method, path: &str) -> Answer {
    if *method == Method::GET { visitor.get(path).await } else { visitor.submit(path, &FORM).await }
}

#[tokio::test]
async fn roles_without_the_right_are_refused_and_get_no_link() {
    let service = Service::start().await;
    let (org, manager) = page(&service).await;
    let (id, key) = create(&manager, &org).await;
    for &role in Role::ALL.iter().filter(|role| ![Role::Owner, Role::ApiKeyManager].contains(role)) {
        let visitor = service.member(&org, &[role]).await;
        for (method, path) in requests(&org, &id) {
            let answer = send(&visitor, &method, &path).await;
            assert_eq!(answer.status, 403, "{role:?} {method} {path}");
        }
        let overview = visitor.get(&org.page("")).await;
        assert!(!overview.text.contains(&org.page("api-keys")), "{role:?}");
    }
    assert_eq!(service.whoami(&key).await.status, 200);
}

#[tokio::test]
async fn keys_of_another_organization_are_not_found() {
    let service = Service::start().await;
    let (org, manager) = page(&service).await;
    let (other, stranger) = page(&service).await;
    let (id, key) = create(&manager, &org).await;
    for (method, path) in requests(&org, &id) {
        assert_eq!(send(&stranger, &method, &path).await.status, 404, "{method} {path}");
    }
    for (method, path) in requests(&other, &id).into_iter().skip(3) {
        assert_eq!(send(&stranger, &method, &path).await.status, 404, "{method} {path}");
    }
    assert_eq!(service.whoami(&key).await.status, 200);
}

#[tokio::test]
async fn manager_who_is_removed_while_creating_keys_leaves_no_active_key() {
    let service = Service::start().await;
    let org = service.org().await;
    service.set_plan(&org, Plan::Enterprise).await;
    let manager = service.member(&org, &[Role::ApiKeyManager]).await;
    let member = service.store.membership(manager.person.id, &org.id).await.unwrap().unwrap();
    let path = org.page("api-keys/create");
    let creating = async {
        let mut after = 0;
        while after < 5 {
            let answer = manager.submit(&path, &FORM).await;
            after += usize::from(answer.status != 200);
        }
    };
    let removing = async {
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        let authority = shared::store::members::Authority::Operator;
        service.store.remove_member(&org.id, &member.id, authority, &operator()).await.unwrap()
    };
    tokio::join!(creating, removing);
    let items = service.table.items().await;
    let removed_at = items.iter().find(|item| item["action"] == "member.remove").unwrap()["at"].clone();
    let late = items.iter().filter(|item| {
        item["kind"] == "api_key" && item["revoked_at"].is_null() && item["created_at"].as_str() > removed_at.as_str()
    });
    assert_eq!(late.count(), 0);
}
