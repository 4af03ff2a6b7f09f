//! The Lambda binary of `leaks-send`.

#[tokio::main(flavor = "current_thread")]
async fn main() -> shared::RuntimeResult {
    shared::serve_schedule_with_mail(leaks_send::send).await
}
