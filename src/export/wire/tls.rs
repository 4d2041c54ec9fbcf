//! TLS: rustls with ring, on both protocols.

use super::Signal;
use crate::Error;
use crate::export::settings::{Pem, Tls};
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};
use std::sync::Arc;
use tonic::transport::{Certificate, ClientTlsConfig, Identity};

/// Refuses what is no PEM, no certificate, or a key of another certificate.
pub(crate) fn check(tls: &Tls) -> Result<(), Error> {
    let roots = match &tls.ca {
        Some(ca) => given_roots(ca)?,
        // The system's are no setting, and take long to read.
        None => RootCertStore::empty(),
    };
    config(roots, tls.identity.as_ref()).map(drop)
}

/// For hyper. An endpoint without TLS has one that trusts nobody.
pub(super) fn client_config(signal: &Signal) -> Result<ClientConfig, Error> {
    let Some(tls) = &signal.tls else {
        return config(RootCertStore::empty(), None);
    };
    let roots = match &tls.ca {
        Some(ca) => given_roots(ca)?,
        None => native_roots()?,
    };
    config(roots, tls.identity.as_ref())
}

/// For tonic, which reads the PEM itself, and was compiled with ring.
pub(super) fn tonic_config(signal: &Signal) -> Option<ClientTlsConfig> {
    let tls = signal.tls.as_ref()?;
    let config = ClientTlsConfig::new();
    let config = match &tls.ca {
        Some(ca) => config.ca_certificate(Certificate::from_pem(&ca.bytes)),
        None => config.with_native_roots(),
    };
    Some(match &tls.identity {
        Some((cert, key)) => config.identity(Identity::from_pem(&cert.bytes, &key.bytes)),
        None => config,
    })
}

/// With a provider of its own: that of the process is the program's to choose.
fn config(roots: RootCertStore, identity: Option<&(Pem, Pem)>) -> Result<ClientConfig, Error> {
    let provider = Arc::new(ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| Error::exporter(format!("TLS: {error}")))?
        .with_root_certificates(roots);
    let Some((cert, key)) = identity else {
        return Ok(builder.with_no_client_auth());
    };
    let chain = certificates(cert)?;
    let private = PrivateKeyDer::from_pem_slice(&key.bytes).map_err(|error| {
        let expected = format!("no private key in it ({error}); give PEM with BEGIN PRIVATE KEY");
        Error::secret(key.source, expected)
    })?;
    builder
        .with_client_auth_cert(chain, private)
        .map_err(|error| {
            let expected = format!(
                "{error}; give a key that ring knows, and the certificate that is of this key"
            );
            Error::secret(key.source, expected)
        })
}

fn certificates(pem: &Pem) -> Result<Vec<CertificateDer<'static>>, Error> {
    let refuse = |why: String| {
        let expected = format!("{why}; give PEM with BEGIN CERTIFICATE");
        Err(Error::secret(pem.source, expected))
    };
    match CertificateDer::pem_slice_iter(&pem.bytes).collect::<Result<Vec<_>, _>>() {
        Ok(found) if found.is_empty() => refuse("no certificate in it".into()),
        Ok(found) => Ok(found),
        Err(error) => refuse(error.to_string()),
    }
}

fn given_roots(pem: &Pem) -> Result<RootCertStore, Error> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(pem)? {
        roots.add(certificate).map_err(|error| {
            let expected = format!("{error}; give the certificate of the authority");
            Error::secret(pem.source, expected)
        })?;
    }
    Ok(roots)
}

fn native_roots() -> Result<RootCertStore, Error> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    // Some systems carry certificates that nobody can read; the others do.
    let (added, _) = roots.add_parsable_certificates(found.certs);
    if added == 0 {
        let errors: Vec<String> = found.errors.iter().map(ToString::to_string).collect();
        return Err(Error::exporter(format!(
            "this system has no certificates to trust ({}); set OTEL_EXPORTER_OTLP_CERTIFICATE \
             or ca_certificate(…)",
            errors.join(", ")
        )));
    }
    Ok(roots)
}
