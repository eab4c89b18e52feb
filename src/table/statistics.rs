//! What the log says of a data file's rows, so that readers can skip it (Delta protocol, "Per-file Statistics").
//!
//! Bounds are kept for key and order columns alone: those are what files can be told apart by. A bound is exact or
//! left out; types whose text form readers disagree on have none.

use std::collections::BTreeMap;

use arrow_array::cast::AsArray;
use arrow_array::types::{Int8Type, Int16Type, Int32Type, Int64Type};
use arrow_array::{Array, ArrayRef, RecordBatch};
use arrow_schema::DataType;
use serde_json::{Value, json};
use weir_model::TableSchema;
use weir_model::schema::{SEQ_COLUMN, TS_COLUMN};

/// Longer texts have no bounds: readers would expect them cut, and cut bounds are easily wrong.
const TEXT_BOUND_BYTES_MAX: usize = 32;

/// Sums up the rows of one file while they are written.
#[derive(Debug)]
pub struct Statistics {
    rows: u64,
    /// By column; `None` before the first row.
    bounds: BTreeMap<String, Option<Bounds>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Bounds {
    Whole { least: i64, greatest: i64 },
    Text { least: String, greatest: String },
}

impl Statistics {
    pub fn new(schema: &TableSchema) -> Self {
        let columns = schema.key_names().into_iter().chain([TS_COLUMN, SEQ_COLUMN]);
        Self { rows: 0, bounds: columns.map(|name| (name.to_owned(), None)).collect() }
    }

    pub fn add(&mut self, batch: &RecordBatch) {
        if batch.num_rows() == 0 {
            return;
        }
        self.rows += batch.num_rows() as u64;
        self.bounds.retain(|name, bounds| {
            let Some(more) = batch.column_by_name(name).and_then(bounds_of) else { return false };
            let joined = match bounds.take() {
                None => Some(more),
                Some(bounds) => bounds.join(more),
            };
            *bounds = joined;
            bounds.is_some()
        });
    }

    /// The statistics of a file of which no row is dead.
    pub fn json(&self) -> String {
        let side = |pick: fn(&Bounds) -> Value| -> BTreeMap<&str, Value> {
            self.bounds.iter().filter_map(|(name, b)| Some((name.as_str(), pick(b.as_ref()?)))).collect()
        };
        json!({
            "numRecords": self.rows,
            "tightBounds": true,
            "minValues": side(Bounds::least),
            "maxValues": side(Bounds::greatest),
            "nullCount": side(|_| Value::from(0)),
        })
        .to_string()
    }
}

impl Bounds {
    fn least(&self) -> Value {
        match self {
            Self::Whole { least, .. } => Value::from(*least),
            Self::Text { least, .. } => Value::from(least.as_str()),
        }
    }

    fn greatest(&self) -> Value {
        match self {
            Self::Whole { greatest, .. } => Value::from(*greatest),
            Self::Text { greatest, .. } => Value::from(greatest.as_str()),
        }
    }

