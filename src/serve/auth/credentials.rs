//! The credential of a request -> who it is. Tokens are compared by their SHA-256, in the same time whether right or
//! wrong; passwords by bcrypt, which is slow on purpose: one at a time, off the threads that serve, and once per password
//! that is right.

use std::collections::BTreeMap;
use std::fmt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use ring::digest::{SHA256, digest};
use subtle::ConstantTimeEq;
use tokio::sync::Semaphore;

use super::super::problem::Problem;
use super::roles::Role;
use super::settings::{AccessSettings, PasswordHash, TokenDigest, TokenSource};

/// A shorter token can be guessed; of 16 random characters none is.
const SHORTEST_TOKEN: usize = 16;

/// So many passwords wait for bcrypt at a time, a tenth of a second each as a rule; further ones may come again.
const PLACES: usize = 16;

/// Everybody who is known.
pub struct Credentials {
    tokens: Vec<Token>,
    users: BTreeMap<String, User>,
    /// Costs as much as the dearest of the users': an unknown name is refused no sooner than a wrong password.
    decoy: Option<PasswordHash>,
    pub(super) passwords: Arc<Passwords>,
}

/// What outlives a change of the files.
pub(super) struct Passwords {
    /// Per user the digest of the hash and the password that bcrypt found to belong together. A wrong one costs bcrypt
    /// each time; with another hash all that was found is worth nothing.
    proven: Mutex<BTreeMap<String, [u8; 32]>>,
    bcrypt: Arc<Semaphore>,
    /// Who is at bcrypt or waits for it.
    places: Semaphore,
}

impl Default for Passwords {
    fn default() -> Passwords {
        let (bcrypt, places) = (Arc::new(Semaphore::new(1)), Semaphore::new(PLACES));
        Passwords { proven: Mutex::default(), bcrypt, places }
    }
}

struct Token {
    name: String,
    role: Role,
    digest: TokenDigest,
}

struct User {
    hash: PasswordHash,
    role: Option<Role>,
}

/// Who asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// For the audit trail: `token:ci`, `user:ops`; `None` where nobody is asked.
    pub name: Option<String>,
    pub role: Option<Role>,
}

impl Caller {
    /// Where nobody is asked who they are, everybody may do everything.
    pub fn anyone() -> Caller {
        Caller { name: None, role: Some(Role::Admin) }
    }

    /// # Errors
    /// 403, if the caller's role does not cover what is needed.
    pub fn with(self, needed: Role) -> Result<Caller, Problem> {
        if self.role.is_some_and(|role| role.covers(needed)) {
            return Ok(self);
        }
        let name = self.name.as_deref().unwrap_or("who asks");
        let has =
            self.role.map_or("no role here (web.roles names none)".into(), |role| format!("role {}", role.as_str()));
        let detail = format!("{name} has {has}, and this needs {}", needed.as_str());
        Err(Problem::new(StatusCode::FORBIDDEN, detail))
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Credentials({} tokens, {} users)", self.tokens.len(), self.users.len())
    }
}

impl Credentials {
    /// Reads the files of the tokens.
    ///
    /// # Errors
    /// For each token that cannot be had, its name and why.
    pub fn new(access: &AccessSettings, users: BTreeMap<String, PasswordHash>) -> Result<Credentials, Vec<String>> {
        let mut problems = Vec::new();
        let mut tokens: Vec<Token> = Vec::new();
        for token in &access.tokens {
            let digest = match &token.token {
                TokenSource::Sha256(digest) => Ok(*digest),
                TokenSource::File(file) => read_token(file),
            };
            match digest {
                Err(why) => problems.push(format!("token {}: {why}", token.name)),
                Ok(digest) => tokens.push(Token { name: token.name.clone(), role: token.role, digest }),
            }
        }
        for (i, token) in tokens.iter().enumerate() {
            if let Some(twin) = tokens[..i].iter().find(|t| t.digest == token.digest) {
                problems
                    .push(format!("token {}: the same as {}'s; who calls could not be told", token.name, twin.name));
            }
        }
        if !problems.is_empty() {
            return Err(problems);
        }
        let role = |name: &str| access.roles.as_ref().map_or(Some(Role::Admin), |roles| roles.get(name).copied());
        let users: BTreeMap<String, User> =
            users.into_iter().map(|(name, hash)| (name.clone(), User { hash, role: role(&name) })).collect();
        let decoy = users.values().map(|user| &user.hash).max_by_key(|hash| cost(hash)).cloned();
        Ok(Credentials { tokens, users, decoy, passwords: Arc::default() })
    }

    /// Takes over what was found out of the users' passwords.
    pub fn succeeding(self, before: &Credentials) -> Credentials {
        Credentials { passwords: before.passwords.clone(), ..self }
    }

    /// Whether anybody is asked who they are.
    pub fn are_asked(&self) -> bool {
        !self.tokens.is_empty() || !self.users.is_empty()
    }

    /// # Errors
    /// 401, if nobody is known by what the request brings; 503, if too many passwords wait to be looked at.
    pub async fn caller(&self, headers: &HeaderMap) -> Result<Caller, Problem> {
        if !self.are_asked() {
            return Ok(Caller::anyone());
        }
        let mut given = headers.get_all(header::AUTHORIZATION).iter();
        let (Some(given), None) = (given.next(), given.next()) else {
            return Err(self.refused("this needs one credential, in one Authorization header"));
        };
        let found = match given.to_str().ok().and_then(|text| text.split_once(' ')) {
            Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => self.by_token(token.trim()),
            Some((scheme, pair)) if scheme.eq_ignore_ascii_case("basic") => self.by_password(pair.trim()).await?,
            _ => None,
        };
        found.ok_or_else(|| self.refused("the credential is not known here"))
    }

