//! Rotations that the API is asked for: the request body, and what a caller is answered.

use std::time::Duration;

use serde::{Deserialize, Deserializer};
use utoipa::ToSchema;

use crate::app::App;
use crate::auth::Minter;
use crate::clock::Moment;
use crate::error::{ApiError, Unauthorized};
use crate::extract::in_the_future;
use crate::secret::Token;
use crate::store::idempotency::Once;
use crate::store::rotation::{By, MAX_OVERLAP, Rotate, Rotation, Successor, Unrotatable};

/// Attempts if the bot is changed meanwhile.
const MAX_ATTEMPTS: usize = 8;

/// Two calls rotate one token at the same time.
pub const ROTATED_MEANWHILE: ApiError =
    ApiError::Conflict("Another call rotated this token at the same time. Use the successor that it returned.");

/// The line of successors is full.
const NEVER_USED: ApiError = ApiError::Conflict(
    "This token and those before it were rotated many times without ever being used. Use it, or revoke it.",
);

impl Unrotatable {
    /// What the caller is answered; `not_found` if there is none.
    pub(crate) fn refusal(self, not_found: ApiError) -> ApiError {
        match self {
            Unrotatable::NotFound => not_found,
            Unrotatable::Conflict => ROTATED_MEANWHILE,
            Unrotatable::NeverUsed => NEVER_USED,
        }
    }
}

/// How to rotate a token. All fields are optional.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = RotateToken)]
pub struct RotateRequest {
    /// How long the old token stays active: a number with `s`, `m`, `h` or `d`, at most `7d`. By
    /// default it ends at once, or after 7 days if `until_first_use` is true.
    overlap: Option<Overlap>,
    /// Whether the old token also ends at the first use of the new one.
    #[serde(default)]
    until_first_use: bool,
    /// When the new token expires. Must be in the future, and within the organization's policy; null
    /// means never. By default when the old one expired.
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<Moment>, example = "2099-12-31T23:59:59Z")]
    expires_at: Option<Option<Moment>>,
}

/// Tells null from an omitted field.
fn given<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Option<Moment>>, D::Error> {
    Option::deserialize(deserializer).map(Some)
}

impl RotateRequest {
    /// Whether it says when the new token expires: then the organization's policy binds it.
    pub fn sets_expiry(&self) -> bool {
        self.expires_at.is_some()
    }

    /// The rotation of a token that expires at this time.
    ///
    /// # Errors
    ///
    /// 400 if `expires_at` is not in the future.
    pub fn of(&self, expires_at: Option<Moment>, now: Moment) -> Result<Rotation, ApiError> {
        let default = if self.until_first_use { MAX_OVERLAP } else { Duration::ZERO };
        Ok(Rotation {
            overlap: self.overlap.map_or(default, |overlap| overlap.0),
            until_first_use: self.until_first_use,
            expires_at: match self.expires_at {
                Some(given) => in_the_future(given, now)?,
                None => expires_at,
            },
        })
    }
}

