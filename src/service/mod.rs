//! Wires the stages, supervises them, and shuts them down in order.
//!
//! ```text
//! reading ─► capture ─► direct ─► a worker a table ─► reports ─┐
//!               ▲  └────────── told ──────────────────────────►├─ supervisor ─► checkpoint, trace
//!               └── requests ◄── loads (chunks) ◄──────────────┘
//! ```
//!
//! An *incarnation* takes the next epoch, opens the tables, goes on from the checkpoint and ends as a whole. What
//! cannot be settled inside one (a table that someone else changed) is settled by beginning the next from what is
//! durable. Those that run by one configuration are a [`term`].

mod absence;
mod branches;
mod current;
mod idle;
mod jobs;
mod kafka;
mod progress;
mod proving;
mod reading;
mod registrar;
mod reload;
pub mod schedule;
mod seed;
mod shipping;
#[cfg(test)]
mod simulation_tests;
mod source_tables;
mod start;
pub mod status;
mod supervisor;
mod telling;
mod term;
mod throttle;
mod trace;
mod trace_upkeep;
pub mod upkeep;
pub mod watching;

use std::path::PathBuf;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use weir_model::{TableId, clock};
use weir_mysql::MysqlError;

use self::absence::{begin, wait_for_warehouse};
pub use self::kafka::{Role, kafka_of};
pub use self::proving::deep_question_of_command;
pub use self::seed::{LoadStanding, load_standing};
use self::shipping::Patience;
pub use self::shipping::{PublishedLog, PublishedPage, Shipper, Shipping, Unshipped};
pub use self::source_tables::described;
use self::supervisor::{Afterwards, Failure, Finished};
use self::term::{Term, run_terms};
pub use self::trace::{ConfiguredTrace, open_trace, probe_trace};
use crate::config::{Config, Configured};
use crate::error::Error;
use crate::figures::standing;
use crate::limits::{RECONCILE_POLL, SHUTDOWN_MAX};
use crate::state::CheckpointLog;
use crate::table::{IndexBudget, IndexHome, Warehouse};

/// What is asked of one run of the service.
#[derive(Debug, Clone, Default)]
pub struct RunOptions {
    /// End once every table holds all that the source had executed when the run began.
    pub until_caught_up: bool,
    /// Archived binlog files to read first where the server has purged them.
    pub binlog_dir: Option<PathBuf>,
    /// Tables to load anew; `All` also starts over from the source's position of this moment.
    pub reseed: Reseed,
}

/// Which tables are loaded anew although they hold a snapshot.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Reseed {
    #[default]
    None,
    Tables(Vec<TableId>),
    All,
}

/// Whether a service runs for the source. One that was killed a moment ago looks alive until it is seen not to renew its
/// checkpoint.
///
/// # Errors
/// When the warehouse cannot be read.
pub async fn is_running(config: &Config) -> Result<bool, Error> {
    let warehouse = Warehouse::open(&config.warehouse.url, &config.warehouse.options)?;
    let read = || async {
        let state = warehouse.state_path(&config.source.name);
        CheckpointLog::new(warehouse.store().clone(), state).read().await
    };
    let Some(first) = read().await? else { return Ok(false) };
    let mut told = false;
    loop {
        let Some(newest) = read().await? else { return Ok(false) };
        if newest.written_at_ms != first.written_at_ms && newest.running {
            return Ok(true);
        }
        if !newest.is_live(clock::now_ms()) {
            return Ok(false);
        }
        if !std::mem::replace(&mut told, true) {
            tracing::info!("waiting to see whether a service is still running");
        }
        tokio::time::sleep(RECONCILE_POLL).await;
    }
}

/// Runs the service, or the half of it that `role` says, until it is told to stop, or until it has caught up. A configuration
/// that changes meanwhile is gone on by.
///
/// # Errors
/// When something concerns more than one table: the source or the warehouse cannot be had, the stream cannot be
/// understood, another instance took over. With `until_caught_up` also when a table has stopped.
pub async fn run(configured: &Configured, options: RunOptions, role: Role) -> Result<(), Error> {
    let stop = CancellationToken::new();
    let signals = tokio::spawn(stop_on_signal(stop.clone()));
    let result = run_terms(configured, options, role, &stop).await;
    signals.abort();
    result
}

