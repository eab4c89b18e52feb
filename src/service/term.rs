//! A *term* is what runs by one configuration: incarnations, one after another.
//!
//! A reload ends a term as SIGTERM would: capture stops at the end of a transaction, what is on its way is committed, and
//! the checkpoint says so. The next term begins from what is durable, in the same process, so that nothing rests on what
//! changed, and a reload is as exact as a start. Settings by which no incarnation can begin are undone.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio_util::sync::CancellationToken;

use super::reload::{Change, ConfigWatch, refuse};
use super::{Reseed, Role, RunOptions, kafka, run_until};
use crate::config::{Config, Configured, TransportKind};
use crate::error::{Error, Kind};
use crate::figures::standing;

/// What runs by one configuration.
pub(super) struct Term {
    pub(super) config: Arc<Config>,
    /// Ends the term: the process is to end, or other settings are to be gone on by.
    pub(super) stop: CancellationToken,
    /// The process is to end.
    process: CancellationToken,
    /// An incarnation has begun in an earlier term of the process.
    pub(super) follows: bool,
    /// Settings by which it differs from the one before; none for the first, and for one that takes up what was undone.
    changed: Vec<String>,
    begun: AtomicBool,
}

impl Term {
    /// The first of a process, which is asked to end by `process`.
    pub(super) fn first(config: Arc<Config>, process: &CancellationToken) -> Self {
        Self {
            config,
            stop: process.child_token(),
            process: process.clone(),
            follows: false,
            changed: Vec::new(),
            begun: AtomicBool::new(false),
        }
    }

    fn then(&self, change: Change) -> Self {
        let first = Self::first(change.config, &self.process);
        Self { follows: self.follows || self.has_begun(), changed: change.changed, ..first }
    }

    /// An incarnation has begun by these settings.
    pub(super) fn begins(&self) {
        if !self.begun.swap(true, Ordering::Relaxed) {
            if !self.changed.is_empty() {
                tracing::info!(changed = %self.changed.join(", "), "running by the changed configuration");
            }
            standing().runs_by(self.changed.clone());
        }
    }

    fn has_begun(&self) -> bool {
        self.begun.load(Ordering::Relaxed)
    }

    /// Whether another term begins where this one ends.
    pub(super) fn is_replaced(&self) -> bool {
        self.stop.is_cancelled() && !self.process.is_cancelled()
    }

    async fn run(&self, options: RunOptions, role: Role) -> Result<(), Error> {
        match (self.config.transport.kind, role) {
            (TransportKind::Direct, Role::Both) => run_until(self, options).await,
            (TransportKind::Direct, Role::Capture | Role::Apply) => Err(Error::config(
                "`weir capture` and `weir apply` are joined by Kafka, and [transport] kind is \"direct\"",
            )
            .way_out("set [transport] kind = \"kafka\" and brokers, or use `weir run`")),
            (TransportKind::Kafka, role) => kafka::run(self, options, role).await,
        }
    }
}

/// Runs one term after the other until `process` is asked to end, or the run has come to its end.
pub(super) async fn run_terms(
    configured: &Configured,
    mut options: RunOptions,
    role: Role,
    process: &CancellationToken,
) -> Result<(), Error> {
    let mut watch = ConfigWatch::new(configured, role, !options.until_caught_up);
    let mut term = Term::first(configured.get(), process);
    // Settings that an incarnation has begun by: what is gone back to.
    let mut former = None;
    loop {
        let ended = run_term(&term, options.clone(), role, &mut watch).await;
        let next = match ended {
            Ended::Replaced(change) => {
                if term.has_begun() {
                    former = Some(term.config.clone());
                }
                change
            }
            Ended::Done(Err(error)) if undoes(&error, &term) => {
                let Some(config) = former.take() else { return Err(error) };
                refuse(&format!("the service cannot begin by it: {}", error.in_a_line()));
                Change { config, changed: Vec::new() }
            }
            Ended::Done(result) => return result,
        };
        configured.replace(next.config.clone());
        term = term.then(next);
        options.reseed = Reseed::None;
    }
}

/// How a term ended.
enum Ended {
    Done(Result<(), Error>),
    Replaced(Change),
}

async fn run_term(term: &Term, options: RunOptions, role: Role, watch: &mut ConfigWatch) -> Ended {
    let mut running = std::pin::pin!(term.run(options, role));
    let change = tokio::select! {
        result = &mut running => return Ended::Done(result),
        change = watch.next() => change,
    };
    tracing::info!(changed = %change.changed.join(", "), "the configuration has changed; finishing the commits in hand");
    term.stop.cancel();
    match running.await {
        Ok(()) if term.is_replaced() => Ended::Replaced(change),
        result => Ended::Done(result),
    }
}

/// Whether an error is of the settings that `term` was to begin by, as far as can be known: nothing has begun by them.
fn undoes(error: &Error, term: &Term) -> bool {
    !term.has_begun() && error.kind() != Kind::Fenced
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change() -> Change {
        Change { config: Arc::new(Config::default()), changed: vec!["source.tables".into()] }
    }

    #[test]
    fn a_term_that_is_replaced_ends_no_process() {
        let process = CancellationToken::new();
        let first = Term::first(Arc::new(Config::default()), &process);
        first.stop.cancel();
        assert!(first.is_replaced() && !process.is_cancelled());
        let second = first.then(change());
        assert!(!second.stop.is_cancelled() && !second.is_replaced());
        process.cancel();
        assert!(second.stop.is_cancelled() && !second.is_replaced());
    }

    #[test]
    fn only_settings_that_nothing_has_begun_by_are_undone() {
        let process = CancellationToken::new();
        let term = Term::first(Arc::new(Config::default()), &process);
        assert!(undoes(&Error::failed("no such user"), &term));
        assert!(!undoes(&Error::fenced("another instance took over"), &term));
        term.begins();
        assert!(!undoes(&Error::failed("no such user"), &term));
        assert!(term.then(change()).follows);
    }
}
