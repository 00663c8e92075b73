use super::*;

const HASH: &str = "$2y$10$X0h1gDsPszWURQaxFh.zoubFi6DXncSjhoQNJgRrnGs7EsimhC7zG";

/// A folder with a certificate (which is its own CA), its key, a foreign key and a file that is neither.
fn folder() -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a folder");
    let made = || rcgen::generate_simple_self_signed(vec!["localhost".to_string()]).expect("a certificate");
    let (one, other) = (made(), made());
    for (name, text) in [
        ("c.pem", one.cert.pem()),
        ("k.pem", one.signing_key.serialize_pem()),
        ("foreign.pem", other.signing_key.serialize_pem()),
        ("neither.pem", "hunter2\n".into()),
    ] {
        std::fs::write(dir.path().join(name), text).expect("a file");
    }
    dir
}

fn read(dir: &Path, text: &str) -> WebFile {
    let file = dir.join("web.yml");
    std::fs::write(&file, text).expect("a file");
    load_web(&file)
}

#[test]
fn what_the_format_knows_is_taken() {
    let dir = folder();
    let pair = "cert_file: c.pem, key_file: k.pem";
    let whole = format!(
        "tls_server_config: {{{pair}, client_ca_file: c.pem, client_auth_type: RequireAndVerifyClientCert, min_version: TLS12,
  max_version: TLS13, client_allowed_sans: [a.b, 'spiffe://x/y'], prefer_server_cipher_suites: false, curve_preferences: [CurveP256, X25519],
  cipher_suites: [TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, TLS_AES_128_GCM_SHA256]}}
http_server_config: {{http2: true, headers: {{X-Frame-Options: deny, Strict-Transport-Security: max-age=31536000}}}}
basic_auth_users: {{ops: '{HASH}', other: '{}'}}",
        HASH.replace("$2y$", "$2a$")
    );
    let settings = read(dir.path(), &whole).settings.expect(&whole);
    let tls = settings.tls.expect("TLS");
    assert_eq!(tls.alpn_protocols, [b"http/1.1"]);
    assert!(settings.certificates_needed.is_some() && !tls.ignore_client_order && settings.users.len() == 2);
    assert_eq!(settings.headers.len(), 2);
    let suites = &tls.crypto_provider().cipher_suites;
    assert_eq!((suites.len(), suites.iter().filter(|s| s.tls13().is_none()).count()), (4, 1), "{suites:?}");
    assert_eq!(tls.crypto_provider().kx_groups.len(), 2);

    for (text, tls, users) in [
        ("".to_string(), false, 0),
        ("# nothing".into(), false, 0),
        ("tls_server_config: {}".into(), false, 0),
        (format!("tls_server_config: {{{pair}}}"), true, 0),
        (format!("tls_server_config: {{{pair}, client_auth_type: NoClientCert, max_version: TLS12}}"), true, 0),
        (
            format!("tls_server_config: {{{pair}, client_auth_type: VerifyClientCertIfGiven, client_ca_file: c.pem}}"),
            true,
            0,
        ),
        (format!("basic_auth_users: {{ops: '{HASH}'}}"), false, 1),
    ] {
        let settings = read(dir.path(), &text).settings.expect(&text);
        assert_eq!((settings.tls.is_some(), settings.users.len()), (tls, users), "{text}");
        assert!(settings.certificates_needed.is_none(), "{text}");
    }
}

#[test]
fn certificate_and_key_may_stand_in_the_file() {
    let dir = folder();
    let inlined = |name: &str| std::fs::read_to_string(dir.path().join(name)).expect("PEM").replace('\n', "\n    ");
    let text = format!(
        "tls_server_config:\n  cert: |\n    {}\n  key: |\n    {}\n  client_ca: |\n    {}\n  client_auth_type: RequireAndVerifyClientCert\n",
        inlined("c.pem"),
        inlined("k.pem"),
        inlined("c.pem")
    );
    let read = read(dir.path(), &text);
    assert!(read.settings.expect("inline").tls.is_some());
    assert_eq!(read.files.len(), 1, "no other file is looked at");
}

#[test]
fn the_files_that_are_named_are_watched_even_if_something_is_wrong() {
    let dir = folder();
    let read = read(dir.path(), "tls_server_config: {cert_file: c.pem, key_file: /absent/k.pem, wrong: 1}");
    let names: Vec<_> = read.files.iter().map(|f| f.file_name().and_then(|n| n.to_str()).expect("a name")).collect();
    assert_eq!(names, ["web.yml", "c.pem", "k.pem"]);
    assert!(read.settings.is_err());
}

