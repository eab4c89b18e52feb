//! Ways to a store on which requests go wrong: a relay before a real server, and a server that knows no conditions.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

/// What a relay does with a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Relayed {
    /// Passes it on, and its answer back.
    Through,
    /// Passes it on; the answer is dropped with the connection.
    AnswerDropped,
    /// Drops the connection, and passes nothing on.
    Dropped,
    /// Answers that the server is busy.
    Busy,
    /// Takes it and says nothing for so long that any client gives up.
    Hung,
}

/// A request's method and path.
pub type Chooser = dyn Fn(&str, &str) -> Relayed + Send + Sync;

/// A server of a test's own on loopback; its threads end with the process.
pub struct Way {
    /// `http://127.0.0.1:port`.
    pub endpoint: String,
    faults: Arc<AtomicU64>,
}

impl Way {
    /// A relay before the server at `endpoint`, an `http://host:port`. Requests are signed for whom the client asks, the
    /// relay; the server takes the name that it is given.
    pub fn before(endpoint: &str, choose: Box<Chooser>) -> Way {
        let server = endpoint.strip_prefix("http://").expect("a server without TLS").to_owned();
        let (faults, choose) = (Arc::new(AtomicU64::new(0)), Arc::<Chooser>::from(choose));
        let counted = faults.clone();
        let endpoint = serve(move |client| relay(client, &server, &*choose, &counted));
        Way { endpoint, faults }
    }

    /// A store that takes every put, whatever the request's conditions are, and checks no signature.
    pub fn to_a_store_without_conditions() -> Way {
        let objects = Arc::new(Mutex::new(BTreeMap::<String, Vec<u8>>::new()));
        let endpoint = serve(move |client| answer_without_conditions(client, &objects));
        Way { endpoint, faults: Arc::default() }
    }

    /// Requests that did not go through as they should.
    pub fn faults(&self) -> u64 {
        self.faults.load(Ordering::Relaxed)
    }
}

fn serve(handle: impl Fn(TcpStream) -> std::io::Result<()> + Send + Sync + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let endpoint = format!("http://{}", listener.local_addr().expect("an address"));
    let handle = Arc::new(handle);
    std::thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let handle = handle.clone();
            // A client that goes away in the middle is nothing to complain about.
            std::thread::spawn(move || drop(handle(client)));
        }
    });
    endpoint
}

/// The head of a request, its lines with their ends, and its body.
struct Request {
    head: Vec<String>,
    body: Vec<u8>,
}

impl Request {
    /// One request; none when the client has said goodbye.
    fn read(client: &mut impl BufRead) -> std::io::Result<Option<Request>> {
        let mut head = Vec::new();
        loop {
            let mut line = String::new();
            if client.read_line(&mut line)? == 0 {
                return Ok(None);
            }
            if line.trim_end().is_empty() {
                break;
            }
            head.push(line);
        }
        let length = head.iter().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse().ok())?
        });
        let mut body = vec![0; length.unwrap_or(0)];
        client.read_exact(&mut body)?;
        Ok(Some(Request { head, body }))
    }

    fn method_and_path(&self) -> (&str, &str) {
        let mut words = self.head.first().map_or("", String::as_str).split_whitespace();
        (words.next().unwrap_or_default(), words.next().unwrap_or_default())
    }
}

/// A connection carries one request, so that its end shows where the answer ends.
fn relay(client: TcpStream, server: &str, choose: &Chooser, faults: &AtomicU64) -> std::io::Result<()> {
    let mut client = BufReader::new(client);
    let Some(request) = Request::read(&mut client)? else { return Ok(()) };
    let (method, path) = request.method_and_path();
    let relayed = choose(method, path);
    if relayed != Relayed::Through {
        faults.fetch_add(1, Ordering::Relaxed);
    }
    match relayed {
        Relayed::Dropped => return Ok(()),
        Relayed::Busy => {
            let answer = "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
            return client.get_mut().write_all(answer.as_bytes());
        }
        Relayed::Hung => {
            std::thread::sleep(std::time::Duration::from_secs(600));
            return Ok(());
        }
        Relayed::Through | Relayed::AnswerDropped => {}
    }
    let mut upstream = TcpStream::connect(server)?;
    let kept = |line: &&String| !line.to_ascii_lowercase().starts_with("connection:");
    let head: String = request.head.iter().filter(kept).cloned().collect();
    upstream.write_all(format!("{head}Connection: close\r\n\r\n").as_bytes())?;
    upstream.write_all(&request.body)?;
    let mut answer = Vec::new();
    upstream.read_to_end(&mut answer)?;
    if relayed == Relayed::Through {
        client.get_mut().write_all(&answer)?;
    }
    Ok(())
}

fn answer_without_conditions(client: TcpStream, objects: &Mutex<BTreeMap<String, Vec<u8>>>) -> std::io::Result<()> {
    let mut client = BufReader::new(client);
    while let Some(request) = Request::read(&mut client)? {
        let (method, path) = request.method_and_path();
        let mut objects = objects.lock().expect("no code panics while holding it");
        let (status, body) = match method {
            "PUT" => {
                objects.insert(path.to_owned(), request.body.clone());
                ("200 OK", Vec::new())
            }
            "GET" | "HEAD" => match objects.get(path) {
                Some(body) => ("200 OK", body.clone()),
                None => ("404 Not Found", Vec::new()),
            },
            _ => ("200 OK", b"<DeleteResult></DeleteResult>".to_vec()),
        };
        let head = format!(
            "HTTP/1.1 {status}\r\nContent-Length: {}\r\nETag: \"x\"\r\nLast-Modified: Sat, 28 Nov 2026 00:00:00 GMT\r\n\r\n",
            body.len()
        );
        client.get_mut().write_all(head.as_bytes())?;
        if method != "HEAD" {
            client.get_mut().write_all(&body)?;
        }
    }
    Ok(())
}
