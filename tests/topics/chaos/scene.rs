//! One warehouse that goes on through many kills: a server, random writers, and a check whether everything is there, once.

use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::Child;
use std::time::Duration;

use serde_json::Value;

use super::points::Way;
use super::results::{Verdict, note};
use crate::support::clickhouse::Clickhouse;
use crate::support::kafka::Kafka;
use crate::support::lake::{Workload, differences};
use crate::support::mysql::Mysql;
use crate::support::random::Random;
use crate::support::weir::{Running, Weir, eventually};

/// Few, so that a start is quick; one is appended to.
const TABLES: &str = "t_int,t_auto,t_varchar,t_unsigned";
const APPENDED: &str = "t_unsigned";
/// Changes a second; a round lasts as long as its faults take.
const RATE: u32 = 400;
/// More than a round lasts.
const CHANGES_MAX: u32 = 10_000_000;
/// Of points that need not be come to.
const SOON: Duration = Duration::from_secs(4);
/// What a start may take to come to everything that the source has, however slow the machine.
const CAUGHT_UP_WITHIN: Duration = Duration::from_secs(300);
const LOG: &str = "chaos.log";

/// What is done to a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kill {
    /// At the point, the first time.
    At(&'static str),
    /// At the point, if it is soon come to once more than so often.
    Behind(&'static str, u64),
    /// So long after its start.
    After(Duration),
}

/// Writers at work.
pub struct Writers {
    child: Child,
    stop: PathBuf,
}

impl Writers {
    /// They end what they are at; false if they failed, as they do when their server is gone.
    pub fn stop(mut self) -> bool {
        std::fs::write(&self.stop, "").expect("a temporary folder");
        self.child.wait().expect("the writers end").success()
    }
}

/// A server, a service's folders, and what has been done so far.
pub struct Scene {
    pub mysql: Mysql,
    pub weir: Weir,
    database: &'static str,
    transport: &'static str,
    pub random: Random,
    seed: u64,
    rounds: u32,
    /// Points come to, in this process.
    pub reached: Vec<&'static str>,
}

impl Scene {
    pub fn direct(database: &'static str, seed: u64) -> Self {
        let mysql = start();
        let appended = format!("[[table]]\nname = \"{database}.{APPENDED}\"\nmode = \"append\"\n");
        let weir = Weir::new(&mysql.url, &[&format!("{database}.*")], &appended);
        Self::begin(mysql, weir, database, "direct", seed)
    }

    pub fn over_kafka(database: &'static str, seed: u64, kafka: &Kafka, clickhouse: &Clickhouse) -> Self {
        let mysql = start();
        let weir =
            Weir::over_kafka(database, &mysql.url, &[&format!("{database}.*")], (kafka, clickhouse), "partitions = 2");
        weir.append_to_config(&format!("[[table]]\nname = \"{database}.{APPENDED}\"\nmode = \"append\"\n"));
        Self::begin(mysql, weir, database, "kafka", seed)
    }

    fn begin(mysql: Mysql, weir: Weir, database: &'static str, transport: &'static str, seed: u64) -> Self {
        eprintln!("chaos over {transport}, seed {seed}");
        let scene =
            Self { mysql, weir, database, transport, random: Random::new(seed), seed, rounds: 0, reached: Vec::new() };
        scene.workload().create_tables(2_000, TABLES);
        scene.mysql.run(&format!("CREATE TABLE {database}.x (id INT PRIMARY KEY AUTO_INCREMENT, v INT)"));
        scene
    }

    fn workload(&self) -> Workload<'_> {
        Workload { mysql: &self.mysql, database: self.database, seed: self.seed }.at(self.rounds)
    }

    /// A table of the scene, as `weir` names it.
    pub fn table(&self) -> String {
        format!("{}.t_int", self.database)
    }

    /// Random changes in the background, until they are stopped.
    pub fn write(&mut self) -> Writers {
        self.rounds += 1;
        let rate = RATE.to_string();
        let stop = self.weir.config().with_file_name(format!("stop-{}", self.rounds));
        let until = stop.to_str().expect("temporary folders have plain names");
        let child = self.workload().live(CHANGES_MAX, &["--tables", TABLES, "--rate", &rate, "--until-file", until]);
        Writers { child, stop }
    }

    /// Kills one service after another while the writers are at work, lets the last one come to the end, and compares.
    ///
    /// # Panics
    /// If anything is lost, doubled or stuck.
    pub fn round(&mut self, kills: &[Kill]) {
        let writers = self.write();
        let mut faults = Vec::new();
        for kill in kills {
            faults.extend(self.kill(*kill));
        }
        assert!(writers.stop(), "the writers failed");
        let verdict = self.settle();
        for (place, fault) in faults.iter().enumerate() {
            // What a round has lost cannot be told to be of one of its faults.
            let of_it = if place + 1 == faults.len() { verdict } else { Verdict::default() };
            note(fault, "the next start went on", of_it);
        }
        let kept = self.weir.config();
        assert_eq!(verdict, Verdict::default(), "seed {}, round {}, {kept:?}:\n{faults:#?}", self.seed, self.rounds);
    }

    /// The fault that came of it; none if the program ended before.
    fn kill(&mut self, kill: Kill) -> Option<String> {
        let transport = self.transport;
        let (point, passed, within) = match kill {
            Kill::At(point) => (point, 0, CAUGHT_UP_WITHIN),
            Kill::Behind(point, passed) => (point, passed, SOON),
            Kill::After(time) => {
                let service = self.weir.start(&["run"], LOG);
                std::thread::sleep(time);
                self.end_at_random(service);
                return Some(format!("SIGKILL, {transport}, at any moment"));
            }
        };
        let way = Way::to(point);
        self.prepare(way);
        let table = self.table();
        let actions = if passed == 0 { "return".to_owned() } else { format!("{passed}*off->return") };
        let said_before = self.weir.said(LOG);
        // A job that was killed stands in the way of others that load the same keys.
        let from = 100 * self.random.below(10_000);
        let (from, to) = (from.to_string(), (from + 50).to_string());
        let mut service =
            self.weir.start_at(&way.command(&table, (from.as_str(), to.as_str())), LOG, &format!("{point}={actions}"));
        let ended = service.wait_within(within);
        match ended {
            Some(status) if status.signal() == Some(9) => {
                self.reached.push(point);
                Some(format!("SIGKILL, {transport}, at {point}"))
            }
            Some(status) => {
                // A command that has done its work without coming there, or that a job which was killed stands in the way of.
                let log = service.log();
                let is_refused = log[said_before..].contains("is refused: job");
                assert!(way != Way::Stream && (status.success() || is_refused), "{status} at {point}:\n{log}");
                None
            }
            None => {
                self.end_at_random(service);
                Some(format!("SIGKILL, {transport}, at any moment"))
            }
        }
    }

    fn end_at_random(&self, mut service: Running) {
        assert!(service.is_running(), "it ended by itself:\n{}", service.log());
        service.kill();
    }

    /// What the source and the state must be like for the way to lead there.
    fn prepare(&mut self, way: Way) {
        self.end_branch();
        match way {
            Way::Prepare => self.prepare_branch(),
            Way::EndPrepared => {
                self.prepare_branch();
                let service = self.weir.start(&["run"], LOG);
                let executed = self.mysql.value("SELECT @@GLOBAL.gtid_executed");
                eventually("the position has passed the branch", CAUGHT_UP_WITHIN, || {
                    let status = self.weir.expect(0, &["status", "--format", "json"]).json();
                    let position = status["position"].as_str().unwrap_or_default();
                    let passed = format!("SELECT CAST(GTID_SUBSET('{executed}', '{position}') AS CHAR)");
                    self.mysql.value(&passed) == "1"
                });
                service.kill();
                self.end_branch();
            }
            Way::Schedule => {
                let table = self.table();
                let listed = self.weir.expect(0, &["schedule", "list", "--format", "json"]).json();
                if listed.as_array().is_some_and(Vec::is_empty) {
                    self.weir.expect(0, &["schedule", "add", "--table", &table, "--cron", "* * * * *", "--to", "5"]);
                }
                self.turn_back_schedules();
            }
            Way::Stream | Way::Load | Way::Part | Way::Compact | Way::Clean => {}
        }
    }

    fn prepare_branch(&self) {
        let table = format!("{}.x", self.database);
        self.mysql.run(&format!(
            "XA START 'held'; INSERT INTO {table} (v) VALUES (1), (2); XA END 'held'; XA PREPARE 'held'"
        ));
    }

    /// Of the branch that is prepared, if it is.
    fn end_branch(&self) {
        let _ = self.mysql.refusal("XA COMMIT 'held'");
    }

    fn state_folder(&self, name: &str) -> PathBuf {
        self.weir.warehouse().join("_weir").join(&self.weir.name).join(name)
    }

    /// Lets a minute have passed since the schedules were looked at, without waiting for it.
    fn turn_back_schedules(&self) {
        let folder = self.state_folder("schedules");
        let Ok(entries) = std::fs::read_dir(folder) else { return };
        for path in entries.map(|entry| entry.expect("an entry").path()) {
            let text = std::fs::read_to_string(&path).expect("a state object");
            let mut state: Value = serde_json::from_str(&text).expect("a state object");
            for name in ["looked_ms", "added_ms"] {
                if let Some(ms) = state[name].as_i64() {
                    state[name] = (ms - 60_000).into();
                }
            }
            std::fs::write(&path, state.to_string()).expect("a state object");
        }
    }

    /// Notes what came of a fault that `service` outlived, and fails the test unless all is well.
    pub fn outlived(&self, mut service: Running, fault: &str, outcome: &str) {
        assert!(service.is_running(), "{}", service.log());
        assert_eq!(service.terminate().0, Some(0));
        let verdict = self.settle();
        note(fault, outcome, verdict);
        assert_eq!(verdict, Verdict::default());
    }

    /// Lets a service come to everything that the source has, with nobody writing, and looks at what it has made of it.
    pub fn settle(&self) -> Verdict {
        self.end_branch();
        let mut service = self.weir.start(&["run", "--until-caught-up"], LOG);
        match service.wait_within(CAUGHT_UP_WITHIN).map(|status| status.code()) {
            Some(Some(0)) => self.check(),
            ended => {
                eprintln!("not caught up, {ended:?}:\n{}", service.log());
                Verdict { stuck: 1, ..Verdict::default() }
            }
        }
    }

    /// The service comes to what is written now.
    pub fn goes_on(&self) {
        let table = format!("{}.x", self.database);
        self.mysql.run(&format!("INSERT INTO {table} (v) VALUES (3)"));
        let rows = self.mysql.value(&format!("SELECT COUNT(*) FROM {table}")).parse().expect("a number");
        eventually("the stream goes on", CAUGHT_UP_WITHIN, || self.weir.has_rows(&table, rows));
    }

    /// What `weir reconcile` says, once the servers that it asks answer: a broker that has just come back may not at once.
    fn report(&self) -> Value {
        let mut report = Value::Null;
        eventually("a report is given", CAUGHT_UP_WITHIN, || {
            let output = self.weir.output(&["reconcile", "--format", "json"]);
            report = serde_json::from_slice(&output.stdout).unwrap_or_default();
            !report.is_null()
        });
        report
    }

    /// Compares the tables, value for value, and the accounts.
    pub fn check(&self) -> Verdict {
        let mut verdict = Verdict::default();
        for reading in self.weir.readings().iter().take(1) {
            let Err(found) = differences(&self.mysql, self.database, reading, &[]) else { continue };
            eprintln!("{found:#}");
            for table in found["tables"].as_array().expect("a list of tables") {
                for (kind, count) in table["differences"].as_object().expect("counts") {
                    let is_doubled = kind.contains("doubled") || kind.contains("extra");
                    let of = if is_doubled { &mut verdict.doubled } else { &mut verdict.lost };
                    *of += count.as_u64().expect("a count");
                }
            }
        }
        let report = self.report();
        if report["verdict"] != "balanced" {
            eprintln!("{report:#}");
            verdict.lost += 1;
        }
        for table in report["tables"].as_array().into_iter().flatten() {
            verdict.doubled += table["hops"]["duplicate"].as_u64().unwrap_or(0);
        }
        verdict
    }
}

fn start() -> Mysql {
    // Branches that are prepared lock what they have changed, and not what lies between.
    Mysql::start(&["--transaction-isolation=READ-COMMITTED"])
}
