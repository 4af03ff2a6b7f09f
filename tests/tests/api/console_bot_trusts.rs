//! The trusts of a bot on its page, and the end of its jobs' tokens.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::future::join_all;
use reqwest::Method;
use shared::domain::OrUnknown;
use shared::permissions::Role;
use shared::store::members::{Authority, MemberChange};
use shared::store::trusts::BotTokensEnded;
use shared::trust::{MAX_TRUSTS, NewTrust, Trust, Wanted};
use tests::ci::WORKLOAD;
use tests::console::{Visitor, unescaped, with_form};
use tests::issuer::AUDIENCE;
use tests::table::text;
use tests::{Answer, Bot, Org, Service, operator};

const MANAGER: (&str, &str) = ("role", "organization/takumi_manager");
const HOST: (&str, &str) = ("audience", "guard.example.com");
const OWNER_ID: (&str, &str) = ("repository_owner_id", "1342004");
const GITHUB: [(&str, &str); 3] = [("preset", "github"), HOST, OWNER_ID];
const GITLAB: [(&str, &str); 4] =
    [("preset", "gitlab"), HOST, ("issuer", "https://gitlab.com"), ("namespace_id", "9970")];
const ANY: [(&str, &str); 4] =
    [("preset", "any"), HOST, ("issuer", "https://ci.example.com/acme"), ("claims", "sub=acme/widgets")];

async fn page_and_bot(service: &Service) -> (Org, Visitor<'_>, Bot) {
    let org = service.org().await;
    let owner = service.member(&org, &[Role::Owner]).await;
    let bot = service.bot(&org, &[Role::Manager]).await;
    (org, owner, bot)
}

/// A path below that of the bot's page, such as `trusts/add`.
fn page(org: &Org, bot: &Bot, rest: &str) -> String {
    org.page(&format!("bots/{}/{rest}", bot.id))
}

async fn trusts(service: &Service, bot: &Bot) -> Vec<Trust> {
    service.store.trusts(&bot.id).await.unwrap()
}

/// The actions on trusts and tokens of bots, with actor and detail, oldest first.
async fn logged(service: &Service, org: &Org) -> Vec<String> {
    let mut entries = service.table.items().await;
    let log = format!("ORG#{}#AUDIT", org.id);
    let actions = ["bot.add_trust", "bot.remove_trust", "bot.end_tokens"];
    entries.retain(|item| text(item, "pk") == log && actions.contains(&text(item, "action")));
    let line = |entry: &serde_json::Value| {
        let detail = entry["detail"].as_str().unwrap_or_default();
        format!("{} {} {} {detail}", text(&entry["actor"], "kind"), text(entry, "action"), text(&entry["target"], "id"))
    };
    entries.iter().map(|entry| line(entry).trim_end().to_owned()).collect()
}

/// A form with this field changed, or without it if it is empty.
fn with<'a>(form: &[(&'a str, &'a str)], name: &'a str, value: &'a str) -> Vec<(&'a str, &'a str)> {
    let kept = form.iter().copied().filter(|(field, _)| *field != name);
    kept.chain([(name, value)]).collect()
}

/// The error beside a field.
#[track_caller]
fn error_of(answer: &Answer, field: &str) -> String {
    let (_, rest) = answer
        .text
        .split_once(&format!("id=\"{field}-error\""))
        .unwrap_or_else(|| panic!("no error of {field}: {}", answer.text));
    unescaped(rest.split("</p>").next().unwrap())
}

