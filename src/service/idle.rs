//! A source that sends nothing but heartbeats, while its log goes on elsewhere: a reader keeps the file that it has open, so a
//! server that was reset under it goes on telling it that there is nothing new.

use std::time::Instant;

use weir_model::LogPosition;
use weir_mysql::{SourceOptions, server};

use crate::binlog::{EventBody, Source, SourceError, SourceEvent};
use crate::limits::IDLE_LOOKED_AT_EVERY;

/// A live source whose server is asked, now and then, whether its log ends where the stream does.
pub struct Watched<S> {
    source: S,
    options: SourceOptions,
    idle: Idle,
}

impl<S: Source + Send> Watched<S> {
    pub fn new(source: S, options: SourceOptions) -> Self {
        Self { source, options, idle: Idle::at(LogPosition::default()) }
    }
}

/// The end of the server's log; none if it cannot be asked: whoever reads the stream finds that out, too.
async fn end_of_log(source: &SourceOptions) -> Option<LogPosition> {
    let mut connection = weir_mysql::connect(source).await.ok()?;
    server::binlog_end(&mut connection).await.ok()
}

impl<S: Source + Send> Source for Watched<S> {
    async fn next(&mut self) -> Result<Option<SourceEvent>, SourceError> {
        let event = self.source.next().await?;
        if let Some(SourceEvent { end, body: EventBody::Position, .. }) = &event {
            self.idle.note(end);
            if self.idle.since.elapsed() >= IDLE_LOOKED_AT_EVERY
                && let Some(end) = end_of_log(&self.options).await
                && self.idle.is_left_behind(end.clone())
            {
                let why = format!(
                    "the server has sent nothing behind {} for long, and its log ends at {end}",
                    self.idle.place
                );
                return Err(SourceError::Retryable { why });
            }
        }
        Ok(event)
    }
}

/// How long the stream has stood at a place, and where the server's log ended meanwhile.
struct Idle {
    place: LogPosition,
    /// When it came there, or was looked at last.
    since: Instant,
    looked: Option<LogPosition>,
}

impl Idle {
    fn at(place: LogPosition) -> Self {
        Self { place, since: Instant::now(), looked: None }
    }

    fn note(&mut self, place: &LogPosition) {
        if self.place != *place {
            *self = Self::at(place.clone());
        }
    }

    /// Whether the log ends before the place where the stream stands, or has gone on while that stood. What was written a moment
    /// ago is on its way.
    fn is_left_behind(&mut self, end: LogPosition) -> bool {
        self.since = Instant::now();
        let before = self.looked.replace(end.clone());
        let is_of_this_log = end.has_passed(&self.place).unwrap_or(false);
        end != self.place && (!is_of_this_log || before.is_some_and(|before| before != end))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(file: &str, offset: u64) -> LogPosition {
        LogPosition { file: file.into(), offset }
    }

    #[test]
    fn a_log_that_ends_before_the_stream_or_goes_on_without_it_has_left_it() {
        let fresh = || Idle::at(place("binlog.000002", 500));
        for end in [place("binlog.000002", 400), place("binlog.000001", 900), place("other.000007", 4)] {
            assert!(fresh().is_left_behind(end));
        }
        assert!(!fresh().is_left_behind(place("binlog.000002", 500)));
        let mut idle = fresh();
        // It may be on its way.
        assert!(!idle.is_left_behind(place("binlog.000002", 600)));
        assert!(!idle.is_left_behind(place("binlog.000002", 600)));
        assert!(idle.is_left_behind(place("binlog.000003", 100)));
        let mut idle = fresh();
        assert!(!idle.is_left_behind(place("binlog.000002", 600)));
        idle.note(&place("binlog.000002", 600));
        assert!(!idle.is_left_behind(place("binlog.000002", 700)));
    }
}
