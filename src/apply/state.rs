//! Where a table stands once something is in: the state that goes into the commit. Pure.

use std::collections::BTreeMap;

use weir_model::{Order, OrderState};

use crate::table::{BucketShare, PartialTransaction, TableState};
use crate::transport::{Boundary, Share};

/// The table's state once everything up to `boundary` is in. `partial_rows` is how much of the boundary's partial
/// transaction the table has, if it received any changes.
///
/// The table's own set may be ahead of the boundary while a restarted stream is read again, so sets are joined. A shared
/// table says by its shares what it holds.
pub(super) fn state_at(state: &TableState, boundary: &Boundary, partial_rows: Option<u64>) -> TableState {
    if state.is_shared() {
        return state.clone();
    }
    let gtid_set = state.gtid_set.union(&boundary.gtid_set);
    let partial = match (&boundary.partial, partial_rows) {
        (Some(gtid), Some(rows_done)) if rows_done > 0 && !gtid_set.contains(gtid) => {
            Some(PartialTransaction { gtid: gtid.clone(), rows_done })
        }
        _ => state.partial.clone().filter(|partial| !gtid_set.contains(&partial.gtid)),
    };
    TableState { gtid_set, partial, ..state.clone() }
}

/// Nothing that is handed out for `bucket` from here on may be at or below `newest`.
pub(super) fn raise_orders(state: &mut TableState, bucket: u32, newest: Order) {
    state.order = state.order.max(OrderState(newest));
    let bucket = bucket as usize;
    if state.greatest.len() <= bucket {
        state.greatest.resize(bucket + 1, Order::MIN);
    }
    state.greatest[bucket] = state.greatest[bucket].max(newest);
}

/// The buckets have taken in what `shares` say.
pub(super) fn advance(state: &mut TableState, shares: &BTreeMap<u32, Share>) {
    for (bucket, share) in shares {
        if let Some(stands) = state.shares.get_mut(*bucket as usize) {
            *stands = BucketShare {
                topic: share.topic.to_string(),
                offset: share.offset,
                publish: share.publish.map_or(stands.publish, |publish| stands.publish.max(publish.0)),
                seed: stands.seed.take(),
            };
        }
    }
}

/// Whether the table holds what a share stands for.
pub(super) fn is_in(state: &TableState, share: &Share) -> bool {
    state
        .shares
        .get(share.bucket as usize)
        .is_some_and(|stands| stands.topic == *share.topic && stands.offset >= share.offset)
}

/// Whether the table's bucket reads the topic's incarnation that a message came from; one that has read nothing reads
/// any.
pub(super) fn reads(state: &TableState, share: &Share) -> bool {
    state.shares.get(share.bucket as usize).is_none_or(|stands| stands.topic.is_empty() || stands.topic == *share.topic)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transport::PublishNumber;

    fn share(bucket: u32, topic: &str, offset: i64, publish: Option<u64>) -> Share {
        Share { bucket, topic: topic.into(), offset, publish: publish.map(PublishNumber) }
    }

    fn shared() -> TableState {
        TableState { shares: vec![BucketShare::default(); 2], greatest: vec![Order::MIN; 2], ..TableState::default() }
    }

    #[test]
    fn a_bucket_advances_alone_and_a_part_of_a_publish_is_not_the_whole() {
        let mut state = shared();
        advance(&mut state, &BTreeMap::from([(1, share(1, "t", 5, Some(7)))]));
        advance(&mut state, &BTreeMap::from([(1, share(1, "t", 6, None))]));
        assert_eq!((state.shares[1].offset, state.shares[1].publish), (6, 7));
        assert_eq!(state.shares[0], BucketShare::default());
        assert!(is_in(&state, &share(1, "t", 6, None)) && !is_in(&state, &share(1, "t", 7, None)));
        assert!(!is_in(&state, &share(1, "other", 1, None)));
    }

    #[test]
    fn another_incarnation_of_the_topic_is_not_read() {
        let mut state = shared();
        assert!(reads(&state, &share(0, "t", 1, None)));
        advance(&mut state, &BTreeMap::from([(0, share(0, "t", 1, None))]));
        assert!(reads(&state, &share(0, "t", 9, None)) && !reads(&state, &share(0, "u", 1, None)));
    }

    #[test]
    fn orders_rise_by_bucket() {
        let mut state = shared();
        raise_orders(&mut state, 1, Order::new(5, 5));
        raise_orders(&mut state, 1, Order::new(4, 4));
        assert_eq!(state.greatest, [Order::MIN, Order::new(5, 5)]);
        assert_eq!(state.order, OrderState(Order::new(5, 5)));
    }
}
