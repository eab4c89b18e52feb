//! Changes that leave columns out, folded into whole rows: which column comes from where. Pure.
//!
//! Of one key the changes of a batch lie over one another, the newest on top; below them lies the key's row in the lake, or, where
//! that cannot be certain, the row as the source has it by now. A column is taken from the topmost that knows it.

use std::collections::HashMap;

use foldhash::fast::RandomState;
use weir_model::image::Rest;
use weir_model::key::KeyRef;
use weir_model::{ChangeBatch, Op, Order, RecordKeys};

use super::reduce::{ChangeAt, op, order};

/// What a change needs to become a whole row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Need {
    /// The changes of its batch know every column.
    Nothing,
    /// Columns of these names, of the row of its key before them.
    Row(Vec<String>),
    /// The row as the source has it.
    Source,
}

/// What lies below the changes of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Base {
    None,
    /// A row of the lake, by its place among those that were read.
    Lake(u32),
    /// A row of the source, by the read and its place in it.
    Source(u32, u32),
}

/// A change that leaves columns out, and what makes it whole.
#[derive(Debug, Clone)]
pub struct Folded {
    /// Changes of its key, the newest first, which is the change itself.
    pub layers: Vec<ChangeAt>,
    pub base: Base,
    /// The source has no such row by now: one of the changes that are still to come takes it out.
    pub is_gone: bool,
}

/// Changes that became whole.
#[derive(Debug, Default)]
pub struct Folds(HashMap<ChangeAt, Folded, RandomState>);

