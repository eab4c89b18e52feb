//! The trace in ClickHouse: one for many services, and for everybody who may query it.
//!
//! Counts go in before the mark above them, so a mark never says more than is there; totals count what lies below the
//! marks, so counts without one are as if they were not there. A forgotten table begins a greater generation. What is
//! said to the server is in [`sql`]; docs/trace.md describes the tables to people who query them.
//!
//! Nothing connects before it is asked for: a service starts while its trace is away. The database and the tables are made
//! where they are missing, and looked for again after an error.

mod days;
pub mod sql;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::sync::{Arc, Mutex};

use clickhouse::sql::Identifier;
use clickhouse::{Client, Row, RowOwned, RowWrite};
use serde::{Deserialize, Serialize};
use weir_model::{Digest, Op, Repair, TableId, Window};

use super::repairs::RepairRow;
use super::{AddsUp, CAPTURE, Hop, Origin, Shipment, StageCount, TraceError, TraceSink, summed};
use crate::limits::{TRACE_PARTITIONS_PER_INSERT_MAX, TRACE_REQUEST_MAX};

/// Which server, and as whom.
#[derive(Clone)]
pub struct Server {
    /// `http(s)://host:port`, without user, password or path.
    pub url: String,
    /// The server's default user if empty.
    pub user: String,
    pub password: String,
    pub database: String,
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.url, self.database)
    }
}

/// A trace in one database of a server. Clones share what is known of it.
#[derive(Clone)]
pub struct ClickHouseTrace {
    shared: Arc<Shared>,
}

struct Shared {
    server: Server,
    client: Client,
    prepared: tokio::sync::Mutex<Option<Prepared>>,
    /// Generation of each origin when its mark was last asked for: another one has begun when it differs.
    generations: Mutex<HashMap<(String, Origin), u64>>,
}

/// The client of a server whose tables are there.
#[derive(Clone)]
struct Prepared {
    client: Client,
    version: String,
}

/// A mark, as far as one is there.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Mark {
    generation: u64,
    next_version: u64,
}

impl Mark {
    /// The greatest version that is in, if any is.
    fn version(self) -> Option<i64> {
        self.next_version.checked_sub(1).and_then(|version| i64::try_from(version).ok())
    }
}

#[derive(Debug, Row, Serialize)]
struct CountRow {
    source: Arc<str>,
    table_name: String,
    origin: String,
    generation: u64,
    version: i64,
    window_ms: i64,
    op: String,
    hop: &'static str,
    at_ms: i64,
    count: u64,
    digest_0: u32,
    digest_1: u32,
    digest_2: u32,
    digest_3: u32,
}

#[derive(Debug, Row, Serialize)]
struct MarkRow {
    source: Arc<str>,
    origin: String,
    generation: u64,
    next_version: u64,
}

#[derive(Debug, Row, Serialize)]
struct FormatRow {
    format: u64,
}

#[derive(Debug, Row, Deserialize)]
struct MarkFound {
    origin: String,
    generation: u64,
    next_version: u64,
}

impl ClickHouseTrace {
    /// Connects to nothing yet.
    pub fn new(server: Server) -> Self {
        // Validation asks for metadata in ways that servers of before 2021 do not understand.
        let mut client = Client::default().with_url(&server.url).with_validation(false);
        if !server.user.is_empty() {
            client = client.with_user(&server.user).with_password(&server.password);
        }
        let (prepared, generations) = (tokio::sync::Mutex::default(), Mutex::default());
        let shared = Shared { server, client, prepared, generations };
        Self { shared: Arc::new(shared) }
    }

    /// The server's version, once its tables can be used.
    pub async fn server_version(&self) -> Result<String, TraceError> {
        self.with(|prepared| async move { Ok(prepared.version) }).await
    }

    /// Where it is, without user and password.
    pub fn place(&self) -> String {
        format!("{:?}", self.shared.server)
    }

    /// Runs `work` on a server that has our tables. After an error they are looked for anew.
    async fn with<R, W>(&self, work: impl FnOnce(Prepared) -> W + Send) -> Result<R, TraceError>
    where
        W: Future<Output = Result<R, Trouble>> + Send,
    {
        let result = match self.prepared().await {
            Ok(prepared) => work(prepared).await,
            Err(trouble) => Err(trouble),
        };
        if result.is_err() {
            *self.shared.prepared.lock().await = None;
        }
        result.map_err(|trouble| trouble.at(self.place()))
    }

