//! What waits for the trace, by origin, and what is to be done next. Pure.
//!
//! An origin that *follows* is shipped from memory, as long as nothing is missing between what is in and what comes. One
//! that is *behind* holds nothing in memory: all of it stands in the origin's own log, and is read there. Memory stays
//! bounded because whatever does not fit puts its origin behind.

use std::collections::{BTreeMap, VecDeque};

use weir_model::TableId;

use crate::limits::{TRACE_BATCH_MAX, TRACE_HELD_MAX};
use crate::trace::{Origin, Shipment};

/// Every origin's way to the trace.
#[derive(Debug, Default)]
pub(super) struct Backlog {
    origins: BTreeMap<Origin, Waiting>,
    /// Those that are behind, in the order of their turns.
    behind: VecDeque<Origin>,
    /// Sum of the weights of everything held.
    held: usize,
    /// Whether what capture counted can be read again.
    capture_has_log: bool,
    /// Shipments of an origin without a log that did not fit.
    dropped: u64,
    /// Whether it is the turn of one that is behind.
    reads_next: bool,
}

#[derive(Debug)]
struct Waiting {
    standing: Standing,
    held: VecDeque<Shipment>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    /// Everything up to `last` is in the trace, on its way there, or held.
    Following { last: Option<i64> },
    /// Something is missing. `seen` is the greatest version known to exist, `mark` what the trace has, once it was asked.
    Behind { seen: Option<i64>, mark: Option<Option<i64>> },
}

/// What to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    Ship(Vec<Shipment>),
    /// Read the log of an origin from behind `mark`; `None` if the trace has to be asked for it first.
    Read {
        origin: Origin,
        mark: Option<Option<i64>>,
    },
}

impl Backlog {
    /// `tables` may all have commits that the trace lacks.
    pub(super) fn new(tables: Vec<TableId>, capture_has_log: bool) -> Self {
        let mut backlog = Self { capture_has_log, ..Self::default() };
        for table in tables {
            backlog.put_behind(&Origin::Table(table), None);
        }
        if capture_has_log {
            backlog.put_behind(&Origin::Capture, None);
        }
        backlog
    }

    /// Takes in what has just been made durable at its origin.
    pub(super) fn arrive(&mut self, shipment: Shipment) {
        let (origin, version) = (shipment.origin.clone(), shipment.version);
        let standing = match self.origins.get(&origin) {
            Some(waiting) => waiting.standing,
            None if self.has_log(&origin) => Standing::Behind { seen: None, mark: None },
            None => Standing::Following { last: None },
        };
        match standing {
            Standing::Behind { seen, .. } => self.put_behind(&origin, seen.max(Some(version))),
            // Another process's answer to the same question.
            Standing::Following { last } if last >= Some(version) => {}
            Standing::Following { last } if !continues(&origin, last, version) => {
                self.put_behind(&origin, Some(version));
            }
            Standing::Following { .. } => self.hold(shipment),
        }
    }

    /// Counts that are held, by their weights, and origins that are behind.
    pub(super) fn sizes(&self) -> (usize, usize) {
        (self.held, self.behind.len())
    }

    /// What to do next, by turns between what is held and what is behind.
    pub(super) fn next_step(&mut self) -> Option<Step> {
        if self.held > 0 && (!self.reads_next || self.behind.is_empty()) {
            self.reads_next = true;
            return Some(Step::Ship(self.take()));
        }
        self.reads_next = false;
        let origin = self.behind.front()?.clone();
        let mark = match self.origins.get(&origin)?.standing {
            Standing::Behind { mark, .. } => mark,
            Standing::Following { .. } => None,
        };
        Some(Step::Read { origin, mark })
    }

    /// What [`Step::Ship`] held could not be shipped. Some of it may be in.
    pub(super) fn ship_failed(&mut self, batch: Vec<Shipment>) {
        for shipment in batch.into_iter().rev() {
            if self.has_log(&shipment.origin) {
                let known = self.origins.get(&shipment.origin).map(|waiting| waiting.standing);
                let seen = match known {
                    Some(Standing::Following { last }) => last,
                    Some(Standing::Behind { seen, .. }) => seen,
                    None => None,
                };
                self.put_behind(&shipment.origin, seen.max(Some(shipment.version)));
            } else if let Some(waiting) = self.origins.get_mut(&shipment.origin) {
                self.held += weight(&shipment);
                waiting.held.push_front(shipment);
            }
        }
        self.fit();
    }

