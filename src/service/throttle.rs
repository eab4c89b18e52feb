//! What reading chunks spares the source, as the configuration has it: one throttle for all readers of a source.

use std::sync::Arc;

use snapshot_loader::{Caps, Throttle};
use weir_mysql::SourceOptions;

use crate::config::Source;

/// The throttle of `source`, by the caps of its section.
pub fn throttle(section: &Source, source: &SourceOptions) -> Arc<Throttle> {
    let caps = Caps {
        rows_per_second_max: section.rows_per_second_max,
        bytes_per_second_max: section.bytes_per_second_max.as_u64(),
        pause_above_threads_running: section.pause_above_threads_running,
        pause_above_lag_ms: section.pause_above_lag_ms,
    };
    Arc::new(Throttle::new(source.clone(), caps))
}
