//! SCIM: what identity providers send when people come, leave and come back, and what ends then.

use futures::future::{join, join_all};
use reqwest::Method;
use serde_json::{Value, json};
use shared::permissions::Role;
use shared::person::Person;
use shared::store::members::{Accepted, Authority, Listed, Member, MemberChange};
use tests::console::{issued_token, person};
use tests::faults::{Call, Fault, Faults};
use tests::table::text;
use tests::{Answer, Bot, Org, Service, operator};

const USERS: &str = "/scim/v2/Users";

/// An identity provider with a bot of an organization that has an owner.
struct Provider<'a> {
    service: &'a Service,
    org: Org,
    bot: Bot,
    owner: Member,
}

impl<'a> Provider<'a> {
    async fn new(service: &'a Service) -> Self {
        let org = service.org().await;
        let bot = service.bot(&org, &[Role::Scim]).await;
        let owner = service.join(&org.id, &person("owner@example.com"), &[Role::Owner]).await;
        Self { service, org, bot, owner }
    }

    async fn send(&self, method: Method, path: &str, body: Option<Value>) -> Answer {
        let request = self.service.request(method, path).bearer_auth(&self.bot.credential);
        let request = request.header("accept", "application/scim+json");
        let request = match body {
            Some(body) => request.header("content-type", "application/scim+json").body(body.to_string()),
            None => request,
        };
        self.service.send(request).await
    }

    async fn create(&self, body: Value) -> Answer {
        self.send(Method::POST, USERS, Some(body)).await
    }

    /// Creates a user. Returns its ID.
    async fn provision(&self, name: &str) -> String {
        let answer = self.create(okta_user(name, true)).await;
        assert_eq!(answer.status, 201, "{}", answer.text);
        text(&answer.json(), "id").to_owned()
    }

    async fn get(&self, id: &str) -> Answer {
        self.send(Method::GET, &format!("{USERS}/{id}"), None).await
    }

    async fn patch(&self, id: &str, body: Value) -> Answer {
        self.send(Method::PATCH, &format!("{USERS}/{id}"), Some(body)).await
    }

    async fn put(&self, id: &str, body: Value) -> Answer {
        self.send(Method::PUT, &format!("{USERS}/{id}"), Some(body)).await
    }

    async fn delete(&self, id: &str) -> Answer {
        self.send(Method::DELETE, &format!("{USERS}/{id}"), None).await
    }

    async fn set_active(&self, id: &str, active: bool) -> Answer {
        self.patch(id, okta_patch(active)).await
    }

    /// Sets whether a user is active, and asserts that it is so.
    async fn must_set_active(&self, id: &str, active: bool) {
        let answer = self.set_active(id, active).await;
        assert_eq!((answer.status.as_u16(), &answer.json()["active"]), (200, &json!(active)), "{}", answer.text);
        assert_eq!(self.get(id).await.json()["active"], active);
    }

    /// The users with this name, as providers look for them before they create one.
    async fn find(&self, name: &str) -> Vec<Value> {
        let filter = format!("userName eq \"{name}\"");
        let query = url::form_urlencoded::Serializer::new(String::new()).append_pair("filter", &filter).finish();
        let answer = self.send(Method::GET, &format!("{USERS}?{query}&startIndex=1&count=100"), None).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
        answer.json()["Resources"].as_array().unwrap().clone()
    }

    async fn membership(&self, person: &Person) -> Option<Member> {
        self.service.store.membership(person.id, &self.org.id).await.unwrap()
    }

    async fn accept(&self, person: &Person) -> Member {
        let store = &self.service.store;
        let invitation = store.invitation(&person.email, &self.org.id).await.unwrap().unwrap();
        match store.accept_invitation(&self.org.id, &invitation.id, person, &operator()).await.unwrap() {
            Accepted::Joined(member) => *member,
            other => panic!("{other:?}"),
        }
    }

    async fn join(&self, person: &Person, roles: &[Role]) -> Member {
        self.service.join(&self.org.id, person, roles).await
    }

    async fn remove(&self, member: &Member) -> MemberChange {
        let by = Authority::Member(&self.owner);
        self.service.store.remove_member(&self.org.id, &member.id, by, &operator()).await.unwrap()
    }

    /// The actions of this bot in the organization's log, oldest first.
    async fn logged(&self) -> Vec<String> {
        let entries = self.service.table.audit_entries(&self.org.id).await;
        let own = entries.iter().filter(|entry| entry["actor"]["id"] == self.bot.id.as_str());
        let mut own: Vec<&Value> = own.collect();
        own.sort_by_key(|entry| text(entry, "id").to_owned());
        let mut actions: Vec<String> = own.iter().map(|entry| text(entry, "action").to_owned()).collect();
        // Entries of one call have one time.
        actions.sort();
        actions
    }
}

/// Whether it reads who is a member at an address, which comes after the invitation.
fn reads_members(call: &Call) -> bool {
    call.operation == "Query" && call.request.to_string().contains("#MEMBERS_AT#")
}

fn writes(call: &Call) -> bool {
    call.operation == "TransactWriteItems"
}

/// Makes a request whose first such call waits until something else has happened.
async fn overtaken(
    faults: &Faults,
    call: fn(&Call) -> bool,
    request: impl Future<Output = Answer>,
    by: impl Future<Output = ()>,
) -> Answer {
    faults.arm_where(call, &[Fault::Held], None);
    let overtake = async {
        while !faults.calls().iter().any(call) {
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        }
        by.await;
        faults.release();
    };
    let (answer, ()) = join(request, overtake).await;
    faults.disarm();
    answer
}

/// A user as Okta creates and replaces it.
fn okta_user(name: &str, active: bool) -> Value {
    json!({
        "schemas": ["urn:ietf:params:scim:schemas:core:2.0:User"],
        "userName": name,
        "name": {"givenName": "Test", "familyName": "User"},
        "emails": [{"primary": true, "value": name, "type": "work"}],
        "displayName": "Test User",
        "locale": "en-US",
        "externalId": "00ujl29u0le5T6Aj10h7",
        "groups": [],
        "password": "1mz050nq",
        "active": active,
    })
}

