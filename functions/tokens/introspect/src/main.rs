//! The Lambda binary of `tokens-introspect`.

#[tokio::main]
async fn main() -> shared::RuntimeResult {
    shared::serve(tokens_introspect::routes()).await
}
