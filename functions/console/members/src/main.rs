//! The Lambda binary of `console-members`.

#[tokio::main(flavor = "current_thread")]
async fn main() -> shared::RuntimeResult {
    shared::serve_console_with_mail(console_members::routes()).await
}