    fn join(self, other: Self) -> Option<Self> {
        match (self, other) {
            (Self::Whole { least: a, greatest: b }, Self::Whole { least: c, greatest: d }) => {
                Some(Self::Whole { least: a.min(c), greatest: b.max(d) })
            }
            (Self::Text { least: a, greatest: b }, Self::Text { least: c, greatest: d }) => {
                Some(Self::Text { least: a.min(c), greatest: b.max(d) })
            }
            _ => None,
        }
    }
}

/// Bounds of a column with at least one row; `None` if it has NULLs, or is of a type without bounds.
fn bounds_of(column: &ArrayRef) -> Option<Bounds> {
    if column.null_count() > 0 {
        return None;
    }
    fn whole<T: Copy + Into<i64>>(values: &[T]) -> Option<Bounds> {
        let ints = || values.iter().map(|value| (*value).into());
        Some(Bounds::Whole { least: ints().min()?, greatest: ints().max()? })
    }
    match column.data_type() {
        DataType::Int8 => whole(column.as_primitive::<Int8Type>().values()),
        DataType::Int16 => whole(column.as_primitive::<Int16Type>().values()),
        DataType::Int32 => whole(column.as_primitive::<Int32Type>().values()),
        DataType::Int64 => whole(column.as_primitive::<Int64Type>().values()),
        DataType::Utf8 => {
            let texts = column.as_string::<i32>();
            let (least, greatest) = (texts.iter().flatten().min()?, texts.iter().flatten().max()?);
            let short = least.len().max(greatest.len()) <= TEXT_BOUND_BYTES_MAX;
            short.then(|| Bounds::Text { least: least.to_owned(), greatest: greatest.to_owned() })
        }
        _ => None,
    }
}

/// The statistics of a file once some of its `rows` rows are dead: bounds still hold and are no longer tight. Readers
/// take counts from here, so the number of rows stays exact.
pub fn with_dead_rows(stats: Option<&str>, rows: u64) -> String {
    let mut stats = stats.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_else(|| json!({}));
    stats["numRecords"] = rows.into();
    stats["tightBounds"] = false.into();
    stats.to_string()
}

/// The number of rows, dead ones included, that statistics tell.
pub fn rows_of(stats: Option<&str>) -> Option<u64> {
    serde_json::from_str::<Value>(stats?).ok()?.get("numRecords")?.as_u64()
}

/// The bounds that statistics tell of an integer column.
pub fn bounds_told(stats: Option<&str>, column: &str) -> Option<(i64, i64)> {
    let stats: Value = serde_json::from_str(stats?).ok()?;
    let side = |name: &str| stats.get(name)?.get(column)?.as_i64();
    Some((side("minValues")?, side("maxValues")?))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow_array::{Int32Array, StringArray};
    use weir_model::{Column, ColumnType, TableId};

    use super::*;

    fn statistics(columns: &[(&str, ColumnType)], batches: Vec<Vec<ArrayRef>>) -> Value {
        let schema = TableSchema {
            table: TableId::new("shop", "orders"),
            columns: columns
                .iter()
                .map(|(name, ty)| Column { name: (*name).into(), ty: ty.clone(), nullable: false })
                .collect(),
            key: (0..columns.len()).collect(),
            layout: weir_model::Layout::default(),
        };
        let mut statistics = Statistics::new(&schema);
        for arrays in batches {
            statistics.add(&RecordBatch::try_new(schema.arrow(), arrays).unwrap());
        }
        serde_json::from_str(&statistics.json()).unwrap()
    }

    #[test]
    fn bounds_span_all_batches() {
        let stats = statistics(
            &[("id", ColumnType::Int32), ("code", ColumnType::Text)],
            vec![
                vec![Arc::new(Int32Array::from(vec![5, 7])), Arc::new(StringArray::from(vec!["b", "é"]))],
                vec![Arc::new(Int32Array::from(vec![-1])), Arc::new(StringArray::from(vec!["a"]))],
            ],
        );
        assert_eq!(stats["numRecords"], 3);
        assert_eq!((&stats["minValues"]["id"], &stats["maxValues"]["id"]), (&json!(-1), &json!(7)));
        assert_eq!((&stats["minValues"]["code"], &stats["maxValues"]["code"]), (&json!("a"), &json!("é")));
        assert_eq!(stats["nullCount"]["code"], 0);
    }

    #[test]
    fn a_long_text_in_any_batch_leaves_the_column_without_bounds() {
        let long = "x".repeat(TEXT_BOUND_BYTES_MAX + 1);
        let texts = |text: &str| -> Vec<ArrayRef> { vec![Arc::new(StringArray::from(vec![text]))] };
        let stats = statistics(&[("code", ColumnType::Text)], vec![texts("a"), texts(&long), texts("b")]);
        assert!(stats["minValues"].get("code").is_none());
    }

    #[test]
    fn dead_rows_loosen_the_bounds_and_keep_the_count() {
        let text = with_dead_rows(Some(r#"{"numRecords":3,"tightBounds":true,"minValues":{"id":1}}"#), 3);
        let stats: Value = serde_json::from_str(&text).unwrap();
        assert_eq!((&stats["tightBounds"], &stats["minValues"]["id"]), (&json!(false), &json!(1)));
        assert_eq!((rows_of(Some(&text)), rows_of(None)), (Some(3), None));
    }

    #[test]
    fn bounds_are_told_only_of_columns_that_have_both() {
        let text = r#"{"numRecords":3,"minValues":{"id":1,"code":"a"},"maxValues":{"id":7,"code":"b","n":1}}"#;
        assert_eq!(bounds_told(Some(text), "id"), Some((1, 7)));
        assert_eq!((bounds_told(Some(text), "code"), bounds_told(Some(text), "n")), (None, None));
        assert_eq!((bounds_told(Some("{"), "id"), bounds_told(None, "id")), (None, None));
    }
}
