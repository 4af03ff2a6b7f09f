//! The Lambda binary of `org-user-tokens-rotate`.

#[tokio::main(flavor = "current_thread")]
async fn main() -> shared::RuntimeResult {
    shared::serve(org_user_tokens_rotate::routes()).await
}
