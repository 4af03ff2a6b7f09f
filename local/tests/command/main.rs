//! Starts and stops the built `guard-tokens` binary.

#![allow(clippy::unwrap_used, clippy::panic)] // A test that cannot be set up has failed.

mod ci;
mod tour;

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Output, Stdio};

use reqwest::{Client, Method, StatusCode};
use serde_json::{Value, json};
use tempfile::TempDir;

/// A temporary working directory.
fn folder() -> TempDir {
    tempfile::tempdir().unwrap()
}

fn command(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_guard-tokens"));
    // Fixed log level, whatever the environment says.
    command.current_dir(folder).args(arguments).env("RUST_LOG", "warn").stdin(Stdio::null());
    command
}

/// Runs a command that must fail with exit code 1 and one line on stderr. Returns the message.
#[track_caller]
fn refuses(folder: &Path, arguments: &[&str]) -> String {
    let Output { status, stdout, stderr } = command(folder, arguments).output().unwrap();
    let message = String::from_utf8(stderr).unwrap();
    assert_eq!((status.code(), String::from_utf8(stdout).unwrap().as_str()), (Some(1), ""), "{message}");
    let sentence = message.strip_suffix('\n').unwrap_or_else(|| panic!("no line: {message}"));
    assert!(!sentence.contains('\n'), "more than one line: {message}");
    sentence.strip_prefix("error: ").unwrap_or_else(|| panic!("no error: {message}")).to_owned()
}

/// A running process.
struct Running {
    child: Child,
    stdout: BufReader<ChildStdout>,
    base_url: String,
}

impl Running {
    /// Starts it on free ports and waits until it listens.
    fn start(folder: &Path, arguments: &[&str]) -> Self {
        let mut command = command(folder, &["--port", "0"]);
        let mut child = command.args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        stdout.read_line(&mut line).unwrap();
        let base_url = line.strip_prefix("guard-tokens listens on ").and_then(|line| line.split_once(','));
        let Some((base_url, _)) = base_url else {
            child.wait().unwrap();
            let mut message = String::new();
            child.stderr.take().unwrap().read_to_string(&mut message).unwrap();
            panic!("it does not listen: {line}{message}");
        };
        Self { child, stdout, base_url: base_url.to_owned() }
    }

    /// Sends a signal and waits for the exit. Returns the exit code and the remaining output.
    fn end(mut self, signal: &str) -> (Option<i32>, String) {
        let sent = Command::new("kill").args([signal, &self.child.id().to_string()]).status().unwrap();
        assert!(sent.success());
        let (mut printed, mut message) = (String::new(), String::new());
        self.stdout.read_to_string(&mut printed).unwrap();
        self.child.stderr.take().unwrap().read_to_string(&mut message).unwrap();
        assert_eq!(message, "", "unexpected stderr output");
        (self.child.wait().unwrap().code(), printed)
    }

    /// Stops it as Ctrl-C does.
    fn stop(self) -> String {
        let (code, printed) = self.end("-INT");
        assert_eq!(code, Some(0));
        printed
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // For tests that fail before they stop it.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Parses an env file: each line exports one variable.
fn environment(path: impl AsRef<Path>) -> Value {
    let text = fs::read_to_string(path).unwrap();
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let pairs = lines.map(|line| line.strip_prefix("export ").unwrap().split_once('=').unwrap());
    pairs.map(|(name, value)| (name.to_owned(), json!(value))).collect::<serde_json::Map<_, _>>().into()
}

fn text<'a>(json: &'a Value, name: &str) -> &'a str {
    json[name].as_str().unwrap_or_else(|| panic!("no {name} in {json}"))
}

/// Calls the org user token routes with the credential of an env file.
async fn call(environment: &Value, method: Method, rest: &str, body: Option<Value>) -> (StatusCode, String) {
    let (base_url, org) = (text(environment, "BASE_URL"), text(environment, "ORG"));
    let url = format!("{base_url}/v1/o/{org}/guard/org-user-tokens{rest}");
    let credential = format!("{}:{}", text(environment, "BOT_API_KEY"), text(environment, "BOT_ID"));
    let request = Client::new().request(method, url).bearer_auth(credential);
    let response = body.iter().fold(request, |request, body| request.json(body)).send().await.unwrap();
    (response.status(), response.text().await.unwrap())
}

