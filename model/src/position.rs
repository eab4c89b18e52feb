//! Where in the binlog: GTID sets, which survive a failover, and `(file, offset)`, which one server alone understands.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// Text that is not what it should be. Names what was expected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not {expected}")]
pub struct PositionError {
    pub text: String,
    pub expected: &'static str,
}

/// The source of a GTID: a server's uuid and, from MySQL 8.3 on, an optional tag.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GtidServer {
    /// Lower-case, with hyphens.
    pub uuid: Arc<str>,
    /// Lower-case; empty without a tag.
    pub tag: Arc<str>,
}

/// One transaction's global id, `uuid[:tag]:gno` (MySQL manual, "GTID Format and Storage").
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Gtid {
    pub server: GtidServer,
    /// From 1.
    pub gno: u64,
}

impl Gtid {
    pub fn new(uuid: &str, tag: &str, gno: u64) -> Self {
        let server = GtidServer { uuid: uuid.to_ascii_lowercase().into(), tag: tag.to_ascii_lowercase().into() };
        Self { server, gno }
    }
}

impl fmt::Display for GtidServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.uuid)?;
        if !self.tag.is_empty() {
            write!(f, ":{}", self.tag)?;
        }
        Ok(())
    }
}

impl fmt::Display for Gtid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.server, self.gno)
    }
}

impl FromStr for Gtid {
    type Err = PositionError;

    fn from_str(text: &str) -> Result<Self, PositionError> {
        let error = || PositionError { text: text.into(), expected: "a GTID (uuid[:tag]:number)" };
        let (server, gno) = text.trim().rsplit_once(':').ok_or_else(error)?;
        let (uuid, tag) = server.split_once(':').unwrap_or((server, ""));
        let gno: u64 = gno.parse().map_err(|_| error())?;
        if uuid.len() != 36 || gno == 0 {
            return Err(error());
        }
        Ok(Self::new(uuid, tag, gno))
    }
}

impl TryFrom<String> for Gtid {
    type Error = PositionError;

    fn try_from(text: String) -> Result<Self, PositionError> {
        text.parse()
    }
}

impl From<Gtid> for String {
    fn from(gtid: Gtid) -> String {
        gtid.to_string()
    }
}

/// A set of GTIDs as sorted, disjoint, non-adjacent ranges per server. Serialised as MySQL writes it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct GtidSet {
    servers: BTreeMap<GtidServer, Vec<Range>>,
}

/// Inclusive at both ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Range {
    first: u64,
    last: u64,
}

impl GtidSet {
    pub fn is_empty(&self) -> bool {
        self.servers.is_empty()
    }

    /// Number of transactions in the set.
    pub fn count(&self) -> u64 {
        self.servers.values().flatten().map(|r| r.last - r.first + 1).sum()
    }

    pub fn contains(&self, gtid: &Gtid) -> bool {
        self.servers.get(&gtid.server).is_some_and(|ranges| {
            let at = ranges.partition_point(|r| r.last < gtid.gno);
            ranges.get(at).is_some_and(|r| r.first <= gtid.gno)
        })
    }

    pub fn insert(&mut self, gtid: &Gtid) {
        insert_range(self.servers.entry(gtid.server.clone()).or_default(), Range { first: gtid.gno, last: gtid.gno });
    }

    pub fn remove(&mut self, gtid: &Gtid) {
        let mut one = Self::default();
        one.insert(gtid);
        *self = self.difference(&one);
    }

    /// Whether every GTID of `self` is in `other`.
    pub fn is_subset(&self, other: &Self) -> bool {
        self.difference(other).is_empty()
    }

    #[must_use]
    pub fn union(&self, other: &Self) -> Self {
        let mut result = self.clone();
        for (server, ranges) in &other.servers {
            let mine = result.servers.entry(server.clone()).or_default();
            for range in ranges {
                insert_range(mine, *range);
            }
        }
        result
    }

