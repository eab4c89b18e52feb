//! The beginning of a source with XA transactions that are prepared: their rows lie before the stream, and their outcomes in
//! it.
//!
//! Such an outcome concerns rows that capture does not have. It means nothing if it lies before every load, since a load reads
//! what is committed by then. So the stream begins where it does, whatever was prepared there is waited for, and loads begin
//! behind the transactions that had been executed by its end.

use std::collections::BTreeSet;
use std::time::Instant;

use weir_model::GtidSet;
use weir_mysql::{SourceOptions, server};

use super::start::SourceFacts;
use crate::error::Error;
use crate::limits::{PREPARED_LOOKED_AT_EVERY, PREPARED_WAIT_SHORT};

/// Waits until every XA transaction has ended that is prepared at `facts.executed`; returns the transactions behind which loads
/// begin. If that takes long, `facts.executed` becomes a later moment, once.
///
/// # Errors
/// When the source cannot be asked. An account that may not see prepared transactions is warned of: the outcome of one then
/// stops the stream.
pub(super) async fn wait_for_branches(source: &SourceOptions, facts: &mut SourceFacts) -> Result<GtidSet, Error> {
    let mut connection = weir_mysql::connect(source).await?;
    let mut has_moved = false;
    loop {
        let since = Instant::now();
        // Seen after the set was read, so that whatever is prepared in it and open is among them.
        let mut open: Option<BTreeSet<_>> = None;
        let mut told = false;
        loop {
            let Some(prepared) = server::xa_recover(&mut connection).await? else {
                tracing::warn!(
                    "prepared XA transactions cannot be seen; if there are any, their XA COMMIT will stop the stream. \
                     GRANT XA_RECOVER_ADMIN ON *.* lets weir wait for them"
                );
                return Ok(server::executed_gtids(&mut connection).await?);
            };
            let left: BTreeSet<_> = match &open {
                None => prepared.into_iter().collect(),
                Some(open) => prepared.into_iter().filter(|xid| open.contains(xid)).collect(),
            };
            if left.is_empty() {
                break;
            }
            if !std::mem::replace(&mut told, true) {
                let first = left.first().map(ToString::to_string).unwrap_or_default();
                tracing::warn!(
                    prepared = left.len(),
                    %first,
                    "XA transactions are prepared whose rows cannot be read: waiting until each is committed or rolled back; \
                     XA RECOVER lists them"
                );
            }
            open = Some(left);
            tokio::time::sleep(PREPARED_LOOKED_AT_EVERY).await;
        }
        let behind = server::executed_gtids(&mut connection).await?;
        facts.purged = server::purged_gtids(&mut connection).await?;
        // A source whose transactions always take long is begun where it was looked at the second time.
        let is_there = has_moved && facts.purged.is_subset(&facts.executed);
        if since.elapsed() <= PREPARED_WAIT_SHORT || is_there {
            return Ok(behind);
        }
        facts.executed = behind;
        has_moved = true;
    }
}
