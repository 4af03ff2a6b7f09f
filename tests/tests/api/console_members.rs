//! The page of members, and its forms.

use std::time::Duration;

use reqwest::Method;
use serde_json::json;
use shared::email::{EmailAddress, Language};
use shared::ids::MemberId;
use shared::permissions::Role;
use shared::store::mail_limits::MailLimits;
use shared::store::members::{Accepted, Authority, Listed, Member};
use tests::console::{Submission, Visitor, person};
use tests::email::{Kind, kind_of};
use tests::mail_faults::MailFault;
use tests::table::text;
use tests::{Answer, Org, Service, operator, unlimited};

const OWNER: (&str, &str) = ("role", "organization/owner");
const MANAGER: (&str, &str) = ("role", "organization/takumi_manager");
const MEMBER: (&str, &str) = ("role", "organization/member");

async fn membership(visitor: &Visitor<'_>, service: &Service, org: &Org) -> Option<Member> {
    service.store.membership(visitor.person.id, &org.id).await.unwrap()
}

async fn listed(service: &Service, org: &Org) -> Vec<Listed> {
    service.store.members(&org.id, None, 100).await.unwrap().members
}

/// Two owners and a member without further roles.
async fn people(service: &Service) -> (Org, Visitor<'_>, Visitor<'_>, Visitor<'_>) {
    let org = service.org().await;
    let (alice, bobby) = (service.member(&org, &[Role::Owner]).await, service.member(&org, &[Role::Owner]).await);
    let carol = service.member(&org, &[Role::Member]).await;
    (org, alice, bobby, carol)
}

/// Who did what to this target, in alphabetical order.
async fn logged(service: &Service, org: &Org, target: &MemberId) -> Vec<String> {
    let mut entries = service.table.items().await;
    let log = format!("ORG#{}#AUDIT", org.id);
    entries.retain(|item| text(item, "pk") == log && item["target"]["id"] == target.as_str());
    let mut logged: Vec<_> =
        entries.iter().map(|item| format!("{} {}", text(&item["actor"], "kind"), text(item, "action"))).collect();
    logged.sort();
    logged
}

fn assert_leads(answer: &Answer, path: &str) {
    assert_eq!((answer.status.as_u16(), answer.header("location")), (303, path), "{}", answer.text);
}

#[tokio::test]
async fn person_is_invited_and_joins() {
    let service = Service::start_with_manual_clock().await;
    let org = service.org().await;
    let owner = service.member(&org, &[Role::Owner]).await;
    let list = owner.get(&org.page("members")).await;
    for shown in ["Settings", ">Members<", ">Invite Member<", owner.person.email.expose(), ">You<", ">Owner<"] {
        assert!(list.text.contains(shown), "{shown}: {}", list.text);
    }
    let form = owner.get(&org.page("members/invite")).await;
    for role in Role::ALL.iter().filter(|role| role.is_for_people()) {
        assert!(form.text.contains(&format!("value=\"{}\"", role.as_str())), "{}", form.text);
    }
    let dave = person("dave@example.com");
    let invited = owner.submit(&org.page("members/invite"), &[("email", "Dave@Example.com"), MANAGER, MEMBER]).await;
    assert_leads(&invited, &org.page("members?invited"));
    let list = owner.get(invited.header("location")).await;
    for shown in ["The invitation was sent.", "Dave@example.com", "Guard manager", ">Invited<", "2026-11-28T10:00:00Z"]
    {
        assert!(list.text.contains(shown), "{shown}: {}", list.text);
    }
    let invitation = service.store.invitation(&dave.email, &org.id).await.unwrap().unwrap();
    assert_eq!(invitation.inviter.as_ref(), Some(&owner.person.email));
    let accepted = service.store.accept_invitation(&org.id, &invitation.id, &dave, &operator()).await.unwrap();
    let Accepted::Joined(member) = accepted else { panic!("{accepted:?}") };
    assert!(member.roles.contains(Role::Manager) && member.roles.contains(Role::Member));
    assert_eq!(logged(&service, &org, &member.id).await, ["member member.invite", "member member.join"]);
}

