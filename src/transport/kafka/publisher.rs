//! The sending end: publishes handed over one by one, made durable by a thread of its own.
//!
//! `publish` returns once the publish has been taken over; the thread sends it while capture goes on, and reports each
//! that is durable. It holds a publish until then, so whatever the broker does meanwhile (an abort, a restart) it is sent
//! again whole; only being fenced off, or what nobody here can mend, ends it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::Message;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use tokio::sync::mpsc;
use tokio::time::Instant;
use weir_model::{OrderState, TableId, clock};

use super::outgoing::{Outgoing, messages};
use super::position::{FORMAT, Position, PositionRecord, TopicStanding};
use super::producer::{Ends, SendError, TransactionalProducer};
use super::topics::Topics;
use super::{KafkaSettings, Quiet, TransportError};
use crate::limits::{
    KAFKA_ANSWER_MAX, POSITION_ONLY_DELAY, POSITIONS_BETWEEN_FULL, RECONNECT_DELAY, RECONNECT_DELAY_MAX,
};
use crate::state::TableStanding;
use crate::trace::{StageCount, Tally};
use crate::transport::{Boundary, Item, Publish, PublishError, PublishNumber, Publisher};

/// A publish that is durable.
#[derive(Debug, Clone)]
pub struct Durable {
    pub number: PublishNumber,
    pub boundary: Arc<Boundary>,
    /// The buckets of each table that it wrote to.
    pub touched: BTreeMap<TableId, Vec<u32>>,
    /// When it was sent, ms since the epoch.
    pub at_ms: i64,
    /// What capture counted in it.
    pub counts: Vec<(TableId, StageCount)>,
}

/// The sending end over Kafka.
#[derive(Debug)]
pub struct KafkaPublisher {
    source: String,
    queue: mpsc::Sender<Parcel>,
    /// Why the thread ended.
    failure: Arc<Mutex<Option<PublishError>>>,
    topics: Topics,
    message_bytes_max: usize,
}

impl KafkaPublisher {
    /// Sends on from `position`, in the name of `epoch`. Reports go to `durable`; records of positions are deleted only
    /// up to the publish `shipped`, of which the trace has what was counted.
    pub fn start(
        settings: &KafkaSettings,
        producer: TransactionalProducer,
        topics: Topics,
        position: Position,
        epoch: u64,
        durable: mpsc::UnboundedSender<Durable>,
        shipped: Arc<AtomicU64>,
    ) -> Self {
        // One waits while one is sent.
        let (queue, inbox) = mpsc::channel(1);
        let failure = Arc::new(Mutex::new(None));
        let sender = Sender {
            source: settings.source.clone(),
            position_topic: settings.position_topic(),
            producer,
            topics: topics.clone(),
            position,
            epoch,
            since_full: POSITIONS_BETWEEN_FULL,
            durable,
            shipped,
            failure: failure.clone(),
            runtime: tokio::runtime::Handle::current(),
        };
        std::thread::Builder::new()
            .name("weir-publish".into())
            .spawn(move || sender.run(inbox))
            .expect("the system has room for a thread");
        let message_bytes_max = settings.message_bytes_max();
        Self { source: settings.source.clone(), queue, failure, topics, message_bytes_max }
    }

    fn failure(&self) -> PublishError {
        self.failure.lock().expect("no code panics while holding it").take().unwrap_or(PublishError::Closed)
    }
}

impl Publisher for KafkaPublisher {
    async fn publish(&mut self, publish: Publish) -> Result<(), PublishError> {
        let drawn = messages(&self.source, &publish, |table| self.topics.of(table), self.message_bytes_max);
        let messages = match drawn {
            Ok(messages) => messages,
            Err((table, why)) => return Err(PublishError::Refused { table, why, publish: Box::new(publish) }),
        };
        let counts = counts_of(&publish);
        let Publish { number, boundary, order, partial_rows, standings, .. } = publish;
        let parcel = Parcel { number, boundary, order, partial_rows, standings, counts, messages };
        match self.queue.send(parcel).await {
            Ok(()) => Ok(()),
            Err(_) => Err(self.failure()),
        }
    }
}

/// A publish whose rows have become messages.
struct Parcel {
    number: PublishNumber,
    boundary: Arc<Boundary>,
    order: OrderState,
    partial_rows: BTreeMap<TableId, u64>,
    standings: Vec<(TableId, TableStanding)>,
    counts: Vec<(TableId, StageCount)>,
    messages: Vec<Outgoing>,
}

impl Parcel {
    /// Whether it holds nothing but a position.
    fn is_idle(&self) -> bool {
        self.messages.is_empty() && self.standings.is_empty()
    }
}

