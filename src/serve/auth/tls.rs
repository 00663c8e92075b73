//! The checked TLS settings -> what handshakes are made with; and the names that Go has for its parts, as far as rustls
//! has them too. Pure.

use std::sync::Arc;

use rustls::crypto::{CryptoProvider, SupportedKxGroup, ring};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig, SupportedCipherSuite, SupportedProtocolVersion, version};

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
    pub versions: Vec<&'static SupportedProtocolVersion>,
    /// Of TLS 1.2; empty: all.
    pub suites: Vec<SupportedCipherSuite>,
    /// In this order; empty: all.
    pub groups: Vec<&'static dyn SupportedKxGroup>,
    pub server_order: bool,
}

impl TlsSettings {
    /// # Errors
    /// When the parts do not fit together: a key of another certificate, a certificate that nobody could read.
    pub fn build(self) -> Result<ServerConfig, rustls::Error> {
        let provider = Arc::new(self.provider());
        let builder = ServerConfig::builder_with_provider(provider.clone()).with_protocol_versions(&self.versions)?;
        let verifier = |roots: RootCertStore| WebPkiClientVerifier::builder_with_provider(roots.into(), provider);
        let unusable = |error: rustls::server::VerifierBuilderError| rustls::Error::General(error.to_string());
        let builder = match self.client {
            ClientCertificate::NotAsked => builder.with_no_client_auth(),
            ClientCertificate::IfGiven(roots) => {
                builder.with_client_cert_verifier(verifier(roots).allow_unauthenticated().build().map_err(unusable)?)
            }
            ClientCertificate::Needed(roots) => {
                builder.with_client_cert_verifier(verifier(roots).build().map_err(unusable)?)
            }
        };
        let mut config = builder.with_single_cert(self.chain, self.key)?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        config.ignore_client_order = self.server_order;
        Ok(config)
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
