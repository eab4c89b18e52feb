//! Keeps capture supplied with events: connects, reads ahead, and connects again when the source is lost.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_util::sync::CancellationToken;
use weir_model::GtidSet;
use weir_mysql::{MysqlError, SourceOptions, server};

use super::idle::Watched;
use crate::binlog::{
    EventBody, FileSource, LiveSource, Source, SourceError, SourceEvent, before_file, list_binlog_dir, previous_gtids,
};
use crate::capture::request::{Registrar, Request};
use crate::capture::resume::{Discontinuity, resume};
use crate::capture::{Capture, CaptureError, Ended, ReadAhead};
use crate::figures::{counters, standing};
use crate::limits::{EVENTS_AHEAD_BYTES_MAX, EVENTS_AHEAD_MAX, RECONNECT_DELAY, RECONNECT_DELAY_MAX};
use crate::transport::Publisher;

/// Where events come from.
pub struct Reading {
    pub source: SourceOptions,
    pub server_id: u32,
    pub binlog_dir: Option<PathBuf>,
}

impl Reading {
    /// Drives `capture` until it is asked to stop or something cannot be mended by connecting again.
    pub async fn drive<P: Publisher, R: Registrar>(
        &self,
        mut capture: Capture<P, R>,
        mut requests: mpsc::Receiver<Request>,
        stop: CancellationToken,
    ) -> Result<(), CaptureError> {
        let mut delay = RECONNECT_DELAY;
        loop {
            let ended = tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(()),
                ended = self.connect_and_run(&mut capture, &mut requests, &stop, &mut delay) => ended,
            };
            match ended {
                Ok(Ended::Asked) => return Ok(()),
                Ok(Ended::EndOfSource) => {}
                Err(CaptureError::Source(error @ SourceError::Retryable { .. })) => {
                    counters().source_lost();
                    standing().source_lost(&error.to_string());
                    tracing::warn!(%error, retry_in = ?delay, "the source is lost");
                    tokio::select! {
                        () = tokio::time::sleep(delay) => {}
                        () = stop.cancelled() => return Ok(()),
                    }
                    delay = (delay * 2).min(RECONNECT_DELAY_MAX);
                }
                Err(error) => return Err(error),
            }
        }
    }

    async fn connect_and_run<P: Publisher, R: Registrar>(
        &self,
        capture: &mut Capture<P, R>,
        requests: &mut mpsc::Receiver<Request>,
        stop: &CancellationToken,
        delay: &mut Duration,
    ) -> Result<Ended, CaptureError> {
        let mut connection = weir_mysql::connect(&self.source).await.map_err(lost)?;
        let executed = server::executed_gtids(&mut connection).await.map_err(lost)?;
        let purged = server::purged_gtids(&mut connection).await.map_err(lost)?;
        let server_uuid = server::server_facts(&mut connection).await.map_err(lost)?.server_uuid;
        drop(connection);
        let position = capture.published().clone();
        match resume(&position.gtid_set, &executed, &purged, position.last.as_ref()) {
            Ok(resume) => {
                if position.last.is_some() && resume.verify.is_none() {
                    tracing::warn!(
                        "the last applied transaction has been purged; that it is still the same one cannot be seen"
                    );
                }
                let live =
                    LiveSource::connect(self.source.opts().map_err(lost)?, &resume.exclude, self.server_id).await?;
                capture.reconnected(&server_uuid, resume.verify);
                counters().source_connected();
                standing().source_connected();
                *delay = RECONNECT_DELAY;
                run_ahead(Watched::new(live, self.source.clone()), capture, requests, stop).await
            }
            Err(Discontinuity::Purged { .. }) if self.binlog_dir.is_some() => {
                let dir = self.binlog_dir.as_deref().expect("just matched");
                tracing::info!(dir = %dir.display(), "the server has purged what is needed; reading archived files");
                let files = files_to_read(list_binlog_dir(dir)?, &position.gtid_set).await?;
                let Some(files) = files else {
                    tracing::error!("the oldest archived file begins after what is needed");
                    let missing = purged.difference(&position.gtid_set);
                    return Err(discontinuous(capture, &Discontinuity::Purged { missing }));
                };
                let files = FileSource::open(files)?.of_log(&position.gtid_set);
                capture.reconnected(&server_uuid, None);
                let before = capture.published().gtid_set.clone();
                let ended = run_ahead(files, capture, requests, stop).await?;
                let after = &capture.published().gtid_set;
                if ended == Ended::EndOfSource && !purged.is_subset(after) {
                    let missing = purged.difference(after);
                    let error = Discontinuity::Purged { missing };
                    tracing::error!(read = %after.difference(&before), "the archived files do not hold all that is missing");
                    return Err(discontinuous(capture, &error));
                }
                Ok(ended)
            }
            Err(error) => Err(discontinuous(capture, &error)),
        }
    }
}

