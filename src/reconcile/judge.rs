//! The account equations, and the verdict. Pure.
//!
//! ```text
//! captured = published + filtered
//! published = consumed                                          (transport direct)
//! consumed = upserted + deleted + duplicate + superseded + stale
//! chunk read = upserted + stale + duplicate
//! ```
//! Every equation holds in counts and, but for chunks, in digests, per window and operation: a lost event and a doubled
//! one do not cancel out.

use std::collections::BTreeMap;

use weir_model::{Digest, Op, TableId, Window};

use super::{Chunks, Hops, TableReport, Unbalanced, Verdict, rfc3339};
use crate::state::Phase;
use crate::trace::{Hop, StageCount};

/// What is known of a table besides its counts.
#[derive(Debug, Clone)]
pub struct Standing {
    pub phase: Phase,
    pub error: Option<String>,
    /// Transactions of the source that the table does not have; none if the source could not be asked.
    pub missing_transactions: Option<u64>,
    /// The trace lacks commits that the table has and could not be given them.
    pub trace_behind: bool,
}

/// One side of an equation.
type Side = (&'static str, &'static [Hop]);

/// What must be equal: the left side, the right side.
const STREAM: [(Side, Side); 3] = [
    (("captured", &[Hop::Captured]), ("published", &[Hop::Published, Hop::Filtered])),
    (("published", &[Hop::Published]), ("consumed", &[Hop::Consumed])),
    (
        ("consumed", &[Hop::Consumed]),
        ("applied", &[Hop::Upserted, Hop::Deleted, Hop::Duplicate, Hop::Superseded, Hop::Stale]),
    ),
];
const CHUNKS: (Side, Side) = (
    ("chunks read", &[Hop::ChunkRead]),
    ("chunks applied", &[Hop::ChunkUpserted, Hop::ChunkStale, Hop::ChunkDuplicate]),
);

/// Judges one table by its counts and standing.
pub fn judge(table: TableId, counts: &[StageCount], standing: &Standing) -> TableReport {
    let accounts = Accounts::of(counts);
    let unbalanced = accounts.unbalanced();
    let hops = accounts.hops();
    let mut notices = notices(&hops, standing);
    let verdict = if !unbalanced.is_empty() {
        Verdict::Different
    } else if standing.phase != Phase::Streaming || standing.trace_behind || standing.missing_transactions != Some(0) {
        Verdict::InFlight
    } else {
        Verdict::Balanced
    };
    notices.extend(standing.error.clone());
    TableReport { table, verdict, hops, chunks: accounts.chunks(), unbalanced, notices }
}

fn notices(hops: &Hops, standing: &Standing) -> Vec<String> {
    let mut notices = Vec::new();
    if hops.duplicate > 0 {
        notices.push(format!("{} copies of changes were dropped between published and consumed", hops.duplicate));
    }
    match standing.phase {
        Phase::Streaming => {}
        Phase::Filling { .. } => notices.push("the table is being loaded".into()),
        Phase::Stopped => notices.push("the table has stopped; re-seed it with `weir snapshot --table`".into()),
    }
    match standing.missing_transactions {
        Some(0) => {}
        Some(missing) => notices.push(format!("{missing} transactions of the source have not arrived yet")),
        None => notices.push("the source could not be asked how far it is".into()),
    }
    if standing.trace_behind {
        notices.push("the trace lacks commits that the table has".into());
    }
    notices
}

/// Counts by window and operation.
struct Accounts(BTreeMap<(Window, Op), BTreeMap<Hop, (u64, Digest)>>);

impl Accounts {
    fn of(counts: &[StageCount]) -> Self {
        let mut accounts: BTreeMap<_, BTreeMap<_, (u64, Digest)>> = BTreeMap::new();
        for count in counts {
            let sum = accounts.entry((count.window, count.op)).or_default().entry(count.hop).or_default();
            sum.0 += count.count;
            sum.1 += count.digest;
        }
        Self(accounts)
    }

    fn unbalanced(&self) -> Vec<Unbalanced> {
        let mut found = Vec::new();
        for ((window, op), hops) in &self.0 {
            let sum = |side: &Side| {
                side.1.iter().filter_map(|hop| hops.get(hop)).fold((0, Digest::default()), |(n, d), (count, digest)| {
                    (n + count, d + *digest)
                })
            };
            for (left, right) in STREAM.iter().chain(std::iter::once(&CHUNKS)) {
                let (left_sum, right_sum) = (sum(left), sum(right));
                if left_sum != right_sum {
                    found.push(Unbalanced {
                        between: (left.0, right.0),
                        window: rfc3339(window.0),
                        op: *op,
                        count: left_sum.0.abs_diff(right_sum.0),
                    });
                }
            }
        }
        found
    }