    /// What is in `self` and not in `other`.
    #[must_use]
    pub fn difference(&self, other: &Self) -> Self {
        let mut result = Self::default();
        for (server, ranges) in &self.servers {
            let theirs = other.servers.get(server).map_or(&[][..], Vec::as_slice);
            let left: Vec<Range> = ranges.iter().flat_map(|r| subtract(*r, theirs)).collect();
            if !left.is_empty() {
                result.servers.insert(server.clone(), left);
            }
        }
        result
    }

    /// `(server, first, last)` of every range, both ends inclusive.
    pub fn ranges(&self) -> impl Iterator<Item = (&GtidServer, u64, u64)> {
        self.servers.iter().flat_map(|(server, ranges)| ranges.iter().map(move |r| (server, r.first, r.last)))
    }

    /// Adds `first..=last` of `server`.
    pub fn insert_range(&mut self, server: GtidServer, first: u64, last: u64) {
        insert_range(self.servers.entry(server).or_default(), Range { first, last });
    }
}

fn insert_range(ranges: &mut Vec<Range>, new: Range) {
    if let Some(tail) = ranges.last_mut()
        && new.first > tail.last
    {
        if new.first == tail.last + 1 {
            tail.last = new.last;
        } else {
            ranges.push(new);
        }
        return;
    }
    let from = ranges.partition_point(|r| r.last + 1 < new.first);
    let to = ranges.partition_point(|r| r.first <= new.last.saturating_add(1));
    let merged =
        ranges[from..to].iter().fold(new, |acc, r| Range { first: acc.first.min(r.first), last: acc.last.max(r.last) });
    ranges.splice(from..to, [merged]);
}

fn subtract(range: Range, holes: &[Range]) -> Vec<Range> {
    let mut left = Vec::new();
    let mut first = range.first;
    for hole in holes.iter().skip_while(|h| h.last < range.first).take_while(|h| h.first <= range.last) {
        if hole.first > first {
            left.push(Range { first, last: hole.first - 1 });
        }
        first = hole.last + 1;
    }
    if first <= range.last {
        left.push(Range { first, last: range.last });
    }
    left
}

impl fmt::Display for GtidSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut uuid: Option<&str> = None;
        for (server, ranges) in &self.servers {
            if uuid != Some(&*server.uuid) {
                if uuid.is_some() {
                    f.write_str(",")?;
                }
                f.write_str(&server.uuid)?;
                uuid = Some(&server.uuid);
            }
            if !server.tag.is_empty() {
                write!(f, ":{}", server.tag)?;
            }
            for range in ranges {
                if range.first == range.last {
                    write!(f, ":{}", range.first)?;
                } else {
                    write!(f, ":{}-{}", range.first, range.last)?;
                }
            }
        }
        Ok(())
    }
}

impl FromStr for GtidSet {
    type Err = PositionError;

    /// `uuid[:tag]:n[-m][:n[-m]]…[:tag:…]`, comma-separated, white space anywhere between (MySQL manual, "GTID Sets").
    fn from_str(text: &str) -> Result<Self, PositionError> {
        let error = || PositionError { text: text.into(), expected: "a GTID set (uuid[:tag]:interval…, …)" };
        let mut set = Self::default();
        for member in text.split(',').map(str::trim).filter(|m| !m.is_empty()) {
            let mut parts = member.split(':').map(str::trim);
            let uuid = parts.next().filter(|u| u.len() == 36).ok_or_else(error)?.to_ascii_lowercase();
            let mut server = GtidServer { uuid: uuid.as_str().into(), tag: "".into() };
            for part in parts {
                if part.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_') {
                    server.tag = part.to_ascii_lowercase().into();
                    continue;
                }
                let (first, last) = part.split_once('-').unwrap_or((part, part));
                let first: u64 = first.trim().parse().map_err(|_| error())?;
                let last: u64 = last.trim().parse().map_err(|_| error())?;
                if first == 0 || last < first {
                    return Err(error());
                }
                set.insert_range(server.clone(), first, last);
            }
        }
        Ok(set)
    }
}

impl TryFrom<String> for GtidSet {
    type Error = PositionError;

    fn try_from(text: String) -> Result<Self, PositionError> {
        text.parse()
    }
}

