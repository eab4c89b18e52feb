//! Which keys are to be proven next, and when. Pure.
//!
//! A range that was never compared is due at once. One that was is due again at some point of the second half of the time it is
//! to be proven within; which, is drawn by its first key, so that ranges proven in a row do not come due in a row.

use std::collections::BTreeMap;
use std::hash::BuildHasher;
use std::time::Duration;

use foldhash::fast::FixedState;
use weir_model::{RecordKey, TableId};

use crate::limits::{PROVING_LOOKED_EVERY, PROVING_PAUSE_MAX, PROVING_RETRY_MAX, PROVING_RETRY_MIN, PROVING_SHARE};
use crate::service::ms;
use crate::state::proofs::{KeyRange, ProvenRanges};

/// What to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Due {
    pub table: TableId,
    /// The first key of the range; none for the table's first.
    pub from: Option<RecordKey>,
    /// Its keys have gone without a proof for longer than they should.
    pub is_late: bool,
}

/// The range that has waited longest; none if none is due at `now_ms`. `tables` are those that may be compared: one that
/// nothing is known of has all of it to prove.
pub fn next<'a>(
    tables: impl Iterator<Item = (&'a TableId, Option<&'a ProvenRanges>)>,
    within: Duration,
    now_ms: i64,
) -> Option<Due> {
    let unknown = ProvenRanges::default();
    let mut next: Option<(i64, Due)> = None;
    for (table, ranges) in tables {
        for range in ranges.unwrap_or(&unknown).iter() {
            let due_ms = due_ms(table, range, within);
            if due_ms <= now_ms && next.as_ref().is_none_or(|(least_ms, _)| due_ms < *least_ms) {
                let late_ms = range.proven_ms.map(|proven_ms| proven_ms.saturating_add(ms(within)));
                let is_late = late_ms.is_some_and(|late_ms| late_ms <= now_ms);
                next = Some((due_ms, Due { table: table.clone(), from: range.from.clone(), is_late }));
            }
        }
    }
    next.map(|(_, due)| due)
}

fn due_ms(table: &TableId, range: &KeyRange, within: Duration) -> i64 {
    if let Some(found) = &range.found {
        return found.at_ms.saturating_add(ms(retry_after(within)));
    }
    let Some(proven_ms) = range.proven_ms else { return i64::MIN };
    let lot = FixedState::default().hash_one((table, &range.from)) % 256;
    let wait_ms = ms(within) / 2 + ms(within) / 4 * lot as i64 / 256;
    proven_ms.saturating_add(wait_ms)
}

/// What was not equal, or could not be compared, is looked at again after this.
pub fn retry_after(within: Duration) -> Duration {
    (within / 10).clamp(PROVING_RETRY_MIN, PROVING_RETRY_MAX)
}

/// How long to pause after a range whose comparison took so long.
pub fn pause_after(took: Duration, is_late: bool) -> Duration {
    if is_late { Duration::ZERO } else { (took * (PROVING_SHARE - 1)).min(PROVING_PAUSE_MAX) }
}

/// How long to pause if nothing is due.
pub fn pause_idle(within: Duration) -> Duration {
    PROVING_LOOKED_EVERY.min(within / 4)
}

/// Tables whose comparison did not come about, until when (ms since the epoch).
#[derive(Debug, Default)]
pub struct Postponed(BTreeMap<TableId, i64>);

impl Postponed {
    pub fn until(&mut self, table: &TableId, ms: i64) {
        self.0.insert(table.clone(), ms);
    }

    pub fn forget_before(&mut self, now_ms: i64) {
        self.0.retain(|_, until_ms| *until_ms > now_ms);
    }

    pub fn is(&self, table: &TableId, now_ms: i64) -> bool {
        self.0.get(table).is_some_and(|until_ms| now_ms < *until_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::proofs::Found;

    const HOUR: Duration = Duration::from_secs(3_600);
    const HOUR_MS: i64 = 3_600_000;

    fn table(name: &str) -> TableId {
        TableId::new("shop", name)
    }

    #[test]
    fn what_was_never_compared_comes_first_and_what_waits_longest_next() {
        let (a, b) = (table("a"), table("b"));
        let mut ranges = ProvenRanges::default();
        ranges.note_equal(None, Some(&RecordKey::Int(10)), 5 * HOUR_MS);
        let of = |now_ms| next([(&a, Some(&ranges)), (&b, None)].into_iter(), HOUR, now_ms);
        assert_eq!(of(5 * HOUR_MS).unwrap().from, Some(RecordKey::Int(10)));
        ranges.note_equal(Some(&RecordKey::Int(10)), None, 4 * HOUR_MS);
        let only_a = |now_ms| next([(&a, Some(&ranges))].into_iter(), HOUR, now_ms);
        assert_eq!(only_a(4 * HOUR_MS + HOUR_MS / 2 - 1), None);
        let due = only_a(4 * HOUR_MS + 3 * HOUR_MS / 4).unwrap();
        assert_eq!((due.from, due.is_late), (Some(RecordKey::Int(10)), false));
        assert!(only_a(6 * HOUR_MS).unwrap().is_late);
    }

    #[test]
    fn a_range_that_differs_is_looked_at_again_before_its_time_and_not_at_once() {
        let a = table("a");
        let mut ranges = ProvenRanges::default();
        ranges.note_equal(None, None, 0);
        ranges.note_found(None, None, Found { at_ms: 1_000, missing: 1, ..Found::default() });
        let of = |now_ms| next([(&a, Some(&ranges))].into_iter(), HOUR, now_ms);
        assert_eq!(of(1_000), None);
        assert!(of(1_000 + ms(retry_after(HOUR))).is_some());
        assert_eq!(retry_after(Duration::from_secs(1)), PROVING_RETRY_MIN);
        assert_eq!(retry_after(24 * HOUR), PROVING_RETRY_MAX);
    }

    #[test]
    fn most_of_the_time_nothing_is_compared_unless_it_is_late() {
        let took = Duration::from_secs(2);
        assert_eq!(pause_after(took, false), Duration::from_secs(6));
        assert_eq!(pause_after(took, true), Duration::ZERO);
        assert_eq!(pause_after(HOUR, false), PROVING_PAUSE_MAX);
        let mut postponed = Postponed::default();
        postponed.until(&table("a"), 100);
        assert!(postponed.is(&table("a"), 99) && !postponed.is(&table("a"), 100) && !postponed.is(&table("b"), 0));
        postponed.forget_before(99);
        assert!(postponed.is(&table("a"), 99));
        postponed.forget_before(100);
        assert!(postponed.0.is_empty());
    }
}
