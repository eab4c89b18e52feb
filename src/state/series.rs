//! A series of numbered objects under one prefix: `00000000000000000042.json`.

use std::sync::Arc;

use bytes::Bytes;
use futures::TryStreamExt;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutOptions};

use super::StateError;
use crate::failpoint;
use crate::limits::{AMBIGUOUS_PUT_DELAY, AMBIGUOUS_PUT_TRIES, STATE_KEPT, STATE_KEPT_MIN, STATE_TRIES_MAX};

/// What became of a put.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Put {
    /// The object is durable under its number.
    Done,
    /// The number is someone else's, or lies so far back that it has been cleaned away: read the latest.
    Taken,
}

/// Numbered objects; the greatest number is the state. Numbers begin at 1.
#[derive(Debug, Clone)]
pub struct StateSeries {
    store: Arc<dyn ObjectStore>,
    prefix: Path,
}

impl StateSeries {
    pub fn new(store: Arc<dyn ObjectStore>, prefix: Path) -> Self {
        Self { store, prefix }
    }

    /// Where number `n` lies.
    pub fn object(&self, n: u64) -> Path {
        self.prefix.clone().join(format!("{n:020}.json"))
    }

    pub fn prefix(&self) -> &Path {
        &self.prefix
    }

    /// Puts `bytes` as number `n` if there is no such number yet, again while the outcome is not known. Finding these very
    /// bytes there counts as done: an answer that got lost makes us, or the client, put again. So bytes of different
    /// writers must differ.
    ///
    /// A writer that slept until its number had been cleaned away would succeed at the put although the series has
    /// long gone on; it is told that the number is taken.
    pub async fn put_next(&self, n: u64, bytes: Bytes) -> Result<Put, StateError> {
        let mut tries = 0;
        loop {
            match self.put_once(n, bytes.clone()).await {
                Err(error) if error.is_away() && tries < AMBIGUOUS_PUT_TRIES => {
                    tries += 1;
                    tracing::warn!(%error, "a state object whose outcome is not known is put again");
                    tokio::time::sleep(AMBIGUOUS_PUT_DELAY * (1 << tries)).await;
                }
                settled => return settled,
            }
        }
    }

    async fn put_once(&self, n: u64, bytes: Bytes) -> Result<Put, StateError> {
        let object = self.object(n);
        let create = PutOptions::from(PutMode::Create);
        failpoint::reach(failpoint::STATE_PUT_BEFORE);
        let put = self.store.put_opts(&object, bytes.clone().into(), create).await;
        failpoint::reach(failpoint::STATE_PUT_AFTER);
        match put {
            Ok(_) => {}
            Err(object_store::Error::AlreadyExists { .. }) => match self.read(n).await? {
                Some(found) if found == bytes => {}
                _ => return Ok(Put::Taken),
            },
            Err(source) => return Err(self.failed(&object, source)),
        }
        Ok(if self.is_current(n).await? { Put::Done } else { Put::Taken })
    }

    /// Puts `bytes` under the first free number above the greatest, and returns it.
    pub async fn append(&self, bytes: Bytes) -> Result<u64, StateError> {
        for _ in 0..STATE_TRIES_MAX {
            let next = self.greatest().await?.unwrap_or(0) + 1;
            if self.put_next(next, bytes.clone()).await? == Put::Done {
                return Ok(next);
            }
        }
        Err(StateError::Contended { series: self.prefix.to_string(), tries: STATE_TRIES_MAX })
    }

    /// The state: the greatest number and its bytes; `None` for an empty series.
    pub async fn latest(&self) -> Result<Option<(u64, Bytes)>, StateError> {
        for _ in 0..STATE_TRIES_MAX {
            let Some(number) = self.greatest().await? else { return Ok(None) };
            if let Some(bytes) = self.read(number).await? {
                return Ok(Some((number, bytes)));
            }
            // Cleaned away between listing and reading: the series has gone on.
        }
        Err(StateError::Contended { series: self.prefix.to_string(), tries: STATE_TRIES_MAX })
    }

    /// The bytes of number `n`, if it is there.
    pub async fn read(&self, n: u64) -> Result<Option<Bytes>, StateError> {
        let object = self.object(n);
        let found = match self.store.get(&object).await {
            Ok(result) => result.bytes().await,
            Err(error) => Err(error),
        };
        match found {
            Ok(bytes) => Ok(Some(bytes)),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(source) => Err(self.failed(&object, source)),
        }
    }

