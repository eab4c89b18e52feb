//! Row rules of a table: which of its columns the lake gets, and which of them hashed or masked. Pure.
//!
//! The source's columns go in, as stream and chunks decode them, and the lake's come out; both go this one way, so that a
//! row is the same whichever it came by, and whoever compares the two sides goes it, too. The record key stays as it is.
//!
//! A rule that names a column which the table does not have is an error, not a rule without effect: the column may have
//! been renamed, and what it held must not reach the lake under another name.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use arrow_array::builder::StringBuilder;
use arrow_array::cast::AsArray;
use arrow_array::types::{
    Date32Type, Decimal128Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type,
    TimestampMicrosecondType,
};
use arrow_array::{Array, ArrayRef, RecordBatch, StringArray, new_null_array};
use arrow_schema::{DataType, SchemaRef};
use sha2::{Digest, Sha256};

use crate::change::ChangeBatch;
use crate::image::{Images, PartialImage};
use crate::schema::{Column, TableSchema};
use crate::value::ColumnType;

/// What is hashed in front of each value, so that nobody finds short values by trying all. Never shown.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Salt(pub String);

impl fmt::Debug for Salt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// The columns that the lake gets.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Kept {
    #[default]
    All,
    /// These, besides the record key.
    Only(Vec<String>),
    Without(Vec<String>),
}

/// What stands in place of a column's values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Masked {
    Null,
    Text(String),
}

/// The rules of one table. Columns are named as MySQL compares names: without regard to ASCII case.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RowRules {
    pub kept: Kept,
    /// Columns of whose values the lake gets SHA-256, in hexadecimal digits.
    pub hashed: Vec<String>,
    pub masked: BTreeMap<String, Masked>,
    pub salt: Salt,
}