impl Folds {
    pub fn get(&self, at: ChangeAt) -> Option<&Folded> {
        self.0.get(&at)
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn insert(&mut self, at: ChangeAt, folded: Folded) {
        self.0.insert(at, folded);
    }
}

/// Whether a change leaves columns out.
pub fn is_partial(batches: &[ChangeBatch], at: ChangeAt) -> bool {
    batches[at.batch as usize].images.get(at.row as usize).is_some()
}

/// For each of `winners` the changes of its key above what its bucket had come to, the newest first and each once.
/// `came_to` says that of a batch.
pub fn layers(
    batches: &[ChangeBatch],
    keys: &[RecordKeys],
    winners: &[ChangeAt],
    came_to: impl Fn(u32) -> Order,
) -> Vec<Vec<ChangeAt>> {
    let key = |at: ChangeAt| keys[at.batch as usize].get(at.row as usize);
    let places: HashMap<KeyRef<'_>, usize, RandomState> =
        winners.iter().enumerate().map(|(place, at)| (key(*at), place)).collect();
    let mut layers: Vec<Vec<ChangeAt>> = winners.iter().map(|at| vec![*at]).collect();
    for batch in 0..batches.len() as u32 {
        let floor = came_to(batch);
        for row in 0..batches[batch as usize].len() as u32 {
            let at = ChangeAt { batch, row };
            if let Some(place) = places.get(&key(at)).filter(|_| order(batches, at) > floor) {
                layers[*place].push(at);
            }
        }
    }
    for (winner, layers) in winners.iter().zip(&mut layers) {
        let newest = order(batches, *winner);
        layers.retain(|at| at == winner || order(batches, *at) < newest);
        layers.sort_by_key(|at| std::cmp::Reverse(order(batches, *at)));
        layers.dedup_by_key(|at| order(batches, *at));
    }
    layers
}

/// What the newest of `layers` needs to become whole; drops the layers that nothing is taken from.
pub fn need(batches: &[ChangeBatch], layers: &mut Vec<ChangeAt>) -> Need {
    let newest = layers[0];
    let columns = &batches[newest.batch as usize].schema.columns;
    let mut unknown: Vec<&str> = columns.iter().map(|column| column.name.as_str()).collect();
    for depth in 0..layers.len() {
        let at = layers[depth];
        let batch = &batches[at.batch as usize];
        if depth > 0 && op(batches, at) == Op::Delete {
            // A row that was taken out is no base, and what made it come back is not here.
            layers.truncate(depth);
            return Need::Source;
        }
        // A column that was added since has what the source gave to the rows that were there.
        if unknown.iter().any(|name| batch.schema.column_index(name).is_none()) {
            layers.truncate(depth);
            return Need::Source;
        }
        let Some(image) = batch.images.get(at.row as usize) else {
            layers.truncate(depth + 1);
            return Need::Nothing;
        };
        unknown.retain(|name| batch.schema.column_index(name).is_none_or(|column| !image.knows(column)));
        if unknown.is_empty() || image.rest == Rest::AtSource {
            let need = if unknown.is_empty() { Need::Nothing } else { Need::Source };
            layers.truncate(depth + 1);
            return need;
        }
    }
    Need::Row(unknown.into_iter().map(str::to_owned).collect())
}

/// Whether a row of the lake is what the source's was before the changes in `layers`: not if it may be about to be read
/// anew, as everything up to `uncertain` is while a load is under way.
pub fn is_certain(batches: &[ChangeBatch], layers: &[ChangeAt], row: Order, uncertain: Option<Order>) -> bool {
    let oldest = layers.iter().map(|at| order(batches, *at)).min();
    uncertain.is_none_or(|uncertain| row > uncertain) && oldest.is_none_or(|oldest| row < oldest)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use weir_model::change::Stamp;
    use weir_model::{
        ChangeBuilder, Column, ColumnType, EventId, Half, Layout, PartialImage, TableId, TableSchema, Window, ZeroDates,
    };

    use super::*;

    /// A change by its operation, key, the columns that it knows, where the others are, and its number.
    type Change = (Op, i64, &'static [usize], Rest, i64);

    const ALL: &[usize] = &[0, 1, 2];

    fn batch(columns: &[&str], changes: &[Change]) -> ChangeBatch {
        let column = |name: &&str| Column { name: (*name).into(), ty: ColumnType::Int64, nullable: true };
        let schema = TableSchema {
            table: TableId::new("shop", "orders"),
            columns: columns.iter().map(column).collect(),
            key: vec![0],
            layout: Layout::default(),
        };
        let mut builder = ChangeBuilder::new(Arc::new(schema), ZeroDates::Null);
        for (op, key, known, rest, _) in changes {
            let mut image = PartialImage::unknown(columns.len(), *rest);
            known.iter().for_each(|column| image.set_known(*column));
            for column in builder.columns_mut() {
                column.push_int(*key).unwrap();
            }
            match known.len() == columns.len() {
                true => builder.end_row(*op, Half::First),
                false => builder.end_partial_row(*op, Half::First, image),
            }
        }
        let mut orders = changes.iter().map(|change| change.4);
        builder.stamp(|_, _| {
            let seq = orders.next().unwrap();
            Stamp { order: Order::new(1, seq), id: EventId(seq as u128), window: Window(0) }
        });
        builder.finish()
    }

    fn at(batch: u32, row: u32) -> ChangeAt {
        ChangeAt { batch, row }
    }

    /// What the change at `winner` needs, and the orders of the layers that it is made of.
    fn needed(batches: &[ChangeBatch], winner: ChangeAt, came_to: i64) -> (Need, Vec<i64>) {
        let keys: Vec<RecordKeys> = batches.iter().map(|b| RecordKeys::of(&b.rows, &["id"]).unwrap()).collect();
        let mut layers = layers(batches, &keys, &[winner], |_| Order::new(1, came_to)).remove(0);
        let need = need(batches, &mut layers);
        (need, layers.iter().map(|at| order(batches, *at).seq).collect())
    }

    const NAMES: [&str; 3] = ["id", "a", "b"];

    #[test]
    fn changes_of_a_key_fold_down_to_what_is_whole_or_to_the_row() {
        use Rest::Unchanged;
        let row = |names: &[&str]| Need::Row(names.iter().map(|name| (*name).to_owned()).collect());
        let batches = [
            batch(&NAMES, &[(Op::Create, 1, ALL, Unchanged, 1), (Op::Update, 2, &[0, 1], Unchanged, 2)]),
            batch(
                &NAMES,
                &[
                    (Op::Update, 1, &[0, 1], Unchanged, 3),
                    (Op::Update, 2, &[0], Unchanged, 4),
                    (Op::Update, 1, &[0], Unchanged, 5),
                    (Op::Update, 2, &[0, 2], Unchanged, 6),
                ],
            ),
        ];
        // Down to the insert; of another key nothing.
        assert_eq!(needed(&batches, at(1, 2), 0), (Need::Nothing, vec![5, 3, 1]));
        assert_eq!(needed(&batches, at(1, 1), 0), (row(&["b"]), vec![4, 2]));
        // All of it is known before the row is reached.
        assert_eq!(needed(&batches, at(1, 3), 0), (Need::Nothing, vec![6, 4, 2]));
        // What the table has had is not laid over what it has.
        assert_eq!(needed(&batches, at(1, 1), 2), (row(&["a", "b"]), vec![4]));
    }

    #[test]
    fn what_only_the_source_knows_is_asked_for_there_unless_it_was_changed_since() {
        use Rest::{AtSource, Unchanged};
        let batches = [batch(
            &NAMES,
            &[
                (Op::Create, 1, &[0, 1], AtSource, 1),
                (Op::Update, 1, &[0, 1], Unchanged, 2),
                (Op::Update, 1, &[0, 2], Unchanged, 3),
                (Op::Delete, 1, &[0], Unchanged, 4),
                (Op::Update, 1, &[0, 2], Unchanged, 5),
            ],
        )];
        assert_eq!(needed(&batches, at(0, 1), 0), (Need::Source, vec![2, 1]));
        assert_eq!(needed(&batches, at(0, 2), 0), (Need::Nothing, vec![3, 2]));
        assert_eq!(needed(&batches, at(0, 3), 0), (Need::Nothing, vec![4, 3, 2]));
        assert_eq!(needed(&batches, at(0, 4), 0), (Need::Source, vec![5]));
    }

    #[test]
    fn a_column_that_was_added_in_between_is_asked_for_at_the_source() {
        use Rest::Unchanged;
        let batches = [
            batch(&["id", "a"], &[(Op::Create, 1, &[0, 1], Unchanged, 1)]),
            batch(&NAMES, &[(Op::Update, 1, &[0], Unchanged, 2), (Op::Update, 1, &[0, 2], Unchanged, 3)]),
        ];
        assert_eq!(needed(&batches, at(1, 0), 0), (Need::Source, vec![2]));
        assert_eq!(needed(&batches, at(1, 1), 0), (Need::Nothing, vec![3, 2, 1]));
    }

    #[test]
    fn a_row_that_a_load_may_replace_is_no_base() {
        let batches = [batch(&NAMES, &[(Op::Update, 1, &[0], Rest::Unchanged, 9)])];
        let (row, load) = (|seq| Order::new(1, seq), |seq| Some(Order::new(1, seq)));
        assert!(is_certain(&batches, &[at(0, 0)], row(5), None));
        assert!(is_certain(&batches, &[at(0, 0)], row(5), load(4)));
        assert!(!is_certain(&batches, &[at(0, 0)], row(5), load(5)));
        assert!(!is_certain(&batches, &[at(0, 0)], row(9), None));
    }
}