/// Okta's deactivation and reactivation.
fn okta_patch(active: bool) -> Value {
    json!({
        "schemas": ["urn:ietf:params:scim:api:messages:2.0:PatchOp"],
        "Operations": [{"op": "replace", "value": {"active": active}}],
    })
}

/// A user as Entra ID creates it.
fn entra_user(name: &str) -> Value {
    json!({
        "schemas": [
            "urn:ietf:params:scim:schemas:core:2.0:User",
            "urn:ietf:params:scim:schemas:extension:enterprise:2.0:User",
        ],
        "externalId": "0a21f0f2-8d2a-4f8e-bf98-7363c4aed4ef",
        "userName": name,
        "active": true,
        "emails": [{"primary": true, "type": "work", "value": name}],
        "meta": {"resourceType": "User"},
        "name": {"formatted": "givenName familyName", "familyName": "familyName", "givenName": "givenName"},
        "roles": [],
        "urn:ietf:params:scim:schemas:extension:enterprise:2.0:User": {"department": "R&D"},
    })
}

/// Entra ID's deactivation, beside other changes.
fn entra_patch(active: &str) -> Value {
    json!({
        "schemas": ["urn:ietf:params:scim:api:messages:2.0:PatchOp"],
        "Operations": [
            {"op": "Replace", "path": "emails[type eq \"work\"].value", "value": "updated@example.com"},
            {"op": "Add", "path": "name.familyName", "value": "updatedFamilyName"},
            {"op": "Replace", "path": "active", "value": active},
        ],
    })
}

#[tokio::test]
async fn okta_provisions_deactivates_reactivates_and_replaces_a_user() {
    let service = Service::start_with_manual_clock().await;
    let okta = Provider::new(&service).await;
    let alice = person("test.user@example.com");
    assert!(okta.find("test.user@example.com").await.is_empty());
    let created = okta.create(okta_user("test.user@example.com", true)).await;
    assert_eq!(created.status, 201, "{}", created.text);
    assert_eq!(created.header("content-type"), "application/scim+json");
    let user = created.json();
    let id = text(&user, "id");
    assert!(id.starts_with("MB"));
    let path = format!("{USERS}/{id}");
    let expected = json!({
        "schemas": ["urn:ietf:params:scim:schemas:core:2.0:User"],
        "id": id,
        "externalId": "00ujl29u0le5T6Aj10h7",
        "userName": "test.user@example.com",
        "active": true,
        "emails": [{"value": "test.user@example.com", "type": "work", "primary": true}],
        "meta": {
            "resourceType": "User",
            "created": "2026-11-21T10:00:00Z",
            "lastModified": "2026-11-21T10:00:00Z",
            "location": path,
        },
    });
    assert_eq!(user, expected);
    assert_eq!(created.header("location"), path);
    assert_eq!(okta.get(id).await.json(), expected);
    assert_eq!(okta.find("TEST.user@Example.com").await, [expected]);
    assert!(service.outbox.mails().is_empty());

    let member = okta.accept(&alice).await;
    assert!(member.id.as_str() == id && member.roles.contains(Role::Member) && member.roles.as_slice().len() == 1);
    okta.must_set_active(id, false).await;
    assert_eq!(okta.membership(&alice).await, None);
    okta.must_set_active(id, true).await;
    assert!(okta.membership(&alice).await.is_some());
    // A profile push: the whole user.
    service.clock.advance(std::time::Duration::from_secs(1));
    let mut replaced = okta_user("test.user@example.com", false);
    replaced["id"] = json!(id);
    replaced["externalId"] = json!("other");
    let answer = okta.put(id, replaced).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    assert_eq!((&answer.json()["active"], &answer.json()["externalId"]), (&json!(false), &json!("other")));
    assert_eq!(answer.json()["meta"]["lastModified"], "2026-11-21T10:00:01Z");
    assert_eq!(okta.membership(&alice).await, None);
    assert_eq!(okta.delete(id).await.status, 204);
    okta.get(id).await.assert_scim_error(404, None);
    okta.delete(id).await.assert_scim_error(404, None);
    assert!(okta.find("test.user@example.com").await.is_empty());
    let expected = [
        "member.invite",
        "member.remove",
        "member.remove",
        "member.restore",
        "scim_user.create",
        "scim_user.delete",
        "scim_user.update",
        "scim_user.update",
        "scim_user.update",
    ];
    assert_eq!(okta.logged().await, expected);
}

#[tokio::test]
async fn entra_finds_creates_disables_and_deletes_a_user() {
    let service = Service::start_with_manual_clock().await;
    let entra = Provider::new(&service).await;
    let alice = person("alice@example.com");
    let member = entra.join(&alice, &[Role::Manager]).await;
    assert!(entra.find("Alice@Example.com").await.is_empty());
    // The existing member is found: no invitation, and the roles stay.
    let created = entra.create(entra_user("Alice@Example.com")).await;
    assert_eq!((created.status.as_u16(), text(&created.json(), "id")), (201, member.id.as_str()));
    assert_eq!(entra.membership(&alice).await, Some(member.clone()));
    assert_eq!(service.store.invitation(&alice.email, &entra.org.id).await.unwrap(), None);
    let id = member.id.as_str();
    for disabled in ["False", "false"] {
        let answer = entra.patch(id, entra_patch(disabled)).await;
        assert_eq!((answer.status.as_u16(), &answer.json()["active"]), (200, &json!(false)), "{}", answer.text);
        assert_eq!(answer.json()["emails"][0]["value"], "Alice@example.com");
        assert_eq!(entra.membership(&alice).await, None);
        assert_eq!(entra.find("alice@example.com").await[0]["active"], false);
        let answer = entra.patch(id, entra_patch("True")).await;
        assert_eq!((answer.status.as_u16(), &answer.json()["active"]), (200, &json!(true)), "{}", answer.text);
        assert!(entra.membership(&alice).await.is_some_and(|member| member.roles.contains(Role::Manager)));
    }
    assert_eq!(entra.delete(id).await.status, 204);
    assert_eq!(entra.membership(&alice).await, None);
    // Somebody else with this address, or hired again: nothing of the old membership comes back.
    let again = entra.provision("alice@example.com").await;
    assert_ne!(again, id);
    assert!(!entra.accept(&alice).await.roles.contains(Role::Manager));
}