impl From<GtidSet> for String {
    fn from(set: GtidSet) -> String {
        set.to_string()
    }
}

/// An offset in one server's binlog: file name and byte offset of the next event.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct LogPosition {
    /// Base name with its number, such as `binlog.000042`.
    pub file: String,
    pub offset: u64,
}

impl LogPosition {
    /// Whether a reader at `self` has read everything below `other`.
    ///
    /// # Errors
    /// When the two names do not belong to one log: different base names, or no number at the end.
    pub fn has_passed(&self, other: &Self) -> Result<bool, PositionError> {
        let (mine, my_number) = self.split()?;
        let (theirs, their_number) = other.split()?;
        if mine != theirs {
            return Err(PositionError { text: other.to_string(), expected: "a position of the same binlog" });
        }
        Ok((my_number, self.offset) >= (their_number, other.offset))
    }

    fn split(&self) -> Result<(&str, u64), PositionError> {
        let error = || PositionError { text: self.file.clone(), expected: "a binlog file name with a number" };
        let (base, number) = self.file.rsplit_once('.').ok_or_else(error)?;
        Ok((base, number.parse().map_err(|_| error())?))
    }
}

impl fmt::Display for LogPosition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file, self.offset)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    const A: &str = "3e11fa47-71ca-11e1-9e33-c80aa9429562";
    const B: &str = "4e11fa47-71ca-11e1-9e33-c80aa9429562";

    fn set(text: &str) -> GtidSet {
        text.parse().unwrap()
    }

    #[test]
    fn adjacent_ranges_join_and_print_as_mysql_does() {
        let text = format!("{A}:1-3:5,\n{B}:7");
        assert_eq!(set(&text).to_string(), format!("{A}:1-3:5,{B}:7"));
        let mut joined = set(&text);
        joined.insert(&format!("{A}:4").parse().unwrap());
        assert_eq!(joined.to_string(), format!("{A}:1-5,{B}:7"));
    }

    #[test]
    fn tags_are_servers_of_their_own() {
        let tagged = set(&format!("{A}:1-3:batch:1-2"));
        assert!(tagged.contains(&Gtid::new(A, "batch", 2)));
        assert!(!tagged.contains(&Gtid::new(A, "batch", 3)));
        assert_eq!(tagged.to_string(), format!("{A}:1-3:batch:1-2"));
        assert_eq!(set(&tagged.to_string()), tagged);
    }

    #[test]
    fn positions_compare_by_number_not_by_text() {
        let at = |file: &str, offset| LogPosition { file: file.into(), offset };
        assert_eq!(at("binlog.1000000", 4).has_passed(&at("binlog.999999", 900)), Ok(true));
        assert_eq!(at("binlog.000009", 4).has_passed(&at("binlog.000010", 4)), Ok(false));
        assert!(at("binlog.000009", 4).has_passed(&at("other.000009", 4)).is_err());
    }

    fn model(members: &BTreeSet<u64>) -> GtidSet {
        let mut result = GtidSet::default();
        for gno in members {
            result.insert(&Gtid::new(A, "", *gno));
        }
        result
    }

    proptest! {
        #[test]
        fn set_operations_agree_with_plain_sets(
            a in prop::collection::vec(1_u64..40, 0..30),
            b in prop::collection::btree_set(1_u64..40, 0..30),
        ) {
            let mut left = GtidSet::default();
            for gno in &a {
                left.insert(&Gtid::new(A, "", *gno));
            }
            let a: BTreeSet<u64> = a.into_iter().collect();
            let right = model(&b);
            prop_assert_eq!(&left, &model(&a));
            prop_assert_eq!(left.union(&right), model(&a.union(&b).copied().collect()));
            prop_assert_eq!(left.difference(&right), model(&a.difference(&b).copied().collect()));
            prop_assert_eq!(left.is_subset(&right), a.is_subset(&b));
            prop_assert_eq!(left.count(), a.len() as u64);
            prop_assert_eq!(set(&left.to_string()), left);
        }
    }
}
