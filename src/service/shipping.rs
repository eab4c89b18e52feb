//! Brings what was counted to the trace, in order and without making the stream wait.
//!
//! The trace may be away, at the start as well: the service goes on, and what the trace lacks is read from the origins'
//! own logs once it is back, which also hold what other processes committed. What is missing when the service ends is
//! shipped at its next start. [`backlog`] decides what is next; here is the I/O.

mod backlog;

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use futures::future::BoxFuture;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use weir_model::TableId;

use self::backlog::{Backlog, Step};
use crate::error::Error;
use crate::failpoint;
use crate::figures::{counters, standing};
use crate::limits::{
    TRACE_BATCH_DELAY_MAX, TRACE_BATCH_MAX, TRACE_CAUGHT_UP_MAX, TRACE_RETRY_DELAY, TRACE_RETRY_DELAY_MAX,
    TRACE_STOP_MAX,
};
use crate::reconcile::missing::{self, Reached};
use crate::table::Warehouse;
use crate::trace::{Origin, Shipment, TraceSink};

/// Where capture's counts can be read again: the source's position topic.
pub trait PublishedLog: Send + Sync {
    /// The first records above the version `after`.
    fn next(&self, after: Option<i64>, records_max: usize) -> BoxFuture<'_, Result<PublishedPage, Error>>;
}

/// Records of a [`PublishedLog`].
#[derive(Debug, Clone, PartialEq)]
pub struct PublishedPage {
    /// Those that counted something, ascending.
    pub records: Vec<Shipment>,
    /// The version up to which nothing is missing; `None` if there is no record at all.
    pub reached: Option<i64>,
    /// Whether the log showed no more.
    pub is_all: bool,
}

/// What is shipped, and from where it is read if it has to be read again.
pub struct Shipping<T> {
    pub sink: Arc<T>,
    pub source: String,
    pub warehouse: Warehouse,
    /// Tables that may have commits from before.
    pub tables: Vec<TableId>,
    /// Without it, what capture counted is retried from memory and lost with it.
    pub published: Option<Arc<dyn PublishedLog>>,
}

/// Ships in a task of its own; dropped, it ends.
pub struct Shipper {
    shared: Arc<Shared>,
    task: Option<JoinHandle<()>>,
}

/// How long an end waits for the trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Patience {
    /// A moment: the rest is shipped at the next start.
    Stop,
    /// As long as something goes in.
    UntilAllIsIn,
}

/// What is not in the trace. It is not lost: the origins' own logs have it.
#[derive(Debug)]
pub struct Unshipped {
    origins: Vec<Origin>,
    why: Option<String>,
}

impl fmt::Display for Unshipped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const NAMED_MAX: usize = 5;
        let named: Vec<String> = self.origins.iter().take(NAMED_MAX).map(Origin::to_string).collect();
        let more = if self.origins.len() > NAMED_MAX { ", …" } else { "" };
        write!(f, "the trace lacks commits of {} table(s) ({}{more})", self.origins.len(), named.join(", "))?;
        f.write_str(", which the next run ships from the tables' logs")?;
        self.why.as_ref().map_or(Ok(()), |why| write!(f, ": {why}"))
    }
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    wake: Notify,
}

#[derive(Default)]
struct State {
    backlog: Backlog,
    is_ending: bool,
    /// Steps that succeeded.
    steps_done: u64,
    trouble: Option<String>,
}

impl State {
    /// For whoever watches.
    fn tell(&self) {
        let (counts, origins) = self.backlog.sizes();
        counters().trace_backlog(counts, origins);
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no code panics while holding it")
    }
}

impl Shipper {
    pub fn start<T: TraceSink + 'static>(shipping: Shipping<T>) -> Self {
        let backlog = Backlog::new(shipping.tables.clone(), shipping.published.is_some());
        let state = State { backlog, ..State::default() };
        let shared = Arc::new(Shared { state: Mutex::new(state), wake: Notify::new() });
        let task = tokio::spawn(Work { shipping, shared: shared.clone() }.run());
        Self { shared, task: Some(task) }
    }

    /// Takes in what has been made durable at its origin; never waits.
    pub fn send(&self, shipment: Shipment) {
        let dropped = {
            let mut state = self.shared.state();
            state.backlog.arrive(shipment);
            state.tell();
            state.backlog.take_dropped()
        };
        if dropped > 0 {
            tracing::error!(dropped, "the trace is away for too long: counts of what was published are lost");
        }
        self.shared.wake.notify_one();
    }

    /// Waits, as long as `patience` has it, until everything sent is in the trace.
    ///
    /// # Errors
    /// What is not.
    pub async fn finish(&mut self, patience: Patience) -> Result<(), Unshipped> {
        self.shared.state().is_ending = true;
        self.shared.wake.notify_one();
        let Some(mut task) = self.task.take() else { return Ok(()) };
        let mut done = self.shared.state().steps_done;
        loop {
            match tokio::time::timeout(patience.wait(), &mut task).await {
                Ok(ended) => return ended.map_err(|error| self.unshipped(Some(error.to_string()))),
                Err(_) if patience == Patience::UntilAllIsIn && self.shared.state().steps_done > done => {
                    done = self.shared.state().steps_done;
                }
                Err(_) => {
                    task.abort();
                    return Err(self.unshipped(None));
                }
            }
        }
    }

    fn unshipped(&self, why: Option<String>) -> Unshipped {
        let mut state = self.shared.state();
        Unshipped { origins: state.backlog.missing(), why: why.or(state.trouble.take()) }
    }
}

