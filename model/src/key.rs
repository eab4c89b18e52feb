//! Record keys in canonical form: independent of integer width and of the column's character set, and sorted bytewise.

use std::cmp::Ordering;

use arrow_array::cast::AsArray;
use arrow_array::types::{
    Date32Type, Decimal128Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type,
    TimestampMicrosecondType,
};
use arrow_array::{Array, ArrayRef, RecordBatch};
use arrow_schema::DataType;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A key that cannot be formed. Names the column.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    #[error("key column {0} is NULL (a zero date in a key cannot be stored as NULL)")]
    Null(String),
    #[error("key column {0} is missing")]
    Missing(String),
}

/// One record key.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum RecordKey {
    /// A single integer column whose values fit i64.
    Int(i64),
    /// Everything else: the canonical bytes.
    Bytes(Box<[u8]>),
}

/// The record keys of a batch, one a row, all of one form.
#[derive(Debug, Clone)]
pub enum RecordKeys {
    Int(Vec<i64>),
    Bytes {
        data: Vec<u8>,
        /// End of each row's key in `data`.
        ends: Vec<usize>,
    },
}

/// A borrowed record key, comparable and hashable without a copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum KeyRef<'a> {
    Int(i64),
    Bytes(&'a [u8]),
}

impl RecordKeys {
    /// No keys: of a table whose rows are not told apart.
    pub fn none() -> Self {
        Self::Int(Vec::new())
    }

    /// Keys of every row of `rows`, formed from the columns called `names`, in key order.
    pub fn of(rows: &RecordBatch, names: &[&str]) -> Result<Self, KeyError> {
        let mut columns = Vec::with_capacity(names.len());
        for name in names {
            let column = rows.column_by_name(name).ok_or_else(|| KeyError::Missing((*name).into()))?;
            if column.null_count() > 0 {
                return Err(KeyError::Null((*name).into()));
            }
            columns.push(column);
        }
        if let [column] = columns[..]
            && let Some(ints) = as_i64(column)
        {
            return Ok(Self::Int(ints));
        }
        let mut data = Vec::new();
        let mut ends = Vec::with_capacity(rows.num_rows());
        for row in 0..rows.num_rows() {
            for column in &columns {
                encode(column, row, &mut data);
            }
            ends.push(data.len());
        }
        Ok(Self::Bytes { data, ends })
    }

