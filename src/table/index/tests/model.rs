//! Random steps against a plain map.

use proptest::prelude::*;

use super::*;

#[derive(Debug, Clone)]
enum Step {
    Put(i64, u32),
    /// So many keys, one behind another.
    Fill(i64, u16),
    Delete(i64),
    DeleteFrom(i64, u16),
    Get(i64),
    DropFile(u32),
    Pick(u32),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let id = -300_i64..300;
    let row = 0..7 * FILE_ROWS;
    let step = prop_oneof![
        8 => (id.clone(), row).prop_map(|(id, row)| Step::Put(id, row)),
        2 => (id.clone(), 0_u16..600).prop_map(|(id, count)| Step::Fill(id, count)),
        6 => id.clone().prop_map(Step::Delete),
        1 => (id.clone(), 0_u16..600).prop_map(|(id, count)| Step::DeleteFrom(id, count)),
        4 => id.prop_map(Step::Get),
        1 => (0_u32..7).prop_map(Step::DropFile),
        1 => (0_u32..7).prop_map(Step::Pick),
    ];
    prop::collection::vec(step, 0..120)
}

/// A key of the number: some are long, some empty, and a few are of the other form.
fn any_key(n: i64, bytes: bool) -> RecordKey {
    match n.rem_euclid(50) {
        _ if !bytes => key(n, n == 7),
        0 => RecordKey::Bytes(n.to_be_bytes().repeat(60).into()),
        1 if n == 1 => RecordKey::Bytes([].into()),
        1 => RecordKey::Bytes(n.to_be_bytes()[4..].into()),
        _ => key(n, true),
    }
}

fn check(mut index: Index, steps: Vec<Step>, bytes: bool) -> Result<(), TestCaseError> {
    let mut plain = BTreeMap::new();
    let as_key = |n| any_key(n, bytes);
    for step in steps {
        match step {
            Step::Put(n, row) => {
                let old = plain.insert(KeyBytes::of(as_key(n).as_ref()), address(row));
                prop_assert_eq!(index.put(as_key(n).as_ref(), address(row)), old);
            }
            Step::Fill(from, count) => {
                for n in from..from + i64::from(count) {
                    let old = plain.insert(KeyBytes::of(as_key(n).as_ref()), address(n.unsigned_abs() as u32));
                    prop_assert_eq!(index.put(as_key(n).as_ref(), address(n.unsigned_abs() as u32)), old);
                }
            }
            Step::Delete(n) => {
                plain.remove(&KeyBytes::of(as_key(n).as_ref()));
                index.delete(&as_key(n), Order::MIN, |_| true);
            }
            Step::DeleteFrom(from, count) => {
                for n in from..from + i64::from(count) {
                    plain.remove(&KeyBytes::of(as_key(n).as_ref()));
                    index.delete(&as_key(n), Order::MIN, |_| true);
                }
            }
            Step::Get(n) => {
                let expected = plain.get(&KeyBytes::of(as_key(n).as_ref())).copied();
                prop_assert_eq!(index.live(as_key(n).as_ref()), expected);
            }
            Step::DropFile(file) => {
                index.drop_rows(|address| address.file == file);
                plain.retain(|_, address| address.file != file);
            }
            Step::Pick(file) => {
                let mut picked: Vec<_> = index.pick(|address| address.file == file, |_| true).collect();
                let mut expected: Vec<_> = plain.values().copied().filter(|address| address.file == file).collect();
                picked.sort();
                expected.sort();
                prop_assert_eq!(picked, expected);
            }
        }
        prop_assert_eq!(index.len(), plain.len());
    }
    prop_assert_eq!(&contents(&index), &plain);
    for n in -300..900 {
        prop_assert_eq!(index.live(as_key(n).as_ref()), plain.get(&KeyBytes::of(as_key(n).as_ref())).copied());
    }
    index.health().unwrap();
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn in_memory_it_holds_what_a_plain_map_holds(steps in steps(), bytes: bool) {
        check(in_memory(), steps, bytes)?;
    }

    #[test]
    fn on_disk_it_holds_what_a_plain_map_holds(steps in steps(), bytes: bool) {
        let folder = tempfile::tempdir().unwrap();
        let mut index = on_disk(&folder);
        index.move_to_disk();
        check(index, steps, bytes)?;
    }

    #[test]
    fn an_index_that_moves_to_disk_meanwhile_stays_the_same(steps in steps(), bytes: bool) {
        let folder = tempfile::tempdir().unwrap();
        check(on_disk(&folder), steps, bytes)?;
    }
}

#[test]
fn many_keys_of_one_rank_are_told_apart() {
    // A shard of byte keys has a million ranks: with five hundred keys each, some pairs share one.
    let mut index = in_memory();
    let keys = 120_000;
    for n in 0..keys {
        assert_eq!(index.put(key(n, true).as_ref(), address(n as u32)), None);
    }
    for n in 0..keys {
        assert_eq!(index.live(key(n, true).as_ref()), Some(address(n as u32)));
        assert_eq!(index.live(key(-1 - n, true).as_ref()), None);
    }
    for n in (0..keys).step_by(2) {
        index.delete(&key(n, true), Order::MIN, |_| false);
    }
    for n in 0..keys {
        assert_eq!(index.live(key(n, true).as_ref()), (n % 2 == 1).then(|| address(n as u32)));
    }
}
