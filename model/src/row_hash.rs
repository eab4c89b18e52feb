//! What a row is compared by: a hash of its values in one canonical form. Pure.
//!
//! Whoever compares brings the columns of both sides to the same order and types first; then rows hash alike exactly if every
//! value is the same: NULL is not an empty text, blanks at the end count, and so does every bit of a float.

use std::ops::AddAssign;

use arrow_array::cast::AsArray;
use arrow_array::types::{
    Date32Type, Decimal128Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type,
    TimestampMicrosecondType,
};
use arrow_array::{Array, ArrayRef};
use arrow_schema::DataType;

/// 128 bits of a row's values. Among 10^12 rows the chance that two different ones share it is below 10^-14.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RowHash(pub u128);

/// How many rows a side has, and the sum of their hashes mod 2^128: equal for the same rows in any order. A sum, since under
/// XOR a doubled row would cancel itself out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RowsDigest {
    pub rows: u64,
    sum: u128,
}

impl AddAssign<RowHash> for RowsDigest {
    fn add_assign(&mut self, row: RowHash) {
        self.rows += 1;
        self.sum = self.sum.wrapping_add(row.0);
    }
}

impl AddAssign for RowsDigest {
    fn add_assign(&mut self, other: Self) {
        self.rows += other.rows;
        self.sum = self.sum.wrapping_add(other.sum);
    }
}

/// Rows whose bytes are laid out together: few enough to stay in a core's cache.
const BLOCK_ROWS: usize = 512;

/// Mark of a NULL, and of a value; what follows a value's has its length, or a length of its own before it.
const NULL: u8 = 0;
const VALUE: u8 = 1;

/// The hash of each of `rows` rows that have these columns.
pub fn row_hashes(columns: &[ArrayRef], rows: usize) -> Vec<RowHash> {
    let mut hashes = Vec::with_capacity(rows);
    let mut bytes: Vec<Vec<u8>> = vec![Vec::new(); BLOCK_ROWS.min(rows)];
    for first in (0..rows).step_by(BLOCK_ROWS) {
        let block = &mut bytes[..BLOCK_ROWS.min(rows - first)];
        block.iter_mut().for_each(Vec::clear);
        // A column at a time, so that its type is looked at once a block.
        for column in columns {
            lay_out(column, first, block);
        }
        hashes.extend(block.iter().map(|row| RowHash(xxhash_rust::xxh3::xxh3_128(row))));
    }
    hashes
}

/// Appends the column's values of the rows from `first` on, each to its row's bytes.
fn lay_out(column: &ArrayRef, first: usize, block: &mut [Vec<u8>]) {
    match column.data_type() {
        DataType::Int8 => fixed(column, first, block, |row| i64::from(column.as_primitive::<Int8Type>().value(row))),
        DataType::Int16 => {
            let values = column.as_primitive::<Int16Type>();
            fixed(column, first, block, |row| i64::from(values.value(row)));
        }
        DataType::Int32 => {
            let values = column.as_primitive::<Int32Type>();
            fixed(column, first, block, |row| i64::from(values.value(row)));
        }
        DataType::Int64 => {
            let values = column.as_primitive::<Int64Type>();
            fixed(column, first, block, |row| values.value(row));
        }
        DataType::Date32 => {
            let values = column.as_primitive::<Date32Type>();
            fixed(column, first, block, |row| i64::from(values.value(row)));
        }
        DataType::Timestamp(..) => {
            let values = column.as_primitive::<TimestampMicrosecondType>();
            fixed(column, first, block, |row| values.value(row));
        }
        DataType::Boolean => {
            let values = column.as_boolean();
            fixed(column, first, block, |row| i64::from(values.value(row)));
        }
        DataType::Float32 => {
            let values = column.as_primitive::<Float32Type>();
            fixed(column, first, block, |row| i64::from(values.value(row).to_bits()));
        }
        DataType::Float64 => {
            let values = column.as_primitive::<Float64Type>();
            fixed(column, first, block, |row| values.value(row).to_bits() as i64);
        }
        DataType::Decimal128(..) => {
            let values = column.as_primitive::<Decimal128Type>();
            each(column, first, block, |row, bytes| bytes.extend_from_slice(&values.value(row).to_le_bytes()));
        }
        DataType::Utf8 => {
            let values = column.as_string::<i32>();
            each(column, first, block, |row, bytes| variable(values.value(row).as_bytes(), bytes));
        }
        DataType::Binary => {
            let values = column.as_binary::<i32>();
            each(column, first, block, |row, bytes| variable(values.value(row), bytes));
        }
        other => unreachable!("no source column has the Arrow type {other}"),
    }
}

