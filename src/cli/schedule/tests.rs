//! What the command line takes, and what lists say of missed runs.

use clap::Parser;
use weir_model::clock;

use super::*;
use crate::cli::{Cli, Command};
use crate::state::jobs::{Ended, JobOutcome, Scope};
use crate::state::schedules::{Missed, Seen};

fn parsed(arguments: &[&str]) -> Result<ScheduleCommand, String> {
    let all = ["weir", "schedule"].iter().chain(arguments);
    let cli = Cli::try_parse_from(all).map_err(|error| error.to_string())?;
    match cli.command {
        Command::Schedule(schedule) => Ok(schedule),
        other => Err(format!("{other:?}")),
    }
}

fn nightly() -> Schedule {
    Schedule {
        id: ScheduleId::try_from("nightly".to_owned()).unwrap(),
        table: TableId::new("shop", "orders"),
        cron: "0 3 * * *".parse().unwrap(),
        scope: Scope::All,
        added_ms: 0,
    }
}

fn missed_at(last_ms: i64) -> Looked {
    let missed = Some(Missed { count: 2, last: Minute::of(last_ms) });
    let seen = Seen { cron: nightly().cron, since_ms: 0, missed };
    Looked { looked_ms: last_ms, schedules: [(nightly().id, seen)].into() }
}

fn run_at(requested_ms: i64) -> JobEntry {
    let job = job_of(&nightly(), JobId::new(requested_ms), requested_ms);
    let outcome = Some(JobOutcome::without_work(Ended::Done, None, requested_ms));
    JobEntry { job, progress: None, outcome, cancelled: false }
}

#[test]
fn schedules_are_added_removed_run_and_listed() {
    let add = ["add", "--table", "shop.orders", "--cron", "0 3 * * *", "--from", "-5"];
    assert!(matches!(parsed(&add), Ok(ScheduleCommand::Add(add)) if add.cron == nightly().cron));
    assert!(matches!(parsed(&["remove", "nightly"]), Ok(ScheduleCommand::Remove { .. })));
    assert!(matches!(parsed(&["run", "nightly", "--wait"]), Ok(ScheduleCommand::Run { wait: true, .. })));
    assert!(matches!(parsed(&["list"]), Ok(ScheduleCommand::List { .. })));
    for (arguments, said) in [
        (&["add", "--table", "shop.orders"][..], "--cron"),
        (&["add", "--cron", "0 3 * * *"], "--table"),
        (&["add", "--table", "shop.orders", "--cron", "daily"], "'--cron <CRON>': must have five fields"),
        (&["add", "--table", "shop.orders", "--cron", "0 25 * * *"], "UTC"),
        (&["remove", "a/b"], "no id of a schedule"),
    ] {
        let error = parsed(arguments).expect_err("it is refused");
        assert!(error.contains(said), "{arguments:?}: {error}");
    }
}

#[test]
fn missed_runs_are_listed_until_a_later_run() {
    let now_ms = clock::now_ms();
    let looked = missed_at(now_ms - 1_000_000);
    let before = view(nightly(), Place::Command, &[run_at(now_ms - 9_000_000)], &looked, now_ms);
    assert_eq!(before.missed.as_ref().map(|missed| missed.count), Some(2));
    let shown = listed(&[before]);
    assert!(shown.contains("2 run(s) missed") && shown.contains("weir schedule run nightly"), "{shown}");
    let after = view(nightly(), Place::Command, &[run_at(now_ms - 9_000_000), run_at(now_ms)], &looked, now_ms);
    assert_eq!((after.missed, after.last.map(|last| last.state)), (None, Some("done")));
    // What was seen of another expression is not about this one.
    let other = Schedule { cron: "0 4 * * *".parse().unwrap(), ..nightly() };
    assert_eq!(view(other, Place::Configuration, &[], &looked, now_ms).missed, None);
}
