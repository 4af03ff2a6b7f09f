//! Token usage: downloads per token, day and ecosystem.

use std::time::Duration;

use futures::future::try_join;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::keys::{self, Key, USAGE_TOTAL};
use super::{Range, SortKeys, Store, StoreError};
use crate::domain::Ecosystem;
use crate::ids::TokenId;

/// Number of days reported, including today.
const DAYS: u32 = 30;
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// How often a token was used for downloads.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, ToSchema)]
pub struct Usage {
    /// Downloads since the token was created.
    pub total: u64,
    /// Downloads per day of the last 30 days, including today, newest first. Days without downloads
    /// are omitted.
    pub last_30_days: Vec<Day>,
}

/// Downloads on one day.
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

/// Stored download counters, of one day or in total.
#[derive(Debug, Default, Deserialize)]
struct Counts {
    #[serde(default)]
    npm: u64,
    #[serde(default)]
    pypi: u64,
}

impl Store {
    /// A token's usage. Counters are separate items, so counting never writes to the token.
    pub async fn usage(&self, token: &TokenId) -> Result<Usage, StoreError> {
        let before = self.clock.now().minus(DAY * DAYS);
        let before = keys::usage_on(token, &before.date());
        // The total sorts after all days, so one query returns both.
        let range = Range::new(&before.pk, SortKeys::After(&before.sk));
        let mut usage = Usage::default();
        for (sort_key, counts) in self.query::<Counts>(range, DAYS as usize + 1).await? {
            if sort_key == USAGE_TOTAL {
                usage.total = counts.npm + counts.pypi;
            } else {
                usage.last_30_days.insert(0, Day { date: sort_key, npm: counts.npm, pypi: counts.pypi });
            }
        }
        Ok(usage)
    }

    /// Counts a download for the day and in total. It uses no transaction: one install downloads a
    /// thousand files, and transactions on the same items would conflict.
    pub async fn count_download(&self, token: &TokenId, ecosystem: Ecosystem) -> Result<(), StoreError> {
        self.count_downloads(token, ecosystem, 1).await
    }

    /// Like [`Self::count_download`], for several, or to take one back.
    pub async fn count_downloads(&self, token: &TokenId, ecosystem: Ecosystem, count: i64) -> Result<(), StoreError> {
        let now = self.clock.now();
        // A day's counter expires once it is no longer reported.
        let end = now.plus(DAY * (DAYS + 1)).epoch_seconds();
        let add = |day: &str, end| self.add_up_to(keys::usage_on(token, day), ecosystem.as_str(), count, end, None);
        let (today, total) = (now.date(), USAGE_TOTAL);
        let (today, total) = (add(&today, Some(end)), add(total, None));
        try_join(today, total).await.map(|_| ())
    }

    /// Deletes all counters of a token.
    pub(super) async fn erase_usage(&self, token: &TokenId) -> Result<(), StoreError> {
        let pk = keys::usage(token);
        let counters: Vec<(String, Counts)> = self.query(Range::new(&pk, SortKeys::All), usize::MAX).await?;
        let counters: Vec<Key> = counters.iter().map(|(sort_key, _)| keys::usage_on(token, sort_key)).collect();
        self.delete_all(&counters).await
    }
}
