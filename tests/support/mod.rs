//! What the topics share: real servers, a `weir` with its folders, and the independent readers' verdict.

pub mod clickhouse;
pub mod http;
pub mod kafka;
pub mod lake;
pub mod mysql;
pub mod random;
pub mod s3;
pub mod s3_ways;
pub mod weir;
pub mod wire;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

/// The checkout's root.
pub fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// The folder of fetched servers and readers.
pub fn services_folder() -> PathBuf {
    std::env::var_os("WEIR_SERVICES_DIR").map_or_else(|| root().join("target/services"), Into::into)
}

/// Does `work` while `write` is at it in a thread of its own, which is told to stop when `work` ends, also by failing: a test
/// that fails must come to its end.
pub fn beside(write: impl FnOnce(&AtomicBool) + Send, work: impl FnOnce()) {
    struct Stop<'a>(&'a AtomicBool);
    impl Drop for Stop<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Release);
        }
    }
    let stop = &AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| write(stop));
        let _stop = Stop(stop);
        work();
    });
}

/// What `scripts/services.sh` prints. Servers that it starts end with the test process.
///
/// # Panics
/// If it fails: a test without its server fails.
fn services(arguments: &[&str]) -> String {
    let output = Command::new(root().join("scripts/services.sh"))
        .args(arguments)
        .env("WEIR_SERVICE_OWNER_PID", std::process::id().to_string())
        .output()
        .expect("scripts/services.sh runs");
    assert!(
        output.status.success(),
        "scripts/services.sh {arguments:?} failed; `make services` fetches what it needs:\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).expect("the script prints text")
}

fn path(path: &Path) -> &str {
    path.to_str().expect("temporary folders have plain names")
}
