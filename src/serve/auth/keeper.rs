//! What is in force of access, swapped whole when a file changes. A change that cannot stand is told once, and what was
//! in force stays: a certificate is often written a moment before its key. IO.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use http::{HeaderName, HeaderValue};
use rustls::ServerConfig;
use rustls::pki_types::UnixTime;
use rustls::server::danger::ClientCertVerifier;

use super::super::listen::check_listen;
use super::credentials::{Credentials, mode, sha256};
use super::settings::{AccessSettings, TokenSource, WebSettings};
use crate::config::{self, WebFile};
use crate::http::{Handshake, Tls};

/// How soon a changed file is in force.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// One state of access; requests and handshakes take it as it is when they begin.
#[derive(Debug)]
pub struct InForce {
    tls: Option<Arc<ServerConfig>>,
    certificates_needed: Option<Arc<dyn ClientCertVerifier>>,
    pub headers: Vec<(HeaderName, HeaderValue)>,
    pub credentials: Credentials,
    /// Whether whoever asks has proven something: in the handshake, or with a credential.
    pub authenticated: bool,
}

impl InForce {
    pub fn scheme(&self) -> &'static str {
        if self.tls.is_some() { "https" } else { "http" }
    }

    /// Whether a connection that is made now would be made in the same way as this one was.
    pub fn made(&self, handshake: Option<&Handshake>) -> bool {
        let theirs = handshake.map(|handshake| Arc::as_ptr(&handshake.config));
        self.tls.as_ref().map(Arc::as_ptr) == theirs
    }

    /// Whether the peer of a connection would still get past the handshake, if that takes a certificate. What an older
    /// configuration asked for, and whom it trusted, counts for nothing.
    pub fn lets_in(&self, handshake: Option<&Handshake>) -> bool {
        let Some(verifier) = &self.certificates_needed else { return true };
        let shown = handshake.and_then(|handshake| handshake.certificates.split_first());
        self.made(handshake)
            || shown.is_some_and(|(own, between)| verifier.verify_client_cert(own, between, UnixTime::now()).is_ok())
    }
}

/// Keeps what is in force up to date.
pub struct Keeper {
    file: Option<PathBuf>,
    in_force: ArcSwap<InForce>,
    seen: Mutex<Seen>,
}

/// What was last read, good or bad.
struct Seen {
    access: AccessSettings,
    files: Vec<PathBuf>,
    contents: Vec<Option<[u8; 32]>>,
}

impl Keeper {
    /// `file`: `--web.config.file`; `listen`: where the API will listen, which must be loopback unless callers are asked
    /// who they are.
    ///
    /// # Errors
    /// All that is wrong, ready to be shown.
    pub fn open(file: Option<PathBuf>, access: AccessSettings, listen: SocketAddr) -> Result<Keeper, String> {
        let (seen, loaded) = load(file.as_ref(), access);
        let in_force = loaded?;
        check_listen(listen, in_force.authenticated).map_err(|error| error.to_string())?;
        Ok(Keeper { file, in_force: ArcSwap::from_pointee(in_force), seen: Mutex::new(seen) })
    }

    pub fn in_force(&self) -> Arc<InForce> {
        self.in_force.load_full()
    }

    /// With what handshakes are made; `None`: none are.
    pub fn tls(self: &Arc<Self>) -> Option<Tls> {
        self.in_force.load().tls.as_ref()?;
        let keeper = self.clone();
        Some(Arc::new(move || keeper.in_force.load().tls.clone().expect("TLS is not given up while we run")))
    }

    /// Takes other settings of the configuration; the files are read anew with them.
    ///
    /// # Errors
    /// Why they cannot stand; what was in force stays.
    pub fn take(&self, access: AccessSettings) -> Result<(), String> {
        let mut seen = self.seen();
        let (next, loaded) = load(self.file.as_ref(), access);
        let loaded = self.fitting(loaded?)?;
        *seen = next;
        self.in_force.store(Arc::new(loaded));
        Ok(())
    }

