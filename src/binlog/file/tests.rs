//! Recorded binlogs of a real server (fixtures/README.md), whole and damaged.

use std::fs;

use weir_model::position::{GtidOrigin, GtidServer};
use weir_model::{Gtid, TableId};

use super::super::ddl::{StatementKind, classify};
use super::super::{EventBody, RowsKind, TransactionHead};
use super::*;

pub(super) fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/binlog").join(format!("{name}.000001"))
}

async fn read(paths: Vec<PathBuf>) -> (Vec<SourceEvent>, Option<SourceError>) {
    let mut source = match FileSource::open(paths) {
        Ok(source) => source,
        Err(error) => return (Vec::new(), Some(error)),
    };
    let mut events = Vec::new();
    loop {
        match source.next().await {
            Ok(Some(event)) => events.push(event),
            Ok(None) => return (events, None),
            Err(error) => return (events, Some(error)),
        }
    }
}

async fn read_fixture(name: &str) -> Vec<SourceEvent> {
    let (events, error) = read(vec![fixture(name)]).await;
    assert!(error.is_none(), "{name}: {}", error.unwrap());
    events
}

/// Everything an event says that stays the same whenever the same statements run.
fn describe(event: &SourceEvent) -> Option<String> {
    match &event.body {
        EventBody::Begin(_) => Some("begin".into()),
        EventBody::Rows(rows) => Some(format!(
            "{:?} {}.{} {:x?} {:x?} {:x?}",
            rows.kind, rows.map.database, rows.map.table, rows.present, rows.present_after, rows.rows
        )),
        EventBody::Statement { database, sql } => Some(format!("{database}: {sql}")),
        EventBody::Commit => Some("commit".into()),
        EventBody::XaStart => Some("xa start".into()),
        EventBody::XaPrepared { xid } => Some(format!("prepare {xid}")),
        EventBody::XaSettled { xid, commits } => {
            Some(format!("{} {xid}", if *commits { "commit" } else { "roll back" }))
        }
        EventBody::Position => None,
    }
}

fn heads(events: &[SourceEvent]) -> Vec<&TransactionHead> {
    let head = |event: &SourceEvent| matches!(event.body, EventBody::Begin(_));
    let events = events.iter().filter(|event| head(event));
    events.map(|event| if let EventBody::Begin(head) = &event.body { head } else { unreachable!() }).collect()
}

fn count(events: &[SourceEvent], kind: RowsKind, table: &str) -> usize {
    let of = |event: &&SourceEvent| matches!(&event.body, EventBody::Rows(rows) if rows.kind == kind && rows.map.table == table);
    events.iter().filter(of).count()
}

#[tokio::test]
async fn every_transaction_begins_once_and_ends_once() {
    for name in ["basic", "compressed", "ddl", "no_checksum"] {
        let events = read_fixture(name).await;
        let mut open = false;
        for event in &events {
            match event.body {
                EventBody::Begin(_) => assert!(!std::mem::replace(&mut open, true), "{name}"),
                EventBody::Commit | EventBody::XaPrepared { .. } => {
                    assert!(std::mem::replace(&mut open, false), "{name}")
                }
                EventBody::Position => assert!(!open, "{name}"),
                EventBody::Rows(_) | EventBody::Statement { .. } | EventBody::XaStart | EventBody::XaSettled { .. } => {
                    assert!(open, "{name}")
                }
            }
        }
        assert!(!open, "{name}");
        let gnos: Vec<u64> =
            heads(&events).iter().filter(|head| server(&head.gtid).tag.is_empty()).map(|head| head.gtid.gno).collect();
        assert!(gnos.windows(2).all(|pair| pair[1] == pair[0] + 1), "{name}: {gnos:?}");
    }
}

#[tokio::test]
async fn row_events_of_every_kind_are_found() {
    let events = read_fixture("basic").await;
    assert_eq!(count(&events, RowsKind::Insert, "kinds"), 2);
    assert_eq!(count(&events, RowsKind::Update, "kinds"), 2);
    assert_eq!(count(&events, RowsKind::Delete, "kinds"), 1);
    assert_eq!(count(&events, RowsKind::Delete, "keyless"), 1);
    assert!(count(&events, RowsKind::Insert, "customers") > 3, "a large statement is several events");
    for event in &events {
        if let EventBody::Rows(rows) = &event.body {
            assert!(!rows.rows.is_empty());
            assert_eq!(rows.present_after.is_empty(), rows.kind != RowsKind::Update);
        }
    }
    // The transaction over three tables.
    let tables: Vec<Vec<&str>> = events
        .split(|event| matches!(event.body, EventBody::Commit))
        .map(|group| {
            let rows = |event: &SourceEvent| matches!(event.body, EventBody::Rows(_));
            let events = group.iter().filter(|event| rows(event));
            events.map(|e| if let EventBody::Rows(r) = &e.body { &*r.map.table } else { unreachable!() }).collect()
        })
        .collect();
    assert!(tables.contains(&vec!["customers", "documents", "kinds"]), "{tables:?}");
}