/// Runs a bash script.
fn bash(folder: &Path, script: &str) -> Output {
    Command::new("bash").args(["-euo", "pipefail", "-c", script]).current_dir(folder).output().unwrap()
}

fn has_curl() -> bool {
    // `--json` requires curl 7.82.
    Command::new("curl").args(["--json", "{}", "--version"]).output().is_ok_and(|output| output.status.success())
}

#[test]
fn busy_port_is_reported_and_nothing_is_created() {
    let folder = folder();
    let busy = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = busy.local_addr().unwrap().port().to_string();
    let sentence = refuses(folder.path(), &["--port", &port]);
    assert!(
        sentence.starts_with(&format!("cannot listen on 127.0.0.1:{port}, choose another port with --port")),
        "{sentence}"
    );
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    let sentence = refuses(folder.path(), &["--port", "0", "--memory", "--dynamodb-port", &port]);
    assert!(sentence.starts_with(&format!("cannot listen on 127.0.0.1:{port} for DynamoDB")), "{sentence}");
}

#[test]
fn unwritable_folder_is_reported() {
    let folder = folder();
    fs::write(folder.path().join("file"), "not a folder").unwrap();
    // Nothing can be created below a file, not even by root.
    for data in ["file", "file/data"] {
        let sentence = refuses(folder.path(), &["--port", "0", "--data", data]);
        assert!(sentence.starts_with(&format!("cannot create the data folder {data}")), "{sentence}");
    }
    fs::create_dir_all(folder.path().join("data/lock")).unwrap();
    fs::set_permissions(folder.path().join("data"), fs::Permissions::from_mode(0o700)).unwrap();
    let sentence = refuses(folder.path(), &["--port", "0", "--data", "data"]);
    assert!(sentence.starts_with("cannot write to the data folder data"), "{sentence}");
    let sentence = refuses(folder.path(), &["--port", "0", "--memory", "--env-file", "file/demo.env"]);
    assert!(sentence.starts_with("cannot write file/demo.env"), "{sentence}");
}

#[test]
fn damaged_store_is_reported_and_not_changed() {
    let folder = folder();
    let store = folder.path().join("data/tokens.db");
    fs::create_dir(folder.path().join("data")).unwrap();
    let damaged =
        "the store data/tokens.db is damaged or not a guard-tokens store; move it away to start with an empty one";
    for garbage in ["garbage".repeat(1_000), "SQLite format 3\0".to_owned() + &"x".repeat(5_000)] {
        fs::write(&store, &garbage).unwrap();
        assert_eq!(refuses(folder.path(), &["--port", "0", "--data", "data"]), damaged);
        assert_eq!(fs::read_to_string(&store).unwrap(), garbage);
    }
    fs::remove_file(&store).unwrap();
    fs::create_dir(&store).unwrap();
    assert_eq!(refuses(folder.path(), &["--port", "0", "--data", "data"]), damaged);
    // After moving it away, the service starts with an empty store.
    fs::remove_dir(&store).unwrap();
    Running::start(folder.path(), &["--data", "data"]).stop();
}

#[test]
fn data_folder_is_locked_by_one_process() {
    let folder = folder();
    let first = Running::start(folder.path(), &[]);
    let sentence = refuses(folder.path(), &["--port", "0"]);
    assert_eq!(sentence, "the data folder .local is in use by another guard-tokens process");
    // Another folder or an in-memory store is unaffected.
    Running::start(folder.path(), &["--data", "other"]).stop();
    Running::start(folder.path(), &["--memory"]).stop();
    first.stop();
    Running::start(folder.path(), &[]).stop();
}

#[tokio::test]
async fn sigint_and_sigterm_shut_down_cleanly() {
    let folder = folder();
    Running::start(folder.path(), &["--memory"]).stop();
    let (code, _) = Running::start(folder.path(), &["--memory"]).end("-TERM");
    assert_eq!(code, Some(0));
    // An open connection does not prevent the shutdown.
    let running = Running::start(folder.path(), &["--memory"]);
    let client = Client::new();
    let url = format!("{}/v1/docs/openapi.json", running.base_url);
    assert_eq!(client.get(url).send().await.unwrap().status(), 200);
    running.stop();
    drop(client);
}

