//! The way to the person's organizations, and the overview of one.

use std::net::IpAddr;
use std::time::Duration;

use futures::{StreamExt, stream};
use reqwest::Method;
use shared::domain::Ecosystem;
use shared::ids::TokenId;
use shared::permissions::Role;
use shared::store::Store;
use shared::store::installations::{Download, Recorded};
use shared::store::members::Authority;
use tests::console::person;
use tests::faults::{Call, Fault};
use tests::table::{INSTALLATIONS, TABLE, text};
use tests::{Answer, Org, Service, hash_for, operator};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

fn download(ecosystem: Ecosystem, session: &str) -> Download {
    Download {
        ecosystem,
        package: "left-pad".to_owned(),
        version: "1.3.0".to_owned(),
        file: "left-pad-1.3.0.tgz".to_owned(),
        user_identifier: Some("alice-laptop".to_owned()),
        subject: None,
        token_id: TokenId::parse("01KAJ8M4R2X7Z9V5T3Q1N6P8WC").unwrap(),
        client: Some("npm".to_owned()),
        client_version: None,
        command: None,
        session: Some(session.to_owned()),
        source_ip: Some(IpAddr::from([203, 0, 113, 7])),
    }
}

async fn record(service: &Service, org: &Org, ecosystem: Ecosystem, session: &str) -> Recorded {
    let download = download(ecosystem, session);
    service.installation_log.record(Some(&org.id), hash_for(&download.token_id), &download).await.unwrap()
}

/// What each of the 14 days counts, oldest first.
async fn days(service: &Service, org: &Org) -> Vec<(String, u64, u64)> {
    let days = service.installation_log.by_day(&org.id).await.unwrap();
    days.into_iter().map(|day| (day.date, day.npm, day.pypi)).collect()
}

async fn counted(service: &Service, org: &Org) -> (u64, u64) {
    let days = days(service, org).await;
    days.iter().fold((0, 0), |(npm, pypi), day| (npm + day.1, pypi + day.2))
}

#[track_caller]
fn assert_leads(answer: &Answer, to: &str) {
    assert_eq!((answer.status.as_u16(), answer.header("location")), (303, to), "{}", answer.text);
}

#[tokio::test]
async fn root_leads_to_the_organizations_and_a_single_one_is_opened() {
    let service = Service::start_with_manual_clock().await;
    for path in ["/", "/console", "/console/"] {
        let answer = service.send(service.request(Method::GET, path)).await;
        assert_leads(&answer, "/console/organizations");
    }
    let signed_out = service.send(service.request(Method::GET, "/console/organizations")).await;
    assert_leads(&signed_out, "/console/sign-in?return_to=/console/organizations");
    let org = service.org().await;
    for &role in Role::ALL {
        let visitor = service.member(&org, &[role]).await;
        assert_leads(&visitor.get("/console/organizations").await, &org.page(""));
        assert_eq!(visitor.get(&org.page("")).await.status, 200);
    }
}

#[tokio::test]
async fn several_organizations_and_invitations_are_offered() {
    let service = Service::start_with_manual_clock().await;
    let (first, second, third) = (service.org().await, service.org().await, service.org().await);
    let alice = person("alice@example.com");
    let email = alice.email.clone();
    let invite = async |org: &Org, roles: &[Role]| {
        let invited = service.store.invite_member(&org.id, &email, roles, Authority::Operator, &operator()).await;
        invited.unwrap().unwrap();
    };
    invite(&third, &[Role::Owner]).await;
    let visitor = service.sign_in(&alice).await;
    let invited = visitor.get("/console/organizations").await;
    let to_third = format!("href=\"/console/account/invitations/{}\"", third.id);
    assert!(invited.status == 200 && invited.text.contains(&to_third), "{}", invited.text);
    service.join(&first.id, &alice, &[Role::Manager]).await;
    let one = visitor.get("/console/organizations").await;
    assert!(one.text.contains(&to_third) && one.text.contains(&format!("href=\"{}\"", first.page(""))), "{}", one.text);
    service.join(&second.id, &alice, &[Role::Owner]).await;
    service.join(&third.id, &alice, &[Role::Member]).await;
    // Somebody who is invited again is a member already.
    invite(&first, &[Role::Owner]).await;
    let all = visitor.get("/console/organizations").await;
    for org in [&first, &second, &third] {
        assert!(all.text.contains(&format!("href=\"{}\"", org.page(""))), "{}", all.text);
    }
    assert!(!all.text.contains("/invitations/") && all.text.contains("Guard manager"), "{}", all.text);
}

