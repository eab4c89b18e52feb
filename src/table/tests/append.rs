//! Tables that keep every change as a row, against a list of all changes.

use object_store::ObjectStoreExt;
use proptest::prelude::*;
use weir_model::layout::TableMode;

use super::*;

/// A row: its order, operation, id of the change, id and text.
type Entry = (Order, String, Option<String>, i64, String);

/// Without a key: none is needed.
fn log_schema() -> TableSchema {
    let mut schema = TableSchema { key: Vec::new(), ..schema() };
    schema.layout.mode = TableMode::Append;
    schema
}

async fn log_table(warehouse: &Warehouse) -> Table {
    Table::create(warehouse, &log_schema(), writer(1), TableState::default(), Buckets::whole()).await.unwrap()
}

fn entry(order: Order, op: &str, id: i64, text: &str) -> Entry {
    let change = (op != "r").then(|| format!("change-{order}"));
    (order, op.to_owned(), change, id, text.to_owned())
}

/// A commit of changes of the stream.
fn log_change(table: &Table, entries: &[Entry]) -> TableChange {
    let schema = table.schema();
    let texts: Vec<(i64, &str)> = entries.iter().map(|(.., id, text)| (*id, text.as_str())).collect();
    let mut columns = source_rows(schema, &texts).columns().to_vec();
    columns.push(Arc::new(Int64Array::from_iter_values(entries.iter().map(|(order, ..)| order.ts_ms))));
    columns.push(Arc::new(Int64Array::from_iter_values(entries.iter().map(|(order, ..)| order.seq))));
    columns.push(Arc::new(StringArray::from_iter_values(entries.iter().map(|(_, op, ..)| op))));
    columns.push(Arc::new(entries.iter().map(|(_, _, change, ..)| change.clone()).collect::<StringArray>()));
    let rows = RecordBatch::try_new(schema.lake_arrow(), columns).unwrap();
    let mut state = table.state().clone();
    raise(&mut state, entries.iter().map(|(order, ..)| *order).max().unwrap_or(Order::MIN));
    let rows = vec![BucketRows { bucket: 0, rows, keys: RecordKeys::none() }];
    TableChange { rows, ..TableChange::to(state) }
}

/// Every row, in order.
async fn entries(warehouse: &Warehouse) -> Vec<Entry> {
    let mut entries = Vec::new();
    let scan = Scan::open(warehouse, &id(), None, None).await.unwrap();
    scan.for_each(|batch| {
        let longs = |name: &str| batch.column_by_name(name).unwrap().as_primitive::<Int64Type>().clone();
        let texts = |name: &str| batch.column_by_name(name).unwrap().as_string::<i32>().clone();
        let (ids, ts, seq) = (longs("id"), longs("_weir_ts_ms"), longs("_weir_seq"));
        let (text, ops, changes) = (texts("text"), texts("_weir_op"), texts("_weir_id"));
        for row in 0..batch.num_rows() {
            let change = changes.is_valid(row).then(|| changes.value(row).to_owned());
            let order = Order::new(ts.value(row), seq.value(row));
            entries.push((order, ops.value(row).to_owned(), change, ids.value(row), text.value(row).to_owned()));
        }
        Ok(())
    })
    .await
    .unwrap();
    entries.sort();
    entries
}

fn is_refused(outcome: &Result<CommitOutcome, TableError>) -> bool {
    matches!(outcome, Err(TableError::Rule { .. }))
}

#[tokio::test]
async fn a_change_that_is_in_is_not_appended_again() {
    let warehouse = in_memory();
    let mut table = log_table(&warehouse).await;
    let first = [entry(at(1), "c", 7, "a"), entry(at(2), "u", 7, "b")];
    let change = log_change(&table, &first);
    committed(&mut table, change).await;
    for again in [&first[..], &first[1..], &[entry(at(4), "c", 8, "c"), entry(at(3), "c", 9, "d")]] {
        let change = log_change(&table, again);
        assert!(is_refused(&table.commit(change).await), "{again:?}");
    }
    assert_eq!(entries(&warehouse).await, first);
}

