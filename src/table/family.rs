//! Several writers of one table, each with buckets of its own: what a version that another one put makes of ours.
//!
//! A commit was worked out behind an earlier version. It may go behind a later one as it is, if nothing it rests on has
//! moved meanwhile: what its writer's buckets have taken in, the files that hold their rows, and the columns but for
//! additions. Anything else must be absorbed first, and the commit worked out again.

use std::collections::BTreeSet;
use std::sync::Arc;

use weir_model::TableSchema;

use super::change::{CommitOutcome, extends};
use super::delta::Action;
use super::record::{TableState, keeps, may_follow};
use super::writer::bucket_of_entry;
use super::{Table, TableError};

/// What somebody's version is to a writer that meant to put its own there.
pub(super) enum Theirs {
    /// Of a writer beside this one: ours may go behind it, and this is where the table stands then.
    Beside(Box<TableState>),
    Lost(CommitOutcome),
}

impl Table {
    /// What a version of these actions, which is not ours, makes of a commit begun behind the present one, that names the
    /// files `named`.
    pub(super) fn judge(&self, actions: &[Action], named: &BTreeSet<String>) -> Theirs {
        let info = actions.iter().find_map(|action| action.commit_info.as_ref());
        match info.and_then(|info| info.weir.as_ref()).filter(|record| record.source == self.writer.source) {
            Some(record) if self.state.is_shared() && record.cleans.iter().any(|name| named.contains(name)) => {
                Theirs::Lost(CommitOutcome::Moved)
            }
            Some(record) if self.state.is_shared() && self.leaves_ours(actions, &record.state) => {
                Theirs::Beside(Box::new(record.state.clone()))
            }
            // Who reads a topic is settled by what was committed of it; an epoch only tells who came later.
            Some(record) if !self.state.is_shared() && record.state.epoch > self.writer.epoch => {
                Theirs::Lost(CommitOutcome::Fenced { epoch: record.state.epoch })
            }
            _ => Theirs::Lost(CommitOutcome::Moved),
        }
    }

    /// Whether a version that leaves the table in the state `theirs` leaves everything that is ours where it was.
    fn leaves_ours(&self, actions: &[Action], theirs: &TableState) -> bool {
        let buckets = self.buckets();
        may_follow(&self.state, theirs).is_ok()
            && keeps(&self.state, theirs, |bucket| buckets.owns(bucket))
            && theirs.schema.as_ref().is_some_and(|schema| self.takes_columns(actions, schema))
            // What ours writes was worked out with the values that a column has lost there.
            && theirs.absences.are_emptied_like(&self.state.absences)
            && self.leaves_files(actions)
    }

    /// Whether the table has only gained columns, as its metadata says too.
    fn takes_columns(&self, actions: &[Action], schema: &TableSchema) -> bool {
        let mut meta_data = actions.iter().filter_map(|action| action.meta_data.as_ref());
        extends(&self.schema, schema)
            && actions.iter().filter_map(|action| action.protocol.as_ref()).all(|protocol| protocol.is_of(schema))
            && meta_data.all(|meta_data| meta_data.id == self.identity.0 && meta_data.has_columns_of(schema))
    }

    /// Whether no file of ours went, came or got another vector. A file that may hold several buckets is everyone's.
    fn leaves_files(&self, actions: &[Action]) -> bool {
        let buckets = self.buckets();
        let ours = |action: &Action| {
            let add = action.add.as_ref();
            add.is_some_and(|add| bucket_of_entry(add, buckets.count).is_none_or(|bucket| buckets.owns(bucket)))
        };
        let added = actions.iter().filter_map(|action| Some(action.add.as_ref()?.path.as_str()));
        let removed = actions.iter().filter_map(|action| Some(action.remove.as_ref()?.path.as_str()));
        let touched: BTreeSet<&str> = added.chain(removed).collect();
        !actions.iter().any(ours) && !self.files.values().any(|file| touched.contains(file.add.path.as_str()))
    }

    /// The table stands at `version`, which another writer's commit is: nothing of ours has changed with it.
    pub(super) fn stand_behind(&mut self, version: i64, state: TableState) {
        if let Some(schema) = state.schema.as_ref().filter(|schema| *schema != self.schema.as_ref()) {
            self.schema = Arc::new(schema.clone());
        }
        self.state = state;
        self.version = version;
    }

    /// Goes on to the newest version, past what other writers have committed. Says what became of a commit that names the
    /// files `named` and cannot go behind it.
    pub(super) async fn catch_up(&mut self, named: &BTreeSet<String>) -> Result<Option<CommitOutcome>, TableError> {
        let alone = self.buckets().owned.len() == self.buckets().count as usize;
        if alone || !self.state.is_shared() {
            return Ok(None);
        }
        loop {
            let version = self.version + 1;
            let actions = match self.log.read_if_there(version).await {
                Ok(Some(actions)) => actions,
                Ok(None) => return Ok(None),
                // Whether the version is there shows when ours is put.
                Err(TableError::Store(error)) => {
                    tracing::debug!(table = %self.schema.table, version, %error, "the log could not be looked at");
                    return Ok(None);
                }
                Err(error) => return Err(error),
            };
            match self.judge(&actions, named) {
                Theirs::Beside(state) => self.stand_behind(version, *state),
                Theirs::Lost(outcome) => return Ok(Some(outcome)),
            }
        }
    }
}
