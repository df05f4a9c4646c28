//! TLS towards clients and towards the server.

use std::path::{Path, PathBuf};

use http::StatusCode;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use serde_json::json;
use sidedraft::tls::{Identity, ServerTls, acceptor};
use tempfile::TempDir;
use tokio::net::{TcpListener, TcpStream};

use super::replies::{CHAT, asking};
use super::rig::{COMPLETIONS, Plan, Rig, answer, greedy};
use super::support::fake_vllm::{FakeConfig, FakeVllm};
use super::support::harness::Harness;

/// An authority, what it vouches for, and their files.
struct Authority {
    folder: TempDir,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        std::fs::write(folder.path().join("ca.pem"), certificate.pem()).unwrap();
        Self { folder, issuer: Issuer::new(params, key) }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn pem(&self) -> PathBuf {
        self.file("ca.pem")
    }

    /// A certificate for this machine, in files that begin with `name`.
    fn identity(&self, name: &str) -> Identity {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(["localhost".to_owned(), "127.0.0.1".to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let (chain_file, key_file) = (self.file(&format!("{name}.pem")), self.file(&format!("{name}.key")));
        std::fs::write(&chain_file, certificate.pem()).unwrap();
        std::fs::write(&key_file, key.serialize_pem()).unwrap();
        Identity { chain: chain_file, key: key_file }
    }
}

fn text(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}

/// A client that trusts `authority` alone, and shows `identity` to who asks.
fn client(authority: &Authority, identity: Option<&Identity>) -> reqwest::Client {
    let root = reqwest::Certificate::from_pem(&std::fs::read(authority.pem()).unwrap()).unwrap();
    let builder = reqwest::Client::builder().no_proxy().tls_built_in_root_certs(false).add_root_certificate(root);
    let builder = match identity {
        None => builder,
        Some(identity) => {
            let mut pem = std::fs::read(&identity.chain).unwrap();
            pem.extend(std::fs::read(&identity.key).unwrap());
            builder.identity(reqwest::Identity::from_pem(&pem).unwrap())
        }
    };
    builder.build().unwrap()
}

fn flags(identity: &Identity) -> String {
    format!("--tls-cert {} --tls-key {}", text(&identity.chain), text(&identity.key))
}

#[tokio::test]
async fn clients_speak_tls_with_the_sidecar() {
    let authority = Authority::new();
    let rig = Plan::default().flags(&flags(&authority.identity("own"))).start().await;
    assert!(rig.sidecar.url.starts_with("https://"));
    let http = client(&authority, None);
    for path in [COMPLETIONS, CHAT] {
        let request = http.post(format!("{}{path}", rig.sidecar.url)).json(&asking(path, &json!({})));
        assert_eq!(answer(request).await.0, StatusCode::OK);
    }
    assert!((rig.outcome("speculated") - 2.0).abs() < 1e-9);
    let stranger = client(&Authority::new(), None);
    assert!(stranger.get(format!("{}/health", rig.sidecar.url)).send().await.is_err());
    let plain = rig.sidecar.url.replace("https://", "http://");
    assert!(rig.sidecar.http.get(format!("{plain}/health")).send().await.is_err());
    assert_eq!(answer(http.get(format!("{}/health", rig.sidecar.url))).await.0, StatusCode::OK, "and goes on");
}

#[tokio::test]
async fn where_clients_are_asked_for_a_certificate_others_do_not_come_in() {
    let (authority, others) = (Authority::new(), Authority::new());
    let own = flags(&authority.identity("own"));
    let flags = format!("{own} --tls-client-ca {}", text(&authority.pem()));
    let rig = Plan::default().flags(&flags).start().await;
    let health = format!("{}/health", rig.sidecar.url);
    let trusted = client(&authority, Some(&authority.identity("client")));
    assert_eq!(answer(trusted.get(&health)).await.0, StatusCode::OK);
    for identity in [None, Some(others.identity("stranger"))] {
        assert!(client(&authority, identity.as_ref()).get(&health).send().await.is_err());
    }
}

/// TLS in front of a server that speaks none. Only clients with a certificate of the authority's get through.
async fn behind_tls(fake: &FakeVllm, authority: &Authority) -> String {
    let tls = ServerTls { identity: authority.identity("server"), client_authorities: Some(authority.pem()) };
    let (tls, address) = (acceptor(&tls).unwrap(), fake.address());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://localhost:{}", listener.local_addr().unwrap().port());
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let tls = tls.clone();
            tokio::spawn(async move {
                let Ok(mut stream) = tls.accept(stream).await else { return };
                let mut server = TcpStream::connect(address).await.unwrap();
                let _ = tokio::io::copy_bidirectional(&mut stream, &mut server).await;
            });
        }
    });
    url
}

#[tokio::test]
async fn the_sidecar_speaks_tls_with_its_server() {
    let authority = Authority::new();
    let fake = FakeVllm::start(FakeConfig::default()).await;
    let url = behind_tls(&fake, &authority).await;
    let (ca, own) = (text(&authority.pem()), authority.identity("own"));
    let tokenizer = text(&fake.write_tokenizer(authority.folder.path()));
    let (chain, key) = (text(&own.chain), text(&own.key));
    let all = ["--tokenizer", &tokenizer, "--upstream-ca", &ca, "--upstream-cert", &chain, "--upstream-key", &key];
    let sidecar = Harness::start(&url, &all).await;
    sidecar.complete(&greedy(6)).await;
    assert_eq!(answer(sidecar.http.get(format!("{}/v1/models", sidecar.url))).await.0, StatusCode::OK);
    let without_identity = Harness::start_with(&url, &all[..4], |setup| setup).await;
    let trusts_nobody = Authority::new();
    let other_ca = text(&trusts_nobody.pem());
    let with_other_ca = ["--upstream-ca", &other_ca, "--upstream-cert", &chain, "--upstream-key", &key];
    let with_other_ca = Harness::start_with(&url, &with_other_ca, |setup| setup).await;
    for sidecar in [without_identity, with_other_ca] {
        assert_eq!(sidecar.post(COMPLETIONS, &greedy(6)).await.status(), StatusCode::BAD_GATEWAY);
    }
}

#[tokio::test]
async fn a_plain_server_needs_no_authorities() {
    let rig = Rig::usual().await;
    rig.complete(&greedy(4)).await;
    let refused = |flags: &[&str]| {
        let settings = super::support::harness::settings("https://localhost", flags);
        sidedraft::upstream::Upstream::new(&settings.target.upstream_options()).unwrap_err().to_string()
    };
    let authority = Authority::new();
    let (no_key, own) = (text(&authority.pem()), authority.identity("own"));
    assert!(refused(&["--upstream-ca", "/nowhere.pem"]).contains("/nowhere.pem"));
    assert!(refused(&["--upstream-ca", &text(&own.key)]).contains("no certificate is in it"));
    let cert = text(&own.chain);
    assert!(
        refused(&["--upstream-ca", &no_key, "--upstream-cert", &cert, "--upstream-key", &no_key]).contains(&no_key)
    );
}
