//! TLS for our own connections, from the same options that the driver takes.

use std::io;
use std::sync::Arc;

use mysql_async::{ClientIdentity, SslOpts};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::error::WireError;
use crate::connect::tls_refused;

/// Speaks TLS over `stream` with the server called `host`.
pub(super) async fn connect<S>(options: &SslOpts, host: &str, stream: S) -> Result<TlsStream<S>, WireError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let config = client_config(options).await.map_err(WireError::Settings)?;
    let name = options.tls_hostname_override().unwrap_or(host);
    let server = ServerName::try_from(name.to_owned())
        .map_err(|_| WireError::Settings(format!("`{name}` cannot be a server's name in TLS")))?;
    TlsConnector::from(Arc::new(config)).connect(server, stream).await.map_err(|error| match error.kind() {
        // What rustls itself objects to, such as a certificate; anything else is the network.
        io::ErrorKind::InvalidData => {
            let detail = tls_refused(&error.to_string()).unwrap_or_else(|| error.to_string());
            WireError::Tls(detail)
        }
        _ => WireError::Io(error),
    })
}

/// The provider is named, since several are linked in and rustls then picks none by itself.
async fn client_config(options: &SslOpts) -> Result<ClientConfig, String> {
    let provider = Arc::new(ring::default_provider());
    let roots = Arc::new(root_certificates(options).await?);
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| format!("TLS: {error}"))?;
    let builder = if options.accept_invalid_certs() || options.skip_domain_validation() {
        let verifier = Lenient::new(options, &roots, provider)?;
        builder.dangerous().with_custom_certificate_verifier(Arc::new(verifier))
    } else {
        builder.with_root_certificates(roots)
    };
    match options.client_identity() {
        None => Ok(builder.with_no_client_auth()),
        Some(identity) => {
            let (certificates, key) = client_identity(identity).await?;
            builder.with_client_auth_cert(certificates, key).map_err(|error| format!("TLS client certificate: {error}"))
        }
    }
}

async fn root_certificates(options: &SslOpts) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    if !options.disable_built_in_roots() {
        roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    }
    for source in options.root_certs() {
        let bytes = source.read().await.map_err(|error| format!("cannot read the TLS root certificate: {error}"))?;
        for certificate in certificates(&bytes)? {
            roots.add(certificate).map_err(|error| format!("TLS root certificate: {error}"))?;
        }
    }
    Ok(roots)
}

async fn client_identity(
    identity: &ClientIdentity,
) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), String> {
    let (chain, key) = (identity.cert_chain(), identity.priv_key());
    let chain = chain.read().await.map_err(|error| format!("cannot read the TLS client certificate: {error}"))?;
    let key = key.read().await.map_err(|error| format!("cannot read the TLS client key: {error}"))?;
    let key = PrivateKeyDer::from_pem_slice(&key)
        .or_else(|_| PrivateKeyDer::try_from(key.to_vec()))
        .map_err(|_| "the TLS client key is neither PEM nor DER")?;
    Ok((certificates(&chain)?, key))
}

/// All certificates of a PEM file, or the one of a DER file.
fn certificates(bytes: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let found: Vec<_> = CertificateDer::pem_slice_iter(bytes)
        .collect::<Result<_, _>>()
        .map_err(|error| format!("TLS certificate: {error}"))?;
    if found.is_empty() && !bytes.is_empty() {
        return Ok(vec![CertificateDer::from(bytes.to_vec())]);
    }
    Ok(found)
}

/// Checks less than rustls would: what `verify_ca=false` and `verify_identity=false` in the url ask for.
#[derive(Debug)]
struct Lenient {
    provider: Arc<CryptoProvider>,
    /// None if any certificate will do.
    verifier: Option<Arc<WebPkiServerVerifier>>,
}

impl Lenient {
    fn new(options: &SslOpts, roots: &Arc<RootCertStore>, provider: Arc<CryptoProvider>) -> Result<Self, String> {
        let verifier = if options.accept_invalid_certs() {
            None
        } else {
            let verifier = WebPkiServerVerifier::builder_with_provider(Arc::clone(roots), Arc::clone(&provider));
            Some(verifier.build().map_err(|error| format!("TLS: {error}"))?)
        };
        Ok(Self { provider, verifier })
    }
}

impl ServerCertVerifier for Lenient {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let Some(verifier) = &self.verifier else {
            return Ok(ServerCertVerified::assertion());
        };
        match verifier.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now) {
            Err(rustls::Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) => Ok(ServerCertVerified::assertion()),
            verdict => verdict,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