    async fn prepared(&self) -> Result<Prepared, Trouble> {
        let mut prepared = self.shared.prepared.lock().await;
        if let Some(prepared) = &*prepared {
            return Ok(prepared.clone());
        }
        Ok(prepared.insert(prepare(&self.shared.client, &self.shared.server.database).await?).clone())
    }

    fn know(&self, source: &str, origin: &Origin, generation: u64) {
        self.generations().insert((source.to_owned(), origin.clone()), generation);
    }

    fn generations(&self) -> std::sync::MutexGuard<'_, HashMap<(String, Origin), u64>> {
        self.shared.generations.lock().expect("no code panics while holding it")
    }

    /// The generations to write into.
    ///
    /// # Errors
    /// When one has begun since its mark was asked for: versions that were shipped into the last one are gone.
    fn still_the_same(&self, source: &str, marks: BTreeMap<Origin, Mark>) -> Result<BTreeMap<Origin, Mark>, Trouble> {
        let mut known = self.generations();
        for (origin, mark) in &marks {
            let known = *known.entry((source.to_owned(), origin.clone())).or_insert(mark.generation);
            if known != mark.generation {
                return Err(Trouble::Server(format!("another process began the trace of {origin} anew")));
            }
        }
        Ok(marks)
    }
}

impl TraceSink for ClickHouseTrace {
    async fn ship(&self, source: &str, shipments: &[Shipment]) -> Result<(), TraceError> {
        if shipments.is_empty() {
            return Ok(());
        }
        self.with(|Prepared { client, .. }| async move {
            let origins: BTreeSet<&Origin> = shipments.iter().map(|shipment| &shipment.origin).collect();
            let marks = self.still_the_same(source, marks(&client, source, &origins).await?)?;
            for rows in count_rows(source, shipments, &marks) {
                insert(&client, "weir_trace", &rows).await?;
            }
            days::announce(&client, source, shipments, &marks).await?;
            insert(&client, "weir_trace_marks", &mark_rows(source, shipments, &marks)).await
        })
        .await
    }

    async fn shipped_version(&self, source: &str, origin: &Origin) -> Result<Option<i64>, TraceError> {
        let mark = self.with(|prepared| async move { mark(&prepared.client, source, origin).await }).await?;
        self.know(source, origin, mark.generation);
        Ok(mark.version())
    }

    async fn shipped_versions(&self, source: &str) -> Result<BTreeMap<Origin, i64>, TraceError> {
        let marks = self
            .with(|Prepared { client, .. }| async move {
                let marks = marks_of_source(&client, source).await?.into_iter();
                let marks = marks.map(|(name, mark)| Ok((Origin::try_from(name).map_err(Trouble::Foreign)?, mark)));
                marks.collect::<Result<Vec<(Origin, Mark)>, Trouble>>()
            })
            .await?;
        let mut versions = BTreeMap::new();
        for (origin, mark) in marks {
            self.know(source, &origin, mark.generation);
            versions.extend(mark.version().map(|version| (origin, version)));
        }
        Ok(versions)
    }

    async fn totals(
        &self,
        source: &str,
        tables: &[TableId],
        since: Option<Window>,
    ) -> Result<BTreeMap<TableId, Vec<StageCount>>, TraceError> {
        self.with(|Prepared { client, .. }| async move {
            let totals = days::totals(&client, source, tables, since).await?;
            Ok(totals.into_iter().map(|(table, counts)| (table, summed(counts))).collect())
        })
        .await
    }

    async fn fold(&self, source: &str, before: Window, adds_up: AddsUp) -> Result<u64, TraceError> {
        self.with(|Prepared { client, .. }| async move { days::fold(&client, source, before, adds_up).await }).await
    }

    async fn expire(&self, source: &str, before: Window) -> Result<(), TraceError> {
        self.with(|Prepared { client, .. }| async move { days::expire(&client, source, before).await }).await
    }

