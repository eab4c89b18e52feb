//! `weir backfill`: rows of a table read again beside the live stream, as a job for the service.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use serde_json::Value;
use snapshot_loader::key_text::{Extent, key_of_json, key_of_text};
use weir_model::{TableId, clock};
use weir_mysql::TableDescription;

use super::jobs::{Asking, JobView, conclude, listed};
use super::output::{Output, print};
use super::snapshot::{mirrored, table_id};
use crate::config::Config;
use crate::error::{Error, Exit};
use crate::limits::BACKFILL_KEYS_MAX;
use crate::service;
use crate::state::jobs::{Bound, Ended, Job, JobId, JobOutcome, JobStore, Scope, Work};

/// Reads rows of a table again beside the live stream: all, a range of keys, or some keys. A running service does it, or this
/// command if none runs.
///
/// A key is written as the value of the first key column, as a JSON array, or as a JSON object of key columns; binary in
/// hexadecimal digits. A text column takes what is given as it stands.
#[derive(Debug, Args)]
#[command(subcommand_negates_reqs = true)]
pub(super) struct Backfill {
    #[command(subcommand)]
    action: Option<Action>,
    #[command(flatten)]
    ask: Ask,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Lists what was asked for, and how far it is.
    List {
        #[command(flatten)]
        output: Output,
    },
    /// Ends a job that is under way, or keeps one that waits from beginning.
    Cancel {
        /// As `weir backfill list` shows it.
        #[arg(value_parser = job_id)]
        id: JobId,
    },
}

#[derive(Debug, Args)]
struct Ask {
    /// The table, as database.table.
    #[arg(long, value_name = "TABLE", value_parser = table_id, required = true)]
    table: Option<TableId>,
    #[command(flatten)]
    range: RangeArgs,
    /// A key to read again; may be given again.
    #[arg(long = "key", value_name = "KEY", allow_hyphen_values = true, conflicts_with_all = ["from", "to"])]
    keys: Vec<String>,
    /// A file of keys to read again, each a line of JSON.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["from", "to"])]
    keys_file: Option<PathBuf>,
    /// End once the job has: exit 0 if it is done. Without a running service it is always waited for.
    #[arg(long)]
    wait: bool,
    #[command(flatten)]
    output: Output,
}

/// `--from` and `--to` of a backfill and of a schedule.
#[derive(Debug, Args)]
pub(super) struct RangeArgs {
    /// The first key of the range; from the first of the table if not given.
    #[arg(long, value_name = "KEY", allow_hyphen_values = true)]
    from: Option<String>,
    /// The last key of the range, which is part of it; to the last of the table if not given.
    #[arg(long, value_name = "KEY", allow_hyphen_values = true)]
    to: Option<String>,
}

impl RangeArgs {
    /// The rows that are meant, all if no end is given.
    pub(super) fn scope(&self, table: &TableDescription) -> Result<Scope, Error> {
        let bound = |name: &str, text: &Option<String>| {
            let read = |text: &String| {
                let key = key_of_text(table, text, Extent::Prefix);
                key.map(Bound).map_err(|error| Error::config(error.to_string()).at(name.to_owned()))
            };
            text.as_ref().map(read).transpose()
        };
        Ok(match (bound("--from", &self.from)?, bound("--to", &self.to)?) {
            (None, None) => Scope::All,
            (from, to) => Scope::Range { from, to },
        })
    }
}

fn job_id(text: &str) -> Result<JobId, String> {
    JobId::try_from(text.to_owned())
}

impl Backfill {
    pub(super) async fn run(self, config: &Config) -> Result<Exit, Error> {
        match (self.action, self.ask.table) {
            (Some(_), Some(_)) => {
                Err(Error::config("--table belongs to a backfill that is asked for, not to list or cancel"))
            }
            (Some(Action::List { output }), None) => list(config, output).await,
            (Some(Action::Cancel { id }), None) => cancel(config, &id).await,
            (None, Some(ref table)) => {
                let description = mirrored(config, table).await?;
                let scope = match (&self.ask.keys[..], &self.ask.keys_file) {
                    ([], None) => self.ask.range.scope(&description)?,
                    (keys, file) => keys_scope(&description, keys, file.as_deref())?,
                };
                let job = Job::of_command(table, Work::Backfill(scope), clock::now_ms());
                hand_over(config, &job, self.ask.wait, self.ask.output).await
            }
            (None, None) => Err(Error::config("--table must be given")),
        }
    }
}

