//! What a server says about itself: its settings, its GTIDs, the end of its binlog, its clock and its load.

use std::collections::HashMap;
use std::fmt;
use std::time::{Duration, Instant};

use mysql_async::Conn;
use mysql_async::prelude::Queryable;
use serde::{Deserialize, Serialize};
use weir_model::position::LogName;
use weir_model::{GtidSet, LogPosition, TableId, Xid};

use crate::error::{MysqlError, codes};
use crate::query;
use crate::wire::RowConnection;

/// Between two looks at what a server has done.
const PAUSE_MIN: Duration = Duration::from_millis(1);
const PAUSE_MAX: Duration = Duration::from_millis(50);

/// Which family a server belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Flavour {
    /// MySQL, and what derives from it without changing the binlog (Percona, Aurora, …).
    Mysql,
    Mariadb,
}

/// A server's version number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
pub struct Version {
    pub major: u16,
    pub minor: u16,
    pub patch: u16,
}

impl Version {
    pub const fn new(major: u16, minor: u16, patch: u16) -> Self {
        Self { major, minor, patch }
    }

    /// From `9.7.4-2` or `10.11.6-MariaDB-log`; MariaDB's replication prefix `5.5.5-` is not its version.
    pub fn parse(text: &str) -> Self {
        let text = if text.contains("MariaDB") { text.strip_prefix("5.5.5-").unwrap_or(text) } else { text };
        let mut numbers = text.split(|c: char| !c.is_ascii_digit()).map(|n| n.parse().unwrap_or(0));
        let mut next = || numbers.next().unwrap_or(0);
        Self { major: next(), minor: next(), patch: next() }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

/// Settings and identity of a server. A setting that the server does not know is empty, zero or false.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerFacts {
    pub version_text: String,
    pub version: Version,
    pub flavour: Flavour,
    /// Lower-case. MariaDB has none that every version tells: there it is put together of its id, host and port.
    pub server_uuid: String,
    pub server_id: u32,
    pub log_bin: bool,
    /// Upper-case, as are the other settings that are words.
    pub binlog_format: String,
    pub binlog_row_image: String,
    pub binlog_row_metadata: String,
    pub binlog_row_value_options: String,
    pub binlog_checksum: String,
    pub gtid_mode: String,
    /// Of MariaDB: whether the numbers of a domain must rise.
    pub gtid_strict_mode: bool,
    pub enforce_gtid_consistency: String,
    pub sync_binlog: u64,
    pub innodb_flush_log_at_trx_commit: u64,
    /// 0: never purged by age.
    pub binlog_expire_s: u64,
    pub read_only: bool,
    pub lower_case_table_names: u8,
    pub max_allowed_packet: u64,
    pub time_zone: String,
    /// The server's clock when it was asked, in ms since the epoch.
    pub now_ms: i64,
}

impl ServerFacts {
    /// Whether transactions of this server carry GTIDs, and not places in its binlog stand for them.
    pub fn has_gtids(&self) -> bool {
        self.flavour == Flavour::Mariadb || self.gtid_mode == "ON"
    }

