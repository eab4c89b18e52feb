//! Source transactions become batches with orders and ids, and one publish after another. Owns the position.
//!
//! In: [`SourceEvent`]s, and [`Request`]s answered between two transactions. Out: publishes to a [`Publisher`], and
//! what it [`Told`] its supervisor. It opens no tables and reads no rows by SELECT: the [`Registrar`] does.
//!
//! Reading order: [`event_time`], [`resume`] (may we go on from here), [`lane`] (one table), [`request`], then
//! [`Capture::run`], the loop; `answers` to requests, `statement` is what DDL means, [`xa`] what is prepared and committed later, `publish` what
//! leaves and when.

mod answers;
pub mod event_time;
mod held_rows;
pub mod lane;
mod publish;
pub mod request;
pub mod resume;
mod statement;
pub mod xa;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use weir_model::{Gtid, LogPosition, OrderState, TableId, clock};

use self::event_time::event_time;
use self::lane::{Lane, LaneStart, TransactionTime};
use self::request::{ReadChunk, Registrar, Registration, Request, SeedOpening, Told};
use self::resume::{is_not_instead, is_same_transaction, pass};
use self::xa::{Branch, Prepared};
use crate::binlog::ddl::comments_of_mariadb;
use crate::binlog::row::RowError;
use crate::binlog::{EventBody, RowsImage, SourceError, SourceEvent, TransactionHead};
use crate::failpoint;
use crate::limits::{BATCH_BYTES_MAX, BATCH_DELAY_MAX};
use crate::state::{LastTransaction, Phase, StateError, TableStanding};
use crate::table::PartialTransaction;
use crate::transport::{Boundary, Item, PublishError, PublishNumber, Publisher};

