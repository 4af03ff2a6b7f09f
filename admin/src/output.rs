//! The only place that writes: answers to stdout, everything else to stderr.

use std::fmt::{self, Display};
use std::io::{self, Write};
use std::process::ExitCode;

use serde::Serialize;
use shared::secret::TokenKind;

/// Writes an answer. An API key may be in it, so a stdout that does not take it is an error and no panic.
pub fn answer(answer: &(impl Display + Serialize), json: bool) -> io::Result<()> {
    let text = if json { serde_json::to_string_pretty(answer)? + "\n" } else { answer.to_string() };
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    stdout.flush()
}

/// Says in one sentence why a command was not done.
pub fn failure(sentence: &str) -> ExitCode {
    // Nobody is left to be told that stderr is gone.
    let _ = writeln!(io::stderr(), "error: {}", redacted(sentence));
    ExitCode::FAILURE
}

/// Says what is wrong with the command line; or prints the help that was asked for, which clap treats alike.
pub fn usage(error: &clap::Error) -> ExitCode {
    let plain = error.render().to_string();
    let redacted = redacted(&plain);
    let _ = if redacted == plain { error.print() } else { io::stderr().write_all(redacted.as_bytes()) };
    ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2))
}

/// Takes out what looks like one of our secrets: errors repeat what was typed, and a credential pasted in the place of
/// a bot's id would end up in the logs of whatever ran us.
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

/// Writes a thing: its title, and below it a line a property.
pub fn card(f: &mut fmt::Formatter<'_>, title: &str, lines: &[(&str, String)]) -> fmt::Result {
    writeln!(f, "{title}")?;
    let width = lines.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    lines.iter().try_for_each(|(name, value)| writeln!(f, "  {name:width$}  {value}"))
}

/// Writes things as columns, with a heading; or that there are none.
pub fn table<const N: usize>(
    f: &mut fmt::Formatter<'_>,
    things: &str,
    heading: [&str; N],
    rows: &[[String; N]],
) -> fmt::Result {
    if rows.is_empty() {
        return writeln!(f, "There are no {things}.");
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
    fn no_secret_survives_and_nothing_else_is_lost() {
        for kind in TokenKind::ALL {
            let token = Token::generate(kind).unwrap();
            let text = format!("invalid value '{}:BT01' for '<BOT>': use '-- {0}'", token.expose());
            let shown = format!("{}[redacted]", kind.prefix());
            assert_eq!(redacted(&text), format!("invalid value '{shown}:BT01' for '<BOT>': use '-- {shown}'"));
        }
        assert_eq!(redacted("unexpected argument 'x' found"), "unexpected argument 'x' found");
    }
}