#[tokio::test]
async fn trust_of_each_preset_is_added_and_listed_with_who_added_it() {
    let service = Service::start_with_manual_clock().await;
    let whole_github = [
        &GITHUB[..],
        &[("repository_id", "1296269"), ("repository", "acme/widgets"), ("ref", "refs/heads/*")],
        &[("environment", " production "), MANAGER, ("may_mint_longer", "true")],
        // Of another preset, so not part of this one.
        &[("namespace_id", "1"), ("issuer", "https://evil.example"), ("claims", "a=b"), ("subject_claim", "jti")],
    ]
    .concat();
    let whole_gitlab = [&GITLAB[..], &[("project_id", "7"), ("ref_path", "refs/tags/v1"), ("ref", "main")]].concat();
    let lines = "sub=acme/widgets\r\n\r\n  pipeline = a=b \r\nref=refs/heads/*";
    let whole_any = [&with(&ANY, "claims", lines)[..], &[("subject_claim", "job"), OWNER_ID]].concat();
    for (fields, issuer, claims, subject_claim) in [
        (
            &whole_github,
            "https://token.actions.githubusercontent.com",
            &[
                ("environment", "production"),
                ("ref", "refs/heads/*"),
                ("repository", "acme/widgets"),
                ("repository_id", "1296269"),
                OWNER_ID,
            ][..],
            "sub",
        ),
        (
            &whole_gitlab,
            "https://gitlab.com",
            &[("namespace_id", "9970"), ("project_id", "7"), ("ref_path", "refs/tags/v1")],
            "sub",
        ),
        (
            &whole_any,
            "https://ci.example.com/acme",
            &[("pipeline", "a=b"), ("ref", "refs/heads/*"), ("sub", "acme/widgets")],
            "job",
        ),
    ] {
        let (org, owner, bot) = page_and_bot(&service).await;
        let before = owner.get(&page(&org, &bot, "")).await;
        assert!(before.text.contains("This bot trusts no CI jobs."), "{}", before.text);
        let added = owner.submit(&page(&org, &bot, "trusts/add"), fields).await;
        let location = page(&org, &bot, "") + "?trust_added";
        assert_eq!((added.status.as_u16(), added.header("location")), (303, &*location), "{}", added.text);

        let [trust] = &trusts(&service, &bot).await[..] else { panic!() };
        let expected: BTreeMap<_, _> = claims.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
        assert_eq!((trust.issuer.as_str(), trust.audience.as_str()), (issuer, "guard.example.com"));
        assert_eq!((&trust.claims, trust.subject_claim.as_str()), (&expected, subject_claim));
        let is_whole = fields == &whole_github;
        let roles: &[OrUnknown<Role>] = if is_whole { &[OrUnknown::Known(Role::Manager)] } else { &[] };
        assert_eq!((trust.roles.as_slice(), trust.may_mint_longer), (roles, is_whole));

        let shown = owner.get(added.header("location")).await;
        let shown = unescaped(&shown.text);
        for (name, value) in claims {
            assert!(shown.contains(&format!("<code>{name}={value}</code>")), "{shown}");
        }
        let member = service.store.membership(owner.person.id, &org.id).await.unwrap().unwrap().id;
        let workload = format!("Workload: {subject_claim}");
        let texts = ["The trust was added.", "Audience: guard.example.com", issuer, &workload, member.as_str()];
        let rights = if is_whole { ["Guard manager", "may create what outlives"] } else { ["Registries only"; 2] };
        for text in texts.into_iter().chain(rights).chain(["2026-11-21T10:00:00Z"]) {
            assert!(shown.contains(text), "{text}: {shown}");
        }
        assert_eq!(shown.contains("may create what outlives"), is_whole);
        assert_eq!(logged(&service, &org).await, [format!("member bot.add_trust {} {}", bot.id, trust.id)]);
    }
}

