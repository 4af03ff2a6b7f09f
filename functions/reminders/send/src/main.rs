//! The Lambda binary of `reminders-send`.

#[tokio::main(flavor = "current_thread")]
async fn main() -> shared::RuntimeResult {
    shared::serve_schedule_with_mail(reminders_send::send).await
}
