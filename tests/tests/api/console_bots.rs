//! The page of bots, and its forms.

use std::collections::BTreeSet;
use std::time::Duration;

use futures::future::join_all;
use reqwest::Method;
use shared::ids::{BotId, TrustId};
use shared::permissions::Role;
use shared::store::bots::{KeyToRotate, StoredBot};
use shared::store::members::{Authority, MemberChange};
use shared::store::rotation::{By, Rotate, Rotation};
use tests::console::{Submission, Visitor};
use tests::table::text;
use tests::{Answer, Bot, Org, Service, operator};

const MANAGER: (&str, &str) = ("role", "organization/takumi_manager");
const ISSUER: (&str, &str) = ("role", "organization/takumi_guard_token_issuer");

/// The API keys on a page.
fn keys_on(answer: &Answer) -> BTreeSet<String> {
    let parts = answer.text.split("shisho_apikey_").skip(1);
    parts.map(|rest| format!("shisho_apikey_{}", &rest[..43])).collect()
}

/// The credential that a page shows, which must be the only one.
fn credential_on(answer: &Answer, bot: &BotId) -> Bot {
    assert_eq!(answer.status, 200, "{}", answer.text);
    let keys = keys_on(answer);
    assert_eq!(keys.len(), 1, "{}", answer.text);
    let credential = format!("{}:{bot}", keys.first().unwrap());
    assert!(answer.text.contains(&credential));
    Bot { credential, id: bot.clone() }
}

async fn only_bot(service: &Service, org: &Org) -> BotId {
    let bots = service.store.bots(&org.id).await.unwrap();
    assert_eq!(bots.len(), 1);
    bots[0].id.clone()
}

/// Who did what in the organization, without members and sessions.
async fn logged(service: &Service, org: &Org) -> Vec<String> {
    let mut entries = service.table.items().await;
    let log = format!("ORG#{}#AUDIT", org.id);
    entries.retain(|item| text(item, "pk") == log && text(item, "action").starts_with("bot."));
    entries.iter().map(|item| format!("{} {}", text(&item["actor"], "kind"), text(item, "action"))).collect()
}

async fn page_and_bot(service: &Service) -> (Org, Visitor<'_>, Bot) {
    let org = service.org().await;
    let owner = service.member(&org, &[Role::Owner]).await;
    let bot = service.bot(&org, &[Role::Manager]).await;
    (org, owner, bot)
}

/// Reference 000: "create a bot under Settings → Bots → Add Bot and grant it the organization role
/// appropriate for what it needs to do", "generate an API key for the bot, then store both the API
/// key and the bot's ID", "mint a token".
#[tokio::test]
async fn bot_is_added_with_a_role_and_its_credential_mints_a_token() {
    let service = Service::start_with_manual_clock().await;
    let org = service.org().await;
    let owner = service.member(&org, &[Role::Owner]).await;
    let overview = owner.get(&org.page("bots")).await;
    for shown in ["Settings", ">Bots<", ">Add Bot<", "No bots yet"] {
        assert!(overview.text.contains(shown), "{shown}: {}", overview.text);
    }
    let form = owner.get(&org.page("bots/add")).await;
    for role in Role::ALL.iter().filter(|role| role.is_for_bots()) {
        assert!(form.text.contains(&format!("value=\"{}\"", role.as_str())), "{}", form.text);
    }
    assert!(!form.text.contains("organization/member"), "{}", form.text);

    let added = owner.submit(&org.page("bots/add"), &[("name", "onboarding"), ISSUER]).await;
    let bot = credential_on(&added, &only_bot(&service, &org).await);
    let curl = format!(
        "curl -sS {}/v1/o/$ORG/guard/org-user-tokens \\\n  -H &#34;Authorization: Bearer $BOT_API_KEY:$BOT_ID&#34; \\\n  \
         --json &#39;{{&#34;user_identifier&#34;: &#34;alice-laptop&#34;}}&#39;",
        service.base_url
    );
    assert!(added.text.contains(&curl), "{curl}\n{}", added.text);
    assert!(added.text.contains(&format!("export ORG={}\n", org.id)));
    service.issue(&org, &bot, "alice-laptop").await;
    let refused = service.call(Method::GET, &org.org_user_tokens(""), &bot.credential).await;
    refused.assert_error(403, "FORBIDDEN");
    assert_eq!(added.header("cache-control"), "no-store");
    assert_eq!(logged(&service, &org).await, ["member bot.create"]);
}

