//! The cost of each call in DynamoDB units, independent of the organization's size.
//!
//! DynamoDB's rules: a strongly consistent read costs 1 unit per started 4 KB of an item, a query
//! of everything it reads. A write costs 1 unit per started KB plus 1 per index of the item; in a
//! transaction the table's share doubles. All items here are below 1 KB, so a read costs 1 and a
//! transactional write 2. An audit entry is in four indexes, so it costs 6.

use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use shared::cost::Cost;
use shared::domain::LeakPolicy;
use shared::permissions::Role;
use shared::secret::TokenKind;
use tests::console::issued_token;
use tests::coverage::{Fixtures, unknown_token};
use tests::{Answer, Bot, Issued, Org, Service};

/// The read of the bot.
const AUTH: f64 = 1.0;
/// The read of the organization, for its subscription.
const GUARD: f64 = 1.0;
/// The second read of the bot, after something was created.
const CONFIRM: f64 = 1.0;
/// What every page of an organization reads: the session, the membership and the organization.
const PAGE: u32 = 3;
const AUDIT: f64 = 6.0;
const WRITE: f64 = 2.0;
/// The use of a key of a bot, written at most every five minutes.
const USE: f64 = 1.0;

fn cost(calls: u32, read: f64, write: f64) -> Cost {
    Cost { read, write, calls }
}

/// Calls on behalf of one organization that return their cost.
struct OrgClient<'a> {
    service: &'a Service,
    org: Org,
    owner: Bot,
}

impl OrgClient<'_> {
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

async fn client(service: &Service) -> OrgClient<'_> {
    let (org, owner) = service.org_with_owner().await;
    OrgClient { service, org, owner }
}

#[tokio::test]
async fn each_call_has_its_exact_cost() {
    let service = Service::start_with_manual_clock().await;
    let client = client(&service).await;

    // One transaction: the token and two pointers.
    let issue = client.post("", json!({"user_identifier": "alice"})).await;
    assert_eq!(issue, cost(4, AUTH + GUARD + CONFIRM, 3.0 * WRITE + AUDIT));
    let expiring = json!({"user_identifier": "alice", "expires_at": "2027-01-01T00:00:00Z"});
    // With an expiry, which people are reminded of unless it is near, one or two pointers more.
    assert_eq!(client.post("", expiring).await, cost(4, AUTH + GUARD + CONFIRM, 5.0 * WRITE + AUDIT));
    let soon = json!({"user_identifier": "alice", "expires_at": "2026-11-28T09:59:59Z"});
    assert_eq!(client.post("", soon).await, cost(4, AUTH + GUARD + CONFIRM, 4.0 * WRITE + AUDIT));

    // One more read, or none if the text is not a well-formed token.
    let token = client.issue("bobby").await;
    assert_eq!(client.post("/probe", json!({"token": token.token})).await, cost(2, AUTH + 1.0, 0.0));
    let unknown = tests::coverage::unknown_token(shared::secret::TokenKind::OrgUser);
    assert_eq!(client.post("/probe", json!({"token": unknown})).await, cost(2, AUTH + 1.0, 0.0));
    assert_eq!(client.post("/probe", json!({"token": "nonsense"})).await, cost(1, AUTH, 0.0));

    // Queries for expired tokens and for the list, and one read per token on the page.
    assert_eq!(client.list("").await, cost(4, AUTH + 2.0 + 4.0, 0.0));
    assert_eq!(client.list("?user_identifier=bobby").await, cost(4, AUTH + 2.0 + 1.0, 0.0));
    assert_eq!(client.list("?user_identifier=nobody").await, cost(3, AUTH + 2.0, 0.0));
    // Also the policy on unused tokens, which is then remembered for a minute.
    assert_eq!(client.list("?status=expired").await, cost(4, AUTH + 3.0, 0.0));
    assert_eq!(client.list("?status=expired").await, cost(3, AUTH + 2.0, 0.0));
    assert_eq!(client.list("?status=revoked").await, cost(2, AUTH + 1.0, 0.0));
    assert_eq!(client.list("?status=all").await, cost(5, AUTH + 3.0 + 4.0, 0.0));
    // Contradictory filters need no query.
    let contradiction = "?user_identifier=alice&user_identifier_prefix=bob";
    assert_eq!(client.list(contradiction).await, cost(1, AUTH, 0.0));

    // Reads the pointer and the token, updates the token, removes it from two lists and adds it to a third.
    assert_eq!(client.revoke(&token.id).await, cost(4, AUTH + 2.0, 4.0 * WRITE + AUDIT));
    // Repeated, it writes nothing.
    assert_eq!(client.revoke(&token.id).await, cost(3, AUTH + 2.0, 0.0));
    let expiring = client.issue_until("bobby", "2027-01-01T00:00:00Z").await;
    assert_eq!(client.revoke(&expiring.id).await, cost(4, AUTH + 2.0, 5.0 * WRITE + AUDIT));

    // Two queries, and the same transaction per token.
    for _ in 0..2 {
        client.issue("carol").await;
    }
    let dry = json!({"user_identifier": "carol", "dry_run": true});
    assert_eq!(client.post("/revoke-by-user", dry).await, cost(2, AUTH + 1.0, 0.0));
    let real = json!({"user_identifier": "carol"});
    assert_eq!(client.post("/revoke-by-user", real).await, cost(5, AUTH + 2.0, 2.0 * (4.0 * WRITE + AUDIT)));
}

