//! Where tables lie: the warehouse's object store, what it must hold to, and the names of folders in it.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use futures::TryStreamExt;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutPayload};
use url::Url;
use uuid::Uuid;
use weir_model::TableId;
use weir_model::schema::{escape_name, unescape_name};

use super::TableError;
use super::durable::DurableFolder;
use super::log::commit_name;
use super::s3::{Patience, S3Folder};
use super::s3_options::S3Options;

/// The root of all tables.
#[derive(Debug, Clone)]
pub struct Warehouse {
    store: Arc<dyn ObjectStore>,
    url: Url,
}

/// Our own state, beside the databases.
const STATE_FOLDER: &str = "_weir";
/// The folder of a database that has its name.
const STATE_FOLDER_ESCAPED: &str = "_x5fweir";

/// What is said of a store that overwrites where it must refuse.
const NOT_CONDITIONAL: &str = "this store does not honour If-None-Match: two services could overwrite each other's \
                               commits. Use one that does, such as S3, MinIO or R2";

/// An object in a folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Object {
    pub name: String,
    /// When it was written, by the store's clock, in milliseconds since the epoch.
    pub modified_ms: i64,
}

/// What became of a put-if-absent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Put {
    Done,
    Taken,
}

impl Warehouse {
    /// The warehouse at `url`, created if it is a local folder that does not exist. A server that is away is given up soon.
    ///
    /// # Errors
    /// When the url or an option is not understood, or the folder cannot be made. Servers are asked nothing yet.
    pub fn open(url: &str, options: &BTreeMap<String, String>) -> Result<Self, TableError> {
        Self::open_with(url, options, Patience::Command)
    }

    /// The warehouse at `url` for a service: it can be written, commits in it are safe from others, and from here on a
    /// server that is away for a moment is waited for.
    ///
    /// # Errors
    /// Also those of [`Self::probe_writable`].
    pub async fn open_to_write(url: &str, options: &BTreeMap<String, String>) -> Result<Self, TableError> {
        Self::open(url, options)?.probe_writable().await?;
        Self::open_with(url, options, Patience::Service)
    }

    fn open_with(url: &str, options: &BTreeMap<String, String>, patience: Patience) -> Result<Self, TableError> {
        let refused = |what: String| TableError::Configuration { url: shown(url), what };
        let parsed = Url::parse(url).map_err(|error| refused(error.to_string()))?;
        match parsed.scheme() {
            "file" => {
                if let Some(name) = options.keys().next() {
                    return Err(refused(format!("a local folder takes no options, but `{name}` is set")));
                }
                let folder = parsed.to_file_path().map_err(|()| refused("not an absolute path".into()))?;
                let store =
                    DurableFolder::open(&folder).map_err(|error| TableError::warehouse(url, error.to_string()))?;
                Ok(Self { store: Arc::new(store), url: parsed })
            }
            "s3" => {
                let options = S3Options::read(options, std::env::vars()).map_err(&refused)?;
                let store = S3Folder::open(&parsed, &options, patience).map_err(&refused)?;
                Ok(Self { store: Arc::new(store), url: parsed })
            }
            scheme => Err(refused(format!("only file:// and s3:// urls are served, not {scheme}://"))),
        }
    }

    /// The same place, reached through what `wrap` makes of its store. For tests that meddle with requests.
    #[doc(hidden)]
    #[must_use]
    pub fn through(&self, wrap: impl FnOnce(Arc<dyn ObjectStore>) -> Arc<dyn ObjectStore>) -> Self {
        Self { store: wrap(self.store.clone()), url: self.url.clone() }
    }

    /// A warehouse in any store, for tests that inject faults.
    #[cfg(test)]
    pub(crate) fn in_store(store: Arc<dyn ObjectStore>) -> Self {
        Self { store, url: Url::parse("memory:///").expect("a constant") }
    }

    /// What is put here is durable when the put returns.
    pub fn store(&self) -> &Arc<dyn ObjectStore> {
        &self.store
    }

    pub fn url(&self) -> &Url {
        &self.url
    }

    /// Writes and removes a small object, and proves meanwhile that a put-if-absent is refused where something is: a
    /// store that takes it all the same would let two services overwrite each other's commits.
    pub async fn probe_writable(&self) -> Result<(), TableError> {
        let path = Path::from(format!("{STATE_FOLDER}/probe-{}", Uuid::new_v4()));
        let proven = self.prove_put_if_absent(&path).await;
        let removed = if proven.is_ok() { self.store.delete(&path).await.map_err(TableError::from) } else { Ok(()) };
        match proven.and(removed) {
            Err(TableError::Store(source)) => Err(TableError::Unreachable { url: self.url.to_string(), source }),
            proven => proven,
        }
    }

    async fn prove_put_if_absent(&self, path: &Path) -> Result<(), TableError> {
        // Of names that nobody else has, so that a first answer that got lost and then says "taken" means ours.
        let (ours, other) = (Bytes::from(Uuid::new_v4().to_string()), Bytes::from_static(b"another writer's"));
        self.put_if_absent(path, ours.clone()).await?;
        let second = self.put_if_absent(path, other).await?;
        if second == Put::Done || self.get(path).await? != ours {
            let _ = self.store.delete(path).await;
            return Err(TableError::warehouse(self.url.as_str(), NOT_CONDITIONAL.into()));
        }
        Ok(())
    }

    /// The folder of a table: `<database>/<table>`, escaped. A database named as our state's folder is escaped once more.
    pub fn table_path(&self, table: &TableId) -> Path {
        let database = match &*table.database {
            STATE_FOLDER => STATE_FOLDER_ESCAPED.to_owned(),
            name => escape_name(name),
        };
        Path::from(format!("{database}/{}", escape_name(&table.table)))
    }

