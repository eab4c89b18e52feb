//! Compares the rows of every table with the source's, range by range, so that each is proven equal within a given time.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use weir_model::{RecordKey, TableId, clock};

use super::book::Book;
use super::due::{self, Due, Postponed, next, retry_after};
use crate::limits::{PROOF_KEYS_SHOWN_MAX, PROVEN_PART_CHUNKS, PROVING_PLAN_KEPT};
use crate::reconcile::Verdict;
use crate::reconcile::deep::{
    DeepError, DeepQuestion, DeepReport, NotCompared, Part, Recheck, compare_only, plan_parts,
};
use crate::service::ms;
use crate::state::StateError;
use crate::state::proofs::{Found, Proofs, TableProof};

/// Compares rows until it is dropped.
pub struct RowProver {
    question: DeepQuestion,
    book: Arc<Book>,
    within: Duration,
    plans: BTreeMap<TableId, Plan>,
    postponed: Postponed,
}

/// How the ranges of a table lie.
struct Plan {
    key: Vec<String>,
    parts: Vec<Part>,
    made: Instant,
}

impl Plan {
    /// The part that holds `from`.
    fn part_at(&self, from: Option<&RecordKey>) -> &Part {
        let from = from.map(RecordKey::as_ref);
        let holds = |part: &&Part| part.cut.to().is_none_or(|to| Some(to.as_ref()) > from);
        self.parts.iter().find(holds).expect("the last part has no end")
    }
}

impl RowProver {
    pub fn new(question: DeepQuestion, book: Arc<Book>, within: Duration) -> Self {
        Self { question, book, within, plans: BTreeMap::new(), postponed: Postponed::default() }
    }

    pub async fn run(mut self) {
        loop {
            let pause = match self.step().await {
                Ok(pause) => pause,
                Err(error) => {
                    tracing::warn!(%error, "rows are compared later");
                    retry_after(self.within)
                }
            };
            tokio::time::sleep(pause).await;
        }
    }

    /// Compares the range that is due, if one is; how long to pause then.
    async fn step(&mut self) -> Result<Duration, StateError> {
        let now_ms = clock::now_ms();
        let streaming = self.book.streaming();
        self.plans.retain(|table, plan| streaming.contains(table) && plan.made.elapsed() < PROVING_PLAN_KEPT);
        self.postponed.forget_before(now_ms);
        let (postponed, within) = (&self.postponed, self.within);
        let due = self.book.with(|proofs, _| {
            let tables = streaming.iter().filter(|table| !postponed.is(table, now_ms));
            next(tables.map(|table| (table, proofs.tables.get(table).map(|proof| &proof.ranges))), within, now_ms)
        });
        let Some(due) = due.await? else {
            self.book.write(false).await?;
            return Ok(due::pause_idle(self.within));
        };
        let began = Instant::now();
        match self.compare(&due).await {
            Ok(Ok((part, key, report))) => self.note(&due.table, &key, &part, &report, now_ms).await?,
            Ok(Err(NotCompared(why))) => self.postpone(&due.table, why, now_ms).await?,
            Err(error) => {
                tracing::warn!(table = %due.table, %error, "rows could not be compared; they are looked at again");
                self.plans.remove(&due.table);
                self.postpone(&due.table, error.to_string(), now_ms).await?;
            }
        }
        self.book.write(false).await?;
        Ok(due::pause_after(began.elapsed(), due.is_late))
    }

    async fn compare(&mut self, due: &Due) -> Result<Result<(Part, Vec<String>, DeepReport), NotCompared>, DeepError> {
        let table = &due.table;
        if !self.plans.contains_key(table) {
            match plan_parts(&self.question, table, PROVEN_PART_CHUNKS).await? {
                Ok((key, parts)) => {
                    self.plans.insert(table.clone(), Plan { key, parts, made: Instant::now() });
                }
                Err(why) => return Ok(Err(why)),
            }
        }
        let plan = &self.plans[table];
        let (part, key) = (plan.part_at(due.from.as_ref()).clone(), plan.key.clone());
        let compared = compare_only(&self.question, &Recheck, table, &part).await;
        // Nobody shows it.
        self.question.progress.remove(table);
        Ok(compared?.map(|report| (part, key, report)))
    }

