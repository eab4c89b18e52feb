//! Two writers, and a store whose answers are lost.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use futures::stream::BoxStream;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, ObjectStoreExt,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};

use super::support::*;
use crate::table::history::commits_since;
use crate::table::{CommitOutcome, TableChange, TableError, Warehouse};

#[tokio::test]
async fn the_slower_of_two_writers_is_moved_and_nothing_of_it_is_in() {
    let warehouse = in_memory();
    create(&warehouse).await;
    let (mut first, mut second) = (open(&warehouse, 2).await, open(&warehouse, 2).await);
    apply(&mut first, &[(1, 1)], &[]).await;
    let change = stream(&second, &[(2, 1)], &[]);
    assert!(matches!(second.commit(change).await.unwrap(), CommitOutcome::Moved));
    assert_eq!(live(&warehouse).await, expected(&[(1, 1)]));
    // Opened anew it goes on.
    apply(&mut open(&warehouse, 3).await, &[(2, 2)], &[]).await;
    assert_eq!(live(&warehouse).await, expected(&[(1, 1), (2, 2)]));
}

#[tokio::test]
async fn a_greater_epoch_fences_a_writer_and_a_lower_one_only_moves_it() {
    let warehouse = in_memory();
    create(&warehouse).await;
    let (mut old, mut new) = (open(&warehouse, 2).await, open(&warehouse, 3).await);
    apply(&mut old, &[(1, 1)], &[]).await;
    let change = stream(&new, &[(2, 2)], &[]);
    assert!(matches!(new.commit(change).await.unwrap(), CommitOutcome::Moved));
    let mut new = open(&warehouse, 3).await;
    apply(&mut new, &[(2, 2)], &[]).await;
    let change = stream(&old, &[(3, 2)], &[]);
    assert!(matches!(old.commit(change).await.unwrap(), CommitOutcome::Fenced { epoch: 3 }));
    assert_eq!(live(&warehouse).await, expected(&[(1, 1), (2, 2)]));
}

#[tokio::test]
async fn a_writer_that_opens_after_a_greater_epoch_is_fenced() {
    let warehouse = in_memory();
    create(&warehouse).await;
    apply(&mut open(&warehouse, 5).await, &[(1, 1)], &[]).await;
    let mut late = open(&warehouse, 4).await;
    let change = stream(&late, &[(2, 2)], &[]);
    assert!(matches!(late.commit(change).await.unwrap(), CommitOutcome::Fenced { epoch: 5 }));
    assert_eq!(live(&warehouse).await, expected(&[(1, 1)]));
}

#[tokio::test]
async fn another_source_cannot_share_a_table() {
    let warehouse = in_memory();
    create(&warehouse).await;
    let other = crate::table::Writer { source: "crm".into(), epoch: 9 };
    let refused = crate::table::Table::open(&warehouse, &id(), other).await;
    assert!(matches!(refused, Err(TableError::OtherSource { .. })));
}

#[tokio::test]
async fn a_commit_above_a_version_that_was_cleaned_away_does_not_count() {
    let warehouse = in_memory();
    let mut table = create(&warehouse).await;
    let version = apply(&mut table, &[(1, 1)], &[]).await;
    let folder = warehouse.table_path(&id()).join("_delta_log");
    warehouse.store().delete(&folder.join(format!("{version:020}.json"))).await.unwrap();
    let change = stream(&table, &[(2, 2)], &[]);
    assert!(matches!(table.commit(change).await.unwrap(), CommitOutcome::Moved));
}

#[tokio::test]
async fn a_lost_answer_settles_to_exactly_one_commit() {
    for faults in [
        vec![Fault::AfterPut],
        vec![Fault::BeforePut],
        vec![Fault::BeforePut, Fault::AfterPut, Fault::BeforePut],
        vec![Fault::AfterPut, Fault::AfterPut],
    ] {
        let store = Arc::new(Flaky::default());
        let warehouse = Warehouse::in_store(store.clone());
        let mut table = create(&warehouse).await;
        store.fail(&faults);
        let version = apply(&mut table, &[(1, 1), (2, 2)], &[]).await;
        assert_eq!(version, 1, "{faults:?}");
        apply(&mut table, &[(2, 3)], &[]).await;
        assert_eq!(commits_since(&warehouse, &id(), None).await.unwrap().len(), 3, "{faults:?}");
        assert_eq!(live(&warehouse).await, expected(&[(1, 1), (2, 3)]), "{faults:?}");
    }
}

