//! What is compared at a time: a few chunks of the source, and the same range of keys in the lake. Pure.
//!
//! The lake's rows can be cut only where both sides sort alike, and its files be told apart: at bounds of whole numbers. Where
//! a table's key begins with anything else, all of it is one part. MySQL finds `école` outside of `id >= 'p'`, where its bytes lie inside.

use std::hash::BuildHasher;

use foldhash::fast::FixedState;
use snapshot_loader::{ChunkRange, KeyValue};
use weir_model::ColumnType;
use weir_model::RecordKey;
use weir_model::key::KeyRef;
use weir_model::key_parts::integer_prefix;

/// Consecutive chunks of a table that are compared together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    pub chunks: Vec<ChunkRange>,
    pub cut: Cut,
}

/// The keys of a part, for the lake's side: at or above `from` and below `to`; none is unbounded.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Cut {
    from: Option<Bound>,
    to: Option<Bound>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Bound {
    /// In canonical form; bytes may hold the first columns alone.
    key: RecordKey,
    /// Its first column.
    leading: i64,
}

impl Cut {
    /// Its least key.
    pub fn from(&self) -> Option<&RecordKey> {
        self.from.as_ref().map(|bound| &bound.key)
    }

    /// The least key above it.
    pub fn to(&self) -> Option<&RecordKey> {
        self.to.as_ref().map(|bound| &bound.key)
    }

    /// Whether it has no lower bound: rows without a key are told of there, once.
    pub fn is_first(&self) -> bool {
        self.from.is_none()
    }

    pub fn contains(&self, key: KeyRef<'_>) -> bool {
        self.from.as_ref().is_none_or(|from| key >= from.key.as_ref())
            && self.to.as_ref().is_none_or(|to| key < to.key.as_ref())
    }

    /// Whether a file whose rows' first key column lies between these, both included, may have a row of the part.
    pub fn may_hold(&self, (least, greatest): (i64, i64)) -> bool {
        self.from.as_ref().is_none_or(|from| greatest >= from.leading)
            && self.to.as_ref().is_none_or(|to| least <= to.leading)
    }
}

/// Divides `chunks`, which follow one another and are the whole table, into parts of `chunks_max` or a few more. `key` has
/// the types in which both sides have the record key.
pub fn parts(chunks: Vec<ChunkRange>, key: &[&ColumnType], chunks_max: usize) -> Vec<Part> {
    let mut parts: Vec<Part> = Vec::new();
    for chunk in chunks {
        let bound = chunk.from.as_deref().and_then(|from| bound(from, key));
        match parts.last_mut() {
            Some(part) if part.chunks.len() < chunks_max || bound.is_none() => part.chunks.push(chunk),
            last => {
                if let Some(part) = last {
                    part.cut.to.clone_from(&bound);
                }
                parts.push(Part { chunks: vec![chunk], cut: Cut { from: bound, to: None } });
            }
        }
    }
    parts
}

/// A bound of a chunk at which the lake can be cut, too.
fn bound(from: &[KeyValue], key: &[&ColumnType]) -> Option<Bound> {
    let whole = |(value, ty): (&KeyValue, &&ColumnType)| match value {
        KeyValue::Int(value) if ty.is_integer() => Some(*value),
        _ => None,
    };
    let values: Vec<i64> = from.iter().zip(key).map(whole).collect::<Option<_>>()?;
    // Of BIGINT UNSIGNED no file's bounds are known, and every part would read the whole of the lake table.
    let leading = *values.first().filter(|_| *key[0] != ColumnType::UInt64)?;
    let key = if key.len() == 1 { RecordKey::Int(leading) } else { RecordKey::Bytes(integer_prefix(&values).into()) };
    Some(Bound { key, leading })
}

/// Which of `parts` parts are compared if only `percent` of 100 are, at least one; ascending. Follows from `seed`.
pub fn sample(parts: usize, percent: f64, seed: u64) -> Vec<usize> {
    let wanted = ((parts as f64 * percent / 100.0).ceil() as usize).clamp(1.min(parts), parts);
    let mut drawn: Vec<usize> = (0..parts).collect();
    let lots = FixedState::with_seed(seed);
    drawn.sort_by_cached_key(|part| lots.hash_one(part));
    drawn.truncate(wanted);
    drawn.sort_unstable();
    drawn
}

