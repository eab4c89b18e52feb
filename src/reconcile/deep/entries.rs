//! What one side of a comparison holds: for each row its key and its hash, sorted by key when asked for.
//!
//! So many bytes are held in memory; what is beyond lies in a scratch file, in sorted runs that are merged while they are
//! read. The digest of all is kept beside, so that sides that are equal are never sorted.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;

use weir_model::key::KeyRef;
use weir_model::{Order, RecordKey, RecordKeys};

use super::columns::SharedRows;
use super::compare::Counting;
use crate::limits::{DEEP_HELD_BYTES, DEEP_RUN_BUFFER_BYTES};
use crate::modes;
use weir_model::row_hash::{RowHash, RowsDigest};

/// One row of a side.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub key: RecordKey,
    pub hash: RowHash,
    pub version: RowVersion,
}

/// Which of several rows of a key is the newest, and what it says. Of meaning in tables that are appended to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RowVersion {
    pub order: Order,
    pub is_delete: bool,
}

impl RowVersion {
    /// Of a row that is the only one of its key.
    pub const ONLY: Self = Self { order: Order::MIN, is_delete: false };
}

/// Takes in the rows of one side.
#[derive(Debug)]
pub struct Collector {
    /// Keys of the rows held; none before the first.
    keys: Option<RecordKeys>,
    hashes: Vec<RowHash>,
    counting: Counting,
    /// As long as `hashes` where they count, and empty where not.
    versions: Vec<RowVersion>,
    held_bytes: usize,
    digest: RowsDigest,
    runs: Option<Runs>,
    /// Where a scratch file would lie.
    folder: PathBuf,
}

/// The rows of one side, complete.
#[derive(Debug)]
pub struct Collected {
    held: Collector,
}

impl Collector {
    /// A scratch file would lie in `folder`.
    pub fn new(folder: PathBuf, counting: Counting) -> Self {
        Self {
            counting,
            keys: None,
            hashes: Vec::new(),
            versions: Vec::new(),
            held_bytes: 0,
            digest: RowsDigest::default(),
            runs: None,
            folder,
        }
    }

    /// # Errors
    /// When the scratch file cannot be written.
    pub fn push(&mut self, rows: SharedRows) -> io::Result<()> {
        for hash in &rows.hashes {
            self.digest += *hash;
        }
        let hash_bytes = size_of::<RowHash>() * rows.hashes.len();
        self.held_bytes += rows.keys.bytes() + hash_bytes;
        self.hashes.extend_from_slice(&rows.hashes);
        if self.counting == Counting::Newest {
            self.held_bytes += size_of::<RowVersion>() * rows.versions.len();
            self.versions.extend_from_slice(&rows.versions);
        }
        match &mut self.keys {
            Some(keys) => keys.append(&rows.keys),
            keys => *keys = Some(rows.keys),
        }
        if self.held_bytes > DEEP_HELD_BYTES { self.write_run() } else { Ok(()) }
    }

    pub fn finish(self) -> Collected {
        Collected { held: self }
    }

    fn write_run(&mut self) -> io::Result<()> {
        let runs = match &mut self.runs {
            Some(runs) => runs,
            runs => runs.insert(Runs::create(&self.folder)?),
        };
        let keys = self.keys.take();
        let (hashes, versions) = (std::mem::take(&mut self.hashes), std::mem::take(&mut self.versions));
        self.held_bytes = 0;
        runs.write(sorted(keys, hashes, versions))
    }
}

impl Collected {
    /// Of all rows, whatever their versions.
    pub fn digest(&self) -> RowsDigest {
        self.held.digest
    }

    /// Every row, by ascending key.
    ///
    /// # Errors
    /// When the scratch file cannot be written or read.
    pub fn into_sorted(mut self) -> io::Result<Box<dyn Iterator<Item = io::Result<Entry>> + Send>> {
        if self.held.runs.is_some() {
            self.held.write_run()?;
        }
        Ok(match self.held.runs {
            Some(runs) => Box::new(runs.merged()?),
            None => Box::new(sorted(self.held.keys, self.held.hashes, self.held.versions).map(Ok)),
        })
    }
}

fn sorted(
    keys: Option<RecordKeys>,
    hashes: Vec<RowHash>,
    versions: Vec<RowVersion>,
) -> impl Iterator<Item = Entry> + Send {
    let keys = keys.unwrap_or_else(RecordKeys::none);
    let rows = keys.sorted_rows();
    rows.into_iter().map(move |row| {
        let row = row as usize;
        let version = versions.get(row).copied().unwrap_or(RowVersion::ONLY);
        Entry { key: keys.get(row).to_owned(), hash: hashes[row], version }
    })
}

