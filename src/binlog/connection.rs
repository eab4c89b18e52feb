//! A connection that speaks just enough of MySQL's protocol to read the binlog: packets, `SET`, one-row queries, commands.
//!
//! mysql_async's own binlog stream is not used: it unpacks compressed transactions whole, in memory, and swallows what
//! goes wrong there; it also hides the packets, so that each event would be copied and parsed twice.

use std::io;

use bytes::{Buf, Bytes, BytesMut};
use mysql_async::Opts;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};

use super::SourceError;
use super::cursor::Cursor;
use super::tls;

/// Read from the socket at a time.
const READ_BYTES: usize = 1 << 20;
/// A packet with a payload of this length is continued by the next one.
const PACKET_LEN_MAX: usize = 0xff_ffff;

pub(super) const OK: u8 = 0x00;
pub(super) const EOF: u8 = 0xfe;
pub(super) const ERROR: u8 = 0xff;
const COM_QUERY: u8 = 0x03;

/// What went wrong on the connection.
#[derive(Debug, thiserror::Error)]
pub(super) enum ConnectionError {
    #[error("{0}")]
    Io(#[from] io::Error),
    /// An error packet of the server.
    #[error("the server says: {message} (error {code})")]
    Server { code: u16, message: String },
    /// The peer does not speak as it should.
    #[error("{0}")]
    Protocol(String),
    /// Our settings and the server's do not go together.
    #[error("{0}")]
    Settings(String),
}

impl ConnectionError {
    pub(super) fn protocol(why: impl Into<String>) -> Self {
        Self::Protocol(why.into())
    }

    /// Server errors that pass by themselves: too many connections, shutdown, killed, network trouble, idle timeout.
    const PASSING: [u16; 12] = [1040, 1053, 1152, 1158, 1159, 1160, 1161, 1184, 1203, 1226, 1317, 4031];
}

impl From<ConnectionError> for SourceError {
    fn from(error: ConnectionError) -> Self {
        let why = error.to_string();
        match error {
            ConnectionError::Io(_) | ConnectionError::Protocol(_) => Self::Retryable { why },
            ConnectionError::Server { code, .. } if ConnectionError::PASSING.contains(&code) => Self::Retryable { why },
            ConnectionError::Server { .. } | ConnectionError::Settings(_) => Self::AuthOrConfig { why },
        }
    }
}

/// What a packet travels over: a socket, or TLS on one.
pub(super) trait Transport: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Transport for T {}

/// Packets to and from a server.
pub(super) struct Connection {
    transport: Box<dyn Transport>,
    /// Whether nobody can listen in: TLS or a local socket.
    pub(super) is_private: bool,
    input: BytesMut,
    /// The first parts of a packet that is longer than one may be.
    parts: BytesMut,
    sequence: u8,
}

impl Connection {
    /// Reaches the server that `options` name, without a word said yet.
    pub(super) async fn open(options: &Opts) -> Result<Self, ConnectionError> {
        let at = |address: String| move |error: io::Error| io::Error::new(error.kind(), format!("{address}: {error}"));
        if let Some(path) = options.socket() {
            let socket = UnixStream::connect(path).await.map_err(at(path.to_owned()))?;
            return Ok(Self::over(Box::new(socket), true));
        }
        let (host, port) = (options.ip_or_hostname(), options.tcp_port());
        let socket = match options.resolved_ips() {
            Some(addresses) => {
                let addresses: Vec<_> = addresses.iter().map(|&address| (address, port).into()).collect();
                TcpStream::connect(&addresses[..]).await
            }
            None => TcpStream::connect((host, port)).await,
        };
        let socket = socket.map_err(at(format!("{host}:{port}")))?;
        socket.set_nodelay(true)?;
        Ok(Self::over(Box::new(socket), false))
    }

    fn over(transport: Box<dyn Transport>, is_private: bool) -> Self {
        Self { transport, is_private, input: BytesMut::new(), parts: BytesMut::new(), sequence: 0 }
    }

