//! The lake's rows at its newest version: of a part, or of single keys. Only files are read that may hold some.

use weir_model::RecordKey;
use weir_model::key::KeyRef;
use weir_model::key_parts::leading_integer;

use super::columns::SharedRows;
use super::entries::{Collected, Collector, RowVersion};
use super::parts::Cut;
use super::table::ComparedTable;
use super::{DeepError, DeepQuestion};
use crate::limits::DEEP_ATTEMPTS_MAX;
use crate::table::{Scan, TableError, history};
use weir_model::row_hash::RowHash;

/// What the lake has of a part.
#[derive(Debug)]
pub struct LakePart {
    pub rows: Collected,
    pub flaws: Flaws,
}

/// What is wrong with the lake's table beside its rows.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Flaws {
    /// Live rows whose key is NULL.
    pub rows_without_key: u64,
    /// Data files that the newest version names and that are not there; their rows count as missing.
    pub lost_files: Vec<String>,
}

/// Rows that one key has in the lake.
pub type KeyRows = Vec<(RowHash, RowVersion)>;

/// Reads the live rows of the part that `cut` says.
///
/// # Errors
/// When the lake cannot be read.
pub async fn collect(question: &DeepQuestion, table: &ComparedTable, cut: &Cut) -> Result<LakePart, DeepError> {
    for _ in 0..DEEP_ATTEMPTS_MAX {
        let mut collector = Collector::new(question.scratch.clone(), table.counting);
        let take = |rows: SharedRows| collector.push(rows).map_err(TableError::Disk);
        let wanted = |key: KeyRef<'_>| cut.contains(key);
        let read = read(question, table, |bounds| cut.may_hold(bounds), wanted, take).await;
        let read = read.map_err(|error| match error {
            DeepError::Table(TableError::Disk(source)) => question.scratch_error(source),
            error => error,
        })?;
        if let Some(mut flaws) = read {
            if !cut.is_first() {
                flaws.rows_without_key = 0;
            }
            return Ok(LakePart { rows: collector.finish(), flaws });
        }
    }
    Err(DeepError::Moved)
}

/// The live rows of each of `keys`, which ascend.
///
/// # Errors
/// When the lake cannot be read.
pub async fn look_up(
    question: &DeepQuestion,
    table: &ComparedTable,
    keys: &[RecordKey],
) -> Result<Vec<KeyRows>, DeepError> {
    let place = |key: KeyRef<'_>| keys.binary_search_by(|other| other.as_ref().cmp(&key)).ok();
    for _ in 0..DEEP_ATTEMPTS_MAX {
        let mut found = vec![KeyRows::new(); keys.len()];
        let take = |rows: SharedRows| {
            for (row, (hash, version)) in rows.hashes.into_iter().zip(rows.versions).enumerate() {
                if let Some(place) = place(rows.keys.get(row)) {
                    found[place].push((hash, version));
                }
            }
            Ok(())
        };
        let may_hold = |bounds| may_hold_any(keys, bounds);
        if read(question, table, may_hold, |key| place(key).is_some(), take).await?.is_some() {
            return Ok(found);
        }
    }
    Err(DeepError::Moved)
}

/// Whether a file whose rows' first key column, of whole numbers, lies between these, both included, may have a row of one of
/// `keys`, which ascend.
fn may_hold_any(keys: &[RecordKey], (least, greatest): (i64, i64)) -> bool {
    let leading = |key: &RecordKey| leading_integer(key.as_ref());
    let first = keys.partition_point(|key| leading(key) < least.into());
    keys.get(first).is_some_and(|key| leading(key) <= greatest.into())
}

/// Reads the newest version, of the files whose bounds `may_hold`, the rows whose keys are `wanted`; `None` if a file that it
/// names went since there is a newer one.
async fn read(
    question: &DeepQuestion,
    table: &ComparedTable,
    may_hold: impl Fn((i64, i64)) -> bool,
    wanted: impl Fn(KeyRef<'_>) -> bool,
    mut take: impl FnMut(SharedRows) -> Result<(), TableError>,
) -> Result<Option<Flaws>, DeepError> {
    let scan = Scan::open(&question.warehouse, &table.id, None, Some(table.columns.lake_names())).await?;
    let mut flaws = Flaws::default();
    for file in scan.files() {
        let bounds = table.columns.leading_in_lake().and_then(|leading| file.whole_bounds(leading));
        if bounds.is_some_and(|bounds| !may_hold(bounds)) {
            continue;
        }
        let read = scan.read(&file, |batch| {
            let rows = table.columns.of_lake(&batch, &wanted)?;
            flaws.rows_without_key += rows.without_key;
            take(rows)
        });
        match read.await {
            Ok(()) => {}
            Err(error) if error.is_lost_file() => {
                if history::newest_version(&question.warehouse, &table.id).await? != Some(scan.version()) {
                    return Ok(None);
                }
                flaws.lost_files.push(file.path().to_owned());
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(Some(flaws))
}

#[cfg(test)]
mod tests {
    use weir_model::key_parts::integer_prefix;

    use super::*;

    #[test]
    fn a_file_is_read_only_if_a_key_may_lie_in_it() {
        let ints = [5, 70].map(RecordKey::Int);
        let composite = [[5, -1], [70, 3]].map(|key| RecordKey::Bytes(integer_prefix(&key).into()));
        for keys in [ints, composite] {
            for (bounds, expected) in
                [((0, 4), false), ((0, 5), true), ((5, 5), true), ((6, 69), false), ((6, 70), true), ((71, 99), false)]
            {
                assert_eq!(may_hold_any(&keys, bounds), expected, "{bounds:?}");
            }
        }
        assert!(!may_hold_any(&[], (0, 9)));
    }
}
