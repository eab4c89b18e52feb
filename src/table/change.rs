//! What one commit is asked to do, and what came of it.

use std::collections::BTreeSet;

use arrow_array::RecordBatch;
use weir_model::evolution::{Evolution, Moment, evolution};
use weir_model::key::KeyRef;
use weir_model::{Order, RecordKey, RecordKeys, TableSchema};

use super::buckets::Buckets;
use super::chunk::StagedChunk;
use super::read::orders_of_batch;
use super::record::TableState;
use crate::trace::{StageCount, Tally};

/// Everything that one commit changes: changes of the stream (after a `clear`, if there is one), or chunks, or the end
/// of a load; an additive `evolve` may go with each.
///
/// Where deletes are soft, rows that a `clear` or the end of a load finds stay and are marked; see [`Self::marks`].
#[derive(Debug)]
pub struct TableChange {
    pub clear: Option<Clear>,
    /// The table gets these columns. Without a `clear` of all buckets only additions can be; see [`super::Table::reshape`].
    pub evolve: Option<TableSchema>,
    /// Rows that become live, a bucket each at most once.
    pub rows: Vec<BucketRows>,
    /// Keys whose row goes, with the order of the delete.
    pub deletes: Vec<(RecordKey, Order)>,
    /// Parts of chunks whose upper bound has been passed: of each key the greater order stays. No key is in two of them.
    pub staged: Vec<StagedChunk>,
    /// Keys that chunks looked for at the source and did not find: what the table has of them below the chunk's order goes.
    pub absent: Vec<AbsentKeys>,
    pub remove_below: Option<RemoveBelow>,
    /// Where the table stands with this commit; epoch and number of commits are set by the table.
    pub state: TableState,
    /// What was counted on the way; chunk outcomes are added by the table.
    pub accounts: Tally,
}

/// Every row of some buckets goes; their deletes at or below the order are forgotten.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Clear {
    pub at: Order,
    pub buckets: BTreeSet<u32>,
}

/// Rows of one bucket, of which each becomes a live row; what was live of its key goes. A data file for each partition that
/// they lie in.
#[derive(Debug)]
pub struct BucketRows {
    pub bucket: u32,
    /// In the lake table's columns, ascending by key; in a table that is appended to, by order.
    pub rows: RecordBatch,
    /// The rows' keys; none in a table that is appended to.
    pub keys: RecordKeys,
}

/// Keys of one bucket that the source was without when a chunk was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AbsentKeys {
    pub bucket: u32,
    /// The order of the chunk.
    pub order0: Order,
    pub keys: Vec<RecordKey>,
}

/// Live rows of some buckets below an order go: what a load of them did not find.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoveBelow {
    pub order: Order,
    pub buckets: BTreeSet<u32>,
}

impl TableChange {
    /// A commit that changes nothing but the state.
    pub fn to(state: TableState) -> Self {
        Self {
            clear: None,
            evolve: None,
            rows: Vec::new(),
            deletes: Vec::new(),
            staged: Vec::new(),
            absent: Vec::new(),
            remove_below: None,
            state,
            accounts: Tally::default(),
        }
    }

    /// Whether rows that would go are marked as deleted instead: where deletes are soft, unless the table begins anew with
    /// columns that its rows do not have.
    pub(super) fn marks(&self, lake: &TableSchema) -> bool {
        lake.layout.deletes_softly() && self.evolve.as_ref().is_none_or(|next| extends(lake, next))
    }
}

