//! The applying half: opens the tables whose partitions are ours, with a worker each.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use weir_model::{Layout, Order, TableId, TableSchema};

use super::settings_of;
use crate::apply::chunks::ChunkDesk;
use crate::apply::current::CurrentRows;
use crate::apply::{Pace, Report, SharedTable, Upkeep, Worker, WorkerError};
use crate::config::Config;
use crate::error::Error;
use crate::figures::{counters, standing};
use crate::limits::{POSITION_LOOKED_AT_EVERY, SHUTDOWN_MAX};
use crate::service::current::SourceRows;
use crate::service::index_home;
use crate::service::status::way_out_of_stop;
use crate::state::{Appeal, AppealKind, Appeals};
use crate::table::{BucketShare, Buckets, Table, TableError, TableState, Warehouse, Writer};
use crate::transport::kafka::position::Position;
use crate::transport::kafka::receiver::{Assignment, Host, Membership, Receiver};
use crate::transport::kafka::{KafkaSettings, KafkaSubscription, Topics, TransportError, publisher};
use crate::transport::{Item, Marker, Memory, PublishNumber, Subscription};

/// The applying half of a service, until it is stopped.
pub struct ApplyHalf {
    receiver: Receiver,
    stop: CancellationToken,
    /// Why it cannot go on.
    pub failed: mpsc::UnboundedReceiver<TransportError>,
}

impl ApplyHalf {
    /// Starts receiving and applying. With `hurry` true commits wait for nothing.
    pub async fn start(config: &Config, membership: Membership, hurry: watch::Receiver<bool>) -> Result<Self, Error> {
        let settings = settings_of(config)?;
        let topics = Topics::new(&settings)?;
        let warehouse = Warehouse::open_to_write(&config.warehouse.url, &config.warehouse.options).await?;
        let memory = Memory::new(config.apply.memory_bytes());
        let watched = memory.clone();
        standing().watch_memory(Box::new(move || watched.held()), config.apply.memory_bytes());
        let (reports, inbox) = mpsc::unbounded_channel();
        tokio::spawn(hear(inbox, membership == Membership::Group));
        let rules = config.clone();
        let host = Arc::new(ApplyHost {
            layout_of: Arc::new(move |table| rules.table_settings(table).layout),
            appeals: Appeals::new(warehouse.store().clone(), warehouse.state_path(&config.source.name)),
            writer: Writer { index_home: index_home(config), ..Writer::new(&config.source.name, 0) },
            upkeep: Upkeep::new(config.warehouse.retention()),
            current: SourceRows::of(config)?,
            pace: Pace {
                interval: Duration::from_millis(config.apply.commit_interval_ms),
                bytes_max: config.apply.memory_bytes() / 4,
                hurry,
                pressure: memory.pressure(),
            },
            settings: settings.clone(),
            topics: topics.clone(),
            warehouse,
            memory: memory.clone(),
            reports,
            workers: Mutex::default(),
            looked: tokio::sync::Mutex::default(),
        });
        let stop = CancellationToken::new();
        let (failures, failed) = mpsc::unbounded_channel();
        let receiver = Receiver::start(&settings, topics, membership, memory, host, stop.clone(), failures)?;
        Ok(Self { receiver, stop, failed })
    }

    /// Finishes the commits in hand.
    pub async fn stop(self) {
        self.stop.cancel();
        if tokio::time::timeout(SHUTDOWN_MAX, self.receiver.join()).await.is_err() {
            tracing::warn!("some commits did not end in time; they are read again at the next start");
        }
    }
}

/// Whoever captures reads the tables' commits; here an end is only logged. A process that does not capture is watched by
/// what it applies, which is counted here, too.
async fn hear(mut inbox: mpsc::UnboundedReceiver<Report>, counts: bool) {
    while let Some(report) = inbox.recv().await {
        match report {
            Report::Stopped { table, error } => {
                tracing::error!(%table, %error, "the table's worker ended");
                standing().note(Some(&table), error.to_string(), way_out_of_stop(&table));
            }
            Report::Committed { table, accounts, .. } if counts => counters().count(&table, &accounts),
            _ => {}
        }
    }
}

/// Opens tables for the partitions that are ours.
struct ApplyHost {
    settings: KafkaSettings,
    topics: Topics,
    warehouse: Warehouse,
    /// How the configuration wants a table to be kept.
    layout_of: Arc<dyn Fn(&TableId) -> Layout + Send + Sync>,
    appeals: Appeals,
    writer: Writer,
    pace: Pace,
    upkeep: Upkeep,
    /// Who has the rows of changes that leave columns out.
    current: Arc<dyn CurrentRows>,
    memory: Memory,
    reports: mpsc::UnboundedSender<Report>,
    /// By topic.
    workers: Mutex<HashMap<String, JoinHandle<()>>>,
    /// The position that was looked at last, and when.
    looked: tokio::sync::Mutex<Option<(Instant, Arc<Position>)>>,
}

