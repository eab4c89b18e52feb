//! Verdicts from facts. Pure.

use std::collections::BTreeSet;

use serde::{Serialize, Serializer};
use weir_model::{GtidSet, Repair, TableId, Window};

use super::accounts::{Unbalanced, audit, rfc3339};
use super::chart::{Days, days_of};
use super::deep::DeepReport;
use super::repairs::{RepairShown, made_up_for};
use crate::limits::REPAIRS_SHOWN_MAX;
use crate::state::proofs::TableProof;
use crate::trace::{Hop, StageCount};

/// Everything a report is made from.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    pub source: String,
    /// When it was gathered, ms since the epoch.
    pub at_ms: i64,
    /// Every table that follows the stream holds these transactions.
    pub position: GtidSet,
    pub tables: Vec<TableFacts>,
}

/// What is known of one table.
#[derive(Debug, Clone)]
pub struct TableFacts {
    pub table: TableId,
    pub reach: Reach,
    pub counts: Vec<StageCount>,
    /// Windows in which more was published since: what was consumed of them is compared another time.
    pub open: BTreeSet<Window>,
    /// Why what was published and is not in cannot come any more.
    pub lost: Option<String>,
    /// Its rows, compared with the source's, if that was asked for.
    pub deep: Option<DeepReport>,
    /// What a running service has proven by itself.
    pub proof: Option<TableProof>,
    /// The newest first.
    pub repairs: Vec<Repair>,
}

impl TableFacts {
    /// What does not add up, and no repair has made up for.
    pub fn unbalanced(&self) -> Vec<Unbalanced> {
        made_up_for(audit(&self.counts, &self.open).unbalanced, &self.repairs).0
    }
}

/// Whether a table holds all that the source had executed when it was asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reach {
    All,
    /// The source could not be asked.
    Unknown,
    /// So many transactions are missing still; without GTIDs nobody can count them.
    Behind(Option<u64>),
    /// A transaction is in the table in part.
    Partial,
    /// Its load is under way.
    Filling,
    /// Its load has not begun.
    NotSeeded,
    /// It does not follow the stream; why.
    Stopped(String),
}

/// The report; serialised, it is the JSON that programs read.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    pub source: String,
    /// RFC 3339, whole seconds.
    pub at: String,
    pub position: GtidSet,
    pub verdict: Verdict,
    pub tables: Vec<TableReport>,
}

/// From harmless to grave, so that the gravest of several is their maximum.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Everything that the source had executed is in, and every equation holds.
    Balanced,
    /// Nothing is known to be lost, and not everything is in.
    InFlight,
    /// Something was lost, or counted twice.
    Different,
}

impl Verdict {
    pub fn name(self) -> &'static str {
        match self {
            Self::Balanced => "balanced",
            Self::InFlight => "in_flight",
            Self::Different => "different",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TableReport {
    pub table: TableId,
    pub verdict: Verdict,
    pub hops: Counts<9>,
    pub chunks: Counts<5>,
    pub unbalanced: Vec<Unbalanced>,
    pub notices: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deep: Option<DeepReport>,
    /// Every key was seen to be equal by the service at this moment or later; RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub verified_through: Option<String>,
    /// The newest repairs, newest first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub repairs: Vec<RepairShown>,
    /// For pictures.
    #[serde(skip)]
    pub days: Days,
}

/// Sums over all windows and operations, by name, in the order in which they are passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counts<const N: usize>(pub [(&'static str, u64); N]);

impl<const N: usize> Serialize for Counts<N> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0)
    }
}

const HOPS: [Hop; 9] = [
    Hop::Captured,
    Hop::Filtered,
    Hop::Published,
    Hop::Consumed,
    Hop::Upserted,
    Hop::Deleted,
    Hop::Duplicate,
    Hop::Superseded,
    Hop::Stale,
];

const CHUNKS: [(&str, Hop); 5] = [
    ("read", Hop::ChunkRead),
    ("upserted", Hop::ChunkUpserted),
    ("stale", Hop::ChunkStale),
    ("duplicate", Hop::ChunkDuplicate),
    ("removed", Hop::ChunkRemoved),
];

/// Judges every table, and the whole by its gravest table.
pub fn report(facts: Facts) -> Report {
    let tables: Vec<TableReport> = facts.tables.into_iter().map(table_report).collect();
    Report {
        source: facts.source,
        at: rfc3339(facts.at_ms.div_euclid(1_000) * 1_000),
        position: facts.position,
        verdict: tables.iter().map(|table| table.verdict).max().unwrap_or(Verdict::Balanced),
        tables,
    }
}