#[tokio::test]
async fn restart_keeps_the_data_and_the_credential() {
    let folder = folder();
    let file = folder.path().join(".local/demo.env");
    let running = Running::start(folder.path(), &[]);
    let first = environment(&file);
    let (status, issued) = call(&first, Method::POST, "", Some(json!({"user_identifier": "alice-laptop"}))).await;
    assert_eq!(status, 201, "{issued}");
    running.stop();

    let running = Running::start(folder.path(), &[]);
    let second = environment(&file);
    for same in ["ORG", "BOT_ID", "BOT_API_KEY", "TOKENS_TABLE", "AWS_REGION", "AWS_ACCESS_KEY_ID"] {
        assert_eq!(first[same], second[same]);
    }
    assert_eq!(text(&second, "BASE_URL"), running.base_url);
    let (status, list) = call(&second, Method::GET, "", None).await;
    let (list, issued): (Value, Value) = (serde_json::from_str(&list).unwrap(), serde_json::from_str(&issued).unwrap());
    assert_eq!((status.as_u16(), &list["tokens"][0]["id"]), (200, &issued["id"]));
    running.stop();

    // Without the file, the key is lost: the output says so, and the service runs.
    fs::remove_file(&file).unwrap();
    let printed = Running::start(folder.path(), &[]).stop();
    assert!(printed.contains(".local/demo.env contains no bot credential."), "{printed}");
    assert!(!printed.contains("source"), "{printed}");
    assert_eq!(environment(&file).get("BOT_API_KEY"), None);
}

