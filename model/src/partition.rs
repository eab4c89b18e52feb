//! Partition columns: which of the source's columns can be one, or have one made of it, and what is made of it. Pure.
//!
//! A row's partition follows from its own values alone: an update that changes them moves the row.

use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::{Date32Type, TimestampMicrosecondType};
use arrow_array::{Array, ArrayRef, Date32Array, Int32Array, StringArray, new_null_array};
use arrow_schema::{ArrowError, DataType};

use crate::key::hash_of_value;
use crate::layout::{Partition, Transform};
use crate::schema::TableSchema;
use crate::value::ColumnType;

const MICROS_A_DAY: i64 = 86_400_000_000;
const MICROS_AN_HOUR: i64 = 3_600_000_000;

impl TableSchema {
    /// Whether the table's columns, as far as they are there, can have the partitions of its layout.
    ///
    /// # Errors
    /// Names the partition and the way out.
    pub fn check_partitions(&self) -> Result<(), String> {
        for partition in &self.layout.partitions {
            let Partition { name, column, transform } = partition;
            if *transform != Transform::Identity && self.column_index(name).is_some() {
                return Err(format!(
                    "partition_by = \"{partition}\" makes a column that {} has already; give it another name",
                    self.table
                ));
            }
            // One that the source no longer has is NULL from then on.
            let Some(of) = self.column_index(column).map(|i| &self.columns[i]) else { continue };
            if !transform.takes(&of.ty) {
                return Err(format!(
                    "partition_by = \"{partition}\": {column} is of the lake's type {}, and {}; `{column}_bucket = \
                     bucket(16, {column})` takes any column",
                    of.ty.delta(),
                    transform.taken()
                ));
            }
        }
        Ok(())
    }

    /// Whether a lake table can begin with these columns: those that it is partitioned by are there, spelled as in its
    /// folders' names, and can be.
    ///
    /// # Errors
    /// Names the partition and the way out.
    pub fn check_partitions_begin(&self) -> Result<(), String> {
        for partition in &self.layout.partitions {
            let column = self.column_index(&partition.column).map(|i| &self.columns[i].name);
            let Some(column) = column else {
                return Err(format!(
                    "partition_by = \"{partition}\": {} has no column {}",
                    self.table, partition.column
                ));
            };
            if partition.transform == Transform::Identity && *column != partition.name {
                return Err(format!("partition_by = \"{partition}\": the source spells it {column}; do the same"));
            }
        }
        self.check_partitions()
    }

    /// The partition columns that are made of others, for `rows` rows that have these columns of the source.
    ///
    /// # Errors
    /// When a column's type is not one that its partition takes.
    pub fn made_columns(&self, columns: &[ArrayRef], rows: usize) -> Result<Vec<ArrayRef>, ArrowError> {
        let mut made = Vec::new();
        for partition in &self.layout.partitions {
            let Some(ty) = partition.transform.arrow() else { continue };
            made.push(match self.column_index(&partition.column) {
                Some(i) => partition.transform.apply(&columns[i])?,
                None => new_null_array(&ty, rows),
            });
        }
        Ok(made)
    }
}

impl Transform {
    /// Whether a partition column can be made so of a column of type `ty`.
    fn takes(self, ty: &ColumnType) -> bool {
        match self {
            // Of decimals, which BIGINT UNSIGNED becomes, not every reader takes all digits from a folder's name.
            Self::Identity if *ty == ColumnType::UInt64 => false,
            Self::Identity => {
                ty.is_integer() || matches!(ty, ColumnType::Date | ColumnType::Text | ColumnType::Enum(_))
            }
            Self::Year | Self::Month | Self::Day => {
                matches!(ty, ColumnType::Date | ColumnType::DateTime { .. } | ColumnType::Timestamp { .. })
            }
            Self::Hour => matches!(ty, ColumnType::DateTime { .. } | ColumnType::Timestamp { .. }),
            Self::Bucket(_) => true,
        }
    }

