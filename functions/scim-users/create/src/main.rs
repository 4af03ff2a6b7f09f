//! The Lambda binary of `scim-users-create`.

#[tokio::main(flavor = "current_thread")]
async fn main() -> shared::RuntimeResult {
    shared::serve(scim_users_create::routes()).await
}
