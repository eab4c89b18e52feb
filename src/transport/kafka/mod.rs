//! The transport between machines: a topic a table, whose partitions are the table's buckets, and a position topic.
//!
//! ```text
//! capture ─► KafkaPublisher ─ begin ─ batches, position record ─ commit ─► topics ─► Receiver ─► a KafkaSubscription a table
//! ```
//!
//! A position and the batches up to it become visible together; whoever publishes fences off who did before. A table's
//! commit names the offset that its buckets have taken in, so that Kafka's own offsets are not used.
//!
//! Reading order: [`wire`] (a message), [`position`] (what capture goes on from), `topics`, [`publisher`], `gather`
//! (messages of many partitions become publishes again), [`receiver`].

mod gather;
mod outgoing;
pub mod position;
mod producer;
pub mod publisher;
pub mod receiver;
mod topics;
pub mod wire;

use std::collections::BTreeMap;
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::KafkaError;
use weir_model::TableId;
use weir_model::key::KeyRef;

pub use self::producer::TransactionalProducer;
pub use self::publisher::{Durable, KafkaPublisher};
pub use self::receiver::{KafkaSubscription, Receiver};
pub use self::topics::{TopicInfo, Topics};
use crate::limits::{KAFKA_MESSAGE_BYTES_MAX, KAFKA_TRANSACTION_MAX, NAME_BYTES_MAX_OF_TOPIC};

/// What librdkafka has to say goes to the log: it tries again by itself, so that little of it matters.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Quiet;

impl Quiet {
    fn say(level: RDKafkaLogLevel, facility: &str, message: &str) {
        match level {
            RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical => {
                tracing::error!(facility, message, "librdkafka");
            }
            _ => tracing::debug!(facility, message, "librdkafka"),
        }
    }
}

impl ClientContext for Quiet {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        Self::say(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        // The end of a partition comes here as well.
        tracing::debug!(%error, reason, "librdkafka");
    }
}

impl ConsumerContext for Quiet {}

/// How to reach the brokers, and whose topics they are.
#[derive(Debug, Clone)]
pub struct KafkaSettings {
    pub brokers: String,
    /// Name of the source: the middle of every topic's name.
    pub source: String,
    /// Handed to librdkafka as they are; they win over ours.
    pub options: BTreeMap<String, String>,
}

/// What we set and nobody may: exactness rests on it.
const OURS: [&str; 9] = [
    "transactional.id",
    "enable.idempotence",
    "acks",
    "isolation.level",
    "enable.auto.commit",
    "enable.auto.offset.store",
    "auto.offset.reset",
    "group.id",
    "bootstrap.servers",
];

/// Kafka, or what it was asked, is not as it must be.
#[derive(Debug, Clone, thiserror::Error)]
pub enum TransportError {
    #[error("[transport] options: {0}")]
    Option(String),
    #[error("Kafka at {brokers}: {what}")]
    Kafka { brokers: String, what: String },
    #[error("topic {topic}: {what}")]
    Topic { topic: String, what: String },
}

impl From<TransportError> for crate::error::Error {
    fn from(error: TransportError) -> Self {
        match &error {
            TransportError::Option(_) => Self::config(error.to_string()),
            TransportError::Kafka { .. } => Self::failed(error.to_string())
                .way_out("see that [transport] brokers names brokers that run; `weir check` tries them"),
            TransportError::Topic { .. } => Self::failed(error.to_string()),
        }
    }
}

impl KafkaSettings {
    /// # Errors
    /// Names the first option that is ours to set.
    pub fn validate(&self) -> Result<(), TransportError> {
        match self.options.keys().find(|key| OURS.contains(&key.as_str())) {
            Some(key) => {
                Err(TransportError::Option(format!("{key} is set by weir, since exactness rests on it; leave it out")))
            }
            None => {
                // librdkafka says what it does not know.
                self.client().create_native_config().map(|_| ()).map_err(|error| self.failed(&error))
            }
        }
    }

