//! Whether the source can go on from where we are. Pure.

use weir_model::position::{GtidOrigin, OtherKind};
use weir_model::{Gtid, GtidSet};

use crate::binlog::TransactionHead;
use crate::state::LastTransaction;

/// How to ask for the stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resume {
    /// What the server must not send.
    pub exclude: GtidSet,
    /// The transaction asked for once more, to see that it is still the same one.
    pub verify: Option<LastTransaction>,
}

/// The source cannot go on from our position.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Discontinuity {
    #[error("{0}. Point [source] url at the server that was mirrored before, or seed anew with `weir snapshot`")]
    OtherKind(#[from] OtherKind),
    #[error(
        "the source has purged binlogs that are still needed: transactions {missing} are in gtid_purged but not in \
         the lake. Feed archived binlogs with `weir run --binlog-dir DIR`, or seed anew with `weir snapshot`"
    )]
    Purged { missing: GtidSet },
    #[error(
        "the source does not have transactions {unknown} that the lake holds: it was reset, restored, or is another \
         server. Point [source] url at the right one, or seed anew with `weir snapshot`"
    )]
    Unknown { unknown: GtidSet },
    #[error(
        "transaction {gtid} is not the one that was applied before ({what} differs): the source's history was \
         rewritten. Seed anew with `weir snapshot`"
    )]
    Rewritten { gtid: String, what: &'static str },
}

/// `gtid_purged ⊆ ours ⊆ gtid_executed`, and the last transaction asked for again if it has not been purged.
///
/// # Errors
/// When the first is not so: with the GTIDs that are missing or unknown.
pub fn resume(
    ours: &GtidSet,
    executed: &GtidSet,
    purged: &GtidSet,
    last: Option<&LastTransaction>,
) -> Result<Resume, Discontinuity> {
    ours.same_kind(executed)?;
    let unknown = ours.difference(executed);
    if !unknown.is_empty() {
        return Err(Discontinuity::Unknown { unknown });
    }
    let missing = purged.difference(ours);
    if !missing.is_empty() {
        return Err(Discontinuity::Purged { missing });
    }
    let verify = last.filter(|last| !purged.contains(&last.gtid)).cloned();
    let mut exclude = ours.clone();
    if let Some(last) = &verify {
        exclude.take_back(&last.gtid, last.previous.as_ref());
    }
    Ok(Resume { exclude, verify })
}

/// Whether `head`, read again, is the transaction that `last` remembers. On another server only the time can be
/// compared: its log has other checksums.
pub fn is_same_transaction(
    last: &LastTransaction,
    head: &TransactionHead,
    server_uuid: &str,
) -> Result<(), Discontinuity> {
    let rewritten = |what| Err(Discontinuity::Rewritten { gtid: last.gtid.to_string(), what });
    if last.original_commit_us != head.identifying_us() {
        return rewritten("its commit time");
    }
    if last.server_uuid == server_uuid
        && last.checksum.is_some()
        && head.checksum.is_some()
        && last.checksum != head.checksum
    {
        return rewritten("its checksum");
    }
    Ok(())
}

