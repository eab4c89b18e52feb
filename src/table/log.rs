//! The Delta log: reading it into the table's present state, and putting the next version.

use std::collections::BTreeMap;

use bytes::Bytes;
use object_store::path::Path;
use weir_model::TableId;

use super::TableError;
use super::checkpoint;
use super::delta::{Action, Add, CommitInfo, MetaData, Protocol};
use super::location::{Put, Warehouse};
use super::record::CommitRecord;

/// File name of version `version`.
pub fn commit_name(version: i64) -> String {
    format!("{version:020}.json")
}

/// The log of one table.
#[derive(Debug, Clone)]
pub struct Log {
    warehouse: Warehouse,
    pub table: TableId,
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
    /// Newest version of each application.
    pub txns: BTreeMap<String, i64>,
    /// Newest own commit and its version.
    pub own: Option<(i64, CommitRecord)>,
    /// Versions after the newest own commit were written by others.
    pub foreign_since: bool,
}

impl Log {
    pub fn new(warehouse: &Warehouse, table: &TableId) -> Self {
        let folder = warehouse.table_path(table).join("_delta_log");
        Self { warehouse: warehouse.clone(), table: table.clone(), folder }
    }

    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Versions that are there as commits, ascending.
    pub async fn versions(&self) -> Result<Vec<i64>, TableError> {
        let names = self.warehouse.list(&self.folder).await?;
        let mut versions: Vec<i64> = names
            .iter()
            .filter_map(|(name, _)| name.strip_suffix(".json").filter(|stem| stem.len() == 20)?.parse().ok())
            .collect();
        versions.sort_unstable();
        Ok(versions)
    }

    /// The actions of one version.
    pub async fn read(&self, version: i64) -> Result<Vec<Action>, TableError> {
        let bytes = self.warehouse.get(&self.folder.clone().join(commit_name(version))).await?;
        parse(&bytes).map_err(|error| {
            TableError::Damaged(format!("version {version} of {} is not a Delta commit: {error}", self.table))
        })
    }

    /// The table at `version`, or at its newest; `None` if there is no table.
    pub async fn replay(&self, version: Option<i64>) -> Result<Option<Replay>, TableError> {
        let versions = self.versions().await?;
        let Some(newest) = versions.last().copied() else { return Ok(None) };
        let wanted = version.unwrap_or(newest);
        if wanted > newest || wanted < 0 {
            return Err(TableError::NoVersion { table: self.table.clone(), wanted, newest });
        }
        let from = checkpoint::read_newest(&self.warehouse, self, wanted).await;
        let first = from.as_ref().map_or(0, |checkpoint| checkpoint.version + 1);
        let mut replay = from.unwrap_or_default();
        for version in first..=wanted {
            if versions.binary_search(&version).is_err() {
                return Err(TableError::Damaged(format!("version {version} of {} is missing from its log", self.table)));
            }
            for action in self.read(version).await? {
                replay.apply(action, version);
            }
            replay.version = version;
        }
        if replay.own.is_none() {
            replay.own = self.newest_record(replay.version).await?;
        }
        replay.foreign_since = replay.own.as_ref().is_none_or(|(own, _)| *own < replay.version);
        Ok(Some(replay))
    }

    /// The newest own commit at or below `from`: a checkpoint does not hold it.
    async fn newest_record(&self, from: i64) -> Result<Option<(i64, CommitRecord)>, TableError> {
        for version in (0..=from).rev() {
            let record = self.read(version).await?.into_iter().find_map(|a| a.commit_info).and_then(|info| info.weir);
            if let Some(record) = record {
                return Ok(Some((version, record)));
            }
        }
        Ok(None)
    }

    /// What a version says of itself.
    pub async fn commit_info(&self, version: i64) -> Result<Option<CommitInfo>, TableError> {
        Ok(self.read(version).await?.into_iter().find_map(|action| action.commit_info))
    }

    /// Whether `version` is there as a commit.
    pub async fn has(&self, version: i64) -> Result<bool, TableError> {
        self.warehouse.exists(&self.folder.clone().join(commit_name(version))).await
    }

    /// Puts `bytes` as `version` unless it is taken.
    pub async fn put(&self, version: i64, bytes: Bytes) -> Result<Put, TableError> {
        self.warehouse.put_if_absent(&self.folder.clone().join(commit_name(version)), bytes).await
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
    bytes.split(|b| *b == b'\n').filter(|line| !line.is_empty()).map(serde_json::from_slice).collect()
}

impl Replay {
    pub(super) fn apply(&mut self, action: Action, version: i64) {
        if let Some(add) = action.add {
            self.files.insert(add.path.clone(), add);
        }
        if let Some(remove) = action.remove {
            // A changed vector is a remove and an add of one path, in either order.
            let replaced = self.files.get(&remove.path).is_some_and(|add| add.deletion_vector != remove.deletion_vector);
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
        if let Some(txn) = action.txn {
            self.txns.insert(txn.app_id, txn.version);
        }
        if let Some(record) = action.commit_info.and_then(|info| info.weir) {
            self.own = Some((version, record));
        }
    }
}
