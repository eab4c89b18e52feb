//! Everything in the text format of Prometheus (its "exposition formats", version 0.0.4).
//!
//! What stages count as it happens is gathered as it is; what the status tells is made into gauges here, anew at each look,
//! so that a table that is gone leaves none behind. docs/metrics.md has the list.

use std::collections::BTreeSet;

use prometheus::{Counter, GaugeVec, Opts, Registry, TextEncoder};

use weir_model::TableId;

use super::face::Shown;
use super::process::Usage;
use crate::figures::{counters, standing};

/// The content type of the text.
pub(super) const CONTENT_TYPE: &str = prometheus::TEXT_FORMAT;

/// All metrics; of the status only if there is one.
///
/// # Errors
/// Why they cannot be written.
pub(super) fn text(shown: Option<&Shown>, ready: bool) -> Result<String, String> {
    let gauges = Gauges::default();
    if let Some(shown) = shown {
        of_tables(&gauges, shown);
        of_service(&gauges, shown);
    }
    of_stages(&gauges);
    of_configuration(&gauges);
    of_process(&gauges);
    gauges.one("weir_ready", "1 while the service streams, as /readyz says", if ready { 1.0 } else { 0.0 });
    gauges.one(
        "weir_up_to_date",
        "1 if the figures of tables could be had for this answer",
        if shown.is_some() { 1.0 } else { 0.0 },
    );
    let mut families = counters().gather();
    families.extend(gauges.registry.gather());
    families.sort_by(|a, b| a.name().cmp(b.name()));
    TextEncoder::new().encode_to_string(&families).map_err(|error| error.to_string())
}

/// What is made for one answer.
#[derive(Default)]
struct Gauges {
    registry: Registry,
}

impl Gauges {
    /// A gauge with a value for each of `values`: those of the labels, and its own. Without values it is not shown.
    fn each<'a>(&self, name: &str, help: &str, labels: &[&str], values: impl Iterator<Item = (Vec<&'a str>, f64)>) {
        let gauge = GaugeVec::new(Opts::new(name, help), labels).expect("the name and the labels are valid");
        for (of, value) in values {
            gauge.with_label_values(&of).set(value);
        }
        self.registry.register(Box::new(gauge)).expect("no name stands twice");
    }

    fn total(&self, name: &str, help: &str, value: f64) {
        let counter = Counter::new(name, help).expect("the name is valid");
        counter.inc_by(value);
        self.registry.register(Box::new(counter)).expect("no name stands twice");
    }

    fn one(&self, name: &str, help: &str, value: f64) {
        self.each(name, help, &[], std::iter::once((Vec::new(), value)));
    }
}

const PHASES: [&str; 3] = ["filling", "streaming", "stopped"];

fn of_tables(gauges: &Gauges, shown: &Shown) {
    let tables: Vec<_> = shown.status.tables.iter().map(|table| (table.table.to_string(), table)).collect();
    let by_table = |name: &str, help: &str, of: &dyn Fn(&crate::service::status::TableStatus) -> Option<f64>| {
        let values = tables.iter().filter_map(|(name, table)| Some((vec![name.as_str()], of(table)?)));
        gauges.each(name, help, &["table"], values);
    };
    let number = |value: Option<u64>| value.map(|value| value as f64);
    by_table(
        "weir_table_lag_seconds",
        "How long the table has lacked a change that the source has, at most; 0 if it lacks none",
        &|table| table.lag_ms.map(|ms| ms as f64 / 1_000.0),
    );
    by_table(
        "weir_table_lag_transactions",
        "Transactions of the source that the table does not have, also those that concern other tables",
        &|table| number(table.lag_transactions),
    );
    by_table("weir_table_live_rows", "Rows of the lake table that are live", &|table| number(table.rows));
    by_table("weir_table_files", "Data files of the lake table's newest version", &|table| number(table.files));
    by_table("weir_table_bytes", "Bytes of those files", &|table| number(table.bytes));
    by_table("weir_table_version", "Newest version of the lake table", &|table| table.version.map(|v| v as f64));
    by_table("weir_table_load_chunks", "Chunks of the load under way; 0 if there is none", &|table| {
        Some(table.load.as_ref().map_or(0.0, |load| load.chunks as f64))
    });
    by_table("weir_table_load_chunks_done", "Chunks of the load under way that are in the table", &|table| {
        Some(table.load.as_ref().map_or(0.0, |load| load.chunks_done as f64))
    });
    by_table(
        "weir_table_load_rows",
        "Rows that the load under way is to read, by the source's own estimate",
        &|table| Some(table.load.as_ref().map_or(0.0, |load| load.rows_estimated as f64)),
    );
    by_table(
        "weir_verified_through_seconds",
        "Each key of the table was seen to be equal to the source's at this moment or later, in seconds since 1970",
        &|table| table.proof.as_ref()?.verified_through_ms.map(|ms| ms as f64 / 1_000.0),
    );
    by_table(
        "weir_table_unbalanced_events",
        "Half-events that were missing or too many when the service last compared the counts of all hops",
        &|table| table.proof.as_ref().map(|proof| proof.hops_unbalanced as f64),
    );
    let phases = tables.iter().flat_map(|(name, table)| {
        PHASES.map(|phase| (vec![name.as_str(), phase], if table.phase == phase { 1.0 } else { 0.0 }))
    });
    gauges.each("weir_table_phase", "1 for the phase that the table is in", &["table", "phase"], phases);
    let known: BTreeSet<&TableId> = shown.status.tables.iter().map(|table| &table.table).collect();
    let errors = standing().table_errors();
    let errors = errors.iter().filter(|(table, _)| known.contains(table));
    let errors: Vec<_> = errors.map(|(table, at_ms)| (table.to_string(), *at_ms as f64 / 1_000.0)).collect();
    gauges.each(
        "weir_table_last_error_timestamp_seconds",
        "When something last went wrong with the table since the process began, in seconds since 1970",
        &["table"],
        errors.iter().map(|(table, at)| (vec![table.as_str()], *at)),
    );
    let indexes = standing().written();
    let indexes = indexes.iter().filter(|(table, _)| known.contains(table));
    let indexes: Vec<_> = indexes.map(|(table, now)| (table.to_string(), now)).collect();
    gauges.each(
        "weir_table_index_bytes",
        "Bytes of the table's key index, in memory or in a file of the state folder",
        &["table", "home"],
        indexes.iter().map(|(table, now)| {
            (vec![table.as_str(), if now.index_on_disk { "disk" } else { "memory" }], now.index_bytes as f64)
        }),
    );
}