/// Why capture ended.
#[derive(Debug, thiserror::Error)]
pub enum CaptureError {
    /// The connection is lost; go on from [`Capture::published`] with a new one.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// What the stream says cannot be applied as it is; nobody else may go past it either.
    #[error("at {at}: {what}")]
    Stop { at: LogPosition, what: String },
    #[error(transparent)]
    Publisher(#[from] PublishError),
    /// Rows of prepared XA transactions could not be put or read.
    #[error(transparent)]
    State(#[from] StateError),
}

/// How an incarnation of capture ended without an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// It was asked to.
    Asked,
    /// The source has no more events (archived files).
    EndOfSource,
}

/// An event that was read ahead, and the memory held for it until it has been taken in.
#[derive(Debug)]
pub struct ReadAhead {
    pub event: SourceEvent,
    pub hold: Option<OwnedSemaphorePermit>,
}

/// Decides which tables are captured.
pub type TableFilter = Arc<dyn Fn(&TableId) -> bool + Send + Sync>;

/// What stays the same for the life of a service.
#[derive(Clone)]
pub struct Settings {
    /// Name of the source; part of every event id.
    pub source: String,
    pub filter: TableFilter,
    /// Bytes of one transaction that may be collected before a part of it is sent.
    pub transaction_bytes_max: usize,
    /// Whether TRUNCATE empties the lake table.
    pub follow_truncate: bool,
    /// Whether tables that appear are loaded; without loads, one that lost rows without events stops.
    pub seeds: bool,
    /// Whether orders are kept for the source as a whole, with its position, and not by each table.
    pub shares_order: bool,
}

/// Where capture goes on.
#[derive(Debug, Clone, Default)]
pub struct CaptureStart {
    pub boundary: Boundary,
    /// Row changes that were sent of the boundary's partial transaction, per table.
    pub partial_rows: BTreeMap<TableId, u64>,
    /// The last publish that was made.
    pub number: PublishNumber,
    /// The greatest order handed out, where tables share it.
    pub order: OrderState,
    /// The source's clock, in ms since the epoch.
    pub event_ms: i64,
    /// Standings to be made durable with the first publish.
    pub standings: BTreeMap<TableId, TableStanding>,
}

/// The state of the transaction under way.
#[derive(Debug)]
struct Open {
    head: TransactionHead,
    event_ms: i64,
    /// Every table already has it: it is only read for its end.
    skip: bool,
    /// Statements in it, with their default databases.
    statements: Vec<(String, String)>,
    has_rows: bool,
    /// Rows of the XA branch that it is of, as long as their outcome is open.
    branch: Option<Branch>,
}

/// The capturing half: lanes, position and what waits for it.
pub struct Capture<P, R> {
    settings: Settings,
    publisher: P,
    registrar: Arc<R>,
    told: mpsc::UnboundedSender<Told>,
    lanes: HashMap<TableId, Option<Lane>>,
    position: Boundary,
    published: Boundary,
    /// Row changes sent of the published boundary's partial transaction, per table.
    published_partial: BTreeMap<TableId, u64>,
    /// Tables that were sent a part of a transaction and not yet what ends it.
    unfinished: BTreeMap<TableId, Gtid>,
    /// Standings that changed since the last publish.
    standings: BTreeMap<TableId, TableStanding>,
    number: PublishNumber,
    /// The greatest order handed out.
    order: OrderState,
    server_uuid: String,
    verify: Option<LastTransaction>,
    open: Option<Open>,
    waiting: Vec<ReadChunk>,
    /// Loads that are to begin once the stream is where it must be first.
    early: Vec<SeedOpening>,
    /// Tables that cannot be mirrored as the source has them: the next statement that alters one may mend that.
    refused: BTreeSet<TableId>,
    prepared: Prepared,
    queued: Vec<(TableId, Item)>,
    pending_bytes: usize,
    pending_since: Option<Instant>,
    /// Event time of the newest transaction: what orders handed out between transactions use.
    event_ms: i64,
}

impl<P: Publisher, R: Registrar> Capture<P, R> {
    /// Capture from `start` on.
    pub fn new(
        settings: Settings,
        publisher: P,
        registrar: Arc<R>,
        told: mpsc::UnboundedSender<Told>,
        start: CaptureStart,
        prepared: Prepared,
    ) -> Self {
        let CaptureStart { boundary, partial_rows, number, order, event_ms, standings } = start;
        let unfinished = |gtid: &Gtid| partial_rows.keys().map(|table| (table.clone(), gtid.clone())).collect();
        Self {
            settings,
            publisher,
            registrar,
            told,
            lanes: HashMap::new(),
            position: boundary.clone(),
            unfinished: boundary.partial.as_ref().map(unfinished).unwrap_or_default(),
            published: boundary,
            published_partial: partial_rows,
            standings,
            number,
            order,
            server_uuid: String::new(),
            verify: None,
            open: None,
            waiting: Vec::new(),
            early: Vec::new(),
            refused: BTreeSet::new(),
            prepared,
            queued: Vec::new(),
            pending_bytes: 0,
            pending_since: None,
            event_ms,
        }
    }

    /// Captures `table` from the start.
    pub fn add_lane(&mut self, table: TableId, mut start: LaneStart) {
        if self.settings.shares_order {
            self.order = self.lanes.values().flatten().map(Lane::last_order).fold(self.order, OrderState::max);
            start.order = start.order.max(self.order);
        }
        self.lanes.insert(table.clone(), Some(Lane::new(table, start)));
    }

    /// Drops the changes of `table`, which has stopped.
    pub fn pass_over(&mut self, table: TableId) {
        self.lanes.insert(table, None);
    }

    /// Where to ask the source to go on from: everything published.
    pub fn published(&self) -> &Boundary {
        &self.published
    }

    /// A new connection to the source: what was collected and not published is forgotten and read again. Chunks that
    /// wait for a position of another server are void.
    pub fn reconnected(&mut self, server_uuid: &str, verify: Option<LastTransaction>) {
        self.position = self.published.clone();
        self.position.log = LogPosition::default();
        for (table, lane) in &mut self.lanes {
            let partial = self.published_partial.get(table).copied();
            let partial = self.published.partial.clone().zip(partial);
            if let Some(lane) = lane {
                lane.rewind(partial.map(|(gtid, rows_done)| PartialTransaction { gtid, rows_done }));
            }
        }
        self.open = None;
        self.prepared.rewind(&self.published.gtid_set);
        self.queued.clear();
        self.pending_bytes = 0;
        self.pending_since = None;
        self.verify = verify;
        if self.server_uuid != server_uuid {
            for chunk in self.waiting.drain(..) {
                let _ = chunk.sent.send(None);
            }
            self.server_uuid = server_uuid.to_owned();
        }
    }

