//! The Lambda binary of `org-access-tokens-delete`.

#[tokio::main]
async fn main() -> shared::RuntimeResult {
    shared::serve(org_access_tokens_delete::routes()).await
}