    pub fn len(&self) -> usize {
        match self {
            Self::Int(values) => values.len(),
            Self::Bytes { ends, .. } => ends.len(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes of memory that they take, roughly.
    pub fn bytes(&self) -> usize {
        match self {
            Self::Int(values) => size_of_val(&values[..]),
            Self::Bytes { data, ends } => data.len() + size_of_val(&ends[..]),
        }
    }

    #[inline]
    pub fn get(&self, row: usize) -> KeyRef<'_> {
        match self {
            Self::Int(values) => KeyRef::Int(values[row]),
            Self::Bytes { data, ends } => {
                let start = if row == 0 { 0 } else { ends[row - 1] };
                KeyRef::Bytes(&data[start..ends[row]])
            }
        }
    }

    /// Adds the keys of further rows, of the same columns.
    pub fn append(&mut self, more: &Self) {
        match (self, more) {
            (Self::Int(values), Self::Int(more)) => values.extend_from_slice(more),
            (Self::Bytes { data, ends }, Self::Bytes { data: more, ends: more_ends }) => {
                let start = data.len();
                data.extend_from_slice(more);
                ends.extend(more_ends.iter().map(|end| start + end));
            }
            _ => unreachable!("keys of one table have one form"),
        }
    }

    /// The keys of `rows`, in that order.
    #[must_use]
    pub fn take(&self, rows: &[u32]) -> Self {
        let places: Vec<(usize, usize)> = rows.iter().map(|&row| (0, row as usize)).collect();
        Self::interleave(&[self], &places)
    }

    /// The keys at `places`, each a place in `sources` and a row there; all of `sources` have one form.
    #[must_use]
    pub fn interleave(sources: &[&Self], places: &[(usize, usize)]) -> Self {
        let keys = places.iter().map(|&(source, row)| sources[source].get(row));
        if let [Self::Int(_), ..] = sources {
            let ints = keys.filter_map(|key| if let KeyRef::Int(value) = key { Some(value) } else { None });
            return Self::Int(ints.collect());
        }
        let (mut data, mut ends) = (Vec::new(), Vec::with_capacity(places.len()));
        for key in keys {
            if let KeyRef::Bytes(key) = key {
                data.extend_from_slice(key);
            }
            ends.push(data.len());
        }
        Self::Bytes { data, ends }
    }

    /// Numbers of the rows of each of `count` buckets that has any, ascending; buckets ascend, too.
    pub fn rows_by_bucket(&self, count: u32) -> impl Iterator<Item = (u32, Vec<u32>)> {
        let mut rows: Vec<Vec<u32>> = vec![Vec::new(); count as usize];
        for row in 0..self.len() {
            rows[self.get(row).bucket(count) as usize].push(row as u32);
        }
        (0..).zip(rows).filter(|(_, rows)| !rows.is_empty())
    }

    /// Row numbers in ascending key order; rows of one key keep their order.
    pub fn sorted_rows(&self) -> Vec<u32> {
        let mut rows: Vec<u32> = (0..self.len() as u32).collect();
        rows.sort_by(|&a, &b| self.compare(a, b));
        rows
    }

    fn compare(&self, a: u32, b: u32) -> Ordering {
        self.get(a as usize).cmp(&self.get(b as usize))
    }
}

impl KeyRef<'_> {
    pub fn to_owned(self) -> RecordKey {
        match self {
            Self::Int(value) => RecordKey::Int(value),
            Self::Bytes(bytes) => RecordKey::Bytes(bytes.into()),
        }
    }

    /// Position of the key among buckets and shards: 64 bits that depend on the key's value alone.
    pub fn hash64(self) -> u64 {
        match self {
            Self::Int(value) => xxhash_rust::xxh3::xxh3_64(&integer_bytes(i128::from(value))),
            Self::Bytes(bytes) => xxhash_rust::xxh3::xxh3_64(bytes),
        }
    }

    /// The key's bucket in a table of `count`; one that is not sharded is not hashed for.
    #[inline]
    pub fn bucket(self, count: u32) -> u32 {
        if count <= 1 { 0 } else { (self.hash64() % u64::from(count)) as u32 }
    }
}

/// As a number, or as the hexadecimal digits of its canonical bytes.
impl Serialize for RecordKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Int(value) => serializer.serialize_i64(*value),
            Self::Bytes(bytes) => serializer.collect_str(&Digits(bytes)),
        }
    }
}

impl<'de> Deserialize<'de> for RecordKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Told {
            Number(i64),
            Digits(String),
        }
        match Told::deserialize(deserializer)? {
            Told::Number(value) => Ok(Self::Int(value)),
            Told::Digits(digits) => {
                let pair = |at| digits.get(at..at + 2).and_then(|pair| u8::from_str_radix(pair, 16).ok());
                let bytes: Option<Vec<u8>> = (0..digits.len()).step_by(2).map(pair).collect();
                bytes
                    .map(|bytes| Self::Bytes(bytes.into()))
                    .ok_or_else(|| serde::de::Error::custom("a record key is an even number of hexadecimal digits"))
            }
        }
    }
}

/// Bytes as hexadecimal digits.
struct Digits<'a>(&'a [u8]);

impl std::fmt::Display for Digits<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl RecordKey {
    pub fn as_ref(&self) -> KeyRef<'_> {
        match self {
            Self::Int(value) => KeyRef::Int(*value),
            Self::Bytes(bytes) => KeyRef::Bytes(bytes),
        }
    }
}

/// Whether record keys with a column of type `from` keep their form when it becomes one of type `to`, which holds the same
/// values.
pub fn keeps_form(from: &DataType, to: &DataType) -> bool {
    let is_whole = |ty: &DataType| matches!(ty, DataType::Int8 | DataType::Int16 | DataType::Int32 | DataType::Int64);
    // decimal(20,0) has the form of integers; any other decimal is told by its digits, so its scale must stay.
    let is_scaled = |ty: &DataType| matches!(ty, DataType::Decimal128(..)) && *ty != DataType::Decimal128(20, 0);
    match (from, to) {
        (DataType::Decimal128(_, scale), DataType::Decimal128(_, wider)) => {
            is_scaled(from) && is_scaled(to) && scale == wider
        }
        (DataType::Float32, DataType::Float64) => true,
        _ => is_whole(from) && is_whole(to),
    }
}

