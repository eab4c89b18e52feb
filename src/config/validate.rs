//! What contradicts, what a later version brings, and what has no effect yet.
//!
//! Settings that change what a table holds are refused as long as they are not served; others that are not served yet
//! only warn.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use bytesize::ByteSize;

use weir_model::Cron;
use weir_model::layout::{Deletes, Partition, TableMode, Transform};
use weir_model::schema::META_PREFIX;

use super::sections::{DdlPolicy, HTTP_OFF, Source, TableRule, TraceKind, TransportKind};
use super::{Config, Secret, TraceServer, environment};
use crate::limits::{PARTITION_BUCKETS_MAX, SCHEDULE_NAME_BYTES_MAX};

const COMMIT_INTERVAL_MS_MAX: u64 = 3_600_000;
/// Below it a single batch would fill the queues.
const MEMORY_MIN: ByteSize = ByteSize::mib(32);
const CONNECTIONS_MAX: usize = 256;
/// What is reconciled more often would be looked at before it has come in.
const RECONCILE_SPAN_MIN: Duration = Duration::from_secs(1);
/// Each is a file in every commit that touches it.
const PARTITIONS_MAX: u32 = 1_024;
/// Topic names have 249 characters, which the table's name shares.
const NAME_LENGTH_MAX: usize = 64;

/// A key and what is wrong with it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Problem {
    pub(super) key: String,
    pub(super) what: String,
}

type Checked = Result<(), Problem>;

/// `Err` unless `holds`; `what` follows the key's name.
fn require(holds: bool, key: &str, what: impl Into<String>) -> Checked {
    if holds { Ok(()) } else { Err(Problem { key: key.to_owned(), what: format!("{key} {}", what.into()) }) }
}

impl Config {
    /// Checks every key on its own and against the others.
    pub(super) fn validate(&self) -> Checked {
        validate_source(&self.source)?;
        require(!self.warehouse.url.is_empty(), "warehouse.url", "must be a url or a path")?;
        if let Some((scheme, _)) = self.warehouse.url.split_once("://") {
            let what = format!(
                "has the scheme `{scheme}`, which comes with a later version; this one knows file:// and s3://"
            );
            require(scheme == "file" || scheme == "s3", "warehouse.url", what)?;
            if scheme == "file" {
                let what = "must name an absolute folder, such as file:///var/lib/weir";
                require(self.warehouse.local_folder().is_some(), "warehouse.url", what)?;
            } else {
                let what = "must be s3://bucket/prefix; keys and everything else go into [warehouse] options, or into AWS_* variables";
                require(is_bucket_url(&self.warehouse.url), "warehouse.url", what)?;
            }
        }
        self.validate_transport()?;
        if self.trace.kind == TraceKind::Clickhouse {
            let server = TraceServer::of(&self.trace.url);
            require(server.is_ok(), "trace.url", server.err().unwrap_or_default())?;
        }
        let interval_ms = self.apply.commit_interval_ms;
        let what = format!("must be from 1 to {COMMIT_INTERVAL_MS_MAX}, and is {interval_ms}");
        require((1..=COMMIT_INTERVAL_MS_MAX).contains(&interval_ms), "apply.commit_interval_ms", what)?;
        let what = format!("must be at least {MEMORY_MIN}, and is {}", self.apply.memory_max);
        require(self.apply.memory_max >= MEMORY_MIN, "apply.memory_max", what)?;
        require(self.warehouse.retention_hours > 0, "warehouse.retention_hours", "must be at least 1")?;
        for (key, span) in
            [("reconcile.hops_every", self.reconcile.hops_every), ("reconcile.deep_within", self.reconcile.deep_within)]
        {
            let what = format!("must be at least {RECONCILE_SPAN_MIN:?}, or \"off\"");
            require(span.0.is_none_or(|length| length >= RECONCILE_SPAN_MIN), key, what)?;
        }
        let what = "must be host:port, such as 127.0.0.1:9187, or off";
        require(is_listen_address(&self.http.listen), "http.listen", what)?;
        self.validate_tables()?;
        self.validate_backfills()
    }

    fn validate_transport(&self) -> Checked {
        if self.transport.kind == TransportKind::Direct {
            return Ok(());
        }
        let brokers = &self.transport.brokers;
        let named = !brokers.is_empty() && brokers.split(',').all(|broker| is_listen_address(broker.trim()));
        let what = format!("must be host:port, or several with commas between, and is \"{brokers}\"");
        require(named, "transport.brokers", what)?;
        let partitions = self.transport.partitions;
        let what = format!("must be from 1 to {PARTITIONS_MAX}, and is {partitions}");
        require((1..=PARTITIONS_MAX).contains(&partitions), "transport.partitions", what)
    }

    fn validate_tables(&self) -> Checked {
        let mut names = BTreeSet::new();
        for (i, rule) in self.tables.iter().enumerate() {
            let key = |name: &str| format!("table[{i}].{name}");
            let name = rule.name.as_ref();
            require(name.is_some(), &key("name"), "must be set: database.table")?;
            let what = format!("repeats {}", name.map_or_else(String::new, ToString::to_string));
            require(names.insert(name), &key("name"), what)?;
            validate_rule(rule, key)?;
        }
        Ok(())
    }

