//! An embedded DynamoDB that also listens on loopback for other tools.
//!
//! It has a server of its own, because the one that comes with the database allows every web page
//! to use it: `Access-Control-Allow-Origin: *`.

use std::ffi::OsString;
use std::fmt;
use std::fs::{DirBuilder, File, OpenOptions, Permissions, TryLockError};
use std::net::Ipv4Addr;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use axum::Router;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use dynoxide::auth_material::{self, AuthMaterial};
use dynoxide::{Database, DynoxideError};
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::origin::guarded;

/// How often items past their TTL are removed.
const SWEEP: Duration = Duration::from_secs(60);

/// The maximum size of a request, in bytes, as in AWS.
const MAX_REQUEST: usize = 16 * 1024 * 1024;

/// The content type of requests and responses. A page cannot send it to another origin unasked.
const JSON: &str = "application/x-amz-json-1.0";

/// The bit of folders that everybody may write to, such as `/tmp`.
const STICKY: u32 = 0o1000;

/// The bits of a mode that admit others than the owner.
const OTHERS: u32 = 0o077;

/// The files of a data folder, which contain credentials or their hashes and mail addresses.
const FILES: [&str; 6] = ["lock", "tokens.db", "tokens.db-shm", "tokens.db-wal", "demo.env", "memory.env"];

/// A running DynamoDB.
pub struct DynamoDb {
    /// The endpoint URL for SDKs and tools.
    pub endpoint: String,
    /// The database itself, for tests that write faster than HTTP allows.
    pub database: Database,
    server: JoinHandle<std::io::Result<()>>,
    sweeper: Option<JoinHandle<()>>,
    stop: oneshot::Sender<()>,
    /// Held while the store is open, so that no other process opens it.
    _lock: Option<File>,
}

impl fmt::Debug for DynamoDb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DynamoDb").field("endpoint", &self.endpoint).finish_non_exhaustive()
    }
}

impl DynamoDb {
    /// Starts a database that loses its data when it stops.
    pub async fn in_memory(port: u16) -> Result<Self> {
        let database = Database::memory().context("cannot create an in-memory store")?;
        Self::start(database, port, None).await
    }

    /// Removes items past their TTL from time to time, by the clock of this machine. Tests with a
    /// clock of their own do without.
    pub fn sweeping(self) -> Self {
        let sweeper = Some(tokio::spawn(sweep(self.database.clone())));
        Self { sweeper, ..self }
    }

    /// Starts a database that keeps its data in this folder.
    pub async fn in_folder(folder: &Path, port: u16) -> Result<Self> {
        let shown = folder.display();
        private_data_folder(folder)?;
        let lock =
            private_file(&folder.join("lock")).with_context(|| format!("cannot write to the data folder {shown}"))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => bail!("the data folder {shown} is in use by another guard-tokens process"),
            Err(TryLockError::Error(error)) => {
                return Err(error).with_context(|| format!("cannot lock the data folder {shown}"));
            }
        }
        let file = folder.join("tokens.db");
        let path = file.to_str().with_context(|| format!("the name of the data folder {shown} is not valid UTF-8"))?;
        // The cause is omitted: SQLite's message misleadingly mentions encryption.
        let damaged = || {
            anyhow!("the store {path} is damaged or not a guard-tokens store; move it away to start with an empty one")
        };
        // SQLite gives its other files the mode of this one.
        private_file(&file).map_err(|_| damaged())?;
        let database = Database::new(path).map_err(|_| damaged())?;
        database.table_count().map_err(|_| damaged())?;
        Self::start(database, port, Some(lock)).await
    }

    async fn start(database: Database, port: u16, lock: Option<File>) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port))
            .await
            .with_context(|| format!("cannot listen on 127.0.0.1:{port} for DynamoDB"))?;
        let address = listener.local_addr().context("the listener has no address")?;
        let endpoint = format!("http://{address}");
        let (stop, stopped) = oneshot::channel();
        let serving = axum::serve(listener, guarded(router(database.clone()), address.port()));
        let server = tokio::spawn(async move {
            serving
                .with_graceful_shutdown(async {
                    // An error means that the sender was dropped, which also means stop.
                    let _ = stopped.await;
                })
                .await
        });
        Ok(Self { endpoint, database, server, sweeper: None, stop, _lock: lock })
    }

    /// Finishes pending requests and stops.
    pub async fn stop(self) -> Result<()> {
        if let Some(sweeper) = &self.sweeper {
            sweeper.abort();
        }
        let _ = self.stop.send(());
        self.server.await.context("the DynamoDB server panicked")?.context("the DynamoDB server failed")
    }
}

/// Creates the data folder, or takes an existing one from everybody but its owner. A folder that was
/// made for something else must be private already.
pub fn private_data_folder(folder: &Path) -> Result<()> {
    let shown = folder.display();
    create_private_folder(folder).with_context(|| format!("cannot create the data folder {shown}"))?;
    make_private(folder).with_context(|| format!("cannot restrict access to the data folder {shown}"))
}

/// Creates a folder that only its owner can read, and its parents.
pub(crate) fn create_private_folder(folder: &Path) -> std::io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(folder)
}

