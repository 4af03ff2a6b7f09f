//! What the pages of the console and the steps of signing in ask of DynamoDB, for
//! [`crate::policies`].

use std::time::Duration;

use futures::future::join;
use reqwest::Method;
use serde_json::json;
use shared::domain::Plan;
use shared::permissions::{Operation, Role};
use shared::secret::MailedCode;
use shared::store::members::{Authority, Listed, MemberChange};
use shared::store::scim_users::NewScimUser;
use tests::console::{Visitor, hidden, person};
use tests::coverage::{COVERED, Fixtures, Guard};
use tests::email::code_in;
use tests::faults::Fault;
use tests::mail_faults::MailFault;
use tests::{Answer, Org, Service, operator};

use crate::policies::Recorder;

/// A session's `last_used_at` is updated by a request that comes this much later.
const UPDATED_AFTER: Duration = Duration::from_secs(11 * 60);

const NEVER: (&str, &str) = ("expiry", "never");
const DAYS: (&str, &str) = ("expiry", "30");

/// A form that makes something with a secret.
struct Mint {
    operation: Operation,
    path: &'static str,
    fields: &'static [(&'static str, &'static str)],
    /// A role that may not send it. Without one, every member may.
    refused: Option<Role>,
}

const MINTS: [Mint; 5] = [
    Mint {
        operation: Operation::ConsoleOrgUserTokens,
        path: "tokens/issue",
        fields: &[("user_identifier", "alice"), DAYS],
        refused: Some(Role::ApiKeyManager),
    },
    Mint { operation: Operation::ConsoleMyTokens, path: "my-tokens/issue", fields: &[DAYS], refused: None },
    Mint {
        operation: Operation::ConsoleApiKeys,
        path: "api-keys/create",
        fields: &[("name", "ci"), ("environment", "live"), ("scope", "shield:write"), DAYS],
        refused: Some(Role::Manager),
    },
    Mint {
        operation: Operation::ConsoleAccessTokens,
        path: "access-tokens/create",
        fields: &[("name", "device"), ("role", "readonly"), ("all_projects", "true"), DAYS],
        refused: Some(Role::Manager),
    },
    Mint {
        operation: Operation::ConsoleBots,
        path: "bots/add",
        fields: &[("name", "ci"), ("role", "organization/takumi_manager")],
        refused: Some(Role::Manager),
    },
];

/// Somebody who is a member of another organization: the page looks whether there is any.
async fn record_strangers(recorder: &mut Recorder, service: &Service) {
    let (org, other) = (service.org().await, service.org().await);
    let stranger = service.member(&other, &[Role::Owner]).await;
    let pages = COVERED.iter().filter(|covered| covered.guard == Guard::Console && covered.path.contains("{org_id}"));
    for page in pages {
        let path = page.path.replace("{org_id}", &org.id.to_string());
        recorder.record(page.operation, 404, stranger.get(&path)).await;
    }
}

/// Records every page and form.
pub(crate) async fn record(recorder: &mut Recorder, service: &Service) {
    record_strangers(recorder, service).await;
    let mut pages = Pages { recorder, service };
    for mint in &MINTS {
        pages.mint(mint).await;
        pages.cut(mint).await;
    }
    pages.org_user_tokens().await;
    pages.my_tokens().await;
    pages.api_keys().await;
    pages.access_tokens().await;
    pages.bots().await;
    pages.members().await;
    pages.projects().await;
    pages.policies().await;
    pages.unused().await;
    pages.reading().await;
    pages.account().await;
    pages.sign_in().await;
}

struct Pages<'a> {
    recorder: &'a mut Recorder,
    service: &'a Service,
}

impl<'a> Pages<'a> {
    /// An organization with two owners, so that either can go.
    async fn org(&self) -> (Org, Visitor<'a>) {
        let org = self.service.org().await;
        self.service.member(&org, &[Role::Owner]).await;
        let owner = self.service.member(&org, &[Role::Owner]).await;
        (org, owner)
    }

    async fn get(&mut self, operation: Operation, visitor: &Visitor<'_>, path: &str) -> Answer {
        self.service.clock.advance(UPDATED_AFTER);
        self.recorder.record(operation, 200, visitor.get(path)).await
    }

