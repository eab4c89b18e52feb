//! The checkpoint of a source on the `direct` transport, and the rules that every written one keeps.
//!
//! It lies beside the tables and says what they need not say one by one: up to where every table is, which tables it
//! covers and in which phase each stands. A transaction is filtered by the checkpoint's set ∪ the table's own, so an
//! idle table pins nothing.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use weir_model::{Gtid, GtidSet, LogPosition, TableId};

use super::ConfigStanding;
use crate::format::Format;
use crate::limits::LIVENESS_MAX;

/// The format of what this version writes into the state folder.
pub const STATE_FORMAT: Format = Format(1);

/// Where a source's service stands.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Checkpoint {
    /// Of everything in the source's state folder: a version that knows a lower one must leave it alone.
    #[serde(default)]
    pub format: Format,
    /// Incarnation of the service that wrote it; the greatest is the one that may write.
    pub epoch: u64,
    /// Drawn anew when an epoch is taken, so that no two processes ever write the same bytes.
    #[serde(default)]
    pub instance: String,
    /// How changes travel; they continue only the same way. Empty for `direct`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub transport: String,
    /// Whether a position was ever made durable by that transport, where it has one of its own.
    #[serde(default)]
    pub published: bool,
    /// Every healthy table holds these transactions.
    pub gtid_set: GtidSet,
    /// The newest transaction of `gtid_set`, asked for again at a resume; none before the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<LastTransaction>,
    /// Where the server's log stood behind `last`.
    #[serde(default)]
    pub log: LogPosition,
    /// The tables it covers. One that is not listed is seeded.
    #[serde(default)]
    pub tables: BTreeMap<TableId, TableStanding>,
    /// How often everything was seeded anew because the source's history no longer held ours.
    #[serde(default)]
    pub restarts: u64,
    /// Epoch of the incarnation that this history was begun by, at its first start or anew.
    #[serde(default)]
    pub begun: u64,
    /// False once the service has ended in order.
    #[serde(default)]
    pub running: bool,
    /// Ms since the epoch by the writer's clock.
    pub written_at_ms: i64,
    /// Fingerprints of the row rules that tables were loaded by; one that is not named had none.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub rules: BTreeMap<TableId, String>,
    /// What the service runs by, and why not by what its file holds.
    #[serde(default, skip_serializing_if = "ConfigStanding::is_unknown")]
    pub config: ConfigStanding,
}

/// Identity of the newest transaction behind a position; a source whose history was rewritten shows another one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastTransaction {
    pub gtid: Gtid,
    /// The one before it in its domain, behind which a server of MariaDB is asked for it again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous: Option<Gtid>,
    /// Microseconds since the epoch; the same on every server that has the transaction.
    pub original_commit_us: u64,
    /// CRC32 of its GTID event; comparable only on `server_uuid`.
    pub checksum: Option<u32>,
    /// The server it was read from.
    pub server_uuid: String,
}

/// A table's part of the checkpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableStanding {
    #[serde(flatten)]
    pub phase: Phase,
    /// Capture's position when the table's last load began: what came before is the snapshot's business.
    pub start_set: GtidSet,
    /// Why it stopped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Number of the plan of the load that was announced to it; 0 if none is under way, or the table knows by itself.
    #[serde(default, skip_serializing_if = "is_none")]
    pub plan: u64,
}

impl TableStanding {
    /// Without a load that was announced.
    pub fn new(phase: Phase, start_set: GtidSet, error: Option<String>) -> Self {
        Self { phase, start_set, error, plan: 0 }
    }
}

fn is_none(plan: &u64) -> bool {
    *plan == 0
}

/// What a table is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "phase", rename_all = "snake_case")]
pub enum Phase {
    /// A load is under way beside the stream. With `restart` none of its chunks is in the table yet, and the table's
    /// set begins anew at `start_set`.
    Filling { restart: bool },
    /// The table follows the stream.
    Streaming,
    /// Its changes are passed over; seeding it mends it.
    Stopped,
}

impl Phase {
    /// As in `status` and in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Filling { .. } => "filling",
            Self::Streaming => "streaming",
            Self::Stopped => "stopped",
        }
    }
}

