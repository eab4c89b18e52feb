//! Sets that are told by their last member, since it stands for everything its origin numbered up to it.

use std::collections::BTreeMap;

/// What is in a set of each origin: the transactions from one, exclusive, to another, inclusive. A position begins at 0; only the
/// difference of two positions begins later.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Spans<K, By>(BTreeMap<K, Span<By>>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Span<By> {
    /// The last one that is not in it; 0 if there is none.
    pub(super) after: End<By>,
    pub(super) last: End<By>,
}

/// A number, and who of the origin gave it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct End<By> {
    pub(super) by: By,
    pub(super) number: u64,
}

impl<K, By> Default for Spans<K, By> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<K: Ord + Clone, By: Copy + Default> Spans<K, By> {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many numbers there are, which may have gaps.
    pub(super) fn count(&self) -> u64 {
        self.0.values().map(|span| span.last.number - span.after.number).sum()
    }

    pub(super) fn contains(&self, origin: &K, number: u64) -> bool {
        self.0.get(origin).is_some_and(|span| span.after.number < number && number <= span.last.number)
    }

    pub(super) fn insert(&mut self, origin: K, by: By, number: u64) {
        let end = End { by, number };
        let span = self.0.entry(origin).or_insert(Span { after: End::default(), last: end });
        if span.last.number < number {
            span.last = end;
        }
    }

    pub(super) fn remove(&mut self, origin: &K) {
        self.0.remove(origin);
    }

    pub(super) fn last(&self, origin: &K) -> Option<End<By>> {
        self.0.get(origin).map(|span| span.last)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&K, &Span<By>)> {
        self.0.iter()
    }

    pub(super) fn unite(&mut self, other: &Self) {
        for (origin, theirs) in &other.0 {
            let mine = self.0.entry(origin.clone()).or_insert(*theirs);
            if theirs.last.number > mine.last.number {
                mine.last = theirs.last;
            }
            if theirs.after.number < mine.after.number {
                mine.after = theirs.after;
            }
        }
    }

    /// What is in `self` and not in `other`. Positions, and what is left of one, have no part in the middle of each other.
    pub(super) fn difference(&self, other: &Self) -> Self {
        let left = self.0.iter().filter_map(|(origin, mine)| {
            let left = match other.0.get(origin) {
                None => *mine,
                Some(theirs) if theirs.after.number > mine.after.number => {
                    let end = if theirs.after.number < mine.last.number { theirs.after } else { mine.last };
                    Span { after: mine.after, last: end }
                }
                Some(theirs) if theirs.last.number > mine.after.number => Span { after: theirs.last, last: mine.last },
                Some(_) => *mine,
            };
            (left.after.number < left.last.number).then(|| (origin.clone(), left))
        });
        Self(left.collect())
    }
}
