//! Bulk read of MySQL tables into Arrow batches, in ranges of the record key that can be read in any order and read again.
//!
//! Knows MySQL, Arrow and Parquet, and nothing of Kafka, Delta or the service. A service drives three functions:
//! [`plan_chunks`] once a table, then for each chunk [`ChunkReader::open`] (or [`read_chunk`]) between watermarks of its
//! own; a [`Selection`] may also be of single keys. The rest ([`load`], [`progress`]) is the standalone tool.
//!
//! Reading order: [`key_value`] and [`range`] (what a chunk is, and its SQL), [`key_text`] (keys as people write them),
//! [`plan`] (dividing a table), [`decode`] and [`read`] (rows into columns), [`lookup`] (single keys), [`throttle`] (what a
//! source is spared), [`load`].

pub mod decode;
pub mod error;
pub mod key_text;
pub mod key_value;
pub mod load;
pub mod lookup;
pub mod manifest;
pub mod plan;
pub mod progress;
pub mod range;
pub mod read;
pub mod throttle;

pub use error::LoadError;
pub use key_value::KeyValue;
pub use load::{LoadOptions, load};
pub use lookup::{key_above, keys_present, record_keys};
pub use manifest::Manifest;
pub use plan::{PlanTarget, plan_chunks};
pub use progress::{Progress, TableProgress};
pub use range::{ChunkRange, Selection};
pub use read::{ChunkReader, ReadOptions, read_chunk, select_rows};
pub use throttle::{Caps, Throttle};
