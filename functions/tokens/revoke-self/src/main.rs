//! The Lambda binary of `tokens-revoke-self`.

#[tokio::main(flavor = "current_thread")]
async fn main() -> shared::RuntimeResult {
    shared::serve(tokens_revoke_self::routes()).await
}
