//! A process that is killed at any request of any step: the table is then as before the step or as after it, the step can
//! be begun again, and what the dead left behind is cleaned away.

use std::collections::BTreeSet;
use std::time::Duration;

use weir_model::layout::{Deletes, Layout, Storage};

use super::buckets::{self, bucket_of, create_shared_of, id_in, of, optimise, sharded_change};
use super::cleaning::{clean_all, now_ms};
use super::*;
use crate::table::clean::clean_log;
use crate::table::log::Log;
use crate::table::mortal::{Last, MortalStore};

/// A table before a step, and what its rows may be.
struct Scene {
    lake: InMemory,
    buckets: Buckets,
    before: Rows,
    after: Rows,
    /// After a process that died in the step and another that has begun it anew, where that is not the same: a chunk is read
    /// again under another order.
    anew: Option<Rows>,
}

/// A process that does a step.
struct Process {
    store: MortalStore,
    warehouse: Warehouse,
    /// The same objects for others, who live on.
    beside: Warehouse,
    epoch: u64,
}

impl Process {
    /// One that lives until it is exposed.
    fn of(lake: &Arc<InMemory>, epoch: u64) -> Self {
        let store = MortalStore::over(lake.clone());
        let (warehouse, beside) = (Warehouse::in_store(Arc::new(store.clone())), Warehouse::in_store(lake.clone()));
        Self { store, warehouse, beside, epoch }
    }

    /// The table, however many requests that takes: a death while it is opened changes nothing.
    async fn open(&self, buckets: Buckets) -> Table {
        let opened = async { Table::open(&self.warehouse, &id(), writer(self.epoch), buckets).await };
        self.store.spared(opened).await.unwrap().unwrap()
    }
}

/// Kills a process at every request that it makes in `step`, which is one that looks first whether it has been done.
async fn at_every_request(scene: Scene, step: impl AsyncFn(&Process)) {
    for last in [Last::NotDone, Last::Done] {
        for left in 0.. {
            let lake = Arc::new(scene.lake.fork());
            let process = Process::of(&lake, 2);
            process.store.expose(left, last);
            let has_lived = process.store.outlives(step(&process)).await.is_some();
            stands_after(&scene, &lake, &step, has_lived, &format!("{last:?} after {left} requests")).await;
            if has_lived {
                assert!(left > 0, "the step makes requests");
                break;
            }
        }
    }
}

async fn stands_after(
    scene: &Scene,
    lake: &Arc<InMemory>,
    step: &impl AsyncFn(&Process),
    has_lived: bool,
    place: &str,
) {
    let warehouse = Warehouse::in_store(lake.clone());
    let rows = sound_rows(&warehouse, place).await;
    let is_done = rows == scene.after;
    assert!(is_done || !has_lived && rows == scene.before, "{place}: {rows:?}");
    // Cleaning comes first, or the step is begun again first.
    let cleaned = Warehouse::in_store(Arc::new(lake.fork()));
    clean(&cleaned, &scene.buckets, 3, place).await;
    assert_eq!(sound_rows(&cleaned, place).await, rows, "{place}");

    step(&Process::of(lake, 3)).await;
    let expected = scene.anew.as_ref().filter(|_| !is_done).unwrap_or(&scene.after);
    assert_eq!(sound_rows(&warehouse, place).await, *expected, "{place}");
    clean(&warehouse, &scene.buckets, 4, place).await;
    assert_eq!(sound_rows(&warehouse, place).await, *expected, "{place}");
}

/// The rows of a table that holds together.
async fn sound_rows(warehouse: &Warehouse, place: &str) -> Rows {
    let verified = verify::verify(warehouse, &id()).await.unwrap();
    assert_eq!(verified.problems, Vec::<String>::new(), "{place}");
    scan(warehouse, None).await
}

/// Removes what nothing names, as one who knows that nobody else writes; exactly what is named is then there.
async fn clean(warehouse: &Warehouse, buckets: &Buckets, epoch: u64, place: &str) {
    let mut table = Table::open(warehouse, &id(), writer(epoch), buckets.clone()).await.unwrap().unwrap();
    clean_all(&mut table, warehouse).await;
    let replay = table.log.replay(None).await.unwrap().unwrap();
    let vectors = replay.files.values().filter_map(|add| add.deletion_vector.as_ref()?.file());
    let named: BTreeSet<String> = replay.files.keys().cloned().chain(vectors.map(|(name, _)| name)).collect();
    let folder = format!("{}/", table.path);
    let objects = objects(&**warehouse.store()).await;
    let there = objects.iter().filter_map(|path| path.strip_prefix(&folder));
    let there: BTreeSet<String> = there.filter(|path| !path.starts_with("_delta_log")).map(str::to_owned).collect();
    assert_eq!(there, named, "{place}");
}