    /// Goes on in TLS. The server has been told and waits for it.
    pub(super) async fn start_tls(self, options: &mysql_async::SslOpts, host: &str) -> Result<Self, ConnectionError> {
        if !self.input.is_empty() {
            return Err(ConnectionError::protocol("the server spoke before TLS began"));
        }
        let Self { transport, sequence, .. } = self;
        let secured = tls::connect(options, host, transport).await?;
        Ok(Self { sequence, ..Self::over(Box::new(secured), true) })
    }

    /// The next packet's payload. May be dropped and called again: what was read stays.
    pub(super) async fn read_packet(&mut self) -> Result<Bytes, ConnectionError> {
        loop {
            if let Some(packet) = self.buffered_packet()? {
                return Ok(packet);
            }
            if self.transport.read_buf(&mut self.input).await? == 0 {
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the server closed the connection").into());
            }
        }
    }

    /// A packet that is here already; otherwise makes room for more of it.
    pub(super) fn buffered_packet(&mut self) -> Result<Option<Bytes>, ConnectionError> {
        while let Some(&[a, b, c, sequence]) = self.input.first_chunk() {
            let len = u32::from_le_bytes([a, b, c, 0]) as usize;
            if self.input.len() < 4 + len {
                self.input.reserve((4 + len - self.input.len()).max(READ_BYTES));
                return Ok(None);
            }
            if sequence != self.sequence {
                let expected = self.sequence;
                return Err(ConnectionError::protocol(format!("packet {sequence} came where {expected} was due")));
            }
            self.sequence = self.sequence.wrapping_add(1);
            self.input.advance(4);
            let payload = self.input.split_to(len);
            if len == PACKET_LEN_MAX {
                self.parts.unsplit(payload);
            } else if self.parts.is_empty() {
                return Ok(Some(payload.freeze()));
            } else {
                self.parts.extend_from_slice(&payload);
                return Ok(Some(std::mem::take(&mut self.parts).freeze()));
            }
        }
        self.input.reserve(READ_BYTES);
        Ok(None)
    }

    /// The next packet, an error packet of the server being an error.
    pub(super) async fn read_reply(&mut self) -> Result<Bytes, ConnectionError> {
        let packet = self.read_packet().await?;
        match packet.first() {
            Some(&ERROR) => Err(parse_error(&packet)),
            Some(_) => Ok(packet),
            None => Err(ConnectionError::protocol("the server sent an empty packet")),
        }
    }

    /// Answers within a dialogue.
    pub(super) async fn write_packet(&mut self, payload: &[u8]) -> Result<(), ConnectionError> {
        let mut packet = Vec::with_capacity(payload.len() + 8);
        // A payload of exactly the greatest length is followed by an empty packet, so that its end can be seen.
        let mut rest = Some(payload);
        while let Some(payload) = rest {
            let (part, after) = payload.split_at(payload.len().min(PACKET_LEN_MAX));
            packet.extend_from_slice(&(part.len() as u32).to_le_bytes()[..3]);
            packet.push(self.sequence);
            packet.extend_from_slice(part);
            self.sequence = self.sequence.wrapping_add(1);
            rest = (part.len() == PACKET_LEN_MAX).then_some(after);
        }
        self.transport.write_all(&packet).await?;
        self.transport.flush().await?;
        Ok(())
    }

    /// Opens a dialogue with a command.
    pub(super) async fn command(&mut self, payload: &[u8]) -> Result<(), ConnectionError> {
        self.sequence = 0;
        self.write_packet(payload).await
    }

    /// A command that is answered by OK alone.
    pub(super) async fn expect_ok(&mut self, payload: &[u8]) -> Result<(), ConnectionError> {
        self.command(payload).await?;
        match self.read_reply().await?.first() {
            Some(&OK) => Ok(()),
            _ => Err(ConnectionError::protocol("the server did not answer OK")),
        }
    }

    /// A statement without a result.
    pub(super) async fn execute(&mut self, sql: &str) -> Result<(), ConnectionError> {
        self.expect_ok(&query_command(sql)).await
    }

