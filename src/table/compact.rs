//! Compaction: small files become larger ones, files of which much is dead are written again without it, and those that
//! may hold several buckets, which foreign writers leave, become one a bucket.
//!
//! What to compact is decided by [`pick`], which is pure. The files are read and written beside the writer
//! ([`Rewriting::run`]); the writer then commits what came of it, with the rows that died meanwhile marked in the new
//! files.

use std::collections::BTreeMap;

use super::change::CommitOutcome;
use super::commit::Ended;
use super::files::DataFile;
use super::partition::PartitionValues;
use super::rewrite::{Input, Rewriting, Rewritten, RowsOf};
use super::stage::Staged;
use super::{Table, TableError};
use crate::failpoint;
use crate::limits::{
    COMPACT_BYTES_MAX, COMPACT_DEAD_SHARE, COMPACT_FILES_MAX, COMPACT_FILES_MIN, COMPACT_SMALL_BYTES, COMPACT_TIER,
    UPKEEP_TRIES_MAX,
};

/// How much is worth compacting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effort {
    /// What pays: as the service does it all the time. Each row is written again a few times in its life.
    Steady,
    /// Everything that is small or has a dead row.
    Full,
}

/// What a decision rests on.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Candidate {
    number: u32,
    bytes: u64,
    rows: u64,
    dead: u64,
}

impl Candidate {
    fn of(number: u32, file: &DataFile) -> Self {
        Self { number, bytes: file.add.size as u64, rows: u64::from(file.rows), dead: file.dead.len() }
    }

    fn is_small(&self) -> bool {
        self.bytes < COMPACT_SMALL_BYTES
    }

    /// Files of one tier differ by less than the tier's factor, so that what is merged grows by as much each time.
    fn tier(&self) -> u32 {
        self.bytes.max(1).ilog(COMPACT_TIER)
    }

    /// Bytes that are left once the dead are gone.
    fn bytes_live(&self) -> u64 {
        (self.bytes as u128 * u128::from(self.rows - self.dead) / u128::from(self.rows.max(1))) as u64
    }

    fn is_half_dead(&self, effort: Effort) -> bool {
        match effort {
            Effort::Steady => self.dead * 100 >= self.rows * COMPACT_DEAD_SHARE,
            Effort::Full => self.dead > 0,
        }
    }
}

/// Files of one bucket and partition that are to become one; none if it does not pay.
fn pick(candidates: &[Candidate], effort: Effort) -> Vec<u32> {
    let at_least = match effort {
        Effort::Steady => COMPACT_FILES_MIN,
        Effort::Full => 2,
    };
    let mut tiers: BTreeMap<u32, Vec<&Candidate>> = BTreeMap::new();
    for candidate in candidates.iter().filter(|candidate| candidate.is_small()) {
        // By command the tiers count for nothing: few files are wanted.
        let tier = if effort == Effort::Full { 0 } else { candidate.tier() };
        tiers.entry(tier).or_default().push(candidate);
    }
    // The smallest first: they are the most, and soon done.
    for mut tier in tiers.into_values().filter(|tier| tier.len() >= at_least) {
        tier.sort_by_key(|candidate| candidate.number);
        let picked = bounded(tier.into_iter());
        if picked.len() >= at_least.min(2) {
            return picked;
        }
    }
    // One with more dead rows than others gains most.
    let mut half_dead: Vec<&Candidate> = candidates.iter().filter(|candidate| candidate.is_half_dead(effort)).collect();
    half_dead.sort_by_key(|candidate| std::cmp::Reverse(candidate.dead * 1_000 / candidate.rows.max(1)));
    bounded(half_dead.into_iter())
}

/// As many as may be written again at once.
fn bounded<'a>(candidates: impl Iterator<Item = &'a Candidate>) -> Vec<u32> {
    let mut bytes = 0;
    let fits = candidates.take(COMPACT_FILES_MAX).take_while(|candidate| {
        let first = bytes == 0;
        bytes += candidate.bytes_live().max(1);
        first || bytes <= COMPACT_BYTES_MAX
    });
    fits.map(|candidate| candidate.number).collect()
}

impl Table {
    /// What is to be compacted next, if anything pays.
    pub fn compaction(&self, effort: Effort) -> Option<Rewriting> {
        if let Some(splitting) = self.splitting() {
            return Some(splitting);
        }
        let mut groups: BTreeMap<_, Vec<Candidate>> = BTreeMap::new();
        for (&number, file) in &self.files {
            let Some(bucket) = file.bucket else { continue };
            groups.entry((bucket, &file.add.partition_values)).or_default().push(Candidate::of(number, file));
        }
        let picked = groups.into_iter().map(|((bucket, _), group)| (bucket, pick(&group, effort)));
        let (bucket, numbers) = picked.max_by_key(|(_, numbers)| numbers.len()).filter(|(_, n)| !n.is_empty())?;
        Some(self.rewriting(RowsOf::One(bucket), &numbers))
    }

    /// Files that may hold several buckets, to become one a bucket: every commit of any owner that touches one moves all
    /// the others. One of the owners sees to it, that of the first bucket.
    fn splitting(&self) -> Option<Rewriting> {
        if !self.buckets().owns(0) {
            return None;
        }
        let mut groups: BTreeMap<_, Vec<Candidate>> = BTreeMap::new();
        for (&number, file) in self.files.iter().filter(|(_, file)| file.bucket.is_none()) {
            groups.entry(&file.add.partition_values).or_default().push(Candidate::of(number, file));
        }
        let numbers = groups.into_values().map(|group| bounded(group.iter())).max_by_key(Vec::len)?;
        Some(self.rewriting(RowsOf::Several { count: self.buckets().count }, &numbers))
    }

