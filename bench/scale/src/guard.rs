//! Processes of the local service.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use reqwest::Client;
use serde_json::{Value, json};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::{interval, sleep};

/// How often the memory is looked at.
const WATCHED_EVERY: Duration = Duration::from_secs(1);

/// A running `guard-tokens`, which stops when this is dropped.
pub(crate) struct Guard {
    /// Its URL, without a trailing slash.
    pub(crate) url: String,
    environment: HashMap<String, String>,
    process: Child,
    folder: PathBuf,
}

impl Guard {
    /// Starts the binary with these options, and waits until it has written its environment file.
    pub(crate) async fn start(binary: &Path, options: &[&str]) -> Self {
        let name = format!("guard-tokens-scale-{}-{}", std::process::id(), options.len());
        let folder = std::env::temp_dir().join(name);
        fs::create_dir_all(&folder).unwrap();
        let file = folder.join("guard.env");
        let log = fs::File::create(folder.join("guard.log")).unwrap();
        let mut command = Command::new(binary);
        command.args(["--port", "0", "--no-rate-limit", "--data"]).arg(folder.join("data"));
        command.arg("--env-file").arg(&file).args(options);
        command.stdout(Stdio::null()).stderr(log).env("RUST_LOG", "warn");
        let mut process = command.spawn().unwrap();
        loop {
            assert!(process.try_wait().unwrap().is_none(), "guard-tokens has ended, see {}", folder.display());
            let text = fs::read_to_string(&file).unwrap_or_default();
            let lines = text.lines().filter_map(|line| line.strip_prefix("export ")?.split_once('='));
            let environment: HashMap<_, _> =
                lines.map(|(name, value)| (name.to_owned(), value.trim_matches(['\'', '"']).to_owned())).collect();
            if let Some(url) = environment.get("BASE_URL").filter(|_| text.ends_with('\n')).cloned() {
                return Self { url, environment, process, folder };
            }
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// The endpoint of its DynamoDB.
    pub(crate) fn dynamodb(&self) -> String {
        self.environment["AWS_ENDPOINT_URL_DYNAMODB"].clone()
    }

    /// New org user tokens, each of another person.
    pub(crate) async fn tokens(&self, number: usize) -> Vec<String> {
        let value = |name: &str| &self.environment[name];
        let url = format!("{}/v1/o/{}/guard/org-user-tokens", self.url, value("ORG"));
        let credential = format!("{}:{}", value("BOT_API_KEY"), value("BOT_ID"));
        let http = Client::builder().no_proxy().build().unwrap();
        let mut tokens = Vec::new();
        for person in 0..number {
            let body = json!({"user_identifier": format!("client-{person}")});
            let answer = http.post(&url).bearer_auth(&credential).json(&body).send().await.unwrap();
            let issued: Value = answer.json().await.unwrap();
            tokens.push(issued["token"].as_str().unwrap().to_owned());
        }
        tokens
    }

    /// The processor time that it has used.
    pub(crate) fn cpu_seconds(&self) -> f64 {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.process.id())).unwrap();
        let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
        let ticks: f64 = [fields[11], fields[12]].iter().map(|ticks| ticks.parse::<f64>().unwrap()).sum();
        // The unit of Linux, whatever its own clock is.
        ticks / 100.0
    }

    /// Looks at its memory from now on.
    pub(crate) fn watch_memory(&self) -> Memory {
        let status = format!("/proc/{}/status", self.process.id());
        let (stop, mut stopped) = oneshot::channel();
        let watching = tokio::spawn(async move {
            let mut found = Vec::new();
            let mut ticks = interval(WATCHED_EVERY);
            loop {
                tokio::select! {
                    _ = &mut stopped => return found,
                    _ = ticks.tick() => found.push(resident(&status)),
                }
            }
        });
        Memory { watching, stop }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// The memory of a process over time.
pub(crate) struct Memory {
    watching: JoinHandle<Vec<u64>>,
    stop: oneshot::Sender<()>,
}

impl Memory {
    /// Every second's memory, in bytes.
    pub(crate) async fn stop(self) -> Vec<u64> {
        let _ = self.stop.send(());
        self.watching.await.unwrap()
    }
}

fn resident(status: &str) -> u64 {
    let text = fs::read_to_string(status).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
    line.trim().trim_end_matches(" kB").trim().parse::<u64>().unwrap_or_default() * 1024
}
