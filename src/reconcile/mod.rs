//! Source against hops against table: what was counted, put side by side.
//!
//! [`gather`] collects: where the source is, where every table stands, and the counts of all commits, shipping to the
//! trace those that it lacks. [`accounts`] has the equations, [`report`] the verdicts; both are pure. [`render`] shows
//! a report to people, with [`chart`]; [`repairs`] keeps what was mended. Of all this nothing reads rows; [`deep`] does.

pub mod accounts;
pub mod chart;
pub mod deep;
pub mod gather;
pub mod missing;
mod positions;
pub mod render;
pub mod repairs;
pub mod report;

pub use accounts::rfc3339;
pub use gather::{Question, gather};
pub use report::{Facts, Reach, Report, TableFacts, TableReport, Verdict, report};
