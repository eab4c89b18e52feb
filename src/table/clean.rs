//! Cleaning: files that nothing names any more go, from the table's folder and from its log.
//!
//! What goes is found beside the writer ([`find_garbage`]). A file that no version has named may be one that somebody is
//! about to name; so a commit first says what will go ([`Table::commit_cleaning`]). Whoever named one of them comes
//! behind that commit, sees it, and gives up; only then the files are removed ([`remove`]).

use std::collections::HashSet;
use std::time::Duration;

use futures::TryStreamExt;
use weir_model::TableId;

use super::change::CommitOutcome;
use super::checkpoint;
use super::delta::Add;
use super::log::{Log, Replay, commit_name};
use super::stage::Staged;
use super::{Table, TableError, TableFiles, Warehouse};
use crate::failpoint;
use crate::limits::{CLEANED_AT_ONCE_MAX, ORPHAN_AGE_MIN};

/// How long what was replaced is kept, and how hard to look.
#[derive(Debug, Clone, Copy)]
pub struct Retention {
    /// Readers may be at a version that is this old.
    pub kept: Duration,
    pub look: Look,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Look {
    /// At two versions: what is younger than the retention stays, whatever it is.
    Quick,
    /// At every commit in the log, so that what was replaced is told from what was never in. `alone` if no writer can
    /// have files under way: then those go at once.
    Thorough { alone: bool },
}

/// Files that may go.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Garbage {
    /// Paths in the table's folder.
    pub names: Vec<String>,
    pub bytes: u64,
}

/// A file in the table's folder.
#[derive(Debug, Clone)]
struct Listed {
    name: String,
    bytes: u64,
    modified_ms: i64,
}

/// What names files.
#[derive(Debug, Default)]
struct Named {
    /// At the newest version, or at one that readers may be at.
    kept: HashSet<String>,
    /// By any version in the log; empty if that was not looked at.
    ever: HashSet<String>,
    /// What no version is known to have named goes if it was written before this time.
    unnamed_before_ms: i64,
}

/// Files that begin so were to become objects when their process ended.
const UNFINISHED: &str = "._weir_";

/// Whether a file may go.
fn is_garbage(file: &Listed, named: &Named) -> bool {
    let unfinished = file.name.rsplit('/').next().is_some_and(|name| name.starts_with(UNFINISHED));
    if !unfinished && (!is_ours(&file.name) || named.kept.contains(&file.name)) {
        return false;
    }
    named.ever.contains(&file.name) || file.modified_ms < named.unnamed_before_ms
}

/// Whether a path is of a kind that tables are made of; what others lay beside it is not ours to remove.
fn is_ours(name: &str) -> bool {
    let hidden = name.split('/').any(|part| part.starts_with(['_', '.']));
    !hidden && (name.ends_with(".parquet") || name.ends_with(".bin"))
}

/// Files of `table` that may go at `now_ms`.
///
/// # Errors
/// When the folder or its log cannot be read.
pub async fn find_garbage(
    warehouse: &Warehouse,
    table: &TableId,
    retention: Retention,
    now_ms: i64,
) -> Result<Garbage, TableError> {
    let log = Log::new(warehouse, table);
    let kept_ms = i64::try_from(retention.kept.as_millis()).unwrap_or(i64::MAX);
    let cutoff_ms = now_ms.saturating_sub(kept_ms);
    // Before the log is read: what is written behind it is not in the list.
    let listed = list(warehouse, table).await?;
    let newest = log.replay(None).await?.ok_or_else(|| TableError::NoTable(table.clone()))?;
    let then = version_then(&log, cutoff_ms, newest.version).await?;
    let mut named = Named { kept: names_of(&newest), ..Named::default() };
    if then < newest.version
        && let Some(then) = log.replay(Some(then)).await?
    {
        named.kept.extend(names_of(&then));
    }
    let orphan_ms = i64::try_from(ORPHAN_AGE_MIN.as_millis()).unwrap_or(i64::MAX);
    named.unnamed_before_ms = match retention.look {
        Look::Thorough { alone: true } => i64::MAX,
        _ => cutoff_ms.min(now_ms.saturating_sub(orphan_ms)),
    };
    if let Look::Thorough { .. } = retention.look {
        for version in log.versions().await?.commits.into_iter().filter(|version| *version <= newest.version) {
            // One that is cleaned away meanwhile is older than anything that is kept.
            let Some(actions) = log.read_if_there(version).await? else { continue };
            let adds = actions.iter().filter_map(|action| action.add.as_ref());
            let names: Vec<String> = adds.flat_map(names_of_entry).collect();
            if version > then {
                named.kept.extend(names.iter().cloned());
            }
            named.ever.extend(names);
        }
    }
    let garbage: Vec<Listed> = listed.into_iter().filter(|file| is_garbage(file, &named)).collect();
    let bytes = garbage.iter().map(|file| file.bytes).sum();
    Ok(Garbage { names: garbage.into_iter().map(|file| file.name).collect(), bytes })
}

