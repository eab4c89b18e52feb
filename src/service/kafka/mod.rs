//! The service over Kafka: a capturing half and an applying half, in one process or in many.
//!
//! ```text
//! reading ─► capture ─► publisher ─► Kafka ─► receiver ─► a worker a table ─► lake
//!               ▲            └── durable ─► supervisor ◄── watch ◄───────────── │
//!               └── requests ◄── loads ◄────────┘  ◄──────── appeals ◄─────────┘
//! ```
//!
//! The capturing half alone knows positions and phases, and learns from the tables' logs how far they are; the applying
//! half knows only topics and tables. Nothing else joins the two, so that it makes no difference where they run.

mod apply;
mod capture;
pub mod merging;
mod published;
mod registrar;
mod standing;
pub mod watch;

use std::time::Instant;

use tokio::sync::watch as tokio_watch;

use self::apply::ApplyHalf;
use super::absence::{begin, wait_for_warehouse};
use super::supervisor::{Failure, Finished};
use super::term::Term;
use super::{Reseed, RunOptions, finished};
use crate::capture::CaptureError;
use crate::config::{Config, TransportKind};
use crate::error::Error;
use crate::figures::standing;
use crate::limits::{KAFKA_RETRY_DELAY, PUBLISH_FAILURES_APART_MIN, PUBLISH_FAILURES_MAX};
use crate::state::CheckpointLog;
use crate::table::Warehouse;
use crate::transport::PublishError;
use crate::transport::kafka::KafkaSettings;
use crate::transport::kafka::receiver::Membership;

/// Which halves a process runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    Both,
    Capture,
    Apply,
}

/// How to reach the brokers, by the configuration.
pub fn settings_of(config: &Config) -> Result<KafkaSettings, Error> {
    let settings = KafkaSettings {
        brokers: config.transport.brokers.clone(),
        source: config.source.name.clone(),
        options: config.transport.options.iter().map(|(key, value)| (key.clone(), value.clone())).collect(),
    };
    settings.validate()?;
    Ok(settings)
}

/// How to reach the brokers, if changes travel over Kafka.
pub fn kafka_of(config: &Config) -> Result<Option<KafkaSettings>, Error> {
    match config.transport.kind {
        TransportKind::Kafka => settings_of(config).map(Some),
        TransportKind::Direct => Ok(None),
    }
}

/// Runs until the term is to end, or until it has caught up.
pub(super) async fn run(term: &Term, options: RunOptions, role: Role) -> Result<(), Error> {
    let (hurry, hurried) = tokio_watch::channel(false);
    let membership = if role == Role::Apply { Membership::Group } else { Membership::Alone };
    let mut apply = match role {
        Role::Capture => None,
        Role::Both | Role::Apply => Some(ApplyHalf::start(&term.config, membership, hurried).await?),
    };
    let failed = async {
        match &mut apply {
            Some(apply) => apply.failed.recv().await,
            None => std::future::pending().await,
        }
    };
    let result = tokio::select! {
        Some(error) = failed => Err(error.into()),
        result = capture_until(term, options, role, hurry) => result,
    };
    if let Some(apply) = apply {
        apply.stop().await;
    }
    result
}

/// Incarnations of the capturing half, one after another.
async fn capture_until(
    term: &Term,
    mut options: RunOptions,
    role: Role,
    hurry: tokio_watch::Sender<bool>,
) -> Result<(), Error> {
    let (config, stop) = (&*term.config, &term.stop);
    if role == Role::Apply {
        standing().applies();
        term.begins();
        stop.cancelled().await;
        if !term.is_replaced() {
            standing().ends();
        }
        return Ok(());
    }
    let mut failures = Failures::default();
    let mut has_run = term.follows;
    loop {
        standing().begins();
        let start = || capture::start(config, &options, hurry.clone());
        let Some(incarnation) = begin(config, stop, has_run, start).await? else { return Ok(()) };
        has_run = true;
        term.begins();
        let epoch = incarnation.epoch();
        match super::supervise(incarnation, term).await {
            Ok(Finished::Restart) => {}
            Ok(Finished::LoadAnew(tables)) => {
                options.reseed = Reseed::Tables(tables);
                continue;
            }
            Ok(ended) => return finished(&ended),
            Err(Failure::Capture(CaptureError::Publisher(PublishError::Fenced(why)))) => {
                fenced_by_another(config, epoch, &why).await?;
                tracing::warn!(%why, "the broker has given up this producer; a new one begins from what is durable");
            }
            Err(Failure::Capture(CaptureError::Publisher(PublishError::Failed(why)))) => {
                if failures.are_too_many(Instant::now()) {
                    return Err(Error::failed(why));
                }
                tracing::error!(%why, "publishing failed; beginning again from what is durable");
                tokio::select! {
                    () = stop.cancelled() => return Ok(()),
                    () = tokio::time::sleep(KAFKA_RETRY_DELAY) => {}
                }
            }
            Err(failure) if failure.is_away() => wait_for_warehouse(config, &failure, stop).await,
            Err(failure) => return Err(failure.into()),
        }
        options.reseed = Reseed::None;
    }
}

/// Failures to publish, one incarnation after another. A broker may fall several times in a minute; what as many starts
/// cannot mend, the next will not.
#[derive(Debug, Default)]
struct Failures {
    last: Option<Instant>,
    in_a_row: u32,
}

impl Failures {
    /// Notes one more.
    fn are_too_many(&mut self, now: Instant) -> bool {
        let apart = self.last.is_none_or(|last| now.duration_since(last) >= PUBLISH_FAILURES_APART_MIN);
        self.in_a_row = if apart { 1 } else { self.in_a_row + 1 };
        self.last = Some(now);
        self.in_a_row > PUBLISH_FAILURES_MAX
    }
}

/// A newer instance and the broker's timeout fence alike; only our own state knows which it was.
async fn fenced_by_another(config: &Config, ours: u64, why: &str) -> Result<(), Error> {
    let warehouse = Warehouse::open(&config.warehouse.url, &config.warehouse.options)?;
    let state = warehouse.state_path(&config.source.name);
    let newest = CheckpointLog::new(warehouse.store().clone(), state).read().await?.unwrap_or_default();
    if newest.epoch > ours {
        return Err(Error::fenced(format!(
            "another instance took over (epoch {}, ours is {ours}): {why}",
            newest.epoch
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_broker_that_falls_again_is_waited_for_and_one_that_cannot_be_served_is_not() {
        let (begun, mut failures) = (Instant::now(), Failures::default());
        for n in 0..PUBLISH_FAILURES_MAX {
            assert!(!failures.are_too_many(begun + Duration::from_secs(n.into())));
        }
        let later = begun + Duration::from_secs(PUBLISH_FAILURES_MAX.into());
        assert!(failures.are_too_many(later));
        assert!(!failures.are_too_many(later + PUBLISH_FAILURES_APART_MIN));
    }
}
