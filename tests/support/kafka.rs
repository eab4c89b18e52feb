//! A real Kafka: the user's own by `WEIR_TEST_KAFKA_BROKERS`, or one that the project's script fetches and starts.

use std::sync::OnceLock;

use super::clickhouse::Clickhouse;
use super::lake::python;
use super::{path, services};

/// A broker that is stopped when dropped, unless it is the user's own.
pub struct Kafka {
    pub brokers: String,
    folder: Option<tempfile::TempDir>,
}

impl Kafka {
    /// The broker that tests share, each under a source name of its own. It ends with the test process.
    pub fn shared() -> &'static Kafka {
        static SHARED: OnceLock<Kafka> = OnceLock::new();
        SHARED.get_or_init(|| match std::env::var("WEIR_TEST_KAFKA_BROKERS") {
            Ok(brokers) => Kafka { brokers, folder: None },
            Err(_) => Kafka::start(),
        })
    }

    /// A broker of the test's own, for those that kill it.
    ///
    /// # Panics
    /// If it cannot be fetched or started: a test without its server fails.
    pub fn start() -> Kafka {
        let folder = tempfile::Builder::new().prefix("weir-kafka-").tempdir().expect("a temporary folder");
        let brokers = services(&["kafka-start", path(folder.path())]).trim().to_owned();
        Kafka { brokers, folder: Some(folder) }
    }

    /// SIGKILL; what was acknowledged is kept.
    pub fn kill(&self) {
        services(&["kafka-stop", self.folder(), "--kill"]);
    }

    /// Starts it again after `kill`, with the data and under the address that it had.
    pub fn restart(&self) {
        let brokers = services(&["kafka-start", self.folder()]);
        assert_eq!(brokers.trim(), self.brokers, "somebody else took the broker's port while it was down");
    }

    /// The sections that make a configuration go over this broker, with counts in ClickHouse. `transport` holds more keys
    /// for `[transport]`. The trace has a database of its own for each source.
    pub fn sections(&self, clickhouse: &Clickhouse, source: &str, transport: &str) -> String {
        format!(
            "[transport]\nkind = \"kafka\"\nbrokers = \"{}\"\n{transport}\n\n\
             [trace]\nkind = \"clickhouse\"\nurl = \"{}\"\n",
            self.brokers,
            clickhouse.url_of(source)
        )
    }

    /// Names of all topics.
    pub fn topics(&self) -> Vec<String> {
        serde_json::from_value(self.topic_script(&["list"])).expect("a list of names")
    }

    /// Sends a topic's messages of changes once more, all or the first of each partition, byte for byte; gives how many
    /// rows these are.
    pub fn copy_messages(&self, topic: &str, first: Option<u32>) -> u64 {
        let first = first.map(|first| first.to_string());
        let mut arguments = vec!["copy", topic];
        arguments.extend(first.iter().flat_map(|first| ["--first", first.as_str()]));
        self.topic_script(&arguments)["rows"].as_u64().expect("a number of rows")
    }

    /// The same in a transaction of another producer's, of all messages.
    pub fn copy_in_a_transaction(&self, topic: &str) -> u64 {
        self.topic_script(&["copy", topic, "--transaction"])["rows"].as_u64().expect("a number of rows")
    }

    /// Deletes every record of a topic: it begins at its end.
    pub fn cut(&self, topic: &str) {
        self.topic_script(&["cut", topic]);
    }

    /// Has the broker write a topic's partitions anew without their messages, of which no reader is told.
    pub fn vanish(&self, topic: &str) {
        self.topic_script(&["vanish", topic]);
    }

    /// The sum of the offsets behind the last records of a topic's partitions: it rises with every publish.
    pub fn written(&self, topic: &str) -> i64 {
        let ends: Vec<i64> = serde_json::from_value(self.topic_script(&["ends", topic])).expect("a list of offsets");
        ends.iter().sum()
    }

    /// Deletes a topic and makes one of the same name and settings.
    pub fn recreate(&self, topic: &str) {
        self.topic_script(&["recreate", topic]);
    }

    fn topic_script(&self, arguments: &[&str]) -> serde_json::Value {
        let mut command = python("tests/support/topic.py");
        let output = command.args(["--brokers", &self.brokers]).args(arguments).output().expect("the script starts");
        assert!(output.status.success(), "topic.py {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).expect("the script prints JSON")
    }

    fn folder(&self) -> &str {
        path(self.folder.as_ref().expect("a broker of the test's own").path())
    }
}

impl Drop for Kafka {
    fn drop(&mut self) {
        if self.folder.is_some() {
            self.kill();
        }
    }
}

/// A source name that no earlier run on the same servers had: topics and counts outlive a test on a broker of the user's.
pub fn source_name(test: &str) -> String {
    static RUN: OnceLock<String> = OnceLock::new();
    let run = RUN.get_or_init(|| {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("a clock past 1970");
        format!("{:x}", since.as_millis())
    });
    format!("{test}-{run}")
}

/// The topic of a table.
pub fn topic(source: &str, database: &str, table: &str) -> String {
    format!("weir.{}.{}.{}", escaped(source), escaped(database), escaped(table))
}

/// A name as weir writes it in topics and paths.
fn escaped(name: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
    let byte = |byte: u8| if plain(byte) { char::from(byte).to_string() } else { format!("_x{byte:02x}") };
    name.split("_x").map(|part| part.bytes().map(byte).collect::<String>()).collect::<Vec<_>>().join("_x5fx")
}
