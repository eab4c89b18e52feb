//! What changes that leave columns out are folded onto, read where it lies: rows of the lake by their places, and rows that only
//! the source knows, there.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::{Array, RecordBatch};
use foldhash::fast::RandomState;
use weir_model::schema::DELETED_COLUMN;
use weir_model::{ChangeBatch, GtidSet, Op, Order, RecordKey, RecordKeys};

use super::WorkerError;
use super::current::{CurrentRows, Found, read_until_answered};
use super::fold::{Base, Folded, Folds, Need, is_certain, is_partial, layers, need};
use super::markers::seed_of;
use super::pending::Pending;
use super::plan::StreamPlan;
use super::reduce::{ChangeAt, op, order};
use crate::table::{Located, RowAddress, Table, orders_of_batch};

/// Changes that leave columns out, and all that makes them whole.
#[derive(Debug, Default)]
pub struct Whole {
    pub folds: Folds,
    /// Rows of the lake table, in its columns.
    pub lake: Option<RecordBatch>,
    /// Rows of the source, by read.
    pub found: Vec<Found>,
}

/// A change of the plan that leaves columns out.
struct Winner {
    at: ChangeAt,
    layers: Vec<ChangeAt>,
    need: Need,
}

/// Finds what each change of `plan` that leaves columns out needs to become a row. One whose row the source has no more
/// is taken out of the plan's rows, as a delete: a change that is still to come says so.
///
/// `is_ending` tells whether somebody waits for the worker to end.
pub(super) async fn make_whole(
    table: &Table,
    source: Option<&Arc<dyn CurrentRows>>,
    pending: &Pending,
    keys: &[RecordKeys],
    plan: &mut StreamPlan,
    is_ending: impl Fn() -> bool,
) -> Result<Whole, WorkerError> {
    let batches = &pending.batches;
    if batches.iter().all(|batch| batch.images.are_whole()) {
        return Ok(Whole::default());
    }
    let partial: Vec<ChangeAt> = plan.upserts.iter().copied().filter(|at| is_partial(batches, *at)).collect();
    let state = table.state();
    let all = layers(batches, keys, &partial, |batch| state.greatest_of(pending.bucket(batch)));
    let winner = |(at, mut layers): (ChangeAt, Vec<ChangeAt>)| {
        let need = need(batches, &mut layers);
        Winner { at, layers, need }
    };
    let winners: Vec<Winner> = partial.into_iter().zip(all).map(winner).collect();
    let lake = LakeRows::of(table, batches, keys, &winners).await?;

    let mut whole = Whole::default();
    let mut at_source: Vec<(Winner, RecordKey)> = Vec::new();
    for winner in winners {
        let uncertain = seed_of(state, pending.bucket(winner.at.batch)).map(|seed| seed.start);
        match base_of(table, batches, &winner, &lake, uncertain) {
            Some(base) => {
                let Winner { at, layers, .. } = winner;
                whole.folds.insert(at, Folded { layers, base, is_gone: false });
            }
            None => {
                let key = key_of(keys, winner.at).to_owned();
                at_source.push((winner, key));
            }
        }
    }
    if !at_source.is_empty() {
        let wanted: Vec<RecordKey> = at_source.iter().map(|(_, key)| key.clone()).collect();
        let shown = batches.iter().fold(GtidSet::default(), |all, batch| all.union(&batch.images.transactions()));
        whole.found = read_until_answered(source, table.schema(), &wanted, &shown, is_ending).await?;
        take_found(table, batches, at_source, &lake, plan, &mut whole);
    }
    whole.lake = lake.rows;
    Ok(whole)
}

/// Refuses changes of a table that is appended to that leave columns out: every change is a row there, with the values that it had
/// then, and those nobody can tell by now.
pub(super) fn require_whole(batches: &[ChangeBatch]) -> Result<(), WorkerError> {
    match batches.iter().find(|batch| !batch.images.are_whole()) {
        None => Ok(()),
        Some(batch) => Err(WorkerError::Rows(format!(
            "a row event of {table} leaves columns out, and a table with mode = \"append\" keeps the values that each change \
             had; set binlog_row_image=FULL on the source, in every session that writes, then load the table with `weir \
             snapshot --table {table}`",
            table = batch.schema.table
        ))),
    }
}

