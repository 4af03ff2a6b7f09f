//! Clients that install a lock file as npm does: metadata and file of each package, on kept
//! connections, several at once; a failed request is repeated twice.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures::future::join_all;
use reqwest::header::{ACCEPT, ACCEPT_ENCODING, LOCATION};
use reqwest::redirect::Policy;
use reqwest::{Client, Response, StatusCode};
use serde_json::{Value, json};
use tokio::sync::Mutex;
use tokio::time::sleep;

use crate::Arguments;
use crate::upstream::{FILE, Upstream};

/// How often a request is sent before the install fails, as npm does.
const ATTEMPTS: usize = 3;
/// Before a request is sent again. npm waits for ten seconds.
const PAUSE: Duration = Duration::from_secs(1);

/// Where clients install from.
pub(crate) struct Target {
    /// The registry's URL, with a trailing slash.
    pub(crate) npm: String,
    /// The token of each client; `None` for a registry without.
    pub(crate) tokens: Option<Vec<String>>,
}

/// What clients have done so far.
#[derive(Default)]
pub(crate) struct Installs {
    completed: AtomicU64,
    failed: AtomicU64,
    requests: AtomicU64,
    repeated: AtomicU64,
    metadata: Mutex<Vec<u32>>,
    files: Mutex<Vec<u32>>,
}

impl Installs {
    /// Lets all clients install for this time, one lock file after the other.
    pub(crate) async fn run(target: Target, upstream: &Upstream, arguments: &Arguments, time: Duration) -> Arc<Self> {
        let (found, target) = (Arc::new(Self::default()), Arc::new(target));
        let packages = Arc::new(upstream.packages.clone());
        let end = Instant::now() + time;
        let mut clients = Vec::new();
        for number in 0..arguments.clients {
            let http = Client::builder().no_proxy().redirect(Policy::none()).pool_max_idle_per_host(arguments.sockets);
            let client = NpmClient {
                http: http.build().unwrap(),
                number,
                target: target.clone(),
                packages: packages.clone(),
                found: found.clone(),
                end,
            };
            let sockets = arguments.sockets;
            clients.push(tokio::spawn(async move { Arc::new(client).install_all(sockets).await }));
        }
        for client in clients {
            client.await.unwrap();
        }
        found
    }

    /// The figures of this many seconds.
    pub(crate) async fn figures(&self, seconds: f64) -> Value {
        let requests = self.requests.load(Ordering::Relaxed);
        json!({
            "installs": self.completed.load(Ordering::Relaxed),
            "failed": self.failed.load(Ordering::Relaxed),
            "requests": requests,
            "repeated": self.repeated.load(Ordering::Relaxed),
            "per_second": requests as f64 / seconds,
            "metadata_ms": quantiles(&mut self.metadata.lock().await),
            "file_ms": quantiles(&mut self.files.lock().await),
        })
    }
}

/// The median and the 99th percentile, in milliseconds.
fn quantiles(microseconds: &mut [u32]) -> Value {
    microseconds.sort_unstable();
    let at = |share: usize| microseconds.get(microseconds.len() * share / 100).map(|&each| f64::from(each) / 1000.0);
    json!([at(50), at(99)])
}

struct NpmClient {
    http: Client,
    number: usize,
    target: Arc<Target>,
    packages: Arc<Vec<String>>,
    found: Arc<Installs>,
    end: Instant,
}

impl NpmClient {
    async fn install_all(self: Arc<Self>, sockets: usize) {
        for run in 0.. {
            if Instant::now() >= self.end {
                return;
            }
            // Each connection takes every so-manieth package.
            let workers = (0..sockets).map(|worker| {
                let client = self.clone();
                async move { client.install_some(run, worker, sockets).await }
            });
            let outcomes = join_all(workers).await;
            if outcomes.contains(&Outcome::Failed) {
                self.found.failed.fetch_add(1, Ordering::Relaxed);
            } else if !outcomes.contains(&Outcome::OutOfTime) {
                self.found.completed.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    async fn install_some(&self, run: usize, worker: usize, sockets: usize) -> Outcome {
        // Clients begin at different packages, as different lock files do.
        let start = self.number * 7 + worker;
        let (mut metadata, mut files) = (Vec::new(), Vec::new());
        let mut outcome = Outcome::Completed;
        for place in (0..self.packages.len()).skip(worker).step_by(sockets) {
            if Instant::now() >= self.end {
                outcome = Outcome::OutOfTime;
                break;
            }
            let name = &self.packages[(start + place) % self.packages.len()];
            let (Some(first), Some(second)) = (self.metadata(name).await, self.file(name, run).await) else {
                outcome = Outcome::Failed;
                break;
            };
            metadata.push(first);
            files.push(second);
        }
        self.found.metadata.lock().await.append(&mut metadata);
        self.found.files.lock().await.append(&mut files);
        outcome
    }

    /// The microseconds that the metadata of a package took. `None` if it failed for good.
    async fn metadata(&self, name: &str) -> Option<u32> {
        let started = Instant::now();
        let answer = self.get(name, "", StatusCode::OK).await?;
        let body = answer.bytes().await.ok()?;
        assert!(!body.is_empty());
        Some(elapsed(started))
    }

    /// The same for its file, with the redirect and the bytes from the upstream.
    async fn file(&self, name: &str, run: usize) -> Option<u32> {
        let started = Instant::now();
        let path = format!("{name}/-/{name}-1.0.0.tgz");
        let session = format!("{:08x}{run:08x}", self.number);
        let mut answer = if self.target.tokens.is_some() {
            let redirect = self.get(&path, &session, StatusCode::FOUND).await?;
            let location = redirect.headers().get(LOCATION)?.to_str().ok()?.to_owned();
            self.http.get(location).send().await.ok()?
        } else {
            self.get(&path, &session, StatusCode::OK).await?
        };
        let mut size = 0;
        while let Some(chunk) = answer.chunk().await.ok()? {
            size += chunk.len();
        }
        (size == FILE).then(|| elapsed(started))
    }

    /// The expected answer of the registry, at the third attempt at the latest.
    async fn get(&self, path: &str, session: &str, expected: StatusCode) -> Option<Response> {
        for attempt in 0..ATTEMPTS {
            if attempt > 0 {
                self.found.repeated.fetch_add(1, Ordering::Relaxed);
                sleep(PAUSE).await;
            }
            let mut request = self.http.get(format!("{}{path}", self.target.npm)).header(ACCEPT_ENCODING, "gzip");
            request = request.header(ACCEPT, "application/vnd.npm.install-v1+json; q=1.0, application/json; q=0.8");
            if !session.is_empty() {
                request = request.header("npm-command", "ci").header("npm-session", session);
            }
            if let Some(tokens) = &self.target.tokens {
                request = request.bearer_auth(&tokens[self.number]);
            }
            self.found.requests.fetch_add(1, Ordering::Relaxed);
            match request.send().await {
                Ok(answer) if answer.status() == expected => return Some(answer),
                Ok(answer) => eprintln!("{path}: {}", answer.status()),
                Err(error) => eprintln!("{path}: {error}"),
            }
        }
        None
    }
}

#[derive(PartialEq, Eq)]
enum Outcome {
    Completed,
    OutOfTime,
    Failed,
}

fn elapsed(started: Instant) -> u32 {
    u32::try_from(started.elapsed().as_micros()).unwrap_or(u32::MAX)
}
