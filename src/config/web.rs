//! The file of `--web.config.file`, in the format of Prometheus' exporter-toolkit -> checked [`WebSettings`]. What that
//! format knows and rustls does not is a problem with a hint, never quietly left out. Reads the certificates and keys
//! that it names; no problem shows what a key or a password hash holds.

use std::path::{Path, PathBuf};

use http::{HeaderName, HeaderValue};
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::problem::ConfigError;
use super::section::{Item, Problems, Section};
use super::{read_bounded, read_text, yaml};
use crate::serve::auth::tls::{self, Built, ClientCertificate, TlsSettings, VERSIONS};
use crate::serve::auth::{PasswordHash, WebSettings};

/// A file that was read, and which ones it led to.
pub struct WebFile {
    /// The files whose change may change the outcome, the file itself among them.
    pub files: Vec<PathBuf>,
    pub settings: Result<WebSettings, ConfigError>,
}

impl WebFile {
    /// Without `--web.config.file`.
    pub fn absent() -> WebFile {
        WebFile { files: Vec::new(), settings: Ok(WebSettings::default()) }
    }
}

/// Reads and checks a file. Paths in it are relative to the folder it lies in.
pub fn load_web(path: &Path) -> WebFile {
    let mut files = vec![path.to_path_buf()];
    let text = read_text(path, "`--web.config.file` names the file; deploy/web.yml is a start");
    let settings = text.and_then(|text| {
        let name = path.display().to_string();
        parse(&text, &name, path.parent().unwrap_or(Path::new("")), &mut files)
    });
    WebFile { files, settings }
}

fn parse(text: &str, name: &str, base_dir: &Path, files: &mut Vec<PathBuf>) -> Result<WebSettings, ConfigError> {
    let tree = yaml::read(text, name)?;
    let problems = Problems::default();
    let settings = whole(&Section::root(&tree, &problems), base_dir, files);
    match problems.into_list() {
        none if none.is_empty() => Ok(settings),
        problems => Err(ConfigError::Problems { name: name.into(), problems }),
    }
}

/// Complete only if no problem was noted.
fn whole(root: &Section<'_>, base_dir: &Path, files: &mut Vec<PathBuf>) -> WebSettings {
    let mut settings = WebSettings::default();
    let section = root.section("tls_server_config");
    let tls = Tls { section: &section, base_dir, files }.read();
    if let Some(built) = tls.and_then(|read| built(&section, read)) {
        settings.certificates_needed = built.certificates_needed;
        settings.tls = Some(built.config);
    }
    let http = root.section("http_server_config");
    let _ = http.flag("http2"); // clients agree to HTTP/1.1 either way: it is all that we offer
    let headers = http.section("headers");
    settings.headers = HEADERS.iter().filter_map(|(name, words)| header(&headers, name, words)).collect();
    headers.close();
    http.close();
    for (name, item) in root.section("basic_auth_users").entries() {
        let hash = item.value.as_str().unwrap_or_default();
        match hash.parse::<bcrypt::HashParts>().map(|parts| parts.get_cost()) {
            _ if name.is_empty() || name.contains(':') => item.problem("is no name of a user", "no colon, not empty"),
            Ok(cost) if cost > DEAREST_HASH => {
                let hint = format!("at most {DEAREST_HASH}; each step doubles the time: {HTPASSWD}");
                item.problem(format!("has cost {cost}: each password would keep all others waiting"), hint);
            }
            Ok(_) => {
                settings.users.insert(name.into(), PasswordHash(hash.into()));
            }
            Err(_) => item.problem("is not a bcrypt hash", HTPASSWD),
        }
    }
    root.note_unknown(&["rate_limit"], &[("web", OURS), ("tokens", OURS), ("roles", OURS)]);
    settings
}

const HTPASSWD: &str = "htpasswd -nBC 10 \"\" | tr -d ':\\n'";

/// The largest cost of bcrypt: some seconds of one core.
const DEAREST_HASH: u32 = 16;

const OURS: &str =
    "tokens and roles stand under `web` in the file of --config.file: other programs refuse this file with them";

/// The headers that the format takes, each with the values that it takes for it; none: any.
const HEADERS: [(&str, &[&str]); 5] = [
    ("Strict-Transport-Security", &[]),
    ("X-Content-Type-Options", &["nosniff"]),
    ("X-Frame-Options", &["deny", "sameorigin"]),
    ("X-XSS-Protection", &[]),
    ("Content-Security-Policy", &[]),
];

