//! Groups, table maps and compressed transactions, from events made by hand: what a healthy server does not write.

use super::super::event::EventHeader;
use super::*;

fn event(kind: u8, body: impl Into<Bytes>) -> Event {
    flagged(kind, 0, body)
}

fn flagged(kind: u8, flags: u16, body: impl Into<Bytes>) -> Event {
    let header = EventHeader { timestamp_s: 1, kind, server_id: 7, size: 0, next_offset_low: 100, flags };
    Event { header, body: body.into(), checksum: None }
}

fn gtid() -> Event {
    let mut body = vec![0; 1 + 16 + 8];
    body[17] = 1;
    event(kind::GTID, body)
}

fn query(sql: &str) -> Event {
    let mut body = vec![0; 13];
    body.push(0);
    body.extend_from_slice(sql.as_bytes());
    event(kind::QUERY, body)
}

fn table_map(id: u8) -> Event {
    event(kind::TABLE_MAP, vec![id, 0, 0, 0, 0, 0, 1, 0, 1, b'd', 0, 1, b't', 0, 1, 3, 0, 0])
}

fn rows(id: u8, ends_statement: bool) -> Event {
    event(kind::WRITE_ROWS, vec![id, 0, 0, 0, 0, 0, u8::from(ends_statement), 0, 2, 0, 1, 1, 0, 5, 0, 0, 0])
}

fn xid() -> Event {
    event(kind::XID, vec![0; 8])
}

fn place() -> Place {
    Place { file: "binlog.000001".into(), start: 50, end: 100 }
}

/// Feeds the events; what came out by name, or the first error.
fn run(events: &[Event]) -> Result<Vec<&'static str>, String> {
    let mut assembler = Assembler::new(ChecksumAlgorithm::None);
    let mut names = Vec::new();
    for event in events {
        assembler.feed(event, &place()).map_err(|error| error.to_string())?;
        while let Some(event) = assembler.next().map_err(|error| error.to_string())? {
            names.push(match event.body {
                EventBody::Begin(_) => "begin",
                EventBody::Rows(_) => "rows",
                EventBody::Statement { .. } => "statement",
                EventBody::Commit => "commit",
                EventBody::XaStart => "xa start",
                EventBody::XaPrepared { .. } => "xa prepared",
                EventBody::XaSettled { commits: true, .. } => "xa commits",
                EventBody::XaSettled { commits: false, .. } => "xa rolls back",
                EventBody::Position => "position",
            });
        }
    }
    Ok(names)
}

fn refused(events: &[Event], words: &str) {
    match run(events) {
        Err(error) => assert!(error.contains(words), "`{error}` does not say `{words}`"),
        Ok(names) => panic!("{names:?} instead of an error with `{words}`"),
    }
}

fn payload(inner: &[Event], unpacked_len_off: i64) -> Event {
    let mut bytes = Vec::new();
    for event in inner {
        let mut header = [0; 19];
        header[4] = event.header.kind;
        header[9..13].copy_from_slice(&(19 + event.body.len() as u32).to_le_bytes());
        bytes.extend_from_slice(&header);
        bytes.extend_from_slice(&event.body);
    }
    let packed = zstd::encode_all(&bytes[..], 1).unwrap();
    let mut body = vec![2, 1, 0, 1, 3, 0xfc, packed.len() as u8, (packed.len() >> 8) as u8, 3, 9, 0xfe];
    body.extend_from_slice(&(bytes.len() as i64 + unpacked_len_off).to_le_bytes());
    body.push(0);
    body.extend_from_slice(&packed);
    event(kind::TRANSACTION_PAYLOAD, body)
}

#[test]
fn transactions_end_in_xid_or_commit() {
    let expected = Ok(vec!["begin", "rows", "commit"]);
    assert_eq!(run(&[gtid(), query("BEGIN"), table_map(1), rows(1, true), xid()]), expected);
    assert_eq!(run(&[gtid(), query("BEGIN"), table_map(1), rows(1, true), query("COMMIT")]), expected);
}

#[test]
fn a_single_statement_is_a_transaction() {
    assert_eq!(run(&[gtid(), query("DROP TABLE t")]), Ok(vec!["begin", "statement", "commit"]));
}

