//! Rotation of org user tokens and API keys: a successor with the same rights, an overlap in which
//! both work, and a lost answer that strands nobody.

use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use futures::future::join_all;
use reqwest::Method;
use serde_json::{Value, json};
use shared::console::SignIn;
use shared::domain::Plan;
use shared::observe::{Origin, ReceivedAt};
use shared::permissions::Role;
use shared::store::members::Authority;
use shared::store::org_user_tokens::Issued;
use tests::console::person;
use tests::coverage::all_scopes;
use tests::faults::Fault;
use tests::management::API_KEYS;
use tests::table::text;
use tests::{Answer, Bot, Org, Service, operator};
use tower::ServiceExt;

const HOUR: Duration = Duration::from_secs(60 * 60);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// A kind of token that can be rotated.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Kind {
    User,
    ApiKey,
}

const KINDS: [Kind; 2] = [Kind::User, Kind::ApiKey];

/// A token: its ID and plain text.
#[derive(Debug, Clone)]
struct Made {
    id: String,
    plain: String,
}

impl Made {
    fn of(body: &Value) -> Self {
        let plain = body["token"].as_str().or(body["key"].as_str()).unwrap();
        Self { id: text(body, "id").to_owned(), plain: plain.to_owned() }
    }
}

struct Setup<'a> {
    service: &'a Service,
    org: Org,
    owner: Bot,
    kind: Kind,
}

impl<'a> Setup<'a> {
    async fn new(service: &'a Service, kind: Kind) -> Self {
        let (org, owner) = service.org_with_owner().await;
        Self { service, org, owner, kind }
    }

    async fn make(&self, expires_at: Option<&str>) -> Made {
        let answer = match self.kind {
            Kind::User => {
                let body = json!({"user_identifier": "alice-laptop", "expires_at": expires_at});
                self.service.post(&self.org.org_user_tokens(""), &self.owner.credential, &body).await
            }
            Kind::ApiKey => {
                let body = json!({
                    "name": "ci", "environment": "test", "scopes": ["org:read", "org:write"], "expires_at": expires_at
                });
                self.service.post(API_KEYS, &self.owner.credential, &body).await
            }
        };
        assert_eq!(answer.status, 201, "{}", answer.text);
        Made::of(&answer.json())
    }

    fn path(&self, id: &str) -> String {
        match self.kind {
            Kind::User => self.org.org_user_tokens(&format!("/by-id/{id}")),
            Kind::ApiKey => format!("{API_KEYS}/{id}"),
        }
    }

    async fn try_rotate(&self, id: &str, body: Value) -> Answer {
        self.service.post(&format!("{}/rotate", self.path(id)), &self.owner.credential, &body).await
    }

    async fn rotate(&self, id: &str, body: Value) -> Made {
        let answer = self.try_rotate(id, body).await;
        assert_eq!(answer.status, 201, "{}", answer.text);
        assert_eq!(text(&answer.json(), "replaces"), id);
        Made::of(&answer.json())
    }

    async fn revoke(&self, id: &str) {
        let answer = self.service.call(Method::DELETE, &self.path(id), &self.owner.credential).await;
        assert_eq!(answer.status, 204, "{}", answer.text);
    }

    async fn works(&self, token: &Made) -> bool {
        let answer = self.service.whoami(&token.plain).await;
        assert!([200, 401].contains(&answer.status.as_u16()), "{}", answer.text);
        answer.status == 200
    }

    /// Whether a token is active, without a use of it.
    async fn is_listed(&self, token: &Made, status: &str) -> bool {
        self.listed(status).await.iter().any(|listed| listed["id"] == token.id.as_str())
    }

    /// The number of API keys that count towards the plan's limit.
    async fn counted(&self) -> u64 {
        let body = self.service.call(Method::GET, API_KEYS, &self.owner.credential).await.json();
        assert_eq!(self.service.table.findings(), Vec::<String>::new());
        body["plan"]["active_api_keys"].as_u64().unwrap()
    }

    async fn listed(&self, status: &str) -> Vec<Value> {
        let path = match self.kind {
            Kind::User => self.org.org_user_tokens(&format!("?status={status}&limit=100")),
            Kind::ApiKey => format!("{API_KEYS}?status={status}&limit=100"),
        };
        let body = self.service.call(Method::GET, &path, &self.owner.credential).await.json();
        body["tokens"].as_array().or(body["api_keys"].as_array()).unwrap().clone()
    }
}

#[tokio::test]
async fn rotation_without_overlap_ends_the_old_token_at_once() {
    let service = Service::start_with_manual_clock().await;
    for kind in KINDS {
        let setup = Setup::new(&service, kind).await;
        let old = setup.make(Some("2027-01-01T00:00:00Z")).await;
        let answer = setup.try_rotate(&old.id, json!({})).await;
        assert_eq!(answer.status, 201, "{}", answer.text);
        let (new, body) = (Made::of(&answer.json()), answer.json());
        assert_eq!((text(&body, "expires_at"), text(&body, "replaces")), ("2027-01-01T00:00:00Z", old.id.as_str()));
        match kind {
            Kind::User => assert_eq!(text(&body, "user_identifier"), "alice-laptop"),
            Kind::ApiKey => {
                let kept = (text(&body, "name"), text(&body, "environment"), &body["scopes"]);
                assert_eq!(kept, ("ci", "test", &json!(["org:read", "org:write"])));
            }
        }
        assert!(!setup.works(&old).await && setup.works(&new).await, "{kind:?}");
        assert!(setup.is_listed(&old, "revoked").await && setup.is_listed(&new, "active").await);
        setup.try_rotate(&old.id, json!({})).await.assert_error(404, "TOKEN_NOT_FOUND");
    }
}

