//! Small JSON objects in one folder: put if absent, overwritten, read, listed and removed by name.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use futures::TryStreamExt;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutOptions};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{Put, StateError};

/// A folder of objects. Clones share the place.
#[derive(Debug, Clone)]
pub(super) struct ObjectFolder {
    store: Arc<dyn ObjectStore>,
    folder: Path,
    /// Objects that could not be read as what they should be, and have been told of.
    told: Arc<Mutex<BTreeSet<String>>>,
}

/// What lies under a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Found<T> {
    Absent,
    /// Something of another kind: a newer version's, or damage. It must not stand in the way of others.
    Unreadable,
    Read(T),
}

impl<T> Found<T> {
    pub(super) fn read(self) -> Option<T> {
        match self {
            Self::Read(content) => Some(content),
            Self::Absent | Self::Unreadable => None,
        }
    }
}

impl ObjectFolder {
    pub(super) fn new(store: Arc<dyn ObjectStore>, folder: Path) -> Self {
        Self { store, folder, told: Arc::default() }
    }

    /// Puts `content` under `name` unless there is something else already; durable when it returns. Finding these very bytes
    /// there is [`Put::Done`], too: the answer to an earlier attempt may have got lost.
    pub(super) async fn put_absent<T: Serialize>(&self, name: &str, content: &T) -> Result<Put, StateError> {
        let object = self.object(name);
        let bytes = bytes_of(content);
        match self.store.put_opts(&object, bytes.clone().into(), PutOptions::from(PutMode::Create)).await {
            Ok(_) => Ok(Put::Done),
            Err(object_store::Error::AlreadyExists { .. }) => {
                Ok(if self.bytes(name).await? == Some(bytes) { Put::Done } else { Put::Taken })
            }
            Err(source) => Err(self.failed(name, source)),
        }
    }

    /// Puts `content` under `name`, whatever is there.
    pub(super) async fn put<T: Serialize>(&self, name: &str, content: &T) -> Result<(), StateError> {
        let put = self.store.put(&self.object(name), bytes_of(content).into()).await;
        put.map(|_| ()).map_err(|source| self.failed(name, source))
    }

    /// What lies under `name`. That something cannot be read is logged, once.
    pub(super) async fn find<T: DeserializeOwned>(&self, name: &str) -> Result<Found<T>, StateError> {
        let Some(bytes) = self.bytes(name).await? else { return Ok(Found::Absent) };
        match serde_json::from_slice(&bytes) {
            Ok(content) => Ok(Found::Read(content)),
            Err(error) => {
                let object = self.object(name).to_string();
                let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
                if told.insert(name.to_owned()) {
                    // Where it went wrong, not what stands there: keys are row values.
                    let (line, column) = (error.line(), error.column());
                    tracing::warn!(
                        object,
                        line,
                        column,
                        "a state object cannot be read and is passed over; a newer version wrote it, or it is damaged: then remove it"
                    );
                }
                Ok(Found::Unreadable)
            }
        }
    }

    /// The names of the folder's objects, sorted.
    pub(super) async fn names(&self) -> Result<Vec<String>, StateError> {
        let listed: Result<Vec<_>, _> = self.store.list(Some(&self.folder)).try_collect().await;
        let mut names: Vec<String> = match listed {
            Ok(listed) => listed.iter().filter_map(|meta| meta.location.filename().map(str::to_owned)).collect(),
            Err(object_store::Error::NotFound { .. }) => Vec::new(),
            Err(source) => return Err(self.failed("", source)),
        };
        names.sort_unstable();
        Ok(names)
    }

    /// Removes what lies under `name`, if anything does.
    pub(super) async fn remove(&self, name: &str) -> Result<(), StateError> {
        match self.store.delete(&self.object(name)).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(source) => Err(self.failed(name, source)),
        }
    }

    fn object(&self, name: &str) -> Path {
        self.folder.clone().join(name)
    }

    async fn bytes(&self, name: &str) -> Result<Option<Bytes>, StateError> {
        let found = match self.store.get(&self.object(name)).await {
            Ok(result) => result.bytes().await,
            Err(error) => Err(error),
        };
        match found {
            Ok(bytes) => Ok(Some(bytes)),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(source) => Err(self.failed(name, source)),
        }
    }

    fn failed(&self, name: &str, source: object_store::Error) -> StateError {
        StateError::Store { object: self.object(name).to_string(), source }
    }
}

fn bytes_of<T: Serialize>(content: &T) -> Bytes {
    serde_json::to_vec(content).expect("state objects are plain data with text keys").into()
}