    async fn note(
        &mut self,
        table: &TableId,
        key: &[String],
        part: &Part,
        report: &DeepReport,
        began_ms: i64,
    ) -> Result<(), StateError> {
        let (from, to) = (part.cut.from(), part.cut.to());
        let (before, after) = self
            .book
            .with(|proofs, is_dirty| {
                *is_dirty = true;
                let proof = proofs.tables.entry(table.clone()).or_default();
                proof.expect_key(key);
                proof.not_compared = None;
                let before = proof.ranges.found(0);
                match found(report, began_ms) {
                    None => proof.ranges.note_equal(from, to, began_ms),
                    Some(found) => proof.ranges.note_found(from, to, found),
                }
                (before, proof.ranges.found(0))
            })
            .await?;
        let counts = |found: &Found| (found.missing, found.extra, found.different, found.lost_files);
        if after.is_difference() && counts(&after) != counts(&before) {
            let Found { missing, extra, different, lost_files, .. } = after;
            tracing::error!(
                %table, missing, extra, different, lost_files,
                "the lake does not hold what the source has; `weir reconcile --deep --table {table}` names the keys, --repair mends them"
            );
            self.book.write(true).await?;
        } else if before.is_difference() && !after.is_difference() {
            tracing::info!(%table, "the lake holds again what the source has, in all that was compared");
        }
        Ok(())
    }

    async fn postpone(&mut self, table: &TableId, why: String, now_ms: i64) -> Result<(), StateError> {
        self.postponed.until(table, now_ms.saturating_add(ms(retry_after(self.within))));
        self.book.with(|proofs, is_dirty| *is_dirty |= note_not_compared(proofs, table, why)).await
    }
}

/// Whether that is news.
fn note_not_compared(proofs: &mut Proofs, table: &TableId, why: String) -> bool {
    let proof: &mut TableProof = proofs.tables.entry(table.clone()).or_default();
    let is_news = proof.not_compared.as_ref() != Some(&why);
    proof.not_compared = Some(why);
    is_news
}

/// What a report found; none if all was equal, but for keys that nobody could catch standing still: to wait for those would
/// mean that a table with a busy counter is never proven.
fn found(report: &DeepReport, at_ms: i64) -> Option<Found> {
    let settled = DeepReport { in_flight_count: report.in_flight_count - report.moving_count, ..report.clone() };
    if settled.verdict() == Verdict::Balanced {
        return None;
    }
    let shown = [&report.missing, &report.extra, &report.different];
    let keys = shown.into_iter().flatten().take(PROOF_KEYS_SHOWN_MAX);
    Some(Found {
        at_ms,
        missing: report.missing_count,
        extra: report.extra_count,
        different: report.different_count,
        in_flight: report.in_flight_count + report.unconfirmed_count,
        lost_files: report.flaws.lost_files.len() as u64,
        keys: keys.filter_map(|key| serde_json::to_value(key).ok()).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_settled_and_equal_is_proven() {
        assert_eq!(found(&DeepReport::default(), 5), None);
        let unsettled = found(&DeepReport { in_flight_count: 2, ..DeepReport::default() }, 5).unwrap();
        assert!(!unsettled.is_difference() && unsettled.in_flight == 2);
        assert_eq!(found(&DeepReport { in_flight_count: 2, moving_count: 2, ..DeepReport::default() }, 5), None);
        let different = found(&DeepReport { extra_count: 1, ..DeepReport::default() }, 5).unwrap();
        assert!(different.is_difference() && different.at_ms == 5);
    }

    #[test]
    fn why_a_table_is_not_compared_is_told_once() {
        let (mut proofs, table) = (Proofs::default(), TableId::new("shop", "log"));
        assert!(note_not_compared(&mut proofs, &table, "no key".into()));
        assert!(!note_not_compared(&mut proofs, &table, "no key".into()));
        assert!(note_not_compared(&mut proofs, &table, "it is being loaded".into()));
    }
}
