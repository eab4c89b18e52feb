//! Which partition rows and files lie in: what the log and a file's folder say, and what is read back from the log.
//!
//! A data file holds rows of one partition, and leaves out the columns that the partition tells. Values are written so
//! that a folder's name needs no escape, since some readers overlook the deletion vector of a file whose path has one.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};

use arrow_array::cast::AsArray;
use arrow_array::types::{Date32Type, Int8Type, Int16Type, Int32Type, Int64Type};
use arrow_array::{Array, ArrayRef, RecordBatch, RecordBatchOptions, StringArray, UInt32Array};
use arrow_cast::{CastOptions, cast_with_options};
use arrow_schema::{ArrowError, DataType, Field, Schema};
use arrow_select::take::take;
use foldhash::fast::RandomState;
use serde::{Deserialize, Serialize};
use weir_model::layout::Transform;
use weir_model::partition::date_text;
use weir_model::{Layout, TableSchema};

use super::TableError;
use super::delta::Add;
use crate::limits::PARTITION_VALUE_BYTES_MAX;

/// What the folder of a NULL is called, by the custom of Hive.
const NULL_FOLDER: &str = "__HIVE_DEFAULT_PARTITION__";

/// Values of a table's partition columns, in its layout's order and as the log has them; `None` is NULL.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PartitionValues(Vec<Option<String>>);

impl PartitionValues {
    /// Those of a file's entry. NULL may be missing, or the empty string.
    pub(super) fn of_entry(layout: &Layout, add: &Add) -> Self {
        Self(layout.partitions.iter().map(|p| told(&add.partition_values, &p.name).map(str::to_owned)).collect())
    }

    /// As an entry says it.
    pub(super) fn entry(&self, layout: &Layout) -> BTreeMap<String, Option<String>> {
        let names = layout.partitions.iter().map(|partition| partition.name.clone());
        names.zip(self.0.iter().cloned()).collect()
    }

    /// The path of a file called `name`, from the table's folder.
    pub(super) fn path_of(&self, layout: &Layout, name: &str) -> String {
        let mut path = String::new();
        for (partition, value) in layout.partitions.iter().zip(&self.0) {
            path.push_str(&format!("{}={}/", partition.name, value.as_deref().unwrap_or(NULL_FOLDER)));
        }
        path + name
    }

    /// Whether there is a value for each of the layout's partition columns.
    pub(super) fn fits(&self, layout: &Layout) -> bool {
        self.0.len() == layout.partitions.len()
    }

    /// Whether it is that of a table without partitions.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// What an entry says of a partition column.
pub(super) fn told<'a>(values: &'a BTreeMap<String, Option<String>>, name: &str) -> Option<&'a str> {
    values.get(name)?.as_deref().filter(|value| !value.is_empty())
}

/// Names of the partition columns, as the log has them.
pub(super) fn partition_names(layout: &Layout) -> Vec<String> {
    layout.partitions.iter().map(|partition| partition.name.clone()).collect()
}

/// Numbers of `rows`, which have the lake table's columns of `schema`, by the partition that they lie in; each ascending.
///
/// # Errors
/// When a value cannot be that of a partition.
pub(super) fn rows_by_partition(
    schema: &TableSchema,
    rows: &RecordBatch,
) -> Result<BTreeMap<PartitionValues, Vec<u32>>, TableError> {
    let count = rows.num_rows();
    if schema.layout.partitions.is_empty() {
        let all = (count > 0).then(|| (PartitionValues::default(), (0..count as u32).collect()));
        return Ok(all.into_iter().collect());
    }
    let mut texts: Vec<Vec<Option<String>>> = vec![Vec::new()];
    let mut places = vec![0_u32; count];
    for partition in &schema.layout.partitions {
        let of_schema = rows.schema();
        let at = of_schema.fields().iter().position(|field| field.name().eq_ignore_ascii_case(&partition.name));
        let values = match at {
            Some(at) => Values::of(rows.column(at)).ok_or_else(|| refused(schema, &partition.column))?,
            None => Values { texts: vec![None], places: vec![0; count] },
        };
        (texts, places) = combined((texts, places), values);
    }
    let mut by_place: Vec<Vec<u32>> = vec![Vec::new(); texts.len()];
    for (row, place) in places.into_iter().enumerate() {
        by_place[place as usize].push(row as u32);
    }
    let parts = texts.into_iter().zip(by_place).filter(|(_, rows)| !rows.is_empty());
    Ok(parts.map(|(values, rows)| (PartitionValues(values), rows)).collect())
}

