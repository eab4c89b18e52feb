//! The list of failpoints and the sources agree: each is reached somewhere, and nothing else is. Reads the sources as text.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use weir::failpoint;

/// How often the sources name each constant of the list.
fn uses(folder: &Path, found: &mut BTreeMap<String, usize>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            uses(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = std::fs::read_to_string(&path).unwrap();
            for rest in text.split("failpoint::").skip(1) {
                let name: String = rest.chars().take_while(|c| c.is_ascii_uppercase() || *c == '_').collect();
                if !name.is_empty() {
                    *found.entry(name).or_default() += 1;
                }
            }
        }
    }
}

/// The constants as the list declares them.
fn declared() -> BTreeMap<String, String> {
    let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/failpoint.rs")).unwrap();
    let list = text.split("points! {").nth(1).unwrap();
    let constants = list.lines().filter_map(|line| line.trim().strip_suffix("\";")?.split_once(" = \""));
    constants.map(|(name, point)| (name.to_owned(), point.to_owned())).collect()
}

#[test]
fn every_point_is_reached_in_one_place() {
    let mut found = BTreeMap::new();
    uses(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut found);
    let declared = declared();
    assert_eq!(
        declared.values().map(String::as_str).collect::<BTreeSet<_>>(),
        failpoint::ALL.iter().copied().collect()
    );
    for name in declared.keys() {
        assert_eq!(found.get(name), Some(&1), "{name} is to be reached in one place");
    }
    assert_eq!(found.len(), declared.len(), "{found:?}");
}

#[test]
fn the_program_under_test_has_them() {
    assert!(fail::has_failpoints());
}

#[test]
fn a_release_has_none() {
    let tree = std::process::Command::new(env!("CARGO"))
        .args(["tree", "--locked", "--offline", "--edges", "features,no-dev", "--invert", "fail"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo runs");
    let said = String::from_utf8_lossy(&tree.stdout);
    assert!(tree.status.success() && said.contains("fail v"), "{}", String::from_utf8_lossy(&tree.stderr));
    assert!(!said.contains("failpoints"), "{said}");
}
