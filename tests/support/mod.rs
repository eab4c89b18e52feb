//! What the topics share: a real MySQL, a `weir` with its folders, and the independent readers' verdict.

pub mod lake;
pub mod mysql;
pub mod weir;

use std::path::PathBuf;

/// The checkout's root.
pub fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}