/// Where a partition is read from, or why it cannot be.
#[derive(Debug, PartialEq, Eq)]
enum Beginning {
    /// From its first offset.
    First,
    At(i64),
    /// What the table has not taken in is gone.
    Lost(String),
}

/// Decides where a bucket goes on. `end` is the last offset that was written of it, and `known` the topic's incarnation, as
/// far as capture says.
fn beginning(share: &BucketShare, (low, high): (i64, i64), end: Option<i64>, known: Option<&str>) -> Beginning {
    let made_anew = share.offset > high || known.is_some_and(|known| *known != share.topic);
    if share.topic.is_empty() && low > 0 && end.is_some() {
        return Beginning::Lost(format!("offsets up to {low} were deleted before the table had any of them"));
    }
    if share.topic.is_empty() || made_anew {
        // Never read, or of a topic that was made anew: the first message tells which.
        return Beginning::First;
    }
    if share.offset >= low {
        return Beginning::At(share.offset);
    }
    match end {
        // Only markers of transactions were deleted: everything that was written is in.
        Some(end) if end < share.offset => Beginning::At(low),
        _ => Beginning::Lost(format!(
            "offsets from {} to {low} were deleted by the topic's retention before they were taken in",
            share.offset
        )),
    }
}

/// Whether a bucket that goes on at `offset` has yet to take in what was written last, and that is gone.
async fn lacks_its_end(
    topics: &Topics,
    topic: &str,
    bucket: u32,
    offset: i64,
    end: Option<i64>,
) -> Result<bool, String> {
    match end.filter(|end| *end >= offset) {
        Some(end) => Ok(!topics.holds(topic, bucket, end).await.map_err(|error| error.to_string())?),
        None => Ok(false),
    }
}

impl ApplyHost {
    async fn table_of(&self, topic: &str) -> Result<Option<TableId>, String> {
        if let Some(table) = self.settings.table_of(topic) {
            return Ok(Some(table));
        }
        let position = self.position().await?;
        Ok(position.tables.keys().find(|table| self.settings.table_topic(table) == topic).cloned())
    }

    /// What capture has written, as of some seconds ago at most.
    async fn position(&self) -> Result<Arc<Position>, String> {
        let mut looked = self.looked.lock().await;
        if let Some((at, position)) = &*looked
            && at.elapsed() < POSITION_LOOKED_AT_EVERY
        {
            return Ok(position.clone());
        }
        let found = publisher::look(&self.settings, PublishNumber(u64::MAX)).await;
        let position = Arc::new(found.map_err(|error| error.to_string())?.0);
        *looked = Some((Instant::now(), position.clone()));
        Ok(position)
    }

    /// Where every owned bucket begins, and why one cannot.
    async fn beginnings(
        &self,
        topic: &str,
        table: &TableId,
        owned: &BTreeSet<u32>,
        shares: &[BucketShare],
    ) -> Result<(BTreeMap<u32, Option<i64>>, Option<String>), String> {
        let (mut offsets, mut lost) = (BTreeMap::new(), None);
        let position = self.position().await?;
        for bucket in owned {
            let share = shares.get(*bucket as usize).cloned().unwrap_or_default();
            let marks = self.topics.watermarks(topic, *bucket).await.map_err(|error| error.to_string())?;
            let known = position.tables.get(table).map(|known| &*known.topic);
            let end = position.ends.get(table).and_then(|ends| ends.get(bucket)).copied();
            let begins = match beginning(&share, marks, end, known) {
                // What comes behind the gap would be waited for, and for ever if nothing does.
                Beginning::At(offset) if lacks_its_end(&self.topics, topic, *bucket, offset, end).await? => {
                    Beginning::Lost(format!(
                        "what was written up to offset {} is not all there any more",
                        end.unwrap_or(offset)
                    ))
                }
                begins => begins,
            };
            let offset = match begins {
                Beginning::First => None,
                Beginning::At(offset) => Some(offset),
                Beginning::Lost(why) => {
                    lost = Some(format!("topic {topic}, partition {bucket}: {why}"));
                    None
                }
            };
            offsets.insert(*bucket, offset);
        }
        Ok((offsets, lost))
    }

