//! The Lambda binary of `org-access-tokens-create`.

#[tokio::main]
async fn main() -> shared::RuntimeResult {
    shared::serve(org_access_tokens_create::routes()).await
}
