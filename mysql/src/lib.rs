//! How weir talks to its source: connections whose session is safe, what the server says about itself, its tables, the
//! preflight checks, and packets for those who read rows and the binlog.
//!
//! Reading order: [`connect`] (url to session; `settings` is what every session gets), [`server`] (settings, GTIDs, binlog end), [`patterns`] and
//! [`catalogue`] (which tables, and what they look like; [`column_type`] and [`index`] are its parts), [`check`] (what
//! must be mended before a start), [`wire`] (the protocol itself). Errors are in [`error`].

pub mod catalogue;
pub mod check;
pub mod column_type;
pub mod connect;
pub mod error;
pub mod grants;
pub mod index;
pub mod patterns;
pub mod query;
pub mod server;
mod settings;
pub mod wire;

pub use catalogue::{ColumnFacts, KeySource, TableDescription, describe, list_tables};
pub use check::{Check, CheckInput, CheckStatus, CheckedTable, checks, gather};
pub use column_type::{UnsupportedType, parse_column_type};
pub use connect::{SourceOptions, connect, prepare_session};
pub use error::MysqlError;
pub use grants::Grants;
pub use index::IndexFacts;
/// A connection, so that callers need not name the driver.
pub use mysql_async::Conn;
pub use patterns::{PatternError, TablePatterns};
pub use server::{
    Flavour, ReplicaLag, ServerFacts, Version, binlog_end, executed_gtids, now_ms, purged_gtids, replica_lag,
    server_facts, threads_running, wait_for_executed, xa_recover,
};
pub use wire::RowConnection;