#[tokio::test]
async fn name_is_unique_without_regard_to_case() {
    let service = Service::start().await;
    let provider = Provider::new(&service).await;
    let id = provider.provision("alice@example.com").await;
    let before = service.table.items_without_audit().await;
    for name in ["alice@example.com", "ALICE@example.COM"] {
        provider.create(okta_user(name, true)).await.assert_scim_error(409, Some("uniqueness"));
        provider.create(okta_user(name, false)).await.assert_scim_error(409, Some("uniqueness"));
    }
    assert_eq!(service.table.items_without_audit().await, before);
    // Once deleted, the name is free. Of several at once, one gets it.
    assert_eq!(provider.delete(&id).await.status, 204);
    let answers = join_all((0..8).map(|_| provider.create(okta_user("alice@example.com", true)))).await;
    let statuses: Vec<u16> = answers.iter().map(|answer| answer.status.as_u16()).collect();
    assert_eq!(statuses.iter().filter(|status| **status == 201).count(), 1, "{statuses:?}");
    assert!(statuses.iter().all(|status| [201, 409].contains(status)), "{statuses:?}");
    assert_eq!(provider.find("alice@example.com").await.len(), 1);
}

#[tokio::test]
async fn leaver_loses_pages_and_own_tokens_at_the_next_use() {
    let service = Service::start_with_manual_clock().await;
    let provider = Provider::new(&service).await;
    let issuer = service.bot(&provider.org, &[Role::Manager]).await;
    let leave = [0, 1, 2];
    for way in leave {
        let alice = person(&format!("alice-{way}@example.com"));
        provider.join(&alice, &[Role::Manager]).await;
        let (first, second) = (service.sign_in(&alice).await, service.sign_in(&alice).await);
        let own = issued_token(&first.submit(&provider.org.page("my-tokens/issue"), &[("expiry", "never")]).await);
        // By name it is the person's, too, but somebody else has issued it.
        let by_name = service.issue(&provider.org, &issuer, alice.email.expose()).await;
        assert_eq!(service.whoami(&own).await.status, 200);
        let id = provider.provision(alice.email.expose()).await;
        assert_eq!(first.get(&provider.org.page("tokens")).await.status, 200);
        match way {
            0 => assert_eq!(provider.set_active(&id, false).await.status, 200),
            1 => assert_eq!(provider.put(&id, okta_user(alice.email.expose(), false)).await.status, 200),
            _ => assert_eq!(provider.delete(&id).await.status, 204),
        }
        assert_eq!(service.whoami(&own).await.status, 401);
        assert_eq!(service.whoami(&by_name.token).await.status, 200);
        for visitor in [&first, &second] {
            assert_eq!(visitor.get(&provider.org.page("tokens")).await.status, 303);
            assert_eq!(service.store.session(visitor.secret.hash()).await.unwrap(), None);
        }
        // Signing in again leads nowhere.
        let again = service.sign_in(&alice).await;
        assert_ne!(again.get(&provider.org.page("tokens")).await.status, 200);
        assert!(service.store.invitations_of(&alice.email).await.unwrap().is_empty());
        if way < 2 {
            provider.must_set_active(&id, true).await;
            assert_eq!(again.get(&provider.org.page("tokens")).await.status, 200);
            // The token stays dead.
            assert_eq!(service.whoami(&own).await.status, 401);
            let listed = format!("?status=active&user_identifier={}", alice.email.expose());
            let listed = service.listed_ids(&provider.org, &issuer, &listed).await;
            assert_eq!(listed, [by_name.id]);
        }
    }
}

#[tokio::test]
async fn memberships_by_every_way_of_signing_in_end() {
    let service = Service::start_with_manual_clock().await;
    let provider = Provider::new(&service).await;
    let by_mail = person("alice@example.com");
    let upper = person("ALICE@example.com").email;
    let by_provider = Person::of_provider("https://id.example.com", "4711", upper);
    let first = provider.join(&by_mail, &[Role::Manager]).await;
    service.clock.advance(std::time::Duration::from_secs(1));
    provider.join(&by_provider, &[Role::ApiKeyManager]).await;
    let (other, _) = service.org_with_owner().await;
    service.join(&other.id, &by_mail, &[Role::Member]).await;
    let id = provider.provision("Alice@example.com").await;
    assert_eq!(id, first.id.as_str());
    // A third one is on its way.
    let store = &service.store;
    let by = Authority::Member(&provider.owner);
    store.invite_member(&provider.org.id, &by_mail.email, &[Role::Owner], by, &operator()).await.unwrap().unwrap();
    let visitors = [service.sign_in(&by_mail).await, service.sign_in(&by_provider).await];
    provider.must_set_active(&id, false).await;
    for (person, visitor) in [&by_mail, &by_provider].into_iter().zip(&visitors) {
        assert_eq!(provider.membership(person).await, None);
        assert_eq!(visitor.get(&provider.org.page("my-tokens")).await.status, 303);
    }
    assert!(store.invitations_of(&by_mail.email).await.unwrap().is_empty());
    assert!(store.membership(by_mail.id, &other.id).await.unwrap().is_some());
    let listed = store.members(&provider.org.id, None, 100).await.unwrap().members;
    assert_eq!(listed, [Listed::Active(provider.owner.clone())]);
    provider.must_set_active(&id, true).await;
    let back = [provider.membership(&by_mail).await.unwrap(), provider.membership(&by_provider).await.unwrap()];
    assert!(back[0].roles.contains(Role::Manager) && back[1].roles.contains(Role::ApiKeyManager));
    assert!(back.iter().all(|member| member.id != first.id));
}

