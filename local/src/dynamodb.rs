//! An embedded DynamoDB that also listens on loopback for other tools.

use std::fmt;
use std::fs::{File, TryLockError};
use std::net::Ipv4Addr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use dynoxide::Database;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// How often items past their TTL are removed.
const SWEEP: Duration = Duration::from_secs(60);

/// A running DynamoDB.
pub struct DynamoDb {
    /// The endpoint URL for SDKs and tools.
    pub endpoint: String,
    /// The database itself, for tests that write faster than HTTP allows.
    pub database: Database,
    server: JoinHandle<Result<(), String>>,
    sweeper: JoinHandle<()>,
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

    /// Starts a database that keeps its data in this folder.
    pub async fn in_folder(folder: &Path, port: u16) -> Result<Self> {
        let shown = folder.display();
        std::fs::create_dir_all(folder).with_context(|| format!("cannot create the data folder {shown}"))?;
        let lock =
            File::create(folder.join("lock")).with_context(|| format!("cannot write to the data folder {shown}"))?;
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
        let damaged = |_| {
            anyhow!("the store {path} is damaged or not a guard-tokens store; move it away to start with an empty one")
        };
        let database = Database::new(path).map_err(damaged)?;
        database.table_count().map_err(damaged)?;
        Self::start(database, port, Some(lock)).await
    }

    async fn start(database: Database, port: u16, lock: Option<File>) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port))
            .await
            .with_context(|| format!("cannot listen on 127.0.0.1:{port} for DynamoDB"))?;
        let endpoint = format!("http://{}", listener.local_addr().context("the listener has no address")?);
        let (stop, stopped) = oneshot::channel();
        let sweeper = tokio::spawn(sweep(database.clone()));
        let server = tokio::spawn(dynoxide::server::serve_with_shutdown(listener, database.clone(), async {
            // An error means that the sender was dropped, which also means stop.
            let _ = stopped.await;
        }));
        Ok(Self { endpoint, database, server, sweeper, stop, _lock: lock })
    }

    /// Finishes pending requests and stops.
    pub async fn stop(self) -> Result<()> {
        self.sweeper.abort();
        let _ = self.stop.send(());
        match self.server.await.context("the DynamoDB server panicked")? {
            Ok(()) => Ok(()),
            Err(error) => bail!("the DynamoDB server failed: {error}"),
        }
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
