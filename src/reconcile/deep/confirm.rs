//! Judges suspects: keys of which the two sides differed when they were compared, some only because they are in flight.

use std::collections::HashMap;

use snapshot_loader::KeyValue;
use weir_model::{Order, RecordKey, TableId};
use weir_mysql::{RowConnection, server};

use super::compare::{Finding, KeyState, finding};
use super::standing::reach;
use super::table::ComparedTable;
use super::{DeepError, DeepQuestion, lake_side, source_side};
use crate::limits::{DEEP_ROUND_PAUSE, DEEP_ROUNDS_ALIKE, DEEP_ROUNDS_MAX, DEEP_ROUNDS_MOVING, DEEP_WAIT_MAX};
use crate::reconcile::report::Reach;

/// A key of which the two sides were not the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Suspect {
    /// In canonical form.
    pub key: RecordKey,
    /// The same, as MySQL is asked for it; none for one that only the lake can have, such as a date of the year 20000.
    pub values: Option<Vec<KeyValue>>,
    /// What it looked like.
    pub finding: Finding,
}

/// What has become of a suspect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Judgement {
    /// The two sides have the same.
    Equal,
    /// They do not, and nothing is on its way that would change it.
    Confirmed(Finding),
    /// It could not be settled.
    InFlight,
    /// It could not be settled since it changes faster than it can be looked at, and the lake was seen to take its changes in.
    Moving,
}

/// Decides which suspects are differences.
///
/// `suspects` are of one table and ascend by key, each once; the answer has a judgement for each, in their order. A key that
/// changes meanwhile may be judged by what it was or by what it is. `Confirmed` must never be said of a key that the service
/// would still have brought in. Dropping the future leaves nothing behind.
pub trait Confirm: Send + Sync + 'static {
    fn confirm(
        &self,
        question: &DeepQuestion,
        table: &TableId,
        suspects: &[Suspect],
    ) -> impl Future<Output = Result<Vec<Judgement>, DeepError>> + Send;
}

/// Looks at the keys again and again: one that stays as it is on both sides, and not the same, although the lake holds
/// everything that the source had executed when its row was read, is a difference.
#[derive(Debug, Clone, Copy, Default)]
pub struct Recheck;

/// What both sides have of a key; the same twice if nobody has touched it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Seen {
    source: KeyState,
    lake: KeyState,
    /// Greatest order of the lake's rows.
    order: Order,
}

/// A suspect that has not been judged.
struct Pending {
    /// Its place among the suspects.
    at: usize,
    seen: Option<Seen>,
    /// Rounds in a row that have seen this.
    alike: u32,
    /// Rounds that have found a later change in the lake than the one before.
    moves: u32,
}

impl Confirm for Recheck {
    async fn confirm(
        &self,
        question: &DeepQuestion,
        id: &TableId,
        suspects: &[Suspect],
    ) -> Result<Vec<Judgement>, DeepError> {
        let mut judgements = vec![Judgement::InFlight; suspects.len()];
        let mut pending: Vec<Pending> =
            (0..suspects.len()).map(|at| Pending { at, seen: None, alike: 0, moves: 0 }).collect();
        let mut connection = weir_mysql::connect(&question.options).await?;
        let mut rows = RowConnection::beside(&question.options, &mut connection).await?;
        for _ in 0..DEEP_ROUNDS_MAX {
            if pending.is_empty() {
                break;
            }
            let keys: Vec<RecordKey> = pending.iter().map(|pending| suspects[pending.at].key.clone()).collect();
            let Some(seen) = look(question, (&mut connection, &mut rows), id, &keys).await? else { break };
            pending = pending
                .into_iter()
                .zip(seen)
                .filter_map(|(pending, seen)| {
                    let at = pending.at;
                    match judge(pending, seen) {
                        Ok(judgement) => {
                            judgements[at] = judgement;
                            None
                        }
                        Err(pending) => Some(pending),
                    }
                })
                .collect();
            if !pending.is_empty() {
                tokio::time::sleep(DEEP_ROUND_PAUSE).await;
            }
        }
        Ok(judgements)
    }
}

