//! The Lambda binary of `console-installations`.

#[tokio::main(flavor = "current_thread")]
async fn main() -> shared::RuntimeResult {
    shared::serve_console_with_installation_log(console_installations::routes()).await
}