/// That the next transaction of a domain, `gtid`, is not in the place of `last`, which was asked for again: another server numbered
/// it, or `last` is not there. MySQL's sets leave no such place.
pub fn is_not_instead(last: &LastTransaction, gtid: &Gtid) -> Result<(), Discontinuity> {
    let domain = |gtid: &Gtid| match gtid.origin {
        GtidOrigin::Server(_) => None,
        GtidOrigin::Domain { domain, .. } => Some(domain),
    };
    if domain(gtid).is_some() && domain(gtid) == domain(&last.gtid) && *gtid != last.gtid && gtid.gno >= last.gtid.gno {
        return Err(Discontinuity::Rewritten { gtid: last.gtid.to_string(), what: "its GTID" });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = "3e11fa47-71ca-11e1-9e33-c80aa9429562";

    fn set(intervals: &str) -> GtidSet {
        if intervals.is_empty() { GtidSet::default() } else { format!("{A}:{intervals}").parse().unwrap() }
    }

    fn last(gno: u64) -> LastTransaction {
        LastTransaction {
            gtid: format!("{A}:{gno}").parse().unwrap(),
            original_commit_us: 5,
            previous: None,
            checksum: Some(7),
            server_uuid: "s".into(),
        }
    }

    #[test]
    fn the_last_transaction_is_asked_for_again() {
        let resume = resume(&set("1-9"), &set("1-20"), &set("1-3"), Some(&last(9))).unwrap();
        assert_eq!(resume.exclude, set("1-8"));
        assert_eq!(resume.verify, Some(last(9)));
    }

    #[test]
    fn a_purged_last_transaction_is_not_asked_for() {
        let resume = resume(&set("1-9"), &set("1-20"), &set("1-9"), Some(&last(9))).unwrap();
        assert_eq!((resume.exclude, resume.verify), (set("1-9"), None));
    }

    #[test]
    fn of_a_domain_the_last_transaction_is_asked_for_from_the_one_before_it() {
        let set = |text: &str| text.parse::<GtidSet>().unwrap();
        let mut last = last(9);
        (last.gtid, last.previous) = ("0-1-9".parse().unwrap(), Some("0-2-8".parse().unwrap()));
        let asked = resume(&set("0-1-9,1-1-4"), &set("0-1-20,1-1-4"), &set("0-1-3"), Some(&last)).unwrap();
        assert_eq!(asked.exclude, set("0-2-8,1-1-4"));
        last.previous = None;
        assert_eq!(resume(&set("0-1-9"), &set("0-1-20"), &set(""), Some(&last)).unwrap().exclude, set(""));
        assert!(resume(&set("0-1-9"), &set("0-1-20"), &set("0-1-9"), Some(&last)).unwrap().verify.is_none());
    }

    #[test]
    fn another_transaction_of_the_domain_in_the_place_of_the_last_is_seen() {
        let mut last = last(9);
        last.gtid = "0-1-9".parse().unwrap();
        let instead = |gtid: &str| is_not_instead(&last, &gtid.parse().unwrap()).is_err();
        assert!(instead("0-2-9") && instead("0-1-10"));
        assert!(!instead("0-1-9") && !instead("0-2-8") && !instead("1-1-50") && !instead(&format!("{A}:50")));
    }

    #[test]
    fn a_source_of_another_kind_is_refused() {
        let mariadb: GtidSet = "0-1-20".parse().unwrap();
        let refused = resume(&set("1-9"), &mariadb, &set(""), Some(&last(9))).unwrap_err();
        assert!(matches!(refused, Discontinuity::OtherKind(_)) && refused.to_string().contains("different kinds"));
    }

    #[test]
    fn purged_and_unknown_transactions_are_named() {
        assert_eq!(
            resume(&set("1-9"), &set("1-20"), &set("1-12"), None),
            Err(Discontinuity::Purged { missing: set("10-12") })
        );
        assert_eq!(
            resume(&set("1-9"), &set("1-4"), &set(""), None),
            Err(Discontinuity::Unknown { unknown: set("5-9") })
        );
    }

    #[test]
    fn a_reused_gtid_is_told_by_its_time_and_on_the_same_server_by_its_checksum() {
        let head = |us, checksum| TransactionHead {
            gtid: last(9).gtid,
            original_commit_us: us,
            immediate_commit_us: us,
            checksum: Some(checksum),
        };
        assert!(is_same_transaction(&last(9), &head(5, 7), "s").is_ok());
        assert!(is_same_transaction(&last(9), &head(6, 7), "other").is_err());
        assert!(is_same_transaction(&last(9), &head(5, 8), "s").is_err());
        assert!(is_same_transaction(&last(9), &head(5, 8), "other").is_ok());
    }
}
