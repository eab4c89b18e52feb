//! Rows of XA transactions that are prepared, durable until their outcome has come: objects under `prepared/`.
//!
//! A transaction's rows are in parts, whose bytes are capture's business. It is *held* once its head is there, which is put
//! behind the parts that it names. Its end is noted before a position passes that, so that whoever goes on from the position
//! knows that the rows are not needed any more.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStore, ObjectStoreExt, PutMode, PutOptions};
use serde::{Deserialize, Serialize};
use weir_model::{Gtid, GtidSet, TableId, Xid};

use super::objects::{Found, ObjectFolder};
use super::{Put, StateError};
use crate::failpoint;
use crate::limits::{PREPARED_PUT_TOGETHER, STATE_KEPT};

/// The layout of heads and parts.
const FORMAT: u32 = 1;

/// The prepared transactions of one source. Clones share the place.
#[derive(Debug, Clone)]
pub struct PreparedStore {
    store: Arc<dyn ObjectStore>,
    folder: Path,
    objects: ObjectFolder,
    /// Transactions whose end has been noted, each with the transaction that it came with.
    ended: Arc<Mutex<BTreeMap<Gtid, Gtid>>>,
    /// What an earlier beginning held has been removed.
    former_is_gone: Arc<AtomicBool>,
}

/// A transaction that is held.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PreparedHead {
    format: u32,
    /// That of XA PREPARE.
    pub gtid: Gtid,
    pub xid: Xid,
    /// When it was prepared, in ms since the epoch, by the source's clock.
    pub prepared_ms: i64,
    /// In order.
    pub parts: Vec<PreparedPart>,
    /// Tables of which it changed rows that were not kept, since they were not captured.
    #[serde(default)]
    pub passed_over: BTreeSet<TableId>,
}

/// A part of its rows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PreparedPart {
    name: String,
    pub bytes: u64,
    /// CRC32 of the bytes.
    crc: u32,
}

impl PreparedHead {
    pub fn new(gtid: Gtid, xid: Xid, prepared_ms: i64) -> Self {
        Self { format: FORMAT, gtid, xid, prepared_ms, parts: Vec::new(), passed_over: BTreeSet::new() }
    }
}

/// Up to where branches are unknown whose rows nobody has or needs.
#[derive(Debug, Serialize, Deserialize)]
struct Beginning {
    behind: GtidSet,
    /// Where the stream began.
    #[serde(default)]
    from: GtidSet,
    /// Epoch of the incarnation that began it. A position of another beginning is of before: this one has not become durable.
    #[serde(default)]
    begun: u64,
}

impl PreparedStore {
    /// Those under `state`, the folder of one source's state.
    pub fn new(store: Arc<dyn ObjectStore>, state: Path) -> Self {
        let folder = state.join("prepared");
        let objects = ObjectFolder::new(store.clone(), folder.clone());
        Self { store, folder, objects, ended: Arc::default(), former_is_gone: Arc::default() }
    }

    /// Puts a part of a transaction; durable when it returns. Two who read the same transaction cut it otherwise, so each part
    /// has a name of its own.
    pub async fn put_part(&self, gtid: &Gtid, bytes: Bytes) -> Result<PreparedPart, StateError> {
        let name = format!("{}.{}{ROWS}", file_name(gtid), uuid::Uuid::new_v4().simple());
        let part = PreparedPart { bytes: bytes.len() as u64, crc: crc32fast::hash(&bytes), name };
        let object = self.folder.clone().join(&*part.name);
        failpoint::reach(failpoint::PREPARED_PART_BEFORE);
        let put = self.store.put_opts(&object, bytes.into(), PutOptions::from(PutMode::Create)).await;
        failpoint::reach(failpoint::PREPARED_PART_AFTER);
        match put {
            Ok(_) => Ok(part),
            // The answer to the client's first attempt got lost.
            Err(object_store::Error::AlreadyExists { .. }) => self.read_part(&part).await.map(|_| part),
            Err(source) => Err(StateError::Store { object: object.to_string(), source }),
        }
    }

    /// The bytes of a part, as they were put.
    ///
    /// # Errors
    /// Also [`StateError::Lost`] if they are gone or others.
    pub async fn read_part(&self, part: &PreparedPart) -> Result<Bytes, StateError> {
        let object = self.folder.clone().join(&*part.name);
        let found = match self.store.get(&object).await {
            Ok(result) => result.bytes().await,
            Err(error) => Err(error),
        };
        match found {
            Ok(bytes) if bytes.len() as u64 == part.bytes && crc32fast::hash(&bytes) == part.crc => Ok(bytes),
            Ok(_) | Err(object_store::Error::NotFound { .. }) => Err(StateError::Lost { object: object.to_string() }),
            Err(source) => Err(StateError::Store { object: object.to_string(), source }),
        }
    }

