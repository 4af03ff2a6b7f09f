//! The account page: language, sessions, signing out, and the invitations of a person.

use std::time::Duration;

use shared::email::{EmailAddress, Language};
use shared::permissions::Role;
use shared::secret::FormToken;
use shared::store::members::{Authority, Invitation};
use tests::console::{Browser, Visitor, hidden, person, unescaped};
use tests::table::text;
use tests::{Answer, Org, Service, operator};

#[track_caller]
fn assert_leads(answer: &Answer, path: &str) {
    assert_eq!((answer.status.as_u16(), answer.header("location")), (303, path), "{}", answer.text);
}

fn path_of(org: &Org) -> String {
    format!("/console/account/invitations/{}", org.id)
}

async fn invite(service: &Service, org: &Org, email: &EmailAddress, roles: &[Role]) -> Invitation {
    service.store.invite_member(&org.id, email, roles, Authority::Operator, &operator()).await.unwrap().unwrap()
}

/// Somebody who is invited to an organization, and signed in.
async fn invited<'a>(service: &'a Service, org: &Org, email: &str, roles: &[Role]) -> (Visitor<'a>, Invitation) {
    let person = person(email);
    let invitation = invite(service, org, &person.email, roles).await;
    (service.sign_in(&person).await, invitation)
}

/// Actions in the organization's audit log about this target, in alphabetical order.
async fn logged(service: &Service, org: &Org, target: &str) -> Vec<String> {
    let log = format!("ORG#{}#AUDIT", org.id);
    let items = service.table.items().await;
    let entries = items.iter().filter(|item| text(item, "pk") == log && item["target"]["id"] == target);
    let mut logged: Vec<_> =
        entries.map(|item| format!("{} {}", text(&item["actor"], "kind"), text(item, "action"))).collect();
    logged.sort();
    logged
}

async fn is_signed_in(visitor: &Visitor<'_>) -> bool {
    visitor.get("/console/account").await.status == 200
}

#[tokio::test]
async fn account_shows_organizations_and_sessions() {
    let service = Service::start_with_manual_clock().await;
    let org = service.org().await;
    let alice = service.member(&org, &[Role::Owner, Role::Member]).await;
    service.clock.advance(Duration::from_secs(60));
    service.sign_in(&alice.person).await;
    service.member(&org, &[Role::Owner]).await;
    let page = alice.get("/console/account").await;
    for shown in [
        "My account",
        alice.person.email.expose(),
        &format!("href=\"/console/o/{}\">Example<", org.id),
        ">Owner<",
        ">Sign out everywhere<",
        "Test/1.0",
        "2026-11-21T10:00:00Z",
        "2026-11-21T10:01:00Z",
    ] {
        assert!(page.text.contains(shown), "{shown}: {}", page.text);
    }
    assert_eq!(page.text.matches("Test/1.0").count(), 2, "somebody else's session is shown");
    assert_eq!(page.text.matches(">This session<").count(), 1);
    assert!(!page.text.contains(alice.secret.expose()));
}

#[tokio::test]
async fn what_a_browser_says_about_itself_is_shown_as_text() {
    let service = Service::start_with_manual_clock().await;
    let org = service.org().await;
    let alice = service.member(&org, &[Role::Owner]).await;
    let evil = "<script>alert(1)</script>\u{202e}";
    service.store.start_session(&alice.person, Some(evil), &operator()).await.unwrap();
    let page = alice.get("/console/account").await;
    assert!(!page.text.contains("<script>alert") && unescaped(&page.text).contains("<script>alert(1)"));
}

#[tokio::test]
async fn language_of_the_account_comes_before_that_of_the_browser_and_stays() {
    let service = Service::start_with_manual_clock().await;
    let org = service.org().await;
    let alice = service.member(&org, &[Role::Owner]).await;
    let page = async |visitor: &Visitor<'_>, languages: &str| {
        let request = visitor.request(reqwest::Method::GET, "/console/account");
        service.send(request.header("accept-language", languages)).await.text
    };
    assert!(page(&alice, "ja").await.contains("<html lang=\"ja\">"));
    assert!(page(&alice, "en").await.contains("<html lang=\"en\">"));
    let saved = alice.submit("/console/account/language", &[("language", "ja")]).await;
    assert_leads(&saved, "/console/account?saved");
    let shown = alice.get("/console/account?saved").await.text;
    assert!(shown.contains("言語を保存しました。") && shown.contains("value=\"ja\" checked"), "{shown}");
    assert!(page(&alice, "en").await.contains("<html lang=\"ja\">"));
    // Also in the next session, and not for others.
    assert_eq!(service.sign_in(&alice.person).await.session.language, Some(Language::Ja));
    assert!(page(&service.member(&org, &[Role::Owner]).await, "en").await.contains("<html lang=\"en\">"));
    let refused = alice.submit("/console/account/language", &[("language", "fr")]).await;
    assert_eq!(refused.status, 400, "{}", refused.text);
}

