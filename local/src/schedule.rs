//! Runs the functions that EventBridge invokes on a schedule in a deployment.

use std::time::Duration;

use shared::App;

/// How often they run. More often than deployed, since this service is rarely up all day.
const EVERY: Duration = Duration::from_secs(60 * 60);

/// Runs them at once and then regularly. What is due and was missed is done by the next run.
pub async fn run(app: App) {
    let mut interval = tokio::time::interval(EVERY);
    loop {
        interval.tick().await;
        if email_tokens_erase::erase(app.clone()).await.is_err() {
            tracing::error!("not everything that is due could be erased");
        }
    }
}
