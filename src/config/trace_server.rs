//! The url of a trace server, taken apart: where it is, as whom, and which database.

use super::secret::{Secret, SecretUrl};

/// The database where the url names none.
const DATABASE_DEFAULT: &str = "weir";
const DATABASE_LENGTH_MAX: usize = 64;

/// Where the trace is kept, if on a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TraceServer {
    /// `http(s)://host:port`.
    pub url: String,
    /// The server's default user if empty.
    pub user: String,
    pub password: Secret,
    pub database: String,
}

impl TraceServer {
    /// # Errors
    /// What follows the key's name; shows nothing of the url.
    pub(super) fn of(url: &SecretUrl) -> Result<Self, &'static str> {
        const FORM: &str = "must be http(s)://user@host:port/database";
        let url = url::Url::parse(url.expose()).map_err(|_| FORM)?;
        let host = url.host_str().filter(|host| !host.is_empty()).ok_or(FORM)?;
        if !matches!(url.scheme(), "http" | "https") || url.query().is_some() || url.fragment().is_some() {
            return Err(FORM);
        }
        let database = match url.path().trim_matches('/') {
            "" => DATABASE_DEFAULT,
            database => database,
        };
        let may_stand = |character: char| character.is_ascii_alphanumeric() || "_-".contains(character);
        if database.len() > DATABASE_LENGTH_MAX || !database.chars().all(may_stand) {
            return Err("must name a database of up to 64 letters, digits, _ and -, or none");
        }
        let port = url.port().map_or_else(String::new, |port| format!(":{port}"));
        let not_text = "has a user or password that is not percent-encoded UTF-8";
        Ok(Self {
            url: format!("{}://{host}{port}", url.scheme()),
            user: percent_decoded(url.username()).ok_or(not_text)?,
            password: Secret::new(percent_decoded(url.password().unwrap_or_default()).ok_or(not_text)?),
            database: database.to_owned(),
        })
    }
}

fn percent_decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        rest = tail;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let digits = std::str::from_utf8(tail.get(..2)?).ok()?;
        bytes.push(u8::from_str_radix(digits, 16).ok()?);
        rest = &tail[2..];
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(url: &str) -> Result<TraceServer, &'static str> {
        TraceServer::of(&SecretUrl::new(url))
    }

    #[test]
    fn a_url_gives_place_user_password_and_database() {
        let found = server("https://we%40ir:p%40ss%2Fw%3Ard%25@trace.example:8443/lake_trace").unwrap();
        assert_eq!((found.url.as_str(), found.database.as_str()), ("https://trace.example:8443", "lake_trace"));
        assert_eq!((found.user.as_str(), found.password.expose()), ("we@ir", "p@ss/w:rd%"));
        assert!(!format!("{found:?}").contains("w:rd"));
    }

    #[test]
    fn the_database_is_weir_and_the_user_the_servers_default_where_none_is_named() {
        for url in ["http://127.0.0.1:8123", "http://127.0.0.1:8123/"] {
            let found = server(url).unwrap();
            assert_eq!((found.database.as_str(), found.user.as_str()), ("weir", ""));
        }
        assert_eq!(server("http://[::1]:8123/x").unwrap().url, "http://[::1]:8123");
    }

    #[test]
    fn what_is_no_such_url_is_refused() {
        for url in [
            "",
            "127.0.0.1:8123",
            "clickhouse://h:9000/weir",
            "http://h/a/b",
            "http://h/a`b",
            "http://h/weir?user=x",
            "http://u:%zz@h/weir",
            "http://u:%ff@h/weir",
        ] {
            assert!(server(url).is_err(), "{url}");
        }
    }
}