    fn validate_backfills(&self) -> Checked {
        let mut ids = BTreeSet::new();
        for (i, (backfill, id)) in self.backfills.iter().zip(self.backfill_ids()).enumerate() {
            let key = |name: &str| format!("backfill[{i}].{name}");
            require(backfill.table.is_some(), &key("table"), "must be set: database.table")?;
            let cron = backfill.cron.parse::<Cron>();
            require(cron.is_ok(), &key("cron"), cron.err().map_or_else(String::new, |error| error.to_string()))?;
            for (name, bound) in [("from", &backfill.from), ("to", &backfill.to)] {
                let is_set = bound.as_ref().is_none_or(|bound| !bound.parts().is_empty());
                require(is_set, &key(name), "must have a value for the first key column at least")?;
            }
            let is_name = !id.is_empty() && id.len() <= SCHEDULE_NAME_BYTES_MAX && id.chars().all(is_name_character);
            let what = format!("must be up to {SCHEDULE_NAME_BYTES_MAX} letters, digits, _ and -, and is `{id}`");
            require(is_name, &key("name"), what)?;
            require(ids.insert(id.clone()), &key("name"), format!("repeats {id}; give this one another name"))?;
        }
        Ok(())
    }

    /// What is set to something that has no effect in this version.
    pub fn warnings(&self) -> Vec<String> {
        let source = &self.source;
        let mut idle = vec![("source.on_drop", source.on_drop != DdlPolicy::Keep)];
        let direct = self.transport.kind == TransportKind::Direct;
        let buckets = self.tables.iter().any(|rule| rule.buckets.is_some_and(|n| n != 1));
        idle.push(("[[table]] buckets", direct && buckets));
        let set = idle.into_iter().filter(|(_, is_set)| *is_set);
        let mut warnings: Vec<String> = set.map(|(key, _)| format!("{key} has no effect yet")).collect();
        if source.on_truncate == DdlPolicy::Stop {
            warnings.push("source.on_truncate = \"stop\" acts as \"keep\" so far".into());
        }
        let patterns = self.patterns().ok();
        let rules = self.tables.iter().filter_map(|rule| rule.name.as_ref()).map(|name| ("[[table]]", name));
        let backfills = self.backfills.iter().filter_map(|b| b.table.as_ref()).map(|name| ("[[backfill]]", name));
        for (section, name) in rules.chain(backfills) {
            if patterns.as_ref().is_some_and(|patterns| !patterns.matches(name)) {
                warnings.push(format!("{section} {name} has no effect: source.tables does not match it"));
            }
        }
        warnings
    }

    /// Makes paths absolute and finds the password.
    pub(super) fn resolve(&mut self, folder: &Path, environment: &BTreeMap<String, String>) -> Checked {
        if !self.warehouse.url.contains("://") {
            let path = std::path::absolute(folder.join(&self.warehouse.url)).ok();
            let url = path.and_then(|path| url::Url::from_directory_path(path).ok());
            let what = "must be a url or a path on this machine";
            require(url.is_some(), "warehouse.url", what)?;
            self.warehouse.url = url.map_or_else(String::new, |url| url.as_str().trim_end_matches('/').to_owned());
        }
        if let Some(state_dir) = &mut self.apply.state_dir {
            *state_dir = folder.join(&*state_dir);
        }
        if let Some(file) = &mut self.source.password_file {
            *file = folder.join(&*file);
        }
        self.source.password = match (environment.get(environment::PASSWORD), &self.source.password_file) {
            (Some(password), _) => Some(Secret::new(password)),
            (None, Some(file)) => Some(secret_in(file, "source.password_file")?),
            (None, None) => None,
        };
        if let Some(file) = &mut self.source.hash_salt_file {
            *file = folder.join(&*file);
        }
        self.source.hash_salt = match (environment.get(environment::HASH_SALT), &self.source.hash_salt_file) {
            (Some(salt), _) => Some(Secret::new(salt)),
            (None, Some(file)) => Some(secret_in(file, "source.hash_salt_file")?),
            (None, None) => None,
        };
        self.trace.password = environment.get(environment::TRACE_PASSWORD).map(Secret::new);
        Ok(())
    }
}

fn validate_source(source: &Source) -> Checked {
    let named =
        !source.name.is_empty() && source.name.len() <= NAME_LENGTH_MAX && source.name.chars().all(is_name_character);
    let what = format!("must be set: up to {NAME_LENGTH_MAX} letters, digits, _ and -");
    require(named, "source.name", what)?;
    require(!source.url.is_empty(), "source.url", "must be set: mysql://user@host:port")?;
    require(is_mysql_url(source.url.expose()), "source.url", "must be mysql://user@host:port")?;
    if let Some(url) = &source.snapshot_url {
        require(is_mysql_url(url.expose()), "source.snapshot_url", "must be mysql://user@host:port")?;
    }
    let both = source.password_file.is_some() && source.url.has_password();
    require(!both, "source.password_file", "and the url both give a password; keep one of them")?;
    require(!source.tables.is_empty(), "source.tables", "must be set, such as [\"shop.*\"]")?;
    let patterns = weir_mysql::TablePatterns::new(&source.tables);
    patterns.map_err(|error| Problem { key: "source.tables".into(), what: format!("source.tables: {error}") })?;
    let what = format!("must be from 1 to {CONNECTIONS_MAX}, and is {}", source.max_connections);
    require((1..=CONNECTIONS_MAX).contains(&source.max_connections), "source.max_connections", what)?;
    require(source.server_id != Some(0), "source.server_id", "must be from 1 to 4294967295")
}

