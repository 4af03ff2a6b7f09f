//! The page of the audit log, and its CSV.

use std::time::Duration;

use reqwest::Method;
use shared::permissions::Role;
use shared::store::audit::Caller;
use shared::store::bot_tokens::REFUSALS_PER_HOUR;
use tests::console::{Visitor, unescaped};
use tests::{Bot, Org, Service, operator};

async fn page(service: &Service) -> (Org, Bot, Visitor<'_>) {
    let (org, bot) = service.org_with_owner().await;
    let visitor = service.member(&org, &[Role::Owner]).await;
    (org, bot, visitor)
}

/// The actions on a page, newest first.
fn actions(page: &str) -> Vec<&str> {
    page.split("<div><code>").skip(1).map(|rest| rest.split('<').next().unwrap()).collect()
}

#[tokio::test]
async fn entries_are_filtered_by_actor_action_target_and_day() {
    let service = Service::start_with_manual_clock().await;
    let (org, bot, _) = page(&service).await;
    let first = service.issue(&org, &bot, "alice-laptop").await;
    service.clock.advance(Duration::from_secs(24 * 60 * 60));
    service.revoke(&org, &bot, &first).await;
    let refused = service.bot(&org, &[Role::TokenIntrospector]).await;
    let body = serde_json::json!({"user_identifier": "alice-laptop"});
    let answer = service.post(&org.org_user_tokens(""), &refused.credential, &body).await;
    answer.assert_error(403, "FORBIDDEN");
    let visitor = service.member(&org, &[Role::Owner]).await;
    let (issue, revoke) = ("org_user_token.issue", "org_user_token.revoke");
    let by = format!("?actor={}&action={issue}", bot.id);
    let by_spaces = format!("?actor=+{}+&action={issue}", bot.id);
    let on = format!("?target={}", first.id);
    let next_day = format!("?target={}&from=2026-11-22&to=2026-11-22", first.id);
    for (query, expected) in [
        (by.as_str(), &[issue][..]),
        (&by_spaces, &[issue]),
        (&on, &[revoke, issue]),
        (&next_day, &[revoke]),
        ("?action=org_user_token.issue", &[issue, issue]),
        ("?action=nothing.at_all", &[]),
        ("?actor=two+words", &[]),
        ("?to=2026-11-20", &[]),
    ] {
        let found = visitor.get(&org.page(&format!("audit-log{query}"))).await;
        assert_eq!(found.status, 200, "{query}: {}", found.text);
        assert_eq!(actions(&found.text), expected, "{query}");
        assert_eq!(found.text.contains("No entry matches these filters."), expected.is_empty(), "{query}");
    }
    let all = visitor.get(&org.page("audit-log?actor=&action=&target=&from=&to=&unknown=1")).await;
    for shown in [">Done<", ">Refused<", bot.id.as_str(), first.id.as_str(), "127.0.0.1", "org_user_token"] {
        assert!(all.text.contains(shown), "{shown}: {}", all.text);
    }
}

#[tokio::test]
async fn pages_follow_each_other_with_the_same_filters() {
    let service = Service::start_with_manual_clock().await;
    let (org, _, visitor) = page(&service).await;
    for n in 0..53 {
        service.clock.advance(Duration::from_millis(1));
        service.store.add_project(&org.id, &format!("project-{n:02}"), &operator()).await.unwrap();
    }
    let first = visitor.get(&org.page("audit-log?action=project.add")).await;
    assert_eq!(actions(&first.text).len(), 50);
    let link = unescaped(&first.text).split("\" rel=\"next\"").next().unwrap().to_owned();
    let link = link.rsplit("href=\"").next().unwrap().to_owned();
    let second = visitor.get(&link).await;
    assert_eq!(actions(&second.text), ["project.add"; 3], "{}", second.text);
    assert!(second.text.contains("project-02") && second.text.contains("First page"), "{}", second.text);
    assert_eq!(visitor.get(&link.replace("project.add", "project.remove")).await.status, 400);
}

#[tokio::test]
async fn csv_is_that_of_the_api_byte_for_byte() {
    let service = Service::start_with_manual_clock().await;
    let (org, bot, visitor) = page(&service).await;
    let token = service.issue(&org, &bot, "alice-laptop").await;
    let target = format!("?target={}", token.id);
    for (query, of_api) in [
        ("", ""),
        ("?action=org_user_token.issue", "?action=org_user_token.issue"),
        (&target, &target),
        ("?from=2026-11-21&to=2026-11-21", "?from=2026-11-21T00:00:00Z&to=2026-11-22T00:00:00Z"),
        ("?limit=1", "?limit=1"),
        ("?actor=two+words", "?actor=nobody"),
    ] {
        let csv = visitor.get(&org.page(&format!("audit-log.csv{query}"))).await;
        let request = service.request(Method::GET, &org.audit_log(of_api)).bearer_auth(&bot.credential);
        let expected = service.send(request.header("accept", "text/csv")).await;
        assert_eq!((csv.status.as_u16(), &csv.text), (200, &expected.text), "{query}");
        for header in ["content-type", "link"] {
            assert_eq!(csv.header(header), expected.header(header), "{query}");
        }
        let shown = visitor.get(&org.page(&format!("audit-log{query}"))).await;
        assert!(unescaped(&shown.text).contains(&org.page("audit-log.csv")), "{}", shown.text);
    }
    assert_eq!(visitor.get(&org.page("audit-log.csv?to=tomorrow")).await.status, 400);
}

