//! The Lambda binary of `console-org-user-tokens`.

#[tokio::main(flavor = "current_thread")]
async fn main() -> shared::RuntimeResult {
    shared::serve_console(console_org_user_tokens::routes()).await
}
