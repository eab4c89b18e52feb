//! Record keys as people and programs write them: JSON, or a text on a command line.
//!
//! In comes JSON, out come the [`KeyValue`]s that a range is made of, and back. Nothing is guessed: what does not fit its
//! column is an error that names the column and what is expected, never the value. [`value`] knows the columns' types.
//!
//! A key is its values in key order. It may be written as an object of key columns (the form of reports), as an array, or,
//! where one value is enough, as that value.

pub mod value;

use serde_json::Value;
use weir_model::{Column, ColumnType};
use weir_mysql::TableDescription;

use crate::key_value::KeyValue;

/// A key that does not fit its table. Holds no value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyTextError {
    #[error("key column {column}: expected {expected}")]
    Value { column: String, expected: String },
    /// Values of other columns, or of too many or too few.
    #[error("expected {expected}; the key is ({key})")]
    Shape { key: String, expected: String },
}

/// How much of a key has to be there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extent {
    /// Every column: one row.
    Whole,
    /// One column or more, from the first on: an end of a range.
    Prefix,
}

/// The values of `key`, which are in key order, for the columns of `table`'s record key.
///
/// # Errors
/// If there are too many or too few for `extent`, or one does not fit its column.
pub fn key_values(table: &TableDescription, key: &[Value], extent: Extent) -> Result<Vec<KeyValue>, KeyTextError> {
    let columns = key_columns(table);
    let fits = match extent {
        Extent::Whole => key.len() == columns.len(),
        Extent::Prefix => (1..=columns.len()).contains(&key.len()),
    };
    if columns.is_empty() || !fits {
        return Err(shape(&columns, extent));
    }
    let read = |(json, column): (&Value, &Column)| match (extent, &column.ty) {
        // They sort by number and compare as texts.
        (Extent::Prefix, ColumnType::Enum(_) | ColumnType::Set(_)) => Err(KeyTextError::Value {
            column: column.name.clone(),
            expected: "no bound: ENUM and SET make no ranges, only whole keys".into(),
        }),
        _ => value::read(json, column),
    };
    key.iter().zip(columns).map(read).collect()
}

/// `values`, of the first columns of `table`'s record key, as JSON: what [`key_values`] makes the same values of.
pub fn key_json(table: &TableDescription, values: &[KeyValue]) -> Vec<Value> {
    values.iter().zip(key_columns(table)).map(|(value, column)| value::show(value, &column.ty)).collect()
}

/// A key that was written as an object of key columns, an array, or a single value, as its values in key order, each in the
/// one form that [`key_json`] gives it.
pub fn key_of_json(table: &TableDescription, json: &Value, extent: Extent) -> Result<Vec<Value>, KeyTextError> {
    let columns = key_columns(table);
    let in_order = match json {
        Value::Array(values) => values.clone(),
        Value::Object(object) => {
            let named = |column: &&Column| object.iter().find(|(name, _)| name.eq_ignore_ascii_case(&column.name));
            let values: Vec<Value> =
                columns.iter().map_while(|column| named(column).map(|(_, value)| value.clone())).collect();
            if values.len() != object.len() {
                return Err(shape(&columns, extent));
            }
            values
        }
        single => vec![single.clone()],
    };
    Ok(key_json(table, &key_values(table, &in_order, extent)?))
}

/// A key from a command line: a plain value of the first key column, a JSON array, or a JSON object of key columns.
///
/// A text column takes what is given as it stands. So if the key is one text column, only an object that names it is read as
/// JSON; an array is its text.
pub fn key_of_text(table: &TableDescription, text: &str, extent: Extent) -> Result<Vec<Value>, KeyTextError> {
    let columns = key_columns(table);
    let parsed: Option<Value> = serde_json::from_str(text).ok();
    let is_one_text = matches!(columns[..], [Column { ty: ColumnType::Text, .. }]);
    let json = match parsed {
        Some(array @ Value::Array(_)) if !is_one_text => array,
        Some(Value::Object(object))
            if !is_one_text || object.keys().all(|name| name.eq_ignore_ascii_case(&columns[0].name)) =>
        {
            Value::Object(object)
        }
        _ => Value::String(text.to_owned()),
    };
    key_of_json(table, &json, extent)
}

fn key_columns(table: &TableDescription) -> Vec<&Column> {
    table.schema.key.iter().map(|&index| &table.schema.columns[index]).collect()
}

