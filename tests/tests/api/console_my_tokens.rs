//! The page *My tokens*: what a member issues there is bound to the membership and ends with it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::future::{join, join_all};
use reqwest::Method;
use serde_json::{Value, json};
use shared::email::EmailAddress;
use shared::permissions::Role;
use shared::person::Person;
use shared::store::members::{Authority, MemberChange};
use tests::console::{Visitor, issued_token, person, unescaped};
use tests::faults::Fault;
use tests::table::text;
use tests::upstream::Registry;
use tests::{Answer, Bot, Org, Service, ids, operator};

/// Issues a token through the form.
async fn issue(visitor: &Visitor<'_>, org: &Org) -> Answer {
    visitor.submit(&org.page("my-tokens/issue"), &[("expiry", "90"), ("expiry_date", "")]).await
}

/// The ID of the only token on the page that can be revoked.
async fn only_id(visitor: &Visitor<'_>, org: &Org) -> String {
    let list = visitor.get(&org.page("my-tokens")).await;
    let links: Vec<&str> = list.text.split(&format!("href=\"{}/", org.page("my-tokens"))).skip(1).collect();
    let ids: Vec<&str> = links.iter().filter_map(|link| link.split_once("/revoke\"").map(|(id, _)| id)).collect();
    let ids: Vec<&str> = ids.into_iter().filter(|id| id.len() == 26).collect();
    assert_eq!(ids.len(), 1, "{}", list.text);
    ids[0].to_owned()
}

