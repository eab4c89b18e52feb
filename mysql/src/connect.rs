//! From a url to a session that reads exactly: options, TLS, and the settings every session gets.

use std::fmt;
use std::time::Duration;

use mysql_async::prelude::Queryable;
use mysql_async::{ClientIdentity, Conn, DriverError, Opts, OptsBuilder, SslOpts};
use url::Url;

use crate::error::{MysqlError, codes};
use crate::settings;

/// How to reach a server.
#[derive(Clone)]
pub struct SourceOptions {
    /// `mysql://user[:password]@host:port[/database][?option=value…]`, every part percent-encoded where needed.
    ///
    /// Options: `ssl_mode` (disabled, required, verify_ca, verify_identity), `ssl_ca`, `ssl_cert`, `ssl_key` (PEM files),
    /// `ssl_name` (the host name that the certificate bears, if the url's is another), and those of the driver
    /// (`require_ssl`, `verify_ca`, `compression`, `tcp_nodelay`, …). `verify_ca` looks at the name as well: the driver
    /// compares it whenever it verifies at all.
    pub url: String,
    /// Wins over the url's.
    pub password: Option<String>,
    /// How long a connection may take to come about.
    pub connect_timeout: Duration,
}

/// A packet holds one row, and a row holds up to this many bytes (`max_allowed_packet`'s own upper bound).
const PACKET_BYTES_MAX: usize = 1 << 30;
const STATEMENTS_KEPT: usize = 8;
const KEEPALIVE: Duration = Duration::from_secs(30);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);

impl SourceOptions {
    pub fn new(url: impl Into<String>) -> Self {
        Self { url: url.into(), password: None, connect_timeout: CONNECT_TIMEOUT }
    }

    #[must_use]
    pub fn with_password(mut self, password: Option<String>) -> Self {
        self.password = password.or(self.password);
        self
    }

    /// The driver's options. Shared by queries and the binlog stream.
    ///
    /// # Errors
    /// [`MysqlError::Url`] for a url that is not one, or an unknown option.
    pub fn opts(&self) -> Result<Opts, MysqlError> {
        let mut url = self.parsed()?;
        let tls = TlsOptions::take_from(&mut url)?;
        let opts = Opts::from_url(url.as_str()).map_err(|e| MysqlError::Url(e.to_string()))?;
        if opts.user().is_none_or(str::is_empty) {
            return Err(MysqlError::Url("no user; write mysql://user@host:port".into()));
        }
        let password = self.password.clone().or_else(|| opts.pass().map(str::to_owned));
        let ssl = tls.apply(opts.ssl_opts().cloned())?;
        let packet_bytes = opts.max_allowed_packet().unwrap_or(PACKET_BYTES_MAX);
        Ok(OptsBuilder::from_opts(opts)
            .pass(password)
            .ssl_opts(ssl)
            // A socket on this machine may belong to another server than the one that listens on the port.
            .prefer_socket(false)
            .tcp_keepalive(Some(KEEPALIVE))
            .max_allowed_packet(Some(packet_bytes))
            // Chunk statements hold their bounds as literals and never come back; a small cache closes them soon. With no
            // cache at all the driver would leave each open on the server.
            .stmt_cache_size(STATEMENTS_KEPT)
            .into())
    }

    /// `host:port`, for messages.
    pub fn server(&self) -> String {
        self.parsed().map_or_else(
            |_| "the source".into(),
            |url| format!("{}:{}", url.host_str().unwrap_or("localhost"), url.port().unwrap_or(3306)),
        )
    }

    /// The user's name, for messages.
    pub fn user(&self) -> String {
        self.opts().ok().and_then(|o| o.user().map(str::to_owned)).unwrap_or_default()
    }

    fn parsed(&self) -> Result<Url, MysqlError> {
        // The parser's own message holds no part of the url.
        let url = Url::parse(&self.url).map_err(|e| MysqlError::Url(format!("{e}; write mysql://user@host:port")))?;
        if url.scheme() != "mysql" || url.host_str().is_none_or(str::is_empty) {
            return Err(MysqlError::Url("write mysql://user@host:port".into()));
        }
        Ok(url)
    }
}