/// Why rules do not fit a table.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RuleError {
    #[error("[[table]] {0} names column {1}, which the table does not have; take it out, or name what it has become")]
    NoColumn(&'static str, String),
    #[error("[[table]] {0} names column {1}, which is part of the record key; rows are told apart by its very values")]
    Key(&'static str, String),
    #[error("[[table]] {0} names column {1}, by which the table is partitioned")]
    Partition(&'static str, String),
    #[error("[[table]] names column {0} in more than one rule")]
    Twice(String),
    #[error("[[table]] leaves no column of the table")]
    Nothing,
}

/// The keys of the configuration, as errors name them.
const INCLUDE: &str = "include_columns";
const EXCLUDE: &str = "exclude_columns";
const HASH: &str = "hash_columns";
const MASK: &str = "mask_columns";

impl RowRules {
    /// Whether every column goes as it is.
    pub fn is_none(&self) -> bool {
        self.kept == Kept::All && self.hashed.is_empty() && self.masked.is_empty()
    }

    /// The same for the same rules: what stored rows were made by. Tells nothing of the salt.
    pub fn fingerprint(&self) -> String {
        if self.is_none() {
            return String::new();
        }
        let lower = |names: &[String]| {
            let mut names: Vec<String> = names.iter().map(|name| name.to_ascii_lowercase()).collect();
            names.sort();
            names
        };
        let kept = match &self.kept {
            Kept::All => ("all", Vec::new()),
            Kept::Only(names) => ("only", lower(names)),
            Kept::Without(names) => ("without", lower(names)),
        };
        let masked: BTreeMap<String, Option<&str>> = self
            .masked
            .iter()
            .map(|(name, masked)| {
                let text = match masked {
                    Masked::Null => None,
                    Masked::Text(text) => Some(text.as_str()),
                };
                (name.to_ascii_lowercase(), text)
            })
            .collect();
        let salt = if self.hashed.is_empty() { "" } else { &self.salt.0 };
        let all = serde_json::json!([kept, lower(&self.hashed), masked, salt]);
        hex(&Sha256::digest(all.to_string()))
    }

    /// These rules for rows with the columns of `source`; none if every column goes as it is.
    ///
    /// # Errors
    /// When they name a column that is not there, or one that must stay as it is.
    pub fn bind(&self, source: &TableSchema) -> Result<Option<BoundRules>, RuleError> {
        if self.is_none() {
            return Ok(None);
        }
        self.check(source)?;
        let named =
            |names: &[String], column: &Column| names.iter().any(|name| name.eq_ignore_ascii_case(&column.name));
        let mut taken = Vec::new();
        for (at, column) in source.columns.iter().enumerate() {
            let is_kept = match &self.kept {
                Kept::All => true,
                Kept::Only(names) => source.key.contains(&at) || named(names, column),
                Kept::Without(names) => !named(names, column),
            };
            if !is_kept {
                continue;
            }
            let masked = self.masked.iter().find(|(name, _)| name.eq_ignore_ascii_case(&column.name));
            let treatment = match masked {
                Some((_, masked)) => Treatment::Masked(masked.clone()),
                None if named(&self.hashed, column) => Treatment::Hashed,
                None => Treatment::AsItIs,
            };
            taken.push(Taken { at, treatment });
        }
        if taken.is_empty() {
            return Err(RuleError::Nothing);
        }
        let place = |at: &usize| taken.iter().position(|taken| taken.at == *at);
        let columns = taken.iter().map(|taken| taken.column(&source.columns[taken.at])).collect();
        let key = source.key.iter().filter_map(place).collect();
        let schema = TableSchema { table: source.table.clone(), columns, key, layout: source.layout.clone() };
        let (arrow, salt) = (schema.arrow(), self.salt.clone());
        Ok(Some(BoundRules { schema: Arc::new(schema), arrow, taken, salt }))
    }

    fn check(&self, source: &TableSchema) -> Result<(), RuleError> {
        let without: &[String] = if let Kept::Without(names) = &self.kept { names } else { &[] };
        let rules = [(EXCLUDE, without), (HASH, self.hashed.as_slice())];
        let of_lists = rules.into_iter().flat_map(|(rule, names)| names.iter().map(move |name| (rule, name)));
        let mut seen: Vec<usize> = Vec::new();
        for (rule, name) in of_lists.chain(self.masked.keys().map(|name| (MASK, name))) {
            let at = source.column_index(name).ok_or_else(|| RuleError::NoColumn(rule, name.clone()))?;
            if source.key.contains(&at) {
                return Err(RuleError::Key(rule, name.clone()));
            }
            self.check_partition(source, rule, name)?;
            if seen.contains(&at) {
                return Err(RuleError::Twice(name.clone()));
            }
            seen.push(at);
        }
        let Kept::Only(only) = &self.kept else { return Ok(()) };
        // One that it names and that is not there leaves nothing in the lake that should not be there.
        for partition in &source.layout.partitions {
            let at = source.column_index(&partition.column);
            let is_key = at.is_some_and(|at| source.key.contains(&at));
            if !is_key && !only.iter().any(|name| name.eq_ignore_ascii_case(&partition.column)) {
                return Err(RuleError::Partition(INCLUDE, partition.column.clone()));
            }
        }
        Ok(())
    }

    fn check_partition(&self, source: &TableSchema, rule: &'static str, name: &str) -> Result<(), RuleError> {
        let mut partitions = source.layout.partitions.iter();
        match partitions.any(|partition| partition.column.eq_ignore_ascii_case(name)) {
            true => Err(RuleError::Partition(rule, name.to_owned())),
            false => Ok(()),
        }
    }
}

/// What becomes of a column that the lake gets.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Treatment {
    AsItIs,
    Hashed,
    Masked(Masked),
}

/// A column that the lake gets, by its place among the source's.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Taken {
    at: usize,
    treatment: Treatment,
}

impl Taken {
    /// The lake's column of the source's.
    fn column(&self, source: &Column) -> Column {
        let ty = match &self.treatment {
            Treatment::AsItIs | Treatment::Masked(Masked::Null) => source.ty.clone(),
            Treatment::Hashed | Treatment::Masked(Masked::Text(_)) => ColumnType::Text,
        };
        let nullable = source.nullable || self.treatment == Treatment::Masked(Masked::Null);
        Column { name: source.name.clone(), ty, nullable }
    }
}

/// Rules of a table with the columns that it has at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BoundRules {
    schema: Arc<TableSchema>,
    arrow: SchemaRef,
    taken: Vec<Taken>,
    salt: Salt,
}

impl BoundRules {
    /// The columns that come out.
    pub fn schema(&self) -> &Arc<TableSchema> {
        &self.schema
    }

