//! What a statement in the log does to which tables, as far as a mirror of those tables must know.
//!
//! Only the head of a statement and the actions of ALTER TABLE are read, by a small reader of our own: general SQL parsers
//! reject much of MySQL's DDL (partitions, executable comments, tablespaces), and a statement that is rejected would have
//! to stop the stream. Column types are not read here; they come with the next TABLE_MAP_EVENT.

use weir_model::TableId;

mod alter;
mod comments;
mod tokens;

use alter::alter_table;
pub use comments::comments_of_mariadb;
use tokens::Statement;

/// A statement by its effect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StatementKind {
    CreateTable {
        table: TableId,
        /// CREATE OR REPLACE (MariaDB): an older table of this name is gone.
        replaces: bool,
        /// `CREATE TABLE … LIKE other`.
        like: Option<TableId>,
    },
    AlterTable(AlterTable),
    DropTable {
        tables: Vec<TableId>,
    },
    /// `(from, to)`, carried out from left to right; names may be swapped through a third one.
    RenameTable {
        pairs: Vec<(TableId, TableId)>,
    },
    TruncateTable {
        table: TableId,
    },
    CreateDatabase {
        database: String,
    },
    /// Every table of the database is gone.
    DropDatabase {
        database: String,
    },
    /// Rows changed without row events (binlog_format is not ROW). Nothing can be mirrored behind it.
    Dml,
    TransactionControl,
    /// Changes no table: users, views, routines, maintenance, temporary tables.
    Other,
    /// Not understood: whether it concerns a mirrored table can't be told.
    Unreadable,
}

/// What ALTER TABLE, CREATE INDEX and DROP INDEX do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AlterTable {
    pub table: TableId,
    pub renamed_to: Option<TableId>,
    /// A column was added that is not simply NULL in the rows that exist: with a default, NOT NULL, or generated.
    pub adds_default: bool,
    /// A column's definition was changed in place, which may convert its values (rounding, character sets).
    pub changes_columns: bool,
    /// Columns that are gone, or have other names.
    pub drops_columns: Vec<String>,
    /// Rows came or went as a whole: DROP, TRUNCATE, EXCHANGE PARTITION, DISCARD, IMPORT TABLESPACE.
    pub moves_rows: bool,
    /// The table whose rows EXCHANGE PARTITION swapped with the partition's.
    pub exchanged_with: Option<TableId>,
}

/// Says what `sql` does. Names without a database are of `default_database`.
pub fn classify(default_database: &str, sql: &str) -> StatementKind {
    classified(default_database, sql).unwrap_or(StatementKind::Unreadable)
}

/// `None` where the statement does not go on as it should.
fn classified(default_database: &str, sql: &str) -> Option<StatementKind> {
    use StatementKind as Kind;

    let mut statement = Statement::read(default_database, sql)?;
    let mut verb = statement.keyword()?;
    // MariaDB: settings for the statement that follows.
    if verb == "SET" && statement.eat("STATEMENT") {
        while !statement.eat("FOR") {
            statement.skip()?;
        }
        verb = statement.keyword()?;
    }
    let kind = match verb.as_str() {
        "CREATE" => create(&mut statement)?,
        "ALTER" => alter(&mut statement)?,
        "DROP" => drop_object(&mut statement)?,
        "RENAME" => rename(&mut statement)?,
        "TRUNCATE" => {
            statement.eat("TABLE");
            Kind::TruncateTable { table: statement.table()? }
        }
        "INSERT" | "UPDATE" | "DELETE" | "REPLACE" | "LOAD" | "WITH" | "SELECT" | "CALL" | "DO" | "VALUES"
        | "TABLE" => Kind::Dml,
        "BEGIN" | "COMMIT" | "ROLLBACK" | "SAVEPOINT" | "RELEASE" | "START" | "XA" => Kind::TransactionControl,
        "GRANT" | "REVOKE" | "SET" | "FLUSH" | "ANALYZE" | "OPTIMIZE" | "REPAIR" | "CHECK" | "CHECKSUM" | "INSTALL"
        | "UNINSTALL" | "LOCK" | "UNLOCK" | "USE" | "KILL" | "RESET" | "CACHE" => Kind::Other,
        _ => Kind::Unreadable,
    };
    Some(kind)
}

