//! Who is let in, and what is said to who is not.

use std::path::PathBuf;

use super::stage::{Reached, Stage, reach};
use crate::serve::auth::{AccessSettings, Role, TokenSettings, TokenSource};

const ROLES: [(&str, Role); 4] =
    [("read", Role::Read), ("trigger", Role::Trigger), ("operate", Role::Operate), ("admin", Role::Admin)];

/// A stage with one token for each role, called as the role and made of it, and with user `ops`, password `secret`.
struct Guarded {
    stage: Stage,
    _dir: tempfile::TempDir,
}

fn token(role: &str) -> String {
    format!("{role}-{}", "0".repeat(20))
}

async fn guarded() -> Guarded {
    let dir = tempfile::tempdir().expect("a folder");
    let file = |name: &str, text: &str| -> PathBuf {
        std::fs::write(dir.path().join(name), text).expect("a file");
        dir.path().join(name)
    };
    let tokens = ROLES.map(|(name, role)| TokenSettings {
        name: name.into(),
        role,
        token: TokenSource::File(file(name, &token(name))),
    });
    let hash = bcrypt::hash("secret", 4).expect("a hash");
    let headers = "http_server_config: {headers: {X-Content-Type-Options: nosniff}}";
    let web = file("web.yml", &format!("{headers}\nbasic_auth_users: {{ops: '{hash}'}}"));
    let access = AccessSettings { tokens: tokens.into(), roles: None };
    Guarded { stage: Stage::with(&["default"], true, Some(web), access).await, _dir: dir }
}

impl Guarded {
    async fn ask(&self, line: &str, credential: &str) -> Reached {
        let credential = if credential.is_empty() { String::new() } else { format!("Authorization: {credential}\r\n") };
        self.stage.ask_with(line, &credential, "").await
    }
}

/// Request line, the least role for it; `None`: whoever asks.
const NEEDED: &[(&str, Option<Role>)] = &[
    ("GET /-/healthy", None),
    ("HEAD /-/ready", None),
    ("GET /", Some(Role::Read)),
    ("GET /metrics", Some(Role::Read)),
    ("HEAD /metrics", Some(Role::Read)),
    ("GET /autoscaling/status", Some(Role::Read)),
    ("GET /autoscaling/targets", Some(Role::Read)),
    ("GET /autoscaling/operations/x", Some(Role::Read)),
    ("POST /autoscaling/start", Some(Role::Operate)),
    ("POST /autoscaling/scale-down", Some(Role::Operate)),
    ("POST /autoscaling/operations/x/cancel", Some(Role::Operate)),
    ("POST /autoscaling/breaker/reset", Some(Role::Operate)),
    ("POST /autoscaling/thresholds", Some(Role::Admin)),
    ("DELETE /autoscaling/thresholds", Some(Role::Admin)),
    ("POST /autoscaling/operations/x/resolve", Some(Role::Admin)),
    ("POST /autoscaling/nodes/n1/drain", Some(Role::Operate)),
    ("DELETE /autoscaling/nodes/n1/drain", Some(Role::Operate)),
    ("POST /autoscaling/nodes/n1/reap", Some(Role::Admin)),
    ("POST /-/reload", Some(Role::Admin)),
    // What is not in the table
    ("POST /-/healthy", Some(Role::Admin)),
    ("PATCH /autoscaling/status", Some(Role::Admin)),
    ("GET /autoscaling/start", Some(Role::Admin)),
    ("GET /no/such/path", Some(Role::Admin)),
    ("GET //metrics", Some(Role::Admin)),
];

#[tokio::test]
async fn each_role_gets_as_far_as_it_says() {
    let guarded = guarded().await;
    for (line, needed) in NEEDED {
        for (name, role) in ROLES {
            let got = guarded.ask(line, &format!("Bearer {}", token(name))).await;
            let refused = needed.is_some_and(|needed| !role.covers(needed));
            assert_eq!(got.status == 403, refused, "{line} as {name}: {got:?}");
            assert_ne!(got.status, 401, "{line} as {name}");
        }
        for credential in ["", "Bearer no-such-token-0000", "Basic b3BzOndyb25n"] {
            let got = guarded.ask(line, credential).await;
            assert_eq!(got.status == 401, needed.is_some(), "{line} with {credential:?}: {got:?}");
        }
        let got = guarded.ask(line, "Basic b3BzOnNlY3JldA==").await;
        assert!(!matches!(got.status, 401 | 403), "{line} as user ops, whom no role is given: {got:?}");
    }
}