#[test]
fn an_empty_rollback_ends_its_transaction_and_one_with_rows_is_refused() {
    assert_eq!(run(&[gtid(), query("BEGIN"), query("ROLLBACK")]), Ok(vec!["begin", "commit"]));
    let begun = [gtid(), query("BEGIN"), query("SAVEPOINT a")];
    assert_eq!(run(&[&begun[..], &[query("ROLLBACK TO a"), xid()]].concat()), Ok(vec!["begin", "commit"]));
    for end in ["ROLLBACK", "ROLLBACK TO a"] {
        refused(&[&begun[..], &[table_map(1), rows(1, true), query(end)]].concat(), "InnoDB");
    }
}

#[test]
fn rows_need_a_table_map_of_their_own_statement() {
    let begun = [gtid(), query("BEGIN")];
    refused(&[&begun[..], &[rows(1, true)]].concat(), "table id 1");
    refused(&[&begun[..], &[table_map(2), rows(1, true)]].concat(), "table id 1");
    refused(&[&begun[..], &[table_map(1), rows(1, true), rows(1, true)]].concat(), "table id 1");
    refused(&[&begun[..], &[table_map(1), rows(1, false), xid()], &begun[..], &[rows(1, true)]].concat(), "table id 1");
    assert!(run(&[&begun[..], &[table_map(1), table_map(2), rows(1, false), rows(2, true)]].concat()).is_ok());
}

#[test]
fn the_end_of_a_statement_without_a_table_is_skipped() {
    let dummy = event(kind::WRITE_ROWS, vec![0xff, 0xff, 0xff, 0, 0, 0, 1, 0, 2, 0, 1, 0xff]);
    assert_eq!(run(&[gtid(), query("BEGIN"), table_map(1), dummy, xid()]), Ok(vec!["begin", "commit"]));
}

#[test]
fn events_outside_a_transaction_are_refused() {
    refused(&[query("BEGIN")], "outside a transaction");
    refused(&[xid()], "outside");
    refused(&[table_map(1)], "outside");
    refused(&[gtid(), rows(1, true)], "outside");
    refused(&[payload(&[query("BEGIN"), xid()], 0)], "GTID");
    refused(&[event(kind::ANONYMOUS_GTID, vec![0; 25])], "followed by GTIDs");
}

#[test]
fn a_transaction_without_an_end_is_noticed_at_the_next_one() {
    let begun = [gtid(), query("BEGIN")];
    let mut rotate = 4_u64.to_le_bytes().to_vec();
    rotate.extend_from_slice(b"binlog.000002");
    for next in [gtid(), event(kind::ROTATE, rotate), event(kind::STOP, vec![])] {
        refused(&[&begun[..], &[next]].concat(), "has no end");
    }
    refused(&[&begun[..], &begun[1..]].concat(), "inside another");
}

#[test]
fn a_compressed_transaction_is_read_like_a_plain_one() {
    let inner = [query("BEGIN"), table_map(1), rows(1, true), xid()];
    assert_eq!(run(&[gtid(), payload(&inner, 0)]), Ok(vec!["begin", "rows", "commit"]));
    assert_eq!(run(&[gtid(), payload(&inner[..3], 0)]).unwrap_err().matches("without XID or COMMIT").count(), 1);
}

#[test]
fn a_compressed_transaction_commits_only_if_it_is_whole() {
    let inner = [query("BEGIN"), table_map(1), rows(1, true), xid()];
    refused(&[gtid(), payload(&[&inner[..], &[xid()]].concat(), 0)], "follow the end");
    refused(&[gtid(), payload(&inner, 27)], "follow the end");
    refused(&[gtid(), payload(&inner, -27)], "more bytes");
    refused(&[gtid(), payload(&[gtid()], 0)], "may not stand inside");
    refused(&[gtid(), payload(&[payload(&inner, 0)], 0)], "may not stand inside");
}

