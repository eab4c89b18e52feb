//! `weir reconcile --repair`: the keys that differ are read again by an ordinary backfill, and then looked at once more.

use std::collections::BTreeMap;
use std::sync::Arc;

use weir_model::{TableId, clock};

use super::jobs::Asking;
use crate::config::Config;
use crate::error::Error;
use crate::reconcile::deep::{
    DeepQuestion, DeepReport, Mending, Recheck, RepairReport, compare_tables, mending, still_different,
};
use crate::service;
use crate::state::jobs::{Ended, Job, JobId, JobOutcome};

/// Says in each report what would mend its table.
pub(super) fn plan(reports: &mut BTreeMap<TableId, DeepReport>) {
    for report in reports.values_mut() {
        report.repair = mending(report).as_ref().map(RepairReport::planned);
    }
}

/// Mends every table that differs, and says in its report how that ended. What cannot be mended by its keys, since the table
/// has stopped, is loaded anew.
pub(super) async fn repair(
    config: &Config,
    question: &Arc<DeepQuestion>,
    reports: &mut BTreeMap<TableId, DeepReport>,
) -> Result<(), Error> {
    let mut mendings: BTreeMap<TableId, Mending> = BTreeMap::new();
    for (table, report) in reports.iter() {
        mendings.extend(mending(report).map(|mending| (table.clone(), mending)));
    }
    let ended = carry_out(config, reports, &mendings).await?;
    let mut again = BTreeMap::new();
    for (table, (_, outcome)) in &ended {
        if outcome.ended == Ended::Failed && matches!(mendings[table], Mending::Keys(_)) {
            let why = "its keys alone could not be read again";
            tracing::warn!(%table, error = outcome.error.as_deref(), "loading the table anew");
            again.insert(table.clone(), Mending::Anew(why));
        }
    }
    let anew = carry_out(config, reports, &again).await?;
    mendings.extend(again);
    let ended: BTreeMap<_, _> = ended.into_iter().chain(anew).collect();
    for (table, mending) in &mendings {
        let mut repaired = RepairReport::planned(mending);
        if let Some((job, outcome)) = ended.get(table) {
            repaired.job = Some(job.to_string());
            match outcome.ended {
                Ended::Done => match left(question, table, mending).await? {
                    Ok(left) => repaired.left_count = Some(left),
                    Err(why) => {
                        repaired.error = Some(format!("it was done, but whether all is equal is not known: {why}"))
                    }
                },
                _ => repaired.error = Some(outcome.error.clone().unwrap_or_else(|| outcome.ended.name().into())),
            }
        }
        if let Some(report) = reports.get_mut(table) {
            report.repair = Some(repaired);
        }
    }
    Ok(())
}

/// Has the service do it, or does it here if none runs; how each job ended.
async fn carry_out(
    config: &Config,
    reports: &BTreeMap<TableId, DeepReport>,
    mendings: &BTreeMap<TableId, Mending>,
) -> Result<BTreeMap<TableId, (JobId, JobOutcome)>, Error> {
    if mendings.is_empty() {
        return Ok(BTreeMap::new());
    }
    let job = |(table, mending): (&TableId, &Mending)| {
        let keys =
            reports.get(table).map(|report| report.confirmed.iter().filter_map(|(_, key)| key.clone()).collect());
        Job::of_command(table, mending.work(keys.unwrap_or_default()), clock::now_ms())
    };
    let jobs: Vec<Job> = mendings.iter().map(job).collect();
    let mut asking = Asking::open(config)?;
    asking.request(&jobs).await?;
    let outcomes = asking.have_done(config, &jobs, service::is_running(config).await?).await?;
    let ended = jobs.into_iter().zip(outcomes).map(|(job, outcome)| (job.table, (job.id, outcome)));
    Ok(ended.collect())
}

/// Keys of a table that are not seen to be equal: of those that were read again, or of all of one that was loaded anew. Says
/// why if nobody can tell.
async fn left(question: &Arc<DeepQuestion>, table: &TableId, mending: &Mending) -> Result<Result<u64, String>, Error> {
    if let Mending::Keys(suspects) = mending {
        return Ok(still_different(question, &Recheck, table, suspects).await.map_err(|error| error.to_string()));
    }
    let tables = question.tables.iter().filter(|(other, _)| *other == table);
    let tables = tables.map(|(table, zero_dates)| (table.clone(), *zero_dates)).collect();
    let question = DeepQuestion { tables, sample_percent: None, ..question.as_ref().clone() };
    let compared = compare_tables(Arc::new(question), Arc::new(Recheck)).await?;
    let Some(report) = compared.get(table) else { return Ok(Err("it was not compared".into())) };
    if let Some(why) = &report.not_compared {
        return Ok(Err(why.clone()));
    }
    let unsettled = report.in_flight_count + report.unconfirmed_count;
    Ok(Ok(report.difference_count() + report.flaws.lost_files.len() as u64 + unsettled))
}
