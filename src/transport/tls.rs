//! TLS to one server, whose certificate is always verified: by its fingerprint, by given authorities, or
//! by those of the system. There is no way without.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use rustix::net::sockopt;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
};
use rustls_platform_verifier::Verifier;
use sha2::{Digest, Sha256};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;
use tokio_rustls::{TlsConnector, rustls};

/// How long a connection may take to come about.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often one that nothing comes by is asked whether anybody is there.
const ALIVE: Duration = Duration::from_secs(15);

/// The SHA-256 of a certificate, as servers and their tools show it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Fingerprint([u8; 32]);

impl Fingerprint {
    /// Of a certificate, in DER.
    pub fn of(certificate: &[u8]) -> Fingerprint {
        Fingerprint(Sha256::digest(certificate).into())
    }

    /// As it is written: 64 hexadecimal digits, with or without colons.
    pub fn parse(text: &str) -> Option<Fingerprint> {
        let digits: Vec<u8> = text.trim().bytes().filter(|byte| *byte != b':').collect();
        let mut bytes = [0; 32];
        if digits.len() != 64 || !digits.is_ascii() {
            return None;
        }
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks(2)) {
            *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
        }
        digits.iter().all(u8::is_ascii_hexdigit).then_some(Fingerprint(bytes))
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Which server is the right one.
#[derive(Clone, Debug)]
pub enum Trust {
    /// The one whose certificate has this fingerprint, and no other.
    Fingerprint(Fingerprint),
    /// One whose certificate is of these authorities, in PEM, and in the server's name.
    Authorities(Vec<u8>),
    /// One whose certificate is of an authority that this system trusts, and in the server's name.
    System,
}

/// Who we are to the server: a certificate and its key, in PEM.
#[derive(Clone)]
pub struct Identity {
    /// The certificate, with those that lead to its authority.
    pub certificate: Vec<u8>,
    /// Its private key.
    pub key: Vec<u8>,
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Identity")
    }
}

/// A server that is reached by TLS.
#[derive(Clone, Debug)]
pub struct Tls {
    host: String,
    port: u16,
    pinned: bool,
    config: Arc<ClientConfig>,
}

/// Why there is no connection.
#[derive(Debug)]
pub(super) enum TlsError {
    /// Nobody answers.
    Unreachable(std::io::Error),
    /// Somebody answers who is not the one.
    Untrusted(String),
}

impl Tls {
    /// A server. Nothing is opened yet; what is wrong with the certificates is said.
    pub fn new(
        host: &str,
        port: u16,
        trust: Trust,
        identity: Option<&Identity>,
    ) -> Result<Tls, String> {
        let provider = Arc::new(ring::default_provider());
        let pinned = matches!(trust, Trust::Fingerprint(_));
        let verifier: Arc<dyn ServerCertVerifier> = match trust {
            Trust::Fingerprint(wanted) => Arc::new(Pinned { wanted, provider: provider.clone() }),
            Trust::System => {
                Arc::new(Verifier::new(provider.clone()).map_err(|error| error.to_string())?)
            }
            Trust::Authorities(pem) => {
                let mut roots = RootCertStore::empty();
                for certificate in certificates(&pem)? {
                    roots.add(certificate).map_err(|error| error.to_string())?;
                }
                WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider.clone())
                    .build()
                    .map_err(|error| error.to_string())?
            }
        };
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?
            .dangerous()
            .with_custom_certificate_verifier(verifier);
        let config = match identity {
            None => builder.with_no_client_auth(),
            Some(identity) => {
                let key = PrivateKeyDer::from_pem_slice(&identity.key)
                    .map_err(|error| format!("the client's key: {error}"))?;
                builder
                    .with_client_auth_cert(certificates(&identity.certificate)?, key)
                    .map_err(|error| format!("the client's certificate: {error}"))?
            }
        };
        Ok(Tls { host: host.to_owned(), port, pinned, config: Arc::new(config) })
    }

    /// Another server with the same certificate, or with one of the same authority's.
    pub fn elsewhere(&self, host: &str, port: u16) -> Tls {
        Tls { host: host.to_owned(), port, ..self.clone() }
    }

    /// Whether its certificate is a known one, and not one of an authority's.
    pub fn is_pinned(&self) -> bool {
        self.pinned
    }

    /// Name and port, as in a URL.
    pub fn authority(&self) -> String {
        match self.host.contains(':') {
            true => format!("[{}]:{}", self.host, self.port),
            false => format!("{}:{}", self.host, self.port),
        }
    }

    /// The server's certificate, in DER, if it is the right one.
    pub async fn certificate(&self) -> Result<Vec<u8>, String> {
        let stream = self.connect().await.map_err(|error| match error {
            TlsError::Unreachable(error) => error.to_string(),
            TlsError::Untrusted(why) => why,
        })?;
        let all = stream.get_ref().1.peer_certificates().unwrap_or_default();
        all.first().map(|first| first.to_vec()).ok_or_else(|| "it shows no certificate".to_owned())
    }

    pub(super) async fn connect(&self) -> Result<TlsStream<TcpStream>, TlsError> {
        let name = ServerName::try_from(self.host.clone())
            .map_err(|error| TlsError::Untrusted(error.to_string()))?;
        let connecting = async {
            let stream = TcpStream::connect((self.host.as_str(), self.port)).await?;
            stream.set_nodelay(true)?;
            // One without power says nothing of it.
            sockopt::set_socket_keepalive(&stream, true)?;
            sockopt::set_tcp_keepidle(&stream, ALIVE)?;
            sockopt::set_tcp_keepintvl(&stream, ALIVE)?;
            sockopt::set_tcp_keepcnt(&stream, 3)?;
            TlsConnector::from(Arc::clone(&self.config)).connect(name, stream).await
        };
        let connected = match tokio::time::timeout(PATIENCE, connecting).await {
            Ok(connected) => connected,
            Err(_) => Err(std::io::ErrorKind::TimedOut.into()),
        };
        connected.map_err(|error| {
            let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
            match inner {
                Some(rustls::Error::InvalidCertificate(CertificateError::Other(other))) => {
                    TlsError::Untrusted(other.to_string())
                }
                Some(rustls::Error::InvalidCertificate(why)) => {
                    TlsError::Untrusted(format!("its certificate can't be verified: {why}"))
                }
                Some(other) => TlsError::Untrusted(format!("no TLS: {other}")),
                None => TlsError::Unreachable(error),
            }
        })
    }
}

fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let all = all.map_err(|error| format!("a certificate: {error}"))?;
    if all.is_empty() {
        return Err("there is no certificate in it".into());
    }
    Ok(all)
}

/// The fingerprint of the first certificate in a PEM text.
pub fn fingerprint(pem: &[u8]) -> Result<Fingerprint, String> {
    certificates(pem).map(|all| Fingerprint::of(&all[0]))
}

/// The fingerprint of the certificate that a server shows; nobody says that it is the right one.
pub async fn shown(host: &str, port: u16) -> Option<Fingerprint> {
    let nobody = Fingerprint([0; 32]);
    let tls = Tls::new(host, port, Trust::Fingerprint(nobody), None).ok()?;
    let name = ServerName::try_from(host.to_owned()).ok()?;
    let looking = async {
        let stream = TcpStream::connect((host, port)).await?;
        TlsConnector::from(tls.config).connect(name, stream).await
    };
    let error = tokio::time::timeout(PATIENCE, looking).await.ok()?.err()?;
    match error.get_ref()?.downcast_ref::<rustls::Error>()? {
        rustls::Error::InvalidCertificate(CertificateError::Other(other)) => {
            other.0.downcast_ref::<Another>().map(|another| another.seen)
        }
        _ => None,
    }
}

/// Takes one certificate, whatever it says of itself. The server must hold its key.
#[derive(Debug)]
struct Pinned {
    wanted: Fingerprint,
    provider: Arc<CryptoProvider>,
}

/// Another server than the one that is known.
#[derive(Debug, thiserror::Error)]
#[error(
    "its certificate is another one than the one that is known: it has the fingerprint {seen}, and {wanted} is trusted"
)]
struct Another {
    seen: Fingerprint,
    wanted: Fingerprint,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let (seen, wanted) = (Fingerprint::of(certificate), self.wanted);
        if seen == wanted {
            return Ok(ServerCertVerified::assertion());
        }
        let other = rustls::OtherError(Arc::new(Another { seen, wanted }));
        Err(rustls::Error::InvalidCertificate(CertificateError::Other(other)))
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fingerprints_are_written_in_both_ways() {
        let text = "00".repeat(31) + "aF";
        let colons = "00:".repeat(31) + "af";
        assert_eq!(Fingerprint::parse(&text), Fingerprint::parse(&colons));
        assert_eq!(Fingerprint::parse(&text).unwrap().to_string(), text.to_lowercase());
        for wrong in ["", "ab", &"0".repeat(63), &"g".repeat(64), &"+0".repeat(32)] {
            assert!(Fingerprint::parse(wrong).is_none(), "{wrong}");
        }
        assert!(Fingerprint::of(b"").to_string().starts_with("e3b0c44298fc1c14"));
    }

    #[test]
    fn what_is_no_certificate_says_so() {
        let identity = Identity { certificate: b"x".to_vec(), key: b"x".to_vec() };
        let error = Tls::new("a", 1, Trust::System, Some(&identity)).unwrap_err();
        insta::assert_snapshot!(error, @"the client's key: no items found");
        let error = Tls::new("a", 1, Trust::Authorities(Vec::new()), None).unwrap_err();
        insta::assert_snapshot!(error, @"there is no certificate in it");
    }
}
