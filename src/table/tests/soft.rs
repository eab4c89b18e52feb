//! Tables whose deletes are soft: random sequences against a map that forgets nothing, and single cases.

use arrow_array::BooleanArray;
use proptest::prelude::*;
use weir_model::layout::Deletes;

use super::buckets::{COUNT, id_in, move_share, open_of, optimise};
use super::*;

/// What a table holds of an id: the order of the row's last change, its text, and whether it is marked as deleted.
type Held = BTreeMap<i64, (Order, String, bool)>;

fn soft_schema() -> TableSchema {
    let mut schema = schema();
    schema.layout.deletes = Deletes::Soft;
    schema
}

async fn soft_table(warehouse: &Warehouse) -> Table {
    Table::create(warehouse, &soft_schema(), writer(1), TableState::default(), Buckets::whole()).await.unwrap()
}

/// Rows of the stream, those of deletes marked, ascending by id.
fn soft_change(table: &Table, changes: &BTreeMap<i64, (Order, String, bool)>) -> TableChange {
    let schema = table.schema();
    let texts: Vec<(i64, &str)> = changes.iter().map(|(id, (_, text, _))| (*id, text.as_str())).collect();
    let mut columns = source_rows(schema, &texts).columns().to_vec();
    columns.push(Arc::new(Int64Array::from_iter_values(changes.values().map(|(order, ..)| order.ts_ms))));
    columns.push(Arc::new(Int64Array::from_iter_values(changes.values().map(|(order, ..)| order.seq))));
    columns.push(Arc::new(changes.values().map(|(.., deleted)| Some(*deleted)).collect::<BooleanArray>()));
    let rows = RecordBatch::try_new(schema.lake_arrow(), columns).unwrap();
    let keys = RecordKeys::of(&rows, &schema.key_names()).unwrap();
    let mut state = table.state().clone();
    raise(&mut state, changes.values().map(|(order, ..)| *order).max().unwrap_or(Order::MIN));
    TableChange { rows: vec![BucketRows { bucket: 0, rows, keys }], ..TableChange::to(state) }
}

async fn held(warehouse: &Warehouse) -> Held {
    let mut held = Held::new();
    let scan = Scan::open(warehouse, &id(), None, None).await.unwrap();
    scan.for_each(|batch| {
        let longs = |name: &str| batch.column_by_name(name).unwrap().as_primitive::<Int64Type>().clone();
        let (ids, ts, seq) = (longs("id"), longs("_weir_ts_ms"), longs("_weir_seq"));
        let texts = batch.column_by_name("text").unwrap().as_string::<i32>();
        let deleted = batch.column_by_name("_weir_deleted").unwrap().as_boolean();
        for row in 0..batch.num_rows() {
            assert!(deleted.is_valid(row), "a row does not say whether it is deleted");
            let row_of = (Order::new(ts.value(row), seq.value(row)), texts.value(row).to_owned(), deleted.value(row));
            assert!(held.insert(ids.value(row), row_of).is_none(), "two live rows of {}", ids.value(row));
        }
        Ok(())
    })
    .await
    .unwrap();
    held
}

fn one(id: i64, order: Order, text: &str, deleted: bool) -> BTreeMap<i64, (Order, String, bool)> {
    BTreeMap::from([(id, (order, text.to_owned(), deleted))])
}

async fn take(table: &mut Table, changes: &BTreeMap<i64, (Order, String, bool)>) {
    let change = soft_change(table, changes);
    committed(table, change).await;
}

#[tokio::test]
async fn what_a_load_does_not_find_is_marked_with_its_order_and_what_was_marked_stays() {
    let warehouse = in_memory();
    let mut table = soft_table(&warehouse).await;
    for (id, seq, deleted) in [(1, 1, false), (2, 2, true), (3, 3, false)] {
        take(&mut table, &one(id, at(seq), "before", deleted)).await;
    }
    begin_load(&mut table, 1, at(10)).await;
    let staged = chunk(&table, &[(1, "found")], at(11)).await;
    merge(&mut table, staged).await;
    let state = TableState { seed: None, ..table.state().clone() };
    let change = TableChange { remove_below: Some(below(at(10))), ..TableChange::to(state) };
    let accounts = committed(&mut table, change).await;
    assert_eq!(total(&accounts, Hop::ChunkRemoved), 1);
    let expected = [
        (1, (at(11), "found".to_owned(), false)),
        (2, (at(2), "before".to_owned(), true)),
        (3, (at(10), "before".to_owned(), true)),
    ];
    assert_eq!(held(&warehouse).await, BTreeMap::from(expected));
    assert_eq!(table.figures().1, 3);
}

