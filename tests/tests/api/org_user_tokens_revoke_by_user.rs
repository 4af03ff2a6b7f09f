//! `POST /v1/o/{org_id}/guard/org-user-tokens/revoke-by-user`

use std::collections::BTreeSet;
use std::time::Duration;

use futures::future::{join, join_all};
use serde_json::{Value, json};
use shared::permissions::Role;
use tests::table::text;
use tests::{Answer, Bot, Org, Service, ids};

async fn revoke_by_user(service: &Service, org: &Org, bot: &Bot, body: &Value) -> Answer {
    service.post(&org.org_user_tokens("/revoke-by-user"), &bot.credential, body).await
}

/// Asserts 200 and returns the body.
async fn revoked(service: &Service, org: &Org, bot: &Bot, body: &Value) -> Value {
    let answer = revoke_by_user(service, org, bot, body).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    answer.json()
}

#[tokio::test]
async fn only_tokens_of_the_exact_identifier_are_revoked() {
    let service = Service::start_with_manual_clock().await;
    let (org, owner) = service.org_with_owner().await;
    let (foreign_org, foreigner) = service.org_with_owner().await;
    let mut own = Vec::new();
    for _ in 0..3 {
        service.clock.advance(Duration::from_millis(1));
        own.push(service.issue(&org, &owner, "alice").await);
    }
    let mut others = Vec::new();
    for identifier in ["alice2", "alice-laptop", "alic", "Alice", "alice.b"] {
        others.push(service.issue(&org, &owner, identifier).await);
    }
    let foreign = service.issue(&foreign_org, &foreigner, "alice").await;
    let expired = service.issue_until(&org, &owner, "alice", "2026-11-21T10:00:01Z").await;
    service.clock.advance(Duration::from_secs(1));

    let body = revoked(&service, &org, &owner, &json!({"user_identifier": "alice"})).await;
    assert_eq!(ids(&body["revoked"]), own.iter().map(|token| token.id.clone()).collect::<Vec<_>>());
    insta::assert_json_snapshot!(body, {".revoked[]" => "[id]"}, @r#"
    {
      "matched": 3,
      "remaining": 0,
      "revoked": [
        "[id]",
        "[id]",
        "[id]"
      ]
    }
    "#);
    for token in &own {
        assert_eq!(service.probe(&org, &owner, &token.token).await["active"], false);
    }
    for token in &others {
        assert_eq!(service.probe(&org, &owner, &token.token).await["active"], true, "{}", token.user_identifier);
    }
    assert_eq!(service.probe(&foreign_org, &foreigner, &foreign.token).await["active"], true);
    assert_eq!(service.listed_ids(&org, &owner, "?status=expired").await, [expired.id]);
    service.table.assert_sound();
}

#[tokio::test]
async fn no_matching_tokens_is_200_with_zero() {
    let service = Service::start().await;
    let (org, owner) = service.org_with_owner().await;
    let token = service.issue(&org, &owner, "alice").await;
    service.revoke(&org, &owner, &token).await;
    let nothing = json!({"matched": 0, "revoked": [], "remaining": 0});
    for identifier in ["alice", "nobody"] {
        let body = json!({"user_identifier": identifier});
        assert_eq!(revoked(&service, &org, &owner, &body).await, nothing);
        let body = json!({"user_identifier": identifier, "expected_count": 0, "dry_run": false});
        assert_eq!(revoked(&service, &org, &owner, &body).await, nothing);
    }
    assert_eq!(service.table.audited_tokens(&org.id).await.len(), 2);
}

#[tokio::test]
async fn dry_run_lists_tokens_without_revoking() {
    let service = Service::start_with_manual_clock().await;
    let (org, owner) = service.org_with_owner().await;
    let first = service.issue(&org, &owner, "alice").await;
    service.clock.advance(Duration::from_millis(1));
    let second = service.issue(&org, &owner, "alice").await;
    let before = service.table.items().await;
    for body in [
        json!({"user_identifier": "alice", "dry_run": true}),
        json!({"user_identifier": "alice", "dry_run": true, "expected_count": 2}),
        json!({"user_identifier": "alice", "dry_run": true, "expected_count": null}),
    ] {
        let would_revoke = json!([first.id, second.id]);
        let expected = json!({"matched": 2, "revoked": [], "would_revoke": would_revoke, "remaining": 2});
        assert_eq!(revoked(&service, &org, &owner, &body).await, expected);
    }
    let body = json!({"user_identifier": "alice", "dry_run": true, "expected_count": 3});
    revoke_by_user(&service, &org, &owner, &body).await.assert_error(409, "CONFLICT");
    assert!(before == service.table.items().await, "a dry run changed the table");
}

#[tokio::test]
async fn wrong_expected_count_is_409_and_revokes_nothing() {
    let service = Service::start_with_manual_clock().await;
    let (org, owner) = service.org_with_owner().await;
    for _ in 0..3 {
        service.issue(&org, &owner, "alice").await;
    }
    // Revoked and expired tokens do not count.
    let revoked_token = service.issue(&org, &owner, "alice").await;
    service.revoke(&org, &owner, &revoked_token).await;
    service.issue_until(&org, &owner, "alice", "2026-11-21T10:00:01Z").await;
    service.clock.advance(Duration::from_secs(1));
    let before = service.table.items().await;
    for expected_count in [0_u64, 1, 2, 4, 5, u64::MAX] {
        let body = json!({"user_identifier": "alice", "expected_count": expected_count});
        let answer = revoke_by_user(&service, &org, &owner, &body).await;
        answer.assert_error(409, "CONFLICT");
    }
    assert!(before == service.table.items().await, "a refused call changed the table");
    let body = json!({"user_identifier": "alice", "expected_count": 3});
    assert_eq!(revoked(&service, &org, &owner, &body).await["matched"], 3);
    // A second run with the same expectation fails.
    revoke_by_user(&service, &org, &owner, &body).await.assert_error(409, "CONFLICT");
}

#[tokio::test]
async fn invalid_fields_are_named() {
    let service = Service::start().await;
    let (org, owner) = service.org_with_owner().await;
    service.issue(&org, &owner, "alice").await;
    for (body, field) in [
        (json!({}), "user_identifier"),
        (json!({"user_identifier": null}), "user_identifier"),
        (json!({"user_identifier": ""}), "user_identifier"),
        (json!({"user_identifier": "ali*"}), "user_identifier"),
        (json!({"user_identifier": ["alice"]}), "user_identifier"),
        (json!({"user_identifier": "alice", "dry_run": null}), "dry_run"),
        (json!({"user_identifier": "alice", "dry_run": "true"}), "dry_run"),
        (json!({"user_identifier": "alice", "dry_run": 1}), "dry_run"),
        (json!({"user_identifier": "alice", "expected_count": -1}), "expected_count"),
        (json!({"user_identifier": "alice", "expected_count": 1.5}), "expected_count"),
        (json!({"user_identifier": "alice", "expected_count": 1.0}), "expected_count"),
        (json!({"user_identifier": "alice", "expected_count": "1"}), "expected_count"),
        // If these typos were ignored, the call would revoke for real or without the check.
        (json!({"user_identifier": "alice", "dryrun": true}), "dryrun"),
        (json!({"user_identifier": "alice", "dry-run": true}), "(unknown)"),
        (json!({"user_identifier": "alice", "expectedCount": 5}), "expectedCount"),
    ] {
        revoke_by_user(&service, &org, &owner, &body).await.assert_invalid(field);
    }
    assert_eq!(service.listed_ids(&org, &owner, "").await.len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_call_revokes_six_hundred_tokens() {
    let service = Service::start().await;
    let (org, owner) = service.org_with_owner().await;
    let original = service.issue(&org, &owner, "alice").await;
    let mut tokens = service.table.copies(&original, vec!["alice".to_owned(); 599]).await;
    tokens.push(original);
    let neighbour = service.issue(&org, &owner, "alice2").await;

    let body = revoked(&service, &org, &owner, &json!({"user_identifier": "alice", "expected_count": 600})).await;
    assert_eq!((&body["matched"], &body["remaining"]), (&json!(600), &json!(0)));
    let revoked: BTreeSet<String> = ids(&body["revoked"]).into_iter().collect();
    assert!(revoked == tokens.iter().map(|token| token.id.clone()).collect::<BTreeSet<_>>());
    assert_eq!(service.listed_ids(&org, &owner, "").await, [neighbour.id]);
    let entries = service.table.audited_tokens(&org.id).await;
    let done: BTreeSet<&str> = entries
        .iter()
        .filter(|entry| text(entry, "action") == "org_user_token.revoke_by_user")
        .map(|entry| entry["target"]["id"].as_str().unwrap())
        .collect();
    assert_eq!(
        (done.len(), entries.len()),
        (600, 602),
        "one entry for each, and two for what was issued by the service"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokens_beyond_one_call_are_reported_as_remaining() {
    let service = Service::start().await;
    let (org, owner) = service.org_with_owner().await;
    let original = service.issue(&org, &owner, "alice").await;
    service.table.copies(&original, vec!["alice".to_owned(); 1_200]).await;
    // A dry run lists those that the next call would revoke.
    let body = revoked(&service, &org, &owner, &json!({"user_identifier": "alice", "dry_run": true})).await;
    assert_eq!((&body["matched"], &body["remaining"]), (&json!(1_201), &json!(1_201)));
    let would = ids(&body["would_revoke"]);
    assert!((500..1_201).contains(&would.len()), "{} in one call", would.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_calls_revoke_each_token_once() {
    let service = Service::start().await;
    let (org, owner) = service.org_with_owner().await;
    let mut tokens = Vec::new();
    for _ in 0..10 {
        tokens.push(service.issue(&org, &owner, "alice").await.id);
    }
    let body = json!({"user_identifier": "alice"});
    let (service, org, owner) = (&service, &org, &owner);
    let answers = join_all((0..8).map(|_| revoked(service, org, owner, &body))).await;
    let mut revoked: BTreeSet<String> = BTreeSet::new();
    for answer in answers {
        assert_eq!(answer["remaining"], 0);
        revoked.extend(ids(&answer["revoked"]));
    }
    assert!(revoked == tokens.into_iter().collect());
    // The invariants include exactly one revocation entry per token.
    service.table.assert_sound();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn token_issued_during_revocation_is_either_revoked_or_active() {
    let service = Service::start().await;
    let (org, owner) = service.org_with_owner().await;
    let issuer = service.bot(&org, &[Role::TokenIssuer]).await;
    for _ in 0..5 {
        service.issue(&org, &owner, "alice").await;
    }
    let issuing = join_all((0..30).map(|_| service.issue(&org, &issuer, "alice")));
    let body = json!({"user_identifier": "alice"});
    let revoking = async {
        let mut gone: BTreeSet<String> = BTreeSet::new();
        for _ in 0..3 {
            let answer = revoked(&service, &org, &owner, &body).await;
            let these = ids(&answer["revoked"]);
            assert_eq!(answer["matched"], these.len());
            gone.extend(these);
        }
        gone
    };
    let (issued, mut gone) = join(issuing, revoking).await;
    let left: BTreeSet<String> = service.listed_ids(&org, &owner, "?user_identifier=alice").await.into_iter().collect();
    assert!(gone.is_disjoint(&left));
    for token in &issued {
        assert_ne!(gone.contains(&token.id), left.contains(&token.id), "{} is lost", token.id);
        let is_active = service.probe(&org, &owner, &token.token).await["active"] == json!(true);
        assert_eq!(is_active, left.contains(&token.id));
    }
    let last =
        revoked(&service, &org, &owner, &json!({"user_identifier": "alice", "expected_count": left.len()})).await;
    assert_eq!(
        (ids(&last["revoked"]).into_iter().collect::<BTreeSet<_>>(), &last["remaining"]),
        (left.clone(), &json!(0))
    );
    gone.extend(left);
    assert_eq!(gone.len(), 35);
    service.table.assert_sound();
}