#[tokio::test]
async fn stolen_cookie_is_dead_after_signing_out() {
    let service = Service::start_with_manual_clock().await;
    let org = service.org().await;
    let alice = service.member(&org, &[Role::Owner]).await;
    let other = service.sign_in(&alice.person).await;
    let signed_out = alice.submit("/console/sign-out", &[]).await;
    assert_leads(&signed_out, "/console/sign-in?signed_out");
    assert!(signed_out.header("set-cookie").contains("Max-Age=0"));
    for path in ["/console/account", "/console/organizations", &org.page(""), &org.page("tokens")] {
        assert_leads(&alice.get(path).await, &format!("/console/sign-in?return_to={path}"));
    }
    for path in ["/console/sign-out", "/console/account/language", &org.page("tokens/issue")] {
        assert_leads(&alice.submit(path, &[("language", "ja")]).await, "/console/sign-in");
    }
    assert!(is_signed_in(&other).await);
    let id = alice.session.id.as_str();
    assert_eq!(logged(&service, &org, id).await, ["member session.end", "member session.start"]);
}

#[tokio::test]
async fn signing_out_everywhere_ends_every_own_session() {
    let service = Service::start_with_manual_clock().await;
    let org = service.org().await;
    let alice = service.member(&org, &[Role::Owner]).await;
    let (other, bobby) = (service.sign_in(&alice.person).await, service.member(&org, &[Role::Owner]).await);
    let ended = alice.submit("/console/account/sign-out-everywhere", &[]).await;
    assert_leads(&ended, "/console/sign-in?signed_out");
    assert!(!is_signed_in(&alice).await && !is_signed_in(&other).await);
    assert!(is_signed_in(&bobby).await);
    let member = service.store.membership(alice.person.id, &org.id).await.unwrap().unwrap();
    assert!(logged(&service, &org, member.id.as_str()).await.contains(&"member session.end".to_owned()));
}

#[tokio::test]
async fn forms_of_the_account_need_the_token_of_the_session() {
    let service = Service::start_with_manual_clock().await;
    let org = service.org().await;
    let (alice, mallory) = (service.member(&org, &[Role::Owner]).await, service.member(&org, &[Role::Owner]).await);
    let (dave, invitation) = invited(&service, &org, "dave@example.com", &[Role::Member]).await;
    let foreign = mallory.form_token();
    let earlier = service.sign_in(&alice.person).await.form_token();
    for path in ["/console/account/language", "/console/account/sign-out-everywhere", "/console/sign-out"] {
        for token in [&foreign, &earlier] {
            let refused = alice.submit_with(token, path, &[("language", "ja")]).await;
            assert!(refused.status == 403 && refused.text.contains("The form could not be accepted"), "{path}");
        }
        let without = alice.request(reqwest::Method::POST, path).form(&[("language", "ja")]);
        assert_eq!(service.send(without).await.status, 403, "{path}");
    }
    let fields = [("invitation", invitation.id.as_str())];
    assert_eq!(dave.submit_with(&foreign, &path_of(&org), &fields).await.status, 403);
    assert!(is_signed_in(&alice).await);
    assert_eq!(service.sign_in(&alice.person).await.session.language, None);
    assert_eq!(service.store.membership(dave.person.id, &org.id).await.unwrap(), None);
    assert!(FormToken::verify(&alice.secret, alice.form_token().as_str()).is_some());
}

#[tokio::test]
async fn invitation_names_organization_inviter_and_roles_and_is_accepted() {
    let service = Service::start_with_manual_clock().await;
    let org = service.org().await;
    let owner = service.member(&org, &[Role::Owner]).await;
    let dave = person("dave@example.com");
    let member = service.store.membership(owner.person.id, &org.id).await.unwrap().unwrap();
    let by = Authority::Member(&member);
    let roles = [Role::Manager, Role::Member];
    let invitation = service.store.invite_member(&org.id, &dave.email, &roles, by, &operator()).await.unwrap().unwrap();
    let dave = service.sign_in(&dave).await;
    let page = dave.get(&path_of(&org)).await;
    for shown in [
        "Join Example?",
        owner.person.email.expose(),
        ">Guard manager<",
        "2026-11-28T10:00:00Z",
        ">Accept<",
        ">Not now<",
    ] {
        assert!(unescaped(&page.text).contains(shown), "{shown}: {}", page.text);
    }
    assert_eq!(hidden(&page.text, "invitation"), invitation.id.as_str());
    // Looking at it joins nobody.
    assert_eq!(service.store.membership(dave.person.id, &org.id).await.unwrap(), None);
    assert_eq!(dave.get(&org.page("")).await.status, 404);
    let accepted = dave.submit(&path_of(&org), &[("invitation", invitation.id.as_str())]).await;
    assert_leads(&accepted, &org.page(""));
    let joined = service.store.membership(dave.person.id, &org.id).await.unwrap().unwrap();
    assert!(joined.id == invitation.id && joined.roles.contains(Role::Manager));
    assert_eq!(logged(&service, &org, joined.id.as_str()).await, ["member member.join", "operator member.invite"]);
    // Sent again: it is used up.
    assert_eq!(dave.submit(&path_of(&org), &[("invitation", invitation.id.as_str())]).await.status, 404);
    assert_eq!(dave.get(&path_of(&org)).await.status, 404);
}

