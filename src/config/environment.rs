//! Variables of the form `WEIR_SECTION__KEY`, each of which overrides one key.

use std::collections::BTreeMap;

use super::Config;
use super::document::{Document, read_values};
use crate::error::Error;

/// Holds the source's password, wherever else one may stand.
pub(super) const PASSWORD: &str = "WEIR_SOURCE_PASSWORD";
/// Holds the password of the trace's server.
pub(super) const TRACE_PASSWORD: &str = "WEIR_TRACE_PASSWORD";

/// Holds the salt of `hash_columns`, wherever else one may stand.
pub(super) const HASH_SALT: &str = "WEIR_HASH_SALT";

/// One variable.
#[derive(Debug)]
pub(super) struct Override {
    pub(super) variable: String,
    /// `section.key`, lower case.
    pub(super) key: String,
    value: String,
}

/// The variables that override keys: those with a double underscore.
pub(super) fn overrides(environment: &BTreeMap<String, String>) -> Vec<Override> {
    let key_of = |variable: &str| {
        let rest = variable.strip_prefix("WEIR_")?;
        rest.contains("__").then(|| rest.to_ascii_lowercase().replace("__", "."))
    };
    let found = environment.iter().filter_map(|(variable, value)| {
        Some(Override { variable: variable.clone(), key: key_of(variable)?, value: value.clone() })
    });
    found.collect()
}

/// What the document says, with every override.
pub(super) fn apply(document: &Document<'_>, overrides: &[Override]) -> Result<Config, Error> {
    let mut config = document.read()?;
    let mut values = document.values().clone();
    for of_key in overrides {
        (values, config) = apply_one(&values, of_key)?;
    }
    Ok(config)
}

/// A variable is text; what the key wants decides how it is read.
fn apply_one(values: &toml::Table, of_key: &Override) -> Result<(toml::Table, Config), Error> {
    let mut why = String::new();
    for candidate in readings(&of_key.value) {
        let mut values = values.clone();
        set(&mut values, &of_key.key, candidate);
        match read_values(values.clone()) {
            Ok(config) => return Ok((values, config)),
            Err(error) => why = error,
        }
    }
    Err(Error::config(format!("{}: {why}", of_key.key)).at(format!("variable {}", of_key.variable)))
}

/// The ways to read a variable, the likeliest last, since its error is the one that is told.
fn readings(text: &str) -> Vec<toml::Value> {
    let mut readings = vec![toml::Value::String(text.to_owned())];
    match format!("value = {text}").parse::<toml::Table>() {
        Ok(mut table) => readings.extend(table.remove("value")),
        Err(_) => {
            let items = text.split(',').map(|item| toml::Value::String(item.trim().to_owned())).collect();
            readings.insert(0, toml::Value::Array(items));
        }
    }
    readings
}

fn set(table: &mut toml::Table, key: &str, value: toml::Value) {
    match key.split_once('.') {
        None => {
            table.insert(key.to_owned(), value);
        }
        Some((section, rest)) => {
            let inner = table.entry(section).or_insert_with(|| toml::Value::Table(toml::Table::new()));
            match inner {
                toml::Value::Table(inner) => set(inner, rest, value),
                // Not a table: let the reader say that a key stands where none can.
                other => {
                    let mut wrong = toml::Table::new();
                    wrong.insert(rest.to_owned(), value);
                    *other = toml::Value::Table(wrong);
                }
            }
        }
    }
}
