//! Opens or creates the lake table of a source table, and starts its worker.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::sync::mpsc;
use tokio::task::JoinSet;
use weir_model::evolution::{Evolution, Moment, evolution, is_other_key};
use weir_model::{Gtid, GtidSet, TableId, TableSchema};

use super::source_tables::{Asked, SourceTables};
use crate::apply::chunks::ChunkDesk;
use crate::apply::current::CurrentRows;
use crate::apply::{Pace, Report, Upkeep, Worker, WorkerError};
use crate::capture::lane::{LaneKey, LaneStart};
use crate::capture::request::{Catalogued, Described, RegisterError, Registrar, Registration};
use crate::table::{
    Buckets, Clear, CommitOutcome, SeedProgress, Table, TableChange, TableError, TableFiles, TableState, Warehouse,
    Writer,
};
use crate::transport::direct::Direct;

/// What a load needs to know of a table that has been opened.
#[derive(Clone)]
pub struct Opened {
    pub files: TableFiles,
    pub seed: Option<SeedProgress>,
}

/// Registers tables of one source in one warehouse, with workers on the `direct` transport.
pub struct TableRegistrar {
    pub source: SourceTables,
    pub warehouse: Warehouse,
    pub writer: Writer,
    pub transport: Direct,
    pub desk: ChunkDesk,
    pub reports: mpsc::UnboundedSender<Report>,
    pub pace: Pace,
    pub upkeep: Upkeep,
    /// Who has the rows of changes that leave columns out.
    pub current: Arc<dyn CurrentRows>,
    /// Workers under way.
    pub workers: Mutex<JoinSet<()>>,
    pub opened: Mutex<HashMap<TableId, Opened>>,
    /// Transaction sets of tables that are loaded from the beginning; the others' are in their commits.
    pub start_sets: BTreeMap<TableId, GtidSet>,
    /// What the source had executed at the start.
    pub executed: GtidSet,
    /// Tables that are loaded anew on demand: one whose columns the lake table cannot take becomes empty first.
    pub reset: BTreeSet<TableId>,
    /// Whether tables are loaded at all.
    pub seeds: bool,
    /// Tables whose record key is another one in the source than in the lake: they begin anew.
    pub rekeyed: Mutex<BTreeSet<TableId>>,
}

impl TableRegistrar {
    async fn open_or_create(&self, schema: &TableSchema, start: &GtidSet) -> Result<Table, TableError> {
        let state = TableState { gtid_set: start.clone(), ..TableState::default() };
        Table::open_or_create(&self.warehouse, schema, self.writer.clone(), state, Buckets::whole()).await
    }

    /// Whether `table` must be loaded from its beginning, since it has another record key.
    pub fn is_rekeyed(&self, table: &TableId) -> bool {
        self.lock_rekeyed().contains(table)
    }

    fn lock_rekeyed(&self) -> MutexGuard<'_, BTreeSet<TableId>> {
        self.rekeyed.lock().expect("no code panics while holding it")
    }

    /// Whether a load of the whole `table` is under way, as its commits say.
    pub fn is_filling(&self, table: &TableId) -> bool {
        let opened = self.opened.lock().expect("no code panics while holding it");
        let seed = opened.get(table).and_then(|opened| opened.seed.as_ref());
        // One of a part is asked for by a job, which goes on with it.
        seed.is_some_and(|seed| !seed.part)
    }
}

/// Empties a table that cannot take rows of `source` as it is, and gives it those columns, in one commit.
async fn reset_if_unlike(lake: &mut Table, source: &TableSchema) -> Result<(), String> {
    let evolution = evolution(lake.schema(), &lake.state().absences, source, Moment::Load);
    let Evolution::Refused(why) = evolution else { return Ok(()) };
    let table = source.table.clone();
    tracing::warn!(%table, why, "the lake table begins anew with the source's columns");
    let mut state = lake.state().clone();
    let at = state.order.assign(state.order.0.ts_ms);
    state.greatest = vec![at];
    let clear = Clear { at, buckets: lake.buckets().owned.clone() };
    let change = TableChange { clear: Some(clear), evolve: Some(source.clone()), ..TableChange::to(state) };
    match lake.commit(change).await {
        Ok(CommitOutcome::Committed { .. }) => Ok(()),
        Ok(CommitOutcome::Moved | CommitOutcome::Fenced { .. }) => Err("another writer is at work on the table".into()),
        Err(error) => Err(error.to_string()),
    }
}

