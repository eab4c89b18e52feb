//! Preflight: what of the source must be mended before a start, and by which statement. The decisions are pure;
//! [`gather`] collects what they are made from.

use std::collections::BTreeSet;

use mysql_async::Conn;
use serde::{Deserialize, Serialize};
use weir_model::schema::{META_PREFIX, quote_identifier};
use weir_model::{TableId, clock};

use crate::catalogue::{KeySource, TableDescription, describe, list_tables};
use crate::error::MysqlError;
use crate::grants::Grants;
use crate::patterns::TablePatterns;
use crate::server::{Flavour, ServerFacts, Version, server_facts, xa_recover};

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CheckStatus {
    Ok,
    Warn,
    Fail,
}

/// One line of the preflight.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// Stable, for scripts: `binlog_format`, `key`, `grant_select`, …
    pub name: String,
    /// The table it is about, if it is about one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub table: Option<TableId>,
    pub status: CheckStatus,
    pub detail: String,
    /// What mends it: an SQL statement where one does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mend: Option<String>,
}

/// A table as far as it could be described.
#[derive(Debug, Clone)]
pub enum CheckedTable {
    Described(Box<TableDescription>),
    /// Describing it failed; the text says why.
    Unusable {
        table: TableId,
        why: String,
    },
}

impl CheckedTable {
    pub fn table(&self) -> &TableId {
        match self {
            Self::Described(description) => description.table(),
            Self::Unusable { table, .. } => table,
        }
    }
}

/// Everything the checks look at.
#[derive(Debug, Clone)]
pub struct CheckInput {
    pub facts: ServerFacts,
    pub tables: Vec<CheckedTable>,
    /// Patterns that match no table yet.
    pub unmatched_patterns: Vec<String>,
    pub grants: Grants,
    /// Prepared XA transactions, if we may see them.
    pub xa_prepared: Option<u64>,
    /// This machine's clock when the server's was read, in ms since the epoch.
    pub here_ms: i64,
    /// Tables configured as append: they need no key.
    pub append_tables: Vec<TableId>,
}

/// A source clock this far ahead stops the stream, since orders never fall again.
const CLOCK_AHEAD_MAX_MS: i64 = 3_600_000;
const CLOCK_SKEW_WARN_MS: i64 = 10_000;
/// A stop over a weekend should not cost a new snapshot.
const BINLOG_KEPT_WARN_S: u64 = 3 * 86_400;
/// From here on InnoDB's cascades are in the binlog.
const CASCADES_LOGGED: Version = Version::new(9, 6, 0);
const OLDEST: Version = Version::new(5, 7, 0);
const OLDEST_MARIADB: Version = Version::new(10, 5, 0);
/// From here on TABLE_MAP can carry full metadata.
const FULL_METADATA: Version = Version::new(8, 0, 1);

/// Collects what [`checks`] looks at. Configured keys and append tables are put in by the caller.
pub async fn gather(conn: &mut Conn, patterns: &TablePatterns) -> Result<CheckInput, MysqlError> {
    let facts = server_facts(conn).await?;
    let here_ms = clock::now_ms();
    let names = list_tables(conn, patterns).await?;
    let mut tables = Vec::with_capacity(names.len());
    for table in &names {
        match describe(conn, table).await {
            Ok(Some(description)) => tables.push(CheckedTable::Described(Box::new(description))),
            Ok(None) => {}
            Err(e @ (MysqlError::Lost { .. } | MysqlError::Unreachable { .. })) => return Err(e),
            Err(e) => tables.push(CheckedTable::Unusable { table: table.clone(), why: e.to_string() }),
        }
    }
    let has_no_key =
        |table: &&CheckedTable| matches!(table, CheckedTable::Described(d) if d.key_source == KeySource::None);
    let keyless: Vec<TableId> = tables.iter().filter(has_no_key).map(|table| table.table().clone()).collect();
    // Without GTIDs only a lock tells when a table shows what the binlog has of it.
    let to_lock = if facts.has_gtids() { &keyless } else { &names };
    Ok(CheckInput {
        tables,
        unmatched_patterns: patterns.unmatched(&names).into_iter().map(str::to_owned).collect(),
        grants: Grants::probe(conn, &names, to_lock).await?,
        facts,
        xa_prepared: xa_recover(conn).await?.map(|names| names.len() as u64),
        here_ms,
        append_tables: Vec::new(),
    })
}

