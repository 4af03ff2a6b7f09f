//! The Lambda binary of `registry-npm`.

#[tokio::main(flavor = "current_thread")]
async fn main() -> shared::RuntimeResult {
    shared::serve_registry(registry_npm::routes()).await
}
