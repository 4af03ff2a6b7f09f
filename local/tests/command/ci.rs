//! A CI job from end to end: its ID token, the exchange, an installation, and the end of its token.

use std::path::Path;
use std::process::{Command, Output};

use reqwest::{Client, Method};
use serde_json::{Value, json};
use shared::Clock;
use shared::aws::dynamodb_at;
use shared::ids::BotId;
use shared::permissions::Role;
use shared::store::Store;
use shared::store::audit::{Caller, Subject};
use shared::store::members::Authority;
use shared::store::trusts::TrustAdded;
use shared::trust::{Trust, Wanted};
use tests::issuer::FakeIssuer;
use tests::upstream::{Registry, Reply};

use crate::{Running, environment, folder, has_curl, text};

const TARBALL: &str = "/npm/left-pad/-/left-pad-1.3.0.tgz";

/// A registry with a package that npm can install, made of these files.
async fn registry(folder: &Path) -> Registry {
    let package = folder.join("package");
    std::fs::create_dir(&package).unwrap();
    let manifest = json!({"name": "left-pad", "version": "1.3.0"});
    std::fs::write(package.join("package.json"), manifest.to_string()).unwrap();
    let packed = Command::new("tar").args(["czf", "package.tgz", "package"]).current_dir(folder).status().unwrap();
    assert!(packed.success());
    let registry = Registry::start().await;
    let tarball = format!("{}{TARBALL}", registry.url);
    let version = json!({"name": "left-pad", "version": "1.3.0", "dist": {"tarball": tarball}});
    let packument = json!({"name": "left-pad", "dist-tags": {"latest": "1.3.0"}, "versions": {"1.3.0": version}});
    registry.stub("/npm/left-pad", Reply::ok("application/json", packument.to_string()));
    let bytes = std::fs::read(folder.join("package.tgz")).unwrap();
    registry.stub(TARBALL, Reply::ok("application/octet-stream", bytes));
    registry
}

/// The local service, and an issuer that it allows.
struct Setup {
    _running: Running,
    issuer: FakeIssuer,
    environment: Value,
    store: Store,
    bot: BotId,
}

fn operator() -> Caller {
    let actor = Subject::new("operator", "test");
    Caller { actor, source_ip: None, request_id: "test".to_owned(), workload: None }
}

impl Setup {
    async fn trust(&self) -> Trust {
        let wanted = Wanted {
            issuer: self.issuer.url().to_owned(),
            audience: "127.0.0.1".to_owned(),
            claims: vec![("repository_owner_id".to_owned(), "123".to_owned())],
            roles: vec![Role::Owner],
            ..Wanted::default()
        };
        let (trust, operator) = (wanted.try_into().unwrap(), operator());
        match self.store.add_trust(Authority::Operator, &self.bot, trust, &operator, None).await.unwrap() {
            TrustAdded::Done(trust) => *trust,
            refused => panic!("{refused:?}"),
        }
    }

    fn id_token(&self) -> String {
        let mut claims = self.issuer.workload();
        // The default audience of the local service.
        claims["aud"] = json!("127.0.0.1");
        self.issuer.sign(&claims)
    }

    /// Runs the job in this folder.
    async fn job(&self, folder: &Path, id_token: &str) -> Output {
        let base_url = text(&self.environment, "BASE_URL").to_owned();
        let mut command = Command::new("bash");
        command.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/command/ci-job")).current_dir(folder);
        command.env("STS_URL", format!("{base_url}/bots/exchange")).env("REGISTRY_URL", format!("{base_url}/npm"));
        command.env("BOT_ID", self.bot.as_str()).env("ID_TOKEN", id_token).env("EXPIRES_IN", "600");
        command.env("PACKAGE", "left-pad").env("HOME", folder).env_remove("NPM_CONFIG_REGISTRY");
        tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
    }

    async fn get(&self, path: &str, credential: &str) -> (u16, Value) {
        let url = format!("{}{path}", text(&self.environment, "BASE_URL"));
        let response = Client::new().request(Method::GET, url).bearer_auth(credential).send().await.unwrap();
        (response.status().as_u16(), response.json().await.unwrap())
    }
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn job_installs_without_a_stored_secret_until_its_trust_is_removed() {
    assert!(has_curl(), "this test needs curl, jq and npm");
    let (home, of_the_job) = (folder(), folder());
    let registry = registry(home.path()).await;
    let issuer = FakeIssuer::start_with(Clock::System).await;
    let upstream = format!("{}/npm/", registry.url.replace("127.0.0.1", "localhost"));
    let arguments = ["--memory", "--npm-upstream", &upstream, "--ci-issuer", issuer.url()];
    let running = Running::start(home.path(), &arguments);
    let environment = environment(home.path().join(".local/memory.env"));
    let store = Store::new(
        dynamodb_at(text(&environment, "AWS_ENDPOINT_URL_DYNAMODB")),
        text(&environment, "TOKENS_TABLE"),
        Clock::System,
    );
    let bot = BotId::parse(text(&environment, "BOT_ID")).unwrap();
    let setup = Setup { _running: running, issuer, environment, store, bot };

    // Not trusted yet: the job shows the sentence of the answer.
    let id_token = setup.id_token();
    let refused = setup.job(of_the_job.path(), &id_token).await;
    assert!(!refused.status.success() && said(&refused).contains("No trust of this bot"), "{}", said(&refused));

    let trust = setup.trust().await;
    let installed = setup.job(of_the_job.path(), &id_token).await;
    assert!(installed.status.success() && said(&installed).contains("expires in 600"), "{}", said(&installed));
    assert!(of_the_job.path().join("node_modules/left-pad/package.json").exists());
    let token = std::fs::read_to_string(of_the_job.path().join("token")).unwrap();
    assert!(token.starts_with("tg_bot_") && !said(&installed).contains(&token));

    let credential = format!("{}:{}", text(&setup.environment, "BOT_API_KEY"), setup.bot);
    let log = format!("/v1/o/{}/guard/installations", text(&setup.environment, "ORG"));
    let (_, logged) = setup.get(&log, &credential).await;
    let entry = &logged["installations"][0];
    assert_eq!((&entry["package"], &entry["user_identifier"]), (&json!("left-pad"), &Value::Null), "{logged}");
    assert_eq!(entry["subject"], "repo:acme/widgets:ref:refs/heads/main");

    let replayed = setup.job(of_the_job.path(), &id_token).await;
    assert!(!replayed.status.success() && said(&replayed).contains("ID token is not accepted"), "{}", said(&replayed));

    assert_eq!(setup.get("/v1/whoami", &token).await.0, 200);
    setup.store.remove_trust(Authority::Operator, &setup.bot, &trust.id, &operator()).await.unwrap();
    assert_eq!(setup.get("/v1/whoami", &token).await.0, 401);
    assert_eq!(setup.get("/npm/left-pad", &token).await.0, 401);
}

#[test]
fn issuers_of_ci_are_https_or_on_this_machine() {
    let folder = folder();
    for issuer in ["ci.example.com", "http://ci.example.com", "https://ci.example.com?a"] {
        let said = crate::refuses(folder.path(), &["--memory", "--port", "0", "--ci-issuer", issuer]);
        assert!(said.contains("must be an https URL, or http on this machine"), "{said}");
    }
}
