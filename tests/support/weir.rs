//! A `weir` with a warehouse, a state folder and a configuration of its own, driven as users drive it.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

use super::clickhouse::Clickhouse;
use super::kafka::{Kafka, source_name};
use super::s3::S3;

/// One configuration and its folders.
pub struct Weir {
    folder: tempfile::TempDir,
    /// The source's.
    pub name: String,
    warehouse: Place,
}

/// Where the tables lie.
struct Place {
    /// The configuration's section.
    section: String,
    /// The folder of their files; none on a server of the user's own.
    files: Option<PathBuf>,
    /// Independent readers, and where each of them reads.
    readings: Vec<Reading>,
}

/// A way for an independent reader to the tables.
pub struct Reading {
    pub reader: &'static str,
    /// A folder, or an `s3://` url.
    pub warehouse: String,
    pub environment: Vec<(String, String)>,
}

/// Both readers, on files.
fn of_files(files: &Path) -> Vec<Reading> {
    let warehouse = files.display().to_string();
    ["duckdb", "deltalake"]
        .map(|reader| Reading { reader, warehouse: warehouse.clone(), environment: Vec::new() })
        .into()
}

impl Weir {
    /// Mirrors `tables` of the server at `url`; `extra` is appended to the configuration.
    pub fn new(url: &str, tables: &[&str], extra: &str) -> Weir {
        let weir = Weir::named("test");
        weir.configure(url, tables, extra);
        weir
    }

    /// Mirrors through Kafka, with counts in ClickHouse, under a source name that begins with `test`; `transport` holds more
    /// keys of that section.
    pub fn over_kafka(
        test: &str,
        url: &str,
        tables: &[&str],
        (kafka, clickhouse): (&Kafka, &Clickhouse),
        transport: &str,
    ) -> Weir {
        let weir = Weir::named(&source_name(test));
        weir.configure(url, tables, &kafka.sections(clickhouse, &weir.name, transport));
        weir
    }

    /// Mirrors into a bucket of `s3`, below a prefix that begins with `test`; weir asks `endpoint`, which is the server or
    /// what stands before it.
    pub fn into_s3(test: &str, url: &str, tables: &[&str], (s3, endpoint): (&S3, &str), extra: &str) -> Weir {
        Weir::into_s3_as(&source_name(test), url, tables, (s3, endpoint), extra)
    }

    /// The same, for a source of this name, below a prefix of that name.
    pub fn into_s3_as(name: &str, url: &str, tables: &[&str], (s3, endpoint): (&S3, &str), extra: &str) -> Weir {
        let mut weir = Weir::named(name);
        let section = s3.section_at(endpoint, &weir.name);
        let files = s3.files(&weir.name);
        let over_s3 = Reading { reader: "deltalake", warehouse: s3.url(&weir.name), environment: s3.environment() };
        let readings = files.as_deref().map(of_files).into_iter().flatten().chain([over_s3]).collect();
        weir.warehouse = Place { section, files, readings };
        weir.configure(url, tables, extra);
        weir
    }

    /// Not configured yet.
    fn named(name: &str) -> Weir {
        let folder = tempfile::Builder::new()
            .prefix("weir-test-")
            .disable_cleanup(std::env::var_os("WEIR_TEST_KEEP").is_some())
            .tempdir()
            .expect("a temporary folder");
        let files = folder.path().join("warehouse");
        let section = format!("[warehouse]\nurl = \"file://{}\"\n", files.display());
        let readings = of_files(&files);
        Weir { folder, name: name.to_owned(), warehouse: Place { section, files: Some(files), readings } }
    }

    /// Writes the configuration anew.
    pub fn configure(&self, url: &str, tables: &[&str], extra: &str) {
        let text = format!(
            "[source]\nname = \"{}\"\nurl = \"{url}\"\ntables = {tables:?}\n\n\
             {}\n\
             [apply]\ncommit_interval_ms = 200\nstate_dir = \"{}\"\n\n\
             [http]\nlisten = \"127.0.0.1:0\"\n\n{extra}\n",
            self.name,
            self.warehouse.section,
            self.folder.path().join("state").display(),
        );
        std::fs::write(self.config(), text).expect("the configuration can be written");
    }

