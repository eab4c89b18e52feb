//! Statements in the log.
#![no_main]

use libfuzzer_sys::fuzz_target;
use weir::binlog::ddl;

fuzz_target!(|input: &[u8]| {
    let Ok(sql) = std::str::from_utf8(input) else { return };
    ddl::classify("shop", sql);
    ddl::classify("shop", &ddl::comments_of_mariadb(sql));
});
