//! The Lambda binary of `org-access-tokens-create`.

#[tokio::main(flavor = "current_thread")]
async fn main() -> shared::RuntimeResult {
    shared::serve(org_access_tokens_create::routes()).await
}
