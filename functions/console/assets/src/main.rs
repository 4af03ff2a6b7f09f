//! The Lambda binary of `console-assets`.

#[tokio::main(flavor = "current_thread")]
async fn main() -> shared::RuntimeResult {
    shared::serve_console_stateless(console_assets::routes()).await
}