#[tokio::test]
async fn bots_are_listed_with_roles_and_without_secrets() {
    let service = Service::start_with_manual_clock().await;
    let (org, owner, bot) = page_and_bot(&service).await;
    for page in ["bots".to_owned(), format!("bots/{}", bot.id), format!("bots/{}/delete", bot.id)] {
        let answer = owner.get(&org.page(&page)).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
        for shown in [bot.id.as_str(), "Guard manager"] {
            assert!(answer.text.contains(shown), "{page}: {}", answer.text);
        }
        assert!(!answer.text.contains("shisho_apikey_"), "{}", answer.text);
    }
}

#[tokio::test]
async fn stored_text_of_bots_is_escaped() {
    let service = Service::start_with_manual_clock().await;
    let org = service.org().await;
    let owner = service.member(&org, &[Role::Owner]).await;
    let name = "<script>alert(1)</script>\"'";
    let added = owner.submit(&org.page("bots/add"), &[("name", name), MANAGER]).await;
    let id = only_bot(&service, &org).await;
    let pages = ["bots".to_owned(), format!("bots/{id}"), format!("bots/{id}/delete")];
    let mut answers = vec![added, owner.submit(&org.page("bots/add"), &[("name", name)]).await];
    for page in pages {
        answers.push(owner.get(&org.page(&page)).await);
    }
    for answer in &answers {
        assert!(!answer.text.contains("<script>alert"), "{}", answer.text);
    }
    assert!(answers[2].text.contains("&#60;script&#62;alert(1)&#60;/script&#62;&#34;&#39;"), "{}", answers[2].text);
}

#[tokio::test]
async fn errors_of_the_form_are_beside_the_field_with_what_was_typed() {
    let service = Service::start_with_manual_clock().await;
    let org = service.org().await;
    let owner = service.member(&org, &[Role::Owner]).await;
    for (fields, message, id) in [
        (&[("name", " spaced"), MANAGER][..], "Enter 1 to 100 visible characters", "name-error"),
        (&[("name", "nightly jobs")], "Select at least one role.", "roles-error"),
        (&[("name", "nightly jobs"), ("role", "organization/member")], "Select at least one role.", "roles-error"),
        (&[("name", "nightly jobs"), ("role", "organization/emperor")], "Select at least one role.", "roles-error"),
        (&[], "Enter 1 to 100 visible characters", "name-error"),
    ] {
        let answer = owner.submit(&org.page("bots/add"), fields).await;
        assert_eq!(answer.status, 400, "{}", answer.text);
        let error = answer.text.split(&format!("id=\"{id}\"")).nth(1).unwrap().split("</p>").next().unwrap();
        assert!(error.contains(message), "{error}");
        if let Some((_, typed)) = fields.iter().find(|(name, _)| *name == "name") {
            assert!(answer.text.contains(&format!("value=\"{typed}\"")), "{}", answer.text);
        }
        let chosen = answer.text.contains("value=\"organization/takumi_manager\" checked");
        assert_eq!(chosen, fields.contains(&MANAGER));
    }
    assert!(service.store.bots(&org.id).await.unwrap().is_empty());
}

#[tokio::test]
async fn form_that_is_sent_twice_adds_one_bot() {
    let service = Service::start_with_manual_clock().await;
    let org = service.org().await;
    let owner = service.member(&org, &[Role::Owner]).await;
    let (token, path, fields) = (owner.form_token(), org.page("bots/add"), [("name", "ci"), MANAGER]);
    let answers = join_all((0..10).map(|_| owner.submit_with(&token, &path, &fields))).await;
    let bot = only_bot(&service, &org).await;
    let (made, repeated): (Vec<_>, Vec<_>) = answers.into_iter().partition(|answer| answer.status == 200);
    assert_eq!((made.len(), repeated.len()), (1, 9));
    let late = owner.submit_with(&token, &path, &fields).await;
    for answer in repeated.iter().chain([&late]) {
        assert_eq!(answer.status, 409, "{}", answer.text);
        assert!(answer.text.contains(bot.as_str()) && answer.text.contains(&org.page("bots")), "{}", answer.text);
        assert!(keys_on(answer).is_empty());
    }
    assert_eq!(logged(&service, &org).await, ["member bot.create"]);
}

