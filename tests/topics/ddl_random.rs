//! Sequences of DDL and DML by chance, beside a service that is killed now and then: its tables end equal and balanced, and none
//! has to be loaded by hand.
//!
//! Each sequence has two tables of its own, and follows from a seed. `WEIR_DDL_SEQUENCES` says how many there are, and
//! `WEIR_DDL_SEED` which is the first.

use std::fmt::Write;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::support::lake::compare;
use crate::support::mysql::Mysql;
use crate::support::random::Random;
use crate::support::weir::Weir;

/// Sequences of one service.
const TOGETHER: u64 = 12;
/// Sequences that run side by side.
const AT_ONCE: usize = 3;
const STEPS: u64 = 14;
const DATABASE: &str = "ddl_random";

/// A column beside the key. Names tell the kind, so that one name is of one kind for good.
#[derive(Clone)]
struct Column {
    name: String,
    kind: Kind,
    wide: bool,
    generated: bool,
}

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Int,
    Float,
    Decimal,
    Text,
    Enum,
    Set,
    Time,
}

const KINDS: [(Kind, &str); 7] = [
    (Kind::Int, "i"),
    (Kind::Float, "f"),
    (Kind::Decimal, "d"),
    (Kind::Text, "v"),
    (Kind::Enum, "e"),
    (Kind::Set, "s"),
    (Kind::Time, "z"),
];

impl Column {
    fn ty(&self) -> &'static str {
        match (self.kind, self.wide) {
            (Kind::Int, false) => "INT",
            (Kind::Int, true) => "BIGINT",
            (Kind::Float, false) => "FLOAT",
            (Kind::Float, true) => "DOUBLE",
            (Kind::Decimal, false) => "DECIMAL(10,2)",
            (Kind::Decimal, true) => "DECIMAL(14,4)",
            (Kind::Text, false) => "VARCHAR(20)",
            (Kind::Text, true) => "VARCHAR(90)",
            (Kind::Enum, false) => "ENUM('red','green','blue')",
            (Kind::Enum, true) => "ENUM('blue','black','green','red')",
            (Kind::Set, false) => "SET('red','green','blue')",
            (Kind::Set, true) => "SET('black','blue','red','green')",
            (Kind::Time, false) => "DATETIME(3)",
            (Kind::Time, true) => "DATETIME(6)",
        }
    }

    fn value(&self, random: &mut Random) -> String {
        let n = random.below(1_000);
        match self.kind {
            Kind::Int if self.wide => format!("{}", 9_000_000_000 + n),
            Kind::Int => n.to_string(),
            Kind::Float | Kind::Decimal => format!("{n}.25"),
            Kind::Text => format!("'é{n}'"),
            Kind::Enum | Kind::Set => format!("'{}'", ["red", "green", "blue"][n as usize % 3]),
            Kind::Time => format!("'2026-11-{:02} 10:00:00.123'", 1 + n % 28),
        }
    }
}

#[derive(Clone)]
struct Shape {
    columns: Vec<Column>,
    partitioned: bool,
    wide_key: bool,
}

struct Sequence<'a> {
    mysql: &'a Mysql,
    random: Random,
    /// Names of its tables.
    names: [String; 2],
    /// What they are, as the server says.
    shapes: [Shape; 2],
    made: u64,
    /// Statements, and those of them that the server refused: not every change is allowed on every table.
    statements: u64,
    refused: u64,
}

impl<'a> Sequence<'a> {
    fn new(mysql: &'a Mysql, seed: u64) -> Self {
        let names = ["a", "b"].map(|name| format!("t{seed}{name}"));
        let shape = Shape { columns: Vec::new(), partitioned: false, wide_key: false };
        Self {
            mysql,
            random: Random::new(seed),
            names,
            shapes: [shape.clone(), shape],
            made: 0,
            statements: 0,
            refused: 0,
        }
    }

    fn run(&mut self, sql: &str) {
        let sql = format!("USE {DATABASE}; SET innodb_lock_wait_timeout = 60; {sql}");
        self.statements += 1;
        if let Some(why) = self.mysql.refusal(&sql) {
            self.refused += 1;
            eprintln!("refused: {why}: {sql}");
        }
    }

