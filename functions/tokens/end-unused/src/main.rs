//! The Lambda binary of `tokens-end-unused`.

#[tokio::main(flavor = "current_thread")]
async fn main() -> shared::RuntimeResult {
    shared::serve_schedule(tokens_end_unused::end_unused).await
}
