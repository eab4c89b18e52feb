//! A folder on local disk as an object store whose writes last: what is acknowledged survives a power cut.
//!
//! `object_store`'s own local store never calls fsync. Reading and listing go to it; writing goes through a temporary
//! file, fsync, and only then the name. Copying is not offered: nobody needs it, and it would not last.

use std::collections::HashSet;
use std::fmt;
use std::io::Write;
use std::path::{Path as FilePath, PathBuf};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use futures::stream::{BoxStream, StreamExt, TryStreamExt};
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMode,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};

use super::whole::WholeUpload;
use crate::failpoint;
use crate::limits::FOLDERS_KNOWN_MAX;
use crate::modes;

/// A folder whose objects are durable once they are put.
#[derive(Debug, Clone)]
pub struct DurableFolder {
    folder: LocalFileSystem,
    known: KnownFolders,
}

/// Folders whose names are known to last. One that is there need not: whoever made it may not have synced its parent yet,
/// in another task or before a power cut. Clones share it.
#[derive(Debug, Clone, Default)]
struct KnownFolders {
    folders: Arc<Mutex<HashSet<PathBuf>>>,
}

impl DurableFolder {
    /// The folder at `root`, which is created if it does not exist.
    pub fn open(root: &FilePath) -> std::io::Result<Self> {
        let known = KnownFolders::default();
        create_root(root)?;
        // As the store will name it; what lies above is not ours to sync.
        known.note(&std::fs::canonicalize(root)?);
        let folder = LocalFileSystem::new_with_prefix(root).map_err(std::io::Error::other)?;
        Ok(Self { folder, known })
    }

    async fn write(&self, location: &Path, payload: PutPayload, place: Place) -> Result<PutResult> {
        let file = self.folder.path_to_filesystem(location)?;
        let known = self.known.clone();
        let written = tokio::task::spawn_blocking(move || write_durably(&file, &payload, place, &known)).await?;
        written.map_err(|source| store_error(location, source))?;
        Ok(PutResult { e_tag: None, version: None })
    }

    fn not_offered(operation: &str) -> Error {
        Error::NotImplemented { operation: operation.into(), implementer: "DurableFolder".into() }
    }
}

impl fmt::Display for DurableFolder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DurableFolder({})", self.folder)
    }
}

#[async_trait]
impl ObjectStore for DurableFolder {
    async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        let place = match options.mode {
            PutMode::Overwrite => Place::Replace,
            PutMode::Create => Place::IfAbsent,
            PutMode::Update(_) => return Err(Self::not_offered("conditional update")),
        };
        self.write(location, payload, place).await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        _options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        Ok(Box::new(WholeUpload::new(self.clone(), location.clone())))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.folder.get_opts(location, options).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.folder.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        in_name_order(self.folder.list(prefix))
    }

    fn list_with_offset(&self, prefix: Option<&Path>, offset: &Path) -> BoxStream<'static, Result<ObjectMeta>> {
        in_name_order(self.folder.list_with_offset(prefix, offset))
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.folder.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, _from: &Path, _to: &Path, _options: CopyOptions) -> Result<()> {
        Err(Self::not_offered("copy"))
    }
}

