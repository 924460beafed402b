//! One TLS library and one crypto provider for every connection of a process.

use std::path::Path;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};

/// Why TLS cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file of CA certificates that cannot be read.
    #[error("the CA file {path} cannot be read")]
    Read {
        /// Its path.
        path: String,
        /// Why.
        #[source]
        source: rustls::pki_types::pem::Error,
    },
    /// A file of CA certificates without a usable one.
    #[error("the CA file {path} holds no valid certificate")]
    NoCertificate {
        /// Its path.
        path: String,
    },
    /// A file of a client's certificate or key that cannot be used.
    #[error("the file {path} holds no usable certificate or key")]
    Identity {
        /// Its path.
        path: String,
        /// Why.
        #[source]
        source: rustls::pki_types::pem::Error,
    },
    /// rustls refuses the configuration.
    #[error("TLS cannot be configured")]
    Config(#[source] rustls::Error),
}

/// Makes aws-lc the process's provider. Call it first in `main`: with none installed, building a
/// configuration panics.
pub fn install_provider() {
    // A second call finds the first's provider, which is the same one.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
}

/// The CA certificates of a PEM file, or the system's where there is none.
///
/// # Errors
/// If the file cannot be read or holds no certificate.
pub fn roots(ca_file: Option<&Path>) -> Result<RootCertStore, TlsError> {
    let mut store = RootCertStore::empty();
    let Some(path) = ca_file else {
        let native = rustls_native_certs::load_native_certs();
        store.add_parsable_certificates(native.certs);
        return Ok(store);
    };
    let shown = path.display().to_string();
    let read = |source| TlsError::Read {
        path: shown.clone(),
        source,
    };
    let certificates: Vec<CertificateDer<'static>> = CertificateDer::pem_file_iter(path)
        .map_err(read)?
        .collect::<Result<_, _>>()
        .map_err(read)?;
    let (added, _) = store.add_parsable_certificates(certificates);
    if added == 0 {
        return Err(TlsError::NoCertificate { path: shown });
    }
    Ok(store)
}

/// A client that checks the server's certificate and name against the CAs of `ca_file`, or the system's.
///
/// # Errors
/// If the CA file cannot be used.
pub fn verifying_client(ca_file: Option<&Path>) -> Result<ClientConfig, TlsError> {
    Ok(ClientConfig::builder()
        .with_root_certificates(roots(ca_file)?)
        .with_no_client_auth())
}

/// The same, which shows a certificate of its own if it is given that and its key.
///
/// # Errors
/// If a file cannot be used.
pub fn identified_client(
    ca_file: Option<&Path>,
    identity: Option<(&Path, &Path)>,
) -> Result<ClientConfig, TlsError> {
    let Some((certificate, key)) = identity else {
        return verifying_client(ca_file);
    };
    let unusable = |path: &Path| {
        let path = path.display().to_string();
        move |source| TlsError::Identity { path, source }
    };
    let certificates = CertificateDer::pem_file_iter(certificate)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(unusable(certificate))?;
    let key = PrivateKeyDer::from_pem_file(key).map_err(unusable(key))?;
    ClientConfig::builder()
        .with_root_certificates(roots(ca_file)?)
        .with_client_auth_cert(certificates, key)
        .map_err(TlsError::Config)
}

/// A client that encrypts and checks nothing: what `sslmode=require` means to PostgreSQL's own clients.
///
/// # Errors
/// If no provider is installed.
pub fn unverifying_client() -> Result<ClientConfig, TlsError> {
    let provider = CryptoProvider::get_default()
        .ok_or_else(|| TlsError::Config(rustls::Error::General("no crypto provider".to_owned())))?;
    Ok(ClientConfig::builder()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyCertificate(Arc::clone(provider))))
        .with_no_client_auth())
}

/// Accepts every certificate; signatures of the handshake are still checked.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