/// The thread's half.
struct Sender {
    source: String,
    position_topic: String,
    producer: TransactionalProducer,
    topics: Topics,
    position: Position,
    epoch: u64,
    /// Records since the last full one.
    since_full: u32,
    durable: mpsc::UnboundedSender<Durable>,
    shipped: Arc<AtomicU64>,
    failure: Arc<Mutex<Option<PublishError>>>,
    runtime: tokio::runtime::Handle,
}

impl Sender {
    fn run(mut self, mut inbox: mpsc::Receiver<Parcel>) {
        // A position without anything to send waits a little: there may be many, of transactions that concern no table.
        let mut idle: Option<(Parcel, Instant)> = None;
        loop {
            let until = idle.as_ref().map(|(_, since)| *since + POSITION_ONLY_DELAY);
            let next = match until {
                None => Ok(self.runtime.block_on(inbox.recv())),
                Some(until) => self.runtime.block_on(async { tokio::time::timeout_at(until, inbox.recv()).await }),
            };
            let due = match next {
                Ok(Some(parcel)) if parcel.is_idle() => {
                    let since = idle.take().map_or_else(Instant::now, |(_, since)| since);
                    idle = Some((parcel, since));
                    None
                }
                // It says the position as well.
                Ok(Some(parcel)) => {
                    idle = None;
                    Some(parcel)
                }
                Err(_) => idle.take().map(|(parcel, _)| parcel),
                Ok(None) => {
                    if let Some((parcel, _)) = idle {
                        self.send(&parcel);
                    }
                    return;
                }
            };
            if due.is_some_and(|parcel| !self.send(&parcel)) {
                return;
            }
        }
    }

    /// Sends until it is durable; false if it never will be.
    fn send(&mut self, parcel: &Parcel) -> bool {
        let mut delay = RECONNECT_DELAY;
        loop {
            match self.try_send(parcel) {
                Ok(()) => return true,
                Err(SendError::Again(why)) => {
                    tracing::warn!(publish = parcel.number.0, %why, retry_in = ?delay, "a publish was aborted and is sent again");
                    std::thread::sleep(delay);
                    delay = (delay * 2).min(RECONNECT_DELAY_MAX);
                }
                Err(SendError::Fenced(why)) => return self.end(PublishError::Fenced(why)),
                Err(SendError::Failed(why)) => return self.end(PublishError::Failed(why)),
            }
        }
    }

    fn end(&self, failure: PublishError) -> bool {
        *self.failure.lock().expect("no code panics while holding it") = Some(failure);
        false
    }

    fn try_send(&mut self, parcel: &Parcel) -> Result<(), SendError> {
        let mut record = self.record(parcel);
        let (position, messages) = (&self.position, &parcel.messages);
        let offset = self.producer.transact(messages, &self.position_topic, |ends| {
            record.ends = ends_by_table(messages, ends);
            still_the_same_topics(position, &record.ends)?;
            if record.full {
                add_known_ends(&mut record.ends, &position.ends);
            }
            serde_json::to_vec(&record).map_err(|error| error.to_string())
        })?;
        self.went_out(parcel, &record, offset)
    }

    /// The record that `parcel` would leave, but for the offsets.
    fn record(&self, parcel: &Parcel) -> PositionRecord {
        let full = self.since_full >= POSITIONS_BETWEEN_FULL;
        let standing = |(table, standing): &(TableId, _)| {
            let topic = self.topics.of(table);
            let entry = TopicStanding {
                standing: Clone::clone(standing),
                topic: topic.as_ref().map_or_else(|| "".into(), |topic| topic.id.clone()),
                partitions: topic.map_or(0, |topic| topic.partitions),
            };
            (table.clone(), entry)
        };
        let changed = parcel.standings.iter().map(standing);
        let tables =
            if full { self.position.tables.clone().into_iter().chain(changed).collect() } else { changed.collect() };
        PositionRecord {
            format: FORMAT,
            source: self.source.clone(),
            epoch: self.epoch,
            begun: self.position.begun,
            publish: parcel.number.0,
            at_ms: clock::now_ms(),
            gtid_set: parcel.boundary.gtid_set.clone(),
            partial: parcel.boundary.partial.clone(),
            partial_rows: parcel.partial_rows.clone(),
            last: parcel.boundary.last.clone(),
            log: parcel.boundary.log.clone(),
            order: parcel.order,
            full,
            tables,
            ends: BTreeMap::new(),
            counts: parcel.counts.clone(),
        }
    }

