//! The Lambda binary of `audit-log-list`.

#[tokio::main(flavor = "current_thread")]
async fn main() -> shared::RuntimeResult {
    shared::serve(audit_log_list::routes()).await
}
