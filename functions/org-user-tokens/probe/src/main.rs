//! The Lambda binary of `org-user-tokens-probe`.

#[tokio::main(flavor = "current_thread")]
async fn main() -> shared::RuntimeResult {
    shared::serve(org_user_tokens_probe::routes()).await
}