/// The version that readers may still be at: the newest of the time, or the oldest that can be read.
async fn version_then(log: &Log, cutoff_ms: i64, newest: i64) -> Result<i64, TableError> {
    let versions = log.timed_versions().await?;
    let before = versions.commits.iter().rev().find(|(_, modified_ms)| *modified_ms <= cutoff_ms);
    let first = versions.commits.first().map_or(newest, |(version, _)| *version);
    let oldest = if first == 0 { 0 } else { versions.checkpoints.first().copied().unwrap_or(newest) };
    Ok(before.map_or(oldest, |(version, _)| *version).max(oldest))
}

fn names_of(replay: &Replay) -> HashSet<String> {
    replay.files.values().flat_map(names_of_entry).collect()
}

/// The files that an entry names: its data, and its vector.
fn names_of_entry(add: &Add) -> Vec<String> {
    let mut names = vec![add.path.clone()];
    names.extend(add.deletion_vector.as_ref().and_then(|vector| vector.file()).map(|(name, _)| name));
    names
}

async fn list(warehouse: &Warehouse, table: &TableId) -> Result<Vec<Listed>, TableError> {
    let folder = warehouse.table_path(table);
    let objects: Vec<_> = warehouse.store().list(Some(&folder)).try_collect().await?;
    let listed = objects.into_iter().filter_map(|object| {
        let parts: Vec<String> = object.location.prefix_match(&folder)?.map(|part| part.as_ref().to_owned()).collect();
        let modified_ms = object.last_modified.timestamp_millis();
        Some(Listed { name: parts.join("/"), bytes: object.size, modified_ms })
    });
    Ok(listed.collect())
}

impl Table {
    /// Says in the log that files will go: the first of `garbage` that one commit can name, which are taken out of it.
    /// They may be removed once this is in; after any other outcome look for garbage again.
    ///
    /// # Errors
    /// As [`Table::commit`].
    pub async fn commit_cleaning(&mut self, garbage: &mut Garbage) -> Result<(CommitOutcome, Vec<String>), TableError> {
        let rest = garbage.names.split_off(garbage.names.len().min(CLEANED_AT_ONCE_MAX));
        let names = std::mem::replace(&mut garbage.names, rest);
        let state = self.next_state(self.state.clone(), &self.schema)?;
        let mut staged = Staged::of_upkeep("VACUUM START", state, self);
        staged.cleans.clone_from(&names);
        let outcome = self.put_staged(staged).await?;
        failpoint::reach(failpoint::CLEAN_NAMED);
        Ok((outcome, names))
    }
}

/// Removes files of the table's folder.
pub async fn remove(files: &TableFiles, names: &[String]) {
    for name in names {
        files.discard(name).await;
        failpoint::reach(failpoint::CLEAN_REMOVED);
    }
}