#[tokio::test]
async fn both_tokens_work_until_the_overlap_ends() {
    let service = Service::start_with_manual_clock().await;
    for kind in KINDS {
        let setup = Setup::new(&service, kind).await;
        let old = setup.make(None).await;
        let new = setup.rotate(&old.id, json!({"overlap": "24h"})).await;
        service.clock.advance(DAY - Duration::from_secs(1));
        assert!(setup.works(&new).await && setup.works(&old).await, "{kind:?}");
        service.clock.advance(Duration::from_secs(1));
        assert!(setup.works(&new).await && !setup.works(&old).await, "{kind:?}");
        assert!(setup.is_listed(&old, "expired").await && !setup.is_listed(&old, "active").await);
        setup.try_rotate(&old.id, json!({})).await.assert_error(404, "TOKEN_NOT_FOUND");
    }
}

#[tokio::test]
async fn overlap_never_extends_the_old_tokens_life() {
    for kind in KINDS {
        let service = Service::start_with_manual_clock().await;
        let setup = Setup::new(&service, kind).await;
        let old = setup.make(Some("2026-11-21T11:00:00Z")).await;
        setup.rotate(&old.id, json!({"overlap": "2h", "expires_at": "2027-01-01T00:00:00Z"})).await;
        service.clock.advance(HOUR);
        assert!(!setup.works(&old).await, "{kind:?}");
    }
}

#[tokio::test]
async fn first_use_of_the_successor_ends_the_old_token() {
    let service = Service::start_with_manual_clock().await;
    for kind in KINDS {
        let setup = Setup::new(&service, kind).await;
        let old = setup.make(None).await;
        let new = setup.rotate(&old.id, json!({"until_first_use": true})).await;
        service.clock.advance(7 * DAY - HOUR);
        // A probe is no use.
        if kind == Kind::User {
            assert_eq!(service.probe(&setup.org, &setup.owner, &new.plain).await["active"], true);
        }
        assert!(setup.works(&old).await && setup.is_listed(&old, "active").await, "{kind:?}");
        assert!(setup.works(&new).await);
        assert!(!setup.works(&old).await);
        assert!(!setup.is_listed(&old, "active").await && setup.is_listed(&old, "revoked").await, "{kind:?}");
        let listed = setup.listed("revoked").await;
        let listed = listed.iter().find(|listed| listed["id"] == old.id.as_str()).unwrap();
        assert_eq!((text(listed, "revoked_by"), text(listed, "replaced_by")), (new.id.as_str(), new.id.as_str()));
        setup.try_rotate(&old.id, json!({})).await.assert_error(404, "TOKEN_NOT_FOUND");
    }
}

#[tokio::test]
async fn introspection_is_a_first_use_too() {
    let service = Service::start_with_manual_clock().await;
    for kind in KINDS {
        let setup = Setup::new(&service, kind).await;
        let old = setup.make(None).await;
        let new = setup.rotate(&old.id, json!({"until_first_use": true})).await;
        let introspect = async |token: &Made| service.introspect(&setup.owner, &json!({"token": token.plain})).await;
        assert_eq!(introspect(&old).await["active"], true);
        assert_eq!(introspect(&new).await["active"], true);
        assert_eq!(introspect(&old).await, json!({"active": false}), "{kind:?}");
    }
}

#[tokio::test]
async fn self_revocation_is_a_first_use_too() {
    let service = Service::start_with_manual_clock().await;
    for kind in KINDS {
        for by_npm in [false, true] {
            let setup = Setup::new(&service, kind).await;
            let old = setup.make(None).await;
            let new = setup.rotate(&old.id, json!({"until_first_use": true})).await;
            assert!(setup.works(&old).await);
            let (path, status) = match by_npm {
                true if kind == Kind::User => (format!("/npm/-/user/token/{}", new.plain), 200),
                _ => ("/v1/tokens/self".to_owned(), 204),
            };
            let answer = service.call(Method::DELETE, &path, &new.plain).await;
            assert_eq!(answer.status, status, "{}", answer.text);
            assert!(!setup.works(&new).await && !setup.works(&old).await, "{kind:?}");
            setup.try_rotate(&old.id, json!({})).await.assert_error(404, "TOKEN_NOT_FOUND");
            assert!(!setup.is_listed(&old, "active").await && setup.is_listed(&old, "revoked").await);
        }
    }
}

