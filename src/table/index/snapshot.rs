//! An index in a file, for the next start: written under another name, synced and given its own; read whole or not at all.
//!
//! ```text
//! magic, version │ lengths of head and meta, checksum │ head (the caller's) │ meta, checksum of both
//! meta: seed, next place, files, and the shape of each shard
//! of each shard: slots, arena, checksum
//! ```
//!
//! All numbers are little-endian, checksums CRC-32. A file that is not exactly this, to the last byte, is none. What is
//! remembered of deletes is not in it.

use std::fmt;
use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::Arc;

use crc32fast::Hasher;
use weir_model::Order;

use super::super::buckets::Buckets;
use super::Index;
use super::form::{Bytes, Form, Ints, Mix};
use super::home::IndexHome;
use super::keys::Keys;
use super::pages::Pages;
use super::shard::{Shape, Shard};
use super::space::{FileRange, RowSpace};
use crate::failpoint;
use crate::modes;

const MAGIC: &[u8; 8] = b"weir-idx";
/// Changes with what the bytes mean, which includes how keys are mixed and where slots stand.
const VERSION: u32 = 1;
/// Magic, version, two lengths, checksum.
const PREAMBLE_BYTES: usize = 8 + 4 + 8 + 8 + 4;
const CHECKSUM_BYTES: usize = 4;

/// An index as it was when it was asked for.
pub struct IndexSnapshot {
    meta: Vec<u8>,
    body: Body,
}

enum Body {
    /// Memory that the index shares until it writes there.
    Shared(Keys<Ints>, Keys<Bytes>),
    /// The shards as they stand in the file.
    Copied(File),
}

impl IndexSnapshot {
    pub(super) fn shared(space: &RowSpace, mix: Mix, ints: Keys<Ints>, bytes: Keys<Bytes>) -> Self {
        Self { meta: meta(space, mix, &ints.shapes(), &bytes.shapes()), body: Body::Shared(ints, bytes) }
    }

    /// Copies an index that is on disk to `file`.
    pub(super) fn copied(
        space: &RowSpace,
        mix: Mix,
        ints: &Keys<Ints>,
        bytes: &Keys<Bytes>,
        mut file: File,
    ) -> io::Result<Self> {
        for shard in ints.shards() {
            write_shard(shard, &mut file)?;
        }
        for shard in bytes.shards() {
            write_shard(shard, &mut file)?;
        }
        Ok(Self { meta: meta(space, mix, &ints.shapes(), &bytes.shapes()), body: Body::Copied(file) })
    }

    /// Makes the file at `path` this snapshot, with `header` for whoever reads it. It is durable afterwards; whatever
    /// happens meanwhile, the file is the former one or this.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(self, path: &Path, header: &[u8]) -> io::Result<()> {
        let mut name = path.as_os_str().to_owned();
        name.push(".tmp");
        let temporary = Path::new(&name);
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        modes::create_folders(folder)?;
        let written = self.write_to(temporary, header).and_then(|()| {
            failpoint::reach(failpoint::INDEX_KEPT_WRITTEN);
            std::fs::rename(temporary, path)
        });
        if written.is_err() {
            // What takes room on a full disk.
            let _ = std::fs::remove_file(temporary);
        }
        written?;
        failpoint::reach(failpoint::INDEX_KEPT_NAMED);
        File::open(folder)?.sync_all()
    }

    fn write_to(self, path: &Path, header: &[u8]) -> io::Result<()> {
        let mut file = BufWriter::new(modes::create_file(path)?);
        let mut preamble = Vec::with_capacity(PREAMBLE_BYTES);
        preamble.extend_from_slice(MAGIC);
        preamble.extend_from_slice(&VERSION.to_le_bytes());
        preamble.extend_from_slice(&(header.len() as u64).to_le_bytes());
        preamble.extend_from_slice(&(self.meta.len() as u64).to_le_bytes());
        preamble.extend_from_slice(&checksum(&[&preamble]));
        for part in [&preamble, header, &self.meta, &checksum(&[header, &self.meta])] {
            file.write_all(part)?;
        }
        match self.body {
            Body::Shared(ints, bytes) => {
                // Each is let go once it is written, so that the index need not copy it any more.
                ints.into_shards().try_for_each(|shard| write_shard(&shard, &mut file))?;
                bytes.into_shards().try_for_each(|shard| write_shard(&shard, &mut file))?;
            }
            Body::Copied(mut copy) => {
                copy.seek(SeekFrom::Start(0))?;
                io::copy(&mut copy, &mut file)?;
            }
        }
        file.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()
    }
}