    /// The lake's rows of the source's.
    ///
    /// # Panics
    /// If `rows` have other columns than those that the rules were bound to.
    pub fn rows(&self, rows: &RecordBatch) -> RecordBatch {
        let column = |taken: &Taken| -> ArrayRef {
            let values = rows.column(taken.at);
            match &taken.treatment {
                Treatment::AsItIs => values.clone(),
                Treatment::Hashed => hashes(values, &self.salt),
                Treatment::Masked(Masked::Null) => new_null_array(values.data_type(), values.len()),
                Treatment::Masked(Masked::Text(text)) => {
                    Arc::new(StringArray::from_iter_values(std::iter::repeat_n(text, values.len())))
                }
            }
        };
        let columns = self.taken.iter().map(column).collect();
        RecordBatch::try_new(self.arrow.clone(), columns).expect("a column of the schema's type a column taken")
    }

    /// The lake's changes of the source's: rows, and which columns each of them leaves out.
    pub fn changes(&self, changes: ChangeBatch) -> ChangeBatch {
        let (rows, images) = (self.rows(&changes.rows), self.images(&changes.images, changes.ops.len()));
        ChangeBatch { schema: self.schema.clone(), rows, images, ..changes }
    }

    /// What stands in place of a value needs none.
    fn images(&self, images: &Images, rows: usize) -> Images {
        let mut taken = Images::default();
        if images.are_whole() {
            return taken;
        }
        for row in 0..rows {
            let Some(image) = images.get(row) else { continue };
            let mut of_taken = PartialImage::unknown(self.taken.len(), image.rest);
            let mut is_whole = true;
            for (place, column) in self.taken.iter().enumerate() {
                if image.knows(column.at) || matches!(column.treatment, Treatment::Masked(_)) {
                    of_taken.set_known(place);
                } else {
                    is_whole = false;
                }
            }
            if !is_whole {
                taken.note(row, of_taken);
            }
        }
        taken.note_transactions(&images.transactions());
        taken
    }
}

/// SHA-256 of the salt and each value, in hexadecimal digits; of no value none.
fn hashes(values: &ArrayRef, salt: &Salt) -> ArrayRef {
    let mut hashed = StringBuilder::with_capacity(values.len(), values.len() * 64);
    let mut bytes = Vec::new();
    for row in 0..values.len() {
        if values.is_null(row) {
            hashed.append_null();
            continue;
        }
        bytes.clear();
        bytes.extend_from_slice(salt.0.as_bytes());
        put_canonical(values, row, &mut bytes);
        hashed.append_value(hex(&Sha256::digest(&bytes)));
    }
    Arc::new(hashed.finish())
}

/// Text and binary as they are; numbers as their decimal digits, so that one is hashed alike however wide its column is, and as
/// MySQL's SHA2() of it; a date in days, a moment or a length of time in microseconds, both since 1970.
fn put_canonical(values: &ArrayRef, row: usize, bytes: &mut Vec<u8>) {
    let text = match values.data_type() {
        DataType::Utf8 => return bytes.extend_from_slice(values.as_string::<i32>().value(row).as_bytes()),
        DataType::Binary => return bytes.extend_from_slice(values.as_binary::<i32>().value(row)),
        DataType::Int8 => values.as_primitive::<Int8Type>().value(row).to_string(),
        DataType::Int16 => values.as_primitive::<Int16Type>().value(row).to_string(),
        DataType::Int32 => values.as_primitive::<Int32Type>().value(row).to_string(),
        DataType::Int64 => values.as_primitive::<Int64Type>().value(row).to_string(),
        DataType::Date32 => values.as_primitive::<Date32Type>().value(row).to_string(),
        DataType::Timestamp(..) => values.as_primitive::<TimestampMicrosecondType>().value(row).to_string(),
        DataType::Boolean => u8::from(values.as_boolean().value(row)).to_string(),
        DataType::Decimal128(..) => values.as_primitive::<Decimal128Type>().value_as_string(row),
        DataType::Float32 => values.as_primitive::<Float32Type>().value(row).to_string(),
        DataType::Float64 => values.as_primitive::<Float64Type>().value(row).to_string(),
        other => unreachable!("no source column has the Arrow type {other}"),
    };
    bytes.extend_from_slice(text.as_bytes());
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        let _ = write!(text, "{byte:02x}");
    }
    text
}

#[cfg(test)]
#[path = "rules_tests.rs"]
mod tests;
