//! An array of bytes in memory, or in a region of a scratch file; and the slots that lie in such an array.

use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;

use super::pages::{Pages, Region};

/// How a slot's bytes are shared out: a little-endian number, with the rank above the payload.
///
/// A payload of all ones is an empty slot, whose rank is all ones, too. Where slots have fewer than eight bytes, ranks have at
/// most 32 bits.
pub trait Layout {
    const SLOT_BYTES: usize;
    const RANK_BITS: u32;
    const PAYLOAD_BITS: u32 = Self::SLOT_BYTES as u32 * 8 - Self::RANK_BITS;
    const EMPTY: u64 = (1 << Self::PAYLOAD_BITS) - 1;
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slot {
    /// What slots are ordered by.
    pub rank: u64,
    pub payload: u64,
}

pub enum Blob {
    Memory(Arc<Vec<u8>>),
    /// A region, and how many of its bytes are used.
    Disk(Region, usize),
}

/// Most that is set aside for appending, as a part of what is there: memory that nothing uses.
const SPARE_PART: usize = 32;
const SPARE_BYTES_MIN: usize = 32;

impl Slot {
    #[inline]
    fn read<L: Layout>(bytes: &[u8]) -> Self {
        let mut number = [0; 16];
        number[..L::SLOT_BYTES].copy_from_slice(&bytes[..L::SLOT_BYTES]);
        let number = u128::from_le_bytes(number);
        Self { rank: (number >> L::PAYLOAD_BITS) as u64, payload: number as u64 & L::EMPTY }
    }

    #[inline]
    fn write<L: Layout>(self, bytes: &mut [u8]) {
        let number = u128::from(self.rank) << L::PAYLOAD_BITS | u128::from(self.payload);
        bytes[..L::SLOT_BYTES].copy_from_slice(&number.to_le_bytes()[..L::SLOT_BYTES]);
    }

    #[inline]
    pub fn is_empty<L: Layout>(self) -> bool {
        self.payload == L::EMPTY
    }
}

/// The rank in the bytes of a slot, which are at least as many as it is read from.
#[inline]
fn rank_in<L: Layout>(slot: &[u8]) -> u64 {
    let end = L::SLOT_BYTES;
    if end >= 8 {
        let top: [u8; 8] = slot[end - 8..end].try_into().expect("eight bytes");
        u64::from_le_bytes(top) >> (64 - L::RANK_BITS)
    } else {
        let top: [u8; 4] = slot[end - 4..end].try_into().expect("four bytes");
        u64::from(u32::from_le_bytes(top) >> (32 - L::RANK_BITS))
    }
}

/// The slots of an array, the empty ones included.
pub fn slots_in<L: Layout>(bytes: &[u8]) -> impl Iterator<Item = Slot> {
    bytes.chunks_exact(L::SLOT_BYTES).map(Slot::read::<L>)
}

/// Writes a slot in an array that is being made.
#[inline]
pub fn put_slot<L: Layout>(bytes: &mut [u8], at: usize, slot: Slot) {
    slot.write::<L>(&mut bytes[at * L::SLOT_BYTES..]);
}

impl Blob {
    pub fn len(&self) -> usize {
        match self {
            Self::Memory(bytes) => bytes.len(),
            Self::Disk(_, len) => *len,
        }
    }

    pub fn bytes_in_memory(&self) -> usize {
        match self {
            Self::Memory(bytes) => bytes.capacity(),
            Self::Disk(..) => 0,
        }
    }

    /// All bytes; fewer if they cannot be read.
    pub fn load(&self) -> Cow<'_, [u8]> {
        match self {
            Self::Memory(bytes) => Cow::Borrowed(bytes),
            Self::Disk(region, len) => Cow::Owned(region.load(*len)),
        }
    }

    /// The same bytes, which stay as they are whatever is written here; `None` on disk.
    pub fn share(&self) -> Option<Self> {
        match self {
            Self::Memory(bytes) => Some(Self::Memory(bytes.clone())),
            Self::Disk(..) => None,
        }
    }

    /// Whether `parts`, one behind another, lie at `at`.
    #[inline]
    pub fn has(&self, at: usize, parts: [&[u8]; 2]) -> bool {
        let [first, second] = parts;
        let end = at + first.len() + second.len();
        if end > self.len() {
            return false;
        }
        let is = |bytes: &[u8]| bytes[..first.len()] == *first && bytes[first.len()..] == *second;
        match self {
            Self::Memory(bytes) => is(&bytes[at..end]),
            Self::Disk(region, _) => {
                let mut bytes = vec![0; end - at];
                region.read(at, &mut bytes) && is(&bytes)
            }
        }
    }

    /// Reads as many bytes as there are; false if it cannot.
    #[inline]
    pub fn read(&self, at: usize, out: &mut [u8]) -> bool {
        match self {
            Self::Memory(bytes) => {
                out.copy_from_slice(&bytes[at..at + out.len()]);
                true
            }
            Self::Disk(region, _) => region.read(at, out),
        }
    }

