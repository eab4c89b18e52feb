//! Row changes of real binlogs decoded by weir and by the other readers written in Rust, and a binlog captured from a running
//! server: what `bench/decode.py` runs and measures.
//!
//!     decode weir|mysql_cdc|mysql_common FILE…
//!     decode live URL FROM_GTID_SET TO_GTID_SET
//!
//! Each prints how many row changes there were and what they took. `weir` decodes to Arrow and verifies every event's checksum;
//! the others decode to their own values. `live` is capture without what lies behind it: received, verified, decoded to Arrow, each
//! change with its order and its id, counted and summed; the batches are thrown away.

#[path = "../engine/measure.rs"]
mod measure;

use std::collections::HashMap;
use std::error::Error;
use std::fs::File;
use std::io::BufReader;
use std::path::PathBuf;
use std::sync::Arc;

use mysql_cdc::binlog_reader::BinlogReader;
use mysql_cdc::events::binlog_event::BinlogEvent;
use mysql_common::binlog::consts::BinlogVersion;
use mysql_common::binlog::events::EventData;
use mysql_common::binlog::{BinlogFile, EventStreamReader};
use weir::binlog::{
    EventBody, FileSource, LiveSource, RowDecoder, RowsImage, Source, SourceEvent, TableMap, random_server_id,
};
use weir::capture::event_time::event_time;
use weir::capture::lane::{Lane, LaneKey, LaneStart, TransactionTime};
use weir_model::change::Stamp;
use weir_model::{ChangeBuilder, EventId, GtidSet, Order, OrderState, RowRules, TableId, Window, ZeroDates, clock};
use weir_mysql::SourceOptions;

use self::measure::{Clock, Spent, peak_mib};

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Bytes of decoded rows in a batch, about as many as the service hands over at once.
const BATCH_BYTES: usize = 4 << 20;

type Outcome<T> = Result<T, Box<dyn Error>>;

#[tokio::main]
async fn main() -> Outcome<()> {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let clock = Clock::start()?;
    let changes = match words.as_slice() {
        ["weir", files @ ..] => by_weir(files).await?,
        ["mysql_cdc", files @ ..] => each_file(files, by_mysql_cdc)?,
        ["mysql_common", files @ ..] => each_file(files, by_mysql_common)?,
        ["live", url, from, to] => live(url, from.parse()?, &to.parse()?).await?,
        // `cargo test` starts every benchmark without arguments to see whether it starts.
        [] => return Ok(()),
        _ => return Err("usage: decode weir|mysql_cdc|mysql_common FILE…, or decode live URL FROM TO".into()),
    };
    let Spent { seconds, cpu_seconds, bytes } = clock.stop()?;
    let peak_mib = peak_mib()?;
    println!(
        "{}",
        serde_json::json!({"rows": changes, "seconds": seconds, "cpu_seconds": cpu_seconds, "peak_mib": peak_mib, "bytes_written": bytes})
    );
    Ok(())
}

fn each_file(files: &[&str], changes_of: impl Fn(File) -> Outcome<u64>) -> Outcome<u64> {
    files.iter().map(|file| changes_of(File::open(file)?)).sum()
}

async fn by_weir(files: &[&str]) -> Outcome<u64> {
    let mut source = FileSource::open(files.iter().map(PathBuf::from).collect())?;
    let mut plan: Option<(Arc<TableMap>, RowDecoder, ChangeBuilder)> = None;
    let mut changes = 0;
    while let Some(SourceEvent { body, .. }) = source.next().await? {
        let EventBody::Rows(image) = body else { continue };
        if plan.as_ref().is_none_or(|(map, ..)| **map != *image.map) {
            let schema = Arc::new(image.map.schema(None)?);
            let decoder = RowDecoder::new(&image.map, schema.clone())?;
            plan = Some((image.map.clone(), decoder, ChangeBuilder::new(schema, ZeroDates::Null)));
        }
        let Some((_, decoder, builder)) = &mut plan else { continue };
        changes += decoder.decode(&image, 0, builder)?;
        builder.stamp(|_, _| Stamp { order: Order::MIN, id: EventId(0), window: Window::of(0) });
        if builder.bytes() >= BATCH_BYTES {
            std::hint::black_box(builder.finish());
        }
    }
    Ok(changes)
}

