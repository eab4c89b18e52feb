//! Looks at the tables' logs for how far they have come: whoever captures may be another process than those that apply.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use weir_model::TableId;

use crate::apply::Report;
use crate::limits::{LAKE_LOOKED_AT_EVERY, LAKE_LOOKS_IDLE_MAX};
use crate::table::{BucketShare, Warehouse, history};
use crate::trace::StageCount;
use crate::transport::PublishNumber;
use crate::transport::kafka::position::Position;

/// Asks the watch; clones ask the same.
#[derive(Debug, Clone)]
pub struct LakeWatch {
    asked: mpsc::UnboundedSender<Asked>,
}

#[derive(Debug)]
enum Asked {
    /// A publish is durable: these buckets will take it in.
    Published { number: PublishNumber, touched: BTreeMap<TableId, Vec<Need>> },
    /// Tell when the table holds everything up to that publish.
    Wait { table: TableId, number: PublishNumber, reply: oneshot::Sender<()> },
    /// Nobody waits for the table any more.
    Forget { table: TableId },
}

impl LakeWatch {
    /// Watches in a task of its own, and reports what tables have committed.
    pub fn start(warehouse: Warehouse, reports: mpsc::UnboundedSender<Report>) -> Self {
        let (asked, inbox) = mpsc::unbounded_channel();
        tokio::spawn(
            Watching { warehouse, reports, newest: PublishNumber(0), tables: BTreeMap::new(), waits: Vec::new() }
                .run(inbox),
        );
        Self { asked }
    }

    /// A publish is durable, and went to these buckets.
    pub fn published(&self, number: PublishNumber, touched: &BTreeMap<TableId, Vec<u32>>) {
        let needs =
            |buckets: &Vec<u32>| buckets.iter().map(|bucket| Need::Publish { bucket: *bucket, number }).collect();
        let touched = touched.iter().map(|(table, buckets)| (table.clone(), needs(buckets))).collect();
        let _ = self.asked.send(Asked::Published { number, touched });
    }

    /// What was published before this incarnation: `tables` have to have what `position` says was written for them.
    pub fn goes_on_from(&self, position: &Position, tables: &[TableId]) {
        let needs = |ends: &BTreeMap<u32, i64>| {
            ends.iter().map(|(bucket, end)| Need::Offset { bucket: *bucket, offset: *end }).collect()
        };
        let written = tables.iter().filter_map(|table| Some((table.clone(), needs(position.ends.get(table)?))));
        let _ = self.asked.send(Asked::Published { number: position.publish, touched: written.collect() });
    }

    pub fn forget(&self, table: &TableId) {
        let _ = self.asked.send(Asked::Forget { table: table.clone() });
    }

    /// Returns once every bucket of `table` holds publish `number`; false if the watch has ended.
    pub async fn reached(&self, table: &TableId, number: PublishNumber) -> bool {
        let (reply, reached) = oneshot::channel();
        let _ = self.asked.send(Asked::Wait { table: table.clone(), number, reply });
        reached.await.is_ok()
    }
}

/// What a bucket has to have taken in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Need {
    /// This publish.
    Publish { bucket: u32, number: PublishNumber },
    /// The message at this offset.
    Offset { bucket: u32, offset: i64 },
}

impl Need {
    fn is_met(self, shares: &[BucketShare]) -> bool {
        let share = |bucket: u32| shares.get(bucket as usize);
        match self {
            Self::Publish { bucket, number } => share(bucket).is_some_and(|share| share.publish >= number.0),
            Self::Offset { bucket, offset } => share(bucket).is_some_and(|share| share.offset > offset),
        }
    }
}

/// What one table has yet to take in.
#[derive(Debug, Default)]
struct Lagging {
    outstanding: VecDeque<(PublishNumber, Vec<Need>)>,
    /// Its newest version that was looked at, and where its buckets stood.
    seen: Option<(i64, Vec<BucketShare>)>,
    /// Commits that were looked at and not yet reported: version, and what they counted.
    commits: Vec<(i64, Vec<StageCount>)>,
    /// Looks in a row that showed nothing.
    idle_looks: u32,
}

impl Lagging {
    /// The last publish that is in, of those that were outstanding; they go.
    fn settle(&mut self) -> Option<PublishNumber> {
        let (_, shares) = self.seen.as_ref()?;
        let mut last = None;
        while let Some((number, needs)) = self.outstanding.front() {
            if !needs.iter().all(|need| need.is_met(shares)) {
                break;
            }
            last = Some(*number);
            self.outstanding.pop_front();
        }
        last
    }
}

struct Watching {
    warehouse: Warehouse,
    reports: mpsc::UnboundedSender<Report>,
    /// The newest publish that is durable.
    newest: PublishNumber,
    tables: BTreeMap<TableId, Lagging>,
    waits: Vec<(TableId, PublishNumber, oneshot::Sender<()>)>,
}

