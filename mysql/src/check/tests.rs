//! Every rule of the preflight, on facts made by hand.

use weir_model::{Column, ColumnType, TableSchema};

use super::*;

fn facts() -> ServerFacts {
    ServerFacts {
        version_text: "9.7.4".into(),
        version: Version::new(9, 7, 4),
        flavour: Flavour::Mysql,
        server_uuid: "3e11fa47-71ca-11e1-9e33-c80aa9429562".into(),
        server_id: 1,
        log_bin: true,
        binlog_format: "ROW".into(),
        binlog_row_image: "FULL".into(),
        binlog_row_metadata: "FULL".into(),
        binlog_row_value_options: String::new(),
        binlog_checksum: "CRC32".into(),
        gtid_mode: "ON".into(),
        gtid_strict_mode: false,
        enforce_gtid_consistency: "ON".into(),
        sync_binlog: 1,
        innodb_flush_log_at_trx_commit: 1,
        binlog_expire_s: 2_592_000,
        read_only: false,
        lower_case_table_names: 0,
        max_allowed_packet: 1 << 26,
        time_zone: "SYSTEM".into(),
        now_ms: 1_000,
    }
}

fn orders() -> TableDescription {
    TableDescription::plain(TableSchema {
        table: TableId::new("shop", "orders"),
        columns: vec![Column { name: "id".into(), ty: ColumnType::Int32, nullable: false }],
        key: vec![0],
        layout: weir_model::Layout::default(),
    })
}

fn input(facts: ServerFacts, table: TableDescription) -> CheckInput {
    CheckInput {
        facts,
        tables: vec![CheckedTable::Described(Box::new(table))],
        unmatched_patterns: Vec::new(),
        grants: Grants {
            account: "'weir'@'%'".into(),
            replication_slave: true,
            replication_client: true,
            xa_recover: true,
            select_denied: Vec::new(),
            lock_denied: Vec::new(),
        },
        xa_prepared: Some(0),
        here_ms: 1_000,
        append_tables: Vec::new(),
    }
}

/// The one check that is not Ok.
fn only_trouble(input: &CheckInput) -> Check {
    let mut trouble: Vec<Check> = checks(input).into_iter().filter(|c| c.status != CheckStatus::Ok).collect();
    assert_eq!(trouble.len(), 1, "{trouble:?}");
    trouble.remove(0)
}

#[test]
fn a_well_kept_server_passes_every_check() {
    assert!(checks(&input(facts(), orders())).iter().all(|c| c.status == CheckStatus::Ok && c.mend.is_none()));
}

#[test]
fn each_setting_is_named_with_the_statement_that_mends_it() {
    let trouble = |change: fn(&mut ServerFacts)| {
        let mut facts = facts();
        change(&mut facts);
        let check = only_trouble(&input(facts, orders()));
        (check.name, check.status, check.mend.unwrap_or_default())
    };
    let set = |statement: &str| format!("SET PERSIST {statement}");
    for (found, name, status, mend) in [
        (trouble(|f| f.binlog_format = "MIXED".into()), "binlog_format", CheckStatus::Fail, set("binlog_format = ROW")),
        (
            trouble(|f| f.binlog_row_image = "MINIMAL".into()),
            "binlog_row_image",
            CheckStatus::Warn,
            set("binlog_row_image = FULL"),
        ),
        (
            trouble(|f| f.binlog_row_metadata = "MINIMAL".into()),
            "binlog_row_metadata",
            CheckStatus::Warn,
            set("binlog_row_metadata = FULL"),
        ),
        (
            trouble(|f| f.binlog_row_value_options = "PARTIAL_JSON".into()),
            "binlog_row_value_options",
            CheckStatus::Warn,
            set("binlog_row_value_options = ''"),
        ),
        (trouble(|f| f.sync_binlog = 0), "sync_binlog", CheckStatus::Warn, set("sync_binlog = 1")),
        (
            trouble(|f| f.gtid_mode = "ON_PERMISSIVE".into()),
            "gtid_mode",
            CheckStatus::Fail,
            format!("{}; or {}; {}", set("gtid_mode = ON"), set("gtid_mode = OFF_PERMISSIVE"), set("gtid_mode = OFF")),
        ),
        (
            trouble(|f| f.binlog_expire_s = 3600),
            "binlog_expire_logs_seconds",
            CheckStatus::Warn,
            set("binlog_expire_logs_seconds = 604800"),
        ),
    ] {
        assert_eq!(found, (name.to_owned(), status, mend));
    }
}