/// Judges a suspect by what was seen of it in this round, or says that it takes another.
fn judge(pending: Pending, seen: Seen) -> Result<Judgement, Pending> {
    let Some(finding) = finding(seen.source, seen.lake) else { return Ok(Judgement::Equal) };
    let alike = if pending.seen == Some(seen) { pending.alike + 1 } else { 1 };
    if alike >= DEEP_ROUNDS_ALIKE {
        return Ok(Judgement::Confirmed(finding));
    }
    // Rows too many are none that a change on its way would leave.
    let has_moved = seen.lake != KeyState::Several && pending.seen.is_some_and(|before| seen.order > before.order);
    let moves = pending.moves + u32::from(has_moved);
    if moves >= DEEP_ROUNDS_MOVING {
        return Ok(Judgement::Moving);
    }
    Err(Pending { seen: Some(seen), alike, moves, ..pending })
}

/// What both sides have of `keys`, which ascend: the lake once it holds everything that the source had executed when it was
/// read. `None` if it does not come to that.
async fn look(
    question: &DeepQuestion,
    (connection, rows): (&mut weir_mysql::Conn, &mut RowConnection),
    id: &TableId,
    keys: &[RecordKey],
) -> Result<Option<Vec<Seen>>, DeepError> {
    let Ok(table) = ComparedTable::look_at(question, connection, id).await? else { return Ok(None) };
    let source: HashMap<RecordKey, _> = source_side::look_up(rows, &table, keys).await?;
    let executed = server::executed_gtids(connection).await?;
    if reach(question, id, &executed, DEEP_WAIT_MAX).await? != Reach::All {
        return Ok(None);
    }
    let lake = lake_side::look_up(question, &table, keys).await?;
    let seen = |(key, rows): (&RecordKey, lake_side::KeyRows)| Seen {
        source: source.get(key).map_or(KeyState::Absent, |hash| KeyState::Row(*hash)),
        order: rows.iter().map(|(_, version)| version.order).max().unwrap_or(Order::MIN),
        lake: KeyState::of(rows, table.counting),
    };
    Ok(Some(keys.iter().zip(lake).map(seen).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use weir_model::row_hash::RowHash;

    fn seen(source: u128, lake: u128, seq: i64) -> Seen {
        let state = |hash| if hash == 0 { KeyState::Absent } else { KeyState::Row(RowHash(hash)) };
        Seen { source: state(source), lake: state(lake), order: Order::new(0, seq) }
    }

    /// What is said after these rounds; the rest is not looked at.
    fn judged(rounds: &[Seen]) -> (Option<Judgement>, usize) {
        let mut pending = Pending { at: 0, seen: None, alike: 0, moves: 0 };
        for (n, seen) in rounds.iter().enumerate() {
            match judge(pending, *seen) {
                Ok(judgement) => return (Some(judgement), n + 1),
                Err(again) => pending = again,
            }
        }
        (None, rounds.len())
    }

    #[test]
    fn a_key_that_stays_different_is_a_difference() {
        let rounds = vec![seen(1, 2, 5); DEEP_ROUNDS_ALIKE as usize];
        assert_eq!(judged(&rounds), (Some(Judgement::Confirmed(Finding::Different)), rounds.len()));
        assert_eq!(judged(&rounds[1..]), (None, rounds.len() - 1));
        let gone = vec![seen(0, 2, 5); DEEP_ROUNDS_ALIKE as usize];
        assert_eq!(judged(&gone).0, Some(Judgement::Confirmed(Finding::Extra)));
    }

    #[test]
    fn a_key_that_becomes_equal_or_keeps_changing_is_none() {
        assert_eq!(judged(&[seen(1, 2, 5), seen(1, 1, 6)]), (Some(Judgement::Equal), 2));
        // Written again with the same values: somebody is at it.
        let changing: Vec<Seen> = (0..30).map(|n| seen(1, 2, n / 2)).collect();
        assert_eq!(judged(&changing), (Some(Judgement::Moving), 2 * DEEP_ROUNDS_MOVING as usize + 1));
        // The source goes on, and the lake has what it had.
        let stuck: Vec<Seen> = (0..30).map(|n| seen(n + 2, 1, 5)).collect();
        assert_eq!(judged(&stuck).0, None);
    }
}