#[tokio::test]
async fn invitation_is_mailed_in_the_language_of_who_invites() {
    let service = Service::start_with_manual_clock().await;
    let (org, owner, ..) = people(&service).await;
    let path = org.page("members/invite");
    owner.submit(&path, &[("email", "dave@example.com"), MANAGER]).await;
    let mail = service.person("dave@example.com").newest_mail();
    assert_eq!(kind_of(&mail), (Kind::Invitation, Language::En));
    for shown in ["Example", owner.person.email.expose(), "/console/", "organization/takumi_manager"] {
        assert!(mail.text.contains(shown), "{shown}: {}", mail.text);
    }
    service.store.set_language(owner.secret.hash(), owner.person.id, Language::Ja).await.unwrap();
    owner.submit(&path, &[("email", "erika@example.com"), MANAGER]).await;
    let mail = service.person("erika@example.com").newest_mail();
    assert_eq!(kind_of(&mail), (Kind::Invitation, Language::Ja));
}

#[tokio::test]
async fn organization_mails_at_most_50_invitations_a_day() {
    let service = Service::start_with_manual_clock().await;
    let (org, owner, ..) = people(&service).await;
    for _ in 0..50 {
        let _ = service.store.count_invitation_mail(&org.id, &MailLimits::default()).await.unwrap().unwrap();
    }
    let fields = [("email", "dave@example.com"), MANAGER];
    let refused = owner.submit(&org.page("members/invite"), &fields).await;
    assert_eq!(refused.status, 429, "{}", refused.text);
    assert!(refused.text.contains("Your organization has sent as many invitations as it may today."));
    assert!(refused.text.contains("value=\"dave@example.com\"") && refused.text.contains("takumi_manager\" checked"));
    assert_eq!(service.store.invitation(&person("dave@example.com").email, &org.id).await.unwrap(), None);
    assert!(service.person("dave@example.com").mails().is_empty());
    // Other organizations still do, and this one tomorrow.
    let (other, stranger, ..) = people(&service).await;
    assert_leads(&stranger.submit(&other.page("members/invite"), &fields).await, &other.page("members?invited"));
    service.clock.advance(Duration::from_secs(24 * 60 * 60));
    let owner = service.sign_in(&owner.person).await;
    assert_leads(&owner.submit(&org.page("members/invite"), &fields).await, &org.page("members?invited"));
}

#[tokio::test]
async fn invitation_that_cannot_be_mailed_is_not_left_behind() {
    let (service, ses) = Service::start_with_mail_faults(unlimited()).await;
    let (org, owner, ..) = people(&service).await;
    let dave = person("dave@example.com");
    for fault in [MailFault::Rejected, MailFault::Down, MailFault::LostAfter] {
        ses.fail(fault);
        let failed = owner.submit(&org.page("members/invite"), &[("email", "dave@example.com"), MANAGER]).await;
        assert!(failed.status.is_server_error(), "{fault:?} {}", failed.text);
        assert_eq!(service.store.invitation(&dave.email, &org.id).await.unwrap(), None, "{fault:?}");
        assert_eq!(listed(&service, &org).await.len(), 3);
    }
    ses.recover();
    let invited = owner.submit(&org.page("members/invite"), &[("email", "dave@example.com"), MANAGER]).await;
    assert_leads(&invited, &org.page("members?invited"));
}

