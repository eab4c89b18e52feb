//! What a statement in the log means for the tables that are captured.
//!
//! A changed column shows by itself in the next table map; the statement is needed for what has no rows: tables that
//! appear, are emptied or renamed, columns that bring values with them.

use weir_model::TableId;

use super::request::{Registrar, Told};
use super::{Capture, CaptureError, Open, retry_registrar, stop};
use crate::binlog::ddl::{StatementKind, classify};
use crate::transport::{Marker, Publisher};
use weir_model::LogPosition;

/// One consequence of a statement. Only tables that match the configured patterns matter.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Effect {
    /// The table exists from here on, perhaps with rows that no event brings.
    Appeared(TableId),
    /// Columns changed; `with_values` if existing rows hold values in them that no event brings.
    Altered { table: TableId, with_values: bool },
    /// Rows went without row events, but not all of them.
    LostRows(TableId),
    /// Every row went without row events.
    Emptied(TableId),
    /// Row changes as a statement: nobody can tell which rows.
    Dml,
}

/// The consequences of a statement, in order. Pure.
fn effects(kind: StatementKind) -> Vec<Effect> {
    match kind {
        StatementKind::CreateTable { table, .. } => vec![Effect::Appeared(table)],
        StatementKind::RenameTable { pairs } => pairs.into_iter().map(|(_, to)| Effect::Appeared(to)).collect(),
        StatementKind::AlterTable(alter) => {
            let mut effects: Vec<Effect> = alter.exchanged_with.map(Effect::LostRows).into_iter().collect();
            let with_values = alter.adds_default || alter.changes_columns;
            effects.push(match alter.renamed_to {
                Some(to) => Effect::Appeared(to),
                None if alter.moves_rows => Effect::LostRows(alter.table),
                None => Effect::Altered { table: alter.table, with_values },
            });
            effects
        }
        StatementKind::TruncateTable { table } => vec![Effect::Emptied(table)],
        StatementKind::Dml => vec![Effect::Dml],
        // What a dropped table held is kept; the rest concerns no table's rows.
        StatementKind::DropTable { .. }
        | StatementKind::DropDatabase { .. }
        | StatementKind::CreateDatabase { .. }
        | StatementKind::TransactionControl
        | StatementKind::Other => Vec::new(),
        StatementKind::Unreadable => Vec::new(),
    }
}

impl<P: Publisher, R: Registrar> Capture<P, R> {
    /// Applies the statement that the transaction `open`, which ends at `at`, consists of.
    pub(super) async fn statement(
        &mut self,
        database: &str,
        sql: &str,
        open: &Open,
        at: &LogPosition,
    ) -> Result<(), CaptureError> {
        let kind = classify(database, sql);
        if matches!(kind, StatementKind::Unreadable) {
            tracing::warn!(position = %at, "a statement that cannot be read; every table's columns are looked at again");
            self.look_at_all(at).await?;
        }
        for effect in effects(kind) {
            self.take_effect(effect, open, at).await?;
        }
        Ok(())
    }

    async fn take_effect(&mut self, effect: Effect, open: &Open, at: &LogPosition) -> Result<(), CaptureError> {
        match effect {
            Effect::Dml => Err(stop(
                at,
                &"a statement-format change of rows: which rows it changed cannot be known. \
                  SET PERSIST binlog_format = ROW, then seed anew with `weir snapshot`",
            )),
            Effect::Appeared(table) if self.ours(&table) => {
                if self.lane(&table).is_some() {
                    self.look_at(&table, at).await?;
                    self.reload(&table, "a table took its name");
                    Ok(())
                } else {
                    self.lanes.remove(&table);
                    self.meet(&table, at).await
                }
            }
            Effect::Altered { table, with_values } if self.lane(&table).is_some() => {
                self.look_at(&table, at).await?;
                if with_values {
                    self.reload(&table, "a column was added whose existing rows hold values");
                } else if let Some(Some(lane)) = self.lanes.get_mut(&table) {
                    lane.void_chunks();
                }
                Ok(())
            }
            Effect::LostRows(table) if self.lane(&table).is_some() => {
                self.reload(&table, "rows went without row events");
                Ok(())
            }
            Effect::Emptied(table) if self.lane(&table).is_some() && self.settings.follow_truncate => {
                self.event_ms = self.event_ms.max(open.event_ms);
                let Some(at) = self.lane_order(&table) else { return Ok(()) };
                if let Some(Some(lane)) = self.lanes.get_mut(&table) {
                    lane.void_chunks();
                }
                self.send_markers(vec![(table, Marker::Clear { at })]).await
            }
            Effect::Appeared(_) | Effect::Altered { .. } | Effect::LostRows(_) | Effect::Emptied(_) => Ok(()),
        }
    }

    fn ours(&self, table: &TableId) -> bool {
        (self.settings.filter)(table)
    }

    /// Chunks under way are void and the whole table is loaded again.
    fn reload(&mut self, table: &TableId, reason: &'static str) {
        if let Some(Some(lane)) = self.lanes.get_mut(table) {
            lane.void_chunks();
        }
        self.tell(Told::NeedsSeed { table: table.clone(), reason });
    }

    /// Sends the columns that the table has in the source at this moment. They may be newer than the statement: then
    /// columns appear a little early and are NULL.
    async fn look_at(&mut self, table: &TableId, at: &LogPosition) -> Result<(), CaptureError> {
        let schema = retry_registrar(|| self.registrar.describe(table)).await.map_err(|error| stop(at, &error))?;
        match schema {
            Some(schema) => self.send_markers(vec![(table.clone(), Marker::Schema(schema))]).await,
            None => Ok(()),
        }
    }

    async fn look_at_all(&mut self, at: &LogPosition) -> Result<(), CaptureError> {
        let tables: Vec<TableId> =
            self.lanes.iter().filter(|(_, lane)| lane.is_some()).map(|(table, _)| table.clone()).collect();
        for table in tables {
            self.look_at(&table, at).await?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rename_makes_the_new_name_appear() {
        let kind = classify("shop", "RENAME TABLE orders TO orders_old, orders_new TO orders");
        let appeared = |name| Effect::Appeared(TableId::new("shop", name));
        assert_eq!(effects(kind), vec![appeared("orders_old"), appeared("orders")]);
    }

    #[test]
    fn row_changes_as_text_stop_the_stream() {
        assert_eq!(effects(classify("shop", "UPDATE orders SET a = 1")), vec![Effect::Dml]);
    }
}
