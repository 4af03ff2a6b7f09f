//! Runs the functions that EventBridge invokes on a schedule in a deployment.

use std::time::Duration;

use shared::MailApp;

/// How often they run. Some more often than deployed, since this service is rarely up all day.
const EVERY: Duration = Duration::from_secs(15 * 60);

/// Runs them at once and then regularly. What is due and was missed is done by the next run.
pub async fn run(app: MailApp) {
    let mut interval = tokio::time::interval(EVERY);
    loop {
        interval.tick().await;
        if email_tokens_erase::erase(app.app.clone()).await.is_err() {
            tracing::error!("not everything that is due could be erased");
        }
        if tokens_end_unused::end_unused(app.app.clone()).await.is_err() {
            tracing::error!("not all tokens that were not used could be ended");
        }
        if leaks_send::send(app.clone()).await.is_err() {
            tracing::error!("not everybody could be told about leaked tokens");
        }
        if reminders_send::send(app.clone()).await.is_err() {
            tracing::error!("not everybody could be reminded of tokens that expire");
        }
    }
}
