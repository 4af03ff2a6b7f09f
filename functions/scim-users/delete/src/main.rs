//! The Lambda binary of `scim-users-delete`.

#[tokio::main(flavor = "current_thread")]
async fn main() -> shared::RuntimeResult {
    shared::serve(scim_users_delete::routes()).await
}
