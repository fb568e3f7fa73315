//! TLS to an endpoint. The files are read at each connection, so that renewed certificates need
//! no restart.

use std::ffi::OsStr;
use std::io;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures_rustls::TlsConnector;
use futures_rustls::client::TlsStream;
use futures_rustls::pki_types::pem::PemObject;
use futures_rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use futures_rustls::rustls::client::Resumption;
use futures_rustls::rustls::client::danger::{
    HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier,
};
use futures_rustls::rustls::crypto::{CryptoProvider, ring};
use futures_rustls::rustls::{
    self, CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
};
use smol::Async;

use super::endpoint::{Endpoint, Host};
use super::error::{Error, ErrorKind};
use super::files;
use crate::config::EtcdTls;
use crate::offload::{self, Lane};

const HANDSHAKE: &str = "agreeing on TLS";
/// What an etcd that speaks gRPC agrees to (RFC 7301).
const H2: &[u8] = b"h2";
/// Pairs of certificate and key in a folder, best first: this node's own by any of its usual
/// names, and the server's, which the seed's set-ups share with their clients.
const PAIRS: [&str; 3] = ["client", "healthcheck-client", "server"];

/// Makes TLS on a connection.
pub(super) async fn wrap(
    endpoint: &Endpoint,
    files: &EtcdTls,
    stream: Async<TcpStream>,
) -> Result<TlsStream<Async<TcpStream>>, Error> {
    let name = server_name(endpoint, files)?;
    let files = files.clone();
    let doing = format!("reading the certificates for {endpoint}");
    let config = offload::run(Lane::Secrets, doing, move || client_config(&files))
        .await
        .map_err(|error| error.to_string())
        .and_then(|config| config)
        .map_err(|why| Error::new(endpoint, HANDSHAKE, ErrorKind::LocalFile, &why))?;
    let stream = TlsConnector::from(Arc::new(config))
        .connect(name, stream)
        .await
        .map_err(|error| Error::caused(endpoint, HANDSHAKE, classify(&error), error))?;
    if stream.get_ref().1.alpn_protocol() == Some(H2) {
        return Ok(stream);
    }
    let detail = "no http2 was agreed on: a proxy that knows http/1 only, or not an etcd";
    Err(Error::new(endpoint, HANDSHAKE, ErrorKind::Protocol, detail))
}

fn server_name(endpoint: &Endpoint, files: &EtcdTls) -> Result<ServerName<'static>, Error> {
    let name = match (&files.server_name, &endpoint.host) {
        (Some(name), _) => name,
        (None, Host::Ip(ip)) => return Ok(ServerName::from(*ip)),
        (None, Host::Name(name)) => name,
    };
    ServerName::try_from(name.clone()).map_err(|_| {
        let detail = format!("\"{name}\" is no name that a certificate can have");
        Error::new(endpoint, HANDSHAKE, ErrorKind::CertificateName, &detail)
    })
}

/// What a handshake failed for.
fn classify(error: &io::Error) -> ErrorKind {
    let error = error.get_ref().and_then(|inner| inner.downcast_ref());
    let Some(rustls::Error::InvalidCertificate(error)) = error else {
        return ErrorKind::Handshake;
    };
    match error {
        CertificateError::NotValidYet
        | CertificateError::NotValidYetContext { .. }
        | CertificateError::Expired
        | CertificateError::ExpiredContext { .. } => ErrorKind::CertificateTime,
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            ErrorKind::CertificateName
        }
        _ => ErrorKind::CertificateUntrusted,
    }
}

/// Reads the files; may wait for a disk.
fn client_config(files: &EtcdTls) -> Result<ClientConfig, String> {
    let files = Found::of(files)?;
    let provider = Arc::new(ring::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    let builder = if files.insecure_skip_verify {
        builder.dangerous().with_custom_certificate_verifier(Arc::new(Anyone(provider)))
    } else {
        builder.with_root_certificates(roots(files.ca.as_deref())?)
    };
    let mut config = match &files.identity {
        None => builder.with_no_client_auth(),
        Some((cert, key)) => {
            let chain = certificates(cert)?;
            let der = PrivateKeyDer::from_pem_slice(&files::read_secret(key)?)
                // Its words might quote the file.
                .map_err(|_| format!("{}: no private key in PEM", key.display()))?;
            builder
                .with_client_auth_cert(chain, der)
                .map_err(|error| format!("{} with {}: {error}", cert.display(), key.display()))?
        }
    };
    config.alpn_protocols = vec![H2.to_vec()];
    // Each connection has a configuration of its own.
    config.resumption = Resumption::disabled();
    Ok(config)
}

fn roots(ca: Option<&Path>) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    let (found, place) = match ca {
        Some(ca) => (certificates(ca)?, ca.display().to_string()),
        None => {
            let system = rustls_native_certs::load_native_certs();
            (system.certs, "the system's certificates".to_owned())
        }
    };
    let mut odd = String::new();
    for certificate in found {
        // One that cannot be read does not spoil the others of a bundle.
        if let Err(error) = roots.add(certificate) {
            odd = format!(": {error}");
        }
    }
    if roots.is_empty() {
        return Err(format!("{place}: no authority to check etcd's certificate with{odd}"));
    }
    Ok(roots)
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let bytes = files::read(path)?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
    match found {
        Ok(found) if !found.is_empty() => Ok(found),
        Ok(_) => Err(format!("{}: no certificate in PEM", path.display())),
        Err(error) => Err(format!("{}: {error}", path.display())),
    }
}

/// The files by path, once those of a folder are found.
struct Found {
    ca: Option<PathBuf>,
    identity: Option<(PathBuf, PathBuf)>,
    insecure_skip_verify: bool,
}

impl Found {
    fn of(files: &EtcdTls) -> Result<Self, String> {
        let mut found = Self {
            ca: files.ca.clone(),
            identity: files.identity.clone(),
            insecure_skip_verify: files.insecure_skip_verify,
        };
        let Some(dir) = &files.dir else { return Ok(found) };
        // A link that leads nowhere, or a file that may not be read, is there: taking it for absent
        // would trust others than it says.
        let names = files::names(dir)?;
        let file = |name: &str| names.contains(OsStr::new(name)).then(|| dir.join(name));
        found.ca = file("ca.crt");
        for name in PAIRS {
            let (cert, key) = (format!("{name}.crt"), format!("{name}.key"));
            match (file(&cert), file(&key)) {
                (Some(cert), Some(key)) => {
                    found.identity = Some((cert, key));
                    break;
                }
                (None, None) => {}
                (None, Some(_)) => return Err(half(dir, &cert, &key)),
                (Some(_), None) => return Err(half(dir, &key, &cert)),
            }
        }
        if found.ca.is_none() && found.identity.is_none() {
            return Err(format!(
                "{}: neither ca.crt nor client.crt with client.key nor server.crt with server.key \
                 is there",
                dir.display()
            ));
        }
        Ok(found)
    }
}

fn half(dir: &Path, missing: &str, other: &str) -> String {
    format!("{}: {missing} is missing beside {other}", dir.display())
}

/// Takes whatever certificate comes: for servers whose certificate nobody signed.
#[derive(Debug)]
struct Anyone(Arc<CryptoProvider>);

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        let mut schemes = self.0.signature_verification_algorithms.supported_schemes();
        // What etcd's --auto-tls makes, and ring cannot check.
        schemes.push(SignatureScheme::ECDSA_NISTP521_SHA512);
        schemes
    }
}
