//! One publish as one Kafka transaction: begun, sent, committed, or aborted. Blocking.

use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Header, Message, OwnedHeaders};
use rdkafka::producer::{BaseRecord, Producer, ProducerContext, ThreadedProducer};

use super::outgoing::Outgoing;
use super::{KafkaSettings, Quiet, TransportError};
use crate::failpoint;
use crate::limits::{KAFKA_ANSWER_MAX, KAFKA_TRANSACTION_MAX};

/// Why a transaction did not go through.
#[derive(Debug)]
pub enum SendError {
    /// It was aborted; the same may be sent again.
    Again(String),
    /// Another producer has this one's place, or the broker has given it up.
    Fenced(String),
    /// Nothing that is sent again will mend it.
    Failed(String),
}

/// The greatest offset written of each topic and partition.
pub type Ends = BTreeMap<(Arc<str>, u32), i64>;

/// A transactional producer that has fenced off those before it.
pub struct TransactionalProducer {
    producer: ThreadedProducer<Deliveries>,
}

/// What became of the messages under way.
#[derive(Clone, Default)]
struct Deliveries {
    written: Arc<Mutex<Written>>,
    /// Signalled with every answer: a `poll` of the client's own spins out its last millisecond.
    answered: Arc<Condvar>,
}

#[derive(Default)]
struct Written {
    ends: Ends,
    error: Option<String>,
    too_large: bool,
    /// The topic is not there any more.
    gone: bool,
}

impl ClientContext for Deliveries {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        Quiet::say(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(%error, reason, "librdkafka");
    }
}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        let mut written = self.written.lock().expect("no code panics while holding it");
        match result {
            Ok(message) => {
                let at = (Arc::from(message.topic()), message.partition() as u32);
                let end = written.ends.entry(at).or_insert(message.offset());
                *end = (*end).max(message.offset());
            }
            Err((error, message)) => {
                let too_large = error.rdkafka_error_code() == Some(RDKafkaErrorCode::MessageSizeTooLarge);
                written.too_large |= too_large;
                let bytes = message.payload().map_or(0, <[u8]>::len);
                let why = format!("topic {} did not take a message of {bytes} bytes: {error}", message.topic());
                let code = error.rdkafka_error_code();
                written.gone |= matches!(
                    code,
                    Some(
                        RDKafkaErrorCode::UnknownTopicOrPartition
                            | RDKafkaErrorCode::UnknownTopic
                            | RDKafkaErrorCode::UnknownPartition
                    )
                );
                written.error.get_or_insert(why);
            }
        }
        drop(written);
        self.answered.notify_all();
    }
}

impl TransactionalProducer {
    /// Creates the producer and fences off those before it.
    pub fn begin(settings: &KafkaSettings) -> Result<Self, TransportError> {
        let producer: ThreadedProducer<Deliveries> =
            settings.producer().create_with_context(Deliveries::default()).map_err(|error| settings.failed(&error))?;
        producer.init_transactions(KAFKA_ANSWER_MAX).map_err(|error| settings.failed(&error))?;
        Ok(Self { producer })
    }

    /// Sends `messages`, then the record that `record_of` makes of the offsets they got, in one transaction. Returns
    /// the record's own offset.
    pub fn transact(
        &self,
        messages: &[Outgoing],
        position_topic: &str,
        record_of: impl FnOnce(&Ends) -> Result<Vec<u8>, String>,
    ) -> Result<i64, SendError> {
        self.producer.begin_transaction().map_err(|error| self.judge(&error))?;
        failpoint::reach(failpoint::KAFKA_BEGUN);
        let sent = self.send_all(messages, position_topic, record_of);
        let done = sent.and_then(|done| {
            failpoint::reach(failpoint::KAFKA_RECORDED);
            self.commit()?;
            failpoint::reach(failpoint::KAFKA_COMMITTED);
            Ok(done)
        });
        if let Err(SendError::Again(_) | SendError::Failed(_)) = &done {
            self.abort()?;
        }
        done
    }

