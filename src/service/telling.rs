//! What the supervisor tells of its tables to whoever watches the process: phases, positions, loads. In memory, without
//! I/O.

use weir_model::TableId;

use super::seed;
use super::status::committed_ms;
use super::supervisor::Supervisor;
use crate::figures::{TableStands, standing};
use crate::state::{Phase, TableStanding};

impl Supervisor {
    /// Tells where every table stands.
    pub(super) fn tell_standing(&self) {
        let told = standing();
        let before = told.tables();
        let stands = |(table, of): (&TableId, &TableStanding)| {
            let (position, position_ms) = match (of.phase, before.get(table)) {
                // Nothing waits for it any more, so that its progress says nothing: it stays where it was.
                (Phase::Stopped, Some(before)) => (before.position.clone(), before.position_ms),
                (Phase::Stopped, None) => (of.start_set.clone(), 0),
                _ => match self.progress.covered(table) {
                    Some(boundary) => (boundary.gtid_set.clone(), committed_ms(boundary.last.as_ref())),
                    None => (self.checkpoint.gtid_set.clone(), committed_ms(self.checkpoint.last.as_ref())),
                },
            };
            let load = self.loads.get(table).and_then(|load| seed::stands(load.part, &load.figures));
            let stands = TableStands { phase: of.phase, error: of.error.clone(), position, position_ms, load };
            (table.clone(), stands)
        };
        let tables = self.checkpoint.tables.iter().map(stands).collect();
        told.tell(self.checkpoint.epoch, self.progress.outstanding(), tables);
        told.turns();
    }
}
