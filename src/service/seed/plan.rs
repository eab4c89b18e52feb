//! What a load reads: the whole table or a part of it, divided into chunks. The division is kept beside the table, so that a
//! load goes on from it.

use serde::{Deserialize, Serialize};
use snapshot_loader::key_text::{Extent, KeyTextError, key_values};
use snapshot_loader::{ChunkRange, KeyValue, LoadError, PlanTarget, Selection, key_above, plan_chunks};
use weir_model::{TableId, clock};
use weir_mysql::{Conn, TableDescription};

use crate::limits::{CHUNK_BYTES, CHUNK_ROWS, KEYS_PER_CHUNK};
use crate::state::jobs::{Bound, Scope};

/// The chunks of one load, as they are kept beside the table.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SeedPlan {
    pub table: TableId,
    /// The engine's estimate.
    pub rows_estimated: u64,
    pub chunks: Vec<Piece>,
    /// Ms since the epoch when it was made.
    #[serde(default)]
    pub begun_ms: i64,
}

/// What one chunk reads.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Piece {
    /// The rows of these keys; the others of them are absent.
    Keys {
        keys: Vec<Vec<KeyValue>>,
    },
    Range(ChunkRange),
}

impl Piece {
    pub(super) fn selection(&self) -> Selection<'_> {
        match self {
            Self::Keys { keys } => Selection::Keys(keys),
            Self::Range(range) => Selection::Range(range),
        }
    }

    pub(super) fn keys(&self) -> Option<&[Vec<KeyValue>]> {
        match self {
            Self::Keys { keys } => Some(keys),
            Self::Range(_) => None,
        }
    }
}

/// What a load reads of a table.
#[derive(Debug, Clone, PartialEq)]
pub enum LoadScope {
    /// All of it; the table is `filling` meanwhile, and rows that are not found go at the end.
    Whole,
    /// Some of it, beside the stream.
    Part(Scope),
}

impl LoadScope {
    pub fn is_part(&self) -> bool {
        matches!(self, Self::Part(_))
    }
}

/// Divides what is to be loaded.
pub(super) async fn plan(
    connection: &mut Conn,
    table: &TableDescription,
    scope: &LoadScope,
) -> Result<SeedPlan, LoadError> {
    let target = PlanTarget { rows: CHUNK_ROWS, bytes: CHUNK_BYTES };
    let (chunks, rows_estimated) = match scope {
        LoadScope::Part(Scope::Keys(keys)) => {
            let keys = keys.iter().map(|key| values(table, key, Extent::Whole)).collect::<Result<Vec<_>, _>>()?;
            (keys.chunks(KEYS_PER_CHUNK).map(|keys| Piece::Keys { keys: keys.to_vec() }).collect(), keys.len() as u64)
        }
        LoadScope::Whole | LoadScope::Part(_) => {
            let within = range_of(connection, table, scope).await?;
            let ranges = plan_chunks(connection, table, &within, target).await?;
            let estimated = if within.is_all() { table.approx_rows } else { ranges.len() as u64 * CHUNK_ROWS };
            (ranges.into_iter().map(Piece::Range).collect(), estimated.min(table.approx_rows))
        }
    };
    Ok(SeedPlan { table: table.table().clone(), rows_estimated, chunks, begun_ms: clock::now_ms() })
}

/// The range of a load that is not of single keys. Both ends of what people ask for are included; a range ends below the
/// next key that there is.
pub(super) async fn range_of(
    connection: &mut Conn,
    table: &TableDescription,
    scope: &LoadScope,
) -> Result<ChunkRange, LoadError> {
    let LoadScope::Part(Scope::Range { from, to }) = scope else { return Ok(ChunkRange::all()) };
    let from = from.as_ref().map(|bound| values(table, bound, Extent::Prefix)).transpose()?;
    let to = match to {
        Some(bound) => key_above(connection, table, &values(table, bound, Extent::Prefix)?).await?,
        None => None,
    };
    Ok(ChunkRange { from, to })
}

/// A bound's values as the key's columns have them.
fn values(table: &TableDescription, bound: &Bound, extent: Extent) -> Result<Vec<KeyValue>, LoadError> {
    let misfit = |error: KeyTextError| LoadError::Bound { table: table.table().clone(), why: error.to_string() };
    key_values(table, &bound.0, extent).map_err(misfit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_reads_back_and_one_of_ranges_has_its_form_of_old() {
        let range = ChunkRange { from: Some(vec![KeyValue::Int(5)]), to: None };
        let keys = Piece::Keys { keys: vec![vec![KeyValue::Int(7), KeyValue::Text("a".into())]] };
        let plan = SeedPlan {
            table: TableId::new("shop", "a"),
            rows_estimated: 9,
            chunks: vec![Piece::Range(range), keys],
            begun_ms: 5,
        };
        let text = serde_json::to_string(&plan).unwrap();
        assert_eq!(serde_json::from_str::<SeedPlan>(&text).unwrap(), plan);
        let old = r#"{"table":"shop.a","rows_estimated":9,"chunks":[{"from":[{"int":5}],"to":null}]}"#;
        assert_eq!(serde_json::from_str::<SeedPlan>(old).unwrap().chunks, plan.chunks[..1]);
    }
}
