//! The page `Guard > Tokens`: list, issue, revoke one, revoke all of a user identifier.

use std::collections::BTreeSet;
use std::time::Duration;

use futures::future::{join, join_all};
use reqwest::Method;
use serde_json::Value;
use shared::domain::Plan;
use shared::permissions::Role;
use shared::store::members::Authority;
use tests::console::{Visitor, issued_token, unescaped};
use tests::faults::Fault;
use tests::table::text;
use tests::upstream::Registry;
use tests::{Answer, Issued, Org, Service, operator};

const OTHERS: [Role; 3] = [Role::ApiKeyManager, Role::TokenIntrospector, Role::Member];

/// Issues a token through the form.
async fn issue(visitor: &Visitor<'_>, org: &Org, identifier: &str) -> Answer {
    let fields = [("user_identifier", identifier), ("expiry", "90"), ("expiry_date", "")];
    visitor.submit(&org.page("tokens/issue"), &fields).await
}

/// The tokens in the table.
async fn tokens(service: &Service) -> Vec<Value> {
    let mut items = service.table.items().await;
    items.retain(|item| item["kind"] == "org_user");
    items
}

/// The number of refused issues in the audit log.
async fn refusals(service: &Service, org: &Org) -> usize {
    let entries = service.table.audited_tokens(&org.id).await;
    let refused = entries.iter().filter(|entry| text(entry, "outcome") == "refused");
    refused.filter(|entry| text(entry, "action") == "org_user_token.issue").count()
}

#[track_caller]
fn assert_page(answer: &Answer, status: u16) {
    assert_eq!(answer.status, status, "{}", answer.text);
    assert!(answer.header("content-type").starts_with("text/html"), "{:?}", answer.headers);
    assert_eq!(answer.header("cache-control"), "no-store");
}

#[track_caller]
fn assert_shows(answer: &Answer, texts: &[&str]) {
    let page = unescaped(&answer.text);
    for text in texts {
        assert!(page.contains(text), "{text:?} is missing in {page}");
    }
}

#[track_caller]
fn assert_hides(answer: &Answer, texts: &[&str]) {
    let page = unescaped(&answer.text);
    for text in texts {
        assert!(!page.contains(text), "{text:?} is in {page}");
    }
}

