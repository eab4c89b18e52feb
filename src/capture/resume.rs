//! Whether the source can go on from where we are. Pure.

use weir_model::position::{GtidOrigin, LogName, OtherKind, PositionError};
use weir_model::{Gtid, GtidSet, LogPosition};

use crate::binlog::TransactionHead;
use crate::state::LastTransaction;
use crate::transport::Boundary;

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
        "the source names its transactions {}: gtid_mode was switched, or it is another server. Set gtid_mode as it was, or seed anew \
         with `weir snapshot`",
        if *.by_gtids { "by GTIDs, and was followed by file and position" } else { "by file and position alone, and was followed by GTIDs" }
    )]
    Switched {
        /// By what it names them.
        by_gtids: bool,
    },
    #[error(
        "without GTIDs a position is one of a single server's binlog, and the source is another: it has {theirs}, and the lake has \
         come to a place in {ours} (uuid:name). Failing over, or another name of the binlog (log_bin), cannot be survived in this mode. \
         Point [source] url at the server that was mirrored before, or seed anew with `weir snapshot`"
    )]
    OtherLog { ours: LogName, theirs: LogName },
    #[error(
        "the source's binlog ends at {end}, before {ours}, where the lake has come to: it was reset (RESET MASTER) or restored. Seed \
         anew with `weir snapshot`"
    )]
    BeyondTheEnd { ours: LogPosition, end: LogPosition },
    #[error("the source has purged binlogs that are still needed: {}. Feed archived binlogs with `weir run --binlog-dir DIR`, or seed \
             anew with `weir snapshot`", what_is_purged(.missing))]
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

