//! Compares the counts of every hop, of tables that have changed, every so often.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use weir_model::{TableId, Window, clock};

use super::book::Book;
use crate::config::Config;
use crate::error::Error;
use crate::limits::{HOPS_OVERLAP, HOPS_WHOLE_EVERY};
use crate::reconcile::{Question, Report, TableFacts, Verdict, gather, report};
use crate::service::trace::ConfiguredTrace;
use crate::service::{kafka_of, ms};
use crate::state::proofs::{HopsProof, Proofs};
use crate::table::Warehouse;

/// Compares counts until it is dropped.
pub async fn prove_hops(
    config: Config,
    warehouse: Warehouse,
    trace: Arc<ConfiguredTrace>,
    book: Arc<Book>,
    every: Duration,
) {
    let compared = Compared { config, warehouse, trace, book };
    let book = &compared.book;
    let mut whole_ms = i64::MIN;
    loop {
        tokio::time::sleep(every).await;
        let now_ms = clock::now_ms();
        let whole = now_ms.saturating_sub(whole_ms) >= ms(HOPS_WHOLE_EVERY);
        let mut tables = book.take_changed();
        if whole {
            tables = book.streaming();
        }
        if tables.is_empty() {
            continue;
        }
        match compared.compare_all(&tables, whole).await {
            Ok(()) if whole => whole_ms = now_ms,
            Ok(()) => {}
            Err(error) => {
                tracing::warn!(%error, "the counts of the hops are compared later");
                tables.iter().for_each(|table| book.note_change(table));
            }
        }
    }
}

/// What is compared, and where it is noted.
struct Compared {
    config: Config,
    warehouse: Warehouse,
    trace: Arc<ConfiguredTrace>,
    book: Arc<Book>,
}

impl Compared {
    /// Tables of which every window is to be read do not make it so for the others.
    async fn compare_all(&self, tables: &BTreeSet<TableId>, whole: bool) -> Result<(), Error> {
        let (of_late, of_all): (BTreeSet<TableId>, BTreeSet<TableId>) = self
            .book
            .with(|proofs, _| tables.iter().cloned().partition(|table| !whole && from_ms(proofs, table).is_some()))
            .await?;
        for tables in [of_late, of_all].iter().filter(|tables| !tables.is_empty()) {
            self.compare(tables, whole).await?;
        }
        Ok(())
    }

    async fn compare(&self, tables: &BTreeSet<TableId>, whole: bool) -> Result<(), Error> {
        let Self { config, warehouse, trace, book } = self;
        let since = match whole {
            true => None,
            false => book.with(|proofs, _| since(proofs, tables)).await?,
        };
        let question = Question {
            source: &config.source.name,
            options: config.source_options()?,
            patterns: config.patterns()?,
            warehouse,
            tables: tables.iter().cloned().collect(),
            since,
            kafka: kafka_of(config)?,
        };
        let facts = gather(&question, &**trace).await?;
        let newest =
            |facts: &TableFacts| Some((facts.table.clone(), facts.counts.iter().map(|count| count.window).max()?));
        let windows: BTreeMap<TableId, Window> = facts.tables.iter().filter_map(newest).collect();
        let report = report(facts);
        let at_ms = clock::now_ms();
        let unsettled = book
            .with(|proofs, is_dirty| {
                *is_dirty = true;
                note(proofs, &report, &windows, at_ms)
            })
            .await?;
        unsettled.iter().for_each(|table| book.note_change(table));
        Ok(book.write(false).await?)
    }
}

/// The first window to compare: all of them, if one of the tables never added up, or did not at the last look.
fn since(proofs: &Proofs, tables: &BTreeSet<TableId>) -> Option<Window> {
    let least_ms = tables.iter().map(|table| from_ms(proofs, table)).min().flatten()?;
    Some(Window::of(least_ms.saturating_sub(ms(HOPS_OVERLAP))))
}

/// Up to where a table's counts are known to add up, ms since the epoch.
fn from_ms(proofs: &Proofs, table: &TableId) -> Option<i64> {
    let hops = proofs.tables.get(table)?.hops.as_ref().filter(|hops| hops.unbalanced == 0)?;
    Some(hops.balanced_ms?.min(hops.window_ms?))
}

/// Takes in what a report says; gives the tables that are to be looked at again.
fn note(proofs: &mut Proofs, report: &Report, windows: &BTreeMap<TableId, Window>, at_ms: i64) -> Vec<TableId> {
    let mut unsettled = Vec::new();
    for of_table in &report.tables {
        let table = &of_table.table;
        let hops = &mut proofs.tables.entry(table.clone()).or_default().hops;
        let before = hops.take();
        let unbalanced: u64 = of_table.unbalanced.iter().map(|unbalanced| unbalanced.count.max(1)).sum();
        let is_balanced = of_table.verdict == Verdict::Balanced;
        if !is_balanced {
            unsettled.push(table.clone());
        }
        let told = before.as_ref().map_or(0, |before| before.unbalanced);
        if unbalanced > 0 && unbalanced != told {
            tracing::error!(%table, half_events = unbalanced, "the counts of its hops do not add up; `weir reconcile` names hops and windows");
        }
        let window_ms =
            before.as_ref().and_then(|before| before.window_ms).max(windows.get(table).map(|window| window.0));
        let balanced_ms = if is_balanced { Some(at_ms) } else { before.and_then(|before| before.balanced_ms) };
        *hops = Some(HopsProof { balanced_ms, unbalanced, window_ms });
    }
    unsettled
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_did_not_add_up_or_is_of_long_ago_is_looked_at_again() {
        let table = TableId::new("shop", "orders");
        let tables = BTreeSet::from([table.clone()]);
        let mut proofs = Proofs::default();
        assert_eq!(since(&proofs, &tables), None);
        let day_ms = 86_400_000;
        let hops = HopsProof { balanced_ms: Some(9 * day_ms), unbalanced: 0, window_ms: Some(8 * day_ms) };
        let mut with = |hops: HopsProof| {
            proofs.tables.entry(table.clone()).or_default().hops = Some(hops);
            since(&proofs, &tables)
        };
        assert_eq!(with(hops.clone()), Some(Window::of(8 * day_ms - ms(HOPS_OVERLAP))));
        assert_eq!(with(HopsProof { unbalanced: 3, ..hops.clone() }), None);
        assert_eq!(with(HopsProof { window_ms: None, ..hops }), None);
    }
}
