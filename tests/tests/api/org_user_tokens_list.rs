//! `GET /v1/o/{org_id}/guard/org-user-tokens`

use std::collections::BTreeSet;
use std::time::Duration;

use futures::future::join_all;
use reqwest::Method;
use serde_json::{Value, json};
use tests::paging::List;
use tests::{Answer, Bot, Org, Service, ids};

async fn list(service: &Service, org: &Org, bot: &Bot, query: &str) -> Answer {
    service.call(Method::GET, &org.org_user_tokens(query), &bot.credential).await
}

/// Reads all pages of a list; `query` starts with `?`.
async fn all_pages(service: &Service, org: &Org, bot: &Bot, query: &str, limit: usize) -> Vec<Value> {
    let list = List::new(service, org.org_user_tokens(""), &bot.credential, "tokens");
    let pages = list.pages(limit, &format!("&{}", query.trim_start_matches('?'))).await;
    // Without concurrent changes only the last page may be short.
    let (_, earlier) = pages.split_last().unwrap();
    assert!(earlier.iter().all(|page| page.len() == limit));
    pages.concat()
}

/// The sort key of a list: identifier, then age, since IDs sort by age.
fn place(entry: &Value) -> (String, String) {
    let text = |name: &str| entry[name].as_str().unwrap().to_owned();
    (text("user_identifier"), text("id"))
}

