//! The Lambda binary of `api-keys-list`.

#[tokio::main]
async fn main() -> shared::RuntimeResult {
    shared::serve(api_keys_list::routes()).await
}
