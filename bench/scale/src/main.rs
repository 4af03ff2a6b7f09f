//! Many clients install packages at once through the local service, as `npm ci` does. Prints JSON;
//! `bench/scale/run` computes what it means.
//!
//! ```text
//! clients → guard-tokens → DynamoDB with latency and throttling → guard-tokens, for its DynamoDB
//!      ↘        ↓
//!        upstream
//! ```
//!
//! All of it is on loopback. The service and the embedded DynamoDB are two processes, so that the
//! memory of the first is its own; clients, upstream and faults are in this one.

#![allow(clippy::unwrap_used)] // A benchmark may panic.

mod clients;
mod dynamodb;
mod guard;
mod upstream;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::Parser;
use serde_json::json;

use crate::clients::{Installs, Target};
use crate::dynamodb::DynamoDb;
use crate::guard::Guard;
use crate::upstream::Upstream;

/// How long the same clients install from the upstream itself, for comparison.
const DIRECT: Duration = Duration::from_secs(10);

#[derive(Debug, Parser)]
struct Arguments {
    /// The binary of the local service.
    #[arg(long)]
    guard: PathBuf,
    /// How long clients install through the service, in seconds.
    #[arg(long)]
    seconds: u64,
    /// How many clients install at once.
    #[arg(long, default_value_t = 200)]
    clients: usize,
    /// Packages in the lock file of each.
    #[arg(long, default_value_t = 500)]
    packages: usize,
    /// Connections of each client, and so its requests at once. npm has up to 15, but there all
    /// clients do not share one machine with the service.
    #[arg(long, default_value_t = 5)]
    sockets: usize,
    /// What each call to DynamoDB takes longer than here, in milliseconds.
    #[arg(long, default_value_t = 5)]
    latency: u64,
    /// Of so many calls to DynamoDB one is throttled.
    #[arg(long, default_value_t = 100)]
    throttled: u64,
}

#[tokio::main]
async fn main() {
    let arguments = Arguments::parse();
    let upstream = Upstream::start(arguments.packages).await;
    let database = Guard::start(&arguments.guard, &["--memory"]).await;
    let latency = Duration::from_millis(arguments.latency);
    let dynamodb = DynamoDb::start(database.dynamodb(), latency, arguments.throttled).await;
    let options = ["--dynamodb", &dynamodb.url, "--npm-upstream", &upstream.url, "--pypi-upstream", &upstream.url];
    let guard = Guard::start(&arguments.guard, &options).await;
    let tokens = database.tokens(arguments.clients).await;

    let itself = || Target { npm: upstream.url.clone(), tokens: None };
    let direct = Installs::run(itself(), &upstream, &arguments, DIRECT).await;
    let through = Target { npm: format!("{}/npm/", guard.url), tokens: Some(tokens) };
    let (calls, throttled) = dynamodb.counts();
    let (cpu, started) = (guard.cpu_seconds(), Instant::now());
    let memory = guard.watch_memory();
    let through = Installs::run(through, &upstream, &arguments, Duration::from_secs(arguments.seconds)).await;
    let seconds = started.elapsed().as_secs_f64();
    let (calls_after, throttled_after) = dynamodb.counts();
    let (cpu, memory) = (guard.cpu_seconds() - cpu, memory.stop().await);
    // The difference between the two is noise.
    let again = Installs::run(itself(), &upstream, &arguments, DIRECT).await;
    let report = json!({
        "clients": arguments.clients,
        "packages": arguments.packages,
        "sockets": arguments.sockets,
        "latency_ms": arguments.latency,
        "throttled_one_of": arguments.throttled,
        "seconds": seconds,
        "direct": direct.figures(DIRECT.as_secs_f64()).await,
        "direct_again": again.figures(DIRECT.as_secs_f64()).await,
        "through": through.figures(seconds).await,
        "dynamodb": {"calls": calls_after - calls, "throttled": throttled_after - throttled},
        "cpu_seconds": cpu,
        "memory": memory,
    });
    println!("{report}");
}
