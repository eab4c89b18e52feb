//! What a marker does to a table. Over Kafka each bucket gets a copy of its own, and those of the owned buckets act
//! together.

use std::collections::{BTreeMap, BTreeSet};

use weir_model::evolution::Moment;
use weir_model::{Order, OrderState, RecordKey, TableSchema};

use super::chunks::{ChunkFiles, ChunkOutcome, UNPLANNED, WaitingChunk, absent_by_bucket};
use super::columns::schemas_of_chunk;
use super::pending::{Complete, note};
use super::state::{advance, is_in, raise_orders, state_at};
use super::{Report, Worker, WorkerError};
use crate::state::{Appeal, AppealKind};
use crate::table::{AbsentKeys, Clear, RemoveBelow, SeedProgress, StagedChunk, TableChange, TableState};
use crate::transport::{ChunkContent, ChunkId, Delivery, Item, Marker, Share, Subscription};

/// A marker and the buckets whose copies have come.
#[derive(Debug)]
pub(super) struct MarkerAt {
    marker: Marker,
    /// None on `direct`, where the table has one bucket.
    shares: BTreeMap<u32, Share>,
    /// The publish that it is the end of, if it is the last of it.
    complete: Option<Complete>,
}

impl MarkerAt {
    /// Adds a copy to those in `slot`; gives the marker once the last of its publish has come.
    pub(super) fn gather(slot: &mut Option<Self>, delivery: Delivery) -> Option<Self> {
        let Delivery { number, boundary, item, last, share, .. } = delivery;
        let Item::Marker(marker) = item else { return None };
        let shared = share.is_some();
        let gathered = slot.get_or_insert_with(|| Self { marker, shares: BTreeMap::new(), complete: None });
        if let Some(share) = share {
            note(&mut gathered.shares, share);
        }
        if last {
            gathered.complete = Some((number, boundary));
        }
        // On `direct` each marker stands for itself.
        if last || !shared { slot.take() } else { None }
    }

    /// The buckets that it concerns.
    fn buckets(&self) -> BTreeSet<u32> {
        if self.shares.is_empty() { BTreeSet::from([0]) } else { self.shares.keys().copied().collect() }
    }

    /// Whether the table holds it already, in every bucket.
    pub(super) fn is_in(&self, state: &TableState) -> bool {
        !self.shares.is_empty() && self.shares.values().all(|share| is_in(state, share))
    }

    /// Whether all copies of it have come.
    pub(super) fn is_whole(&self) -> bool {
        self.complete.is_some()
    }

    pub(super) fn begins_a_load(&self) -> bool {
        matches!(self.marker, Marker::SeedBegin { part: false, .. })
    }
}

/// Whether an item is the beginning of a load of the whole table: with it a table may begin to read another incarnation of its topic.
pub(super) fn begins_a_load(item: &Item) -> bool {
    matches!(item, Item::Marker(Marker::SeedBegin { part: false, .. }))
}

impl<S: Subscription> Worker<S> {
    /// Applies a marker, again if the table moves meanwhile.
    pub(super) async fn apply_marker(&mut self, mut at: MarkerAt) -> Result<(), WorkerError> {
        if let Marker::Chunk { chunk, content: ChunkContent::Desk } = &at.marker {
            return match self.desk.take(&self.table.schema().table, *chunk) {
                Some(chunk) => self.merge_from_desk(chunk, &at).await,
                None => self.put_until_in(&at).await,
            };
        }
        loop {
            if let Some(change) = self.change_of(&at).await?
                && self.put_marker(change, &at).await?
            {
                break;
            }
            let state = self.table.state();
            let all = at.shares.len();
            at.shares.retain(|_, share| !is_in(state, share));
            // Another owner of these buckets has applied it.
            if all > 0 && at.shares.is_empty() {
                return Ok(());
            }
        }
        let table = self.table.schema().table.clone();
        match at.marker {
            Marker::SeedBegin { plan, .. } => self.report(Report::SeedBegun { table, plan }),
            Marker::SeedEnd { plan } => self.report(Report::SeedEnded { table, plan }),
            _ => {}
        }
        Ok(())
    }

    async fn put_marker(&mut self, change: TableChange, at: &MarkerAt) -> Result<bool, WorkerError> {
        self.put(change, at.complete.as_ref().map(|(number, _)| *number)).await
    }

    /// The table's state behind the marker, but for what the marker itself changes.
    fn state_behind(&self, at: &MarkerAt) -> TableState {
        let mut state = match &at.complete {
            Some((_, boundary)) => state_at(self.table.state(), boundary, None),
            None => self.table.state().clone(),
        };
        advance(&mut state, &at.shares);
        state
    }

