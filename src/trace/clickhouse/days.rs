//! Days in ClickHouse: rows that say which minutes they sum, beside the counts that they were made of.
//!
//! Nothing is changed: a row of a day is made anew, whole, from the counts by the minute, which stay until their age takes
//! them. So it does not matter who makes one, how often, or where that ends: each is right by itself, and what none sums is
//! read by the minute. What comes for a day that may be summed already is announced before its mark, and the day is
//! read by the minute until it is summed again.

use std::collections::{BTreeMap, BTreeSet};

use clickhouse::{Client, Row};
use serde::{Deserialize, Serialize};
use weir_model::{TableId, Window};

use super::{CAPTURE, Mark, Trouble, digest, in_time, insert, limbs, parsed, sql};
use crate::limits::{TRACE_DAYS_PER_INSERT_MAX, TRACE_DAYS_READ_TOGETHER, TRACE_PARTITIONS_PER_INSERT_MAX};
use crate::trace::days::{AddsUp, Balance, DAY_MS, DayCounts, day_of, fold_day};
use crate::trace::{Shipment, StageCount};

/// A table's day.
type TableDay = (String, i64);

/// Bounds of a source's windows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Bounds {
    /// Somebody may have summed days below this.
    folding: Option<i64>,
    /// Every day below this that had counts then has its row.
    folded: Option<i64>,
    /// Days that end here or before count no longer.
    expired: Option<i64>,
}

#[derive(Debug, Row, Serialize)]
struct BoundRow {
    source: String,
    bound: &'static str,
    at_ms: i64,
}

#[derive(Debug, Row, Serialize)]
struct LateRow {
    source: String,
    table_name: String,
    day_ms: i64,
    origin: String,
    generation: u64,
    version: i64,
}

#[derive(Debug, Row, Deserialize)]
struct LateFound {
    table_name: String,
    day_ms: i64,
    origin: String,
    generation: u64,
    version: i64,
}

#[derive(Debug, Clone, Row, Serialize, Deserialize)]
struct DayRow {
    source: String,
    table_name: String,
    day_ms: i64,
    fold: u64,
    before_ms: i64,
    kept: Vec<i64>,
    generation: u64,
    below: u64,
    capture_generation: u64,
    capture_below: u64,
    with_stale: Vec<u8>,
    origin: Vec<String>,
    op: Vec<String>,
    hop: Vec<String>,
    count: Vec<u64>,
    digest_0: Vec<u32>,
    digest_1: Vec<u32>,
    digest_2: Vec<u32>,
    digest_3: Vec<u32>,
}

#[derive(Debug, Row, Deserialize)]
struct MinuteFound {
    table_name: String,
    origin: String,
    generation: u64,
    window_ms: i64,
    op: String,
    hop: String,
    count: u64,
    limbs: (u64, u64, u64, u64),
}

/// What is known of the days of a source, or of one table of it.
struct Known {
    marks: BTreeMap<String, Mark>,
    days: BTreeMap<TableDay, DayRow>,
    /// Days that something came for late, by the greatest version of each origin in its generation.
    late: BTreeMap<TableDay, BTreeMap<String, i64>>,
}

impl Known {
    /// In this order: what is announced while days are read is seen.
    async fn read(client: &Client, source: &str, only: Option<&str>, since_day: i64) -> Result<Self, Trouble> {
        let (and, table) = (sql::only(only.is_some()), only.unwrap_or_default());
        let query = client.query(&sql::DAYS.replace("{only}", and)).bind(source).bind(since_day);
        let query = if only.is_some() { query.bind(table) } else { query };
        let mut days: BTreeMap<TableDay, DayRow> = BTreeMap::new();
        for row in in_time(query.fetch_all::<DayRow>()).await? {
            let known = days.entry((row.table_name.clone(), row.day_ms)).or_insert_with(|| row.clone());
            if (row.before_ms, row.fold) > (known.before_ms, known.fold) {
                *known = row;
            }
        }
        let query = client.query(&sql::LATE.replace("{only}", and)).bind(source).bind(since_day);
        let query = if only.is_some() { query.bind(table) } else { query };
        let announced = in_time(query.fetch_all::<LateFound>()).await?;
        let marks = super::marks_of_source(client, source).await?;
        let mut late: BTreeMap<TableDay, BTreeMap<String, i64>> = BTreeMap::new();
        for LateFound { table_name, day_ms, origin, generation, version } in announced {
            if marks.get(&origin).is_none_or(|mark| mark.generation == generation) {
                late.entry((table_name, day_ms)).or_default().insert(origin, version);
            }
        }
        Ok(Self { marks, days, late })
    }

