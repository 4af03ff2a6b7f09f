//! Lists as CSV (RFC 4180), for spreadsheets and scripts.

use axum::response::{IntoResponse, Response};
use csv::{Terminator, WriterBuilder};
use http::header::{CONTENT_TYPE, LINK};
use http::{HeaderMap, HeaderValue};

use crate::accept::media_weight;
use crate::error::ApiError;

/// Whether the caller prefers CSV to JSON.
pub fn wants_csv(headers: &HeaderMap) -> bool {
    media_weight(headers, &["text/csv"]) > media_weight(headers, &["application/json"])
}

/// Answers with CSV: a line of the columns, then one per record. `next` is the query of the next
/// page, for the `Link` header.
pub fn csv<const N: usize>(
    columns: [&str; N],
    records: impl IntoIterator<Item = [String; N]>,
    next: Option<Vec<(&str, String)>>,
) -> Result<Response, ApiError> {
    let mut response = to_csv(columns, records)?.into_response();
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/csv; charset=utf-8; header=present"));
    if let Some(next) = next {
        let next = serde_html_form::to_string(next);
        // Relative to the request URL: only the caller knows the host name it used.
        let link = next.ok().and_then(|query| HeaderValue::from_str(&format!("<?{query}>; rel=\"next\"")).ok());
        headers.insert(LINK, link.ok_or(ApiError::Internal)?);
    }
    Ok(response)
}

fn to_csv<const N: usize>(
    columns: [&str; N],
    records: impl IntoIterator<Item = [String; N]>,
) -> Result<Vec<u8>, ApiError> {
    let mut writer = WriterBuilder::new().terminator(Terminator::CRLF).from_writer(Vec::new());
    let mut records = std::iter::once(columns.map(str::to_owned)).chain(records);
    let written = records.try_for_each(|record| writer.write_record(record.map(escape_formula)));
    let csv = written.map_err(|_| ()).and_then(|()| writer.into_inner().map_err(|_| ()));
    csv.map_err(|()| {
        // Writing to memory does not fail.
        tracing::error!("could not serialize the page as CSV");
        ApiError::Internal
    })
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
