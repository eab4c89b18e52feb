//! A trace that goes away and comes back, with tables on disk to read from.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use futures::FutureExt;
use serde_json::json;
use weir_model::{Digest, Op, Repair, Window};

use super::*;
use crate::table::{CommitRecord, TableState};
use crate::trace::sqlite::SqliteTrace;
use crate::trace::{AddsUp, Hop, StageCount, TraceError};

/// A real trace that can be out of reach.
struct Flaky {
    trace: SqliteTrace,
    is_away: AtomicBool,
}

impl Flaky {
    fn there(&self) -> Result<&SqliteTrace, TraceError> {
        if self.is_away.load(Ordering::SeqCst) {
            return Err(TraceError::Server {
                place: "http://trace:8123/weir".into(),
                what: "connection refused".into(),
            });
        }
        Ok(&self.trace)
    }
}

impl TraceSink for Flaky {
    async fn ship(&self, source: &str, shipments: &[Shipment]) -> Result<(), TraceError> {
        self.there()?.ship(source, shipments).await
    }

    async fn shipped_version(&self, source: &str, origin: &Origin) -> Result<Option<i64>, TraceError> {
        self.there()?.shipped_version(source, origin).await
    }

    async fn shipped_versions(&self, source: &str) -> Result<BTreeMap<Origin, i64>, TraceError> {
        self.there()?.shipped_versions(source).await
    }

    async fn totals(
        &self,
        source: &str,
        tables: &[TableId],
        since: Option<Window>,
    ) -> Result<BTreeMap<TableId, Vec<StageCount>>, TraceError> {
        self.there()?.totals(source, tables, since).await
    }

    async fn fold(&self, source: &str, before: Window, adds_up: AddsUp) -> Result<u64, TraceError> {
        self.there()?.fold(source, before, adds_up).await
    }

    async fn expire(&self, source: &str, before: Window) -> Result<(), TraceError> {
        self.there()?.expire(source, before).await
    }

    async fn forget(&self, source: &str, table: &TableId) -> Result<(), TraceError> {
        self.there()?.forget(source, table).await
    }

    async fn note_repairs(&self, source: &str, repairs: &[Repair]) -> Result<(), TraceError> {
        self.there()?.note_repairs(source, repairs).await
    }

    async fn noted_repairs(&self, source: &str) -> Result<BTreeMap<String, bool>, TraceError> {
        self.there()?.noted_repairs(source).await
    }

    async fn repairs(&self, source: &str, max: usize) -> Result<Vec<Repair>, TraceError> {
        self.there()?.repairs(source, max).await
    }
}

struct Setting {
    folder: tempfile::TempDir,
    warehouse: Warehouse,
    trace: Arc<Flaky>,
}

impl Setting {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("file://{}", folder.path().join("lake").display());
        let warehouse = Warehouse::open(&url, &std::collections::BTreeMap::new()).unwrap();
        let trace = SqliteTrace::open(&folder.path().join("trace.sqlite")).unwrap();
        Self { folder, warehouse, trace: Arc::new(Flaky { trace, is_away: AtomicBool::new(false) }) }
    }

    fn start(&self, published: Option<Arc<dyn PublishedLog>>) -> Shipper {
        Shipper::start(Shipping {
            sink: self.trace.clone(),
            source: "shop".into(),
            warehouse: self.warehouse.clone(),
            tables: vec![table()],
            published,
        })
    }

    /// Writes a version into the table's log, as any process may.
    fn commit(&self, version: i64) -> Shipment {
        let counts = vec![counted()];
        let record = CommitRecord {
            format: CommitRecord::FORMAT,
            source: "shop".into(),
            commit_id: version.to_string(),
            state: TableState::default(),
            accounts: counts.clone(),
            cleans: Vec::new(),
        };
        let log = self.folder.path().join("lake/shop/orders/_delta_log");
        std::fs::create_dir_all(&log).unwrap();
        let line = json!({"commitInfo": {"timestamp": version, "weir": record}});
        std::fs::write(log.join(format!("{version:020}.json")), format!("{line}\n")).unwrap();
        Shipment::of_commit(table(), version, version, counts)
    }

    fn away(&self, is_away: bool) {
        self.trace.is_away.store(is_away, Ordering::SeqCst);
    }

    async fn expect_in(&self, commits: u64) {
        let trace = &self.trace.trace;
        let totals = trace.totals("shop", &[table()], None).await.unwrap();
        assert_eq!(totals[&table()].first().map(|total| total.count), Some(commits));
        let mark = trace.shipped_version("shop", &Origin::Table(table())).await.unwrap();
        assert_eq!(mark, Some(commits as i64 - 1));
    }
}

fn table() -> TableId {
    TableId::new("shop", "orders")
}

fn counted() -> StageCount {
    StageCount { hop: Hop::Consumed, op: Op::Update, window: Window(0), count: 1, digest: Digest(7) }
}