    /// What the marker asks for; `None` if that must be worked out again, since the table has been given other columns.
    async fn change_of(&mut self, at: &MarkerAt) -> Result<Option<TableChange>, WorkerError> {
        let mut state = self.state_behind(at);
        let buckets = at.buckets();
        let change = match &at.marker {
            Marker::Schema(schema) => {
                let Some(fit) = self.fit(vec![(schema.clone(), Moment::Ahead)]).await? else { return Ok(None) };
                fit.change(state)
            }
            Marker::ColumnsDropped { at, names } => {
                state.order = state.order.max(OrderState(*at));
                let lake = self.table.schema();
                for held in names.iter().filter_map(|name| lake.column_index(name)) {
                    state.absences.note_absent(&lake.columns[held].name, *at);
                }
                TableChange::to(state)
            }
            Marker::Clear { at } => {
                for bucket in &buckets {
                    raise_orders(&mut state, *bucket, *at);
                }
                // A log keeps what it has.
                let clear = (!self.keeps_all()).then_some(Clear { at: *at, buckets });
                TableChange { clear, ..TableChange::to(state) }
            }
            Marker::SeedBegin { plan, start, schema, reset, part } => {
                let seed = SeedProgress { plan: *plan, done: Vec::new(), start: *start, part: *part };
                for bucket in &buckets {
                    raise_orders(&mut state, *bucket, *start);
                    self.set_seed(&mut state, *bucket, Some(seed.clone()));
                }
                let owns_all = buckets.len() as u32 == self.table.buckets().count;
                if !part && self.has_other_key(schema) {
                    return match owns_all {
                        true => Ok(Some(self.anew(schema, *start, buckets, state))),
                        false => Err(WorkerError::Rows(ANEW_BY_ALL.into())),
                    };
                }
                let moment = if *reset { Moment::Load } else { Moment::Ahead };
                match self.fit(vec![(schema.clone(), moment)]).await {
                    Ok(None) => return Ok(None),
                    Ok(Some(fit)) => fit.change(state),
                    Err(WorkerError::Schema(_)) if *reset && owns_all => self.anew(schema, *start, buckets, state),
                    Err(error) => return Err(error),
                }
            }
            Marker::SeedEnd { plan } => {
                // Of another load's end, which came late, nothing must follow.
                let ended = |bucket: &u32| seed_of(&state, *bucket).is_some_and(|seed| seed.plan == *plan);
                let ended: BTreeSet<u32> = buckets.iter().copied().filter(ended).collect();
                let seed = ended.iter().find_map(|bucket| seed_of(&state, *bucket));
                // What a load of a part did not find, its chunks have said.
                let start = seed.filter(|seed| !seed.part).map(|seed| seed.start);
                for bucket in &ended {
                    self.set_seed(&mut state, *bucket, None);
                }
                let start = start.filter(|_| !self.keeps_all());
                let remove_below = start.map(|order| RemoveBelow { order, buckets: ended });
                TableChange { remove_below, ..TableChange::to(state) }
            }
            Marker::Chunk { chunk, content } => {
                let files: ChunkFiles = match content {
                    ChunkContent::Files(files) => serde_json::from_value(files.as_ref().clone())
                        .map_err(|error| WorkerError::Rows(format!("a chunk's marker cannot be read: {error}")))?,
                    ChunkContent::Desk => return Ok(Some(TableChange::to(state))),
                };
                let (staged, absent) = self.accepted(*chunk, files, &buckets, &mut state).await?;
                let Some(fit) = self.fit(schemas_of_chunk(&staged)).await? else { return Ok(None) };
                TableChange { staged, absent, ..fit.change(state) }
            }
        };
        Ok(Some(change))
    }

    /// The table, empty, with the columns of `schema`.
    fn anew(&self, schema: &TableSchema, at: Order, buckets: BTreeSet<u32>, state: TableState) -> TableChange {
        // What a table is laid out as stays, whatever the message says.
        let layout = self.table.schema().layout.clone();
        let evolve = Some(TableSchema { layout, ..schema.clone() });
        TableChange { clear: Some(Clear { at, buckets }), evolve, ..TableChange::to(state) }
    }

    /// Whether the table keeps every change as a row.
    fn keeps_all(&self) -> bool {
        self.table.schema().layout.is_append()
    }

    fn set_seed(&self, state: &mut TableState, bucket: u32, seed: Option<SeedProgress>) {
        match state.shares.get_mut(bucket as usize) {
            Some(share) => share.seed = seed,
            None => state.seed = seed,
        }
    }