#[tokio::test]
async fn preset_changes_the_fields_of_the_form() {
    let service = Service::start_with_manual_clock().await;
    let (org, owner, bot) = page_and_bot(&service).await;
    let github = ["repository_owner_id", "repository_id", "repository", "ref"];
    let gitlab = ["namespace_id", "project_id", "ref_path"];
    let any = ["claims", "subject_claim"];
    let everything = [&github[..], &gitlab, &any, &["issuer", "environment"]].concat();
    for (query, preset, fields) in [
        ("", "github", [&github[..], &["environment"]].concat()),
        ("?preset=github", "github", [&github[..], &["environment"]].concat()),
        ("?preset=jenkins", "github", [&github[..], &["environment"]].concat()),
        ("?preset=gitlab", "gitlab", [&gitlab[..], &["environment", "issuer"]].concat()),
        ("?preset=any", "any", [&any[..], &["issuer"]].concat()),
    ] {
        let form = owner.get(&format!("{}{query}", page(&org, &bot, "trusts/add"))).await;
        assert_eq!(form.status, 200, "{}", form.text);
        for field in &everything {
            let is_shown = form.text.contains(&format!(" name=\"{field}\""));
            assert_eq!(is_shown, fields.contains(field), "{query} {field}: {}", form.text);
        }
        assert!(form.text.contains(&format!("name=\"preset\" value=\"{preset}\"")), "{}", form.text);
        for other in ["github", "gitlab", "any"] {
            assert!(form.text.contains(&format!("{}?preset={other}\"", page(&org, &bot, "trusts/add"))));
        }
        // The audience that the service accepts by default, and the roles of the bot.
        assert!(form.text.contains("name=\"audience\" value=\"127.0.0.1\""), "{}", form.text);
        assert_eq!(form.text.matches("name=\"role\"").count(), 1, "{}", form.text);
        assert!(form.text.contains("value=\"organization/takumi_manager\"") && !form.text.contains(" checked"));
    }
}

#[tokio::test]
async fn errors_of_each_preset_are_beside_the_field_with_what_was_typed() {
    let service = Service::start_with_manual_clock().await;
    let (org, owner, bot) = page_and_bot(&service).await;
    let long = "a".repeat(256);
    let many: String = (0..11).map(|n| format!("c{n}=a\n")).collect();
    let path = page(&org, &bot, "trusts/add");
    let before = service.table.items().await;
    for (fields, field, message) in [
        (with(&GITHUB, "repository_owner_id", ""), "repository_owner_id", "Enter the ID of the owner."),
        (with(&GITHUB, "repository_owner_id", "acme"), "repository_owner_id", "Enter the number."),
        (with(&GITHUB, "repository_owner_id", "*"), "repository_owner_id", "Enter the number."),
        (with(&GITHUB, "repository_id", "widgets"), "repository_id", "Enter the number."),
        (with(&GITHUB, "repository", "acme*"), "repository", "Use * only at the end"),
        (with(&GITHUB, "repository", &long), "repository", "Enter 1 to 255 characters"),
        (with(&GITHUB, "ref", "main"), "ref", "Enter a full name"),
        (with(&GITHUB, "ref", "refs/heads/ma*"), "ref", "Use * only at the end"),
        (with(&GITHUB, "environment", "a\u{7}b"), "environment", "without control characters"),
        (with(&GITHUB, "audience", " "), "audience", "Enter 1 to 255 characters"),
        (with(&GITHUB, "role", "organization/owner"), "roles", "The bot does not have a role"),
        (with(&GITHUB, "role", "organization/member"), "roles", "The bot does not have a role"),
        (with(&GITHUB, "role", "emperor"), "roles", "The bot does not have a role"),
        (
            with(&GITHUB, "preset", "jenkins").into_iter().filter(|f| *f != OWNER_ID).collect(),
            "repository_owner_id",
            "Enter the ID",
        ),
        (with(&GITLAB, "namespace_id", ""), "namespace_id", "Enter the ID of the group or of the project."),
        (with(&GITLAB, "namespace_id", "acme"), "namespace_id", "Enter the number."),
        (with(&GITLAB, "project_id", "1/*"), "project_id", "Enter the number."),
        (with(&GITLAB, "ref_path", "main"), "ref_path", "Enter a full name"),
        (with(&GITLAB, "issuer", "gitlab.com"), "issuer", "Enter a URL"),
        (with(&GITLAB, "issuer", ""), "issuer", "Enter a URL"),
        (with(&GITLAB, "audience", &long), "audience", "Enter 1 to 255 characters"),
        (with(&ANY, "issuer", "javascript:alert(1)"), "issuer", "Enter a URL"),
        (with(&ANY, "claims", ""), "claims", "Enter the exact value of repository_owner_id"),
        (with(&ANY, "claims", "sub"), "claims", "as name=value"),
        (with(&ANY, "claims", "sub="), "claims", "sub: Enter 1 to 255 characters"),
        (with(&ANY, "claims", "=a\nsub=b"), "claims", "A claim's name has"),
        (with(&ANY, "claims", "sub=acme/*"), "claims", "Names can be taken"),
        (with(&ANY, "claims", "repository=acme/widgets\nsub=a"), "claims", "repository: Enter repository_owner_id or"),
        (with(&ANY, "claims", "project_id=1:*"), "claims", "project_id: Enter the exact value, without *."),
        (with(&ANY, "claims", "sub=a\nsub=b"), "claims", "sub: Enter this claim once."),
        (with(&ANY, "claims", &many), "claims", "Enter at most 10 claims."),
        (with(&ANY, "subject_claim", "a b"), "subject_claim", "A claim's name has"),
    ] {
        let answer = owner.submit(&path, &fields).await;
        assert_eq!(answer.status, 400, "{fields:?}: {}", answer.text);
        let error = error_of(&answer, field);
        assert!(error.contains(message), "{fields:?}: {error}");
        assert_eq!(answer.text.matches("-error\"><span").count(), 1, "{fields:?}: {}", answer.text);
        let shown = unescaped(&answer.text);
        assert!(shown.contains("Nothing was saved."), "{shown}");
        for (name, typed) in fields.iter().filter(|(name, _)| !["role", "preset"].contains(name)) {
            let kept = [format!("name=\"{name}\" value=\"{typed}\""), format!("\n{typed}</textarea>")];
            assert!(kept.iter().any(|kept| shown.contains(kept)), "{name}: {shown}");
        }
    }
    // Both errors at once, in Japanese.
    let token = owner.form_token();
    let fields =
        [("form_token", token.as_str()), ("preset", "any"), ("issuer", "ci"), ("claims", "sub=a"), ("role", "x")];
    let request = owner.request(Method::POST, &path).header("accept-language", "ja");
    let answer = service.send(with_form(request, &fields)).await;
    assert!(error_of(&answer, "issuer").contains("URLを入力してください"), "{}", answer.text);
    assert!(error_of(&answer, "roles").contains("選び直してください"), "{}", answer.text);
    assert_eq!(service.table.items().await, before);
}

