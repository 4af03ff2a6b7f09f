//! The Lambda binary of `org-user-tokens-probe`.

#[tokio::main]
async fn main() -> shared::RuntimeResult {
    shared::serve(org_user_tokens_probe::routes()).await
}
