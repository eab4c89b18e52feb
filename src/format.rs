//! Which version of weir can read what lies beside it: state, position records and commits name the format they are in.
//!
//! A version adds members that older ones may pass over without a new number. What they would misread gets the next number,
//! and they refuse it by that number, before they look at anything else.

use serde::{Deserialize, Serialize};

/// The format of things that are read by other versions; they begin at 1, and the first ones did not say so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Format(pub u32);

impl Format {
    /// Of what names none.
    pub const FIRST: Self = Self(1);
}

impl Default for Format {
    fn default() -> Self {
        Self::FIRST
    }
}

impl std::fmt::Display for Format {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// All of an object that is looked at before its format is known.
#[derive(Debug, Deserialize)]
pub struct Head {
    #[serde(default)]
    format: Format,
}

impl Head {
    /// The format if it is above `known`: then nothing else of the object may be believed.
    pub fn newer(&self, known: Format) -> Option<Format> {
        (self.format > known).then_some(self.format)
    }
}

/// [`Head::newer`] of a JSON object; nothing of what is none.
pub fn newer(json: &[u8], known: Format) -> Option<Format> {
    serde_json::from_slice::<Head>(json).ok()?.newer(known)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_newer_says_so_whatever_else_it_holds() {
        assert_eq!(newer(br#"{"format": 2, "position": [1]}"#, Format::FIRST), Some(Format(2)));
        for known in [&br#"{"format": 1}"#[..], br#"{"position": "x"}"#, b"{", b"[]"] {
            assert_eq!(newer(known, Format::FIRST), None);
        }
    }
}
