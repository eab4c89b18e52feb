//! `weir init`: a commented configuration to begin with.

use std::io::Write;
use std::path::Path;

use clap::Args;
use weir_mysql::{SourceOptions, TablePatterns, catalogue};

use super::output::print;
use crate::error::{Error, Exit};
use crate::modes;

/// Writes a commented weir.toml; with `--url` it also looks at the server and lists its tables.
#[derive(Debug, Args)]
pub(super) struct Init {
    /// The source, as mysql://user@host:port. A password in it is used but not written.
    #[arg(long)]
    url: Option<String>,
    /// Replace a file that is there.
    #[arg(long)]
    force: bool,
}

/// What the file says where `--url` is not given.
const URL_EXAMPLE: &str = "mysql://weir@127.0.0.1:3306";

impl Init {
    pub(super) async fn run(self, file: &Path) -> Result<Exit, Error> {
        if file.exists() && !self.force {
            return Err(Error::config("the configuration exists already")
                .at(file.display().to_string())
                .way_out("give another --config FILE, or --force to replace it"));
        }
        let tables = match &self.url {
            Some(url) => list_tables(url).await?,
            None => Vec::new(),
        };
        let text = configuration(self.url.as_deref().map_or(URL_EXAMPLE.to_owned(), without_password), &tables);
        // Passwords may come to stand in it.
        modes::create_file(file).and_then(|mut made| made.write_all(text.as_bytes())).map_err(|error| {
            Error::failed("the configuration cannot be written").at(file.display().to_string()).because(error)
        })?;
        for table in &tables {
            print(table)?;
        }
        tracing::info!(file = %file.display(), tables = tables.len(), "written; `weir check` says what the source still needs");
        Ok(Exit::Done)
    }
}

async fn list_tables(url: &str) -> Result<Vec<String>, Error> {
    let password = std::env::var("WEIR_SOURCE_PASSWORD").ok();
    let mut connection = weir_mysql::connect(&SourceOptions::new(url).with_password(password)).await?;
    let everything = TablePatterns::new(&["*.*".to_owned()]).map_err(|error| Error::config(error.to_string()))?;
    let tables = catalogue::list_tables(&mut connection, &everything).await?;
    Ok(tables.into_iter().map(|table| table.to_string()).collect())
}

/// `url` without what stands between the user's name and the host.
fn without_password(url: &str) -> String {
    match url::Url::parse(url) {
        Ok(mut parsed) => {
            // A url that cannot have a password has none to remove.
            let _ = parsed.set_password(None);
            parsed.to_string()
        }
        Err(_) => URL_EXAMPLE.to_owned(),
    }
}

fn configuration(url: String, tables: &[String]) -> String {
    let mut databases: Vec<&str> = tables.iter().filter_map(|table| table.split('.').next()).collect();
    databases.dedup();
    let patterns: Vec<String> = match databases[..] {
        [] => vec!["\"shop.*\"".to_owned()],
        _ => databases.iter().map(|database| format!("\"{database}.*\"")).collect(),
    };
    format!(
        r#"# weir mirrors the tables of one MySQL server into Delta tables. `weir check` looks at both ends.

[source]
name = "{name}"                     # names the folder of weir's own state in the warehouse
url = "{url}"   # password: here, in WEIR_SOURCE_PASSWORD, or password_file = "…"
tables = [{patterns}]               # database.table; * matches, a leading ! leaves out; tables made later are picked up
# snapshot = "initial"              # never: stream only, without loading what is there
# max_connections = 4               # chunks of a load read at once
# rows_per_second_max = 0           # of all of them together; 0 is no cap
# pause_above_threads_running = 0   # no chunk begins while the source has more threads running

[warehouse]
url = "file:///var/lib/weir"        # a table is <url>/<database>/<table>; or s3://bucket/prefix
# options = {{ region = "eu-central-1" }}   # s3 only: endpoint, region, keys; those of the AWS_* variables count, too

[transport]
kind = "direct"                     # within this process; the binlog is the durable log. kafka: between machines
# brokers = "127.0.0.1:9092"        # kafka only
# partitions = 4                    # kafka only: buckets of each new table, fixed from then on

[trace]
kind = "sqlite"                     # counts of what passed, in <state_dir>/trace.sqlite; or "clickhouse"
# url = "http://weir@127.0.0.1:8123/weir"   # of ClickHouse; password in WEIR_TRACE_PASSWORD
# retention_days = 400              # sums of days that are older are removed; 0 keeps them for ever

[apply]
commit_interval_ms = 1000           # freshness against number of commits
memory_max = "256MiB"               # changes under way, batches and write buffers together
index_memory_max = "1GiB"           # key indexes: about 15 bytes a row; what is beyond lives in state_dir
state_dir = "/var/lib/weir/state"   # local, can be rebuilt

# [reconcile]
# hops_every = "1m"                 # a running service compares the counts of every hop
# deep_within = "24h"               # and every row with the source's within that time; off unless set

[http]
listen = "127.0.0.1:9187"           # /metrics, /healthz, /readyz, /status and a page at /; port 0: any free one, "off": nothing

# [[table]]                         # where a table differs
# name = "shop.orders"
# key = ["id"]                      # default: primary key, else a unique key over NOT NULL columns
# zero_dates = "null"               # error: stop the table instead
# partition_by = ["created_day = day(created_at)"]   # folders of the table's files; fixed once it is there

# [[backfill]]                      # rows that are read again and again beside the stream
# table = "shop.orders"
# cron = "0 3 * * *"                # minute, hour, day of month, month, day of week; in UTC
"#,
        name = databases.first().copied().unwrap_or("shop"),
        patterns = patterns.join(", "),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_never_reaches_the_file() {
        let url = without_password("mysql://weir:secret@db:3306");
        let text = configuration(url, &["shop.orders".into(), "shop.items".into()]);
        assert!(!text.contains("secret"), "{text}");
        assert!(text.contains("tables = [\"shop.*\"]"), "{text}");
    }
}