#[tokio::test]
async fn listing_that_finds_a_replaced_token_is_named_in_its_audit_entry() {
    let service = Service::start_with_manual_clock().await;
    for kind in KINDS {
        let setup = Setup::new(&service, kind).await;
        let olds = [setup.make(None).await, setup.make(None).await, setup.make(None).await];
        for old in &olds {
            let new = setup.rotate(&old.id, json!({"until_first_use": true})).await;
            assert!(setup.works(&new).await);
        }
        let path = match kind {
            Kind::User => setup.org.org_user_tokens(""),
            Kind::ApiKey => API_KEYS.to_owned(),
        };
        let listing = service.call(Method::GET, &path, &setup.owner.credential).await;
        let request_id = listing.headers["x-request-id"].to_str().unwrap();
        let entries = service.table.audit_entries(&setup.org.id).await;
        for old in &olds {
            let is_settled =
                |entry: &&Value| text(entry, "action").ends_with(".revoke") && entry["target"]["id"] == old.id.as_str();
            let [entry] = &entries.iter().filter(is_settled).collect::<Vec<_>>()[..] else { panic!("{kind:?}") };
            assert_eq!(text(entry, "request_id"), request_id);
        }
    }
}

#[tokio::test]
async fn use_of_a_successors_successor_ends_its_ancestors() {
    let service = Service::start_with_manual_clock().await;
    for kind in KINDS {
        let setup = Setup::new(&service, kind).await;
        let first = setup.make(None).await;
        let second = setup.rotate(&first.id, json!({"until_first_use": true})).await;
        let third = setup.rotate(&second.id, json!({"until_first_use": true})).await;
        assert!(setup.works(&first).await);
        assert!(setup.works(&third).await);
        assert!(!setup.works(&first).await && !setup.works(&second).await && setup.works(&third).await, "{kind:?}");
    }
}

#[tokio::test]
async fn rotating_an_ancestor_again_ends_the_whole_line_behind_it() {
    let service = Service::start_with_manual_clock().await;
    for kind in KINDS {
        for body in [json!({"until_first_use": true}), json!({"overlap": "1d"})] {
            let setup = Setup::new(&service, kind).await;
            let first = setup.make(None).await;
            let second = setup.rotate(&first.id, body.clone()).await;
            let third = setup.rotate(&second.id, body.clone()).await;
            let other = setup.rotate(&first.id, json!({"until_first_use": true})).await;
            assert!(setup.works(&first).await && !setup.works(&second).await && !setup.works(&third).await);
            for ended in [&second, &third] {
                assert!(setup.is_listed(ended, "revoked").await && !setup.is_listed(ended, "active").await, "{kind:?}");
            }
            assert!(setup.works(&other).await && !setup.works(&first).await, "{kind:?}");
        }
    }
}

