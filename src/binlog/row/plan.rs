//! One decode step a column, resolved once a table map.

use weir_model::value::DECIMAL_PRECISION_MAX;
use weir_model::{ColumnType, TableSchema};

use super::decimal::Layout;
use super::error::RowError;
use super::value::Value;
use crate::binlog::TableMap;
use crate::binlog::charset::{BINARY_COLLATION, Charset};
use crate::binlog::table_map::{MapColumn, WireType, Writer};

/// How one column is read.
#[derive(Debug)]
pub(super) struct Step {
    pub(super) length: Length,
    pub(super) value: Value,
    pub(super) is_key: bool,
}

/// How many bytes a value has.
#[derive(Debug, Clone, Copy)]
pub(super) enum Length {
    Fixed(usize),
    /// As a little-endian number of so many bytes in front of it says.
    Prefixed(usize),
}

/// Why a column of the map cannot be read as one of the schema.
enum Problem {
    Mismatch,
    NoCharset,
    Charset(u32),
}

/// The steps for rows of `map` as rows of `schema`.
pub(super) fn steps(map: &TableMap, schema: &TableSchema) -> Result<Vec<Step>, RowError> {
    check(map, schema)?;
    let mut steps = Vec::with_capacity(map.columns.len());
    for (index, (column, expected)) in map.columns.iter().zip(&schema.columns).enumerate() {
        let in_column = || (schema.table.clone(), expected.name.clone());
        let value = resolve(column, &expected.ty).map_err(|problem| {
            let (table, name) = in_column();
            match problem {
                Problem::Mismatch => mismatch(map, schema, index),
                Problem::NoCharset => RowError::NoCharset { table, column: name },
                Problem::Charset(collation) => RowError::Charset { table, column: name, collation },
            }
        })?;
        let value = match value {
            Value::Json if map.writer == Writer::Mysql57 => Value::JsonOf57,
            value => value,
        };
        steps.push(Step { length: length(column.wire), value, is_key: schema.key.contains(&index) });
    }
    Ok(steps)
}

/// Compares what `map` says of the columns with `schema`: their number and types, and with full metadata their names,
/// signs and members, so that a schema from another moment of the binlog is never decoded with.
pub(crate) fn check(map: &TableMap, schema: &TableSchema) -> Result<(), RowError> {
    check_count(map, schema)?;
    for (index, (column, expected)) in map.columns.iter().zip(&schema.columns).enumerate() {
        if let Err(Problem::Mismatch) = resolve(column, &expected.ty) {
            return Err(mismatch(map, schema, index));
        }
    }
    if map.is_complete() {
        let described = map.schema(None)?;
        let differs = |index: &usize| {
            let (logged, expected) = (&described.columns[*index], &schema.columns[*index]);
            logged.ty != expected.ty || logged.name != expected.name
        };
        if let Some(index) = (0..schema.columns.len()).find(differs) {
            return Err(mismatch(map, schema, index));
        }
    }
    Ok(())
}

/// Compares the number of columns alone.
pub(crate) fn check_count(map: &TableMap, schema: &TableSchema) -> Result<(), RowError> {
    if map.columns.len() != schema.columns.len() || map.columns.is_empty() {
        return Err(RowError::ColumnCount {
            table: schema.table.clone(),
            logged: map.columns.len(),
            expected: schema.columns.len(),
        });
    }
    Ok(())
}

fn mismatch(map: &TableMap, schema: &TableSchema, index: usize) -> RowError {
    let column = &map.columns[index];
    let unsigned = if column.unsigned { " UNSIGNED" } else { "" };
    RowError::ColumnType {
        table: schema.table.clone(),
        column: schema.columns[index].name.clone(),
        logged: format!("{}{unsigned}, called {}", column.wire, map.column_label(index)),
        expected: format!("{:?}", schema.columns[index].ty),
    }
}

fn length(wire: WireType) -> Length {
    match wire {
        WireType::Tiny | WireType::Year => Length::Fixed(1),
        WireType::Short => Length::Fixed(2),
        WireType::Int24 | WireType::Date | WireType::OldTime => Length::Fixed(3),
        WireType::Long | WireType::Float | WireType::OldTimestamp => Length::Fixed(4),
        WireType::LongLong | WireType::Double | WireType::OldDateTime => Length::Fixed(8),
        WireType::Decimal { precision, scale } => Length::Fixed(Layout::new(precision, scale).bytes()),
        WireType::Bit { bits } => Length::Fixed(usize::from(bits.div_ceil(8))),
        WireType::Timestamp { fsp } => Length::Fixed(4 + fraction_bytes(fsp)),
        WireType::DateTime { fsp } => Length::Fixed(5 + fraction_bytes(fsp)),
        WireType::Time { fsp } => Length::Fixed(3 + fraction_bytes(fsp)),
        WireType::VarChar { bytes_max } | WireType::Char { bytes_max } => {
            Length::Prefixed(if bytes_max > 255 { 2 } else { 1 })
        }
        WireType::Enum { bytes } | WireType::Set { bytes } => Length::Fixed(usize::from(bytes)),
        WireType::Blob { length_bytes }
        | WireType::Json { length_bytes }
        | WireType::Geometry { length_bytes }
        | WireType::Vector { length_bytes } => Length::Prefixed(usize::from(length_bytes)),
        // No value is ever of it: `resolve` refuses the column.
        WireType::Compressed => Length::Fixed(0),
    }
}

