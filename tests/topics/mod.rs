//! What the service must hold to, each topic against real servers and independent readers.

mod failures;
mod kills;
mod mirror;
mod tables;
