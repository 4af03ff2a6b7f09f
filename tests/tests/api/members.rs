//! Members, invitations and sessions in the store: the rules that every page and `guardctl` rely on,
//! and the races between them.

use std::time::Duration;

use futures::future::join_all;
use shared::email::{EmailAddress, Language};
use shared::permissions::Role;
use shared::person::Person;
use shared::store::members::{Accepted, Authority, Invitation, Listed, Member, MemberChange};
use tests::console::person;
use tests::table::text;
use tests::{Org, Service, operator};

const HOUR: Duration = Duration::from_secs(60 * 60);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

async fn invite(service: &Service, org: &Org, email: &EmailAddress, roles: &[Role]) -> Invitation {
    let invited = service.store.invite_member(&org.id, email, roles, Authority::Operator, &operator()).await;
    invited.unwrap().unwrap()
}

async fn accept(service: &Service, org: &Org, invitation: &Invitation, person: &Person) -> Accepted {
    service.store.accept_invitation(&org.id, &invitation.id, person, &operator()).await.unwrap()
}

async fn remove(service: &Service, member: &Member, authority: Authority<'_>) -> MemberChange {
    service.store.remove_member(&member.org_id, &member.id, authority, &operator()).await.unwrap()
}

async fn set_roles(service: &Service, member: &Member, roles: &[Role], authority: Authority<'_>) -> MemberChange {
    service.store.set_member_roles(&member.org_id, &member.id, roles, authority, &operator()).await.unwrap()
}

async fn listed(service: &Service, org: &Org) -> Vec<Listed> {
    service.store.members(&org.id, None, 100).await.unwrap().members
}

/// The actions in the organization's log on this target, in alphabetical order.
async fn logged(service: &Service, org: &Org, target: &str) -> Vec<String> {
    let mut entries = service.table.items().await;
    entries.retain(|item| text(item, "pk") == format!("ORG#{}#AUDIT", org.id) && item["target"]["id"] == target);
    let mut logged: Vec<String> =
        entries.iter().map(|item| format!("{} {}", text(&item["actor"], "kind"), text(item, "action"))).collect();
    logged.sort();
    logged
}

#[tokio::test]
async fn invited_person_joins_with_the_roles_of_the_invitation() {
    let service = Service::start_with_manual_clock().await;
    let org = service.org().await;
    let alice = person("alice@example.com");
    let invitation = invite(&service, &org, &alice.email, &[Role::Owner, Role::Member]).await;
    assert_eq!(listed(&service, &org).await, [Listed::Invited(invitation.clone())]);
    assert_eq!(service.store.membership(alice.id, &org.id).await.unwrap(), None);
    let Accepted::Joined(member) = accept(&service, &org, &invitation, &alice).await else { panic!() };
    assert_eq!((&member.id, &member.roles), (&invitation.id, &invitation.roles));
    assert_eq!(service.store.membership(alice.id, &org.id).await.unwrap().as_ref(), Some(&*member));
    assert_eq!(listed(&service, &org).await, [Listed::Active(*member.clone())]);
    assert_eq!(service.store.invitation(&alice.email, &org.id).await.unwrap(), None);
    // An invitation is accepted once.
    assert_eq!(accept(&service, &org, &invitation, &alice).await, Accepted::Gone);
    assert_eq!(logged(&service, &org, member.id.as_str()).await, ["member member.join", "operator member.invite"]);
}

#[tokio::test]
async fn invitation_is_only_for_the_verified_address_it_names() {
    let service = Service::start_with_manual_clock().await;
    let (org, other_org) = (service.org().await, service.org().await);
    let (alice, mallory) = (person("alice@example.com"), person("mallory@example.com"));
    let invitation = invite(&service, &org, &alice.email, &[Role::Owner]).await;
    assert_eq!(accept(&service, &org, &invitation, &mallory).await, Accepted::Gone);
    assert_eq!(accept(&service, &other_org, &invitation, &alice).await, Accepted::Gone);
    assert!(service.store.invitations_of(&mallory.email).await.unwrap().is_empty());
    // Case does not matter, nor by which provider the address was verified.
    let upper = EmailAddress::try_from("ALICE@example.com".to_owned()).unwrap();
    let at_provider = Person::of_provider("https://id.example.com", "4711", upper);
    assert!(matches!(accept(&service, &org, &invitation, &at_provider).await, Accepted::Joined(_)));
    assert_eq!(service.store.membership(alice.id, &org.id).await.unwrap(), None);
}

