//! `/console/o/{org_id}/policies`: how long tokens of the organization live: look at, change.

use askama::Template;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::get;
use serde::Deserialize;
use shared::console::{Fields, Form, Frame, MemberWith, Nav, html, see_other};
use shared::permissions::ConsolePolicies;
use shared::store::lifetimes::{Days, Lifetimes, Limited};
use shared::store::orgs::{OrgChange, OrgSet};
use shared::{ApiError, App, ConsoleApp};
use utoipa_axum::router::OpenApiRouter;

/// The routes of this function.
pub fn routes() -> OpenApiRouter<ConsoleApp> {
    OpenApiRouter::new().route("/console/o/{org_id}/policies", get(look).post(change))
}

#[derive(Template)]
#[template(path = "console/policies.html")]
struct PolicyPage {
    page: Frame,
    form: PolicyForm,
    org_user_token_error: String,
    api_key_error: String,
    org_access_token_error: String,
    unused_error: String,
    error: &'static str,
    message: &'static str,
}

/// The form as it was sent. The fields that begin with `shown` are what the page showed: a field that
/// was left as it was shown does not undo a change that somebody else has made since.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct PolicyForm {
    org_user_token: String,
    api_key: String,
    org_access_token: String,
    unused: String,
    shown_org_user_token: String,
    shown_api_key: String,
    shown_org_access_token: String,
    shown_unused: String,
}

impl PolicyForm {
    fn of(policy: &Lifetimes) -> Self {
        let text = |days: Option<Days>| days.map(|days| days.to_string()).unwrap_or_default();
        let of = |kind| text(policy.max_days(kind));
        let (user, key, access) = (of(Limited::OrgUserToken), of(Limited::ApiKey), of(Limited::OrgAccessToken));
        let unused = text(policy.end_after_unused_days);
        Self {
            shown_org_user_token: user.clone(),
            shown_api_key: key.clone(),
            shown_org_access_token: access.clone(),
            shown_unused: unused.clone(),
            org_user_token: user,
            api_key: key,
            org_access_token: access,
            unused,
        }
    }

    /// What is to be changed.
    fn parse(&self, rule: &'static str, errors: &mut Fields) -> OrgChange {
        let mut change = OrgChange::default();
        for (kind, typed, shown) in [
            (Limited::OrgUserToken, &self.org_user_token, &self.shown_org_user_token),
            (Limited::ApiKey, &self.api_key, &self.shown_api_key),
            (Limited::OrgAccessToken, &self.org_access_token, &self.shown_org_access_token),
        ] {
            if let Some(days) = changed(kind.as_str(), typed, shown, rule, errors) {
                change.max_lifetime_days.insert(kind, days);
            }
        }
        change.end_after_unused_days = changed("unused", &self.unused, &self.shown_unused, rule, errors);
        change
    }
}

/// The days of a field, if it was changed. An empty field is no limit.
fn changed(
    field: &'static str,
    typed: &str,
    shown: &str,
    rule: &'static str,
    errors: &mut Fields,
) -> Option<Option<Days>> {
    let typed = typed.trim();
    if typed == shown {
        return None;
    }
    if typed.is_empty() {
        return Some(None);
    }
    errors.parse(field, typed.parse::<Days>().map_err(|_| rule)).map(Some)
}

/// The form with what was typed, and what is wrong with it.
fn page(
    caller: &MemberWith<ConsolePolicies>,
    form: PolicyForm,
    errors: &Fields,
    message: &'static str,
) -> Result<PolicyPage, ApiError> {
    let page = caller.frame(caller.m().policies, Nav::Policies)?;
    Ok(PolicyPage {
        form,
        org_user_token_error: errors.of(Limited::OrgUserToken.as_str()).to_owned(),
        api_key_error: errors.of(Limited::ApiKey.as_str()).to_owned(),
        org_access_token_error: errors.of(Limited::OrgAccessToken.as_str()).to_owned(),
        unused_error: errors.of("unused").to_owned(),
        error: if errors.is_empty() { "" } else { page.m.nothing_was_saved },
        message,
        page,
    })
}

#[derive(Deserialize)]
struct Shown {
    saved: Option<String>,
}

async fn look(caller: MemberWith<ConsolePolicies>, Query(shown): Query<Shown>) -> Result<Response, ApiError> {
    let message = if shown.saved.is_some() { caller.m().lifetimes_saved } else { "" };
    let form = PolicyForm::of(&caller.org.lifetimes);
    html(StatusCode::OK, &page(&caller, form, &Fields::default(), message)?)
}

const CALLER_CHANGED: ApiError = ApiError::Conflict("Your roles have changed.");

async fn change(
    State(app): State<App>,
    caller: MemberWith<ConsolePolicies>,
    form: Form<PolicyForm>,
) -> Result<Response, ApiError> {
    let (org, m, mut errors) = (&caller.org.id, caller.m(), Fields::default());
    let change = form.fields.parse(m.days_rule, &mut errors);
    if !errors.is_empty() {
        return html(StatusCode::BAD_REQUEST, &page(&caller, form.fields, &errors, "")?);
    }
    match app.store().set_org_as(org, &change, caller.authority(), &caller.caller).await? {
        OrgSet::Done(_) => Ok(see_other(&format!("/console/o/{org}/policies?saved"))),
        OrgSet::NotFound => Err(ApiError::NotFound),
        OrgSet::CallerChanged => Err(CALLER_CHANGED),
    }
}
