//! The Lambda binary of `sign-in-code`.

#[tokio::main(flavor = "current_thread")]
async fn main() -> shared::RuntimeResult {
    shared::serve_console_with_mail(sign_in_code::routes()).await
}
