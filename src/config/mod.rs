//! Settings as data: `weir.toml`, overridden by `WEIR_SECTION__KEY` variables, checked before anything starts.
//!
//! [`sections`] has the keys and their defaults, [`document`] turns text into them and knows on which line a key
//! stands, [`environment`] the variables, [`validate`] what contradicts, what a later version brings and what has no
//! effect yet, [`file`] where it all comes from and what a process runs by, [`reload`] what of it can change meanwhile.
//! Nothing here connects to anything.

mod document;
mod environment;
mod file;
pub mod reload;
mod secret;
mod sections;
mod span;
mod trace_server;
mod validate;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use weir_model::schema::escape_name;
use weir_model::{Layout, RowRules, TableId, ZeroDates};
use weir_mysql::{SourceOptions, TablePatterns};

use self::document::Document;
pub use self::file::{ConfigFile, Configured, Contents};
pub use self::secret::{Options, Secret, SecretUrl};
pub use self::sections::{
    Apply, Backfill, DdlPolicy, HTTP_OFF, Http, KeyBound, KeyPart, Reconcile, SnapshotMode, Source, TableRule, Trace,
    TraceKind, Transport, TransportKind, Warehouse,
};
pub use self::span::Span;
pub use self::trace_server::TraceServer;
use crate::error::Error;

/// The file that is read where no other is named.
pub const DEFAULT_FILE: &str = "weir.toml";

/// Everything that can be set.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    pub source: Source,
    pub warehouse: Warehouse,
    pub transport: Transport,
    pub trace: Trace,
    pub apply: Apply,
    pub reconcile: Reconcile,
    pub http: Http,
    #[serde(rename = "table")]
    pub tables: Vec<TableRule>,
    #[serde(rename = "backfill")]
    pub backfills: Vec<Backfill>,
}

/// What the service does differently for one table.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TableSettings {
    /// Columns of the record key; the source's own key where there are none.
    pub key: Option<Vec<String>>,
    pub zero_dates: ZeroDates,
    /// Buckets of its topic; the transport's own number where none is set.
    pub buckets: Option<u32>,
    /// How the lake keeps it.
    pub layout: Layout,
    /// What of its columns the lake gets.
    pub rules: RowRules,
}