#[tokio::test]
async fn reactivation_gives_no_owner_and_brings_back_nobody_whom_an_owner_removed() {
    let service = Service::start_with_manual_clock().await;
    let provider = Provider::new(&service).await;
    let alice = person("alice@example.com");
    provider.join(&alice, &[Role::Owner, Role::Manager]).await;
    let id = provider.provision("alice@example.com").await;
    provider.must_set_active(&id, false).await;
    provider.must_set_active(&id, true).await;
    let back = provider.membership(&alice).await.unwrap();
    assert!(back.roles.contains(Role::Manager) && !back.roles.contains(Role::Owner));

    // Removed while active; removed after an invitation over what SCIM had ended; withdrawn.
    assert_eq!(provider.remove(&back).await, MemberChange::Done);
    provider.set_active(&id, true).await.assert_scim_error(409, None);
    provider.put(&id, okta_user("alice@example.com", true)).await.assert_scim_error(409, None);
    provider.must_set_active(&id, false).await;
    provider.set_active(&id, true).await.assert_scim_error(409, None);
    assert_eq!(provider.get(&id).await.json()["active"], false);

    let again = provider.join(&alice, &[Role::Manager]).await;
    assert_eq!(provider.get(&id).await.json()["active"], true);
    provider.must_set_active(&id, false).await;
    let again = Member { revision: again.revision, ..provider.join(&alice, &[Role::Member]).await };
    assert_eq!(provider.remove(&again).await, MemberChange::Done);
    provider.set_active(&id, true).await.assert_scim_error(409, None);
    assert_eq!(provider.membership(&alice).await, None);

    let bobby = provider.provision("bobby@example.com").await;
    let store = &service.store;
    let email = person("bobby@example.com").email;
    let invitation = store.invitation(&email, &provider.org.id).await.unwrap().unwrap();
    let by = Authority::Member(&provider.owner);
    let withdrawn = store.remove_member(&provider.org.id, &invitation.id, by, &operator()).await.unwrap();
    assert_eq!(withdrawn, MemberChange::Done);
    provider.set_active(&bobby, true).await.assert_scim_error(409, None);
    assert!(store.invitations_of(&email).await.unwrap().is_empty());
}

/// A person with one account at an OpenID provider, at two addresses of it one after the other.
fn with_two_addresses() -> [Person; 2] {
    let at = |name: &str| Person::of_provider("https://id.example.com", "4711", person(name).email);
    [at("a@example.com"), at("b@example.com")]
}

#[tokio::test]
async fn person_whom_an_owner_removed_at_another_address_is_not_brought_back() {
    let service = Service::start_with_manual_clock().await;
    let provider = Provider::new(&service).await;
    let [at_a, at_b] = with_two_addresses();
    provider.join(&at_a, &[Role::Manager]).await;
    let a = provider.provision("a@example.com").await;
    provider.must_set_active(&a, false).await;
    let member = provider.join(&at_b, &[Role::Member]).await;
    // A member already, by the owner's invitation.
    provider.set_active(&a, true).await.assert_scim_error(409, None);
    assert_eq!(provider.membership(&at_b).await, Some(member.clone()));
    assert_eq!(provider.remove(&member).await, MemberChange::Done);
    provider.set_active(&a, true).await.assert_scim_error(409, None);
    provider.put(&a, okta_user("a@example.com", true)).await.assert_scim_error(409, None);
    // Nor by ending nobody once more.
    provider.must_set_active(&a, false).await;
    provider.set_active(&a, true).await.assert_scim_error(409, None);
    assert_eq!(provider.membership(&at_a).await, None);
    // An owner overrides that.
    provider.join(&at_a, &[Role::Member]).await;
    provider.must_set_active(&a, false).await;
    provider.must_set_active(&a, true).await;
    assert!(provider.membership(&at_a).await.is_some_and(|member| !member.roles.contains(Role::Manager)));
}

#[tokio::test]
async fn person_comes_back_only_with_the_membership_that_ended_last() {
    let service = Service::start_with_manual_clock().await;
    let provider = Provider::new(&service).await;
    let [at_a, at_b] = with_two_addresses();
    let colleague = person("a@example.com");
    provider.join(&at_a, &[Role::Manager]).await;
    provider.join(&colleague, &[Role::ApiKeyManager]).await;
    let a = provider.provision("a@example.com").await;
    provider.must_set_active(&a, false).await;
    let b = provider.provision("b@example.com").await;
    provider.accept(&at_b).await;
    provider.must_set_active(&b, false).await;
    // The other person at the address comes back, without the one who has another address now.
    provider.must_set_active(&a, true).await;
    assert!(provider.membership(&colleague).await.is_some_and(|member| member.roles.contains(Role::ApiKeyManager)));
    assert_eq!(provider.membership(&at_a).await, None);
    provider.must_set_active(&b, true).await;
    let back = provider.membership(&at_b).await.unwrap();
    assert!(back.email == at_b.email && !back.roles.contains(Role::Manager));
}

#[tokio::test]
async fn person_who_joins_and_is_removed_during_the_call_is_not_brought_back() {
    let (service, faults) = Service::start_with_faults().await;
    let provider = Provider::new(&service).await;
    let [at_a, at_b] = with_two_addresses();
    provider.join(&at_a, &[Role::Manager]).await;
    let a = provider.provision("a@example.com").await;
    provider.must_set_active(&a, false).await;
    let join_and_remove = async {
        let member = provider.join(&at_b, &[Role::Member]).await;
        assert_eq!(provider.remove(&member).await, MemberChange::Done);
    };
    // It was decided whom to bring back, and not written yet.
    let answer = overtaken(&faults, writes, provider.set_active(&a, true), join_and_remove).await;
    answer.assert_scim_error(409, None);
    assert_eq!(provider.membership(&at_a).await, None);
}

#[tokio::test]
async fn owner_may_invite_somebody_whom_scim_ended() {
    let service = Service::start_with_manual_clock().await;
    let provider = Provider::new(&service).await;
    let alice = person("alice@example.com");
    provider.join(&alice, &[Role::Manager]).await;
    let id = provider.provision("alice@example.com").await;
    provider.must_set_active(&id, false).await;
    let by = Authority::Member(&provider.owner);
    let invited = service.store.invite_member(&provider.org.id, &alice.email, &[Role::Member], by, &operator()).await;
    let invitation = invited.unwrap().unwrap();
    assert_eq!(provider.get(&id).await.json()["active"], true);
    // Nothing is brought back over it.
    provider.must_set_active(&id, true).await;
    assert_eq!(provider.membership(&alice).await, None);
    assert_eq!(provider.accept(&alice).await.id, invitation.id);
    provider.must_set_active(&id, false).await;
    assert_eq!(provider.membership(&alice).await, None);
}

