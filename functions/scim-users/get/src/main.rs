//! The Lambda binary of `scim-users-get`.

#[tokio::main(flavor = "current_thread")]
async fn main() -> shared::RuntimeResult {
    shared::serve(scim_users_get::routes()).await
}
