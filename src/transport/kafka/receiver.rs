//! The receiving end: one consumer in a thread of its own, an inbox a table.
//!
//! Whoever opens the tables says where each partition begins ([`Host`]): what a table's own commits hold is not read
//! again. `run` takes every partition; several `apply` share them as one consumer group, and whenever the partitions of
//! a topic change hands its table is opened anew with those that are left.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Headers, Message};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use rdkafka::types::RDKafkaRespErr;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::gather::{Arrived, Gather};
use super::topics::Topics;
use super::wire::{ControlBody, Envelope, Kind, SchemaCache, WireError, decode_changes};
use super::{KafkaSettings, Quiet, TransportError};
use crate::limits::{KAFKA_RETRY_DELAY, TOPICS_LISTED_EVERY};
use crate::trace::Tally;
use crate::transport::memory::{Memory, bytes_of};
use crate::transport::{Changes, Delivery, Item, PublishNumber, Subscription};

/// Opens a table for the partitions that it is given, and says where they begin.
pub trait Host: Send + Sync + 'static {
    /// The partitions of `topic` that are ours are `owned` from here on; none gives it up. What was sent for it before
    /// must be settled when this returns: its inbox is closed.
    fn reassign(
        &self,
        topic: &str,
        owned: &BTreeSet<u32>,
    ) -> impl Future<Output = Result<Option<Assignment>, String>> + Send;
}

/// Where messages of a topic go, and where its partitions begin.
#[derive(Debug)]
pub struct Assignment {
    pub inbox: Inbox,
    /// The next offset of each partition; none: its first.
    pub offsets: BTreeMap<u32, Option<i64>>,
}

/// The sending end of a [`KafkaSubscription`].
#[derive(Debug, Clone)]
pub struct Inbox(mpsc::UnboundedSender<Arrived>);

/// The receiving end of one table.
#[derive(Debug)]
pub struct KafkaSubscription {
    inbox: mpsc::UnboundedReceiver<Arrived>,
    gather: Gather,
    pressure: watch::Receiver<bool>,
}

impl KafkaSubscription {
    /// For the owned buckets, with the last publish that the table holds of each.
    pub fn new(whole: BTreeMap<u32, PublishNumber>, pressure: watch::Receiver<bool>) -> (Inbox, Self) {
        let (sender, inbox) = mpsc::unbounded_channel();
        (Inbox(sender), Self { inbox, gather: Gather::new(whole), pressure })
    }

    /// Gives back what was taken last; it is the next again.
    pub fn put_back(&mut self, delivery: Delivery) {
        self.gather.put_back(delivery);
    }
}

impl Subscription for KafkaSubscription {
    async fn next(&mut self) -> Option<Delivery> {
        loop {
            if let Some(delivery) = self.gather.pop() {
                return Some(delivery);
            }
            // Whoever waits for memory may wait for what is held back here.
            if *self.pressure.borrow_and_update() && self.inbox.is_empty() && self.gather.force() {
                continue;
            }
            tokio::select! {
                biased;
                arrived = self.inbox.recv() => self.gather.push(arrived?),
                Ok(()) = self.pressure.changed() => {}
            }
        }
    }
}

/// Which partitions are received.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Membership {
    /// Every partition of the topics that are added.
    Alone,
    /// Those that the consumer group gives us, of every topic of the source.
    Group,
}

