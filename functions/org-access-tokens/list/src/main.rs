//! The Lambda binary of `org-access-tokens-list`.

#[tokio::main(flavor = "current_thread")]
async fn main() -> shared::RuntimeResult {
    shared::serve(org_access_tokens_list::routes()).await
}
