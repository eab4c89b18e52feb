//! When a transaction happened, from timestamps that clients can set. Pure.

use crate::binlog::TransactionHead;
use crate::limits::{EVENT_TIME_AHEAD_MAX, SOURCE_CLOCK_AHEAD_MAX};

/// Event time of a transaction and whether it was believed as given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EventTime {
    /// Milliseconds since the epoch.
    pub ms: i64,
    /// The original timestamp was too far ahead and the server's own was taken.
    pub clamped: bool,
}

/// The source's clock runs so far ahead of ours that every later order would be pinned to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "the source's clock is {ahead_s} s ahead of this machine's; orders never fall again, so the stream stops. \
     Set both clocks right (NTP) and start again"
)]
pub struct ClockAhead {
    pub ahead_s: i64,
}

/// `original_commit_timestamp`, or the server's own if that is 0 or more than a minute behind it (a client may set any
/// year, and an order never falls again). Where there is no original one, as in MySQL 5.7 and MariaDB, the server's own is believed
/// unless it is more than a minute ahead of `now_ms`, which is this machine's clock.
pub fn event_time(head: &TransactionHead, now_ms: i64) -> Result<EventTime, ClockAhead> {
    let immediate_ms = (head.immediate_commit_us / 1_000) as i64;
    let original_ms = (head.original_commit_us / 1_000) as i64;
    let ahead_max_ms = EVENT_TIME_AHEAD_MAX.as_millis() as i64;
    let time = if original_ms == 0 && immediate_ms > now_ms + ahead_max_ms {
        // Of servers that have only this time a client can set it, too (SET timestamp), and there is no other to believe.
        EventTime { ms: now_ms, clamped: true }
    } else if original_ms == 0 {
        EventTime { ms: immediate_ms, clamped: false }
    } else if original_ms > immediate_ms + ahead_max_ms {
        EventTime { ms: immediate_ms, clamped: true }
    } else {
        EventTime { ms: original_ms, clamped: false }
    };
    let ahead_ms = time.ms - now_ms;
    if ahead_ms > SOURCE_CLOCK_AHEAD_MAX.as_millis() as i64 {
        return Err(ClockAhead { ahead_s: ahead_ms / 1_000 });
    }
    Ok(time)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(original_ms: u64, immediate_ms: u64) -> TransactionHead {
        TransactionHead {
            gtid: "3e11fa47-71ca-11e1-9e33-c80aa9429562:1".parse().unwrap(),
            original_commit_us: original_ms * 1_000,
            immediate_commit_us: immediate_ms * 1_000,
            checksum: None,
        }
    }

    #[test]
    fn a_replicas_transaction_keeps_its_original_time() {
        assert_eq!(event_time(&head(1_000, 9_000), 9_000), Ok(EventTime { ms: 1_000, clamped: false }));
        assert_eq!(event_time(&head(0, 9_000), 9_000), Ok(EventTime { ms: 9_000, clamped: false }));
    }

    #[test]
    fn a_time_set_to_the_far_future_is_not_believed() {
        let year_2100_ms = 4_102_444_800_000;
        assert_eq!(event_time(&head(year_2100_ms, 9_000), 9_000), Ok(EventTime { ms: 9_000, clamped: true }));
    }

    #[test]
    fn the_only_time_of_a_transaction_is_not_believed_in_the_far_future() {
        assert_eq!(event_time(&head(0, 69_000), 9_000), Ok(EventTime { ms: 69_000, clamped: false }));
        assert_eq!(event_time(&head(0, 4_102_444_800_000), 9_000), Ok(EventTime { ms: 9_000, clamped: true }));
    }

    #[test]
    fn a_source_clock_hours_ahead_stops_the_stream() {
        let day_ms = 86_400_000;
        assert_eq!(event_time(&head(day_ms, day_ms), 0), Err(ClockAhead { ahead_s: 86_400 }));
    }
}