/// Sorted runs of entries in a scratch file that goes with the process.
#[derive(Debug)]
struct Runs {
    file: Arc<File>,
    /// Where each run ends.
    ends: Vec<u64>,
}

impl Runs {
    fn create(folder: &PathBuf) -> io::Result<Self> {
        modes::create_folders(folder)?;
        Ok(Self { file: Arc::new(tempfile::tempfile_in(folder)?), ends: Vec::new() })
    }

    fn end(&self) -> u64 {
        self.ends.last().copied().unwrap_or(0)
    }

    fn write(&mut self, entries: impl Iterator<Item = Entry>) -> io::Result<()> {
        let (mut at, mut bytes) = (self.end(), Vec::with_capacity(DEEP_RUN_BUFFER_BYTES));
        let mut flush = |bytes: &mut Vec<u8>| -> io::Result<()> {
            self.file.write_all_at(bytes, at)?;
            at += bytes.len() as u64;
            bytes.clear();
            Ok(())
        };
        for entry in entries {
            entry.encode(&mut bytes);
            if bytes.len() >= DEEP_RUN_BUFFER_BYTES {
                flush(&mut bytes)?;
            }
        }
        flush(&mut bytes)?;
        self.ends.push(at);
        Ok(())
    }

    fn merged(self) -> io::Result<Merged> {
        let starts = [0].into_iter().chain(self.ends.iter().copied());
        let mut runs: Vec<Run> = starts.zip(&self.ends).map(|(start, end)| Run::new(&self.file, start, *end)).collect();
        let mut heads = BinaryHeap::with_capacity(runs.len());
        for (number, run) in runs.iter_mut().enumerate() {
            heads.extend(run.next()?.map(|entry| Reverse(Head { entry, run: number })));
        }
        Ok(Merged { runs, heads })
    }
}

/// Runs merged into one.
struct Merged {
    runs: Vec<Run>,
    /// The next entry of each run that has one.
    heads: BinaryHeap<Reverse<Head>>,
}

struct Head {
    entry: Entry,
    run: usize,
}

impl Iterator for Merged {
    type Item = io::Result<Entry>;

    fn next(&mut self) -> Option<Self::Item> {
        let Reverse(Head { entry, run }) = self.heads.pop()?;
        match self.runs[run].next() {
            Ok(next) => self.heads.extend(next.map(|entry| Reverse(Head { entry, run }))),
            Err(error) => return Some(Err(error)),
        }
        Some(Ok(entry))
    }
}

impl Head {
    fn rank(&self) -> (KeyRef<'_>, usize) {
        (self.entry.key.as_ref(), self.run)
    }
}

impl PartialEq for Head {
    fn eq(&self, other: &Self) -> bool {
        self.rank() == other.rank()
    }
}

impl Eq for Head {}

impl PartialOrd for Head {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Head {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.rank().cmp(&other.rank())
    }
}

/// One run, read in order.
struct Run {
    file: Arc<File>,
    /// What has been read and not yet handed out.
    bytes: Vec<u8>,
    taken: usize,
    /// Where in the file the next read begins, and where the run ends.
    at: u64,
    end: u64,
}

/// An entry but for a key of bytes: form of the key, integer or length, hash, order, whether it is a delete.
const ENTRY_BYTES: usize = 1 + 8 + 16 + 16 + 1;

impl Run {
    fn new(file: &Arc<File>, at: u64, end: u64) -> Self {
        Self { file: file.clone(), bytes: Vec::new(), taken: 0, at, end }
    }

    fn next(&mut self) -> io::Result<Option<Entry>> {
        if self.taken == self.bytes.len() && self.at == self.end {
            return Ok(None);
        }
        self.have(ENTRY_BYTES)?;
        let key_bytes = Entry::key_bytes(&self.bytes[self.taken..]);
        self.have(ENTRY_BYTES + key_bytes)?;
        let bytes = &self.bytes[self.taken..self.taken + ENTRY_BYTES + key_bytes];
        let entry = Entry::decode(bytes);
        self.taken += bytes.len();
        Ok(Some(entry))
    }

