//! The Lambda binary of `email-tokens-revoke`.

#[tokio::main(flavor = "current_thread")]
async fn main() -> shared::RuntimeResult {
    shared::serve_with_mail(email_tokens_revoke::routes()).await
}
