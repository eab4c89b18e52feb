//! TABLE_MAP_EVENT.

/// A table as the binlog describes it just before its rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableMap {}