    /// What [`Self::takes`] says, in words.
    fn taken(self) -> &'static str {
        match self {
            Self::Identity => {
                "files are partitioned by a date, an integer up to BIGINT, or a CHAR, VARCHAR, TEXT or ENUM column"
            }
            Self::Year | Self::Month | Self::Day => "it takes a DATE, DATETIME or TIMESTAMP column",
            Self::Hour => "it takes a DATETIME or TIMESTAMP column",
            Self::Bucket(_) => "it takes any column",
        }
    }

    /// What is made of `column`, value by value; of NULL NULL. Moments are taken in UTC, those without a zone as they are.
    fn apply(self, column: &ArrayRef) -> Result<ArrayRef, ArrowError> {
        let rows = 0..column.len();
        if let Self::Bucket(count) = self {
            let mut bytes = Vec::new();
            let bucket =
                |row| column.is_valid(row).then(|| (hash_of_value(column, row, &mut bytes) % u64::from(count)) as i32);
            return Ok(Arc::new(rows.map(bucket).collect::<Int32Array>()));
        }
        let moments = Moments::of(column).ok_or_else(|| {
            ArrowError::InvalidArgumentError(format!("no partition by date is made of {}", column.data_type()))
        })?;
        let day = |row| column.is_valid(row).then(|| moments.day(row));
        Ok(match self {
            Self::Year => Arc::new(rows.map(|row| day(row).map(|day| civil_of_days(day).0)).collect::<Int32Array>()),
            Self::Day => Arc::new(rows.map(|row| day(row).map(|day| day as i32)).collect::<Date32Array>()),
            Self::Month => Arc::new(rows.map(|row| day(row).map(month_text)).collect::<StringArray>()),
            Self::Hour => {
                let text = |row| day(row).map(|day| format!("{}-{:02}", date_text(day), moments.hour(row)));
                Arc::new(rows.map(text).collect::<StringArray>())
            }
            Self::Identity | Self::Bucket(_) => column.clone(),
        })
    }
}

