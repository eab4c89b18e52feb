//! Makes the inputs that fuzzing begins with, a folder for each target, from the recorded fixtures and the documentation.
//!
//! The crates that it uses are built for libFuzzer, so it is a target, too, that does all its work before the first input:
//! `fuzz_seeds -runs=0`, in the checkout.
#![no_main]

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use fuzz::{HEADER_LEN, MAGIC, block_on, decoded, events, rows_input};
use weir::binlog::{EventBody, FileSource, RowsImage, RowsKind, Source};
use weir::transport::PublishNumber;
use weir::transport::kafka::wire::{Envelope, Kind, encode_changes};

/// Small inputs are mutated faster, and each of their bytes more often.
const SEED_BYTES_MAX: usize = 16 << 10;
/// Of one file and target.
const SEEDS_MAX: usize = 60;
/// Format description and previous GTIDs.
const HEAD_EVENTS: usize = 2;
/// GTID_LOG_EVENT, its kind with a tag, and that of MariaDB.
const BEGINNINGS: [u8; 3] = [33, 42, 162];

libfuzzer_sys::fuzz_target!(init: make(Path::new(".")), |_input: &[u8]| {});

fn make(checkout: &Path) {
    let corpus = Corpus { folder: checkout.join("target/fuzz/corpus") };
    for file in files(&checkout.join("fixtures/binlog")) {
        let name = file.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        if name.ends_with(".sql") {
            corpus.put_all("statement", &name, statements(&fs::read_to_string(&file).expect("a fixture is text")));
        } else if name.ends_with(".000001") || name.ends_with(".binlog") {
            let bytes = fs::read(&file).expect("a fixture can be read");
            corpus.put_all("binlog_file", &name, transactions(&bytes));
            let read = block_on(everything(file));
            corpus.put_all("statement", &format!("{name}-logged"), read.statements.into_iter().map(String::into_bytes));
            corpus.put_all("rows", &name, read.images.iter().filter_map(rows_input));
            corpus.put_all("json", &name, read.images.iter().flat_map(documents));
            corpus.put_all("message", &name, read.images.iter().filter_map(message));
        }
    }
    let readme = fs::read_to_string(checkout.join("README.md")).expect("the README is there");
    let settings = readme.split("```toml\n").skip(1).filter_map(|part| part.split("```").next());
    corpus.put_all("config", "README", settings.map(|text| text.as_bytes().to_vec()));
    corpus.put_all("config", "variable", [b"\0WEIR_APPLY__MEMORY_MAX\01GiB".to_vec()].into_iter());
    let log = fs::read(checkout.join("fuzz/seeds/delta-log.txt")).expect("the log is there");
    let log = String::from_utf8(log).expect("the log is text").trim_end().replace("\n\n", "\0");
    corpus.put_all("delta_log", "log", [log.into_bytes()].into_iter());
}

struct Corpus {
    folder: PathBuf,
}

impl Corpus {
    fn put_all(&self, target: &str, name: &str, seeds: impl Iterator<Item = Vec<u8>>) {
        let folder = self.folder.join(target);
        fs::create_dir_all(&folder).expect("a folder can be made");
        for (nth, seed) in seeds.filter(|seed| seed.len() <= SEED_BYTES_MAX).take(SEEDS_MAX).enumerate() {
            fs::write(folder.join(format!("{name}-{nth}")), seed).expect("a seed can be written");
        }
    }
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).expect("the fixtures are there");
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
    files.sort();
    files
}

fn statements(sql: &str) -> impl Iterator<Item = Vec<u8>> {
    sql.split(";\n").map(|statement| statement.trim().as_bytes().to_vec())
}

/// Each transaction of a file, behind the file's head.
fn transactions(file: &[u8]) -> impl Iterator<Item = Vec<u8>> {
    let events = events(&file[MAGIC.len()..]);
    let head: Vec<u8> = [&MAGIC[..], &events[..HEAD_EVENTS].concat()].concat();
    let begins = |event: &&[u8]| event.len() > HEADER_LEN && BEGINNINGS.contains(&event[4]);
    let beginnings: Vec<usize> = (0..events.len()).filter(|at| begins(&events[*at])).collect();
    let ends = beginnings.iter().skip(1).copied().chain([events.len()]);
    let ranges: Vec<_> = beginnings.iter().copied().zip(ends).collect();
    let made: Vec<Vec<u8>> =
        ranges.into_iter().map(|(begin, end)| [&head[..], &events[begin..end].concat()].concat()).collect();
    made.into_iter()
}

#[derive(Default)]
struct Read {
    images: Vec<RowsImage>,
    statements: Vec<String>,
}

/// What a file holds, up to what is refused in it.
async fn everything(file: PathBuf) -> Read {
    let mut read = Read::default();
    let mut source = FileSource::open(vec![file]).expect("a fixture can be read");
    while let Ok(Some(event)) = source.next().await {
        match event.body {
            EventBody::Rows(image) => read.images.push(image),
            EventBody::Statement { sql, .. } => read.statements.push(sql),
            _ => {}
        }
    }
    read
}

/// The documents of rows of `id INT, j JSON`, as values.sql has them.
fn documents(image: &RowsImage) -> Vec<Vec<u8>> {
    const NULLS_AND_ID: usize = 1 + 4;
    let mut found = Vec::new();
    if image.map.table != "documents" || image.kind != RowsKind::Insert {
        return found;
    }
    let mut rows = &image.rows[..];
    while let Some(length) = rows.get(NULLS_AND_ID..NULLS_AND_ID + 4) {
        let length = u32::from_le_bytes(length.try_into().expect("four bytes")) as usize;
        let Some((document, rest)) = rows[NULLS_AND_ID + 4..].split_at_checked(length) else { break };
        found.push(document.to_vec());
        rows = rest;
    }
    found
}

/// The message that a row event becomes.
fn message(image: &RowsImage) -> Option<Vec<u8>> {
    let batch = decoded(image)?;
    let body = encode_changes(&batch).ok()?;
    let envelope = Envelope {
        kind: Kind::Changes,
        has_partial_images: !batch.images.are_whole(),
        source: "shop".into(),
        table: image.map.id(),
        topic: Arc::from("weir.shop.orders"),
        publish: PublishNumber(7),
        partitions: Arc::from([0, 2]),
        part: (1, 1),
        partial: None,
    };
    let head: String = envelope.headers().iter().map(|(name, value)| format!("{name}={value}\n")).collect();
    Some([head.as_bytes(), b"\0", &body].concat())
}