    async fn submit(
        &mut self,
        operation: Operation,
        expected: u16,
        visitor: &Visitor<'_>,
        path: &str,
        fields: &[(&str, &str)],
    ) -> Answer {
        self.service.clock.advance(UPDATED_AFTER);
        self.recorder.record(operation, expected, visitor.submit(path, fields)).await
    }

    /// The form, what it makes, once, and its refusals.
    async fn mint(&mut self, mint: &Mint) {
        let (org, owner) = self.org().await;
        let path = org.page(mint.path);
        self.get(mint.operation, &owner, &path).await;
        let token = owner.form_token();
        for expected in [200, 409] {
            let call = owner.submit_with(&token, &path, mint.fields);
            self.recorder.record(mint.operation, expected, call).await;
        }
        let refused = match mint.refused {
            Some(role) => self.service.member(&org, &[role]).await,
            None => {
                let without = self.service.store.create_org("Example", Plan::Free, false, &operator()).await.unwrap();
                let org = Org { id: without.id };
                let member = self.service.member(&org, &[Role::Member]).await;
                self.submit(mint.operation, 403, &member, &org.page(mint.path), mint.fields).await;
                return;
            }
        };
        self.submit(mint.operation, 403, &refused, &path, mint.fields).await;
    }

    /// What is made by a member who is removed before the last look at the session and the membership
    /// is taken back.
    async fn cut(&mut self, mint: &Mint) {
        let (org, owner) = self.org().await;
        self.recorder.faults.arm(0, &[], None);
        assert_eq!(owner.submit(&org.page(mint.path), mint.fields).await.status, 200);
        let calls = self.recorder.faults.disarm();
        let committed = calls.iter().position(|call| call == "TransactWriteItems").unwrap() + 1;

        let (org, owner) = self.org().await;
        let member = self.service.store.membership(owner.person.id, &org.id).await.unwrap().unwrap();
        self.recorder.faults.arm(committed, &[Fault::Held, Fault::Held], None);
        let faults = self.recorder.faults.clone();
        let cut = async {
            faults.reached(committed + 2).await;
            let removed = self.service.store.remove_member(&org.id, &member.id, Authority::Operator, &operator()).await;
            assert_eq!(removed.unwrap(), MemberChange::Done);
            faults.release();
            faults.release();
        };
        let path = org.page(mint.path);
        let (answer, ()) = join(owner.submit(&path, mint.fields), cut).await;
        assert_eq!(answer.status, 303, "{}: {}", mint.path, answer.text);
        self.recorder.extend(mint.operation);
    }

    async fn org_user_tokens(&mut self) {
        let (operation, service) = (Operation::ConsoleOrgUserTokens, self.service);
        let (org, owner) = self.org().await;
        let bot = service.bot(&org, &[Role::Owner]).await;
        let expires_at = || service.clock.now().plus(Duration::from_secs(60)).to_string();
        service.issue_until(&org, &bot, "alice", &expires_at()).await;
        // Moves what has expired.
        self.get(operation, &owner, &org.page("tokens")).await;
        let token = service.issue(&org, &bot, "bobby").await;
        for query in ["", "?state=expired", "?state=revoked", "?state=all", "?prefix=bob"] {
            self.get(operation, &owner, &org.page(&format!("tokens{query}"))).await;
        }
        let rotate = org.page(&format!("tokens/{}/rotate", token.id));
        self.get(operation, &owner, &rotate).await;
        self.submit(operation, 200, &owner, &rotate, &[("overlap", "24h")]).await;
        let revoke = org.page(&format!("tokens/{}/revoke", token.id));
        self.get(operation, &owner, &revoke).await;
        self.submit(operation, 303, &owner, &revoke, &[]).await;
        service.issue_until(&org, &bot, "carol", "2099-01-01T00:00:00Z").await;
        service.issue(&org, &bot, "carol").await;
        let by_user = org.page("tokens/revoke-by-user");
        self.get(operation, &owner, &by_user).await;
        self.get(operation, &owner, &format!("{by_user}?user_identifier=carol")).await;
        let fields = [("user_identifier", "carol"), ("expected_count", "2"), ("confirm", "carol")];
        self.submit(operation, 303, &owner, &by_user, &fields).await;
    }