    /// The first row of a query as text; NULL is empty.
    pub(super) async fn query_row(&mut self, sql: &str) -> Result<Vec<String>, ConnectionError> {
        let malformed = |_| ConnectionError::protocol("the server's result is malformed");
        self.command(&query_command(sql)).await?;
        let head = self.read_reply().await?;
        let columns = Cursor::new(&head).length_encoded().map_err(malformed)?;
        for _ in 0..=columns {
            self.read_reply().await?; // Descriptions of the columns, and the end of them.
        }
        let mut row = Vec::new();
        loop {
            let packet = self.read_reply().await?;
            if packet[0] == EOF && packet.len() < 9 {
                return Ok(row);
            }
            let mut cursor = Cursor::new(&packet);
            row.clear();
            while !cursor.is_empty() {
                const NULL: u8 = 0xfb;
                let is_null = cursor.clone().rest()[0] == NULL;
                let value = if is_null { cursor.take(1).map(|_| Bytes::new()) } else { cursor.length_encoded_bytes() };
                row.push(String::from_utf8_lossy(&value.map_err(malformed)?).into_owned());
            }
        }
    }
}

fn query_command(sql: &str) -> Vec<u8> {
    [&[COM_QUERY], sql.as_bytes()].concat()
}

/// An error packet: code, perhaps `#` and five characters of state, message.
pub(super) fn parse_error(packet: &Bytes) -> ConnectionError {
    let mut cursor = Cursor::new(&packet.slice(1..));
    let Ok(code) = cursor.u16() else {
        return ConnectionError::protocol("the server sent a malformed error");
    };
    let mut message = cursor.rest();
    if message.first() == Some(&b'#') && message.len() >= 6 {
        message.advance(6);
    }
    ConnectionError::Server { code, message: String::from_utf8_lossy(&message).into_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn read_all(bytes: Vec<u8>, step: usize) -> Vec<Result<usize, String>> {
        let (mut server, client) = tokio::io::duplex(step);
        tokio::spawn(async move {
            let _ = server.write_all(&bytes).await;
        });
        let mut connection = Connection::over(Box::new(client), false);
        let mut lens = Vec::new();
        loop {
            match connection.read_packet().await {
                Ok(packet) => lens.push(Ok(packet.len())),
                Err(ConnectionError::Io(_)) => return lens,
                Err(error) => {
                    lens.push(Err(error.to_string()));
                    return lens;
                }
            }
        }
    }

    fn packet(sequence: u8, len: usize) -> Vec<u8> {
        let mut bytes = (len as u32).to_le_bytes()[..3].to_vec();
        bytes.push(sequence);
        bytes.resize(4 + len, 7);
        bytes
    }

    #[tokio::test]
    async fn packets_are_found_however_the_bytes_arrive() {
        let bytes = [packet(0, 3), packet(1, 0), packet(2, 300)].concat();
        for step in [1, 2, 5, 4096] {
            assert_eq!(read_all(bytes.clone(), step).await, [Ok(3), Ok(0), Ok(300)], "step {step}");
        }
    }

    #[tokio::test]
    async fn long_packets_are_joined() {
        let bytes = [packet(0, PACKET_LEN_MAX), packet(1, PACKET_LEN_MAX), packet(2, 5), packet(3, 1)].concat();
        assert_eq!(read_all(bytes, 1 << 20).await, [Ok(2 * PACKET_LEN_MAX + 5), Ok(1)]);
        let exact = [packet(0, PACKET_LEN_MAX), packet(1, 0)].concat();
        assert_eq!(read_all(exact, 1 << 20).await, [Ok(PACKET_LEN_MAX)]);
    }

    #[tokio::test]
    async fn a_packet_out_of_order_is_refused() {
        let lens = read_all([packet(0, 1), packet(2, 1)].concat(), 64).await;
        assert!(matches!(&lens[..], [Ok(1), Err(why)] if why.contains("packet 2")), "{lens:?}");
    }

    #[test]
    fn server_errors_are_sorted_by_what_to_do() {
        let error = |code: u16| {
            let packet = [&[ERROR][..], &code.to_le_bytes(), b"#08S01words"].concat();
            SourceError::from(parse_error(&packet.into()))
        };
        assert!(matches!(error(1053), SourceError::Retryable { why } if why.contains("words (error 1053)")));
        assert!(matches!(error(1045), SourceError::AuthOrConfig { .. }));
    }
}
