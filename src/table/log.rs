//! The Delta log: reading it into the table's present state, and putting the next version.

use std::collections::BTreeMap;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;
use serde::Deserialize;
use weir_model::TableId;

use super::TableError;
use super::checkpoint;
use super::delta::{Action, Add, MetaData, Protocol};
use super::location::{Put, Warehouse};
use super::record::CommitRecord;
use super::sound::{LastSound, rests_on_what_is_gone};
use crate::failpoint;
use crate::format::{Format, Head};
use crate::limits::COMMITS_READ_TOGETHER;

/// File name of version `version`.
pub fn commit_name(version: i64) -> String {
    format!("{version:020}.json")
}

/// Numbers of what a log holds, ascending.
#[derive(Debug, Default)]
pub struct Versions {
    pub commits: Vec<i64>,
    pub checkpoints: Vec<i64>,
}

/// Numbers of what a log holds, ascending, and when commits were written, in milliseconds by the store's clock.
#[derive(Debug, Default)]
pub struct TimedVersions {
    pub commits: Vec<(i64, i64)>,
    pub checkpoints: Vec<i64>,
}

/// The log of one table.
#[derive(Debug, Clone)]
pub struct Log {
    warehouse: Warehouse,
    table: TableId,
    folder: Path,
}

/// A table at one version.
#[derive(Debug, Clone, Default)]
pub struct Replay {
    pub version: i64,
    /// By path.
    pub files: BTreeMap<String, Add>,
    pub meta_data: Option<MetaData>,
    pub protocol: Option<Protocol>,
    /// Newest own commit and its version.
    pub own: Option<(i64, CommitRecord)>,
    /// How it stood before another engine's commit that rests on files which had gone, with nothing of ours behind it.
    pub sound: Option<LastSound>,
}

impl Log {
    pub fn new(warehouse: &Warehouse, table: &TableId) -> Self {
        let folder = warehouse.table_path(table).join("_delta_log");
        Self { warehouse: warehouse.clone(), table: table.clone(), folder }
    }

    /// What is in the log's folder.
    pub async fn versions(&self) -> Result<Versions, TableError> {
        let TimedVersions { commits, checkpoints } = self.timed_versions().await?;
        Ok(Versions { commits: commits.into_iter().map(|(version, _)| version).collect(), checkpoints })
    }

    /// What is in the log's folder, with times.
    pub async fn timed_versions(&self) -> Result<TimedVersions, TableError> {
        let mut versions = TimedVersions::default();
        for object in self.warehouse.list(&self.folder).await? {
            let number = |suffix: &str| object.name.strip_suffix(suffix).filter(|stem| stem.len() == 20)?.parse().ok();
            if let Some(version) = number(".json") {
                versions.commits.push((version, object.modified_ms));
            } else if let Some(version) = number(".checkpoint.parquet") {
                versions.checkpoints.push(version);
            }
        }
        versions.commits.sort_unstable();
        versions.checkpoints.sort_unstable();
        Ok(versions)
    }

    /// The newest own commit at or below `from`, or the lowest version that is there.
    pub(super) async fn newest_own(&self, from: i64) -> Result<i64, TableError> {
        Ok(self.newest_record(from).await?.map_or(0, |(version, _)| version))
    }

    /// The actions of one version.
    pub async fn read(&self, version: i64) -> Result<Vec<Action>, TableError> {
        self.read_if_there(version)
            .await?
            .ok_or_else(|| TableError::Damaged(format!("version {version} of {} is missing from its log", self.table)))
    }

