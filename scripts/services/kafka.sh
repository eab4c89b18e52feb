# Gets Kafka from Maven Central into target/services/kafka, and starts and stops single nodes (KRaft), each in a folder of
# its own: data/, server.properties, kafka.pid, port, controller-port, kafka.log.

kafka_dir=$services_dir/kafka
kafka_version=4.1.0

# --- kafka-fetch ---

kafka_fetch() {
    with_lock kafka kafka_fetch_locked
}

kafka_fetch_locked() {
    # The folder appears by a rename at the very end, so its presence means it is complete.
    if [ "$(cat "$kafka_dir/version" 2>/dev/null)" = "$kafka_version" ]; then
        return 0
    fi
    local java_major
    java_major=$(java -version 2>&1 | sed -nE 's/.* version "([0-9]+).*/\1/p' | head -n 1 || true)
    [ "${java_major:-0}" -ge 17 ] ||
        die "Kafka needs Java 17 or later on PATH (Debian: openjdk-17-jre-headless) and found ${java_major:-none}; or set WEIR_TEST_KAFKA_BROKERS"
    command -v mvn >/dev/null || die "Kafka is fetched with Maven, and there is no mvn on PATH (Debian: maven); or set WEIR_TEST_KAFKA_BROKERS"
    local building=$services_dir/kafka.building
    say "fetching Kafka $kafka_version from Maven"
    rm -rf "$building"
    mkdir -p "$building"
    # slf4j-simple, so that the server has somewhere to log to.
    maven_libraries "$building/libs" "org.apache.kafka:kafka_2.13:$kafka_version" org.slf4j:slf4j-simple:1.7.36 || die "mvn could not fetch Kafka"
    printf '%s\n' "$kafka_version" >"$building/version"
    rm -rf "$kafka_dir"
    mv "$building" "$kafka_dir"
    say "Kafka is ready: $kafka_version"
}

# --- kafka-start ---

kafka_start() {
    [ $# -eq 1 ] || die "kafka-start needs a folder"
    local folder
    mkdir -p "$1"
    folder=$(cd "$1" && pwd)
    kafka_fetch
    if is_running "$folder/kafka.pid" kafka.Kafka; then
        die "a broker already runs in $folder (pid $(cat "$folder/kafka.pid")); stop it with kafka-stop"
    fi
    start_on_a_port "$folder" kafka kafka_start_on_port
    printf '127.0.0.1:%s\n' "$started_port"
}

# Sets launched_pid. With the port that it had a broker gets the controller's back, too, so that its clients find it again.
kafka_start_on_port() {
    local folder=$1 port=$2 controller_port
    controller_port=$(free_port)
    if [ "$port" = "$(cat "$folder/port" 2>/dev/null)" ]; then
        controller_port=$(cat "$folder/controller-port")
    fi
    kafka_properties "$folder" "$port" "$controller_port" >"$folder/server.properties"
    [ -s "$folder/data/meta.properties" ] || format_kafka "$folder"
    kafka_launch "$folder" || {
        rm -f "$folder/kafka.pid"
        return 1
    }
    printf '%s\n' "$controller_port" >"$folder/controller-port"
}

# Short sessions, so that a killed broker or consumer is missed soon; few partitions of Kafka's own topics, since each is
# opened at every start. What is acknowledged survives kill -9, not a power cut.
kafka_properties() {
    local folder=$1 port=$2 controller_port=$3
    cat <<PROPERTIES
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:$controller_port
controller.listener.names=CONTROLLER
listeners=PLAINTEXT://127.0.0.1:$port,CONTROLLER://127.0.0.1:$controller_port
advertised.listeners=PLAINTEXT://127.0.0.1:$port
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
log.dirs=$folder/data
auto.create.topics.enable=false
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=4
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
log.cleaner.dedupe.buffer.size=4194304
broker.session.timeout.ms=1500
broker.heartbeat.interval.ms=300
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000
group.consumer.heartbeat.interval.ms=200
group.consumer.min.heartbeat.interval.ms=200
group.consumer.session.timeout.ms=6000
group.consumer.min.session.timeout.ms=3000
PROPERTIES
}

format_kafka() {
    local folder=$1
    # An id of 16 bytes in URL-safe base64 without padding; Kafka refuses those that begin with a dash.
    local id
    id=$(head -c 16 /dev/urandom | base64 | tr '+/' 'Az' | cut -c 1-22)
    java -Xmx128m -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -cp "$kafka_dir/libs/*" kafka.tools.StorageTool \
        format --cluster-id "$id" --config "$folder/server.properties" >"$folder/kafka.log" 2>&1 9>&- || {
        tail -n 20 "$folder/kafka.log" >&2
        die "Kafka's storage could not be formatted in $folder/data"
    }
}

# Sets launched_pid.
kafka_launch() {
    local folder=$1
    : >"$folder/kafka.log"
    launch "$folder/kafka.log" java -Xmx512m -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -Djava.net.preferIPv4Stack=true \
        -Dorg.slf4j.simpleLogger.showDateTime=true -Dorg.slf4j.simpleLogger.dateTimeFormat=yyyy-MM-dd\'T\'HH:mm:ss.SSS \
        -cp "$kafka_dir/libs/*" kafka.Kafka "$folder/server.properties"
    printf '%s\n' "$launched_pid" >"$folder/kafka.pid"
    is_up_within 120 "$launched_pid" grep -q 'Kafka Server started' "$folder/kafka.log"
}

# --- kafka-stop ---

kafka_stop() {
    stop_server kafka-stop kafka.Kafka kafka "$@"
}
