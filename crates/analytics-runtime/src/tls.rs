//! One TLS library and one crypto provider for every connection of a process.

use std::path::Path;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
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
    /// A client's certificate or key that cannot be read.
    #[error("{path} cannot be read as a certificate or a key")]
    Identity {
        /// Its path.
        path: String,
        /// Why.
        #[source]
        source: rustls::pki_types::pem::Error,
    },
    /// rustls refuses the configuration.
    #[error("TLS cannot be configured: {0}")]
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

/// Whom a client takes for the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trust {
    /// Whoever answers: it encrypts, and checks nothing.
    Anybody,
    /// Whoever has a certificate of one of the CAs, for whatever name.
    Chain,
    /// Whoever has one for the name that was asked for.
    ChainAndName,
}

/// What a client proves itself with.
pub struct Identity {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

impl Identity {
    /// Reads a certificate, with its chain, and its key, from PEM files.
    ///
    /// # Errors
    /// If one of them cannot be read.
    pub fn read(certificate: &Path, key: &Path) -> Result<Self, TlsError> {
        let failed = |path: &Path| {
            let path = path.display().to_string();
            move |source| TlsError::Identity { path, source }
        };
        let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_file_iter(certificate)
            .and_then(Iterator::collect)
            .map_err(failed(certificate))?;
        if chain.is_empty() {
            return Err(failed(certificate)(rustls::pki_types::pem::Error::NoItemsFound));
        }
        let key = PrivateKeyDer::from_pem_file(key).map_err(failed(key))?;
        Ok(Self { chain, key })
    }
}

/// A client that trusts like this, by the CAs of `ca_file` or the system's.
///
/// # Errors
/// If a file cannot be used, or no provider is installed.
pub fn client(
    trust: Trust,
    ca_file: Option<&Path>,
    identity: Option<Identity>,
) -> Result<ClientConfig, TlsError> {
    let provider = CryptoProvider::get_default()
        .ok_or_else(|| TlsError::Config(rustls::Error::General("no crypto provider".to_owned())))?;
    let lenient = |roots| LenientVerifier {
        provider: Arc::clone(provider),
        roots,
    };
    let builder = ClientConfig::builder();
    let builder = match trust {
        Trust::ChainAndName => builder.with_root_certificates(roots(ca_file)?),
        Trust::Chain => builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(lenient(Some(roots(ca_file)?)))),
        Trust::Anybody => builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(lenient(None))),
    };
    match identity {
        None => Ok(builder.with_no_client_auth()),
        Some(Identity { chain, key }) => builder
            .with_client_auth_cert(chain, key)
            .map_err(TlsError::Config),
    }
}

/// Checks no name, and the chain where there are roots to check it against; signatures of the handshake are checked in
/// any case.
#[derive(Debug)]
struct LenientVerifier {
    provider: Arc<CryptoProvider>,
    roots: Option<RootCertStore>,
}

impl ServerCertVerifier for LenientVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if let Some(roots) = &self.roots {
            let algorithms = self.provider.signature_verification_algorithms.all;
            let certificate = ParsedCertificate::try_from(end_entity)?;
            verify_server_cert_signed_by_trust_anchor(&certificate, roots, intermediates, now, algorithms)?;
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(
            message,
            cert,
            dss,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(
            message,
            cert,
            dss,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}
