//! `guardctl`: the operator's hands on the table, in AWS and locally.
//!
//! It is the only way to a first credential: nothing in the API makes organizations or bots. [`cli`] holds the
//! commands as they are typed, a module per noun what they do, [`output`] what is written, [`failure`] what goes wrong.

mod audit;
mod bot;
mod cli;
mod failure;
mod operator;
mod org;
mod output;
mod project;
mod table;
mod token;

use std::process::ExitCode;

use clap::Parser;

use crate::cli::{Cli, Command};
use crate::operator::Operator;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let parsed = Cli::try_parse().and_then(|cli| Ok((cli.required_table()?, cli)));
    let (table, cli) = match parsed {
        Ok(parsed) => parsed,
        Err(error) => return output::usage(&error),
    };
    let operator = Operator::new(&table, cli.json).await;
    let result = match cli.command {
        Command::Org(command) => org::run(command, &operator).await,
        Command::Bot(command) => bot::run(command, &operator).await,
        Command::Project(command) => project::run(command, &operator).await,
        Command::Token(command) => token::run(command, &operator).await,
        Command::Audit { since } => audit::run(since, &operator).await,
        Command::Table(command) => table::run(command, &table, &operator).await,
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => output::failure(&failure.sentence(&table)),
    }
}
