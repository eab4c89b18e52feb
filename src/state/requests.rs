//! What those who write tables ask of the one who captures: small objects under `requests/`, put if absent.
//!
//! They may be in other processes, on other machines; all that both share is the warehouse. An object is put before the
//! commit that depends on it, so that whoever sees the commit finds the object.

use std::sync::Arc;

use futures::TryStreamExt;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutOptions};
use serde::{Deserialize, Serialize};
use weir_model::TableId;
use weir_model::schema::escape_name;

use super::StateError;

/// Something asked of capture.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "snake_case")]
pub enum AppealKind {
    /// A bucket cannot take in its share of a chunk: it may have forgotten deletes, or the file is gone. Read it again.
    ChunkRefused { chunk: u64, bucket: u32 },
    /// The table cannot go on; its changes need not be sent any more until it is loaded anew. `publish` is the newest
    /// that it has seen: a load that began behind it has made up for the stop. With `other_key` it is only that rows have
    /// another record key than the table, which a load from the beginning mends.
    Stopped {
        error: String,
        publish: u64,
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        other_key: bool,
    },
}

/// A request, of one table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Appeal {
    pub table: TableId,
    #[serde(flatten)]
    pub kind: AppealKind,
}

impl Appeal {
    /// The same request has the same name, so that asking again changes nothing.
    fn name(&self) -> String {
        let table = escape_name(&self.table.to_string());
        match &self.kind {
            AppealKind::ChunkRefused { chunk, bucket } => format!("refused-{table}-{chunk:016x}-{bucket}.json"),
            AppealKind::Stopped { .. } => format!("stopped-{table}.json"),
        }
    }
}

/// The requests of one source. Clones share the place.
#[derive(Debug, Clone)]
pub struct Appeals {
    store: Arc<dyn ObjectStore>,
    folder: Path,
}

impl Appeals {
    /// Those under `state`, the folder of one source's state.
    pub fn new(store: Arc<dyn ObjectStore>, state: Path) -> Self {
        Self { store, folder: state.join("requests") }
    }

    /// Asks; durable when it returns.
    pub async fn put(&self, appeal: &Appeal) -> Result<(), StateError> {
        let object = self.folder.clone().join(appeal.name());
        let bytes = serde_json::to_vec(appeal).expect("a request is plain data");
        match self.store.put_opts(&object, bytes.into(), PutOptions::from(PutMode::Create)).await {
            Ok(_) | Err(object_store::Error::AlreadyExists { .. }) => Ok(()),
            Err(source) => Err(StateError::Store { object: object.to_string(), source }),
        }
    }

    /// Every request there is. One that disappears meanwhile has been dealt with; what is not ours is passed over.
    pub async fn list(&self) -> Result<Vec<Appeal>, StateError> {
        let failed = |source| StateError::Store { object: self.folder.to_string(), source };
        let listed: Result<Vec<_>, _> = self.store.list(Some(&self.folder)).try_collect().await;
        let listed = match listed {
            Ok(listed) => listed,
            Err(object_store::Error::NotFound { .. }) => return Ok(Vec::new()),
            Err(source) => return Err(failed(source)),
        };
        let mut appeals = Vec::new();
        for meta in listed {
            let read = match self.store.get(&meta.location).await {
                Ok(found) => found.bytes().await,
                Err(error) => Err(error),
            };
            match read {
                Ok(bytes) => appeals.extend(serde_json::from_slice::<Appeal>(&bytes).ok()),
                Err(object_store::Error::NotFound { .. }) => {}
                Err(source) => return Err(failed(source)),
            }
        }
        Ok(appeals)
    }

    /// It has been dealt with.
    pub async fn settle(&self, appeal: &Appeal) -> Result<(), StateError> {
        let object = self.folder.clone().join(appeal.name());
        match self.store.delete(&object).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(source) => Err(StateError::Store { object: object.to_string(), source }),
        }
    }
}

#[cfg(test)]
mod tests {
    use object_store::memory::InMemory;

    use super::*;

    #[tokio::test]
    async fn a_request_stands_until_it_is_settled_and_asking_twice_is_asking_once() {
        let appeals = Appeals::new(Arc::new(InMemory::new()), Path::from("_weir/shop"));
        let table = TableId::new("shop", "or/ders");
        let refused = Appeal { table: table.clone(), kind: AppealKind::ChunkRefused { chunk: 7, bucket: 2 } };
        let stopped = Appeal { table, kind: AppealKind::Stopped { error: "no".into(), publish: 3, other_key: false } };
        assert_eq!(appeals.list().await.unwrap(), []);
        for appeal in [&refused, &refused, &stopped] {
            appeals.put(appeal).await.unwrap();
        }
        assert_eq!(appeals.list().await.unwrap(), [refused.clone(), stopped.clone()]);
        appeals.settle(&refused).await.unwrap();
        appeals.settle(&refused).await.unwrap();
        assert_eq!(appeals.list().await.unwrap(), [stopped]);
    }
}