#[tokio::test]
async fn day_that_is_none_is_an_error_beside_its_field() {
    let service = Service::start_with_manual_clock().await;
    let (org, _, visitor) = page(&service).await;
    for field in ["from", "to"] {
        let answer = visitor.get(&org.page(&format!("audit-log?{field}=2026-02-30&action=bot.create"))).await;
        assert_eq!(answer.status, 400, "{}", answer.text);
        let error = answer.text.split(&format!("id=\"{field}-error\"")).nth(1).unwrap().split("</p>").next().unwrap();
        assert!(error.contains("Enter a day, such as 2026-11-21."), "{error}");
        for typed in ["value=\"2026-02-30\"", "value=\"bot.create\""] {
            assert!(answer.text.contains(typed), "{}", answer.text);
        }
    }
}

/// Refusals of exchanges share an entry.
#[tokio::test]
async fn job_detail_and_count_of_an_entry_are_shown_where_present() {
    let service = Service::start_with_manual_clock().await;
    let (org, bot, visitor) = page(&service).await;
    let plain = visitor.get(&org.page("audit-log")).await;
    assert!(!plain.text.contains("Workload:") && !plain.text.contains(" times"), "{}", plain.text);
    for n in 0..REFUSALS_PER_HOUR + 3 {
        let workload = Some(format!("repo:acme/widgets-{n}"));
        let (why, caller) = ("claim repository_owner_id".to_owned(), Caller { workload, ..operator() });
        service.store.record_refused_exchange(&org.id, &bot.id, why, &caller).await.unwrap();
    }
    let shown = visitor.get(&org.page("audit-log?action=bot.exchange&limit=100")).await;
    for text in ["Workload: repo:acme/widgets-0<", ">claim repository_owner_id<", ">3 times<"] {
        assert!(shown.text.contains(text), "{text}: {}", shown.text);
    }
    let request = visitor.request(Method::GET, &org.page("audit-log?action=bot.exchange&limit=100"));
    let request = request.header("accept-language", "ja");
    assert!(service.send(request).await.text.contains(">3回<"));
}

#[tokio::test]
async fn stored_text_is_escaped() {
    let service = Service::start_with_manual_clock().await;
    let (org, _, visitor) = page(&service).await;
    service.store.add_project(&org.id, "<script>alert(1)</script>", &operator()).await.unwrap();
    let answer = visitor.get(&org.page("audit-log")).await;
    assert!(!answer.text.contains("<script>alert") && answer.text.contains("&#60;script&#62;alert"), "{}", answer.text);
    let (_, bot) = service.org_with_owner().await;
    let (why, workload) = ("<i>why</i>".to_owned(), Some("<i>job</i>".to_owned()));
    let caller = Caller { workload, ..operator() };
    service.store.record_refused_exchange(&org.id, &bot.id, why, &caller).await.unwrap();
    let answer = visitor.get(&org.page("audit-log?action=bot.exchange")).await;
    assert!(!answer.text.contains("<i>") && answer.text.contains("&#60;i&#62;job&#60;/i&#62;"), "{}", answer.text);
}

#[tokio::test]
async fn only_those_who_may_read_the_log_see_it() {
    let service = Service::start_with_manual_clock().await;
    let (org, ..) = page(&service).await;
    let other = service.org().await;
    service.set_guard(&org.id, false).await;
    for &role in Role::ALL {
        let visitor = service.member(&org, &[role]).await;
        let reads = matches!(role, Role::Owner | Role::Manager);
        for page in ["audit-log", "audit-log.csv"] {
            let answer = visitor.get(&org.page(page)).await;
            assert_eq!(answer.status, if reads { 200 } else { 403 }, "{role:?} {page}");
            assert_eq!(answer.text.contains("member.invite"), reads, "{role:?} {page}");
            assert_eq!(visitor.get(&other.page(page)).await.status, 404, "{role:?} {page}");
        }
        let link = format!("href=\"{}\"", org.page("audit-log"));
        assert_eq!(visitor.get(&org.page("")).await.text.contains(&link), reads, "{role:?}");
    }
}
