//! Runs every command of `docs/TOUR.md` in one shell and compares each output with the documented one.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use axum::Router;
use axum::extract::Json;
use axum::routing::get;
use regex::Regex;
use serde_json::json;

use super::{Running, bash, folder, has_curl};

/// Printed between two blocks.
const SEPARATOR: &str = "--- end of block ---";

/// The base URL in the documented outputs.
const DOCUMENTED_URL: &str = "http://127.0.0.1:3000";

/// A command block and the output block directly after it, if any.
struct Step {
    commands: String,
    output: Option<String>,
}

/// The command blocks (`bash`) of a page, with their outputs (`json` or `text`).
fn steps(page: &str) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    let mut parts = page.split("\n```");
    parts.next();
    while let (Some(block), after) = (parts.next(), parts.next()) {
        let (language, body) = block.split_once('\n').unwrap();
        match language {
            "bash" => steps.push(Step { commands: body.to_owned(), output: None }),
            "json" | "text" => steps.last_mut().unwrap().output = Some(body.to_owned()),
            _ => {}
        }
        assert!(after.is_some(), "a block without an end: {body}");
    }
    steps
}

/// Replaces what differs from run to run by a placeholder of its shape, and removes whitespace.
fn redacted(text: &str, base_url: &str) -> String {
    let text = text.replace(base_url, "<url>");
    let patterns = [
        (r"\b(BT|OG|)[0-9A-HJKMNP-TV-Z]{26}\b", "<${1}id>"),
        (r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", "<time>"),
        (r"\b(tg_anon|tg_org|oat|tk_live|tk_test|shisho_apikey)_[0-9A-Za-z]+…?", "<$1>"),
        (r#""[0-9A-Za-z]{8}\.\.\.""#, "<masked>"),
        (r#""iat":\d+"#, "<iat>"),
        (r#"("code": ?)"[0-9A-Z]{4}-[^"]*""#, "$1<code>"),
        (r#""client_version":"[0-9.]+""#, "<version>"),
        (r",curl,[0-9.]+,", ",curl,<version>,"),
        (r"\s+", ""),
    ];
    let replace = |text: String, (pattern, placeholder): (&str, &str)| {
        Regex::new(pattern).unwrap().replace_all(&text, placeholder).into_owned()
    };
    patterns.into_iter().fold(text, replace)
}

/// An npm registry that has left-pad 1.3.0. Its host name differs from the service's, as it must.
async fn upstream() -> String {
    let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let url = format!("http://localhost:{}", listener.local_addr().unwrap().port());
    let tarball = format!("{url}/left-pad/-/left-pad-1.3.0.tgz");
    let packument = json!({"name": "left-pad", "versions": {"1.3.0": {
        "name": "left-pad", "version": "1.3.0", "dist": {"tarball": tarball},
    }}});
    let router = Router::new().route("/left-pad", get(|| async { Json(packument) }));
    tokio::spawn(async { axum::serve(listener, router).await });
    url
}

/// `guardctl`, which `cargo test --workspace` builds beside the service.
fn guardctl() -> PathBuf {
    let path = Path::new(env!("CARGO_BIN_EXE_guard-tokens")).with_file_name("guardctl");
    assert!(path.exists(), "run `cargo build -p guardctl` first");
    path
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_command_of_the_tour_prints_what_the_page_says() {
    assert!(has_curl(), "this test needs curl 7.82 or newer, and jq");
    let page = include_str!("../../../docs/TOUR.md");
    let steps = steps(page);
    assert!(steps.len() > 30 && steps.iter().filter(|step| step.output.is_some()).count() > 25);

    let folder = folder();
    let running = Running::start(folder.path(), &["--memory", "--npm-upstream", &upstream().await]);
    let env_file = folder.path().join(".local/memory.env");
    let script = steps.iter().map(|step| format!("{}\necho '{SEPARATOR}'\n", step.commands)).collect::<String>();
    let script = script.replace(".local/demo.env", env_file.to_str().unwrap());
    let script = script.replace("cargo run -q -p guardctl --", guardctl().to_str().unwrap());
    let path = folder.path().to_owned();
    let output = tokio::task::spawn_blocking(move || bash(&path, &script)).await.unwrap();
    let printed = String::from_utf8(output.stdout).unwrap();
    let failed = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{failed}\n{printed}");

    let outputs = printed.split(&format!("{SEPARATOR}\n")).collect::<Vec<_>>();
    assert_eq!(outputs.len(), steps.len() + 1, "{failed}");
    for (step, printed) in steps.iter().zip(outputs) {
        if let Some(documented) = &step.output {
            let (documented, found) = (redacted(documented, DOCUMENTED_URL), redacted(printed, &running.base_url));
            assert_eq!(found, documented, "{}\n{printed}", step.commands);
        }
    }
    running.stop();
}