    async fn forget(&self, source: &str, table: &TableId) -> Result<(), TraceError> {
        let origin = &Origin::Table(table.clone());
        let generation = self
            .with(|Prepared { client, .. }| async move {
                let generation = mark(&client, source, origin).await?.generation + 1;
                let row = MarkRow { source: source.into(), origin: origin.to_string(), generation, next_version: 0 };
                insert(&client, "weir_trace_marks", &[row]).await?;
                Ok(generation)
            })
            .await?;
        self.know(source, origin, generation);
        Ok(())
    }

    async fn note_repairs(&self, source: &str, repairs: &[Repair]) -> Result<(), TraceError> {
        if repairs.is_empty() {
            return Ok(());
        }
        let rows: Vec<RepairRow> = repairs.iter().map(|repair| RepairRow::of(source, repair)).collect();
        self.with(|Prepared { client, .. }| async move { insert(&client, "weir_trace_repairs", &rows).await }).await
    }

    async fn noted_repairs(&self, source: &str) -> Result<BTreeMap<String, bool>, TraceError> {
        self.with(|Prepared { client, .. }| async move {
            let noted = in_time(client.query(sql::REPAIRS_NOTED).bind(source).fetch_all::<(String, i64)>()).await?;
            Ok(noted.into_iter().map(|(id, ended_ms)| (id, ended_ms > 0)).collect())
        })
        .await
    }

    async fn repairs(&self, source: &str, max: usize) -> Result<Vec<Repair>, TraceError> {
        self.with(|Prepared { client, .. }| async move {
            let query = client.query(sql::REPAIRS).bind(source).bind(max);
            let rows = in_time(query.fetch_all::<RepairRow>()).await?;
            let repairs: Result<Vec<Repair>, String> = rows.into_iter().map(RepairRow::repair).collect();
            repairs.map_err(Trouble::Foreign)
        })
        .await
    }
}

/// Makes what is missing. Looks first, since a user may be allowed to write tables and not to make them.
async fn prepare(client: &Client, database: &str) -> Result<Prepared, Trouble> {
    let version: String = in_time(client.query(sql::VERSION).fetch_one()).await?;
    let major = major(&version);
    let is_there: u64 = in_time(client.query(sql::DATABASE_IS_THERE).bind(database).fetch_one()).await?;
    if is_there == 0 {
        in_time(client.query(sql::CREATE_DATABASE).bind(Identifier(database)).execute()).await?;
    }
    let mut client = client.clone().with_database(database);
    if major >= sql::ASYNC_INSERT_SINCE {
        client = client.with_setting("async_insert", "0");
    }
    for (name, create) in sql::TABLES {
        let query = client.query(sql::TABLE_IS_THERE).bind(database).bind(name);
        if in_time(query.fetch_one::<u64>()).await? == 0 {
            let settings = if major >= sql::ON_DISK_FIRST_SINCE { sql::ON_DISK_FIRST } else { "" };
            in_time(client.query(&format!("{create}{settings}")).execute()).await?;
        }
        if name == "weir_trace_format" {
            check_format(&client).await?;
        }
    }
    Ok(Prepared { client, version })
}

async fn check_format(client: &Client) -> Result<(), Trouble> {
    match in_time(client.query(sql::FORMAT_FOUND).fetch_one::<u64>()).await? {
        sql::FORMAT => Ok(()),
        found if found < sql::FORMAT => insert(client, "weir_trace_format", &[FormatRow { format: sql::FORMAT }]).await,
        later => Err(Trouble::Foreign(format!("its format is {later}, this version of weir knows {}", sql::FORMAT))),
    }
}

async fn mark(client: &Client, source: &str, origin: &Origin) -> Result<Mark, Trouble> {
    Ok(marks(client, source, &BTreeSet::from([origin])).await?[origin])
}

/// The mark of each of `origins` in its greatest generation.
async fn marks(client: &Client, source: &str, origins: &BTreeSet<&Origin>) -> Result<BTreeMap<Origin, Mark>, Trouble> {
    let mut query = client.query(&sql::marks(origins.len())).bind(source);
    for origin in origins {
        query = query.bind(origin.to_string());
    }
    let mut found: HashMap<String, Mark> = HashMap::new();
    for MarkFound { origin, generation, next_version } in in_time(query.fetch_all::<MarkFound>()).await? {
        let mark = found.entry(origin).or_default();
        *mark = (*mark).max(Mark { generation, next_version });
    }
    let of = |origin: &Origin| found.get(&origin.to_string()).copied().unwrap_or_default();
    Ok(origins.iter().map(|origin| ((*origin).clone(), of(origin))).collect())
}

