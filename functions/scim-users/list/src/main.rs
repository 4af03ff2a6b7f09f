//! The Lambda binary of `scim-users-list`.

#[tokio::main(flavor = "current_thread")]
async fn main() -> shared::RuntimeResult {
    shared::serve(scim_users_list::routes()).await
}