impl Config {
    /// Reads `file`, then the variables of `environment`, and checks the whole. Paths in it are taken from the file's
    /// folder. The file may be missing if it `is_default` and variables say what to do.
    ///
    /// # Errors
    /// Of kind [`crate::error::Kind::Config`]: the key, the line or variable, and what is allowed.
    pub fn load(file: &Path, is_default: bool, environment: &BTreeMap<String, String>) -> Result<Self, Error> {
        let overrides = environment::overrides(environment);
        let text = match std::fs::read_to_string(file) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && is_default && !overrides.is_empty() => {
                String::new()
            }
            Err(error) => return Err(unreadable(file, error)),
        };
        let folder =
            std::path::absolute(file).ok().and_then(|file| file.parent().map(Path::to_owned)).unwrap_or_default();
        Self::parse(&file.display().to_string(), &text, &folder, environment)
    }

    /// [`Self::load`] of a text that stands in `folder` under `name`.
    pub fn parse(name: &str, text: &str, folder: &Path, environment: &BTreeMap<String, String>) -> Result<Self, Error> {
        let document = Document::parse(name, text)?;
        let overrides = environment::overrides(environment);
        let mut config = environment::apply(&document, &overrides)?;
        let located = |problem: validate::Problem| match overrides.iter().find(|o| o.key == problem.key) {
            Some(of_variable) => Error::config(problem.what).at(format!("variable {}", of_variable.variable)),
            None => document.error_at(&problem.key, problem.what),
        };
        config.validate().map_err(&located)?;
        config.resolve(folder, environment).map_err(&located)?;
        Ok(config)
    }

    /// How to reach the source, password included.
    pub fn source_options(&self) -> Result<SourceOptions, Error> {
        let password = self.source.password.as_ref().map(|password| password.expose().to_owned());
        Ok(SourceOptions::new(self.source.url.expose()).with_password(password))
    }

    /// How to reach the replica that chunks are read from, if there is one. Its password is the source's unless its url says
    /// another.
    pub fn snapshot_options(&self) -> Result<Option<SourceOptions>, Error> {
        let Some(url) = &self.source.snapshot_url else { return Ok(None) };
        let options = SourceOptions::new(url.expose());
        if url.has_password() {
            return Ok(Some(options));
        }
        let shared = self.source_options()?.opts()?.pass().map(str::to_owned);
        Ok(Some(options.with_password(shared)))
    }

    /// How to reach the server of the trace, password included.
    pub fn trace_server(&self) -> Result<TraceServer, Error> {
        let server = TraceServer::of(&self.trace.url)
            .map_err(|what| Error::config(format!("trace.url {what}")).at("trace.url"))?;
        let password = self.trace.password.clone().unwrap_or_else(|| server.password.clone());
        Ok(TraceServer { password, ..server })
    }

    /// Which tables are meant.
    pub fn patterns(&self) -> Result<TablePatterns, Error> {
        TablePatterns::new(&self.source.tables).map_err(|error| Error::config(error.to_string()).at("source.tables"))
    }

    /// The settings of `table`.
    pub fn table_settings(&self, table: &TableId) -> TableSettings {
        let rule = self.tables.iter().find(|rule| rule.name.as_ref() == Some(table));
        rule.map_or_else(TableSettings::default, |rule| TableSettings {
            key: rule.key.clone(),
            zero_dates: rule.zero_dates,
            buckets: rule.buckets,
            layout: rule.layout(),
            rules: rule.rules(self.source.hash_salt.as_ref()),
        })
    }

    /// The row rules of every table that has some.
    pub fn row_rules(&self) -> BTreeMap<TableId, RowRules> {
        let names = self.tables.iter().filter_map(|rule| rule.name.clone());
        let rules = names.map(|name| (name.clone(), self.table_settings(&name).rules));
        rules.filter(|(_, rules)| !rules.is_none()).collect()
    }

    /// What each `[[backfill]]` is called, in their order: its name, or `config-<database>-<table>-<n>` for the n-th of its
    /// table. It stays the same from start to start.
    pub fn backfill_ids(&self) -> Vec<String> {
        let mut counts: BTreeMap<&TableId, usize> = BTreeMap::new();
        let mut ids = Vec::with_capacity(self.backfills.len());
        for Backfill { name, table, .. } in &self.backfills {
            let of_table = table.as_ref().map(|table| {
                let count = counts.entry(table).or_default();
                *count += 1;
                format!("config-{}-{}-{count}", escape_name(&table.database), escape_name(&table.table))
            });
            ids.push(name.clone().or(of_table).unwrap_or_default());
        }
        ids
    }

    /// Where rebuildable state lies on this machine's disk. By default beside the tables if those are on it too, so
    /// that two sources or two warehouses never share it.
    pub fn state_dir(&self) -> PathBuf {
        match (&self.apply.state_dir, self.warehouse.local_folder()) {
            (Some(folder), _) => folder.clone(),
            (None, Some(warehouse)) => warehouse.join("_weir").join(&self.source.name).join("local"),
            (None, None) => Path::new(sections::STATE_DIR_DEFAULT).join(&self.source.name),
        }
    }

    /// The file of the embedded trace.
    pub fn trace_path(&self) -> PathBuf {
        self.state_dir().join("trace.sqlite")
    }
}

fn unreadable(file: &Path, error: std::io::Error) -> Error {
    let missing = error.kind() == std::io::ErrorKind::NotFound;
    let failed = Error::config("the configuration cannot be read").at(file.display().to_string()).because(error);
    if missing { failed.way_out("`weir init` writes one; `--config FILE` names another") } else { failed }
}

#[cfg(test)]
mod manual_tests;
#[cfg(test)]
mod tests;
