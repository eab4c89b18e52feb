//! What a job is: which table, how much of it, who asked; and what became of it.

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use weir_model::{Minute, TableId};

use crate::limits::JOB_NAME_BYTES_MAX;
use crate::state::schedules::ScheduleId;

/// Names a job, and its objects. Those of commands sort by time.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct JobId(String);

impl JobId {
    /// One of its own, for a job that is asked for at `now_ms`: `20261121T030000123Z-5f0c9a1b`.
    pub fn new(now_ms: i64) -> Self {
        let at = Timestamp::from_millisecond(now_ms).unwrap_or_default();
        let drawn = uuid::Uuid::new_v4().simple().to_string();
        Self(format!("{}-{}", at.strftime("%Y%m%dT%H%M%S%3fZ"), &drawn[..8]))
    }

    /// That of the run of a schedule at `minute`, whoever asks for it: `nightly-20261121T0300Z`.
    pub fn of_run(schedule: &ScheduleId, minute: Minute) -> Self {
        Self(format!("{schedule}-{}", minute.compact()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for JobId {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        if is_object_name(&text, JOB_NAME_BYTES_MAX) {
            Ok(Self(text))
        } else {
            Err(format!("`{text}` is no id of a job"))
        }
    }
}

impl From<JobId> for String {
    fn from(id: JobId) -> Self {
        id.0
    }
}

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Whether objects can be named after `text`: letters, digits, `_` and `-`, and no more than `bytes_max`.
pub(in crate::state) fn is_object_name(text: &str, bytes_max: usize) -> bool {
    let fits = (1..=bytes_max).contains(&text.len());
    fits && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-')
}

/// Something to be done to a table, once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Job {
    pub id: JobId,
    pub table: TableId,
    pub work: Work,
    pub origin: Origin,
    /// Ms since the epoch, by the clock of whoever asked.
    pub requested_ms: i64,
}

impl Job {
    /// One that a command asks for at `now_ms`.
    pub fn of_command(table: &TableId, work: Work, now_ms: i64) -> Self {
        Self { id: JobId::new(now_ms), table: table.clone(), work, origin: Origin::Command, requested_ms: now_ms }
    }
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Work {
    /// The whole table anew.
    Snapshot,
    /// Rows of it read again beside the stream.
    Backfill(Scope),
    /// Asked by a newer version; kept as it was written.
    #[serde(untagged)]
    Newer(Value),
}

/// Which rows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    All,
    /// Those whose key is at or above `from`, and at or below `to`, in the server's own order; both ends are part of it. An
    /// end that is a prefix of the key takes in every key that begins with it.
    Range {
        from: Option<Bound>,
        to: Option<Bound>,
    },
    /// Those of these keys, which are whole.
    Keys(Vec<Bound>),
}

/// Values of a record key, in key order, as JSON. Fewer than the key has columns are a prefix, which only ranges have.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Bound(pub Vec<Value>);

/// Who asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    Command,
    Schedule {
        id: ScheduleId,
    },
    /// Asked by a newer version.
    #[serde(untagged)]
    Newer(Value),
}

/// How far the running service is with a job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobProgress {
    pub state: JobState,
    /// Number of the plan of the load; 0 if there is none yet.
    #[serde(default)]
    pub plan: u64,
    #[serde(default)]
    pub chunks: u64,
    #[serde(default)]
    pub chunks_done: u64,
    /// Rows read so far.
    #[serde(default)]
    pub rows: u64,
    pub updated_ms: i64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JobState {
    Waiting,
    Running,
}

/// What became of a job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobOutcome {
    pub ended: Ended,
    /// Why it did not come about, and the way out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    #[serde(default)]
    pub rows_read: u64,
    /// Rows of the lake that the source did not have any more.
    #[serde(default)]
    pub removed: u64,
    pub ended_ms: i64,
}

impl JobOutcome {
    /// Of a job of which nothing was done.
    pub fn without_work(ended: Ended, error: Option<String>, ended_ms: i64) -> Self {
        Self { ended, error, rows_read: 0, removed: 0, ended_ms }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ended {
    Done,
    Failed,
    Cancelled,
    Refused,
}

impl Ended {
    pub fn name(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::Refused => "refused",
        }
    }
}

impl Work {
    /// Why this version cannot do it; `None` if it can. For the outcome of such a job, and for people.
    pub fn why_not(&self) -> Option<&'static str> {
        matches!(self, Self::Newer(_)).then_some("it was asked by a newer version of weir; run that one, or cancel it")
    }
}

