//! What those who write the tables ask of the supervisor, over Kafka: decided by [`answer_to`], which is pure.

use super::Supervisor;
use crate::state::{AppealKind, Phase};
use crate::transport::PublishNumber;

impl Supervisor {
    /// Deals with what those who write the tables ask.
    pub(super) async fn hear_appeals(&mut self) {
        let Some(merging) = self.lake.as_ref().map(|lake| lake.merging.clone()) else { return };
        let appeals = match merging.appeals().await {
            Ok(appeals) => appeals,
            Err(error) => {
                tracing::warn!(%error, "the requests of those who apply cannot be read yet");
                return;
            }
        };
        for appeal in appeals {
            if matches!(appeal.kind, AppealKind::ChunkRefused { .. }) && self.loads.contains_key(&appeal.table) {
                // The load under way looks for it, also one of a part, whose table streams meanwhile.
                continue;
            }
            let phase = self.checkpoint.tables.get(&appeal.table).map(|standing| standing.phase);
            let done = match &appeal.kind {
                AppealKind::ChunkRefused { chunk, .. } => {
                    merging.was_done(&appeal.table, *chunk).await.unwrap_or(false)
                }
                AppealKind::Stopped { .. } => false,
            };
            let settled = match (answer_to(&appeal.kind, phase, done, self.seeds), &appeal.kind) {
                (Answer::Stop | Answer::BeginAnew, AppealKind::Stopped { publish, .. })
                    if merging.makes_up_for(&appeal.table, PublishNumber(*publish)) =>
                {
                    true
                }
                (Answer::BeginAnew, _) => {
                    tracing::info!(table = %appeal.table, reason = "its record key is another one", "loading the table");
                    self.begin_load(&appeal.table, true);
                    true
                }
                (Answer::Stop, AppealKind::Stopped { error, .. }) => {
                    self.ask_to_stop(&appeal.table, error);
                    self.stop_table(&appeal.table, error.clone());
                    true
                }
                (Answer::Load, _) => {
                    tracing::warn!(table = %appeal.table, "files of a load are gone; loading the table");
                    self.begin_load(&appeal.table, true);
                    // It stands until the load has ended: a kill before the load is announced must not forget it.
                    false
                }
                (Answer::LeaveToTheLoad, _) => false,
                _ => true,
            };
            if settled && let Err(error) = merging.settle(&appeal).await {
                tracing::warn!(%error, "a request that was dealt with stays");
            }
        }
    }
}

/// What is to be done about a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answer {
    Stop,
    /// Rows by another record key came before the load that brings them, which need not have been asked for.
    BeginAnew,
    Load,
    /// The load under way looks for it, or has made up for it.
    LeaveToTheLoad,
    /// It is of yesterday.
    Nothing,
}

/// Decides by what the table is doing; `done` if the chunk that is refused was taken in by every bucket once, `seeds` if tables are
/// loaded at all.
fn answer_to(kind: &AppealKind, phase: Option<Phase>, done: bool, seeds: bool) -> Answer {
    match (kind, phase) {
        (_, None) => Answer::Nothing,
        (AppealKind::Stopped { .. }, Some(Phase::Stopped | Phase::Filling { restart: true })) => Answer::Nothing,
        (AppealKind::Stopped { other_key: true, .. }, Some(_)) if seeds => Answer::BeginAnew,
        (AppealKind::Stopped { .. }, Some(_)) => Answer::Stop,
        (AppealKind::ChunkRefused { .. }, Some(Phase::Filling { .. })) => Answer::LeaveToTheLoad,
        // Its chunk was in once: the lake's files have gone since.
        (AppealKind::ChunkRefused { .. }, Some(Phase::Streaming)) if done => Answer::Load,
        // Of an attempt that was given up.
        (AppealKind::ChunkRefused { .. }, Some(Phase::Streaming | Phase::Stopped)) => Answer::Nothing,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_chunk_means_lost_files_only_if_it_was_in_once() {
        let refused = AppealKind::ChunkRefused { chunk: 1, bucket: 0 };
        assert_eq!(answer_to(&refused, Some(Phase::Streaming), true, true), Answer::Load);
        assert_eq!(answer_to(&refused, Some(Phase::Streaming), false, true), Answer::Nothing);
        assert_eq!(answer_to(&refused, Some(Phase::Filling { restart: false }), true, true), Answer::LeaveToTheLoad);
    }

    #[test]
    fn a_stop_is_of_yesterday_once_the_table_is_to_be_loaded() {
        let stopped = |other_key| AppealKind::Stopped { error: "no".into(), publish: 4, other_key };
        assert_eq!(answer_to(&stopped(false), Some(Phase::Streaming), false, true), Answer::Stop);
        for phase in [None, Some(Phase::Stopped), Some(Phase::Filling { restart: true })] {
            for other_key in [false, true] {
                assert_eq!(answer_to(&stopped(other_key), phase, false, true), Answer::Nothing);
            }
        }
    }

    #[test]
    fn rows_by_another_key_are_loaded_where_tables_are_loaded_at_all() {
        let stopped = AppealKind::Stopped { error: "no".into(), publish: 4, other_key: true };
        for phase in [Phase::Streaming, Phase::Filling { restart: false }] {
            assert_eq!(answer_to(&stopped, Some(phase), false, true), Answer::BeginAnew);
            assert_eq!(answer_to(&stopped, Some(phase), false, false), Answer::Stop);
        }
    }
}
