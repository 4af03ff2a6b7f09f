//! The `table` commands.

use std::fmt;

use serde::Serialize;

use crate::cli::TableCommand;
use crate::failure::Failure;
use crate::operator::Operator;

/// Runs a `table` command.
pub async fn run(command: TableCommand, table: &str, operator: &Operator) -> Result<(), Failure> {
    match command {
        TableCommand::Create { installations_table } => {
            let store = operator.store();
            let mut tables = vec![TableView { table: table.to_owned(), created: store.create_table().await? }];
            if let Some(table) = installations_table {
                let created = store.installation_log(&table).create_table().await?;
                tables.push(TableView { table, created });
            }
            operator.answer(&TablesView { tables })
        }
    }
}

#[derive(Serialize)]
struct TablesView {
    tables: Vec<TableView>,
}

impl fmt::Display for TablesView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.tables.iter().try_for_each(|table| table.fmt(f))
    }
}

#[derive(Serialize)]
struct TableView {
    table: String,
    /// False if the table already existed.
    created: bool,
}

impl fmt::Display for TableView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.created {
            writeln!(f, "Created table {}", self.table)
        } else {
            writeln!(f, "Table {} already exists", self.table)
        }
    }
}