/// What must hold of `change` so that it can be the next commit of a table with the columns of `lake`, by a writer of
/// `buckets`.
///
/// # Errors
/// Names the rule that is broken.
pub(super) fn may_be_committed(
    change: &TableChange,
    lake: &TableSchema,
    buckets: &Buckets,
) -> Result<(), &'static str> {
    let streams = !change.rows.is_empty() || !change.deletes.is_empty();
    let loads = !change.staged.is_empty() || !change.absent.is_empty();
    if (loads || change.remove_below.is_some()) && (streams || change.clear.is_some()) {
        return Err("changes of the stream come together with a chunk or the end of a load");
    }
    if loads && change.remove_below.is_some() {
        return Err("a load ends in the commit of a chunk");
    }
    names_owned(change, buckets)?;
    let next = change.evolve.as_ref().unwrap_or(lake);
    if next.layout != lake.layout || next.check_partitions_begin().is_err() {
        return Err("the table's layout changes, or a column that it is partitioned by goes");
    }
    let emptied = change.clear.as_ref().is_some_and(|clear| clear.buckets.len() == buckets.count as usize);
    if !emptied && !extends(lake, next) {
        return Err("a column was changed or moved while the table holds rows");
    }
    let lacks = |chunk: &StagedChunk| {
        let moment = Moment::Of(chunk.file.order0);
        evolution(next, &change.state.absences, &chunk.file.schema, moment) != Evolution::None
    };
    if change.staged.iter().any(lacks) {
        return Err("a chunk has columns that the table lacks, or has with other types");
    }
    if change.staged.iter().any(|chunk| chunk.file.schema.layout != lake.layout) {
        return Err("rows come in another layout than the table's: its [[table]] sections differ");
    }
    if lake.layout.deletes_softly() {
        may_be_marked(change, lake)?;
    }
    if lake.layout.is_append() {
        may_be_appended(change, lake)?;
    }
    chunks_may_enter(&change.staged, next)?;
    for rows in &change.rows {
        may_enter(rows, change, next, buckets)?;
    }
    if change.deletes.iter().any(|(key, order)| *order > change.state.greatest_of(buckets.of(key.as_ref()))) {
        return Err(ABOVE_GREATEST);
    }
    Ok(())
}

/// What must hold of a change of a table whose deletes are soft.
fn may_be_marked(change: &TableChange, lake: &TableSchema) -> Result<(), &'static str> {
    if !change.deletes.is_empty() {
        return Err("a row is to go from a table whose deletes are soft");
    }
    if !change.marks(lake) {
        return Ok(());
    }
    if change.clear.is_some() && !change.rows.is_empty() {
        return Err("rows are marked as deleted together with changes of the stream");
    }
    let cleared = change.clear.iter().map(|clear| (clear.at, &clear.buckets));
    let removed = change.remove_below.iter().map(|remove| (remove.order, &remove.buckets));
    let above =
        |(order, buckets): (Order, &BTreeSet<u32>)| buckets.iter().any(|b| order > change.state.greatest_of(*b));
    if cleared.chain(removed).any(above) {
        return Err(ABOVE_GREATEST);
    }
    Ok(())
}

/// What must hold of a change of a table that keeps every row.
fn may_be_appended(change: &TableChange, lake: &TableSchema) -> Result<(), &'static str> {
    let anew = change.evolve.as_ref().is_some_and(|next| !extends(lake, next));
    let goes = !change.deletes.is_empty()
        || !change.absent.is_empty()
        || change.remove_below.is_some()
        || change.clear.is_some() && !anew;
    if goes { Err("a row is to go from a table that is appended to") } else { Ok(()) }
}

/// What must hold of the rows that are appended to one bucket: every one is above what the bucket has come to.
///
/// # Errors
/// Names the rule that is broken.
pub(super) fn may_be_behind(entering: &BucketRows, greatest: Order) -> Result<(), &'static str> {
    let orders = orders_of_batch(&entering.rows);
    let rise = orders.windows(2).all(|pair| pair[0] < pair[1]);
    if rise && orders.first().is_none_or(|first| *first > greatest) {
        return Ok(());
    }
    Err("a change that is in would be appended again")
}

const ABOVE_GREATEST: &str = "a change is above the greatest order that the state tells";
const NOT_OWNED: &str = "a change is of a bucket that this writer does not have";

