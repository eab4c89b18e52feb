//! What is kept of a repair: what was found, what was done about it, and how that ended. Of rows it holds their keys only.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{Digest, Op, TableId, Window};

/// A repair of one table, from the moment that it was begun.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Repair {
    /// That of its first job; one of its own if no job was needed.
    pub id: String,
    pub table: TableId,
    /// When it was begun, ms since the epoch.
    pub at_ms: i64,
    /// `command` or `service`.
    pub by: String,
    /// The machine that asked for it.
    pub host: String,
    pub found: Found,
    /// Keys that are read again; 0 if the table is loaded anew, or nothing of it differed.
    pub keys: u64,
    /// Why the table is loaded anew and not only its keys.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub anew: Option<String>,
    /// None while it is under way, and if whoever began it was broken off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end: Option<RepairEnd>,
}

impl Repair {
    /// With how it ended.
    pub fn ended(self, end: RepairEnd) -> Self {
        Self { anew: end.anew.clone().or(self.anew), end: Some(RepairEnd { anew: None, ..end }), ..self }
    }
}

/// What a comparison of rows found. Lists of keys are cut, counts are not.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Found {
    pub missing_count: u64,
    pub extra_count: u64,
    pub different_count: u64,
    /// Each a JSON object, by column in key order.
    pub missing: Vec<Value>,
    pub extra: Vec<Value>,
    pub different: Vec<Value>,
}

/// How a repair ended.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct RepairEnd {
    /// Ms since the epoch; above 0.
    pub at_ms: i64,
    /// The last job that did it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<String>,
    /// Why the table was loaded anew after all, though only its keys were to be read again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub anew: Option<String>,
    /// Keys that are not seen to be equal afterwards; none if nobody can tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub left_count: Option<u64>,
    /// Why it did not come about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Differences between hops that do not matter any more, since every row was seen to be equal afterwards.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub made_up_for: Vec<Gap>,
}

/// By how much two hops differ in a window. It is exact, so that whatever is lost there later is another gap.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gap {
    /// The hops, the earlier one first.
    pub between: [String; 2],
    pub window: Window,
    pub op: Op,
    pub count: u64,
    /// Of the earlier hop less that of the later one.
    pub digest: Digest,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repair_is_read_as_it_was_written_and_what_is_not_known_yet_is_left_out() {
        let begun = Repair {
            id: "20261121T030000123Z-5f0c9a1b".into(),
            table: TableId::new("shop", "orders"),
            at_ms: 7,
            by: "command".into(),
            host: "db-1".into(),
            found: Found { missing_count: 1, missing: vec![serde_json::json!({"id": 5})], ..Found::default() },
            keys: 1,
            anew: None,
            end: None,
        };
        let text = serde_json::to_string(&begun).unwrap();
        assert!(!text.contains("\"end\"") && !text.contains("anew"), "{text}");
        assert_eq!(serde_json::from_str::<Repair>(&text).unwrap(), begun);
        let gap = Gap {
            between: ["published".into(), "consumed".into()],
            window: Window(60_000),
            op: Op::Update,
            count: 1,
            digest: Digest(u128::MAX),
        };
        let end = RepairEnd { at_ms: 9, left_count: Some(0), made_up_for: vec![gap], ..RepairEnd::default() };
        let ended = Repair { end: Some(end), ..begun };
        assert_eq!(serde_json::from_str::<Repair>(&serde_json::to_string(&ended).unwrap()).unwrap(), ended);
    }
}