fn of_service(gauges: &Gauges, shown: &Shown) {
    gauges.one("weir_epoch", "Number of the incarnation; a greater one fences it", shown.status.epoch as f64);
    if let Some(transactions) = shown.status.position.count() {
        gauges.one(
            "weir_position_transactions",
            "Transactions that every table has which has not stopped",
            transactions as f64,
        );
    }
    gauges.one(
        "weir_prepared_transactions",
        "XA transactions whose rows wait for their outcome",
        shown.status.prepared.len() as f64,
    );
    let service = &shown.service;
    gauges.one(
        "weir_start_time_seconds",
        "When the process began, in seconds since 1970",
        service.started_ms as f64 / 1e3,
    );
    gauges.one("weir_uptime_seconds", "Age of the process", (service.at_ms - service.started_ms).max(0) as f64 / 1e3);
    gauges.each(
        "weir_build_info",
        "1, with the version, the source's name and what the process runs",
        &["version", "source", "role"],
        std::iter::once((vec![service.version, shown.status.source.as_str(), service.role], 1.0)),
    );
}

fn of_stages(gauges: &Gauges) {
    let standing = standing();
    let lost = standing.why_source_is_lost().is_some();
    gauges.one("weir_source_lost", "1 while the source cannot be read", if lost { 1.0 } else { 0.0 });
    gauges.one(
        "weir_publishes_outstanding",
        "Publishes that some table has not committed",
        standing.publishes_outstanding() as f64,
    );
    if let Some((held, max)) = standing.memory() {
        gauges.one("weir_memory_held_bytes", "Bytes of changes between capture and the tables", held as f64);
        gauges.one("weir_memory_max_bytes", "Bytes that those may be, as [apply] memory_max says", max as f64);
    }
}

fn of_configuration(gauges: &Gauges) {
    let config = standing().config();
    gauges.one(
        "weir_config_reload_failed",
        "1 while the service does not run by what its configuration file holds, which /status tells the reason of",
        if config.refused.is_some() { 1.0 } else { 0.0 },
    );
    gauges.one(
        "weir_config_since_timestamp_seconds",
        "When the service began to run by the configuration that it runs by, in seconds since 1970; 0 before it did",
        config.since_ms as f64 / 1_000.0,
    );
    gauges.total(
        "weir_config_reloads_total",
        "Times that the configuration was replaced since the process began",
        config.reloads as f64,
    );
}

fn of_process(gauges: &Gauges) {
    let Some(usage) = Usage::now() else { return };
    gauges.one("weir_process_resident_memory_bytes", "Resident memory of the process", usage.resident_bytes as f64);
    gauges.total(
        "weir_process_cpu_seconds_total",
        "Processor time that the process has used, of all its threads",
        usage.processor.as_secs_f64(),
    );
}
