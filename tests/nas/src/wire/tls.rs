//! The certificate: self-signed, as on a NAS that nobody set up further, or one that is given.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

/// What a server shows to its clients.
pub struct Identity {
    /// Does the handshakes.
    pub acceptor: TlsAcceptor,
    /// The certificate as PEM, for clients that want to trust it.
    pub pem: String,
    /// The SHA-256 of the certificate, in hex with colons.
    pub fingerprint: String,
}

/// A certificate chain and its key from PEM files, or a certificate of its own for `localhost`,
/// loopback and `truenas.local`.
pub fn identity(files: Option<&(PathBuf, PathBuf)>) -> Result<Identity, String> {
    let (chain, key, pem) = match files {
        Some((chain, key)) => read(chain, key)?,
        None => {
            let names = ["localhost", "127.0.0.1", "::1", "truenas.local"].map(str::to_owned);
            let made = rcgen::generate_simple_self_signed(names).map_err(|e| e.to_string())?;
            let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
            (vec![made.cert.der().clone()], PrivateKeyDer::Pkcs8(key), made.cert.pem())
        }
    };
    let hash = ring::digest::digest(&ring::digest::SHA256, &chain[0]);
    let hex: Vec<String> = hash.as_ref().iter().map(|b| format!("{b:02X}")).collect();
    let mut config = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(|e| format!("the certificate: {e}"))?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    let acceptor = TlsAcceptor::from(Arc::new(config));
    Ok(Identity { acceptor, pem, fingerprint: hex.join(":") })
}

type Read = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>, String);

fn read(chain: &Path, key: &Path) -> Result<Read, String> {
    let wrong = |file: &Path, e: &dyn std::fmt::Display| format!("{}: {e}", file.display());
    let pem = std::fs::read_to_string(chain).map_err(|e| wrong(chain, &e))?;
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    let all = all.map_err(|e| wrong(chain, &e))?;
    if all.is_empty() {
        return Err(wrong(chain, &"no certificate is in it"));
    }
    let key = PrivateKeyDer::from_pem_file(key).map_err(|e| wrong(key, &e))?;
    Ok((all, key, pem))
}