/// A column that tells moments, or at least days.
enum Moments<'a> {
    Days(&'a [i32]),
    Micros(&'a [i64]),
}

impl<'a> Moments<'a> {
    fn of(column: &'a ArrayRef) -> Option<Self> {
        match column.data_type() {
            DataType::Date32 => Some(Self::Days(column.as_primitive::<Date32Type>().values())),
            DataType::Timestamp(..) => Some(Self::Micros(column.as_primitive::<TimestampMicrosecondType>().values())),
            _ => None,
        }
    }

    /// Days since 1970-01-01.
    fn day(&self, row: usize) -> i64 {
        match self {
            Self::Days(days) => days[row].into(),
            Self::Micros(micros) => micros[row].div_euclid(MICROS_A_DAY),
        }
    }

    /// From 0 to 23.
    fn hour(&self, row: usize) -> i64 {
        match self {
            Self::Days(_) => 0,
            Self::Micros(micros) => micros[row].rem_euclid(MICROS_A_DAY) / MICROS_AN_HOUR,
        }
    }
}

/// A day, counted from 1970-01-01, as `2026-11-21`.
pub fn date_text(days: i64) -> String {
    let (year, month, day) = civil_of_days(days);
    format!("{year:04}-{month:02}-{day:02}")
}

fn month_text(days: i64) -> String {
    let (year, month, _) = civil_of_days(days);
    format!("{year:04}-{month:02}")
}

/// Year, month and day of a day since 1970-01-01 in the proleptic Gregorian calendar (the civil-from-days algorithm).
pub fn civil_of_days(days: i64) -> (i32, i64, i64) {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    ((year_of_era + era * 400 + i64::from(month <= 2)) as i32, month, day)
}

#[cfg(test)]
mod tests {
    use arrow_array::{Int64Array, TimestampMicrosecondArray};
    use proptest::prelude::*;

    use super::*;
    use crate::column::days_from_civil;
    use crate::key::KeyRef;
    use crate::layout::Layout;
    use crate::schema::{Column, TableId};

    fn table(columns: &[(&str, ColumnType)], partition_by: &[&str]) -> TableSchema {
        let column = |(name, ty): &(&str, ColumnType)| Column { name: (*name).into(), ty: ty.clone(), nullable: true };
        let partitions = partition_by.iter().map(|text| text.parse().unwrap()).collect();
        TableSchema {
            table: TableId::new("shop", "orders"),
            columns: columns.iter().map(column).collect(),
            key: vec![0],
            layout: Layout { partitions, ..Layout::default() },
        }
    }

    /// What the made columns say of one value, as text.
    fn made(column: ArrayRef, ty: ColumnType, partition_by: &[&str]) -> Vec<String> {
        let schema = table(&[("c", ty)], partition_by);
        let columns = schema.made_columns(&[column], 1).unwrap();
        let text = |column: &ArrayRef| match column.data_type() {
            _ if column.is_null(0) => "NULL".to_owned(),
            DataType::Int32 => column.as_primitive::<arrow_array::types::Int32Type>().value(0).to_string(),
            DataType::Date32 => date_text(column.as_primitive::<Date32Type>().value(0).into()),
            _ => column.as_string::<i32>().value(0).to_owned(),
        };
        columns.iter().map(text).collect()
    }

    const ALL: [&str; 5] = ["y = year(c)", "m = month(c)", "d = day(c)", "h = hour(c)", "b = bucket(8, c)"];

    #[test]
    fn moments_are_taken_by_their_parts_in_utc() {
        let at = |micros| -> ArrayRef { Arc::new(TimestampMicrosecondArray::from(vec![micros])) };
        let last_micro = 1_795_230_000_000_000 - 1;
        let values = made(at(last_micro), ColumnType::DateTime { fsp: 6 }, &ALL[..4]);
        assert_eq!(values, ["2026", "2026-11", "2026-11-21", "2026-11-21-02"]);
        let values = made(at(-1), ColumnType::Timestamp { fsp: 6 }, &ALL[..4]);
        assert_eq!(values, ["1969", "1969-12", "1969-12-31", "1969-12-31-23"]);
        let early = i64::from(days_from_civil(7, 3, 1).unwrap()) * MICROS_A_DAY;
        let values = made(at(early), ColumnType::DateTime { fsp: 0 }, &ALL[..4]);
        assert_eq!(values, ["7", "0007-03", "0007-03-01", "0007-03-01-00"]);
    }

    #[test]
    fn null_stays_null_and_a_column_that_is_gone_is_null() {
        let null: ArrayRef = Arc::new(TimestampMicrosecondArray::from(vec![None]));
        assert_eq!(made(null, ColumnType::DateTime { fsp: 0 }, &ALL), ["NULL"; 5]);
        let one: ArrayRef = Arc::new(Int64Array::from(vec![1]));
        assert_eq!(made(one, ColumnType::Int64, &["d = day(gone)", "b = bucket(4, gone)"]), ["NULL"; 2]);
    }

    #[test]
    fn a_bucket_is_that_of_the_value_as_a_record_key() {
        for value in [0, 1, -1, i64::MAX] {
            let expected = (KeyRef::Int(value).hash64() % 8).to_string();
            let column: ArrayRef = Arc::new(Int64Array::from(vec![value]));
            assert_eq!(made(column, ColumnType::Int64, &["b = bucket(8, c)"]), [expected]);
        }
        // Where rows lie is durable: what is made of a text never changes.
        let column: ArrayRef = Arc::new(StringArray::from(vec!["näw"]));
        assert_eq!(made(column, ColumnType::Text, &["b = bucket(1000, c)"]), ["360"]);
    }

    #[test]
    fn what_a_column_cannot_be_partitioned_by_is_refused_with_what_it_can() {
        let columns = [
            ("id", ColumnType::Int64),
            ("at", ColumnType::DateTime { fsp: 0 }),
            ("on", ColumnType::Date),
            ("name", ColumnType::Text),
            ("big", ColumnType::UInt64),
            ("price", ColumnType::Decimal { precision: 10, scale: 2 }),
            ("bits", ColumnType::Boolean),
        ];
        let good = ["id", "on", "name", "d = day(at)", "h = hour(at)", "m = month(on)", "b = bucket(9, price)"];
        for partition in good {
            assert_eq!(table(&columns, &[partition]).check_partitions_begin(), Ok(()), "{partition}");
        }
        for partition in ["at", "big", "price", "bits", "h = hour(on)", "y = year(name)", "d = day(id)"] {
            let refused = table(&columns, &[partition]).check_partitions().unwrap_err();
            assert!(refused.contains(partition) && refused.contains("bucket(16,"), "{refused}");
        }
        for (partition, word) in [("gone", "no column gone"), ("ID", "spells it id"), ("d = day(gone)", "gone")] {
            let schema = table(&columns, &[partition]);
            assert_eq!(schema.check_partitions(), Ok(()), "an older table may have had it");
            assert!(schema.check_partitions_begin().unwrap_err().contains(word));
        }
        let taken = table(&columns, &["ON = day(at)"]).check_partitions().unwrap_err();
        assert!(taken.contains("another name"), "{taken}");
    }

    proptest! {
        #[test]
        fn days_are_told_as_they_were_counted(year in 0_u16..=9999, month in 1_u8..=12, day in 1_u8..=28) {
            let days = days_from_civil(year, month, day).unwrap();
            prop_assert_eq!(civil_of_days(days.into()), (i32::from(year), i64::from(month), i64::from(day)));
            let next = civil_of_days(i64::from(days) + 1);
            prop_assert!(next > civil_of_days(days.into()));
        }
    }
}