#[tokio::test]
async fn compressed_and_plain_transactions_say_the_same() {
    let plain = read_fixture("basic").await;
    let compressed = read_fixture("compressed").await;
    let plain: Vec<String> = plain.iter().filter_map(describe).collect();
    let packed: Vec<String> = compressed.iter().filter_map(describe).collect();
    assert_eq!(plain, packed);
}

#[tokio::test]
async fn positions_inside_a_compressed_transaction_are_behind_it() {
    let events = read_fixture("compressed").await;
    let begun: Vec<usize> = (0..events.len()).filter(|&i| matches!(events[i].body, EventBody::Begin(_))).collect();
    let mut inside = 0;
    for start in begun {
        let group: Vec<&SourceEvent> =
            events[start + 1..].iter().take_while(|event| !matches!(event.body, EventBody::Begin(_))).collect();
        if matches!(group[0].body, EventBody::Rows(_)) {
            let commit = group.iter().find(|event| matches!(event.body, EventBody::Commit)).unwrap();
            let rows = group.iter().filter(|event| matches!(event.body, EventBody::Rows(_)));
            inside += rows.inspect(|event| assert_eq!(event.end, commit.end)).count();
        }
    }
    assert!(inside > 10);
}

#[tokio::test]
async fn one_table_keeps_one_description_while_it_does_not_change() {
    let events = read_fixture("basic").await;
    let maps: Vec<_> = events
        .iter()
        .filter_map(|event| match &event.body {
            EventBody::Rows(rows) if rows.map.table == "customers" => Some(&rows.map),
            _ => None,
        })
        .collect();
    assert!(maps.len() > 5);
    assert!(maps.windows(2).all(|pair| Arc::ptr_eq(pair[0], pair[1])));
}

#[tokio::test]
async fn statements_are_handed_out_inside_their_own_transaction() {
    let events = read_fixture("ddl").await;
    let mut kinds = Vec::new();
    for event in &events {
        if let EventBody::Statement { database, sql } = &event.body {
            let kind = classify(database, sql);
            assert_ne!(kind, StatementKind::Unreadable, "{sql}");
            kinds.push(kind);
        }
    }
    let renamed = |from: &str, to: &str| (TableId::new("shop", from), TableId::new("shop", to));
    assert!(kinds.contains(&StatementKind::RenameTable {
        pairs: vec![renamed("copied", "copied_old"), renamed("selected", "copied")]
    }));
    assert!(kinds.contains(&StatementKind::TruncateTable { table: TableId::new("shop", "archive") }));
    assert!(kinds.contains(&StatementKind::DropDatabase { database: "other".into() }));
    let alters: Vec<_> = kinds
        .iter()
        .filter_map(|kind| if let StatementKind::AlterTable(alter) = kind { Some(alter) } else { None })
        .collect();
    assert!(alters.iter().any(|alter| alter.adds_default && alter.table.table.as_ref() == "orders"));
    assert!(alters.iter().any(|alter| alter.moves_rows && alter.table.table.as_ref() == "parts"));
    assert!(alters.iter().any(|alter| alter.renamed_to == Some(TableId::new("shop", "archive"))));
}

#[tokio::test]
async fn create_select_is_one_transaction_with_its_rows() {
    let events = read_fixture("ddl").await;
    let groups = events.split(|event| matches!(event.body, EventBody::Commit));
    let described: Vec<Vec<String>> = groups.map(|group| group.iter().filter_map(describe).collect()).collect();
    let group = described.iter().find(|group| group.iter().any(|text| text.contains("START TRANSACTION"))).unwrap();
    assert_eq!(group.len(), 3);
    assert!(group[1].contains("CREATE TABLE `selected`") && group[2].starts_with("Insert shop.selected"));
}

fn server(gtid: &Gtid) -> &GtidServer {
    match &gtid.origin {
        GtidOrigin::Server(server) => server,
        GtidOrigin::Domain { .. } | GtidOrigin::Log(_) => panic!("{gtid} is none of MySQL"),
    }
}

