//! What a changed configuration means for a service that runs: nothing, that it can go on with it, or that it cannot. Pure.
//!
//! Each setting is named here once, and a section is taken apart whole, so that one that is added has to be placed: it is
//! *fixed* while a process runs, or it can change between two transactions.

use std::collections::BTreeSet;

use weir_model::{Layout, TableId};

use super::sections::{
    Apply, Http, Reconcile, Source, TableRule, Trace, TraceKind, Transport, TransportKind, Warehouse,
};
use super::{Config, TraceServer};

/// What is to be done about a configuration that has been read anew.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReloadPlan {
    /// It says what the one before says.
    Unchanged,
    /// These settings cannot change while the service runs, so that none does.
    Refused(Vec<String>),
    /// The service can go on with it; these settings change.
    Apply(Vec<String>),
}

/// Compares the configuration that a service runs by with the one in its file. `is_followed` says of a table whether the
/// lake has it by now: how it is kept there cannot change.
pub fn plan(running: &Config, read: &Config, is_followed: impl Fn(&TableId) -> bool) -> ReloadPlan {
    let mut found = Differences::default();
    let Config { source, warehouse, transport, trace, apply, reconcile, http, tables: _, backfills } = running;
    of_source(&mut found, source, &read.source);
    of_warehouse(&mut found, warehouse, &read.warehouse);
    of_transport(&mut found, transport, &read.transport);
    of_trace(&mut found, trace, &read.trace);
    of_apply(&mut found, apply, &read.apply);
    if (&source.name, &warehouse.url) == (&read.source.name, &read.warehouse.url) {
        // Its default follows from those two.
        found.fixed("apply.state_dir", &running.state_dir(), &read.state_dir());
    }
    let Reconcile { hops_every, deep_within } = reconcile;
    found.free("reconcile.hops_every", hops_every, &read.reconcile.hops_every);
    found.free("reconcile.deep_within", deep_within, &read.reconcile.deep_within);
    let Http { listen } = http;
    found.fixed("http.listen", listen, &read.http.listen);
    of_tables(&mut found, running, read, is_followed);
    found.free("[[backfill]]", backfills, &read.backfills);
    found.plan()
}

/// Names of settings that differ.
#[derive(Debug, Default)]
struct Differences {
    fixed: Vec<String>,
    free: Vec<String>,
}

impl Differences {
    /// A setting that cannot change while the service runs.
    fn fixed<T: PartialEq>(&mut self, key: impl Into<String>, running: &T, read: &T) {
        if running != read {
            self.fixed.push(key.into());
        }
    }

    /// A setting that the next incarnation goes by.
    fn free<T: PartialEq>(&mut self, key: impl Into<String>, running: &T, read: &T) {
        if running != read {
            self.free.push(key.into());
        }
    }

    fn plan(self) -> ReloadPlan {
        match (self.fixed.is_empty(), self.free.is_empty()) {
            (false, _) => ReloadPlan::Refused(self.fixed),
            (true, true) => ReloadPlan::Unchanged,
            (true, false) => ReloadPlan::Apply(self.free),
        }
    }
}

fn of_source(found: &mut Differences, running: &Source, read: &Source) {
    // Where the password stands is of no matter, only what it is.
    let Source {
        name,
        url,
        password_file: _,
        password,
        hash_salt_file: _,
        hash_salt,
        tables,
        snapshot,
        snapshot_url,
        max_connections,
        rows_per_second_max,
        bytes_per_second_max,
        pause_above_threads_running,
        pause_above_lag_ms,
        on_truncate,
        on_drop,
        server_id,
    } = running;
    found.fixed("source.name", name, &read.name);
    // Another server is gone on with if it has the same history, as after a failover.
    found.free("source.url", url, &read.url);
    found.free("source.password", password, &read.password);
    found.free("source.hash_salt", hash_salt, &read.hash_salt);
    found.free("source.tables", tables, &read.tables);
    found.free("source.snapshot", snapshot, &read.snapshot);
    found.free("source.snapshot_url", snapshot_url, &read.snapshot_url);
    found.free("source.max_connections", max_connections, &read.max_connections);
    found.free("source.rows_per_second_max", rows_per_second_max, &read.rows_per_second_max);
    found.free("source.bytes_per_second_max", bytes_per_second_max, &read.bytes_per_second_max);
    let threads = "source.pause_above_threads_running";
    found.free(threads, pause_above_threads_running, &read.pause_above_threads_running);
    found.free("source.pause_above_lag_ms", pause_above_lag_ms, &read.pause_above_lag_ms);
    found.free("source.on_truncate", on_truncate, &read.on_truncate);
    found.free("source.on_drop", on_drop, &read.on_drop);
    found.free("source.server_id", server_id, &read.server_id);
}