#[tokio::test]
async fn last_owner_is_409_and_stays_signed_in() {
    let service = Service::start_with_manual_clock().await;
    let provider = Provider::new(&service).await;
    let owner = person("owner@example.com");
    let visitor = service.sign_in(&owner).await;
    provider.create(okta_user("owner@example.com", false)).await.assert_scim_error(409, None);
    assert!(provider.find("owner@example.com").await.is_empty());
    let id = provider.provision("owner@example.com").await;
    let by_provider = Person::of_provider("https://id.example.com", "1", owner.email.clone());
    provider.join(&by_provider, &[Role::Owner]).await;
    // Both owners have this address.
    provider.set_active(&id, false).await.assert_scim_error(409, None);
    provider.put(&id, okta_user("owner@example.com", false)).await.assert_scim_error(409, None);
    provider.delete(&id).await.assert_scim_error(409, None);
    assert!(provider.membership(&owner).await.is_some() && provider.membership(&by_provider).await.is_some());
    assert_eq!(visitor.get(&provider.org.page("members")).await.status, 200);
    provider.join(&person("other@example.com"), &[Role::Owner]).await;
    provider.must_set_active(&id, false).await;
    assert_eq!(provider.membership(&owner).await, None);
}

#[tokio::test]
async fn invitation_of_scim_does_not_lapse_and_names_the_identity_provider() {
    let service = Service::start_with_manual_clock().await;
    let provider = Provider::new(&service).await;
    let alice = person("alice@example.com");
    let id = provider.provision("alice@example.com").await;
    service.clock.advance(std::time::Duration::from_secs(400 * 24 * 60 * 60));
    assert_eq!(provider.get(&id).await.json()["active"], true);
    let visitor = service.sign_in(&alice).await;
    let page = visitor.get(&format!("/console/account/invitations/{}", provider.org.id)).await;
    assert_eq!(page.status, 200);
    assert!(page.text.contains("your organization&#39;s identity provider"), "{}", page.text);
    let owner = service.sign_in(&person("owner@example.com")).await;
    assert!(owner.get(&provider.org.page("members")).await.text.contains("alice@example.com"));
    assert_eq!(provider.accept(&alice).await.id.as_str(), id);
}

#[tokio::test]
async fn user_created_inactive_ends_who_is_there_and_is_invited_when_activated() {
    let service = Service::start_with_manual_clock().await;
    let provider = Provider::new(&service).await;
    let (alice, bobby) = (person("alice@example.com"), person("bobby@example.com"));
    provider.join(&alice, &[Role::Manager]).await;
    for (who, roles) in [(&alice, Role::Manager), (&bobby, Role::Member)] {
        let created = provider.create(okta_user(who.email.expose(), false)).await;
        assert_eq!((created.status.as_u16(), &created.json()["active"]), (201, &json!(false)), "{}", created.text);
        assert_eq!(provider.membership(who).await, None);
        assert!(service.store.invitations_of(&who.email).await.unwrap().is_empty());
        provider.must_set_active(text(&created.json(), "id"), true).await;
        let member = match provider.membership(who).await {
            Some(member) => member,
            None => provider.accept(who).await,
        };
        assert!(member.roles.contains(roles));
    }
}

#[tokio::test]
async fn whoever_gets_the_address_of_a_leaver_gets_nothing_else_of_theirs() {
    let service = Service::start_with_manual_clock().await;
    for at_once in [true, false] {
        let provider = Provider::new(&service).await;
        let alice = person("alice@example.com");
        provider.join(&alice, &[Role::Manager]).await;
        let user = |active: bool, external_id: &str| {
            let mut user = okta_user("alice@example.com", active);
            user["externalId"] = json!(external_id);
            user
        };
        let created = provider.create(user(true, "one")).await;
        let id = text(&created.json(), "id").to_owned();
        provider.must_set_active(&id, false).await;
        // The same person comes back.
        assert_eq!(provider.put(&id, user(true, "one")).await.status, 200);
        assert!(provider.membership(&alice).await.unwrap().roles.contains(Role::Manager));
        provider.must_set_active(&id, false).await;
        if !at_once {
            assert_eq!(provider.put(&id, user(false, "two")).await.status, 200);
        }
        let answer = provider.put(&id, user(true, "two")).await;
        assert_eq!((answer.status.as_u16(), &answer.json()["active"]), (200, &json!(true)), "{}", answer.text);
        assert_eq!(provider.membership(&alice).await, None, "{at_once}");
        let joined = provider.accept(&alice).await;
        assert!(joined.roles.contains(Role::Member) && !joined.roles.contains(Role::Manager), "{at_once}");
    }
}

#[tokio::test]
async fn other_organizations_are_out_of_reach() {
    let service = Service::start().await;
    let (own, other) = (Provider::new(&service).await, Provider::new(&service).await);
    let alice = person("alice@example.com");
    other.join(&alice, &[Role::Manager]).await;
    let theirs = other.provision("alice@example.com").await;
    let unknown = "MB01KAJ8M4R2X7Z9V5T3Q1N6P8WC";
    let before = service.table.items().await;
    for id in [unknown, &theirs, "x", &theirs.to_lowercase(), "MB", own.owner.id.as_str()] {
        let answers = [
            own.get(id).await,
            own.set_active(id, false).await,
            own.put(id, okta_user("alice@example.com", false)).await,
            own.delete(id).await,
        ];
        for answer in answers {
            answer.assert_scim_error(404, None);
            assert_eq!(answer.text, own.get(unknown).await.text);
        }
    }
    assert_eq!(service.table.items().await, before);
    assert!(own.find("alice@example.com").await.is_empty());
    let mine = own.provision("alice@example.com").await;
    assert_ne!(mine, theirs);
    own.must_set_active(&mine, false).await;
    assert!(other.membership(&alice).await.is_some());
    assert_eq!(other.get(&theirs).await.json()["active"], true);
}