impl Index {
    /// The index in the file at `path`, and the header that it was written with; none if there is no such file, or it is
    /// not whole or of another version. Whether it is the table's present one is for the caller to see from the header.
    ///
    /// # Errors
    /// When the disk cannot be read or, if the index goes there, written.
    pub fn read(
        path: &Path,
        buckets: Buckets,
        floor: impl Fn(u32) -> Order,
        home: IndexHome,
    ) -> io::Result<Option<(Vec<u8>, Self)>> {
        let read = || {
            let file = File::open(path)?;
            let length = file.metadata()?.len();
            Self::read_from(&mut BufReader::new(file), length, buckets, floor, home)
        };
        match read() {
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::UnexpectedEof) => Ok(None),
            read => read,
        }
    }

    /// As [`Index::read`], of a file of `length` bytes.
    pub(super) fn read_from(
        file: &mut impl Read,
        length: u64,
        buckets: Buckets,
        floor: impl Fn(u32) -> Order,
        home: IndexHome,
    ) -> io::Result<Option<(Vec<u8>, Self)>> {
        let Some((header, meta)) = read_head(file, length)? else { return Ok(None) };
        let mut index = Self::of(buckets, floor, home, meta.space, Keys::new(meta.mix), Keys::new(meta.mix));
        let bytes = meta.ints.iter().chain(&meta.bytes).map(Shape::bytes).sum();
        if index.home.has_no_room_for(bytes) {
            index.pages = Some(Pages::create(&index.home, index.health.clone())?);
        }
        let pages = index.pages.as_ref();
        let Some(ints) = read_keys(file, meta.mix, &meta.ints, pages)? else { return Ok(None) };
        let Some(bytes) = read_keys(file, meta.mix, &meta.bytes, pages)? else { return Ok(None) };
        (index.ints, index.bytes) = (ints, bytes);
        index.account();
        index.health()?;
        Ok(Some((header, index)))
    }
}

impl fmt::Debug for IndexSnapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let copied = matches!(self.body, Body::Copied(_));
        f.debug_struct("IndexSnapshot").field("copied", &copied).finish_non_exhaustive()
    }
}

/// What stands before the shards.
struct Meta {
    mix: Mix,
    space: RowSpace,
    ints: Vec<Shape>,
    bytes: Vec<Shape>,
}

impl Shape {
    fn bytes(&self) -> usize {
        self.slot_bytes as usize + self.arena_bytes as usize
    }

    fn numbers(&self) -> [u32; 5] {
        [self.homes, self.len, self.garbage, self.slot_bytes, self.arena_bytes]
    }
}

fn meta(space: &RowSpace, mix: Mix, ints: &[Shape], bytes: &[Shape]) -> Vec<u8> {
    let mut out = Vec::new();
    out.extend_from_slice(&mix.seed.to_le_bytes());
    out.extend_from_slice(&space.next().to_le_bytes());
    for count in [space.ranges().len(), ints.len(), bytes.len()] {
        out.extend_from_slice(&(count as u32).to_le_bytes());
    }
    for FileRange { base, file, rows } in space.ranges() {
        out.extend_from_slice(&base.to_le_bytes());
        out.extend_from_slice(&file.to_le_bytes());
        out.extend_from_slice(&rows.to_le_bytes());
    }
    for number in ints.iter().chain(bytes).flat_map(Shape::numbers) {
        out.extend_from_slice(&number.to_le_bytes());
    }
    out
}