/// As lists show it: `snapshot`, `all`, `[5] to [9]`, `3 keys`.
impl fmt::Display for Work {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Snapshot => f.write_str("snapshot"),
            Self::Backfill(scope) => scope.fmt(f),
            Self::Newer(_) => f.write_str("asked by a newer version"),
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All | Self::Range { from: None, to: None } => f.write_str("all"),
            Self::Range { from: Some(from), to: None } => write!(f, "from {from}"),
            Self::Range { from: None, to: Some(to) } => write!(f, "to {to}"),
            Self::Range { from: Some(from), to: Some(to) } => write!(f, "{from} to {to}"),
            Self::Keys(keys) if keys.len() == 1 => f.write_str("1 key"),
            Self::Keys(keys) => write!(f, "{} keys", keys.len()),
        }
    }
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&Value::Array(self.0.clone()).to_string())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn text(id: &str) -> Result<JobId, String> {
        JobId::try_from(id.to_owned())
    }

    #[test]
    fn ids_of_commands_sort_by_time_and_those_of_runs_are_the_same_for_all() {
        let (early, late) = (JobId::new(1_795_226_400_007), JobId::new(1_795_226_400_120));
        assert!(early < late && early.as_str().starts_with("20261121T020000007Z-"), "{early} {late}");
        assert_ne!(JobId::new(0), JobId::new(0));
        let schedule = ScheduleId::try_from("nightly".to_owned()).unwrap();
        let run = JobId::of_run(&schedule, Minute::of(1_795_226_430_000));
        assert_eq!(run.as_str(), "nightly-20261121T0200Z");
        for id in [early, late, run] {
            assert_eq!(text(id.as_str()), Ok(id));
        }
        for wrong in ["", "a/b", "a.cancel", "..", "a b", &"x".repeat(JOB_NAME_BYTES_MAX + 1)] {
            assert!(text(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_job_is_stored_readably_and_read_as_it_was() {
        let bound = |value: i64| Some(Bound(vec![json!(value)]));
        for (work, stored) in [
            (Work::Snapshot, json!("snapshot")),
            (Work::Backfill(Scope::All), json!({"backfill": "all"})),
            (
                Work::Backfill(Scope::Range { from: bound(5), to: None }),
                json!({"backfill": {"range": {"from": [5], "to": null}}}),
            ),
            (
                Work::Backfill(Scope::Keys(vec![Bound(vec![json!("a"), json!(5)])])),
                json!({"backfill": {"keys": [["a", 5]]}}),
            ),
        ] {
            assert_eq!(serde_json::to_value(&work).unwrap(), stored);
            assert_eq!(serde_json::from_value::<Work>(stored).unwrap(), work);
        }
    }

    #[test]
    fn what_a_newer_version_asked_is_kept_and_said() {
        for stored in [json!("repair"), json!({"repair": {"keys": [[5]]}}), json!({"backfill": {"partition": "p0"}})] {
            let work: Work = serde_json::from_value(stored.clone()).unwrap();
            assert_eq!(work, Work::Newer(stored.clone()));
            assert!(work.why_not().is_some_and(|why| why.contains("newer version")));
            assert_eq!(serde_json::to_value(&work).unwrap(), stored);
        }
        let origin: Origin = serde_json::from_value(json!({"reconcile": {}})).unwrap();
        assert!(matches!(origin, Origin::Newer(_)));
    }

    #[test]
    fn scopes_are_shown_in_a_few_words() {
        let bound = |value: i64| Some(Bound(vec![json!(value), json!("x")]));
        for (scope, shown) in [
            (Scope::All, "all"),
            (Scope::Range { from: None, to: None }, "all"),
            (Scope::Range { from: bound(5), to: bound(9) }, "[5,\"x\"] to [9,\"x\"]"),
            (Scope::Range { from: bound(5), to: None }, "from [5,\"x\"]"),
            (Scope::Range { from: None, to: bound(9) }, "to [9,\"x\"]"),
            (Scope::Keys(vec![Bound(Vec::new())]), "1 key"),
        ] {
            assert_eq!(Work::Backfill(scope).to_string(), shown);
        }
    }
}
