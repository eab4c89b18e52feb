//! What is shown, gathered: the status no older than a moment, however many ask, and what goes with it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use serde::Serialize;
use tokio::sync::Mutex;
use weir_model::clock;

use super::health::{ails_now, not_ready};
use crate::config::Configured;
use crate::error::Error;
use crate::figures::{Noted, StageFigures, counters, standing};
use crate::limits::{STATUS_COST_SHARE, STATUS_FRESH};
use crate::service::Role;
use crate::service::status::Status;
use crate::service::watching::Watching;

/// The service as it is shown.
pub(super) struct Face {
    role: Role,
    started_ms: i64,
    address: OnceLock<SocketAddr>,
    /// Every table has streamed once.
    has_streamed: AtomicBool,
    looking: Arc<Mutex<Looking>>,
}

struct Looking {
    watching: Watching,
    last: Option<Look>,
}

/// A status, when it was taken, and how long that took.
struct Look {
    status: Result<Arc<Status>, String>,
    at: Instant,
    took: Duration,
}

/// What `/status` answers: the status of `weir status --format json`, and what only the process knows that runs the service.
#[derive(Serialize)]
pub(super) struct Shown {
    #[serde(flatten)]
    pub(super) status: Arc<Status>,
    pub(super) service: Service,
    pub(super) stages: StageFigures,
    pub(super) flow: Flow,
    /// By table and hop: what passed since the process began.
    pub(super) traffic: BTreeMap<String, BTreeMap<String, u64>>,
    /// The newest first.
    pub(super) errors: Vec<Noted>,
}

/// What is between the source and the tables at this moment.
#[derive(Serialize)]
pub(super) struct Flow {
    /// Why the source cannot be read.
    pub(super) source_lost: Option<String>,
    /// Publishes that some table has not committed.
    pub(super) publishes_outstanding: usize,
    pub(super) memory_held_bytes: Option<usize>,
    pub(super) memory_max_bytes: Option<usize>,
}

/// The process that answers.
#[derive(Serialize)]
pub(super) struct Service {
    pub(super) version: &'static str,
    /// `run`, `capture` or `apply`.
    pub(super) role: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) address: Option<SocketAddr>,
    pub(super) at_ms: i64,
    pub(super) started_ms: i64,
    pub(super) ready: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) not_ready: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) ails: Option<String>,
}

impl Face {
    pub(super) fn new(configured: &Configured, role: Role) -> Result<Self, Error> {
        let watching = Watching::new(configured, role)?;
        Ok(Self {
            role,
            started_ms: clock::now_ms(),
            address: OnceLock::new(),
            has_streamed: AtomicBool::new(false),
            looking: Arc::new(Mutex::new(Looking { watching, last: None })),
        })
    }

    pub(super) fn listens_on(&self, address: SocketAddr) {
        let _ = self.address.set(address);
    }

    /// Says why the service does not live.
    pub(super) fn ails(&self) -> Option<String> {
        ails_now(standing())
    }

    /// Says why the service does not stream.
    pub(super) fn not_ready(&self) -> Option<String> {
        let standing = standing();
        let (life, lost, tables) = (standing.life(), standing.why_source_is_lost(), standing.tables());
        let phases = tables.iter().map(|(table, stands)| (table.to_string(), &stands.phase));
        let why = not_ready(&life, lost.as_deref(), phases, self.has_streamed.load(Ordering::Relaxed));
        if why.is_none() {
            self.has_streamed.store(true, Ordering::Relaxed);
        }
        why
    }

    /// Everything, with a status that is fresh.
    ///
    /// # Errors
    /// Why there is no status.
    pub(super) async fn shown(&self) -> Result<Shown, String> {
        let status = self.status().await?;
        let mut traffic: BTreeMap<String, BTreeMap<String, u64>> = BTreeMap::new();
        for (table, hop, count) in counters().traffic() {
            traffic.entry(table).or_default().insert(hop, count);
        }
        let standing = standing();
        let memory = standing.memory();
        let flow = Flow {
            source_lost: standing.why_source_is_lost(),
            publishes_outstanding: standing.publishes_outstanding(),
            memory_held_bytes: memory.map(|(held, _)| held),
            memory_max_bytes: memory.map(|(_, max)| max),
        };
        let (service, stages, errors) = (self.service(), counters().stages(), standing.errors());
        Ok(Shown { status, service, stages, flow, traffic, errors })
    }

    pub(super) fn service(&self) -> Service {
        let not_ready = self.not_ready();
        Service {
            version: env!("CARGO_PKG_VERSION"),
            role: match self.role {
                Role::Both => "run",
                Role::Capture => "capture",
                Role::Apply => "apply",
            },
            address: self.address.get().copied(),
            at_ms: clock::now_ms(),
            started_ms: self.started_ms,
            ready: not_ready.is_none(),
            not_ready,
            ails: self.ails(),
        }
    }

    /// Looks in a task of its own: a client that goes away in the midst must not undo what others wait for. It waits for its
    /// turn by itself, so that there is one such task at a time.
    async fn status(&self) -> Result<Arc<Status>, String> {
        let mut looking = self.looking.clone().lock_owned().await;
        let looked = tokio::spawn(async move { looking.status().await });
        looked.await.unwrap_or_else(|error| Err(error.to_string()))
    }
}

impl Looking {
    async fn status(&mut self) -> Result<Arc<Status>, String> {
        if let Some(last) = self.last.as_ref().filter(|last| is_fresh(last.at.elapsed(), last.took)) {
            return last.status.clone();
        }
        let begun = Instant::now();
        let status = self.watching.look().await.map(Arc::new).map_err(|error| error.in_a_line());
        self.last = Some(Look { status: status.clone(), at: Instant::now(), took: begun.elapsed() });
        status
    }
}

/// Whether a status of this age serves: what takes long to look at is looked at rarely.
fn is_fresh(age: Duration, took: Duration) -> bool {
    age < STATUS_FRESH.max(took * STATUS_COST_SHARE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_costs_much_is_looked_at_rarely() {
        assert!(is_fresh(Duration::from_millis(500), Duration::ZERO));
        assert!(!is_fresh(Duration::from_secs(1), Duration::from_millis(20)));
        assert!(is_fresh(Duration::from_secs(25), Duration::from_secs(3)));
    }
}