#[tokio::test]
async fn refused_calls_cost_only_authentication() {
    let service = Service::start_with_manual_clock().await;
    let client = client(&service).await;
    let path = client.org.org_user_tokens("");
    let list = async |credential: &str| service.call(Method::GET, &path, credential).await;
    // Malformed credentials never reach the table.
    for credential in ["nonsense", &tests::coverage::mistyped(&client.owner.credential[..57])] {
        let answer = list(credential).await;
        assert_eq!((answer.status.as_u16(), answer.cost()), (401, cost(0, 0.0, 0.0)));
    }
    let unknown_bot_key =
        format!("{}:{}", tests::coverage::unknown_token(shared::secret::TokenKind::BotApiKey), client.owner.id);
    let answer = list(&unknown_bot_key).await;
    assert_eq!(answer.status, 401);
    assert_eq!(answer.cost(), cost(1, AUTH, 0.0));
    let body = json!({"user_identifier": "alice"});
    let answer = service.post(&path, &unknown_bot_key, &body).await;
    assert_eq!(answer.status, 401);
    // Bot and organization are read in parallel; a refusal may not wait for the second read.
    assert!([cost(1, AUTH, 0.0), cost(2, AUTH + GUARD, 0.0)].contains(&answer.cost()), "{:?}", answer.cost());
    let powerless = service.bot(&client.org, &[Role::ApiKeyManager]).await;
    let answer = list(&powerless.credential).await;
    assert_eq!((answer.status.as_u16(), answer.cost()), (403, cost(1, AUTH, 0.0)));
    // The refusal is counted, and audited unless it is beyond the limit.
    for (status, calls, write) in [[(403, 4, 1.0 + AUDIT); 10].as_slice(), &[(429, 3, 1.0)]].concat() {
        let answer = service.post(&path, &powerless.credential, &body).await;
        assert_eq!((answer.status.as_u16(), answer.cost()), (status, cost(calls, AUTH + GUARD, write)));
    }
    let answer = service.post(&path, &client.owner.credential, &json!({"user_identifier": "!"})).await;
    assert_eq!((answer.status.as_u16(), answer.cost()), (400, cost(2, AUTH + GUARD, 0.0)));
}