#[tokio::test]
async fn what_was_committed_before_while_and_after_the_trace_was_away_is_in_once() {
    let setting = Setting::new();
    for version in 0..3 {
        setting.commit(version);
    }
    setting.away(true);
    let mut shipper = setting.start(None);
    for version in 3..1_200 {
        shipper.send(setting.commit(version));
    }
    tokio::time::sleep(Duration::from_millis(400)).await;
    setting.away(false);
    shipper.send(setting.commit(1_200));
    // Another process's, and ours behind it.
    setting.commit(1_201);
    shipper.send(setting.commit(1_202));
    shipper.finish(Patience::UntilAllIsIn).await.unwrap();
    setting.expect_in(1_203).await;
}

#[tokio::test]
async fn commits_are_shipped_from_memory_while_nothing_is_missing() {
    let setting = Setting::new();
    let shipments: Vec<Shipment> = (0..10).map(|version| setting.commit(version)).collect();
    let mut shipper = setting.start(None);
    shipper.send(shipments[9].clone());
    while setting.trace.trace.shipped_version("shop", &Origin::Table(table())).await.unwrap() != Some(9) {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    setting.expect_in(10).await;
    let last = setting.commit(10);
    std::fs::remove_dir_all(setting.folder.path().join("lake")).unwrap();
    shipper.send(last);
    shipper.finish(Patience::UntilAllIsIn).await.unwrap();
    setting.expect_in(11).await;
}

#[tokio::test]
async fn an_end_with_the_trace_away_says_what_is_missing_within_its_bound() {
    let setting = Setting::new();
    setting.away(true);
    let mut shipper = setting.start(None);
    shipper.send(setting.commit(0));
    let begun = Instant::now();
    let unshipped = shipper.finish(Patience::Stop).await.unwrap_err().to_string();
    assert!(begun.elapsed() <= TRACE_STOP_MAX + Duration::from_secs(1));
    for word in ["shop.orders", "connection refused", "next run"] {
        assert!(unshipped.contains(word), "{unshipped}");
    }
    setting.away(false);
    setting.start(None).finish(Patience::UntilAllIsIn).await.unwrap();
    setting.expect_in(1).await;
}

#[tokio::test]
async fn a_table_made_anew_begins_anew_in_the_trace() {
    let setting = Setting::new();
    for version in 0..5 {
        setting.commit(version);
    }
    setting.start(None).finish(Patience::UntilAllIsIn).await.unwrap();
    setting.expect_in(5).await;
    std::fs::remove_dir_all(setting.folder.path().join("lake/shop")).unwrap();
    setting.commit(0);
    setting.start(None).finish(Patience::UntilAllIsIn).await.unwrap();
    setting.expect_in(1).await;
}

/// Two records, 3 and 8, the last of which is shown only after so many looks; none of record 9 counted anything.
#[derive(Default)]
struct PositionTopic {
    looks_before_last: AtomicUsize,
}

impl PublishedLog for PositionTopic {
    fn next(&self, after: Option<i64>, records_max: usize) -> BoxFuture<'_, Result<PublishedPage, Error>> {
        let left = self.looks_before_last.load(Ordering::SeqCst);
        self.looks_before_last.store(left.saturating_sub(1), Ordering::SeqCst);
        let shown = if left == 0 { vec![3, 8] } else { vec![3] };
        let records = shown.into_iter().filter(|number| Some(*number) > after).take(records_max).map(published);
        let (records, reached) = (records.collect(), Some(if left == 0 { 9 } else { 3 }));
        async move { Ok(PublishedPage { records, reached, is_all: true }) }.boxed()
    }
}

fn published(offset: i64) -> Shipment {
    let count = StageCount { hop: Hop::Published, ..counted() };
    Shipment { origin: Origin::Capture, version: offset, at_ms: 0, counts: vec![(table(), count)] }
}

#[tokio::test]
async fn what_capture_counted_is_read_from_its_topic_or_kept_in_memory() {
    for log in [None, Some(Arc::new(PositionTopic::default()) as Arc<dyn PublishedLog>)] {
        let setting = Setting::new();
        setting.away(true);
        let mut shipper = setting.start(log.clone());
        for offset in [3, 8] {
            shipper.send(published(offset));
        }
        tokio::time::sleep(Duration::from_millis(300)).await;
        setting.away(false);
        shipper.finish(Patience::UntilAllIsIn).await.unwrap();
        let trace = &setting.trace.trace;
        assert_eq!(trace.shipped_version("shop", &Origin::Capture).await.unwrap(), Some(8));
        assert_eq!(trace.totals("shop", &[table()], None).await.unwrap()[&table()][0].count, 2);
    }
}

#[tokio::test]
async fn what_its_topic_shows_late_is_waited_for_and_nothing_goes_past_it() {
    let setting = Setting::new();
    let looks_before_last = AtomicUsize::new(4);
    let mut shipper = setting.start(Some(Arc::new(PositionTopic { looks_before_last })));
    shipper.send(published(8));
    // It counted nothing, and is in no page.
    shipper.send(Shipment { counts: vec![], ..published(9) });
    shipper.finish(Patience::UntilAllIsIn).await.unwrap();
    let trace = &setting.trace.trace;
    assert_eq!(trace.shipped_version("shop", &Origin::Capture).await.unwrap(), Some(8));
    assert_eq!(trace.totals("shop", &[table()], None).await.unwrap()[&table()][0].count, 2);
}
