//! What this process counts and knows of itself, for whoever watches it: [`counters`] that the stages raise once a batch or
//! a commit, never once a row, and the [`standing`] of the service as its supervisor last told it.
//!
//! One for the process, like its log: in memory, and gone with it. Nothing here decides anything, and nothing durable
//! rests on it; what a figure means is said where it is counted. How they are shown is the business of `http`.

mod counters;
mod standing;

pub use self::counters::{Counters, StageFigures, Timed, counters};
pub use self::standing::{Life, LoadStands, Noted, Standing, TableNow, TableStands, standing};
