//! The result of one statement over the binary protocol: what its columns are on the wire, and its rows as packets, each
//! shown where it lies in the buffer that it was read into.
//!
//! No cursor is asked for: the server sends as fast as we read, and one that is not read waits.

use std::io;
use std::time::Duration;

use tokio::time::timeout;

use super::connection::{Connection, EOF, ERROR, OK, parse_error};
use super::error::WireError;
use super::fields::{EndsEarly, Fields};
use super::session::RowConnection;

const COM_STMT_PREPARE: u8 = 0x16;
const COM_STMT_EXECUTE: u8 = 0x17;
const COM_STMT_CLOSE: u8 = 0x19;

/// A server that says nothing for so long is taken for gone: a peer that vanished leaves a socket that never ends. Behind a
/// statement that waits for a lock there is silence, too, so this is long.
pub const SILENCE_MAX: Duration = Duration::from_secs(15 * 60);
/// Columns of a result that are believed: a table has at most 4,096.
const COLUMNS_MAX: u64 = 4_096;

/// A column as the server announces it (`Protocol::ColumnDefinition41`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ColumnDefinition {
    pub name: String,
    /// The type on the wire, by its number in the protocol.
    pub kind: u8,
    pub is_unsigned: bool,
}

/// What comes next in a result.
#[derive(Debug)]
pub enum Next<'a> {
    /// A row's packet, from its first byte on; it is gone with the next call.
    Row(&'a [u8]),
    /// Nothing more is here yet: [`Rows::fill`].
    More,
    /// The result is complete.
    End,
}

/// The rows of a statement, in the order in which the server sends them. Dropped before its end, it leaves the connection
/// with rows that nobody reads.
pub struct Rows<'a> {
    session: &'a mut RowConnection,
    statement: u32,
    columns: Vec<ColumnDefinition>,
}

impl<'a> Rows<'a> {
    /// Prepares and executes a statement without parameters; returns once its rows begin.
    pub(super) async fn execute(session: &'a mut RowConnection, sql: &str) -> Result<Self, WireError> {
        let connection = session.begin()?;
        connection.command(&[&[COM_STMT_PREPARE], sql.as_bytes()].concat()).await?;
        let reply = waited(connection.read_reply()).await?;
        let (statement, columns, parameters) = prepared(&reply).ok_or_else(malformed)?;
        if columns == 0 || parameters != 0 {
            return Err(WireError::protocol("the statement is no SELECT without parameters"));
        }
        read_definitions(connection, u64::from(columns)).await?;
        connection.command(&execute_command(statement)).await?;
        let head = waited(connection.read_reply()).await?;
        let columns = Fields::new(&head).length_encoded().ok().filter(|n| *n == u64::from(columns));
        let columns = read_definitions(connection, columns.ok_or_else(malformed)?).await?;
        Ok(Self { session, statement, columns })
    }

    /// In the order of the SELECT list.
    pub fn columns(&self) -> &[ColumnDefinition] {
        &self.columns
    }

    /// What is here already. Not to be called again behind [`Next::End`] or an error.
    #[inline]
    pub fn show(&mut self) -> Result<Next<'_>, WireError> {
        match self.session.connection.buffered_payload()? {
            None => Ok(Next::More),
            Some(packet) => match packet.first() {
                Some(&OK) => Ok(Next::Row(packet)),
                Some(&EOF) if packet.len() < 9 => Ok(Next::End),
                Some(&ERROR) => Err(parse_error(packet)),
                _ => Err(WireError::protocol("the server sent a packet that is no row")),
            },
        }
    }

    /// Waits for more from the server. May be dropped and called again.
    pub async fn fill(&mut self) -> Result<(), WireError> {
        waited(self.session.connection.fill()).await
    }

    /// Gives the statement back to the server, behind its last row; the connection is free again.
    pub async fn close(&mut self) -> Result<(), WireError> {
        // The server does not answer this one.
        let command = [&[COM_STMT_CLOSE][..], &self.statement.to_le_bytes()].concat();
        self.session.connection.command(&command).await?;
        self.session.is_idle = true;
        Ok(())
    }
}

/// An answer, or an error once the server has been silent for too long.
async fn waited<T>(answer: impl Future<Output = Result<T, WireError>>) -> Result<T, WireError> {
    timeout(SILENCE_MAX, answer).await.unwrap_or_else(|_| {
        let why = format!("the server has said nothing for {} s", SILENCE_MAX.as_secs());
        Err(io::Error::new(io::ErrorKind::TimedOut, why).into())
    })
}

/// The id of a prepared statement, the number of its columns and that of its parameters (`COM_STMT_PREPARE_OK`).
fn prepared(reply: &[u8]) -> Option<(u32, u16, u16)> {
    let mut fields = Fields::new(reply);
    let is_ok = fields.u8().ok()? == OK;
    let numbers = (fields.u32().ok()?, fields.u16().ok()?, fields.u16().ok()?);
    is_ok.then_some(numbers)
}

fn execute_command(statement: u32) -> Vec<u8> {
    const NO_CURSOR: u8 = 0;
    const ITERATIONS: u32 = 1;

    let mut command = vec![COM_STMT_EXECUTE];
    command.extend_from_slice(&statement.to_le_bytes());
    command.push(NO_CURSOR);
    command.extend_from_slice(&ITERATIONS.to_le_bytes());
    command
}