    fn create(&mut self) {
        for at in 0..2 {
            let columns = [self.column(), self.column()];
            let names = (&columns[0].name, columns[0].ty(), &columns[1].name, columns[1].ty());
            let (first, first_ty, second, second_ty) = names;
            let second = if first == second { "other" } else { second };
            let (table, mysql) = (&self.names[at], self.mysql);
            mysql.run(&format!(
                "CREATE TABLE {DATABASE}.{table} (id INT PRIMARY KEY, {first} {first_ty}, {second} {second_ty})"
            ));
            self.write(at, 30);
        }
    }

    /// Asks the server what a table is.
    fn look(&mut self, at: usize) {
        let table = &self.names[at];
        let of = format!("table_schema = '{DATABASE}' AND table_name = '{table}'");
        let columns = self.mysql.value(&format!(
            "SELECT /*+ SET_VAR(group_concat_max_len = 100000) */ GROUP_CONCAT(CONCAT(column_name, '|', column_type, '|', extra) SEPARATOR ';')
             FROM information_schema.columns WHERE {of}"
        ));
        let partitions =
            format!("SELECT CAST(COUNT(partition_name) AS CHAR) FROM information_schema.partitions WHERE {of}");
        let mut shape =
            Shape { columns: Vec::new(), partitioned: self.mysql.value(&partitions) != "0", wide_key: false };
        for column in columns.split(';') {
            let [name, ty, extra] = *column.split('|').collect::<Vec<_>>() else { panic!("{column}") };
            let Some((kind, _)) = KINDS.iter().find(|(_, letter)| name.starts_with(letter)) else { continue };
            if name == "id" {
                shape.wide_key = ty == "bigint";
                continue;
            }
            let wide =
                Column { name: name.to_owned(), kind: *kind, wide: true, generated: extra.contains("GENERATED") };
            shape.columns.push(Column { wide: wide.ty().eq_ignore_ascii_case(ty), ..wide });
        }
        self.shapes[at] = shape;
    }

    fn column(&mut self) -> Column {
        let (kind, letter) = KINDS[self.random.below(KINDS.len() as u64) as usize];
        self.made += 1;
        // Few names, so that they are used again.
        let name = format!("{letter}{}", self.random.below(4));
        Column { name, kind, wide: false, generated: false }
    }

    /// Rows that are inserted, changed and deleted.
    fn write(&mut self, at: usize, changes: u64) {
        self.look(at);
        let mut sql = String::from("BEGIN; ");
        for _ in 0..changes {
            let id = self.random.below(90) * 17;
            let settable: Vec<Column> = self.shapes[at].columns.iter().filter(|c| !c.generated).cloned().collect();
            let table = &self.names[at];
            match (self.random.below(6), settable.is_empty()) {
                (0, _) => {
                    let _ = write!(sql, "DELETE FROM {table} WHERE id = {id}; ");
                }
                (1 | 2, false) => {
                    let column = &settable[self.random.below(settable.len() as u64) as usize];
                    let value = column.value(&mut self.random);
                    let _ = write!(
                        sql,
                        "UPDATE {table} SET {} = {value} WHERE id BETWEEN {id} AND {}; ",
                        column.name,
                        id + 60
                    );
                }
                _ => {
                    let names: String = settable.iter().map(|column| format!(", {}", column.name)).collect();
                    let values: String =
                        settable.iter().map(|column| format!(", {}", column.value(&mut self.random))).collect();
                    let _ = write!(sql, "REPLACE INTO {table} (id{names}) VALUES ({id}{values}); ");
                }
            }
        }
        self.run(&(sql + "COMMIT"));
    }

    /// `ALTER TABLE` as applications and tools write it.
    fn alter(&mut self, table: &str, actions: &str) {
        let sql = match self.random.below(6) {
            0 => format!("alter /* a tool's, 'quoted */ table `{DATABASE}`.`{table}` {actions}"),
            1 => format!("USE mysql; ALTER TABLE {DATABASE}.{table} {actions}"),
            2 => format!("SET sql_mode = 'ANSI_QUOTES'; ALTER TABLE \"{table}\" {actions}"),
            3 => format!("ALTER /*!50100 TABLE */ `{table}` /*!80000 {actions} */ -- done"),
            _ => format!("ALTER TABLE {table} {actions}"),
        };
        self.run(&sql);
    }

