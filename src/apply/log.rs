//! Tables that keep every change as a row: which changes of a batch are new. Pure.

use std::collections::BTreeMap;

use weir_model::{ChangeBatch, Op, Order};

use super::plan::StreamPlan;
use super::reduce::{ChangeAt, count, op, order};
use crate::trace::{Hop, Tally};

/// Every change above what its bucket has come to becomes a row, in the order of the stream: in a bucket's stream originals
/// rise, so one that does not is a copy. `buckets` are the batches', `greatest` the buckets' greatest orders of the stream;
/// rows of chunks do not raise those.
pub fn log(batches: &[ChangeBatch], buckets: &[u32], mut greatest: BTreeMap<u32, Order>) -> StreamPlan {
    let (mut upserts, mut tally) = (Vec::new(), Tally::default());
    for (b, (batch, bucket)) in batches.iter().zip(buckets).enumerate() {
        let greatest = greatest.entry(*bucket).or_insert(Order::MIN);
        for row in 0..batch.len() {
            let at = ChangeAt { batch: b as u32, row: row as u32 };
            count(&mut tally, Hop::Consumed, batches, at);
            let hop = match op(batches, at) {
                _ if order(batches, at) <= *greatest => Hop::Duplicate,
                Op::Delete => Hop::Deleted,
                Op::Read | Op::Create | Op::Update => Hop::Upserted,
            };
            if hop != Hop::Duplicate {
                *greatest = order(batches, at);
                upserts.push(at);
            }
            count(&mut tally, hop, batches, at);
        }
    }
    StreamPlan { upserts, deletes: Vec::new(), tally }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use weir_model::change::Stamp;
    use weir_model::{ChangeBuilder, Column, ColumnType, EventId, Half, TableId, TableSchema, Window, ZeroDates};

    use super::*;

    fn batch(changes: &[(Op, i64)]) -> ChangeBatch {
        let columns = vec![Column { name: "v".into(), ty: ColumnType::Int64, nullable: true }];
        let schema = TableSchema {
            table: TableId::new("shop", "events"),
            columns,
            key: Vec::new(),
            layout: weir_model::Layout::default(),
        };
        let mut builder = ChangeBuilder::new(Arc::new(schema), ZeroDates::Null);
        for (op, _) in changes {
            builder.columns_mut()[0].push_int(7).unwrap();
            builder.end_row(*op, Half::First);
        }
        let mut seqs = changes.iter().map(|(_, seq)| *seq);
        builder.stamp(|_, _| {
            let seq = seqs.next().unwrap();
            Stamp { order: Order::new(1, seq), id: EventId(seq as u128), window: Window(0) }
        });
        builder.finish()
    }

    #[test]
    fn each_change_is_a_row_once_and_counts_by_its_operation() {
        let batches = [
            batch(&[(Op::Create, 4), (Op::Update, 5), (Op::Delete, 7)]),
            // Of another bucket, whose stream stands elsewhere.
            batch(&[(Op::Delete, 6)]),
            // The first message again, then what is new.
            batch(&[(Op::Create, 4), (Op::Update, 5), (Op::Delete, 7), (Op::Create, 8)]),
        ];
        let greatest = BTreeMap::from([(0, Order::new(1, 4)), (1, Order::new(1, 2))]);
        let StreamPlan { upserts, deletes, tally } = log(&batches, &[0, 1, 0], greatest);
        let seqs: Vec<i64> = upserts.iter().map(|at| order(&batches, *at).seq).collect();
        assert_eq!((seqs, deletes), (vec![5, 7, 6, 8], Vec::new()));
        let totals = [Hop::Consumed, Hop::Upserted, Hop::Deleted, Hop::Duplicate, Hop::Superseded, Hop::Stale];
        assert_eq!(totals.map(|hop| tally.total(hop)), [8, 2, 2, 4, 0, 0]);
    }
}