    /// The actions of one version; `None` if it has not been written, or is cleaned away.
    pub async fn read_if_there(&self, version: i64) -> Result<Option<Vec<Action>>, TableError> {
        let bytes = match self.warehouse.get(&self.folder.clone().join(commit_name(version))).await {
            Ok(bytes) => bytes,
            Err(TableError::Store(object_store::Error::NotFound { .. })) => return Ok(None),
            Err(error) => return Err(error),
        };
        if let Some(found) = newer_format(&bytes) {
            return Err(TableError::newer(self.table.clone(), version, found));
        }
        parse(&bytes).map(Some).map_err(|error| {
            TableError::Damaged(format!("version {version} of {} is not a Delta commit: {error}", self.table))
        })
    }

    /// The table at `version`, or at its newest; `None` if there is no table.
    pub async fn replay(&self, version: Option<i64>) -> Result<Option<Replay>, TableError> {
        let versions = self.versions().await?;
        let Some(newest) = versions.commits.last().copied() else { return Ok(None) };
        let wanted = version.unwrap_or(newest);
        if wanted > newest || wanted < 0 {
            return Err(TableError::NoVersion { table: self.table.clone(), wanted, newest });
        }
        let mut replay = self.newest_checkpoint(&versions, wanted).await?.unwrap_or_default();
        let first = if replay.protocol.is_some() { replay.version + 1 } else { 0 };
        let mut commits = futures::stream::iter(first..=wanted)
            .map(|version| async move { Ok::<_, TableError>((version, self.read(version).await?)) })
            .buffered(COMMITS_READ_TOGETHER);
        while let Some((version, actions)) = commits.try_next().await? {
            replay.take(actions, version);
        }
        if replay.own.is_none() {
            replay.own = self.newest_record(replay.version).await?;
        }
        Ok(Some(replay))
    }

    /// The table as the newest readable checkpoint at or below `wanted` has it. A torn one costs time, not the table:
    /// the commits before it are there.
    async fn newest_checkpoint(&self, versions: &Versions, wanted: i64) -> Result<Option<Replay>, TableError> {
        for version in versions.checkpoints.iter().rev().filter(|version| **version <= wanted) {
            match checkpoint::read(&self.warehouse, &self.folder, *version).await {
                Ok(replay) if replay.protocol.is_some() => return Ok(Some(replay)),
                Ok(_) => tracing::warn!(table = %self.table, version, "a checkpoint of the log is not whole"),
                Err(TableError::Store(error)) => return Err(error.into()),
                Err(error) => {
                    tracing::warn!(table = %self.table, version, %error, "a checkpoint of the log cannot be read");
                }
            }
        }
        Ok(None)
    }

    /// The newest own commit at or below `from`: a checkpoint does not hold it.
    async fn newest_record(&self, from: i64) -> Result<Option<(i64, CommitRecord)>, TableError> {
        for version in (0..=from).rev() {
            let Some(actions) = self.read_if_there(version).await? else { break };
            if let Some(record) = actions.into_iter().find_map(|a| a.commit_info).and_then(|info| info.weir) {
                return Ok(Some((version, record)));
            }
        }
        Ok(None)
    }

    /// Whether `version` is there as a commit.
    pub async fn has(&self, version: i64) -> Result<bool, TableError> {
        self.warehouse.exists(&self.folder.clone().join(commit_name(version))).await
    }

    /// Puts `bytes` as `version` unless it is taken.
    pub async fn put(&self, version: i64, bytes: Bytes) -> Result<Put, TableError> {
        failpoint::reach(failpoint::LOG_PUT_BEFORE);
        let put = self.warehouse.put_if_absent(&self.folder.clone().join(commit_name(version)), bytes).await;
        failpoint::reach(failpoint::LOG_PUT_AFTER);
        put
    }
}

/// Actions as the bytes of a commit.
pub fn serialise(actions: &[Action]) -> Bytes {
    let mut bytes = Vec::new();
    for action in actions {
        serde_json::to_writer(&mut bytes, action).expect("actions are plain data");
        bytes.push(b'\n');
    }
    bytes.into()
}

fn parse(bytes: &[u8]) -> Result<Vec<Action>, serde_json::Error> {
    lines(bytes).map(serde_json::from_slice).collect()
}