/// Every bucket that is named is the writer's, and comes once with rows of the stream at most.
fn names_owned(change: &TableChange, buckets: &Buckets) -> Result<(), &'static str> {
    let cleared = change.clear.iter().flat_map(|clear| &clear.buckets);
    let removed = change.remove_below.iter().flat_map(|remove| &remove.buckets);
    let of_rows: Vec<u32> = change.rows.iter().map(|rows| rows.bucket).collect();
    let chunk_buckets = change.staged.iter().map(|chunk| &chunk.file.bucket);
    let chunk_buckets = chunk_buckets.chain(change.absent.iter().map(|keys| &keys.bucket));
    if !cleared.chain(removed).chain(&of_rows).chain(chunk_buckets).all(|bucket| buckets.owns(*bucket)) {
        return Err(NOT_OWNED);
    }
    if buckets.count > 1 && !change.deletes.iter().all(|(key, _)| buckets.owns(buckets.of(key.as_ref()))) {
        return Err(NOT_OWNED);
    }
    let is_elsewhere = |absent: &AbsentKeys| absent.keys.iter().any(|key| buckets.of(key.as_ref()) != absent.bucket);
    if change.absent.iter().any(is_elsewhere) {
        return Err("a key that a chunk did not find is of another bucket than it says");
    }
    if !once(&of_rows) {
        return Err("a bucket comes twice");
    }
    Ok(())
}

fn once<T: Ord>(named: &[T]) -> bool {
    named.iter().collect::<BTreeSet<_>>().len() == named.len()
}

/// What must hold of the parts of chunks, which are laid out as `next` is.
fn chunks_may_enter(parts: &[StagedChunk], next: &TableSchema) -> Result<(), &'static str> {
    if !parts.iter().all(|chunk| chunk.file.partition.fits(&next.layout)) {
        return Err("a chunk was written for a table with other partitions");
    }
    // Each part is looked at on its own later; a key must not come in two.
    let buckets: BTreeSet<u32> = parts.iter().map(|chunk| chunk.file.bucket).collect();
    for bucket in buckets {
        let keys: Vec<&RecordKeys> = parts.iter().filter(|c| c.file.bucket == bucket).map(|c| &c.keys).collect();
        if keys.len() == 1 {
            continue;
        }
        let mut all: Vec<KeyRef<'_>> = keys.iter().flat_map(|keys| (0..keys.len()).map(|row| keys.get(row))).collect();
        all.sort_unstable();
        if all.windows(2).any(|pair| pair[0] == pair[1]) {
            return Err("a chunk has two rows of one key");
        }
    }
    Ok(())
}

/// What must hold of the rows of one bucket.
fn may_enter(
    entering: &BucketRows,
    change: &TableChange,
    next: &TableSchema,
    buckets: &Buckets,
) -> Result<(), &'static str> {
    let BucketRows { bucket, rows, keys } = entering;
    let keyed = if next.layout.is_append() { 0 } else { rows.num_rows() };
    if rows.schema() != next.lake_arrow() || keyed != keys.len() {
        return Err("rows have other columns than the table, or not a key each");
    }
    if (1..keys.len()).any(|row| keys.get(row - 1) >= keys.get(row)) {
        return Err("rows do not ascend by key, one a key");
    }
    if !all_in(keys, *bucket, buckets) {
        return Err("a row is of another bucket than its file");
    }
    if change.deletes.iter().any(|(key, _)| holds(keys, key)) {
        return Err("a key is both upserted and deleted");
    }
    if orders_of_batch(rows).into_iter().max().is_some_and(|newest| newest > change.state.greatest_of(*bucket)) {
        return Err(ABOVE_GREATEST);
    }
    Ok(())
}

/// Whether every key belongs to `bucket`.
pub(super) fn all_in(keys: &RecordKeys, bucket: u32, buckets: &Buckets) -> bool {
    buckets.count == 1 || (0..keys.len()).all(|row| buckets.of(keys.get(row)) == bucket)
}

