"""What tests do to topics behind weir's back. Each command prints JSON to stdout.

    topic.py --brokers 127.0.0.1:9092 list
    topic.py --brokers 127.0.0.1:9092 copy TOPIC [--first N]
    topic.py --brokers 127.0.0.1:9092 recreate TOPIC

`copy` reads the messages of changes, all or the first of each partition, and produces them again, byte for byte with the same
headers and to the same partitions; prints {"messages": …, "rows": …}. `recreate` deletes a topic and creates one of the same
name, partitions and settings. `list` prints the names.
"""

import argparse
import json
import sys
import time

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, ConfigResource, ConfigSource, NewTopic, ResourceType

TIMEOUT_S = 30


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--brokers", required=True)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list")
    copying = commands.add_parser("copy")
    copying.add_argument("topic")
    copying.add_argument("--first", type=int, help="so many messages of each partition, from its beginning")
    commands.add_parser("recreate").add_argument("topic")
    arguments = parser.parse_args()
    admin = AdminClient({"bootstrap.servers": arguments.brokers})
    if arguments.command == "list":
        print(json.dumps(sorted(admin.list_topics(timeout=TIMEOUT_S).topics)))
    elif arguments.command == "copy":
        print(json.dumps(copy(arguments.brokers, admin, arguments.topic, arguments.first)))
    else:
        print(json.dumps(recreate(admin, arguments.topic)))
    return 0


# --- copy ---


def copy(brokers: str, admin: AdminClient, topic: str, first: int | None) -> dict:
    chosen = []
    for partition in partitions(admin, topic):
        chosen += [message for message in read(brokers, topic, partition) if is_changes(message)][:first]
    producer = Producer({"bootstrap.servers": brokers, "acks": "all", "message.max.bytes": 100_000_000})
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


if __name__ == "__main__":
    sys.exit(main())