    fn place(&mut self, at: usize) -> String {
        let columns = &self.shapes[at].columns;
        match self.random.below(3) {
            0 => " FIRST".into(),
            1 if !columns.is_empty() => {
                format!(" AFTER {}", columns[self.random.below(columns.len() as u64) as usize].name)
            }
            _ => String::new(),
        }
    }

    /// A definition for a column that the table has not; the column is its from here on.
    fn added(&mut self, at: usize) -> Option<String> {
        let mut column = self.column();
        if self.shapes[at].columns.iter().any(|other| other.name == column.name) {
            return None;
        }
        let place = self.place(at);
        let (name, ty) = (column.name.clone(), column.ty());
        let attributes = match self.random.below(6) {
            0 => String::new(),
            1 => " NULL DEFAULT NULL".into(),
            2 => format!(" DEFAULT {}", column.value(&mut self.random)),
            3 => format!(" NOT NULL DEFAULT {}", column.value(&mut self.random)),
            4 => format!(" NULL DEFAULT {} INVISIBLE", column.value(&mut self.random)),
            _ if column.kind == Kind::Int => {
                column.generated = true;
                let way = if self.random.below(2) == 0 { "VIRTUAL" } else { "STORED" };
                format!(" GENERATED ALWAYS AS (id % 7) {way}")
            }
            _ => " NOT NULL".into(),
        };
        // What no value is given for would be the zero date.
        let attributes =
            if column.kind == Kind::Time && attributes == " NOT NULL" { " NULL".into() } else { attributes };
        self.shapes[at].columns.push(column);
        Some(format!("ADD COLUMN {name} {ty}{attributes}{place}"))
    }

    fn some_column(&mut self, at: usize) -> Option<usize> {
        let count = self.shapes[at].columns.len() as u64;
        (count > 0).then(|| self.random.below(count) as usize)
    }

    fn step(&mut self) {
        (0..2).for_each(|at| self.look(at));
        let at = self.random.below(2) as usize;
        let table = self.names[at].clone();
        match self.random.below(16) {
            0..=2 => {
                if let Some(mut added) = self.added(at) {
                    if self.random.below(2) == 0
                        && let Some(more) = self.added(at)
                    {
                        added = format!("{added}, {more}");
                    }
                    self.alter(&table, &added);
                }
            }
            3 => {
                if let Some(index) = self.some_column(at)
                    && self.shapes[at].columns.len() > 1
                {
                    let gone = self.shapes[at].columns.remove(index).name;
                    // The same name again, in the same statement or in the next.
                    self.alter(&table, &format!("DROP COLUMN {gone}"));
                }
            }
            4 => self.rename_column(at),
            5 | 6 => self.widen(at),
            7 => {
                let charset = ["latin1", "utf8mb4", "gbk"][self.random.below(3) as usize];
                self.alter(&table, &format!("CONVERT TO CHARACTER SET {charset}"));
            }
            8 => self.run(&format!("TRUNCATE TABLE {table}")),
            9 => {
                let [a, b] = &self.names;
                self.run(&format!("RENAME TABLE {a} TO _{a}_swap, {b} TO {a}, _{a}_swap TO {b}"));
            }
            10 => self.copy_and_cut_over(at, false),
            11 => self.copy_and_cut_over(at, true),
            12 => {
                self.run(&format!("DROP TABLE {table}"));
                let column = self.column();
                self.run(&format!("CREATE TABLE {table} (id INT PRIMARY KEY, {} {})", column.name, column.ty()));
            }
            13 | 14 => self.partitions(at),
            _ => {
                let made = self.made;
                self.alter(&table, &format!("ADD INDEX functional{made} ((id + 1))"));
                self.write(at, 4);
                self.run(&format!("DROP INDEX functional{made} ON {table}"));
                self.made += 1;
            }
        }
    }

    fn rename_column(&mut self, at: usize) {
        let Some(index) = self.some_column(at) else { return };
        let column = self.shapes[at].columns[index].clone();
        let letter = &column.name[..1];
        let name = format!("{letter}{}", 4 + self.random.below(3));
        if self.shapes[at].columns.iter().any(|other| other.name == name) || column.generated {
            return;
        }
        let table = self.names[at].clone();
        if self.random.below(2) == 0 {
            self.alter(&table, &format!("RENAME COLUMN {} TO {name}", column.name));
        } else {
            self.alter(&table, &format!("CHANGE COLUMN {} {name} {}", column.name, column.ty()));
        }
    }