    async fn my_tokens(&mut self) {
        let operation = Operation::ConsoleMyTokens;
        let org = self.service.org().await;
        let member = self.service.member(&org, &[Role::Member]).await;
        let (list, issue) = (org.page("my-tokens"), org.page("my-tokens/issue"));
        for fields in [DAYS, NEVER] {
            self.submit(operation, 200, &member, &issue, &[fields]).await;
        }
        let listed = self.get(operation, &member, &list).await;
        let rotate = path_on(&listed, &list, "/rotate");
        self.get(operation, &member, &rotate).await;
        self.submit(operation, 200, &member, &rotate, &[("overlap", "24h")]).await;
        let revoke = path_on(&listed, &list, "/revoke");
        self.get(operation, &member, &revoke).await;
        self.submit(operation, 303, &member, &revoke, &[]).await;
        // Moves what has expired.
        self.submit(operation, 200, &member, &issue, &[("expiry", "7")]).await;
        self.service.clock.advance(Duration::from_secs(31 * 24 * 60 * 60));
        let member = self.service.sign_in(&member.person).await;
        self.get(operation, &member, &list).await;
    }

    async fn api_keys(&mut self) {
        let (operation, service) = (Operation::ConsoleApiKeys, self.service);
        let (org, owner) = self.org().await;
        let bot = service.bot(&org, &[Role::Owner]).await;
        let expiring = || {
            let expires_at = service.clock.now().plus(Duration::from_secs(60)).to_string();
            json!({"name": "ends", "environment": "live", "scopes": ["org:read"], "expires_at": expires_at})
        };
        let list = org.page("api-keys");
        service.api_key_with(&bot.credential, &expiring()).await;
        // Moves what has expired, as does creating one.
        for query in ["", "?state=expired", "?state=revoked", "?state=all"] {
            self.get(operation, &owner, &format!("{list}{query}")).await;
        }
        service.api_key_with(&bot.credential, &expiring()).await;
        let fields = [("name", "ci"), ("environment", "live"), ("scope", "shield:write"), DAYS];
        self.submit(operation, 200, &owner, &format!("{list}/create"), &fields).await;
        let key = service.api_key_with(&bot.credential, &expiring()).await;
        let path = format!("{list}/{}", key.id);
        self.recorder.record(operation, 200, owner.get(&path)).await;
        let rotate = format!("{path}/rotate");
        self.recorder.record(operation, 200, owner.get(&rotate)).await;
        self.recorder.record(operation, 200, owner.submit(&rotate, &[("overlap", "24h")])).await;
        let revoke = format!("{path}/revoke");
        self.recorder.record(operation, 200, owner.get(&revoke)).await;
        self.recorder.record(operation, 303, owner.submit(&revoke, &[])).await;
    }

    async fn access_tokens(&mut self) {
        let (operation, service) = (Operation::ConsoleAccessTokens, self.service);
        let (org, owner) = self.org().await;
        let bot = service.bot(&org, &[Role::Owner]).await;
        service.projects(&org, &["coldroom", "greenhouse"]).await;
        let list = org.page("access-tokens");
        let fields =
            [("name", "device"), ("role", "readonly"), ("all_projects", "false"), ("project", "greenhouse"), DAYS];
        self.submit(operation, 200, &owner, &format!("{list}/create"), &fields).await;
        self.get(operation, &owner, &list).await;
        let token = service.access_token(&bot, &json!({"name": "relay"})).await;
        let path = format!("{list}/{}", token.id);
        let revision = hidden(&self.get(operation, &owner, &path).await.text, "revision");
        let fields = [
            ("name", "relay 2"),
            ("role", "manager"),
            ("all_projects", "false"),
            ("project", "coldroom"),
            NEVER,
            ("is_active", "true"),
            ("revision", &revision),
        ];
        self.submit(operation, 303, &owner, &path, &fields).await;
        for (form, is_asked) in [("disable", false), ("enable", false), ("delete", true)] {
            let path = format!("{path}/{form}");
            if is_asked {
                self.get(operation, &owner, &path).await;
            }
            self.submit(operation, 303, &owner, &path, &[]).await;
        }
        // Organizations of earlier versions have no counter yet.
        service.table.delete(&format!("ORG#{}", org.id), "ACCESS_TOKEN_COUNT").await;
        let fields = [("name", "sensor"), ("role", "readonly"), ("all_projects", "true"), NEVER];
        self.submit(operation, 200, &owner, &format!("{list}/create"), &fields).await;
    }

