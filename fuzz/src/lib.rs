//! What the targets and the maker of their seeds share.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use tokio::runtime::{Builder, Runtime};
use weir::binlog::{RowDecoder, RowsImage, RowsKind, TableMap};
use weir_model::change::Stamp;
use weir_model::{ChangeBatch, ChangeBuilder, EventId, Order, Window, ZeroDates};

/// The head of a binlog file.
pub const MAGIC: [u8; 4] = [0xfe, b'b', b'i', b'n'];
/// Of an event: its length lies in 4 bytes from here on,
const LENGTH_AT: usize = 9;
/// and it is no shorter than its header.
pub const HEADER_LEN: usize = 19;
const CHECKSUM_LEN: usize = 4;

/// The events of a binlog file, as their lengths divide it.
pub fn events(mut bytes: &[u8]) -> Vec<&[u8]> {
    let mut events = Vec::new();
    while let Some(length) = bytes.get(LENGTH_AT..LENGTH_AT + 4) {
        let length = u32::from_le_bytes(length.try_into().expect("four bytes")) as usize;
        if length < HEADER_LEN + CHECKSUM_LEN || length > bytes.len() {
            break;
        }
        let (event, rest) = bytes.split_at(length);
        events.push(event);
        bytes = rest;
    }
    events
}

/// The file with checksums that fit: a change of a byte is to get behind them.
pub fn with_checksums(file: &[u8]) -> Vec<u8> {
    let mut made = file.to_vec();
    let mut at = MAGIC.len();
    for event in events(file.get(MAGIC.len()..).unwrap_or_default()) {
        let end = at + event.len();
        let checksum = crc32fast::hash(&made[at..end - CHECKSUM_LEN]).to_le_bytes();
        made[end - CHECKSUM_LEN..end].copy_from_slice(&checksum);
        at = end;
    }
    made
}

/// A row event and the table map before it as one input: kind and length of the map in three bytes, the map, then what is
/// present, before and after, each behind a byte of its length, and the rows.
pub fn rows_input(image: &RowsImage) -> Option<Vec<u8>> {
    let kind = match image.kind {
        RowsKind::Insert => 0,
        RowsKind::Update => 1,
        RowsKind::Delete => 2,
    };
    let mut input = vec![kind | u8::from(image.has_differences) << 2];
    input.extend(u16::try_from(image.described.len()).ok()?.to_le_bytes());
    input.extend(&image.described);
    for present in [&image.present, &image.present_after] {
        input.push(u8::try_from(present.len()).ok()?);
        input.extend(present);
    }
    input.extend(&image.rows);
    Some(input)
}

/// The row event that an input stands for, if it stands for one.
pub fn rows_of(input: &[u8]) -> Option<RowsImage> {
    let (&kind, rest) = input.split_first()?;
    let (length, rest) = rest.split_at_checked(2)?;
    let length = usize::from(u16::from_le_bytes(length.try_into().ok()?));
    let (described, rest) = rest.split_at_checked(length)?;
    let (present, rest) = behind_its_length(rest)?;
    let (present_after, rows) = behind_its_length(rest)?;
    let copied = Bytes::copy_from_slice;
    Some(RowsImage {
        map: Arc::new(TableMap::parse(described).ok()?),
        kind: [RowsKind::Insert, RowsKind::Update, RowsKind::Delete].into_iter().nth(usize::from(kind & 3))?,
        present: copied(present),
        present_after: copied(present_after),
        has_differences: kind & 4 != 0,
        rows: copied(rows),
        described: copied(described),
    })
}

fn behind_its_length(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (&length, rest) = bytes.split_first()?;
    rest.split_at_checked(usize::from(length))
}

/// The changes of a row event, as far as it can be decoded.
pub fn decoded(image: &RowsImage) -> Option<ChangeBatch> {
    let schema = Arc::new(image.map.schema(None).ok()?);
    let mut builder = ChangeBuilder::new(schema.clone(), ZeroDates::Null);
    RowDecoder::new(&image.map, schema).ok()?.decode(image, 0, &mut builder).ok()?;
    builder.stamp(|_, _| Stamp { order: Order::MIN, id: EventId(0), window: Window::of(0) });
    Some(builder.finish())
}

/// The text between bytes that divide an input, as far as it is text.
pub fn texts(input: &[u8]) -> impl Iterator<Item = &str> {
    input.split(|byte| *byte == 0).map_while(|part| std::str::from_utf8(part).ok())
}

/// Runs a future to its end, all of them on one runtime.
pub fn block_on<F: Future>(future: F) -> F::Output {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    let made = || Builder::new_current_thread().enable_all().build().expect("a runtime");
    RUNTIME.get_or_init(made).block_on(future)
}

/// A folder of this process in memory, where the system has such.
pub fn folder() -> std::path::PathBuf {
    let memory = std::path::Path::new("/dev/shm");
    let parent = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
    let folder = parent.join(format!("weir-fuzz-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder for inputs");
    folder
}