#[tokio::test]
async fn heads_carry_tags_and_the_times_of_both_servers() {
    let events = read_fixture("ddl").await;
    let heads = heads(&events);
    let tagged = heads.iter().find(|head| !server(&head.gtid).tag.is_empty()).unwrap();
    assert_eq!((server(&tagged.gtid).tag.as_ref(), tagged.gtid.gno), ("batch_1", 1));
    assert_eq!(server(&tagged.gtid).uuid, server(&heads[0].gtid).uuid);
    let foreign = heads.iter().find(|head| head.original_commit_us == 1_600_000_000_123_456).unwrap();
    assert!(foreign.immediate_commit_us > 1_700_000_000_000_000);
    for head in &heads {
        assert!(head.checksum.is_some());
        assert!(head.immediate_commit_us > 1_700_000_000_000_000, "{}", head.gtid);
        assert!(head.original_commit_us == head.immediate_commit_us || head.gtid == foreign.gtid, "{}", head.gtid);
    }
}

#[tokio::test]
async fn a_file_without_checksums_is_read_and_says_so() {
    let events = read_fixture("no_checksum").await;
    assert_eq!(count(&events, RowsKind::Update, "t"), 1);
    assert!(heads(&events).iter().all(|head| head.checksum.is_none()));
}

#[tokio::test]
async fn a_file_knows_what_was_executed_before_it() {
    let events = read_fixture("basic").await;
    let first: &Gtid = &heads(&events)[0].gtid;
    let before = previous_gtids(&fixture("basic")).await.unwrap();
    assert_eq!(before.count(), Some(first.gno - 1));
    assert!(!before.contains(first));
    let tagged_before = previous_gtids(&fixture("xa")).await.unwrap();
    assert!(tagged_before.contains(&Gtid::new(&server(first).uuid, "batch_1", 1)));
}

#[tokio::test]
async fn a_prepared_branch_and_its_outcome_are_transactions_of_their_own() {
    let told: Vec<String> = read_fixture("xa").await.iter().filter_map(describe).collect();
    let xid = "X'74776f2d7068617365',X'',1";
    let [.., a, b, rows, prepared, c, settled, commit] = &told[..] else { panic!("{told:?}") };
    assert_eq!([a, b, c, commit], ["begin", "xa start", "begin", "commit"], "{told:?}");
    assert!(rows.contains("shop.t"), "{rows}");
    assert_eq!([prepared, settled], [&format!("prepare {xid}"), &format!("commit {xid}")]);
}

#[tokio::test]
async fn what_cannot_be_mirrored_stops_with_place_and_way_out() {
    for (name, event, words) in [("refused_statement", "INTVAR_EVENT", "binlog_format=ROW")] {
        let (events, error) = read(vec![fixture(name)]).await;
        let Some(SourceError::Fatal(error)) = error else { panic!("{name}: {error:?}") };
        assert_eq!(error.event, event);
        assert!(error.why.contains(words), "{error}");
        assert!(error.to_string().starts_with(&format!("{name}.000001:")), "{error}");
        // The offset is that of the event: what was read before it ends at or before it.
        assert!(events.iter().all(|event| event.end.offset <= error.at.offset || event.end.file != error.at.file));
    }
    let (events, _) = read(vec![fixture("refused_statement")]).await;
    let dml = events.iter().find_map(|event| match &event.body {
        EventBody::Statement { database, sql } => {
            Some(classify(database, sql)).filter(|kind| *kind == StatementKind::Dml)
        }
        _ => None,
    });
    assert_eq!(dml, Some(StatementKind::Dml));
}

pub(super) struct Folder(tempfile::TempDir);

impl Folder {
    pub(super) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub(super) fn write(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.0.path().join(name);
        fs::write(&path, bytes).unwrap();
        path
    }
}

/// Offsets of every event of a file, and where the last one ends.
pub(super) fn boundaries(bytes: &[u8]) -> Vec<usize> {
    let mut at = MAGIC.len();
    let mut found = vec![at];
    while at < bytes.len() {
        at += EventHeader::parse(&bytes[at..]).unwrap().size as usize;
        found.push(at);
    }
    found
}

#[tokio::test]
async fn a_flipped_byte_anywhere_is_an_error_at_its_event() {
    let folder = Folder::new();
    let good = fs::read(fixture("xa")).unwrap();
    let boundaries = boundaries(&good);
    let whole = read(vec![fixture("xa")]).await.0.len();
    for at in 0..good.len() {
        let mut bad = good.clone();
        bad[at] ^= 0x40;
        let (events, error) = read(vec![folder.write("refused_xa.000001", &bad)]).await;
        let Some(SourceError::Fatal(error)) = error else { panic!("byte {at}: {error:?}") };
        let event_start = boundaries.iter().rev().find(|&&start| start <= at).copied().unwrap_or(0);
        let refused_at = error.at.offset as usize;
        // Damage behind the event that stops the stream anyway is never reached.
        assert!(refused_at == event_start || events.len() == whole, "byte {at}: {error}");
    }
}

