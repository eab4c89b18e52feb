//! Repairs that stay in the trace: what is noted of one, how it comes there, and what it makes up for.
//!
//! A repair is an object beside the tables first, and a row of the trace by that: the trace may be away when a repair ends, and
//! what is lost with it is noted again. Nothing is repaired here.

use serde::Serialize;
use serde_json::Value;
use weir_model::{Found, Gap, Repair, RepairEnd, TableId};

use super::accounts::{Unbalanced, rfc3339};
use super::deep::{DeepReport, RepairReport, ShownKey};
use crate::error::Error;
use crate::limits::{REPAIR_GAPS_NOTED_MAX, REPAIR_KEYS_NOTED_MAX, REPAIRS_NOTED_TOGETHER};
use crate::state::RepairStore;
use crate::trace::TraceSink;

/// A repair of `table` that is begun at `at_ms` under `id` by a command, by what a comparison found and what is planned about it.
pub fn begun(id: &str, table: &TableId, at_ms: i64, report: &DeepReport, plan: Option<&RepairReport>) -> Repair {
    let keys = |keys: &[ShownKey]| -> Vec<Value> {
        let shown = keys.iter().take(REPAIR_KEYS_NOTED_MAX);
        shown.map(|key| serde_json::to_value(key).expect("a key is plain data")).collect()
    };
    Repair {
        id: id.to_owned(),
        table: table.clone(),
        at_ms,
        by: "command".to_owned(),
        host: host(),
        found: Found {
            missing_count: report.missing_count,
            extra_count: report.extra_count,
            different_count: report.different_count,
            missing: keys(&report.missing),
            extra: keys(&report.extra),
            different: keys(&report.different),
        },
        keys: plan.map_or(0, |plan| plan.keys),
        anew: plan.and_then(|plan| plan.anew.clone()),
        end: None,
    }
}

/// How a repair ended at `at_ms`, by its report. If that saw every row of the table to be equal, it makes up for `unbalanced`.
pub fn ended(at_ms: i64, repaired: &RepairReport, has_seen_all: bool, unbalanced: &[Unbalanced]) -> RepairEnd {
    let makes_up = has_seen_all && repaired.has_mended();
    let gaps = unbalanced.iter().filter(|_| makes_up).take(REPAIR_GAPS_NOTED_MAX).map(gap);
    RepairEnd {
        at_ms,
        anew: repaired.anew.clone(),
        job: repaired.job.clone(),
        left_count: repaired.left_count,
        error: repaired.error.clone(),
        made_up_for: gaps.collect(),
    }
}

fn gap(unbalanced: &Unbalanced) -> Gap {
    Gap {
        between: unbalanced.between.map(str::to_owned),
        window: unbalanced.start,
        op: unbalanced.op,
        count: unbalanced.count,
        digest: unbalanced.gap,
    }
}

/// Divides what does not add up into what still matters, and what a repair has made up for, since it is exactly what was seen
/// then: whatever is lost in the same window later makes another gap of it.
pub fn made_up_for(unbalanced: Vec<Unbalanced>, repairs: &[Repair]) -> (Vec<Unbalanced>, Vec<Unbalanced>) {
    let gaps: Vec<&Gap> =
        repairs.iter().filter_map(|repair| repair.end.as_ref()).flat_map(|end| &end.made_up_for).collect();
    unbalanced.into_iter().partition(|unbalanced| gaps.is_empty() || !gaps.contains(&&gap(unbalanced)))
}

/// Notes in the trace every repair that it lacks, or of which it does not know the end.
///
/// # Errors
/// When the trace or the warehouse cannot be used.
pub async fn ship_repairs<T: TraceSink>(sink: &T, source: &str, store: &RepairStore) -> Result<(), Error> {
    let there = store.ids().await?;
    if there.is_empty() {
        return Ok(());
    }
    let noted = sink.noted_repairs(source).await?;
    let lacking = there.into_iter().filter(|(id, has_ended)| noted.get(id).is_none_or(|known| *has_ended && !known));
    let lacking: Vec<String> = lacking.map(|(id, _)| id).collect();
    for ids in lacking.chunks(REPAIRS_NOTED_TOGETHER) {
        let mut repairs = Vec::with_capacity(ids.len());
        for id in ids {
            repairs.extend(store.find(id).await?);
        }
        sink.note_repairs(source, &repairs).await?;
    }
    Ok(())
}

/// A repair in a report. Its keys are in the trace.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RepairShown {
    pub id: String,
    /// RFC 3339.
    pub at: String,
    pub by: String,
    pub host: String,
    pub missing_count: u64,
    pub extra_count: u64,
    pub different_count: u64,
    #[serde(flatten)]
    pub report: RepairReport,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<String>,
    /// Differences between hops that it made up for.
    pub made_up_for_count: u64,
}

impl RepairShown {
    pub fn of(repair: &Repair) -> Self {
        let Repair { id, at_ms, by, host, found, keys, anew, end, .. } = repair.clone();
        Self {
            id,
            at: rfc3339(at_ms),
            by,
            host,
            missing_count: found.missing_count,
            extra_count: found.extra_count,
            different_count: found.different_count,
            ended_at: end.as_ref().map(|end| rfc3339(end.at_ms)),
            made_up_for_count: end.as_ref().map_or(0, |end| end.made_up_for.len() as u64),
            report: RepairReport {
                keys,
                anew,
                job: end.as_ref().and_then(|end| end.job.clone()),
                left_count: end.as_ref().and_then(|end| end.left_count),
                error: end.and_then(|end| end.error),
            },
        }
    }