    /// 0 where there is none, and on disk.
    #[inline]
    pub fn byte_in_memory(&self, at: usize) -> u8 {
        match self {
            Self::Memory(bytes) => bytes.get(at).copied().unwrap_or(0),
            Self::Disk(..) => 0,
        }
    }

    /// The first bytes of what lies at `at`, as many as there are up to 32.
    pub fn head(&self, at: usize) -> Vec<u8> {
        let mut head = vec![0; self.len().saturating_sub(at).min(32)];
        self.read(at, &mut head);
        head
    }

    #[inline]
    pub fn write(&mut self, at: usize, bytes: &[u8]) {
        match self {
            Self::Memory(all) => Arc::make_mut(all)[at..at + bytes.len()].copy_from_slice(bytes),
            Self::Disk(region, _) => region.write(at, bytes),
        }
    }

    /// Adds bytes at the end. On disk, regions are of units of `unit` bytes.
    pub fn append(&mut self, bytes: &[u8], unit: usize) {
        match self {
            Self::Memory(all) => {
                let all = Arc::make_mut(all);
                if all.capacity() - all.len() < bytes.len() {
                    all.reserve_exact(bytes.len().max(all.len() / SPARE_PART).max(SPARE_BYTES_MIN));
                }
                all.extend_from_slice(bytes);
            }
            Self::Disk(region, len) => {
                let end = *len + bytes.len();
                if end > region.room() {
                    let all = region.load(*len);
                    *region = region.pages().store(&all, end + end / 8, unit);
                }
                region.write(*len, bytes);
                *len = end;
            }
        }
    }

    /// Has these bytes from here on, where it is.
    pub fn replace(&mut self, bytes: Vec<u8>, unit: usize) {
        match self {
            Self::Memory(all) => *all = Arc::new(bytes),
            Self::Disk(region, len) => {
                *region = region.pages().store(&bytes, bytes.len(), unit);
                *len = bytes.len();
            }
        }
    }

    pub fn move_to(&mut self, pages: &Arc<Pages>, unit: usize) {
        if let Self::Memory(bytes) = self {
            *self = Self::Disk(pages.store(bytes, bytes.len(), unit), bytes.len());
        }
    }

    /// Where a search for slots of `rank` may begin that was to begin at `from`, where ranks rise up to the first gap:
    /// slots before it have lesser ranks. On disk that is `from` itself.
    ///
    /// Slots are compared by the block, without a branch for each.
    #[inline]
    pub fn seek<L: Layout>(&self, from: usize, rank: u64) -> usize {
        const BLOCK: usize = 8;
        let Self::Memory(bytes) = self else { return from };
        let mut at = from;
        while let Some(block) = bytes.get(at * L::SLOT_BYTES..(at + BLOCK) * L::SLOT_BYTES) {
            let below: usize =
                block.chunks_exact(L::SLOT_BYTES).map(|slot| usize::from(rank_in::<L>(slot) < rank)).sum();
            at += below;
            if below < BLOCK {
                break;
            }
        }
        at
    }

    /// Gives each slot from `from` on to `each`, until it says something.
    #[inline]
    pub fn scan<L: Layout, T>(&self, from: usize, mut each: impl FnMut(usize, Slot) -> Option<T>) -> Option<T> {
        match self {
            Self::Memory(bytes) => {
                let slots = slots_in::<L>(bytes.get(from * L::SLOT_BYTES..)?);
                slots.enumerate().find_map(|(i, slot)| each(from + i, slot))
            }
            Self::Disk(region, len) => {
                let mut at = from;
                while at * L::SLOT_BYTES < *len {
                    // A copy, since `each` may read of another region.
                    let bytes = region.rest_of_page(at * L::SLOT_BYTES, *len)?;
                    for slot in slots_in::<L>(&bytes) {
                        if let Some(said) = each(at, slot) {
                            return Some(said);
                        }
                        at += 1;
                    }
                }
                None
            }
        }
    }

    /// Makes it so that slot `at` is `slot`.
    #[inline]
    pub fn set_slot<L: Layout>(&mut self, at: usize, slot: Slot) {
        let mut bytes = [0; 16];
        slot.write::<L>(&mut bytes);
        self.write(at * L::SLOT_BYTES, &bytes[..L::SLOT_BYTES]);
    }

    /// Copies slots to where `to` is the first of them.
    #[inline]
    pub fn copy_slots<L: Layout>(&mut self, from: Range<usize>, to: usize) {
        let range = from.start * L::SLOT_BYTES..from.end * L::SLOT_BYTES;
        let to = to * L::SLOT_BYTES;
        match self {
            Self::Memory(bytes) => Arc::make_mut(bytes).copy_within(range, to),
            Self::Disk(region, _) => {
                let mut bytes = vec![0; range.len()];
                if region.read(range.start, &mut bytes) {
                    region.write(to, &bytes);
                }
            }
        }
    }
}

impl Default for Blob {
    fn default() -> Self {
        Self::Memory(Arc::default())
    }
}
