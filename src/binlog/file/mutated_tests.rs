//! Recorded files whose events are damaged and whose checksums are made to fit: what only a hostile server or a bug would send.
//! Nothing may panic, nor take memory that the bytes do not account for; whatever comes out is a refusal or plain rows.
//!
//! `WEIR_MUTATIONS` says how many are tried, `WEIR_MUTATION_SEED` where to begin; a failure names the seed that does it again.

use std::fs;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures::FutureExt;
use weir_model::{ChangeBuilder, ZeroDates};

use super::tests::{Folder, boundaries, fixture};
use super::*;
use crate::binlog::row::RowDecoder;
use crate::binlog::{EventBody, RowsImage};

const FILES: [&str; 6] = ["basic", "compressed", "ddl", "images", "oracle", "xa"];
/// Of what the process may have grown by, whatever was claimed: the largest file has some 100 KB.
const GROWTH_BYTES_MAX: u64 = 1 << 30;

/// A generator that follows from its seed (splitmix64).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }
}

/// Damages up to four bodies of `bytes` behind the format description, and makes sizes and checksums fit.
fn mutate(bytes: &[u8], random: &mut Random) -> Vec<u8> {
    let bounds = boundaries(bytes);
    let mut events: Vec<Vec<u8>> = bounds.windows(2).map(|pair| bytes[pair[0]..pair[1]].to_vec()).collect();
    for _ in 0..=random.below(4) {
        let at = 1 + random.below(events.len() - 1);
        damage(&mut events[at], random);
    }
    let mut whole = MAGIC.to_vec();
    for (at, mut event) in events.into_iter().enumerate() {
        if at > 0 {
            let size = u32::try_from(event.len()).unwrap();
            event[9..13].copy_from_slice(&size.to_le_bytes());
            let covered = event.len() - 4;
            let checksum = crc32fast::hash(&event[..covered]);
            event[covered..].copy_from_slice(&checksum.to_le_bytes());
        }
        whole.extend(event);
    }
    whole
}

/// Changes an event's kind, or its body between header and checksum.
fn damage(event: &mut Vec<u8>, random: &mut Random) {
    const LOUD: [u8; 10] = [0, 1, 0x7f, 0x80, 0xfa, 0xfb, 0xfc, 0xfd, 0xfe, 0xff];
    let body = HEADER_LEN..event.len() - 4;
    if body.is_empty() || random.below(40) == 0 {
        event[4] = random.next() as u8;
        return;
    }
    let at = body.start + random.below(body.len());
    match random.below(6) {
        0 | 1 => event[at] ^= 1 << random.below(8),
        2 => event[at] = LOUD[random.below(LOUD.len())],
        3 => {
            let end = (at + 1 + random.below(8)).min(body.end);
            event[at..end].fill(LOUD[random.below(LOUD.len())]);
        }
        4 => {
            let end = (at + 1 + random.below(16)).min(body.end);
            event.drain(at..end);
        }
        _ => {
            let more: Vec<u8> = (0..=random.below(16)).map(|_| random.next() as u8).collect();
            event.splice(at..at, more);
        }
    }
}

/// Reads a file as capture does; gives how many rows came out.
async fn read_rows(path: PathBuf) -> u64 {
    let Ok(mut source) = FileSource::open(vec![path]) else { return 0 };
    let mut rows = 0;
    while let Ok(Some(event)) = source.next().await {
        if let EventBody::Rows(image) = &event.body {
            rows += decoded(image).unwrap_or(0);
        }
    }
    rows
}

fn decoded(image: &RowsImage) -> Option<u64> {
    let schema = Arc::new(image.map.schema(None).ok()?);
    let decoder = RowDecoder::new(&image.map, schema.clone()).ok()?;
    let mut builder = ChangeBuilder::new(schema, ZeroDates::Null);
    decoder.decode(image, 0, &mut builder).ok()
}

/// The most that the process has ever had in memory, as Linux tells it (proc(5), VmHWM).
fn peak_bytes() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or("0 kB");
    line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number of kB") * 1024
}

fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable).map_or(default, |text| text.parse().expect("a whole number"))
}

#[tokio::test]
async fn hostile_bytes_never_panic_and_never_take_more_memory_than_they_account_for() {
    let (tries, first) = (number("WEIR_MUTATIONS", 4_000), number("WEIR_MUTATION_SEED", 1));
    let files: Vec<Vec<u8>> = FILES.iter().map(|name| fs::read(fixture(name)).unwrap()).collect();
    let (folder, peak_before) = (Folder::new(), peak_bytes());
    let (mut rows, mut damaged) = (0, 0);
    for seed in first..first + tries {
        let mut random = Random(seed);
        let which = random.below(files.len());
        let bytes = mutate(&files[which], &mut random);
        damaged += u64::from(bytes != files[which]);
        let path = folder.write("mutated.000001", &bytes);
        let read = AssertUnwindSafe(read_rows(path)).catch_unwind().await;
        assert!(read.is_ok(), "{} damaged by seed {seed} makes it panic", FILES[which]);
        rows += read.unwrap_or(0);
        let growth = peak_bytes().saturating_sub(peak_before);
        assert!(growth < GROWTH_BYTES_MAX, "{} damaged by seed {seed} takes {growth} bytes", FILES[which]);
    }
    println!("{tries} files from seed {first} on, {damaged} of them damaged, {rows} rows read in spite of it");
    assert!(damaged > tries * 9 / 10 && rows > 0, "{damaged} of {tries} were damaged, {rows} rows came out");
}