/// An owner's invitation takes the place of what SCIM has made or ended. If it cannot be mailed, all
/// is as before.
#[tokio::test]
async fn invitation_that_cannot_be_mailed_takes_nothing_from_scim() {
    let (service, ses) = Service::start_with_mail_faults(unlimited()).await;
    let (org, owner, ..) = people(&service).await;
    let bot = service.bot(&org, &[Role::Scim]).await;
    let provision = async |email: &str| {
        let answer = service.post("/scim/v2/Users", &bot.credential, &json!({"userName": email})).await;
        assert_eq!(answer.status, 201, "{}", answer.text);
        format!("/scim/v2/Users/{}", answer.json()["id"].as_str().unwrap())
    };
    let set_active = async |path: &str, active: bool| {
        let body = json!({"Operations": [{"op": "replace", "value": {"active": active}}]});
        let answer = service.send_json(Method::PATCH, path, &bot.credential, &body).await;
        assert_eq!((answer.status.as_u16(), &answer.json()["active"]), (200, &json!(active)), "{}", answer.text);
    };
    let (dave, erika) = (person("dave@example.com"), person("erika@example.com"));
    let invited = provision("dave@example.com").await;
    let lasting = service.store.invitation(&dave.email, &org.id).await.unwrap();
    assert!(lasting.is_some());
    service.join(&org.id, &erika, &[Role::Manager]).await;
    let ended = provision("erika@example.com").await;
    set_active(&ended, false).await;
    for fault in [MailFault::Rejected, MailFault::Down, MailFault::LostAfter] {
        ses.fail(fault);
        for email in ["dave@example.com", "erika@example.com"] {
            let failed = owner.submit(&org.page("members/invite"), &[("email", email), MANAGER]).await;
            assert!(failed.status.is_server_error(), "{fault:?} {}", failed.text);
        }
        assert_eq!(service.store.invitation(&dave.email, &org.id).await.unwrap(), lasting, "{fault:?}");
        assert_eq!(service.store.invitation(&erika.email, &org.id).await.unwrap(), None, "{fault:?}");
    }
    ses.recover();
    set_active(&invited, true).await;
    set_active(&ended, true).await;
    assert!(service.store.membership(erika.id, &org.id).await.unwrap().unwrap().roles.contains(Role::Manager));
    // A mailed one stays in its place.
    set_active(&ended, false).await;
    for email in ["dave@example.com", "erika@example.com"] {
        let mailed = owner.submit(&org.page("members/invite"), &[("email", email), MANAGER]).await;
        assert_leads(&mailed, &org.page("members?invited"));
        let invitation = service.store.invitation(&person(email).email, &org.id).await.unwrap().unwrap();
        assert!(invitation.expires_at.is_some());
    }
    set_active(&ended, true).await;
    assert_eq!(service.store.membership(erika.id, &org.id).await.unwrap(), None);
}

/// The answer is the same, whatever is known about the address elsewhere.
#[tokio::test]
async fn invitation_does_not_reveal_whether_an_address_is_known() {
    let service = Service::start_with_manual_clock().await;
    let (org, owner, ..) = people(&service).await;
    let other = service.org().await;
    let stranger = service.member(&other, &[Role::Owner]).await;
    for email in ["nobody@example.com", stranger.person.email.expose()] {
        let invited = owner.submit(&org.page("members/invite"), &[("email", email), MEMBER]).await;
        assert_leads(&invited, &org.page("members?invited"));
        let invitation = service.store.invitation(&person(email).email, &org.id).await.unwrap().unwrap();
        let page = owner.get(&org.page(&format!("members/{}", invitation.id))).await;
        assert!(page.text.contains("Invitation ends 2026-11-28T10:00:00Z"), "{}", page.text);
        assert!(!page.text.contains(other.id.as_str()));
    }
}