#[tokio::test]
async fn a_refusal_says_what_is_missing_and_every_answer_has_the_headers() {
    let guarded = guarded().await;
    let unknown = guarded.ask("GET /autoscaling/status", "").await;
    assert_eq!(unknown.header("www-authenticate"), Some("Basic realm=\"vecscale\", Bearer realm=\"vecscale\""));
    assert_eq!(unknown.header("content-type"), Some("application/problem+json"));
    assert!(unknown.body.contains("a user and password, or a bearer token"), "{unknown:?}");
    let lower = guarded.ask("POST /autoscaling/start", &format!("Bearer {}", token("read"))).await;
    assert!(lower.body.contains("token:read has role read, and this needs operate"), "{lower:?}");
    for answer in [unknown, lower, guarded.ask("GET /-/healthy", "").await] {
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"), "{answer:?}");
    }
}

#[tokio::test]
async fn a_large_body_of_a_refused_request_is_read_and_let_go() {
    let guarded = guarded().await;
    let body = "x".repeat(3 << 20);
    for (line, credential, status) in [
        ("POST /webhooks/alertmanager", String::new(), 401),
        ("POST /autoscaling/start", format!("Authorization: Bearer {}\r\n", token("read")), 403),
        ("POST /no/such/path", format!("Authorization: Bearer {}\r\n", token("admin")), 404),
        ("POST /autoscaling/start", format!("Authorization: Bearer {}\r\n", token("admin")), 413),
    ] {
        assert_eq!(guarded.stage.ask_with(line, &credential, &body).await.status, status, "{line}");
    }
}

#[tokio::test]
async fn who_it_was_is_told_to_the_controller() {
    let guarded = guarded().await;
    for (credential, who) in
        [(format!("Bearer {}", token("operate")), "token:operate"), ("Basic b3BzOnNlY3JldA==".into(), "user:ops")]
    {
        let started = guarded.ask("POST /autoscaling/rebalance", &credential).await;
        assert_eq!(started.json()["operation"]["who"], who, "{started:?}");
    }
}

#[tokio::test]
async fn names_do_not_count_where_credentials_do_and_origins_still_do() {
    let guarded = guarded().await;
    let admin = format!("Authorization: Bearer {}\r\n", token("admin"));
    let named = guarded.stage.ask_with("GET /autoscaling/status", &format!("Host: 10.0.0.5:8000\r\n{admin}"), "").await;
    assert_eq!(named.status, 200, "{named:?}");
    let foreign = format!("Host: 10.0.0.5:8000\r\nOrigin: http://evil.example.com\r\n{admin}");
    assert_eq!(guarded.stage.ask_with("POST /autoscaling/stop", &foreign, "").await.status, 403);
    let same = format!("Host: 10.0.0.5:8000\r\nOrigin: http://10.0.0.5:8000\r\n{admin}");
    assert_eq!(guarded.stage.ask_with("POST /autoscaling/stop", &same, "").await.status, 200);
}

#[tokio::test]
async fn the_telemetry_listener_asks_too() {
    let guarded = guarded().await;
    let get = async |path: &str, token: &str| {
        let credential = if token.is_empty() { String::new() } else { format!("Authorization: Bearer {token}\r\n") };
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\n{credential}Connection: close\r\n\r\n");
        reach(guarded.stage.telemetry_only, request.as_bytes()).await.status
    };
    for (path, role, status) in [
        ("/metrics", "", 401),
        ("/metrics", "read", 200),
        ("/metrics", "trigger", 403),
        ("/autoscaling/targets", "", 401),
        ("/-/healthy", "", 200),
        ("/-/ready", "", 200),
        ("/autoscaling/status", "admin", 404),
        ("/autoscaling/status", "", 401),
    ] {
        let token = if role.is_empty() { String::new() } else { token(role) };
        assert_eq!(get(path, &token).await, status, "{path} as {role:?}");
    }
}
