//! The Lambda binary of `console-account`.

#[tokio::main(flavor = "current_thread")]
async fn main() -> shared::RuntimeResult {
    shared::serve_console(console_account::routes()).await
}
