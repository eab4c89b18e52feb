//! Messages of a table's partitions become publishes again: a transaction that touched several buckets is shown whole.
//! Pure.
//!
//! Within a partition messages come in order; between two they don't. So those of a publish wait for each other, and
//! publishes go on in the order of their numbers. A message that was copied, or lost, disturbs only itself: what comes
//! late goes on behind what its partition has already given, and a partition that has come to a later publish is not
//! waited for.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use weir_model::Gtid;

use crate::transport::{Boundary, Delivery, Item, PublishNumber, Share};

/// A message as it arrives.
#[derive(Debug)]
pub struct Arrived {
    pub bucket: u32,
    pub offset: i64,
    pub topic: Arc<str>,
    pub publish: PublishNumber,
    pub partitions: Arc<[u32]>,
    pub part: (u32, u32),
    pub partial: Option<Gtid>,
    pub item: Item,
    pub hold: Option<tokio::sync::OwnedSemaphorePermit>,
}

/// Collects the messages of the owned buckets of one table.
#[derive(Debug)]
pub struct Gather {
    /// Of each owned bucket the last publish that it gave its whole part of.
    whole: BTreeMap<u32, PublishNumber>,
    open: BTreeMap<PublishNumber, Open>,
    ready: VecDeque<Delivery>,
}

/// A publish of which some messages have come.
#[derive(Debug, Default)]
struct Open {
    arrived: Vec<Arrived>,
    /// Owned buckets whose part is not whole.
    missing: BTreeSet<u32>,
}

impl Gather {
    /// For the owned buckets, with the last publish that each holds whole.
    pub fn new(whole: BTreeMap<u32, PublishNumber>) -> Self {
        Self { whole, open: BTreeMap::new(), ready: VecDeque::new() }
    }

    /// Takes in a message; those of one bucket come in ascending order of offset.
    pub fn push(&mut self, arrived: Arrived) {
        let (bucket, number) = (arrived.bucket, arrived.publish);
        let before = self.whole.get(&bucket).copied().unwrap_or_default();
        if number <= before {
            return self.push_late(arrived, before);
        }
        let ends = arrived.part.0 >= arrived.part.1;
        if !self.open.contains_key(&number) {
            let missing = self.missing_of(number, &arrived.partitions);
            self.open.insert(number, Open { arrived: Vec::new(), missing });
        }
        let open = self.open.get_mut(&number).expect("just put there");
        open.arrived.push(arrived);
        if ends {
            self.whole.insert(bucket, number);
        }
        // The bucket has come past every publish below: what it has not given of one will not come any more.
        for (other, open) in self.open.range_mut(..=number) {
            if *other < number || ends {
                open.missing.remove(&bucket);
            }
        }
        self.release();
    }

    /// What may be taken in next.
    pub fn pop(&mut self) -> Option<Delivery> {
        self.ready.pop_front()
    }

    /// Makes `delivery`, which was taken last, the next again.
    pub fn put_back(&mut self, delivery: Delivery) {
        self.ready.push_front(delivery);
    }

    /// Lets go of the first publish although messages of it are missing: memory is short. Its transactions are shown in
    /// parts then. False if there is none.
    pub fn force(&mut self) -> bool {
        let Some((number, open)) = self.open.pop_first() else { return false };
        self.deliver(number, open);
        self.release();
        true
    }

    /// Owned buckets that a publish is yet to come from.
    fn missing_of(&self, number: PublishNumber, partitions: &[u32]) -> BTreeSet<u32> {
        let waits = |bucket: &u32| self.whole.get(bucket).is_some_and(|whole| *whole < number);
        partitions.iter().copied().filter(waits).collect()
    }

    /// A copy, or a message sent late: it stays behind what its bucket has given, whose offsets are below its own.
    /// Changes are told from copies by their orders; a marker is not applied twice.
    fn push_late(&mut self, mut arrived: Arrived, before: PublishNumber) {
        if let Item::Marker(_) = arrived.item {
            arrived.item = Item::Nothing;
        }
        match self.open.get_mut(&before) {
            Some(open) => open.arrived.push(arrived),
            None => self.deliver(before, Open { arrived: vec![arrived], missing: BTreeSet::new() }),
        }
    }

    fn release(&mut self) {
        while self.open.first_key_value().is_some_and(|(_, open)| open.missing.is_empty()) {
            let (number, open) = self.open.pop_first().expect("just seen");
            self.deliver(number, open);
        }
    }

