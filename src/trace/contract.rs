//! What every trace sink must do, run against each of them.

mod days;

use std::collections::BTreeMap;

use weir_model::{Digest, EventId, Found, Gap, Op, Repair, RepairEnd, TableId, Window};

use super::{Hop, Origin, Shipment, StageCount, Tally, TraceSink};

pub fn table() -> TableId {
    TableId::new("shop", "orders")
}

/// `count` creates that passed from capture into the table, with digests that wrap around.
pub fn accounts(window_ms: i64, count: u64) -> Vec<StageCount> {
    let mut tally = Tally::default();
    for hop in [Hop::Captured, Hop::Consumed, Hop::Published, Hop::Upserted] {
        for n in 0..count {
            tally.event(hop, Op::Create, Window(window_ms), EventId(u128::MAX - u128::from(n)));
        }
    }
    tally.counts()
}

/// A commit of [`table`].
pub fn commit(version: i64, at_ms: i64, accounts: Vec<StageCount>) -> Shipment {
    Shipment::of_commit(table(), version, at_ms, accounts)
}

/// What `sink` has of one table.
pub async fn sink_totals(
    sink: &impl TraceSink,
    source: &str,
    table: &TableId,
    since: Option<Window>,
) -> Vec<StageCount> {
    let totals = sink.totals(source, std::slice::from_ref(table), since).await.unwrap();
    totals.get(table).cloned().unwrap_or_default()
}

/// `sink` is empty.
pub async fn upheld_by(sink: &impl TraceSink) {
    an_empty_sink_knows_nothing(sink).await;
    a_commit_shipped_twice_counts_once(sink).await;
    sums_cover_commits_and_wrap_as_digests_do(sink).await;
    windows_before_since_are_left_out(sink).await;
    sources_and_tables_are_kept_apart(sink).await;
    the_mark_never_falls_and_moves_without_counts(sink).await;
    many_commits_of_many_tables_go_in_one_call(sink).await;
    capture_counts_many_tables_and_keeps_a_mark_of_its_own(sink).await;
    windows_of_any_age_go_in_one_call(sink).await;
    a_forgotten_table_begins_anew_and_keeps_what_capture_counted(sink).await;
    a_repair_is_a_row_from_its_beginning_and_its_first_end_stands(sink).await;
    days::upheld_by(sink).await;
}

async fn mark(sink: &impl TraceSink, source: &str) -> Option<i64> {
    sink.shipped_version(source, &Origin::Table(table())).await.unwrap()
}

async fn an_empty_sink_knows_nothing(sink: &impl TraceSink) {
    assert_eq!(mark(sink, "shop").await, None);
    assert_eq!(sink.shipped_version("shop", &Origin::Capture).await.unwrap(), None);
    assert_eq!(sink_totals(sink, "shop", &table(), None).await, []);
    sink.ship("shop", &[]).await.unwrap();
}

async fn a_commit_shipped_twice_counts_once(sink: &impl TraceSink) {
    for at_ms in [10, 20] {
        sink.ship("shop", &[commit(1, at_ms, accounts(60_000, 3))]).await.unwrap();
    }
    sink.ship("shop", &vec![commit(1, 20, accounts(60_000, 3)); 2]).await.unwrap();
    assert_eq!(mark(sink, "shop").await, Some(1));
    assert_eq!(sink_totals(sink, "shop", &table(), None).await, accounts(60_000, 3));
}

async fn sums_cover_commits_and_wrap_as_digests_do(sink: &impl TraceSink) {
    sink.ship("shop", &[commit(2, 30, accounts(60_000, 2))]).await.unwrap();
    let sums = sink_totals(sink, "shop", &table(), None).await;
    let (first, second) = (accounts(60_000, 3), accounts(60_000, 2));
    for (sum, (a, b)) in sums.iter().zip(first.iter().zip(&second)) {
        assert_eq!((sum.count, sum.digest), (5, a.digest + b.digest));
    }
    assert_eq!(sums.len(), 4);
}

async fn windows_before_since_are_left_out(sink: &impl TraceSink) {
    sink.ship("shop", &[commit(3, 40, accounts(120_000, 1))]).await.unwrap();
    assert_eq!(sink_totals(sink, "shop", &table(), Some(Window(120_000))).await, accounts(120_000, 1));
    assert_eq!(sink_totals(sink, "shop", &table(), None).await.len(), 8);
}

