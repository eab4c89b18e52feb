//! What can go wrong on a connection, before anybody has said what it was used for.

use std::io;

use crate::error::{MysqlError, hint, unknown_login, without_values};

/// A failed exchange with the server. Its text never holds a password; that of a server's error may hold what a statement
/// said, and is cleaned by [`WireError::into_mysql`].
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    #[error("{0}")]
    Io(#[from] io::Error),
    /// An error packet of the server.
    #[error("the server says: {message} (error {code}){}", hint(*code))]
    Server { code: u16, state: String, message: String },
    /// The peer does not speak as it should.
    #[error("{0}")]
    Protocol(String),
    /// Our settings and the server's do not go together.
    #[error("{0}")]
    Settings(String),
    /// What the url asks of TLS is not to be had.
    #[error("TLS with the source: {0}")]
    Tls(String),
    /// The account logs in by a kind of password that is not known here.
    #[error("the account {}", unknown_login(.0))]
    LoginKind(String),
}

impl WireError {
    pub fn protocol(why: impl Into<String>) -> Self {
        Self::Protocol(why.into())
    }

    /// As an error of the source; `doing` completes "while …".
    pub fn into_mysql(self, doing: impl Into<String>) -> MysqlError {
        let doing = doing.into();
        match self {
            Self::Io(error) => MysqlError::Lost { doing, detail: error.to_string() },
            Self::Server { code, state, message } => {
                MysqlError::Server { doing, code, state, message: without_values(code, &message), hint: hint(code) }
            }
            Self::Tls(_) | Self::LoginKind(_) => MysqlError::Unexpected { doing, what: self.to_string() },
            Self::Protocol(what) | Self::Settings(what) => MysqlError::Unexpected { doing, what },
        }
    }
}
