"""Runs SQL on a ClickHouse engine of today, in process. A list of statements in JSON on stdin; on stdout a line of
JSON for each: the rows that it gave."""

import json
import sys

from chdb import session

engine = session.Session()
for statement in json.load(sys.stdin):
    result = engine.query(statement, "JSONCompactEachRow")
    text = result.bytes().decode() if result else ""
    print(json.dumps([json.loads(line) for line in text.splitlines()]))