#[tokio::test]
async fn errors_of_the_form_are_beside_the_field_with_what_was_typed() {
    let service = Service::start_with_manual_clock().await;
    let (org, owner, ..) = people(&service).await;
    let before = service.table.items().await;
    for (fields, message, id) in [
        (&[("email", "alice"), MANAGER][..], "Enter an email address", "email-error"),
        (&[("email", ""), MANAGER], "Enter an email address", "email-error"),
        (&[MANAGER], "Enter an email address", "email-error"),
        (&[("email", "\"><script>@example.com"), MANAGER], "Enter an email address", "email-error"),
        (&[("email", "dave@example.com")], "Select at least one role.", "roles-error"),
        (
            &[("email", "dave@example.com"), ("role", "organization/emperor")],
            "Select at least one role.",
            "roles-error",
        ),
    ] {
        let answer = owner.submit(&org.page("members/invite"), fields).await;
        assert_eq!(answer.status, 400, "{}", answer.text);
        let error = answer.text.split(&format!("id=\"{id}\"")).nth(1).unwrap().split("</p>").next().unwrap();
        assert!(error.contains(message), "{error}");
        assert!(!answer.text.contains("<script>@"), "{}", answer.text);
        if let Some((_, typed)) = fields.iter().find(|(name, typed)| *name == "email" && !typed.contains('"')) {
            assert!(answer.text.contains(&format!("value=\"{typed}\"")), "{}", answer.text);
        }
    }
    assert_eq!(service.table.items().await, before);
}

#[tokio::test]
async fn invitation_is_withdrawn_after_confirmation() {
    let service = Service::start_with_manual_clock().await;
    let (org, owner, ..) = people(&service).await;
    owner.submit(&org.page("members/invite"), &[("email", "dave@example.com"), OWNER]).await;
    let dave = person("dave@example.com");
    let invitation = service.store.invitation(&dave.email, &org.id).await.unwrap().unwrap();
    let page = owner.get(&org.page(&format!("members/{}", invitation.id))).await;
    assert!(page.text.contains("Withdraw invitation") && !page.text.contains("/sign-out\"><input"), "{}", page.text);
    // Its roles are changed by inviting again, and it has no sessions.
    for form in ["roles", "sign-out"] {
        let path = org.page(&format!("members/{}/{form}", invitation.id));
        assert_eq!(owner.submit(&path, &[MEMBER]).await.status, 404, "{form}");
    }
    let path = org.page(&format!("members/{}/remove", invitation.id));
    let asked = owner.get(&path).await;
    assert!(
        asked.text.contains("can no longer be accepted") && asked.text.contains("dave@example.com"),
        "{}",
        asked.text
    );
    assert_leads(&owner.submit(&path, &[]).await, &org.page("members?withdrawn"));
    assert_eq!(service.store.invitation(&dave.email, &org.id).await.unwrap(), None);
    let list = owner.get(&org.page("members?withdrawn")).await;
    assert!(list.text.contains("The invitation was withdrawn.") && !list.text.contains("dave@"), "{}", list.text);
    assert_eq!(owner.submit(&path, &[]).await.status, 404);
}

#[tokio::test]
async fn roles_are_changed_from_the_next_request_on() {
    let service = Service::start_with_manual_clock().await;
    let (org, owner, _, carol) = people(&service).await;
    let member = membership(&carol, &service, &org).await.unwrap();
    assert_eq!(carol.get(&org.page("api-keys")).await.status, 403);
    let path = org.page(&format!("members/{}", member.id));
    let changed = owner.submit(&format!("{path}/roles"), &[("role", "organization/api_key_manager"), MEMBER]).await;
    assert_leads(&changed, &format!("{path}?changed"));
    let page = owner.get(changed.header("location")).await;
    assert!(page.text.contains("The roles were changed."), "{}", page.text);
    for (role, checked) in [("api_key_manager", true), ("member", true), ("owner", false)] {
        assert_eq!(page.text.contains(&format!("value=\"organization/{role}\" checked")), checked, "{role}");
    }
    assert_eq!(carol.get(&org.page("api-keys")).await.status, 200);
    for fields in [&[][..], &[("role", "owner")], &[MEMBER, ("role", "organization/emperor")]] {
        let refused = owner.submit(&format!("{path}/roles"), fields).await;
        assert_eq!(refused.status, 400, "{}", refused.text);
        assert!(refused.text.contains("id=\"roles-error\"") && refused.text.contains("Select at least one role."));
    }
    let now = membership(&carol, &service, &org).await.unwrap();
    assert_eq!((now.revision, now.roles.contains(Role::ApiKeyManager)), (1, true));
    assert!(logged(&service, &org, &member.id).await.contains(&"member member.set_roles".to_owned()));
}