impl Minter<'_> {
    /// Rotates what has this ID: creates its successor, with the plain token, which is returned only
    /// here.
    ///
    /// # Errors
    ///
    /// What the caller is answered. A refusal is recorded.
    pub async fn rotate<T: Rotate>(
        mut self,
        app: &App,
        id: &T::Id,
        request: &RotateRequest,
        once: Option<&Once>,
    ) -> Result<(Box<T>, Token), ApiError> {
        for _ in 0..MAX_ATTEMPTS {
            let mut old = match T::find(app.store(), self.org_id, id, self.received_at).await? {
                Ok(old) => old,
                Err(reason) => {
                    // The same request may have been carried out meanwhile.
                    let repeat = app.store().repeated(self.org_id, once, self.caller).await?;
                    return Err(repeat.map_or_else(|| reason.refusal(T::NOT_FOUND), ApiError::from));
                }
            };
            if let Some((own, _)) = self.api_key {
                T::bind_to(&mut old, own);
            }
            let rotation = request.of(T::expires_at(&old), app.clock().now())?;
            if let Some(kind) = T::LIMITED.filter(|_| request.sets_expiry()) {
                let now = app.clock().now();
                app.store().check_policy(self.org_id, kind, now, rotation.expires_at).await??;
            }
            self.check_lifetime(app, rotation.expires_at).await?;
            if let Some(more) = self.api_key.and_then(|(own, _)| T::exceeds(&old, own, rotation.expires_at)) {
                self.record_refusal(app).await?;
                return Err(ApiError::Exceeds(more));
            }
            let by = By { api_key: self.api_key, authority: self.authority(), caller: self.caller, once };
            let refusal = match T::rotate(app.store(), old, rotation, by).await? {
                Successor::Done(token, plain) => return Ok((token, plain)),
                Successor::CallerChanged => {
                    self.check_again(app).await?;
                    continue;
                }
                Successor::NotFound => return Err(T::NOT_FOUND),
                Successor::Conflict => return Err(ROTATED_MEANWHILE),
                Successor::CallerRevoked => return Err(ApiError::Unauthorized(Unauthorized::Invalid)),
                Successor::Repeated(repeat) => return Err(repeat.into()),
                Successor::Suspended => ApiError::Suspended,
                Successor::PlanLimitReached => ApiError::PlanLimitReached,
            };
            self.record_refusal(app).await?;
            return Err(refusal);
        }
        Err(ApiError::Unavailable)
    }
}

/// A time such as `24h`: a number with `s`, `m`, `h` or `d`, at most 7 days.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(try_from = "String")]
#[schema(value_type = String, pattern = "^[0-9]{1,6}[smhd]$", example = "24h")]
pub struct Overlap(Duration);

impl TryFrom<String> for Overlap {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let split = text.len().checked_sub(1).and_then(|at| text.split_at_checked(at));
        let (number, unit) = split.unwrap_or_default();
        let is_number = (1..=6).contains(&number.len()) && number.bytes().all(|c| c.is_ascii_digit());
        let seconds = match unit {
            "s" => 1,
            "m" => 60,
            "h" => 60 * 60,
            "d" => 24 * 60 * 60,
            _ => 0,
        };
        let number = number.parse::<u64>().ok().filter(|_| is_number && seconds > 0);
        let overlap = number.map(|number| Duration::from_secs(number * seconds));
        overlap
            .filter(|overlap| *overlap <= MAX_OVERLAP)
            .map(Self)
            .ok_or("must be a number with `s`, `m`, `h` or `d`, such as `24h`, and at most `7d`")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overlap_is_a_number_with_a_unit_and_at_most_seven_days() {
        for (text, seconds) in
            [("0s", 0), ("90s", 90), ("5m", 300), ("24h", 86_400), ("7d", 604_800), ("168h", 604_800)]
        {
            assert_eq!(Overlap::try_from(text.to_owned()), Ok(Overlap(Duration::from_secs(seconds))), "{text}");
        }
        for text in ["", "h", "7", "8d", "169h", "-1h", "+1h", "1.5h", "1 h", "1w", "1H", "1hh", "９h", "9999999s", "é"]
        {
            assert!(Overlap::try_from(text.to_owned()).is_err(), "{text}");
        }
    }

    #[test]
    fn omitted_expiry_is_the_old_one_and_null_is_none() {
        let now = Moment::parse("2026-11-21T10:00:00Z").unwrap();
        let old = Moment::parse("2026-12-21T10:00:00Z");
        let of = |body: &str| serde_json::from_str::<RotateRequest>(body).unwrap().of(old, now);
        assert_eq!(of("{}").unwrap(), Rotation { overlap: Duration::ZERO, until_first_use: false, expires_at: old });
        assert_eq!(of(r#"{"expires_at":null}"#).unwrap().expires_at, None);
        assert_eq!(of(r#"{"until_first_use":true}"#).unwrap().overlap, MAX_OVERLAP);
        assert_eq!(of(r#"{"until_first_use":true,"overlap":"1h"}"#).unwrap().overlap, Duration::from_secs(3_600));
        assert!(of(r#"{"expires_at":"2026-11-21T10:00:00Z"}"#).is_err());
    }
}
