//! What every trace sink must do about days, run against each of them.

use std::collections::BTreeMap;

use weir_model::{Digest, Op, TableId, Window};

use super::{commit, sink_totals, table};
use crate::trace::days::{Balance, DAY_MS};
use crate::trace::{Hop, Origin, Shipment, StageCount, TraceSink};

/// A Monday, at midnight.
const DAY: i64 = 19_000 * DAY_MS;
const NOON: i64 = DAY + DAY_MS / 2;

/// `sink` may hold anything but the sources that begin with `days`.
pub(super) async fn upheld_by(sink: &impl TraceSink) {
    what_is_folded_counts_as_before(sink).await;
    what_comes_late_or_again_counts_once(sink).await;
    a_minute_that_does_not_add_up_stays_as_it_is(sink).await;
    the_two_ways_to_add_up_are_summed_apart(sink).await;
    a_forgotten_table_takes_its_folded_counts_with_it(sink).await;
    what_is_expired_counts_no_longer_and_what_does_not_add_up_stays(sink).await;
    random_histories_give_the_sums_of_what_was_shipped(sink).await;
}

/// What was published was consumed, or twice what is stale more than that.
fn adds_up(counts: &[StageCount]) -> Option<Balance> {
    let of = |hop| {
        let counts = counts.iter().filter(|count| count.hop == hop);
        counts.fold((0, Digest::default()), |sum, count| (sum.0 + count.count, sum.1 + count.digest))
    };
    let (published, stale, consumed) = (of(Hop::Published), of(Hop::Stale), of(Hop::Consumed));
    if published == consumed {
        return Some(Balance::WithoutStale);
    }
    ((published.0 + stale.0, published.1 + stale.1) == consumed).then_some(Balance::WithStale)
}

fn counted(hop: Hop, window_ms: i64, count: u64) -> StageCount {
    let digest = Digest(u128::MAX - u128::from(count) * (window_ms / 60_000) as u128);
    StageCount { hop, op: Op::Update, window: Window(window_ms), count, digest }
}

fn through(window_ms: i64, count: u64) -> Vec<StageCount> {
    [Hop::Published, Hop::Consumed].map(|hop| counted(hop, window_ms, count)).to_vec()
}

/// Sums by operation and hop, wherever they stand.
fn sums(counts: &[StageCount]) -> BTreeMap<(Op, Hop), (u64, Digest)> {
    let mut sums: BTreeMap<(Op, Hop), (u64, Digest)> = BTreeMap::new();
    for count in counts {
        let sum = sums.entry((count.op, count.hop)).or_default();
        *sum = (sum.0 + count.count, sum.1 + count.digest);
    }
    sums
}

fn windows(counts: &[StageCount]) -> Vec<i64> {
    let mut windows: Vec<i64> = counts.iter().map(|count| count.window.0).collect();
    windows.dedup();
    windows
}

async fn all(sink: &impl TraceSink, source: &str) -> Vec<StageCount> {
    sink_totals(sink, source, &table(), None).await
}

async fn what_is_folded_counts_as_before(sink: &impl TraceSink) {
    let commits: Vec<Shipment> =
        (0..50).map(|n| commit(n, 0, through(DAY - DAY_MS + n * 3_600_000, n as u64 + 1))).collect();
    sink.ship("days", &commits).await.unwrap();
    let before = all(sink, "days").await;
    assert_eq!(windows(&before).len(), 50);
    sink.fold("days", Window(NOON), adds_up).await.unwrap();
    let after = all(sink, "days").await;
    assert_eq!(sums(&after), sums(&before));
    // Two days, and what is not old enough.
    let expected: Vec<i64> =
        [DAY - DAY_MS + 1, DAY + 1].into_iter().chain((36..50).map(|n| DAY - DAY_MS + n * 3_600_000)).collect();
    assert_eq!(windows(&after), expected);
    let since = sink_totals(sink, "days", &table(), Some(Window(DAY + 3_600_000))).await;
    assert_eq!(windows(&since), expected[1..], "a folded day counts whole");
    // By several at once, and again.
    let (one, other) = tokio::join!(
        sink.fold("days", Window(DAY + DAY_MS), adds_up),
        sink.fold("days", Window(DAY + DAY_MS), adds_up)
    );
    one.unwrap();
    other.unwrap();
    sink.fold("days", Window(DAY), adds_up).await.unwrap();
    let after = all(sink, "days").await;
    assert_eq!(
        (sums(&after), windows(&after)),
        (sums(&before), vec![DAY - DAY_MS + 1, DAY + 1, DAY + DAY_MS, DAY + DAY_MS + 3_600_000])
    );
    assert_eq!(sink_totals(sink, "days", &TableId::new("shop", "other"), None).await, []);
}