#[tokio::test]
async fn roles_are_changed_from_the_next_call_on() {
    let service = Service::start_with_manual_clock().await;
    let (org, owner, bot) = page_and_bot(&service).await;
    let path = org.page(&format!("bots/{}/roles", bot.id));
    let changed = owner.submit(&path, &[ISSUER, ("role", "organization/api_key_manager")]).await;
    assert_eq!(
        (changed.status.as_u16(), changed.header("location")),
        (303, &*org.page(&format!("bots/{}?changed", bot.id)))
    );
    let page = owner.get(changed.header("location")).await;
    assert!(page.text.contains("The roles were changed."), "{}", page.text);
    for (role, checked) in [("takumi_manager", false), ("takumi_guard_token_issuer", true), ("api_key_manager", true)] {
        assert_eq!(page.text.contains(&format!("value=\"organization/{role}\" checked")), checked, "{role}");
    }
    service.issue(&org, &bot, "alice-laptop").await;
    service.call(Method::GET, &org.org_user_tokens(""), &bot.credential).await.assert_error(403, "FORBIDDEN");
    assert_eq!(logged(&service, &org).await.iter().filter(|entry| *entry == "member bot.set_roles").count(), 1);

    for fields in [&[][..], &[("role", "organization/member")], &[ISSUER, ("role", "owner")]] {
        let refused = owner.submit(&path, fields).await;
        assert_eq!(refused.status, 400, "{}", refused.text);
        assert!(refused.text.contains("id=\"roles-error\"") && refused.text.contains("Select at least one role."));
    }
    assert_eq!(service.store.bot(&bot.id).await.unwrap().unwrap().revision, 1);
}

#[tokio::test]
async fn key_is_rotated_with_and_without_overlap() {
    let service = Service::start_with_manual_clock().await;
    for (overlap, hours) in [("", 0), ("1h", 1), ("24h", 24), ("7d", 168)] {
        let (org, owner, old) = page_and_bot(&service).await;
        let path = org.page(&format!("bots/{}/rotate", old.id));
        let rotated = owner.submit(&path, &[("overlap", overlap)]).await;
        let new = credential_on(&rotated, &old.id);
        assert_eq!(service.whoami(&new.credential).await.status, 200);
        assert_eq!(rotated.text.contains("The old API key ends at"), hours > 0, "{}", rotated.text);
        if hours > 0 {
            let ends = service.clock.now().plus(Duration::from_secs(hours * 3_600));
            let page = owner.get(&org.page(&format!("bots/{}", old.id))).await;
            for page in [&rotated, &page] {
                assert!(page.text.contains(&format!("The old API key ends at {ends}.")), "{}", page.text);
            }
            service.clock.advance(Duration::from_secs(hours * 3_600 - 1));
            assert_eq!(service.whoami(&old.credential).await.status, 200);
            service.clock.advance(Duration::from_secs(1));
        }
        assert_eq!(service.whoami(&old.credential).await.status, 401);
        assert_eq!(service.whoami(&new.credential).await.status, 200);
        let rotations = logged(&service, &org).await.iter().filter(|entry| *entry == "member bot.rotate_key").count();
        assert_eq!(rotations, 1);
    }
}

#[tokio::test]
async fn overlap_that_is_not_offered_is_refused() {
    let service = Service::start_with_manual_clock().await;
    let (org, owner, bot) = page_and_bot(&service).await;
    for overlap in ["8d", "365d", "-1h", "soon"] {
        let path = org.page(&format!("bots/{}/rotate", bot.id));
        assert_eq!(owner.submit(&path, &[("overlap", overlap)]).await.status, 400);
    }
    assert_eq!(service.whoami(&bot.credential).await.status, 200);
}