async fn read_definitions(connection: &mut Connection, count: u64) -> Result<Vec<ColumnDefinition>, WireError> {
    if count > COLUMNS_MAX {
        return Err(malformed());
    }
    let mut columns = Vec::new();
    for _ in 0..count {
        let packet = waited(connection.read_reply()).await?;
        columns.push(definition(&packet).map_err(|EndsEarly| malformed())?);
    }
    match waited(connection.read_reply()).await?.first() {
        Some(&EOF) => Ok(columns),
        _ => Err(malformed()),
    }
}

fn definition(packet: &[u8]) -> Result<ColumnDefinition, EndsEarly> {
    const UNSIGNED: u16 = 0x20;

    let mut fields = Fields::new(packet);
    for _ in 0..4 {
        fields.length_encoded_bytes()?; // Catalogue, database, table, and the table's own name.
    }
    let name = String::from_utf8_lossy(fields.length_encoded_bytes()?).into_owned();
    fields.length_encoded_bytes()?; // The column's own name.
    fields.length_encoded()?; // The length of what follows.
    fields.u16()?; // Character set: results are in ours.
    fields.u32()?; // Width.
    let kind = fields.u8()?;
    Ok(ColumnDefinition { name, kind, is_unsigned: fields.u16()? & UNSIGNED != 0 })
}

fn malformed() -> WireError {
    WireError::protocol("the server's answer to a prepared statement is malformed")
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;

    use super::*;

    fn column(name: &str, kind: u8, flags: u16) -> Vec<u8> {
        let text = |text: &str| [&[text.len() as u8], text.as_bytes()].concat();
        let mut packet: Vec<u8> = ["def", "shop", "o", "orders", name, name].iter().flat_map(|t| text(t)).collect();
        packet.push(12);
        packet.extend([45, 0, 11, 0, 0, 0, kind]);
        packet.extend(flags.to_le_bytes());
        packet.extend([0, 0, 0]);
        packet
    }

    #[test]
    fn a_definition_tells_name_type_and_sign() {
        let expected = ColumnDefinition { name: "id".into(), kind: 8, is_unsigned: true };
        assert_eq!(definition(&column("id", 8, 0x1023)), Ok(expected));
        let whole = column("id", 8, 0);
        assert!((0..whole.len() - 4).all(|len| definition(&whole[..len]).is_err()));
    }

    /// What a server would have to say, each packet with its number in its exchange.
    async fn answered(packets: &[(u8, Vec<u8>)]) -> Result<Vec<usize>, WireError> {
        let (mut server, client) = tokio::io::duplex(1 << 16);
        for (sequence, payload) in packets {
            let mut packet = (payload.len() as u32).to_le_bytes();
            packet[3] = *sequence;
            server.write_all(&[&packet[..], payload].concat()).await.unwrap();
        }
        server.shutdown().await.unwrap();
        let mut session = RowConnection::over(Connection::over(Box::new(client), true));
        let mut rows = session.rows("SELECT id FROM orders").await?;
        let mut lens = Vec::new();
        loop {
            match rows.show()? {
                Next::Row(packet) => lens.push(packet.len()),
                Next::More => rows.fill().await?,
                Next::End => break,
            }
        }
        rows.close().await?;
        assert!(session.begin().is_ok());
        Ok(lens)
    }

    fn result(rows: &[Vec<u8>]) -> Vec<(u8, Vec<u8>)> {
        let end = vec![EOF, 0, 0, 2, 0];
        let prepared = vec![OK, 7, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        let heads = [prepared, column("id", 8, 0), end.clone()];
        let mut packets: Vec<(u8, Vec<u8>)> = (1..).zip(heads).collect();
        let answer = [vec![1], column("id", 8, 0), end.clone()].into_iter().chain(rows.iter().cloned()).chain([end]);
        packets.extend((1..).zip(answer));
        packets
    }

    #[tokio::test]
    async fn rows_are_shown_until_the_end() {
        let packets = result(&[vec![OK; 10], vec![OK, 0]]);
        assert_eq!(answered(&packets).await.unwrap(), [10, 2]);
    }

    #[tokio::test]
    async fn rows_that_nobody_read_make_the_connection_useless() {
        let (mut server, client) = tokio::io::duplex(1 << 16);
        for (sequence, payload) in result(&[vec![OK; 10]]) {
            let mut packet = (payload.len() as u32).to_le_bytes();
            packet[3] = sequence;
            server.write_all(&[&packet[..], &payload].concat()).await.unwrap();
        }
        let mut session = RowConnection::over(Connection::over(Box::new(client), true));
        drop(session.rows("SELECT id FROM orders").await.unwrap());
        assert!(session.rows("SELECT 1").await.is_err());
    }

    #[tokio::test]
    async fn a_server_that_errs_or_lies_is_an_error() {
        let error = [&[ERROR][..], &1317_u16.to_le_bytes(), b"#70100Query execution was interrupted"].concat();
        let broken = answered(&result(&[vec![OK; 10], error])).await.unwrap_err();
        assert!(matches!(broken, WireError::Server { code: 1317, .. }), "{broken}");
        assert!(matches!(answered(&result(&[vec![7; 3]])).await, Err(WireError::Protocol(_))));
        let mut many = result(&[]);
        many[3].1 = vec![0xfe, 255, 255, 255, 255, 255, 255, 255, 255];
        assert!(matches!(answered(&many).await, Err(WireError::Protocol(_))));
        assert!(matches!(answered(&result(&[])[..3]).await, Err(WireError::Io(_))));
    }
}
