"""Holds partition columns against what they are made of, through an independent reader.

    partitioned.py --path LAKE/db/table --reader polars --by "created_day = day(created_at)" --by region --by "b = bucket(8, id)"

For each row the partition column must be what INTERFACE says of the other column: year an integer, month and hour texts, day a
date, a bucket an integer below the count that follows from the value alone. Also holds the log's entries against the profile
that every reader reads: folders NAME=VALUE without an escape, NULL as JSON's null, vectors in the table's own folder. Prints a JSON
summary; exit 0 if all is right, 1 if not.
"""

import argparse
import datetime
import json
import pathlib
import re
import sys

import lake_rows

EPOCH = datetime.datetime(1970, 1, 1)
HIVE_NULL = "__HIVE_DEFAULT_PARTITION__"


def parse(text: str) -> tuple[str, str, str, int]:
    """Name, transform, column and the count of a bucket."""
    if match := re.fullmatch(r"(\S+) = bucket\((\d+), (\S+)\)", text):
        return match[1], "bucket", match[3], int(match[2])
    if match := re.fullmatch(r"(\S+) = (year|month|day|hour)\((\S+)\)", text):
        return match[1], match[2], match[3], 0
    return text, "identity", text, 0


def expected(transform: str, value: object, is_date: bool) -> object:
    if value is None or transform == "identity":
        return value
    moment = EPOCH + (datetime.timedelta(days=value) if is_date else datetime.timedelta(microseconds=value))
    day = moment.date().isoformat()
    return {"year": moment.year, "month": day[:7], "day": (moment - EPOCH).days, "hour": f"{day}-{moment.hour:02}"}[transform]


def check_rows(path: str, reader: str, by: list[tuple[str, str, str, int]]) -> tuple[int, list[str]]:
    types = lake_rows.column_types(path)
    rows, wrong = 0, []
    buckets: list[dict] = [{} for _ in by]
    for values in lake_rows.read_rows(reader, path, [name for part in by for name in (part[0], part[2])]):
        rows += 1
        for at, (name, transform, column, count) in enumerate(by):
            found, value = values[2 * at], values[2 * at + 1]
            if transform == "bucket":
                is_right = found is None if value is None else found in range(count) and buckets[at].setdefault(value, found) == found
            else:
                wanted = expected(transform, value, types[column] == "date")
                is_right = found == wanted and type(found) is type(wanted)
            if not is_right:
                wrong.append(f"{name} is {found!r} where {column} is {value!r}")
    return rows, wrong


def check_log(path: str, names: list[str]) -> list[str]:
    wrong, folders = [], set()
    for version in sorted(pathlib.Path(path, "_delta_log").glob("*[0-9].json")):
        for action in map(json.loads, version.read_text().splitlines()):
            if "metaData" in action and action["metaData"]["partitionColumns"] != names:
                wrong.append(f"{version.name}: partitionColumns {action['metaData']['partitionColumns']}")
            if "add" not in action:
                continue
            add = action["add"]
            folder = "".join(f"{name}={HIVE_NULL if (value := add['partitionValues'].get(name)) is None else value}/" for name in names)
            folders.add(folder)
            if set(add["partitionValues"]) != set(names) or "" in add["partitionValues"].values():
                wrong.append(f"{version.name}: partitionValues {add['partitionValues']}")
            if not re.fullmatch(re.escape(folder) + r"part-[0-9a-f-]+\.parquet", add["path"]) or not re.fullmatch(r"[A-Za-z0-9._=/-]+", add["path"]):
                wrong.append(f"{version.name}: path {add['path']}")
            vector = add.get("deletionVector")
            if vector and (vector["storageType"] != "u" or len(vector["pathOrInlineDv"]) != 20):
                wrong.append(f"{version.name}: vector {vector}")
    if len(folders) < 2:
        wrong.append(f"only {len(folders)} partition")
    return wrong


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--path", required=True, help="the table's folder")
    parser.add_argument("--reader", choices=lake_rows.READERS, default="duckdb")
    parser.add_argument("--by", action="append", required=True, help="as in partition_by, in its order")
    arguments = parser.parse_args()
    by = [parse(text) for text in arguments.by]
    rows, wrong = check_rows(arguments.path, arguments.reader, by)
    wrong += check_log(arguments.path, [name for name, *_ in by])
    print(json.dumps({"rows": rows, "wrong": len(wrong), "first": wrong[:10]}, indent=1))
    return 1 if wrong or not rows else 0


if __name__ == "__main__":
    sys.exit(main())
