//! Rows as the source has them by now, for changes that leave columns out and have nothing here to be folded onto.
//!
//! Such a row may be ahead of the change that it is read for. That is exact in the end: whatever was changed in between comes as
//! an event of its own, which sets the columns that it changed, or takes the row out; the columns that it did not change are what
//! they were when the row was read. Nothing that depends on what a column was before is ever applied to a row that was read so.

use std::fmt;
use std::sync::Arc;

use arrow_array::RecordBatch;
use futures::future::BoxFuture;
use tokio::time::Instant;
use weir_model::{GtidSet, RecordKey, RecordKeys, TableSchema};

use super::WorkerError;
use crate::limits::{CURRENT_ROWS_RETRY_DELAY, CURRENT_ROWS_WAIT_MAX};

/// Rows of a table as the source has them.
#[derive(Debug)]
pub struct Found {
    /// The source's columns by now.
    pub schema: Arc<TableSchema>,
    pub rows: RecordBatch,
    /// As long as `rows`.
    pub keys: RecordKeys,
}

/// Why rows could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The source cannot be had; asking again may help.
    #[error("{0}")]
    Away(String),
    /// What it has cannot be read as it must be.
    #[error("{0}")]
    Refused(String),
}

/// The source, for whoever needs some of its rows whole.
///
/// What is read is at least as new as everything in `shown`. Reads hold no locks. Cancellation loses nothing.
pub trait CurrentRows: fmt::Debug + Send + Sync {
    /// The rows of `keys`, as far as there are any, of the table that the lake has with the columns of `lake`.
    fn read<'a>(
        &'a self,
        lake: &'a TableSchema,
        keys: &'a [RecordKey],
        shown: &'a GtidSet,
    ) -> BoxFuture<'a, Result<Vec<Found>, ReadError>>;
}

/// Reads until the source answers; where somebody waits for an end, not for long.
pub(super) async fn read_until_answered(
    source: Option<&Arc<dyn CurrentRows>>,
    lake: &TableSchema,
    keys: &[RecordKey],
    shown: &GtidSet,
    is_ending: impl Fn() -> bool,
) -> Result<Vec<Found>, WorkerError> {
    let table = &lake.table;
    let Some(source) = source else {
        return Err(WorkerError::Rows(format!(
            "{table} has changes that leave columns out, and no source to read them at"
        )));
    };
    let since = Instant::now();
    loop {
        match source.read(lake, keys, shown).await {
            Ok(found) => return Ok(found),
            Err(ReadError::Refused(why)) => {
                return Err(WorkerError::Rows(format!(
                    "rows of {table} that were logged in part cannot be read: {why}"
                )));
            }
            Err(ReadError::Away(why)) if is_ending() && since.elapsed() > CURRENT_ROWS_WAIT_MAX => {
                return Err(WorkerError::SourceAway(why));
            }
            Err(ReadError::Away(why)) => {
                tracing::warn!(%table, error = why, "the source is asked again for rows that were logged in part");
                tokio::time::sleep(CURRENT_ROWS_RETRY_DELAY).await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use futures::FutureExt;
    use weir_model::{Column, ColumnType, Layout, TableId};

    use super::*;

    /// Answers from the last on.
    #[derive(Debug)]
    struct Scripted(Mutex<Vec<Result<Vec<Found>, ReadError>>>);

    impl CurrentRows for Scripted {
        fn read<'a>(
            &'a self,
            _: &'a TableSchema,
            _: &'a [RecordKey],
            _: &'a GtidSet,
        ) -> BoxFuture<'a, Result<Vec<Found>, ReadError>> {
            let answer = self.0.lock().unwrap().pop().expect("it is not asked again");
            async move { answer }.boxed()
        }
    }

    fn lake() -> TableSchema {
        TableSchema {
            table: TableId::new("shop", "orders"),
            columns: vec![Column { name: "id".into(), ty: ColumnType::Int64, nullable: false }],
            key: vec![0],
            layout: Layout::default(),
        }
    }

    async fn read(answers: Vec<Result<Vec<Found>, ReadError>>) -> Result<Vec<Found>, WorkerError> {
        let source: Arc<dyn CurrentRows> = Arc::new(Scripted(Mutex::new(answers)));
        read_until_answered(Some(&source), &lake(), &[RecordKey::Int(1)], &GtidSet::default(), || true).await
    }

    #[tokio::test]
    async fn a_source_that_is_away_is_asked_again_and_one_that_refuses_is_not() {
        assert!(
            read(vec![Ok(Vec::new()), Err(ReadError::Away("gone".into()))]).await.is_ok_and(|found| found.is_empty())
        );
        let refused = read(vec![Err(ReadError::Refused("no such key".into()))]).await.unwrap_err();
        assert!(refused.to_string().contains("shop.orders that were logged in part cannot be read: no such key"));
    }
}
