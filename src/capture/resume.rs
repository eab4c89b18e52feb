//! Whether the source can go on from where we are. Pure.

use weir_model::GtidSet;

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
        exclude.remove(&last.gtid);
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
    if last.original_commit_us != head.original_commit_us {
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