/// Partitions so far, and of each row which, told apart by the values of one more column.
fn combined(
    (texts, places): (Vec<Vec<Option<String>>>, Vec<u32>),
    values: Values,
) -> (Vec<Vec<Option<String>>>, Vec<u32>) {
    let mut known: HashMap<(u32, u32), u32, RandomState> = HashMap::default();
    let mut both: Vec<Vec<Option<String>>> = Vec::new();
    let pairs = places.iter().zip(&values.places);
    let places = pairs.map(|(before, value)| {
        *known.entry((*before, *value)).or_insert_with(|| {
            let mut text = texts[*before as usize].clone();
            text.push(values.texts[*value as usize].clone());
            both.push(text);
            (both.len() - 1) as u32
        })
    });
    let places = places.collect();
    (both, places)
}

/// The distinct values of a column, and which of them each row has.
struct Values {
    texts: Vec<Option<String>>,
    places: Vec<u32>,
}

impl Values {
    /// `None` if there is a text that a folder's name cannot have as it is.
    fn of(column: &ArrayRef) -> Option<Self> {
        let rows = 0..column.len();
        let valid = |row: usize| column.is_valid(row);
        Some(match column.data_type() {
            DataType::Utf8 => {
                let texts = column.as_string::<i32>();
                let values =
                    Self::distinct(rows.map(|row| valid(row).then(|| texts.value(row))), |text| (*text).to_owned());
                if !values.texts.iter().flatten().all(|text| is_plain(text)) {
                    return None;
                }
                values
            }
            DataType::Date32 => {
                let days = column.as_primitive::<Date32Type>().values();
                Self::distinct(rows.map(|row| valid(row).then(|| days[row])), |day| date_text((*day).into()))
            }
            _ => {
                let whole = whole_numbers(column)?;
                Self::distinct(rows.map(|row| valid(row).then(|| whole[row])), i64::to_string)
            }
        })
    }

    fn distinct<T: std::hash::Hash + Eq>(rows: impl Iterator<Item = Option<T>>, text: impl Fn(&T) -> String) -> Self {
        let mut known: HashMap<Option<T>, u32, RandomState> = HashMap::default();
        let mut texts = Vec::new();
        let mut places = Vec::new();
        for value in rows {
            let place = match known.entry(value) {
                Entry::Occupied(known) => *known.get(),
                Entry::Vacant(place) => {
                    texts.push(place.key().as_ref().map(&text));
                    *place.insert(texts.len() as u32 - 1)
                }
            };
            places.push(place);
        }
        Self { texts, places }
    }
}

/// The values of an integer column; what is NULL has any. `None` for every other type.
fn whole_numbers(column: &ArrayRef) -> Option<Vec<i64>> {
    fn widened<T: Copy + Into<i64>>(values: &[T]) -> Vec<i64> {
        values.iter().map(|value| (*value).into()).collect()
    }
    Some(match column.data_type() {
        DataType::Int8 => widened(column.as_primitive::<Int8Type>().values()),
        DataType::Int16 => widened(column.as_primitive::<Int16Type>().values()),
        DataType::Int32 => widened(column.as_primitive::<Int32Type>().values()),
        DataType::Int64 => widened(column.as_primitive::<Int64Type>().values()),
        _ => return None,
    })
}

/// Whether a text can name a folder as it is, and be told from NULL there.
fn is_plain(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    !text.is_empty() && text.len() <= PARTITION_VALUE_BYTES_MAX && text.bytes().all(plain) && text != NULL_FOLDER
}

fn refused(schema: &TableSchema, column: &str) -> TableError {
    TableError::PartitionValue { table: schema.table.clone(), column: column.to_owned() }
}

/// Rows in the lake table's columns as data files have them: without the columns that a partition tells.
pub(super) fn file_rows(schema: &TableSchema, rows: &RecordBatch) -> Result<RecordBatch, ArrowError> {
    if schema.layout.partitions.is_empty() {
        return Ok(rows.clone());
    }
    let told = |field: &Field| schema.layout.partitions.iter().any(|p| p.name.eq_ignore_ascii_case(field.name()));
    let fields = rows.schema();
    let kept: Vec<usize> = fields.fields().iter().enumerate().filter(|(_, f)| !told(f)).map(|(i, _)| i).collect();
    rows.project(&kept)
}

