//! The table itself.

use std::fmt;

use serde::Serialize;

use crate::cli::TableCommand;
use crate::failure::Failure;
use crate::operator::Operator;

/// Does what was asked.
pub async fn run(command: TableCommand, table: &str, operator: &Operator) -> Result<(), Failure> {
    match command {
        TableCommand::Create => {
            let created = operator.store().create_table().await?;
            operator.answer(&TableView { table: table.to_owned(), created })
        }
    }
}

#[derive(Serialize)]
struct TableView {
    table: String,
    /// False where it was there before.
    created: bool,
}

impl fmt::Display for TableView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = if self.created { "Created the table" } else { "There already is a table" };
        writeln!(f, "{what} {}", self.table)
    }
}