#[tokio::test]
async fn an_answer_that_was_lost_while_someone_else_committed_is_moved() {
    let store = Arc::new(Flaky::default());
    let warehouse = Warehouse::in_store(store.clone());
    create(&warehouse).await;
    let (mut first, mut second) = (open(&warehouse, 2).await, open(&warehouse, 2).await);
    apply(&mut first, &[(1, 1)], &[]).await;
    store.fail(&[Fault::BeforePut]);
    let change = stream(&second, &[(2, 1)], &[]);
    assert!(matches!(second.commit(change).await.unwrap(), CommitOutcome::Moved));
}

#[tokio::test]
async fn a_version_whose_writer_cannot_be_read_at_once_is_asked_for_again() {
    let store = Arc::new(Flaky::default());
    let warehouse = Warehouse::in_store(store.clone());
    let mut table = create(&warehouse).await;
    store.fail(&[Fault::AfterPut]);
    store.fail_reads(1);
    assert_eq!(apply(&mut table, &[(1, 1)], &[]).await, 1);
    assert_eq!(live(&warehouse).await, expected(&[(1, 1)]));
}

#[tokio::test]
async fn a_table_whose_creation_was_not_answered_is_created_once() {
    let store = Arc::new(Flaky::default());
    let warehouse = Warehouse::in_store(store.clone());
    store.fail(&[Fault::AfterPut]);
    let mut table = create(&warehouse).await;
    apply(&mut table, &[(1, 1)], &[]).await;
    assert_eq!(commits_since(&warehouse, &id(), None).await.unwrap().len(), 2);
}

#[tokio::test]
async fn a_store_that_is_down_ends_the_commit_and_the_table_opens_as_it_was() {
    let store = Arc::new(Flaky::default());
    let warehouse = Warehouse::in_store(store.clone());
    let mut table = create(&warehouse).await;
    apply(&mut table, &[(1, 1)], &[]).await;
    store.fail(&[Fault::BeforePut; 6]);
    let change: TableChange = stream(&table, &[(1, 2)], &[]);
    assert!(table.commit(change).await.is_err());
    assert_eq!(live(&warehouse).await, expected(&[(1, 1)]));
    apply(&mut open(&warehouse, 2).await, &[(1, 3)], &[]).await;
    assert_eq!(live(&warehouse).await, expected(&[(1, 3)]));
}

/// What goes wrong with a put into the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    /// It is done and answered with an error.
    AfterPut,
    /// It is not done.
    BeforePut,
}

/// A store in memory whose log fails as it is told.
#[derive(Debug, Default)]
struct Flaky {
    inner: InMemory,
    faults: Mutex<VecDeque<Fault>>,
    reads_failing: Mutex<u32>,
}

impl Flaky {
    fn fail(&self, faults: &[Fault]) {
        self.faults.lock().unwrap().extend(faults);
    }

    fn fail_reads(&self, count: u32) {
        *self.reads_failing.lock().unwrap() = count;
    }
}

impl std::fmt::Display for Flaky {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("flaky")
    }
}

fn lost() -> object_store::Error {
    object_store::Error::Generic { store: "flaky", source: "the answer was lost".into() }
}

#[async_trait::async_trait]
impl ObjectStore for Flaky {
    async fn put_opts(&self, location: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        let in_log = location.as_ref().contains("_delta_log");
        let fault = if in_log { self.faults.lock().unwrap().pop_front() } else { None };
        if fault == Some(Fault::BeforePut) {
            return Err(lost());
        }
        let result = self.inner.put_opts(location, payload, opts).await;
        if fault == Some(Fault::AfterPut) && result.is_ok() { Err(lost()) } else { result }
    }

    async fn put_multipart_opts(&self, location: &Path, opts: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(location, opts).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        if location.as_ref().contains("_delta_log") && !options.head {
            let mut failing = self.reads_failing.lock().unwrap();
            if *failing > 0 {
                *failing -= 1;
                return Err(lost());
            }
        }
        self.inner.get_opts(location, options).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.inner.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}