fn header(section: &Section<'_>, name: &'static str, words: &[&str]) -> Option<(HeaderName, HeaderValue)> {
    let text = section.text(name)?;
    if !words.is_empty() && !words.contains(&text) {
        section.problem(name, format!("{text:?} is not known"), format!("one of: {}", words.join(", ")));
        return None;
    }
    let value = HeaderValue::from_str(text).ok();
    if value.is_none() {
        section.problem(name, "cannot stand in a header", "one line of printable text");
    }
    Some((HeaderName::from_bytes(name.as_bytes()).ok()?, value?))
}

fn built(section: &Section<'_>, settings: TlsSettings) -> Option<Built> {
    match settings.build() {
        Ok(built) => Some(built),
        Err(rustls::Error::InconsistentKeys(_)) => {
            let hint = "renewed one before the other? The pair that was in force stays until both fit";
            section.problems.add(section.own_path(), "key and certificate are not of one pair", hint);
            None
        }
        Err(error) => {
            section.problems.add(section.own_path(), format!("cannot be used: {error}"), "");
            None
        }
    }
}

/// Reads `tls_server_config`.
struct Tls<'a> {
    section: &'a Section<'a>,
    base_dir: &'a Path,
    files: &'a mut Vec<PathBuf>,
}

impl Tls<'_> {
    /// `None` without TLS, and with a problem.
    fn read(mut self) -> Option<TlsSettings> {
        let section = self.section;
        let chain = self.pem("cert", "cert_file").and_then(|pem| self.certificates("cert_file", &pem));
        let key = self.pem("key", "key_file").and_then(|pem| self.key(&pem));
        let client = self.client();
        let versions = self.versions();
        let suites = self.named("cipher_suites", &tls::suites(), "rustls has only suites without known weaknesses");
        let groups = self.named("curve_preferences", &tls::groups(), "rustls has no other curves");
        let server_order = section.flag("prefer_server_cipher_suites").unwrap_or(true);
        let client_names = self.client_names();
        section.close();
        let switches = ["cert", "cert_file", "key", "key_file", "client_ca", "client_ca_file", "client_auth_type"];
        if !switches.into_iter().any(|key| section.has(key)) {
            return None;
        }
        for (inline, file) in [("cert", "cert_file"), ("key", "key_file")] {
            if !self.is_given(inline, file) {
                section.problem(file, "is missing", "TLS needs a certificate and its key, as PEM");
            }
        }
        Some(TlsSettings {
            chain: chain?,
            key: key?,
            client: client?,
            client_names: client_names?,
            versions: versions?,
            suites: suites?,
            groups: groups?,
            server_order,
        })
    }

    fn is_given(&self, inline: &'static str, file: &'static str) -> bool {
        self.section.has(inline) || self.section.has(file)
    }

    /// The PEM text under `inline`, or in the file under `file`. `None`: neither is there, or a problem was noted.
    fn pem(&mut self, inline: &'static str, file: &'static str) -> Option<Vec<u8>> {
        let (text, path) = (self.section.text(inline), self.section.text(file));
        if text.is_some() && path.is_some() {
            self.section.problem(inline, format!("stands beside {file}"), "one of the two");
            return None;
        }
        if let Some(text) = text {
            return Some(text.as_bytes().to_vec());
        }
        let path = self.base_dir.join(path?);
        self.files.push(path.clone());
        let read = read_bounded(&path);
        if let Err(error) = &read {
            self.section.problem(file, format!("{}: {error}", path.display()), "");
        }
        read.ok()
    }

    fn certificates(&self, key: &'static str, pem: &[u8]) -> Option<Vec<CertificateDer<'static>>> {
        let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
        let found = found.ok().filter(|found| !found.is_empty());
        if found.is_none() {
            self.section.problem(key, "holds no certificate", "PEM: -----BEGIN CERTIFICATE-----");
        }
        found
    }

    fn key(&self, pem: &[u8]) -> Option<PrivateKeyDer<'static>> {
        let found = PrivateKeyDer::from_pem_slice(pem).ok();
        if found.is_none() {
            let hint = "PEM, without a password: -----BEGIN PRIVATE KEY-----";
            self.section.problem("key_file", "holds no private key", hint);
        }
        found
    }

    fn client(&mut self) -> Option<ClientCertificate> {
        let section = self.section;
        let policy = self.client_policy();
        let roots = self.pem("client_ca", "client_ca_file").and_then(|pem| self.roots(&pem));
        let is_given = self.is_given("client_ca", "client_ca_file");
        match policy? {
            Policy::NotAsked if is_given => {
                let hint = "client_auth_type: RequireAndVerifyClientCert makes the CA count";
                section.problem("client_ca_file", "has no meaning without client_auth_type", hint);
                None
            }
            Policy::NotAsked => Some(ClientCertificate::NotAsked),
            _ if !is_given => {
                let hint = "the certificates of the CA that signs the clients', as PEM";
                section.problem("client_ca_file", "is missing", hint);
                None
            }
            Policy::IfGiven => roots.map(ClientCertificate::IfGiven),
            Policy::Needed => roots.map(ClientCertificate::Needed),
        }
    }

    fn client_policy(&self) -> Option<Policy> {
        let key = "client_auth_type";
        if !self.section.has(key) {
            return Some(Policy::NotAsked);
        }
        let insecure = ["RequestClientCert", "RequireAnyClientCert", "RequireClientCert"];
        if self.section.peek_own(key).and_then(|v| v.as_str()).is_some_and(|word| insecure.contains(&word)) {
            let hint = "RequireAndVerifyClientCert, with client_ca_file, lets in only whom the CA has signed";
            self.section.problem(key, "would verify nothing, and is not available", hint);
            return None;
        }
        let words = [
            ("NoClientCert", Policy::NotAsked),
            ("VerifyClientCertIfGiven", Policy::IfGiven),
            ("RequireAndVerifyClientCert", Policy::Needed),
        ];
        self.section.choice(key, &words, &[])
    }

    /// Inner `None`: any that the CA has signed.
    fn client_names(&self) -> Option<Option<Vec<String>>> {
        let key = "client_allowed_sans";
        if !self.section.has(key) {
            return Some(None);
        }
        if !self.is_given("client_ca", "client_ca_file") {
            self.section.problem(key, "has no meaning without client_ca_file", "only verified names can be relied on");
            return None;
        }
        let name = |item: &Item<'_>| {
            let name = item.text()?;
            if name.contains('@') && !name.contains(':') {
                item.problem("is not available: an e-mail address", "names of hosts, addresses and URIs are looked at");
                return None;
            }
            Some(name.to_string())
        };
        self.section.list(key)?.iter().map(name).collect::<Option<_>>().map(Some)
    }

    fn roots(&self, pem: &[u8]) -> Option<RootCertStore> {
        let mut store = RootCertStore::empty();
        for root in self.certificates("client_ca_file", pem)? {
            if let Err(error) = store.add(root) {
                self.section.problem("client_ca_file", format!("holds a certificate that cannot be read: {error}"), "");
                return None;
            }
        }
        Some(store)
    }

    fn versions(&self) -> Option<Vec<&'static rustls::SupportedProtocolVersion>> {
        let words = [("TLS12", 0), ("TLS13", 1)];
        let end = |key: &'static str, default| {
            if !self.section.has(key) { Some(default) } else { self.section.choice(key, &words, &["TLS10", "TLS11"]) }
        };
        let (least, most) = (end("min_version", 0)?, end("max_version", 1)?);
        if least > most {
            self.section.problem("min_version", "is above max_version", "TLS12 to TLS13 unless given");
            return None;
        }
        Some(VERSIONS[least..=most].iter().map(|(_, version)| *version).collect())
    }

    /// A list of Go's names; empty when it is absent.
    fn named<T: Copy>(&self, key: &'static str, known: &[(&'static str, T)], hint: &str) -> Option<Vec<T>> {
        if !self.section.has(key) {
            return Some(Vec::new());
        }
        let names: Vec<&str> = known.iter().map(|(name, _)| *name).collect();
        let find = |item: &Item<'_>| {
            let found = item.value.as_str().and_then(|text| known.iter().find(|(name, _)| *name == text));
            if found.is_none() {
                item.problem("is not available", format!("{hint}: {}", names.join(", ")));
            }
            found.map(|(_, value)| *value)
        };
        self.section.list(key)?.iter().map(find).collect()
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Policy {
    NotAsked,
    IfGiven,
    Needed,
}

#[cfg(test)]
mod tests;