async fn sources_and_tables_are_kept_apart(sink: &impl TraceSink) {
    let other = TableId::new("shop", "it's \\ ? `käufer`");
    sink.ship("shop", &[Shipment::of_commit(other.clone(), 7, 50, accounts(0, 9))]).await.unwrap();
    sink.ship("crm", &[commit(8, 50, accounts(0, 8))]).await.unwrap();
    assert_eq!(mark(sink, "shop").await, Some(3));
    assert_eq!(mark(sink, "crm").await, Some(8));
    let versions = sink.shipped_versions("shop").await.unwrap();
    assert_eq!(versions, [(Origin::Table(table()), 3), (Origin::Table(other.clone()), 7)].into());
    assert_eq!(sink.shipped_version("shop", &Origin::Table(other.clone())).await.unwrap(), Some(7));
    assert_eq!(sink_totals(sink, "shop", &other, None).await, accounts(0, 9));
    assert_eq!(sink_totals(sink, "crm", &table(), None).await, accounts(0, 8));
}

async fn the_mark_never_falls_and_moves_without_counts(sink: &impl TraceSink) {
    sink.ship("shop", &[commit(5, 60, vec![])]).await.unwrap();
    sink.ship("shop", &[commit(3, 60, accounts(120_000, 1))]).await.unwrap();
    assert_eq!(mark(sink, "shop").await, Some(5));
}

async fn many_commits_of_many_tables_go_in_one_call(sink: &impl TraceSink) {
    let tables: Vec<TableId> = (0..5).map(|n| TableId::new("many", &format!("t{n}"))).collect();
    let of = |version: i64| {
        let counts = accounts(version % 3 * 60_000, 2);
        tables.iter().map(move |table| Shipment::of_commit(table.clone(), version, 70, counts.clone()))
    };
    let shipments: Vec<Shipment> = (0..30).flat_map(of).collect();
    sink.ship("shop", &shipments).await.unwrap();
    for table in &tables {
        assert_eq!(sink.shipped_version("shop", &Origin::Table(table.clone())).await.unwrap(), Some(29));
        let totals = sink_totals(sink, "shop", table, None).await;
        assert_eq!((totals.len(), totals[0].count), (12, 20));
    }
}

async fn capture_counts_many_tables_and_keeps_a_mark_of_its_own(sink: &impl TraceSink) {
    let (a, b) = (TableId::new("kafka", "a"), TableId::new("kafka", "b"));
    let published = |table: &TableId, n| {
        let count =
            StageCount { hop: Hop::Published, op: Op::Update, window: Window(0), count: n, digest: Digest(u128::MAX) };
        (table.clone(), count)
    };
    let record = |version, counts| Shipment { origin: Origin::Capture, version, at_ms: 80, counts };
    let records = [record(4, vec![published(&a, 3), published(&b, 5)]), record(9, vec![published(&a, 2)])];
    for _ in 0..2 {
        sink.ship("shop", &records).await.unwrap();
    }
    let consumed = StageCount { hop: Hop::Consumed, ..published(&a, 5).1 };
    sink.ship("shop", &[Shipment::of_commit(a.clone(), 0, 90, vec![consumed])]).await.unwrap();
    assert_eq!(sink.shipped_version("shop", &Origin::Capture).await.unwrap(), Some(9));
    assert_eq!(sink.shipped_version("shop", &Origin::Table(b.clone())).await.unwrap(), None);
    let both = StageCount { digest: Digest(u128::MAX - 1), ..published(&a, 5).1 };
    assert_eq!(sink_totals(sink, "shop", &a, None).await, [both, consumed]);
    assert_eq!(sink_totals(sink, "shop", &b, None).await, [published(&b, 5).1]);
}

/// Event times are those of a client's choice.
async fn windows_of_any_age_go_in_one_call(sink: &impl TraceSink) {
    let old = TableId::new("shop", "old");
    let month_ms = 31 * 86_400_000;
    let shipments: Vec<Shipment> =
        (0..240).map(|n| Shipment::of_commit(old.clone(), n, 95, accounts(n * month_ms, 1))).collect();
    sink.ship("shop", &shipments).await.unwrap();
    assert_eq!(sink.shipped_version("shop", &Origin::Table(old.clone())).await.unwrap(), Some(239));
    assert_eq!(sink_totals(sink, "shop", &old, None).await.len(), 240 * 4);
}

