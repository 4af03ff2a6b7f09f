//! The Lambda binary of `console-access-tokens`.

#[tokio::main(flavor = "current_thread")]
async fn main() -> shared::RuntimeResult {
    shared::serve_console(console_access_tokens::routes()).await
}