/// Asks for `job` and prints its id; waits for it if `wait`, or if no service runs and it is carried out here.
pub(super) async fn hand_over(config: &Config, job: &Job, wait: bool, output: Output) -> Result<Exit, Error> {
    let mut asking = Asking::open(config)?;
    asking.request(std::slice::from_ref(job)).await?;
    // A program gets the whole of it at the end, a person the id at once.
    if !output.is_json() {
        print(job.id.as_str())?;
    }
    let is_running = service::is_running(config).await?;
    let ended = match is_running && !wait {
        true => Ok(None),
        false => {
            let outcomes = asking.have_done(config, std::slice::from_ref(job), is_running).await;
            outcomes.map(|outcomes| outcomes.into_iter().next())
        }
    };
    if output.is_json() {
        let entry = asking.jobs.find(&job.id).await?;
        output.print(&entry.as_ref().map(JobView::of), |_| String::new())?;
    }
    match ended? {
        Some(outcome) => conclude(job, &outcome),
        None => Ok(Exit::Done),
    }
}

async fn list(config: &Config, output: Output) -> Result<Exit, Error> {
    let jobs = Asking::open(config)?.jobs.list().await?;
    let views: Vec<JobView<'_>> = jobs.iter().map(JobView::of).collect();
    output.print(&views, |views| listed(views))?;
    Ok(Exit::Done)
}

async fn cancel(config: &Config, id: &JobId) -> Result<Exit, Error> {
    let jobs = Asking::open(config)?.jobs;
    let unknown =
        || Error::config(format!("there is no job {id}")).way_out("`weir backfill list` shows those there are");
    let entry = jobs.find(id).await?.ok_or_else(unknown)?;
    if let Some(outcome) = entry.outcome {
        let ended = outcome.ended.name();
        return Err(Error::failed(format!("job {id} has ended already: {ended}")));
    }
    jobs.cancel(id).await?;
    if service::is_running(config).await? {
        tracing::info!(job = %id, "the service ends it; what it has merged so far stays");
    } else if entry.progress.is_some() {
        tracing::info!(job = %id, "it was under way; the service ends it when it runs again");
    } else {
        end_cancelled(&jobs, id).await?;
    }
    Ok(Exit::Done)
}

/// No service is there to end it.
async fn end_cancelled(jobs: &JobStore, id: &JobId) -> Result<(), Error> {
    let outcome = JobOutcome::without_work(Ended::Cancelled, None, clock::now_ms());
    jobs.end(id, &outcome).await?;
    tracing::info!(job = %id, "cancelled");
    Ok(())
}

/// The keys of the command line and of a file. Errors name the option, or the line, and never the key.
fn keys_scope(table: &TableDescription, keys: &[String], file: Option<&Path>) -> Result<Scope, Error> {
    let mut bounds = Vec::new();
    for text in keys {
        let key = key_of_text(table, text, Extent::Whole);
        bounds.push(Bound(key.map_err(|error| Error::config(error.to_string()).at("--key"))?));
    }
    if let Some(file) = file {
        let unreadable = |error| Error::config("the keys cannot be read").at(file.display().to_string()).because(error);
        let text = std::fs::read_to_string(file).map_err(unreadable)?;
        for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
            let place = || format!("{}, line {}", file.display(), number + 1);
            // An error of the parser may quote what it read.
            let json: Value = serde_json::from_str(line).map_err(|_| Error::config("not JSON").at(place()))?;
            let key = key_of_json(table, &json, Extent::Whole);
            bounds.push(Bound(key.map_err(|error| Error::config(error.to_string()).at(place()))?));
        }
    }
    if bounds.is_empty() {
        return Err(Error::config("the file holds no keys").at("--keys-file"));
    }
    if bounds.len() > BACKFILL_KEYS_MAX {
        return Err(Error::config(format!(
            "{} keys are more than a backfill takes, {BACKFILL_KEYS_MAX}",
            bounds.len()
        ))
        .at("--keys-file")
        .way_out("give several files one after the other, or a range that holds the keys"));
    }
    Ok(Scope::Keys(bounds))
}

#[cfg(test)]
mod tests;
