//! The checked TLS settings -> what handshakes are made with; and the names that Go has for its parts, as far as rustls
//! has them too. Pure.

use std::net::IpAddr;
use std::sync::Arc;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{CryptoProvider, SupportedKxGroup, ring};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    DigitallySignedStruct, DistinguishedName, RootCertStore, ServerConfig, SignatureScheme, SupportedCipherSuite,
    SupportedProtocolVersion, version,
};

/// Which client certificates are asked for.
pub enum ClientCertificate {
    NotAsked,
    /// One that is sent is verified; none is fine.
    IfGiven(RootCertStore),
    Needed(RootCertStore),
}

/// `tls_server_config`, read.
pub struct TlsSettings {
    pub chain: Vec<CertificateDer<'static>>,
    pub key: PrivateKeyDer<'static>,
    pub client: ClientCertificate,
    /// Of a client's certificate one of its names must be among these.
    pub client_names: Option<Vec<String>>,
    pub versions: Vec<&'static SupportedProtocolVersion>,
    /// Of TLS 1.2; empty: all.
    pub suites: Vec<SupportedCipherSuite>,
    /// In this order; empty: all.
    pub groups: Vec<&'static dyn SupportedKxGroup>,
    pub server_order: bool,
}

/// With what handshakes are made, and who decides about the certificates of clients, if each has to show one.
pub struct Built {
    pub config: Arc<ServerConfig>,
    pub certificates_needed: Option<Arc<dyn ClientCertVerifier>>,
}

impl TlsSettings {
    /// # Errors
    /// When the parts do not fit together: a key of another certificate, a certificate that nobody could read.
    pub fn build(self) -> Result<Built, rustls::Error> {
        let provider = Arc::new(self.provider());
        let builder = ServerConfig::builder_with_provider(provider.clone()).with_protocol_versions(&self.versions)?;
        let verifier = |roots: RootCertStore| WebPkiClientVerifier::builder_with_provider(roots.into(), provider);
        let verifier = match self.client {
            ClientCertificate::NotAsked => None,
            ClientCertificate::IfGiven(roots) => Some(verifier(roots).allow_unauthenticated().build()),
            ClientCertificate::Needed(roots) => Some(verifier(roots).build()),
        };
        let verifier = verifier.transpose().map_err(|error| rustls::Error::General(error.to_string()))?;
        let verifier = match (verifier, self.client_names) {
            (Some(any), Some(names)) => Some(Arc::new(Named { any, names }) as Arc<dyn ClientCertVerifier>),
            (verifier, _) => verifier,
        };
        let builder = match verifier.clone() {
            None => builder.with_no_client_auth(),
            Some(verifier) => builder.with_client_cert_verifier(verifier),
        };
        let mut config = builder.with_single_cert(self.chain, self.key)?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        config.ignore_client_order = self.server_order;
        let certificates_needed = verifier.filter(|verifier| verifier.client_auth_mandatory());
        Ok(Built { config: Arc::new(config), certificates_needed })
    }

    fn provider(&self) -> CryptoProvider {
        let mut provider = ring::default_provider();
        if !self.suites.is_empty() {
            provider.cipher_suites.retain(|suite| suite.tls13().is_some());
            provider.cipher_suites.extend(self.suites.iter().filter(|suite| suite.tls13().is_none()));
        }
        if !self.groups.is_empty() {
            provider.kx_groups = self.groups.clone();
        }
        provider
    }
}

/// Of the certificates that another verifier lets in, those with one of these names.
#[derive(Debug)]
struct Named {
    any: Arc<dyn ClientCertVerifier>,
    names: Vec<String>,
}

impl Named {
    /// Names of hosts and URIs are compared as they are written, wildcards too; addresses as addresses.
    fn knows(&self, certificate: &CertificateDer<'_>) -> bool {
        let Ok(certificate) = webpki::EndEntityCert::try_from(certificate) else { return false };
        let has_address = |name: &String| {
            let address = name.parse::<IpAddr>().map(|address| ServerName::IpAddress(address.into()));
            address.is_ok_and(|address| certificate.verify_is_valid_for_subject_name(&address).is_ok())
        };
        let mut written = certificate.valid_dns_names().chain(certificate.valid_uri_names());
        written.any(|name| self.names.iter().any(|known| known == name)) || self.names.iter().any(has_address)
    }
}

impl ClientCertVerifier for Named {
    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        let verified = self.any.verify_client_cert(end_entity, intermediates, now)?;
        if self.knows(end_entity) {
            Ok(verified)
        } else {
            Err(rustls::CertificateError::ApplicationVerificationFailure.into())
        }
    }

    fn client_auth_mandatory(&self) -> bool {
        self.any.client_auth_mandatory()
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.any.root_hint_subjects()
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.any.verify_tls12_signature(message, cert, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.any.verify_tls13_signature(message, cert, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.any.supported_verify_schemes()
    }
}

/// From a lowest to a highest version, by Go's names; the older two are not to be had.
pub const VERSIONS: [(&str, &SupportedProtocolVersion); 2] = [("TLS12", &version::TLS12), ("TLS13", &version::TLS13)];

pub fn suites() -> Vec<(&'static str, SupportedCipherSuite)> {
    use ring::cipher_suite as c;
    vec![
        ("TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256", c::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256),
        ("TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384", c::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384),
        ("TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256", c::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256),
        ("TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256", c::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256),
        ("TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384", c::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384),
        ("TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256", c::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256),
        // As in Go, those of TLS 1.3 may be named, and are on in any case.
        ("TLS_AES_128_GCM_SHA256", c::TLS13_AES_128_GCM_SHA256),
        ("TLS_AES_256_GCM_SHA384", c::TLS13_AES_256_GCM_SHA384),
        ("TLS_CHACHA20_POLY1305_SHA256", c::TLS13_CHACHA20_POLY1305_SHA256),
    ]
}

pub fn groups() -> Vec<(&'static str, &'static dyn SupportedKxGroup)> {
    use ring::kx_group as k;
    vec![("X25519", k::X25519), ("CurveP256", k::SECP256R1), ("CurveP384", k::SECP384R1)]
}
