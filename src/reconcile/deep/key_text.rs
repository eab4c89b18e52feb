//! A record key's values back from its canonical bytes: as MySQL is asked for them, and as people are shown them. Pure.

use std::fmt;

use arrow_schema::DataType;
use serde::{Serialize, Serializer};
use serde_json::Value;
use snapshot_loader::KeyValue;
use snapshot_loader::key_value::{date_of, decimal_of, moment_of, time_of};
use weir_model::ColumnType;
use weir_model::key::KeyRef;
use weir_model::key_parts::{KeyPart, key_parts};

use super::columns::SharedColumns;

/// What the columns of a table's record key are.
#[derive(Debug, Clone)]
pub struct KeyShape {
    columns: Vec<KeyColumn>,
}

#[derive(Debug, Clone)]
struct KeyColumn {
    name: String,
    /// The source's, which decides how a value is written.
    source: ColumnType,
    /// That of the canonical form.
    arrow: DataType,
}

/// A record key for people and programs: a JSON object, by column in key order. Binary is hexadecimal digits, decimals and
/// integers beyond 2^53 are text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShownKey(pub Vec<(String, Value)>);

impl Serialize for ShownKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(name, value)| (name, value)))
    }
}

impl fmt::Display for ShownKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&serde_json::to_string(self).expect("a key is plain data"))
    }
}

/// Integers beyond this are not what every reader of JSON makes of them.
const JSON_INTEGER_MAX: u128 = 1 << 53;

impl KeyShape {
    pub fn of(columns: &SharedColumns) -> Self {
        let column = |(column, ty): (&weir_model::Column, &ColumnType)| KeyColumn {
            name: column.name.clone(),
            source: column.ty.clone(),
            arrow: ty.arrow(),
        };
        Self { columns: columns.key().map(column).collect() }
    }

    /// The values to look a key up by at the source; `None` for one that the source cannot have.
    pub fn values(&self, key: KeyRef<'_>) -> Option<Vec<KeyValue>> {
        self.parts(key)
            .into_iter()
            .zip(&self.columns)
            .map(|(part, column)| KeyValue::from_part(part, &column.source))
            .collect()
    }

    pub fn shown(&self, key: KeyRef<'_>) -> ShownKey {
        let parts = self.parts(key).into_iter().zip(&self.columns);
        ShownKey(parts.map(|(part, column)| (column.name.clone(), column.json(part))).collect())
    }

    fn parts(&self, key: KeyRef<'_>) -> Vec<KeyPart> {
        let types: Vec<&DataType> = self.columns.iter().map(|column| &column.arrow).collect();
        key_parts(key, &types)
    }
}

