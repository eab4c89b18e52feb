//! What a command tells the person or program that started it: what happened, where, the way out, and the exit code.
//!
//! Rooms have errors of their own beside their operations; here they become one kind only where the caller acts
//! differently. Differences that `reconcile` finds are an [`Exit`], not an error. No row values, no passwords.

use std::error::Error as StdError;
use std::fmt::Write as _;
use std::process::ExitCode;

/// What the caller acts on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Wrong usage or configuration: mend it, trying again is of no use.
    Config,
    /// It was tried and did not come about.
    Failed,
    /// Another instance with a higher epoch took over: leave it alone.
    Fenced,
}

/// How a command ended; the numbers are the process's exit codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    Done = 0,
    Failed = 1,
    Usage = 2,
    Different = 3,
    Fenced = 4,
}

impl From<Kind> for Exit {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Config => Self::Usage,
            Kind::Failed => Self::Failed,
            Kind::Fenced => Self::Fenced,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// What happened, where, why, and the way out.
#[derive(Debug, thiserror::Error)]
#[error("{what}")]
pub struct Error {
    kind: Kind,
    what: String,
    place: Option<String>,
    way_out: Option<String>,
    #[source]
    source: Option<Box<dyn StdError + Send + Sync>>,
}

impl Error {
    pub fn new(kind: Kind, what: impl Into<String>) -> Self {
        Self { kind, what: what.into(), place: None, way_out: None, source: None }
    }

    /// Wrong usage or configuration.
    pub fn config(what: impl Into<String>) -> Self {
        Self::new(Kind::Config, what)
    }

    pub fn failed(what: impl Into<String>) -> Self {
        Self::new(Kind::Failed, what)
    }

    /// Another instance took over.
    pub fn fenced(what: impl Into<String>) -> Self {
        Self::new(Kind::Fenced, what)
    }

    /// The table, position, version, file or key it is about.
    #[must_use]
    pub fn at(mut self, place: impl Into<String>) -> Self {
        self.place = Some(place.into());
        self
    }

    /// What the reader can do about it.
    #[must_use]
    pub fn way_out(mut self, way_out: impl Into<String>) -> Self {
        self.way_out = Some(way_out.into());
        self
    }

    /// The error underneath.
    #[must_use]
    pub fn because(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    pub fn kind(&self) -> Kind {
        self.kind
    }

    pub fn exit(&self) -> Exit {
        self.kind.into()
    }

    /// The table, position, version, file or key it is about.
    pub fn place(&self) -> Option<&str> {
        self.place.as_deref()
    }

    /// What happened and every cause, in one line.
    pub fn in_a_line(&self) -> String {
        let mut text = self.what.clone();
        let mut cause = self.source();
        while let Some(error) = cause {
            let line = error.to_string();
            // Many errors repeat their source in their own message.
            if !text.contains(&line) {
                let _ = write!(text, ": {line}");
            }
            cause = error.source();
        }
        text
    }

    /// The whole story for stderr: a line each for what, where, every cause, and the way out.
    pub fn render(&self) -> String {
        let mut text = format!("error: {}", self.what);
        if let Some(place) = &self.place {
            let _ = write!(text, "\n  where: {place}");
        }
        let mut told = self.what.clone();
        let mut cause = self.source();
        while let Some(error) = cause {
            let line = error.to_string();
            // Many errors repeat their source in their own message.
            if !told.contains(&line) {
                let _ = write!(text, "\n  because: {line}");
                told = line;
            }
            cause = error.source();
        }
        if let Some(way_out) = &self.way_out {
            let _ = write!(text, "\n  way out: {way_out}");
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_story_names_what_where_why_and_the_way_out() {
        let error = Error::failed("the checkpoint could not be written")
            .at("source shop, number 17")
            .way_out("make the warehouse writable")
            .because(std::io::Error::from(std::io::ErrorKind::PermissionDenied));
        assert_eq!(
            error.render(),
            "error: the checkpoint could not be written\n  where: source shop, number 17\n  because: permission denied\n  \
             way out: make the warehouse writable"
        );
    }

    #[test]
    fn a_line_has_every_cause_once() {
        let error = Error::failed("the trace is away").because(std::io::Error::other("connection refused"));
        assert_eq!(error.in_a_line(), "the trace is away: connection refused");
        let repeated = Error::failed("trace: disk full").because(std::io::Error::other("disk full"));
        assert_eq!(repeated.in_a_line(), "trace: disk full");
    }

    #[test]
    fn a_cause_that_its_error_already_tells_is_not_told_twice() {
        let inner = std::io::Error::other("disk full");
        let error = Error::failed("trace: disk full").because(inner);
        assert_eq!(error.render(), "error: trace: disk full");
    }

    #[test]
    fn each_kind_has_its_exit_code() {
        let exits = [Error::config("").exit(), Error::failed("").exit(), Error::fenced("").exit(), Exit::Different];
        assert_eq!(exits.map(|exit| exit as u8), [2, 1, 4, 3]);
    }
}
