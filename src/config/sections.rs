//! The keys of every section and their defaults.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use bytesize::ByteSize;
use serde::Deserialize;
use weir_model::layout::{Deletes, Partition, Storage, TableMode};
use weir_model::rules::{Kept, Masked, Salt};
use weir_model::{Layout, RowRules, TableId, ZeroDates};

use super::secret::{Options, Secret, SecretUrl};
use super::span::Span;

pub const MAX_CONNECTIONS_DEFAULT: usize = 4;
pub const WAREHOUSE_DEFAULT: &str = "file:///var/lib/weir";
/// For warehouses that are not on this machine's disk.
pub const STATE_DIR_DEFAULT: &str = "/var/lib/weir/state";
/// A reader that has begun is done by then.
pub const RETENTION_HOURS_DEFAULT: u32 = 24;
pub const BROKERS_DEFAULT: &str = "127.0.0.1:9092";
pub const PARTITIONS_DEFAULT: u32 = 4;
pub const TRACE_URL_DEFAULT: &str = "http://127.0.0.1:8123/weir";
/// A year, and a month to look back at it.
pub const TRACE_RETENTION_DAYS_DEFAULT: u32 = 400;
pub const COMMIT_INTERVAL_MS_DEFAULT: u64 = 1_000;
pub const MEMORY_MAX_DEFAULT: ByteSize = ByteSize::mib(256);
const INDEX_MEMORY_MAX_DEFAULT: ByteSize = ByteSize::gib(1);
pub const LISTEN_DEFAULT: &str = "127.0.0.1:9187";
/// Says that nothing is served over HTTP.
pub const HTTP_OFF: &str = "off";
pub const HOPS_EVERY_DEFAULT: Duration = Duration::from_secs(60);

/// `[source]`: the database and how hard to press it.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Source {
    /// One service per source; names topics and the state folder.
    pub name: String,
    /// `mysql://user@host:port`.
    pub url: SecretUrl,
    /// A file that holds nothing but the password.
    pub password_file: Option<PathBuf>,
    /// What the service logs in with, from the variable, the file or, if none, the url.
    #[serde(skip)]
    pub password: Option<Secret>,
    /// `database.table` globs, `!` before those to leave out.
    pub tables: Vec<String>,
    pub snapshot: SnapshotMode,
    pub snapshot_url: Option<SecretUrl>,
    /// Connections that read chunks at once.
    pub max_connections: usize,
    /// Of all connections that read chunks together; 0 = no cap.
    pub rows_per_second_max: u64,
    /// The same, counted as columns in memory.
    pub bytes_per_second_max: ByteSize,
    /// No chunk begins while the source has more threads running, ours included; 0 = never pause.
    pub pause_above_threads_running: u64,
    /// No chunk begins while the source is a replica further behind than this; 0 = never pause.
    pub pause_above_lag_ms: u64,
    pub on_truncate: DdlPolicy,
    pub on_drop: DdlPolicy,
    /// A file that holds nothing but what is hashed in front of each value of `hash_columns`.
    pub hash_salt_file: Option<PathBuf>,
    /// That, from the variable or the file.
    #[serde(skip)]
    pub hash_salt: Option<Secret>,
    /// What we call ourselves among the source's replicas; drawn at random for each connection if not set.
    pub server_id: Option<u32>,
}

impl Default for Source {
    fn default() -> Self {
        Self {
            name: String::new(),
            url: SecretUrl::default(),
            password_file: None,
            password: None,
            tables: Vec::new(),
            snapshot: SnapshotMode::Initial,
            snapshot_url: None,
            max_connections: MAX_CONNECTIONS_DEFAULT,
            rows_per_second_max: 0,
            bytes_per_second_max: ByteSize(0),
            pause_above_threads_running: 0,
            pause_above_lag_ms: 0,
            on_truncate: DdlPolicy::Follow,
            on_drop: DdlPolicy::Keep,
            hash_salt_file: None,
            hash_salt: None,
            server_id: None,
        }
    }
}

