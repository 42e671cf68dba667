//! Forms of a command's result: text, JSON, YAML, quiet.

use std::io::{IsTerminal, Write};

use clap::ValueEnum;
use serde::Serialize;

use cluster::ClusterError;

/// The form of a command's result.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    /// For people.
    #[default]
    Text,
    Json,
    Yaml,
}

/// How much is said.
pub(super) struct Output {
    pub(super) quiet: bool,
}

impl Output {
    /// Prints what the command is for, such as a list: asking for quiet does not take it away.
    pub(super) fn told<T: Serialize>(
        format: Format,
        value: &T,
        text: impl FnOnce() -> String,
    ) -> anyhow::Result<()> {
        Self { quiet: false }.result(format, value, text)
    }

    /// Prints a result: as data, or as the text for people, which `quiet` leaves out.
    pub(super) fn result<T: Serialize>(
        &self,
        format: Format,
        value: &T,
        text: impl FnOnce() -> String,
    ) -> anyhow::Result<()> {
        match format {
            Format::Json => print(&format!("{}\n", serde_json::to_string_pretty(value)?)),
            Format::Yaml => print(&serde_yaml::to_string(value)?),
            Format::Text if self.quiet => Ok(()),
            Format::Text => print(&text()),
        }
    }
}

/// Writes to standard output; a reader that went away (`| head`) is no error.
pub(super) fn print(text: &str) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}

/// `warning: ...`: worth knowing, and stops nothing.
pub(super) fn warn(text: &str) {
    // Where standard error is closed there is nobody to tell.
    let _ = writeln!(std::io::stderr(), "warning: {text}");
}

/// A plain table: columns as wide as their widest cell, two spaces between.
pub(super) fn table(head: &[&str], rows: &[Vec<String>]) -> String {
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count());
        cells.chain([head[column].len()]).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let line = |cells: Vec<&str>| {
        let padded: Vec<String> =
            cells.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        format!("{}\n", padded.join("  ").trim_end())
    };
    let mut text = line(head.to_vec());
    rows.iter().for_each(|row| text.push_str(&line(row.iter().map(String::as_str).collect())));
    text
}

/// `error: ...`, the last lines of the node to blame, `hint: ...`.
pub(super) fn print_error(error: &anyhow::Error) {
    let colour = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let paint = |code: &str, word: &str| match colour {
        true => format!("\u{1b}[{code}m{word}\u{1b}[0m"),
        false => word.to_owned(),
    };
    let mut text = format!("{} {error:#}\n", paint("1;31", "error:"));
    if let Some(error) = error.downcast_ref::<ClusterError>() {
        if let Some((node, lines)) = error.log().filter(|(_, lines)| !lines.is_empty()) {
            text.push_str(&format!("  last lines of {node}:\n"));
            lines.iter().for_each(|line| text.push_str(&format!("    {line}\n")));
        }
        if let Some(hint) = error.hint() {
            text.push_str(&format!("{} {hint}\n", paint("1;36", "hint:")));
        }
    }
    // Where standard error is closed there is nobody to tell.
    let _ = std::io::stderr().write_all(text.as_bytes());
}

/// What the libraries say goes to standard error, when `RUST_LOG` asks for it.
pub(super) fn log_to_stderr() {
    use tracing_subscriber::EnvFilter;
    if std::env::var_os("RUST_LOG").is_some() {
        tracing_subscriber::fmt()
            .with_env_filter(EnvFilter::from_default_env())
            .with_writer(std::io::stderr)
            .init();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_line_up() {
        let rows =
            vec![vec!["a".to_owned(), "long value".to_owned()], vec!["bcdef".to_owned(), String::new()]];
        assert_eq!(table(&["NAME", "X"], &rows), "NAME   X\na      long value\nbcdef\n");
    }
}