#[test]
fn without_gtids_a_transaction_is_named_by_where_it_begins() {
    let position: GtidSet = "3e11fa47-71ca-11e1-9e33-c80aa9429562:binlog.000001:50".parse().unwrap();
    let anonymous = event(kind::ANONYMOUS_GTID, vec![0; 25]);
    let mut assembler = Assembler::new(ChecksumAlgorithm::None).behind(&position);
    assembler.feed(&anonymous, &place()).unwrap();
    let begun = assembler.next().unwrap().unwrap();
    assert!(matches!(begun.body, EventBody::Begin(head) if head.gtid.to_string().ends_with(":binlog.000001:50")));
    // The one before it has no end.
    assert!(assembler.feed(&anonymous, &place()).is_err());
    let fresh = || Assembler::new(ChecksumAlgorithm::None).of_log(&position);
    let refused = fresh().feed(&gtid(), &place()).unwrap_err().to_string();
    assert!(refused.contains("switched on") && refused.contains("weir snapshot"), "{refused}");
    let elsewhere = Place { file: "other.000001".into(), ..place() };
    assert!(fresh().feed(&anonymous, &elsewhere).is_err());
}

fn mariadb_gtid(number: u64, flags: u8) -> Event {
    let mut body = number.to_le_bytes().to_vec();
    body.extend_from_slice(&[0, 0, 0, 0, flags, 0, 0, 0, 0, 0, 0]);
    event(kind::MARIADB_GTID, body)
}

#[test]
fn a_gtid_of_mariadb_begins_its_transaction_by_itself() {
    let expected = Ok(vec!["begin", "rows", "commit"]);
    let note = event(kind::ANNOTATE_ROWS, b"INSERT".to_vec());
    for end in [xid(), query("COMMIT")] {
        assert_eq!(run(&[mariadb_gtid(1, 0), note.clone(), table_map(1), rows(1, true), end]), expected);
    }
    assert_eq!(run(&[mariadb_gtid(1, 1), query("DROP TABLE t")]), Ok(vec!["begin", "statement", "commit"]));
    let create = [mariadb_gtid(1, 0), query("CREATE TABLE t (a INT)"), table_map(1), rows(1, true), xid()];
    assert_eq!(run(&create), Ok(vec!["begin", "statement", "rows", "commit"]));
    let around = [event(kind::GTID_LIST, vec![0; 4]), event(kind::BINLOG_CHECKPOINT, vec![])];
    assert_eq!(run(&around), Ok(vec!["position", "position"]));
    refused(&[mariadb_gtid(1, 0), table_map(1), rows(1, true), mariadb_gtid(2, 0)], "has no end");
    refused(&[mariadb_gtid(1, 1), table_map(1)], "outside");
    refused(&[mariadb_gtid(1, 64)], "XA transactions of two phases");
    refused(&[event(kind::START_ENCRYPTION, vec![0; 17])], "encrypt_binlog=OFF");
}

#[test]
fn a_transaction_that_the_server_was_told_of_must_not_come_again() {
    let one = [gtid(), query("BEGIN"), xid()];
    let of = |assembler: Assembler, events: &[Event]| -> Result<(), String> {
        let mut assembler = assembler;
        events.iter().try_for_each(|event| {
            assembler.feed(event, &place()).map_err(|error| error.to_string())?;
            while assembler.next().map_err(|error| error.to_string())?.is_some() {}
            Ok(())
        })
    };
    let fresh = || Assembler::new(ChecksumAlgorithm::None);
    // A file may hold whatever was put into it.
    assert_eq!(of(fresh(), &[&one[..], &one[..]].concat()), Ok(()));
    let mut seen = fresh();
    seen.feed(&gtid(), &place()).unwrap();
    let Some(SourceEvent { body: EventBody::Begin(head), .. }) = seen.next().unwrap() else { panic!("it begins") };
    let mut known = GtidSet::default();
    known.insert(&head.gtid);
    for (from, events) in [(known, &one[..]), (GtidSet::default(), &[&one[..], &one[..]].concat()[..])] {
        let refused = of(fresh().behind(&from), events).unwrap_err();
        assert!(refused.contains("comes again") && refused.contains("weir snapshot"), "{refused}");
    }
}