#[tokio::test]
async fn keys_and_access_tokens_cost_one_more_look_at_the_bot() {
    let service = Service::start_with_manual_clock().await;
    let owner = client(&service).await.owner;
    let key = json!({"name": "ci", "environment": "live", "scopes": ["org:write"]});
    // What is due, the organization's plan and its counter; counter, plan, key, ID and listing.
    let answer = service.post("/v1/api-keys", &owner.credential, &key).await;
    assert_eq!(answer.cost(), cost(6, AUTH + 3.0 + CONFIRM, 5.0 * WRITE + AUDIT));
    let expiring =
        json!({"name": "ci", "environment": "live", "scopes": ["org:write"], "expires_at": "2027-01-01T00:00:00Z"});
    let ending = service.post("/v1/api-keys", &owner.credential, &expiring).await;
    assert_eq!(ending.cost(), cost(6, AUTH + 3.0 + CONFIRM, 7.0 * WRITE + AUDIT));
    // An API key is checked in the transaction instead, and its use is recorded.
    let writer = answer.json()["key"].as_str().unwrap().to_owned();
    assert_eq!(
        service.post("/v1/api-keys", &writer, &key).await.cost(),
        cost(6, AUTH + 3.0, 1.0 + 6.0 * WRITE + AUDIT)
    );
    // The organization; the number; name, token, pointer and their count, which the first one starts.
    let path = "/api/v2/organization/tokens/";
    service.post(path, &owner.credential, &json!({"name": "first"})).await;
    let answer = service.post(path, &owner.credential, &json!({"name": "device"})).await;
    assert_eq!(answer.cost(), cost(5, AUTH + 1.0 + CONFIRM, 1.0 + 4.0 * WRITE + AUDIT));
    let ending = json!({"name": "ending", "expires_at": "2027-01-01T00:00:00Z"});
    let ending = service.post(path, &owner.credential, &ending).await;
    assert_eq!(ending.cost(), cost(5, AUTH + 1.0 + CONFIRM, 1.0 + 5.0 * WRITE + AUDIT));
    // Pointer and token; the bot in the transaction, and the token.
    let path = format!("{path}{}/", answer.json()["id"]);
    let later = json!({"expires_at": "2027-01-01T00:00:00Z"});
    let answer = service.send_json(Method::PATCH, &path, &owner.credential, &later).await;
    // And the policy on lifetimes.
    assert_eq!(answer.cost(), cost(5, AUTH + 3.0, 3.0 * WRITE + AUDIT));
    let answer = service.send_json(Method::PATCH, &path, &owner.credential, &json!({"is_active": false})).await;
    assert_eq!(answer.cost(), cost(4, AUTH + 2.0, 2.0 * WRITE + AUDIT));
}

#[tokio::test]
async fn idempotency_key_costs_one_read_and_one_write() {
    let service = Service::start_with_manual_clock().await;
    let OrgClient { org, owner, .. } = client(&service).await;
    // Starts the counter of access tokens.
    service.access_token(&owner, &json!({"name": "first"})).await;
    let api_key = json!({"name": "ci", "environment": "live", "scopes": ["org:write"]});
    for (key, path, body) in [
        ("key-1", org.org_user_tokens(""), json!({"user_identifier": "alice"})),
        ("key-2", "/v1/api-keys".to_owned(), api_key),
        ("key-3", "/api/v2/organization/tokens/".to_owned(), json!({"name": "device"})),
    ] {
        let send = async |key: Option<&str>, body: &Value| {
            let request = service.request(Method::POST, &path).bearer_auth(&owner.credential).json(body);
            service.send(key.into_iter().fold(request, |request, key| request.header("Idempotency-Key", key))).await
        };
        let mut other = body.clone();
        for field in ["user_identifier", "name"] {
            if body.get(field).is_some() {
                other[field] = json!("without");
            }
        }
        let (without, with) = (send(None, &other).await.cost(), send(Some(key), &body).await.cost());
        let expected = cost(without.calls + 1, without.read + 1.0, without.write + WRITE);
        assert_eq!(with, expected, "{path}");
        // A repeat reads the key after the caller, and an issue also the organization.
        let guard = if path.contains("/guard/") { 1 } else { 0 };
        let repeat = send(Some(key), &body).await;
        assert_eq!((repeat.status.as_u16(), repeat.cost()), (409, cost(2 + guard, AUTH + f64::from(guard) + 1.0, 0.0)));
    }
}

