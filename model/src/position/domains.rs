//! GTIDs of MariaDB, `domain-server-number`. All servers of a domain go on with one numbering, so what has been executed of a
//! domain is told by its last transaction alone: everything numbered up to it. Numbers may have gaps.

use std::fmt;

use super::Gtid;
use super::spans::{End, Span, Spans};

/// What is in a set of each domain; a number goes with the server that gave it.
pub(super) type Domains = Spans<u32, u32>;

impl Domains {
    pub(super) fn last_of(&self, domain: u32) -> Option<Gtid> {
        self.last(&domain).map(|End { by, number }| Gtid::of_domain(domain, by, number))
    }
}

impl fmt::Display for Domains {
    /// As `gtid_binlog_pos` is written. What is no position shows where it begins, which nothing reads as one.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (domain, Span { after, last })) in self.iter().enumerate() {
            if index > 0 {
                f.write_str(",")?;
            }
            write!(f, "{domain}-{}-{}", last.by, last.number)?;
            if after.number > 0 {
                write!(f, " (behind {domain}-{}-{})", after.by, after.number)?;
            }
        }
        Ok(())
    }
}

/// `domain-server-number`; `None` if it is none.
pub(super) fn parse_gtid(text: &str) -> Option<Gtid> {
    let mut parts = text.split('-');
    let (domain, server_id, number) = (parts.next()?, parts.next()?, parts.next()?);
    if parts.next().is_some() || text.bytes().any(|byte| !byte.is_ascii_digit() && byte != b'-') {
        return None;
    }
    let gtid = Gtid::of_domain(domain.parse().ok()?, server_id.parse().ok()?, number.parse().ok()?);
    (gtid.gno > 0).then_some(gtid)
}

#[cfg(test)]
mod tests {
    use super::super::{Gtid, GtidSet};

    fn set(text: &str) -> GtidSet {
        text.parse().unwrap()
    }

    fn gtid(text: &str) -> Gtid {
        text.parse().unwrap()
    }

    #[test]
    fn a_position_holds_everything_up_to_the_last_of_each_domain() {
        let mut position = set("1-7-20, 0-3-5");
        assert_eq!(position.to_string(), "0-3-5,1-7-20");
        assert!(position.contains(&gtid("0-9-5")) && position.contains(&gtid("0-1-1")));
        assert!(!position.contains(&gtid("0-3-6")) && !position.contains(&gtid("2-3-1")));
        position.insert(&gtid("0-4-9"));
        assert_eq!((position.to_string().as_str(), position.count()), ("0-4-9,1-7-20", Some(29)));
        position.take_back(&gtid("0-4-9"), Some(&gtid("0-3-5")));
        assert_eq!(position, set("0-3-5,1-7-20"));
        position.take_back(&gtid("0-3-5"), None);
        assert_eq!(position, set("1-7-20"));
    }

    #[test]
    fn differences_say_how_far_one_is_behind_and_make_intersections() {
        let (ours, theirs) = (set("0-1-100,1-1-5"), set("0-2-90,2-1-3"));
        let ahead = ours.difference(&theirs);
        assert_eq!((ahead.to_string().as_str(), ahead.count()), ("0-1-100 (behind 0-2-90),1-1-5", Some(15)));
        assert!(ahead.contains(&gtid("0-1-91")) && !ahead.contains(&gtid("0-2-90")));
        // The last transaction that both have, with the server that it is of.
        assert_eq!(ours.difference(&ahead), set("0-2-90"));
        assert_eq!(ours.union(&theirs), set("0-1-100,1-1-5,2-1-3"));
        assert!(set("0-1-90").is_subset(&ours) && !ours.is_subset(&theirs));
        assert!(ours.difference(&ours).is_empty());
    }

    #[test]
    fn what_is_no_position_is_not_read_as_one() {
        for text in ["0-1", "0-1-0", "0-1-2-3", "a-1-2", "0-1-+5", "0-1-99999999999999999999", "0-1-9 (behind 0-1-3)"] {
            assert!(text.parse::<GtidSet>().is_err(), "{text}");
            assert!(text.parse::<Gtid>().is_err(), "{text}");
        }
    }

    #[test]
    fn positions_of_two_kinds_do_not_meet() {
        const MYSQL: &str = "3e11fa47-71ca-11e1-9e33-c80aa9429562:1-5";
        assert!(format!("{MYSQL},0-1-5").parse::<GtidSet>().is_err());
        assert!(set(MYSQL).same_kind(&set("0-1-5")).is_err() && set("0-1-5").same_kind(&set(MYSQL)).is_err());
        assert!(set("").same_kind(&set("0-1-5")).is_ok() && set(MYSQL).same_kind(&set(MYSQL)).is_ok());
        assert!(!set("0-1-5").is_subset(&set(MYSQL)) && !set(MYSQL).is_subset(&set("0-1-5")));
    }
}