#[tokio::test]
async fn form_asks_when_the_new_key_expires_if_the_old_one_has() {
    let service = Service::start_with_manual_clock().await;
    let (org, owner, bot) = page_and_bot(&service).await;
    let (page, path) = (org.page(&format!("bots/{}", bot.id)), org.page(&format!("bots/{}/rotate", bot.id)));
    let expires_at = Some(service.clock.now().plus(Duration::from_secs(3_600)));
    let rotated = service.store.rotate_bot_key_until(&bot.id, Duration::ZERO, false, expires_at, &operator()).await;
    let (asks, asked) = ("Choose when the new one expires.", "name=\"expiry\" value=\"90\" checked");
    assert!(rotated.unwrap().is_some() && !owner.get(&page).await.text.contains(asks));
    service.clock.advance(Duration::from_secs(3_600));
    let shown = owner.get(&page).await.text;
    assert!(shown.contains(asks) && shown.contains(asked), "{shown}");
    for fields in [&[("overlap", "")][..], &[("overlap", ""), ("expiry", "date"), ("expiry_date", "2026-11-20")]] {
        let refused = owner.submit(&path, fields).await;
        assert_eq!(refused.status, 400, "{}", refused.text);
        assert!(refused.text.contains(asks) && refused.text.contains("id=\"expiry-error\""), "{}", refused.text);
        assert!(keys_on(&refused).is_empty());
    }
    let renewed = owner.submit(&path, &[("overlap", ""), ("expiry", "30")]).await;
    assert_eq!(service.whoami(&credential_on(&renewed, &bot.id).credential).await.status, 200);
    let stored = service.store.bot(&bot.id).await.unwrap().unwrap();
    let month = service.clock.now().plus(Duration::from_secs(30 * 24 * 3_600));
    assert_eq!(stored.keys[0].expires_at, Some(month));
    // Now the next one takes that over, whatever a form says.
    let next = owner.submit(&path, &[("overlap", ""), ("expiry", "never")]).await;
    assert_eq!(next.status, 200, "{}", next.text);
    assert_eq!(service.store.bot(&bot.id).await.unwrap().unwrap().keys[0].expires_at, Some(month));
}

#[tokio::test]
async fn rotation_that_is_sent_twice_makes_one_key() {
    let service = Service::start_with_manual_clock().await;
    let (org, owner, bot) = page_and_bot(&service).await;
    let (token, path) = (owner.form_token(), org.page(&format!("bots/{}/rotate", bot.id)));
    let answers = join_all((0..10).map(|_| owner.submit_with(&token, &path, &[("overlap", "")]))).await;
    let (made, repeated): (Vec<_>, Vec<_>) = answers.into_iter().partition(|answer| answer.status == 200);
    assert_eq!((made.len(), repeated.len()), (1, 9));
    assert!(repeated.iter().all(|answer| answer.status == 409 && keys_on(answer).is_empty()));
    assert_eq!(service.whoami(&credential_on(&made[0], &bot.id).credential).await.status, 200);
    assert_eq!(service.store.bot(&bot.id).await.unwrap().unwrap().revision, 1);
}

#[tokio::test]
async fn bot_is_deleted_after_confirmation() {
    let service = Service::start_with_manual_clock().await;
    let (org, owner, bot) = page_and_bot(&service).await;
    let token = service.issue(&org, &bot, "alice-laptop").await;
    let path = org.page(&format!("bots/{}/delete", bot.id));
    let asked = owner.get(&path).await;
    assert!(asked.text.contains("The tokens it issued stay valid."), "{}", asked.text);
    assert_eq!(service.whoami(&bot.credential).await.status, 200);
    let deleted = owner.submit(&path, &[]).await;
    assert_eq!((deleted.status.as_u16(), deleted.header("location")), (303, &*org.page("bots?deleted")));
    assert!(owner.get(&org.page("bots?deleted")).await.text.contains("The bot was deleted."));
    assert_eq!(service.whoami(&bot.credential).await.status, 401);
    assert_eq!(service.whoami(&token.token).await.status, 200);
    for gone in [owner.get(&path).await, owner.submit(&path, &[]).await] {
        assert_eq!(gone.status, 404, "{}", gone.text);
    }
    assert!(logged(&service, &org).await.contains(&"member bot.delete".to_owned()));
}