    /// Deletes numbers that were written longer than [`STATE_KEPT`] before `now_ms`, but never the newest few.
    /// Returns how many.
    pub async fn clean(&self, now_ms: i64) -> Result<usize, StateError> {
        let mut numbers = self.numbers_above(0).await?;
        numbers.sort_unstable();
        let old = expired(&numbers, now_ms);
        for number in &old {
            let object = self.object(*number);
            match self.store.delete(&object).await {
                Ok(()) | Err(object_store::Error::NotFound { .. }) => {}
                Err(source) => return Err(self.failed(&object, source)),
            }
        }
        Ok(old.len())
    }

    async fn greatest(&self) -> Result<Option<u64>, StateError> {
        Ok(self.numbers_above(0).await?.into_iter().map(|(number, _)| number).max())
    }

    /// Whether the number `n`, just put, stands at the series' end and not where others have been cleaned away: the
    /// number before it is still there or, at the very beginning, the one after it is or nothing is.
    async fn is_current(&self, n: u64) -> Result<bool, StateError> {
        if n > 1 && self.has(n - 1).await? {
            return Ok(true);
        }
        let above = self.numbers_above(n).await?;
        let successor = above.iter().any(|(number, _)| *number == n + 1);
        Ok(above.is_empty() || (n == 1 && successor))
    }

    async fn has(&self, n: u64) -> Result<bool, StateError> {
        let object = self.object(n);
        match self.store.head(&object).await {
            Ok(_) => Ok(true),
            Err(object_store::Error::NotFound { .. }) => Ok(false),
            Err(source) => Err(self.failed(&object, source)),
        }
    }

    /// Numbers above `n` and when they were written, ms since the epoch. Other names are not ours and are passed over.
    async fn numbers_above(&self, n: u64) -> Result<Vec<(u64, i64)>, StateError> {
        let listing = self.store.list_with_offset(Some(&self.prefix), &self.object(n));
        let named = listing.try_filter_map(|meta| async move {
            Ok(meta.location.filename().and_then(number_of).map(|n| (n, meta.last_modified.timestamp_millis())))
        });
        match named.try_collect().await {
            Ok(numbers) => Ok(numbers),
            Err(object_store::Error::NotFound { .. }) => Ok(Vec::new()),
            Err(source) => Err(self.failed(&self.prefix, source)),
        }
    }

    fn failed(&self, object: &Path, source: object_store::Error) -> StateError {
        StateError::Store { object: object.to_string(), source }
    }
}

fn number_of(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(".json").filter(|digits| digits.len() == 20)?;
    digits.bytes().all(|b| b.is_ascii_digit()).then(|| digits.parse().ok()).flatten()
}

/// Those of `numbers` (ascending, with the time of writing) that nobody reads any more.
fn expired(numbers: &[(u64, i64)], now_ms: i64) -> Vec<u64> {
    let kept_ms = i64::try_from(STATE_KEPT.as_millis()).unwrap_or(i64::MAX);
    let newest = numbers.len().saturating_sub(STATE_KEPT_MIN);
    numbers[..newest].iter().filter(|(_, written)| now_ms.saturating_sub(*written) > kept_ms).map(|(n, _)| *n).collect()
}

#[cfg(test)]
mod tests {
    use object_store::local::LocalFileSystem;

    use super::*;
    use crate::table::faulty::{Fault, FaultyStore};

    /// A series in a folder that goes away with the guard.
    fn local_series() -> (tempfile::TempDir, StateSeries) {
        let folder = tempfile::tempdir().unwrap();
        let store = Arc::new(LocalFileSystem::new_with_prefix(folder.path()).unwrap());
        (folder, StateSeries::new(store, Path::from("_weir/shop/checkpoint")))
    }

    #[tokio::test]
    async fn the_greatest_number_wins_and_foreign_names_are_passed_over() {
        let (folder, series) = local_series();
        assert_eq!(series.latest().await.unwrap(), None);
        assert_eq!(series.put_next(1, Bytes::from("a")).await.unwrap(), Put::Done);
        assert_eq!(series.append(Bytes::from("b")).await.unwrap(), 2);
        let place = folder.path().join("_weir/shop/checkpoint");
        std::fs::write(place.join("00000000000000000009.json.tmp"), "x").unwrap();
        std::fs::write(place.join("99.json"), "x").unwrap();
        assert_eq!(series.latest().await.unwrap(), Some((2, Bytes::from("b"))));
    }