    /// Files of one partition, with `rows_of` these buckets, to be written again.
    fn rewriting(&self, rows_of: RowsOf, numbers: &[u32]) -> Rewriting {
        let inputs = numbers.iter().map(|number| {
            let DataFile { add, rows, dead, .. } = self.files[number].clone();
            Input { number: *number, add, rows, dead }
        });
        let inputs: Vec<Input> = inputs.collect();
        let partition = inputs.first().map(|input| PartitionValues::of_entry(&self.schema.layout, &input.add));
        let (schema, partition) = (self.schema.clone(), partition.unwrap_or_default());
        Rewriting { files: self.files(), schema, rows_of, partition, inputs }
    }

    /// Puts the new files in the place of those that they were made of. `None` if one of them is gone, or the columns have
    /// changed: then it was in vain.
    ///
    /// Beside other writers what they have done to the files is taken in, as [`Table::absorb`] does, and the commit worked
    /// out again behind it, a bounded number of times.
    ///
    /// # Errors
    /// As [`Table::commit`] and [`Table::absorb`].
    pub async fn commit_rewritten(&mut self, rewritten: Rewritten) -> Result<Option<CommitOutcome>, TableError> {
        // Of a table that is not shared the writer must learn that its source's changes have come in elsewhere.
        let tries = if self.state.is_shared() { UPKEEP_TRIES_MAX } else { 1 };
        let mut lost = None;
        for _ in 0..tries {
            if lost.is_some() {
                self.absorb().await?;
            }
            if !rewritten.may_replace(self) {
                lost = None;
                break;
            }
            let staged = self.stage_rewritten(&rewritten).await?;
            match self.end_staged(staged).await? {
                Ended::In(outcome) => {
                    failpoint::reach(failpoint::COMPACTION_COMMITTED);
                    return Ok(Some(outcome));
                }
                // Whether the new files are named is not known: they stay.
                Ended::Unread => return Ok(Some(CommitOutcome::Moved)),
                Ended::Lost(outcome) => lost = Some(outcome),
            }
        }
        rewritten.discard().await;
        Ok(lost)
    }

    async fn stage_rewritten(&self, rewritten: &Rewritten) -> Result<Staged, TableError> {
        let Rewritten { partition, schema, inputs, outputs, .. } = rewritten;
        let mut staged = Staged::of_upkeep("OPTIMIZE", self.next_state(self.state.clone(), &self.schema)?, self);
        let died = rewritten.died(self);
        for output in outputs {
            let dead = output.of(&died);
            if dead.len() == u64::from(output.rows) {
                staged.leftover.push(output.path.clone());
            } else {
                staged.new_files.push(output.in_table(schema, partition, dead, staged.at_ms));
            }
        }
        staged.deaths.files.extend(inputs.iter().map(|input| input.number));
        self.stage_vectors(&mut staged).await?;
        Ok(staged)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn file(number: u32, bytes: u64, dead: u64) -> Candidate {
        Candidate { number, bytes, rows: 1_000, dead }
    }

    #[test]
    fn small_files_of_like_size_are_merged_once_there_are_enough() {
        let few: Vec<Candidate> = (0..COMPACT_FILES_MIN as u32 - 1).map(|n| file(n, 20_000, 0)).collect();
        assert!(pick(&few, Effort::Steady).is_empty());
        let enough: Vec<Candidate> = (0..COMPACT_FILES_MIN as u32).map(|n| file(n, 20_000, 0)).collect();
        assert_eq!(pick(&enough, Effort::Steady).len(), COMPACT_FILES_MIN);
        let one_larger = [few, vec![file(99, 6 * MIB, 0)]].concat();
        assert!(pick(&one_larger, Effort::Steady).is_empty());
        assert_eq!(pick(&one_larger, Effort::Full).len(), COMPACT_FILES_MIN);
    }

    #[test]
    fn large_files_are_written_again_only_for_their_dead_rows() {
        let large: Vec<Candidate> = (0..40).map(|n| file(n, 20 * MIB, 10)).collect();
        assert!(pick(&large, Effort::Steady).is_empty());
        let dying = [large, vec![file(77, 20 * MIB, 10 * COMPACT_DEAD_SHARE)]].concat();
        assert_eq!(pick(&dying, Effort::Steady), [77]);
    }

    #[test]
    fn what_becomes_one_file_is_bounded() {
        let many: Vec<Candidate> = (0..1_000).map(|n| file(n, 7 * MIB, 0)).collect();
        let picked = pick(&many, Effort::Steady);
        assert!(picked.len() as u64 * 7 * MIB <= COMPACT_BYTES_MAX);
        let tiny: Vec<Candidate> = (0..1_000).map(|n| file(n, 100, 0)).collect();
        assert_eq!(pick(&tiny, Effort::Steady).len(), COMPACT_FILES_MAX);
        let huge = [file(1, 4 * COMPACT_BYTES_MAX, 900)];
        assert_eq!(pick(&huge, Effort::Steady), [1]);
    }

    #[test]
    fn nothing_is_left_to_do_after_a_full_one() {
        assert!(pick(&[file(1, 6 * MIB, 0), file(2, 60 * MIB, 0)], Effort::Full).is_empty());
    }
}