/// A folder lists in any order; stores on the network list by name, and readers of logs count on it.
fn in_name_order(objects: BoxStream<'static, Result<ObjectMeta>>) -> BoxStream<'static, Result<ObjectMeta>> {
    let sorted = async move {
        let mut objects: Vec<ObjectMeta> = objects.try_collect().await?;
        objects.sort_unstable_by(|a, b| a.location.cmp(&b.location));
        Ok::<_, Error>(futures::stream::iter(objects.into_iter().map(Ok)))
    };
    futures::stream::once(sorted).try_flatten().boxed()
}

#[derive(Clone, Copy)]
enum Place {
    Replace,
    IfAbsent,
}

/// Temporary file, fsync, then its name: a crash leaves either nothing or all of it. The folder is synced last.
fn write_durably(file: &FilePath, payload: &PutPayload, place: Place, known: &KnownFolders) -> std::io::Result<()> {
    let folder = file.parent().ok_or_else(|| std::io::Error::other("an object needs a folder"))?;
    known.create(folder)?;
    pass();
    let mut temporary = tempfile::Builder::new().prefix("._weir_").tempfile_in(folder)?;
    for part in payload {
        pass();
        temporary.write_all(part)?;
    }
    pass();
    failpoint::reach(failpoint::DISK_WRITTEN);
    // Temporary files are private; the lake's readers may be others of the group.
    temporary.as_file().set_permissions(modes::of_files())?;
    temporary.as_file().sync_all()?;
    pass();
    failpoint::reach(failpoint::DISK_SYNCED);
    match place {
        Place::Replace => temporary.persist(file).map_err(|error| error.error)?,
        Place::IfAbsent => temporary.persist_noclobber(file).map_err(|error| error.error)?,
    };
    pass();
    failpoint::reach(failpoint::DISK_NAMED);
    sync_folder(folder)?;
    pass();
    Ok(())
}

/// Comes between any two steps of a write, where a test ends the process.
#[cfg(not(test))]
fn pass() {}

#[cfg(test)]
use super::tests::ending::pass;

/// The root and what is missing above it, whose parents may be anybody's: only those of what is made are synced.
fn create_root(folder: &FilePath) -> std::io::Result<()> {
    if folder.is_dir() {
        return Ok(());
    }
    let parent = parent_of(folder)?;
    create_root(parent)?;
    create_folder(folder)?;
    sync_folder(parent)
}

impl KnownFolders {
    /// Like `create_dir_all`, but the names of the folders last too when it returns.
    fn create(&self, folder: &FilePath) -> std::io::Result<()> {
        if self.lock().contains(folder) && folder.is_dir() {
            return Ok(());
        }
        let parent = parent_of(folder)?;
        self.create(parent)?;
        create_folder(folder)?;
        sync_folder(parent)?;
        self.note(folder);
        Ok(())
    }

    fn note(&self, folder: &FilePath) {
        let mut known = self.lock();
        if known.len() >= FOLDERS_KNOWN_MAX {
            // Those in use are soon known again. Of the root's parents none are ours to sync.
            known.retain(|known| folder.starts_with(known));
        }
        known.insert(folder.to_owned());
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashSet<PathBuf>> {
        self.folders.lock().expect("no code panics while holding it")
    }
}

fn parent_of(folder: &FilePath) -> std::io::Result<&FilePath> {
    folder.parent().ok_or_else(|| std::io::Error::other("a folder needs a parent"))
}

fn create_folder(folder: &FilePath) -> std::io::Result<()> {
    match modes::create_folder(folder) {
        Err(_) if folder.is_dir() => Ok(()),
        made => made,
    }
}

fn sync_folder(folder: &FilePath) -> std::io::Result<()> {
    std::fs::File::open(folder)?.sync_all()
}

fn store_error(location: &Path, source: std::io::Error) -> Error {
    let path = location.to_string();
    match source.kind() {
        std::io::ErrorKind::AlreadyExists => Error::AlreadyExists { path, source: source.into() },
        std::io::ErrorKind::PermissionDenied => Error::PermissionDenied { path, source: source.into() },
        _ => Error::Generic { store: "local disk", source: format!("{path}: {source}").into() },
    }
}

#[cfg(test)]
mod tests {
    use object_store::ObjectStoreExt;

    use super::*;

    async fn create(store: &DurableFolder, path: &Path, text: &'static str) -> Result<PutResult> {
        store.put_opts(path, text.into(), PutMode::Create.into()).await
    }

    async fn read(store: &DurableFolder, path: &Path) -> bytes::Bytes {
        store.get(path).await.unwrap().bytes().await.unwrap()
    }

    #[tokio::test]
    async fn a_name_that_is_taken_keeps_its_object() {
        let folder = tempfile::tempdir().unwrap();
        let store = DurableFolder::open(&folder.path().join("a/b")).unwrap();
        let path = Path::from("log/1");
        create(&store, &path, "first").await.unwrap();
        assert!(matches!(create(&store, &path, "second").await, Err(Error::AlreadyExists { .. })));
        assert_eq!(read(&store, &path).await, "first");
        store.put(&path, "third".into()).await.unwrap();
        assert_eq!(read(&store, &path).await, "third");
    }

    #[tokio::test]
    async fn parts_become_one_object_only_when_complete() {
        let folder = tempfile::tempdir().unwrap();
        let store = DurableFolder::open(folder.path()).unwrap();
        let path = Path::from("parts");
        let mut upload = store.put_multipart(&path).await.unwrap();
        upload.put_part("one ".into()).await.unwrap();
        upload.put_part("two".into()).await.unwrap();
        assert!(store.head(&path).await.is_err());
        upload.complete().await.unwrap();
        assert_eq!(read(&store, &path).await, "one two");
    }

    #[tokio::test]
    async fn objects_are_listed_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let store = DurableFolder::open(folder.path()).unwrap();
        for n in [3, 1, 2] {
            store.put(&Path::from(format!("log/{n}")), "x".into()).await.unwrap();
        }
        let names: Vec<String> =
            store.list(None).map_ok(|object| object.location.to_string()).try_collect().await.unwrap();
        assert_eq!(names, ["log/1", "log/2", "log/3"]);
    }

    #[tokio::test]
    async fn a_folder_is_known_to_last_once_its_parent_is_synced_and_made_again_if_it_goes() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("lake");
        std::os::unix::fs::symlink(folder.path(), &root).unwrap();
        let store = DurableFolder::open(&root).unwrap();
        // Somebody else has made it, and may not have synced its parent.
        let inner = folder.path().canonicalize().unwrap().join("t").join("day=2026-11-21");
        std::fs::create_dir_all(&inner).unwrap();
        assert_eq!(store.known.lock().len(), 1);
        let path = Path::from("t/day=2026-11-21/part.parquet");
        store.put(&path, "one".into()).await.unwrap();
        assert!(store.known.lock().contains(&inner));
        assert_eq!(store.known.lock().len(), 3, "the root's own parents are left alone");
        std::fs::remove_dir_all(folder.path().join("t")).unwrap();
        store.put(&path, "two".into()).await.unwrap();
        assert_eq!(read(&store, &path).await, "two");
    }

    #[test]
    fn folders_known_are_bounded() {
        let known = KnownFolders::default();
        known.note(FilePath::new("/lake"));
        for n in 0..=FOLDERS_KNOWN_MAX {
            known.note(&FilePath::new("/lake").join(n.to_string()));
        }
        assert!(known.lock().len() <= FOLDERS_KNOWN_MAX && known.lock().contains(FilePath::new("/lake")));
    }

    #[test]
    fn a_folder_that_cannot_be_made_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("file"), "x").unwrap();
        assert!(DurableFolder::open(&folder.path().join("file/sub")).is_err());
    }
}