#[tokio::test]
async fn keys_that_a_chunk_looks_for_in_vain_are_marked_with_its_order_unless_they_are_newer() {
    let warehouse = in_memory();
    let mut table = soft_table(&warehouse).await;
    for (id, seq, deleted) in [(1, 1, false), (2, 2, true), (3, 3, false)] {
        take(&mut table, &one(id, at(seq), "before", deleted)).await;
    }
    begin_load(&mut table, 1, at(10)).await;
    take(&mut table, &one(3, at(12), "after", false)).await;
    let keys = [1, 2, 3, 4].map(|id| record_key(&soft_schema(), id)).to_vec();
    let absent = vec![AbsentKeys { bucket: 0, order0: at(11), keys }];
    let state = table.state().clone();
    let accounts = committed(&mut table, TableChange { absent, ..TableChange::to(state) }).await;
    assert_eq!(total(&accounts, Hop::ChunkRemoved), 1);
    let expected = [
        (1, (at(11), "before".to_owned(), true)),
        (2, (at(2), "before".to_owned(), true)),
        (3, (at(12), "after".to_owned(), false)),
    ];
    assert_eq!(held(&warehouse).await, BTreeMap::from(expected));
}

#[tokio::test]
async fn a_table_that_begins_anew_with_other_columns_loses_even_marked_rows() {
    let warehouse = in_memory();
    let mut table = soft_table(&warehouse).await;
    take(&mut table, &one(1, at(1), "a", true)).await;
    let mut other = soft_schema();
    other.columns[1].ty = ColumnType::Int64;
    let mut state = table.state().clone();
    raise(&mut state, at(2));
    let change = TableChange { clear: Some(clear(at(2))), evolve: Some(other), ..TableChange::to(state) };
    committed(&mut table, change).await;
    assert_eq!(table.figures(), (0, 0, 0));
}

#[tokio::test]
async fn a_commit_that_takes_rows_out_of_a_soft_table_or_brings_another_layout_is_refused() {
    let warehouse = in_memory();
    let mut table = soft_table(&warehouse).await;
    take(&mut table, &one(1, at(1), "a", false)).await;
    let mut state = table.state().clone();
    raise(&mut state, at(2));
    let deletes = vec![(RecordKey::Int(1), at(2))];
    let change = TableChange { deletes, ..TableChange::to(state.clone()) };
    assert!(matches!(table.commit(change).await, Err(TableError::Rule { .. })));
    // A chunk of a process whose configuration differs.
    let hard = Arc::new(schema());
    let mut writer = ChunkWriter::create(table.files(), hard, at(3), Window(0), 1).unwrap();
    writer.write(&source_rows(&schema(), &[(2, "b")])).await.unwrap();
    let staged = writer.finish().await.unwrap();
    assert!(matches!(
        table.commit(TableChange { staged, ..TableChange::to(state.clone()) }).await,
        Err(TableError::Rule { .. })
    ));
    // An order that nobody has been told of.
    let change = TableChange { clear: Some(clear(at(9))), ..TableChange::to(state) };
    assert!(matches!(table.commit(change).await, Err(TableError::Rule { .. })));
    assert_eq!(held(&warehouse).await, one(1, at(1), "a", false));
}