/// The values of an integer column that always fits i64; `None` for every other type.
fn as_i64(column: &ArrayRef) -> Option<Vec<i64>> {
    Some(match column.data_type() {
        DataType::Int8 => column.as_primitive::<Int8Type>().values().iter().map(|v| i64::from(*v)).collect(),
        DataType::Int16 => column.as_primitive::<Int16Type>().values().iter().map(|v| i64::from(*v)).collect(),
        DataType::Int32 => column.as_primitive::<Int32Type>().values().iter().map(|v| i64::from(*v)).collect(),
        DataType::Int64 => column.as_primitive::<Int64Type>().values().to_vec(),
        _ => return None,
    })
}

/// Nine bytes hold every 64-bit integer, signed or not.
pub(crate) const INTEGER_BYTES: usize = 9;

/// Big-endian with an offset of 2^71, so that bytes sort as numbers and the width of the column does not matter.
pub(crate) fn integer_bytes(value: i128) -> [u8; INTEGER_BYTES] {
    let shifted = (value + (1_i128 << 71)).to_be_bytes();
    let mut bytes = [0; INTEGER_BYTES];
    bytes.copy_from_slice(&shifted[16 - INTEGER_BYTES..]);
    bytes
}

fn encode_integer(value: i128, out: &mut Vec<u8>) {
    out.extend_from_slice(&integer_bytes(value));
}

/// Bytes with 0x00 escaped as `00 FF` and closed by `00 00`, so that composite keys neither collide nor missort.
fn encode_bytes(value: &[u8], out: &mut Vec<u8>) {
    for byte in value {
        out.push(*byte);
        if *byte == 0 {
            out.push(0xFF);
        }
    }
    out.extend_from_slice(&[0, 0]);
}

/// Sign bit flipped for positives, all bits for negatives: IEEE order as bytes. -0.0 is 0.0, as MySQL compares them.
fn encode_float(value: f64, out: &mut Vec<u8>) {
    let bits = if value == 0.0 { 0 } else { value.to_bits() };
    let sorted = if bits >> 63 == 1 { !bits } else { bits ^ (1 << 63) };
    out.extend_from_slice(&sorted.to_be_bytes());
}

/// [`KeyRef::hash64`] of a key that is this value alone, which is not NULL. `bytes` is room to work in.
pub(crate) fn hash_of_value(column: &ArrayRef, row: usize, bytes: &mut Vec<u8>) -> u64 {
    bytes.clear();
    encode(column, row, bytes);
    KeyRef::Bytes(bytes).hash64()
}

fn encode(column: &ArrayRef, row: usize, out: &mut Vec<u8>) {
    match column.data_type() {
        DataType::Int8 => encode_integer(column.as_primitive::<Int8Type>().value(row).into(), out),
        DataType::Int16 => encode_integer(column.as_primitive::<Int16Type>().value(row).into(), out),
        DataType::Int32 => encode_integer(column.as_primitive::<Int32Type>().value(row).into(), out),
        DataType::Int64 => encode_integer(column.as_primitive::<Int64Type>().value(row).into(), out),
        DataType::Decimal128(20, 0) => {
            encode_decimal_or_unsigned(column.as_primitive::<Decimal128Type>().value(row), out)
        }
        DataType::Decimal128(..) => {
            let value = column.as_primitive::<Decimal128Type>().value(row);
            out.extend_from_slice(&((value as u128) ^ (1 << 127)).to_be_bytes());
        }
        DataType::Boolean => out.push(u8::from(column.as_boolean().value(row))),
        DataType::Float32 => encode_float(column.as_primitive::<Float32Type>().value(row).into(), out),
        DataType::Float64 => encode_float(column.as_primitive::<Float64Type>().value(row), out),
        DataType::Date32 => encode_integer(column.as_primitive::<Date32Type>().value(row).into(), out),
        DataType::Timestamp(..) => {
            encode_integer(column.as_primitive::<TimestampMicrosecondType>().value(row).into(), out);
        }
        DataType::Utf8 => encode_bytes(column.as_string::<i32>().value(row).as_bytes(), out),
        DataType::Binary => encode_bytes(column.as_binary::<i32>().value(row), out),
        other => unreachable!("no source column has the Arrow type {other}"),
    }
}

