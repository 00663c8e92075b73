//! What is configured of access, checked; nothing in here shows a secret. Pure.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use http::{HeaderName, HeaderValue};
use rustls::ServerConfig;
use rustls::server::danger::ClientCertVerifier;

use super::roles::Role;

/// `web` of the configuration: who is known by a token, and what the users of the web configuration may do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AccessSettings {
    /// Names are unique.
    pub tokens: Vec<TokenSettings>,
    /// By the names of `basic_auth_users`. `None`: each of them may do everything, as with Prometheus; given, it says it
    /// all, and who is not named may do nothing.
    pub roles: Option<BTreeMap<String, Role>>,
}

/// One bearer token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenSettings {
    /// For the audit trail.
    pub name: String,
    pub role: Role,
    pub token: TokenSource,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TokenSource {
    /// A file that holds the token; read anew when it changes.
    File(PathBuf),
    Sha256(TokenDigest),
}

/// The SHA-256 of a token: all that is kept of it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct TokenDigest(pub [u8; 32]);

/// A password as bcrypt keeps it, `$2y$10$…`.
#[derive(Clone, PartialEq, Eq)]
pub struct PasswordHash(pub String);

/// `--web.config.file`, checked and complete.
#[derive(Clone, Debug, Default)]
pub struct WebSettings {
    /// `None`: plain HTTP.
    pub tls: Option<Arc<ServerConfig>>,
    /// Whose certificates we trust, if nobody gets past the handshake without one.
    pub certificates_needed: Option<Arc<dyn ClientCertVerifier>>,
    /// Set on every answer.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    pub users: BTreeMap<String, PasswordHash>,
}

/// Stands where a secret would be printed.
pub struct Hidden;

impl fmt::Debug for Hidden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<hidden>")
    }
}

impl fmt::Debug for TokenDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Hidden.fmt(f)
    }
}

impl fmt::Debug for PasswordHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Hidden.fmt(f)
    }
}
