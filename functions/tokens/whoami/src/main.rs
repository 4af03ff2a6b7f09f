//! The Lambda binary of `tokens-whoami`.

#[tokio::main(flavor = "current_thread")]
async fn main() -> shared::RuntimeResult {
    shared::serve_stateless(tokens_whoami::routes()).await
}