/// Anything lost is `different`; a table that stopped, fills or lags is never `balanced`.
fn table_report(facts: TableFacts) -> TableReport {
    let audit = audit(&facts.counts, &facts.open);
    let mut notices: Vec<String> = reach_notice(&facts.reach).into_iter().chain(facts.lost).collect();
    if audit.doubled > 0 {
        let doubled = audit.doubled;
        notices.push(format!(
            "between published and consumed: {doubled} half-event(s) came twice; the copies were dropped"
        ));
    }
    let (unbalanced, settled) = made_up_for(audit.unbalanced, &facts.repairs);
    if !settled.is_empty() {
        let (n, first) = (settled.len(), &settled[0]);
        let ([earlier, later], window, op) = (first.between, &first.window, first.op);
        notices.push(format!(
            "{n} difference(s) between hops, such as {earlier} and {later} in window {window}, op {op}, were made up for by a \
             repair that saw every row to be equal"
        ));
    }
    let repairs: Vec<RepairShown> = facts.repairs.iter().take(REPAIRS_SHOWN_MAX).map(RepairShown::of).collect();
    notices.extend(repairs.first().map(RepairShown::remark));
    if unbalanced.iter().any(|unbalanced| unbalanced.count == 0) {
        notices.push("where the count is 0, as many passed on both sides, but not the same ones".into());
    }
    let accounts = match (unbalanced.is_empty(), &facts.reach) {
        (false, _) => Verdict::Different,
        (true, Reach::All) => Verdict::Balanced,
        (true, _) => Verdict::InFlight,
    };
    let rows = facts.deep.as_ref().map_or(Verdict::Balanced, DeepReport::verdict);
    notices.extend(facts.deep.iter().flat_map(DeepReport::remarks));
    if facts.deep.is_none() {
        notices.extend(facts.proof.as_ref().and_then(found_by_service));
    }
    let total = |hop: Hop| facts.counts.iter().filter(|count| count.hop == hop).map(|count| count.count).sum();
    TableReport {
        table: facts.table,
        verdict: accounts.max(rows),
        hops: Counts(HOPS.map(|hop| (hop.name(), total(hop)))),
        chunks: Counts(CHUNKS.map(|(name, hop)| (name, total(hop)))),
        unbalanced,
        notices,
        deep: facts.deep,
        verified_through: facts.proof.as_ref().and_then(|proof| proof.ranges.through_ms()).map(rfc3339),
        repairs,
        days: days_of(&facts.counts),
    }
}

/// Of what a service found a while ago nobody knows whether it still is so: a notice, no verdict.
fn found_by_service(proof: &TableProof) -> Option<String> {
    let found = proof.ranges.found(0);
    found.is_difference().then(|| {
        let keys = found.missing + found.extra + found.different;
        format!("at {} the service found {keys} key(s) that differ; --deep looks at them now", rfc3339(found.at_ms))
    })
}

fn reach_notice(reach: &Reach) -> Option<String> {
    match reach {
        Reach::All => None,
        Reach::Unknown => Some("the source could not be asked how far it is".into()),
        Reach::Behind(Some(transactions)) => {
            Some(format!("{transactions} transaction(s) of the source are not in yet"))
        }
        Reach::Behind(None) => Some("not everything that the source's binlog has is in yet".into()),
        Reach::Partial => Some("a large transaction is in the table in part".into()),
        Reach::Filling => Some("the table is being loaded".into()),
        Reach::NotSeeded => Some("the table has not been loaded yet".into()),
        Reach::Stopped(why) => Some(format!("the table has stopped: {why}")),
    }
}

#[cfg(test)]
mod tests {
    use weir_model::{EventId, Op, Window};

    use super::*;
    use crate::state::proofs::Found;
    use crate::trace::Tally;

    fn counts(lost: u64) -> Vec<StageCount> {
        let mut tally = Tally::default();
        for id in 0..3 {
            let hops: &[Hop] = if id < lost { &[] } else { &[Hop::Consumed, Hop::Upserted] };
            for hop in [Hop::Captured, Hop::Published].iter().chain(hops) {
                tally.event(*hop, Op::Update, Window(1_795_226_400_000), EventId(id.into()));
            }
        }
        tally.chunk_rows(Hop::ChunkRead, Window(0), 5);
        tally.chunk_rows(Hop::ChunkUpserted, Window(0), 5);
        tally.counts()
    }

