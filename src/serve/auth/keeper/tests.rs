use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::super::roles::Role;
use super::super::settings::{TokenDigest, TokenSettings};
use super::*;

const LOCAL: &str = "127.0.0.1:8000";
const OPEN: &str = "0.0.0.0:8000";
const HASH: &str = "$2y$04$WILEYPdf6sBZSVLYHNzJPeV.wZzOfk3/Qx.SHjR0ph44.FjgEDpkK";

fn keeper(dir: &Path, web: &str, listen: &str) -> Result<Keeper, String> {
    let file = dir.join("web.yml");
    std::fs::write(&file, web).expect("a file");
    Keeper::open(Some(file), AccessSettings::default(), listen.parse().expect("an address"))
}

fn users() -> String {
    format!("basic_auth_users: {{ops: '{HASH}'}}")
}

fn pair(dir: &Path) {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_string()]).expect("a certificate");
    std::fs::write(dir.join("c.pem"), made.cert.pem()).expect("a certificate");
    std::fs::write(dir.join("k.pem"), made.signing_key.serialize_pem()).expect("a key");
}

const TLS: &str = "tls_server_config: {cert_file: c.pem, key_file: k.pem}";

#[test]
fn a_change_is_taken_once_and_a_broken_one_told_once() {
    let dir = tempfile::tempdir().expect("a folder");
    let keeper = keeper(dir.path(), "", LOCAL).expect("nothing is wrong");
    assert!(!keeper.in_force().authenticated);
    assert!(keeper.look().is_none(), "nothing changed");
    std::fs::write(dir.path().join("web.yml"), users()).expect("a file");
    assert_eq!(keeper.look(), Some(Ok(())));
    assert!(keeper.in_force().authenticated && keeper.look().is_none());

    std::fs::write(dir.path().join("web.yml"), "basic_auth_user: {}").expect("a file");
    let why = keeper.look().expect("a change").expect_err("a broken one");
    assert!(why.contains("did you mean basic_auth_users?"), "{why}");
    assert!(keeper.in_force().authenticated && keeper.look().is_none(), "told once; the old stays");
    std::fs::remove_file(dir.path().join("web.yml")).expect("removing it");
    assert!(keeper.look().expect("a change").is_err() && keeper.in_force().authenticated);
}

#[test]
fn a_key_that_does_not_fit_waits_for_its_certificate() {
    let dir = tempfile::tempdir().expect("a folder");
    pair(dir.path());
    let keeper = Arc::new(keeper(dir.path(), TLS, LOCAL).expect("a pair"));
    let tls = keeper.tls().expect("TLS");
    let first = tls();
    assert!(keeper.look().is_none() && Arc::ptr_eq(&first, &tls()));

    let key = std::fs::read(dir.path().join("k.pem")).expect("a key");
    pair(dir.path());
    let fitting = std::fs::read(dir.path().join("k.pem")).expect("a key");
    std::fs::write(dir.path().join("k.pem"), key).expect("a key");
    let why = keeper.look().expect("a change").expect_err("no pair");
    assert!(why.contains("tls_server_config: key and certificate are not of one pair"), "{why}");
    assert!(Arc::ptr_eq(&first, &tls()), "the old pair stays");
    std::fs::write(dir.path().join("k.pem"), fitting).expect("a key");
    assert_eq!(keeper.look(), Some(Ok(())));
    assert!(!Arc::ptr_eq(&first, &tls()), "the new pair is in force");
}

/// What the listeners were started for has to stay: nobody is asked less by a slip in a file.
#[test]
fn no_change_of_a_file_opens_what_was_closed() {
    let dir = tempfile::tempdir().expect("a folder");
    pair(dir.path());
    let why = keeper(dir.path(), TLS, OPEN).err().expect("TLS alone asks nobody");
    assert!(why.contains("not a loopback address"), "{why}");
    let keeper = keeper(dir.path(), &format!("{TLS}\n{}", users()), OPEN).expect("users are asked");
    for (web, says) in [(TLS, "nobody would be asked any more"), (users().as_str(), "cannot come or go")] {
        std::fs::write(dir.path().join("web.yml"), web).expect("a file");
        let why = keeper.look().expect("a change").expect_err(web);
        assert!(why.contains(says), "{why}");
        assert!(keeper.in_force().authenticated && keeper.in_force().scheme() == "https", "{web}");
    }
}

