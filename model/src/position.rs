//! Where in the binlog: GTID sets, which survive a failover, and `(file, offset)`, which one server alone understands.
//!
//! There are two kinds of GTIDs: MySQL's, numbered for each server, and MariaDB's, numbered in each domain
//! ([`domains`](self::domains)). Where MySQL has none, the place where a transaction begins stands for one ([`logs`](self::logs)).
//! None is ever in a set of another kind, and [`GtidSet::same_kind`] says so where two meet.

mod domains;
mod logs;
mod spans;

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

use self::domains::Domains;
pub use self::logs::LogName;
use self::logs::Logs;

/// The source of a GTID of MySQL: a server's uuid and, from MySQL 8.3 on, an optional tag.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GtidServer {
    /// Lower-case, with hyphens.
    pub uuid: Arc<str>,
    /// Lower-case; empty without a tag.
    pub tag: Arc<str>,
}

/// Who numbered a transaction.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum GtidOrigin {
    /// A server of MySQL, which numbers its transactions without a gap.
    Server(GtidServer),
    /// A server of MariaDB within a domain; all servers of a domain go on with one numbering, which rises and may have gaps.
    Domain { domain: u32, server_id: u32 },
    /// A binlog whose transactions have no GTIDs; the number is the place where the transaction begins.
    Log(LogName),
}

/// One transaction's global id: `uuid[:tag]:number` (MySQL manual, "GTID Format and Storage"), `domain-server-number`
/// (MariaDB documentation, "Global Transaction ID"), or without GTIDs `uuid:file:offset`, where it begins.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Gtid {
    pub origin: GtidOrigin,
    /// From 1.
    pub gno: u64,
}

impl Gtid {
    pub fn new(uuid: &str, tag: &str, gno: u64) -> Self {
        let server = GtidServer { uuid: uuid.to_ascii_lowercase().into(), tag: tag.to_ascii_lowercase().into() };
        Self { origin: GtidOrigin::Server(server), gno }
    }

    /// Whether it is one of MariaDB.
    pub fn is_of_domain(&self) -> bool {
        matches!(self.origin, GtidOrigin::Domain { .. })
    }

    /// One of MariaDB.
    pub fn of_domain(domain: u32, server_id: u32, gno: u64) -> Self {
        Self { origin: GtidOrigin::Domain { domain, server_id }, gno }
    }
}

impl fmt::Display for GtidOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Server(server) => server.fmt(f),
            Self::Domain { domain, server_id } => write!(f, "{domain}-{server_id}"),
            Self::Log(log) => log.fmt(f),
        }
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
        match &self.origin {
            GtidOrigin::Server(server) => write!(f, "{server}:{}", self.gno),
            GtidOrigin::Domain { .. } => write!(f, "{}-{}", self.origin, self.gno),
            GtidOrigin::Log(log) => write!(f, "{}:{}", log.server, log.place(self.gno)),
        }
    }
}

impl FromStr for Gtid {
    type Err = PositionError;

    fn from_str(text: &str) -> Result<Self, PositionError> {
        if let Some(gtid) = domains::parse_gtid(text.trim()) {
            return Ok(gtid);
        }
        if let Some((log, gno)) = logs::parse_place(text) {
            return Ok(Self { origin: GtidOrigin::Log(log), gno });
        }
        let expected = "a GTID (uuid[:tag]:number, or domain-server-number; without GTIDs, uuid:file:offset)";
        let error = || PositionError { text: text.into(), expected };
        let (server, gno) = text.trim().rsplit_once(':').ok_or_else(error)?;
        let (uuid, tag) = server.split_once(':').unwrap_or((server, ""));
        let gno: u64 = gno.parse().map_err(|_| error())?;
        if uuid.len() != 36 || gno == 0 || !is_tag(tag) {
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

/// A set of GTIDs of one kind. MySQL's are sorted, disjoint, non-adjacent ranges per server; MariaDB's are, per domain, all up to
/// the last one; without GTIDs it is all that begins below a place. Serialised as the server writes it, or as `uuid:file:offset`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct GtidSet {
    servers: BTreeMap<GtidServer, Vec<Range>>,
    domains: Domains,
    logs: Logs,
}

/// Two positions of different kinds met: what one server calls a transaction means nothing to the other.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{one}` and `{other}` are positions of different kinds and cannot be compared")]
pub struct OtherKind {
    pub one: String,
    pub other: String,
}

/// Inclusive at both ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Range {
    first: u64,
    last: u64,
}

impl GtidSet {
    pub fn is_empty(&self) -> bool {
        self.servers.is_empty() && self.domains.is_empty() && self.logs.is_empty()
    }

