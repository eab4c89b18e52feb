//! Compares one table: its source is read part by part, and while the next part is read the lake's side of the last is.

use std::sync::Arc;
use std::time::Duration;

use snapshot_loader::key_text::key_json;
use snapshot_loader::{ChunkRange, PlanTarget, TableProgress, plan_chunks};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use uuid::Uuid;
use weir_model::{ColumnType, GtidSet, RecordKey, TableId};
use weir_mysql::{Conn, RowConnection, server};

use super::compare::{Counting, Finding, compare};
use super::confirm::{Confirm, Judgement, Suspect};
use super::entries::Collected;
use super::lake_side::{self, LakePart};
use super::parts::{Cut, Part, parts, sample};
use super::report::DeepReport;
use super::source_side;
use super::standing::reach;
use super::table::{ComparedTable, NotCompared};
use super::{DeepError, DeepQuestion};
use crate::limits::{
    CHUNK_BYTES, CHUNK_RETRY_DELAY, CHUNK_ROWS, DEEP_ATTEMPTS_MAX, DEEP_PART_CHUNKS, DEEP_SUSPECTS_MAX, DEEP_WAIT_MAX,
    DEEP_WAIT_SHORT,
};
use crate::reconcile::report::Reach;
use crate::state::jobs::Bound;

/// The report of `id`. What fails is in it.
pub async fn compare_table<C: Confirm>(question: &Arc<DeepQuestion>, confirm: &C, id: &TableId) -> DeepReport {
    let mut attempt = 1;
    loop {
        match compare_once(question, confirm, id).await {
            Ok(Ok(report)) => return report,
            Ok(Err(NotCompared(why))) => return DeepReport::not_compared(why),
            Err(error) if error.is_passing() && attempt < DEEP_ATTEMPTS_MAX => {
                tracing::warn!(table = %id, %error, "the comparison begins anew");
                attempt += 1;
                tokio::time::sleep(CHUNK_RETRY_DELAY).await;
            }
            Err(error) => return DeepReport::failed(error.to_string()),
        }
    }
}

async fn compare_once<C: Confirm>(
    question: &Arc<DeepQuestion>,
    confirm: &C,
    id: &TableId,
) -> Result<Result<DeepReport, NotCompared>, DeepError> {
    let (mut connection, table) = match look_at(question, id).await? {
        Ok(there) => there,
        Err(why) => return Ok(Err(why)),
    };
    let (parts, all) = planned(question, &mut connection, &table).await?;
    let mut report = DeepReport { ranges: all as u64, ranges_compared: parts.len() as u64, ..DeepReport::default() };
    if let Some(percent) = question.sample_percent {
        report.note_sample(percent);
        if all == 1 {
            report.notices.push("its key does not begin with a whole number, so it cannot be compared in part".into());
        }
    }
    let chunks = parts.iter().map(|part| part.chunks.len() as u64).sum();
    let progress = question.progress.table(id, table.description.approx_rows, chunks);
    let (sender, mut read) = mpsc::channel(1);
    let rows = RowConnection::beside(&question.options, &mut connection).await?;
    let connections = (connection, rows);
    // Ends with this function, also by an error.
    let mut reading = JoinSet::new();
    reading.spawn(read_source(question.clone(), connections, table.clone(), parts, sender, progress));
    let mut suspects = Suspects { table: &table, found: Vec::new(), beyond: 0 };
    while let Some(part) = read.recv().await {
        compare_part(question, &table, part, &mut report, &mut suspects).await?;
    }
    while let Some(ended) = reading.join_next().await {
        ended.map_err(|error| DeepError::Ended(error.to_string()))??;
    }
    report.unconfirmed_count = suspects.beyond;
    settle(question, confirm, suspects, &mut report).await?;
    if table.counting == Counting::Newest && report.extra_count > 0 {
        report
            .notices
            .push("a log keeps rows that went without events, by TRUNCATE and the like; they are extra".into());
    }
    Ok(Ok(report))
}

