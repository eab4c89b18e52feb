//! Attempts at a chunk: opened below, read, closed above, merged.
//!
//! A chunk attempt is bounded on both sides. Below, by an order handed out between two transactions, everything before
//! which must be visible to the SELECT. Above, by the binlog's end, read after the SELECT: once the stream has passed
//! it, whatever the SELECT saw has also come as an event. In between, the greater order wins.
//!
//! Rows without a key have no order of their own to win by. Such a table is read as of one moment, which its order is of,
//! too: see `open_at_one_moment`.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use snapshot_loader::{ChunkReader, ReadOptions, TableProgress, record_keys};
use tokio::sync::oneshot;
use weir_model::{LogPosition, RecordKey, RecordKeys, Window};
use weir_mysql::{RowConnection, server};

use super::plan::Piece;
use super::{Load, Loader, Merging, SeedError};
use crate::apply::chunks::{ChunkDesk, ChunkOutcome, UNPLANNED, WaitingChunk};
use crate::capture::request::{ChunkOpening, ReadChunk, Request};
use crate::failpoint;
use crate::limits::{
    CAPTURE_LOOKED_AT_EVERY, CHUNK_BATCH_BYTES, CHUNK_RETRY_DELAY, EXECUTED_WAIT_MAX, TABLE_LOCK_WAIT_MAX,
    TABLE_LOCKED_AGAIN_AFTER, TABLE_LOCKED_MAX, WRITERS_WAIT_MAX,
};
use crate::service::kafka::merging::LakeMerging;
use crate::table::{ChunkWriter, StagedChunk, TableError};
use crate::transport::{ChunkContent, ChunkId, PublishNumber};

/// What a chunk came to that is merged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Taken {
    /// Rows that were read.
    pub(super) rows: u64,
    /// Keys that were asked for and not found.
    pub(super) absent: u64,
}

/// What was read of a chunk.
struct Read {
    staged: Vec<StagedChunk>,
    absent: Vec<RecordKey>,
}

impl Loader {
    /// Attempts one chunk until it is merged; says what it came to.
    pub(super) async fn chunk(
        &self,
        load: &Load,
        plan: u64,
        ordinal: u32,
        piece: &Piece,
        progress: &TableProgress,
    ) -> Result<Taken, SeedError> {
        loop {
            match self.attempt(load, plan, ordinal, piece, progress).await {
                Ok(Some(taken)) => return Ok(taken),
                Ok(None) => tracing::info!(table = %load.table, chunk = ordinal, "chunk is read again"),
                Err(error) if error.is_passing() => {
                    tracing::warn!(table = %load.table, chunk = ordinal, %error, "chunk is read again");
                }
                Err(error) => return Err(error),
            }
            tokio::time::sleep(CHUNK_RETRY_DELAY).await;
        }
    }

    /// One attempt; `None` if it was void or refused.
    async fn attempt(
        &self,
        load: &Load,
        plan: u64,
        ordinal: u32,
        piece: &Piece,
        progress: &TableProgress,
    ) -> Result<Option<Taken>, SeedError> {
        let permit = self.permit().await?;
        self.throttle.before_chunk().await?;
        let mut connection = self.connect_to_read().await?;
        let mut rows = self.connect_for_rows(&mut connection).await?;
        let opening = if self.is_keyless(load, &mut connection).await? {
            self.open_at_one_moment(load, &mut connection, &mut rows).await?
        } else {
            self.open_beside_changes(load, &mut connection, &mut rows).await?
        };
        let Some(opening) = opening else { return Ok(None) };
        let Read { staged, absent } = self.read(load, &mut connection, &mut rows, piece, &opening).await?;
        drop(rows);
        let (upper, server_uuid) = self.end_of_stream(connection).await?;
        drop(permit);
        failpoint::reach(failpoint::CHUNK_READ);
        let taken = Taken { rows: staged.iter().map(StagedChunk::rows).sum(), absent: absent.len() as u64 };
        let rows = taken.rows;
        let bytes = staged.iter().map(StagedChunk::bytes).sum();
        let names: Vec<String> = staged.iter().map(|staged| staged.name().to_owned()).collect();
        progress.add(rows, bytes);
        let parts = WaitingParts { plan, ordinal, staged, absent, opening, upper, server_uuid };
        let fate = match &self.merging {
            Merging::Desk(desk) => self.merge_by_desk(desk, load, parts).await?,
            Merging::Lake(lake) => self.merge_by_lake(lake, load, parts).await?,
        };
        if fate == ChunkFate::Merged {
            failpoint::reach(failpoint::CHUNK_DONE);
            return Ok(Some(taken));
        }
        progress.take_back(rows, bytes);
        if fate == ChunkFate::Unnamed {
            for name in names {
                load.files.discard(&name).await;
            }
        }
        Ok(None)
    }

