//! What the service must hold to, each topic against real servers and independent readers.

mod accounts;
mod binlog;
mod binlog_live;
mod failures;
mod kills;
mod mirror;
mod oracle;
mod tables;
mod trace;
mod usage;
