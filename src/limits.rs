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
/// The source sends a heartbeat when it has been silent this long.
pub const HEARTBEAT_PERIOD: Duration = Duration::from_secs(1);
/// A source that is silent for longer is given up and connected to anew. Many heartbeats long, since a server under load
/// may delay some.
pub const SOURCE_SILENCE_MAX: Duration = Duration::from_secs(10);
/// A source may take this long to begin: it looks through the heads of all its binlogs first, and there may be thousands.
pub const SOURCE_CONNECT_MAX: Duration = Duration::from_secs(60);
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