impl Watching {
    async fn run(mut self, mut inbox: mpsc::UnboundedReceiver<Asked>) {
        loop {
            let lags = self.tables.values().any(|table| !table.outstanding.is_empty());
            let pause = if lags || !self.waits.is_empty() { LAKE_LOOKED_AT_EVERY } else { Duration::from_secs(3600) };
            match tokio::time::timeout(pause, inbox.recv()).await {
                Ok(Some(asked)) => {
                    self.take_in(asked);
                    // What else has come meanwhile; then a pause, whatever comes: the tables are not looked at for each.
                    tokio::time::sleep(LAKE_LOOKED_AT_EVERY).await;
                    while let Ok(asked) = inbox.try_recv() {
                        self.take_in(asked);
                    }
                }
                Ok(None) => return,
                Err(_) => {}
            }
            self.look().await;
        }
    }

    fn take_in(&mut self, asked: Asked) {
        match asked {
            Asked::Published { number, touched } => {
                self.newest = self.newest.max(number);
                for (table, needs) in touched {
                    self.tables.entry(table).or_default().outstanding.push_back((number, needs));
                }
            }
            Asked::Wait { table, number, reply } => self.waits.push((table, number, reply)),
            Asked::Forget { table } => {
                self.tables.remove(&table);
                self.waits.retain(|(waiting, _, _)| *waiting != table);
            }
        }
    }

    async fn look(&mut self) {
        for (table, lagging) in &mut self.tables {
            if lagging.outstanding.is_empty() {
                continue;
            }
            if let Err(error) = look_at(&self.warehouse, table, lagging).await {
                tracing::warn!(%table, %error, "how far the table is cannot be seen; looking again");
                continue;
            }
            let settled = lagging.settle();
            let commits = std::mem::take(&mut lagging.commits);
            let count = commits.len();
            for (n, (version, accounts)) in commits.into_iter().enumerate() {
                let number = settled.filter(|_| n + 1 == count);
                let _ = self.reports.send(Report::Committed { table: table.clone(), number, version, accounts });
            }
            // Everything was in before the first look.
            if let (Some(number), 0) = (settled, count) {
                let _ = self.reports.send(Report::Reached { table: table.clone(), number });
            }
        }
        let (newest, tables) = (self.newest, &self.tables);
        let reached = |table: &TableId, number: PublishNumber| {
            let first = tables.get(table).and_then(|lagging| lagging.outstanding.front());
            number <= newest && first.is_none_or(|(first, _)| *first > number)
        };
        for (table, number, reply) in std::mem::take(&mut self.waits) {
            if reached(&table, number) {
                let _ = reply.send(());
            } else if !reply.is_closed() {
                self.waits.push((table, number, reply));
            }
        }
    }
}

/// Takes in the commits that are new.
async fn look_at(
    warehouse: &Warehouse,
    table: &TableId,
    lagging: &mut Lagging,
) -> Result<(), crate::table::TableError> {
    match &lagging.seen {
        None => {
            if let Some(figures) = history::figures(warehouse, table).await? {
                let shares = figures.state.map(|state| state.shares).unwrap_or_default();
                lagging.seen = Some((figures.version, shares));
            }
        }
        Some((version, _)) => {
            let commits = history::commits_since(warehouse, table, Some(*version)).await?;
            lagging.idle_looks = if commits.is_empty() { lagging.idle_looks + 1 } else { 0 };
            if lagging.idle_looks >= LAKE_LOOKS_IDLE_MAX {
                // It may have been made anew, and count its versions from 0 again.
                (lagging.seen, lagging.idle_looks) = (None, 0);
            }
            for commit in commits {
                let before = lagging.seen.take().map(|(_, shares)| shares).unwrap_or_default();
                let (shares, accounts) =
                    commit.record.map_or((before, Vec::new()), |record| (record.state.shares, record.accounts));
                lagging.seen = Some((commit.version, shares));
                lagging.commits.push((commit.version, accounts));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shares(publishes: &[u64]) -> Vec<BucketShare> {
        publishes.iter().map(|publish| BucketShare { publish: *publish, ..BucketShare::default() }).collect()
    }

    #[test]
    fn a_publish_is_in_when_every_bucket_that_it_touched_has_it() {
        let mut lagging = Lagging::default();
        let need = |number: u64, buckets: &[u32]| {
            let number = PublishNumber(number);
            (number, buckets.iter().map(|bucket| Need::Publish { bucket: *bucket, number }).collect())
        };
        lagging.outstanding.extend([need(4, &[0, 1]), need(5, &[1]), need(6, &[0])]);
        assert_eq!(lagging.settle(), None);
        lagging.seen = Some((3, shares(&[4, 3, 0])));
        assert_eq!(lagging.settle(), None);
        lagging.seen = Some((4, shares(&[4, 5, 0])));
        assert_eq!(lagging.settle(), Some(PublishNumber(5)));
        lagging.seen = Some((5, shares(&[9, 5])));
        assert_eq!(lagging.settle(), Some(PublishNumber(6)));
        assert_eq!(lagging.settle(), None);
    }
}
