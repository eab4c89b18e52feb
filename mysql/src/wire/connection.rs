//! A connection to a server: packets in both directions, and statements that are answered by little.
//!
//! The driver is not used here: its binlog stream unpacks compressed transactions whole, in memory, and swallows what goes
//! wrong there; its rows are built cell by cell; and it hides the packets, so that everything would be copied and parsed twice.

use std::io;
use std::ops::Range;

use bytes::{Buf, Bytes, BytesMut};
use mysql_async::Opts;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};

use super::error::WireError;
use super::fields::{EndsEarly, Fields};
use super::tls;

/// Read from the socket at a time, unless told otherwise: events of a busy server come by megabytes.
const READ_BYTES: usize = 1 << 20;
/// A packet with a payload of this length is continued by the next one.
const PACKET_LEN_MAX: usize = 0xff_ffff;
/// The greatest `max_allowed_packet` that a server can have: what goes beyond is no packet of MySQL.
const JOINED_LEN_MAX: usize = 1 << 30;

pub const OK: u8 = 0x00;
pub const EOF: u8 = 0xfe;
pub const ERROR: u8 = 0xff;
const COM_QUERY: u8 = 0x03;

/// What a packet travels over: a socket, or TLS on one.
pub(super) trait Transport: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Transport for T {}

/// Packets to and from a server.
pub struct Connection {
    transport: Box<dyn Transport>,
    /// Whether nobody can listen in: TLS or a local socket.
    pub(super) is_private: bool,
    input: BytesMut,
    /// Bytes of `input` that have been shown.
    shown: usize,
    /// The first parts of a packet that is longer than one may be.
    parts: BytesMut,
    /// `parts` are a whole packet, which has been shown.
    joined: bool,
    sequence: u8,
    read_bytes: usize,
}

/// Where the payload of a packet lies.
enum Place {
    Input(Range<usize>),
    Parts,
}

impl Connection {
    /// Reaches the server that `options` name, without a word said yet.
    pub(super) async fn open(options: &Opts) -> Result<Self, WireError> {
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

    pub(super) fn over(transport: Box<dyn Transport>, is_private: bool) -> Self {
        Self {
            transport,
            is_private,
            input: BytesMut::new(),
            shown: 0,
            parts: BytesMut::new(),
            joined: false,
            sequence: 0,
            read_bytes: READ_BYTES,
        }
    }

    /// How much is read from the socket at a time from here on.
    pub fn set_read_bytes(&mut self, bytes: usize) {
        self.read_bytes = bytes;
    }

    /// Goes on in TLS. The server has been told and waits for it.
    pub(super) async fn start_tls(self, options: &mysql_async::SslOpts, host: &str) -> Result<Self, WireError> {
        if !self.input.is_empty() {
            return Err(WireError::protocol("the server spoke before TLS began"));
        }
        let Self { transport, sequence, .. } = self;
        let secured = tls::connect(options, host, transport).await?;
        Ok(Self { sequence, ..Self::over(Box::new(secured), true) })
    }

    /// The next packet's payload. May be dropped and called again: what was read stays.
    pub async fn read_packet(&mut self) -> Result<Bytes, WireError> {
        loop {
            if let Some(packet) = self.buffered_packet()? {
                return Ok(packet);
            }
            self.fill().await?;
        }
    }

    /// A packet that is here already; otherwise makes room for more of it.
    pub fn buffered_packet(&mut self) -> Result<Option<Bytes>, WireError> {
        Ok(match self.next_place()? {
            Some(Place::Input(payload)) => {
                self.input.advance(payload.start);
                self.shown = 0;
                Some(self.input.split_to(payload.len()).freeze())
            }
            Some(Place::Parts) => {
                self.joined = false;
                Some(std::mem::take(&mut self.parts).freeze())
            }
            None => None,
        })
    }

    /// The payload of a packet that is here already, where it lies: it is gone with the next call. Otherwise makes room for
    /// more of it.
    #[inline]
    pub fn buffered_payload(&mut self) -> Result<Option<&[u8]>, WireError> {
        Ok(match self.next_place()? {
            Some(Place::Input(payload)) => Some(&self.input[payload]),
            Some(Place::Parts) => Some(&self.parts),
            None => None,
        })
    }

    /// Waits for more from the server. May be dropped and called again.
    pub async fn fill(&mut self) -> Result<(), WireError> {
        if self.transport.read_buf(&mut self.input).await? == 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the server closed the connection").into());
        }
        Ok(())
    }

    /// Steps over the next packet, if all of it is here.
    #[inline]
    fn next_place(&mut self) -> Result<Option<Place>, WireError> {
        if self.joined {
            // A row of many megabytes is rare; its memory is not kept for the next.
            (self.parts, self.joined) = (BytesMut::new(), false);
        }
        let mut wanted = 0;
        while let Some(&[a, b, c, sequence]) = self.input[self.shown..].first_chunk() {
            let len = u32::from_le_bytes([a, b, c, 0]) as usize;
            let begin = self.shown + 4;
            if self.input.len() < begin + len {
                wanted = begin + len - self.input.len();
                break;
            }
            if sequence != self.sequence {
                let expected = self.sequence;
                return Err(WireError::protocol(format!("packet {sequence} came where {expected} was due")));
            }
            self.sequence = self.sequence.wrapping_add(1);
            self.shown = begin + len;
            let payload = begin..begin + len;
            if len < PACKET_LEN_MAX && self.parts.is_empty() {
                return Ok(Some(Place::Input(payload)));
            }
            if self.parts.len() + len > JOINED_LEN_MAX {
                return Err(WireError::protocol("the server sent a packet of more than a gibibyte"));
            }
            self.parts.extend_from_slice(&self.input[payload]);
            if len < PACKET_LEN_MAX {
                self.joined = true;
                return Ok(Some(Place::Parts));
            }
        }
        self.input.advance(self.shown);
        self.shown = 0;
        self.input.reserve(wanted.max(self.read_bytes));
        Ok(None)
    }

