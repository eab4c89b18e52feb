//! Transactions without GTIDs: each is named by the place in one server's binlog where it begins, and what has been executed is
//! told by a place alone, since it is all that begins below. So a place stands for a GTID, and everything that compares sets
//! needs to know nothing of it.
//!
//! A place is numbered so that numbers rise as the log grows: the number of its file above, the offset below. It means nothing to
//! another server, nor in a binlog of another name.

use std::fmt;
use std::sync::Arc;

use super::spans::{Span, Spans};
use super::{Gtid, GtidOrigin, LogPosition, PositionError};

/// Bits of the offset: files of 64 GiB. The others are the file's number.
const OFFSET_BITS: u32 = 36;
const FILE_MAX: u64 = (1 << (64 - OFFSET_BITS)) - 1;
const OFFSET_MAX: u64 = (1 << OFFSET_BITS) - 1;

/// The binlog of one server.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LogName {
    /// The server's uuid, lower-case, with hyphens.
    pub server: Arc<str>,
    /// What the names of its files have before the number.
    pub base: Arc<str>,
}

/// How far sets reach in each log.
pub(super) type Logs = Spans<LogName, ()>;

impl LogName {
    /// The log of `server` that `place` is in.
    ///
    /// # Errors
    /// When its files have no names that can be told from the rest of a position.
    pub fn of(server: &str, place: &LogPosition) -> Result<Self, PositionError> {
        let (base, _) = place.split()?;
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte);
        if base.is_empty() || !base.bytes().all(is_plain) {
            let expected = "a binlog file name of letters, digits, `_`, `-` and `.` alone";
            return Err(PositionError { text: place.file.clone(), expected });
        }
        Ok(Self { server: server.to_ascii_lowercase().into(), base: base.into() })
    }

    /// The number of a place in this log.
    pub(super) fn number(&self, place: &LogPosition) -> Result<u64, PositionError> {
        let error = |expected| PositionError { text: place.to_string(), expected };
        let (base, file) = place.split()?;
        if *base != *self.base {
            return Err(error("a place in the binlog that is followed"));
        }
        if file > FILE_MAX || place.offset > OFFSET_MAX {
            return Err(error("a place that can be numbered: a file number below 2^28, an offset below 64 GiB"));
        }
        Ok(file << OFFSET_BITS | place.offset)
    }

    /// The place with that number. MySQL writes numbers of files with six digits or more.
    pub(super) fn place(&self, number: u64) -> LogPosition {
        let file = format!("{}.{:06}", self.base, number >> OFFSET_BITS);
        LogPosition { file, offset: number & OFFSET_MAX }
    }
}

impl fmt::Display for LogName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.server, self.base)
    }
}

impl fmt::Display for Logs {
    /// Where a reader goes on that has all of the set, such as `uuid:binlog.000042:157`. What is no position shows where it
    /// begins, which nothing reads as one.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (log, Span { after, last })) in self.iter().enumerate() {
            if index > 0 {
                f.write_str(",")?;
            }
            write!(f, "{}:{}", log.server, log.place(last.number + 1))?;
            if after.number > 0 {
                write!(f, " (behind {})", log.place(after.number + 1))?;
            }
        }
        Ok(())
    }
}

/// `uuid:file:offset`, the log and the number of the place; `None` if it is none. A tag of a GTID has no dot.
pub(super) fn parse_place(text: &str) -> Option<(LogName, u64)> {
    let mut parts = text.trim().split(':');
    let (server, file, offset) = (parts.next()?, parts.next()?, parts.next()?);
    if parts.next().is_some() || server.len() != 36 || !offset.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let place = LogPosition { file: file.into(), offset: offset.parse().ok()? };
    let log = LogName::of(server, &place).ok()?;
    let number = log.number(&place).ok()?;
    // Only names as they are written again.
    (number > 0 && log.place(number) == place).then_some((log, number))
}

impl Gtid {
    /// The transaction that begins at `place`.
    ///
    /// # Errors
    /// When that is in another log.
    pub fn of_log(log: &LogName, place: &LogPosition) -> Result<Self, PositionError> {
        Ok(Self { gno: log.number(place)?, origin: GtidOrigin::Log(log.clone()) })
    }

    /// Whether it is named by a place in a log.
    pub fn is_of_log(&self) -> bool {
        matches!(self.origin, GtidOrigin::Log(_))
    }
}

impl super::GtidSet {
    /// Everything in `log` that begins below `end`.
    ///
    /// # Errors
    /// When `end` is in another log, or at the very beginning of all.
    pub fn up_to(log: &LogName, end: &LogPosition) -> Result<Self, PositionError> {
        let last = log.number(end)?.checked_sub(1).filter(|last| *last > 0);
        let last = last.ok_or_else(|| PositionError { text: end.to_string(), expected: "a place in a binlog" })?;
        let mut set = Self::default();
        set.logs.insert(log.clone(), (), last);
        Ok(set)
    }

    /// Whether it holds transactions that are named by their places.
    pub fn is_of_log(&self) -> bool {
        !self.logs.is_empty()
    }

    /// The log that it is of, and where a reader goes on there that has all of it.
    pub fn log_end(&self) -> Option<(&LogName, LogPosition)> {
        self.logs.iter().next().map(|(log, span)| (log, log.place(span.last.number + 1)))
    }

