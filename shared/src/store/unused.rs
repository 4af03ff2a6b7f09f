//! The daily run that writes the ends of tokens that were not used.
//!
//! A token that nobody uses for the days of its organization's policy has ended without a write (see
//! [`super::lifetimes`]). Listings write the end of those that they come across; this run writes all
//! others, so that none works again if the policy is taken away later. It takes the organizations by
//! ID, and of those that have the policy the active org user tokens, API keys and access tokens, page
//! by page, with the same conditional transactions as listings. Suspended organizations are included.
//!
//! One item holds how far the run is. It only moves forward: a run that was killed is continued by the
//! next one, on whatever day that is, two runs at once do no harm, and a finished day costs one read.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::lifetimes::Days;
use super::{Committed, Store, StoreError, keys};
use crate::domain::Environment;
use crate::ids::OrgId;

/// Organizations per step.
const PAGE: usize = 100;

/// What stands in the item in place of a place once the run is done. It sorts after every organization.
const DONE: &str = "done";

/// The listings of an organization, in the order in which a run looks through them.
const LISTINGS: [Listing; 4] = [
    Listing::OrgUserTokens,
    Listing::ApiKeys(Environment::Live),
    Listing::ApiKeys(Environment::Test),
    Listing::OrgAccessTokens,
];

/// A listing of tokens that end if they are not used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Listing {
    OrgUserTokens,
    ApiKeys(Environment),
    OrgAccessTokens,
}

/// How far a run is. As text, a later place sorts after an earlier one.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Place {
    org: OrgId,
    /// The index in [`LISTINGS`]; their number once all of them are done.
    listing: usize,
    /// The sort key of the last token of the listing that was looked at.
    after: Option<String>,
}

impl Place {
    /// After everything of an organization.
    fn after(org: OrgId) -> Self {
        Self { org, listing: LISTINGS.len(), after: None }
    }

    fn parse(text: &str) -> Option<Self> {
        let mut parts = text.splitn(3, '#');
        let org = OrgId::parse(parts.next()?)?;
        let listing = parts.next()?.parse().ok()?;
        Some(Self { org, listing, after: parts.next().map(str::to_owned) })
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { org, listing, after } = self;
        write!(f, "{}#{listing}", org.as_str())?;
        after.as_ref().map_or(Ok(()), |after| write!(f, "#{after}"))
    }
}

/// The stored progress.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Progress {
    /// The day on which the run began, `#`, and the [`Place`] or [`DONE`].
    at: String,
}

/// A run that is not done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// The day on which it began, such as `2026-11-21`.
    day: String,
    /// What it has done; `None` at its beginning.
    place: Option<Place>,
}

impl Run {
    /// The run that is to be continued or begun on this day; `None` if the day's is done.
    fn after(progress: Option<&Progress>, today: &str) -> Result<Option<Self>, StoreError> {
        let new = Self { day: today.to_owned(), place: None };
        let Some(Progress { at }) = progress else { return Ok(Some(new)) };
        let (day, place) = at.split_once('#').ok_or(StoreError::Defect)?;
        if place == DONE {
            return Ok((day < today).then_some(new));
        }
        let place = Place::parse(place).ok_or(StoreError::Defect)?;
        Ok(Some(Self { day: day.to_owned(), place: Some(place) }))
    }
}

impl Store {
    /// The run that is to be continued, or else begun today; `None` if today's is done.
    pub async fn unused_run(&self) -> Result<Option<Run>, StoreError> {
        let progress = self.get(keys::unused_run()).await?;
        Run::after(progress.as_ref(), &self.clock.now().date())
    }

    /// Continues a run: with what is left of the organization in which it is, or with the next ones.
    /// Ends early if another run is ahead. False if a listing could not be looked through to its end.
    pub async fn continue_unused_run(&self, run: &Run) -> Result<bool, StoreError> {
        let begun = run.place.as_ref().filter(|place| place.listing < LISTINGS.len());
        let ids = match begun {
            Some(place) => vec![place.org.clone()],
            None => self.org_ids_after(run.place.as_ref().map(|place| &place.org), PAGE).await?,
        };
        // Organizations that are made meanwhile have no token that is a day old.
        let is_last = begun.is_none() && ids.len() < PAGE;
        let last = ids.last().cloned();
        let (mut is_complete, mut reached) = (true, None);
        // As they are now, not as they are remembered.
        for org in self.orgs_with(ids).await? {
            let Some(days) = org.lifetimes.end_after_unused_days else { continue };
            if !self.end_unused_of(run, &org.id, days, begun, &mut is_complete).await? {
                return Ok(is_complete);
            }
            reached = Some(org.id);
        }
        match last.filter(|last| reached.as_ref() != Some(last)) {
            _ if is_last => self.reach(run, DONE).await?,
            Some(last) => self.reach(run, &Place::after(last).to_string()).await?,
            None => true,
        };
        Ok(is_complete)
    }