#[tokio::test]
async fn job_acts_as_the_bot_until_its_trust_is_removed() {
    let service = Service::start_with_manual_clock().await;
    let (org, owner, bot) = page_and_bot(&service).await;
    let issuer = service.issuer.url();
    let fields = [("preset", "any"), ("issuer", issuer), ("audience", AUDIENCE), ("claims", "repository_owner_id=123")];
    let add = async || {
        let added = owner.submit(&page(&org, &bot, "trusts/add"), &[&fields[..], &[MANAGER]].concat()).await;
        assert_eq!(added.status, 303, "{}", added.text);
        trusts(&service, &bot).await.pop().unwrap().id
    };
    let trust = add().await;
    let job = service.exchanged(&bot).await;
    assert_eq!(service.call(Method::GET, &org.org_user_tokens(""), &job).await.status, 200);

    let remove = page(&org, &bot, &format!("trusts/{trust}/remove"));
    let asked = owner.get(&remove).await;
    for shown in ["Jobs that use it are signed out at their next request.", issuer, "repository_owner_id=123", AUDIENCE]
    {
        assert!(unescaped(&asked.text).contains(shown), "{shown}: {}", asked.text);
    }
    assert_eq!(service.whoami(&job).await.status, 200);
    let token = owner.form_token();
    let removed = owner.submit_with(&token, &remove, &[]).await;
    let location = org.page(&format!("bots/{}?trust_removed", bot.id));
    assert_eq!((removed.status.as_u16(), removed.header("location")), (303, &*location), "{}", removed.text);
    assert!(owner.get(&location).await.text.contains("The trust was removed."));
    assert_eq!(service.whoami(&job).await.status, 401);

    // Added again it is another one, which the old form does not remove.
    assert_ne!(add().await, trust);
    assert_eq!(service.whoami(&job).await.status, 401);
    for again in [owner.submit_with(&token, &remove, &[]).await, owner.get(&remove).await] {
        assert_eq!(again.status, 404, "{}", again.text);
    }
    assert_eq!(trusts(&service, &bot).await.len(), 1);
    assert_eq!(logged(&service, &org).await.len(), 3);
}

