//! `web` of the configuration: bearer tokens with their roles, and the roles of the users. No problem shows a token.

use std::collections::BTreeMap;
use std::path::Path;

use super::section::{Item, Section};
use crate::model::is_name;
use crate::serve::auth::{AccessSettings, Role, TokenDigest, TokenSettings, TokenSource, read_token};

const ROLES: [(&str, Role); 4] = [
    (Role::Read.as_str(), Role::Read),
    (Role::Trigger.as_str(), Role::Trigger),
    (Role::Operate.as_str(), Role::Operate),
    (Role::Admin.as_str(), Role::Admin),
];

/// `None` only together with a problem.
pub(super) fn read(web: &Section<'_>, base_dir: &Path) -> Option<AccessSettings> {
    let items = web.list("tokens").unwrap_or_default();
    let tokens: Vec<TokenSettings> = items.iter().filter_map(|item| token(item, base_dir)).collect();
    for (i, token) in tokens.iter().enumerate() {
        if tokens[..i].iter().any(|t| t.name == token.name) {
            web.problem("tokens", format!("two are named {}", token.name), "each needs a name of its own");
        }
    }
    let roles = web.has("roles").then(|| roles(&web.section("roles")));
    web.note_unknown(&[], &ELSEWHERE);
    (tokens.len() == items.len()).then_some(AccessSettings { tokens, roles })
}

const ELSEWHERE: [(&str, &str); 3] = [
    ("tls_server_config", "it belongs into the file of --web.config.file"),
    ("http_server_config", "it belongs into the file of --web.config.file"),
    ("basic_auth_users", "they belong into the file of --web.config.file; their roles into `web.roles`"),
];

fn token(item: &Item<'_>, base_dir: &Path) -> Option<TokenSettings> {
    let section = item.section();
    let name = section.required("name", section.text("name"), "who has the token; it stands in the audit trail");
    let role = section.required("role", section.choice("role", &ROLES, &[]), "read, trigger, operate or admin");
    let token = source(&section, base_dir);
    let plain = ("token", "put it into a file and name that in `token_file`, or give its `token_sha256`");
    section.note_unknown(&[], &[plain]);
    let name = name?;
    if !is_name(name) {
        section.problem("name", "is not a name", "at most 63 letters, digits, '.', '_' and '-'");
        return None;
    }
    Some(TokenSettings { name: name.into(), role: role?, token: token? })
}

fn source(section: &Section<'_>, base_dir: &Path) -> Option<TokenSource> {
    let (file, digest) = (section.text("token_file"), section.text("token_sha256"));
    if file.is_some() && digest.is_some() {
        section.problem("token_file", "stands beside token_sha256", "one of the two says what the token is");
        return None;
    }
    if let Some(text) = digest {
        let read = hex(text);
        if read.is_none() {
            let hint = "64 hexadecimal digits: printf %s \"$TOKEN\" | sha256sum";
            section.problem("token_sha256", "is not a SHA-256", hint);
        }
        return read.map(TokenSource::Sha256);
    }
    if !section.has("token_sha256") {
        section.required("token_file", file, "a file that holds the token; or give its token_sha256");
    }
    let file = base_dir.join(file?);
    match read_token(&file) {
        Ok(_) => Some(TokenSource::File(file)),
        Err(why) => {
            section.problem("token_file", why, "");
            None
        }
    }
}

fn roles(section: &Section<'_>) -> BTreeMap<String, Role> {
    let words = ROLES.map(|(word, _)| word).join(", ");
    let mut roles = BTreeMap::new();
    for (user, item) in section.entries() {
        match ROLES.iter().find(|(word, _)| item.value.as_str() == Some(word)) {
            Some((_, role)) => {
                roles.insert(user.to_string(), *role);
            }
            None => item.problem("is not a role", format!("one of: {words}")),
        }
    }
    roles
}

