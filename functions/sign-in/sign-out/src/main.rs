//! The Lambda binary of `sign-in-sign-out`.

#[tokio::main(flavor = "current_thread")]
async fn main() -> shared::RuntimeResult {
    shared::serve_console(sign_in_sign_out::routes()).await
}
