//! The Lambda binary of `bots-exchange`.

#[tokio::main(flavor = "current_thread")]
async fn main() -> shared::RuntimeResult {
    shared::serve_with_ci(bots_exchange::routes()).await
}
