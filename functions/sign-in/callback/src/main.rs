//! The Lambda binary of `sign-in-callback`.

#[tokio::main(flavor = "current_thread")]
async fn main() -> shared::RuntimeResult {
    shared::serve_console_with_provider(sign_in_callback::routes()).await
}
