//! The nouns of weir. No I/O, no async, no clients.
//!
//! Reading order: [`value`] (what a MySQL column becomes in Arrow and Delta), [`column`] (building such columns),
//! [`schema`] (tables), [`layout`] (how the lake keeps one) and [`partition`] (by what), [`evolution`] and [`absence`] (what the lake makes of changed columns), [`order`] and
//! [`position`] (when a change happened, and where in the binlog it stands),
//! [`key`] (which row it is about), [`change`] (a batch of changes), [`image`] (what is known of them), [`rules`] (what of them the lake gets), [`digest`], [`repair`],
//! [`clock`] and [`cron`].

pub mod absence;
pub mod change;
pub mod clock;
pub mod column;
pub mod cron;
pub mod digest;
pub mod evolution;
pub mod image;
pub mod key;
pub mod key_parts;
pub mod layout;
pub mod order;
pub mod partition;
pub mod position;
pub mod repair;
pub mod row_hash;
pub mod rules;
pub mod schema;
pub mod value;
pub mod xid;

pub use absence::Absences;
pub use change::{ChangeBatch, ChangeBuilder, Half, Op, Window};
pub use column::{ColumnBuilder, ValueError, ZeroDates};
pub use cron::{Cron, CronError, Minute};
pub use digest::Digest;
pub use image::{Images, PartialImage};
pub use key::{RecordKey, RecordKeys};
pub use layout::Layout;
pub use order::{EventId, Order, OrderState};
pub use position::{Gtid, GtidSet, LogPosition};
pub use repair::{Found, Gap, Repair, RepairEnd};
pub use rules::{BoundRules, RowRules, RuleError};
pub use schema::{Column, TableId, TableSchema};
pub use value::ColumnType;
pub use xid::{Xid, XidError};