/// Every check, in the order to read them: the server, the account, then table by table.
pub fn checks(input: &CheckInput) -> Vec<Check> {
    let mut found = server_checks(&input.facts);
    found.push(clock_check(&input.facts, input.here_ms));
    found.extend(grant_checks(&input.grants));
    if !input.facts.has_gtids() {
        found.extend(lock_checks(&input.grants));
    }
    found.push(xa_check(input.xa_prepared));
    found.push(tables_found(input));
    for table in &input.tables {
        found.extend(table_checks(table, input));
    }
    found
}

fn check(name: &str, status: CheckStatus, detail: impl Into<String>, mend: Option<String>) -> Check {
    Check { name: name.into(), table: None, status, detail: detail.into(), mend }
}

/// `status` unless `good`.
fn unless(good: bool, status: CheckStatus) -> CheckStatus {
    if good { CheckStatus::Ok } else { status }
}

/// Ok if the setting holds what is wanted, else `otherwise` with the statement that sets it.
fn setting(facts: &ServerFacts, name: &str, value: &str, wanted: &str, otherwise: CheckStatus, why: &str) -> Check {
    let shown = if value.is_empty() { "empty" } else { value };
    if value == wanted {
        return check(name, CheckStatus::Ok, format!("{name} is {shown}"), None);
    }
    let scope =
        if facts.flavour == Flavour::Mysql && facts.version >= Version::new(8, 0, 0) { "PERSIST" } else { "GLOBAL" };
    let to = if wanted.is_empty() { "''" } else { wanted };
    check(name, otherwise, format!("{name} is {shown}; {why}"), Some(format!("SET {scope} {name} = {to}")))
}

/// What the server itself must be, whatever the tables.
pub fn server_checks(facts: &ServerFacts) -> Vec<Check> {
    use CheckStatus::{Fail, Ok, Warn};
    let mut found = vec![version_check(facts)];
    if !facts.log_bin {
        found.push(check(
            "log_bin",
            Fail,
            "the server writes no binlog",
            Some("log_bin = binlog under [mysqld] in my.cnf, then a restart".into()),
        ));
        return found;
    }
    found.push(check("log_bin", Ok, "the server writes a binlog", None));
    let words = |name, value: &str, wanted, status, why| setting(facts, name, value, wanted, status, why);
    found.push(words(
        "binlog_format",
        &facts.binlog_format,
        "ROW",
        Fail,
        "statements do not say which rows they changed",
    ));
    let images = "other images leave columns out: the rows that updates leave them out of are read from the lake, and those that \
                  inserts and changes of keys do from the source, by their keys; mode = \"append\" needs FULL";
    found.push(if facts.flavour == Flavour::Mariadb {
        let why = "other images leave columns out, among them generated ones that change";
        words("binlog_row_image", &facts.binlog_row_image, "FULL", Fail, why)
    } else {
        words("binlog_row_image", &facts.binlog_row_image, "FULL", Warn, images)
    });
    found.push(metadata_check(facts));
    let options = "a document that is logged as a difference costs a read of its row at the source, unless the image before \
                   has it, as those of FULL and NOBLOB do";
    found.push(words("binlog_row_value_options", &facts.binlog_row_value_options, "", Warn, options));
    found.push(gtid_check(facts));
    found.push(setting(
        facts,
        "sync_binlog",
        &facts.sync_binlog.to_string(),
        "1",
        Warn,
        "after a power failure the server may have forgotten transactions that we hold",
    ));
    found.push(setting(
        facts,
        "binlog_checksum",
        &facts.binlog_checksum,
        "CRC32",
        Warn,
        "damage to the binlog on its way would go unseen",
    ));
    found.push(retention_check(facts));
    found
}

