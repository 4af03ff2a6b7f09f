//! The Lambda binary of `console-bots`.

#[tokio::main(flavor = "current_thread")]
async fn main() -> shared::RuntimeResult {
    shared::serve_console(console_bots::routes()).await
}
