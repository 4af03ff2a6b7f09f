//! The Lambda binary of `org-user-tokens-issue`.

#[tokio::main]
async fn main() -> shared::RuntimeResult {
    shared::serve(org_user_tokens_issue::routes()).await
}
