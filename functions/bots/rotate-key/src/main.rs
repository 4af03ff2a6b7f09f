//! The Lambda binary of `bots-rotate-key`.

#[tokio::main(flavor = "current_thread")]
async fn main() -> shared::RuntimeResult {
    shared::serve(bots_rotate_key::routes()).await
}