    /// Ends the unused tokens of an organization from this place on, or all. False if another run is
    /// ahead. A listing that this version cannot look through is passed over.
    async fn end_unused_of(
        &self,
        run: &Run,
        org: &OrgId,
        days: Days,
        from: Option<&Place>,
        is_complete: &mut bool,
    ) -> Result<bool, StoreError> {
        let (first, mut after) = from.map_or((0, None), |place| (place.listing, place.after.clone()));
        for (listing, of) in LISTINGS.into_iter().enumerate().skip(first) {
            loop {
                after = match self.end_unused_in(org, of, days, after.as_deref()).await {
                    Ok(next) => next,
                    Err(StoreError::Defect) => {
                        tracing::error!(org = org.as_str(), listing = ?of, "unused tokens cannot be ended");
                        *is_complete = false;
                        None
                    }
                    Err(error) => return Err(error),
                };
                if after.is_none() {
                    break;
                }
                let place = Place { org: org.clone(), listing, after: after.clone() };
                if !self.reach(run, &place.to_string()).await? {
                    return Ok(false);
                }
            }
        }
        self.reach(run, &Place::after(org.clone()).to_string()).await
    }

    /// Ends the unused tokens of a page of a listing. Returns where the next page starts.
    async fn end_unused_in(
        &self,
        org: &OrgId,
        listing: Listing,
        days: Days,
        after: Option<&str>,
    ) -> Result<Option<String>, StoreError> {
        match listing {
            Listing::OrgUserTokens => self.end_unused_org_user_tokens(org, days, after).await,
            Listing::ApiKeys(environment) => self.end_unused_api_keys(org, environment, days, after).await,
            Listing::OrgAccessTokens => self.end_unused_org_access_tokens(org, days, after).await,
        }
    }

    /// Notes how far a run is. False if another one is as far, or further.
    async fn reach(&self, run: &Run, place: &str) -> Result<bool, StoreError> {
        let at = format!("{}#{place}", run.day);
        let condition = "attribute_not_exists(#at) OR #at < :at";
        let written = self.update(keys::unused_run(), "SET #at = :at", condition, &[(":at", &at)]).await?;
        Ok(written == Committed::Yes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: &str = "2026-11-21";

    fn place(listing: usize, after: Option<&str>) -> Place {
        let org = OrgId::parse("OG01KAJ8M4R2X7Z9V5T3Q1N6P8WC").unwrap();
        Place { org, listing, after: after.map(str::to_owned) }
    }

    fn run_after(at: &str) -> Result<Option<Run>, StoreError> {
        Run::after(Some(&Progress { at: at.to_owned() }), DAY)
    }

    #[test]
    fn stored_item_matches_its_snapshot() {
        let at = format!("{DAY}#{}", place(0, Some("alice-laptop#01KAJ8M4R2X7Z9V5T3Q1N6P8WC")));
        insta::assert_json_snapshot!(Progress { at });
    }

    #[test]
    fn later_place_sorts_after_an_earlier_one() {
        let next = OrgId::parse("OG01KAJ8M4R2X7Z9V5T3Q1N6P8WD").unwrap();
        let places = [
            place(0, Some("alice#01")),
            place(0, Some("alice#02")),
            place(0, Some("bobby#00")),
            place(1, Some("00")),
            place(3, None),
            place(LISTINGS.len(), None),
            Place { org: next, listing: 0, after: Some("alice#00".to_owned()) },
        ];
        for place in &places {
            assert_eq!(Place::parse(&place.to_string()).as_ref(), Some(place));
        }
        let mut texts: Vec<String> = places.iter().map(Place::to_string).collect();
        texts.push(DONE.to_owned());
        assert!(texts.is_sorted(), "{texts:?}");
    }

    #[test]
    fn unfinished_run_is_continued_whatever_the_day_and_a_finished_day_is_not_repeated() {
        let new = Some(Run { day: DAY.to_owned(), place: None });
        assert_eq!(Run::after(None, DAY), Ok(new.clone()));
        assert_eq!(run_after("2026-11-20#done"), Ok(new));
        for at in ["2026-11-21#done", "2026-11-22#done"] {
            assert_eq!(run_after(at), Ok(None), "{at}");
        }
        let begun = place(2, Some("01"));
        for day in ["2026-11-19", DAY, "2026-11-22"] {
            let run = Run { day: day.to_owned(), place: Some(begun.clone()) };
            assert_eq!(run_after(&format!("{day}#{begun}")), Ok(Some(run)));
        }
        for at in ["", DAY, "2026-11-21#", "2026-11-21#OG01#0", "2026-11-21#finished"] {
            assert_eq!(run_after(at), Err(StoreError::Defect), "{at}");
        }
    }
}
