//! The transport over a real Kafka: the contract of every transport, and what only a publisher with a position has.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use weir::transport::kafka::position::Position;
use weir::transport::kafka::receiver::{Assignment, Host, Membership, Receiver};
use weir::transport::kafka::{KafkaPublisher, KafkaSettings, KafkaSubscription, Topics, publisher};
use weir::transport::{Memory, Publish, PublishError, PublishNumber, Publisher, contract};

use crate::support::kafka::Kafka;

/// Settings for a source of the test's own.
fn settings(source: &str) -> KafkaSettings {
    KafkaSettings {
        brokers: Kafka::shared().brokers.clone(),
        source: format!("{source}-{}", std::process::id()),
        options: BTreeMap::new(),
    }
}

/// Hands out subscriptions and begins every partition at its first offset.
struct Desk {
    inboxes: Mutex<HashMap<String, weir::transport::kafka::receiver::Inbox>>,
}

impl Host for Desk {
    async fn reassign(&self, topic: &str, owned: &BTreeSet<u32>) -> Result<Option<Assignment>, String> {
        let inbox = self.inboxes.lock().unwrap().remove(topic);
        let offsets = owned.iter().map(|bucket| (*bucket, None)).collect();
        Ok(inbox.map(|inbox| Assignment { inbox, offsets }))
    }
}

async fn begin(
    settings: &KafkaSettings,
    partitions: u32,
) -> (KafkaPublisher, Position, mpsc::UnboundedReceiver<weir::transport::kafka::Durable>) {
    let topics = Topics::new(settings).unwrap();
    let (producer, position) = publisher::begin(settings, &topics, false).await.unwrap();
    for table in contract::tables() {
        topics.ensure(&table, partitions, &position).await.unwrap();
    }
    let (durable, reports) = mpsc::unbounded_channel();
    let shipped = Arc::new(AtomicU64::new(0));
    let epoch = position.epoch + 1;
    (KafkaPublisher::start(settings, producer, topics, position.clone(), epoch, durable, shipped), position, reports)
}

#[test]
fn the_contract_of_every_transport_is_upheld_with_one_partition_and_with_many() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    for partitions in [1, 3] {
        runtime.block_on(async {
            let settings = settings(&format!("contract{partitions}"));
            let (publisher, _, _reports) = begin(&settings, partitions).await;
            let memory = Memory::new(64 << 20);
            let mut inboxes = HashMap::new();
            let mut subscriptions = Vec::new();
            for table in contract::tables() {
                let whole = (0..partitions).map(|bucket| (bucket, PublishNumber(0))).collect();
                let (inbox, subscription) = KafkaSubscription::new(whole, memory.pressure());
                inboxes.insert(settings.table_topic(&table), inbox);
                subscriptions.push(subscription);
            }
            let host = Arc::new(Desk { inboxes: Mutex::new(inboxes) });
            let stop = CancellationToken::new();
            let (failed, _failures) = mpsc::unbounded_channel();
            let topics = Topics::new(&settings).unwrap();
            let receiver =
                Receiver::start(&settings, topics, Membership::Alone, memory, host, stop.clone(), failed).unwrap();
            let second = subscriptions.pop().unwrap();
            let first = subscriptions.pop().unwrap();
            contract::upheld_by(publisher, first, second).await;
            stop.cancel();
            receiver.join().await;
        });
    }
}

fn position_only(number: u64, to: u64) -> Publish {
    let gtid_set = format!("3e11fa47-71ca-11e1-9e33-c80aa9429562:1-{to}").parse().unwrap();
    Publish {
        number: PublishNumber(number),
        boundary: Arc::new(weir::transport::Boundary { gtid_set, ..Default::default() }),
        items: Vec::new(),
        order: Default::default(),
        partial_rows: BTreeMap::new(),
        standings: Vec::new(),
    }
}

#[test]
fn a_publisher_goes_on_from_the_last_position_and_fences_off_the_one_before() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let settings = settings("fence");
        let (mut old, position, mut reports) = begin(&settings, 2).await;
        assert!(position.is_new());
        old.publish(position_only(1, 5)).await.unwrap();
        assert_eq!(reports.recv().await.unwrap().number, PublishNumber(1));
        let (mut new, position, mut reports) = begin(&settings, 2).await;
        assert_eq!((position.publish, position.boundary.gtid_set.count()), (PublishNumber(1), Some(5)));
        // What the old one was handed does not go out, and the next attempt says why.
        let mut outcome = old.publish(position_only(2, 6)).await;
        for _ in 0..100 {
            if outcome.is_err() {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            outcome = old.publish(position_only(3, 7)).await;
        }
        assert!(matches!(outcome, Err(PublishError::Fenced(_))), "{outcome:?}");
        new.publish(position_only(2, 8)).await.unwrap();
        assert_eq!(reports.recv().await.unwrap().number, PublishNumber(2));
        let (looked, _) = publisher::look(&settings, PublishNumber(0)).await.unwrap();
        assert_eq!(looked.boundary.gtid_set.count(), Some(8));
    });
}