fn validate_rule(rule: &TableRule, key: impl Fn(&str) -> String) -> Checked {
    let what = "= \"soft\" contradicts mode = \"append\": a table of changes keeps deletes as rows already";
    require(rule.mode != TableMode::Append || rule.deletes == Deletes::Hard, &key("deletes"), what)?;
    validate_partitions(&rule.partition_by, &key("partition_by"))?;
    require(rule.buckets != Some(0), &key("buckets"), "must be at least 1")?;
    validate_columns(rule, &key)?;
    if let Some(columns) = &rule.key {
        let distinct: BTreeSet<String> = columns.iter().map(|column| column.to_ascii_lowercase()).collect();
        let what = "must name at least one column, and none twice";
        require(!columns.is_empty() && distinct.len() == columns.len(), &key("key"), what)?;
    }
    Ok(())
}

/// What can be told of row rules without the source.
fn validate_columns(rule: &TableRule, key: impl Fn(&str) -> String) -> Checked {
    let both = rule.include_columns.is_some() && !rule.exclude_columns.is_empty();
    require(!both, &key("exclude_columns"), "contradicts include_columns; keep one of them")?;
    let ruled = [
        ("exclude_columns", rule.exclude_columns.iter().collect::<Vec<_>>()),
        ("hash_columns", rule.hash_columns.iter().collect()),
        ("mask_columns", rule.mask_columns.keys().collect()),
        ("null_columns", rule.null_columns.iter().collect()),
    ];
    let mut names = BTreeSet::new();
    for (list, columns) in ruled {
        for column in columns {
            let lower = column.to_ascii_lowercase();
            let of_key = rule.key.iter().flatten().any(|name| name.eq_ignore_ascii_case(column));
            require(!of_key, &key(list), format!("names `{column}`, which is part of the record key"))?;
            let of_partition = rule.partition_by.iter().any(|by| by.column.eq_ignore_ascii_case(column));
            require(!of_partition, &key(list), format!("names `{column}`, by which the table is partitioned"))?;
            require(names.insert(lower), &key(list), format!("names `{column}`, which another rule names, too"))?;
        }
    }
    Ok(())
}

/// What can be told of partitions without the source. Their names are those of folders, which some readers misread if they
/// need an escape.
fn validate_partitions(partitions: &[Partition], key: &str) -> Checked {
    let mut names = BTreeSet::new();
    for partition in partitions {
        let name = &partition.name;
        let lower = name.to_ascii_lowercase();
        let what = format!(
            "makes a column `{name}`, whose name must have only letters, digits, _ and -, and not begin with {META_PREFIX}"
        );
        require(name.chars().all(is_name_character) && !lower.starts_with(META_PREFIX), key, what)?;
        if partition.transform != Transform::Identity {
            let what = format!("= \"{partition}\" needs another name than its column's, which stays as it is");
            require(!name.eq_ignore_ascii_case(&partition.column), key, what)?;
        }
        if let Transform::Bucket(count) = partition.transform {
            let what = format!("= \"{partition}\" must have from 1 to {PARTITION_BUCKETS_MAX} buckets");
            require((1..=PARTITION_BUCKETS_MAX).contains(&count), key, what)?;
        }
        require(names.insert(lower), key, format!("names `{name}` twice"))?;
    }
    Ok(())
}

fn secret_in(file: &Path, key: &str) -> Result<Secret, Problem> {
    let text = std::fs::read_to_string(file).map_err(|error| Problem {
        key: key.into(),
        what: format!("{key} {} cannot be read: {error}", file.display()),
    })?;
    Ok(Secret::new(text.trim_end_matches(['\r', '\n'])))
}

fn is_name_character(character: char) -> bool {
    character.is_ascii_alphanumeric() || character == '_' || character == '-'
}

fn is_mysql_url(text: &str) -> bool {
    let Ok(url) = url::Url::parse(text) else { return false };
    url.scheme() == "mysql" && url.host_str().is_some_and(|host| !host.is_empty()) && !url.username().is_empty()
}

/// A bucket and a prefix, and nothing else: the url is shown, so no keys may stand in it.
fn is_bucket_url(text: &str) -> bool {
    let Ok(url) = url::Url::parse(text) else { return false };
    let bare = url.username().is_empty() && url.password().is_none() && url.port().is_none();
    bare && url.host_str().is_some_and(|bucket| !bucket.is_empty()) && url.query().is_none() && url.fragment().is_none()
}

fn is_listen_address(text: &str) -> bool {
    text == HTTP_OFF
        || text.rsplit_once(':').is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok())
}
