//! QUERY_EVENT: transaction control, and every statement that is logged as text.

use bytes::Bytes;

use super::cursor::Cursor;

/// A statement as it was logged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Query {
    /// The session's default database; may be empty.
    pub(super) database: String,
    pub(super) sql: String,
}

impl Query {
    pub(super) fn parse(body: &Bytes) -> Result<Self, String> {
        let mut cursor = Cursor::new(body);
        cursor.skip(4 + 4)?; // session id, seconds it took
        let database_len = usize::from(cursor.u8()?);
        cursor.skip(2)?; // error code
        let status_len = usize::from(cursor.u16()?);
        cursor.skip(status_len)?;
        let database = cursor.take(database_len)?;
        cursor.skip(1)?;
        Ok(Self { database: text(&database), sql: text(&cursor.rest()) })
    }
}

/// Statements are UTF-8 unless the session's character set was another one. Then every byte becomes the character of
/// its number, so that nothing is lost and ASCII, which all keywords are, stays itself.
fn text(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) => text.to_owned(),
        Err(_) => bytes.iter().map(|&byte| char::from(byte)).collect(),
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
    /// XA PREPARE, XA COMMIT, XA ROLLBACK: the second phase, in a transaction of its own.
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
            _ => Control::XaOther,
        }
    } else {
        Control::None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
            ("XA COMMIT X'61',X'',1", Control::XaOther),
            ("BEGINNING", Control::None),
            ("XANADU", Control::None),
            ("CREATE TABLE commit (a INT)", Control::None),
            ("é", Control::None),
        ] {
            assert_eq!(control(sql), expected, "{sql}");
        }
    }

    fn body(database: &[u8], sql: &[u8]) -> Bytes {
        let mut body = vec![0; 8];
        body.push(database.len() as u8);
        body.extend_from_slice(&[0, 0, 3, 0, 9, 9, 9]);
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
