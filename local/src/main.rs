//! `cargo run`: the whole of guard-tokens on one port, with an embedded DynamoDB.

use std::io::IsTerminal;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use local::api;
use local::demo::{self, Environment};
use local::dynamodb::DynamoDb;
use local::outbox::{Outbox, SES_PATH};
use local::upstreams;
use shared::app::{LOCAL_CREDENTIAL, LOCAL_REGION, Limits, dynamodb_at, ses_at};
use shared::mail::{MailConfig, Mailer};
use shared::registry::Registries;
use shared::store::Store;
use shared::{App, Clock};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// The tables' names in the embedded DynamoDB.
const TABLE: &str = "guard-tokens";
const INSTALLATIONS_TABLE: &str = "guard-tokens-installations";

/// How long what is under way may take to finish once Ctrl-C was pressed.
const GRACE: Duration = Duration::from_secs(5);

/// The whole of guard-tokens on one port, with an embedded DynamoDB: no Docker, no AWS account.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// The port to listen on, on 127.0.0.1; 0 takes any free one.
    #[arg(long, default_value_t = 3000)]
    port: u16,
    /// The port of the embedded DynamoDB; 0 takes any free one.
    #[arg(long, default_value_t = 0)]
    dynamodb_port: u16,
    /// The folder in which everything is kept between runs.
    #[arg(long, value_name = "DIR", default_value = ".local")]
    data: PathBuf,
    /// Keep nothing: the store lives in memory and is gone at the end.
    #[arg(long)]
    memory: bool,
    /// The file to source for the tour; `demo.env` in the data folder unless said, `memory.env` with --memory.
    #[arg(long, value_name = "PATH")]
    env_file: Option<PathBuf>,
    /// Let register and reset be called as often as one likes.
    #[arg(long)]
    no_rate_limit: bool,
    /// The npm registry that packages come from; NPM_CONFIG_REGISTRY, or the one that npm is set to, unless said.
    #[arg(long, value_name = "URL")]
    npm_upstream: Option<String>,
    /// The simple index that Python packages come from, `/simple/` included; PIP_INDEX_URL, or the one that pip is set to,
    /// unless said.
    #[arg(long, value_name = "URL")]
    pypi_upstream: Option<String>,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Print the OpenAPI document that is generated from the code, and end.
    Openapi,
}

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
    let Arguments { port, data, memory, .. } = arguments;
    // From here on, whoever ends it ends it cleanly.
    let end = end_signal()?;
    // The port first: with the port taken nothing is created or written.
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port))
        .await
        .with_context(|| format!("cannot listen on 127.0.0.1:{port}; --port takes another"))?;
    let address = listener.local_addr().context("the listener has no address")?;
    let base_url = format!("http://{address}");
    let upstreams =
        upstreams::settings(arguments.npm_upstream.as_deref(), arguments.pypi_upstream.as_deref(), address.port())
            .await?;
    let packages = upstreams::shown(&upstreams);
    let registries = Registries::new(upstreams).context("there are no certificates to trust upstreams by")?;
    let dynamodb = if memory {
        DynamoDb::in_memory(arguments.dynamodb_port).await?
    } else {
        DynamoDb::in_folder(&data, arguments.dynamodb_port).await?
    };
    let store = Store::new(dynamodb_at(&dynamodb.endpoint), TABLE, Clock::System);
    let installation_log = store.installation_log(INSTALLATIONS_TABLE);
    store.create_table().await.context("cannot create the table in the store")?;
    installation_log.create_table().await.context("cannot create the table in the store")?;

    let env_file = arguments.env_file.unwrap_or_else(|| data.join(if memory { "memory.env" } else { "demo.env" }));
    let created = demo::create_if_empty(&store).await.context("the store cannot be read")?;
    // A kept store's key is known to nobody but the file that was written when it was made.
    let mut environment = created.unwrap_or_else(|| demo::read(&env_file));
    let knows_key = environment.contains_key(demo::BOT_API_KEY);
    environment.extend(surroundings(&base_url, &dynamodb.endpoint));
    demo::write(&env_file, &environment)?;

    say(&format!("guard-tokens listens on {base_url}, DynamoDB on {}.\n", dynamodb.endpoint));
    say(&format!("Mails are kept in memory and shown at {base_url}/_local/mail.\n"));
    say(&format!("{packages}\n"));
    if knows_key {
        say(&demo::tour(&env_file));
    } else {
        say(&format!(
            "{} names no bot. `guardctl bot create` or `guardctl bot rotate-key` gives you a credential.\n",
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
    };
    let limits = Limits {
        calls_per_minute: Limits::default().calls_per_minute.filter(|_| !arguments.no_rate_limit),
        // The outbox costs nothing, and answers at once.
        mails_per_hour: None,
        registration_time: Duration::from_millis(250),
    };
    let app = App::new(store, Clock::System)
        .with_limits(limits)
        .with_registries(registries)
        .with_installation_log(installation_log)
        .with_mailer(Mailer::new(ses_at(&format!("{base_url}{SES_PATH}")), mail));
    let router = api::router(app).merge(outbox.router());
    let mut serving = tokio::spawn(api::serve(listener, router, async move {
        let _ = stopped.clone().wait_for(|stop| *stop).await;
    }));
    tokio::select! {
        // Nothing but a failure ends it before it is told to.
        served = &mut serving => served.context("the server broke")?.context("the server failed")?,
        () = end => {
            let _ = stop.send(true);
            // A caller who holds a connection open does not keep us from ending.
            let _ = tokio::time::timeout(GRACE, serving).await;
        }
    }
    tokio::time::timeout(GRACE, dynamodb.stop()).await.unwrap_or(Ok(()))
}

/// What does not depend on the store's content: where things are, and what the SDK needs to be told to find them.
fn surroundings(base_url: &str, endpoint: &str) -> Environment {
    [
        ("BASE_URL", base_url),
        ("AWS_ENDPOINT_URL_DYNAMODB", endpoint),
        ("AWS_REGION", LOCAL_REGION),
        ("AWS_ACCESS_KEY_ID", LOCAL_CREDENTIAL),
        ("AWS_SECRET_ACCESS_KEY", LOCAL_CREDENTIAL),
        // Without this the SDK asks a machine of AWS for credentials that is not there.
        ("AWS_EC2_METADATA_DISABLED", "true"),
        ("TOKENS_TABLE", TABLE),
        ("INSTALLATIONS_TABLE", INSTALLATIONS_TABLE),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .into()
}

/// Begins to listen for Ctrl-C, and for the signal that `kill` sends. The answer resolves when one comes.
fn end_signal() -> Result<impl Future<Output = ()>> {
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot wait for Ctrl-C")?;
    let mut terminate = signal(SignalKind::terminate()).context("cannot wait for signals")?;
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

/// For people, so not through the log. Output that nobody reads any more is no reason to end.
fn say(text: &str) {
    use std::io::Write;
    let _ = std::io::stdout().write_all(text.as_bytes());
    let _ = std::io::stdout().flush();
}

fn say_error(text: &str) {
    use std::io::Write;
    let _ = writeln!(std::io::stderr(), "error: {text}");
}