    /// Reads `events` until they end, capture is asked to stop, or something cannot go on.
    ///
    /// Requests are answered only between two transactions, so that an order handed out lies between them too.
    pub async fn run(
        &mut self,
        events: &mut mpsc::Receiver<Result<ReadAhead, SourceError>>,
        requests: &mut mpsc::Receiver<Request>,
        stop: &CancellationToken,
    ) -> Result<Ended, CaptureError> {
        loop {
            let between = self.open.is_none();
            let flush_at = self.pending_since.map(|since| since + BATCH_DELAY_MAX);
            tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(Ended::Asked),
                Some(request) = requests.recv(), if between => self.answer(request).await?,
                event = events.recv() => match event {
                    Some(read) => {
                        let ReadAhead { event, hold } = read?;
                        self.on_event(event).await?;
                        drop(hold);
                    }
                    None => {
                        self.publish().await?;
                        return Ok(Ended::EndOfSource);
                    }
                },
                () = sleep_until(flush_at), if between && flush_at.is_some() => self.publish().await?,
            }
        }
    }

    async fn on_event(&mut self, event: SourceEvent) -> Result<(), CaptureError> {
        let end = event.end;
        match event.body {
            EventBody::Begin(head) => self.begin(head, &end)?,
            EventBody::Rows(image) => self.rows(&image, &end).await?,
            EventBody::Statement { database, sql } => self.note_statement(database, sql, &end)?,
            EventBody::XaStart => self.begin_branch(),
            EventBody::XaPrepared { xid } => {
                self.prepare(xid);
                self.commit(end).await?;
            }
            EventBody::XaSettled { xid, commits } => self.settle(&xid, commits, &end).await?,
            EventBody::Commit => {
                self.commit_at_once(&end).await?;
                self.commit(end).await?;
            }
            EventBody::Position => {
                if self.open.is_none() {
                    // Without GTIDs even a rotation is a way that others wait for us to have come.
                    if self.position.gtid_set.extend_to(&end).map_err(|error| stop(&end, &error))? {
                        self.pending_since.get_or_insert_with(Instant::now);
                    }
                    self.position.log = end;
                    self.release_chunks().await?;
                }
            }
        }
        Ok(())
    }

    fn begin(&mut self, head: TransactionHead, at: &LogPosition) -> Result<(), CaptureError> {
        if let Some(last) = self.verify.take_if(|last| last.gtid == head.gtid) {
            is_same_transaction(&last, &head, &self.server_uuid).map_err(|error| stop(at, &error))?;
        }
        if let Some(last) = &self.verify {
            is_not_instead(last, &head.gtid).map_err(|error| stop(at, &error))?;
        }
        let time = event_time(&head, clock::now_ms()).map_err(|error| stop(at, &error))?;
        if time.clamped {
            tracing::warn!(gtid = %head.gtid, position = %at, "original commit timestamp lies in the future; the server's own time is used");
        }
        let skip = self.position.gtid_set.contains(&head.gtid);
        self.open = Some(Open { event_ms: time.ms, head, skip, statements: Vec::new(), has_rows: false, branch: None });
        Ok(())
    }

    async fn rows(&mut self, image: &RowsImage, at: &LogPosition) -> Result<(), CaptureError> {
        let Some(open) = &self.open else { return Err(stop(at, &"row changes outside a transaction")) };
        if open.skip {
            return Ok(());
        }
        if open.branch.is_some() {
            return self.keep_rows(image).await;
        }
        self.take_rows(image, None, at).await
    }

