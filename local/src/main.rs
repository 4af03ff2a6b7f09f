//! `cargo run`: the whole service on one port, with an embedded DynamoDB.

use std::io::IsTerminal;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use local::api;
use local::demo::{self, Environment};
use local::dynamodb::{DynamoDb, private_data_folder};
use local::origin::guarded;
use local::outbox::{Outbox, SES_PATH};
use local::sign_in::Link;
use local::{schedule, upstreams};
use secrecy::SecretString;
use shared::app::Limits;
use shared::aws::{LOCAL_CREDENTIAL, LOCAL_REGION, dynamodb_at};
use shared::console::{Console, SignIn};
use shared::hosts::RegistryHosts;
use shared::mail::{MailConfig, Mailer, ses_at};
use shared::oidc::{CALLBACK, ClientSecret, IdentityProvider, Issuer, PlainHttp, Registration, Workloads};
use shared::registry::Registries;
use shared::secret_scanning::ScannerKeys;
use shared::store::Store;
use shared::store::mail_limits::MailLimits;
use shared::store::registration::RegistrationPolicy;
use shared::{App, Clock, MailApp};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// Table names in the embedded DynamoDB.
const TABLE: &str = "guard-tokens";
const INSTALLATIONS_TABLE: &str = "guard-tokens-installations";

/// How long pending requests may take after Ctrl-C.
const GRACE: Duration = Duration::from_secs(5);

/// Run guard-tokens on this machine, with an embedded DynamoDB. Needs no Docker and no AWS account
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// Port to listen on at 127.0.0.1 (0 for any free port)
    #[arg(long, default_value_t = 3000)]
    port: u16,
    /// Port of the embedded DynamoDB (0 for any free port)
    #[arg(long, default_value_t = 0)]
    dynamodb_port: u16,
    /// Use the DynamoDB emulator at this URL instead of the embedded one
    #[arg(long, value_name = "URL", conflicts_with_all = ["memory", "dynamodb_port"])]
    dynamodb: Option<String>,
    /// Data folder, kept between runs and readable for you alone. An existing folder with other files
    /// in it must be so already
    #[arg(long, value_name = "DIR", default_value = ".local")]
    data: PathBuf,
    /// Keep all data in memory and discard it on exit
    #[arg(long)]
    memory: bool,
    /// Env file to write for your shell (default: demo.env in the data folder, memory.env with
    /// --memory)
    #[arg(long, value_name = "PATH")]
    env_file: Option<PathBuf>,
    /// Disable the rate limit of register and reset
    #[arg(long)]
    no_rate_limit: bool,
    /// Maximum mails per hour (default: unlimited). A fifth, at least one of two, is kept for
    /// addresses that have a token
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    mails_per_hour: Option<u64>,
    /// Who registers by mail: open, closed, or domains separated by commas
    #[arg(long, value_name = "WHO", default_value = "open")]
    registration: RegistrationPolicy,
    /// Upstream npm registry (default: NPM_CONFIG_REGISTRY, or the registry that npm is configured
    /// with)
    #[arg(long, value_name = "URL")]
    npm_upstream: Option<String>,
    /// Upstream PyPI simple index, including `/simple/` (default: PIP_INDEX_URL, or the index that
    /// pip is configured with)
    #[arg(long, value_name = "URL")]
    pypi_upstream: Option<String>,
    /// OpenID provider that people may also sign in with: its issuer URL, `https`, or `http` on this
    /// machine
    #[arg(long, value_name = "URL", requires_all = ["oidc_client_id", "oidc_client_secret"])]
    oidc_issuer: Option<String>,
    /// Client ID of this service at the provider
    #[arg(long, value_name = "ID", requires = "oidc_issuer")]
    oidc_client_id: Option<String>,
    /// Client secret of this service at the provider
    #[arg(long, value_name = "SECRET", requires = "oidc_issuer")]
    oidc_client_secret: Option<SecretString>,
    /// Accept GitHub's reports of leaked tokens, signed with a key at this URL: `https`, or `http` on
    /// this machine
    #[arg(long, value_name = "URL")]
    github_secret_scanning_keys: Option<String>,
    /// Issuer whose ID tokens CI may exchange for bot tokens: its URL, `https`, or `http` on this
    /// machine. Repeat it for several
    #[arg(long, value_name = "URL")]
    ci_issuer: Vec<String>,
    /// Audience of those ID tokens (default: the host of the base URL). Repeat it for several
    #[arg(long, value_name = "AUDIENCE", requires = "ci_issuer")]
    ci_audience: Vec<String>,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Print the OpenAPI document generated from the code
    Openapi,
}