    fn send_all(
        &self,
        messages: &[Outgoing],
        position_topic: &str,
        record_of: impl FnOnce(&Ends) -> Result<Vec<u8>, String>,
    ) -> Result<i64, SendError> {
        *self.written() = Written::default();
        for message in messages {
            let headers = message.headers.iter().fold(OwnedHeaders::new(), |headers, (key, value)| {
                headers.insert(Header { key, value: Some(value.as_str()) })
            });
            self.send(&message.topic, message.partition, &message.payload, headers)?;
        }
        self.wait_until_written()?;
        failpoint::reach(failpoint::KAFKA_PRODUCED);
        let ends = self.written().ends.clone();
        let record = record_of(&ends).map_err(SendError::Failed)?;
        self.send(position_topic, 0, &record, OwnedHeaders::new())?;
        self.wait_until_written()?;
        let at = self.written().ends.get(&(Arc::from(position_topic), 0)).copied();
        at.ok_or_else(|| SendError::Again("the position record has no offset".into()))
    }

    fn send(&self, topic: &str, partition: u32, payload: &[u8], headers: OwnedHeaders) -> Result<(), SendError> {
        let mut record: BaseRecord<'_, (), [u8]> =
            BaseRecord::to(topic).partition(partition as i32).payload(payload).headers(headers);
        loop {
            match self.producer.send(record) {
                Ok(()) => return Ok(()),
                Err((error, back)) if error.rdkafka_error_code() == Some(RDKafkaErrorCode::QueueFull) => {
                    record = back;
                    std::thread::sleep(LOOK_AGAIN);
                }
                // A send that fails does not poison the transaction, which would commit without the message.
                Err((error, _)) => return Err(self.judge(&error)),
            }
        }
    }

    /// Until every message has been answered for.
    fn wait_until_written(&self) -> Result<(), SendError> {
        let mut written = self.written();
        // The last answer is signalled a moment before the client has let go of its message.
        while self.producer.in_flight_count() > 0 {
            let answered = &self.producer.context().answered;
            written = answered.wait_timeout(written, LOOK_AGAIN).expect("no code panics while holding it").0;
        }
        match (written.error.take(), written.too_large) {
            (None, _) => Ok(()),
            // The next start sees which, and stops its table alone.
            (Some(why), _) if written.gone => Err(SendError::Failed(why)),
            (Some(why), true) => {
                Err(SendError::Failed(format!("{why}; raise `max.message.bytes` of the topic, and of the broker")))
            }
            (Some(why), false) => match self.producer.client().fatal_error() {
                Some((code, what)) => Err(by_code(code, what)),
                None => Err(SendError::Again(why)),
            },
        }
    }

    fn commit(&self) -> Result<(), SendError> {
        loop {
            match self.producer.commit_transaction(KAFKA_TRANSACTION_MAX) {
                Ok(()) => return Ok(()),
                // The broker is away: the commit is asked for again, and settled when it is back.
                Err(KafkaError::Flush(RDKafkaErrorCode::OperationTimedOut)) => {}
                Err(KafkaError::Transaction(error)) if error.is_retriable() => {}
                Err(error) => return Err(self.judge(&error)),
            }
        }
    }

    fn abort(&self) -> Result<(), SendError> {
        loop {
            match self.producer.abort_transaction(KAFKA_TRANSACTION_MAX) {
                Ok(()) => return Ok(()),
                Err(KafkaError::Transaction(error)) if error.is_retriable() => {}
                Err(error) => return Err(self.judge(&error)),
            }
        }
    }

    /// What an error means for the one who sends.
    fn judge(&self, error: &KafkaError) -> SendError {
        if let Some((code, what)) = self.producer.client().fatal_error() {
            return by_code(code, what);
        }
        let code = error.rdkafka_error_code();
        match error {
            KafkaError::Transaction(inner) if inner.is_fatal() => by_code(inner.code(), inner.string()),
            _ if code.is_some_and(is_fenced) => SendError::Fenced(error.to_string()),
            _ if code == Some(RDKafkaErrorCode::MessageSizeTooLarge) => SendError::Failed(error.to_string()),
            other => SendError::Again(other.to_string()),
        }
    }

    fn written(&self) -> std::sync::MutexGuard<'_, Written> {
        self.producer.context().written.lock().expect("no code panics while holding it")
    }
}

/// What no signal tells is looked for this often.
const LOOK_AGAIN: Duration = Duration::from_millis(2);

fn by_code(code: RDKafkaErrorCode, what: String) -> SendError {
    if is_fenced(code) { SendError::Fenced(what) } else { SendError::Failed(what) }
}

fn is_fenced(code: RDKafkaErrorCode) -> bool {
    use RDKafkaErrorCode as Code;
    matches!(code, Code::Fenced | Code::ProducerFenced | Code::InvalidProducerEpoch)
}