#[tokio::test]
async fn invitation_lapses_after_7_days() {
    let service = Service::start_with_manual_clock().await;
    let org = service.org().await;
    let alice = person("alice@example.com");
    let invitation = invite(&service, &org, &alice.email, &[Role::Owner]).await;
    service.clock.advance(7 * DAY - Duration::from_secs(1));
    assert_eq!(service.store.invitations_of(&alice.email).await.unwrap(), std::slice::from_ref(&invitation));
    service.clock.advance(Duration::from_secs(1));
    assert!(service.store.invitations_of(&alice.email).await.unwrap().is_empty());
    assert_eq!(service.store.member(&org.id, &invitation.id).await.unwrap(), None);
    assert_eq!(listed(&service, &org).await, []);
    assert_eq!(accept(&service, &org, &invitation, &alice).await, Accepted::Gone);
    // DynamoDB may not have deleted it yet: the address can be invited all the same.
    let again = invite(&service, &org, &alice.email, &[Role::Owner]).await;
    assert!(matches!(accept(&service, &org, &again, &alice).await, Accepted::Joined(_)));
}

#[tokio::test]
async fn inviting_again_replaces_the_invitation() {
    let service = Service::start_with_manual_clock().await;
    let org = service.org().await;
    let alice = person("alice@example.com");
    let first = invite(&service, &org, &alice.email, &[Role::Owner]).await;
    let second = invite(&service, &org, &alice.email, &[Role::Member]).await;
    assert_eq!(listed(&service, &org).await, [Listed::Invited(second.clone())]);
    // Who was shown the first one does not get its roles.
    assert_eq!(accept(&service, &org, &first, &alice).await, Accepted::Gone);
    let Accepted::Joined(member) = accept(&service, &org, &second, &alice).await else { panic!() };
    assert!(!member.roles.contains(Role::Owner));
}

#[tokio::test]
async fn pointer_that_outlives_its_lapsed_invitation_harms_no_list() {
    let service = Service::start_with_manual_clock().await;
    let org = service.org().await;
    let email = person("alice@example.com").email;
    let lapsed = invite(&service, &org, &email, &[Role::Member]).await;
    service.clock.advance(8 * DAY);
    // TTL deletes items in any order, up to days later.
    let items = service.table.items().await;
    let item = items.iter().find(|item| item["id"] == lapsed.id.as_str()).unwrap();
    service.table.delete(text(item, "pk"), text(item, "sk")).await;
    let invitation = invite(&service, &org, &email, &[Role::Manager]).await;
    assert_eq!(listed(&service, &org).await, [Listed::Invited(invitation)]);
    service.table.delete(&format!("ORG#{}#MEMBERS", org.id), lapsed.id.as_str()).await;
}

#[tokio::test]
async fn concurrent_invitations_of_one_address_leave_one() {
    let service = Service::start_with_manual_clock().await;
    let org = service.org().await;
    let alice = person("alice@example.com");
    join_all((0..8).map(|_| invite(&service, &org, &alice.email, &[Role::Owner]))).await;
    let left = service.store.invitations_of(&alice.email).await.unwrap();
    assert_eq!(left.len(), 1);
    assert_eq!(listed(&service, &org).await, [Listed::Invited(left[0].clone())]);
}

#[tokio::test]
async fn accepting_at_once_joins_once() {
    let service = Service::start_with_manual_clock().await;
    let org = service.org().await;
    let alice = person("alice@example.com");
    let invitation = invite(&service, &org, &alice.email, &[Role::Owner]).await;
    let accepted = join_all((0..8).map(|_| accept(&service, &org, &invitation, &alice))).await;
    assert_eq!(accepted.iter().filter(|accepted| matches!(accepted, Accepted::Joined(_))).count(), 1, "{accepted:?}");
    assert_eq!(listed(&service, &org).await.len(), 1);
}