    /// Names the parts of a transaction: from here on it is held. If it is already, by another reading of the log, the head
    /// that stands is returned, whose parts are those that stay.
    pub async fn hold(&self, head: PreparedHead) -> Result<PreparedHead, StateError> {
        let name = head_name(&head.gtid);
        failpoint::reach(failpoint::PREPARED_HEAD_BEFORE);
        let put = self.objects.put_absent(&name, &head).await?;
        failpoint::reach(failpoint::PREPARED_HEAD_AFTER);
        match put {
            Put::Done => Ok(head),
            Put::Taken => self.read_head(&name).await?.ok_or_else(|| self.lost(&name)),
        }
    }

    /// The outcome of `prepared` has come with transaction `by`.
    pub async fn note_end(&self, prepared: &Gtid, by: &Gtid) -> Result<(), StateError> {
        failpoint::reach(failpoint::PREPARED_END_BEFORE);
        self.objects.put(&end_name(prepared), by).await?;
        failpoint::reach(failpoint::PREPARED_END_AFTER);
        self.lock().insert(prepared.clone(), by.clone());
        Ok(())
    }

    /// The transactions that are held at `position` of the history that was `begun` so; what it has passed the end of is removed.
    ///
    /// # Errors
    /// Also [`StateError::Lost`] if a head cannot be read: without it the rows would be lost.
    pub async fn open(&self, position: &GtidSet, begun: u64) -> Result<Vec<PreparedHead>, StateError> {
        let mut held = Vec::new();
        let from = self.beginning(begun).await?.map(|beginning| beginning.from).unwrap_or_default();
        let listed = self.list().await?;
        let names: BTreeSet<&str> = listed.iter().filter_map(|meta| meta.location.filename()).collect();
        for name in names.iter().filter(|name| name.ends_with(HEAD)) {
            let Some(head) = self.read_head(name).await? else { continue };
            let ended_by = self.objects.find::<Gtid>(&end_name(&head.gtid)).await?.read();
            if let Some(by) = ended_by.filter(|by| position.contains(by)) {
                self.lock().insert(head.gtid, by);
            } else if position.contains(&head.gtid) && !from.contains(&head.gtid) {
                held.push(head);
            }
        }
        self.forget_ended(position).await?;
        Ok(held)
    }

    /// Transactions that are held and that `position` has not passed: the source sends them again.
    pub async fn held_beyond(&self, position: &GtidSet) -> Result<BTreeSet<Gtid>, StateError> {
        let held = self.list_held().await?.into_iter().map(|head| head.gtid);
        Ok(held.filter(|gtid| !position.contains(gtid)).collect())
    }

    /// Every transaction that has a head and no end, for people.
    pub async fn list_held(&self) -> Result<Vec<PreparedHead>, StateError> {
        let names = self.objects.names().await?;
        let mut held = Vec::new();
        for name in names.iter().filter(|name| name.ends_with(HEAD)) {
            let Some(head) = self.objects.find::<PreparedHead>(name).await?.read() else { continue };
            if names.binary_search(&end_name(&head.gtid)).is_err() {
                held.push(head);
            }
        }
        Ok(held)
    }

    /// Removes the transactions whose end lies within `position`, which must be durable.
    pub async fn forget_ended(&self, position: &GtidSet) -> Result<(), StateError> {
        let gone: Vec<Gtid> = {
            let ended = self.lock();
            ended.iter().filter(|(_, by)| position.contains(by)).map(|(gtid, _)| gtid.clone()).collect()
        };
        if gone.is_empty() {
            return Ok(());
        }
        let listed = self.list().await?;
        let listed = &listed;
        stream::iter(gone)
            .map(Ok)
            .try_for_each_concurrent(PREPARED_PUT_TOGETHER, |gtid| async move {
                self.remove(&gtid, listed).await?;
                self.lock().remove(&gtid);
                Ok(())
            })
            .await
    }

    /// The source is mirrored anew by the incarnation `begun`, from `from` on: remembers up to where the outcomes of branches that are not known mean
    /// nothing, because no load begins before that. What is held from before goes only with [`Self::forget_ended`], once a
    /// position of the new beginning is durable: until then a kill may make the old one go on, which needs it.
    pub async fn begin_anew(&self, begun: u64, behind: &GtidSet, from: &GtidSet) -> Result<(), StateError> {
        self.objects.put(BEGINNING, &Beginning { behind: behind.clone(), from: from.clone(), begun }).await
    }

    /// What [`Self::begin_anew`] said of the history that was `begun` so; nothing if it is of another.
    pub async fn begins_behind(&self, begun: u64) -> Result<GtidSet, StateError> {
        Ok(self.beginning(begun).await?.map(|beginning| beginning.behind).unwrap_or_default())
    }

