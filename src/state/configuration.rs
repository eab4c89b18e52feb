//! What became of the configuration of a running service: since when it runs by the one it has, and why it does not by what
//! its file holds. Part of the checkpoint, so that commands tell it.

use serde::{Deserialize, Serialize};

/// The settings that a service runs by, as people are told of them.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ConfigStanding {
    /// When it began to run by them, ms since the epoch; 0 before it did.
    pub since_ms: i64,
    /// How often they were replaced since the process began.
    #[serde(default)]
    pub reloads: u64,
    /// Settings that the last of those changed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub changed: Vec<String>,
    /// What the file holds is not taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<ConfigRefused>,
}

/// Why a configuration is not taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigRefused {
    /// When it was read, ms since the epoch.
    pub at_ms: i64,
    pub why: String,
}

impl ConfigStanding {
    /// Whether there is nothing to tell: no service has begun to run by any.
    pub fn is_unknown(&self) -> bool {
        *self == Self::default()
    }
}