#[tokio::test]
async fn member_is_removed_after_confirmation_and_gone_at_the_next_request() {
    let service = Service::start_with_manual_clock().await;
    let (org, owner, _, carol) = people(&service).await;
    let member = membership(&carol, &service, &org).await.unwrap();
    let path = org.page(&format!("members/{}/remove", member.id));
    let asked = owner.get(&path).await;
    for shown in [carol.person.email.expose(), "Ends the membership and the tokens issued under My tokens"] {
        assert!(asked.text.contains(shown), "{shown}: {}", asked.text);
    }
    assert_eq!(carol.get(&org.page("")).await.status, 200);
    assert_leads(&owner.submit(&path, &[]).await, &org.page("members?removed"));
    assert!(owner.get(&org.page("members?removed")).await.text.contains("The member was removed."));
    // No membership is left.
    assert!(carol.get(&org.page("")).await.header("location").starts_with("/console/sign-in?return_to="));
    for gone in [owner.get(&path).await, owner.submit(&path, &[]).await] {
        assert_eq!(gone.status, 404, "{}", gone.text);
    }
    assert_eq!(
        logged(&service, &org, &member.id).await,
        ["member member.join", "member member.remove", "operator member.invite"]
    );
}

#[tokio::test]
async fn removed_member_of_two_organizations_keeps_the_other_one() {
    let service = Service::start_with_manual_clock().await;
    let (org, owner, _, carol) = people(&service).await;
    let other = service.org().await;
    service.join(&other.id, &carol.person, &[Role::Member]).await;
    let member = membership(&carol, &service, &org).await.unwrap();
    owner.submit(&org.page(&format!("members/{}/remove", member.id)), &[]).await;
    assert_eq!(carol.get(&org.page("")).await.status, 404);
    assert_eq!(carol.get(&other.page("")).await.status, 200);
}

#[tokio::test]
async fn last_owner_is_neither_removed_nor_demoted_and_the_form_says_so() {
    let service = Service::start_with_manual_clock().await;
    let org = service.org().await;
    let owner = service.member(&org, &[Role::Owner]).await;
    let member = membership(&owner, &service, &org).await.unwrap();
    let path = org.page(&format!("members/{}", member.id));
    let before = service.table.items().await;
    for (form, fields) in [("roles", &[MANAGER][..]), ("remove", &[])] {
        let refused = owner.submit(&format!("{path}/{form}"), fields).await;
        assert_eq!(refused.status, 400, "{}", refused.text);
        assert!(refused.text.contains("This is the last owner."), "{}", refused.text);
        assert_eq!(refused.text.contains("takumi_manager\" checked"), form == "roles");
    }
    assert_eq!(service.table.items().await, before);
}

#[tokio::test]
async fn owner_may_step_down_or_leave_while_there_is_another() {
    let service = Service::start_with_manual_clock().await;
    let (org, alice, bobby, _) = people(&service).await;
    let member = membership(&alice, &service, &org).await.unwrap();
    let stepped = alice.submit(&org.page(&format!("members/{}/roles", member.id)), &[MEMBER]).await;
    assert_leads(&stepped, &org.page(""));
    assert_eq!(alice.get(&org.page("")).await.status, 200);
    assert_eq!(alice.get(&org.page("members")).await.status, 403);

    service.member(&org, &[Role::Owner]).await;
    let member = membership(&bobby, &service, &org).await.unwrap();
    assert_leads(&bobby.submit(&org.page(&format!("members/{}/remove", member.id)), &[]).await, "/console/");
    assert_eq!(membership(&bobby, &service, &org).await, None);
}

