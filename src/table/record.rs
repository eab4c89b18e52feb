//! What an own commit says of itself, so that the newest one alone tells where the table stands.

use serde::{Deserialize, Serialize};
use weir_model::{Absences, Gtid, GtidSet, Order, OrderState, TableSchema};

use super::buckets::Buckets;
use crate::format::Format;
use crate::trace::StageCount;

/// What every own commit repeats.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct TableState {
    /// Epoch of the service that wrote the commit.
    pub epoch: u64,
    /// Number of own commits, this one included; the version of the commit's `txn`.
    pub commits: u64,
    /// Transactions whose changes the table holds (or that do not touch it).
    pub gtid_set: GtidSet,
    /// A transaction that is in the table only in part.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub partial: Option<PartialTransaction>,
    /// The last order handed out to the table's changes and chunks.
    pub order: OrderState,
    /// Greatest order of a change (deletes included) per bucket.
    pub greatest: Vec<Order>,
    /// What each bucket has taken in of its partition of the table's topic; empty on `direct`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub shares: Vec<BucketShare>,
    /// Progress of the load that fills the table; none once it is complete.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seed: Option<SeedProgress>,
    /// The source's columns and record key that the table has.
    pub schema: Option<TableSchema>,
    /// What is known of columns of it that the source has not always had.
    #[serde(default, skip_serializing_if = "Absences::is_empty")]
    pub absences: Absences,
}

/// What a bucket has taken in of its partition of the table's topic.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct BucketShare {
    /// Which incarnation of the topic the offset belongs to: a recreated topic must not look applied.
    pub topic: String,
    /// The next offset to read.
    pub offset: i64,
    /// Number of the last publish of which the bucket holds its part.
    pub publish: u64,
    /// The load under way in this bucket.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seed: Option<SeedProgress>,
}

impl TableState {
    /// Whether the table's buckets are fed one by one, through a topic, and may have several writers.
    pub fn is_shared(&self) -> bool {
        !self.shares.is_empty()
    }

    /// How many buckets the table has.
    pub fn bucket_count(&self) -> u32 {
        if self.is_shared() { self.shares.len() as u32 } else { self.greatest.len().max(1) as u32 }
    }

    /// Greatest order of a change of `bucket`, deletes included.
    pub fn greatest_of(&self, bucket: u32) -> Order {
        self.greatest.get(bucket as usize).copied().unwrap_or(Order::MIN)
    }

    /// Whether a load of `bucket` is under way.
    pub fn is_loading(&self, bucket: u32) -> bool {
        if !self.is_shared() {
            return self.seed.is_some();
        }
        self.shares.get(bucket as usize).is_some_and(|share| share.seed.is_some())
    }

    /// The beginning of a table of `count` buckets: one that has several, or a share of one, has a share of each.
    pub(super) fn of_buckets(mut self, count: u32) -> Self {
        if count > 1 || self.is_shared() {
            self.shares.resize(count as usize, BucketShare::default());
            self.greatest.resize(count as usize, Order::MIN);
        }
        self
    }

    /// This state, worked out behind an earlier one, as it stands behind `newest`: of a shared table it has its say on
    /// the buckets of its writer alone, and what is one for all only ever grows.
    pub(super) fn behind(mut self, newest: &Self, buckets: &Buckets) -> Self {
        self.commits = newest.commits + 1;
        self.epoch = self.epoch.max(newest.epoch);
        if !self.is_shared() {
            return self;
        }
        for bucket in (0..newest.bucket_count()).filter(|bucket| !buckets.owns(*bucket)) {
            let bucket = bucket as usize;
            self.greatest[bucket] = newest.greatest[bucket];
            self.shares[bucket].clone_from(&newest.shares[bucket]);
        }
        self.order = self.order.max(newest.order);
        self.gtid_set = self.gtid_set.union(&newest.gtid_set);
        self.absences = self.absences.joined(&newest.absences);
        self
    }
}