impl Source {
    /// Whether TRUNCATE at the source empties the lake table. `stop` keeps the rows, too, as long as it can't stop.
    pub fn follows_truncate(&self) -> bool {
        self.on_truncate == DdlPolicy::Follow
    }
}

/// Whether tables are loaded before they are followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SnapshotMode {
    #[default]
    Initial,
    Never,
}

/// What to do with the lake's rows when the source's vanish without row events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DdlPolicy {
    Follow,
    Keep,
    Stop,
}

/// `[warehouse]`: where the tables lie, each at `<url>/<database>/<table>`.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Warehouse {
    /// `file:///folder`, `s3://bucket/prefix`, or a path on this machine's disk, which becomes a url.
    pub url: String,
    /// Handed to the object store; a local folder takes none.
    pub options: Options,
    /// Files that were replaced and old versions of the tables are kept so long, for readers that are at them.
    pub retention_hours: u32,
}

impl Default for Warehouse {
    fn default() -> Self {
        let retention_hours = RETENTION_HOURS_DEFAULT;
        Self { url: WAREHOUSE_DEFAULT.into(), options: Options::default(), retention_hours }
    }
}

impl Warehouse {
    pub fn retention(&self) -> Duration {
        Duration::from_secs(u64::from(self.retention_hours) * 3600)
    }

    /// The folder, if it is on this machine's disk.
    pub fn local_folder(&self) -> Option<PathBuf> {
        let url = url::Url::parse(&self.url).ok().filter(|url| url.scheme() == "file")?;
        url.to_file_path().ok()
    }
}

/// `[transport]`: how batches travel from capture to the tables.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Transport {
    pub kind: TransportKind,
    pub brokers: String,
    /// Buckets of each table that is created; fixed from then on.
    pub partitions: u32,
    /// Handed to librdkafka.
    pub options: Options,
}

