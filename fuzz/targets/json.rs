//! MySQL's binary JSON.
#![no_main]

use libfuzzer_sys::fuzz_target;
use weir::binlog::json::write_text;

/// A document's text has few bytes for each of its own: the longest are doubles, NUL characters and what stands between values.
const TEXT_OF_A_BYTE_MAX: usize = 64;

fuzz_target!(|input: &[u8]| {
    let mut text = String::new();
    if write_text(input, &mut text).is_ok() {
        assert!(text.len() <= (input.len() + 1) * TEXT_OF_A_BYTE_MAX, "{} bytes of text", text.len());
    }
});
