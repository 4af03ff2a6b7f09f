//! The Lambda binary of `registry-pypi`.

#[tokio::main(flavor = "current_thread")]
async fn main() -> shared::RuntimeResult {
    shared::serve_registry(registry_pypi::routes()).await
}
