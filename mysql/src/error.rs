//! What can go wrong between us and a MySQL server, by what the caller does about it.

use weir_model::TableId;

/// A failed conversation with a server. Never holds a password or a row value.
#[derive(Debug, thiserror::Error)]
pub enum MysqlError {
    /// The url or one of its options is wrong; nothing was tried.
    #[error("source url: {0}")]
    Url(String),
    /// The server answered and will not have us: user, password, host or database. Trying again is of no use.
    #[error("{server} refuses user `{user}`: {message} (error {code}). {way_out}")]
    AccessDenied { server: String, user: String, code: u16, message: String, way_out: &'static str },
    /// No connection came about. Worth trying again.
    #[error("no connection to {server}: {detail}")]
    Unreachable { server: String, detail: String },
    /// The server's certificate or lack of TLS does not fit what the url asks for. Trying again is of no use.
    #[error("TLS with {server}: {detail}")]
    Tls { server: String, detail: String },
    /// The account's kind of password is not one that weir knows. Trying again is of no use.
    #[error("user `{user}` of {server} {}", unknown_login(.plugin))]
    LoginKind { server: String, user: String, plugin: String },
    /// The connection broke. Worth trying again on another one.
    #[error("the connection to the source broke while {doing}: {detail}")]
    Lost { doing: String, detail: String },
    /// The server refused a statement.
    #[error("the source refused, while {doing}: {message} (error {code}, SQLSTATE {state}){hint}")]
    Server { doing: String, code: u16, state: String, message: String, hint: &'static str },
    /// The server answered something that makes no sense to us.
    #[error("unexpected answer from the source while {doing}: {what}")]
    Unexpected { doing: String, what: String },
    /// A column of a type that has no place in a lake table.
    #[error(
        "column {column} of {table} has the type `{column_type}`, which is not supported; exclude the table by the pattern \"!{table}\" or change the column"
    )]
    UnsupportedColumn { table: TableId, column: String, column_type: String },
    /// A table that cannot be mirrored whatever its columns are.
    #[error("{table} {why}; exclude it by the pattern \"!{table}\"")]
    UnsupportedTable { table: TableId, why: &'static str },
    /// A configured key that the table cannot have.
    #[error("the key configured for {table} cannot be used: {why}")]
    Key { table: TableId, why: String },
}

impl MysqlError {
    /// Whether the same request may succeed on another connection, a little later.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::Lost { .. } => true,
            Self::Server { code, .. } => matches!(
                *code,
                codes::TOO_MANY_CONNECTIONS
                    | codes::TOO_MANY_USER_CONNECTIONS
                    | codes::SERVER_SHUTDOWN
                    | codes::LOCK_WAIT_TIMEOUT
                    | codes::DEADLOCK
                    | codes::QUERY_INTERRUPTED
                    | codes::QUERY_TIMEOUT
                    | codes::TABLE_DEFINITION_CHANGED
                    | codes::CLIENT_INTERACTION_TIMEOUT
            ),
            _ => false,
        }
    }

    /// The server's error number, if it answered with one.
    pub fn code(&self) -> Option<u16> {
        match self {
            Self::AccessDenied { code, .. } | Self::Server { code, .. } => Some(*code),
            _ => None,
        }
    }

    /// Turns the driver's error into ours; `doing` completes "while …".
    pub fn from_driver(doing: impl Into<String>, error: &mysql_async::Error) -> Self {
        let doing = doing.into();
        match error {
            mysql_async::Error::Server(server) => Self::Server {
                doing,
                code: server.code,
                state: server.state.clone(),
                message: without_values(server.code, &server.message),
                hint: hint(server.code),
            },
            mysql_async::Error::Io(io) => Self::Lost { doing, detail: io.to_string() },
            mysql_async::Error::Driver(mysql_async::DriverError::ConnectionClosed) => {
                Self::Lost { doing, detail: "the server closed it".into() }
            }
            // The other driver errors can carry rows and packets in their fields, not in their text.
            other => Self::Unexpected { doing, what: other.to_string() },
        }
    }
}