    /// Number of transactions in the set; of MariaDB, of their numbers, which may have gaps. None without GTIDs, since places do
    /// not tell how many begin below them, unless it is empty.
    pub fn count(&self) -> Option<u64> {
        let of_servers: u64 = self.servers.values().flatten().map(|r| r.last - r.first + 1).sum();
        self.logs.is_empty().then(|| of_servers + self.domains.count())
    }

    /// Whether it holds GTIDs of MariaDB.
    pub fn is_of_domains(&self) -> bool {
        !self.domains.is_empty()
    }

    /// That both sets are of one kind; an empty one is of any.
    ///
    /// # Errors
    /// When one has transactions of another kind than the other.
    pub fn same_kind(&self, other: &Self) -> Result<(), OtherKind> {
        let both = self.kinds().zip(other.kinds()).map(|(mine, theirs)| mine || theirs);
        if both.filter(|is_there| *is_there).count() > 1 {
            return Err(OtherKind { one: self.to_string(), other: other.to_string() });
        }
        Ok(())
    }

    /// Whether it has some of MySQL, of MariaDB, and without GTIDs.
    fn kinds(&self) -> impl Iterator<Item = bool> {
        [!self.servers.is_empty(), !self.domains.is_empty(), !self.logs.is_empty()].into_iter()
    }

    pub fn contains(&self, gtid: &Gtid) -> bool {
        match &gtid.origin {
            GtidOrigin::Server(server) => self.servers.get(server).is_some_and(|ranges| {
                let at = ranges.partition_point(|r| r.last < gtid.gno);
                ranges.get(at).is_some_and(|r| r.first <= gtid.gno)
            }),
            GtidOrigin::Domain { domain, .. } => self.domains.contains(domain, gtid.gno),
            GtidOrigin::Log(log) => self.logs.contains(log, gtid.gno),
        }
    }

    /// Adds a transaction; of MariaDB, with all that its domain numbered before, and without GTIDs with all that begins before it.
    pub fn insert(&mut self, gtid: &Gtid) {
        match &gtid.origin {
            GtidOrigin::Server(server) => {
                let one = Range { first: gtid.gno, last: gtid.gno };
                insert_range(self.servers.entry(server.clone()).or_default(), one);
            }
            GtidOrigin::Domain { domain, server_id } => self.domains.insert(*domain, *server_id, gtid.gno),
            GtidOrigin::Log(log) => self.logs.insert(log.clone(), (), gtid.gno),
        }
    }

    /// The last transaction of the domain that `gtid` is of; none for MySQL, whose sets have no last one.
    pub fn last_of_domain(&self, gtid: &Gtid) -> Option<Gtid> {
        match gtid.origin {
            GtidOrigin::Server(_) | GtidOrigin::Log(_) => None,
            GtidOrigin::Domain { domain, .. } => self.domains.last_of(domain),
        }
    }

    /// Takes out `gtid`, which is the last of its domain if it is MariaDB's; `before` is then the one before it in the domain.
    /// Without GTIDs the set then ends where `gtid` begins.
    pub fn take_back(&mut self, gtid: &Gtid, before: Option<&Gtid>) {
        match &gtid.origin {
            GtidOrigin::Server(_) => self.remove(gtid),
            GtidOrigin::Domain { domain, .. } => {
                self.domains.remove(domain);
                if let Some(before) = before {
                    self.insert(before);
                }
            }
            GtidOrigin::Log(log) => {
                self.logs.remove(log);
                self.logs.insert(log.clone(), (), gtid.gno - 1);
            }
        }
    }

