//! The Lambda binary of `console-audit-log`.

#[tokio::main(flavor = "current_thread")]
async fn main() -> shared::RuntimeResult {
    shared::serve_console(console_audit_log::routes()).await
}