    /// Says so again at each attempt to open it: capture may have been away, or have forgotten.
    async fn stopped(&self, table: &TableId, error: String) {
        tracing::warn!(%table, %error, "the table cannot be opened");
        let kind = AppealKind::Stopped { error, publish: u64::MAX, other_key: false };
        if let Err(error) = self.appeals.put(&Appeal { table: table.clone(), kind }).await {
            tracing::warn!(%error, "capture cannot be told yet");
        }
    }
}

impl Host for ApplyHost {
    async fn reassign(&self, topic: &str, owned: &BTreeSet<u32>) -> Result<Option<Assignment>, String> {
        let worker = self.workers.lock().expect("no code panics while holding it").remove(topic);
        if let Some(worker) = worker {
            // Its inbox is closed: it commits what it has received.
            let _ = worker.await;
        }
        if owned.is_empty() {
            return Ok(None);
        }
        let Some(table) = self.table_of(topic).await? else {
            tracing::warn!(topic, "a topic of no table is passed over");
            return Ok(None);
        };
        let count = self.topics.partitions_of(topic).await.map_err(|error| error.to_string())?;
        let Some(count) = count else { return Ok(None) };
        let buckets = Buckets { count, owned: owned.clone() };
        let opened = Table::open(&self.warehouse, &table, self.writer.clone(), buckets.clone()).await;
        let opened = match opened {
            Ok(opened) => opened,
            Err(error @ (TableError::Store(_) | TableError::Disk(_))) => return Err(error.to_string()),
            Err(error) => {
                self.stopped(&table, error.to_string()).await;
                return Ok(None);
            }
        };
        let layout = (self.layout_of)(&table);
        if opened.as_ref().is_some_and(|opened| opened.schema().layout != layout) {
            self.stopped(&table, TableError::Layout { table: table.clone() }.to_string()).await;
            return Ok(None);
        }
        let shares = opened.as_ref().map(|table| table.state().shares.clone()).unwrap_or_default();
        let (offsets, lost) = self.beginnings(topic, &table, owned, &shares).await?;
        let whole = owned.iter().map(|bucket| {
            let publish = shares.get(*bucket as usize).map_or(0, |share| share.publish);
            (*bucket, PublishNumber(publish))
        });
        let (inbox, subscription) = KafkaSubscription::new(whole.collect(), self.memory.pressure());
        tracing::info!(%table, ?owned, ?offsets, "applying");
        let apply = Applying {
            table,
            layout,
            buckets,
            warehouse: self.warehouse.clone(),
            writer: self.writer.clone(),
            appeals: self.appeals.clone(),
            reports: self.reports.clone(),
            pace: self.pace.clone(),
            upkeep: self.upkeep.clone(),
            current: self.current.clone(),
            lost,
        };
        let worker = tokio::spawn(apply.run(opened, subscription));
        self.workers.lock().expect("no code panics while holding it").insert(topic.to_owned(), worker);
        Ok(Some(Assignment { inbox, offsets }))
    }
}

/// One table's worker from its first message on.
struct Applying {
    table: TableId,
    /// How the lake keeps it, once it is made: messages do not say.
    layout: Layout,
    buckets: Buckets,
    warehouse: Warehouse,
    writer: Writer,
    appeals: Appeals,
    reports: mpsc::UnboundedSender<Report>,
    pace: Pace,
    upkeep: Upkeep,
    current: Arc<dyn CurrentRows>,
    /// Why the table cannot go on from where it stands.
    lost: Option<String>,
}

impl Applying {
    async fn run(self, opened: Option<Table>, mut subscription: KafkaSubscription) {
        let table = match opened {
            Some(table) => table,
            None => match self.create(&mut subscription).await {
                Some(table) => table,
                None => return,
            },
        };
        let shared = SharedTable { warehouse: self.warehouse, writer: self.writer, appeals: self.appeals };
        let mut worker = Worker::new(table, subscription, ChunkDesk::default(), self.reports, self.pace)
            .shared(shared)
            .with_upkeep(self.upkeep)
            .with_source(self.current);
        if let Some(why) = self.lost {
            worker = worker.after(WorkerError::Topic(why));
        }
        worker.run().await;
    }

