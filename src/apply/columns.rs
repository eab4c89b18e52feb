//! The lake table gets the columns that what is to enter it asks for.

use std::sync::Arc;

use weir_model::evolution::{Fit, Moment, fit, is_other_key};
use weir_model::{Absences, ChangeBatch, Order, TableSchema};

use super::{Worker, WorkerError};
use crate::table::{StagedChunk, TableChange, TableState};
use crate::transport::Subscription;

/// A schema of the source, and when it had it.
pub(super) type SourceSchema = (Arc<TableSchema>, Moment);

/// What the table's columns are with what is to enter it.
pub(super) struct Columns {
    /// All of them, if the same commit adds some.
    pub evolve: Option<TableSchema>,
    pub absences: Absences,
}

impl Columns {
    /// A commit that gives the table these, and changes nothing else but the state.
    pub(super) fn change(self, state: TableState) -> TableChange {
        let Self { evolve, absences } = self;
        TableChange { evolve, ..TableChange::to(TableState { absences, ..state }) }
    }
}

/// Schemas of batches, in a row each once, since thousands share one; with the least and the greatest order of its rows, which
/// may lie on either side of a time at which the source was without a column.
pub(super) fn schemas_of(batches: &[ChangeBatch]) -> Vec<SourceSchema> {
    let mut schemas: Vec<(&Arc<TableSchema>, Order, Order)> = Vec::new();
    for batch in batches {
        let (Some(least), Some(newest)) = (batch.orders.iter().min(), batch.orders.iter().max()) else { continue };
        match schemas.last_mut() {
            Some((schema, from, to)) if Arc::ptr_eq(schema, &batch.schema) || **schema == batch.schema => {
                (*from, *to) = ((*from).min(*least), (*to).max(*newest));
            }
            _ => schemas.push((&batch.schema, *least, *newest)),
        }
    }
    let moments = |(schema, least, newest): (&Arc<TableSchema>, Order, Order)| {
        let schema = schema.clone();
        let later = (newest > least).then_some(newest);
        [Some(least), later].into_iter().flatten().map(move |at| (schema.clone(), Moment::Of(at)))
    };
    schemas.into_iter().flat_map(moments).collect()
}

/// Schemas of parts of a chunk.
pub(super) fn schemas_of_chunk(parts: &[StagedChunk]) -> Vec<SourceSchema> {
    parts.iter().map(|part| (part.schema().clone(), Moment::Of(part.order0()))).collect()
}

impl<S: Subscription> Worker<S> {
    /// Whether rows of `source` are told apart by another key than those of the table. A log does not mind.
    pub(super) fn has_other_key(&self, source: &TableSchema) -> bool {
        let lake = self.table.schema();
        !lake.layout.is_append() && is_other_key(&lake.key_columns(), &source.key_columns())
    }

    /// Why the table cannot take rows of `sources`.
    fn refusal(&self, sources: &[SourceSchema], why: String) -> WorkerError {
        match sources.iter().any(|(source, _)| self.has_other_key(source)) {
            true => WorkerError::OtherKey(why),
            false => WorkerError::Schema(why),
        }
    }

    /// What the table becomes so that it can hold rows of `sources`. If its data files must be written again for that, they
    /// are, in a commit of its own. `None` then: where the table stands may have moved, so that what is to enter it must be
    /// worked out again.
    pub(super) async fn fit(&mut self, sources: Vec<SourceSchema>) -> Result<Option<Columns>, WorkerError> {
        let borrowed: Vec<(&TableSchema, Moment)> =
            sources.iter().map(|(schema, moment)| (schema.as_ref(), *moment)).collect();
        let lake = self.table.schema();
        let Fit { schema, absences, rewrites } =
            fit(lake, &self.table.state().absences, &borrowed).map_err(|why| self.refusal(&sources, why))?;
        if !rewrites {
            let evolve = Some(schema).filter(|schema| schema != lake.as_ref());
            return Ok(Some(Columns { evolve, absences }));
        }
        match self.table.reshape(schema, absences).await {
            Ok(outcome) => {
                if self.take_outcome(outcome, None).await? {
                    let (table, version) = (&self.table.schema().table, self.table.version());
                    tracing::info!(%table, version, "the table has other columns");
                }
            }
            Err(error) => self.open_after(error).await?,
        }
        Ok(None)
    }
}