#[tokio::test]
async fn owners_who_remove_each_other_at_once_leave_one() {
    let service = Service::start_with_manual_clock().await;
    for _ in 0..6 {
        let org = service.org().await;
        let (alice, bobby) = (service.member(&org, &[Role::Owner]).await, service.member(&org, &[Role::Owner]).await);
        let path_of = async |visitor: &Visitor<'_>| {
            org.page(&format!("members/{}/remove", membership(visitor, &service, &org).await.unwrap().id))
        };
        let (of_alice, of_bobby) = (path_of(&alice).await, path_of(&bobby).await);
        let (one, other) = tokio::join!(alice.submit(&of_bobby, &[]), bobby.submit(&of_alice, &[]));
        let mut statuses = [&one, &other].map(|answer| (answer.status.as_u16(), answer.header("location").to_owned()));
        statuses.sort();
        let removed = (303, org.page("members?removed"));
        assert!(statuses.contains(&removed), "{statuses:?}");
        // The other one was removed in the middle of the request, or before it.
        let lost = statuses.iter().find(|status| **status != removed).unwrap();
        assert!(lost.0 == 409 || lost.1.starts_with("/console/sign-in"), "{statuses:?}");
        assert_eq!(listed(&service, &org).await.len(), 1);
    }
}

#[tokio::test]
async fn sign_out_ends_all_sessions_of_the_member_alone() {
    let service = Service::start_with_manual_clock().await;
    let (org, owner, bobby, carol) = people(&service).await;
    let again = service.sign_in(&carol.person).await;
    let member = membership(&carol, &service, &org).await.unwrap();
    let path = org.page(&format!("members/{}", member.id));
    let signed_out = owner.submit(&format!("{path}/sign-out"), &[]).await;
    assert_leads(&signed_out, &format!("{path}?signed_out"));
    assert!(owner.get(signed_out.header("location")).await.text.contains("All sessions of the member were ended."));
    for visitor in [&carol, &again] {
        assert_eq!(visitor.get(&org.page("")).await.status, 303);
    }
    assert_eq!(bobby.get(&org.page("")).await.status, 200);
    assert_eq!(service.sign_in(&carol.person).await.get(&org.page("")).await.status, 200);
    assert!(logged(&service, &org, &member.id).await.contains(&"member session.end".to_owned()));
}

/// Every page and form about one member.
fn requests_about(org: &Org, member: &MemberId) -> Vec<Submission> {
    let page = |rest: &str| org.page(&format!("members/{member}{rest}"));
    vec![
        (Method::GET, page(""), vec![]),
        (Method::GET, page("/remove"), vec![]),
        (Method::POST, page("/roles"), vec![OWNER]),
        (Method::POST, page("/sign-out"), vec![]),
        (Method::POST, page("/remove"), vec![]),
    ]
}

async fn send(visitor: &Visitor<'_>, method: &Method, path: &str, fields: &[(&str, &str)]) -> Answer {
    if *method == Method::GET { visitor.get(path).await } else { visitor.submit(path, fields).await }
}

#[tokio::test]
async fn member_of_another_organization_is_not_found() {
    let service = Service::start_with_manual_clock().await;
    let (org, owner, ..) = people(&service).await;
    let (other, stranger, ..) = people(&service).await;
    let foreign = membership(&stranger, &service, &other).await.unwrap().id;
    let unknown = MemberId::parse("MB01KAJ8M4R2X7Z9V5T3Q1N6P8WC").unwrap();
    let before = service.table.items().await;
    let here = requests_about(&org, &foreign).into_iter().chain(requests_about(&org, &unknown));
    for (method, path, fields) in here.chain(requests_about(&other, &foreign)) {
        let answer = send(&owner, &method, &path, &fields).await;
        assert_eq!(answer.status, 404, "{method} {path}: {}", answer.text);
    }
    let invite = [("email", "dave@example.com"), OWNER];
    assert_eq!(owner.submit(&other.page("members/invite"), &invite).await.status, 404);
    assert_eq!(owner.get(&other.page("members")).await.status, 404);
    assert_eq!(service.table.items().await, before);
}

