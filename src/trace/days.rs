//! Days: minutes that add up, summed. Pure.
//!
//! The equations that counts keep are sums, so what holds in each of several minutes holds in their sum, and what does not
//! hold in one of them shows no longer once it is summed with others: so only minutes that add up are folded, and the others
//! stay as they are and are named. One equation holds in either of two ways, with the stale or without them; a sum over
//! minutes of both would hold in neither, so the two are summed apart.

use std::collections::{BTreeMap, BTreeSet};

use weir_model::{Digest, Op, Window};

use super::{Hop, StageCount};

pub const DAY_MS: i64 = 86_400_000;

/// In which way the counts of a minute and an operation add up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Balance {
    /// What was consumed beyond the published are the duplicates.
    WithoutStale,
    /// They are the duplicates and the stale.
    WithStale,
}

/// Says of the counts of one minute and operation whether they add up, and how.
pub type AddsUp = fn(&[StageCount]) -> Option<Balance>;

/// What was folded of a day, by way, origin, operation and hop.
pub type DayCounts = BTreeMap<(Balance, String, Op, Hop), (u64, Digest)>;

impl Balance {
    /// As in the trace.
    pub fn with_stale(self) -> i64 {
        match self {
            Self::WithoutStale => 0,
            Self::WithStale => 1,
        }
    }

    /// The window that stands for the folded minutes of a day: no minute begins there.
    pub fn window(self, day_ms: i64) -> Window {
        Window(day_ms + 1 + self.with_stale())
    }
}

/// Start of the day that a window lies in, ms since the epoch (UTC).
pub fn day_of(window: Window) -> i64 {
    window.0.div_euclid(DAY_MS) * DAY_MS
}

/// Sums those minutes of one day, with the origin of each count, that add up in every operation. Returns the windows of the
/// others, too.
pub fn fold_day(counts: &[(String, StageCount)], adds_up: AddsUp) -> (DayCounts, BTreeSet<Window>) {
    let mut cells: BTreeMap<(Window, Op), Vec<&(String, StageCount)>> = BTreeMap::new();
    for count in counts {
        cells.entry((count.1.window, count.1.op)).or_default().push(count);
    }
    let balances: BTreeMap<(Window, Op), Option<Balance>> = cells
        .iter()
        .map(|(cell, counts)| {
            let counts: Vec<StageCount> = counts.iter().map(|(_, count)| *count).collect();
            (*cell, adds_up(&counts))
        })
        .collect();
    let kept: BTreeSet<Window> =
        balances.iter().filter(|(_, balance)| balance.is_none()).map(|((window, _), _)| *window).collect();
    let mut folded = DayCounts::new();
    for (cell, counts) in cells {
        let Some(balance) = balances[&cell].filter(|_| !kept.contains(&cell.0)) else { continue };
        for (origin, count) in counts {
            let sum = folded.entry((balance, origin.clone(), count.op, count.hop)).or_default();
            sum.0 += count.count;
            sum.1 += count.digest;
        }
    }
    (folded, kept)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(minute: i64, op: Op, hop: Hop, count: u64) -> (String, StageCount) {
        let window = Window(minute * 60_000);
        ("t".to_owned(), StageCount { hop, op, window, count, digest: Digest(count.into()) })
    }

    #[test]
    fn a_minute_is_folded_if_every_operation_of_it_adds_up() {
        // As many as were captured were published.
        fn adds_up(counts: &[StageCount]) -> Option<Balance> {
            let of = |hop| counts.iter().filter(|count| count.hop == hop).map(|count| count.count).sum::<u64>();
            (of(Hop::Captured) == of(Hop::Published)).then_some(Balance::WithoutStale)
        }
        let counts = [
            count(0, Op::Update, Hop::Captured, 1),
            count(0, Op::Update, Hop::Captured, 2),
            count(0, Op::Update, Hop::Published, 3),
            count(1, Op::Update, Hop::Captured, 4),
            count(1, Op::Update, Hop::Published, 4),
            count(1, Op::Delete, Hop::Captured, 1),
            count(2, Op::Update, Hop::Captured, 5),
            count(2, Op::Update, Hop::Published, 5),
        ];
        let (folded, kept) = fold_day(&counts, adds_up);
        assert_eq!(kept, BTreeSet::from([Window(60_000)]));
        let of = |hop| folded[&(Balance::WithoutStale, "t".to_owned(), Op::Update, hop)];
        assert_eq!((of(Hop::Captured), of(Hop::Published), folded.len()), ((8, Digest(8)), (8, Digest(8)), 2));
    }

    #[test]
    fn days_begin_at_midnight_before_1970_too_and_no_minute_begins_where_they_stand() {
        assert_eq!((day_of(Window(DAY_MS + 60_000)), day_of(Window(-60_000))), (DAY_MS, -DAY_MS));
        for balance in [Balance::WithoutStale, Balance::WithStale] {
            let window = balance.window(DAY_MS);
            assert_ne!(window, Window::of(window.0));
            assert_eq!(day_of(window), DAY_MS);
        }
    }
}
