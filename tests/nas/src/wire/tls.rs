//! The certificate: self-signed, as on a NAS that nobody set up further.

use std::sync::Arc;

use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

/// What a server shows to its clients.
pub struct Identity {
    /// Does the handshakes.
    pub acceptor: TlsAcceptor,
    /// The certificate as PEM, for clients that want to trust it.
    pub pem: String,
    /// The SHA-256 of the certificate, in hex with colons.
    pub fingerprint: String,
}

/// Makes a certificate for `localhost`, loopback and `truenas.local`.
pub fn identity() -> Result<Identity, String> {
    let names = ["localhost", "127.0.0.1", "::1", "truenas.local"].map(str::to_owned);
    let made = rcgen::generate_simple_self_signed(names).map_err(|e| e.to_string())?;
    let der = made.cert.der().clone();
    let hash = ring::digest::digest(&ring::digest::SHA256, &der);
    let hex: Vec<String> = hash.as_ref().iter().map(|b| format!("{b:02X}")).collect();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
    let mut config = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![der], key)
        .map_err(|e| e.to_string())?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Identity {
        acceptor: TlsAcceptor::from(Arc::new(config)),
        pem: made.cert.pem(),
        fingerprint: hex.join(":"),
    })
}
