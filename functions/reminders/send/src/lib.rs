//! Every hour: reminds people of tokens that are about to expire, once a day, and tells organizations
//! what they have asked for.

use shared::{ApiError, MailApp, notices, reminders};

/// Mails everybody who is to be reminded today and was not yet, with the first run of a day nearly
/// always all of them, and everybody who is to be told what happened. It may be ended at any point;
/// the next run continues.
///
/// # Errors
///
/// If the table fails, or SES accepts no reminder at all.
pub async fn send(app: MailApp) -> Result<(), ApiError> {
    // First what is soon done, so that many reminders do not delay it.
    let told = notices::tell(&app).await;
    reminders::remind(&app).await.and(told)
}
