//! All output: results go to stdout, everything else to stderr.

use std::fmt::{self, Display};
use std::io::{self, Write};
use std::process::ExitCode;

use serde::Serialize;
use shared::secret::TokenKind;

/// Writes a result. It may contain an API key, so a failed write is an error, not a panic.
pub fn answer(answer: &(impl Display + Serialize), json: bool) -> io::Result<()> {
    let text = if json { serde_json::to_string_pretty(answer)? + "\n" } else { answer.to_string() };
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    stdout.flush()
}

/// Prints why a command failed.
pub fn failure(sentence: &str) -> ExitCode {
    // If stderr is closed, there is nowhere to report it.
    let _ = writeln!(io::stderr(), "error: {}", redacted(sentence));
    ExitCode::FAILURE
}

/// Prints a usage error, or the help or version: clap reports both as errors.
pub fn usage(error: &clap::Error) -> ExitCode {
    let plain = error.render().to_string();
    let redacted = redacted(&plain);
    let _ = if redacted == plain { error.print() } else { io::stderr().write_all(redacted.as_bytes()) };
    ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2))
}

/// Redacts anything that looks like a token. Errors repeat arguments, so a credential pasted as a
/// bot ID would otherwise end up in logs.
fn redacted(text: &str) -> String {
    TokenKind::ALL.iter().map(|kind| kind.prefix()).fold(text.to_owned(), |text, prefix| {
        let mut parts = text.split(prefix);
        let mut clean = parts.next().unwrap_or_default().to_owned();
        for part in parts {
            let rest = part.trim_start_matches(|c: char| c.is_ascii_alphanumeric() || c == '_');
            let secret = if rest.len() < part.len() { "[redacted]" } else { "" };
            clean.extend([prefix, secret, rest]);
        }
        clean
    })
}

/// Writes one object: a title, then one line per property.
pub fn card(f: &mut fmt::Formatter<'_>, title: &str, lines: &[(&str, String)]) -> fmt::Result {
    writeln!(f, "{title}")?;
    let width = lines.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    lines.iter().try_for_each(|(name, value)| writeln!(f, "  {name:width$}  {value}"))
}

/// Writes objects as aligned columns with a header, or says that there are none.
pub fn table<const N: usize>(
    f: &mut fmt::Formatter<'_>,
    things: &str,
    heading: [&str; N],
    rows: &[[String; N]],
) -> fmt::Result {
    if rows.is_empty() {
        return writeln!(f, "No {things} found.");
    }
    let heading = heading.map(str::to_owned);
    let rows = || std::iter::once(&heading).chain(rows);
    let widths: [usize; N] =
        std::array::from_fn(|column| rows().map(|row| row[column].chars().count()).max().unwrap_or(0));
    for row in rows() {
        let line: Vec<String> = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        writeln!(f, "{}", line.join("  ").trim_end())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use shared::secret::Token;

    use super::*;

    #[test]
    fn tokens_are_redacted_and_other_text_is_kept() {
        for kind in TokenKind::ALL {
            let token = Token::generate(kind).unwrap();
            let text = format!("invalid value '{}:BT01' for '<BOT>': use '-- {0}'", token.expose());
            let shown = format!("{}[redacted]", kind.prefix());
            assert_eq!(redacted(&text), format!("invalid value '{shown}:BT01' for '<BOT>': use '-- {shown}'"));
        }
        assert_eq!(redacted("unexpected argument 'x' found"), "unexpected argument 'x' found");
    }
}