/// Lays changes over what the source has of their keys.
fn take_found(
    table: &Table,
    batches: &[ChangeBatch],
    at_source: Vec<(Winner, RecordKey)>,
    lake: &LakeRows,
    plan: &mut StreamPlan,
    whole: &mut Whole,
) {
    let mut found: HashMap<RecordKey, Base, RandomState> = HashMap::default();
    for (read, rows) in whole.found.iter().enumerate() {
        for row in 0..rows.keys.len() {
            found.insert(rows.keys.get(row).to_owned(), Base::Source(read as u32, row as u32));
        }
    }
    let mut gone: HashSet<ChangeAt, RandomState> = HashSet::default();
    let keeps_deleted = table.schema().layout.deletes_softly();
    for (Winner { at, layers, .. }, key) in at_source {
        match found.get(&key) {
            Some(base) => whole.folds.insert(at, Folded { layers, base: *base, is_gone: false }),
            None if keeps_deleted => {
                let base = lake.place(at).map_or(Base::None, Base::Lake);
                whole.folds.insert(at, Folded { layers, base, is_gone: true });
            }
            None => {
                gone.insert(at);
                plan.deletes.push((key, order(batches, at)));
            }
        }
    }
    plan.upserts.retain(|at| !gone.contains(at));
}

/// What lies below a change here; `None` if that is to be read at the source.
fn base_of(
    table: &Table,
    batches: &[ChangeBatch],
    winner: &Winner,
    lake: &LakeRows,
    uncertain: Option<Order>,
) -> Option<Base> {
    let row = lake.place(winner.at);
    if op(batches, winner.at) == Op::Delete {
        // The source has it no more: what is kept of it is what the lake had, if it had anything.
        return Some(if winner.need == Need::Nothing { Base::None } else { row.map_or(Base::None, Base::Lake) });
    }
    match &winner.need {
        Need::Nothing => Some(Base::None),
        Need::Source => None,
        Need::Row(columns) => {
            let row = row.filter(|row| !lake.is_deleted(*row))?;
            let is_certain = is_certain(batches, &winner.layers, lake.orders[row as usize], uncertain);
            let has_all = columns.iter().all(|name| table.schema().column_index(name).is_some());
            (is_certain && has_all).then_some(Base::Lake(row))
        }
    }
}

fn key_of(keys: &[RecordKeys], at: ChangeAt) -> weir_model::key::KeyRef<'_> {
    keys[at.batch as usize].get(at.row as usize)
}

/// Rows of the lake that changes may be folded onto.
#[derive(Default)]
struct LakeRows {
    rows: Option<RecordBatch>,
    places: HashMap<ChangeAt, u32, RandomState>,
    orders: Vec<Order>,
}

impl LakeRows {
    async fn of(
        table: &Table,
        batches: &[ChangeBatch],
        keys: &[RecordKeys],
        winners: &[Winner],
    ) -> Result<Self, WorkerError> {
        let wants = |winner: &&Winner| match winner.need {
            Need::Nothing => false,
            Need::Row(_) => true,
            Need::Source => op(batches, winner.at) == Op::Delete,
        };
        let wanted: Vec<ChangeAt> = winners.iter().filter(wants).map(|winner| winner.at).collect();
        let located = table.locate_all(&wanted.iter().map(|at| key_of(keys, *at)).collect::<Vec<_>>());
        let mut lake = Self::default();
        let mut addresses: Vec<RowAddress> = Vec::new();
        for (at, located) in wanted.into_iter().zip(located) {
            if let Located::Live(address) = located {
                lake.places.insert(at, addresses.len() as u32);
                addresses.push(address);
            }
        }
        if !addresses.is_empty() {
            let rows = table.rows_at(&addresses).await?;
            lake.orders = orders_of_batch(&rows);
            lake.rows = Some(rows);
        }
        Ok(lake)
    }

    /// The row of a change's key.
    fn place(&self, at: ChangeAt) -> Option<u32> {
        self.places.get(&at).copied()
    }

    /// Whether a row is marked as deleted.
    fn is_deleted(&self, row: u32) -> bool {
        let marks = self.rows.as_ref().and_then(|rows| rows.column_by_name(DELETED_COLUMN));
        let marks = marks.map(|marks| marks.as_boolean());
        marks.is_some_and(|marks| marks.is_valid(row as usize) && marks.value(row as usize))
    }
}
