//! The Lambda binary of `tokens-introspect`.

#[tokio::main(flavor = "current_thread")]
async fn main() -> shared::RuntimeResult {
    shared::serve(tokens_introspect::routes()).await
}