fn hex(text: &str) -> Option<TokenDigest> {
    let text = text.trim();
    if text.len() != 64 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    let mut digest = [0; 32];
    for (byte, pair) in digest.iter_mut().zip(text.as_bytes().chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(TokenDigest(digest))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::{Config, ConfigError, parse};

    const TOKEN: &str = "a-token-of-some-length";
    const SHA256: &str = "D11DA2D2BCCE6A9ADA1BA6B1A2CC6AF1D5CE46D6C4D4CCD2DA4A9AE6DCEA2D17";

    fn read(web: &str, base_dir: &Path) -> Result<Config, ConfigError> {
        parse(&format!("pools: [{{name: default}}]\nweb: {web}"), "config.yaml", base_dir)
    }

    #[test]
    fn tokens_and_roles_are_taken() {
        let dir = tempfile::tempdir().expect("a folder");
        std::fs::write(dir.path().join("token"), TOKEN).expect("a token");
        let web = format!(
            "{{tokens: [{{name: am, role: trigger, token_file: token}}, {{name: ci, role: admin, token_sha256: {SHA256}}}], roles: {{ops: operate}}}}"
        );
        let access = read(&web, dir.path()).expect("a configuration").access;
        assert_eq!(access.tokens[0].token, TokenSource::File(dir.path().join("token")));
        let TokenSource::Sha256(TokenDigest(digest)) = access.tokens[1].token else { panic!("{access:?}") };
        assert_eq!((access.tokens[1].role, digest[0], digest[31]), (Role::Admin, 0xd1, 0x17));
        assert_eq!(access.roles.expect("roles")["ops"], Role::Operate);
        assert_eq!(read("{}", dir.path()).expect("a configuration").access, AccessSettings::default());
        let nobody = read("{roles: {}}", dir.path()).expect("a configuration").access;
        assert_eq!(nobody.roles.map(|roles| roles.len()), Some(0), "no user may do anything");
    }

    #[test]
    fn what_cannot_be_is_told_with_its_place_and_shows_no_token() {
        let sha = format!("token_sha256: {SHA256}");
        for (web, problem, hint) in [
            (format!("{{tokens: [{{role: read, {sha}}}]}}"), "web.tokens[0].name: is missing", "audit trail"),
            (format!("{{tokens: [{{name: a, {sha}}}]}}"), "web.tokens[0].role: is missing", "read, trigger, operate"),
            (
                format!("{{tokens: [{{name: a, role: reed, {sha}}}]}}"),
                "role: \"reed\" is not known",
                "did you mean read?",
            ),
            (format!("{{tokens: [{{name: 'a b', role: read, {sha}}}]}}"), "name: is not a name", "letters, digits"),
            ("{tokens: [{name: a, role: read}]}".into(), "web.tokens[0].token_file: is missing", "token_sha256"),
            (
                "{tokens: [{name: a, role: read, token: hunter2}]}".into(),
                "tokens[0].token: has no meaning",
                "token_file",
            ),
            ("{tokens: [{name: a, role: read, token_sha256: hunter2}]}".into(), "is not a SHA-256", "sha256sum"),
            ("{tokens: [{name: a, role: read, token_file: /absent}]}".into(), "token_file: /absent: No such file", ""),
            (
                format!("{{tokens: [{{name: a, role: read, token_file: x, {sha}}}]}}"),
                "stands beside token_sha256",
                "one of the two",
            ),
            (
                format!("{{tokens: [{{name: a, role: read, {sha}}}, {{name: a, role: admin, {sha}}}]}}"),
                "web.tokens: two are named a",
                "",
            ),
            ("{roles: {ops: root}}".into(), "web.roles.ops: is not a role", "one of: read, trigger, operate, admin"),
            ("{basic_auth_users: {}}".into(), "web.basic_auth_users: has no meaning here", "--web.config.file"),
            ("{token: []}".into(), "web.token: is not known", "did you mean tokens?"),
        ] {
            let why = read(&web, Path::new("/")).expect_err(&web).to_string();
            assert!(why.contains(problem) && why.contains(hint), "{web}: {why}");
            assert!(!why.contains("hunter2"), "{web}: a token is shown: {why}");
        }
    }
}