    /// The log has been read up to `end`, between two transactions; whether that adds to the set. One that is not of a log stays
    /// as it is.
    ///
    /// # Errors
    /// When `end` is in another log.
    pub fn extend_to(&mut self, end: &LogPosition) -> Result<bool, PositionError> {
        let Some((log, before)) = self.logs.iter().next().map(|(log, span)| (log.clone(), span.last.number)) else {
            return Ok(false);
        };
        let last = log.number(end)?.saturating_sub(1);
        self.logs.insert(log, (), last);
        Ok(last > before)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::GtidSet;
    use super::*;

    const A: &str = "3e11fa47-71ca-11e1-9e33-c80aa9429562";
    const B: &str = "4e11fa47-71ca-11e1-9e33-c80aa9429562";

    fn at(file: &str, offset: u64) -> LogPosition {
        LogPosition { file: file.into(), offset }
    }

    fn log() -> LogName {
        LogName::of(&A.to_uppercase(), &at("binlog.000001", 4)).unwrap()
    }

    fn up_to(file: &str, offset: u64) -> GtidSet {
        GtidSet::up_to(&log(), &at(file, offset)).unwrap()
    }

    #[test]
    fn a_position_holds_what_begins_below_it() {
        let position = up_to("binlog.000042", 157);
        assert_eq!(position.to_string(), format!("{A}:binlog.000042:157"));
        let holds = |file: &str, offset| position.contains(&Gtid::of_log(&log(), &at(file, offset)).unwrap());
        assert!(holds("binlog.000042", 156) && holds("binlog.000041", 9_000_000_000) && holds("binlog.000001", 4));
        assert!(!holds("binlog.000042", 157) && !holds("binlog.000043", 4));
        assert_eq!(position.log_end(), Some((&log(), at("binlog.000042", 157))));
        assert!(up_to("binlog.000043", 4).is_subset(&up_to("binlog.000043", 5)));
        assert!(!up_to("binlog.1000000", 4).is_subset(&up_to("binlog.999999", 5)));
    }

    #[test]
    fn reading_on_extends_it_and_reading_again_does_not() {
        let mut position = up_to("binlog.000042", 157);
        assert_eq!(position.extend_to(&at("binlog.000042", 157)), Ok(false));
        assert_eq!(position.extend_to(&at("binlog.000042", 120)), Ok(false));
        assert_eq!(position.extend_to(&at("binlog.000043", 4)), Ok(true));
        assert_eq!(position, up_to("binlog.000043", 4));
        assert!(position.extend_to(&at("other.000044", 4)).is_err());
        let mut gtids: GtidSet = format!("{A}:1-5").parse().unwrap();
        assert_eq!(gtids.extend_to(&at("binlog.000043", 4)), Ok(false));
        // The transaction is in before its end is known; asked for again, the reader goes on at its beginning.
        let mut inserted = up_to("binlog.000042", 157);
        let transaction = Gtid::of_log(&log(), &at("binlog.000042", 157)).unwrap();
        inserted.insert(&transaction);
        assert!(inserted.contains(&transaction));
        assert_eq!(inserted.extend_to(&at("binlog.000042", 400)), Ok(true));
        inserted.take_back(&transaction, None);
        assert_eq!(inserted, up_to("binlog.000042", 157));
    }

    #[test]
    fn a_transaction_is_named_by_where_it_begins() {
        let transaction = Gtid::of_log(&log(), &at("binlog.000042", 157)).unwrap();
        assert_eq!(transaction.to_string(), format!("{A}:binlog.000042:157"));
        assert_eq!(transaction.to_string().parse::<Gtid>().unwrap(), transaction);
        assert!(Gtid::of_log(&log(), &at("other.000042", 157)).is_err());
    }

    #[test]
    fn logs_of_two_servers_or_names_are_not_compared_by_number() {
        let ours = up_to("binlog.000042", 157);
        let set = |text: String| text.parse::<GtidSet>().unwrap();
        for other in [set(format!("{B}:binlog.000099:157")), set(format!("{A}:mysql-bin.000099:157"))] {
            assert!(!ours.is_subset(&other) && ours.same_kind(&other).is_ok());
        }
        assert_eq!(
            set(format!("{A}:binlog.000050:4")).difference(&ours).to_string(),
            format!("{A}:binlog.000050:4 (behind binlog.000042:157)")
        );
        let gtids = set(format!("{A}:1-5"));
        assert!(ours.same_kind(&gtids).unwrap_err().to_string().contains("different kinds"));
        assert!(format!("{A}:1-5,{A}:binlog.000050:4").parse::<GtidSet>().is_err());
    }

    #[test]
    fn what_is_no_place_is_not_read_as_one() {
        for text in [":binlog.000042:157", "binlog.000042:", "binlog.42:157", "b,i.000042:157", "binlog.000042:+7"] {
            assert!(format!("{A}:{text}").parse::<Gtid>().is_err(), "{text}");
        }
        for file in ["bin log.000001", "b:1.000001", ".000001", "binlog"] {
            assert!(LogName::of(A, &at(file, 4)).is_err(), "{file}");
        }
        let beyond = |file: &str, offset| log().number(&at(file, offset)).is_err();
        assert!(beyond("binlog.268435456", 4) && beyond("binlog.000001", 1 << 36));
        assert!(!beyond("binlog.268435455", (1 << 36) - 1));
    }

    proptest! {
        #[test]
        fn places_come_back_and_keep_their_order(
            a in (1_u64..3_000_000, 4_u64..1 << 36), b in (1_u64..3_000_000, 4_u64..1 << 36),
        ) {
            let place = |(file, offset): (u64, u64)| at(&format!("my.host-bin.{file:06}"), offset);
            let log = LogName::of(A, &place(a)).unwrap();
            let (one, other) = (log.number(&place(a)).unwrap(), log.number(&place(b)).unwrap());
            prop_assert_eq!(one.cmp(&other), a.cmp(&b));
            prop_assert_eq!(log.place(one), place(a));
            let set = GtidSet::up_to(&log, &place(a)).unwrap();
            prop_assert_eq!(set.to_string().parse::<GtidSet>().unwrap(), set);
        }
    }
}
