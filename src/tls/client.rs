//! Towards the server: whom to trust, and who the sidecar is.

use std::path::PathBuf;

use hyper_rustls::ConfigBuilderExt;
use rustls::{ClientConfig, RootCertStore};

use super::{Identity, TlsError, authorities, provider, setup};

/// How to speak to a server over TLS.
#[derive(Debug, Clone, Default)]
pub struct ClientTls {
    /// A PEM file of the authorities to trust, instead of the system's.
    pub authorities: Option<PathBuf>,
    /// What to show a server that asks for a certificate.
    pub identity: Option<Identity>,
}

/// What connections are made with. The system's authorities are read only if the server `is_https` and no others are
/// named: reading them takes time, and a small image has none.
///
/// # Errors
/// When a file cannot be used, or the system has no authorities.
pub fn client_config(tls: &ClientTls, is_https: bool) -> Result<ClientConfig, TlsError> {
    let builder = ClientConfig::builder_with_provider(provider());
    let builder = builder.with_safe_default_protocol_versions().map_err(|error| setup(&error))?;
    let builder = match &tls.authorities {
        Some(path) => builder.with_root_certificates(authorities(path)?),
        None if is_https => builder.with_native_roots().map_err(|error| setup(&error))?,
        None => builder.with_root_certificates(RootCertStore::empty()),
    };
    match &tls.identity {
        None => Ok(builder.with_no_client_auth()),
        Some(identity) => {
            let (chain, key) = identity.load()?;
            builder.with_client_auth_cert(chain, key).map_err(|error| setup(&error))
        }
    }
}
