//! From a table map to the schema of its rows.

use weir_model::{Column, ColumnType, TableSchema};

use super::{MapColumn, Signs, TableMap, WireType};
use crate::binlog::charset::{BINARY_COLLATION, Charset};
use crate::binlog::row::{RowError, plan};

pub(super) fn described(map: &TableMap, key_names: Option<&[String]>) -> Result<TableSchema, RowError> {
    if map.signs == Signs::Unreliable {
        return Err(RowError::UnreliableSigns(map.id()));
    }
    let columns = (0..map.columns.len()).map(|index| column(map, index)).collect::<Result<_, _>>()?;
    let mut schema =
        TableSchema { table: map.id(), columns, key: map.primary_key.clone(), layout: weir_model::Layout::default() };
    if let Some(names) = key_names {
        schema.key = names
            .iter()
            .map(|name| {
                schema.column_index(name).ok_or_else(|| RowError::KeyColumn { table: map.id(), column: name.clone() })
            })
            .collect::<Result<_, _>>()?;
    }
    Ok(schema)
}

pub(super) fn from_catalogue(map: &TableMap, catalogue: &TableSchema) -> Result<TableSchema, RowError> {
    let schema = TableSchema { table: map.id(), ..catalogue.clone() };
    plan::check(map, &schema)?;
    Ok(schema)
}

fn column(map: &TableMap, index: usize) -> Result<Column, RowError> {
    let column = &map.columns[index];
    let name = column.name.clone().ok_or_else(|| RowError::NoNames(map.id()))?;
    Ok(Column { name, ty: column_type(map, index, column)?, nullable: column.nullable })
}

fn column_type(map: &TableMap, index: usize, column: &MapColumn) -> Result<ColumnType, RowError> {
    let integer = |signed, unsigned| if column.unsigned { unsigned } else { signed };
    Ok(match column.wire {
        WireType::Tiny => integer(ColumnType::Int8, ColumnType::UInt8),
        WireType::Short => integer(ColumnType::Int16, ColumnType::UInt16),
        WireType::Int24 => integer(ColumnType::Int24, ColumnType::UInt24),
        WireType::Long => integer(ColumnType::Int32, ColumnType::UInt32),
        WireType::LongLong => integer(ColumnType::Int64, ColumnType::UInt64),
        WireType::Float => ColumnType::Float,
        WireType::Double => ColumnType::Double,
        WireType::Decimal { precision, scale } => ColumnType::Decimal { precision, scale },
        WireType::Bit { bits: 1 } => ColumnType::Boolean,
        WireType::Bit { bits } => ColumnType::Bits(bits as u8),
        WireType::Year => ColumnType::Year,
        WireType::Date => ColumnType::Date,
        WireType::OldTimestamp => ColumnType::Timestamp { fsp: 0 },
        WireType::OldDateTime => ColumnType::DateTime { fsp: 0 },
        WireType::OldTime => ColumnType::Time { fsp: 0 },
        WireType::Timestamp { fsp } => ColumnType::Timestamp { fsp },
        WireType::DateTime { fsp } => ColumnType::DateTime { fsp },
        WireType::Time { fsp } => ColumnType::Time { fsp },
        WireType::VarChar { .. } | WireType::Char { .. } | WireType::Blob { .. } => match column.collation {
            Some(BINARY_COLLATION) => ColumnType::Binary,
            Some(_) => ColumnType::Text,
            None => return Err(RowError::NoCharset { table: map.id(), column: map.column_label(index) }),
        },
        WireType::Enum { .. } => ColumnType::Enum(members(map, index, column)?),
        WireType::Set { .. } => ColumnType::Set(members(map, index, column)?),
        WireType::Json { .. } => ColumnType::Json,
        WireType::Geometry { .. } => ColumnType::Geometry,
        WireType::Vector { .. } => ColumnType::Vector,
        WireType::Compressed => {
            return Err(RowError::Compressed { table: map.id(), column: map.column_label(index) });
        }
    })
}

/// Members are written in the column's character set; those of a binary column are shown as they are.
fn members(map: &TableMap, index: usize, column: &MapColumn) -> Result<Vec<String>, RowError> {
    const UTF8MB4: u32 = 45;
    let Some(collation) = column.collation else {
        return Err(RowError::NoCharset { table: map.id(), column: map.column_label(index) });
    };
    let Some(charset) = Charset::of_collation(if collation == BINARY_COLLATION { UTF8MB4 } else { collation }) else {
        return Err(RowError::Charset { table: map.id(), column: map.column_label(index), collation });
    };
    let mut scratch = String::new();
    let decode = |member: &Vec<u8>| charset.decode(member, &mut scratch).map(str::to_owned);
    let decoded: Result<_, _> = column.members.iter().map(decode).collect();
    decoded.map_err(|source| RowError::Members { table: map.id(), column: map.column_label(index), source })
}