#[tokio::test]
async fn token_is_issued_as_the_documentation_describes() {
    let service = Service::start_with_manual_clock().await;
    let (org, owner) = service.org_with_owner().await;
    let manager = service.member(&org, &[Role::Manager]).await;
    // Navigate to Guard > Tokens.
    let overview = manager.get(&org.page("tokens")).await;
    assert_page(&overview, 200);
    assert_shows(
        &overview,
        &["<h2>Guard</h2>", &format!(r#"<a href="{}" aria-current="page">Tokens</a>"#, org.page("tokens"))],
    );
    // Click Issue Token to open the token issuance form.
    assert_shows(&overview, &[&format!(r#"href="{}">Issue Token</a>"#, org.page("tokens/issue"))]);
    let form = manager.get(&org.page("tokens/issue")).await;
    assert_page(&form, 200);
    // Enter a User Identifier: 4–255 characters, letters, numbers, ., _, @, +, and -.
    assert_shows(&form, &[r#"<label for="user_identifier">User Identifier</label>"#, "4–255 characters", ". _ @ + -"]);
    // Click Issue to generate the token.
    assert_shows(&form, &[r#"<button class="primary">Issue</button>"#, r#"value="90" checked"#, "UTC"]);
    for identifier in ["alice@example.com", "alice", "C02X1234_jdoe", "ASSET0042_EMP12345"] {
        let answer = issue(&manager, &org, identifier).await;
        assert_page(&answer, 200);
        let token = issued_token(&answer);
        let probed = service.probe(&org, &owner, &token).await;
        assert_eq!((&probed["active"], &probed["user_identifier"]), (&true.into(), &identifier.into()));
        assert_eq!(probed["expires_at"], "2027-02-19T10:00:00Z");
        // The token is shown only once; only a masked prefix is visible in the token list.
        assert_shows(&answer, &["This is the only time it is shown.", r#"data-copy="token""#]);
        let list = manager.get(&org.page("tokens")).await;
        assert_shows(&list, &[identifier, &token[..11]]);
        assert_hides(&list, &[&token[..16]]);
        for item in service.table.items().await {
            assert!(!item.to_string().contains(&token), "{item}");
        }
    }
    let entries = service.table.audited_tokens(&org.id).await;
    assert_eq!(entries.len(), 4);
    for entry in &entries {
        assert_eq!((text(entry, "action"), text(&entry["actor"], "kind")), ("org_user_token.issue", "member"));
        assert!(text(&entry["actor"], "id").starts_with("MB"), "{entry}");
    }
}

#[tokio::test]
async fn issued_token_comes_with_lines_for_every_package_manager() {
    let service = Service::start_with_manual_clock().await;
    let org = service.org().await;
    let answer = issue(&service.member(&org, &[Role::Owner]).await, &org, "alice@example.com").await;
    let (token, base) = (issued_token(&answer), &service.base_url);
    let host = base.strip_prefix("http://").unwrap();
    assert_shows(
        &answer,
        &[
            &format!("npm config set registry {base}/npm/\nnpm config set //{host}/npm/:_authToken {token}"),
            &format!("pnpm config set registry {base}/npm/\npnpm config set //{host}/npm/:_authToken {token}"),
            &format!("echo \"//{host}/npm/:always-auth=true\" >> ~/.npmrc"),
            &format!(r#"yarn config set --home 'npmRegistries["//{host}/npm"].npmAuthToken' {token}"#),
            &format!("[install]\nregistry = {{ url = \"{base}/npm/\", token = \"{token}\" }}"),
            &format!("pip config set global.index-url http://token:{token}@{host}/pypi/simple/"),
            &format!("export UV_DEFAULT_INDEX=http://token:{token}@{host}/pypi/simple/"),
            &format!("poetry source add --priority=primary takumi-guard {base}/pypi/simple/"),
            &format!("poetry config http-basic.takumi-guard token {token}"),
        ],
    );
    for id in ["npm", "pnpm", "yarn-1", "yarn-berry", "bun", "pip", "uv", "poetry"] {
        assert_shows(&answer, &[&format!(r#"<code id="{id}">"#), &format!(r#"data-copy="{id}""#)]);
    }
}

#[tokio::test]
async fn malformed_form_says_beside_the_field_what_is_wrong() {
    let service = Service::start_with_manual_clock().await;
    let org = service.org().await;
    let owner = service.member(&org, &[Role::Owner]).await;
    let (length, characters) = ("Enter 4 to 255 characters.", "Use only the letters A–Z and a–z, digits and . _ @ + -");
    let long = "a".repeat(256);
    for (identifier, error) in [
        ("", length),
        ("abc", length),
        (&long, length),
        ("ali ce", characters),
        ("älice", characters),
        ("alice#1", characters),
        ("<script>alert(1)</script>", characters),
    ] {
        let answer = issue(&owner, &org, identifier).await;
        assert_page(&answer, 400);
        let error = format!(r#"id="user_identifier-error"><span class="hide">Error: </span>{error}"#);
        assert_shows(&answer, &[&error, &format!(r#"value="{identifier}""#), "Nothing was saved."]);
        assert!(!answer.text.contains("<script>alert"), "{}", answer.text);
    }
    for (expiry, date, error) in [
        ("date", "", "Enter a date."),
        ("date", "2026-11-20", "Enter a date that is not in the past."),
        ("date", "tomorrow", "Enter a date."),
        ("8", "", "Choose when it expires."),
    ] {
        let fields = [("user_identifier", "alice"), ("expiry", expiry), ("expiry_date", date)];
        let answer = owner.submit(&org.page("tokens/issue"), &fields).await;
        assert_page(&answer, 400);
        let error = format!(r#"id="expiry-error"><span class="hide">Error: </span>{error}"#);
        assert_shows(&answer, &[&error, r#"value="alice""#, &format!(r#"name="expiry_date" value="{date}""#)]);
    }
    assert_page(&owner.submit(&org.page("tokens/issue"), &[]).await, 400);
    assert!(tokens(&service).await.is_empty());
}

#[tokio::test]
async fn token_expires_when_the_form_says() {
    let service = Service::start_with_manual_clock().await;
    let (org, bot) = service.org_with_owner().await;
    let owner = service.member(&org, &[Role::Owner]).await;
    for (expiry, date, expires_at) in [
        ("7", "", Value::from("2026-11-28T10:00:00Z")),
        ("365", "2026-12-01", "2027-11-21T10:00:00Z".into()),
        ("date", "2026-11-21", "2026-11-21T23:59:59Z".into()),
        ("never", "2026-12-01", Value::Null),
    ] {
        let fields = [("user_identifier", "alice"), ("expiry", expiry), ("expiry_date", date)];
        let answer = owner.submit(&org.page("tokens/issue"), &fields).await;
        assert_eq!(service.probe(&org, &bot, &issued_token(&answer)).await["expires_at"], expires_at, "{expiry}");
    }
}

#[tokio::test]
async fn revoke_button_names_the_token_and_ends_it_immediately() {
    let registry = Registry::with_widgets().await;
    let service = Service::start_with_registries(registry.settings()).await;
    let (org, bot) = service.org_with_owner().await;
    let manager = service.member(&org, &[Role::Manager]).await;
    let (token, other) =
        (service.issue(&org, &bot, "alice-laptop").await, service.issue(&org, &bot, "alice-phone").await);
    let paths = ["/npm/widgets", "/pypi/simple/widgets/"];
    for path in paths {
        assert_eq!(service.call(Method::GET, path, &token.token).await.status, 200);
    }
    let path = org.page(&format!("tokens/{}/revoke", token.id));
    assert_shows(&manager.get(&org.page("tokens")).await, &[&format!(r#"href="{path}">Revoke"#)]);
    let confirmation = manager.get(&path).await;
    assert_page(&confirmation, 200);
    assert_shows(
        &confirmation,
        &["alice-laptop", &token.token[..11], r#"<button class="danger">Revoke</button>"#, "401"],
    );
    assert_hides(&confirmation, &[&token.token]);
    // Looking revokes nothing.
    assert_eq!(service.probe(&org, &bot, &token.token).await["active"], true);

    let answer = manager.submit(&path, &[]).await;
    assert_eq!((answer.status.as_u16(), answer.header("location")), (303, &*org.page("tokens?revoked=1")));
    assert_eq!(service.probe(&org, &bot, &token.token).await["active"], false);
    // Commands using the revoked token fail with a 401 error across all ecosystems.
    for path in paths {
        assert_eq!(service.call(Method::GET, path, &token.token).await.status, 401);
        assert_eq!(service.call(Method::GET, path, &other.token).await.status, 200);
    }
    let list = manager.get(answer.header("location")).await;
    assert_shows(&list, &["The token was revoked.", "alice-phone"]);
    assert_hides(&list, &["alice-laptop"]);
    let entries = service.table.audited_tokens(&org.id).await;
    let revoked = entries.iter().find(|entry| text(entry, "action") == "org_user_token.revoke").unwrap();
    assert_eq!((text(&revoked["actor"], "kind"), text(&revoked["target"], "id")), ("member", &*token.id));
    // Sent again, it changes nothing.
    assert_eq!(manager.submit(&path, &[]).await.status, 303);
    assert_eq!(service.table.audited_tokens(&org.id).await.len(), 3);
}

#[tokio::test]
async fn list_shows_tokens_by_state_and_prefix() {
    let service = Service::start_with_manual_clock().await;
    let (org, bot) = service.org_with_owner().await;
    let manager = service.member(&org, &[Role::Manager]).await;
    service.issue(&org, &bot, "alice+laptop").await;
    service.issue_until(&org, &bot, "erika-laptop", "2026-11-21T10:00:01Z").await;
    let revoked = service.issue(&org, &bot, "carol-laptop").await;
    service.revoke(&org, &bot, &revoked).await;
    service.clock.advance(Duration::from_secs(1));
    let used = service.issue(&org, &bot, "david-laptop").await;
    assert_eq!(service.whoami(&used.token).await.status, 200);

    let all = ["alice+laptop", "carol-laptop", "david-laptop", "erika-laptop"];
    for (query, shown) in [
        ("", &["alice+laptop", "david-laptop"][..]),
        ("?state=active", &["alice+laptop", "david-laptop"]),
        ("?state=expired", &["erika-laptop"]),
        ("?state=revoked", &["carol-laptop"]),
        ("?state=all", &all),
        ("?state=nonsense&unknown=1", &["alice+laptop", "david-laptop"]),
        ("?state=all&prefix=alice%2Bl", &["alice+laptop"]),
        ("?prefix=+david+", &["david-laptop"]),
        ("?prefix=Alice", &[]),
        ("?prefix=%3Cb%3E", &[]),
    ] {
        let answer = manager.get(&org.page(&format!("tokens{query}"))).await;
        assert_page(&answer, 200);
        let hidden: Vec<&str> = all.into_iter().filter(|identifier| !shown.contains(identifier)).collect();
        assert_shows(&answer, shown);
        assert_hides(&answer, &hidden);
        if shown.is_empty() {
            assert_shows(&answer, &["No tokens found"]);
        }
        assert!(!answer.text.contains("<b>"), "{}", answer.text);
    }
    let list = manager.get(&org.page("tokens")).await;
    assert_shows(&list, &["Last used", "2026-11-21 10:00:01 UTC", "Never used", "Search"]);
    for state in ["active", "expired", "revoked", "all"] {
        assert_shows(&list, &[&format!(r#"href="{}?state={state}""#, org.page("tokens"))]);
    }
    let installations = format!("{}?user_identifier=alice%2Blaptop&token_id=", org.page("installations"));
    assert_shows(&list, &[&installations]);
}

#[tokio::test]
async fn list_has_50_tokens_a_page() {
    let service = Service::start_with_manual_clock().await;
    let (org, bot) = service.org_with_owner().await;
    let manager = service.member(&org, &[Role::Manager]).await;
    let original = service.issue(&org, &bot, "person-0000").await;
    service.table.copies(&original, (1..101).map(|n| format!("person-{n:04}")).collect()).await;
    let mut path = org.page("tokens?prefix=person");
    let (mut seen, mut sizes) = (BTreeSet::new(), Vec::new());
    loop {
        let answer = manager.get(&path).await;
        assert_page(&answer, 200);
        let found: Vec<String> = answer.text.split("person-").skip(1).map(|rest| rest[..4].to_owned()).collect();
        let found: BTreeSet<String> = found.into_iter().filter(|n| n.bytes().all(|c| c.is_ascii_digit())).collect();
        sizes.push(found.len());
        seen.extend(found);
        let Some((before, _)) = answer.text.split_once(r#"" rel="next">"#) else { break };
        path = unescaped(before.rsplit_once(r#"href=""#).unwrap().1);
        assert!(seen.len() < 51 || unescaped(&answer.text).contains(">First page</a>"));
    }
    assert_eq!((sizes, seen.len()), (vec![50, 50, 1], 101));
    for cursor in ["nonsense", "AAAAAAAAAAAAAAAA"] {
        assert_page(&manager.get(&org.page(&format!("tokens?cursor={cursor}"))).await, 400);
    }
}

#[tokio::test]
async fn empty_list_says_what_to_do() {
    let service = Service::start_with_manual_clock().await;
    let org = service.org().await;
    let list = service.member(&org, &[Role::Manager]).await.get(&org.page("tokens")).await;
    let line = format!("curl -sS {}/v1/o/{}/guard/org-user-tokens", service.base_url, org.id);
    assert_shows(&list, &["No tokens yet", ">Issue Token</a>", &line, r#"data-copy="curl""#]);
}

#[tokio::test]
async fn all_tokens_of_a_person_are_revoked_after_a_preview_and_typing_the_identifier() {
    let service = Service::start_with_manual_clock().await;
    let (org, bot) = service.org_with_owner().await;
    let manager = service.member(&org, &[Role::Manager]).await;
    let path = org.page("tokens/revoke-by-user");
    assert_shows(&manager.get(&org.page("tokens")).await, &[&format!(r#"href="{path}">Revoke all of a person</a>"#)]);
    let active = async |token: &Issued| service.probe(&org, &bot, &token.token).await["active"] == true;
    let (one, two) = (service.issue(&org, &bot, "a+lice").await, service.issue(&org, &bot, "a+lice").await);
    let other = service.issue(&org, &bot, "a+lice2").await;

    assert_page(&manager.get(&path).await, 200);
    let preview = manager.get(&format!("{path}?user_identifier=a%2Blice")).await;
    assert_page(&preview, 200);
    assert_shows(
        &preview,
        &["Active tokens of a+lice: 2", r#"name="expected_count" value="2""#, "Type the user identifier to confirm"],
    );

    let send = async |count: &str, typed: &str| {
        manager.submit(&path, &[("user_identifier", "a+lice"), ("expected_count", count), ("confirm", typed)]).await
    };
    for typed in ["", "a+lice2", "A+LICE", " a+lice"] {
        let answer = send("2", typed).await;
        assert_page(&answer, 400);
        assert_shows(
            &answer,
            &[r#"id="confirm-error""#, "This is not the user identifier above.", "Active tokens of a+lice: 2"],
        );
    }
    for count in ["", "1", "3", "0", "-1", "18446744073709551616"] {
        let answer = send(count, "a+lice").await;
        assert_page(&answer, 409);
        assert_shows(&answer, &["The number of active tokens has changed", "Active tokens of a+lice: 2"]);
    }
    assert!(active(&one).await && active(&two).await);

    let answer = send("2", "a+lice").await;
    assert_eq!(answer.status, 303, "{}", answer.text);
    assert!(!active(&one).await && !active(&two).await && active(&other).await);
    let list = manager.get(answer.header("location")).await;
    assert_shows(&list, &["Revoked tokens of a+lice: 2", &one.token[..11], &two.token[..11]]);
    let entries = service.table.audited_tokens(&org.id).await;
    let revoked = entries.iter().filter(|entry| text(entry, "action") == "org_user_token.revoke_by_user");
    assert_eq!(revoked.filter(|entry| text(&entry["actor"], "kind") == "member").count(), 2);

    // Nothing is left.
    let again = send("2", "a+lice").await;
    assert_page(&again, 409);
    assert_shows(&again, &["a+lice has no active tokens.", "The number of active tokens has changed"]);
    let preview = manager.get(&format!("{path}?user_identifier=a%2Blice")).await;
    assert_shows(&preview, &["a+lice has no active tokens."]);
    for identifier in ["", "abc", "%3Cscript%3E"] {
        let answer = manager.get(&format!("{path}?user_identifier={identifier}")).await;
        assert_page(&answer, 400);
        assert_shows(&answer, &[r#"id="user_identifier-error""#]);
        assert!(!answer.text.contains("value=\"<script>"));
        assert_page(&manager.submit(&path, &[("user_identifier", identifier)]).await, 400);
    }
}

#[tokio::test]
async fn more_than_one_call_revokes_are_asked_for_again() {
    let service = Service::start_with_manual_clock().await;
    let (org, bot) = service.org_with_owner().await;
    let manager = service.member(&org, &[Role::Manager]).await;
    let original = service.issue(&org, &bot, "robot").await;
    service.table.copies(&original, vec!["robot".to_owned(); 1_001]).await;
    service.table.skip_final_check();
    let path = org.page("tokens/revoke-by-user");
    let fields = |count| [("user_identifier", "robot"), ("expected_count", count), ("confirm", "robot")];
    let answer = manager.submit(&path, &fields("1002")).await;
    assert_eq!(answer.status, 303, "{}", answer.text);
    let rest = manager.get(answer.header("location")).await;
    assert_shows(
        &rest,
        &["Revoked tokens of robot: 1000", "Still to be revoked: 2", r#"name="expected_count" value="2""#],
    );
    let answer = manager.submit(&path, &fields("2")).await;
    assert!(answer.header("location").starts_with(&org.page("tokens?state=revoked")), "{:?}", answer.headers);
}

#[tokio::test]
async fn each_role_sees_and_does_what_it_may() {
    let service = Service::start_with_manual_clock().await;
    let (org, bot) = service.org_with_owner().await;
    let token = service.issue(&org, &bot, "alice-laptop").await;
    let revoke = org.page(&format!("tokens/{}/revoke", token.id));
    let by_user = org.page("tokens/revoke-by-user");
    let confirmed = [("user_identifier", "alice-laptop"), ("expected_count", "1"), ("confirm", "alice-laptop")];
    for role in [Role::Owner, Role::Manager] {
        let member = service.member(&org, &[role]).await;
        assert_shows(
            &member.get(&org.page("tokens")).await,
            &["alice-laptop", ">Issue Token</a>", ">Revoke<", "Revoke all of a person"],
        );
        for path in [&org.page("tokens/issue"), &revoke, &by_user] {
            assert_page(&member.get(path).await, 200);
        }
    }
    // An issuer sees Issue Token without the list.
    let issuer = service.member(&org, &[Role::TokenIssuer]).await;
    let list = issuer.get(&org.page("tokens")).await;
    assert_page(&list, 200);
    assert_shows(&list, &[">Issue Token</a>", "Your role issues tokens but does not list them."]);
    assert_hides(&list, &["alice-laptop", "Revoke", "role=\"search\""]);
    assert_eq!(issue(&issuer, &org, "bobby").await.status, 200);
    for path in [&revoke, &by_user] {
        assert_page(&issuer.get(path).await, 403);
    }
    for role in OTHERS {
        let member = service.member(&org, &[role]).await;
        for path in [&org.page("tokens"), &org.page("tokens/issue"), &revoke, &by_user] {
            let answer = member.get(path).await;
            assert_page(&answer, 403);
            assert_hides(&answer, &["alice-laptop"]);
        }
        assert_page(&issue(&member, &org, "bobby").await, 403);
    }
    let before = service.table.items_without_audit().await.len();
    for role in OTHERS.into_iter().chain([Role::TokenIssuer]) {
        let member = service.member(&org, &[role]).await;
        assert_page(&member.submit(&revoke, &[]).await, 403);
        assert_page(&member.submit(&by_user, &confirmed).await, 403);
    }
    assert_eq!(service.probe(&org, &bot, &token.token).await["active"], true);
    assert!(service.table.items_without_audit().await.len() > before);
    assert_eq!(refusals(&service, &org).await, OTHERS.len());
}

#[tokio::test]
async fn ids_of_another_organization_are_404() {
    let service = Service::start_with_manual_clock().await;
    let ((org, bot), (other, other_bot)) = (service.org_with_owner().await, service.org_with_owner().await);
    let owner = service.member(&org, &[Role::Owner]).await;
    let (own, foreign) = (service.issue(&org, &bot, "alice").await, service.issue(&other, &other_bot, "alice").await);
    let before = service.table.items().await;
    for path in [
        other.page("tokens"),
        other.page("tokens/issue"),
        other.page("tokens/revoke-by-user?user_identifier=alice"),
        other.page(&format!("tokens/{}/revoke", foreign.id)),
        other.page(&format!("tokens/{}/revoke", own.id)),
        org.page(&format!("tokens/{}/revoke", foreign.id)),
        org.page("tokens/01KAJ8M4R2X7Z9V5T3Q1N6P8WC/revoke"),
        org.page("tokens/nonsense/revoke"),
        "/console/o/nonsense/tokens".to_owned(),
    ] {
        assert_page(&owner.get(&path).await, 404);
        let fields = [("user_identifier", "alice"), ("expiry", "7"), ("expected_count", "1"), ("confirm", "alice")];
        let answer = owner.submit(&path, &fields).await;
        // The list takes no form.
        assert_page(&answer, if path.ends_with("/tokens") { 405 } else { 404 });
    }
    assert_eq!(service.table.items().await, before);
    // The same identifier in another organization is another person's.
    let fields = [("user_identifier", "alice"), ("expected_count", "1"), ("confirm", "alice")];
    assert_eq!(owner.submit(&org.page("tokens/revoke-by-user"), &fields).await.status, 303);
    assert_eq!(service.probe(&other, &other_bot, &foreign.token).await["active"], true);
    assert_eq!(service.probe(&org, &bot, &own.token).await["active"], false);
}

#[tokio::test]
async fn forms_of_other_sites_and_sessions_are_refused() {
    let service = Service::start_with_manual_clock().await;
    let (org, bot) = service.org_with_owner().await;
    let (owner, other) = (service.member(&org, &[Role::Owner]).await, service.member(&org, &[Role::Owner]).await);
    let token = service.issue(&org, &bot, "alice").await;
    let fields = [("user_identifier", "alice"), ("expiry", "7"), ("expected_count", "1"), ("confirm", "alice")];
    for page in ["tokens/issue", "tokens/revoke-by-user", &format!("tokens/{}/revoke", token.id)] {
        let path = org.page(page);
        // Without the token, with another session's, with a forged one.
        let form = |form_token: Option<String>| {
            let own = form_token.map(|token| ("form_token".to_owned(), token));
            let rest = fields.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
            own.into_iter().chain(rest).collect::<Vec<_>>()
        };
        for form_token in
            [None, Some(other.form_token().as_str().to_owned()), Some("0".repeat(80)), Some(String::new())]
        {
            let request = owner.request(Method::POST, &path).form(&form(form_token));
            assert_page(&service.send(request).await, 403);
        }
        // With the right token, but from elsewhere.
        let form = form(Some(owner.form_token().as_str().to_owned()));
        for headers in [
            &[][..],
            &[("sec-fetch-site", "cross-site")],
            &[("sec-fetch-site", "same-site")],
            &[("sec-fetch-site", "none")],
            &[("origin", "https://evil.example")],
            &[("sec-fetch-site", "same-origin"), ("origin", "null")],
        ] {
            let request = service.request(Method::POST, &path).header("cookie", owner.cookie()).form(&form);
            let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
            assert_page(&service.send(request).await, 403);
        }
        // A link is no form.
        let query = fields.map(|(name, value)| format!("{name}={value}")).join("&");
        let _ = owner.get(&format!("{path}?{query}")).await;
        let json = owner.request(Method::POST, &path).json(&serde_json::json!({"user_identifier": "alice"}));
        assert_page(&service.send(json).await, 415);
    }
    assert_eq!(tokens(&service).await.len(), 1);
    assert_eq!(service.probe(&org, &bot, &token.token).await["active"], true);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn form_that_is_sent_again_issues_one_token() {
    let service = Service::start_with_manual_clock().await;
    let org = service.org().await;
    let owner = service.member(&org, &[Role::Owner]).await;
    let path = org.page("tokens/issue");
    for n in 0..2 {
        let form_token = owner.form_token();
        let fields = [("user_identifier", "alice"), ("expiry", "7"), ("expiry_date", "")];
        let send = || owner.submit_with(&form_token, &path, &fields);
        let mut answers = if n == 0 { vec![send().await] } else { join_all((0..10).map(|_| send())).await };
        answers.push(send().await);
        let (issued, repeated): (Vec<&Answer>, Vec<&Answer>) = answers.iter().partition(|answer| answer.status == 200);
        assert_eq!(issued.len(), 1);
        let ids: Vec<Value> = tokens(&service).await.into_iter().map(|token| token["id"].clone()).collect();
        assert_eq!(ids.len(), n + 1);
        for answer in repeated {
            assert_page(answer, 409);
            assert!(ids.iter().any(|id| answer.text.contains(id.as_str().unwrap())), "{}", answer.text);
            assert_hides(answer, &["tg_org_"]);
        }
        // The same form with something else in it.
        let changed = [("user_identifier", "bobby"), ("expiry", "7"), ("expiry_date", "")];
        assert_page(&owner.submit_with(&form_token, &path, &changed).await, 409);
        assert_eq!(tokens(&service).await.len(), n + 1);
    }
}

#[tokio::test]
async fn without_guard_tokens_are_listed_and_revoked_but_not_issued() {
    let service = Service::start_with_manual_clock().await;
    let (org, bot) = service.org_with_owner().await;
    let manager = service.member(&org, &[Role::Manager]).await;
    let token = service.issue(&org, &bot, "alice-laptop").await;
    let reason = "Guard is not active for this organization";
    let suspended = "The operator of this service has suspended this organization";
    for (refused, (reason, guard)) in [(reason, false), (suspended, true)].into_iter().enumerate() {
        service.set_guard(&org.id, guard).await;
        service.store.set_suspended(&org.id, guard, &operator()).await.unwrap().unwrap();
        let list = manager.get(&org.page("tokens")).await;
        assert_page(&list, 200);
        assert_shows(&list, &["alice-laptop", reason, ">Revoke<"]);
        assert_hides(&list, &["Issue Token"]);
        assert_shows(&manager.get(&org.page("tokens/issue")).await, &[reason]);
        let answer = issue(&manager, &org, "bobby").await;
        assert_page(&answer, 403);
        assert_shows(&answer, &[reason, r#"value="bobby""#]);
        assert_eq!(refusals(&service, &org).await, refused + 1);
    }
    assert_eq!(tokens(&service).await.len(), 1);
    assert_eq!(manager.submit(&org.page(&format!("tokens/{}/revoke", token.id)), &[]).await.status, 303);
}

#[tokio::test]
async fn refused_forms_are_429_after_ten_a_minute() {
    let service = Service::start_with_manual_clock().await;
    let org = service.org().await;
    let member = service.member(&org, &[Role::Member]).await;
    for status in [[403; 10].as_slice(), &[429]].concat() {
        assert_page(&issue(&member, &org, "alice").await, status);
    }
    assert_eq!(service.table.audited_tokens(&org.id).await.len(), 10);
}

#[tokio::test]
async fn text_of_others_is_escaped() {
    let service = Service::start_with_manual_clock().await;
    let script = r#""><script>alert(1)</script>"#;
    let org = service.store.create_org(script, Plan::Pro, true, &operator()).await.unwrap();
    let org = Org { id: org.id };
    let owner = service.member(&org, &[Role::Owner]).await;
    let bot = service.bot(&org, &[Role::Owner]).await;
    let token = service.issue(&org, &bot, "alice").await;
    for page in ["tokens", "tokens/issue", "tokens/revoke-by-user", &format!("tokens/{}/revoke", token.id)] {
        let answer = owner.get(&org.page(page)).await;
        assert_page(&answer, 200);
        assert!(!answer.text.contains("<script>alert"), "{}", answer.text);
        assert!(unescaped(&answer.text).contains(script));
    }
}

#[tokio::test]
async fn page_speaks_japanese() {
    let service = Service::start_with_manual_clock().await;
    let org = service.org().await;
    let owner = service.member(&org, &[Role::Owner]).await;
    let get = async |page: &str| {
        service.send(owner.request(Method::GET, &org.page(page)).header("accept-language", "ja,en;q=0.5")).await
    };
    assert_shows(&get("tokens").await, &[r#"<html lang="ja">"#, "トークンを発行", "トークンはまだありません"]);
    let fields = [("form_token", owner.form_token().as_str().to_owned()), ("user_identifier", "abc".to_owned())];
    let request = owner.request(Method::POST, &org.page("tokens/issue")).header("accept-language", "ja").form(&fields);
    assert_shows(&service.send(request).await, &["4〜255文字で入力してください。", "有効期限を選択してください。"]);
}

/// Removes a member.
async fn remove(service: &Service, org: &Org, visitor: &Visitor<'_>) {
    let member = service.store.membership(visitor.person.id, &org.id).await.unwrap().unwrap();
    service.store.remove_member(&org.id, &member.id, Authority::Operator, &operator()).await.unwrap();
}

#[tokio::test]
async fn member_who_was_removed_while_filling_in_the_form_issues_nothing() {
    let service = Service::start_with_manual_clock().await;
    let (org, elsewhere) = (service.org().await, service.org().await);
    // Somebody who is a member of another organization, and somebody who is not.
    let (one, two) = (service.member(&org, &[Role::Manager]).await, service.member(&org, &[Role::Manager]).await);
    service.join(&elsewhere.id, &two.person, &[Role::Owner]).await;
    for (member, status) in [(&one, 303), (&two, 404)] {
        assert_eq!(member.get(&org.page("tokens/issue")).await.status, 200);
        remove(&service, &org, member).await;
        let answer = issue(member, &org, "alice").await;
        assert_eq!(answer.status, status, "{}", answer.text);
    }
    // A role that was lost is 403.
    let three = service.member(&org, &[Role::Manager]).await;
    let member = service.store.membership(three.person.id, &org.id).await.unwrap().unwrap();
    let by = operator();
    let lowered = service.store.set_member_roles(&org.id, &member.id, &[Role::Member], Authority::Operator, &by);
    lowered.await.unwrap();
    assert_page(&issue(&three, &org, "alice").await, 403);
    assert!(tokens(&service).await.is_empty());
}

#[tokio::test]
async fn token_of_a_member_who_is_removed_meanwhile_is_taken_back() {
    let (service, faults) = Service::start_with_faults().await;
    let org = service.org().await;
    let first = service.member(&org, &[Role::Manager]).await;
    faults.arm(0, &[], None);
    assert_eq!(issue(&first, &org, "alice").await.status, 200);
    let reads = faults.disarm().iter().position(|call| call == "TransactWriteItems").unwrap();

    let second = service.member(&org, &[Role::Manager]).await;
    let form_token = second.form_token();
    let fields = [("user_identifier", "bobby"), ("expiry", "7"), ("expiry_date", "")];
    let path = org.page("tokens/issue");
    faults.arm(reads, &[Fault::Held], None);
    let cut = async {
        faults.reached(reads + 1).await;
        remove(&service, &org, &second).await;
        faults.release();
    };
    let (answer, ()) = join(second.submit_with(&form_token, &path, &fields), cut).await;
    faults.disarm();
    // The way to sign-in.
    assert_eq!(answer.status, 303, "{}", answer.text);
    assert_hides(&answer, &["tg_org_"]);
    let states: Vec<bool> = tokens(&service).await.iter().map(|token| token.get("revoked_at").is_some()).collect();
    assert_eq!(states.iter().filter(|revoked| **revoked).count(), 1, "{states:?}");
}
