//! Every bound of the service, with the reason for its value.

use std::time::Duration;

/// A sealed batch of changes is at most about this large, so that memory is counted in steps much below `memory_max`.
pub const BATCH_BYTES_MAX: usize = 8 << 20;
/// A batch waits at most this long for more changes while the binlog is idle.
pub const BATCH_DELAY_MAX: Duration = Duration::from_millis(50);
/// Rows of an XA branch that are held in memory while it is read; what is beyond goes into objects beside the tables.
pub const PREPARED_PART_BYTES: usize = 8 << 20;
/// Prepared XA branches that are put beside the tables side by side: a store on the network answers each after some
/// milliseconds, and capture waits for all of them.
pub const PREPARED_PUT_TOGETHER: usize = 16;
/// Prepared XA transactions of a source that is about to be mirrored are looked at this often.
pub const PREPARED_LOOKED_AT_EVERY: Duration = Duration::from_millis(500);
/// If they took longer than this to end, the stream begins behind them and not where it was when they were first seen: binlogs
/// of hours may be gone by then.
pub const PREPARED_WAIT_SHORT: Duration = Duration::from_secs(10);
/// Publishes under way between capture and apply; bytes are bounded by `memory_max`, this bounds tiny ones.
pub const PUBLISHES_IN_FLIGHT_MAX: usize = 1024;
/// The checkpoint object is written at most this often while the stream runs.
pub const CHECKPOINT_INTERVAL: Duration = Duration::from_secs(5);
/// What must not be forgotten is in one after this: loads of many tables that begin together share it.
pub const CHECKPOINT_SOON: Duration = Duration::from_millis(20);
/// The source says where its log ends when it has been silent this long: what a chunk on an idle source waits for.
pub const HEARTBEAT_PERIOD: Duration = Duration::from_millis(250);
/// A source that is silent for longer is given up and connected to anew. Many heartbeats long, since a server under load
/// may delay some.
pub const SOURCE_SILENCE_MAX: Duration = Duration::from_secs(10);
/// A stream that stands still this long is compared with where the server's log ends.
pub const IDLE_LOOKED_AT_EVERY: Duration = Duration::from_secs(10);
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
/// Bytes of one Arrow batch while a chunk is read: few enough to be encoded out of the processor's caches, and many enough for
/// what each batch costs by itself not to matter.
pub const CHUNK_BATCH_BYTES: usize = 2 << 20;
/// A chunk's files in memory are put once they are this large together, or of a table with partitions its rows. Estimates of
/// what a chunk holds may be wrong by any factor, and keys may come in behind the last bound meanwhile.
pub const CHUNK_HELD_BYTES_MAX: usize = 64 << 20;
/// A chunk that could not be merged is read again after this.
pub const CHUNK_RETRY_DELAY: Duration = Duration::from_millis(200);
/// A chunk waits this long for its server to have executed everything below its order, then begins anew.
pub const EXECUTED_WAIT_MAX: Duration = Duration::from_secs(60);
/// A table without a key is locked against writers, to be read as of one moment, once nobody is writing it; if that takes
/// longer than this it is tried again.
pub const TABLE_LOCK_WAIT_MAX: Duration = Duration::from_secs(5);
/// It is locked for this long at most, until capture has come to that moment.
pub const TABLE_LOCKED_MAX: Duration = Duration::from_secs(2);
/// How far capture is meanwhile is asked this often.
pub const CAPTURE_LOOKED_AT_EVERY: Duration = Duration::from_millis(20);
/// Without GTIDs each chunk waits for those who are just writing its table, and gives up after this.
pub const WRITERS_WAIT_MAX: Duration = Duration::from_secs(1);
/// If capture has not come that far, or somebody writes for longer, the writers have the table back for this long.
pub const TABLE_LOCKED_AGAIN_AFTER: Duration = Duration::from_secs(5);
/// The last moment of an ALTER TABLE, in which nobody may look at the table, is waited for this long before the source is asked anew.
pub const ALTERATION_WAIT_MAX: Duration = Duration::from_secs(20);
/// Bytes that one compressed event of MariaDB may hold: the greatest `max_allowed_packet`, beyond which the server writes none.
pub const UNCOMPRESSED_EVENT_BYTES_MAX: u64 = 1 << 30;
/// Bytes of row images read ahead of capture; a single larger one is let through alone.
pub const EVENTS_AHEAD_BYTES_MAX: usize = 16 << 20;
/// Events read ahead of capture.
pub const EVENTS_AHEAD_MAX: usize = 256;
/// The configuration file of a running service is looked at this often.
pub const CONFIG_LOOKED_AT_EVERY: Duration = Duration::from_secs(1);
/// Whoever a changed configuration names has this long to answer.
pub const CONFIG_PROBE_MAX: Duration = Duration::from_secs(20);
/// One that could not be taken because somebody did not answer, or let us in, is tried again after this: seldom enough for an
/// account not to be locked for failed logins all at once.
pub const CONFIG_TRIED_AGAIN_AFTER: Duration = Duration::from_secs(10);
/// Requests that wait for capture to come to the end of a transaction.
pub const REQUESTS_MAX: usize = 256;
/// Tables opened side by side at the start: each reads its log and its keys.
pub const TABLES_OPENED_TOGETHER: usize = 2;
/// A lost source is asked again after this, doubling up to the second.
pub const RECONNECT_DELAY: Duration = Duration::from_millis(250);
/// Longest pause between two attempts to reach a lost source.
pub const RECONNECT_DELAY_MAX: Duration = Duration::from_secs(15);
/// After SIGTERM the commits in hand get this long; what is not done by then is read again at the next start.
pub const SHUTDOWN_MAX: Duration = Duration::from_secs(25);
/// Deletes that a table being loaded remembers; older ones make a chunk read again.
pub const DELETES_REMEMBERED_MAX: usize = 2_000_000;
/// A commit, or a state object, whose answer was lost is put again so often before the incarnation ends.
pub const AMBIGUOUS_PUT_TRIES: u32 = 5;
/// Half the first pause before that; each is twice as long as the one before.
pub const AMBIGUOUS_PUT_DELAY: Duration = Duration::from_millis(50);
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
/// A request to a trace server is given up after this: whoever waits for it must go on.
pub const TRACE_REQUEST_MAX: Duration = Duration::from_secs(10);
/// Partitions an insert into ClickHouse touches; servers refuse more than 100.
pub const TRACE_PARTITIONS_PER_INSERT_MAX: usize = 50;
/// Commits shipped to the trace in one call, and read from a log at a time.
pub const TRACE_BATCH_MAX: usize = 500;
/// Commits wait this long for others to be shipped with.
pub const TRACE_BATCH_DELAY_MAX: Duration = Duration::from_millis(500);
/// Counts that wait for the trace, about 100 bytes each; what is beyond is read from the tables' logs again.
pub const TRACE_HELD_MAX: usize = 50_000;
/// A trace that failed is tried again after this, doubling up to the second.
pub const TRACE_RETRY_DELAY: Duration = Duration::from_millis(100);
/// Longest pause between two attempts.
pub const TRACE_RETRY_DELAY_MAX: Duration = Duration::from_secs(5);
/// A service that stops gives a trace this long, within the 30 s it has altogether; the rest is shipped at the next start.
pub const TRACE_STOP_MAX: Duration = Duration::from_secs(3);
/// One that is to end with everything in the trace waits as long as something goes in within this.
pub const TRACE_CAUGHT_UP_MAX: Duration = Duration::from_secs(15);
/// `reconcile` waits this long for a running service to reach what the source had executed when it was asked.
pub const RECONCILE_WAIT_MAX: Duration = Duration::from_secs(10);
/// Pause between two looks at the tables meanwhile.
pub const RECONCILE_POLL: Duration = Duration::from_millis(200);
/// Tables that a deep comparison reads side by side, each on a connection of its own: it takes a core to read one, and so does
/// the server.
pub const DEEP_TABLES_TOGETHER: usize = 2;
/// Chunks of a table that are compared at once: each file of the lake whose keys overlap them is read, so fewer, larger parts
/// read less, and hold more.
pub const DEEP_PART_CHUNKS: usize = 5;
/// Bytes of keys and hashes that a side holds in memory; what is beyond lies in a scratch file. A part of a million rows
/// with a key of one number takes half of it. Of a table three are held: both sides of a part, and the source's of the next.
pub const DEEP_HELD_BYTES: usize = 48 << 20;
/// A scratch file is written in pieces of this size, and each of its runs is read so.
pub const DEEP_RUN_BUFFER_BYTES: usize = 64 << 10;
/// Keys of a table that differ and are looked at again; more are counted.
pub const DEEP_SUSPECTS_MAX: usize = 100_000;
/// Keys of a kind that a report names.
pub const DEEP_KEYS_SHOWN_MAX: usize = 1_000;
/// Keys that are looked up by one SELECT: servers give up making ranges of very long conditions.
pub const DEEP_LOOKUP_KEYS: usize = 200;
/// Before the lake's side is read, a table that lags gets this long to come to what the source's side was.
pub const DEEP_WAIT_SHORT: Duration = Duration::from_millis(1_500);
/// If the two sides then differ, it gets this long, which is several times the pace of checkpoints.
pub const DEEP_WAIT_MAX: Duration = Duration::from_secs(30);
/// A key that both sides have had, unchanged and not the same, in so many rounds is a difference.
pub const DEEP_ROUNDS_ALIKE: u32 = 3;
/// Rounds before a key that keeps changing is left as in flight.
pub const DEEP_ROUNDS_MAX: u32 = 10;
/// A key that has changed again in so many of them, in the lake too, moves.
pub const DEEP_ROUNDS_MOVING: u32 = 4;
/// Between two rounds: a change that was visible before the server told of it has come by then.
pub const DEEP_ROUND_PAUSE: Duration = Duration::from_millis(300);
/// A comparison begins anew so often if the table is altered meanwhile, or its files go.
pub const DEEP_ATTEMPTS_MAX: u32 = 3;
/// Buckets of a partition column that is made by `bucket(…)`: each is a file in every commit that touches it.
pub const PARTITION_BUCKETS_MAX: u32 = 4_096;
/// Bytes of a text that a partition is named after. With the column's name it is the name of a folder, and of those no file
/// system takes more than 255 bytes.
pub const PARTITION_VALUE_BYTES_MAX: usize = 128;
/// Data files written side by side: a commit or a chunk that touches thousands of partitions has as many, and each waits for
/// the disk or for the store.
pub const FILES_WRITTEN_TOGETHER: usize = 16;
/// Folders that are known to last, kept so that they need not be synced again; about 100 bytes each.
pub const FOLDERS_KNOWN_MAX: usize = 50_000;
/// Commits of a log read side by side: a store on the network answers each after some milliseconds.
pub const COMMITS_READ_TOGETHER: usize = 16;
/// Data files whose keys are read side by side when an index is rebuilt.
pub const FILES_READ_TOGETHER: usize = 2;
/// Rows that are marked as deleted are written again in files of about so many bytes, one file at a time in memory.
pub const MARKED_FILE_BYTES: usize = 64 << 20;
/// Rows whose orders a table keeps once it had to read them; 16 bytes each.
pub const ORDERS_KEPT_MAX: usize = 2_000_000;
/// A Kafka message is at most about this large before compression, so that brokers and readers are not strained; a row
/// that is larger goes alone.
pub const KAFKA_BATCH_BYTES: usize = 2 << 20;
/// A single row may make a message of this size; topics are made to take it.
pub const KAFKA_MESSAGE_BYTES_MAX: usize = 128 << 20;
/// Bytes of changes in one publish over Kafka, so that a transaction there ends in a fraction of its timeout.
pub const KAFKA_PUBLISH_BYTES_MAX: usize = 32 << 20;
/// The broker gives up a transaction that lasts longer, and with it a producer that was killed.
pub const KAFKA_TRANSACTION_MAX: Duration = Duration::from_secs(60);
/// Brokers are given this long for an answer to a question.
pub const KAFKA_ANSWER_MAX: Duration = Duration::from_secs(30);
/// Names of topics have at most this many bytes.
pub const NAME_BYTES_MAX_OF_TOPIC: usize = 249;
/// A position with nothing else to send waits this long for something: transactions that concern no table are cheap.
pub const POSITION_ONLY_DELAY: Duration = Duration::from_millis(500);
/// Records of the position topic between two that say everything.
pub const POSITIONS_BETWEEN_FULL: u32 = 2_000;
/// What Kafka or the warehouse refused is tried again after this.
pub const KAFKA_RETRY_DELAY: Duration = Duration::from_millis(500);
/// A group looks this often for topics that have appeared.
pub const TOPICS_LISTED_EVERY: Duration = Duration::from_secs(1);
/// Whoever captures looks this often at tables that have not yet taken in what was published.
pub const LAKE_LOOKED_AT_EVERY: Duration = Duration::from_millis(50);
/// What people and schedules ask for is looked for this often: on S3 a list costs money.
pub const JOBS_LOOKED_AT_EVERY: Duration = Duration::from_secs(2);
/// Requests of those who apply are looked for this often.
pub const APPEALS_LOOKED_AT_EVERY: Duration = Duration::from_secs(1);
/// What a table that others write, too, could not do at once is tried again after this,
pub const SHARED_RETRY_DELAY: Duration = Duration::from_secs(1);
/// so often before the table stops.
pub const SHARED_RETRIES_MAX: u32 = 60;
/// A table that stopped says so again, for a capture that was away.
pub const APPEAL_REPEATED_EVERY: Duration = Duration::from_secs(10);
/// How far the trace is with what capture counted is asked this often.
pub const TRACE_MARK_LOOKED_AT_EVERY: Duration = Duration::from_secs(30);
/// After the end of capture, what was handed to the publisher gets this long to become durable.
pub const PUBLISHER_ENDS_MAX: Duration = Duration::from_secs(10);
/// `weir check` gives brokers this long to answer.
pub const KAFKA_PROBE_MAX: Duration = Duration::from_secs(5);
/// Whoever applies looks at the position when a table is opened, but not for each of many.
pub const POSITION_LOOKED_AT_EVERY: Duration = Duration::from_secs(5);
/// After so many looks that showed nothing a table is looked at as for the first time.
pub const LAKE_LOOKS_IDLE_MAX: u32 = 100;
/// A store on the network that does not take a connection within this is asked again.
pub const STORE_CONNECT_MAX: Duration = Duration::from_secs(5);
/// A request to a store is given up after this, its bytes included: a store that hangs must not hang a table for ever, and
/// a chunk's file of some 64 MiB must pass over a slow line.
pub const STORE_REQUEST_MAX: Duration = Duration::from_secs(60);
/// A store that is away, or says that it is busy, is asked again for this long before the caller hears of it. Longer
/// absences end the incarnation, and the next begins when the store is back.
pub const STORE_RETRY_MAX: Duration = Duration::from_secs(30);
/// The same for commands, behind which somebody sits and waits.
pub const STORE_RETRY_MAX_OF_COMMANDS: Duration = Duration::from_secs(3);
/// A request of a command is given up after this.
pub const STORE_REQUEST_MAX_OF_COMMANDS: Duration = Duration::from_secs(10);
/// Requests in a row, whatever time is left: each waits up to 15 s longer than the one before.
pub const STORE_RETRIES: usize = 10;
/// S3 may answer a put-if-absent with "conflict": another one of the same name was under way, and nobody knows who wins. It
/// is put again so often before its outcome counts as unknown.
pub const STORE_CONFLICT_TRIES: u32 = 5;
/// First pause before that, doubling.
pub const STORE_CONFLICT_DELAY: Duration = Duration::from_millis(50);
/// A store that is away is looked for after this, doubling up to `RECONNECT_DELAY_MAX`.
pub const STORE_LOOKED_FOR_EVERY: Duration = Duration::from_secs(1);
/// Smaller data files are merged with others; a chunk of a load is larger, unless its rows are few.
pub const COMPACT_SMALL_BYTES: u64 = 8 << 20;
/// Files are merged with those of like size, up to this factor.
pub const COMPACT_TIER: u64 = 8;
/// So many of one size are worth merging: with the factor above a row is written again once a tier.
pub const COMPACT_FILES_MIN: usize = 8;
/// Files merged at once; a batch of each is in memory.
pub const COMPACT_FILES_MAX: usize = 32;
/// Bytes of files that become one; about twice as much is in memory meanwhile.
pub const COMPACT_BYTES_MAX: u64 = 48 << 20;
/// Percent of a file's rows that are dead when it is written again without them: what readers read in vain against what
/// is written once more.
pub const COMPACT_DEAD_SHARE: u64 = 25;
/// A file that no version names is taken for one that a writer is about to name until it is this old.
pub const ORPHAN_AGE_MIN: Duration = Duration::from_secs(12 * 3600);
/// A chunk whose files are older is read again rather than merged, and what was compacted into such files is given up: they
/// are about to be taken for orphans. Far below the age above, since clocks differ.
pub const CHUNK_FILE_AGE_MAX: Duration = Duration::from_secs(6 * 3600);
/// Files that one commit says will be removed.
pub const CLEANED_AT_ONCE_MAX: usize = 5_000;
/// Jobs of upkeep of all tables together: each may take a core and some tens of megabytes.
pub const UPKEEP_JOBS_MAX: usize = 1;
/// A table that changes is looked at this often for files to be compacted.
pub const UPKEEP_LOOKED_AT_EVERY: Duration = Duration::from_secs(1);
/// A table with so many files is compacted even while a backlog is taken in.
pub const BACKLOG_FILES_MAX: u64 = 64;
/// Upkeep that failed is tried again after this; nothing depends on it soon.
pub const UPKEEP_RETRY_DELAY: Duration = Duration::from_secs(60);
/// A table that changes is cleaned this often, which takes a list of all its files.
pub const CLEAN_EVERY: Duration = Duration::from_secs(600);
/// Attempts at an upkeep by command that lose against the table's writer before it is given up, and of a writer of a shared
/// table at a compaction that lose against the others.
pub const UPKEEP_TRIES_MAX: u32 = 20;
/// Logs are looked at this often for versions that are past their retention.
pub const LOG_CLEANED_EVERY: Duration = Duration::from_secs(600);
/// Keys that a repair reads again one by one; a table of which more differ is loaded anew.
pub const REPAIRED_KEYS_MAX: usize = 50_000;
/// Single keys that one chunk reads: they are spelled out in its statement, and those that are absent in its marker.
pub const KEYS_PER_CHUNK: usize = 1_000;
/// Keys of the lake that the source is asked for at once, whether it has them.
pub const KEYS_LOOKED_UP_TOGETHER: usize = 1_000;
/// Problems of a table that are told one by one; more are counted.
pub const PROBLEMS_TOLD_MAX: usize = 100;
/// Rows that the data files of a table may have had since it was opened: an index names a row in five bytes, and all
/// ones is none.
pub const INDEX_ROWS_MAX: u64 = (1 << 40) - 1;
/// An index beyond the memory for all is read and written in pages of this size, which is what disks and the system do.
pub const INDEX_PAGE_BYTES: usize = 4096;
/// Each index may take this much though the memory for all is used up: in less it would read every page anew.
pub const INDEX_MEMORY_MIN: usize = 128 << 10;
/// Pages of indexes on disk are kept while less than this share (numerator, denominator) of the memory for all is used;
/// the rest is left to tables that come later.
pub const INDEX_CACHE_SHARE: (usize, usize) = (3, 4);
/// Indexes of fewer rows are not kept on local disk: reading the keys again takes no longer.
pub const INDEX_KEPT_ROWS_MIN: u64 = 200_000;
/// An index is kept again once so many rows have changed,
pub const INDEX_KEPT_AFTER_ROWS: u64 = 1_000_000;
/// and at least this part of all: a restart reads the keys of what has changed since, and keeping it writes it all.
pub const INDEX_KEPT_AFTER_SHARE: u64 = 10;
/// Publishing over Kafka that failed so often, each within a minute of the last, is given up.
pub const PUBLISH_FAILURES_MAX: u32 = 5;
/// Failures to publish further apart have nothing to do with each other.
pub const PUBLISH_FAILURES_APART_MIN: Duration = Duration::from_secs(60);
/// An id of a job has at most this many bytes: it is part of the name of a file, which has 255 at most.
pub const JOB_NAME_BYTES_MAX: usize = 128;
/// One of a schedule has fewer, since the jobs of its runs are named after it.
pub const SCHEDULE_NAME_BYTES_MAX: usize = 100;
/// Jobs read side by side when they are listed: a store on the network answers each after some milliseconds.
pub const JOBS_READ_TOGETHER: usize = 16;
/// Jobs that ended are listed for this long: their objects are listed whenever somebody looks for what is to be done.
pub const JOBS_KEPT: Duration = Duration::from_secs(48 * 3600);
/// However long ago they ended, so many of the newest stay.
pub const JOBS_KEPT_MIN: usize = 200;
/// Old jobs are looked for this often.
pub const JOBS_FORGOTTEN_EVERY: Duration = Duration::from_secs(3600);
/// A run of a schedule begins this late at most, so that a service that is being restarted is in time for it. One that is later
/// than this is missed.
pub const SCHEDULE_LATE_MAX: Duration = Duration::from_secs(120);
/// Missed runs of a schedule that are found; a service that was away for a year has missed too many to tell them all.
pub const SCHEDULE_MISSED_MAX: usize = 100;
/// A clock that is further behind the last look at the schedules than this was wrong then, or is now; otherwise runs would
/// wait for it to come to where it was.
pub const SCHEDULE_CLOCK_BACK_MAX: Duration = Duration::from_secs(3600);
/// Keys that one backfill may name: they are one object of the state.
pub const BACKFILL_KEYS_MAX: usize = 10_000;
/// How far a job is, is asked this often by the command that waits for it.
pub const JOB_POLL: Duration = Duration::from_millis(500);
/// It is told this often, unless it has got on.
pub const JOB_TOLD_EVERY: Duration = Duration::from_secs(5);
/// A command that waits for a job gives up when no service has run for this long, which is longer than a restart takes.
pub const JOB_SERVICE_AWAY_MAX: Duration = Duration::from_secs(60);
/// Ranges of keys of a table that are proven one by one; more are joined. With chunks of 200,000 rows it takes a table of
/// a billion to have so many.
pub const PROVEN_RANGES_MAX: usize = 8_192;
/// Chunks of a table that a running service compares at once: few, since it holds them beside its other work.
pub const PROVEN_PART_CHUNKS: usize = 1;
/// What has been proven is made durable at most this often; what a kill takes is proven again.
pub const PROOFS_WRITTEN_EVERY: Duration = Duration::from_secs(30);
/// Of its time a service compares rows no more than one part in so many, unless it is late.
pub const PROVING_SHARE: u32 = 4;
/// Between two ranges it pauses no longer than this.
pub const PROVING_PAUSE_MAX: Duration = Duration::from_secs(60);
/// A range that was not equal, or a table that could not be compared, is looked at again after this, or sooner if rows are to be
/// proven within less.
pub const PROVING_RETRY_MAX: Duration = Duration::from_secs(300);
/// And not before this.
pub const PROVING_RETRY_MIN: Duration = Duration::from_secs(5);
/// How the ranges of a table lie is planned anew after this, since tables grow.
pub const PROVING_PLAN_KEPT: Duration = Duration::from_secs(3_600);
/// A service with nothing to prove looks again after this.
pub const PROVING_LOOKED_EVERY: Duration = Duration::from_secs(1);
/// Keys that `status` names of what the service found.
pub const PROOF_KEYS_SHOWN_MAX: usize = 10;
/// Counts are compared from so long before the last time that they added up: a table that lags counts in old windows.
pub const HOPS_OVERLAP: Duration = Duration::from_secs(3_600);
/// All windows are compared this often, however old.
pub const HOPS_WHOLE_EVERY: Duration = Duration::from_secs(86_400);
/// Rows that changes leave columns of out are asked for again at a source that is away, or busy, after this.
pub const CURRENT_ROWS_RETRY_DELAY: Duration = Duration::from_secs(1);
/// How long a worker that is to end goes on asking for them; what it has not committed is read again at the next start.
pub const CURRENT_ROWS_WAIT_MAX: Duration = Duration::from_secs(15);
/// One read of them waits so long for the source to show what it has sent, then it is asked again.
pub const CURRENT_ROWS_SHOWN_MAX: Duration = Duration::from_secs(10);
/// Keys of a kind that are noted of a repair: a row of the trace, and an object of the state.
pub const REPAIR_KEYS_NOTED_MAX: usize = 1_000;
/// Differences between hops that one repair can make up for; what is beyond stays until the next.
pub const REPAIR_GAPS_NOTED_MAX: usize = 10_000;
/// Repairs given to the trace at once: each may hold thousands of keys.
pub const REPAIRS_NOTED_TOGETHER: usize = 20;
/// The newest repairs of a source that a report looks at.
pub const REPAIRS_READ_MAX: usize = 2_000;
/// Repairs of a table that a report shows.
pub const REPAIRS_SHOWN_MAX: usize = 20;
/// A running service looks this often for repairs that the trace lacks.
pub const REPAIRS_LOOKED_AT_EVERY: Duration = Duration::from_secs(60);
/// Objects of repairs are kept this long, for a trace that is lost; its rows stay.
pub const REPAIRS_KEPT: Duration = Duration::from_secs(400 * 24 * 3600);
/// However old they are, so many of the newest stay.
pub const REPAIRS_KEPT_MIN: usize = 1_000;
/// Minutes are folded into days once they are so old: by then nearly all that is counted of them has come, and what comes later
/// is folded later.
pub const TRACE_FOLD_AFTER: Duration = Duration::from_secs(600);
/// They are folded this often: so much is read by the minute when a report is asked for.
pub const TRACE_FOLD_EVERY: Duration = Duration::from_secs(600);
/// Rows of days that go into ClickHouse at once: each is made by a query of its own.
pub const TRACE_DAYS_PER_INSERT_MAX: usize = 200;
/// Days of tables that are read by the minute in one query: some ten thousand rows each, if much happens.
pub const TRACE_DAYS_READ_TOGETHER: usize = 20;
/// Errors that a running service keeps to be shown; older ones stand in its log.
pub const ERRORS_NOTED_MAX: usize = 50;
/// The supervisor tells this often where every table stands: a look at each, without I/O.
pub const STANDING_TOLD_EVERY: Duration = Duration::from_millis(500);
/// A supervisor that has not turned for longer hangs. A checkpoint may be repeated for as long as the store is away, and a
/// load's end may wait for that, too.
pub const SUPERVISOR_SILENCE_MAX: Duration = Duration::from_secs(180);
/// What the status says may be this old: whoever asks more often gets the same answer.
pub const STATUS_FRESH: Duration = Duration::from_millis(900);
/// Where the tables have to be read for it, that takes no more than this share of the time: one part in so many.
pub const STATUS_COST_SHARE: u32 = 10;
/// Tables read side by side for a status.
pub const STATUS_TABLES_TOGETHER: usize = 4;
/// The source is given this long to say what it has executed, and is then not asked again for as long as
pub const STATUS_SOURCE_MAX: Duration = Duration::from_secs(2);
/// this: a status must not wait for a source that is away.
pub const STATUS_SOURCE_AWAY: Duration = Duration::from_secs(10);
/// What has been proven, and which XA transactions wait, is read from the state this often for a status: it changes slowly.
pub const STATUS_STATE_FRESH: Duration = Duration::from_secs(10);
/// HTTP connections that are open at once; more are closed at once. A page has one or two, a Prometheus one.
pub const HTTP_CONNECTIONS_MAX: usize = 64;
/// A client gets this long to send a request's head, on a connection that was kept, too.
pub const HTTP_HEAD_MAX: Duration = Duration::from_secs(10);
/// A connection is closed after this, whatever it is doing: a client that reads slowly is to open another.
pub const HTTP_CONNECTION_MAX: Duration = Duration::from_secs(120);
/// Bytes of a request's head; ours are a few hundred. It is the least that the client library allows.
pub const HTTP_HEAD_BYTES_MAX: usize = 8 << 10;
/// An address that another process has is tried again this often: it may be that of the instance that this one takes over
/// from.
pub const HTTP_BIND_RETRY: Duration = Duration::from_secs(2);
/// `weir status --watch` looks this often.
pub const STATUS_WATCH_EVERY: Duration = Duration::from_secs(2);
