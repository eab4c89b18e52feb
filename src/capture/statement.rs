//! What a statement in the log means for the tables that are captured.
//!
//! A changed column shows by itself in the next table map; the statement is needed for what has no rows: tables that
//! appear, are emptied or renamed, columns that bring values with them.

use weir_model::{GtidSet, Order, TableId};

use super::lane::{Lane, LaneKey};
use super::request::{Described, Registrar, Told};
use super::{Capture, CaptureError, lost, retry_registrar, stop};
use crate::binlog::ddl::{StatementKind, classify};
use crate::transport::{Marker, Publisher};
use weir_model::LogPosition;

/// Why a table begins anew.
const OTHER_KEY: &str = "its record key is another one";

/// One consequence of a statement. Only tables that match the configured patterns matter.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Effect {
    /// The table exists from here on, perhaps with rows that no event brings.
    Appeared(TableId),
    /// Columns changed; `with_values` if existing rows hold values in them that no event brings. Those that are `dropped`
    /// may be there all the same, if the statement, or a later one, uses the name again.
    Altered { table: TableId, with_values: bool, dropped: Vec<String> },
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
                None => Effect::Altered { table: alter.table, with_values, dropped: alter.drops_columns },
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

impl Effect {
    fn table(&self) -> Option<&TableId> {
        match self {
            Self::Appeared(table) | Self::LostRows(table) | Self::Emptied(table) | Self::Altered { table, .. } => {
                Some(table)
            }
            Self::Dml => None,
        }
    }

    /// The table whose columns may be others from here on.
    fn changes_columns_of(&self) -> Option<&TableId> {
        match self {
            Self::Appeared(table) | Self::Altered { table, .. } => Some(table),
            Self::LostRows(_) | Self::Emptied(_) | Self::Dml => None,
        }
    }
}

impl<P: Publisher, R: Registrar> Capture<P, R> {
    /// Applies a statement of the open transaction, which ends at `at`.
    pub(super) async fn statement(&mut self, database: &str, sql: &str, at: &LogPosition) -> Result<(), CaptureError> {
        let kind = classify(database, sql);
        if kind == StatementKind::Unreadable {
            tracing::warn!(position = %at, "a statement that cannot be read; every table is looked at and loaded again");
            self.wait_until_visible(&self.captured()).await?;
            return self.reload_all().await;
        }
        let effects: Vec<Effect> = effects(kind).into_iter().filter(|effect| self.concerns_us(effect)).collect();
        if !effects.is_empty() {
            let tables: Vec<TableId> = effects.iter().filter_map(Effect::table).cloned().collect();
            self.wait_until_visible(&tables).await?;
        }
        for table in effects.iter().filter_map(Effect::changes_columns_of) {
            self.renew_description(table).await?;
        }
        for effect in effects {
            self.take_effect(effect, at).await?;
        }
        Ok(())
    }

    fn concerns_us(&self, effect: &Effect) -> bool {
        effect.table().is_none_or(|table| self.ours(table))
    }

    async fn take_effect(&mut self, effect: Effect, at: &LogPosition) -> Result<(), CaptureError> {
        match effect {
            Effect::Dml => Err(stop(
                at,
                &"a statement-format change of rows: which rows it changed cannot be known. \
                  SET PERSIST binlog_format = ROW, then seed anew with `weir snapshot`",
            )),
            Effect::Appeared(table) => self.reload_or_meet(&table, "a table took its name").await,
            Effect::Altered { table, with_values, dropped } if self.lane(&table).is_some() => {
                self.drop_columns(&table, dropped).await?;
                self.look_at(&table).await?;
                if self.lane(&table).is_none_or(Lane::awaits_load) {
                    return Ok(());
                }
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
                let Some(at) = self.order_of_statement(&table) else { return Ok(()) };
                if let Some(Some(lane)) = self.lanes.get_mut(&table) {
                    lane.void_chunks();
                }
                self.send_marker(table, Marker::Clear { at }).await.map(|_| ())
            }
            Effect::Altered { table, .. } if self.refused.remove(&table) => {
                self.reload_or_meet(&table, "it was altered").await
            }
            // A table that has stopped, or one whose TRUNCATE is not followed.
            Effect::Altered { .. } | Effect::LostRows(_) | Effect::Emptied(_) => Ok(()),
        }
    }

    /// What the catalogue said of a table that the binlog does not describe holds no longer, so it is asked anew, before others come
    /// to change the table. If rows from before the statement were read as they are behind it, the table is loaded again: their
    /// values may stand in wrong columns.
    async fn renew_description(&mut self, table: &TableId) -> Result<(), CaptureError> {
        let Some(gtid) = self.open.as_ref().map(|open| open.head.gtid.clone()) else { return Ok(()) };
        let Some(Some(lane)) = self.lanes.get_mut(table) else { return Ok(()) };
        let Some(outdated) = lane.columns_change(&gtid) else { return Ok(()) };
        self.look_up(table, false).await?;
        if outdated.was_ahead {
            self.reload(
                table,
                "it was altered while its changes were behind, in a binlog that does not describe its tables",
            );
        }
        Ok(())
    }