/// A transaction larger than the memory allowed, of which the first row changes are committed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartialTransaction {
    pub gtid: Gtid,
    /// Row changes of this table that the commits hold, counted from the transaction's start.
    pub rows_done: u64,
}

/// Which chunks of a load have been merged.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct SeedProgress {
    /// Number of the plan object that lists the chunks.
    pub plan: u64,
    /// Ordinals of the merged chunks, ascending.
    pub done: Vec<u32>,
    /// Rows below this order, and not touched since, are gone from the source once every chunk of the whole table is merged.
    pub start: Order,
    /// The load is of a part of the table: what it does not find stays, unless a chunk says that it is gone.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub part: bool,
}

/// The `weir` member of an own commit's `commitInfo`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommitRecord {
    #[serde(default)]
    pub format: Format,
    /// Name of the source that the table mirrors.
    pub source: String,
    /// Unique to one attempt at a commit, so that an ambiguous answer can be settled by reading.
    pub commit_id: String,
    pub state: TableState,
    /// What this commit counted.
    pub accounts: Vec<StageCount>,
    /// Files in the table's folder that no version names and that are about to be removed: whoever meant to name one of
    /// them may not, since its version comes after this one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cleans: Vec<String>,
}

impl CommitRecord {
    /// The format that this version writes, also of everything else in the table's folder.
    pub const FORMAT: Format = Format(1);
}

/// A state that may stand behind `before`: nothing that is held is given up.
///
/// # Errors
/// Names the rule that is broken.
pub fn may_follow(before: &TableState, after: &TableState) -> Result<(), &'static str> {
    if after.epoch < before.epoch {
        return Err("the epoch fell");
    }
    if after.commits != before.commits + 1 {
        return Err("own commits are numbered one by one");
    }
    if after.order < before.order {
        return Err("the order state fell");
    }
    if after.greatest.len() < before.greatest.len() || after.greatest.iter().zip(&before.greatest).any(|(a, b)| a < b) {
        return Err("a bucket's greatest order fell");
    }
    if !before.gtid_set.is_subset(&after.gtid_set) {
        return Err("the set of transactions shrank");
    }
    if !after.absences.may_follow(&before.absences) {
        return Err("what is known of columns that the source was without is forgotten");
    }
    shares_may_follow(before, after)
}

/// What must hold of each bucket of a table that is fed through a topic.
fn shares_may_follow(before: &TableState, after: &TableState) -> Result<(), &'static str> {
    if before.shares.len() != after.shares.len() {
        return Err("the number of buckets changed");
    }
    if after.is_shared() && after.greatest.len() != after.shares.len() {
        return Err("not every bucket has a greatest order");
    }
    for (before, after) in before.shares.iter().zip(&after.shares) {
        if before.topic == after.topic && after.offset < before.offset {
            return Err("a bucket's offset in its topic fell");
        }
        if after.publish < before.publish {
            return Err("the number of a bucket's last publish fell");
        }
    }
    Ok(())
}