    async fn beginning(&self, begun: u64) -> Result<Option<Beginning>, StateError> {
        let beginning = self.objects.find::<Beginning>(BEGINNING).await?.read();
        Ok(beginning.filter(|beginning| beginning.begun == begun))
    }

    /// Removes, once, what is held from before the history that was `begun` so, a position of which must be durable.
    pub async fn forget_former(&self, begun: u64) -> Result<(), StateError> {
        if self.former_is_gone.load(Ordering::Relaxed) {
            return Ok(());
        }
        if let Some(Beginning { from, .. }) = self.beginning(begun).await? {
            let listed = self.list().await?;
            for head in self.list_held().await?.into_iter().filter(|head| from.contains(&head.gtid)) {
                self.remove(&head.gtid, &listed).await?;
            }
        }
        self.former_is_gone.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// Removes parts that no head came to name; young ones may be another process's that is at it.
    pub async fn clean(&self, now_ms: i64) -> Result<(), StateError> {
        let listed = self.list().await?;
        let heads: BTreeSet<&str> =
            listed.iter().filter_map(|meta| meta.location.filename()?.strip_suffix(HEAD)).collect();
        let kept_ms = i64::try_from(STATE_KEPT.as_millis()).unwrap_or(i64::MAX);
        for meta in &listed {
            let Some(name) = meta.location.filename() else { continue };
            let of = name.split('.').next().unwrap_or_default();
            let is_old = now_ms.saturating_sub(meta.last_modified.timestamp_millis()) > kept_ms;
            if (name.ends_with(ROWS) || name.ends_with(END)) && !heads.contains(of) && is_old {
                self.objects.remove(name).await?;
            }
        }
        Ok(())
    }

    /// None if it has just been removed.
    async fn read_head(&self, name: &str) -> Result<Option<PreparedHead>, StateError> {
        match self.objects.find::<PreparedHead>(name).await? {
            Found::Read(head) if head.format == FORMAT => Ok(Some(head)),
            Found::Absent => Ok(None),
            Found::Read(_) | Found::Unreadable => Err(self.lost(name)),
        }
    }

    fn lost(&self, name: &str) -> StateError {
        StateError::Lost { object: self.folder.clone().join(name).to_string() }
    }

    /// In this order: what is left after a kill is still known to have ended.
    async fn remove(&self, gtid: &Gtid, listed: &[ObjectMeta]) -> Result<(), StateError> {
        let of = format!("{}.", file_name(gtid));
        let names = listed.iter().filter_map(|meta| meta.location.filename());
        for name in names.filter(|name| name.starts_with(&of) && name.ends_with(ROWS)) {
            self.objects.remove(name).await?;
        }
        failpoint::reach(failpoint::PREPARED_REMOVE);
        self.objects.remove(&head_name(gtid)).await?;
        self.objects.remove(&end_name(gtid)).await
    }

    async fn list(&self) -> Result<Vec<ObjectMeta>, StateError> {
        let listed: Result<Vec<ObjectMeta>, _> = self.store.list(Some(&self.folder)).try_collect().await;
        match listed {
            Ok(listed) => Ok(listed),
            Err(object_store::Error::NotFound { .. }) => Ok(Vec::new()),
            Err(source) => Err(StateError::Store { object: self.folder.to_string(), source }),
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<Gtid, Gtid>> {
        self.ended.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

const HEAD: &str = ".head.json";
const END: &str = ".end.json";
const ROWS: &str = ".rows";
const BEGINNING: &str = "beginning.json";

/// A GTID as a part of a file's name: tags have letters, digits and underscores only.
fn file_name(gtid: &Gtid) -> String {
    gtid.to_string().replace(':', "+")
}

fn head_name(gtid: &Gtid) -> String {
    format!("{}{HEAD}", file_name(gtid))
}

fn end_name(gtid: &Gtid) -> String {
    format!("{}{END}", file_name(gtid))
}

#[cfg(test)]
mod tests {
    use object_store::memory::InMemory;

    use super::*;

    const UUID: &str = "3e11fa47-71ca-11e1-9e33-c80aa9429562";

    fn gtid(gno: u64) -> Gtid {
        Gtid::new(UUID, "", gno)
    }

    fn to(gno: u64) -> GtidSet {
        format!("{UUID}:1-{gno}").parse().unwrap()
    }

    fn store_in(store: &Arc<InMemory>) -> PreparedStore {
        PreparedStore::new(store.clone(), Path::from("_weir/shop"))
    }

    async fn hold(store: &PreparedStore, gno: u64, rows: &'static [u8]) -> PreparedHead {
        let part = store.put_part(&gtid(gno), Bytes::from_static(rows)).await.unwrap();
        let xid = Xid { format: 1, gtrid: vec![gno as u8], bqual: Vec::new() };
        let head = PreparedHead { parts: vec![part], ..PreparedHead::new(gtid(gno), xid, 5) };
        store.hold(head).await.unwrap()
    }

    #[tokio::test]
    async fn what_is_held_outlives_the_process_until_a_position_has_passed_its_end() {
        let objects = Arc::new(InMemory::new());
        let first = store_in(&objects);
        let (a, b) = (hold(&first, 5, b"a").await, hold(&first, 6, b"b").await);
        let second = store_in(&objects);
        assert_eq!(second.open(&to(6), 0).await.unwrap(), vec![a.clone(), b.clone()]);
        assert_eq!(second.read_part(&a.parts[0]).await.unwrap(), "a");
        // The position is below the PREPARE: the source sends it again.
        assert_eq!(second.open(&to(5), 0).await.unwrap(), vec![a.clone()]);
        second.note_end(&a.gtid, &gtid(7)).await.unwrap();
        assert_eq!(second.list_held().await.unwrap(), vec![b.clone()]);
        // Its end is noted, but no position has passed it: the source sends that again.
        assert_eq!(store_in(&objects).open(&to(6), 0).await.unwrap(), vec![a.clone(), b.clone()]);
        second.forget_ended(&to(6)).await.unwrap();
        assert!(second.read_part(&a.parts[0]).await.is_ok());
        second.forget_ended(&to(7)).await.unwrap();
        assert!(matches!(second.read_part(&a.parts[0]).await, Err(StateError::Lost { .. })));
        assert_eq!(store_in(&objects).open(&to(7), 0).await.unwrap(), vec![b]);
    }

    #[tokio::test]
    async fn of_two_readings_the_one_that_is_held_first_stays() {
        let objects = Arc::new(InMemory::new());
        let (first, second) = (store_in(&objects), store_in(&objects));
        let a = hold(&first, 5, b"a").await;
        assert_eq!(hold(&second, 5, b"other cuts").await, a);
        assert_eq!(store_in(&objects).open(&to(5), 0).await.unwrap(), vec![a]);
        // Young parts stay, whoever wrote them; the head's stay for good.
        second.clean(weir_model::clock::now_ms()).await.unwrap();
        assert_eq!(second.list().await.unwrap().len(), 3);
    }

    #[tokio::test]
    async fn parts_without_a_head_go_once_they_are_old() {
        let objects = Arc::new(InMemory::new());
        let store = store_in(&objects);
        store.put_part(&gtid(5), Bytes::from_static(b"a")).await.unwrap();
        let head = hold(&store, 6, b"b").await;
        store.clean(weir_model::clock::now_ms() + 2 * STATE_KEPT.as_millis() as i64).await.unwrap();
        assert_eq!(store.list().await.unwrap().len(), 2);
        assert!(store.read_part(&head.parts[0]).await.is_ok());
    }

    #[tokio::test]
    async fn a_source_that_is_mirrored_anew_forgets_what_was_held() {
        let objects = Arc::new(InMemory::new());
        let store = store_in(&objects);
        let (old, new) = (1, 4);
        assert!(store.begins_behind(old).await.unwrap().is_empty());
        let held = hold(&store, 5, b"a").await;
        store.begin_anew(new, &to(9), &to(8)).await.unwrap();
        // The old history goes on after all, wherever it stands: it needs what it held, and nothing has been made up for.
        for position in [6, 8, 20] {
            assert_eq!(store.open(&to(position), old).await.unwrap(), vec![held.clone()]);
        }
        assert!(store.begins_behind(old).await.unwrap().is_empty());
        store.forget_former(old).await.unwrap();
        assert_eq!(store_in(&objects).list_held().await.unwrap(), vec![held]);
        let store = store_in(&objects);
        assert_eq!(store.open(&to(8), new).await.unwrap(), vec![]);
        assert_eq!(store.begins_behind(new).await.unwrap(), to(9));
        store.forget_former(new).await.unwrap();
        assert_eq!(store.list_held().await.unwrap(), vec![]);
        assert_eq!(store_in(&objects).begins_behind(new).await.unwrap(), to(9));
    }

    #[tokio::test]
    async fn damage_is_named_and_never_passed_over() {
        let objects = Arc::new(InMemory::new());
        let store = store_in(&objects);
        let head = hold(&store, 5, b"a").await;
        let part = store.folder.clone().join(&*head.parts[0].name);
        objects.put(&part, Bytes::from_static(b"b").into()).await.unwrap();
        let error = store.read_part(&head.parts[0]).await.unwrap_err();
        assert!(error.to_string().contains(".rows"), "{error}");
        let object = store.folder.clone().join(head_name(&head.gtid));
        objects.put(&object, Bytes::from_static(b"{").into()).await.unwrap();
        let error = store.open(&to(5), 0).await.unwrap_err();
        assert!(error.to_string().contains(".head.json"), "{error}");
    }
}
