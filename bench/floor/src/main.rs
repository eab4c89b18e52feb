//! How fast rows and binlog events can leave a MySQL server at all: they are received here and thrown away. What a real
//! client achieves is set beside these figures (bench/run.py).
//!
//! Prints one line of JSON. Measures no time: the caller does, together with CPU and memory.

mod connection;

use std::io;
use std::process::ExitCode;
use std::thread;

use connection::{Connection, END, invalid};

const USAGE: &str = "\
Usage: floor select ADDRESS CONNECTIONS FIRST LAST SQL
       floor binlog ADDRESS FILE POSITION

select   runs SQL over the binary protocol on each connection, {first} and {last} replaced by its part of FIRST..LAST
binlog   dumps the binlog from FILE and POSITION to its end

The user is root without a password; ADDRESS is host:port.";

const COM_QUERY: u8 = 0x03;
const COM_BINLOG_DUMP: u8 = 0x12;
const COM_STMT_PREPARE: u8 = 0x16;
const COM_STMT_EXECUTE: u8 = 0x17;
const BINLOG_DUMP_NON_BLOCK: u16 = 0x01;
const REPLICA_SERVER_ID: u32 = 0x0F10_0012;
/// WRITE, UPDATE and DELETE rows events, version 2.
const ROWS_EVENTS: std::ops::RangeInclusive<u8> = 30..=32;
/// Each packet of a dump begins with an OK byte, then the event's header: 4 bytes of time, and its type.
const EVENT_TYPE_AT: usize = 5;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let outcome = match arguments.as_slice() {
        ["select", address, connections, first, last, sql] => {
            parse(connections).and_then(|connections| select(address, connections, parse(first)?, parse(last)?, sql))
        }
        ["binlog", address, file, position] => parse(position).and_then(|position| binlog(address, file, position)),
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match outcome {
        Ok(json) => {
            println!("{json}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("floor: {error}");
            ExitCode::FAILURE
        }
    }
}

fn parse(argument: &str) -> io::Result<u64> {
    argument.parse().map_err(|_| invalid(&format!("not a number: {argument}")))
}

fn select(address: &str, connections: u64, first: u64, last: u64, sql: &str) -> io::Result<String> {
    let threads: Vec<_> = (0..connections)
        .map(|ordinal| {
            let bound = |part: u64| first + (last + 1 - first) * part / connections;
            let sql = sql
                .replace("{first}", &bound(ordinal).to_string())
                .replace("{last}", &(bound(ordinal + 1) - 1).to_string());
            let address = address.to_owned();
            thread::spawn(move || select_part(&address, &sql))
        })
        .collect();
    let (mut rows, mut bytes) = (0, 0);
    for thread in threads {
        let (part_rows, part_bytes) = thread.join().expect("a connection's thread panicked")?;
        rows += part_rows;
        bytes += part_bytes;
    }
    Ok(format!("{{\"rows\":{rows},\"bytes\":{bytes}}}"))
}

/// Rows and bytes received.
fn select_part(address: &str, sql: &str) -> io::Result<(u64, u64)> {
    let mut connection = Connection::open(address, "root")?;
    connection.command(COM_STMT_PREPARE, sql.as_bytes())?;
    let prepared = connection.packet()?;
    let statement: [u8; 4] = prepared[1..5].try_into().expect("four bytes");
    let columns = u16::from_le_bytes([prepared[5], prepared[6]]);
    for _ in 0..columns {
        connection.packet()?;
    }

    let mut execute = statement.to_vec();
    execute.push(0); // No cursor.
    execute.extend(1u32.to_le_bytes()); // Iterations, always 1.
    connection.command(COM_STMT_EXECUTE, &execute)?;
    connection.packet()?; // The number of columns, then their definitions.
    for _ in 0..columns {
        connection.packet()?;
    }
    let mut rows = 0;
    while connection.packet()?.first() != Some(&END) {
        rows += 1;
    }
    Ok((rows, connection.bytes_received))
}

fn binlog(address: &str, file: &str, position: u64) -> io::Result<String> {
    let position = u32::try_from(position).map_err(|_| invalid("positions of a dump have 32 bits"))?;
    let mut connection = Connection::open(address, "root")?;
    // Without it, the server would leave out the checksums and rewrite each event.
    connection.command(COM_QUERY, b"SET @source_binlog_checksum = 'CRC32'")?;
    connection.packet()?;

    let mut dump = position.to_le_bytes().to_vec();
    dump.extend(BINLOG_DUMP_NON_BLOCK.to_le_bytes());
    dump.extend(REPLICA_SERVER_ID.to_le_bytes());
    dump.extend(file.as_bytes());
    connection.command(COM_BINLOG_DUMP, &dump)?;
    let (mut events, mut rows_events) = (0u64, 0u64);
    loop {
        let packet = connection.packet()?;
        // The end of the last file, since the dump does not block.
        if packet.first() == Some(&END) && packet.len() < 9 {
            break;
        }
        events += 1;
        rows_events += u64::from(packet.get(EVENT_TYPE_AT).is_some_and(|kind| ROWS_EVENTS.contains(kind)));
    }
    let bytes = connection.bytes_received;
    Ok(format!("{{\"events\":{events},\"rows_events\":{rows_events},\"bytes\":{bytes}}}"))
}