/// Header and meta of a file of `length` bytes; none if they, or what they say of the rest, are not right.
fn read_head(file: &mut impl Read, length: u64) -> io::Result<Option<(Vec<u8>, Meta)>> {
    let mut preamble = [0; PREAMBLE_BYTES];
    file.read_exact(&mut preamble)?;
    let (said, sum) = preamble.split_at(PREAMBLE_BYTES - CHECKSUM_BYTES);
    let mut fields = Fields(said);
    let ours = fields.take(MAGIC.len()) == Some(MAGIC) && fields.u32() == Some(VERSION) && sum == checksum(&[said]);
    let (Some(header_bytes), Some(meta_bytes)) = (fields.u64(), fields.u64()) else { return Ok(None) };
    if !ours || header_bytes.saturating_add(meta_bytes) > length {
        return Ok(None);
    }
    let header = read_bytes(file, header_bytes as usize)?;
    let meta = read_bytes(file, meta_bytes as usize)?;
    let mut sum = [0; CHECKSUM_BYTES];
    file.read_exact(&mut sum)?;
    let Some(parsed) = parse_meta(&meta).filter(|_| sum == checksum(&[&header, &meta])) else { return Ok(None) };
    let shards = parsed.ints.iter().chain(&parsed.bytes);
    let rest: usize = shards.map(|shape| shape.bytes() + CHECKSUM_BYTES).sum();
    let expected = PREAMBLE_BYTES + header.len() + meta.len() + CHECKSUM_BYTES + rest;
    Ok((expected as u64 == length).then_some((header, parsed)))
}

fn parse_meta(meta: &[u8]) -> Option<Meta> {
    let mut fields = Fields(meta);
    let (mix, next) = (Mix { seed: fields.u64()? }, fields.u64()?);
    let [files, ints, bytes] = [fields.u32()?, fields.u32()?, fields.u32()?];
    let range = |fields: &mut Fields| Some(FileRange { base: fields.u64()?, file: fields.u32()?, rows: fields.u32()? });
    let ranges: Vec<FileRange> = (0..files).map(|_| range(&mut fields)).collect::<Option<_>>()?;
    let mut shapes = |count: u32| (0..count).map(|_| fields.shape()).collect::<Option<Vec<Shape>>>();
    let (ints, bytes) = (shapes(ints)?, shapes(bytes)?);
    fields.0.is_empty().then_some(Meta { mix, space: RowSpace::of(ranges, next)?, ints, bytes })
}

fn write_shard<F: Form>(shard: &Shard<F>, out: &mut impl Write) -> io::Result<()> {
    let (slots, arena) = (shard.slots().load(), shard.arena().load());
    if (slots.len(), arena.len()) != (shard.slots().len(), shard.arena().len()) {
        return Err(io::Error::other("the index could not be read"));
    }
    out.write_all(&slots)?;
    out.write_all(&arena)?;
    out.write_all(&checksum(&[&slots, &arena]))
}

/// Shards of these shapes, of which each goes to `pages`, if there are some, as soon as it is read.
fn read_keys<F: Form>(
    file: &mut impl Read,
    mix: Mix,
    shapes: &[Shape],
    pages: Option<&Arc<Pages>>,
) -> io::Result<Option<Keys<F>>> {
    let mut shards = Vec::with_capacity(shapes.len());
    for shape in shapes {
        let slots = read_bytes(file, shape.slot_bytes as usize)?;
        let arena = read_bytes(file, shape.arena_bytes as usize)?;
        let mut sum = [0; CHECKSUM_BYTES];
        file.read_exact(&mut sum)?;
        let whole = sum == checksum(&[&slots, &arena]);
        let Some(mut shard) = Shard::of(*shape, slots, arena).filter(|_| whole) else { return Ok(None) };
        if let Some(pages) = pages {
            shard.move_to(pages);
        }
        shards.push(shard);
    }
    Ok(Keys::of(mix, shards))
}

fn read_bytes(file: &mut impl Read, len: usize) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(len);
    file.take(len as u64).read_to_end(&mut bytes)?;
    if bytes.len() < len { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(bytes) }
}

fn checksum(parts: &[&[u8]]) -> [u8; CHECKSUM_BYTES] {
    let mut hasher = Hasher::new();
    parts.iter().for_each(|part| hasher.update(part));
    hasher.finalize().to_le_bytes()
}

/// Numbers one behind another.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(taken)
    }

    fn u32(&mut self) -> Option<u32> {
        self.take(4)?.try_into().ok().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.take(8)?.try_into().ok().map(u64::from_le_bytes)
    }

    fn shape(&mut self) -> Option<Shape> {
        let [homes, len, garbage] = [self.u32()?, self.u32()?, self.u32()?];
        Some(Shape { homes, len, garbage, slot_bytes: self.u32()?, arena_bytes: self.u32()? })
    }
}