    /// A page of `origin`'s log is in, up to `mark`; `is_all` if the log had no more. Says whether the log is to be given
    /// time: it does not show yet what is known to be in it.
    pub(super) fn read(&mut self, origin: &Origin, mark: Option<i64>, is_all: bool) -> bool {
        let Some(waiting) = self.origins.get_mut(origin) else { return false };
        let Standing::Behind { seen, mark: before } = waiting.standing else { return false };
        let is_reached = seen <= mark;
        // Every commit is in its table's log before it is told of here. One that is not there on a second look is of a
        // table that has been made anew since. A topic may show later what its broker says is committed.
        let is_gone = before == Some(mark) && shows_at_once(origin);
        self.behind.retain(|behind| behind != origin);
        if is_all && (is_reached || is_gone) {
            waiting.standing = Standing::Following { last: mark };
            return false;
        }
        waiting.standing = Standing::Behind { seen, mark: Some(mark) };
        self.behind.push_back(origin.clone());
        is_all && !shows_at_once(origin)
    }

    /// `origin`'s log could not be read or shipped: others have their turn first, and the trace is asked anew.
    pub(super) fn read_failed(&mut self, origin: &Origin) {
        self.behind.retain(|behind| behind != origin);
        if let Some(Waiting { standing: Standing::Behind { mark, .. }, .. }) = self.origins.get_mut(origin) {
            *mark = None;
            self.behind.push_back(origin.clone());
        }
    }

    /// Whether waiting for more would make the next step no larger.
    pub(super) fn is_urgent(&self) -> bool {
        !self.behind.is_empty()
            || self.origins.values().map(|waiting| waiting.held.len()).sum::<usize>() >= TRACE_BATCH_MAX
    }

    pub(super) fn is_empty(&self) -> bool {
        self.held == 0 && self.behind.is_empty()
    }

    /// Origins of which something is not in yet.
    pub(super) fn missing(&self) -> Vec<Origin> {
        let lacks = |waiting: &Waiting| !waiting.held.is_empty() || matches!(waiting.standing, Standing::Behind { .. });
        self.origins.iter().filter(|(_, waiting)| lacks(waiting)).map(|(origin, _)| origin.clone()).collect()
    }

    /// How many shipments have been dropped for good since this was last asked.
    pub(super) fn take_dropped(&mut self) -> u64 {
        std::mem::take(&mut self.dropped)
    }

    fn has_log(&self, origin: &Origin) -> bool {
        *origin != Origin::Capture || self.capture_has_log
    }

    fn hold(&mut self, shipment: Shipment) {
        let (origin, version) = (shipment.origin.clone(), shipment.version);
        if self.held + weight(&shipment) > TRACE_HELD_MAX && self.has_log(&origin) {
            return self.put_behind(&origin, Some(version));
        }
        self.held += weight(&shipment);
        let following = Waiting { standing: Standing::Following { last: None }, held: VecDeque::new() };
        let waiting = self.origins.entry(origin).or_insert(following);
        waiting.standing = Standing::Following { last: Some(version) };
        waiting.held.push_back(shipment);
        self.fit();
    }

    /// Up to a batch of what is held, ascending within each origin.
    fn take(&mut self) -> Vec<Shipment> {
        let mut batch = Vec::new();
        for waiting in self.origins.values_mut() {
            let room = TRACE_BATCH_MAX - batch.len();
            batch.extend(waiting.held.drain(..room.min(waiting.held.len())));
        }
        self.held -= batch.iter().map(weight).sum::<usize>();
        batch
    }

    /// Gives up what is held of `origin`: its log has it.
    fn put_behind(&mut self, origin: &Origin, seen: Option<i64>) {
        let behind = Standing::Behind { seen, mark: None };
        let waiting = self.origins.entry(origin.clone()).or_insert(Waiting { standing: behind, held: VecDeque::new() });
        self.held -= waiting.held.drain(..).map(|shipment| weight(&shipment)).sum::<usize>();
        waiting.standing = match waiting.standing {
            Standing::Behind { mark, .. } => Standing::Behind { seen, mark },
            Standing::Following { .. } => behind,
        };
        if !self.behind.contains(origin) {
            self.behind.push_back(origin.clone());
        }
    }

    /// Drops the oldest of an origin that has no log until the rest fits.
    fn fit(&mut self) {
        let Some(waiting) = self.origins.get_mut(&Origin::Capture) else { return };
        while self.held > TRACE_HELD_MAX && waiting.held.len() > 1 {
            self.held -= waiting.held.pop_front().map_or(0, |shipment| weight(&shipment));
            self.dropped += 1;
        }
    }
}

/// Versions of a table have no gaps; offsets of a topic have, and only one process writes it.
fn continues(origin: &Origin, last: Option<i64>, version: i64) -> bool {
    match origin {
        Origin::Table(_) => version == last.map_or(0, |last| last + 1),
        Origin::Capture => true,
    }
}

/// A folder of commits is read as it is. Kafka answers a commit once it is sure of it, and marks the partitions as committed
/// after that: a reader of what is committed may not see it for a while.
fn shows_at_once(origin: &Origin) -> bool {
    *origin != Origin::Capture
}

/// A commit without counts takes room, too.
fn weight(shipment: &Shipment) -> usize {
    shipment.counts.len().max(1)
}

#[cfg(test)]
#[path = "backlog_tests.rs"]
mod tests;
