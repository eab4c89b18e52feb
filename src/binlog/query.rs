//! QUERY_EVENT: transaction control, and every statement that is logged as text.

use bytes::Bytes;
use weir_model::Xid;

use super::charset::{BINARY_COLLATION, Charset};
use super::cursor::Cursor;
use super::mariadb;

/// A statement as it was logged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Query {
    /// The session's default database; may be empty.
    pub(super) database: String,
    pub(super) sql: String,
}

impl Query {
    pub(super) fn parse(body: &Bytes) -> Result<Self, String> {
        Self::parse_with(body, Ok)
    }

    /// QUERY_COMPRESSED_EVENT of MariaDB: the statement alone is compressed.
    pub(super) fn parse_compressed(body: &Bytes) -> Result<Self, String> {
        Self::parse_with(body, |sql| mariadb::uncompressed(&sql))
    }

    fn parse_with(body: &Bytes, statement: impl FnOnce(Bytes) -> Result<Bytes, String>) -> Result<Self, String> {
        let mut cursor = Cursor::new(body);
        cursor.skip(4 + 4)?; // session id, seconds it took
        let database_len = usize::from(cursor.u8()?);
        cursor.skip(2)?; // error code
        let status_len = usize::from(cursor.u16()?);
        let status = cursor.take(status_len)?;
        let database = cursor.take(database_len)?;
        cursor.skip(1)?;
        let sql = statement(cursor.rest())?;
        Ok(Self { database: utf8(&database), sql: text(&sql, client_collation(&status)) })
    }
}

/// Names of databases are always logged in UTF-8.
fn utf8(bytes: &[u8]) -> String {
    std::str::from_utf8(bytes).map_or_else(|_| byte_by_byte(bytes), str::to_owned)
}

/// A statement is logged in the character set that its client used. One that isn't valid in that set keeps its ASCII,
/// which all keywords are.
fn text(sql: &[u8], collation: Option<u32>) -> String {
    if sql.is_ascii() {
        return utf8(sql);
    }
    let charset = collation.filter(|&id| id != BINARY_COLLATION).and_then(Charset::of_collation);
    let mut scratch = String::new();
    match charset.map(|charset| charset.decode(sql, &mut scratch)) {
        Some(Ok(text)) => text.to_owned(),
        _ => utf8(sql),
    }
}

/// Each byte as the character of its number: nothing is lost, though it can't be read.
fn byte_by_byte(bytes: &[u8]) -> String {
    bytes.iter().map(|&byte| char::from(byte)).collect()
}

/// The client's collation among the status variables. These are a code and a value each, of a length that only the code
/// tells; older codes come first, and the collation is among the oldest.
fn client_collation(status: &Bytes) -> Option<u32> {
    const FLAGS: u8 = 0;
    const SQL_MODE: u8 = 1;
    const CATALOG_WITH_NUL: u8 = 2;
    const AUTO_INCREMENT: u8 = 3;
    const CHARSET: u8 = 4;
    const TIME_ZONE: u8 = 5;
    const CATALOG: u8 = 6;

    let mut cursor = Cursor::new(status);
    loop {
        match cursor.u8().ok()? {
            FLAGS | AUTO_INCREMENT => cursor.skip(4).ok()?,
            SQL_MODE => cursor.skip(8).ok()?,
            CATALOG | TIME_ZONE => {
                let len = cursor.u8().ok()?;
                cursor.skip(len.into()).ok()?;
            }
            CATALOG_WITH_NUL => {
                let len = cursor.u8().ok()?;
                cursor.skip(usize::from(len) + 1).ok()?;
            }
            CHARSET => return cursor.u16().ok().map(u32::from),
            _ => return None,
        }
    }
}

/// What a statement does to the transaction it stands in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Control {
    Begin,
    Commit,
    Rollback,
    Savepoint,
    RollbackToSavepoint,
    XaStart,
    XaEnd,
    /// The second phase, in a transaction of its own. What follows these words is the name of the branch: [`xid_of`].
    XaCommit,
    XaRollback,
    /// Any other statement about a branch.
    XaOther,
    /// No transaction control at all.
    None,
}

