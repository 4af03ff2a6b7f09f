//! The Lambda binary of `tokens-authorize`.

#[tokio::main]
async fn main() -> shared::RuntimeResult {
    shared::serve_authorizer(tokens_authorize::handle).await
}
