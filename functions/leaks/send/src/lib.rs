//! Every 15 minutes: tells people about leaked tokens that they have not been told of yet.

use shared::leaks::tell_pending;
use shared::store::leaks::Recipient;
use shared::{ApiError, MailApp};

/// Recipients per step.
const PAGE: usize = 100;

/// Tells everything that is pending, except to those who got such a mail within the last hour. It
/// may be ended at any point; the next run continues.
///
/// # Errors
///
/// If the table fails, or somebody cannot be told. Everybody else is told.
pub async fn send(app: MailApp) -> Result<(), ApiError> {
    let (mut result, mut after) = (Ok(()), None::<Recipient>);
    loop {
        let recipients = app.app.store().leak_recipients(after.as_ref(), PAGE).await?;
        after = recipients.last().cloned();
        if after.is_none() {
            return result;
        }
        result = result.and(tell_pending(&app, recipients).await);
    }
}