/// On loopback as well: who stands before a proxy is no less anybody.
#[test]
fn a_file_that_was_cut_off_opens_nothing() {
    let dir = tempfile::tempdir().expect("a folder");
    let keeper = keeper(dir.path(), &users(), LOCAL).expect("users are asked");
    for web in ["", "# cut", "basic_auth_users:", "basic_auth_users: {}", "http_server_config: {http2: true}"] {
        std::fs::write(dir.path().join("web.yml"), web).expect("a file");
        let why = keeper.look().expect("a change").expect_err(web);
        assert!(why.contains("nobody would be asked any more") && why.contains("restart"), "{web:?}: {why}");
        assert!(keeper.in_force().authenticated, "{web:?}");
    }

    let digest = TokenSource::Sha256(TokenDigest(sha256(b"a-token")));
    let token = TokenSettings { name: "ci".into(), role: Role::Read, token: digest };
    let tokens = AccessSettings { tokens: vec![token], roles: None };
    assert_eq!(keeper.take(tokens), Ok(()), "a token in place of the users");
    for outcome in [keeper.try_out(AccessSettings::default()), keeper.take(AccessSettings::default())] {
        assert!(outcome.expect_err("no token, no user").contains("nobody would be asked any more"));
    }
    assert!(keeper.in_force().authenticated);
}

#[test]
fn a_change_leaves_what_was_found_out_of_passwords() {
    let dir = tempfile::tempdir().expect("a folder");
    let keeper = keeper(dir.path(), &users(), LOCAL).expect("users");
    let before = keeper.in_force();
    std::fs::write(dir.path().join("web.yml"), users() + "\n# renewed").expect("a file");
    assert_eq!(keeper.look(), Some(Ok(())));
    let after = keeper.in_force();
    assert!(!Arc::ptr_eq(&before, &after) && Arc::ptr_eq(&before.credentials.passwords, &after.credentials.passwords));
}

#[test]
fn a_required_client_certificate_is_authentication() {
    let dir = tempfile::tempdir().expect("a folder");
    pair(dir.path());
    for (kind, enough) in [("RequireAndVerifyClientCert", true), ("VerifyClientCertIfGiven", false)] {
        let tls = TLS.replace('}', &format!(", client_ca_file: c.pem, client_auth_type: {kind}}}"));
        assert_eq!(keeper(dir.path(), &tls, OPEN).is_ok(), enough, "{kind}");
    }
}

#[test]
fn other_tokens_are_taken_with_the_configuration_or_not_at_all() {
    let dir = tempfile::tempdir().expect("a folder");
    let keeper = keeper(dir.path(), "", LOCAL).expect("nothing is wrong");
    let file = dir.path().join("token");
    let token = TokenSettings { name: "ci".into(), role: Role::Read, token: TokenSource::File(file.clone()) };
    let access = AccessSettings { tokens: vec![token], roles: None };
    assert!(keeper.try_out(access.clone()).expect_err("no file").contains("token ci: "));
    assert!(keeper.take(access.clone()).is_err() && !keeper.in_force().authenticated);
    std::fs::write(&file, "a-token-of-some-length").expect("a token");
    assert_eq!((keeper.try_out(access.clone()), keeper.in_force().authenticated), (Ok(()), false));
    assert_eq!((keeper.take(access), keeper.in_force().authenticated), (Ok(()), true));
    assert!(keeper.look().is_none(), "read with the configuration");
    std::fs::write(&file, "another-token-of-some-length").expect("a token");
    assert_eq!(keeper.look(), Some(Ok(())), "a renewed token is a change");
    for (mode, exposed) in [(0o640, vec![]), (0o644, vec![file.clone()])] {
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(mode)).expect("permissions");
        assert_eq!(keeper.exposed(), exposed, "{mode:o}");
    }
}
