//! Tables of the source.

use std::fmt;
use std::sync::Arc;

use arrow_schema::{DataType, Field, Schema, SchemaRef};
use serde::{Deserialize, Serialize};

use crate::layout::{Layout, Transform};
use crate::value::ColumnType;

/// A table of the source, by database and name as MySQL spells them.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TableId {
    pub database: Arc<str>,
    pub table: Arc<str>,
}

impl TableId {
    pub fn new(database: &str, table: &str) -> Self {
        Self { database: database.into(), table: table.into() }
    }

    /// `` `database`.`table` `` for SQL, backticks doubled.
    pub fn quoted(&self) -> String {
        format!("{}.{}", quote_identifier(&self.database), quote_identifier(&self.table))
    }
}

/// A MySQL identifier between backticks, inner ones doubled.
pub fn quote_identifier(name: &str) -> String {
    format!("`{}`", name.replace('`', "``"))
}

/// Each byte outside `[A-Za-z0-9_-]` as `_xHH`, and a literal `_x` as `_x5fx`: a name that folders of the lake and Kafka's
/// topics can have.
pub fn escape_name(name: &str) -> String {
    let bytes = name.as_bytes();
    let mut escaped = String::with_capacity(name.len());
    for (i, byte) in bytes.iter().enumerate() {
        match byte {
            b'_' if bytes.get(i + 1) == Some(&b'x') => escaped.push_str("_x5f"),
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-' => escaped.push(char::from(*byte)),
            other => escaped.push_str(&format!("_x{other:02x}")),
        }
    }
    escaped
}

/// The name that [`escape_name`] made `escaped` of; `None` if it made no such text.
pub fn unescape_name(escaped: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(escaped.len());
    let mut rest = escaped;
    while let Some(at) = rest.find("_x") {
        bytes.extend_from_slice(&rest.as_bytes()[..at]);
        let digits = rest.get(at + 2..at + 4)?;
        bytes.push(u8::from_str_radix(digits, 16).ok()?);
        rest = &rest[at + 4..];
    }
    bytes.extend_from_slice(rest.as_bytes());
    let name = String::from_utf8(bytes).ok()?;
    (escape_name(&name) == escaped).then_some(name)
}

impl fmt::Display for TableId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.database, self.table)
    }
}

impl TryFrom<String> for TableId {
    type Error = String;

    /// `database.table`; the first dot divides.
    fn try_from(text: String) -> Result<Self, String> {
        match text.split_once('.') {
            Some((database, table)) if !database.is_empty() && !table.is_empty() => Ok(Self::new(database, table)),
            _ => Err(format!("`{text}` is not database.table")),
        }
    }
}

impl From<TableId> for String {
    fn from(id: TableId) -> String {
        id.to_string()
    }
}

/// A column of the source, in the table's order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Column {
    pub name: String,
    #[serde(rename = "type")]
    pub ty: ColumnType,
    pub nullable: bool,
}

/// A table's columns and its record key at one moment of the binlog.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableSchema {
    pub table: TableId,
    pub columns: Vec<Column>,
    /// Indexes into `columns` of the record key, in key order; empty for a table without one.
    pub key: Vec<usize>,
    /// How the lake keeps it; the default in what comes from the source, which knows nothing of it.
    #[serde(default, skip_serializing_if = "Layout::is_default")]
    pub layout: Layout,
}

/// Column of the order's milliseconds in every lake table.
pub const TS_COLUMN: &str = "_weir_ts_ms";
/// Column of the order's counter in every lake table.
pub const SEQ_COLUMN: &str = "_weir_seq";
/// Column of a change's operation in tables that are appended to: `r`, `c`, `u` or `d`.
pub const OP_COLUMN: &str = "_weir_op";
/// Column of a change's id in tables that are appended to.
pub const ID_COLUMN: &str = "_weir_id";
/// Column that says of a row that the source has deleted it, in tables whose deletes are soft.
pub const DELETED_COLUMN: &str = "_weir_deleted";
/// Names that begin so are ours; a source column may not.
pub const META_PREFIX: &str = "_weir";

impl TableSchema {
    /// The source's columns as Arrow fields. All nullable: a zero date becomes NULL, a dropped column goes on as NULL.
    pub fn arrow(&self) -> SchemaRef {
        Arc::new(Schema::new(self.columns.iter().map(|c| Field::new(&c.name, c.ty.arrow(), true)).collect::<Vec<_>>()))
    }

    /// The lake table's columns: the source's, the partitions' that are made of others, then our own.
    pub fn lake_arrow(&self) -> SchemaRef {
        let source = self.columns.iter().map(|c| Field::new(&c.name, c.ty.arrow(), true));
        Arc::new(Schema::new(source.chain(self.added_fields()).collect::<Vec<_>>()))
    }

    /// What a data file holds: the lake table's columns but for those that its place in a partition tells.
    pub fn file_arrow(&self) -> SchemaRef {
        let lake = self.lake_arrow();
        if self.layout.partitions.is_empty() {
            return lake;
        }
        let told = |name: &str| self.layout.partitions.iter().any(|p| p.name.eq_ignore_ascii_case(name));
        Arc::new(Schema::new(lake.fields().iter().filter(|field| !told(field.name())).cloned().collect::<Vec<_>>()))
    }

    /// The lake table's columns behind the source's.
    pub fn added_fields(&self) -> Vec<Field> {
        let made = self.layout.partitions.iter().filter_map(|p| Some(Field::new(&p.name, p.transform.arrow()?, true)));
        let mut fields: Vec<Field> = made.collect();
        fields.push(Field::new(TS_COLUMN, DataType::Int64, true));
        fields.push(Field::new(SEQ_COLUMN, DataType::Int64, true));
        if self.layout.is_append() {
            fields.push(Field::new(OP_COLUMN, DataType::Utf8, true));
            fields.push(Field::new(ID_COLUMN, DataType::Utf8, true));
        }
        if self.layout.deletes_softly() {
            fields.push(Field::new(DELETED_COLUMN, DataType::Boolean, true));
        }
        fields
    }

    /// Index of the column called `name`, compared as MySQL does: without regard to ASCII case.
    pub fn column_index(&self, name: &str) -> Option<usize> {
        self.columns.iter().position(|c| c.name.eq_ignore_ascii_case(name))
    }

    /// Whether `name` is that of a partition column made of another.
    pub(crate) fn makes(&self, name: &str) -> bool {
        let mut made = self.layout.partitions.iter().filter(|p| p.transform != Transform::Identity);
        made.any(|partition| partition.name.eq_ignore_ascii_case(name))
    }

    /// Names of the record key's columns, in key order.
    pub fn key_names(&self) -> Vec<&str> {
        self.key.iter().map(|&i| self.columns[i].name.as_str()).collect()
    }

    /// The record key's columns, in key order.
    pub fn key_columns(&self) -> Vec<Column> {
        self.key.iter().map(|&i| self.columns[i].clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_are_quoted_with_doubled_backticks() {
        assert_eq!(TableId::new("a`b", "c").quoted(), "`a``b`.`c`");
    }
}
