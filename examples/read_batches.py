"""Prints the row changes in one of weir's topics as JSON lines.

    read_batches.py --brokers 127.0.0.1:9092 weir.shop.shop.orders [--follow]

Needs the packages confluent-kafka and pyarrow. docs/batch-messages.md describes the format. Each line is one change:

    {"op": "update", "ts_ms": 1795823562256, "seq": 4711, "id": "…", "partition": 0, "offset": 12, "row": {"id": 5, …}}

A row that was logged in part has its other columns in "unchanged", or in "not_told" if only the source knows them.

Without --follow it ends where the topic ended when it was started. Binary values are printed in hex, and what JSON has no
form for (decimals, dates, times) as text. Redelivered or reordered copies are printed, too: of two changes of one key the one
with the greater (ts_ms, seq) is the later, and one with the same id is the same change.
"""

import argparse
import io
import json
import sys
from collections.abc import Iterator

import pyarrow
import pyarrow.ipc
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, Message, TopicPartition

FORMATS = ("1", "2")
OPS = {0: "read", 1: "create", 2: "update", 3: "delete"}
# What weir adds to the source's columns.
OWN_COLUMNS = ("_weir_op", "_weir_ts_ms", "_weir_seq", "_weir_id", "_weir_window_ms", "_weir_image")
TIMEOUT_S = 10


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("topic")
    parser.add_argument("--brokers", required=True, help="host:port, with commas between")
    parser.add_argument("--follow", action="store_true", help="do not end at the topic's end")
    arguments = parser.parse_args()
    for message in messages(arguments.brokers, arguments.topic, arguments.follow):
        for change in changes(message):
            print(json.dumps(change, ensure_ascii=False), flush=arguments.follow)
    return 0


def messages(brokers: str, topic: str, follow: bool) -> Iterator[Message]:
    """The committed messages of all partitions, each partition's in its order."""
    consumer = Consumer(
        {
            "bootstrap.servers": brokers,
            # Without this, what a failed publish left behind would be read as if it had happened.
            "isolation.level": "read_committed",
            "group.id": "read-batches",  # Must be set; partitions are assigned by hand and no offset is committed.
            "enable.auto.commit": False,
            "enable.partition.eof": not follow,
        }
    )
    found = consumer.list_topics(topic, timeout=TIMEOUT_S).topics[topic]
    if found.error is not None:
        raise SystemExit(f"read_batches: {topic}: {found.error}")
    unfinished = set(found.partitions)
    consumer.assign([TopicPartition(topic, partition, OFFSET_BEGINNING) for partition in unfinished])
    while unfinished:
        message = consumer.poll(1.0)
        if message is None:
            continue
        if message.error() is None:
            yield message
        elif message.error().code() == KafkaError._PARTITION_EOF:
            unfinished.discard(message.partition())
        else:
            raise KafkaException(message.error())
    consumer.close()


def changes(message: Message) -> Iterator[dict]:
    headers = {name: value.decode() for name, value in message.headers() or []}
    if headers.get("weir-format") not in FORMATS:
        where = f"{message.topic()}/{message.partition()} at {message.offset()}"
        raise SystemExit(f"read_batches: {where} has format {headers.get('weir-format')}, this program reads {', '.join(FORMATS)}")
    # Markers and ends hold no rows.
    if headers["weir-kind"] != "changes":
        return
    with pyarrow.ipc.open_stream(io.BytesIO(message.value())) as stream:
        table = stream.read_all()
    columns = {name: table[name].to_pylist() for name in table.column_names}
    names = [name for name in table.column_names if name not in OWN_COLUMNS]
    for at in range(table.num_rows):
        image = columns["_weir_image"][at] if "_weir_image" in columns else None
        absent = [name for nth, name in enumerate(names) if image is not None and not image[1 + nth // 8] >> (nth % 8) & 1]
        yield {
            "op": OPS[columns["_weir_op"][at]],
            "ts_ms": columns["_weir_ts_ms"][at],
            "seq": columns["_weir_seq"][at],
            "id": columns["_weir_id"][at].hex(),
            "partition": message.partition(),
            "offset": message.offset(),
            "row": {name: plain(columns[name][at]) for name in names if name not in absent},
            **({("not_told" if image[0] else "unchanged"): absent} if absent else {}),
        }


def plain(value: object) -> object:
    if isinstance(value, bytes):
        return value.hex()
    return value if value is None or isinstance(value, (bool, int, float, str)) else str(value)


if __name__ == "__main__":
    sys.exit(main())
