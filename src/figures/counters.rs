//! Counters and histograms of the stages, under the names by which Prometheus knows them.
//!
//! docs/metrics.md lists them; a test compares it with what a running service shows.

use std::sync::LazyLock;
use std::time::Duration;

use prometheus::{
    Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, Opts, Registry, core::Collector, proto::MetricFamily,
};
use weir_model::TableId;

use crate::trace::StageCount;

/// Upper bounds in seconds: from a put on a local disk to a commit that rewrites files in a bucket.
const SECONDS: [f64; 13] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0];
/// Upper bounds in bytes: from a single row to a batch that is as large as one may be, and beyond for huge rows.
const BYTES: [f64; 9] = [1024.0, 4096.0, 16384.0, 65536.0, 262144.0, 1048576.0, 4194304.0, 16777216.0, 67108864.0];

/// Everything that is counted as it happens. Each is a total since the process began.
pub struct Counters {
    rows: IntCounterVec,
    commits: IntCounterVec,
    commit_seconds: Histogram,
    put_seconds: Histogram,
    publishes: IntCounter,
    publish_bytes: Histogram,
    publish_seconds: Histogram,
    source_connects: IntCounter,
    source_losses: IntCounter,
    source_events: IntCounter,
    source_bytes: IntCounter,
    read_ahead: IntGauge,
    trace_counts: IntCounter,
    trace_failures: IntCounter,
    trace_waiting: IntGauge,
    trace_behind: IntGauge,
    http_refused: IntCounter,
    registry: Registry,
}

/// The stages in numbers, since the process began.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct StageFigures {
    pub source_connects: u64,
    pub source_losses: u64,
    pub source_events: u64,
    pub source_row_bytes: u64,
    /// Events that are read and wait for capture.
    pub read_ahead_events: i64,
    pub publishes: u64,
    /// From the first change of a publish being decoded to the transport having taken it over.
    pub publish_delay: Timed,
    pub commit: Timed,
    pub put: Timed,
    pub trace_counts: u64,
    pub trace_failures: u64,
    pub trace_waiting_counts: i64,
    pub trace_origins_behind: i64,
}

/// How often something was done, and the seconds that took altogether.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
pub struct Timed {
    pub count: u64,
    pub seconds: f64,
}

impl Timed {
    fn of(histogram: &Histogram) -> Self {
        Self { count: histogram.get_sample_count(), seconds: histogram.get_sample_sum() }
    }
}

/// Those of this process.
pub fn counters() -> &'static Counters {
    static COUNTERS: LazyLock<Counters> = LazyLock::new(Counters::new);
    &COUNTERS
}

impl Counters {
    fn new() -> Self {
        let registry = Registry::new();
        let of = &registry;
        Self {
            rows: counters_by(
                of,
                "weir_table_rows_total",
                "Half-events and rows of loads that passed a hop, as the tables' commits and what was published account for them",
                &["table", "hop", "op"],
            ),
            commits: counters_by(of, "weir_table_commits_total", "Commits of this process to a lake table", &["table"]),
            commit_seconds: histogram(
                of,
                "weir_commit_duration_seconds",
                "Time that a commit of changes takes, from the files to the version",
                &SECONDS,
            ),
            put_seconds: histogram(
                of,
                "weir_put_duration_seconds",
                "Time that putting a table's next version takes, until it is certain whose it is",
                &SECONDS,
            ),
            publishes: counter(of, "weir_publishes_total", "Publishes that capture has handed to the transport"),
            publish_bytes: histogram(
                of,
                "weir_publish_bytes",
                "Bytes of changes in a publish, as they lie in memory",
                &BYTES,
            ),
            publish_seconds: histogram(
                of,
                "weir_publish_delay_seconds",
                "Time from the first change of a publish being decoded to the transport having taken it over; waiting for memory is part of it",
                &SECONDS,
            ),
            source_connects: counter(of, "weir_source_connects_total", "Connections of capture to the source's binlog"),
            source_losses: counter(of, "weir_source_losses_total", "Times that the source was lost"),
            source_events: counter(of, "weir_source_events_total", "Events read from the binlog"),
            source_bytes: counter(of, "weir_source_row_bytes_total", "Bytes of row images read from the binlog"),
            read_ahead: gauge(of, "weir_source_read_ahead_events", "Events that are read and wait for capture"),
            trace_counts: counter(of, "weir_trace_counts_total", "Counts that were shipped to the trace"),
            trace_failures: counter(of, "weir_trace_failures_total", "Times that the trace could not be shipped to"),
            trace_waiting: gauge(of, "weir_trace_waiting_counts", "Counts in memory that wait for the trace"),
            trace_behind: gauge(
                of,
                "weir_trace_origins_behind",
                "Tables (and capture) whose counts the trace lacks, to be read again from their logs",
            ),
            http_refused: counter(
                of,
                "weir_http_refused_total",
                "Connections to this interface that were refused because too many were open",
            ),
            registry,
        }
    }

    /// What a commit of `table`, or a publish for it, accounts for.
    pub fn count(&self, table: &TableId, counts: &[StageCount]) {
        if counts.is_empty() {
            return;
        }
        let table = table.to_string();
        for count in counts {
            let op = char::from(count.op).to_string();
            self.rows.with_label_values(&[table.as_str(), count.hop.name(), op.as_str()]).inc_by(count.count);
        }
    }

    /// A commit of this process to `table`.
    pub fn committed(&self, table: &TableId) {
        self.commits.with_label_values(&[&table.to_string()]).inc();
    }

