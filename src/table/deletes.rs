//! Deletion vectors: which rows of a data file are dead (Delta protocol, "Deletion Vector Format").

use std::ops::Range;

use bytes::{BufMut, Bytes, BytesMut};
use roaring::{RoaringBitmap, RoaringTreemap};
use uuid::Uuid;

use super::TableError;
use super::delta::DeletionVector;

/// First byte of a deletion-vector file.
const FILE_VERSION: u8 = 1;
/// Begins every vector, little-endian.
const MAGIC: u32 = 1_681_511_377;

/// Writes several vectors into one file.
#[derive(Debug)]
pub struct VectorFile {
    uuid: Uuid,
    bytes: BytesMut,
}

impl VectorFile {
    pub fn new(uuid: Uuid) -> Self {
        let mut bytes = BytesMut::new();
        bytes.put_u8(FILE_VERSION);
        Self { uuid, bytes }
    }

    /// Appends the vector that marks `dead` rows, and describes it.
    pub fn push(&mut self, dead: &RoaringBitmap) -> DeletionVector {
        let offset = self.bytes.len();
        let treemap: RoaringTreemap = RoaringTreemap::from_bitmaps([(0, dead.clone())]);
        let mut data = Vec::with_capacity(4 + treemap.serialized_size());
        data.put_u32_le(MAGIC);
        treemap.serialize_into(&mut data).expect("writing to memory does not fail");
        self.bytes.put_u32(data.len() as u32);
        self.bytes.put_slice(&data);
        self.bytes.put_u32(crc32fast::hash(&data));
        DeletionVector {
            storage_type: "u".into(),
            path_or_inline_dv: z85::encode(self.uuid.as_bytes()),
            offset: Some(offset as i32),
            size_in_bytes: data.len() as i32,
            cardinality: dead.len() as i64,
        }
    }

    pub fn finish(self) -> Bytes {
        self.bytes.freeze()
    }
}

/// Where a vector lies in its file: its size, its data and its checksum.
pub fn range_of(vector: &DeletionVector, offset: usize) -> Range<u64> {
    let offset = offset as u64;
    offset..offset + 4 + vector.size_in_bytes as u64 + 4
}

/// Reads the vector that `vector` describes from the bytes of its range.
///
/// # Errors
/// When the bytes are not what the descriptor says: size, checksum, magic or cardinality differ.
pub fn read_vector(vector: &DeletionVector, bytes: &[u8]) -> Result<RoaringBitmap, TableError> {
    let broken = |what: &str| TableError::Damaged(format!("deletion vector {}: {what}", vector.path_or_inline_dv));
    let size = vector.size_in_bytes as usize;
    if bytes.len() != size + 8 {
        return Err(broken("the file is too short"));
    }
    let (data, crc) = bytes[4..].split_at(size);
    if bytes[..4] != (size as u32).to_be_bytes() {
        return Err(broken("its size differs"));
    }
    if crc != crc32fast::hash(data).to_be_bytes() {
        return Err(broken("its checksum differs"));
    }
    let Some(treemap) = data.strip_prefix(&MAGIC.to_le_bytes()) else {
        return Err(broken("its magic number differs"));
    };
    let treemap = RoaringTreemap::deserialize_from(treemap).map_err(|error| broken(&error.to_string()))?;
    let dead: RoaringBitmap = treemap
        .iter()
        .map(u32::try_from)
        .collect::<Result<_, _>>()
        .map_err(|_| broken("it marks a row beyond 2^32"))?;
    if dead.len() as i64 != vector.cardinality {
        return Err(broken("its cardinality differs"));
    }
    Ok(dead)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn vectors_of_one_file_are_read_back(sets in prop::collection::vec(prop::collection::btree_set(0_u32..100_000, 0..50), 1..4)) {
            let mut file = VectorFile::new(Uuid::from_u128(7));
            let vectors: Vec<_> = sets.iter().map(|set| (file.push(&set.iter().collect()), set)).collect();
            let bytes = file.finish();
            for (vector, set) in vectors {
                let range = range_of(&vector, vector.offset.unwrap() as usize);
                let dead = read_vector(&vector, &bytes[range.start as usize..range.end as usize]).unwrap();
                prop_assert!(dead.iter().eq(set.iter().copied()));
            }
        }
    }

    #[test]
    fn a_flipped_bit_is_told() {
        let mut file = VectorFile::new(Uuid::from_u128(7));
        let vector = file.push(&[1, 5].into_iter().collect());
        let bytes = file.finish()[1..].to_vec();
        assert_eq!(read_vector(&vector, &bytes).unwrap().len(), 2);
        for at in 0..bytes.len() {
            let mut flipped = bytes.clone();
            flipped[at] ^= 1;
            assert!(matches!(read_vector(&vector, &flipped), Err(TableError::Damaged(_))), "byte {at}");
        }
        assert!(matches!(read_vector(&vector, &bytes[..bytes.len() - 1]), Err(TableError::Damaged(_))));
    }
}
