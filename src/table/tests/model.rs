//! Random histories against a model that remembers every order of every key: what a scan reads is the model (of each
//! key the row of the greatest order), no key has two live rows, and the index is the one rebuilt from the table.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use weir_model::TableSchema;

use super::support::*;
use crate::table::{StagedChunk, Table, TableChange, TableState, Warehouse};

const KEYS: i64 = 12;

#[derive(Debug, Clone)]
enum Step {
    Stream { upserts: BTreeSet<i64>, deletes: BTreeSet<i64> },
    BeginSeed,
    /// A chunk's order is handed out and its rows are read; it is merged by a later step.
    ReadChunk(BTreeSet<i64>),
    /// Merges the chunk read longest ago, or gives it up if the table may not.
    MergeChunk,
    EndSeed,
    Clear,
    AddColumn,
    Reopen,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let keys = || prop::collection::btree_set(0..KEYS, 0..6);
    let step = prop_oneof![
        8 => (keys(), keys()).prop_map(|(upserts, deletes)| {
            let deletes = &deletes - &upserts;
            Step::Stream { upserts, deletes }
        }),
        2 => Just(Step::BeginSeed),
        4 => prop::collection::btree_set(0..KEYS, 1..8).prop_map(Step::ReadChunk),
        4 => Just(Step::MergeChunk),
        1 => Just(Step::EndSeed),
        1 => Just(Step::Clear),
        1 => Just(Step::AddColumn),
        2 => Just(Step::Reopen),
    ];
    prop::collection::vec(step, 1..40)
}

/// What is known of a key: its newest change, and the row if that was not a delete.
#[derive(Debug, Clone, Default)]
struct Known {
    newest: i64,
    row: Option<LakeRow>,
}

struct History {
    warehouse: Warehouse,
    table: Table,
    epoch: u64,
    /// The last counter handed out.
    seq: i64,
    texts: Vec<String>,
    text_key: bool,
    model: BTreeMap<i64, Known>,
    /// Chunks read and not merged, oldest first.
    read: Vec<(StagedChunk, BTreeSet<i64>, i64)>,
}

impl History {
    async fn begin(text_key: bool) -> Self {
        let warehouse = in_memory();
        let schema = schema_of(text_key, &["v"]);
        let table = Table::create(&warehouse, &schema, writer(1), TableState::default()).await.unwrap();
        let texts = vec!["v".to_owned()];
        Self { warehouse, table, epoch: 1, seq: 0, texts, text_key, model: BTreeMap::new(), read: Vec::new() }
    }

    fn schema(&self) -> TableSchema {
        self.table.schema().as_ref().clone()
    }

    fn next(&mut self) -> i64 {
        self.seq += 1;
        self.seq
    }

    fn row(&self, id: i64, seq: i64, columns: &[String]) -> LakeRow {
        let text = |name: &String| columns.contains(name).then(|| format!("{name}-{id}-{seq}"));
        LakeRow { seq, texts: self.texts.iter().map(|name| (name.clone(), text(name))).collect() }
    }

    async fn take(&mut self, step: Step) {
        match step {
            Step::Stream { upserts, deletes } => self.stream(&upserts, &deletes).await,
            Step::BeginSeed => {
                let start = self.next();
                begin_seed(&mut self.table, start).await;
                self.read.clear();
            }
            Step::ReadChunk(ids) => {
                let order0 = self.next();
                let rows: Vec<i64> = ids.iter().copied().collect();
                self.read.push((chunk(&self.table, &rows, order0).await.unwrap(), ids, order0));
            }
            Step::MergeChunk => self.merge().await,
            Step::EndSeed => self.end_seed().await,
            Step::Clear => self.clear().await,
            Step::AddColumn if self.texts.len() < 4 => self.add_column().await,
            Step::AddColumn => {}
            Step::Reopen => self.reopen().await,
        }
    }

