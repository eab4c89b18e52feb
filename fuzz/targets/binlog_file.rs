//! A whole binlog file through our reader, and its rows through the decoder.
#![no_main]

use libfuzzer_sys::fuzz_target;
use weir::binlog::{EventBody, FileSource, Source, ddl, previous_gtids};

fuzz_target!(|input: &[u8]| {
    let file = fuzz::folder().join("binlog.000001");
    std::fs::write(&file, fuzz::with_checksums(input)).expect("a file can be written");
    fuzz::block_on(async {
        let _ = previous_gtids(&file).await;
        let Ok(mut source) = FileSource::open(vec![file]) else { return };
        while let Ok(Some(event)) = source.next().await {
            match event.body {
                EventBody::Rows(image) => drop(fuzz::decoded(&image)),
                EventBody::Statement { database, sql } => drop(ddl::classify(&database, &sql)),
                _ => {}
            }
        }
    });
});
