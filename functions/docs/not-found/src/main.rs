//! The Lambda binary of `docs-not-found`.

#[tokio::main(flavor = "current_thread")]
async fn main() -> shared::RuntimeResult {
    shared::serve_console_stateless(docs_not_found::routes()).await
}