fn what_is_purged(missing: &GtidSet) -> String {
    match missing.log_end() {
        Some((_, oldest)) => format!("the oldest file begins at {oldest}, and the lake has not come to there"),
        None => format!("transactions {missing} are in gtid_purged but not in the lake"),
    }
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
    is_of_the_same_log(ours, executed)?;
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

/// Without GTIDs: that both are places in one log, and the source has come to ours.
fn is_of_the_same_log(ours: &GtidSet, executed: &GtidSet) -> Result<(), Discontinuity> {
    match (ours.log_end(), executed.log_end()) {
        (None, None) => Ok(()),
        // MariaDB's positions are told by their kind.
        (None, Some(_)) if ours.is_of_domains() => Ok(()),
        (Some(_), None) if executed.is_of_domains() => Ok(()),
        (ours, None) => Err(Discontinuity::Switched { by_gtids: ours.is_some() }),
        (None, Some(_)) => Err(Discontinuity::Switched { by_gtids: false }),
        (Some((ours, _)), Some((theirs, _))) if ours != theirs => {
            Err(Discontinuity::OtherLog { ours: ours.clone(), theirs: theirs.clone() })
        }
        (Some((_, place)), Some((_, end))) if !ours.is_subset(executed) => {
            Err(Discontinuity::BeyondTheEnd { ours: place, end })
        }
        _ => Ok(()),
    }
}

/// `position` behind the transaction `head`, which ends at `end`. Without GTIDs it has then everything up to there.
///
/// # Errors
/// When the place is in another log than the position.
pub fn pass(
    position: &mut Boundary,
    head: TransactionHead,
    end: LogPosition,
    server_uuid: &str,
) -> Result<(), PositionError> {
    let previous = position.gtid_set.last_of_domain(&head.gtid);
    position.gtid_set.insert(&head.gtid);
    position.gtid_set.extend_to(&end)?;
    position.last = Some(LastTransaction {
        original_commit_us: head.identifying_us(),
        gtid: head.gtid,
        previous,
        checksum: head.checksum,
        server_uuid: server_uuid.to_owned(),
    });
    position.partial = None;
    position.log = end;
    Ok(())
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

/// That the next transaction of a domain, or of a log without GTIDs, `gtid`, is not in the place of `last`, which was asked for
/// again: another server numbered it, or `last` is not there. MySQL's sets leave no such place.
pub fn is_not_instead(last: &LastTransaction, gtid: &Gtid) -> Result<(), Discontinuity> {
    let rewritten = |what| Err(Discontinuity::Rewritten { gtid: last.gtid.to_string(), what });
    match (&gtid.origin, &last.gtid.origin) {
        _ if *gtid == last.gtid || gtid.gno < last.gtid.gno => Ok(()),
        (GtidOrigin::Domain { domain, .. }, GtidOrigin::Domain { domain: of_last, .. }) if domain == of_last => {
            rewritten("its GTID")
        }
        (GtidOrigin::Log(log), GtidOrigin::Log(of_last)) if log == of_last => rewritten("where it begins"),
        _ => Ok(()),
    }
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
    fn without_gtids_the_last_transaction_is_asked_for_by_its_place() {
        let at = |place: &str| format!("{A}:binlog.{place}").parse::<GtidSet>().unwrap();
        let mut last = last(9);
        last.gtid = format!("{A}:binlog.000007:900").parse().unwrap();
        let asked = resume(&at("000007:1200"), &at("000009:500"), &at("000005:4"), Some(&last)).unwrap();
        assert_eq!((asked.exclude, asked.verify), (at("000007:900"), Some(last.clone())));
        // Nothing but a rotation has come since.
        assert_eq!(
            resume(&at("000008:4"), &at("000009:500"), &at("000005:4"), Some(&last)).unwrap().exclude,
            at("000007:900")
        );
        let purged = resume(&at("000008:4"), &at("000009:500"), &at("000008:4"), Some(&last)).unwrap();
        assert_eq!((purged.exclude, purged.verify), (at("000008:4"), None));
        let instead = |place: &str| is_not_instead(&last, &format!("{A}:binlog.{place}").parse().unwrap()).is_err();
        assert!(instead("000007:901") && instead("000008:157") && !instead("000007:900") && !instead("000007:157"));
    }

    #[test]
    fn without_gtids_what_cannot_be_survived_is_named() {
        let set = |text: &str| text.replace("A:", &format!("{A}:")).parse::<GtidSet>().unwrap();
        let ours = set("A:binlog.000007:1200");
        let refused = |ours: &GtidSet, executed: &str, purged: &str| {
            resume(ours, &set(executed), &set(purged), None).unwrap_err().to_string()
        };
        let other = refused(&ours, "4e11fa47-71ca-11e1-9e33-c80aa9429562:binlog.000009:4", "A:binlog.000001:4");
        assert!(other.contains("Failing over") && other.contains(&format!("a place in {A}:binlog")), "{other}");
        assert!(refused(&ours, "A:mysql-bin.000009:4", "A:mysql-bin.000001:4").contains("another name of the binlog"));
        let reset = refused(&ours, "A:binlog.000007:157", "A:binlog.000001:4");
        assert!(reset.contains("ends at binlog.000007:157, before binlog.000007:1200"), "{reset}");
        let purged = refused(&ours, "A:binlog.000009:4", "A:binlog.000008:4");
        assert!(purged.contains("the oldest file begins at binlog.000008:4"), "{purged}");
        assert!(refused(&ours, "A:1-9", "").contains("by GTIDs, and was followed by file"));
        assert!(refused(&ours, "", "").contains("by GTIDs, and was followed by file"));
        assert!(refused(&set("A:1-9"), "A:binlog.000009:4", "A:binlog.000001:4").contains("was followed by GTIDs"));
        assert!(refused(&ours, "0-1-5", "").contains("different kinds"));
    }

    #[test]
    fn a_position_without_gtids_ends_with_the_transaction() {
        let mut position =
            Boundary { gtid_set: format!("{A}:binlog.000007:900").parse().unwrap(), ..Boundary::default() };
        let gtid: Gtid = format!("{A}:binlog.000007:900").parse().unwrap();
        let head = TransactionHead { gtid, original_commit_us: 5, immediate_commit_us: 5, checksum: None };
        let end = |file: &str| LogPosition { file: file.into(), offset: 1200 };
        pass(&mut position, head.clone(), end("binlog.000007"), "s").unwrap();
        assert_eq!(position.gtid_set.to_string(), format!("{A}:binlog.000007:1200"));
        assert!(pass(&mut position, head, end("other.000008"), "s").is_err());
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