    fn total(&self, hop: Hop) -> u64 {
        self.0.values().filter_map(|hops| hops.get(&hop)).map(|(count, _)| count).sum()
    }

    fn hops(&self) -> Hops {
        Hops {
            captured: self.total(Hop::Captured),
            filtered: self.total(Hop::Filtered),
            published: self.total(Hop::Published),
            consumed: self.total(Hop::Consumed),
            upserted: self.total(Hop::Upserted),
            deleted: self.total(Hop::Deleted),
            duplicate: self.total(Hop::Duplicate),
            superseded: self.total(Hop::Superseded),
            stale: self.total(Hop::Stale),
        }
    }

    fn chunks(&self) -> Chunks {
        Chunks {
            read: self.total(Hop::ChunkRead),
            upserted: self.total(Hop::ChunkUpserted),
            stale: self.total(Hop::ChunkStale),
            duplicate: self.total(Hop::ChunkDuplicate),
            removed: self.total(Hop::ChunkRemoved),
        }
    }
}

#[cfg(test)]
mod tests {
    use weir_model::EventId;

    use super::*;
    use crate::trace::Tally;

    const STREAMING: Standing =
        Standing { phase: Phase::Streaming, error: None, missing_transactions: Some(0), trace_behind: false };

    fn balanced() -> Tally {
        let mut tally = Tally::default();
        for (n, last) in [(1, Hop::Upserted), (2, Hop::Superseded), (3, Hop::Deleted)] {
            for hop in [Hop::Captured, Hop::Published, Hop::Consumed, last] {
                tally.event(hop, Op::Update, Window(0), EventId(n));
            }
        }
        tally
    }

    fn report(counts: &[StageCount], standing: &Standing) -> TableReport {
        judge(TableId::new("shop", "orders"), counts, standing)
    }

    #[test]
    fn equal_accounts_are_balanced() {
        let report = report(&balanced().counts(), &STREAMING);
        assert_eq!((report.verdict, report.hops.captured), (Verdict::Balanced, 3));
    }

    #[test]
    fn a_lost_event_names_the_hops_between_which_it_went() {
        let mut counts = balanced().counts();
        let mut lost = Tally::default();
        lost.event(Hop::Captured, Op::Create, Window(60_000), EventId(9));
        lost.event(Hop::Published, Op::Create, Window(60_000), EventId(9));
        counts.extend(lost.counts());
        let report = report(&counts, &STREAMING);
        assert_eq!(report.verdict, Verdict::Different);
        let [unbalanced] = &report.unbalanced[..] else { panic!("{:?}", report.unbalanced) };
        assert_eq!((unbalanced.between, unbalanced.count, unbalanced.op), (("published", "consumed"), 1, Op::Create));
        assert_eq!(unbalanced.window, "1970-01-01T00:01:00Z");
    }

    #[test]
    fn one_lost_and_one_doubled_do_not_cancel_out() {
        let mut tally = Tally::default();
        for (hop, ids) in [(Hop::Captured, [1, 2]), (Hop::Published, [1, 2]), (Hop::Consumed, [1, 1]), (Hop::Upserted, [1, 1])] {
            for id in ids {
                tally.event(hop, Op::Update, Window(0), EventId(id));
            }
        }
        let report = report(&tally.counts(), &STREAMING);
        assert_eq!((report.verdict, report.unbalanced[0].count), (Verdict::Different, 0));
    }

    #[test]
    fn a_table_that_fills_has_stopped_or_lags_is_never_balanced() {
        for standing in [
            Standing { phase: Phase::Filling { restart: false }, ..STREAMING },
            Standing { phase: Phase::Stopped, error: Some("why".into()), ..STREAMING },
            Standing { missing_transactions: Some(4), ..STREAMING },
            Standing { missing_transactions: None, ..STREAMING },
            Standing { trace_behind: true, ..STREAMING },
        ] {
            let report = report(&balanced().counts(), &standing);
            assert_eq!(report.verdict, Verdict::InFlight, "{standing:?}");
            assert!(!report.notices.is_empty());
        }
    }
}
