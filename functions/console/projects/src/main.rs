//! The Lambda binary of `console-projects`.

#[tokio::main(flavor = "current_thread")]
async fn main() -> shared::RuntimeResult {
    shared::serve_console(console_projects::routes()).await
}