/// Reads the first words; the server writes these statements itself, so no comments stand before them.
pub(super) fn control(sql: &str) -> Control {
    let mut words = sql.split(|c: char| c.is_ascii_whitespace() || c == ';').filter(|word| !word.is_empty());
    let mut next_is = |expected: &str| words.next().is_some_and(|word| word.eq_ignore_ascii_case(expected));
    let first = sql.trim_start();
    let starts_with = |word: &str| first.get(..word.len()).is_some_and(|head| head.eq_ignore_ascii_case(word));
    if starts_with("BEGIN") && next_is("BEGIN") {
        Control::Begin
    } else if starts_with("COMMIT") && next_is("COMMIT") {
        Control::Commit
    } else if starts_with("SAVEPOINT") && next_is("SAVEPOINT") {
        Control::Savepoint
    } else if starts_with("START") && next_is("START") && next_is("TRANSACTION") {
        Control::Begin
    } else if starts_with("ROLLBACK") && next_is("ROLLBACK") {
        if next_is("TO") { Control::RollbackToSavepoint } else { Control::Rollback }
    } else if starts_with("XA") && next_is("XA") {
        match words.next().map(str::to_ascii_uppercase).as_deref() {
            Some("START" | "BEGIN") => Control::XaStart,
            Some("END") => Control::XaEnd,
            Some("COMMIT") => Control::XaCommit,
            Some("ROLLBACK") => Control::XaRollback,
            _ => Control::XaOther,
        }
    } else {
        Control::None
    }
}

/// The branch that a second phase is about.
///
/// # Errors
/// If the statement is not as the server writes it; it writes these itself, in one spelling.
pub(super) fn xid_of(sql: &str) -> Result<Xid, String> {
    let mut words = sql.trim().splitn(3, |c: char| c.is_ascii_whitespace());
    let name = words.nth(2).unwrap_or_default();
    name.parse().map_err(|error: weir_model::XidError| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_branch_is_named_behind_the_words() {
        assert_eq!(xid_of("XA COMMIT X'61',X'62',1").unwrap().to_string(), "X'61',X'62',1");
        assert!(xid_of("XA COMMIT").is_err());
        assert!(xid_of("XA COMMIT X'61',X'62',1 ONE PHASE").is_err());
    }

    #[test]
    fn transaction_control_is_told_from_statements_that_begin_alike() {
        for (sql, expected) in [
            ("BEGIN", Control::Begin),
            ("begin", Control::Begin),
            ("START TRANSACTION", Control::Begin),
            ("COMMIT", Control::Commit),
            ("ROLLBACK", Control::Rollback),
            ("ROLLBACK TO `a`", Control::RollbackToSavepoint),
            ("SAVEPOINT `a`", Control::Savepoint),
            ("XA START X'61',X'',1", Control::XaStart),
            ("XA END X'61',X'',1", Control::XaEnd),
            ("XA COMMIT X'61',X'',1", Control::XaCommit),
            ("XA ROLLBACK X'61',X'',1", Control::XaRollback),
            ("XA PREPARE X'61',X'',1", Control::XaOther),
            ("BEGINNING", Control::None),
            ("XANADU", Control::None),
            ("CREATE TABLE commit (a INT)", Control::None),
            ("é", Control::None),
        ] {
            assert_eq!(control(sql), expected, "{sql}");
        }
    }

    fn body(database: &[u8], sql: &[u8]) -> Bytes {
        with_status(&[9, 9, 9], database, sql)
    }

    fn with_status(status: &[u8], database: &[u8], sql: &[u8]) -> Bytes {
        let mut body = vec![0; 8];
        body.push(database.len() as u8);
        body.extend_from_slice(&[0, 0, status.len() as u8, 0]);
        body.extend_from_slice(status);
        body.extend_from_slice(database);
        body.push(0);
        body.extend_from_slice(sql);
        body.into()
    }

    #[test]
    fn database_and_statement_are_found_behind_the_status_variables() {
        let query = Query::parse(&body(b"shop", "DROP TABLE `é`".as_bytes())).unwrap();
        assert_eq!((query.database.as_str(), query.sql.as_str()), ("shop", "DROP TABLE `é`"));
    }

    #[test]
    fn a_statement_is_read_in_its_clients_character_set() {
        const GBK: u8 = 28;
        let status = [0, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 6, 3, b's', b't', b'd', 4, GBK, 0, GBK, 0, 255, 0];
        // The second byte of the character is a backquote, which would end the name too early.
        let query = Query::parse(&with_status(&status, b"shop", b"DROP TABLE `\x81\x60`")).unwrap();
        assert_eq!(query.sql, "DROP TABLE `\u{4e63}`");
    }

    #[test]
    fn bytes_that_are_not_utf8_are_kept_one_by_one() {
        let query = Query::parse(&body(b"", b"DROP TABLE `\xe9\xff`")).unwrap();
        assert_eq!(query.sql, "DROP TABLE `\u{e9}\u{ff}`");
    }

    #[test]
    fn every_truncation_is_an_error_or_a_shorter_statement() {
        let whole = body(b"shop", b"BEGIN");
        for cut in 0..whole.len() - 5 {
            assert!(Query::parse(&whole.slice(..cut)).is_err(), "cut at {cut}");
        }
    }
}
