//! Every hour: reminds people of tokens that are about to expire, once a day.

use shared::{ApiError, MailApp, reminders};

/// Mails everybody who is to be reminded today and was not yet: with the first run of a day nearly
/// always all of them. It may be ended at any point; the next run continues.
///
/// # Errors
///
/// If the table fails, or SES accepts no mail at all.
pub async fn send(app: MailApp) -> Result<(), ApiError> {
    reminders::remind(&app).await
}