/// Two digits a byte.
fn fraction_bytes(fsp: u8) -> usize {
    usize::from(fsp.div_ceil(2))
}

fn resolve(column: &MapColumn, ty: &ColumnType) -> Result<Value, Problem> {
    Ok(match (column.wire, ty) {
        (WireType::Tiny, ColumnType::Int8) => Value::Int8,
        (WireType::Tiny, ColumnType::UInt8) => Value::UInt8,
        (WireType::Short, ColumnType::Int16) => Value::Int16,
        (WireType::Short, ColumnType::UInt16) => Value::UInt16,
        (WireType::Int24, ColumnType::Int24) => Value::Int24,
        (WireType::Int24, ColumnType::UInt24) => Value::UInt24,
        (WireType::Long, ColumnType::Int32) => Value::Int32,
        (WireType::Long, ColumnType::UInt32) => Value::UInt32,
        (WireType::LongLong, ColumnType::Int64) => Value::Int64,
        (WireType::LongLong, ColumnType::UInt64) => Value::UInt64,
        (WireType::Float, ColumnType::Float) => Value::Float,
        (WireType::Double, ColumnType::Double) => Value::Double,
        (WireType::Decimal { precision, scale }, ColumnType::Decimal { precision: p, scale: s })
            if precision == *p && scale == *s =>
        {
            let layout = Layout::new(precision, scale);
            if precision <= DECIMAL_PRECISION_MAX { Value::Decimal(layout) } else { Value::DecimalText(layout) }
        }
        (WireType::Bit { bits: 1 }, ColumnType::Boolean) => Value::Boolean,
        (WireType::Bit { bits }, ColumnType::Bits(expected)) if bits == u16::from(*expected) => Value::Bytes,
        (WireType::Year, ColumnType::Year) => Value::Year,
        (WireType::Date, ColumnType::Date) => Value::Date,
        (WireType::OldTimestamp, ColumnType::Timestamp { fsp: 0 }) => Value::OldTimestamp,
        (WireType::OldDateTime, ColumnType::DateTime { fsp: 0 }) => Value::OldDateTime,
        (WireType::OldTime, ColumnType::Time { fsp: 0 }) => Value::OldTime,
        (WireType::Timestamp { fsp }, ColumnType::Timestamp { fsp: f }) if fsp == *f => Value::Timestamp,
        (WireType::DateTime { fsp }, ColumnType::DateTime { fsp: f }) if fsp == *f => Value::DateTime,
        (WireType::Time { fsp }, ColumnType::Time { fsp: f }) if fsp == *f => Value::Time,
        (WireType::VarChar { .. } | WireType::Char { .. } | WireType::Blob { .. }, ColumnType::Text) => {
            Value::Text(charset(column)?)
        }
        (WireType::Char { bytes_max }, ColumnType::Binary) if may_be_binary(column) => {
            Value::PaddedBytes(usize::from(bytes_max))
        }
        (WireType::VarChar { .. } | WireType::Blob { .. }, ColumnType::Binary) if may_be_binary(column) => Value::Bytes,
        (WireType::Enum { .. }, ColumnType::Enum(members)) => Value::Enum(members.clone()),
        (WireType::Set { .. }, ColumnType::Set(members)) if members.len() <= 64 => Value::Set(members.clone()),
        (WireType::Json { .. }, ColumnType::Json) => Value::Json,
        (WireType::Geometry { .. }, ColumnType::Geometry) => Value::Bytes,
        (WireType::Vector { .. }, ColumnType::Vector) => Value::Bytes,
        _ => return Err(Problem::Mismatch),
    })
}

fn charset(column: &MapColumn) -> Result<Charset, Problem> {
    match column.collation {
        None => Err(Problem::NoCharset),
        Some(BINARY_COLLATION) => Err(Problem::Mismatch),
        Some(id) => Charset::of_collation(id).ok_or(Problem::Charset(id)),
    }
}

fn may_be_binary(column: &MapColumn) -> bool {
    column.collation.is_none_or(|id| id == BINARY_COLLATION)
}