    fn went_out(&mut self, parcel: &Parcel, record: &PositionRecord, offset: i64) -> Result<(), SendError> {
        let full_before = self.position.newest_full;
        if self.position.newest.is_some_and(|newest| newest >= offset) {
            return Err(SendError::Failed(format!(
                "the position topic {} was deleted and made again: it gave offset {offset}; `weir snapshot` begins anew",
                self.position_topic
            )));
        }
        self.position
            .fold(&self.source, offset, record)
            .map_err(|error| SendError::Failed(format!("what was just written: {error}")))?;
        self.since_full = if record.full { 0 } else { self.since_full + 1 };
        let mut touched: BTreeMap<TableId, Vec<u32>> = BTreeMap::new();
        for message in &parcel.messages {
            let buckets = touched.entry(message.table.clone()).or_default();
            if !buckets.contains(&message.partition) {
                buckets.push(message.partition);
            }
        }
        // Whoever listened is gone only while the process shuts down.
        let _ = self.durable.send(Durable {
            number: parcel.number,
            boundary: parcel.boundary.clone(),
            touched,
            at_ms: record.at_ms,
            counts: record.counts.clone(),
        });
        let shipped = PublishNumber(self.shipped.load(Ordering::Acquire));
        if let Some((old, _)) = full_before.filter(|(_, publish)| record.full && *publish <= shipped) {
            self.trim(old);
        }
        Ok(())
    }

    /// Deletes position records below `offset`, which a full one and the trace have made superfluous.
    fn trim(&self, offset: i64) {
        let topics = self.topics.clone();
        self.runtime.spawn(async move {
            if let Err(error) = topics.trim_positions(offset).await {
                tracing::warn!(%error, "old positions could not be deleted; they only take room");
            }
        });
    }
}

/// What capture counted in a publish, by table.
fn counts_of(publish: &Publish) -> Vec<(TableId, StageCount)> {
    let mut tallies: BTreeMap<&TableId, Tally> = BTreeMap::new();
    for (table, item) in &publish.items {
        if let Item::Changes(changes) = item {
            tallies.entry(table).or_default().add(&changes.sent);
        }
    }
    let counts = |(table, tally): (&TableId, Tally)| {
        let table = table.clone();
        tally.counts().into_iter().map(move |count| (table.clone(), count))
    };
    tallies.into_iter().flat_map(counts).collect()
}

fn ends_by_table(messages: &[Outgoing], ends: &Ends) -> BTreeMap<TableId, BTreeMap<u32, i64>> {
    let mut by_table: BTreeMap<TableId, BTreeMap<u32, i64>> = BTreeMap::new();
    for message in messages {
        if let Some(end) = ends.get(&(message.topic.clone(), message.partition)) {
            by_table.entry(message.table.clone()).or_default().insert(message.partition, *end);
        }
    }
    by_table
}

/// A full record also says the ends of the partitions that its publish does not touch.
fn add_known_ends(ends: &mut BTreeMap<TableId, BTreeMap<u32, i64>>, known: &BTreeMap<TableId, BTreeMap<u32, i64>>) {
    for (table, known) in known {
        let ends = ends.entry(table.clone()).or_default();
        for (partition, end) in known {
            ends.entry(*partition).or_insert(*end);
        }
    }
}

/// Offsets rise in a topic that is still the one we wrote to: only we write there.
fn still_the_same_topics(position: &Position, ends: &BTreeMap<TableId, BTreeMap<u32, i64>>) -> Result<(), String> {
    for (table, written) in ends {
        for (partition, end) in written {
            let before = position.ends.get(table).and_then(|ends| ends.get(partition));
            if let Some(before) = before.filter(|before| *before >= end) {
                return Err(format!(
                    "the topic of {table} was deleted and made again: partition {partition} gave offset {end} after {before}"
                ));
            }
        }
    }
    Ok(())
}

/// Fences off every publisher before this one, and reads where they had come to.
///
/// # Errors
/// When Kafka cannot be reached, or the position topic is not whole; if it is to be begun `anew`, its records are deleted
/// then.
pub async fn begin(
    settings: &KafkaSettings,
    topics: &Topics,
    anew: bool,
) -> Result<(TransactionalProducer, Position), TransportError> {
    topics.ensure_position().await?;
    let reading = settings.clone();
    let begun = tokio::task::spawn_blocking(move || {
        let producer = TransactionalProducer::begin(&reading)?;
        Ok((producer, read_positions(&reading, None)))
    });
    let died = |error: tokio::task::JoinError| TransportError::Kafka {
        brokers: settings.brokers.clone(),
        what: error.to_string(),
    };
    let (producer, read) = begun.await.map_err(died)??;
    match read {
        Ok((position, _)) => Ok((producer, position)),
        Err(error @ TransportError::Topic { .. }) if anew => {
            tracing::warn!(%error, "the positions are given up; everything begins anew");
            let (_, end) = topics.watermarks(&settings.position_topic(), 0).await?;
            topics.trim_positions(end).await?;
            Ok((producer, Position::default()))
        }
        Err(error) => Err(error),
    }
}

