//! Files that the standalone tool leaves beside its Parquet: each table's plan, so that a broken load can go on, and the
//! manifest of a finished one.

use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use weir_model::{GtidSet, LogPosition, TableId, TableSchema};

use crate::error::LoadError;
use crate::range::ChunkRange;

/// `plan.json` in a table's folder: what each part holds. A part that exists is complete, since parts are renamed into
/// place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TablePlan {
    pub server_uuid: String,
    /// All parts come from one read view, so that none may be read again later.
    pub consistent: bool,
    pub schema: TableSchema,
    /// Part *n* holds chunk *n*.
    pub chunks: Vec<ChunkRange>,
}

/// `manifest.json` in the output folder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    pub server_uuid: String,
    pub server_version: String,
    /// The one moment that all rows are of; none if chunks were read at different moments.
    pub snapshot: Option<SnapshotPosition>,
    pub tables: Vec<TableManifest>,
}

/// Where the binlog stood when the snapshot was taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotPosition {
    pub executed: GtidSet,
    pub binlog_end: Option<LogPosition>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableManifest {
    pub table: TableId,
    pub schema: TableSchema,
    pub rows: u64,
    pub files: Vec<FileManifest>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileManifest {
    /// Relative to the output folder.
    pub path: String,
    pub rows: u64,
    pub bytes: u64,
    pub range: ChunkRange,
}

impl TablePlan {
    pub const FILE: &str = "plan.json";
}

impl Manifest {
    pub const FILE: &str = "manifest.json";

    pub fn rows(&self) -> u64 {
        self.tables.iter().map(|t| t.rows).sum()
    }
}

/// Folder of a table below the output folder.
pub fn table_folder(out: &Path, table: &TableId) -> PathBuf {
    out.join(path_component(&table.database)).join(path_component(&table.table))
}

/// Name of the file of chunk `chunk`.
pub fn part_name(chunk: usize) -> String {
    format!("part-{chunk:05}.parquet")
}

/// `name` with every byte outside `[A-Za-z0-9_-]` as `_xHH`, and a literal `_x` as `_x5fx`, so that no two names meet and
/// no reader stumbles.
pub fn path_component(name: &str) -> String {
    let mut safe = String::with_capacity(name.len());
    let bytes = name.as_bytes();
    for (at, &byte) in bytes.iter().enumerate() {
        let escapes = byte == b'_' && bytes.get(at + 1) == Some(&b'x');
        if !escapes && (byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-') {
            safe.push(char::from(byte));
        } else {
            safe.push_str(&format!("_x{byte:02x}"));
        }
    }
    safe
}

/// Reads a JSON file; `None` if there is none.
pub fn read_json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, LoadError> {
    let error = |detail: String| LoadError::Resume { path: path.into(), detail };
    match std::fs::read(path) {
        Ok(bytes) => serde_json::from_slice(&bytes).map(Some).map_err(|e| error(e.to_string())),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(error(e.to_string())),
    }
}

/// Writes a JSON file whole or not at all.
pub fn write_json<T: Serialize>(path: &Path, value: &T) -> Result<(), LoadError> {
    let error = |detail: String| LoadError::Write { path: path.into(), detail };
    let bytes = serde_json::to_vec_pretty(value).map_err(|e| error(e.to_string()))?;
    let partial = path.with_extension("json.tmp");
    std::fs::write(&partial, bytes).and_then(|()| std::fs::rename(&partial, path)).map_err(|e| error(e.to_string()))
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_become_plain_path_components() {
        assert_eq!(path_component("orders_2024-a"), "orders_2024-a");
        assert_eq!(path_component("a b/ß"), "a_x20b_x2f_xc3_x9f");
        assert_eq!(path_component("a_x20b"), "a_x5fx20b");
    }

    proptest! {
        #[test]
        fn different_names_never_meet(names in prop::collection::vec("[_x5f a-b/.0]{0,6}", 1..40)) {
            let mut seen: HashMap<String, String> = HashMap::new();
            for name in names {
                let before = seen.insert(path_component(&name), name.clone());
                prop_assert!(before.is_none_or(|b| b == name));
            }
        }
    }
}
