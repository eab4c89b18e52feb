//! What leaves capture, and when: batches, the position with them, and markers in their place.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use weir_model::{Gtid, GtidSet, TableId};

use super::request::{Registrar, Told};
use super::{Capture, CaptureError};
use crate::failpoint;
use crate::figures::counters;
use crate::state::Phase;
use crate::transport::{Item, Marker, Publish, PublishError, PublishNumber, Publisher};

impl<P: Publisher, R: Registrar> Capture<P, R> {
    /// Sends the markers of the chunks whose upper bound the stream has passed, behind everything before it.
    pub(super) async fn release_chunks(&mut self) -> Result<(), CaptureError> {
        self.begin_loads().await?;
        let mut ready = Vec::new();
        for chunk in std::mem::take(&mut self.waiting) {
            let void = chunk.server_uuid != self.server_uuid
                || self.lane(&chunk.table).is_none_or(|lane| lane.generation() != chunk.generation);
            let log = &self.position.log;
            let passed = !log.file.is_empty() && log.has_passed(&chunk.upper).unwrap_or(false);
            if void {
                let _ = chunk.sent.send(None);
            } else if passed {
                ready.push(chunk);
            } else {
                self.waiting.push(chunk);
            }
        }
        // One a publish: the buckets of a table take in a marker together.
        for chunk in ready {
            let marker = Marker::Chunk { chunk: chunk.chunk, content: chunk.content };
            let number = self.send_marker(chunk.table, marker).await?;
            let _ = chunk.sent.send(Some(number));
        }
        Ok(())
    }

    /// Sends everything collected, and the position even if there is nothing else. In mid-transaction the position
    /// is that before the transaction, and every table's batch says how much of it is in.
    pub(super) async fn publish(&mut self) -> Result<(), CaptureError> {
        self.prepared.make_durable().await?;
        let open = self.open.as_ref().filter(|open| !open.skip && open.has_rows).map(|open| open.head.gtid.clone());
        // One that was sent in part before this connection, and has not come again yet, is still sent in part.
        let before = self.published.partial.clone().filter(|gtid| !self.position.gtid_set.contains(gtid));
        let begins = open.is_some() && open != before;
        let partial = open.or(before);
        self.position.partial = partial.clone();
        let mut items = std::mem::take(&mut self.queued);
        if begins || partial.is_none() {
            self.published_partial.clear();
        }
        for (table, lane) in &mut self.lanes {
            let Some(lane) = lane else { continue };
            self.order = self.order.max(lane.last_order());
            items.extend(lane.seal().into_iter().map(|changes| (table.clone(), Item::Changes(changes))));
            if partial.is_some() && lane.rows_in_transaction() > 0 {
                self.published_partial.insert(table.clone(), lane.rows_in_transaction());
            }
        }
        // Nobody takes in what is sent to a table that has stopped.
        self.unfinished.retain(|table, _| self.lanes.get(table).is_some_and(Option::is_some));
        end_transactions(&mut self.unfinished, &self.position.gtid_set, &mut items, self.settings.shares_order);
        if let Some(gtid) = partial {
            self.unfinished.extend(self.published_partial.keys().map(|table| (table.clone(), gtid.clone())));
        }
        let (bytes, since) = (std::mem::take(&mut self.pending_bytes), self.pending_since.take());
        let standings: Vec<_> = std::mem::take(&mut self.standings).into_iter().collect();
        if items.is_empty() && standings.is_empty() && self.position == self.published {
            return Ok(());
        }
        self.number.0 += 1;
        let boundary = Arc::new(self.position.clone());
        let tables: BTreeSet<TableId> = items.iter().map(|(table, _)| table.clone()).collect();
        self.tell(Told::Published {
            number: self.number,
            boundary: boundary.clone(),
            tables: tables.into_iter().collect(),
        });
        let partial_rows = self.published_partial.clone();
        failpoint::reach(failpoint::PUBLISH_BEFORE);
        self.hand_over(Publish { number: self.number, boundary, items, order: self.order, partial_rows, standings })
            .await?;
        failpoint::reach(failpoint::PUBLISH_AFTER);
        counters().published(bytes, since.filter(|_| bytes > 0).map(|since| since.elapsed()));
        self.published = self.position.clone();
        self.prepared.published(&self.published.gtid_set);
        Ok(())
    }

