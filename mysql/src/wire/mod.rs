//! MySQL's client protocol as far as weir speaks it itself: packets, login, TLS, text queries of one row, and the rows of a
//! prepared statement as they lie in the packets.
//!
//! Bytes of a server come in and leave as slices of the buffer that they were read into. What they mean is for others to
//! say: `snapshot-loader` decodes rows, the binlog's room events. Everything else (the catalogue, checks) goes through the
//! driver, whose packets cannot be had.
//!
//! Reading order: [`connection`] (packets), `login` and `tls` (getting in), [`session`] (a connection that reads exactly),
//! [`rows`] (a statement's result).

pub mod connection;
mod error;
mod fields;
mod login;
pub mod rows;
pub mod session;
mod tls;

pub use connection::{Connection, EOF, ERROR, OK, parse_error};
pub use error::WireError;
pub use fields::{EndsEarly, Fields};
pub use login::log_in;
pub use rows::{ColumnDefinition, Rows};
pub use session::RowConnection;
