//! `GET /v1/o/{org_id}/guard/org-user-tokens`

use std::collections::BTreeSet;
use std::time::Duration;

use futures::future::join_all;
use reqwest::Method;
use serde_json::{Value, json};
use tests::{Answer, Bot, Org, Service, ids};

async fn list(service: &Service, org: &Org, bot: &Bot, query: &str) -> Answer {
    service.call(Method::GET, &org.org_user_tokens(query), &bot.credential).await
}

/// Every entry of a list, page by page; `query` begins with `?`.
async fn all_pages(service: &Service, org: &Org, bot: &Bot, query: &str, limit: usize) -> Vec<Value> {
    let mut entries = Vec::new();
    let mut cursor = String::new();
    loop {
        let page = service.list(org, bot, &format!("{query}&limit={limit}{cursor}")).await;
        let tokens = page["tokens"].as_array().unwrap();
        assert!(tokens.len() <= limit);
        entries.extend(tokens.iter().cloned());
        match &page["next_cursor"] {
            Value::Null => return entries,
            next => {
                // Nothing happens meanwhile, so a page that is not the last is full.
                assert_eq!(tokens.len(), limit);
                cursor = format!("&cursor={}", next.as_str().unwrap());
            }
        }
    }
}

/// The order of a list: by identifier, then age, which ids sort by.
fn place(entry: &Value) -> (String, String) {
    let text = |name: &str| entry[name].as_str().unwrap().to_owned();
    (text("user_identifier"), text("id"))
}