    /// Reads on until `wanted` bytes are there that have not been handed out.
    fn have(&mut self, wanted: usize) -> io::Result<()> {
        if self.bytes.len() - self.taken >= wanted {
            return Ok(());
        }
        self.bytes.drain(..self.taken);
        self.taken = 0;
        let left = usize::try_from(self.end - self.at).unwrap_or(usize::MAX);
        let more = left.min(DEEP_RUN_BUFFER_BYTES.max(wanted));
        let start = self.bytes.len();
        self.bytes.resize(start + more, 0);
        self.file.read_exact_at(&mut self.bytes[start..], self.at)?;
        self.at += more as u64;
        if self.bytes.len() < wanted { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(()) }
    }
}

impl Entry {
    const INT: u8 = 0;
    const BYTES: u8 = 1;

    fn encode(&self, out: &mut Vec<u8>) {
        let (form, number, key): (u8, i64, &[u8]) = match &self.key {
            RecordKey::Int(value) => (Self::INT, *value, &[]),
            RecordKey::Bytes(bytes) => (Self::BYTES, bytes.len() as i64, bytes),
        };
        out.push(form);
        out.extend_from_slice(&number.to_le_bytes());
        out.extend_from_slice(&self.hash.0.to_le_bytes());
        out.extend_from_slice(&self.version.order.ts_ms.to_le_bytes());
        out.extend_from_slice(&self.version.order.seq.to_le_bytes());
        out.push(self.version.is_delete.into());
        out.extend_from_slice(key);
    }

    /// Length of the key that follows [`ENTRY_BYTES`].
    fn key_bytes(bytes: &[u8]) -> usize {
        if bytes[0] == Self::BYTES { i64::from_le_bytes(array(&bytes[1..])) as usize } else { 0 }
    }

    fn decode(bytes: &[u8]) -> Self {
        let number = |at: usize| i64::from_le_bytes(array(&bytes[at..]));
        let key = match bytes[0] {
            Self::INT => RecordKey::Int(number(1)),
            _ => RecordKey::Bytes(bytes[ENTRY_BYTES..].into()),
        };
        let version = RowVersion { order: Order::new(number(25), number(33)), is_delete: bytes[41] == 1 };
        Self { key, hash: RowHash(u128::from_le_bytes(array(&bytes[9..]))), version }
    }
}

fn array<const N: usize>(bytes: &[u8]) -> [u8; N] {
    *bytes.first_chunk().expect("an entry has all of its members")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn rows(keys: RecordKeys, hashes: &[u128]) -> SharedRows {
        let version = |hash: &u128| RowVersion { order: Order::new(*hash as i64, 1), is_delete: hash & 1 == 0 };
        SharedRows {
            keys,
            hashes: hashes.iter().map(|hash| RowHash(*hash)).collect(),
            versions: hashes.iter().map(version).collect(),
            without_key: 0,
        }
    }

    proptest! {
        /// What goes through a file in several runs comes back as what is sorted in memory.
        #[test]
        fn runs_merge_into_what_they_were_made_of(
            batches in prop::collection::vec(prop::collection::vec((0_i64..40, any::<u128>()), 0..30), 1..6),
            spills in prop::collection::vec(any::<bool>(), 6),
            are_bytes: bool,
            is_log: bool,
        ) {
            let counting = if is_log { Counting::Newest } else { Counting::Rows };
            let folder = tempfile::tempdir().unwrap();
            let mut collectors = [(); 2].map(|()| Collector::new(folder.path().to_owned(), counting));
            for (batch, spill) in batches.iter().zip(&spills) {
                let ints: Vec<i64> = batch.iter().map(|row| row.0).collect();
                let keys = if are_bytes {
                    let data: Vec<u8> = ints.iter().flat_map(|key| key.to_be_bytes()).collect();
                    RecordKeys::Bytes { ends: (1..=ints.len()).map(|n| n * 8).collect(), data }
                } else {
                    RecordKeys::Int(ints)
                };
                let hashes: Vec<u128> = batch.iter().map(|row| row.1).collect();
                for collector in &mut collectors {
                    collector.push(rows(keys.clone(), &hashes)).unwrap();
                }
                if *spill {
                    collectors[1].write_run().unwrap();
                }
            }
            let [in_memory, in_runs] = collectors.map(Collector::finish);
            prop_assert_eq!(in_memory.digest(), in_runs.digest());
            let all = |side: Collected| -> Vec<Entry> { side.into_sorted().unwrap().collect::<Result<_, _>>().unwrap() };
            let (in_memory, in_runs) = (all(in_memory), all(in_runs));
            prop_assert!(in_runs.windows(2).all(|pair| pair[0].key.as_ref() <= pair[1].key.as_ref()));
            prop_assert_eq!(in_memory, in_runs);
        }
    }
}
