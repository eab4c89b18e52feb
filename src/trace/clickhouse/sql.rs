//! Everything that is said to ClickHouse, in what both a server of 2018 and one of today understand.
//!
//! `?` stands for a value. The sorting key of each table is the identity of its rows, and the partition follows from it:
//! whatever is inserted twice is one row once parts are merged, and one row for every query before, because each groups
//! by the identity. Nothing is changed or deleted, so there are no mutations to wait for.

/// Version of the tables below, in a table of its own.
pub const FORMAT: u64 = 1;

/// The tables by name, the format's first: what a later version wrote is refused before anything is made beside it.
pub const TABLES: [(&str, &str); 4] = [
    ("weir_trace_format", CREATE_FORMAT),
    ("weir_trace", CREATE_COUNTS),
    ("weir_trace_marks", CREATE_MARKS),
    ("weir_trace_repairs", CREATE_REPAIRS),
];

const CREATE_FORMAT: &str = "CREATE TABLE IF NOT EXISTS weir_trace_format (format UInt64) \
     ENGINE = ReplacingMergeTree ORDER BY format";

/// A digest is four limbs of 32 bits, the lowest first: their sums fit into 64 bits, and the carry is the reader's.
/// `generation` counts how often the lake table of `origin` was made anew.
const CREATE_COUNTS: &str = "CREATE TABLE IF NOT EXISTS weir_trace (\
     source String, table_name String, origin String, generation UInt64, version Int64, window_ms Int64, \
     op String, hop String, at_ms Int64, count UInt64, \
     digest_0 UInt32, digest_1 UInt32, digest_2 UInt32, digest_3 UInt32\
     ) ENGINE = ReplacingMergeTree PARTITION BY intDiv(window_ms, 2592000000) \
     ORDER BY (source, table_name, origin, generation, version, window_ms, op, hop)";

/// Everything of `origin` below `next_version` is in, as long as no greater generation has begun.
const CREATE_MARKS: &str = "CREATE TABLE IF NOT EXISTS weir_trace_marks (\
     source String, origin String, generation UInt64, next_version UInt64\
     ) ENGINE = ReplacingMergeTree(next_version) ORDER BY (source, origin, generation)";

/// A row a repair and what is known of it: of one that is under way another comes with its end. Texts that are not there are
/// empty, `left_count` is -1 if nobody knows.
const CREATE_REPAIRS: &str = "CREATE TABLE IF NOT EXISTS weir_trace_repairs (\
     source String, id String, table_name String, at_ms Int64, asked_by String, host String, \
     missing_count UInt64, extra_count UInt64, different_count UInt64, keys String, read_again UInt64, anew String, \
     ended_ms Int64, job String, left_count Int64, error String, made_up_for String\
     ) ENGINE = ReplacingMergeTree(ended_ms) ORDER BY (source, id)";

/// Length of a partition of `weir_trace`, as in its DDL.
pub const PARTITION_MS: i64 = 2_592_000_000;

/// Added to each CREATE TABLE where the server knows it: an insert is answered once it is on disk, so that a power cut
/// cannot take counts and leave the mark above them.
pub const ON_DISK_FIRST: &str = " SETTINGS fsync_after_insert = 1, fsync_part_directory = 1";
/// First major version that knows it.
pub const ON_DISK_FIRST_SINCE: u32 = 21;
/// First major version whose users may have inserts answered before they are written.
pub const ASYNC_INSERT_SINCE: u32 = 22;

pub const VERSION: &str = "SELECT version()";
pub const DATABASE_IS_THERE: &str = "SELECT count() FROM system.databases WHERE name = ?";
pub const CREATE_DATABASE: &str = "CREATE DATABASE IF NOT EXISTS ?";
pub const TABLE_IS_THERE: &str = "SELECT count() FROM system.tables WHERE database = ? AND name = ?";
pub const FORMAT_FOUND: &str = "SELECT max(format) FROM weir_trace_format";

/// Marks of the source's origins that stand in a list put in the place of `{origins}`.
pub const MARKS: &str = "SELECT origin, generation, max(next_version) FROM weir_trace_marks \
     WHERE source = ? AND origin IN ({origins}) GROUP BY origin, generation";

/// Source, table, first window; then the table's generation and next version, then capture's.
pub const TOTALS: &str = "SELECT window_ms, op, hop, sum(n), sum(d0), sum(d1), sum(d2), sum(d3) FROM (\
     SELECT window_ms, op, hop, any(count) AS n, \
     any(digest_0) AS d0, any(digest_1) AS d1, any(digest_2) AS d2, any(digest_3) AS d3 \
     FROM weir_trace WHERE source = ? AND table_name = ? AND window_ms >= ? \
     AND ((origin != 'capture' AND generation = ? AND version < ?) OR (origin = 'capture' AND generation = ? AND version < ?)) \
     GROUP BY origin, generation, version, window_ms, op, hop\
     ) GROUP BY window_ms, op, hop";

/// Ids of the source's repairs, and when each ended.
pub const REPAIRS_NOTED: &str = "SELECT id, max(ended_ms) FROM weir_trace_repairs WHERE source = ? GROUP BY id";

/// The newest repairs of the source, so many: of each what was told of it last.
pub const REPAIRS: &str = "SELECT any(source), id, any(table_name), any(at_ms) AS begun_ms, any(asked_by), any(host), \
     any(missing_count), any(extra_count), any(different_count), any(keys), any(read_again), argMax(anew, ended_ms), \
     max(ended_ms), argMax(job, ended_ms), argMax(left_count, ended_ms), argMax(error, ended_ms), \
     argMax(made_up_for, ended_ms) \
     FROM weir_trace_repairs WHERE source = ? GROUP BY id ORDER BY begun_ms DESC, id DESC LIMIT ?";

/// [`MARKS`] with room for so many origins.
pub fn marks(origins: usize) -> String {
    MARKS.replace("{origins}", &vec!["?"; origins].join(", "))
}