/// The least number of parts that must differ, of `all`, for a sample of `compared` to have one of them with 95 %; none if
/// not even every one would do.
pub fn found_with_95_percent(all: usize, compared: usize) -> Option<usize> {
    // The chance that all of the sample lie among the parts that are equal.
    let overlooked = |differing: usize| {
        (0..compared).map(|n| (all - differing).saturating_sub(n) as f64 / (all - n) as f64).product::<f64>()
    };
    (1..=all).find(|differing| overlooked(*differing) <= 0.05)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunks(bounds: &[&[KeyValue]]) -> Vec<ChunkRange> {
        let from = [None].into_iter().chain(bounds.iter().map(|bound| Some(bound.to_vec())));
        let to = bounds.iter().map(|bound| Some(bound.to_vec())).chain([None]);
        from.zip(to).map(|(from, to)| ChunkRange { from, to }).collect()
    }

    #[test]
    fn a_table_by_number_is_cut_every_few_chunks() {
        let bounds: Vec<[KeyValue; 1]> = (1..=4).map(|n| [KeyValue::Int(n * 10)]).collect();
        let bounds: Vec<&[KeyValue]> = bounds.iter().map(|bound| &bound[..]).collect();
        let parts = parts(chunks(&bounds), &[&ColumnType::Int64], 2);
        assert_eq!(parts.iter().map(|part| part.chunks.len()).collect::<Vec<_>>(), [2, 2, 1]);
        let holders =
            |key: i64| -> Vec<usize> { (0..3).filter(|&part| parts[part].cut.contains(KeyRef::Int(key))).collect() };
        assert_eq!([i64::MIN, 19, 20, 39, 40, i64::MAX].map(holders).concat(), [0, 0, 1, 1, 2, 2]);
        assert!(parts[1].cut.may_hold((0, 20)) && parts[1].cut.may_hold((39, 99)) && !parts[1].cut.may_hold((0, 19)));
        assert!(!parts[1].cut.may_hold((41, 99)));
    }

    #[test]
    fn a_table_is_cut_only_where_both_sides_sort_alike() {
        let text = |text: &str| KeyValue::Text(text.into());
        let (a, b) = ([KeyValue::Int(1), text("p")], [KeyValue::Int(2)]);
        let types = [&ColumnType::Int32, &ColumnType::Text];
        let parts_of = |bounds: &[&[KeyValue]], types: &[&ColumnType]| parts(chunks(bounds), types, 1);
        let parts = parts_of(&[&a, &b], &types);
        assert_eq!(parts.iter().map(|part| part.chunks.len()).collect::<Vec<_>>(), [2, 1]);
        let whole = parts_of(&[&[text("p")]], &[&ColumnType::Text]);
        assert!(whole.len() == 1 && whole[0].cut == Cut::default());
        assert_eq!(parts_of(&[&[KeyValue::Int(5)]], &[&ColumnType::UInt64]).len(), 1);
        assert_eq!(
            parts_of(&[&[KeyValue::Int(5), KeyValue::Int(6)]], &[&ColumnType::Int8, &ColumnType::UInt64]).len(),
            2
        );
    }

    #[test]
    fn a_sample_says_what_it_would_have_found() {
        assert_eq!(sample(40, 10.0, 1).len(), 4);
        assert_eq!((sample(3, 0.1, 1).len(), sample(0, 50.0, 1).len()), (1, 0));
        assert_ne!(sample(1_000, 5.0, 1), sample(1_000, 5.0, 2));
        assert_eq!(sample(5, 100.0, 9), [0, 1, 2, 3, 4]);
        // One of 20 at random: 19 of 20 would have to differ.
        assert_eq!(found_with_95_percent(20, 1), Some(19));
        assert_eq!(found_with_95_percent(1_000, 100), Some(29));
        assert_eq!(found_with_95_percent(7, 7), Some(1));
    }
}
