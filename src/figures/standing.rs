//! Where the service stands, as its supervisor and its workers told it last.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{LazyLock, Mutex, MutexGuard};
use std::time::Instant;

use weir_model::{GtidSet, TableId, clock};

use crate::limits::ERRORS_NOTED_MAX;
use crate::state::{ConfigRefused, ConfigStanding, Phase};

/// What the service is doing as a whole.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Life {
    /// An incarnation is being begun: the source is looked at, tables are opened.
    #[default]
    Beginning,
    /// The stages run, and are supervised.
    Running,
    /// It waits for something to come back; says for what.
    Waiting(String),
    /// It was asked to end, or has to.
    Ending,
}

/// A table as its supervisor knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableStands {
    pub phase: Phase,
    pub error: Option<String>,
    /// The table holds these transactions.
    pub position: GtidSet,
    /// When the newest of them committed, ms since the epoch; 0 if that is not known.
    pub position_ms: i64,
    pub load: Option<LoadStands>,
}

/// A load under way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoadStands {
    /// It is of a part of the table, which goes on streaming.
    pub part: bool,
    pub chunks: u64,
    pub chunks_done: u64,
    /// By the engine's statistics.
    pub rows_estimated: u64,
    /// At the mean rate since it was planned; none before the first chunk is in.
    pub seconds_left: Option<u64>,
}

/// A table as the worker that writes it in this process left it with its last commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TableNow {
    pub version: i64,
    pub rows: u64,
    pub files: u64,
    pub bytes: u64,
    /// Of its key index; 0 if it has none.
    pub index_bytes: u64,
    /// The key index lives in a file, since memory did not suffice.
    pub index_on_disk: bool,
}

/// An error that people may have to do something about.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Noted {
    /// Ms since the epoch.
    pub at_ms: i64,
    /// None if it concerns more than one table.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub table: Option<TableId>,
    pub what: String,
    pub way_out: String,
}

type HeldBytes = Box<dyn Fn() -> usize + Send>;

/// The standing of this process's service.
#[derive(Default)]
pub struct Standing {
    now: Mutex<Now>,
}

#[derive(Default)]
struct Now {
    life: Life,
    epoch: u64,
    /// The last turn of the supervisor; none before the first, and in a process without one.
    turned: Option<Instant>,
    /// Why the source cannot be read at the moment.
    source_lost: Option<String>,
    /// Publishes that some table has not committed.
    publishes_outstanding: usize,
    tables: BTreeMap<TableId, TableStands>,
    written: BTreeMap<TableId, TableNow>,
    errors: VecDeque<Noted>,
    /// When something last went wrong with a table, ms since the epoch.
    table_errors: BTreeMap<TableId, i64>,
    held: Option<(HeldBytes, usize)>,
    config: ConfigStanding,
}

/// That of this process.
pub fn standing() -> &'static Standing {
    static STANDING: LazyLock<Standing> = LazyLock::new(Standing::default);
    &STANDING
}

impl Standing {
    /// An incarnation is being begun.
    pub fn begins(&self) {
        let mut now = self.now();
        now.life = Life::Beginning;
        now.turned = None;
        now.source_lost = None;
    }

    /// The process applies what others capture; nothing in it knows of phases and positions.
    pub fn applies(&self) {
        self.now().life = Life::Running;
    }

    /// Waits for something that is away, such as the warehouse.
    pub fn waits(&self, why: &str) {
        let mut now = self.now();
        now.life = Life::Waiting(why.to_owned());
        now.turned = None;
    }

    pub fn ends(&self) {
        let mut now = self.now();
        now.life = Life::Ending;
        now.turned = None;
    }

    /// The supervisor has turned: it is at work.
    pub fn turns(&self) {
        let mut now = self.now();
        now.life = Life::Running;
        now.turned = Some(Instant::now());
    }

    /// Where every table stands, and how many publishes some table has not committed.
    pub fn tell(&self, epoch: u64, publishes_outstanding: usize, tables: BTreeMap<TableId, TableStands>) {
        let mut now = self.now();
        now.epoch = epoch;
        now.publishes_outstanding = publishes_outstanding;
        now.tables = tables;
    }

    pub fn source_connected(&self) {
        self.now().source_lost = None;
    }

    /// The source is lost; it is connected to again by itself.
    pub fn source_lost(&self, why: &str) {
        let is_news = self.now().source_lost.replace(why.to_owned()).is_none();
        if is_news {
            let way_out = "nothing is lost: capture connects again by itself, and goes on from where it was";
            self.note(None, format!("the source is lost: {why}"), way_out.into());
        }
    }

    /// What a worker has made of its table.
    pub fn wrote(&self, table: &TableId, figures: TableNow) {
        let mut now = self.now();
        match now.written.get_mut(table) {
            Some(known) => *known = figures,
            None => {
                now.written.insert(table.clone(), figures);
            }
        }
    }

    /// Memory for changes under way: how much of `max` bytes is held is asked of `held`.
    pub fn watch_memory(&self, held: HeldBytes, max: usize) {
        self.now().held = Some((held, max));
    }