#[tokio::test]
async fn ended_tokens_are_refused_at_next_use_and_new_ones_can_be_had() {
    let service = Service::start_with_manual_clock().await;
    let (org, owner, bot) = page_and_bot(&service).await;
    let other = service.bot(&org, &[Role::Manager]).await;
    for bot in [&bot, &other] {
        service.trust(bot, &[Role::Manager]).await;
    }
    let jobs = [service.exchanged(&bot).await, service.exchanged(&bot).await, service.exchanged(&other).await];
    let path = page(&org, &bot, "end-tokens");
    let asked = owner.get(&path).await;
    assert!(asked.text.contains("are signed out at their next request"), "{}", asked.text);
    let token = owner.form_token();
    let location = org.page(&format!("bots/{}?tokens_ended", bot.id));
    for _ in 0..2 {
        let ended = owner.submit_with(&token, &path, &[]).await;
        assert_eq!((ended.status.as_u16(), ended.header("location")), (303, &*location), "{}", ended.text);
    }
    assert!(owner.get(&location).await.text.contains("All job tokens of the bot were ended."));
    for (job, status) in jobs.iter().zip([401, 401, 200]) {
        assert_eq!(service.whoami(job).await.status, status);
    }
    assert_eq!(service.whoami(&bot.credential).await.status, 200);
    let new = service.exchanged(&bot).await;
    assert_eq!(service.whoami(&new).await.status, 200);
    assert!(logged(&service, &org).await.contains(&format!("member bot.end_tokens {}", bot.id)));
}

#[tokio::test]
async fn form_that_is_sent_twice_adds_one_trust() {
    let service = Service::start_with_manual_clock().await;
    let (org, owner, bot) = page_and_bot(&service).await;
    let (token, path) = (owner.form_token(), page(&org, &bot, "trusts/add"));
    let answers = join_all((0..10).map(|_| owner.submit_with(&token, &path, &GITHUB))).await;
    let late = owner.submit_with(&token, &path, &GITHUB).await;
    for answer in answers.iter().chain([&late]) {
        assert_eq!(answer.status, 303, "{}", answer.text);
        assert!(answer.header("location").ends_with("?trust_added"));
    }
    let other = owner.submit_with(&token, &path, &GITLAB).await;
    assert_eq!(other.status, 409, "{}", other.text);
    assert!(other.text.contains("Nothing was added a second time.") && !other.text.contains("ecret"), "{}", other.text);
    assert_eq!(trusts(&service, &bot).await.len(), 1);
    assert_eq!(logged(&service, &org).await.len(), 1);
    // A new form adds another one.
    assert_eq!(owner.submit(&path, &GITLAB).await.status, 303);
    assert_eq!(trusts(&service, &bot).await.len(), 2);
}

