//! The Lambda binary of `api-keys-create`.

#[tokio::main(flavor = "current_thread")]
async fn main() -> shared::RuntimeResult {
    shared::serve(api_keys_create::routes()).await
}
