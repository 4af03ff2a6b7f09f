//! The Lambda binary of `tokens-leaked`.

#[tokio::main(flavor = "current_thread")]
async fn main() -> shared::RuntimeResult {
    shared::serve_with_mail(tokens_leaked::routes()).await
}
