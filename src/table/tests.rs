//! The engine as a whole, against a store in memory or a local folder. A topic a file.

mod checkpoints;
mod chunks;
mod commits;
mod conflicts;
mod damage;
mod model;
mod support;