impl Default for Transport {
    fn default() -> Self {
        Self {
            kind: TransportKind::Direct,
            brokers: BROKERS_DEFAULT.into(),
            partitions: PARTITIONS_DEFAULT,
            options: Options::default(),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TransportKind {
    Direct,
    Kafka,
}

/// `[trace]`: where the counts are kept.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Trace {
    pub kind: TraceKind,
    /// `http(s)://user@host:port/database`.
    pub url: SecretUrl,
    /// Folded days that are older are removed; 0 keeps them for ever.
    pub retention_days: u32,
    /// From the variable; the url's counts if there is none.
    #[serde(skip)]
    pub password: Option<Secret>,
}

impl Trace {
    /// Days that end at or before this are too old at `now_ms`; none if they are kept for ever.
    pub fn expired_before(&self, now_ms: i64) -> Option<i64> {
        let kept_ms = i64::from(self.retention_days) * 86_400_000;
        (kept_ms > 0).then(|| now_ms.saturating_sub(kept_ms))
    }
}

impl Default for Trace {
    fn default() -> Self {
        Self {
            kind: TraceKind::Sqlite,
            url: SecretUrl::new(TRACE_URL_DEFAULT),
            retention_days: TRACE_RETENTION_DAYS_DEFAULT,
            password: None,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TraceKind {
    Sqlite,
    Clickhouse,
}

/// `[apply]`: freshness, memory and local disk.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Apply {
    pub commit_interval_ms: u64,
    /// Queues, batches and write buffers together.
    pub memory_max: ByteSize,
    /// Key indexes of all tables together; one that goes beyond lives on local disk.
    pub index_memory_max: ByteSize,
    /// Local state that can be rebuilt, and `trace.sqlite`; see [`super::Config::state_dir`] for the default.
    pub state_dir: Option<PathBuf>,
}

impl Default for Apply {
    fn default() -> Self {
        Self {
            commit_interval_ms: COMMIT_INTERVAL_MS_DEFAULT,
            memory_max: MEMORY_MAX_DEFAULT,
            index_memory_max: INDEX_MEMORY_MAX_DEFAULT,
            state_dir: None,
        }
    }
}

impl Apply {
    pub fn memory_bytes(&self) -> usize {
        usize::try_from(self.memory_max.as_u64()).unwrap_or(usize::MAX)
    }

    pub fn index_memory_bytes(&self) -> usize {
        usize::try_from(self.index_memory_max.as_u64()).unwrap_or(usize::MAX)
    }
}

/// `[reconcile]`: what a running service compares by itself.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Reconcile {
    /// The counts of every hop, of tables that have changed.
    pub hops_every: Span,
    /// Every row of every table, range by range, so that each is proven equal within this.
    pub deep_within: Span,
}

impl Default for Reconcile {
    fn default() -> Self {
        Self { hops_every: Span(Some(HOPS_EVERY_DEFAULT)), deep_within: Span(None) }
    }
}

/// `[http]`: metrics, health and status.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Http {
    /// `host:port`; port 0 lets the system choose, and `off` serves nothing.
    pub listen: String,
}

impl Default for Http {
    fn default() -> Self {
        Self { listen: LISTEN_DEFAULT.into() }
    }
}

/// `[[table]]`: where a table differs from the defaults.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TableRule {
    pub name: Option<TableId>,
    pub mode: TableMode,
    pub storage: Storage,
    pub deletes: Deletes,
    /// Columns; by default the primary key, else a unique key over NOT NULL columns.
    pub key: Option<Vec<String>>,
    /// Columns, or `name = transform(column)`.
    pub partition_by: Vec<Partition>,
    pub buckets: Option<u32>,
    pub zero_dates: ZeroDates,
    /// The lake gets these columns only, besides the key's.
    pub include_columns: Option<Vec<String>>,
    /// The lake gets every column but these.
    pub exclude_columns: Vec<String>,
    /// Of these it gets SHA-256 of the salt and the value, in hexadecimal digits.
    pub hash_columns: Vec<String>,
    /// In place of the values of these it gets a text.
    pub mask_columns: BTreeMap<String, String>,
    /// In place of the values of these it gets NULL.
    pub null_columns: Vec<String>,
}

impl TableRule {
    /// What of its columns the lake gets.
    pub fn rules(&self, salt: Option<&Secret>) -> RowRules {
        let kept = match (&self.include_columns, &self.exclude_columns[..]) {
            (Some(only), _) => Kept::Only(only.clone()),
            (None, []) => Kept::All,
            (None, without) => Kept::Without(without.to_vec()),
        };
        let texts = self.mask_columns.iter().map(|(name, text)| (name.clone(), Masked::Text(text.clone())));
        let nulls = self.null_columns.iter().map(|name| (name.clone(), Masked::Null));
        RowRules {
            kept,
            hashed: self.hash_columns.clone(),
            masked: texts.chain(nulls).collect(),
            salt: Salt(salt.map_or_else(String::new, |salt| salt.expose().to_owned())),
        }
    }

    /// How the lake keeps the table.
    pub fn layout(&self) -> Layout {
        let Self { mode, storage, deletes, partition_by, .. } = self;
        Layout { mode: *mode, storage: *storage, deletes: *deletes, partitions: partition_by.clone() }
    }
}

/// `[[backfill]]`: a load that is repeated.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Backfill {
    /// What the schedule is called; see [`super::Config::backfill_ids`] for the default.
    pub name: Option<String>,
    pub table: Option<TableId>,
    /// Five fields in UTC: minute, hour, day of month, month, day of week.
    pub cron: String,
    /// The first key that is loaded; from the table's first if not set.
    pub from: Option<KeyBound>,
    /// The last one; to the table's last if not set.
    pub to: Option<KeyBound>,
}

/// An end of a key range: the first key column's value, or an array with values of key columns, from the first on.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(untagged, expecting = "a whole number, a string, or an array of them with a value for each key column")]
pub enum KeyBound {
    One(KeyPart),
    Several(Vec<KeyPart>),
}

impl KeyBound {
    /// The values, in key order.
    pub fn parts(&self) -> &[KeyPart] {
        match self {
            Self::One(part) => std::slice::from_ref(part),
            Self::Several(parts) => parts,
        }
    }
}

/// The value of a key column, as JSON or a command line has it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(untagged, expecting = "a whole number or a string")]
pub enum KeyPart {
    Number(i64),
    Text(String),
}
