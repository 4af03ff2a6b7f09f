//! The Lambda binary of `installations-list`.

#[tokio::main(flavor = "current_thread")]
async fn main() -> shared::RuntimeResult {
    shared::serve_with_installation_log(installations_list::routes()).await
}