impl fmt::Debug for SourceOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SourceOptions")
            .field("server", &self.server())
            .field("user", &self.user())
            .finish_non_exhaustive()
    }
}

/// The `ssl_*` options of a url, named as MySQL's own clients name them.
#[derive(Default)]
struct TlsOptions {
    mode: Option<TlsMode>,
    ca: Option<String>,
    cert: Option<String>,
    key: Option<String>,
    name: Option<String>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum TlsMode {
    Disabled,
    Required,
    VerifyCa,
    VerifyIdentity,
}

impl TlsOptions {
    fn take_from(url: &mut Url) -> Result<Self, MysqlError> {
        let mut tls = Self::default();
        let mut rest = Vec::new();
        for (name, value) in url.query_pairs().into_owned() {
            match name.as_str() {
                "ssl_mode" | "ssl-mode" => tls.mode = Some(TlsMode::parse(&value)?),
                "ssl_ca" | "ssl-ca" => tls.ca = Some(value),
                "ssl_cert" | "ssl-cert" => tls.cert = Some(value),
                "ssl_key" | "ssl-key" => tls.key = Some(value),
                "ssl_name" | "ssl-name" => tls.name = Some(value),
                _ => rest.push((name, value)),
            }
        }
        url.set_query(None);
        if !rest.is_empty() {
            url.query_pairs_mut().extend_pairs(rest);
        }
        Ok(tls)
    }