/// Without the metadata columns are read as the catalogue shows them by then.
fn metadata_check(facts: &ServerFacts) -> Check {
    let name = "binlog_row_metadata";
    if facts.flavour == Flavour::Mysql && facts.version < FULL_METADATA {
        let detail = format!(
            "the binlog of MySQL {} does not describe its tables: a table that is altered while weir is behind must be loaded \
             anew",
            facts.version
        );
        let mend = format!("MySQL {FULL_METADATA} or later; or let weir run, and catch up, before an ALTER TABLE");
        return check(name, CheckStatus::Warn, detail, Some(mend));
    }
    let why = "without FULL a table that is altered while weir is behind must be loaded anew";
    setting(facts, name, &facts.binlog_row_metadata, "FULL", CheckStatus::Warn, why)
}

fn version_check(facts: &ServerFacts) -> Check {
    let detail = format!("{:?} {} ({})", facts.flavour, facts.version, facts.version_text);
    let (oldest, product) = match facts.flavour {
        Flavour::Mysql => (OLDEST, "MySQL"),
        Flavour::Mariadb => (OLDEST_MARIADB, "MariaDB"),
    };
    let mend = Some(format!("upgrade to {product} {oldest} or later"));
    if facts.version < oldest {
        return check("version", CheckStatus::Fail, detail, mend);
    }
    check("version", CheckStatus::Ok, detail, None)
}

fn gtid_check(facts: &ServerFacts) -> Check {
    if facts.flavour == Flavour::Mariadb {
        let why = "a transaction whose number is below that of one before it in its domain would stop the stream";
        let strict = if facts.gtid_strict_mode { "ON" } else { "OFF" };
        return setting(facts, "gtid_strict_mode", strict, "ON", CheckStatus::Warn, why);
    }
    if facts.has_gtids() {
        return check("gtid_mode", CheckStatus::Ok, "gtid_mode is ON", None);
    }
    let is_off = facts.gtid_mode == "OFF";
    // One step a statement: the server refuses to jump from OFF to ON.
    let scope = if facts.version >= Version::new(8, 0, 0) { "PERSIST" } else { "GLOBAL" };
    let mut steps = Vec::new();
    if facts.enforce_gtid_consistency != "ON" {
        steps.push(format!("SET {scope} enforce_gtid_consistency = ON"));
    }
    let ladder = ["OFF", "OFF_PERMISSIVE", "ON_PERMISSIVE", "ON"];
    let stands = ladder.iter().position(|s| *s == facts.gtid_mode).unwrap_or(0);
    let climb: Vec<String> = ladder[stands + 1..].iter().map(|s| format!("SET {scope} gtid_mode = {s}")).collect();
    let mend = steps.into_iter().chain(climb).collect::<Vec<_>>().join("; ");
    if is_off {
        let detail = "gtid_mode is OFF, so the source is followed by binlog file and position. Those mean nothing to another \
                      server: a failover, RESET MASTER, another name of the binlog, or GTIDs that are switched on later make the tables be \
                      seeded anew";
        return check("gtid_mode", CheckStatus::Warn, detail, Some(mend));
    }
    let detail = format!(
        "gtid_mode is {}: transactions may come with a GTID or without, and neither GTIDs nor positions name all of them",
        facts.gtid_mode
    );
    let back: Vec<String> = ladder[..stands].iter().rev().map(|s| format!("SET {scope} gtid_mode = {s}")).collect();
    check("gtid_mode", CheckStatus::Fail, detail, Some(format!("{mend}; or {}", back.join("; "))))
}

fn retention_check(facts: &ServerFacts) -> Check {
    let name = "binlog_expire_logs_seconds";
    let counts_days = match facts.flavour {
        Flavour::Mysql => facts.version < Version::new(8, 0, 1),
        Flavour::Mariadb => facts.version < Version::new(10, 6, 1),
    };
    if facts.binlog_expire_s == 0 {
        return check(name, CheckStatus::Ok, "binlogs are not purged by age", None);
    }
    let hours = facts.binlog_expire_s / 3600;
    let status = unless(facts.binlog_expire_s >= BINLOG_KEPT_WARN_S, CheckStatus::Warn);
    let detail = format!("binlogs are kept {hours} h; after a longer stop the tables must be seeded anew");
    let mend = match (counts_days, facts.flavour) {
        (true, _) => "SET GLOBAL expire_logs_days = 7".to_owned(),
        (false, Flavour::Mariadb) => format!("SET GLOBAL {name} = {}", 7 * 86_400),
        (false, Flavour::Mysql) => format!("SET PERSIST {name} = {}", 7 * 86_400),
    };
    check(name, status, detail, (status != CheckStatus::Ok).then_some(mend))
}

