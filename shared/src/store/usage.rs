//! What tokens are used for: downloads per token, day and ecosystem.

use std::time::Duration;

use futures::future::try_join;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::keys::{self, USAGE_TOTAL};
use super::{Places, Range, Store, StoreError};
use crate::domain::Ecosystem;
use crate::ids::TokenId;

/// How many days back usage is answered, today included.
const DAYS: u32 = 30;
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// What a token was used for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, ToSchema)]
pub struct Usage {
    /// Downloads since the token exists.
    pub total: u64,
    /// Downloads of the last 30 days, today included, newest first; days without any are left out.
    pub last_30_days: Vec<Day>,
}

/// Downloads of one day.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Day {
    /// The day, in UTC.
    #[schema(format = Date, example = "2026-11-21")]
    pub date: String,
    /// Downloads of npm packages.
    pub npm: u64,
    /// Downloads of Python packages.
    pub pypi: u64,
}

/// Downloads as they are stored: of one day, or of all.
#[derive(Debug, Default, Deserialize)]
struct Counts {
    #[serde(default)]
    npm: u64,
    #[serde(default)]
    pypi: u64,
}

impl Store {
    /// What a token was used for. Its counters are items of their own, so that counting never touches the token.
    pub async fn usage(&self, token: &TokenId) -> Result<Usage, StoreError> {
        let before = self.clock.now().minus(DAY * DAYS);
        let before = keys::usage_on(token, &before.date());
        // The total lies behind all days, so one read of a piece of the partition has both.
        let range = Range::new(&before.pk, Places::After(&before.sk));
        let mut usage = Usage::default();
        for (place, counts) in self.query::<Counts>(range, DAYS as usize + 1).await? {
            if place == USAGE_TOTAL {
                usage.total = counts.npm + counts.pypi;
            } else {
                usage.last_30_days.insert(0, Day { date: place, npm: counts.npm, pypi: counts.pypi });
            }
        }
        Ok(usage)
    }

    /// Counts a download with a token, on its day and in its total. Two counters and no transaction: one command of a
    /// client downloads a thousand files, and transactions on the same items would get in each other's way.
    pub async fn count_download(&self, token: &TokenId, ecosystem: Ecosystem) -> Result<(), StoreError> {
        let now = self.clock.now();
        // A day is answered for as long as it is among the last, and is swept up thereafter.
        let end = now.plus(DAY * (DAYS + 1)).epoch_seconds();
        let today = self.count(keys::usage_on(token, &now.date()), ecosystem.as_str(), Some(end));
        let total = self.count(keys::usage_on(token, USAGE_TOTAL), ecosystem.as_str(), None);
        try_join(today, total).await.map(|_| ())
    }
}
