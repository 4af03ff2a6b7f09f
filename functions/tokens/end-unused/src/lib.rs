//! Once a day: writes the ends of tokens that were not used for the days of their organization's policy.

use shared::{ApiError, App};

/// Ends everything that is to be ended today. It may be ended at any point; the next run continues.
///
/// # Errors
///
/// If the table fails, or something cannot be ended. Everything else is ended first.
pub async fn end_unused(app: App) -> Result<(), ApiError> {
    let mut result = Ok(());
    // What a killed run of an earlier day has left comes first, then today's.
    while let Some(run) = app.store().unused_run().await? {
        if !app.store().continue_unused_run(&run).await? {
            result = Err(ApiError::Internal);
        }
    }
    result
}
