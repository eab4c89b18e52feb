//! The source's shape: no room names one in a row below its own, vendor clients stay in their files, and every file
//! keeps the house rules. Reads the sources as text; needs no server.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Rooms of the service by row; a room may name those of smaller rows. ARCHITECTURE.md has the same table.
const ROWS: [&[&str]; 9] = [
    &["limits", "error", "failpoint", "format", "modes"],
    &["config", "state", "trace"],
    &["figures"],
    &["binlog", "transport", "table"],
    &["capture", "apply"],
    &["reconcile"],
    &["service"],
    &["http"],
    &["cli"],
];

/// Clients of other people's software, and where their names may stand: paths below the package's folder.
const CLIENTS: [(&str, &[&str]); 13] = [
    ("fail", &["src/failpoint.rs"]),
    ("rusqlite", &["src/trace/sqlite.rs", "src/trace/sqlite/"]),
    ("clickhouse", &["src/trace/clickhouse.rs", "src/trace/clickhouse/", "src/trace/repairs.rs"]),
    ("rdkafka", &["src/transport/kafka/"]),
    ("deltalake_core", &["src/table/checkpoint.rs", "src/table/scan.rs", "src/table/tests/"]),
    ("object_store", &["src/table/", "src/state/"]),
    ("mysql_async", &["src/binlog/", "mysql/src/", "snapshot-loader/"]),
    ("clap", &["src/cli/", "src/main.rs", "snapshot-loader/src/main.rs"]),
    ("comfy_table", &["src/cli/"]),
    ("croner", &["model/src/cron.rs"]),
    ("prometheus", &["src/figures/counters.rs", "src/http/metrics.rs"]),
    ("axum", &["src/http/"]),
    ("hyper", &["src/http/"]),
];

/// What each crate must not even depend on.
const FOREIGN_TO: [(&str, &[&str]); 3] = [
    ("model", &["tokio", "futures", "mysql_async", "object_store", "weir-mysql", "snapshot-loader"]),
    ("mysql", &["snapshot-loader", "object_store", "deltalake-core", "rusqlite"]),
    ("snapshot-loader", &["deltalake-core", "rusqlite", "rdkafka"]),
];

const LINES_MAX: usize = 600;

struct SourceFile {
    /// Relative to the package's folder, with slashes.
    path: String,
    text: String,
}

impl SourceFile {
    /// Lines that are code of the program: no comments, nothing from the unit tests on.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        let end = self.text.find("#[cfg(test)]\nmod tests {").unwrap_or(self.text.len());
        let lines = self.text[..end].lines().enumerate().map(|(i, line)| (i + 1, line));
        lines.filter(|(_, line)| !line.trim_start().starts_with("//"))
    }

    fn is_test(&self) -> bool {
        self.path.contains("/tests/")
            || self.path.ends_with("tests.rs")
            || self.path.ends_with("contract.rs")
            || self.path.contains("/contract/")
    }
}

fn sources() -> Vec<SourceFile> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut paths = Vec::new();
    for folder in ["src", "model/src", "mysql/src", "snapshot-loader/src"] {
        collect(&root.join(folder), &mut paths);
    }
    paths.sort();
    let read = |path: PathBuf| SourceFile {
        path: path.strip_prefix(root).unwrap().to_str().unwrap().replace('\\', "/"),
        text: std::fs::read_to_string(&path).unwrap(),
    };
    paths.into_iter().map(read).collect()
}

fn collect(folder: &Path, paths: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, paths);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            paths.push(path);
        }
    }
}

fn row_of(room: &str) -> Option<usize> {
    ROWS.iter().position(|rooms| rooms.contains(&room))
}

/// The room that a file of the service belongs to; none for `main.rs` and `lib.rs`, which may name everything.
fn room_of(path: &str) -> Option<&str> {
    let inside = path.strip_prefix("src/")?;
    let room = inside.split('/').next()?.trim_end_matches(".rs");
    (room != "main" && room != "lib").then_some(room)
}

/// Rooms that a line names, as `crate::room`, or as one of `crate::{room, …}`.
fn rooms_named(line: &str) -> BTreeSet<&str> {
    let mut rooms = BTreeSet::new();
    for rest in line.split("crate::").skip(1) {
        let list = rest.strip_prefix('{').map_or(rest, |inner| inner.split('}').next().unwrap_or(inner));
        let parts: Vec<&str> = if rest.starts_with('{') { list.split(',').collect() } else { vec![list] };
        for part in parts {
            let name = part.trim().split(|c: char| !c.is_ascii_alphanumeric() && c != '_').next();
            rooms.extend(name.filter(|name| row_of(name).is_some()));
        }
    }
    rooms
}