fn clock_check(facts: &ServerFacts, here_ms: i64) -> Check {
    let ahead_ms = facts.now_ms - here_ms;
    let status = if ahead_ms > CLOCK_AHEAD_MAX_MS {
        CheckStatus::Fail
    } else {
        unless(ahead_ms.abs() <= CLOCK_SKEW_WARN_MS, CheckStatus::Warn)
    };
    let direction = if ahead_ms < 0 { "behind" } else { "ahead of" };
    let detail = format!("the source's clock is {} ms {direction} this machine's", ahead_ms.abs());
    check("clock", status, detail, (status != CheckStatus::Ok).then(|| "set both clocks by NTP".into()))
}

fn grant_checks(grants: &Grants) -> Vec<Check> {
    let privilege = |name: &str, held: bool, sql: &str, status: CheckStatus, what: &str| {
        let detail = format!("{} {} {sql} ({what})", grants.account, if held { "has" } else { "lacks" });
        check(name, unless(held, status), detail, (!held).then(|| format!("GRANT {sql} ON *.* TO {}", grants.account)))
    };
    let mut found = vec![
        privilege(
            "grant_replication_slave",
            grants.replication_slave,
            "REPLICATION SLAVE",
            CheckStatus::Fail,
            "stream the binlog",
        ),
        privilege(
            "grant_replication_client",
            grants.replication_client,
            "REPLICATION CLIENT",
            CheckStatus::Fail,
            "see its end",
        ),
        privilege(
            "grant_xa_recover",
            grants.xa_recover,
            "XA_RECOVER_ADMIN",
            CheckStatus::Warn,
            "see prepared XA transactions",
        ),
    ];
    for table in &grants.select_denied {
        let detail = format!("{} may not read {table}", grants.account);
        let mend = format!("GRANT SELECT ON {} TO {}", table.quoted(), grants.account);
        let check = check("grant_select", CheckStatus::Fail, detail, Some(mend));
        found.push(Check { table: Some(table.clone()), ..check });
    }
    found
}

/// Without GTIDs only a lock tells when a table shows what the binlog has of it.
fn lock_checks(grants: &Grants) -> Vec<Check> {
    if grants.lock_denied.is_empty() {
        let detail = format!("{} has LOCK TABLES (load tables of a source without GTIDs)", grants.account);
        return vec![check(LOCK_TABLES, CheckStatus::Ok, detail, None)];
    }
    let lacks = |database| {
        let why = format!("on {database} (load tables of a source without GTIDs)");
        lacks_lock(grants, database, &why, "")
    };
    let databases: BTreeSet<&str> = grants.lock_denied.iter().map(|table| &*table.database).collect();
    databases.into_iter().map(lacks).collect()
}

const LOCK_TABLES: &str = "grant_lock_tables";

/// `why` ends what is said, and `or` the way out.
fn lacks_lock(grants: &Grants, database: &str, why: &str, or: &str) -> Check {
    let detail = format!("{} lacks LOCK TABLES {why}", grants.account);
    let mend = format!("GRANT LOCK TABLES ON {}.* TO {}{or}", quote_identifier(database), grants.account);
    check(LOCK_TABLES, CheckStatus::Fail, detail, Some(mend))
}

fn xa_check(prepared: Option<u64>) -> Check {
    match prepared {
        Some(0) => check("xa_prepared", CheckStatus::Ok, "no XA transaction is prepared", None),
        Some(count) => check(
            "xa_prepared",
            CheckStatus::Warn,
            format!("{count} XA transactions are prepared; seeding waits until each is committed or rolled back"),
            Some("XA RECOVER; then XA COMMIT or XA ROLLBACK for each".into()),
        ),
        None => check("xa_prepared", CheckStatus::Warn, "prepared XA transactions cannot be seen", None),
    }
}

fn tables_found(input: &CheckInput) -> Check {
    let count = input.tables.len();
    if input.unmatched_patterns.is_empty() {
        return check("tables", CheckStatus::Ok, format!("{count} tables match"), None);
    }
    let patterns = input.unmatched_patterns.join(", ");
    let detail = format!("{count} tables match; none yet: {patterns} (a table is picked up when it appears)");
    check("tables", CheckStatus::Warn, detail, None)
}

