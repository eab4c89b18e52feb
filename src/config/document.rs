//! The text of a configuration: what it says, and on which line a key stands.

use serde::Deserialize;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::Config;
use crate::error::Error;

/// A parsed file.
pub(super) struct Document<'a> {
    name: &'a str,
    text: &'a str,
    spans: Spanned<DeTable<'a>>,
    values: toml::Table,
}

impl<'a> Document<'a> {
    /// # Errors
    /// When the text is not TOML; with the line.
    pub(super) fn parse(name: &'a str, text: &'a str) -> Result<Self, Error> {
        let broken = |error: toml::de::Error| {
            let line = error.span().map_or(1, |span| line_of(text, span.start));
            Error::config(format!("not TOML: {}", without_values(error.message()))).at(format!("{name}, line {line}"))
        };
        let spans = DeTable::parse(text).map_err(&broken)?;
        let values = text.parse().map_err(&broken)?;
        Ok(Self { name, text, spans, values })
    }

    pub(super) fn values(&self) -> &toml::Table {
        &self.values
    }

    /// # Errors
    /// For unknown keys and values of the wrong type: the key, the line and what is allowed.
    pub(super) fn read(&self) -> Result<Config, Error> {
        toml::from_str(self.text).map_err(|error: toml::de::Error| {
            let at = error.span().map_or(0, |span| span.start);
            let key = key_at(self.spans.get_ref(), at, "").unwrap_or_default();
            let place = format!("{}, line {}", self.name, line_of(self.text, at));
            let why = without_values(error.message());
            Error::config(if key.is_empty() { why } else { format!("{key}: {why}") }).at(place)
        })
    }

    /// An error about `key`, with its line if it has one.
    pub(super) fn error_at(&self, key: &str, what: String) -> Error {
        let place = match offset_of(self.spans.get_ref(), key) {
            Some(at) => format!("{}, line {}", self.name, line_of(self.text, at)),
            None => self.name.to_owned(),
        };
        Error::config(what).at(place)
    }
}

/// Deserialises values that did not come from a text.
pub(super) fn read_values(values: toml::Table) -> Result<Config, String> {
    Config::deserialize(values).map_err(|error| without_values(error.message()))
}

fn line_of(text: &str, at: usize) -> usize {
    text.as_bytes()[..at.min(text.len())].iter().filter(|byte| **byte == b'\n').count() + 1
}

/// The innermost key whose name or value stands at `at`, such as `table[0].mode`.
fn key_at(table: &DeTable<'_>, at: usize, above: &str) -> Option<String> {
    table.iter().find_map(|(name, value)| {
        let key = if above.is_empty() { name.get_ref().to_string() } else { format!("{above}.{}", name.get_ref()) };
        let inside = match value.get_ref() {
            DeValue::Table(table) => key_at(table, at, &key),
            DeValue::Array(items) => items.iter().enumerate().find_map(|(i, item)| match item.get_ref() {
                DeValue::Table(table) => key_at(table, at, &format!("{key}[{i}]")),
                _ => None,
            }),
            _ => None,
        };
        inside.or_else(|| (name.span().contains(&at) || value.span().contains(&at)).then_some(key))
    })
}

/// Where `key` stands, or the innermost table around it that does.
fn offset_of(table: &DeTable<'_>, key: &str) -> Option<usize> {
    let (first, rest) = key.split_once('.').map_or((key, None), |(first, rest)| (first, Some(rest)));
    let (name, index) = match first.trim_end_matches(']').split_once('[') {
        Some((name, index)) => (name, index.parse::<usize>().ok()),
        None => (first, None),
    };
    let (at, value) = table.iter().find(|(n, _)| n.get_ref() == name)?;
    let value = match (index, value.get_ref()) {
        (Some(index), DeValue::Array(items)) => items.get(index)?,
        _ => value,
    };
    match (rest, value.get_ref()) {
        (Some(rest), DeValue::Table(inner)) => offset_of(inner, rest).or(Some(value.span().start)),
        (None, DeValue::Table(_)) => Some(value.span().start),
        _ => Some(at.span().start),
    }
}

/// Serde quotes the text that it did not expect; a password may stand there by mistake.
fn without_values(message: &str) -> String {
    for (quoted, plain) in [("invalid type: string \"", "a string"), ("invalid value: string \"", "this string")] {
        if message.starts_with(quoted)
            && let Some((_, expected)) = message.rsplit_once("\", expected ")
        {
            return format!("{plain} where it should be {expected}");
        }
    }
    message.trim_end().replace('\n', "; ")
}