#[tokio::test]
async fn invitation_is_only_for_its_address_and_as_it_was_shown() {
    let service = Service::start_with_manual_clock().await;
    let (org, other) = (service.org().await, service.org().await);
    let (dave, shown) = invited(&service, &org, "dave@example.com", &[Role::Member]).await;
    let mallory = service.member(&other, &[Role::Owner]).await;
    let fields = |invitation: &Invitation| [("invitation", invitation.id.to_string())];
    let accept = async |visitor: &Visitor<'_>, org: &Org, invitation: &Invitation| {
        let [(name, id)] = fields(invitation);
        visitor.submit(&path_of(org), &[(name, &id)]).await.status.as_u16()
    };
    // Somebody else, another organization, and made-up IDs.
    assert_eq!(mallory.get(&path_of(&org)).await.status, 404);
    assert_eq!(accept(&mallory, &org, &shown).await, 404);
    assert_eq!(accept(&dave, &other, &shown).await, 404);
    for path in
        ["/console/account/invitations/OG1", "/console/account/invitations/x%2f..", "/console/account/invitations/%00"]
    {
        assert_eq!(dave.get(path).await.status, 404, "{path}");
        assert_eq!(dave.submit(path, &[("invitation", shown.id.as_str())]).await.status, 404, "{path}");
    }
    for invitation in ["", "MB1", "<script>"] {
        assert_eq!(dave.submit(&path_of(&org), &[("invitation", invitation)]).await.status, 404);
    }
    // Roles that the person has not seen are not accepted.
    let newer = invite(&service, &org, &dave.person.email, &[Role::Owner]).await;
    assert_eq!(accept(&dave, &org, &shown).await, 404);
    assert_eq!(service.store.membership(dave.person.id, &org.id).await.unwrap(), None);
    // Withdrawn, and lapsed.
    service.store.remove_member(&org.id, &newer.id, Authority::Operator, &operator()).await.unwrap();
    assert_leads(&dave.get("/console/organizations").await, "/console/sign-in?return_to=/console/organizations");
    assert_eq!(accept(&dave, &org, &newer).await, 404);
    let lapsed = invite(&service, &org, &dave.person.email, &[Role::Owner]).await;
    service.clock.advance(Duration::from_secs(7 * 24 * 60 * 60));
    let dave = service.sign_in(&dave.person).await;
    assert_eq!(accept(&dave, &org, &lapsed).await, 404);
    assert_eq!(service.store.membership(dave.person.id, &org.id).await.unwrap(), None);
}

#[tokio::test]
async fn invitation_sent_ten_times_at_once_joins_once() {
    let service = Service::start_with_manual_clock().await;
    let org = service.org().await;
    let (dave, invitation) = invited(&service, &org, "dave@example.com", &[Role::Owner]).await;
    let (path, fields) = (path_of(&org), [("invitation", invitation.id.as_str())]);
    let answers = futures::future::join_all((0..10).map(|_| dave.submit(&path, &fields))).await;
    assert!(answers.iter().any(|answer| answer.status == 303));
    assert!(answers.iter().all(|answer| [303, 404].contains(&answer.status.as_u16())));
    assert_eq!(logged(&service, &org, invitation.id.as_str()).await.len(), 2);
}

#[tokio::test]
async fn nobody_opens_the_account_without_a_session() {
    let service = Service::start_with_manual_clock().await;
    let org = service.org().await;
    let mut browser: Browser<'_> = service.browser();
    for path in ["/console/account", &path_of(&org)] {
        assert_leads(&browser.get(path).await, &format!("/console/sign-in?return_to={path}"));
    }
    for path in ["/console/account/language", "/console/account/sign-out-everywhere", &path_of(&org)] {
        assert_leads(&browser.submit(path, &[("language", "ja")]).await, "/console/sign-in");
    }
}
