//! The commands against a controller that asks who they are.

use std::process::{Child, Command};

use crate::common::{VECSCALE, World};
use crate::{ADMIN, OPERATE, READ, secured_world, start, users, world};

/// A vecscale beside that of the world; ends with the test.
struct Started(Child);

impl Drop for Started {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs a command; gives its exit code and what it said on both outputs.
fn vecscale(world: &World, args: &[&str], token: Option<&str>) -> (Option<i32>, String) {
    let mut command = Command::new(VECSCALE);
    command.args(args).current_dir(world.dir.path()).env_remove("VECSCALE_TOKEN");
    if let Some(token) = token {
        command.env("VECSCALE_TOKEN", token);
    }
    let output = command.output().expect("vecscale ends");
    let said = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8_lossy(&said).into_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_work_over_tls_with_a_token() {
    let (mut world, _) = secured_world();
    start(&mut world).await;
    let url = world.url.clone();
    let to = |command: &[&'static str], more: &[&'static str]| -> Vec<String> {
        let all = command.iter().chain(&["--url"]).map(ToString::to_string);
        all.chain([url.clone()]).chain(more.iter().map(ToString::to_string)).collect()
    };
    let trusted = ["--ca-file", "ca.pem", "--token-file", "tokens/read"];
    let rows: [(Vec<String>, Option<&str>, i32, &str); 8] = [
        (to(&["status"], &trusted), None, 0, "n1"),
        (to(&["status"], &["--ca-file", "ca.pem"]), Some(READ), 0, "n1"),
        (
            to(&["start"], &["--ca-file", "ca.pem"]),
            Some(READ),
            1,
            "token:dashboard has role read, and this needs operate",
        ),
        (to(&["start"], &["--ca-file", "ca.pem"]), Some(OPERATE), 0, ""),
        (to(&["history"], &trusted), Some(ADMIN), 0, "token:oncall"),
        (to(&["status"], &["--ca-file", "ca.pem"]), None, 1, "--token-file"),
        (to(&["status"], &["--token-file", "tokens/read"]), None, 1, "--ca-file"),
        (to(&["status"], &["--ca-file", "ca.pem", "--token-file", "absent"]), None, 2, "absent"),
    ];
    for (args, token, code, says) in rows {
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let (ended, said) = vecscale(&world, &args, token);
        assert_eq!(ended, Some(code), "{args:?}: {said}\n{}", world.logs());
        assert!(said.contains(says), "{args:?}: {says:?} is not in {said}");
        for secret in [READ, OPERATE, ADMIN] {
            assert!(!said.contains(secret), "{args:?} shows a token: {said}");
        }
    }
}

/// Starts on all addresses, and ends by itself if that is refused.
fn started_openly(world: &World, args: &[String]) -> (Option<i32>, String) {
    let output = world.command().arg("--web.listen-address=0.0.0.0:0").args(args).output().expect("it ends");
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn without_authentication_no_other_address_is_listened_on() {
    let world = world();
    std::fs::write(world.path("tls-only.yml"), crate::TLS).expect("a file");
    crate::Authority::signing().issue().write_to(&world);
    let config = std::fs::read_to_string(world.path("config.yaml")).expect("the configuration");
    let without = config.split("web:").next().expect("a part");
    std::fs::write(world.path("config.yaml"), without).expect("the configuration");
    for args in [vec![], vec![format!("--web.config.file={}", world.path("tls-only.yml").display())]] {
        let (code, said) = started_openly(&world, &args);
        assert_eq!(code, Some(2), "{args:?}: {said}");
        assert!(said.contains("not a loopback address") && said.contains("basic_auth_users"), "{said}");
    }
}

#[tokio::test]
async fn with_authentication_any_address_may_be_listened_on_and_any_name_is_ours() {
    let world = world();
    std::fs::write(world.path("web.yml"), users()).expect("the web configuration");
    let log = std::fs::File::create(world.path("open.log")).expect("a log");
    let child = world
        .command()
        .args(["--web.listen-address=0.0.0.0:0", "--web.config.file=web.yml"])
        .stderr(log.try_clone().expect("a second handle"))
        .stdout(log)
        .spawn();
    let _open = Started(child.expect("starting vecscale"));
    let logs = || std::fs::read_to_string(world.path("open.log")).expect("the log");
    let address = async |_: &World| {
        let logs = logs();
        let line = logs.lines().find(|line| line.contains("listening") && line.contains("API"))?;
        let port = line.split("0.0.0.0:").nth(1)?.split(|c: char| !c.is_ascii_digit()).next()?;
        Some(format!("http://127.0.0.1:{port}"))
    };
    let url = world.until("it listens", std::time::Duration::from_secs(30), address).await;
    let http = crate::common::http();
    let status = async |host: &str, token: &str| {
        let request = http.get(format!("{url}/autoscaling/status")).header("Host", host).bearer_auth(token);
        request.send().await.expect("an answer").status().as_u16()
    };
    assert_eq!(status("scale.example.com", READ).await, 200, "{}", logs());
    assert_eq!(status("scale.example.com", "wrong-wrong-wrong").await, 401);
    let page = http.post(format!("{url}/autoscaling/stop")).bearer_auth(OPERATE);
    let foreign = page.header("Origin", "https://evil.example.com").send().await.expect("an answer");
    assert_eq!(foreign.status(), 403, "a page of another origin, with a credential that a browser remembers");
}
