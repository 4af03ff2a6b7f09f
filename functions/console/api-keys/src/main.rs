//! The Lambda binary of `console-api-keys`.

#[tokio::main(flavor = "current_thread")]
async fn main() -> shared::RuntimeResult {
    shared::serve_console(console_api_keys::routes()).await
}
