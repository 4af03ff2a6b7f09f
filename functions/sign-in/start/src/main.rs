//! The Lambda binary of `sign-in-start`.

#[tokio::main(flavor = "current_thread")]
async fn main() -> shared::RuntimeResult {
    shared::serve_console(sign_in_start::routes()).await
}