fn of_warehouse(found: &mut Differences, running: &Warehouse, read: &Warehouse) {
    let Warehouse { url, options, retention_hours } = running;
    found.fixed("warehouse.url", url, &read.url);
    found.free("warehouse.retention_hours", retention_hours, &read.retention_hours);
    let names: BTreeSet<&String> = options.keys().chain(read.options.keys()).collect();
    for name in names {
        let (key, before, after) = (format!("warehouse.options.{name}"), options.get(name), read.options.get(name));
        if is_credential(name) { found.free(key, &before, &after) } else { found.fixed(key, &before, &after) }
    }
}

/// Whether an option of the object store says who we are. Any other may say that the tables lie elsewhere.
fn is_credential(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    let bare = name.strip_prefix("aws_").unwrap_or(&name);
    matches!(bare, "access_key_id" | "secret_access_key" | "session_token" | "token")
}

fn of_transport(found: &mut Differences, running: &Transport, read: &Transport) {
    let Transport { kind, brokers, partitions, options } = running;
    found.fixed("transport.kind", kind, &read.kind);
    // Settings of a kind that is not chosen say nothing.
    if read.kind == TransportKind::Kafka {
        found.fixed("transport.brokers", brokers, &read.brokers);
        found.fixed("transport.partitions", partitions, &read.partitions);
        found.free("transport.options", options, &read.options);
    }
}

fn of_trace(found: &mut Differences, running: &Trace, read: &Trace) {
    let Trace { kind, url, retention_days, password } = running;
    found.fixed("trace.kind", kind, &read.kind);
    found.free("trace.retention_days", retention_days, &read.retention_days);
    if read.kind == TraceKind::Clickhouse {
        let servers = (TraceServer::of(url).ok(), TraceServer::of(&read.url).ok());
        let place = |server: &Option<TraceServer>| server.clone().map(|server| (server.url, server.database));
        found.fixed("trace.url", &place(&servers.0), &place(&servers.1));
        let login = |server: Option<TraceServer>| server.map(|server| (server.user, server.password));
        found.free("the login of trace.url", &login(servers.0), &login(servers.1));
        found.free("trace.password", password, &read.password);
    }
}

fn of_apply(found: &mut Differences, running: &Apply, read: &Apply) {
    // What the folder comes to is compared as a whole, with its default.
    let Apply { commit_interval_ms, memory_max, index_memory_max, state_dir: _ } = running;
    found.free("apply.commit_interval_ms", commit_interval_ms, &read.commit_interval_ms);
    found.free("apply.memory_max", memory_max, &read.memory_max);
    found.free("apply.index_memory_max", index_memory_max, &read.index_memory_max);
}

/// A table that the lake has by now, and goes on having, is kept the way it is.
fn of_tables(found: &mut Differences, running: &Config, read: &Config, is_followed: impl Fn(&TableId) -> bool) {
    let (Ok(before), Ok(after)) = (running.patterns(), read.patterns()) else { return };
    let names: BTreeSet<&TableId> =
        running.tables.iter().chain(&read.tables).filter_map(|rule| rule.name.as_ref()).collect();
    let default = TableRule::default();
    let rule_in = |config: &Config, name: &TableId| {
        config.tables.iter().find(|rule| rule.name.as_ref() == Some(name)).unwrap_or(&default).clone()
    };
    for name in names {
        let goes_on = before.matches(name) && after.matches(name) && is_followed(name);
        let (running_rule, read_rule) = (rule_in(running, name), rule_in(read, name));
        let (Layout { mode, storage, deletes, partitions }, of_read) = (running_rule.layout(), read_rule.layout());
        let TableRule {
            name: _,
            mode: _,
            storage: _,
            deletes: _,
            partition_by: _,
            key,
            buckets,
            zero_dates,
            include_columns,
            exclude_columns,
            hash_columns,
            mask_columns,
            null_columns,
        } = &running_rule;
        let setting = |name_of: &str| format!("[[table]] {name}: {name_of}");
        found.free(setting("zero_dates"), zero_dates, &read_rule.zero_dates);
        // The table is loaded anew by them.
        found.free(setting("include_columns"), include_columns, &read_rule.include_columns);
        found.free(setting("exclude_columns"), exclude_columns, &read_rule.exclude_columns);
        found.free(setting("hash_columns"), hash_columns, &read_rule.hash_columns);
        found.free(setting("mask_columns"), mask_columns, &read_rule.mask_columns);
        found.free(setting("null_columns"), null_columns, &read_rule.null_columns);
        let mut kept = Differences::default();
        kept.fixed(setting("mode"), &mode, &of_read.mode);
        kept.fixed(setting("storage"), &storage, &of_read.storage);
        kept.fixed(setting("deletes"), &deletes, &of_read.deletes);
        kept.fixed(setting("partition_by"), &partitions, &of_read.partitions);
        kept.fixed(setting("key"), key, &read_rule.key);
        if read.transport.kind == TransportKind::Kafka {
            kept.fixed(setting("buckets"), buckets, &read_rule.buckets);
        }
        if goes_on { found.fixed.extend(kept.fixed) } else { found.free.extend(kept.fixed) }
    }
}

#[cfg(test)]
#[path = "reload_tests.rs"]
mod tests;
