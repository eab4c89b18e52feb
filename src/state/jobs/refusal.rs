//! Whether a job is worth beginning beside those that are under way.

use super::{Bound, Job, JobEntry, Scope, Work};

/// Why `job` is refused: one that does the same, or part of it, or more, is under way. Names that one and the way out.
///
/// Two jobs overlap surely if either takes in the other. Ends of ranges are compared for equality only, since their order is
/// the server's; so ranges that overlap in part, and keys that lie in a range, are let through. They do no harm: a load that
/// is made twice gives the same rows.
pub fn refusal(job: &Job, others: &[JobEntry]) -> Option<String> {
    let unfinished = |other: &&JobEntry| other.outcome.is_none() && other.job.id != job.id;
    let same_table = others.iter().filter(unfinished).filter(|other| other.job.table == job.table);
    let overlapping = same_table.into_iter().find(|other| overlaps(&job.work, &other.job.work))?;
    let other = &overlapping.job;
    Some(format!(
        "job {} of {} is under way and does the same, or part of it, or more; wait for it, or `weir backfill cancel {}`",
        other.id, other.table, other.id
    ))
}

fn overlaps(one: &Work, other: &Work) -> bool {
    match (rows_of(one), rows_of(other)) {
        (Some(one), Some(other)) => covers(&one, &other) || covers(&other, &one),
        // Nobody knows what it does.
        _ => false,
    }
}

/// The rows that are read.
enum Rows<'a> {
    Between(Option<&'a Bound>, Option<&'a Bound>),
    Keys(&'a [Bound]),
}

fn rows_of(work: &Work) -> Option<Rows<'_>> {
    match work {
        Work::Snapshot | Work::Backfill(Scope::All) => Some(Rows::Between(None, None)),
        Work::Backfill(Scope::Range { from, to }) => Some(Rows::Between(from.as_ref(), to.as_ref())),
        Work::Backfill(Scope::Keys(keys)) => Some(Rows::Keys(keys)),
        Work::Newer(_) => None,
    }
}

fn covers(one: &Rows<'_>, other: &Rows<'_>) -> bool {
    match (one, other) {
        (Rows::Between(None, None), _) => true,
        (Rows::Between(from, to), Rows::Between(other_from, other_to)) => {
            (from.is_none() || from == other_from) && (to.is_none() || to == other_to)
        }
        (Rows::Keys(keys), Rows::Keys(others)) => others.iter().all(|key| keys.contains(key)),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use weir_model::TableId;

    use super::super::{Ended, JobId, JobOutcome, Origin};
    use super::*;

    fn job(id: &str, table: &str, work: Work) -> Job {
        let id = JobId::try_from(id.to_owned()).unwrap();
        Job { id, table: TableId::new("shop", table), work, origin: Origin::Command, requested_ms: 0 }
    }

    fn under_way(work: Work) -> JobEntry {
        JobEntry { job: job("old", "orders", work), progress: None, outcome: None, cancelled: false }
    }

    fn range(from: Option<i64>, to: Option<i64>) -> Work {
        let bound = |value: i64| Bound(vec![json!(value)]);
        Work::Backfill(Scope::Range { from: from.map(bound), to: to.map(bound) })
    }

    fn keys(keys: &[i64]) -> Work {
        Work::Backfill(Scope::Keys(keys.iter().map(|key| Bound(vec![json!(key)])).collect()))
    }

    #[test]
    fn what_surely_overlaps_is_refused_whichever_came_first() {
        let all = || Work::Backfill(Scope::All);
        for (one, other, refused) in [
            (Work::Snapshot, Work::Snapshot, true),
            (Work::Snapshot, all(), true),
            (all(), range(Some(5), Some(9)), true),
            (all(), keys(&[5]), true),
            (range(None, None), keys(&[5]), true),
            (range(Some(5), Some(9)), range(Some(5), Some(9)), true),
            (range(Some(5), None), range(Some(5), Some(9)), true),
            (range(None, Some(9)), range(Some(5), Some(9)), true),
            (range(Some(5), Some(9)), range(Some(6), Some(8)), false),
            (range(Some(5), None), range(None, Some(5)), false),
            (range(Some(5), Some(9)), keys(&[6]), false),
            (keys(&[1, 2, 3]), keys(&[3, 2]), true),
            (keys(&[1, 2]), keys(&[2, 3]), false),
            (Work::Newer(json!("repair")), all(), false),
        ] {
            for (asked, running) in [(one.clone(), other.clone()), (other, one)] {
                let said = refusal(&job("new", "orders", asked.clone()), &[under_way(running.clone())]);
                assert_eq!(said.is_some(), refused, "{asked} beside {running}: {said:?}");
            }
        }
    }

    #[test]
    fn the_refusal_names_the_other_and_the_way_out() {
        let said = refusal(&job("new", "orders", Work::Snapshot), &[under_way(Work::Snapshot)]).unwrap();
        assert!(said.contains("job old of shop.orders") && said.contains("weir backfill cancel old"), "{said}");
    }

    #[test]
    fn finished_jobs_other_tables_and_the_job_itself_are_in_nobodys_way() {
        let mut finished = under_way(Work::Snapshot);
        finished.outcome = Some(JobOutcome::without_work(Ended::Done, None, 1));
        assert_eq!(refusal(&job("new", "orders", Work::Snapshot), &[finished]), None);
        assert_eq!(refusal(&job("new", "items", Work::Snapshot), &[under_way(Work::Snapshot)]), None);
        assert_eq!(refusal(&job("old", "orders", Work::Snapshot), &[under_way(Work::Snapshot)]), None);
    }
}
