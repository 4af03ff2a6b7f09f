//! Once a day: erases what email-verified tokens have left that their holders removed 7 days ago.

use shared::store::StoreError;
use shared::{ApiError, App};

/// Erases everything that is due. It may be ended at any point; the next run continues.
///
/// # Errors
///
/// If the table fails, or something cannot be erased. Everything else that is due is erased first.
pub async fn erase(app: App) -> Result<(), ApiError> {
    let mut result = Ok(());
    // A round erases a page of each token, so that none waits for one with a long log.
    while round(&app, &mut result).await? {}
    result
}

/// Erases a page of what each removed token has left. Returns whether more is left.
async fn round(app: &App, result: &mut Result<(), ApiError>) -> Result<bool, ApiError> {
    let (mut is_more_left, mut after) = (false, None);
    loop {
        let due = app.store().due_erasures(after.as_ref()).await?;
        for erasure in &due {
            match app.store().erase(erasure).await {
                Ok(is_done) => is_more_left |= !is_done,
                Err(StoreError::Defect) => {
                    tracing::error!(token = erasure.token(), "a removed token cannot be erased");
                    *result = Err(ApiError::Internal);
                }
                Err(error) => return Err(error.into()),
            }
        }
        after = due.into_iter().next_back();
        if after.is_none() {
            return Ok(is_more_left);
        }
    }
}
