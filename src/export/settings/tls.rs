//! What TLS is given: whom to trust, and who we are.

use crate::Error;
use crate::export::env::{Env, Vars, refused};
use std::{fmt, fs};

/// For an `https` endpoint. Every part was read as PEM once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Tls {
    /// Trusted instead of what the system trusts.
    pub(crate) ca: Option<Pem>,
    /// Our certificate and its key.
    pub(crate) identity: Option<(Pem, Pem)>,
}

/// PEM text, and the method or variable it comes from.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Pem {
    pub(crate) source: &'static str,
    pub(crate) bytes: Vec<u8>,
}

impl Tls {
    pub(super) fn resolve(
        ca: Option<&[u8]>,
        identity: Option<&(Vec<u8>, Vec<u8>)>,
        vars: &Vars,
        env: &Env<'_>,
    ) -> Result<Self, Error> {
        let ca = match ca {
            Some(bytes) => Some(Pem::of("ca_certificate", bytes)),
            None => file(vars.certificate, env)?,
        };
        let identity = match identity {
            Some((cert, key)) => Some((
                Pem::of("client_identity", cert),
                Pem::of("client_identity", key),
            )),
            None => pair(vars, env)?,
        };
        let tls = Self { ca, identity };
        // Now, not when the exporter's thread finds out.
        #[cfg(feature = "otlp-tls")]
        crate::export::wire::check_tls(&tls)?;
        Ok(tls)
    }
}

impl Pem {
    fn of(source: &'static str, bytes: &[u8]) -> Self {
        Self {
            source,
            bytes: bytes.to_vec(),
        }
    }
}

/// Without the text, which may be a key.
impl fmt::Debug for Pem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Pem").field(&self.source).finish()
    }
}

fn pair(vars: &Vars, env: &Env<'_>) -> Result<Option<(Pem, Pem)>, Error> {
    let cert = file(vars.client_certificate, env)?;
    let key = file(vars.client_key, env)?;
    let (alone, other) = match (cert, key) {
        (Some(cert), Some(key)) => return Ok(Some((cert, key))),
        (None, None) => return Ok(None),
        (Some(cert), None) => (cert.source, vars.client_key[1]),
        (None, Some(key)) => (key.source, vars.client_certificate[1]),
    };
    let expected = format!("a certificate and its key go together; set {other} too");
    Err(Error::secret(alone, expected))
}

fn file(names: [&'static str; 2], env: &Env<'_>) -> Result<Option<Pem>, Error> {
    let Some((source, path)) = env.first(names)? else {
        return Ok(None);
    };
    match fs::read(&path) {
        Ok(bytes) => Ok(Some(Pem { source, bytes })),
        Err(error) => {
            let expected = format!("{error}; write the path of a PEM file");
            Err(refused(source, &path, expected))
        }
    }
}