/// Commits changes of the stream unless they are in, which the table's state tells.
async fn once(table: &mut Table, upserts: &[(i64, Order, &str)], deletes: &[(i64, Order)]) {
    let change = stream_change(table, upserts, deletes);
    if change.state.order > table.state().order {
        committed(table, change).await;
    }
}

fn copied() -> TableSchema {
    TableSchema { layout: Layout { storage: Storage::CopyOnWrite, ..Layout::default() }, ..schema() }
}

/// A table with the rows 1 to 6 in two files, of which 2 and 5 have been updated: their old rows are dead.
async fn of_six(schema: &TableSchema) -> (InMemory, Rows) {
    let lake = Arc::new(InMemory::new());
    let rows = six_in(&Warehouse::in_store(lake.clone()), schema).await;
    (lake.fork(), rows)
}

async fn six_in(warehouse: &Warehouse, schema: &TableSchema) -> Rows {
    let mut table = Table::create(warehouse, schema, writer(1), TableState::default(), Buckets::whole()).await.unwrap();
    upsert(&mut table, &[(1, at(1), "a"), (2, at(2), "b"), (3, at(3), "c")]).await;
    upsert(&mut table, &[(4, at(4), "d"), (5, at(5), "e"), (6, at(6), "f")]).await;
    upsert(&mut table, &[(2, at(7), "B"), (5, at(8), "E")]).await;
    let texts = [(1, 1, "a"), (2, 7, "B"), (3, 3, "c"), (4, 4, "d"), (5, 8, "E"), (6, 6, "f")];
    texts.map(|(id, seq, text)| (id, row(at(seq), text))).into()
}

impl Scene {
    /// Of a table that is not sharded, whose rows stay as they are.
    fn at_rest(lake: InMemory, rows: Rows) -> Self {
        Self { lake, buckets: Buckets::whole(), before: rows.clone(), after: rows, anew: None }
    }

    /// The same, but for these rows.
    fn becoming(mut self, upserts: &[(i64, Order, &str)], deletes: &[i64]) -> Self {
        self.after.extend(upserts.iter().map(|(id, order, text)| (*id, row(*order, text))));
        self.after.retain(|id, _| !deletes.contains(id));
        self
    }
}