async fn what_comes_late_or_again_counts_once(sink: &impl TraceSink) {
    let (first, late) = (commit(0, 0, through(DAY, 3)), commit(1, 0, through(DAY, 4)));
    let capture = Shipment { origin: Origin::Capture, version: 9, at_ms: 0, counts: Vec::new() };
    sink.ship("days2", &[first.clone(), capture]).await.unwrap();
    sink.fold("days2", Window(NOON), adds_up).await.unwrap();
    sink.ship("days2", std::slice::from_ref(&first)).await.unwrap();
    assert_eq!(sums(&all(sink, "days2").await), sums(&first_counts(&[&first])));
    for _ in 0..2 {
        sink.ship("days2", std::slice::from_ref(&late)).await.unwrap();
        assert_eq!(sums(&all(sink, "days2").await), sums(&first_counts(&[&first, &late])));
        sink.fold("days2", Window(NOON), adds_up).await.unwrap();
        assert_eq!(sums(&all(sink, "days2").await), sums(&first_counts(&[&first, &late])));
    }
    assert_eq!(windows(&all(sink, "days2").await), [DAY + 1]);
}

fn first_counts(shipments: &[&Shipment]) -> Vec<StageCount> {
    shipments.iter().flat_map(|shipment| shipment.counts.iter().map(|(_, count)| *count)).collect()
}

async fn a_minute_that_does_not_add_up_stays_as_it_is(sink: &impl TraceSink) {
    let published = |version, window_ms| Shipment {
        origin: Origin::Capture,
        version,
        at_ms: 0,
        counts: vec![(table(), counted(Hop::Published, window_ms, 5))],
    };
    let consumed = |version, window_ms| commit(version, 0, vec![counted(Hop::Consumed, window_ms, 5)]);
    let (whole, lacking) = (DAY + 60_000, DAY + 120_000);
    sink.ship("days3", &[published(1, whole), published(2, lacking), consumed(0, whole)]).await.unwrap();
    for _ in 0..2 {
        sink.fold("days3", Window(NOON), adds_up).await.unwrap();
        assert_eq!(windows(&all(sink, "days3").await), [DAY + 1, lacking]);
    }
    // A week later what is missing comes in.
    sink.fold("days3", Window(DAY + 7 * DAY_MS), adds_up).await.unwrap();
    sink.ship("days3", &[consumed(1, lacking)]).await.unwrap();
    let sum = sums(&all(sink, "days3").await);
    assert_eq!((sum[&(Op::Update, Hop::Published)], sum.len()), (sum[&(Op::Update, Hop::Consumed)], 2));
    sink.fold("days3", Window(DAY + 7 * DAY_MS), adds_up).await.unwrap();
    assert_eq!((windows(&all(sink, "days3").await), sums(&all(sink, "days3").await)), (vec![DAY + 1], sum));
}

async fn the_two_ways_to_add_up_are_summed_apart(sink: &impl TraceSink) {
    let copied = DAY + 60_000;
    let counts = [Hop::Consumed, Hop::Stale].map(|hop| counted(hop, copied, 2)).to_vec();
    sink.ship("days4", &[commit(0, 0, through(DAY, 1)), commit(1, 0, counts)]).await.unwrap();
    let before = sums(&all(sink, "days4").await);
    sink.fold("days4", Window(NOON), adds_up).await.unwrap();
    let after = all(sink, "days4").await;
    assert_eq!((windows(&after), sums(&after)), (vec![DAY + 1, DAY + 2], before));
}

async fn a_forgotten_table_takes_its_folded_counts_with_it(sink: &impl TraceSink) {
    let published = counted(Hop::Published, DAY, 7);
    let capture = Shipment { origin: Origin::Capture, version: 3, at_ms: 0, counts: vec![(table(), published)] };
    let consumed = commit(0, 0, vec![counted(Hop::Consumed, DAY, 7)]);
    sink.ship("days5", &[capture, consumed]).await.unwrap();
    sink.fold("days5", Window(NOON), adds_up).await.unwrap();
    assert_eq!(windows(&all(sink, "days5").await), [DAY + 1]);
    sink.forget("days5", &table()).await.unwrap();
    assert_eq!(sums(&all(sink, "days5").await), sums(&[published]));
    sink.fold("days5", Window(NOON), adds_up).await.unwrap();
    let anew = commit(0, 0, through(DAY, 2));
    sink.ship("days5", std::slice::from_ref(&anew)).await.unwrap();
    let expected: Vec<StageCount> = first_counts(&[&anew]).into_iter().chain([published]).collect();
    for _ in 0..2 {
        assert_eq!(sums(&all(sink, "days5").await), sums(&expected));
        sink.fold("days5", Window(NOON), adds_up).await.unwrap();
    }
}

