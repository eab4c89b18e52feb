//! Row images against the table map before them.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    if let Some(image) = fuzz::rows_of(input) {
        fuzz::decoded(&image);
    }
});
