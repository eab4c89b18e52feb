//! What the service must hold to, each topic against real servers and independent readers.

mod accounts;
mod binlog;
mod binlog_live;
mod columns;
mod deep;
mod failures;
mod kafka;
mod kafka_accounts;
mod kafka_group;
mod kafka_topics;
mod kafka_transport;
mod kafka_usage;
mod kills;
mod mirror;
mod modes;
mod oracle;
mod partitions;
mod readers;
mod s3;
mod s3_faults;
mod tables;
mod trace;
mod upkeep;
mod usage;
