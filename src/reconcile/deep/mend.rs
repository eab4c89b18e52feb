//! What would make a table equal again: decided by what a comparison found. Pure; whoever asks for it carries it out.

use serde::Serialize;

use super::confirm::Suspect;
use super::report::DeepReport;
use crate::limits::REPAIRED_KEYS_MAX;
use crate::state::jobs::{Bound, Scope, Work};

/// What is to be done to a table.
#[derive(Debug, Clone, PartialEq)]
pub enum Mending {
    /// These keys are read again, and go if the source is without them.
    Keys(Vec<Suspect>),
    /// The table is loaded anew: why keys are not enough.
    Anew(&'static str),
}

/// What a table needs, `None` if nothing.
pub fn mending(report: &DeepReport) -> Option<Mending> {
    if report.has_stopped {
        return Some(Mending::Anew("it has stopped"));
    }
    if report.flaws.rows_without_key > 0 {
        return Some(Mending::Anew("rows without a key are in it"));
    }
    if !report.flaws.lost_files.is_empty() {
        return Some(Mending::Anew("data files of it are gone"));
    }
    if report.difference_count() == 0 {
        return None;
    }
    if report.unconfirmed_count > 0 || report.confirmed.len() > REPAIRED_KEYS_MAX {
        return Some(Mending::Anew("too many keys differ"));
    }
    if report.confirmed.iter().any(|(_, key)| key.is_none()) {
        return Some(Mending::Anew("keys are in it that the source cannot have"));
    }
    Some(Mending::Keys(report.confirmed.iter().map(|(suspect, _)| suspect.clone()).collect()))
}

impl Mending {
    /// As a job of the service. `keys` are the record keys as JSON, in the order of the suspects.
    pub fn work(&self, keys: Vec<Bound>) -> Work {
        match self {
            Self::Keys(_) => Work::Backfill(Scope::Keys(keys)),
            Self::Anew(_) => Work::Snapshot,
        }
    }
}

/// What was done about a table, or would be.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RepairReport {
    /// Keys that are read again; 0 if the table is loaded anew.
    pub keys: u64,
    /// Why the table is loaded anew and not only its keys.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub anew: Option<String>,
    /// The last job that did it; none in a dry run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub job: Option<String>,
    /// Keys that are not seen to be equal afterwards; none if nothing was done, or nobody can tell.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub left_count: Option<u64>,
    /// Why it did not come about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

impl RepairReport {
    /// What would be done.
    pub fn planned(mending: &Mending) -> Self {
        let (keys, anew) = match mending {
            Mending::Keys(keys) => (keys.len() as u64, None),
            Mending::Anew(why) => (0, Some((*why).to_owned())),
        };
        Self { keys, anew, job: None, left_count: None, error: None }
    }

    /// Of a table whose rows were all seen to be equal.
    pub fn not_needed() -> Self {
        Self { keys: 0, anew: None, job: None, left_count: Some(0), error: None }
    }

    /// Whether the table is equal by now.
    pub fn has_mended(&self) -> bool {
        self.left_count == Some(0)
    }

    /// For people.
    pub fn remark(&self) -> String {
        let what = match &self.anew {
            Some(why) => format!("loading the table anew, since {why}"),
            None => format!("reading {} key(s) again", self.keys),
        };
        match (self.left_count, &self.error) {
            (_, Some(error)) => format!("not repaired by {what}: {error}"),
            (Some(0), None) => format!("repaired by {what}: it is equal now"),
            (Some(left), None) => format!("{left} key(s) are not equal yet after {what}"),
            (None, None) => format!("--repair would mend it by {what}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use weir_model::RecordKey;

    use super::super::compare::Finding;
    use super::super::lake_side::Flaws;
    use super::*;

    fn found(keys: i64) -> DeepReport {
        let suspect = |id| Suspect { key: RecordKey::Int(id), values: None, finding: Finding::Missing };
        let confirmed = (0..keys).map(|id| (suspect(id), Some(Bound(vec![id.into()])))).collect();
        DeepReport { missing_count: keys as u64, confirmed, ..DeepReport::default() }
    }

    #[test]
    fn keys_are_read_again_unless_they_are_too_many_or_do_not_say_all() {
        assert_eq!(mending(&DeepReport::default()), None);
        assert!(matches!(mending(&found(3)), Some(Mending::Keys(keys)) if keys.len() == 3));
        let mut foreign = found(3);
        foreign.confirmed[1].1 = None;
        assert!(matches!(mending(&foreign), Some(Mending::Anew(_))));
        let beyond = DeepReport { unconfirmed_count: 1, ..found(3) };
        assert!(matches!(mending(&beyond), Some(Mending::Anew(_))));
        assert!(matches!(mending(&found(REPAIRED_KEYS_MAX as i64 + 1)), Some(Mending::Anew(_))));
        let lost = Flaws { lost_files: vec!["part-1.parquet".into()], ..Flaws::default() };
        assert!(matches!(mending(&DeepReport { flaws: lost, ..found(3) }), Some(Mending::Anew(_))));
        let keyless = Flaws { rows_without_key: 2, ..Flaws::default() };
        assert!(matches!(mending(&DeepReport { flaws: keyless, ..found(0) }), Some(Mending::Anew(_))));
        let stopped = DeepReport { has_stopped: true, ..DeepReport::not_compared("it has stopped".into()) };
        assert!(matches!(mending(&stopped), Some(Mending::Anew(_))));
        assert_eq!(mending(&DeepReport::not_compared("it is being loaded".into())), None);
        // What is only in flight comes by itself.
        assert_eq!(mending(&DeepReport { in_flight_count: 4, ..DeepReport::default() }), None);
    }

    #[test]
    fn a_repair_is_told_by_what_is_left() {
        let planned = RepairReport::planned(&Mending::Keys(Vec::new()));
        assert!(planned.remark().starts_with("--repair would") && !planned.has_mended());
        let done = RepairReport { left_count: Some(0), ..planned.clone() };
        assert!(done.remark().contains("equal now") && done.has_mended());
        assert!(RepairReport { left_count: Some(2), ..planned.clone() }.remark().starts_with("2 key(s)"));
        assert!(RepairReport { error: Some("no".into()), ..planned }.remark().ends_with(": no"));
    }
}