fn create(statement: &mut Statement<'_>) -> Option<StatementKind> {
    let replaces = statement.eat_all(&["OR", "REPLACE"]);
    match statement.keyword()?.as_str() {
        "TABLE" => create_table(statement, replaces),
        "TEMPORARY" => Some(StatementKind::Other),
        "DATABASE" | "SCHEMA" => {
            statement.eat_all(&["IF", "NOT", "EXISTS"]);
            Some(StatementKind::CreateDatabase { database: statement.name()? })
        }
        "INDEX" | "UNIQUE" | "FULLTEXT" | "SPATIAL" => index(statement),
        "USER" | "ROLE" | "VIEW" | "ALGORITHM" | "DEFINER" | "SQL" | "PROCEDURE" | "FUNCTION" | "AGGREGATE"
        | "TRIGGER" | "EVENT" | "SERVER" | "TABLESPACE" | "UNDO" | "LOGFILE" | "RESOURCE" | "LIBRARY"
        | "MATERIALIZED" | "JSON" | "SEQUENCE" | "PACKAGE" => Some(StatementKind::Other),
        _ => None,
    }
}

fn create_table(statement: &mut Statement<'_>, replaces: bool) -> Option<StatementKind> {
    statement.eat_all(&["IF", "NOT", "EXISTS"]);
    let table = statement.table()?;
    let parenthesis = statement.eat_symbol('(');
    let like = if statement.eat("LIKE") { Some(statement.table()?) } else { None };
    if parenthesis && like.is_some() && !statement.eat_symbol(')') {
        return None;
    }
    Some(StatementKind::CreateTable { table, replaces, like })
}

fn alter(statement: &mut Statement<'_>) -> Option<StatementKind> {
    loop {
        match statement.keyword()?.as_str() {
            "TABLE" => return alter_table(statement),
            "ONLINE" | "OFFLINE" | "IGNORE" => {}
            "DATABASE" | "SCHEMA" | "USER" | "VIEW" | "ALGORITHM" | "DEFINER" | "SQL" | "PROCEDURE" | "FUNCTION"
            | "EVENT" | "SERVER" | "TABLESPACE" | "UNDO" | "LOGFILE" | "RESOURCE" | "INSTANCE" | "LIBRARY"
            | "MATERIALIZED" | "JSON" | "SEQUENCE" => return Some(StatementKind::Other),
            _ => return None,
        }
    }
}

fn drop_object(statement: &mut Statement<'_>) -> Option<StatementKind> {
    match statement.keyword()?.as_str() {
        "TABLE" | "TABLES" => {
            statement.eat_all(&["IF", "EXISTS"]);
            let mut tables = vec![statement.table()?];
            while statement.eat_symbol(',') {
                tables.push(statement.table()?);
            }
            Some(StatementKind::DropTable { tables })
        }
        "DATABASE" | "SCHEMA" => {
            statement.eat_all(&["IF", "EXISTS"]);
            Some(StatementKind::DropDatabase { database: statement.name()? })
        }
        "INDEX" => index(statement),
        "TEMPORARY" | "USER" | "ROLE" | "VIEW" | "PROCEDURE" | "FUNCTION" | "TRIGGER" | "EVENT" | "SERVER"
        | "TABLESPACE" | "UNDO" | "LOGFILE" | "RESOURCE" | "SPATIAL" | "PREPARE" | "LIBRARY" | "MATERIALIZED"
        | "JSON" | "SEQUENCE" | "PACKAGE" => Some(StatementKind::Other),
        _ => None,
    }
}

fn rename(statement: &mut Statement<'_>) -> Option<StatementKind> {
    match statement.keyword()?.as_str() {
        "TABLE" | "TABLES" => {
            let mut pairs = Vec::new();
            statement.eat_all(&["IF", "EXISTS"]);
            loop {
                let from = statement.table()?;
                statement.eat_wait()?;
                if !statement.eat("TO") {
                    return None;
                }
                pairs.push((from, statement.table()?));
                if !statement.eat_symbol(',') {
                    return Some(StatementKind::RenameTable { pairs });
                }
            }
        }
        "USER" => Some(StatementKind::Other),
        _ => None,
    }
}

/// `CREATE [UNIQUE] INDEX name … ON table`, `DROP INDEX name ON table`, and `CREATE SPATIAL REFERENCE SYSTEM`.
fn index(statement: &mut Statement<'_>) -> Option<StatementKind> {
    if statement.eat_all(&["REFERENCE", "SYSTEM"]) {
        return Some(StatementKind::Other);
    }
    while !statement.eat("ON") {
        statement.skip()?;
    }
    Some(StatementKind::AlterTable(AlterTable::unchanged(statement.table()?)))
}

impl AlterTable {
    /// An alteration that touches neither rows nor names.
    fn unchanged(table: TableId) -> Self {
        Self {
            table,
            renamed_to: None,
            adds_default: false,
            changes_columns: false,
            drops_columns: Vec::new(),
            moves_rows: false,
            exchanged_with: None,
        }
    }
}

#[cfg(test)]
mod tests;