fn table_checks(table: &CheckedTable, input: &CheckInput) -> Vec<Check> {
    let mut found = match table {
        // The check of the account's privileges names it, and what mends it.
        CheckedTable::Unusable { table, .. } if input.grants.select_denied.contains(table) => Vec::new(),
        CheckedTable::Unusable { table, why } => {
            vec![check("columns", CheckStatus::Fail, why.clone(), Some(format!("exclude it: \"!{table}\"")))]
        }
        CheckedTable::Described(description) => {
            let append = input.append_tables.contains(description.table());
            let mut found = vec![key_check(description, append)];
            found.extend(
                (append && description.key_source == KeySource::None).then(|| lock_check(description, &input.grants)),
            );
            found.extend(name_checks(description));
            found.extend(engine_check(description));
            found.extend(cascade_check(description, &input.facts));
            found
        }
    };
    for check in &mut found {
        check.table = Some(table.table().clone());
    }
    found
}

fn key_check(table: &TableDescription, append: bool) -> Check {
    let names = table.schema.key_names().join(", ");
    let (status, detail) = match &table.key_source {
        KeySource::Primary => (CheckStatus::Ok, format!("rows are named by the primary key ({names})")),
        KeySource::Unique(index) => (CheckStatus::Ok, format!("rows are named by the unique key {index} ({names})")),
        KeySource::Configured => (CheckStatus::Ok, format!("rows are named by the configured key ({names})")),
        KeySource::None if append => (CheckStatus::Ok, "no key, and none is needed to append".into()),
        KeySource::None => {
            (CheckStatus::Fail, format!("{} has neither a primary key nor a unique NOT NULL key", table.table()))
        }
    };
    let mend = (status == CheckStatus::Fail).then(|| {
        format!(
            "ALTER TABLE {} ADD PRIMARY KEY (…); or mode = \"append\" for the table; or exclude it: \"!{}\"",
            table.table().quoted(),
            table.table()
        )
    });
    check("key", status, detail, mend)
}

/// A table without a key is loaded in one piece, behind a lock.
fn lock_check(table: &TableDescription, grants: &Grants) -> Check {
    let id = table.table();
    if !grants.lock_denied.contains(id) {
        return check(LOCK_TABLES, CheckStatus::Ok, format!("{} may lock it, to load it", grants.account), None);
    }
    lacks_lock(grants, &id.database, "(load a table that has no key)", "; or snapshot = \"never\"")
}

fn name_checks(table: &TableDescription) -> Vec<Check> {
    let ours = |name: &str| name.to_ascii_lowercase().starts_with(META_PREFIX);
    let taken = table.schema.columns.iter().filter(|c| ours(&c.name));
    taken
        .map(|column| {
            let detail = format!("column {} has a name that is kept for weir's own columns", column.name);
            let rename =
                format!("ALTER TABLE {} RENAME COLUMN {} TO …", table.table().quoted(), quote_identifier(&column.name));
            check("column_name", CheckStatus::Fail, detail, Some(rename))
        })
        .collect()
}

fn engine_check(table: &TableDescription) -> Option<Check> {
    (!table.is_transactional()).then(|| {
        let detail =
            format!("engine {} knows no transactions: its rows may change while a snapshot reads them", table.engine);
        let mend = format!("ALTER TABLE {} ENGINE = InnoDB", table.table().quoted());
        check("engine", CheckStatus::Warn, detail, Some(mend))
    })
}

fn cascade_check(table: &TableDescription, facts: &ServerFacts) -> Option<Check> {
    let logged = facts.flavour == Flavour::Mysql && facts.version >= CASCADES_LOGGED;
    (table.has_cascades && !logged).then(|| {
        let detail =
            "a foreign key changes its rows by CASCADE or SET NULL, which this server leaves out of the binlog";
        let mend = format!("MySQL {CASCADES_LOGGED} or later, RESTRICT, or a scheduled backfill of the table");
        check("cascades", CheckStatus::Warn, detail, Some(mend))
    })
}

#[cfg(test)]
mod tests;
