//! Everything that is said to ClickHouse, in what both a server of 2018 and one of today understand.
//!
//! `?` stands for a value. The sorting key of each table is the identity of its rows, and the partition follows from it:
//! whatever is inserted twice is one row once parts are merged, and one row for every query before, because each groups
//! by the identity. Nothing is changed or deleted, so there are no mutations to wait for.

/// Version of the tables below, in a table of its own.
/// Of format 1 nobody said what comes late, so whoever ships by it must not meet days.
pub const FORMAT: u64 = 2;

/// The tables by name, the format's first: what a later version wrote is refused before anything is made beside it.
pub const TABLES: [(&str, &str); 7] = [
    ("weir_trace_format", CREATE_FORMAT),
    ("weir_trace", CREATE_COUNTS),
    ("weir_trace_marks", CREATE_MARKS),
    ("weir_trace_repairs", CREATE_REPAIRS),
    ("weir_trace_days", CREATE_DAYS),
    ("weir_trace_late", CREATE_LATE),
    ("weir_trace_bounds", CREATE_BOUNDS),
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

/// A row a table and day: the sums of those of its minutes below `before_ms` that add up, as lists of one length, and the others
/// by their windows (`kept`, ascending). It is made of all counts below `below` and `capture_below` of the table and of capture,
/// in these generations. Of several rows that with the greatest `before_ms` is read.
const CREATE_DAYS: &str = "CREATE TABLE IF NOT EXISTS weir_trace_days (\
     source String, table_name String, day_ms Int64, fold UInt64, before_ms Int64, kept Array(Int64), \
     generation UInt64, below UInt64, capture_generation UInt64, capture_below UInt64, \
     with_stale Array(UInt8), origin Array(String), op Array(String), hop Array(String), count Array(UInt64), \
     digest_0 Array(UInt32), digest_1 Array(UInt32), digest_2 Array(UInt32), digest_3 Array(UInt32)\
     ) ENGINE = ReplacingMergeTree(fold) PARTITION BY intDiv(day_ms, 2592000000) \
     ORDER BY (source, table_name, day_ms)";

/// Something of `origin`, up to `version`, came for a day that may have been summed already.
const CREATE_LATE: &str = "CREATE TABLE IF NOT EXISTS weir_trace_late (\
     source String, table_name String, day_ms Int64, origin String, generation UInt64, version Int64\
     ) ENGINE = ReplacingMergeTree(version) ORDER BY (source, table_name, day_ms, origin, generation)";

/// `folding`: somebody may have summed days below it; `folded`: every day below it has its row; `expired`: days that end there
/// or before count no longer.
const CREATE_BOUNDS: &str = "CREATE TABLE IF NOT EXISTS weir_trace_bounds (\
     source String, bound String, at_ms Int64\
     ) ENGINE = ReplacingMergeTree(at_ms) ORDER BY (source, bound)";

/// Length of a partition of `weir_trace` and `weir_trace_days`, as in their DDL.
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

/// Marks of all of the source's origins.
pub const MARKS_OF_SOURCE: &str = "SELECT origin, generation, max(next_version) FROM weir_trace_marks \
     WHERE source = ? GROUP BY origin, generation";

pub const BOUNDS: &str = "SELECT bound, max(at_ms) FROM weir_trace_bounds WHERE source = ? GROUP BY bound";

/// Source, first day; a table in the place of `{only}`.
pub const DAYS: &str = "SELECT source, table_name, day_ms, fold, before_ms, kept, generation, below, capture_generation, \
     capture_below, with_stale, origin, op, hop, count, digest_0, digest_1, digest_2, digest_3 \
     FROM weir_trace_days WHERE source = ? AND day_ms >= ?{only}";

/// The same of what came late.
pub const LATE: &str = "SELECT table_name, day_ms, origin, generation, max(version) FROM weir_trace_late \
     WHERE source = ? AND day_ms >= ?{only} GROUP BY table_name, day_ms, origin, generation";

/// Added to what is asked of a source, for one of its tables.
pub fn only(is_one: bool) -> &'static str {
    if is_one { " AND table_name = ?" } else { "" }
}

/// Numbers of days are counted from so long before 1970: ClickHouse divides towards 0, and events may be older than that.
pub const DAYS_BEFORE_1970: i64 = 100_000_000;

/// Source, first window, and the one behind the last: the days of tables that have counts there.
pub const DAYS_WITH_COUNTS: &str = "SELECT table_name, intDiv(window_ms + 8640000000000000, 86400000) AS day \
     FROM weir_trace WHERE source = ? AND window_ms >= ? AND window_ms < ? GROUP BY table_name, day";

/// A condition on counts: the first window and the one behind the last, and so many pairs of a table and a day's number.
pub fn of_days(days: usize) -> String {
    let pairs = vec!["(?, ?)"; days].join(", ");
    format!(
        "window_ms >= ? AND window_ms < ? \
         AND (table_name, intDiv(window_ms + 8640000000000000, 86400000)) IN ({pairs})"
    )
}

/// Counts of a source under a condition, whose values come behind the source, summed by window; with `marked` only those
/// below their marks, and the source once more at the end.
pub fn minutes(which: &str, marked: bool) -> String {
    let marks = if marked { MARKED } else { "" };
    format!(
        "SELECT table_name, origin, generation, window_ms, op, hop, sum(n), sum(d0), sum(d1), sum(d2), sum(d3) FROM (\
         SELECT table_name, origin, generation, version, window_ms, op, hop, any(count) AS n, \
         any(digest_0) AS d0, any(digest_1) AS d1, any(digest_2) AS d2, any(digest_3) AS d3 \
         FROM weir_trace WHERE source = ? AND {which} \
         GROUP BY table_name, origin, generation, version, window_ms, op, hop\
         ) AS counts{marks} GROUP BY table_name, origin, generation, window_ms, op, hop"
    )
}

/// `ALL`, although a mark is unique: by `ANY` engines since 2020 take one row of the left side, too.
const MARKED: &str = " ALL INNER JOIN (\
     SELECT origin, generation, toInt64(max(next_version)) AS next_version FROM weir_trace_marks \
     WHERE source = ? GROUP BY origin, generation\
     ) AS marks USING (origin, generation) WHERE version < next_version";

/// Partitions with counts, by source.
pub const PARTITIONS: &str = "SELECT intDiv(window_ms, 2592000000) AS n, source FROM weir_trace GROUP BY n, source";
pub const PARTITIONS_WITH_KEPT: &str =
    "SELECT intDiv(day_ms, 2592000000) AS n FROM weir_trace_days FINAL WHERE notEmpty(kept) GROUP BY n";
pub const EXPIRED: &str = "SELECT source, max(at_ms) FROM weir_trace_bounds WHERE bound = 'expired' GROUP BY source";

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
