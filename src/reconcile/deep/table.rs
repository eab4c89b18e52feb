//! A table as both sides have it at the moment, ready to be compared.

use arrow_array::RecordBatch;
use arrow_schema::ArrowError;
use snapshot_loader::ReadOptions;
use weir_model::{BoundRules, RowRules, TableId, TableSchema, ZeroDates};
use weir_mysql::{Conn, TableDescription, catalogue};

use super::columns::{SharedColumns, SharedRows};
use super::compare::Counting;
use super::key_text::KeyShape;
use super::{DeepError, DeepQuestion};
use crate::limits::CHUNK_BATCH_BYTES;
use crate::table::history;

/// What is known of a table that can be compared.
#[derive(Debug, Clone)]
pub struct ComparedTable {
    pub id: TableId,
    pub description: TableDescription,
    pub columns: SharedColumns,
    pub shape: KeyShape,
    pub counting: Counting,
    pub read: ReadOptions,
    /// What the source's rows become before they are compared: what the lake should have.
    rules: Option<BoundRules>,
}

/// Why a table cannot be compared though nothing failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotCompared(pub String);

impl ComparedTable {
    /// Looks at the table on both sides.
    ///
    /// # Errors
    /// When the source or the lake cannot be asked.
    pub async fn look_at(
        question: &DeepQuestion,
        connection: &mut Conn,
        id: &TableId,
    ) -> Result<Result<Self, NotCompared>, DeepError> {
        let because = |why: &str| Ok(Err(NotCompared(why.to_owned())));
        let figures = history::figures(&question.warehouse, id).await?;
        let state = figures.and_then(|figures| figures.state);
        let Some(lake) = state.and_then(|state| state.schema) else { return because("the lake does not have it yet") };
        if lake.key.is_empty() {
            return because("without a key its rows cannot be told apart, and a log of them has no state to compare");
        }
        let Some(description) = catalogue::describe(connection, id).await? else {
            return because("the source no longer has it");
        };
        let zero_dates = question.tables.get(id).copied().unwrap_or_default();
        let rules = question.rules.get(id).cloned().unwrap_or_default();
        Ok(Self::of(id, &lake, description, zero_dates, &rules).map_err(NotCompared))
    }

    fn of(
        id: &TableId,
        lake: &TableSchema,
        description: TableDescription,
        zero_dates: ZeroDates,
        rules: &RowRules,
    ) -> Result<Self, String> {
        let rules = bound(rules, lake, &description)?;
        let columns = SharedColumns::of(lake, rules.as_ref().map_or(&description.schema, |rules| rules.schema()))?;
        // Rows are looked up, and ranges made, by the key that the lake tells them apart by.
        let key: Vec<String> = columns.key().map(|(column, _)| column.name.clone()).collect();
        let description = description.with_key(&key).map_err(|error| error.to_string())?;
        Ok(Self {
            id: id.clone(),
            shape: KeyShape::of(&columns),
            columns,
            description,
            counting: if lake.layout.is_append() { Counting::Newest } else { Counting::Rows },
            read: ReadOptions { zero_dates, batch_bytes: CHUNK_BATCH_BYTES },
            rules,
        })
    }

    /// What the lake should have of rows as a chunk of the source has them.
    ///
    /// # Errors
    /// When a value is not what its type says.
    pub fn of_source(&self, rows: &RecordBatch) -> Result<SharedRows, ArrowError> {
        match &self.rules {
            Some(rules) => self.columns.of_source(&rules.rows(rows)),
            None => self.columns.of_source(rows),
        }
    }
}

/// The rules for the columns that the source has. The key that they leave alone is the lake's.
fn bound(rules: &RowRules, lake: &TableSchema, source: &TableDescription) -> Result<Option<BoundRules>, String> {
    if rules.is_none() {
        return Ok(None);
    }
    let key: Vec<String> = lake.key_names().into_iter().map(str::to_owned).collect();
    let keyed = source.clone().with_key(&key).map_err(|error| error.to_string())?;
    rules.bind(&keyed.schema).map_err(|error| error.to_string())
}
