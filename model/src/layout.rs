//! How a lake table keeps what it mirrors: what a row stands for, what a delete leaves, how files are laid out.

use std::fmt;
use std::str::FromStr;

use arrow_schema::DataType;
use serde::{Deserialize, Serialize};

/// What is decided about a lake table when it is created, and stays.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Layout {
    pub mode: TableMode,
    pub storage: Storage,
    pub deletes: Deletes,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub partitions: Vec<Partition>,
}

/// What a row of the lake table stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TableMode {
    /// A row of the source.
    #[default]
    Upsert,
    /// A change, with its operation.
    Append,
}

/// What becomes of a data file when some of its rows change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Storage {
    /// A deletion vector marks them.
    #[default]
    MergeOnRead,
    /// The file is written again without them, for readers that know no deletion vectors.
    CopyOnWrite,
}

/// What a delete at the source leaves in the lake.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Deletes {
    /// Nothing.
    #[default]
    Hard,
    /// The row, with `_weir_deleted` set.
    Soft,
}

/// A column that files are partitioned by: one of the source's, or one made of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Partition {
    /// Name of the partition column.
    pub name: String,
    /// The source's column that it is made of.
    pub column: String,
    pub transform: Transform,
}

/// How a partition's value follows from a column's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transform {
    /// The value itself: a date, an integer or a text.
    Identity,
    /// A number, such as 2026.
    Year,
    /// A text, such as `2026-11`.
    Month,
    /// A date.
    Day,
    /// A text, such as `2026-11-21-03`.
    Hour,
    /// The value's hash modulo so many.
    Bucket(u32),
}

impl Layout {
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }

    pub fn is_append(&self) -> bool {
        self.mode == TableMode::Append
    }

    pub fn deletes_softly(&self) -> bool {
        self.deletes == Deletes::Soft
    }

    pub fn copies_on_write(&self) -> bool {
        self.storage == Storage::CopyOnWrite
    }
}

impl Transform {
    /// Type of the column that it makes; `None` where the column is the source's own.
    pub fn arrow(self) -> Option<DataType> {
        match self {
            Self::Identity => None,
            Self::Year | Self::Bucket(_) => Some(DataType::Int32),
            Self::Month | Self::Hour => Some(DataType::Utf8),
            Self::Day => Some(DataType::Date32),
        }
    }
}

impl FromStr for Partition {
    type Err = String;

    /// `column`, or `name = transform(column)`, or `name = bucket(n, column)`.
    fn from_str(text: &str) -> Result<Self, String> {
        let usage = || {
            format!(
                "`{text}` is neither a column nor name = year|month|day|hour(column) nor name = bucket(count, column)"
            )
        };
        let is_name = |name: &str| !name.is_empty() && !name.contains(['(', ')', '=', ',']);
        let Some((name, call)) = text.split_once('=') else {
            let column = text.trim();
            let partition = Self { name: column.into(), column: column.into(), transform: Transform::Identity };
            return if is_name(column) { Ok(partition) } else { Err(usage()) };
        };
        let (function, arguments) = call.trim().strip_suffix(')').and_then(|c| c.split_once('(')).ok_or_else(usage)?;
        let arguments: Vec<&str> = arguments.split(',').map(str::trim).collect();
        let (transform, column) = match (function.trim(), &arguments[..]) {
            ("year", [column]) => (Transform::Year, column),
            ("month", [column]) => (Transform::Month, column),
            ("day", [column]) => (Transform::Day, column),
            ("hour", [column]) => (Transform::Hour, column),
            ("bucket", [count, column] | [column, count]) if count.parse::<u32>().is_ok_and(|count| count > 0) => {
                (Transform::Bucket(count.parse().map_err(|_| usage())?), column)
            }
            _ => return Err(usage()),
        };
        let (name, column) = (name.trim().to_owned(), (*column).to_owned());
        if is_name(&name) && is_name(&column) { Ok(Self { name, column, transform }) } else { Err(usage()) }
    }
}

impl fmt::Display for Partition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, column, transform } = self;
        match transform {
            Transform::Identity => f.write_str(column),
            Transform::Year => write!(f, "{name} = year({column})"),
            Transform::Month => write!(f, "{name} = month({column})"),
            Transform::Day => write!(f, "{name} = day({column})"),
            Transform::Hour => write!(f, "{name} = hour({column})"),
            Transform::Bucket(count) => write!(f, "{name} = bucket({count}, {column})"),
        }
    }
}

impl TryFrom<String> for Partition {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Partition> for String {
    fn from(partition: Partition) -> String {
        partition.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partition_is_written_as_it_is_read() {
        for text in
            ["region", "d = day(created_at)", "m = month(c)", "y = year(c)", "h = hour(c)", "b = bucket(16, id)"]
        {
            let partition: Partition = text.parse().unwrap();
            assert_eq!(partition.to_string(), text);
        }
        let either_way: Partition = "b=bucket( id , 16 )".parse().unwrap();
        assert_eq!(either_way.to_string(), "b = bucket(16, id)");
    }

    #[test]
    fn what_is_no_partition_is_refused() {
        for text in ["", "a = ", "a = day()", "a = week(c)", "= day(c)", "b = bucket(0, c)", "b = bucket(c)", "day(c)"]
        {
            assert!(text.parse::<Partition>().is_err(), "{text}");
        }
    }
}
