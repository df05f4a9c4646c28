//! Certificates and keys, from PEM files to what both sides of the sidecar use of them.

mod client;
mod server;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::RootCertStore;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

pub use client::{ClientTls, client_config};
pub use server::{ServerTls, acceptor};

/// Why certificates cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file does not hold what it should.
    #[error("{}: {reason}", path.display())]
    File {
        /// Which one.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// They do not go together, or the system has none.
    #[error("{0}")]
    Setup(String),
}

/// By what one side names itself.
#[derive(Debug, Clone)]
pub struct Identity {
    /// A PEM file of its certificate and those that lead from it to an authority.
    pub chain: PathBuf,
    /// A PEM file of the certificate's private key.
    pub key: PathBuf,
}

impl Identity {
    fn load(&self) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), TlsError> {
        let key = PrivateKeyDer::from_pem_file(&self.key).map_err(|error| unusable(&self.key, &error))?;
        Ok((certificates(&self.chain)?, key))
    }
}

fn unusable(path: &Path, reason: &dyn std::fmt::Display) -> TlsError {
    TlsError::File { path: path.to_owned(), reason: reason.to_string() }
}

/// At least one certificate.
fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let found = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    match found {
        Ok(list) if list.is_empty() => Err(unusable(path, &"no certificate is in it")),
        Ok(list) => Ok(list),
        Err(error) => Err(unusable(path, &error)),
    }
}

/// The authorities in a PEM file.
fn authorities(path: &Path) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path)? {
        roots.add(certificate).map_err(|error| unusable(path, &error))?;
    }
    Ok(roots)
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn setup(error: &dyn std::fmt::Display) -> TlsError {
    TlsError::Setup(error.to_string())
}