/// A rule that a checkpoint breaks.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CheckpointRule {
    #[error("the epoch would fall from {from} to {to}")]
    EpochFalls { from: u64, to: u64 },
    #[error("transactions {lost} would be forgotten although the history was not restarted")]
    SetShrinks { lost: GtidSet },
    #[error("the number of restarts would fall from {from} to {to}")]
    RestartsFall { from: u64, to: u64 },
    #[error("the last transaction {0} is not in the set")]
    LastNotInSet(Gtid),
    #[error("table {0} has stopped and does not say why")]
    StoppedWithoutReason(TableId),
    #[error("table {0} has an error and has not stopped")]
    ErrorWithoutStop(TableId),
}

impl Checkpoint {
    /// Whether no position was ever taken: the source is seen for the first time.
    pub fn is_new(&self) -> bool {
        self.gtid_set.is_empty() && self.last.is_none() && self.tables.is_empty()
    }

    /// Starts over at `set`: the source's history no longer holds ours, so every table is seeded anew.
    pub fn restart_at(&mut self, set: GtidSet) {
        self.gtid_set = set;
        self.last = None;
        self.log = LogPosition::default();
        self.published = false;
        self.tables.clear();
        self.restarts += 1;
    }

    /// Whether rows of `table` were made by the rules of `fingerprint`, which is empty if there are none.
    pub fn is_by_rules(&self, table: &TableId, fingerprint: &str) -> bool {
        self.rules.get(table).map_or("", String::as_str) == fingerprint
    }

    /// Rows of `table` are made by the rules of `fingerprint` from here on.
    pub fn note_rules(&mut self, table: &TableId, fingerprint: String) {
        if fingerprint.is_empty() {
            self.rules.remove(table);
        } else {
            self.rules.insert(table.clone(), fingerprint);
        }
    }

    /// Whether a service is at work: it has not ended in order, and has renewed the checkpoint a moment ago.
    pub fn is_live(&self, now_ms: i64) -> bool {
        let silent_ms = now_ms.saturating_sub(self.written_at_ms);
        self.running && silent_ms <= i64::try_from(LIVENESS_MAX.as_millis()).unwrap_or(i64::MAX)
    }

    /// The rules that a checkpoint keeps by itself. Checked before a write and after a read.
    pub fn is_sound(&self) -> Result<(), CheckpointRule> {
        if let Some(last) = &self.last
            && !self.gtid_set.contains(&last.gtid)
        {
            return Err(CheckpointRule::LastNotInSet(last.gtid.clone()));
        }
        for (table, standing) in &self.tables {
            match (standing.phase, &standing.error) {
                (Phase::Stopped, None) => return Err(CheckpointRule::StoppedWithoutReason(table.clone())),
                (Phase::Filling { .. } | Phase::Streaming, Some(_)) => {
                    return Err(CheckpointRule::ErrorWithoutStop(table.clone()));
                }
                _ => {}
            }
        }
        Ok(())
    }
}