    /// Whether the row of a day sums every minute that it says, as far as minutes are below `folded`.
    fn is_true(&self, row: &DayRow, folded: i64) -> bool {
        let mark = |origin: &str| self.marks.get(origin).copied().unwrap_or_default();
        let below = |origin: &str| if origin == CAPTURE { row.capture_below } else { row.below };
        let late = self.late.get(&(row.table_name.clone(), row.day_ms));
        mark(&row.table_name).generation == row.generation
            && mark(CAPTURE).generation == row.capture_generation
            && row.before_ms >= folded.min(row.day_ms.saturating_add(DAY_MS))
            && late.into_iter().flatten().all(|(origin, version)| (*version as u64) < below(origin))
    }

    /// Days whose minutes have to be read although they lie below `folded`.
    fn untrue(&self, folded: i64) -> BTreeSet<TableDay> {
        let untrue = self.days.iter().filter(|(_, row)| !self.is_true(row, folded)).map(|(day, _)| day.clone());
        let without = self.late.keys().filter(|day| !self.days.contains_key(*day)).cloned();
        untrue.chain(without).filter(|(_, day)| *day < folded).collect()
    }
}

/// Before marks are written, and after the counts below them: says what came for days that may be summed already.
pub(super) async fn announce(
    client: &Client,
    source: &str,
    shipments: &[Shipment],
    marks: &BTreeMap<crate::trace::Origin, Mark>,
) -> Result<(), Trouble> {
    let Some(folding) = bounds(client, source).await?.folding else { return Ok(()) };
    let mut late: BTreeMap<(String, i64, String), LateRow> = BTreeMap::new();
    for shipment in shipments {
        for (table, count) in shipment.counts.iter().filter(|(_, count)| count.window.0 < folding) {
            let (table_name, day_ms, origin) = (table.to_string(), day_of(count.window), shipment.origin.to_string());
            let row = late.entry((table_name.clone(), day_ms, origin.clone())).or_insert_with(|| LateRow {
                source: source.to_owned(),
                table_name,
                day_ms,
                origin,
                generation: marks[&shipment.origin].generation,
                version: shipment.version,
            });
            row.version = row.version.max(shipment.version);
        }
    }
    let rows: Vec<LateRow> = late.into_values().collect();
    if rows.is_empty() { Ok(()) } else { insert(client, "weir_trace_late", &rows).await }
}

