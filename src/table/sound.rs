//! Commits of other engines that rest on files which had gone, and how they are undone.
//!
//! Whoever takes files out of a table and puts others in their place must lose if somebody has taken one of them out
//! meanwhile: its rows are elsewhere by then, and in the table twice otherwise. delta-rs does not look at commits that only
//! moved rows (it passes over removals whose `dataChange` is false), so one of its merges of files, begun before a
//! compaction of ours and committed behind it, gets in. So:
//!
//! - removals of a table with a key always say `dataChange`, which makes such a merge lose ([`tells_removals`]). Of a table
//!   that is appended to they must not: who follows it as a stream would stop.
//! - a commit of another engine that takes out what is not there is undone by the next commit of ours ([`Table::undo`]).

use std::collections::{BTreeMap, BTreeSet};

use uuid::Uuid;
use weir_model::{Layout, clock};

use super::delta::{Action, Add, Remove};
use super::files::removal;
use super::log::{Replay, serialise};
use super::record::{CommitRecord, TableState};
use super::{Table, TableError};

/// A table's files before somebody's commit that rests on what had gone.
#[derive(Debug, Clone)]
pub struct LastSound {
    pub version: i64,
    pub files: BTreeMap<String, Add>,
}

/// Whether a commit that leaves the rows of a table as they are says of the files it takes out that their rows go.
pub(super) fn tells_removals(layout: &Layout) -> bool {
    !layout.is_append()
}

/// Whether a commit puts files in the place of some that are not among `files`, the table's before it.
pub(super) fn rests_on_what_is_gone(actions: &[Action], files: &BTreeMap<String, Add>) -> bool {
    let added: BTreeSet<&str> = actions.iter().filter_map(|action| Some(action.add.as_ref()?.path.as_str())).collect();
    let is_gone = |remove: &Remove| {
        let before = files.get(&remove.path);
        before.is_none_or(|before| before.deletion_vector != remove.deletion_vector)
            && !added.contains(remove.path.as_str())
    };
    !added.is_empty() && actions.iter().filter_map(|action| action.remove.as_ref()).any(is_gone)
}

impl Table {
    /// Brings back the files that the table had before another engine's commit that rests on what had gone, if `replay` has
    /// one. Whether this or somebody else's version came next, the log is to be replayed again.
    ///
    /// # Errors
    /// When the log cannot be written.
    pub(super) async fn undo(&self, replay: &Replay, sound: &LastSound, own: &TableState) -> Result<(), TableError> {
        let table = &self.schema.table;
        tracing::warn!(
            %table,
            versions = format!("{} to {}", sound.version + 1, replay.version),
            "another engine replaced files that had gone already, which doubles rows; it is undone",
        );
        let (at_ms, commit_id) = (clock::now_ms(), Uuid::new_v4().to_string());
        let record = CommitRecord {
            format: CommitRecord::FORMAT,
            source: self.writer.source.clone(),
            commit_id: commit_id.clone(),
            state: TableState { commits: own.commits + 1, ..own.clone() },
            accounts: Vec::new(),
            cleans: Vec::new(),
        };
        let mut actions = self.frame("RESTORE", record, at_ms);
        let elsewhere = |path: &String, add: &Add, files: &BTreeMap<String, Add>| {
            files.get(path).is_none_or(|other| other.deletion_vector != add.deletion_vector)
        };
        let goes = replay.files.iter().filter(|(path, add)| elsewhere(path, add, &sound.files));
        let comes = sound.files.iter().filter(|(path, add)| elsewhere(path, add, &replay.files));
        actions.extend(goes.map(|(_, add)| Action { remove: Some(removal(add, at_ms)), ..Action::default() }));
        actions.extend(
            comes.map(|(_, add)| Action { add: Some(Add { data_change: true, ..add.clone() }), ..Action::default() }),
        );
        self.settle(replay.version + 1, serialise(&actions), &commit_id).await.map(|_| ())
    }
}
