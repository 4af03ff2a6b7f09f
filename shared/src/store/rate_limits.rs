//! Rate limit counters with a TTL: calls and wrong sign-in codes per network, refusals per
//! principal, and token changes per address. [`super::mail_limits`] counts mails.

use std::net::IpAddr;
use std::time::Duration;

use aws_sdk_dynamodb::types::{AttributeValue, ReturnConsumedCapacity, ReturnValue};

use super::keys::{self, Key};
use super::{Store, StoreError, failure, key_item};
use crate::cost::{self, Units};
use crate::email::AddressHash;

const MINUTE: i64 = 60;
pub(super) const HOUR: i64 = 60 * MINUTE;

/// Refusals of one principal per minute that are recorded.
pub const REFUSALS_PER_MINUTE: u64 = 10;

/// Wrong sign-in codes from one network per minute that are answered.
pub const WRONG_CODES_PER_MINUTE: u64 = 20;

/// Failed exchanges of CI per minute and network.
pub const FAILED_EXCHANGES_PER_MINUTE: u64 = 300;

/// Reports of leaked tokens from one network per minute.
pub const LEAK_REPORTS_PER_MINUTE: u64 = 60;

/// Well-formed tokens in such reports from one network per minute.
pub const LEAKED_TOKENS_PER_MINUTE: u64 = 2_000;

/// The attribute of items with a single counter.
pub(super) const COUNT: &str = "count";

impl Store {
    /// Counts a call from this address. If the limit is exceeded, the error is the time until the
    /// next minute.
    pub async fn count_call(&self, source: Option<IpAddr>, limit: u64) -> Result<Result<(), Duration>, StoreError> {
        self.count_in_minute(|minute| keys::calls_from(&network(source), minute), limit).await
    }

    /// Counts a refused call of this principal, on a partition of its own. If there are more than
    /// [`REFUSALS_PER_MINUTE`], the error is the time until the next minute.
    pub async fn count_refusal(&self, principal: &str) -> Result<Result<(), Duration>, StoreError> {
        self.count_in_minute(|minute| keys::refusals_of(principal, minute), REFUSALS_PER_MINUTE).await
    }

    /// Counts a wrong sign-in code from this address. If there are more than
    /// [`WRONG_CODES_PER_MINUTE`], the error is the time until the next minute.
    pub async fn count_wrong_code(&self, source: Option<IpAddr>) -> Result<Result<(), Duration>, StoreError> {
        self.count_in_minute(|minute| keys::wrong_codes_from(&network(source), minute), WRONG_CODES_PER_MINUTE).await
    }

    /// Counts a failed exchange from this address. If there are more than
    /// [`FAILED_EXCHANGES_PER_MINUTE`], the error is the time until the next minute.
    pub async fn count_failed_exchange(&self, source: Option<IpAddr>) -> Result<Result<(), Duration>, StoreError> {
        self.count_in_minute(
            |minute| keys::failed_exchanges_from(&network(source), minute),
            FAILED_EXCHANGES_PER_MINUTE,
        )
        .await
    }

    /// Counts a report of leaked tokens from this address. If there are more than
    /// [`LEAK_REPORTS_PER_MINUTE`], the error is the time until the next minute.
    pub async fn count_leak_report(&self, source: Option<IpAddr>) -> Result<Result<(), Duration>, StoreError> {
        self.count_in_minute(|minute| keys::leak_reports_from(&network(source), minute), LEAK_REPORTS_PER_MINUTE).await
    }

    /// Counts the well-formed tokens of a report from this address. If there would be more than
    /// [`LEAKED_TOKENS_PER_MINUTE`], none is counted, and the error is the time until the next minute.
    pub async fn count_leaked_tokens(
        &self,
        source: Option<IpAddr>,
        tokens: usize,
    ) -> Result<Result<(), Duration>, StoreError> {
        let Some(tokens) = u64::try_from(tokens).ok().filter(|tokens| *tokens > 0) else { return Ok(Ok(())) };
        let now = self.clock.now().epoch_seconds();
        let end = (now / MINUTE + 1) * MINUTE;
        let key = keys::leaked_tokens_from(&network(source), now / MINUTE);
        let counted = self
            .add_up_to(key, COUNT, tokens.try_into().unwrap_or(i64::MAX), Some(end), Some(LEAKED_TOKENS_PER_MINUTE))
            .await?;
        Ok(counted.map(|_| ()).ok_or(Duration::from_secs(u64::try_from(end - now).unwrap_or(1))))
    }