/// Receives until it is stopped.
pub struct Receiver {
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Receiver {
    /// Starts receiving; `failed` is told why if it cannot go on.
    pub fn start<H: Host>(
        settings: &KafkaSettings,
        topics: Topics,
        membership: Membership,
        memory: Memory,
        host: Arc<H>,
        stop: CancellationToken,
        failed: mpsc::UnboundedSender<TransportError>,
    ) -> Result<Self, TransportError> {
        let mut config = settings.consumer();
        if membership == Membership::Group && !settings.options.contains_key("group.protocol") {
            // Takes over within a heartbeat; brokers before 4.0 need `group.protocol = "classic"` in the options.
            config.set("group.protocol", "consumer");
        }
        if settings.options.get("group.protocol").is_some_and(|protocol| protocol == "classic") {
            config.set("partition.assignment.strategy", "cooperative-sticky");
        }
        let changes = Arc::new(Mutex::new(Changed::default()));
        let runtime = tokio::runtime::Handle::current();
        let context = GroupContext { changes: changes.clone() };
        let consumer: BaseConsumer<GroupContext> =
            config.create_with_context(context).map_err(|error| settings.failed(&error))?;
        let polling = Polling {
            settings: settings.clone(),
            consumer,
            topics,
            membership,
            memory,
            host,
            changes,
            runtime,
            routes: HashMap::new(),
            owned: BTreeMap::new(),
            schemas: HashMap::new(),
            subscribed: BTreeSet::new(),
            listed: None,
            unserved: BTreeSet::new(),
            served: None,
        };
        let receive = move || {
            if let Err(error) = polling.run(&stop) {
                let _ = failed.send(error);
            }
        };
        let thread = std::thread::Builder::new()
            .name("weir-receive".into())
            .spawn(receive)
            .expect("the system has room for a thread");
        Ok(Self { thread: Some(thread) })
    }

    /// Waits until the thread has ended and every inbox is closed.
    pub async fn join(mut self) {
        if let Some(thread) = self.thread.take() {
            let _ = tokio::task::spawn_blocking(move || thread.join()).await;
        }
    }
}

/// What the group has given and taken since it was last looked at.
#[derive(Debug, Default)]
struct Changed {
    given: Vec<(String, u32)>,
    taken: Vec<(String, u32)>,
}

/// Notes what the group gives and takes; what is given is read only once its table is open.
struct GroupContext {
    changes: Arc<Mutex<Changed>>,
}

impl ClientContext for GroupContext {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        Quiet::say(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        // The end of a partition comes here as well.
        tracing::debug!(%error, reason, "librdkafka");
    }
}

impl ConsumerContext for GroupContext {
    fn rebalance(&self, consumer: &BaseConsumer<Self>, err: RDKafkaRespErr, list: &mut TopicPartitionList) {
        let partitions: Vec<(String, u32)> =
            list.elements().iter().map(|e| (e.topic().to_owned(), e.partition() as u32)).collect();
        let mut changes = self.changes.lock().expect("no code panics while holding it");
        match err {
            RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS => {
                tracing::info!(?partitions, "the group gives us partitions");
                changes.given.extend(partitions);
                // Acknowledged without reading anything: the first offsets are said when the table is open.
                let nothing = TopicPartitionList::new();
                if let Err(error) = consumer.incremental_assign(&nothing) {
                    tracing::warn!(%error, "what the group gave could not be acknowledged");
                }
            }
            RDKafkaRespErr::RD_KAFKA_RESP_ERR__REVOKE_PARTITIONS => {
                tracing::info!(?partitions, "the group takes partitions from us");
                let reading = consumer.assignment().map(|list| list.to_topic_map()).unwrap_or_default();
                let mut gone = TopicPartitionList::new();
                for element in list.elements() {
                    if reading.contains_key(&(element.topic().to_owned(), element.partition())) {
                        gone.add_partition(element.topic(), element.partition());
                    }
                }
                changes.given.retain(|given| !partitions.contains(given));
                changes.taken.extend(partitions);
                if let Err(error) = consumer.incremental_unassign(&gone) {
                    tracing::warn!(%error, "what the group took could not be given up");
                }
            }
            other => tracing::warn!(?other, "the group could not be balanced"),
        }
    }
}

/// The thread's half.
struct Polling<H> {
    settings: KafkaSettings,
    consumer: BaseConsumer<GroupContext>,
    topics: Topics,
    membership: Membership,
    memory: Memory,
    host: Arc<H>,
    changes: Arc<Mutex<Changed>>,
    runtime: tokio::runtime::Handle,
    routes: HashMap<String, Inbox>,
    owned: BTreeMap<String, BTreeSet<u32>>,
    schemas: HashMap<String, SchemaCache>,
    subscribed: BTreeSet<String>,
    listed: Option<Instant>,
    /// Topics that are ours and have no worker: not yet, or not any more.
    unserved: BTreeSet<String>,
    served: Option<Instant>,
}

const POLL: Duration = Duration::from_millis(50);

impl<H: Host> Polling<H> {
    fn run(mut self, stop: &CancellationToken) -> Result<(), TransportError> {
        while !stop.is_cancelled() {
            self.look_for_topics(stop)?;
            self.serve_again(stop)?;
            self.take_in_changes(stop)?;
            match self.consumer.poll(POLL) {
                None => {}
                Some(Ok(message)) => {
                    let taken = receive(&message, &self.routes, &mut self.schemas, &self.memory, &self.runtime);
                    if !taken {
                        self.unserved.insert(message.topic().to_owned());
                    }
                }
                Some(Err(KafkaError::PartitionEOF(_))) => {}
                Some(Err(error)) => self.on_error(&error, stop)?,
            }
        }
        // Inboxes close before the group is left, so that whoever takes over finds what is committed.
        let topics: Vec<String> = self.owned.keys().cloned().collect();
        self.routes.clear();
        for topic in topics {
            let _ = self.runtime.block_on(self.host.reassign(&topic, &BTreeSet::new()));
        }
        Ok(())
    }

