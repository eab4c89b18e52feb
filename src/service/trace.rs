//! The trace that the configuration asks for, whichever kind it is.

use std::collections::BTreeMap;

use weir_model::{Repair, TableId, Window};

use crate::config::{Config, TraceKind, TraceServer};
use crate::error::Error;
use crate::trace::clickhouse::{ClickHouseTrace, Server};
use crate::trace::sqlite::SqliteTrace;
use crate::trace::{AddsUp, Origin, Shipment, StageCount, TraceError, TraceSink};

/// One of the kinds of trace.
#[derive(Clone)]
pub enum ConfiguredTrace {
    Sqlite(SqliteTrace),
    ClickHouse(ClickHouseTrace),
}

/// Opens the trace; one on a server is connected to when it is first asked for something.
///
/// # Errors
/// When the file of an embedded trace cannot be used.
pub fn open_trace(config: &Config) -> Result<ConfiguredTrace, Error> {
    match config.trace.kind {
        TraceKind::Sqlite => Ok(ConfiguredTrace::Sqlite(SqliteTrace::open(&config.trace_path())?)),
        TraceKind::Clickhouse => {
            let TraceServer { url, user, password, database } = config.trace_server()?;
            let password = password.expose().to_owned();
            Ok(ConfiguredTrace::ClickHouse(ClickHouseTrace::new(Server { url, user, password, database })))
        }
    }
}

/// Whether the trace can be used, and where it is.
///
/// # Errors
/// When it cannot.
pub async fn probe_trace(config: &Config) -> Result<String, Error> {
    match open_trace(config)? {
        ConfiguredTrace::Sqlite(_) => Ok(format!("{} can be written", config.trace_path().display())),
        ConfiguredTrace::ClickHouse(trace) => {
            let version = trace.server_version().await?;
            Ok(format!("{} can be written (ClickHouse {version})", trace.place()))
        }
    }
}

impl TraceSink for ConfiguredTrace {
    async fn ship(&self, source: &str, shipments: &[Shipment]) -> Result<(), TraceError> {
        match self {
            Self::Sqlite(trace) => trace.ship(source, shipments).await,
            Self::ClickHouse(trace) => trace.ship(source, shipments).await,
        }
    }

    async fn shipped_version(&self, source: &str, origin: &Origin) -> Result<Option<i64>, TraceError> {
        match self {
            Self::Sqlite(trace) => trace.shipped_version(source, origin).await,
            Self::ClickHouse(trace) => trace.shipped_version(source, origin).await,
        }
    }

    async fn shipped_versions(&self, source: &str) -> Result<BTreeMap<Origin, i64>, TraceError> {
        match self {
            Self::Sqlite(trace) => trace.shipped_versions(source).await,
            Self::ClickHouse(trace) => trace.shipped_versions(source).await,
        }
    }

    async fn totals(
        &self,
        source: &str,
        tables: &[TableId],
        since: Option<Window>,
    ) -> Result<BTreeMap<TableId, Vec<StageCount>>, TraceError> {
        match self {
            Self::Sqlite(trace) => trace.totals(source, tables, since).await,
            Self::ClickHouse(trace) => trace.totals(source, tables, since).await,
        }
    }

    async fn fold(&self, source: &str, before: Window, adds_up: AddsUp) -> Result<u64, TraceError> {
        match self {
            Self::Sqlite(trace) => trace.fold(source, before, adds_up).await,
            Self::ClickHouse(trace) => trace.fold(source, before, adds_up).await,
        }
    }

    async fn expire(&self, source: &str, before: Window) -> Result<(), TraceError> {
        match self {
            Self::Sqlite(trace) => trace.expire(source, before).await,
            Self::ClickHouse(trace) => trace.expire(source, before).await,
        }
    }

    async fn forget(&self, source: &str, table: &TableId) -> Result<(), TraceError> {
        match self {
            Self::Sqlite(trace) => trace.forget(source, table).await,
            Self::ClickHouse(trace) => trace.forget(source, table).await,
        }
    }
    async fn note_repairs(&self, source: &str, repairs: &[Repair]) -> Result<(), TraceError> {
        match self {
            Self::Sqlite(trace) => trace.note_repairs(source, repairs).await,
            Self::ClickHouse(trace) => trace.note_repairs(source, repairs).await,
        }
    }

    async fn noted_repairs(&self, source: &str) -> Result<BTreeMap<String, bool>, TraceError> {
        match self {
            Self::Sqlite(trace) => trace.noted_repairs(source).await,
            Self::ClickHouse(trace) => trace.noted_repairs(source).await,
        }
    }

    async fn repairs(&self, source: &str, max: usize) -> Result<Vec<Repair>, TraceError> {
        match self {
            Self::Sqlite(trace) => trace.repairs(source, max).await,
            Self::ClickHouse(trace) => trace.repairs(source, max).await,
        }
    }
}