    /// What producers, consumers and admin clients share.
    fn client(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.brokers);
        config.set("client.id", format!("weir-{}", self.source));
        config.set("message.max.bytes", KAFKA_MESSAGE_BYTES_MAX.to_string());
        self.with_options(config)
    }

    /// The user's options win over ours, but for those that are nobody's to set.
    fn with_options(&self, mut config: ClientConfig) -> ClientConfig {
        for (key, value) in &self.options {
            config.set(key, value);
        }
        config
    }

    /// Bytes that a message may have.
    fn message_bytes_max(&self) -> usize {
        let set = self.options.get("message.max.bytes").and_then(|bytes| bytes.parse().ok());
        set.unwrap_or(KAFKA_MESSAGE_BYTES_MAX)
    }

    /// The transactional producer. It is created once an incarnation, and fences off that of the one before.
    fn producer(&self) -> ClientConfig {
        let mut config = self.client();
        config.set("linger.ms", "0");
        config.set("batch.size", "1000000");
        config.set("compression.type", "lz4");
        // As much as one publish holds, and no more: the next begins when it is through.
        config.set("queue.buffering.max.kbytes", "1048576");
        config.set("queue.buffering.max.messages", "0");
        config.set("transaction.timeout.ms", KAFKA_TRANSACTION_MAX.as_millis().to_string());
        config.set("message.timeout.ms", (KAFKA_TRANSACTION_MAX.as_millis() * 9 / 10).to_string());
        let mut config = self.with_options(config);
        config.set("transactional.id", format!("weir-{}", self.source));
        config.set("enable.idempotence", "true");
        config.set("acks", "all");
        config
    }

    /// A consumer whose offsets are ours to say.
    fn consumer(&self) -> ClientConfig {
        let mut config = self.client();
        // The broker answers at once when there is something; an idle consumer should cost nothing.
        config.set("fetch.wait.max.ms", "500");
        // What librdkafka reads ahead is beside `memory_max`.
        config.set("queued.max.messages.kbytes", "16384");
        // A few of our messages are as much, and by default the next are asked for a second after there is room again.
        config.set("fetch.queue.backoff.ms", "5");
        // Opening tables takes its time, and the group must not think us dead meanwhile.
        config.set("max.poll.interval.ms", "3600000");
        config.set("fetch.message.max.bytes", "4194304");
        let mut config = self.with_options(config);
        config.set("isolation.level", "read_committed");
        config.set("enable.auto.commit", "false");
        config.set("enable.auto.offset.store", "false");
        config.set("auto.offset.reset", "error");
        // Only those who join it use it; librdkafka asks for a name all the same.
        config.set("group.id", self.group());
        config
    }

    /// A consumer that is pointed at single messages. It is told where a partition ends, and shown what is not committed: whoever
    /// holds a transaction open there must not make what is behind it look gone.
    fn looking(&self) -> rdkafka::error::KafkaResult<BaseConsumer<Quiet>> {
        let mut config = self.consumer();
        config.set("enable.partition.eof", "true").set("fetch.wait.max.ms", "10");
        config.set("isolation.level", "read_uncommitted");
        config.create_with_context(Quiet)
    }

    /// The consumer group that several `weir apply` form.
    pub fn group(&self) -> String {
        format!("weir.{}", self.source)
    }

    /// The topic of positions. Tables' topics have one part more.
    pub fn position_topic(&self) -> String {
        format!("weir.{}.position", escape(&self.source))
    }

    /// The topic of a table: `weir.<source>.<database>.<table>`; one too long for Kafka ends in a hash.
    pub fn table_topic(&self, table: &TableId) -> String {
        let name = format!("{}{}.{}", self.table_topics(), escape(&table.database), escape(&table.table));
        if name.len() <= NAME_BYTES_MAX_OF_TOPIC {
            return name;
        }
        let hash = format!("_xh{:016x}", KeyRef::Bytes(name.as_bytes()).hash64());
        format!("{}{hash}", &name[..NAME_BYTES_MAX_OF_TOPIC - hash.len()])
    }

    /// The table that a topic is of; `None` if its name was too long to say, or it is none of ours.
    pub fn table_of(&self, topic: &str) -> Option<TableId> {
        let (database, table) = topic.strip_prefix(&self.table_topics())?.split_once('.')?;
        let unescape = weir_model::schema::unescape_name;
        Some(TableId::new(&unescape(database)?, &unescape(table)?))
    }

    /// What the names of all tables' topics begin with.
    fn table_topics(&self) -> String {
        format!("weir.{}.", escape(&self.source))
    }

    fn failed(&self, error: &KafkaError) -> TransportError {
        match error {
            KafkaError::ClientConfig(_, description, key, _) => TransportError::Option(format!("{key}: {description}")),
            other => TransportError::Kafka { brokers: self.brokers.clone(), what: other.to_string() },
        }
    }

    /// Whether brokers answer, and how many there are.
    pub async fn probe(&self, within: Duration) -> Result<usize, TransportError> {
        self.validate()?;
        let settings = self.clone();
        let asked = tokio::task::spawn_blocking(move || {
            let consumer: BaseConsumer<Quiet> =
                settings.consumer().create_with_context(Quiet).map_err(|error| settings.failed(&error))?;
            let metadata = consumer.fetch_metadata(None, within).map_err(|error| settings.failed(&error))?;
            Ok(metadata.brokers().len())
        });
        asked.await.unwrap_or_else(|error| {
            Err(TransportError::Kafka { brokers: self.brokers.clone(), what: error.to_string() })
        })
    }
}

/// Each byte outside `[A-Za-z0-9_-]` as `_xHH`, and a literal `_x` as `_x5fx`: as in the warehouse's folders.
fn escape(name: &str) -> String {
    weir_model::schema::escape_name(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> KafkaSettings {
        KafkaSettings { brokers: "127.0.0.1:1".into(), source: "shop".into(), options: BTreeMap::new() }
    }

    #[test]
    fn topics_are_named_by_source_and_table() {
        assert_eq!(settings().position_topic(), "weir.shop.position");
        assert_eq!(settings().table_topic(&TableId::new("a.b", "c d")), "weir.shop.a_x2eb.c_x20d");
        let odd = TableId::new("a.b", "c d_x20");
        assert_eq!(settings().table_of(&settings().table_topic(&odd)), Some(odd));
        assert_eq!(settings().table_of("weir.shop.position"), None);
        let long = TableId::new(&"é".repeat(64), &"ü".repeat(64));
        let name = settings().table_topic(&long);
        assert_eq!(name.len(), NAME_BYTES_MAX_OF_TOPIC);
        assert_ne!(name, settings().table_topic(&TableId::new(&"é".repeat(64), &"ö".repeat(64))));
    }

    #[test]
    fn an_option_that_exactness_rests_on_is_refused_and_an_unknown_one_named() {
        let with =
            |key: &str, value: &str| KafkaSettings { options: [(key.into(), value.into())].into(), ..settings() };
        assert!(
            with("isolation.level", "read_uncommitted").validate().unwrap_err().to_string().contains("isolation.level")
        );
        assert!(with("no.such.option", "1").validate().unwrap_err().to_string().contains("no.such.option"));
        assert!(with("socket.timeout.ms", "5000").validate().is_ok());
    }
}
