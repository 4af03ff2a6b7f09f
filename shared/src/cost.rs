//! The DynamoDB capacity that a request consumes: counted per request, logged, and asserted by
//! tests.

use std::cell::Cell;
use std::future::Future;

use aws_sdk_dynamodb::types::ConsumedCapacity;

tokio::task_local! {
    static COST: Cell<Cost>;
}

/// Capacity units that DynamoDB reported for one request.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Cost {
    /// Read units.
    pub read: f64,
    /// Write units; those of a transaction count twice.
    pub write: f64,
    /// Calls to DynamoDB.
    pub calls: u32,
}

/// Runs a future and counts the capacity it consumes.
pub async fn metered<T>(future: impl Future<Output = T>) -> (T, Cost) {
    COST.scope(Cell::default(), async {
        let output = future.await;
        (output, COST.with(Cell::get))
    })
    .await
}

/// The kind of the consumed units. DynamoDB reports only a total.
#[derive(Clone, Copy)]
pub(crate) enum Units {
    Read,
    Write,
}

/// Adds one call to the cost of the current request. Does nothing outside a request.
pub(crate) fn add(units: Units, consumed: &[ConsumedCapacity]) {
    let total: f64 = consumed.iter().filter_map(ConsumedCapacity::capacity_units).sum();
    let _ = COST.try_with(|cost| {
        let mut sum = cost.get();
        sum.calls += 1;
        match units {
            Units::Read => sum.read += total,
            Units::Write => sum.write += total,
        }
        cost.set(sum);
    });
}