fn lines(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    bytes.split(|b| *b == b'\n').filter(|line| !line.is_empty())
}

/// The format of a commit of ours that is above the one we know. Ours come first in a commit, so nothing else is looked at.
fn newer_format(bytes: &[u8]) -> Option<Format> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct First {
        commit_info: Info,
    }
    #[derive(Deserialize)]
    struct Info {
        weir: Head,
    }
    let first: First = serde_json::from_slice(lines(bytes).next()?).ok()?;
    first.commit_info.weir.newer(CommitRecord::FORMAT)
}

impl Replay {
    /// Goes on by one version.
    fn take(&mut self, actions: Vec<Action>, version: i64) {
        let is_own = actions.iter().any(|action| action.commit_info.as_ref().is_some_and(|info| info.weir.is_some()));
        if is_own {
            self.sound = None;
        } else if self.sound.is_none() && rests_on_what_is_gone(&actions, &self.files) {
            self.sound = Some(LastSound { version: self.version, files: self.files.clone() });
        }
        for action in actions {
            self.apply(action, version);
        }
        self.version = version;
    }

    pub(super) fn apply(&mut self, action: Action, version: i64) {
        if let Some(add) = action.add {
            self.files.insert(add.path.clone(), add);
        }
        if let Some(remove) = action.remove {
            // A changed vector is a remove and an add of one path, in either order.
            let replaced =
                self.files.get(&remove.path).is_some_and(|add| add.deletion_vector != remove.deletion_vector);
            if !replaced {
                self.files.remove(&remove.path);
            }
        }
        if let Some(meta_data) = action.meta_data {
            self.meta_data = Some(meta_data);
        }
        if let Some(protocol) = action.protocol {
            self.protocol = Some(protocol);
        }
        if let Some(record) = action.commit_info.and_then(|info| info.weir) {
            self.own = Some((version, record));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::delta::{DeletionVector, Remove};
    use super::*;

    fn vector(cardinality: i64) -> DeletionVector {
        DeletionVector {
            storage_type: "u".into(),
            path_or_inline_dv: "vBn[lx{q8@P<9BNH/isA".into(),
            offset: Some(1),
            size_in_bytes: 36,
            cardinality,
        }
    }

    fn entry(deletion_vector: Option<DeletionVector>) -> Add {
        Add {
            path: "a.parquet".into(),
            partition_values: BTreeMap::new(),
            size: 1,
            modification_time: 0,
            data_change: true,
            stats: None,
            tags: None,
            deletion_vector,
        }
    }

    fn removal(deletion_vector: Option<DeletionVector>) -> Remove {
        Remove {
            path: "a.parquet".into(),
            deletion_timestamp: None,
            data_change: true,
            extended_file_metadata: None,
            partition_values: None,
            size: None,
            deletion_vector,
        }
    }

    fn add(deletion_vector: Option<DeletionVector>) -> Action {
        Action { add: Some(entry(deletion_vector)), ..Action::default() }
    }

    fn remove(deletion_vector: Option<DeletionVector>) -> Action {
        Action { remove: Some(removal(deletion_vector)), ..Action::default() }
    }

    #[test]
    fn a_changed_vector_leaves_the_file_whichever_action_stands_first() {
        for actions in [[remove(None), add(Some(vector(1)))], [add(Some(vector(1))), remove(None)]] {
            let mut replay = Replay::default();
            replay.apply(add(None), 0);
            for action in actions {
                replay.apply(action, 1);
            }
            assert_eq!(replay.files["a.parquet"].deletion_vector, Some(vector(1)));
        }
    }

    #[test]
    fn a_removed_file_is_gone_with_its_vector() {
        let mut replay = Replay::default();
        replay.apply(add(Some(vector(2))), 0);
        replay.apply(remove(Some(vector(2))), 1);
        assert!(replay.files.is_empty());
    }
}