    async fn bots(&mut self) {
        let operation = Operation::ConsoleBots;
        let (org, owner) = self.org().await;
        let bot = self.service.bot(&org, &[Role::Manager]).await;
        let path = org.page(&format!("bots/{}", bot.id));
        for page in [&org.page("bots"), &path, &format!("{path}/delete")] {
            self.get(operation, &owner, page).await;
        }
        let fields = [("role", "organization/takumi_guard_token_issuer")];
        self.submit(operation, 303, &owner, &format!("{path}/roles"), &fields).await;
        for overlap in ["", "1h"] {
            let (token, rotate, fields) = (owner.form_token(), format!("{path}/rotate"), [("overlap", overlap)]);
            for expected in [200, 409] {
                let call = owner.submit_with(&token, &rotate, &fields);
                self.recorder.record(operation, expected, call).await;
            }
        }
        let fields = [("audience", "guard.example.com"), ("repository_owner_id", "1")];
        let (token, add) = (owner.form_token(), format!("{path}/trusts/add"));
        self.get(operation, &owner, &add).await;
        for _ in 0..2 {
            self.recorder.record(operation, 303, owner.submit_with(&token, &add, &fields)).await;
        }
        self.submit(operation, 303, &owner, &add, &fields).await;
        let remove = path_on(&self.get(operation, &owner, &path).await, &path, "/remove");
        self.get(operation, &owner, &remove).await;
        self.submit(operation, 303, &owner, &remove, &[]).await;
        self.get(operation, &owner, &format!("{path}/end-tokens")).await;
        self.submit(operation, 303, &owner, &format!("{path}/end-tokens"), &[]).await;
        // With a trust.
        self.submit(operation, 303, &owner, &format!("{path}/delete"), &[]).await;
    }

    async fn members(&mut self) {
        let (operation, service) = (Operation::ConsoleMembers, self.service);
        let (org, owner) = self.org().await;
        let (list, invite) = (org.page("members"), org.page("members/invite"));
        self.get(operation, &owner, &list).await;
        self.get(operation, &owner, &invite).await;
        let email = format!("invited-{}@example.com", org.id.as_str().to_lowercase());
        let fields = [("email", email.as_str()), ("role", "organization/takumi_manager")];
        self.recorder.ses.fail(MailFault::Rejected);
        self.service.clock.advance(UPDATED_AFTER);
        self.recorder.record(operation, 503, owner.submit(&invite, &fields)).await;
        // Over what SCIM has made and ended.
        for active in [true, false] {
            let new = NewScimUser { email: person(&format!("{active}-{email}")).email, external_id: None, active };
            let by = Authority::Operator;
            service.store.create_scim_user(&org.id, &new, by, &operator()).await.unwrap();
            let fields = [("email", new.email.expose()), ("role", "organization/takumi_manager")];
            self.recorder.record(operation, 503, owner.submit(&invite, &fields)).await;
        }
        self.recorder.ses.recover();
        for _ in 0..2 {
            self.submit(operation, 303, &owner, &invite, &fields).await;
        }
        let listed = service.store.members(&org.id, None, 100).await.unwrap().members;
        let invited = listed.iter().find(|one| matches!(one, Listed::Invited(_))).unwrap();
        let withdraw = format!("{list}/{}/remove", invited.id());
        self.get(operation, &owner, &withdraw).await;
        self.submit(operation, 303, &owner, &withdraw, &[]).await;

        let member = service.member(&org, &[Role::Manager]).await;
        let id = service.store.membership(member.person.id, &org.id).await.unwrap().unwrap().id;
        let path = format!("{list}/{id}");
        self.get(operation, &owner, &path).await;
        for role in ["organization/owner", "organization/member"] {
            self.submit(operation, 303, &owner, &format!("{path}/roles"), &[("role", role)]).await;
        }
        self.submit(operation, 303, &owner, &format!("{path}/sign-out"), &[]).await;
        self.get(operation, &owner, &format!("{path}/remove")).await;
        self.submit(operation, 303, &owner, &format!("{path}/remove"), &[]).await;
        let own = service.store.membership(owner.person.id, &org.id).await.unwrap().unwrap().id;
        self.submit(operation, 303, &owner, &format!("{list}/{own}/remove"), &[]).await;
    }

