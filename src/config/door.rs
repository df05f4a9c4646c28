//! Who is let in, and how both sides know each other.

use std::path::PathBuf;

use clap::Args;

use crate::secret::Secret;
use crate::tls::{ClientTls, Identity, ServerTls};

/// Settings of the way in.
#[derive(Debug, Clone, Args)]
pub struct DoorSettings {
    /// A key for the sidecar's own routes, /metrics and those under /sidedraft/, as a bearer token. The page itself and the
    /// probes need none; other routes are the server's, which has a key of its own
    #[arg(long, env = "SIDEDRAFT_API_KEY", hide_env_values = true, value_name = "KEY")]
    pub api_key: Option<Secret>,

    /// A PEM file of the sidecar's certificate and those that lead to an authority: clients then speak TLS
    #[arg(long, env = "SIDEDRAFT_TLS_CERT", requires = "tls_key", value_name = "FILE")]
    pub tls_cert: Option<PathBuf>,

    /// A PEM file of the certificate's private key
    #[arg(long, env = "SIDEDRAFT_TLS_KEY", requires = "tls_cert", value_name = "FILE")]
    pub tls_key: Option<PathBuf>,

    /// A PEM file of authorities: only clients with a certificate of theirs are let in
    #[arg(long, env = "SIDEDRAFT_TLS_CLIENT_CA", requires = "tls_cert", value_name = "FILE")]
    pub tls_client_ca: Option<PathBuf>,
}

impl DoorSettings {
    /// How clients speak TLS, if they do.
    #[must_use]
    pub fn tls(&self) -> Option<ServerTls> {
        let identity = identity(self.tls_cert.as_ref(), self.tls_key.as_ref())?;
        Some(ServerTls { identity, client_authorities: self.tls_client_ca.clone() })
    }
}

/// Settings of TLS towards the server.
#[derive(Debug, Clone, Args)]
pub struct UpstreamTlsSettings {
    /// A PEM file of the authorities to trust for an https server, instead of the system's
    #[arg(long, env = "SIDEDRAFT_UPSTREAM_CA", value_name = "FILE")]
    pub upstream_ca: Option<PathBuf>,

    /// A PEM file of the certificate to show the server
    #[arg(long, env = "SIDEDRAFT_UPSTREAM_CERT", requires = "upstream_key", value_name = "FILE")]
    pub upstream_cert: Option<PathBuf>,

    /// A PEM file of that certificate's private key
    #[arg(long, env = "SIDEDRAFT_UPSTREAM_KEY", requires = "upstream_cert", value_name = "FILE")]
    pub upstream_key: Option<PathBuf>,
}

impl UpstreamTlsSettings {
    /// What connections to the server are made with.
    #[must_use]
    pub fn tls(&self) -> ClientTls {
        let identity = identity(self.upstream_cert.as_ref(), self.upstream_key.as_ref());
        ClientTls { authorities: self.upstream_ca.clone(), identity }
    }

    /// Whether anything was said that is of use only over TLS.
    pub(super) fn is_given(&self) -> bool {
        self.upstream_ca.is_some() || self.upstream_cert.is_some()
    }
}

fn identity(chain: Option<&PathBuf>, key: Option<&PathBuf>) -> Option<Identity> {
    Some(Identity { chain: chain?.clone(), key: key?.clone() })
}
