//! Repairs as rows of the trace: flat, in what both sinks can hold.

use serde::{Deserialize, Serialize};
use weir_model::{Found, Repair, RepairEnd, TableId};

/// A row a repair. Texts that are not there are empty, and a count that nobody knows is -1.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, clickhouse::Row)]
pub(super) struct RepairRow {
    pub source: String,
    pub id: String,
    pub table_name: String,
    pub at_ms: i64,
    pub asked_by: String,
    pub host: String,
    pub missing_count: u64,
    pub extra_count: u64,
    pub different_count: u64,
    /// JSON: lists of keys by what is wrong with them.
    pub keys: String,
    pub read_again: u64,
    pub anew: String,
    /// 0 while it is under way: of two rows of one repair the greater stands.
    pub ended_ms: i64,
    pub job: String,
    pub left_count: i64,
    pub error: String,
    /// JSON: what two hops differed by and does not matter any more.
    pub made_up_for: String,
}

/// [`RepairRow::keys`].
#[derive(Serialize, Deserialize)]
struct Keys {
    missing: Vec<serde_json::Value>,
    extra: Vec<serde_json::Value>,
    different: Vec<serde_json::Value>,
}

impl RepairRow {
    pub fn of(source: &str, repair: &Repair) -> Self {
        let Repair { id, table, at_ms, by, host, found, keys, anew, end } = repair.clone();
        let Found { missing_count, extra_count, different_count, missing, extra, different } = found;
        let end = end.unwrap_or_default();
        Self {
            source: source.to_owned(),
            id,
            table_name: table.to_string(),
            at_ms,
            asked_by: by,
            host,
            missing_count,
            extra_count,
            different_count,
            keys: json(&Keys { missing, extra, different }),
            read_again: keys,
            anew: anew.unwrap_or_default(),
            ended_ms: end.at_ms,
            job: end.job.unwrap_or_default(),
            left_count: end.left_count.map_or(-1, |left| i64::try_from(left).unwrap_or(i64::MAX)),
            error: end.error.unwrap_or_default(),
            made_up_for: json(&end.made_up_for),
        }
    }

    /// # Errors
    /// What in the row makes no sense.
    pub fn repair(self) -> Result<Repair, String> {
        let wrong = |what: &str, error: serde_json::Error| {
            format!("the {what} of repair {} cannot be read, at column {}", self.id, error.column())
        };
        let Keys { missing, extra, different } = serde_json::from_str(&self.keys).map_err(|e| wrong("keys", e))?;
        let made_up_for = serde_json::from_str(&self.made_up_for).map_err(|e| wrong("gaps", e))?;
        let some = |text: String| (!text.is_empty()).then_some(text);
        let end = RepairEnd {
            at_ms: self.ended_ms,
            anew: None,
            job: some(self.job),
            left_count: u64::try_from(self.left_count).ok(),
            error: some(self.error),
            made_up_for,
        };
        Ok(Repair {
            table: TableId::try_from(self.table_name)?,
            id: self.id,
            at_ms: self.at_ms,
            by: self.asked_by,
            host: self.host,
            found: Found {
                missing_count: self.missing_count,
                extra_count: self.extra_count,
                different_count: self.different_count,
                missing,
                extra,
                different,
            },
            keys: self.read_again,
            anew: some(self.anew),
            end: (self.ended_ms > 0).then_some(end),
        })
    }
}

fn json<T: Serialize>(value: &T) -> String {
    serde_json::to_string(value).expect("plain data with text keys")
}
