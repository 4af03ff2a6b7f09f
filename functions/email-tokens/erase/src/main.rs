//! The Lambda binary of `email-tokens-erase`.

#[tokio::main(flavor = "current_thread")]
async fn main() -> shared::RuntimeResult {
    shared::serve_schedule(email_tokens_erase::erase).await
}