/// The rows of `shipments`, in as many inserts as the server's bound on partitions asks for: nearly always one.
fn count_rows(source: &str, shipments: &[Shipment], marks: &BTreeMap<Origin, Mark>) -> Vec<Vec<CountRow>> {
    let source: Arc<str> = source.into();
    let mut partitions: BTreeMap<i64, Vec<CountRow>> = BTreeMap::new();
    for shipment in shipments {
        let generation = marks[&shipment.origin].generation;
        for (table, count) in &shipment.counts {
            let rows = partitions.entry(count.window.0 / sql::PARTITION_MS).or_default();
            rows.push(CountRow::of(source.clone(), shipment, generation, table, count));
        }
    }
    let mut inserts = Vec::new();
    let mut partitions = partitions.into_values().peekable();
    while partitions.peek().is_some() {
        inserts.push(partitions.by_ref().take(TRACE_PARTITIONS_PER_INSERT_MAX).flatten().collect());
    }
    inserts
}

/// A mark an origin, at its greatest version.
fn mark_rows(source: &str, shipments: &[Shipment], marks: &BTreeMap<Origin, Mark>) -> Vec<MarkRow> {
    let mut reached: BTreeMap<&Origin, i64> = BTreeMap::new();
    for shipment in shipments {
        let version = reached.entry(&shipment.origin).or_insert(shipment.version);
        *version = shipment.version.max(*version);
    }
    let row = |(origin, version): (&Origin, i64)| MarkRow {
        source: source.into(),
        origin: origin.to_string(),
        generation: marks[origin].generation,
        next_version: u64::try_from(version + 1).unwrap_or(0),
    };
    reached.into_iter().map(row).collect()
}

impl CountRow {
    fn of(source: Arc<str>, shipment: &Shipment, generation: u64, table: &TableId, count: &StageCount) -> Self {
        let [digest_0, digest_1, digest_2, digest_3] = limbs(count.digest);
        Self {
            source,
            table_name: table.to_string(),
            origin: shipment.origin.to_string(),
            generation,
            version: shipment.version,
            window_ms: count.window.0,
            op: count.op.to_string(),
            hop: count.hop.name(),
            at_ms: shipment.at_ms,
            count: count.count,
            digest_0,
            digest_1,
            digest_2,
            digest_3,
        }
    }
}

/// The lowest first.
fn limbs(digest: Digest) -> [u32; 4] {
    [0, 32, 64, 96].map(|shift| (digest.0 >> shift) as u32)
}

/// Resolves the carry of sums of limbs; what passes 2^128 is dropped.
fn digest((d0, d1, d2, d3): (u64, u64, u64, u64)) -> Digest {
    let limbs = [(d0, 0), (d1, 32), (d2, 64), (d3, 96)];
    Digest(limbs.into_iter().fold(0, |sum: u128, (limb, shift)| sum.wrapping_add(u128::from(limb) << shift)))
}

fn parsed(op: &str, hop: &str) -> Result<(Op, Hop), Trouble> {
    let unknown = |what: &str| Trouble::Foreign(format!("`{what}` is no operation or hop"));
    let letter = op.chars().next().and_then(|letter| Op::try_from(letter).ok());
    Ok((letter.ok_or_else(|| unknown(op))?, Hop::from_name(hop).ok_or_else(|| unknown(hop))?))
}

/// The mark of every origin of `source`, in its greatest generation.
async fn marks_of_source(client: &Client, source: &str) -> Result<BTreeMap<String, Mark>, Trouble> {
    let mut marks: BTreeMap<String, Mark> = BTreeMap::new();
    let found = in_time(client.query(sql::MARKS_OF_SOURCE).bind(source).fetch_all::<MarkFound>()).await?;
    for MarkFound { origin, generation, next_version } in found {
        let mark = marks.entry(origin).or_default();
        *mark = (*mark).max(Mark { generation, next_version });
    }
    Ok(marks)
}

