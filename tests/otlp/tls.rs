//! A certificate for `localhost` that only its holder trusts.
#![allow(dead_code, unreachable_pub)]

use std::sync::Arc;

use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

pub struct Certificate {
    /// As a file for `OTEL_EXPORTER_OTLP_CERTIFICATE` has it.
    pub pem: String,
    der: CertificateDer<'static>,
    key: Vec<u8>,
}

impl Certificate {
    pub fn for_localhost() -> Self {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]);
        let made = made.expect("a certificate");
        Self {
            pem: made.cert.pem(),
            der: made.cert.der().clone(),
            key: made.signing_key.serialize_der(),
        }
    }

    pub fn server(&self) -> ServerConfig {
        let key = PrivateKeyDer::try_from(self.key.clone()).expect("a key");
        // Of its own: a process-wide provider would hide that someone needs one.
        ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("the versions of ring")
            .with_no_client_auth()
            .with_single_cert(vec![self.der.clone()], key)
            .expect("they belong together")
    }
}