    /// Topics appear: the group is asked for every one there is, and whoever is alone takes it.
    fn look_for_topics(&mut self, stop: &CancellationToken) -> Result<(), TransportError> {
        if self.listed.is_some_and(|listed| listed.elapsed() < TOPICS_LISTED_EVERY) {
            return Ok(());
        }
        self.listed = Some(Instant::now());
        let all = match self.runtime.block_on(self.topics.all()) {
            Ok(all) => all,
            Err(error) => {
                tracing::warn!(%error, "the topics could not be listed");
                return Ok(());
            }
        };
        let names: BTreeSet<String> = all.keys().cloned().collect();
        if names == self.subscribed || names.is_empty() {
            return Ok(());
        }
        match self.membership {
            Membership::Group => {
                let list: Vec<&str> = names.iter().map(String::as_str).collect();
                if let Err(error) = self.consumer.subscribe(&list) {
                    tracing::warn!(%error, "the topics could not be subscribed to");
                    return Ok(());
                }
            }
            Membership::Alone => {
                for (topic, partitions) in all {
                    if !self.subscribed.contains(&topic) {
                        self.change(&topic, (0..partitions).collect(), stop)?;
                    }
                }
                let gone: Vec<String> = self.subscribed.difference(&names).cloned().collect();
                for topic in gone {
                    tracing::warn!(topic, "the topic is gone");
                    self.change(&topic, BTreeSet::new(), stop)?;
                }
            }
        }
        self.subscribed = names;
        Ok(())
    }

    fn take_in_changes(&mut self, stop: &CancellationToken) -> Result<(), TransportError> {
        let changed = std::mem::take(&mut *self.changes.lock().expect("no code panics while holding it"));
        let mut next: BTreeMap<String, BTreeSet<u32>> = BTreeMap::new();
        for (topic, _) in changed.given.iter().chain(&changed.taken) {
            next.insert(topic.clone(), self.owned.get(topic).cloned().unwrap_or_default());
        }
        for (topic, partition) in changed.taken {
            next.get_mut(&topic).map(|owned| owned.remove(&partition));
        }
        for (topic, partition) in changed.given {
            next.get_mut(&topic).map(|owned| owned.insert(partition));
        }
        for (topic, owned) in next {
            self.change(&topic, owned, stop)?;
        }
        Ok(())
    }

    /// The topic's table is opened for the partitions `owned`, and they are read from where it stands.
    fn change(&mut self, topic: &str, owned: BTreeSet<u32>, stop: &CancellationToken) -> Result<(), TransportError> {
        let before = self.owned.remove(topic).unwrap_or_default();
        self.unassign(topic, before);
        self.routes.remove(topic);
        while !stop.is_cancelled() {
            match self.runtime.block_on(self.host.reassign(topic, &owned)) {
                Ok(Some(assignment)) => {
                    let mut list = TopicPartitionList::new();
                    for (partition, offset) in &assignment.offsets {
                        let offset = offset.map_or(Offset::Beginning, Offset::Offset);
                        list.add_partition_offset(topic, *partition as i32, offset)
                            .map_err(|error| self.settings.failed(&error))?;
                    }
                    self.consumer.incremental_assign(&list).map_err(|error| self.settings.failed(&error))?;
                    self.routes.insert(topic.to_owned(), assignment.inbox);
                    self.owned.insert(topic.to_owned(), owned);
                    return Ok(());
                }
                Ok(None) => {
                    if !owned.is_empty() {
                        self.owned.insert(topic.to_owned(), owned);
                        self.unserved.insert(topic.to_owned());
                    }
                    return Ok(());
                }
                Err(why) => {
                    tracing::warn!(topic, %why, "the topic's table cannot be opened yet");
                    std::thread::sleep(KAFKA_RETRY_DELAY);
                }
            }
        }
        Ok(())
    }

    /// Opens again what could not be opened, or whose worker has ended.
    fn serve_again(&mut self, stop: &CancellationToken) -> Result<(), TransportError> {
        if self.unserved.is_empty() || self.served.is_some_and(|served| served.elapsed() < TOPICS_LISTED_EVERY) {
            return Ok(());
        }
        self.served = Some(Instant::now());
        for topic in std::mem::take(&mut self.unserved) {
            if let Some(owned) = self.owned.get(&topic).cloned() {
                self.change(&topic, owned, stop)?;
            }
        }
        Ok(())
    }

