//! What a running service has proven by itself: of each table, when which keys were seen to be equal to the source's, and
//! how far its counts add up. Numbered objects under `proofs/`; losing them costs nothing but proving again.

mod ranges;

use std::collections::BTreeMap;
use std::sync::Arc;

use object_store::ObjectStore;
use object_store::path::Path;
use serde::{Deserialize, Serialize};
use weir_model::{TableId, clock};

pub use self::ranges::{Found, KeyRange, ProvenRanges};
use super::StateError;
use super::series::StateSeries;
use crate::limits::STATE_CLEAN_EVERY;

/// What is known of every table of a source.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct Proofs {
    #[serde(default)]
    pub tables: BTreeMap<TableId, TableProof>,
}

/// What is known of one table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct TableProof {
    /// The columns of the record key that the ranges are of.
    #[serde(default)]
    pub key: Vec<String>,
    #[serde(default)]
    pub ranges: ProvenRanges,
    /// Why its rows could not be compared the last time; none if they were.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_compared: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hops: Option<HopsProof>,
}

/// How far the counts of a table's hops add up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HopsProof {
    /// When they last added up, ms since the epoch, with everything in that the source had executed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub balanced_ms: Option<i64>,
    /// Half-events that were missing or too many at the last look.
    #[serde(default)]
    pub unbalanced: u64,
    /// The newest window of event time that had been counted then, ms since the epoch: of a source that is a delayed replica it
    /// lies long before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window_ms: Option<i64>,
}

impl TableProof {
    /// Begins anew if the record key is of other columns than before.
    pub fn expect_key(&mut self, key: &[String]) {
        if self.key != key {
            self.key = key.to_vec();
            self.ranges = ProvenRanges::default();
        }
    }
}

/// The series of one source's proofs.
#[derive(Debug)]
pub struct ProofLog {
    series: StateSeries,
    writes: u32,
}

impl ProofLog {
    /// Those under `state`, the folder of one source's state.
    pub fn new(store: Arc<dyn ObjectStore>, state: Path) -> Self {
        Self { series: StateSeries::new(store, state.join("proofs")), writes: 0 }
    }

    /// The newest; nothing proven if there are none, or what is there cannot be read.
    ///
    /// # Errors
    /// When the store cannot be had.
    pub async fn read(&self) -> Result<Proofs, StateError> {
        let Some((number, bytes)) = self.series.latest().await? else { return Ok(Proofs::default()) };
        Ok(serde_json::from_slice(&bytes).unwrap_or_else(|error| {
            tracing::warn!(object = %self.series.object(number), %error, "what was proven cannot be read, and is proven again");
            Proofs::default()
        }))
    }

    /// Makes `proofs` the newest. Of two services at once the later counts: each says what it has seen itself.
    ///
    /// # Errors
    /// When the store cannot be had.
    pub async fn write(&mut self, proofs: &Proofs) -> Result<(), StateError> {
        let bytes = serde_json::to_vec(proofs).expect("proofs are plain data with text keys");
        self.series.append(bytes.into()).await?;
        self.writes += 1;
        if self.writes.is_multiple_of(STATE_CLEAN_EVERY)
            && let Err(error) = self.series.clean(clock::now_ms()).await
        {
            tracing::warn!(%error, "old proofs could not be removed");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use object_store::ObjectStoreExt;
    use object_store::memory::InMemory;
    use weir_model::RecordKey;

    use super::*;

    #[tokio::test]
    async fn proofs_are_read_as_they_were_written_and_damaged_ones_are_none() {
        let store = Arc::new(InMemory::new());
        let mut log = ProofLog::new(store.clone(), Path::from("_weir/shop"));
        assert_eq!(log.read().await.unwrap(), Proofs::default());
        let mut proof = TableProof { not_compared: Some("it is being loaded".into()), ..TableProof::default() };
        proof.expect_key(&["id".into()]);
        proof.ranges.note_equal(None, Some(&RecordKey::Int(7)), 12);
        proof.hops = Some(HopsProof { balanced_ms: Some(4), unbalanced: 0, window_ms: Some(3) });
        let proofs = Proofs { tables: [(TableId::new("shop", "orders"), proof.clone())].into() };
        log.write(&proofs).await.unwrap();
        assert_eq!(log.read().await.unwrap(), proofs);
        store.put(&log.series.object(2), "{".into()).await.unwrap();
        assert_eq!(log.read().await.unwrap(), Proofs::default());
        proof.expect_key(&["id".into()]);
        assert_eq!(proof, proofs.tables[&TableId::new("shop", "orders")]);
        proof.expect_key(&["code".into()]);
        assert_eq!(proof.ranges, ProvenRanges::default());
    }
}