/// A column of `rows` rows that all have what an entry says.
///
/// # Errors
/// When it says something that the column's type has not.
pub(super) fn told_column(ty: &DataType, value: Option<&str>, rows: usize) -> Result<ArrayRef, ArrowError> {
    let strict = CastOptions { safe: false, ..CastOptions::default() };
    let one = cast_with_options(&StringArray::from(vec![value]), ty, &strict)?;
    take(&one, &UInt32Array::from_value(0, rows), None)
}

/// Columns of the record key that data files leave out, each with its place among the partition columns.
#[derive(Debug, Clone, Default)]
pub(super) struct ToldKeys(Vec<(Field, usize)>);

impl ToldKeys {
    /// Those of a table of `schema`, spelled as it spells them.
    pub(super) fn of(schema: &TableSchema) -> Self {
        let place = |name: &str| {
            let own = |p: &weir_model::layout::Partition| p.transform == Transform::Identity;
            schema.layout.partitions.iter().position(|p| own(p) && p.column.eq_ignore_ascii_case(name))
        };
        let keys = schema.key.iter().map(|&i| &schema.columns[i]);
        let told = keys.filter_map(|c| Some((Field::new(&c.name, c.ty.arrow(), true), place(&c.name)?)));
        Self(told.collect())
    }

    /// Rows of a file of partition `values` with these columns.
    pub(super) fn complete(&self, rows: RecordBatch, values: &PartitionValues) -> Result<RecordBatch, TableError> {
        if self.0.is_empty() {
            return Ok(rows);
        }
        let count = rows.num_rows();
        let mut fields: Vec<Field> = rows.schema().fields().iter().map(|field| field.as_ref().clone()).collect();
        let mut columns = rows.columns().to_vec();
        for (field, place) in &self.0 {
            let value = values.0.get(*place).and_then(|value| value.as_deref());
            columns.push(told_column(field.data_type(), value, count)?);
            fields.push(field.clone());
        }
        let options = RecordBatchOptions::new().with_row_count(Some(count));
        Ok(RecordBatch::try_new_with_options(Schema::new(fields).into(), columns, &options)?)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow_array::{Date32Array, Int16Array, Int64Array};
    use proptest::prelude::*;
    use weir_model::{Column, ColumnType, TableId};

    use super::*;

    fn schema(partition_by: &[&str]) -> TableSchema {
        let column = |name: &str, ty| Column { name: name.into(), ty, nullable: true };
        TableSchema {
            table: TableId::new("shop", "orders"),
            columns: vec![
                column("id", ColumnType::Int64),
                column("on", ColumnType::Date),
                column("n", ColumnType::Int16),
                column("text", ColumnType::Text),
            ],
            key: vec![0, 2],
            layout: Layout {
                partitions: partition_by.iter().map(|text| text.parse().unwrap()).collect(),
                ..Layout::default()
            },
        }
    }

    type Row = (Option<i32>, Option<i16>, Option<String>);

    /// Rows in the lake table's columns; the id is the row's number.
    fn rows(schema: &TableSchema, rows: &[Row]) -> RecordBatch {
        let ids = 0..rows.len() as i64;
        let mut columns: Vec<ArrayRef> = vec![
            Arc::new(Int64Array::from_iter_values(ids.clone())),
            Arc::new(rows.iter().map(|row| row.0).collect::<Date32Array>()),
            Arc::new(rows.iter().map(|row| row.1).collect::<Int16Array>()),
            Arc::new(rows.iter().map(|row| row.2.as_deref()).collect::<StringArray>()),
        ];
        columns.extend(schema.made_columns(&columns, rows.len()).unwrap());
        columns.push(Arc::new(Int64Array::from_iter_values(ids.clone())));
        columns.push(Arc::new(Int64Array::from_iter_values(ids)));
        RecordBatch::try_new(schema.lake_arrow(), columns).unwrap()
    }

    fn texts(values: &[Option<&str>]) -> PartitionValues {
        PartitionValues(values.iter().map(|value| value.map(str::to_owned)).collect())
    }

    #[test]
    fn a_path_names_each_column_and_null_as_hive_does() {
        let layout = schema(&["on", "b = bucket(4, id)"]).layout;
        let values = texts(&[Some("2026-11-21"), None]);
        let path = values.path_of(&layout, "part-1.parquet");
        assert_eq!(path, "on=2026-11-21/b=__HIVE_DEFAULT_PARTITION__/part-1.parquet");
        let entry = serde_json::to_string(&values.entry(&layout)).unwrap();
        assert_eq!(entry, r#"{"b":null,"on":"2026-11-21"}"#);
        assert_eq!(PartitionValues::default().path_of(&Layout::default(), "part-1.parquet"), "part-1.parquet");
    }

    #[test]
    fn a_null_is_read_however_it_is_written() {
        let layout = schema(&["on", "n"]).layout;
        let entry = |values: &str| {
            let text =
                format!(r#"{{"path":"p","partitionValues":{values},"size":1,"modificationTime":0,"dataChange":true}}"#);
            PartitionValues::of_entry(&layout, &serde_json::from_str(&text).unwrap())
        };
        for null in [r#"{"n":"3","on":null}"#, r#"{"n":"3","on":""}"#, r#"{"n":"3"}"#] {
            assert_eq!(entry(null), texts(&[None, Some("3")]));
        }
    }

    #[test]
    fn a_text_that_needs_an_escape_or_looks_like_null_is_refused_by_its_column() {
        let schema = schema(&["text"]);
        let long = "x".repeat(PARTITION_VALUE_BYTES_MAX + 1);
        for text in ["", "a b", "a/b", "a=b", "é", "a%20", "__HIVE_DEFAULT_PARTITION__", &long] {
            let rows = rows(&schema, &[(None, None, Some("plain".into())), (None, None, Some(text.into()))]);
            let error = rows_by_partition(&schema, &rows).unwrap_err().to_string();
            assert!(error.contains("column text") && error.contains("bucket(16, text)"), "{error}");
            assert!(text.is_empty() || !error.contains(&format!("`{text}`")), "shows the value: {error}");
        }
        for text in ["EU", "a.b-c_d", "007", ".."] {
            assert!(rows_by_partition(&schema, &rows(&schema, &[(None, None, Some(text.into()))])).is_ok());
        }
    }

    #[test]
    fn what_is_told_is_strict() {
        assert!(told_column(&DataType::Int16, Some("70000"), 2).is_err());
        assert!(told_column(&DataType::Date32, Some("yesterday"), 2).is_err());
        assert_eq!(told_column(&DataType::Date32, None, 2).unwrap().null_count(), 2);
        assert_eq!(told_column(&DataType::Int64, Some("5"), 0).unwrap().len(), 0);
    }

    fn row() -> impl Strategy<Value = Row> {
        let days = prop::option::weighted(0.8, prop_oneof![Just(-354_285), Just(2_932_896), 0_i32..3]);
        let numbers = prop::option::weighted(0.8, prop_oneof![Just(i16::MIN), -2_i16..3]);
        (days, numbers, prop::option::weighted(0.8, "[A-Za-z0-9._-]{1,3}"))
    }

    proptest! {
        #[test]
        fn every_row_lies_in_one_partition_and_is_told_back_as_it_was(
            given in prop::collection::vec(row(), 1..20),
            by in prop::sample::subsequence(vec!["on", "n", "text", "b = bucket(2, id)"], 1..=4),
        ) {
            let schema = schema(&by);
            let rows = rows(&schema, &given);
            let parts = rows_by_partition(&schema, &rows).unwrap();
            let mut seen: Vec<u32> = parts.values().flatten().copied().collect();
            seen.sort_unstable();
            prop_assert!(seen.into_iter().eq(0..given.len() as u32));
            for (values, picked) in &parts {
                prop_assert!(values.fits(&schema.layout) && picked.is_sorted());
                let part = arrow_select::take::take_record_batch(&rows, &UInt32Array::from(picked.clone())).unwrap();
                let stored = file_rows(&schema, &part).unwrap();
                prop_assert_eq!(stored.schema(), schema.file_arrow());
                let entry = values.entry(&schema.layout);
                for partition in &schema.layout.partitions {
                    let expected = part.column_by_name(&partition.name).unwrap();
                    let text = told(&entry, &partition.name);
                    prop_assert_eq!(&told_column(expected.data_type(), text, picked.len()).unwrap(), expected);
                }
                let keys = ToldKeys::of(&schema).complete(stored, values).unwrap();
                for name in schema.key_names() {
                    prop_assert_eq!(keys.column_by_name(name), part.column_by_name(name));
                }
            }
        }
    }
}