    async fn projects(&mut self) {
        let operation = Operation::ConsoleProjects;
        let (org, owner) = self.org().await;
        let (list, remove) = (org.page("projects"), org.page("projects/greenhouse/remove"));
        self.submit(operation, 303, &owner, &list, &[("project", "greenhouse")]).await;
        let bot = self.service.bot(&org, &[Role::Owner]).await;
        self.service.access_token(&bot, &json!({"name": "relay", "access_config": {"projects": ["greenhouse"]}})).await;
        self.get(operation, &owner, &list).await;
        self.get(operation, &owner, &remove).await;
        self.submit(operation, 303, &owner, &remove, &[]).await;
    }

    async fn policies(&mut self) {
        let operation = Operation::ConsolePolicies;
        let (org, owner) = self.org().await;
        let path = org.page("policies");
        self.get(operation, &owner, &path).await;
        let names = ["org_user_token", "api_key", "org_access_token", "unused"];
        let set = names.map(|name| (name, "30"));
        self.submit(operation, 303, &owner, &path, &set).await;
        let shown = ["shown_org_user_token", "shown_api_key", "shown_org_access_token", "shown_unused"];
        self.submit(operation, 303, &owner, &path, &shown.map(|name| (name, "30"))).await;
    }

    /// Lists move what has ended unused.
    async fn unused(&mut self) {
        let service = self.service;
        let pages = [
            (Operation::ConsoleOrgUserTokens, "tokens"),
            (Operation::ConsoleOrgUserTokens, "tokens?state=expired"),
            (Operation::ConsoleOrgUserTokens, "tokens/revoke-by-user?user_identifier=alice"),
            (Operation::ConsoleMyTokens, "my-tokens"),
            (Operation::ConsoleApiKeys, "api-keys"),
            (Operation::ConsoleAccessTokens, "access-tokens"),
            (Operation::ConsoleOverview, ""),
        ];
        for (operation, page) in pages {
            let (org, first) = self.org().await;
            let bot = service.bot(&org, &[Role::Owner]).await;
            service.issue(&org, &bot, "alice").await;
            service.api_key(&bot.credential, &["org:read"]).await;
            service.access_token(&bot, &json!({"name": "relay"})).await;
            let issued = first.submit(&org.page("my-tokens/issue"), &[DAYS]).await;
            assert_eq!(issued.status, 200, "{}", issued.text);
            service.end_unused(&org.id, 1).await;
            service.clock.advance(Duration::from_secs(2 * 24 * 60 * 60));
            let owner = service.sign_in(&first.person).await;
            self.get(operation, &owner, &org.page(page)).await;
        }
    }

    /// Pages without forms.
    async fn reading(&mut self) {
        let service = self.service;
        let fixtures = Fixtures::create(service).await;
        let org = &fixtures.org;
        let owner = service.member(org, &[Role::Owner]).await;
        let (installations, log, overview) =
            (Operation::ConsoleInstallations, Operation::ConsoleAuditLog, Operation::ConsoleOverview);
        let download = "/npm/widgets/-/widgets-1.0.0.tgz";
        service.call(Method::GET, download, &fixtures.token.token).await;
        for query in ["", "?package=widgets", "?user_identifier=alice-laptop", "?ecosystem=npm"] {
            self.get(installations, &owner, &org.page(&format!("installations{query}"))).await;
            self.get(installations, &owner, &org.page(&format!("installations.csv{query}"))).await;
        }
        let of_actor = format!("?actor={}", fixtures.owner.id);
        for query in ["", "?action=api_key.create", &of_actor] {
            self.get(log, &owner, &org.page(&format!("audit-log{query}"))).await;
            self.get(log, &owner, &org.page(&format!("audit-log.csv{query}"))).await;
        }
        let shown = self.get(overview, &owner, &org.page("")).await;
        let style = path_on(&shown, "/console/assets/", ".css");
        self.get(Operation::ConsoleAssets, &owner, &style).await;
        for path in ["/", "/console/organizations"] {
            self.recorder.record(overview, 303, owner.get(path)).await;
        }
        let other = service.org().await;
        service.join(&other.id, &owner.person, &[Role::Member]).await;
        self.get(overview, &owner, "/console/organizations").await;
    }