    /// A commit of what came in by the stream was made.
    pub fn commit_took(&self, took: Duration) {
        self.commit_seconds.observe(took.as_secs_f64());
    }

    /// A version was put, whoever won it.
    pub fn put(&self, took: Duration) {
        self.put_seconds.observe(took.as_secs_f64());
    }

    /// A publish of `bytes`, `delay` after its first change was decoded; one without changes has none.
    pub fn published(&self, bytes: usize, delay: Option<Duration>) {
        self.publishes.inc();
        if let Some(delay) = delay {
            self.publish_bytes.observe(bytes as f64);
            self.publish_seconds.observe(delay.as_secs_f64());
        }
    }

    /// Capture begins to read from the source.
    pub fn source_connected(&self) {
        self.source_connects.inc();
        self.read_ahead.set(0);
    }

    pub fn source_lost(&self) {
        self.source_losses.inc();
    }

    /// An event was read, with so many bytes of row images, and waits for capture.
    pub fn event_read(&self, row_bytes: usize) {
        self.source_events.inc();
        self.source_bytes.inc_by(row_bytes as u64);
    }

    /// So many events are read and wait for capture.
    pub fn read_ahead(&self, events: usize) {
        self.read_ahead.set(events as i64);
    }

    pub fn shipped(&self, counts: usize) {
        self.trace_counts.inc_by(counts as u64);
    }

    pub fn trace_failed(&self) {
        self.trace_failures.inc();
    }

    /// What waits for the trace: counts in memory, and origins that are to be read again.
    pub fn trace_backlog(&self, counts: usize, origins: usize) {
        self.trace_waiting.set(counts as i64);
        self.trace_behind.set(origins as i64);
    }

    pub fn http_refused(&self) {
        self.http_refused.inc();
    }

    /// Everything of this process, by name.
    pub fn gather(&self) -> Vec<MetricFamily> {
        self.registry.gather()
    }

    /// The stages in numbers.
    pub fn stages(&self) -> StageFigures {
        StageFigures {
            source_connects: self.source_connects.get(),
            source_losses: self.source_losses.get(),
            source_events: self.source_events.get(),
            source_row_bytes: self.source_bytes.get(),
            read_ahead_events: self.read_ahead.get(),
            publishes: self.publishes.get(),
            publish_delay: Timed::of(&self.publish_seconds),
            commit: Timed::of(&self.commit_seconds),
            put: Timed::of(&self.put_seconds),
            trace_counts: self.trace_counts.get(),
            trace_failures: self.trace_failures.get(),
            trace_waiting_counts: self.trace_waiting.get(),
            trace_origins_behind: self.trace_behind.get(),
        }
    }

    /// What passed each hop of each table so far: `(table, hop, count over all operations)`.
    pub fn traffic(&self) -> Vec<(String, String, u64)> {
        let mut sums = std::collections::BTreeMap::new();
        for family in self.rows.collect() {
            for metric in family.get_metric() {
                let label = |name: &str| {
                    let label = metric.get_label().iter().find(|label| label.name() == name);
                    label.map(|label| label.value().to_owned()).unwrap_or_default()
                };
                *sums.entry((label("table"), label("hop"))).or_insert(0) += metric.get_counter().get_value() as u64;
            }
        }
        sums.into_iter().map(|((table, hop), count)| (table, hop, count)).collect()
    }
}

/// # Panics
/// Never: names are valid and none stands twice, which any test of a service sees.
fn registered<C: Collector + Clone + 'static>(registry: &Registry, made: prometheus::Result<C>) -> C {
    let metric = made.expect("the name and the labels are valid");
    registry.register(Box::new(metric.clone())).expect("no name stands twice");
    metric
}

fn counter(registry: &Registry, name: &str, help: &str) -> IntCounter {
    registered(registry, IntCounter::new(name, help))
}

fn counters_by(registry: &Registry, name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
    registered(registry, IntCounterVec::new(Opts::new(name, help), labels))
}

fn gauge(registry: &Registry, name: &str, help: &str) -> IntGauge {
    registered(registry, IntGauge::new(name, help))
}

fn histogram(registry: &Registry, name: &str, help: &str, bounds: &[f64]) -> Histogram {
    registered(registry, Histogram::with_opts(HistogramOpts::new(name, help).buckets(bounds.to_vec())))
}

#[cfg(test)]
mod tests {
    use weir_model::{Digest, Op, Window};

    use super::*;
    use crate::trace::Hop;

    #[test]
    fn what_is_counted_is_summed_by_table_and_hop() {
        let counters = Counters::new();
        let table = TableId::new("shop", "orders");
        let count =
            |op, count| StageCount { hop: Hop::Upserted, op, window: Window(0), count, digest: Digest::default() };
        counters.count(&table, &[count(Op::Create, 3), count(Op::Update, 4)]);
        counters.count(&table, &[count(Op::Create, 1)]);
        counters.committed(&table);
        counters.commit_took(Duration::from_millis(3));
        assert_eq!(counters.traffic(), [("shop.orders".to_owned(), "upserted".to_owned(), 8)]);
        let names: Vec<String> = counters.gather().iter().map(|family| family.name().to_owned()).collect();
        assert!(names.iter().all(|name| name.starts_with("weir_")), "{names:?}");
        assert!(names.contains(&"weir_table_commits_total".to_owned()), "{names:?}");
    }
}