#[tokio::test]
async fn only_owners_see_and_use_the_page() {
    let service = Service::start_with_manual_clock().await;
    let (org, owner, ..) = people(&service).await;
    let mut requests = requests_about(&org, &membership(&owner, &service, &org).await.unwrap().id);
    requests.extend([
        (Method::GET, org.page("members"), vec![]),
        (Method::GET, org.page("members/invite"), vec![]),
        (Method::POST, org.page("members/invite"), vec![("email", "dave@example.com"), OWNER]),
    ]);
    for &role in Role::ALL.iter().filter(|role| **role != Role::Owner) {
        let visitor = service.member(&org, &[role]).await;
        for (method, path, fields) in &requests {
            let answer = send(&visitor, method, path, fields).await;
            assert_eq!(answer.status, 403, "{role:?} {method} {path}: {}", answer.text);
        }
        assert!(!visitor.get(&org.page("")).await.text.contains(&org.page("members")), "{role:?}");
    }
    let email = EmailAddress::try_from("dave@example.com".to_owned()).unwrap();
    assert_eq!(service.store.invitation(&email, &org.id).await.unwrap(), None);
}

#[tokio::test]
async fn forms_without_the_sessions_own_token_are_refused() {
    let service = Service::start_with_manual_clock().await;
    let (org, owner, bobby, carol) = people(&service).await;
    let about = requests_about(&org, &membership(&carol, &service, &org).await.unwrap().id);
    let invite = (Method::POST, org.page("members/invite"), vec![("email", "dave@example.com"), OWNER]);
    let before = service.table.items().await;
    for (_, path, fields) in about.into_iter().chain([invite]).filter(|(method, ..)| *method == Method::POST) {
        assert_eq!(owner.submit_with(&bobby.form_token(), &path, &fields).await.status, 403, "{path}");
    }
    assert_eq!(service.table.items().await, before);
}

#[tokio::test]
async fn form_that_was_filled_in_before_the_removal_gives_no_rights() {
    let service = Service::start_with_manual_clock().await;
    let (org, alice, bobby, carol) = people(&service).await;
    let token = bobby.form_token();
    let (of_bobby, of_carol) =
        (membership(&bobby, &service, &org).await.unwrap(), membership(&carol, &service, &org).await.unwrap());
    assert_leads(
        &alice.submit(&org.page(&format!("members/{}/remove", of_bobby.id)), &[]).await,
        &org.page("members?removed"),
    );
    for (path, fields) in [
        (org.page("members/invite"), vec![("email", "mallory@example.com"), OWNER]),
        (org.page(&format!("members/{}/roles", of_carol.id)), vec![OWNER]),
    ] {
        assert_leads(&bobby.submit_with(&token, &path, &fields).await, "/console/sign-in");
    }
    assert_eq!(membership(&carol, &service, &org).await, Some(of_carol));
    assert_eq!(listed(&service, &org).await.len(), 2);
}

#[tokio::test]
async fn long_lists_have_pages() {
    let service = Service::start_with_manual_clock().await;
    let org = service.org().await;
    let owner = service.member(&org, &[Role::Owner]).await;
    for number in 0..60 {
        let (email, by) = (person(&format!("person-{number}@example.com")).email, operator());
        let invited = service.store.invite_member(&org.id, &email, &[Role::Member], Authority::Operator, &by);
        invited.await.unwrap().unwrap();
    }
    let first = owner.get(&org.page("members")).await;
    let link = first.text.split(" rel=\"next\"").next().unwrap().rsplit("href=\"").next().unwrap();
    let second = owner.get(link.trim_end_matches('"')).await;
    let rows = |answer: &Answer| answer.text.matches("@example.com</a>").count();
    assert_eq!((rows(&first), rows(&second)), (50, 11), "{link}");
    assert!(!second.text.contains("rel=\"next\"") && second.text.contains(">First page<"), "{}", second.text);
}
