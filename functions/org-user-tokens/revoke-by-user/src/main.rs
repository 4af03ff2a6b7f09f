//! The Lambda binary of `org-user-tokens-revoke-by-user`.

#[tokio::main(flavor = "current_thread")]
async fn main() -> shared::RuntimeResult {
    shared::serve(org_user_tokens_revoke_by_user::routes()).await
}
