//! The series of a source's checkpoints as its one writer sees it: take the epoch, then write, until fenced.

use std::sync::Arc;

use object_store::ObjectStore;
use object_store::path::Path;
use weir_model::clock;

use super::checkpoint::{Checkpoint, STATE_FORMAT, may_follow};
use super::series::{Put, StateSeries};
use super::{CheckpointRule, StateError};
use crate::failpoint;
use crate::format;
use crate::limits::{STATE_CLEAN_EVERY, STATE_TRIES_MAX};

/// What became of a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Written {
    Done,
    /// Another instance took a higher epoch; nothing was written, and nothing may be any more.
    Fenced {
        epoch: u64,
    },
}

/// Checkpoints of one source.
#[derive(Debug)]
pub struct CheckpointLog {
    series: StateSeries,
    /// Number and content of the newest checkpoint that we know of.
    newest: Option<(u64, Checkpoint)>,
    writes: u32,
}

impl CheckpointLog {
    /// The checkpoints under `state`, the folder of one source's state.
    pub fn new(store: Arc<dyn ObjectStore>, state: Path) -> Self {
        Self { series: StateSeries::new(store, state.join("checkpoint")), newest: None, writes: 0 }
    }

    /// The newest checkpoint; `None` where no service has run yet.
    ///
    /// # Errors
    /// Also when it breaks a rule of [`Checkpoint::is_sound`].
    pub async fn read(&mut self) -> Result<Option<Checkpoint>, StateError> {
        let Some((number, bytes)) = self.series.latest().await? else { return Ok(None) };
        let object = || self.series.object(number).to_string();
        if let Some(found) = format::newer(&bytes, STATE_FORMAT) {
            return Err(StateError::Newer { object: object(), found, known: STATE_FORMAT });
        }
        let checkpoint: Checkpoint =
            serde_json::from_slice(&bytes).map_err(|source| StateError::Damaged { object: object(), source })?;
        checkpoint.is_sound().map_err(|rule| StateError::Rule { object: object(), rule })?;
        self.newest = Some((number, checkpoint.clone()));
        Ok(Some(checkpoint))
    }

    /// Makes this process the one that may write: the newest checkpoint again, with the next epoch. Of several that
    /// do so at once, the last keeps it.
    pub async fn take_epoch(&mut self) -> Result<Checkpoint, StateError> {
        for _ in 0..STATE_TRIES_MAX {
            let mut checkpoint = self.read().await?.unwrap_or_default();
            checkpoint.format = STATE_FORMAT;
            checkpoint.epoch += 1;
            checkpoint.instance = uuid::Uuid::new_v4().to_string();
            checkpoint.running = true;
            checkpoint.written_at_ms = clock::now_ms();
            if self.put(&checkpoint).await? == Put::Done {
                failpoint::reach(failpoint::EPOCH_TAKEN);
                return Ok(checkpoint);
            }
        }
        Err(self.contended())
    }

    /// Writes `next` unless a higher epoch is about.
    ///
    /// # Errors
    /// [`StateError::Rule`] if it breaks [`Checkpoint::is_sound`] or [`may_follow`]; nothing is written then.
    pub async fn write(&mut self, next: &Checkpoint) -> Result<Written, StateError> {
        for _ in 0..STATE_TRIES_MAX {
            if let Some((_, newest)) = &self.newest
                && newest.epoch > next.epoch
            {
                return Ok(Written::Fenced { epoch: newest.epoch });
            }
            self.check(next)?;
            if self.put(next).await? == Put::Done {
                self.clean_now_and_then().await;
                return Ok(Written::Done);
            }
            // A killed process of a lower epoch may have got its last write in; its number is skipped.
            let ours = self.newest.take();
            let found = self.read().await?;
            if found.is_none_or(|found| found.epoch < next.epoch) {
                let number = self.newest.as_ref().map_or(0, |(number, _)| *number);
                self.newest = ours.map(|(_, checkpoint)| (number, checkpoint));
            }
        }
        Err(self.contended())
    }

    fn check(&self, next: &Checkpoint) -> Result<(), StateError> {
        let follows = self.newest.as_ref().map_or(Ok(()), |(_, newest)| may_follow(newest, next));
        follows.and_then(|()| next.is_sound()).map_err(|rule| self.broken(rule))
    }

    async fn put(&mut self, checkpoint: &Checkpoint) -> Result<Put, StateError> {
        let number = self.next_number();
        let bytes = serde_json::to_vec(checkpoint).expect("a checkpoint is plain data with text keys");
        let put = self.series.put_next(number, bytes.into()).await?;
        if put == Put::Done {
            self.newest = Some((number, checkpoint.clone()));
        }
        Ok(put)
    }

    fn next_number(&self) -> u64 {
        self.newest.as_ref().map_or(0, |(number, _)| *number) + 1
    }

    /// Old numbers cost nothing but listing time, so a failure is only logged.
    async fn clean_now_and_then(&mut self) {
        self.writes += 1;
        if self.writes.is_multiple_of(STATE_CLEAN_EVERY)
            && let Err(error) = self.series.clean(clock::now_ms()).await
        {
            tracing::warn!(%error, "old checkpoints could not be removed");
        }
    }

    fn broken(&self, rule: CheckpointRule) -> StateError {
        StateError::Rule { object: self.series.object(self.next_number()).to_string(), rule }
    }

