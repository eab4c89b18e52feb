//! Opening a table: the log is replayed and the index rebuilt from key and order columns.

use std::collections::BTreeMap;
use std::sync::Arc;

use uuid::Uuid;
use weir_model::{Order, RecordKeys, TableId, TableSchema, clock};

use super::delta::{MetaData, Protocol};
use super::files::DataFile;
use super::index::{Index, RowAddress};
use super::log::{Log, Replay, serialise};
use super::orders::OrderCache;
use super::record::{CommitRecord, TableState};
use super::scan::{VectorReader, read_columns};
use super::writer::{orders_of_entry, rows_of_entry};
use super::{Table, TableError, Warehouse, Writer};

impl Table {
    /// Opens the table for writing; `None` if there is none.
    ///
    /// Reads the key columns of every live file. Deletes of earlier incarnations are forgotten: the floor is the
    /// greatest order committed.
    pub async fn open(warehouse: &Warehouse, id: &TableId, writer: Writer) -> Result<Option<Self>, TableError> {
        let log = Log::new(warehouse, id);
        let Some(replay) = log.replay(None).await? else { return Ok(None) };
        let rule = |rule: &str| TableError::Rule { table: id.clone(), version: replay.version, rule: rule.to_owned() };
        let (_, record) = replay.own.clone().ok_or_else(|| rule("it was not written by weir"))?;
        if record.source != writer.source {
            return Err(TableError::OtherSource { ours: writer.source, theirs: record.source });
        }
        if replay.protocol.as_ref() != Some(&Protocol::ours()) {
            return Err(rule("its protocol was changed by someone else"));
        }
        let meta_data = replay.meta_data.clone().ok_or_else(|| rule("it has no metaData action"))?;
        let schema = record.state.schema.clone().ok_or_else(|| rule("its record does not say its columns"))?;
        if meta_data.columns() != MetaData::of(&schema, String::new(), 0).columns() {
            return Err(rule("its columns were changed by someone else"));
        }
        let floor = record.state.greatest.iter().copied().max().unwrap_or(Order::MIN);
        let mut table = Self {
            warehouse: warehouse.clone(),
            folder: warehouse.table_path(id),
            log,
            writer,
            schema: Arc::new(schema),
            state: record.state,
            version: replay.version,
            identity: (meta_data.id, meta_data.created_time.unwrap_or_default()),
            files: BTreeMap::new(),
            next_file: 0,
            index: Index::new(floor),
            order_cache: OrderCache::default(),
        };
        table.rebuild(&replay).await?;
        Ok(Some(table))
    }

    /// Creates the table, empty, with `state` as its beginning.
    ///
    /// # Errors
    /// When it exists, or the warehouse cannot be written.
    pub async fn create(
        warehouse: &Warehouse,
        schema: &TableSchema,
        writer: Writer,
        state: TableState,
    ) -> Result<Self, TableError> {
        let at_ms = clock::now_ms();
        let identity = (Uuid::new_v4().to_string(), at_ms);
        let state = TableState { epoch: writer.epoch, commits: 1, schema: Some(schema.clone()), ..state };
        let log = Log::new(warehouse, &schema.table);
        let table = Self {
            warehouse: warehouse.clone(),
            folder: warehouse.table_path(&schema.table),
            log,
            writer,
            schema: Arc::new(schema.clone()),
            state: state.clone(),
            version: 0,
            identity,
            files: BTreeMap::new(),
            next_file: 0,
            index: Index::new(Order::MIN),
            order_cache: OrderCache::default(),
        };
        let record = CommitRecord {
            source: table.writer.source.clone(),
            commit_id: Uuid::new_v4().to_string(),
            state,
            accounts: Vec::new(),
        };
        let commit_id = record.commit_id.clone();
        let mut actions = table.frame("CREATE TABLE", record, at_ms);
        actions.push(super::delta::Action { protocol: Some(Protocol::ours()), ..Default::default() });
        actions.push(super::delta::Action { meta_data: Some(table.meta_data(schema)), ..Default::default() });
        match table.settle(0, serialise(&actions), &commit_id).await? {
            None => Ok(table),
            Some(_) => Err(TableError::Rule {
                table: schema.table.clone(),
                version: 0,
                rule: "someone else has just created it".into(),
            }),
        }
    }

    /// The table's `metaData` with these columns.
    pub(super) fn meta_data(&self, schema: &TableSchema) -> MetaData {
        MetaData::of(schema, self.identity.0.clone(), self.identity.1)
    }

    /// Fills files and index from what the log says is live.
    async fn rebuild(&mut self, replay: &Replay) -> Result<(), TableError> {
        let key_names: Vec<String> = self.schema.key_names().into_iter().map(str::to_owned).collect();
        let key_names: Vec<&str> = key_names.iter().map(String::as_str).collect();
        let warehouse = self.warehouse.clone();
        let mut vectors = VectorReader::new(&warehouse, self.folder.clone());
        for add in replay.files.values() {
            let dead = vectors.dead_rows(add).await?;
            let bytes = self.warehouse.get(&self.folder.clone().join(add.path.as_str())).await?;
            let number = self.next_file;
            self.next_file += 1;
            let mut row = 0_u32;
            for batch in read_columns(bytes, &key_names)? {
                let keys = RecordKeys::of(&batch?, &key_names)?;
                for i in 0..keys.len() {
                    if !dead.contains(row)
                        && let Some(other) = self.index.put(keys.get(i), RowAddress { file: number, row })
                    {
                        return Err(TableError::Damaged(format!(
                            "{} has two live rows of one key: row {row} of {} and row {} of {}",
                            self.schema.table,
                            add.path,
                            other.row,
                            self.files.get(&other.file).map_or(add.path.as_str(), |file| file.add.path.as_str()),
                        )));
                    }
                    row += 1;
                }
            }
            if rows_of_entry(add).is_some_and(|rows| rows != u64::from(row)) {
                return Err(TableError::Damaged(format!("{} does not hold the rows its entry says", add.path)));
            }
            let file =
                DataFile { add: add.clone(), rows: row, dead, orders: orders_of_entry(add) };
            self.files.insert(number, file);
        }
        Ok(())
    }
}