fn shape(columns: &[&Column], extent: Extent) -> KeyTextError {
    let names: Vec<&str> = columns.iter().map(|column| column.name.as_str()).collect();
    let expected = match (columns.len(), extent) {
        (0, _) => "a table with a record key: rows of this one cannot be named",
        (1, _) => "one value",
        (_, Extent::Whole) => "an array or an object with a value for each key column",
        (_, Extent::Prefix) => "an array or an object with values of key columns, from the first on without a gap",
    };
    KeyTextError::Shape { key: names.join(", "), expected: expected.to_owned() }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use weir_model::{Layout, TableId, TableSchema};

    use super::*;

    fn table(columns: &[(&str, ColumnType)]) -> TableDescription {
        let column = |(name, ty): &(&str, ColumnType)| Column { name: (*name).into(), ty: ty.clone(), nullable: false };
        TableDescription::plain(TableSchema {
            table: TableId::new("shop", "orders"),
            columns: columns.iter().map(column).collect(),
            key: (0..columns.len()).collect(),
            layout: Layout::default(),
        })
    }

    #[test]
    fn a_key_is_an_object_an_array_or_a_single_value() {
        let shop = table(&[("region", ColumnType::Text), ("id", ColumnType::UInt64)]);
        let expected = vec![json!("north"), json!(5)];
        for written in [json!(["north", 5]), json!({"ID": "5", "region": "north"})] {
            assert_eq!(key_of_json(&shop, &written, Extent::Whole), Ok(expected.clone()), "{written}");
        }
        for written in [json!("north"), json!(["north"]), json!({"region": "north"})] {
            assert_eq!(key_of_json(&shop, &written, Extent::Prefix), Ok(vec![json!("north")]), "{written}");
            assert!(key_of_json(&shop, &written, Extent::Whole).is_err(), "{written}");
        }
    }

    #[test]
    fn what_is_no_key_is_refused_with_the_column_or_the_whole_key() {
        let shop = table(&[("region", ColumnType::Text), ("id", ColumnType::UInt64)]);
        for (written, said) in [
            (json!([]), "the key is (region, id)"),
            (json!(["n", 5, 6]), "the key is (region, id)"),
            (json!({"id": 5}), "from the first on without a gap"),
            (json!({"region": "n", "colour": 5}), "the key is (region, id)"),
            (json!({"region": "n", "id": -5}), "key column id: expected a whole number from 0 to 18446744073709551615"),
            (json!([7]), "key column region: expected a string"),
            (json!(null), "key column region: expected a string"),
        ] {
            let error = key_of_json(&shop, &written, Extent::Prefix).unwrap_err().to_string();
            assert!(error.contains(said), "{written}: {error}");
        }
        let error = key_of_json(&table(&[]), &json!([1]), Extent::Prefix).unwrap_err().to_string();
        assert!(error.contains("a table with a record key"), "{error}");
    }

    #[test]
    fn a_text_on_the_command_line_is_a_plain_value_or_json() {
        let by_id = table(&[("id", ColumnType::Int32)]);
        for text in ["5", "[5]", "{\"id\": 5}", " 5 "] {
            assert_eq!(key_of_text(&by_id, text, Extent::Whole), Ok(vec![json!(5)]), "{text}");
        }
        let by_day = table(&[("day", ColumnType::Date), ("id", ColumnType::Int32)]);
        assert_eq!(key_of_text(&by_day, "2026-01-01", Extent::Prefix), Ok(vec![json!("2026-01-01")]));
        assert!(key_of_text(&by_day, "2026-01-01", Extent::Whole).is_err());
        assert_eq!(key_of_text(&by_day, "[\"2026-01-01\", 7]", Extent::Whole), Ok(vec![json!("2026-01-01"), json!(7)]));
        assert!(key_of_text(&by_id, "five", Extent::Whole).is_err());
    }

    #[test]
    fn a_text_column_takes_its_text_as_it_stands() {
        let by_name = table(&[("name", ColumnType::Text)]);
        for text in ["5", " a ", "", "[\"a\"]", "{", "{\"colour\": 1}", "null"] {
            assert_eq!(key_of_text(&by_name, text, Extent::Whole), Ok(vec![json!(text)]), "{text}");
        }
        // What a report shows can be given back.
        assert_eq!(key_of_text(&by_name, "{\"name\": \"a\"}", Extent::Whole), Ok(vec![json!("a")]));
    }

    #[test]
    fn what_is_stored_is_in_key_order_and_reads_back() {
        let shop = table(&[("z", ColumnType::Binary), ("a", ColumnType::Int64)]);
        let values = key_values(&shop, &[json!("00ff"), json!("9007199254740993")], Extent::Whole).unwrap();
        let shown = key_json(&shop, &values);
        assert_eq!(shown, [json!("00FF"), json!("9007199254740993")]);
        assert_eq!(key_values(&shop, &shown, Extent::Whole).unwrap(), values);
        let object = r#"{"z":"00FF","a":"9007199254740993"}"#;
        let back = key_of_json(&shop, &serde_json::from_str(object).unwrap(), Extent::Whole).unwrap();
        assert_eq!(key_values(&shop, &back, Extent::Whole).unwrap(), values);
    }
}