/// Whether `next` is `lake` with columns added at the end.
pub(super) fn extends(lake: &TableSchema, next: &TableSchema) -> bool {
    let same = |(a, b): (&weir_model::Column, &weir_model::Column)| a.name == b.name && a.ty.arrow() == b.ty.arrow();
    lake.key == next.key && lake.columns.len() <= next.columns.len() && lake.columns.iter().zip(&next.columns).all(same)
}

/// Whether `key` is among `keys`, which ascend.
fn holds(keys: &RecordKeys, key: &RecordKey) -> bool {
    let (mut low, mut high) = (0, keys.len());
    while low < high {
        let middle = low.midpoint(high);
        match keys.get(middle).cmp(&key.as_ref()) {
            std::cmp::Ordering::Less => low = middle + 1,
            std::cmp::Ordering::Equal => return true,
            std::cmp::Ordering::Greater => high = middle,
        }
    }
    false
}

/// How a commit ended, where the caller goes on differently.
#[derive(Debug)]
pub enum CommitOutcome {
    Committed {
        version: i64,
        accounts: Vec<StageCount>,
    },
    /// Someone else has written what ours was to go behind: nothing of ours is in, and [`super::Table::absorb`] comes first.
    /// What its buckets have taken in may have moved too: changes that are in then are to be dropped.
    Moved,
    /// A service of a greater epoch has written the table, which is not shared.
    Fenced {
        epoch: u64,
    },
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow_array::Int64Array;
    use weir_model::{Column, ColumnType, TableId};

    use super::*;

    fn lake(columns: &[(&str, ColumnType)]) -> TableSchema {
        let column = |(name, ty): &(&str, ColumnType)| Column { name: (*name).into(), ty: ty.clone(), nullable: true };
        TableSchema {
            table: TableId::new("shop", "orders"),
            columns: columns.iter().map(column).collect(),
            key: vec![0],
            layout: weir_model::Layout::default(),
        }
    }

    fn change(ids: &[i64], order: Order) -> TableChange {
        let schema = lake(&[("id", ColumnType::Int64)]);
        let column = |values: Vec<i64>| Arc::new(Int64Array::from(values)) as _;
        let columns =
            vec![column(ids.to_vec()), column(vec![order.ts_ms; ids.len()]), column(vec![order.seq; ids.len()])];
        let rows = RecordBatch::try_new(schema.lake_arrow(), columns).unwrap();
        let keys = RecordKeys::of(&rows, &["id"]).unwrap();
        let state = TableState { greatest: vec![Order::new(1, 9)], ..TableState::default() };
        TableChange { rows: vec![BucketRows { bucket: 0, rows, keys }], ..TableChange::to(state) }
    }

