//! The Lambda binary of `registry-npm-logout`.

#[tokio::main(flavor = "current_thread")]
async fn main() -> shared::RuntimeResult {
    shared::serve(registry_npm_logout::routes()).await
}