    /// Whether other settings could be taken.
    ///
    /// # Errors
    /// Why not.
    pub fn try_out(&self, access: AccessSettings) -> Result<(), String> {
        self.fitting(load(self.file.as_ref(), access).1?).map(|_| ())
    }

    /// Takes what changed in the files, if anything did.
    fn look(&self) -> Option<Result<(), String>> {
        let mut seen = self.seen();
        if contents(&seen.files) == seen.contents {
            return None;
        }
        let (next, loaded) = load(self.file.as_ref(), seen.access.clone());
        *seen = next;
        Some(loaded.and_then(|loaded| self.fitting(loaded)).map(|loaded| self.in_force.store(Arc::new(loaded))))
    }

    /// What the listeners were started for has to hold.
    fn fitting(&self, next: InForce) -> Result<InForce, String> {
        let in_force = self.in_force.load();
        if next.tls.is_some() != in_force.tls.is_some() {
            return Err("tls_server_config cannot come or go while vecscale runs: restart it".into());
        }
        // On loopback too: a proxy may stand before it. And a file that was cut off looks as if nobody were to be asked.
        if in_force.authenticated && !next.authenticated {
            return Err("nobody would be asked any more who they are, and that cannot change while vecscale runs: \
                        keep a user, a token or RequireAndVerifyClientCert, or restart it"
                .into());
        }
        Ok(InForce { credentials: next.credentials.succeeding(&in_force.credentials), ..next })
    }

    /// Waits until something changed in the files: whether it was taken, or why not.
    ///
    /// # Errors
    /// Why it cannot stand; what was in force stays.
    pub async fn renewed(self: &Arc<Self>) -> Result<(), String> {
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            if self.seen().files.is_empty() {
                continue; // nothing to look at, and no thread to wake for it
            }
            let keeper = self.clone();
            if let Ok(Some(outcome)) = tokio::task::spawn_blocking(move || keeper.look()).await {
                return outcome;
            }
        }
    }

    /// The files of tokens that everybody on this machine can read.
    pub fn exposed(&self) -> Vec<PathBuf> {
        token_files(&self.seen().access).filter(|file| mode(file) & 0o004 != 0).collect()
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reads all files. What was seen is noted before it is read, so that a change in between is found at the next look.
fn load(file: Option<&PathBuf>, access: AccessSettings) -> (Seen, Result<InForce, String>) {
    let mut files: Vec<PathBuf> = file.into_iter().cloned().chain(token_files(&access)).collect();
    loop {
        let before = contents(&files);
        let web = file.map_or_else(WebFile::absent, |file| config::load_web(file));
        let more: Vec<PathBuf> = web.files.into_iter().filter(|file| !files.contains(file)).collect();
        if more.is_empty() {
            let loaded = web.settings.map_err(|error| error.to_string()).and_then(|web| joined(web, &access));
            return (Seen { access, files, contents: before }, loaded);
        }
        files.extend(more);
    }
}

fn token_files(access: &AccessSettings) -> impl Iterator<Item = PathBuf> {
    access.tokens.iter().filter_map(|token| match &token.token {
        TokenSource::File(file) => Some(file.clone()),
        TokenSource::Sha256(_) => None,
    })
}

fn joined(web: WebSettings, access: &AccessSettings) -> Result<InForce, String> {
    let WebSettings { tls, certificates_needed, headers, users } = web;
    let credentials = Credentials::new(access, users).map_err(|problems| problems.join("\n"))?;
    let authenticated = certificates_needed.is_some() || credentials.are_asked();
    Ok(InForce { tls, certificates_needed, headers, credentials, authenticated })
}

/// The digests of what the files hold; `None` for one that cannot be read.
fn contents(files: &[PathBuf]) -> Vec<Option<[u8; 32]>> {
    files.iter().map(|file| config::read_bounded(file).ok().map(|text| sha256(&text))).collect()
}

#[cfg(test)]
mod tests;
