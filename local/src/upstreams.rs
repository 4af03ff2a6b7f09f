//! Finds the upstream registries: from the command line, else from the configuration of npm and
//! pip.

use std::process::Stdio;
use std::time::Duration;

use anyhow::{Result, bail};
use shared::hosts::RegistryHosts;
use shared::registry::upstream::Upstream;
use shared::registry::{PublicUrl, Settings, UPSTREAM_TIMEOUT};
use tokio::process::Command;
use url::Url;

use crate::origin::NAMES;

/// Timeout for npm and pip to print their configuration.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(10);

/// Commands that print the configured registry, in order of preference. The last one prints pip's
/// built-in default; `-I` keeps Python from importing modules of the current directory.
const NPM: [&str; 2] = ["printenv NPM_CONFIG_REGISTRY", "npm config get registry"];
const PIP: [&str; 3] = [
    "printenv PIP_INDEX_URL",
    "pip config get global.index-url",
    "python3 -I -c 'from pip._internal.models.index import PyPI; print(PyPI.simple_url)'",
];

/// The registry settings, with the given upstreams if any. `port` is our own port.
pub async fn settings(npm: Option<&str>, pypi: Option<&str>, port: u16) -> Result<Settings> {
    let (npm, pypi) =
        tokio::try_join!(upstream("--npm-upstream", npm, &NPM, port), upstream("--pypi-upstream", pypi, &PIP, port))?;
    Ok(Settings {
        npm,
        pypi,
        pypi_file_hosts: Vec::new(),
        anonymous_access: false,
        public_url: PublicUrl::FromHostHeader("http"),
        hosts: RegistryHosts::on_this_machine(port),
        timeout: UPSTREAM_TIMEOUT,
    })
}

/// The given upstream, else the first one that a command prints. `None` if there is none or it is
/// unusable; the registry then reports that it has no upstream. It never falls back to a registry
/// that npm or pip would not use: that would enable dependency confusion.
async fn upstream(flag: &str, given: Option<&str>, commands: &[&str], port: u16) -> Result<Option<Upstream>> {
    if let Some(url) = given {
        let upstream = Upstream::parse(url);
        if upstream.is_none() {
            // The URL is not echoed: it may contain a password.
            bail!("{flag} must be an http or https URL without credentials, query or fragment");
        }
        return Ok(upstream);
    }
    for command in commands {
        let Some(output) = output_of(command).await else { continue };
        match Url::parse(output.trim()) {
            // npm or pip may already be configured to use this service, which would be a loop.
            Ok(url) if is_ours(&url, port) => {}
            _ => return Ok(Upstream::parse(output.trim())),
        }
    }
    Ok(None)
}

fn is_ours(url: &Url, port: u16) -> bool {
    url.host_str().is_some_and(|host| NAMES.contains(&host)) && url.port_or_known_default() == Some(port)
}

/// Describes the upstreams for the startup message.
pub fn shown(settings: &Settings) -> String {
    let shown = |upstream: &Option<Upstream>, flag: &str| match upstream {
        Some(upstream) => upstream.as_str().to_owned(),
        None => format!("not configured, set it with {flag}"),
    };
    let (npm, pypi) = (shown(&settings.npm, "--npm-upstream"), shown(&settings.pypi, "--pypi-upstream"));
    format!("npm upstream: {npm}\nPyPI upstream: {pypi}")
}

/// The output of a command; `None` if it fails or prints nothing.
async fn output_of(command: &str) -> Option<String> {
    let mut shell = Command::new("sh");
    let shell = shell.args(["-c", command]).stdin(Stdio::null()).kill_on_drop(true);
    let output = tokio::time::timeout(COMMAND_TIMEOUT, shell.output()).await.ok()?.ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    (output.status.success() && !text.trim().is_empty()).then_some(text)
}
