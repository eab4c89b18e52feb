//! When which keys of a table were last seen to be equal: a range of keys each, all of them together every key. Pure.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use weir_model::RecordKey;
use weir_model::key::KeyRef;

use crate::limits::PROVEN_RANGES_MAX;

/// The keys from `from` up to the next range.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct KeyRange {
    /// In canonical form; none for the first range, which has everything below the second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<RecordKey>,
    /// Each of its keys was equal then or later; ms since the epoch. None if it was never compared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proven_ms: Option<i64>,
    /// What the last comparison found, unless all was equal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub found: Option<Found>,
}

/// Keys that were not equal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct Found {
    /// Ms since the epoch.
    pub at_ms: i64,
    pub missing: u64,
    pub extra: u64,
    pub different: u64,
    /// Keys that could not be settled; of themselves no difference.
    #[serde(default)]
    pub in_flight: u64,
    /// Data files that are gone.
    #[serde(default)]
    pub lost_files: u64,
    /// Some of the keys, as a report shows them.
    #[serde(default)]
    pub keys: Vec<Value>,
}

impl Found {
    /// Whether the table is not what the source is, rather than unsettled.
    pub fn is_difference(&self) -> bool {
        self.missing + self.extra + self.different + self.lost_files > 0
    }

    /// Takes in another range's, keeping `keys_max` keys.
    fn add(&mut self, other: &Self, keys_max: usize) {
        self.at_ms = self.at_ms.max(other.at_ms);
        self.missing += other.missing;
        self.extra += other.extra;
        self.different += other.different;
        self.in_flight += other.in_flight;
        self.lost_files += other.lost_files;
        let room = keys_max.saturating_sub(self.keys.len());
        self.keys.extend(other.keys.iter().take(room).cloned());
    }
}

/// All keys of one table, divided into ranges; ascending, the first without a lower end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Vec<KeyRange>")]
pub struct ProvenRanges(Vec<KeyRange>);

impl Default for ProvenRanges {
    fn default() -> Self {
        Self(vec![KeyRange::default()])
    }
}

impl From<Vec<KeyRange>> for ProvenRanges {
    /// What is not a division of all keys counts as nothing.
    fn from(ranges: Vec<KeyRange>) -> Self {
        let begins = ranges.first().is_some_and(|first| first.from.is_none());
        let ascends = ranges.windows(2).all(|pair| start(&pair[0]) < start(&pair[1]));
        if begins && ascends { Self(ranges) } else { Self::default() }
    }
}

fn start(range: &KeyRange) -> Option<KeyRef<'_>> {
    range.from.as_ref().map(RecordKey::as_ref)
}

impl ProvenRanges {
    pub fn iter(&self) -> impl Iterator<Item = &KeyRange> {
        self.0.iter()
    }

    /// Every key was equal at this moment or later; none as long as some have never been.
    pub fn through_ms(&self) -> Option<i64> {
        self.0.iter().map(|range| range.proven_ms).min().flatten()
    }

    /// What was found of all ranges, with `keys_max` of the keys.
    pub fn found(&self, keys_max: usize) -> Found {
        let mut all = Found::default();
        for found in self.0.iter().filter_map(|range| range.found.as_ref()) {
            all.add(found, keys_max);
        }
        all
    }

    /// Notes that the keys from `from` up to `to` (none is unbounded) were equal at `at_ms`.
    pub fn note_equal(&mut self, from: Option<&RecordKey>, to: Option<&RecordKey>, at_ms: i64) {
        self.replace(from, to, |_| KeyRange { proven_ms: Some(at_ms), found: None, from: None });
    }

    /// Notes what a comparison of these keys found. When they were equal last stays as it was.
    pub fn note_found(&mut self, from: Option<&RecordKey>, to: Option<&RecordKey>, found: Found) {
        self.replace(from, to, |oldest_ms| KeyRange { proven_ms: oldest_ms, found: Some(found), from: None });
    }

    /// Puts one range in the place of all keys from `from` up to `to`; `range` is given the oldest proof of what was there.
    fn replace(
        &mut self,
        from: Option<&RecordKey>,
        to: Option<&RecordKey>,
        range: impl FnOnce(Option<i64>) -> KeyRange,
    ) {
        let first = from.map(RecordKey::as_ref);
        let end = to.map(RecordKey::as_ref);
        if end.is_some() && end <= first {
            // Nothing lies in between.
            return;
        }
        // The ranges from the one that holds `from` to the last that begins below `to`.
        let from_at = self.0.partition_point(|range| start(range) <= first).saturating_sub(1);
        let to_at = if end.is_some() { self.0.partition_point(|range| start(range) < end) } else { self.0.len() };
        let covered = &self.0[from_at..to_at];
        let oldest_ms = covered.iter().map(|range| range.proven_ms).min().flatten();
        let mut put = Vec::with_capacity(3);
        if start(&covered[0]) < first {
            put.push(rest_of(&covered[0], covered[0].from.clone()));
        }
        put.push(KeyRange { from: from.cloned(), ..range(oldest_ms) });
        let next_begins_there = self.0.get(to_at).is_some_and(|next| start(next) == end);
        if end.is_some() && !next_begins_there {
            put.push(rest_of(&covered[covered.len() - 1], to.cloned()));
        }
        self.0.splice(from_at..to_at, put);
        if self.0.len() > PROVEN_RANGES_MAX {
            self.halve();
        }
    }

