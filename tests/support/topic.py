"""What tests do to topics behind weir's back. Each command prints JSON to stdout.

    topic.py --brokers 127.0.0.1:9092 list
    topic.py --brokers 127.0.0.1:9092 copy TOPIC [--first N] [--transaction]
    topic.py --brokers 127.0.0.1:9092 recreate TOPIC
    topic.py --brokers 127.0.0.1:9092 cut TOPIC
    topic.py --brokers 127.0.0.1:9092 vanish TOPIC
    topic.py --brokers 127.0.0.1:9092 ends TOPIC

`copy` reads the messages of changes, all or the first of each partition, and produces them again, byte for byte with the same
headers and to the same partitions, with `--transaction` in a transaction of its own; prints {"messages": …, "rows": …}. `recreate` deletes a topic and creates one of the same
name, partitions and settings. `cut` deletes every record, so that the topic begins at its end. `vanish` has the broker write its
partitions anew without their messages: offsets go on, and no reader is told that some are missing. `ends` prints the offset
behind the last record of each partition. `list` prints the names.
"""

import argparse
import json
import sys
import time

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import (
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    ConfigSource,
    NewTopic,
    ResourceType,
)

TIMEOUT_S = 30


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--brokers", required=True)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list")
    copying = commands.add_parser("copy")
    copying.add_argument("topic")
    copying.add_argument("--first", type=int, help="so many messages of each partition, from its beginning")
    copying.add_argument("--transaction", action="store_true", help="in a transaction of another producer")
    for name in ["recreate", "cut", "vanish", "ends"]:
        commands.add_parser(name).add_argument("topic")
    arguments = parser.parse_args()
    admin = AdminClient({"bootstrap.servers": arguments.brokers})
    if arguments.command == "list":
        print(json.dumps(sorted(admin.list_topics(timeout=TIMEOUT_S).topics)))
    elif arguments.command == "copy":
        print(json.dumps(copy(arguments.brokers, admin, arguments.topic, arguments.first, arguments.transaction)))
    elif arguments.command == "recreate":
        print(json.dumps(recreate(admin, arguments.topic)))
    elif arguments.command == "cut":
        print(json.dumps(cut(arguments.brokers, admin, arguments.topic)))
    elif arguments.command == "vanish":
        print(json.dumps(vanish(arguments.brokers, admin, arguments.topic)))
    else:
        print(json.dumps(ends(arguments.brokers, admin, arguments.topic)))
    return 0


# --- copy ---


def copy(brokers: str, admin: AdminClient, topic: str, first: int | None, in_transaction: bool) -> dict:
    chosen = []
    for partition in partitions(admin, topic):
        chosen += [message for message in read(brokers, topic, partition) if is_changes(message)][:first]
    settings = {"bootstrap.servers": brokers, "acks": "all", "message.max.bytes": 100_000_000}
    if in_transaction:
        settings["transactional.id"] = f"copy-{topic}"
    producer = Producer(settings)
    if in_transaction:
        producer.init_transactions(TIMEOUT_S)
        producer.begin_transaction()
    failures: list[KafkaError] = []
    for message in chosen:
        producer.produce(
            topic,
            value=message.value(),
            key=message.key(),
            headers=message.headers(),
            partition=message.partition(),
            on_delivery=lambda error, _: failures.append(error) if error else None,
        )
    left = producer.flush(TIMEOUT_S)
    if in_transaction:
        producer.commit_transaction(TIMEOUT_S)
    if failures or left:
        raise SystemExit(f"{left} messages not sent, {len(failures)} refused: {failures[:3]}")
    return {"messages": len(chosen), "rows": sum(int(dict(message.headers())["weir-rows"]) for message in chosen)}


def partitions(admin: AdminClient, topic: str) -> list[int]:
    found = admin.list_topics(topic, timeout=TIMEOUT_S).topics[topic]
    if found.error:
        raise KafkaException(found.error)
    return sorted(found.partitions)


