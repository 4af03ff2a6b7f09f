//! What each call costs in DynamoDB's units, and that it costs no more in a large organization.
//!
//! The arithmetic is DynamoDB's: a strongly consistent read is 1 unit for each begun 4 KB of an item, a query of all that
//! it reads together; a write is 1 unit for each begun KB and 1 more for each index the item is in, and in a transaction
//! the table's share counts double. Nothing here is larger than 1 KB, so an item read is 1, and an item written in a
//! transaction 2; an audit entry is in four indexes, so it is 6.

use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use shared::cost::Cost;
use shared::principal::Role;
use tests::{Answer, Bot, Issued, Org, Service};

/// Bot and organization.
const AUTH: f64 = 2.0;
const AUDIT: f64 = 6.0;
const WRITE: f64 = 2.0;

fn cost(calls: u32, read: f64, write: f64) -> Cost {
    Cost { read, write, calls }
}

/// An organization and its owner, for calls that are about what they cost.
struct Payer<'a> {
    service: &'a Service,
    org: Org,
    owner: Bot,
}

impl Payer<'_> {
    async fn send(&self, method: Method, rest: &str, body: Option<Value>) -> Answer {
        let path = self.org.org_user_tokens(rest);
        match body {
            Some(body) => self.service.post(&path, &self.owner.credential, &body).await,
            None => self.service.call(method, &path, &self.owner.credential).await,
        }
    }

    async fn post(&self, rest: &str, body: Value) -> Cost {
        let answer = self.send(Method::POST, rest, Some(body)).await;
        assert!(answer.status.is_success(), "{}", answer.text);
        answer.cost()
    }

    async fn list(&self, query: &str) -> Cost {
        let answer = self.send(Method::GET, query, None).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
        answer.cost()
    }

    async fn revoke(&self, id: &str) -> Cost {
        let answer = self.send(Method::DELETE, &format!("/by-id/{id}"), None).await;
        assert_eq!(answer.status, 204, "{}", answer.text);
        answer.cost()
    }

    async fn issue(&self, identifier: &str) -> Issued {
        self.service.issue(&self.org, &self.owner, identifier).await
    }

    async fn issue_until(&self, identifier: &str, expires_at: &str) -> Issued {
        self.service.issue_until(&self.org, &self.owner, identifier, expires_at).await
    }
}

async fn payer(service: &Service) -> Payer<'_> {
    let (org, owner) = service.org_with_owner().await;
    Payer { service, org, owner }
}

#[tokio::test]
async fn each_call_costs_what_it_must_and_no_more() {
    let service = Service::start_with_manual_clock().await;
    let payer = payer(&service).await;

    // One transaction: the token, its two pointers, and with an expiry a third.
    let issue = payer.post("", json!({"user_identifier": "alice"})).await;
    assert_eq!(issue, cost(3, AUTH, 3.0 * WRITE + AUDIT));
    let expiring = json!({"user_identifier": "alice", "expires_at": "2027-01-01T00:00:00Z"});
    assert_eq!(payer.post("", expiring).await, cost(3, AUTH, 4.0 * WRITE + AUDIT));

    // One more read; none where the text cannot be a token.
    let token = payer.issue("bobby").await;
    assert_eq!(payer.post("/probe", json!({"token": token.token})).await, cost(3, AUTH + 1.0, 0.0));
    let unknown = tests::coverage::made_up(shared::secret::TokenKind::OrgUser);
    assert_eq!(payer.post("/probe", json!({"token": unknown})).await, cost(3, AUTH + 1.0, 0.0));
    assert_eq!(payer.post("/probe", json!({"token": "nonsense"})).await, cost(2, AUTH, 0.0));

    // What has expired, the listing, and each token on the page.
    assert_eq!(payer.list("").await, cost(5, AUTH + 2.0 + 3.0, 0.0));
    assert_eq!(payer.list("?user_identifier=bobby").await, cost(5, AUTH + 2.0 + 1.0, 0.0));
    assert_eq!(payer.list("?user_identifier=nobody").await, cost(4, AUTH + 2.0, 0.0));
    assert_eq!(payer.list("?status=expired").await, cost(4, AUTH + 2.0, 0.0));
    assert_eq!(payer.list("?status=revoked").await, cost(3, AUTH + 1.0, 0.0));
    assert_eq!(payer.list("?status=all").await, cost(6, AUTH + 3.0 + 3.0, 0.0));
    // Filters that exclude each other are not looked up.
    let contradiction = "?user_identifier=alice&user_identifier_prefix=bob";
    assert_eq!(payer.list(contradiction).await, cost(2, AUTH, 0.0));

    // The pointer is read; the token is changed, taken out of two listings and put into a third.
    assert_eq!(payer.revoke(&token.id).await, cost(4, AUTH + 1.0, 4.0 * WRITE + AUDIT));
    let expiring = payer.issue_until("bobby", "2027-01-01T00:00:00Z").await;
    assert_eq!(payer.revoke(&expiring.id).await, cost(4, AUTH + 1.0, 5.0 * WRITE + AUDIT));

    // Two queries around the same for each token.
    for _ in 0..2 {
        payer.issue("carol").await;
    }
    let dry = json!({"user_identifier": "carol", "dry_run": true});
    assert_eq!(payer.post("/revoke-by-user", dry).await, cost(3, AUTH + 1.0, 0.0));
    let real = json!({"user_identifier": "carol"});
    assert_eq!(payer.post("/revoke-by-user", real).await, cost(6, AUTH + 2.0, 2.0 * (4.0 * WRITE + AUDIT)));
}

