//! The configuration file, and variables over it: the file ends at a NUL, and a name and a value follow.
#![no_main]

use std::collections::BTreeMap;
use std::path::Path;

use libfuzzer_sys::fuzz_target;
use weir::config::Config;

fuzz_target!(|input: &[u8]| {
    let mut texts = fuzz::texts(input);
    let Some(file) = texts.next() else { return };
    // It would be read.
    if file.contains("_file") {
        return;
    }
    let variable = texts.next().filter(|name| !name.contains("FILE")).zip(texts.next());
    let environment: BTreeMap<String, String> =
        variable.map(|(name, value)| (name.into(), value.into())).into_iter().collect();
    if let Ok(config) = Config::parse("weir.toml", file, Path::new("/nowhere"), &environment) {
        let _ = config.patterns();
        let _ = config.source_options().map(|options| options.opts().map(drop));
        let _ = config.trace_server();
    }
});