/// Every page and form of one bot.
fn requests_about(org: &Org, bot: &BotId, trust: &TrustId) -> Vec<Submission> {
    let page = |rest: &str| org.page(&format!("bots/{bot}{rest}"));
    vec![
        (Method::GET, page(""), vec![]),
        (Method::GET, page("/delete"), vec![]),
        (Method::POST, page("/roles"), vec![MANAGER]),
        (Method::POST, page("/rotate"), vec![("overlap", "24h")]),
        (Method::POST, page("/delete"), vec![]),
        (Method::GET, page("/trusts/add"), vec![]),
        (Method::POST, page("/trusts/add"), vec![("audience", "guard.example.com"), ("repository_owner_id", "1")]),
        (Method::GET, page(&format!("/trusts/{trust}/remove")), vec![]),
        (Method::POST, page(&format!("/trusts/{trust}/remove")), vec![]),
        (Method::GET, page("/end-tokens"), vec![]),
        (Method::POST, page("/end-tokens"), vec![]),
    ]
}

async fn send(visitor: &Visitor<'_>, method: &Method, path: &str, fields: &[(&str, &str)]) -> Answer {
    if *method == Method::GET { visitor.get(path).await } else { visitor.submit(path, fields).await }
}

#[tokio::test]
async fn bot_of_another_organization_is_not_found() {
    let service = Service::start_with_manual_clock().await;
    let (org, owner, _) = page_and_bot(&service).await;
    let (other, _, foreign) = page_and_bot(&service).await;
    let trust = service.trust(&foreign, &[]).await.id;
    let before = service.table.items().await;
    let unknown = BotId::parse("BT01KAJ8M4R2X7Z9V5T3Q1N6P8WC").unwrap();
    let here = requests_about(&org, &foreign.id, &trust).into_iter().chain(requests_about(&org, &unknown, &trust));
    for (method, path, fields) in here.chain(requests_about(&other, &foreign.id, &trust)) {
        let answer = send(&owner, &method, &path, &fields).await;
        assert_eq!(answer.status, 404, "{method} {path}: {}", answer.text);
    }
    for malformed in ["..", "BT1", "%00", "bots"] {
        assert_eq!(owner.get(&org.page(&format!("bots/{malformed}/delete"))).await.status, 404, "{malformed}");
    }
    assert_eq!(service.table.items().await, before);
}

#[tokio::test]
async fn only_owners_see_and_use_the_page() {
    let service = Service::start_with_manual_clock().await;
    let (org, _, bot) = page_and_bot(&service).await;
    let trust = service.trust(&bot, &[]).await.id;
    let mut requests = requests_about(&org, &bot.id, &trust);
    requests.extend([
        (Method::GET, org.page("bots"), vec![]),
        (Method::GET, org.page("bots/add"), vec![]),
        (Method::POST, org.page("bots/add"), vec![("name", "ci"), MANAGER]),
    ]);
    for &role in Role::ALL.iter().filter(|role| **role != Role::Owner) {
        let visitor = service.member(&org, &[role]).await;
        for (method, path, fields) in &requests {
            let answer = send(&visitor, method, path, fields).await;
            assert_eq!(answer.status, 403, "{role:?} {method} {path}: {}", answer.text);
        }
        let overview = visitor.get(&org.page("")).await;
        assert!(!overview.text.contains(&org.page("bots")), "{role:?}: {}", overview.text);
    }
    let bots = service.store.bots(&org.id).await.unwrap();
    assert_eq!((bots.len(), bots[0].revision), (1, 0));
    assert_eq!(service.store.trusts(&bot.id).await.unwrap().len(), 1);
}