/// What the stream changes in a table of six.
fn upserts() -> [(i64, Order, &'static str); 2] {
    [(1, at(21), "A"), (9, at(22), "new")]
}

/// The row that it deletes, and with which order.
fn delete() -> (i64, Order) {
    (6, at(23))
}

async fn stream_once(table: &mut Table) {
    once(table, &upserts(), &[delete()]).await;
}

#[tokio::test]
async fn a_commit_of_the_stream() {
    for schema in [schema(), copied()] {
        let (lake, rows) = of_six(&schema).await;
        let scene = Scene::at_rest(lake, rows).becoming(&upserts(), &[delete().0]);
        let step = async |process: &Process| {
            let mut table = process.open(Buckets::whole()).await;
            stream_once(&mut table).await;
        };
        at_every_request(scene, step).await;
    }
}

/// Three rows of a source, as a chunk has read them.
const CHUNK: [(i64, &str); 3] = [(2, "chunk"), (3, "chunk"), (7, "chunk")];

async fn merge_once(table: &mut Table, staged: Vec<StagedChunk>) {
    let mut state = table.state().clone();
    state.seed.as_mut().unwrap().done.push(0);
    state.order = state.order.max(OrderState(staged[0].order0()));
    committed(table, TableChange { staged, ..TableChange::to(state) }).await;
}

fn is_merged(table: &Table) -> bool {
    table.state().seed.as_ref().unwrap().done == [0]
}

/// A table of which a load has begun, and one chunk of it, told as to another process.
async fn loading(schema: &TableSchema) -> (InMemory, Rows, StagedFile) {
    let (lake, rows) = of_six(schema).await;
    let lake = Arc::new(lake);
    let table = begin_seed(open(&Warehouse::in_store(lake.clone()), 1).await).await;
    let staged = chunk(&table, &CHUNK, at(31)).await;
    let told = staged[0].describe();
    drop(staged);
    (lake.fork(), rows, told)
}

#[tokio::test]
async fn the_merge_of_a_chunk() {
    for schema in [schema(), copied()] {
        let (lake, rows, told) = loading(&schema).await;
        let merged = CHUNK.map(|(id, text)| (id, at(31), text));
        let scene = Scene::at_rest(lake, rows).becoming(&merged, &[]);
        let step = async |process: &Process| {
            let mut table = process.open(Buckets::whole()).await;
            if !is_merged(&table) {
                let staged = StagedChunk::open(table.files(), told.clone()).await.unwrap().unwrap();
                merge_once(&mut table, vec![staged]).await;
            }
        };
        at_every_request(scene, step).await;
    }
}

/// Who begins anew does not remember what the stream deleted since the chunk was opened, and reads it again.
#[tokio::test]
async fn the_merge_of_a_chunk_that_the_stream_has_overtaken() {
    for schema in [schema(), copied()] {
        let (lake, rows, told) = loading(&schema).await;
        let stream = [(3, at(41), "stream")];
        let before = Scene::at_rest(lake, rows).becoming(&stream, &[2]);
        let scene = Scene { before: before.after.clone(), ..before }.becoming(&[(7, at(31), "chunk")], &[]);
        // What the source has by then.
        let again = [(3, "stream"), (7, "chunk")];
        let mut anew = scene.after.clone();
        anew.extend(again.map(|(id, text)| (id, row(at(51), text))));
        let scene = Scene { anew: Some(anew), ..scene };
        let step = async |process: &Process| {
            let mut table = process.open(Buckets::whole()).await;
            if is_merged(&table) {
                return;
            }
            process.store.spared(once(&mut table, &stream, &[(2, at(42))])).await;
            let staged = if table.may_merge(0, told.order0) {
                StagedChunk::open(table.files(), told.clone()).await.unwrap().into_iter().collect()
            } else {
                chunk(&table, &again, at(51)).await
            };
            merge_once(&mut table, staged).await;
        };
        at_every_request(scene, step).await;
    }
}

#[tokio::test]
async fn the_end_of_a_load() {
    let marking = TableSchema { layout: Layout { deletes: Deletes::Soft, ..Layout::default() }, ..schema() };
    for schema in [schema(), copied(), marking] {
        let lake = Arc::new(InMemory::new());
        let warehouse = Warehouse::in_store(lake.clone());
        let table =
            Table::create(&warehouse, &schema, writer(1), TableState::default(), Buckets::whole()).await.unwrap();
        let mut table = begin_seed(table).await;
        for (rows, order0) in [(&[(1, "old"), (2, "old"), (3, "old")][..], at(5)), (&[(4, "old")], at(6))] {
            let staged = chunk(&table, rows, order0).await;
            merge_once(&mut table, staged).await;
        }
        // The next load finds 2, and neither 4 nor the others.
        begin_load(&mut table, 2, at(10)).await;
        let staged = chunk(&table, &[(2, "found")], at(11)).await;
        merge_once(&mut table, staged).await;
        // All lie in one file, of which some stay.
        compact(&mut table, async |_| ()).await;

        let scene = Scene::at_rest(lake.fork(), scan(&warehouse, None).await);
        assert_eq!(scene.before.len(), 4);
        let scene = if schema.layout.deletes_softly() {
            let marked = [1, 3, 4].map(|id| (id, at(10), "old"));
            scene.becoming(&marked, &[])
        } else {
            scene.becoming(&[], &[1, 3, 4])
        };
        let step = async |process: &Process| {
            let mut table = process.open(Buckets::whole()).await;
            let mut state = table.state().clone();
            if let Some(seed) = state.seed.take() {
                let change = TableChange { remove_below: Some(below(seed.start)), ..TableChange::to(state) };
                committed(&mut table, change).await;
            }
        };
        at_every_request(scene, step).await;
    }
}

async fn compact(table: &mut Table, meanwhile: impl AsyncFn(&mut Table)) {
    while let Some(rewriting) = table.compaction(Effort::Full) {
        let rewritten = rewriting.run().await.unwrap();
        meanwhile(table).await;
        table.commit_rewritten(rewritten).await.unwrap();
    }
}

#[tokio::test]
async fn a_compaction_while_rows_die() {
    for schema in [schema(), copied()] {
        let (lake, rows) = of_six(&schema).await;
        let scene = Scene::at_rest(lake, rows).becoming(&upserts(), &[delete().0]);
        let step = async |process: &Process| {
            let mut table = process.open(Buckets::whole()).await;
            let meanwhile = async |table: &mut Table| {
                process.store.spared(stream_once(table)).await;
            };
            compact(&mut table, &meanwhile).await;
            // Where nothing is left to compact, that it was done says the change, too.
            meanwhile(&mut table).await;
        };
        at_every_request(scene, step).await;
    }
}

/// Replaced files, old vectors, and a chunk that nobody will merge.
#[tokio::test]
async fn a_cleaning() {
    let (lake, rows) = of_six(&schema()).await;
    let lake = Arc::new(lake);
    let warehouse = Warehouse::in_store(lake.clone());
    let mut table = open(&warehouse, 1).await;
    upsert(&mut table, &[(3, at(9), "c")]).await;
    compact(&mut table, async |_| ()).await;
    upsert(&mut table, &[(3, at(10), "C")]).await;
    drop(chunk(&table, &[(1, "orphan"), (2, "orphan")], at(11)).await);
    let garbage = objects(&*lake).await.iter().filter(|path| !path.contains("_delta_log")).count() - 3;
    assert!(garbage >= 7, "{garbage}");
    let scene = Scene::at_rest(lake.fork(), rows).becoming(&[(3, at(10), "C")], &[]);
    let scene = Scene { before: scene.after.clone(), ..scene };
    let step = async |process: &Process| {
        let mut table = process.open(Buckets::whole()).await;
        clean_all(&mut table, &process.warehouse).await;
    };
    at_every_request(scene, step).await;
}

#[tokio::test]
async fn a_log_cleaning_with_a_checkpoint() {
    let (lake, rows) = of_six(&schema()).await;
    let lake = Arc::new(lake);
    let warehouse = Warehouse::in_store(lake.clone());
    let mut table = open(&warehouse, 1).await;
    // One checkpoint from which the log was cut before, and commits behind it.
    checkpoint::write(&warehouse, &table.path).await.unwrap();
    upsert(&mut table, &[(3, at(9), "C")]).await;
    assert_eq!(clean_log(&warehouse, &id(), Duration::ZERO, i64::MAX, now_ms()).await.unwrap(), 3);
    upsert(&mut table, &[(4, at(10), "D")]).await;
    let scene = Scene::at_rest(lake.fork(), rows).becoming(&[(3, at(9), "C"), (4, at(10), "D")], &[]);
    let scene = Scene { before: scene.after.clone(), ..scene };
    let step = async |process: &Process| {
        let log = Log::new(&process.warehouse, &id());
        let newest = process.store.spared(log.versions()).await.unwrap().commits.last().copied().unwrap();
        let table = process.warehouse.table_path(&id());
        process.store.heard(checkpoint::write(&process.warehouse, &table)).await;
        clean_log(&process.warehouse, &id(), Duration::ZERO, i64::MAX, now_ms()).await.unwrap();
        let versions = process.store.spared(log.versions()).await.unwrap();
        assert_eq!((versions.commits, versions.checkpoints), (vec![newest], vec![newest]));
    };
    at_every_request(scene, step).await;
}

/// Whether someone else has written all of the table's files as one.
async fn is_optimised(warehouse: &Warehouse) -> bool {
    let replay = Log::new(warehouse, &id()).replay(None).await.unwrap().unwrap();
    replay.files.values().any(|add| add.tags.is_none())
}

/// A writer learns of it by its own commit, which loses, and is worked out again behind it.
#[tokio::test]
async fn the_taking_in_of_a_foreign_optimize() {
    let (lake, rows) = of_six(&schema()).await;
    let scene = Scene::at_rest(lake, rows).becoming(&upserts(), &[delete().0]);
    let step = async |process: &Process| {
        let mut table = process.open(Buckets::whole()).await;
        if !is_optimised(&process.beside).await {
            optimise(&process.beside, &open(&process.beside, process.epoch).await).await;
        }
        let change = stream_change(&table, &upserts(), &[delete()]);
        if change.state.order == table.state().order {
            return;
        }
        if let CommitOutcome::Moved = table.commit(change).await.unwrap() {
            assert_eq!(table.absorb().await.unwrap(), Absorbed::Beside);
            stream_once(&mut table).await;
        }
    };
    at_every_request(scene, step).await;
}

/// A table of five buckets, two rows each, all in one file.
async fn in_one_file(storage: Storage) -> (InMemory, Rows) {
    let lake = Arc::new(InMemory::new());
    let warehouse = Warehouse::in_store(lake.clone());
    let schema = TableSchema { layout: Layout { storage, ..Layout::default() }, ..schema() };
    let mut table = create_shared_of(&warehouse, &schema).await;
    let ids = (0..buckets::COUNT).flat_map(|bucket| [id_in(bucket, 0), id_in(bucket, 1)]);
    let upserts: Vec<_> = ids.map(|id| (id, at(10), "x")).collect();
    buckets::put(&mut table, &upserts, &[]).await;
    optimise(&warehouse, &table).await;
    (lake.fork(), upserts.into_iter().map(|(id, order, text)| (id, row(order, text))).collect())
}

/// Commits a change of the topic unless its bucket has taken it in.
async fn put_once(table: &mut Table, id: i64, order: Order, text: &str) {
    while table.state().greatest_of(bucket_of(id)) < order {
        let change = sharded_change(table, &[(id, order, text)], &[]);
        if let CommitOutcome::Moved = table.commit(change).await.unwrap() {
            table.absorb().await.unwrap();
        }
    }
}

/// The owner of the first bucket splits a file while another one changes rows in it.
#[tokio::test]
async fn the_split_of_a_file_of_several_buckets() {
    let (lake, rows) = in_one_file(Storage::MergeOnRead).await;
    let (ours, theirs) = ((id_in(0, 0), at(21), "ours"), (id_in(3, 1), at(22), "theirs"));
    let scene = Scene::at_rest(lake, rows).becoming(&[ours, theirs], &[]);
    let scene = Scene { buckets: Buckets::all(buckets::COUNT), ..scene };
    let step = async |process: &Process| {
        let mut table = process.open(of(&[0, 1])).await;
        let meanwhile = async |table: &mut Table| {
            let mut other = buckets::open_of(&process.beside, &[2, 3, 4]).await;
            process.store.spared(put_once(table, ours.0, ours.1, ours.2)).await;
            put_once(&mut other, theirs.0, theirs.1, theirs.2).await;
        };
        compact(&mut table, &meanwhile).await;
        assert!(!is_optimised(&process.beside).await);
        meanwhile(&mut table).await;
    };
    at_every_request(scene, step).await;
}

/// Where files are copied on write, whoever has a row that dies splits the file.
#[tokio::test]
async fn a_commit_that_copies_a_file_of_several_buckets() {
    let (lake, rows) = in_one_file(Storage::CopyOnWrite).await;
    let change = (id_in(3, 1), at(21), "new");
    let scene = Scene::at_rest(lake, rows).becoming(&[change], &[]);
    let scene = Scene { buckets: Buckets::all(buckets::COUNT), ..scene };
    let step = async |process: &Process| {
        let mut table = process.open(of(&[2, 3])).await;
        put_once(&mut table, change.0, change.1, change.2).await;
        assert!(!is_optimised(&process.beside).await);
    };
    at_every_request(scene, step).await;
}

/// What a child of this test is told: where the table lies, and how many steps of its writes it does.
const CHILD: [&str; 2] = ["WEIR_TEST_CRASH_AT", "WEIR_TEST_CRASH_BEHIND"];

fn on_disk(url: &str) -> Warehouse {
    Warehouse::open(url, &BTreeMap::new()).unwrap()
}

/// A write on local disk has steps of its own. The test runs itself as a child, which ends between two of them.
#[tokio::test]
async fn a_commit_on_local_disk_between_any_two_steps_of_a_write() {
    if let [Ok(url), Ok(steps)] = CHILD.map(std::env::var) {
        let mut table = open(&on_disk(&url), 2).await;
        ending::end_after(steps.parse().unwrap());
        return stream_once(&mut table).await;
    }
    let name = "table::tests::crashes::a_commit_on_local_disk_between_any_two_steps_of_a_write";
    let mut unfinished = 0;
    for steps in 0.. {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("file://{}", folder.path().display());
        let before = six_in(&on_disk(&url), &schema()).await;
        let after = Scene::at_rest(InMemory::new(), before.clone()).becoming(&upserts(), &[delete().0]).after;
        let child = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", name])
            .envs([(CHILD[0], &url), (CHILD[1], &steps.to_string())])
            .output()
            .unwrap();
        let has_lived = child.status.success();
        assert!(has_lived || child.status.code() == Some(ending::ENDED), "{child:?}");
        let place = format!("after {steps} steps");
        let rows = sound_rows(&on_disk(&url), &place).await;
        assert!(rows == after || !has_lived && rows == before, "{place}: {rows:?}");
        unfinished += usize::from(objects(&**on_disk(&url).store()).await.iter().any(|path| path.contains("._weir_")));
        stream_once(&mut open(&on_disk(&url), 3).await).await;
        clean(&on_disk(&url), &Buckets::whole(), 4, &place).await;
        assert_eq!(sound_rows(&on_disk(&url), &place).await, after, "{place}");
        let left = objects(&**on_disk(&url).store()).await;
        assert!(!left.iter().any(|path| path.contains("._weir_")), "{place}: {left:?}");
        if has_lived {
            // A data file, a vector and a version, each of six steps.
            assert!(steps >= 18 && unfinished >= 9, "{steps} steps, {unfinished} unfinished");
            return;
        }
    }
}