#[tokio::test]
async fn accepting_and_withdrawing_at_once_does_one_of_both() {
    let service = Service::start_with_manual_clock().await;
    let org = service.org().await;
    for number in 0..8 {
        let alice = person(&format!("alice-{number}@example.com"));
        let invitation = invite(&service, &org, &alice.email, &[Role::Member]).await;
        let caller = operator();
        let withdrawal = service.store.remove_member(&org.id, &invitation.id, Authority::Operator, &caller);
        let (accepted, withdrawn) = tokio::join!(accept(&service, &org, &invitation, &alice), withdrawal);
        // A removal that comes second removes the member.
        assert_eq!(withdrawn.unwrap(), MemberChange::Done);
        assert!(matches!(accepted, Accepted::Joined(_) | Accepted::Gone), "{accepted:?}");
        assert_eq!(service.store.membership(alice.id, &org.id).await.unwrap(), None);
    }
    assert_eq!(listed(&service, &org).await, []);
}

#[tokio::test]
async fn member_who_is_invited_again_keeps_roles_and_id() {
    let service = Service::start_with_manual_clock().await;
    let org = service.org().await;
    let alice = person("alice@example.com");
    let member = service.join(&org.id, &alice, &[Role::Member]).await;
    let invitation = invite(&service, &org, &alice.email, &[Role::Owner]).await;
    assert_eq!(accept(&service, &org, &invitation, &alice).await, Accepted::AlreadyMember);
    assert_eq!(service.store.membership(alice.id, &org.id).await.unwrap(), Some(member));
    // By another way of signing in, the address belongs to another person.
    let at_provider = Person::of_provider("https://id.example.com", "4711", alice.email.clone());
    assert!(matches!(accept(&service, &org, &invitation, &at_provider).await, Accepted::Joined(_)));
}

#[tokio::test]
async fn people_are_members_of_several_organizations() {
    let service = Service::start_with_manual_clock().await;
    let alice = person("alice@example.com");
    let (first, second) = (service.org().await, service.org().await);
    let there = service.join(&first.id, &alice, &[Role::Owner]).await;
    let here = service.join(&second.id, &alice, &[Role::Member]).await;
    let mut memberships = service.store.memberships(alice.id).await.unwrap();
    memberships.sort_by_key(|member| member.id != there.id);
    assert_eq!(memberships, [there.clone(), here.clone()]);
    assert_eq!(remove(&service, &here, Authority::Operator).await, MemberChange::Done);
    assert_eq!(service.store.memberships(alice.id).await.unwrap(), [there]);
    // The ID of one organization is none in another.
    let foreign = service.store.remove_member(&second.id, &here.id, Authority::Operator, &operator()).await;
    assert_eq!(foreign.unwrap(), MemberChange::NotFound);
}

#[tokio::test]
async fn last_owner_is_neither_removed_nor_demoted() {
    let service = Service::start_with_manual_clock().await;
    let org = service.org().await;
    let alice = service.join(&org.id, &person("alice@example.com"), &[Role::Owner]).await;
    service.join(&org.id, &person("bobby@example.com"), &[Role::Manager]).await;
    for authority in [Authority::Operator, Authority::Member(&alice)] {
        assert_eq!(remove(&service, &alice, authority).await, MemberChange::LastOwner);
        assert_eq!(set_roles(&service, &alice, &[Role::Manager], authority).await, MemberChange::LastOwner);
    }
    // Another role beside it is none that takes it away.
    assert_eq!(
        set_roles(&service, &alice, &[Role::Manager, Role::Owner], Authority::Operator).await,
        MemberChange::Done
    );
    let bobby = service.join(&org.id, &person("carol@example.com"), &[Role::Owner]).await;
    assert_eq!(set_roles(&service, &alice, &[Role::Manager], Authority::Operator).await, MemberChange::Done);
    assert_eq!(remove(&service, &bobby, Authority::Operator).await, MemberChange::LastOwner);
}

#[tokio::test]
async fn owners_who_remove_each_other_at_once_leave_one() {
    let service = Service::start_with_manual_clock().await;
    for _ in 0..8 {
        let org = service.org().await;
        let alice = service.join(&org.id, &person("alice@example.com"), &[Role::Owner]).await;
        let bobby = service.join(&org.id, &person("bobby@example.com"), &[Role::Owner]).await;
        let (one, other) = tokio::join!(
            remove(&service, &bobby, Authority::Member(&alice)),
            remove(&service, &alice, Authority::Member(&bobby))
        );
        let won = [&one, &other].into_iter().filter(|change| **change == MemberChange::Done).count();
        assert_eq!(won, 1, "{one:?} {other:?}");
        assert!([one, other].contains(&MemberChange::CallerChanged));
        assert_eq!(listed(&service, &org).await.len(), 1);
    }
}