    /// An order from which on every change is greater, once `rows` sees everything beneath.
    async fn open_beside_changes(
        &self,
        load: &Load,
        connection: &mut weir_mysql::Conn,
        rows: &mut RowConnection,
    ) -> Result<Option<ChunkOpening>, SeedError> {
        let opening = self.open_chunk(load, false).await?;
        if opening.below.is_of_domains() {
            // Places in the log mean something on the streamed server alone.
            let below_log = opening.below_log.as_ref().filter(|_| self.replica.is_none());
            let wait_max = EXECUTED_WAIT_MAX;
            let is_behind = server::snapshot_behind(connection, rows, &opening.below, below_log, wait_max).await?;
            return Ok(is_behind.then_some(opening));
        }
        if opening.below.is_of_log() {
            let is_shown = server::wait_for_writers(connection, &load.table, WRITERS_WAIT_MAX).await?;
            if !is_shown {
                tracing::info!(table = %load.table, "somebody writes the table for long; the chunk waits");
                tokio::time::sleep(TABLE_LOCKED_AGAIN_AFTER).await;
            }
            return Ok(is_shown.then_some(opening));
        }
        let executed = server::wait_for_executed(connection, &opening.below, EXECUTED_WAIT_MAX).await?;
        Ok(executed.then_some(opening))
    }

    async fn open_chunk(&self, load: &Load, settles: bool) -> Result<ChunkOpening, SeedError> {
        let (reply, opening) = oneshot::channel();
        self.ask(Request::OpenChunk { table: load.table.clone(), settles, reply }).await?;
        opening.await.ok().flatten().ok_or(SeedError::NotCaptured)
    }

    async fn is_keyless(&self, load: &Load, connection: &mut weir_mysql::Conn) -> Result<bool, SeedError> {
        // Every other table has one.
        Ok(load.layout.is_append() && self.describe(connection, load).await?.schema.key.is_empty())
    }

    /// For rows that cannot be told apart: an order that divides the table's changes into those that `rows` sees from
    /// now on and all others. The table is locked against writers until capture has come to this moment.
    async fn open_at_one_moment(
        &self,
        load: &Load,
        connection: &mut weir_mysql::Conn,
        rows: &mut RowConnection,
    ) -> Result<Option<ChunkOpening>, SeedError> {
        let locked = |source| SeedError::Lock { table: load.table.clone(), source: Box::new(source) };
        let mut locking = weir_mysql::connect(&self.source).await?;
        server::lock_table(&mut locking, &load.table, TABLE_LOCK_WAIT_MAX).await.map_err(locked)?;
        // No change of it is under way, so those that were made are in this set.
        let executed = server::executed_gtids(&mut locking).await?;
        let since = Instant::now();
        let mut opening = loop {
            let opening = self.open_chunk(load, true).await?;
            if executed.is_subset(&opening.below) {
                break Some(opening);
            }
            if since.elapsed() > TABLE_LOCKED_MAX {
                tracing::info!(table = %load.table, "the stream is too far behind to lock a table until it is here");
                break None;
            }
            tokio::time::sleep(CAPTURE_LOOKED_AT_EVERY).await;
        };
        if let (Some(_), Some(found)) = (&self.replica, &opening)
            && !server::wait_for_executed(connection, &found.below, TABLE_LOCKED_MAX).await?
        {
            tracing::info!(table = %load.table, "the replica is too far behind to lock a table until it is there");
            opening = None;
        }
        if opening.is_some() {
            rows.begin_snapshot().await?;
        }
        server::unlock_tables(&mut locking).await?;
        if opening.is_none() {
            tokio::time::sleep(TABLE_LOCKED_AGAIN_AFTER).await;
        }
        Ok(opening)
    }

