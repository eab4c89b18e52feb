//! What runs came to: counted by the test that made them, and a line each in the file that `make chaos` names, from which
//! `tests/support/chaos_table.py` makes docs/chaos.md.

use std::io::Write;
use std::path::PathBuf;

use serde_json::json;

/// What a check has found after a fault, or after several.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Rows that the lake lacks, values that are not the source's, and counts that do not add up.
    pub lost: u64,
    /// Rows that are there twice, or should be gone; changes that were applied twice.
    pub doubled: u64,
    /// It neither came back by itself nor said what to do.
    pub stuck: u64,
}

/// The file that runs are noted in; none in `make test`.
fn file() -> Option<PathBuf> {
    std::env::var_os("WEIR_CHAOS_RESULTS").map(PathBuf::from)
}

/// Notes one run. Lines of earlier processes stay, so that a campaign can be broken off and gone on with.
pub fn note(fault: &str, outcome: &str, verdict: Verdict) {
    let Verdict { lost, doubled, stuck } = verdict;
    let line = json!({"fault": fault, "outcome": outcome, "lost": lost, "doubled": doubled, "stuck": stuck});
    eprintln!("{line}");
    let Some(file) = file() else { return };
    let file = std::fs::OpenOptions::new().create(true).append(true).open(&file);
    // One write a line: several tests note at once.
    file.and_then(|mut file| file.write_all(format!("{line}\n").as_bytes())).expect("the results can be written");
}

/// Kills noted so far, of services on this transport.
pub fn kills(transport: &str) -> usize {
    let text = file().and_then(|file| std::fs::read_to_string(file).ok()).unwrap_or_default();
    text.lines().filter(|line| line.contains(&format!("\"fault\":\"SIGKILL, {transport}"))).count()
}