#[tokio::test]
async fn trust_beyond_the_limit_is_refused_with_a_sentence() {
    let service = Service::start_with_manual_clock().await;
    let (org, owner, bot) = page_and_bot(&service).await;
    for _ in 2..=MAX_TRUSTS {
        service.trust(&bot, &[]).await;
    }
    let path = page(&org, &bot, "trusts/add");
    let answers = join_all((0..5).map(|_| owner.submit(&path, &GITHUB))).await;
    let (added, refused): (Vec<_>, Vec<_>) = answers.iter().partition(|answer| answer.status == 303);
    assert_eq!((added.len(), refused.len()), (1, 4));
    for answer in refused {
        assert_eq!(answer.status, 400);
        assert!(answer.text.contains("The bot has as many trusts as it may have: 20."), "{}", answer.text);
        assert!(answer.text.contains("value=\"1342004\""), "{}", answer.text);
    }
    let stored = trusts(&service, &bot).await;
    assert_eq!(stored.len() as u64, MAX_TRUSTS);
    let shown = owner.get(&page(&org, &bot, "")).await;
    assert_eq!(shown.text.matches("/remove\"").count() as u64, MAX_TRUSTS, "{}", shown.text);
    let remove = page(&org, &bot, &format!("trusts/{}/remove", stored[3].id));
    assert_eq!(owner.submit(&remove, &[]).await.status, 303);
    assert_eq!(owner.submit(&path, &GITHUB).await.status, 303);
}

/// The bot loses a role while the form is open.
#[tokio::test]
async fn role_that_the_bot_lost_meanwhile_is_refused() {
    let service = Service::start_with_manual_clock().await;
    let (org, owner, bot) = page_and_bot(&service).await;
    let path = page(&org, &bot, "trusts/add");
    assert!(owner.get(&path).await.text.contains("organization/takumi_manager"));
    service.store.set_bot_roles(&bot.id, &[Role::ApiKeyManager], &operator()).await.unwrap().unwrap();
    let refused = owner.submit(&path, &[&GITHUB[..], &[MANAGER]].concat()).await;
    assert_eq!(refused.status, 400);
    assert!(error_of(&refused, "roles").contains("The bot does not have a role that you selected."));
    assert!(!refused.text.contains("organization/takumi_manager"), "{}", refused.text);
    assert!(trusts(&service, &bot).await.is_empty());
}

#[tokio::test]
async fn trust_that_several_owners_remove_at_once_is_removed_once() {
    let service = Service::start_with_manual_clock().await;
    let (org, owner, bot) = page_and_bot(&service).await;
    let other = service.member(&org, &[Role::Owner]).await;
    let (trust, kept) = (service.trust(&bot, &[]).await, service.trust(&bot, &[]).await);
    let path = page(&org, &bot, &format!("trusts/{}/remove", trust.id));
    let removals = join_all([&owner, &other, &owner, &other].map(|owner| owner.submit(&path, &[]))).await;
    let mut statuses: Vec<u16> = removals.iter().map(|answer| answer.status.as_u16()).collect();
    statuses.sort_unstable();
    assert_eq!(statuses, [303, 404, 404, 404]);
    assert_eq!(trusts(&service, &bot).await, [kept]);
    let removed = format!("member bot.remove_trust {} {}", bot.id, trust.id);
    assert_eq!(logged(&service, &org).await.iter().filter(|entry| **entry == removed).count(), 1);
    // The bot counts one trust: it can have 19 more.
    for _ in 1..MAX_TRUSTS {
        service.trust(&bot, &[]).await;
    }
    assert_eq!(owner.submit(&page(&org, &bot, "trusts/add"), &GITHUB).await.status, 400);
}

/// The trust of one bot under the path of another one, of the same organization.
#[tokio::test]
async fn trust_of_another_bot_is_not_found() {
    let service = Service::start_with_manual_clock().await;
    let (org, owner, bot) = page_and_bot(&service).await;
    let other = service.bot(&org, &[Role::Manager]).await;
    let trust = service.trust(&other, &[]).await;
    let before = service.table.items().await;
    for id in [trust.id.as_str(), "01KAJ8M4R2X7Z9V5T3Q1N6P8WC", "1", "..", "%00", "a b"] {
        let path = page(&org, &bot, &format!("trusts/{id}/remove"));
        for answer in [owner.get(&path).await, owner.submit(&path, &[]).await] {
            assert_eq!(answer.status, 404, "{id}: {}", answer.text);
        }
    }
    assert_eq!(service.table.items().await, before);
}