    /// The next packet, an error packet of the server being an error.
    pub async fn read_reply(&mut self) -> Result<Bytes, WireError> {
        let packet = self.read_packet().await?;
        match packet.first() {
            Some(&ERROR) => Err(parse_error(&packet)),
            Some(_) => Ok(packet),
            None => Err(WireError::protocol("the server sent an empty packet")),
        }
    }

    /// Answers within a dialogue.
    pub async fn write_packet(&mut self, payload: &[u8]) -> Result<(), WireError> {
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
    pub async fn command(&mut self, payload: &[u8]) -> Result<(), WireError> {
        self.sequence = 0;
        self.write_packet(payload).await
    }

    /// A command that is answered by OK alone.
    pub async fn expect_ok(&mut self, payload: &[u8]) -> Result<(), WireError> {
        self.command(payload).await?;
        match self.read_reply().await?.first() {
            Some(&OK) => Ok(()),
            _ => Err(WireError::protocol("the server did not answer OK")),
        }
    }

    /// A statement without a result.
    pub async fn execute(&mut self, sql: &str) -> Result<(), WireError> {
        self.expect_ok(&query_command(sql)).await
    }

    /// The last row of a query as text; NULL is empty.
    pub async fn query_row(&mut self, sql: &str) -> Result<Vec<String>, WireError> {
        let malformed = |_| WireError::protocol("the server's result is malformed");
        self.command(&query_command(sql)).await?;
        let head = self.read_reply().await?;
        let columns = Fields::new(&head).length_encoded().map_err(malformed)?;
        for _ in 0..=columns {
            self.read_reply().await?; // Descriptions of the columns, and the end of them.
        }
        let mut row = Vec::new();
        loop {
            let packet = self.read_reply().await?;
            if packet[0] == EOF && packet.len() < 9 {
                return Ok(row);
            }
            row = text_row(&packet).map_err(malformed)?;
        }
    }
}

fn text_row(packet: &[u8]) -> Result<Vec<String>, EndsEarly> {
    const NULL: u8 = 0xfb;

    let (mut fields, mut row) = (Fields::new(packet), Vec::new());
    while !fields.is_empty() {
        let is_null = fields.rest()[0] == NULL;
        let value = if is_null { fields.take(1).map(|_| &[][..]) } else { fields.length_encoded_bytes() }?;
        row.push(String::from_utf8_lossy(value).into_owned());
    }
    Ok(row)
}

fn query_command(sql: &str) -> Vec<u8> {
    [&[COM_QUERY], sql.as_bytes()].concat()
}

/// An error packet: code, perhaps `#` and five characters of state, message.
pub fn parse_error(packet: &[u8]) -> WireError {
    const UNKNOWN_STATE: &str = "HY000";

    let mut fields = Fields::new(packet.get(1..).unwrap_or_default());
    let Ok(code) = fields.u16() else {
        return WireError::protocol("the server sent a malformed error");
    };
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (state, message) = match fields.rest() {
        [b'#', rest @ ..] if rest.len() >= 5 => (text(&rest[..5]), text(&rest[5..])),
        message => (UNKNOWN_STATE.to_owned(), text(message)),
    };
    WireError::Server { code, state, message }
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
                Err(WireError::Io(_)) => return lens,
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

    #[tokio::test]
    async fn payloads_are_shown_in_place_and_long_ones_joined() {
        let bytes = [packet(0, 3), packet(1, PACKET_LEN_MAX), packet(2, 5), packet(3, 0), packet(4, 70_000)].concat();
        let (mut server, client) = tokio::io::duplex(1000);
        tokio::spawn(async move {
            let _ = server.write_all(&bytes).await;
        });
        let mut connection = Connection::over(Box::new(client), false);
        connection.set_read_bytes(64);
        let mut lens = Vec::new();
        while lens.len() < 4 {
            match connection.buffered_payload().unwrap() {
                Some(payload) => {
                    assert!(payload.iter().all(|byte| *byte == 7));
                    lens.push(payload.len());
                }
                None => connection.fill().await.unwrap(),
            }
        }
        assert_eq!(lens, [3, PACKET_LEN_MAX + 5, 0, 70_000]);
    }

    #[test]
    fn an_error_packet_has_its_state_and_its_words() {
        let error = parse_error(&[&[ERROR][..], &1053_u16.to_le_bytes(), b"#08S01words"].concat());
        let WireError::Server { code, state, message } = error else { panic!("{error}") };
        assert_eq!((code, state.as_str(), message.as_str()), (1053, "08S01", "words"));
        assert!(matches!(parse_error(&[ERROR, 1]), WireError::Protocol(_)));
        assert!(matches!(parse_error(&[]), WireError::Protocol(_)));
    }
}
