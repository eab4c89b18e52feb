//! Counting, several times for every change that passes: no search while window and operation stay the same.

use std::collections::BTreeMap;

use weir_model::{Digest, EventId, Op, Window};

use super::{Hop, StageCount};

/// Sums counts of one table while a batch or a commit is made.
#[derive(Debug, Clone, Default)]
pub struct Tally {
    ledgers: Vec<Ledger>,
    /// Where each window and operation has its ledger.
    places: BTreeMap<(Window, Op), usize>,
    /// The ledger last used for each operation: changes come in windows, but in any mix of operations.
    recent: [usize; OPS],
}

/// Number of operations.
const OPS: usize = 4;

/// One window and operation, by hop.
#[derive(Debug, Clone)]
struct Ledger {
    window: Window,
    op: Op,
    counts: [u64; Hop::ALL.len()],
    digests: [Digest; Hop::ALL.len()],
}

impl Ledger {
    fn new(window: Window, op: Op) -> Self {
        Self { window, op, counts: [0; Hop::ALL.len()], digests: [Digest::default(); Hop::ALL.len()] }
    }
}

impl Tally {
    /// Counts one half-event.
    #[inline]
    pub fn event(&mut self, hop: Hop, op: Op, window: Window, id: EventId) {
        let ledger = self.ledger(window, op);
        ledger.counts[hop as usize] += 1;
        ledger.digests[hop as usize] += id;
    }

    /// Counts `rows` rows of a chunk.
    pub fn chunk_rows(&mut self, hop: Hop, window: Window, rows: u64) {
        if rows > 0 {
            self.ledger(window, Op::Read).counts[hop as usize] += rows;
        }
    }

    /// Adds everything in `other`.
    pub fn add(&mut self, other: &Self) {
        for theirs in &other.ledgers {
            let mine = self.ledger(theirs.window, theirs.op);
            for hop in 0..Hop::ALL.len() {
                mine.counts[hop] += theirs.counts[hop];
                mine.digests[hop] += theirs.digests[hop];
            }
        }
    }

    /// Sum over all windows and operations of one hop.
    pub fn total(&self, hop: Hop) -> u64 {
        self.ledgers.iter().map(|ledger| ledger.counts[hop as usize]).sum()
    }

    /// What was counted, by window, operation and hop.
    pub fn counts(&self) -> Vec<StageCount> {
        let ledgers = self.places.values().map(|place| &self.ledgers[*place]);
        ledgers.flat_map(|ledger| Hop::ALL.iter().filter_map(|hop| ledger.of(*hop))).collect()
    }

    #[inline]
    fn ledger(&mut self, window: Window, op: Op) -> &mut Ledger {
        let recent = self.recent[op as usize];
        let place = match self.ledgers.get(recent) {
            Some(ledger) if ledger.window == window && ledger.op == op => recent,
            _ => self.find(window, op),
        };
        &mut self.ledgers[place]
    }

    fn find(&mut self, window: Window, op: Op) -> usize {
        let place = *self.places.entry((window, op)).or_insert(self.ledgers.len());
        if place == self.ledgers.len() {
            self.ledgers.push(Ledger::new(window, op));
        }
        self.recent[op as usize] = place;
        place
    }
}

impl Ledger {
    /// What `hop` has counted, if anything.
    fn of(&self, hop: Hop) -> Option<StageCount> {
        let (count, digest) = (self.counts[hop as usize], self.digests[hop as usize]);
        (count > 0).then_some(StageCount { hop, op: self.op, window: self.window, count, digest })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    type Event = (usize, Op, i64, u128);

    fn event() -> impl Strategy<Value = Event> {
        let op = prop::sample::select(vec![Op::Read, Op::Create, Op::Update, Op::Delete]);
        (0..Hop::ALL.len(), op, 0_i64..4, any::<u128>())
    }

    fn counted(events: &[Event]) -> Tally {
        let mut tally = Tally::default();
        for (hop, op, window, id) in events {
            tally.event(Hop::ALL[*hop], *op, Window(*window), EventId(*id));
        }
        tally
    }

    proptest! {
        #[test]
        fn sums_are_those_of_a_map(events in prop::collection::vec(event(), 0..200), cut in 0_usize..200) {
            let mut map: BTreeMap<(Window, Op, Hop), (u64, Digest)> = BTreeMap::new();
            for (hop, op, window, id) in &events {
                let sum = map.entry((Window(*window), *op, Hop::ALL[*hop])).or_default();
                sum.0 += 1;
                sum.1 += EventId(*id);
            }
            let expected: Vec<StageCount> = map
                .into_iter()
                .map(|((window, op, hop), (count, digest))| StageCount { hop, op, window, count, digest })
                .collect();
            prop_assert_eq!(counted(&events).counts(), expected.clone());
            let (left, right) = events.split_at(cut.min(events.len()));
            let mut sum = counted(left);
            sum.add(&counted(right));
            prop_assert_eq!(sum.counts(), expected);
        }
    }

    #[test]
    fn a_hop_is_counted_at_its_place() {
        for (place, hop) in Hop::ALL.into_iter().enumerate() {
            assert_eq!(hop as usize, place);
        }
    }

    #[test]
    fn a_chunk_without_rows_counts_nothing() {
        let mut tally = Tally::default();
        tally.chunk_rows(Hop::ChunkRead, Window(0), 0);
        assert_eq!(tally.counts(), []);
        tally.chunk_rows(Hop::ChunkRead, Window(0), 7);
        assert_eq!(tally.total(Hop::ChunkRead), 7);
    }
}
