use std::path::PathBuf;
use std::time::Duration;

use super::super::settings::TokenSettings;
use super::*;

const TOKEN: &str = "a-token-of-some-length";

fn token(name: &str, role: Role, token: &str) -> TokenSettings {
    let token = TokenSource::Sha256(TokenDigest(sha256(token.as_bytes())));
    TokenSettings { name: name.into(), role, token }
}

fn hash(password: &str) -> PasswordHash {
    PasswordHash(bcrypt::hash(password, 4).expect("a hash"))
}

fn credentials(roles: Option<&[(&str, Role)]>) -> Credentials {
    let roles = roles.map(|roles| roles.iter().map(|(name, role)| (name.to_string(), *role)).collect());
    let tokens = vec![token("other", Role::Read, "another-token-0000"), token("ci", Role::Operate, TOKEN)];
    let users = BTreeMap::from([("ops".to_string(), hash("pass:word")), ("zoë".to_string(), hash("ünlock"))]);
    Credentials::new(&AccessSettings { tokens, roles }, users).expect("credentials")
}

fn headers(given: &[&str]) -> HeaderMap {
    let value = |text: &&str| (header::AUTHORIZATION, HeaderValue::from_str(text).expect("a value"));
    let mut headers = HeaderMap::new();
    given.iter().map(value).for_each(|(name, value)| {
        headers.append(name, value);
    });
    headers
}

fn basic(pair: &str) -> String {
    format!("Basic {}", STANDARD.encode(pair))
}