#[tokio::test]
async fn no_row_goes_but_with_a_table_that_begins_anew() {
    let warehouse = in_memory();
    let mut table = log_table(&warehouse).await;
    let change = log_change(&table, &[entry(at(1), "c", 7, "a")]);
    committed(&mut table, change).await;
    let state = TableState { greatest: vec![at(2)], ..table.state().clone() };
    let to = || TableChange::to(state.clone());
    assert!(is_refused(&table.commit(TableChange { clear: Some(clear(at(2))), ..to() }).await));
    assert!(is_refused(&table.commit(TableChange { remove_below: Some(below(at(2))), ..to() }).await));
    let deletes = vec![(RecordKey::Int(7), at(2))];
    assert!(is_refused(&table.commit(TableChange { deletes, ..to() }).await));

    let mut other = log_schema();
    other.columns[1].ty = ColumnType::Int64;
    committed(&mut table, TableChange { clear: Some(clear(at(2))), evolve: Some(other), ..to() }).await;
    assert_eq!(table.figures(), (0, 0, 0));
}

#[tokio::test]
async fn a_log_is_opened_without_reading_its_files() {
    let store = Arc::new(InMemory::new());
    let warehouse = Warehouse::in_store(store.clone());
    let mut table = log_table(&warehouse).await;
    let change = log_change(&table, &[entry(at(1), "c", 7, "a"), entry(at(2), "c", 8, "b")]);
    committed(&mut table, change).await;
    for path in objects(store.as_ref()).await.iter().filter(|path| path.ends_with(".parquet")) {
        store.delete(&path.as_str().into()).await.unwrap();
    }
    let table = open(&warehouse, 2).await;
    assert_eq!((table.figures().1, table.index_figures().0), (2, 0));
}

#[tokio::test]
async fn a_log_that_is_loaded_anew_goes_on_from_what_it_has() {
    let set = |text: &str| format!("3e11fa47-71ca-11e1-9e33-c80aa9429562:{text}").parse::<GtidSet>().unwrap();
    let warehouse = in_memory();
    let mut table = log_table(&warehouse).await;
    let state = TableState { gtid_set: set("1-20"), ..table.state().clone() };
    committed(&mut table, TableChange::to(state)).await;
    table.restart_set(&set("1-9"), &set("1-30"));
    assert_eq!(table.state().gtid_set, set("1-20"));
    // A source whose history was begun anew has made less than the table has.
    table.restart_set(&set("1-3"), &set("1-4"));
    assert_eq!(table.state().gtid_set, set("1-4"));
}

#[tokio::test]
async fn a_chunk_without_a_key_is_of_one_bucket_however_many_there_are() {
    let warehouse = in_memory();
    let (state, buckets) = (TableState::default(), Buckets::all(5));
    let mut table = Table::create(&warehouse, &log_schema(), writer(1), state, buckets).await.unwrap();
    let mut writer = ChunkWriter::create(table.files(), Arc::new(log_schema()), at(3), Window(0), 5).unwrap();
    writer.write(&source_rows(&log_schema(), &[(1, "a"), (2, "b")])).await.unwrap();
    writer.write(&source_rows(&log_schema(), &[(1, "a")])).await.unwrap();
    let staged = writer.finish().await.unwrap();
    assert_eq!((staged.len(), staged[0].rows()), (1, 3));
    let state = TableState { order: OrderState(at(3)), ..table.state().clone() };
    committed(&mut table, TableChange { staged, ..TableChange::to(state) }).await;
    let read = [(1, "a"), (1, "a"), (2, "b")].map(|(id, text)| entry(at(3), "r", id, text));
    assert_eq!(entries(&warehouse).await, read);
    assert_eq!(verify::verify(&warehouse, &id()).await.unwrap().problems, Vec::<String>::new());
}