async fn run_until(term: &Term, mut options: RunOptions) -> Result<(), Error> {
    let (config, stop) = (&*term.config, &term.stop);
    // One for all incarnations of the term: the budget is the process's.
    let index_home = index_home(config);
    let mut has_run = term.follows;
    loop {
        standing().begins();
        let start = || start::start(config, &options, &index_home);
        let Some(incarnation) = begin(config, stop, has_run, start).await? else { return Ok(()) };
        has_run = true;
        term.begins();
        match supervise(incarnation, term).await {
            Ok(Finished::Restart) => {}
            Ok(Finished::LoadAnew(tables)) => {
                options.reseed = Reseed::Tables(tables);
                continue;
            }
            Ok(ended) => return finished(&ended),
            Err(failure) if failure.is_away() => wait_for_warehouse(config, &failure, stop).await,
            Err(failure) => return Err(failure.into()),
        }
        options.reseed = Reseed::None;
    }
}

/// A length of time in milliseconds.
fn ms(length: Duration) -> i64 {
    i64::try_from(length.as_millis()).unwrap_or(i64::MAX)
}

/// Where key indexes live: in so much memory as `index_memory_max` says, and beyond in the state folder.
fn index_home(config: &Config) -> IndexHome {
    IndexHome::new(IndexBudget::new(config.apply.index_memory_bytes()), &config.state_dir().join("index"))
}

/// How a service ends that need not begin again.
fn finished(ended: &Finished) -> Result<(), Error> {
    match ended {
        Finished::Asked | Finished::Restart | Finished::LoadAnew(_) | Finished::CaughtUp { stopped: 0 } => Ok(()),
        Finished::CaughtUp { stopped } => {
            Err(Error::failed(format!("{stopped} table(s) stopped; `weir status` says why, the others are caught up")))
        }
    }
}

/// One incarnation from its start to the last durable word.
async fn supervise(mut incarnation: start::Incarnation, term: &Term) -> Result<Finished, Failure> {
    let progress = incarnation.supervisor.loader.progress.clone();
    let result = progress.show_while(incarnation.supervisor.run(&term.stop, &mut incarnation.capture)).await;
    incarnation.stop_capture.cancel();
    if !term.is_replaced() {
        standing().ends();
    }
    let ended = tokio::time::timeout(SHUTDOWN_MAX, incarnation.wind_down()).await;
    if ended.is_err() {
        tracing::warn!("some commits did not end in time; they are read again at the next start");
    }
    match result {
        Err(failure @ Failure::Fenced { .. }) => Err(failure),
        Err(failure) => {
            if let Err(error) = incarnation.supervisor.finish(Patience::Stop, Afterwards::Ends).await {
                tracing::warn!(%error, "the checkpoint could not be written; more is read again at the next start");
            }
            Err(failure)
        }
        Ok(finished) => {
            let patience = match finished {
                Finished::CaughtUp { .. } => Patience::UntilAllIsIn,
                Finished::Asked | Finished::Restart | Finished::LoadAnew(_) => Patience::Stop,
            };
            // Whoever looks meanwhile must not take the service for one that has ended.
            let afterwards = if term.is_replaced() { Afterwards::GoesOn } else { Afterwards::Ends };
            incarnation.supervisor.finish(patience, afterwards).await?;
            Ok(finished)
        }
    }
}

/// SIGTERM and SIGINT ask for an orderly end.
async fn stop_on_signal(stop: CancellationToken) {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut terminate), Ok(mut interrupt)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        tracing::warn!("signals cannot be caught; a kill is survived, but ends no commit");
        return std::future::pending().await;
    };
    tokio::select! {
        _ = terminate.recv() => tracing::info!("SIGTERM: finishing the commits in hand"),
        _ = interrupt.recv() => tracing::info!("SIGINT: finishing the commits in hand"),
    }
    stop.cancel();
}

impl From<MysqlError> for Error {
    fn from(error: MysqlError) -> Self {
        Self::failed(error.to_string()).because(error)
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Fenced { .. } => Error::fenced(failure.to_string()),
            other => Error::failed(other.to_string()),
        }
    }
}
