//! Does the lake hold exactly what the source has, row by row? Finds every key of which the two differ.
//!
//! ```text
//! plan ─► parts ─► source side ─► wait until the lake holds ─► lake side ─► compare ─► suspects ─► confirm ─► report
//!         ranges    SELECTs        what the SELECTs saw         newest       digests,               key by
//!         of keys                                               version      then keys              key
//! ```
//!
//! Nothing is locked and nobody is asked to pause, so a key that changes meanwhile may look different: it is a *suspect*. A
//! difference that nobody touches is a suspect for certain, since its row is read once on each side. Suspects are judged by
//! a [`Confirm`]; what cannot be settled is in flight, never a difference.
//!
//! Rows are hashed here, on both sides alike ([`weir_model::row_hash`], [`columns`]): MySQL has no hash that is strong and quick
//! at once, and no text of its values that would be the lake's. Memory is bounded ([`entries`]), and so is the load: one connection a table, SELECTs of a
//! chunk. Nothing here writes to the source or to the lake.

mod columns;
mod compare;
mod confirm;
mod entries;
mod key_text;
mod lake_side;
mod mend;
mod parts;
mod report;
mod run;
mod source_side;
mod standing;
mod table;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use futures::StreamExt;
use snapshot_loader::{LoadError, Progress, Throttle};
use weir_model::{RowRules, TableId, ZeroDates};
use weir_mysql::{MysqlError, SourceOptions};

pub use self::compare::Finding;
pub use self::confirm::{Confirm, Judgement, Recheck, Suspect};
pub use self::key_text::ShownKey;
pub use self::mend::{Mending, RepairReport, mending};
pub use self::parts::Part;
pub use self::report::{DeepReport, Sample};
pub use self::run::{compare_only, plan_parts};
pub use self::table::NotCompared;
use crate::error::Error;
use crate::limits::DEEP_TABLES_TOGETHER;
use crate::state::StateError;
use crate::table::{TableError, Warehouse};
use crate::transport::kafka::{KafkaSettings, TransportError};

/// What is compared, and how.
#[derive(Debug, Clone)]
pub struct DeepQuestion {
    pub source: String,
    pub options: SourceOptions,
    pub warehouse: Warehouse,
    /// Where changes travel over Kafka.
    pub kafka: Option<KafkaSettings>,
    /// Which tables, and what becomes of their zero dates.
    pub tables: BTreeMap<TableId, ZeroDates>,
    /// What of their columns the lake gets, of tables that have rules.
    pub rules: BTreeMap<TableId, RowRules>,
    /// Connections to the source, one a table.
    pub connections: usize,
    /// Only so many of 100 ranges, drawn at random.
    pub sample_percent: Option<f64>,
    /// Where scratch files may lie: 50 bytes a row, of tables that cannot be compared range by range.
    pub scratch: PathBuf,
    /// Spares the source.
    pub throttle: Arc<Throttle>,
    pub progress: Arc<Progress>,
}

impl DeepQuestion {
    fn scratch_error(&self, source: std::io::Error) -> DeepError {
        DeepError::Scratch { folder: self.scratch.clone(), source }
    }
}

/// Why a table could not be compared.
#[derive(Debug, thiserror::Error)]
pub enum DeepError {
    #[error(transparent)]
    Mysql(#[from] MysqlError),
    #[error(transparent)]
    Load(#[from] LoadError),
    #[error(transparent)]
    Table(#[from] TableError),
    #[error(transparent)]
    State(#[from] StateError),
    #[error(transparent)]
    Transport(#[from] TransportError),
    #[error("Arrow: {0}")]
    Arrow(#[from] arrow_schema::ArrowError),
    #[error("a scratch file in {folder}: {source}; [apply] state_dir says where it lies", folder = folder.display())]
    Scratch { folder: PathBuf, source: std::io::Error },
    #[error("reading its source came to an end: {0}")]
    Ended(String),
    #[error("its files went again and again while they were read; try again")]
    Moved,
}

/// The table was altered between being described and being read: unknown column, no such table.
const SHAPE_CHANGED: [u16; 2] = [1054, 1146];

impl DeepError {
    /// Whether looking at the table anew may help.
    fn is_passing(&self) -> bool {
        match self {
            Self::Mysql(error) | Self::Load(LoadError::Mysql(error)) => {
                error.is_retryable() || error.code().is_some_and(|code| SHAPE_CHANGED.contains(&code))
            }
            Self::Load(LoadError::Cell { .. }) | Self::Table(TableError::NoColumn { .. }) => true,
            _ => false,
        }
    }
}

/// How many of keys that differed are not equal now, or cannot be seen to be.
///
/// # Errors
/// When one side cannot be asked.
pub async fn still_different<C: Confirm>(
    question: &DeepQuestion,
    confirm: &C,
    table: &TableId,
    suspects: &[Suspect],
) -> Result<u64, DeepError> {
    let judgements = confirm.confirm(question, table, suspects).await?;
    Ok(judgements.into_iter().filter(|judgement| *judgement != Judgement::Equal).count() as u64)
}

/// Compares every table that is asked for, some side by side; what befalls one is in its report.
///
/// # Errors
/// None but those of a task that fails to run.
pub async fn compare_tables<C: Confirm>(
    question: Arc<DeepQuestion>,
    confirm: Arc<C>,
) -> Result<BTreeMap<TableId, DeepReport>, Error> {
    let together = question.connections.clamp(1, DEEP_TABLES_TOGETHER);
    let tables: Vec<TableId> = question.tables.keys().cloned().collect();
    let mut compared = futures::stream::iter(tables)
        .map(|table| {
            let (question, confirm) = (question.clone(), confirm.clone());
            let task = tokio::spawn({
                let table = table.clone();
                async move { run::compare_table(&question, &*confirm, &table).await }
            });
            async move { (table, task.await) }
        })
        .buffer_unordered(together);
    let mut reports = BTreeMap::new();
    while let Some((table, report)) = compared.next().await {
        let report = report.map_err(|error| Error::failed(format!("comparing {table}: {error}")))?;
        reports.insert(table, report);
    }
    Ok(reports)
}