    /// Takes in row changes that the open transaction commits; `origin` is the one that made them, if it is another.
    async fn take_rows(
        &mut self,
        image: &RowsImage,
        origin: Option<&Gtid>,
        at: &LogPosition,
    ) -> Result<(), CaptureError> {
        let Some(open) = &mut self.open else { return Err(stop(at, &"row changes outside a transaction")) };
        open.has_rows = true;
        let gtid = open.head.gtid.clone();
        let event_ms = open.event_ms;
        let table = TableId::new(&image.map.database, &image.map.table);
        if !self.lanes.contains_key(&table) {
            self.meet(&table).await?;
        }
        if self.lane(&table).is_some_and(|lane| !lane.holds(&gtid) && lane.lacks_description(&image.map)) {
            self.look_up(&table, true).await?;
        }
        let Some(Some(lane)) = self.lanes.get_mut(&table) else { return Ok(()) };
        if lane.holds(&gtid) || lane.awaits_load() {
            return Ok(());
        }
        let origin = origin.unwrap_or(&gtid);
        let time = TransactionTime { source: &self.settings.source, gtid: &gtid, origin, event_ms };
        match lane.decode(image, time) {
            Ok(bytes) => {
                self.pending_bytes += bytes;
                self.pending_since.get_or_insert_with(Instant::now);
            }
            // Either its statement is not here yet, or it was never written: the rows tell.
            Err(RowError::OtherKey(_)) => self.find_other_key(&table).await?,
            Err(error) => self.stop_table(&table, format!("at {at}, transaction {gtid}: {error}")),
        }
        if self.pending_bytes >= self.settings.transaction_bytes_max {
            self.publish().await?;
        }
        Ok(())
    }

    /// A table that has no lane: register it if it is one of ours.
    async fn meet(&mut self, table: &TableId) -> Result<(), CaptureError> {
        if !(self.settings.filter)(table) {
            self.lanes.insert(table.clone(), None);
            return Ok(());
        }
        let registration = retry_registrar(|| self.registrar.register(table, &self.position.gtid_set))
            .await
            .map_err(|error| lost(&error))?;
        match registration {
            Registration::Lane(start) => {
                self.add_lane(table.clone(), *start);
                let reason = FIRST_SEEN;
                self.stand_to_be_loaded(table, reason);
                self.tell(Told::NeedsSeed { table: table.clone(), reason });
            }
            Registration::Gone => {
                self.lanes.insert(table.clone(), None);
            }
            Registration::Refused(error) => self.refuse(table, error),
        }
        Ok(())
    }

    /// The source has the table in a way that cannot be mirrored.
    fn refuse(&mut self, table: &TableId, why: String) {
        self.refused.insert(table.clone());
        self.stop_table(table, why);
    }

    /// Asks the catalogue about a table that the binlog does not describe; `for_rows` that are there to be read.
    async fn look_up(&mut self, table: &TableId, for_rows: bool) -> Result<(), CaptureError> {
        let found = retry_registrar(|| self.registrar.catalogued(table)).await.map_err(|error| lost(&error))?;
        let found = match found {
            Ok(found) => found,
            Err(error) => {
                if self.lane(table).is_some() {
                    self.stop_table(table, error);
                }
                return Ok(());
            }
        };
        match (found, self.lanes.get_mut(table)) {
            (Some(catalogued), Some(Some(lane))) => lane.describe(catalogued),
            (None, Some(Some(_))) if for_rows => {
                let error = format!(
                    "the source has no table {table} any more, and its binlog does not say which columns the rows have that \
                     it holds of it"
                );
                self.stop_table(table, error);
            }
            _ => {}
        }
        Ok(())
    }

    fn note_statement(&mut self, database: String, sql: String, at: &LogPosition) -> Result<(), CaptureError> {
        let Some(open) = &mut self.open else { return Err(stop(at, &"a statement outside a transaction")) };
        if !open.skip {
            open.statements.push((database, sql));
        }
        Ok(())
    }