/// Whether `next` may be written after `previous`: the epoch never falls, and no transaction is forgotten unless the
/// history was restarted.
pub fn may_follow(previous: &Checkpoint, next: &Checkpoint) -> Result<(), CheckpointRule> {
    if next.epoch < previous.epoch {
        return Err(CheckpointRule::EpochFalls { from: previous.epoch, to: next.epoch });
    }
    if next.restarts < previous.restarts {
        return Err(CheckpointRule::RestartsFall { from: previous.restarts, to: next.restarts });
    }
    let lost = previous.gtid_set.difference(&next.gtid_set);
    if !lost.is_empty() && next.restarts == previous.restarts {
        return Err(CheckpointRule::SetShrinks { lost });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const UUID: &str = "3e11fa47-71ca-11e1-9e33-c80aa9429562";

    fn set(last: u64) -> GtidSet {
        if last == 0 { GtidSet::default() } else { format!("{UUID}:1-{last}").parse().unwrap() }
    }

    fn at(epoch: u64, last: u64) -> Checkpoint {
        Checkpoint { epoch, gtid_set: set(last), ..Checkpoint::default() }
    }

    fn last(gno: u64) -> LastTransaction {
        let gtid = Gtid::new(UUID, "", gno);
        LastTransaction { gtid, previous: None, original_commit_us: 1, checksum: Some(7), server_uuid: UUID.into() }
    }

    #[test]
    fn the_epoch_never_falls_and_the_set_never_shrinks() {
        assert_eq!(may_follow(&at(2, 5), &at(2, 6)), Ok(()));
        assert_eq!(may_follow(&at(2, 5), &at(1, 6)), Err(CheckpointRule::EpochFalls { from: 2, to: 1 }));
        let lost = set(6).difference(&set(5));
        assert_eq!(may_follow(&at(2, 6), &at(3, 5)), Err(CheckpointRule::SetShrinks { lost }));
    }

    #[test]
    fn a_restarted_history_may_begin_anywhere_and_covers_no_table() {
        let before = Checkpoint { last: Some(last(9)), ..at(2, 9) };
        let mut after = before.clone();
        after.restart_at(set(3));
        assert_eq!(may_follow(&before, &after), Ok(()));
        assert_eq!((after.last, after.tables.len()), (None, 0));
    }

    #[test]
    fn a_stopped_table_says_why_and_only_a_stopped_one() {
        let mut checkpoint = at(1, 3);
        let table = TableId::new("shop", "orders");
        let standing = TableStanding::new(Phase::Stopped, set(1), None);
        checkpoint.tables.insert(table.clone(), standing);
        assert_eq!(checkpoint.is_sound(), Err(CheckpointRule::StoppedWithoutReason(table.clone())));
        let standing = TableStanding::new(Phase::Streaming, set(1), Some("x".into()));
        checkpoint.tables.insert(table.clone(), standing);
        assert_eq!(checkpoint.is_sound(), Err(CheckpointRule::ErrorWithoutStop(table)));
    }

    #[test]
    fn the_last_transaction_is_one_that_the_tables_hold() {
        let checkpoint = Checkpoint { last: Some(last(4)), ..at(1, 3) };
        assert!(matches!(checkpoint.is_sound(), Err(CheckpointRule::LastNotInSet(_))));
    }

    #[test]
    fn a_service_lives_while_it_renews_its_checkpoint() {
        let checkpoint = Checkpoint { running: true, written_at_ms: 1_000_000, ..at(1, 3) };
        assert!(checkpoint.is_live(1_005_000));
        assert!(!checkpoint.is_live(1_000_000 + 3_600_000));
        assert!(!Checkpoint { running: false, ..checkpoint }.is_live(1_005_000));
    }

    fn any_phase() -> impl Strategy<Value = Phase> {
        prop_oneof![
            any::<bool>().prop_map(|restart| Phase::Filling { restart }),
            Just(Phase::Streaming),
            Just(Phase::Stopped)
        ]
    }

    prop_compose! {
        fn any_standing()(phase in any_phase(), start in 0_u64..50, why in "[a-z ]{0,9}") -> TableStanding {
            TableStanding::new(phase, set(start), (phase == Phase::Stopped).then_some(why))
        }
    }

    prop_compose! {
        fn any_checkpoint()(
            epoch: u64,
            to in 1_u64..1000,
            has_last: bool,
            tables in prop::collection::btree_map("[a-z.`é]{1,8}", any_standing(), 0..5),
            running: bool,
            written_at_ms: i64,
        ) -> Checkpoint {
            Checkpoint {
                epoch,
                last: has_last.then(|| last(to)),
                log: LogPosition { file: "binlog.000001".into(), offset: to },
                tables: tables.into_iter().map(|(name, standing)| (TableId::new("shop", &name), standing)).collect(),
                running,
                written_at_ms,
                ..at(epoch, to)
            }
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_what_is_read(checkpoint in any_checkpoint()) {
            let text = serde_json::to_vec(&checkpoint).unwrap();
            prop_assert_eq!(&serde_json::from_slice::<Checkpoint>(&text).unwrap(), &checkpoint);
            prop_assert_eq!(checkpoint.is_sound(), Ok(()));
        }

        /// Following is transitive, so that no chain of allowed writes forgets what a single one may not.
        #[test]
        fn no_chain_of_writes_forgets(steps in prop::collection::vec((0_u64..3, 0_u64..30), 1..20)) {
            let mut chain = vec![at(1, 5)];
            for (epoch, to) in steps {
                let next = at(epoch, to);
                if may_follow(chain.last().unwrap(), &next).is_ok() {
                    chain.push(next);
                }
            }
            for pair in 0..chain.len() {
                for later in &chain[pair..] {
                    prop_assert_eq!(may_follow(&chain[pair], later), Ok(()));
                }
            }
        }
    }
}
