//! What one commit is asked to do, and what came of it.

use arrow_array::RecordBatch;
use weir_model::schema::{Evolution, evolution};
use weir_model::{Order, RecordKey, RecordKeys, TableSchema};

use super::chunk::StagedChunk;
use super::read::orders_of_batch;
use super::record::TableState;
use crate::trace::{StageCount, Tally};

/// Everything that one commit changes: changes of the stream (after a `clear`, if there is one), or a chunk, or the end
/// of a load; an additive `evolve` may go with each.
#[derive(Debug)]
pub struct TableChange {
    /// Every row goes; deletes at or below this order are forgotten.
    pub clear: Option<Order>,
    /// The table gets these columns. Without `clear` only additions can be.
    pub evolve: Option<TableSchema>,
    /// Rows that become live, in the lake table's columns and ascending by key, with their keys. What was live of a
    /// key goes.
    pub rows: Option<(RecordBatch, RecordKeys)>,
    /// Keys whose row goes, with the order of the delete.
    pub deletes: Vec<(RecordKey, Order)>,
    /// A chunk whose upper bound has been passed: of each key the greater order stays.
    pub staged: Option<StagedChunk>,
    /// Live rows below this order go: what a load of the whole table did not find.
    pub remove_below: Option<Order>,
    /// Where the table stands with this commit; epoch and number of commits are set by the table.
    pub state: TableState,
    /// What was counted on the way; chunk outcomes are added by the table.
    pub accounts: Tally,
}

impl TableChange {
    /// A commit that changes nothing but the state.
    pub fn to(state: TableState) -> Self {
        Self {
            clear: None,
            evolve: None,
            rows: None,
            deletes: Vec::new(),
            staged: None,
            remove_below: None,
            state,
            accounts: Tally::default(),
        }
    }
}

/// What must hold of `change` so that it can be the next commit of a table with the columns of `lake`.
///
/// # Errors
/// Names the rule that is broken.
pub(super) fn may_be_committed(change: &TableChange, lake: &TableSchema) -> Result<(), &'static str> {
    let streams = change.rows.is_some() || !change.deletes.is_empty();
    let cleared = change.clear.is_some();
    if (change.staged.is_some() || change.remove_below.is_some()) && (streams || cleared) {
        return Err("changes of the stream come together with a chunk or the end of a load");
    }
    if change.staged.is_some() && change.remove_below.is_some() {
        return Err("a load ends in the commit of a chunk");
    }
    let next = change.evolve.as_ref().unwrap_or(lake);
    if !cleared && !extends(lake, next) {
        return Err("a column was changed or moved while the table holds rows");
    }
    if let Some(chunk) = &change.staged
        && evolution(next, &chunk.schema) != Evolution::None
    {
        return Err("a chunk has columns that the table lacks, or has with other types");
    }
    let greatest = change.state.greatest.iter().copied().max().unwrap_or(Order::MIN);
    let mut newest = change.deletes.iter().map(|(_, order)| *order).max().unwrap_or(Order::MIN);
    if let Some((rows, keys)) = &change.rows {
        if rows.schema() != next.lake_arrow() || rows.num_rows() != keys.len() {
            return Err("rows have other columns than the table, or not a key each");
        }
        if (1..keys.len()).any(|row| keys.get(row - 1) >= keys.get(row)) {
            return Err("rows do not ascend by key, one a key");
        }
        if change.deletes.iter().any(|(key, _)| holds(keys, key)) {
            return Err("a key is both upserted and deleted");
        }
        newest = orders_of_batch(rows).into_iter().max().map_or(newest, |order| order.max(newest));
    }
    if newest > greatest {
        return Err("a change is above the greatest order that the state tells");
    }
    Ok(())
}

/// Whether `next` is `lake` with columns added at the end.
fn extends(lake: &TableSchema, next: &TableSchema) -> bool {
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
    /// Someone else has written this version: nothing of ours is in, and the table must be opened anew.
    Moved,
    /// A service of a greater epoch has written the table.
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
        TableChange { rows: Some((rows, keys)), ..TableChange::to(state) }
    }

    #[test]
    fn rows_that_repeat_a_key_or_pass_the_greatest_order_are_refused() {
        let lake = lake(&[("id", ColumnType::Int64)]);
        assert_eq!(may_be_committed(&change(&[1, 2, 5], Order::new(1, 9)), &lake), Ok(()));
        assert!(may_be_committed(&change(&[1, 2, 2], Order::new(1, 9)), &lake).is_err());
        assert!(may_be_committed(&change(&[2, 1], Order::new(1, 9)), &lake).is_err());
        assert!(may_be_committed(&change(&[1, 2, 5], Order::new(1, 10)), &lake).is_err());
        let mut both = change(&[1, 2, 5], Order::new(1, 9));
        both.deletes.push((RecordKey::Int(5), Order::new(1, 8)));
        assert!(may_be_committed(&both, &lake).is_err());
    }

    #[test]
    fn columns_of_rows_that_stay_are_only_added_to() {
        let (id, n, text) = (("id", ColumnType::Int64), ("n", ColumnType::Int32), ("text", ColumnType::Text));
        let before = lake(&[id.clone(), n.clone()]);
        let evolved = |columns: &[(&str, ColumnType)]| TableChange {
            evolve: Some(lake(columns)),
            ..TableChange::to(TableState::default())
        };
        assert_eq!(may_be_committed(&evolved(&[id.clone(), n.clone(), text.clone()]), &before), Ok(()));
        for refused in [&[id.clone()][..], &[n.clone(), id.clone()], &[id.clone(), text, n]] {
            assert!(may_be_committed(&evolved(refused), &before).is_err(), "{refused:?}");
        }
        let keyless = TableSchema { key: Vec::new(), ..before.clone() };
        let change = TableChange { evolve: Some(keyless), ..TableChange::to(TableState::default()) };
        assert!(may_be_committed(&change, &before).is_err());
    }

    #[test]
    fn columns_change_their_type_only_when_every_row_goes() {
        let before = lake(&[("id", ColumnType::Int64), ("n", ColumnType::Int32)]);
        let after = lake(&[("id", ColumnType::Int64), ("n", ColumnType::Int64)]);
        let mut change = TableChange { evolve: Some(after), ..TableChange::to(TableState::default()) };
        assert!(may_be_committed(&change, &before).is_err());
        change.clear = Some(Order::new(1, 1));
        assert_eq!(may_be_committed(&change, &before), Ok(()));
    }
}
