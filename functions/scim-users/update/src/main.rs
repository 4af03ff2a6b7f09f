//! The Lambda binary of `scim-users-update`.

#[tokio::main(flavor = "current_thread")]
async fn main() -> shared::RuntimeResult {
    shared::serve(scim_users_update::routes()).await
}