#[tokio::test]
async fn what_is_refused_costs_no_more_than_finding_out() {
    let service = Service::start().await;
    let payer = payer(&service).await;
    let path = payer.org.org_user_tokens("");
    let list = async |credential: &str| service.call(Method::GET, &path, credential).await;
    // What cannot be a credential never reaches the table, however many come.
    for credential in ["nonsense", &tests::coverage::mistyped(&payer.owner.credential[..57])] {
        let answer = list(credential).await;
        assert_eq!((answer.status.as_u16(), answer.cost()), (401, cost(0, 0.0, 0.0)));
    }
    let made_up = format!("{}:{}", tests::coverage::made_up(shared::secret::TokenKind::BotApiKey), payer.owner.id);
    let answer = list(&made_up).await;
    assert_eq!(answer.status, 401);
    // Bot and organization are read side by side, and the one is not waited for once the other has decided.
    assert!([cost(1, AUTH / 2.0, 0.0), cost(2, AUTH, 0.0)].contains(&answer.cost()), "{:?}", answer.cost());
    let powerless = service.bot(&payer.org, &[Role::ApiKeyManager]).await;
    let answer = list(&powerless.credential).await;
    assert_eq!((answer.status.as_u16(), answer.cost()), (403, cost(2, AUTH, 0.0)));
    let answer = service.post(&path, &powerless.credential, &json!({"user_identifier": "alice"})).await;
    assert_eq!((answer.status.as_u16(), answer.cost()), (403, cost(3, AUTH, AUDIT)));
    let answer = service.post(&path, &payer.owner.credential, &json!({"user_identifier": "!"})).await;
    assert_eq!((answer.status.as_u16(), answer.cost()), (400, cost(2, AUTH, 0.0)));
}

/// Fills an organization with so many tokens in each state.
async fn fill(payer: &Payer<'_>, each: usize) {
    let service = payer.service;
    let active = payer.issue("person-none").await;
    let soon = service.clock.now().plus(Duration::from_secs(1));
    let expired = payer.issue_until("person-gone", &soon.to_string()).await;
    let revoked = payer.issue("person-left").await;
    service.clock.advance(Duration::from_secs(1));
    payer.list("?status=expired").await;
    payer.revoke(&revoked.id).await;
    for original in [active, expired, revoked] {
        let identifiers = (0..each).map(|n| format!("person-{n:04}")).collect();
        service.table.copies(&original, identifiers).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_costs_more_in_a_large_organization() {
    let service = Service::start_with_manual_clock().await;
    let (small, large) = (payer(&service).await, payer(&service).await);
    fill(&small, 10).await;
    fill(&large, 2_000).await;
    let mut costs: [Vec<(String, Cost)>; 2] = Default::default();
    for (costs, payer) in costs.iter_mut().zip([&small, &large]) {
        let mut add = |what: &str, cost: Cost| costs.push((what.to_owned(), cost));
        add("issue", payer.post("", json!({"user_identifier": "zacharias"})).await);
        let token = payer.issue_until("zacharias", "2099-01-01T00:00:00Z").await;
        add("probe", payer.post("/probe", json!({"token": token.token})).await);
        add("revoke", payer.revoke(&token.id).await);
        for status in ["active", "expired", "revoked", "all"] {
            for filter in
                ["", "&user_identifier_prefix=person-000", "&user_identifier=person-0003", "&user_identifier=nobody"]
            {
                let query = format!("?status={status}{filter}&limit=4");
                let answer = payer.send(Method::GET, &query, None).await;
                add(&query, answer.cost());
                if let Some(cursor) = answer.json()["next_cursor"].as_str() {
                    add(&format!("{query}, second page"), payer.list(&format!("{query}&cursor={cursor}")).await);
                }
            }
        }
        add("revoke by user", payer.post("/revoke-by-user", json!({"user_identifier": "zacharias"})).await);
    }
    for ((what, small), (_, large)) in costs[0].iter().zip(&costs[1]) {
        assert_eq!(small, large, "{what}");
    }
    assert!(costs[0].len() == costs[1].len() && costs[0].len() > 20);

    // And a page costs in proportion to what is on it.
    for (limit, queried) in [(1, 1.0), (10, 1.0), (50, 3.0), (100, 6.0)] {
        let cost = large.list(&format!("?limit={limit}")).await;
        let found = Cost { read: AUTH + 1.0 + queried + f64::from(limit), write: 0.0, calls: 5 };
        assert_eq!(cost, found, "limit={limit}");
    }
}

#[tokio::test]
async fn what_has_expired_is_paid_for_by_one_listing() {
    let service = Service::start_with_manual_clock().await;
    let payer = payer(&service).await;
    let pattern = payer.issue_until("expiring", "2026-11-21T10:00:01Z").await;
    payer.service.table.copies(&pattern, vec!["expiring".to_owned(); 29]).await;
    payer.issue("staying").await;
    service.clock.advance(Duration::from_secs(1));
    let (first, second) = (payer.list("").await, payer.list("").await);
    // Each move takes a pointer out of the active ones and out of the order of expiries, and puts it among the expired.
    assert_eq!(first.write, 30.0 * 3.0 * WRITE);
    assert_eq!(first.calls, 5 + 30);
    assert_eq!(second, cost(5, AUTH + 2.0 + 1.0, 0.0));
}

#[tokio::test]
async fn a_caller_is_found_out_about_in_two_reads_side_by_side() {
    use tests::faults::Fault;
    let (service, faults) = Service::start_with_faults().await;
    let (org, owner) = service.org_with_owner().await;
    // Neither of the first two calls is answered before the other has come.
    faults.arm(0, &[Fault::Together, Fault::Together], None);
    let answer = service.call(Method::GET, &org.org_user_tokens("?status=revoked"), &owner.credential).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    assert_eq!(faults.disarm(), ["GetItem", "GetItem", "Query"]);
}
