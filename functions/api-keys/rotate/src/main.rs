//! The Lambda binary of `api-keys-rotate`.

#[tokio::main(flavor = "current_thread")]
async fn main() -> shared::RuntimeResult {
    shared::serve(api_keys_rotate::routes()).await
}