    /// Reads the chunk into final data files that no commit names yet, and notes which of the keys that it asks for are not
    /// there.
    async fn read(
        &self,
        load: &Load,
        connection: &mut weir_mysql::Conn,
        rows: &mut RowConnection,
        piece: &Piece,
        opening: &ChunkOpening,
    ) -> Result<Read, SeedError> {
        let description = self.describe(connection, load).await?;
        let rules = load.rules.bind(&description.schema)?;
        let schema =
            rules.as_ref().map_or_else(|| Arc::new(description.schema.clone()), |rules| rules.schema().clone());
        let window = Window::of(opening.order0.ts_ms);
        let mut absent = piece.keys().map(|keys| record_keys(&description, keys)).transpose()?;
        let mut writer = ChunkWriter::create(load.files.clone(), schema, opening.order0, window, load.buckets)?;
        let options = ReadOptions { zero_dates: load.zero_dates, batch_bytes: CHUNK_BATCH_BYTES };
        let mut reader = ChunkReader::open(rows, &description, piece.selection(), &options).await?;
        while let Some(batch) = reader.next_batch().await? {
            if let Some(absent) = &mut absent {
                let found = RecordKeys::of(&batch, &description.schema.key_names()).map_err(TableError::from)?;
                for row in 0..found.len() {
                    absent.remove(&found.get(row).to_owned());
                }
            }
            match &rules {
                Some(rules) => writer.write(&rules.rows(&batch)).await?,
                None => writer.write(&batch).await?,
            }
            self.throttle.after_batch(batch.num_rows() as u64, batch.get_array_memory_size() as u64).await?;
        }
        Ok(Read { staged: writer.finish().await?, absent: absent.into_iter().flatten().collect() })
    }

    /// Hands the chunk over to the table's worker and waits until it is in a commit.
    async fn merge_by_desk(&self, desk: &ChunkDesk, load: &Load, parts: WaitingParts) -> Result<ChunkFate, SeedError> {
        let chunk = ChunkId(self.next_chunk.fetch_add(1, Ordering::Relaxed));
        let (outcome, merged) = oneshot::channel();
        let WaitingParts { plan, ordinal, staged, absent, opening, upper, server_uuid } = parts;
        desk.leave(&load.table, chunk, WaitingChunk { plan, ordinal, order0: opening.order0, staged, absent, outcome });
        let read = ChunkRead { chunk, generation: opening.generation, upper, server_uuid, content: ChunkContent::Desk };
        if self.close(load, read).await?.is_none() {
            desk.take(&load.table, chunk);
            return Ok(ChunkFate::Unnamed);
        }
        let merged = merged.await.map_err(|_| SeedError::NotCaptured)? == ChunkOutcome::Merged;
        Ok(if merged { ChunkFate::Merged } else { ChunkFate::Unnamed })
    }

    /// Names the chunk's files in the stream and waits until every bucket has taken in its share, or refused it.
    async fn merge_by_lake(
        &self,
        lake: &LakeMerging,
        load: &Load,
        parts: WaitingParts,
    ) -> Result<ChunkFate, SeedError> {
        let chunk = ChunkId(self.next_chunk.fetch_add(1, Ordering::Relaxed));
        let WaitingParts { plan, ordinal, staged, absent, opening, upper, server_uuid } = parts;
        let content = lake.content(plan, ordinal, opening.order0, &staged, absent);
        // Keys are in memory no longer; whoever merges reads them from the files.
        drop(staged);
        let read = ChunkRead { chunk, generation: opening.generation, upper, server_uuid, content };
        let Some(number) = self.close(load, read).await? else { return Ok(ChunkFate::Unnamed) };
        lake.reached(&load.table, number).await?;
        if lake.was_refused(&load.table, chunk).await? {
            return Ok(ChunkFate::Refused);
        }
        if ordinal != UNPLANNED {
            lake.done(&load.table, plan, ordinal, chunk).await?;
        }
        Ok(ChunkFate::Merged)
    }

    /// Tells capture that a chunk has been read; the publish of its marker, or none if the attempt was void.
    async fn close(&self, load: &Load, read: ChunkRead) -> Result<Option<PublishNumber>, SeedError> {
        let (sent, passed) = oneshot::channel();
        let ChunkRead { chunk, generation, upper, server_uuid, content } = read;
        let read = ReadChunk { table: load.table.clone(), chunk, generation, upper, server_uuid, content, sent };
        self.ask(Request::CloseChunk(read)).await?;
        passed.await.map_err(|_| SeedError::NotCaptured)
    }
}

/// A chunk attempt that has been read.
struct WaitingParts {
    plan: u64,
    ordinal: u32,
    staged: Vec<StagedChunk>,
    absent: Vec<RecordKey>,
    opening: ChunkOpening,
    upper: LogPosition,
    server_uuid: String,
}

/// What capture is told of it.
struct ChunkRead {
    chunk: ChunkId,
    generation: u64,
    upper: LogPosition,
    server_uuid: String,
    content: ChunkContent,
}

/// What became of an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ChunkFate {
    Merged,
    /// Some bucket could not take in its share; others may have, so the files stay.
    Refused,
    /// Nobody was told of its files.
    Unnamed,
}
