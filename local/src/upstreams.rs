//! Where packages come from: what the command line says, else what npm and pip of this machine are set to.

use std::process::Stdio;
use std::time::Duration;

use anyhow::{Result, bail};
use shared::registry::upstream::Upstream;
use shared::registry::{PATIENCE, PublicUrl, Settings};
use tokio::process::Command;
use url::Url;

/// How long npm or pip may take to say where they get packages from.
const ASKING: Duration = Duration::from_secs(10);

/// Whom to ask, where nothing else says it, in this order. What pip does without any setting, pip alone knows.
const NPM: [&str; 2] = ["printenv NPM_CONFIG_REGISTRY", "npm config get registry"];
const PIP: [&str; 3] = [
    "printenv PIP_INDEX_URL",
    "pip config get global.index-url",
    "python3 -c 'from pip._internal.models.index import PyPI; print(PyPI.simple_url)'",
];

/// The settings of the registries, with these upstreams where they are given; `port` is our own.
pub async fn settings(npm: Option<&str>, pypi: Option<&str>, port: u16) -> Result<Settings> {
    let (npm, pypi) =
        tokio::try_join!(upstream("--npm-upstream", npm, &NPM, port), upstream("--pypi-upstream", pypi, &PIP, port))?;
    Ok(Settings {
        npm,
        pypi,
        pypi_file_hosts: Vec::new(),
        anonymous_access: false,
        public_url: PublicUrl::AsCalled("http"),
        patience: PATIENCE,
    })
}

/// The upstream that is given, else the first that one of these commands names. None where nobody knows one, or where that
/// is none for us: then the registry says so. Never another than what npm or pip would use: that would ask strangers for
/// packages of the same name.
async fn upstream(flag: &str, given: Option<&str>, commands: &[&str], port: u16) -> Result<Option<Upstream>> {
    if let Some(url) = given {
        let upstream = Upstream::parse(url);
        if upstream.is_none() {
            // Not repeated: it may hold a password.
            bail!("{flag} must be an http or https URL without user, query and fragment");
        }
        return Ok(upstream);
    }
    for command in commands {
        let Some(said) = said_by(command).await else { continue };
        match Url::parse(said.trim()) {
            // Who uses this service already may have npm and pip set to it: that leads in a circle.
            Ok(url) if is_ours(&url, port) => {}
            _ => return Ok(Upstream::parse(said.trim())),
        }
    }
    Ok(None)
}

fn is_ours(url: &Url, port: u16) -> bool {
    let is_loopback = url.host_str().is_some_and(|host| matches!(host, "localhost" | "127.0.0.1" | "[::1]"));
    is_loopback && url.port_or_known_default() == Some(port)
}

/// Where packages come from, for people.
pub fn shown(settings: &Settings) -> String {
    let shown = |upstream: &Option<Upstream>, flag: &str| match upstream {
        Some(upstream) => upstream.as_str().to_owned(),
        None => format!("nowhere ({flag} says from where)"),
    };
    let (npm, pypi) = (shown(&settings.npm, "--npm-upstream"), shown(&settings.pypi, "--pypi-upstream"));
    format!("Packages come from {npm} and {pypi}.")
}

/// What a command says, if it is there and says anything.
async fn said_by(command: &str) -> Option<String> {
    let mut shell = Command::new("sh");
    let shell = shell.args(["-c", command]).stdin(Stdio::null()).kill_on_drop(true);
    let output = tokio::time::timeout(ASKING, shell.output()).await.ok()?.ok()?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    (output.status.success() && !said.trim().is_empty()).then_some(said)
}