    /// For people.
    pub fn remark(&self) -> String {
        let Self { at, by, host, report: RepairReport { keys, anew, left_count, error, .. }, .. } = self;
        let found =
            format!("{} missing, {} extra, {} different", self.missing_count, self.extra_count, self.different_count);
        let done = match (anew, keys) {
            (Some(why), _) => format!("loaded anew, since {why}"),
            (None, 0) => "nothing had to be read again".to_owned(),
            (None, keys) => format!("{keys} key(s) read again"),
        };
        let left = match (&self.ended_at, left_count, error) {
            (None, ..) => "it has not told how it ended".to_owned(),
            (_, _, Some(error)) => format!("it failed: {error}"),
            (_, Some(0), None) => "equal afterwards".to_owned(),
            (_, Some(left), None) => format!("{left} key(s) not equal yet"),
            (_, None, None) => "whether it is equal is not known".to_owned(),
        };
        let verb = if *left_count == Some(0) && error.is_none() { "repaired" } else { "repair begun" };
        format!("{verb} at {at} by a {by} on {host}: {found}; {done}; {left}")
    }
}

/// What this machine is called, as far as it says.
fn host() -> String {
    let told = std::fs::read_to_string("/proc/sys/kernel/hostname").ok().or_else(|| std::env::var("HOSTNAME").ok());
    told.map(|name| name.trim().to_owned()).filter(|name| !name.is_empty()).unwrap_or_else(|| "unknown".to_owned())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use object_store::memory::InMemory;
    use weir_model::{Digest, Op, Window};

    use super::*;
    use crate::trace::sqlite::SqliteTrace;

    fn unbalanced(count: u64, digest: u128) -> Unbalanced {
        let start = Window(60_000);
        let (window, op) = (rfc3339(start.0), Op::Update);
        Unbalanced { between: ["published", "consumed"], window, op, count, start, gap: Digest(digest) }
    }

    fn mended() -> RepairReport {
        RepairReport { keys: 1, anew: None, job: Some("job".into()), left_count: Some(0), error: None }
    }

    fn repair(end: Option<RepairEnd>) -> Repair {
        let found = DeepReport { missing_count: 1, ..DeepReport::default() };
        Repair { end, ..begun("a", &TableId::new("shop", "t"), 5, &found, Some(&mended())) }
    }

    #[test]
    fn a_gap_is_made_up_for_by_a_repair_that_saw_exactly_it_and_every_row_equal() {
        let seen = unbalanced(1, 7);
        let repaired = |report: &RepairReport, has_seen_all| {
            [repair(Some(ended(9, report, has_seen_all, std::slice::from_ref(&seen))))]
        };
        let left = |now: Unbalanced, repairs: &[Repair]| made_up_for(vec![now], repairs).0.len();
        assert_eq!(left(seen.clone(), &[]), 1);
        assert_eq!(left(seen.clone(), &[repair(None)]), 1);
        assert_eq!(left(seen.clone(), &repaired(&mended(), true)), 0);
        assert_eq!(left(seen.clone(), &repaired(&mended(), false)), 1);
        assert_eq!(left(seen.clone(), &repaired(&RepairReport { left_count: Some(1), ..mended() }, true)), 1);
        // One more is lost in the same window, or another one.
        assert_eq!(left(unbalanced(2, 16), &repaired(&mended(), true)), 1);
        assert_eq!(left(unbalanced(1, 9), &repaired(&mended(), true)), 1);
    }

    #[tokio::test]
    async fn the_trace_is_given_what_it_lacks_also_after_it_was_lost() {
        let store = RepairStore::new(Arc::new(InMemory::new()), "_weir/shop".into());
        let folder = tempfile::tempdir().unwrap();
        let trace = |name: &str| SqliteTrace::open(&folder.path().join(name)).unwrap();
        let first = trace("first.sqlite");
        ship_repairs(&first, "shop", &store).await.unwrap();
        let begun = repair(None);
        store.begin(&begun).await.unwrap();
        ship_repairs(&first, "shop", &store).await.unwrap();
        assert_eq!(first.repairs("shop", 9).await.unwrap(), std::slice::from_ref(&begun));
        let end = ended(9, &mended(), true, &[unbalanced(1, 7)]);
        store.end("a", &end).await.unwrap();
        for trace in [first, trace("second.sqlite")] {
            ship_repairs(&trace, "shop", &store).await.unwrap();
            assert_eq!(trace.repairs("shop", 9).await.unwrap(), [begun.clone().ended(end.clone())]);
        }
    }

    #[test]
    fn a_repair_is_told_by_what_was_found_done_and_left() {
        let told = |end| RepairShown::of(&repair(end)).remark();
        assert!(told(None).starts_with("repair begun at 1970-01-01T00:00:00.005Z by a command on "), "{}", told(None));
        let end = told(Some(ended(9, &mended(), true, &[])));
        assert!(end.starts_with("repaired ") && end.ends_with("1 key(s) read again; equal afterwards"), "{end}");
        let failed = RepairReport { left_count: None, error: Some("no".into()), ..mended() };
        assert!(told(Some(ended(9, &failed, true, &[]))).ends_with("it failed: no"));
    }
}