/// How long requests wait for records that they do not need. Nothing is frozen here, and a disk may be
/// slow.
const PATIENCE: Duration = Duration::from_secs(10);

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    tracing_subscriber::fmt()
        .compact()
        .with_target(false)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_env_filter(shared::lambda::log_filter())
        .init();
    let result = match arguments.command {
        Some(Command::Openapi) => print_document(),
        None => run(arguments).await,
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say_error(&format!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: Arguments) -> Result<()> {
    let (port, data, memory) = (arguments.port, arguments.data.clone(), arguments.memory);
    // From here on, signals lead to a clean shutdown.
    let end = end_signal()?;
    // Bind the port first: if it is taken, nothing is created or written.
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port))
        .await
        .with_context(|| format!("cannot listen on 127.0.0.1:{port}, choose another port with --port"))?;
    let address = listener.local_addr().context("the listener has no address")?;
    let base_url = format!("http://{address}");
    let provider = provider(&arguments, &base_url)?;
    let workloads = workloads(&arguments, address)?;
    let scanner_keys = match &arguments.github_secret_scanning_keys {
        None => None,
        Some(url) => Some(ScannerKeys::new(url, PlainHttp::OnLoopback, Clock::System)?),
    };
    let upstreams =
        upstreams::settings(arguments.npm_upstream.as_deref(), arguments.pypi_upstream.as_deref(), address.port())
            .await?;
    let packages = upstreams::shown(&upstreams);
    let registries = Registries::new(upstreams).context("cannot set up TLS to upstream registries")?;
    let embedded = match &arguments.dynamodb {
        Some(_) => None,
        None if memory => Some(DynamoDb::in_memory(arguments.dynamodb_port).await?.sweeping()),
        None => Some(DynamoDb::in_folder(&data, arguments.dynamodb_port).await?.sweeping()),
    };
    let endpoint = arguments.dynamodb.or_else(|| Some(embedded.as_ref()?.endpoint.clone())).unwrap_or_default();
    let store = Store::new(dynamodb_at(&endpoint), TABLE, Clock::System).with_patience(PATIENCE);
    let installation_log = store.installation_log(INSTALLATIONS_TABLE);
    store.create_table().await.context("cannot create the table in the store")?;
    installation_log.create_table().await.context("cannot create the table in the store")?;

    if (memory || embedded.is_none()) && arguments.env_file.is_none() {
        private_data_folder(&data)?;
    }
    let env_file = arguments.env_file.unwrap_or_else(|| data.join(if memory { "memory.env" } else { "demo.env" }));
    let created = demo::create_if_empty(&store).await.context("cannot read the store")?;
    // The file written when the store was created holds the only copy of the API key.
    let mut environment = created.unwrap_or_else(|| demo::read(&env_file));
    let owner = demo::owner(&store).await.context("cannot read the store")?;
    let knows_key = environment.contains_key(demo::BOT_API_KEY);
    environment.extend(surroundings(&base_url, &endpoint));
    demo::write(&env_file, &environment)?;

    say(&format!("guard-tokens listens on {base_url}, DynamoDB on {endpoint}.\n"));
    let (link, sign_in_url) = Link::generate(&base_url).context("cannot make the link to sign in")?;
    say(&format!("Open the console: {sign_in_url} (works once).\n"));
    if let Some(provider) = &provider {
        let redirect_uri = format!("{base_url}{CALLBACK}");
        say(&format!("People may sign in at {}; register {redirect_uri} there.\n", provider.issuer()));
    }
    say(&format!("Emails are not sent: view them at {base_url}/_local/mail.\n"));
    say(&format!("{packages}\n"));
    if knows_key {
        say(&demo::tour(&env_file));
    } else {
        say(&format!(
            "{} contains no bot credential. Create one with `guardctl bot create` or `guardctl bot rotate-key`.\n",
            env_file.display()
        ));
    }

    let (stop, stopped) = watch::channel(false);
    let outbox = Outbox::new(Clock::System);
    let mail = MailConfig {
        from: "guard-tokens <no-reply@guard-tokens.example>".to_owned(),
        reply_to: None,
        configuration_set: None,
        public_url: base_url.clone(),
        // Not every machine resolves the registries' names.
        registry_hosts: RegistryHosts::default(),
    };
    let limits = Limits {
        calls_per_minute: Limits::default().calls_per_minute.filter(|_| !arguments.no_rate_limit),
        mails: MailLimits { per_hour: arguments.mails_per_hour, ..MailLimits::default() },
        registration: arguments.registration,
        // The outbox responds immediately.
        registration_time: Duration::from_millis(250),
        sign_in_time: Duration::from_millis(250),
        exchange_refusal_time: Duration::from_millis(250),
    };
    let app = App::new(store, Clock::System).with_limits(limits);
    let mailer = Mailer::new(ses_at(&format!("{base_url}{SES_PATH}")), mail);
    let scheduled = tokio::spawn(schedule::run(MailApp { app: app.clone(), mailer: mailer.clone() }));
    let sign_in = if provider.is_some() { SignIn::Both } else { SignIn::Mail };
    let console = Console::at(&base_url).with_sign_in(sign_in);
    let mut router = outbox.router();
    if let Some(owner) = owner {
        router = router.merge(link.router(app.clone(), console.clone(), owner));
    }
    let service =
        api::Service { app, log: installation_log, mailer, registries, workloads, console, provider, scanner_keys };
    let router = guarded(api::router(service).merge(router), address.port());
    let mut serving = tokio::spawn(api::serve(listener, router, async move {
        let _ = stopped.clone().wait_for(|stop| *stop).await;
    }));
    tokio::select! {
        // The server ends before a signal only if it fails.
        served = &mut serving => served.context("the server panicked")?.context("the server failed")?,
        () = end => {
            let _ = stop.send(true);
            // An open connection must not prevent the shutdown.
            let _ = tokio::time::timeout(GRACE, serving).await;
        }
    }
    scheduled.abort();
    match embedded {
        Some(dynamodb) => tokio::time::timeout(GRACE, dynamodb.stop()).await.unwrap_or(Ok(())),
        None => Ok(()),
    }
}

