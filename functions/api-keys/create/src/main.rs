//! The Lambda binary of `api-keys-create`.

#[tokio::main]
async fn main() -> shared::RuntimeResult {
    shared::serve(api_keys_create::routes()).await
}