    #[tokio::test]
    async fn a_taken_number_is_told_from_our_own_bytes_put_twice() {
        let (_folder, series) = local_series();
        assert_eq!(series.put_next(1, Bytes::from("ours")).await.unwrap(), Put::Done);
        assert_eq!(series.put_next(1, Bytes::from("ours")).await.unwrap(), Put::Done);
        assert_eq!(series.put_next(1, Bytes::from("theirs")).await.unwrap(), Put::Taken);
        assert_eq!(series.read(1).await.unwrap(), Some(Bytes::from("ours")));
    }

    #[tokio::test]
    async fn however_answers_are_lost_a_number_is_put_once_and_its_writer_knows() {
        for faults in [
            &[Fault::AnswerLost][..],
            &[Fault::Retried],
            &[Fault::Lost, Fault::AnswerLost],
            &[Fault::AnswerLost, Fault::Lost, Fault::Unreadable],
        ] {
            let store = Arc::new(FaultyStore::default());
            let series = StateSeries::new(store.clone(), Path::from("s"));
            faults.iter().for_each(|fault| store.plan("1.json", fault.clone()));
            assert_eq!(series.put_next(1, Bytes::from("ours")).await.unwrap(), Put::Done, "{faults:?}");
            assert_eq!(series.latest().await.unwrap(), Some((1, Bytes::from("ours"))));
            assert_eq!(store.take_written().len(), 1);
        }
    }

    #[tokio::test]
    async fn a_number_that_did_not_arrive_before_someone_elses_is_taken() {
        let store = Arc::new(FaultyStore::default());
        let series = StateSeries::new(store.clone(), Path::from("s"));
        store.plan("1.json", Fault::Lost);
        store.plan("1.json", Fault::Overtaken(Bytes::from("theirs")));
        assert_eq!(series.put_next(1, Bytes::from("ours")).await.unwrap(), Put::Taken);
        assert_eq!(series.append(Bytes::from("ours")).await.unwrap(), 2);
    }

    #[tokio::test]
    async fn a_series_that_cannot_be_reached_ends_in_an_error() {
        let store = Arc::new(FaultyStore::default());
        let series = StateSeries::new(store.clone(), Path::from("s"));
        (0..=AMBIGUOUS_PUT_TRIES).for_each(|_| store.plan("1.json", Fault::Lost));
        assert!(series.put_next(1, Bytes::from("ours")).await.is_err_and(|error| error.is_away()));
    }

    #[tokio::test]
    async fn a_writer_that_slept_past_the_cleaning_is_told_so() {
        let (folder, series) = local_series();
        for n in 1..=4 {
            series.put_next(n, Bytes::from(n.to_string())).await.unwrap();
        }
        for n in 1..=2 {
            std::fs::remove_file(folder.path().join(series.object(n).as_ref())).unwrap();
        }
        assert_eq!(series.put_next(2, Bytes::from("late")).await.unwrap(), Put::Taken);
        assert_eq!(series.latest().await.unwrap().unwrap().0, 4);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn of_two_racing_writers_each_number_has_one_winner() {
        let (_folder, series) = local_series();
        let writer = |name: &'static str| {
            let series = series.clone();
            tokio::spawn(async move {
                let mut won = Vec::new();
                for n in 1..=50 {
                    let bytes = Bytes::from(format!("{name} {n}"));
                    if series.put_next(n, bytes).await.unwrap() == Put::Done {
                        won.push(n);
                    }
                }
                won
            })
        };
        let (a, b) = (writer("a"), writer("b"));
        let (a, b) = (a.await.unwrap(), b.await.unwrap());
        let mut all: Vec<u64> = a.iter().chain(&b).copied().collect();
        all.sort_unstable();
        assert_eq!(all, (1..=50).collect::<Vec<_>>(), "a won {a:?}, b won {b:?}");
        for n in a {
            assert_eq!(series.read(n).await.unwrap(), Some(Bytes::from(format!("a {n}"))));
        }
    }

    #[tokio::test]
    async fn cleaning_keeps_the_young_and_the_newest_few() {
        let (_folder, series) = local_series();
        let count = STATE_KEPT_MIN as u64 + 3;
        for n in 1..=count {
            series.put_next(n, Bytes::from("x")).await.unwrap();
        }
        let now_ms = weir_model::clock::now_ms();
        assert_eq!(series.clean(now_ms).await.unwrap(), 0);
        let later_ms = now_ms + STATE_KEPT.as_millis() as i64 + 60_000;
        assert_eq!(series.clean(later_ms).await.unwrap(), 3);
        assert_eq!(series.read(3).await.unwrap(), None);
        assert!(series.read(4).await.unwrap().is_some());
    }
}