    async fn account(&mut self) {
        let (operation, service) = (Operation::ConsoleAccount, self.service);
        let (_, alice) = self.org().await;
        self.get(operation, &alice, "/console/account").await;
        self.submit(operation, 303, &alice, "/console/account/language", &[("language", "ja")]).await;
        for role in [Role::Owner, Role::Member] {
            let org = service.org().await;
            let (email, by) = (&alice.person.email, Authority::Operator);
            let invitation = service.store.invite_member(&org.id, email, &[role], by, &operator()).await;
            let invitation = invitation.unwrap().unwrap();
            let path = format!("/console/account/invitations/{}", org.id);
            self.get(operation, &alice, &path).await;
            self.submit(operation, 303, &alice, &path, &[("invitation", invitation.id.as_str())]).await;
        }
        service.sign_in(&alice.person).await;
        self.submit(operation, 303, &alice, "/console/account/sign-out-everywhere", &[]).await;
    }

    async fn sign_in(&mut self) {
        let (operation, service) = (Operation::SignInCode, self.service);
        let org = service.org().await;
        let email = format!("{}@example.com", org.id.as_str().to_lowercase());
        service.join(&org.id, &person(&email), &[Role::Member]).await;
        let start = Operation::SignInStart;
        let mut browser = service.browser();
        self.recorder.record(start, 200, browser.get("/console/sign-in")).await;
        self.recorder.record(operation, 200, browser.ask_for_code("stranger@example.com")).await;
        self.recorder.record(operation, 400, browser.send_code(&email, "0000-0000")).await;
        self.recorder.ses.fail(MailFault::Rejected);
        self.recorder.record(operation, 200, browser.ask_for_code(&email)).await;
        self.recorder.ses.recover();
        // The second time the device is known and a session ends; the last time the person has as
        // many as allowed.
        for _ in 0..2 {
            self.code(&mut browser, &email).await;
        }
        for _ in 0..20 {
            service.sign_in(&person(&email)).await;
        }
        self.code(&mut service.browser(), &email).await;

        let member = service.member(&org, &[Role::Member]).await;
        service.clock.advance(UPDATED_AFTER);
        self.recorder.record(start, 303, member.get("/console/sign-in")).await;
        self.submit(Operation::SignInSignOut, 303, &member, "/console/sign-out", &[]).await;
        let stranger = service.sign_in(&person(&format!("stranger-{email}"))).await;
        self.get(start, &stranger, "/console/sign-in").await;
    }

    /// Signs in with a code.
    async fn code(&mut self, browser: &mut tests::console::Browser<'_>, email: &str) {
        let operation = Operation::SignInCode;
        self.recorder.record(operation, 200, browser.ask_for_code(email)).await;
        let code = code_in(&self.service.person(email).newest_mail());
        let wrong = MailedCode::generate().unwrap().expose();
        self.recorder.record(operation, 400, browser.send_code(email, &wrong)).await;
        self.recorder.record(operation, 303, browser.send_code(email, &code)).await;
    }
}

/// The first path on a page that begins and ends like this.
fn path_on(answer: &Answer, base: &str, end: &str) -> String {
    let mut links = answer.text.split("href=\"").skip(1).map(|rest| rest.split('"').next().unwrap());
    let path = links.find(|link| link.starts_with(base) && link.ends_with(end));
    path.unwrap_or_else(|| panic!("no {base}…{end}: {}", answer.text)).to_owned()
}