    async fn stream(&mut self, upserts: &BTreeSet<i64>, deletes: &BTreeSet<i64>) {
        let mut change = |ids: &BTreeSet<i64>| ids.iter().map(|id| (*id, self.next())).collect::<Vec<_>>();
        let (upserts, deletes) = (change(upserts), change(deletes));
        apply(&mut self.table, &upserts, &deletes).await;
        for (id, seq) in upserts {
            let row = Some(self.row(id, seq, &self.texts));
            self.model.insert(id, Known { newest: seq, row });
        }
        for (id, seq) in deletes {
            self.model.insert(id, Known { newest: seq, row: None });
        }
    }

    async fn merge(&mut self) {
        if self.read.is_empty() {
            return;
        }
        let (staged, ids, order0) = self.read.remove(0);
        let columns: Vec<String> = staged.schema().columns.iter().skip(1).map(|column| column.name.clone()).collect();
        if !self.table.may_merge(at(order0)) {
            return;
        }
        let state = state(&self.table, 0);
        commit(&mut self.table, TableChange { staged: Some(staged), ..TableChange::to(state) }).await;
        for id in ids {
            if self.model.get(&id).is_none_or(|known| known.newest < order0) {
                let row = Some(self.row(id, order0, &columns));
                self.model.insert(id, Known { newest: order0, row });
            }
        }
    }

    async fn end_seed(&mut self) {
        let Some(seed) = self.table.state().seed.clone() else { return };
        let ended = TableState { seed: None, ..self.table.state().clone() };
        let change = TableChange { remove_below: Some(seed.start), ..TableChange::to(ended) };
        commit(&mut self.table, change).await;
        for known in self.model.values_mut().filter(|known| at(known.newest) < seed.start) {
            known.row = None;
        }
        // What was read of a load that has ended is worth nothing.
        self.read.clear();
    }

    async fn clear(&mut self) {
        let seq = self.next();
        let change = TableChange { clear: Some(at(seq)), ..TableChange::to(state(&self.table, seq)) };
        commit(&mut self.table, change).await;
        for id in 0..KEYS {
            self.model.insert(id, Known { newest: seq, row: None });
        }
    }

    async fn add_column(&mut self) {
        let name = format!("c{}", self.texts.len());
        self.texts.push(name.clone());
        let texts: Vec<&str> = self.texts.iter().map(String::as_str).collect();
        let evolve = Some(schema_of(self.text_key, &texts));
        let change = TableChange { evolve, ..TableChange::to(self.table.state().clone()) };
        commit(&mut self.table, change).await;
        for row in self.model.values_mut().filter_map(|known| known.row.as_mut()) {
            row.texts.insert(name.clone(), None);
        }
    }

    async fn reopen(&mut self) {
        self.epoch += 1;
        self.table = Table::open(&self.warehouse, &id(), writer(self.epoch)).await.unwrap().unwrap();
    }

    async fn check(&self, step: &Step) {
        let key = |id: i64| if self.text_key { format!("k{id:03}") } else { id.to_string() };
        let rows_of_model: BTreeMap<String, LakeRow> =
            self.model.iter().filter_map(|(id, known)| Some((key(*id), known.row.clone()?))).collect();
        assert_eq!(rows(&self.warehouse, None).await.unwrap(), rows_of_model, "after {step:?}");
        let rebuilt = Table::open(&self.warehouse, &id(), writer(self.epoch)).await.unwrap().unwrap();
        assert_eq!(places(&rebuilt, 0..KEYS), places(&self.table, 0..KEYS), "after {step:?}");
        assert_eq!(places(&rebuilt, 0..KEYS).len(), rows_of_model.len(), "after {step:?}");
        assert_eq!(rebuilt.state(), self.table.state());
        assert_eq!(rebuilt.schema().as_ref(), &self.schema());
        let files = |table: &Table| -> BTreeMap<String, _> {
            table.files.values().map(|file| (file.add.path.clone(), (file.rows, file.dead.clone(), file.orders))).collect()
        };
        assert_eq!(files(&rebuilt), files(&self.table), "after {step:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]
    #[test]
    fn a_table_is_the_greatest_order_of_every_key(steps in steps(), text_key: bool) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut history = History::begin(text_key).await;
            for step in steps {
                history.take(step.clone()).await;
                history.check(&step).await;
            }
        });
    }
}