    fn from_variables(variables: &HashMap<String, String>, version_text: String, now_ms: i64) -> Self {
        let text = |name: &str| variables.get(name).cloned().unwrap_or_default();
        let word = |name: &str| text(name).to_ascii_uppercase();
        let number = |name: &str| text(name).parse::<u64>().unwrap_or(0);
        let switch = |name: &str| matches!(word(name).as_str(), "ON" | "1" | "YES");
        let expire_s = match number("binlog_expire_logs_seconds") {
            // 5.7 counts days; 8.0 has both and lets the seconds win.
            0 => number("expire_logs_days") * 86_400,
            seconds => seconds,
        };
        // 8.0.29 and later can keep logs in spite of an age that is set.
        let purged = variables.get("binlog_expire_logs_auto_purge").is_none_or(|v| !v.eq_ignore_ascii_case("OFF"));
        let is_mariadb = version_text.contains("MariaDB");
        Self {
            version: Version::parse(&version_text),
            flavour: if is_mariadb { Flavour::Mariadb } else { Flavour::Mysql },
            version_text,
            server_uuid: if is_mariadb {
                format!("mariadb-{}-{}-{}", text("server_id"), text("hostname"), text("port")).to_ascii_lowercase()
            } else {
                text("server_uuid").to_ascii_lowercase()
            },
            server_id: number("server_id").try_into().unwrap_or(0),
            log_bin: switch("log_bin"),
            binlog_format: word("binlog_format"),
            binlog_row_image: word("binlog_row_image"),
            binlog_row_metadata: word("binlog_row_metadata"),
            binlog_row_value_options: word("binlog_row_value_options"),
            binlog_checksum: word("binlog_checksum"),
            gtid_mode: word("gtid_mode"),
            gtid_strict_mode: switch("gtid_strict_mode"),
            enforce_gtid_consistency: word("enforce_gtid_consistency"),
            sync_binlog: number("sync_binlog"),
            innodb_flush_log_at_trx_commit: number("innodb_flush_log_at_trx_commit"),
            binlog_expire_s: if purged { expire_s } else { 0 },
            read_only: switch("read_only") || switch("super_read_only"),
            lower_case_table_names: number("lower_case_table_names").try_into().unwrap_or(0),
            max_allowed_packet: number("max_allowed_packet"),
            time_zone: text("time_zone"),
            now_ms,
        }
    }
}

/// Reads the server's settings and identity.
pub async fn server_facts(conn: &mut Conn) -> Result<ServerFacts, MysqlError> {
    let doing = "reading the server's settings";
    let mut variables = HashMap::new();
    for row in query::rows(conn, "SHOW GLOBAL VARIABLES", doing).await? {
        if let (Some(name), Some(value)) = (query::cell::<String>(&row, 0), query::cell::<String>(&row, 1)) {
            variables.insert(name.to_ascii_lowercase(), value);
        }
    }
    let version = query::first_row(conn, "SELECT VERSION()", doing).await?;
    let version: String = version.as_ref().and_then(|row| query::cell(row, 0)).unwrap_or_default();
    Ok(ServerFacts::from_variables(&variables, version, now_ms(conn).await?))
}

/// The server's clock, in ms since the epoch.
pub async fn now_ms(conn: &mut Conn) -> Result<i64, MysqlError> {
    let doing = "reading the server's clock";
    let sql = "SELECT CAST(FLOOR(UNIX_TIMESTAMP(NOW(6)) * 1000) AS SIGNED)";
    number(conn, sql, doing).await
}

/// Whether the binlog describes its tables (`binlog_row_metadata=FULL`), among them one that `has_years`, as far as setting and
/// version tell.
pub async fn describes_tables(conn: &mut Conn, has_years: bool) -> Result<bool, MysqlError> {
    let doing = "reading binlog_row_metadata";
    let row = match query::first_row(conn, "SELECT @@GLOBAL.binlog_row_metadata, VERSION()", doing).await {
        Err(e) if e.code() == Some(codes::UNKNOWN_SYSTEM_VARIABLE) => return Ok(false),
        row => row?,
    };
    let text = |index| row.as_ref().and_then(|row| query::cell::<String>(row, index)).unwrap_or_default();
    Ok(text(0).eq_ignore_ascii_case("FULL") && (!has_years || counts_years(&text(1))))
}

/// Whether a server that calls itself so is known to count YEAR columns where its binlog tells which columns are unsigned: 8.0.15
/// does not, and of some versions behind it we have not seen which do.
pub fn counts_years(version_text: &str) -> bool {
    const SEEN_TO_COUNT: Version = Version::new(8, 0, 30);

    version_text.contains("MariaDB") || Version::parse(version_text) >= SEEN_TO_COUNT
}

/// `@@gtid_executed`: every transaction that the server has committed. Of MariaDB, `@@gtid_binlog_pos`, and of a server without
/// GTIDs, all below the end of its binlog: every one that the binlog has, which tells of them before their rows are visible.
pub async fn executed_gtids(conn: &mut Conn) -> Result<GtidSet, MysqlError> {
    match known_gtids(conn, "gtid_executed").await {
        Ok(Known::Gtids(executed)) => Ok(executed),
        Ok(Known::NoGtids { server_uuid }) => up_to(&server_uuid, &binlog_end(conn).await?),
        Err(e) if e.code() == Some(codes::UNKNOWN_SYSTEM_VARIABLE) => {
            gtids(conn, "SELECT @@GLOBAL.gtid_binlog_pos", "reading gtid_binlog_pos").await
        }
        Err(error) => Err(error),
    }
}

/// `@@gtid_purged`: transactions that have left the server's binlog. Of MariaDB, and of a server without GTIDs, what is before its
/// oldest file.
pub async fn purged_gtids(conn: &mut Conn) -> Result<GtidSet, MysqlError> {
    let executed = match known_gtids(conn, "gtid_purged").await {
        Ok(Known::Gtids(purged)) => return Ok(purged),
        Ok(Known::NoGtids { server_uuid }) => {
            let oldest = query::rows(conn, "SHOW BINARY LOGS", "reading where the oldest binlog begins").await?;
            let file = oldest.first().and_then(|row| query::cell::<String>(row, 0));
            let begin = match file {
                Some(file) => LogPosition::beginning_of(file),
                None => binlog_end(conn).await?,
            };
            return up_to(&server_uuid, &begin);
        }
        Err(e) if e.code() == Some(codes::UNKNOWN_SYSTEM_VARIABLE) => executed_gtids(conn).await?,
        Err(error) => return Err(error),
    };
    let doing = "reading where the oldest binlog begins";
    // A file may be purged between the two statements.
    const ATTEMPTS: u32 = 3;
    for _ in 0..ATTEMPTS {
        let oldest = query::rows(conn, "SHOW BINARY LOGS", doing).await?;
        let Some(file) = oldest.first().and_then(|row| query::cell::<String>(row, 0)) else { break };
        let sql = format!("SELECT BINLOG_GTID_POS('{}', 4)", file.replace('\'', "''"));
        let position = query::first_row(conn, &sql, doing).await?;
        if let Some(text) = position.as_ref().and_then(|row| query::cell::<String>(row, 0)) {
            return parse_gtids(&text, doing);
        }
    }
    // Without a binlog nothing that was executed can be read.
    Ok(executed)
}

/// A variable of MySQL that holds GTIDs, or that the server is followed without.
enum Known {
    Gtids(GtidSet),
    NoGtids { server_uuid: String },
}

async fn known_gtids(conn: &mut Conn, variable: &str) -> Result<Known, MysqlError> {
    let doing = format!("reading {variable}");
    let sql = format!("SELECT @@GLOBAL.{variable}, @@GLOBAL.gtid_mode, @@GLOBAL.server_uuid");
    let row = query::first_row(conn, &sql, &doing).await?;
    let text = |index| row.as_ref().and_then(|row| query::cell::<String>(row, index)).unwrap_or_default();
    if text(1) == "ON" {
        return Ok(Known::Gtids(parse_gtids(&text(0), &doing)?));
    }
    Ok(Known::NoGtids { server_uuid: text(2) })
}

fn up_to(server_uuid: &str, end: &LogPosition) -> Result<GtidSet, MysqlError> {
    let set = LogName::of(server_uuid, end).and_then(|log| GtidSet::up_to(&log, end));
    set.map_err(|error| MysqlError::Unexpected {
        doing: "looking where the binlog stands, by which a source without GTIDs is followed".into(),
        what: error.to_string(),
    })
}

/// Of a server without GTIDs, whose binlog has transactions before their rows are visible: waits until `table` shows whatever the
/// binlog has of it by now; `false` if that takes longer than `wait_max`. One that is gone has nothing to show.
///
/// Whoever has written a table holds on to it until that is visible, and a lock waits for them all. New writers
/// go before it, so that many who overlap all the time keep it waiting.
pub async fn wait_for_writers(conn: &mut Conn, table: &TableId, wait_max: Duration) -> Result<bool, MysqlError> {
    match lock_table(conn, table, wait_max).await {
        Ok(()) => unlock_tables(conn).await.map(|()| true),
        Err(error) if error.code() == Some(codes::LOCK_WAIT_TIMEOUT) => Ok(false),
        Err(error) if error.code() == Some(codes::NO_SUCH_TABLE) => Ok(true),
        Err(error) => Err(error),
    }
}

/// Locks `table` against writers until [`unlock_tables`], or the end of the connection. Changes of it that others have under
/// way are waited for, so none is while it is locked; its writers wait.
///
/// # Errors
/// With [`codes::LOCK_WAIT_TIMEOUT`] if that takes longer than `wait_max`.
pub async fn lock_table(conn: &mut Conn, table: &TableId, wait_max: Duration) -> Result<(), MysqlError> {
    let doing = format!("locking {table}");
    query::execute(conn, &format!("SET SESSION lock_wait_timeout = {}", wait_max.as_secs().max(1)), &doing).await?;
    query::execute(conn, &format!("LOCK TABLES {} READ", table.quoted()), &doing).await
}

/// Waits until no statement is just giving `table` other columns: what is executed behind it counts as executed then.
///
/// # Errors
/// With [`codes::LOCK_WAIT_TIMEOUT`] if that takes longer than `wait_max`.
pub async fn wait_for_alteration(conn: &mut Conn, table: &TableId, wait_max: Duration) -> Result<(), MysqlError> {
    let doing = format!("waiting for an alteration of {table}");
    query::execute(conn, &format!("SET SESSION lock_wait_timeout = {}", wait_max.as_secs().max(1)), &doing).await?;
    // Reads no row, but takes the lock that whoever reads takes.
    query::execute(conn, &format!("SELECT 1 FROM {} LIMIT 0", table.quoted()), &doing).await
}

pub async fn unlock_tables(conn: &mut Conn) -> Result<(), MysqlError> {
    query::execute(conn, "UNLOCK TABLES", "unlocking a table").await
}

/// Where the server's binlog ends.
///
/// # Errors
/// [`MysqlError::Server`] with [`codes::NO_BINARY_LOGGING`] when the server writes none.
pub async fn binlog_end(conn: &mut Conn) -> Result<LogPosition, MysqlError> {
    let doing = "reading the end of the binlog";
    let row = match query::first_row(conn, "SHOW BINARY LOG STATUS", doing).await {
        // Spelled so from 8.2 on; the old spelling is gone in 8.4.
        Err(e) if e.code() == Some(codes::SYNTAX) => query::first_row(conn, "SHOW MASTER STATUS", doing).await?,
        other => other?,
    };
    let row = row.ok_or_else(|| MysqlError::Server {
        doing: doing.into(),
        code: codes::NO_BINARY_LOGGING,
        state: "HY000".into(),
        message: "the server writes no binlog".into(),
        hint: "; start it with --log-bin",
    })?;
    Ok(LogPosition { file: query::required(&row, 0, doing)?, offset: query::required(&row, 1, doing)? })
}

/// Waits until the server has executed all of `gtids`; `false` if `timeout` passes first. MariaDB's binlog, or that of a server
/// without GTIDs, has them then, which says nothing of whether rows are visible.
///
/// Asks again and again in place of WAIT_FOR_EXECUTED_GTID_SET: as a rule the answer is yes at once, and a session that
/// waits inside the server outlives a caller who gave up.
pub async fn wait_for_executed(conn: &mut Conn, gtids: &GtidSet, timeout: Duration) -> Result<bool, MysqlError> {
    if gtids.is_empty() {
        return Ok(true);
    }
    let doing = "waiting for transactions to be executed";
    let sql = format!("SELECT GTID_SUBSET('{gtids}', @@GLOBAL.gtid_executed)");
    let started = Instant::now();
    let mut pause = PAUSE_MIN;
    loop {
        let executed = if gtids.is_of_domains() || gtids.is_of_log() {
            gtids.is_subset(&executed_gtids(conn).await?)
        } else {
            number::<i64>(conn, &sql, doing).await? == 1
        };
        if executed {
            return Ok(true);
        }
        if started.elapsed() + pause > timeout {
            return Ok(false);
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

/// Of MariaDB, which tells of transactions before their rows are visible: begins a snapshot on `rows` that shows all of `gtids`,
/// and whatever else had come by then; `false` if there is none before `timeout` passes. `conn` leads to the same server.
///
/// `log` is a place in the binlog of that server behind them all, if one is known: it saves asking for the GTIDs of a place, for
/// which the server reads the file.
pub async fn snapshot_behind(
    conn: &mut Conn,
    rows: &mut RowConnection,
    gtids: &GtidSet,
    log: Option<&LogPosition>,
    timeout: Duration,
) -> Result<bool, MysqlError> {
    let started = Instant::now();
    let mut pause = PAUSE_MIN;
    loop {
        rows.begin_snapshot().await?;
        let end = rows.snapshot_end().await?;
        let is_behind = match log.map(|log| end.has_passed(log)) {
            Some(Ok(has_passed)) => has_passed,
            _ => gtids.is_subset(&gtids_up_to(conn, &end).await?),
        };
        if is_behind {
            return Ok(true);
        }
        rows.end_snapshot().await?;
        if started.elapsed() + pause > timeout {
            return Ok(false);
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

/// Of MariaDB: the transactions of its binlog up to `position`. The server reads the file up to there.
async fn gtids_up_to(conn: &mut Conn, position: &LogPosition) -> Result<GtidSet, MysqlError> {
    let sql = format!("SELECT BINLOG_GTID_POS('{}', {})", position.file.replace('\'', "''"), position.offset);
    gtids(conn, &sql, "asking which transactions a place in the binlog is behind").await
}

/// Sessions that are doing something at this moment, ours included.
pub async fn threads_running(conn: &mut Conn) -> Result<u64, MysqlError> {
    let doing = "reading the server's load";
    let row = query::first_row(conn, "SHOW GLOBAL STATUS LIKE 'Threads_running'", doing).await?;
    let text: Option<String> = row.as_ref().and_then(|row| query::cell(row, 1));
    text.and_then(|t| t.parse().ok())
        .ok_or_else(|| MysqlError::Unexpected { doing: doing.into(), what: "no Threads_running".into() })
}

/// How a server stands to its own source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ReplicaLag {
    #[default]
    NoReplica,
    /// In whole seconds, as servers tell it; of several channels the one that is furthest behind.
    Behind(Duration),
    /// It does not say: some channel is not replicating.
    Stopped,
}

/// How far the server is behind its own source.
pub async fn replica_lag(conn: &mut Conn) -> Result<ReplicaLag, MysqlError> {
    let doing = "reading how far the replica is behind";
    let rows = match query::rows(conn, "SHOW REPLICA STATUS", doing).await {
        // Spelled so from 8.0.22 on.
        Err(error) if error.code() == Some(codes::SYNTAX) => query::rows(conn, "SHOW SLAVE STATUS", doing).await?,
        other => other?,
    };
    let lag = |row: &mysql_async::Row| -> Option<u64> {
        query::named(row, "Seconds_Behind_Source").or_else(|| query::named(row, "Seconds_Behind_Master"))
    };
    let lags: Option<Vec<u64>> = rows.iter().map(lag).collect();
    Ok(match lags.map(|lags| lags.into_iter().max()) {
        None => ReplicaLag::Stopped,
        Some(None) => ReplicaLag::NoReplica,
        Some(Some(seconds)) => ReplicaLag::Behind(Duration::from_secs(seconds)),
    })
}

/// Names of the XA transactions that are prepared and neither committed nor rolled back; `None` if we may not see them, or
/// the server cannot tell them so.
///
/// # Errors
/// Also when the server names one otherwise than its manual says.
pub async fn xa_recover(conn: &mut Conn) -> Result<Option<Vec<Xid>>, MysqlError> {
    const DOING: &str = "listing prepared XA transactions";
    // As text of hexadecimal digits: names are bytes of no character set.
    let rows = match conn.query::<(i64, usize, usize, String), _>("XA RECOVER CONVERT XID").await {
        Ok(rows) => rows,
        Err(mysql_async::Error::Server(e)) if e.code == codes::SYNTAX => return none_is_prepared(conn).await,
        Err(mysql_async::Error::Server(e))
            if [codes::XA_NOT_ALLOWED, codes::SPECIFIC_ACCESS_DENIED].contains(&e.code) =>
        {
            return Ok(None);
        }
        Err(e) => return Err(MysqlError::from_driver(DOING, &e)),
    };
    let name = |(format, gtrid_len, bqual_len, data): (i64, usize, usize, String)| {
        let digits = data.strip_prefix("0x").filter(|digits| digits.is_ascii())?;
        let cut = digits.split_at_checked(2 * gtrid_len).filter(|(_, bqual)| bqual.len() == 2 * bqual_len)?;
        format!("X'{}',X'{}',{format}", cut.0, cut.1).parse().ok()
    };
    let names: Option<Vec<Xid>> = rows.into_iter().map(name).collect();
    names.map(Some).ok_or_else(|| MysqlError::Unexpected {
        doing: DOING.into(),
        what: "XA RECOVER names a transaction in an unknown form".into(),
    })
}

/// MariaDB spells the names of those that are prepared in another way: that there are none is told all the same.
async fn none_is_prepared(conn: &mut Conn) -> Result<Option<Vec<Xid>>, MysqlError> {
    let prepared = query::rows(conn, "XA RECOVER", "listing prepared XA transactions").await?;
    Ok(prepared.is_empty().then(Vec::new))
}

async fn gtids(conn: &mut Conn, sql: &str, doing: &str) -> Result<GtidSet, MysqlError> {
    let row = query::first_row(conn, sql, doing).await?;
    let text: String = row.as_ref().and_then(|row| query::cell(row, 0)).unwrap_or_default();
    parse_gtids(&text, doing)
}

fn parse_gtids(text: &str, doing: &str) -> Result<GtidSet, MysqlError> {
    text.parse().map_err(|e: weir_model::position::PositionError| MysqlError::Unexpected {
        doing: doing.into(),
        what: e.to_string(),
    })
}

async fn number<T: mysql_async::prelude::FromValue>(conn: &mut Conn, sql: &str, doing: &str) -> Result<T, MysqlError> {
    let row = query::first_row(conn, sql, doing).await?;
    let row = row.ok_or_else(|| MysqlError::Unexpected { doing: doing.into(), what: "no row".into() })?;
    query::required(&row, 0, doing)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_and_compared_as_numbers() {
        assert_eq!(Version::parse("9.7.4-2"), Version::new(9, 7, 4));
        assert_eq!(Version::parse("8.0.36-28.1"), Version::new(8, 0, 36));
        assert_eq!(Version::parse("5.5.5-10.11.6-MariaDB-0+deb12u1-log"), Version::new(10, 11, 6));
        assert!(Version::parse("8.0.36") < Version::new(8, 4, 0));
        assert_eq!(Version::parse("odd"), Version::default());
    }

    #[test]
    fn years_are_counted_by_newer_servers_and_by_mariadb() {
        assert!(counts_years("9.7.4-2") && counts_years("8.0.30") && counts_years("10.11.6-MariaDB-log"));
        assert!(!counts_years("8.0.15") && !counts_years("5.7.22-log"));
    }

    #[test]
    fn an_age_in_days_counts_where_seconds_are_unknown() {
        let facts = |pairs: &[(&str, &str)]| {
            let variables = pairs.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
            ServerFacts::from_variables(&variables, "5.7.22".into(), 0)
        };
        assert_eq!(facts(&[("expire_logs_days", "2")]).binlog_expire_s, 172_800);
        assert_eq!(facts(&[("binlog_expire_logs_seconds", "60"), ("expire_logs_days", "2")]).binlog_expire_s, 60);
        let kept = facts(&[("binlog_expire_logs_seconds", "60"), ("binlog_expire_logs_auto_purge", "OFF")]);
        assert_eq!(kept.binlog_expire_s, 0);
    }
}
