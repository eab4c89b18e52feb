//! `weir reconcile --repair`: the keys that differ are read again by an ordinary backfill, and then looked at once more.

use std::collections::BTreeMap;
use std::sync::Arc;

use weir_model::{Repair, RepairEnd, TableId, clock};

use super::jobs::Asking;
use crate::config::Config;
use crate::error::Error;
use crate::reconcile::accounts::Unbalanced;
use crate::reconcile::deep::{
    DeepQuestion, DeepReport, Mending, Recheck, RepairReport, compare_tables, mending, still_different,
};
use crate::reconcile::repairs;
use crate::service;
use crate::state::RepairStore;
use crate::state::jobs::{Ended, Job, JobId, JobOutcome};

/// Says in each report what would mend its table.
pub(super) fn plan(reports: &mut BTreeMap<TableId, DeepReport>) {
    for report in reports.values_mut() {
        report.repair = mending(report).as_ref().map(RepairReport::planned);
    }
}

/// Repairs whose work is done, and not yet told how they ended.
pub(super) struct Repairing {
    store: RepairStore,
    begun: Vec<Repair>,
    ended: BTreeMap<TableId, RepairReport>,
}

/// What does not add up, by table.
pub(super) type UnbalancedTables = BTreeMap<TableId, Vec<Unbalanced>>;

/// Mends every table that differs. What cannot be mended by its keys, since the table has stopped, is loaded anew.
///
/// Each repair is noted beside the tables before it is begun.
pub(super) async fn mend_all(
    config: &Config,
    question: &Arc<DeepQuestion>,
    reports: &BTreeMap<TableId, DeepReport>,
) -> Result<Repairing, Error> {
    let (store, state) = (question.warehouse.store().clone(), question.warehouse.state_path(&question.source));
    let store = RepairStore::new(store, state);
    let mut mendings: BTreeMap<TableId, Mending> = BTreeMap::new();
    for (table, report) in reports {
        mendings.extend(mending(report).map(|mending| (table.clone(), mending)));
    }
    let jobs = jobs(reports, &mendings);
    let mut begun = Vec::with_capacity(jobs.len());
    for job in &jobs {
        let plan = RepairReport::planned(&mendings[&job.table]);
        let (id, table) = (job.id.as_str(), &job.table);
        begun.push(repairs::begun(id, table, job.requested_ms, &reports[table], Some(&plan)));
    }
    for repair in &begun {
        store.begin(repair).await?;
    }
    match mend(config, question, reports, mendings, jobs).await {
        Ok(ended) => Ok(Repairing { store, begun, ended }),
        Err(error) => {
            let end = RepairEnd { at_ms: clock::now_ms(), error: Some(error.in_a_line()), ..RepairEnd::default() };
            for repair in &begun {
                store.end(&repair.id, &end).await?;
            }
            Err(error)
        }
    }
}

impl Repairing {
    /// Notes how each repair ended, and says it in the reports. One that saw every row to be equal makes up for what did not
    /// add up, as far as that is no more than it was `before` the rows were compared; so does the comparison itself of a table
    /// that needed no repair. Returns all of them.
    pub(super) async fn conclude(
        mut self,
        reports: &mut BTreeMap<TableId, DeepReport>,
        before: &UnbalancedTables,
        after: &UnbalancedTables,
    ) -> Result<Vec<Repair>, Error> {
        let settled = |table: &TableId| settled(before.get(table), after.get(table));
        for repair in &mut self.begun {
            let Some(repaired) = self.ended.remove(&repair.table) else { continue };
            let Some(report) = reports.get_mut(&repair.table) else { continue };
            let has_seen_all = report.has_seen_all() || repaired.anew.is_some();
            let end = repairs::ended(clock::now_ms(), &repaired, has_seen_all, &settled(&repair.table));
            self.store.end(&repair.id, &end).await?;
            *repair = repair.clone().ended(end);
            report.repair = Some(repaired);
        }
        for table in after.keys() {
            let Some(report) = reports.get(table).filter(|report| report.repair.is_none()) else { continue };
            let settled = settled(table);
            if settled.is_empty() || !report.has_seen_all() {
                continue;
            }
            let (id, now_ms) = (JobId::new(clock::now_ms()), clock::now_ms());
            let repair = repairs::begun(id.as_str(), table, now_ms, report, None);
            self.store.begin(&repair).await?;
            let end = repairs::ended(now_ms, &RepairReport::not_needed(), true, &settled);
            self.store.end(&repair.id, &end).await?;
            self.begun.push(repair.ended(end));
        }
        Ok(self.begun)
    }
}