/// Sums over every count of `tables`.
pub(super) async fn totals(
    client: &Client,
    source: &str,
    tables: &[TableId],
    since: Option<Window>,
) -> Result<BTreeMap<TableId, Vec<StageCount>>, Trouble> {
    let names: BTreeMap<String, &TableId> = tables.iter().map(|table| (table.to_string(), table)).collect();
    let only = names.keys().next().filter(|_| names.len() == 1).map(String::as_str);
    let (since_ms, since_day) = (since.map_or(i64::MIN, |since| since.0), since.map_or(i64::MIN, day_of));
    // First, so that what is folded meanwhile is read by the minute as well, and then left out.
    let bounds = bounds(client, source).await?;
    let folded = bounds.folded.unwrap_or(i64::MIN);
    let known = Known::read(client, source, only, since_day).await?;
    let untrue = known.untrue(folded);
    let mut totals: BTreeMap<TableId, Vec<StageCount>> = BTreeMap::new();
    let mut read: BTreeSet<TableDay> = untrue.clone();
    let expired = bounds.expired.unwrap_or(i64::MIN);
    let counts_still = |day: i64| day.saturating_add(DAY_MS) > expired;
    read.retain(|(_, day)| counts_still(*day));
    for (day, row) in known.days.iter().filter(|(day, _)| !untrue.contains(*day)) {
        if !row.kept.is_empty() {
            read.insert(day.clone());
        }
        if counts_still(row.day_ms)
            && let Some(table) = names.get(&row.table_name)
        {
            totals.entry((*table).clone()).or_default().extend(row.counts()?);
        }
    }
    let mut minutes = minutes_from(client, source, only, folded.max(since_ms)).await?;
    for days in read.iter().collect::<Vec<_>>().chunks(TRACE_DAYS_READ_TOGETHER) {
        minutes.extend(minutes_of(client, source, days, folded, true).await?);
    }
    for minute in minutes {
        let Some(table) = names.get(&minute.table_name).filter(|_| minute.window_ms >= since_ms) else { continue };
        let day = (minute.table_name.clone(), day_of(Window(minute.window_ms)));
        let row = known.days.get(&day).filter(|_| !untrue.contains(&day));
        let is_summed = row
            .is_some_and(|row| minute.window_ms < row.before_ms && row.kept.binary_search(&minute.window_ms).is_err());
        let is_current = known.marks.get(&minute.origin).is_none_or(|mark| mark.generation == minute.generation);
        if !is_summed && is_current {
            totals.entry((*table).clone()).or_default().push(minute.count()?);
        }
    }
    Ok(totals)
}

/// Makes the rows of all days below `before` that have none, or an untrue one. Returns how many.
pub(super) async fn fold(client: &Client, source: &str, before: Window, adds_up: AddsUp) -> Result<u64, Trouble> {
    let known_bounds = bounds(client, source).await?;
    let before = before.0.max(known_bounds.folded.unwrap_or(i64::MIN));
    // Said before any count is read: who has not read it then has inserted its counts before.
    set_bound(client, source, "folding", before).await?;
    let known = Known::read(client, source, None, i64::MIN).await?;
    let from = known_bounds.folded.map_or(i64::MIN, |folded| day_of(Window(folded)));
    let query = client.query(sql::DAYS_WITH_COUNTS).bind(source).bind(from).bind(before);
    let with_counts = in_time(query.fetch_all::<(String, i64)>()).await?;
    let with_counts = with_counts.into_iter().map(|(table, day)| (table, (day - sql::DAYS_BEFORE_1970) * DAY_MS));
    let lacking = with_counts.filter(|day| known.days.get(day).is_none_or(|row| !known.is_true(row, before)));
    let days: BTreeSet<TableDay> = lacking.chain(known.untrue(before)).collect();
    let days: Vec<&TableDay> = days.iter().collect();
    let fold = u64::try_from(weir_model::clock::now_ms()).unwrap_or(0);
    for days in days.chunks(TRACE_DAYS_PER_INSERT_MAX) {
        let mut rows = Vec::with_capacity(days.len());
        for days in days.chunks(TRACE_DAYS_READ_TOGETHER) {
            let mut by_day: BTreeMap<TableDay, Vec<MinuteFound>> = BTreeMap::new();
            for minute in minutes_of(client, source, days, before, false).await? {
                by_day.entry((minute.table_name.clone(), day_of(Window(minute.window_ms)))).or_default().push(minute);
            }
            for day in days {
                let minutes = by_day.remove(*day).unwrap_or_default();
                rows.push(known.day_row(source, day, (fold, before), minutes, adds_up)?);
            }
        }
        let mut partitions: BTreeMap<i64, Vec<DayRow>> = BTreeMap::new();
        for row in rows {
            partitions.entry(row.day_ms / sql::PARTITION_MS).or_default().push(row);
        }
        let mut partitions = partitions.into_values().peekable();
        while partitions.peek().is_some() {
            let rows: Vec<DayRow> = partitions.by_ref().take(TRACE_PARTITIONS_PER_INSERT_MAX).flatten().collect();
            insert(client, "weir_trace_days", &rows).await?;
        }
    }
    set_bound(client, source, "folded", before).await?;
    Ok(days.len() as u64)
}