async fn insert<T>(client: &Client, table: &str, rows: &[T]) -> Result<(), Trouble>
where
    T: RowOwned + RowWrite + Sync,
{
    in_time(async {
        let mut insert = client.insert::<T>(table).await?;
        for row in rows {
            insert.write(row).await?;
        }
        insert.end().await
    })
    .await
}

/// A request, given up after a while: a server that hangs must not hold whoever waits.
async fn in_time<R>(request: impl Future<Output = clickhouse::error::Result<R>>) -> Result<R, Trouble> {
    match tokio::time::timeout(TRACE_REQUEST_MAX, request).await {
        Ok(result) => result.map_err(|error| Trouble::Server(told(&error))),
        Err(_) => Err(Trouble::Server(format!("no answer within {} s", TRACE_REQUEST_MAX.as_secs()))),
    }
}

/// `18` of `18.16.1`; servers have been named after their year since 2018.
fn major(version: &str) -> u32 {
    version.split('.').next().and_then(|major| major.parse().ok()).unwrap_or(0)
}

/// An error with its causes in a line, and not a whole page that some other server may have sent.
fn told(error: &dyn std::error::Error) -> String {
    const LENGTH_MAX: usize = 400;
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let line = error.to_string();
        if !text.contains(&line) {
            text = format!("{text}: {line}");
        }
        cause = error.source();
    }
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    line.chars().take(LENGTH_MAX).collect()
}

/// What went wrong, before it is said where.
enum Trouble {
    Server(String),
    Foreign(String),
}

impl Trouble {
    fn at(self, place: String) -> TraceError {
        match self {
            Self::Server(what) => TraceError::Server { place, what },
            Self::Foreign(what) => TraceError::Foreign { place, what },
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::trace::contract;

    proptest! {
        #[test]
        fn summed_limbs_give_the_sum_of_the_digests(digests in prop::collection::vec(any::<u128>(), 0..50)) {
            let mut sums = [0_u64; 4];
            let mut expected = Digest::default();
            for found in digests {
                expected += Digest(found);
                for (sum, limb) in sums.iter_mut().zip(limbs(Digest(found))) {
                    *sum += u64::from(limb);
                }
            }
            let [d0, d1, d2, d3] = sums;
            prop_assert_eq!(digest((d0, d1, d2, d3)), expected);
        }
    }

    #[test]
    fn many_partitions_are_spread_over_several_inserts_and_lose_no_row() {
        let commits: Vec<Shipment> =
            (0..130).map(|n| contract::commit(n, 0, contract::accounts(n * sql::PARTITION_MS, 1))).collect();
        let marks = BTreeMap::from([(commits[0].origin.clone(), Mark::default())]);
        let inserts = count_rows("shop", &commits, &marks);
        assert_eq!(inserts.len(), 130_usize.div_ceil(TRACE_PARTITIONS_PER_INSERT_MAX));
        assert_eq!(inserts.iter().map(Vec::len).sum::<usize>(), 130 * 4);
        assert_eq!(mark_rows("shop", &commits, &marks)[0].next_version, 130);
    }

    #[test]
    fn the_partition_length_is_that_of_the_tables() {
        assert!(sql::TABLES[1].1.contains(&format!("intDiv(window_ms, {})", sql::PARTITION_MS)));
    }

    #[test]
    fn the_year_tells_what_a_server_knows() {
        assert_eq!((major("18.16.1"), major("26.9.1.1"), major("?")), (18, 26, 0));
    }

    #[tokio::test]
    async fn a_server_that_is_away_is_told_with_its_place_and_without_the_password() {
        let server = Server {
            url: "http://127.0.0.1:9".into(),
            user: "weir".into(),
            password: "hunter2".into(),
            database: "weir".into(),
        };
        let trace = ClickHouseTrace::new(server.clone());
        let error = trace.shipped_version("shop", &Origin::Capture).await.unwrap_err();
        let told = format!("{error} {error:?} {server:?}");
        assert!(told.contains("http://127.0.0.1:9/weir") && !told.contains("hunter2"), "{told}");
    }
}
