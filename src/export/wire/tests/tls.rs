//! Whom we trust, and how we show who we are.

use super::receiver::{Got, grpc_on, http_on, loopback};
use super::{Wire, fail, over, send, wire};
use crate::export::settings::{Otlp, Protocol};
use axum::serve::Listener;
use futures_util::stream;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig, crypto::ring};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

struct Authority {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

struct Identified {
    cert: String,
    key: String,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        Self {
            pem: params.self_signed(&key).unwrap().pem(),
            issuer: Issuer::new(params, key),
        }
    }

    fn issue(&self) -> Identified {
        let params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
        let key = KeyPair::generate().unwrap();
        Identified {
            cert: params.signed_by(&key, &self.issuer).unwrap().pem(),
            key: key.serialize_pem(),
        }
    }
}

type Requests = Arc<Mutex<Vec<Got>>>;

/// A receiver that shows `server`, and asks for a client of `clients` if there is such.
async fn receiver(
    protocol: Protocol,
    server: &Identified,
    clients: Option<&Authority>,
) -> (Requests, String) {
    let (listener, address) = loopback().await;
    let acceptor = acceptor(server, clients);
    let listener = Tls { listener, acceptor };
    let got = match protocol {
        // Not by tonic's own TLS, which sets the provider of the process.
        Protocol::Grpc => {
            let incoming = stream::unfold(listener, async |mut listener: Tls| {
                let (connection, _) = listener.accept().await;
                Some((Ok(connection), listener))
            });
            grpc_on(incoming, []).got()
        }
        Protocol::HttpProtobuf => http_on(listener, []).got(),
    };
    (got, format!("https://{address}"))
}

fn acceptor(server: &Identified, clients: Option<&Authority>) -> TlsAcceptor {
    let provider = Arc::new(ring::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .unwrap();
    let builder = match clients {
        Some(clients) => {
            let mut roots = RootCertStore::empty();
            roots
                .add(CertificateDer::from_pem_slice(clients.pem.as_bytes()).unwrap())
                .unwrap();
            let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider);
            builder.with_client_cert_verifier(verifier.build().unwrap())
        }
        None => builder.with_no_client_auth(),
    };
    let cert = CertificateDer::from_pem_slice(server.cert.as_bytes()).unwrap();
    let key = PrivateKeyDer::from_pem_slice(server.key.as_bytes()).unwrap();
    let mut config = builder.with_single_cert(vec![cert], key).unwrap();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Arc::new(config).into()
}

struct Tls {
    listener: TcpListener,
    acceptor: TlsAcceptor,
}

impl Listener for Tls {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            let (stream, address) = self.listener.accept().await.unwrap();
            // Who doesn't trust us hangs up, as some tests here want it.
            if let Ok(stream) = self.acceptor.accept(stream).await {
                return (stream, address);
            }
        }
    }

    fn local_addr(&self) -> std::io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

const BOTH: [Protocol; 2] = [Protocol::HttpProtobuf, Protocol::Grpc];

async fn arrives(otlp: Otlp, got: &Requests) {
    let wire = wire(otlp);
    for sent in send(&wire).await {
        assert_eq!((sent.rejected, sent.failure), (0, None));
    }
    assert_eq!(got.lock().unwrap().len(), 2);
}

#[tokio::test]
async fn the_given_authority_is_trusted_and_no_other() {
    let (authority, other) = (Authority::new(), Authority::new());
    let mut untrusted = Vec::new();
    let mut reached = Vec::new();
    for protocol in BOTH {
        let (got, endpoint) = receiver(protocol, &authority.issue(), None).await;
        let otlp = || over(protocol, &endpoint);
        arrives(otlp().ca_certificate(authority.pem.as_str()), &got).await;
        let wrong = otlp().ca_certificate(other.pem.as_str());
        untrusted.push((wrong, endpoint.clone(), "certificate"));
        // This system's authorities, if it has any.
        match Wire::new(&otlp().resolve().unwrap(), Arc::default()) {
            Ok(_) => untrusted.push((otlp(), endpoint, "certificate")),
            Err(error) => assert!(error.to_string().contains("ca_certificate"), "{error}"),
        }
        reached.push(got);
    }
    fail(untrusted).await;
    assert!(reached.iter().all(|got| got.lock().unwrap().len() == 2));
    let of_process = rustls::crypto::CryptoProvider::get_default();
    assert!(of_process.is_none(), "that is not ours to set");
}

#[tokio::test]
async fn a_client_is_known_by_its_certificate() {
    let (servers, clients) = (Authority::new(), Authority::new());
    let (client, stranger) = (clients.issue(), servers.issue());
    let mut unknown = Vec::new();
    let mut reached = Vec::new();
    for protocol in BOTH {
        let (got, endpoint) = receiver(protocol, &servers.issue(), Some(&clients)).await;
        let otlp = || over(protocol, &endpoint).ca_certificate(servers.pem.as_str());
        let showing =
            |shown: &Identified| otlp().client_identity(shown.cert.as_str(), shown.key.as_str());
        arrives(showing(&client), &got).await;
        unknown.push((otlp(), endpoint.clone(), ""));
        unknown.push((showing(&stranger), endpoint.clone(), ""));
        reached.push(got);
    }
    fail(unknown).await;
    assert!(reached.iter().all(|got| got.lock().unwrap().len() == 2));
}