#[tokio::test]
async fn empty_list_is_200_with_no_tokens() {
    let service = Service::start().await;
    let (org, owner) = service.org_with_owner().await;
    for status in ["", "?status=active", "?status=revoked", "?status=expired", "?status=all"] {
        let answer = list(&service, &org, &owner, status).await;
        assert_eq!((answer.status.as_u16(), answer.text.as_str()), (200, r#"{"tokens":[],"next_cursor":null}"#));
    }
}

#[tokio::test]
async fn status_filter_selects_tokens_by_state() {
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
    // Lists active tokens first, so that the next list sees expired ones that were moved.
    assert_eq!(ids_in("").await, [&*active.id]);
    assert_eq!(ids_in("?status=active").await, [&*active.id]);
    assert_eq!(ids_in("?status=expired").await, [&*expiring.id]);
    // Revoked is final: a revoked token does not become expired.
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
async fn list_is_consistent_right_after_a_change() {
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
async fn tokens_are_ordered_by_identifier_then_age() {
    let service = Service::start_with_manual_clock().await;
    let (org, owner) = service.org_with_owner().await;
    let mut expected = Vec::new();
    for identifier in ["bobby", "alice2", "alice", "Alice", "alice-b", "alice.b", "alice", "alice", "alic"] {
        service.clock.advance(Duration::from_millis(1));
        expected.push((identifier, service.issue(&org, &owner, identifier).await.id));
    }
    // ASCII order, independent of locale. The stable sort keeps the order of issue per identifier.
    expected.sort_by_key(|(identifier, _)| format!("{identifier}#"));
    let expected: Vec<String> = expected.into_iter().map(|(_, id)| id).collect();
    assert_eq!(service.listed_ids(&org, &owner, "").await, expected);
    let pages = all_pages(&service, &org, &owner, "?status=active", 2).await;
    assert_eq!(ids(&json!(pages)), expected);
}

#[tokio::test]
async fn filters_match_exact_identifier_or_prefix() {
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
        // All given filters must match.
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
async fn invalid_query_parameters_are_named() {
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
        // Usually an unset variable in a script.
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
async fn paging_returns_each_of_a_thousand_tokens_once_in_order() {
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
    // Unordered, with many tokens for some identifiers and states independent of both.
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
async fn cursor_is_rejected_for_any_other_query() {
    let service = Service::start().await;
    let (org, owner) = service.org_with_owner().await;
    let (foreign_org, foreigner) = service.org_with_owner().await;
    for identifier in ["alice", "alice2", "alice3", "bobby"] {
        service.issue(&org, &owner, identifier).await;
        service.issue(&foreign_org, &foreigner, identifier).await;
    }
    let own = List::new(&service, org.org_user_tokens(""), &owner.credential, "tokens");
    let foreign = List::new(&service, foreign_org.org_user_tokens(""), &foreigner.credential, "tokens");
    let filter = "&user_identifier_prefix=alice";
    // An explicit default is the same query.
    let same = [filter, "&user_identifier_prefix=alice&status=active"];
    let others =
        ["", "&user_identifier_prefix=alic", "&user_identifier_prefix=alice&status=all", "&user_identifier=alice"];
    let cursor = own.assert_cursor_is_bound(&foreign, filter, &same, &others).await;

    // Limit and caller may change between pages.
    let manager = service.bot(&org, &[shared::permissions::Role::Manager]).await;
    for limit in ["", "&limit=1", "&limit=100"] {
        let query = format!("?user_identifier_prefix=alice&cursor={cursor}{limit}");
        let page = service.list(&org, &manager, &query).await;
        assert_eq!(page["tokens"][0]["user_identifier"], "alice2");
        assert_eq!(page["next_cursor"].is_null(), limit != "&limit=1");
    }

    for at in 0..cursor.len() {
        let other = if cursor.as_bytes()[at] == b'A' { "B" } else { "A" };
        let altered = format!("{}{other}{}", &cursor[..at], &cursor[at + 1..]);
        own.get(&format!("?cursor={altered}{filter}")).await.assert_invalid("cursor");
    }
}

/// A cursor's checksum is not a secret, so anyone who reads the source can forge one.
#[tokio::test]
async fn forged_cursor_never_leaves_the_callers_organization() {
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
async fn next_page_continues_after_concurrent_changes() {
    let service = Service::start_with_manual_clock().await;
    let (org, owner) = service.org_with_owner().await;
    let mut tokens = Vec::new();
    for n in 0..6 {
        tokens.push(service.issue_until(&org, &owner, &format!("person{n}"), "2026-11-21T11:00:00Z").await);
    }
    let first = service.list(&org, &owner, "?limit=2").await;
    let cursor = first["next_cursor"].as_str().unwrap();
    // Removes the page's last entry and the next one, and adds one before them.
    service.revoke(&org, &owner, &tokens[1]).await;
    service.revoke(&org, &owner, &tokens[2]).await;
    service.issue(&org, &owner, "person0-new").await;
    let second = service.listed_ids(&org, &owner, &format!("?limit=2&cursor={cursor}")).await;
    assert_eq!(second, [&*tokens[3].id, &*tokens[4].id]);
    // All remaining tokens expire.
    service.clock.advance(Duration::from_secs(3_600));
    let page = service.list(&org, &owner, &format!("?limit=2&cursor={cursor}")).await;
    assert_eq!(page, json!({"tokens": [], "next_cursor": null}));
    service.table.assert_sound();
}

#[tokio::test]
async fn token_moves_from_active_to_expired_at_its_expiry() {
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
async fn concurrent_lists_agree_while_tokens_expire() {
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
async fn active_list_hides_expired_tokens_beyond_one_batch() {
    let service = Service::start_with_manual_clock().await;
    let (org, owner) = service.org_with_owner().await;
    let pattern = service.issue_until(&org, &owner, "expire", "2026-11-21T10:00:01Z").await;
    service.table.copies(&pattern, (0..250).map(|n| format!("exp{n:03}")).collect()).await;
    // Last in the list's order.
    let staying = service.issue(&org, &owner, "stay").await;
    service.clock.advance(Duration::from_secs(1));
    for _ in 0..4 {
        let page = service.list(&org, &owner, "?limit=10").await;
        assert_eq!((ids(&page["tokens"]), &page["next_cursor"]), (vec![staying.id.clone()], &Value::Null));
    }
    assert_eq!(all_pages(&service, &org, &owner, "?status=expired", 100).await.len(), 251);
}
