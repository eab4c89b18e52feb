//! Repairs, as small objects under `repairs/`: the trace has a row of each, and is filled from here if it was away or lost.
//!
//! `<id>.json` is the repair as it was begun, put before anything is asked for; `<id>.end.json` is how it ended. Both are put if
//! absent, so the first to tell stands.

use std::collections::BTreeMap;
use std::sync::Arc;

use object_store::ObjectStore;
use object_store::path::Path;
use weir_model::{Repair, RepairEnd};

use super::jobs::is_object_name;
use super::objects::{Found, ObjectFolder};
use super::{Put, StateError};
use crate::limits::JOB_NAME_BYTES_MAX;

/// The repairs of one source. Clones share the place.
#[derive(Debug, Clone)]
pub struct RepairStore {
    objects: ObjectFolder,
}

impl RepairStore {
    /// Those under `state`, the folder of one source's state.
    pub fn new(store: Arc<dyn ObjectStore>, state: Path) -> Self {
        Self { objects: ObjectFolder::new(store, state.join("repairs")) }
    }

    /// Says that a repair is begun; durable when it returns.
    pub async fn begin(&self, repair: &Repair) -> Result<Put, StateError> {
        self.objects.put_absent(&begun_name(&repair.id), repair).await
    }

    /// Says how the repair of this id ended.
    pub async fn end(&self, id: &str, end: &RepairEnd) -> Result<Put, StateError> {
        self.objects.put_absent(&end_name(id), end).await
    }

    /// The ids of all repairs, and whether it is known how each ended; reads none of them.
    pub async fn ids(&self) -> Result<BTreeMap<String, bool>, StateError> {
        let mut found: BTreeMap<String, (bool, bool)> = BTreeMap::new();
        for name in self.objects.names().await? {
            let Some((id, kind)) = name.split_once('.') else { continue };
            if !is_object_name(id, JOB_NAME_BYTES_MAX) {
                continue;
            }
            let (is_begun, has_ended) = found.entry(id.to_owned()).or_default();
            match kind {
                "json" => *is_begun = true,
                "end.json" => *has_ended = true,
                _ => {}
            }
        }
        Ok(found.into_iter().filter(|(_, (is_begun, _))| *is_begun).map(|(id, (_, ended))| (id, ended)).collect())
    }

    /// The repair of this id; none if there is none, or nobody can read it.
    pub async fn find(&self, id: &str) -> Result<Option<Repair>, StateError> {
        let begun: Found<Repair> = self.objects.find(&begun_name(id)).await?;
        let Some(begun) = begun.read().filter(|repair| repair.id == id) else { return Ok(None) };
        let end: Option<RepairEnd> = self.objects.find(&end_name(id)).await?.read();
        Ok(Some(match end {
            Some(end) => begun.ended(end),
            None => begun,
        }))
    }

    /// Removes repairs that were begun before `before_ms`, but never the newest `keep`; ids sort by time. Returns how many.
    pub async fn forget_old(&self, keep: usize, before_ms: i64) -> Result<usize, StateError> {
        let mut removed = 0;
        for id in self.ids().await?.into_keys().rev().skip(keep) {
            if self.find(&id).await?.is_some_and(|repair| repair.at_ms < before_ms) {
                // How it began first: without it the rest is nobody's.
                self.objects.remove(&begun_name(&id)).await?;
                self.objects.remove(&end_name(&id)).await?;
                removed += 1;
            }
        }
        Ok(removed)
    }
}

fn begun_name(id: &str) -> String {
    format!("{id}.json")
}

fn end_name(id: &str) -> String {
    format!("{id}.end.json")
}

#[cfg(test)]
mod tests {
    use object_store::memory::InMemory;
    use weir_model::{Found, TableId};

    use super::*;

    fn repair(id: &str, at_ms: i64) -> Repair {
        Repair {
            id: id.into(),
            table: TableId::new("shop", "orders"),
            at_ms,
            by: "command".into(),
            host: "here".into(),
            found: Found { extra_count: 2, ..Found::default() },
            keys: 2,
            anew: None,
            end: None,
        }
    }

    #[tokio::test]
    async fn a_repair_is_there_from_its_beginning_and_the_first_end_stands() {
        let store = RepairStore::new(Arc::new(InMemory::new()), Path::from("_weir/shop"));
        assert!(store.ids().await.unwrap().is_empty());
        assert_eq!(store.begin(&repair("a", 1)).await.unwrap(), Put::Done);
        assert_eq!(store.begin(&repair("a", 1)).await.unwrap(), Put::Done);
        assert_eq!(store.find("a").await.unwrap(), Some(repair("a", 1)));
        let end = RepairEnd { at_ms: 5, left_count: Some(0), ..RepairEnd::default() };
        assert_eq!(store.end("a", &end).await.unwrap(), Put::Done);
        assert_eq!(store.end("a", &RepairEnd { at_ms: 6, ..RepairEnd::default() }).await.unwrap(), Put::Taken);
        // Of one whose beginning is gone nothing is told.
        store.end("b", &end).await.unwrap();
        assert_eq!(store.ids().await.unwrap(), BTreeMap::from([("a".to_owned(), true)]));
        assert_eq!(store.find("a").await.unwrap().and_then(|repair| repair.end), Some(end));
        assert_eq!(store.find("b").await.unwrap(), None);
    }

    #[tokio::test]
    async fn the_newest_and_the_young_are_kept() {
        let store = RepairStore::new(Arc::new(InMemory::new()), Path::from("_weir/shop"));
        for (id, at_ms) in [("a", 1), ("b", 2), ("c", 3), ("d", 4)] {
            store.begin(&repair(id, at_ms)).await.unwrap();
        }
        assert_eq!(store.forget_old(1, 3).await.unwrap(), 2);
        assert_eq!(store.ids().await.unwrap().into_keys().collect::<Vec<_>>(), ["c", "d"]);
    }
}
