//! JSON documents made by hand and by chance, and what they read as.

use proptest::prelude::*;

use super::*;

fn text(bytes: &[u8]) -> Result<String, JsonError> {
    let mut text = String::new();
    write_text(bytes, &mut text).map(|()| text)
}

fn double(value: f64) -> String {
    let mut bytes = vec![kind::DOUBLE];
    bytes.extend(value.to_le_bytes());
    text(&bytes).unwrap()
}

fn string(value: &str) -> Vec<u8> {
    let mut bytes = vec![kind::STRING, value.len() as u8];
    bytes.extend(value.as_bytes());
    bytes
}

#[test]
fn whole_doubles_have_no_point_where_an_old_server_shows_them() {
    // From: select j from …, MySQL 5.7.22.
    for (value, shown) in [(1.0, "1"), (-0.0, "-0"), (1.5, "1.5"), (1e100, "1e100"), (10.0, "10"), (0.05, "0.05")] {
        let mut text = String::new();
        let bytes = [&[kind::DOUBLE][..], &f64::to_le_bytes(value)].concat();
        write_text_of(&bytes, Wholes::Plain, &mut text).unwrap();
        assert_eq!(text, shown);
    }
}

#[test]
fn no_bytes_are_the_json_null() {
    assert_eq!(text(&[]), Ok("null".into()));
    assert_eq!(text(&[kind::LITERAL, 0]), Ok("null".into()));
}

#[test]
fn a_small_object_with_an_array_inside() {
    // {"a": 1, "b": [1, 2]}
    let mut bytes = vec![kind::SMALL_OBJECT, 2, 0, 34, 0];
    bytes.extend([18, 0, 1, 0, 19, 0, 1, 0]); // keys at 18 and 19
    bytes.extend([kind::INT16, 1, 0, kind::SMALL_ARRAY, 20, 0]);
    bytes.extend(b"ab");
    bytes.extend([2, 0, 10, 0, kind::INT16, 1, 0, kind::INT16, 2, 0]);
    bytes.extend([0; 4]); // room that a partial update has left
    assert_eq!(text(&bytes), Ok("{\"a\": 1, \"b\": [1, 2]}".into()));
}

#[test]
fn large_containers_hold_32_bit_numbers_in_their_entries() {
    let mut bytes = vec![kind::LARGE_ARRAY, 2, 0, 0, 0, 18, 0, 0, 0];
    bytes.push(kind::INT32);
    bytes.extend((-5_i32).to_le_bytes());
    bytes.push(kind::UINT32);
    bytes.extend(u32::MAX.to_le_bytes());
    assert_eq!(text(&bytes), Ok("[-5, 4294967295]".into()));
}

#[test]
fn doubles_print_as_the_server_prints_them() {
    // From: select cast(json_array(1e0, 1e14, 1e15, …) as char), MySQL 9.7.
    let shown = [
        (1e0, "1.0"),
        (1e14, "100000000000000.0"),
        (1e15, "1e15"),
        (1e20, "1e20"),
        (1e100, "1e100"),
        (1.5e-7, "0.00000015"),
        (1e-15, "0.000000000000001"),
        (1e-16, "1e-16"),
        (1.5e300, "1.5e300"),
        (-0.0, "-0.0"),
        (123_456_789_012_345_678.0, "1.2345678901234568e17"),
        (5e-324, "5e-324"),
        (f64::MAX, "1.7976931348623157e308"),
        (0.1, "0.1"),
        (12_345_678.9, "12345678.9"),
        (1_234_567_890_123_456.7, "1234567890123456.8"),
        (3_675_814_476_731_273.0 / 4.0, "918953619182818.2"),
        (3_675_814_476_731_275.0 / 4.0, "918953619182818.8"),
        (1_125_899_906_842_624.5, "1125899906842624.5"),
        (12_345_678_901_234_567.0, "1.2345678901234568e16"),
    ];
    for (value, expected) in shown {
        assert_eq!(double(value), expected);
    }
    assert!(text(&[&[kind::DOUBLE][..], &f64::NAN.to_le_bytes()].concat()).is_err());
}

#[test]
fn strings_are_escaped_as_the_server_escapes_them() {
    assert_eq!(
        text(&string("q\" b\\ s/ \n\r\t\u{8}\u{c} \u{1a}\u{0}\u{7f}é😀")),
        Ok("\"q\\\" b\\\\ s/ \\n\\r\\t\\b\\f \\u001a\\u0000\u{7f}é😀\"".into())
    );
}

#[test]
fn values_of_sql_are_kept_exactly() {
    assert_eq!(text(&[kind::OPAQUE, 246, 4, 3, 2, 0x7F, 0xFE]), Ok("-0.01".into()));
    assert_eq!(text(&[kind::OPAQUE, 15, 1, b'a']), Ok("\"base64:type15:YQ==\"".into()));
    assert_eq!(text(&[kind::OPAQUE, 246, 4, 2, 3, 0x7F, 0xFE]), Err(JsonError("a malformed decimal")));
    let negative_time = -(838_i64 << 12 | 59 << 6 | 59) << 24;
    let bytes = [&[kind::OPAQUE, 11, 8][..], &negative_time.to_le_bytes()].concat();
    assert_eq!(text(&bytes), Ok("\"-838:59:59.000000\"".into()));
}

#[test]
fn base64_breaks_its_lines_where_the_server_does() {
    let encoded = |length: usize| {
        let bytes = vec![0_u8; length];
        text(&[&[kind::OPAQUE, 252, length as u8][..], &bytes].concat()).unwrap()
    };
    assert_eq!(encoded(57), format!("\"base64:type252:{}\"", "A".repeat(76)));
    assert_eq!(encoded(58), format!("\"base64:type252:{}\\nAA==\"", "A".repeat(76)));
}

#[test]
fn depth_is_bounded() {
    let nested = |depth: usize| {
        let mut bytes = vec![0, 0, 4, 0];
        for _ in 1..depth {
            let mut outer = vec![1, 0];
            outer.extend(((bytes.len() + 7) as u16).to_le_bytes());
            outer.extend([kind::SMALL_ARRAY, 7, 0]);
            outer.extend(&bytes);
            bytes = outer;
        }
        bytes.insert(0, kind::SMALL_ARRAY);
        bytes
    };
    assert_eq!(text(&nested(100)), Ok(format!("{}{}", "[".repeat(100), "]".repeat(100))));
    assert_eq!(text(&nested(101)), Err(JsonError("it is nested too deeply")));
}

#[test]
fn values_that_overlap_cannot_grow_without_bound() {
    // An array whose two entries are both the array itself.
    let looped = [kind::SMALL_ARRAY, 2, 0, 10, 0, kind::SMALL_ARRAY, 0, 0, kind::SMALL_ARRAY, 0, 0];
    assert!(text(&looped).is_err());
}

proptest! {
    #[test]
    fn any_bytes_print_or_fail(kind in 0_u8..16, bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = text(&[&[kind][..], &bytes].concat());
    }

    #[test]
    fn any_small_numbers_in_a_container_print_or_fail(kind in 0_u8..4, bytes in prop::collection::vec(0_u8..16, 0..200)) {
        let _ = text(&[&[kind][..], &bytes].concat());
    }

    #[test]
    fn a_double_reads_back_as_itself(bits: u64) {
        let value = f64::from_bits(bits);
        if value.is_finite() {
            prop_assert_eq!(double(value).parse::<f64>().unwrap().to_bits(), bits);
        }
    }
}