    fn widen(&mut self, at: usize) {
        let table = self.names[at].clone();
        if self.random.below(4) == 0 && !self.shapes[at].wide_key && !self.shapes[at].partitioned {
            if self.shapes[at].columns.iter().any(|column| column.generated) {
                return;
            }
            return self.alter(&table, "MODIFY id BIGINT NOT NULL");
        }
        let Some(index) = self.some_column(at) else { return };
        let column = &self.shapes[at].columns[index];
        if column.generated || column.wide {
            return;
        }
        let column = Column { wide: true, ..column.clone() };
        let (name, ty) = (column.name.clone(), column.ty());
        let place = if self.random.below(3) == 0 { " FIRST" } else { "" };
        self.alter(&table, &format!("MODIFY COLUMN {name} {ty}{place}"));
    }

    /// As gh-ost does it, or with triggers, as pt-online-schema-change does.
    fn copy_and_cut_over(&mut self, at: usize, by_triggers: bool) {
        let table = self.names[at].clone();
        let (new, old) = (format!("_{table}_new"), format!("_{table}_old"));
        self.run(&format!("CREATE TABLE {new} LIKE {table}"));
        let before = self.shapes[at].clone();
        if let Some(added) = self.added(at) {
            self.run(&format!("ALTER TABLE {new} {added}"));
        }
        let shared: Vec<String> =
            before.columns.iter().filter(|column| !column.generated).map(|c| c.name.clone()).collect();
        let names: String = shared.iter().map(|name| format!(", {name}")).collect();
        let news: String = shared.iter().map(|name| format!(", NEW.{name}")).collect();
        if by_triggers {
            self.run(&format!("CREATE TRIGGER {table}_del AFTER DELETE ON {table} FOR EACH ROW DELETE IGNORE FROM {new} WHERE {new}.id <=> OLD.id"));
            self.run(&format!("CREATE TRIGGER {table}_ins AFTER INSERT ON {table} FOR EACH ROW REPLACE INTO {new} (id{names}) VALUES (NEW.id{news})"));
            self.run(&format!("CREATE TRIGGER {table}_upd AFTER UPDATE ON {table} FOR EACH ROW REPLACE INTO {new} (id{names}) VALUES (NEW.id{news})"));
        }
        for from in [0, 500] {
            let to = from + 500;
            self.run(&format!(
                "INSERT LOW_PRIORITY IGNORE INTO {new} (id{names}) SELECT id{names} FROM {table} FORCE INDEX (PRIMARY) WHERE id >= {from} AND id < {to} LOCK IN SHARE MODE"
            ));
            if by_triggers {
                self.write(at, 5);
            }
        }
        self.run(&format!("INSERT IGNORE INTO {new} (id{names}) SELECT id{names} FROM {table} WHERE id >= 1000"));
        self.run(&format!("RENAME TABLE {table} TO {old}, {new} TO {table}"));
        if by_triggers {
            self.run(&format!("DROP TRIGGER IF EXISTS {table}_del; DROP TRIGGER IF EXISTS {table}_upd; DROP TRIGGER IF EXISTS {table}_ins"));
        }
        self.run(&format!("DROP TABLE IF EXISTS {old}"));
    }