    /// Changes a part of the configuration's text.
    pub fn replace_in_config(&self, from: &str, to: &str) {
        let text = std::fs::read_to_string(self.config()).expect("the configuration is there");
        assert!(text.contains(from), "{from} is not in the configuration:\n{text}");
        std::fs::write(self.config(), text.replace(from, to)).expect("the configuration can be written");
    }

    /// Adds sections to the configuration.
    pub fn append_to_config(&self, sections: &str) {
        let text = std::fs::read_to_string(self.config()).expect("the configuration is there");
        std::fs::write(self.config(), format!("{text}\n{sections}")).expect("the configuration can be written");
    }

    pub fn config(&self) -> PathBuf {
        self.folder.path().join("weir.toml")
    }

    /// The folder that the tables' files lie in.
    pub fn warehouse(&self) -> PathBuf {
        self.warehouse.files.clone().expect("tables whose files can be had")
    }

    /// How independent readers reach the tables.
    pub fn readings(&self) -> &[Reading] {
        &self.warehouse.readings
    }

    pub fn trace(&self) -> PathBuf {
        self.folder.path().join("state/trace.sqlite")
    }

    /// A command with this configuration.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_weir"));
        // A developer's own must not reach the program: keys of a test's server are in its configuration.
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("AWS_")) {
            command.env_remove(name);
        }
        command.arg("--config").arg(self.config()).args(arguments);
        command
    }

    /// Runs a command to its end.
    pub fn output(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().expect("weir starts")
    }

    /// Runs a command and fails the test unless it exits with `code`; gives what it printed.
    pub fn expect(&self, code: i32, arguments: &[&str]) -> Printed {
        let output = self.output(arguments);
        let printed = Printed {
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        };
        assert_eq!(
            output.status.code(),
            Some(code),
            "weir {arguments:?}\nstdout: {}\nstderr: {}",
            printed.stdout,
            printed.stderr
        );
        printed
    }

    /// `weir run --until-caught-up`, which must succeed.
    pub fn catch_up(&self) {
        self.expect(0, &["run", "--until-caught-up"]);
    }

    /// The report of `weir reconcile`, which must find everything balanced.
    pub fn balanced(&self) -> serde_json::Value {
        let report = self.expect(0, &["reconcile", "--format", "json"]).json();
        assert_eq!(report["verdict"], "balanced", "{report:#}");
        report
    }

    /// Whether `weir read` gives so many rows of a table.
    pub fn has_rows(&self, table: &str, rows: usize) -> bool {
        let read = self.output(&["read", "--table", table, "--format", "jsonl"]);
        read.status.success() && String::from_utf8_lossy(&read.stdout).lines().count() == rows
    }

    /// Starts `weir run` in the background; its log goes to `run.log`.
    pub fn run(&self) -> Running {
        self.start(&["run"], "run.log")
    }

    /// Starts `weir run` and waits until commands see that it runs: one that comes before does its work itself, and the service
    /// would lose against it.
    pub fn run_until_it_is_seen(&self) -> Running {
        let status = || {
            let output = self.output(&["status", "--format", "json"]).stdout;
            serde_json::from_slice::<serde_json::Value>(&output).unwrap_or_default()
        };
        let before = status()["epoch"].as_u64();
        let running = self.run();
        eventually("the service is seen", Duration::from_secs(60), || {
            let status = status();
            status["running"] == true && status["epoch"].as_u64() > before
        });
        running
    }

    /// Starts `weir capture` in the background; its log goes to `capture.log`.
    pub fn capture(&self) -> Running {
        self.start(&["capture"], "capture.log")
    }

    /// Starts one of several `weir apply` in the background; its log goes to `apply-<ordinal>.log`.
    pub fn apply(&self, ordinal: u32) -> Running {
        self.start(&["apply"], &format!("apply-{ordinal}.log"))
    }

    /// How many bytes commands have logged to the file `log` so far.
    pub fn said(&self, log: &str) -> usize {
        read(&self.folder.path().join(log)).len()
    }

    /// Starts a command in the background; what it logs is appended to the file `log`.
    pub fn start(&self, arguments: &[&str], log: &str) -> Running {
        self.start_at(arguments, log, "")
    }

    /// The same, with what it is to do at its failpoints: `name=actions`, as `src/failpoint.rs` says.
    pub fn start_at(&self, arguments: &[&str], log: &str, failpoints: &str) -> Running {
        let log = self.folder.path().join(log);
        let file = std::fs::OpenOptions::new().create(true).append(true).open(&log).expect("a log file");
        let mut command = self.command(arguments);
        if !failpoints.is_empty() {
            command.env("FAILPOINTS", failpoints);
        }
        let child = command.stdout(Stdio::null()).stderr(Stdio::from(file)).spawn().expect("weir starts");
        Running { child, log }
    }
}