#[tokio::test]
async fn users_are_listed_in_pages() {
    let service = Service::start_with_manual_clock().await;
    let provider = Provider::new(&service).await;
    let list = async |query: &str| {
        let answer = provider.send(Method::GET, &format!("{USERS}{query}"), None).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
        let json = answer.json();
        assert_eq!(json["schemas"], json!(["urn:ietf:params:scim:api:messages:2.0:ListResponse"]));
        let resources = json["Resources"].as_array().unwrap().clone();
        assert_eq!(json["itemsPerPage"], resources.len());
        let ids: Vec<String> = resources.iter().map(|user| text(user, "id").to_owned()).collect();
        (json["totalResults"].as_u64().unwrap(), json["startIndex"].as_u64().unwrap(), ids)
    };
    assert_eq!(list("?startIndex=1&count=2").await, (0, 1, Vec::new()));
    let mut ids = Vec::new();
    for number in 0..5 {
        service.clock.advance(std::time::Duration::from_secs(1));
        ids.push(provider.provision(&format!("user-{number}@example.com")).await);
    }
    provider.must_set_active(&ids[1], false).await;
    assert_eq!(list("").await, (5, 1, ids.clone()));
    assert_eq!(list("?startIndex=1&count=2").await, (5, 1, ids[..2].to_vec()));
    assert_eq!(list("?startIndex=4&count=2&sortBy=userName").await, (5, 4, ids[3..].to_vec()));
    assert_eq!(list("?count=0").await, (5, 1, Vec::new()));
    assert_eq!(list("?startIndex=6").await, (5, 6, Vec::new()));
    assert_eq!(list("?startIndex=0&count=-1").await, (5, 1, Vec::new()));
    assert_eq!(provider.delete(&ids[0]).await.status, 204);
    assert_eq!(list("?count=1").await, (4, 1, ids[1..2].to_vec()));
    for (query, scim_type) in [
        ("filter=emails%20co%20%22a%22", "invalidFilter"),
        ("filter=active%20eq%20true", "invalidFilter"),
        ("filter=", "invalidFilter"),
        ("startIndex=x", "invalidValue"),
        ("count=1&count=2", "invalidValue"),
    ] {
        let answer = provider.send(Method::GET, &format!("{USERS}?{query}"), None).await;
        answer.assert_scim_error(400, Some(scim_type));
    }
    // Who never was provisioned is in no list.
    assert!(provider.find("owner@example.com").await.is_empty());
    assert!(provider.find("nobody").await.is_empty());
}

#[tokio::test]
async fn plus_in_an_address_is_found_encoded_or_not() {
    let service = Service::start().await;
    let provider = Provider::new(&service).await;
    let id = provider.provision("alice+npm@example.com").await;
    for query in ["userName%20eq%20%22alice%2Bnpm%40example.com%22", "userName+eq+%22alice+npm@example.com%22"] {
        let found = provider.send(Method::GET, &format!("{USERS}?filter={query}"), None).await.json();
        assert_eq!(found["Resources"][0]["id"], id);
    }
}

#[tokio::test]
async fn invalid_bodies_are_errors_of_scim_and_change_nothing() {
    let service = Service::start().await;
    let provider = Provider::new(&service).await;
    let id = provider.provision("alice@example.com").await;
    let before = service.table.items().await;
    for (body, scim_type) in [
        (json!({}), "invalidValue"),
        (json!({"userName": "alice"}), "invalidValue"),
        (json!({"userName": ["a@example.com"]}), "invalidValue"),
        (json!({"userName": "a@example.com", "active": "maybe"}), "invalidValue"),
        (json!({"userName": "a@example.com", "externalId": "x".repeat(256)}), "invalidValue"),
        (json!([]), "invalidSyntax"),
    ] {
        provider.create(body).await.assert_scim_error(400, Some(scim_type));
    }
    let operation = |operation: Value| json!({"Operations": [operation]});
    for (body, scim_type) in [
        (json!({}), "invalidSyntax"),
        (json!({"active": false}), "invalidSyntax"),
        (json!({"Operations": "x"}), "invalidSyntax"),
        (operation(json!({"op": "move", "path": "active", "value": false})), "invalidSyntax"),
        (operation(json!({"op": "replace", "value": "x"})), "invalidSyntax"),
        (operation(json!({"op": "replace", "path": "active", "value": "off"})), "invalidValue"),
        (operation(json!({"op": "remove", "path": "active"})), "mutability"),
        (operation(json!({"op": "replace", "path": "userName", "value": "new@example.com"})), "mutability"),
    ] {
        provider.patch(&id, body).await.assert_scim_error(400, Some(scim_type));
    }
    provider.put(&id, okta_user("new@example.com", true)).await.assert_scim_error(400, Some("mutability"));
    for content_type in ["text/plain", "application/xml"] {
        let request = service.request(Method::POST, USERS).bearer_auth(&provider.bot.credential);
        let request = request.header("content-type", content_type).body("{}");
        service.send(request).await.assert_scim_error(415, None);
    }
    assert_eq!(service.table.items().await, before);
    // No endpoint, and another method.
    for path in ["/scim/v2/Groups", "/scim/v2/ServiceProviderConfig", "/scim/v2/Users/"] {
        provider.send(Method::GET, path, None).await.assert_scim_error(404, None);
    }
    provider.send(Method::PUT, USERS, Some(json!({}))).await.assert_scim_error(405, None);
    // A leaver leaves under any name.
    let answer = provider.put(&id, okta_user("new@example.com", false)).await;
    assert_eq!((answer.status.as_u16(), &answer.json()["userName"]), (200, &json!("alice@example.com")));
    assert_eq!(answer.json()["active"], false);
}