/// Name and role.
type Found = Option<(&'static str, Option<Role>)>;

#[tokio::test]
async fn a_header_says_who_it_is() {
    let credentials = credentials(Some(&[("ops", Role::Trigger)]));
    let (right, lower) = (format!("Bearer {TOKEN}"), format!("bearer  {TOKEN}"));
    let rows: [(Vec<&str>, Found); 11] = [
        (vec![&right], Some(("token:ci", Some(Role::Operate)))),
        (vec![&lower], Some(("token:ci", Some(Role::Operate)))),
        (vec!["Bearer another-token-0000"], Some(("token:other", Some(Role::Read)))),
        (vec!["Bearer a-token-of-some-lengt"], None),
        (vec!["Bearer a-token-of-some-lengthy"], None),
        (vec!["Bearer "], None),
        (vec!["Bearer"], None),
        (vec![TOKEN], None),
        (vec!["Digest x"], None),
        (vec![&right, &right], None),
        (vec![], None),
    ];
    for (given, who) in rows {
        let found = credentials.caller(&headers(&given)).await.ok();
        let found = found.as_ref().map(|caller| (caller.name.as_deref().expect("a name"), caller.role));
        assert_eq!(found, who, "{given:?}");
    }
    for (pair, who) in [
        ("ops:pass:word", Some(("user:ops", Some(Role::Trigger)))),
        ("ops:pass", None),
        ("ops:", None),
        ("ops", None),
        ("Ops:pass:word", None),
        ("nobody:pass:word", None),
        ("zoë:ünlock", Some(("user:zoë", None))),
        ("ci:a-token-of-some-length", None),
    ] {
        let found = credentials.caller(&headers(&[&basic(pair)])).await.ok();
        let found = found.as_ref().map(|caller| (caller.name.as_deref().expect("a name"), caller.role));
        assert_eq!(found, who, "{pair}");
    }
}

#[tokio::test]
async fn without_roles_every_user_may_do_everything_and_with_them_only_who_is_named() {
    for (roles, role) in
        [(None, Some(Role::Admin)), (Some(vec![]), None), (Some(vec![("ops", Role::Read)]), Some(Role::Read))]
    {
        let caller = credentials(roles.as_deref()).caller(&headers(&[&basic("ops:pass:word")])).await.expect("ops");
        assert_eq!(caller.role, role, "{roles:?}");
        let refused = caller.with(Role::Operate).is_err();
        assert_eq!(refused, role != Some(Role::Admin), "{roles:?}");
    }
}

/// The one turn at bcrypt is taken: who was found right before does not need it, and all others wait, unknown names too.
#[tokio::test]
async fn only_a_password_that_was_right_is_remembered() {
    let credentials = credentials(None);
    let ask = async |pair: &str| credentials.caller(&headers(&[&basic(pair)])).await.is_ok();
    assert!(ask("ops:pass:word").await && !ask("ops:wrong").await);
    let taken = credentials.passwords.bcrypt.clone().acquire_owned().await.expect("a turn");
    assert!(ask("ops:pass:word").await, "remembered");
    let soon = async |pair: &str| tokio::time::timeout(Duration::from_millis(50), ask(pair)).await.is_ok();
    for pair in ["ops:wrong", "zoë:ünlock", "nobody:x"] {
        assert!(!soon(pair).await, "{pair} was answered without bcrypt");
    }
    drop(taken);
    assert!(ask("zoë:ünlock").await);
}

#[tokio::test]
async fn a_flood_of_passwords_ends_at_the_door() {
    let credentials = credentials(None);
    let ask = async |pair: &str| {
        let found = credentials.caller(&headers(&[&basic(pair)])).await;
        found.map_or_else(|problem| problem.into_answer().status().as_u16(), |_| 200)
    };
    assert_eq!(ask("ops:pass:word").await, 200);
    let flood = credentials.passwords.places.try_acquire_many(PLACES as u32).expect("all places");
    for (pair, status) in [("ops:pass:word", 200), ("ops:wrong", 503), ("zoë:ünlock", 503), ("nobody:x", 503)] {
        assert_eq!(ask(pair).await, status, "{pair}");
    }
    let by_token = credentials.caller(&headers(&[&format!("Bearer {TOKEN}")])).await;
    assert!(by_token.is_ok(), "tokens do not wait");
    drop(flood);
    assert_eq!((ask("zoë:ünlock").await, ask("nobody:x").await), (200, 401));
}

/// A renewed file is no reason to ask bcrypt about everybody again, and another password is.
#[tokio::test]
async fn what_was_proven_stays_with_the_hash() {
    let before = credentials(None);
    assert!(before.caller(&headers(&[&basic("ops:pass:word")])).await.is_ok());
    let same = before.users["ops"].hash.clone();
    let _taken = before.passwords.bcrypt.clone().acquire_owned().await.expect("the turn");
    for (users, remembered) in [
        (vec![("ops", same.clone())], true),
        (vec![("ops", hash("pass:word"))], false),
        (vec![("other", same.clone())], false),
        (vec![("other", same), ("ops", hash("new"))], false),
    ] {
        let users: BTreeMap<String, PasswordHash> = users.into_iter().map(|(name, hash)| (name.into(), hash)).collect();
        let next = Credentials::new(&AccessSettings::default(), users.clone()).expect("users").succeeding(&before);
        let headers = headers(&[&basic("ops:pass:word")]);
        let asked = tokio::time::timeout(Duration::from_millis(50), next.caller(&headers));
        assert_eq!(asked.await.is_ok_and(|found| found.is_ok()), remembered, "{:?}", users.keys());
    }
}

#[tokio::test]
async fn nobody_is_asked_where_nobody_is_known() {
    let nobody = Credentials::new(&AccessSettings::default(), BTreeMap::new()).expect("none");
    assert_eq!(nobody.caller(&headers(&["Bearer x"])).await.expect("anyone"), Caller::anyone());
    assert!(!nobody.are_asked() && Caller::anyone().with(Role::Admin).is_ok());
}

#[test]
fn a_token_comes_from_a_file() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().expect("a folder");
    let write = |name: &str, text: &str| -> PathBuf {
        let file = dir.path().join(name);
        std::fs::write(&file, text).expect("a file");
        file
    };
    let good = write("good", &format!("  {TOKEN}\n\n"));
    assert_eq!(read_token(&good), Ok(TokenDigest(sha256(TOKEN.as_bytes()))));
    for (text, says) in [
        ("", "at least 16 characters"),
        ("fifteen-letters", "at least 16 characters"),
        ("two tokens in a line", "visible ASCII"),
        ("two-tokens-in-two\nlines-of-a-file", "visible ASCII"),
        ("a-tökèn-of-some-length", "visible ASCII"),
    ] {
        let why = read_token(&write("bad", text)).expect_err(text);
        assert!(why.contains(says) && (text.is_empty() || !why.contains(text)), "{text:?}: {why}");
    }
    std::fs::set_permissions(&good, std::fs::Permissions::from_mode(0o666)).expect("permissions");
    assert!(read_token(&good).expect_err("open to all").contains("chmod o-w"));
    assert!(read_token(&dir.path().join("absent")).expect_err("absent").contains("No such file"));
}

#[test]
fn the_same_token_under_two_names_is_refused() {
    let tokens = vec![token("a", Role::Read, TOKEN), token("b", Role::Admin, TOKEN)];
    let problems = Credentials::new(&AccessSettings { tokens, roles: None }, BTreeMap::new()).expect_err("twins");
    assert_eq!(problems.len(), 1);
    assert!(problems[0].starts_with("token b: the same as a's"), "{problems:?}");
}

#[test]
fn nothing_secret_is_printed() {
    let settings = token("ci", Role::Read, TOKEN);
    let printed = format!("{:?} {:?} {settings:?}", credentials(None), hash("x"));
    assert_eq!(printed.matches("$2").count() + printed.matches("[").count(), 0, "{printed}");
    assert!(printed.contains("2 tokens, 2 users") && printed.contains("<hidden>"), "{printed}");
}