    /// Keeps an error for people to see.
    pub fn note(&self, table: Option<&TableId>, what: String, way_out: String) {
        let at_ms = clock::now_ms();
        let mut now = self.now();
        if let Some(table) = table {
            now.table_errors.insert(table.clone(), at_ms);
        }
        // Said again and again it is still one error.
        if let Some(last) = now.errors.back_mut().filter(|last| last.what == what && last.table.as_ref() == table) {
            last.at_ms = at_ms;
            return;
        }
        if now.errors.len() >= ERRORS_NOTED_MAX {
            now.errors.pop_front();
        }
        now.errors.push_back(Noted { at_ms, table: table.cloned(), what, way_out });
    }

    /// The service runs by a configuration that `changed` these settings of the one before; none if it is the first, or taken
    /// up again.
    pub fn runs_by(&self, changed: Vec<String>) {
        let mut now = self.now();
        now.config.since_ms = clock::now_ms();
        if !changed.is_empty() {
            now.config.reloads += 1;
            now.config.refused = None;
        }
        now.config.changed = changed;
    }

    /// What the configuration file holds is what the service runs by.
    pub fn config_is_taken(&self) {
        self.now().config.refused = None;
    }

    /// What the configuration file holds is not taken; says whether that is news.
    pub fn config_is_refused(&self, why: &str) -> bool {
        let refused = ConfigRefused { at_ms: clock::now_ms(), why: why.to_owned() };
        let before = self.now().config.refused.replace(refused);
        let is_news = before.is_none_or(|before| before.why != why);
        if is_news {
            let way_out = "the service goes on by the configuration before it; mend the file, and it is read again";
            self.note(None, format!("the configuration file is not taken: {why}"), way_out.into());
        }
        is_news
    }

    /// What the service runs by.
    pub fn config(&self) -> ConfigStanding {
        self.now().config.clone()
    }

    pub fn life(&self) -> Life {
        self.now().life.clone()
    }

    /// When the supervisor turned last.
    pub fn turned(&self) -> Option<Instant> {
        self.now().turned
    }

    pub fn epoch(&self) -> u64 {
        self.now().epoch
    }

    /// Why the source cannot be read at the moment.
    pub fn why_source_is_lost(&self) -> Option<String> {
        self.now().source_lost.clone()
    }

    pub fn publishes_outstanding(&self) -> usize {
        self.now().publishes_outstanding
    }

    pub fn tables(&self) -> BTreeMap<TableId, TableStands> {
        self.now().tables.clone()
    }

    /// Tables that this process writes.
    pub fn written(&self) -> BTreeMap<TableId, TableNow> {
        self.now().written.clone()
    }

    /// The newest first.
    pub fn errors(&self) -> Vec<Noted> {
        self.now().errors.iter().rev().cloned().collect()
    }

    /// When something last went wrong with each table, ms since the epoch.
    pub fn table_errors(&self) -> BTreeMap<TableId, i64> {
        self.now().table_errors.clone()
    }

    /// Bytes of changes under way, and how many there may be.
    pub fn memory(&self) -> Option<(usize, usize)> {
        self.now().held.as_ref().map(|(held, max)| (held(), *max))
    }

    fn now(&self) -> MutexGuard<'_, Now> {
        self.now.lock().expect("no code panics while holding it")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_that_is_said_again_stands_once_and_old_ones_go() {
        let standing = Standing::default();
        let table = TableId::new("shop", "orders");
        for _ in 0..3 {
            standing.note(Some(&table), "no key".into(), "give it one".into());
        }
        assert_eq!(standing.errors().len(), 1);
        assert!(standing.table_errors().contains_key(&table));
        for n in 0..ERRORS_NOTED_MAX {
            standing.note(None, format!("{n}"), "wait".into());
        }
        let errors = standing.errors();
        assert_eq!((errors.len(), errors[0].what.as_str()), (ERRORS_NOTED_MAX, &*(ERRORS_NOTED_MAX - 1).to_string()));
        assert!(errors.iter().all(|error| error.table.is_none()));
    }

    #[test]
    fn a_configuration_is_refused_until_another_is_taken() {
        let standing = Standing::default();
        standing.runs_by(Vec::new());
        assert!(standing.config_is_refused("line 3"));
        assert!(!standing.config_is_refused("line 3"));
        assert!(standing.config_is_refused("line 4"));
        assert_eq!(standing.errors().len(), 2);
        standing.runs_by(vec!["apply.memory_max".into()]);
        let config = standing.config();
        assert_eq!((config.reloads, config.changed.len(), config.refused), (1, 1, None));
    }

    #[test]
    fn a_source_that_stays_lost_is_noted_once() {
        let standing = Standing::default();
        standing.source_lost("refused");
        standing.source_lost("refused again");
        assert_eq!((standing.errors().len(), standing.why_source_is_lost().as_deref()), (1, Some("refused again")));
        standing.source_connected();
        assert_eq!(standing.why_source_is_lost(), None);
    }
}