/// A connection to the source, and the table as both sides have it, if it follows the stream.
async fn look_at(
    question: &DeepQuestion,
    id: &TableId,
) -> Result<Result<(Conn, Arc<ComparedTable>), NotCompared>, DeepError> {
    let mut connection = weir_mysql::connect(&question.options).await?;
    let executed = server::executed_gtids(&mut connection).await?;
    if let Some(why) = not_following(&reach(question, id, &executed, Duration::ZERO).await?) {
        return Ok(Err(NotCompared(why)));
    }
    let table = ComparedTable::look_at(question, &mut connection, id).await?;
    Ok(table.map(|table| (connection, Arc::new(table))))
}

/// Why a table that does not follow the stream is not compared.
fn not_following(reach: &Reach) -> Option<String> {
    match reach {
        Reach::Filling => Some("it is being loaded".into()),
        Reach::NotSeeded => Some("it has not been loaded yet".into()),
        Reach::Stopped(why) => Some(format!("it has stopped: {why}")),
        Reach::All | Reach::Unknown | Reach::Behind(_) | Reach::Partial => None,
    }
}

/// The parts to compare, and how many there are altogether.
async fn planned(
    question: &DeepQuestion,
    connection: &mut Conn,
    table: &ComparedTable,
) -> Result<(Vec<Part>, usize), DeepError> {
    let Some(percent) = question.sample_percent else {
        let parts = plan(connection, table, DEEP_PART_CHUNKS).await?;
        let all = parts.len();
        return Ok((parts, all));
    };
    let mut parts: Vec<Option<Part>> = plan(connection, table, 1).await?.into_iter().map(Some).collect();
    let drawn = sample(parts.len(), percent, Uuid::new_v4().as_u64_pair().0);
    let all = parts.len();
    Ok((drawn.into_iter().filter_map(|at| parts[at].take()).collect(), all))
}

/// All of the table in parts of `chunks_max` chunks or a few more.
async fn plan(connection: &mut Conn, table: &ComparedTable, chunks_max: usize) -> Result<Vec<Part>, DeepError> {
    let target = PlanTarget { rows: CHUNK_ROWS, bytes: CHUNK_BYTES };
    let chunks = plan_chunks(connection, &table.description, &ChunkRange::all(), target).await?;
    let key: Vec<&ColumnType> = table.columns.key().map(|(_, ty)| ty).collect();
    Ok(parts(chunks, &key, chunks_max))
}

/// The columns of the table's record key, and the table in parts of `chunks_max` chunks or a few more, to be compared one by
/// one with [`compare_only`].
///
/// # Errors
/// When one side cannot be asked.
pub async fn plan_parts(
    question: &DeepQuestion,
    id: &TableId,
    chunks_max: usize,
) -> Result<Result<(Vec<String>, Vec<Part>), NotCompared>, DeepError> {
    let (mut connection, table) = match look_at(question, id).await? {
        Ok(there) => there,
        Err(why) => return Ok(Err(why)),
    };
    let key = table.columns.key().map(|(column, _)| column.name.clone()).collect();
    Ok(Ok((key, plan(&mut connection, &table, chunks_max).await?)))
}

/// Compares one part of a table, which may have been planned a while ago.
///
/// # Errors
/// When one side cannot be read, or the table was altered meanwhile.
pub async fn compare_only<C: Confirm>(
    question: &DeepQuestion,
    confirm: &C,
    id: &TableId,
    part: &Part,
) -> Result<Result<DeepReport, NotCompared>, DeepError> {
    let (mut connection, table) = match look_at(question, id).await? {
        Ok(there) => there,
        Err(why) => return Ok(Err(why)),
    };
    let progress = question.progress.table(id, table.description.approx_rows, part.chunks.len() as u64);
    let mut rows_of = RowConnection::beside(&question.options, &mut connection).await?;
    let rows = source_side::collect(question, &mut rows_of, &table, part, &progress).await?;
    let executed = server::executed_gtids(&mut connection).await?;
    let mut report = DeepReport { ranges: 1, ranges_compared: 1, ..DeepReport::default() };
    let mut suspects = Suspects { table: &table, found: Vec::new(), beyond: 0 };
    let read = ReadPart { cut: part.cut.clone(), rows, executed };
    compare_part(question, &table, read, &mut report, &mut suspects).await?;
    report.unconfirmed_count = suspects.beyond;
    settle(question, confirm, suspects, &mut report).await?;
    Ok(Ok(report))
}