#[tokio::test]
async fn a_bucket_marks_its_own_rows_also_in_files_that_hold_several() {
    for mixed in [false, true] {
        let warehouse = in_memory();
        let (state, buckets) = (TableState::default(), Buckets::all(COUNT));
        let mut table = Table::create(&warehouse, &soft_schema(), writer(1), state, buckets).await.unwrap();
        let mut expected = Held::new();
        for bucket in 0..COUNT {
            // One that lives and one that is marked already.
            for (n, seq) in [(0, 1), (1, 2)] {
                let row = one(id_in(bucket, n), at(i64::from(bucket) * 10 + seq), "x", n == 1);
                let mut change = soft_change(&table, &row);
                change.rows[0].bucket = bucket;
                change.state.greatest[bucket as usize] = change.state.order.0;
                move_share(&mut change.state, bucket);
                committed(&mut table, change).await;
                expected.extend(row);
            }
        }
        if mixed {
            optimise(&warehouse, &table).await;
        }
        let mut owner = open_of(&warehouse, &[2]).await;
        let mut state = owner.state().clone();
        move_share(&mut state, 2);
        (state.greatest[2], state.order) = (at(90), OrderState(at(90)));
        let clear = Clear { at: at(90), buckets: [2].into() };
        committed(&mut owner, TableChange { clear: Some(clear), ..TableChange::to(state) }).await;
        expected.insert(id_in(2, 0), (at(90), "x".to_owned(), true));
        assert_eq!(held(&warehouse).await, expected, "mixed: {mixed}");
        let again = open_of(&warehouse, &[2]).await;
        assert_eq!((owner.index_figures().0, again.index_figures().0), (2, 2));
    }
}

#[derive(Debug, Clone)]
enum Step {
    /// Changes of the stream in one commit: id → new text, or a delete.
    Stream(BTreeMap<i64, Option<u8>>),
    /// Rows that vanish from the source without events.
    Vanish(i64, i64),
    BeginSeed,
    Read(i64, i64),
    Merge,
    EndSeed,
    Truncate,
    AddColumn,
    Restart,
}

const IDS: std::ops::Range<i64> = 0..24;

fn step() -> impl Strategy<Value = Step> {
    let stream = prop::collection::btree_map(IDS, prop::option::weighted(0.6, any::<u8>()), 1..8);
    prop_oneof![
        12 => stream.prop_map(Step::Stream),
        2 => (IDS, 1_i64..6).prop_map(|(from, len)| Step::Vanish(from, from + len)),
        2 => Just(Step::BeginSeed),
        6 => (IDS, 1_i64..12).prop_map(|(from, len)| Step::Read(from, from + len)),
        6 => Just(Step::Merge),
        2 => Just(Step::EndSeed),
        1 => Just(Step::Truncate),
        1 => Just(Step::AddColumn),
        2 => Just(Step::Restart),
    ]
}

struct Waiting {
    staged: Vec<StagedChunk>,
    rows: Vec<(i64, String)>,
    order0: Order,
}

struct World {
    warehouse: Warehouse,
    table: Table,
    source: BTreeMap<i64, String>,
    expected: Held,
    orders: OrderState,
    waiting: Vec<Waiting>,
    epoch: u64,
}

impl World {
    async fn new() -> Self {
        let warehouse = in_memory();
        let table = soft_table(&warehouse).await;
        let (source, expected, orders, waiting) = (BTreeMap::new(), Held::new(), OrderState::default(), Vec::new());
        Self { warehouse, table, source, expected, orders, waiting, epoch: 1 }
    }

    fn next(&mut self) -> Order {
        self.orders.assign(1_000)
    }

    async fn step(&mut self, step: Step) {
        match step {
            Step::Stream(changes) => self.stream(changes).await,
            Step::Vanish(from, to) => self.source.retain(|id, _| !(from..to).contains(id)),
            Step::BeginSeed => {
                self.waiting.clear();
                let start = self.next();
                begin_load(&mut self.table, 1, start).await;
            }
            Step::Read(from, to) if self.table.state().seed.is_some() => {
                let order0 = self.next();
                let rows: Vec<(i64, String)> =
                    self.source.range(from..to).map(|(id, text)| (*id, text.clone())).collect();
                let texts: Vec<(i64, &str)> = rows.iter().map(|(id, text)| (*id, text.as_str())).collect();
                let staged = chunk(&self.table, &texts, order0).await;
                self.waiting.push(Waiting { staged, rows, order0 });
            }
            Step::Merge if !self.waiting.is_empty() => self.merge().await,
            Step::Read(..) | Step::Merge => {}
            Step::EndSeed => {
                let mut state = self.table.state().clone();
                let Some(seed) = state.seed.take() else { return };
                self.waiting.clear();
                let missed = self.mark(seed.start, |order| order < seed.start);
                let remove_below = Some(below(seed.start));
                let accounts = committed(&mut self.table, TableChange { remove_below, ..TableChange::to(state) }).await;
                assert_eq!(total(&accounts, Hop::ChunkRemoved), missed);
            }
            Step::Truncate => {
                let order = self.next();
                self.source.clear();
                self.waiting.clear();
                self.mark(order, |_| true);
                let mut state = self.table.state().clone();
                raise(&mut state, order);
                committed(&mut self.table, TableChange { clear: Some(clear(order)), ..TableChange::to(state) }).await;
            }
            Step::AddColumn => {
                let mut schema = self.table.schema().as_ref().clone();
                let name = format!("n{}", schema.columns.len());
                schema.columns.push(column(&name, ColumnType::Int64));
                let state = self.table.state().clone();
                committed(&mut self.table, TableChange { evolve: Some(schema), ..TableChange::to(state) }).await;
            }
            Step::Restart => {
                self.waiting.clear();
                self.epoch += 1;
                self.table = open(&self.warehouse, self.epoch).await;
                self.orders = self.table.state().order;
            }
        }
    }