#[tokio::test]
async fn forms_without_the_sessions_own_token_are_refused() {
    let service = Service::start_with_manual_clock().await;
    let (org, owner, bot) = page_and_bot(&service).await;
    let other = service.member(&org, &[Role::Owner]).await;
    let trust = service.trust(&bot, &[]).await.id;
    let before = service.table.items().await;
    let requests = requests_about(&org, &bot.id, &trust).into_iter().filter(|(method, ..)| *method == Method::POST);
    for (_, path, fields) in requests.chain([(Method::POST, org.page("bots/add"), vec![("name", "ci"), MANAGER])]) {
        let answer = owner.submit_with(&other.form_token(), &path, &fields).await;
        assert_eq!(answer.status, 403, "{path}: {}", answer.text);
        let token = owner.form_token();
        let fields = [&[("form_token", token.as_str())], &fields[..]].concat();
        let cross_site = owner.request(Method::POST, &path).header("origin", "https://evil.example").form(&fields);
        assert_eq!(service.send(cross_site).await.status, 403, "{path}");
    }
    assert_eq!(service.table.items().await, before);
}

/// An owner who is demoted while a request is on its way gives no rights to anybody.
#[tokio::test]
async fn owner_who_was_cut_off_meanwhile_gives_no_rights() {
    let service = Service::start_with_manual_clock().await;
    let (org, owner, bot) = page_and_bot(&service).await;
    service.member(&org, &[Role::Owner]).await;
    let (store, operator) = (&service.store, &operator());
    let member = store.membership(owner.person.id, &org.id).await.unwrap().unwrap();
    let authority = Authority::Member(&member);
    let demoted = store.set_member_roles(&org.id, &member.id, &[Role::Member], Authority::Operator, operator).await;
    assert_eq!(demoted.unwrap(), MemberChange::Done);
    let before = service.table.items().await;
    let by = By { api_key: None, authority, caller: operator, once: None };
    let added = store.create_bot_by(by, &org.id, "ci", &[Role::Owner], None).await.unwrap();
    let changed = store.set_bot_roles_by(authority, &bot.id, &[Role::Owner], operator).await.unwrap();
    let key = KeyToRotate { bot: bot.id.clone(), renewed_until: None };
    let old = StoredBot::find(store, &org.id, &key, u64::MAX).await.unwrap().unwrap();
    let rotation = Rotation { overlap: Duration::ZERO, until_first_use: false, expires_at: None };
    let rotated = StoredBot::rotate(store, old, rotation, by).await.unwrap();
    let outcomes = [format!("{added:?}"), format!("{changed:?}"), format!("{rotated:?}")];
    assert_eq!(outcomes, ["CallerChanged"; 3]);
    assert_eq!(service.table.items().await, before);
    // The page that was filled in before.
    assert_eq!(owner.submit(&org.page("bots/add"), &[("name", "ci"), MANAGER]).await.status, 403);
    store.remove_member(&org.id, &member.id, Authority::Operator, operator).await.unwrap();
    let removed = owner.submit(&org.page("bots/add"), &[("name", "ci"), MANAGER]).await;
    assert_eq!((removed.status.as_u16(), removed.header("location")), (303, "/console/sign-in"));
}

#[tokio::test]
async fn page_shows_when_the_key_was_used_and_until_when_the_old_one_works() {
    let service = Service::start_with_manual_clock().await;
    let (org, owner, bot) = page_and_bot(&service).await;
    let page = async || owner.get(&org.page(&format!("bots/{}", bot.id))).await.text;
    service.clock.advance(Duration::from_secs(360));
    assert!(!page().await.contains("2026-11-21T10:06:00Z"));
    assert_eq!(service.whoami(&bot.credential).await.status, 200);
    assert!(page().await.contains("2026-11-21T10:06:00Z"));
    let rotated = owner.submit(&org.page(&format!("bots/{}/rotate", bot.id)), &[("overlap", "first-use")]).await;
    let (new, said) =
        (credential_on(&rotated, &bot.id), "The old API key ends when the new one is used, or at 2026-11-28");
    assert!(rotated.text.contains(said), "{}", rotated.text);
    let shown = page().await;
    assert!(shown.contains(said) && shown.contains("Never used"), "{shown}");
    assert_eq!(service.whoami(&new.credential).await.status, 200);
    let shown = page().await;
    assert!(!shown.contains("The old API key") && !shown.contains("Never used"), "{shown}");
    assert_eq!(service.whoami(&bot.credential).await.status, 401);
}
