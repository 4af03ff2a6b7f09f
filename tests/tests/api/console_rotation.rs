//! Rotation on the pages of tokens, one's own tokens, and API keys. That of bots is in
//! `console_bots`.

use std::time::Duration;

use futures::future::join_all;
use shared::permissions::Role;
use tests::console::Visitor;
use tests::{Answer, Org, Service};

const PAGES: [&str; 3] = ["tokens", "my-tokens", "api-keys"];

struct Setup<'a> {
    service: &'a Service,
    org: Org,
    owner: Visitor<'a>,
    page: &'static str,
    prefix: &'static str,
}

/// The one secret on a page.
fn secret_on(answer: &Answer, prefix: &str) -> String {
    assert_eq!(answer.status, 200, "{}", answer.text);
    let length = if prefix == "tk_test_" { 64 } else { 42 };
    let rest = answer
        .text
        .split(prefix)
        .find(|rest| rest.len() >= length && rest.as_bytes()[..length].iter().all(|byte| byte.is_ascii_alphanumeric()));
    format!("{prefix}{}", &rest.unwrap_or_else(|| panic!("no secret: {}", answer.text))[..length])
}

impl<'a> Setup<'a> {
    async fn new(service: &'a Service, page: &'static str) -> Self {
        let org = service.org().await;
        let owner = service.member(&org, &[Role::Owner]).await;
        Self { service, org, owner, page, prefix: if page == "api-keys" { "tk_test_" } else { "tg_org_" } }
    }

    /// Makes a token on the page: its ID and secret.
    async fn make(&self) -> (String, String) {
        let (path, fields) = match self.page {
            "tokens" => ("tokens/issue", vec![("user_identifier", "alice-laptop"), ("expiry", "never")]),
            "my-tokens" => ("my-tokens/issue", vec![("expiry", "never")]),
            _ => (
                "api-keys/create",
                vec![("name", "ci"), ("environment", "test"), ("scope", "org:read"), ("expiry", "never")],
            ),
        };
        let made = self.owner.submit(&self.org.page(path), &fields).await;
        let secret = secret_on(&made, self.prefix);
        (self.id_of(&secret).await, secret)
    }

    async fn id_of(&self, secret: &str) -> String {
        let answer = self.service.whoami(secret).await.json();
        answer["id"].as_str().unwrap().to_owned()
    }

    fn path(&self, id: &str) -> String {
        self.org.page(&format!("{}/{id}/rotate", self.page))
    }

    async fn rotate(&self, id: &str, overlap: &str) -> Answer {
        self.owner.submit(&self.path(id), &[("overlap", overlap)]).await
    }

    async fn works(&self, secret: &str) -> bool {
        self.service.whoami(secret).await.status == 200
    }
}

#[tokio::test]
async fn token_is_rotated_and_its_successor_shown_once() {
    let service = Service::start_with_manual_clock().await;
    for page in PAGES {
        for (overlap, hours) in [("", 0), ("24h", 24), ("7d", 7 * 24)] {
            let setup = Setup::new(&service, page).await;
            let (id, old) = setup.make().await;
            let form = setup.owner.get(&setup.path(&id)).await;
            for shown in ["name=\"overlap\"", "value=\"first-use\"", "Rotate"] {
                assert!(form.text.contains(shown), "{page} {shown}: {}", form.text);
            }
            let rotated = setup.rotate(&id, overlap).await;
            let new = secret_on(&rotated, setup.prefix);
            assert!(!rotated.text.contains(&old) && rotated.text.contains("The old one"), "{}", rotated.text);
            assert!(setup.works(&new).await);
            assert_eq!(setup.works(&old).await, hours > 0, "{page} {overlap}");
            let successor = setup.id_of(&new).await;
            let list = setup.owner.get(&setup.org.page(&format!("{page}?state=all"))).await;
            for shown in [format!("Rotated to {successor}"), format!("Replaces {id}")] {
                assert!(list.text.contains(&shown), "{page} {shown}: {}", list.text);
            }
            assert!(!list.text.contains(&new));
            service.clock.advance(Duration::from_secs(hours * 3_600));
            assert!(!setup.works(&old).await && setup.works(&new).await);
        }
    }
}