impl Registrar for TableRegistrar {
    async fn register(&self, table: &TableId, start: &GtidSet) -> Result<Registration, RegisterError> {
        let (description, schema, catalogued) = match self.source.ask(table).await? {
            Asked::Found(description, schema, catalogued) => (description, schema, catalogued),
            Asked::Gone => return Ok(Registration::Gone),
            Asked::Refused(why) => return Ok(Registration::Refused(why)),
        };
        let mut lake = match self.open_or_create(&schema, start).await {
            Ok(lake) => lake,
            Err(error) if error.is_damage() && self.reset.contains(table) => {
                tracing::warn!(%table, %error, "the lake table is emptied to be loaded anew");
                match Table::open_emptied(&self.warehouse, table, self.writer.clone(), Buckets::whole()).await {
                    Ok(Some(lake)) => lake,
                    Ok(None) => return Err(RegisterError(format!("{table} is gone from the warehouse"))),
                    Err(error) => return Ok(Registration::Refused(error.to_string())),
                }
            }
            Err(error) if error.is_damage() => {
                let way_out = format!("`weir snapshot --table {table}` empties it and loads it anew");
                return Ok(Registration::Refused(format!("{error}; {way_out}")));
            }
            Err(error @ (TableError::Store(_) | TableError::Disk(_))) => return Err(RegisterError(error.to_string())),
            Err(error) => return Ok(Registration::Refused(error.to_string())),
        };
        if let Some(set) = self.start_sets.get(table) {
            lake.restart_set(set, &self.executed);
        }
        if self.reset.contains(table)
            && let Err(error) = reset_if_unlike(&mut lake, &schema).await
        {
            return Ok(Registration::Refused(error));
        }
        // The table begins anew with the load, whose beginning gives it the columns of the source.
        let key = LaneKey::of(&description);
        let awaits_load = !lake.schema().layout.is_append() && is_other_key(&lake.schema().key_columns(), &key.columns);
        if awaits_load && !self.seeds {
            return Ok(Registration::Refused(format!(
                "its record key is another one than that of the lake table, and [source] snapshot = \"never\"; load it with \
                 `weir snapshot --table {table}`"
            )));
        }
        if awaits_load {
            let begins_at = start.union(&self.executed);
            lake.restart_set(&begins_at, &begins_at);
            self.lock_rekeyed().insert(table.clone());
        }
        let state = lake.state();
        let settings = (self.source.settings)(table);
        let lane = LaneStart {
            gtid_set: state.gtid_set.clone(),
            partial: state.partial.clone(),
            order: state.order,
            key,
            zero_dates: settings.zero_dates,
            rules: settings.rules,
            catalogued,
            awaits_load,
        };
        let opened = Opened { files: lake.files(), seed: state.seed.clone() };
        self.opened.lock().expect("no code panics while holding it").insert(table.clone(), opened);
        let worker = Worker::new(
            lake,
            self.transport.subscribe(table),
            self.desk.clone(),
            self.reports.clone(),
            self.pace.clone(),
        )
        .with_upkeep(self.upkeep.clone())
        .with_source(self.current.clone());
        let (reports, id) = (self.reports.clone(), table.clone());
        self.workers.lock().expect("no code panics while holding it").spawn(async move {
            // A bug in one table's worker stops that table, as any other error of it does.
            if tokio::spawn(worker.run()).await.is_err() {
                let error = WorkerError::Rows("its worker panicked; the log above says where".into());
                let _ = reports.send(Report::Stopped { table: id, error });
            }
        });
        Ok(Registration::Lane(Box::new(lane)))
    }

    async fn wait_until_visible(&self, gtid: &Gtid, tables: &[TableId]) -> Result<(), RegisterError> {
        self.source.wait_until_visible(gtid, tables).await
    }

    async fn catalogued(&self, table: &TableId) -> Result<Result<Option<Catalogued>, String>, RegisterError> {
        self.source.catalogued(table).await
    }

    async fn describe(&self, table: &TableId) -> Result<Described, RegisterError> {
        self.source.describe(table).await
    }
}