    /// Joins each two neighbours; what both say is what the lesser of them says.
    fn halve(&mut self) {
        let joined = |pair: &[KeyRange]| {
            let mut all = pair[0].clone();
            for other in &pair[1..] {
                all.proven_ms = all.proven_ms.min(other.proven_ms);
                all.found = match (all.found.take(), &other.found) {
                    (Some(mut found), Some(other)) => {
                        found.add(other, usize::MAX);
                        Some(found)
                    }
                    (found, other) => found.or_else(|| other.clone()),
                };
            }
            all
        };
        self.0 = self.0.chunks(2).map(joined).collect();
    }
}

/// What is left of a range of which another part was compared. Where in it something was found is not known, so nothing is
/// known of the rest.
fn rest_of(range: &KeyRange, from: Option<RecordKey>) -> KeyRange {
    let proven_ms = range.proven_ms.filter(|_| range.found.is_none());
    KeyRange { from, proven_ms, found: None }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key(value: i64) -> Option<RecordKey> {
        Some(RecordKey::Int(value))
    }

    fn shown(ranges: &ProvenRanges) -> Vec<(Option<i64>, Option<i64>)> {
        let from =
            |range: &KeyRange| range.from.as_ref().map(|key| if let RecordKey::Int(key) = key { *key } else { 0 });
        ranges.iter().map(|range| (from(range), range.proven_ms)).collect()
    }

    #[test]
    fn a_table_is_proven_through_the_oldest_of_its_ranges() {
        let mut ranges = ProvenRanges::default();
        assert_eq!(ranges.through_ms(), None);
        ranges.note_equal(None, key(10).as_ref(), 100);
        assert_eq!((ranges.through_ms(), shown(&ranges)), (None, vec![(None, Some(100)), (Some(10), None)]));
        ranges.note_equal(key(10).as_ref(), None, 200);
        assert_eq!(ranges.through_ms(), Some(100));
        ranges.note_equal(None, key(20).as_ref(), 300);
        assert_eq!((ranges.through_ms(), shown(&ranges)), (Some(200), vec![(None, Some(300)), (Some(20), Some(200))]));
    }

    #[test]
    fn what_was_found_stays_until_its_keys_are_equal() {
        let mut ranges = ProvenRanges::default();
        ranges.note_equal(None, None, 100);
        let found = Found { at_ms: 200, missing: 2, keys: vec![1.into(), 2.into(), 3.into()], ..Found::default() };
        ranges.note_found(key(0).as_ref(), key(50).as_ref(), found);
        let all = ranges.found(2);
        assert_eq!((ranges.through_ms(), all.missing, all.keys.len()), (Some(100), 2, 2));
        assert!(all.is_difference());
        // Of the rest of that range nobody knows whether it has the difference.
        ranges.note_equal(key(0).as_ref(), key(20).as_ref(), 300);
        assert_eq!(shown(&ranges), [(None, Some(100)), (Some(0), Some(300)), (Some(20), None), (Some(50), Some(100))]);
        ranges.note_equal(key(20).as_ref(), key(50).as_ref(), 400);
        assert_eq!((ranges.through_ms(), ranges.found(9)), (Some(100), Found::default()));
    }

    #[test]
    fn too_many_ranges_are_joined_without_saying_more_than_each() {
        let mut ranges = ProvenRanges::default();
        ranges.note_equal(None, None, 5);
        for n in 0..PROVEN_RANGES_MAX as i64 {
            ranges.note_equal(key(n).as_ref(), key(n + 1).as_ref(), 1_000 - n % 7);
        }
        assert!(ranges.iter().count() <= PROVEN_RANGES_MAX / 2 + 2);
        assert_eq!(ranges.through_ms(), Some(5));
    }

    #[test]
    fn what_divides_no_table_counts_as_nothing() {
        let text = r#"[{"from": 3, "proven_ms": 9}]"#;
        assert_eq!(serde_json::from_str::<ProvenRanges>(text).unwrap(), ProvenRanges::default());
        let mut ranges = ProvenRanges::default();
        ranges.note_equal(key(1).as_ref(), key(7).as_ref(), 100);
        let written = serde_json::to_string(&ranges).unwrap();
        assert_eq!(serde_json::from_str::<ProvenRanges>(&written).unwrap(), ranges);
    }

    proptest! {
        #[test]
        fn each_key_is_proven_when_it_was_last_compared(
            notes in prop::collection::vec((prop::option::of(0_i64..20), prop::option::of(0_i64..20)), 1..30)
        ) {
            let mut ranges = ProvenRanges::default();
            let mut expected = [None; 20];
            for (at, (from, to)) in notes.into_iter().enumerate() {
                let at_ms = at as i64 + 1;
                ranges.note_equal(from.and_then(key).as_ref(), to.and_then(key).as_ref(), at_ms);
                for (key, proven) in (0_i64..).zip(&mut expected) {
                    if from.is_none_or(|from| key >= from) && to.is_none_or(|to| key < to) {
                        *proven = Some(at_ms);
                    }
                }
            }
            let of = |wanted: i64| {
                let below = |range: &&KeyRange| start(range) <= Some(KeyRef::Int(wanted));
                ranges.iter().take_while(below).last().and_then(|range| range.proven_ms)
            };
            prop_assert_eq!(std::array::from_fn(|key| of(key as i64)), expected);
        }
    }
}
