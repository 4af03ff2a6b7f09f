//! The Lambda binary of `api-keys-list`.

#[tokio::main(flavor = "current_thread")]
async fn main() -> shared::RuntimeResult {
    shared::serve(api_keys_list::routes()).await
}
