//! The log of a Delta table that somebody else may have written to: a commit a part, divided by NULs.
#![no_main]

use std::collections::BTreeMap;
use std::path::Path;

use libfuzzer_sys::fuzz_target;
use weir::table::history::figures;
use weir::table::{Scan, Warehouse};
use weir_model::TableId;

/// The files that the seeds' log names.
const FILES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/seeds/table");

fn table_files(folder: &Path) {
    std::fs::create_dir_all(folder).expect("a folder can be made");
    for file in std::fs::read_dir(FILES).expect("the files are there").flatten() {
        std::fs::copy(file.path(), folder.join(file.file_name())).expect("a file can be copied");
    }
}

const COMMITS_MAX: usize = 8;

fuzz_target!(|input: &[u8]| {
    let table = TableId::new("shop", "orders");
    let folder = fuzz::folder();
    let log = folder.join("shop/orders/_delta_log");
    if !log.exists() {
        table_files(&folder.join("shop/orders"));
    }
    let _ = std::fs::remove_dir_all(&log);
    std::fs::create_dir_all(&log).expect("a folder can be made");
    for (version, commit) in input.split(|byte| *byte == 0).take(COMMITS_MAX).enumerate() {
        std::fs::write(log.join(format!("{version:020}.json")), commit).expect("a file can be written");
    }
    let url = format!("file://{}", folder.display());
    let Ok(warehouse) = Warehouse::open(&url, &BTreeMap::new()) else { return };
    fuzz::block_on(async {
        let _ = figures(&warehouse, &table).await;
        if let Ok(scan) = Scan::open(&warehouse, &table, None, None).await {
            let _ = scan.for_each(|_| Ok(())).await;
        }
    });
});