#[tokio::test]
async fn use_of_a_successors_successor_ends_the_rotations_of_its_ancestors() {
    let service = Service::start_with_manual_clock().await;
    for kind in KINDS {
        let setup = Setup::new(&service, kind).await;
        let first = setup.make(None).await;
        let second = setup.rotate(&first.id, json!({"overlap": "1d"})).await;
        let third = setup.rotate(&second.id, json!({"overlap": "1d"})).await;
        assert!(setup.works(&third).await && setup.works(&first).await, "the overlap goes on");
        for ancestor in [&first, &second] {
            setup.try_rotate(&ancestor.id, json!({})).await.assert_error(404, "TOKEN_NOT_FOUND");
        }
        assert!(setup.works(&third).await, "{kind:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rotations_of_a_line_at_once_leave_one_line() {
    let service = Service::start().await;
    for kind in KINDS {
        for _ in 0..5 {
            let setup = Setup::new(&service, kind).await;
            let first = setup.make(None).await;
            let second = setup.rotate(&first.id, json!({"overlap": "1d"})).await;
            join_all((0..2).map(|_| service.whoami(&setup.owner.credential))).await;
            let body = json!({"until_first_use": true});
            let answers =
                futures::join!(setup.try_rotate(&first.id, body.clone()), setup.try_rotate(&second.id, body.clone()));
            assert_eq!(answers.0.status, 201, "{}", answers.0.text);
            let mut lost = vec![second];
            match answers.1.status.as_u16() {
                201 => lost.push(Made::of(&answers.1.json())),
                _ => answers.1.assert_error(404, "TOKEN_NOT_FOUND"),
            }
            for lost in &lost {
                assert!(!setup.works(lost).await, "{kind:?}");
            }
            assert!(setup.works(&first).await && setup.works(&Made::of(&answers.0.json())).await, "{kind:?}");
            assert!(!setup.works(&first).await, "{kind:?}");
            assert_eq!(service.table.findings(), Vec::<String>::new());
        }
    }
}

#[tokio::test]
async fn api_key_rotates_its_own_unused_successor() {
    let service = Service::start_with_manual_clock().await;
    for body in [json!({"until_first_use": true}), json!({"overlap": "7d"})] {
        let setup = Setup::new(&service, Kind::ApiKey).await;
        let old = setup.make(Some("2026-11-26T10:00:00Z")).await;
        let rotate = async |id: &str| {
            let path = format!("{API_KEYS}/{id}/rotate");
            service.post(&path, &old.plain, &body).await
        };
        let lost = Made::of(&rotate(&old.id).await.json());
        let answer = rotate(&lost.id).await;
        assert_eq!(answer.status, 201, "{}", answer.text);
        assert!(setup.works(&old).await && setup.works(&Made::of(&answer.json())).await, "{body}");
        assert!(!body["until_first_use"].is_boolean() || !setup.works(&old).await);
    }
}

#[tokio::test]
async fn revocation_by_user_does_not_count_what_a_first_use_has_ended() {
    let service = Service::start_with_manual_clock().await;
    let setup = Setup::new(&service, Kind::User).await;
    let first = setup.make(None).await;
    let second = setup.rotate(&first.id, json!({"until_first_use": true})).await;
    let path = setup.org.org_user_tokens("/revoke-by-user");
    let revoke = async |expected: u64, dry_run: bool| {
        let body = json!({"user_identifier": "alice-laptop", "expected_count": expected, "dry_run": dry_run});
        service.post(&path, &setup.owner.credential, &body).await
    };
    assert_eq!(revoke(2, true).await.json()["matched"], 2);
    assert!(setup.works(&second).await);
    revoke(2, true).await.assert_error(409, "CONFLICT");
    let revoked = revoke(1, false).await;
    assert_eq!(revoked.json(), json!({"matched": 1, "revoked": [second.id], "remaining": 0}), "{}", revoked.text);
}

#[tokio::test]
async fn lost_answer_strands_nobody() {
    let service = Service::start_with_manual_clock().await;
    for kind in KINDS {
        let setup = Setup::new(&service, kind).await;
        let old = setup.make(None).await;
        let lost = setup.rotate(&old.id, json!({"until_first_use": true})).await;
        service.clock.advance(HOUR);
        assert!(setup.works(&old).await);
        let kept = setup.rotate(&old.id, json!({"until_first_use": true})).await;
        // Nobody has the lost one; whoever finds it cannot use it.
        assert!(!setup.works(&lost).await && setup.works(&old).await, "{kind:?}");
        assert!(setup.works(&kept).await);
        assert!(!setup.works(&old).await && !setup.works(&lost).await && setup.works(&kept).await, "{kind:?}");
        setup.try_rotate(&old.id, json!({})).await.assert_error(404, "TOKEN_NOT_FOUND");
    }
}

#[tokio::test]
async fn revoked_successor_leaves_the_old_token_to_its_overlap() {
    let service = Service::start_with_manual_clock().await;
    for kind in KINDS {
        let setup = Setup::new(&service, kind).await;
        let old = setup.make(None).await;
        let new = setup.rotate(&old.id, json!({"until_first_use": true})).await;
        setup.revoke(&new.id).await;
        assert!(!setup.works(&new).await && setup.works(&old).await, "{kind:?}");
        let next = setup.rotate(&old.id, json!({"overlap": "1h"})).await;
        assert!(setup.works(&old).await && setup.works(&next).await);
        setup.revoke(&old.id).await;
        assert!(!setup.works(&old).await && setup.works(&next).await, "{kind:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_twenty_rotations_at_once_one_wins() {
    let service = Service::start().await;
    for kind in KINDS {
        for body in [json!({}), json!({"until_first_use": true})] {
            let setup = Setup::new(&service, kind).await;
            let old = setup.make(None).await;
            // With open connections, so that all come in before the first is carried out.
            join_all((0..20).map(|_| service.whoami(&old.plain))).await;
            let answers = join_all((0..20).map(|_| setup.try_rotate(&old.id, body.clone()))).await;
            let won: Vec<&Answer> = answers.iter().filter(|answer| answer.status == 201).collect();
            assert_eq!(won.len(), 1, "{kind:?}");
            for answer in answers.iter().filter(|answer| answer.status != 201) {
                answer.assert_error(409, "CONFLICT");
            }
            assert!(setup.works(&Made::of(&won[0].json())).await);
            assert!(!setup.works(&old).await);
        }
    }
}

#[tokio::test]
async fn call_that_came_in_before_another_had_rotated_is_409_however_late_its_function_starts() {
    let service = Service::start_with_manual_clock().await;
    for kind in KINDS {
        let setup = Setup::new(&service, kind).await;
        let (old, came_in) = (setup.make(None).await, service.clock.now_milliseconds());
        let function = match kind {
            Kind::User => "org-user-tokens-rotate",
            Kind::ApiKey => "api-keys-rotate",
        };
        let function = service.deployed(SignIn::Mail)[function].clone();
        let rotate = async |received_at: u64| {
            let request = Request::builder().method(Method::POST).uri(format!("{}/rotate", setup.path(&old.id)));
            let request = request.header("authorization", format!("Bearer {}", setup.owner.credential));
            let request = request.header("content-type", "application/json");
            let mut request = request.body(Body::from(r#"{"until_first_use":true}"#)).unwrap();
            request.extensions_mut().insert(Origin { request_id: "1".to_owned(), source_ip: None });
            request.extensions_mut().insert(ReceivedAt(received_at));
            function.clone().oneshot(request).await.unwrap().status().as_u16()
        };
        service.clock.advance(Duration::from_millis(200));
        assert_eq!(rotate(came_in).await, 201, "{kind:?}");
        service.clock.advance(Duration::from_millis(200));
        assert_eq!(rotate(came_in + 100).await, 409, "{kind:?}");
        // Who has lost the answer comes later.
        assert_eq!(rotate(came_in + 300).await, 201, "{kind:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn first_use_and_repeated_rotation_at_once_leave_one_line() {
    let service = Service::start().await;
    for kind in KINDS {
        for _ in 0..5 {
            let setup = Setup::new(&service, kind).await;
            let old = setup.make(None).await;
            let new = setup.rotate(&old.id, json!({"until_first_use": true})).await;
            let (again, used) =
                futures::join!(setup.try_rotate(&old.id, json!({"until_first_use": true})), service.whoami(&new.plain));
            match again.status.as_u16() {
                201 => {
                    assert!(!setup.works(&new).await, "{kind:?}");
                    assert!(setup.works(&Made::of(&again.json())).await && !setup.works(&old).await);
                }
                status => {
                    assert_eq!((status, used.status.as_u16()), (404, 200), "{kind:?}: {}", again.text);
                    assert!(setup.works(&new).await && !setup.works(&old).await);
                }
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn revocation_and_rotation_at_once_leave_no_old_token() {
    let service = Service::start().await;
    for kind in KINDS {
        for _ in 0..5 {
            let setup = Setup::new(&service, kind).await;
            let old = setup.make(Some("2099-12-31T23:59:59Z")).await;
            let path = setup.path(&old.id);
            let (rotated, revoked) = futures::join!(
                setup.try_rotate(&old.id, json!({"overlap": "1h"})),
                service.call(Method::DELETE, &path, &setup.owner.credential)
            );
            assert_eq!(revoked.status, 204, "{}", revoked.text);
            assert!([201, 404, 409].contains(&rotated.status.as_u16()), "{}", rotated.text);
            assert!(!setup.works(&old).await, "{kind:?}");
        }
    }
}

#[tokio::test]
async fn idempotency_key_names_the_successor() {
    let service = Service::start_with_manual_clock().await;
    for kind in KINDS {
        let setup = Setup::new(&service, kind).await;
        let old = setup.make(None).await;
        let rotate = async || {
            let path = format!("{}/rotate", setup.path(&old.id));
            let request = service.request(Method::POST, &path).bearer_auth(&setup.owner.credential);
            service.send(request.header("idempotency-key", "one").json(&json!({"until_first_use": true}))).await
        };
        let first = rotate().await;
        assert_eq!(first.status, 201, "{}", first.text);
        let new = Made::of(&first.json());
        let repeat = rotate().await;
        repeat.assert_error(409, "CONFLICT");
        assert!(repeat.text.contains(&new.id), "{}", repeat.text);
        assert!(setup.works(&new).await, "{kind:?}");
    }
}

#[tokio::test]
async fn bad_input_names_its_field() {
    let service = Service::start_with_manual_clock().await;
    for kind in KINDS {
        let setup = Setup::new(&service, kind).await;
        let old = setup.make(None).await;
        for (body, field) in [
            (json!({"overlap": "8d"}), "overlap"),
            (json!({"overlap": "1w"}), "overlap"),
            (json!({"overlap": 3600}), "overlap"),
            (json!({"until_first_use": "yes"}), "until_first_use"),
            (json!({"expires_at": "2026-11-21T10:00:00Z"}), "expires_at"),
            (json!({"expires_at": "soon"}), "expires_at"),
            (json!({"overlaps": "1h"}), "overlaps"),
        ] {
            setup.try_rotate(&old.id, body).await.assert_invalid(field);
        }
        assert!(setup.works(&old).await);
        for id in ["01KAJ8M4R2X7Z9V5T3Q1N6P8WC", "nonsense"] {
            setup.try_rotate(id, json!({})).await.assert_error(404, "TOKEN_NOT_FOUND");
        }
    }
}

#[tokio::test]
async fn another_organization_rotates_nothing() {
    let service = Service::start_with_manual_clock().await;
    for kind in KINDS {
        let (setup, other) = (Setup::new(&service, kind).await, Setup::new(&service, kind).await);
        let old = setup.make(None).await;
        other.try_rotate(&old.id, json!({})).await.assert_error(404, "TOKEN_NOT_FOUND");
        if kind == Kind::User {
            let path = format!("{}/rotate", setup.path(&old.id));
            service.post(&path, &other.owner.credential, &json!({})).await.assert_error(403, "FORBIDDEN");
        }
        assert!(setup.works(&old).await);
    }
}

#[tokio::test]
async fn rotated_keys_count_once_towards_the_plan() {
    let service = Service::start_with_manual_clock().await;
    let setup = Setup::new(&service, Kind::ApiKey).await;
    service.set_plan(&setup.org, Plan::Free).await;
    let limit = Plan::Free.max_api_keys().unwrap();
    let mut keys = Vec::new();
    for _ in 0..limit {
        keys.push(setup.make(None).await);
    }
    let full = json!({"name": "ci", "environment": "test", "scopes": ["org:read"]});
    let create = async || service.post(API_KEYS, &setup.owner.credential, &full).await;
    let first = setup.rotate(&keys[0].id, json!({"overlap": "1h"})).await;
    let second = setup.rotate(&keys[0].id, json!({"until_first_use": true})).await;
    assert!(!setup.works(&first).await && setup.works(&keys[0]).await);
    assert_eq!(setup.counted().await, limit);
    create().await.assert_error(403, "PLAN_LIMIT_REACHED");
    assert!(setup.works(&second).await && !setup.works(&keys[0]).await);
    setup.listed("active").await;
    assert_eq!(setup.counted().await, limit);
    create().await.assert_error(403, "PLAN_LIMIT_REACHED");
    setup.revoke(&second.id).await;
    assert_eq!(setup.counted().await, limit - 1);
    assert_eq!(create().await.status, 201);
    // What expires at the end of an overlap frees no slot.
    let third = setup.rotate(&keys[1].id, json!({"overlap": "1h"})).await;
    service.clock.advance(HOUR);
    assert_eq!(setup.counted().await, limit);
    assert!(setup.works(&third).await);
}

#[tokio::test]
async fn rotated_key_counts_again_if_its_successor_ends_first() {
    let service = Service::start_with_manual_clock().await;
    let setup = Setup::new(&service, Kind::ApiKey).await;
    service.set_plan(&setup.org, Plan::Free).await;
    let limit = Plan::Free.max_api_keys().unwrap();
    let mut keys = Vec::new();
    for _ in 0..limit {
        keys.push(setup.make(None).await);
    }
    let full = json!({"name": "ci", "environment": "test", "scopes": ["org:read"]});
    let is_full = async || {
        let answer = service.post(API_KEYS, &setup.owner.credential, &full).await;
        answer.assert_error(403, "PLAN_LIMIT_REACHED");
        assert_eq!(setup.counted().await, limit);
    };
    // Revoked, at the end of its own time, with what it replaces in between, and for want of use.
    let revoked = setup.rotate(&keys[0].id, json!({"overlap": "7d"})).await;
    setup.revoke(&revoked.id).await;
    is_full().await;
    assert_eq!(setup.listed("active").await.len() as u64, limit);
    let brief = json!({"overlap": "7d", "expires_at": "2026-11-21T10:01:00Z"});
    let again = setup.rotate(&keys[0].id, brief.clone()).await;
    let line = setup.rotate(&keys[1].id, json!({"overlap": "7d"})).await;
    let end_of_line = setup.rotate(&line.id, brief).await;
    service.clock.advance(Duration::from_secs(60));
    assert!(!setup.works(&again).await && !setup.works(&end_of_line).await && setup.is_listed(&line, "active").await);
    is_full().await;
    setup.revoke(&line.id).await;
    is_full().await;
    assert!(setup.works(&keys[1]).await);
    service.end_unused(&setup.org.id, 1).await;
    let unused = setup.rotate(&keys[2].id, json!({"overlap": "7d"})).await;
    for _ in 0..24 {
        service.clock.advance(HOUR);
        for key in &keys {
            assert!(setup.works(key).await);
        }
    }
    assert!(!setup.works(&unused).await);
    is_full().await;
    // Each takes a successor again, and frees its place at last.
    for key in &keys {
        setup.rotate(&key.id, json!({"overlap": "1h"})).await;
    }
    is_full().await;
    service.clock.advance(25 * HOUR);
    assert_eq!(setup.counted().await, 0);
}

#[tokio::test]
async fn place_of_a_key_that_revokes_itself_goes_to_what_its_use_does_not_end() {
    let service = Service::start_with_manual_clock().await;
    for (first_body, counted) in [(json!({"overlap": "7d"}), 1), (json!({"until_first_use": true}), 0)] {
        let setup = Setup::new(&service, Kind::ApiKey).await;
        let first = setup.make(None).await;
        let second = setup.rotate(&first.id, first_body).await;
        let third = setup.rotate(&second.id, json!({"until_first_use": true})).await;
        let answer = service.call(Method::DELETE, "/v1/tokens/self", &third.plain).await;
        assert_eq!(answer.status, 204, "{}", answer.text);
        assert_eq!(setup.counted().await, counted);
        assert_eq!((setup.works(&first).await, setup.works(&second).await), (counted == 1, false));
    }
}

#[tokio::test]
async fn successor_that_has_expired_gives_no_place_to_a_key_that_has_another() {
    let service = Service::start_with_manual_clock().await;
    let setup = Setup::new(&service, Kind::ApiKey).await;
    let first = setup.make(None).await;
    for _ in 0..3 {
        let soon = service.clock.now().plus(Duration::from_secs(60)).to_string();
        let brief = setup.rotate(&first.id, json!({"overlap": "7d", "expires_at": soon})).await;
        // It has expired, and nothing has moved it yet.
        service.clock.advance(HOUR);
        let next = setup.rotate(&first.id, json!({"overlap": "7d"})).await;
        assert_eq!(setup.counted().await, 1);
        assert!(!setup.works(&brief).await && setup.is_listed(&next, "active").await);
        setup.rotate(&first.id, json!({"overlap": "7d"})).await;
        assert_eq!(setup.counted().await, 1);
    }
    setup.revoke(&first.id).await;
    for key in setup.listed("active").await {
        setup.revoke(text(&key, "id")).await;
    }
    assert_eq!(setup.counted().await, 0);
}

#[tokio::test]
async fn places_of_keys_that_end_in_any_order_are_counted_exactly() {
    for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
        let service = Service::start_with_manual_clock().await;
        let setup = Setup::new(&service, Kind::ApiKey).await;
        let first = setup.make(None).await;
        let second = setup.rotate(&first.id, json!({"overlap": "7d"})).await;
        let third = setup.rotate(&second.id, json!({"overlap": "7d"})).await;
        let line = [first, second, third];
        for (ended, key) in order.iter().enumerate() {
            assert_eq!(setup.counted().await, 1, "{order:?} {ended}");
            setup.revoke(&line[*key].id).await;
        }
        assert_eq!(setup.counted().await, 0, "{order:?}");
    }
}

#[tokio::test]
async fn api_key_rotates_only_what_it_may_create() {
    let service = Service::start_with_manual_clock().await;
    let setup = Setup::new(&service, Kind::ApiKey).await;
    let rotate =
        async |by: &str, id: &str, body: Value| service.post(&format!("{API_KEYS}/{id}/rotate"), by, &body).await;
    let all = service.api_key(&setup.owner.credential, &all_scopes()).await;
    let weak = setup.make(None).await;
    rotate(&weak.plain, &all.id, json!({})).await.assert_error(403, "FORBIDDEN");
    let same = rotate(&weak.plain, &weak.id, json!({"until_first_use": true})).await;
    assert_eq!(same.status, 201, "{}", same.text);
    // It lost the answer, and may do so again; it creates nothing else that outlives its overlap.
    let again = rotate(&weak.plain, &weak.id, json!({"until_first_use": true})).await;
    assert_eq!(again.status, 201, "{}", again.text);
    let forever = json!({"name": "ci", "environment": "test", "scopes": ["org:read"]});
    service.post(API_KEYS, &weak.plain, &forever).await.assert_error(403, "FORBIDDEN");
    let stronger = rotate(&all.key, &weak.id, json!({"until_first_use": true})).await;
    assert_eq!(stronger.status, 201, "{}", stronger.text);
    let brief = json!({
        "name": "brief", "environment": "live", "scopes": all_scopes(), "expires_at": "2026-12-21T10:00:00Z"
    });
    let brief = service.api_key_with(&setup.owner.credential, &brief).await;
    rotate(&brief.key, &all.id, json!({})).await.assert_error(403, "FORBIDDEN");
    let shorter = rotate(&brief.key, &all.id, json!({"expires_at": "2026-12-21T10:00:00Z"})).await;
    assert_eq!(shorter.status, 201, "{}", shorter.text);
}

#[tokio::test]
async fn api_key_that_somebody_else_has_rotated_does_not_prolong_itself() {
    let service = Service::start_with_manual_clock().await;
    let setup = Setup::new(&service, Kind::ApiKey).await;
    let suspect = setup.make(None).await;
    let ends = service.clock.now().plus(HOUR).to_string();
    setup.rotate(&suspect.id, json!({"overlap": "1h"})).await;
    let rotate =
        async |body: Value| service.post(&format!("{API_KEYS}/{}/rotate", suspect.id), &suspect.plain, &body).await;
    rotate(json!({"expires_at": null})).await.assert_error(403, "FORBIDDEN");
    let later = service.clock.now().plus(2 * HOUR).to_string();
    rotate(json!({"expires_at": later})).await.assert_error(403, "FORBIDDEN");
    let answer = rotate(json!({"overlap": "7d"})).await;
    assert_eq!((answer.status.as_u16(), text(&answer.json(), "expires_at")), (201, ends.as_str()));
    let own = Made::of(&answer.json());
    // Nor does it when it was the one that rotated it last.
    assert_eq!(text(&rotate(json!({"overlap": "7d"})).await.json(), "expires_at"), ends);
    service.clock.advance(HOUR);
    assert!(!setup.works(&suspect).await && !setup.works(&own).await);
    assert!(setup.listed("active").await.is_empty());
}

#[tokio::test]
async fn api_key_that_is_rotated_while_it_creates_another_creates_none_once_it_has_ended() {
    let (service, faults) = Service::start_with_faults().await;
    for has_ended in [true, false] {
        let setup = Setup::new(&service, Kind::ApiKey).await;
        let key = setup.make(None).await;
        let new = json!({"name": "another", "environment": "test", "scopes": ["org:read"]});
        faults.arm_where(|call| call.operation == "TransactWriteItems", &[Fault::Held], None);
        let rotated = async {
            faults.reached_where(1).await;
            let successor = setup.rotate(&key.id, json!({"until_first_use": true})).await;
            assert!(!has_ended || setup.works(&successor).await);
            faults.release();
        };
        let (answer, ()) = futures::join!(service.post(API_KEYS, &key.plain, &new), rotated);
        faults.disarm();
        assert_eq!(answer.status, if has_ended { 401 } else { 503 }, "{}", answer.text);
        assert!(setup.listed("active").await.iter().all(|key| key["name"] == "ci"));
    }
}

#[tokio::test]
async fn line_of_unused_tokens_has_an_end_and_is_revoked_as_a_whole() {
    let service = Service::start_with_manual_clock().await;
    for kind in KINDS {
        let setup = Setup::new(&service, kind).await;
        let first = setup.make(Some("2027-01-01T00:00:00Z")).await;
        assert!(setup.works(&first).await);
        let mut line = vec![first];
        while line.len() < 15 {
            service.clock.advance(Duration::from_secs(1));
            line.push(setup.rotate(&line.last().unwrap().id, json!({"until_first_use": true})).await);
        }
        let refused = setup.try_rotate(&line[14].id, json!({"until_first_use": true})).await;
        refused.assert_error(409, "CONFLICT");
        assert!(refused.text.contains("without ever being used"), "{}", refused.text);
        // The one before it takes another successor in place of that.
        service.clock.advance(Duration::from_secs(1));
        let last = setup.rotate(&line[13].id, json!({"until_first_use": true})).await;
        assert!(setup.is_listed(&line[14], "revoked").await && setup.works(&line[0]).await, "{kind:?}");
        // All that is written about 14 successors fits one transaction.
        let request = service.request(Method::POST, &format!("{}/rotate", setup.path(&line[0].id)));
        let request = request.bearer_auth(&setup.owner.credential).header("idempotency-key", "one");
        service.clock.advance(Duration::from_secs(1));
        let body = json!({"until_first_use": true, "expires_at": "2026-12-31T00:00:00Z"});
        let answer = service.send(request.json(&body)).await;
        assert_eq!(answer.status, 201, "{kind:?}: {}", answer.text);
        assert_eq!(setup.listed("active").await.len(), 2, "{kind:?}");
        assert!(setup.works(&line[0]).await && !setup.works(&last).await);
        assert!(setup.works(&Made::of(&answer.json())).await && !setup.works(&line[0]).await);
    }
}

#[tokio::test]
async fn first_use_waits_for_a_transaction_that_holds_the_token() {
    let (service, faults) = Service::start_with_faults().await;
    for kind in KINDS {
        let setup = Setup::new(&service, kind).await;
        let old = setup.make(None).await;
        let new = setup.rotate(&old.id, json!({"until_first_use": true})).await;
        faults.arm_where(|call| call.operation == "UpdateItem", &[Fault::Busy, Fault::Busy], None);
        assert!(setup.works(&new).await, "{kind:?}");
        assert_eq!(faults.take_calls().iter().filter(|call| call.operation == "UpdateItem").count(), 3);
        assert!(!setup.works(&old).await, "{kind:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn repeats_at_once_are_told_what_was_made() {
    let service = Service::start().await;
    for kind in KINDS {
        for body in [json!({}), json!({"overlap": "1h"})] {
            let setup = Setup::new(&service, kind).await;
            let old = setup.make(None).await;
            let answers = join_all((0..10).map(|_| {
                let request = service.request(Method::POST, &format!("{}/rotate", setup.path(&old.id)));
                let request = request.bearer_auth(&setup.owner.credential).header("idempotency-key", "one");
                service.send(request.json(&body))
            }))
            .await;
            let made: Vec<Made> =
                answers.iter().filter(|answer| answer.status == 201).map(|answer| Made::of(&answer.json())).collect();
            let [made] = &made[..] else { panic!("{kind:?}: {made:?}") };
            for answer in answers.iter().filter(|answer| answer.status != 201) {
                answer.assert_error(409, "CONFLICT");
                assert!(answer.text.contains(&made.id), "{kind:?}: {}", answer.text);
            }
        }
    }
}

#[tokio::test]
async fn rotation_needs_the_role_and_is_audited() {
    let service = Service::start_with_manual_clock().await;
    for (kind, action, allowed, refused) in [
        (Kind::User, "org_user_token", Role::Manager, Role::TokenIssuer),
        (Kind::ApiKey, "api_key", Role::ApiKeyManager, Role::Manager),
    ] {
        let setup = Setup::new(&service, kind).await;
        let old = setup.make(None).await;
        let path = format!("{}/rotate", setup.path(&old.id));
        let [allowed, refused] = [allowed, refused].map(|role| [role]);
        let (may, may_not) = (service.bot(&setup.org, &allowed).await, service.bot(&setup.org, &refused).await);
        service.post(&path, &may_not.credential, &json!({})).await.assert_error(403, "FORBIDDEN");
        let answer = service.post(&path, &may.credential, &json!({})).await;
        assert_eq!(answer.status, 201, "{}", answer.text);
        let entries = service.table.audit_entries(&setup.org.id).await;
        let of = |outcome: &str| {
            let is = |entry: &&Value| entry["action"] == format!("{action}.rotate") && entry["outcome"] == outcome;
            entries.iter().filter(is).cloned().collect::<Vec<_>>()
        };
        let (done, denied) = (of("done"), of("refused"));
        assert_eq!((done.len(), denied.len()), (1, 1));
        assert_eq!(done[0]["target"]["id"], old.id.as_str());
        assert_eq!(done[0]["actor"]["id"], may.id.as_str());
    }
}

#[tokio::test]
async fn successor_of_a_bound_token_ends_with_the_membership() {
    let service = Service::start_with_manual_clock().await;
    let setup = Setup::new(&service, Kind::User).await;
    let member = service.join(&setup.org.id, &person("alice@example.com"), &[Role::Member]).await;
    let (user, operator) = ("alice-laptop".to_owned().try_into().unwrap(), operator());
    let issued = service.store.issue_own_org_user_token(&member, user, None, &operator, None);
    let Issued::Done(token, _) = issued.await.unwrap() else { panic!("not issued") };
    let new = setup.rotate(token.id.as_str(), json!({})).await;
    assert!(setup.works(&new).await);
    service.store.remove_member(&setup.org.id, &member.id, Authority::Operator, &operator).await.unwrap();
    assert!(!setup.works(&new).await);
}
