//! Compares the counts of every hop, of tables that have changed, every so often.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use weir_model::{TableId, Window, clock};

use super::book::Book;
use super::due::ms;
use crate::config::Config;
use crate::error::Error;
use crate::limits::{HOPS_OVERLAP, HOPS_WHOLE_EVERY};
use crate::reconcile::{Question, Report, Verdict, gather, report};
use crate::service::kafka_of;
use crate::service::trace::ConfiguredTrace;
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
        match compare(&config, &warehouse, &trace, &book, &tables, whole).await {
            Ok(()) if whole => whole_ms = now_ms,
            Ok(()) => {}
            Err(error) => {
                tracing::warn!(%error, "the counts of the hops are compared later");
                tables.iter().for_each(|table| book.note_change(table));
            }
        }
    }
}

async fn compare(
    config: &Config,
    warehouse: &Warehouse,
    trace: &ConfiguredTrace,
    book: &Book,
    tables: &BTreeSet<TableId>,
    whole: bool,
) -> Result<(), Error> {
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
    let report = report(gather(&question, trace).await?);
    let at_ms = clock::now_ms();
    let unsettled = book
        .with(|proofs, is_dirty| {
            *is_dirty = true;
            note(proofs, &report, at_ms)
        })
        .await?;
    unsettled.iter().for_each(|table| book.note_change(table));
    Ok(book.write(false).await?)
}

/// The first window to compare: all of them, if one of the tables never added up.
fn since(proofs: &Proofs, tables: &BTreeSet<TableId>) -> Option<Window> {
    let balanced = |table: &TableId| proofs.tables.get(table)?.hops.as_ref()?.balanced_ms;
    let least_ms = tables.iter().map(balanced).min().flatten()?;
    Some(Window::of(least_ms.saturating_sub(ms(HOPS_OVERLAP))))
}

/// Takes in what a report says; gives the tables that are to be looked at again.
fn note(proofs: &mut Proofs, report: &Report, at_ms: i64) -> Vec<TableId> {
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
        let balanced_ms = if is_balanced { Some(at_ms) } else { before.and_then(|before| before.balanced_ms) };
        *hops = Some(HopsProof { looked_ms: at_ms, balanced_ms, unbalanced });
    }
    unsettled
}