#[tokio::test]
async fn a_damaged_row_names_checksum_file_and_offset() {
    let folder = Folder::new();
    let mut bytes = fs::read(fixture("basic")).unwrap();
    let start = boundaries(&bytes).into_iter().find(|&at| bytes[at + 4] == kind::UPDATE_ROWS).unwrap();
    bytes[start + 30] ^= 1;
    let (_, error) = read(vec![folder.write("basic.000001", &bytes)]).await;
    let text = error.unwrap().to_string();
    assert!(text.starts_with(&format!("basic.000001:{start}: UPDATE_ROWS_EVENT: checksum mismatch")), "{text}");
}

#[tokio::test]
async fn a_cut_file_never_panics_and_never_commits_what_it_lacks() {
    let folder = Folder::new();
    for (name, step) in [("no_checksum", 1), ("compressed", 7), ("ddl", 3)] {
        let good = fs::read(fixture(name)).unwrap();
        let boundaries = boundaries(&good);
        let whole: Vec<String> = read_fixture(name).await.iter().filter_map(describe).collect();
        for cut in (0..good.len()).step_by(step) {
            let (events, error) = read(vec![folder.write(&format!("{name}.000001"), &good[..cut])]).await;
            let described: Vec<String> = events.iter().filter_map(describe).collect();
            assert!(whole.starts_with(&described), "{name} cut at {cut}");
            let commits_end =
                events.iter().filter(|event| matches!(event.body, EventBody::Commit)).map(|e| e.end.offset);
            assert!(commits_end.max().unwrap_or(0) <= cut as u64, "{name} cut at {cut}");
            let open = described.last().is_some_and(|last| last != "commit");
            if open || !boundaries.contains(&cut) {
                assert!(matches!(error, Some(SourceError::Fatal(_))), "{name} cut at {cut}: {error:?}");
            }
        }
    }
}

/// Sets the flag of a file that is being written to. The checksum does not cover it.
fn in_use(mut bytes: Vec<u8>) -> Vec<u8> {
    bytes[MAGIC.len() + 17] |= 1;
    bytes
}

#[tokio::test]
async fn the_partial_tail_of_a_file_in_use_is_left_out_at_the_very_end_only() {
    let folder = Folder::new();
    let good = in_use(fs::read(fixture("no_checksum")).unwrap());
    let protected = in_use(fs::read(fixture("basic")).unwrap());
    assert!(read(vec![folder.write("binlog.000007", &protected)]).await.1.is_none(), "the flag breaks no checksum");

    let last_boundary = boundaries(&good).into_iter().rev().nth(3).unwrap();
    for cut in [last_boundary, last_boundary + 5, last_boundary + 25] {
        let path = folder.write("binlog.000001", &good[..cut]);
        let (events, error) = read(vec![path.clone()]).await;
        assert!(error.is_none(), "cut at {cut}: {error:?}");
        assert!(!events.is_empty());
        let next = folder.write("binlog.000002", &good);
        let (_, error) = read(vec![path, next]).await;
        assert!(matches!(error, Some(SourceError::Fatal(_))), "cut at {cut}: {error:?}");
    }
}

#[tokio::test]
async fn files_are_read_in_the_order_of_their_numbers() {
    let folder = Folder::new();
    let bytes = fs::read(fixture("no_checksum")).unwrap();
    for name in ["binlog.1000000", "binlog.999999", "binlog.index", "readme.txt"] {
        folder.write(name, &bytes);
    }
    let files = list_binlog_dir(folder.0.path()).unwrap();
    let names: Vec<_> = files.iter().map(|path| path.file_name().unwrap().to_str().unwrap()).collect();
    assert_eq!(names, ["binlog.999999", "binlog.1000000"]);
    let (events, error) = read(files).await;
    assert!(error.is_none());
    assert_eq!(heads(&events).len(), 2 * heads(&read_fixture("no_checksum").await).len());

    folder.write("other.000001", &bytes);
    assert!(list_binlog_dir(folder.0.path()).unwrap_err().to_string().contains("different binlogs"));
}

#[tokio::test]
async fn a_missing_file_between_two_is_noticed() {
    let folder = Folder::new();
    let bytes = fs::read(fixture("no_checksum")).unwrap();
    let paths = vec![folder.write("binlog.000001", &bytes), folder.write("binlog.000003", &bytes)];
    let error = read(paths).await.1.unwrap().to_string();
    assert!(error.contains("missing"), "{error}");
    assert!(FileSource::open(vec![folder.0.path().join("binlog.000009")]).is_err());
}

#[tokio::test]
async fn other_files_are_refused_by_their_first_bytes() {
    let folder = Folder::new();
    for (bytes, words) in [(&b"\xfdbin1234"[..], "encrypted"), (b"hello", "fe 62 69 6e"), (b"", "fe 62 69 6e")] {
        let (_, error) = read(vec![folder.write("binlog.000001", bytes)]).await;
        assert!(error.unwrap().to_string().contains(words));
    }
}