#[test]
fn a_source_without_gtids_is_followed_and_warned_about() {
    let mut off = facts();
    off.gtid_mode = "OFF".into();
    off.enforce_gtid_consistency = "OFF".into();
    let mut input = input(off, orders());
    let check = only_trouble(&input);
    assert_eq!((check.name.as_str(), check.status), ("gtid_mode", CheckStatus::Warn));
    assert!(check.detail.contains("followed by binlog file and position") && check.detail.contains("failover"));
    // GTIDs are switched on step by step.
    let mend = check.mend.unwrap();
    let steps: Vec<&str> = mend.split("; ").collect();
    assert_eq!(steps.len(), 4);
    assert!(steps[0].contains("enforce_gtid_consistency") && steps[3].ends_with("gtid_mode = ON"));
    // Its tables have to be locked for a moment.
    let lock = |input: &CheckInput| checks(input).into_iter().find(|check| check.name == "grant_lock_tables").unwrap();
    assert_eq!(lock(&input).status, CheckStatus::Ok);
    input.grants.lock_denied = vec![TableId::new("shop", "orders")];
    assert_eq!(lock(&input).status, CheckStatus::Fail);
    assert_eq!(lock(&input).mend.unwrap(), "GRANT LOCK TABLES ON `shop`.* TO 'weir'@'%'");
}

/// MariaDB as Debian installs it, but for a binlog of rows.
fn mariadb() -> ServerFacts {
    let mut facts = facts();
    facts.version_text = "10.11.6-MariaDB".into();
    (facts.flavour, facts.version) = (Flavour::Mariadb, Version::new(10, 11, 6));
    (facts.gtid_mode, facts.enforce_gtid_consistency, facts.gtid_strict_mode) = (String::new(), String::new(), true);
    facts
}

#[test]
fn settings_that_a_server_does_not_have_are_not_asked_for() {
    assert!(checks(&input(mariadb(), orders())).iter().all(|c| c.status == CheckStatus::Ok));
    let mut old = facts();
    (old.version, old.binlog_row_metadata) = (Version::new(5, 7, 22), String::new());
    let check = only_trouble(&input(old, orders()));
    assert_eq!((check.name.as_str(), check.status), ("binlog_row_metadata", CheckStatus::Warn));
    assert!(!check.mend.unwrap().starts_with("SET"));
}

#[test]
fn mariadb_is_told_what_it_lacks_in_its_own_words() {
    let mut lax = mariadb();
    lax.gtid_strict_mode = false;
    let check = only_trouble(&input(lax, orders()));
    assert_eq!((check.name.as_str(), check.status), ("gtid_strict_mode", CheckStatus::Warn));
    assert_eq!(check.mend.unwrap(), "SET GLOBAL gtid_strict_mode = ON");
    let mut partial = mariadb();
    partial.binlog_row_image = "MINIMAL".into();
    assert_eq!(only_trouble(&input(partial, orders())).status, CheckStatus::Fail);
    let mut brief = mariadb();
    brief.binlog_expire_s = 3600;
    assert_eq!(only_trouble(&input(brief, orders())).mend.unwrap(), "SET GLOBAL binlog_expire_logs_seconds = 604800");
}