    fn facts(tables: Vec<(Reach, Vec<StageCount>)>) -> Facts {
        let table = |(i, (reach, counts))| TableFacts {
            table: TableId::new("shop", &format!("t{i}")),
            reach,
            counts,
            open: BTreeSet::new(),
            lost: None,
            deep: None,
            proof: None,
            repairs: Vec::new(),
        };
        Facts {
            source: "shop".into(),
            at_ms: 1_795_230_000_000,
            position: "3e11fa47-71ca-11e1-9e33-c80aa9429562:1-7".parse().unwrap(),
            tables: tables.into_iter().enumerate().map(table).collect(),
        }
    }

    #[test]
    fn the_report_has_the_documented_shape() {
        let report = report(facts(vec![(Reach::All, counts(1))]));
        insta::assert_snapshot!(serde_json::to_string_pretty(&report).unwrap(), @r#"
        {
          "source": "shop",
          "at": "2026-11-21T03:00:00Z",
          "position": "3e11fa47-71ca-11e1-9e33-c80aa9429562:1-7",
          "verdict": "different",
          "tables": [
            {
              "table": "shop.t0",
              "verdict": "different",
              "hops": {
                "captured": 3,
                "filtered": 0,
                "published": 3,
                "consumed": 2,
                "upserted": 2,
                "deleted": 0,
                "duplicate": 0,
                "superseded": 0,
                "stale": 0
              },
              "chunks": {
                "read": 5,
                "upserted": 5,
                "stale": 0,
                "duplicate": 0,
                "removed": 0
              },
              "unbalanced": [
                {
                  "between": [
                    "published",
                    "consumed"
                  ],
                  "window": "2026-11-21T02:00:00Z",
                  "op": "u",
                  "count": 1
                }
              ],
              "notices": []
            }
          ]
        }
        "#);
    }

    #[test]
    fn a_table_that_is_not_complete_is_never_balanced() {
        let reaches = [
            Reach::Unknown,
            Reach::Behind(Some(2)),
            Reach::Partial,
            Reach::Filling,
            Reach::NotSeeded,
            Reach::Stopped("no key".into()),
        ];
        for reach in reaches {
            let report = report(facts(vec![(Reach::All, counts(0)), (reach.clone(), counts(0))]));
            assert_eq!(report.tables[0].verdict, Verdict::Balanced);
            assert_eq!(report.tables[1].verdict, Verdict::InFlight, "{reach:?}");
            assert_eq!(report.verdict, Verdict::InFlight);
            assert_eq!(report.tables[1].notices.len(), 1);
        }
    }

    #[test]
    fn rows_that_differ_outweigh_balanced_accounts() {
        let with = |deep: DeepReport| {
            let mut facts = facts(vec![(Reach::All, counts(0))]);
            facts.tables[0].deep = Some(deep);
            report(facts)
        };
        let missing = with(DeepReport { missing_count: 1, ..DeepReport::default() });
        assert_eq!(missing.verdict, Verdict::Different);
        insta::assert_snapshot!(serde_json::to_string(&missing.tables[0].deep).unwrap(), @r#"{"rows_source":0,"rows_table":0,"missing":[],"missing_count":1,"extra":[],"extra_count":0,"different":[],"different_count":0,"in_flight_count":0,"rechecked":0,"unconfirmed_count":0,"ranges":0,"ranges_compared":0}"#);
        assert_eq!(with(DeepReport::failed("away".into())).verdict, Verdict::InFlight);
        assert_eq!(with(DeepReport::default()).verdict, Verdict::Balanced);
    }

    #[test]
    fn what_a_service_proved_is_told_and_what_it_found_is_a_notice() {
        let with = |proof: TableProof| {
            let mut facts = facts(vec![(Reach::All, counts(0))]);
            facts.tables[0].proof = Some(proof);
            report(facts).tables.remove(0)
        };
        let mut proof = TableProof::default();
        proof.ranges.note_equal(None, None, 1_795_226_400_000);
        let proven = with(proof.clone());
        assert_eq!(proven.verified_through.as_deref(), Some("2026-11-21T02:00:00Z"));
        assert!(proven.notices.is_empty());
        proof.ranges.note_found(None, None, Found { missing: 2, ..Found::default() });
        let found = with(proof);
        assert_eq!((found.verdict, found.notices.len()), (Verdict::Balanced, 1));
    }

    #[test]
    fn a_loss_outweighs_what_is_in_flight() {
        let report = report(facts(vec![(Reach::Filling, counts(1)), (Reach::All, counts(0))]));
        assert_eq!((report.verdict, report.tables[0].verdict), (Verdict::Different, Verdict::Different));
    }
}