#[tokio::test]
async fn organizations_of_others_are_not_found_and_nobody_is_sent_to_sign_in() {
    let service = Service::start_with_manual_clock().await;
    let (org, other) = (service.org().await, service.org().await);
    let visitor = service.member(&org, &[Role::Owner]).await;
    for path in [other.page(""), "/console/o/nonsense".to_owned()] {
        assert_eq!(visitor.get(&path).await.status, 404, "{path}");
    }
    let nobody = service.sign_in(&person("nobody@example.com")).await;
    for path in [org.page(""), "/console/organizations".to_owned()] {
        assert!(nobody.get(&path).await.header("location").starts_with("/console/sign-in"), "{path}");
    }
}

#[tokio::test]
async fn installations_of_14_days_are_a_chart_and_a_table() {
    let service = Service::start_with_manual_clock().await;
    let org = service.org().await;
    let visitor = service.member(&org, &[Role::Manager]).await;
    let empty = visitor.get(&org.page("")).await;
    for shown in ["Nothing was installed yet", ">Issue Token<", "guard/org-user-tokens"] {
        assert!(empty.text.contains(shown), "{shown}: {}", empty.text);
    }
    assert!(!empty.text.contains("<svg viewBox=\"0 0 140 100\""));
    for n in 0..3 {
        let _ = record(&service, &org, Ecosystem::Npm, &format!("first-{n}")).await;
    }
    service.clock.advance(DAY * 13);
    let visitor = service.member(&org, &[Role::Manager]).await;
    let _ = record(&service, &org, Ecosystem::Npm, "last").await;
    let _ = record(&service, &org, Ecosystem::Pypi, "last").await;
    let page = visitor.get(&org.page("")).await;
    let row = |day: &str, counts: [u64; 3]| {
        let cells = counts.map(|count| format!("<td class=\"number\">{count}</td>")).concat();
        format!("<time datetime=\"{day}\">{day}</time></th>{cells}")
    };
    for shown in [
        "<svg viewBox=\"0 0 140 100\"",
        "In 14 days: 4 from npm, 1 from PyPI",
        &row("2026-11-21", [3, 0, 3]),
        &row("2026-12-04", [1, 1, 2]),
        // The scale ends at 4.
        "<rect class=\"npm\" x=\"2\" y=\"25.0\" width=\"6\" height=\"75.0\"/>",
        "<rect class=\"npm\" x=\"132\" y=\"75.0\" width=\"6\" height=\"25.0\"/><rect class=\"pypi\" x=\"132\" y=\"50.0\" width=\"6\" height=\"25.0\"/>",
    ] {
        assert!(page.text.contains(shown), "{shown}: {}", page.text);
    }
    assert_eq!(page.text.matches("<th scope=\"row\"><time").count(), 14);
    assert!(page.text.contains(&format!("href=\"{}\"", org.page("installations?ecosystem=npm"))));
    service.clock.advance(DAY);
    let visitor = service.member(&org, &[Role::Manager]).await;
    let later = visitor.get(&org.page("")).await;
    assert!(later.text.contains("In 14 days: 1 from npm, 1 from PyPI"), "{}", later.text);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_entry_of_the_log_is_counted_once() {
    let service = Service::start_with_manual_clock().await;
    let (org, other) = (service.org().await, service.org().await);
    let all = stream::iter(0..120).map(|n| {
        let (service, org) = (&service, &org);
        // Each download comes twice at once.
        async move { record(service, org, Ecosystem::Npm, &format!("run-{}", n / 2)).await }
    });
    let recorded: Vec<Recorded> = all.buffer_unordered(16).collect().await;
    assert_eq!(recorded.iter().filter(|recorded| **recorded == Recorded::New).count(), 60);
    assert_eq!(counted(&service, &org).await, (60, 0));
    assert_eq!(counted(&service, &other).await, (0, 0));
    let of_a_person = download(Ecosystem::Npm, "run-of-nobody");
    assert_eq!(
        service.installation_log.record(None, hash_for(&of_a_person.token_id), &of_a_person).await.unwrap(),
        Recorded::New
    );
    let counters = service.table.installation_counters().await;
    assert_eq!(counters.iter().map(|counter| counter["npm"].as_u64().unwrap()).sum::<u64>(), 60);
    let kept = shared::Moment::parse("2026-12-08T10:00:00Z").unwrap().epoch_seconds();
    let pks: Vec<&str> = counters.iter().map(|counter| text(counter, "pk")).collect();
    assert!(counters.iter().all(|counter| counter["ttl"] == kept), "{counters:?}");
    assert!(pks.len() > 1 && pks.iter().all(|pk| pk.starts_with(&format!("ORG#{}#2026-11-21#", org.id))), "{pks:?}");
}

/// Whatever fails, a download is logged, and counted at most once.
#[tokio::test]
async fn failed_counter_leaves_the_entry_logged_and_counts_nothing_twice() {
    let (service, faults) = Service::start_with_faults().await;
    let org = service.org().await;
    let failing = Store::new(faults.client(), TABLE, service.clock.clone()).installation_log(INSTALLATIONS);
    for fault in [Fault::ServerError, Fault::NoCapacity, Fault::LostBefore, Fault::LostAfter, Fault::HangAfter] {
        // The reads before are for retries only, and none is lost for one that fails.
        for nth in ["GetItem", "PutItem", "UpdateItem"] {
            let before = counted(&service, &org).await.0;
            let session = format!("{fault:?}-{nth}");
            let only: fn(&Call) -> bool = match nth {
                "GetItem" => |call| call.operation == "GetItem",
                "PutItem" => |call| call.operation == "PutItem",
                _ => |call| call.operation == "UpdateItem",
            };
            faults.arm_where(only, &[fault], None);
            let download = download(Ecosystem::Npm, &session);
            let recorded = failing.record(Some(&org.id), hash_for(&download.token_id), &download).await;
            let calls = faults.disarm();
            assert_eq!(recorded.unwrap(), Recorded::New, "{fault:?} at {nth}");
            assert_eq!(calls.iter().filter(|call| *call == "UpdateItem").count(), 1, "{fault:?} at {nth}: {calls:?}");
            assert_eq!(
                record(&service, &org, Ecosystem::Npm, &session).await,
                Recorded::Repeated,
                "{fault:?} at {nth}"
            );
            let counts = counted(&service, &org).await.0 - before;
            // The entry's own request is repeated. That of the counter is not.
            let expected = u64::from(nth != "UpdateItem" || matches!(fault, Fault::LostAfter | Fault::HangAfter));
            assert_eq!(counts, expected, "{fault:?} at {nth}");
        }
    }
}

#[tokio::test]
async fn active_tokens_are_counted_up_to_100() {
    let service = Service::start_with_manual_clock().await;
    let (org, bot) = service.org_with_owner().await;
    let visitor = service.member(&org, &[Role::Owner]).await;
    let figure = async || {
        let page = visitor.get(&org.page("")).await.text;
        let card = page.split("<h2>Active tokens</h2>").nth(1).unwrap();
        card.split("<p class=\"figure\">").nth(1).unwrap().split('<').next().unwrap().to_owned()
    };
    assert_eq!(figure().await, "0");
    let first = service.issue(&org, &bot, "alice-laptop").await;
    let in_an_hour = service.clock.now().plus(Duration::from_secs(3600)).to_string();
    service.issue_until(&org, &bot, "bobby-laptop", &in_an_hour).await;
    let revoked = service.issue(&org, &bot, "carol-laptop").await;
    service.revoke(&org, &bot, &revoked).await;
    assert_eq!(figure().await, "2");
    // The token of a member who left is counted no more, nor is one that has expired.
    let leaver = service.member(&org, &[Role::Member]).await;
    assert_eq!(leaver.submit(&org.page("my-tokens/issue"), &[("expiry", "never")]).await.status, 200);
    assert_eq!(figure().await, "3");
    let member = service.store.membership(leaver.person.id, &org.id).await.unwrap().unwrap();
    service.store.remove_member(&org.id, &member.id, Authority::Operator, &operator()).await.unwrap();
    assert_eq!(figure().await, "2");
    service.clock.advance(Duration::from_secs(3600));
    assert_eq!(figure().await, "1");
    service.table.copies(&first, (0..99).map(|n| format!("copy-{n}")).collect()).await;
    assert_eq!(figure().await, "100");
    service.table.copies(&first, vec!["copy-99".to_owned()]).await;
    assert_eq!(figure().await, "100+");
}

#[tokio::test]
async fn last_five_entries_of_the_audit_log_are_shown_and_escaped() {
    let service = Service::start_with_manual_clock().await;
    let (org, bot) = service.org_with_owner().await;
    let visitor = service.member(&org, &[Role::Owner]).await;
    service.clock.advance(Duration::from_millis(1));
    let issued = service.issue(&org, &bot, "alice-laptop").await;
    for n in 0..4 {
        service.store.add_project(&org.id, &format!("<b>{n}"), &operator()).await.unwrap();
    }
    let page = visitor.get(&org.page("")).await;
    assert_eq!(page.text.matches("<code>project.add</code>").count(), 4, "{}", page.text);
    assert_eq!(page.text.matches("<code>org_user_token.issue</code>").count(), 1);
    for shown in [issued.id.as_str(), bot.id.as_str(), "&#60;b&#62;3", &*org.page("audit-log")] {
        assert!(page.text.contains(shown), "{shown}: {}", page.text);
    }
    assert!(!page.text.contains("<b>3"));
}

#[tokio::test]
async fn each_role_sees_what_it_may_read() {
    let service = Service::start_with_manual_clock().await;
    let org = service.org().await;
    let _ = record(&service, &org, Ecosystem::Npm, "run-1").await;
    for &role in Role::ALL {
        let page = service.member(&org, &[role]).await.get(&org.page("")).await;
        let reads = matches!(role, Role::Owner | Role::Manager);
        for shown in ["Installed in the last 14 days", "What happened last", "Active tokens"] {
            assert_eq!(page.text.contains(shown), reads, "{role:?} {shown}: {}", page.text);
        }
        // Everybody finds the own tokens.
        assert!(page.text.contains(&format!("href=\"{}\"", org.page("my-tokens"))), "{role:?}");
    }
    service.set_guard(&org.id, false).await;
    let page = service.member(&org, &[Role::Owner]).await.get(&org.page("")).await;
    assert!(
        page.text.contains("Guard is not active") && !page.text.contains("<svg viewBox=\"0 0 140"),
        "{}",
        page.text
    );
}

/// At most four reads beside the lists: session, membership, organization.
#[tokio::test]
async fn overview_costs_few_reads() {
    let service = Service::start_with_manual_clock().await;
    let (org, bot) = service.org_with_owner().await;
    service.issue(&org, &bot, "alice-laptop").await;
    let visitor = service.member(&org, &[Role::Owner]).await;
    let cost = visitor.get(&org.page("")).await.cost();
    // Beside the three: the tokens, the audit log, and the counters in two calls.
    assert_eq!((cost.calls, cost.write), (7, 0.0), "{cost:?}");
}