async fn a_forgotten_table_begins_anew_and_keeps_what_capture_counted(sink: &impl TraceSink) {
    let published = accounts(60_000, 1)[1];
    let capture = Shipment { origin: Origin::Capture, version: 10, at_ms: 99, counts: vec![(table(), published)] };
    sink.ship("shop", &[capture]).await.unwrap();
    for _ in 0..2 {
        sink.forget("shop", &table()).await.unwrap();
        assert_eq!(mark(sink, "shop").await, None);
        assert_eq!(sink_totals(sink, "shop", &table(), None).await, [published]);
    }
    assert_eq!(sink.shipped_version("shop", &Origin::Capture).await.unwrap(), Some(10));
    let counts = [StageCount {
        hop: Hop::ChunkRead,
        op: Op::Read,
        window: Window(-60_000),
        count: 4,
        digest: Digest::default(),
    }];
    sink.ship("shop", &[commit(0, 70, counts.to_vec())]).await.unwrap();
    assert_eq!(mark(sink, "shop").await, Some(0));
    assert_eq!(sink_totals(sink, "shop", &table(), None).await, [counts[0], published]);
    assert_eq!(mark(sink, "crm").await, Some(8));
    assert_eq!(sink_totals(sink, "crm", &table(), None).await, accounts(0, 8));
}

async fn a_repair_is_a_row_from_its_beginning_and_its_first_end_stands(sink: &impl TraceSink) {
    assert!(sink.noted_repairs("shop").await.unwrap().is_empty() && sink.repairs("shop", 9).await.unwrap().is_empty());
    sink.note_repairs("shop", &[]).await.unwrap();
    let begun = |id: &str, at_ms| Repair {
        id: id.into(),
        table: table(),
        at_ms,
        by: "command".into(),
        host: "it's \\ ? here".into(),
        found: Found {
            missing_count: u64::from(u32::MAX) + 1,
            different_count: 1,
            missing: vec![serde_json::json!({"id": 5, "code": "é'\\\n"})],
            ..Found::default()
        },
        keys: 3,
        anew: None,
        end: None,
    };
    let gap = Gap {
        between: ["published".into(), "consumed".into()],
        window: Window(-60_000),
        op: Op::Delete,
        count: 2,
        digest: Digest(u128::MAX),
    };
    let ended = |repair: &Repair, at_ms, left_count: Option<u64>| {
        let (job, error) = (Some("job-1".into()), left_count.is_none().then(|| "refused: ü".into()));
        let end = RepairEnd { at_ms, anew: None, job, left_count, error, made_up_for: vec![gap.clone()] };
        repair.clone().ended(end)
    };
    let (first, second) = (begun("a-1", 10), Repair { anew: Some("why".into()), keys: 0, ..begun("b-2", 20) });
    for _ in 0..2 {
        sink.note_repairs("shop", &[first.clone(), second.clone()]).await.unwrap();
    }
    assert_eq!(sink.repairs("shop", 9).await.unwrap(), [second.clone(), first.clone()]);
    let (first, second) = (ended(&first, 30, Some(0)), ended(&second, 40, None));
    sink.note_repairs("shop", std::slice::from_ref(&first)).await.unwrap();
    assert_eq!(
        sink.noted_repairs("shop").await.unwrap(),
        BTreeMap::from([("a-1".to_owned(), true), ("b-2".to_owned(), false)])
    );
    // Told late of what it knows better, and for the first time of what has ended.
    let third = ended(&begun("c-3", 15), 50, Some(7));
    sink.note_repairs("shop", &[begun("a-1", 10), second.clone(), third.clone()]).await.unwrap();
    assert_eq!(sink.repairs("shop", 9).await.unwrap(), [second.clone(), third, first]);
    assert_eq!(sink.repairs("shop", 1).await.unwrap(), [second]);
    sink.forget("shop", &table()).await.unwrap();
    assert_eq!((sink.repairs("shop", 9).await.unwrap().len(), sink.repairs("crm", 9).await.unwrap().len()), (3, 0));
}
