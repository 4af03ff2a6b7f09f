//! The Lambda binary of `docs-openapi`.

#[tokio::main(flavor = "current_thread")]
async fn main() -> shared::RuntimeResult {
    shared::serve_stateless(docs_openapi::routes()).await
}
