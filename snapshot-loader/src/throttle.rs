//! Caps on the load that reading puts on a source: rates of rows and bytes, and pauses while the server is busy or behind.
//!
//! One [`Throttle`] a source, shared by all its readers. A pause for the server's sake comes before a chunk, where nothing is
//! held at the source. Within one the SELECT is open, and an open read view costs the server more the longer it lasts: there
//! a reader is only slowed down, by a bounded pause a batch.

use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use weir_mysql::{Conn, MysqlError, ReplicaLag, SourceOptions, connect, replica_lag, threads_running};

/// What a source is spared; 0 is no cap.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Caps {
    pub rows_per_second_max: u64,
    /// Of rows as columns in memory.
    pub bytes_per_second_max: u64,
    /// Sessions that are doing something, ours included.
    pub pause_above_threads_running: u64,
    /// How far a source that is a replica may be behind its own.
    pub pause_above_lag_ms: u64,
}

/// The server is asked this often how it is, by whoever comes first.
const LOOKED_AT_EVERY: Duration = Duration::from_secs(1);
/// A reader within a chunk waits so long for a server that is busy, once a batch.
const BATCH_PAUSE: Duration = Duration::from_secs(1);

impl Caps {
    fn looks_at_server(self) -> bool {
        self.pause_above_threads_running > 0 || self.pause_above_lag_ms > 0
    }

    /// How long the caps on rates let so much take at least.
    fn time_for(self, rows: u64, bytes: u64) -> Duration {
        let time = |count: u64, per_second: u64| match per_second {
            0 => Duration::ZERO,
            per_second => Duration::from_secs_f64(count as f64 / per_second as f64),
        };
        time(rows, self.rows_per_second_max).max(time(bytes, self.bytes_per_second_max))
    }

    /// Why to pause, given how the server is; `None` to go on.
    fn objection(self, state: ServerState) -> Option<Objection> {
        let threads_max = self.pause_above_threads_running;
        if threads_max > 0 && state.threads_running > threads_max {
            return Some(Objection::Busy { threads_running: state.threads_running });
        }
        if self.pause_above_lag_ms == 0 {
            return None;
        }
        match state.lag {
            ReplicaLag::Behind(lag) if lag.as_millis() > u128::from(self.pause_above_lag_ms) => {
                Some(Objection::Behind { lag })
            }
            ReplicaLag::Stopped => Some(Objection::ReplicationStopped),
            ReplicaLag::Behind(_) | ReplicaLag::NoReplica => None,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct ServerState {
    threads_running: u64,
    lag: ReplicaLag,
}

/// Why readers pause.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Objection {
    Busy { threads_running: u64 },
    Behind { lag: Duration },
    ReplicationStopped,
}

impl fmt::Display for Objection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Busy { threads_running } => write!(f, "the source has {threads_running} threads running"),
            Self::Behind { lag } => write!(f, "the source is {} s behind its own", lag.as_secs()),
            Self::ReplicationStopped => write!(f, "the source is a replica that is not replicating"),
        }
    }
}

/// Slows the readers of one source down as its caps ask for.
pub struct Throttle {
    caps: Caps,
    source: SourceOptions,
    /// When everything that was read so far would be through at the capped rates.
    paid_until: Mutex<Instant>,
    look: tokio::sync::Mutex<Look>,
}

/// The last look at the server.
#[derive(Default)]
struct Look {
    connection: Option<Conn>,
    at: Option<Instant>,
    objection: Option<Objection>,
}

impl Throttle {
    pub fn new(source: SourceOptions, caps: Caps) -> Self {
        Self { caps, source, paid_until: Mutex::new(Instant::now()), look: tokio::sync::Mutex::default() }
    }

    /// Returns once a chunk may begin.
    ///
    /// # Errors
    /// When the server cannot be asked how it is.
    pub async fn before_chunk(&self) -> Result<(), MysqlError> {
        let mut paused = false;
        while let Some(objection) = self.objection().await? {
            if !std::mem::replace(&mut paused, true) {
                tracing::info!(%objection, "reading chunks pauses");
            }
            tokio::time::sleep(LOOKED_AT_EVERY).await;
        }
        if paused {
            tracing::info!("reading chunks goes on");
        }
        self.wait_until_paid(0, 0).await;
        Ok(())
    }

