//! Towards clients: who the sidecar is, and whom it lets in.

use std::path::PathBuf;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::server::WebPkiClientVerifier;
use tokio_rustls::TlsAcceptor;

use super::{Identity, TlsError, authorities, provider, setup};

/// How to let clients speak TLS.
#[derive(Debug, Clone)]
pub struct ServerTls {
    /// What the sidecar shows them.
    pub identity: Identity,
    /// A PEM file of authorities: only clients with a certificate of theirs are let in.
    pub client_authorities: Option<PathBuf>,
}

/// What makes TLS of a connection. The files are read once: a new certificate is taken up by a restart.
///
/// # Errors
/// When a file cannot be used, or the key is not the certificate's.
pub fn acceptor(tls: &ServerTls) -> Result<TlsAcceptor, TlsError> {
    let builder = ServerConfig::builder_with_provider(provider());
    let builder = builder.with_safe_default_protocol_versions().map_err(|error| setup(&error))?;
    let builder = match &tls.client_authorities {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let trusted = Arc::new(authorities(path)?);
            let verifier = WebPkiClientVerifier::builder_with_provider(trusted, provider()).build();
            builder.with_client_cert_verifier(verifier.map_err(|error| setup(&error))?)
        }
    };
    let (chain, key) = tls.identity.load()?;
    let mut config = builder.with_single_cert(chain, key).map_err(|error| setup(&error))?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}
