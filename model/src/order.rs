//! When a change happened relative to every other change of its table, and which change it is.

use std::fmt;

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::{Xxh3, xxh3_128};

use crate::position::{Gtid, GtidOrigin};
use crate::schema::TableId;

/// `(ts_ms, seq)` of a half-event; no two durable changes of a table share one.
///
/// `seq` counts half-events and `ts_ms` never falls, so sorting by order is binlog order. Serialised as `[ts_ms, seq]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(from = "(i64, i64)", into = "(i64, i64)")]
pub struct Order {
    pub ts_ms: i64,
    pub seq: i64,
}

impl Order {
    /// Below every order that is ever assigned: what a row without an order (a foreign writer's) counts as.
    pub const MIN: Self = Self { ts_ms: i64::MIN, seq: i64::MIN };

    pub fn new(ts_ms: i64, seq: i64) -> Self {
        Self { ts_ms, seq }
    }
}

impl From<(i64, i64)> for Order {
    fn from((ts_ms, seq): (i64, i64)) -> Self {
        Self { ts_ms, seq }
    }
}

impl From<Order> for (i64, i64) {
    fn from(order: Order) -> Self {
        (order.ts_ms, order.seq)
    }
}

impl fmt::Display for Order {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.ts_ms, self.seq)
    }
}

/// The last order handed out for one table; its successor is always greater.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct OrderState(pub Order);

impl OrderState {
    /// A state whose next order is above everything up to `order`.
    pub fn after(order: Order) -> Self {
        Self(order)
    }

    /// The order of the next half-event, whose event time is `event_ms` (ms since the epoch). The time is raised to
    /// the last one handed out, so the two parts of an order can never disagree.
    #[must_use]
    #[inline]
    pub fn assign(&mut self, event_ms: i64) -> Order {
        self.0 = Order { ts_ms: self.0.ts_ms.max(event_ms), seq: self.0.seq + 1 };
        self.0
    }
}

/// Global id of a half-event: the same whenever and by whomever the change is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct EventId(pub u128);

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// Gives the ids of one transaction's row changes of one table.
#[derive(Debug, Clone, Copy)]
pub struct EventIds {
    prefix: u128,
}

impl EventIds {
    /// Ids of `(source, gtid, table, n, half)`, every part length-prefixed so that no two inputs run together.
    pub fn new(source: &str, gtid: &Gtid, table: &TableId) -> Self {
        let mut hash = Xxh3::new();
        let name;
        let (server, tag) = match &gtid.origin {
            GtidOrigin::Server(server) => (&*server.uuid, &*server.tag),
            origin @ (GtidOrigin::Domain { .. } | GtidOrigin::Log(_)) => {
                name = origin.to_string();
                (&*name, "")
            }
        };
        for part in [source, server, tag, &table.database, &table.table] {
            hash.update(&(part.len() as u32).to_le_bytes());
            hash.update(part.as_bytes());
        }
        hash.update(&gtid.gno.to_le_bytes());
        Self { prefix: hash.digest128() }
    }

    /// Id of one half of the table's `n`-th row change in the transaction, counted from 0; `half` is 0, or 1 for the
    /// insert of a key-changing update.
    #[inline]
    pub fn id(&self, n: u64, half: u8) -> EventId {
        let mut bytes = [0_u8; 25];
        bytes[..16].copy_from_slice(&self.prefix.to_le_bytes());
        bytes[16..24].copy_from_slice(&n.to_le_bytes());
        bytes[24] = half;
        EventId(xxh3_128(&bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_never_falls_when_the_event_time_does() {
        let mut state = OrderState::default();
        let first = state.assign(2_000);
        let second = state.assign(1_000);
        assert!(second > first);
        assert_eq!(second, Order::new(2_000, 2));
    }

    #[test]
    fn ids_differ_by_every_part_and_repeat_for_the_same() {
        let gtid: Gtid = "3e11fa47-71ca-11e1-9e33-c80aa9429562:23".parse().unwrap();
        let table = TableId::new("shop", "orders");
        let ids = EventIds::new("shop", &gtid, &table);
        assert_eq!(ids.id(0, 0), EventIds::new("shop", &gtid, &table).id(0, 0));
        assert_ne!(ids.id(0, 0), ids.id(0, 1));
        assert_ne!(ids.id(0, 0), ids.id(1, 0));
        assert_ne!(ids.id(0, 0), EventIds::new("shop", &gtid, &TableId::new("sho", "porders")).id(0, 0));
    }
}