/// A part of the source that has been read.
struct ReadPart {
    cut: Cut,
    rows: Collected,
    /// What the source had executed by then.
    executed: GtidSet,
}

/// Reads part after part; one waits while the last is compared.
async fn read_source(
    question: Arc<DeepQuestion>,
    (mut connection, mut rows_of): (Conn, RowConnection),
    table: Arc<ComparedTable>,
    parts: Vec<Part>,
    sender: mpsc::Sender<ReadPart>,
    progress: Arc<TableProgress>,
) -> Result<(), DeepError> {
    for part in parts {
        let rows = source_side::collect(&question, &mut rows_of, &table, &part, &progress).await?;
        let executed = server::executed_gtids(&mut connection).await?;
        if sender.send(ReadPart { cut: part.cut, rows, executed }).await.is_err() {
            // Whoever compares has failed and says why.
            break;
        }
    }
    Ok(())
}

/// Compares a part with what the lake holds of it, once that is what the source had.
async fn compare_part(
    question: &DeepQuestion,
    table: &ComparedTable,
    part: ReadPart,
    report: &mut DeepReport,
    suspects: &mut Suspects<'_>,
) -> Result<(), DeepError> {
    let ReadPart { cut, rows, executed } = part;
    // A table that nobody writes is equal though its place in the stream is told some seconds late.
    let holds = reach(question, &table.id, &executed, DEEP_WAIT_SHORT).await? == Reach::All;
    let mut lake = lake_side::collect(question, table, &cut).await?;
    let digest = rows.digest();
    let is_equal = |lake: &LakePart| table.counting == Counting::Rows && lake.rows.digest() == digest;
    if !holds && !is_equal(&lake) && reach(question, &table.id, &executed, DEEP_WAIT_MAX).await? == Reach::All {
        lake = lake_side::collect(question, table, &cut).await?;
    }
    report.rows_source += digest.rows;
    let lake_rows = lake.rows.digest().rows;
    let equal = is_equal(&lake);
    report.note_flaws(lake.flaws);
    if equal {
        report.rows_table += lake_rows;
        return Ok(());
    }
    let scratch = |source| question.scratch_error(source);
    let (source, lake) = (rows.into_sorted().map_err(scratch)?, lake.rows.into_sorted().map_err(scratch)?);
    let keys = compare(source, lake, table.counting, |key, finding| suspects.push(key, finding)).map_err(scratch)?;
    // Of a log the keys that are there count; of any other table each row does, those that a key has too many of as well.
    report.rows_table += if table.counting == Counting::Newest { keys } else { lake_rows };
    Ok(())
}

/// Keys that differed, up to so many.
struct Suspects<'a> {
    table: &'a ComparedTable,
    found: Vec<Suspect>,
    beyond: u64,
}

impl Suspects<'_> {
    fn push(&mut self, key: RecordKey, finding: Finding) {
        if self.found.len() == DEEP_SUSPECTS_MAX {
            self.beyond += 1;
            return;
        }
        let values = self.table.shape.values(key.as_ref());
        self.found.push(Suspect { key, values, finding });
    }
}

async fn settle<C: Confirm>(
    question: &DeepQuestion,
    confirm: &C,
    mut suspects: Suspects<'_>,
    report: &mut DeepReport,
) -> Result<(), DeepError> {
    if suspects.found.is_empty() {
        return Ok(());
    }
    suspects.found.sort_by(|a, b| a.key.as_ref().cmp(&b.key.as_ref()));
    report.rechecked = suspects.found.len() as u64;
    let judgements = confirm.confirm(question, &suspects.table.id, &suspects.found).await?;
    for (suspect, judgement) in suspects.found.iter().zip(judgements) {
        report.note(judgement, || suspects.table.shape.shown(suspect.key.as_ref()));
        if let Judgement::Confirmed(_) = judgement {
            let told = |values| Bound(key_json(&suspects.table.description, values));
            report.confirmed.push((suspect.clone(), suspect.values.as_deref().map(told)));
        }
    }
    Ok(())
}
