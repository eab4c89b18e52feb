//! Settings that may hold passwords: read freely, shown never.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Deref;

use serde::{Deserialize, Deserializer};

/// A password.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// A url that may hold a password. Shown without it, and without its query.
#[derive(Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(transparent)]
pub struct SecretUrl(String);

impl SecretUrl {
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    pub fn expose(&self) -> &str {
        &self.0
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether it carries a password.
    pub fn has_password(&self) -> bool {
        url::Url::parse(&self.0).is_ok_and(|url| url.password().is_some_and(|password| !password.is_empty()))
    }
}

impl fmt::Display for SecretUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Ok(mut url) = url::Url::parse(&self.0) else { return f.write_str("(not a url)") };
        url.set_query(None);
        if url.set_password(None).is_err() {
            return f.write_str(url.scheme());
        }
        f.write_str(url.as_str())
    }
}

impl fmt::Debug for SecretUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

/// Names and values handed through to a client; some hold credentials, so only the names are shown.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Options(BTreeMap<String, String>);

impl Deref for Options {
    type Target = BTreeMap<String, String>;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

impl<'de> Deserialize<'de> for Options {
    /// A table of scalars; numbers and booleans are taken as their text.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged, expecting = "a string, a number or a boolean")]
        enum Scalar {
            Text(String),
            Integer(i64),
            Float(f64),
            Boolean(bool),
        }
        let scalars = BTreeMap::<String, Scalar>::deserialize(deserializer)?;
        let text = |scalar| match scalar {
            Scalar::Text(text) => text,
            Scalar::Integer(number) => number.to_string(),
            Scalar::Float(number) => number.to_string(),
            Scalar::Boolean(flag) => flag.to_string(),
        };
        Ok(Self(scalars.into_iter().map(|(name, scalar)| (name, text(scalar))).collect()))
    }
}
