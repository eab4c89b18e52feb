//! Where indexes live: how much memory they may take together, and the folder for what is beyond.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use crate::limits::{INDEX_CACHE_SHARE, INDEX_MEMORY_MIN, INDEX_PAGE_BYTES};
use crate::modes;

/// Bytes of memory for all indexes of a process.
#[derive(Debug)]
pub struct IndexBudget {
    bytes_max: usize,
    used: AtomicUsize,
}

impl IndexBudget {
    pub fn new(bytes_max: usize) -> Arc<Self> {
        Arc::new(Self { bytes_max, used: AtomicUsize::new(0) })
    }

    /// Bytes taken.
    pub fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }
}

/// What an index may use. Clones share the budget.
#[derive(Debug, Clone)]
pub struct IndexHome {
    budget: Arc<IndexBudget>,
    /// For scratch files; none if everything stays in memory.
    folder: Option<Arc<Path>>,
    pub(super) page_bytes: usize,
    /// Bytes that each index may take though the budget is used up.
    pub(super) memory_min: usize,
}

const SCRATCH: &str = "scratch";

impl IndexHome {
    /// Memory without bound.
    pub fn unbounded() -> Self {
        let budget = IndexBudget::new(usize::MAX);
        Self { budget, folder: None, page_bytes: INDEX_PAGE_BYTES, memory_min: INDEX_MEMORY_MIN }
    }

    /// Memory within the budget; an index that would go beyond lives in a file in `folder`, which is made when it is
    /// needed. What a killed process left there is removed.
    pub fn new(budget: Arc<IndexBudget>, folder: &Path) -> Self {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.extension().is_some_and(|extension| extension == SCRATCH)
                && let Err(error) = std::fs::remove_file(&path)
            {
                tracing::warn!(path = %path.display(), %error, "a left scratch file of the key index cannot be removed");
            }
        }
        Self { budget, folder: Some(folder.into()), ..Self::unbounded() }
    }

    /// Where files of indexes may lie, if anywhere.
    pub fn folder(&self) -> Option<&Path> {
        self.folder.as_deref()
    }

    pub fn budget(&self) -> &Arc<IndexBudget> {
        &self.budget
    }

    /// Whether an index of these bytes moves to a file when the budget is used up.
    pub(super) fn moves(&self, bytes: usize) -> bool {
        self.folder.is_some() && bytes > self.memory_min
    }

    /// Whether an index that comes in with these bytes has to live in a file from the beginning.
    pub(super) fn has_no_room_for(&self, bytes: usize) -> bool {
        self.moves(bytes) && self.budget.used().saturating_add(bytes) > self.budget.bytes_max
    }

    /// An empty file without a name: it goes with the process, however that ends.
    pub(super) fn scratch_file(&self) -> io::Result<File> {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let Some(folder) = &self.folder else {
            return Err(io::Error::new(io::ErrorKind::NotFound, "there is no folder for scratch files"));
        };
        let in_folder = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", folder.display()));
        modes::create_folders(folder).map_err(in_folder)?;
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path: PathBuf = folder.join(format!("{}-{number}.{SCRATCH}", std::process::id()));
        let mut options = modes::options();
        let file = options.read(true).write(true).create(true).truncate(true).open(&path).map_err(in_folder)?;
        match std::fs::remove_file(&path) {
            // Another process that starts in this folder takes it for a left one.
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(in_folder(error)),
            _ => Ok(file),
        }
    }
}

impl Default for IndexHome {
    fn default() -> Self {
        Self::unbounded()
    }
}

/// Bytes of the budget that somebody has, until dropped.
#[derive(Debug)]
pub(super) struct Reservation {
    budget: Arc<IndexBudget>,
    bytes: usize,
}

impl Reservation {
    pub(super) fn new(home: &IndexHome) -> Self {
        Self { budget: home.budget.clone(), bytes: 0 }
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Has `bytes` from here on, even beyond the budget; says whether it is.
    pub(super) fn set(&mut self, bytes: usize) -> bool {
        if bytes >= self.bytes {
            self.budget.used.fetch_add(bytes - self.bytes, Ordering::Relaxed);
        } else {
            self.budget.used.fetch_sub(self.bytes - bytes, Ordering::Relaxed);
        }
        self.bytes = bytes;
        self.budget.used() > self.budget.bytes_max
    }

    /// Has so many bytes more if a cache may take them: it leaves a share of the budget to indexes in memory.
    pub(super) fn grow_cache(&mut self, bytes: usize) -> bool {
        let (numerator, denominator) = INDEX_CACHE_SHARE;
        let most = self.budget.bytes_max / denominator * numerator;
        let grown = |used: usize| used.checked_add(bytes).filter(|used| *used <= most);
        let may = self.budget.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, grown).is_ok();
        self.bytes += if may { bytes } else { 0 };
        may
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.set(0);
    }
}

/// Whether an index can be believed. What has failed stays failed: an index that missed a write, or could not read a
/// page, may say anything from then on.
#[derive(Debug, Default)]
pub(super) struct Health(OnceLock<(io::ErrorKind, String)>);

impl Health {
    /// The first failure is kept.
    pub(super) fn fail(&self, error: &io::Error) {
        let _ = self.0.set((error.kind(), format!("the key index cannot go on: {error}")));
    }

    pub(super) fn has_failed(&self) -> bool {
        self.0.get().is_some()
    }

    pub(super) fn check(&self) -> io::Result<()> {
        match self.0.get() {
            None => Ok(()),
            Some((kind, what)) => Err(io::Error::new(*kind, what.clone())),
        }
    }
}