#[tokio::test]
async fn first_use_ends_the_old_token_and_a_lost_successor_is_replaced() {
    let service = Service::start_with_manual_clock().await;
    for page in PAGES {
        let setup = Setup::new(&service, page).await;
        let (id, old) = setup.make().await;
        let lost = secret_on(&setup.rotate(&id, "first-use").await, setup.prefix);
        let kept = setup.rotate(&id, "first-use").await;
        assert!(kept.text.contains("when the new one is used"), "{}", kept.text);
        let kept = secret_on(&kept, setup.prefix);
        assert!(!setup.works(&lost).await && setup.works(&old).await, "{page}");
        assert!(setup.works(&kept).await && !setup.works(&old).await, "{page}");
        assert_eq!(setup.rotate(&id, "first-use").await.status, 404, "{page}");
    }
}

#[tokio::test]
async fn form_that_is_sent_twice_makes_one_successor() {
    let service = Service::start_with_manual_clock().await;
    for page in PAGES {
        let setup = Setup::new(&service, page).await;
        let (id, old) = setup.make().await;
        let (token, path) = (setup.owner.form_token(), setup.path(&id));
        let fields = [("overlap", "24h")];
        let answers = join_all((0..10).map(|_| setup.owner.submit_with(&token, &path, &fields))).await;
        let (made, repeated): (Vec<_>, Vec<_>) = answers.iter().partition(|answer| answer.status == 200);
        assert_eq!((made.len(), repeated.len()), (1, 9), "{page}");
        assert!(repeated.iter().all(|answer| answer.status == 409), "{page}");
        assert!(setup.works(&secret_on(made[0], setup.prefix)).await && setup.works(&old).await);
        let late = setup.owner.submit_with(&token, &path, &fields).await;
        assert_eq!(late.status, 409, "{}", late.text);
    }
}

#[tokio::test]
async fn form_of_one_token_makes_and_names_nothing_for_another() {
    let service = Service::start_with_manual_clock().await;
    for page in PAGES {
        let setup = Setup::new(&service, page).await;
        let (token, fields) = (setup.owner.form_token(), [("overlap", "24h")]);
        let ((first, _), (second, old)) = (setup.make().await, setup.make().await);
        let made = setup.owner.submit_with(&token, &setup.path(&first), &fields).await;
        let successor = setup.id_of(&secret_on(&made, setup.prefix)).await;
        let other = setup.owner.submit_with(&token, &setup.path(&second), &fields).await;
        assert_eq!(other.status, 409, "{page}: {}", other.text);
        assert!(!other.text.contains(&successor), "{page}: {}", other.text);
        assert!(setup.works(&old).await, "{page}");
    }
}

#[tokio::test]
async fn rotation_needs_the_role_the_own_token_and_a_choice_that_is_offered() {
    let service = Service::start_with_manual_clock().await;
    for page in PAGES {
        let setup = Setup::new(&service, page).await;
        let (id, old) = setup.make().await;
        assert_eq!(setup.rotate(&id, "8d").await.status, 400, "{page}");
        assert_eq!(setup.rotate("01KAJ8M4R2X7Z9V5T3Q1N6P8WC", "").await.status, 404, "{page}");
        // An issuer of tokens has no rights to rotate those of others.
        let other = service.member(&setup.org, &[Role::TokenIssuer]).await;
        let expected = if page == "my-tokens" { 404 } else { 403 };
        assert_eq!(other.submit(&setup.path(&id), &[("overlap", "")]).await.status, expected, "{page}");
        let foreign = Setup::new(&service, page).await;
        assert_eq!(foreign.rotate(&id, "").await.status, 404, "{page}");
        assert!(setup.works(&old).await);
    }
}

#[tokio::test]
async fn without_guard_nothing_is_rotated_but_api_keys() {
    let service = Service::start_with_manual_clock().await;
    for page in PAGES {
        let setup = Setup::new(&service, page).await;
        let (id, old) = setup.make().await;
        service.set_guard(&setup.org.id, false).await;
        let status = if page == "api-keys" { 200 } else { 403 };
        let answer = setup.rotate(&id, "24h").await;
        assert_eq!(answer.status, status, "{page}: {}", answer.text);
        assert!(setup.works(&old).await);
    }
}
