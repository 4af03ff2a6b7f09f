//! The Lambda binary of `installations-list`.

#[tokio::main]
async fn main() -> shared::RuntimeResult {
    shared::serve_with_installation_log(installations_list::routes()).await
}
