//! Small JSON objects in one folder: put if absent, overwritten, read, listed and removed by name.

use std::sync::Arc;

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
}

impl ObjectFolder {
    pub(super) fn new(store: Arc<dyn ObjectStore>, folder: Path) -> Self {
        Self { store, folder }
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

    /// What lies under `name`; `None` if nothing does.
    ///
    /// # Errors
    /// [`StateError::Damaged`] also if it is of another kind.
    pub(super) async fn read<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>, StateError> {
        let Some(bytes) = self.bytes(name).await? else { return Ok(None) };
        let damaged = |source| StateError::Damaged { object: self.object(name).to_string(), source };
        serde_json::from_slice(&bytes).map(Some).map_err(damaged)
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
