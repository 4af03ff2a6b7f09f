//! The Lambda binary of `console-policies`.

#[tokio::main(flavor = "current_thread")]
async fn main() -> shared::RuntimeResult {
    shared::serve_console(console_policies::routes()).await
}