#[tokio::test]
async fn removing_a_token_costs_one_look_at_its_address() {
    let service = Service::start_with_manual_clock().await;
    let key = service.person("alice@example.com").obtain_token().await;
    // The token and its address; address, token, ID and the erasure.
    assert_eq!(service.revoke_email_token(&key).await.cost(), cost(3, AUTH + 1.0, 4.0 * WRITE + AUDIT));
}

/// Fills an organization with this many tokens in each state.
async fn fill(client: &OrgClient<'_>, each: usize) {
    let service = client.service;
    let active = client.issue("person-none").await;
    let soon = service.clock.now().plus(Duration::from_secs(1));
    let expired = client.issue_until("person-gone", &soon.to_string()).await;
    let revoked = client.issue("person-left").await;
    service.clock.advance(Duration::from_secs(1));
    client.list("?status=expired").await;
    client.revoke(&revoked.id).await;
    for original in [active, expired, revoked] {
        let identifiers = (0..each).map(|n| format!("person-{n:04}")).collect();
        service.table.copies(&original, identifiers).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cost_is_independent_of_organization_size() {
    let service = Service::start_with_manual_clock().await;
    let (small, large) = (client(&service).await, client(&service).await);
    fill(&small, 10).await;
    fill(&large, 2_000).await;
    let mut costs: [Vec<(String, Cost)>; 2] = Default::default();
    for (costs, client) in costs.iter_mut().zip([&small, &large]) {
        let mut add = |what: &str, cost: Cost| costs.push((what.to_owned(), cost));
        add("issue", client.post("", json!({"user_identifier": "zacharias"})).await);
        let token = client.issue_until("zacharias", "2099-01-01T00:00:00Z").await;
        add("probe", client.post("/probe", json!({"token": token.token})).await);
        add("revoke", client.revoke(&token.id).await);
        for status in ["active", "expired", "revoked", "all"] {
            for filter in
                ["", "&user_identifier_prefix=person-000", "&user_identifier=person-0003", "&user_identifier=nobody"]
            {
                let query = format!("?status={status}{filter}&limit=4");
                let answer = client.send(Method::GET, &query, None).await;
                add(&query, answer.cost());
                if let Some(cursor) = answer.json()["next_cursor"].as_str() {
                    add(&format!("{query}, second page"), client.list(&format!("{query}&cursor={cursor}")).await);
                }
            }
        }
        add("revoke by user", client.post("/revoke-by-user", json!({"user_identifier": "zacharias"})).await);
    }
    for ((what, small), (_, large)) in costs[0].iter().zip(&costs[1]) {
        assert_eq!(small, large, "{what}");
    }
    assert!(costs[0].len() == costs[1].len() && costs[0].len() > 20);

    // The cost of a page is proportional to its entries.
    for (limit, queried) in [(1, 1.0), (10, 1.0), (50, 3.0), (100, 6.0)] {
        let cost = large.list(&format!("?limit={limit}")).await;
        let found = Cost { read: AUTH + 1.0 + queried + f64::from(limit), write: 0.0, calls: 4 };
        assert_eq!(cost, found, "limit={limit}");
    }
}

#[tokio::test]
async fn expiries_are_processed_by_the_first_listing_only() {
    let service = Service::start_with_manual_clock().await;
    let client = client(&service).await;
    let pattern = client.issue_until("expiring", "2026-11-21T10:00:01Z").await;
    client.service.table.copies(&pattern, vec!["expiring".to_owned(); 29]).await;
    client.issue("staying").await;
    service.clock.advance(Duration::from_secs(1));
    let (first, second) = (client.list("").await, client.list("").await);
    // Each move deletes a pointer from the active list and the expiry index, and adds one to the
    // expired list.
    assert_eq!(first.write, 30.0 * 3.0 * WRITE);
    assert_eq!(first.calls, 4 + 30);
    assert_eq!(second, cost(4, AUTH + 2.0 + 1.0, 0.0));
}

#[tokio::test]
async fn authentication_makes_two_parallel_reads() {
    use tests::faults::Fault;
    let (service, faults) = Service::start_with_faults().await;
    let (org, owner) = service.org_with_owner().await;
    // The first two calls must be concurrent: each waits for the other.
    faults.arm(0, &[Fault::WaitForAnother, Fault::WaitForAnother], None);
    let answer = service.post(&org.org_user_tokens(""), &owner.credential, &json!({"user_identifier": "alice"})).await;
    assert_eq!(answer.status, 201, "{}", answer.text);
    assert_eq!(faults.disarm(), ["GetItem", "GetItem", "TransactWriteItems", "GetItem"]);
}

#[tokio::test]
async fn npm_logout_costs_one_read_and_the_revocation() {
    let service = Service::start().await;
    let (org, owner) = service.org_with_owner().await;
    let logout = async |token: &str| {
        let answer = service.call(Method::DELETE, &format!("/npm/-/user/token/{token}"), token).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
        answer.cost()
    };
    // The token; the token, three listings, the entry.
    assert_eq!(logout(&service.issue(&org, &owner, "alice").await.token).await, cost(2, 1.0, 4.0 * WRITE + AUDIT));
    // The token; address, token and pointer, the entry.
    assert_eq!(logout(&service.email_token("alice@example.com").await).await, cost(2, 1.0, 3.0 * WRITE + AUDIT));
}

#[tokio::test]
async fn own_revocation_costs_what_its_kind_does() {
    let service = Service::start_with_manual_clock().await;
    let fixtures = Fixtures::create(&service).await;
    let bot = service.bot(&fixtures.org, &[]).await;
    for (credential, expected) in [
        // The token; the token, three listings, the entry.
        (&fixtures.token.token, cost(2, 1.0, 4.0 * WRITE + AUDIT)),
        // The key twice; the key, two listings, the counter, the entry.
        (&fixtures.api_key.key, cost(3, 2.0, 4.0 * WRITE + AUDIT)),
        // The token twice and its pointer; token, pointer, name, the counter, the entry.
        (&fixtures.access_token.token, cost(4, 3.0, 4.0 * WRITE + AUDIT)),
        // The token, its bot and its trust; the token, the entry.
        (&fixtures.job, cost(4, 3.0, WRITE + AUDIT)),
        // The bot twice; the bot, the key's item, the entry.
        (&bot.credential, cost(3, 2.0, 2.0 * WRITE + AUDIT)),
        // The token; address, token and pointer, the entry.
        (&fixtures.email_token, cost(2, 1.0, 3.0 * WRITE + AUDIT)),
    ] {
        let answer = service.call(Method::DELETE, "/v1/tokens/self", credential).await;
        assert_eq!(answer.status, 204, "{}", answer.text);
        assert_eq!(answer.cost(), expected);
    }
}

#[tokio::test]
async fn report_of_a_leak_costs_two_counters_and_what_it_ends() {
    let service = Service::start_with_manual_clock().await;
    let (org, owner) = service.org_with_owner().await;
    service.set_leaks(&org.id, &["security@example.com"], LeakPolicy::Revoke).await;
    let report = async |token: &str| {
        let body = json!({"tokens": [{"token": token, "url": "https://example.com/"}]});
        let answer = service.send(service.request(Method::POST, "/v1/tokens/leaked").json(&body)).await;
        assert_eq!(answer.status, 202, "{}", answer.text);
        answer.cost()
    };
    // One counter: it is not well-formed.
    assert_eq!(report("x").await, cost(1, 0.0, 1.0));
    // Two counters and one look.
    assert_eq!(report(&unknown_token(TokenKind::OrgUser)).await, cost(3, 1.0, 2.0));
    let token = service.issue(&org, &owner, "alice").await.token;
    // The token and the organization; as a revocation, the mark and the notice. Then the claim of the
    // hour; the notices, the organization again and the contact's language; the notice is deleted.
    assert_eq!(report(&token).await, cost(10, 5.0, 2.0 + 6.0 * WRITE + AUDIT + 2.0 * WRITE));
}

#[tokio::test]
async fn page_costs_three_reads_beside_what_it_shows() {
    let service = Service::start_with_manual_clock().await;
    let (org, bot) = service.org_with_owner().await;
    let owner = service.member(&org, &[Role::Owner]).await;
    let member = service.store.membership(owner.person.id, &org.id).await.unwrap().unwrap();
    service.projects(&org, &["greenhouse"]).await;
    let token = service.issue(&org, &bot, "alice").await.id;
    let api_key = service.api_key(&bot.credential, &["org:read"]).await.id;
    let access_token = service.access_token(&bot, &json!({"name": "device"})).await.id;
    assert_eq!(owner.submit(&org.page("my-tokens/issue"), &[("expiry", "never")]).await.status, 200);
    let own = format!("?user_identifier={}", owner.person.email.expose());
    let own = service.listed_ids(&org, &bot, &own).await.remove(0);
    let trust = service.trust(&bot, &[]).await.id;
    for (path, calls, read) in [
        // Counters of 14 days in eight shards, in two batches; what is due and the active tokens; the log.
        ("", 5, 59.0),
        // What is due, the list, its two tokens, and the member of the second one.
        ("tokens", 4, 5.0),
        ("tokens?state=all", 5, 6.0),
        ("tokens?state=revoked", 1, 1.0),
        ("tokens/issue", 0, 0.0),
        (&format!("tokens/{token}/revoke"), 2, 2.0),
        (&format!("tokens/{token}/rotate"), 2, 2.0),
        ("tokens/revoke-by-user", 0, 0.0),
        ("tokens/revoke-by-user?user_identifier=alice", 1, 1.0),
        // What is due, three lists and a token with its member.
        ("my-tokens", 5, 5.0),
        ("my-tokens/issue", 0, 0.0),
        (&format!("my-tokens/{own}/revoke"), 3, 3.0),
        (&format!("my-tokens/{own}/rotate"), 3, 3.0),
        // What is due, the plan and its counter; what is due again, the list and a key.
        ("api-keys", 6, 6.0),
        ("api-keys/create", 0, 0.0),
        (&format!("api-keys/{api_key}"), 2, 2.0),
        (&format!("api-keys/{api_key}/revoke"), 2, 2.0),
        (&format!("api-keys/{api_key}/rotate"), 2, 2.0),
        ("access-tokens", 2, 2.0),
        ("access-tokens/create", 1, 1.0),
        (&format!("access-tokens/{access_token}"), 3, 3.0),
        (&format!("access-tokens/{access_token}/delete"), 2, 2.0),
        ("bots", 2, 2.0),
        ("bots/add", 0, 0.0),
        // The bot, its trusts and the use of its key.
        (&format!("bots/{}", bot.id), 3, 3.0),
        (&format!("bots/{}/trusts/add", bot.id), 1, 1.0),
        (&format!("bots/{}/trusts/{trust}/remove", bot.id), 2, 2.0),
        (&format!("bots/{}/end-tokens", bot.id), 1, 1.0),
        (&format!("bots/{}/delete", bot.id), 1, 1.0),
        ("members", 2, 2.0),
        ("members/invite", 0, 0.0),
        (&format!("members/{}", member.id), 2, 2.0),
        (&format!("members/{}/remove", member.id), 2, 2.0),
        ("projects", 3, 3.0),
        ("projects/greenhouse/remove", 3, 3.0),
        // Two queries in each of eight shards: half a unit each, as an index is not read consistently.
        ("installations", 16, 8.0),
        ("installations.csv", 16, 8.0),
        ("audit-log", 1, 2.0),
        ("audit-log.csv", 1, 2.0),
    ] {
        let answer = owner.get(&org.page(path)).await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.text);
        assert_eq!(answer.cost(), cost(PAGE + calls, f64::from(PAGE) + read, 0.0), "{path}");
    }
    // The session and the memberships; invitations, or each organization and the session in the list.
    assert_eq!(owner.get("/console/organizations").await.cost(), cost(3, 3.0, 0.0));
    assert_eq!(owner.get("/console/account").await.cost(), cost(5, 5.0, 0.0));
    assert_eq!(owner.get("/console/sign-in").await.cost(), cost(2, 2.0, 0.0));
}

#[tokio::test]
async fn token_of_a_member_costs_one_look_at_the_membership() {
    let service = Service::start_with_manual_clock().await;
    let (org, bot) = service.org_with_owner().await;
    let member = service.member(&org, &[Role::Member]).await;
    let own = issued_token(&member.submit(&org.page("my-tokens/issue"), &[("expiry", "never")]).await);
    let unbound = service.issue(&org, &bot, "alice").await.token;
    for (token, reads) in [(unbound, 1), (own, 2)] {
        // Its first use updates when it was last used.
        assert_eq!(service.whoami(&token).await.status, 200);
        assert_eq!(service.whoami(&token).await.cost(), cost(reads, f64::from(reads), 0.0));
    }
}

#[tokio::test]
async fn exchange_costs_three_reads_and_the_token() {
    let service = Service::start_with_manual_clock().await;
    let (_, owner) = service.org_with_owner().await;
    service.trust(&owner, &[Role::Owner]).await;
    // Bot, trusts and organization; the ID token, the token and the audit entry.
    let claims = service.new_claims();
    let answer = service.exchange_claims(&owner, &claims).await;
    assert_eq!(answer.cost(), cost(4, 3.0, 2.0 * WRITE + AUDIT), "{}", answer.text);
    let bad = service.exchange(&json!({"bot_id": owner.id.as_str(), "id_token": "a.b.c"})).await;
    assert_eq!(bad.cost(), cost(1, 0.0, 1.0));
    let mut untrusted = service.new_claims();
    untrusted["repository_owner_id"] = json!("124");
    for expected in [cost(6, 2.0, 3.0 + AUDIT), cost(4, 2.0, 2.0)] {
        assert_eq!(service.exchange_claims(&owner, &untrusted).await.cost(), expected);
    }
}

#[tokio::test]
async fn bot_token_costs_two_more_reads_than_its_bot() {
    let service = Service::start_with_manual_clock().await;
    let (_, owner) = service.org_with_owner().await;
    let job = service.job(&owner, &[Role::Owner]).await;
    let whoami = async |credential: &str| service.whoami(credential).await.cost();
    assert_eq!(whoami(&owner.credential).await, cost(1, AUTH, 0.0));
    assert_eq!(whoami(&job).await, cost(3, AUTH + 2.0, 0.0));
}

#[tokio::test]
async fn scim_users_cost_a_few_reads_and_what_they_end() {
    let service = Service::start_with_manual_clock().await;
    let (org, owner) = service.org_with_owner().await;
    let users = "/scim/v2/Users";
    let alice = tests::console::person("alice@example.com");
    service.join(&org.id, &alice, &[Role::Manager]).await;
    service.sign_in(&alice).await;
    let create = async |name: &str| {
        let answer = service.post(users, &owner.credential, &json!({"userName": name})).await;
        assert_eq!(answer.status, 201, "{}", answer.text);
        (answer.cost(), answer.json()["id"].as_str().unwrap().to_owned())
    };
    // Name, invitation and members; the bot, name, user and counter. Then an invitation with its pointer.
    let (found, id) = create("alice@example.com").await;
    assert_eq!(found, cost(6, AUTH + 4.0, 4.0 * WRITE + AUDIT));
    let (invited, _) = create("bobby@example.com").await;
    assert_eq!(invited, cost(5, AUTH + 3.0, 6.0 * WRITE + 2.0 * AUDIT));
    // The user, the invitation and the first member.
    let path = format!("{users}/{id}");
    assert_eq!(service.call(Method::GET, &path, &owner.credential).await.cost(), cost(4, AUTH + 3.0, 0.0));
    let filter = format!("{users}?filter=userName%20eq%20%22alice@example.com%22");
    assert_eq!(service.call(Method::GET, &filter, &owner.credential).await.cost(), cost(5, AUTH + 4.0, 0.0));
    // The counter, the list, and the same per user, but no members where somebody is invited.
    assert_eq!(service.call(Method::GET, users, &owner.credential).await.cost(), cost(6, AUTH + 2.0 + 3.0, 0.0));
    let change = async |active: bool| {
        let body = json!({"Operations": [{"op": "replace", "value": {"active": active}}]});
        let answer = service.send_json(Method::PATCH, &path, &owner.credential, &body).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
        answer.cost()
    };
    // User, what ended, invitation, members; the bot, the user, what ends, and of whom, no invitation, the
    // membership and two pointers. Then the sessions, one of which ends.
    let ended = change(false).await;
    assert_eq!(ended, cost(9, AUTH + 6.0, 8.0 * WRITE + 2.0 * AUDIT + 2.0 * WRITE + AUDIT));
    // Again: the sessions.
    assert_eq!(change(false).await, cost(6, AUTH + 5.0, 0.0));
    // Whose membership ended; the bot, the user, what ended, and of whom, the membership and two pointers.
    assert_eq!(change(true).await, cost(7, AUTH + 5.0, 7.0 * WRITE + 2.0 * AUDIT));
    let answer = service.call(Method::DELETE, &path, &owner.credential).await;
    // User, name, what ended, counter, the bot, no invitation, the membership and two pointers.
    assert_eq!(answer.cost(), cost(7, AUTH + 5.0, 9.0 * WRITE + 2.0 * AUDIT));
}

#[tokio::test]
async fn policy_costs_a_read_where_an_expiry_is_set_and_a_move_per_unused_token() {
    let service = Service::start_with_manual_clock().await;
    let client = client(&service).await;
    let (org, owner) = (&client.org, &client.owner);
    let token = service.access_token(owner, &json!({"name": "relay"})).await;
    let update = async |method: Method, body: Value| {
        let answer = service.send_json(method, &token.path(), &owner.credential, &body).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
        answer.cost()
    };
    let disabled = update(Method::PATCH, json!({"is_active": false})).await;
    let expiring = update(Method::PATCH, json!({"expires_at": "2099-01-01T00:00:00Z"})).await;
    // And the pointer by which people are reminded of its end.
    assert_eq!(expiring, cost(disabled.calls + 1, disabled.read + 1.0, disabled.write + WRITE));
    let replaced = update(Method::PUT, json!({"name": "relay"})).await;
    assert_eq!(replaced, cost(expiring.calls, expiring.read, disabled.write));

    // The policy, and again before what cannot be taken back; the token's item, two pointers that change
    // and one that goes; and the use of the bot's key.
    client.issue("alice").await;
    service.end_unused(&org.id, 1).await;
    service.clock.advance(Duration::from_secs(2 * 24 * 60 * 60));
    assert_eq!(client.list("").await, cost(8, AUTH + 2.0 + 1.0 + 2.0, 4.0 * WRITE + USE));
    assert_eq!(client.list("").await, cost(3, AUTH + 2.0, 0.0));
}