    /// Hands a publish to the transport; without the items of a table that cannot travel, which stops.
    async fn hand_over(&mut self, publish: Publish) -> Result<(), CaptureError> {
        let mut next = publish;
        loop {
            match self.publisher.publish(next).await {
                Ok(()) => return Ok(()),
                Err(PublishError::Refused { table, why, publish }) => {
                    next = *publish;
                    next.items.retain(|(other, _)| *other != table);
                    next.partial_rows.remove(&table);
                    self.published_partial.remove(&table);
                    self.stop_table(&table, why);
                    // Durable in the very publish that passes it by.
                    next.standings.extend(std::mem::take(&mut self.standings));
                }
                Err(error) => return Err(CaptureError::Publisher(error)),
            }
        }
    }

    /// Sends a marker in a publish of its own, behind everything collected before it. Returns that publish's number.
    pub(super) async fn send_marker(&mut self, table: TableId, marker: Marker) -> Result<PublishNumber, CaptureError> {
        self.publish().await?;
        self.send_alone(table, marker).await
    }

    /// Sends a marker together with the standing that it brings: neither must be durable without the other.
    pub(super) async fn send_standing(
        &mut self,
        table: TableId,
        phase: Phase,
        plan: u64,
        marker: Marker,
    ) -> Result<PublishNumber, CaptureError> {
        self.publish().await?;
        self.stand(&table, phase, None);
        if let Some(standing) = self.standings.get_mut(&table) {
            standing.plan = plan;
        }
        self.send_alone(table, marker).await
    }

    async fn send_alone(&mut self, table: TableId, marker: Marker) -> Result<PublishNumber, CaptureError> {
        self.queued.push((table, Item::Marker(marker)));
        self.publish().await?;
        Ok(self.number)
    }
}

/// Tells the tables that hold back a part of a transaction in `complete` that it is whole, unless they are sent changes
/// anyway, which say so themselves; but to a bucket that gets none they say nothing, so a table `in_buckets` is told before
/// them.
fn end_transactions(
    unfinished: &mut BTreeMap<TableId, Gtid>,
    complete: &GtidSet,
    items: &mut Vec<(TableId, Item)>,
    in_buckets: bool,
) {
    let sent: BTreeSet<TableId> = items.iter().map(|(table, _)| table.clone()).collect();
    let mut ends = Vec::new();
    unfinished.retain(|table, gtid| {
        let ended = complete.contains(gtid);
        if ended && (in_buckets || !sent.contains(table)) {
            ends.push((table.clone(), Item::TransactionEnd));
        }
        !ended
    });
    items.splice(..0, ends);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_told_the_end_of_a_transaction_unless_it_is_sent_changes() {
        let gtid: Gtid = "3e11fa47-71ca-11e1-9e33-c80aa9429562:5".parse().unwrap();
        let [a, b, c] = ["a", "b", "c"].map(|name| TableId::new("shop", name));
        let other: Gtid = "3e11fa47-71ca-11e1-9e33-c80aa9429562:6".parse().unwrap();
        let mut unfinished =
            BTreeMap::from([(a.clone(), gtid.clone()), (b.clone(), gtid.clone()), (c.clone(), other.clone())]);
        let mut items = vec![(b, Item::Marker(Marker::SeedEnd { plan: 1 }))];
        end_transactions(&mut unfinished, &GtidSet::default(), &mut items, false);
        assert_eq!((unfinished.len(), items.len()), (3, 1));
        let complete: GtidSet = "3e11fa47-71ca-11e1-9e33-c80aa9429562:1-5".parse().unwrap();
        let mut told_once = unfinished.clone();
        end_transactions(&mut told_once, &complete, &mut items, false);
        assert_eq!(told_once, BTreeMap::from([(c, other)]));
        assert!(matches!(&items[..1], [(table, Item::TransactionEnd)] if *table == a));
        // In buckets, both of them are told, before what else they are sent.
        items.remove(0);
        end_transactions(&mut unfinished, &complete, &mut items, true);
        assert_eq!(items.len(), 3);
        assert!(items[..2].iter().all(|(_, item)| matches!(item, Item::TransactionEnd)));
    }
}
