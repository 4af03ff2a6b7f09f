//! The Lambda binary of `org-access-tokens-update`.

#[tokio::main]
async fn main() -> shared::RuntimeResult {
    shared::serve(org_access_tokens_update::routes()).await
}
