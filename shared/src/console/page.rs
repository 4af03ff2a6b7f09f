//! The frame around every page: language, organization, navigation, and the form token.

use askama::Template;
use axum::response::{Html, IntoResponse, Response};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use url::form_urlencoded;

use super::assets::{CONSOLE_CSS, CONSOLE_JS};
use super::messages::Messages;
use crate::accept::language_weight;
use crate::clock::Moment;
use crate::domain::StateFilter;
use crate::email::{EmailAddress, Language};
use crate::error::ApiError;
use crate::ids::OrgId;
use crate::permissions::Operation;
use crate::secret::FormToken;
use crate::store::orgs::Org;

/// What the layout needs. Every page's template has it as `page`.
#[derive(Debug, Clone)]
pub struct Frame {
    /// The language, for the `lang` attribute.
    pub lang: &'static str,
    /// The texts in this language.
    pub m: &'static Messages,
    /// The title of the page.
    pub title: String,
    /// The organization, if the page belongs to one.
    pub org: Option<OrgName>,
    /// The address of the person who is signed in, or an empty text.
    pub person: String,
    /// The links, in groups.
    pub nav: Vec<NavGroup>,
    /// The token of the forms on this page.
    pub form_token: String,
    /// The path of the stylesheet.
    pub css: &'static str,
    /// The path of the script.
    pub js: &'static str,
}

/// An organization in the frame.
#[derive(Debug, Clone)]
pub struct OrgName {
    /// Its ID.
    pub id: String,
    /// Its name.
    pub name: String,
}

/// A group of links.
#[derive(Debug, Clone)]
pub struct NavGroup {
    /// Its heading, if it has one.
    pub label: Option<&'static str>,
    /// Its links.
    pub links: Vec<NavLink>,
}

/// A link in the navigation.
#[derive(Debug, Clone)]
pub struct NavLink {
    /// Its path.
    pub href: String,
    /// Its text.
    pub label: &'static str,
    /// Whether it leads to this page.
    pub current: bool,
}

impl Frame {
    /// The frame for nobody in particular.
    pub fn new(language: Language, title: &str) -> Self {
        Self {
            lang: tag(language),
            m: Messages::of(language),
            title: title.to_owned(),
            org: None,
            person: String::new(),
            nav: Vec::new(),
            form_token: String::new(),
            css: CONSOLE_CSS.path(),
            js: CONSOLE_JS.path(),
        }
    }

    pub(super) fn for_person(self, email: &EmailAddress, form_token: &FormToken) -> Self {
        Self { person: email.expose().to_owned(), form_token: form_token.as_str().to_owned(), ..self }
    }

    pub(super) fn in_org(self, org: &Org, nav: Vec<NavGroup>) -> Self {
        Self { org: Some(OrgName { id: org.id.to_string(), name: org.name.clone() }), nav, ..self }
    }

    /// The path that the organization's pages begin with.
    pub fn base(&self) -> String {
        self.org.as_ref().map_or_else(String::new, |org| format!("/console/o/{}", org.id))
    }
}

/// The links of the navigation, each to a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Nav {
    /// What was installed, and what happened last.
    Overview,
    /// Org user tokens.
    Tokens,
    /// The installation log.
    Installations,
    /// The member's own org user tokens.
    MyTokens,
    /// API keys.
    ApiKeys,
    /// Organization access tokens.
    AccessTokens,
    /// Bots.
    Bots,
    /// Members.
    Members,
    /// Projects.
    Projects,
    /// How long tokens live.
    Policies,
    /// The audit log.
    AuditLog,
    /// The person's account.
    Account,
}

/// The links of an organization's pages that somebody may see.
pub(super) fn nav(language: Language, org: &OrgId, here: Nav, may: impl Fn(Operation) -> bool) -> Vec<NavGroup> {
    let m = Messages::of(language);
    // Each link, and the operation that its page performs first.
    let groups = [
        (None, vec![(Nav::Overview, "", m.overview, None)]),
        (
            Some(m.guard),
            vec![
                (Nav::Tokens, "tokens", m.tokens, Some(Operation::OrgUserTokensIssue)),
                (Nav::Installations, "installations", m.installations, Some(Operation::InstallationsList)),
                (Nav::MyTokens, "my-tokens", m.my_tokens, None),
            ],
        ),
        (
            Some(m.settings),
            vec![
                (Nav::ApiKeys, "api-keys", m.api_keys, Some(Operation::ApiKeysList)),
                (Nav::AccessTokens, "access-tokens", m.access_tokens, Some(Operation::OrgAccessTokensList)),
                (Nav::Bots, "bots", m.bots, Some(Operation::ConsoleBots)),
                (Nav::Members, "members", m.members, Some(Operation::ConsoleMembers)),
                (Nav::Projects, "projects", m.projects, Some(Operation::ConsoleProjects)),
                (Nav::Policies, "policies", m.policies, Some(Operation::ConsolePolicies)),
            ],
        ),
        (
            None,
            vec![
                (Nav::AuditLog, "audit-log", m.audit_log, Some(Operation::AuditLogList)),
                (Nav::Account, "/console/account", m.my_account, None),
            ],
        ),
    ];
    let groups = groups.into_iter().map(|(label, links)| {
        let links = links.into_iter().filter(|(.., operation)| operation.is_none_or(&may));
        let links = links.map(|(page, path, label, _)| {
            let href = if path.starts_with('/') { path.to_owned() } else { format!("/console/o/{org}/{path}") };
            NavLink { href: href.trim_end_matches('/').to_owned(), label, current: page == here }
        });
        NavGroup { label, links: links.collect() }
    });
    groups.filter(|group| !group.links.is_empty()).collect()
}

