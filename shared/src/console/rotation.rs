//! The rotation of tokens and API keys, which several pages share: the form that asks how, what it
//! does, and what lists say of it afterwards.

use std::time::Duration;

use askama::Template;
use axum::response::Response;
use serde::Deserialize;

use super::form::Form;
use super::guard::MemberWith;
use super::messages::Messages;
use super::page::{Fact, Frame, Nav};
use crate::app::App;
use crate::clock::Moment;
use crate::error::ApiError;
use crate::permissions::Guarded;
use crate::rotate_request::ROTATED_MEANWHILE;
use crate::secret::Token;
use crate::store::rotation::{By, MAX_OVERLAP, Rotate, Rotation, Successor};
use crate::store::tokens::{Replaces, Rotated};

const HOUR: Duration = Duration::from_secs(60 * 60);

/// What somebody is told whose own roles changed while the form was under way.
pub const CALLER_CHANGED: ApiError = ApiError::Conflict("Your roles have changed.");

/// The form as it was sent: the template's macro `fields::overlap`.
#[derive(Debug, Default, Deserialize)]
pub struct Chosen {
    #[serde(default)]
    overlap: String,
}

impl Chosen {
    /// How long the old one stays active, and whether it ends at the first use of the new one too.
    fn overlap(&self) -> Result<(Duration, bool), ApiError> {
        match self.overlap.as_str() {
            "" => Ok((Duration::ZERO, false)),
            "1h" => Ok((HOUR, false)),
            "24h" => Ok((24 * HOUR, false)),
            "7d" => Ok((MAX_OVERLAP, false)),
            "first-use" => Ok((MAX_OVERLAP, true)),
            _ => Err(ApiError::invalid("overlap", "is not offered")),
        }
    }
}

/// A page that asks how to rotate.
#[derive(Debug, Template)]
#[template(path = "console/rotate.html")]
pub struct Ask {
    /// The frame.
    pub page: Frame,
    /// What will be rotated.
    pub facts: Vec<Fact>,
    /// The path to go back to.
    pub cancel: String,
    /// Why it was refused, or an empty text.
    pub error: &'static str,
}

/// What a form has done.
#[derive(Debug)]
pub enum Outcome<T> {
    /// The successor, whose plain token is returned only here, and when the old one ends. `None` if that
    /// has ended.
    Done(Box<T>, Token, Option<Moment>),
    /// It was sent before: the page that says what was made.
    Answered(Response),
    /// It was refused, for a reason that the form shows.
    Refused(ApiError),
}

impl<O: Guarded> MemberWith<O> {
    /// Rotates what has this ID, as the form says. `list` is the page that lists it, such as
    /// `api-keys`.
    pub async fn rotate<T: Rotate>(
        &self,
        app: &App,
        id: &T::Id,
        form: &Form<Chosen>,
        (here, list): (Nav, &str),
    ) -> Result<Outcome<T>, ApiError> {
        let once = form.once::<O>()?;
        let (overlap, until_first_use) = form.fields.overlap()?;
        if let Some(repeat) = app.store().repeated(&self.org.id, Some(&once), &self.caller).await? {
            return self.made(&repeat, here, list).map(Outcome::Answered);
        }
        let refusal = match self.refusal() {
            Some(refusal) => refusal,
            None => {
                let old = match T::find(app.store(), &self.org.id, id, self.received_at).await? {
                    Ok(old) => old,
                    // The same form may have been carried out meanwhile.
                    Err(reason) => match app.store().repeated(&self.org.id, Some(&once), &self.caller).await? {
                        Some(repeat) => return self.made(&repeat, here, list).map(Outcome::Answered),
                        None => return Err(reason.refusal(T::NOT_FOUND)),
                    },
                };
                let rotation = Rotation { overlap, until_first_use, expires_at: T::expires_at(&old) };
                let ends = rotation.end_of_old(app.clock().now(), rotation.expires_at);
                let by = By { api_key: None, authority: self.authority(), caller: &self.caller, once: Some(&once) };
                match T::rotate(app.store(), old, rotation, by).await? {
                    // Not confirmed again: the transaction required the member's rights.
                    Successor::Done(token, plain) => return Ok(Outcome::Done(token, plain, ends)),
                    Successor::Repeated(repeat) => return self.made(&repeat, here, list).map(Outcome::Answered),
                    Successor::NotFound => return Err(T::NOT_FOUND),
                    Successor::Conflict => return Err(ROTATED_MEANWHILE),
                    Successor::CallerChanged | Successor::CallerRevoked => return Err(CALLER_CHANGED),
                    Successor::Suspended => ApiError::Suspended,
                    Successor::PlanLimitReached => ApiError::PlanLimitReached,
                }
            }
        };
        self.record_refusal(app).await?;
        Ok(Outcome::Refused(refusal))
    }
}

/// What a page says of a successor: when the token that it replaces ends.
pub fn note(form: &Form<Chosen>, old_expires_at: Option<Moment>, m: &Messages) -> String {
    match (old_expires_at, form.fields.overlap()) {
        (Some(ends), Ok((_, true))) => m.old_ends_at_first_use(ends),
        (Some(ends), _) => m.old_ends(ends),
        (None, _) => m.old_has_ended.to_owned(),
    }
}

/// What a token was replaced by and what it replaces, as lists say it; an empty text if neither.
pub fn lineage(rotated: Option<&Rotated>, replaces: Option<&Replaces>, m: &Messages) -> String {
    let rotated = rotated.map(|rotated| m.rotated_to(&rotated.id));
    let replaces = replaces.map(|replaces| m.replaces(&replaces.id));
    rotated.into_iter().chain(replaces).collect::<Vec<_>>().join(" · ")
}
