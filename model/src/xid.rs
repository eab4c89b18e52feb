//! Names of XA transaction branches, as the binlog and `XA RECOVER` tell them.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The name of an XA transaction branch: unique on its server for as long as the branch has not ended.
///
/// <https://dev.mysql.com/doc/refman/8.4/en/xa-statements.html>
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Xid {
    /// Of 32 bits in the log, whatever the client gave.
    pub format: u32,
    /// The global part.
    pub gtrid: Vec<u8>,
    /// The branch qualifier; may be empty.
    pub bqual: Vec<u8>,
}

/// A text that is no xid.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not the name of an XA transaction as the server writes it: X'…',X'…',number")]
pub struct XidError(String);

impl fmt::Display for Xid {
    /// As XA statements take it, and as the server writes them to the binlog.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hex = |f: &mut fmt::Formatter<'_>, bytes: &[u8]| {
            f.write_str("X'")?;
            bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))?;
            f.write_str("'")
        };
        hex(f, &self.gtrid)?;
        f.write_str(",")?;
        hex(f, &self.bqual)?;
        write!(f, ",{}", self.format)
    }
}

impl FromStr for Xid {
    type Err = XidError;

    fn from_str(text: &str) -> Result<Self, XidError> {
        let parse = || {
            let mut parts = text.trim().split(',');
            let (gtrid, bqual, format) = (parts.next()?, parts.next()?, parts.next()?);
            let format = format.trim().parse::<i64>().ok()?;
            if parts.next().is_some() {
                return None;
            }
            // Of a number with more bits the server keeps the low ones where it logs them as a number.
            Some(Self { format: format as u32, gtrid: unhex(gtrid)?, bqual: unhex(bqual)? })
        };
        parse().ok_or_else(|| XidError(text.to_owned()))
    }
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits = text.trim().strip_prefix(['X', 'x'])?.strip_prefix('\'')?.strip_suffix('\'')?;
    if !digits.len().is_multiple_of(2) || !digits.is_ascii() {
        return None;
    }
    (0..digits.len()).step_by(2).map(|at| u8::from_str_radix(&digits[at..at + 2], 16).ok()).collect()
}

impl TryFrom<String> for Xid {
    type Error = XidError;

    fn try_from(text: String) -> Result<Self, XidError> {
        text.parse()
    }
}

impl From<Xid> for String {
    fn from(xid: Xid) -> Self {
        xid.to_string()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_name_is_read_as_the_server_writes_it() {
        let xid: Xid = "X'7031',X'6271',7".parse().unwrap();
        assert_eq!(xid, Xid { format: 7, gtrid: b"p1".to_vec(), bqual: b"bq".to_vec() });
        assert_eq!("X'626967',X'',4294967295".parse::<Xid>().unwrap().format, u32::MAX);
        for wrong in
            ["", "X'7031'", "X'7031',X'6271'", "X'703',X'',1", "X'zz',X'',1", "X'61',X'',1 ONE PHASE", "X'é',X'',1"]
        {
            assert!(wrong.parse::<Xid>().is_err(), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_what_is_read(format: u32, gtrid: Vec<u8>, bqual: Vec<u8>) {
            let xid = Xid { format, gtrid, bqual };
            prop_assert_eq!(xid.to_string().parse::<Xid>(), Ok(xid));
        }
    }
}