#[tokio::test]
async fn leaver_is_not_refused_for_other_operations_of_the_request() {
    let service = Service::start().await;
    let provider = Provider::new(&service).await;
    let id = provider.provision("alice@example.com").await;
    let ends = json!({"op": "replace", "path": "active", "value": false});
    for other in [
        json!({"op": "replace", "path": "title"}),
        json!({"op": "add", "path": "urn:ietf:params:scim:schemas:extension:enterprise:2.0:User:manager"}),
        json!({"op": "remove"}),
        json!({"op": "remove", "value": {"title": "x"}}),
        json!({"op": "replace", "value": "x"}),
        json!({"op": "replace", "path": 7, "value": "x"}),
        json!({"op": "move", "path": "title", "value": "x"}),
        json!({"path": "title", "value": "x"}),
        json!({"op": "remove", "path": "active"}),
        json!({"op": "replace", "path": "active", "value": null}),
        json!({"op": "replace", "path": "active", "value": "off"}),
        json!({"op": "replace", "path": "userName", "value": "new@example.com"}),
        json!({"op": "replace", "path": "externalId", "value": "x".repeat(256)}),
        json!("x"),
    ] {
        for operations in [[&ends, &other], [&other, &ends]] {
            provider.must_set_active(&id, true).await;
            let answer = provider.patch(&id, json!({"Operations": operations})).await;
            assert_eq!(answer.status, 200, "{other}: {}", answer.text);
            assert_eq!(answer.json()["active"], false, "{other}");
        }
        // Somebody who stays is: what is asked for is done as a whole or not at all.
        if other["path"] != "active" || other["op"] == "remove" {
            provider.must_set_active(&id, true).await;
            let stays = json!({"op": "replace", "path": "active", "value": true});
            let answer = provider.patch(&id, json!({"Operations": [other, stays]})).await;
            assert_eq!(answer.status, 400, "{other}: {}", answer.text);
        }
    }
    // Nobody leaves who is only created.
    let mut invalid = okta_user("bobby@example.com", false);
    invalid["externalId"] = json!("x".repeat(256));
    provider.create(invalid).await.assert_scim_error(400, Some("invalidValue"));
    assert!(provider.find("bobby@example.com").await.is_empty());
}

#[tokio::test]
async fn large_profile_of_a_leaver_is_read() {
    let service = Service::start().await;
    let provider = Provider::new(&service).await;
    let id = provider.provision("alice@example.com").await;
    // A photo, and 500 groups.
    let photo = "x".repeat(100_000);
    let groups: Vec<Value> = (0..500).map(|number| json!({"value": number, "display": "x".repeat(200)})).collect();
    let mut profile = okta_user("alice@example.com", false);
    profile["photos"] = json!([{"type": "photo", "value": photo}]);
    profile["groups"] = json!(groups);
    let answer = provider.put(&id, profile.clone()).await;
    assert_eq!((answer.status.as_u16(), &answer.json()["active"]), (200, &json!(false)), "{}", answer.text);
    provider.must_set_active(&id, true).await;
    let patch = json!({"Operations": [{"op": "replace", "value": profile}]});
    let answer = provider.patch(&id, patch).await;
    assert_eq!((answer.status.as_u16(), &answer.json()["active"]), (200, &json!(false)), "{}", answer.text);
}

#[tokio::test]
async fn change_that_changes_nothing_writes_nothing() {
    let service = Service::start_with_manual_clock().await;
    let provider = Provider::new(&service).await;
    let id = provider.provision("alice@example.com").await;
    provider.accept(&person("alice@example.com")).await;
    for active in [true, false] {
        provider.must_set_active(&id, active).await;
        let before = service.table.items().await;
        provider.must_set_active(&id, active).await;
        assert_eq!(provider.put(&id, okta_user("alice@example.com", active)).await.status, 200);
        assert_eq!(service.table.items().await, before);
    }
}

#[tokio::test]
async fn bot_that_is_cut_off_in_flight_changes_nothing() {
    let (service, faults) = Service::start_with_faults().await;
    let provider = Provider::new(&service).await;
    for call in 0..4 {
        let name = format!("alice-{call}@example.com");
        let alice = person(&name);
        provider.join(&alice, &[Role::Manager]).await;
        let (create, id) = match call {
            0 => (true, String::new()),
            _ => (false, provider.provision(&name).await),
        };
        if call == 3 {
            provider.must_set_active(&id, false).await;
        }
        let bot = service.bot(&provider.org, &[Role::Scim]).await;
        let mallory = Provider { service: &service, org: provider.org.clone(), bot, owner: provider.owner.clone() };
        let before = service.table.items_without_audit().await;
        // After the bot, everything else is read.
        faults.arm(1, &[Fault::Held], None);
        let request = async {
            match call {
                0 if create => mallory.create(okta_user(&name, false)).await,
                1 => mallory.set_active(&id, false).await,
                2 => mallory.delete(&id).await,
                _ => mallory.set_active(&id, true).await,
            }
        };
        let cut = async {
            faults.reached(2).await;
            assert!(service.store.delete_bot(&mallory.bot.id, &operator()).await.unwrap());
            faults.release();
        };
        let (answer, ()) = join(request, cut).await;
        faults.disarm();
        answer.assert_scim_error(401, None);
        let mut after = service.table.items_without_audit().await;
        after.retain(|item| !before.contains(item));
        assert_eq!(after, Vec::<Value>::new(), "{call}");
        assert_eq!(provider.membership(&alice).await.is_some(), call != 3);
    }
}

#[tokio::test]
async fn concurrent_changes_end_in_a_state_that_one_of_them_asked_for() {
    let service = Service::start_with_manual_clock().await;
    let provider = Provider::new(&service).await;
    for round in 0..6 {
        let alice = person(&format!("alice-{round}@example.com"));
        let member = provider.join(&alice, &[Role::Owner, Role::Manager]).await;
        let id = provider.provision(alice.email.expose()).await;
        let store = &service.store;
        let (operator, by) = (&operator(), Authority::Member(&provider.owner));
        let demote = store.set_member_roles(&provider.org.id, &member.id, &[Role::ApiKeyManager], by, operator);
        let remove = store.remove_member(&provider.org.id, &member.id, by, operator);
        let changes = join_all([false, true, false, true].map(|active| provider.set_active(&id, active)));
        let (answers, changed) =
            join(changes, async { if round % 2 == 0 { demote.await.unwrap() } else { remove.await.unwrap() } }).await;
        for answer in &answers {
            assert!([200, 409].contains(&answer.status.as_u16()), "{}", answer.text);
        }
        let now = provider.membership(&alice).await;
        let is_active = provider.get(&id).await.json()["active"] == true;
        assert_eq!(is_active, now.is_some());
        if let Some(now) = now {
            assert!(!now.roles.contains(Role::Owner) || now.id == member.id);
            // Removed by an owner, and not by SCIM before that.
            assert!(round % 2 == 0 || changed == MemberChange::NotFound, "{changed:?}");
        }
        // Whatever came first, the last word counts.
        let _ = provider.set_active(&id, false).await;
        assert_eq!(provider.membership(&alice).await, None);
    }
    // The counter of owners and all pointers are checked at the end.
}

