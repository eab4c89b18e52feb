//! Schedules: backfills that are asked for again and again. Those of `weir schedule add` are small objects under
//! `schedules/`, put if absent; those of the configuration lie beside them in memory only. What the service has seen of
//! both is kept in `schedules/looked.json`.
//!
//! [`due`] decides which minutes a schedule runs at; asking for the job is somebody else's.

mod due;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use object_store::ObjectStore;
use object_store::path::Path;
use serde::{Deserialize, Serialize};
use weir_model::schema::escape_name;
use weir_model::{Cron, Minute, TableId};

pub use self::due::{Due, due};
use super::jobs::{Scope, is_object_name};
use super::objects::ObjectFolder;
use super::{Put, StateError};
use crate::limits::SCHEDULE_NAME_BYTES_MAX;

/// The object that is no schedule.
const LOOKED: &str = "looked";
/// Bytes of a table's name that the id of its schedule begins with.
const READABLE_BYTES_MAX: usize = 40;

/// Names a schedule; letters, digits, `_` and `-`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ScheduleId(String);

impl ScheduleId {
    /// One of its own for a schedule of `table`, which it begins with: `shop-orders-5f0c9a1b`.
    pub fn draw(table: &TableId) -> Self {
        let mut name = format!("{}-{}", escape_name(&table.database), escape_name(&table.table));
        name.truncate(READABLE_BYTES_MAX);
        let drawn = uuid::Uuid::new_v4().simple().to_string();
        Self(format!("{name}-{}", &drawn[..8]))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for ScheduleId {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        if is_object_name(&text, SCHEDULE_NAME_BYTES_MAX) && text != LOOKED {
            Ok(Self(text))
        } else {
            Err(format!("`{text}` is no id of a schedule: letters, digits, _ and -"))
        }
    }
}

impl From<ScheduleId> for String {
    fn from(id: ScheduleId) -> Self {
        id.0
    }
}

impl fmt::Display for ScheduleId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A backfill that is asked for at certain minutes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Schedule {
    pub id: ScheduleId,
    pub table: TableId,
    pub cron: Cron,
    pub scope: Scope,
    /// Ms since the epoch; minutes before it are none of its. 0 for those of the configuration, which have no such moment.
    #[serde(default)]
    pub added_ms: i64,
}

/// What the service has seen of the schedules.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Looked {
    /// Minutes up to here have been dealt with; ms since the epoch.
    pub looked_ms: i64,
    #[serde(default)]
    pub schedules: BTreeMap<ScheduleId, Seen>,
}

/// What the service has seen of one schedule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    /// As it was then: one that has changed is another schedule, and nothing of it has been missed yet.
    pub cron: Cron,
    pub since_ms: i64,
    /// Runs since the last that was asked for whose minute passed while no service was there to do so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub missed: Option<Missed>,
}

/// Runs that did not come about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Missed {
    /// At least so many.
    pub count: u64,
    pub last: Minute,
}

/// The schedules of one source that commands added. Clones share the place.
#[derive(Debug, Clone)]
pub struct ScheduleStore {
    objects: ObjectFolder,
}

impl ScheduleStore {
    /// Those under `state`, the folder of one source's state.
    pub fn new(store: Arc<dyn ObjectStore>, state: Path) -> Self {
        Self { objects: ObjectFolder::new(store, state.join("schedules")) }
    }

    /// Adds a schedule; durable when it returns. [`Put::Taken`] if there is another of this id.
    pub async fn add(&self, schedule: &Schedule) -> Result<Put, StateError> {
        self.objects.put_absent(&name_of(&schedule.id), schedule).await
    }

    /// Removes a schedule; says whether there was one.
    pub async fn remove(&self, id: &ScheduleId) -> Result<bool, StateError> {
        let is_there = self.objects.names().await?.contains(&name_of(id));
        self.objects.remove(&name_of(id)).await?;
        Ok(is_there)
    }