    fn partitions(&mut self, at: usize) {
        let table = self.names[at].clone();
        if !self.shapes[at].partitioned {
            return self.alter(
                &table,
                "PARTITION BY RANGE (id) (PARTITION p0 VALUES LESS THAN (400), PARTITION p1 VALUES LESS THAN (800), PARTITION p2 VALUES LESS THAN MAXVALUE)",
            );
        }
        match self.random.below(4) {
            0 => self.alter(&table, "TRUNCATE PARTITION p1"),
            1 => {
                self.run(&format!("ALTER TABLE {table} DROP PARTITION p0"));
                self.run(&format!("ALTER TABLE {table} REORGANIZE PARTITION p1 INTO (PARTITION p0 VALUES LESS THAN (400), PARTITION p1 VALUES LESS THAN (800))"));
            }
            2 => {
                let other = format!("_{table}_exchange");
                // Both as they are without columns that were added in place.
                self.run(&format!("ALTER TABLE {table} FORCE"));
                self.run(&format!("CREATE TABLE {other} LIKE {table}; ALTER TABLE {other} REMOVE PARTITIONING; INSERT INTO {other} (id) VALUES (1), (3)"));
                self.run(&format!("ALTER TABLE {table} EXCHANGE PARTITION p0 WITH TABLE {other}"));
                self.run(&format!("DROP TABLE {other}"));
            }
            _ => {
                self.alter(&table, "REMOVE PARTITIONING");
            }
        }
    }
}

fn number(variable: &str, otherwise: u64) -> u64 {
    std::env::var(variable).ok().and_then(|text| text.parse().ok()).unwrap_or(otherwise)
}

/// Sequences of these seeds, in a service of their own.
fn batch(mysql: &Mysql, first: u64, count: u64) {
    eprintln!("sequences of DDL of the seeds {first} to {}", first + count - 1);
    mysql.run(&format!("DROP DATABASE IF EXISTS {DATABASE}; CREATE DATABASE {DATABASE} CHARACTER SET utf8mb4"));
    let weir = Weir::new(&mysql.url, &[&format!("{DATABASE}.*"), &format!("!{DATABASE}._*")], "");
    let next = AtomicUsize::new(0);
    let mut sequences: Vec<Option<Sequence<'_>>> =
        (first..first + count).map(|seed| Some(Sequence::new(mysql, seed))).collect();
    // Half of them are there when the service begins.
    sequences.iter_mut().flatten().step_by(2).for_each(Sequence::create);
    let sequences: Vec<std::sync::Mutex<Option<Sequence<'_>>>> =
        sequences.into_iter().map(std::sync::Mutex::new).collect();
    let mut kills = Random::new(first);
    std::thread::scope(|scope| {
        let writers: Vec<_> = (0..AT_ONCE)
            .map(|_| {
                scope.spawn(|| {
                    while let Some(sequence) = sequences.get(next.fetch_add(1, Ordering::AcqRel)) {
                        let mut sequence = sequence.lock().unwrap().take().expect("each is run once");
                        if sequence.shapes[0].columns.is_empty() {
                            sequence.create();
                        }
                        for _ in 0..STEPS {
                            sequence.step();
                            for at in 0..2 {
                                let changes = 1 + sequence.random.below(8);
                                sequence.write(at, changes);
                            }
                        }
                        assert!(sequence.refused * 5 < sequence.statements, "most of them are carried out");
                    }
                })
            })
            .collect();
        while !writers.iter().all(std::thread::ScopedJoinHandle::is_finished) {
            let service = weir.run();
            let end = std::time::Instant::now() + Duration::from_millis(2_000 + kills.below(6_000));
            while std::time::Instant::now() < end && !writers.iter().all(std::thread::ScopedJoinHandle::is_finished) {
                std::thread::sleep(Duration::from_millis(50));
            }
            service.kill();
        }
        writers.into_iter().for_each(|writer| writer.join().expect("a sequence runs to its end"));
    });
    weir.catch_up();
    let status = weir.expect(0, &["status", "--format", "json"]).json();
    for table in status["tables"].as_array().expect("tables") {
        assert_ne!(table["phase"], "stopped", "{table:#}");
    }
    // What the source's columns were before stays in the lake: their names, and the wider ones of their types.
    compare(mysql, &weir, DATABASE, &["--extra-columns-allowed", "--wider-types-allowed"]);
    weir.balanced();
}

#[test]
fn random_ddl_and_dml_end_equal_and_balanced_without_a_load_by_hand() {
    let mysql = &Mysql::start(&["--sql-mode=NO_ENGINE_SUBSTITUTION"]);
    let (sequences, seed) = (number("WEIR_DDL_SEQUENCES", TOGETHER), number("WEIR_DDL_SEED", 1));
    let mut first = seed;
    while first < seed + sequences {
        let count = TOGETHER.min(seed + sequences - first);
        batch(mysql, first, count);
        first += count;
    }
}