    fn refused(&self, what: &str) -> Problem {
        let (basic, bearer) = ("Basic realm=\"vecscale\"", "Bearer realm=\"vecscale\"");
        let (takes, challenge) = match (self.users.is_empty(), self.tokens.is_empty()) {
            (false, false) => ("a user and password, or a bearer token", &format!("{basic}, {bearer}")),
            (false, true) => ("a user and password", &basic.to_string()),
            _ => ("a bearer token", &bearer.to_string()),
        };
        let challenge = HeaderValue::from_str(challenge).expect("printable ASCII");
        Problem::new(StatusCode::UNAUTHORIZED, format!("{what}: {takes} is taken"))
            .with_header(header::WWW_AUTHENTICATE, challenge)
    }

    /// A wrong token costs a look at every one that is known, however near it came.
    fn by_token(&self, presented: &str) -> Option<Caller> {
        let presented = sha256(presented.as_bytes());
        let found = self.tokens.iter().find(|token| bool::from(token.digest.0.ct_eq(&presented)))?;
        Some(Caller { name: Some(format!("token:{}", found.name)), role: Some(found.role) })
    }

    async fn by_password(&self, pair: &str) -> Result<Option<Caller>, Problem> {
        let pair = STANDARD.decode(pair).ok().and_then(|pair| String::from_utf8(pair).ok());
        let Some((name, password)) = pair.as_deref().and_then(|pair| pair.split_once(':')) else { return Ok(None) };
        let user = self.users.get(name);
        let Some(hash) = user.map(|user| &user.hash).or(self.decoy.as_ref()) else { return Ok(None) };
        let right = self.passwords.are_one(user.map(|_| name), hash, password).await?;
        Ok(user.filter(|_| right).map(|user| Caller { name: Some(format!("user:{name}")), role: user.role }))
    }
}

impl Passwords {
    /// Whether the password is the one of the hash. `name`: for whom that is remembered.
    async fn are_one(&self, name: Option<&str>, hash: &PasswordHash, password: &str) -> Result<bool, Problem> {
        let proof = sha256(&[hash.0.as_bytes(), password.as_bytes()].concat()); // every hash is as long as the others
        if self.is_proven(name, &proof) {
            return Ok(true);
        }
        let busy = || Problem::unavailable("too many passwords wait to be looked at: come again, or bring a token");
        let _place = self.places.try_acquire().map_err(|_| busy())?;
        let turn = self.bcrypt.clone().acquire_owned().await.map_err(|_| busy())?;
        // Others may have brought the same meanwhile.
        if self.is_proven(name, &proof) {
            return Ok(true);
        }
        let (hash, password) = (hash.0.clone(), password.to_string());
        let right = tokio::task::spawn_blocking(move || {
            let _turn = turn; // kept to the end of the work, even if nobody waits for it any more
            bcrypt::verify(password, &hash).unwrap_or(false)
        });
        let right = right.await.unwrap_or(false);
        if let Some(name) = name.filter(|_| right) {
            self.proven().insert(name.into(), proof);
        }
        Ok(right)
    }

    fn is_proven(&self, name: Option<&str>, proof: &[u8; 32]) -> bool {
        name.and_then(|name| self.proven().get(name).copied()).is_some_and(|known| bool::from(known.ct_eq(proof)))
    }

    fn proven(&self) -> MutexGuard<'_, BTreeMap<String, [u8; 32]>> {
        self.proven.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn cost(hash: &PasswordHash) -> u32 {
    hash.0.parse::<bcrypt::HashParts>().map_or(0, |parts| parts.get_cost())
}

pub fn sha256(text: &[u8]) -> [u8; 32] {
    digest(&SHA256, text).as_ref().try_into().expect("SHA-256 has 32 bytes")
}

/// What a file lets whom do; 0 for one that is not there.
pub fn mode(file: &Path) -> u32 {
    std::fs::metadata(file).map_or(0, |found| found.permissions().mode())
}

/// The digest of the token in a file; space around it does not count.
///
/// # Errors
/// Why there is none to be had; what the file holds is not shown.
pub fn read_token(file: &Path) -> Result<TokenDigest, String> {
    let shown = file.display();
    let text = crate::config::read_bounded(file).map_err(|error| format!("{shown}: {error}"))?;
    if mode(file) & 0o002 != 0 {
        return Err(format!(
            "{shown} can be written by everybody, who could so name a token of theirs: chmod o-w {shown}"
        ));
    }
    let token = text.trim_ascii();
    if token.len() < SHORTEST_TOKEN {
        return Err(format!(
            "{shown}: a token has at least {SHORTEST_TOKEN} characters: (umask 077; openssl rand -hex 32 > {shown})"
        ));
    }
    if !token.iter().all(u8::is_ascii_graphic) {
        return Err(format!("{shown}: a token is one line of visible ASCII characters, without spaces"));
    }
    Ok(TokenDigest(sha256(token)))
}

#[cfg(test)]
mod tests;