async fn what_is_expired_counts_no_longer_and_what_does_not_add_up_stays(sink: &impl TraceSink) {
    let lost = counted(Hop::Published, DAY + 60_000, 1);
    let commits = [commit(0, 0, through(DAY, 3)), commit(1, 0, vec![lost]), commit(2, 0, through(DAY + DAY_MS, 4))];
    sink.ship("days6", &commits).await.unwrap();
    sink.fold("days6", Window(DAY + 2 * DAY_MS), adds_up).await.unwrap();
    sink.expire("days6", Window(DAY + DAY_MS - 1)).await.unwrap();
    assert_eq!(windows(&all(sink, "days6").await), [DAY + 1, lost.window.0, DAY + DAY_MS + 1]);
    for _ in 0..2 {
        sink.expire("days6", Window(DAY + DAY_MS)).await.unwrap();
        sink.fold("days6", Window(DAY + 2 * DAY_MS), adds_up).await.unwrap();
        assert_eq!(windows(&all(sink, "days6").await), [lost.window.0, DAY + DAY_MS + 1]);
    }
}

/// Shipments of two tables by capture and themselves, of any window of a few days, some again, between folds and forgets.
async fn random_histories_give_the_sums_of_what_was_shipped(sink: &impl TraceSink) {
    for seed in 1..=3_u64 {
        let (source, mut random) = (format!("days-random-{seed}"), Random(seed));
        let tables = [table(), TableId::new("shop", "items")];
        let mut next: BTreeMap<Origin, i64> = BTreeMap::new();
        let mut shipped: BTreeMap<Origin, Vec<Shipment>> = BTreeMap::new();
        for step in 0..60 {
            let one = random.below(2) as usize;
            match random.below(10) {
                0..6 => {
                    let origin =
                        if random.below(3) == 0 { Origin::Capture } else { Origin::Table(tables[one].clone()) };
                    let version = next.entry(origin.clone()).or_default();
                    let shipment = random.shipment(&origin, *version, &tables);
                    *version += 1;
                    sink.ship(&source, std::slice::from_ref(&shipment)).await.unwrap();
                    shipped.entry(origin).or_default().push(shipment);
                }
                6 => {
                    let of = Origin::Table(tables[one].clone());
                    sink.ship(&source, shipped.get(&of).map_or(&[][..], Vec::as_slice)).await.unwrap();
                }
                7 if random.below(4) == 0 => {
                    let of = Origin::Table(tables[one].clone());
                    sink.forget(&source, &tables[one]).await.unwrap();
                    next.remove(&of);
                    shipped.remove(&of);
                }
                _ => {
                    let before = DAY + random.below(5 * 24) as i64 * 3_600_000;
                    sink.fold(&source, Window(before), adds_up).await.unwrap();
                }
            }
            let found = sink.totals(&source, &tables, None).await.unwrap();
            for table in &tables {
                let all = shipped.values().flatten().flat_map(|shipment| &shipment.counts);
                let expected: Vec<StageCount> = all.filter(|(of, _)| of == table).map(|(_, count)| *count).collect();
                let found = found.get(table).cloned().unwrap_or_default();
                assert_eq!(sums(&found), sums(&expected), "seed {seed}, step {step}, {table}");
            }
        }
    }
}

/// Numbers that follow from a seed.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }

    fn shipment(&mut self, origin: &Origin, version: i64, tables: &[TableId]) -> Shipment {
        let mut counts = Vec::new();
        for _ in 0..=self.below(3) {
            let of = match origin {
                Origin::Table(table) => table.clone(),
                Origin::Capture => tables[self.below(2) as usize].clone(),
            };
            let (window, count) = (DAY + self.below(4 * 1440) as i64 * 60_000, self.below(9) + 1);
            let mut passed = match origin {
                Origin::Table(_) => through(window, count),
                Origin::Capture => vec![counted(Hop::Published, window, count)],
            };
            // Some is lost.
            passed.truncate(if self.below(4) == 0 { 1 } else { 2 });
            counts.extend(passed.into_iter().map(|count| (of.clone(), count)));
        }
        // One count of a window, operation and hop, as commits have them.
        counts.sort_by_key(|(table, count)| (table.clone(), count.window, count.hop));
        counts.dedup_by_key(|(table, count)| (table.clone(), count.window, count.hop));
        Shipment { origin: origin.clone(), version, at_ms: 0, counts }
    }
}