    fn deliver(&mut self, number: PublishNumber, mut open: Open) {
        // An end stands first in each bucket; before any other bucket has begun what comes after it.
        open.arrived.sort_by_key(|arrived| !matches!(arrived.item, Item::TransactionEnd));
        let partial = open.arrived.iter().find_map(|arrived| arrived.partial.clone());
        let boundary = Arc::new(Boundary { partial, ..Boundary::default() });
        let count = open.arrived.len();
        for (n, arrived) in open.arrived.into_iter().enumerate() {
            let whole = arrived.part.0 >= arrived.part.1;
            let share = Share {
                bucket: arrived.bucket,
                topic: arrived.topic,
                offset: arrived.offset + 1,
                publish: whole.then_some(number.max(arrived.publish)),
            };
            self.ready.push_back(Delivery {
                number,
                boundary: boundary.clone(),
                item: arrived.item,
                last: n + 1 == count,
                share: Some(share),
                hold: arrived.hold,
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn message(bucket: u32, offset: i64, publish: u64, partitions: &[u32], part: (u32, u32)) -> Arrived {
        Arrived {
            bucket,
            offset,
            topic: "t".into(),
            publish: PublishNumber(publish),
            partitions: partitions.into(),
            part,
            partial: None,
            item: Item::TransactionEnd,
            hold: None,
        }
    }

    fn owned(buckets: &[u32]) -> Gather {
        Gather::new(buckets.iter().map(|bucket| (*bucket, PublishNumber(0))).collect())
    }

    /// Number, bucket, next offset, and whether it is the last of its publish.
    fn drain(gather: &mut Gather) -> Vec<(u64, u32, i64, bool)> {
        let mut out = Vec::new();
        while let Some(delivery) = gather.pop() {
            let share = delivery.share.unwrap();
            out.push((delivery.number.0, share.bucket, share.offset, delivery.last));
        }
        out
    }

    #[test]
    fn a_publish_waits_for_all_of_its_buckets_and_holds_back_those_behind_it() {
        let mut gather = owned(&[0, 1]);
        gather.push(message(0, 0, 1, &[0, 1], (1, 1)));
        gather.push(message(0, 1, 2, &[0], (1, 1)));
        assert_eq!(drain(&mut gather), []);
        gather.push(message(1, 0, 1, &[0, 1], (1, 1)));
        assert_eq!(drain(&mut gather), [(1, 0, 1, false), (1, 1, 1, true), (2, 0, 2, true)]);
    }

    #[test]
    fn buckets_of_others_and_buckets_that_hold_it_already_are_not_waited_for() {
        let mut gather = Gather::new(BTreeMap::from([(0, PublishNumber(4)), (2, PublishNumber(5))]));
        gather.push(message(0, 9, 5, &[0, 1, 2], (1, 1)));
        assert_eq!(drain(&mut gather), [(5, 0, 10, true)]);
    }

    #[test]
    fn a_part_of_many_messages_is_whole_with_its_last() {
        let mut gather = owned(&[0]);
        gather.push(message(0, 0, 1, &[0], (1, 2)));
        assert_eq!(drain(&mut gather), []);
        gather.push(message(0, 1, 1, &[0], (2, 2)));
        assert_eq!(drain(&mut gather), [(1, 0, 1, false), (1, 0, 2, true)]);
    }

    #[test]
    fn a_copy_and_an_old_message_come_behind_what_their_bucket_gave() {
        let mut gather = owned(&[0, 1]);
        gather.push(message(0, 0, 1, &[0], (1, 1)));
        gather.push(message(0, 1, 2, &[0, 1], (1, 1)));
        gather.push(message(0, 3, 2, &[0, 1], (1, 1)));
        gather.push(message(0, 4, 1, &[0], (1, 1)));
        assert_eq!(drain(&mut gather), [(1, 0, 1, true)]);
        gather.push(message(1, 0, 2, &[0, 1], (1, 1)));
        assert_eq!(drain(&mut gather), [(2, 0, 2, false), (2, 0, 4, false), (2, 0, 5, false), (2, 1, 1, true)]);
        gather.push(message(0, 5, 1, &[0], (1, 1)));
        assert_eq!(drain(&mut gather), [(2, 0, 6, true)]);
    }

    #[test]
    fn ends_come_before_what_other_buckets_begin() {
        let mut gather = owned(&[0, 1]);
        let nothing =
            |bucket, offset, part| Arrived { item: Item::Nothing, ..message(bucket, offset, 1, &[0, 1], part) };
        gather.push(message(0, 0, 1, &[0, 1], (1, 2)));
        gather.push(nothing(0, 1, (2, 2)));
        gather.push(message(1, 0, 1, &[0, 1], (1, 1)));
        assert_eq!(drain(&mut gather), [(1, 0, 1, false), (1, 1, 1, false), (1, 0, 2, true)]);
    }

    #[test]
    fn a_marker_that_comes_twice_asks_for_nothing() {
        let mut gather = owned(&[0]);
        let marker = |offset| Arrived {
            item: Item::Marker(crate::transport::Marker::SeedEnd { plan: 1 }),
            ..message(0, offset, 1, &[0], (1, 1))
        };
        gather.push(marker(0));
        gather.push(marker(1));
        assert!(matches!(gather.pop().unwrap().item, Item::Marker(_)));
        let copy = gather.pop().unwrap();
        assert!(matches!(copy.item, Item::Nothing) && copy.share.unwrap().offset == 2);
    }

    #[test]
    fn a_lost_message_is_not_waited_for_once_its_bucket_has_gone_on() {
        let mut gather = owned(&[0, 1]);
        gather.push(message(0, 0, 1, &[0, 1], (1, 1)));
        gather.push(message(1, 5, 2, &[1], (1, 1)));
        assert_eq!(drain(&mut gather), [(1, 0, 1, true), (2, 1, 6, true)]);
    }

    #[test]
    fn forced_parts_do_not_claim_to_be_whole() {
        let mut gather = owned(&[0, 1]);
        gather.push(message(0, 0, 1, &[0, 1], (1, 2)));
        assert!(gather.force());
        let share = gather.pop().unwrap().share.unwrap();
        assert_eq!((share.offset, share.publish), (1, None));
        gather.push(message(0, 1, 1, &[0, 1], (2, 2)));
        gather.push(message(1, 0, 1, &[0, 1], (1, 1)));
        assert_eq!(drain(&mut gather), [(1, 0, 2, false), (1, 1, 1, true)]);
        assert!(!gather.force());
    }

    proptest! {
        /// However partitions interleave, with copies in between: each bucket's offsets come out in order, none is
        /// left, and numbers never fall.
        #[test]
        fn offsets_of_a_bucket_come_in_order_and_none_is_left(
            publishes in prop::collection::vec(prop::collection::btree_set(0_u32..3, 1..4), 1..20),
            picks in prop::collection::vec(0_usize..3, 0..100),
            copies in prop::collection::vec((0_u32..3, any::<prop::sample::Index>()), 0..5),
        ) {
            let mut logs: BTreeMap<u32, Vec<(u64, Vec<u32>)>> = BTreeMap::new();
            for (n, buckets) in publishes.iter().enumerate() {
                for bucket in buckets {
                    logs.entry(*bucket).or_default().push((n as u64 + 1, buckets.iter().copied().collect()));
                }
            }
            for (bucket, at) in copies {
                if let Some(log) = logs.get_mut(&bucket) {
                    let copy = log[at.index(log.len())].clone();
                    log.push(copy);
                }
            }
            let mut gather = owned(&[0, 1, 2]);
            let mut next = BTreeMap::new();
            let mut out = Vec::new();
            let rest = (0..3).flat_map(|bucket| std::iter::repeat_n(bucket, 60));
            for pick in picks.into_iter().chain(rest) {
                let bucket = pick as u32;
                let at = next.entry(bucket).or_insert(0_usize);
                if let Some((publish, partitions)) = logs.get(&bucket).and_then(|log| log.get(*at)) {
                    gather.push(message(bucket, *at as i64, *publish, partitions, (1, 1)));
                    *at += 1;
                    out.extend(drain(&mut gather));
                }
            }
            for bucket in 0..3 {
                let offsets: Vec<i64> = out.iter().filter(|o| o.1 == bucket).map(|o| o.2).collect();
                let expected: Vec<i64> = (1..=logs.get(&bucket).map_or(0, Vec::len) as i64).collect();
                prop_assert_eq!(offsets, expected);
            }
        }
    }
}
