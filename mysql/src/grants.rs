//! What the account may do, found by trying: grants can come from roles, wildcards and partial revokes, so that only an
//! attempt tells.

use std::collections::BTreeMap;

use mysql_async::Conn;
use serde::{Deserialize, Serialize};
use weir_model::TableId;

use crate::error::{MysqlError, codes};
use crate::query;

/// Privileges that matter here, each proven by a harmless statement that needs it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grants {
    /// `'user'@'host'` as GRANT wants it: the account that the server took us for.
    pub account: String,
    /// To stream the binlog.
    pub replication_slave: bool,
    /// To ask where the binlog ends.
    pub replication_client: bool,
    /// To see XA transactions that are prepared.
    pub xa_recover: bool,
    /// Tables that cannot be read.
    pub select_denied: Vec<TableId>,
    /// Tables that cannot be locked, of those of which that was asked.
    pub lock_denied: Vec<TableId>,
}

impl Grants {
    /// Tries what each privilege allows; reads no rows, and locks nothing. `to_lock` are those of the tables that a load locks.
    pub async fn probe(conn: &mut Conn, tables: &[TableId], to_lock: &[TableId]) -> Result<Self, MysqlError> {
        Ok(Self {
            account: account(conn).await?,
            replication_slave: may_stream(conn).await?,
            replication_client: allowed(conn, &["SHOW BINARY LOG STATUS", "SHOW MASTER STATUS"]).await?,
            xa_recover: allowed(conn, &["XA RECOVER"]).await?,
            select_denied: select_denied(conn, tables).await?,
            lock_denied: lock_denied(conn, to_lock).await?,
        })
    }
}

/// Those of the tables that the account may not read.
pub async fn select_denied(conn: &mut Conn, tables: &[TableId]) -> Result<Vec<TableId>, MysqlError> {
    let mut denied = Vec::new();
    for table in tables {
        // Names every column that the snapshot names, by `*`; LIMIT 0 keeps the server from reading a row.
        let sql = format!("SELECT * FROM {} LIMIT 0", table.quoted());
        if !allowed(conn, &[&sql]).await? {
            denied.push(table.clone());
        }
    }
    Ok(denied)
}

/// Those of the tables that the account may not lock: a privilege of whole databases.
async fn lock_denied(conn: &mut Conn, tables: &[TableId]) -> Result<Vec<TableId>, MysqlError> {
    let mut allowed: BTreeMap<&str, bool> = BTreeMap::new();
    let mut denied = Vec::new();
    for table in tables {
        let may = match allowed.get(&*table.database) {
            Some(may) => *may,
            None => *allowed.entry(&table.database).or_insert(may_lock(conn, table).await?),
        };
        if !may {
            denied.push(table.clone());
        }
    }
    Ok(denied)
}

/// LOCK TABLES is a privilege of databases, and a server looks at it before it looks for the table: of one that is not there it
/// says which of the two it was, and nobody waits for a lock.
async fn may_lock(conn: &mut Conn, table: &TableId) -> Result<bool, MysqlError> {
    let nowhere = TableId::new(&table.database, "_weir_no_such_table");
    match query::execute(conn, &format!("LOCK TABLES {} READ", nowhere.quoted()), "trying a privilege").await {
        Ok(()) => query::execute(conn, "UNLOCK TABLES", "trying a privilege").await.map(|()| true),
        Err(MysqlError::Server { code, .. }) => Ok(code != codes::DATABASE_ACCESS_DENIED),
        Err(e) => Err(e),
    }
}

/// MariaDB asks for another privilege to list replicas, so there only what was granted tells.
async fn may_stream(conn: &mut Conn) -> Result<bool, MysqlError> {
    let doing = "asking for the account's privileges";
    let version = query::first_row(conn, "SELECT VERSION()", doing).await?;
    let version: String = version.as_ref().and_then(|row| query::cell(row, 0)).unwrap_or_default();
    if !version.contains("MariaDB") {
        return allowed(conn, &["SHOW REPLICAS", "SHOW SLAVE HOSTS"]).await;
    }
    let grants = query::rows(conn, "SHOW GRANTS", doing).await?;
    Ok(grants.iter().filter_map(|row| query::cell::<String>(row, 0)).any(|grant| lets_stream(&grant)))
}

/// Whether a line of SHOW GRANTS of MariaDB gives REPLICATION SLAVE.
fn lets_stream(grant: &str) -> bool {
    let Some((privileges, _)) = grant.strip_prefix("GRANT ").and_then(|rest| rest.split_once(" ON *.* TO ")) else {
        return false;
    };
    privileges.split(", ").any(|privilege| ["ALL PRIVILEGES", "REPLICATION SLAVE"].contains(&privilege))
}

async fn account(conn: &mut Conn) -> Result<String, MysqlError> {
    let row = query::first_row(conn, "SELECT CURRENT_USER()", "asking for the account").await?;
    let text: String = row.as_ref().and_then(|row| query::cell(row, 0)).unwrap_or_default();
    Ok(quoted_account(&text))
}

/// `user@host` with each part quoted; the last `@` divides, since a user's name may hold one.
fn quoted_account(text: &str) -> String {
    let (user, host) = text.rsplit_once('@').unwrap_or((text, "%"));
    let quote = |part: &str| format!("'{}'", part.replace('\\', "\\\\").replace('\'', "''"));
    format!("{}@{}", quote(user), quote(host))
}

/// Whether the first of `spellings` that the server's grammar knows is allowed.
async fn allowed(conn: &mut Conn, spellings: &[&str]) -> Result<bool, MysqlError> {
    for sql in spellings {
        match query::execute(conn, sql, "trying a privilege").await {
            Ok(()) => return Ok(true),
            Err(e) if e.code() == Some(codes::SYNTAX) => {}
            // A table dropped a moment ago, or no binlog at all, is another check's business.
            Err(e) if matches!(e.code(), Some(codes::NO_SUCH_TABLE | codes::NO_BINARY_LOGGING)) => return Ok(true),
            Err(MysqlError::Server { .. }) => return Ok(false),
            Err(e) => return Err(e),
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grant_of_mariadb_lets_stream_by_its_very_privilege() {
        assert!(lets_stream("GRANT ALL PRIVILEGES ON *.* TO `root`@`127.0.0.1` WITH GRANT OPTION"));
        assert!(lets_stream("GRANT REPLICATION SLAVE, BINLOG MONITOR ON *.* TO `weir`@`%`"));
        assert!(!lets_stream("GRANT REPLICATION SLAVE ADMIN ON *.* TO `weir`@`%`"));
        assert!(!lets_stream("GRANT ALL PRIVILEGES ON `shop`.* TO `weir`@`%`"));
    }

    #[test]
    fn accounts_are_quoted_part_by_part() {
        assert_eq!(quoted_account("weir@10.0.%"), "'weir'@'10.0.%'");
        assert_eq!(quoted_account("o'brien@corp@%"), "'o''brien@corp'@'%'");
        assert_eq!(quoted_account("@localhost"), "''@'localhost'");
    }
}