#[tokio::test]
async fn stored_text_of_trusts_is_escaped() {
    let service = Service::start_with_manual_clock().await;
    let (org, owner, bot) = page_and_bot(&service).await;
    let script = "<script>alert(1)</script>\"'";
    let claims = format!("sub={script}\n{script}=1");
    let fields = [
        ("preset", "any"),
        ("issuer", "https://ci.example.com/<script>alert(1)</script>"),
        ("audience", script),
        ("claims", &claims),
        ("subject_claim", script),
    ];
    let add = page(&org, &bot, "trusts/add");
    let refused = owner.submit(&add, &with(&fields, "claims", script)).await;
    assert_eq!(owner.submit(&add, &fields).await.status, 303);
    let remove = page(&org, &bot, &format!("trusts/{}/remove", trusts(&service, &bot).await[0].id));
    for answer in [refused, owner.get(&page(&org, &bot, "")).await, owner.get(&remove).await] {
        assert!(!answer.text.contains("<script>alert"), "{}", answer.text);
        assert!(answer.text.contains("&#60;script&#62;alert(1)"), "{}", answer.text);
    }
}

/// An owner who is demoted while a request is on its way lets no job in, and ends none.
#[tokio::test]
async fn owner_who_was_cut_off_meanwhile_changes_no_trust() {
    let service = Service::start_with_manual_clock().await;
    let (org, owner, bot) = page_and_bot(&service).await;
    service.member(&org, &[Role::Owner]).await;
    let trust = service.trust(&bot, &[]).await;
    let (store, operator) = (&service.store, &operator());
    let member = store.membership(owner.person.id, &org.id).await.unwrap().unwrap();
    let authority = Authority::Member(&member);
    let demoted = store.set_member_roles(&org.id, &member.id, &[Role::Member], Authority::Operator, operator).await;
    assert_eq!(demoted.unwrap(), MemberChange::Done);
    let before = service.table.items().await;
    let wanted = Wanted {
        issuer: trust.issuer.clone(),
        audience: trust.audience.clone(),
        claims: vec![("sub".to_owned(), "a".to_owned())],
        ..Wanted::default()
    };
    let wanted = NewTrust::try_from(wanted).unwrap();
    let added = store.add_trust(authority, &bot.id, wanted, operator, None).await.unwrap();
    assert_eq!(format!("{added:?}"), "CallerChanged");
    let removed = store.remove_trust(authority, &bot.id, &trust.id, operator).await.unwrap();
    let ended = store.end_bot_tokens(authority, &bot.id, operator).await.unwrap();
    assert_eq!([removed, ended], [BotTokensEnded::CallerChanged; 2]);
    assert_eq!(service.table.items().await, before);
    for (path, fields) in
        [("trusts/add", &GITHUB[..]), (&format!("trusts/{}/remove", trust.id), &[]), ("end-tokens", &[])]
    {
        assert_eq!(owner.submit(&page(&org, &bot, path), fields).await.status, 403, "{path}");
    }
    assert_eq!(trusts(&service, &bot).await, [trust]);
}

/// What a job does shows its name: in the audit log beside the bot, among installations in place of a
/// person.
#[tokio::test]
async fn workload_of_a_job_is_shown_in_the_audit_log() {
    let service = Service::start_with_manual_clock().await;
    let (org, owner, bot) = page_and_bot(&service).await;
    let trust = service.trust(&bot, &[Role::Manager]).await;
    let job = service.job_by(&bot, &trust, Duration::from_secs(60)).await;
    let end = service.clock.now().plus(Duration::from_secs(60)).to_string();
    let body = serde_json::json!({"user_identifier": "alice-laptop", "expires_at": end});
    let issued = service.post(&org.org_user_tokens(""), job.expose(), &body).await;
    assert_eq!(issued.status, 201, "{}", issued.text);
    let shown = owner.get(&org.page("audit-log?action=org_user_token.issue")).await;
    assert!(shown.text.contains(&format!("Workload: {WORKLOAD}")), "{}", shown.text);
    assert!(shown.text.contains(bot.id.as_str()), "{}", shown.text);
}
