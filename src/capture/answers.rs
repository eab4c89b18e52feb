//! Answers to what others ask of capture, between two transactions.

use super::lane::Lane;
use super::request::{ChunkOpening, Registrar, Request, SeedBegun, SeedOpening};
use super::{Capture, CaptureError};
use crate::state::Phase;
use crate::transport::{Marker, Publisher};

impl<P: Publisher, R: Registrar> Capture<P, R> {
    pub(super) async fn answer(&mut self, request: Request) -> Result<(), CaptureError> {
        match request {
            Request::BeginSeed(opening) => {
                self.early.push(opening);
                self.begin_loads().await?;
            }
            Request::OpenChunk { table, settles, reply } => {
                if settles {
                    self.publish().await?;
                }
                let order0 = self.lane_order(&table);
                let held = self.lane(&table).map(Lane::held).cloned().unwrap_or_default();
                let below = self.position.gtid_set.union(&held);
                // A table may be ahead of a stream that is read again, and behind a new connection the place in the log is not
                // known before something has come.
                let log = &self.position.log;
                let is_known = !log.file.is_empty() && held.is_subset(&self.position.gtid_set);
                let below_log = is_known.then(|| log.clone());
                let generation = self.lane(&table).map_or(0, |lane| lane.generation());
                let _ = reply.send(order0.map(|order0| ChunkOpening { order0, below, below_log, generation }));
            }
            Request::CloseChunk(chunk) => {
                self.waiting.push(chunk);
                self.release_chunks().await?;
            }
            Request::EndSeed { table, plan, part, reply } => {
                let mut sent = None;
                if self.lane(&table).is_some() {
                    let marker = Marker::SeedEnd { plan };
                    sent = Some(match part {
                        true => self.send_marker(table, marker).await?,
                        false => self.send_standing(table, Phase::Streaming, 0, marker).await?,
                    });
                }
                let _ = reply.send(sent);
            }
            Request::Stop { table, error } => {
                self.lanes.insert(table.clone(), None);
                self.stand(&table, Phase::Stopped, Some(error));
            }
        }
        Ok(())
    }

    /// Begins the loads that were asked for, once the stream has passed what must lie before each: what is committed there of
    /// XA branches that are not known has to be seen by them.
    pub(super) async fn begin_loads(&mut self) -> Result<(), CaptureError> {
        if self.early.is_empty() || !self.prepared.behind.is_subset(&self.position.gtid_set) {
            return Ok(());
        }
        for opening in std::mem::take(&mut self.early) {
            self.begin_seed(opening).await?;
        }
        Ok(())
    }

    /// Announces a load, and that it has begun, in one publish.
    async fn begin_seed(&mut self, opening: SeedOpening) -> Result<(), CaptureError> {
        let SeedOpening { table, plan, schema, reset, part, reply } = opening;
        let mut begun = None;
        let is_of_rows = !schema.layout.is_append();
        if self.lane(&table).is_some_and(|lane| is_of_rows && lane.has_other_key(&schema.key_columns())) {
            // Planned with a table that the stream has yet to come to, or with one that it has left.
            self.find_other_key(&table).await?;
            let _ = reply.send(begun);
            return Ok(());
        }
        if let Some(Some(lane)) = self.lanes.get_mut(&table).filter(|_| !part) {
            lane.load_begins();
        }
        if let Some(start) = self.lane_order(&table) {
            let marker = Marker::SeedBegin { plan, start, schema, reset, part };
            let number = match part {
                true => self.send_marker(table, marker).await?,
                false => self.send_standing(table, Phase::Filling { restart: false }, plan, marker).await?,
            };
            begun = Some(SeedBegun { number, start });
        }
        let _ = reply.send(begun);
        Ok(())
    }
}