#[derive(Debug, Clone)]
enum Step {
    /// Changes of the stream in one commit.
    Stream(Vec<(i64, usize)>),
    BeginSeed,
    /// A chunk of so many rows is read and merged behind other changes.
    Chunk(i64, Vec<(i64, usize)>),
    EndSeed,
    AddColumn,
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    let changes = || prop::collection::vec((0_i64..9, 0_usize..3), 1..6);
    prop_oneof![
        8 => changes().prop_map(Step::Stream),
        2 => Just(Step::BeginSeed),
        4 => (0_i64..6, changes()).prop_map(|(rows, between)| Step::Chunk(rows, between)),
        2 => Just(Step::EndSeed),
        1 => Just(Step::AddColumn),
        2 => Just(Step::Restart),
    ]
}

struct World {
    warehouse: Warehouse,
    table: Table,
    expected: Vec<Entry>,
    orders: OrderState,
    epoch: u64,
}

impl World {
    async fn stream(&mut self, changes: Vec<(i64, usize)>) {
        let new: Vec<Entry> = changes
            .into_iter()
            .map(|(id, op)| entry(self.orders.assign(1_000), ["c", "u", "d"][op], id, "streamed"))
            .collect();
        let change = log_change(&self.table, &new);
        committed(&mut self.table, change).await;
        self.expected.extend(new);
    }

    async fn step(&mut self, step: Step) {
        let mut state = self.table.state().clone();
        match step {
            Step::Stream(changes) => self.stream(changes).await,
            Step::BeginSeed => {
                let start = self.orders.assign(1_000);
                begin_load(&mut self.table, 1, start).await;
            }
            Step::Chunk(rows, between) => {
                let order0 = self.orders.assign(1_000);
                let texts: Vec<(i64, &str)> = (0..rows).map(|id| (id, "read")).collect();
                let staged = chunk(&self.table, &texts, order0).await;
                // Whatever the stream brings meanwhile, every row of the chunk enters.
                self.stream(between).await;
                let mut state = self.table.state().clone();
                state.order = state.order.max(OrderState(order0));
                let accounts = committed(&mut self.table, TableChange { staged, ..TableChange::to(state) }).await;
                let counts = [Hop::ChunkRead, Hop::ChunkUpserted].map(|hop| total(&accounts, hop));
                assert_eq!(counts, [rows as u64; 2]);
                self.expected.extend((0..rows).map(|id| entry(order0, "r", id, "read")));
            }
            Step::EndSeed => {
                state.seed = None;
                committed(&mut self.table, TableChange::to(state)).await;
            }
            Step::AddColumn => {
                let mut schema = self.table.schema().as_ref().clone();
                schema.columns.push(column(&format!("n{}", schema.columns.len()), ColumnType::Int64));
                committed(&mut self.table, TableChange { evolve: Some(schema), ..TableChange::to(state) }).await;
            }
            Step::Restart => {
                self.epoch += 1;
                self.table = open(&self.warehouse, self.epoch).await;
                self.orders = self.table.state().order;
            }
        }
    }

    async fn check(&mut self) {
        self.expected.sort();
        assert_eq!(entries(&self.warehouse).await, self.expected);
        let rebuilt = open(&self.warehouse, self.epoch).await;
        assert_eq!((rebuilt.state(), rebuilt.figures()), (self.table.state(), self.table.figures()));
        assert_eq!(self.table.figures().1, self.expected.len() as u64);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn every_change_and_every_row_of_a_chunk_is_there_once(steps in prop::collection::vec(step(), 1..24)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let warehouse = in_memory();
            let table = log_table(&warehouse).await;
            let mut world = World { warehouse, table, expected: Vec::new(), orders: OrderState::default(), epoch: 1 };
            for step in steps {
                world.step(step).await;
                world.check().await;
            }
        });
    }
}