/// Server error numbers that weir branches on (MySQL Server Error Message Reference).
pub mod codes {
    pub const TOO_MANY_CONNECTIONS: u16 = 1040;
    pub const DATABASE_ACCESS_DENIED: u16 = 1044;
    pub const ACCESS_DENIED: u16 = 1045;
    pub const UNKNOWN_DATABASE: u16 = 1049;
    pub const SERVER_SHUTDOWN: u16 = 1053;
    pub const SYNTAX: u16 = 1064;
    pub const HOST_BLOCKED: u16 = 1129;
    pub const HOST_NOT_PRIVILEGED: u16 = 1130;
    pub const TABLE_ACCESS_DENIED: u16 = 1142;
    pub const COLUMN_ACCESS_DENIED: u16 = 1143;
    pub const NO_SUCH_TABLE: u16 = 1146;
    pub const UNKNOWN_SYSTEM_VARIABLE: u16 = 1193;
    pub const TOO_MANY_USER_CONNECTIONS: u16 = 1203;
    pub const LOCK_WAIT_TIMEOUT: u16 = 1205;
    pub const DEADLOCK: u16 = 1213;
    pub const SPECIFIC_ACCESS_DENIED: u16 = 1227;
    pub const WRONG_VALUE_FOR_VARIABLE: u16 = 1231;
    pub const QUERY_INTERRUPTED: u16 = 1317;
    pub const NO_BINARY_LOGGING: u16 = 1381;
    pub const XA_NOT_ALLOWED: u16 = 1401;
    pub const TABLE_DEFINITION_CHANGED: u16 = 1412;
    pub const SOCKET_ACCESS_DENIED: u16 = 1698;
    pub const MUST_CHANGE_PASSWORD: u16 = 1820;
    pub const PASSWORD_EXPIRED: u16 = 1862;
    pub const QUERY_TIMEOUT: u16 = 3024;
    pub const ACCOUNT_LOCKED: u16 = 3118;
    pub const SECURE_TRANSPORT_REQUIRED: u16 = 3159;
    pub const CLIENT_INTERACTION_TIMEOUT: u16 = 4031;
}

pub(crate) fn hint(code: u16) -> &'static str {
    match code {
        codes::SECURE_TRANSPORT_REQUIRED => "; add ?ssl_mode=required (or verify_ca with ssl_ca=FILE) to the url",
        codes::TABLE_ACCESS_DENIED | codes::COLUMN_ACCESS_DENIED => "; `weir check` prints the GRANT that is missing",
        codes::SPECIFIC_ACCESS_DENIED => "; `weir check` prints the GRANT that is missing",
        codes::TOO_MANY_CONNECTIONS | codes::TOO_MANY_USER_CONNECTIONS => {
            "; lower max_connections of the source or raise the server's"
        }
        _ => "",
    }
}

/// Messages of these errors quote statement text or values (keys of a chunk, for one); what is quoted is left out.
pub(crate) fn without_values(code: u16, message: &str) -> String {
    const QUOTES_VALUES: [u16; 12] = [1062, codes::SYNTAX, 1264, 1292, 1366, 1367, 1411, 1441, 1525, 1586, 1690, 3854];
    if !QUOTES_VALUES.contains(&code) {
        return message.into();
    }
    match (message.find('\''), message.rfind('\'')) {
        (Some(first), Some(last)) if first < last => format!("{}…{}", &message[..=first], &message[last..]),
        _ => message.into(),
    }
}

/// What is wrong with an account that logs in by `plugin`, and the way out.
pub(crate) fn unknown_login(plugin: &str) -> String {
    format!(
        "logs in by {plugin}, which weir does not know; give the account another kind: ALTER USER … IDENTIFIED WITH \
         caching_sha2_password BY … (MySQL 5.7 and MariaDB: mysql_native_password)"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(code: u16, message: &str) -> MysqlError {
        let error = mysql_async::ServerError { code, message: message.into(), state: "HY000".into() };
        MysqlError::from_driver("reading shop.orders", &mysql_async::Error::Server(error))
    }

    #[test]
    fn quoted_values_do_not_reach_the_message() {
        let text = server(1292, "Incorrect DATETIME value: 'it's secret'").to_string();
        assert!(!text.contains("secret"), "{text}");
        assert!(text.contains("Incorrect DATETIME value") && text.contains("1292"), "{text}");
        assert!(server(1146, "Table 'shop.orders' doesn't exist").to_string().contains("shop.orders"));
    }

    #[test]
    fn only_what_may_pass_by_itself_is_retried() {
        assert!(server(codes::LOCK_WAIT_TIMEOUT, "").is_retryable());
        assert!(!server(codes::NO_SUCH_TABLE, "").is_retryable());
        assert!(MysqlError::Lost { doing: String::new(), detail: String::new() }.is_retryable());
        assert!(!MysqlError::Url(String::new()).is_retryable());
    }
}