    /// Makes the table with the columns that its first message tells, laid out as the configuration says; others may be doing
    /// the same.
    async fn create(&self, subscription: &mut KafkaSubscription) -> Option<Table> {
        let schema = loop {
            let first = subscription.next().await?;
            match schema_of(&first.item, self.lost.is_some()) {
                Some(schema) => {
                    subscription.put_back(first);
                    break schema;
                }
                // Nothing to be applied to a table that is empty.
                None if self.lost.is_none() => {}
                None => {
                    let error = "the lake table is gone, and its topic does not reach back to its beginning; load it \
                                 anew with `weir snapshot --table`";
                    tracing::error!(table = %self.table, error, "table stopped; the others go on");
                    let kind = AppealKind::Stopped { error: error.into(), publish: first.number.0, other_key: false };
                    let _ = self.appeals.put(&Appeal { table: self.table.clone(), kind }).await;
                }
            }
        };
        let schema = TableSchema { layout: self.layout.clone(), ..schema.as_ref().clone() };
        let count = self.buckets.count as usize;
        loop {
            let state = TableState {
                shares: vec![BucketShare::default(); count],
                greatest: vec![Order::MIN; count],
                ..TableState::default()
            };
            let buckets = self.buckets.clone();
            match Table::open_or_create(&self.warehouse, &schema, self.writer.clone(), state, buckets).await {
                Ok(table) => return Some(table),
                Err(error @ (TableError::Store(_) | TableError::Disk(_))) => {
                    tracing::warn!(table = %self.table, %error, "the lake table cannot be made yet");
                    tokio::time::sleep(crate::limits::SHARED_RETRY_DELAY).await;
                }
                // Opened again, it says why.
                Err(error) => {
                    tracing::error!(table = %self.table, %error, "the lake table cannot be made");
                    let kind = AppealKind::Stopped { error: error.to_string(), publish: u64::MAX, other_key: false };
                    let _ = self.appeals.put(&Appeal { table: self.table.clone(), kind }).await;
                    return None;
                }
            }
        }
    }
}

/// The columns of a table that is made by this item. Changes may come before the load that fills the table; but where the
/// topic was cut off they are not the first, and only a load makes up for those.
fn schema_of(item: &Item, cut_off: bool) -> Option<Arc<TableSchema>> {
    match item {
        Item::Marker(Marker::SeedBegin { schema, .. }) => Some(schema.clone()),
        Item::Marker(Marker::Schema(schema)) if !cut_off => Some(schema.clone()),
        Item::Changes(changes) if !cut_off => Some(changes.batch.schema.clone()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::Tally;
    use crate::transport::Changes;

    fn share(offset: i64) -> BucketShare {
        BucketShare { topic: "t".into(), offset, ..BucketShare::default() }
    }

    #[test]
    fn a_bucket_goes_on_behind_what_it_holds() {
        assert_eq!(beginning(&share(5), (0, 9), None, Some("t")), Beginning::At(5));
        assert_eq!(beginning(&share(9), (0, 9), None, None), Beginning::At(9));
        assert_eq!(beginning(&BucketShare::default(), (0, 9), None, Some("t")), Beginning::First);
    }

    #[test]
    fn a_topic_that_was_made_anew_is_read_from_its_first_offset() {
        assert_eq!(beginning(&share(5), (0, 2), None, Some("t")), Beginning::First);
        assert_eq!(beginning(&share(5), (0, 9), None, Some("u")), Beginning::First);
    }

    #[test]
    fn retention_is_benign_only_if_everything_written_is_in() {
        assert_eq!(beginning(&share(5), (7, 9), Some(4), Some("t")), Beginning::At(7));
        assert!(matches!(beginning(&share(5), (7, 9), Some(5), Some("t")), Beginning::Lost(_)));
        assert!(matches!(beginning(&share(5), (7, 9), None, Some("t")), Beginning::Lost(_)));
        assert!(matches!(beginning(&BucketShare::default(), (7, 9), Some(8), Some("t")), Beginning::Lost(_)));
    }

    #[test]
    fn changes_make_a_table_unless_some_before_them_are_gone() {
        use weir_model::{ChangeBuilder, Column, ColumnType, ZeroDates};
        let column = Column { name: "id".into(), ty: ColumnType::Int32, nullable: false };
        let table = TableId::new("shop", "orders");
        let schema =
            Arc::new(TableSchema { table, columns: vec![column], key: vec![0], layout: weir_model::Layout::default() });
        let batch = ChangeBuilder::new(schema.clone(), ZeroDates::Null).finish();
        let changes = Item::Changes(Changes { batch, sent: Tally::default(), partial_rows: 0 });
        let begin = Item::Marker(Marker::SeedBegin {
            plan: 1,
            start: Order::MIN,
            schema: schema.clone(),
            reset: false,
            part: false,
        });
        assert_eq!(schema_of(&changes, false), Some(schema.clone()));
        assert_eq!(schema_of(&changes, true), None);
        assert_eq!(schema_of(&begin, true), Some(schema));
        assert_eq!(schema_of(&Item::Nothing, false), None);
    }
}