fn discontinuous<P: Publisher, R: Registrar>(capture: &Capture<P, R>, error: &Discontinuity) -> CaptureError {
    CaptureError::Stop { at: capture.published().log.clone(), what: error.to_string() }
}

/// The files from the last one that begins within what we have; `None` if even the first begins later, since whatever
/// lies between would be skipped.
async fn files_to_read(files: Vec<PathBuf>, ours: &GtidSet) -> Result<Option<Vec<PathBuf>>, SourceError> {
    for (first, file) in files.iter().enumerate().rev() {
        let before = if ours.is_of_log() { before_file(file, ours)? } else { previous_gtids(file).await? };
        if before.is_subset(ours) {
            return Ok(Some(files[first..].to_vec()));
        }
    }
    Ok(None)
}

/// Reads in a task of its own, so that the network and decoding overlap.
async fn run_ahead<S: Source + Send + 'static, P: Publisher, R: Registrar>(
    mut source: S,
    capture: &mut Capture<P, R>,
    requests: &mut mpsc::Receiver<Request>,
    stop: &CancellationToken,
) -> Result<Ended, CaptureError> {
    let (sender, mut events) = mpsc::channel::<Result<ReadAhead, SourceError>>(EVENTS_AHEAD_MAX);
    let memory = Arc::new(Semaphore::new(EVENTS_AHEAD_BYTES_MAX));
    let reader = tokio::spawn(async move {
        loop {
            let read = match source.next().await {
                Ok(Some(event)) => Ok(ReadAhead { hold: hold(&memory, &event).await, event }),
                Ok(None) => return,
                Err(error) => Err(error),
            };
            let failed = read.is_err();
            if let Ok(ReadAhead { event, .. }) = &read {
                counters().event_read(row_bytes(event));
                counters().read_ahead(sender.max_capacity() - sender.capacity());
            }
            if sender.send(read).await.is_err() || failed {
                return;
            }
        }
    });
    let ended = capture.run(&mut events, requests, stop).await;
    reader.abort();
    ended
}

/// Memory for an event's row images; waits until there is some.
async fn hold(memory: &Arc<Semaphore>, event: &SourceEvent) -> Option<OwnedSemaphorePermit> {
    let bytes = row_bytes(event).min(EVENTS_AHEAD_BYTES_MAX);
    if bytes == 0 {
        return None;
    }
    memory.clone().acquire_many_owned(u32::try_from(bytes).unwrap_or(u32::MAX)).await.ok()
}

fn row_bytes(event: &SourceEvent) -> usize {
    match &event.body {
        EventBody::Rows(image) => image.rows.len(),
        _ => 0,
    }
}

/// A source that cannot be asked is lost, unless it says that we may not.
fn lost(error: MysqlError) -> CaptureError {
    let why = error.to_string();
    CaptureError::Source(if error.is_retryable() {
        SourceError::Retryable { why }
    } else {
        SourceError::AuthOrConfig { why }
    })
}
