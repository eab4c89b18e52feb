//! How keys lie in slots: an integer is the slot's rank itself; of other keys the rank is a part of a hash, and the key
//! stands in an arena beside, in full. Neither form ever takes one key for another.

use super::blob::{Blob, Layout};
use super::space::PLACE_BYTES;

/// Bits of a mixed key that choose its shard; the rank is what follows.
pub const SHARD_BITS: u32 = 8;

/// A form of keys.
pub trait Form: Layout {
    type Key: ?Sized;

    /// 64 bits of the key that are spread evenly; the first choose the shard, and the next are the rank.
    fn mixed(mix: Mix, key: &Self::Key) -> u64;

    /// Whether a slot of the key's rank is the key's.
    fn is_of(arena: &Blob, payload: u64, key: &Self::Key) -> bool;

    /// Where the row of a slot's key is; `None` if it cannot be read.
    fn place(arena: &Blob, payload: u64) -> Option<u64>;

    /// Notes another place for a slot's key; gives the slot's payload from here on.
    fn moved(arena: &mut Blob, payload: u64, place: u64) -> u64;

    /// The payload of a key that comes in; `None` if the arena has no room for it.
    fn admit(arena: &mut Blob, key: &Self::Key, place: u64) -> Option<u64>;

    /// Bytes of the arena that a slot's key takes.
    fn arena_bytes(arena: &[u8], payload: u64) -> usize;

    /// Copies a slot's key into another arena; gives its payload there.
    fn carry(arena: &[u8], payload: u64, into: &mut Vec<u8>) -> u64;

    /// Gives the key of a slot, and its place, to `each`.
    fn show(mix: Mix, mixed: u64, payload: u64, arena: &[u8], each: &mut dyn FnMut(&Self::Key, u64));
}

/// A bijection of 64 bits: equal in size and shuffled, so that keys need not be hashed and stored both. The seed keeps
/// whoever chooses keys from choosing where they lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mix {
    pub seed: u64,
}

/// Of MurmurHash3's 64-bit finaliser, as Stafford's variant 13 has them.
const FACTORS: [u64; 2] = [0xBF58_476D_1CE4_E5B9, 0x94D0_49BB_1331_11EB];
const INVERSES: [u64; 2] = [inverse(FACTORS[0]), inverse(FACTORS[1])];

/// Of an odd number modulo 2^64, by Newton's method: each turn doubles the bits that are right, from three on.
const fn inverse(factor: u64) -> u64 {
    let mut inverse = factor;
    let mut turn = 0;
    while turn < 5 {
        inverse = inverse.wrapping_mul(2_u64.wrapping_sub(factor.wrapping_mul(inverse)));
        turn += 1;
    }
    inverse
}

impl Mix {
    #[inline]
    pub fn mix(self, value: u64) -> u64 {
        let mut x = value ^ self.seed;
        x = (x ^ x >> 32).wrapping_mul(FACTORS[0]);
        x = (x ^ x >> 29).wrapping_mul(FACTORS[1]);
        x ^ x >> 32
    }

    #[inline]
    pub fn unmix(self, mixed: u64) -> u64 {
        let mut x = (mixed ^ mixed >> 32).wrapping_mul(INVERSES[1]);
        x = (x ^ x >> 29 ^ x >> 58).wrapping_mul(INVERSES[0]);
        x ^ x >> 32 ^ self.seed
    }
}

/// Keys of a single integer column. With the shard, the rank is the whole mixed key; the payload is the place.
pub struct Ints;

impl Layout for Ints {
    const SLOT_BYTES: usize = 12;
    const RANK_BITS: u32 = 64 - SHARD_BITS;
}

impl Form for Ints {
    type Key = i64;

    #[inline]
    fn mixed(mix: Mix, key: &i64) -> u64 {
        mix.mix(*key as u64)
    }

    #[inline]
    fn is_of(_: &Blob, _: u64, _: &i64) -> bool {
        true
    }

    #[inline]
    fn place(_: &Blob, payload: u64) -> Option<u64> {
        Some(payload)
    }

    #[inline]
    fn moved(_: &mut Blob, _: u64, place: u64) -> u64 {
        place
    }

    #[inline]
    fn admit(_: &mut Blob, _: &i64, place: u64) -> Option<u64> {
        Some(place)
    }

    fn arena_bytes(_: &[u8], _: u64) -> usize {
        0
    }

    fn carry(_: &[u8], payload: u64, _: &mut Vec<u8>) -> u64 {
        payload
    }

    fn show(mix: Mix, mixed: u64, payload: u64, _: &[u8], each: &mut dyn FnMut(&i64, u64)) {
        each(&(mix.unmix(mixed) as i64), payload);
    }
}

/// Every other key. The payload says where in the shard's arena its record is: place, length (a varint), key.
pub struct Bytes;

