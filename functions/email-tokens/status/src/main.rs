//! The Lambda binary of `email-tokens-status`.

#[tokio::main(flavor = "current_thread")]
async fn main() -> shared::RuntimeResult {
    shared::serve(email_tokens_status::routes()).await
}