    /// Takes out one transaction of MySQL.
    pub fn remove(&mut self, gtid: &Gtid) {
        if let GtidOrigin::Server(_) = gtid.origin {
            let mut one = Self::default();
            one.insert(gtid);
            *self = self.difference(&one);
        }
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
        result.domains.unite(&other.domains);
        result.logs.unite(&other.logs);
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
        result.domains = self.domains.difference(&other.domains);
        result.logs = self.logs.difference(&other.logs);
        result
    }

    /// `(server, first, last)` of every range of MySQL's, both ends inclusive.
    pub fn ranges(&self) -> impl Iterator<Item = (&GtidServer, u64, u64)> {
        self.servers.iter().flat_map(|(server, ranges)| ranges.iter().map(move |r| (server, r.first, r.last)))
    }

    /// Adds `first..=last` of `server`.
    pub fn insert_range(&mut self, server: GtidServer, first: u64, last: u64) {
        insert_range(self.servers.entry(server).or_default(), Range { first, last });
    }
}

/// A place in a log has a dot where a GTID may have a tag.
fn is_tag(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
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
        if uuid.is_some() && !self.domains.is_empty() {
            f.write_str(",")?;
        }
        self.domains.fmt(f)?;
        if !self.logs.is_empty() && (uuid.is_some() || !self.domains.is_empty()) {
            f.write_str(",")?;
        }
        self.logs.fmt(f)
    }
}

impl FromStr for GtidSet {
    type Err = PositionError;

    /// `uuid[:tag]:n[-m][:n[-m]]…[:tag:…]`, comma-separated, white space anywhere between (MySQL manual, "GTID Sets"), or
    /// `domain-server-number`, comma-separated, the last of each domain, or `uuid:file:offset`, where a reader goes on.
    fn from_str(text: &str) -> Result<Self, PositionError> {
        let error = || PositionError { text: text.into(), expected: "a GTID set (uuid[:tag]:interval…, …)" };
        let mut set = Self::default();
        for member in text.split(',').map(str::trim).filter(|m| !m.is_empty()) {
            if let Some(last) = domains::parse_gtid(member) {
                set.insert(&last);
                continue;
            }
            if let Some((log, end)) = logs::parse_place(member) {
                set.logs.insert(log, (), (end - 1).max(1));
                continue;
            }
            let mut parts = member.split(':').map(str::trim);
            let uuid = parts.next().filter(|u| u.len() == 36).ok_or_else(error)?.to_ascii_lowercase();
            let mut server = GtidServer { uuid: uuid.as_str().into(), tag: "".into() };
            for part in parts {
                if part.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_') {
                    server.tag = Some(part).filter(|tag| is_tag(tag)).ok_or_else(error)?.to_ascii_lowercase().into();
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
        if set.kinds().filter(|is_there| *is_there).count() > 1 {
            return Err(PositionError { text: text.into(), expected: "a GTID set of one kind" });
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
    /// Where the first event of a file stands (MySQL internals, "Binary Log Files").
    pub const FIRST_OFFSET: u64 = 4;

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

    /// The beginning of the file behind this one; none if its name has no number.
    #[must_use]
    pub fn next_file(&self) -> Option<Self> {
        let (base, number) = self.split().ok()?;
        Some(Self::beginning_of(format!("{base}.{:06}", number.checked_add(1)?)))
    }

    /// Before the first event of a file, behind the bytes that every file begins with.
    pub fn beginning_of(file: String) -> Self {
        Self { file, offset: Self::FIRST_OFFSET }
    }

    /// What the file's name has before its number, and the number.
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
        assert_eq!(at("my.binlog.000009", 900).next_file(), Some(at("my.binlog.000010", 4)));
        assert_eq!(at("binlog", 900).next_file(), None);
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
            prop_assert_eq!(left.count(), Some(a.len() as u64));
            prop_assert_eq!(set(&left.to_string()), left);
        }
    }
}