#[test]
fn no_room_names_one_in_its_own_row_or_below() {
    let mut arrows = Vec::new();
    for file in sources().iter().filter(|file| !file.is_test()) {
        let Some(room) = room_of(&file.path) else { continue };
        let row = row_of(room).unwrap_or_else(|| panic!("{}: the room {room} stands in no row of ROWS", file.path));
        for (line, text) in file.code() {
            let wrong = rooms_named(text).into_iter().filter(|named| *named != room && row_of(named) >= Some(row));
            arrows.extend(wrong.map(|named| format!("{}:{line}: {room} names {named}", file.path)));
        }
    }
    assert!(arrows.is_empty(), "upward arrows:\n{}", arrows.join("\n"));
}

#[test]
fn the_walk_sees_every_form_of_import() {
    assert_eq!(rooms_named("use crate::table::{Table, Warehouse};"), BTreeSet::from(["table"]));
    assert_eq!(
        rooms_named("use crate::{apply::Plan, error, limits::X};"),
        BTreeSet::from(["apply", "error", "limits"])
    );
    assert_eq!(rooms_named("impl From<X> for crate::error::Error {"), BTreeSet::from(["error"]));
    assert_eq!(rooms_named("let weir = create::table();"), BTreeSet::new());
    assert_eq!(room_of("src/limits.rs"), Some("limits"));
    assert_eq!(room_of("src/table/tests/mod.rs"), Some("table"));
}

#[test]
fn vendor_clients_stay_in_their_files() {
    let mut strays = Vec::new();
    for file in sources().iter().filter(|file| !file.is_test()) {
        for (client, places) in CLIENTS {
            if places.iter().any(|place| file.path.starts_with(place)) {
                continue;
            }
            // `trace::clickhouse::` is a module of ours.
            let is_client = |line: &str, at: usize| !line[..at].ends_with("::");
            let names = |line: &str| line.match_indices(&format!("{client}::")).any(|(at, _)| is_client(line, at));
            strays.extend(
                file.code().filter(|(_, line)| names(line)).map(|(n, _)| format!("{}:{n}: {client}", file.path)),
            );
        }
    }
    assert!(strays.is_empty(), "clients out of their place:\n{}", strays.join("\n"));
}

#[test]
fn crates_depend_on_nothing_foreign() {
    for (package, foreign) in FOREIGN_TO {
        let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join(package).join("Cargo.toml");
        let text = std::fs::read_to_string(manifest).unwrap();
        let dependencies = text.split("[dependencies]").nth(1).unwrap().split("\n[").next().unwrap();
        for name in foreign {
            let named = |line: &str| line.starts_with(&format!("{name}.")) || line.starts_with(&format!("{name} "));
            assert!(!dependencies.lines().any(named), "{package} depends on {name}");
        }
    }
}

#[test]
fn every_file_keeps_the_house_rules() {
    let mut broken = Vec::new();
    for file in sources() {
        let mut breaks = |line: usize, rule: &str| broken.push(format!("{}:{line}: {rule}", file.path));
        let first = file.text.lines().next().unwrap_or_default();
        if !first.starts_with("//! ") {
            breaks(1, "opens with `//!`: its room, what comes in, what goes out");
        }
        let lines = file.text.lines().count();
        if lines > LINES_MAX {
            breaks(lines, "is too long; look for a second role");
        }
        let name = file.path.rsplit('/').next().unwrap_or_default().trim_end_matches(".rs");
        if ["utils", "util", "common", "helpers", "helper", "misc"].contains(&name) {
            breaks(1, "is not named after what it is");
        }
        for (line, text) in file.text.lines().enumerate().map(|(i, text)| (i + 1, text)) {
            if ["TODO", "FIXME", "XXX", "HACK"].iter().any(|word| text.contains(word)) {
                breaks(line, "leaves work behind");
            }
        }
        if file.is_test() {
            continue;
        }
        for (line, text) in file.code() {
            if file.path != "model/src/clock.rs" && (text.contains("SystemTime") || text.contains("Utc::now")) {
                breaks(line, "reads the wall clock; only model/src/clock.rs does");
            }
            if text.contains(".unwrap()") {
                breaks(line, "unwraps; use expect with the invariant, or an error");
            }
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}
