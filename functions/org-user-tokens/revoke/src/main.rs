//! The Lambda binary of `org-user-tokens-revoke`.

#[tokio::main]
async fn main() -> shared::RuntimeResult {
    shared::serve(org_user_tokens_revoke::routes()).await
}