/// Whether every bucket that `which` picks stands in `after` where it stood in `before`.
pub(super) fn keeps(before: &TableState, after: &TableState, which: impl Fn(u32) -> bool) -> bool {
    let kept = |bucket: usize| {
        before.greatest.get(bucket) == after.greatest.get(bucket)
            && before.shares.get(bucket) == after.shares.get(bucket)
    };
    (0..before.bucket_count()).filter(|bucket| which(*bucket)).all(|bucket| kept(bucket as usize))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_held_may_be_given_up() {
        let set = |text: &str| format!("3e11fa47-71ca-11e1-9e33-c80aa9429562:{text}").parse().unwrap();
        let before = TableState { epoch: 2, commits: 4, gtid_set: set("1-9"), ..TableState::default() };
        let after = TableState { commits: 5, gtid_set: set("1-12"), ..before.clone() };
        assert_eq!(may_follow(&before, &after), Ok(()));
        assert!(may_follow(&before, &TableState { epoch: 1, ..after.clone() }).is_err());
        assert!(may_follow(&before, &TableState { gtid_set: set("2-12"), ..after.clone() }).is_err());
        assert!(may_follow(&before, &TableState { commits: 4, ..after }).is_err());
    }

    #[test]
    fn greatest_orders_neither_fall_nor_go() {
        let greatest = |seqs: &[i64]| seqs.iter().map(|seq| Order::new(1, *seq)).collect();
        let before = TableState { commits: 4, greatest: greatest(&[3, 5]), ..TableState::default() };
        let after = |seqs| TableState { commits: 5, greatest: greatest(seqs), ..before.clone() };
        assert_eq!(may_follow(&before, &after(&[3, 6])), Ok(()));
        assert_eq!(may_follow(&before, &after(&[3, 5, 1])), Ok(()));
        for fallen in [&[3, 4][..], &[9], &[]] {
            assert!(may_follow(&before, &after(fallen)).is_err(), "{fallen:?}");
        }
    }

    fn shared(offsets: &[i64]) -> TableState {
        let share = |offset: &i64| BucketShare { topic: "t1".into(), offset: *offset, publish: 7, seed: None };
        let state = TableState { commits: 4, shares: offsets.iter().map(share).collect(), ..TableState::default() };
        state.of_buckets(offsets.len() as u32)
    }

    fn next(before: &TableState, change: impl FnOnce(&mut TableState)) -> TableState {
        let mut after = TableState { commits: before.commits + 1, ..before.clone() };
        change(&mut after);
        after
    }

    #[test]
    fn an_offset_falls_only_with_another_topic_and_a_publish_never() {
        let before = shared(&[5, 9]);
        assert_eq!(may_follow(&before, &next(&before, |state| state.shares[1].offset = 12)), Ok(()));
        assert!(may_follow(&before, &next(&before, |state| state.shares[1].offset = 8)).is_err());
        assert!(may_follow(&before, &next(&before, |state| state.shares[0].publish = 6)).is_err());
        let recreated = |state: &mut TableState| {
            state.shares[1] = BucketShare { topic: "t2".into(), publish: 7, ..BucketShare::default() };
        };
        assert_eq!(may_follow(&before, &next(&before, recreated)), Ok(()));
    }

    #[test]
    fn the_number_of_buckets_never_changes() {
        let before = shared(&[5, 9]);
        for count in [0, 1, 3] {
            let resized = |state: &mut TableState| state.shares.resize(count, BucketShare::default());
            assert!(may_follow(&before, &next(&before, resized)).is_err(), "{count}");
        }
        assert!(may_follow(&before, &next(&before, |state| state.greatest.push(Order::MIN))).is_err());
    }

    #[test]
    fn behind_another_writers_commit_a_state_speaks_of_its_own_buckets_alone() {
        let begun = shared(&[5, 9, 2]);
        let buckets = Buckets { count: 3, owned: [1].into() };
        let ours = next(&begun, |state| {
            state.shares[1].offset = 12;
            state.greatest[1] = Order::new(1, 4);
            state.order = OrderState(Order::new(1, 4));
        });
        let newest = TableState { epoch: 3, commits: 9, order: OrderState(Order::new(1, 8)), ..shared(&[6, 9, 4]) };
        assert!(keeps(&begun, &newest, |bucket| buckets.owns(bucket)));
        let both = ours.behind(&newest, &buckets);
        assert_eq!(both.shares, shared(&[6, 12, 4]).shares);
        assert_eq!(both.greatest, [Order::MIN, Order::new(1, 4), Order::MIN]);
        assert_eq!((both.epoch, both.commits, both.order), (3, 10, newest.order));
        assert_eq!(may_follow(&newest, &both), Ok(()));
        assert!(keeps(&newest, &both, |bucket| !buckets.owns(bucket)));
    }
}
