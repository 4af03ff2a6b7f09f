//! What tokens are used for: downloads per token, day and ecosystem.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::keys::{self, USAGE_TOTAL};
use super::{Places, Range, Store, StoreError};
use crate::ids::TokenId;

/// How many days back usage is answered, today included.
const DAYS: usize = 30;

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
        let day = std::time::Duration::from_secs(24 * 60 * 60);
        let before = self.clock.now().minus(day * u32::try_from(DAYS).unwrap_or(0));
        let before = keys::usage_on(token, &before.date());
        // The total lies behind all days, so one read of a piece of the partition has both.
        let range = Range::new(&before.pk, Places::After(&before.sk));
        let mut usage = Usage::default();
        for (place, counts) in self.query::<Counts>(range, DAYS + 1).await? {
            if place == USAGE_TOTAL {
                usage.total = counts.npm + counts.pypi;
            } else {
                usage.last_30_days.insert(0, Day { date: place, npm: counts.npm, pypi: counts.pypi });
            }
        }
        Ok(usage)
    }
}