impl KeyColumn {
    fn json(&self, part: KeyPart) -> Value {
        match part {
            KeyPart::Integer(value) => match &self.source {
                ColumnType::Date => date_of(value).unwrap_or_else(|| format!("day {value}")).into(),
                ColumnType::DateTime { .. } | ColumnType::Timestamp { .. } => {
                    let zone = if matches!(self.source, ColumnType::Timestamp { .. }) { "Z" } else { "" };
                    moment_of(value, 'T').map_or_else(|| format!("microsecond {value}"), |at| at + zone).into()
                }
                ColumnType::Time { .. } => time_of(value).into(),
                ColumnType::Boolean => (value != 0).into(),
                _ if value.unsigned_abs() > JSON_INTEGER_MAX => value.to_string().into(),
                _ => Value::from(value as i64),
            },
            KeyPart::Decimal { unscaled, scale } => decimal_of(unscaled, scale).into(),
            KeyPart::Float(value) => value.into(),
            KeyPart::Bytes(bytes) => hex(&bytes).into(),
            KeyPart::Text(text) => text.into(),
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow_array::{
        ArrayRef, BinaryArray, Date32Array, Decimal128Array, Float64Array, Int64Array, RecordBatch, StringArray,
        TimestampMicrosecondArray,
    };
    use weir_model::{Column, Layout, RecordKeys, TableId, TableSchema};

    use super::*;

    #[test]
    fn a_key_that_only_the_lake_can_have_is_shown_and_not_looked_up() {
        let column = |source: ColumnType, arrow| KeyColumn { name: "k".into(), source, arrow };
        let day = column(ColumnType::Date, DataType::Date32);
        let value = |column: &KeyColumn, part| KeyValue::from_part(part, &column.source);
        assert_eq!(
            (value(&day, KeyPart::Integer(9_999_999)), day.json(KeyPart::Integer(9_999_999))),
            (None, "day 9999999".into())
        );
        let time = column(ColumnType::Time { fsp: 0 }, DataType::Int64);
        // One microsecond beyond 838:59:59.
        assert_eq!(value(&time, KeyPart::Integer((838 * 3_600 + 59 * 60 + 59) * 1_000_000 + 1)), None);
        assert_eq!(value(&column(ColumnType::Double, DataType::Float64), KeyPart::Float(f64::NAN)), None);
    }

    #[test]
    fn a_key_is_shown_and_looked_up_as_what_it_is() {
        let columns: Vec<(&str, ColumnType, ArrayRef)> = vec![
            ("n", ColumnType::Int64, Arc::new(Int64Array::from(vec![-5]))),
            (
                "big",
                ColumnType::UInt64,
                Arc::new(Decimal128Array::from(vec![i128::from(u64::MAX)]).with_precision_and_scale(20, 0).unwrap()),
            ),
            (
                "price",
                ColumnType::Decimal { precision: 9, scale: 3 },
                Arc::new(Decimal128Array::from(vec![-7]).with_precision_and_scale(9, 3).unwrap()),
            ),
            ("f", ColumnType::Double, Arc::new(Float64Array::from(vec![-0.5]))),
            ("day", ColumnType::Date, Arc::new(Date32Array::from(vec![-1]))),
            ("at", ColumnType::DateTime { fsp: 6 }, Arc::new(TimestampMicrosecondArray::from(vec![-1]))),
            ("took", ColumnType::Time { fsp: 0 }, Arc::new(Int64Array::from(vec![-36_000_500_000]))),
            ("name", ColumnType::Text, Arc::new(StringArray::from(vec!["a\0é"]))),
            ("raw", ColumnType::Binary, Arc::new(BinaryArray::from(vec![&[0_u8, 255, 0][..]]))),
        ];
        let schema = TableSchema {
            table: TableId::new("shop", "orders"),
            columns: columns
                .iter()
                .map(|(name, ty, _)| Column { name: (*name).into(), ty: ty.clone(), nullable: false })
                .collect(),
            key: (0..columns.len()).collect(),
            layout: Layout::default(),
        };
        let rows = RecordBatch::try_from_iter(columns.into_iter().map(|(name, _, values)| (name, values))).unwrap();
        let keys = RecordKeys::of(&rows, &schema.key_names()).unwrap();
        let shape = KeyShape::of(&SharedColumns::of(&schema, &schema).unwrap());
        insta::assert_snapshot!(serde_json::to_string(&shape.shown(keys.get(0))).unwrap(), @r#"{"n":-5,"big":"18446744073709551615","price":"-0.007","f":-0.5,"day":"1969-12-31","at":"1969-12-31T23:59:59.999999","took":"-10:00:00.500000","name":"a\u0000é","raw":"00ff00"}"#);
        assert_eq!(
            shape.values(keys.get(0)).unwrap(),
            [
                KeyValue::Int(-5),
                KeyValue::UInt(u64::MAX),
                KeyValue::Number("-0.007".into()),
                KeyValue::Number("-5e-1".into()),
                KeyValue::Temporal("1969-12-31".into()),
                KeyValue::Temporal("1969-12-31 23:59:59.999999".into()),
                KeyValue::Temporal("-10:00:00.500000".into()),
                KeyValue::Text("a\0é".into()),
                KeyValue::Bytes("00FF00".into()),
            ]
        );
    }
}