/// What does not add up `after` and is no more than it was `before`: nothing was lost since.
fn settled(before: Option<&Vec<Unbalanced>>, after: Option<&Vec<Unbalanced>>) -> Vec<Unbalanced> {
    let (Some(before), Some(after)) = (before, after) else { return Vec::new() };
    let was_there = |now: &&Unbalanced| {
        let same = |then: &&Unbalanced| (then.between, then.start, then.op) == (now.between, now.start, now.op);
        before.iter().find(same).is_some_and(|then| then.count >= now.count)
    };
    after.iter().filter(was_there).cloned().collect()
}

/// Has `jobs` done, and loads anew what they could not mend; how that ended, by table.
async fn mend(
    config: &Config,
    question: &Arc<DeepQuestion>,
    reports: &BTreeMap<TableId, DeepReport>,
    mut mendings: BTreeMap<TableId, Mending>,
    jobs_of_all: Vec<Job>,
) -> Result<BTreeMap<TableId, RepairReport>, Error> {
    let ended = carry_out(config, jobs_of_all).await?;
    let mut again = BTreeMap::new();
    for (table, (_, outcome)) in &ended {
        if outcome.ended == Ended::Failed && matches!(mendings[table], Mending::Keys(_)) {
            let why = "its keys alone could not be read again";
            tracing::warn!(%table, error = outcome.error.as_deref(), "loading the table anew");
            again.insert(table.clone(), Mending::Anew(why));
        }
    }
    let anew = carry_out(config, jobs(reports, &again)).await?;
    mendings.extend(again);
    let ended: BTreeMap<_, _> = ended.into_iter().chain(anew).collect();
    let mut repaired = BTreeMap::new();
    for (table, (job, outcome)) in ended {
        let mending = &mendings[&table];
        let mut report = RepairReport { job: Some(job.to_string()), ..RepairReport::planned(mending) };
        match outcome.ended {
            Ended::Done => match left(question, &table, mending).await? {
                Ok(left) => report.left_count = Some(left),
                Err(why) => report.error = Some(format!("it was done, but whether all is equal is not known: {why}")),
            },
            _ => report.error = Some(outcome.error.unwrap_or_else(|| outcome.ended.name().into())),
        }
        repaired.insert(table, report);
    }
    Ok(repaired)
}

/// The jobs that mend, each with an id of its own.
fn jobs(reports: &BTreeMap<TableId, DeepReport>, mendings: &BTreeMap<TableId, Mending>) -> Vec<Job> {
    let job = |(table, mending): (&TableId, &Mending)| {
        let keys =
            reports.get(table).map(|report| report.confirmed.iter().filter_map(|(_, key)| key.clone()).collect());
        Job::of_command(table, mending.work(keys.unwrap_or_default()), clock::now_ms())
    };
    mendings.iter().map(job).collect()
}

/// Has the service do it, or does it here if none runs; how each job ended.
async fn carry_out(config: &Config, jobs: Vec<Job>) -> Result<BTreeMap<TableId, (JobId, JobOutcome)>, Error> {
    if jobs.is_empty() {
        return Ok(BTreeMap::new());
    }
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

#[cfg(test)]
mod tests {
    use weir_model::{Digest, Op, Window};

    use super::*;

    #[test]
    fn what_grew_since_the_rows_were_compared_is_not_made_up_for() {
        let unbalanced = |minute: i64, count| Unbalanced {
            between: ["published", "consumed"],
            window: String::new(),
            op: Op::Update,
            count,
            start: Window(minute * 60_000),
            gap: Digest(count.into()),
        };
        let before = vec![unbalanced(0, 3), unbalanced(1, 1), unbalanced(2, 1)];
        let after = vec![unbalanced(0, 2), unbalanced(1, 2), unbalanced(3, 1)];
        assert_eq!(settled(Some(&before), Some(&after)), [unbalanced(0, 2)]);
        assert_eq!(settled(None, Some(&after)), []);
    }
}