/// Number, time (ms since the epoch) and counts of publishes, for a trace that lacks them.
pub type Counted = Vec<(PublishNumber, i64, Vec<(TableId, StageCount)>)>;

/// Reads the position topic as whoever does not publish: the position, and the counts of the publishes above `after`.
pub async fn look(settings: &KafkaSettings, after: PublishNumber) -> Result<(Position, Counted), TransportError> {
    let settings = settings.clone();
    let looked = tokio::task::spawn_blocking(move || read_positions(&settings, Some(after)));
    looked.await.unwrap_or_else(|error| Err(TransportError::Kafka { brokers: String::new(), what: error.to_string() }))
}

/// Folds the position topic from its beginning to its end; blocking.
fn read_positions(
    settings: &KafkaSettings,
    counted_after: Option<PublishNumber>,
) -> Result<(Position, Counted), TransportError> {
    let failed = |error: KafkaError| settings.failed(&error);
    let topic = settings.position_topic();
    let mut config = settings.consumer();
    // The end is known by coming to it, and somebody waits.
    config.set("enable.partition.eof", "true").set("fetch.wait.max.ms", "10");
    let consumer: BaseConsumer<Quiet> = config.create_with_context(Quiet).map_err(failed)?;
    let (low, high) = consumer.fetch_watermarks(&topic, 0, KAFKA_ANSWER_MAX).map_err(failed)?;
    let (mut position, mut counted) = (Position::default(), Counted::new());
    if low < high {
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(&topic, 0, Offset::Offset(low)).map_err(failed)?;
        consumer.assign(&list).map_err(failed)?;
        // What is not committed when nobody fences is of a publish under way, and need not be waited for.
        let end = counted_after.is_none().then_some(high);
        fold_up_to(settings, &consumer, end, |offset, record| {
            position.fold(&settings.source, offset, &record).map_err(|error| error.to_string())?;
            let number = PublishNumber(record.publish);
            if counted_after.is_some_and(|after| number > after) && !record.counts.is_empty() {
                counted.push((number, record.at_ms, record.counts));
            }
            Ok(())
        })?;
    }
    // An end above 0 alone proves nothing: a first publish that was aborted leaves its offsets behind.
    if position.is_new() && low > 0 && counted_after.is_none() {
        let what = format!(
            "holds no record although it begins at {low}: its records were deleted. `weir snapshot` begins anew"
        );
        return Err(TransportError::Topic { topic, what });
    }
    Ok((position, counted))
}

/// Hands every record to `fold`, up to `end` or, without one, to whatever is committed.
///
/// The end is the high watermark once older producers are fenced: markers of transactions take offsets, so the last
/// record lies somewhere below it.
fn fold_up_to(
    settings: &KafkaSettings,
    consumer: &BaseConsumer<Quiet>,
    end: Option<i64>,
    mut fold: impl FnMut(i64, PositionRecord) -> Result<(), String>,
) -> Result<(), TransportError> {
    let topic = settings.position_topic();
    let broken = |what: String| TransportError::Topic { topic: topic.clone(), what };
    let deadline = std::time::Instant::now() + KAFKA_ANSWER_MAX * 10;
    loop {
        if std::time::Instant::now() > deadline {
            return Err(broken("cannot be read to its end in time".into()));
        }
        match consumer.poll(Duration::from_millis(100)) {
            None => {}
            Some(Ok(message)) => {
                let record = PositionRecord::read(message.offset(), message.payload().unwrap_or_default());
                fold(message.offset(), record.map_err(|error| broken(error.to_string()))?).map_err(broken)?;
            }
            Some(Err(KafkaError::PartitionEOF(_))) => {
                let at = consumer.position().map_err(|error| settings.failed(&error))?;
                let at = at.find_partition(&topic, 0).map(|partition| partition.offset());
                if end.is_none_or(|end| at_or_behind(at, end)) {
                    return Ok(());
                }
            }
            Some(Err(error)) => return Err(settings.failed(&error)),
        }
    }
}

fn at_or_behind(at: Option<Offset>, end: i64) -> bool {
    matches!(at, Some(Offset::Offset(offset)) if offset >= end)
}

/// Number of the next publish.
impl Position {
    pub fn next_publish(&self) -> PublishNumber {
        PublishNumber(self.publish.0 + 1)
    }
}