/// Takes a folder and our files in it from everybody but their owner.
fn make_private(folder: &Path) -> std::io::Result<()> {
    let mode = std::fs::metadata(folder)?.permissions().mode();
    if mode & STICKY != 0 {
        return Err(std::io::Error::other("it is shared by all users; choose another with --data"));
    }
    if mode & OTHERS != 0 && !is_data_folder(folder)? {
        return Err(std::io::Error::other(
            "it is open to other users and contains other files; choose another with --data, or run chmod 700 on it",
        ));
    }
    std::fs::set_permissions(folder, Permissions::from_mode(0o700))?;
    for file in FILES.map(|name| folder.join(name)) {
        if std::fs::symlink_metadata(&file).is_ok_and(|file| file.is_file()) {
            std::fs::set_permissions(file, Permissions::from_mode(0o600))?;
        }
    }
    Ok(())
}

/// Whether a folder is empty or contains a file that only we make.
fn is_data_folder(folder: &Path) -> std::io::Result<bool> {
    let names = std::fs::read_dir(folder)?.map(|entry| Ok(entry?.file_name()));
    let names = names.collect::<std::io::Result<Vec<_>>>()?;
    // Other folders have a `lock` too, such as /var.
    let is_ours = |name: &OsString| name != "lock" && FILES.iter().any(|file| name == file);
    Ok(names.is_empty() || names.iter().any(is_ours))
}

/// Opens a file for writing; creates it for its owner alone.
fn private_file(path: &Path) -> std::io::Result<File> {
    OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path)
}

fn router(database: Database) -> Router {
    Router::new().route("/", post(answer)).layer(DefaultBodyLimit::max(MAX_REQUEST)).with_state(database)
}

/// Answers a request as AWS does. Like there, it must be signed; the signature is not checked.
async fn answer(State(database): State<Database>, uri: Uri, headers: HeaderMap, body: String) -> Response {
    let text = |name: header::HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    let target = headers.get("x-amz-target").and_then(|target| target.to_str().ok()).unwrap_or_default();
    let operation = target.strip_prefix("DynamoDB_20120810.").filter(|_| text(header::CONTENT_TYPE) == Some(JSON));
    let Some(operation) = operation else {
        return respond(StatusCode::BAD_REQUEST, unknown_operation());
    };
    let unsigned = auth_material::validate(AuthMaterial {
        authorization: text(header::AUTHORIZATION),
        query: uri.query().unwrap_or_default(),
        has_date_header: headers.contains_key("x-amz-date") || headers.contains_key(header::DATE),
    });
    if let Some(refusal) = unsigned {
        return respond(StatusCode::BAD_REQUEST, refusal);
    }
    match call(&database, operation, &body) {
        Some(Ok(answer)) => respond(StatusCode::OK, answer),
        Some(Err(error)) => {
            let status = StatusCode::from_u16(error.status_code()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            respond(status, error.to_json())
        }
        None => respond(StatusCode::BAD_REQUEST, unknown_operation()),
    }
}

fn respond(status: StatusCode, body: String) -> Response {
    (status, [(header::CONTENT_TYPE, JSON)], body).into_response()
}

fn unknown_operation() -> String {
    json!({"__type": "com.amazon.coral.service#UnknownOperationException"}).to_string()
}

/// Runs an operation; `None` if there is none of this name.
fn call(database: &Database, operation: &str, body: &str) -> Option<Result<String, DynoxideError>> {
    let malformed = |error: serde_json::Error| DynoxideError::SerializationException(error.to_string());
    macro_rules! operations {
        ($($name:literal => $method:ident),* $(,)?) => {
            match operation {
                $($name => Some(
                    serde_json::from_str(body)
                        .map_err(malformed)
                        .and_then(|request| database.$method(request))
                        .and_then(|answer| serde_json::to_string(&answer).map_err(malformed)),
                ),)*
                _ => None,
            }
        };
    }
    operations! {
        "BatchGetItem" => batch_get_item,
        "BatchWriteItem" => batch_write_item,
        "CreateTable" => create_table,
        "DeleteItem" => delete_item,
        "DeleteTable" => delete_table,
        "DescribeTable" => describe_table,
        "DescribeTimeToLive" => describe_time_to_live,
        "ExecuteStatement" => execute_statement,
        "GetItem" => get_item,
        "ListTables" => list_tables,
        "PutItem" => put_item,
        "Query" => query,
        "Scan" => scan,
        "TransactGetItems" => transact_get_items,
        "TransactWriteItems" => transact_write_items,
        "UpdateItem" => update_item,
        "UpdateTable" => update_table,
        "UpdateTimeToLive" => update_time_to_live,
    }
}

/// Removes expired items, as DynamoDB does with TTL.
async fn sweep(database: Database) {
    let mut interval = tokio::time::interval(SWEEP);
    loop {
        interval.tick().await;
        let database = database.clone();
        match tokio::task::spawn_blocking(move || database.sweep_ttl()).await {
            Ok(Ok(0)) => {}
            Ok(Ok(items)) => tracing::debug!(items, "expired items removed"),
            Ok(Err(_)) | Err(_) => tracing::warn!("cannot remove expired items"),
        }
    }
}
