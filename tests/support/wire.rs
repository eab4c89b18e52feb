//! A TCP relay before a server, whose connections a test cuts, or freezes as a network does that drops everything.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// How long a copying thread goes without looking whether it is frozen.
const LOOKED_AT_EVERY: Duration = Duration::from_millis(20);

/// A relay on loopback; its threads end with the process.
pub struct Wire {
    pub port: u16,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    is_frozen: AtomicBool,
    streams: Mutex<Vec<TcpStream>>,
}

impl Wire {
    /// Before the server at `127.0.0.1:port`.
    pub fn before(server: u16) -> Wire {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("an address").port();
        let shared = Arc::new(Shared::default());
        let inside = shared.clone();
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                // The server may be away: then the client is, too.
                let Ok(server) = TcpStream::connect(("127.0.0.1", server)) else { continue };
                for (from, to) in [(&client, &server), (&server, &client)] {
                    let (from, to) = (from.try_clone().expect("a handle"), to.try_clone().expect("a handle"));
                    let shared = inside.clone();
                    std::thread::spawn(move || copy(from, to, &shared));
                }
                inside.streams.lock().expect("no panic while it is held").extend([client, server]);
            }
        });
        Wire { port, shared }
    }

    /// Ends every connection.
    pub fn cut(&self) {
        for stream in self.shared.streams.lock().expect("no panic while it is held").drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    /// From now on nothing gets through, and nobody is told: connections stay open, and are taken.
    pub fn freeze(&self) {
        self.shared.is_frozen.store(true, Ordering::Release);
    }

    /// What was held back goes on, as if it had been late.
    pub fn thaw(&self) {
        self.shared.is_frozen.store(false, Ordering::Release);
    }
}

fn copy(mut from: TcpStream, mut to: TcpStream, shared: &Shared) {
    from.set_read_timeout(Some(LOOKED_AT_EVERY)).expect("a time above zero");
    let mut buffer = vec![0; 64 << 10];
    loop {
        while shared.is_frozen.load(Ordering::Acquire) {
            std::thread::sleep(LOOKED_AT_EVERY);
        }
        match from.read(&mut buffer) {
            Ok(0) => break,
            Ok(bytes) => {
                while shared.is_frozen.load(Ordering::Acquire) {
                    std::thread::sleep(LOOKED_AT_EVERY);
                }
                if to.write_all(&buffer[..bytes]).is_err() {
                    break;
                }
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(_) => break,
        }
    }
    let _ = from.shutdown(Shutdown::Both);
    let _ = to.shutdown(Shutdown::Both);
}
