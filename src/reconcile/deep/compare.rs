//! Two sides in the order of their keys, put side by side. Pure.

use std::io;
use std::iter::Peekable;

use weir_model::RecordKey;

use super::entries::{Entry, RowVersion};
use weir_model::row_hash::RowHash;

/// What is wrong with a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finding {
    /// The source has a row of it, and the lake has none.
    Missing,
    /// The lake has one, and the source has none.
    Extra,
    /// Both have one, and not the same; or the lake has several.
    Different,
}

/// What a side has of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum KeyState {
    Absent,
    Row(RowHash),
    /// More rows than one, which no key may have.
    Several,
}

/// How rows of one key count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Counting {
    /// Each is a row.
    Rows,
    /// The newest is what the key has, unless it says that the key is gone.
    Newest,
}

impl KeyState {
    /// Of all rows of one key.
    pub fn of(rows: impl IntoIterator<Item = (RowHash, RowVersion)>, counting: Counting) -> Self {
        let mut rows = rows.into_iter();
        match counting {
            Counting::Newest => match rows.max_by_key(|(_, version)| version.order) {
                Some((hash, version)) if !version.is_delete => Self::Row(hash),
                _ => Self::Absent,
            },
            Counting::Rows => match (rows.next(), rows.next()) {
                (None, _) => Self::Absent,
                (Some((hash, _)), None) => Self::Row(hash),
                (Some(_), Some(_)) => Self::Several,
            },
        }
    }
}

/// What is wrong with a key of which the two sides have this; nothing if they have the same.
pub fn finding(source: KeyState, lake: KeyState) -> Option<Finding> {
    match (source, lake) {
        (KeyState::Absent, KeyState::Absent) => None,
        (KeyState::Row(source), KeyState::Row(lake)) if source == lake => None,
        (KeyState::Absent, _) => Some(Finding::Extra),
        (_, KeyState::Absent) => Some(Finding::Missing),
        _ => Some(Finding::Different),
    }
}

/// Hands every key that the two sides do not have alike to `found`, ascending; gives how many keys the lake has.
///
/// # Errors
/// When a side cannot be read.
pub fn compare(
    source: impl Iterator<Item = io::Result<Entry>>,
    lake: impl Iterator<Item = io::Result<Entry>>,
    counting: Counting,
    mut found: impl FnMut(RecordKey, Finding),
) -> io::Result<u64> {
    let (mut source, mut lake) = (source.peekable(), lake.peekable());
    let mut keys_in_lake = 0;
    while let Some(key) = least_key(&mut source, &mut lake)? {
        let of_source = KeyState::of(rows_of(&mut source, &key)?, Counting::Rows);
        let of_lake = KeyState::of(rows_of(&mut lake, &key)?, counting);
        keys_in_lake += u64::from(of_lake != KeyState::Absent);
        if let Some(finding) = finding(of_source, of_lake) {
            found(key, finding);
        }
    }
    Ok(keys_in_lake)
}

type Side<I> = Peekable<I>;

fn least_key<A, B>(source: &mut Side<A>, lake: &mut Side<B>) -> io::Result<Option<RecordKey>>
where
    A: Iterator<Item = io::Result<Entry>>,
    B: Iterator<Item = io::Result<Entry>>,
{
    let key = match (next_key(source)?, next_key(lake)?) {
        (Some(source), Some(lake)) if lake.as_ref() < source.as_ref() => Some(lake),
        (Some(source), _) => Some(source),
        (None, lake) => lake,
    };
    Ok(key.cloned())
}

fn next_key<I: Iterator<Item = io::Result<Entry>>>(side: &mut Side<I>) -> io::Result<Option<&RecordKey>> {
    // An error is taken out and handed on; behind one nothing is read.
    if let Some(Err(error)) = side.next_if(Result::is_err) {
        return Err(error);
    }
    Ok(side.peek().and_then(|entry| entry.as_ref().ok()).map(|entry| &entry.key))
}

/// Takes the rows of `key`, which is the least that is left.
fn rows_of<I: Iterator<Item = io::Result<Entry>>>(
    side: &mut Side<I>,
    key: &RecordKey,
) -> io::Result<Vec<(RowHash, RowVersion)>> {
    let mut rows = Vec::with_capacity(1);
    while let Some(entry) = side.next_if(|entry| entry.as_ref().is_ok_and(|entry| entry.key == *key)) {
        let entry = entry?;
        rows.push((entry.hash, entry.version));
    }
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;
    use weir_model::Order;

    use super::*;

    fn entry(key: i64, hash: u128, seq: i64, is_delete: bool) -> Entry {
        let version = RowVersion { order: Order::new(0, seq), is_delete };
        Entry { key: RecordKey::Int(key), hash: RowHash(hash), version }
    }

    fn findings(source: Vec<Entry>, lake: Vec<Entry>, counting: Counting) -> Vec<(i64, Finding)> {
        let mut found = Vec::new();
        let side = |entries: Vec<Entry>| entries.into_iter().map(Ok);
        compare(side(source), side(lake), counting, |key, finding| {
            let RecordKey::Int(key) = key else { unreachable!() };
            found.push((key, finding));
        })
        .unwrap();
        found
    }

    #[test]
    fn each_kind_of_difference_is_named() {
        let source = vec![entry(1, 1, 0, false), entry(2, 2, 0, false), entry(3, 3, 0, false), entry(5, 5, 0, false)];
        let lake = vec![
            entry(0, 9, 0, false),
            entry(1, 1, 0, false),
            entry(3, 4, 0, false),
            entry(5, 5, 0, false),
            entry(5, 5, 0, false),
        ];
        let expected = [(0, Finding::Extra), (2, Finding::Missing), (3, Finding::Different), (5, Finding::Different)];
        assert_eq!(findings(source, lake, Counting::Rows), expected);
    }

    #[test]
    fn in_a_log_the_newest_row_counts() {
        let source = vec![entry(1, 1, 0, false), entry(2, 2, 0, false)];
        let lake = vec![
            entry(1, 1, 7, false),
            entry(1, 9, 3, true),
            entry(2, 2, 1, false),
            entry(2, 2, 2, true),
            entry(3, 3, 1, true),
        ];
        assert_eq!(findings(source, lake, Counting::Newest), [(2, Finding::Missing)]);
    }

    #[test]
    fn a_side_that_cannot_be_read_is_no_difference() {
        let broken = [Ok(entry(1, 1, 0, false)), Err(io::Error::other("disk"))];
        let whole = [entry(1, 1, 0, false), entry(2, 2, 0, false)].map(Ok);
        let error = compare(whole.into_iter(), broken.into_iter(), Counting::Rows, |_, _| panic!("no difference"));
        assert_eq!(error.unwrap_err().to_string(), "disk");
    }

    proptest! {
        #[test]
        fn the_findings_are_those_of_two_maps(
            source in prop::collection::btree_map(0_i64..30, 0_u128..3, 0..20),
            lake in prop::collection::btree_map(0_i64..30, 0_u128..3, 0..20),
        ) {
            let entries = |side: &BTreeMap<i64, u128>| side.iter().map(|(key, hash)| entry(*key, *hash, 0, false)).collect();
            let expected: Vec<(i64, Finding)> = (0..30)
                .filter_map(|key| match (source.get(&key), lake.get(&key)) {
                    (None, Some(_)) => Some((key, Finding::Extra)),
                    (Some(_), None) => Some((key, Finding::Missing)),
                    (source, lake) => (source != lake).then_some((key, Finding::Different)),
                })
                .collect();
            prop_assert_eq!(findings(entries(&source), entries(&lake), Counting::Rows), expected);
        }
    }
}
