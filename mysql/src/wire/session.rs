//! A connection of our own whose session reads exactly, as [`crate::connect`] makes them of the driver's.

use mysql_async::Conn;

use weir_model::LogPosition;

use super::connection::Connection;
use super::error::WireError;
use super::login;
use super::rows::Rows;
use crate::connect::{SourceOptions, access_denied};
use crate::error::{MysqlError, codes};
use crate::{query, settings};

/// Read from the socket at a time: what was read is decoded while it is still in the processor's caches.
const READ_BYTES: usize = 256 << 10;

/// A connection for reading many rows. After an error, or when the rows of a statement were not read to their end, it is of
/// no use any more and says so.
pub struct RowConnection {
    pub(super) connection: Connection,
    /// Nothing that was asked is unanswered.
    pub(super) is_idle: bool,
}

impl RowConnection {
    /// Connects and sets the session up. Rows are not compressed on their way, whatever the url says.
    ///
    /// # Errors
    /// Those of [`crate::connect`].
    pub async fn open(options: &SourceOptions) -> Result<Self, MysqlError> {
        let opts = options.opts()?;
        let connection = match tokio::time::timeout(options.connect_timeout, login::log_in(&opts)).await {
            Ok(Ok(connection)) => connection,
            Ok(Err(error)) => return Err(login_error(options, error)),
            Err(_) => {
                let detail = format!("no answer within {} s", options.connect_timeout.as_secs());
                return Err(MysqlError::Unreachable { server: options.server(), detail });
            }
        };
        let mut session = Self::over(connection);
        let doing = "setting up the session";
        for sql in settings::REQUIRED {
            session.execute(sql).await.map_err(|error| error.into_mysql(doing))?;
        }
        for sql in settings::optional() {
            match session.execute(&sql).await {
                Err(WireError::Server { code, .. }) if settings::may_lack(code) => {}
                other => other.map_err(|error| error.into_mysql(doing))?,
            }
        }
        Ok(session)
    }

    /// Connects to the server that `other` leads to.
    ///
    /// # Errors
    /// Those of [`Self::open`], and [`MysqlError::Lost`] when the url leads to one server now and to another then, as behind
    /// a proxy: what was asked of the one says nothing about rows of the other.
    pub async fn beside(options: &SourceOptions, other: &mut Conn) -> Result<Self, MysqlError> {
        const UUID: &str = "SELECT @@GLOBAL.server_uuid";
        // MariaDB has none.
        const PLACE: &str = "SELECT CONCAT_WS('-', @@GLOBAL.server_id, @@GLOBAL.hostname, @@GLOBAL.port)";
        let doing = "opening a connection beside another one";
        let mut session = Self::open(options).await?;
        let (asked, row) = match query::first_row(other, UUID, doing).await {
            Err(error) if error.code() == Some(codes::UNKNOWN_SYSTEM_VARIABLE) => {
                (PLACE, query::first_row(other, PLACE, doing).await?)
            }
            row => (UUID, row?),
        };
        let expected: Option<String> = row.and_then(|row| query::cell(&row, 0));
        let row = session.query_row(asked).await.map_err(|error| error.into_mysql(doing))?;
        if row.into_iter().next() != expected {
            let detail = format!("{} leads to different servers, one for each connection", options.server());
            return Err(MysqlError::Lost { doing: doing.into(), detail });
        }
        Ok(session)
    }

    pub(super) fn over(mut connection: Connection) -> Self {
        connection.set_read_bytes(READ_BYTES);
        Self { connection, is_idle: true }
    }

    /// Everything that is read from here on is as of this moment, until the connection ends.
    pub async fn begin_snapshot(&mut self) -> Result<(), MysqlError> {
        let begun = self.execute("START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY").await;
        begun.map_err(|error| error.into_mysql("beginning a consistent snapshot"))
    }

    /// Ends it; what is read then is newer.
    pub async fn end_snapshot(&mut self) -> Result<(), MysqlError> {
        self.execute("COMMIT").await.map_err(|error| error.into_mysql("ending a consistent snapshot"))
    }

    /// Of MariaDB: where the binlog ended when [`Self::begin_snapshot`] was called. Of what it has up to there the snapshot shows
    /// everything, and of what comes behind nothing (MariaDB documentation, "START TRANSACTION", `binlog_snapshot_position`).
    pub async fn snapshot_end(&mut self) -> Result<LogPosition, MysqlError> {
        const ASKED: &str = "SELECT MAX(IF(VARIABLE_NAME = 'BINLOG_SNAPSHOT_FILE', VARIABLE_VALUE, NULL)), \
                             MAX(IF(VARIABLE_NAME = 'BINLOG_SNAPSHOT_POSITION', VARIABLE_VALUE, NULL)) \
                             FROM information_schema.SESSION_STATUS WHERE VARIABLE_NAME LIKE 'BINLOG_SNAPSHOT%'";
        let doing = "asking where the binlog ended at a snapshot";
        let row = self.query_row(ASKED).await.map_err(|error| error.into_mysql(doing))?;
        match &row[..] {
            [file, offset] if !file.is_empty() => {
                let offset = offset.parse().ok();
                offset.map(|offset| LogPosition { file: file.clone(), offset })
            }
            _ => None,
        }
        .ok_or_else(|| MysqlError::Unexpected { doing: doing.into(), what: "the server does not say".into() })
    }

    /// The last row of a query as text; NULL is empty.
    async fn query_row(&mut self, sql: &str) -> Result<Vec<String>, WireError> {
        let row = self.begin()?.query_row(sql).await;
        self.is_idle = matches!(row, Ok(_) | Err(WireError::Server { .. }));
        row
    }

    /// Executes a SELECT over the binary protocol; returns once its rows begin.
    pub async fn rows(&mut self, sql: &str) -> Result<Rows<'_>, WireError> {
        Rows::execute(self, sql).await
    }

    /// A statement without a result. The server's refusal leaves the connection as it was.
    async fn execute(&mut self, sql: &str) -> Result<(), WireError> {
        let outcome = self.begin()?.execute(sql).await;
        self.is_idle = matches!(outcome, Ok(()) | Err(WireError::Server { .. }));
        outcome
    }

    /// The connection, for a statement; it is idle again once that was answered.
    pub(super) fn begin(&mut self) -> Result<&mut Connection, WireError> {
        if !std::mem::replace(&mut self.is_idle, false) {
            return Err(WireError::protocol("rows of another statement are unread on this connection"));
        }
        Ok(&mut self.connection)
    }
}

fn login_error(options: &SourceOptions, error: WireError) -> MysqlError {
    let server = options.server();
    match error {
        WireError::Io(_) | WireError::Protocol(_) => MysqlError::Unreachable { server, detail: error.to_string() },
        WireError::Server { code, ref message, .. } => {
            access_denied(options, code, message).unwrap_or_else(|| error.into_mysql(format!("connecting to {server}")))
        }
        WireError::Tls(detail) => MysqlError::Tls { server, detail },
        WireError::LoginKind(plugin) => MysqlError::LoginKind { server, user: options.user(), plugin },
        WireError::Settings(_) => error.into_mysql(format!("connecting to {server}")),
    }
}