    /// The shares of a chunk that the buckets can take in. For each that cannot, capture is asked to read it again, before
    /// the commit that passes the marker. A table that keeps every row takes in each chunk once, whichever attempt at it comes
    /// first.
    async fn accepted(
        &mut self,
        chunk: ChunkId,
        files: ChunkFiles,
        buckets: &BTreeSet<u32>,
        state: &mut TableState,
    ) -> Result<(Vec<StagedChunk>, Vec<AbsentKeys>), WorkerError> {
        let (mut staged, mut absent) = (Vec::new(), self.absent(&files.absent, files.order0));
        for bucket in buckets {
            let seed = seed_of(state, *bucket).filter(|seed| seed.plan == files.plan && files.order0 > seed.start);
            let under_way = seed.is_some();
            if self.keeps_all() && seed.is_some_and(|seed| seed.done.contains(&files.ordinal)) {
                continue;
            }
            let mut accepted = under_way && self.table.may_merge(*bucket, files.order0);
            let mut parts = Vec::new();
            for file in files.files.iter().filter(|file| file.bucket == *bucket) {
                if !accepted {
                    break;
                }
                match StagedChunk::open(self.table.files(), file.clone()).await? {
                    Some(part) => parts.push(part),
                    None => accepted = false,
                }
            }
            // All partitions of a share, or none.
            if accepted {
                staged.append(&mut parts);
            } else {
                absent.retain(|keys| keys.bucket != *bucket);
            }
            if !accepted && let Some(shared) = &self.shared {
                let table = self.table.schema().table.clone();
                let kind = AppealKind::ChunkRefused { chunk: chunk.0, bucket: *bucket };
                shared.appeal(&Appeal { table, kind }).await?;
            }
            let share = state.shares.get_mut(*bucket as usize);
            if let Some(seed) = share.and_then(|share| share.seed.as_mut()).filter(|_| accepted && self.keeps_all()) {
                note_done(seed, files.ordinal);
            }
        }
        absent.retain(|keys| buckets.contains(&keys.bucket));
        if !staged.is_empty() || !absent.is_empty() {
            state.order = state.order.max(OrderState(files.order0));
        }
        Ok((staged, absent))
    }

    /// Keys that a chunk did not find, by bucket. What a log has stays in it.
    fn absent(&self, keys: &[RecordKey], order0: Order) -> Vec<AbsentKeys> {
        if self.keeps_all() { Vec::new() } else { absent_by_bucket(keys, order0, self.table.buckets().count) }
    }

    /// Merges a chunk whose upper bound the stream has passed, or refuses it.
    async fn merge_from_desk(&mut self, chunk: WaitingChunk, at: &MarkerAt) -> Result<(), WorkerError> {
        let WaitingChunk { plan, ordinal, order0, mut staged, absent, outcome } = chunk;
        loop {
            let mut state = self.state_behind(at);
            let under_way = state.seed.as_ref().is_some_and(|seed| seed.plan == plan && order0 > seed.start);
            let too_old = staged.iter().any(StagedChunk::is_too_old);
            if !under_way || too_old || !self.table.may_merge(WHOLE, order0) {
                let _ = outcome.send(ChunkOutcome::Refused);
                return self.put_until_in(at).await;
            }
            state.order = state.order.max(OrderState(order0));
            let is_first = state.seed.as_mut().is_some_and(|seed| note_done(seed, ordinal));
            if self.keeps_all() && !is_first {
                for again in staged.drain(..) {
                    self.table.files().discard(again.name()).await;
                }
            }
            let Some(fit) = self.fit(schemas_of_chunk(&staged)).await? else { continue };
            let described: Vec<_> = staged.iter().map(StagedChunk::describe).collect();
            let absent = self.absent(&absent, order0);
            if self.put_marker(TableChange { staged, absent, ..fit.change(state) }, at).await? {
                let _ = outcome.send(ChunkOutcome::Merged);
                return Ok(());
            }
            staged = Vec::with_capacity(described.len());
            for part in described {
                match StagedChunk::open(self.table.files(), part).await? {
                    Some(part) => staged.push(part),
                    None => {
                        let _ = outcome.send(ChunkOutcome::Refused);
                        return self.put_until_in(at).await;
                    }
                }
            }
        }
    }

    /// Commits that the marker has passed and changed nothing.
    async fn put_until_in(&mut self, at: &MarkerAt) -> Result<(), WorkerError> {
        while !self.put_marker(TableChange::to(self.state_behind(at)), at).await? {}
        Ok(())
    }

    /// What is discarded before the marker is counted with it; `greatest` are the orders that go by.
    pub(super) async fn begin_anew(
        &mut self,
        at: &MarkerAt,
        discarded: crate::trace::Tally,
        greatest: &BTreeMap<u32, Order>,
    ) -> Result<bool, WorkerError> {
        let Some(mut change) = self.change_of(at).await? else { return Ok(false) };
        for (bucket, order) in greatest {
            raise_orders(&mut change.state, *bucket, *order);
        }
        change.accounts.add(&discarded);
        self.put_marker(change, at).await
    }
}

/// The bucket of a table that has one.
const WHOLE: u32 = 0;

const ANEW_BY_ALL: &str = "the record key changed, and a table begins anew only in a process that owns all of its buckets: \
                           let one `weir apply` run alone, then load it anew with `weir snapshot --table`";

/// The chunk is in; false if it was before.
fn note_done(seed: &mut SeedProgress, ordinal: u32) -> bool {
    if ordinal == UNPLANNED {
        return true;
    }
    let place = seed.done.binary_search(&ordinal);
    if let Err(at) = place {
        seed.done.insert(at, ordinal);
    }
    place.is_err()
}

/// The load under way in a bucket.
pub(super) fn seed_of(state: &TableState, bucket: u32) -> Option<&SeedProgress> {
    if state.is_shared() {
        return state.shares.get(bucket as usize).and_then(|share| share.seed.as_ref());
    }
    state.seed.as_ref()
}
