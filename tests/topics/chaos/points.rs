//! How each failpoint is come to: by which command, and what must be so before.

use weir::failpoint as point;

/// A command that comes to a point.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// The service, as changes come.
    Stream,
    /// The service, with a branch of the source that is prepared and waits.
    Prepare,
    /// The service, with a branch that it holds and that has ended meanwhile.
    EndPrepared,
    /// The service, with a schedule whose minute has come.
    Schedule,
    /// A table is loaded anew.
    Load,
    /// A part of a table is loaded again.
    Part,
    Compact,
    Clean,
}

impl Way {
    pub fn to(name: &str) -> Self {
        match name {
            point::PREPARED_PART_BEFORE
            | point::PREPARED_PART_AFTER
            | point::PREPARED_HEAD_BEFORE
            | point::PREPARED_HEAD_AFTER => Self::Prepare,
            point::PREPARED_END_BEFORE | point::PREPARED_END_AFTER | point::PREPARED_REMOVE => Self::EndPrepared,
            point::SCHEDULE_FIRED | point::SCHEDULE_NOTED => Self::Schedule,
            point::LOAD_PLANNED | point::CHUNK_READ | point::CHUNK_DONE | point::LOAD_DONE => Self::Load,
            point::JOB_END_BEFORE | point::JOB_END_AFTER => Self::Part,
            point::COMPACTION_WRITTEN | point::COMPACTION_COMMITTED => Self::Compact,
            point::CLEAN_NAMED | point::CLEAN_REMOVED | point::LOG_CLEANED => Self::Clean,
            _ => Self::Stream,
        }
    }

    /// The command; `table` is one of the scene's, and keys between `from` and `to` are loaded if it is a part.
    pub fn command<'a>(self, table: &'a str, (from, to): (&'a str, &'a str)) -> Vec<&'a str> {
        match self {
            Self::Stream | Self::Prepare | Self::EndPrepared | Self::Schedule => vec!["run"],
            Self::Load => vec!["snapshot", "--table", table],
            Self::Part => vec!["backfill", "--table", table, "--from", from, "--to", to, "--wait"],
            Self::Compact => vec!["table", "compact", table],
            Self::Clean => vec!["table", "clean", table, "--retention-hours", "0"],
        }
    }
}

/// Points that a service without Kafka comes to within moments.
pub const OF_DIRECT: [&str; 39] = [
    point::EPOCH_TAKEN,
    point::STATE_PUT_BEFORE,
    point::STATE_PUT_AFTER,
    point::LOAD_PLANNED,
    point::CHUNK_READ,
    point::CHUNK_DONE,
    point::LOAD_DONE,
    point::TRANSACTION_READ,
    point::PUBLISH_BEFORE,
    point::PUBLISH_AFTER,
    point::CONSUMED,
    point::DATA_FILE_BEFORE,
    point::DATA_FILE_AFTER,
    point::VECTOR_FILE_BEFORE,
    point::VECTOR_FILE_AFTER,
    point::DISK_WRITTEN,
    point::DISK_SYNCED,
    point::DISK_NAMED,
    point::LOG_PUT_BEFORE,
    point::LOG_PUT_AFTER,
    point::INDEX_PUBLISH_BEFORE,
    point::INDEX_PUBLISH_AFTER,
    point::TRACE_SHIP_BEFORE,
    point::TRACE_SHIP_AFTER,
    point::PREPARED_PART_BEFORE,
    point::PREPARED_END_BEFORE,
    point::PREPARED_PART_AFTER,
    point::PREPARED_END_AFTER,
    point::PREPARED_HEAD_BEFORE,
    point::PREPARED_REMOVE,
    point::PREPARED_HEAD_AFTER,
    point::JOB_END_BEFORE,
    point::JOB_END_AFTER,
    point::SCHEDULE_FIRED,
    point::SCHEDULE_NOTED,
    point::COMPACTION_WRITTEN,
    point::COMPACTION_COMMITTED,
    point::CLEAN_NAMED,
    point::CLEAN_REMOVED,
];

/// Points that a table of hundreds of versions and hundreds of thousands of rows comes to.
pub const OF_LARGE_TABLES: [&str; 5] = [
    point::DELTA_CHECKPOINT_BEFORE,
    point::DELTA_CHECKPOINT_AFTER,
    point::LOG_CLEANED,
    point::INDEX_KEPT_WRITTEN,
    point::INDEX_KEPT_NAMED,
];

/// Points that are come to only over Kafka.
pub const OF_KAFKA: [&str; 4] =
    [point::KAFKA_BEGUN, point::KAFKA_PRODUCED, point::KAFKA_RECORDED, point::KAFKA_COMMITTED];

#[test]
fn every_point_is_in_a_list() {
    let mut listed = [&OF_DIRECT[..], &OF_LARGE_TABLES, &OF_KAFKA].concat();
    let mut all = point::ALL.to_vec();
    listed.sort_unstable();
    all.sort_unstable();
    assert_eq!(listed, all);
}
