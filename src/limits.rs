//! Every bound of the service, with the reason for its value.

use std::time::Duration;

/// A sealed batch of changes is at most about this large, so that memory is counted in steps much below `memory_max`.
pub const BATCH_BYTES_MAX: usize = 8 << 20;
/// A batch waits at most this long for more changes while the binlog is idle.
pub const BATCH_DELAY_MAX: Duration = Duration::from_millis(50);
/// Publishes under way between capture and apply; bytes are bounded by `memory_max`, this bounds tiny ones.
pub const PUBLISHES_IN_FLIGHT_MAX: usize = 1024;
/// The checkpoint object is written at most this often while the stream runs.
pub const CHECKPOINT_INTERVAL: Duration = Duration::from_secs(5);
/// The source sends a heartbeat when it has been silent this long; three missed ones break the connection.
pub const HEARTBEAT_PERIOD: Duration = Duration::from_secs(1);
/// Old numbers of a state series are kept this long, for a reader that listed them a moment ago.
pub const STATE_KEPT: Duration = Duration::from_secs(6 * 3600);
/// A client can set `original_commit_timestamp`; further ahead of the server's own time than this it is not believed.
pub const EVENT_TIME_AHEAD_MAX: Duration = Duration::from_secs(60);
/// A source clock further ahead of ours than this stops the stream, since orders never fall again.
pub const SOURCE_CLOCK_AHEAD_MAX: Duration = Duration::from_secs(3600);
/// A checkpoint of the Delta log is written every so many commits, so that readers and restarts stay quick.
pub const DELTA_CHECKPOINT_EVERY: u64 = 200;
/// Rows a chunk of the snapshot aims at.
pub const CHUNK_ROWS: u64 = 200_000;
/// Bytes of source data a chunk of the snapshot aims at.
pub const CHUNK_BYTES: u64 = 64 << 20;
/// However old they are, this many of the newest numbers of a state series stay.
pub const STATE_KEPT_MIN: usize = 8;
/// Numbers of a state series tried in a row before someone else is said to be writing it as fast as we do.
pub const STATE_TRIES_MAX: u32 = 16;
/// Writes of the checkpoint between two cleanings of its old numbers.
pub const STATE_CLEAN_EVERY: u32 = 120;
/// A checkpoint that its service has not renewed for this long is not a running service's.
pub const LIVENESS_MAX: Duration = Duration::from_secs(15);
/// A writer of the trace waits this long for another process that is writing it.
pub const TRACE_BUSY_MAX: Duration = Duration::from_secs(10);
/// `reconcile` waits this long for a running service to reach what the source had executed when it was asked.
pub const RECONCILE_WAIT_MAX: Duration = Duration::from_secs(10);
/// Pause between two looks at the tables meanwhile.
pub const RECONCILE_POLL: Duration = Duration::from_millis(200);
