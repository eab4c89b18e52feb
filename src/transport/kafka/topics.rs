//! Topics: made with what they must have, found again, and looked at for whether they still hold what was written.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use rdkafka::TopicPartitionList;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::message::Message;
use rdkafka::metadata::Metadata;
use uuid::Uuid;
use weir_model::TableId;

use super::position::Position;
use super::{KafkaSettings, Quiet, TransportError};
use crate::limits::{KAFKA_ANSWER_MAX, KAFKA_MESSAGE_BYTES_MAX};

/// A table's topic as the publisher needs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicInfo {
    pub name: Arc<str>,
    /// Incarnation: given when the topic was made. librdkafka's own topic ids are not to be had through this client.
    pub id: Arc<str>,
    pub partitions: u32,
}

/// The topics of one source. Clones share what is known.
#[derive(Clone)]
pub struct Topics {
    settings: KafkaSettings,
    admin: Arc<AdminClient<Quiet>>,
    consumer: Arc<BaseConsumer<Quiet>>,
    /// Looks for single messages; made when it is first needed.
    looking: Arc<Mutex<Option<BaseConsumer<Quiet>>>>,
    known: Arc<Mutex<BTreeMap<TableId, TopicInfo>>>,
}

impl std::fmt::Debug for Topics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Topics").field("source", &self.settings.source).finish_non_exhaustive()
    }
}

/// A week: messages are of use until they are in the table, and to whoever else reads them.
const RETENTION_MS: &str = "604800000";

/// Low and high watermark of a partition: the first offset there is, and the one behind the last.
pub type Watermarks = (i64, i64);

impl Topics {
    pub fn new(settings: &KafkaSettings) -> Result<Self, TransportError> {
        let failed = |error| settings.failed(&error);
        Ok(Self {
            admin: Arc::new(settings.client().create_with_context(Quiet).map_err(failed)?),
            consumer: Arc::new(settings.consumer().create_with_context(Quiet).map_err(failed)?),
            looking: Arc::default(),
            settings: settings.clone(),
            known: Arc::default(),
        })
    }

    /// What the publisher sends a table's items to.
    pub fn of(&self, table: &TableId) -> Option<TopicInfo> {
        self.lock().get(table).cloned()
    }

    /// Sees to the topic of `table`: the one that `position` knows, or a fresh one with `partitions`.
    ///
    /// # Errors
    /// When it is not what the position says: gone, made anew, or with another number of partitions.
    pub async fn ensure(
        &self,
        table: &TableId,
        partitions: u32,
        position: &Position,
    ) -> Result<TopicInfo, TransportError> {
        let name = self.settings.table_topic(table);
        let there = self.partitions_of(&name).await?;
        if let (Some(known), Some(there)) = (position.tables.get(table), there)
            && !known.topic.is_empty()
        {
            if known.partitions != there {
                let what = format!(
                    "has {there} partitions, and had {} when it was made; the number is fixed, since keys are spread by it",
                    known.partitions
                );
                return Err(TransportError::Topic { topic: name, what });
            }
            let info = TopicInfo { name: name.into(), id: known.topic.clone(), partitions: there };
            self.lock().insert(table.clone(), info.clone());
            return Ok(info);
        }
        self.renew(table, partitions).await
    }

    /// The table's topic begins a new incarnation: what lies in it is not the table's any more. One that is not there is
    /// made.
    pub async fn renew(&self, table: &TableId, partitions: u32) -> Result<TopicInfo, TransportError> {
        let name = self.settings.table_topic(table);
        let partitions = match self.partitions_of(&name).await? {
            Some(there) => there,
            None => {
                self.create(&name, partitions, &[("retention.ms", RETENTION_MS)]).await?;
                partitions
            }
        };
        let info = TopicInfo { name: name.into(), id: fresh_id(), partitions };
        self.lock().insert(table.clone(), info.clone());
        Ok(info)
    }

    /// Whether the topic of `table` still holds what the position says was written; says what is wrong if not.
    pub async fn lost(&self, table: &TableId, position: &Position) -> Result<Option<String>, TransportError> {
        let Some(ends) = position.ends.get(table).filter(|ends| !ends.is_empty()) else { return Ok(None) };
        let name = self.settings.table_topic(table);
        if self.partitions_of(&name).await?.is_none() {
            return Ok(Some(format!("topic {name} is gone, and held changes up to {ends:?} (partition: offset)")));
        }
        for (partition, end) in ends {
            let (_, high) = self.watermarks(&name, *partition).await?;
            if high <= *end {
                return Ok(Some(format!(
                    "topic {name} was deleted and made again, or cut off: partition {partition} ends at offset {high}, and {end} was written"
                )));
            }
        }
        Ok(None)
    }

    /// Makes the position topic if there is none. It keeps everything: old records are deleted by name.
    pub(super) async fn ensure_position(&self) -> Result<(), TransportError> {
        let name = self.settings.position_topic();
        match self.partitions_of(&name).await? {
            Some(1) => Ok(()),
            Some(other) => {
                let what = format!("has {other} partitions; positions are one sequence");
                Err(TransportError::Topic { topic: name, what })
            }
            None => self.create(&name, 1, &[("retention.ms", "-1"), ("retention.bytes", "-1")]).await,
        }
    }

    /// Deletes the records of the position topic below `offset`.
    pub(super) async fn trim_positions(&self, offset: i64) -> Result<(), TransportError> {
        let mut list = TopicPartitionList::new();
        let topic = self.settings.position_topic();
        list.add_partition_offset(&topic, 0, rdkafka::Offset::Offset(offset))
            .map_err(|error| self.settings.failed(&error))?;
        self.admin
            .delete_records(&list, &answer_in_time())
            .await
            .map(|_| ())
            .map_err(|error| self.settings.failed(&error))
    }

