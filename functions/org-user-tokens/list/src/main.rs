//! The Lambda binary of `org-user-tokens-list`.

#[tokio::main]
async fn main() -> shared::RuntimeResult {
    shared::serve(org_user_tokens_list::routes()).await
}
