//! The Lambda binary of `tokens-authorize`.

#[tokio::main(flavor = "current_thread")]
async fn main() -> shared::RuntimeResult {
    shared::serve_authorizer(tokens_authorize::handle).await
}
