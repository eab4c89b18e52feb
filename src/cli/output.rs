//! How data is printed: as a table for people or as JSON for programs.

use std::io::Write;

use clap::{Args, ValueEnum};
use comfy_table::Table;
use comfy_table::presets::NOTHING;
use serde::Serialize;

use crate::error::Error;

/// `--format` of the commands that print data.
#[derive(Debug, Clone, Copy, Args)]
pub(super) struct Output {
    /// How to print.
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    Table,
    Json,
}

impl Output {
    /// Whether a program reads what is printed.
    pub(super) fn is_json(self) -> bool {
        self.format == Format::Json
    }

    /// Prints `data`: as JSON, or as what `table` makes of it.
    pub(super) fn print<T: Serialize>(self, data: &T, table: impl FnOnce(&T) -> String) -> Result<(), Error> {
        match self.format {
            Format::Json => print(&serde_json::to_string_pretty(data).map_err(|e| Error::failed(e.to_string()))?),
            Format::Table => print(&table(data)),
        }
    }
}

/// Writes text and a line end to stdout; a reader that has gone away is no error.
pub(super) fn print(text: &str) -> Result<(), Error> {
    print_on(text).map(|_| ())
}

/// The same; false if the reader has gone away, for those who print again and again.
pub(super) fn print_on(text: &str) -> Result<bool, Error> {
    match writeln!(std::io::stdout().lock(), "{text}") {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(Error::failed("stdout cannot be written").because(error)),
    }
}

/// Rows under a header.
pub(super) fn table(header: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_preset(NOTHING).set_header(header);
    for row in rows {
        table.add_row(row);
    }
    table.to_string()
}
