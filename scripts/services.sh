#!/usr/bin/env bash
# Fetches, starts and stops the real servers and the readers that tests, demo and benchmarks use; no Docker, and nothing
# outside target/services is changed. See `scripts/services.sh help`.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
. "$here/services/common.sh"
. "$here/services/debian.sh"
. "$here/services/server.sh"
. "$here/services/mysql_fetch.sh"
. "$here/services/mysql_server.sh"
. "$here/services/kafka.sh"
. "$here/services/clickhouse.sh"
. "$here/services/s3.sh"
. "$here/services/readers.sh"
. "$here/services/maven.sh"
. "$here/services/jvm_readers.sh"
. "$here/services/spark.sh"
. "$here/services/other_sources.sh"
. "$here/services/chromium.sh"
. "$here/services/promtool.sh"

usage() {
    cat <<'USAGE'
Usage: scripts/services.sh COMMAND

  all                      fetch everything that make test needs
  all-readers              fetch the further readers of make test-all, too
  mysql-fetch              MySQL into target/services/mysql (bin/mysqld, mysql, mysqlbinlog, mysqldump, mysqladmin)
  mysql-start DIR [FLAG…]  start a server in DIR on a free loopback port; prints its url
                           writes DIR/data, DIR/mysqld.pid, DIR/port, DIR/mysqld.log; FLAGs go to mysqld, after ours
  mysql-stop DIR [--kill]  stop the server of DIR, with --kill by SIGKILL, and wait until it is gone
  mysql57-fetch, mysql80-fetch, mariadb-fetch
                           MySQL 5.7, MySQL 8.0 and MariaDB 10.11 into target/services/mysql57, …/mysql80, …/mariadb (bin/mysqld)
  mysql57-start DIR [FLAG…], mysql80-start …, mariadb-start …
                           start one of them, as mysql-start does; mysql-stop stops it
  kafka-fetch              Kafka into target/services/kafka (libs/*.jar); needs java and mvn on PATH
  kafka-start DIR          start a broker in DIR on free loopback ports, or again on those it had; prints 127.0.0.1:PORT
                           writes DIR/data, DIR/kafka.pid, DIR/port, DIR/controller-port, DIR/kafka.log
  kafka-stop DIR [--kill]  stop the broker of DIR, with --kill by SIGKILL, and wait until it is gone
  clickhouse-fetch         ClickHouse into target/services/clickhouse (bin/clickhouse-server)
  clickhouse-start DIR     start a server in DIR on a free loopback port, or again on the one it had; prints its url
                           writes DIR/data, DIR/clickhouse.pid, DIR/port, DIR/clickhouse.log
  clickhouse-stop DIR [--kill]
                           stop the server of DIR, with --kill by SIGKILL, and wait until it is gone
  s3-fetch                 versitygw, which speaks S3, into target/services/versitygw (bin/versitygw); needs go on PATH
  s3-start DIR             start a server in DIR on a free loopback port, or again on the one it had; prints
                           http://KEY:SECRET@127.0.0.1:PORT/BUCKET; writes DIR/data (BUCKET/… are the objects), DIR/meta,
                           DIR/versitygw.pid, DIR/port, DIR/versitygw.log
  s3-stop DIR [--kill]     stop the server of DIR, with --kill by SIGKILL, and wait until it is gone
  readers-fetch            Python environment into target/services/readers (bin/python)
  promtool-fetch           promtool into target/services/promtool (bin/promtool), from PATH or Debian; elsewhere it does without
  jvm-readers-fetch        Delta Kernel into target/services/delta-kernel (libs/*.jar, classes/); needs javac and mvn on PATH
  spark-fetch              Spark with Delta Lake into target/services/spark (bin/python, delta-jars/); needs java and mvn on PATH
  chromium-fetch           Chromium, headless, into target/services/chromium (bin/chromium), for make page

All may be called again, and by several processes at once.

Environment:
  WEIR_USE_PATH_MYSQL=1      take mysqld and its clients from PATH (8.0 or later) instead of fetching them
  WEIR_USE_PATH_CLICKHOUSE=1 take clickhouse-server from PATH instead of fetching it
  WEIR_USE_PATH_S3=1         take versitygw from PATH instead of building it
  WEIR_USE_PATH_CHROMIUM=1   take Chromium from PATH instead of fetching it
  WEIR_SERVICES_DIR          instead of target/services
  WEIR_SERVICE_OWNER_PID     mysql-start, kafka-start, clickhouse-start, s3-start: stop the server when this process is gone
USAGE
}

main() {
    local command=${1:-help} flavour
    [ $# -eq 0 ] || shift
    case $command in
    all)
        mysql_fetch
        kafka_fetch
        clickhouse_fetch
        s3_fetch
        readers_fetch
        promtool_fetch
        with_lock mysql-template make_template
        for flavour in mysql57 mysql80 mariadb; do
            source_fetch "$flavour"
            with_lock "$flavour-template" source_template "$flavour"
        done
        ;;
    all-readers)
        jvm_readers_fetch
        spark_fetch
        ;;
    mysql-fetch) mysql_fetch ;;
    mysql-start) mysql_start "$@" ;;
    mysql-stop) mysql_stop "$@" ;;
    mysql57-fetch | mysql80-fetch | mariadb-fetch) source_fetch "${command%-fetch}" ;;
    mysql57-start | mysql80-start | mariadb-start) source_start "${command%-start}" "$@" ;;
    kafka-fetch) kafka_fetch ;;
    kafka-start) kafka_start "$@" ;;
    kafka-stop) kafka_stop "$@" ;;
    clickhouse-fetch) clickhouse_fetch ;;
    clickhouse-start) clickhouse_start "$@" ;;
    clickhouse-stop) clickhouse_stop "$@" ;;
    s3-fetch) s3_fetch ;;
    s3-start) s3_start "$@" ;;
    s3-stop) s3_stop "$@" ;;
    readers-fetch) readers_fetch ;;
    promtool-fetch) promtool_fetch ;;
    jvm-readers-fetch) jvm_readers_fetch ;;
    spark-fetch) spark_fetch ;;
    chromium-fetch) chromium_fetch ;;
    help | --help | -h) usage ;;
    *)
        usage >&2
        exit 2
        ;;
    esac
}

main "$@"