    fn judge(change: &TableChange, lake: &TableSchema) -> Result<(), &'static str> {
        may_be_committed(change, lake, &Buckets::whole())
    }

    #[test]
    fn rows_that_repeat_a_key_or_pass_the_greatest_order_are_refused() {
        let lake = lake(&[("id", ColumnType::Int64)]);
        assert_eq!(judge(&change(&[1, 2, 5], Order::new(1, 9)), &lake), Ok(()));
        assert!(judge(&change(&[1, 2, 2], Order::new(1, 9)), &lake).is_err());
        assert!(judge(&change(&[2, 1], Order::new(1, 9)), &lake).is_err());
        assert!(judge(&change(&[1, 2, 5], Order::new(1, 10)), &lake).is_err());
        let mut both = change(&[1, 2, 5], Order::new(1, 9));
        both.deletes.push((RecordKey::Int(5), Order::new(1, 8)));
        assert!(judge(&both, &lake).is_err());
    }

    #[test]
    fn columns_of_rows_that_stay_are_only_added_to() {
        let (id, n, text) = (("id", ColumnType::Int64), ("n", ColumnType::Int32), ("text", ColumnType::Text));
        let before = lake(&[id.clone(), n.clone()]);
        let evolved = |columns: &[(&str, ColumnType)]| TableChange {
            evolve: Some(lake(columns)),
            ..TableChange::to(TableState::default())
        };
        assert_eq!(judge(&evolved(&[id.clone(), n.clone(), text.clone()]), &before), Ok(()));
        for refused in [&[id.clone()][..], &[n.clone(), id.clone()], &[id.clone(), text, n]] {
            assert!(judge(&evolved(refused), &before).is_err(), "{refused:?}");
        }
        let keyless = TableSchema { key: Vec::new(), ..before.clone() };
        let change = TableChange { evolve: Some(keyless), ..TableChange::to(TableState::default()) };
        assert!(judge(&change, &before).is_err());
    }

    #[test]
    fn columns_change_their_type_only_when_every_row_goes() {
        let before = lake(&[("id", ColumnType::Int64), ("n", ColumnType::Int32)]);
        let after = lake(&[("id", ColumnType::Int64), ("n", ColumnType::Int64)]);
        let mut change = TableChange { evolve: Some(after), ..TableChange::to(TableState::default()) };
        assert!(judge(&change, &before).is_err());
        change.clear = Some(Clear { at: Order::new(1, 1), buckets: [0].into() });
        assert_eq!(judge(&change, &before), Ok(()));
    }

    #[test]
    fn a_change_names_only_buckets_of_its_writer_and_keys_of_its_bucket() {
        let lake = lake(&[("id", ColumnType::Int64)]);
        let of = |bucket: u32| (0..).find(|id| weir_model::key::KeyRef::Int(*id).bucket(3) == bucket).unwrap();
        let buckets = Buckets { count: 3, owned: [0, 2].into() };
        let in_bucket = |id: i64, bucket: u32| {
            let mut change = change(&[id], Order::new(1, 9));
            change.rows[0].bucket = bucket;
            change.state.greatest = vec![Order::new(1, 9); 3];
            change
        };
        assert_eq!(may_be_committed(&in_bucket(of(2), 2), &lake, &buckets), Ok(()));
        assert!(may_be_committed(&in_bucket(of(2), 0), &lake, &buckets).is_err());
        assert!(may_be_committed(&in_bucket(of(1), 1), &lake, &buckets).is_err());
        let above = {
            let mut change = in_bucket(of(2), 2);
            change.state.greatest[2] = Order::new(1, 8);
            change
        };
        assert!(may_be_committed(&above, &lake, &buckets).is_err());

        let bare = || TableChange::to(TableState { greatest: vec![Order::new(1, 9); 3], ..TableState::default() });
        let deleted = |id| TableChange { deletes: vec![(RecordKey::Int(id), Order::new(1, 9))], ..bare() };
        let cleared =
            |bucket| TableChange { clear: Some(Clear { at: Order::new(1, 9), buckets: [bucket].into() }), ..bare() };
        let removed = |bucket| TableChange {
            remove_below: Some(RemoveBelow { order: Order::new(1, 9), buckets: [bucket].into() }),
            ..bare()
        };
        for (ours, theirs) in [(deleted(of(0)), deleted(of(1))), (cleared(0), cleared(1)), (removed(0), removed(1))] {
            assert_eq!(may_be_committed(&ours, &lake, &buckets), Ok(()));
            assert_eq!(may_be_committed(&theirs, &lake, &buckets), Err(NOT_OWNED));
        }
    }

    #[test]
    fn columns_of_a_table_of_which_some_buckets_go_are_only_added_to() {
        let before = lake(&[("id", ColumnType::Int64), ("n", ColumnType::Int32)]);
        let after = lake(&[("id", ColumnType::Int64), ("n", ColumnType::Int64)]);
        let mut change = TableChange { evolve: Some(after), ..TableChange::to(TableState::default()) };
        change.clear = Some(Clear { at: Order::new(1, 1), buckets: [0].into() });
        assert!(may_be_committed(&change, &before, &Buckets::all(2)).is_err());
        change.clear = Some(Clear { at: Order::new(1, 1), buckets: [0, 1].into() });
        assert_eq!(may_be_committed(&change, &before, &Buckets::all(2)), Ok(()));
    }
}
