//! Character sets against CRCs recorded from a server, and round trips.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

fn charset(collation: u32) -> Charset {
    Charset::of_collation(collation).expect("a collation of MySQL")
}

fn text(collation: u32, bytes: &[u8]) -> Result<String, MalformedText> {
    charset(collation).decode(bytes, &mut String::new()).map(str::to_owned)
}

fn by_name(name: &str) -> Charset {
    (1..=323)
        .filter_map(Charset::of_collation)
        .find(|charset| charset.name() == name)
        .expect("a character set of MySQL")
}

/// The well-formed characters that one line of the fixture is about, in ascending order.
fn characters(name: &str, lead: &str, length: usize) -> Vec<u8> {
    let lead = u8::from_str_radix(lead, 16).unwrap_or(0);
    let trails = |accepts: fn(u8) -> bool| (0..=255).filter(move |byte| accepts(*byte));
    let behind_lead = |accepts: fn(u8) -> bool| trails(accepts).flat_map(|byte| [lead, byte]).collect();
    match (name, length) {
        ("ascii", 1) => trails(|b| b.is_ascii()).collect(),
        ("cp932" | "sjis", 1) => trails(|b| matches!(b, 0..=0x7F | 0xA1..=0xDF)).collect(),
        (_, 1) => (0..=255).collect(),
        ("big5", 2) => behind_lead(|b| matches!(b, 0x40..=0x7E | 0xA1..=0xFE)),
        ("cp932" | "sjis", 2) => behind_lead(|b| matches!(b, 0x40..=0x7E | 0x80..=0xFC)),
        ("eucjpms" | "ujis", 2) if lead == 0x8E => behind_lead(|b| matches!(b, 0xA1..=0xDF)),
        ("eucjpms" | "ujis" | "gb2312", 2) => behind_lead(|b| matches!(b, 0xA1..=0xFE)),
        ("euckr", 2) => behind_lead(|b| matches!(b, 0x41..=0x5A | 0x61..=0x7A | 0x81..=0xFE)),
        ("gbk" | "gb18030", 2) => behind_lead(|b| matches!(b, 0x40..=0x7E | 0x80..=0xFE)),
        ("eucjpms" | "ujis", 3) => trails(|b| matches!(b, 0xA1..=0xFE)).flat_map(|b| [0x8F, lead, b]).collect(),
        ("gb18030", 4) => {
            let mut all = Vec::new();
            for second in 0x30..=0x39 {
                for third in 0x81..=0xFE {
                    all.extend((0x30..=0x39).flat_map(|fourth| [lead, second, third, fourth]));
                }
            }
            all
        }
        other => panic!("no such line: {other:?}"),
    }
}

#[test]
fn every_character_of_every_set_is_what_the_server_shows() {
    let recorded = include_str!("../../../fixtures/charset/character-sets.tsv");
    let mut lines = 0;
    let mut wrong = BTreeMap::<String, u32>::new();
    for line in recorded.lines() {
        let [name, lead, length, crc] = line.split('\t').collect::<Vec<_>>()[..] else { panic!("{line}") };
        let bytes = characters(name, lead, length.parse().unwrap());
        let mut scratch = String::new();
        let decoded = by_name(name).decode(&bytes, &mut scratch).map(|text| crc32fast::hash(text.as_bytes()));
        if decoded != Ok(crc.parse().unwrap()) {
            *wrong.entry(format!("{name} of {length} bytes from {lead}")).or_default() += 1;
        }
        lines += 1;
    }
    assert!(wrong.is_empty(), "{wrong:?}");
    assert_eq!(lines, 1205);
}

#[test]
fn latin1_is_cp1252_with_controls_in_its_gaps() {
    assert_eq!(text(8, b"\x80 \x81\x8D\x8F\x90\x9D \xE9"), Ok("\u{20AC} \u{81}\u{8D}\u{8F}\u{90}\u{9D} é".into()));
}

#[test]
fn collations_of_mariadb_are_of_the_character_sets_that_their_names_say() {
    let name = |id| Charset::of_collation(id).map(|charset| charset.name());
    for (id, expected) in [
        (2048, Some("utf8mb3")), // utf8mb3_uca1400_ai_ci
        (2304, Some("utf8mb4")), // utf8mb4_uca1400_ai_ci
        (2560, Some("ucs2")),
        (2816, Some("utf16")),
        (3072, Some("utf32")),
        (608, Some("utf8mb4")),  // utf8mb4_croatian_ci
        (1032, Some("latin1")),  // latin1_swedish_nopad_ci
        (1070, Some("utf8mb4")), // utf8mb4_nopad_bin
        (1087, None),
        (4000, None),
    ] {
        assert_eq!(name(id), expected, "{id}");
    }
}

#[test]
fn a_character_set_is_found_by_its_name() {
    for (name, expected) in [("latin1", 5), ("utf8mb4", 45), ("utf8", 33), ("binary", 63), ("gb18030", 248)] {
        assert_eq!(default_collation(name), Some(expected), "{name}");
    }
    assert_eq!(default_collation("klingon"), None);
}

#[test]
fn utf8_is_passed_through_or_refused_but_never_mended() {
    assert_eq!(text(255, "é€😀".as_bytes()), Ok("é€😀".into()));
    assert_eq!(text(33, b"ok\xFF"), Err(MalformedText("utf8mb3")));
    assert_eq!(text(46, b"\xED\xA0\x80"), Err(MalformedText("utf8mb4")));
    assert_eq!(text(11, b"\x80").map_err(|error| error.0), Err("ascii"));
}

#[test]
fn wide_sets_are_read_in_their_byte_order() {
    assert_eq!(text(35, &[0x00, 0x41, 0x20, 0xAC]), Ok("A€".into()));
    assert_eq!(text(54, &[0xD8, 0x3D, 0xDE, 0x00]), Ok("😀".into()));
    assert_eq!(text(56, &[0x3D, 0xD8, 0x00, 0xDE]), Ok("😀".into()));
    assert_eq!(text(60, &[0x00, 0x01, 0xF6, 0x00]), Ok("😀".into()));
    assert!(text(35, &[0xD8, 0x00]).is_err());
    assert!(text(54, &[0xD8, 0x00]).is_err());
    assert!(text(54, &[0x00]).is_err());
    assert!(text(60, &[0x00, 0x11, 0x00, 0x00]).is_err());
}

#[test]
fn a_cut_character_is_refused() {
    for collation in [1, 28, 13, 12, 19, 24, 248, 95, 97] {
        assert!(text(collation, b"a\xA4").is_err() || collation == 13 || collation == 95, "{collation}");
        assert!(text(collation, b"a\xE5").is_err(), "{collation}");
    }
}

#[test]
fn corrections_are_sorted_so_that_they_can_be_searched() {
    use corrections::*;
    for runs in [BIG5, EUCJPMS, GB18030, GB2312, GBK, SJIS, UJIS] {
        assert!(runs.windows(2).all(|pair| pair[0].first + pair[0].length <= pair[1].first));
    }
}

#[test]
fn binary_is_not_text_and_unknown_collations_are_none() {
    for id in [0, BINARY_COLLATION, 17, 324, 1041, 4000, u32::MAX] {
        assert!(Charset::of_collation(id).is_none(), "{id}");
    }
}

proptest! {
    #[test]
    fn any_bytes_decode_or_fail_in_every_set(bytes in prop::collection::vec(any::<u8>(), 0..64), id in 1_u32..=323) {
        if let Some(charset) = Charset::of_collation(id) {
            let _ = charset.decode(&bytes, &mut String::new());
        }
    }
}
