//! The Lambda binary of `email-tokens-status`.

#[tokio::main]
async fn main() -> shared::RuntimeResult {
    shared::serve(email_tokens_status::routes()).await
}