#[test]
fn servers_that_are_too_old_fail() {
    for (flavour, version) in [(Flavour::Mysql, Version::new(5, 6, 51)), (Flavour::Mariadb, Version::new(10, 4, 34))] {
        let mut old = mariadb();
        (old.flavour, old.version) = (flavour, version);
        (old.gtid_mode, old.binlog_row_metadata) = ("ON".into(), "FULL".into());
        let found = checks(&input(old, orders()));
        let version = found.iter().find(|check| check.name == "version").unwrap();
        assert_eq!(version.status, CheckStatus::Fail, "{version:?}");
    }
}

#[test]
fn without_a_binlog_the_settings_below_it_are_not_asked() {
    let mut dry = facts();
    dry.log_bin = false;
    dry.binlog_format = String::new();
    assert_eq!(only_trouble(&input(dry, orders())).name, "log_bin");
}

#[test]
fn a_table_without_a_key_fails_unless_it_is_appended_to() {
    let mut keyless = orders();
    keyless.key_source = KeySource::None;
    keyless.schema.key.clear();
    let mut input = input(facts(), keyless);
    let check = only_trouble(&input);
    assert_eq!((check.name.as_str(), check.status), ("key", CheckStatus::Fail));
    let mend = check.mend.unwrap();
    assert!(mend.contains("ADD PRIMARY KEY") && mend.contains("append") && mend.contains("\"!shop.orders\""), "{mend}");
    input.append_tables.push(TableId::new("shop", "orders"));
    input.grants.lock_denied.push(TableId::new("shop", "orders"));
    let denied = only_trouble(&input);
    assert_eq!((denied.name.as_str(), denied.status), ("grant_lock_tables", CheckStatus::Fail));
    assert!(denied.mend.unwrap().starts_with("GRANT LOCK TABLES ON `shop`.* TO 'weir'@'%'"));
    input.grants.lock_denied.clear();
    assert!(checks(&input).iter().all(|c| c.status == CheckStatus::Ok));
}

#[test]
fn cascades_warn_only_where_the_binlog_lacks_them() {
    let mut child = orders();
    child.has_cascades = true;
    assert!(checks(&input(facts(), child.clone())).iter().all(|c| c.status == CheckStatus::Ok));
    let mut old = facts();
    old.version = Version::new(8, 4, 2);
    assert_eq!(only_trouble(&input(old, child)).name, "cascades");
}

#[test]
fn what_the_table_itself_gets_wrong_names_the_table() {
    let mut odd = orders();
    odd.engine = "MyISAM".into();
    let check = only_trouble(&input(facts(), odd));
    assert_eq!((check.name.as_str(), check.table), ("engine", Some(TableId::new("shop", "orders"))));
    let mut taken = orders();
    taken.schema.columns[0].name = "_weir_seq".into();
    assert_eq!(only_trouble(&input(facts(), taken)).name, "column_name");
    let mut unusable = input(facts(), orders());
    unusable.tables = vec![CheckedTable::Unusable { table: TableId::new("shop", "x"), why: "type inet6".into() }];
    assert_eq!(only_trouble(&unusable).status, CheckStatus::Fail);
}

#[test]
fn a_missing_grant_comes_with_its_statement() {
    let mut input = input(facts(), orders());
    input.grants.replication_slave = false;
    assert_eq!(only_trouble(&input).mend.unwrap(), "GRANT REPLICATION SLAVE ON *.* TO 'weir'@'%'");
    input.grants.replication_slave = true;
    input.grants.select_denied.push(TableId::new("shop", "orders"));
    assert_eq!(only_trouble(&input).mend.unwrap(), "GRANT SELECT ON `shop`.`orders` TO 'weir'@'%'");
}

#[test]
fn clocks_far_apart_are_told_and_a_source_hours_ahead_fails() {
    let mut input = input(facts(), orders());
    input.facts.now_ms = input.here_ms - 60_000;
    assert_eq!(only_trouble(&input).status, CheckStatus::Warn);
    input.facts.now_ms = input.here_ms + CLOCK_AHEAD_MAX_MS + 1;
    assert_eq!(only_trouble(&input).status, CheckStatus::Fail);
}
