//! The Lambda binary of `org-user-tokens-list`.

#[tokio::main(flavor = "current_thread")]
async fn main() -> shared::RuntimeResult {
    shared::serve(org_user_tokens_list::routes()).await
}