    /// An order for what the open transaction's statement does to a table; `None` if the table holds it already, since one that
    /// is ahead of a stream read again has come further, or if a load will bring it.
    fn order_of_statement(&mut self, table: &TableId) -> Option<Order> {
        let open = self.open.as_ref()?;
        if self.lane(table).is_some_and(|lane| lane.holds(&open.head.gtid) || lane.awaits_load()) {
            return None;
        }
        self.event_ms = self.event_ms.max(open.event_ms);
        self.lane_order(table)
    }

    /// Says where the source dropped columns: their names may be in use again before another change of the table comes.
    async fn drop_columns(&mut self, table: &TableId, names: Vec<String>) -> Result<(), CaptureError> {
        if names.is_empty() {
            return Ok(());
        }
        let Some(at) = self.order_of_statement(table) else { return Ok(()) };
        self.send_marker(table.clone(), Marker::ColumnsDropped { at, names }).await.map(|_| ())
    }

    /// An event reaches us before the catalogue shows what it did to `tables`: wait until it does.
    async fn wait_until_visible(&self, tables: &[TableId]) -> Result<(), CaptureError> {
        let Some(open) = &self.open else { return Ok(()) };
        let wait = || self.registrar.wait_until_visible(&open.head.gtid, tables);
        retry_registrar(wait).await.map_err(|error| lost(&error))
    }

    fn ours(&self, table: &TableId) -> bool {
        (self.settings.filter)(table)
    }

    /// Chunks under way are void and the whole table is loaded again.
    fn reload(&mut self, table: &TableId, reason: &'static str) {
        if let Some(Some(lane)) = self.lanes.get_mut(table) {
            lane.void_chunks();
        }
        self.stand_to_be_loaded(table, reason);
        self.tell(Told::NeedsSeed { table: table.clone(), reason });
    }

    /// The whole table is loaded: again, or as one that is seen for the first time.
    pub(super) async fn reload_or_meet(&mut self, table: &TableId, reason: &'static str) -> Result<(), CaptureError> {
        if self.lane(table).is_some() {
            self.look_at(table).await?;
            if self.lane(table).is_some_and(|lane| !lane.awaits_load()) {
                self.reload(table, reason);
            }
            Ok(())
        } else {
            let was_passed_over = self.lanes.remove(table).is_some();
            self.refused.remove(table);
            self.meet(table).await?;
            // The lake's table may not be able to take its rows as they are by now. The load brings them.
            if was_passed_over
                && self.settings.seeds
                && let Some(Some(lane)) = self.lanes.get_mut(table)
            {
                lane.await_load();
            }
            Ok(())
        }
    }

    /// Sends the columns that the table has in the source at this moment. They may be newer than the statement: then
    /// columns appear a little early and are NULL. A table whose record key is another one begins anew.
    async fn look_at(&mut self, table: &TableId) -> Result<(), CaptureError> {
        let described = retry_registrar(|| self.registrar.describe(table)).await.map_err(|error| lost(&error))?;
        let (schema, key, executed) = match described {
            Described::Found { schema, key, executed } => (schema, key, executed),
            Described::Gone => return Ok(()),
            Described::Refused(why) => {
                self.refuse(table, why);
                return Ok(());
            }
        };
        let Some(Some(lane)) = self.lanes.get_mut(table) else { return Ok(()) };
        if lane.has_other_key(&key.columns) {
            if !schema.layout.is_append() {
                self.begin_anew(table, key, &executed);
                return Ok(());
            }
            lane.take_key(key);
        }
        if !lane.awaits_load() {
            self.send_marker(table.clone(), Marker::Schema(schema)).await?;
        }
        Ok(())
    }

    /// The rows of a table, or a load of it, have another record key than the stream has told so far.
    pub(super) async fn find_other_key(&mut self, table: &TableId) -> Result<(), CaptureError> {
        let described = retry_registrar(|| self.registrar.describe(table)).await.map_err(|error| lost(&error))?;
        match described {
            Described::Found { key, executed, .. } => self.begin_anew(table, key, &executed),
            Described::Gone => self.stop_table(table, format!("{OTHER_KEY}, and the source has the table no more")),
            Described::Refused(why) => self.refuse(table, why),
        }
        Ok(())
    }

    /// Rows by another key cannot be told from those that the table has, so it is loaded from the beginning, empty. What comes
    /// until then the load brings.
    fn begin_anew(&mut self, table: &TableId, key: LaneKey, executed: &GtidSet) {
        if let Some(Some(lane)) = self.lanes.get_mut(table) {
            lane.begin_anew(key, executed);
        }
        self.reload(table, OTHER_KEY);
    }

    fn captured(&self) -> Vec<TableId> {
        self.lanes.iter().filter(|(_, lane)| lane.is_some()).map(|(table, _)| table.clone()).collect()
    }

    async fn reload_all(&mut self) -> Result<(), CaptureError> {
        for table in self.captured() {
            self.renew_description(&table).await?;
            self.look_at(&table).await?;
            self.reload(&table, "a statement that cannot be read");
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
