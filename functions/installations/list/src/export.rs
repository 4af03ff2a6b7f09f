//! The installation log as CSV (RFC 4180), for spreadsheets and scripts.

use csv::{Terminator, WriterBuilder};
use shared::ApiError;

use crate::InstallationView;

/// The columns. They match the fields of the JSON.
const COLUMNS: [&str; 12] = [
    "time",
    "ecosystem",
    "package",
    "version",
    "file",
    "user_identifier",
    "token_id",
    "client",
    "client_version",
    "command",
    "session",
    "source_ip",
];

/// Serializes entries as CSV with a header line. Null becomes an empty value.
pub fn to_csv(entries: &[InstallationView]) -> Result<Vec<u8>, ApiError> {
    let mut writer = WriterBuilder::new().terminator(Terminator::CRLF).from_writer(Vec::new());
    let records = std::iter::once(COLUMNS.map(str::to_owned)).chain(entries.iter().map(record));
    let written = records.into_iter().try_for_each(|record| writer.write_record(record));
    let csv = written.map_err(|_| ()).and_then(|()| writer.into_inner().map_err(|_| ()));
    csv.map_err(|()| {
        // Writing to memory does not fail.
        tracing::error!("could not serialize the page as CSV");
        ApiError::Internal
    })
}

fn record(entry: &InstallationView) -> [String; 12] {
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    [
        entry.time.to_string(),
        entry.ecosystem.as_str().to_owned(),
        entry.package.clone(),
        entry.version.clone(),
        entry.file.clone(),
        entry.user_identifier.clone(),
        entry.token_id.to_string(),
        text(&entry.client),
        text(&entry.client_version),
        text(&entry.command),
        text(&entry.session),
        entry.source_ip.map(|ip| ip.to_string()).unwrap_or_default(),
    ]
    .map(escape_formula)
}

/// Prefixes values that a spreadsheet would run as a formula with an apostrophe: clients choose
/// some of them freely. Names such as `@scope/package` stay unchanged: their characters cannot form
/// a call or an external reference.
fn escape_formula(value: String) -> String {
    let is_name = |value: &str| value.bytes().all(|c| c.is_ascii_alphanumeric() || b"@/._+-~".contains(&c));
    if value.starts_with(['=', '+', '-', '@', '\t', '\r']) && !is_name(&value) { format!("'{value}") } else { value }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formulas_are_escaped_and_names_are_unchanged() {
        for formula in [
            "=1+1",
            "=",
            "+cmd|' /C calc'!A0",
            "-2+3+cmd|' /C calc'!A0",
            "@SUM(1+1)",
            "=HYPERLINK(\"https://example.com\",\"x\")",
            "\t=1",
        ] {
            assert_eq!(escape_formula(formula.to_owned()), format!("'{formula}"));
        }
        for name in
            ["", "@example/left-pad", "-", "-lodash", "@alice", "+81-90", "left-pad", "npm", "a=b", "'x", "1.0+local"]
        {
            assert_eq!(escape_formula(name.to_owned()), name);
        }
    }
}
