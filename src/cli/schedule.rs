//! `weir schedule`: backfills that the service asks for again and again.

use clap::{Args, Subcommand};
use serde::Serialize;
use weir_model::{Cron, Minute, TableId, clock};

use super::backfill::{RangeArgs, hand_over};
use super::jobs::{Asking, at};
use super::output::{Output, print, table};
use super::snapshot::{mirrored, table_id};
use crate::config::Config;
use crate::error::{Error, Exit};
use crate::service::schedule::{configured, job_of};
use crate::state::Put;
use crate::state::jobs::{JobEntry, JobId, Origin, Work};
use crate::state::schedules::{Looked, Schedule, ScheduleId};

/// Backfills at times of a cron expression, in UTC; those of the configuration are listed, too.
#[derive(Debug, Subcommand)]
pub(super) enum ScheduleCommand {
    /// Lists them: when they run next, how the last run ended, and which were missed.
    List {
        #[command(flatten)]
        output: Output,
    },
    /// Adds one, and prints its id.
    Add(Add),
    /// Removes one that was added. Jobs that it asked for are not cancelled.
    Remove {
        /// As `weir schedule list` shows it.
        #[arg(value_parser = schedule_id)]
        id: ScheduleId,
    },
    /// Asks for a run of it now.
    Run {
        /// As `weir schedule list` shows it.
        #[arg(value_parser = schedule_id)]
        id: ScheduleId,
        /// End once the job has: exit 0 if it is done. Without a running service it is always waited for.
        #[arg(long)]
        wait: bool,
        #[command(flatten)]
        output: Output,
    },
}

#[derive(Debug, Args)]
pub(super) struct Add {
    /// The table, as database.table.
    #[arg(long, value_name = "TABLE", value_parser = table_id)]
    table: TableId,
    /// Minute, hour, day of month, month and day of week, in UTC: "0 3 * * *" is every day at 3.
    #[arg(long, value_name = "CRON")]
    cron: Cron,
    #[command(flatten)]
    range: RangeArgs,
}

fn schedule_id(text: &str) -> Result<ScheduleId, String> {
    ScheduleId::try_from(text.to_owned())
}

impl ScheduleCommand {
    pub(super) async fn run(self, config: &Config) -> Result<Exit, Error> {
        match self {
            Self::List { output } => list(config, output).await,
            Self::Add(add) => add.run(config).await,
            Self::Remove { id } => remove(config, &id).await,
            Self::Run { id, wait, output } => {
                let known = all(config, &Asking::open(config)?).await?;
                let (schedule, _) = known.into_iter().find(|(s, _)| s.id == id).ok_or_else(|| unknown(&id))?;
                let now_ms = clock::now_ms();
                hand_over(config, &job_of(&schedule, JobId::new(now_ms), now_ms), wait, output).await
            }
        }
    }
}

impl Add {
    async fn run(self, config: &Config) -> Result<Exit, Error> {
        let description = mirrored(config, &self.table).await?;
        let schedule = Schedule {
            id: ScheduleId::draw(&self.table),
            scope: self.range.scope(&description)?,
            table: self.table,
            cron: self.cron,
            added_ms: clock::now_ms(),
        };
        if Asking::open(config)?.schedules.add(&schedule).await? == Put::Taken {
            return Err(Error::failed(format!("there is another schedule {}; try again", schedule.id)));
        }
        if let Some(next) = schedule.cron.next_after(Minute::of(schedule.added_ms)) {
            tracing::info!(schedule = %schedule.id, "added; the service runs it next at {next}");
        }
        print(schedule.id.as_str())?;
        Ok(Exit::Done)
    }
}

async fn remove(config: &Config, id: &ScheduleId) -> Result<Exit, Error> {
    if Asking::open(config)?.schedules.remove(id).await? {
        return Ok(Exit::Done);
    }
    if configured(config)?.iter().any(|schedule| schedule.id == *id) {
        return Err(Error::config(format!("schedule {id} stands in the configuration"))
            .way_out("remove its [[backfill]] section and start the service again"));
    }
    Err(unknown(id))
}