/// Eight bytes a value, whatever its width: rows hash alike however wide an integer column is.
fn fixed(column: &ArrayRef, first: usize, block: &mut [Vec<u8>], value: impl Fn(usize) -> i64) {
    each(column, first, block, |row, bytes| bytes.extend_from_slice(&value(row).to_le_bytes()));
}

fn variable(value: &[u8], bytes: &mut Vec<u8>) {
    bytes.extend_from_slice(&(value.len() as u64).to_le_bytes());
    bytes.extend_from_slice(value);
}

fn each(column: &ArrayRef, first: usize, block: &mut [Vec<u8>], put: impl Fn(usize, &mut Vec<u8>)) {
    let has_nulls = column.null_count() > 0;
    for (row, bytes) in (first..).zip(block) {
        if has_nulls && column.is_null(row) {
            bytes.push(NULL);
        } else {
            bytes.push(VALUE);
            put(row, bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow_array::{BinaryArray, Float64Array, Int32Array, Int64Array, StringArray, new_null_array};
    use proptest::prelude::*;

    use super::*;

    fn hashes(columns: Vec<ArrayRef>) -> Vec<RowHash> {
        let rows = columns[0].len();
        row_hashes(&columns, rows)
    }

    fn texts(values: &[Option<&str>]) -> ArrayRef {
        Arc::new(StringArray::from(values.to_vec()))
    }

    #[test]
    fn rows_that_look_alike_are_told_apart() {
        let values = hashes(vec![texts(&[None, Some(""), Some(" "), Some("a"), Some("a "), Some("A")])]);
        let floats: ArrayRef = Arc::new(Float64Array::from(vec![0.0, -0.0, f64::NAN, -f64::NAN, f64::MIN_POSITIVE]));
        for hashes in [values, hashes(vec![floats])] {
            for (n, hash) in hashes.iter().enumerate() {
                assert!(!hashes[n + 1..].contains(hash), "{n}");
            }
        }
    }

    #[test]
    fn values_do_not_run_together() {
        let split = |a, b| hashes(vec![texts(&[a]), texts(&[b])]);
        assert_ne!(split(Some("xy"), Some("z")), split(Some("x"), Some("yz")));
        assert_ne!(split(None, Some("")), split(Some(""), None));
        let null = new_null_array(&DataType::Int64, 1);
        assert_ne!(hashes(vec![null.clone(), texts(&[Some("a")])]), hashes(vec![texts(&[Some("a")]), null]));
    }

    #[test]
    fn the_width_of_an_integer_does_not_matter() {
        let narrow = hashes(vec![Arc::new(Int32Array::from(vec![Some(-5), None, Some(7)]))]);
        assert_eq!(narrow, hashes(vec![Arc::new(Int64Array::from(vec![Some(-5), None, Some(7)]))]));
    }

    #[test]
    fn a_digest_knows_no_order_and_sees_a_doubled_row() {
        let digest = |rows: &[u128]| {
            rows.iter().fold(RowsDigest::default(), |mut digest, row| {
                digest += RowHash(*row);
                digest
            })
        };
        assert_eq!(digest(&[u128::MAX, 7]), digest(&[7, u128::MAX]));
        assert_ne!(digest(&[7]), digest(&[7, 7, 7]));
    }

    proptest! {
        /// Whatever lies before or behind a row in its batch, and in however many blocks, its hash is its own.
        #[test]
        fn a_row_hashes_as_it_does_alone(
            rows in prop::collection::vec((any::<Option<i64>>(), any::<Option<Vec<u8>>>()), 1..1_200),
            at in any::<prop::sample::Index>(),
        ) {
            let columns = |rows: &[(Option<i64>, Option<Vec<u8>>)]| -> Vec<ArrayRef> {
                vec![
                    Arc::new(rows.iter().map(|row| row.0).collect::<Int64Array>()),
                    Arc::new(rows.iter().map(|row| row.1.as_deref()).collect::<BinaryArray>()),
                ]
            };
            let at = at.index(rows.len());
            prop_assert_eq!(hashes(columns(&rows))[at], hashes(columns(&rows[at..=at]))[0]);
        }
    }
}