def read(brokers: str, topic: str, partition: int) -> list:
    """The committed messages of a partition, as far as it reaches when this begins."""
    consumer = Consumer(
        {
            "bootstrap.servers": brokers,
            "group.id": "unused",
            "isolation.level": "read_committed",
            "enable.auto.commit": False,
            "enable.partition.eof": True,
        }
    )
    consumer.assign([TopicPartition(topic, partition, OFFSET_BEGINNING)])
    messages, end = [], time.monotonic() + TIMEOUT_S
    while time.monotonic() < end:
        message = consumer.poll(1.0)
        if message is None:
            continue
        if message.error() is None:
            messages.append(message)
        elif message.error().code() == KafkaError._PARTITION_EOF:
            consumer.close()
            return messages
        else:
            raise KafkaException(message.error())
    raise SystemExit(f"{topic}/{partition}: no end within {TIMEOUT_S} s")


def is_changes(message) -> bool:
    return dict(message.headers() or []).get("weir-kind") == b"changes"


# --- recreate ---


def recreate(admin: AdminClient, topic: str) -> dict:
    count = len(partitions(admin, topic))
    resource = ConfigResource(ResourceType.TOPIC, topic)
    entries = admin.describe_configs([resource])[resource].result(TIMEOUT_S)
    # The topic's own settings; the others are the broker's and will be again.
    settings = {name: entry.value for name, entry in entries.items() if entry.source == ConfigSource.DYNAMIC_TOPIC_CONFIG.value}
    admin.delete_topics([topic], operation_timeout=TIMEOUT_S)[topic].result(TIMEOUT_S)
    end = time.monotonic() + TIMEOUT_S
    while True:
        try:
            admin.create_topics([NewTopic(topic, count, 1, config=settings)])[topic].result(TIMEOUT_S)
            return {"partitions": count, "settings": settings}
        except KafkaException as error:
            # The deletion takes a moment to reach every part of the cluster.
            if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS or time.monotonic() > end:
                raise
            time.sleep(0.1)


# --- cut, vanish, ends ---


def ends(brokers: str, admin: AdminClient, topic: str) -> list[int]:
    consumer = Consumer({"bootstrap.servers": brokers, "group.id": "unused"})
    found = [consumer.get_watermark_offsets(TopicPartition(topic, n), timeout=TIMEOUT_S)[1] for n in partitions(admin, topic)]
    consumer.close()
    return found


def cut(brokers: str, admin: AdminClient, topic: str) -> dict:
    behind = [TopicPartition(topic, n, end) for n, end in enumerate(ends(brokers, admin, topic))]
    for future in admin.delete_records(behind).values():
        future.result(TIMEOUT_S)
    return {"begins": [partition.offset for partition in behind]}


def vanish(brokers: str, admin: AdminClient, topic: str) -> dict:
    """Compaction drops records without a key, which weir's are; but never those of the segment that is written."""
    compacted = {
        "cleanup.policy": "compact",
        "segment.ms": "1",
        "min.cleanable.dirty.ratio": "0.0",
        "min.compaction.lag.ms": "0",
        "max.compaction.lag.ms": "1",
    }
    configure(admin, topic, compacted)
    end = time.monotonic() + 3 * TIMEOUT_S
    while any(is_changes(message) for n in partitions(admin, topic) for message in read(brokers, topic, n)):
        if time.monotonic() > end:
            raise SystemExit(f"{topic} was not compacted within {3 * TIMEOUT_S} s")
        roll(brokers, admin, topic)
        time.sleep(0.5)
    configure(admin, topic, {"cleanup.policy": "delete"})
    return {"ends": ends(brokers, admin, topic)}


def roll(brokers: str, admin: AdminClient, topic: str) -> None:
    """Begins a segment of each partition by a record that nobody is shown: its transaction is aborted."""
    producer = Producer({"bootstrap.servers": brokers, "transactional.id": f"roll-{topic}"})
    producer.init_transactions(TIMEOUT_S)
    producer.begin_transaction()
    for partition in partitions(admin, topic):
        producer.produce(topic, value=b"", key=b"roll", partition=partition)
    producer.flush(TIMEOUT_S)
    producer.abort_transaction(TIMEOUT_S)


def configure(admin: AdminClient, topic: str, settings: dict[str, str]) -> None:
    entries = [ConfigEntry(name, value, incremental_operation=AlterConfigOpType.SET) for name, value in settings.items()]
    resource = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=entries)
    admin.incremental_alter_configs([resource])[resource].result(TIMEOUT_S)


if __name__ == "__main__":
    sys.exit(main())
