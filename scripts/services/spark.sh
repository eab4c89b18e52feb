# Spark with Delta Lake: a Python environment with PySpark in target/services/spark, and Delta's jars from Maven Central in
# delta-jars/. Spark brings its own Scala, and its jars of everything else.

spark_dir=$services_dir/spark
spark_version=3.5.7
delta_spark_version=3.3.2

spark_fetch() {
    with_lock spark spark_fetch_locked
}

spark_fetch_locked() {
    # Written last, so a broken environment is built again. It can't be moved, as its programs name their place.
    local stamp="$spark_version $delta_spark_version"
    if [ "$(cat "$spark_dir/stamp" 2>/dev/null)" = "$stamp" ]; then
        return 0
    fi
    command -v java >/dev/null || die "Spark needs Java 17 on PATH (Debian: openjdk-17-jre-headless)"
    say "fetching Spark $spark_version with Delta Lake $delta_spark_version (350 MB)"
    rm -rf "$spark_dir"
    make_environment "$spark_dir"
    retry 4 "$spark_dir/bin/python" -m pip install --quiet --disable-pip-version-check "pyspark==$spark_version" ||
        die "pip could not install pyspark"
    maven_libraries "$spark_dir/delta-jars" "io.delta:delta-spark_2.12:$delta_spark_version" || die "mvn could not fetch Delta Lake for Spark"
    rm -f "$spark_dir"/delta-jars/scala-library-*.jar
    printf '%s\n' "$stamp" >"$spark_dir/stamp"
    say "Spark is ready: $spark_dir/bin/python"
}