    async fn commit(&mut self, end: LogPosition) -> Result<(), CaptureError> {
        let Some(open) = &mut self.open else { return Err(stop(&end, &"a commit outside a transaction")) };
        if open.skip {
            self.open = None;
            self.position.log = end;
            return self.release_chunks().await;
        }
        // While its statements take effect the transaction is still open: what is sent now is a part of it.
        let is_of_mariadb = open.head.gtid.is_of_domain();
        for (database, sql) in std::mem::take(&mut open.statements) {
            let sql = if is_of_mariadb { comments_of_mariadb(&sql) } else { (&*sql).into() };
            self.statement(&database, &sql, &end).await?;
        }
        let Some(open) = self.open.take() else { return Err(stop(&end, &"a commit outside a transaction")) };
        failpoint::reach(failpoint::TRANSACTION_READ);
        for lane in self.lanes.values_mut().flatten() {
            lane.end_transaction();
        }
        self.event_ms = self.event_ms.max(open.event_ms);
        let at = end.clone();
        pass(&mut self.position, open.head, end, &self.server_uuid).map_err(|error| stop(&at, &error))?;
        let since = *self.pending_since.get_or_insert_with(Instant::now);
        // Under load there is always another event, so the timer alone would never come to its turn.
        if self.pending_bytes >= BATCH_BYTES_MAX || since.elapsed() >= BATCH_DELAY_MAX {
            self.publish().await?;
        }
        self.release_chunks().await
    }

    /// The table is to be loaded; durable with the next publish, since nothing else in the stream says so again.
    fn stand_to_be_loaded(&mut self, table: &TableId, reason: &str) {
        if self.settings.seeds {
            self.stand(table, Phase::Filling { restart: true }, None);
        } else if reason == FIRST_SEEN {
            self.stand(table, Phase::Streaming, None);
        } else {
            let error =
                format!("{reason}, and [source] snapshot = \"never\"; load it with `weir snapshot --table {table}`");
            self.stand(table, Phase::Stopped, Some(error));
        }
    }

    fn stand(&mut self, table: &TableId, phase: Phase, error: Option<String>) {
        // What the table holds already may be ahead of the stream: it was loaded at the source's present.
        let held = self.lane(table).map(Lane::held).cloned().unwrap_or_default();
        let start_set = self.position.gtid_set.union(&held);
        self.standings.insert(table.clone(), TableStanding::new(phase, start_set, error));
        self.pending_since.get_or_insert_with(Instant::now);
    }

    fn stop_table(&mut self, table: &TableId, error: String) {
        self.lanes.insert(table.clone(), None);
        self.stand(table, Phase::Stopped, Some(error.clone()));
        self.tell(Told::Stopped { table: table.clone(), error });
    }

    fn lane(&self, table: &TableId) -> Option<&Lane> {
        self.lanes.get(table).and_then(Option::as_ref)
    }

    fn lane_order(&mut self, table: &TableId) -> Option<weir_model::Order> {
        let event_ms = self.event_ms;
        self.lanes.get_mut(table).and_then(Option::as_mut).map(|lane| lane.next_order(event_ms))
    }

    fn tell(&self, told: Told) {
        // The supervisor is gone only while the process shuts down.
        let _ = self.told.send(told);
    }
}

/// Why a table is loaded that has appeared.
const FIRST_SEEN: &str = "a table seen for the first time";

fn stop(at: &LogPosition, what: &impl std::fmt::Display) -> CaptureError {
    CaptureError::Stop { at: at.clone(), what: what.to_string() }
}

/// The registrar could not ask the source: as good as a lost connection, after which everything unsent is read again.
fn lost(error: &request::RegisterError) -> CaptureError {
    CaptureError::Source(SourceError::Retryable { why: error.to_string() })
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// Registering asks the source and the warehouse; either may be away for a moment.
async fn retry_registrar<T, F, Fut>(ask: F) -> Result<T, request::RegisterError>
where
    F: Fn() -> Fut,
    Fut: std::future::Future<Output = Result<T, request::RegisterError>>,
{
    let backoff = backon::ExponentialBuilder::default()
        .with_min_delay(Duration::from_millis(200))
        .with_max_delay(Duration::from_secs(5))
        .with_max_times(8);
    backon::Retryable::retry(ask, backoff).sleep(tokio::time::sleep).await
}