impl Drop for Shipper {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

impl Patience {
    fn wait(self) -> Duration {
        match self {
            Self::Stop => TRACE_STOP_MAX,
            Self::UntilAllIsIn => TRACE_CAUGHT_UP_MAX,
        }
    }
}

const TRACE_WAY_OUT: &str =
    "make the trace reachable again ([trace]); what it lacks is shipped from the tables' logs then";

/// The task.
struct Work<T> {
    shipping: Shipping<T>,
    shared: Arc<Shared>,
}

impl<T: TraceSink> Work<T> {
    async fn run(self) {
        let mut delay = TRACE_RETRY_DELAY;
        while let Some(step) = self.next_step().await {
            match self.take(step).await {
                Ok(()) => {
                    delay = TRACE_RETRY_DELAY;
                    self.succeeded();
                }
                Err(error) => {
                    self.failed(&error);
                    tokio::time::sleep(delay).await;
                    delay = (delay * 2).min(TRACE_RETRY_DELAY_MAX);
                }
            }
        }
    }

    /// The next thing to do, once there is enough of it; none when all is done that ever will be.
    async fn next_step(&self) -> Option<Step> {
        let mut gathered_until = None;
        loop {
            let is_empty = {
                let mut state = self.shared.state();
                let is_late = gathered_until.is_some_and(|until| Instant::now() >= until);
                if state.backlog.is_urgent() || state.is_ending || is_late {
                    match state.backlog.next_step() {
                        Some(step) => return Some(step),
                        None if state.is_ending => return None,
                        None => {}
                    }
                }
                state.backlog.is_empty()
            };
            if is_empty {
                gathered_until = None;
                self.shared.wake.notified().await;
            } else {
                let until = *gathered_until.get_or_insert_with(|| Instant::now() + TRACE_BATCH_DELAY_MAX);
                let _ = tokio::time::timeout_at(until, self.shared.wake.notified()).await;
            }
        }
    }

    async fn take(&self, step: Step) -> Result<(), Error> {
        match step {
            Step::Ship(batch) => {
                failpoint::reach(failpoint::TRACE_SHIP_BEFORE);
                let shipped = self.shipping.sink.ship(&self.shipping.source, &batch).await;
                failpoint::reach(failpoint::TRACE_SHIP_AFTER);
                match &shipped {
                    Ok(()) => counters().shipped(batch.iter().map(|shipment| shipment.counts.len()).sum()),
                    Err(_) => self.shared.state().backlog.ship_failed(batch),
                }
                Ok(shipped?)
            }
            Step::Read { origin, mark } => {
                let reached = self.read(&origin, mark).await;
                let waits = {
                    let mut state = self.shared.state();
                    match &reached {
                        Ok(reached) => state.backlog.read(&origin, reached.mark, reached.is_all),
                        Err(_) => {
                            state.backlog.read_failed(&origin);
                            false
                        }
                    }
                };
                if waits {
                    tokio::time::sleep(TRACE_RETRY_DELAY).await;
                }
                reached.map(|_| ())
            }
        }
    }

    /// Ships the next page of an origin's own log.
    async fn read(&self, origin: &Origin, mark: Option<Option<i64>>) -> Result<Reached, Error> {
        let Shipping { sink, source, warehouse, published, .. } = &self.shipping;
        match (origin, published) {
            (Origin::Table(table), _) => {
                let mark = match mark {
                    Some(mark) => mark,
                    None => missing::begin(&**sink, source, warehouse, table).await?,
                };
                missing::ship_page(&**sink, source, warehouse, table, mark).await
            }
            (Origin::Capture, Some(log)) => {
                let mark = match mark {
                    Some(mark) => mark,
                    None => sink.shipped_version(source, origin).await?,
                };
                let PublishedPage { records, reached, is_all } = log.next(mark, TRACE_BATCH_MAX).await?;
                sink.ship(source, &records).await?;
                Ok(Reached { mark: reached.max(mark), is_all })
            }
            (Origin::Capture, None) => Ok(Reached { mark: mark.flatten(), is_all: true }),
        }
    }

    fn succeeded(&self) {
        let mut state = self.shared.state();
        state.steps_done += 1;
        state.tell();
        if state.trouble.take().is_some() {
            tracing::info!("the trace is back; it is caught up from the tables' logs");
        }
    }

    /// Said once, until it goes well again.
    fn failed(&self, error: &Error) {
        let told = error.in_a_line();
        let before = self.shared.state().trouble.replace(told.clone());
        counters().trace_failed();
        standing().note(None, format!("the trace is behind: {told}"), TRACE_WAY_OUT.into());
        if before.is_none() {
            tracing::warn!(error = %told, "the trace is behind; the service goes on, and catches up when it can");
        }
    }
}

#[cfg(test)]
#[path = "shipping/tests.rs"]
mod tests;