fn unknown(id: &ScheduleId) -> Error {
    Error::config(format!("there is no schedule {id}")).way_out("`weir schedule list` shows those there are")
}

/// Where a schedule stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Place {
    Configuration,
    Command,
}

/// Those of the configuration, then those of commands.
async fn all(config: &Config, asking: &Asking) -> Result<Vec<(Schedule, Place)>, Error> {
    let configured = configured(config)?.into_iter().map(|schedule| (schedule, Place::Configuration));
    let added = asking.schedules.list().await?.into_iter().map(|schedule| (schedule, Place::Command));
    Ok(configured.chain(added).collect())
}

/// A schedule as lists show it.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct View {
    id: ScheduleId,
    table: TableId,
    cron: Cron,
    /// The rows in a few words.
    scope: String,
    place: Place,
    /// UTC.
    next_at: Option<String>,
    last: Option<LastRun>,
    missed: Option<MissedRuns>,
}

#[derive(Debug, PartialEq, Eq, Serialize)]
struct LastRun {
    job: JobId,
    state: &'static str,
    requested_at: String,
}

/// Runs since the last whose minute passed while no service ran.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct MissedRuns {
    count: u64,
    last_at: String,
}

async fn list(config: &Config, output: Output) -> Result<Exit, Error> {
    let asking = Asking::open(config)?;
    let jobs = asking.jobs.list().await?;
    let looked = asking.schedules.looked().await?.unwrap_or_default();
    let now_ms = clock::now_ms();
    let schedules = all(config, &asking).await?;
    let views: Vec<View> = schedules.into_iter().map(|(s, place)| view(s, place, &jobs, &looked, now_ms)).collect();
    output.print(&views, |views| listed(views))?;
    Ok(Exit::Done)
}

fn view(schedule: Schedule, place: Place, jobs: &[JobEntry], looked: &Looked, now_ms: i64) -> View {
    let is_run = |entry: &&JobEntry| matches!(&entry.job.origin, Origin::Schedule { id } if *id == schedule.id);
    let last = jobs.iter().filter(is_run).max_by_key(|entry| entry.job.requested_ms);
    let seen = looked.schedules.get(&schedule.id).filter(|seen| seen.cron == schedule.cron);
    // A run by hand has made up for those before it.
    let made_up_ms = last.map_or(i64::MIN, |entry| entry.job.requested_ms);
    let missed = seen.and_then(|seen| seen.missed).filter(|missed| missed.last.ms() > made_up_ms);
    View {
        next_at: schedule.cron.next_after(Minute::of(now_ms)).map(|next| next.to_string()),
        last: last.map(|entry| LastRun {
            job: entry.job.id.clone(),
            state: entry.state_name(),
            requested_at: at(entry.job.requested_ms),
        }),
        missed: missed.map(|missed| MissedRuns { count: missed.count, last_at: missed.last.to_string() }),
        scope: Work::Backfill(schedule.scope).to_string(),
        id: schedule.id,
        table: schedule.table,
        cron: schedule.cron,
        place,
    }
}

fn listed(views: &[View]) -> String {
    let rows = views.iter().map(|view| {
        vec![
            view.id.to_string(),
            view.table.to_string(),
            view.cron.to_string(),
            view.scope.clone(),
            match view.place {
                Place::Configuration => "configuration".into(),
                Place::Command => "command".into(),
            },
            view.next_at.clone().unwrap_or_else(|| "-".into()),
            view.last.as_ref().map_or_else(|| "-".into(), |last| format!("{} {}", last.state, last.requested_at)),
        ]
    });
    let mut text = table(&["id", "table", "cron (UTC)", "scope", "from", "next", "last run"], rows);
    for (view, missed) in views.iter().filter_map(|view| view.missed.as_ref().map(|missed| (view, missed))) {
        text.push_str(&format!(
            "\n{}: {} run(s) missed, the last of {}, while no service ran; `weir schedule run {}` makes up for them",
            view.id, missed.count, missed.last_at, view.id
        ));
    }
    text
}

#[cfg(test)]
mod tests;
