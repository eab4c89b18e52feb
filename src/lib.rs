//! weir keeps lakehouse tables equal to a MySQL database, within seconds, and proves it.
//!
//! ```text
//!              low-watermark chunks
//! MySQL ──────► snapshot-loader ─────────────┐
//!   │                                        ▼
//!   └─ binlog ─► capture ─► transport ─► apply ─► table ─► Delta tables
//!                  │           │           │         │
//!                  └───────────┴── counts ─┴─────────┴──► trace ─► reconcile
//! ```
//!
//! Reading order: the nouns in the `weir_model` crate, then [`binlog`] (events and rows), [`capture`] (transactions
//! become batches with orders and ids), [`transport`] (batches travel), [`apply`] (batches become a plan for a
//! table), [`table`] (the plan becomes a Delta commit), [`trace`] and [`reconcile`] (what passed is counted and
//! compared), [`service`] (all of it wired), [`http`] (what it shows of itself, gathered in [`figures`]), [`cli`].
//!
//! The rules that make it exact are in ARCHITECTURE.md, each under the name its function has here.

pub mod apply;
pub mod binlog;
pub mod capture;
pub mod cli;
pub mod config;
pub mod error;
pub mod failpoint;
pub mod figures;
pub mod format;
pub mod http;
pub mod limits;
pub mod modes;
pub mod reconcile;
pub mod service;
pub mod state;
pub mod table;
pub mod trace;
pub mod transport;