impl Layout for Bytes {
    const SLOT_BYTES: usize = 6;
    /// Two keys of a shard share one rarely below a million; they are then told apart in the arena.
    const RANK_BITS: u32 = 20;
}

impl Form for Bytes {
    type Key = [u8];

    #[inline]
    fn mixed(mix: Mix, key: &[u8]) -> u64 {
        mix.mix(weir_model::key::KeyRef::Bytes(key).hash64())
    }

    #[inline]
    fn is_of(arena: &Blob, payload: u64, key: &[u8]) -> bool {
        let (length, n) = varint(key.len());
        arena.has(payload as usize + PLACE_BYTES, [&length[..n], key])
    }

    #[inline]
    fn place(arena: &Blob, payload: u64) -> Option<u64> {
        let mut place = [0; 8];
        arena.read(payload as usize, &mut place[..PLACE_BYTES]).then(|| u64::from_le_bytes(place))
    }

    #[inline]
    fn moved(arena: &mut Blob, payload: u64, place: u64) -> u64 {
        arena.write(payload as usize, &place.to_le_bytes()[..PLACE_BYTES]);
        payload
    }

    fn admit(arena: &mut Blob, key: &[u8], place: u64) -> Option<u64> {
        let at = arena.len() as u64;
        let (length, n) = varint(key.len());
        if at + (PLACE_BYTES + n + key.len()) as u64 >= Self::EMPTY {
            return None;
        }
        let mut record = Vec::with_capacity(PLACE_BYTES + n + key.len());
        record.extend_from_slice(&place.to_le_bytes()[..PLACE_BYTES]);
        record.extend_from_slice(&length[..n]);
        record.extend_from_slice(key);
        arena.append(&record, 1);
        Some(at)
    }

    fn arena_bytes(arena: &[u8], payload: u64) -> usize {
        key_range(arena, payload as usize).1 - payload as usize
    }

    fn carry(arena: &[u8], payload: u64, into: &mut Vec<u8>) -> u64 {
        let at = into.len() as u64;
        let (_, end) = key_range(arena, payload as usize);
        into.extend_from_slice(arena.get(payload as usize..end).unwrap_or_default());
        at
    }

    fn show(_: Mix, _: u64, payload: u64, arena: &[u8], each: &mut dyn FnMut(&[u8], u64)) {
        let at = payload as usize;
        let (start, end) = key_range(arena, at);
        let Some(key) = arena.get(start..end) else { return };
        let mut place = [0; 8];
        place[..PLACE_BYTES].copy_from_slice(&arena[at..at + PLACE_BYTES]);
        each(key, u64::from_le_bytes(place));
    }
}

/// Seven bits a byte, the lowest first; how many bytes it takes beside.
#[inline]
fn varint(value: usize) -> ([u8; 10], usize) {
    let (mut bytes, mut n, mut rest) = ([0; 10], 0, value);
    loop {
        bytes[n] = (rest & 0x7F) as u8;
        rest >>= 7;
        n += 1;
        if rest == 0 {
            return (bytes, n);
        }
        bytes[n - 1] |= 0x80;
    }
}

/// Where the key of a record begins and ends; an arena that could not be read may be shorter.
fn key_range(arena: &[u8], record: usize) -> (usize, usize) {
    let (mut length, mut shift, mut at) = (0_usize, 0, record + PLACE_BYTES);
    while let Some(byte) = arena.get(at) {
        length |= usize::from(byte & 0x7F) << shift;
        (at, shift) = (at + 1, shift + 7);
        if byte & 0x80 == 0 || shift > 56 {
            break;
        }
    }
    (at, at.saturating_add(length))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_mixed_can_be_unmixed(seed: u64, value: u64) {
            let mix = Mix { seed };
            prop_assert_eq!(mix.unmix(mix.mix(value)), value);
        }

        #[test]
        fn a_records_key_is_found_again(before in prop::collection::vec(any::<u8>(), 0..300), key in prop::collection::vec(any::<u8>(), 0..40_000)) {
            let mut arena = Blob::default();
            Bytes::admit(&mut arena, &before, 3).unwrap();
            let payload = Bytes::admit(&mut arena, &key, 0xFF_FFFF_FFFE).unwrap();
            prop_assert!(Bytes::is_of(&arena, payload, &key));
            prop_assert_eq!(Bytes::is_of(&arena, 0, &key), before == key);
            prop_assert_eq!(Bytes::place(&arena, payload), Some(0xFF_FFFF_FFFE));
            let bytes = arena.load();
            prop_assert_eq!(payload as usize + Bytes::arena_bytes(&bytes, payload), bytes.len());
            let mut seen = None;
            Bytes::show(Mix { seed: 0 }, 0, payload, &bytes, &mut |key, place| seen = Some((key.to_vec(), place)));
            prop_assert_eq!(seen, Some((key, 0xFF_FFFF_FFFE)));
        }
    }
}
