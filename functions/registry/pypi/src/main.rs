//! The Lambda binary of `registry-pypi`.

#[tokio::main]
async fn main() -> shared::RuntimeResult {
    shared::serve_registry(registry_pypi::routes()).await
}