#[tokio::test]
async fn leaver_who_accepts_at_the_same_time_is_no_member() {
    let service = Service::start_with_manual_clock().await;
    let provider = Provider::new(&service).await;
    for round in 0..8 {
        let alice = person(&format!("alice-{round}@example.com"));
        let id = provider.provision(alice.email.expose()).await;
        let invitation = service.store.invitation(&alice.email, &provider.org.id).await.unwrap().unwrap();
        let caller = operator();
        let accept = service.store.accept_invitation(&provider.org.id, &invitation.id, &alice, &caller);
        let (answer, accepted) = join(provider.set_active(&id, false), accept).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
        assert!(matches!(accepted.unwrap(), Accepted::Joined(_) | Accepted::Gone));
        assert_eq!(provider.membership(&alice).await, None);
        assert_eq!(provider.get(&id).await.json()["active"], false);
    }
}

#[tokio::test]
async fn leaver_who_accepts_between_the_reads_of_a_call_is_no_member() {
    let (service, faults) = Service::start_with_faults().await;
    let provider = Provider::new(&service).await;
    let (store, org) = (&service.store, &provider.org.id);
    for way in 0..4 {
        let alice = person(&format!("alice-{way}@example.com"));
        let name = alice.email.expose();
        let id = match way {
            // The user is created inactive, for somebody whom an owner has invited.
            0 => {
                let by = Authority::Member(&provider.owner);
                store.invite_member(org, &alice.email, &[Role::Manager], by, &operator()).await.unwrap().unwrap();
                String::new()
            }
            _ => provider.provision(name).await,
        };
        let request = async {
            match way {
                0 => provider.create(okta_user(name, false)).await,
                1 => provider.set_active(&id, false).await,
                2 => provider.put(&id, okta_user(name, false)).await,
                _ => provider.delete(&id).await,
            }
        };
        let accept = async {
            provider.accept(&alice).await;
        };
        let answer = overtaken(&faults, reads_members, request, accept).await;
        let expected = [201, 200, 200, 204][way];
        assert_eq!(answer.status, expected, "{way}: {}", answer.text);
        assert_eq!(provider.membership(&alice).await, None);
        assert!(store.invitations_of(&alice.email).await.unwrap().is_empty());
        if way < 3 {
            assert_eq!(provider.find(name).await[0]["active"], false);
        }
    }
}

#[tokio::test]
async fn everybody_at_an_address_ends_however_many_there_are() {
    let service = Service::start_with_manual_clock().await;
    let provider = Provider::new(&service).await;
    let email = person("shared@example.com").email;
    let people: Vec<Person> = (0..45)
        .map(|number| Person::of_provider("https://id.example.com", &number.to_string(), email.clone()))
        .collect();
    for way in 0..3 {
        for person in &people {
            provider.join(person, &[Role::Member]).await;
        }
        let created = provider.create(okta_user("shared@example.com", way > 0)).await;
        let id = text(&created.json(), "id").to_owned();
        if way == 1 {
            provider.must_set_active(&id, false).await;
        }
        if way < 2 {
            assert_eq!(provider.get(&id).await.json()["active"], false);
        }
        assert_eq!(provider.delete(&id).await.status, 204);
        for person in &people {
            assert_eq!(provider.membership(person).await, None);
        }
    }
}

#[tokio::test]
async fn role_of_scim_is_for_bots_and_opens_nothing_else() {
    let service = Service::start().await;
    let provider = Provider::new(&service).await;
    for path in ["/v1/api-keys".to_owned(), provider.org.audit_log(""), provider.org.org_user_tokens("")] {
        service.call(Method::GET, &path, &provider.bot.credential).await.assert_error(403, "FORBIDDEN");
    }
    let owner = service.sign_in(&person("owner@example.com")).await;
    let role = [("email", "bobby@example.com"), ("role", "organization/scim")];
    assert_eq!(owner.submit(&provider.org.page("members/invite"), &role).await.status, 400);
    assert!(!owner.get(&provider.org.page("members/invite")).await.text.contains("organization/scim"));
    assert!(owner.get(&provider.org.page("bots/add")).await.text.contains("organization/scim"));
}

#[tokio::test]
async fn retry_ends_the_sessions_that_a_failed_call_has_left() {
    let (service, faults) = Service::start_with_faults().await;
    let provider = Provider::new(&service).await;
    let alice = person("alice@example.com");
    provider.join(&alice, &[Role::Manager]).await;
    let id = provider.provision("alice@example.com").await;
    let before = service.sign_in(&alice).await;
    faults.arm(0, &[], None);
    provider.get(&id).await;
    // Bot, user, what ended, invitation, members twice, the transaction; then it fails.
    faults.arm(7, &[], Some(Fault::ServerError));
    let answer = provider.set_active(&id, false).await;
    faults.disarm();
    answer.assert_scim_error(503, None);
    assert_eq!(provider.membership(&alice).await, None);
    assert!(service.store.session(before.secret.hash()).await.unwrap().is_some());
    service.clock.advance(std::time::Duration::from_secs(5));
    let later = service.sign_in(&alice).await;
    provider.must_set_active(&id, false).await;
    assert_eq!(service.store.session(before.secret.hash()).await.unwrap(), None);
    // That one started after the end of the membership, and is none of this organization's.
    assert!(service.store.session(later.secret.hash()).await.unwrap().is_some());
}
