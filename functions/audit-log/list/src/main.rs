//! The Lambda binary of `audit-log-list`.

#[tokio::main]
async fn main() -> shared::RuntimeResult {
    shared::serve(audit_log_list::routes()).await
}
