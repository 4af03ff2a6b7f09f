//! `guardctl`: manages the tokens table directly, in AWS and locally.
//!
//! The API cannot create organizations or bots, so the first credential always comes from here.
//! [`cli`] defines the commands, one module per noun runs them, [`output`] writes results,
//! [`failure`] explains errors.

mod audit;
mod bot;
mod cli;
mod failure;
mod member;
mod migrate;
mod operator;
mod org;
mod output;
mod project;
mod registration;
mod table;
mod token;
mod trust;

use std::process::ExitCode;

use clap::Parser;

use crate::cli::{Cli, Command};
use crate::operator::Operator;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let parsed = Cli::try_parse().and_then(|cli| {
        cli.check()?;
        Ok((cli.required_table()?, cli))
    });
    let (table, cli) = match parsed {
        Ok(parsed) => parsed,
        Err(error) => return output::usage(&error),
    };
    let operator = Operator::new(&table, cli.json).await;
    let result = match cli.command {
        Command::Org(command) => org::run(command, &operator).await,
        Command::Bot(command) => bot::run(command, &operator).await,
        Command::Member(command) => member::run(command, &operator).await,
        Command::Project(command) => project::run(command, &operator).await,
        Command::Token(command) => token::run(command, &operator).await,
        Command::Registration { setting } => registration::run(setting, &operator).await,
        Command::Audit { since } => audit::run(since, &operator).await,
        Command::Migrate => migrate::run(&operator).await,
        Command::Table(command) => table::run(command, &table, &operator).await,
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => output::failure(&failure.sentence(&table)),
    }
}