/// The provider that people sign in with besides the codes by mail.
fn provider(arguments: &Arguments, base_url: &str) -> Result<Option<IdentityProvider>> {
    let Arguments {
        oidc_issuer: Some(issuer), oidc_client_id: Some(client_id), oidc_client_secret: Some(secret), ..
    } = arguments
    else {
        return Ok(None);
    };
    let registration = Registration {
        issuer: Issuer::parse(issuer, PlainHttp::OnLoopback)
            .with_context(|| format!("{issuer} is no issuer: it must be an https URL, or http on this machine"))?,
        client_id: client_id.clone(),
        secret: ClientSecret::given(secret.clone()),
        trusted_emails: false,
    };
    let provider = IdentityProvider::new(registration, base_url, Clock::System);
    Ok(Some(provider.context("cannot use the OpenID provider")?))
}

/// The issuers and audiences of CI.
fn workloads(arguments: &Arguments, address: SocketAddr) -> Result<Workloads> {
    let issuers = arguments.ci_issuer.iter().map(|issuer| {
        Issuer::parse(issuer, PlainHttp::OnLoopback)
            .with_context(|| format!("{issuer} is no issuer: it must be an https URL, or http on this machine"))
    });
    let issuers: Vec<Issuer> = issuers.collect::<Result<_>>()?;
    let audiences = match arguments.ci_audience.is_empty() {
        true => vec![address.ip().to_string()],
        false => arguments.ci_audience.clone(),
    };
    Workloads::new(issuers, audiences, &Clock::System).context("cannot set up TLS to issuers")
}

/// Variables that do not depend on the store: endpoints, table names and SDK settings.
fn surroundings(base_url: &str, endpoint: &str) -> Environment {
    [
        ("BASE_URL", base_url),
        ("AWS_ENDPOINT_URL_DYNAMODB", endpoint),
        ("AWS_REGION", LOCAL_REGION),
        ("AWS_ACCESS_KEY_ID", LOCAL_CREDENTIAL),
        ("AWS_SECRET_ACCESS_KEY", LOCAL_CREDENTIAL),
        // Without this, the SDK queries the EC2 metadata service for credentials.
        ("AWS_EC2_METADATA_DISABLED", "true"),
        ("TOKENS_TABLE", TABLE),
        ("INSTALLATIONS_TABLE", INSTALLATIONS_TABLE),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .into()
}

/// Installs handlers for SIGINT and SIGTERM. The returned future resolves when one arrives.
fn end_signal() -> Result<impl Future<Output = ()>> {
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot handle SIGINT")?;
    let mut terminate = signal(SignalKind::terminate()).context("cannot handle SIGTERM")?;
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    })
}

fn print_document() -> Result<()> {
    say(&format!("{}\n", serde_json::to_string_pretty(&api::document())?));
    Ok(())
}

/// Prints to stdout, bypassing the log. A closed stdout is ignored.
fn say(text: &str) {
    use std::io::Write;
    let _ = std::io::stdout().write_all(text.as_bytes());
    let _ = std::io::stdout().flush();
}

fn say_error(text: &str) {
    use std::io::Write;
    let _ = writeln!(std::io::stderr(), "error: {text}");
}