/// A count of the hops over all tables of a report.
pub fn hops(report: &serde_json::Value, name: &str) -> u64 {
    let tables = report["tables"].as_array().expect("a report has tables");
    tables.iter().map(|table| table["hops"][name].as_u64().expect("a count")).sum()
}

/// What a command printed.
pub struct Printed {
    pub stdout: String,
    pub stderr: String,
}

impl Printed {
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("not JSON ({error}): {}", self.stdout))
    }
}

/// A service in the background; killed when dropped.
pub struct Running {
    child: Child,
    log: PathBuf,
}

impl Running {
    /// SIGKILL.
    pub fn kill(mut self) {
        self.child.kill().expect("the service is running");
        self.child.wait().expect("the service has ended");
    }

    /// SIGTERM; gives the exit code and how long it took.
    pub fn terminate(mut self) -> (Option<i32>, Duration) {
        let asked = Instant::now();
        self.signal("TERM");
        (self.child.wait().expect("the service ends").code(), asked.elapsed())
    }

    /// Sends a signal, by its name.
    pub fn signal(&self, name: &str) {
        let process = self.child.id().to_string();
        let status = Command::new("kill").args([&format!("-{name}"), &process]).status().expect("kill runs");
        assert!(status.success(), "no signal {name} for {process}");
    }

    /// Waits until it ends by itself, for `limit` at most.
    pub fn wait_within(&mut self, limit: Duration) -> Option<ExitStatus> {
        let end = Instant::now() + limit;
        loop {
            let status = self.child.try_wait().expect("its state can be asked");
            if status.is_some() || Instant::now() >= end {
                return status;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// SIGHUP.
    pub fn hang_up(&self) {
        self.signal("HUP");
    }

    /// Waits until it ends by itself.
    pub fn wait(&mut self) -> Option<i32> {
        self.child.wait().expect("the service ends").code()
    }

    pub fn log(&self) -> String {
        read(&self.log)
    }

    /// The largest that the process has been in memory so far, in MiB (`VmHWM`).
    pub fn peak_mib(&self) -> u64 {
        let status =
            std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("the process is there");
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("it tells its peak");
        let kib = line.split_whitespace().next().and_then(|figure| figure.parse::<u64>().ok());
        kib.expect("a figure in kB") / 1024
    }

    /// Where its log lies.
    pub fn log_file(&self) -> PathBuf {
        self.log.clone()
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("its state can be asked").is_none()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.is_running() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

/// Waits until `holds`, and fails after `limit`.
pub fn eventually(what: &str, limit: Duration, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + limit;
    while !holds() {
        assert!(Instant::now() < end, "not within {limit:?}: {what}");
        std::thread::sleep(Duration::from_millis(100));
    }
}
