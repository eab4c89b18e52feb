//! How far every table is, so that the checkpoint never passes what one of them still lacks. Pure.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use weir_model::TableId;

use crate::transport::{Boundary, PublishNumber};

/// Publishes sent, and those that some table has not committed.
#[derive(Debug, Default)]
pub struct Progress {
    sent: VecDeque<(PublishNumber, Arc<Boundary>)>,
    outstanding: BTreeMap<TableId, VecDeque<PublishNumber>>,
    safe: Option<Arc<Boundary>>,
}

impl Progress {
    /// `number` went to `tables`; numbers rise.
    pub fn published(&mut self, number: PublishNumber, boundary: Arc<Boundary>, tables: &[TableId]) {
        for table in tables {
            self.outstanding.entry(table.clone()).or_default().push_back(number);
        }
        self.sent.push_back((number, boundary));
        self.advance();
    }

    /// `table` holds everything up to `number`.
    pub fn committed(&mut self, table: &TableId, number: PublishNumber) {
        if let Some(numbers) = self.outstanding.get_mut(table) {
            while numbers.front().is_some_and(|n| *n <= number) {
                numbers.pop_front();
            }
        }
        self.advance();
    }

    /// Nothing waits for `table` any more: its stop is recorded.
    pub fn stopped(&mut self, table: &TableId) {
        self.outstanding.remove(table);
        self.advance();
    }

    /// The newest position that every table has reached; `None` before the first publish is.
    pub fn safe(&self) -> Option<&Arc<Boundary>> {
        self.safe.as_ref()
    }

    /// The newest position that was sent.
    pub fn newest(&self) -> Option<&Arc<Boundary>> {
        self.sent.back().map(|(_, boundary)| boundary).or(self.safe.as_ref())
    }

    /// The newest position of which `table` has everything; `None` before the first publish is.
    pub fn covered(&self, table: &TableId) -> Option<&Arc<Boundary>> {
        let Some(missing) = self.outstanding.get(table).and_then(|numbers| numbers.front()) else {
            return self.newest();
        };
        let before = self.sent.partition_point(|(number, _)| number < missing);
        before.checked_sub(1).map_or(self.safe.as_ref(), |last| self.sent.get(last).map(|(_, boundary)| boundary))
    }

    /// Publishes that some table has not committed.
    pub fn outstanding(&self) -> usize {
        self.sent.len()
    }

    fn advance(&mut self) {
        let first_missing = self.outstanding.values().filter_map(|numbers| numbers.front()).min().copied();
        while let Some((number, boundary)) = self.sent.front() {
            if first_missing.is_some_and(|missing| *number >= missing) {
                return;
            }
            self.safe = Some(boundary.clone());
            self.sent.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn boundary(last: u64) -> Arc<Boundary> {
        let gtid_set = format!("3e11fa47-71ca-11e1-9e33-c80aa9429562:1-{last}").parse().unwrap();
        Arc::new(Boundary { gtid_set, ..Boundary::default() })
    }

    #[test]
    fn the_slowest_table_holds_the_position_and_an_idle_one_does_not() {
        let (a, b) = (TableId::new("shop", "a"), TableId::new("shop", "b"));
        let mut progress = Progress::default();
        progress.published(PublishNumber(1), boundary(1), std::slice::from_ref(&a));
        progress.published(PublishNumber(2), boundary(2), std::slice::from_ref(&b));
        progress.published(PublishNumber(3), boundary(3), &[]);
        assert_eq!(progress.safe(), None);
        progress.committed(&b, PublishNumber(2));
        assert_eq!(progress.safe(), None);
        progress.committed(&a, PublishNumber(1));
        assert_eq!(progress.safe(), Some(&boundary(3)));
    }

    #[test]
    fn a_table_has_everything_before_what_it_lacks_and_an_idle_one_all() {
        let [a, b, idle] = ["a", "b", "idle"].map(|name| TableId::new("shop", name));
        let mut progress = Progress::default();
        assert_eq!(progress.covered(&a), None);
        progress.published(PublishNumber(1), boundary(1), std::slice::from_ref(&a));
        assert_eq!((progress.covered(&a), progress.covered(&idle)), (None, Some(&boundary(1))));
        progress.published(PublishNumber(2), boundary(2), std::slice::from_ref(&b));
        progress.published(PublishNumber(3), boundary(3), std::slice::from_ref(&a));
        progress.committed(&a, PublishNumber(1));
        assert_eq!((progress.covered(&a), progress.covered(&b)), (Some(&boundary(2)), Some(&boundary(1))));
        assert_eq!((progress.covered(&idle), progress.outstanding()), (Some(&boundary(3)), 2));
        progress.committed(&b, PublishNumber(2));
        assert_eq!((progress.covered(&b), progress.safe()), (Some(&boundary(3)), Some(&boundary(2))));
    }

    #[test]
    fn a_stopped_table_no_longer_holds_the_position() {
        let (a, b) = (TableId::new("shop", "a"), TableId::new("shop", "b"));
        let mut progress = Progress::default();
        progress.published(PublishNumber(1), boundary(1), &[a.clone(), b.clone()]);
        progress.committed(&b, PublishNumber(1));
        assert_eq!(progress.safe(), None);
        progress.stopped(&a);
        assert_eq!(progress.safe(), Some(&boundary(1)));
    }
}