    /// Stops reading those of `partitions` that are read.
    fn unassign(&self, topic: &str, partitions: impl IntoIterator<Item = u32>) {
        let reading = self.consumer.assignment().map(|list| list.to_topic_map()).unwrap_or_default();
        let mut gone = TopicPartitionList::new();
        for partition in partitions {
            if reading.contains_key(&(topic.to_owned(), partition as i32)) {
                gone.add_partition(topic, partition as i32);
            }
        }
        if gone.count() > 0
            && let Err(error) = self.consumer.incremental_unassign(&gone)
        {
            tracing::warn!(topic, %error, "partitions could not be given up");
        }
    }

    fn on_error(&mut self, error: &KafkaError, stop: &CancellationToken) -> Result<(), TransportError> {
        use RDKafkaErrorCode as Code;
        match error.rdkafka_error_code() {
            // It does not say whose: every topic is opened anew, and its offsets looked at.
            Some(
                Code::AutoOffsetReset
                | Code::OffsetOutOfRange
                | Code::UnknownTopicOrPartition
                | Code::UnknownTopic
                | Code::UnknownPartition,
            ) => {
                tracing::warn!(%error, "an offset is not there any more; the topics are looked at");
                std::thread::sleep(KAFKA_RETRY_DELAY);
                let owned: Vec<(String, BTreeSet<u32>)> = self.owned.clone().into_iter().collect();
                for (topic, owned) in owned {
                    self.change(&topic, owned, stop)?;
                }
                Ok(())
            }
            _ => {
                if let Some((code, what)) = self.consumer.client().fatal_error() {
                    return Err(TransportError::Kafka {
                        brokers: self.settings.brokers.clone(),
                        what: format!("{code}: {what}"),
                    });
                }
                tracing::warn!(%error, "Kafka");
                std::thread::sleep(POLL);
                Ok(())
            }
        }
    }
}

/// Hands a message to its table; one that cannot be understood as well, so that the table stops there. False if nobody
/// takes it.
fn receive(
    message: &BorrowedMessage<'_>,
    routes: &HashMap<String, Inbox>,
    schemas: &mut HashMap<String, SchemaCache>,
    memory: &Memory,
    runtime: &tokio::runtime::Handle,
) -> bool {
    let Some(inbox) = routes.get(message.topic()) else { return false };
    let (bucket, offset) = (message.partition() as u32, message.offset());
    if !schemas.contains_key(message.topic()) {
        schemas.insert(message.topic().to_owned(), SchemaCache::default());
    }
    let schemas = schemas.get_mut(message.topic()).expect("just put there");
    let arrived = match understand(message, schemas) {
        Ok((envelope, item)) => Arrived {
            bucket,
            offset,
            topic: envelope.topic,
            publish: envelope.publish,
            partitions: envelope.partitions,
            part: envelope.part,
            partial: envelope.partial,
            hold: match bytes_of(&item) {
                0 => None,
                bytes => Some(runtime.block_on(memory.hold(bytes))),
            },
            item,
        },
        Err(error) => Arrived {
            bucket,
            offset,
            topic: "".into(),
            // Of no publish: it goes on right behind what its partition has given.
            publish: PublishNumber(0),
            partitions: Arc::new([bucket]),
            part: (1, 1),
            partial: None,
            hold: None,
            item: Item::Unreadable(format!(
                "the message at offset {offset} of partition {bucket} of topic {} cannot be understood: {error}",
                message.topic()
            )),
        },
    };
    inbox.0.send(arrived).is_ok()
}

fn understand(message: &BorrowedMessage<'_>, schemas: &mut SchemaCache) -> Result<(Envelope, Item), WireError> {
    let mut headers = BTreeMap::new();
    for header in message.headers().into_iter().flat_map(Headers::iter) {
        let text = header.value.and_then(|value| std::str::from_utf8(value).ok()).unwrap_or_default();
        headers.insert(header.key, text);
    }
    let envelope = Envelope::of(&headers)?;
    let bytes = message.payload().unwrap_or_default();
    let item = match envelope.kind {
        Kind::Changes => {
            let batch = decode_changes(bytes, schemas)?;
            let partial_rows = u64::from(envelope.partial.is_some());
            Item::Changes(Changes { batch, sent: Tally::default(), partial_rows })
        }
        Kind::Marker => {
            let body: ControlBody = serde_json::from_slice(bytes)?;
            Item::Marker(body.marker.ok_or_else(|| WireError::Content("the marker is missing".into()))?)
        }
        Kind::End => Item::TransactionEnd,
    };
    Ok((envelope, item))
}