/// decimal(20,0) is BIGINT UNSIGNED's type as well as DECIMAL(20,0)'s; up to 20 digits fit the integer form of nine
/// bytes (10^20 < 2^67), so both share it.
fn encode_decimal_or_unsigned(value: i128, out: &mut Vec<u8>) {
    encode_integer(value, out);
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow_array::{BinaryArray, Decimal128Array, Int32Array, Int64Array, StringArray};
    use proptest::prelude::*;

    use super::*;

    fn batch(columns: Vec<(&str, ArrayRef)>) -> RecordBatch {
        RecordBatch::try_from_iter(columns).unwrap()
    }

    #[test]
    fn integer_keys_do_not_depend_on_width() {
        let narrow = batch(vec![("id", Arc::new(Int32Array::from(vec![-5, 7])) as ArrayRef)]);
        let wide = batch(vec![("id", Arc::new(Int64Array::from(vec![-5, 7])) as ArrayRef)]);
        let unsigned = Decimal128Array::from(vec![7]).with_precision_and_scale(20, 0).unwrap();
        let unsigned = batch(vec![("id", Arc::new(unsigned) as ArrayRef)]);
        let (narrow, wide) = (RecordKeys::of(&narrow, &["id"]).unwrap(), RecordKeys::of(&wide, &["id"]).unwrap());
        assert_eq!(narrow.get(0), wide.get(0));
        assert_eq!(narrow.get(1).hash64(), RecordKeys::of(&unsigned, &["id"]).unwrap().get(0).hash64());
    }

    #[test]
    fn a_key_stays_in_its_bucket_whatever_its_columns_width() {
        let unsigned: Vec<i128> = (0..1_000).collect();
        let unsigned = Decimal128Array::from(unsigned).with_precision_and_scale(20, 0).unwrap();
        let unsigned = RecordKeys::of(&batch(vec![("id", Arc::new(unsigned) as ArrayRef)]), &["id"]).unwrap();
        let mut sizes = [0; 7];
        for id in 0..1_000 {
            let bucket = KeyRef::Int(id).bucket(7);
            assert_eq!(bucket, unsigned.get(id as usize).bucket(7));
            assert_eq!(KeyRef::Int(id).bucket(1), 0);
            sizes[bucket as usize] += 1;
        }
        assert!(sizes.iter().all(|size| (100..190).contains(size)), "{sizes:?}");
        // Where the rows of a table lie is durable: the hash of a key never changes.
        assert_eq!([0, 1, -1, i64::MAX].map(|id| KeyRef::Int(id).bucket(64)), [40, 50, 6, 6]);
    }

    #[test]
    fn composite_keys_never_run_together() {
        let left = batch(vec![
            ("a", Arc::new(StringArray::from(vec!["x", "xy"])) as ArrayRef),
            ("b", Arc::new(StringArray::from(vec!["yz", "z"])) as ArrayRef),
        ]);
        let keys = RecordKeys::of(&left, &["a", "b"]).unwrap();
        assert_ne!(keys.get(0), keys.get(1));
    }

    #[test]
    fn keys_that_are_taken_keep_their_form_and_the_order_asked_for() {
        let rows = batch(vec![
            ("a", Arc::new(StringArray::from(vec!["x", "", "yz"])) as ArrayRef),
            ("b", Arc::new(Int64Array::from(vec![1, 2, 3])) as ArrayRef),
        ]);
        for names in [&["b"][..], &["a", "b"]] {
            let keys = RecordKeys::of(&rows, names).unwrap();
            let taken = keys.take(&[2, 0]);
            assert_eq!((taken.len(), taken.get(0), taken.get(1)), (2, keys.get(2), keys.get(0)));
            let both = RecordKeys::interleave(&[&taken, &keys], &[(1, 1), (0, 0)]);
            assert_eq!((both.len(), both.get(0), both.get(1)), (2, keys.get(1), keys.get(2)));
        }
    }

    #[test]
    fn a_null_key_is_refused_by_name() {
        let rows = batch(vec![("id", Arc::new(Int32Array::from(vec![None, Some(1)])) as ArrayRef)]);
        assert_eq!(RecordKeys::of(&rows, &["id"]).unwrap_err(), KeyError::Null("id".into()));
    }

    proptest! {
        #[test]
        fn byte_keys_sort_as_their_values(a in prop::collection::vec(any::<u8>(), 0..6), b in prop::collection::vec(any::<u8>(), 0..6), x: i64, y: i64) {
            let rows = batch(vec![
                ("b", Arc::new(BinaryArray::from(vec![&a[..], &b[..]])) as ArrayRef),
                ("i", Arc::new(Int64Array::from(vec![x, y])) as ArrayRef),
            ]);
            let keys = RecordKeys::of(&rows, &["b", "i"]).unwrap();
            prop_assert_eq!(keys.get(0).cmp(&keys.get(1)), (&a, x).cmp(&(&b, y)));
        }
    }
}