#[tokio::test]
async fn memory_mode_discards_data_and_keeps_the_existing_env_file() {
    let folder = folder();
    Running::start(folder.path(), &[]).stop();
    let kept = fs::read(folder.path().join(".local/demo.env")).unwrap();

    let running = Running::start(folder.path(), &["--memory"]);
    let memory = environment(folder.path().join(".local/memory.env"));
    let (status, answer) = call(&memory, Method::POST, "", Some(json!({"user_identifier": "alice"}))).await;
    assert_eq!(status, 201, "{answer}");
    running.stop();
    assert_eq!(fs::read(folder.path().join(".local/demo.env")).unwrap(), kept);

    let running = Running::start(folder.path(), &["--memory"]);
    let again = environment(folder.path().join(".local/memory.env"));
    assert_ne!(memory["BOT_API_KEY"], again["BOT_API_KEY"]);
    let (status, list) = call(&again, Method::GET, "?status=all", None).await;
    assert_eq!((status.as_u16(), list.as_str()), (200, r#"{"tokens":[],"next_cursor":null}"#));
    running.stop();
}

#[test]
fn env_file_is_written_to_the_given_path_with_mode_0600() {
    let folder = folder();
    let mode = |path: &str| fs::metadata(folder.path().join(path)).unwrap().permissions().mode() & 0o777;
    // An existing file that everyone may read.
    fs::write(folder.path().join("mine.env"), "export OLD=1\n").unwrap();
    fs::set_permissions(folder.path().join("mine.env"), fs::Permissions::from_mode(0o644)).unwrap();
    Running::start(folder.path(), &["--env-file", "mine.env"]).stop();
    assert_eq!(mode("mine.env"), 0o600);
    assert_eq!(environment(folder.path().join("mine.env")).get("OLD"), None);
    assert!(!folder.path().join(".local/demo.env").exists());

    Running::start(folder.path(), &["--memory", "--env-file", "deep/er/mine.env"]).stop();
    assert_eq!(mode("deep/er/mine.env"), 0o600);
    Running::start(folder.path(), &["--data", "data"]).stop();
    assert_eq!(mode("data/demo.env"), 0o600);
    let left = fs::read_dir(folder.path().join("data")).unwrap().map(|entry| entry.unwrap().file_name());
    let left: Vec<String> = left.map(|name| name.into_string().unwrap()).collect();
    assert!(left.iter().all(|name| !name.contains("new")), "a draft is left: {left:?}");
}

#[tokio::test]
async fn requests_of_web_pages_are_refused_on_both_ports() {
    let folder = folder();
    let running = Running::start(folder.path(), &["--memory"]);
    let environment = environment(folder.path().join(".local/memory.env"));
    let (api, database) = (running.base_url.clone(), text(&environment, "AWS_ENDPOINT_URL_DYNAMODB").to_owned());
    for (base, path, method) in [
        (&api, "/_local/mail.json", Method::GET),
        (&api, "/v1/docs/openapi.json", Method::GET),
        (&api, "/npm/widgets", Method::GET),
        (&api, "/nowhere", Method::OPTIONS),
        (&database, "/", Method::POST),
        (&database, "/", Method::OPTIONS),
        (&database, "/nowhere", Method::GET),
    ] {
        let port = base.rsplit(':').next().unwrap();
        let ask = async |name: &str, value: &str| {
            let request = Client::new().request(method.clone(), format!("{base}{path}")).header(name, value);
            // What a page would have to send to plant an item.
            let request = request.header("content-type", "application/x-amz-json-1.0").body("{}");
            let response = request.header("x-amz-target", "DynamoDB_20120810.ListTables").send().await.unwrap();
            assert!(!response.headers().contains_key("access-control-allow-origin"), "{base}{path} {name}: {value}");
            if response.status() == 403 {
                assert_eq!(response.headers()["content-security-policy"], "sandbox; default-src 'none'");
            }
            response.status()
        };
        for host in [
            "evil.example".to_owned(),
            format!("evil.example:{port}"),
            format!("127.0.0.1.evil.example:{port}"),
            format!("a.localhost:{port}"),
            format!("localhost.:{port}"),
            format!("127.0.0.2:{port}"),
            "localhost".to_owned(),
            "localhost:1".to_owned(),
        ] {
            assert_eq!(ask("host", &host).await, 403, "{base}{path} host: {host}");
            assert_eq!(ask("origin", &format!("http://{host}")).await, 403, "{base}{path} origin: {host}");
        }
        for origin in ["null".to_owned(), format!("https://localhost:{port}"), format!("localhost:{port}")] {
            assert_eq!(ask("origin", &origin).await, 403, "{base}{path} origin: {origin}");
        }
        for host in ["127.0.0.1", "localhost", "LOCALHOST", "[::1]", "npm.localhost", "pypi.localhost"] {
            let host = format!("{host}:{port}");
            assert_ne!(ask("host", &host).await, 403, "{base}{path} host: {host}");
            assert_ne!(ask("origin", &format!("http://{host}")).await, 403, "{base}{path} origin: {host}");
        }
    }
    // One port's pages are foreign to the other.
    let asked = Client::new().post(&database).header("origin", &api).send().await.unwrap();
    assert_eq!(asked.status(), 403);
    let refused = Client::new().get(format!("{api}/v1/whoami")).header("host", "evil.example").send().await.unwrap();
    let (id, body) = (refused.headers()["x-request-id"].to_str().unwrap().to_owned(), refused.text().await.unwrap());
    let body: Value = serde_json::from_str(&body).unwrap();
    assert_eq!((&body["error"]["code"], &body["error"]["request_id"]), (&json!("FORBIDDEN"), &json!(id)), "{body}");
    running.stop();
}

#[test]
fn data_folder_and_its_files_are_for_their_owner_alone() {
    let folder = folder();
    let path = |name: &str| folder.path().join(name);
    let mode = |name: &str| fs::metadata(path(name)).unwrap().permissions().mode() & 0o777;
    let chmod = |name: &str, mode| fs::set_permissions(path(name), fs::Permissions::from_mode(mode)).unwrap();
    let all_private = || {
        let names = fs::read_dir(path(".local")).unwrap().map(|file| file.unwrap().file_name());
        let names: Vec<String> = names.map(|name| format!(".local/{}", name.into_string().unwrap())).collect();
        assert!(names.contains(&".local/tokens.db".to_owned()), "{names:?}");
        assert_eq!(mode(".local"), 0o700);
        names.iter().for_each(|name| assert_eq!(mode(name), 0o600, "{name}"));
    };
    let running = Running::start(folder.path(), &[]);
    all_private();
    running.stop();
    // As an earlier version left it.
    chmod(".local", 0o755);
    ["lock", "tokens.db", "demo.env"].iter().for_each(|name| chmod(&format!(".local/{name}"), 0o644));
    let running = Running::start(folder.path(), &[]);
    all_private();
    running.stop();
    chmod(".local", 0o755);
    Running::start(folder.path(), &["--memory"]).stop();
    all_private();

    Running::start(folder.path(), &["--memory", "--env-file", "new/memory.env"]).stop();
    assert_eq!((mode("new"), mode("new/memory.env")), (0o700, 0o600));
    // An empty folder is taken, one with other files in it is left as it is.
    fs::create_dir(path("empty")).unwrap();
    chmod("empty", 0o755);
    Running::start(folder.path(), &["--data", "empty"]).stop();
    assert_eq!(mode("empty"), 0o700);
    fs::create_dir(path("project")).unwrap();
    fs::write(path("project/lock"), "").unwrap();
    for open in [0o755, 0o770, 0o701] {
        chmod("project", open);
        for memory in [&["--memory"][..], &[]] {
            let sentence = refuses(folder.path(), &[&["--port", "0", "--data", "project"], memory].concat());
            assert!(sentence.contains("open to other users and contains other files"), "{sentence}");
            assert_eq!((mode("project"), mode("project/lock") & 0o400), (open, 0o400));
        }
    }
    chmod("project", 0o700);
    Running::start(folder.path(), &["--data", "project"]).stop();
    // A folder for everybody, such as /tmp, stays so.
    fs::create_dir(path("shared")).unwrap();
    chmod("shared", 0o1777);
    let sentence = refuses(folder.path(), &["--port", "0", "--data", "shared"]);
    assert!(sentence.starts_with("cannot restrict access to the data folder shared: it is shared"), "{sentence}");
    assert_eq!(mode("shared"), 0o777);
}

#[test]
fn python_imports_nothing_from_the_current_directory() {
    let folder = folder();
    let bin = folder.path().join("bin");
    fs::create_dir(&bin).unwrap();
    for (name, script) in [("npm", "exit 1"), ("pip", "exit 1"), ("python3", "echo \"$1\" >> python-arguments; exit 1")]
    {
        fs::write(bin.join(name), format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(bin.join(name), fs::Permissions::from_mode(0o755)).unwrap();
    }
    #[allow(clippy::disallowed_methods)] // The test puts a program in front of the others.
    let search_path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
    let mut command = command(folder.path(), &["--port", "0", "--memory"]);
    command.env("PATH", search_path).env_remove("PIP_INDEX_URL").env_remove("NPM_CONFIG_REGISTRY");
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(fs::read_to_string(folder.path().join("python-arguments")).unwrap(), "-I\n");
}

#[tokio::test]
async fn documented_curl_command_works_with_the_env_file() {
    let folder = folder();
    let running = Running::start(folder.path(), &[]);
    let environment = environment(folder.path().join(".local/demo.env"));
    let body = if has_curl() {
        let script = r#"
            source .local/demo.env
            curl -sS $BASE_URL/v1/o/$ORG/guard/org-user-tokens \
              -H "Authorization: Bearer $BOT_API_KEY:$BOT_ID" \
              --json '{"user_identifier": "alice-laptop"}' --write-out '\n%{http_code}'
        "#;
        let Output { status, stdout, stderr } = bash(folder.path(), script);
        assert!(status.success(), "{}", String::from_utf8_lossy(&stderr));
        let printed = String::from_utf8(stdout).unwrap();
        let (body, status) = printed.rsplit_once('\n').unwrap();
        assert_eq!(status, "201", "{body}");
        body.to_owned()
    } else {
        let body = json!({"user_identifier": "alice-laptop"});
        let (status, body) = call(&environment, Method::POST, "", Some(body)).await;
        assert_eq!(status, 201, "{body}");
        body
    };
    let issued: Value = serde_json::from_str(&body).unwrap();
    let token = text(&issued, "token");
    assert!(token.starts_with("tg_org_") && token.len() == 49, "{token}");

    // The rest of the tour: the list masks it, probe says active, and after the revoke inactive, as
    // for an unknown token.
    let (status, list) = call(&environment, Method::GET, "", None).await;
    assert!(status == 200 && list.contains(text(&issued, "token_prefix")) && !list.contains(token), "{list}");
    let probe = async |token: &str| {
        let (status, body) = call(&environment, Method::POST, "/probe", Some(json!({"token": token}))).await;
        assert_eq!(status, 200);
        body
    };
    assert!(probe(token).await.starts_with(r#"{"active":true,"#));
    let path = format!("/by-id/{}", text(&issued, "id"));
    assert_eq!(call(&environment, Method::DELETE, &path, None).await, (StatusCode::NO_CONTENT, String::new()));
    assert_eq!(probe(token).await, r#"{"active":false}"#);
    assert_eq!(probe("tg_org_madeup").await, r#"{"active":false}"#);
    running.stop();
}

#[test]
fn printed_tour_works_when_pasted_into_a_shell() {
    if !has_curl() {
        return;
    }
    let folder = folder();
    // The second path needs shell quoting.
    for data in [".local", "it's mine; $HOME"] {
        let mut running = Running::start(folder.path(), &["--data", data]);
        let mut tour = String::new();
        // The tour is the last output and ends with an empty line.
        loop {
            let mut line = String::new();
            running.stdout.read_line(&mut line).unwrap();
            if tour.contains("List tokens") && line.trim().is_empty() {
                break;
            }
            tour.push_str(&line);
        }
        let (_, pasted) = tour.split_once("Try it in another shell:").unwrap();
        let Output { status, stdout, stderr } = bash(folder.path(), pasted);
        assert!(status.success(), "{pasted}\n{}", String::from_utf8_lossy(&stderr));
        let printed = String::from_utf8(stdout).unwrap();
        let mut answers = serde_json::Deserializer::from_str(&printed).into_iter::<Value>().map(Result::unwrap);
        let (issued, list) = (answers.next().unwrap(), answers.next().unwrap());
        assert_eq!((&issued["status"], answers.next()), (&json!("active"), None), "{printed}");
        assert_eq!(issued["id"], list["tokens"][0]["id"]);
        running.stop();
    }
}

#[test]
fn openapi_is_printed_without_a_store() {
    let folder = folder();
    let Output { status, stdout, .. } = command(folder.path(), &["openapi"]).output().unwrap();
    assert_eq!(status.code(), Some(0));
    let document: Value = serde_json::from_slice(&stdout).unwrap();
    assert_eq!(document["openapi"], "3.1.0");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}

/// Calls the embedded DynamoDB on its tokens table.
async fn ask_table(environment: &Value, operation: &str, mut request: Value) -> Value {
    request["TableName"] = environment["TOKENS_TABLE"].clone();
    let signature =
        "AWS4-HMAC-SHA256 Credential=local/20261121/us-east-1/dynamodb/aws4_request, SignedHeaders=host, Signature=0";
    let call = Client::new().post(text(environment, "AWS_ENDPOINT_URL_DYNAMODB")).body(request.to_string());
    let call = call.header("content-type", "application/x-amz-json-1.0").header("x-amz-date", "20261121T100000Z");
    let call = call.header("x-amz-target", format!("DynamoDB_20120810.{operation}")).header("authorization", signature);
    let response = call.send().await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    response.json().await.unwrap()
}

#[tokio::test]
async fn what_is_due_is_erased_at_the_next_start() {
    let folder = folder();
    let demo = folder.path().join(".local/demo.env");
    let (due, not_due) = ("000000000001#01KAJ8M4R2X7Z9V5T3Q1N6P8WC", "999999999999#01KAJ8M4R2X7Z9V5T3Q1N6P8WC");
    let running = Running::start(folder.path(), &[]);
    for place in [due, not_due] {
        let item = json!({
            "pk": {"S": "ERASURES"},
            "sk": {"S": place},
            "address": {"S": "ab".repeat(32)},
            "removal": {"S": "01KAJ8M4R2X7Z9V5T3Q1N6P8WC"},
            "removed_at": {"S": "2026-11-21T10:00:00Z"},
        });
        ask_table(&environment(&demo), "PutItem", json!({"Item": item})).await;
    }
    running.stop();
    let running = Running::start(folder.path(), &[]);
    let left = async || {
        let values = json!({":pk": {"S": "ERASURES"}});
        let query = json!({"KeyConditionExpression": "pk = :pk", "ExpressionAttributeValues": values});
        let found = ask_table(&environment(&demo), "Query", query).await;
        let places = found["Items"].as_array().unwrap().iter().map(|item| text(&item["sk"], "S").to_owned());
        places.collect::<Vec<String>>()
    };
    while left().await.len() == 2 {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    assert_eq!(left().await, [not_due]);
    running.stop();
}

/// The link that opens the console: the second line that is printed.
fn link_to_console(running: &mut Running) -> String {
    let mut line = String::new();
    running.stdout.read_line(&mut line).unwrap();
    let link = line.strip_prefix("Open the console: ").and_then(|line| line.strip_suffix(" (works once).\n"));
    link.unwrap_or_else(|| panic!("no link: {line}")).to_owned()
}

#[tokio::test]
async fn printed_link_signs_in_to_the_console_once() {
    let folder = folder();
    let mut running = Running::start(folder.path(), &[]);
    let (base_url, link) = (running.base_url.clone(), link_to_console(&mut running));
    let path = format!("{base_url}/console/sign-in/local/");
    let key = link.strip_prefix(&path).unwrap_or_else(|| panic!("{link}")).to_owned();
    assert!(key.len() >= 36, "{key}");
    let http = Client::builder().redirect(reqwest::redirect::Policy::none()).build().unwrap();
    let form = |url: &str, site: &str| {
        let request = http.post(url).header("sec-fetch-site", site);
        request.header("content-type", "application/x-www-form-urlencoded").send()
    };
    let gone = async |response: reqwest::Response| {
        assert_eq!(response.status(), 410);
        assert!(!response.headers().contains_key("set-cookie"));
        let page = response.text().await.unwrap();
        assert!(page.contains("This link was already used"), "{page}");
    };

    // Opening it signs nobody in, nor does another site's page or another key.
    for _ in 0..2 {
        let response = http.get(&link).send().await.unwrap();
        assert!(response.status() == 200 && !response.headers().contains_key("set-cookie"));
        let page = response.text().await.unwrap();
        assert!(page.contains("<button class=\"primary\">Sign in</button>"), "{page}");
    }
    assert_eq!(form(&link, "cross-site").await.unwrap().status(), 403);
    let other = format!("{path}{}{}", &key[..key.len() - 1], if key.ends_with('x') { 'y' } else { 'x' });
    gone(http.get(&other).send().await.unwrap()).await;
    gone(form(&other, "same-origin").await.unwrap()).await;

    // Of two at once, one is signed in, as the owner of the demo organization.
    let (one, two) = tokio::join!(form(&link, "same-origin"), form(&link, "same-origin"));
    let (one, two) = (one.unwrap(), two.unwrap());
    let (entered, late) = if one.status() == 303 { (one, two) } else { (two, one) };
    assert_eq!((entered.status().as_u16(), &entered.headers()["location"]), (303, &"/console/".parse().unwrap()));
    gone(late).await;
    let cookie = entered.headers()["set-cookie"].to_str().unwrap();
    let (session, attributes) = cookie.split_once("; ").unwrap();
    let port = base_url.rsplit(':').next().unwrap();
    assert!(session.starts_with(&format!("guard_session_{port}=gs_")), "{cookie}");
    assert_eq!(attributes, "Path=/; Max-Age=86400; HttpOnly; SameSite=Lax");
    let page = async |path: &str| http.get(format!("{base_url}{path}")).header("cookie", session).send().await.unwrap();
    let org = environment(folder.path().join(".local/demo.env"));
    let overview = page(&format!("/console/o/{}", text(&org, "ORG"))).await;
    assert_eq!(overview.status(), 200);
    assert!(page("/console/account").await.text().await.unwrap().contains(">Owner<"));

    // It is dead, and neither it nor the session can be read in the data folder.
    gone(http.get(&link).send().await.unwrap()).await;
    gone(form(&link, "same-origin").await.unwrap()).await;
    let secret = session.split_once('=').unwrap().1;
    for file in fs::read_dir(folder.path().join(".local")).unwrap() {
        let content = fs::read(file.unwrap().path()).unwrap();
        for text in [key.as_str(), secret] {
            assert!(!content.windows(text.len()).any(|part| part == text.as_bytes()));
        }
    }
    running.stop();

    // Each start prints a new one.
    let mut running = Running::start(folder.path(), &[]);
    let next = link_to_console(&mut running);
    gone(form(&format!("{}/console/sign-in/local/{key}", running.base_url), "same-origin").await.unwrap()).await;
    assert_eq!(form(&next, "same-origin").await.unwrap().status(), 303);
    running.stop();
}
