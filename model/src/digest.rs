//! Digests of sets that do not depend on the order of their members.

use std::fmt;
use std::ops::{Add, AddAssign, Sub};

use serde::{Deserialize, Serialize};

use crate::order::EventId;

/// Sum of event ids mod 2^128. A sum, because under XOR a doubled event would cancel itself out.
///
/// Serialised as 32 hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest(pub u128);

impl AddAssign<EventId> for Digest {
    fn add_assign(&mut self, id: EventId) {
        self.0 = self.0.wrapping_add(id.0);
    }
}

impl AddAssign for Digest {
    fn add_assign(&mut self, other: Self) {
        self.0 = self.0.wrapping_add(other.0);
    }
}

impl Add for Digest {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self(self.0.wrapping_add(other.0))
    }
}

impl Sub for Digest {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        Self(self.0.wrapping_sub(other.0))
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl TryFrom<String> for Digest {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        u128::from_str_radix(&text, 16).map(Self).map_err(|_| format!("`{text}` is not a digest of 32 hex digits"))
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> String {
        digest.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_doubled_event_shows_and_order_does_not() {
        let (a, b) = (EventId(u128::MAX), EventId(7));
        let sum = |ids: &[EventId]| {
            ids.iter().fold(Digest::default(), |mut digest, id| {
                digest += *id;
                digest
            })
        };
        assert_eq!(sum(&[a, b]), sum(&[b, a]));
        assert_ne!(sum(&[a, b]), sum(&[a, b, b, b]));
        assert_eq!(Digest::try_from(sum(&[a, b]).to_string()), Ok(sum(&[a, b])));
    }
}
