//! Introducing ourselves to a server: handshake, TLS, password.

use mysql_async::Opts;
use mysql_common::constants::CapabilityFlags;
use mysql_common::crypto;
use mysql_common::io::ParseBuf;
use mysql_common::packets::{AuthPlugin, AuthSwitchRequest, HandshakePacket, HandshakeResponse, SslRequest};
use mysql_common::proto::MySerialize;

use super::connection::{Connection, EOF, OK};
use super::error::WireError;
use crate::connect::NO_TLS;

/// The protocol's upper bound, so that no event is too large for us.
const PACKET_MAX: u32 = 1 << 30;
const UTF8MB4_GENERAL_CI: u8 = 45;
/// Length of a nonce that a password is mixed with.
const NONCE_LEN: usize = 20;

/// A connection that the server has accepted as the user in `options`.
pub async fn log_in(options: &Opts) -> Result<Connection, WireError> {
    let mut connection = Connection::open(options).await?;
    let greeting = connection.read_reply().await?;
    let greeting: HandshakePacket<'_> = parse(&greeting)?;
    let capabilities = capabilities(options, &connection) & greeting.capabilities();

    if let Some(tls) = options.ssl_opts().filter(|_| !connection.is_private) {
        if !capabilities.contains(CapabilityFlags::CLIENT_SSL) {
            return Err(WireError::Tls(NO_TLS.into()));
        }
        connection.write_packet(&serialized(&SslRequest::new(capabilities, PACKET_MAX, UTF8MB4_GENERAL_CI))).await?;
        connection = connection.start_tls(tls, options.ip_or_hostname()).await?;
    }

    let mut nonce = greeting.scramble_1_ref().to_vec();
    nonce.extend_from_slice(greeting.scramble_2_ref().unwrap_or_default());
    nonce.resize(NONCE_LEN, 0);
    let plugin = match greeting.auth_plugin() {
        Some(AuthPlugin::CachingSha2Password) => AuthPlugin::CachingSha2Password,
        _ => AuthPlugin::MysqlNativePassword,
    };
    let attributes = [("program_name".to_owned(), "weir".to_owned())].into();
    let answer = plugin.gen_data(options.pass(), &nonce);
    let response = HandshakeResponse::new(
        answer.as_deref(),
        greeting.server_version_parsed().unwrap_or((8, 0, 0)),
        options.user().map(str::as_bytes),
        None::<&[u8]>,
        Some(plugin.borrow()),
        capabilities,
        capabilities.contains(CapabilityFlags::CLIENT_CONNECT_ATTRS).then_some(attributes),
        PACKET_MAX,
    );
    connection.write_packet(&serialized(&response)).await?;
    Login { options, connection, plugin: plugin.into_owned(), nonce }.finish().await
}

fn capabilities(options: &Opts, connection: &Connection) -> CapabilityFlags {
    let mut flags = CapabilityFlags::CLIENT_PROTOCOL_41
        | CapabilityFlags::CLIENT_SECURE_CONNECTION
        | CapabilityFlags::CLIENT_LONG_PASSWORD
        | CapabilityFlags::CLIENT_PLUGIN_AUTH
        | CapabilityFlags::CLIENT_PLUGIN_AUTH_LENENC_CLIENT_DATA
        | CapabilityFlags::CLIENT_CONNECT_ATTRS;
    if options.ssl_opts().is_some() && !connection.is_private {
        flags |= CapabilityFlags::CLIENT_SSL;
    }
    flags
}

/// The dialogue behind our response, until the server says OK.
struct Login<'a> {
    options: &'a Opts,
    connection: Connection,
    plugin: AuthPlugin<'static>,
    nonce: Vec<u8>,
}

impl Login<'_> {
    async fn finish(mut self) -> Result<Connection, WireError> {
        const MORE_DATA: u8 = 0x01;
        const CACHED_PASSWORD_OK: u8 = 0x03;
        const SEND_PASSWORD: u8 = 0x04;

        let mut switched = false;
        loop {
            let packet = self.connection.read_reply().await?;
            match (packet[0], packet.get(1)) {
                (OK, _) => return Ok(self.connection),
                (MORE_DATA, Some(&CACHED_PASSWORD_OK)) => {}
                (MORE_DATA, Some(&SEND_PASSWORD)) => self.send_password().await?,
                (EOF, Some(_)) if !switched => {
                    switched = true;
                    self.switch(&packet).await?;
                }
                _ => return Err(WireError::protocol("the server asks for a kind of login that is not known")),
            }
        }
    }

    /// The account uses another kind of password than the server's default.
    async fn switch(&mut self, packet: &[u8]) -> Result<(), WireError> {
        let request: AuthSwitchRequest<'_> = parse(packet)?;
        self.plugin = request.auth_plugin().into_owned();
        self.nonce = request.plugin_data().to_vec();
        let allowed = match &self.plugin {
            AuthPlugin::CachingSha2Password | AuthPlugin::MysqlNativePassword => true,
            AuthPlugin::MysqlClearPassword => self.options.enable_cleartext_plugin() && self.connection.is_private,
            _ => false,
        };
        if !allowed {
            return Err(WireError::LoginKind(String::from_utf8_lossy(self.plugin.as_bytes()).into_owned()));
        }
        let answer = self.plugin.gen_data(self.options.pass(), &self.nonce);
        self.connection.write_packet(answer.as_deref().unwrap_or_default()).await
    }

    /// The server has not cached the password and wants it whole: as it is where nobody can listen in, else encrypted
    /// with the server's key.
    async fn send_password(&mut self) -> Result<(), WireError> {
        const REQUEST_PUBLIC_KEY: u8 = 0x02;

        let mut password = self.options.pass().unwrap_or_default().as_bytes().to_vec();
        password.push(0);
        if self.connection.is_private {
            return self.connection.write_packet(&password).await;
        }
        self.connection.write_packet(&[REQUEST_PUBLIC_KEY]).await?;
        let key = self.connection.read_reply().await?;
        for (byte, mask) in password.iter_mut().zip(self.nonce.iter().cycle()) {
            *byte ^= mask;
        }
        self.connection.write_packet(&crypto::encrypt(&password, &key[1..])).await
    }
}

fn parse<'a, T>(packet: &'a [u8]) -> Result<T, WireError>
where
    T: mysql_common::proto::MyDeserialize<'a, Ctx = ()>,
{
    ParseBuf(packet).parse(()).map_err(|error| WireError::protocol(format!("not a MySQL server: {error}")))
}

fn serialized(packet: &impl MySerialize) -> Vec<u8> {
    let mut bytes = Vec::new();
    packet.serialize(&mut bytes);
    bytes
}