    /// `from_url` is what the driver's own options asked for.
    fn apply(self, from_url: Option<SslOpts>) -> Result<Option<SslOpts>, MysqlError> {
        let mode = match self.mode {
            Some(TlsMode::Disabled) => return Ok(None),
            Some(mode) => Some(mode),
            None if from_url.is_none() && (self.ca.is_some() || self.cert.is_some()) => Some(TlsMode::VerifyIdentity),
            None => None,
        };
        if from_url.is_none() && mode.is_none() {
            return Ok(None);
        }
        let mut ssl = from_url.unwrap_or_default();
        if let Some(mode) = mode {
            // Skipping the name alone is not to be had: the driver recognises that failure by a text that its TLS library
            // no longer writes.
            ssl = ssl
                .with_danger_accept_invalid_certs(mode == TlsMode::Required)
                .with_danger_skip_domain_validation(mode == TlsMode::Required);
        }
        if self.name.is_some() {
            ssl = ssl.with_danger_tls_hostname_override(self.name);
        }
        if let Some(ca) = self.ca {
            ssl = ssl.with_root_certs(vec![readable(ca)?.into()]).with_disable_built_in_roots(true);
        }
        match (self.cert, self.key) {
            (Some(cert), Some(key)) => {
                let identity = ClientIdentity::new(readable(cert)?.into(), readable(key)?.into());
                ssl = ssl.with_client_identity(Some(identity));
            }
            (None, None) => {}
            _ => return Err(MysqlError::Url("ssl_cert and ssl_key belong together".into())),
        }
        Ok(Some(ssl))
    }
}

impl TlsMode {
    fn parse(text: &str) -> Result<Self, MysqlError> {
        match text.to_ascii_lowercase().as_str() {
            "disabled" => Ok(Self::Disabled),
            "required" => Ok(Self::Required),
            "verify_ca" => Ok(Self::VerifyCa),
            "verify_identity" => Ok(Self::VerifyIdentity),
            other => Err(MysqlError::Url(format!(
                "ssl_mode `{other}` is not one of disabled, required, verify_ca, verify_identity"
            ))),
        }
    }
}

fn readable(file: String) -> Result<std::path::PathBuf, MysqlError> {
    let path = std::path::PathBuf::from(&file);
    match std::fs::File::open(&path) {
        Ok(_) => Ok(path),
        Err(e) => Err(MysqlError::Url(format!("cannot read {file}: {e}"))),
    }
}

/// Opens a connection whose session reads exactly: UTC, utf8mb4, REPEATABLE READ, no limits, no zero-date mode.
///
/// # Errors
/// [`MysqlError::Unreachable`] when no connection came about, [`MysqlError::Tls`] when its certificate will not do,
/// [`MysqlError::AccessDenied`] when the server refuses us, [`MysqlError::LoginKind`] when we cannot do what it asks for.
pub async fn connect(options: &SourceOptions) -> Result<Conn, MysqlError> {
    // Two providers of cryptography are linked, so rustls does not choose by itself; a second call changes nothing.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let opts = options.opts()?;
    let unreachable = |detail: String| MysqlError::Unreachable { server: options.server(), detail };
    let mut conn = match tokio::time::timeout(options.connect_timeout, Conn::new(opts)).await {
        Err(_) => return Err(unreachable(format!("no answer within {} s", options.connect_timeout.as_secs()))),
        Ok(Err(error)) => return Err(connect_error(options, &error)),
        Ok(Ok(conn)) => conn,
    };
    prepare_session(&mut conn).await?;
    Ok(conn)
}

/// Gives a connection that came about elsewhere the session settings of [`connect`].
pub async fn prepare_session(conn: &mut Conn) -> Result<(), MysqlError> {
    for sql in settings::REQUIRED {
        conn.query_drop(sql).await.map_err(|e| MysqlError::from_driver("setting up the session", &e))?;
    }
    for sql in settings::optional() {
        match conn.query_drop(sql).await {
            Ok(()) => {}
            Err(mysql_async::Error::Server(e)) if settings::may_lack(e.code) => {}
            Err(e) => return Err(MysqlError::from_driver("setting up the session", &e)),
        }
    }
    Ok(())
}

fn connect_error(options: &SourceOptions, error: &mysql_async::Error) -> MysqlError {
    let server = options.server();
    match error {
        mysql_async::Error::Server(refusal) => access_denied(options, refusal.code, &refusal.message)
            .unwrap_or_else(|| MysqlError::from_driver(format!("connecting to {server}"), error)),
        mysql_async::Error::Driver(DriverError::UnknownAuthPlugin { name }) => {
            MysqlError::LoginKind { server, user: options.user(), plugin: name.clone() }
        }
        mysql_async::Error::Driver(DriverError::CleartextPluginDisabled) => {
            MysqlError::LoginKind { server, user: options.user(), plugin: "mysql_clear_password".into() }
        }
        _ => match tls_detail(error) {
            Some(detail) => MysqlError::Tls { server, detail },
            None => MysqlError::Unreachable { server, detail: error.to_string() },
        },
    }
}

/// The server's refusal with its way out; none if it is about something else than who we are.
pub(crate) fn access_denied(options: &SourceOptions, code: u16, message: &str) -> Option<MysqlError> {
    let way_out = match code {
        codes::ACCESS_DENIED | codes::SOCKET_ACCESS_DENIED => {
            "Check user and password (url, WEIR_SOURCE_PASSWORD or password_file)"
        }
        codes::DATABASE_ACCESS_DENIED | codes::UNKNOWN_DATABASE => {
            "Leave the database out of the url, or name one it may use"
        }
        codes::HOST_BLOCKED | codes::HOST_NOT_PRIVILEGED => "The account must allow this host",
        codes::ACCOUNT_LOCKED => "ALTER USER … ACCOUNT UNLOCK",
        codes::MUST_CHANGE_PASSWORD | codes::PASSWORD_EXPIRED => {
            "The password has expired: ALTER USER … IDENTIFIED BY …"
        }
        _ => return None,
    };
    let (server, user, message) = (options.server(), options.user(), message.to_owned());
    Some(MysqlError::AccessDenied { server, user, code, message, way_out })
}

/// What is wrong with TLS and the way out, if that is what stopped the connection.
fn tls_detail(error: &mysql_async::Error) -> Option<String> {
    if matches!(error, mysql_async::Error::Driver(DriverError::NoClientSslFlagFromServer)) {
        return Some(NO_TLS.into());
    }
    tls_refused(&error.to_string())
}

/// Of a server that has no TLS.
pub(crate) const NO_TLS: &str =
    "the url asks for it and the server offers none; leave ssl_mode out or set the server up for it";

/// What is wrong and the way out, if the text is the TLS library's about a certificate, or about a server whose TLS is too old for it.
pub(crate) fn tls_refused(text: &str) -> Option<String> {
    if ["alert: HandshakeFailure", "alert: ProtocolVersion", "peer is incompatible"]
        .iter()
        .any(|words| text.contains(words))
    {
        return Some(format!(
            "{text}. weir speaks TLS 1.3, and TLS 1.2 with ECDHE; a server that has neither, such as an old one, is reached through a tunnel, \
             or without ssl_mode"
        ));
    }
    let problem = &text[text.find("invalid peer certificate")?..];
    let way_out = if problem.contains("not valid for") {
        "Name a host of the certificate by ssl_name=NAME"
    } else {
        "Name the authority that signed it by ssl_ca=FILE"
    };
    Some(format!("{problem}. {way_out}, or encrypt without verifying: ssl_mode=required"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn opts(url: &str) -> Opts {
        SourceOptions::new(url).opts().unwrap()
    }

    #[test]
    fn a_password_with_reserved_characters_is_percent_decoded() {
        let opts = opts("mysql://we%40ir:p%40ss%2Fw%3Ard%25@db:3307/shop");
        assert_eq!((opts.user(), opts.pass()), (Some("we@ir"), Some("p@ss/w:rd%")));
        assert_eq!((opts.ip_or_hostname(), opts.tcp_port(), opts.db_name()), ("db", 3307, Some("shop")));
    }

    #[test]
    fn a_separate_password_wins_and_is_taken_as_it_is() {
        let options = SourceOptions::new("mysql://weir:old@db").with_password(Some("n%41w".into()));
        assert_eq!(options.opts().unwrap().pass(), Some("n%41w"));
    }

    #[test]
    fn neither_debug_nor_errors_show_a_password() {
        let options = SourceOptions::new("mysql://weir:hunter2@db:1/?nonsense=1").with_password(Some("hunter3".into()));
        let shown = format!("{options:?} {}", options.opts().unwrap_err());
        assert!(!shown.contains("hunter"), "{shown}");
        let broken = SourceOptions::new("mysql://weir:hunter2@:bad").opts().unwrap_err().to_string();
        assert!(!broken.contains("hunter"), "{broken}");
        let other = SourceOptions::new("postgres://weir:hunter2@db").opts().unwrap_err().to_string();
        assert!(!other.contains("hunter"), "{other}");
    }

    #[test]
    fn tls_modes_map_to_what_is_verified() {
        let verified =
            |url: &str| opts(url).ssl_opts().map(|s| (!s.accept_invalid_certs(), !s.skip_domain_validation()));
        assert_eq!(verified("mysql://weir@db"), None);
        assert_eq!(verified("mysql://weir@db?require_ssl=true"), Some((true, true)));
        assert_eq!(verified("mysql://weir@db?require_ssl=true&verify_ca=false"), Some((false, true)));
        assert_eq!(verified("mysql://weir@db?ssl_mode=REQUIRED"), Some((false, false)));
        assert_eq!(verified("mysql://weir@db?ssl_mode=verify_ca"), Some((true, true)));
        assert_eq!(verified("mysql://weir@db?ssl_mode=verify_identity"), Some((true, true)));
        assert_eq!(verified("mysql://weir@db?ssl_mode=disabled&require_ssl=true"), None);
        assert!(SourceOptions::new("mysql://weir@db?ssl_mode=maybe").opts().is_err());
        assert!(SourceOptions::new("mysql://weir@db?ssl_ca=/no/such/file").opts().is_err());
    }
}
