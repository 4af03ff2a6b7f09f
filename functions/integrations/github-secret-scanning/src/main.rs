//! The Lambda binary of `integrations-github-secret-scanning`.

#[tokio::main(flavor = "current_thread")]
async fn main() -> shared::RuntimeResult {
    shared::serve_with_secret_scanning(integrations_github_secret_scanning::routes()).await
}