    async fn count_in_minute(
        &self,
        key: impl FnOnce(i64) -> Key,
        limit: u64,
    ) -> Result<Result<(), Duration>, StoreError> {
        let now = self.clock.now().epoch_seconds();
        let end = (now / MINUTE + 1) * MINUTE;
        let count = self.count(key(now / MINUTE), COUNT, Some(end)).await?;
        let left = Duration::from_secs(u64::try_from(end - now).unwrap_or(1));
        Ok(if count > limit { Err(left) } else { Ok(()) })
    }

    /// Counts a change of an address's token. Returns the number in this hour, including this one.
    pub async fn count_change(&self, address: AddressHash) -> Result<u64, StoreError> {
        let now = self.clock.now().epoch_seconds();
        self.count(keys::address_changes(address, now / HOUR), COUNT, Some((now / HOUR + 1) * HOUR)).await
    }

    /// Increments a counter and returns its new value. The item expires at `end`, in seconds since
    /// the Unix epoch.
    pub(super) async fn count(&self, key: Key, counter: &str, end: Option<i64>) -> Result<u64, StoreError> {
        self.count_up_to(key, counter, end, None).await?.ok_or(StoreError::Defect)
    }

    /// Like [`Self::count`]. `None` if the counter has reached its maximum; it is not incremented
    /// then.
    pub(super) async fn count_up_to(
        &self,
        key: Key,
        counter: &str,
        end: Option<i64>,
        max: Option<u64>,
    ) -> Result<Option<u64>, StoreError> {
        self.add_up_to(key, counter, 1, end, max).await
    }

    /// Like [`Self::count_up_to`], for several at once, or to take some off. `None` if the counter
    /// would exceed its maximum.
    pub(super) async fn add_up_to(
        &self,
        key: Key,
        counter: &str,
        amount: i64,
        end: Option<i64>,
        max: Option<u64>,
    ) -> Result<Option<u64>, StoreError> {
        let number = |number: &dyn std::fmt::Display| AttributeValue::N(number.to_string());
        let mut request = self
            .client
            .update_item()
            .table_name(&self.table)
            .set_key(Some(key_item(key)))
            .expression_attribute_names("#count", counter)
            .expression_attribute_values(":amount", number(&amount))
            .return_values(ReturnValue::UpdatedNew)
            .return_consumed_capacity(ReturnConsumedCapacity::Total);
        request = match end {
            None => request.update_expression("ADD #count :amount"),
            Some(end) => request
                .update_expression("SET #ttl = :end ADD #count :amount")
                .expression_attribute_names("#ttl", keys::TTL)
                .expression_attribute_values(":end", number(&end)),
        };
        if let Some(max) = max {
            request = request
                .condition_expression("attribute_not_exists(#count) OR #count < :max")
                .expression_attribute_values(":max", number(&max.saturating_add(1).saturating_add_signed(-amount)));
        }
        let output = match request.send().await {
            Ok(output) => output,
            Err(error) if error.as_service_error().is_some_and(|e| e.is_conditional_check_failed_exception()) => {
                // DynamoDB charges a failed condition but does not report it.
                cost::add(Units::Write, &[]);
                return Ok(None);
            }
            Err(error) => return Err(failure(error)),
        };
        cost::add(Units::Write, output.consumed_capacity.as_slice());
        let count = output.attributes.as_ref().and_then(|item| item.get(counter)?.as_n().ok()?.parse().ok());
        count.map(Some).ok_or(StoreError::Defect)
    }
}

/// The network a call is counted for: an IPv4 address, or the /64 of an IPv6 address, which belongs
/// to one subscriber. Calls without an address share one counter.
pub(super) fn network(source: Option<IpAddr>) -> String {
    match source.map(|source| source.to_canonical()) {
        None => "unknown".to_owned(),
        Some(IpAddr::V4(address)) => address.to_string(),
        Some(IpAddr::V6(address)) => {
            let [a, b, c, d, ..] = address.segments();
            format!("{a:x}:{b:x}:{c:x}:{d:x}::/64")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ipv6_addresses_of_one_subscriber_share_a_counter() {
        let of = |text: &str| network(Some(text.parse().unwrap()));
        assert_eq!(of("2001:db8:1:2::1"), of("2001:db8:1:2:ffff::9"));
        assert_ne!(of("2001:db8:1:2::1"), of("2001:db8:1:3::1"));
        assert_eq!(of("::ffff:203.0.113.7"), of("203.0.113.7"));
        assert_ne!(of("203.0.113.7"), of("203.0.113.8"));
    }
}