    /// Marks what is expected to be; gives how many rows.
    fn mark(&mut self, mark: Order, covered: impl Fn(Order) -> bool) -> u64 {
        let mut marked = 0;
        for (order, _, deleted) in self.expected.values_mut() {
            if !*deleted && covered(*order) {
                (*order, *deleted, marked) = (mark, true, marked + 1);
            }
        }
        marked
    }

    async fn stream(&mut self, changes: BTreeMap<i64, Option<u8>>) {
        let mut rows = Held::new();
        for (id, text) in changes {
            let order = self.next();
            match text.map(|text| text.to_string()) {
                Some(text) => {
                    self.source.insert(id, text.clone());
                    rows.insert(id, (order, text, false));
                }
                // The image before the delete; a delete of what is not there has one, too.
                None => {
                    let before = self.source.remove(&id).unwrap_or_else(|| "unseen".to_owned());
                    rows.insert(id, (order, before, true));
                }
            }
        }
        self.expected.extend(rows.clone());
        take(&mut self.table, &rows).await;
    }

    async fn merge(&mut self) {
        let Waiting { staged, rows, order0 } = self.waiting.remove(0);
        if !self.table.may_merge(0, order0) {
            return;
        }
        for (id, text) in rows {
            if self.expected.get(&id).is_none_or(|(order, ..)| *order < order0) {
                self.expected.insert(id, (order0, text, false));
            }
        }
        let mut state = self.table.state().clone();
        state.order = state.order.max(OrderState(order0));
        committed(&mut self.table, TableChange { staged, ..TableChange::to(state) }).await;
    }

    /// The table holds what it must, and its index is the one that a restart would build.
    async fn check(&self) {
        assert_eq!(held(&self.warehouse).await, self.expected);
        let rebuilt = open(&self.warehouse, self.epoch).await;
        assert_eq!(rebuilt.state(), self.table.state());
        assert_eq!(
            (self.table.index_figures().0, self.table.figures().1 as usize),
            (self.expected.len(), self.expected.len())
        );
        let path_of = |table: &Table, id: i64| match table.locate(RecordKey::Int(id).as_ref()) {
            Located::Live(address) => Some((table.files[&address.file].add.path.clone(), address.row)),
            Located::Deleted(_) | Located::Absent => None,
        };
        for id in IDS {
            assert_eq!(path_of(&rebuilt, id), path_of(&self.table, id), "row of {id}");
        }
    }

    /// A load of every id: unmarked rows are then those of the source.
    async fn load_all(&mut self) {
        self.step(Step::BeginSeed).await;
        for from in IDS.step_by(8) {
            self.step(Step::Read(from, from + 8)).await;
            self.step(Step::Stream(BTreeMap::from([(from, None), (from + 1, Some(7)), (from + 9, Some(8))]))).await;
            self.step(Step::Merge).await;
        }
        self.step(Step::EndSeed).await;
        let live = held(&self.warehouse).await.into_iter().filter(|(_, (.., deleted))| !deleted);
        assert_eq!(live.map(|(id, (_, text, _))| (id, text)).collect::<BTreeMap<_, _>>(), self.source);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn no_row_goes_and_those_of_the_source_are_not_marked(steps in prop::collection::vec(step(), 1..24)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut world = World::new().await;
            for step in steps {
                world.step(step).await;
                world.check().await;
            }
            world.load_all().await;
            world.check().await;
        });
    }
}
