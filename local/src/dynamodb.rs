//! DynamoDB in this process, open on loopback for other tools.

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

/// How often items whose time to live is over are removed.
const SWEEP: Duration = Duration::from_secs(60);

/// A running DynamoDB.
pub struct DynamoDb {
    /// Where it listens, for SDKs and tools.
    pub endpoint: String,
    /// What it serves, for tests that fill it faster than over HTTP.
    pub database: Database,
    server: JoinHandle<Result<(), String>>,
    sweeper: JoinHandle<()>,
    stop: oneshot::Sender<()>,
    /// Held while the store is open, so that no second process opens it.
    _lock: Option<File>,
}

impl fmt::Debug for DynamoDb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DynamoDb").field("endpoint", &self.endpoint).finish_non_exhaustive()
    }
}

impl DynamoDb {
    /// One that forgets everything when it stops.
    pub async fn in_memory(port: u16) -> Result<Self> {
        let database = Database::memory().context("cannot create a store in memory")?;
        Self::start(database, port, None).await
    }

    /// One that keeps everything in this folder.
    pub async fn in_folder(folder: &Path, port: u16) -> Result<Self> {
        let shown = folder.display();
        std::fs::create_dir_all(folder).with_context(|| format!("cannot create the data folder {shown}"))?;
        let lock =
            File::create(folder.join("lock")).with_context(|| format!("cannot write to the data folder {shown}"))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => bail!("the data folder {shown} is in use by another guard-tokens"),
            Err(TryLockError::Error(error)) => {
                return Err(error).with_context(|| format!("cannot lock the data folder {shown}"));
            }
        }
        let file = folder.join("tokens.db");
        let path = file.to_str().with_context(|| format!("the data folder {shown} has a name that is not UTF-8"))?;
        // The cause is left out: it is SQLite's, and advises on encryption.
        let damaged = |_| anyhow!("the store {path} is damaged or not a store; move it away to start afresh");
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
            // An error means that the sender is gone, which is as good a reason to stop.
            let _ = stopped.await;
        }));
        Ok(Self { endpoint, database, server, sweeper, stop, _lock: lock })
    }

    /// Lets what is under way finish, and stops.
    pub async fn stop(self) -> Result<()> {
        self.sweeper.abort();
        let _ = self.stop.send(());
        match self.server.await.context("the DynamoDB server broke")? {
            Ok(()) => Ok(()),
            Err(error) => bail!("the DynamoDB server failed: {error}"),
        }
    }
}

/// Removes what DynamoDB would remove by its time to live.
async fn sweep(database: Database) {
    let mut interval = tokio::time::interval(SWEEP);
    loop {
        interval.tick().await;
        let database = database.clone();
        match tokio::task::spawn_blocking(move || database.sweep_ttl()).await {
            Ok(Ok(0)) => {}
            Ok(Ok(items)) => tracing::debug!(items, "removed what had outlived its time"),
            Ok(Err(_)) | Err(_) => tracing::warn!("could not remove what has outlived its time"),
        }
    }
}
