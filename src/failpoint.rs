//! Where a test may end the process: the boundaries of everything durable, each under a name.
//!
//! A point is reached by [`reach`], which does something only in builds of tests: they have the feature `failpoints` of the
//! `fail` crate, a release has not, and there it is nothing. `FAILPOINTS="log-put:before=3*off->return"` ends the process at
//! the fourth time that it comes to that point, `5%return` at about every twentieth; `sleep(500)` makes it wait there.
//! `topics::chaos` kills the service at every one of them; `tests/failpoints.rs` holds the list against the sources.

/// Ends the process, if whoever started it asked for that.
#[inline]
pub fn reach(point: &'static str) {
    fail::fail_point!(point, |_| end(point));
    // Nothing else names it where there are no points.
    let _ = point;
}

/// Takes over what the environment asks for. Once, before anything else.
///
/// # Panics
/// If what it asks for cannot be read.
pub fn arm() {
    if fail::has_failpoints() {
        // Dropped, it would take back what it has set.
        std::mem::forget(fail::FailScenario::setup());
    }
}

/// SIGKILL: nothing is unwound, flushed or told. Whoever comes here gets no further, even if the signal takes a moment.
fn end(point: &str) {
    tracing::error!(point, "the process ends here, since a test has asked for it");
    let process = std::process::id().to_string();
    if std::process::Command::new("kill").args(["-KILL", &process]).status().is_err() {
        std::process::abort();
    }
    loop {
        std::thread::park();
    }
}

/// Declares the points as constants, and [`ALL`] of them.
macro_rules! points {
    ($($(#[$doc:meta])* $name:ident = $text:literal;)*) => {
        $($(#[$doc])* pub const $name: &str = $text;)*

        /// Every point.
        pub const ALL: &[&str] = &[$($name),*];
    };
}

points! {
    /// The next epoch is taken; nothing has been opened.
    EPOCH_TAKEN = "epoch:taken";
    /// Capture has read a whole transaction and is about to pass it.
    TRANSACTION_READ = "transaction:read";
    /// Everything collected is about to be handed to the transport, or has been.
    PUBLISH_BEFORE = "publish:before";
    PUBLISH_AFTER = "publish:after";
    /// Around a part of the rows of a prepared transaction.
    PREPARED_PART_BEFORE = "prepared-part:before";
    PREPARED_PART_AFTER = "prepared-part:after";
    /// Around the object that names those parts: from it on the transaction is held.
    PREPARED_HEAD_BEFORE = "prepared-head:before";
    PREPARED_HEAD_AFTER = "prepared-head:after";
    /// Around the object that says that its outcome has come.
    PREPARED_END_BEFORE = "prepared-end:before";
    PREPARED_END_AFTER = "prepared-end:after";
    /// Of the objects of a prepared transaction some are removed, others not.
    PREPARED_REMOVE = "prepared-remove:between";
    /// In a Kafka transaction: begun; all messages sent; the position record, too; committed.
    KAFKA_BEGUN = "kafka:begun";
    KAFKA_PRODUCED = "kafka:produced";
    KAFKA_RECORDED = "kafka:recorded";
    KAFKA_COMMITTED = "kafka:committed";
    /// A worker has taken in a publish, and has not begun to commit it.
    CONSUMED = "consumed";
    /// Around a data file.
    DATA_FILE_BEFORE = "data-file:before";
    DATA_FILE_AFTER = "data-file:after";
    /// Around a file of deletion vectors.
    VECTOR_FILE_BEFORE = "vector-file:before";
    VECTOR_FILE_AFTER = "vector-file:after";
    /// On local disk: the bytes are written and not synced; synced and without their name; named, the folder not synced.
    DISK_WRITTEN = "disk:written";
    DISK_SYNCED = "disk:synced";
    DISK_NAMED = "disk:named";
    /// Around the put of a commit.
    LOG_PUT_BEFORE = "log-put:before";
    LOG_PUT_AFTER = "log-put:after";
    /// Around the change of the key index that follows a commit.
    INDEX_PUBLISH_BEFORE = "index-publish:before";
    INDEX_PUBLISH_AFTER = "index-publish:after";
    /// The kept index is written under another name; it has its own.
    INDEX_KEPT_WRITTEN = "index-kept:written";
    INDEX_KEPT_NAMED = "index-kept:named";
    /// Around a checkpoint of the Delta log.
    DELTA_CHECKPOINT_BEFORE = "delta-checkpoint:before";
    DELTA_CHECKPOINT_AFTER = "delta-checkpoint:after";
    /// A compaction has written its files; its commit is in.
    COMPACTION_WRITTEN = "compaction:written";
    COMPACTION_COMMITTED = "compaction:committed";
    /// What will be cleaned is named in the log; one of it is gone.
    CLEAN_NAMED = "clean:named";
    CLEAN_REMOVED = "clean:removed";
    /// One of the old commits of a log is gone.
    LOG_CLEANED = "log-clean:one";
    /// A plan of a load is durable and not announced.
    LOAD_PLANNED = "load:planned";
    /// The rows of a chunk are in files that nobody has been told of.
    CHUNK_READ = "chunk:read";
    /// A chunk is in a commit.
    CHUNK_DONE = "chunk:done";
    /// All chunks are in, and the end has not been said.
    LOAD_DONE = "load:done";
    /// Around the next number of a state series: the service's checkpoint, plans of loads.
    STATE_PUT_BEFORE = "state-put:before";
    STATE_PUT_AFTER = "state-put:after";
    /// A run of a schedule has been asked for, and the look at the clock is not noted; it is.
    SCHEDULE_FIRED = "schedule:fired";
    SCHEDULE_NOTED = "schedule:noted";
    /// Around the outcome of a job.
    JOB_END_BEFORE = "job-end:before";
    JOB_END_AFTER = "job-end:after";
    /// Around what brings counts to the trace.
    TRACE_SHIP_BEFORE = "trace-ship:before";
    TRACE_SHIP_AFTER = "trace-ship:after";
}