    /// Number of partitions of a topic; `None` if there is none.
    pub async fn partitions_of(&self, topic: &str) -> Result<Option<u32>, TransportError> {
        let name = topic.to_owned();
        self.ask(move |consumer| {
            consumer.fetch_metadata(Some(&name), KAFKA_ANSWER_MAX).map(|metadata| partitions(&metadata, &name))
        })
        .await
    }

    /// Every table's topic of the source, with its number of partitions.
    pub async fn all(&self) -> Result<BTreeMap<String, u32>, TransportError> {
        let prefix = self.settings.table_topics();
        let position = self.settings.position_topic();
        self.ask(move |consumer| {
            let metadata = consumer.fetch_metadata(None, KAFKA_ANSWER_MAX)?;
            let ours = metadata.topics().iter().filter(|topic| {
                topic.name().starts_with(&prefix) && topic.name() != position && !topic.partitions().is_empty()
            });
            Ok(ours.map(|topic| (topic.name().to_owned(), topic.partitions().len() as u32)).collect())
        })
        .await
    }

    /// First offset and end of a partition.
    pub async fn watermarks(&self, topic: &str, partition: u32) -> Result<Watermarks, TransportError> {
        let topic = topic.to_owned();
        self.ask(move |consumer| consumer.fetch_watermarks(&topic, partition as i32, KAFKA_ANSWER_MAX)).await
    }

    /// Whether the message at `offset` is still there. One that was compacted away, or deleted, leaves a gap that no reader
    /// is told of.
    pub async fn holds(&self, topic: &str, partition: u32, offset: i64) -> Result<bool, TransportError> {
        let (low, high) = self.watermarks(topic, partition).await?;
        if offset < low || offset >= high {
            return Ok(false);
        }
        let (settings, looking, name) = (self.settings.clone(), self.looking.clone(), topic.to_owned());
        self.ask(move |_| {
            let mut looking = looking.lock().expect("no code panics while looking");
            if let Some(consumer) = &*looking
                && let Ok(true) = is_there(consumer, &name, partition, offset)
            {
                return Ok(true);
            }
            // That it is gone stops a table: it is said by one that has looked at nothing else.
            *looking = None;
            is_there(looking.insert(settings.looking()?), &name, partition, offset)
        })
        .await
    }

    async fn create(&self, name: &str, partitions: u32, configs: &[(&str, &str)]) -> Result<(), TransportError> {
        let bytes_max = KAFKA_MESSAGE_BYTES_MAX.to_string();
        let mut topic = NewTopic::new(name, partitions as i32, TopicReplication::Fixed(-1))
            .set("max.message.bytes", &bytes_max)
            .set("cleanup.policy", "delete")
            .set("message.timestamp.type", "CreateTime");
        for (key, value) in configs {
            topic = topic.set(key, value);
        }
        let created = self
            .admin
            .create_topics([&topic], &answer_in_time())
            .await
            .map_err(|error| self.settings.failed(&error))?;
        for result in created {
            match result {
                Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
                Err((topic, code)) => {
                    return Err(TransportError::Topic { topic, what: format!("cannot be made: {code}") });
                }
            }
        }
        // The broker answers before every other knows of it.
        for _ in 0..100 {
            if self.partitions_of(name).await? == Some(partitions) {
                return Ok(());
            }
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
        Err(TransportError::Topic { topic: name.to_owned(), what: "was made and does not appear".into() })
    }

    async fn ask<R: Send + 'static>(
        &self,
        question: impl FnOnce(&BaseConsumer<Quiet>) -> rdkafka::error::KafkaResult<R> + Send + 'static,
    ) -> Result<R, TransportError> {
        let consumer = self.consumer.clone();
        let answer = tokio::task::spawn_blocking(move || question(&consumer)).await;
        let died = |error: tokio::task::JoinError| TransportError::Kafka {
            brokers: self.settings.brokers.clone(),
            what: error.to_string(),
        };
        answer.map_err(died)?.map_err(|error| self.settings.failed(&error))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<TableId, TopicInfo>> {
        self.known.lock().expect("no code panics while holding the topics")
    }
}

/// Whether the first message at or behind `offset` is the one at `offset`; blocking.
fn is_there(consumer: &BaseConsumer<Quiet>, topic: &str, partition: u32, offset: i64) -> KafkaResult<bool> {
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(topic, partition as i32, rdkafka::Offset::Offset(offset))?;
    consumer.assign(&list)?;
    let deadline = Instant::now() + KAFKA_ANSWER_MAX;
    let found = loop {
        if Instant::now() >= deadline {
            break Err(KafkaError::MessageConsumption(RDKafkaErrorCode::OperationTimedOut));
        }
        match consumer.poll(KAFKA_ANSWER_MAX) {
            None => {}
            Some(Ok(message)) => break Ok(message.offset() == offset),
            Some(Err(KafkaError::PartitionEOF(_))) => break Ok(false),
            Some(Err(error)) => break Err(error),
        }
    };
    consumer.unassign()?;
    found
}

fn fresh_id() -> Arc<str> {
    Uuid::new_v4().simple().to_string().into()
}

fn answer_in_time() -> AdminOptions {
    AdminOptions::new().request_timeout(Some(KAFKA_ANSWER_MAX)).operation_timeout(Some(KAFKA_ANSWER_MAX))
}

fn partitions(metadata: &Metadata, name: &str) -> Option<u32> {
    let topic = metadata.topics().iter().find(|topic| topic.name() == name)?;
    (topic.error().is_none() && !topic.partitions().is_empty()).then_some(topic.partitions().len() as u32)
}