    /// Every schedule, in the order of their ids. One that disappears meanwhile has been removed; what cannot be read is
    /// passed over, and told once, so that the others have their runs.
    pub async fn list(&self) -> Result<Vec<Schedule>, StateError> {
        let mut schedules = Vec::new();
        for name in self.objects.names().await? {
            let id = name.strip_suffix(".json").and_then(|id| ScheduleId::try_from(id.to_owned()).ok());
            if let Some(id) = id {
                let found = self.objects.find::<Schedule>(&name).await?.read();
                schedules.extend(found.filter(|schedule| schedule.id == id));
            }
        }
        Ok(schedules)
    }

    /// What a service has seen; `None` before the first.
    pub async fn looked(&self) -> Result<Option<Looked>, StateError> {
        Ok(self.objects.find(&format!("{LOOKED}.json")).await?.read())
    }

    /// For the running service.
    pub async fn note_looked(&self, looked: &Looked) -> Result<(), StateError> {
        self.objects.put(&format!("{LOOKED}.json"), looked).await
    }
}

fn name_of(id: &ScheduleId) -> String {
    format!("{id}.json")
}

#[cfg(test)]
mod tests {
    use object_store::local::LocalFileSystem;
    use object_store::memory::InMemory;
    use object_store::{ObjectStoreExt, PutPayload};

    use super::*;

    fn id(text: &str) -> ScheduleId {
        ScheduleId::try_from(text.to_owned()).unwrap()
    }

    fn schedule(id_: &str) -> Schedule {
        Schedule {
            id: id(id_),
            table: TableId::new("shop", "orders"),
            cron: "0 3 * * *".parse().unwrap(),
            scope: Scope::All,
            added_ms: 1,
        }
    }

    #[tokio::test]
    async fn schedules_are_added_once_listed_and_removed() {
        let folder = tempfile::tempdir().unwrap();
        let local: Arc<dyn ObjectStore> = Arc::new(LocalFileSystem::new_with_prefix(folder.path()).unwrap());
        for store in [local, Arc::new(InMemory::new())] {
            let unreadable = Path::from("_weir/shop/schedules/newer.json");
            store.put(&unreadable, PutPayload::from("{\"id\": \"newer\"}")).await.unwrap();
            let schedules = ScheduleStore::new(store, Path::from("_weir/shop"));
            assert_eq!(schedules.list().await.unwrap(), []);
            assert_eq!(schedules.looked().await.unwrap(), None);
            for name in ["b", "a"] {
                assert_eq!(schedules.add(&schedule(name)).await.unwrap(), Put::Done);
            }
            let other = Schedule { added_ms: 2, ..schedule("a") };
            assert_eq!(schedules.add(&other).await.unwrap(), Put::Taken);
            let seen = Seen {
                cron: "0 3 * * *".parse().unwrap(),
                since_ms: 1,
                missed: Some(Missed { count: 2, last: Minute::of(60_000) }),
            };
            let looked = Looked { looked_ms: 5, schedules: [(id("a"), seen)].into() };
            schedules.note_looked(&looked).await.unwrap();
            assert_eq!(schedules.looked().await.unwrap(), Some(looked));
            assert_eq!(schedules.list().await.unwrap(), [schedule("a"), schedule("b")]);
            assert!(schedules.remove(&id("a")).await.unwrap());
            assert!(!schedules.remove(&id("a")).await.unwrap());
            assert_eq!(schedules.list().await.unwrap(), [schedule("b")]);
            assert!(schedules.remove(&id("newer")).await.unwrap());
        }
    }

    #[test]
    fn ids_are_names_that_objects_can_have() {
        let drawn = ScheduleId::draw(&TableId::new("shop", "größe und mehr, sehr lang und noch viel länger"));
        assert!(drawn.as_str().starts_with("shop-gr_x"), "{drawn}");
        assert_eq!(id(drawn.as_str()), drawn);
        assert_ne!(ScheduleId::draw(&TableId::new("a", "b")), ScheduleId::draw(&TableId::new("a", "b")));
        for wrong in ["", "looked", "a/b", "a.b"] {
            assert!(ScheduleId::try_from(wrong.to_owned()).is_err(), "{wrong}");
        }
    }
}