    /// The folder of our own state for a source: `_weir/<source>`.
    pub fn state_path(&self, source: &str) -> Path {
        Path::from(format!("{STATE_FOLDER}/{}", escape_name(source)))
    }

    /// Every table in the warehouse, whoever wrote it.
    pub async fn list_tables(&self) -> Result<Vec<TableId>, TableError> {
        let mut tables = Vec::new();
        for database in self.store.list_with_delimiter(None).await?.common_prefixes {
            let Some(database_name) = database.filename().and_then(unescape) else { continue };
            for table in self.store.list_with_delimiter(Some(&database)).await?.common_prefixes {
                let Some(table_name) = table.filename().and_then(unescape) else { continue };
                let log = table.clone().join("_delta_log");
                // The first commit may have been cleaned away once a checkpoint stands for it.
                if self.exists(&log.clone().join(commit_name(0))).await?
                    || self.exists(&log.join("_last_checkpoint")).await?
                {
                    tables.push(TableId::new(&database_name, &table_name));
                }
            }
        }
        tables.sort();
        Ok(tables)
    }

    pub(super) async fn exists(&self, path: &Path) -> Result<bool, TableError> {
        Ok(self.written_ms(path).await?.is_some())
    }

    /// When an object was written, by the store's clock, in milliseconds since the epoch; `None` if it is not there.
    pub(super) async fn written_ms(&self, path: &Path) -> Result<Option<i64>, TableError> {
        match self.store.head(path).await {
            Ok(object) => Ok(Some(object.last_modified.timestamp_millis())),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// The objects directly in `folder`.
    pub async fn list(&self, folder: &Path) -> Result<Vec<Object>, TableError> {
        let objects: Vec<_> = self.store.list(Some(folder)).try_collect().await?;
        let direct = objects.into_iter().filter(|o| o.location.prefix_matches(folder));
        Ok(direct
            .filter_map(|object| {
                let mut rest = object.location.prefix_match(folder)?;
                let name = rest.next()?.as_ref().to_owned();
                let modified_ms = object.last_modified.timestamp_millis();
                rest.next().is_none().then_some(Object { name, modified_ms })
            })
            .collect())
    }

    /// Removes an object; one that is not there is as good.
    pub async fn delete(&self, path: &Path) -> Result<(), TableError> {
        match self.store.delete(path).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    pub async fn get(&self, path: &Path) -> Result<Bytes, TableError> {
        Ok(self.store.get(path).await?.bytes().await?)
    }

    /// Writes an object that nothing names yet; durable when it returns.
    pub async fn put(&self, path: &Path, bytes: Bytes) -> Result<(), TableError> {
        self.store.put(path, PutPayload::from(bytes)).await?;
        Ok(())
    }

    /// Writes an object only if none has its name; durable before it is visible.
    pub async fn put_if_absent(&self, path: &Path, bytes: Bytes) -> Result<Put, TableError> {
        match self.store.put_opts(path, PutPayload::from(bytes), PutMode::Create.into()).await {
            Ok(_) => Ok(Put::Done),
            Err(object_store::Error::AlreadyExists { .. }) => Ok(Put::Taken),
            Err(error) => Err(error.into()),
        }
    }
}

/// A url as messages show it: without user, password and query, should somebody have put keys there.
fn shown(url: &str) -> String {
    match Url::parse(url) {
        Ok(parsed) => format!("{}://{}{}", parsed.scheme(), parsed.host_str().unwrap_or_default(), parsed.path()),
        Err(_) => "(not a url)".to_owned(),
    }
}

/// The name that was escaped; `None` for a folder that is not one of ours, `_weir` in particular.
fn unescape(folder: &str) -> Option<String> {
    match folder {
        STATE_FOLDER => None,
        STATE_FOLDER_ESCAPED => Some(STATE_FOLDER.to_owned()),
        folder => unescape_name(folder),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_are_escaped_bytewise() {
        assert_eq!(escape_name("orders-2"), "orders-2");
        assert_eq!(escape_name("a b"), "a_x20b");
        assert_eq!(escape_name("é"), "_xc3_xa9");
        assert_eq!(escape_name("a_x20"), "a_x5fx20");
    }

    #[test]
    fn a_database_named_as_our_folder_lies_beside_it() {
        let warehouse = Warehouse::in_store(Arc::new(object_store::memory::InMemory::new()));
        let path = warehouse.table_path(&TableId::new("_weir", "t"));
        assert_eq!(path.as_ref(), "_x5fweir/t");
        assert_eq!(unescape("_x5fweir").as_deref(), Some("_weir"));
    }

    #[test]
    fn a_url_that_is_not_served_and_options_that_are_not_known_are_wrong_configuration() {
        let none = BTreeMap::new();
        let unknown = [("regoin".to_owned(), "hush".to_owned())].into();
        for (url, options) in [("hdfs://lake/x", &none), ("lake", &none), ("s3:///x", &none), ("s3://lake/x", &unknown)]
        {
            let error = Warehouse::open(url, options).unwrap_err();
            assert!(
                matches!(error, TableError::Configuration { .. }) && !error.to_string().contains("hush"),
                "{error}"
            );
        }
    }

    #[test]
    fn keys_in_a_url_are_not_shown() {
        assert_eq!(shown("s3://key:secret@lake/x?token=y"), "s3://lake/x");
    }

    proptest! {
        #[test]
        fn escaping_is_undone(name in "[ -~éß日]{1,12}") {
            prop_assume!(name != STATE_FOLDER);
            let folder = escape_name(&name);
            prop_assert!(folder.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-'));
            prop_assert_eq!(unescape(&folder), Some(name));
        }
    }
}
