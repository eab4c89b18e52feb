//! A Kafka message: its headers as lines of `name=value`, a NUL, and its body.
#![no_main]

use std::collections::BTreeMap;

use libfuzzer_sys::fuzz_target;
use weir::transport::kafka::wire::{Envelope, SchemaCache, decode_changes};

fuzz_target!(
    init: {
        // Arrow's reader panics at some bytes, which the decoder makes an error of. What gets through it ends this program anyway.
        std::panic::set_hook(Box::new(|_| {}));
    },
    |input: &[u8]| {
        let Some(end) = input.iter().position(|byte| *byte == 0) else { return };
        let Ok(head) = std::str::from_utf8(&input[..end]) else { return };
        let headers: BTreeMap<&str, &str> = head.lines().filter_map(|line| line.split_once('=')).collect();
        if let Ok(envelope) = Envelope::of(&headers) {
            let told = envelope.headers();
            let told: BTreeMap<&str, &str> = told.iter().map(|(name, value)| (*name, value.as_str())).collect();
            assert_eq!(Envelope::of(&told).expect("what was written can be read"), envelope);
        }
        let _ = decode_changes(&input[end + 1..], &mut SchemaCache::default());
    }
);
