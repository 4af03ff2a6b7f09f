//! The Lambda binary of `console-my-tokens`.

#[tokio::main(flavor = "current_thread")]
async fn main() -> shared::RuntimeResult {
    shared::serve_console(console_my_tokens::routes()).await
}
