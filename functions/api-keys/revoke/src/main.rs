//! The Lambda binary of `api-keys-revoke`.

#[tokio::main(flavor = "current_thread")]
async fn main() -> shared::RuntimeResult {
    shared::serve(api_keys_revoke::routes()).await
}