#[tokio::test]
async fn an_empty_list_is_an_empty_list() {
    let service = Service::start().await;
    let (org, owner) = service.org_with_owner().await;
    for status in ["", "?status=active", "?status=revoked", "?status=expired", "?status=all"] {
        let answer = list(&service, &org, &owner, status).await;
        assert_eq!((answer.status.as_u16(), answer.text.as_str()), (200, r#"{"tokens":[],"next_cursor":null}"#));
    }
}

#[tokio::test]
async fn each_token_is_in_the_lists_of_its_state() {
    let service = Service::start_with_manual_clock().await;
    let (org, owner) = service.org_with_owner().await;
    let active = service.issue(&org, &owner, "alice").await;
    let expiring = service.issue_until(&org, &owner, "bobby", "2026-11-21T10:00:05Z").await;
    let revoked = service.issue(&org, &owner, "carol").await;
    service.clock.advance(Duration::from_secs(1));
    service.revoke(&org, &owner, &revoked).await;
    let both = service.issue_until(&org, &owner, "david", "2026-11-21T10:00:05Z").await;
    service.revoke(&org, &owner, &both).await;
    service.clock.advance(Duration::from_secs(10));

    let ids_in = async |query: &str| service.listed_ids(&org, &owner, query).await;
    // Active first, so that the move to the expired ones is seen in the next.
    assert_eq!(ids_in("").await, [&*active.id]);
    assert_eq!(ids_in("?status=active").await, [&*active.id]);
    assert_eq!(ids_in("?status=expired").await, [&*expiring.id]);
    // Revoked is for good: what was revoked first does not expire any more.
    assert_eq!(ids_in("?status=revoked").await, [&*revoked.id, &*both.id]);
    assert_eq!(ids_in("?status=all").await, [&*active.id, &*expiring.id, &*revoked.id, &*both.id]);

    let entries = service.list(&org, &owner, "?status=all").await;
    insta::assert_json_snapshot!(entries, {
        ".tokens[].id" => "[id]", ".tokens[].token_prefix" => "[token_prefix]",
        ".tokens[].created_by" => "[bot]", ".tokens[].revoked_by" => "[bot]",
    }, @r#"
    {
      "next_cursor": null,
      "tokens": [
        {
          "created_at": "2026-11-21T10:00:00Z",
          "created_by": "[bot]",
          "expires_at": null,
          "id": "[id]",
          "last_used_at": null,
          "status": "active",
          "token_prefix": "[token_prefix]",
          "user_identifier": "alice"
        },
        {
          "created_at": "2026-11-21T10:00:00Z",
          "created_by": "[bot]",
          "expires_at": "2026-11-21T10:00:05Z",
          "id": "[id]",
          "last_used_at": null,
          "status": "expired",
          "token_prefix": "[token_prefix]",
          "user_identifier": "bobby"
        },
        {
          "created_at": "2026-11-21T10:00:00Z",
          "created_by": "[bot]",
          "expires_at": null,
          "id": "[id]",
          "last_used_at": null,
          "revoked_at": "2026-11-21T10:00:01Z",
          "revoked_by": "[bot]",
          "status": "revoked",
          "token_prefix": "[token_prefix]",
          "user_identifier": "carol"
        },
        {
          "created_at": "2026-11-21T10:00:01Z",
          "created_by": "[bot]",
          "expires_at": "2026-11-21T10:00:05Z",
          "id": "[id]",
          "last_used_at": null,
          "revoked_at": "2026-11-21T10:00:01Z",
          "revoked_by": "[bot]",
          "status": "revoked",
          "token_prefix": "[token_prefix]",
          "user_identifier": "david"
        }
      ]
    }
    "#);
    let tokens = entries["tokens"].as_array().unwrap();
    for (entry, issued) in tokens.iter().zip([&active, &expiring, &revoked, &both]) {
        assert_eq!(entry["token_prefix"], issued.token[..11]);
        assert_eq!(entry["created_by"], owner.id.as_str());
        assert!(entry.get("revoked_by").is_none_or(|bot| bot == owner.id.as_str()));
    }
    service.table.assert_sound();
}

#[tokio::test]
async fn a_list_right_after_a_change_shows_it() {
    let service = Service::start().await;
    let (org, owner) = service.org_with_owner().await;
    for _ in 0..5 {
        let token = service.issue(&org, &owner, "alice").await;
        assert_eq!(service.listed_ids(&org, &owner, "").await, [&*token.id]);
        service.revoke(&org, &owner, &token).await;
        assert_eq!(service.listed_ids(&org, &owner, "").await, [""; 0]);
        assert!(service.listed_ids(&org, &owner, "?status=revoked").await.contains(&token.id));
    }
}

#[tokio::test]
async fn the_order_is_by_identifier_then_age() {
    let service = Service::start_with_manual_clock().await;
    let (org, owner) = service.org_with_owner().await;
    let mut expected = Vec::new();
    for identifier in ["bobby", "alice2", "alice", "Alice", "alice-b", "alice.b", "alice", "alice", "alic"] {
        service.clock.advance(Duration::from_millis(1));
        expected.push((identifier, service.issue(&org, &owner, identifier).await.id));
    }
    // ASCII order: no locale decides where a page ends. Of one identifier the sort keeps the order of issue.
    expected.sort_by_key(|(identifier, _)| format!("{identifier}#"));
    let expected: Vec<String> = expected.into_iter().map(|(_, id)| id).collect();
    assert_eq!(service.listed_ids(&org, &owner, "").await, expected);
    let pages = all_pages(&service, &org, &owner, "?status=active", 2).await;
    assert_eq!(ids(&json!(pages)), expected);
}

#[tokio::test]
async fn filters_take_an_identifier_exactly_or_its_beginning() {
    let service = Service::start().await;
    let (org, owner) = service.org_with_owner().await;
    for identifier in ["alice", "alice2", "alice-laptop", "alic", "Alice", "bobby", "a+b@example.com"] {
        service.issue(&org, &owner, identifier).await;
    }
    for (query, expected) in [
        ("?user_identifier=alice", &["alice"][..]),
        ("?user_identifier=alic", &["alic"]),
        ("?user_identifier=alice2", &["alice2"]),
        ("?user_identifier=ALICE", &[]),
        ("?user_identifier=nobody", &[]),
        ("?user_identifier_prefix=alice", &["alice", "alice-laptop", "alice2"]),
        ("?user_identifier_prefix=alic", &["alic", "alice", "alice-laptop", "alice2"]),
        ("?user_identifier_prefix=alice-laptop", &["alice-laptop"]),
        ("?user_identifier_prefix=A", &["Alice"]),
        ("?user_identifier_prefix=a%2Bb%40", &["a+b@example.com"]),
        ("?user_identifier=a%2Bb%40example.com", &["a+b@example.com"]),
        // Filters given together must all hold.
        ("?user_identifier=alice&user_identifier_prefix=ali", &["alice"]),
        ("?user_identifier=alice&user_identifier_prefix=alice", &["alice"]),
        ("?user_identifier=alice&user_identifier_prefix=alice2", &[]),
        ("?user_identifier=alice&user_identifier_prefix=bob", &[]),
        ("?user_identifier=alice&status=revoked", &[]),
        ("?user_identifier=alice&status=all&limit=1", &["alice"]),
    ] {
        let page = service.list(&org, &owner, query).await;
        let listed: Vec<&str> =
            page["tokens"].as_array().unwrap().iter().map(|token| token["user_identifier"].as_str().unwrap()).collect();
        assert_eq!(listed, expected, "{query}");
        assert_eq!(page["next_cursor"], Value::Null, "{query}");
    }
}

#[tokio::test]
async fn a_parameter_that_cannot_be_is_named_and_never_lists_everything() {
    let service = Service::start().await;
    let (org, owner) = service.org_with_owner().await;
    service.issue(&org, &owner, "alice").await;
    let long = format!("?user_identifier_prefix={}", "x".repeat(256));
    for (query, field) in [
        ("?limit=0", "limit"),
        ("?limit=101", "limit"),
        ("?limit=-1", "limit"),
        ("?limit=1.5", "limit"),
        ("?limit=+1", "limit"),
        ("?limit=", "limit"),
        ("?limit=many", "limit"),
        ("?limit=99999999999999999999", "limit"),
        ("?status=", "status"),
        ("?status=Active", "status"),
        ("?status=deleted", "status"),
        ("?user_identifier=", "user_identifier"),
        ("?user_identifier=abc", "user_identifier"),
        ("?user_identifier=al%20ice", "user_identifier"),
        ("?user_identifier=al+ice", "user_identifier"),
        ("?user_identifier=%FF%FE%FD%FC", "user_identifier"),
        ("?user_identifier=alice%00", "user_identifier"),
        // An unset variable of a script, most often.
        ("?user_identifier_prefix=", "user_identifier_prefix"),
        ("?user_identifier_prefix=%2A", "user_identifier_prefix"),
        ("?user_identifier_prefix=alice%23", "user_identifier_prefix"),
        (long.as_str(), "user_identifier_prefix"),
        ("?cursor=", "cursor"),
        ("?cursor=x", "cursor"),
        ("?cursor=AAAAAAAAAAAAAAAAAAAAAAAA", "cursor"),
        ("?limit=1&limit=2", "limit"),
        ("?status=active&status=revoked", "status"),
        ("?user_identifier=alice&user_identifier=bobby", "user_identifier"),
        ("?user=alice", "user"),
        ("?prefix=alice", "prefix"),
        ("?userIdentifier=alice", "userIdentifier"),
        ("?user_identifier[]=alice", "(unknown)"),
        ("?=alice", "(unknown)"),
        ("?limit=1&offset=1", "offset"),
    ] {
        let answer = list(&service, &org, &owner, query).await;
        assert_eq!(answer.status, 400, "{query}: {}", answer.text);
        answer.assert_invalid(field);
    }
    for query in ["", "?", "?&", "?limit=1", "?limit=100", "?limit=050"] {
        assert_eq!(list(&service, &org, &owner, query).await.status, 200, "{query}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn paging_over_a_thousand_tokens_gives_each_once_in_order() {
    let service = Service::start_with_manual_clock().await;
    let (org, owner) = service.org_with_owner().await;
    let (foreign_org, foreigner) = service.org_with_owner().await;
    service.issue(&foreign_org, &foreigner, "person-500").await;
    let active = service.issue(&org, &owner, "pattern-of-active").await;
    let expired = service.issue_until(&org, &owner, "pattern-of-expired", "2026-11-21T10:00:01Z").await;
    let revoked = service.issue(&org, &owner, "pattern-of-revoked").await;
    service.clock.advance(Duration::from_secs(1));
    service.list(&org, &owner, "?status=expired").await;
    service.revoke(&org, &owner, &revoked).await;
    // In no order, with many tokens to some identifiers and a state that has nothing to do with either.
    let mut expected: Vec<(String, String, &str)> = Vec::new();
    for (original, state, count) in [(&active, "active", 750), (&expired, "expired", 120), (&revoked, "revoked", 130)] {
        let identifiers = (0..count).map(|n| format!("person-{:03}", n * 389 % 617)).collect();
        let copies = service.table.copies(original, identifiers).await;
        expected.extend(copies.into_iter().map(|copy| (copy.user_identifier, copy.id, state)));
        expected.push((original.user_identifier.clone(), original.id.clone(), state));
    }
    expected.sort();
    assert_eq!(expected.len(), 1_003);

    let walks = [
        ("all", "", 100),
        ("all", "", 7),
        ("active", "", 100),
        ("revoked", "", 1),
        ("expired", "", 7),
        ("all", "&user_identifier_prefix=person-10", 1),
        ("active", "&user_identifier_prefix=person-1", 7),
        ("all", "&user_identifier=person-100", 1),
    ];
    let (service, org, owner) = (&service, &org, &owner);
    let found = join_all(walks.map(|(status, filter, limit)| async move {
        all_pages(service, org, owner, &format!("?status={status}{filter}"), limit).await
    }))
    .await;
    for ((status, filter, limit), found) in walks.into_iter().zip(found) {
        let found: Vec<(String, String)> = found.iter().map(place).collect();
        let beginning = filter.split('=').nth(1).unwrap_or_default();
        let wanted = expected.iter().filter(|(identifier, _, state)| {
            let is_it =
                if filter.contains("prefix") { identifier.starts_with(beginning) } else { identifier == beginning };
            (status == "all" || *state == status) && (filter.is_empty() || is_it)
        });
        let wanted: Vec<(String, String)> =
            wanted.map(|(identifier, id, _)| (identifier.clone(), id.clone())).collect();
        assert!(!wanted.is_empty());
        assert!(found == wanted, "{status}{filter} by {limit}: {} of {}", found.len(), wanted.len());
    }
}

#[tokio::test]
async fn a_cursor_is_good_for_its_own_query_alone() {
    let service = Service::start().await;
    let (org, owner) = service.org_with_owner().await;
    let (foreign_org, foreigner) = service.org_with_owner().await;
    for identifier in ["alice", "alice2", "alice3", "bobby"] {
        service.issue(&org, &owner, identifier).await;
        service.issue(&foreign_org, &foreigner, identifier).await;
    }
    let first = service.list(&org, &owner, "?user_identifier_prefix=alice&limit=1").await;
    let cursor = first["next_cursor"].as_str().unwrap();
    assert!(cursor.bytes().all(|c| c.is_ascii_alphanumeric() || b"-_".contains(&c)), "not URL-safe: {cursor}");

    // The limit may change from page to page, the caller too.
    let manager = service.bot(&org, &[shared::principal::Role::Manager]).await;
    for limit in ["", "&limit=1", "&limit=100"] {
        let query = format!("?user_identifier_prefix=alice&cursor={cursor}{limit}");
        let page = service.list(&org, &manager, &query).await;
        assert_eq!(page["tokens"][0]["user_identifier"], "alice2");
        assert_eq!(page["next_cursor"].is_null(), limit != "&limit=1");
    }
    // Said or left out, the default is the same query.
    let query = format!("?user_identifier_prefix=alice&status=active&cursor={cursor}");
    assert_eq!(list(&service, &org, &owner, &query).await.status, 200);

    for query in
        ["?", "?user_identifier_prefix=alic", "?user_identifier_prefix=alice&status=all", "?user_identifier=alice"]
    {
        list(&service, &org, &owner, &format!("{query}&cursor={cursor}")).await.assert_invalid("cursor");
    }
    let query = format!("?user_identifier_prefix=alice&cursor={cursor}");
    list(&service, &foreign_org, &foreigner, &query).await.assert_invalid("cursor");

    for at in 0..cursor.len() {
        let other = if cursor.as_bytes()[at] == b'A' { "B" } else { "A" };
        let altered = format!("{}{other}{}", &cursor[..at], &cursor[at + 1..]);
        let query = format!("?user_identifier_prefix=alice&cursor={altered}");
        list(&service, &org, &owner, &query).await.assert_invalid("cursor");
    }
    for altered in [&cursor[1..], &cursor[..cursor.len() - 1], &format!("{cursor}A"), &format!("{cursor}%3D")] {
        let query = format!("?user_identifier_prefix=alice&cursor={altered}");
        list(&service, &org, &owner, &query).await.assert_invalid("cursor");
    }
}

/// The checksum of a cursor is no secret: somebody who reads the source can make one for any place.
#[tokio::test]
async fn a_made_up_cursor_leads_nowhere_but_into_the_callers_own_list() {
    let service = Service::start().await;
    let (org, owner) = service.org_with_owner().await;
    let own = service.issue(&org, &owner, "alice").await;
    let (foreign_org, foreigner) = service.org_with_owner().await;
    let foreign = service.issue(&foreign_org, &foreigner, "alice").await;
    let query = ["org-user-tokens-list", org.id.as_str(), "Active", "", ""];
    for place in [
        "",
        "#",
        "a",
        "\u{0}",
        "alice#",
        &format!("alice#{}", foreign.id),
        &format!("ORG#{}#USER_TOKENS#ACTIVE", foreign_org.id),
        &format!("alice#{}", &own.id[1..]),
        &"x".repeat(1_025),
    ] {
        let cursor = shared::cursor::write(&query, place);
        let answer = list(&service, &org, &owner, &format!("?cursor={cursor}")).await;
        assert!([200, 400].contains(&answer.status.as_u16()), "{place:?}: {}", answer.text);
        assert!(!answer.text.contains(&foreign.id), "{place:?}");
    }
}

#[tokio::test]
async fn a_page_goes_on_where_the_last_ended_whatever_happened_between() {
    let service = Service::start_with_manual_clock().await;
    let (org, owner) = service.org_with_owner().await;
    let mut tokens = Vec::new();
    for n in 0..6 {
        tokens.push(service.issue_until(&org, &owner, &format!("person{n}"), "2026-11-21T11:00:00Z").await);
    }
    let first = service.list(&org, &owner, "?limit=2").await;
    let cursor = first["next_cursor"].as_str().unwrap();
    // The place where the page ended is no longer there, nor the one behind it; and there is a new one before.
    service.revoke(&org, &owner, &tokens[1]).await;
    service.revoke(&org, &owner, &tokens[2]).await;
    service.issue(&org, &owner, "person0-new").await;
    let second = service.listed_ids(&org, &owner, &format!("?limit=2&cursor={cursor}")).await;
    assert_eq!(second, [&*tokens[3].id, &*tokens[4].id]);
    // All that is left expires.
    service.clock.advance(Duration::from_secs(3_600));
    let page = service.list(&org, &owner, &format!("?limit=2&cursor={cursor}")).await;
    assert_eq!(page, json!({"tokens": [], "next_cursor": null}));
    service.table.assert_sound();
}

#[tokio::test]
async fn a_token_goes_from_active_to_expired_at_its_moment() {
    let service = Service::start_with_manual_clock().await;
    let (org, owner) = service.org_with_owner().await;
    let token = service.issue_until(&org, &owner, "alice", "2026-11-21T10:00:02Z").await;
    let seen = async || {
        let mut seen = Vec::new();
        for status in ["active", "expired", "all"] {
            for query in ["", "&user_identifier=alice", "&user_identifier_prefix=a"] {
                seen.push(!service.listed_ids(&org, &owner, &format!("?status={status}{query}")).await.is_empty());
            }
        }
        seen
    };
    service.clock.advance(Duration::from_millis(1_999));
    assert_eq!(seen().await, [true, true, true, false, false, false, true, true, true]);
    assert_eq!(service.list(&org, &owner, "?status=all").await["tokens"][0]["status"], "active");
    service.clock.advance(Duration::from_millis(1));
    assert_eq!(service.list(&org, &owner, "?status=all").await["tokens"][0]["status"], "expired");
    assert_eq!(seen().await, [false, false, false, true, true, true, true, true, true]);
    assert_eq!(service.listed_ids(&org, &owner, "?status=expired").await, [token.id]);
    service.table.assert_sound();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn listings_at_once_while_tokens_expire_agree_and_lose_nothing() {
    let service = Service::start_with_manual_clock().await;
    let (org, owner) = service.org_with_owner().await;
    let staying = service.issue(&org, &owner, "stay").await;
    let pattern = service.issue_until(&org, &owner, "expire", "2026-11-21T10:00:01Z").await;
    let mut expiring: BTreeSet<String> = [pattern.id.clone()].into();
    let copies = service.table.copies(&pattern, (0..40).map(|n| format!("exp{n:02}")).collect()).await;
    expiring.extend(copies.into_iter().map(|copy| copy.id));
    service.clock.advance(Duration::from_secs(1));
    let queries = ["?status=active", "?status=expired&limit=100", "?status=all&limit=100"].repeat(8);
    let (service, org, owner) = (&service, &org, &owner);
    let lists = join_all(queries.iter().map(|query| service.listed_ids(org, owner, query))).await;
    for (query, list) in queries.iter().zip(lists) {
        let list: BTreeSet<String> = list.into_iter().collect();
        let mut expected = expiring.clone();
        match *query {
            "?status=active" => expected = [staying.id.clone()].into(),
            "?status=all&limit=100" => {
                expected.insert(staying.id.clone());
            }
            _ => {}
        }
        assert!(list == expected, "{query}: {} of {}", list.len(), expected.len());
    }
}

#[tokio::test]
async fn more_may_expire_at_once_than_a_listing_of_active_ones_moves() {
    let service = Service::start_with_manual_clock().await;
    let (org, owner) = service.org_with_owner().await;
    let pattern = service.issue_until(&org, &owner, "expire", "2026-11-21T10:00:01Z").await;
    service.table.copies(&pattern, (0..250).map(|n| format!("exp{n:03}")).collect()).await;
    // Behind all of them in the order of the list.
    let staying = service.issue(&org, &owner, "stay").await;
    service.clock.advance(Duration::from_secs(1));
    for _ in 0..4 {
        let page = service.list(&org, &owner, "?limit=10").await;
        assert_eq!((ids(&page["tokens"]), &page["next_cursor"]), (vec![staying.id.clone()], &Value::Null));
    }
    assert_eq!(all_pages(&service, &org, &owner, "?status=expired", 100).await.len(), 251);
}
