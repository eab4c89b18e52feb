//! The settings of every session that reads: one list for the driver's connections and for our own.

use crate::error::codes;

/// Long enough for a reader that waits for the lake, short enough that a dead one goes away.
const SESSION_TIMEOUT_S: u64 = 3600;

/// Statements without which rows would be read wrongly; each is known to every server that weir reads from.
pub(crate) const REQUIRED: [&str; 3] = [
    "SET NAMES utf8mb4",
    // No mode at all: zero dates can be read, quotes and backslashes mean what we think, CHAR is not padded.
    // A sql_select_limit or max_join_size set for interactive users would cut or refuse a table.
    "SET SESSION sql_mode='', time_zone='+00:00', autocommit=1, sql_select_limit=18446744073709551615, \
     sql_big_selects=1, sql_safe_updates=0",
    "SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ",
];

/// Statements that only some versions know.
pub(crate) fn optional() -> [String; 9] {
    [
        "SET SESSION max_execution_time=0".into(),
        "SET SESSION max_statement_time=0".into(),
        format!("SET SESSION net_write_timeout={SESSION_TIMEOUT_S}"),
        format!("SET SESSION net_read_timeout={SESSION_TIMEOUT_S}"),
        format!("SET SESSION wait_timeout={SESSION_TIMEOUT_S}"),
        // Generated invisible primary keys are in the binlog, so the catalogue must show them.
        "SET SESSION show_gipk_in_create_table_and_information_schema=ON".into(),
        // Row estimates a day old would plan a table of millions as one chunk.
        "SET SESSION information_schema_stats_expiry=0".into(),
        // A secondary engine lags behind InnoDB.
        "SET SESSION use_secondary_engine=OFF".into(),
        "SET SESSION completion_type=NO_CHAIN".into(),
    ]
}

/// Whether an optional statement that was refused so is left out.
pub(crate) fn may_lack(code: u16) -> bool {
    matches!(code, codes::UNKNOWN_SYSTEM_VARIABLE | codes::SPECIFIC_ACCESS_DENIED | codes::WRONG_VALUE_FOR_VARIABLE)
}
