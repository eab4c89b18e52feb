"""Reads Delta tables through Spark, as lake_rows.py asks: a table's folder a line on stdin; on stdout, in lines of JSON, the names of
its columns, each live row, and the number of rows, or why it can't be read.

Dates are days, timestamps microseconds; decimals are text, binary values hexadecimal text. Runs in Spark's own Python environment,
which scripts/services.sh spark-fetch makes; the jars of Delta lie beside it.
"""

import json
import os
import pathlib
import sys

from pyspark.sql import SparkSession

# What Spark prints must not get between the rows.
ROWS = os.fdopen(os.dup(1), "w", encoding="utf-8")
os.dup2(2, 1)
JARS = sorted(str(jar) for jar in (pathlib.Path(sys.prefix) / "delta-jars").glob("*.jar"))
EXPRESSIONS = {
    "date": "unix_date({})",
    "timestamp": "unix_micros({})",
    # In UTC, which the session's time zone is, the two are one.
    "timestamp_ntz": "unix_micros(CAST({} AS TIMESTAMP))",
    "float": "CAST({} AS DOUBLE)",
    "binary": "lower(hex({}))",
}


def session() -> SparkSession:
    settings = {
        "spark.master": "local[2]",
        "spark.driver.bindAddress": "127.0.0.1",
        "spark.driver.host": "127.0.0.1",
        "spark.driver.memory": "1g",
        # It does not live long enough for what the second compiler gains.
        "spark.driver.extraJavaOptions": "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC",
        "spark.jars": ",".join(JARS),
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
        "spark.sql.extensions": "io.delta.sql.DeltaSparkSessionExtension",
        "spark.sql.catalog.spark_catalog": "org.apache.spark.sql.delta.catalog.DeltaCatalog",
        "spark.sql.session.timeZone": "UTC",
        "spark.sql.shuffle.partitions": "2",
        "spark.databricks.delta.snapshotPartitions": "1",
    }
    builder = SparkSession.builder.appName("weir-readers")
    for name, value in settings.items():
        builder = builder.config(name, value)
    spark = builder.getOrCreate()
    spark.sparkContext.setLogLevel("ERROR")
    return spark


def expression(name: str, kind: str) -> str:
    quoted = "`" + name.replace("`", "``") + "`"
    template = "CAST({} AS STRING)" if kind.startswith("decimal") else EXPRESSIONS.get(kind, "{}")
    return f"{template.format(quoted)} AS {quoted}"


def read(spark: SparkSession, folder: str) -> None:
    table = spark.read.format("delta").load(folder)
    say({"columns": table.columns})
    count = 0
    for row in table.selectExpr(*(expression(name, kind) for name, kind in table.dtypes)).collect():
        say(list(row))
        count += 1
    say({"rows": count})


def say(value: object) -> None:
    ROWS.write(json.dumps(value, ensure_ascii=False) + "\n")


def main() -> None:
    spark = session()
    for line in sys.stdin:
        try:
            read(spark, line.rstrip("\n"))
        except Exception as error:  # Whatever it is, the caller is told, and may go on with the next table.
            say({"error": f"{type(error).__name__}: {error}"})
        ROWS.flush()
    spark.stop()


if __name__ == "__main__":
    main()