/// Days that end at or before `before` count no longer. What all sources are past, and adds up, is dropped.
pub(super) async fn expire(client: &Client, source: &str, before: Window) -> Result<(), Trouble> {
    if bounds(client, source).await?.expired < Some(before.0) {
        set_bound(client, source, "expired", before.0).await?;
    }
    let by_source = in_time(client.query(sql::PARTITIONS).fetch_all::<(i64, String)>()).await?;
    let expired = in_time(client.query(sql::EXPIRED).fetch_all::<(String, i64)>()).await?;
    let expired: BTreeMap<String, i64> = expired.into_iter().collect();
    let keeping = in_time(client.query(sql::PARTITIONS_WITH_KEPT).fetch_all::<i64>()).await?;
    let mut droppable: BTreeMap<i64, bool> = BTreeMap::new();
    for (partition, source) in by_source {
        let end = partition.saturating_add(1).saturating_mul(sql::PARTITION_MS);
        let is_past = expired.get(&source).is_some_and(|expired| *expired >= end) && !keeping.contains(&partition);
        *droppable.entry(partition).or_insert(true) &= is_past;
    }
    // Partition 0 takes in what is before 1970, too.
    for partition in droppable.into_iter().filter(|(n, is_past)| *is_past && *n > 0).map(|(n, _)| n) {
        // The counts first: a day's row alone counts as nothing by then.
        for table in ["weir_trace", "weir_trace_days"] {
            in_time(client.query(&format!("ALTER TABLE {table} DROP PARTITION {partition}")).execute()).await?;
        }
    }
    Ok(())
}

impl Known {
    fn day_row(
        &self,
        source: &str,
        (table_name, day_ms): &TableDay,
        (fold, before): (u64, i64),
        minutes: Vec<MinuteFound>,
        adds_up: AddsUp,
    ) -> Result<DayRow, Trouble> {
        let mark = |origin: &str| self.marks.get(origin).copied().unwrap_or_default();
        let (own, capture) = (mark(table_name), mark(CAPTURE));
        // Above the one that it takes the place of, whatever the clock says.
        let known = self.days.get(&(table_name.clone(), *day_ms));
        let mut counts = Vec::with_capacity(minutes.len());
        for minute in minutes {
            if minute.generation == mark(&minute.origin).generation {
                counts.push((minute.origin.clone(), minute.count()?));
            }
        }
        let (folded, kept) = fold_day(&counts, adds_up);
        let mut row = DayRow {
            source: source.to_owned(),
            table_name: table_name.clone(),
            day_ms: *day_ms,
            fold: known.map_or(fold, |known| fold.max(known.fold + 1)),
            before_ms: before.min(day_ms.saturating_add(DAY_MS)),
            kept: kept.into_iter().map(|window| window.0).collect(),
            generation: own.generation,
            below: own.next_version,
            capture_generation: capture.generation,
            capture_below: capture.next_version,
            with_stale: Vec::new(),
            origin: Vec::new(),
            op: Vec::new(),
            hop: Vec::new(),
            count: Vec::new(),
            digest_0: Vec::new(),
            digest_1: Vec::new(),
            digest_2: Vec::new(),
            digest_3: Vec::new(),
        };
        row.take(folded);
        Ok(row)
    }
}