/// The languages of the console, with their tags.
const LANGUAGES: [(Language, &str); 2] = [(Language::En, "en"), (Language::Ja, "ja")];

fn tag(language: Language) -> &'static str {
    LANGUAGES.iter().find(|(known, _)| *known == language).map_or("en", |(_, tag)| tag)
}

/// The language that a browser prefers, by `Accept-Language`.
pub fn preferred(headers: &HeaderMap) -> Language {
    let weight = |tag: &str| language_weight(headers, tag);
    LANGUAGES.into_iter().rev().max_by_key(|(_, tag)| weight(tag)).map_or(Language::En, |(language, _)| language)
}

/// Answers with a page.
///
/// # Errors
///
/// If the template cannot be rendered.
pub fn html(status: StatusCode, template: &impl Template) -> Result<Response, ApiError> {
    let text = template.render().map_err(|_| {
        // The error may quote values of the template, so it is not logged.
        tracing::error!("a page could not be rendered");
        ApiError::Internal
    })?;
    Ok((status, Html(text)).into_response())
}

/// A state of a list, as a link.
#[derive(Debug, Clone)]
pub struct Tab {
    /// Its path.
    pub href: String,
    /// Its text.
    pub label: &'static str,
    /// Whether it is shown.
    pub current: bool,
}

/// The states of a list of tokens by their names in links.
const STATES: [(&str, StateFilter); 4] = [
    ("active", StateFilter::Active),
    ("expired", StateFilter::Expired),
    ("revoked", StateFilter::Revoked),
    ("all", StateFilter::All),
];

/// The state that a link names; active by default.
pub fn state_of(text: Option<&str>) -> (&'static str, StateFilter) {
    STATES.into_iter().find(|(name, _)| Some(*name) == text).unwrap_or(STATES[0])
}

/// The states of the list at this path.
pub fn tabs(m: &Messages, path: &str, state: &str) -> Vec<Tab> {
    let labels = [m.active, m.expired, m.revoked, m.all];
    let tab = |((name, _), label): ((&str, StateFilter), _)| Tab {
        href: format!("{path}?state={name}"),
        label,
        current: name == state,
    };
    STATES.into_iter().zip(labels).map(tab).collect()
}

/// A page that says what a form has made before.
#[derive(Debug, Template)]
#[template(path = "console/problem.html")]
pub(super) struct AlreadyMade<'a> {
    pub page: Frame,
    pub status: u16,
    pub text: &'a str,
    pub detail: String,
    pub request_id: &'a str,
    pub href: String,
    pub link: &'a str,
}

/// A page that asks before something ends.
#[derive(Debug, Template)]
#[template(path = "console/confirm.html")]
pub struct Confirm {
    /// The frame.
    pub page: Frame,
    /// What will happen.
    pub text: String,
    /// What it will happen to.
    pub facts: Vec<Fact>,
    /// The text of the button.
    pub submit: String,
    /// The path to go back to.
    pub cancel: String,
    /// What is wrong with the form as a whole, or an empty text.
    pub error: String,
    /// What must be typed to confirm, if anything.
    pub typed: Option<Typed>,
}

impl Confirm {
    /// Asks with a button of this text, or back to this path.
    pub fn new(page: Frame, text: &str, facts: Vec<Fact>, submit: &str, cancel: String) -> Self {
        let (text, submit) = (text.to_owned(), submit.to_owned());
        Self { page, text, facts, submit, cancel, error: String::new(), typed: None }
    }
}

/// A fact on a page: a label and a value.
#[derive(Debug, Clone)]
pub struct Fact {
    /// Its label.
    pub label: String,
    /// Its value.
    pub value: String,
    /// Whether the value is a time, which the script shows in the reader's time zone.
    pub is_time: bool,
}

impl Fact {
    /// A fact.
    pub fn new(label: impl ToString, value: impl ToString) -> Self {
        Self { label: label.to_string(), value: value.to_string(), is_time: false }
    }

    /// A fact that is a time.
    pub fn time(label: impl ToString, at: Moment) -> Self {
        Self { is_time: true, ..Self::new(label, at) }
    }
}

/// A field in which something must be typed to confirm: `confirm`.
#[derive(Debug, Clone)]
pub struct Typed {
    /// Its label.
    pub label: String,
    /// What to type.
    pub hint: String,
    /// What is wrong with it, or an empty text.
    pub error: String,
}

/// A path with these query parameters, without those that are empty.
pub fn link(path: &str, parameters: &[(&str, &str)]) -> String {
    let given = parameters.iter().filter(|(_, value)| !value.is_empty());
    let query = form_urlencoded::Serializer::new(String::new()).extend_pairs(given).finish();
    if query.is_empty() { path.to_owned() } else { format!("{path}?{query}") }
}

/// Answers a form with the way to another page.
pub fn see_other(path: &str) -> Response {
    match HeaderValue::from_str(path) {
        Ok(location) => (StatusCode::SEE_OTHER, [(header::LOCATION, location)]).into_response(),
        Err(_) => ApiError::Internal.into_response(),
    }
}
