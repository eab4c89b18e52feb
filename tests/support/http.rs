//! The service's HTTP face as clients see it: plain requests, and what Prometheus reads.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use super::weir::{Running, eventually};

/// An answer, head and body.
pub struct Answer {
    pub code: u16,
    /// By lower-case name.
    pub headers: BTreeMap<String, String>,
    pub body: String,
}

impl Answer {
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("not JSON ({error}): {}", self.body))
    }
}

/// `host:port` that a service says it serves on, once it does.
pub fn address(service: &Running) -> String {
    let mut found = None;
    eventually("the log says where HTTP is served", Duration::from_secs(60), || {
        let log = service.log();
        let url = log.rsplit_once("url=\"http://").map(|(_, rest)| rest.to_owned());
        found = url.map(|url| url.chars().take_while(|c| c.is_ascii_digit() || ".:".contains(*c)).collect::<String>());
        found.is_some()
    });
    found.expect("just seen")
}

/// GET `path`.
pub fn get(address: &str, path: &str) -> Answer {
    try_get(address, path).unwrap_or_else(|error| panic!("GET {address}{path}: {error}"))
}

pub fn try_get(address: &str, path: &str) -> std::io::Result<Answer> {
    ask(address, &format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n"))
}

/// Sends a request as it stands, and reads until the server closes.
pub fn ask(address: &str, request: &str) -> std::io::Result<Answer> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(30)))?;
    stream.write_all(request.as_bytes())?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    let (head, body) = text.split_once("\r\n\r\n").ok_or(std::io::ErrorKind::UnexpectedEof)?;
    let mut lines = head.lines();
    let code = lines.next().and_then(|line| line.split(' ').nth(1)?.parse().ok()).unwrap_or_default();
    let header = |line: &str| line.split_once(": ").map(|(name, value)| (name.to_lowercase(), value.to_owned()));
    let headers: BTreeMap<String, String> = lines.filter_map(header).collect();
    let body = match headers.get("transfer-encoding") {
        Some(_) => panic!("an answer is whole before it is sent, and says its length"),
        None => body.to_owned(),
    };
    Ok(Answer { code, headers, body })
}

/// What Prometheus reads: every sample by its name and labels, and each family's kind and help.
#[derive(Default)]
pub struct Metrics {
    pub samples: BTreeMap<String, f64>,
    /// By name: kind and help.
    pub families: BTreeMap<String, (String, String)>,
}

impl Metrics {
    pub fn of(address: &str) -> Metrics {
        let answer = get(address, "/metrics");
        assert_eq!(answer.code, 200, "{}", answer.body);
        assert!(answer.headers["content-type"].starts_with("text/plain; version=0.0.4"), "{:?}", answer.headers);
        let mut metrics = Metrics::default();
        for line in answer.body.lines() {
            if let Some(help) = line.strip_prefix("# HELP ") {
                let (name, help) = help.split_once(' ').expect("a help text");
                metrics.families.entry(name.to_owned()).or_default().1 = help.to_owned();
            } else if let Some(kind) = line.strip_prefix("# TYPE ") {
                let (name, kind) = kind.split_once(' ').expect("a kind");
                metrics.families.entry(name.to_owned()).or_default().0 = kind.to_owned();
            } else {
                let (name, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("not a sample: {line}"));
                let value = value.parse().unwrap_or_else(|_| panic!("not a value: {line}"));
                assert!(metrics.samples.insert(name.to_owned(), value).is_none(), "twice: {name}");
            }
        }
        metrics
    }

    /// The value of a sample, written as Prometheus writes it: `name{label="value"}`.
    pub fn value(&self, sample: &str) -> f64 {
        self.samples.get(sample).copied().unwrap_or_else(|| panic!("no {sample} in {:#?}", self.samples.keys()))
    }

    pub fn find(&self, sample: &str) -> Option<f64> {
        self.samples.get(sample).copied()
    }

    /// What of a table passed a hop, over all operations.
    pub fn passed(&self, table: &str, hop: &str) -> u64 {
        let of = format!("weir_table_rows_total{{hop=\"{hop}\",");
        let of_table = format!("table=\"{table}\"");
        let samples = self.samples.iter().filter(|(name, _)| name.starts_with(&of) && name.contains(&of_table));
        samples.map(|(_, value)| *value as u64).sum()
    }
}