impl DayRow {
    fn take(&mut self, folded: DayCounts) {
        for ((balance, origin, op, hop), (count, digest)) in folded {
            self.with_stale.push(u8::from(balance == Balance::WithStale));
            self.origin.push(origin);
            self.op.push(op.to_string());
            self.hop.push(hop.name().to_owned());
            self.count.push(count);
            let limbs = limbs(digest);
            self.digest_0.push(limbs[0]);
            self.digest_1.push(limbs[1]);
            self.digest_2.push(limbs[2]);
            self.digest_3.push(limbs[3]);
        }
    }

    fn counts(&self) -> Result<Vec<StageCount>, Trouble> {
        let lists = [self.op.len(), self.hop.len(), self.count.len(), self.digest_0.len(), self.digest_3.len()];
        if lists.iter().any(|length| *length != self.with_stale.len()) {
            let (table, day) = (&self.table_name, self.day_ms);
            return Err(Trouble::Foreign(format!(
                "the row of {table} for the day {day} has lists of different lengths"
            )));
        }
        (0..self.count.len())
            .map(|n| {
                let balance = if self.with_stale[n] == 0 { Balance::WithoutStale } else { Balance::WithStale };
                let limb = |list: &[u32]| u64::from(list.get(n).copied().unwrap_or_default());
                let (d0, d1) = (limb(&self.digest_0), limb(&self.digest_1));
                let (d2, d3) = (limb(&self.digest_2), limb(&self.digest_3));
                let (op, hop) = parsed(&self.op[n], &self.hop[n])?;
                let window = balance.window(self.day_ms);
                Ok(StageCount { hop, op, window, count: self.count[n], digest: digest((d0, d1, d2, d3)) })
            })
            .collect()
    }
}

impl MinuteFound {
    fn count(&self) -> Result<StageCount, Trouble> {
        let (op, hop) = parsed(&self.op, &self.hop)?;
        let (window, count) = (Window(self.window_ms), self.count);
        Ok(StageCount { hop, op, window, count, digest: digest(self.limbs) })
    }
}

async fn bounds(client: &Client, source: &str) -> Result<Bounds, Trouble> {
    let mut bounds = Bounds::default();
    let found = in_time(client.query(sql::BOUNDS).bind(source).fetch_all::<(String, i64)>()).await?;
    for (name, at_ms) in found {
        match name.as_str() {
            "folding" => bounds.folding = Some(at_ms),
            "folded" => bounds.folded = Some(at_ms),
            "expired" => bounds.expired = Some(at_ms),
            _ => {}
        }
    }
    Ok(bounds)
}

async fn set_bound(client: &Client, source: &str, bound: &'static str, at_ms: i64) -> Result<(), Trouble> {
    insert(client, "weir_trace_bounds", &[BoundRow { source: source.to_owned(), bound, at_ms }]).await
}

/// Every count from a window on, below its mark.
async fn minutes_from(
    client: &Client,
    source: &str,
    only: Option<&str>,
    from: i64,
) -> Result<Vec<MinuteFound>, Trouble> {
    let which = format!("window_ms >= ?{}", sql::only(only.is_some()));
    let query = client.query(&sql::minutes(&which, true)).bind(source).bind(from);
    let query = if let Some(table) = only { query.bind(table) } else { query };
    in_time(query.bind(source).fetch_all()).await
}

/// Every count of some days, in windows below `before`; with `marked` only what is below its mark.
async fn minutes_of(
    client: &Client,
    source: &str,
    days: &[&TableDay],
    before: i64,
    marked: bool,
) -> Result<Vec<MinuteFound>, Trouble> {
    let (Some(first), Some(last)) = (days.iter().map(|day| day.1).min(), days.iter().map(|day| day.1).max()) else {
        return Ok(Vec::new());
    };
    let mut query = client.query(&sql::minutes(&sql::of_days(days.len()), marked)).bind(source);
    query = query.bind(first).bind(before.min(last.saturating_add(DAY_MS)));
    for (table, day) in days {
        query = query.bind(table).bind(day / DAY_MS + sql::DAYS_BEFORE_1970);
    }
    let query = if marked { query.bind(source) } else { query };
    in_time(query.fetch_all()).await
}