#[tokio::test]
async fn owners_who_all_step_down_at_once_leave_one() {
    let service = Service::start_with_manual_clock().await;
    let org = service.org().await;
    let mut owners = Vec::new();
    for number in 0..5 {
        owners.push(service.join(&org.id, &person(&format!("owner-{number}@example.com")), &[Role::Owner]).await);
    }
    let steps = join_all(owners.iter().enumerate().map(async |(number, owner)| {
        if number % 2 == 0 {
            remove(&service, owner, Authority::Member(owner)).await
        } else {
            set_roles(&service, owner, &[Role::Member], Authority::Member(owner)).await
        }
    }));
    let steps = steps.await;
    assert_eq!(steps.iter().filter(|step| **step == MemberChange::LastOwner).count(), 1, "{steps:?}");
    assert_eq!(steps.iter().filter(|step| **step == MemberChange::Done).count(), 4, "{steps:?}");
}

#[tokio::test]
async fn changes_of_an_owner_who_was_cut_off_are_refused() {
    let service = Service::start_with_manual_clock().await;
    let org = service.org().await;
    let alice = service.join(&org.id, &person("alice@example.com"), &[Role::Owner]).await;
    let mallory = service.join(&org.id, &person("mallory@example.com"), &[Role::Owner]).await;
    let carol = service.join(&org.id, &person("carol@example.com"), &[Role::Member]).await;
    let invitation = invite(&service, &org, &person("dave@example.com").email, &[Role::Member]).await;
    assert_eq!(set_roles(&service, &mallory, &[Role::Member], Authority::Member(&alice)).await, MemberChange::Done);
    let cut_off = Authority::Member(&mallory);
    let before = service.table.items().await;
    let refused = MemberChange::CallerChanged;
    assert_eq!(set_roles(&service, &carol, &[Role::Owner], cut_off).await, refused);
    assert_eq!(set_roles(&service, &mallory, &[Role::Owner], cut_off).await, refused);
    assert_eq!(remove(&service, &alice, cut_off).await, refused);
    assert_eq!(remove(&service, &carol, cut_off).await, refused);
    let withdrawn = service.store.remove_member(&org.id, &invitation.id, cut_off, &operator()).await.unwrap();
    assert_eq!(withdrawn, refused);
    let dave = person("eve@example.com").email;
    let invited = service.store.invite_member(&org.id, &dave, &[Role::Owner], cut_off, &operator()).await.unwrap();
    assert_eq!(invited, None);
    assert_eq!(service.table.items().await, before);
}

#[tokio::test]
async fn member_who_left_and_joined_again_is_another_one() {
    let service = Service::start_with_manual_clock().await;
    let org = service.org().await;
    let alice = service.join(&org.id, &person("alice@example.com"), &[Role::Owner]).await;
    let before = service.join(&org.id, &person("mallory@example.com"), &[Role::Owner]).await;
    assert_eq!(remove(&service, &before, Authority::Operator).await, MemberChange::Done);
    let after = service.join(&org.id, &person("mallory@example.com"), &[Role::Owner]).await;
    assert_ne!(before.id, after.id);
    assert_eq!(remove(&service, &before, Authority::Operator).await, MemberChange::NotFound);
    // Both have the same revision, and the first one's right is still gone.
    assert_eq!(remove(&service, &alice, Authority::Member(&before)).await, MemberChange::CallerChanged);
    assert_eq!(remove(&service, &after, Authority::Member(&before)).await, MemberChange::CallerChanged);
    assert_eq!(remove(&service, &alice, Authority::Member(&after)).await, MemberChange::Done);
}

#[tokio::test]
async fn concurrent_role_changes_are_all_counted() {
    let service = Service::start_with_manual_clock().await;
    let org = service.org().await;
    service.join(&org.id, &person("alice@example.com"), &[Role::Owner]).await;
    let bobby = service.join(&org.id, &person("bobby@example.com"), &[Role::Member]).await;
    let roles = [[Role::Owner], [Role::Member], [Role::Owner], [Role::Manager], [Role::Owner], [Role::Member]];
    let changes = join_all(roles.iter().map(|roles| set_roles(&service, &bobby, roles, Authority::Operator))).await;
    assert!(changes.iter().all(|change| *change == MemberChange::Done), "{changes:?}");
    let now = service.store.membership(bobby.person, &org.id).await.unwrap().unwrap();
    assert_eq!(now.revision, 6);
    // The counter of owners is checked at the end.
}

