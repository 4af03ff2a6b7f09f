//! Trusts of a bot: which CI jobs act as it. Also ends the tokens that they have.
//!
//! The form has a preset for each CI service. A preset fixes the issuer and offers the claims that
//! matter there, each in a field with the claim's own name; without one, claims are lines of text.

use askama::Template;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use axum::routing::get;
use serde::Deserialize;
use shared::console::messages::Messages;
use shared::console::page::{Confirm, Fact, Tab};
use shared::console::roles::{self, OfferedRole};
use shared::console::{Console, Fields, Form, Frame, MemberWith, Nav, Nothing, html, see_other};
use shared::domain::Held;
use shared::ids::TrustId;
use shared::permissions::{ConsoleBots, Role};
use shared::store::bots::StoredBot;
use shared::store::idempotency::Repeat;
use shared::store::trusts::{BotTokensEnded, TrustAdded};
use shared::trust::{InvalidTrust, MAX_TRUSTS, NewTrust, SUBJECT, Trust, TrustRule, Wanted};
use shared::{ApiError, App, ConsoleApp};
use utoipa_axum::router::OpenApiRouter;

use crate::{CALLER_CHANGED, stored};

const GITHUB_ISSUER: &str = "https://token.actions.githubusercontent.com";
const GITLAB_ISSUER: &str = "https://gitlab.com";

/// What full names of branches, tags and pull requests begin with.
const REFS: [&str; 3] = ["refs/heads/", "refs/tags/", "refs/pull/"];

pub fn routes() -> OpenApiRouter<ConsoleApp> {
    OpenApiRouter::new()
        .route("/console/o/{org_id}/bots/{bot_id}/trusts/add", get(add_form).post(add))
        .route("/console/o/{org_id}/bots/{bot_id}/trusts/{trust_id}/remove", get(ask_to_remove).post(remove))
        .route("/console/o/{org_id}/bots/{bot_id}/end-tokens", get(ask_to_end).post(end))
}

/// A trust on the bot's page.
pub struct TrustRow {
    pub id: String,
    pub issuer: String,
    pub audience: String,
    pub claims: Vec<String>,
    pub workload: String,
    pub roles: Vec<String>,
    pub longer: bool,
    pub created_at: String,
    pub created_by: String,
}

impl TrustRow {
    pub fn new(trust: Trust, m: &Messages) -> Self {
        Self {
            id: trust.id.to_string(),
            claims: claims_of(&trust),
            workload: m.workload_is(&trust.subject_claim),
            roles: trust.roles.as_slice().iter().map(|role| m.role_label(role)).collect(),
            issuer: trust.issuer,
            audience: trust.audience,
            longer: trust.may_mint_longer,
            created_at: trust.created_at.to_string(),
            created_by: trust.created_by.id,
        }
    }
}

fn claims_of(trust: &Trust) -> Vec<String> {
    trust.claims.iter().map(|(name, value)| format!("{name}={value}")).collect()
}

/// What a form of trusts begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Preset {
    GitHub,
    GitLab,
    Any,
}

impl Preset {
    const ALL: [Self; 3] = [Self::GitHub, Self::GitLab, Self::Any];

    /// GitHub, unless another one is named.
    fn parse(name: &str) -> Self {
        Self::ALL.into_iter().find(|preset| preset.name() == name).unwrap_or(Self::GitHub)
    }

    fn name(self) -> &'static str {
        match self {
            Self::GitHub => "github",
            Self::GitLab => "gitlab",
            Self::Any => "any",
        }
    }

    fn label(self, m: &Messages) -> &'static str {
        match self {
            Self::GitHub => "GitHub Actions",
            Self::GitLab => "GitLab CI/CD",
            Self::Any => m.trust_preset_any,
        }
    }
}

/// The form as it was sent. Each claim of a preset is a field with its name.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct TrustForm {
    preset: String,
    issuer: String,
    audience: String,
    repository_owner_id: String,
    repository_id: String,
    repository: String,
    r#ref: String,
    namespace_id: String,
    project_id: String,
    ref_path: String,
    environment: String,
    /// Lines of names and values.
    claims: String,
    subject_claim: String,
    role: Vec<String>,
    may_mint_longer: String,
}

/// What a claim's value must be, beside the rules of every trust.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    Text,
    Number,
    Ref,
}

/// A claim that a preset offers.
struct OfferedClaim<'a> {
    name: &'static str,
    label: &'static str,
    hint: &'static str,
    value: &'a str,
    format: Format,
}