async fn remove(service: &Service, org: &Org, visitor: &Visitor<'_>) {
    let member = service.store.membership(visitor.person.id, &org.id).await.unwrap().unwrap();
    let removed = service.store.remove_member(&org.id, &member.id, Authority::Operator, &operator()).await;
    assert_eq!(removed.unwrap(), MemberChange::Done);
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

/// Asserts that a token is accepted, or refused, wherever one can be used or looked up.
async fn assert_active(service: &Service, org: &Org, bot: &Bot, token: &str, active: bool) {
    assert_eq!(service.probe(org, bot, token).await["active"], active, "probe");
    let introspected = service.introspect(bot, &json!({"token": token})).await;
    assert_eq!(introspected["active"], active, "introspect");
    if !active {
        assert_eq!(introspected, json!({"active": false}));
    }
    let status = if active { 200 } else { 401 };
    assert_eq!(service.whoami(token).await.status, status, "whoami");
    for path in ["/npm/widgets", "/pypi/simple/widgets/"] {
        assert_eq!(service.call(Method::GET, path, token).await.status, status, "{path}");
    }
}

/// A service with registries, an organization and an owner bot.
async fn start() -> (Service, Org, Bot) {
    let registry = Registry::with_widgets().await;
    let service = Service::start_with_registries(registry.settings()).await;
    let (org, bot) = service.org_with_owner().await;
    (service, org, bot)
}

#[tokio::test]
async fn every_member_issues_sees_and_revokes_own_tokens() {
    let (service, org, bot) = start().await;
    for &role in Role::ALL {
        let member = service.member(&org, &[role]).await;
        let address = member.person.email.expose().to_owned();
        let list = member.get(&org.page("my-tokens")).await;
        assert_page(&list, 200);
        assert_shows(
            &list,
            &["You have no tokens", &format!(r#"href="{}">Issue Token</a>"#, org.page("my-tokens/issue"))],
        );
        let form = member.get(&org.page("my-tokens/issue")).await;
        assert_page(&form, 200);
        assert_shows(&form, &[&address, r#"<button class="primary">Issue</button>"#, r#"value="90" checked"#, "UTC"]);

        let answer = issue(&member, &org).await;
        assert_page(&answer, 200);
        let token = issued_token(&answer);
        assert_shows(&answer, &["This is the only time it is shown.", &format!("_authToken {token}"), &address]);
        assert_active(&service, &org, &bot, &token, true).await;
        assert_eq!(service.probe(&org, &bot, &token).await["user_identifier"], address);
        let list = member.get(&org.page("my-tokens")).await;
        assert_shows(&list, &[&token[..11], "Active"]);
        assert_hides(&list, &[&token[..16]]);

        let id = only_id(&member, &org).await;
        let path = org.page(&format!("my-tokens/{id}/revoke"));
        let confirmation = member.get(&path).await;
        assert_page(&confirmation, 200);
        assert_shows(&confirmation, &[&token[..11], r#"<button class="danger">Revoke</button>"#]);
        let answer = member.submit(&path, &[]).await;
        assert_eq!((answer.status.as_u16(), answer.header("location")), (303, &*org.page("my-tokens?revoked")));
        assert_active(&service, &org, &bot, &token, false).await;
        assert_shows(&member.get(&org.page("my-tokens?revoked")).await, &["The token was revoked.", "Revoked"]);
    }
    let entries = service.table.audited_tokens(&org.id).await;
    assert_eq!(entries.len(), 2 * Role::ALL.len());
    assert!(entries.iter().all(|entry| text(&entry["actor"], "kind") == "member"), "{entries:?}");
}

#[tokio::test]
async fn identifier_is_the_lower_case_address() {
    let (service, org, bot) = start().await;
    let alice = person("Alice.Smith+guard@Example.COM");
    service.join(&org.id, &alice, &[Role::Member]).await;
    let alice = service.sign_in(&alice).await;
    let token = issued_token(&issue(&alice, &org).await);
    assert_eq!(service.probe(&org, &bot, &token).await["user_identifier"], "alice.smith+guard@example.com");
    // Not what the form says.
    let fields = [("expiry", "7"), ("user_identifier", "somebody@example.com"), ("identifier", "somebody")];
    let token = issued_token(&alice.submit(&org.page("my-tokens/issue"), &fields).await);
    assert_eq!(service.probe(&org, &bot, &token).await["user_identifier"], "alice.smith+guard@example.com");
}

#[tokio::test]
async fn address_that_is_no_identifier_gets_no_token_and_is_told_why() {
    let (service, org, _) = start().await;
    let person = person("o'brien@example.com");
    service.join(&org.id, &person, &[Role::Member]).await;
    let member = service.sign_in(&person).await;
    let reason = "Your address cannot be a user identifier";
    let list = member.get(&org.page("my-tokens")).await;
    assert_page(&list, 200);
    assert_shows(&list, &[reason]);
    assert_hides(&list, &["Issue Token"]);
    assert_shows(&member.get(&org.page("my-tokens/issue")).await, &[reason]);
    let answer = issue(&member, &org).await;
    assert_page(&answer, 403);
    assert_shows(&answer, &[reason]);
    assert_hides(&answer, &["tg_org_"]);
}

#[tokio::test]
async fn removal_of_the_member_ends_own_tokens_at_the_next_use() {
    let (service, org, bot) = start().await;
    let (alice, bob) = (service.member(&org, &[Role::Member]).await, service.member(&org, &[Role::Manager]).await);
    let address = alice.person.email.expose();
    let own = [issued_token(&issue(&alice, &org).await), issued_token(&issue(&alice, &org).await)];
    // Tokens that others issued for this person stay, and so do those of other members.
    let given = service.issue(&org, &bot, address).await;
    let bobs = issued_token(&issue(&bob, &org).await);
    for token in own.iter().chain([&given.token, &bobs]) {
        assert_active(&service, &org, &bot, token, true).await;
    }
    assert_eq!(service.listed_ids(&org, &bot, "").await.len(), 4);

    remove(&service, &org, &alice).await;
    for token in &own {
        assert_active(&service, &org, &bot, token, false).await;
    }
    for token in [&given.token, &bobs] {
        assert_active(&service, &org, &bot, token, true).await;
    }
    // No list of active tokens has them; the list of all does.
    assert_eq!(service.listed_ids(&org, &bot, "").await.len(), 2);
    assert_eq!(
        service.listed_ids(&org, &bot, &format!("?user_identifier={address}")).await,
        std::slice::from_ref(&given.id)
    );
    let all = service.list(&org, &bot, "?status=all").await;
    let states: Vec<&Value> = all["tokens"].as_array().unwrap().iter().map(|token| &token["status"]).collect();
    assert_eq!((states.len(), states.iter().filter(|state| ***state == "revoked").count()), (4, 2));
    let page = bob.get(&org.page(&format!("tokens?prefix={address}"))).await;
    assert_shows(&page, &[&given.token[..11]]);
    assert_hides(&page, &[&own[0][..11], &own[1][..11]]);
    // Nor are they counted.
    let body = json!({"user_identifier": address, "dry_run": true});
    let dry = service.post(&org.org_user_tokens("/revoke-by-user"), &bot.credential, &body).await.json();
    assert_eq!((&dry["matched"], ids(&dry["would_revoke"])), (&json!(1), vec![given.id.clone()]));
    // Revoking one says so in the item too.
    let dead = all["tokens"].as_array().unwrap().iter().find(|token| token["status"] == "revoked").unwrap();
    let path = org.org_user_tokens(&format!("/by-id/{}", dead["id"].as_str().unwrap()));
    assert_eq!(service.call(Method::DELETE, &path, &bot.credential).await.status, 204);
    assert_eq!(service.listed_ids(&org, &bot, "?status=revoked").await.len(), 1);
    // The person's pages are gone.
    assert_eq!(alice.get(&org.page("my-tokens")).await.status, 303);
}

#[tokio::test]
async fn person_who_joins_again_gets_no_old_token_back() {
    let (service, org, bot) = start().await;
    let alice = service.member(&org, &[Role::Member]).await;
    let old = issued_token(&issue(&alice, &org).await);
    let old_id = only_id(&alice, &org).await;
    remove(&service, &org, &alice).await;
    service.join(&org.id, &alice.person, &[Role::Owner]).await;
    assert_active(&service, &org, &bot, &old, false).await;
    assert_shows(&alice.get(&org.page("my-tokens")).await, &["You have no tokens"]);
    assert_page(&alice.get(&org.page(&format!("my-tokens/{old_id}/revoke"))).await, 404);
    let new = issued_token(&issue(&alice, &org).await);
    assert_active(&service, &org, &bot, &new, true).await;
    assert_active(&service, &org, &bot, &old, false).await;
    assert_eq!(service.listed_ids(&org, &bot, "").await, [only_id(&alice, &org).await]);
}

#[tokio::test]
async fn changed_roles_leave_own_tokens_alone() {
    let (service, org, bot) = start().await;
    let alice = service.member(&org, &[Role::Manager]).await;
    let token = issued_token(&issue(&alice, &org).await);
    let member = service.store.membership(alice.person.id, &org.id).await.unwrap().unwrap();
    let by = operator();
    let change = service.store.set_member_roles(&org.id, &member.id, &[Role::Member], Authority::Operator, &by);
    assert_eq!(change.await.unwrap(), MemberChange::Done);
    assert_active(&service, &org, &bot, &token, true).await;
    // Neither does the end of the session that issued it.
    service.store.end_own_sessions(alice.person.id, &operator()).await.unwrap();
    assert_active(&service, &org, &bot, &token, true).await;
}

#[tokio::test]
async fn binding_is_to_the_person_and_not_to_the_address() {
    let (service, org, bot) = start().await;
    let alice = service.member(&org, &[Role::Member]).await;
    let token = issued_token(&issue(&alice, &org).await);
    // The same address, verified by an identity provider, is another person and another member.
    let email = EmailAddress::try_from(alice.person.email.expose().to_owned()).unwrap();
    let other = Person::of_provider("https://idp.example", "alice", email);
    service.join(&org.id, &other, &[Role::Member]).await;
    let other = service.sign_in(&other).await;
    assert_shows(&other.get(&org.page("my-tokens")).await, &["You have no tokens"]);
    let id = only_id(&alice, &org).await;
    assert_page(&other.get(&org.page(&format!("my-tokens/{id}/revoke"))).await, 404);
    assert_page(&other.submit(&org.page(&format!("my-tokens/{id}/revoke")), &[]).await, 404);
    remove(&service, &org, &alice).await;
    assert_active(&service, &org, &bot, &token, false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn member_who_is_removed_while_minting_in_a_loop_holds_nothing_active_a_second_later() {
    let service = Service::start().await;
    let (org, bot) = service.org_with_owner().await;
    let alice = service.member(&org, &[Role::Member]).await;
    let stop = AtomicBool::new(false);
    let mint = async || {
        let mut tokens = Vec::new();
        while !stop.load(Ordering::SeqCst) {
            let answer = issue(&alice, &org).await;
            if answer.status == 200 {
                tokens.push(issued_token(&answer));
            } else {
                assert!([303, 404, 503].contains(&answer.status.as_u16()), "{} {}", answer.status, answer.text);
            }
        }
        tokens
    };
    let cut = async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        remove(&service, &org, &alice).await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        stop.store(true, Ordering::SeqCst);
    };
    let (minted, ()) = join(join_all((0..4).map(|_| mint())), cut).await;
    let minted: Vec<String> = minted.into_iter().flatten().collect();
    assert!(!minted.is_empty());
    for token in &minted {
        assert_eq!(service.probe(&org, &bot, token).await["active"], false);
        assert_eq!(service.whoami(token).await.status, 401);
    }
    assert!(service.listed_ids(&org, &bot, "").await.is_empty());
}

#[tokio::test]
async fn token_whose_member_is_removed_between_form_and_commit_is_taken_back() {
    let (service, faults) = Service::start_with_faults().await;
    let (org, bot) = service.org_with_owner().await;
    let first = service.member(&org, &[Role::Member]).await;
    faults.arm(0, &[], None);
    assert_eq!(issue(&first, &org).await.status, 200);
    let reads = faults.disarm().iter().position(|call| call == "TransactWriteItems").unwrap();
    let second = service.member(&org, &[Role::Member]).await;
    faults.arm(reads, &[Fault::Held], None);
    let cut = async {
        faults.reached(reads + 1).await;
        remove(&service, &org, &second).await;
        faults.release();
    };
    let (answer, ()) = join(issue(&second, &org), cut).await;
    faults.disarm();
    assert_eq!(answer.status, 303, "{}", answer.text);
    assert_hides(&answer, &["tg_org_"]);
    assert_eq!(service.listed_ids(&org, &bot, "").await.len(), 1);
    assert_eq!(service.listed_ids(&org, &bot, "?status=revoked").await.len(), 1);
}

#[tokio::test]
async fn use_fails_closed_while_the_membership_cannot_be_read() {
    let (service, faults) = Service::start_with_faults().await;
    let (org, _) = service.org_with_owner().await;
    let token = issued_token(&issue(&service.member(&org, &[Role::Member]).await, &org).await);
    faults.arm(1, &[Fault::Throttled], Some(Fault::Throttled));
    let answer = service.whoami(&token).await;
    faults.disarm();
    assert_eq!(answer.status, 503, "{}", answer.text);
}

#[tokio::test]
async fn only_own_tokens_are_listed_and_revoked() {
    let (service, org, bot) = start().await;
    let (alice, bob) = (service.member(&org, &[Role::Owner]).await, service.member(&org, &[Role::Member]).await);
    let address = alice.person.email.expose();
    let given = service.issue(&org, &bot, address).await;
    let own = issued_token(&issue(&alice, &org).await);
    let id = only_id(&alice, &org).await;
    assert_hides(&alice.get(&org.page("my-tokens")).await, &[&given.token[..11]]);
    let (other_org, other_bot) = service.org_with_owner().await;
    let foreign = service.issue(&other_org, &other_bot, address).await;
    for (member, org_in_path, id) in [
        (&alice, &org, given.id.as_str()),
        (&alice, &org, &foreign.id),
        (&alice, &other_org, &foreign.id),
        (&alice, &other_org, &id),
        (&bob, &org, &id),
        (&alice, &org, "01KAJ8M4R2X7Z9V5T3Q1N6P8WC"),
        (&alice, &org, "nonsense"),
    ] {
        let path = org_in_path.page(&format!("my-tokens/{id}/revoke"));
        assert_page(&member.get(&path).await, 404);
        assert_page(&member.submit(&path, &[]).await, 404);
    }
    for page in ["my-tokens", "my-tokens/issue"] {
        assert_page(&alice.get(&other_org.page(page)).await, 404);
    }
    assert_page(&issue(&alice, &other_org).await, 404);
    for token in [&own, &given.token] {
        assert_active(&service, &org, &bot, token, true).await;
    }
}

#[tokio::test]
async fn own_tokens_have_50_a_page_among_many_that_others_issued() {
    let service = Service::start_with_manual_clock().await;
    let (org, bot) = service.org_with_owner().await;
    let alice = service.member(&org, &[Role::Member]).await;
    let address = alice.person.email.expose().to_owned();
    let given = service.issue(&org, &bot, &address).await;
    service.table.copies(&given, vec![address.clone(); 150]).await;
    for _ in 0..51 {
        issued_token(&issue(&alice, &org).await);
    }
    service.table.copies(&given, vec![address; 150]).await;
    let first = alice.get(&org.page("my-tokens")).await;
    let count = |answer: &Answer| answer.text.matches("/revoke\"").count();
    assert_eq!(count(&first), 50);
    let next = first.text.split_once("\" rel=\"next\">").unwrap().0.rsplit_once("href=\"").unwrap().1;
    let second = alice.get(&unescaped(next)).await;
    assert_eq!(count(&second), 1);
    assert_shows(&second, &[">First page</a>"]);
    assert_page(&alice.get(&org.page("my-tokens?cursor=nonsense")).await, 400);
}

#[tokio::test]
async fn without_guard_own_tokens_are_listed_and_revoked_but_not_issued() {
    let service = Service::start_with_manual_clock().await;
    let org = service.org().await;
    let alice = service.member(&org, &[Role::Member]).await;
    let token = issued_token(&issue(&alice, &org).await);
    let off = "Guard is not active for this organization";
    let suspended = "The operator of this service has suspended this organization";
    for (refused, (reason, guard)) in [(off, false), (suspended, true)].into_iter().enumerate() {
        service.set_guard(&org.id, guard).await;
        service.store.set_suspended(&org.id, guard, &operator()).await.unwrap().unwrap();
        let list = alice.get(&org.page("my-tokens")).await;
        assert_page(&list, 200);
        assert_shows(&list, &[&token[..11], reason, ">Revoke<"]);
        assert_hides(&list, &["Issue Token"]);
        assert_shows(&alice.get(&org.page("my-tokens/issue")).await, &[reason]);
        let answer = issue(&alice, &org).await;
        assert_page(&answer, 403);
        assert_shows(&answer, &[reason]);
        let entries = service.table.audited_tokens(&org.id).await;
        assert_eq!(entries.iter().filter(|entry| text(entry, "outcome") == "refused").count(), refused + 1);
    }
    let id = only_id(&alice, &org).await;
    assert_eq!(alice.submit(&org.page(&format!("my-tokens/{id}/revoke")), &[]).await.status, 303);
}

#[tokio::test]
async fn malformed_expiry_is_named_beside_the_field() {
    let service = Service::start_with_manual_clock().await;
    let org = service.org().await;
    let alice = service.member(&org, &[Role::Member]).await;
    for (expiry, date, error) in [
        ("date", "", "Enter a date."),
        ("date", "2026-11-20", "Enter a date that is not in the past."),
        ("", "", "Choose when it expires."),
    ] {
        let fields = [("expiry", expiry), ("expiry_date", date)];
        let answer = alice.submit(&org.page("my-tokens/issue"), &fields).await;
        assert_page(&answer, 400);
        let error = format!(r#"id="expiry-error"><span class="hide">Error: </span>{error}"#);
        assert_shows(&answer, &[&error, &format!(r#"name="expiry_date" value="{date}""#)]);
    }
    assert_shows(&alice.get(&org.page("my-tokens")).await, &["You have no tokens"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn form_that_is_sent_again_issues_one_token() {
    let service = Service::start_with_manual_clock().await;
    let (org, bot) = service.org_with_owner().await;
    let alice = service.member(&org, &[Role::Member]).await;
    let (path, form_token) = (org.page("my-tokens/issue"), alice.form_token());
    let fields = [("expiry", "7"), ("expiry_date", "")];
    let mut answers = join_all((0..10).map(|_| alice.submit_with(&form_token, &path, &fields))).await;
    answers.push(alice.submit_with(&form_token, &path, &fields).await);
    let (issued, repeated): (Vec<&Answer>, Vec<&Answer>) = answers.iter().partition(|answer| answer.status == 200);
    assert_eq!((issued.len(), repeated.len()), (1, 10));
    let ids = service.listed_ids(&org, &bot, "").await;
    assert_eq!(ids.len(), 1);
    for answer in repeated {
        assert_page(answer, 409);
        assert_shows(answer, &[&ids[0]]);
        assert_hides(answer, &["tg_org_"]);
    }
}

#[tokio::test]
async fn forms_of_other_sites_and_sessions_are_refused() {
    let service = Service::start_with_manual_clock().await;
    let (org, bot) = service.org_with_owner().await;
    let (alice, bob) = (service.member(&org, &[Role::Owner]).await, service.member(&org, &[Role::Owner]).await);
    let token = issued_token(&issue(&alice, &org).await);
    let id = only_id(&alice, &org).await;
    for page in ["my-tokens/issue", &format!("my-tokens/{id}/revoke")] {
        let path = org.page(page);
        for form_token in ["", bob.form_token().as_str(), &"0".repeat(80)] {
            let request = alice.request(Method::POST, &path).form(&[("form_token", form_token), ("expiry", "7")]);
            assert_page(&service.send(request).await, 403);
        }
        let own = alice.form_token();
        for headers in [&[][..], &[("sec-fetch-site", "cross-site")], &[("origin", "https://evil.example")]] {
            let request = service.request(Method::POST, &path).header("cookie", alice.cookie());
            let request = request.form(&[("form_token", own.as_str()), ("expiry", "7")]);
            let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
            assert_page(&service.send(request).await, 403);
        }
    }
    assert_eq!(service.listed_ids(&org, &bot, "").await, [id]);
    assert_eq!(service.probe(&org, &bot, &token).await["active"], true);
}

#[tokio::test]
async fn checking_an_own_token_costs_one_more_read() {
    let service = Service::start_with_manual_clock().await;
    let (org, bot) = service.org_with_owner().await;
    let alice = service.member(&org, &[Role::Member]).await;
    let token = issued_token(&issue(&alice, &org).await);
    let given = service.issue(&org, &bot, "alice-laptop").await;
    let whoami = async |token: &str| {
        // The first use is recorded, the second one is not.
        service.whoami(token).await;
        service.whoami(token).await.cost()
    };
    let (bound, other) = (whoami(&token).await, whoami(&given.token).await);
    assert_eq!((bound.read, bound.write, bound.calls), (2.0, 0.0, 2));
    assert_eq!((other.read, other.write, other.calls), (1.0, 0.0, 1));
    // A list reads each member of its page once.
    let list = async || service.call(Method::GET, &org.org_user_tokens(""), &bot.credential).await.cost();
    let before = list().await;
    issued_token(&issue(&alice, &org).await);
    let after = list().await;
    assert_eq!((after.calls, after.read), (before.calls, before.read + 1.0));
    assert_eq!(before.calls, 5);
}
