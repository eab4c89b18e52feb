//! Recorded binlogs of a real server, whole and damaged.