/// Removes what of the log nobody needs any more: commits and checkpoints below a checkpoint that is older than
/// `kept`, but nothing that is not in the trace, which `shipped` says, and never the newest own commit. Gives how many
/// commits went.
///
/// # Errors
/// When the log cannot be read, or a file of it cannot be removed.
pub async fn clean_log(
    warehouse: &Warehouse,
    table: &TableId,
    kept: Duration,
    shipped: i64,
    now_ms: i64,
) -> Result<usize, TableError> {
    let log = Log::new(warehouse, table);
    let cutoff_ms = now_ms.saturating_sub(i64::try_from(kept.as_millis()).unwrap_or(i64::MAX));
    let versions = log.timed_versions().await?;
    let Some(mut first) = first_kept(&versions.commits, &versions.checkpoints, cutoff_ms, shipped) else {
        return Ok(0);
    };
    let own = log.newest_own(versions.commits.last().map_or(0, |(version, _)| *version)).await?;
    if own < first {
        let Some(below) = versions.checkpoints.iter().rev().find(|version| **version <= own) else { return Ok(0) };
        first = *below;
    }
    // Everything rests on it from now on.
    let folder = warehouse.table_path(table).join("_delta_log");
    if checkpoint::read(warehouse, &folder, first).await.ok().and_then(|replay| replay.protocol).is_none() {
        return Ok(0);
    }
    // Upwards, so that whoever finds a version finds all above it.
    let commits: Vec<i64> = versions.commits.iter().map(|(version, _)| *version).filter(|v| *v < first).collect();
    for version in &commits {
        warehouse.delete(&folder.clone().join(commit_name(*version))).await?;
        failpoint::reach(failpoint::LOG_CLEANED);
    }
    for version in versions.checkpoints.iter().filter(|version| **version < first) {
        warehouse.delete(&folder.clone().join(format!("{version:020}.checkpoint.parquet"))).await?;
    }
    Ok(commits.len())
}

/// The checkpoint that stays the first of the log; `None` if everything does. `commits` are versions and the times at
/// which they were written.
fn first_kept(commits: &[(i64, i64)], checkpoints: &[i64], cutoff_ms: i64, shipped: i64) -> Option<i64> {
    let then = commits.iter().rev().find(|(_, modified_ms)| *modified_ms <= cutoff_ms)?.0;
    let first = checkpoints.iter().rev().find(|version| **version <= then.min(shipped)).copied()?;
    // A cleaning that was cut short may have left old checkpoints alone.
    (commits.first()?.0 < first || *checkpoints.first()? < first).then_some(first)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(name: &str, modified_ms: i64) -> Listed {
        Listed { name: name.into(), bytes: 1, modified_ms }
    }

    fn names(names: &[&str]) -> HashSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn what_is_named_stays_and_what_was_replaced_goes() {
        let named = Named {
            kept: names(&["part-a.parquet", "deletion_vector_a.bin"]),
            ever: names(&["part-a.parquet", "part-b.parquet"]),
            unnamed_before_ms: 100,
        };
        assert!(!is_garbage(&file("part-a.parquet", 0), &named));
        assert!(!is_garbage(&file("deletion_vector_a.bin", 0), &named));
        assert!(is_garbage(&file("part-b.parquet", 500), &named), "replaced");
        assert!(is_garbage(&file("part-c.parquet", 99), &named), "never in, and old");
        assert!(!is_garbage(&file("part-d.parquet", 100), &named), "somebody may be about to name it");
    }

    #[test]
    fn what_is_not_ours_stays() {
        let named = Named { unnamed_before_ms: i64::MAX, ..Named::default() };
        for name in
            ["_delta_log/00000000000000000000.json", "_SUCCESS", "notes.txt", "_x/part-a.parquet", ".hidden.bin"]
        {
            assert!(!is_garbage(&file(name, 0), &named), "{name}");
        }
        for name in ["d=2026-01-01/part-a.parquet", "part-a.parquet", "._weir_abc", "_delta_log/._weir_x"] {
            assert!(is_garbage(&file(name, 0), &named), "{name}");
        }
    }

    #[test]
    fn the_log_is_cut_at_a_checkpoint_that_is_old_and_shipped() {
        let commits: Vec<(i64, i64)> = (0..100).map(|version| (version, version * 10)).collect();
        let checkpoints = [20, 40, 60, 80];
        assert_eq!(first_kept(&commits, &checkpoints, 650, 99), Some(60));
        assert_eq!(first_kept(&commits, &checkpoints, 650, 55), Some(40));
        assert_eq!(first_kept(&commits, &checkpoints, 150, 99), None);
        assert_eq!(first_kept(&commits, &checkpoints, -1, 99), None);
        assert_eq!(first_kept(&commits[60..], &checkpoints[2..], 650, 99), None, "it begins there already");
        assert_eq!(first_kept(&commits[60..], &checkpoints[1..], 650, 99), Some(60), "a checkpoint was left");
    }
}