    /// Returns once the next batch of a chunk may be read, behind one of so many rows and bytes.
    ///
    /// # Errors
    /// When the server cannot be asked how it is.
    pub async fn after_batch(&self, rows: u64, bytes: u64) -> Result<(), MysqlError> {
        self.wait_until_paid(rows, bytes).await;
        if self.objection().await?.is_some() {
            tokio::time::sleep(BATCH_PAUSE).await;
        }
        Ok(())
    }

    async fn wait_until_paid(&self, rows: u64, bytes: u64) {
        let now = Instant::now();
        let wait = {
            let mut until = self.paid_until.lock().unwrap_or_else(PoisonError::into_inner);
            *until = paid_until(*until, now, self.caps.time_for(rows, bytes));
            *until - now
        };
        if !wait.is_zero() {
            tokio::time::sleep(wait).await;
        }
    }

    /// Why to pause, as of a moment ago at most.
    async fn objection(&self) -> Result<Option<Objection>, MysqlError> {
        if !self.caps.looks_at_server() {
            return Ok(None);
        }
        // Whoever comes meanwhile waits for the same answer.
        let mut look = self.look.lock().await;
        if look.at.is_none_or(|at| at.elapsed() >= LOOKED_AT_EVERY) {
            let state = self.ask(&mut look.connection).await?;
            (look.at, look.objection) = (Some(Instant::now()), self.caps.objection(state));
        }
        Ok(look.objection)
    }

    /// The connection is kept only while it answers.
    async fn ask(&self, kept: &mut Option<Conn>) -> Result<ServerState, MysqlError> {
        let mut connection = match kept.take() {
            Some(connection) => connection,
            None => connect(&self.source).await?,
        };
        let mut state = ServerState::default();
        if self.caps.pause_above_threads_running > 0 {
            state.threads_running = threads_running(&mut connection).await?;
        }
        if self.caps.pause_above_lag_ms > 0 {
            state.lag = replica_lag(&mut connection).await?;
        }
        *kept = Some(connection);
        Ok(state)
    }
}

/// When what is read at `now`, which takes `time` at the capped rates, is paid for. What was not used is not saved up.
fn paid_until(before: Instant, now: Instant, time: Duration) -> Instant {
    before.max(now) + time
}

impl fmt::Debug for Throttle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Throttle").field("caps", &self.caps).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn the_slower_of_two_rates_counts_and_none_is_free() {
        let caps = Caps { rows_per_second_max: 100, bytes_per_second_max: 1_000, ..Caps::default() };
        assert_eq!(caps.time_for(50, 100), SECOND / 2);
        assert_eq!(caps.time_for(50, 2_000), SECOND * 2);
        assert_eq!(Caps::default().time_for(u64::MAX, u64::MAX), Duration::ZERO);
    }

    #[test]
    fn readers_together_keep_a_rate_and_idle_time_is_not_saved_up() {
        let start = Instant::now();
        let first = paid_until(start, start, SECOND);
        let second = paid_until(first, start, SECOND);
        assert_eq!(second - start, SECOND * 2);
        let later = start + SECOND * 60;
        assert_eq!(paid_until(second, later, SECOND) - later, SECOND);
    }

    #[test]
    fn a_server_is_left_alone_above_its_caps_alone() {
        let caps = Caps { pause_above_threads_running: 10, pause_above_lag_ms: 5_000, ..Caps::default() };
        let state = |threads_running, lag| ServerState { threads_running, lag };
        assert_eq!(caps.objection(state(10, ReplicaLag::NoReplica)), None);
        let busy = Objection::Busy { threads_running: 11 };
        assert_eq!(caps.objection(state(11, ReplicaLag::Behind(SECOND))), Some(busy));
        assert_eq!(caps.objection(state(1, ReplicaLag::Behind(SECOND * 5))), None);
        let behind = Objection::Behind { lag: SECOND * 6 };
        assert_eq!(caps.objection(state(1, ReplicaLag::Behind(SECOND * 6))), Some(behind));
        assert_eq!(caps.objection(state(1, ReplicaLag::Stopped)), Some(Objection::ReplicationStopped));
        let none = Caps { rows_per_second_max: 1, ..Caps::default() };
        assert_eq!(none.objection(state(1_000, ReplicaLag::Stopped)), None);
    }
}
