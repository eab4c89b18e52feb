//! Just enough of MySQL's client protocol to log in as a user without a password and to receive packets without a copy.
//! No TLS, no compression, no passwords, no decoding of rows.

use std::io::{self, Read, Write};
use std::net::TcpStream;

/// From the manual, "Capabilities Flags": long password, long flag, protocol 4.1, transactions, secure connection,
/// plugin auth, deprecate EOF.
const CAPABILITIES: u32 = 0x1 | 0x4 | 0x200 | 0x2000 | 0x8000 | 0x8_0000 | 0x100_0000;
const PACKET_BYTES_MAX: usize = 0xFF_FFFF;
const CHARSET_UTF8MB4: u8 = 45;
const READ_BUFFER_BYTES: usize = 256 * 1024;

pub const OK: u8 = 0x00;
pub const END: u8 = 0xFE;
const ERROR: u8 = 0xFF;
const AUTH_SWITCH: u8 = 0xFE;
const AUTH_MORE_DATA: u8 = 0x01;

pub struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
    /// Bytes of `buffer` that were received and not yet handed out.
    start: usize,
    end: usize,
    /// The packet handed out last was only the first part of a larger one.
    parts_follow: bool,
    pub bytes_received: u64,
}

impl Connection {
    pub fn open(address: &str, user: &str) -> io::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        let buffer = vec![0; READ_BUFFER_BYTES];
        let mut connection = Self { stream, buffer, start: 0, end: 0, parts_follow: false, bytes_received: 0 };
        connection.packet()?; // The greeting; a user without a password needs nothing of it.
        connection.log_in(user)?;
        Ok(connection)
    }

    fn log_in(&mut self, user: &str) -> io::Result<()> {
        let mut response = Vec::new();
        response.extend(CAPABILITIES.to_le_bytes());
        response.extend((1u32 << 30).to_le_bytes()); // The largest packet we take.
        response.push(CHARSET_UTF8MB4);
        response.extend([0; 23]);
        response.extend(user.as_bytes());
        response.push(0);
        response.push(0); // The proof of an empty password is empty.
        response.extend(b"caching_sha2_password\0");
        self.send(1, &response)?;
        loop {
            match self.packet()?.first() {
                Some(&OK) => return Ok(()),
                Some(&AUTH_SWITCH) => self.send(3, &[])?,
                Some(&AUTH_MORE_DATA) => {}
                _ => return Err(invalid("unexpected packet during log-in")),
            }
        }
    }

    /// Sends a command with its argument; a command starts a new sequence of packets.
    pub fn command(&mut self, command: u8, argument: &[u8]) -> io::Result<()> {
        let mut payload = Vec::with_capacity(1 + argument.len());
        payload.push(command);
        payload.extend(argument);
        self.send(0, &payload)
    }

    fn send(&mut self, sequence: u8, payload: &[u8]) -> io::Result<()> {
        assert!(payload.len() < PACKET_BYTES_MAX, "requests fit one packet");
        let mut packet = (payload.len() as u32).to_le_bytes().to_vec();
        packet[3] = sequence;
        packet.extend(payload);
        self.stream.write_all(&packet)
    }

    /// The next packet; of one over 16 MiB, which comes in parts, the first part. An error packet becomes an error.
    pub fn packet(&mut self) -> io::Result<&[u8]> {
        while self.parts_follow {
            self.parts_follow = self.receive()?.1 == PACKET_BYTES_MAX;
        }
        let (at, length) = self.receive()?;
        self.parts_follow = length == PACKET_BYTES_MAX;
        let payload = &self.buffer[at..at + length];
        if payload.first() == Some(&ERROR) {
            // After the marker: two bytes of error number, then # and five of SQL state.
            let text = String::from_utf8_lossy(payload.get(9..).unwrap_or_default());
            return Err(invalid(&format!("the server says: {text}")));
        }
        Ok(payload)
    }

    /// Makes one packet's payload contiguous in the buffer and steps over it: (where it begins, its length).
    fn receive(&mut self) -> io::Result<(usize, usize)> {
        self.fill(4)?;
        let header = &self.buffer[self.start..self.start + 4];
        let length = u32::from_le_bytes([header[0], header[1], header[2], 0]) as usize;
        self.fill(4 + length)?;
        let at = self.start + 4;
        self.start = at + length;
        Ok((at, length))
    }

    /// Reads until `wanted` bytes are there.
    fn fill(&mut self, wanted: usize) -> io::Result<()> {
        if self.end - self.start >= wanted {
            return Ok(());
        }
        self.buffer.copy_within(self.start..self.end, 0);
        self.end -= self.start;
        self.start = 0;
        if self.buffer.len() < wanted {
            self.buffer.resize(wanted, 0);
        }
        while self.end < wanted {
            let count = self.stream.read(&mut self.buffer[self.end..])?;
            if count == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            self.end += count;
            self.bytes_received += count as u64;
        }
        Ok(())
    }
}

pub fn invalid(message: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, message.to_owned())
}