fn by_mysql_cdc(file: File) -> Outcome<u64> {
    let mut changes = 0;
    for event in BinlogReader::new(file).map_err(|error| format!("{error:?}"))?.read_events() {
        let (_, event) = event.map_err(|error| format!("{error:?}"))?;
        changes += match std::hint::black_box(&event) {
            BinlogEvent::WriteRowsEvent(rows) => rows.rows.len(),
            BinlogEvent::UpdateRowsEvent(rows) => rows.rows.len(),
            BinlogEvent::DeleteRowsEvent(rows) => rows.rows.len(),
            _ => 0,
        } as u64;
    }
    Ok(changes)
}

fn by_mysql_common(file: File) -> Outcome<u64> {
    let mut log = BinlogFile::new(BinlogVersion::Version4, BufReader::with_capacity(1 << 20, file))?;
    let mut changes = 0;
    while let Some(event) = log.next() {
        let event = event?;
        let Some(EventData::RowsEvent(rows)) = event.read_data()? else { continue };
        let reader: &EventStreamReader = log.reader();
        let map = reader.get_tme(rows.table_id()).ok_or("rows before their table")?;
        for row in rows.rows(map) {
            std::hint::black_box(row?);
            changes += 1;
        }
    }
    Ok(changes)
}

/// Captures what the server has in `to` and not in `from`.
async fn live(url: &str, from: GtidSet, to: &GtidSet) -> Outcome<u64> {
    let opts = SourceOptions::new(url).opts()?;
    let mut source = LiveSource::connect(opts, &from, random_server_id()).await?;
    let (mut lanes, mut position) = (HashMap::<TableId, Lane>::new(), from);
    let (mut head, mut changes, mut bytes) = (None, 0, 0);
    while !to.is_subset(&position) {
        let Some(SourceEvent { body, .. }) = source.next().await? else { break };
        match body {
            EventBody::Begin(begun) => head = Some((event_time(&begun, clock::now_ms())?.ms, begun.gtid)),
            EventBody::Rows(image) => {
                let (event_ms, gtid) = head.as_ref().ok_or("rows outside a transaction")?;
                let id = image.map.id();
                if !lanes.contains_key(&id) {
                    lanes.insert(id.clone(), lane(&image)?);
                }
                let lane = lanes.get_mut(&id).ok_or("it is there")?;
                let time = TransactionTime { source: "bench", gtid, origin: gtid, event_ms: *event_ms };
                bytes += lane.decode(&image, time)?;
            }
            EventBody::Commit => {
                lanes.values_mut().for_each(Lane::end_transaction);
                if let Some((_, gtid)) = head.take() {
                    position.insert(&gtid);
                }
            }
            _ => {}
        }
        if bytes >= BATCH_BYTES {
            bytes = 0;
            changes += lanes.values_mut().map(sealed).sum::<u64>();
        }
    }
    Ok(changes + lanes.values_mut().map(sealed).sum::<u64>())
}

fn lane(image: &RowsImage) -> Outcome<Lane> {
    let schema = image.map.schema(None)?;
    let start = LaneStart {
        gtid_set: GtidSet::default(),
        partial: None,
        order: OrderState::default(),
        key: LaneKey { columns: schema.key_columns(), is_primary: true },
        zero_dates: ZeroDates::Null,
        rules: RowRules::default(),
        catalogued: None,
        awaits_load: false,
    };
    Ok(Lane::new(image.map.id(), start))
}

/// Half-events of what was collected, which is thrown away.
fn sealed(lane: &mut Lane) -> u64 {
    lane.seal().iter().map(|changes| std::hint::black_box(changes).batch.len() as u64).sum()
}
