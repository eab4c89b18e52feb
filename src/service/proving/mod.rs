//! The service's own reconciliation: while it runs it compares the counts of every hop, and the rows of every table, and keeps
//! what it has proven beside the tables, where `status` and reports find it.
//!
//! It asks as `weir reconcile` does, of the warehouse and the source, and shares nothing with what writes tables, so that a
//! fault of the one is not a fault of the other. [`due`] decides which keys are next, [`rows`] compares them, [`hops`] the
//! counts; [`book`] is what they share. It mends nothing.

mod book;
mod due;
mod hops;
mod rows;

use std::collections::BTreeSet;
use std::sync::Arc;

use snapshot_loader::{Progress, Throttle};
use tokio_util::task::AbortOnDropHandle;
use weir_model::TableId;

use self::book::Book;
use self::hops::prove_hops;
use self::rows::RowProver;
use super::seed::Loader;
use super::trace::ConfiguredTrace;
use super::{kafka_of, throttle};
use crate::config::Config;
use crate::error::Error;
use crate::reconcile::deep::DeepQuestion;
use crate::state::proofs::ProofLog;
use crate::table::Warehouse;

/// What proves, as long as it is held.
#[derive(Debug)]
pub struct Proving {
    book: Arc<Book>,
    _tasks: Vec<AbortOnDropHandle<()>>,
}

impl Proving {
    /// Begins what `[reconcile]` asks for.
    ///
    /// # Errors
    /// For a configuration that was not checked.
    pub fn start(
        config: &Config,
        warehouse: &Warehouse,
        trace: &Arc<ConfiguredTrace>,
        loader: &Loader,
    ) -> Result<Self, Error> {
        let state = warehouse.state_path(&config.source.name);
        let book = Arc::new(Book::new(ProofLog::new(warehouse.store().clone(), state)));
        let mut tasks = Vec::new();
        if let Some(every) = config.reconcile.hops_every.0 {
            let proves = prove_hops(config.clone(), warehouse.clone(), trace.clone(), book.clone(), every);
            tasks.push(AbortOnDropHandle::new(tokio::spawn(proves)));
        }
        if let Some(within) = config.reconcile.deep_within.0 {
            // Rows are compared with the source's own; the loader may read those of a replica, and spares that.
            let question = match loader.replica {
                None => deep_question(config, warehouse, loader.throttle.clone())?,
                Some(_) => deep_question_of_command(config, warehouse)?,
            };
            let proves = RowProver::new(question, book.clone(), within).run();
            tasks.push(AbortOnDropHandle::new(tokio::spawn(proves)));
        }
        Ok(Self { book, _tasks: tasks })
    }

    /// A commit of the table has been seen.
    pub fn note_change(&self, table: &TableId) {
        self.book.note_change(table);
    }

    /// These tables are ours, and these of them follow the stream; no other.
    pub fn note_tables(&self, known: BTreeSet<TableId>, streaming: BTreeSet<TableId>) {
        self.book.note_tables(known, streaming);
    }

    /// Makes durable what has been proven; a service that ends does so.
    pub async fn finish(&self) {
        if let Err(error) = self.book.write(true).await {
            tracing::warn!(%error, "what has been proven lately is proven again");
        }
    }
}

/// How rows are compared by this configuration: no tables are asked for yet, but what becomes of zero dates, and of
/// columns with rules, is known of those that have a section.
///
/// # Errors
/// For a configuration that was not checked.
pub fn deep_question(config: &Config, warehouse: &Warehouse, throttle: Arc<Throttle>) -> Result<DeepQuestion, Error> {
    let zero_dates = config.tables.iter().filter_map(|rule| rule.name.clone().map(|name| (name, rule.zero_dates)));
    Ok(DeepQuestion {
        source: config.source.name.clone(),
        options: config.source_options()?,
        warehouse: warehouse.clone(),
        kafka: kafka_of(config)?,
        tables: zero_dates.collect(),
        rules: config.row_rules(),
        connections: config.source.max_connections,
        sample_percent: None,
        scratch: config.state_dir().join("scratch"),
        throttle,
        progress: Progress::new(),
    })
}

/// [`deep_question`] of a command, which spares the source by itself.
///
/// # Errors
/// For a configuration that was not checked.
pub fn deep_question_of_command(config: &Config, warehouse: &Warehouse) -> Result<DeepQuestion, Error> {
    deep_question(config, warehouse, throttle::throttle(&config.source, &config.source_options()?))
}
