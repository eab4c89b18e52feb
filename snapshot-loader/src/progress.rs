//! How far a load has come: counters that readers add to, and how they are shown to people.

use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{HumanBytes, HumanCount, HumanDuration, ProgressBar, ProgressStyle};
use weir_model::TableId;

/// Counters of one table.
#[derive(Debug)]
pub struct TableProgress {
    /// The engine's estimate, 0 if it has none.
    pub rows_estimated: u64,
    pub chunks: u64,
    rows_done: AtomicU64,
    bytes_done: AtomicU64,
    chunks_done: AtomicU64,
}

impl TableProgress {
    /// Rows read, and the memory they took.
    pub fn add(&self, rows: u64, bytes: u64) {
        self.rows_done.fetch_add(rows, Ordering::Relaxed);
        self.bytes_done.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Takes back what a failed attempt at a chunk has added.
    pub fn take_back(&self, rows: u64, bytes: u64) {
        self.rows_done.fetch_sub(rows, Ordering::Relaxed);
        self.bytes_done.fetch_sub(bytes, Ordering::Relaxed);
    }

    pub fn chunk_done(&self) {
        self.chunks_done.fetch_add(1, Ordering::Relaxed);
    }

    pub fn rows_done(&self) -> u64 {
        self.rows_done.load(Ordering::Relaxed)
    }

    pub fn chunks_done(&self) -> u64 {
        self.chunks_done.load(Ordering::Relaxed)
    }

    fn is_done(&self) -> bool {
        self.chunks_done() >= self.chunks
    }
}

/// Progress of a load over its tables. Shared between those that read and those that show.
#[derive(Debug)]
pub struct Progress {
    started: Instant,
    tables: Mutex<BTreeMap<TableId, Arc<TableProgress>>>,
}

/// Sums at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Totals {
    pub tables: u64,
    pub tables_done: u64,
    pub rows_done: u64,
    /// At least `rows_done`.
    pub rows_estimated: u64,
    pub bytes_done: u64,
    pub elapsed: Duration,
}

impl Totals {
    pub fn rows_per_second(&self) -> u64 {
        (self.rows_done as f64 / self.elapsed.as_secs_f64().max(0.001)) as u64
    }
}

impl Default for Progress {
    fn default() -> Self {
        Self { started: Instant::now(), tables: Mutex::default() }
    }
}

impl Progress {
    pub fn new() -> Arc<Self> {
        Arc::new(Self::default())
    }

    /// Registers a table; calling it again for the same one starts that table over.
    pub fn table(&self, table: &TableId, rows_estimated: u64, chunks: u64) -> Arc<TableProgress> {
        let progress = Arc::new(TableProgress {
            rows_estimated,
            chunks,
            rows_done: AtomicU64::new(0),
            bytes_done: AtomicU64::new(0),
            chunks_done: AtomicU64::new(0),
        });
        self.tables.lock().unwrap_or_else(PoisonError::into_inner).insert(table.clone(), progress.clone());
        progress
    }

    /// The table's load has been given up.
    pub fn remove(&self, table: &TableId) {
        self.tables.lock().unwrap_or_else(PoisonError::into_inner).remove(table);
    }

    pub fn totals(&self) -> Totals {
        let tables = self.tables.lock().unwrap_or_else(PoisonError::into_inner);
        let mut totals = Totals { elapsed: self.started.elapsed(), ..Totals::default() };
        for table in tables.values() {
            let rows = table.rows_done();
            totals.tables += 1;
            totals.tables_done += u64::from(table.is_done());
            totals.rows_done += rows;
            // An estimate may be off either way; what has been read is certain.
            totals.rows_estimated += if table.is_done() { rows } else { rows.max(table.rows_estimated) };
            totals.bytes_done += table.bytes_done.load(Ordering::Relaxed);
        }
        totals
    }

    /// One line for a log.
    pub fn line(&self) -> String {
        let totals = self.totals();
        format!(
            "{} of about {} rows, {} of {} tables, {} rows/s, {}",
            HumanCount(totals.rows_done),
            HumanCount(totals.rows_estimated),
            totals.tables_done,
            totals.tables,
            HumanCount(totals.rows_per_second()),
            HumanBytes(totals.bytes_done)
        )
    }

    /// Whether a table is being read.
    pub fn is_loading(&self) -> bool {
        let totals = self.totals();
        totals.tables_done < totals.tables
    }

    /// Shows progress on stderr until `work` ends, while a table is being read: a bar on a terminal, else a line in the
    /// log every few seconds.
    pub async fn show_while<T>(self: &Arc<Self>, work: impl Future<Output = T>) -> T {
        tokio::pin!(work);
        let on_terminal = std::io::stderr().is_terminal();
        let mut shown: Option<ProgressBar> = None;
        let mut tick = tokio::time::interval(if on_terminal { BAR_INTERVAL } else { LINE_INTERVAL });
        tick.tick().await;
        loop {
            tokio::select! {
                result = &mut work => {
                    clear(&mut shown);
                    return result;
                }
                _ = tick.tick() => match (self.is_loading(), on_terminal) {
                    (true, true) => self.draw(shown.get_or_insert_with(bar)),
                    (true, false) => tracing::info!("{}", self.line()),
                    (false, _) => clear(&mut shown),
                },
            }
        }
    }

    fn draw(&self, bar: &ProgressBar) {
        let totals = self.totals();
        bar.set_length(totals.rows_estimated);
        bar.set_position(totals.rows_done);
        let left = totals.rows_estimated - totals.rows_done;
        let rate = totals.rows_per_second().max(1);
        bar.set_message(format!(
            "{}/{} tables, {} rows/s, {} left",
            totals.tables_done,
            totals.tables,
            HumanCount(rate),
            HumanDuration(Duration::from_secs(left / rate))
        ));
    }
}

fn clear(shown: &mut Option<ProgressBar>) {
    if let Some(bar) = shown.take() {
        bar.finish_and_clear();
    }
}

const BAR_INTERVAL: Duration = Duration::from_millis(200);
const LINE_INTERVAL: Duration = Duration::from_secs(5);

fn bar() -> ProgressBar {
    let style = ProgressStyle::with_template("{bar:30} {human_pos}/{human_len} rows  {msg}");
    let bar = ProgressBar::no_length();
    bar.set_style(style.expect("the template is a constant"));
    bar
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn totals_never_promise_less_than_was_read() {
        let progress = Progress::new();
        let small = progress.table(&TableId::new("shop", "a"), 10, 1);
        let large = progress.table(&TableId::new("shop", "b"), 100, 2);
        small.add(25, 1_000);
        large.add(50, 2_000);
        large.take_back(20, 500);
        let totals = progress.totals();
        assert_eq!((totals.rows_done, totals.rows_estimated, totals.bytes_done), (55, 125, 2_500));
        large.chunk_done();
        large.chunk_done();
        assert_eq!((progress.totals().rows_estimated, progress.totals().tables_done), (55, 1));
    }
}