#[tokio::test]
async fn members_are_listed_in_pages_oldest_first() {
    let service = Service::start_with_manual_clock().await;
    let org = service.org().await;
    let mut expected = Vec::new();
    for number in 0..7 {
        service.clock.advance(Duration::from_secs(1));
        let person = person(&format!("member-{number}@example.com"));
        expected.push(if number % 2 == 0 {
            service.join(&org.id, &person, &[Role::Member]).await.id
        } else {
            invite(&service, &org, &person.email, &[Role::Member]).await.id
        });
    }
    let (mut found, mut after) = (Vec::new(), None);
    loop {
        let page = service.store.members(&org.id, after.as_ref(), 3).await.unwrap();
        assert!(page.members.len() <= 3);
        found.extend(page.members.iter().map(|listed| listed.id().clone()));
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(found, expected);
}

#[tokio::test]
async fn session_ends_after_8_idle_hours_and_after_24_in_any_case() {
    let service = Service::start_with_manual_clock().await;
    let alice = person("alice@example.com");
    let visitor = service.sign_in(&alice).await;
    let hash = visitor.secret.hash();
    let session = async || service.store.session(hash).await.unwrap();
    for _ in 0..3 {
        service.clock.advance(6 * HOUR);
        let read = session().await.unwrap();
        service.store.touch_session(hash, &read).await;
    }
    service.clock.advance(6 * HOUR - Duration::from_secs(1));
    assert!(session().await.is_some());
    service.clock.advance(Duration::from_secs(1));
    assert_eq!(session().await, None);
    assert!(service.store.sessions_of(alice.id).await.unwrap().is_empty());

    let idle = service.sign_in(&alice).await;
    service.clock.advance(8 * HOUR - Duration::from_secs(1));
    assert!(service.store.session(idle.secret.hash()).await.unwrap().is_some());
    service.clock.advance(Duration::from_secs(1));
    assert_eq!(service.store.session(idle.secret.hash()).await.unwrap(), None);
    assert!(service.store.sessions_of(alice.id).await.unwrap().is_empty());
}

#[tokio::test]
async fn last_use_of_a_session_is_written_at_most_every_ten_minutes() {
    let service = Service::start_with_manual_clock().await;
    let visitor = service.sign_in(&person("alice@example.com")).await;
    let hash = visitor.secret.hash();
    for (advance, is_written) in [(599, false), (1, true), (599, false), (1, true)] {
        service.clock.advance(Duration::from_secs(advance));
        let before = service.store.session(hash).await.unwrap().unwrap();
        service.store.touch_session(hash, &before).await;
        let after = service.store.session(hash).await.unwrap().unwrap();
        assert_eq!(after.last_used_at != before.last_used_at, is_written);
    }
    // An ended session stays ended.
    let session = service.store.session(hash).await.unwrap().unwrap();
    service.store.end_own_sessions(session.person, &operator()).await.unwrap();
    service.clock.advance(Duration::from_secs(600));
    service.store.touch_session(hash, &session).await;
    assert_eq!(service.store.session(hash).await.unwrap(), None);
}

#[tokio::test]
async fn twenty_first_session_ends_the_oldest() {
    let service = Service::start_with_manual_clock().await;
    let alice = person("alice@example.com");
    let mut visitors = Vec::new();
    for _ in 0..21 {
        service.clock.advance(Duration::from_secs(1));
        visitors.push(service.sign_in(&alice).await);
    }
    let mut active = Vec::new();
    for visitor in &visitors {
        active.push(service.store.session(visitor.secret.hash()).await.unwrap().is_some());
    }
    assert_eq!(active, [&[false][..], &[true; 20]].concat());
    assert_eq!(service.store.sessions_of(alice.id).await.unwrap().len(), 20);
}

#[tokio::test]
async fn signing_out_everywhere_ends_all_sessions_however_many_started_at_once() {
    let service = Service::start_with_manual_clock().await;
    let org = service.org().await;
    let alice = person("alice@example.com");
    let member = service.join(&org.id, &alice, &[Role::Owner]).await;
    for by_owner in [false, true] {
        let visitors = join_all((0..50).map(|_| service.sign_in(&alice))).await;
        let bobby = service.sign_in(&person("bobby@example.com")).await;
        if by_owner {
            service.store.sign_out_member(&member, &operator()).await.unwrap();
        } else {
            service.store.end_own_sessions(alice.id, &operator()).await.unwrap();
        }
        for visitor in &visitors {
            assert_eq!(service.store.session(visitor.secret.hash()).await.unwrap(), None);
        }
        assert!(service.store.session(bobby.secret.hash()).await.unwrap().is_some());
    }
}

#[tokio::test]
async fn one_session_is_ended_by_its_id_and_only_for_its_person() {
    let service = Service::start_with_manual_clock().await;
    let org = service.org().await;
    let alice = person("alice@example.com");
    service.join(&org.id, &alice, &[Role::Owner]).await;
    let (here, there) = (service.sign_in(&alice).await, service.sign_in(&alice).await);
    let (store, id) = (&service.store, &there.session.id);
    assert!(!store.end_session(person("mallory@example.com").id, id, &operator()).await.unwrap());
    assert!(store.session(there.secret.hash()).await.unwrap().is_some());
    assert!(store.end_session(alice.id, id, &operator()).await.unwrap());
    assert!(!store.end_session(alice.id, id, &operator()).await.unwrap());
    assert_eq!(store.session(there.secret.hash()).await.unwrap(), None);
    assert!(store.session(here.secret.hash()).await.unwrap().is_some());
    assert_eq!(logged(&service, &org, id.as_str()).await, ["member session.end", "member session.start"]);
}

#[tokio::test]
async fn sign_out_by_an_owner_shows_nothing_in_other_organizations() {
    let service = Service::start_with_manual_clock().await;
    let (org, other) = (service.org().await, service.org().await);
    let alice = person("alice@example.com");
    let (here, there) =
        (service.join(&org.id, &alice, &[Role::Member]).await, service.join(&other.id, &alice, &[Role::Member]).await);
    let visitor = service.sign_in(&alice).await;
    service.store.sign_out_member(&here, &operator()).await.unwrap();
    assert_eq!(service.store.session(visitor.secret.hash()).await.unwrap(), None);
    let ended =
        async |org: &Org, id: &str| logged(&service, org, id).await.contains(&"operator session.end".to_owned());
    assert!(ended(&org, here.id.as_str()).await);
    assert!(!ended(&other, there.id.as_str()).await && !ended(&other, here.id.as_str()).await);
}

#[tokio::test]
async fn removed_member_is_gone_at_the_next_request_and_sessions_stay_for_other_organizations() {
    let service = Service::start_with_manual_clock().await;
    let (org, other) = (service.org().await, service.org().await);
    let alice = person("alice@example.com");
    let here = service.join(&org.id, &alice, &[Role::Member]).await;
    service.join(&other.id, &alice, &[Role::Member]).await;
    let visitor = service.sign_in(&alice).await;
    assert_eq!(remove(&service, &here, Authority::Operator).await, MemberChange::Done);
    assert_eq!(service.store.membership(alice.id, &org.id).await.unwrap(), None);
    assert!(service.store.session(visitor.secret.hash()).await.unwrap().is_some());
    assert!(service.store.membership(alice.id, &other.id).await.unwrap().is_some());
    assert_eq!(
        logged(&service, &org, here.id.as_str()).await,
        ["member member.join", "operator member.invite", "operator member.remove"]
    );
}

#[tokio::test]
async fn language_is_kept_for_later_sessions() {
    let service = Service::start_with_manual_clock().await;
    let alice = person("alice@example.com");
    let visitor = service.sign_in(&alice).await;
    assert_eq!(visitor.session.language, None);
    let language = Language::Ja;
    service.store.set_language(visitor.secret.hash(), alice.id, language).await.unwrap();
    assert_eq!(service.store.session(visitor.secret.hash()).await.unwrap().unwrap().language, Some(language));
    assert_eq!(service.sign_in(&alice).await.session.language, Some(language));
    assert_eq!(service.sign_in(&person("bobby@example.com")).await.session.language, None);
}
