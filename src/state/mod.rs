//! Small durable state beside the tables: [`StateSeries`], numbered objects of which the greatest number wins,
//! [`Checkpoint`], what `direct` keeps in one (over Kafka it is the copy that commands read), [`Appeals`], what
//! writers of tables ask of capture, [`PreparedStore`], rows of XA transactions that are prepared, [`jobs`], what people ask
//! of the service, [`schedules`], when it is asked again, [`proofs`], what the service has seen to be equal, and
//! [`RepairStore`], what was mended. [`ConfigStanding`] is what a service runs by.
//!
//! A conditional update exists neither on local disk nor on HDFS, put-if-absent does on every store; so an update is
//! the next number, put if absent, and old numbers are kept for hours for readers that listed them a moment ago.

mod checkpoint;
mod configuration;
pub mod jobs;
mod log;
mod objects;
mod prepared;
pub mod proofs;
mod repairs;
mod requests;
pub mod schedules;
mod series;

pub use checkpoint::{Checkpoint, CheckpointRule, LastTransaction, Phase, STATE_FORMAT, TableStanding, may_follow};
pub use configuration::{ConfigRefused, ConfigStanding};
pub use log::{CheckpointLog, Written};
pub use prepared::{PreparedHead, PreparedPart, PreparedStore};
pub use repairs::RepairStore;
pub use requests::{Appeal, AppealKind, Appeals};
pub use series::{Put, StateSeries};

use crate::format::Format;

/// State that could not be read or written. Says which object.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    #[error("state object {object}: {source}")]
    Store { object: String, source: object_store::Error },
    /// What an object holds makes no sense; it was written by another program or damaged.
    #[error("state object {object} cannot be read: {source}")]
    Damaged { object: String, source: serde_json::Error },
    /// A later version of weir wrote it.
    #[error("state object {object} has format {found}; this version of weir knows {known}")]
    Newer { object: String, found: Format, known: Format },
    /// We were about to write, or have read, a checkpoint that breaks a rule. A bug, or foreign hands.
    #[error("checkpoint {object}: {rule}")]
    Rule { object: String, rule: CheckpointRule },
    /// Rows of a prepared XA transaction are gone or damaged.
    #[error(
        "state object {object} is gone, damaged, or of a newer version: it holds rows of a prepared XA transaction"
    )]
    Lost { object: String },
    /// Someone else took every number that we tried.
    #[error("{series}: {tries} numbers in a row were taken by others; run one instance per source")]
    Contended { series: String, tries: u32 },
}

impl StateError {
    /// Whether the store could not be had, or its answer, rather than that it refused: asking again later may help.
    pub fn is_away(&self) -> bool {
        matches!(self, Self::Store { source: object_store::Error::Generic { .. }, .. })
    }
}

impl From<StateError> for crate::error::Error {
    fn from(error: StateError) -> Self {
        let failed = match &error {
            StateError::Store { object, .. } => Self::failed("the state beside the tables cannot be reached")
                .at(object.clone())
                .way_out("see that [warehouse] url can be reached, read and written"),
            StateError::Damaged { object, .. } => Self::failed("a state object is damaged").at(object.clone()).way_out(
                "remove that object: the number before it takes over, and the tables' own commits know what they hold",
            ),
            StateError::Newer { object, .. } => Self::failed("the state was written by a newer version of weir")
                .at(object.clone())
                .way_out("run that version, or a later one"),
            StateError::Rule { object, .. } => Self::failed("the checkpoint breaks a rule").at(object.clone()),
            StateError::Lost { object } => {
                Self::failed("rows of a prepared XA transaction cannot be read").at(object.clone()).way_out(
                    "restore the object, or end that transaction at the source and seed every table anew with `weir snapshot`",
                )
            }
            StateError::Contended { series, .. } => Self::failed("several instances write the same state")
                .at(series.clone())
                .way_out("run one instance per source"),
        };
        failed.because(error)
    }
}