impl OfferedClaim<'_> {
    /// What is wrong with a value that could match no job.
    fn problem(&self, value: &str, m: &Messages) -> Option<&'static str> {
        match self.format {
            Format::Number if !value.bytes().all(|c| c.is_ascii_digit()) => Some(m.ci_id_rule),
            Format::Ref if !REFS.iter().any(|start| value.starts_with(start)) => Some(m.git_ref_rule),
            _ => None,
        }
    }
}

impl TrustForm {
    /// The form of this preset before anything was typed.
    fn of(preset: Preset, audience: String) -> Self {
        let issuer = if preset == Preset::GitLab { GITLAB_ISSUER } else { "" };
        let subject_claim = SUBJECT.to_owned();
        Self { preset: preset.name().to_owned(), issuer: issuer.to_owned(), audience, subject_claim, ..Self::default() }
    }

    fn preset(&self) -> Preset {
        Preset::parse(&self.preset)
    }

    /// The claims that the preset offers.
    fn offered(&self, m: &'static Messages) -> Vec<OfferedClaim<'_>> {
        let claim = |name, (label, hint), value, format| OfferedClaim { name, label, hint, value, format };
        let (git_ref, environment) = ((m.git_ref, m.git_ref_hint), (m.ci_environment, m.ci_environment_hint));
        match self.preset() {
            Preset::GitHub => vec![
                claim(
                    "repository_owner_id",
                    (m.github_owner_id, m.github_owner_id_hint),
                    self.repository_owner_id.as_str(),
                    Format::Number,
                ),
                claim(
                    "repository_id",
                    (m.github_repository_id, m.github_repository_id_hint),
                    &self.repository_id,
                    Format::Number,
                ),
                claim("repository", (m.github_repository, m.github_repository_hint), &self.repository, Format::Text),
                claim("ref", git_ref, &self.r#ref, Format::Ref),
                claim("environment", environment, &self.environment, Format::Text),
            ],
            // Not `ref`, which a tag can share with a branch.
            Preset::GitLab => vec![
                claim(
                    "namespace_id",
                    (m.gitlab_namespace_id, m.gitlab_namespace_id_hint),
                    self.namespace_id.as_str(),
                    Format::Number,
                ),
                claim("project_id", (m.gitlab_project_id, m.gitlab_project_id_hint), &self.project_id, Format::Number),
                claim("ref_path", git_ref, &self.ref_path, Format::Ref),
                claim("environment", environment, &self.environment, Format::Text),
            ],
            Preset::Any => Vec::new(),
        }
    }

    /// The trust that is asked for. Errors are added to the fields.
    fn parse(&self, held: &Held<Role>, m: &'static Messages, errors: &mut Fields) -> Option<NewTrust> {
        let offered = self.offered(m);
        let mut claims = Vec::new();
        for claim in &offered {
            let value = claim.value.trim();
            if value.is_empty() {
                continue;
            }
            if let Some(problem) = claim.problem(value, m) {
                errors.add(claim.name, problem);
            }
            claims.push((claim.name.to_owned(), value.to_owned()));
        }
        let is_any = self.preset() == Preset::Any;
        for line in self.claims.lines().map(str::trim).filter(|line| is_any && !line.is_empty()) {
            match line.split_once('=') {
                Some((name, value)) => claims.push((name.trim().to_owned(), value.trim().to_owned())),
                None => errors.add("claims", m.claims_line_rule),
            }
        }
        let roles = roles::parse_some_of(&self.role, held, m, errors);
        let issuer = if self.preset() == Preset::GitHub { GITHUB_ISSUER } else { self.issuer.trim() };
        let subject_claim = Some(self.subject_claim.trim()).filter(|claim| is_any && !claim.is_empty());
        let wanted = Wanted {
            issuer: issuer.to_owned(),
            audience: self.audience.trim().to_owned(),
            claims,
            subject_claim: subject_claim.map(str::to_owned),
            roles: roles.unwrap_or_default(),
            may_mint_longer: self.may_mint_longer == "true",
        };
        match NewTrust::try_from(wanted) {
            Ok(trust) => Some(trust).filter(|_| errors.is_empty()),
            Err(error) => {
                let (field, message) = self.beside(&error, &offered, m);
                errors.add(field, message);
                None
            }
        }
    }

    /// The field that shows an error, and its text.
    fn beside(&self, error: &InvalidTrust, offered: &[OfferedClaim<'_>], m: &Messages) -> (&'static str, String) {
        let message = m.trust_rule(error.rule);
        match (error.field.as_str(), error.field.strip_prefix("claims.")) {
            (_, Some(claim)) => match offered.iter().find(|offered| offered.name == claim) {
                Some(offered) => (offered.name, message.to_owned()),
                None => ("claims", m.claim_error(claim, message)),
            },
            ("claims", None) => match (offered.first(), error.rule, self.preset()) {
                (Some(first), TrustRule::Identity, Preset::GitHub) => (first.name, m.github_id_missing.to_owned()),
                (Some(first), TrustRule::Identity, Preset::GitLab) => (first.name, m.gitlab_id_missing.to_owned()),
                _ => ("claims", message.to_owned()),
            },
            ("issuer", None) => ("issuer", message.to_owned()),
            ("audience", None) => ("audience", message.to_owned()),
            ("subject_claim", None) => ("subject_claim", message.to_owned()),
            _ => (roles::FIELD, message.to_owned()),
        }
    }

    /// The form with what was typed, and what is wrong with it.
    fn page(
        self,
        caller: &MemberWith<ConsoleBots>,
        bot: &StoredBot,
        errors: &Fields,
        error: &str,
    ) -> Result<AddPage, ApiError> {
        let (m, held, preset) = (caller.m(), bot.roles(), self.preset());
        let page = caller.frame(m.add_trust, Nav::Bots)?;
        let back = format!("{}/bots/{}", page.base(), bot.id);
        let tab = |shown: Preset| Tab {
            href: format!("{back}/trusts/add?preset={}", shown.name()),
            label: shown.label(m),
            current: shown == preset,
        };
        let claims = self.offered(m).into_iter().map(|claim| ClaimRow {
            name: claim.name,
            label: claim.label,
            hint: claim.hint,
            value: claim.value.to_owned(),
            error: errors.of(claim.name).to_owned(),
        });
        let is_chosen = |role: Role| self.role.iter().any(|name| name == role.as_str());
        let lines = (preset == Preset::Any)
            .then(|| LinesField { value: self.claims.clone(), error: errors.of("claims").to_owned() });
        Ok(AddPage {
            presets: Preset::ALL.into_iter().map(tab).collect(),
            bot: bot.name.clone(),
            preset: preset.name(),
            error: if error.is_empty() && !errors.is_empty() { m.nothing_was_saved } else { error }.to_owned(),
            fixed_issuer: preset == Preset::GitHub,
            issuer_hint: if preset == Preset::GitLab { m.gitlab_issuer_hint } else { m.issuer_hint },
            issuer_error: errors.of("issuer").to_owned(),
            claims: claims.collect(),
            lines,
            subject_claim_error: errors.of("subject_claim").to_owned(),
            audience_error: errors.of("audience").to_owned(),
            roles: roles::offered(m, roles::for_bots().filter(|role| held.contains(*role)), is_chosen),
            roles_error: errors.of(roles::FIELD).to_owned(),
            longer: self.may_mint_longer == "true",
            issuer: self.issuer,
            subject_claim: self.subject_claim,
            audience: self.audience,
            back,
            page,
        })
    }
}

#[derive(Template)]
#[template(path = "console/trust_add.html")]
struct AddPage {
    page: Frame,
    back: String,
    bot: String,
    presets: Vec<Tab>,
    preset: &'static str,
    error: String,
    fixed_issuer: bool,
    issuer: String,
    issuer_hint: &'static str,
    issuer_error: String,
    claims: Vec<ClaimRow>,
    lines: Option<LinesField>,
    subject_claim: String,
    subject_claim_error: String,
    audience: String,
    audience_error: String,
    roles: Vec<OfferedRole>,
    roles_error: String,
    longer: bool,
}

struct ClaimRow {
    name: &'static str,
    label: &'static str,
    hint: &'static str,
    value: String,
    error: String,
}

struct LinesField {
    value: String,
    error: String,
}

#[derive(Deserialize)]
struct Chosen {
    #[serde(default)]
    preset: String,
}

async fn add_form(
    State(app): State<App>,
    State(console): State<Console>,
    caller: MemberWith<ConsoleBots>,
    Path((_, id)): Path<(String, String)>,
    headers: HeaderMap,
    Query(chosen): Query<Chosen>,
) -> Result<Response, ApiError> {
    let bot = stored(&app, &caller, &id).await?;
    let form = TrustForm::of(Preset::parse(&chosen.preset), console.host(&headers));
    html(StatusCode::OK, &form.page(&caller, &bot, &Fields::default(), "")?)
}

async fn add(
    State(app): State<App>,
    caller: MemberWith<ConsoleBots>,
    Path((_, id)): Path<(String, String)>,
    form: Form<TrustForm>,
) -> Result<Response, ApiError> {
    let bot = stored(&app, &caller, &id).await?;
    let (m, once, mut errors) = (caller.m(), form.once::<ConsoleBots>()?, Fields::default());
    let Some(trust) = form.fields.parse(&bot.roles(), m, &mut errors) else {
        return html(StatusCode::BAD_REQUEST, &form.fields.page(&caller, &bot, &errors, "")?);
    };
    let list = format!("bots/{}", bot.id);
    match app.store().add_trust(caller.authority(), &bot.id, trust, &caller.caller, Some(&once)).await? {
        // There is no secret that only the first answer shows, so the second is the same.
        TrustAdded::Done(_) | TrustAdded::Repeated(Repeat::Made(_)) => Ok(to_bot(&caller, &bot, "trust_added")),
        TrustAdded::Repeated(repeat) => caller.sent_before(m.trust_sent_text, &repeat, Nav::Bots, &list),
        TrustAdded::RoleNotHeld(_) => {
            errors.add(roles::FIELD, m.role_not_held);
            html(StatusCode::BAD_REQUEST, &form.fields.page(&caller, &bot, &errors, "")?)
        }
        TrustAdded::LimitReached => {
            let error = m.too_many_trusts(MAX_TRUSTS);
            html(StatusCode::BAD_REQUEST, &form.fields.page(&caller, &bot, &errors, &error)?)
        }
        TrustAdded::NotFound => Err(ApiError::NotFound),
        TrustAdded::CallerChanged => Err(CALLER_CHANGED),
    }
}

/// The way to the bot's page, which says what was done.
fn to_bot(caller: &MemberWith<ConsoleBots>, bot: &StoredBot, done: &str) -> Response {
    see_other(&format!("/console/o/{}/bots/{}?{done}", caller.org.id, bot.id))
}

async fn ask_to_remove(
    State(app): State<App>,
    caller: MemberWith<ConsoleBots>,
    Path((_, bot, trust)): Path<(String, String, String)>,
) -> Result<Response, ApiError> {
    let bot = stored(&app, &caller, &bot).await?;
    let trust = TrustId::parse(&trust).ok_or(ApiError::NotFound)?;
    let trust = app.store().trust(&bot.id, &trust).await?.ok_or(ApiError::NotFound)?;
    let page = caller.frame(caller.m().remove_trust, Nav::Bots)?;
    let m = page.m;
    let facts = vec![
        Fact::new(m.bot, &bot.name),
        Fact::new(m.issuer, &trust.issuer),
        Fact::new(m.audience, &trust.audience),
        Fact::new(m.claims, claims_of(&trust).join(", ")),
        Fact::time(m.added, trust.created_at),
    ];
    let cancel = format!("{}/bots/{}", page.base(), bot.id);
    html(StatusCode::OK, &Confirm::new(page, m.remove_trust_text, facts, m.remove, cancel))
}

async fn remove(
    State(app): State<App>,
    caller: MemberWith<ConsoleBots>,
    Path((_, bot, trust)): Path<(String, String, String)>,
    _: Form<Nothing>,
) -> Result<Response, ApiError> {
    let bot = stored(&app, &caller, &bot).await?;
    let trust = TrustId::parse(&trust).ok_or(ApiError::NotFound)?;
    let removed = app.store().remove_trust(caller.authority(), &bot.id, &trust, &caller.caller).await?;
    ended(removed, &caller, &bot, "trust_removed")
}

async fn ask_to_end(
    State(app): State<App>,
    caller: MemberWith<ConsoleBots>,
    Path((_, bot)): Path<(String, String)>,
) -> Result<Response, ApiError> {
    let bot = stored(&app, &caller, &bot).await?;
    let page = caller.frame(caller.m().end_tokens, Nav::Bots)?;
    let m = page.m;
    let facts = vec![Fact::new(m.name, &bot.name), Fact::new(m.bot_id, &bot.id)];
    let cancel = format!("{}/bots/{}", page.base(), bot.id);
    html(StatusCode::OK, &Confirm::new(page, m.end_tokens_text, facts, m.end_tokens, cancel))
}

async fn end(
    State(app): State<App>,
    caller: MemberWith<ConsoleBots>,
    Path((_, bot)): Path<(String, String)>,
    _: Form<Nothing>,
) -> Result<Response, ApiError> {
    let bot = stored(&app, &caller, &bot).await?;
    let all = app.store().end_bot_tokens(caller.authority(), &bot.id, &caller.caller).await?;
    ended(all, &caller, &bot, "tokens_ended")
}

fn ended(
    outcome: BotTokensEnded,
    caller: &MemberWith<ConsoleBots>,
    bot: &StoredBot,
    done: &str,
) -> Result<Response, ApiError> {
    match outcome {
        BotTokensEnded::Done => Ok(to_bot(caller, bot, done)),
        BotTokensEnded::NotFound => Err(ApiError::NotFound),
        BotTokensEnded::CallerChanged => Err(CALLER_CHANGED),
    }
}
