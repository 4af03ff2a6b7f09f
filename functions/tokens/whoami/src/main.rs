//! The Lambda binary of `tokens-whoami`.

#[tokio::main]
async fn main() -> shared::RuntimeResult {
    shared::serve_stateless(tokens_whoami::routes()).await
}