#[test]
fn numbers_of_a_domain_must_rise() {
    let one = |number| [mariadb_gtid(number, 0), xid()];
    assert!(run(&[one(1), one(2), one(9)].concat()).is_ok());
    refused(&[one(2), one(2)].concat(), "gtid_strict_mode");
    refused(&[one(9), one(2)].concat(), "0-7-2 comes behind 0-7-9");
    let mut behind = Assembler::new(ChecksumAlgorithm::None).behind(&"0-3-5".parse().unwrap());
    assert!(behind.feed(&mariadb_gtid(5, 0), &place()).is_err());
    assert!(
        Assembler::new(ChecksumAlgorithm::None)
            .behind(&"0-3-4".parse().unwrap())
            .feed(&mariadb_gtid(5, 0), &place())
            .is_ok()
    );
}

#[test]
fn unknown_events_stop_the_stream_unless_marked_ignorable() {
    assert_eq!(run(&[flagged(200, FLAG_IGNORABLE, vec![1])]), Ok(vec![]));
    refused(&[event(200, vec![1])], "binlog.000001:50: event type 200");
    refused(&[flagged(kind::INCIDENT, FLAG_IGNORABLE, b"\x01\x00\x04lost".to_vec())], "lost");
    for kind in [kind::INTVAR, kind::RAND, kind::USER_VAR, kind::BEGIN_LOAD_QUERY, kind::EXECUTE_LOAD_QUERY] {
        refused(&[gtid(), query("BEGIN"), event(kind, vec![0; 20])], "binlog_format=ROW");
    }
}

#[test]
fn a_branch_is_committed_at_once_or_prepared_and_settled_later() {
    let begun = [gtid(), query("XA START X'61',X'',1"), query("XA END X'61',X'',1")];
    let prepare = |one_phase| event(kind::XA_PREPARE, vec![one_phase, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, b'a']);
    assert_eq!(run(&[&begun[..], &[prepare(1)]].concat()), Ok(vec!["begin", "xa start", "commit"]));
    assert_eq!(run(&[&begun[..], &[prepare(0)]].concat()), Ok(vec!["begin", "xa start", "xa prepared"]));
    let inner = [query("XA START X'61',X'',1"), query("XA END X'61',X'',1"), prepare(0)];
    assert_eq!(run(&[gtid(), payload(&inner, 0)]), Ok(vec!["begin", "xa start", "xa prepared"]));
    assert_eq!(run(&[gtid(), query("XA COMMIT X'61',X'',1")]), Ok(vec!["begin", "xa commits", "commit"]));
    assert_eq!(run(&[gtid(), query("XA ROLLBACK X'61',X'',1")]), Ok(vec!["begin", "xa rolls back", "commit"]));
}

#[test]
fn what_is_not_the_grammar_of_a_branch_is_refused() {
    let prepare = event(kind::XA_PREPARE, vec![0, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, b'a']);
    refused(&[gtid(), query("BEGIN"), prepare.clone()], "outside an XA transaction");
    refused(&[gtid(), query("XA COMMIT 'a'")], "not the name of an XA transaction");
    refused(&[gtid(), query("XA PREPARE X'61',X'',1")], "an XA statement where the server writes none");
    refused(&[gtid(), query("XA START X'61',X'',1"), query("COMMIT")], "COMMIT inside an XA transaction");
    refused(&[gtid(), query("XA START X'61',X'',1"), query("XA COMMIT X'61',X'',1")], "where the server writes none");
    let rows = [gtid(), query("XA START X'61',X'',1"), table_map(1), rows(1, true)];
    refused(&[&rows[..], &[query("XA ROLLBACK X'61',X'',1")]].concat(), "rolled back although rows");
}

#[test]
fn heartbeats_and_rotations_are_positions_between_transactions() {
    let heartbeat = event(kind::HEARTBEAT, b"binlog.000009".to_vec());
    assert_eq!(run(std::slice::from_ref(&heartbeat)), Ok(vec!["position"]));
    assert_eq!(run(&[gtid(), query("BEGIN"), heartbeat, xid()]), Ok(vec!["begin", "commit"]));
}

#[test]
fn damaged_bodies_are_errors_and_never_panic() {
    let all = [gtid(), query("BEGIN"), table_map(1), rows(1, true), payload(&[query("BEGIN"), xid()], 0)];
    for whole in &all {
        for cut in 0..whole.body.len() {
            let short = Event { body: whole.body.slice(..cut), ..whole.clone() };
            let _ = run(&[gtid(), query("BEGIN"), table_map(1), short.clone()]);
            let _ = run(&[gtid(), short]);
        }
    }
}