#[test]
fn what_cannot_be_is_told_with_its_place_and_a_hint() {
    let dir = folder();
    let tls = |more: &str| format!("tls_server_config: {{cert_file: c.pem, key_file: k.pem, {more}}}");
    for (text, problem, hint) in [
        ("tls_server_config: {cert_file: c.pem}".into(), "tls_server_config.key_file: is missing", "PEM"),
        ("tls_server_config: {key_file: k.pem}".into(), "tls_server_config.cert_file: is missing", "PEM"),
        ("tls_server_config: {client_auth_type: NoClientCert}".into(), "cert_file: is missing", ""),
        ("tls_server_config: {cert_file: c.pem, key_file: absent}".into(), "key_file: ", "No such file"),
        (
            "tls_server_config: {cert_file: c.pem, key_file: neither.pem}".into(),
            "key_file: holds no private key",
            "PEM",
        ),
        ("tls_server_config: {cert_file: neither.pem, key_file: k.pem}".into(), "cert_file: holds no certificate", ""),
        (
            "tls_server_config: {cert_file: c.pem, key_file: foreign.pem}".into(),
            "are not of one pair",
            "until both fit",
        ),
        (tls("cert: x"), "tls_server_config.cert: stands beside cert_file", ""),
        (tls("min_version: TLS10"), "min_version: TLS10 is not available in this version", "one of: TLS12, TLS13"),
        (tls("max_version: TLS9"), "max_version: \"TLS9\" is not known", ""),
        (tls("min_version: TLS13, max_version: TLS12"), "min_version: is above max_version", ""),
        (tls("client_auth_type: RequireAnyClientCert"), "client_auth_type: would verify nothing", "RequireAndVerify"),
        (tls("client_auth_type: Maybe"), "client_auth_type: \"Maybe\" is not known", ""),
        (tls("client_auth_type: RequireAndVerifyClientCert"), "client_ca_file: is missing", "CA"),
        (tls("client_ca_file: c.pem"), "client_ca_file: has no meaning without client_auth_type", ""),
        (
            tls("client_ca_file: neither.pem, client_auth_type: RequireAndVerifyClientCert"),
            "client_ca_file: holds no certificate",
            "",
        ),
        (tls("client_allowed_sans: [a]"), "client_allowed_sans: has no meaning without client_ca_file", ""),
        (
            tls("client_allowed_sans: [a@b.c], client_ca_file: c.pem, client_auth_type: RequireAndVerifyClientCert"),
            "client_allowed_sans[0]: is not available: an e-mail address",
            "URIs",
        ),
        (tls("cipher_suites: [TLS_RSA_WITH_AES_128_CBC_SHA]"), "cipher_suites[0]: is not available", "ECDHE"),
        (tls("curve_preferences: [X25519, CurveP521]"), "curve_preferences[1]: is not available", "CurveP384"),
        (tls("cert_fil: x"), "cert_fil: is not known", "did you mean cert_file?"),
        ("http_server_config: {http2: maybe}".into(), "http_server_config.http2: ", "true or false"),
        ("http_server_config: {headers: {X-Powered-By: x}}".into(), "headers.X-Powered-By: is not known", ""),
        ("http_server_config: {headers: {X-Frame-Options: maybe}}".into(), "X-Frame-Options: \"maybe\"", "sameorigin"),
        ("http_server_config: {headers: {X-XSS-Protection: \"a\\nb\"}}".into(), "cannot stand in a header", ""),
        (format!("basic_auth_users: {{ops: '{}'}}", HASH.replace("$10$", "$17$")), "ops: has cost 17", "at most 16"),
        ("basic_auth_users: {ops: hunter2}".into(), "basic_auth_users.ops: is not a bcrypt hash", "htpasswd"),
        (format!("basic_auth_users: {{'a:b': '{HASH}'}}"), "is no name of a user", ""),
        ("rate_limit: {interval: 1s, burst: 5}".into(), "rate_limit: is not available in this version", "leave it out"),
        ("tokens: []".into(), "tokens: has no meaning here", "under `web` in the file of --config.file"),
        ("basic_auth_users: [".into(), "web.yml:1:", "mend this first"),
    ] {
        let why = read(dir.path(), &text).settings.expect_err(&text).to_string();
        assert!(why.contains(problem) && why.contains(hint), "{text}: {why}");
        assert!(!why.contains("hunter2"), "{text}: a secret is shown: {why}");
    }
}

#[test]
fn all_problems_come_at_once() {
    let dir = folder();
    let text = "tls_server_config: {cert_file: absent, min_version: SSL3, client_auth_type: x}
http_server_config: {headers: {X-Frame-Options: y}}
basic_auth_users: {ops: z}
rate_limit: {}";
    let why = read(dir.path(), text).settings.expect_err("a lot").to_string();
    assert!(why.contains("web.yml: 7 problems"), "{why}");
    let missing = load_web(&dir.path().join("absent.yml")).settings.expect_err("absent").to_string();
    assert!(missing.contains("absent.yml: cannot be read") && missing.contains("--web.config.file"), "{missing}");
}

#[test]
fn the_shipped_example_is_fine() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/web.yml");
    let settings = load_web(&file).settings.expect("the example");
    assert_eq!((settings.tls.is_some(), settings.users.len(), settings.headers.len()), (false, 0, 2));
}