    fn contended(&self) -> StateError {
        StateError::Contended { series: self.series.prefix().to_string(), tries: STATE_TRIES_MAX }
    }
}

#[cfg(test)]
mod tests {
    use object_store::local::LocalFileSystem;

    use super::*;

    const UUID: &str = "3e11fa47-71ca-11e1-9e33-c80aa9429562";

    fn log_in(folder: &std::path::Path) -> CheckpointLog {
        let store = Arc::new(LocalFileSystem::new_with_prefix(folder).unwrap());
        CheckpointLog::new(store, Path::from("_weir/shop"))
    }

    fn to(mut checkpoint: Checkpoint, last: u64) -> Checkpoint {
        checkpoint.gtid_set = format!("{UUID}:1-{last}").parse().unwrap();
        checkpoint
    }

    #[tokio::test]
    async fn epochs_rise_and_the_older_instance_is_fenced() {
        let folder = tempfile::tempdir().unwrap();
        let (mut old, mut young) = (log_in(folder.path()), log_in(folder.path()));
        let first = old.take_epoch().await.unwrap();
        assert!(first.is_new() && first.epoch == 1);
        assert_eq!(old.write(&to(first.clone(), 5)).await.unwrap(), Written::Done);
        let second = young.take_epoch().await.unwrap();
        assert_eq!((second.epoch, second.gtid_set.count()), (2, Some(5)));
        assert_eq!(old.write(&to(first.clone(), 6)).await.unwrap(), Written::Fenced { epoch: 2 });
        assert_eq!(young.write(&to(second, 7)).await.unwrap(), Written::Done);
        assert_eq!(old.write(&to(first, 6)).await.unwrap(), Written::Fenced { epoch: 2 });
        assert_eq!(old.read().await.unwrap().unwrap().gtid_set.count(), Some(7));
    }

    #[tokio::test]
    async fn a_late_write_of_a_lower_epoch_is_skipped() {
        let folder = tempfile::tempdir().unwrap();
        let mut killed = log_in(folder.path());
        let dead = killed.take_epoch().await.unwrap();
        let mut young = log_in(folder.path());
        let alive = young.take_epoch().await.unwrap();
        // The killed process's put reaches the store only now, under the number that the young one is about to take.
        let late = to(dead, 3);
        let bytes = serde_json::to_vec(&late).unwrap();
        assert_eq!(killed.series.put_next(3, bytes.into()).await.unwrap(), Put::Done);
        assert_eq!(young.write(&to(alive, 4)).await.unwrap(), Written::Done);
        assert_eq!(log_in(folder.path()).read().await.unwrap().unwrap().gtid_set.count(), Some(4));
    }

    #[tokio::test]
    async fn nothing_is_written_that_breaks_a_rule() {
        let folder = tempfile::tempdir().unwrap();
        let mut log = log_in(folder.path());
        let begun = log.take_epoch().await.unwrap();
        log.write(&to(begun.clone(), 5)).await.unwrap();
        let error = log.write(&to(begun, 4)).await.unwrap_err();
        assert!(matches!(error, StateError::Rule { rule: CheckpointRule::SetShrinks { .. }, .. }), "{error}");
        assert_eq!(log.read().await.unwrap().unwrap().gtid_set.count(), Some(5));
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn racing_starts_take_epochs_of_their_own() {
        let folder = tempfile::tempdir().unwrap();
        let start = || {
            let mut log = log_in(folder.path());
            tokio::spawn(async move { log.take_epoch().await.unwrap().epoch })
        };
        let starts: Vec<_> = (0..6).map(|_| start()).collect();
        let mut epochs = Vec::new();
        for started in starts {
            epochs.push(started.await.unwrap());
        }
        epochs.sort_unstable();
        assert_eq!(epochs, [1, 2, 3, 4, 5, 6]);
    }

    #[tokio::test]
    async fn the_state_of_a_newer_version_is_refused_and_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let mut log = log_in(folder.path());
        log.series.put_next(1, r#"{"format": 2, "epoch": {"of": "another shape"}}"#.into()).await.unwrap();
        for error in [log.read().await.unwrap_err(), log.take_epoch().await.unwrap_err()] {
            let said = error.to_string();
            assert!(said.contains("00000000000000000001.json") && said.contains("format 2"), "{said}");
        }
        assert_eq!(log.series.latest().await.unwrap().unwrap().0, 1);
    }

    #[tokio::test]
    async fn a_checkpoint_from_before_formats_were_named_is_of_the_first() {
        let folder = tempfile::tempdir().unwrap();
        let mut log = log_in(folder.path());
        let mut before = serde_json::to_value(Checkpoint { epoch: 7, ..Checkpoint::default() }).unwrap();
        assert!(before.as_object_mut().unwrap().remove("format").is_some());
        log.series.put_next(1, before.to_string().into()).await.unwrap();
        assert_eq!(log.take_epoch().await.unwrap().epoch, 8);
        let bytes = log.series.latest().await.unwrap().unwrap().1;
        assert_eq!(serde_json::from_slice::<serde_json::Value>(&bytes).unwrap()["format"], 1);
    }

    #[tokio::test]
    async fn a_damaged_object_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let mut log = log_in(folder.path());
        log.series.put_next(1, "{".into()).await.unwrap();
        let error = log.read().await.unwrap_err();
        assert!(error.to_string().contains("checkpoint/00000000000000000001.json"), "{error}");
    }
}
